/* Entries and snapshots on their way from the sequencer to the members. Invariants R3, R4, R5, R8. */
#include "agent/core/rsm_internal.h"

/* ---- sequencer ------------------------------------------------------------------------------------------------ */

/* Entries [from, last] as far as they fit one message; to 0: all. Returns the last index sent. */
static uint64_t append_send(struct rsm *rsm, uint16_t to, uint64_t from)
{
    struct rsm_message message = {.type = RSM_APPEND, .to = to, .previous_index = from - 1, .commit = rsm->commit};
    ASSERT(rsm_term_at(rsm, from - 1, &message.previous_term));
    uint64_t last = from - 1;
    size_t size = 0;
    const struct log_entry *entry;
    while ((entry = rsm_log_at(rsm, last + 1)) && size + entry->size <= RSM_CHUNK_BYTES) {
        size += entry->size;
        last++;
    }
    uint8_t *bytes = rsm_allocate(size);
    size_t used = 0;
    for (uint64_t i = from; i <= last; i++) {
        entry = rsm_log_at(rsm, i);
        memcpy(bytes + used, entry->blob, entry->size);
        used += entry->size;
    }
    message.data = (struct rsm_blob){bytes, size};
    rsm_send(rsm, &message);
    free(bytes);
    return last;
}

static void snapshot_send(struct rsm *rsm, struct member *to)
{
    if (to->snapshot_index != rsm->snapshot_index) {
        to->snapshot_index = rsm->snapshot_index;
        to->snapshot_offset = 0;
    }
    size_t left = rsm->snapshot_size - to->snapshot_offset;
    struct rsm_message message = {
        .type = RSM_SNAPSHOT,
        .to = to->nodeid,
        .index = rsm->snapshot_index,
        .total = rsm->snapshot_size,
        .offset = to->snapshot_offset,
        .data = {rsm->snapshot + to->snapshot_offset, MIN(left, RSM_CHUNK_BYTES)},
    };
    rsm_send(rsm, &message);
}

/* The next piece for a member that does not follow what is sent to all. One under way at a time. */
static void feed(struct rsm *rsm, struct member *to)
{
    ASSERT(!to->streaming);
    to->outstanding = true;
    to->sent_ms = rsm->now;
    to->snapshotting = to->next <= rsm->base_index && rsm->snapshot != NULL;
    if (to->snapshotting)
        snapshot_send(rsm, to);
    else
        append_send(rsm, to->nodeid, to->next);
}

void rsm_progress_reset(struct rsm *rsm)
{
    for (size_t i = 0; i < rsm->member_count; i++) {
        struct member *m = &rsm->members[i];
        m->match = 0;
        m->next = rsm_last_index(rsm) + 1;
        m->streaming = m->outstanding = m->snapshotting = m->asked = false;
        m->heard_ms = rsm->now;
    }
}

/* A member of the view said where its log ends: begin there, backwards when it rejects. */
void rsm_progress_start(struct rsm *rsm, struct member *member, uint64_t last_index)
{
    if (member->nodeid == rsm->options.self)
        return;
    member->heard_ms = rsm->now;
    member->streaming = false;
    member->next = MAX(MIN(last_index, rsm_last_index(rsm)), member->match) + 1;
    feed(rsm, member);
}

void rsm_sequencer_append(struct rsm *rsm, const struct rsm_entry *template)
{
    ASSERT(rsm->role == RSM_SEQUENCER);
    struct rsm_entry entry = *template;
    entry.index = rsm_last_index(rsm) + 1;
    entry.term = rsm->term;
    size_t size;
    uint8_t *blob = rsm_entry_encode(&entry, &size);
    rsm_log_push(rsm, &entry, blob, size);
    /* Members make it durable while we do: should we lose it, another term decides what this index holds (R3). */
    append_send(rsm, 0, entry.index);
    struct rsm_effect *effect = rsm_effect_add_bytes(rsm->out, RSM_EFFECT_LOG_APPEND, blob, size);
    effect->index = entry.index;
    effect->term = entry.term;
    effect->entry_kind = entry.kind;
    rsm_commit_advance(rsm);
}

void rsm_heartbeat_send(struct rsm *rsm)
{
    struct rsm_message message = {.type = RSM_HEARTBEAT, .commit = rsm->commit, .last_index = rsm_last_index(rsm)};
    rsm->heartbeat_ms = rsm->now;
    rsm_send(rsm, &message);
}

