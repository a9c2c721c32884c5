/* /tasks: work under way and the results of what ended. Verify, scrub and move are committed, so that a failover goes on with
 * them; growing and resyncs are shown as the volumes stand. */
#include "agent/api/view_internal.h"

#include "director/base/size.h"
#include <inttypes.h>
#include <string.h>

static const char *const kind_words[] = {
    [DIRECTOR__TASK_KIND__TASK_NONE] = "task",
    [DIRECTOR__TASK_KIND__TASK_VERIFY] = "verify",
    [DIRECTOR__TASK_KIND__TASK_SCRUB] = "scrub",
    [DIRECTOR__TASK_KIND__TASK_MOVE] = "move",
};
static const char *const state_words[] = {
    [DIRECTOR__TASK_STATE__TASK_RUNNING] = "running",
    [DIRECTOR__TASK_STATE__TASK_DONE] = "done",
    [DIRECTOR__TASK_STATE__TASK_FAILED] = "failed",
    [DIRECTOR__TASK_STATE__TASK_CANCELLED] = "cancelled",
};

const char *view_task_kind(uint64_t kind)
{
    return kind_words[kind < ARRAY_SIZE(kind_words) ? kind : 0];
}

const char *view_task_state(uint64_t state)
{
    return state < ARRAY_SIZE(state_words) ? state_words[state] : "ended";
}

/* What a task stands at, whatever its kind. */
struct figures {
    const char *kind, *state;
    uint64_t done_bytes, total_bytes, bytes_per_second, left_ms; /* left UINT64_MAX: not known */
    uint64_t mismatches, bad_blocks, repaired, unrepaired;
    const char *words;
    bool check, running;
};

static void task_name(const struct api_view *view, const struct view_place *place, char *name, size_t size)
{
    if (place->task)
        (void)snprintf(name, size, "%s-%" PRIu64, kind_words[place->task->kind], place->task->id);
    else if (place->replica == VIEW_NO_REPLICA)
        (void)snprintf(name, size, "grow-%s", place->volume->name);
    else
        (void)snprintf(name, size, "resync-%s-%s", place->volume->name,
                       view_node_name(view, place->volume->replicas[place->replica].nodeid));
}

static bool offer(const struct api_view *view, struct view_place *child, const struct view_place *place, view_visit *visit,
                  void *context)
{
    char name[160];
    child->kind = VIEW_TASK;
    task_name(view, child, name, sizeof(name));
    (void)snprintf(child->path, sizeof(child->path), "%.240s/%.160s", place->path, name);
    return visit(child, context);
}

void view_task_visit(const struct api_view *view, struct view_place *child, const struct view_place *place, view_visit *visit,
                     void *context)
{
    *child = *place;
    for (size_t i = 0; i < tree_task_count(view->tree); i++) {
        child->task = tree_task_at(view->tree, i);
        child->volume = tree_volume_by_id(view->tree, child->task->volume);
        child->replica = VIEW_NO_REPLICA;
        if (!offer(view, child, place, visit, context))
            return;
    }
    child->task = NULL;
    for (size_t i = 0; i < tree_volume_count(view->tree); i++) {
        const struct tree_volume *volume = tree_volume_at(view->tree, i);
        child->volume = volume;
        child->replica = VIEW_NO_REPLICA;
        if (volume->size_wanted && !offer(view, child, place, visit, context))
            return;
        if (volume->isr == tree_volume_mask(volume))
            continue;
        struct view_volume_judgement judgement;
        view_judge_volume(view, volume, &judgement);
        for (unsigned r = 0; judgement.live.known && r < volume->replica_count; r++) {
            child->replica = r;
            if (volume->replicas[r].nodeid && !(volume->isr >> r & 1) && judgement.live.replica[r].syncing &&
                !offer(view, child, place, visit, context))
                return;
        }
    }
}

bool view_task_running(const struct view_place *place)
{
    return !place->task || place->task->state == DIRECTOR__TASK_STATE__TASK_RUNNING;
}

static void resync_figures(const struct view_volume_judgement *judgement, const struct view_place *place, struct figures *figures)
{
    figures->done_bytes = judgement->live.replica[place->replica].done_bytes;
    figures->total_bytes = judgement->live.replica[place->replica].total_bytes;
    figures->bytes_per_second = judgement->live.replica[place->replica].bytes_per_second;
    figures->left_ms = judgement->live.replica[place->replica].left_ms;
}

