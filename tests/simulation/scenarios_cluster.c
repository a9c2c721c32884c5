/* The cluster: nodes that join, hang, flap; the wire, the clocks, the log. */
#include "tests/simulation/story.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void fill_log(struct sim *sim, unsigned changes)
{
    for (unsigned i = 0; i < changes; i++) {
        (void)sim_control_change(sim_sequencer(sim));
        sim_run(sim, 20);
    }
}

static bool place_votes(struct sim *sim, void *argument)
{
    const struct tree_node *entry = tree_node_by_id(sim_tree(sim), (uint16_t)(*(unsigned *)argument + 1));
    return entry && entry->voter;
}

void s25_joiner_dies_during_state_transfer(void **state)
{
    (void)state;
    unsigned joiner = 3;
    for (unsigned after_ms = 150; after_ms < 400; after_ms += 25) {
        struct sim *sim = cluster(3, 3, 0);
        fill_log(sim, 80); /* it needs a snapshot */
        sim_join(sim, joiner);
        sim_run(sim, after_ms);
        sim_node_crash(&sim->nodes[joiner], SIM_CRASH_POWER);
        size_t before = sim->acknowledged_count;
        fill_log(sim, 100);
        assert_true(sim->acknowledged_count > before); /* nobody hangs */
        sim_node_start(&sim->nodes[joiner]);
        assert_true(sim_wait(sim, 20000, place_votes, &joiner));
        happy_end(sim);
    }
}

void s28_state_transfer_donor_dies(void **state)
{
    (void)state;
    unsigned joiner = 3;
    for (unsigned after_ms = 150; after_ms < 400; after_ms += 25) {
        struct sim *sim = cluster(3, 3, 0);
        fill_log(sim, 80);
        sim_join(sim, joiner);
        sim_run(sim, after_ms);
        sim_node_crash(sim_sequencer(sim), SIM_CRASH_POWER);
        assert_true(sim_wait(sim, 20000, place_votes, &joiner));
        happy_end(sim);
    }
}

void minority_acknowledges_no_change(void **state)
{
    (void)state;
    struct sim *sim = cluster(5, 3, 0);
    struct sim_node *cut = sim_sequencer(sim);
    sim_isolate(sim, cut->place, true);
    sim_run(sim, 5);
    size_t before = sim->acknowledged_count;
    assert_true(sim_control_change(cut));
    sim_run(sim, 8000);
    assert_int_equal(sim->acknowledged_count, before);
    assert_true(sim_sequencer(sim) != cut && sim_control_change(sim_sequencer(sim)));
    sim_run(sim, 1000);
    assert_int_equal(sim->acknowledged_count, before + 1);
    happy_end(sim);
}

/* A log store without room: the transaction fails whole, the node steps out, the others go on; with room again nothing is half. */
static void log_fails(bool sequencer)
{
    struct sim *sim = cluster(3, 3, 0);
    if (!sequencer && sim_owner(sim, 0) == sim_sequencer(sim)) {
        (void)sim_control_promote(sim_sequencer(sim), 0, replica(sim, (replica_of(sim, sim_owner(sim, 0)) + 1) % 3)->nodeid, 7);
        wait_epoch(sim, 2, 3000);
    }
    struct sim_node *node = sequencer ? sim_sequencer(sim) : sim_owner(sim, 0);
    bool owner = node == sim_owner(sim, 0);
    uint64_t epoch = sim_volume(sim, 0)->epoch;
    fill_log(sim, 3);
    node->log_broken = true;
    (void)sim_control_change(sim_sequencer(sim));
    sim_run(sim, 100);
    assert_true(node->control.failed && !node->authority);
    if (owner)
        wait_epoch(sim, epoch + 1, 8000);
    sim_run(sim, 1500);
    size_t before = sim->acknowledged_count;
    assert_ptr_not_equal(sim_sequencer(sim), node);
    fill_log(sim, 10);
    assert_true(sim->acknowledged_count >= before + 9);
    must_succeed(sim, writes(sim_owner(sim, 0), 7), 5000);
    assert_ptr_not_equal(sim_owner(sim, 0), node);
    sim_node_crash(node, SIM_CRASH_PROCESS);
    node->log_broken = false;
    sim_node_start(node); /* from whole entries, or the simulation says so */
    happy_end(sim);
}

void s14_log_store_full(void **state)
{
    (void)state;
    log_fails(true);
    log_fails(false);
}

