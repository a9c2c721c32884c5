/* Our CPG group on a libuv loop: join, views, messages in agreed order, and the loss of corosync.
 *
 * The happy path: connect and join in the thread pool (they block on a stopped corosync) -> on_view with ourselves in it ->
 * on_message and further on_view in one total order. corosync dies -> on_lost at once -> reconnect by itself, with backoff ->
 * on_view. Between on_lost and the next on_view nothing may be served and send answers -ENOTCONN.
 *
 * Agreed order is not replication: a sender may see its own message in a view that nobody else saw. Messages queued in one
 * view may be delivered in the next: whoever cares stamps them with the view id. Messages from processes that are not in the
 * current view are dropped. All calls and callbacks in the loop's thread; callbacks are never made from inside a call. */
#ifndef DIRECTOR_AGENT_IO_CPG_GROUP_H
#define DIRECTOR_AGENT_IO_CPG_GROUP_H

#include "agent/io/cpg_view.h"
#include <uv.h>

#define CPG_GROUP_MESSAGE_MAX_BYTES 65536u
#define CPG_GROUP_QUEUE_MAX         4096u           /* messages that wait; then -EAGAIN */
#define CPG_GROUP_QUEUE_MAX_BYTES   (16u << 20)     /* or bytes that wait */
#define CPG_GROUP_FLIGHT_MAX        128u            /* own messages sent and not yet delivered (libcpg spins above ~280) */
#define CPG_GROUP_FLIGHT_MAX_BYTES  (512u << 10)    /* libcpg's request buffer is 1 MiB */

struct cpg_group;

struct cpg_group_callbacks {
    /* A new complete view. The pointer is valid until the callback returns. */
    void (*on_view)(const struct cpg_view *view, void *context);
    /* A message of a member of the current view, ourselves included. Bytes are valid until the callback returns. */
    void (*on_message)(uint32_t nodeid, uint32_t pid, const void *bytes, size_t size, void *context);
    /* corosync is gone, or does not understand us: stop serving now. The others learn of it at once only when corosync itself
     * ended; when we give up a connection to a living corosync they see "process down" no sooner than 2 s later. What was
     * queued is dropped. Only after at least one on_view. */
    void (*on_lost)(const char *words, void *context);
};

/* Start to join the group (name: 1..127 bytes). 0 or negative errno. Never blocks. Free with cpg_group_close(). */
MUST_CHECK int cpg_group_new(uv_loop_t *loop, const char *name, const struct cpg_group_callbacks *callbacks,
                             void *context, struct cpg_group **ret_group);
/* Multicast a copy of bytes to the group, behind what already waits. -EMSGSIZE, -ENOTCONN (no view now), -EAGAIN (queue
 * full: try after deliveries), -ENOMEM. 0 means: will be delivered to every member of this or a later view in which
 * we still are, unless on_lost comes first. May be called from callbacks. */
MUST_CHECK int cpg_group_send(struct cpg_group *group, const void *bytes, size_t size);
/* Leave the group (the others see LEFT), disconnect, free. No callback but closed (may be NULL) comes afterwards.
 * With a stopped corosync this waits for its end: stop corosync_process too. May be called from callbacks. */
void cpg_group_close(struct cpg_group *group, void (*closed)(void *context), void *context);

/* Our node id as corosync says, 0 while not connected; our pid in the group is getpid(). */
uint32_t cpg_group_nodeid(const struct cpg_group *group);

struct cpg_group_statistics {
    uint64_t sent, delivered, own_delivered, try_again, foreign, ghosts, views, losses;
    unsigned queued, in_flight;
    size_t queued_bytes;
};
void cpg_group_statistics(const struct cpg_group *group, struct cpg_group_statistics *ret_statistics);

#endif
