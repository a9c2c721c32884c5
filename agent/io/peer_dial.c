/* Whom to dial, and when: a target is dialled whenever no link to its node is up, after 50 ms, then 100, ... 1 s. */
#include "agent/io/peer_address.h"
#include "agent/io/peer_mesh_private.h"

#include <errno.h>
#include <string.h>

#define SELF_DIAL_US 30000000u

struct peer_target *dial_new(struct peer_mesh *mesh, const char *address)
{
    struct peer_target *target = calloc(1, sizeof(*target));
    if (!target)
        return NULL;
    target->mesh = mesh;
    target->backoff_us = MESH_DIAL_FIRST_US;
    (void)snprintf(target->address, sizeof(target->address), "%s", address);
    list_init(&target->link);
    return target;
}

void dial_free(struct peer_target *target)
{
    list_remove(&target->link);
    list_foreach(node, &target->mesh->links)
    {
        struct peer *peer = list_entry(node, struct peer, link);
        if (peer->target == target)
            peer->target = NULL;
    }
    if (target->resolving) {
        target->orphan = true;
        (void)uv_cancel((uv_req_t *)&target->resolver);
        return;
    }
    free(target);
}

/* Of two nodes the one with the lower uuid dials; the other waits a little. Nobody waits for a seed. */
static uint64_t dial_patience_us(const struct peer_target *target)
{
    return !target->seed && uuid_compare(&target->mesh->hello.node, &target->uuid) > 0 ? MESH_DIAL_HIGHER_US : 0;
}

void dial_retry(struct peer_target *target, bool was_up)
{
    if (was_up)
        target->backoff_us = MESH_DIAL_FIRST_US;
    target->next_dial_us = peer_clock_us() + target->backoff_us + (was_up ? dial_patience_us(target) : 0);
    if (!was_up)
        target->backoff_us = MIN(2 * target->backoff_us, (uint64_t)MESH_DIAL_LAST_US);
}

static void dial_failed(struct peer_target *target, int code, const char *words)
{
    char remote[PEER_ADDRESS_SIZE];
    struct peer_mesh *mesh = target->mesh;
    memcpy(remote, target->address, sizeof(remote));
    dial_retry(target, false);
    mesh_report(mesh, code, remote, words); /* may free the target */
}

static void dial_connect(struct peer_target *target, const struct sockaddr *address, socklen_t size)
{
    struct error error;
    target->dialling = link_dialled(target->mesh, target, address, size, &error);
    if (!target->dialling)
        dial_failed(target, error.code, error.message);
}

static void dial_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
    struct peer_target *target = container_of(request, struct peer_target, resolver);
    struct peer_mesh *mesh = target->mesh;
    target->resolving = false;
    if (target->orphan) {
        free(target);
    } else if (status < 0) {
        char words[128];
        (void)snprintf(words, sizeof(words), "the name cannot be resolved: %s", uv_strerror(status));
        dial_failed(target, -ENXIO, words);
    } else {
        /* another of its addresses at each attempt */
        unsigned count = 0;
        for (struct addrinfo *one = list; one; one = one->ai_next)
            count++;
        struct addrinfo *one = list;
        for (unsigned skip = target->attempts++ % count; skip; skip--)
            one = one->ai_next;
        dial_connect(target, one->ai_addr, one->ai_addrlen);
    }
    if (list)
        uv_freeaddrinfo(list);
    mesh_handle_closed(mesh);
}

static void dial_start(struct peer_target *target)
{
    char host[PEER_ADDRESS_SIZE], service[8];
    uint16_t port;
    struct sockaddr_storage address;
    socklen_t size;
    if (peer_address_split(target->address, PEER_PORT, host, &port) < 0) {
        dial_failed(target, -EINVAL, "this is no address: write HOST or HOST:PORT");
        return;
    }
    if (peer_address_numeric(host, port, &address, &size) == 0) {
        dial_connect(target, (struct sockaddr *)&address, size);
        return;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    (void)snprintf(service, sizeof(service), "%u", port);
    int result = uv_getaddrinfo(target->mesh->loop, &target->resolver, dial_resolved, host, service, &hints);
    if (result < 0) {
        dial_failed(target, result, "the name cannot be looked up");
        return;
    }
    target->resolving = true;
    target->mesh->handles++;
}

void dial_tick(struct peer_target *target, uint64_t now_us)
{
    struct peer_mesh *mesh = target->mesh;
    if (target->dialling || target->resolving)
        return;
    if (target->next_dial_us == 0)
        target->next_dial_us = now_us + dial_patience_us(target);
    if (now_us < target->next_dial_us)
        return;
    if (target->seed && uuid_equal(&target->uuid, &mesh->hello.node)) {
        /* our own address: look again after a while, it may have become another's */
        memset(&target->uuid, 0, sizeof(target->uuid));
        target->next_dial_us = now_us + SELF_DIAL_US;
        return;
    }
    if (!uuid_is_zero(&target->uuid) && peer_mesh_find_uuid(mesh, &target->uuid)) {
        target->backoff_us = MESH_DIAL_FIRST_US;
        return;
    }
    dial_start(target);
}
