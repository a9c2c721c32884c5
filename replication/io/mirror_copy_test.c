/* Copying between members: repair in place, resync by digest, thin stays thin, verify and scrub. */
#include "replication/core/mirror_internal.h"
#include "replication/io/mirror_device_private.h"
#include "replication/io/test_cluster.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define SIZE   (4u << 20)
#define BLOCK  4096u
#define BLOCKS (SIZE / BLOCK)

static uv_loop_t loop;
static struct test_cluster cluster;
static uint8_t buffer[1 << 20], other[1 << 20];

static int start(unsigned count)
{
    uv_loop_init(&loop);
    test_cluster_start(&cluster, &loop, count, SIZE, "/tmp");
    return 0;
}
static int start_two(void **state)
{
    (void)state;
    return start(2);
}
static int start_three(void **state)
{
    (void)state;
    return start(3);
}
static int end(void **state)
{
    (void)state;
    test_cluster_end(&cluster);
    assert_int_equal(uv_loop_close(&loop), 0);
    return 0;
}

static void fill(uint8_t *to, size_t size, uint8_t seed)
{
    for (size_t i = 0; i < size; i++)
        to[i] = (uint8_t)(seed + i * 7 + i / 512);
}

static struct mirror_status status_of_owner(struct test_cluster *c)
{
    struct mirror_device_status status;
    mirror_device_get_status(c->nodes[c->config.owner - 1].device, &status);
    return status.mirror;
}
static bool all_in_sync(struct test_cluster *c)
{
    struct mirror_status status = status_of_owner(c);
    return status.state == MIRROR_SERVING && status.isr == (1u << c->count) - 1 && !status.suspended;
}
static bool check_over(struct test_cluster *c)
{
    return status_of_owner(c).check.state >= MIRROR_CHECK_DONE;
}
static uint64_t wanted_repairs;
static bool repaired(struct test_cluster *c)
{
    return status_of_owner(c).repaired_blocks >= wanted_repairs;
}
static bool dropped_second(struct test_cluster *c)
{
    return !(c->config.isr & 2);
}
static unsigned mapped(unsigned node)
{
    unsigned count = 0;
    for (unsigned b = 0; b < BLOCKS; b++)
        count += cluster.nodes[node].disk.mapped[b];
    return count;
}
static void check(enum mirror_check_kind kind, bool repair, struct mirror_check_status *ret_status)
{
    struct mirror_check_options options = {.kind = kind, .repair = repair};
    assert_int_equal(mirror_device_check_start(cluster.nodes[cluster.config.owner - 1].device, &options), 0);
    assert_true(test_cluster_run(&cluster, check_over, 5000));
    *ret_status = status_of_owner(&cluster).check;
    assert_int_equal(ret_status->state, MIRROR_CHECK_DONE);
    assert_int_equal(ret_status->position, SIZE);
}
/* The volume, full of known bytes. */
static void write_all(uint8_t seed)
{
    fill(buffer, sizeof(buffer), seed);
    for (uint64_t at = 0; at < SIZE; at += sizeof(buffer))
        assert_int_equal(test_cluster_io(&cluster, (unsigned)cluster.config.owner - 1, BLOCK_WRITE, at, buffer, sizeof(buffer)), 0);
}

/* ---- repair -------------------------------------------------------------------------------------------------------- */

static void a_block_that_cannot_be_read_is_read_elsewhere_and_repaired_in_place(void **state)
{
    (void)state;
    write_all(1);
    cluster.nodes[0].disk.bad[5] = cluster.nodes[0].disk.bad[6] = cluster.nodes[0].disk.bad[100] = 1;
    uint64_t before = cluster.nodes[0].disk.written_bytes;
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 0, other, sizeof(other)), 0);
    assert_memory_equal(other, buffer, sizeof(other));
    wanted_repairs = 3;
    assert_true(test_cluster_run(&cluster, repaired, 3000));
    assert_int_equal(cluster.nodes[0].disk.bad[5] | cluster.nodes[0].disk.bad[6] | cluster.nodes[0].disk.bad[100], 0);
    struct mirror_status status = status_of_owner(&cluster);
    assert_int_equal(status.repaired_blocks, 3); /* these, and not all that was read */
    assert_int_equal(status.members[0].repaired_blocks, 3);
    assert_int_equal(status.members[0].read_errors, 1);
    assert_int_equal(cluster.nodes[0].disk.written_bytes - before, 3 * BLOCK);
    assert_memory_equal(cluster.nodes[0].disk.bytes, buffer, sizeof(buffer));
    assert_int_equal(cluster.config.isr, 3);
}

