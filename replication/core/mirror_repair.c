/* Repair in place: blocks that one in-sync member could not read (scenario 11), or that verify found different, are read from
 * a good member, rewritten, read back and compared. A member that fails the rewrite or the reading back leaves the ISR
 * (scenario 10).
 *
 * A step: exclusive range -> [which blocks of a longer stretch are bad: each becomes a repair of its own] -> read at a good member -> write to the bad ones -> read each back -> counted.
 * Safe: the range is exclusive and the good content is read under it, so what is written is the last acknowledged content,
 * whatever was written since the fault was seen; intent covers the write as any other. It needs no marks for members outside
 * the ISR: what is acknowledged does not change. A member dropped meanwhile has the range marked, and gets it by resync. */
#include "replication/core/mirror_internal.h"
#include <errno.h>
#include <string.h>

void mirror_repair_note(struct mirror *m, uint64_t offset, uint64_t length, uint8_t members, uint8_t avoid, bool of_check)
{
    /* Whole blocks: a part of one would have to be completed by reading what cannot be read. */
    uint64_t first = offset / BLOCK_BYTES * BLOCK_BYTES;
    uint64_t end = MIN((offset + length + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES, m->parameters.size_bytes);
    if (!of_check)
        for (unsigned i = 0; i < m->repair_count; i++) {
            const struct repair *repair = &m->repairs[i];
            if (repair->offset <= first && end <= repair->offset + repair->length && !(members & ~repair->members))
                return; /* noted already */
        }
    if (m->repair_count == REPAIRS_MAX) {
        if (of_check)
            m->check.status.failed += (end - first) / BLOCK_BYTES;
        return;
    }
    m->repairs[m->repair_count++] = (struct repair){first, end - first, members, avoid | members, of_check, of_check};
    m->check.repairs += of_check;
}

void mirror_repair_dropped(struct mirror *m, unsigned k, struct bitmap *marks)
{
    for (unsigned i = 0; i < m->repair_count; i++)
        if (m->repairs[i].members >> k & 1)
            for (uint32_t r = mirror_region(m, m->repairs[i].offset);
                 r <= mirror_region(m, m->repairs[i].offset + m->repairs[i].length - 1); r++)
                bitmap_set(marks, r);
}

void mirror_repair_start(struct mirror *m)
{
    while (m->repair_count && mirror_copies(m, OP_REPAIR, 0) < REPAIRS_RUN && m->background + RECONCILE_RESERVE < INTERNAL_OPS) {
        struct repair repair = m->repairs[0];
        struct mirror_op *op = op_new(m, OP_REPAIR, repair.offset, repair.length);
        if (!op)
            return;
        memmove(m->repairs, m->repairs + 1, --m->repair_count * sizeof(repair));
        op->end = repair.offset + repair.length;
        op->repair = op->repair_all = repair.members;
        op->read_tried = op->avoid = repair.avoid;
        op->of_check = repair.of_check;
        op->located = repair.located || repair.length <= BLOCK_BYTES;
        op_lock(m, op);
    }
}

static void repair_end(struct mirror *m, struct mirror_op *op, bool failed)
{
    if (op->of_check) {
        m->check.repairs--;
        if (failed)
            m->check.status.failed += op->range.length_bytes / BLOCK_BYTES;
    }
    op_free(m, op);
}

/* Read back the next member that was rewritten. */
static void repair_check_back(struct mirror *m, struct mirror_op *op)
{
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        if (!(op->repair >> k & 1))
            continue;
        if (!in_isr(m, k) || !member_attached(&m->members[k])) {
            op->repair &= (uint8_t)~(1u << k); /* it has left, or what it has is not known to have changed: a read will tell */
            continue;
        }
        struct mirror_message message = {.type = MIRROR_READ, .request = (uint64_t)op->turn << 32 | op->index,
                                         .offset_bytes = op->io_offset, .length_bytes = op->io_length};
        op->phase = OP_READING;
        op->issued_us = m->now;
        op->read_from = k;
        mirror_send(m, k, &message, (struct mirror_data){0}, 0);
        return;
    }
    op->reading_back = false;
    op->io_offset += op->io_length;
    op->repair = op->repair_all;
    op->read_tried = op->avoid;
    op->read_bad = 0;
    copy_drop_buffer(m, op);
    if (op->io_offset >= op->end)
        repair_end(m, op, false);
    else
        repair_run(m, op); /* block by block */
}

