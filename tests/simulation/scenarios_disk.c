/* Disks: errors, rot, replacement, resync. */
#include "tests/simulation/story.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

void s2_replica_crashes_during_resync(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    leave_behind(sim, 2, SIM_CRASH_PROCESS);
    for (unsigned turn = 0; turn < 4; turn++) {
        sim_node_start(replica(sim, 2));
        wait_syncing(sim, 2, 10000);
        sim_run_until(&sim->world, sim->world.now_us + 500 * turn);
        assert_int_equal(sim_volume(sim, 0)->isr, 3); /* stays out */
        sim_node_crash(replica(sim, 2), turn % 2 ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
        sim_run(sim, 500);
        must_succeed(sim, writes(sim_owner(sim, 0), 5), 5000);
    }
    happy_end(sim);
}

void s10_write_error_on_one_replica(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 3; k++) { /* 0: the owner's own */
        struct sim *sim = cluster(3, 3, 0);
        struct sim_node *broken = replica(sim, k);
        broken->data_broken = true;
        struct sim_op *op = writes(sim_owner(sim, 0), 5);
        wait_isr(sim, 7u & ~(1u << k), 5000);
        (void)sim_wait(sim, 5000, op_answered, op);
        assert_true(op->status == 0 || k == 0);
        must_succeed(sim, writes(sim_owner(sim, 0), 5), 5000); /* I/O goes on */
        assert_ptr_not_equal(sim_owner(sim, 0), broken);
        happy_end(sim);
    }
}

static bool header_is_written(const struct sim_node *node)
{
    for (unsigned i = 0; i < node->disks[0].meta_count; i++)
        if (node->disks[0].meta_pages[i].offset_bytes < 2 * METADATA_PAGE_BYTES)
            return true;
    return false;
}

void s12_torn_metadata_write(void **state)
{
    (void)state;
    for (unsigned turn = 0; turn < 12; turn++) { /* the header of the new owner and of a member, torn while it is written */
        struct sim *sim = cluster(3, 3, 0);
        struct sim_node *torn = replica(sim, (replica_of(sim, sim_owner(sim, 0)) + 1 + turn % 2) % 3);
        unsigned k = replica_of(sim, torn);
        uint64_t incarnation = sim_volume(sim, 0)->replicas[k].incarnation;
        writes(sim_owner(sim, 0), 100);
        (void)sim_control_promote(sim_sequencer(sim), 0, replica(sim, (replica_of(sim, sim_owner(sim, 0)) + 1) % 3)->nodeid, 7);
        for (unsigned i = 0; i < 400000 && !header_is_written(torn); i++)
            sim_run_until(&sim->world, sim->world.now_us + 5);
        assert_true(header_is_written(torn));
        torn->tear = true;
        sim_node_crash(torn, SIM_CRASH_POWER);
        sim_run(sim, 1000);
        sim_node_start(torn);
        wait_isr(sim, 7, 20000);
        assert_int_equal(sim_volume(sim, 0)->replicas[k].incarnation, incarnation); /* from the other slot: the same disk */
        happy_end(sim);
    }
}

static void replaced_disk(bool damaged)
{
    struct sim *sim = cluster(3, 3, 0);
    leave_behind(sim, 2, SIM_CRASH_POWER);
    struct sim_node *node = replica(sim, 2);
    uint64_t before = sim_volume(sim, 0)->replicas[2].incarnation;
    if (damaged)
        memset(node->disks[0].meta, 0xa5, (size_t)2 * METADATA_PAGE_BYTES);
    else
        sim_disk_lose(&node->disks[0]);
    sim_node_start(node);
    wait_isr(sim, 7, 20000);
    assert_int_not_equal(sim_volume(sim, 0)->replicas[2].incarnation, before);
    happy_end(sim);
}

void s13_both_header_slots_bad(void **state)
{
    (void)state;
    replaced_disk(true);
}

void s19_disk_replaced_by_an_empty_one(void **state)
{
    (void)state;
    replaced_disk(false);
}

