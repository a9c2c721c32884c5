/* Resync of joining replicas (I8): all regions that one lacks are copied to it while it gets every new write; with nothing
 * left it is counted, and its growth asked for.
 *
 * A step: range (writes excluded) -> [digests of source and joiner, equal pieces are done] -> read at the source -> write to
 * the joiners. The range stays taken until each joiner has it or was detached, so an old copy never lands on a newer write.
 * Several joiners that lack the same regions are served by one read.
 *
 * What a joiner has is not known when its marks are gone (another disk, marks about another disk): everything counts as
 * missing, and digests find what does not. When comparing does not pay (most differs), it is left out for a while. */
#include "replication/core/mirror_internal.h"
#include <string.h>

static void progress_stop(struct mirror *m, struct mirror_op *op, unsigned k)
{
    op->joiners &= (uint8_t)~(1u << k);
    op->targets &= (uint8_t)~(1u << k);
    op->need &= (uint8_t)~(1u << k);
    if (!op->joiners) {
        resync_throttle_ended(&m->throttle, m->now);
        op_free(m, op);
    }
}

void resync_stop(struct mirror *m, unsigned k)
{
    list_foreach_safe(node, after, &m->active) {
        struct mirror_op *op = list_entry(node, struct mirror_op, link);
        if (op->kind == OP_RESYNC && op->joiners >> k & 1)
            progress_stop(m, op, k);
    }
    bitmap_zero(&m->members[k].todo);
}

void resync_begin(struct mirror *m, unsigned k)
{
    struct member *member = &m->members[k];
    member->state = MIRROR_MEMBER_SYNCING;
    bitmap_copy(&member->todo, &m->dirty[k]);
    /* A returning member may hold writes that nobody else has. */
    if (!mirror_bug(m, MIRROR_BUG_NO_RETURN_INTENT))
        bitmap_or(&member->todo, &member->carry);
    member->todo_total = member->todo.set;
    member->sync = (struct sync_progress){.by_digest = member->todo.set == m->regions};
    for (uint32_t r = bitmap_next(&member->todo, 0); r != BITMAP_NONE; r = bitmap_next(&member->todo, r + 1))
        member->sync.total += mirror_region_offset(m, r + 1) - mirror_region_offset(m, r);
    meter_start(&member->sync.meter, 0, m->now);
    member->keep_us = m->now + KEEP_US;
    member->progressed = false;
    member->merge_acked = 0;
    member->merge_sent = 0;
    for (unsigned j = 0; j < m->config.replica_count; j++) {
        if (j == k || in_isr(m, j) || !(m->places >> j & 1))
            continue;
        const uint8_t *blob = mirror_blob(m, &m->dirty[j]);
        member_send_bitmap(m, k, j, MIRROR_BITMAP_KEEP, blob);
        member_send_bitmap(m, k, j, MIRROR_BITMAP_MERGE, blob);
    }
}

/* I8: it has everything; from now on every write and read counts it, until the configuration says more. */
static void resync_grow(struct mirror *m, unsigned k)
{
    uint8_t bit = (uint8_t)(1u << k);
    list_foreach(node, &m->active) {
        const struct mirror_op *op = list_entry(node, struct mirror_op, link);
        if (op->phase == OP_LINGER && op->targets & ~op->acked & bit)
            return; /* acknowledged, and not there yet */
    }
    m->pending_grow = bit;
    mirror_confirm_again(m, k);
    list_foreach(node, &m->active) {
        struct mirror_op *op = list_entry(node, struct mirror_op, link);
        if (op->phase == OP_WRITING && op->kind != OP_RESYNC && op->targets & bit && !mirror_bug(m, MIRROR_BUG_EARLY_GROW))
            op->need |= bit;
    }
}

/* ---- which regions next ----------------------------------------------------------------------------------------------- */

/* Compare the next bytes by digest first? Left out in growing stretches while most of it differs. */
static bool compare_pays(struct sync_progress *sync, uint64_t bytes)
{
    if (!sync->by_digest)
        return false;
    if (sync->blind) {
        sync->blind -= MIN(sync->blind, (uint32_t)(bytes / DIGEST_PIECE) + 1);
        return false;
    }
    return true;
}

static void compare_judge(struct sync_progress *sync, uint32_t equal, uint32_t different)
{
    sync->equal += equal;
    sync->different += different;
    if (sync->equal + sync->different < 16)
        return;
    if (sync->equal * 16 < sync->equal + sync->different) {
        sync->blind_next = MIN(MAX(sync->blind_next * 2, 64u), 1024u);
        sync->blind = sync->blind_next;
    } else {
        sync->blind_next = 0;
    }
    sync->equal = sync->different = 0;
}

