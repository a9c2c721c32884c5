/* Membership, the user's calls and the turn of the loop: frames queued in a turn are encrypted and written at the end of the
 * same turn, before the loop sleeps; the timer ticks every 50 ms. */
#include "agent/io/peer_mesh_private.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MESH_PAUSE_US 500000u /* a tick so late means that we, not the peers, were silent */

struct adopted {
    struct mail mail;
    int fd;
};

uint64_t peer_clock_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* ---- reports ---- */

static uint64_t report_key(int code, const char *remote)
{
    const char *port = strrchr(remote, ':');
    size_t size = port ? (size_t)(port - remote) : strlen(remote);
    uint64_t hash = 1469598103934665603u ^ (unsigned)code; /* FNV-1a over the host */
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (uint8_t)remote[i]) * 1099511628211u;
    return hash;
}

void mesh_report(struct peer_mesh *mesh, int code, const char *remote, const char *words)
{
    static const char *const channels[PEER_CHANNEL_COUNT] = {"control", "data"};
    char sentence[PEER_ADDRESS_SIZE + 320];
    uint64_t now_us = peer_clock_us(), key = report_key(code, remote);
    struct mesh_report *slot = &mesh->reports[0];
    if (!mesh->callbacks->error || mesh->closing)
        return;
    for (unsigned i = 0; i < MESH_REPORTS; i++) {
        struct mesh_report *report = &mesh->reports[i];
        if (report->key == key && report->at_us && now_us - report->at_us < MESH_REPORT_US)
            return;
        if (report->key == key || (slot->key != key && report->at_us < slot->at_us))
            slot = report;
    }
    *slot = (struct mesh_report){key, now_us};
    (void)snprintf(sentence, sizeof(sentence), "Peer link (%s) with %s: %s", channels[mesh->channel], remote, words);
    mesh->callbacks->error(code, sentence, mesh->context);
}

/* ---- the turn of the loop ---- */

static void mesh_finish(struct peer_mesh *mesh)
{
    void (*closed)(void *) = mesh->closed;
    void *context = mesh->closed_context;
    peer_tls_context_free(mesh->tls);
    peer_pool_free(mesh->pool);
    free(mesh->receive);
    free(mesh);
    if (closed)
        closed(context);
}

void mesh_handle_closed(struct peer_mesh *mesh)
{
    ASSERT(mesh->handles > 0);
    if (--mesh->handles == 0)
        mesh_finish(mesh);
}

static void flush_peer(struct peer *peer)
{
    struct peer_mesh *mesh = peer->mesh;
    if (peer->doomed) {
        link_fail(peer, peer->doom.code, peer->doom.message);
        return;
    }
    if (peer->change_waits && peer->state == LINK_UP) {
        peer->change_waits = false;
        if (mesh->callbacks->changed)
            mesh->callbacks->changed(peer, peer_session_hello(peer->session), mesh->context);
        if (mesh->closing)
            return;
    }
    if (peer->state == LINK_OPEN || peer->state == LINK_UP)
        link_write(peer);
}

static void mesh_flush(struct turn *turn)
{
    struct peer_mesh *mesh = container_of(turn, struct peer_mesh, flush);
    struct list batch;
    list_init(&batch);
    list_splice(&batch, &mesh->dirty);
    while (!list_empty(&batch)) {
        struct peer *peer = list_first(&batch, struct peer, dirty);
        list_remove(&peer->dirty);
        flush_peer(peer);
    }
}

void mesh_mark_dirty(struct peer *peer)
{
    if (!list_empty(&peer->dirty) || peer->mesh->closing)
        return;
    list_append(&peer->mesh->dirty, &peer->dirty);
    turn_want(&peer->mesh->flush);
}

