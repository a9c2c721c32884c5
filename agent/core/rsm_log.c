/* The log itself: entries, the voter set they name, commit and apply, snapshots. */
#include "agent/core/rsm_internal.h"

uint64_t rsm_last_index(const struct rsm *rsm)
{
    return rsm->base_index + rsm->log_count;
}

uint64_t rsm_last_term(const struct rsm *rsm)
{
    return rsm->log_count ? rsm->log[rsm->log_count - 1].entry.term : rsm->base_term;
}

struct log_entry *rsm_log_at(struct rsm *rsm, uint64_t index)
{
    if (index <= rsm->base_index || index > rsm_last_index(rsm))
        return NULL;
    return &rsm->log[index - rsm->base_index - 1];
}

bool rsm_term_at(const struct rsm *rsm, uint64_t index, uint64_t *ret_term)
{
    if (index < rsm->base_index || index > rsm_last_index(rsm))
        return false;
    *ret_term = index == rsm->base_index ? rsm->base_term : rsm->log[index - rsm->base_index - 1].entry.term;
    return true;
}

/* The voter set in force at index: of the last CONFIG entry up to it, else of the snapshot (R7). */
uint64_t rsm_config_at(const struct rsm *rsm, uint64_t index, struct rsm_config *ret_config)
{
    for (size_t i = rsm->log_count; i > 0; i--) {
        const struct rsm_entry *entry = &rsm->log[i - 1].entry;
        if (entry->index <= index && entry->index > rsm->snapshot_index && entry->kind == RSM_ENTRY_CONFIG) {
            *ret_config = entry->config;
            return entry->index;
        }
    }
    *ret_config = rsm->snapshot_config;
    return rsm->snapshot_index;
}

/* R7. What voters said about barriers was noted by their places in the old set: ask again. */
static void config_changed(struct rsm *rsm)
{
    rsm->config_index = rsm_config_at(rsm, UINT64_MAX, &rsm->config);
    for (size_t i = 0; i < rsm->member_count; i++)
        rsm->members[i].asked = false;
}

void rsm_log_push(struct rsm *rsm, const struct rsm_entry *entry, uint8_t *blob, size_t size)
{
    ASSERT(entry->index == rsm_last_index(rsm) + 1 && entry->term >= rsm_last_term(rsm));
    if (rsm->log_count == rsm->log_capacity) {
        rsm->log_capacity = rsm->log_capacity ? rsm->log_capacity * 2 : 64;
        rsm->log = realloc(rsm->log, rsm->log_capacity * sizeof(*rsm->log));
        ASSERT(rsm->log);
    }
    struct log_entry *place = &rsm->log[rsm->log_count++];
    place->blob = blob;
    place->size = size;
    size_t used;
    ASSERT(rsm_entry_decode(blob, size, &place->entry, &used) == 0 && used == size);
    rsm->log_bytes += size;
    if (place->entry.kind == RSM_ENTRY_CONFIG)
        config_changed(rsm);
}

/* Forget entries [from, last] in memory. */
static void log_cut(struct rsm *rsm, uint64_t from)
{
    while (rsm_last_index(rsm) >= from && rsm->log_count) {
        struct log_entry *last = &rsm->log[--rsm->log_count];
        if (last->entry.index > rsm->snapshot_index)
            rsm->log_bytes -= last->size;
        free(last->blob);
    }
    config_changed(rsm);
}

void rsm_log_truncate(struct rsm *rsm, uint64_t from)
{
    ASSERT(from > rsm->commit); /* R6 */
    if (from > rsm_last_index(rsm))
        return;
    log_cut(rsm, from);
    rsm_effect_add(rsm->out, RSM_EFFECT_LOG_TRUNCATE)->index = from;
}

/* Forget entries up to index in memory; it becomes the base. */
static void log_drop_front(struct rsm *rsm, uint64_t index)
{
    if (index <= rsm->base_index)
        return;
    size_t count = index - rsm->base_index;
    ASSERT(count <= rsm->log_count);
    rsm->base_term = rsm->log[count - 1].entry.term;
    rsm->base_index = index;
    for (size_t i = 0; i < count; i++)
        free(rsm->log[i].blob);
    rsm->log_count -= count;
    memmove(rsm->log, rsm->log + count, rsm->log_count * sizeof(*rsm->log));
}

static void need_snapshot_check(struct rsm *rsm)
{
    if (rsm->snapshot_asked || rsm->applied == rsm->snapshot_index)
        return;
    if (rsm->applied - rsm->snapshot_index < rsm->options.snapshot_entries && rsm->log_bytes < rsm->options.snapshot_bytes)
        return;
    rsm->snapshot_asked = true;
    rsm_effect_add(rsm->out, RSM_EFFECT_NEED_SNAPSHOT)->index = rsm->applied;
}

static void apply_entry(struct rsm *rsm, const struct rsm_entry *entry)
{
    if (entry->data.size == 0)
        return; /* NOOP, and the voter set of a new cluster: nothing for the tree */
    uint64_t ticket = 0;
    if (entry->origin == rsm->options.self)
        ticket = rsm_pending_take(rsm, entry->boot, entry->sequence);
    struct rsm_effect *effect = rsm_effect_add_bytes(rsm->out, RSM_EFFECT_APPLY, entry->data.data, entry->data.size);
    effect->index = entry->index;
    effect->term = entry->term;
    effect->entry_kind = entry->kind;
    effect->ticket = ticket;
    if (ticket) {
        effect = rsm_effect_add(rsm->out, RSM_EFFECT_PROPOSAL_DONE);
        effect->ticket = ticket;
        effect->index = entry->index;
    }
}

