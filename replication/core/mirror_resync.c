/* Resync of joining replicas (I8): all regions that one lacks are copied to it while it gets every new write; with nothing
 * left it is counted, and its growth asked for.
 *
 * A step: range (writes excluded) -> [digests of source and joiner, equal pieces are done] -> read at the source -> write to
 * the joiners. The range stays taken until each joiner has it or was detached, so an old copy never lands on a newer write.
 * Several joiners that lack the same regions are served by one read. With one joiner and other in-sync members, these are told
 * in turn to send a stretch straight to it (COPY -> COPIED -> WRITE_REPLY to us): nobody's link or disk carries all of it.
 * When such a source cannot be asked any more whether it has sent, the joiner is detached: what may still be on its way
 * belongs to a session that is over.
 *
 * What a joiner has is not known when its marks are gone (another disk, marks about another disk): everything counts as
 * missing, and digests find what does not. When comparing does not pay (most differs), it is left out for a while. */
#include "replication/core/mirror_internal.h"
#include <errno.h>
#include <string.h>

static unsigned joiner_of(const struct mirror_op *op)
{
    return (unsigned)__builtin_ctz(op->joiners);
}

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
    member->sync = (struct sync_progress){.by_digest = member->todo.set == m->regions && !member->lost};
    for (uint32_t r = bitmap_next(&member->todo, 0); r != BITMAP_NONE; r = bitmap_next(&member->todo, r + 1))
        member->sync.total += mirror_region_offset(m, r + 1) - mirror_region_offset(m, r);
    meter_start(&member->sync.meter, 0, m->now);
    member->keep_us = m->now + KEEP_US;
    member->progressed = false;
    member->merge_acked = 0;
    member->merge_sent = 0;
    member->barrier = 0;
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
        m->members[j].barrier = 0; /* what it brings wants another one */
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
    if (copies == 0 && !member->todo.set && member_merged(member) && !m->pending_grow && member_barrier(m, k))
        resync_grow(m, k);
}

/* Write progress down, so that a crash of either side does not cost it: marks of regions that are equal go. */
static void resync_keep_one(struct mirror *m, unsigned k)
{
    struct member *member = &m->members[k];
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

void resync_keep(struct mirror *m)
{
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        const struct member *member = &m->members[k];
        if (member->state == MIRROR_MEMBER_SYNCING && member->progressed && m->now >= member->keep_us)
            resync_keep_one(m, k);
    }
}

/* ---- members that send straight to a joiner ------------------------------------------------------------------------------ */

/* Who sends the stretch at io_offset: the in-sync members in turn. -1: we do, or none can. */
static int copy_source(const struct mirror *m, const struct mirror_op *op)
{
    unsigned count = 0, sources[MIRROR_REPLICAS_MAX];
    if (__builtin_popcount(op->joiners) != 1 || op->io_offset < op->singly_to)
        return -1;
    const struct member *joiner = &m->members[joiner_of(op)];
    uint8_t avoid = op->read_tried | (m->now < joiner->avoid_until_us ? joiner->avoid : 0);
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (in_isr(m, k) && member_attached(&m->members[k]) && !m->members[k].bad && !(avoid >> k & 1))
            sources[count++] = k;
    if (count == 0 || (int)joiner_of(op) == m->self || joiner->state != MIRROR_MEMBER_SYNCING)
        return -1;
    unsigned k = sources[op->io_offset / m->parameters.copy_bytes % count];
    return (int)k == m->self ? -1 : (int)k;
}

static void copy_ask(struct mirror *m, struct mirror_op *op, unsigned k)
{
    const struct member *joiner = &m->members[joiner_of(op)];
    op->read_from = k;
    op->copying = true;
    op->io_operation = BLOCK_WRITE;
    op_write(m, op);
    struct mirror_message message = {.type = MIRROR_COPY, .request = (uint64_t)op->turn << 32 | op->index,
                                     .argument = op->sequence, .offset_bytes = op->io_offset, .length_bytes = op->io_length,
                                     .joiner = joiner->nodeid, .joiner_attach = joiner->attach};
    mirror_send(m, k, &message, (struct mirror_data){0}, 0);
}

