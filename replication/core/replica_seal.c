/* SEAL and its answer: taking part in the activation of an owner (I2, I6, I7).
 * SEAL -> tell the old owner (FENCED) -> promise run out, disk quiet -> header durable -> SEAL_REPLY. */
#include "replication/core/replica_internal.h"
#include <errno.h>

static void seal_refuse(struct replica *r, uint16_t from, const struct mirror_message *m, int status,
                        struct mirror_effects *out)
{
    struct mirror_message reply = {.type = MIRROR_SEAL_REPLY, .epoch = m->epoch, .request = m->request,
                                   .argument = (uint64_t)(int64_t)status, .boot = m->boot, .attach = m->attach,
                                   .incarnation = r->header.incarnation, .regions = r->regions};
    replica_send(r, from, &reply, (struct mirror_data){0}, 0, out);
}

static void seal_answer(struct replica *r, struct mirror_effects *out)
{
    const struct mirror_message *m = &r->pending_seal;
    uint32_t one = bitmap_bytes(r->regions);
    struct mirror_message reply = {.type = MIRROR_SEAL_REPLY, .epoch = m->epoch, .request = m->request, .boot = m->boot,
                                   .attach = m->attach, .regions = r->regions,
                                   .incarnation = replica_bug(r, REPLICA_BUG_ANY_DISK) ? m->incarnation : r->header.incarnation,
                                   .flags = r->pending_continued ? MIRROR_SEAL_CONTINUED : 0};
    if (!r->blob)
        r->blob = calloc(METADATA_BITMAPS, one);
    if (!r->blob) {
        seal_refuse(r, r->pending_from, m, -EIO, out);
        return;
    }
    /* I6: whatever may not be complete everywhere. */
    bitmap_copy(&r->scratch, &r->carry);
    bitmap_or(&r->scratch, &r->hot);
    bitmap_or(&r->scratch, &r->hot_before);
    for (unsigned i = 0; i < METADATA_BITMAPS; i++) {
        const struct bitmap *map = i == 0 ? &r->scratch : &r->maps[i];
        if (i >= SLOT_DIRTY && i < SLOT_DIRTY + MIRROR_REPLICAS_MAX)
            reply.dirty_incarnation[i - SLOT_DIRTY] = r->header.dirty_incarnation[i - SLOT_DIRTY];
        if (!map->set)
            continue;
        bitmap_encode(map, r->blob + reply.blob_bytes);
        reply.bitmaps |= (uint8_t)(1u << i);
        reply.blob_bytes += one;
    }
    reply.blob = r->blob;
    replica_send(r, r->pending_from, &reply, (struct mirror_data){0}, 0, out);
}

/* May the old owner still answer reads on our word? */
static bool promise_holds(const struct replica *r, uint64_t now_us)
{
    uint16_t old = r->header.sealed_owner;
    if (r->pending_seal.epoch == r->header.sealed_epoch || old == 0 || old == r->pending_from || r->promise.released ||
        replica_bug(r, REPLICA_BUG_NO_PROMISE))
        return false;
    if (old == r->parameters.nodeid)
        return true; /* our own mirror: no lease, its word (RELEASE) */
    return now_us < lease_promise_until(&r->promise);
}

void replica_seal_advance(struct replica *r, uint64_t now_us, struct mirror_effects *out)
{
    const struct mirror_message *m = &r->pending_seal;
    if (!r->pending)
        return;
    if (replica_out(r)) {
        seal_refuse(r, r->pending_from, m, -EIO, out);
        r->pending = false;
        return;
    }
    if (!r->pending_saved) {
        if (promise_holds(r, now_us) || !replica_disk_quiet(r))
            return;
        bool grow = m->size_bytes > r->header.size_bytes;
        if (grow && (r->batch_busy || !list_empty(&r->active))) /* (a flush or barrier) */
            return; /* the file is replaced as a whole: nothing else is on its way to it */
        if (m->epoch != r->header.sealed_epoch || m->boot != r->header.sealed_boot) {
            r->header.sealed_epoch = m->epoch;
            r->header.sealed_owner = r->pending_from;
            r->header.sealed_boot = m->boot;
            r->promise.released = true; /* nobody can hold a lease of ours until we answer */
            replica_touch_header(r);
        }
        if (grow)
            replica_grow(r, m->size_bytes, out);
        /* Also waits for marks set before: the owner takes what is reported as durable. */
        r->pending_ticket = r->change;
        r->pending_saved = true;
    }
    if (r->durable < r->pending_ticket)
        return;
    seal_answer(r, out);
    r->pending = false;
    r->attached = true;
    r->boot = m->boot;
    r->instance = m->instance;
    r->attach = m->attach;
    r->last_sequence = 0;
    if (!r->pending_continued)
        r->complete = r->max_sequence = r->turn_sequence = 0;
    replica_note_complete(r, m->argument);
    r->promise = (struct lease_promise){.answered_us = now_us};
}

int replica_on_seal(struct replica *r, uint16_t from, const struct mirror_message *m, uint64_t now_us,
                    struct mirror_effects *out)
{
    const struct link_state *link = replica_link_find(r, from, false);
    uint64_t peer_boot = from == r->parameters.nodeid ? r->parameters.boot : link ? link->boot : 0;
    if (m->boot != peer_boot)
        return 0; /* left over from an earlier life of that node */
    if (m->epoch < replica_floor_epoch(r)) {
        replica_send_fenced(r, from, replica_floor_epoch(r), out); /* I2 */
        return 0;
    }
    if (m->epoch == 0 || (r->header.sealed_epoch == m->epoch && r->header.sealed_owner != from) ||
        (r->pending && r->pending_seal.epoch == m->epoch && r->pending_from != from))
        return -EPROTO; /* I1: one owner per epoch */
    bool same_disk = m->incarnation == r->header.incarnation || replica_bug(r, REPLICA_BUG_ANY_DISK);
    if (!same_disk || m->replica_index != r->header.replica_index || m->size_bytes < r->header.size_bytes) {
        seal_refuse(r, from, m, -ENODEV, out); /* I11 */
        return 0;
    }
    if (m->regions != metadata_regions_of(m->size_bytes))
        return -EPROTO;
    if (r->parameters.data_bytes && m->size_bytes > r->parameters.data_bytes) {
        seal_refuse(r, from, m, -EAGAIN, out); /* it has grown, and our files not yet */
        return 0;
    }
    bool same_boot = m->epoch == r->header.sealed_epoch && m->boot == r->boot;
    if ((same_boot && m->attach <= r->attach) ||
        (r->pending && m->epoch == r->pending_seal.epoch && m->boot == r->pending_seal.boot &&
         m->attach <= r->pending_seal.attach))
        return 0; /* overtaken by a later attachment */
    uint16_t old = r->header.sealed_owner;
    if (m->epoch > replica_floor_epoch(r) && old != 0 && old != from &&
        !(old == r->parameters.nodeid && r->header.sealed_boot != r->parameters.boot))
        replica_send_fenced(r, old, m->epoch, out); /* before any later heartbeat answer on the same link (I7) */
    r->pending_continued = same_boot && m->instance == r->instance;
    if (!r->pending_continued) {
        bitmap_or(&r->carry, &r->hot);
        bitmap_or(&r->carry, &r->hot_before);
        bitmap_zero(&r->hot);
        bitmap_zero(&r->hot_before);
    }
    operations_orphan(r, out);
    r->attached = false;
    r->pending = true;
    r->pending_saved = false;
    r->pending_from = from;
    r->pending_seal = *m;
    r->pending_seal.blob = NULL;
    replica_seal_advance(r, now_us, out);
    return 0;
}
