/* What changes while a volume serves: replicas added and removed, policies, slow members. */
#include "replication/io/test_cluster.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define SIZE (4u << 20)

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

static int done_status;
static unsigned done_count;
static void note_done(struct block_request *request)
{
    done_status = request->status;
    done_count++;
}
static bool done_one(struct test_cluster *c)
{
    (void)c;
    return done_count > 0;
}

static bool in_sync_as_committed(struct test_cluster *c)
{
    struct mirror_device_status status;
    uint8_t all = 0;
    for (unsigned k = 0; k < c->config.replica_count; k++)
        if (c->config.replicas[k].nodeid)
            all |= (uint8_t)(1u << k);
    mirror_device_get_status(c->nodes[c->config.owner - 1].device, &status);
    return status.mirror.state == MIRROR_SERVING && status.mirror.isr == all && !status.mirror.suspended;
}

/* The files of node index's replica, made anew for a place. */
static void make_anew(unsigned index, uint32_t place, uint64_t incarnation)
{
    struct error error;
    struct mirror_replica_identity identity = {.volume = 5, .size_bytes = SIZE, .replica_index = place, .incarnation = incarnation};
    memcpy(identity.volume_uuid.bytes, "volume-uuid-test", 16);
    test_node_down(&cluster, index);
    assert_int_equal(mirror_replica_remove(cluster.nodes[index].metadata, &error), 0);
    assert_int_equal(mirror_replica_create(cluster.nodes[index].metadata, &identity, &error), 0);
    memset(cluster.nodes[index].disk.bytes, 0xee, SIZE);
}

static void a_place_is_emptied_and_filled_by_another_node_while_serving(void **state)
{
    struct mirror_device_status status;
    (void)state;
    fill(buffer, 1 << 20, 21);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 1 << 20), 0);
    uint64_t epoch = cluster.config.epoch;
    cluster.config.replicas[1].nodeid = 0; /* node 2, in sync until now */
    test_cluster_commit(&cluster, 1, 5, false);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 2 << 20, buffer, 8192), 0);
    make_anew(1, 3, 91); /* it comes back in place 3: blank */
    test_node_up(&cluster, 1);
    test_cluster_run(&cluster, NULL, 100);
    assert_int_equal(cluster.config.isr, 5);
    cluster.config.replica_count = 4;
    cluster.config.replicas[3].nodeid = 2;
    cluster.config.replicas[3].incarnation = 91;
    test_cluster_commit(&cluster, 1, 5, false);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 3 << 20, buffer, 8192), 0);
    assert_true(test_cluster_run(&cluster, in_sync_as_committed, 5000));
    assert_int_equal(cluster.config.isr, 13);
    assert_int_equal(cluster.config.epoch, epoch);
    assert_memory_equal(cluster.nodes[0].disk.bytes, cluster.nodes[1].disk.bytes, SIZE);
    mirror_device_get_status(cluster.nodes[0].device, &status);
    assert_int_equal(status.mirror.epoch, epoch);
    make_anew(2, 1, 92); /* node 3 moves from place 2 to place 1, in one version that is seen */
    cluster.config.replicas[2].nodeid = 0;
    cluster.config.replicas[1].nodeid = 3;
    cluster.config.replicas[1].incarnation = 92;
    test_cluster_commit(&cluster, 1, 9, false);
    test_node_up(&cluster, 2);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 0, other, 1 << 20), 0);
    assert_memory_equal(other, buffer, 1 << 20);
    assert_true(test_cluster_run(&cluster, in_sync_as_committed, 5000));
    assert_int_equal(cluster.config.isr, 11);
    assert_memory_equal(cluster.nodes[0].disk.bytes, cluster.nodes[2].disk.bytes, SIZE);
}

static void a_new_owner_knows_that_a_place_has_another_disk(void **state)
{
    (void)state;
    fill(buffer, 1 << 20, 22);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 1 << 20), 0);
    make_anew(2, 2, 93);
    cluster.config.replicas[2].incarnation = 93;
    test_cluster_commit(&cluster, 2, 3, true); /* the old owner never told anybody */
    test_node_up(&cluster, 2);
    assert_true(test_cluster_run(&cluster, in_sync_as_committed, 5000));
    assert_memory_equal(cluster.nodes[1].disk.bytes, cluster.nodes[2].disk.bytes, SIZE);
}

