/* Reading: uv_poll says readable; one readv() takes what there is, the rest of a long data segment straight into its
 * task's buffer and what follows into the server's shared buffer. Writing: all replies of a loop turn leave by one
 * writev(); a full socket waits for writability, and the connection's bounded slots stop the rest. */
#include "target/io/target_socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READS_PER_EVENT = 4 };

static void poll_ready(uv_poll_t *poll, int status, int events);

static void set_events(struct target_socket *socket)
{
    int events = 0;
    if (socket->closing)
        return;
    if (iscsi_connection_wants_input(&socket->iscsi))
        events |= UV_READABLE;
    if (socket->blocked)
        events |= UV_WRITABLE;
    if (!events) /* paused until replies have left: still hear of the end */
        events = UV_DISCONNECT;
    if (events == socket->events)
        return;
    socket->events = events;
    if (uv_poll_start(&socket->poll, events, poll_ready) < 0)
        target_socket_close(socket);
}

static void poll_closed(uv_handle_t *handle)
{
    struct target_socket *socket = container_of((uv_poll_t *)handle, struct target_socket, poll);
    struct target_server *server = socket->server;
    (void)close(socket->fd);
    free(socket);
    server->socket_count--;
    target_server_socket_closed(server);
}

void target_socket_close(struct target_socket *socket)
{
    if (socket->closing)
        return;
    socket->closing = true;
    list_remove(&socket->flush_link);
    list_remove(&socket->link);
    iscsi_connection_done(&socket->iscsi);
    list_remove(&socket->flush_link); /* ending the session may have asked for a flush */
    uv_close((uv_handle_t *)&socket->poll, poll_closed);
}

void target_socket_flush(struct target_socket *socket)
{
    struct iovec iov[3 * ISCSI_SLOTS];
    unsigned count;
    if (socket->closing)
        return;
    socket->blocked = false;
    while ((count = iscsi_connection_output(&socket->iscsi, iov, ARRAY_SIZE(iov))) > 0) {
        size_t total = 0;
        for (unsigned i = 0; i < count; i++)
            total += iov[i].iov_len;
        ssize_t n = writev(socket->fd, iov, (int)count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            target_socket_close(socket);
            return;
        }
        if (n > 0)
            iscsi_connection_sent(&socket->iscsi, (size_t)n);
        if (n < 0 || (size_t)n < total) {
            socket->blocked = true;
            break;
        }
    }
    if (socket->iscsi.failed || (socket->iscsi.closing && !socket->blocked)) {
        target_socket_close(socket);
        return;
    }
    set_events(socket);
}

/* 1: more may be there; 0: enough for now; negative: close. */
static int read_some(struct target_socket *socket)
{
    struct target_server *server = socket->server;
    struct iovec iov[2];
    unsigned count = 0;
    bool direct = iscsi_connection_direct(&socket->iscsi, &iov[0]);
    size_t room = sizeof(server->receive);
    if (direct)
        room += iov[count++].iov_len;
    iov[count++] = (struct iovec){server->receive, sizeof(server->receive)};
    ssize_t n = readv(socket->fd, iov, (int)count);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if (n == 0)
        return -ECONNRESET;
    uint64_t now_ms = server->target.now_ms = uv_now(server->loop);
    size_t rest = (size_t)n;
    if (direct) {
        size_t placed = MIN(rest, iov[0].iov_len);
        int status = iscsi_connection_direct_done(&socket->iscsi, placed, now_ms);
        if (status < 0)
            return status;
        rest -= placed;
    }
    int status = rest ? iscsi_connection_input(&socket->iscsi, server->receive, rest, now_ms) : 0;
    return status < 0 ? status : (size_t)n == room;
}

static void poll_ready(uv_poll_t *poll, int status, int events)
{
    struct target_socket *socket = container_of(poll, struct target_socket, poll);
    if (status < 0 || (events & UV_DISCONNECT && !(events & UV_READABLE))) {
        target_socket_close(socket);
        return;
    }
    for (unsigned i = 0; events & UV_READABLE && i < READS_PER_EVENT; i++) {
        if (!iscsi_connection_wants_input(&socket->iscsi))
            break;
        int result = read_some(socket);
        if (result < 0) {
            /* what is already answered (a reject, a login failure) may still leave */
            target_socket_flush(socket);
            target_socket_close(socket);
            return;
        }
        if (result == 0)
            break;
    }
    if (socket->closing)
        return;
    if (list_empty(&socket->flush_link)) { /* flushed at the end of the turn, with what else comes up in it */
        list_append(&socket->server->flushes, &socket->flush_link);
        target_server_want_flush(socket->server);
    }
}

static void changed(struct iscsi_connection *iscsi)
{
    struct target_socket *socket = container_of(iscsi, struct target_socket, iscsi);
    if (socket->closing || !list_empty(&socket->flush_link))
        return;
    list_append(&socket->server->flushes, &socket->flush_link);
    target_server_want_flush(socket->server);
}

int target_socket_open(struct target_server *server, int fd, const char *local, const char *peer)
{
    int one = 1;
    struct target_socket *socket = malloc(sizeof(*socket));
    if (!socket)
        return -ENOMEM;
    socket->server = server;
    socket->fd = fd;
    socket->events = 0;
    socket->closing = socket->blocked = false;
    list_init(&socket->flush_link);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    int status = uv_poll_init(server->loop, &socket->poll, fd);
    if (status < 0) {
        free(socket);
        return status;
    }
    iscsi_connection_init(&socket->iscsi, &server->environment, uv_now(server->loop));
    socket->iscsi.changed = changed;
    (void)snprintf(socket->iscsi.local, sizeof(socket->iscsi.local), "%s", local);
    (void)snprintf(socket->iscsi.peer, sizeof(socket->iscsi.peer), "%s", peer);
    list_append(&server->sockets, &socket->link);
    server->socket_count++;
    set_events(socket);
    return 0;
}

void target_socket_tick(struct target_socket *socket, uint64_t now_ms)
{
    if (!socket->closing && iscsi_connection_tick(&socket->iscsi, now_ms) < 0)
        target_socket_close(socket);
}