/* Nothing counts it before the change of its incarnation is committed, however long that takes (I11). */
void s19_an_empty_disk_waits_for_its_commitment(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    unsigned k = 0;
    while (replica(sim, k) == sim_owner(sim, 0) || replica(sim, k) == sim_sequencer(sim))
        k++;
    struct sim_node *node = replica(sim, k);
    write_everywhere(sim);
    sim_node_crash(node, SIM_CRASH_POWER);
    wait_isr(sim, 7u & ~(1u << k), 5000);
    must_succeed(sim, writes(sim_owner(sim, 0), 5), 1000);
    sim_disk_lose(&node->disks[0]);
    sim_node_start(node);
    for (unsigned i = 0; i < 400000 && !node->units[0].mirror; i++)
        sim_run_until(&sim->world, sim->world.now_us + 5);
    hang_control(node, 1000);
    sim_run(sim, 900);
    fine(sim);
    assert_int_equal(sim_volume(sim, 0)->isr, 7u & ~(1u << k));
    wait_isr(sim, 7, 20000);
    happy_end(sim);
}

void s20_old_disk_returns_after_replacement(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    struct sim_node *node = replica(sim, 2);
    leave_behind(sim, 2, SIM_CRASH_POWER);
    struct sim_disk old = node->disks[0], new;
    memset(&node->disks[0], 0, sizeof(old));
    sim_node_start(node);
    wait_isr(sim, 7, 20000);
    leave_behind(sim, 2, SIM_CRASH_POWER);
    new = node->disks[0];
    node->disks[0] = old;
    sim_node_start(node);
    sim_run(sim, 10000);
    assert_int_equal(sim_volume(sim, 0)->isr, 3); /* refused */
    assert_null(node->units[0].mirror);
    sim_node_crash(node, SIM_CRASH_POWER);
    free(node->disks[0].meta);
    node->disks[0] = new;
    happy_end(sim);
}

/* Found by the swarm. Replica 2 has caught up and its owner asks to add it, but the owner's control thread hangs; replica 2 fails a
 * write, then another change of the set wins, and the write completes without it: it must not be asked for as caught up (I8). */
void a_joiner_that_failed_a_write_is_copied_again(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    if (sim_owner(sim, 0) == sim_sequencer(sim)) { /* who commits the other change must not be the one that hangs */
        (void)sim_control_promote(sim_sequencer(sim), 0, replica(sim, 1)->nodeid, 7);
        wait_epoch(sim, 2, 5000);
        sim_settle(sim, 10000);
    }
    struct sim_node *owner = sim_owner(sim, 0), *sequencer = sim_sequencer(sim);
    unsigned k = 0;
    while (replica(sim, k) == owner || replica(sim, k) == sequencer)
        k++;
    struct sim_node *joiner = replica(sim, k);
    leave_behind(sim, k, SIM_CRASH_PROCESS);
    sim_node_start(joiner);
    wait_syncing(sim, k, 10000);
    hang_control(owner, 400);
    sim_run(sim, 100); /* caught up, and asked for */
    assert_int_equal(sim_volume(sim, 0)->isr, 7u & ~(1u << k));
    joiner->data_broken = true;
    struct sim_op *op = writes(owner, 5);
    for (uint32_t block = 6; block < 12; block++) /* one that failed may be on the disk all the same: not all of them */
        (void)writes(owner, block);
    sim_run(sim, 20);
    assert_int_equal(op->status, SIM_PENDING); /* it counts already */
    joiner->data_broken = false;
    assert_true(sim_control_isr(sequencer, 0, sim_volume(sim, 0)->isr)); /* the same set, a new version */
    sim_run(sim, 300);
    must_succeed(sim, op, 5000);
    happy_end(sim);
}

