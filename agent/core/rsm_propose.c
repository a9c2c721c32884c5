/* Proposals and barriers: kept by their origin until answered, taken by the sequencer. Invariants R7, R9, R10. */
#include "agent/core/rsm_internal.h"

/* ---- origin --------------------------------------------------------------------------------------------------- */

int rsm_propose(struct rsm *rsm, const struct rsm_event *event)
{
    if (event->data.size > RSM_COMMAND_MAX_BYTES)
        return -EMSGSIZE;
    if (event->data.size == 0 || event->ticket <= rsm->last_ticket || event->change > RSM_CHANGE_REMOVE_VOTER ||
        (event->change == RSM_CHANGE_NONE) != (event->change_nodeid == 0))
        return -EINVAL;
    /* The window of the tree's request table: the oldest one pending is never taken for one of long ago. */
    if (rsm->pending_count == RSM_PENDING_MAX ||
        (rsm->pending_count && event->ticket - rsm->pending[0].ticket >= RSM_PENDING_MAX))
        return -EAGAIN;
    rsm->last_ticket = event->ticket;
    struct pending *p = &rsm->pending[rsm->pending_count++];
    *p = (struct pending){
        .ticket = event->ticket,
        .change = event->change,
        .change_nodeid = event->change_nodeid,
        .data = rsm_allocate(event->data.size),
        .size = event->data.size,
    };
    if (p->size)
        memcpy(p->data, event->data.data, p->size);
    return 0;
}

static void pending_remove(struct rsm *rsm, size_t place)
{
    free(rsm->pending[place].data);
    rsm->pending_count--;
    memmove(&rsm->pending[place], &rsm->pending[place + 1], (rsm->pending_count - place) * sizeof(*rsm->pending));
}

uint64_t rsm_pending_take(struct rsm *rsm, uint64_t boot, uint64_t sequence)
{
    for (size_t i = 0; boot == rsm->options.boot && i < rsm->pending_count; i++) {
        if (rsm->pending[i].ticket == sequence) {
            pending_remove(rsm, i);
            return sequence;
        }
    }
    return 0;
}

void rsm_abandon(struct rsm *rsm, uint64_t ticket)
{
    (void)rsm_pending_take(rsm, rsm->options.boot, ticket);
}

void rsm_pending_resend(struct rsm *rsm)
{
    for (size_t i = 0; i < rsm->pending_count; i++)
        rsm->pending[i].sent_term = 0;
    rsm->barrier_asking = false;
}

/* ---- sequencer ------------------------------------------------------------------------------------------------ */

static bool already_in_log(struct rsm *rsm, uint16_t origin, uint64_t boot, uint64_t sequence)
{
    for (uint64_t i = rsm_last_index(rsm); i > rsm->applied; i--) {
        const struct rsm_entry *entry = &rsm_log_at(rsm, i)->entry;
        if (entry->origin == origin && entry->boot == boot && entry->sequence == sequence)
            return true;
    }
    return false;
}

/* Fill in the kind and the new voter set. False: not now, the origin will ask again (R7). A change that changes nothing, or
 * would leave no voter, travels as a plain command: the tree refuses or ignores it in the same way. */
static bool config_prepare(const struct rsm *rsm, enum rsm_change change, uint16_t nodeid, struct rsm_entry *entry)
{
    entry->kind = RSM_ENTRY_COMMAND;
    if (change == RSM_CHANGE_NONE)
        return true;
    if (rsm->config_index > rsm->commit || rsm->commit < rsm->term_start)
        return false;
    entry->config = rsm->config;
    bool changed = change == RSM_CHANGE_ADD_VOTER ? rsm_config_add(&entry->config, nodeid)
                                                  : rsm_config_remove(&entry->config, nodeid);
    if (changed && entry->config.count > 0)
        entry->kind = RSM_ENTRY_CONFIG;
    return true;
}

/* Dropping a proposal is always safe: its origin submits it again until it is applied. */
static void sequencer_take(struct rsm *rsm, struct rsm_entry *entry, enum rsm_change change, uint16_t change_nodeid)
{
    if (rsm->leaving || rsm_last_index(rsm) - rsm->commit >= RSM_UNCOMMITTED_MAX)
        return;
    if (already_in_log(rsm, entry->origin, entry->boot, entry->sequence))
        return;
    if (config_prepare(rsm, change, change_nodeid, entry))
        rsm_sequencer_append(rsm, entry);
}