static void policy(struct mirror_policy to)
{
    cluster.config.policy = to;
    test_cluster_commit(&cluster, cluster.config.owner, cluster.config.isr, false);
}

static void a_verified_read_waits_for_every_other_member(void **state)
{
    (void)state;
    struct iovec iov = {buffer, 4096};
    struct block_request read = {.operation = BLOCK_READ, .length_bytes = 4096, .iov = &iov, .iov_count = 1, .done = note_done};
    policy((struct mirror_policy){.verified_reads = true});
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 0, other, 4096), 0);
    assert_int_equal(cluster.confirms, 1);
    cluster.hold_confirms = true; /* node 2 says nothing; the lease is valid all the time */
    done_count = 0;
    block_device_submit(mirror_device_block(cluster.nodes[0].device), &read);
    assert_false(test_cluster_run(&cluster, done_one, 300));
    cluster.hold_confirms = false;
    test_cluster_link(&cluster, 0, 1, false); /* asked again when it is back */
    test_cluster_link(&cluster, 0, 1, true);
    assert_true(test_cluster_run(&cluster, done_one, 1000));
    assert_int_equal(done_status, 0);
    cluster.hold_confirms = true;
    done_count = 0;
    block_device_submit(mirror_device_block(cluster.nodes[0].device), &read);
    assert_false(test_cluster_run(&cluster, done_one, 100));
    test_cluster_commit(&cluster, 1, 1, false); /* alone by a committed change: nobody to ask */
    assert_true(test_cluster_run(&cluster, done_one, 1000));
    assert_int_equal(done_status, 0);
    cluster.hold_confirms = false;
}

static void one_question_serves_many_reads(void **state)
{
    (void)state;
    struct iovec iov = {buffer, 4096};
    struct block_request reads[64];
    policy((struct mirror_policy){.verified_reads = true});
    unsigned before = cluster.confirms;
    done_count = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(reads); i++) {
        reads[i] = (struct block_request){.operation = BLOCK_READ, .offset_bytes = i * 4096, .length_bytes = 4096, .iov = &iov,
                                          .iov_count = 1, .done = note_done};
        block_device_submit(mirror_device_block(cluster.nodes[0].device), &reads[i]);
    }
    while (done_count < ARRAY_SIZE(reads))
        uv_run(&loop, UV_RUN_ONCE);
    assert_in_range(cluster.confirms - before, 2, 16); /* two members */
}

static bool shrunk(struct test_cluster *c)
{
    return c->config.isr == 5;
}
static bool whole(struct test_cluster *c)
{
    return c->config.isr == 7;
}

static void stall(unsigned index, bool stalled)
{
    cluster.nodes[index].disk.stalled = stalled;
    if (!stalled)
        test_disk_wake(&cluster.nodes[index].disk);
}

static void a_slow_member_leaves_and_returns_with_growing_pauses(void **state)
{
    (void)state;
    policy((struct mirror_policy){.slow_us = 200000});
    uint64_t pauses[2];
    for (unsigned round = 0; round < ARRAY_SIZE(pauses); round++) {
        stall(1, true);
        uint64_t begin = mirror_clock_us();
        assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, round * 4096, buffer, 4096), 0);
        assert_true(shrunk(&cluster));
        assert_in_range(mirror_clock_us() - begin, 150000, 1000000);
        stall(1, false);
        begin = mirror_clock_us();
        assert_true(test_cluster_run(&cluster, whole, 10000));
        pauses[round] = mirror_clock_us() - begin;
    }
    assert_in_range(pauses[0], 800000, 1800000);
    assert_in_range(pauses[1], 1800000, 3000000);
}

static void a_slow_member_is_kept_when_too_few_would_be_left(void **state)
{
    (void)state;
    policy((struct mirror_policy){.slow_us = 100000, .in_sync_min = 3});
    struct iovec iov = {buffer, 4096};
    struct block_request write = {.operation = BLOCK_WRITE, .length_bytes = 4096, .iov = &iov, .iov_count = 1, .done = note_done};
    stall(1, true);
    done_count = 0;
    block_device_submit(mirror_device_block(cluster.nodes[0].device), &write);
    assert_false(test_cluster_run(&cluster, done_one, 600));
    assert_int_equal(cluster.asked, 0);
    policy((struct mirror_policy){.slow_us = 100000, .in_sync_min = 2}); /* changed while it waits */
    assert_true(test_cluster_run(&cluster, done_one, 1000));
    assert_int_equal(done_status, 0);
    assert_int_equal(cluster.config.isr, 5);
    stall(1, false);
}

