/* The device server and task manager of one logical unit (SAM-5 §4.5), on a block_device.
 *
 * U1  A command runs here only while the unit has a device (this node owns the volume) or is answerable anywhere.
 * U2  A task is in unit->tasks or unit->blocked from execute to done; done runs exactly once.
 * U3  Commands that read, compare and then write (COMPARE AND WRITE, ORWRITE) are alone on their blocks: no other writing
 *     command that overlaps starts before they are done.
 * U4  A task management function is answered after every task it aborted stopped touching the medium.
 *
 * One thread; no clock; no memory but the pool's. */
#ifndef DIRECTOR_TARGET_CORE_SCSI_UNIT_H
#define DIRECTOR_TARGET_CORE_SCSI_UNIT_H

#include "target/core/scsi_cdb.h"
#include "target/core/scsi_reservation.h"

#define SCSI_SCRATCH_BYTES     65536u
#define SCSI_VERIFY_CHUNK      65536u
#define SCSI_NEXUS_BUCKETS     64u
#define SCSI_NEXUSES_MAX       8192u
#define SCSI_WRITE_SAME_MAX    (16u << 20) /* bytes; VPD page B0 */
#define SCSI_UNMAP_MAX         (256u << 20) /* bytes of one UNMAP descriptor list; VPD page B0 */
#define SCSI_UNMAP_DESCRIPTORS 256u
#define SCSI_COMPARE_MAX_BYTES (128u << 10) /* of one COMPARE AND WRITE: 255 blocks at most */

/* What all units of a node share. */
struct scsi_shared {
    struct data_pool *pool;
    uint16_t nodeid; /* this node's target port group and relative port */
    struct target_port ports[TARGET_PORTS_MAX];
    unsigned port_count;
    bool apart; /* this node serves nothing, others do: its group is UNAVAILABLE */
    uint8_t scratch[SCSI_SCRATCH_BYTES]; /* for parameter data under construction, within one call */
    /* Commit a unit's reservations; scsi_unit_set_reservations() tells the outcome, later. Asked again every second until then.
     * bytes are read during the call. NULL: there is no cluster, changes are in force at once. */
    void (*commit)(void *context, struct scsi_unit *unit, const uint8_t *bytes, uint32_t size);
    void *commit_context;
};

/* A session as the device server knows it. Freed at nexus loss. */
struct scsi_nexus {
    struct list link; /* in unit->nexuses[] */
    struct scsi_nexus_id id;
    uint64_t session; /* unique in the cluster: node id in the upper 16 bits */
    uint32_t attentions; /* enum scsi_unit_attention */
    bool prevents;       /* PREVENT ALLOW MEDIUM REMOVAL */
};

enum scsi_function { /* RFC 7143 §11.5.1 */
    SCSI_ABORT_TASK = 1,
    SCSI_ABORT_TASK_SET = 2,
    SCSI_CLEAR_ACA = 3,
    SCSI_CLEAR_TASK_SET = 4,
    SCSI_LUN_RESET = 5,
    SCSI_TARGET_WARM_RESET = 6,
    SCSI_TARGET_COLD_RESET = 7,
    SCSI_TASK_REASSIGN = 8,
};

enum scsi_function_response { /* RFC 7143 §11.6.1 */
    SCSI_FUNCTION_COMPLETE = 0,
    SCSI_FUNCTION_NO_TASK = 1,
    SCSI_FUNCTION_NO_LUN = 2,
    SCSI_FUNCTION_NOT_SUPPORTED = 5,
    SCSI_FUNCTION_REJECTED = 255,
};

struct scsi_management {
    uint8_t function;   /* enum scsi_function; target resets act as LUN resets here */
    uint64_t tag;       /* for ABORT TASK */
    void (*done)(struct scsi_management *management); /* once, possibly before scsi_unit_manage() returns */
    uint8_t response;   /* enum scsi_function_response */
    struct list link;   /* the unit's, until done */
    uint64_t sequence;
    bool resets;        /* waits for the end of a RESERVE too */
};

#define SCSI_EFFECT_ABORT (1u << 31) /* its commands are aborted; the other bits are unit attentions */

