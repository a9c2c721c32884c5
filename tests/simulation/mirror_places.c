/* What changes while the volume serves: a place is emptied, and later any free place is filled with a node whose
 * disk was made anew; the volume grows; policies are drawn by lot. */
#include "tests/simulation/mirror_world.h"

unsigned replacements;
static uint64_t next_incarnation;

int place_of(unsigned n)
{
    for (unsigned k = 0; k < committed.replica_count; k++)
        if (committed.replicas[k].nodeid == n + 1)
            return (int)k;
    return -1;
}

bool node_in_sync(unsigned n)
{
    int k = place_of(n);
    return k >= 0 && committed.isr >> k & 1;
}

uint8_t places_mask(void)
{
    uint8_t mask = 0;
    for (unsigned k = 0; k < committed.replica_count; k++)
        if (committed.replicas[k].nodeid)
            mask |= (uint8_t)(1u << k);
    return mask;
}

/* The files of node n's replica as the agent makes them anew; the old bytes stay in the data file, or it is a new one. */
static void disk_make(unsigned n, unsigned place, uint64_t incarnation)
{
    struct metadata_header header = {.generation = 1, .volume = 7, .incarnation = incarnation, .size_bytes = committed.size_bytes,
                                     .region_bytes = REGION, .replica_index = place};
    if (nodes[n].up)
        crash(n, false); /* its device is closed and opened again */
    free(nodes[n].meta);
    nodes[n].meta_bytes = metadata_file_bytes(metadata_regions(&header));
    nodes[n].meta = malloc(nodes[n].meta_bytes);
    metadata_format(&header, nodes[n].meta);
    nodes[n].room = committed.size_bytes;
    if (chance(5000))
        memset(nodes[n].disk, 0, sizeof(nodes[n].disk));
}

/* One that is not the owner, in sync or not, but never the last one in sync (I10). */
void place_empty(void)
{
    unsigned n = (unsigned)rnd(NODES);
    int k = place_of(n);
    if (k < 0 || committed.owner == n + 1 || committed.isr == 1u << k)
        return;
    TRACE("node %u leaves place %d", n, k);
    committed.replicas[k].nodeid = 0;
    committed.replicas[k].incarnation = 0;
    committed.isr &= (uint8_t)~(1u << k);
    committed.isr_version++;
    replacements++;
    config_spread();
    plan(world.now_us + (chance(3000) ? 0 : rnd(400000)), W_REFILL, SERVICE)->from = n;
}

void place_fill(unsigned n)
{
    unsigned k = (unsigned)rnd(MIRROR_REPLICAS_MAX);
    while (k < committed.replica_count && committed.replicas[k].nodeid)
        k = (k + 1) % MIRROR_REPLICAS_MAX;
    disk_make(n, k, ++next_incarnation);
    TRACE("node %u takes place %u", n, k);
    committed.replicas[k].nodeid = (uint16_t)(n + 1);
    committed.replicas[k].incarnation = next_incarnation;
    committed.replica_count = (uint8_t)MAX(committed.replica_count, k + 1);
    committed.isr_version++;
    config_spread();
}

/* ---- growing ------------------------------------------------------------------------------------------------------- */

uint64_t size_wanted;
unsigned grows;

uint64_t room_needed(void)
{
    return MAX(committed.size_bytes, size_wanted);
}

/* Node n makes its data file larger. */
void grow_extend(unsigned n)
{
    nodes[n].room = MAX(nodes[n].room, room_needed());
    replica_set_room(nodes[n].replica, nodes[n].room);
}

void grow_turn(void)
{
    bool all = true;
    if (!calm && !size_wanted && committed.size_bytes < BLOCKS * BLOCK && chance(80)) {
        uint64_t more = (1 + rnd(48)) * BLOCK;
        size_wanted = MIN(committed.size_bytes + more, (uint64_t)BLOCKS * BLOCK);
    }
    for (unsigned n = 0; n < NODES; n++) {
        if (nodes[n].up && LINK(n, SERVICE).up && nodes[n].room < room_needed() && chance(3000))
            plan(world.now_us + rnd(50000), W_EXTEND, n);
        all = all && (!node_in_sync(n) || nodes[n].room >= size_wanted);
    }
    if (!size_wanted || !all)
        return;
    committed.size_bytes = size_wanted;
    size_wanted = 0;
    committed.epoch++;
    committed.isr_version++;
    grows++;
    TRACE("the volume has %llu bytes", (unsigned long long)committed.size_bytes);
    config_spread();
}

void policy_draw(void)
{
    size_wanted = 0;
    grows = 0;
    committed.size_bytes = (64 + rnd(BLOCKS - 63)) * BLOCK;
    replacements = 0;
    next_incarnation = 1000;
    committed.policy.verified_reads = chance(bugs & (MIRROR_BUG_NO_CONFIRM | MIRROR_BUG_OLD_CONFIRM) ? 10000 : 3000);
    if (chance(3000))
        committed.policy.slow_us = 20000 + (uint32_t)rnd(100000);
    if (chance(3000))
        committed.policy.in_sync_min = (uint8_t)(1 + rnd(NODES));
}
