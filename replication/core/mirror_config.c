/* What the owner does when the committed configuration changes.
 *
 * A new epoch, or another owner: everything starts anew from the members' own reports (SEAL). Within an epoch the version
 * counts, and a change is taken over while requests are served:
 *   a member leaves the in-sync set       -> member_dropped(): what it may lack is marked before anything completes (I3, I9)
 *   one comes into it                     -> member_grown() (I8)
 *   a place gets another disk, another node, or becomes empty -> place_changed() (I11)
 * Versions may be skipped: each is compared with the last one seen, so a place may have gone through several occupants. None
 * of those in between was ever in sync: that takes this owner's own asking, for a version it has seen. */
#include "replication/core/mirror_internal.h"
#include <errno.h>
#include <string.h>

/* Bits of the places that hold a replica. */
static uint8_t places_of(const struct mirror_config *config)
{
    uint8_t mask = 0;
    for (unsigned k = 0; k < config->replica_count; k++)
        if (config->replicas[k].nodeid)
            mask |= (uint8_t)(1u << k);
    return mask;
}

/* A member as if it had never been heard of, but for what is known of links. */
static void member_init(struct mirror *m, unsigned k, uint16_t nodeid, uint64_t incarnation)
{
    struct member *member = &m->members[k];
    struct bitmap carry = member->carry, todo = member->todo, cold = member->cold;
    memset(member, 0, sizeof(*member));
    member->carry = carry;
    member->todo = todo;
    member->cold = cold;
    member_cold_clear(m, k);
    bitmap_zero(&member->carry);
    bitmap_zero(&member->todo);
    member->nodeid = nodeid;
    member->incarnation = incarnation;
    if (m->self == (int)k)
        m->self = -1;
    if (nodeid == 0)
        return;
    if (nodeid == m->parameters.nodeid) {
        m->self = (int)k;
        member->link_up = true;
        member->boot = m->parameters.boot;
        return;
    }
    for (unsigned i = 0; i < m->link_count; i++)
        if (m->links[i].nodeid == nodeid) {
            member->link_up = m->links[i].boot != 0;
            member->boot = m->links[i].boot;
        }
}

static void members_set(struct mirror *m, const struct mirror_config *config)
{
    m->self = -1;
    for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++) {
        bool used = k < config->replica_count;
        member_init(m, k, used ? config->replicas[k].nodeid : 0, used ? config->replicas[k].incarnation : 0);
    }
}

/* Between epochs: nothing is under way, and all that is known of regions comes anew with the seals. */
static void mirror_resize(struct mirror *m, uint64_t size_bytes)
{
    struct mirror_parameters *p = &m->parameters;
    if (size_bytes <= p->size_bytes)
        return;
    p->size_bytes = size_bytes;
    p->region_bytes = metadata_region_bytes(size_bytes);
    m->regions = metadata_regions_of(size_bytes);
    struct bitmap *maps[2 + 3 * MIRROR_REPLICAS_MAX];
    unsigned count = 0;
    maps[count++] = &m->unreconciled;
    maps[count++] = &m->scratch;
    for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++) {
        maps[count++] = &m->dirty[k];
        maps[count++] = &m->members[k].carry;
        maps[count++] = &m->members[k].todo;
        bitmap_done(&m->members[k].cold); /* made anew when first needed */
        memset(&m->members[k].cold, 0, sizeof(m->members[k].cold));
    }
    for (unsigned i = 0; i < count; i++) {
        bitmap_done(maps[i]);
        ASSERT(bitmap_init(maps[i], m->regions) == 0); /* 14 times 128 KiB at most */
    }
    for (unsigned i = 0; i < BLOBS_MAX; i++) {
        free(m->blobs[i]);
        m->blobs[i] = NULL;
    }
}

static void mirror_start(struct mirror *m)
{
    m->state = MIRROR_SEALING;
    m->sealing_since_us = m->now;
    m->mismatch = 0;
    m->sequence++; /* nothing of an earlier epoch is taken for ours */
    bitmap_zero(&m->unreconciled);
    m->asked_isr = 0;
    m->failed_sequence = 0;
    m->reconcile_retry_us = 0;
    m->cached = true; /* an earlier owner's writes may not be flushed */
    m->cache_lost = false;
    m->confirm_asked = m->confirm_wanted = 0; /* answers to an earlier epoch's questions are dropped */
    for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++)
        bitmap_zero(&m->dirty[k]);
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        m->members[k].accepted = false;
        m->members[k].away_since_us = m->now;
        if (m->members[k].link_up)
            member_seal(m, k);
    }
}

