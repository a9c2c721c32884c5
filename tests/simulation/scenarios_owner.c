/* Owners: crashes, isolation, pauses, power, moves. */
#include "tests/simulation/story.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

void s1_owner_crashes_with_writes_in_flight(void **state)
{
    (void)state;
    for (unsigned after_us = 50; after_us < 2000; after_us += 150) {
        struct sim *sim = cluster(3, 3, 0);
        struct sim_node *owner = sim_owner(sim, 0);
        for (uint32_t i = 0; i < 6; i++)
            writes(owner, i * 20);
        sim_run_until(&sim->world, sim->world.now_us + after_us);
        sim_node_crash(owner, after_us / 50 % 2 ? SIM_CRASH_PROCESS : SIM_CRASH_POWER);
        wait_epoch(sim, 2, 5000);
        for (unsigned turn = 0; turn < 2; turn++) /* stable once read: the history says so */
            for (uint32_t i = 0; i < 6; i++)
                must_succeed(sim, reads(sim_owner(sim, 0), i * 20), 5000);
        happy_end(sim);
    }
}

void s3_resync_source_crashes(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    leave_behind(sim, 2, SIM_CRASH_PROCESS);
    struct sim_node *source = sim_owner(sim, 0);
    sim_node_start(replica(sim, 2));
    wait_syncing(sim, 2, 10000);
    sim_node_crash(source, SIM_CRASH_POWER);
    wait_epoch(sim, 2, 5000);
    assert_ptr_not_equal(sim_owner(sim, 0), source);
    assert_ptr_equal(sim_owner(sim, 0), replica(sim, 1)); /* the other member of the in-sync set goes on */
    must_succeed(sim, writes(sim_owner(sim, 0), 3), 5000);
    happy_end(sim);
}

void s4_isolated_owner_acknowledges_nothing(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    struct sim_node *old = sim_owner(sim, 0);
    must_succeed(sim, writes(old, 7), 1000);
    sim_isolate(sim, old->place, true);
    sim_run(sim, 10);
    struct sim_op *late = writes(old, 7);
    wait_epoch(sim, 2, 6000);
    must_succeed(sim, writes(sim_owner(sim, 0), 7), 5000);
    struct sim_op *stale = reads(old, 7);
    sim_run(sim, 5000);
    assert_int_not_equal(late->status, 0);
    assert_int_not_equal(stale->status, 0);
    happy_end(sim);
}

void s5_asymmetric_partition(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    sim_client_start(sim);
    for (unsigned from = 0; from < 3; from++) {
        sim_cut_bus(sim, from, (from + 1) % 3, true); /* and the data links stay */
        sim_run(sim, 8000);
        sim_cut_bus(sim, from, (from + 1) % 3, false);
        sim_link_cut(sim, from, (from + 1) % 3, true); /* the other way round */
        sim_run(sim, 4000);
        sim_link_cut(sim, from, (from + 1) % 3, false);
        sim_run(sim, 2000);
    }
    happy_end(sim);
}

static void paused_owner(bool whole)
{
    struct sim *sim = cluster(3, 3, 0);
    struct sim_node *old = sim_owner(sim, 0);
    must_succeed(sim, writes(old, 7), 1000);
    struct sim_op *under_way = writes(old, 8);
    sim_run_until(&sim->world, sim->world.now_us + 300);
    sim_node_pause(old, whole);
    struct sim_op *late = writes(old, 7), *stale = reads(old, 7);
    wait_epoch(sim, 2, 8000);
    struct sim_op *fresh = writes(sim_owner(sim, 0), 7);
    must_succeed(sim, fresh, 5000);
    sim_node_wake(old);
    sim_run(sim, 3000);
    assert_int_not_equal(late->status, 0);
    if (stale->status == 0) /* asked anew of the new owner would be right, the old value would not */
        assert_int_equal(stale->tag, fresh->tag);
    (void)under_way;
    happy_end(sim);
}

void s6_paused_owner_is_sealed(void **state)
{
    (void)state;
    paused_owner(false);
}

void s7_whole_node_paused(void **state)
{
    (void)state;
    paused_owner(true);
}

