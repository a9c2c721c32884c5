/* Committed tasks at work. The sequencer's node proposes the steps of moves and of growing (agent/core/task_plan); the owner's
 * node has its engine run the verify or scrub of a volume, commits where it is every few seconds, and its end. Whoever is sequencer
 * or owner next goes on from what was committed. */
#define LOG_MODULE "task"
#include "agent/node/node.h"

#include "agent/core/task_plan.h"
#include "director/base/log.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define TASK_PROGRESS_MS 5000u
#define TASK_RETRY_MS    1000u

static void task_done(struct node_proposal *proposal, int status, const struct tree_result *result, const struct error *error)
{
    struct node *node = container_of(proposal, struct node, task_proposal);
    (void)result;
    node->task_busy = false;
    node->task_retry_ms = status < 0 ? node_now_ms(node) + TASK_RETRY_MS : 0;
    if (status < 0 && status != -ESTALE)
        log_warning("a step of a task was refused: %s", error->message);
    node->plan_wanted = true;
}

/* One proposal at a time: the next look sees what came of it. */
static void task_propose(struct node *node, Director__Command *command)
{
    struct error error = {0};
    node->task_proposal.done = task_done;
    node->task_busy = true; /* before: a cluster of one answers at once */
    if (node_log_propose(node, command, RSM_CHANGE_NONE, 0, 10000, &node->task_proposal, &error) == 0)
        return;
    node->task_busy = false;
    node->task_retry_ms = node_now_ms(node) + TASK_RETRY_MS;
    log_warning("a step of a task: %s", error.message);
}

static void propose_end(struct node *node, uint64_t task, Director__TaskState state, const char *words,
                        Director__TaskFigures *figures)
{
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__TaskEnd end = DIRECTOR__TASK_END__INIT;
    end.task = task;
    end.state = state;
    end.words = (char *)words;
    end.figures = figures;
    command.body_case = DIRECTOR__COMMAND__BODY_TASK_END;
    command.task_end = &end;
    task_propose(node, &command);
}

/* ---- the sequencer: moves and growing ----------------------------------------------------------------------------------- */

static void propose_step(struct node *node, const struct task_step *step)
{
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumePromote promote = DIRECTOR__VOLUME_PROMOTE__INIT;
    Director__VolumeReplicaRemove remove = DIRECTOR__VOLUME_REPLICA_REMOVE__INIT;
    Director__VolumeGrown grown = DIRECTOR__VOLUME_GROWN__INIT;
    switch (step->action) {
    case TASK_STEP_PROMOTE:
        promote.volume = step->volume;
        promote.expect_epoch = step->expect_epoch;
        promote.owner = step->nodeid;
        promote.isr = step->isr;
        promote.reason = (char *)step->words;
        command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_PROMOTE;
        command.volume_promote = &promote;
        break;
    case TASK_STEP_REMOVE:
        remove.volume = step->volume;
        remove.nodeid = step->nodeid;
        command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_REPLICA_REMOVE;
        command.volume_replica_remove = &remove;
        break;
    case TASK_STEP_GROWN:
        grown.volume = step->volume;
        grown.replica = TREE_REPLICAS_MAX;
        grown.size = step->size;
        command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_GROWN;
        command.volume_grown = &grown;
        break;
    case TASK_STEP_END:
        propose_end(node, step->task, step->state, step->words, NULL);
        return;
    default:
        return;
    }
    task_propose(node, &command);
}

static void sequencer_step(struct node *node)
{
    struct failover_nodes alive;
    struct task_step step;
    node_plan_alive(node, &alive);
    if (task_plan(node->tree, &alive, &step))
        propose_step(node, &step);
}

/* ---- the owner: checks ---------------------------------------------------------------------------------------------------- */

static bool is_check(const struct tree_task *task)
{
    return task->state == DIRECTOR__TASK_STATE__TASK_RUNNING && task->kind != DIRECTOR__TASK_KIND__TASK_MOVE;
}

/* The slot of a volume whose engine was told of a check; task 0: a free one. NULL: none is free. */
static struct node_check *check_slot(struct node *node, uint64_t volume)
{
    struct node_check *empty = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(node->checks); i++) {
        if (node->checks[i].task && node->checks[i].volume == volume)
            return &node->checks[i];
        if (!node->checks[i].task && !empty)
            empty = &node->checks[i];
    }
    return empty;
}

static void check_begin(struct node *node, const struct tree_task *task)
{
    struct node_check *check = check_slot(node, task->volume);
    if (!check || check->task == task->id)
        return;
    struct engine_check wanted = {
        .task = task->id,
        .kind = task->kind == DIRECTOR__TASK_KIND__TASK_VERIFY ? MIRROR_CHECK_VERIFY : MIRROR_CHECK_SCRUB,
        .repair = task->repair,
        .from = task->done_bytes,
        .mismatches = task->mismatches,
        .bad_blocks = task->bad_blocks,
        .repaired = task->repaired,
        .unrepaired = task->unrepaired,
    };
    *check = (struct node_check){.task = task->id, .volume = task->volume, .committed_ms = node_now_ms(node)};
    engine_set_check(node->engine, task->volume, &wanted);
}