void repair_located(struct mirror *m, struct mirror_op *op, int status)
{
    uint32_t blocks = (uint32_t)(op->io_length / BLOCK_BYTES);
    for (uint32_t i = 0; i < blocks && status == 0; i++) {
        uint8_t digest[MIRROR_DIGEST_BYTES], bad = 0;
        for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++) {
            if (!(op->digest_have >> k & 1))
                continue;
            digest_get(m, op, k, i, digest);
            bad |= (uint8_t)(digest_unreadable(digest) << k);
        }
        if (bad)
            mirror_repair_note(m, op->io_offset + (uint64_t)i * BLOCK_BYTES, BLOCK_BYTES, bad, bad, false);
    }
    repair_end(m, op, false);
}

void repair_run(struct mirror *m, struct mirror_op *op)
{
    if (op->digest_late) { /* it keeps the answer: found again by the next read */
        repair_end(m, op, false);
        return;
    }
    if (op->reading_back) {
        repair_check_back(m, op);
        return;
    }
    op->repair &= m->config.isr;
    if (!op->repair) {
        repair_end(m, op, false); /* those in question have left: marked */
        return;
    }
    op->io_length = op->end - op->io_offset;
    if (op->io_length > m->parameters.copy_bytes) { /* the rest is another one */
        mirror_repair_note(m, op->io_offset + m->parameters.copy_bytes, op->io_length - m->parameters.copy_bytes, op->repair,
                           op->avoid, op->of_check);
        op->end = op->io_offset + m->parameters.copy_bytes;
        op->io_length = m->parameters.copy_bytes;
    }
    if (!op->located) {
        uint8_t there = op->repair;
        for (unsigned k = 0; k < m->config.replica_count; k++)
            if (!member_attached(&m->members[k]))
                there &= (uint8_t)~(1u << k);
        if (there)
            digest_ask(m, op, there, BLOCK_BYTES, true);
        else
            repair_end(m, op, false);
        return;
    }
    op_read_step(op);
    if (copy_take_buffer(m, op))
        op_read(m, op, op->buffer);
}

void repair_unreadable(struct mirror *m, struct mirror_op *op)
{
    repair_end(m, op, true); /* no good copy: left as it is, reads of it fail */
}

void repair_written(struct mirror *m, struct mirror_op *op)
{
    op->repair &= op->acked; /* the others have failed, and leave */
    if (!op->repair) {
        repair_end(m, op, true);
        return;
    }
    op->reading_back = true;
    repair_check_back(m, op);
}

void repair_read_back(struct mirror *m, struct mirror_op *op, unsigned k, int status, struct mirror_data data)
{
    struct mirror_data_operations *operations = &m->parameters.data;
    uint64_t differs, blocks = (op->io_length + BLOCK_BYTES - 1) / BLOCK_BYTES;
    if (status < 0 && ++op->read_back_failures < READ_BACK_MAX) {
        repair_check_back(m, op);
        return;
    }
    op->read_back_failures = 0;
    op->repair &= (uint8_t)~(1u << k);
    if (status == 0 && operations->equal(operations->context, op->buffer, data, op->io_length, &differs)) {
        m->members[k].repaired_blocks += blocks;
        m->repaired_blocks += blocks;
        if (op->of_check)
            m->check.status.repaired += blocks;
    } else {
        if (op->of_check)
            m->check.status.failed += blocks;
        member_fail(m, k, MIRROR_ASK_MEMBER_ERROR);
    }
    repair_check_back(m, op);
}