static void mesh_tick(uv_timer_t *timer)
{
    struct peer_mesh *mesh = container_of(timer, struct peer_mesh, timer);
    uint64_t now_us = peer_clock_us();
    bool paused = now_us - mesh->last_tick_us > MESH_PAUSE_US;
    mesh->last_tick_us = now_us;
    if (now_us >= mesh->next_trim_us) {
        peer_pool_trim(mesh->pool);
        mesh->next_trim_us = now_us + MESH_TRIM_US;
    }
    if (!paused) { /* else first read what came meanwhile */
        list_foreach_safe(node, after, &mesh->links)
        {
            link_tick(list_entry(node, struct peer, link), now_us);
            if (mesh->closing)
                return;
        }
    }
    list_foreach_safe(node, after, &mesh->targets)
    {
        struct peer_target *target = list_entry(node, struct peer_target, link);
        unsigned changes = mesh->target_changes;
        dial_tick(target, now_us);
        if (mesh->closing || changes != mesh->target_changes)
            return; /* a callback changed the list: go on at the next tick */
    }
}

/* ---- who is who ---- */

struct peer_target *mesh_target_find(struct peer_mesh *mesh, const struct uuid *uuid)
{
    list_foreach(node, &mesh->targets)
    {
        struct peer_target *target = list_entry(node, struct peer_target, link);
        if (!target->seed && uuid_equal(&target->uuid, uuid))
            return target;
    }
    return NULL;
}

/* 0 for a stranger, and for a node of another cluster, listed or not. */
static uint16_t mesh_nodeid_of(struct peer_mesh *mesh, const struct peer_hello *hello)
{
    struct peer_target *target = mesh_target_find(mesh, &hello->node);
    bool foreign = !uuid_is_zero(&mesh->hello.cluster) && !uuid_is_zero(&hello->cluster) &&
                   !uuid_equal(&mesh->hello.cluster, &hello->cluster);
    return target && !foreign ? target->nodeid : 0;
}

/* Both ends come to the same answer: see peer_mesh.h. */
static bool link_replaces(const struct peer *old, const struct peer *new)
{
    struct peer_mesh *mesh = new->mesh;
    const struct peer_hello *was = peer_session_hello(old->session), *is = peer_session_hello(new->session);
    bool we_are_lower = uuid_compare(&mesh->hello.node, &is->node) < 0;
    bool old_preferred = old->dialled == we_are_lower, new_preferred = new->dialled == we_are_lower;
    if (was->boot != is->boot || old->doomed)
        return true;
    if (peer_clock_us() - peer_session_last_heard_us(old->session) > 4 * mesh->heartbeat_us)
        return true; /* half open: the peer has given it up already */
    return new_preferred && !old_preferred;
}

static struct peer *mesh_up_by_uuid(struct peer_mesh *mesh, const struct uuid *uuid)
{
    list_foreach(node, &mesh->links)
    {
        struct peer *peer = list_entry(node, struct peer, link);
        if (peer->state == LINK_UP && uuid_equal(&peer_session_hello(peer->session)->node, uuid))
            return peer;
    }
    return NULL;
}

static int mesh_admit_stranger(struct peer_mesh *mesh, struct error *error)
{
    unsigned count = 0;
    if (mesh->channel != PEER_CHANNEL_CONTROL)
        return error_set(error, -EACCES, "it is no member of the cluster as far as known here");
    list_foreach(node, &mesh->links)
    {
        struct peer *peer = list_entry(node, struct peer, link);
        count += peer->state == LINK_UP && peer->nodeid == 0;
    }
    if (count >= MESH_STRANGERS_MAX)
        return error_set(error, -EUSERS, "there are %u newcomers already; it may try again later", count);
    return 0;
}

