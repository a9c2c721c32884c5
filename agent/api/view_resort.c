/* Last resorts, force and discard: when they are refused, and what would be lost, before anybody is asked. */
#include "agent/api/view_internal.h"

#include "director/base/size.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

const char *view_call_value(const Director__Call *call, const char *name)
{
    for (size_t i = 0; i < call->n_properties; i++)
        if (strcmp(call->properties[i]->name, name) == 0)
            return call->properties[i]->value;
    return NULL;
}

static int find_replica(const struct api_view *view, const struct tree_volume *volume, const char *name, unsigned *ret_replica,
                        struct error *error)
{
    const struct tree_node *node = tree_node_by_name(view->tree, name);
    int replica = node ? tree_volume_replica_of(volume, node->nodeid) : -1;
    if (replica >= 0) {
        *ret_replica = (unsigned)replica;
        return 0;
    }
    struct text names = {0};
    view_replica_names(view, volume, tree_volume_mask(volume), ", ", &names);
    int code = error_set(error, -EINVAL, "node %.63s has no replica of volume %s; these have: %.150s", name, volume->name,
                         text_get(&names));
    text_done(&names);
    return code;
}

static int force_check(const struct api_view *view, const struct tree_volume *volume, unsigned replica, struct error *error)
{
    const char *node = view_node_name(view, volume->replicas[replica].nodeid);
    struct view_volume_judgement judgement;
    view_judge_volume(view, volume, &judgement);
    if (volume->isr >> replica & 1)
        return error_set(error, -EINVAL, "the replica of volume %s on %s is in sync: nothing to force; to have it served there: director "
                         "/volumes/%s move owner=%s", volume->name, node, volume->name, node);
    if (judgement.live.known && judgement.live.serving && !judgement.live.suspended)
        return error_set(error, -EBUSY, "volume %s is served by %s and has lost nothing: there is nothing to force", volume->name,
                         view_node_name(view, volume->owner));
    if (volume->replicas[replica].held)
        return error_set(error, -EINVAL, "the replica of volume %s on %s is held since the volume was forced to another; its files are "
                         "left alone there, but it cannot be forced again", volume->name, node);
    if (view_node_offline(view, volume->replicas[replica].nodeid))
        return error_set(error, -EBUSY, "node %s is offline: start it before volume %s is forced to it", node, volume->name);
    return 0;
}

static int discard_check(const struct api_view *view, const struct tree_volume *volume, unsigned replica, struct error *error)
{
    const char *node = view_node_name(view, volume->replicas[replica].nodeid);
    if (volume->isr == 1u << replica)
        return error_set(error, -EBUSY, "the replica of volume %s on %s is the only one that holds every acknowledged write: it cannot be "
                         "discarded", volume->name, node);
    if (volume->owner == volume->replicas[replica].nodeid)
        return error_set(error, -EBUSY, "%s serves volume %s; first: director /volumes/%s move owner=...", node, volume->name,
                         volume->name);
    return 0;
}

int view_resort_check(const struct api_view *view, const struct tree_volume *volume, bool force, const char *node,
                      unsigned *ret_replica, struct error *error)
{
    int code = find_replica(view, volume, node, ret_replica, error);
    if (code < 0)
        return code;
    return force ? force_check(view, volume, *ret_replica, error) : discard_check(view, volume, *ret_replica, error);
}

/* Until when a replica has everything. */
static uint64_t whole_until(const struct tree_volume *volume, unsigned replica)
{
    return volume->isr >> replica & 1 ? UINT64_MAX : volume->replicas[replica].left_ms;
}

/* "node1 (offline) has all of them". */
static void others_lines(const struct api_view *view, const struct tree_volume *volume, unsigned replica, Director__Result *result)
{
    uint64_t mine = whole_until(volume, replica);
    for (unsigned i = 0; i < volume->replica_count; i++) {
        if (i == replica || !volume->replicas[i].nodeid)
            continue;
        uint64_t its = whole_until(volume, i);
        view_result_line(result, "  %s (%s) has %s", view_node_name(view, volume->replicas[i].nodeid),
                         view_node_state(view, volume->replicas[i].nodeid),
                         volume->isr >> i & 1 ? "all of them" : volume->replicas[i].held ? "files that are held from before another force"
                         : its > mine ? "some of them" : "none of them");
    }
}

