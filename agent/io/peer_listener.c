#include "agent/io/peer_listener.h"

#include "agent/io/peer_address.h"
#include "director/base/list.h"
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#define LISTENER_BACKLOG          128
#define LISTENER_ACCEPTS_PER_TURN 16u

struct peer_listener {
    uv_poll_t poll;
    uv_timer_t timer; /* runs while connections wait for their preamble, and after accept failed for want of an fd */
    int fd;
    uint16_t port;
    struct peer_mesh *meshes[PEER_CHANNEL_COUNT];
    struct list pending; /* oldest first */
    unsigned pending_count;
    unsigned handles;
    bool closing, deaf;
    void (*closed)(void *context);
    void *closed_context;
};

struct pending {
    struct peer_listener *listener;
    struct list link;
    uv_poll_t poll;
    int fd;
    uint64_t deadline_us;
    uint8_t preamble[PEER_PREAMBLE_BYTES];
    unsigned filled;
};

static void listener_ready(uv_poll_t *poll, int status, int events);

static void handle_closed(struct peer_listener *listener)
{
    if (--listener->handles)
        return;
    void (*closed)(void *) = listener->closed;
    void *context = listener->closed_context;
    close(listener->fd);
    free(listener);
    if (closed)
        closed(context);
}

static void pending_closed(uv_handle_t *handle)
{
    struct pending *pending = container_of((uv_poll_t *)handle, struct pending, poll);
    struct peer_listener *listener = pending->listener;
    if (pending->fd >= 0)
        close(pending->fd);
    free(pending);
    handle_closed(listener);
}

/* uv_close() takes the fd out of the loop at once, so it may go to another loop when this has returned. */
static int pending_end(struct pending *pending)
{
    int fd = pending->fd;
    list_remove(&pending->link);
    pending->listener->pending_count--;
    uv_close((uv_handle_t *)&pending->poll, pending_closed);
    return fd;
}

static void pending_ready(uv_poll_t *poll, int status, int events)
{
    struct pending *pending = container_of(poll, struct pending, poll);
    struct peer_listener *listener = pending->listener;
    (void)events;
    if (status == 0) {
        ssize_t got = recv(pending->fd, pending->preamble + pending->filled, sizeof(pending->preamble) - pending->filled,
                           MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got > 0) {
            pending->filled += (unsigned)got;
            if (pending->filled < sizeof(pending->preamble))
                return;
            const uint8_t *p = pending->preamble;
            if (p[0] == 'D' && p[1] == 'P' && p[2] == 1 && p[3] < PEER_CHANNEL_COUNT && listener->meshes[p[3]]) {
                struct peer_mesh *mesh = listener->meshes[p[3]];
                int fd = pending_end(pending);
                pending->fd = -1;
                peer_mesh_adopt(mesh, fd);
                return;
            }
        }
    }
    (void)pending_end(pending); /* not one of us: no answer */
}

static void listener_tick(uv_timer_t *timer)
{
    struct peer_listener *listener = container_of(timer, struct peer_listener, timer);
    uint64_t now_us = peer_clock_us();
    while (!list_empty(&listener->pending)) {
        struct pending *oldest = list_first(&listener->pending, struct pending, link);
        if (oldest->deadline_us > now_us)
            break;
        (void)pending_end(oldest);
    }
    if (listener->deaf) {
        listener->deaf = false;
        (void)uv_poll_start(&listener->poll, UV_READABLE, listener_ready);
    }
    if (list_empty(&listener->pending))
        (void)uv_timer_stop(timer);
}

static void listener_take(struct peer_listener *listener, int fd)
{
    struct pending *pending = calloc(1, sizeof(*pending));
    if (!pending || uv_poll_init(listener->poll.loop, &pending->poll, fd) < 0) {
        free(pending);
        close(fd);
        return;
    }
    listener->handles++;
    pending->listener = listener;
    pending->fd = fd;
    pending->deadline_us = peer_clock_us() + PEER_LISTENER_PREAMBLE_MS * 1000u;
    if (listener->pending_count == PEER_LISTENER_PENDING_MAX)
        (void)pending_end(list_first(&listener->pending, struct pending, link));
    list_append(&listener->pending, &pending->link);
    listener->pending_count++;
    if (uv_poll_start(&pending->poll, UV_READABLE, pending_ready) < 0)
        (void)pending_end(pending);
    else if (!uv_is_active((uv_handle_t *)&listener->timer))
        (void)uv_timer_start(&listener->timer, listener_tick, 250, 250);
}

