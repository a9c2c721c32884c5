#include "agent/core/rsm_testbus.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static struct rsm_status status_of(struct testbus *bus, uint16_t id)
{
    struct rsm_status status;
    rsm_get_status(testbus_node(bus, id)->rsm, &status);
    return status;
}

static void cut(struct testbus *bus, uint16_t id, unsigned group)
{
    testbus_node(bus, id)->group = group;
}

static void a_single_node_commits_at_once(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 1, 1);
    testbus_form(&bus);
    uint64_t before = testbus_node(&bus, 1)->done_count;
    assert_int_equal(testbus_propose(&bus, 1, 5, 0, 0), 0);
    assert_int_equal(testbus_node(&bus, 1)->done_count, before + 1); /* in the same step */
    assert_int_equal(testbus_barrier(&bus, 1, 9), 0);
    assert_int_equal(testbus_node(&bus, 1)->barrier_done_count, 1);
    testbus_done(&bus);
}

static void every_member_can_propose_and_all_apply(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 4, 2);
    testbus_form(&bus);
    for (uint16_t id = 1; id <= 4; id++)
        assert_int_equal(testbus_propose(&bus, id, 100u + id, 0, 0), 0);
    testbus_run(&bus, 20);
    for (uint16_t id = 1; id <= 4; id++)
        for (uint64_t value = 101; value <= 104; value++)
            assert_true(testbus_holds(testbus_node(&bus, id), value));
    assert_int_equal(status_of(&bus, 1).pending, 0);
    testbus_done(&bus);
}

static void power_loss_of_all_keeps_what_was_acknowledged(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 3);
    testbus_form(&bus);
    assert_int_equal(testbus_propose(&bus, 2, 77, 0, 0), 0);
    testbus_run(&bus, 30);
    assert_int_equal(bus.acknowledged.count, 3);
    for (uint16_t id = 1; id <= 3; id++)
        testbus_crash(&bus, id);
    for (uint16_t id = 1; id <= 3; id++)
        testbus_start(&bus, id);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 100);
    for (uint16_t id = 1; id <= 3; id++)
        assert_true(testbus_holds(testbus_node(&bus, id), 77));
    assert_true(status_of(&bus, 1).quorate);
    testbus_done(&bus);
}

static void a_minority_commits_nothing_and_its_tail_is_replaced(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 4);
    testbus_form(&bus);
    uint16_t old = testbus_sequencer(&bus);
    /* Its own entry is delivered to nobody: appended on its disk only. */
    struct testbus_node *minority = testbus_node(&bus, old);
    for (uint16_t id = 1; id <= 3; id++)
        testbus_node(&bus, id)->view += id == old ? 50 : 0;
    assert_int_equal(testbus_propose(&bus, old, 500, 0, 0), 0);
    uint64_t own_last = status_of(&bus, old).last_index;
    cut(&bus, old, 1);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 1000);
    assert_false(status_of(&bus, old).quorate);
    assert_int_equal(status_of(&bus, old).role, RSM_FOLLOWER);
    assert_int_equal(testbus_propose(&bus, old, 501, 0, 0), 0);
    uint16_t now = testbus_sequencer(&bus);
    assert_true(now != 0 && now != old);
    assert_int_equal(testbus_propose(&bus, now, 502, 0, 0), 0);
    testbus_run(&bus, 100);
    assert_false(testbus_holds(minority, 500) || testbus_holds(minority, 501) || testbus_holds(minority, 502));
    assert_int_equal(status_of(&bus, old).pending, 2);
    assert_true(status_of(&bus, now).last_index >= own_last);

    cut(&bus, old, 0);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 400);
    for (uint16_t id = 1; id <= 3; id++)
        for (uint64_t value = 500; value <= 502; value++)
            assert_true(testbus_holds(testbus_node(&bus, id), value)); /* 500, 501: submitted again by their origin */
    assert_int_equal(status_of(&bus, old).pending, 0);
    testbus_done(&bus);
}

static void a_cut_off_node_does_not_raise_the_term(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 5);
    testbus_form(&bus);
    uint16_t sequencer = testbus_sequencer(&bus), flapping = sequencer == 3 ? 2 : 3;
    uint64_t term = status_of(&bus, sequencer).term;
    for (unsigned i = 0; i < 10; i++) {
        cut(&bus, flapping, i % 2 ? 0 : 1);
        testbus_view_change(&bus, i % 3 == 0);
        testbus_run(&bus, 1500);
    }
    assert_int_equal(status_of(&bus, sequencer).term, term);
    assert_int_equal(testbus_sequencer(&bus), sequencer);
    testbus_done(&bus);
}