/* Voters whose log holds index. Our own does: the effects that tell of it come after the one that makes it durable. */
static uint64_t holders(const struct rsm *rsm, uint64_t index)
{
    uint64_t mask = 0;
    for (size_t i = 0; i < rsm->member_count; i++) {
        int place = rsm_config_find(&rsm->config, rsm->members[i].nodeid);
        bool self = rsm->members[i].nodeid == rsm->options.self;
        if (place >= 0 && (self || rsm->members[i].match >= index))
            mask |= 1ull << place;
    }
    return mask;
}

/* R5. Afterwards all are told at once: the origin answers its client only when it hears of it. */
void rsm_commit_advance(struct rsm *rsm)
{
    uint64_t index = rsm->commit;
    uint64_t first = rsm->options.planted_bugs & RSM_BUG_COUNT_OLD_TERMS ? 0 : rsm->term_start;
    for (uint64_t next = MAX(rsm->commit + 1, first); next <= rsm_last_index(rsm); next++) {
        if (!rsm_is_majority(rsm, holders(rsm, next)))
            break;
        index = next;
    }
    if (index == rsm->commit)
        return;
    rsm_commit_to(rsm, index);
    rsm_heartbeat_send(rsm);
    if (rsm->config_index <= rsm->commit && rsm_config_find(&rsm->config, rsm->options.self) < 0) {
        rsm_handover(rsm); /* removed from the voters */
        rsm_step_down(rsm);
        return;
    }
    rsm_barrier_answer_ready(rsm);
}

int rsm_ack_receive(struct rsm *rsm, struct member *from, const struct rsm_message *m)
{
    rsm->seen_term = MAX(rsm->seen_term, m->term);
    if (rsm->role != RSM_SEQUENCER)
        return 0;
    if (m->term > rsm->term) {
        rsm_step_down(rsm);
        rsm_election_consider(rsm);
        return 0;
    }
    if (m->term < rsm->term)
        return 0;
    from->heard_ms = rsm->now;
    if (m->flags & RSM_FLAG_REJECT) {
        if (!from->streaming && m->index != from->next - 1)
            return 0; /* of something sent to all, while it is being fed */
        from->streaming = false;
        from->next = MAX(MIN(MIN(m->last_index, m->index ? m->index - 1 : 0), rsm_last_index(rsm)), from->match) + 1;
        feed(rsm, from);
        return 0;
    }
    if (m->index > rsm_last_index(rsm))
        return -EPROTO;
    if (m->flags & RSM_FLAG_LAG) {
        if (!from->streaming && from->outstanding)
            return 0;
        from->streaming = false;
        from->next = MAX(MIN(m->last_index, rsm_last_index(rsm)), m->index) + 1;
        feed(rsm, from);
        return 0;
    }
    if (m->index > from->match) {
        from->match = m->index;
        rsm_commit_advance(rsm);
        if (rsm->role != RSM_SEQUENCER)
            return 0;
    }
    if (!from->streaming && from->match + 1 >= from->next) {
        from->outstanding = false;
        from->next = from->match + 1;
        if (from->match == rsm_last_index(rsm))
            from->streaming = true, from->snapshotting = false;
        else
            feed(rsm, from);
    }
    return 0;
}

void rsm_snapshot_ack_receive(struct rsm *rsm, struct member *from, const struct rsm_message *m)
{
    if (rsm->role != RSM_SEQUENCER || m->term != rsm->term || from->streaming || !from->snapshotting)
        return;
    from->heard_ms = rsm->now;
    if (m->index != from->snapshot_index || m->offset > rsm->snapshot_size)
        return;
    from->snapshot_offset = m->offset;
    if (from->snapshot_index == rsm->snapshot_index && m->offset == rsm->snapshot_size)
        return; /* it has all: its ACK follows */
    feed(rsm, from);
}

