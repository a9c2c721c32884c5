/* Events only change what is known (the table of peers, our own facts); formation_decide() then looks at the whole and
 * acts. So the order in which hints, links and replies arrive does not matter, only what they say. */
#include "agent/core/formation.h"

#include <errno.h>
#include <stdarg.h>

#define BUSY_MAX           40  /* "busy" that often in a row: try another */
#define FAILURES_LAST      3   /* a cluster whose member failed that often comes last */
#define FETCH_APART_MS     200 /* at least, between two FETCH to one peer */
#define EFFECTS_VITAL      8   /* room that FETCH and DIAL leave for the others; they are repeated */

struct peer {
    bool used;
    bool linked;                   /* the control link is up: facts are proved (F1) */
    bool hinted;                   /* discovery shows it now */
    bool suspect;                  /* was to form the cluster and did not */
    bool asked;                    /* a FETCH is unanswered */
    bool answered;                 /* it told its node list since we began to fetch */
    struct formation_where where;
    struct formation_facts facts;  /* proved when linked, else hinted */
    uint64_t asked_ms;
    uint64_t avoid_until_ms;
    unsigned failures;
};

struct formation {
    struct uuid self;
    struct formation_timing timing;
    enum formation_state state;
    struct formation_facts facts;
    bool confirmed;                /* our facts are from a quorate view, not only from disk */
    bool conflict;                 /* another cluster with our key, and neither may give way */
    struct uuid target;            /* JOINING: whom we asked; SEARCHING: who is to form, or zero */
    uint64_t settle_ms;            /* SEARCHING: do not form before */
    uint64_t since_ms;             /* SEARCHING: target is waited for since; JOINING: asked or heard since; FETCHING: begun */
    uint64_t again_ms;             /* JOINING: ask again then, 0: an answer is awaited; MEMBER: do not dissolve before */
    unsigned busy;
    uint64_t deadline_ms;
    bool report;
    struct formation_effects *effects;
    struct peer peers[FORMATION_PEERS_MAX];
};

#define peers_foreach(peer, formation)                                                                       \
    for (struct peer *peer = (formation)->peers; peer < (formation)->peers + FORMATION_PEERS_MAX; peer++)    \
        if (peer->used)

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

struct formation *formation_new(const struct uuid *self, const struct formation_timing *timing)
{
    static const struct formation_timing none;
    const struct formation_timing *t = timing ? timing : &none;
    struct formation *formation = calloc(1, sizeof(*formation));
    if (!formation)
        return NULL;
    formation->self = *self;
    formation->deadline_ms = FORMATION_NEVER;
    formation->timing = (struct formation_timing){
        .settle_ms = or_default(t->settle_ms, 1500), .hint_ms = or_default(t->hint_ms, 3000),
        .leader_ms = or_default(t->leader_ms, 6000), .join_ms = or_default(t->join_ms, 8000),
        .busy_ms = or_default(t->busy_ms, 250),      .refused_ms = or_default(t->refused_ms, 3000),
        .fetch_ms = or_default(t->fetch_ms, 2000),   .poll_ms = or_default(t->poll_ms, 1000),
    };
    return formation;
}

void formation_free(struct formation *formation)
{
    free(formation);
}

/* ---- effects ---- */

static void effect_add(struct formation *formation, enum formation_effect_type type, const struct formation_where *where,
                       bool list_own)
{
    struct formation_effects *effects = formation->effects;
    ASSERT(effects->count < FORMATION_EFFECTS_MAX);
    struct formation_effect *effect = &effects->items[effects->count++];
    *effect = (struct formation_effect){.type = type, .list_own = list_own};
    if (where)
        effect->where = *where;
}

static bool effect_room(const struct formation *formation)
{
    return formation->effects->count < FORMATION_EFFECTS_MAX - EFFECTS_VITAL;
}

static void wake_at(struct formation *formation, uint64_t at_ms)
{
    if (at_ms < formation->deadline_ms)
        formation->deadline_ms = at_ms;
}

static void fetch(struct formation *formation, struct peer *peer, uint64_t now_ms)
{
    if (!peer->linked || !effect_room(formation) || (peer->asked_ms && now_ms < peer->asked_ms + FETCH_APART_MS))
        return;
    peer->asked = true;
    peer->asked_ms = now_ms;
    effect_add(formation, FORMATION_FETCH, &peer->where, false);
}