int mesh_admit(struct peer *peer, struct error *error)
{
    struct peer_mesh *mesh = peer->mesh;
    const struct peer_hello *hello = peer_session_hello(peer->session);
    struct peer_target *target = peer->target;
    if (target && target->dialling == peer)
        target->dialling = NULL;
    if (target && target->seed)
        target->uuid = hello->node;

    uint16_t nodeid = mesh_nodeid_of(mesh, hello);
    int result = nodeid ? 0 : mesh_admit_stranger(mesh, error);
    if (result < 0)
        return result;
    struct peer *old = mesh_up_by_uuid(mesh, &hello->node);
    if (old && !link_replaces(old, peer))
        return error_set(error, -EALREADY, "a link to it exists already");
    if (old) {
        bool anew = peer_session_hello(old->session)->boot != hello->boot;
        link_fail(old, anew ? -ESTALE : -EALREADY, anew ? "it started anew" : "another link to it took over");
        if (mesh->closing)
            return 0;
        nodeid = mesh_nodeid_of(mesh, hello); /* down() may have changed the set */
    }
    peer->nodeid = nodeid;
    peer->state = LINK_UP;
    (void)peer_session_admit(peer->session, peer_clock_us()); /* a failure ends the link from peer_session_next() */
    mesh->callbacks->up(peer, hello, mesh->context);
    return 0;
}

static void peer_doom(struct peer *peer, int code, const char *words)
{
    if (peer->state != LINK_UP || peer->doomed)
        return;
    peer->doomed = true;
    (void)error_set(&peer->doom, code, "%s", words);
    peer_session_refuse(peer->session, code, words);
    mesh_mark_dirty(peer);
}

/* The nodeid of one that is up, after the set, our cluster or its hello changed. */
static void peer_identify(struct peer *peer)
{
    struct peer_mesh *mesh = peer->mesh;
    const struct peer_hello *hello = peer_session_hello(peer->session);
    uint16_t nodeid = mesh_nodeid_of(mesh, hello);
    if (nodeid == peer->nodeid)
        return;
    if (nodeid == 0 && (mesh->channel != PEER_CHANNEL_CONTROL || !mesh_target_find(mesh, &hello->node))) {
        peer_doom(peer, -ECANCELED, "it is no member of the cluster any more");
        return;
    }
    peer->nodeid = nodeid;
    peer->change_waits = true;
    mesh_mark_dirty(peer);
}

static void mesh_identify(struct peer_mesh *mesh)
{
    list_foreach(node, &mesh->links)
    {
        struct peer *peer = list_entry(node, struct peer, link);
        if (peer->state == LINK_UP && !peer->doomed)
            peer_identify(peer);
    }
}

void mesh_renewed(struct peer *peer)
{
    peer_identify(peer);
    peer->change_waits = true;
    mesh_mark_dirty(peer);
}

/* ---- begin and end ---- */

static void mesh_receive(struct mail *mail, void *context)
{
    struct peer_mesh *mesh = context;
    struct adopted *adopted = container_of(mail, struct adopted, mail);
    int fd = adopted->fd;
    free(adopted);
    if (mesh->closing) {
        close(fd);
        return;
    }
    unsigned count = 0;
    struct peer *oldest = NULL;
    list_foreach(node, &mesh->links)
    {
        struct peer *peer = list_entry(node, struct peer, link);
        if (peer->state == LINK_OPEN && !peer->dialled) {
            oldest = oldest ? oldest : peer;
            count++;
        }
    }
    if (count >= MESH_UNKNOWN_MAX)
        link_fail(oldest, -ECONNABORTED, "too many connections that do not introduce themselves");
    if (mesh->closing)
        close(fd);
    else if (!link_accepted(mesh, fd))
        mesh_report(mesh, -ENOMEM, "a peer", "no memory for another link");
}

void peer_mesh_adopt(struct peer_mesh *mesh, int fd)
{
    struct adopted *adopted = malloc(sizeof(*adopted));
    if (!adopted) {
        close(fd);
        return;
    }
    adopted->fd = fd;
    list_init(&adopted->mail.link);
    mailbox_post(&mesh->mailbox, &adopted->mail);
}

static void hello_fix(struct peer_mesh *mesh)
{
    mesh->hello.channel = mesh->channel;
    mesh->hello.version_min = PEER_VERSION_MIN;
    mesh->hello.version_max = PEER_VERSION;
}

