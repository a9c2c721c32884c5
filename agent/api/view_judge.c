/* States in words, from the committed tree and the live figures. */
#include "agent/api/view_internal.h"

#include <inttypes.h>
#include <string.h>

const char *view_health_word(enum view_health health)
{
    static const char *const words[] = {
        [VIEW_HEALTHY] = "healthy",           [VIEW_RESYNCING] = "resyncing", [VIEW_DEGRADED] = "degraded",
        [VIEW_FAILING_OVER] = "failing over", [VIEW_SUSPENDED] = "suspended",
    };
    return words[health];
}

bool view_quorum_known(const struct api_view *view)
{
    return view->live && view->live->quorate;
}

bool view_quorate(const struct api_view *view)
{
    return !view_quorum_known(view) || view->live->quorate(view->live_context);
}

bool view_node_offline(const struct api_view *view, uint32_t nodeid)
{
    return view->live && view->live->node_alive && !view->live->node_alive(view->live_context, nodeid);
}

const char *view_node_state(const struct api_view *view, uint32_t nodeid)
{
    if (!view->live || !view->live->node_alive)
        return "unknown";
    return view_node_offline(view, nodeid) ? "offline" : "online";
}

const char *view_node_name(const struct api_view *view, uint32_t nodeid)
{
    const struct tree_node *node = nodeid && nodeid <= UINT16_MAX ? tree_node_by_id(view->tree, (uint16_t)nodeid) : NULL;
    return node ? node->name : "?";
}

void view_replica_names(const struct api_view *view, const struct tree_volume *volume, uint32_t mask, const char *separator,
                        struct text *names)
{
    bool first = true;
    for (unsigned i = 0; i < volume->replica_count; i++) {
        if (!(mask >> i & 1))
            continue;
        text_addf(names, "%s%s", first ? "" : separator, view_node_name(view, volume->replicas[i].nodeid));
        first = false;
    }
}

static void reason_suspended(const struct api_view *view, const struct tree_volume *volume, uint32_t needed,
                             struct view_volume_judgement *judgement)
{
    struct text names = {0};
    view_replica_names(view, volume, needed, " or ", &names);
    (void)snprintf(judgement->reason, sizeof(judgement->reason),
                   "the only replicas that hold every acknowledged write are on %.120s: start %s", text_get(&names),
                   needed & (needed - 1) ? "one of them" : "it");
    text_done(&names);
}

static void reason_missing(const struct api_view *view, const struct tree_volume *volume, uint32_t offline, uint32_t out,
                           struct view_volume_judgement *judgement)
{
    struct text names = {0};
    view_replica_names(view, volume, offline ? offline : out, ", ", &names);
    (void)snprintf(judgement->reason, sizeof(judgement->reason), offline ? "%.160s offline" : "%.160s not in sync",
                   text_get(&names));
    text_done(&names);
}

void view_judge_volume(const struct api_view *view, const struct tree_volume *volume,
                       struct view_volume_judgement *ret_judgement)
{
    struct view_volume_judgement *judgement = ret_judgement;
    uint32_t all = tree_volume_mask(volume), offline = 0;
    memset(judgement, 0, sizeof(*judgement));
    /* The figures are its owner's: what was last heard of one that is gone is not so any more. */
    if (view->live && view->live->volume && !view_node_offline(view, volume->owner))
        judgement->live.known = view->live->volume(view->live_context, volume->id, &judgement->live);
    for (unsigned i = 0; i < volume->replica_count; i++) {
        judgement->in_sync += volume->isr >> i & 1;
        if (!volume->replicas[i].nodeid)
            continue;
        if (view_node_offline(view, volume->replicas[i].nodeid))
            offline |= 1u << i;
        else if (!(volume->isr >> i & 1) && judgement->live.known && judgement->live.replica[i].syncing)
            judgement->syncing++;
    }
    judgement->health = VIEW_HEALTHY;
    if (!view_quorate(view)) {
        judgement->health = VIEW_SUSPENDED;
        (void)snprintf(judgement->reason, sizeof(judgement->reason), "the cluster is not quorate");
    } else if ((volume->isr & ~offline) == 0) {
        judgement->health = VIEW_SUSPENDED;
        reason_suspended(view, volume, volume->isr, judgement);
    } else if (view_node_offline(view, volume->owner)) {
        judgement->health = VIEW_FAILING_OVER;
        (void)snprintf(judgement->reason, sizeof(judgement->reason), "owner %s is offline", view_node_name(view, volume->owner));
    } else if (judgement->live.known && judgement->live.suspended) {
        judgement->health = VIEW_SUSPENDED;
        (void)snprintf(judgement->reason, sizeof(judgement->reason), "%s",
                       judgement->live.reason[0] ? judgement->live.reason : "its owner holds I/O");
    } else if (volume->isr != all || offline) {
        judgement->health = judgement->syncing && !offline ? VIEW_RESYNCING : VIEW_DEGRADED;
        reason_missing(view, volume, offline, all & ~volume->isr, judgement);
    }
}

static unsigned percent(uint64_t done, uint64_t total)
{
    if (total == 0)
        return 0;
    return done >= total ? 100 : (unsigned)((double)done * 100 / (double)total);
}

void view_replica_state(const struct api_view *view, const struct tree_volume *volume, unsigned replica,
                        const struct view_volume_judgement *judgement, struct text *state)
{
    if (view_node_offline(view, volume->replicas[replica].nodeid))
        text_add(state, "offline");
    else if (volume->replicas[replica].held)
        text_add(state, "held");
    else if (volume->isr >> replica & 1)
        text_add(state, "in sync");
    else if (judgement->live.known && judgement->live.replica[replica].syncing)
        text_addf(state, "syncing %u%%",
                  percent(judgement->live.replica[replica].done_bytes, judgement->live.replica[replica].total_bytes));
    else
        text_add(state, "out of sync");
}

unsigned view_session_count(const struct api_view *view, const char *iqn)
{
    struct api_live_session session;
    unsigned count = 0;
    while (view->live && view->live->session && count < 100000 &&
           view->live->session(view->live_context, iqn, count, &session))
        count++;
    return count;
}
