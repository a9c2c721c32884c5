/* The replicated log under a seeded storm: crashes between any two effects, partitions, ghosts, hangs, voter changes, snapshots.
 * The checks are in rsm_testbus.c; at the end all come together and must hold the same, with all that was acknowledged.
 * RSM_SEED=n runs one seed, RSM_RUNS=n so many from 1. */
#include "agent/core/rsm_testbus.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static size_t acknowledged; /* of all runs */

struct storm {
    struct testbus bus;
    uint64_t next_value;
    unsigned proposals, crashes, views;
};

static void proposal(struct storm *s, uint16_t id)
{
    enum rsm_change change = RSM_CHANGE_NONE;
    uint16_t nodeid = 0;
    if (testbus_random(&s->bus, 12) == 0) {
        change = testbus_random(&s->bus, 3) ? RSM_CHANGE_ADD_VOTER : RSM_CHANGE_REMOVE_VOTER;
        nodeid = (uint16_t)(1 + testbus_random(&s->bus, s->bus.node_count));
    }
    int status = testbus_propose(&s->bus, id, ++s->next_value, change, nodeid);
    assert_true(status == 0 || status == -EAGAIN || status == -ENODEV);
    s->proposals++;
}

static void view_change(struct storm *s)
{
    struct testbus *bus = &s->bus;
    unsigned groups = 1 + (unsigned)testbus_random(bus, 3);
    for (size_t i = 0; i < bus->node_count; i++)
        bus->nodes[i].group = (unsigned)testbus_random(bus, groups);
    testbus_view_change(bus, true);
    s->views++;
}

static void mishap(struct storm *s)
{
    struct testbus *bus = &s->bus;
    struct testbus_node *node = &bus->nodes[testbus_random(bus, bus->node_count)];
    switch (testbus_random(bus, 6)) {
    case 0:
        if (node->up)
            node->crash_after = (int)testbus_random(bus, 12); /* between some effect and the next */
        s->crashes++;
        break;
    case 1:
        if (!node->up)
            testbus_start(bus, node->id);
        view_change(s);
        break;
    case 2:
        node->stalled = node->up && !node->stalled;
        break;
    case 3:
        view_change(s);
        break;
    case 4:
        for (size_t i = 0; i < bus->node_count; i++)
            bus->nodes[i].group = 0;
        testbus_view_change(bus, testbus_random(bus, 2));
        break;
    case 5:
        if (node->inbox_count && !node->inbox[node->inbox_count - 1].is_view) /* a letter is lost without a view change */
            free(node->inbox[--node->inbox_count].data);
        break;
    }
}

static void turn(struct storm *s)
{
    struct testbus *bus = &s->bus;
    uint64_t lot = testbus_random(bus, 1000);
    uint16_t id = (uint16_t)(1 + testbus_random(bus, bus->node_count));
    if (lot < 8)
        mishap(s);
    else if (lot < 60 && testbus_node(bus, id)->up)
        proposal(s, id);
    else if (lot < 80 && testbus_node(bus, id)->up)
        (void)testbus_barrier(bus, id, 1 + testbus_random(bus, UINT32_MAX));
    else if (lot < 200)
        testbus_tick(bus, 1 + testbus_random(bus, 40));
    else
        testbus_deliver_some(bus, 1 + (unsigned)testbus_random(bus, 8));
}

static void calm(struct storm *s)
{
    struct testbus *bus = &s->bus;
    for (size_t i = 0; i < bus->node_count; i++) {
        struct testbus_node *node = &bus->nodes[i];
        node->group = 0;
        node->stalled = false;
        node->crash_after = -1;
        if (!node->up)
            testbus_start(bus, node->id);
    }
    testbus_view_change(bus, true);
    testbus_run(bus, 10000);
}

static void check_convergence(struct storm *s)
{
    struct testbus *bus = &s->bus;
    struct rsm_status first, status;
    rsm_get_status(bus->nodes[0].rsm, &first);
    for (size_t i = 0; i < bus->node_count; i++) {
        struct testbus_node *node = &bus->nodes[i];
        rsm_get_status(node->rsm, &status);
        if (getenv("RSM_SEED"))
            print_message("node %u: role %d term %llu sequencer %u last %llu commit %llu pending %zu voters %zu committed %d\n",
                          node->id, status.role, (unsigned long long)status.term, status.sequencer,
                          (unsigned long long)status.last_index, (unsigned long long)status.commit, status.pending,
                          status.voter_count, status.config_committed);
    }
    for (size_t i = 0; i < bus->node_count; i++) {
        struct testbus_node *node = &bus->nodes[i];
        rsm_get_status(node->rsm, &status);
        assert_true(status.quorate);
        assert_int_equal(status.sequencer, first.sequencer);
        assert_int_equal(status.pending, 0);
        assert_int_equal(status.applied, first.applied);
        assert_int_equal(status.last_index, status.applied);
        assert_int_equal(node->state.count, bus->nodes[0].state.count);
        assert_memory_equal(node->state.items, bus->nodes[0].state.items, node->state.count * sizeof(uint64_t));
        for (size_t j = 0; j < bus->acknowledged.count; j++)
            if (!testbus_holds(node, bus->acknowledged.items[j]))
                fail_msg("acknowledged value lost at node %u", node->id);
    }
}

static void storm_run(uint64_t seed, unsigned turns)
{
    struct storm s = {.next_value = 0};
    testbus_init(&s.bus, 3 + seed % 3, seed);
    s.bus.options.snapshot_entries = 10 + (uint32_t)(seed % 40);
    s.bus.options.keep_entries = 1 + (uint32_t)(seed % 7);
    testbus_form(&s.bus);
    for (unsigned i = 0; i < turns; i++)
        turn(&s);
    calm(&s);
    check_convergence(&s);
    if (getenv("RSM_SEED"))
        print_message("seed %llu: %u proposals, %zu acknowledged, %u crashes, %u views, %llu messages\n",
                      (unsigned long long)seed, s.proposals, s.bus.acknowledged.count, s.crashes, s.views,
                      (unsigned long long)s.bus.messages);
    acknowledged += s.bus.acknowledged.count;
    testbus_done(&s.bus);
}

static void storms_lose_and_split_nothing(void **state)
{
    (void)state;
    const char *one = getenv("RSM_SEED"), *runs = getenv("RSM_RUNS");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1, last = one ? first : runs ? strtoull(runs, NULL, 10) : 40;
    for (uint64_t seed = first; seed <= last; seed++) {
        char text[32];
        snprintf(text, sizeof(text), "%llu", (unsigned long long)seed);
        setenv("RSM_LAST_SEED", text, 1);
        storm_run(seed, 6000);
    }
    assert_true(acknowledged > (last - first + 1) * 15); /* it did something */
}

static int seed_print(void **state)
{
    (void)state;
    print_message("last seed: %s\n", getenv("RSM_LAST_SEED") ? getenv("RSM_LAST_SEED") : "none");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(storms_lose_and_split_nothing, seed_print)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