int peer_mesh_new(const struct peer_mesh_config *config, struct peer_mesh **ret_mesh, struct error *error)
{
    bool data = config->channel == PEER_CHANNEL_DATA;
    struct peer_mesh *mesh = calloc(1, sizeof(*mesh));
    if (!mesh)
        return error_set(error, -ENOMEM, "No memory for the peer links");
    mesh->loop = config->loop;
    mesh->channel = config->channel;
    mesh->callbacks = config->callbacks;
    mesh->context = config->context;
    mesh->hello = config->hello;
    hello_fix(mesh);
    unsigned heartbeat_ms = config->heartbeat_ms ? config->heartbeat_ms
                                                 : (data ? PEER_HEARTBEAT_DATA_MS : PEER_HEARTBEAT_CONTROL_MS);
    unsigned silence_ms = config->silence_ms ? config->silence_ms : (data ? PEER_SILENCE_DATA_MS : PEER_SILENCE_CONTROL_MS);
    mesh->heartbeat_us = heartbeat_ms * UINT64_C(1000);
    mesh->silence_us = silence_ms * UINT64_C(1000);
    mesh->queue_bytes = config->queue_bytes ? config->queue_bytes : PEER_QUEUE_DEFAULT_BYTES;
    list_init(&mesh->links);
    list_init(&mesh->targets);
    list_init(&mesh->dirty);
    mesh->last_tick_us = peer_clock_us();
    mesh->pool = peer_pool_new();
    mesh->receive = malloc(MESH_RECEIVE_BYTES);
    int result = mesh->pool && mesh->receive ? peer_tls_context_new(config->psk, &mesh->tls, error)
                                             : error_set(error, -ENOMEM, "No memory for the peer links");
    if (result == 0) {
        result = mailbox_init(&mesh->mailbox, mesh->loop, mesh_receive, mesh);
        if (result < 0)
            (void)error_set(error, result, "The loop takes no mailbox for the peer links: %s", strerror(-result));
    }
    if (result < 0) {
        peer_tls_context_free(mesh->tls);
        peer_pool_free(mesh->pool);
        free(mesh->receive);
        free(mesh);
        return result;
    }
    unsigned tick_ms = MAX(MIN(heartbeat_ms / 2, MESH_TICK_MS), 1u);
    (void)uv_timer_init(mesh->loop, &mesh->timer); /* these cannot fail */
    turn_init(&mesh->flush, mesh->loop, mesh_flush);
    (void)uv_timer_start(&mesh->timer, mesh_tick, 0, tick_ms);
    mesh->handles = 3;
    *ret_mesh = mesh;
    return 0;
}

static void mesh_timer_closed(uv_handle_t *handle)
{
    mesh_handle_closed(container_of((uv_timer_t *)handle, struct peer_mesh, timer));
}

static void mesh_flush_closed(struct turn *turn)
{
    mesh_handle_closed(container_of(turn, struct peer_mesh, flush));
}

static void mesh_mailbox_closed(struct mailbox *mailbox)
{
    mesh_handle_closed(container_of(mailbox, struct peer_mesh, mailbox));
}

void peer_mesh_close(struct peer_mesh *mesh, void (*closed)(void *context), void *context)
{
    ASSERT(!mesh->closing);
    mesh->closing = true;
    mesh->closed = closed;
    mesh->closed_context = context;
    list_foreach_safe(node, after, &mesh->links) link_destroy(list_entry(node, struct peer, link));
    list_foreach_safe(node, after, &mesh->targets) dial_free(list_entry(node, struct peer_target, link));
    mailbox_close(&mesh->mailbox, mesh_mailbox_closed);
    uv_close((uv_handle_t *)&mesh->timer, mesh_timer_closed);
    turn_close(&mesh->flush, mesh_flush_closed);
}