void s8_stale_node_alone_refuses_to_serve(void **state)
{
    (void)state;
    struct sim *sim = cluster(5, 3, 0);
    struct failover_nodes alive = {.count = 0};
    char text[256], names[2][16];
    leave_behind(sim, 2, SIM_CRASH_PROCESS);
    struct sim_node *in_sync[2] = {replica(sim, 0), replica(sim, 1)}, *stale = replica(sim, 2);
    for (unsigned i = 0; i < 5; i++)
        sim_node_crash(&sim->nodes[i], SIM_CRASH_POWER);
    for (unsigned i = 0; i < 5; i++)
        if (&sim->nodes[i] != in_sync[0] && &sim->nodes[i] != in_sync[1])
            sim_node_start(&sim->nodes[i]);
    sim_run(sim, 8000);
    fine(sim);
    assert_true(stale->control.quorate && stale->control.current); /* the majority is there, the data is not */
    assert_int_equal(sim_volume(sim, 0)->epoch, 1);
    assert_int_equal(sim_volume(sim, 0)->isr, 3);
    assert_false(sim_unit_serving(stale, 0));
    sim_control_alive(stale, &alive);
    assert_int_equal(failover_volume_state(stale->control.tree, sim_volume(sim, 0), &alive, true, text, sizeof(text)),
                     FAILOVER_SUSPENDED);
    for (unsigned i = 0; i < 2; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "node%u", in_sync[i]->nodeid);
        assert_non_null(strstr(text, names[i]));
    }
    happy_end(sim);
}

void s9_all_power_lost_all_return(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    for (unsigned turn = 0; turn < 6; turn++) {
        (void)sim_control_change(sim_sequencer(sim));
        for (uint32_t i = 0; i < 3; i++)
            writes(sim_owner(sim, 0), i * 40 + turn);
        sim_run_until(&sim->world, sim->world.now_us + 100 + 300 * turn);
        for (unsigned i = 0; i < 3; i++)
            sim_node_crash(&sim->nodes[i], SIM_CRASH_POWER);
        for (unsigned i = 0; i < 3; i++)
            sim_node_start(&sim->nodes[(turn + i) % 3]);
        sim_settle(sim, 20000);
        fine(sim);
        must_succeed(sim, reads(sim_owner(sim, 0), turn), 1000);
    }
    happy_end(sim);
}

void s17_new_owner_dies_during_failover(void **state)
{
    (void)state;
    for (unsigned after_us = 0; after_us < 20000; after_us += 1500) {
        struct sim *sim = cluster(5, 3, 0);
        for (uint32_t i = 0; i < 6; i++)
            writes(sim_owner(sim, 0), i * 20);
        sim_run_until(&sim->world, sim->world.now_us + 400);
        sim_node_crash(sim_owner(sim, 0), SIM_CRASH_PROCESS);
        for (unsigned i = 0; i < 20000 && sim_volume(sim, 0)->epoch < 2; i++)
            sim_run_until(&sim->world, sim->world.now_us + 200);
        sim_run_until(&sim->world, sim->world.now_us + after_us);
        sim_node_crash(sim_owner(sim, 0), SIM_CRASH_POWER);
        wait_epoch(sim, 3, 10000);
        for (uint32_t i = 0; i < 6; i++)
            must_succeed(sim, reads(sim_owner(sim, 0), i * 20), 5000);
        happy_end(sim);
    }
}

void s18_owner_and_sequencer_die_together(void **state)
{
    (void)state;
    struct sim *sim = cluster(5, 3, 0);
    struct sim_node *owner = sim_owner(sim, 0), *sequencer = sim_sequencer(sim);
    if (owner == sequencer) {
        (void)sim_control_promote(sequencer, 0, replica(sim, 1)->nodeid, 7);
        wait_epoch(sim, 2, 2000);
        owner = sim_owner(sim, 0);
    }
    must_succeed(sim, writes(owner, 7), 5000);
    uint64_t epoch = sim_volume(sim, 0)->epoch;
    sim_node_crash(owner, SIM_CRASH_POWER);
    sim_node_crash(sequencer, SIM_CRASH_POWER);
    wait_epoch(sim, epoch + 1, 8000);
    must_succeed(sim, reads(sim_owner(sim, 0), 7), 5000);
    happy_end(sim);
}

