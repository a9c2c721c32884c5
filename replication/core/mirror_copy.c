/* Copying between members: reconciliation of regions that were in flight at a failover (I6), and resync of a joining
 * replica (I8). Both read from the ISR's source and write with a sequence number of their own, under an exclusive range. */
#include "replication/core/mirror_internal.h"
#include <string.h>

static uint64_t region_offset(const struct mirror *m, uint32_t region)
{
    return MIN((uint64_t)region * m->parameters.region_bytes, m->parameters.size_bytes);
}

static bool reconcile_covered(const struct mirror *m, uint32_t region)
{
    uint64_t offset = region_offset(m, region);
    list_foreach(node, &m->active) {
        const struct mirror_op *op = list_entry(node, struct mirror_op, link);
        if (op->kind == OP_RECONCILE && op->range.offset_bytes <= offset && offset < op->end)
            return true;
    }
    return false;
}

static bool copy_start(struct mirror *m, enum op_kind kind, unsigned target, uint32_t first, uint32_t last)
{
    uint64_t offset = region_offset(m, first), end = region_offset(m, last + 1);
    if (m->background >= INTERNAL_OPS)
        return false;
    struct mirror_op *op = op_new(m, kind, offset, end - offset);
    if (!op)
        return false;
    op->end = end;
    op->target = target;
    op->io_operation = BLOCK_WRITE;
    op->io_length = 0;
    op_lock(m, op);
    return true;
}

bool mirror_reconcile_range(struct mirror *m, uint64_t offset, uint64_t length)
{
    uint32_t end = mirror_region(m, offset + length - 1), first = BITMAP_NONE, last = 0;
    if (!m->unreconciled.set)
        return true;
    for (uint32_t r = bitmap_next(&m->unreconciled, mirror_region(m, offset)); r <= end && r != BITMAP_NONE;
         r = bitmap_next(&m->unreconciled, r + 1)) {
        if (reconcile_covered(m, r))
            continue;
        if (first == BITMAP_NONE)
            first = r;
        last = r;
    }
    return first == BITMAP_NONE || copy_start(m, OP_RECONCILE, 0, first, last);
}

static void copy_end(struct mirror *m, struct mirror_op *op)
{
    op_free(m, op);
}

/* Step on to the next piece. */
void copy_run(struct mirror *m, struct mirror_op *op)
{
    struct mirror_data_operations *data = &m->parameters.data;
    if (op->kind == OP_RECONCILE) {
        uint32_t region = op->io_offset < op->end ? mirror_region(m, op->io_offset) : BITMAP_NONE;
        uint32_t next = region == BITMAP_NONE ? BITMAP_NONE : bitmap_next(&m->unreconciled, region);
        if (next != region && next != BITMAP_NONE)
            op->io_offset = region_offset(m, next);
        if (next == BITMAP_NONE)
            op->io_offset = op->end;
    }
    if (op->io_offset >= op->end) {
        copy_end(m, op);
        return;
    }
    if (!op->buffer.handle)
        op->buffer.handle = data->alloc(data->context, m->parameters.copy_bytes);
    if (!op->buffer.handle) {
        op->phase = OP_START;
        m->retry_us = MIN(m->retry_us, m->now + RETRY_US);
        return;
    }
    op->io_length = MIN(m->parameters.copy_bytes, op->end - op->io_offset);
    op_read(m, op, op->buffer);
}

void copy_read_done(struct mirror *m, struct mirror_op *op, int status)
{
    if (status == 0) {
        op_write(m, op);
        return;
    }
    if (op->kind == OP_RESYNC) { /* none of the ISR could read it */
        unsigned k = op->target;
        member_back_off(m, k, true);
        member_detach(m, k, MIRROR_MEMBER_AWAY);
        return;
    }
    /* Unreadable everywhere: requests to it will fail by themselves. It stays listed and is tried again. */
    m->reconcile_retry_us = m->now + ASK_AGAIN_US;
    copy_end(m, op);
}