void rsm_commit_to(struct rsm *rsm, uint64_t index)
{
    ASSERT(index <= rsm_last_index(rsm));
    if (index <= rsm->commit)
        return;
    rsm->commit = index;
    while (rsm->applied < rsm->commit) {
        apply_entry(rsm, &rsm_log_at(rsm, rsm->applied + 1)->entry);
        rsm->applied++;
    }
    need_snapshot_check(rsm);
    rsm_barrier_complete(rsm);
}

/* Take over an encoded snapshot. */
static void snapshot_set(struct rsm *rsm, uint8_t *blob, size_t size, const struct rsm_snapshot_header *header)
{
    free(rsm->snapshot);
    rsm->snapshot = blob;
    rsm->snapshot_size = size;
    rsm->snapshot_index = header->index;
    rsm->snapshot_config = header->config;
    rsm->snapshot_asked = false;
    rsm->log_bytes = 0;
    for (size_t i = 0; i < rsm->log_count; i++)
        if (rsm->log[i].entry.index > header->index)
            rsm->log_bytes += rsm->log[i].size;
}

static void snapshot_effect(struct rsm *rsm, uint64_t term)
{
    struct rsm_effect *effect = rsm_effect_add_bytes(rsm->out, RSM_EFFECT_SNAPSHOT, rsm->snapshot, rsm->snapshot_size);
    effect->index = rsm->snapshot_index;
    effect->term = term;
}

int rsm_snapshot_taken(struct rsm *rsm, uint64_t index, struct rsm_blob data)
{
    if (index <= rsm->snapshot_index) {
        rsm->snapshot_asked = false; /* one from a peer overtook it */
        return 0;
    }
    struct rsm_snapshot_header header = {.index = index, .data = data};
    if (index > rsm->applied || !rsm_term_at(rsm, index, &header.term) ||
        data.size > RSM_SNAPSHOT_MAX_BYTES - RSM_SNAPSHOT_HEADER_BYTES - 2 * RSM_NODES_MAX - 4)
        return -EINVAL;
    rsm_config_at(rsm, index, &header.config);
    size_t size;
    uint8_t *blob = rsm_snapshot_encode(&header, &size);
    snapshot_set(rsm, blob, size, &header);
    snapshot_effect(rsm, header.term);
    if (index - rsm->base_index > rsm->options.keep_entries)
        log_drop_front(rsm, index - rsm->options.keep_entries);
    config_changed(rsm);
    return 0;
}

/* R6: only forward, and what we acknowledged above a matching snapshot stays. */
int rsm_snapshot_install(struct rsm *rsm, const uint8_t *data, size_t size)
{
    struct rsm_snapshot_header header;
    if (rsm_snapshot_decode(data, size, &header) || header.term > rsm->term)
        return -EPROTO;
    if (header.index <= rsm->commit)
        return 0;
    uint64_t term;
    bool matches = rsm_term_at(rsm, header.index, &term) && term == header.term;
    /* Only what conflicts with the snapshot goes before the snapshot is durable: entries before it may have counted
     * towards a majority. */
    if (!matches)
        rsm_log_truncate(rsm, header.index);
    uint8_t *blob = rsm_allocate(size);
    memcpy(blob, data, size);
    if (!matches) {
        log_cut(rsm, 0);
        rsm->base_index = header.index;
        rsm->base_term = header.term;
    }
    snapshot_set(rsm, blob, size, &header);
    snapshot_effect(rsm, header.term);
    config_changed(rsm);
    rsm->commit = rsm->applied = header.index;
    rsm_effect_add_bytes(rsm->out, RSM_EFFECT_RESTORE, header.data.data, header.data.size)->index = header.index;
    rsm_barrier_complete(rsm);
    return 0;
}

static int start_snapshot(struct rsm *rsm, struct rsm_blob snapshot)
{
    struct rsm_snapshot_header header;
    if (rsm_snapshot_decode(snapshot.data, snapshot.size, &header))
        return -EBADMSG;
    uint8_t *blob = rsm_allocate(snapshot.size);
    memcpy(blob, snapshot.data, snapshot.size);
    snapshot_set(rsm, blob, snapshot.size, &header);
    rsm->base_index = rsm->commit = rsm->applied = header.index;
    rsm->base_term = header.term;
    rsm->config = header.config;
    rsm->config_index = header.index;
    rsm_effect_add_bytes(rsm->out, RSM_EFFECT_RESTORE, header.data.data, header.data.size)->index = header.index;
    return 0;
}

int rsm_log_start(struct rsm *rsm, const struct rsm_persistent *persistent)
{
    rsm->term = persistent->term;
    rsm->voted_for = persistent->voted_for;
    if (persistent->snapshot.size && start_snapshot(rsm, persistent->snapshot))
        return -EBADMSG;
    for (size_t i = 0; i < persistent->entry_count; i++) {
        const struct rsm_blob *from = &persistent->entries[i];
        struct rsm_entry entry;
        size_t used;
        if (rsm_entry_decode(from->data, from->size, &entry, &used) || used != from->size)
            return -EBADMSG;
        if (entry.index <= rsm->base_index && rsm->log_count == 0)
            continue;
        if (entry.index != rsm_last_index(rsm) + 1 || entry.term < rsm_last_term(rsm) || entry.term > rsm->term)
            return -EBADMSG;
        uint8_t *blob = rsm_allocate(from->size);
        memcpy(blob, from->data, from->size);
        rsm_log_push(rsm, &entry, blob, from->size);
    }
    return rsm_last_term(rsm) > rsm->term ? -EBADMSG : 0;
}

void rsm_log_free(struct rsm *rsm)
{
    for (size_t i = 0; i < rsm->log_count; i++)
        free(rsm->log[i].blob);
    free(rsm->log);
    free(rsm->snapshot);
    free(rsm->incoming);
}