void peer_mesh_set_hello(struct peer_mesh *mesh, const struct peer_hello *hello)
{
    struct peer_hello next = *hello;
    next.node = mesh->hello.node;
    next.boot = mesh->hello.boot;
    mesh->hello = next;
    hello_fix(mesh);
    list_foreach(node, &mesh->links)
    {
        struct peer *peer = list_entry(node, struct peer, link);
        if ((peer->state == LINK_OPEN || peer->state == LINK_UP) && !peer->doomed) {
            /* A failure shows at the next tick, from the loop. */
            (void)peer_session_set_hello(peer->session, &mesh->hello);
            mesh_mark_dirty(peer);
        }
    }
    mesh_identify(mesh);
}

/* ---- the sets ---- */

static struct peer_target *dial_match(struct peer_mesh *mesh, bool seed, const struct uuid *uuid, const char *address)
{
    list_foreach(node, &mesh->targets)
    {
        struct peer_target *target = list_entry(node, struct peer_target, link);
        if (target->seed == seed && (seed ? strcmp(target->address, address) == 0 : uuid_equal(&target->uuid, uuid)))
            return target;
    }
    return NULL;
}

/* Free the targets of a kind that are not listed, and clear the mark of the others. */
static void targets_sweep(struct peer_mesh *mesh, bool seed, struct list *added)
{
    list_foreach_safe(node, after, &mesh->targets)
    {
        struct peer_target *target = list_entry(node, struct peer_target, link);
        if (target->seed != seed)
            continue;
        if (!target->listed)
            dial_free(target);
        else
            target->listed = false;
    }
    list_splice(&mesh->targets, added);
    mesh->target_changes++;
    if (!mesh->closing) /* dial at once */
        (void)uv_timer_start(&mesh->timer, mesh_tick, 0, uv_timer_get_repeat(&mesh->timer));
}

static int targets_undo(struct peer_mesh *mesh, struct list *added)
{
    list_foreach_safe(node, after, added) dial_free(list_entry(node, struct peer_target, link));
    list_foreach(node, &mesh->targets) list_entry(node, struct peer_target, link)->listed = false;
    return -ENOMEM;
}

int peer_mesh_set_peers(struct peer_mesh *mesh, const struct peer_node *nodes, size_t count)
{
    struct list added;
    list_init(&added);
    for (size_t i = 0; i < count; i++) { /* allocate before anything changes */
        if (uuid_equal(&nodes[i].uuid, &mesh->hello.node) || dial_match(mesh, false, &nodes[i].uuid, NULL))
            continue;
        struct peer_target *target = dial_new(mesh, nodes[i].address);
        if (!target)
            return targets_undo(mesh, &added);
        target->uuid = nodes[i].uuid;
        target->nodeid = nodes[i].nodeid;
        list_append(&added, &target->link);
    }
    for (size_t i = 0; i < count; i++) {
        struct peer_target *target = dial_match(mesh, false, &nodes[i].uuid, NULL);
        if (!target)
            continue;
        target->listed = true;
        target->nodeid = nodes[i].nodeid;
        if (strncmp(target->address, nodes[i].address, sizeof(target->address)) != 0) {
            (void)snprintf(target->address, sizeof(target->address), "%s", nodes[i].address);
            target->next_dial_us = 0;
            target->backoff_us = MESH_DIAL_FIRST_US;
        }
    }
    targets_sweep(mesh, false, &added);
    mesh_identify(mesh);
    return 0;
}

int peer_mesh_set_seeds(struct peer_mesh *mesh, const char *const *addresses, size_t count)
{
    struct list added;
    list_init(&added);
    ASSERT(mesh->channel == PEER_CHANNEL_CONTROL);
    for (size_t i = 0; i < count; i++) {
        struct peer_target *target = dial_match(mesh, true, NULL, addresses[i]);
        if (target) {
            target->listed = true;
            continue;
        }
        target = dial_new(mesh, addresses[i]);
        if (!target)
            return targets_undo(mesh, &added);
        target->seed = true;
        list_append(&added, &target->link);
    }
    targets_sweep(mesh, true, &added);
    return 0;
}

