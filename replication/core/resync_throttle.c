#include "replication/core/resync_throttle.h"
#include "director/base/common.h"
#include <string.h>

#define IDLE_US       200000u  /* without a sign of the foreground: idle */
#define WINDOW_US     100000u
#define WINDOW_MOST   500000u
#define SAMPLES_MIN   20u
#define PAUSE_US      150000u
#define PAUSE_EVERY   3000000u
#define NOISE_US      50u
#define START_RATE    (16u << 20)
#define GROW_MIN      (1u << 20)
#define BURST_US      20000u
#define SECOND        1000000u

static uint64_t clamp(const struct resync_throttle *t, uint64_t rate)
{
    return MIN(MAX(rate, t->floor), t->cap);
}

static void window_open(struct resync_throttle *t, uint64_t now_us)
{
    t->window_us = now_us;
    t->samples = 0;
    t->limited = false;
    t->mixed = false;
    memset(t->buckets, 0, sizeof(t->buckets));
}

void resync_throttle_init(struct resync_throttle *t, uint64_t now_us)
{
    memset(t, 0, sizeof(*t));
    t->filled_us = now_us;
    window_open(t, now_us);
    resync_throttle_set(t, 0, 0);
    t->rate = clamp(t, START_RATE);
}

void resync_throttle_set(struct resync_throttle *t, uint64_t floor, uint64_t cap)
{
    t->floor = floor ? floor : RESYNC_FLOOR_DEFAULT;
    t->cap = cap ? cap : UINT64_MAX;
    t->rate = clamp(t, t->rate);
}

/* Four buckets to each power of two. */
static unsigned bucket_of(uint64_t us)
{
    unsigned power = us < 4 ? 2 : 63u - (unsigned)__builtin_clzll(us);
    unsigned bucket = us < 4 ? (unsigned)us : power * 4 + (unsigned)(us >> (power - 2) & 3) - 4;
    return MIN(bucket, RESYNC_THROTTLE_BUCKETS - 1);
}
static uint64_t bucket_top(unsigned bucket)
{
    return bucket < 4 ? bucket : (uint64_t)(5 + bucket % 4) << (bucket / 4 + 1 - 2);
}

static uint64_t percentile_95(const struct resync_throttle *t)
{
    uint32_t above = t->samples / 20, sum = 0;
    unsigned i = RESYNC_THROTTLE_BUCKETS;
    while (i > 0 && sum <= above)
        sum += t->buckets[--i];
    return bucket_top(i);
}

/* The window is over: judge it. */
static void window_close(struct resync_throttle *t, uint64_t now_us)
{
    uint64_t p95 = percentile_95(t);
    if (!t->mixed) {
        t->base_us = t->base_us ? (3 * t->base_us + p95) / 4 : p95;
    } else if (t->base_us) {
        if (p95 > t->base_us + t->base_us / 2 + NOISE_US)
            t->rate = clamp(t, t->rate / 5 * 3);
        else if (p95 < t->base_us + t->base_us / 4 + NOISE_US && t->limited)
            t->rate = clamp(t, t->rate + MAX(t->rate / 4, GROW_MIN));
    }
    window_open(t, now_us);
}

bool resync_throttle_busy(const struct resync_throttle *t, uint64_t now_us)
{
    return t->seen_us && now_us < t->seen_us + IDLE_US;
}

void resync_throttle_foreground(struct resync_throttle *t, uint64_t latency_us, uint64_t now_us)
{
    if (!resync_throttle_busy(t, now_us)) { /* it begins: what was gathered while idle is not spent on it */
        window_open(t, now_us);
        t->tokens = MIN(t->tokens, 0);
        t->filled_us = now_us;
        t->rate = clamp(t, MIN(t->rate, START_RATE));
        if (!t->base_us)
            t->pause_until_us = now_us + PAUSE_US;
        t->next_pause_us = now_us + PAUSE_EVERY;
    }
    t->seen_us = now_us;
    if (!latency_us)
        return;
    if (t->copied_us && now_us - MIN(now_us, t->copied_us) <= latency_us)
        t->mixed = true; /* copying went on while this request was under way */
    t->samples++;
    t->buckets[bucket_of(latency_us)]++;
    uint64_t open = now_us - t->window_us;
    if ((open >= WINDOW_US && t->samples >= SAMPLES_MIN) || open >= WINDOW_MOST)
        window_close(t, now_us);
}

uint64_t resync_throttle_rate(const struct resync_throttle *t, uint64_t now_us)
{
    return resync_throttle_busy(t, now_us) ? t->rate : t->cap;
}

static void fill(struct resync_throttle *t, uint64_t rate, uint64_t now_us)
{
    uint64_t most = t->pause_until_us > t->filled_us ? PAUSE_US + BURST_US : BURST_US;
    uint64_t passed = MIN(now_us - MIN(now_us, t->filled_us), SECOND);
    /* The product fits: rate is cut to 2^40 bytes a second. */
    int64_t add = (int64_t)(MIN(rate, 1ull << 40) * passed / SECOND);
    int64_t burst = (int64_t)(MIN(rate, 1ull << 40) * most / SECOND);
    if (add == 0 && passed < SECOND)
        return; /* wait until it makes a byte */
    t->filled_us = now_us;
    if (t->tokens < burst)
        t->tokens = MIN(t->tokens + add, burst);
}

bool resync_throttle_take(struct resync_throttle *t, uint64_t bytes, uint64_t now_us)
{
    uint64_t rate = resync_throttle_rate(t, now_us);
    bool busy = resync_throttle_busy(t, now_us);
    fill(t, rate, now_us);
    if (busy && now_us >= t->next_pause_us) {
        t->pause_until_us = now_us + PAUSE_US;
        t->next_pause_us = now_us + PAUSE_EVERY;
        window_open(t, now_us);
    }
    if (busy && now_us < t->pause_until_us)
        return false;
    if (t->pause_until_us) { /* it is over: what few requests have shown counts too */
        t->pause_until_us = 0;
        if (busy && !t->mixed && t->samples >= 3)
            window_close(t, now_us);
    }
    if (rate != UINT64_MAX && t->tokens < 0) {
        t->limited = true;
        return false;
    }
    if (rate != UINT64_MAX)
        t->tokens -= (int64_t)MIN(bytes, 1ull << 40);
    t->copied_us = now_us;
    return true;
}

void resync_throttle_put_back(struct resync_throttle *t, uint64_t bytes)
{
    t->tokens += (int64_t)MIN(bytes, 1ull << 40);
}

void resync_throttle_ended(struct resync_throttle *t, uint64_t now_us)
{
    t->copied_us = now_us;
}

uint64_t resync_throttle_next(const struct resync_throttle *t, uint64_t now_us)
{
    uint64_t rate = resync_throttle_rate(t, now_us);
    if (resync_throttle_busy(t, now_us) && now_us < t->pause_until_us)
        return t->pause_until_us;
    if (rate == UINT64_MAX || t->tokens >= 0)
        return now_us;
    return now_us + (uint64_t)(-t->tokens) * 1000 / MAX(rate / 1000, 1u) + 1;
}