/* Joiners that lack all of these regions as well, and are not compared: one read serves them. */
static uint8_t others_lacking(const struct mirror *m, unsigned k, uint32_t first, uint32_t last)
{
    uint8_t mask = 0;
    for (unsigned j = 0; j < m->config.replica_count; j++) {
        const struct member *member = &m->members[j];
        if (j == k || in_isr(m, j) || m->pending_grow >> j & 1 || member->state != MIRROR_MEMBER_SYNCING ||
            (member->sync.by_digest && !member->sync.blind))
            continue;
        bool all = true;
        for (uint32_t r = first; r <= last && all; r++)
            all = bitmap_test(&member->todo, r);
        if (all)
            mask |= (uint8_t)(1u << j);
    }
    return mask;
}

static bool resync_start(struct mirror *m, unsigned k, uint32_t first, uint32_t last)
{
    uint64_t offset = mirror_region_offset(m, first), end = mirror_region_offset(m, last + 1);
    if (m->background + RECONCILE_RESERVE >= INTERNAL_OPS || !mirror_throttle_take(m, end - offset))
        return false;
    struct mirror_op *op = op_new(m, OP_RESYNC, offset, end - offset);
    if (!op) {
        resync_throttle_put_back(&m->throttle, end - offset);
        return false;
    }
    op->end = end;
    op->io_length = 0;
    op->compare = compare_pays(&m->members[k].sync, end - offset);
    op->joiners = (uint8_t)(1u << k) | (op->compare ? 0 : others_lacking(m, k, first, last));
    for (unsigned j = 0; j < m->config.replica_count; j++) {
        if (!(op->joiners >> j & 1))
            continue;
        if (j != k)
            (void)compare_pays(&m->members[j].sync, end - offset);
        for (uint32_t r = first; r <= last; r++)
            bitmap_clear(&m->members[j].todo, r);
    }
    op_lock(m, op);
    return true;
}

static uint32_t run_end(const struct mirror *m, const struct bitmap *map, uint32_t first, bool busy)
{
    uint32_t bytes = busy ? MIN(m->parameters.copy_bytes, COPY_BUSY) : m->parameters.copy_bytes;
    uint32_t last = first, most = MAX(bytes / m->parameters.region_bytes, 1u);
    while (last + 1 < m->regions && last + 1 - first < most && bitmap_test(map, last + 1))
        last++;
    return last;
}

void resync_continue(struct mirror *m, unsigned k)
{
    struct member *member = &m->members[k];
    bool busy = resync_throttle_busy(&m->throttle, m->now);
    unsigned copies = mirror_copies(m, OP_RESYNC, (uint8_t)(1u << k));
    while (copies < (busy ? COPIES_MAX : COPIES_IDLE) && member->todo.set) {
        uint32_t first = bitmap_next(&member->todo, 0);
        if (!resync_start(m, k, first, run_end(m, &member->todo, first, busy)))
            return;
        copies++;
    }
    if (copies == 0 && !member->todo.set && member_merged(member) && !m->pending_grow)
        resync_grow(m, k);
}

/* Write progress down, so that a crash of either side does not cost it: marks of regions that are equal go. */
void resync_keep(struct mirror *m)
{
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        struct member *member = &m->members[k];
        if (member->state != MIRROR_MEMBER_SYNCING || !member->progressed || m->now < member->keep_us)
            continue;
        uint8_t bit = (uint8_t)(1u << k);
        member->keep_us = m->now + KEEP_US;
        member->progressed = false;
        bitmap_copy(&m->scratch, &member->todo);
        list_foreach(node, &m->active) {
            const struct mirror_op *op = list_entry(node, struct mirror_op, link);
            bool copying = op->kind == OP_RESYNC && op->joiners & bit;
            bool missing = op->phase >= OP_WRITING && !(op->acked & op->targets & bit) && op->kind != OP_RESYNC;
            if (!copying && !missing)
                continue;
            for (uint32_t r = mirror_region(m, op->range.offset_bytes);
                 r <= mirror_region(m, op->range.offset_bytes + op->range.length_bytes - 1); r++)
                bitmap_set(&m->scratch, r);
        }
        bitmap_and(&m->dirty[k], &m->scratch);
        mirror_keep_all(m, k, &m->dirty[k]);
    }
}

/* ---- the steps -------------------------------------------------------------------------------------------------------- */

static unsigned joiner_of(const struct mirror_op *op)
{
    return (unsigned)__builtin_ctz(op->joiners);
}