/* A change of the reservations (I14): the table as it will be, and what happens to registrants when it is in force. At most
 * one is under way in a unit; commands that would make another are blocked meanwhile.
 *
 *     scsi_proposal_new -> change its table, note effects -> scsi_proposal_submit -> shared->commit -> ...
 *     ... -> scsi_unit_set_reservations() with the same bytes -> effects -> the command is answered.
 * When another table comes, or the unit loses its owner, the outcome is unknown and the command ends ABORTED COMMAND. */
struct scsi_proposal {
    struct scsi_unit *unit;
    struct scsi_reservations table;
    uint32_t effects[SCSI_REGISTRANTS_MAX]; /* by index in the table that it replaces */
    struct scsi_task *task;                 /* that is answered with it; NULL: none (any more) */
    uint8_t *bytes;                         /* the table, encoded */
    uint32_t size;
    bool in_force;                          /* waits for aborted commands only */
    struct scsi_management wait;
    uint64_t asked_ms;                      /* the target's: when it was asked for last */
};

struct scsi_unit {
    struct scsi_shared *shared;
    struct target_lu_identity identity;
    struct block_device *device; /* NULL: not the owner */
    uint16_t owner;              /* the group that is (or was last) active; 0 = none known */
    bool has_owner;              /* false: its group is TRANSITIONING */
    struct list nexuses[SCSI_NEXUS_BUCKETS];
    unsigned nexus_count;
    struct list tasks, blocked, managements;
    unsigned atomics; /* atomic tasks in tasks or blocked */
    uint64_t sequence;
    struct scsi_reservations reservations; /* in force: committed */
    uint64_t reservations_version;         /* of the cluster's */
    struct scsi_proposal *proposal;        /* under way */
    bool release;                          /* the session that holds the unit by RESERVE is gone, or a reset ended it */
    bool descriptor_sense, software_write_protect; /* control mode page */
    bool ejected;
    bool write_cache; /* of the device, when it was last looked at */
    struct target_lu_stats stats;
};

void scsi_unit_init(struct scsi_unit *unit, struct scsi_shared *shared, const struct target_lu_identity *identity);
/* No task may be left. */
void scsi_unit_done(struct scsi_unit *unit);

/* Find or make the nexus of a session. fresh: the session is new to this unit, which raises POWER ON OCCURRED; one
 * that is unknown but not fresh came over from another owner (its node tells it of the change). NULL: no memory or too many. */
struct scsi_nexus *scsi_unit_nexus(struct scsi_unit *unit, const struct scsi_nexus_id *id, uint64_t session, bool fresh);
/* The session ended (I_T nexus loss, SPC-4 §5.14): its tasks are aborted, RESERVE and PREVENT are released. */
void scsi_unit_nexus_loss(struct scsi_unit *unit, uint64_t session);
/* The same for all sessions of a node. */
void scsi_unit_node_loss(struct scsi_unit *unit, uint16_t nodeid);
/* Abort the tasks of a nexus, without status to anyone. */
void scsi_unit_abort_nexus(struct scsi_unit *unit, struct scsi_nexus *nexus);
/* Raise attentions in all nexuses but one (NULL: in all). */
void scsi_unit_attention(struct scsi_unit *unit, uint32_t attentions, const struct scsi_nexus *except);

/* Run a task of a nexus (see U1: the command must have SCSI_COMMAND_ANY_NODE when unit->device is NULL; then nexus may be NULL). */
void scsi_unit_execute(struct scsi_unit *unit, struct scsi_nexus *nexus, struct scsi_task *task);
/* Run a task management function of a nexus. */
void scsi_unit_manage(struct scsi_unit *unit, struct scsi_nexus *nexus, struct scsi_management *management);

/* Reservations: scsi_proposal.c. */
struct scsi_proposal *scsi_proposal_new(const struct scsi_unit *unit); /* NULL: no memory */
void scsi_proposal_free(struct scsi_proposal *proposal);
/* Takes the proposal, answers the task (may be NULL) when it is in force. None may be under way. */
void scsi_proposal_submit(struct scsi_unit *unit, struct scsi_proposal *proposal, struct scsi_task *task);
/* The cluster has committed this table under this version, also as outcome of our own proposal; size 0 is the empty table.
 * On every node. 0, -EPROTO or -ENOMEM (nothing changes). */