void s11_read_error_or_bad_checksum(void **state)
{
    (void)state;
    for (unsigned turn = 0; turn < 8; turn++) { /* where: 0 and 3 the owner; what; a single block or within a larger read */
        struct sim *sim = cluster(3, 3, 0);
        struct sim_node *owner = sim_owner(sim, 0), *bad = turn % 4 < 2 ? owner : replica(sim, (replica_of(sim, owner) + 1) % 3);
        enum sim_block_state what = turn % 2 ? SIM_BLOCK_ROTTEN : SIM_BLOCK_UNREADABLE;
        write_everywhere(sim);
        for (uint32_t block = 0; block < SIM_BLOCKS; block += 5)
            sim_disk_spoil(bad, 0, block, what);
        for (uint32_t block = 0; block + 8 <= SIM_BLOCKS; block += 8)
            must_succeed(sim, sim_client_submit(owner, 0, true, block, turn < 4 ? 1 : 8), 5000); /* right, says the history */
        assert_int_equal(sim_volume(sim, 0)->isr, 7);
        sim_run(sim, 500);
        for (uint32_t block = 0; block < SIM_BLOCKS && bad == owner && turn >= 4; block++)
            assert_int_equal(owner->disks[0].states[block], SIM_BLOCK_GOOD); /* repaired in place */
        sim_node_crash(owner, SIM_CRASH_POWER); /* what was in flight is reconciled by disks with holes */
        wait_epoch(sim, 2, 5000);
        for (uint32_t block = 0; block + 8 <= SIM_BLOCKS; block += 8)
            must_succeed(sim, sim_client_submit(sim_owner(sim, 0), 0, true, block, 8), 5000);
        must_succeed(sim, writes(sim_owner(sim, 0), 5), 5000); /* a write makes it good again */
        happy_end(sim);
    }
}

/* Each block is good somewhere, no larger piece is on any one disk. */
void s11_two_disks_with_different_holes(void **state)
{
    (void)state;
    for (unsigned turn = 0; turn < 4; turn++) {
        struct sim *sim = cluster(3, 2, 2);
        struct sim_node *owner = sim_owner(sim, 0), *member = replica(sim, 1 - replica_of(sim, owner));
        write_everywhere(sim);
        sim_run(sim, 2000); /* no intent is left */
        for (uint32_t block = turn < 2 ? 0 : 16; block < SIM_BLOCKS; block += 2) {
            sim_disk_spoil(turn % 2 ? owner : member, 0, block, SIM_BLOCK_UNREADABLE);
            sim_disk_spoil(turn % 2 ? member : owner, 0, block + 1, SIM_BLOCK_ROTTEN);
        }
        if (turn >= 2) { /* one is away meanwhile; what differs (the first region) can be copied, the rest needs both again */
            writes(owner, 4);
            sim_run_until(&sim->world, sim->world.now_us + 150);
            sim_node_crash(owner, SIM_CRASH_PROCESS);
            wait_epoch(sim, 2, 5000);
            sim_node_start(owner);
            wait_isr(sim, 3, 20000);
        }
        for (uint32_t block = 0; block + 8 <= SIM_BLOCKS; block += 8)
            must_succeed(sim, sim_client_submit(sim_owner(sim, 0), 0, true, block, 8), 5000);
        happy_end(sim);
    }
}

void s11_scrub_repairs_what_nobody_read(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    write_everywhere(sim);
    for (uint32_t block = 0; block < SIM_BLOCKS; block++)
        sim_disk_spoil(&sim->nodes[block % 3], 0, block, block % 2 ? SIM_BLOCK_ROTTEN : SIM_BLOCK_UNREADABLE);
    sim_client_start(sim);
    assert_true(sim_operator_check(sim_owner(sim, 0), 0, MIRROR_CHECK_SCRUB, true));
    sim_run(sim, 5000);
    for (unsigned i = 0; i < 3; i++)
        for (uint32_t block = 0; block < SIM_BLOCKS; block++)
            assert_int_equal(sim->nodes[i].disks[0].states[block], SIM_BLOCK_GOOD);
    assert_int_equal(sim_volume(sim, 0)->isr_version, 1); /* nobody left the in-sync set for it */
    happy_end(sim);
}

