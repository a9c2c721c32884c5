/* What an attached owner asks for: writes, reads, dirty marks.
 * A write: WRITE -> mark regions -> (WAIT_META until durable) -> DISK -> WRITE_REPLY. */
#include "replication/core/replica_internal.h"
#include <errno.h>

/* Mark what a write touches; sets op->ticket. */
static void write_mark(struct replica *r, struct operation *op)
{
    const struct mirror_message *m = &op->message;
    uint32_t first = (uint32_t)(m->offset_bytes / r->header.region_bytes);
    uint32_t last = (uint32_t)((m->offset_bytes + m->length_bytes - 1) / r->header.region_bytes);
    if (!(m->io_flags & BLOCK_FUA))
        op->ticket = replica_note_cached(r);
    for (uint32_t region = first; region <= last; region++) {
        if (r->barrier_busy)
            bitmap_clear(&r->clearing, region);
        bitmap_set(&r->hot, region);
        bitmap_set(&r->recent, region);
        if (!replica_bug(r, REPLICA_BUG_NO_INTENT))
            op->ticket = MAX(op->ticket, replica_mark_intent(r, region));
        for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++)
            if (m->dirty_mask >> k & 1 && k != r->header.replica_index) {
                uint64_t ticket = replica_mark(r, SLOT_DIRTY + k, region);
                if (!replica_bug(r, REPLICA_BUG_VOLATILE_DIRTY))
                    op->ticket = MAX(op->ticket, ticket); /* I9 */
            }
    }
}

void replica_on_write(struct replica *r, uint16_t from, const struct mirror_message *m, struct mirror_data data,
                      struct mirror_effects *out)
{
    struct mirror_data none = {0};
    if (m->request <= r->last_sequence && m->epoch == r->header.sealed_epoch) {
        replica_release(data, out); /* a duplicate within this attachment */
        return;
    }
    if (m->epoch == r->header.sealed_epoch)
        r->last_sequence = m->request;
    r->max_sequence = MAX(r->max_sequence, m->request);
    replica_note_complete(r, m->argument);
    struct operation *op = NULL;
    int refuse = 0;
    if (replica_out(r))
        refuse = -EIO;
    else if (m->offset_bytes + m->length_bytes > r->header.size_bytes)
        refuse = -EPROTO;
    else if (!(op = operation_new(r, OPERATION_WRITE, from, m, data)))
        refuse = -ENOBUFS;
    if (refuse) {
        replica_reply(r, from, m, MIRROR_WRITE_REPLY, refuse, none, 0, out);
        replica_release(data, out);
        return;
    }
    write_mark(r, op);
    operation_advance(r, op, out);
}

/* After a failed flush: what the disk shows here may be older than what was acknowledged (I12). */
static bool lost(const struct replica *r, const struct mirror_message *m)
{
    uint64_t last = (m->offset_bytes + m->length_bytes - 1) / r->header.region_bytes;
    for (uint64_t region = m->offset_bytes / r->header.region_bytes; r->flush_failed && region <= last; region++)
        if (bitmap_test(&r->maps[SLOT_COLD], (uint32_t)region))
            return true;
    return false;
}

/* From an in-sync member, at the owner's word: a write in our session with the owner, which gets the answer. These come in any
 * order among the owner's own writes; the owner lets nothing else into their range meanwhile. */
void replica_on_copied(struct replica *r, const struct mirror_message *m, struct mirror_data data, struct mirror_effects *out)
{
    struct mirror_message write = *m;
    uint64_t last = r->last_sequence;
    if (!r->attached || m->epoch != r->header.sealed_epoch || m->boot != r->boot || m->attach != r->attach) {
        replica_release(data, out); /* of an earlier session: what it copies may be old by now */
        return;
    }
    write.type = MIRROR_WRITE;
    write.argument = 0;
    r->last_sequence = 0; /* no duplicate: each is sent once, by one */
    replica_on_write(r, r->header.sealed_owner, &write, data, out);
    r->last_sequence = last;
}

