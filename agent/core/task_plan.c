#include "agent/core/task_plan.h"

#include <stdio.h>

static const char *node_name(const struct tree *tree, uint16_t nodeid)
{
    const struct tree_node *node = tree_node_by_id(tree, nodeid);
    return node ? node->name : "?";
}

static bool in_sync(const struct tree_volume *volume, int place)
{
    return place >= 0 && (volume->isr >> place & 1);
}

static bool plan_move(const struct tree *tree, const struct tree_task *task, const struct failover_nodes *alive,
                      struct task_step *step)
{
    const struct tree_volume *volume = tree_volume_by_id(tree, task->volume);
    int from = tree_volume_replica_of(volume, task->from), to = tree_volume_replica_of(volume, task->to);
    *step = (struct task_step){.task = task->id, .volume = volume->id, .expect_epoch = volume->epoch};
    if (to < 0) {
        step->action = TASK_STEP_END;
        step->state = DIRECTOR__TASK_STATE__TASK_FAILED;
        snprintf(step->words, sizeof(step->words), "the new replica on %.60s was removed", node_name(tree, task->to));
        return true;
    }
    if (from < 0) {
        step->action = TASK_STEP_END;
        step->state = DIRECTOR__TASK_STATE__TASK_DONE;
        return true;
    }
    if (!in_sync(volume, to) || !failover_nodes_have(alive, task->to))
        return false; /* I10: the old one stays until the new one counts and answers */
    if (volume->owner == task->from) {
        if (!failover_nodes_have(alive, task->from))
            return false; /* a failover is due */
        step->action = TASK_STEP_PROMOTE;
        step->nodeid = task->to;
        step->isr = volume->isr;
        snprintf(step->words, sizeof(step->words), "its replica on %.60s moves", node_name(tree, task->from));
        return true;
    }
    step->action = TASK_STEP_REMOVE;
    step->nodeid = task->from;
    return true;
}

bool task_plan(const struct tree *tree, const struct failover_nodes *alive, struct task_step *ret_step)
{
    for (size_t i = 0; i < tree_task_count(tree); i++) {
        const struct tree_task *task = tree_task_at(tree, i);
        if (task->state == DIRECTOR__TASK_STATE__TASK_RUNNING && task->kind == DIRECTOR__TASK_KIND__TASK_MOVE &&
            plan_move(tree, task, alive, ret_step))
            return true;
    }
    for (size_t i = 0; i < tree_volume_count(tree); i++) {
        const struct tree_volume *volume = tree_volume_at(tree, i);
        if (!volume->size_wanted || volume->isr & ~volume->grown)
            continue;
        *ret_step = (struct task_step){.action = TASK_STEP_GROWN, .volume = volume->id, .size = volume->size_wanted};
        return true;
    }
    return false;
}