static void each_may_have_lost_another_block_of_one_read(void **state)
{
    (void)state;
    write_all(2);
    cluster.nodes[0].disk.bad[3] = cluster.nodes[0].disk.bad[9] = cluster.nodes[1].disk.bad[8] = 1;
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 512, other, 100 << 10), 0);
    assert_memory_equal(other, buffer + 512, 100 << 10);
    wanted_repairs = 2;
    assert_true(test_cluster_run(&cluster, repaired, 3000));
    assert_int_equal(cluster.nodes[0].disk.bad[3] | cluster.nodes[0].disk.bad[9], 0);
    cluster.nodes[0].disk.bad[8] = 1; /* now nobody has it */
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 0, other, 100 << 10), -EIO);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 8 * BLOCK, buffer, BLOCK), 0);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 0, other, 100 << 10), 0);
}

/* Scenario 11 with checksums at rest: bits that turned on one disk are never shown, and put right from another one. */
static void rot_is_read_elsewhere_and_repaired_in_place(void **state)
{
    struct mirror_check_status found;
    struct mirror_device_status status;
    (void)state;
    write_all(4);
    cluster.nodes[0].disk.bytes[5 * BLOCK + 17] ^= 4;
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 0, other, 100 << 10), 0);
    assert_memory_equal(other, buffer, 100 << 10);
    wanted_repairs = 1;
    assert_true(test_cluster_run(&cluster, repaired, 3000));
    assert_memory_equal(cluster.nodes[0].disk.bytes, buffer, 100 << 10);
    mirror_device_get_status(cluster.nodes[0].device, &status);
    assert_true(status.checksum_errors > 0);
    cluster.nodes[1].disk.bytes[9 * BLOCK] ^= 1; /* where nobody reads: scrub finds it */
    check(MIRROR_CHECK_SCRUB, true, &found);
    assert_int_equal(found.bad_blocks, 1);
    assert_int_equal(found.repaired, 1);
    assert_memory_equal(cluster.nodes[1].disk.bytes, buffer, 100 << 10);
    test_node_down(&cluster, 0); /* the sums of what its intent bits name are made anew */
    test_node_up(&cluster, 0);
    assert_true(test_cluster_run(&cluster, all_in_sync, 5000));
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 0, other, 100 << 10), 0);
    assert_memory_equal(other, buffer, 100 << 10);
}

static int start_two_with_checksums(void **state)
{
    test_cluster_checksum = true;
    return start_two(state);
}
static int end_with_checksums(void **state)
{
    int result = end(state);
    test_cluster_checksum = false;
    return result;
}

static void one_that_cannot_be_repaired_leaves(void **state)
{
    struct mirror_check_options options = {.kind = MIRROR_CHECK_SCRUB, .repair = true};
    (void)state;
    write_all(3);
    cluster.nodes[1].disk.bad[7] = 2; /* the rewrite succeeds, and it still cannot be read */
    assert_int_equal(mirror_device_check_start(cluster.nodes[0].device, &options), 0);
    assert_true(test_cluster_run(&cluster, dropped_second, 3000));
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 8192), 0);
}

/* ---- resync ---------------------------------------------------------------------------------------------------------- */