static void grow_figures(const struct api_view *view, const struct tree_volume *volume, struct figures *figures, struct text *words)
{
    char to[SIZE_TEXT_SIZE];
    text_addf(words, "to %s", size_format_exact(volume->size_wanted, to));
    if (volume->isr & ~volume->grown) {
        text_add(words, ", waits for ");
        view_replica_names(view, volume, volume->isr & ~volume->grown, " ", words);
    }
    figures->words = text_get(words);
}

/* A move is at its resync, or about to end. */
static void move_figures(const struct api_view *view, const struct view_place *place, const struct view_volume_judgement *judgement,
                         struct figures *figures, struct text *words)
{
    const struct tree_volume *volume = place->volume;
    int to = tree_volume_replica_of(volume, place->task->to);
    struct view_place resync = *place;
    if (to < 0) {
        text_add(words, "its new replica was removed");
    } else if (volume->isr >> to & 1) {
        text_addf(words, "%s is in sync; the replica on %s goes", view_node_name(view, place->task->to),
                  view_node_name(view, place->task->from));
    } else if (view_node_offline(view, place->task->to)) {
        text_addf(words, "waits for %s, which is offline", view_node_name(view, place->task->to));
    } else if (judgement->live.known && judgement->live.replica[to].syncing) {
        resync.replica = (unsigned)to;
        resync_figures(judgement, &resync, figures);
    } else {
        text_addf(words, "waits for the resync of %s to begin", view_node_name(view, place->task->to));
    }
    figures->words = text_get(words);
}

/* words: memory for figures->words where it is made. */
static void task_figures(const struct api_view *view, const struct view_place *place, struct figures *figures, struct text *words)
{
    const struct tree_task *task = place->task;
    struct view_volume_judgement judgement = {0};
    *figures = (struct figures){.left_ms = UINT64_MAX, .words = "", .running = view_task_running(place)};
    if (place->volume && figures->running)
        view_judge_volume(view, place->volume, &judgement);
    if (!task) {
        figures->state = "running";
        figures->kind = place->replica == VIEW_NO_REPLICA ? "grow" : "resync";
        if (place->replica == VIEW_NO_REPLICA)
            grow_figures(view, place->volume, figures, words);
        else
            resync_figures(&judgement, place, figures);
        return;
    }
    figures->kind = kind_words[task->kind];
    figures->state = state_words[task->state];
    figures->check = task->kind != DIRECTOR__TASK_KIND__TASK_MOVE;
    figures->words = task->words;
    figures->done_bytes = task->done_bytes;
    figures->total_bytes = task->total_bytes;
    figures->mismatches = task->mismatches;
    figures->bad_blocks = task->bad_blocks;
    figures->repaired = task->repaired;
    figures->unrepaired = task->unrepaired;
    if (!figures->running)
        return;
    if (!figures->check) {
        move_figures(view, place, &judgement, figures, words);
        return;
    }
    const struct api_live_check *check = &judgement.live.check;
    if (!judgement.live.known || check->task != task->id) {
        figures->state = "waiting";
        figures->words = "for the volume's owner";
        return;
    }
    figures->state = check->waiting ? "waiting" : "running";
    text_add(words, check->waiting ? "for a resync to end, or a node to return" : check->words); /* the judgement goes */
    figures->words = text_get(words);
    figures->done_bytes = check->position;
    figures->total_bytes = check->total_bytes;
    figures->bytes_per_second = check->bytes_per_second;
    figures->left_ms = check->left_ms;
    figures->mismatches = check->mismatches;
    figures->bad_blocks = check->bad_blocks;
    figures->repaired = check->repaired;
    figures->unrepaired = check->unrepaired;
}

static unsigned percent(const struct figures *figures)
{
    return figures->done_bytes >= figures->total_bytes ? 100
                                                       : (unsigned)((double)figures->done_bytes * 100 / (double)figures->total_bytes);
}

static void left(uint64_t ms, struct text *text)
{
    uint64_t seconds = (ms + 999) / 1000;
    if (seconds < 100)
        text_addf(text, "%" PRIu64 " s", seconds);
    else if (seconds < 100 * 60)
        text_addf(text, "%" PRIu64 " min", (seconds + 59) / 60);
    else
        text_addf(text, "%" PRIu64 " h", (seconds + 3599) / 3600);
}

