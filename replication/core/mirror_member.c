/* Attaching members: SEAL and its answer, dirty bitmaps, activation. */
#include "replication/core/mirror_internal.h"
#include <errno.h>
#include <string.h>

#define COLD_RETRY_US 100000u

uint8_t mirror_syncing_mask(const struct mirror *m)
{
    uint8_t mask = m->pending_grow;
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (m->members[k].state == MIRROR_MEMBER_SYNCING)
            mask |= (uint8_t)(1u << k);
    return mask;
}

const uint8_t *mirror_blob(struct mirror *m, const struct bitmap *map)
{
    ASSERT(m->blobs_used < BLOBS_MAX);
    uint8_t **blob = &m->blobs[m->blobs_used++];
    if (!*blob)
        *blob = malloc(bitmap_bytes(m->regions));
    ASSERT(*blob);
    bitmap_encode(map, *blob);
    return *blob;
}

void member_send_bitmap(struct mirror *m, unsigned k, unsigned about, uint8_t action, const uint8_t *blob)
{
    struct mirror_message message = {.type = MIRROR_BITMAP, .request = ++m->merge_number, .regions = m->regions,
                                     .incarnation = m->members[about].incarnation, .replica_index = (uint8_t)about,
                                     .action = action, .blob = blob, .blob_bytes = bitmap_bytes(m->regions)};
    m->members[k].merge_sent = m->merge_number;
    mirror_send(m, k, &message, (struct mirror_data){0}, 0);
}

void mirror_merge_all(struct mirror *m, unsigned about, const struct bitmap *map)
{
    const uint8_t *blob = NULL;
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        if (k == about || !member_attached(&m->members[k]) ||
            !(in_isr(m, k) || m->members[k].state == MIRROR_MEMBER_SYNCING))
            continue;
        if (!blob)
            blob = mirror_blob(m, map);
        member_send_bitmap(m, k, about, MIRROR_BITMAP_MERGE, blob);
    }
}

void mirror_keep_all(struct mirror *m, unsigned about, const struct bitmap *map)
{
    const uint8_t *blob = NULL;
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        if (k == about || !member_attached(&m->members[k]) || !in_isr(m, k))
            continue;
        if (!blob)
            blob = mirror_blob(m, map);
        member_send_bitmap(m, k, about, MIRROR_BITMAP_KEEP, blob);
    }
}

void member_seal(struct mirror *m, unsigned k)
{
    struct member *member = &m->members[k];
    struct mirror_message message = {.type = MIRROR_SEAL, .argument = mirror_complete_sequence(m),
                                     .instance = m->instance, .incarnation = member->incarnation, .regions = m->regions,
                                     .size_bytes = m->parameters.size_bytes,
                                     .replica_index = (uint8_t)k};
    member->state = MIRROR_MEMBER_SEALING;
    member->attach = ++m->next_attach;
    message.request = member->attach;
    member->seal_sent_us = m->now;
    member->lease_sent_us = 0;
    member->merge_acked = 0;
    member->merge_sent = UINT64_MAX;
    mirror_send(m, k, &message, (struct mirror_data){0}, 0);
}

/* It cannot be reached, or must start over. Writes that are waited for stay, to be sent again when it attaches. */
void member_detach(struct mirror *m, unsigned k, enum mirror_member_state state)
{
    struct member *member = &m->members[k];
    uint8_t bit = (uint8_t)(1u << k);
    bool counted = (m->config.isr | m->pending_grow) & bit;
    if (!counted) {
        resync_stop(m, k);
        member->barrier = 0;
        mirror_flush_forget(m, bit);
    }
    member->state = state;
    member->lease_sent_us = 0;
    member->merge_acked = 0;
    member->merge_sent = UINT64_MAX;
    if (!member->away_since_us)
        member->away_since_us = m->now;
    list_foreach_safe(node, after, &m->active) {
        struct mirror_op *op = list_entry(node, struct mirror_op, link);
        if (op->phase == OP_READING && op->read_from == k) {
            op->phase = OP_START;
            op->turn++; /* its answer is not wanted any more */
            list_append(&m->ready, &op->ready);
        } else if (op->phase == OP_DIGEST && (op->digest_wait | op->digest_have) & bit) {
            digest_drop(m, op);
            op->phase = OP_START;
            op->turn++;
            list_append(&m->ready, &op->ready);
        } else if (!counted && op->phase >= OP_WRITING) {
            op->targets &= (uint8_t)~bit;
            op->need &= (uint8_t)~bit;
            op_check(m, op);
        }
    }
    resync_session_over(m, k);
}