/* Ask those who were not asked for poll_ms. */
static void poll_peer(struct formation *formation, struct peer *peer, uint64_t now_ms)
{
    if (!peer->linked)
        return;
    if (!peer->asked_ms || now_ms >= peer->asked_ms + formation->timing.poll_ms)
        fetch(formation, peer, now_ms);
    wake_at(formation, MAX(peer->asked_ms + formation->timing.poll_ms, now_ms + 1));
}

static void become(struct formation *formation, enum formation_state state, uint64_t now_ms)
{
    formation->state = state;
    formation->since_ms = now_ms;
    formation->target = (struct uuid){0};
    formation->again_ms = 0;
    formation->busy = 0;
    formation->report = true;
}

static void search(struct formation *formation, uint64_t now_ms, uint32_t settle_ms)
{
    become(formation, FORMATION_SEARCHING, now_ms);
    formation->settle_ms = now_ms + settle_ms;
}

/* ---- the table of peers ---- */

static struct peer *peer_find(struct formation *formation, const struct uuid *uuid)
{
    if (!uuid_is_zero(uuid))
        peers_foreach(peer, formation)
            if (uuid_equal(&peer->where.uuid, uuid))
                return peer;
    return NULL;
}

static bool same_place(const struct formation_where *a, const struct formation_where *b)
{
    return a->port == b->port && strncmp(a->address, b->address, sizeof(a->address)) == 0;
}

static struct peer *seed_find(struct formation *formation, const struct formation_where *where)
{
    peers_foreach(peer, formation)
        if (uuid_is_zero(&peer->where.uuid) && same_place(&peer->where, where))
            return peer;
    return NULL;
}

/* A free place, or that of a mere hint when a proved peer needs one. NULL: full. */
static struct peer *peer_place(struct formation *formation, bool proved)
{
    for (unsigned i = 0; i < FORMATION_PEERS_MAX; i++)
        if (!formation->peers[i].used)
            return &formation->peers[i];
    if (proved)
        peers_foreach(peer, formation)
            if (!peer->linked)
                return peer;
    return NULL;
}

static struct peer *peer_take(struct formation *formation, const struct formation_where *where, bool proved)
{
    struct peer *peer = uuid_is_zero(&where->uuid) ? seed_find(formation, where) : peer_find(formation, &where->uuid);
    if (peer)
        return peer;
    peer = peer_place(formation, proved);
    if (peer)
        *peer = (struct peer){.used = true, .where = *where};
    return peer;
}

static void peer_failed(struct formation *formation, struct peer *peer, uint64_t now_ms)
{
    if (!peer)
        return;
    peer->failures++;
    peer->avoid_until_ms = now_ms + formation->timing.refused_ms;
}

static bool same_cluster(const struct formation *formation, const struct peer *peer)
{
    return formation->facts.formed && peer->facts.formed && uuid_equal(&formation->facts.cluster, &peer->facts.cluster);
}

/* F3: a total order over clusters; pristine is by the account of each. */
static bool gives_way(const struct formation_facts *mine, const struct formation_facts *theirs)
{
    if (!mine->pristine)
        return false; /* F2 */
    return !theirs->pristine || uuid_compare(&theirs->cluster, &mine->cluster) < 0;
}

static struct peer *better_cluster(struct formation *formation)
{
    peers_foreach(peer, formation)
        if (peer->linked && peer->facts.formed && !same_cluster(formation, peer) &&
            gives_way(&formation->facts, &peer->facts))
            return peer;
    return NULL;
}

/* ---- deciding ---- */

/* Which of two formed peers to join first: the cluster decides, then who is free and who failed least. */
static int join_compare(const struct peer *a, const struct peer *b, uint64_t now_ms)
{
    bool a_last = a->failures >= FAILURES_LAST, b_last = b->failures >= FAILURES_LAST;
    bool a_avoid = a->avoid_until_ms > now_ms, b_avoid = b->avoid_until_ms > now_ms;
    if (a_last != b_last)
        return a_last - b_last;
    if (a->facts.pristine != b->facts.pristine)
        return a->facts.pristine - b->facts.pristine;
    int order = uuid_compare(&a->facts.cluster, &b->facts.cluster);
    if (order)
        return order;
    if (a_avoid != b_avoid)
        return a_avoid - b_avoid;
    if (a->failures != b->failures)
        return a->failures < b->failures ? -1 : 1;
    return uuid_compare(&a->where.uuid, &b->where.uuid);
}