/* ---- configuration ---------------------------------------------------------------------------------------------- */

/* k left the ISR. What it may lack is marked on every remaining member before anything of it is acknowledged (I3, I9). */
static void member_dropped(struct mirror *m, unsigned k)
{
    struct member *member = &m->members[k];
    uint8_t bit = (uint8_t)(1u << k);
    if (mirror_active(m) && !mirror_bug(m, MIRROR_BUG_NO_DIRTY)) {
        bitmap_copy(&m->scratch, &m->unreconciled);
        list_foreach(node, &m->issued) {
            const struct mirror_op *op = list_entry(node, struct mirror_op, issued);
            if (op->targets & bit && !(op->acked & bit))
                for (uint32_t r = mirror_region(m, op->io_offset);
                     r <= mirror_region(m, op->io_offset + op->io_length - 1); r++)
                    bitmap_set(&m->scratch, r);
        }
        mirror_repair_dropped(m, k, &m->scratch);
        bitmap_or(&m->dirty[k], &m->scratch);
        if (m->scratch.set)
            mirror_merge_all(m, k, &m->scratch);
        list_foreach(node, &m->issued) {
            struct mirror_op *op = list_entry(node, struct mirror_op, issued);
            if (op->targets & bit && !(op->acked & bit))
                op->merge_number = m->merge_number;
        }
    }
    member_back_off(m, k, member->bad && member->bad_reason != MIRROR_ASK_MEMBER_AWAY &&
                              member->bad_reason != MIRROR_ASK_MEMBER_COLD);
    member_cold_clear(m, k);
    member->bad = false;
    member_detach(m, k, member->state == MIRROR_MEMBER_REFUSED ? MIRROR_MEMBER_REFUSED : MIRROR_MEMBER_AWAY);
}

static void member_grown(struct mirror *m, unsigned k, bool was_pending)
{
    struct member *member = &m->members[k];
    member->bad = false;
    member->retry_us = 0;
    member->in_sync_since_us = m->now;
    member->barrier = 0;
    member_cold_clear(m, k);
    bitmap_zero(&m->dirty[k]);
    if (m->state == MIRROR_SEALING || !was_pending) {
        /* Not by our own resync: it must attach as a member does. */
        member_detach(m, k, MIRROR_MEMBER_AWAY);
        member->away_since_us = m->now;
        if (member->link_up)
            member_seal(m, k);
        return;
    }
    if (member->state == MIRROR_MEMBER_SYNCING)
        member->state = MIRROR_MEMBER_ATTACHED;
    if (!member_attached(member))
        member->away_since_us = m->now;
    list_foreach(node, &m->issued)
        if (list_entry(node, struct mirror_op, issued)->errors >> k & 1)
            member_fail(m, k, MIRROR_ASK_MEMBER_ERROR);
    mirror_keep_all(m, k, &m->dirty[k]);
    bitmap_zero(&m->scratch);
    for (unsigned j = 0; j < m->config.replica_count && member_attached(member); j++)
        if (in_isr(m, j) && j != k)
            member_send_bitmap(m, k, j, MIRROR_BITMAP_KEEP, mirror_blob(m, &m->scratch));
}

/* The place k has another occupant now (nodeid 0: none), outside the in-sync set. The former one is forgotten: nothing of it is
 * waited for. The marks so far say nothing about the new one, which is copied in full (I11). */
static void place_changed(struct mirror *m, unsigned k)
{
    uint16_t nodeid = m->config.replicas[k].nodeid;
    uint8_t bit = (uint8_t)(1u << k);
    member_detach(m, k, MIRROR_MEMBER_AWAY);
    list_foreach(node, &m->active) {
        struct mirror_op *op = list_entry(node, struct mirror_op, link);
        op->targets &= (uint8_t)~bit; /* also where it would be waited for: it may have been in sync until now */
        op->need &= (uint8_t)~bit;
        op->acked &= (uint8_t)~bit;
        op->errors &= (uint8_t)~bit;
        op->read_tried &= (uint8_t)~bit;
    }
    member_init(m, k, nodeid, nodeid ? m->config.replicas[k].incarnation : 0);
    bitmap_zero(&m->dirty[k]);
    m->mismatch &= (uint8_t)~bit;
    if (nodeid == 0)
        return;
    if (mirror_active(m)) {
        if (!mirror_bug(m, MIRROR_BUG_TRUST_NEW_PLACE))
            bitmap_fill(&m->dirty[k]);
        mirror_merge_all(m, k, &m->dirty[k]);
    } else {
        m->mismatch |= bit; /* filled and merged when all are sealed */
    }
    m->members[k].away_since_us = m->now;
    if (m->members[k].link_up)
        member_seal(m, k);
}

