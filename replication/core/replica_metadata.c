/* What a member keeps durably: marks and header, each change with a ticket, written in batches with one barrier. */
#include "replication/core/replica_internal.h"
#include <errno.h>

/* Set a bit; the ticket that must be durable before one may rely on it. */
uint64_t replica_mark(struct replica *r, unsigned slot, uint32_t region)
{
    struct page_state *page = &r->page_states[slot * r->pages + region / METADATA_PAGE_BITS];
    if (bitmap_set(&r->maps[slot], region)) {
        page->last_set = ++r->change;
        if (!page->first_unsaved)
            page->first_unsaved = r->change;
    }
    return page->last_set;
}

void replica_unmark(struct replica *r, unsigned slot, uint32_t region)
{
    struct page_state *page = &r->page_states[slot * r->pages + region / METADATA_PAGE_BITS];
    if (bitmap_clear(&r->maps[slot], region)) {
        if (slot == SLOT_INTENT)
            replica_intent_unsettle(r, region);
        r->change++;
        if (!page->first_unsaved)
            page->first_unsaved = r->change;
    }
}

uint64_t replica_touch_header(struct replica *r)
{
    r->change++;
    if (!r->header_unsaved)
        r->header_unsaved = r->change;
    return r->change;
}

/* Write what has changed, if nothing is being written. Group commit: one batch takes all of a step. */
void replica_metadata_flush(struct replica *r, struct mirror_effects *out)
{
    unsigned count = 0;
    uint64_t ticket = r->change;
    uint32_t total = METADATA_BITMAPS * r->pages;
    if (r->batch_busy || r->failed || r->durable == r->change)
        return;
    if (r->header_unsaved) {
        r->header.generation += replica_bug(r, REPLICA_BUG_ONE_SLOT) ? 2 : 1; /* I13: the other slot */
        metadata_header_encode(&r->header, &r->batch[count++]);
        r->header_unsaved = 0;
    }
    for (uint32_t i = 0; i < total; i++) {
        uint32_t at = (r->batch_cursor + i) % total;
        struct page_state *page = &r->page_states[at];
        if (!page->first_unsaved)
            continue;
        if (count == BATCH_PAGES) {
            ticket = MIN(ticket, page->first_unsaved - 1);
            continue;
        }
        metadata_bitmap_encode(&r->maps[at / r->pages], at / r->pages, at % r->pages, r->header.incarnation, r->change,
                               &r->batch[count++]);
        page->first_unsaved = 0;
        if (count == BATCH_PAGES)
            r->batch_cursor = (at + 1) % total;
    }
    r->batch_ticket = MAX(ticket, r->durable);
    r->batch_busy = true;
    r->batch_count = count;
    struct mirror_effect *effect = mirror_effects_add(out, MIRROR_EFFECT_META_WRITE);
    effect->meta.count = count;
    effect->meta.pages = r->batch;
}

void replica_on_meta_done(struct replica *r, int status, struct mirror_effects *out)
{
    ASSERT(r->batch_busy);
    r->batch_busy = false;
    free(r->image);
    r->image = NULL;
    if (status == 0 || replica_bug(r, REPLICA_BUG_META_ERROR)) {
        r->durable = r->batch_ticket;
        replica_intent_settle(r);
    } else {
        r->failed = true; /* never retried as if nothing had happened (I12) */
    }
    list_foreach_safe(node, after, &r->active) {
        struct operation *op = list_entry(node, struct operation, link);
        if (op->state != OPERATION_WAIT_META)
            continue;
        if (r->failed) {
            operation_answer(r, op, -EIO, out);
            operation_free(r, op, out);
        } else {
            operation_advance(r, op, out);
        }
    }
}