static void join(struct formation *formation, struct peer *peer, uint64_t now_ms)
{
    become(formation, FORMATION_JOINING, now_ms);
    formation->target = peer->where.uuid;
    effect_add(formation, FORMATION_JOIN, &peer->where, false);
    wake_at(formation, now_ms + formation->timing.join_ms);
}

/* Somebody hinted at could make us wait: formed, or before us in the order, or not known at all. */
static bool hint_matters(const struct formation *formation, const struct peer *peer)
{
    return peer->hinted && !peer->linked && !peer->suspect &&
           (peer->facts.formed || uuid_compare(&peer->where.uuid, &formation->self) < 0);
}

/* Who is to form: the lowest uuid of ourselves and the unformed that proved themselves. NULL: we are. */
static struct peer *leader(struct formation *formation)
{
    struct peer *lowest = NULL;
    peers_foreach(peer, formation)
        if (peer->linked && !peer->facts.formed && !peer->suspect &&
            uuid_compare(&peer->where.uuid, lowest ? &lowest->where.uuid : &formation->self) < 0)
            lowest = peer;
    return lowest;
}

static void decide_searching(struct formation *formation, uint64_t now_ms)
{
    struct peer *best = NULL;
    bool hinted = false;
    peers_foreach(peer, formation)
    {
        if (peer->linked && peer->facts.formed && (!best || join_compare(peer, best, now_ms) < 0))
            best = peer;
        hinted |= hint_matters(formation, peer);
    }
    if (best && best->avoid_until_ms <= now_ms) {
        join(formation, best, now_ms);
        return;
    }
    if (best) { /* never form beside a proved cluster: wait until it may be asked again */
        wake_at(formation, best->avoid_until_ms);
        return;
    }
    if (now_ms < formation->settle_ms) {
        wake_at(formation, formation->settle_ms);
        return;
    }
    peers_foreach(peer, formation)
        poll_peer(formation, peer, now_ms); /* who forms need not be seen by discovery */
    uint64_t hints_until = formation->settle_ms + formation->timing.hint_ms;
    if (hinted && now_ms < hints_until) {
        wake_at(formation, hints_until);
        return;
    }
    for (;;) {
        struct peer *first = leader(formation);
        if (!first) {
            become(formation, FORMATION_FORMING, now_ms);
            effect_add(formation, FORMATION_FORM, NULL, false);
            return;
        }
        if (!uuid_equal(&first->where.uuid, &formation->target)) {
            formation->target = first->where.uuid;
            formation->since_ms = now_ms;
            formation->report = true;
        }
        if (now_ms < formation->since_ms + formation->timing.leader_ms) {
            wake_at(formation, formation->since_ms + formation->timing.leader_ms);
            return;
        }
        first->suspect = true;
    }
}

static void decide_joining(struct formation *formation, uint64_t now_ms)
{
    struct peer *peer = peer_find(formation, &formation->target);
    uint64_t late_ms = formation->since_ms + formation->timing.join_ms;
    if (!peer || !peer->linked || !peer->facts.formed || now_ms >= late_ms || formation->busy > BUSY_MAX) {
        peer_failed(formation, peer, now_ms);
        search(formation, now_ms, formation->timing.settle_ms);
        decide_searching(formation, now_ms); /* another member may be there */
        return;
    }
    if (formation->again_ms && now_ms >= formation->again_ms) {
        formation->again_ms = 0;
        formation->since_ms = now_ms;
        late_ms = now_ms + formation->timing.join_ms;
        effect_add(formation, FORMATION_JOIN, &peer->where, false);
    }
    wake_at(formation, formation->again_ms ? formation->again_ms : late_ms);
}

static void run_own(struct formation *formation, uint64_t now_ms)
{
    become(formation, FORMATION_MEMBER, now_ms);
    effect_add(formation, FORMATION_RUN, NULL, true);
}

static void decide_fetching(struct formation *formation, uint64_t now_ms)
{
    uint32_t answered = 0;
    peers_foreach(peer, formation)
    {
        if (!same_cluster(formation, peer))
            continue;
        answered += peer->answered;
        if (!peer->answered)
            poll_peer(formation, peer, now_ms);
    }
    /* Replies that are as new as our own list ended this already: those counted here were older. */
    if (answered + 1 >= formation->facts.node_count || now_ms >= formation->since_ms + formation->timing.fetch_ms) {
        run_own(formation, now_ms);
        return;
    }
    wake_at(formation, formation->since_ms + formation->timing.fetch_ms);
}