/* What this node runs is what is committed and its own. */
static void checks_follow(struct node *node)
{
    static const struct engine_check none;
    for (size_t i = 0; i < ARRAY_SIZE(node->checks); i++) {
        struct node_check *check = &node->checks[i];
        const struct tree_task *task = check->task ? tree_task_by_id(node->tree, check->task) : NULL;
        const struct tree_volume *volume = check->task ? tree_volume_by_id(node->tree, check->volume) : NULL;
        if (!check->task || (task && is_check(task) && volume && volume->owner == node->self.nodeid))
            continue;
        engine_set_check(node->engine, check->volume, &none);
        check->task = 0;
    }
    for (size_t i = 0; i < tree_task_count(node->tree); i++) {
        const struct tree_task *task = tree_task_at(node->tree, i);
        const struct tree_volume *volume = is_check(task) ? tree_volume_by_id(node->tree, task->volume) : NULL;
        if (volume && volume->owner == node->self.nodeid)
            check_begin(node, task);
    }
}

static Director__TaskFigures task_figures(const struct api_live_check *check)
{
    Director__TaskFigures figures = DIRECTOR__TASK_FIGURES__INIT;
    figures.done_bytes = check->position;
    figures.total_bytes = check->total_bytes;
    figures.mismatches = check->mismatches;
    figures.bad_blocks = check->bad_blocks;
    figures.repaired = check->repaired;
    figures.unrepaired = check->unrepaired;
    return figures;
}

/* Commit where the checks are, one a call. */
static void checks_commit(struct node *node)
{
    uint64_t now = node_now_ms(node);
    for (size_t i = 0; i < ARRAY_SIZE(node->checks); i++) {
        struct node_check *check = &node->checks[i];
        const struct tree_task *task = check->task ? tree_task_by_id(node->tree, check->task) : NULL;
        const struct tree_volume *volume = task ? tree_volume_by_id(node->tree, check->volume) : NULL;
        if (!task || !volume || check->figures.task != check->task)
            continue;
        Director__TaskFigures figures = task_figures(&check->figures);
        if (check->figures.ended) {
            propose_end(node, task->id, DIRECTOR__TASK_STATE__TASK_DONE, check->figures.words, &figures);
            return;
        }
        if (now - check->committed_ms < TASK_PROGRESS_MS || check->figures.position == task->done_bytes)
            continue;
        Director__Command command = DIRECTOR__COMMAND__INIT;
        Director__TaskProgress progress = DIRECTOR__TASK_PROGRESS__INIT;
        progress.task = task->id;
        progress.epoch = volume->epoch;
        progress.figures = &figures;
        command.body_case = DIRECTOR__COMMAND__BODY_TASK_PROGRESS;
        command.task_progress = &progress;
        check->committed_ms = now;
        task_propose(node, &command);
        return;
    }
}

void node_task_words(struct node *node, uint64_t volume_id, struct api_live_check *check)
{
    const struct tree_volume *volume = tree_volume_by_id(node->tree, volume_id);
    size_t used = 0, size = sizeof(check->words);
    check->words[0] = '\0';
    for (unsigned i = 0; volume && i < check->found_count && used < size; i++) {
        used += (size_t)snprintf(check->words + used, size - used, "%s%" PRIu64 "+%" PRIu64 " on", i ? ", " : "first at ",
                                 check->found[i].offset, check->found[i].length);
        for (unsigned k = 0; k < volume->replica_count && used < size; k++) {
            const struct tree_node *bad =
                check->found[i].replicas >> k & 1 ? tree_node_by_id(node->tree, volume->replicas[k].nodeid) : NULL;
            if (bad)
                used += (size_t)snprintf(check->words + used, size - used, " %.30s", bad->name);
        }
    }
}

void node_task_figures(struct node *node, uint64_t volume, const struct api_live_check *figures)
{
    for (size_t i = 0; i < ARRAY_SIZE(node->checks); i++)
        if (node->checks[i].task && node->checks[i].volume == volume && node->checks[i].task == figures->task)
            node->checks[i].figures = *figures;
}

void node_task_tick(struct node *node)
{
    if (!node->current || !node->engine || node->stopping)
        return;
    checks_follow(node);
    if (node->task_busy || node_now_ms(node) < node->task_retry_ms)
        return;
    checks_commit(node);
    if (!node->task_busy && node->is_sequencer)
        sequencer_step(node);
}
