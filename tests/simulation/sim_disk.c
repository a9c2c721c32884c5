/* Disks. The log store writes transactions, each whole or not at all (SQLite). A replica's data and metadata files write
 * blocks and pages: what is under way when the power goes is there in part. */
#include "tests/simulation/sim.h"

#include <errno.h>
#include <string.h>

/* ---- log ------------------------------------------------------------------------------------------------------ */

static void log_drop_front(struct sim_log_disk *disk, uint64_t index)
{
    size_t drop = index + 1 > disk->entry_first ? MIN(index + 1 - disk->entry_first, disk->entry_count) : 0;
    for (size_t i = 0; i < drop; i++)
        free((void *)disk->entries[i].data);
    disk->entry_count -= drop;
    if (drop)
        memmove(disk->entries, disk->entries + drop, disk->entry_count * sizeof(*disk->entries));
    disk->entry_first += drop;
    if (disk->entry_count == 0)
        disk->entry_first = MAX(disk->entry_first, index + 1);
}

static void log_append(struct sim *sim, struct sim_log_disk *disk, struct rsm_effect *effect)
{
    if (!disk->entry_first)
        disk->entry_first = 1;
    if (effect->index != disk->entry_first + disk->entry_count)
        sim_violate(&sim->world, "entry %llu is appended after %llu", (unsigned long long)effect->index,
                    (unsigned long long)(disk->entry_first + disk->entry_count - 1));
    if (disk->entry_count == disk->entry_capacity) {
        disk->entry_capacity = disk->entry_capacity ? disk->entry_capacity * 2 : 64;
        disk->entries = realloc(disk->entries, disk->entry_capacity * sizeof(*disk->entries));
        ASSERT(disk->entries);
    }
    disk->entries[disk->entry_count++] = (struct rsm_blob){effect->data, effect->size};
    effect->data = NULL;
}

void sim_log_disk_apply(struct sim *sim, struct sim_log_disk *disk, struct rsm_effect *effect)
{
    switch (effect->kind) {
    case RSM_EFFECT_HARD_STATE:
        if (effect->term < disk->term)
            sim_violate(&sim->world, "the term goes back from %llu to %llu", (unsigned long long)disk->term,
                        (unsigned long long)effect->term);
        disk->term = effect->term;
        disk->voted_for = effect->voted_for;
        break;
    case RSM_EFFECT_LOG_APPEND:
        log_append(sim, disk, effect);
        break;
    case RSM_EFFECT_LOG_TRUNCATE:
        while (disk->entry_count && disk->entry_first + disk->entry_count - 1 >= effect->index)
            free((void *)disk->entries[--disk->entry_count].data);
        break;
    case RSM_EFFECT_SNAPSHOT:
        free((void *)disk->snapshot.data);
        disk->snapshot = (struct rsm_blob){effect->data, effect->size};
        effect->data = NULL;
        log_drop_front(disk, effect->index);
        break;
    default:
        ASSERT(!"no durable effect");
    }
}

void sim_log_disk_done(struct sim_log_disk *disk)
{
    for (size_t i = 0; i < disk->entry_count; i++)
        free((void *)disk->entries[i].data);
    free(disk->entries);
    free((void *)disk->snapshot.data);
    memset(disk, 0, sizeof(*disk));
}

/* ---- data ----------------------------------------------------------------------------------------------------- */

/* One operation or barrier of a replica's disk is done. */
struct disk_event {
    struct sim_event event;
    unsigned volume;
    struct sim_disk_write *write; /* NULL: metadata */
};

static void disk_drop(struct sim_event *event)
{
    free(container_of(event, struct disk_event, event)); /* the crash has dealt with what was under way */
}

static uint64_t disk_time(struct sim_node *node)
{
    struct sim_world *world = &node->sim->world;
    uint64_t time = 20 + sim_random(world, node->sim->mishaps && sim_chance(world, node->sim->mix.slow_disk) ? 20000 : 300);
    return time * MAX(node->slow, 1u);
}

static void disk_settle(struct sim_cached *block, uint32_t tag, uint64_t version)
{
    if (version <= block->stable_version)
        return;
    block->stable = tag;
    block->stable_version = version;
}

