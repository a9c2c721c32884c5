/* What the files of the tree share. tree.c: memory, lookups, dispatch. tree_request.c: at most once (T3).
 * tree_node.c, tree_volume.c, tree_replica.c, tree_task.c, tree_target.c: the commands of each kind. tree_place.c: where new
 * replicas go. tree_event.c: the events. tree_reservation.c: what volumes reserve. tree_snapshot.c, tree_restore.c: canonical bytes and back.
 *
 * A command's function checks everything, returns early when dry, then changes: so T1 holds, and tree_check() is the same code. */
#ifndef DIRECTOR_AGENT_CORE_TREE_INTERNAL_H
#define DIRECTOR_AGENT_CORE_TREE_INTERNAL_H

#include "agent/core/tree.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define TREE_REQUEST_WORDS   (TREE_REQUEST_WINDOW / 64)
#define TREE_ORIGINS_MAX     (2 * TREE_NODES_MAX)
#define TREE_SNAPSHOT_FORMAT 1u

/* Requests of one origin's newest boot. Bit s % WINDOW stands for sequence s within (highest - WINDOW, highest]. */
struct tree_requests {
    uint16_t origin;
    uint64_t boot, highest;
    uint64_t applied[TREE_REQUEST_WORDS], refused[TREE_REQUEST_WORDS];
};

struct tree {
    struct tree_cluster cluster;
    struct tree_node nodes[TREE_NODES_MAX]; /* by nodeid */
    size_t node_count;
    struct tree_store *stores; /* by (nodeid, name) */
    size_t store_count;
    struct tree_volume **volumes, **volumes_by_id;
    size_t volume_count, volume_capacity;
    struct tree_target **targets; /* by iqn */
    size_t target_count, target_capacity;
    struct tree_reservation *reservations; /* by volume id */
    size_t reservation_count, reservation_capacity;
    struct tree_requests requests[TREE_ORIGINS_MAX]; /* by origin */
    size_t request_count;
    struct tree_task tasks[TREE_TASKS_MAX + TREE_TASKS_KEPT]; /* by id */
    size_t task_count;
    uint64_t last_task;
    struct tree_event events[TREE_EVENTS_MAX]; /* by id */
    size_t event_count;
    uint64_t last_event;
};

/* One command being applied. */
struct tree_change {
    struct tree *tree;
    const Director__Command *command;
    struct tree_result *result; /* never NULL */
    struct error *error;        /* may be NULL */
    bool dry;                   /* check only */
};

/* tree.c */
void *tree_allocate(size_t size); /* zeroed; never NULL */
void tree_copy(char *to, size_t size, const char *from); /* cut if longer */
const char *tree_node_label(const struct tree *tree, uint16_t nodeid); /* its name, or "?" */
struct tree_node *tree_node_find(struct tree *tree, uint64_t nodeid);
struct tree_volume *tree_volume_find(struct tree *tree, uint64_t id);
bool tree_text_fits(const char *text, size_t size); /* not NULL, printable, with its NUL within size */
void tree_empty(struct tree *tree);

/* tree_request.c */
enum tree_request_state { TREE_REQUEST_NEW, TREE_REQUEST_APPLIED, TREE_REQUEST_REFUSED };
enum tree_request_state tree_request_look(const struct tree *tree, const Director__Command *command);
void tree_request_note(struct tree *tree, const Director__Command *command, bool refused);

/* The commands. */
int tree_cluster_init(struct tree_change *change);
int tree_cluster_set(struct tree_change *change);
int tree_node_add(struct tree_change *change);
int tree_node_update(struct tree_change *change);
int tree_node_voter(struct tree_change *change);
int tree_node_remove(struct tree_change *change);
int tree_store_put(struct tree_change *change);
int tree_store_remove(struct tree_change *change);
int tree_volume_create(struct tree_change *change);
int tree_volume_delete(struct tree_change *change);
int tree_volume_promote(struct tree_change *change);
int tree_volume_isr(struct tree_change *change);
int tree_volume_incarnation(struct tree_change *change);
int tree_volume_set(struct tree_change *change);
int tree_volume_replica_add(struct tree_change *change);
int tree_volume_replica_remove(struct tree_change *change);
int tree_volume_grow(struct tree_change *change);
int tree_volume_grown(struct tree_change *change);
int tree_volume_force(struct tree_change *change);
int tree_volume_discard(struct tree_change *change);
int tree_task_create(struct tree_change *change);
int tree_task_progress(struct tree_change *change);
int tree_task_end(struct tree_change *change);
int tree_volume_reserve(struct tree_change *change);
int tree_target_create(struct tree_change *change);
int tree_target_delete(struct tree_change *change);
int tree_lun_add(struct tree_change *change);
int tree_lun_remove(struct tree_change *change);