void s22_corosync_killed(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    struct sim_node *old = sim_owner(sim, 0);
    sim_client_start(sim);
    sim_run(sim, 200);
    sim_bus_stop(old);
    sim_run(sim, 100);
    assert_false(old->authority);
    wait_epoch(sim, 2, 5000);
    assert_ptr_not_equal(sim_owner(sim, 0), old);
    must_succeed(sim, writes(sim_owner(sim, 0), 7), 5000);
    happy_end(sim);
}

void s23_agent_killed(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    sim_node_crash(sim_owner(sim, 0), SIM_CRASH_PROCESS);
    uint64_t agent = gap_ms(sim);
    assert_true(agent < 500);
    happy_end(sim);
    sim = cluster(3, 3, 0);
    sim_node_crash(sim_owner(sim, 0), SIM_CRASH_POWER);
    uint64_t power = gap_ms(sim);
    assert_true(power < 2000);
    print_message("the longest gap: %u ms when the owner's agent is killed, %u ms when its node loses power\n", (unsigned)agent,
                  (unsigned)power);
    happy_end(sim);
}

void s29_last_isr_member_dies(void **state)
{
    (void)state;
    struct sim *sim = cluster(5, 3, 0);
    leave_behind(sim, 2, SIM_CRASH_PROCESS);
    leave_behind(sim, 1, SIM_CRASH_PROCESS);
    struct sim_node *last = sim_owner(sim, 0), *others[2] = {replica(sim, 1), replica(sim, 2)};
    uint64_t epoch = sim_volume(sim, 0)->epoch;
    sim_node_crash(last, SIM_CRASH_POWER);
    sim_node_start(others[0]);
    sim_node_start(others[1]);
    sim_run(sim, 8000);
    fine(sim);
    assert_int_equal(sim_volume(sim, 0)->epoch, epoch); /* suspended, never stale */
    assert_false(sim_unit_serving(others[0], 0) || sim_unit_serving(others[1], 0));
    sim_node_start(last);
    wait_isr(sim, 7, 30000);
    happy_end(sim);
}

void s30_witness_lost_then_the_link(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 2, 2); /* node 3 has no store */
    struct sim_node *a = sim_owner(sim, 0), *b = a == replica(sim, 0) ? replica(sim, 1) : replica(sim, 0);
    sim_node_crash(&sim->nodes[2], SIM_CRASH_POWER);
    sim_run(sim, 3000);
    must_succeed(sim, writes(a, 7), 5000); /* two of three go on */
    sim_isolate(sim, a->place, true);
    sim_run(sim, 1500);
    struct sim_op *ops[4] = {writes(a, 7), reads(a, 7), writes(b, 7), reads(b, 7)};
    sim_run(sim, 10000);
    fine(sim);
    for (unsigned i = 0; i < 4; i++)
        assert_int_not_equal(ops[i]->status, 0); /* both suspended */
    assert_int_equal(sim_volume(sim, 0)->epoch, 1);
    happy_end(sim);
}

void s30_sole_committed_side_serves(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 2, 2);
    unsigned other = sim_owner(sim, 0) == replica(sim, 0) ? 1 : 0;
    leave_behind(sim, other, SIM_CRASH_POWER); /* the shrink is committed with the witness */
    sim_node_crash(&sim->nodes[2], SIM_CRASH_POWER);
    sim_run(sim, 3000);
    must_succeed(sim, writes(sim_owner(sim, 0), 7), 5000);
    sim_node_start(replica(sim, other)); /* a majority again, but only the owner is in sync */
    sim_run(sim, 3000);
    must_succeed(sim, writes(sim_owner(sim, 0), 7), 5000);
    happy_end(sim);
}

