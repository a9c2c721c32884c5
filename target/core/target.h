/* The target of one node without its sockets: logical units and where their owner is, iSCSI targets and their LUN maps,
 * sessions, and the way of a command: to the device server here, to the owner's node, or into the waiting room.
 * target/io/target_server.h is the documented face of all this; here is what the iSCSI side and the shell of it need.
 *
 * T1  A task given to target_submit() is done exactly once, by task->done, possibly before target_submit() returns.
 * T2  A command that may have been executed by an owner that was lost is never sent again; it ends ABORTED COMMAND.
 *     Commands that change nothing are sent again.
 * T3  A command is executed by an owner only under the epoch its sender knew.
 *
 * Happy path: target_submit -> route -> scsi_unit_execute -> done; or route -> forward -> target_forward_receive(reply)
 * -> done. Failures: no owner: hold, until a state change routes again or the deadline ends it (02/04/0A); link lost or
 * stale: again or ABORTED COMMAND by T2. One thread; time comes as now_ms. */
#ifndef DIRECTOR_TARGET_CORE_TARGET_H
#define DIRECTOR_TARGET_CORE_TARGET_H

#include "target/core/scsi_unit.h"
#include "target/core/target_copy.h"
#include "target/core/target_forward.h"

#define TARGET_LU_BUCKETS      256u
#define TARGET_REQUEST_BUCKETS 256u
#define TARGET_FOREIGN_MAX     8192u
#define TARGET_COMMIT_AGAIN_MS 1000u /* a commit of reservations without an outcome is asked for again */
#define TARGET_LOST_MS         100u /* how long an owner of the past may still answer */

struct target_lu {
    struct list link; /* in target->lus[] */
    struct scsi_unit unit;
    enum target_lu_state state;
    uint16_t owner;
    uint64_t epoch;
    struct list held, forwarded; /* target_task.link */
    struct target_lu_stats stats;
    unsigned users;              /* tasks and functions that point here */
};

struct target_iqn {
    struct list link;
    char name[TARGET_NAME_BYTES];
    struct target_lu *luns[TARGET_LUNS_MAX];
};

/* What the device server sees as an I_T nexus: one iSCSI session of this node. */
struct target_session {
    struct list link; /* in target->sessions */
    uint64_t id;
    struct scsi_nexus_id nexus;
    struct target_iqn *iqn; /* NULL: discovery, or the target was removed */
    uint8_t announced[TARGET_LUNS_MAX / 8];
    struct target_copy_result copies[TARGET_COPY_RESULTS];
    uint16_t attentions[TARGET_LUNS_MAX]; /* what this node itself reports: ALUA, capacity, LUN map */
    void (*drop)(struct target_session *session); /* asks the connection to close; it calls target_session_end() */
};

enum target_task_place { TARGET_TASK_IDLE, TARGET_TASK_LOCAL, TARGET_TASK_HELD, TARGET_TASK_FORWARDED };

struct target_task {
    struct scsi_task scsi; /* cdb, tag, buffer, data_out_bytes, expected_bytes from the submitter; results for it */
    struct target_session *session;
    uint64_t lun; /* as on the wire: SAM-5 §4.7 */
    void (*done)(struct target_task *task);

    struct target *target;
    struct target_lu *lu;
    struct list link, request_link;
    enum target_task_place place;
    uint64_t request, deadline_ms, lost_ms;
    uint16_t to;
    bool internal; /* of the copy manager: it names its unit, not a LUN */
    bool sending, ended; /* the frame's memory is with the peer link; done is due when it comes back */
    uint8_t frame[FORWARD_REQUEST_MAX_BYTES];
};