/* The same answer when the log's sync fails while transactions of all kinds are under way. */
void s15_log_sync_fails(void **state)
{
    (void)state;
    for (unsigned after_us = 0; after_us < 3000; after_us += 250) {
        struct sim *sim = cluster(3, 3, 0);
        struct sim_node *node = &sim->nodes[after_us / 250 % 3];
        for (unsigned i = 0; i < 4; i++)
            (void)sim_control_change(sim_sequencer(sim));
        sim_run_until(&sim->world, sim->world.now_us + after_us);
        node->log_broken = true;
        sim_node_crash(&sim->nodes[(node->place + 1) % 3], SIM_CRASH_PROCESS); /* a new term besides */
        sim_run(sim, 300);
        sim_node_start(&sim->nodes[(node->place + 1) % 3]);
        sim_run(sim, 4000);
        assert_true(node->control.failed);
        size_t before = sim->acknowledged_count;
        fill_log(sim, 5);
        assert_true(sim->acknowledged_count > before); /* the two others are a majority */
        happy_end(sim);
    }
}

static void flapping(bool link)
{
    struct sim *sim = cluster(3, 3, 0);
    struct sim_node *owner = sim_owner(sim, 0), *member = replica(sim, (replica_of(sim, owner) + 1) % 3);
    sim_client_start(sim);
    for (unsigned turn = 0; turn < 40; turn++) {
        if (link) {
            sim_link_cut(sim, owner->place, member->place, true);
            sim_run(sim, 700);
            sim_link_cut(sim, owner->place, member->place, false);
            sim_run(sim, 300);
        } else {
            sim_node_crash(owner, turn % 2 ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
            sim_run(sim, 600);
            sim_node_start(owner);
            sim_run(sim, 400);
        }
    }
    fine(sim);
    print_message("40 flaps in 40 s: epoch %llu, version %llu of the in-sync set\n", (unsigned long long)sim_volume(sim, 0)->epoch,
                  (unsigned long long)sim_volume(sim, 0)->isr_version);
    assert_true(sim_volume(sim, 0)->epoch < 12); /* FAILOVER_BURST, then further and further apart */
    assert_true(sim_volume(sim, 0)->isr_version < 40);
    happy_end(sim); /* no resync is stuck */
}

void s21_flapping_link(void **state)
{
    (void)state;
    flapping(true);
}

void s21_flapping_node(void **state)
{
    (void)state;
    flapping(false);
}

void s26_join_during_a_failover(void **state)
{
    (void)state;
    unsigned joiner = 3;
    for (unsigned after_ms = 0; after_ms < 1500; after_ms += 125) {
        struct sim *sim = cluster(3, 3, 0);
        fill_log(sim, 50);
        struct sim_node *owner = sim_owner(sim, 0);
        if (owner == sim_sequencer(sim)) {
            (void)sim_control_promote(owner, 0, replica(sim, 1)->nodeid, 7);
            wait_epoch(sim, 2, 3000);
            owner = sim_owner(sim, 0);
        }
        uint64_t epoch = sim_volume(sim, 0)->epoch;
        sim_node_crash(owner, SIM_CRASH_POWER);
        sim_run(sim, after_ms);
        sim_join(sim, joiner);
        fine(sim);
        bool learned = !tree_node_by_id(sim_tree(sim), 4)->voter;
        for (unsigned i = 0; i < 4000 && !tree_node_by_id(sim_tree(sim), 4)->voter; i++) {
            sim_run(sim, 1);
            learned |= sim->nodes[joiner].control.applied > 0 && !tree_node_by_id(sim_tree(sim), 4)->voter;
        }
        assert_true(learned); /* a learner only, until it has the log */
        assert_true(sim->nodes[joiner].control.applied + 64 >= sim_sequencer(sim)->control.applied);
        wait_epoch(sim, epoch + 1, 5000);
        must_succeed(sim, writes(sim_owner(sim, 0), 7), 5000);
        assert_true(sim_wait(sim, 20000, place_votes, &joiner));
        happy_end(sim);
    }
}

void s31_slow_link(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    struct sim_node *owner = sim_owner(sim, 0);
    unsigned k = (replica_of(sim, owner) + 1) % 3;
    struct sim_link *link = sim_link_between(sim, owner->place, replica(sim, k)->place);
    sim->restarts = false;
    for (unsigned i = 0; i < 40; i++) { /* what it carries comes later and later, yet it is not silent */
        link->last_at[0] += 250000;
        link->last_at[1] += 250000;
        struct sim_op *op = writes(owner, 9);
        sim_run(sim, 200);
        if (sim_volume(sim, 0)->isr != 7)
            break;
        (void)op;
    }
    assert_int_equal(sim_volume(sim, 0)->isr, 7u & ~(1u << k));
    must_succeed(sim, writes(owner, 9), 2000);
    sim_link_break(sim, owner->place, replica(sim, k)->place);
    happy_end(sim);
}

/* Detected and sent again: peer_session_test shows that the link ends at each flipped bit, this that nothing is lost by it. */
void s32_bits_flip_on_the_wire(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    sim->mix = (struct sim_mix){.wire = 40, .reads = 5000, .compares = 1000, .hot = 500, .hot_blocks = 6, .client_us = 1000};
    sim->mishaps = true;
    sim_client_start(sim);
    sim_run(sim, 20000);
    fine(sim);
    print_message("%u frames damaged, %u writes, epoch %llu\n", sim->counts.damaged, sim->counts.writes,
                  (unsigned long long)sim_volume(sim, 0)->epoch);
    assert_true(sim->counts.damaged > 50 && sim->counts.writes > 500);
    happy_end(sim);
}

/* A sequencer that is cut off does not know what the others committed: its answer would be old (R9). */
void what_a_minority_says_is_not_current(void **state)
{
    (void)state;
    struct sim *sim = cluster(5, 3, 0);
    struct sim_node *cut = sim_sequencer(sim);
    cut->bus.frozen = true; /* it hears of nothing, not even that it is alone */
    sim_bus_changed(sim);
    for (unsigned i = 0; i < 200 && (sim_sequencer(sim) == cut || !sim_sequencer(sim)); i++)
        sim_run(sim, 20);
    size_t before = sim->acknowledged_count;
    fill_log(sim, 3);
    sim_run(sim, 200);
    assert_true(sim->acknowledged_count > before);
    sim_control_question(cut);
    sim_run(sim, 2000);
    cut->bus.frozen = false;
    sim_bus_changed(sim);
    happy_end(sim);
}

/* A follower whose disk is slow says nothing of an entry before it is durable there (R8): what only the sequencer has is not
 * acknowledged, and may be lost with it. */
void an_entry_counts_when_it_is_durable(void **state)
{
    (void)state;
    for (unsigned turn = 0; turn < 8; turn++) {
        struct sim *sim = cluster(3, 3, 0);
        struct sim_node *sequencer = sim_sequencer(sim), *slow = NULL, *away = NULL;
        for (unsigned i = 0; i < 3; i++)
            if (&sim->nodes[i] != sequencer)
                *(slow ? &away : &slow) = &sim->nodes[i];
        fill_log(sim, 2);
        sim_node_crash(away, SIM_CRASH_PROCESS);
        sim_run(sim, 2000);
        slow->slow = 100;
        size_t before = sim->acknowledged_count;
        assert_true(sim_control_change(sequencer));
        sim_run(sim, 8);
        sim_node_crash(slow, SIM_CRASH_POWER);
        sim_node_crash(sequencer, SIM_CRASH_POWER);
        slow->slow = 1;
        sim_node_start(slow);
        sim_node_start(away);
        sim_run(sim, 3000);
        size_t answered = sim->acknowledged_count;
        sim_control_question(slow); /* all that was acknowledged must be there */
        sim_run(sim, 500);
        fine(sim);
        assert_int_equal(answered, before);
        happy_end(sim);
    }
}

/* Of the log: the change of voters waits for a majority of the old ones, not for the one that lags, which learns it afterwards. (That
 * corosync's list is staged by all present before it is reloaded is in agent/node/node_members.c, which does not run here.) */
void s35_a_node_lags_on_a_change_of_members(void **state)
{
    (void)state;
    unsigned joiner = 3;
    for (unsigned turn = 0; turn < 4; turn++) {
        struct sim *sim = cluster(3, 3, 0);
        struct sim_node *lags = NULL;
        for (unsigned i = 0; i < 3; i++)
            if (&sim->nodes[i] != sim_owner(sim, 0) && &sim->nodes[i] != sim_sequencer(sim))
                lags = &sim->nodes[i];
        fill_log(sim, 10);
        if (turn % 2)
            lags->slow = 3000; /* its log takes a second for each transaction */
        else
            sim_node_pause(lags, false);
        sim_join(sim, joiner);
        assert_true(sim_wait(sim, 20000, place_votes, &joiner));
        if (turn < 2)
            sim_node_crash(&sim->nodes[joiner], SIM_CRASH_POWER); /* two of four voters are left that do not lag */
        else
            assert_true(sim->nodes[joiner].control.applied > 0);
        size_t before = sim->acknowledged_count;
        if (turn >= 2) {
            fill_log(sim, 5);
            sim_run(sim, 500);
            assert_true(sim->acknowledged_count > before);
        }
        sim_node_wake(lags);
        lags->slow = 1;
        sim_run(sim, 4000);
        fill_log(sim, 5);
        sim_run(sim, 500);
        assert_true(sim->acknowledged_count > before);
        happy_end(sim);
    }
}
