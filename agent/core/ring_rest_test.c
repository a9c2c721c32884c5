#include "agent/core/ring_rest.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define SELF 2

static const uint16_t alone[] = {SELF}, pair[] = {1, SELF};
static const struct ring_rest_heard hub = {.outside = true}, hub_quorate = {.outside = true, .quorate = true}, nobody = {0},
                                    all_quorate = {.outside = true, .everybody = true, .quorate = true};

static enum ring_rest_action run(struct ring_rest *rest, const struct ring_rest_heard *heard, uint64_t from_ms, uint64_t to_ms,
                                 uint64_t *ret_ms)
{
    for (uint64_t now = from_ms; now <= to_ms; now += 100) {
        enum ring_rest_action action = ring_rest_step(rest, SELF, heard, now);
        if (ret_ms)
            *ret_ms = now;
        if (action != RING_REST_NOTHING)
            return action;
    }
    return RING_REST_NOTHING;
}

/* Rings of one, 400 ms apart, from `from`; the time of the last. */
static uint64_t churn(struct ring_rest *rest, uint64_t from_ms, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        ring_rest_view(rest, alone, 1, false, from_ms + 400 * i);
    return from_ms + 400 * (count - 1);
}

static void rests_when_it_is_alone_again_and_again_and_hears_others(void **state)
{
    struct ring_rest rest = {0};
    (void)state;
    uint64_t now = churn(&rest, 1000, RING_REST_REPEATS - 1);
    assert_int_equal(run(&rest, &hub, now, now + 300, NULL), RING_REST_NOTHING);
    ring_rest_view(&rest, alone, 1, false, now + 400);
    assert_int_equal(ring_rest_step(&rest, SELF, &hub, now + 400), RING_REST_STOP);
    assert_true(rest.resting);
}

static void never_rests_when_it_hears_nobody(void **state)
{
    struct ring_rest rest = {0};
    (void)state;
    uint64_t now = churn(&rest, 1000, 50);
    assert_int_equal(run(&rest, &nobody, now, now + 10000, NULL), RING_REST_NOTHING);
}

static void one_loss_of_the_majority_is_no_reason(void **state)
{
    struct ring_rest rest = {0};
    (void)state;
    churn(&rest, 1000, 1);
    assert_int_equal(run(&rest, &hub, 1000, 60000, NULL), RING_REST_NOTHING);
}

static void a_majority_in_between_begins_the_count_anew(void **state)
{
    struct ring_rest rest = {0};
    (void)state;
    uint64_t now = 1000;
    for (unsigned i = 0; i < 20; i++, now += 400) {
        ring_rest_view(&rest, i % 3 == 2 ? pair : alone, i % 3 == 2 ? 2 : 1, i % 3 == 2, now);
        assert_int_equal(ring_rest_step(&rest, SELF, &hub, now), RING_REST_NOTHING);
    }
}

static void minorities_that_differ_or_are_long_apart_do_not_count(void **state)
{
    struct ring_rest rest = {0};
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        ring_rest_view(&rest, i % 2 ? pair : alone, i % 2 ? 2 : 1, false, 1000 + 400 * i);
        assert_int_equal(ring_rest_step(&rest, SELF, &hub, 1000 + 400 * i), RING_REST_NOTHING);
    }
    for (unsigned i = 0; i < 20; i++) {
        uint64_t now = 20000 + (RING_REST_GAP_MS + 100) * i;
        ring_rest_view(&rest, alone, 1, false, now);
        assert_int_equal(ring_rest_step(&rest, SELF, &hub, now), RING_REST_NOTHING);
    }
}

static struct ring_rest resting(uint64_t *ret_ms)
{
    struct ring_rest rest = {0};
    *ret_ms = churn(&rest, 1000, RING_REST_REPEATS);
    assert_int_equal(ring_rest_step(&rest, SELF, &hub, *ret_ms), RING_REST_STOP);
    return rest;
}

static void comes_back_when_the_cut_is_healed(void **state)
{
    uint64_t now, back;
    struct ring_rest rest = resting(&now);
    (void)state;
    assert_int_equal(run(&rest, &hub_quorate, now, now + 1500, NULL), RING_REST_NOTHING);
    assert_int_equal(run(&rest, &all_quorate, now + 1600, now + 5000, &back), RING_REST_START);
    assert_int_equal(back, now + 1600 + RING_REST_HEAL_MS);
    assert_false(rest.resting);
}