/* Read at COPY's word: on to the joiner. Not when our own session has ended meanwhile: the owner does not count on it then. */
void operation_copied(struct replica *r, const struct operation *op, int status, struct mirror_effects *out)
{
    const struct mirror_message *m = &op->message;
    const struct link_state *link = replica_link_find(r, m->joiner, false);
    struct mirror_data none = {0};
    if (op->orphan)
        return;
    if (status == 0 && (!link || !link->boot))
        status = -ENOTCONN;
    if (status < 0) {
        replica_reply(r, op->from, m, MIRROR_COPY_REPLY, status, none, 0, out);
        return;
    }
    bool zero = r->parameters.zero && r->parameters.zero(r->parameters.zero_context, op->data, m->length_bytes);
    struct mirror_message copied = {.type = MIRROR_COPIED, .epoch = m->epoch, .request = m->argument, .boot = m->boot,
                                    .attach = m->joiner_attach, .offset_bytes = m->offset_bytes,
                                    .length_bytes = m->length_bytes, .io_flags = BLOCK_MAY_UNMAP,
                                    .operation = zero ? BLOCK_WRITE_ZEROES : BLOCK_WRITE};
    replica_send(r, m->joiner, &copied, zero ? none : op->data, zero ? 0 : (uint32_t)m->length_bytes, out);
}

/* READ, DIGEST and COPY. */
void replica_on_read(struct replica *r, uint16_t from, const struct mirror_message *m, struct mirror_data data,
                     struct mirror_effects *out)
{
    struct mirror_data none = {0};
    struct operation *op = NULL;
    enum operation_kind kind = m->type == MIRROR_READ     ? OPERATION_READ
                               : m->type == MIRROR_DIGEST ? OPERATION_DIGEST
                                                          : OPERATION_COPY;
    int refuse = m->offset_bytes + m->length_bytes > r->header.size_bytes ? -EPROTO
                 : lost(r, m)                                             ? -EIO
                 : !(op = operation_new(r, kind, from, m, data))          ? -ENOBUFS
                                                                          : 0;
    if (refuse) {
        replica_reply(r, from, m, (uint16_t)(m->type + 1), refuse, none, 0, out);
        replica_release(data, out);
        return;
    }
    operation_disk(op, out);
}

int replica_on_bitmap(struct replica *r, uint16_t from, const struct mirror_message *m, struct mirror_effects *out)
{
    unsigned slot = SLOT_DIRTY + m->replica_index;
    uint64_t ticket = 0;
    struct mirror_data none = {0};
    if (m->regions != r->regions)
        return -EPROTO;
    struct operation *op = replica_out(r) ? NULL : operation_new(r, OPERATION_BITMAP, from, m, none);
    if (!op) {
        replica_reply(r, from, m, MIRROR_BITMAP_REPLY, replica_out(r) ? -EIO : -ENOBUFS, none, 0, out);
        return 0;
    }
    bitmap_decode(&r->scratch, m->blob);
    if (m->action == MIRROR_BITMAP_MERGE) {
        if (r->header.dirty_incarnation[m->replica_index] != m->incarnation)
            bitmap_fill(&r->scratch); /* marks of another disk say nothing about this one (I11) */
        for (uint32_t b = bitmap_next(&r->scratch, 0); b != BITMAP_NONE; b = bitmap_next(&r->scratch, b + 1))
            ticket = MAX(ticket, replica_mark(r, slot, b));
    } else {
        for (uint32_t b = bitmap_next(&r->maps[slot], 0); b != BITMAP_NONE; b = bitmap_next(&r->maps[slot], b + 1))
            if (!bitmap_test(&r->scratch, b))
                replica_unmark(r, slot, b);
    }
    if (r->header.dirty_incarnation[m->replica_index] != m->incarnation) {
        r->header.dirty_incarnation[m->replica_index] = m->incarnation;
        ticket = MAX(ticket, replica_touch_header(r));
    }
    op->ticket = replica_bug(r, REPLICA_BUG_VOLATILE_DIRTY) ? 0 : ticket;
    operation_advance(r, op, out);
    return 0;
}

void replica_on_release(struct replica *r, uint16_t from, const struct mirror_message *m)
{
    if (from == r->header.sealed_owner && m->epoch >= r->header.sealed_epoch && m->boot == r->header.sealed_boot &&
        !r->pending_saved)
        r->promise.released = true;
}