static void a_member_that_hung_probes_in_vain(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 6);
    testbus_form(&bus);
    uint16_t sequencer = testbus_sequencer(&bus), hung = sequencer == 3 ? 2 : 3;
    uint64_t term = status_of(&bus, sequencer).term;
    testbus_node(&bus, hung)->stalled = true;
    testbus_run(&bus, 3000);
    testbus_node(&bus, hung)->stalled = false;
    testbus_tick(&bus, 10); /* time passes for it before it reads its letters */
    testbus_run(&bus, 500);
    assert_int_equal(status_of(&bus, sequencer).term, term);
    assert_true(status_of(&bus, hung).quorate);
    testbus_done(&bus);
}

static void a_hung_sequencer_is_replaced_and_follows_later(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 7);
    testbus_form(&bus);
    uint16_t old = testbus_sequencer(&bus), other = old == 1 ? 2 : 1;
    testbus_node(&bus, old)->stalled = true;
    assert_int_equal(testbus_propose(&bus, other, 600, 0, 0), 0);
    testbus_run(&bus, 1000);
    uint16_t now = testbus_sequencer(&bus);
    assert_true(now != old);
    assert_true(testbus_holds(testbus_node(&bus, other), 600));
    testbus_node(&bus, old)->stalled = false;
    testbus_run(&bus, 500);
    assert_int_equal(status_of(&bus, old).role, RSM_FOLLOWER);
    assert_int_equal(status_of(&bus, old).sequencer, now);
    assert_true(testbus_holds(testbus_node(&bus, old), 600));
    testbus_done(&bus);
}

static void a_sequencer_whose_members_all_hang_steps_down(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 8);
    testbus_form(&bus);
    uint16_t old = testbus_sequencer(&bus);
    for (uint16_t id = 1; id <= 3; id++)
        testbus_node(&bus, id)->stalled = id != old;
    testbus_run(&bus, 1700);
    assert_false(status_of(&bus, old).quorate);
    for (uint16_t id = 1; id <= 3; id++)
        testbus_node(&bus, id)->stalled = false;
    testbus_run(&bus, 2000);
    assert_true(status_of(&bus, 1).quorate && status_of(&bus, 2).quorate && status_of(&bus, 3).quorate);
    testbus_done(&bus);
}

static void a_killed_sequencer_is_replaced_within_a_view_change(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 9);
    testbus_form(&bus);
    testbus_crash(&bus, testbus_sequencer(&bus));
    testbus_view_change(&bus, false);
    testbus_run(&bus, 10); /* no time-out takes part */
    assert_int_not_equal(testbus_sequencer(&bus), 0);
    testbus_done(&bus);
}

static void a_learner_catches_up_by_snapshot_and_becomes_a_voter(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 4, 10);
    bus.options.snapshot_entries = 50;
    bus.options.keep_entries = 10;
    testbus_bootstrap(&bus, 1);
    testbus_start(&bus, 1);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 50);
    for (uint64_t value = 1; value <= 20000; value++) /* the snapshot needs several pieces */
        assert_int_equal(testbus_propose(&bus, 1, value, 0, 0), 0);
    assert_true(status_of(&bus, 1).snapshot_index > 19900);
    testbus_start(&bus, 2);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 100);
    assert_int_equal(testbus_node(&bus, 2)->restore_count, 1);
    assert_true(testbus_holds(testbus_node(&bus, 2), 20000));
    assert_int_equal(status_of(&bus, 2).voters[0], 1);
    struct rsm_progress progress;
    assert_true(rsm_get_progress(testbus_node(&bus, 1)->rsm, 2, &progress));
    assert_int_equal(progress.match_index, status_of(&bus, 1).last_index);
    assert_false(progress.snapshotting);
    assert_int_equal(testbus_propose(&bus, 2, 30000, RSM_CHANGE_ADD_VOTER, 2), 0);
    testbus_run(&bus, 50);
    assert_int_equal(status_of(&bus, 2).voter_count, 2);
    assert_true(status_of(&bus, 1).config_committed);
    /* Now neither may go on alone (C2). */
    testbus_crash(&bus, 2);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 50);
    assert_false(status_of(&bus, 1).quorate);
    testbus_done(&bus);
}

static void a_node_that_was_away_long_gets_a_snapshot(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 11);
    bus.options.snapshot_entries = 20;
    bus.options.keep_entries = 5;
    testbus_form(&bus);
    uint16_t sequencer = testbus_sequencer(&bus), away = sequencer == 3 ? 2 : 3;
    testbus_crash(&bus, away);
    testbus_view_change(&bus, false);
    for (uint64_t value = 1; value <= 300; value++) {
        assert_int_equal(testbus_propose(&bus, sequencer, value, 0, 0), 0);
        testbus_run(&bus, 10);
    }
    testbus_start(&bus, away);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 100);
    assert_true(testbus_holds(testbus_node(&bus, away), 300));
    assert_true(testbus_node(&bus, away)->restore_count > 0);
    /* and restarts from what it stored */
    testbus_crash(&bus, away);
    testbus_start(&bus, away);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 100);
    assert_true(testbus_holds(testbus_node(&bus, away), 300));
    testbus_done(&bus);
}