static void disk_apply(struct sim_disk *disk, const struct sim_disk_write *w, uint32_t blocks)
{
    for (uint32_t i = 0; i < SIM_BLOCKS && w->snapshot; i++)
        disk_settle(&disk->cache[i], w->snapshot[i].tag, w->snapshot[i].version);
    for (uint32_t i = 0; i < blocks && !w->read && !w->snapshot; i++) {
        uint32_t at = (uint32_t)(w->offset / SIM_BLOCK_BYTES) + i;
        struct sim_cached *block = &disk->cache[at];
        disk->blocks[at] = block->tag = w->operation == BLOCK_WRITE ? w->data->tags[w->data_offset / SIM_BLOCK_BYTES + i] : 0;
        disk->states[at] = SIM_BLOCK_GOOD;
        block->version++;
        if (w->fua)
            disk_settle(block, block->tag, block->version);
    }
}

/* The volatile cache is gone: of each block what was stable, or what happened to be written out. */
static void disk_power_loss(struct sim_world *world, struct sim_disk *disk)
{
    for (uint32_t i = 0; i < SIM_BLOCKS; i++) {
        struct sim_cached *block = &disk->cache[i];
        if (block->version == block->stable_version)
            continue;
        if (sim_chance(world, 5000))
            disk_settle(block, block->tag, block->version);
        disk->blocks[i] = block->tag = block->stable;
        block->version = block->stable_version;
    }
}

static void write_free(struct sim *sim, struct sim_disk_write *w)
{
    sim_bytes_unref(&sim->data, w->data);
    free(w->snapshot);
    free(w);
}

static void disk_unlink(struct sim_disk *disk, struct sim_disk_write *w)
{
    struct sim_disk_write **at = &disk->writing;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
}

static bool disk_fails(struct sim_node *node)
{
    return node->data_broken || (node->sim->mishaps && sim_chance(&node->sim->world, node->sim->mix.disk_error));
}

void sim_disk_spoil(struct sim_node *node, unsigned volume, uint32_t block, enum sim_block_state state)
{
    if (!node->disks[volume].data_there || node->disks[volume].states[block])
        return;
    SIM_LOG(node->sim, "disk of node %u: v%u block %u is %s", node->nodeid, volume, block,
            state == SIM_BLOCK_ROTTEN ? "rotten" : "unreadable");
    node->disks[volume].states[block] = (uint8_t)state;
    node->sim->counts.spoiled++;
}

void sim_disk_recover(struct sim *sim, unsigned volume)
{
    const struct tree_volume *v = sim_volume(sim, volume);
    for (uint32_t block = 0; v && block < SIM_BLOCKS; block++) {
        bool good = false;
        for (unsigned k = 0; k < v->replica_count; k++)
            good |= v->isr >> k & 1 && sim_replica(sim, v, k) && !sim_replica(sim, v, k)->disks[volume].states[block];
        for (unsigned i = 0; i < SIM_NODES_MAX && !good; i++)
            sim->nodes[i].disks[volume].states[block] = SIM_BLOCK_GOOD;
    }
}

/* A write that was lost, or put elsewhere: one of its blocks, or another one, is not what it should be. */
static void spoil_by_lot(struct sim_node *node, unsigned volume, const struct sim_disk_write *w, uint32_t blocks)
{
    struct sim *sim = node->sim;
    struct sim_world *world = &sim->world;
    if (!sim->mishaps || w->read || !blocks || node->place != sim->mix.rot_place || !sim_chance(world, sim->mix.spoil))
        return;
    uint32_t block = (uint32_t)(w->offset / SIM_BLOCK_BYTES + sim_random(world, blocks));
    if (sim_chance(world, 3000))
        block = (uint32_t)sim_random(world, SIM_BLOCKS);
    sim_disk_spoil(node, volume, block, sim_chance(world, 3000) ? SIM_BLOCK_UNREADABLE : SIM_BLOCK_ROTTEN);
}

static int read_blocks(struct sim_node *node, const struct sim_disk *disk, const struct sim_disk_write *w, uint32_t blocks)
{
    int status = 0;
    for (uint32_t i = 0; i < blocks; i++) {
        uint32_t block = (uint32_t)(w->offset / SIM_BLOCK_BYTES + i), shown = disk->blocks[block];
        if (disk->states[block] == SIM_BLOCK_ROTTEN && node->sim->options.sim_bugs & SIM_BUG_NO_CHECKSUM)
            shown ^= 0x40000000u;
        else if (disk->states[block] != SIM_BLOCK_GOOD)
            status = disk->states[block] == SIM_BLOCK_ROTTEN ? -EBADMSG : -EIO;
        w->data->tags[w->data_offset / SIM_BLOCK_BYTES + i] = shown;
    }
    return status;
}

/* A disk that hangs answers when it does no more. */
static bool postponed(struct sim_node *node, struct sim_event *event)
{
    if (node->hung)
        sim_node_plan(node, SIM_IO, event, node->sim->world.now_us + 5000);
    return node->hung;
}

