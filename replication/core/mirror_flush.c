/* Flush barriers at the owner (I5), and members that lost a volatile cache.
 *
 * With write-back a write is acknowledged when every counted member has it in its cache. What makes that safe:
 *  - a client's flush is answered when each member that counts then has flushed what it had acknowledged before;
 *  - a joining member flushes before it counts, and from the moment it is asked to, the clients' flushes wait for it too, so
 *    that it holds durably whatever any flush has covered;
 *  - a member whose machine lost its power says which regions were not flushed (cold). They are never read from it while
 *    another member in sync has them: at a promotion they are copied to it, while we serve it leaves the ISR and resyncs.
 * A member that cannot flush leaves the in-sync set; the flush is answered without it after that is committed (I3, I12). */
#include "replication/core/mirror_internal.h"
#include <errno.h>

void mirror_flush_init(struct mirror *m)
{
    list_init(&m->flush.served);
    list_init(&m->flush.next);
}

static void flush_send(struct mirror *m, unsigned k, uint64_t number)
{
    struct mirror_message message = {.type = MIRROR_FLUSH, .request = number};
    mirror_send(m, k, &message, (struct mirror_data){0}, 0);
}

/* Members that are asked for a barrier before they count. */
static uint8_t joining_mask(const struct mirror *m)
{
    uint8_t mask = 0;
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (m->members[k].barrier)
            mask |= (uint8_t)(1u << k);
    return mirror_bug(m, MIRROR_BUG_GROW_UNFLUSHED) ? 0 : mask;
}

static void flush_start(struct mirror *m)
{
    struct mirror_flush *flush = &m->flush;
    flush->busy = true;
    flush->number = ++m->flush_number;
    flush->issued_us = m->now;
    flush->need = counted_mask(m) | joining_mask(m);
    flush->acked = flush->errors = 0;
    if (mirror_bug(m, MIRROR_BUG_FLUSH_HERE) && m->self >= 0)
        flush->need = (uint8_t)(1u << m->self);
    m->cached = false; /* what completes from now on wants another one */
    while (!list_empty(&flush->next)) {
        struct mirror_request *request = list_first(&flush->next, struct mirror_request, link);
        list_remove(&request->link);
        list_append(&flush->served, &request->link);
    }
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (flush->need >> k & 1 && member_attached(&m->members[k]))
            flush_send(m, k, flush->number);
}

static void flush_answer(struct mirror *m, struct list *requests, int status)
{
    while (!list_empty(requests)) {
        struct mirror_request *request = list_first(requests, struct mirror_request, link);
        list_remove(&request->link);
        mirror_answer(m, request, status);
    }
}

static void flush_end(struct mirror *m, int status)
{
    m->flush.busy = false;
    if (status < 0)
        m->cached = true;
    flush_answer(m, &m->flush.served, status);
    if (!list_empty(&m->flush.next))
        flush_start(m);
}

void mirror_flush_add(struct mirror *m, struct mirror_request *request)
{
    if (m->cache_lost) {
        m->cache_lost = false; /* once: what was written since is as good as ever */
        mirror_answer(m, request, -EIO);
        return;
    }
    if (!m->cached && !m->flush.busy) {
        mirror_answer(m, request, 0); /* every completed write is durable already */
        return;
    }
    list_append(&m->flush.next, &request->link);
    if (!m->flush.busy)
        flush_start(m);
}

void mirror_flush_check(struct mirror *m)
{
    struct mirror_flush *flush = &m->flush;
    bool alone = !(m->config.isr & (m->config.isr - 1)) && !m->pending_grow;
    if (!flush->busy)
        return;
    if (!(flush->need & ~flush->acked)) {
        flush_end(m, 0);
    } else if (alone && flush->errors & m->config.isr) { /* I10: the last member's error is the answer */
        for (unsigned k = 0; k < m->config.replica_count; k++)
            if (in_isr(m, k))
                m->members[k].bad = false;
        flush_end(m, -EIO);
    }
}

void mirror_flush_forget(struct mirror *m, uint8_t mask)
{
    if (!m->flush.busy)
        return;
    m->flush.need &= (uint8_t)~(mask & ~joining_mask(m));
    mirror_flush_check(m);
}

void mirror_flush_resend(struct mirror *m, unsigned k)
{
    if (m->flush.busy && m->flush.need & ~m->flush.acked & (1u << k))
        flush_send(m, k, m->flush.number);
}

void mirror_flush_reply(struct mirror *m, unsigned k, const struct mirror_message *message)
{
    int status = (int)(int64_t)message->argument;
    struct member *member = &m->members[k];
    uint8_t bit = (uint8_t)(1u << k);
    if (status < 0 && !in_isr(m, k) && !(m->pending_grow & bit)) {
        member_back_off(m, k, true);
        member_detach(m, k, MIRROR_MEMBER_AWAY);
        return;
    }
    if (status < 0)
        member_fail(m, k, MIRROR_ASK_MEMBER_ERROR);
    else if (member->barrier == message->request)
        member->barrier_done = true;
    if (!m->flush.busy || m->flush.number != message->request)
        return;
    if (status < 0)
        m->flush.errors |= bit;
    else
        m->flush.acked |= bit;
    mirror_flush_check(m);
}

void mirror_flush_stop(struct mirror *m, int status)
{
    m->flush.busy = false;
    flush_answer(m, &m->flush.served, status);
    flush_answer(m, &m->flush.next, status);
}

static void expire(struct mirror *m, struct list *requests)
{
    list_foreach_safe(node, after, requests) {
        struct mirror_request *request = list_entry(node, struct mirror_request, link);
        if (m->now < request->deadline_us)
            continue;
        list_remove(&request->link);
        mirror_answer(m, request, -EAGAIN);
    }
}

void mirror_flush_expire(struct mirror *m)
{
    expire(m, &m->flush.served);
    expire(m, &m->flush.next);
}

bool member_barrier(struct mirror *m, unsigned k)
{
    struct member *member = &m->members[k];
    if (mirror_bug(m, MIRROR_BUG_GROW_UNFLUSHED))
        return true;
    if (!member->barrier) {
        member->barrier = ++m->flush_number;
        member->barrier_done = false;
        flush_send(m, k, member->barrier);
    }
    return member->barrier_done;
}

/* ---- cold members -------------------------------------------------------------------------------------------------- */

bool member_is_cold(const struct mirror *m, unsigned k, uint64_t offset, uint64_t length)
{
    const struct bitmap *cold = &m->members[k].cold;
    if (!cold->set || mirror_bug(m, MIRROR_BUG_COLD_SOURCE))
        return false;
    uint32_t found = bitmap_next(cold, mirror_region(m, offset));
    return found != BITMAP_NONE && found <= mirror_region(m, offset + length - 1);
}

void member_cold_add(struct mirror *m, unsigned k, const struct bitmap *regions)
{
    struct bitmap *cold = &m->members[k].cold;
    if (!cold->words) {
        int result = bitmap_init(cold, m->regions);
        ASSERT(result == 0);
    }
    bitmap_or(cold, regions);
}

void member_cold_clear(struct mirror *m, unsigned k)
{
    if (m->members[k].cold.set)
        bitmap_zero(&m->members[k].cold);
}

void mirror_cold_done(struct mirror *m, uint32_t region)
{
    for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++)
        if (m->members[k].cold.set)
            (void)bitmap_clear(&m->members[k].cold, region);
}