static void a_proposal_submitted_twice_is_applied_once(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 12);
    testbus_form(&bus);
    uint16_t old = testbus_sequencer(&bus), origin = old == 1 ? 2 : 1, third = 6u - old - origin;
    uint64_t before = status_of(&bus, origin).last_index;
    /* The sequencer appends it, the third node too; then the sequencer dies before anybody hears of a commit. */
    testbus_node(&bus, origin)->stalled = true;
    assert_int_equal(testbus_propose(&bus, origin, 700, 0, 0), 0);
    testbus_run(&bus, 10);
    assert_true(status_of(&bus, third).last_index > before);
    testbus_crash(&bus, old);
    testbus_node(&bus, origin)->stalled = false;
    testbus_view_change(&bus, true);
    testbus_run(&bus, 1000);
    assert_int_equal(status_of(&bus, origin).pending, 0);
    unsigned times = 0;
    for (size_t i = 0; i < testbus_node(&bus, third)->state.count; i++)
        times += testbus_node(&bus, third)->state.items[i] == 700;
    assert_int_equal(times, 1);
    testbus_done(&bus);
}

static void pending_proposals_are_bounded(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 13);
    testbus_form(&bus);
    cut(&bus, 3, 1);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 50);
    for (uint64_t i = 0; i < RSM_PENDING_MAX; i++)
        assert_int_equal(testbus_propose(&bus, 3, 1000 + i, 0, 0), 0);
    assert_int_equal(testbus_propose(&bus, 3, 9999, 0, 0), -EAGAIN);
    static const uint8_t big[RSM_COMMAND_MAX_BYTES + 1];
    struct rsm_event event = {.kind = RSM_EVENT_PROPOSE, .ticket = 1u << 20, .data = {big, sizeof(big)}};
    assert_int_equal(testbus_event(&bus, 3, &event), -EMSGSIZE);
    cut(&bus, 3, 0);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 2000);
    assert_int_equal(status_of(&bus, 3).pending, 0);
    assert_true(testbus_holds(testbus_node(&bus, 1), 1000 + RSM_PENDING_MAX - 1));
    testbus_done(&bus);
}

static void a_barrier_needs_a_majority(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 14);
    testbus_form(&bus);
    uint16_t old = testbus_sequencer(&bus), other = old == 1 ? 2 : 1;
    assert_int_equal(testbus_barrier(&bus, other, 1), 0);
    testbus_run(&bus, 20);
    assert_int_equal(testbus_node(&bus, other)->barrier_done_count, 1);
    /* A sequencer that nobody hears may think what it likes: no answer. */
    testbus_node(&bus, old)->view = 12345;
    assert_int_equal(testbus_barrier(&bus, old, 2), 0);
    testbus_run(&bus, 400);
    assert_int_equal(testbus_node(&bus, old)->barrier_done_count, 0);
    testbus_run(&bus, 11000);
    assert_int_equal(status_of(&bus, old).quorate, false);
    testbus_done(&bus);
}

static void who_asks_for_a_barrier_counts_for_the_majority(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 17);
    testbus_form(&bus);
    uint16_t sequencer = testbus_sequencer(&bus), asks = sequencer == 1 ? 2 : 1, gone = (uint16_t)(6 - sequencer - asks);
    testbus_crash(&bus, gone);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 200);
    assert_true(status_of(&bus, asks).quorate);
    assert_int_equal(testbus_barrier(&bus, asks, 1), 0);
    testbus_run(&bus, 100);
    assert_int_equal(testbus_node(&bus, asks)->barrier_done_count, 1);
    testbus_done(&bus);
}

static void leaving_hands_the_role_over_at_once(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 15);
    testbus_form(&bus);
    uint16_t old = testbus_sequencer(&bus);
    struct rsm_event event = {.kind = RSM_EVENT_LEAVE};
    assert_int_equal(testbus_event(&bus, old, &event), 0);
    assert_int_equal(testbus_node(&bus, old)->left_count, 0);
    testbus_run(&bus, 10);
    assert_int_equal(testbus_node(&bus, old)->left_count, 1);
    uint16_t now = testbus_sequencer(&bus);
    assert_true(now != 0 && now != old);
    assert_int_equal(testbus_propose(&bus, now, 800, 0, 0), 0);
    testbus_run(&bus, 10);
    assert_true(testbus_holds(testbus_node(&bus, now), 800));
    testbus_done(&bus);
}

