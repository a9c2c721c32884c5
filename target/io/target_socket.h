/* One TCP connection of an initiator: moves bytes between the socket and the sans-I/O iscsi_connection. */
#ifndef DIRECTOR_TARGET_IO_TARGET_SOCKET_H
#define DIRECTOR_TARGET_IO_TARGET_SOCKET_H

#include "target/core/iscsi_connection.h"
#include <uv.h>

#define TARGET_RECEIVE_BYTES 131072u /* of the server's shared receive buffer */

struct target_socket {
    struct iscsi_connection iscsi; /* first */
    struct list link;              /* in server->sockets */
    struct list flush_link;        /* in server->flushes while it has something to send or to close */
    struct target_server *server;
    uv_poll_t poll;
    int fd;
    int events; /* what poll waits for */
    bool closing, blocked;
};

/* The parts of the server that sockets use. */
struct target_server {
    uv_loop_t *loop;
    struct target target;
    struct iscsi_environment environment;
    struct list sockets, listeners, flushes;
    uint32_t sessions_max;
    unsigned socket_count;
    uv_check_t check;     /* after the events of a turn: one writev per connection that has something to say */
    uv_idle_t idle;       /* keeps the turn from sleeping while flushes wait */
    uv_timer_t timer;     /* a second: keep-alive, memory */
    uv_timer_t deadlines; /* 50 ms: only while commands are held or forwarded */
    unsigned handles;     /* open libuv handles of the server itself */
    bool closing, idle_active, in_tick;
    void (*closed)(void *context);
    void *closed_context;
    uint8_t receive[TARGET_RECEIVE_BYTES];
};

/* Take over an accepted, non-blocking socket. 0 or negative errno (the caller closes fd then). */
MUST_CHECK int target_socket_open(struct target_server *server, int fd, const char *local, const char *peer);
/* Close and free, now or later; the session ends now. */
void target_socket_close(struct target_socket *socket);
/* Send what there is; closes the socket when it failed or is done. */
void target_socket_flush(struct target_socket *socket);
/* Once a second. */
void target_socket_tick(struct target_socket *socket, uint64_t now_ms);
/* A socket is gone (target_server.c). */
void target_server_socket_closed(struct target_server *server);
/* Something waits in server->flushes (target_server.c). */
void target_server_want_flush(struct target_server *server);

#endif
