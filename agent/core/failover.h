/* Who takes over: the pure planner that the sequencer's node runs over the committed tree and the set of nodes alive.
 * It proposes; the compare-and-set of VolumePromote and VolumeIsr decides (I1, I4, I8, I10), so a plan made on an old tree,
 * or by two nodes at once, does no harm.
 *
 *   owner alive, some ISR member not        -> VolumeIsr without it
 *   owner not alive, some ISR member alive  -> VolumePromote: the live ISR member that owns fewest volumes (then lowest
 *                                              replica index), isr = isr and alive
 *   no ISR member alive                     -> nothing: suspended until one of them is back (I10, scenarios 8, 29)
 *
 * Flapping (scenario 21): a volume may be promoted burst times at once; then each further promotion waits from 1 s, doubled
 * up to 30 s; a minute of calm forgives. A plan that was handed out is not repeated for repeat_ms while the tree is unchanged. */
#ifndef DIRECTOR_AGENT_CORE_FAILOVER_H
#define DIRECTOR_AGENT_CORE_FAILOVER_H

#include "agent/core/tree.h"

#define FAILOVER_BURST          3u
#define FAILOVER_BACKOFF_MIN_MS 1000u
#define FAILOVER_BACKOFF_MAX_MS 30000u
#define FAILOVER_CALM_MS        60000u
#define FAILOVER_REPEAT_MS      500u

/* A set of nodeids. */
struct failover_nodes {
    uint16_t ids[TREE_NODES_MAX];
    size_t count;
};
bool failover_nodes_have(const struct failover_nodes *nodes, uint16_t nodeid);

enum failover_action { FAILOVER_PROMOTE = 1, FAILOVER_SHRINK = 2, FAILOVER_GROW = 3 };

struct failover_step {
    enum failover_action action;
    uint64_t volume;
    uint64_t expect_epoch;
    uint64_t expect_version;
    uint16_t owner; /* FAILOVER_PROMOTE */
    uint32_t isr;
    char reason[128]; /* for the log and the command: "owner node2 is not alive" */
};

struct failover;

/* The planner's memory of what it did lately. Never NULL; failover_free(). */
struct failover *failover_new(void);
void failover_free(struct failover *failover);

/* Up to max steps, in order of volume name, to propose now; the rest at the next call. now_ms: monotonic. Call on every
 * change of tree or alive, and every ~100 ms. Returns the count. */
size_t failover_plan(struct failover *failover, const struct tree *tree, const struct failover_nodes *alive, uint64_t now_ms,
                     struct failover_step *steps, size_t max);

/* The volume is so now, by a command that was applied. Call for each change of owner or ISR, on every node: what left the
 * ISR, whoever asked for it, counts for failover_rejoin_delay(). The first call for a volume only takes note. */
void failover_observe(struct failover *failover, const struct tree_volume *volume, uint64_t now_ms);

/* Forget volumes that the tree has no more. failover_plan() does it by itself. */
void failover_forget_deleted(struct failover *failover, const struct tree *tree);

/* What the mirror of this node (owner of the volume) asks for, as a step to propose. False: not now, it asks again. An in-sync
 * set without our own replica means that our disk failed: a live member of the committed set takes over, and replicas that
 * were about to join are left to it (I4). One does not join while its node is not alive: it would be thrown out again; a
 * flapping one waits for its failover_rejoin_delay(). */
bool failover_answer(const struct failover *failover, const struct tree_volume *volume, uint16_t self,
                     const struct failover_nodes *alive, uint64_t epoch, uint64_t version, uint32_t isr, uint64_t now_ms,
                     struct failover_step *ret_step);

/* Milliseconds until a replica on nodeid that has left the ISR should be let back in: 0 the first times, then growing as
 * above. The owner's node asks before it proposes that the ISR grows; the resync may go on meanwhile. */
uint32_t failover_rejoin_delay(const struct failover *failover, uint64_t volume, uint16_t nodeid, uint64_t now_ms);

enum failover_health {
    FAILOVER_HEALTHY = 0,   /* all replicas in sync and alive */
    FAILOVER_DEGRADED = 1,  /* serves, with fewer replicas in sync than it has */
    FAILOVER_CHANGING = 2,  /* the owner is not alive but an ISR member is: a promotion is due */
    FAILOVER_SUSPENDED = 3, /* no ISR member is alive, or the cluster is not quorate: I/O waits */
};

/* Health of a volume, in one sentence that names the nodes it needs. text may be NULL. */
enum failover_health failover_volume_state(const struct tree *tree, const struct tree_volume *volume,
                                           const struct failover_nodes *alive, bool quorate, char *text, size_t text_size);
const char *failover_health_name(enum failover_health health);

#endif