void rsm_submit_receive(struct rsm *rsm, uint16_t from, const struct rsm_message *m)
{
    if (rsm->role != RSM_SEQUENCER)
        return;
    struct rsm_entry entry = {.origin = from, .boot = m->boot, .sequence = m->sequence, .data = m->data};
    sequencer_take(rsm, &entry, (enum rsm_change)m->flags, (uint16_t)m->change_nodeid);
}

/* ---- origin --------------------------------------------------------------------------------------------------- */

static void submit(struct rsm *rsm, const struct pending *p)
{
    struct rsm_blob data = {p->data, p->size};
    if (rsm->role == RSM_SEQUENCER) {
        struct rsm_entry entry = {
            .origin = rsm->options.self, .boot = rsm->options.boot, .sequence = p->ticket, .data = data};
        sequencer_take(rsm, &entry, p->change, p->change_nodeid);
        return;
    }
    struct rsm_message message = {
        .type = RSM_SUBMIT,
        .flags = (uint8_t)p->change,
        .boot = rsm->options.boot,
        .sequence = p->ticket,
        .change_nodeid = p->change_nodeid,
        .data = data,
    };
    rsm_send(rsm, &message);
}

/* Submit what this sequencer was not yet given, or did not answer in time; in order, a window of them. With a single voter a
 * submit commits, applies and so removes itself (and steps down on its own removal), hence the care. */
void rsm_pending_send(struct rsm *rsm)
{
    uint64_t after = 0;
    for (unsigned sent = 0; sent < RSM_SUBMIT_WINDOW && rsm->sequencer != 0 && rsm->in_view; sent++) {
        size_t place = 0;
        while (place < rsm->pending_count && rsm->pending[place].ticket <= after)
            place++;
        if (place == rsm->pending_count)
            return;
        struct pending *p = &rsm->pending[place];
        after = p->ticket;
        /* A change of voters is often refused only because another one is not committed yet: ask sooner. */
        uint32_t patience = p->change == RSM_CHANGE_NONE ? rsm->options.resubmit_ms : rsm->options.resubmit_ms / 6;
        if (p->sent_term == rsm->term && rsm->now - p->sent_ms < patience)
            continue;
        p->sent_term = rsm->term;
        p->sent_ms = rsm->now;
        submit(rsm, p);
    }
}

int rsm_barrier(struct rsm *rsm, uint64_t ticket)
{
    if (rsm->barrier_count == RSM_PENDING_MAX)
        return -EAGAIN;
    rsm->barriers[rsm->barrier_count++] =
        (struct barrier){.ticket = ticket, .deadline_ms = rsm->now + rsm->options.barrier_ms};
    return 0;
}

static void barrier_done(struct rsm *rsm, size_t place, int status)
{
    struct rsm_effect *effect = rsm_effect_add(rsm->out, RSM_EFFECT_BARRIER_DONE);
    effect->ticket = rsm->barriers[place].ticket;
    effect->status = status;
    rsm->barrier_count--;
    memmove(&rsm->barriers[place], &rsm->barriers[place + 1], (rsm->barrier_count - place) * sizeof(*rsm->barriers));
}

void rsm_barrier_complete(struct rsm *rsm)
{
    for (size_t i = 0; i < rsm->barrier_count;) {
        if (rsm->barriers[i].answered && rsm->barriers[i].index <= rsm->applied)
            barrier_done(rsm, i, 0);
        else
            i++;
    }
}

/* One question under way at a time; it stands for all barriers that began before it was asked (R9). */
static void barrier_ask(struct rsm *rsm)
{
    rsm->barrier_asking = false;
    rsm->barrier_round++;
    for (size_t i = 0; i < rsm->barrier_count; i++) {
        if (!rsm->barriers[i].answered) {
            rsm->barriers[i].round = rsm->barrier_round;
            rsm->barrier_asking = true;
        }
    }
    if (!rsm->barrier_asking)
        return;
    rsm->barrier_asked_ms = rsm->now;
    struct rsm_message message = {.type = RSM_BARRIER, .round = rsm->barrier_round};
    rsm_send(rsm, &message);
    if (rsm->role == RSM_SEQUENCER)
        rsm_barrier_receive(rsm, rsm_member(rsm, rsm->options.self), &message);
}

