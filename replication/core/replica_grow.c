/* The volume has grown: an owner of a newer epoch comes with a larger size. The metadata, whose layout depends on the number of
 * regions, is then written as a whole into a new file that takes the place of the old one at once (scenario 34): a crash leaves
 * the old size with all its marks, or the new one with the same marks. Regions may be larger than before; a new one is marked
 * when any of the old ones in it was. What is beyond the old end is zeroes on every member: nothing of it is marked.
 *
 * It happens while a SEAL waits: no operation is under way, no session is attached, so nothing is marked meanwhile. A size that
 * the disk does not have yet is answered -EAGAIN: the files are made larger first (VolumeGrown), by those outside the in-sync set
 * when they come back. */
#include "replication/core/replica_internal.h"
#include <errno.h>

void replica_set_room(struct replica *r, uint64_t data_bytes)
{
    r->parameters.data_bytes = data_bytes;
}

/* Every set of regions, and the tables that go with them. Half of it done (no memory) is out of service. */
static int rescale(struct replica *r, uint32_t regions, uint32_t factor)
{
    struct bitmap *working[] = {&r->carry, &r->hot, &r->hot_before, &r->recent, &r->clearing, &r->scratch};
    uint32_t pages = metadata_bitmap_pages(regions);
    struct page_state *states = calloc((size_t)METADATA_BITMAPS * pages, sizeof(*states));
    uint64_t *settled = calloc((regions + 63) / 64, sizeof(*settled));
    int result = states && settled ? 0 : -ENOMEM;
    for (unsigned i = 0; i < METADATA_BITMAPS && result == 0; i++)
        result = replica_bug(r, REPLICA_BUG_GROW_FORGETS) ? (bitmap_done(&r->maps[i]), bitmap_init(&r->maps[i], regions))
                                                          : bitmap_rescale(&r->maps[i], regions, factor);
    for (unsigned i = 0; i < ARRAY_SIZE(working) && result == 0; i++)
        result = bitmap_rescale(working[i], regions, factor);
    if (result < 0) {
        free(states);
        free(settled);
        return result;
    }
    free(r->page_states);
    r->page_states = states;
    free(r->settled); /* known anew as pages are written; until then the page's ticket, which is that of the new file, will do */
    r->settled = settled;
    r->batch_count = 0;
    free(r->blob); /* made anew at its new size */
    r->blob = NULL;
    r->regions = regions;
    r->pages = pages;
    r->batch_cursor = 0;
    return 0;
}

/* Header and marks as they are now, at the new size. Counts as the batch under way: META_DONE answers it. */
void replica_grow(struct replica *r, uint64_t size_bytes, struct mirror_effects *out)
{
    uint32_t region_bytes = metadata_region_bytes(size_bytes), regions = metadata_regions_of(size_bytes);
    ASSERT(!r->batch_busy && list_empty(&r->active) && size_bytes > r->header.size_bytes);
    uint64_t bytes = metadata_file_bytes(regions);
    r->image = malloc(bytes);
    if (!r->image || rescale(r, regions, region_bytes / r->header.region_bytes) < 0) {
        r->failed = true;
        return;
    }
    r->header.size_bytes = size_bytes;
    r->header.region_bytes = region_bytes;
    r->header.generation++;
    replica_touch_header(r);
    r->header_unsaved = 0;
    for (uint32_t i = 0; i < METADATA_BITMAPS * r->pages; i++)
        r->page_states[i].last_set = r->change;
    metadata_encode(&r->header, r->maps, r->change, r->image);
    r->batch_ticket = r->change;
    r->batch_busy = true;
    struct mirror_effect *effect = mirror_effects_add(out, MIRROR_EFFECT_META_REPLACE);
    effect->replace.image = r->image;
    effect->replace.bytes = bytes;
}