/* Nothing of it is on its way to the joiner's present session: another one sends it. */
static void copy_elsewhere(struct mirror *m, struct mirror_op *op)
{
    op->read_tried |= (uint8_t)(1u << op->read_from);
    op->copying = false;
    list_remove(&op->issued);
    op->turn++;
    op->phase = OP_START;
    list_append(&m->ready, &op->ready);
}

/* The two do not reach each other: not tried again for a while. */
static void copy_avoid(struct mirror *m, unsigned joiner, unsigned source)
{
    struct member *member = &m->members[joiner];
    member->avoid = (uint8_t)(1u << source) | (m->now < member->avoid_until_us ? member->avoid : 0);
    member->avoid_until_us = m->now + AVOID_US;
}

void mirror_copy_reply(struct mirror *m, unsigned k, const struct mirror_message *message)
{
    uint32_t index = (uint32_t)message->request;
    struct mirror_op *op = index < m->op_count ? &m->ops[index] : NULL;
    int status = (int)(int64_t)message->argument;
    if (!op || op->turn != message->request >> 32 || !op->copying || op->read_from != k || status >= 0)
        return;
    if (status == -EIO || status == -EBADMSG) {
        op->read_bad |= (uint8_t)(1u << k);
        m->members[k].read_errors++;
    } else {
        copy_avoid(m, joiner_of(op), k);
    }
    copy_elsewhere(m, op);
}

/* What may still be on its way to k ends with k's session. What is done is written down first. */
static void resync_anew(struct mirror *m, unsigned k)
{
    if (!member_attached(&m->members[k]))
        return;
    if (m->members[k].state == MIRROR_MEMBER_SYNCING && !(counted_mask(m) >> k & 1))
        resync_keep_one(m, k);
    member_detach(m, k, MIRROR_MEMBER_AWAY);
    if (m->members[k].link_up)
        member_seal(m, k);
}

void resync_session_over(struct mirror *m, unsigned k)
{
    uint8_t joiners = 0;
    list_foreach_safe(node, after, &m->active) {
        struct mirror_op *op = list_entry(node, struct mirror_op, link);
        if (op->copying && op->joiners >> k & 1) /* (one that was committed as in sync meanwhile; others are forgotten) */
            copy_elsewhere(m, op);
    }
    list_foreach_safe(node, after, &m->active) {
        struct mirror_op *op = list_entry(node, struct mirror_op, link);
        if (!op->copying || op->read_from != k)
            continue;
        if (mirror_bug(m, MIRROR_BUG_LATE_COPY))
            copy_elsewhere(m, op);
        else
            joiners |= op->joiners;
    }
    for (unsigned j = 0; j < m->config.replica_count; j++)
        if (joiners >> j & 1)
            resync_anew(m, j);
}

void resync_check_slow(struct mirror *m)
{
    uint8_t late = 0; /* joiners */
    list_foreach(node, &m->active) {
        const struct mirror_op *op = list_entry(node, struct mirror_op, link);
        if (op->copying && m->now >= op->issued_us + m->parameters.member_timeout_us) {
            copy_avoid(m, joiner_of(op), op->read_from);
            late |= op->joiners;
        }
    }
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (late >> k & 1)
            resync_anew(m, k);
}

/* ---- the steps -------------------------------------------------------------------------------------------------------- */

static void resync_end(struct mirror *m, struct mirror_op *op)
{
    resync_throttle_ended(&m->throttle, m->now);
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (op->joiners >> k & 1) {
            struct sync_progress *sync = &m->members[k].sync;
            sync->done += op->end - op->range.offset_bytes;
            meter_update(&sync->meter, sync->done, m->now);
        }
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
    if (!op->compare)
        op->io_length = op->end - op->io_offset;
    op->io_length = MIN(m->parameters.copy_bytes, op->io_length);
    int source = copy_source(m, op);
    if (source >= 0) {
        copy_ask(m, op, (unsigned)source);
        return;
    }
    if (!copy_take_buffer(m, op))
        return;
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
    if (op->read_bad && op->copying)
        mirror_repair_note(m, op->io_offset, op->io_length, op->read_bad, op->read_tried, false);
    op->copying = false;
    op->io_offset += op->io_length;
    op->read_tried = op->read_bad = 0;
    copy_drop_buffer(m, op);
    resync_run(m, op);
}