static void a_removed_sequencer_steps_down(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 16);
    testbus_form(&bus);
    uint16_t old = testbus_sequencer(&bus);
    assert_int_equal(testbus_propose(&bus, old, 900, RSM_CHANGE_REMOVE_VOTER, old), 0);
    testbus_run(&bus, 1000);
    uint16_t now = testbus_sequencer(&bus);
    assert_true(now != 0 && now != old);
    assert_int_equal(status_of(&bus, old).voter_count, 2);
    testbus_done(&bus);
}

static void the_last_voter_is_never_removed(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 1, 17);
    testbus_form(&bus);
    assert_int_equal(testbus_propose(&bus, 1, 901, RSM_CHANGE_REMOVE_VOTER, 1), 0);
    assert_int_equal(status_of(&bus, 1).voter_count, 1);
    assert_true(testbus_holds(testbus_node(&bus, 1), 901)); /* a plain command: the tree refuses it in words */
    testbus_done(&bus);
}

static void broken_storage_takes_the_node_out(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 3, 18);
    testbus_form(&bus);
    uint16_t old = testbus_sequencer(&bus);
    cut(&bus, old, 1);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 20);
    assert_int_equal(testbus_propose(&bus, old, 902, 0, 0), 0);
    struct rsm_event event = {.kind = RSM_EVENT_STORAGE_FAILED};
    assert_int_equal(testbus_event(&bus, old, &event), 0);
    assert_int_equal(testbus_node(&bus, old)->last_done_status, -EIO);
    assert_int_equal(status_of(&bus, old).role, RSM_OUT);
    struct rsm_event tick = {.kind = RSM_EVENT_TICK};
    assert_int_equal(testbus_event(&bus, old, &tick), -ESHUTDOWN);
    testbus_done(&bus);
}

static void a_damaged_log_is_refused(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 1, 19);
    testbus_form(&bus);
    assert_int_equal(testbus_propose(&bus, 1, 5, 0, 0), 0);
    testbus_crash(&bus, 1);
    struct testbus_node *node = testbus_node(&bus, 1);
    ((uint8_t *)node->entries[node->entry_count - 1].data)[41] ^= 1;
    struct rsm_options options = {.self = 1, .boot = 1};
    struct rsm *rsm = rsm_new(&options);
    struct rsm_effects effects = {0};
    struct rsm_persistent persistent = {node->term, 0, node->snapshot, node->entries, node->entry_count};
    struct rsm_event event = {.kind = RSM_EVENT_START, .persistent = &persistent};
    assert_int_equal(rsm_step(rsm, &event, 1, &effects), -EBADMSG);
    assert_int_equal(rsm_step(rsm, &event, 1, &effects), -ESHUTDOWN);
    rsm_effects_done(&effects);
    rsm_free(rsm);
    testbus_done(&bus);
}

static void two_voters_that_lose_each_other_stop(void **state)
{
    (void)state;
    struct testbus bus;
    testbus_init(&bus, 2, 20);
    testbus_form(&bus);
    cut(&bus, 2, 1);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 3000);
    assert_int_equal(testbus_sequencer(&bus), 0);
    cut(&bus, 2, 0);
    testbus_view_change(&bus, false);
    testbus_run(&bus, 100);
    assert_int_not_equal(testbus_sequencer(&bus), 0);
    testbus_done(&bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_single_node_commits_at_once),
        cmocka_unit_test(every_member_can_propose_and_all_apply),
        cmocka_unit_test(power_loss_of_all_keeps_what_was_acknowledged),
        cmocka_unit_test(a_minority_commits_nothing_and_its_tail_is_replaced),
        cmocka_unit_test(a_cut_off_node_does_not_raise_the_term),
        cmocka_unit_test(a_member_that_hung_probes_in_vain),
        cmocka_unit_test(a_hung_sequencer_is_replaced_and_follows_later),
        cmocka_unit_test(a_sequencer_whose_members_all_hang_steps_down),
        cmocka_unit_test(a_killed_sequencer_is_replaced_within_a_view_change),
        cmocka_unit_test(a_learner_catches_up_by_snapshot_and_becomes_a_voter),
        cmocka_unit_test(a_node_that_was_away_long_gets_a_snapshot),
        cmocka_unit_test(a_proposal_submitted_twice_is_applied_once),
        cmocka_unit_test(pending_proposals_are_bounded),
        cmocka_unit_test(a_barrier_needs_a_majority),
        cmocka_unit_test(who_asks_for_a_barrier_counts_for_the_majority),
        cmocka_unit_test(leaving_hands_the_role_over_at_once),
        cmocka_unit_test(a_removed_sequencer_steps_down),
        cmocka_unit_test(the_last_voter_is_never_removed),
        cmocka_unit_test(broken_storage_takes_the_node_out),
        cmocka_unit_test(a_damaged_log_is_refused),
        cmocka_unit_test(two_voters_that_lose_each_other_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