static void data_done(struct sim_world *world, struct sim_event *event)
{
    struct disk_event *done = container_of(event, struct disk_event, event);
    struct sim_node *node = event->place;
    struct sim *sim = node->sim;
    struct sim_disk *disk = &node->disks[done->volume];
    struct sim_disk_write *w = done->write;
    struct mirror_event core = {.type = MIRROR_EVENT_DISK_DONE};
    uint32_t blocks = (uint32_t)(w->length / SIM_BLOCK_BYTES);
    unsigned volume = done->volume;
    if (postponed(node, event))
        return;
    disk_unlink(disk, w);
    core.disk.token = w->token;
    core.disk.status = disk_fails(node) ? -EIO : 0;
    if (w->operation == BLOCK_FLUSH && !node->data_broken)
        core.disk.status = 0; /* one that fails takes the replica out until its node starts anew: only on purpose */
    if (w->digest.disk.piece_bytes) {
        bool bad[SIM_BLOCKS];
        for (uint32_t i = 0; i < SIM_BLOCKS; i++)
            bad[i] = disk->states[i] != SIM_BLOCK_GOOD;
        core.disk.data.handle = sim_digests_new(&sim->data, disk->blocks, bad, &w->digest);
    } else if (w->read && !w->data) {
        w->data = sim_bytes_new(&sim->data, w->length);
        sim_bytes_ref(w->data);
        core.disk.data.handle = w->data;
    }
    if (!w->snapshot || core.disk.status == 0)
        disk_apply(disk, w, core.disk.status ? (uint32_t)sim_random(world, blocks + 1) : blocks);
    if (w->read && w->data && core.disk.status == 0)
        core.disk.status = read_blocks(node, disk, w, blocks);
    spoil_by_lot(node, volume, w, blocks);
    write_free(sim, w);
    free(done);
    sim_unit_step_replica(node, volume, &core);
}

static struct disk_event *disk_event_new(unsigned volume, void (*run)(struct sim_world *, struct sim_event *))
{
    struct disk_event *done = calloc(1, sizeof(*done));
    ASSERT(done);
    done->event.run = run;
    done->event.drop = disk_drop;
    done->volume = volume;
    return done;
}

void sim_disk_submit(struct sim_node *node, unsigned volume, const struct mirror_effect *effect)
{
    struct sim_disk_write *w = calloc(1, sizeof(*w));
    struct disk_event *done = disk_event_new(volume, data_done);
    ASSERT(w);
    w->read = effect->type == MIRROR_EFFECT_DISK_READ || effect->type == MIRROR_EFFECT_DISK_DIGEST;
    if (effect->type == MIRROR_EFFECT_DISK_DIGEST)
        w->digest = *effect;
    w->token = effect->disk.token;
    w->operation = effect->disk.operation;
    w->fua = effect->disk.flags & BLOCK_FUA;
    if (effect->type == MIRROR_EFFECT_DISK_FLUSH) {
        w->snapshot = malloc(sizeof(node->disks[volume].cache));
        ASSERT(w->snapshot);
        memcpy(w->snapshot, node->disks[volume].cache, sizeof(node->disks[volume].cache));
    }
    w->offset = effect->disk.offset_bytes;
    w->length = effect->disk.length_bytes;
    w->data = effect->disk.data.handle;
    w->data_offset = effect->disk.data.offset;
    if (w->data)
        sim_bytes_ref(w->data);
    w->next = node->disks[volume].writing;
    node->disks[volume].writing = w;
    done->write = w;
    if (node->sim->world.verbose)
        SIM_LOG(node->sim, "  disk of node %u: v%u %s blocks %u+%u tag %u", node->nodeid, volume, w->read ? "read" : "write",
                (unsigned)(w->offset / SIM_BLOCK_BYTES), (unsigned)(w->length / SIM_BLOCK_BYTES),
                w->data && !w->read ? w->data->tags[w->data_offset / SIM_BLOCK_BYTES] : 0);
    sim_node_plan(node, SIM_IO, &done->event, node->sim->world.now_us + disk_time(node));
}

/* ---- metadata ------------------------------------------------------------------------------------------------- */

/* A new file takes the place of the old one, or does not. */
static void meta_replace(struct sim_disk *disk, bool done)
{
    free(done ? disk->meta : disk->meta_whole);
    if (done)
        disk->meta = disk->meta_whole;
    disk->meta_whole = NULL;
}