static void holes_stay_holes_on_a_replica_that_joins(void **state)
{
    (void)state;
    test_node_down(&cluster, 0); /* (its disk does not unmap; the third's does) */
    test_node_down(&cluster, 2);
    test_cluster_commit(&cluster, 2, 2, true);
    memset(other, 0, sizeof(other));
    fill(other + 100 * BLOCK, 3 * BLOCK, 4);
    fill(other + 200 * BLOCK, BLOCK, 4);
    assert_int_equal(test_cluster_io(&cluster, 1, BLOCK_WRITE, 0, other, 200 * BLOCK), 0);
    assert_int_equal(test_cluster_io(&cluster, 1, BLOCK_WRITE, 1 << 20, other + 200 * BLOCK, BLOCK), 0);
    test_node_up(&cluster, 2);
    test_node_up(&cluster, 0);
    assert_true(test_cluster_run(&cluster, all_in_sync, 8000));
    assert_memory_equal(cluster.nodes[2].disk.bytes, cluster.nodes[1].disk.bytes, SIZE);
    assert_memory_equal(cluster.nodes[0].disk.bytes, cluster.nodes[1].disk.bytes, SIZE);
    assert_int_equal(mapped(2), 4);
}

/* Node index comes back with its data, and metadata that say nothing of it: another incarnation. */
static void forget(unsigned index)
{
    struct test_node *node = &cluster.nodes[index];
    struct mirror_replica_identity identity = {.volume = 5, .size_bytes = SIZE, .replica_index = index, .incarnation = 90};
    struct error error;
    memcpy(identity.volume_uuid.bytes, "volume-uuid-test", 16);
    test_node_down(&cluster, index);
    test_cluster_commit(&cluster, cluster.config.owner, cluster.config.isr & (uint8_t)~(1u << index), false);
    assert_int_equal(mirror_replica_remove(node->metadata, &error), 0);
    assert_int_equal(mirror_replica_create(node->metadata, &identity, &error), 0);
    cluster.config.replicas[index].incarnation = 90;
    test_cluster_commit(&cluster, cluster.config.owner, cluster.config.isr, false);
}

static void a_full_resync_sends_only_what_differs(void **state)
{
    (void)state;
    write_all(5);
    forget(1);
    cluster.nodes[1].disk.bytes[70000] ^= 1;
    cluster.nodes[1].disk.bytes[SIZE - 1] ^= 1;
    cluster.nodes[1].disk.bad[30] = 1; /* and one of what is equal cannot be read there */
    uint64_t before = cluster.nodes[1].disk.written_bytes;
    test_node_up(&cluster, 1);
    assert_true(test_cluster_run(&cluster, all_in_sync, 8000));
    assert_memory_equal(cluster.nodes[1].disk.bytes, cluster.nodes[0].disk.bytes, SIZE);
    assert_int_equal(cluster.nodes[1].disk.bad[30], 0);
    struct mirror_member_status member = status_of_owner(&cluster).members[1];
    assert_int_equal(member.total_bytes, SIZE);
    assert_int_equal(member.done_bytes, SIZE);
    assert_int_equal(member.compared_bytes, SIZE);
    assert_int_equal(member.sent_bytes, 2 * 65536); /* block 30 is in the piece of byte 70000 */
    assert_int_equal(cluster.nodes[1].disk.written_bytes - before, 2 * 65536);
    assert_int_equal(member.sources, 1);
}

static void comparing_is_left_out_when_everything_differs(void **state)
{
    (void)state;
    write_all(6);
    forget(1);
    fill(cluster.nodes[1].disk.bytes, SIZE, 99);
    test_node_up(&cluster, 1);
    assert_true(test_cluster_run(&cluster, all_in_sync, 8000));
    assert_memory_equal(cluster.nodes[1].disk.bytes, cluster.nodes[0].disk.bytes, SIZE);
    struct mirror_member_status member = status_of_owner(&cluster).members[1];
    assert_int_equal(member.sent_bytes, SIZE);
    assert_true(member.compared_bytes <= SIZE - (1u << 20));
}

static void two_join_at_once_from_one_reading(void **state)
{
    (void)state;
    write_all(7);
    test_node_down(&cluster, 1);
    test_node_down(&cluster, 2);
    test_cluster_commit(&cluster, 1, 1, false);
    write_all(8);
    test_node_up(&cluster, 1);
    test_node_up(&cluster, 2);
    assert_true(test_cluster_run(&cluster, all_in_sync, 8000));
    assert_memory_equal(cluster.nodes[1].disk.bytes, cluster.nodes[0].disk.bytes, SIZE);
    assert_memory_equal(cluster.nodes[2].disk.bytes, cluster.nodes[0].disk.bytes, SIZE);
}

