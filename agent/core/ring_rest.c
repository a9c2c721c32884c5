#include "agent/core/ring_rest.h"

static uint64_t digest(const uint16_t *members, size_t count)
{
    uint64_t sum = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < count; i++)
        sum = (sum ^ members[i]) * 0x100000001b3u;
    return sum | 1;
}

void ring_rest_view(struct ring_rest *rest, const uint16_t *members, size_t count, bool majority, uint64_t now_ms)
{
    uint64_t minority = majority ? 0 : digest(members, count);
    if (rest->resting)
        return; /* the last words of a corosync that ends */
    if (minority && minority == rest->minority && now_ms - rest->view_ms <= RING_REST_GAP_MS)
        rest->repeats++;
    else
        rest->repeats = minority ? 1 : 0;
    rest->minority = minority;
    rest->view_ms = now_ms;
}

/* Since when a condition has held without a break. */
static void hold(uint64_t *since_ms, bool holds, uint64_t now_ms)
{
    if (!holds)
        *since_ms = 0;
    else if (!*since_ms)
        *since_ms = now_ms;
}

static enum ring_rest_action step_running(struct ring_rest *rest, const struct ring_rest_heard *heard, uint64_t now_ms)
{
    if (rest->rest_ms && now_ms - rest->since_ms >= RING_REST_CALM_MS)
        rest->rest_ms = 0;
    if (rest->repeats < RING_REST_REPEATS || !heard->outside || now_ms - rest->view_ms > RING_REST_GAP_MS)
        return RING_REST_NOTHING;
    uint64_t rest_ms = MAX(rest->rest_ms, (uint64_t)RING_REST_MIN_MS);
    *rest = (struct ring_rest){.resting = true, .unseen = heard->everybody, .since_ms = now_ms, .until_ms = now_ms + rest_ms,
                               .rest_ms = MIN(rest_ms * 2, (uint64_t)RING_REST_MAX_MS)};
    return RING_REST_STOP;
}

enum ring_rest_action ring_rest_step(struct ring_rest *rest, uint16_t nodeid, const struct ring_rest_heard *heard,
                                     uint64_t now_ms)
{
    if (!rest->resting)
        return step_running(rest, heard, now_ms);
    uint64_t alone_ms = RING_REST_ALONE_MS + nodeid % RING_REST_SHARES * RING_REST_SHARE_MS;
    hold(&rest->healed_ms, heard->everybody && !rest->unseen, now_ms);
    hold(&rest->alone_ms, !heard->quorate, now_ms);
    if (now_ms < rest->until_ms && !(rest->healed_ms && now_ms - rest->healed_ms >= RING_REST_HEAL_MS) &&
        !(rest->alone_ms && now_ms - rest->alone_ms >= alone_ms))
        return RING_REST_NOTHING;
    *rest = (struct ring_rest){.since_ms = now_ms, .rest_ms = rest->rest_ms};
    return RING_REST_START;
}