static void differ_line(const struct api_view *view, const struct tree_volume *volume, unsigned replica, Director__Result *result)
{
    struct api_live_volume last;
    char size[SIZE_TEXT_SIZE];
    bool known = view->live && view->live->volume_last && view->live->volume_last(view->live_context, volume->id, &last);
    if (known && last.replica[replica].dirty_bytes)
        view_result_line(result, "  at least %s were known to differ when %s was last heard of", size_format(last.replica[replica].dirty_bytes, size),
                         view_node_name(view, volume->owner));
    else
        view_result_line(result, "  how many bytes that is, nobody who is online can tell");
    if (known && last.replica[replica].syncing)
        view_result_line(result, "  it was being resynced: it may hold new blocks beside old ones");
}

static void force_lines(const struct api_view *view, const struct tree_volume *volume, unsigned replica, Director__Result *result)
{
    const char *node = view_node_name(view, volume->replicas[replica].nodeid);
    struct text time = {0}, needed = {0};
    view_time(volume->replicas[replica].left_ms, &time);
    if (time.used)
        view_result_line(result, "forcing volume %s to %s loses every write since %s, when %s left the in-sync set:", volume->name, node,
                         text_get(&time), node);
    else
        view_result_line(result, "forcing volume %s to %s loses nearly everything: %s never was in sync, and has what was copied to it so far:",
                         volume->name, node, node);
    others_lines(view, volume, replica, result);
    differ_line(view, volume, replica, result);
    view_replica_names(view, volume, volume->isr, " or ", &needed);
    view_result_line(result, "what the others have is kept there, unused, until: director /volumes/%s discard node=... reason=...", volume->name);
    view_result_line(result, "nothing is lost if you can start %s instead", text_get(&needed));
    text_done(&time);
    text_done(&needed);
}

/* The last time it was forced, to tell why a replica is held. */
static const struct tree_event *forced_event(const struct api_view *view, const struct tree_volume *volume)
{
    for (size_t i = tree_event_count(view->tree); i-- > 0;) {
        const struct tree_event *event = tree_event_at(view->tree, i);
        if (event->kind == DIRECTOR__COMMAND__BODY_VOLUME_FORCE && strcmp(event->object, volume->name) == 0)
            return event;
    }
    return NULL;
}

static void discard_lines(const struct api_view *view, const struct tree_volume *volume, unsigned replica, Director__Result *result)
{
    const char *node = view_node_name(view, volume->replicas[replica].nodeid);
    const struct tree_event *forced = volume->replicas[replica].held ? forced_event(view, volume) : NULL;
    struct text time = {0}, names = {0};
    char size[SIZE_TEXT_SIZE];
    view_replica_names(view, volume, volume->isr & ~(1u << replica), ", ", &names);
    view_result_line(result, "discarding the replica of volume %s on %s throws its files away; all of %s is copied anew from %s",
                     volume->name, node, size_format_exact(volume->size_bytes, size), text_get(&names));
    if (forced) {
        view_time(forced->time_ms, &time);
        view_result_line(result, "  it holds writes from before the volume was forced to %s at %s (%s): they are lost for good",
                         view_node_name(view, forced->node), text_get(&time), forced->words);
    } else if (volume->replicas[replica].held) {
        view_result_line(result, "  it holds writes from before the volume was forced to another replica: they are lost for good");
    } else if (volume->isr >> replica & 1) {
        view_result_line(result, "  it is in sync: until it is again, %u of %u replicas hold every write", (unsigned)__builtin_popcount(volume->isr) - 1,
                         tree_volume_replicas(volume));
    } else {
        view_result_line(result, "  it is out of sync: nothing is on it that the others have not");
    }
    text_done(&time);
    text_done(&names);
}

int view_preview(const struct api_view *view, const struct view_place *place, const Director__Call *call,
                 Director__Result *result, struct error *error)
{
    bool force = strcmp(call->name, "force") == 0;
    const char *node = view_call_value(call, "node");
    unsigned replica;
    if (place->kind != VIEW_VOLUME || (!force && strcmp(call->name, "discard") != 0))
        return error_set(error, -ENOTSUP, "%.120s %.40s has no preview; force and discard of a volume have", place->path, call->name);
    if (!node)
        return error_set(error, -EINVAL, "%s needs node=...: the node whose replica is meant", call->name);
    int code = view_resort_check(view, place->volume, force, node, &replica, error);
    if (code < 0)
        return code;
    (force ? force_lines : discard_lines)(view, place->volume, replica, result);
    return 0;
}