/* I10: both disks that are in sync fail. One of them stays, and its errors are the answer. */
void s10_the_last_disks_fail(void **state)
{
    (void)state;
    struct sim *sim = cluster(5, 3, 0);
    unsigned self = replica_of(sim, sim_owner(sim, 0)), other = (self + 1) % 3, behind = (self + 2) % 3;
    leave_behind(sim, behind, SIM_CRASH_PROCESS);
    replica(sim, self)->data_broken = replica(sim, other)->data_broken = true;
    struct sim_op *op = writes(sim_owner(sim, 0), 5);
    sim_run(sim, 6000);
    fine(sim);
    assert_true(op->status < 0);
    uint32_t isr = sim_volume(sim, 0)->isr;
    assert_true(isr == 1u << self || isr == 1u << other);
    sim_node_start(replica(sim, behind)); /* it does not help: it lacks what was written meanwhile */
    sim_run(sim, 5000);
    assert_int_equal(sim_volume(sim, 0)->isr, isr);
    happy_end(sim);
}

/* I12: a replica whose metadata could not be made durable is out until its process is started anew. */
void s15_metadata_sync_fails(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 3; k++) {
        struct sim *sim = cluster(3, 3, 0);
        struct sim_node *broken = replica(sim, k);
        struct replica_status status;
        must_succeed(sim, writes(sim_owner(sim, 0), 5), 5000);
        broken->meta_broken = true;
        struct sim_op *op = writes(sim_owner(sim, 0), 100); /* a new region: an intent bit */
        wait_isr(sim, 7u & ~(1u << k), 5000);
        broken->meta_broken = false; /* it would do again */
        must_succeed(sim, writes(sim_owner(sim, 0), 5), 5000);
        sim_run(sim, 6000);
        fine(sim);
        assert_int_equal(sim_volume(sim, 0)->isr, 7u & ~(1u << k));
        replica_get_status(broken->units[0].core, &status);
        assert_true(status.failed);
        assert_int_not_equal(op->status, SIM_PENDING);
        sim_node_crash(broken, SIM_CRASH_PROCESS);
        sim_node_start(broken);
        wait_isr(sim, 7, 20000);
        happy_end(sim);
    }
}

static void slow_member(uint32_t slow, bool hung)
{
    for (unsigned replicas = 2; replicas <= 3; replicas++) {
        struct sim *sim = cluster(3, replicas, 0);
        struct sim_node *owner = sim_owner(sim, 0);
        unsigned k = (replica_of(sim, owner) + 1) % replicas;
        uint32_t all = sim_volume(sim, 0)->isr;
        must_succeed(sim, writes(owner, 5), 1000);
        replica(sim, k)->slow = slow;
        replica(sim, k)->hung = hung;
        for (unsigned i = 0; i < 8 && sim_volume(sim, 0)->isr == all; i++)
            must_succeed(sim, writes(owner, 5), 10000); /* it is left behind, I/O goes on */
        assert_int_equal(sim_volume(sim, 0)->isr, all & ~(1u << k));
        for (unsigned i = 0; i < 20; i++)
            must_succeed(sim, writes(owner, 5 + i), 500); /* and fast */
        assert_int_equal(sim_volume(sim, 0)->epoch, 1);
        happy_end(sim);
    }
}

void s31_slow_disk_of_a_member(void **state)
{
    (void)state;
    slow_member(20000, false);
}

void s31_hanging_disk_of_a_member(void **state)
{
    (void)state;
    slow_member(1, true);
}

/* Found by the swarm. The last in-sync disk fails two writes that a member has which left the set; they were issued in another
 * order than they came. Neither may be told to that member as complete: it must report both, to be copied over (I6). */
