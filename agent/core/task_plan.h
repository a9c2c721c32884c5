/* What goes on with committed work that no single owner runs: moves of replicas, and growing. Pure; the sequencer's node proposes
 * the steps one by one. The commands decide again when they are applied, so a plan made on an old tree does no harm.
 *
 *   MOVE    new replica in sync, old one's node serves   -> VolumePromote: the new one's node serves
 *           new replica in sync                          -> VolumeReplicaRemove: the old one
 *           old replica gone                             -> TaskEnd, done
 *           new replica gone (removed meanwhile)         -> TaskEnd, failed
 *   growing every member of the ISR has                  -> VolumeGrown once more: one that was waited for has left */
#ifndef DIRECTOR_AGENT_CORE_TASK_PLAN_H
#define DIRECTOR_AGENT_CORE_TASK_PLAN_H

#include "agent/core/failover.h"

enum task_action { TASK_STEP_NONE, TASK_STEP_PROMOTE, TASK_STEP_REMOVE, TASK_STEP_END, TASK_STEP_GROWN };

struct task_step {
    enum task_action action;
    uint64_t task;         /* END */
    uint64_t volume;
    uint64_t expect_epoch; /* PROMOTE */
    uint16_t nodeid;       /* PROMOTE: the owner to be; REMOVE */
    uint32_t isr;          /* PROMOTE */
    uint64_t size;         /* GROWN */
    Director__TaskState state; /* END */
    char words[TREE_WORDS_SIZE]; /* END, PROMOTE: why */
};

/* The next step there is, of any volume; false: none now. */
bool task_plan(const struct tree *tree, const struct failover_nodes *alive, struct task_step *ret_step);

#endif
