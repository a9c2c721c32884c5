/* Online check of a volume: verify (members against each other) and scrub (each against its own checksums).
 *
 * A step: range (writes excluded, reads let in) -> DIGEST of each in-sync member, by blocks of 4 KiB -> compared; what differs
 * or could not be read is noted, counted, and given to repair. Pieces are worked on in parallel, position follows the lowest
 * unfinished one. Since no write is under way in the range and all are complete on every in-sync member (I3), and since a check
 * waits until nothing is unreconciled (I6), members differ only when a disk did not keep what it acknowledged. */
#include "replication/core/mirror_internal.h"
#include <errno.h>
#include <string.h>

static bool check_running(const struct mirror *m)
{
    return m->check.status.state == MIRROR_CHECK_RUNNING || m->check.status.state == MIRROR_CHECK_WAITING;
}

bool mirror_check_wanted(const struct mirror *m)
{
    return check_running(m);
}

/* All below it is through, repairs included. */
static uint64_t check_position(const struct mirror *m)
{
    uint64_t position = m->check.next;
    for (unsigned i = 0; i < m->check.redo_count; i++)
        position = MIN(position, m->check.redo[i].offset);
    for (unsigned i = 0; i < m->repair_count; i++)
        if (m->repairs[i].of_check)
            position = MIN(position, m->repairs[i].offset);
    list_foreach(node, &m->active) {
        const struct mirror_op *op = list_entry(node, struct mirror_op, link);
        if (op->kind == OP_CHECK || op->of_check)
            position = MIN(position, op->range.offset_bytes);
    }
    return position;
}

int mirror_check_start(struct mirror *m, const struct mirror_check_options *options, uint64_t now_us)
{
    if ((options->kind != MIRROR_CHECK_VERIFY && options->kind != MIRROR_CHECK_SCRUB) ||
        options->from_offset > m->parameters.size_bytes)
        return -EINVAL;
    if (m->state == MIRROR_IDLE)
        return -ESTALE;
    if (check_running(m) || m->check.repairs || mirror_copies(m, OP_CHECK, 0))
        return -EBUSY;
    uint64_t from = options->from_offset / BLOCK_BYTES * BLOCK_BYTES;
    m->check = (struct check){.next = from,
                              .status = {.kind = options->kind, .state = MIRROR_CHECK_WAITING, .repair = options->repair,
                                         .position = from, .total_bytes = m->parameters.size_bytes}};
    meter_start(&m->check.meter, from, now_us);
    return 0;
}

void mirror_check_ended(struct mirror *m, enum mirror_check_state state)
{
    if (check_running(m))
        m->check.status.state = state;
}

int mirror_check_stop(struct mirror *m, uint64_t now_us)
{
    (void)now_us;
    if (!check_running(m))
        return -ENOENT;
    m->check.status.position = check_position(m);
    mirror_check_ended(m, MIRROR_CHECK_STOPPED); /* pieces under way see it, and end */
    return 0;
}

/* What is asked now: every in-sync member. 0: not now. */
static uint8_t check_members(const struct mirror *m)
{
    if (m->pending_grow || (m->check.status.kind == MIRROR_CHECK_VERIFY && !(m->config.isr & (m->config.isr - 1))))
        return 0;
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        if (in_isr(m, k) && (!member_attached(&m->members[k]) || m->members[k].bad))
            return 0;
        if (m->members[k].state == MIRROR_MEMBER_SYNCING)
            return 0; /* first things first */
    }
    return m->config.isr;
}

/* The next piece to be looked at: one that could not be finished, or the next of the volume. */
static bool check_next(const struct mirror *m, uint64_t most, uint64_t *ret_offset, uint64_t *ret_length)
{
    const struct check *check = &m->check;
    if (check->redo_count) {
        *ret_offset = check->redo[check->redo_count - 1].offset;
        *ret_length = check->redo[check->redo_count - 1].length;
        return true;
    }
    *ret_offset = check->next;
    *ret_length = MIN(most, check->status.total_bytes - check->next);
    return *ret_length > 0;
}

static void check_taken(struct check *check, uint64_t length)
{
    if (check->redo_count)
        check->redo_count--;
    else
        check->next += length;
}

void mirror_check_continue(struct mirror *m)
{
    struct mirror_check_status *status = &m->check.status;
    if (!check_running(m))
        return;
    status->total_bytes = m->parameters.size_bytes; /* it may have grown */
    bool busy = resync_throttle_busy(&m->throttle, m->now);
    unsigned pieces = mirror_copies(m, OP_CHECK, 0);
    uint64_t most = MIN(busy ? COPY_BUSY : m->parameters.copy_bytes, (uint64_t)MIRROR_DIGESTS_MAX * BLOCK_BYTES);
    uint8_t members = check_members(m);
    uint64_t offset, length;
    while (members && m->now >= m->check.retry_us && check_next(m, most, &offset, &length) &&
           pieces < (busy ? COPIES_MAX : COPIES_IDLE) && m->background + RECONCILE_RESERVE < INTERNAL_OPS &&
           m->repair_count < REPAIRS_MAX / 2) {
        if (!mirror_throttle_take(m, length))
            break;
        struct mirror_op *op = op_new(m, OP_CHECK, offset, length);
        if (!op) {
            resync_throttle_put_back(&m->throttle, length);
            break;
        }
        check_taken(&m->check, length);
        pieces++;
        op_lock(m, op);
    }
    status->position = check_position(m);
    meter_update(&m->check.meter, status->position, m->now);
    if (status->position >= status->total_bytes && !m->check.repairs)
        status->state = MIRROR_CHECK_DONE;
    else
        status->state = members ? MIRROR_CHECK_RUNNING : MIRROR_CHECK_WAITING;
}