void member_fail(struct mirror *m, unsigned k, enum mirror_ask_reason reason)
{
    if (in_isr(m, k) && !m->members[k].bad) {
        m->members[k].bad = true;
        m->members[k].bad_reason = reason;
    }
}

void member_back_off(struct mirror *m, unsigned k, bool failed)
{
    struct member *member = &m->members[k];
    uint64_t base = m->parameters.resync_backoff_us;
    unsigned free_times = failed ? 0 : AWAY_FREE;
    if (member->in_sync_since_us && m->now - member->in_sync_since_us >= base * BACKOFF_MOST)
        member->departures = 0;
    member->in_sync_since_us = 0;
    member->departures++;
    if (member->departures > free_times)
        member->retry_us = m->now + MIN(base << MIN(member->departures - free_times - 1, 6u), base * BACKOFF_MOST);
}

/* Writes under way go out again, in order. One that has forgotten (not continued) must hear of all that are not complete,
 * also of those it has acknowledged: its report to a next owner depends on it (I6). */
static void member_resend(struct mirror *m, unsigned k, bool continued)
{
    uint8_t bit = (uint8_t)(1u << k);
    list_foreach(node, &m->issued) {
        struct mirror_op *op = list_entry(node, struct mirror_op, issued);
        if (!(op->targets & bit))
            continue;
        if (!continued)
            op->acked &= (uint8_t)~bit;
        if (op->acked & bit)
            continue;
        op->errors &= (uint8_t)~bit;
        op->issued_us = m->now;
        op_send_write(m, op, k);
    }
}

/* Marks that member k lacks about those outside the ISR (I9), e.g. because it was away when they were merged. */
static void member_catch_up_marks(struct mirror *m, unsigned k, const struct mirror_message *message, bool replace)
{
    const uint8_t *at = message->blob;
    struct member *member = &m->members[k];
    member->merge_acked = member->merge_sent = m->merge_number;
    if (message->bitmaps & 1)
        at += bitmap_bytes(m->regions);
    for (unsigned j = 0; j < MIRROR_REPLICAS_MAX; j++) {
        bool reported = message->bitmaps >> (j + 1) & 1;
        const uint8_t *from = at;
        if (reported)
            at += bitmap_bytes(m->regions);
        if (!(m->places >> j & 1) || j == k || in_isr(m, j))
            continue;
        if (reported)
            bitmap_decode(&m->scratch, from);
        else
            bitmap_zero(&m->scratch);
        bool same_disk = message->dirty_incarnation[j] == m->members[j].incarnation;
        if (same_disk && bitmap_contains(&m->scratch, &m->dirty[j]) && !(replace && m->scratch.set))
            continue;
        const uint8_t *blob = mirror_blob(m, &m->dirty[j]);
        member->merge_acked = 0;
        if (replace) /* what a joining member knows is old: ours replaces it */
            member_send_bitmap(m, k, j, MIRROR_BITMAP_KEEP, blob);
        member_send_bitmap(m, k, j, MIRROR_BITMAP_MERGE, blob);
    }
}

/* While sealing: add what an in-sync member reports to what must be reconciled (I6) and marked (I9). */
static void member_collect(struct mirror *m, unsigned k, const struct mirror_message *message)
{
    const uint8_t *at = message->blob;
    for (unsigned i = 0; i < METADATA_BITMAPS; i++) {
        if (i >= METADATA_DIRTY && i < METADATA_COLD && m->places >> (i - 1) & 1 &&
            message->dirty_incarnation[i - 1] != m->members[i - 1].incarnation)
            m->mismatch |= (uint8_t)(1u << (i - 1));
        if (!(message->bitmaps >> i & 1))
            continue;
        bitmap_decode(&m->scratch, at);
        at += bitmap_bytes(m->regions);
        if (i == METADATA_INTENT || i == METADATA_COLD)
            bitmap_or(&m->unreconciled, &m->scratch);
        if (i == METADATA_COLD)
            member_cold_add(m, k, &m->scratch);
        else if (i >= METADATA_DIRTY && m->places >> (i - 1) & 1)
            bitmap_or(&m->dirty[i - 1], &m->scratch);
    }
}

/* While we serve, a member of the ISR comes back from a loss of power with less than it acknowledged: it leaves the ISR and is
 * repaired by a resync (I5). With nobody else in sync what its cache held is lost; the next flush says so. */
