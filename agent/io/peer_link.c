/* A socket that drives a session. Happy path: link_dialled -> connected -> TLS and hello in the session -> mesh_admit ->
 * frames. Every failure ends in link_fail, from the loop: last words of the session are written, the user is told, the
 * socket lingers half a second so that the words are not lost to a reset (RFC 9293 §3.6.1), and is closed. */
#include "agent/io/peer_address.h"
#include "agent/io/peer_listener.h"
#include "agent/io/peer_mesh_private.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#define LINK_READS_PER_EVENT 4u
#define LINK_WRITE_VECTORS   64u

static void link_ready(uv_poll_t *poll, int status, int events);

static void link_options(const struct peer_mesh *mesh, int fd)
{
    /* Best effort: each only makes a dead peer noticed earlier or a small frame faster. */
    int one = 1, idle_s = 5, interval_s = 2, probes = 3;
    unsigned timeout_ms = (unsigned)(mesh->silence_us / 1000);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

static void link_poll_closed(uv_handle_t *handle)
{
    struct peer *peer = container_of((uv_poll_t *)handle, struct peer, poll);
    struct peer_mesh *mesh = peer->mesh;
    close(peer->fd);
    peer_session_free(peer->session);
    free(peer);
    mesh_handle_closed(mesh);
}

static void link_close(struct peer *peer)
{
    if (peer->state == LINK_CLOSED)
        return;
    peer->state = LINK_CLOSED;
    list_remove(&peer->link);
    list_remove(&peer->dirty);
    uv_close((uv_handle_t *)&peer->poll, link_poll_closed);
}

void link_destroy(struct peer *peer)
{
    if (peer->state == LINK_UP || peer->state == LINK_OPEN)
        link_write(peer); /* what is queued gets one chance */
    link_close(peer);
}

/* NULL when memory or the loop refuses; fd is closed then. */
static struct peer *link_new(struct peer_mesh *mesh, int fd)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    if (!peer || uv_poll_init(mesh->loop, &peer->poll, fd) < 0) {
        free(peer);
        close(fd);
        return NULL;
    }
    mesh->handles++;
    peer->mesh = mesh;
    peer->fd = fd;
    list_append(&mesh->links, &peer->link);
    list_init(&peer->dirty);
    link_options(mesh, fd);
    return peer;
}

static int link_session_begin(struct peer *peer)
{
    struct peer_mesh *mesh = peer->mesh;
    const struct peer_session_config config = {
        .tls = mesh->tls,
        .pool = mesh->pool,
        .role = peer->dialled ? PEER_TLS_CLIENT : PEER_TLS_SERVER,
        .hello = &mesh->hello,
        .heartbeat_us = mesh->heartbeat_us,
        .silence_us = mesh->silence_us,
        .handshake_us = MESH_HANDSHAKE_US,
        .queue_bytes = mesh->queue_bytes,
    };
    return peer_session_new(&config, peer_clock_us(), &peer->session);
}

static int link_watch(struct peer *peer, int events)
{
    if (peer->events == events)
        return 0;
    peer->events = events;
    return uv_poll_start(&peer->poll, events, link_ready);
}

struct peer *link_accepted(struct peer_mesh *mesh, int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);
    struct peer *peer = link_new(mesh, fd);
    if (!peer)
        return NULL;
    (void)getpeername(fd, (struct sockaddr *)&address, &size);
    peer_address_format((struct sockaddr *)&address, peer->remote);
    peer->state = LINK_OPEN;
    if (link_session_begin(peer) < 0 || link_watch(peer, UV_READABLE) < 0) {
        link_close(peer);
        return NULL;
    }
    return peer;
}

struct peer *link_dialled(struct peer_mesh *mesh, struct peer_target *target, const struct sockaddr *address, socklen_t size,
                          struct error *error)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return (void)error_set(error, -errno, "no socket: %s", strerror(errno)), NULL;
    if (connect(fd, address, size) < 0 && errno != EINPROGRESS) {
        (void)error_set(error, -errno, "cannot connect: %s", strerror(errno));
        close(fd);
        return NULL;
    }
    struct peer *peer = link_new(mesh, fd);
    if (!peer)
        return (void)error_set(error, -ENOMEM, "no memory for a link"), NULL;
    peer_address_format(address, peer->remote);
    peer->state = LINK_CONNECTING;
    peer->dialled = true;
    peer->deadline_us = peer_clock_us() + MESH_HANDSHAKE_US / 2;
    if (link_watch(peer, UV_WRITABLE) < 0) {
        link_close(peer);
        return (void)error_set(error, -ENOMEM, "the socket cannot be watched"), NULL;
    }
    peer->target = target;
    return peer;
}

