/* Tasks: work on a volume that is committed so that it outlives whoever runs it, and whose result stays to be read. */
#include "agent/core/tree_internal.h"

size_t tree_task_count(const struct tree *tree)
{
    return tree->task_count;
}

const struct tree_task *tree_task_at(const struct tree *tree, size_t place)
{
    return place < tree->task_count ? &tree->tasks[place] : NULL;
}

const struct tree_task *tree_task_by_id(const struct tree *tree, uint64_t id)
{
    for (size_t i = 0; i < tree->task_count; i++)
        if (tree->tasks[i].id == id)
            return &tree->tasks[i];
    return NULL;
}

const struct tree_task *tree_task_running(const struct tree *tree, uint64_t volume, Director__TaskKind kind)
{
    for (size_t i = 0; i < tree->task_count; i++)
        if (tree->tasks[i].volume == volume && tree->tasks[i].state == DIRECTOR__TASK_STATE__TASK_RUNNING &&
            (kind == DIRECTOR__TASK_KIND__TASK_NONE || tree->tasks[i].kind == kind))
            return &tree->tasks[i];
    return NULL;
}

/* Only the last TREE_TASKS_KEPT that ended stay. */
void tree_tasks_trim(struct tree *tree)
{
    size_t ended = 0;
    for (size_t i = 0; i < tree->task_count; i++)
        ended += tree->tasks[i].state != DIRECTOR__TASK_STATE__TASK_RUNNING;
    for (size_t i = 0; i < tree->task_count && ended > TREE_TASKS_KEPT;) {
        if (tree->tasks[i].state == DIRECTOR__TASK_STATE__TASK_RUNNING) {
            i++;
            continue;
        }
        memmove(&tree->tasks[i], &tree->tasks[i + 1], (tree->task_count - i - 1) * sizeof(tree->tasks[0]));
        tree->task_count--;
        ended--;
    }
}

static size_t running_count(const struct tree *tree)
{
    size_t count = 0;
    for (size_t i = 0; i < tree->task_count; i++)
        count += tree->tasks[i].state == DIRECTOR__TASK_STATE__TASK_RUNNING;
    return count;
}

static bool is_check(Director__TaskKind kind)
{
    return kind == DIRECTOR__TASK_KIND__TASK_VERIFY || kind == DIRECTOR__TASK_KIND__TASK_SCRUB;
}

static int check_check(struct tree_change *change, const struct tree_volume *volume)
{
    const struct tree_task *other = tree_task_running(change->tree, volume->id, DIRECTOR__TASK_KIND__TASK_VERIFY);
    if (!other)
        other = tree_task_running(change->tree, volume->id, DIRECTOR__TASK_KIND__TASK_SCRUB);
    if (other)
        return error_set(change->error, -EBUSY, "volume '%s' is being checked already by task %" PRIu64 ": wait for it, or cancel it",
                         volume->name, other->id);
    if (change->command->task_create->kind == DIRECTOR__TASK_KIND__TASK_SCRUB && !volume->policy.checksum)
        return error_set(change->error, -EINVAL, "volume '%s' has no checksums to scrub: it was made with checksum=off; verify "
                         "compares its replicas instead", volume->name);
    return 0;
}

static int check_move(struct tree_change *change, struct tree_volume *volume, struct tree_addition *ret_addition)
{
    const Director__TaskCreate *create = change->command->task_create;
    unsigned from;
    const struct tree_task *other = tree_task_running(change->tree, volume->id, DIRECTOR__TASK_KIND__TASK_MOVE);
    if (other)
        return error_set(change->error, -EBUSY, "a replica of volume '%s' is being moved already by task %" PRIu64 ": wait for it, or "
                         "cancel it", volume->name, other->id);
    int status = tree_volume_node(change, volume, create->from, &from);
    if (status)
        return status;
    return tree_replica_add_check(change, volume->id, create->to, create->store, create->incarnation, ret_addition);
}

