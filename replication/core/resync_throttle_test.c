#include "replication/core/resync_throttle.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define PIECE  65536u
#define SECOND 1000000u
#define MIB    (1ull << 20)

/* A foreground of one request each 500 us whose latency grows with the copying of the last 10 ms: base_us alone, doubled at
 * full_rate. Pieces are asked for as fast as they are granted. Returns bytes copied. */
static uint64_t run(struct resync_throttle *t, uint64_t *now, uint64_t for_us, bool foreground, uint64_t base_us,
                    uint64_t full_rate)
{
    uint64_t copied = 0, end = *now + for_us, request_at = *now, recent = 0, recent_at = *now;
    for (; *now < end; *now += 100) {
        for (unsigned i = 0; i < 64 && resync_throttle_take(t, PIECE, *now); i++) {
            copied += PIECE;
            recent += PIECE;
            resync_throttle_ended(t, *now);
        }
        if (foreground && *now >= request_at) {
            uint64_t rate = full_rate ? recent * 100 : 0;
            resync_throttle_foreground(t, base_us + (full_rate ? base_us * rate / full_rate : 0), *now);
            request_at += 500;
        }
        if (*now - recent_at >= 10000) {
            recent = 0;
            recent_at = *now;
        }
    }
    return copied;
}

static void an_idle_volume_copies_without_limit(void **state)
{
    struct resync_throttle t;
    uint64_t now = 1000;
    (void)state;
    resync_throttle_init(&t, now);
    assert_int_equal(run(&t, &now, SECOND, false, 0, 0), 10000ull * 64 * PIECE); /* each piece asked for */
    assert_int_equal(resync_throttle_rate(&t, now), UINT64_MAX);
}

static void the_cap_holds_on_an_idle_volume(void **state)
{
    struct resync_throttle t;
    uint64_t now = 1000;
    (void)state;
    resync_throttle_init(&t, now);
    resync_throttle_set(&t, 0, 50 * MIB);
    uint64_t copied = run(&t, &now, 4 * SECOND, false, 0, 0);
    assert_in_range(copied, 195 * MIB, 205 * MIB);
}

static void a_foreground_that_suffers_gets_the_disk_and_copying_its_floor(void **state)
{
    struct resync_throttle t;
    uint64_t now = 1000;
    (void)state;
    resync_throttle_init(&t, now);
    resync_throttle_set(&t, 4 * MIB, 0);
    run(&t, &now, 3 * SECOND, true, 200, 1 * MIB); /* any copying hurts */
    uint64_t copied = run(&t, &now, 6 * SECOND, true, 200, 1 * MIB);
    assert_in_range(copied, 22 * MIB, 27 * MIB); /* 24, pauses included */
}

static void copying_grows_while_the_foreground_does_not_suffer(void **state)
{
    struct resync_throttle t;
    uint64_t now = 1000;
    (void)state;
    resync_throttle_init(&t, now);
    run(&t, &now, 10 * SECOND, true, 200, 1000000 * MIB);
    assert_true(resync_throttle_rate(&t, now) > 300 * MIB);
}

static void it_settles_where_latency_is_half_as_much_again(void **state)
{
    struct resync_throttle t;
    uint64_t now = 1000;
    (void)state;
    resync_throttle_init(&t, now);
    run(&t, &now, 6 * SECOND, true, 2000, 200 * MIB); /* twice as slow at 200 MiB/s */
    uint64_t copied = run(&t, &now, 6 * SECOND, true, 2000, 200 * MIB) / 6;
    assert_in_range(copied, 30 * MIB, 120 * MIB);
}

static void what_was_idle_is_not_spent_when_the_foreground_begins(void **state)
{
    struct resync_throttle t;
    uint64_t now = 1000;
    (void)state;
    resync_throttle_init(&t, now);
    run(&t, &now, SECOND, false, 0, 0);
    resync_throttle_foreground(&t, 0, now);
    assert_true(resync_throttle_busy(&t, now));
    assert_false(resync_throttle_take(&t, PIECE, now)); /* first it learns what the latency is without */
    assert_true(resync_throttle_next(&t, now) > now);
    assert_true(resync_throttle_take(&t, PIECE, resync_throttle_next(&t, now)));
    assert_false(resync_throttle_busy(&t, now + SECOND));
}

static void a_cap_below_the_floor_wins(void **state)
{
    struct resync_throttle t;
    uint64_t now = 1000;
    (void)state;
    resync_throttle_init(&t, now);
    resync_throttle_set(&t, 8 * MIB, 2 * MIB);
    resync_throttle_foreground(&t, 100, now);
    assert_int_equal(resync_throttle_rate(&t, now), 2 * MIB);
    assert_in_range(run(&t, &now, 5 * SECOND, true, 200, 1 * MIB), 8 * MIB, 11 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_volume_copies_without_limit),
        cmocka_unit_test(the_cap_holds_on_an_idle_volume),
        cmocka_unit_test(a_foreground_that_suffers_gets_the_disk_and_copying_its_floor),
        cmocka_unit_test(copying_grows_while_the_foreground_does_not_suffer),
        cmocka_unit_test(it_settles_where_latency_is_half_as_much_again),
        cmocka_unit_test(what_was_idle_is_not_spent_when_the_foreground_begins),
        cmocka_unit_test(a_cap_below_the_floor_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
