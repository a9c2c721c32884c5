/* Serialises overlapping requests of one volume in arrival order. Readers share; everything else excludes.
 * A range waits for exactly those earlier ranges that overlap and conflict, so it never deadlocks: edges point back in time.
 * O(ranges held) per call; the owner bounds how many there are. No allocation. */
#ifndef DIRECTOR_REPLICATION_RANGE_LOCK_H
#define DIRECTOR_REPLICATION_RANGE_LOCK_H

#include "director/base/list.h"
#include <stdbool.h>
#include <stdint.h>

struct range_lock {
    struct list held; /* of struct range, in arrival order: granted and waiting */
};

struct range {
    struct list link;
    uint64_t offset_bytes;
    uint64_t length_bytes;
    uint32_t waits_for; /* earlier conflicting ranges; 0: granted */
    bool exclusive;
};

void range_lock_init(struct range_lock *lock);
/* Ask for a range whose offset, length and exclusive are set. True: granted at once. */
bool range_lock_add(struct range_lock *lock, struct range *range);
/* Give a range back, or stop waiting for it. granted is called for each later range that this lets go;
 * it must not change the lock: note it and act afterwards. */
void range_lock_remove(struct range_lock *lock, struct range *range, void (*granted)(void *context, struct range *range),
                       void *context);

#endif