void copy_written(struct mirror *m, struct mirror_op *op)
{
    uint64_t done = op->io_offset + op->io_length;
    if (op->kind == OP_RECONCILE) {
        for (uint32_t r = mirror_region(m, op->io_offset); r < m->regions && region_offset(m, r + 1) <= done; r++)
            if (bitmap_clear(&m->unreconciled, r))
                m->reconciled_regions++;
    } else {
        m->resynced_bytes += op->io_length;
        m->members[op->target].progressed = true;
    }
    op->io_offset = done;
    op->read_tried = 0;
    /* The buffer may still be on its way to a member that was dropped: take another one. */
    mirror_effects_add(m->out, MIRROR_EFFECT_RELEASE)->release = op->buffer.handle;
    op->buffer.handle = NULL;
    copy_run(m, op);
}

/* ---- resync ------------------------------------------------------------------------------------------------------ */

void resync_stop(struct mirror *m, unsigned k)
{
    list_foreach_safe(node, after, &m->active) {
        struct mirror_op *op = list_entry(node, struct mirror_op, link);
        if (op->kind == OP_RESYNC && op->target == k)
            op_free(m, op);
    }
    bitmap_zero(&m->members[k].todo);
}

static void resync_begin(struct mirror *m, unsigned k)
{
    struct member *member = &m->members[k];
    member->state = MIRROR_MEMBER_SYNCING;
    bitmap_copy(&member->todo, &m->dirty[k]);
    /* A returning member may hold writes that nobody else has. */
    if (!mirror_bug(m, MIRROR_BUG_NO_RETURN_INTENT))
        bitmap_or(&member->todo, &member->carry);
    member->todo_total = member->todo.set;
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

static unsigned copies_of(const struct mirror *m, enum op_kind kind, unsigned target)
{
    unsigned count = 0;
    if (!m->background)
        return 0;
    list_foreach(node, &m->active) {
        const struct mirror_op *op = list_entry(node, struct mirror_op, link);
        count += op->kind == kind && (kind == OP_RECONCILE || op->target == target);
    }
    return count;
}

static uint32_t run_end(const struct mirror *m, const struct bitmap *map, uint32_t first)
{
    uint32_t last = first, most = MAX(m->parameters.copy_bytes / m->parameters.region_bytes, 1u);
    while (last + 1 < m->regions && last + 1 - first < most && bitmap_test(map, last + 1))
        last++;
    return last;
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

static void resync_continue(struct mirror *m, unsigned k)
{
    struct member *member = &m->members[k];
    unsigned copies = copies_of(m, OP_RESYNC, k);
    while (copies < COPIES_MAX && member->todo.set) {
        uint32_t first = bitmap_next(&member->todo, 0), last = run_end(m, &member->todo, first);
        if (!copy_start(m, OP_RESYNC, k, first, last))
            return;
        for (uint32_t r = first; r <= last; r++)
            bitmap_clear(&member->todo, r);
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
            bool copying = op->kind == OP_RESYNC && op->target == k;
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

void mirror_background(struct mirror *m)
{
    if (m->state != MIRROR_SERVING || m->draining)
        return;
    bool alone = !(m->config.isr & (m->config.isr - 1));
    if (alone && !m->pending_grow && m->unreconciled.set && !copies_of(m, OP_RECONCILE, 0))
        bitmap_zero(&m->unreconciled); /* nobody to differ from; the others have it marked */
    unsigned copies = copies_of(m, OP_RECONCILE, 0);
    if (m->unreconciled.set && m->now >= m->reconcile_retry_us) {
        for (uint32_t r = bitmap_next(&m->unreconciled, 0); r != BITMAP_NONE && copies < COPIES_MAX;
             r = bitmap_next(&m->unreconciled, r + 1)) {
            if (reconcile_covered(m, r))
                continue;
            if (!copy_start(m, OP_RECONCILE, 0, r, r))
                return;
            copies++;
        }
    }
    if (m->unreconciled.set || copies)
        return;
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        struct member *member = &m->members[k];
        if (in_isr(m, k) && member->carry_reported && member_attached(member) && member_merged(member)) {
            struct mirror_message message = {.type = MIRROR_RECONCILED};
            member->carry_reported = false;
            mirror_send(m, k, &message, (struct mirror_data){0}, 0);
        }
        if (in_isr(m, k) || m->pending_grow >> k & 1)
            continue;
        if (member->state == MIRROR_MEMBER_ATTACHED && m->now >= member->retry_us)
            resync_begin(m, k);
        if (member->state == MIRROR_MEMBER_SYNCING)
            resync_continue(m, k);
    }
}