void rsm_sequencer_tick(struct rsm *rsm)
{
    uint64_t heard = 0;
    for (size_t i = 0; i < rsm->member_count; i++) {
        struct member *m = &rsm->members[i];
        int place = rsm_config_find(&rsm->config, m->nodeid);
        bool self = m->nodeid == rsm->options.self;
        if (place >= 0 && (self || rsm->now - MAX(m->heard_ms, rsm->since_ms) < rsm->options.check_quorum_ms))
            heard |= 1ull << place;
        if (!self && !m->streaming && m->outstanding && rsm->now - m->sent_ms >= RSM_RETRY_MS)
            feed(rsm, m);
    }
    if (!rsm_is_majority(rsm, heard) && rsm->now - rsm->since_ms >= rsm->options.check_quorum_ms) {
        rsm_step_down(rsm); /* members are in the view but hang, or we did */
        rsm->claim_after_ms = rsm->now + rsm->options.silence_ms;
        return;
    }
    if (rsm->now - rsm->heartbeat_ms >= rsm->options.heartbeat_ms)
        rsm_heartbeat_send(rsm);
}

/* ---- member --------------------------------------------------------------------------------------------------- */

static void ack_send(struct rsm *rsm, uint16_t to, uint8_t flags, uint64_t index, uint64_t last_index)
{
    struct rsm_message message = {.type = RSM_ACK, .flags = flags, .to = to, .index = index, .last_index = last_index};
    rsm->ack_ms = rsm->now;
    rsm_send(rsm, &message);
}

/* A sequencer of an older term learns from the reply's term that it is none any more. */
static void refuse_old_term(struct rsm *rsm, uint16_t from)
{
    if (rsm->now - rsm->reject_ms < RSM_REJECT_MS)
        return;
    rsm->reject_ms = rsm->now;
    ack_send(rsm, from, RSM_FLAG_REJECT, 0, 0);
}

/* Where the sequencer should try next: before the first of our entries of the term that conflicts. */
static uint64_t conflict_hint(const struct rsm *rsm, uint64_t index)
{
    uint64_t term, other;
    if (index > rsm_last_index(rsm))
        return rsm_last_index(rsm);
    if (!rsm_term_at(rsm, index, &term))
        return rsm->commit;
    while (index > rsm->commit && rsm_term_at(rsm, index, &other) && other == term)
        index--;
    return index;
}

/* Take entries; all of them follow one that matches (R4). *ret_last: index of the last, or of the one before them. */
static int entries_take(struct rsm *rsm, const struct rsm_message *m, uint64_t *ret_last)
{
    size_t size;
    *ret_last = m->previous_index;
    for (size_t used = 0; used < m->data.size; used += size) {
        struct rsm_entry entry;
        if (rsm_entry_decode(m->data.data + used, m->data.size - used, &entry, &size))
            return -EPROTO; /* the message decoder has checked: cannot be */
        *ret_last = entry.index;
        uint64_t term;
        if (entry.index <= rsm->base_index)
            continue;
        if (rsm_term_at(rsm, entry.index, &term)) {
            if (term == entry.term)
                continue;
            if (entry.index <= rsm->commit)
                return -EPROTO; /* R6: a sequencer that contradicts what was committed is none */
            rsm_log_truncate(rsm, entry.index);
        }
        uint8_t *blob = rsm_allocate(size);
        memcpy(blob, m->data.data + used, size);
        rsm_log_push(rsm, &entry, blob, size);
        struct rsm_effect *effect = rsm_effect_add_bytes(rsm->out, RSM_EFFECT_LOG_APPEND, blob, size);
        effect->index = entry.index;
        effect->term = entry.term;
        effect->entry_kind = entry.kind;
    }
    return 0;
}

int rsm_append_receive(struct rsm *rsm, uint16_t from, const struct rsm_message *m)
{
    if (m->term < rsm->term) {
        refuse_old_term(rsm, from);
        return 0;
    }
    int status = rsm_follow(rsm, from, m->term);
    if (status || (m->to != 0 && m->to != rsm->options.self))
        return status;
    uint64_t term, last;
    bool known = rsm_term_at(rsm, m->previous_index, &term);
    if (rsm->options.planted_bugs & RSM_BUG_NO_MATCH && known && m->previous_index >= rsm->commit)
        term = m->previous_term;
    bool below = m->previous_index < rsm->base_index; /* behind a snapshot of ours: committed, so equal */
    if (!below && (!known || term != m->previous_term)) {
        if (known && m->previous_index <= rsm->commit)
            return -EPROTO;
        if (m->to != 0 || rsm->now - rsm->reject_ms >= RSM_REJECT_MS) {
            rsm->reject_ms = rsm->now;
            ack_send(rsm, from, RSM_FLAG_REJECT, m->previous_index, conflict_hint(rsm, m->previous_index));
        }
        return 0;
    }
    size_t durable = rsm->out->count;
    status = entries_take(rsm, m, &last);
    if (status)
        return status;
    rsm->matched = MAX(rsm->matched, MAX(last, rsm->commit));
    ack_send(rsm, from, 0, rsm->matched, rsm_last_index(rsm));
    if (rsm->options.planted_bugs & RSM_BUG_ACK_EARLY) {
        struct rsm_effect ack = rsm->out->items[rsm->out->count - 1];
        memmove(&rsm->out->items[durable + 1], &rsm->out->items[durable], (rsm->out->count - 1 - durable) * sizeof(ack));
        rsm->out->items[durable] = ack;
    }
    rsm_commit_to(rsm, MIN(m->commit, rsm->matched));
    return 0;
}

