/* The object tree: the state that every node holds equal. Commands are applied purely (C3): the same commands in the same
 * order give the same tree, the same errors and the same bytes of a snapshot on every node.
 *
 * Invariants kept by apply, whatever a command says
 *   I1  a volume's owner changes only with its epoch, by VolumePromote or VolumeForce, which must name the epoch they replace
 *   I4  a new owner comes from the last committed ISR; VolumeForce is the operator's explicit exception (I10), recorded
 *   I8  an ISR grows only by VolumeIsr, which names the epoch and the version it replaces
 *   I10 an ISR is never empty, and always holds the owner
 *   I11 a replica's incarnation changes only while it is outside the ISR, and never to one that was used before (retired)
 *   I14 reservations change only in the epoch of the owner that proposes them, and on top of the version that he knew
 *   T1  all or nothing: a refused command changes nothing but the request table
 *   T2  names are unique per kind; volume ids are never reused; references always resolve
 *   T4  a replica keeps its place: others' places do not move when one is removed; an empty place has nodeid 0
 *   T5  a volume's size changes only when every member of the ISR said that its files have the new one
 *   T3  a request (origin, boot, sequence) has its effect at most once
 *
 * Objects are the tree's; pointers are valid until the next apply or restore. One thread. */
#ifndef DIRECTOR_AGENT_CORE_TREE_H
#define DIRECTOR_AGENT_CORE_TREE_H

#include "director/base/error.h"
#include "director/base/uuid.h"
#include <proto/director.pb-c.h>
#include <stdbool.h>

#define TREE_NAME_SIZE         64u /* with the closing NUL; [a-z0-9][a-z0-9._-]{0,62} */
#define TREE_ADDRESS_SIZE      64u
#define TREE_PATH_SIZE         256u
#define TREE_IQN_SIZE          224u /* RFC 7143 §4.2.7.1: at most 223 bytes */
#define TREE_NODES_MAX         64u
#define TREE_STORES_MAX        1024u
#define TREE_VOLUMES_MAX       10000u
#define TREE_TARGETS_MAX       10000u
#define TREE_LUNS_MAX          256u /* of one target; LUN 0..255 */
#define TREE_REPLICAS_MAX      4u
#define TREE_VOLUME_MIN_BYTES  (1ull << 20)
#define TREE_VOLUME_MAX_BYTES  (64ull << 40)
#define TREE_VOLUME_UNIT_BYTES 4096u
#define TREE_SLOW_MIN_MS       500u /* VolumePolicy.slow_ms, when not 0 */
#define TREE_SLOW_MAX_MS       60000u
#define TREE_RESYNC_MIN        (64ull << 10) /* resync_floor and resync_cap, when not 0 */
#define TREE_RESYNC_MAX        (1ull << 40)
#define TREE_RETIRED_MAX       32u  /* incarnations remembered per volume; the oldest is dropped */
#define TREE_TASKS_MAX         256u /* running ones */
#define TREE_TASKS_KEPT        32u  /* that ended */
#define TREE_EVENTS_MAX        256u /* of which the last TREE_EVENTS_LASTING with lasting consequences outlive others */
#define TREE_EVENTS_LASTING    64u
#define TREE_WORDS_SIZE        128u
#define TREE_RESERVATION_BYTES 30720u /* of one volume's table: a command carries it */
#define TREE_REQUEST_WINDOW    1024u /* of sequences per origin within which T3 tells new from old; see tree_apply */

struct tree_cluster {
    struct uuid uuid; /* zero: no ClusterInit yet */
    char name[TREE_NAME_SIZE];
    uint64_t next_volume_id;
    uint64_t node_list_version; /* changes with every change of corosync's node list: nodes added, removed, readdressed; and of its
                                   timings */
    Director__ClusterProfile profile;
};

/* What a profile stands for. FAST is for machines and a network of the cluster's own; STEADY for those that others may keep busy,
 * hypervisors above all: a pause of two seconds costs no failover. */
struct tree_timings {
    const char *name; /* "fast" */
    uint32_t token_ms; /* corosync's: a node that is gone is noticed after about 2.2 of it */
    uint32_t alive_ms; /* an agent unheard on its control link for so long is not alive */
};
const struct tree_timings *tree_profile_timings(Director__ClusterProfile profile); /* NULL: no such profile */

struct tree_node {
    struct uuid uuid;
    char name[TREE_NAME_SIZE];
    uint16_t nodeid;
    char address[TREE_ADDRESS_SIZE]; /* of one node only. "": another one has it now, or the node is getting another: the
                                        NodeUpdate that says so empties it, and is to be repeated when corosync has that */
    bool voter;
    uint64_t boot; /* of its last known process; 0: unknown */
    uint32_t version_max;
    char software[TREE_NAME_SIZE];
};