int tree_task_create(struct tree_change *change)
{
    const Director__TaskCreate *create = change->command->task_create;
    struct tree *tree = change->tree;
    struct tree_volume *volume;
    struct tree_addition addition = {0};
    int status = tree_volume_get(change, create->volume, &volume);
    if (status)
        return status;
    bool move = create->kind == DIRECTOR__TASK_KIND__TASK_MOVE;
    if (!move && !is_check(create->kind))
        return error_set(change->error, -EINVAL, "%d is no kind of task: verify, scrub and move are", (int)create->kind);
    status = move ? check_move(change, volume, &addition) : check_check(change, volume);
    if (status)
        return status;
    if (running_count(tree) >= TREE_TASKS_MAX)
        return error_set(change->error, -E2BIG, "%u tasks are running: wait for some, or cancel some", TREE_TASKS_MAX);
    if (change->dry)
        return 0;
    struct tree_task *task = &tree->tasks[tree->task_count++];
    *task = (struct tree_task){.id = ++tree->last_task, .kind = create->kind, .volume = volume->id, .repair = create->repair && !move,
                               .started_ms = change->command->time_ms, .total_bytes = move ? 0 : volume->size_bytes};
    tree_copy(task->volume_name, sizeof(task->volume_name), volume->name);
    if (tree_text_fits(change->command->who, TREE_NAME_SIZE))
        tree_copy(task->who, sizeof(task->who), change->command->who);
    if (move) {
        task->from = (uint16_t)create->from;
        task->to = addition.store->nodeid;
        tree_replica_add_make(change, &addition);
    }
    change->result->task = task->id;
    change->result->volume = volume->id;
    return 0;
}

static void take_figures(struct tree_task *task, const Director__TaskFigures *figures)
{
    if (!figures)
        return;
    task->done_bytes = figures->done_bytes;
    task->total_bytes = figures->total_bytes;
    task->mismatches = figures->mismatches;
    task->bad_blocks = figures->bad_blocks;
    task->repaired = figures->repaired;
    task->unrepaired = figures->unrepaired;
}

static int task_get(struct tree_change *change, uint64_t id, struct tree_task **ret_task)
{
    struct tree_task *task = (struct tree_task *)tree_task_by_id(change->tree, id);
    if (!task)
        return error_set(change->error, -ENOENT, "there is no task %" PRIu64 ": list /tasks for those that are", id);
    if (task->state != DIRECTOR__TASK_STATE__TASK_RUNNING)
        return error_set(change->error, -ESTALE, "task %" PRIu64 " on volume '%s' has ended already: look at its result", id,
                         task->volume_name);
    *ret_task = task;
    return 0;
}

/* From the owner that runs it: one of a lower epoch does so no more. */
int tree_task_progress(struct tree_change *change)
{
    const Director__TaskProgress *body = change->command->task_progress;
    struct tree_task *task;
    int status = task_get(change, body->task, &task);
    if (status)
        return status;
    const struct tree_volume *volume = tree_volume_find(change->tree, task->volume);
    ASSERT(volume); /* T2: its tasks end with it */
    if (body->epoch != volume->epoch)
        return error_set(change->error, -ESTALE, "volume '%s' is at epoch %" PRIu64 ", not %" PRIu64 ": task %" PRIu64
                         " goes on at its new owner", volume->name, volume->epoch, body->epoch, task->id);
    if (!change->dry)
        take_figures(task, body->figures);
    return 0;
}

static void end(struct tree_task *task, Director__TaskState state, uint64_t time_ms, const char *words)
{
    task->state = state;
    task->ended_ms = time_ms;
    if (tree_text_fits(words, TREE_WORDS_SIZE))
        tree_copy(task->words, sizeof(task->words), words);
}

int tree_task_end(struct tree_change *change)
{
    const Director__TaskEnd *body = change->command->task_end;
    struct tree_task *task;
    int status = task_get(change, body->task, &task);
    if (status)
        return status;
    if (body->state <= DIRECTOR__TASK_STATE__TASK_RUNNING || body->state > DIRECTOR__TASK_STATE__TASK_CANCELLED)
        return error_set(change->error, -EINVAL, "task %" PRIu64 " cannot end as %d: done, failed and cancelled are ends", task->id,
                         (int)body->state);
    if (change->dry)
        return 0;
    take_figures(task, body->figures);
    end(task, body->state, change->command->time_ms, body->words);
    change->result->task = task->id;
    change->result->volume = task->volume;
    tree_tasks_trim(change->tree);
    return 0;
}

void tree_tasks_cancel(struct tree *tree, uint64_t volume, uint64_t time_ms, const char *words)
{
    for (size_t i = 0; i < tree->task_count; i++)
        if (tree->tasks[i].volume == volume && tree->tasks[i].state == DIRECTOR__TASK_STATE__TASK_RUNNING)
            end(&tree->tasks[i], DIRECTOR__TASK_STATE__TASK_CANCELLED, time_ms, words);
    tree_tasks_trim(tree);
}