void s3_without_another_source_nobody_is_promoted(void **state)
{
    (void)state;
    struct sim *sim = cluster(5, 3, 0);
    unsigned self = replica_of(sim, sim_owner(sim, 0)), other = (self + 1) % 3, joiner = (self + 2) % 3;
    leave_behind(sim, joiner, SIM_CRASH_PROCESS);
    leave_behind(sim, other, SIM_CRASH_PROCESS);
    struct sim_node *source = sim_owner(sim, 0);
    uint64_t epoch = sim_volume(sim, 0)->epoch;
    sim_node_start(replica(sim, joiner));
    wait_syncing(sim, joiner, 10000);
    sim_node_crash(source, SIM_CRASH_POWER);
    sim_node_start(replica(sim, other));
    sim_run(sim, 8000);
    fine(sim);
    assert_true(replica(sim, joiner)->control.quorate); /* the cluster could */
    assert_int_equal(sim_volume(sim, 0)->epoch, epoch);
    assert_false(sim_unit_serving(replica(sim, joiner), 0) || sim_unit_serving(replica(sim, other), 0));
    happy_end(sim);
}

static void clocks(bool wall)
{
    struct sim *sim = cluster(3, 3, 0);
    sim_client_start(sim);
    for (unsigned turn = 0; turn < 12; turn++) {
        struct sim_node *node = &sim->nodes[turn % 3];
        if (wall)
            node->wall_us += (turn / 3 % 2 ? -1 : 1) * 3600000000ll;
        else
            sim_clock_drift(node, (turn / 3 + turn) % 2 ? 40000 : -40000);
        (void)sim_control_change(node);
        sim_run(sim, 500);
    }
    fine(sim);
    assert_int_equal(sim_volume(sim, 0)->epoch, 1); /* no effect */
    assert_int_equal(sim_volume(sim, 0)->isr_version, 1);
    assert_int_equal(sim->counts.failed, 0);
    assert_true(sim->counts.reads > 500 && sim->counts.writes > 500);
    struct sim_node *old = sim_owner(sim, 0); /* and leases end in time */
    sim_isolate(sim, old->place, true);
    wait_epoch(sim, 2, 6000);
    must_succeed(sim, writes(sim_owner(sim, 0), 7), 5000);
    sim_run(sim, 3000);
    happy_end(sim);
}

void s16_wall_clocks_jump(void **state)
{
    (void)state;
    clocks(true);
}

void s16_clocks_run_at_different_speeds(void **state)
{
    (void)state;
    clocks(false);
}

/* The whole agent hangs, corosync does not notice: the peers' own heartbeats do. */
void s24_agent_hung_corosync_alive(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    struct sim_node *old = sim_owner(sim, 0);
    must_succeed(sim, writes(old, 7), 1000);
    unsigned views = sim->counts.views;
    sim_node_pause(old, false);
    wait_epoch(sim, 2, 8000);
    assert_int_equal(sim->counts.views, views); /* not by the membership */
    struct sim_op *fresh = writes(sim_owner(sim, 0), 7);
    must_succeed(sim, fresh, 5000);
    struct sim_op *stale = reads(old, 7);
    sim_node_wake(old);
    sim_run(sim, 2000);
    assert_true(stale->status != 0 || stale->tag == fresh->tag);
    happy_end(sim);
}

void s24_control_thread_hung(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    struct sim_node *old = sim_owner(sim, 0);
    must_succeed(sim, writes(old, 7), 1000);
    hang_control(old, 6000); /* its I/O thread goes on */
    sim_client_start(sim);
    wait_epoch(sim, 2, 8000);
    struct sim_op *fresh = writes(sim_owner(sim, 0), 7);
    must_succeed(sim, fresh, 5000);
    struct sim_op *stale = reads(old, 7);
    sim_run(sim, 1000);
    assert_true(stale->status != 0 || stale->tag >= fresh->tag);
    sim_run(sim, 6000);
    happy_end(sim);
}

/* An owner that is cut off reads its own disk and nobody has told it anything: only the lease stands between it and an old value. */
void a_read_without_a_lease_would_be_stale(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    struct sim_node *old = sim_owner(sim, 0);
    must_succeed(sim, writes(old, 7), 1000);
    sim_isolate(sim, old->place, true);
    wait_epoch(sim, 2, 6000);
    must_succeed(sim, writes(sim_owner(sim, 0), 7), 5000);
    struct sim_op *stale = reads(old, 7);
    sim_run(sim, 5000);
    assert_int_not_equal(stale->status, 0);
    happy_end(sim);
}

