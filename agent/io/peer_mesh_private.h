/* Shared by peer_mesh.c (membership, API), peer_link.c (a socket that drives a session) and peer_dial.c (whom to dial, and
 * when). Not for others. */
#ifndef DIRECTOR_AGENT_IO_PEER_MESH_PRIVATE_H
#define DIRECTOR_AGENT_IO_PEER_MESH_PRIVATE_H

#include "agent/io/peer_mesh.h"
#include "agent/io/peer_session.h"
#include "director/base/list.h"
#include "director/base/mailbox.h"
#include "director/base/turn.h"

#define MESH_TICK_MS             50u
#define MESH_TRIM_US             10000000u
#define MESH_RECEIVE_BYTES       (256u << 10)
#define MESH_WRITE_BYTES         (128u << 10) /* queued output that is written before the turn's end */
#define MESH_UNKNOWN_MAX         256u /* links that have not introduced themselves; the oldest is dropped beyond */
#define MESH_STRANGERS_MAX       64u
#define MESH_HANDSHAKE_US        3000000u
#define MESH_LINGER_US           500000u
#define MESH_DIAL_FIRST_US       50000u
#define MESH_DIAL_LAST_US        1000000u
#define MESH_DIAL_HIGHER_US      300000u /* the node with the higher uuid leaves the first try to the other */
#define MESH_REPORT_US           10000000u
#define MESH_REPORTS             16u

/* A link from socket to grave:
 *   CONNECTING --connected--> OPEN --hello accepted--> UP      (accepted ones begin OPEN)
 *   any --failure--> LINGER (last words go out, input is discarded) --EOF, deadline--> CLOSED --uv_close--> freed
 * A struct peer is shown to the user while UP only. */
enum link_state { LINK_CONNECTING, LINK_OPEN, LINK_UP, LINK_LINGER, LINK_CLOSED };

struct peer_target;

struct peer {
    struct peer_mesh *mesh;
    enum link_state state;
    struct list link;  /* mesh->links */
    struct list dirty; /* mesh->dirty, while there is something to flush, to tell or to end */
    uv_poll_t poll;
    int fd, events;
    struct peer_session *session;
    struct peer_target *target; /* that we dialled; NULL when accepted */
    bool dialled;
    char remote[PEER_ADDRESS_SIZE];
    uint64_t deadline_us; /* to be connected, or of the lingering */
    /* While UP. */
    uint16_t nodeid;
    bool change_waits;
    void *user;
    struct peer_statistics statistics;
    /* To be ended from the loop. */
    bool doomed;
    struct error doom;
};

/* A node that we keep a link to. */
struct peer_target {
    struct peer_mesh *mesh;
    struct list link; /* mesh->targets */
    bool seed;
    bool listed; /* mark and sweep in set_peers, set_seeds */
    struct uuid uuid; /* of a seed: who answered there last, or zero */
    uint16_t nodeid;
    char address[PEER_ADDRESS_SIZE];
    struct peer *dialling;
    uint64_t next_dial_us, backoff_us;
    uint64_t last_heard_us; /* on links that are gone */
    unsigned attempts;
    bool resolving, orphan; /* orphan: freed when the resolver calls back */
    uint16_t port;
    uv_getaddrinfo_t resolver;
};

struct mesh_report {
    uint64_t key, at_us;
};

struct peer_mesh {
    uv_loop_t *loop;
    enum peer_channel channel;
    const struct peer_mesh_callbacks *callbacks;
    void *context;
    struct peer_hello hello;
    struct peer_tls_context *tls;
    struct peer_pool *pool;
    uint8_t *receive; /* one for all links: each drains its input before it returns */
    uint64_t heartbeat_us, silence_us;
    size_t queue_bytes;
    struct list links, targets, dirty;
    unsigned target_changes; /* counts changes of the list, for those who walk it */
    uv_timer_t timer;
    struct turn flush; /* wanted while dirty is not empty: once per loop turn, before the loop sleeps */
    struct mailbox mailbox;
    uint64_t last_tick_us, next_trim_us;
    struct mesh_report reports[MESH_REPORTS];
    unsigned handles; /* to be closed before the end */
    bool closing;
    void (*closed)(void *context);
    void *closed_context;
};

/* peer_mesh.c */
void mesh_handle_closed(struct peer_mesh *mesh);
/* Put the link on the dirty list and see that the flush runs this turn. */
void mesh_mark_dirty(struct peer *peer);
/* error() of the user, unless the like was said of late. */
void mesh_report(struct peer_mesh *mesh, int code, const char *remote, const char *words);
/* The peer introduced itself: 0: it is up now, told to the user. Negative with words: refuse it. */
int mesh_admit(struct peer *peer, struct error *error);
/* The peer, up, sent another hello. */
void mesh_renewed(struct peer *peer);
struct peer_target *mesh_target_find(struct peer_mesh *mesh, const struct uuid *uuid);

/* peer_link.c */
struct peer *link_accepted(struct peer_mesh *mesh, int fd);
struct peer *link_dialled(struct peer_mesh *mesh, struct peer_target *target, const struct sockaddr *address,
                          socklen_t size, struct error *error);
void link_write(struct peer *peer);
void link_tick(struct peer *peer, uint64_t now_us);
/* End it now: tells the user down() when it was up. From the loop only. */
void link_fail(struct peer *peer, int code, const char *words);
void link_destroy(struct peer *peer); /* at the mesh's end: no callback */

/* peer_dial.c */
struct peer_target *dial_new(struct peer_mesh *mesh, const char *address);
void dial_free(struct peer_target *target);
void dial_tick(struct peer_target *target, uint64_t now_us);
/* A dial of it failed or its link is gone. */
void dial_retry(struct peer_target *target, bool was_up);

#endif