static bool second_is_asked(struct test_cluster *c)
{
    return c->nodes[1].disk.first != NULL;
}
static bool third_in_sync(struct test_cluster *c)
{
    return c->config.isr == 5;
}
static bool idle(struct test_cluster *c)
{
    return !c->nodes[1].disk.first;
}

static void in_sync_members_send_straight_to_the_joiner(void **state)
{
    (void)state;
    test_node_down(&cluster, 2);
    test_cluster_commit(&cluster, 1, 3, false);
    write_all(20);
    uint64_t from_owner = cluster.sent_bytes[0][2], from_second = cluster.sent_bytes[1][2];
    test_node_up(&cluster, 2);
    assert_true(test_cluster_run(&cluster, all_in_sync, 8000));
    assert_memory_equal(cluster.nodes[2].disk.bytes, cluster.nodes[0].disk.bytes, SIZE);
    assert_int_equal(status_of_owner(&cluster).members[2].sources, 3);
    assert_in_range(cluster.sent_bytes[0][2] - from_owner, SIZE / 4, SIZE * 3 / 4);
    assert_in_range(cluster.sent_bytes[1][2] - from_second, SIZE / 4, SIZE * 3 / 4);
}

static void members_that_do_not_reach_the_joiner_do_not_hold_it_up(void **state)
{
    (void)state;
    test_node_down(&cluster, 2);
    test_cluster_commit(&cluster, 1, 3, false);
    write_all(21);
    test_cluster_link(&cluster, 1, 2, false);
    cluster.nodes[2].disk.stalled = true;
    test_node_up(&cluster, 2);
    test_cluster_link(&cluster, 1, 2, false);
    cluster.nodes[2].disk.stalled = false;
    assert_true(test_cluster_run(&cluster, all_in_sync, 8000));
    assert_memory_equal(cluster.nodes[2].disk.bytes, cluster.nodes[0].disk.bytes, SIZE);
}

/* A source is told to send, keeps it, and is lost; the joiner gets everything otherwise, and then a newer write. Returns whether
 * the late copy has spoilt it. */
static bool late_copy_spoils(uint32_t bugs)
{
    test_node_down(&cluster, 2);
    test_cluster_commit(&cluster, 1, 3, false);
    write_all(22);
    cluster.nodes[0].device->mirror->parameters.planted_bugs = bugs;
    cluster.nodes[1].disk.stalled = true;
    test_node_up(&cluster, 2);
    assert_true(test_cluster_run(&cluster, second_is_asked, 3000));
    test_cluster_link(&cluster, 0, 1, false);
    assert_true(test_cluster_run(&cluster, third_in_sync, 8000));
    write_all(23);
    cluster.nodes[1].disk.stalled = false;
    uv_idle_start(&cluster.nodes[1].disk.idle, test_disk_turn);
    assert_true(test_cluster_run(&cluster, idle, 3000));
    test_cluster_run(&cluster, NULL, 100);
    return memcmp(cluster.nodes[2].disk.bytes, cluster.nodes[0].disk.bytes, SIZE) != 0;
}

static void a_copy_that_comes_late_is_of_a_session_that_is_over(void **state)
{
    (void)state;
    assert_false(late_copy_spoils(0));
}

static void and_would_spoil_the_joiner_otherwise(void **state)
{
    (void)state;
    assert_true(late_copy_spoils(MIRROR_BUG_LATE_COPY));
}

/* ---- verify and scrub -------------------------------------------------------------------------------------------------- */

