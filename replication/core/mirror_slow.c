/* Members that keep others waiting (scenario 31). A member is slow when a write that another in-sync member has already is not
 * durable there after policy.slow_us: then it is the disk or the link of this one, not the load of all. It leaves the in-sync
 * set as one that failed does, unless fewer than policy.in_sync_min would be left, and comes back with growing pauses.
 *
 * The owner's own disk is judged alike: a mask without the owner asks for another owner. A read that the own disk keeps is not
 * sent elsewhere: that disk may still write into the reader's memory when it wakes up; the request ends with the ownership. */
#include "replication/core/mirror_internal.h"

#define FLUSH_PATIENCE 4u /* times the patience with a write: a flush empties a whole cache */

static uint64_t slow_us(const struct mirror *m)
{
    return m->config.policy.slow_us ? m->config.policy.slow_us : m->parameters.write_timeout_us;
}

/* Members of the ISR that are there and not given up. */
static unsigned good_count(const struct mirror *m)
{
    unsigned count = 0;
    for (unsigned k = 0; k < m->config.replica_count; k++)
        count += in_isr(m, k) && member_attached(&m->members[k]) && !m->members[k].bad;
    return count;
}

static void slow(struct mirror *m, unsigned k)
{
    if (!m->members[k].bad && good_count(m) > MAX(m->config.policy.in_sync_min, 1u))
        member_fail(m, k, MIRROR_ASK_MEMBER_SLOW);
}

static void write_slow(struct mirror *m, const struct mirror_op *op)
{
    bool some = op->acked & m->config.isr;
    for (unsigned k = 0; k < m->config.replica_count && some; k++)
        if (in_isr(m, k) && op->need & ~op->acked & (1u << k) && member_attached(&m->members[k]))
            slow(m, k);
}

/* A remote member that keeps a read: the next one is asked, and the answer that comes too late is dropped. */
static void read_slow(struct mirror *m, struct mirror_op *op)
{
    unsigned k = op->read_from;
    if (op->reading_back) { /* nobody else can say what it has */
        slow(m, k);
        return;
    }
    if (!(m->config.isr & ~op->read_tried & ~(1u << k)))
        return; /* nobody else has it */
    slow(m, k);
    if ((int)k == m->self)
        return;
    op->read_tried |= (uint8_t)(1u << k);
    op->turn++;
    op->phase = OP_START;
    list_append(&m->ready, &op->ready);
}

/* One outside the in-sync set is not waited for, but the ranges of its writes are: it may not keep them for ever. */
static void outsider_slow(struct mirror *m, const struct mirror_op *op, uint8_t *late)
{
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (op->targets & ~(op->acked | op->errors) & (1u << k) & ~counted_mask(m) && member_attached(&m->members[k]))
            *late |= (uint8_t)(1u << k);
}

void mirror_check_slow(struct mirror *m)
{
    uint8_t late = 0;
    for (unsigned k = 0; k < m->config.replica_count; k++) /* one that has caught up before it was dropped stays */
        if (m->members[k].bad && m->members[k].bad_reason == MIRROR_ASK_MEMBER_SLOW && member_attached(&m->members[k]))
            m->members[k].bad = false;
    list_foreach(node, &m->active) {
        struct mirror_op *op = list_entry(node, struct mirror_op, link);
        if (op->phase >= OP_WRITING && op->kind != OP_RESYNC && m->now >= op->issued_us + slow_us(m))
            write_slow(m, op);
        if (op->phase >= OP_WRITING && m->now >= op->issued_us + m->parameters.write_timeout_us)
            outsider_slow(m, op, &late);
        if (op->phase == OP_READING && m->now >= op->issued_us + slow_us(m))
            read_slow(m, op);
        if (op->phase == OP_DIGEST && m->now >= op->issued_us + slow_us(m))
            digest_slow(m, op);
    }
    resync_check_slow(m);
    for (unsigned k = 0; m->flush.busy && k < m->config.replica_count; k++) {
        bool waited = m->flush.need & ~m->flush.acked & (1u << k) && member_attached(&m->members[k]);
        if (!waited || m->now < m->flush.issued_us + FLUSH_PATIENCE * slow_us(m))
            continue;
        if (!(counted_mask(m) >> k & 1))
            late |= (uint8_t)(1u << k); /* joining */
        else if (in_isr(m, k) && m->flush.acked & m->config.isr)
            slow(m, k);
    }
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (late >> k & 1) {
            member_back_off(m, k, true);
            member_detach(m, k, MIRROR_MEMBER_AWAY);
        }
}
