/* Reads, writes and comparisons at the owner.
 * Write: FIFO -> reconcile what may differ (I6) -> range -> WRITE to the ISR and to syncing members -> all of the ISR
 * durable (I3), marks for the others durable with it (I9) -> COMPLETE.
 * Read: FIFO -> reconcile -> shared range -> READ from the source -> lease still valid (I7) -> COMPLETE. A read waits for an
 * overlapping write in flight: returning its data before it is complete everywhere could show what a failover undoes. */
#include "replication/core/mirror_internal.h"
#include <errno.h>
#include <string.h>

static void release(struct mirror *m, struct mirror_data *data)
{
    if (data->handle)
        mirror_effects_add(m->out, MIRROR_EFFECT_RELEASE)->release = data->handle;
    data->handle = NULL;
}

void mirror_answer(struct mirror *m, struct mirror_request *request, int status)
{
    if (request->operation != BLOCK_FLUSH && request->deadline_us)
        resync_throttle_foreground(&m->throttle, m->now + MIRROR_HOLD_US - request->deadline_us + 1, m->now);
    struct mirror_effect *effect = mirror_effects_add(m->out, MIRROR_EFFECT_COMPLETE);
    effect->complete.request = request;
    effect->complete.status = status;
}

struct mirror_op *op_new(struct mirror *m, enum op_kind kind, uint64_t offset, uint64_t length)
{
    if (list_empty(&m->unused))
        return NULL;
    struct mirror_op *op = list_first(&m->unused, struct mirror_op, link);
    uint32_t index = op->index, turn = op->turn;
    list_remove(&op->link);
    memset(op, 0, sizeof(*op));
    op->index = index;
    op->turn = turn;
    list_init(&op->issued);
    list_init(&op->by_sequence);
    list_init(&op->ready);
    list_append(&m->active, &op->link);
    op->kind = kind;
    op->range.offset_bytes = op->io_offset = offset;
    op->range.length_bytes = op->io_length = length;
    op->range.exclusive = kind != OP_READ && kind != OP_RESYNC && kind != OP_CHECK;
    if (kind >= OP_RECONCILE)
        m->background++;
    else
        m->foreground++;
    return op;
}

static void range_granted(void *context, struct range *range)
{
    struct mirror *m = context;
    list_append(&m->ready, &container_of(range, struct mirror_op, range)->ready);
}

void op_free(struct mirror *m, struct mirror_op *op)
{
    release(m, &op->data);
    release(m, &op->buffer);
    digest_drop(m, op);
    list_remove(&op->issued);
    list_remove(&op->by_sequence);
    list_remove(&op->ready);
    if (!mirror_bug(m, MIRROR_BUG_NO_RANGE_LOCK) && !op->unlocked)
        range_lock_remove(&m->locks, &op->range, range_granted, m);
    if (op->kind >= OP_RECONCILE)
        m->background--;
    else
        m->foreground--;
    op->turn++;
    list_remove(&op->link);
    list_append(&m->unused, &op->link);
}

void op_lock(struct mirror *m, struct mirror_op *op)
{
    op->phase = OP_LOCK;
    op->unlocked = (op->kind == OP_RESYNC && mirror_bug(m, MIRROR_BUG_RESYNC_UNLOCKED)) ||
                   (op->kind == OP_REPAIR && mirror_bug(m, MIRROR_BUG_REPAIR_UNLOCKED)) ||
                   (op->kind == OP_CHECK && mirror_bug(m, MIRROR_BUG_CHECK_UNLOCKED));
    if (mirror_bug(m, MIRROR_BUG_NO_RANGE_LOCK) || op->unlocked || range_lock_add(&m->locks, &op->range))
        list_append(&m->ready, &op->ready);
}