static void verify_finds_what_differs_and_repairs_when_told(void **state)
{
    struct mirror_check_status result;
    (void)state;
    write_all(9);
    cluster.nodes[1].disk.bytes[10 * BLOCK + 17] ^= 4;
    cluster.nodes[1].disk.bytes[11 * BLOCK] ^= 4;
    cluster.nodes[1].disk.bytes[SIZE - 5] ^= 4;
    cluster.nodes[1].disk.bad[500] = 1;
    check(MIRROR_CHECK_VERIFY, false, &result);
    assert_int_equal(result.mismatches, 3);
    assert_int_equal(result.bad_blocks, 1);
    assert_int_equal(result.repaired, 0);
    assert_int_equal(result.finding_count, 3);
    assert_int_equal(result.findings[0].offset, 10 * BLOCK);
    assert_int_equal(result.findings[0].length, 2 * BLOCK);
    assert_int_equal(result.findings[0].members, 2);
    check(MIRROR_CHECK_VERIFY, true, &result);
    assert_int_equal(result.mismatches, 3);
    assert_int_equal(result.repaired, 4);
    assert_int_equal(result.failed, 0);
    assert_memory_equal(cluster.nodes[1].disk.bytes, cluster.nodes[0].disk.bytes, SIZE);
    check(MIRROR_CHECK_VERIFY, false, &result);
    assert_int_equal(result.mismatches + result.bad_blocks, 0);
    assert_int_equal(cluster.config.isr, 3);
}

static void the_majority_is_right_also_against_the_owner(void **state)
{
    struct mirror_check_status result;
    (void)state;
    write_all(10);
    cluster.nodes[0].disk.bytes[20 * BLOCK] ^= 1;
    check(MIRROR_CHECK_VERIFY, true, &result);
    assert_int_equal(result.mismatches, 1);
    assert_int_equal(result.findings[0].members, 1);
    assert_int_equal(result.repaired, 1);
    assert_memory_equal(cluster.nodes[0].disk.bytes, cluster.nodes[1].disk.bytes, SIZE);
    assert_memory_equal(cluster.nodes[0].disk.bytes, buffer, sizeof(buffer));
}

static void scrub_reads_everything_and_repairs_what_cannot_be_read(void **state)
{
    struct mirror_check_status result;
    (void)state;
    write_all(11);
    cluster.nodes[0].disk.bad[1] = cluster.nodes[1].disk.bad[1023] = 1;
    cluster.nodes[1].disk.bytes[5 * BLOCK] ^= 1; /* not its business */
    check(MIRROR_CHECK_SCRUB, true, &result);
    assert_int_equal(result.bad_blocks, 2);
    assert_int_equal(result.mismatches, 0);
    assert_int_equal(result.repaired, 2);
    assert_int_equal(cluster.nodes[0].disk.bad[1] | cluster.nodes[1].disk.bad[1023], 0);
}

static void what_nobody_can_read_is_counted_as_failed(void **state)
{
    struct mirror_check_status result;
    (void)state;
    write_all(12);
    cluster.nodes[0].disk.bad[77] = cluster.nodes[1].disk.bad[77] = 1;
    check(MIRROR_CHECK_SCRUB, true, &result);
    assert_int_equal(result.bad_blocks, 1);
    assert_int_equal(result.failed, 1);
    assert_int_equal(result.findings[0].members, 3);
    assert_int_equal(cluster.config.isr, 3);
}

static bool check_waits(struct test_cluster *c)
{
    return status_of_owner(c).check.state == MIRROR_CHECK_WAITING && c->config.isr == 1;
}

