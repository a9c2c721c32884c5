/* Who sequences: STATE round, probe, claim, grant, hand over. Invariants R1 and R2. */
#include "agent/core/rsm_internal.h"

static uint64_t voter_bit(const struct rsm *rsm, uint16_t nodeid)
{
    int place = rsm_config_find(&rsm->config, nodeid);
    return place < 0 ? 0 : 1ull << place;
}

/* R2: is (term, index) at least as far as our own log? */
static bool up_to_date(const struct rsm *rsm, uint64_t last_term, uint64_t last_index)
{
    if (rsm->options.planted_bugs & RSM_BUG_GRANT_ANY_LOG)
        return true;
    if (last_term != rsm_last_term(rsm))
        return last_term > rsm_last_term(rsm);
    return last_index >= rsm_last_index(rsm);
}

static void seen_term(struct rsm *rsm, uint64_t term)
{
    rsm->seen_term = MAX(rsm->seen_term, term);
}

void rsm_state_send(struct rsm *rsm)
{
    struct rsm_message message = {
        .type = RSM_STATE,
        .flags = rsm->role == RSM_SEQUENCER ? RSM_FLAG_SEQUENCER : 0,
        .boot = rsm->options.boot,
        .last_term = rsm_last_term(rsm),
        .last_index = rsm_last_index(rsm),
        .commit = rsm->commit,
    };
    rsm->state_ms = rsm->now;
    rsm_send(rsm, &message);
}

void rsm_step_down(struct rsm *rsm)
{
    bool sequenced = rsm->role == RSM_SEQUENCER;
    rsm->role = RSM_FOLLOWER;
    if (rsm->sequencer != 0 || sequenced)
        rsm->lost_ms = rsm->now;
    rsm->sequencer = 0;
    rsm->matched = 0;
    if (sequenced && rsm->in_view)
        rsm_state_send(rsm); /* so that nobody waits for our heartbeat */
}

int rsm_follow(struct rsm *rsm, uint16_t from, uint64_t term)
{
    if (rsm->role == RSM_SEQUENCER && term == rsm->term)
        return -EPROTO;
    if (rsm->sequencer != from || rsm->term != term || rsm->role != RSM_FOLLOWER)
        rsm->matched = 0;
    /* Also votes: a nodeid given to a new machine must not grant this term once more (R1). */
    if (term > rsm->term || rsm->voted_for == 0)
        rsm_set_term(rsm, term, from);
    seen_term(rsm, term);
    rsm->role = RSM_FOLLOWER;
    rsm->sequencer = from;
    rsm->heard_ms = rsm->now;
    return 0;
}

static void become_sequencer(struct rsm *rsm)
{
    rsm->role = RSM_SEQUENCER;
    rsm->sequencer = rsm->options.self;
    rsm->since_ms = rsm->now;
    rsm->term_start = rsm_last_index(rsm) + 1;
    rsm_progress_reset(rsm);
    for (size_t i = 0; i < rsm->member_count; i++)
        rsm->members[i].streaming = true; /* until it rejects */
    struct rsm_entry noop = {.kind = RSM_ENTRY_NOOP};
    rsm_sequencer_append(rsm, &noop); /* R5: makes what earlier terms left committable */
}

static void claim_send(struct rsm *rsm)
{
    struct rsm_message message = {
        .type = RSM_CLAIM,
        .flags = (uint8_t)((rsm->claim_probe ? RSM_FLAG_PROBE : 0) | (rsm->claim_handover ? RSM_FLAG_HANDOVER : 0)),
        .term = rsm->claim_term,
        .last_term = rsm_last_term(rsm),
        .last_index = rsm_last_index(rsm),
    };
    rsm->claim_ms = rsm->now;
    rsm->granted = voter_bit(rsm, rsm->options.self);
    rsm->refused = 0;
    rsm_send(rsm, &message);
}

/* The vote for ourselves is durable before the claim goes out (R1). */
static void claim_start(struct rsm *rsm)
{
    rsm->role = RSM_CLAIMING;
    rsm->claim_probe = false;
    rsm->elections++;
    rsm_set_term(rsm, rsm->claim_term, rsm->options.self);
    claim_send(rsm);
    if (rsm_is_majority(rsm, rsm->granted))
        become_sequencer(rsm);
}

static void probe_start(struct rsm *rsm)
{
    rsm->role = RSM_CLAIMING;
    rsm->sequencer = 0;
    rsm->claim_probe = true;
    rsm->claim_handover = false;
    rsm->claim_term = MAX(rsm->seen_term, rsm->term) + 1;
    claim_send(rsm);
    if (rsm_is_majority(rsm, rsm->granted))
        claim_start(rsm);
}