static void listener_ready(uv_poll_t *poll, int status, int events)
{
    struct peer_listener *listener = container_of(poll, struct peer_listener, poll);
    (void)status, (void)events;
    for (unsigned i = 0; i < LISTENER_ACCEPTS_PER_TURN; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            listener_take(listener, fd);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            /* It would spin: rest a little. */
            listener->deaf = true;
            (void)uv_poll_stop(poll);
            (void)uv_timer_start(&listener->timer, listener_tick, 250, 250);
        }
        if (errno != ECONNABORTED && errno != EINTR)
            break;
    }
}

static int listener_bind(const char *address, uint16_t port, int *ret_fd)
{
    struct sockaddr_storage to;
    socklen_t size = sizeof(struct sockaddr_in6);
    bool all = !address || !*address;
    if (!all && peer_address_numeric(address, port, &to, &size) < 0)
        return -EINVAL;
    if (all) {
        struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_any};
        memset(&to, 0, sizeof(to));
        memcpy(&to, &any, sizeof(any));
    }
    int zero = 0, one = 1;
    int fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 && all && errno == EAFNOSUPPORT) { /* a kernel without IPv6 */
        struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
        memset(&to, 0, sizeof(to));
        memcpy(&to, &any, sizeof(any));
        size = sizeof(any);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    if (fd < 0)
        return -errno;
    if (all && to.ss_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&to, size) < 0 || listen(fd, LISTENER_BACKLOG) < 0) {
        int result = -errno;
        close(fd);
        return result;
    }
    *ret_fd = fd;
    return 0;
}

int peer_listener_new(uv_loop_t *loop, const char *address, uint16_t port, struct peer_mesh *const meshes[static PEER_CHANNEL_COUNT],
                      struct peer_listener **ret_listener, struct error *error)
{
    const char *where = address && *address ? address : "all addresses";
    struct peer_listener *listener = calloc(1, sizeof(*listener));
    if (!listener)
        return error_set(error, -ENOMEM, "No memory to listen for peers");
    int result = listener_bind(address, port, &listener->fd);
    if (result < 0) {
        free(listener);
        return error_set(error, result, "Cannot listen for peers on %s, TCP port %u: %s", where, port, strerror(-result));
    }
    struct sockaddr_storage bound;
    socklen_t size = sizeof(bound);
    if (getsockname(listener->fd, (struct sockaddr *)&bound, &size) == 0)
        listener->port = ntohs(bound.ss_family == AF_INET ? ((struct sockaddr_in *)&bound)->sin_port
                                                          : ((struct sockaddr_in6 *)&bound)->sin6_port);
    memcpy(listener->meshes, meshes, sizeof(listener->meshes));
    list_init(&listener->pending);
    result = uv_poll_init(loop, &listener->poll, listener->fd);
    if (result < 0) {
        close(listener->fd);
        free(listener);
        return error_set(error, result, "The loop does not take the socket for peers: %s", uv_strerror(result));
    }
    (void)uv_timer_init(loop, &listener->timer); /* cannot fail */
    listener->handles = 2;
    result = uv_poll_start(&listener->poll, UV_READABLE, listener_ready);
    if (result < 0) {
        peer_listener_close(listener, NULL, NULL);
        return error_set(error, result, "The loop does not watch the socket for peers: %s", uv_strerror(result));
    }
    *ret_listener = listener;
    return 0;
}

uint16_t peer_listener_port(const struct peer_listener *listener)
{
    return listener->port;
}

static void listener_poll_closed(uv_handle_t *handle)
{
    handle_closed(container_of((uv_poll_t *)handle, struct peer_listener, poll));
}

static void listener_timer_closed(uv_handle_t *handle)
{
    handle_closed(container_of((uv_timer_t *)handle, struct peer_listener, timer));
}

void peer_listener_close(struct peer_listener *listener, void (*closed)(void *context), void *context)
{
    ASSERT(!listener->closing);
    listener->closing = true;
    listener->closed = closed;
    listener->closed_context = context;
    list_foreach_safe(node, after, &listener->pending) (void)pending_end(list_entry(node, struct pending, link));
    uv_close((uv_handle_t *)&listener->poll, listener_poll_closed);
    uv_close((uv_handle_t *)&listener->timer, listener_timer_closed);
}