static void all_slow_is_nobody_s_fault(void **state)
{
    (void)state;
    policy((struct mirror_policy){.slow_us = 100000});
    struct iovec iov = {buffer, 4096};
    struct block_request write = {.operation = BLOCK_WRITE, .length_bytes = 4096, .iov = &iov, .iov_count = 1, .done = note_done};
    done_count = 0;
    for (unsigned i = 0; i < 3; i++)
        stall(i, true);
    block_device_submit(mirror_device_block(cluster.nodes[0].device), &write);
    assert_false(test_cluster_run(&cluster, done_one, 500));
    assert_int_equal(cluster.asked, 0);
    for (unsigned i = 0; i < 3; i++)
        stall(i, false);
    assert_true(test_cluster_run(&cluster, done_one, 1000));
    assert_int_equal(cluster.config.isr, 7);
}

static bool asked_some(struct test_cluster *c)
{
    return c->asked > 0;
}

static void an_owner_whose_own_disk_is_slow_asks_to_be_replaced(void **state)
{
    (void)state;
    policy((struct mirror_policy){.slow_us = 100000});
    struct iovec iov = {buffer, 4096};
    struct block_request write = {.operation = BLOCK_WRITE, .length_bytes = 4096, .iov = &iov, .iov_count = 1, .done = note_done};
    struct block_request read = {.operation = BLOCK_READ, .offset_bytes = 65536, .length_bytes = 4096, .iov = &iov, .iov_count = 1, .done = note_done};
    cluster.commits = false;
    stall(0, true);
    for (unsigned i = 0; i < 2; i++) {
        cluster.asked = 0;
        block_device_submit(mirror_device_block(cluster.nodes[0].device), i ? &write : &read); /* either is enough */
        assert_true(test_cluster_run(&cluster, asked_some, 1000));
        assert_int_equal(cluster.asked_isr, 6);
        stall(0, false);
        done_count = 0;
        assert_true(test_cluster_run(&cluster, done_one, 1000));
        test_cluster_commit(&cluster, 1, 7, true); /* start anew */
        assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 1 << 20, other, 4096), 0);
        stall(0, true);
    }
    stall(0, false);
}

static void one_that_comes_and_goes_is_held_back_altogether(void **state)
{
    struct mirror_device_status status;
    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        test_cluster_link(&cluster, 0, 1, false);
        assert_true(test_cluster_run(&cluster, shrunk, 3000));
        assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 4096), 0);
        test_cluster_link(&cluster, 0, 1, true);
        if (round == 2)
            break;
        assert_true(test_cluster_run(&cluster, whole, 700)); /* the first times at once */
    }
    test_cluster_run(&cluster, NULL, 300);
    mirror_device_get_status(cluster.nodes[0].device, &status);
    assert_int_equal(status.mirror.members[1].state, MIRROR_MEMBER_AWAY); /* not even attached: it delays no write (21) */
    assert_true(test_cluster_run(&cluster, whole, 3000));
}

static void grow_to(uint64_t size_bytes)
{
    cluster.size_bytes = cluster.config.size_bytes = size_bytes; /* nodes that come up now are told this size */
    test_cluster_commit(&cluster, cluster.config.owner, cluster.config.isr, true);
}