/* k was to be added, and is not: it does not count any more. A write that it failed completes without it now, so it must not
 * be taken for caught up: it starts anew from its dirty marks, which have that write (I8). */
static void grow_refused(struct mirror *m, unsigned k)
{
    bool failed = false;
    list_foreach(node, &m->issued)
        failed |= list_entry(node, struct mirror_op, issued)->errors >> k & 1;
    if (failed && member_attached(&m->members[k]) && !mirror_bug(m, MIRROR_BUG_TRUST_JOINER)) {
        member_back_off(m, k, true);
        member_detach(m, k, MIRROR_MEMBER_AWAY);
    } else if (!member_attached(&m->members[k])) {
        member_detach(m, k, m->members[k].state); /* forget what it owes */
    }
}

static void config_changed(struct mirror *m, const struct mirror_config *config)
{
    uint8_t dropped = m->config.isr & ~config->isr, grown = config->isr & ~m->config.isr, pending = m->pending_grow;
    uint8_t other = 0; /* places with another occupant */
    m->config = *config;
    m->places = places_of(config);
    resync_throttle_set(&m->throttle, config->policy.resync_floor, config->policy.resync_cap);
    m->pending_grow = 0; /* decided, one way or the other: the version has moved on */
    m->asked_isr = 0;
    for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++) {
        bool used = m->places >> k & 1;
        if ((used ? config->replicas[k].nodeid : 0) != m->members[k].nodeid ||
            (used && config->replicas[k].incarnation != m->members[k].incarnation))
            other |= (uint8_t)(1u << k);
    }
    for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++) {
        if (dropped >> k & 1 && !(other >> k & 1))
            member_dropped(m, k);
        if (other >> k & 1)
            place_changed(m, k);
        if (grown >> k & 1)
            member_grown(m, k, ((pending & ~other) >> k & 1) || mirror_bug(m, MIRROR_BUG_EARLY_GROW));
    }
    for (unsigned k = 0; k < config->replica_count; k++)
        if ((pending & ~config->isr & ~other) >> k & 1)
            grow_refused(m, k);
    list_foreach(node, &m->issued) {
        struct mirror_op *op = list_entry(node, struct mirror_op, issued);
        if (op->kind != OP_RESYNC)
            op->need = (op->need & counted_mask(m)) | (op->targets & counted_mask(m));
    }
    if (m->config.isr == m->places)
        m->failed_sequence = 0; /* each was copied to the others */
    mirror_flush_forget(m, (uint8_t)~counted_mask(m));
    mirror_activate(m);
    mirror_check_all(m);
    mirror_check_readers(m); /* fewer may have to confirm */
}

void mirror_on_config(struct mirror *m, const struct mirror_config *config)
{
    if (config->epoch < m->config.epoch ||
        (config->epoch == m->config.epoch && config->isr_version <= m->config.isr_version))
        return;
    if (config->isr == 0 || config->replica_count == 0 || config->replica_count > MIRROR_REPLICAS_MAX ||
        config->isr & ~places_of(config))
        return; /* no such thing is ever committed (I10) */
    bool ours = config->owner == m->parameters.nodeid;
    if (m->state != MIRROR_IDLE && ours && config->epoch == m->config.epoch) {
        config_changed(m, config);
        return;
    }
    bool again = ours && config->epoch > m->config.epoch && config->epoch > m->fenced_epoch;
    if (m->state != MIRROR_IDLE)
        mirror_stop(m, again ? 0 : -ESTALE);
    mirror_resize(m, config->size_bytes);
    members_set(m, config);
    m->config = *config;
    m->places = places_of(config);
    resync_throttle_set(&m->throttle, config->policy.resync_floor, config->policy.resync_cap);
    if (ours && config->epoch > m->fenced_epoch)
        mirror_start(m);
}