/* ---- ending ---- */

static bool code_is_dull(int code)
{
    return code == -ELOOP || code == -EALREADY; /* we found ourselves; a duplicate */
}

void link_fail(struct peer *peer, int code, const char *words)
{
    struct peer_mesh *mesh = peer->mesh;
    bool was_up = peer->state == LINK_UP, connected = peer->state != LINK_CONNECTING;
    if (peer->state == LINK_LINGER || peer->state == LINK_CLOSED)
        return;
    if (peer->session)
        peer_session_refuse(peer->session, code, words);
    struct peer_target *known = was_up ? mesh_target_find(mesh, &peer_session_hello(peer->session)->node) : NULL;
    if (known)
        known->last_heard_us = MAX(known->last_heard_us, peer_session_last_heard_us(peer->session));
    peer->state = LINK_LINGER;
    peer->deadline_us = peer_clock_us() + MESH_LINGER_US;
    if (peer->target) {
        if (peer->target->dialling == peer)
            peer->target->dialling = NULL;
        dial_retry(peer->target, was_up);
        if (code == -ELOOP && peer->target->seed)
            peer->target->uuid = mesh->hello.node;
        if (known == peer->target)
            known = NULL;
        peer->target = NULL;
    }
    if (known)
        dial_retry(known, was_up);
    if (connected && peer->session && peer_session_queued(peer->session) > 0 && code != -ETIMEDOUT) {
        link_write(peer);
        (void)shutdown(peer->fd, SHUT_WR);
    } else {
        peer->deadline_us = 0; /* nothing to say: closed at once, below */
    }
    if (was_up)
        mesh->callbacks->down(peer, code, words, mesh->context);
    else if (!code_is_dull(code))
        mesh_report(mesh, code, peer->remote, words);
    if (peer->state == LINK_LINGER && (peer->deadline_us == 0 || link_watch(peer, UV_READABLE) < 0))
        link_close(peer);
}

/* ---- writing ---- */

void link_write(struct peer *peer)
{
    struct iovec iov[LINK_WRITE_VECTORS];
    for (;;) {
        unsigned count = peer_session_output(peer->session, iov, LINK_WRITE_VECTORS);
        if (count == 0)
            break;
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
        ssize_t wrote = sendmsg(peer->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (peer->state != LINK_LINGER)
                (void)link_watch(peer, UV_READABLE | UV_WRITABLE);
            return;
        }
        if (wrote < 0)
            break; /* the reading side learns the same and ends the link */
        peer->statistics.writes++;
        peer->statistics.bytes_sent += (uint64_t)wrote;
        peer_session_output_consumed(peer->session, (size_t)wrote);
    }
    if (peer->state == LINK_OPEN || peer->state == LINK_UP)
        (void)link_watch(peer, UV_READABLE);
}

/* ---- reading ---- */

static void link_event(struct peer *peer, struct peer_session_event *event)
{
    struct peer_mesh *mesh = peer->mesh;
    const struct peer_mesh_callbacks *callbacks = mesh->callbacks;
    struct error error;
    switch (event->kind) {
    case PEER_SESSION_INTRODUCED: {
        int result = mesh_admit(peer, &error);
        if (result < 0)
            link_fail(peer, result, error.message);
        break;
    }
    case PEER_SESSION_HELLO:
        mesh_renewed(peer);
        break;
    case PEER_SESSION_FRAME:
        peer->statistics.frames_received++;
        callbacks->frame(peer, &event->header, event->payload, mesh->context);
        peer_buffer_unref(event->payload);
        break;
    case PEER_SESSION_HEARTBEAT:
        if (callbacks->heartbeat_answered)
            callbacks->heartbeat_answered(peer, event->time_us, mesh->context);
        break;
    case PEER_SESSION_HEARTBEAT_ACKED:
        if (callbacks->heartbeat_acked)
            callbacks->heartbeat_acked(peer, event->time_us, mesh->context);
        break;
    }
}

