/* The checkers themselves: histories that one block could have shown, and those it could not. */
#include "tests/simulation/sim_history.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static enum sim_order order_of(const struct sim_access *accesses, size_t count)
{
    struct sim_access copy[16];
    assert_true(count <= ARRAY_SIZE(copy));
    memcpy(copy, accesses, count * sizeof(*accesses));
    return sim_order_search(copy, count);
}

#define NEVER UINT64_MAX
#define R(start, end, tag)           {SIM_ACCESS_READ, start, end, tag, 0}
#define W(start, end, tag)           {SIM_ACCESS_WRITE, start, end, tag, 0}
#define CAW(start, end, expect, tag) {SIM_ACCESS_COMPARE, start, end, tag, expect}
#define NOT(start, end, expect, tag) {SIM_ACCESS_DIFFERS, start, end, tag, expect}
#define ORDER(...) order_of((const struct sim_access[]){__VA_ARGS__}, ARRAY_SIZE(((const struct sim_access[]){__VA_ARGS__})))

static void comparisons_have_an_order(void **state)
{
    (void)state;
    assert_int_equal(ORDER(W(1, 2, 5), CAW(3, 4, 5, 6), R(5, 6, 6)), SIM_ORDERED);
    assert_int_equal(ORDER(CAW(1, 9, 0, 6), CAW(1, 9, 6, 7), R(10, 11, 7)), SIM_ORDERED);    /* the one after the other */
    assert_int_equal(ORDER(CAW(1, 9, 0, 6), CAW(1, 9, 0, 7)), SIM_NO_ORDER);                 /* both cannot have matched */
    assert_int_equal(ORDER(CAW(1, 9, 0, 6), NOT(1, 9, 0, 7)), SIM_ORDERED);
    assert_int_equal(ORDER(NOT(1, 2, 0, 7)), SIM_NO_ORDER);                                  /* nothing else was there */
    assert_int_equal(ORDER(W(1, 9, 5), NOT(1, 9, 0, 7), R(1, 9, 0)), SIM_ORDERED);
    assert_int_equal(ORDER(W(1, 2, 5), CAW(3, 4, 0, 6)), SIM_NO_ORDER);                      /* a stale comparison */
    assert_int_equal(ORDER(W(1, 2, 5), R(2, 3, 0)), SIM_ORDERED);                            /* at one moment: they overlap */
    assert_int_equal(ORDER(W(1, 2, 5), R(3, 4, 0)), SIM_NO_ORDER);
}

static void answers_that_never_came_count_when_seen(void **state)
{
    (void)state;
    assert_int_equal(ORDER(W(1, NEVER, 5), R(3, 4, 0), R(5, 6, 5)), SIM_ORDERED); /* it took effect late */
    assert_int_equal(ORDER(W(1, NEVER, 5), R(3, 4, 5), R(5, 6, 0)), SIM_NO_ORDER);
    assert_int_equal(ORDER(CAW(1, NEVER, 0, 5), CAW(1, NEVER, 5, 6), R(3, 4, 6)), SIM_ORDERED);
    assert_int_equal(ORDER(CAW(1, NEVER, 0, 5), CAW(1, NEVER, 0, 6), R(3, 4, 5), R(5, 6, 6)), SIM_NO_ORDER);
    assert_int_equal(ORDER(W(1, NEVER, 5), NOT(2, 3, 0, 9), R(4, 5, 0)), SIM_NO_ORDER); /* what differed then cannot go back */
    assert_int_equal(ORDER(W(1, NEVER, 5), W(1, NEVER, 6), NOT(2, 3, 0, 9), R(4, 5, 6)), SIM_ORDERED);
    assert_int_equal(ORDER(W(1, NEVER, 5), CAW(2, 3, 0, 6), R(4, 5, 6)), SIM_ORDERED); /* never seen: never happened */
}

static void reads_and_writes_by_zones(void **state)
{
    (void)state;
    for (unsigned stale = 0; stale < 2; stale++) {
        struct sim_world world;
        struct sim_history history;
        sim_world_init(&world, 1);
        sim_history_init(&history, &world, 1);
        sim_history_write(&history, 0, 5);
        world.now_us += 10;
        sim_history_written(&history, 0, 5, world.now_us - 10);
        world.now_us += 10;
        sim_history_read(&history, 0, stale ? 0 : 5, world.now_us - 5);
        sim_history_check(&history);
        assert_int_equal(world.violated, stale);
        sim_history_done(&history);
        sim_world_done(&world);
    }
}

/* What zones and search say of the same histories by lot must agree. */
static void zones_and_search_agree(void **state)
{
    (void)state;
    unsigned ordered = 0, none = 0;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        struct sim_world world;
        struct sim_history history;
        sim_world_init(&world, seed);
        sim_history_init(&history, &world, 1);
        uint32_t tags = 1 + (uint32_t)sim_random(&world, 3);
        for (uint32_t tag = 1; tag <= tags; tag++) {
            uint64_t begin = 1000000 + sim_random(&world, 50), end = begin + 1 + sim_random(&world, 20);
            world.now_us = begin;
            sim_history_write(&history, 0, tag);
            world.now_us = end;
            if (sim_chance(&world, 7000))
                sim_history_written(&history, 0, tag, begin);
        }
        for (unsigned i = 0; i < 4; i++) { /* reads of what was begun before */
            uint64_t begin = 1000000 + sim_random(&world, 80);
            uint32_t tag = (uint32_t)sim_random(&world, tags + 1);
            world.now_us = begin + 1 + sim_random(&world, 10);
            if (tag == 0 || history.blocks[0].values[tag].write_start < world.now_us)
                sim_history_read(&history, 0, tag, begin);
        }
        /* Zones take a read that ended before its write began for granted: no such history was made. */
        sim_history_check(&history);
        enum sim_order order = sim_order_search(history.blocks[0].accesses, history.blocks[0].access_count);
        assert_int_equal(order, world.violated ? SIM_NO_ORDER : SIM_ORDERED);
        *(world.violated ? &none : &ordered) += 1;
        sim_history_done(&history);
        sim_world_done(&world);
    }
    assert_true(ordered > 300 && none > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comparisons_have_an_order),
        cmocka_unit_test(answers_that_never_came_count_when_seen),
        cmocka_unit_test(reads_and_writes_by_zones),
        cmocka_unit_test(zones_and_search_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
