/* Intent bits, so that a write seldom waits for one.
 *
 * Settled: a bit that is known to be on the disk. Tickets are kept for each page, and a page covers gigabytes: without this a write
 * to a region marked long ago would wait whenever a mark near it is being written.
 * Ahead: when many regions are being written, one that has no bit is marked with its neighbours, as the writes to come will
 * need them; those that stay unused are cleared like any other idle region. More regions are to be compared after a crash for
 * it, so it is done only where it pays, and the sum is bounded. */
#include "director/base/bytes.h"
#include "replication/core/replica_internal.h"

#define AHEAD_BYTES (4u << 20)
#define AHEAD_FROM  64u    /* regions written since the last look at intent bits */
#define AHEAD_MAX   65536u /* regions with a bit: no more are marked ahead */

uint64_t replica_mark_intent(struct replica *r, uint32_t region)
{
    uint32_t ahead = AHEAD_BYTES / r->header.region_bytes;
    const struct bitmap *intent = &r->maps[SLOT_INTENT];
    if (r->settled[region / 64] >> (region % 64) & 1)
        return 0;
    if (ahead > 1 && !bitmap_test(intent, region) && r->recent.set >= AHEAD_FROM && intent->set < AHEAD_MAX) {
        uint32_t first = region - region % ahead, end = MIN(first + ahead, r->regions);
        for (uint32_t near = first; near < end; near++)
            (void)replica_mark(r, SLOT_INTENT, near);
    }
    return replica_mark(r, SLOT_INTENT, region);
}

void replica_intent_unsettle(struct replica *r, uint32_t region)
{
    r->settled[region / 64] &= ~(1ull << (region % 64));
}

/* A page of the batch is durable: its bits are settled, except those that were cleared since it was encoded, whose clearing is
 * on its way to the disk or will be. */
static void settle_page(struct replica *r, const struct metadata_page *page)
{
    uint64_t index = (page->offset_bytes - METADATA_BITMAPS_OFFSET) / METADATA_PAGE_BYTES;
    if (page->offset_bytes < METADATA_BITMAPS_OFFSET || index >= r->pages) /* a header, or marks of another kind */
        return;
    uint32_t words = (r->regions + 63) / 64, first = (uint32_t)index * (METADATA_PAGE_BITS / 64);
    const uint8_t *bits = page->bytes + METADATA_PAGE_BYTES - METADATA_PAGE_BITS / 8;
    for (uint32_t i = 0; i < METADATA_PAGE_BITS / 64 && first + i < words; i++)
        r->settled[first + i] = get_le64(bits + 8 * i) & r->maps[SLOT_INTENT].words[first + i];
}

void replica_intent_settle(struct replica *r)
{
    for (unsigned i = 0; i < r->batch_count; i++)
        settle_page(r, &r->batch[i]);
}