/* All events of the input at hand. false: the link is no longer to be read. */
static bool link_drain(struct peer *peer, uint64_t now_us)
{
    struct peer_mesh *mesh = peer->mesh;
    for (;;) {
        struct peer_session_event event;
        struct error error;
        int result = peer_session_next(peer->session, now_us, &event, &error);
        if (result < 0) {
            link_fail(peer, result, error.message);
            return false;
        }
        if (result == 0) {
            if (peer_session_queued(peer->session) || peer->change_waits)
                mesh_mark_dirty(peer);
            return true;
        }
        link_event(peer, &event);
        if (mesh->closing || peer->doomed || (peer->state != LINK_OPEN && peer->state != LINK_UP))
            return false;
    }
}

static void link_read(struct peer *peer)
{
    struct peer_mesh *mesh = peer->mesh;
    for (unsigned i = 0; i < LINK_READS_PER_EVENT; i++) {
        ssize_t got = recv(peer->fd, mesh->receive, MESH_RECEIVE_BYTES, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (got < 0) {
            int code = -errno;
            link_fail(peer, code, strerror(-code));
            return;
        }
        if (got == 0) {
            link_fail(peer, -ECONNRESET, "it closed the connection");
            return;
        }
        peer->statistics.reads++;
        peer->statistics.bytes_received += (uint64_t)got;
        peer_session_input(peer->session, mesh->receive, (size_t)got);
        if (!link_drain(peer, peer_clock_us()) || (size_t)got < MESH_RECEIVE_BYTES)
            return;
    }
}

static void link_connected(struct peer *peer)
{
    const uint8_t preamble[PEER_PREAMBLE_BYTES] = {'D', 'P', 1, (uint8_t)peer->mesh->channel};
    int code = 0;
    socklen_t size = sizeof(code);
    if (getsockopt(peer->fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0)
        code = errno;
    /* MSG_MORE: leaves with the ClientHello that follows */
    if (code == 0 && send(peer->fd, preamble, sizeof(preamble), MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE) != sizeof(preamble))
        code = errno ? errno : EPIPE;
    if (code == 0)
        code = -link_session_begin(peer);
    if (code) {
        char words[96];
        (void)snprintf(words, sizeof(words), "cannot connect: %s", strerror(code));
        link_fail(peer, -code, words);
        return;
    }
    peer->state = LINK_OPEN;
    if (link_watch(peer, UV_READABLE) < 0) {
        link_fail(peer, -ENOMEM, "the socket cannot be watched");
        return;
    }
    (void)link_drain(peer, peer_clock_us()); /* no input: makes the ClientHello */
}

static void link_linger(struct peer *peer)
{
    char discard[4096];
    ssize_t got = recv(peer->fd, discard, sizeof(discard), MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
        link_close(peer);
}

static void link_ready(uv_poll_t *poll, int status, int events)
{
    struct peer *peer = container_of(poll, struct peer, poll);
    if (status < 0 && peer->state != LINK_LINGER && peer->state != LINK_CLOSED) {
        /* libuv stopped the watch on POLLERR: the socket says why. */
        int code = 0;
        socklen_t size = sizeof(code);
        char words[96];
        if (getsockopt(peer->fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0 || code == 0)
            code = ECONNRESET;
        (void)snprintf(words, sizeof(words), "%s%s", peer->state == LINK_CONNECTING ? "cannot connect: " : "", strerror(code));
        link_fail(peer, -code, words);
        return;
    }
    switch (peer->state) {
    case LINK_CONNECTING:
        link_connected(peer);
        break;
    case LINK_OPEN:
    case LINK_UP:
        if (events & UV_WRITABLE)
            link_write(peer);
        if (events & UV_READABLE)
            link_read(peer);
        break;
    case LINK_LINGER:
        if (status < 0)
            link_close(peer);
        else
            link_linger(peer);
        break;
    case LINK_CLOSED:
        break;
    }
}

/* ---- time ---- */

void link_tick(struct peer *peer, uint64_t now_us)
{
    struct error error;
    int result;
    switch (peer->state) {
    case LINK_CONNECTING:
        if (now_us >= peer->deadline_us)
            link_fail(peer, -ETIMEDOUT, "cannot connect: nobody answers");
        break;
    case LINK_OPEN:
    case LINK_UP:
        result = peer_session_tick(peer->session, now_us, &error);
        if (result < 0)
            link_fail(peer, result, error.message);
        else if (peer_session_queued(peer->session))
            mesh_mark_dirty(peer);
        break;
    case LINK_LINGER:
        if (now_us >= peer->deadline_us)
            link_close(peer);
        break;
    case LINK_CLOSED:
        break;
    }
}