/* A write of the old owner that was long on its way comes after the new owner's. */
void a_write_of_a_lower_epoch_is_refused(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    struct sim_node *old = sim_owner(sim, 0);
    unsigned next = (replica_of(sim, old) + 1) % 3;
    must_succeed(sim, writes(old, 7), 1000);
    struct sim_link *link = sim_link_between(sim, old->place, replica(sim, next)->place);
    link->last_at[old->place < replica(sim, next)->place] += 900000; /* a full queue */
    struct sim_op *late = writes(old, 7);
    sim_run(sim, 5);
    (void)sim_control_promote(sim_sequencer(sim), 0, replica(sim, next)->nodeid, 1u << next);
    wait_epoch(sim, 2, 3000);
    must_succeed(sim, writes(sim_owner(sim, 0), 7), 5000);
    sim_run(sim, 2000);
    assert_int_not_equal(late->status, 0);
    happy_end(sim);
}

/* A move while the old owner hears nothing, neither of it nor that its peers are sealed: until the promise of each peer has run
 * out, the next owner does not serve, for the old one may answer reads (I7). */
void promises_hold_back_the_next_owner(void **state)
{
    (void)state;
    struct sim *sim = cluster(5, 3, 0);
    struct sim_node *old = sim_owner(sim, 0);
    if (old == sim_sequencer(sim)) {
        (void)sim_control_promote(old, 0, replica(sim, (replica_of(sim, old) + 1) % 3)->nodeid, 7);
        wait_epoch(sim, 2, 3000);
        sim_settle(sim, 10000);
        old = sim_owner(sim, 0);
    }
    unsigned next = (replica_of(sim, old) + 1) % 3;
    uint64_t epoch = sim_volume(sim, 0)->epoch;
    must_succeed(sim, writes(old, 7), 1000);
    for (unsigned k = 0; k < 3; k++)
        if (replica(sim, k) != old) {
            struct sim_link *link = sim_link_between(sim, old->place, replica(sim, k)->place);
            link->last_at[0] += 900000;
            link->last_at[1] += 900000;
        }
    hang_control(old, 2000);
    (void)sim_control_promote(sim_sequencer(sim), 0, replica(sim, next)->nodeid, 1u << next);
    wait_epoch(sim, epoch + 1, 3000);
    for (unsigned i = 0; i < 60; i++) {
        (void)reads(old, 7);
        (void)writes(sim_owner(sim, 0), 7);
        sim_run(sim, 10);
    }
    happy_end(sim);
}

/* Two agents plan at once, each for another node: one promotion is committed, the other is not, and neither node does anything
 * before (I1). */
void two_promotions_to_one_epoch(void **state)
{
    (void)state;
    for (unsigned turn = 0; turn < 6; turn++) {
        struct sim *sim = cluster(3, 3, 0);
        unsigned self = replica_of(sim, sim_owner(sim, 0));
        for (unsigned i = 1; i < 3; i++) {
            struct sim_node *node = replica(sim, (self + i) % 3);
            (void)sim_control_promote(node, 0, node->nodeid, 7);
            (void)writes(node, 7);
            sim_run_until(&sim->world, sim->world.now_us + 100 * turn);
        }
        wait_epoch(sim, 2, 3000);
        must_succeed(sim, writes(sim_owner(sim, 0), 7), 5000);
        happy_end(sim);
    }
}

/* A hypervisor stops a node and its clock with it; what its peers say is on its way still when it wakes: by its clock the lease
 * goes on. Only asking helps. */
void s7_verified_reads_when_the_clock_stops_too(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    struct sim_node *old = sim_owner(sim, 0);
    struct tree_policy policy = {.verified_reads = true};
    assert_true(sim_operator_policy(old, 0, DIRECTOR__VOLUME_POLICY_FIELD__POLICY_VERIFIED_READS, &policy));
    sim_run(sim, 200);
    must_succeed(sim, writes(old, 7), 1000);
    must_succeed(sim, reads(old, 7), 1000);
    for (unsigned other = 0; other < 3; other++)
        if (other != old->place) {
            struct sim_link *link = sim_link_between(sim, old->place, other);
            link->last_at[0] = MAX(link->last_at[0], sim->world.now_us) + 1900000;
            link->last_at[1] = MAX(link->last_at[1], sim->world.now_us) + 1900000;
        }
    old->clock_stops = true;
    sim_node_pause(old, true);
    wait_epoch(sim, 2, 1800);
    must_succeed(sim, writes(sim_owner(sim, 0), 7), 1000);
    sim_node_wake(old);
    struct sim_op *stale = reads(old, 7);
    sim_run(sim, 250);
    assert_int_not_equal(stale->status, 0);
    happy_end(sim);
}