static void decide_member(struct formation *formation, uint64_t now_ms)
{
    bool conflict = false;
    peers_foreach(peer, formation)
    {
        if (same_cluster(formation, peer)) {
            if (!formation->confirmed && formation->facts.node_count > 1)
                poll_peer(formation, peer, now_ms); /* our list may be older than theirs (F4) */
            continue;
        }
        if (formation->facts.pristine)
            poll_peer(formation, peer, now_ms);
        if (peer->linked && peer->facts.formed && !formation->facts.pristine && !peer->facts.pristine)
            conflict = true;
    }
    if (conflict != formation->conflict)
        formation->report = true;
    formation->conflict = conflict;
    struct peer *better = better_cluster(formation);
    if (!better || !formation->confirmed) /* F2: what the disk says may lack what the log still holds */
        return;
    if (now_ms < formation->again_ms) {
        wake_at(formation, formation->again_ms);
        return;
    }
    become(formation, FORMATION_DISSOLVING, now_ms);
    formation->target = better->where.uuid;
    effect_add(formation, FORMATION_DISSOLVE, &better->where, false);
}

static void formation_decide(struct formation *formation, uint64_t now_ms)
{
    switch (formation->state) {
    case FORMATION_SEARCHING:
        decide_searching(formation, now_ms);
        break;
    case FORMATION_JOINING:
        decide_joining(formation, now_ms);
        break;
    case FORMATION_FETCHING:
        decide_fetching(formation, now_ms);
        break;
    case FORMATION_MEMBER:
        decide_member(formation, now_ms);
        break;
    case FORMATION_IDLE:
    case FORMATION_FORMING:
    case FORMATION_DISSOLVING:
    case FORMATION_REMOVED:
        break;
    }
}

/* ---- events ---- */

static void handle_start(struct formation *formation, const struct formation_facts *facts, uint64_t now_ms)
{
    if (formation->state != FORMATION_IDLE)
        return;
    formation->facts = *facts;
    if (!facts->formed) {
        search(formation, now_ms, formation->timing.settle_ms);
        return;
    }
    become(formation, FORMATION_FETCHING, now_ms); /* alone: decided at once */
    formation->confirmed = false;
}

static void handle_seen(struct formation *formation, const struct formation_event *event, uint64_t now_ms)
{
    struct peer *known = uuid_is_zero(&event->where.uuid) ? seed_find(formation, &event->where)
                                                          : peer_find(formation, &event->where.uuid);
    bool fresh = !known;
    struct peer *peer = peer_take(formation, &event->where, false);
    if (!peer)
        return;
    bool dial = fresh || (!peer->linked && !same_place(&peer->where, &event->where));
    peer->hinted = true;
    if (!peer->linked) {
        peer->where = event->where;
        peer->facts = event->facts;
    } else if (peer->facts.formed != event->facts.formed ||
               !uuid_equal(&peer->facts.cluster, &event->facts.cluster)) {
        fetch(formation, peer, now_ms); /* have it proved (F1) */
    }
    if (dial && effect_room(formation))
        effect_add(formation, FORMATION_DIAL, &event->where, false);
}

static void handle_gone(struct formation *formation, const struct formation_where *where)
{
    struct peer *peer = uuid_is_zero(&where->uuid) ? seed_find(formation, where) : peer_find(formation, &where->uuid);
    if (!peer)
        return;
    peer->hinted = false;
    if (!peer->linked)
        peer->used = false;
}

static void handle_hello(struct formation *formation, const struct formation_event *event)
{
    struct peer *seed = seed_find(formation, &event->where);
    if (uuid_is_zero(&event->where.uuid))
        return;
    if (seed)
        seed->used = false; /* now it has a name */
    struct peer *peer = peer_take(formation, &event->where, true);
    if (!peer)
        return; /* 256 proved peers: more than a cluster has */
    peer->linked = true;
    peer->suspect = false;
    peer->asked = false;
    peer->where = event->where;
    peer->facts = event->facts;
    peer->asked_ms = 0;
}

static void handle_link_down(struct formation *formation, const struct uuid *uuid)
{
    struct peer *peer = peer_find(formation, uuid);
    if (!peer)
        return;
    peer->linked = false;
    peer->asked = false;
    if (!peer->hinted && !uuid_equal(uuid, &formation->target))
        peer->used = false;
}