int rsm_heartbeat_receive(struct rsm *rsm, uint16_t from, const struct rsm_message *m)
{
    if (m->term < rsm->term) {
        refuse_old_term(rsm, from);
        return 0;
    }
    int status = rsm_follow(rsm, from, m->term);
    if (status)
        return status;
    rsm_commit_to(rsm, MIN(m->commit, rsm->matched));
    if (rsm->matched < m->last_index)
        ack_send(rsm, from, RSM_FLAG_LAG, rsm->matched, rsm_last_index(rsm));
    else if (rsm->now - rsm->ack_ms >= RSM_ACK_MS)
        ack_send(rsm, from, 0, rsm->matched, rsm_last_index(rsm));
    return 0;
}

static void incoming_drop(struct rsm *rsm)
{
    free(rsm->incoming);
    rsm->incoming = NULL;
    rsm->incoming_size = rsm->incoming_capacity = 0;
    rsm->incoming_index = rsm->incoming_total = rsm->incoming_term = 0;
}

/* R10: memory grows with what has come, not with what was announced. */
static void incoming_add(struct rsm *rsm, const struct rsm_message *m)
{
    if (m->offset == 0) {
        incoming_drop(rsm);
        rsm->incoming_index = m->index;
        rsm->incoming_total = m->total;
        rsm->incoming_term = m->term;
    }
    if (m->index != rsm->incoming_index || m->total != rsm->incoming_total || m->term != rsm->incoming_term ||
        m->offset != rsm->incoming_size)
        return;
    if (rsm->incoming_size + m->data.size > rsm->incoming_capacity) {
        rsm->incoming_capacity = MIN(MAX(rsm->incoming_capacity * 2, rsm->incoming_size + m->data.size), m->total);
        rsm->incoming = realloc(rsm->incoming, rsm->incoming_capacity);
        ASSERT(rsm->incoming);
    }
    if (m->data.size)
        memcpy(rsm->incoming + rsm->incoming_size, m->data.data, m->data.size);
    rsm->incoming_size += m->data.size;
}

int rsm_snapshot_receive(struct rsm *rsm, uint16_t from, const struct rsm_message *m)
{
    if (m->term < rsm->term) {
        refuse_old_term(rsm, from);
        return 0;
    }
    int status = rsm_follow(rsm, from, m->term);
    if (status || m->to != rsm->options.self)
        return status;
    if (m->index > rsm->commit) {
        incoming_add(rsm, m);
        bool ours = m->index == rsm->incoming_index && m->term == rsm->incoming_term && m->total == rsm->incoming_total;
        struct rsm_message reply = {
            .type = RSM_SNAPSHOT_ACK,
            .to = from,
            .index = m->index,
            .offset = ours ? rsm->incoming_size : 0,
        };
        bool complete = ours && rsm->incoming_size == m->total;
        if (!complete) {
            rsm_send(rsm, &reply);
            return 0;
        }
        status = rsm_snapshot_install(rsm, rsm->incoming, rsm->incoming_size);
        incoming_drop(rsm);
        if (status) {
            reply.offset = 0;
            rsm_send(rsm, &reply);
            return status;
        }
    }
    /* What is committed here is committed there (R8). */
    rsm->matched = MAX(rsm->matched, rsm->commit);
    ack_send(rsm, from, 0, rsm->matched, rsm_last_index(rsm));
    return 0;
}