/* ---- sending and looking up ---- */

int peer_send(struct peer *peer, const struct peer_header *header, const struct iovec *iov, unsigned iov_count)
{
    if (peer->state != LINK_UP)
        return -ENOTCONN;
    int result = peer_session_send_begin(peer->session, header, iov, iov_count);
    for (unsigned i = 0; i < iov_count && result == 0; i++) {
        const uint8_t *from = iov[i].iov_base;
        size_t left = iov[i].iov_len;
        while (left && result == 0) {
            size_t part = MIN(left, (size_t)MESH_WRITE_BYTES);
            result = peer_session_send_part(peer->session, from, part);
            from += part;
            left -= part;
            /* What is much leaves while it is in the cache, and the peer decrypts it while we encrypt what follows. */
            if (result == 0 && !(peer->events & UV_WRITABLE) && peer_session_queued(peer->session) >= MESH_WRITE_BYTES)
                link_write(peer);
        }
    }
    if (result == 0) {
        peer->statistics.frames_sent++;
        mesh_mark_dirty(peer);
    }
    return result;
}

int peer_mesh_send(struct peer_mesh *mesh, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov,
                   unsigned iov_count)
{
    struct peer *peer = peer_mesh_find(mesh, nodeid);
    return peer ? peer_send(peer, header, iov, iov_count) : -ENOTCONN;
}

void peer_close(struct peer *peer, const char *words)
{
    peer_doom(peer, -ECANCELED, words ? words : "closed");
}

struct peer *peer_mesh_next(struct peer_mesh *mesh, struct peer *peer)
{
    for (struct list *node = peer ? peer->link.next : mesh->links.next; node != &mesh->links; node = node->next) {
        struct peer *next = list_entry(node, struct peer, link);
        if (next->state == LINK_UP && !next->doomed)
            return next;
    }
    return NULL;
}

struct peer *peer_mesh_find(struct peer_mesh *mesh, uint16_t nodeid)
{
    struct peer *peer = NULL;
    if (nodeid == 0)
        return NULL;
    while ((peer = peer_mesh_next(mesh, peer)) && peer->nodeid != nodeid)
        ;
    return peer;
}

struct peer *peer_mesh_find_uuid(struct peer_mesh *mesh, const struct uuid *uuid)
{
    struct peer *peer = mesh_up_by_uuid(mesh, uuid);
    return peer && !peer->doomed ? peer : NULL;
}

uint64_t peer_mesh_last_heard_us(struct peer_mesh *mesh, uint16_t nodeid)
{
    struct peer *peer = peer_mesh_find(mesh, nodeid);
    if (peer)
        return peer_session_last_heard_us(peer->session);
    list_foreach(node, &mesh->targets)
    {
        struct peer_target *target = list_entry(node, struct peer_target, link);
        if (!target->seed && target->nodeid == nodeid)
            return target->last_heard_us;
    }
    return 0;
}

uint16_t peer_nodeid(const struct peer *peer)
{
    return peer->nodeid;
}

const struct peer_hello *peer_hello(const struct peer *peer)
{
    return peer_session_hello(peer->session);
}

uint32_t peer_version(const struct peer *peer)
{
    return peer_session_version(peer->session);
}

const char *peer_remote(const struct peer *peer)
{
    return peer->remote;
}

uint64_t peer_last_heard_us(const struct peer *peer)
{
    return peer_session_last_heard_us(peer->session);
}

void peer_statistics(const struct peer *peer, struct peer_statistics *ret_statistics)
{
    *ret_statistics = peer->statistics;
    ret_statistics->queued_bytes = peer_session_queued(peer->session);
}

void peer_set_context(struct peer *peer, void *context)
{
    peer->user = context;
}

void *peer_context(const struct peer *peer)
{
    return peer->user;
}