/* Add, wait until it is in sync, remove another. */
void a_replica_moves_while_clients_go_on(void **state)
{
    (void)state;
    struct sim *sim = cluster(5, 3, 0);
    struct sim_node *owner = sim_owner(sim, 0), *to = NULL;
    unsigned from = (replica_of(sim, owner) + 1) % 3;
    for (unsigned i = 0; i < 5; i++)
        if (tree_volume_replica_of(sim_volume(sim, 0), sim->nodes[i].nodeid) < 0)
            to = &sim->nodes[i];
    sim_client_start(sim);
    sim_run(sim, 500);
    assert_true(sim_operator_add(sim_sequencer(sim), 0, to->nodeid));
    wait_isr(sim, 15, 5000);
    uint16_t left = replica(sim, from)->nodeid;
    assert_true(sim_operator_remove(sim_sequencer(sim), 0, left));
    wait_isr(sim, 15u & ~(1u << from), 5000);
    sim_run(sim, 500);
    assert_false(sim->nodes[left - 1].disks[0].meta_there); /* its files are gone */
    assert_true(sim_operator_add(sim_sequencer(sim), 0, left)); /* and it may come back, as another disk (I11) */
    wait_isr(sim, 15, 5000);
    assert_int_equal(sim_volume(sim, 0)->epoch, 1);
    assert_int_equal(sim->counts.failed, 0);
    sim_node_crash(owner, SIM_CRASH_POWER);
    wait_epoch(sim, 2, 5000);
    happy_end(sim);
}

/* The last resort: the disks in sync are gone, an operator takes the replica that is left. What returns is held until he says so. */
void a_stale_replica_is_forced_into_service(void **state)
{
    (void)state;
    struct sim *sim = cluster(5, 3, 0);
    unsigned self = replica_of(sim, sim_owner(sim, 0)), stale = (self + 1) % 3, other = (self + 2) % 3;
    struct sim_node *nodes[3] = {replica(sim, 0), replica(sim, 1), replica(sim, 2)};
    leave_behind(sim, stale, SIM_CRASH_PROCESS);
    uint64_t epoch = sim_volume(sim, 0)->epoch;
    sim_node_crash(nodes[self], SIM_CRASH_POWER);
    sim_node_crash(nodes[other], SIM_CRASH_POWER);
    sim_node_start(nodes[stale]);
    sim_run(sim, 5000);
    fine(sim);
    assert_int_equal(sim_volume(sim, 0)->epoch, epoch); /* nobody does it by himself (I10) */
    assert_true(sim_operator_force(sim_sequencer(sim), 0, nodes[stale]->nodeid));
    wait_epoch(sim, epoch + 1, 3000);
    must_succeed(sim, writes(nodes[stale], 100), 5000);
    sim_node_start(nodes[self]);
    sim_node_start(nodes[other]);
    sim_run(sim, 5000);
    assert_int_equal(sim_volume(sim, 0)->isr, 1u << stale);
    assert_null(nodes[self]->units[0].mirror); /* held: untouched, it may be needed yet */
    assert_true(nodes[self]->disks[0].meta_there);
    must_succeed(sim, reads(nodes[stale], 100), 5000);
    for (unsigned k = 0; k < 3; k++)
        if (k != stale)
            for (unsigned try = 0; try < 10 && sim_volume(sim, 0)->replicas[k].held; try++, sim_run(sim, 200))
                (void)sim_operator_discard(sim_sequencer(sim), 0, nodes[k]->nodeid);
    wait_isr(sim, 7, 20000);
    sim_settle(sim, 20000);
    sim_check_replicas(sim, 0); /* (what clients saw has a hole now, by the operator's word) */
    fine(sim);
    sim_free(sim);
}