static void removed(struct formation *formation, uint64_t now_ms)
{
    become(formation, FORMATION_REMOVED, now_ms);
}

static void handle_members(struct formation *formation, const struct formation_event *event, uint64_t now_ms)
{
    struct peer *peer = peer_find(formation, &event->where.uuid);
    if (!peer || !peer->linked || !peer->asked)
        return;
    peer->asked = false;
    peer->facts = event->facts;
    bool waiting = formation->state == FORMATION_FETCHING ||
                   (formation->state == FORMATION_MEMBER && !formation->confirmed);
    if (!same_cluster(formation, peer) || !waiting)
        return;
    peer->answered = true;
    bool newer = event->facts.list_version > formation->facts.list_version;
    if (newer && !event->listed) {
        removed(formation, now_ms);
        return;
    }
    if (newer || (formation->state == FORMATION_FETCHING && event->listed &&
                  event->facts.list_version == formation->facts.list_version)) {
        formation->facts.list_version = event->facts.list_version;
        formation->facts.node_count = event->facts.node_count;
        formation->facts.pristine = false;
        if (formation->state == FORMATION_FETCHING)
            become(formation, FORMATION_MEMBER, now_ms);
        effect_add(formation, FORMATION_RUN, &peer->where, false);
    }
}

static void handle_join_reply(struct formation *formation, const struct formation_event *event, uint64_t now_ms)
{
    if (formation->state != FORMATION_JOINING || !uuid_equal(&event->where.uuid, &formation->target) ||
        formation->again_ms)
        return;
    struct peer *peer = peer_find(formation, &formation->target);
    if (event->status == -EAGAIN) {
        formation->busy++;
        formation->since_ms = now_ms;
        formation->again_ms = now_ms + formation->timing.busy_ms;
        if (peer)
            fetch(formation, peer, now_ms); /* it may have dissolved */
        return;
    }
    if (event->status < 0 || !event->facts.formed) {
        peer_failed(formation, peer, now_ms);
        search(formation, now_ms, formation->timing.settle_ms);
        return;
    }
    if (peer)
        peer->failures = 0;
    formation->facts = event->facts;
    formation->facts.pristine = false;
    formation->confirmed = true; /* the list is as new as our own NodeAdd */
    become(formation, FORMATION_MEMBER, now_ms);
    effect_add(formation, FORMATION_RUN, &event->where, false);
}

static void handle_formed(struct formation *formation, const struct formation_event *event, uint64_t now_ms)
{
    if (formation->state != FORMATION_FORMING)
        return;
    if (event->status < 0) {
        search(formation, now_ms, formation->timing.refused_ms);
        return;
    }
    formation->facts = event->facts;
    formation->confirmed = true;
    become(formation, FORMATION_MEMBER, now_ms);
}

static void handle_dissolved(struct formation *formation, const struct formation_event *event, uint64_t now_ms)
{
    if (formation->state != FORMATION_DISSOLVING)
        return;
    if (event->status < 0) {
        become(formation, FORMATION_MEMBER, now_ms);
        formation->again_ms = now_ms + formation->timing.refused_ms;
        return;
    }
    formation->facts = (struct formation_facts){0};
    formation->confirmed = false;
    formation->conflict = false;
    search(formation, now_ms, formation->timing.settle_ms);
}

static void handle_facts(struct formation *formation, const struct formation_facts *facts, bool confirmed)
{
    /* While we dissolve, form or join, what we are is about to be replaced. */
    if ((formation->state != FORMATION_MEMBER && formation->state != FORMATION_DISSOLVING) || !facts->formed)
        return;
    if (facts->node_count != formation->facts.node_count)
        formation->report = true;
    formation->facts = *facts;
    formation->confirmed |= confirmed;
}