void failed_writes_are_not_complete(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 2, 2);
    if (sim_owner(sim, 0) == sim_sequencer(sim)) { /* who commits the change must not be the one that hangs */
        (void)sim_control_promote(sim_sequencer(sim), 0, replica(sim, 1 - replica_of(sim, sim_sequencer(sim)))->nodeid, 3);
        wait_epoch(sim, 2, 5000);
        sim_settle(sim, 10000);
    }
    struct sim_node *owner = sim_owner(sim, 0), *sequencer = sim_sequencer(sim);
    unsigned self = replica_of(sim, owner);
    struct sim_node *member = replica(sim, 1 - self);
    must_succeed(sim, writes(owner, 5), 1000); /* its region has an intent bit from now on */
    member->hung = true;
    struct sim_op *first = writes(owner, 5), *last = writes(owner, 5); /* the second waits for the first */
    sim_run(sim, 1);
    hang_control(owner, 800);
    owner->meta_broken = true;
    struct sim_op *between = writes(owner, 100); /* in a new region: fails at the owner alone, as what comes after it */
    sim_run(sim, 300);
    member->hung = false;
    sim_run(sim, 200);
    assert_int_equal(first->status, 0);
    assert_int_equal(last->status, SIM_PENDING);
    assert_int_equal(between->status, SIM_PENDING);
    assert_true(sim_control_isr(sequencer, 0, 1u << self));
    owner->data_broken = true; /* no resync from it now, which would go by marks in its memory */
    (void)sim_wait(sim, 2000, op_answered, last);
    (void)sim_wait(sim, 2000, op_answered, between);
    assert_true(last->status < 0 && between->status < 0);
    sim_run(sim, 1500); /* the member would forget */
    owner->meta_broken = owner->data_broken = false;
    sim_node_crash(owner, SIM_CRASH_PROCESS);
    happy_end(sim);
}

/* Writes that overlap and are under way at once end the same on all replicas, and no read sees them go back. */
void overlapping_writes_end_equal(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    struct sim_node *owner = sim_owner(sim, 0);
    struct sim_op *last = NULL;
    for (unsigned turn = 0; turn < 40; turn++) {
        for (uint32_t i = 0; i < 4; i++)
            last = sim_client_submit(owner, 0, false, 5 + i % 3, 1 + (turn + i) % 4);
        (void)sim_client_submit(owner, 0, true, 5, 4);
        must_succeed(sim, last, 1000);
    }
    happy_end(sim);
}

void s31_a_slow_member_that_is_needed_stays(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 2, 2);
    struct sim_node *owner = sim_owner(sim, 0), *member = replica(sim, 1 - replica_of(sim, owner));
    struct tree_policy policy = {.in_sync_min = 2};
    assert_true(sim_operator_policy(owner, 0, DIRECTOR__VOLUME_POLICY_FIELD__POLICY_IN_SYNC_MIN, &policy));
    sim_run(sim, 200);
    uint64_t version = sim_volume(sim, 0)->isr_version;
    member->slow = 10000;
    for (unsigned i = 0; i < 4; i++)
        must_succeed(sim, writes(owner, 9 + i), 15000);
    assert_int_equal(sim_volume(sim, 0)->isr, 3);
    assert_int_equal(sim_volume(sim, 0)->isr_version, version);
    happy_end(sim);
}

/* A write reaches one member alone, then that member and the owner die. When it returns, only its own intent bits tell of it (I6). */
void a_returning_member_tells_what_it_alone_has(void **state)
{
    (void)state;
    struct sim *sim = cluster(5, 3, 0);
    struct sim_node *owner = sim_owner(sim, 0);
    unsigned self = replica_of(sim, owner);
    struct sim_node *has = replica(sim, (self + 1) % 3), *other = replica(sim, (self + 2) % 3);
    struct sim_link *link = sim_link_between(sim, owner->place, other->place);
    link->last_at[0] += 900000;
    link->last_at[1] += 900000;
    owner->hung = true;
    struct sim_op *op = writes(owner, 100);
    sim_run(sim, 50);
    assert_int_equal(has->disks[0].blocks[100], op->tag);
    assert_int_not_equal(other->disks[0].blocks[100], op->tag);
    sim_node_crash(owner, SIM_CRASH_PROCESS);
    sim_node_crash(has, SIM_CRASH_PROCESS);
    wait_epoch(sim, 2, 8000);
    assert_ptr_equal(sim_owner(sim, 0), other);
    must_succeed(sim, writes(other, 5), 5000);
    must_succeed(sim, reads(other, 100), 5000); /* as it was: now it must not come back */
    happy_end(sim);
}