/* A node that its own log removes may still be the only one whose log lets it win, as long as the removal is not known to be
 * committed; it then commits that and steps down (dissertation §4.2.2). */
static bool may_claim(const struct rsm *rsm)
{
    struct rsm_config before;
    if (voter_bit(rsm, rsm->options.self))
        return true;
    if (rsm->config_index <= rsm->commit)
        return false;
    rsm_config_at(rsm, rsm->config_index - 1, &before);
    return rsm_config_find(&before, rsm->options.self) >= 0;
}

static bool eligible(const struct rsm *rsm)
{
    return rsm->role == RSM_FOLLOWER && !rsm->leaving && rsm->in_view && rsm->now >= rsm->claim_after_ms &&
           may_claim(rsm) && rsm_view_has_majority(rsm);
}

/* No voter whose STATE came has a better log, or an equal one and a lower nodeid. */
static bool best_log(const struct rsm *rsm)
{
    for (size_t i = 0; i < rsm->member_count; i++) {
        const struct member *m = &rsm->members[i];
        if (!m->stated || m->nodeid == rsm->options.self || !voter_bit(rsm, m->nodeid))
            continue;
        if (!up_to_date(rsm, m->last_term, m->last_index))
            continue;
        bool equal = m->last_term == rsm_last_term(rsm) && m->last_index == rsm_last_index(rsm);
        if (!equal || m->nodeid < rsm->options.self)
            return false;
    }
    return true;
}

/* Claim when no sequencer is known and the STATE round of this view says that we are the one to do it. */
void rsm_election_consider(struct rsm *rsm)
{
    if (rsm->sequencer != 0 || !eligible(rsm))
        return;
    bool all = true;
    uint64_t voters = 0;
    for (size_t i = 0; i < rsm->member_count; i++) {
        if (rsm->members[i].stated)
            voters |= voter_bit(rsm, rsm->members[i].nodeid);
        else
            all = false;
    }
    bool round_over = all || (rsm_is_majority(rsm, voters) && rsm->now - rsm->view_ms >= rsm->options.grace_ms);
    uint64_t since = MAX(rsm->view_ms, rsm->lost_ms);
    bool overdue = rsm->now - since >= rsm->options.silence_ms + rsm->options.rank_ms * rsm_rank(rsm);
    if ((round_over && best_log(rsm)) || overdue)
        probe_start(rsm);
}

void rsm_election_tick(struct rsm *rsm)
{
    if (rsm->role == RSM_CLAIMING && rsm->now - rsm->claim_ms >= RSM_CLAIM_MS) {
        rsm_step_down(rsm);
        rsm->claim_after_ms = rsm->now + rsm->options.rank_ms / 2 * rsm_rank(rsm);
    }
    if (rsm->role == RSM_FOLLOWER && rsm->sequencer != 0 &&
        rsm->now - rsm->heard_ms >= rsm->options.silence_ms + rsm->options.rank_ms * rsm_rank(rsm)) {
        rsm_step_down(rsm);
        if (eligible(rsm))
            probe_start(rsm);
    }
    rsm_election_consider(rsm);
    if (rsm->sequencer == 0 && rsm->in_view && rsm->now - rsm->state_ms >= RSM_STATE_MS)
        rsm_state_send(rsm);
}

void rsm_state_receive(struct rsm *rsm, struct member *from, const struct rsm_message *m)
{
    from->stated = true;
    from->term = m->term;
    from->last_term = m->last_term;
    from->last_index = m->last_index;
    seen_term(rsm, m->term);
    bool sequences = m->flags & RSM_FLAG_SEQUENCER;
    if (rsm->role == RSM_SEQUENCER) {
        if (m->term > rsm->term)
            rsm_step_down(rsm); /* it takes nothing of our term any more: claim a later one */
        else
            rsm_progress_start(rsm, from, m->last_index);
    } else if (sequences && m->term >= rsm->term) {
        (void)rsm_follow(rsm, from->nodeid, m->term); /* we are not SEQUENCER: cannot fail */
    } else if (!sequences && rsm->sequencer == from->nodeid) {
        rsm_step_down(rsm);
    }
    rsm_election_consider(rsm);
}

