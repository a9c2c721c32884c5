/* Volatile caches at a member (I5): flushes of the owner, barriers before intent bits go, and what a machine that lost its
 * power has to tell.
 *
 * Invariant: each write that is done here and not durable lies in a region whose intent bit is durable. An intent bit is set
 * durably before the write starts and cleared only after a barrier that began when no write to its region was under way here
 * and all of them were complete everywhere; a write that comes meanwhile keeps its bit.
 * Happy path of a flush: FLUSH -> the writes before it are done -> DISK_FLUSH -> FLUSH_REPLY.
 * A flush that fails takes this replica out of service; it is never tried again (I12). What it may have lost is marked cold, so
 * that it is no source for the others after a restart either. */
#include "replication/core/replica_internal.h"
#include <errno.h>

/* ---- the machine ------------------------------------------------------------------------------------------------ */

/* At start. Another machine boot than the one under which cached writes were made: those of regions with intent may be gone. The
 * cold marks are durable before the header says that we know this boot, so that a crash in between loses nothing. */
void replica_machine_check(struct replica *r, uint32_t damaged_cold_pages)
{
    struct bitmap *cold = &r->maps[SLOT_COLD];
    const struct bitmap *intent = &r->maps[SLOT_INTENT];
    bitmap_and(cold, intent); /* a damaged page reads as all ones; only what has intent can be cold */
    if (damaged_cold_pages)
        for (uint32_t page = 0; page < r->pages; page++)
            r->page_states[SLOT_COLD * r->pages + page].first_unsaved = r->page_states[SLOT_COLD * r->pages + page].last_set =
                ++r->change;
    r->cached = intent->set > 0; /* of an earlier process, which may have ended in the middle of a write */
    if (uuid_equal(&r->header.machine, &r->parameters.machine))
        return;
    if (r->header.cached && !replica_bug(r, REPLICA_BUG_NEVER_COLD))
        for (uint32_t b = bitmap_next(intent, 0); b != BITMAP_NONE; b = bitmap_next(intent, b + 1))
            (void)replica_mark(r, SLOT_COLD, b);
    r->machine_new = true;
    r->machine_ticket = r->change;
}

void replica_machine_advance(struct replica *r)
{
    if (!r->machine_new || r->durable < r->machine_ticket)
        return;
    r->machine_new = false;
    r->header.machine = r->parameters.machine;
    (void)replica_touch_header(r);
}

uint64_t replica_note_cached(struct replica *r)
{
    if (!r->header.cached) {
        r->header.cached = true;
        r->cached_ticket = replica_touch_header(r);
    }
    return r->cached_ticket;
}

/* ---- flushes of the owner --------------------------------------------------------------------------------------- */

void replica_on_flush(struct replica *r, uint16_t from, const struct mirror_message *m, struct mirror_effects *out)
{
    struct mirror_data none = {0};
    struct operation *op = replica_out(r) ? NULL : operation_new(r, OPERATION_FLUSH, from, m, none);
    if (!op) {
        replica_reply(r, from, m, MIRROR_FLUSH_REPLY, replica_out(r) ? -EIO : -ENOBUFS, none, 0, out);
        return;
    }
    op->state = OPERATION_WAIT_WRITES;
    r->flushes_waiting++;
}

/* Start those that no earlier write is before: operations are listed in the order in which they came. */
void replica_flush_advance(struct replica *r, struct mirror_effects *out)
{
    if (!r->flushes_waiting)
        return;
    list_foreach_safe(node, after, &r->active) {
        struct operation *op = list_entry(node, struct operation, link);
        if (op->kind == OPERATION_WRITE)
            return;
        if (op->state != OPERATION_WAIT_WRITES)
            continue;
        r->flushes_waiting--;
        if (replica_out(r)) {
            operation_answer(r, op, -EIO, out);
            operation_free(r, op, out);
            continue;
        }
        operation_disk(op, out);
    }
}

void replica_flush_failed(struct replica *r)
{
    const struct bitmap *intent = &r->maps[SLOT_INTENT];
    r->flush_failed = true;
    bitmap_or(&r->carry, intent);
    for (uint32_t b = bitmap_next(intent, 0); b != BITMAP_NONE; b = bitmap_next(intent, b + 1))
        (void)replica_mark(r, SLOT_COLD, b);
}

/* ---- clearing intent bits ------------------------------------------------------------------------------------------ */

static void cleared(struct replica *r, const struct bitmap *which)
{
    for (uint32_t b = bitmap_next(which, 0); b != BITMAP_NONE; b = bitmap_next(which, b + 1))
        replica_unmark(r, SLOT_INTENT, b);
    if (r->header.cached && r->maps[SLOT_INTENT].set == 0) {
        r->header.cached = false;
        (void)replica_touch_header(r);
    }
}

/* Regions that have been idle since the last look, complete everywhere and without a write under way here. */
static void find_idle(struct replica *r, struct bitmap *ret_idle)
{
    bitmap_or(&r->recent, &r->hot);
    bitmap_or(&r->recent, &r->hot_before);
    bitmap_or(&r->recent, &r->carry);
    list_foreach(node, &r->active) {
        const struct operation *op = list_entry(node, struct operation, link);
        if (op->kind != OPERATION_WRITE)
            continue;
        uint64_t last = op->message.offset_bytes + op->message.length_bytes - 1;
        for (uint64_t region = op->message.offset_bytes / r->header.region_bytes; region <= last / r->header.region_bytes; region++)
            bitmap_set(&r->recent, (uint32_t)region);
    }
    bitmap_zero(ret_idle);
    const struct bitmap *intent = &r->maps[SLOT_INTENT];
    for (uint32_t b = bitmap_next(intent, 0); b != BITMAP_NONE; b = bitmap_next(intent, b + 1))
        if (!bitmap_test(&r->recent, b))
            bitmap_set(ret_idle, b);
    bitmap_zero(&r->recent);
}

void replica_intent_clear(struct replica *r, struct mirror_effects *out)
{
    struct mirror_message none = {0};
    if (r->barrier_busy || replica_out(r))
        return;
    find_idle(r, &r->clearing);
    if (!r->clearing.set)
        return;
    if (!(r->cached || r->parameters.barrier) || replica_bug(r, REPLICA_BUG_NO_BARRIER)) {
        cleared(r, &r->clearing); /* each of them was durable when it was acknowledged */
        return;
    }
    struct operation *op = operation_new(r, OPERATION_BARRIER, 0, &none, (struct mirror_data){0});
    if (!op)
        return; /* the next turn */
    op->orphan = true; /* nobody is waiting for it */
    r->barrier_busy = true;
    r->cached = false; /* set again by whatever is done from now on */
    operation_disk(op, out);
}

void replica_barrier_done(struct replica *r, int status)
{
    r->barrier_busy = false;
    if (status == 0) {
        cleared(r, &r->clearing);
        return;
    }
    r->cached = true;
    if (status != -EAGAIN && status != -ECANCELED && !replica_bug(r, REPLICA_BUG_FLUSH_ERROR))
        replica_flush_failed(r);
}