static void a_check_survives_the_loss_of_a_member_and_ends_with_the_ownership(void **state)
{
    struct mirror_check_options options = {.kind = MIRROR_CHECK_VERIFY};
    struct mirror_device_status status;
    (void)state;
    write_all(13);
    cluster.config.policy.resync_cap = 1 << 20; /* slow enough to be met under way */
    test_cluster_commit(&cluster, 1, 3, false);
    assert_int_equal(mirror_device_check_start(cluster.nodes[0].device, &options), 0);
    assert_int_equal(mirror_device_check_start(cluster.nodes[0].device, &options), -EBUSY);
    assert_int_equal(mirror_device_check_start(cluster.nodes[1].device, &options), -ESTALE);
    test_cluster_run(&cluster, NULL, 300);
    test_node_down(&cluster, 1);
    assert_true(test_cluster_run(&cluster, check_waits, 3000)); /* nobody to compare with */
    uint64_t position = status_of_owner(&cluster).check.position;
    assert_in_range(position, 65536, SIZE - 65536);
    test_node_up(&cluster, 1);
    assert_true(test_cluster_run(&cluster, all_in_sync, 8000));
    test_cluster_run(&cluster, NULL, 300);
    assert_true(status_of_owner(&cluster).check.position > position);
    assert_true(status_of_owner(&cluster).check.left_ms > 0);
    test_cluster_commit(&cluster, 2, 3, true);
    test_cluster_run(&cluster, NULL, 50);
    mirror_device_get_status(cluster.nodes[0].device, &status);
    assert_int_equal(status.mirror.check.state, MIRROR_CHECK_STOPPED);
    cluster.config.policy.resync_cap = 0;
    test_cluster_commit(&cluster, 2, 3, false);
    assert_true(test_cluster_run(&cluster, all_in_sync, 3000));
    options.from_offset = status.mirror.check.position;
    cluster.nodes[1].disk.bytes[SIZE - 1] ^= 1;
    assert_int_equal(mirror_device_check_start(cluster.nodes[1].device, &options), 0);
    assert_true(test_cluster_run(&cluster, check_over, 5000));
    assert_int_equal(status_of_owner(&cluster).check.mismatches, 1);
    assert_int_equal(mirror_device_check_stop(cluster.nodes[1].device), -ENOENT);
}

static void verify_sees_no_difference_while_clients_write(void **state)
{
    struct mirror_check_options options = {.kind = MIRROR_CHECK_VERIFY, .repair = true};
    (void)state;
    write_all(14);
    assert_int_equal(mirror_device_check_start(cluster.nodes[0].device, &options), 0);
    for (unsigned i = 0; i < 500; i++) {
        buffer[0] = (uint8_t)i;
        assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, (i * 37 % BLOCKS) * BLOCK, buffer, BLOCK), 0);
    }
    assert_true(test_cluster_run(&cluster, check_over, 5000));
    assert_int_equal(status_of_owner(&cluster).check.mismatches, 0);
    assert_int_equal(status_of_owner(&cluster).check.state, MIRROR_CHECK_DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_block_that_cannot_be_read_is_read_elsewhere_and_repaired_in_place, start_two, end),
        cmocka_unit_test_setup_teardown(each_may_have_lost_another_block_of_one_read, start_two, end),
        cmocka_unit_test_setup_teardown(one_that_cannot_be_repaired_leaves, start_two, end),
        cmocka_unit_test_setup_teardown(rot_is_read_elsewhere_and_repaired_in_place, start_two_with_checksums, end_with_checksums),
        cmocka_unit_test_setup_teardown(holes_stay_holes_on_a_replica_that_joins, start_three, end),
        cmocka_unit_test_setup_teardown(a_full_resync_sends_only_what_differs, start_two, end),
        cmocka_unit_test_setup_teardown(comparing_is_left_out_when_everything_differs, start_two, end),
        cmocka_unit_test_setup_teardown(two_join_at_once_from_one_reading, start_three, end),
        cmocka_unit_test_setup_teardown(in_sync_members_send_straight_to_the_joiner, start_three, end),
        cmocka_unit_test_setup_teardown(members_that_do_not_reach_the_joiner_do_not_hold_it_up, start_three, end),
        cmocka_unit_test_setup_teardown(a_copy_that_comes_late_is_of_a_session_that_is_over, start_three, end),
        cmocka_unit_test_setup_teardown(and_would_spoil_the_joiner_otherwise, start_three, end),
        cmocka_unit_test_setup_teardown(verify_finds_what_differs_and_repairs_when_told, start_two, end),
        cmocka_unit_test_setup_teardown(the_majority_is_right_also_against_the_owner, start_three, end),
        cmocka_unit_test_setup_teardown(scrub_reads_everything_and_repairs_what_cannot_be_read, start_two, end),
        cmocka_unit_test_setup_teardown(what_nobody_can_read_is_counted_as_failed, start_two, end),
        cmocka_unit_test_setup_teardown(a_check_survives_the_loss_of_a_member_and_ends_with_the_ownership, start_two, end),
        cmocka_unit_test_setup_teardown(verify_sees_no_difference_while_clients_write, start_two, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