/* While a sequencer is heard, a claim is only noise from a node that missed something (dissertation §4.2.3). */
static bool sequencer_lives(const struct rsm *rsm, uint16_t claimant)
{
    uint64_t limit = rsm->options.silence_ms * 5 / 6;
    if (rsm->role == RSM_SEQUENCER) {
        uint64_t heard = voter_bit(rsm, rsm->options.self);
        for (size_t i = 0; i < rsm->member_count; i++)
            if (rsm->now - MAX(rsm->members[i].heard_ms, rsm->since_ms) < limit)
                heard |= voter_bit(rsm, rsm->members[i].nodeid);
        return rsm_is_majority(rsm, heard);
    }
    return rsm->sequencer != 0 && rsm->sequencer != claimant && rsm->now - rsm->heard_ms < limit;
}

void rsm_claim_receive(struct rsm *rsm, struct member *from, const struct rsm_message *m)
{
    bool probe = m->flags & RSM_FLAG_PROBE, handover = m->flags & RSM_FLAG_HANDOVER;
    bool newer = m->term > rsm->term;
    bool again = !probe && m->term == rsm->term && rsm->voted_for == from->nodeid;
    bool granted = (newer || again) && up_to_date(rsm, m->last_term, m->last_index) &&
                   (handover || !sequencer_lives(rsm, from->nodeid));
    from->last_term = m->last_term;
    from->last_index = m->last_index;
    if (!probe)
        seen_term(rsm, m->term);
    if (granted && newer && !probe) {
        rsm_set_term(rsm, m->term, from->nodeid); /* R1: before the grant */
        rsm->role = RSM_FOLLOWER;
        if (rsm->sequencer != 0)
            rsm->lost_ms = rsm->now;
        rsm->sequencer = 0;
        rsm->matched = 0;
        rsm->claim_after_ms = rsm->now + RSM_CLAIM_MS;
    }
    struct rsm_message reply = {
        .type = RSM_GRANT,
        .flags = (uint8_t)((probe ? RSM_FLAG_PROBE : 0) | (granted ? RSM_FLAG_GRANTED : 0)),
        .to = from->nodeid,
        .term = m->term,
        .own_term = rsm->term,
        .last_term = rsm_last_term(rsm),
        .last_index = rsm_last_index(rsm),
    };
    rsm_send(rsm, &reply);
}

void rsm_grant_receive(struct rsm *rsm, struct member *from, const struct rsm_message *m)
{
    bool probe = m->flags & RSM_FLAG_PROBE;
    seen_term(rsm, m->own_term);
    if (rsm->role != RSM_CLAIMING || m->term != rsm->claim_term || probe != rsm->claim_probe)
        return;
    if (m->flags & RSM_FLAG_GRANTED) {
        rsm->granted |= voter_bit(rsm, from->nodeid);
        if (!rsm_is_majority(rsm, rsm->granted))
            return;
        if (probe)
            claim_start(rsm);
        else
            become_sequencer(rsm);
        return;
    }
    from->last_term = m->last_term;
    from->last_index = m->last_index;
    if (probe && m->own_term >= rsm->claim_term) {
        probe_start(rsm); /* with a later term; each time strictly later, so this ends */
        return;
    }
    rsm->refused |= voter_bit(rsm, from->nodeid);
    uint64_t everyone = rsm->config.count == 64 ? UINT64_MAX : (1ull << rsm->config.count) - 1;
    if (!rsm_is_majority(rsm, everyone & ~rsm->refused)) {
        rsm_step_down(rsm);
        rsm->claim_after_ms = rsm->now + rsm->options.rank_ms * (1 + rsm_rank(rsm));
    }
}

/* Graceful: the voter that has most claims at once; the others know that we want it. */
void rsm_handover(struct rsm *rsm)
{
    const struct member *best = NULL;
    for (size_t i = 0; i < rsm->member_count; i++) {
        const struct member *m = &rsm->members[i];
        if (m->nodeid != rsm->options.self && voter_bit(rsm, m->nodeid) && (!best || m->match > best->match))
            best = m;
    }
    if (!best)
        return;
    struct rsm_message message = {.type = RSM_HANDOVER, .to = best->nodeid};
    rsm_send(rsm, &message);
}

void rsm_handover_receive(struct rsm *rsm, uint16_t from, const struct rsm_message *m)
{
    if (m->term != rsm->term || from != rsm->sequencer || rsm->role != RSM_FOLLOWER || rsm->leaving || !rsm->in_view ||
        !may_claim(rsm) || !rsm_view_has_majority(rsm))
        return;
    rsm->sequencer = 0;
    rsm->lost_ms = rsm->now;
    rsm->claim_handover = true;
    rsm->claim_term = MAX(rsm->seen_term, rsm->term) + 1;
    claim_start(rsm);
}
