/* When some nodes hear each other only through a third (A and B are cut, both hear C; or B hears A but not the other way round),
 * corosync has no ring that would stay: it forms one anew every 0.4 to 1 s for ever, and often none of them is quorate (shared
 * FACTS: "an asymmetric cut"). One end then always sees the same sign: a ring of a minority, mostly of itself alone, again and again,
 * while it hears other nodes of the cluster on its peer links. It is the one that is too many, so it rests its corosync; the others
 * form a ring that stays.
 *
 *   RUNNING --(the same minority RING_REST_REPEATS times, each within RING_REST_GAP_MS of the one before, others are heard)--> RESTING
 *   RESTING --(every node of the cluster was heard for RING_REST_HEAL_MS, and was not before: the cut is healed)--> RUNNING
 *   RESTING --(nobody heard has been quorate for RING_REST_ALONE_MS and a share by nodeid: it may take us)--> RUNNING
 *   RESTING --(time is over: RING_REST_MIN_MS, twice as long each time up to RING_REST_MAX_MS; calm forgives)--> RUNNING
 *
 * It is about availability alone: who rests has no view, so it serves nothing, orders nothing and votes for nothing. A node that
 * hears nobody (all of it is cut off) never rests: its ring of one stays, and harms nobody. Should both ends rest at once, the
 * share by nodeid brings one back before the other.
 *
 * Pure: time is an argument (monotonic milliseconds). */
#ifndef DIRECTOR_AGENT_CORE_RING_REST_H
#define DIRECTOR_AGENT_CORE_RING_REST_H

#include "director/base/common.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RING_REST_REPEATS  3u
#define RING_REST_GAP_MS   8000u /* with a token of 1 s a ring forms every 3 s or so */
#define RING_REST_HEAL_MS  1000u
#define RING_REST_ALONE_MS 2500u /* the others need about 1 s to form a ring and elect */
#define RING_REST_SHARE_MS 700u
#define RING_REST_SHARES   4u
#define RING_REST_MIN_MS   5000u
#define RING_REST_MAX_MS   60000u
#define RING_REST_CALM_MS  120000u

enum ring_rest_action { RING_REST_NOTHING = 0, RING_REST_STOP = 1, RING_REST_START = 2 };

/* Zeroed: running. */
struct ring_rest {
    bool resting;
    uint64_t minority;    /* digest of the members of the last view, when those are a minority; 0: they were not */
    unsigned repeats;
    uint64_t view_ms;     /* of the last view */
    uint64_t since_ms;    /* RESTING since, or RUNNING since the last rest */
    uint64_t rest_ms;     /* the next rest */
    uint64_t until_ms;    /* RESTING */
    bool unseen;          /* RESTING for a cut that the links do not show: they say nothing of its end */
    uint64_t healed_ms;   /* every node heard since; 0: not so */
    uint64_t alone_ms;    /* nobody quorate heard since; 0: not so */
};

/* What the peer links say now. */
struct ring_rest_heard {
    bool outside;   /* a node that is not in our view was heard in the last second */
    bool everybody; /* every other node of the cluster was */
    bool quorate;   /* one that was heard says that it is quorate */
};

/* A view came. members: nodeids in ascending order; majority: they are one of the voters. Only while running. */
void ring_rest_view(struct ring_rest *rest, const uint16_t *members, size_t count, bool majority, uint64_t now_ms);
/* What to do with corosync now. Call every 100 ms or so; nodeid is ours. */
enum ring_rest_action ring_rest_step(struct ring_rest *rest, uint16_t nodeid, const struct ring_rest_heard *heard,
                                     uint64_t now_ms);

#endif