struct tree_store {
    uint16_t nodeid;
    char name[TREE_NAME_SIZE];
    char plugin[TREE_NAME_SIZE];
    char path[TREE_PATH_SIZE];
    uint64_t capacity_bytes;
    uint64_t allocated_bytes; /* sum of the sizes of the replicas in it; derived, not in the snapshot */
};

struct tree_replica {
    uint16_t nodeid; /* 0: an empty place; a replica was removed (T4) */
    char store[TREE_NAME_SIZE];
    uint64_t incarnation; /* I11 */
    bool held; /* the node's files are from before a VolumeForce: they do not take part and are not touched before VolumeDiscard */
    uint64_t left_ms; /* when it left the ISR last, by the proposer's clock; 0: it is in it, or never was */
};

/* What the operator set: VolumePolicy of director.proto, where each is explained. 0: the default. */
struct tree_policy {
    bool write_back, verified_reads, checksum;
    uint8_t in_sync_min;
    uint32_t slow_ms;
    uint64_t resync_floor, resync_cap;
};

struct tree_volume {
    uint64_t id; /* from 1 */
    struct uuid uuid;
    char name[TREE_NAME_SIZE];
    uint64_t size_bytes;
    uint32_t block_bytes; /* 512 or 4096 */
    unsigned replica_count; /* the highest used place + 1; see tree_volume_replicas() */
    struct tree_replica replicas[TREE_REPLICAS_MAX]; /* replica index = place here, for good (T4); on distinct nodes */
    uint64_t epoch;       /* from 1 */
    uint16_t owner;       /* nodeid */
    uint32_t isr;         /* bit i: replicas[i] is in sync */
    uint64_t isr_version; /* from 1; changes with owner, isr, replicas, policy, sizes or an incarnation */
    uint64_t created_ms;  /* wall clock of the proposer */
    struct tree_policy policy;
    uint64_t size_wanted; /* VolumeGrow: the size it is growing to, 0: none. T5 */
    uint32_t grown;       /* bit i: the files of replicas[i] have size_wanted (VolumeGrown) */
    unsigned retired_count;
    uint64_t retired[TREE_RETIRED_MAX]; /* incarnations whose files may not take part any more; the oldest first */
};

/* Verify, scrub, move: see TaskCreate in director.proto. */
struct tree_task {
    uint64_t id; /* from 1, never used again */
    Director__TaskKind kind;
    Director__TaskState state;
    uint64_t volume;
    char volume_name[TREE_NAME_SIZE]; /* stays when the volume is gone */
    bool repair;
    uint16_t from, to; /* MOVE */
    uint64_t started_ms, ended_ms;
    uint64_t done_bytes, total_bytes, mismatches, bad_blocks, repaired, unrepaired;
    char words[TREE_WORDS_SIZE]; /* how it ended, when not simply done */
    char who[TREE_NAME_SIZE];
};

/* What happened, the same on every node. */
struct tree_event {
    uint64_t id, time_ms;
    Director__Command__BodyCase kind;
    char object[TREE_IQN_SIZE];
    uint16_t node;
    uint64_t number;
    uint32_t detail; /* see TreeEvent */
    uint16_t owner, in_sync[TREE_REPLICAS_MAX]; /* nodeids, 0: none */
    uint64_t epoch;
    char words[TREE_WORDS_SIZE];
    char who[TREE_NAME_SIZE]; /* "": the cluster itself */
    uint16_t origin;
};

/* The SCSI reservations of a volume (I14): bytes of the device server's, not looked into. */
struct tree_reservation {
    uint64_t volume;  /* id */
    uint64_t version; /* from 1, one more with each change */
    uint32_t table_bytes;
    const uint8_t *table;
};

struct tree_lun {
    uint32_t lun;
    uint64_t volume; /* id */
};

struct tree_target {
    char iqn[TREE_IQN_SIZE];
    unsigned lun_count;
    struct tree_lun *luns; /* ascending by lun */
};

struct tree;

/* An empty tree; never NULL. */
struct tree *tree_new(void);
void tree_free(struct tree *tree);

/* What a command made or found. */
struct tree_result {
    bool duplicate;    /* T3: had its effect before; nothing was done */
    uint16_t nodeid;   /* NodeAdd: given, or that of the node with this uuid; VolumeReplicaAdd: where */
    uint64_t volume;   /* VolumeCreate: id */
    uint64_t version;  /* VolumePromote, VolumeIsr: the new isr_version */
    uint64_t task;     /* TaskCreate: id */
    bool grown;        /* VolumeGrown: the volume has its new size now */
};