MUST_CHECK int scsi_unit_set_reservations(struct scsi_unit *unit, uint64_t version, const uint8_t *bytes, uint32_t size);
/* This node is the owner no longer, or not in this epoch: what was proposed ends with unknown outcome. */
void scsi_unit_proposals_fail(struct scsi_unit *unit);
/* End a RESERVE: its session is gone, or a reset says so. */
void scsi_unit_release(struct scsi_unit *unit);
/* Do it now, if it is due and nothing else is under way. */
void scsi_unit_release_due(struct scsi_unit *unit);
/* Something that blocked tasks or management functions wait for may be over. */
void scsi_unit_continue(struct scsi_unit *unit);

/* For handlers, in scsi_*.c: each ends the task. */
void scsi_task_good(struct scsi_task *task);
void scsi_task_status(struct scsi_task *task, enum scsi_status status);
void scsi_task_sense(struct scsi_task *task, uint32_t code);
void scsi_task_sense_field(struct scsi_task *task, uint32_t code, uint16_t byte, uint8_t bit); /* bit 0xff: none */
void scsi_task_sense_information(struct scsi_task *task, uint32_t code, uint64_t information);
/* Answer with parameter data, cut to the allocation length. */
void scsi_task_reply(struct scsi_task *task, const uint8_t *data, uint32_t length_bytes, uint32_t allocation_bytes);
/* Sense data without a unit: fills status and sense only. */
void scsi_task_set_sense(struct scsi_task *task, const struct scsi_sense *sense, bool descriptor);

/* The designator of a type (VPD page 83h) that names the unit; its length, 0: it has none of this type. */
#define SCSI_DESIGNATOR_MAX 20u
uint8_t scsi_designator(const struct scsi_unit *unit, uint8_t type, uint8_t to[static SCSI_DESIGNATOR_MAX]);

/* Go on with step when it is certain that this node still owned the unit after the command came: what is answered from memory
 * alone could be of the past. It reads a block, which the device answers only under a valid lease (I7). Ends the task otherwise. */
void scsi_task_confirm(struct scsi_task *task, void (*step)(struct scsi_task *task));

/* Handlers by file. */
void scsi_inquiry(struct scsi_task *task);
void scsi_report_target_port_groups(struct scsi_task *task);
void scsi_report_supported_opcodes(struct scsi_task *task);
void scsi_report_supported_tmf(struct scsi_task *task);
void scsi_mode_sense(struct scsi_task *task);
void scsi_mode_select(struct scsi_task *task);
void scsi_test_unit_ready(struct scsi_task *task);
void scsi_request_sense(struct scsi_task *task);
void scsi_start_stop_unit(struct scsi_task *task);
void scsi_prevent_allow(struct scsi_task *task);
void scsi_reserve_release(struct scsi_task *task);
void scsi_read_capacity_10(struct scsi_task *task);
void scsi_read_capacity_16(struct scsi_task *task);
void scsi_get_lba_status(struct scsi_task *task);
void scsi_read_defect_data(struct scsi_task *task);
void scsi_block_read(struct scsi_task *task);
void scsi_block_write(struct scsi_task *task);
void scsi_block_write_verify(struct scsi_task *task);
void scsi_block_verify(struct scsi_task *task);
void scsi_block_pre_fetch(struct scsi_task *task);
void scsi_block_synchronize_cache(struct scsi_task *task);
void scsi_block_unmap(struct scsi_task *task);
void scsi_block_write_same(struct scsi_task *task);
void scsi_block_compare_and_write(struct scsi_task *task);
void scsi_block_orwrite(struct scsi_task *task);

/* Abort support of scsi_block.c: a task in the block layer ends at its next step once marked. */
static inline bool scsi_task_is_read_only(const struct scsi_unit *unit)
{
    return unit->identity.read_only || unit->software_write_protect ||
           (unit->device && (unit->device->geometry.capabilities & BLOCK_CAP_READ_ONLY));
}

#endif