void formation_step(struct formation *formation, const struct formation_event *event, uint64_t now_ms,
                    struct formation_effects *ret_effects)
{
    ret_effects->count = 0;
    formation->effects = ret_effects;
    formation->report = false;
    formation->deadline_ms = FORMATION_NEVER;
    bool ourselves = uuid_equal(&event->where.uuid, &formation->self);
    switch (event->type) {
    case FORMATION_START:
        handle_start(formation, &event->facts, now_ms);
        break;
    case FORMATION_PEER_SEEN:
        if (!ourselves)
            handle_seen(formation, event, now_ms);
        break;
    case FORMATION_PEER_GONE:
        handle_gone(formation, &event->where);
        break;
    case FORMATION_HELLO:
        if (!ourselves)
            handle_hello(formation, event);
        break;
    case FORMATION_LINK_DOWN:
        handle_link_down(formation, &event->where.uuid);
        break;
    case FORMATION_MEMBERS_REPLY:
        handle_members(formation, event, now_ms);
        break;
    case FORMATION_JOIN_REPLY:
        handle_join_reply(formation, event, now_ms);
        break;
    case FORMATION_FORMED:
        handle_formed(formation, event, now_ms);
        break;
    case FORMATION_FACTS:
        handle_facts(formation, &event->facts, event->status == 0);
        break;
    case FORMATION_DISSOLVED:
        handle_dissolved(formation, event, now_ms);
        break;
    case FORMATION_TICK:
        break;
    case FORMATION_EXPELLED:
        if (formation->state == FORMATION_FETCHING || formation->state == FORMATION_MEMBER)
            removed(formation, now_ms);
        break;
    }
    formation_decide(formation, now_ms);
    if (formation->report)
        effect_add(formation, FORMATION_REPORT, NULL, false);
    formation->effects = NULL;
}

/* ---- questions ---- */

uint64_t formation_deadline(const struct formation *formation)
{
    return formation->deadline_ms;
}

enum formation_state formation_state(const struct formation *formation)
{
    return formation->state;
}

const struct formation_facts *formation_facts(const struct formation *formation)
{
    return &formation->facts;
}

bool formation_may_admit(const struct formation *formation)
{
    return formation->state == FORMATION_MEMBER && formation->confirmed &&
           !better_cluster((struct formation *)formation);
}

const char *formation_state_name(enum formation_state state)
{
    static const char *const names[] = {"idle",     "searching", "forming",    "joining",
                                        "fetching", "member",    "dissolving", "removed"};
    return (unsigned)state < ARRAY_SIZE(names) ? names[state] : "?";
}

static int describe_searching(const struct formation *formation, uint64_t now_ms, unsigned linked, unsigned seen,
                              const char *target, char *text, size_t size)
{
    if (!uuid_is_zero(&formation->target))
        return snprintf(text, size, "waiting for node %s, the lowest of %u, to form the cluster", target, linked + 1);
    if (now_ms < formation->settle_ms)
        return snprintf(text, size, "looking for a cluster with our key: %u peers seen, %u of them proved", seen, linked);
    return snprintf(text, size, "looking for a cluster with our key: waiting for %u peers that were seen to prove "
                                "themselves or to be ready",
                    seen);
}

int formation_describe(const struct formation *formation, uint64_t now_ms, char *text, size_t size)
{
    char target[UUID_TEXT_SIZE], cluster[UUID_TEXT_SIZE];
    unsigned linked = 0, seen = 0;
    for (unsigned i = 0; i < FORMATION_PEERS_MAX; i++) {
        seen += formation->peers[i].used;
        linked += formation->peers[i].used && formation->peers[i].linked;
    }
    uuid_format(&formation->target, target);
    uuid_format(&formation->facts.cluster, cluster);
    switch (formation->state) {
    case FORMATION_IDLE:
        return snprintf(text, size, "not started");
    case FORMATION_SEARCHING:
        return describe_searching(formation, now_ms, linked, seen, target, text, size);
    case FORMATION_FORMING:
        return snprintf(text, size, "forming a new cluster");
    case FORMATION_JOINING:
        return snprintf(text, size, "joining the cluster of node %s%s", target, formation->busy ? ", which is busy" : "");
    case FORMATION_FETCHING:
        return snprintf(text, size, "asking the members of cluster %s for the current node list", cluster);
    case FORMATION_MEMBER:
        if (formation->conflict)
            return snprintf(text, size, "member of cluster %s, %u nodes; another cluster with the same key is in sight and "
                                        "neither may give way: empty one of them by hand",
                            cluster, formation->facts.node_count);
        return snprintf(text, size, "member of cluster %s, %u nodes", cluster, formation->facts.node_count);
    case FORMATION_DISSOLVING:
        return snprintf(text, size, "giving up the empty cluster %s to join that of node %s", cluster, target);
    case FORMATION_REMOVED:
        return snprintf(text, size, "removed from cluster %s: to let this node join again, stop directord, clear its state folder and start it", cluster);
    }
    return snprintf(text, size, "?");
}
