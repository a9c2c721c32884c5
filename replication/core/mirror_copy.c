/* Copying between members: the steps that reconciliation of regions that were in flight at a failover (I6, here), resync of
 * joining replicas (mirror_resync.c) and repair (mirror_repair.c) share, and what is done in the background in which order.
 * All read from a member of the ISR and write with a sequence number of their own, under a range. Reconciliation and repair
 * write to members of the ISR: their range is exclusive. Resync writes to joiners only, which nobody reads from: its range
 * excludes writes and lets reads in. */
#include "replication/core/mirror_internal.h"
#include <string.h>

uint64_t mirror_region_offset(const struct mirror *m, uint32_t region)
{
    return MIN((uint64_t)region * m->parameters.region_bytes, m->parameters.size_bytes);
}

unsigned mirror_copies(const struct mirror *m, enum op_kind kind, uint8_t joiners)
{
    unsigned count = 0;
    if (!m->background)
        return 0;
    list_foreach(node, &m->active) {
        const struct mirror_op *op = list_entry(node, struct mirror_op, link);
        count += op->kind == kind && (kind != OP_RESYNC || op->joiners & joiners);
    }
    return count;
}

bool mirror_throttle_take(struct mirror *m, uint64_t bytes)
{
    if (resync_throttle_take(&m->throttle, bytes, m->now))
        return true;
    m->throttled_us = MIN(m->throttled_us, resync_throttle_next(&m->throttle, m->now));
    return false;
}

bool copy_take_buffer(struct mirror *m, struct mirror_op *op)
{
    struct mirror_data_operations *data = &m->parameters.data;
    if (!op->buffer.handle)
        op->buffer.handle = data->alloc(data->context, m->parameters.copy_bytes);
    if (op->buffer.handle)
        return true;
    op->phase = OP_START;
    m->retry_us = MIN(m->retry_us, m->now + RETRY_US);
    return false;
}

void copy_drop_buffer(struct mirror *m, struct mirror_op *op)
{
    if (op->buffer.handle)
        mirror_effects_add(m->out, MIRROR_EFFECT_RELEASE)->release = op->buffer.handle;
    op->buffer.handle = NULL;
}

/* ---- reconciliation ------------------------------------------------------------------------------------------------ */

static bool reconcile_covered(const struct mirror *m, uint32_t region)
{
    uint64_t offset = mirror_region_offset(m, region);
    list_foreach(node, &m->active) {
        const struct mirror_op *op = list_entry(node, struct mirror_op, link);
        if (op->kind == OP_RECONCILE && op->range.offset_bytes <= offset && offset < op->end)
            return true;
    }
    return false;
}

static bool reconcile_start(struct mirror *m, uint32_t first, uint32_t last)
{
    uint64_t offset = mirror_region_offset(m, first), end = mirror_region_offset(m, last + 1);
    if (m->background >= INTERNAL_OPS)
        return false;
    struct mirror_op *op = op_new(m, OP_RECONCILE, offset, end - offset);
    if (!op)
        return false;
    op->end = end;
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
    return first == BITMAP_NONE || reconcile_start(m, first, last);
}

static void reconcile_run(struct mirror *m, struct mirror_op *op)
{
    uint32_t region = op->io_offset < op->end ? mirror_region(m, op->io_offset) : BITMAP_NONE;
    uint32_t next = region == BITMAP_NONE ? BITMAP_NONE : bitmap_next(&m->unreconciled, region);
    if (next != region && next != BITMAP_NONE)
        op->io_offset = mirror_region_offset(m, next);
    if (next == BITMAP_NONE || op->io_offset >= op->end) {
        op_free(m, op);
        return;
    }
    if (!copy_take_buffer(m, op))
        return;
    op->io_length = MIN(m->parameters.copy_bytes, op->end - op->io_offset);
    op_read_step(op);
    op_read(m, op, op->buffer);
}

static void reconcile_written(struct mirror *m, struct mirror_op *op)
{
    uint64_t done = op->io_offset + op->io_length;
    for (uint32_t r = mirror_region(m, op->io_offset); r < m->regions && mirror_region_offset(m, r + 1) <= done; r++)
        if (bitmap_clear(&m->unreconciled, r)) {
            m->reconciled_regions++;
            mirror_cold_done(m, r);
        }
    op->io_offset = done;
    op->read_tried = op->read_bad = 0;
    copy_drop_buffer(m, op);
    reconcile_run(m, op);
}

/* ---- steps of any copy ----------------------------------------------------------------------------------------------- */

/* The range is granted, or what was missing may be there: step on. */
void copy_run(struct mirror *m, struct mirror_op *op)
{
    switch (op->kind) {
    case OP_RECONCILE:
        reconcile_run(m, op);
        break;
    case OP_RESYNC:
        resync_run(m, op);
        break;
    case OP_REPAIR:
        repair_run(m, op);
        break;
    default:
        check_run(m, op);
    }
}

void copy_read_done(struct mirror *m, struct mirror_op *op, int status)
{
    struct mirror_data_operations *data = &m->parameters.data;
    if (status == 0) {
        /* Zeroes are not sent, and what is thin stays thin: a piece of zeroes as such, some within a piece by the member. */
        bool zero = data->zero(data->context, op->buffer, op->io_length);
        op->io_operation = zero ? BLOCK_WRITE_ZEROES : BLOCK_WRITE;
        op->io_flags = BLOCK_MAY_UNMAP;
        op_write(m, op);
    } else if (op->kind == OP_RESYNC) {
        resync_unreadable(m, op);
    } else if (op->kind == OP_REPAIR) {
        repair_unreadable(m, op);
    } else { /* Unreadable everywhere: requests to it will fail by themselves. It stays listed and is tried again. */
        m->reconcile_retry_us = m->now + ASK_AGAIN_US;
        op_free(m, op);
    }
}

void copy_written(struct mirror *m, struct mirror_op *op)
{
    if (op->kind == OP_RECONCILE)
        reconcile_written(m, op);
    else if (op->kind == OP_RESYNC)
        resync_written(m, op);
    else
        repair_written(m, op);
}

/* ---- what is done in the background ---------------------------------------------------------------------------------- */

/* Nobody to differ from, nobody who could have more; the others have it marked. */
static void mirror_alone(struct mirror *m)
{
    bitmap_zero(&m->unreconciled);
    for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++)
        member_cold_clear(m, k);
}

/* False: more to be done before anything else. */
static bool reconcile_background(struct mirror *m)
{
    bool alone = !(m->config.isr & (m->config.isr - 1));
    if (alone && !m->pending_grow && m->unreconciled.set && !mirror_copies(m, OP_RECONCILE, 0))
        mirror_alone(m);
    unsigned copies = mirror_copies(m, OP_RECONCILE, 0);
    if (m->unreconciled.set && m->now >= m->reconcile_retry_us) {
        for (uint32_t r = bitmap_next(&m->unreconciled, 0); r != BITMAP_NONE && copies < COPIES_MAX;
             r = bitmap_next(&m->unreconciled, r + 1)) {
            if (reconcile_covered(m, r))
                continue;
            if (!reconcile_start(m, r, r))
                return false;
            copies++;
        }
    }
    return !m->unreconciled.set && !copies;
}

void mirror_background(struct mirror *m)
{
    if (m->state != MIRROR_SERVING || m->draining)
        return;
    m->throttled_us = UINT64_MAX;
    mirror_repair_start(m);
    if (!reconcile_background(m))
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
    mirror_check_continue(m);
}
