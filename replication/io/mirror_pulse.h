/* Heartbeats of the data links, for all mirror devices of a node at once: noted once for each node, and looked at by a device
 * when something happens to it. So a heartbeat costs nothing for the volumes that are idle, however many there are.
 *
 * Invariants:
 *   N1 a device hears of every answer before anything that happens to it later: to the cores the order is as if each answer
 *      had been told at once, except that only the newest of several is told; and only the newest counts (lease.h).
 *   N2 devices with requests under way, which may wait for a lease, are told at once.
 *   N3 what we answered is never forgotten: a promise binds whether or not a link still stands (I7).
 * One thread, that of the devices. It outlives them. */
#ifndef DIRECTOR_REPLICATION_MIRROR_PULSE_H
#define DIRECTOR_REPLICATION_MIRROR_PULSE_H

#include "director/base/list.h"
#include <stdint.h>

struct mirror_pulses;

/* NULL: no memory. */
struct mirror_pulses *mirror_pulses_new(void);
/* After the last device. NULL is fine. */
void mirror_pulses_free(struct mirror_pulses *pulses);
/* The node answered, on the data link, the heartbeat that we sent at sent_us (mirror_clock_us()). */
void mirror_pulses_answered(struct mirror_pulses *pulses, uint16_t nodeid, uint64_t sent_us);
/* We are about to answer one of its heartbeats; it is now answered_us. */
void mirror_pulses_answered_by_us(struct mirror_pulses *pulses, uint16_t nodeid, uint64_t answered_us);

#endif