static void check_end(struct mirror *m, struct mirror_op *op)
{
    resync_throttle_ended(&m->throttle, m->now);
    op_free(m, op);
}

/* It could not be looked at now: the range is let go, and taken again later. */
static void check_again(struct mirror *m, struct mirror_op *op)
{
    ASSERT(m->check.redo_count < CHECK_REDO_MAX); /* at most as many as are under way */
    m->check.redo[m->check.redo_count].offset = op->range.offset_bytes;
    m->check.redo[m->check.redo_count++].length = op->range.length_bytes;
    m->check.retry_us = m->now + RETRY_US;
    check_end(m, op);
}

/* The range is granted, or members have changed. */
void check_run(struct mirror *m, struct mirror_op *op)
{
    uint8_t members = check_members(m);
    if (!check_running(m)) {
        check_end(m, op);
        return;
    }
    if (!members || op->digest_late) {
        check_again(m, op);
        return;
    }
    digest_ask(m, op, members, BLOCK_BYTES, m->check.status.kind == MIRROR_CHECK_SCRUB);
}

static void finding_add(struct mirror_check_status *status, uint64_t offset, uint8_t members, bool unreadable)
{
    if (status->finding_count) { /* of one stretch */
        unsigned last = status->finding_count - 1;
        if (status->findings[last].offset + status->findings[last].length == offset &&
            status->findings[last].members == members && status->findings[last].unreadable == unreadable) {
            status->findings[last].length += BLOCK_BYTES;
            return;
        }
    }
    if (status->finding_count == MIRROR_FINDINGS_MAX)
        return;
    unsigned i = status->finding_count++;
    status->findings[i].offset = offset;
    status->findings[i].length = BLOCK_BYTES;
    status->findings[i].members = members;
    status->findings[i].unreadable = unreadable;
}

/* One block: who is wrong. The most numerous content is right; among equals that of the member reads are answered from. */
static void check_block(struct mirror *m, const struct mirror_op *op, uint32_t block, uint8_t *ret_bad, uint8_t *ret_differs)
{
    uint8_t digests[MIRROR_REPLICAS_MAX][MIRROR_DIGEST_BYTES], bad = 0, right = 0;
    for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++) {
        if (!(op->digest_have >> k & 1))
            continue;
        digest_get(m, op, k, block, digests[k]);
        bad |= (uint8_t)(digest_unreadable(digests[k]) << k);
    }
    uint8_t good = op->digest_have & (uint8_t)~bad;
    for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++) {
        uint8_t same = 0;
        if (!(good >> k & 1))
            continue;
        for (unsigned j = 0; j < MIRROR_REPLICAS_MAX; j++)
            if (good >> j & 1 && memcmp(digests[k], digests[j], MIRROR_DIGEST_BYTES) == 0)
                same |= (uint8_t)(1u << j);
        int more = __builtin_popcount(same) - __builtin_popcount(right);
        if (more > 0 || (more == 0 && m->self >= 0 && same >> m->self & 1))
            right = same;
    }
    *ret_bad = bad;
    *ret_differs = good & (uint8_t)~right;
}

/* All digests are there, or status says why not: then the piece is checked again. */
void check_compared(struct mirror *m, struct mirror_op *op, int status)
{
    struct mirror_check_status *result = &m->check.status;
    struct repair run = {.of_check = true};
    if (status < 0 && check_running(m)) {
        check_again(m, op);
        return;
    }
    if (!check_running(m)) {
        check_end(m, op);
        return;
    }
    uint32_t blocks = (uint32_t)((op->io_length + BLOCK_BYTES - 1) / BLOCK_BYTES);
    for (uint32_t i = 0; i < blocks; i++) {
        uint64_t offset = op->io_offset + (uint64_t)i * BLOCK_BYTES;
        uint8_t bad, differs;
        check_block(m, op, i, &bad, &differs);
        result->bad_blocks += bad != 0;
        result->mismatches += differs != 0;
        if (bad)
            finding_add(result, offset, bad, true);
        if (differs)
            finding_add(result, offset, differs, false);
        for (unsigned k = 0; k < m->config.replica_count; k++)
            m->members[k].read_errors += bad >> k & 1;
        if (!result->repair || !(bad | differs))
            continue;
        if (run.members == (bad | differs) && run.offset + run.length == offset) {
            run.length += BLOCK_BYTES;
            continue;
        }
        if (run.members)
            mirror_repair_note(m, run.offset, run.length, run.members, run.members, true);
        run = (struct repair){.offset = offset, .length = BLOCK_BYTES, .members = bad | differs, .of_check = true};
    }
    if (run.members)
        mirror_repair_note(m, run.offset, run.length, run.members, run.members, true);
    check_end(m, op);
}