static void resync_end(struct mirror *m, struct mirror_op *op)
{
    resync_throttle_ended(&m->throttle, m->now);
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (op->joiners >> k & 1)
            m->members[k].sync.done += op->end - op->range.offset_bytes;
    op_free(m, op);
}

/* Digests of the next stretch from a source and the joiner. */
static void resync_compare(struct mirror *m, struct mirror_op *op)
{
    uint64_t most = MIN(m->parameters.copy_bytes, MIRROR_DIGESTS_MAX / 4 * DIGEST_PIECE);
    int source = op_read_source(m, op);
    if (source < 0) {
        op_read_none(m, op, source);
        return;
    }
    op->read_from = (unsigned)source;
    op->io_length = MIN(most, op->end - op->io_offset);
    digest_ask(m, op, (uint8_t)(op->joiners | 1u << source), DIGEST_PIECE, false);
}

void resync_compared(struct mirror *m, struct mirror_op *op)
{
    unsigned k = joiner_of(op);
    struct sync_progress *sync = &m->members[k].sync;
    uint32_t pieces = (uint32_t)((op->io_length + DIGEST_PIECE - 1) / DIGEST_PIECE), equal = 0;
    op->compared_from = op->io_offset;
    op->compared_to = op->io_offset + op->io_length;
    op->wanted = 0;
    for (uint32_t i = 0; i < pieces; i++) {
        uint8_t here[MIRROR_DIGEST_BYTES], there[MIRROR_DIGEST_BYTES];
        digest_get(m, op, op->read_from, i, here);
        digest_get(m, op, k, i, there);
        if (memcmp(here, there, sizeof(here)) == 0 && !digest_unreadable(here))
            equal++;
        else
            op->wanted |= 1ull << i;
    }
    compare_judge(sync, equal, pieces - equal);
    sync->compared += op->io_length;
    m->members[k].progressed |= equal > 0;
    digest_drop(m, op);
    resync_run(m, op);
}

/* Go to the next stretch that differs; its length within what was compared. */
static bool resync_seek(struct mirror_op *op)
{
    uint32_t piece = (uint32_t)((op->io_offset - op->compared_from) / DIGEST_PIECE), last;
    uint32_t pieces = (uint32_t)((op->compared_to - op->compared_from + DIGEST_PIECE - 1) / DIGEST_PIECE);
    while (piece < pieces && !(op->wanted >> piece & 1))
        piece++;
    if (piece >= pieces) {
        op->io_offset = op->compared_to;
        return false;
    }
    for (last = piece; last + 1 < pieces && op->wanted >> (last + 1) & 1; last++)
        ;
    op->io_offset = MAX(op->io_offset, op->compared_from + (uint64_t)piece * DIGEST_PIECE);
    op->io_length = MIN(op->compared_from + (uint64_t)(last + 1) * DIGEST_PIECE, op->compared_to) - op->io_offset;
    return true;
}

void resync_run(struct mirror *m, struct mirror_op *op)
{
    if (op->digest_late & op->joiners) {
        resync_unreadable(m, op); /* it starts anew, later */
        return;
    }
    if (op->digest_late)
        op->compare = false;
    op->digest_late = 0;
    if (op->compare && op->io_offset < op->compared_to && !resync_seek(op))
        op->read_tried = op->read_bad = 0;
    if (op->io_offset >= op->end) {
        resync_end(m, op);
        return;
    }
    if (op->compare && op->io_offset >= op->compared_to) {
        resync_compare(m, op);
        return;
    }
    if (!copy_take_buffer(m, op))
        return;
    if (!op->compare)
        op->io_length = op->end - op->io_offset;
    op->io_length = MIN(m->parameters.copy_bytes, op->io_length);
    op_read_step(op);
    op_read(m, op, op->buffer);
}

void resync_unreadable(struct mirror *m, struct mirror_op *op)
{
    uint8_t joiners = op->joiners; /* none of the ISR could read it */
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (joiners >> k & 1) {
            member_back_off(m, k, true);
            member_detach(m, k, MIRROR_MEMBER_AWAY);
        }
}

void resync_written(struct mirror *m, struct mirror_op *op)
{
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (op->joiners >> k & 1) {
            struct member *member = &m->members[k];
            m->resynced_bytes += op->io_length;
            member->progressed = true;
            member->sync.sent += op->io_operation == BLOCK_WRITE ? op->io_length : 0;
            member->sync.sources |= (uint8_t)(1u << op->read_from);
        }
    op->io_offset += op->io_length;
    op->read_tried = op->read_bad = 0;
    copy_drop_buffer(m, op);
    resync_run(m, op);
}
