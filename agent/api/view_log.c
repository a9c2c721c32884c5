/* /events: the replicated log of what happened, in words. */
#include "agent/api/view_internal.h"

#include "director/base/size.h"
#include <inttypes.h>
#include <string.h>
#include <time.h>

void view_time(uint64_t ms, struct text *text)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm parts;
    char words[32];
    if (ms && gmtime_r(&seconds, &parts) && strftime(words, sizeof(words), "%Y-%m-%dT%H:%M:%SZ", &parts))
        text_add(text, words);
}

static void in_sync(const struct api_view *view, const struct tree_event *event, struct text *words)
{
    text_addf(words, "owner %s, in sync on", view_node_name(view, event->owner));
    for (unsigned i = 0; i < TREE_REPLICAS_MAX && event->in_sync[i]; i++)
        text_addf(words, " %s", view_node_name(view, event->in_sync[i]));
    text_addf(words, ", epoch %" PRIu64, event->epoch);
}

static void set_words(const struct tree_event *event, struct text *words)
{
    static const struct {
        uint32_t field;
        const char *name;
    } fields[] = {
        {DIRECTOR__VOLUME_POLICY_FIELD__POLICY_WRITE_BACK, "cache"},
        {DIRECTOR__VOLUME_POLICY_FIELD__POLICY_VERIFIED_READS, "reads"},
        {DIRECTOR__VOLUME_POLICY_FIELD__POLICY_SLOW, "slow"},
        {DIRECTOR__VOLUME_POLICY_FIELD__POLICY_IN_SYNC_MIN, "in_sync_min"},
        {DIRECTOR__VOLUME_POLICY_FIELD__POLICY_RESYNC_FLOOR, "resync_floor"},
        {DIRECTOR__VOLUME_POLICY_FIELD__POLICY_RESYNC_CAP, "resync_cap"},
    };
    bool more = false;
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        if (!(event->number & fields[i].field))
            continue;
        text_addf(words, "%s%s", more ? ", " : "", fields[i].name);
        more = true;
    }
    text_add(words, " set");
}

static void volume_words(const struct api_view *view, const struct tree_event *event, struct text *words)
{
    const char *node = event->node ? view_node_name(view, event->node) : "?";
    char size[SIZE_TEXT_SIZE];
    text_addf(words, "volume %s: ", event->object);
    switch (event->kind) {
    case DIRECTOR__COMMAND__BODY_VOLUME_CREATE:
        text_addf(words, "made, %s", size_format_exact(event->number, size));
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_DELETE:
        text_add(words, "deleted");
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_INCARNATION:
        text_add(words, "a replica was made anew");
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_SET:
        set_words(event, words);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_REPLICA_ADD:
        text_addf(words, "replica added on %s", node);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_REPLICA_REMOVE:
        text_addf(words, "replica on %s removed", node);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_GROW:
        text_addf(words, event->detail ? "stays at %s" : "grows to %s", size_format_exact(event->number, size));
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_GROWN:
        text_addf(words, "has %s now", size_format_exact(event->number, size));
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_FORCE:
        text_addf(words, "FORCED to what %s holds, ", node);
        in_sync(view, event, words);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_DISCARD:
        text_addf(words, "replica on %s discarded", node);
        break;
    default:
        in_sync(view, event, words);
    }
}

static void task_words(const struct tree_event *event, struct text *words)
{
    text_addf(words, "task %s-%" PRIu64 " on volume %s: %s", view_task_kind(event->detail % 16), event->number, event->object,
              event->kind == DIRECTOR__COMMAND__BODY_TASK_CREATE ? "started" : view_task_state(event->detail / 16));
}

static void kind_words(const struct api_view *view, const struct tree_event *event, struct text *words)
{
    switch (event->kind) {
    case DIRECTOR__COMMAND__BODY_CLUSTER_INIT:
        text_addf(words, "cluster %s: formed", event->object);
        break;
    case DIRECTOR__COMMAND__BODY_CLUSTER_SET: {
        const struct tree_timings *timings = tree_profile_timings((Director__ClusterProfile)event->number);
        text_addf(words, "cluster %s: profile %s", event->object, timings ? timings->name : "?");
        break;
    }
    case DIRECTOR__COMMAND__BODY_NODE_ADD:
        text_addf(words, "node %s: joined", event->object);
        break;
    case DIRECTOR__COMMAND__BODY_NODE_VOTER:
        text_addf(words, "node %s: %s", event->object, event->number ? "votes" : "does not vote");
        break;
    case DIRECTOR__COMMAND__BODY_NODE_REMOVE:
        text_addf(words, "node %s: removed", event->object);
        break;
    case DIRECTOR__COMMAND__BODY_STORE_REMOVE:
        text_addf(words, "store %s of node %s: deleted", event->object, view_node_name(view, event->node));
        break;
    case DIRECTOR__COMMAND__BODY_TARGET_CREATE:
    case DIRECTOR__COMMAND__BODY_TARGET_DELETE:
        text_addf(words, "target %s: %s", event->object, event->kind == DIRECTOR__COMMAND__BODY_TARGET_CREATE ? "made" : "deleted");
        break;
    case DIRECTOR__COMMAND__BODY_LUN_ADD:
        text_addf(words, "target %s: lun %" PRIu64 " is volume %s", event->object, event->number, event->words);
        break;
    case DIRECTOR__COMMAND__BODY_LUN_REMOVE:
        text_addf(words, "target %s: lun %" PRIu64 " deleted", event->object, event->number);
        break;
    case DIRECTOR__COMMAND__BODY_TASK_CREATE:
    case DIRECTOR__COMMAND__BODY_TASK_END:
        task_words(event, words);
        break;
    default:
        volume_words(view, event, words);
    }
}

void view_event_words(const struct api_view *view, const struct tree_event *event, struct text *words)
{
    kind_words(view, event, words);
    if (event->words[0] && event->kind != DIRECTOR__COMMAND__BODY_LUN_ADD)
        text_addf(words, ", because: %s", event->words);
    if (event->who[0])
        text_addf(words, ", by %s at %s", event->who, view_node_name(view, event->origin));
}

void view_event_value(const struct api_view *view, const struct tree_event *event, const char *name, struct text *value)
{
    if (strcmp(name, "time") == 0)
        view_time(event->time_ms, value);
    else if (strcmp(name, "what") == 0)
        kind_words(view, event, value);
    else if (strcmp(name, "object") == 0)
        text_add(value, event->object);
    else if (strcmp(name, "why") == 0)
        text_add(value, event->words);
    else if (strcmp(name, "by") == 0)
        text_add(value, event->who);
    else if (strcmp(name, "at") == 0 && event->origin)
        text_add(value, view_node_name(view, event->origin));
}