void mirror_run_ready(struct mirror *m)
{
    while (!list_empty(&m->ready)) {
        struct mirror_op *op = list_first(&m->ready, struct mirror_op, ready);
        list_remove(&op->ready);
        op_run(m, op);
    }
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

/* Members in sync that have what was acknowledged there, as far as their caches are concerned (I5). */
static uint8_t warm_mask(const struct mirror *m, const struct mirror_op *op)
{
    uint8_t warm = 0;
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (in_isr(m, k) && !member_is_cold(m, k, op->io_offset, op->io_length))
            warm |= (uint8_t)(1u << k);
    return warm;
}

int op_read_source(const struct mirror *m, const struct mirror_op *op)
{
    uint8_t warm = warm_mask(m, op), eligible = (warm ? warm : m->config.isr) & (uint8_t)~op->read_tried;
    /* A block that none of them can read: what is left of it makes it equal again; op_read() sees that it is told. */
    if (!eligible && op->kind == OP_RECONCILE && op->io_length <= BLOCK_BYTES)
        eligible = m->config.isr & (uint8_t)~op->read_tried;
    int found = eligible ? -1 : -2;
    if (m->self >= 0 && eligible >> m->self & 1 && member_attached(&m->members[m->self]))
        return m->self;
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (eligible >> k & 1 && member_attached(&m->members[k]))
            return (int)k;
    return found;
}

static void op_read_failed(struct mirror *m, struct mirror_op *op, int status);

void op_read_none(struct mirror *m, struct mirror_op *op, int source)
{
    if (source == -2) {
        op_read_failed(m, op, -EIO);
        return;
    }
    op->phase = OP_START;
    m->retry_us = MIN(m->retry_us, m->now + RETRY_US);
}

void op_read(struct mirror *m, struct mirror_op *op, struct mirror_data to)
{
    int source = op_read_source(m, op);
    if (source < 0) {
        op_read_none(m, op, source);
        return;
    }
    op->phase = OP_READING;
    op->issued_us = m->now;
    op->read_from = (unsigned)source;
    uint8_t warm = warm_mask(m, op);
    m->cache_lost |= warm && !(warm >> source & 1);
    struct mirror_message message = {.type = MIRROR_READ, .request = (uint64_t)op->turn << 32 | op->index,
                                     .offset_bytes = op->io_offset, .length_bytes = op->io_length};
    mirror_send(m, (unsigned)source, &message, source == m->self ? to : (struct mirror_data){0}, 0);
}

static void op_answer_read(struct mirror *m, struct mirror_op *op)
{
    struct mirror_request *request = op->request;
    int status = op->status;
    op_free(m, op);
    mirror_answer(m, request, status);
}

void op_read_step(struct mirror_op *op)
{
    if (op->io_offset < op->singly_to)
        op->io_length = MIN(op->io_length, BLOCK_BYTES - op->io_offset % BLOCK_BYTES);
}

static void op_read_failed(struct mirror *m, struct mirror_op *op, int status)
{
    if (op->read_bad && op->io_length > BLOCK_BYTES && op->kind != OP_COMPARE) {
        op->singly_to = op->io_offset + op->io_length; /* each may have lost another block of it */
        op->read_tried = op->avoid;
        op->read_bad = 0;
        op_run(m, op);
        return;
    }
    if (op->kind >= OP_RECONCILE) {
        copy_read_done(m, op, status);
        return;
    }
    op->status = status;
    op_answer_read(m, op);
}

/* Data is there. I7: answered only under a lease that is valid now, after the fetch, or when the others confirm. */
static void op_lease(struct mirror *m, struct mirror_op *op)
{
    op->phase = OP_LEASE;
    op->verified = m->config.policy.verified_reads;
    if (op->verified)
        mirror_confirm_want(m, op);
    if (mirror_may_answer(m, op))
        op_answer_read(m, op);
}

static void compare_read_done(struct mirror *m, struct mirror_op *op)
{
    struct mirror_data_operations *data = &m->parameters.data;
    uint64_t differs = 0;
    if (!data->equal(data->context, op->data, op->buffer, op->io_length, &differs)) {
        op->request->ret_miscompare = differs;
        op->status = -EILSEQ;
        op_lease(m, op);
        return;
    }
    op_write(m, op);
}

/* Where the stretch that is being read belongs in the request's memory. */
static struct mirror_data read_to(const struct mirror_op *op)
{
    return (struct mirror_data){op->data.handle, op->data.offset + op->io_offset - op->range.offset_bytes};
}

static void op_read_on(struct mirror *m, struct mirror_op *op)
{
    op->io_offset += op->io_length;
    op->read_tried = op->read_bad = 0;
    if (op->io_offset < op->range.offset_bytes + op->range.length_bytes)
        op_run(m, op); /* block by block */
    else
        op_lease(m, op);
}

void mirror_read_reply(struct mirror *m, unsigned k, const struct mirror_message *message, struct mirror_data data,
                       uint32_t data_bytes)
{
    uint32_t index = (uint32_t)message->request;
    struct mirror_op *op = index < m->op_count ? &m->ops[index] : NULL;
    int status = (int)(int64_t)message->argument;
    if (!op || op->turn != message->request >> 32 || op->phase != OP_READING || op->read_from != k) {
        release(m, &data);
        return;
    }
    if (status == 0 && data_bytes != op->io_length)
        status = -EPROTO;
    if (op->reading_back) {
        repair_read_back(m, op, k, status, data);
        release(m, &data);
        return;
    }
    if (status < 0) {
        release(m, &data);
        op->read_tried |= (uint8_t)(1u << k); /* another member has it too */
        if (status == -EIO || status == -EBADMSG) {
            op->read_bad |= (uint8_t)(1u << k);
            m->members[k].read_errors++;
        }
        op->phase = OP_START;
        op_run(m, op);
        return;
    }
    if (op->read_bad && op->kind != OP_RECONCILE && op->kind != OP_REPAIR) /* (these write it anyway) */
        mirror_repair_note(m, op->io_offset, op->io_length, op->read_bad, op->read_tried, false);
    struct mirror_data to = op->kind == OP_READ ? read_to(op) : op->buffer;
    if (data.handle != to.handle || data.offset != to.offset)
        m->parameters.data.copy(m->parameters.data.context, to, data, op->io_length);
    release(m, &data);
    if (op->kind == OP_READ)
        op_read_on(m, op);
    else if (op->kind == OP_COMPARE)
        compare_read_done(m, op);
    else
        copy_read_done(m, op, 0);
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

uint64_t mirror_complete_sequence(const struct mirror *m)
{
    uint64_t complete = list_empty(&m->issued) ? m->sequence : list_first(&m->issued, struct mirror_op, issued)->sequence - 1;
    return m->failed_sequence ? MIN(complete, m->failed_sequence - 1) : complete;
}

void op_send_write(struct mirror *m, struct mirror_op *op, unsigned k)
{
    bool bytes = op->io_operation == BLOCK_WRITE;
    struct mirror_data data = {0};
    struct mirror_message message = {
        .type = MIRROR_WRITE,
        .request = op->sequence,
        .argument = mirror_complete_sequence(m),
        .offset_bytes = op->io_offset,
        .length_bytes = op->io_length,
        .io_flags = op->io_flags,
        .operation = (uint8_t)op->io_operation,
        .dirty_mask = op->kind == OP_RESYNC || op->kind == OP_REPAIR || mirror_bug(m, MIRROR_BUG_NO_DIRTY)
                          ? 0
                          : (uint8_t)(m->places & ~m->config.isr),
    };
    if (bytes) {
        data = op->kind >= OP_RECONCILE ? op->buffer : op->data;
        if (op->kind == OP_COMPARE)
            data.offset += op->io_length; /* the write data follow the compare data */
    }
    mirror_send(m, k, &message, data, bytes ? (uint32_t)op->io_length : 0);
}

/* Does it have to be durable before it is acknowledged? With write-back only where the client says so, and for a comparison, on
 * which others rely. A resync needs it never: a barrier comes before the joiner counts, and till then its intent bits tell. */
static bool op_durable(const struct mirror *m, const struct mirror_op *op)
{
    if (op->kind == OP_RESYNC)
        return false;
    return !m->config.policy.write_back || op->kind == OP_COMPARE ||
           (op->kind == OP_WRITE && op->request && op->request->flags & BLOCK_FUA);
}

/* The write phase of any op: io_* say what. */
void op_write(struct mirror *m, struct mirror_op *op)
{
    uint8_t syncing = mirror_syncing_mask(m);
    op->phase = OP_WRITING;
    op->sequence = ++m->sequence;
    list_remove(&op->by_sequence);
    list_append(&m->by_sequence[op->sequence % SEQUENCE_BUCKETS], &op->by_sequence);
    op->issued_us = m->now;
    op->acked = op->errors = 0;
    op->merge_number = 0;
    op->io_flags = (op->io_flags & ~(uint32_t)BLOCK_FUA) | (op_durable(m, op) ? BLOCK_FUA : 0);
    if (op->kind == OP_RESYNC) {
        op->targets = op->need = op->joiners;
    } else if (op->kind == OP_REPAIR) {
        op->targets = op->need = op->repair & m->config.isr;
    } else {
        op->targets = m->config.isr | syncing;
        if (op->kind == OP_RECONCILE)
            op->targets &= (uint8_t)~(1u << op->read_from);
        op->need = counted_mask(m) & op->targets;
        for (unsigned k = 0; k < m->config.replica_count; k++)
            if (m->places >> k & 1 && !in_isr(m, k) && !mirror_bug(m, MIRROR_BUG_NO_DIRTY))
                for (uint32_t r = mirror_region(m, op->io_offset);
                     r <= mirror_region(m, op->io_offset + op->io_length - 1); r++)
                    bitmap_set(&m->dirty[k], r);
    }
    list_append(&m->issued, &op->issued);
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (op->targets >> k & 1 && member_attached(&m->members[k]) && !op->copying)
            op_send_write(m, op, k);
    op_check(m, op);
}

/* The range stays taken while a syncing member, which is not waited for, still has the write under way: a later one to the
 * same place must not overtake it on that member's disk. */
static void op_finish(struct mirror *m, struct mirror_op *op, int status)
{
    struct mirror_request *request = op->request;
    list_remove(&op->issued);
    if (!(op->io_flags & BLOCK_FUA))
        m->cached = true;
    if (op->kind >= OP_RECONCILE) {
        copy_written(m, op);
        return;
    }
    op->request = NULL;
    release(m, &op->data);
    release(m, &op->buffer);
    op->phase = OP_LINGER;
    if (request)
        mirror_answer(m, request, status);
    op_check(m, op);
}

/* I3: complete when every counted member has it durably. Called whenever an ack, an error or a configuration comes. */
void op_check(struct mirror *m, struct mirror_op *op)
{
    if (op->phase == OP_LINGER) {
        if (!(op->targets & ~(op->acked | op->errors)))
            op_free(m, op);
        return;
    }
    if (op->phase != OP_WRITING)
        return;
    uint8_t missing = op->need & ~op->acked;
    if (missing && mirror_bug(m, MIRROR_BUG_ACK_BEFORE_SHRINK) && (op->acked & op->need)) {
        for (unsigned k = 0; k < m->config.replica_count; k++)
            if (missing >> k & 1 && member_attached(&m->members[k]))
                return; /* the planted bug: those away are not waited for */
        missing = 0;
    }
    if (missing) {
        /* I10: the last member's error is the answer. */
        if ((op->errors & m->config.isr) == m->config.isr && !(m->config.isr & (m->config.isr - 1)) && !m->pending_grow &&
            op->kind != OP_RESYNC) {
            /* Some disk may hold it, and a mark may have failed with it: nobody is told that it is complete, so that all that
             * may hold it report its regions, until all are in sync again (I6). */
            if (m->config.isr != m->places && !mirror_bug(m, MIRROR_BUG_FAILED_COMPLETE))
                m->failed_sequence = m->failed_sequence ? MIN(m->failed_sequence, op->sequence) : op->sequence;
            for (unsigned k = 0; k < m->config.replica_count; k++)
                if (in_isr(m, k))
                    m->members[k].bad = false;
                else if (op->targets >> k & 1) /* a syncing member may have it, the source not: copy again */
                    for (uint32_t r = mirror_region(m, op->io_offset);
                         r <= mirror_region(m, op->io_offset + op->io_length - 1); r++)
                        bitmap_set(&m->members[k].todo, r);
            op_finish(m, op, -EIO);
        }
        return;
    }
    for (unsigned k = 0; op->merge_number && k < m->config.replica_count; k++)
        if (in_isr(m, k) && m->members[k].merge_acked < MIN(op->merge_number, m->members[k].merge_sent))
            return; /* I9 */
    op_finish(m, op, 0);
}

void mirror_check_all(struct mirror *m)
{
    list_foreach_safe(node, after, &m->active)
        op_check(m, list_entry(node, struct mirror_op, link));
}

void mirror_write_reply(struct mirror *m, unsigned k, const struct mirror_message *message)
{
    int status = (int)(int64_t)message->argument;
    struct mirror_op *op = NULL;
    struct list *bucket = &m->by_sequence[message->request % SEQUENCE_BUCKETS];
    list_foreach(node, bucket) {
        struct mirror_op *candidate = list_entry(node, struct mirror_op, by_sequence);
        if (candidate->sequence == message->request && candidate->phase >= OP_WRITING) {
            op = candidate;
            break;
        }
    }
    if (!op || !(op->targets >> k & 1))
        return;
    if (status == 0) {
        op->acked |= (uint8_t)(1u << k);
        op->errors &= (uint8_t)~(1u << k);
        op_check(m, op);
        return;
    }
    op->errors |= (uint8_t)(1u << k);
    if (in_isr(m, k)) {
        member_fail(m, k, MIRROR_ASK_MEMBER_ERROR);
        op_check(m, op);
    } else if (!(m->pending_grow >> k & 1)) {
        member_back_off(m, k, true);
        member_detach(m, k, MIRROR_MEMBER_AWAY);
    } /* being added: the grow commits, then it is dropped again */
}

/* ---- admission -------------------------------------------------------------------------------------------------- */

static void compare_start(struct mirror *m, struct mirror_op *op)
{
    struct mirror_data_operations *data = &m->parameters.data;
    if (!op->buffer.handle)
        op->buffer.handle = data->alloc(data->context, (uint32_t)op->io_length);
    if (!op->buffer.handle) {
        op->phase = OP_START;
        m->retry_us = MIN(m->retry_us, m->now + RETRY_US);
        return;
    }
    op_read(m, op, op->buffer);
}

/* The range is granted, or something that was missing may be there now. */
void op_run(struct mirror *m, struct mirror_op *op)
{
    op->phase = OP_START;
    switch (op->kind) {
    case OP_READ:
        op->io_length = op->range.offset_bytes + op->range.length_bytes - op->io_offset;
        op_read_step(op);
        op_read(m, op, read_to(op));
        break;
    case OP_WRITE:
        op_write(m, op);
        break;
    case OP_COMPARE:
        compare_start(m, op);
        break;
    default:
        copy_run(m, op);
    }
}

static void request_start(struct mirror *m, struct mirror_request *request)
{
    enum op_kind kind = request->operation == BLOCK_READ                ? OP_READ
                        : request->operation == BLOCK_COMPARE_AND_WRITE ? OP_COMPARE
                                                                        : OP_WRITE;
    struct mirror_op *op = op_new(m, kind, request->offset_bytes, request->length_bytes);
    ASSERT(op);
    op->request = request;
    op->data = request->data;
    op->io_operation = BLOCK_WRITE;
    if (request->operation == BLOCK_UNMAP || request->operation == BLOCK_WRITE_ZEROES) {
        /* The content after UNMAP must be the same everywhere: zeroes, with a hint. */
        op->io_operation = BLOCK_WRITE_ZEROES;
        op->io_flags = request->operation == BLOCK_UNMAP ? BLOCK_MAY_UNMAP : request->flags & BLOCK_MAY_UNMAP;
    }
    op_lock(m, op);
}

void mirror_pump(struct mirror *m)
{
    while (m->state == MIRROR_SERVING && !m->draining && !list_empty(&m->waiting)) {
        struct mirror_request *request = list_first(&m->waiting, struct mirror_request, link);
        if (request->operation == BLOCK_FLUSH) {
            list_remove(&request->link);
            mirror_flush_add(m, request);
            continue;
        }
        if (m->foreground >= m->parameters.requests_max)
            return;
        if (!mirror_reconcile_range(m, request->offset_bytes, request->length_bytes))
            return;
        list_remove(&request->link);
        request_start(m, request);
        mirror_run_ready(m);
    }
}

void mirror_expire(struct mirror *m)
{
    list_foreach_safe(node, after, &m->waiting) {
        struct mirror_request *request = list_entry(node, struct mirror_request, link);
        if (m->now < request->deadline_us)
            continue;
        list_remove(&request->link);
        release(m, &request->data);
        mirror_answer(m, request, -EAGAIN);
    }
    mirror_flush_expire(m);
    list_foreach_safe(node, after, &m->active) {
        struct mirror_op *op = list_entry(node, struct mirror_op, link);
        struct mirror_request *request = op->request;
        if (!request || m->now < request->deadline_us)
            continue;
        op->request = NULL;
        if (op->phase < OP_WRITING)
            op_free(m, op);
        /* A write stays under way until it is complete: its data are still needed, its outcome is unknown to the caller. */
        mirror_answer(m, request, -EAGAIN);
    }
    mirror_run_ready(m);
}
