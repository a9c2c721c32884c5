/* How fast copying between members and checking may go while clients are served. Pure; time is an argument.
 *
 *   idle foreground: all there is, up to the cap.
 *   busy foreground: a rate between floor and cap. Every window (100 ms, and at least 20 requests, or 500 ms) the 95th percentile
 *   of the foreground's latency is held against what it is without copying: above 1.5 times, the rate shrinks to 60 %; below
 *   1.25 times, it grows by a quarter, if the rate was what held copying back. What the latency is without copying is known
 *   from the time before, and from pauses: 150 ms each 3 s. Tokens go on to gather during a pause, so the floor holds on average.
 *
 * Bytes are counted when a piece starts; what is under way is bounded by the caller's window. */
#ifndef DIRECTOR_REPLICATION_RESYNC_THROTTLE_H
#define DIRECTOR_REPLICATION_RESYNC_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

#define RESYNC_FLOOR_DEFAULT   (4u << 20) /* bytes a second */
#define RESYNC_THROTTLE_BUCKETS 96u

struct resync_throttle {
    uint64_t floor, cap; /* bytes a second; cap UINT64_MAX: none */
    uint64_t rate;       /* while the foreground is busy */
    int64_t tokens;      /* bytes; below zero after a large piece */
    uint64_t filled_us;
    uint64_t seen_us;    /* last sign of the foreground, 0 = none */
    uint64_t copied_us;  /* last piece that started or ended, 0 = none */
    /* The window under way: latencies by bucket, four to each power of two. */
    uint64_t window_us;
    uint32_t samples, buckets[RESYNC_THROTTLE_BUCKETS];
    bool limited;        /* a piece had to wait */
    bool mixed;          /* copying went on in this window */
    uint64_t base_us;    /* 95th percentile without copying, 0 = not known */
    uint64_t pause_until_us, next_pause_us;
};

void resync_throttle_init(struct resync_throttle *throttle, uint64_t now_us);
/* From the volume's policy: bytes a second. floor 0: RESYNC_FLOOR_DEFAULT; cap 0: none. A cap below the floor wins. */
void resync_throttle_set(struct resync_throttle *throttle, uint64_t floor, uint64_t cap);
/* A foreground request has come (latency_us 0) or has been answered after latency_us. */
void resync_throttle_foreground(struct resync_throttle *throttle, uint64_t latency_us, uint64_t now_us);
/* May a piece of this many bytes start now? True: it is counted. */
bool resync_throttle_take(struct resync_throttle *throttle, uint64_t bytes, uint64_t now_us);
/* A piece that was taken has not started after all. */
void resync_throttle_put_back(struct resync_throttle *throttle, uint64_t bytes);
/* A piece has ended (so that a window in which one was under way is known). */
void resync_throttle_ended(struct resync_throttle *throttle, uint64_t now_us);
/* Is the foreground busy: small pieces, few at a time? */
bool resync_throttle_busy(const struct resync_throttle *throttle, uint64_t now_us);
/* When resync_throttle_take() may say yes after it has said no. */
uint64_t resync_throttle_next(const struct resync_throttle *throttle, uint64_t now_us);
/* The rate in force, UINT64_MAX: not limited. */
uint64_t resync_throttle_rate(const struct resync_throttle *throttle, uint64_t now_us);

#endif