/* What new replicas need. */
struct tree_wish {
    const char *volume; /* name, for words */
    uint64_t size;
    unsigned count;
    const char *store; /* "": that with most room */
    const uint32_t *nodes; /* one of these; none: any */
    size_t node_count;
    const struct tree_volume *beside; /* not on nodes that have a replica of it; may be NULL */
};
/* count stores on distinct nodes, most room first. -ENOENT, -ENOSPC with words. */
int tree_place(struct tree_change *change, const struct tree_wish *wish, const struct tree_store **ret_stores);

/* What tree_volume.c and tree_replica.c share. */
int tree_volume_get(struct tree_change *change, uint64_t id, struct tree_volume **ret_volume);
int tree_volume_node(struct tree_change *change, const struct tree_volume *volume, uint32_t nodeid, unsigned *ret_place);
void tree_volume_set_isr(struct tree_change *change, struct tree_volume *volume, uint32_t isr); /* and when who left */
void tree_volume_retire(struct tree_volume *volume, unsigned place); /* the incarnation of that place */
bool tree_volume_incarnation_new(const struct tree_volume *volume, uint64_t incarnation); /* not 0, never used: I11 */
void tree_volume_allocate(struct tree *tree, const struct tree_volume *volume, bool take); /* in its stores */
void tree_volume_reach(struct tree *tree, struct tree_volume *volume); /* T5: have all of the ISR grown? */
/* Put a replica into the lowest empty place, checked by replica_add_check(). */
struct tree_addition {
    struct tree_volume *volume;
    const struct tree_store *store;
    uint64_t incarnation;
};
int tree_replica_add_check(struct tree_change *change, uint64_t volume, uint32_t nodeid, const char *store,
                           uint64_t incarnation, struct tree_addition *ret_addition);
void tree_replica_add_make(struct tree_change *change, const struct tree_addition *addition);
int tree_policy_check(const char *name, const Director__VolumePolicy *policy, struct error *error);
void tree_policy_take(struct tree_policy *policy, const Director__VolumePolicy *from);
/* All running tasks of a volume that goes. */
void tree_tasks_cancel(struct tree *tree, uint64_t volume, uint64_t time_ms, const char *words);
void tree_tasks_trim(struct tree *tree);

/* tree_event.c: what is known before the command is applied, then the rest; nothing is kept of what nobody asks for. */
bool tree_event_begin(const struct tree *tree, const Director__Command *command, struct tree_event *event);
void tree_event_end(struct tree *tree, const Director__Command *command, const struct tree_result *result,
                    struct tree_event *event);

/* Put into place, checked already. Also used by restore. */
bool tree_store_insert(struct tree *tree, const struct tree_store *store);
void tree_volume_insert(struct tree *tree, struct tree_volume *volume); /* takes it; allocates in its stores */
void tree_target_insert(struct tree *tree, struct tree_target *target); /* takes it */
void tree_target_free(struct tree_target *target);
void tree_reservation_put(struct tree *tree, uint64_t volume, uint64_t version, const uint8_t *table, size_t table_bytes);
void tree_reservation_drop(struct tree *tree, uint64_t volume); /* with its volume; it need not be there */
struct tree_store *tree_store_find_mutable(struct tree *tree, uint16_t nodeid, const char *name);
int tree_check_iqn(const char *iqn, struct error *error);
int tree_check_size(const char *name, uint64_t size, uint32_t block, struct error *error);

#endif