static bool member_lost_cache(struct mirror *m, unsigned k, const struct mirror_message *message)
{
    bool counted = (m->config.isr | m->pending_grow) >> k & 1, collecting = m->state == MIRROR_SEALING && !m->activating;
    if (!(message->bitmaps >> METADATA_COLD & 1) || !counted || (in_isr(m, k) && collecting))
        return false;
    if (m->config.isr == 1u << k) {
        m->cache_lost |= !(message->flags & MIRROR_SEAL_CONTINUED);
        return false;
    }
    return true;
}

int member_seal_reply(struct mirror *m, unsigned k, const struct mirror_message *message)
{
    struct member *member = &m->members[k];
    int status = (int)(int64_t)message->argument;
    if (member->state != MIRROR_MEMBER_SEALING || message->request != member->attach)
        return 0;
    if (status == -EAGAIN) { /* nothing is wrong with it */
        member_detach(m, k, MIRROR_MEMBER_AWAY);
        member->retry_us = m->now + NOT_YET_US;
        return 0;
    }
    if (status < 0) {
        member_detach(m, k, MIRROR_MEMBER_REFUSED);
        member->refused = status;
        member_back_off(m, k, true);
        member_fail(m, k, status == -ENODEV ? MIRROR_ASK_MEMBER_FOREIGN : MIRROR_ASK_MEMBER_ERROR);
        return 0;
    }
    if (message->regions != m->regions || message->incarnation != member->incarnation)
        return -EPROTO;
    bool continued = message->flags & MIRROR_SEAL_CONTINUED;
    if (member_lost_cache(m, k, message) && !(continued && member->accepted)) {
        member->accepted = false; /* it will say that it continues what we refused here */
        member_fail(m, k, MIRROR_ASK_MEMBER_COLD);
        member_detach(m, k, MIRROR_MEMBER_AWAY);
        member->retry_us = m->now + COLD_RETRY_US;
        return 0;
    }
    member->accepted = true;
    member->lost = message->bitmaps >> METADATA_COLD & 1;
    member->state = MIRROR_MEMBER_ATTACHED;
    member->lease_sent_us = member->seal_sent_us; /* sealing is an answer like that to a heartbeat */
    member->away_since_us = 0;
    member->carry_reported = message->bitmaps & 1;
    if (member->bad && member->bad_reason != MIRROR_ASK_MEMBER_ERROR)
        member->bad = false;
    if (in_isr(m, k) && m->state == MIRROR_SEALING && !m->activating) {
        member_collect(m, k, message);
        member->merge_acked = member->merge_sent = m->merge_number;
        mirror_activate(m);
    } else if (in_isr(m, k) || m->pending_grow >> k & 1) {
        member_catch_up_marks(m, k, message, !in_isr(m, k));
        if (!in_isr(m, k))
            member->state = MIRROR_MEMBER_SYNCING;
        member_resend(m, k, continued);
        mirror_confirm_again(m, k);
        mirror_flush_resend(m, k);
        mirror_activate(m);
        mirror_check_all(m); /* marks that were awaited may be there already */
    } else {
        bitmap_zero(&member->carry);
        if (message->bitmaps & 1)
            bitmap_decode(&member->carry, message->blob);
    }
    return 0;
}

/* All of the ISR is sealed: nobody else can serve this volume any more. Before we do, everything that may differ is marked
 * for those outside the ISR on all of its members. */
void mirror_activate(struct mirror *m)
{
    bool merged = true;
    if (m->state != MIRROR_SEALING)
        return;
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (in_isr(m, k) && !member_attached(&m->members[k]))
            return;
    if (!m->activating) {
        m->activating = true;
        for (unsigned k = 0; k < m->config.replica_count; k++) {
            bool marks = m->dirty[k].set > 0, mismatch = m->mismatch >> k & 1;
            if (!(m->places >> k & 1))
                continue;
            if (in_isr(m, k)) {
                bitmap_zero(&m->dirty[k]);
                if (marks || mismatch)
                    mirror_keep_all(m, k, &m->dirty[k]);
                continue;
            }
            if (mismatch)
                bitmap_fill(&m->dirty[k]); /* I11 */
            if (!mirror_bug(m, MIRROR_BUG_NO_DIRTY))
                bitmap_or(&m->dirty[k], &m->unreconciled);
            if (m->dirty[k].set)
                mirror_merge_all(m, k, &m->dirty[k]);
        }
        if (mirror_bug(m, MIRROR_BUG_NO_RECONCILE))
            bitmap_zero(&m->unreconciled);
    }
    for (unsigned k = 0; k < m->config.replica_count; k++)
        merged = merged && (!in_isr(m, k) || member_merged(&m->members[k]));
    if (!merged)
        return;
    m->activating = false;
    m->state = MIRROR_SERVING;
    m->serving_since_us = m->now;
}