struct target {
    struct scsi_shared shared;
    struct data_pool pool;
    const struct target_forward_operations *forward;
    void *forward_context;
    uint32_t hold_ms;
    uint64_t now_ms;
    struct list lus[TARGET_LU_BUCKETS];
    struct list iqns, sessions;
    struct list removed; /* LUs that wait for their last task */
    struct list ending;  /* target_task.link: done but for a frame that a link still reads */
    struct list requests[TARGET_REQUEST_BUCKETS]; /* target_task.request_link */
    struct list functions; /* function_part of target_function.c, held or at other nodes */
    uint64_t next_session, next_request;
    unsigned foreign_count, held_count, session_count, copies;
    struct foreign_task *foreign_free; /* kept for the next ones */
    /* Commit the reservations of an LU that this node owns in this epoch, in place of the version (I14); target_set_reservations()
     * tells what came of it. Asked again every second until then. bytes are read during the call. NULL: no cluster. */
    void (*commit)(void *context, uint64_t volume_id, uint64_t epoch, uint64_t version, const uint8_t *bytes, uint32_t size);
    void *commit_context;
    /* The shell is told that a deadline may have come nearer (may be NULL). */
    void (*wake)(void *context);
    void *wake_context;
};

/* seed: random, so that numbers of sessions and of forwarded requests of two lives of a node differ. */
void target_init(struct target *target, uint16_t nodeid, uint64_t memory_max_bytes, uint32_t hold_ms, uint64_t seed);
/* Sessions must have ended and tasks be done: target_is_quiet(). */
void target_done(struct target *target);
/* The end is near: what waits for the cluster's word ends with unknown outcome. */
void target_give_up(struct target *target);
/* Nothing of anybody's is under way. */
bool target_is_quiet(const struct target *target);

/* Configuration: as documented in target_server.h. */
void target_set_apart(struct target *target, bool apart);
int target_set_ports(struct target *target, const struct target_port *ports, unsigned count);
int target_put_lu(struct target *target, const struct target_lu_identity *identity);
int target_remove_lu(struct target *target, uint64_t volume_id);
int target_set_lu_state(struct target *target, uint64_t volume_id, enum target_lu_state state, uint16_t owner,
                        uint64_t epoch, struct block_device *device);
int target_set_reservations(struct target *target, uint64_t volume_id, uint64_t version, const uint8_t *bytes, uint32_t size);
void target_set_commit(struct target *target,
                       void (*commit)(void *context, uint64_t volume_id, uint64_t epoch, uint64_t version, const uint8_t *bytes,
                                      uint32_t size),
                       void *context);
int target_put_iqn(struct target *target, const char *name);
int target_remove_iqn(struct target *target, const char *name);
int target_set_lun(struct target *target, const char *name, uint16_t lun, uint64_t volume_id);
int target_clear_lun(struct target *target, const char *name, uint16_t lun);
struct target_iqn *target_find_iqn(struct target *target, const char *name);
struct target_lu *target_find_lu(const struct target *target, uint64_t volume_id);

/* Sessions: memory of the caller; nexus, iqn and drop are set. begin gives it its id. end: its tasks end as aborted, and
 * the owners of its units hear of the loss. */
void target_session_begin(struct target *target, struct target_session *session);
void target_session_end(struct target *target, struct target_session *session);

/* How much data a command of this session wants, before it is submitted: see scsi_cdb_data(). */
enum scsi_direction target_command_data(const struct target_session *session, uint64_t lun, const uint8_t *cdb,
                                        uint64_t *ret_bytes);
/* Run a command (T1). */
void target_submit(struct target *target, struct target_task *task);

/* Run a task management function; done gets the response, once, possibly before this returns. session must not be
 * used by done after its end. LUN is ignored for target resets. */
typedef void target_function_done(void *context, uint8_t response);
void target_manage(struct target *target, struct target_session *session, uint8_t function, uint64_t lun, uint64_t tag,
                   target_function_done *done, void *context);

/* Frames from nodes, loss of nodes. */
int target_forward_receive(struct target *target, uint16_t from, const struct peer_header *header, const void *payload);
void target_node_down(struct target *target, uint16_t nodeid);
void target_node_dead(struct target *target, uint16_t nodeid);

/* Time has come to now_ms: holds and losses that are due. Returns the milliseconds until it wants to be called again, or
 * UINT64_MAX when nothing waits. */
uint64_t target_tick(struct target *target, uint64_t now_ms);

/* A data buffer for a task; NULL when memory is used up. Buffers of done tasks go back by target_release(). */
struct data_buffer *target_buffer(struct target *target, uint32_t bytes);

/* The portals of alive nodes, for SendTargets. */
unsigned target_portals(const struct target *target, const struct target_port **ret_ports);

#endif