/* Apply one command. ret_result may be NULL. 0 or:
 * -EINVAL (bad value) -EEXIST -ENOENT -ENOSPC -EBUSY (in use) -ESTALE (compare-and-set lost: look again) -E2BIG (limit)
 * -ENOTSUP (a command this version does not know) -EALREADY (a duplicate of a request that was refused).
 * error (may be NULL) gets one sentence with the object and the way out.
 * Request table: a command with origin_boot 0 is not checked. One whose sequence is TREE_REQUEST_WINDOW or more behind the
 * highest of its origin's boot counts as a duplicate: rsm never has more than that many pending. */
MUST_CHECK int tree_apply(struct tree *tree, const Director__Command *command, struct tree_result *ret_result,
                          struct error *error);
/* The same from packed bytes, as APPLY gives them. -EBADMSG when they are no Command. */
MUST_CHECK int tree_apply_bytes(struct tree *tree, const uint8_t *data, size_t size, struct tree_result *ret_result,
                                struct error *error);

/* Would it be accepted now? The same answer as tree_apply(), nothing changed. For the API server, before it proposes. */
MUST_CHECK int tree_check(struct tree *tree, const Director__Command *command, struct error *error);

/* Canonical bytes: equal trees give equal bytes. *ret_data is the caller's, free(). */
void tree_snapshot(const struct tree *tree, uint8_t **ret_data, size_t *ret_size);
/* Become what the snapshot says; size 0: empty. -EBADMSG (tree unchanged) when it is damaged or inconsistent. */
MUST_CHECK int tree_restore(struct tree *tree, const uint8_t *data, size_t size, struct error *error);
/* 64 bits over the canonical bytes, to compare nodes. */
uint64_t tree_hash(const struct tree *tree);

/* Looking around. Order of _at(): nodes by nodeid, stores by (nodeid, name), volumes and targets by name. NULL: none. */
const struct tree_cluster *tree_get_cluster(const struct tree *tree);
size_t tree_node_count(const struct tree *tree);
const struct tree_node *tree_node_at(const struct tree *tree, size_t place);
const struct tree_node *tree_node_by_id(const struct tree *tree, uint16_t nodeid);
const struct tree_node *tree_node_by_name(const struct tree *tree, const char *name);
const struct tree_node *tree_node_by_uuid(const struct tree *tree, const struct uuid *uuid);
size_t tree_store_count(const struct tree *tree);
const struct tree_store *tree_store_at(const struct tree *tree, size_t place);
const struct tree_store *tree_store_find(const struct tree *tree, uint16_t nodeid, const char *name);
size_t tree_volume_count(const struct tree *tree);
const struct tree_volume *tree_volume_at(const struct tree *tree, size_t place);
const struct tree_volume *tree_volume_by_id(const struct tree *tree, uint64_t id);
const struct tree_volume *tree_volume_by_name(const struct tree *tree, const char *name);
/* NULL: the volume never had reservations. */
const struct tree_reservation *tree_volume_reservation(const struct tree *tree, uint64_t volume);
size_t tree_target_count(const struct tree *tree);
const struct tree_target *tree_target_at(const struct tree *tree, size_t place);
const struct tree_target *tree_target_by_iqn(const struct tree *tree, const char *iqn);
/* The first target (by name) with a LUN for the volume, and that LUN; NULL: not exported. ret_lun may be NULL. */
const struct tree_target *tree_volume_export(const struct tree *tree, uint64_t volume, uint32_t *ret_lun);
/* Place of nodeid's replica in the volume, or -1. */
int tree_volume_replica_of(const struct tree_volume *volume, uint16_t nodeid);
/* Bit per place that is used; how many are. */
uint32_t tree_volume_mask(const struct tree_volume *volume);
unsigned tree_volume_replicas(const struct tree_volume *volume);
/* Files of this incarnation must not take part any more (I11): they are made anew, or, when the replica is held, left alone. */
bool tree_volume_retired(const struct tree_volume *volume, uint64_t incarnation);
/* By id. */
size_t tree_task_count(const struct tree *tree);
const struct tree_task *tree_task_at(const struct tree *tree, size_t place);
const struct tree_task *tree_task_by_id(const struct tree *tree, uint64_t id);
/* The running task of that kind on the volume, or NULL; TASK_NONE: of any kind. */
const struct tree_task *tree_task_running(const struct tree *tree, uint64_t volume, Director__TaskKind kind);
/* Oldest first. */
size_t tree_event_count(const struct tree *tree);
const struct tree_event *tree_event_at(const struct tree *tree, size_t place);

/* Is name a legal object name? error says what is wrong with `what` ("volume name"). */
MUST_CHECK int tree_check_name(const char *what, const char *name, struct error *error);

#endif