static void meta_done(struct sim_world *world, struct sim_event *event)
{
    struct disk_event *done = container_of(event, struct disk_event, event);
    struct sim_node *node = event->place;
    struct sim_disk *disk = &node->disks[done->volume];
    struct mirror_event core = {.type = MIRROR_EVENT_META_DONE};
    unsigned volume = done->volume;
    (void)world;
    if (postponed(node, event))
        return;
    core.meta_status = node->data_broken || node->meta_broken ? -EIO : 0;
    for (unsigned i = 0; i < disk->meta_count && !core.meta_status; i++)
        memcpy(disk->meta + disk->meta_pages[i].offset_bytes, disk->meta_pages[i].bytes, METADATA_PAGE_BYTES);
    meta_replace(disk, disk->meta_whole && !core.meta_status);
    struct metadata_header header;
    if (!core.meta_status && metadata_header_decode(disk->meta, metadata_file_bytes(SIM_REGIONS), &header) == 0)
        disk->sealed = header.sealed_epoch;
    free(disk->meta_pages);
    disk->meta_pages = NULL;
    disk->meta_count = 0;
    free(done);
    sim_unit_step_replica(node, volume, &core);
}

void sim_disk_submit_meta(struct sim_node *node, unsigned volume, const struct mirror_effect *effect)
{
    struct sim_disk *disk = &node->disks[volume];
    if (disk->meta_pages || disk->meta_whole) {
        sim_violate(&node->sim->world, "node %u writes metadata while it writes metadata", node->nodeid);
        return;
    }
    if (effect->type == MIRROR_EFFECT_META_REPLACE) {
        disk->meta_whole = malloc(effect->replace.bytes);
        ASSERT(disk->meta_whole);
        memcpy(disk->meta_whole, effect->replace.image, effect->replace.bytes);
        sim_node_plan(node, SIM_IO, &disk_event_new(volume, meta_done)->event, node->sim->world.now_us + disk_time(node));
        return;
    }
    disk->meta_count = effect->meta.count;
    disk->meta_pages = malloc(effect->meta.count * sizeof(*disk->meta_pages));
    ASSERT(disk->meta_pages);
    memcpy(disk->meta_pages, effect->meta.pages, effect->meta.count * sizeof(*disk->meta_pages));
    sim_node_plan(node, SIM_IO, &disk_event_new(volume, meta_done)->event, node->sim->world.now_us + disk_time(node));
}

void sim_disk_crash(struct sim_node *node, unsigned volume, bool power)
{
    struct sim_world *world = &node->sim->world;
    struct sim_disk *disk = &node->disks[volume];
    while (disk->writing) {
        struct sim_disk_write *w = disk->writing;
        uint32_t blocks = (uint32_t)(w->length / SIM_BLOCK_BYTES);
        disk->writing = w->next;
        w->fua = w->fua && sim_chance(world, 5000); /* seen, and perhaps not stable */
        if (!w->snapshot)
            disk_apply(disk, w, power ? (uint32_t)sim_random(world, blocks + 1) : sim_chance(world, 5000) ? blocks : 0);
        write_free(node->sim, w);
    }
    if (power)
        disk_power_loss(world, disk);
    for (unsigned i = 0; i < disk->meta_count; i++) {
        const struct metadata_page *page = &disk->meta_pages[i];
        bool torn = power && (node->tear || sim_chance(world, 2000));
        size_t part = 1 + sim_random(world, node->tear || sim_chance(world, 5000) ? 150 : 4000); /* a header has 160 bytes */
        if (node->tear || sim_chance(world, 5000))
            memcpy(disk->meta + page->offset_bytes, page->bytes, torn ? part : METADATA_PAGE_BYTES);
    }
    free(disk->meta_pages);
    disk->meta_pages = NULL;
    disk->meta_count = 0;
    meta_replace(disk, disk->meta_whole && sim_chance(world, 5000));
    node->tear = false;
}

void sim_disk_format(struct sim_disk *disk, const struct metadata_header *header)
{
    memset(disk->blocks, 0, sizeof(disk->blocks));
    memset(disk->states, 0, sizeof(disk->states));
    memset(disk->cache, 0, sizeof(disk->cache));
    disk->sealed = 0;
    free(disk->meta);
    disk->meta = malloc(metadata_file_bytes(metadata_regions(header)));
    ASSERT(disk->meta);
    metadata_format(header, disk->meta);
    disk->data_there = disk->meta_there = true;
}

void sim_disk_lose(struct sim_disk *disk)
{
    memset(disk->blocks, 0, sizeof(disk->blocks));
    memset(disk->states, 0, sizeof(disk->states));
    memset(disk->cache, 0, sizeof(disk->cache));
    disk->sealed = 0;
    free(disk->meta);
    disk->meta = NULL;
    disk->data_there = disk->meta_there = false;
}