static void it_grows_and_what_is_held_goes_on(void **state)
{
    struct iovec iov = {buffer, 65536};
    struct block_request writes[8];
    struct mirror_device_status status;
    (void)state;
    fill(buffer, 65536, 31);
    stall(1, true); /* so that all are under way when the epoch changes */
    done_count = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(writes); i++) {
        writes[i] = (struct block_request){.operation = BLOCK_WRITE, .offset_bytes = i * 65536, .length_bytes = 65536, .iov = &iov,
                                           .iov_count = 1, .done = note_done};
        block_device_submit(mirror_device_block(cluster.nodes[0].device), &writes[i]);
    }
    assert_false(test_cluster_run(&cluster, done_one, 100));
    for (unsigned i = 0; i < 3; i++)
        test_disk_grow(&cluster, i, 2 * SIZE);
    grow_to(2 * SIZE - 4096);
    assert_int_equal(mirror_device_block(cluster.nodes[0].device)->geometry.size_bytes, 2 * SIZE - 4096);
    assert_false(test_cluster_run(&cluster, done_one, 100));
    stall(1, false);
    while (done_count < ARRAY_SIZE(writes))
        uv_run(&loop, UV_RUN_ONCE);
    for (unsigned i = 0; i < ARRAY_SIZE(writes); i++)
        assert_int_equal(writes[i].status, 0);
    for (unsigned k = 0; k < 3; k++)
        assert_memory_equal(cluster.nodes[k].disk.bytes + 7 * 65536, buffer, 65536);
    fill(buffer, 8192, 32);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 2 * SIZE - 4096 - 8192, buffer, 8192), 0);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 2 * SIZE - 4096, buffer, 4096), -EINVAL);
    for (unsigned k = 0; k < 3; k++)
        assert_memory_equal(cluster.nodes[k].disk.bytes + 2 * SIZE - 4096 - 8192, buffer, 8192);
    mirror_device_get_status(cluster.nodes[2].device, &status);
    assert_int_equal(status.replica.size_bytes, 2 * SIZE - 4096);
    assert_int_equal(cluster.config.isr, 7);
}

static void one_that_was_away_grows_when_it_returns(void **state)
{
    struct mirror_device_status status;
    (void)state;
    test_node_down(&cluster, 1);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 4096), 0);
    assert_true(shrunk(&cluster));
    test_disk_grow(&cluster, 0, 2 * SIZE);
    test_disk_grow(&cluster, 2, 2 * SIZE);
    grow_to(2 * SIZE);
    fill(buffer, 8192, 33);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 2 * SIZE - 8192, buffer, 8192), 0);
    test_disk_grow(&cluster, 1, 2 * SIZE); /* before it is opened */
    test_node_up(&cluster, 1);
    assert_true(test_cluster_run(&cluster, whole, 5000));
    assert_memory_equal(cluster.nodes[1].disk.bytes + 2 * SIZE - 8192, buffer, 8192);
    mirror_device_get_status(cluster.nodes[1].device, &status);
    assert_int_equal(status.replica.size_bytes, 2 * SIZE);
    test_node_down(&cluster, 1); /* its file says so too */
    struct metadata_header header;
    struct error error;
    assert_int_equal(mirror_replica_check(cluster.nodes[1].metadata, &header, &error), 0);
    assert_int_equal(header.size_bytes, 2 * SIZE);
}

static void one_whose_disk_has_not_grown_is_waited_for_and_then_left(void **state)
{
    (void)state;
    test_disk_grow(&cluster, 0, 2 * SIZE);
    test_disk_grow(&cluster, 2, 2 * SIZE);
    grow_to(2 * SIZE);
    uint64_t begin = mirror_clock_us();
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, SIZE, buffer, 4096), 0);
    assert_true(mirror_clock_us() - begin >= 150000);
    assert_true(shrunk(&cluster));
    test_disk_grow(&cluster, 1, 2 * SIZE);
    assert_true(test_cluster_run(&cluster, whole, 5000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_place_is_emptied_and_filled_by_another_node_while_serving, start_three, end),
        cmocka_unit_test_setup_teardown(a_new_owner_knows_that_a_place_has_another_disk, start_three, end),
        cmocka_unit_test_setup_teardown(a_verified_read_waits_for_every_other_member, start_two, end),
        cmocka_unit_test_setup_teardown(one_question_serves_many_reads, start_three, end),
        cmocka_unit_test_setup_teardown(a_slow_member_leaves_and_returns_with_growing_pauses, start_three, end),
        cmocka_unit_test_setup_teardown(a_slow_member_is_kept_when_too_few_would_be_left, start_three, end),
        cmocka_unit_test_setup_teardown(all_slow_is_nobody_s_fault, start_three, end),
        cmocka_unit_test_setup_teardown(an_owner_whose_own_disk_is_slow_asks_to_be_replaced, start_three, end),
        cmocka_unit_test_setup_teardown(it_grows_and_what_is_held_goes_on, start_three, end),
        cmocka_unit_test_setup_teardown(one_that_was_away_grows_when_it_returns, start_three, end),
        cmocka_unit_test_setup_teardown(one_whose_disk_has_not_grown_is_waited_for_and_then_left, start_three, end),
        cmocka_unit_test_setup_teardown(one_that_comes_and_goes_is_held_back_altogether, start_three, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