void rsm_barrier_tick(struct rsm *rsm)
{
    for (size_t i = 0; i < rsm->barrier_count;) {
        if (rsm->now >= rsm->barriers[i].deadline_ms)
            barrier_done(rsm, i, -ETIMEDOUT);
        else
            i++;
    }
    if (rsm->barrier_count == 0 || rsm->sequencer == 0 || !rsm->in_view)
        return;
    if (!rsm->barrier_asking || rsm->now - rsm->barrier_asked_ms >= rsm->options.resubmit_ms)
        barrier_ask(rsm);
}

static void barrier_answered(struct rsm *rsm, uint64_t round, uint64_t index)
{
    if (!rsm->barrier_asking || round != rsm->barrier_round)
        return;
    rsm->barrier_asking = false;
    for (size_t i = 0; i < rsm->barrier_count; i++) {
        if (rsm->barriers[i].round == round) {
            rsm->barriers[i].answered = true;
            rsm->barriers[i].index = index;
        }
    }
    rsm_barrier_complete(rsm);
}

void rsm_barrier_answer_receive(struct rsm *rsm, const struct rsm_message *m)
{
    barrier_answered(rsm, m->round, m->index);
}

/* ---- sequencer and voters ------------------------------------------------------------------------------------- */

void rsm_barrier_receive(struct rsm *rsm, struct member *from, const struct rsm_message *m)
{
    if (rsm->role == RSM_SEQUENCER) {
        int place = rsm_config_find(&rsm->config, rsm->options.self);
        from->asked = true;
        from->ask_round = m->round;
        from->ask_voters = place < 0 ? 0 : 1ull << place;
        /* Who asks was of this term when it asked; nobody else will say so for it. */
        place = rsm_config_find(&rsm->config, from->nodeid);
        if (place >= 0 && m->term == rsm->term)
            from->ask_voters |= 1ull << place;
        if (rsm->options.planted_bugs & RSM_BUG_BARRIER_ALONE)
            from->ask_voters = UINT64_MAX;
        rsm_barrier_answer_ready(rsm);
    } else if (rsm_config_find(&rsm->config, rsm->options.self) >= 0) {
        struct rsm_message reply = {.type = RSM_BARRIER_ACK, .origin = from->nodeid, .round = m->round};
        rsm_send(rsm, &reply);
    }
}

void rsm_barrier_ack_receive(struct rsm *rsm, uint16_t from, const struct rsm_message *m)
{
    struct member *origin = rsm_member(rsm, (uint16_t)m->origin);
    int place = rsm_config_find(&rsm->config, from);
    if (rsm->role != RSM_SEQUENCER || m->term != rsm->term || !origin || !origin->asked || origin->ask_round != m->round ||
        place < 0)
        return;
    origin->ask_voters |= 1ull << place;
    rsm_barrier_answer_ready(rsm);
}

/* R9: a majority was still of our term after the question came, and our commit index covers all before our term. */
void rsm_barrier_answer_ready(struct rsm *rsm)
{
    if (rsm->role != RSM_SEQUENCER || rsm->commit < rsm->term_start)
        return;
    for (size_t i = 0; i < rsm->member_count; i++) {
        struct member *m = &rsm->members[i];
        if (!m->asked || !rsm_is_majority(rsm, m->ask_voters))
            continue;
        m->asked = false;
        if (m->nodeid == rsm->options.self) {
            barrier_answered(rsm, m->ask_round, rsm->commit);
            continue;
        }
        struct rsm_message reply = {
            .type = RSM_BARRIER_ANSWER, .to = m->nodeid, .round = m->ask_round, .index = rsm->commit};
        rsm_send(rsm, &reply);
    }
}

void rsm_propose_fail_all(struct rsm *rsm, int status)
{
    while (rsm->pending_count) {
        struct rsm_effect *effect = rsm_effect_add(rsm->out, RSM_EFFECT_PROPOSAL_DONE);
        effect->ticket = rsm->pending[0].ticket;
        effect->status = status;
        pending_remove(rsm, 0);
    }
    while (rsm->barrier_count)
        barrier_done(rsm, 0, status);
}
