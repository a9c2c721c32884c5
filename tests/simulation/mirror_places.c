/* Replicas that come and go while the volume serves: a place is emptied, and later any free place is filled with a node whose
 * disk was made anew; policies of a volume drawn by lot. */
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
    struct metadata_header header = {.generation = 1, .volume = 7, .incarnation = incarnation, .size_bytes = REGIONS * REGION,
                                     .region_bytes = REGION, .replica_index = place};
    if (nodes[n].up)
        crash(n, false); /* its device is closed and opened again */
    metadata_format(&header, nodes[n].meta);
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

void policy_draw(void)
{
    replacements = 0;
    next_incarnation = 1000;
    committed.policy.verified_reads = chance(bugs & (MIRROR_BUG_NO_CONFIRM | MIRROR_BUG_OLD_CONFIRM) ? 10000 : 3000);
    if (chance(3000))
        committed.policy.slow_us = 20000 + (uint32_t)rnd(100000);
    if (chance(3000))
        committed.policy.in_sync_min = (uint8_t)(1 + rnd(NODES));
}