/* Only corosync's packets are lost: that the links are well says nothing. */
static void a_cut_that_the_links_do_not_show_is_not_taken_for_healed(void **state)
{
    struct ring_rest rest = {0};
    uint64_t now = churn(&rest, 1000, RING_REST_REPEATS), back;
    (void)state;
    assert_int_equal(ring_rest_step(&rest, SELF, &all_quorate, now), RING_REST_STOP);
    assert_int_equal(run(&rest, &all_quorate, now, now + 2 * RING_REST_MIN_MS, &back), RING_REST_START);
    assert_true(back >= now + RING_REST_MIN_MS);
}

/* The other end died: the hub needs us for a majority. */
static void comes_back_when_those_it_hears_are_not_quorate_without_it(void **state)
{
    uint64_t now, back;
    struct ring_rest rest = resting(&now);
    (void)state;
    assert_int_equal(run(&rest, &hub_quorate, now, now + 1000, NULL), RING_REST_NOTHING);
    assert_int_equal(run(&rest, &hub, now + 1100, now + 9000, &back), RING_REST_START);
    assert_true(back <= now + 1100 + RING_REST_ALONE_MS + RING_REST_SHARES * RING_REST_SHARE_MS);
    assert_true(back >= now + 1100 + RING_REST_ALONE_MS);
}

static void two_that_rest_at_once_come_back_one_after_the_other(void **state)
{
    uint64_t now, first = 0, second = 0;
    struct ring_rest a = resting(&now), b = a;
    (void)state;
    for (uint64_t at = now; !first || !second; at += 100) {
        assert_true(at < now + 20000);
        if (!first && ring_rest_step(&a, 4, &hub, at) == RING_REST_START)
            first = at;
        if (!second && ring_rest_step(&b, 5, &hub, at) == RING_REST_START)
            second = at;
    }
    assert_true(second >= first + RING_REST_SHARE_MS);
}

static void rests_longer_each_time_up_to_a_limit_and_calm_forgives(void **state)
{
    uint64_t now, back = 0, last = 0;
    struct ring_rest rest = resting(&now);
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(run(&rest, &hub_quorate, now, now + 2 * RING_REST_MAX_MS, &back), RING_REST_START);
        assert_true(back - now >= last && back - now >= RING_REST_MIN_MS && back - now <= RING_REST_MAX_MS + 100);
        assert_true(i >= 3 || back - now > last);
        last = back - now;
        now = churn(&rest, back + 500, RING_REST_REPEATS);
        assert_int_equal(ring_rest_step(&rest, SELF, &hub, now), RING_REST_STOP);
    }
    assert_int_equal(run(&rest, &all_quorate, now, now + 5000, &back), RING_REST_START);
    assert_int_equal(run(&rest, &all_quorate, back, back + RING_REST_CALM_MS, &now), RING_REST_NOTHING);
    now = churn(&rest, now, RING_REST_REPEATS);
    assert_int_equal(ring_rest_step(&rest, SELF, &hub, now), RING_REST_STOP);
    assert_int_equal(rest.until_ms - now, RING_REST_MIN_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rests_when_it_is_alone_again_and_again_and_hears_others),
        cmocka_unit_test(never_rests_when_it_hears_nobody),
        cmocka_unit_test(one_loss_of_the_majority_is_no_reason),
        cmocka_unit_test(a_majority_in_between_begins_the_count_anew),
        cmocka_unit_test(minorities_that_differ_or_are_long_apart_do_not_count),
        cmocka_unit_test(comes_back_when_the_cut_is_healed),
        cmocka_unit_test(a_cut_that_the_links_do_not_show_is_not_taken_for_healed),
        cmocka_unit_test(comes_back_when_those_it_hears_are_not_quorate_without_it),
        cmocka_unit_test(two_that_rest_at_once_come_back_one_after_the_other),
        cmocka_unit_test(rests_longer_each_time_up_to_a_limit_and_calm_forgives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
