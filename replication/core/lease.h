/* The two sides of the read lease (I7). Times are microseconds of one node's own monotonic clock; nothing is compared
 * across nodes except through the fact that a heartbeat was answered after it was sent.
 *
 * Member: having answered a heartbeat of the owner it is sealed to, it takes no part in the activation of another epoch
 * for MIRROR_LEASE_US. Owner: may answer reads until (send time of the newest answered heartbeat) + MIRROR_LEASE_US -
 * MIRROR_LEASE_MARGIN_US, for the slowest member of the in-sync set other than itself. */
#ifndef DIRECTOR_REPLICATION_LEASE_H
#define DIRECTOR_REPLICATION_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#define MIRROR_LEASE_US        400000u
#define MIRROR_LEASE_MARGIN_US 50000u /* for clocks that run at different speeds, and for rounding */

/* Owner: until when one member's answer covers reads. 0 = it never answered. */
static inline uint64_t lease_until(uint64_t newest_answered_sent_us)
{
    return newest_answered_sent_us == 0 ? 0 : newest_answered_sent_us + MIRROR_LEASE_US - MIRROR_LEASE_MARGIN_US;
}

/* Member: what it has promised to the owner it is sealed to. */
struct lease_promise {
    uint64_t answered_us; /* the newest answer given, or when this process started: an earlier life may have promised */
    bool released;        /* that owner is known to serve no more (its own word, or its process is dead) */
};

static inline uint64_t lease_promise_until(const struct lease_promise *promise)
{
    return promise->released ? 0 : promise->answered_us + MIRROR_LEASE_US;
}

#endif