/* What a check found. */
static void findings(const struct figures *figures, struct text *text)
{
    if (figures->mismatches)
        text_addf(text, ", %" PRIu64 " %s", figures->mismatches, figures->mismatches == 1 ? "block differs" : "blocks differ");
    if (figures->bad_blocks)
        text_addf(text, ", %" PRIu64 " bad %s", figures->bad_blocks, figures->bad_blocks == 1 ? "block" : "blocks");
    if (!figures->mismatches && !figures->bad_blocks && !figures->running && strcmp(figures->state, "done") == 0)
        text_add(text, ", all is well");
    if (figures->repaired)
        text_addf(text, ", %" PRIu64 " repaired", figures->repaired);
    if (figures->unrepaired)
        text_addf(text, ", %" PRIu64 " not repaired", figures->unrepaired);
}

void view_task_summary(const struct api_view *view, const struct view_place *place, struct text *summary)
{
    struct figures figures;
    struct text words = {0};
    char speed[SIZE_TEXT_SIZE];
    task_figures(view, place, &figures, &words);
    text_add(summary, figures.state);
    if (figures.running && figures.total_bytes)
        text_addf(summary, " %u%%", percent(&figures));
    text_addf(summary, ", volume %s", place->task ? place->task->volume_name : place->volume->name);
    if (place->task && place->task->kind == DIRECTOR__TASK_KIND__TASK_MOVE)
        text_addf(summary, ", %s to %s", view_node_name(view, place->task->from), view_node_name(view, place->task->to));
    if (!place->task && place->replica != VIEW_NO_REPLICA)
        text_addf(summary, ", to %s", view_node_name(view, place->volume->replicas[place->replica].nodeid));
    if (figures.running && figures.bytes_per_second)
        text_addf(summary, ", %s/s", size_format(figures.bytes_per_second, speed));
    if (figures.running && figures.left_ms != UINT64_MAX) {
        text_add(summary, ", about ");
        left(figures.left_ms, summary);
        text_add(summary, " left");
    }
    if (figures.check)
        findings(&figures, summary);
    if (figures.words[0])
        text_addf(summary, ", %s", figures.words);
    text_done(&words);
}

#define IS(word) (strcmp(name, word) == 0)

static void size_value(uint64_t bytes, struct text *value)
{
    char text[SIZE_TEXT_SIZE];
    text_add(value, size_format_exact(bytes, text));
}

static void check_value(const struct figures *figures, const char *name, struct text *value)
{
    if (IS("mismatches"))
        text_addf(value, "%" PRIu64, figures->mismatches);
    else if (IS("bad_blocks"))
        text_addf(value, "%" PRIu64, figures->bad_blocks);
    else if (IS("repaired"))
        text_addf(value, "%" PRIu64, figures->repaired);
    else if (IS("unrepaired"))
        text_addf(value, "%" PRIu64, figures->unrepaired);
}

static void committed_value(const struct api_view *view, const struct tree_task *task, const char *name, struct text *value)
{
    bool move = task->kind == DIRECTOR__TASK_KIND__TASK_MOVE;
    if (IS("from") && move)
        text_add(value, view_node_name(view, task->from));
    else if (IS("to") && move)
        text_add(value, view_node_name(view, task->to));
    else if (IS("repair") && !move)
        text_add(value, task->repair ? "yes" : "no");
    else if (IS("started"))
        view_time(task->started_ms, value);
    else if (IS("ended"))
        view_time(task->ended_ms, value);
    else if (IS("by"))
        text_add(value, task->who);
}

void view_task_value(const struct api_view *view, const struct view_place *place, const char *name, struct text *value)
{
    struct figures figures;
    struct text words = {0};
    task_figures(view, place, &figures, &words);
    if (IS("kind"))
        text_add(value, figures.kind);
    else if (IS("state"))
        text_add(value, figures.state);
    else if (IS("volume"))
        text_add(value, place->task ? place->task->volume_name : place->volume->name);
    else if (IS("to") && !place->task && place->replica != VIEW_NO_REPLICA)
        text_add(value, view_node_name(view, place->volume->replicas[place->replica].nodeid));
    else if (IS("done") && figures.total_bytes)
        size_value(figures.done_bytes, value);
    else if (IS("total") && figures.total_bytes)
        size_value(figures.total_bytes, value);
    else if (IS("percent") && figures.total_bytes)
        text_addf(value, "%u", percent(&figures));
    else if (IS("speed") && figures.running && figures.bytes_per_second)
        size_value(figures.bytes_per_second, value);
    else if (IS("seconds_left") && figures.running && figures.left_ms != UINT64_MAX)
        text_addf(value, "%" PRIu64, (figures.left_ms + 999) / 1000);
    else if (IS("reason"))
        text_add(value, figures.words);
    else if (place->task)
        committed_value(view, place->task, name, value);
    if (figures.check)
        check_value(&figures, name, value);
    text_done(&words);
}
