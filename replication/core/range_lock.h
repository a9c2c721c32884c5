/* Serialises overlapping requests of one volume in arrival order. Readers share; everything else excludes.
 * A range waits for exactly those earlier ranges that overlap and conflict, so it never deadlocks: edges point back in time.
 * No allocation. A short range is looked for only where it lies; a long one costs O(ranges held), which the owner bounds.
 *
 * L1  A pair that conflicts is counted once for each place that both are found in, when the later one comes, and is taken off
 *     as often when the earlier one goes: both walk the same lists. */
#ifndef DIRECTOR_REPLICATION_RANGE_LOCK_H
#define DIRECTOR_REPLICATION_RANGE_LOCK_H

#include "director/base/list.h"
#include <stdbool.h>
#include <stdint.h>

#define RANGE_LOCK_CHUNK   (128u << 10)
#define RANGE_LOCK_BUCKETS 64u

struct range_lock {
    struct list held;                        /* of struct range, in arrival order: granted and waiting */
    struct list wide;                        /* those that touch more than two chunks */
    struct list buckets[RANGE_LOCK_BUCKETS]; /* the others, by chunk */
    uint64_t arrivals;
};

struct range_place {
    struct list link;
    struct range *range;
};

struct range {
    struct list link;
    struct range_place places[2]; /* in buckets, or the first in wide */
    unsigned place_count;
    bool wide;
    uint64_t arrival;
    struct list granted; /* while being told */
    uint64_t offset_bytes;
    uint64_t length_bytes;
    uint32_t waits_for; /* earlier conflicting ranges, L1; 0: granted */
    bool exclusive;
};

void range_lock_init(struct range_lock *lock);
/* Ask for a range whose offset, length and exclusive are set. True: granted at once. */
bool range_lock_add(struct range_lock *lock, struct range *range);
/* Give a range back, or stop waiting for it. granted is called for each later range that this lets go, in order of arrival;
 * it must not change the lock: note it and act afterwards. */
void range_lock_remove(struct range_lock *lock, struct range *range, void (*granted)(void *context, struct range *range),
                       void *context);

#endif
