#include "replication/io/data.h"
#include "replication/io/test_cluster.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define SIZE (4u << 20)

static uv_loop_t loop;
static struct test_cluster cluster;
static uint8_t buffer[1 << 20], other[1 << 20];

static int start(void **state, unsigned count)
{
    (void)state;
    uv_loop_init(&loop);
    test_cluster_start(&cluster, &loop, count, SIZE, "/tmp");
    return 0;
}
static int start_two(void **state)
{
    return start(state, 2);
}
static int start_three(void **state)
{
    return start(state, 3);
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

static bool all_in_sync(struct test_cluster *c)
{
    struct mirror_device_status status;
    mirror_device_get_status(c->nodes[c->config.owner - 1].device, &status);
    return status.mirror.state == MIRROR_SERVING && status.mirror.isr == (1u << c->count) - 1 && !status.mirror.suspended;
}

static void a_write_is_on_every_disk_and_reads_back(void **state)
{
    (void)state;
    fill(buffer, 300 << 10, 1);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 100 << 10, buffer, 300 << 10), 0);
    assert_memory_equal(cluster.nodes[0].disk.bytes + (100 << 10), buffer, 300 << 10);
    assert_memory_equal(cluster.nodes[1].disk.bytes + (100 << 10), buffer, 300 << 10);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 100 << 10, other, 300 << 10), 0);
    assert_memory_equal(other, buffer, 300 << 10);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(test_cluster_io(&cluster, 1, BLOCK_READ, 0, other, 4096), -ESTALE);
    assert_int_equal(cluster.nodes[0].disk.fua_missing + cluster.nodes[1].disk.fua_missing, 0);
}

static void zeroes_reach_every_disk_also_one_that_cannot(void **state)
{
    (void)state;
    fill(buffer, 512 << 10, 2);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 512 << 10), 0);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_UNMAP, 4096, NULL, 300 << 10), 0);
    memset(buffer + 4096, 0, 300 << 10);
    assert_memory_equal(cluster.nodes[0].disk.bytes, buffer, 512 << 10);
    assert_memory_equal(cluster.nodes[1].disk.bytes, buffer, 512 << 10);
}

static void compare_and_write_compares(void **state)
{
    (void)state;
    fill(buffer, 512, 3);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 512, buffer, 512), 0);
    memcpy(other, buffer, 512);
    fill(other + 512, 512, 9);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_COMPARE_AND_WRITE, 512, other, 512), 0);
    assert_memory_equal(cluster.nodes[1].disk.bytes + 512, other + 512, 512);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_COMPARE_AND_WRITE, 512, other, 512), -EILSEQ);
}

static void a_failover_keeps_everything_and_resync_copies_only_what_changed(void **state)
{
    struct mirror_device_status status;
    (void)state;
    fill(buffer, 1 << 20, 4);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 1 << 20), 0);
    test_node_down(&cluster, 0);
    test_cluster_commit(&cluster, 2, 2, true);
    assert_int_equal(test_cluster_io(&cluster, 1, BLOCK_READ, 0, other, 1 << 20), 0);
    assert_memory_equal(other, buffer, 1 << 20);
    fill(buffer, 4096, 5);
    assert_int_equal(test_cluster_io(&cluster, 1, BLOCK_WRITE, 2 << 20, buffer, 4096), 0);
    test_node_up(&cluster, 0);
    assert_true(test_cluster_run(&cluster, all_in_sync, 5000));
    assert_memory_equal(cluster.nodes[0].disk.bytes, cluster.nodes[1].disk.bytes, SIZE);
    mirror_device_get_status(cluster.nodes[1].device, &status);
    assert_true(status.mirror.resynced_bytes >= 65536);
    assert_true(status.mirror.resynced_bytes <= 18 * 65536);
}

static void a_disk_that_fails_leaves_and_io_goes_on(void **state)
{
    (void)state;
    cluster.nodes[1].disk.fail_writes = -EIO;
    fill(buffer, 8192, 6);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 8192, buffer, 8192), 0);
    assert_int_equal(cluster.config.isr, 1);
    cluster.nodes[1].disk.fail_writes = 0;
    assert_true(test_cluster_run(&cluster, all_in_sync, 8000));
    assert_memory_equal(cluster.nodes[0].disk.bytes, cluster.nodes[1].disk.bytes, SIZE);
}

static void the_last_disk_s_error_is_the_answer(void **state)
{
    (void)state;
    test_node_down(&cluster, 1);
    fill(buffer, 4096, 7);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 4096), 0);
    assert_int_equal(cluster.config.isr, 1);
    cluster.nodes[0].disk.fail_writes = -EIO;
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 4096), -EIO); /* I10 */
    assert_int_equal(cluster.config.isr, 1);
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

static void nothing_is_acknowledged_or_read_without_the_other(void **state)
{
    (void)state;
    struct iovec iov = {buffer, 4096};
    struct block_request write = {.operation = BLOCK_WRITE, .length_bytes = 4096, .iov = &iov, .iov_count = 1, .done = note_done};
    struct block_request read = {.operation = BLOCK_READ, .offset_bytes = 1 << 20, .length_bytes = 4096, .iov = &iov, .iov_count = 1, .done = note_done};
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 0, other, 4096), 0);
    cluster.commits = false; /* a minority: no change is committed */
    test_cluster_link(&cluster, 0, 1, false);
    done_count = 0;
    block_device_submit(mirror_device_block(cluster.nodes[0].device), &write);
    block_device_submit(mirror_device_block(cluster.nodes[0].device), &read);
    assert_false(test_cluster_run(&cluster, done_one, 1200));
    assert_true(cluster.asked > 0);
    assert_int_equal(cluster.asked_isr, 1);
    test_cluster_commit(&cluster, 2, 2, true); /* the other side goes on: both are fenced */
    assert_true(test_cluster_run(&cluster, done_one, 2000));
    assert_int_equal(done_status, -ESTALE);
    assert_int_equal(done_count, 2);
}

static bool node_one_drained(struct test_cluster *c)
{
    return c->nodes[0].drained > 0;
}

static void ownership_moves_without_waiting_out_the_lease(void **state)
{
    (void)state;
    fill(buffer, 4096, 8);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 4096), 0);
    mirror_device_drain(cluster.nodes[0].device);
    assert_true(test_cluster_run(&cluster, node_one_drained, 1000));
    uint64_t begin = mirror_clock_us();
    test_cluster_commit(&cluster, 2, 7, true);
    assert_int_equal(test_cluster_io(&cluster, 1, BLOCK_READ, 0, other, 4096), 0);
    assert_memory_equal(other, buffer, 4096);
    assert_true(mirror_clock_us() - begin < 300000); /* the old owner has given it back */
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 0, other, 4096), -ESTALE);
}

static void another_disk_is_copied_in_full(void **state)
{
    struct error error;
    struct mirror_replica_identity identity = {.volume = 5, .size_bytes = SIZE, .replica_index = 1, .incarnation = 77};
    (void)state;
    fill(buffer, 1 << 20, 11);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 1 << 20), 0);
    test_node_down(&cluster, 1);
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 3 << 20, buffer, 4096), 0);
    assert_int_equal(cluster.config.isr, 1);
    memcpy(identity.volume_uuid.bytes, "volume-uuid-test", 16);
    assert_int_equal(mirror_replica_remove(cluster.nodes[1].metadata, &error), 0);
    assert_int_equal(mirror_replica_create(cluster.nodes[1].metadata, &identity, &error), 0);
    assert_int_equal(mirror_replica_create(cluster.nodes[1].metadata, &identity, &error), -EEXIST);
    memset(cluster.nodes[1].disk.bytes, 0xee, SIZE);
    test_node_up(&cluster, 1);
    test_cluster_run(&cluster, all_in_sync, 300); /* not yet committed as ours: refused (I11) */
    assert_int_equal(cluster.config.isr, 1);
    cluster.config.replicas[1].incarnation = 77;
    test_cluster_commit(&cluster, 1, 1, false);
    assert_true(test_cluster_run(&cluster, all_in_sync, 5000));
    assert_memory_equal(cluster.nodes[0].disk.bytes, cluster.nodes[1].disk.bytes, SIZE);
}

static void the_mirror_survives_bad_metadata_by_refusing_it(void **state)
{
    struct error error;
    struct metadata_header header;
    (void)state;
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 4096), 0);
    test_node_down(&cluster, 1);
    assert_int_equal(mirror_replica_check(cluster.nodes[1].metadata, &header, &error), 0);
    assert_int_equal(header.sealed_epoch, 1);
    assert_int_equal(truncate(cluster.nodes[1].metadata, 100), 0);
    struct mirror_device_options options = {.volume = 5, .size_bytes = SIZE, .block_bytes = 512, .nodeid = 2, .boot = 9,
                                            .data = &cluster.nodes[1].disk.device,
                                            .metadata_path = cluster.nodes[1].metadata};
    struct mirror_device *device;
    assert_int_equal(mirror_device_open(&loop, &options, &device, &error), -EBADMSG);
    assert_non_null(strstr(error.message, "blank"));
    options.metadata_path = "/tmp/not-there.meta";
    assert_int_equal(mirror_device_open(&loop, &options, &device, &error), -ENOENT);
}

static bool never(struct test_cluster *c)
{
    (void)c;
    return false;
}

/* Heartbeats are only noted while nothing happens to the volume (mirror_pulse.h). */
static void heartbeats_that_came_while_it_was_idle_hold_the_lease(void **state)
{
    (void)state;
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 4096), 0);
    (void)test_cluster_run(&cluster, never, 1000); /* twice the lease */
    uv_timer_stop(&cluster.heart);
    uint64_t begun_us = mirror_clock_us();
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 0, other, 4096), 0);
    assert_true(mirror_clock_us() - begun_us < 200000);
    (void)test_cluster_run(&cluster, never, 600);
    uv_timer_start(&cluster.heart, cluster.heart.timer_cb, 300, 20);
    begun_us = mirror_clock_us();
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_READ, 0, other, 4096), 0); /* told of the next one at once */
    assert_true(mirror_clock_us() - begun_us >= 250000);
}

static void an_answer_given_while_it_was_idle_binds_the_member(void **state)
{
    (void)state;
    assert_int_equal(test_cluster_io(&cluster, 0, BLOCK_WRITE, 0, buffer, 4096), 0);
    (void)test_cluster_run(&cluster, never, 1000); /* longer than the lease since anything else happened */
    test_cluster_link(&cluster, 0, 1, false);
    uint64_t begun_us = mirror_clock_us();
    test_cluster_commit(&cluster, 2, 2, true);
    assert_int_equal(test_cluster_io(&cluster, 1, BLOCK_WRITE, 0, buffer, 4096), 0);
    assert_true(mirror_clock_us() - begun_us >= 300000); /* the old owner might still have answered reads */
}

static void closing_answers_what_is_held(void **state)
{
    (void)state;
    struct iovec iov = {buffer, 4096};
    struct block_request write = {.operation = BLOCK_WRITE, .length_bytes = 4096, .iov = &iov, .iov_count = 1, .done = note_done};
    cluster.commits = false;
    test_cluster_link(&cluster, 0, 1, false);
    done_count = 0;
    block_device_submit(mirror_device_block(cluster.nodes[0].device), &write);
    test_node_down(&cluster, 0);
    assert_int_equal(done_count, 1);
    assert_int_equal(done_status, -ECANCELED);
}

static void slices_and_comparisons_cross_pieces(void **state)
{
    struct mirror_pool pool = {0};
    uint8_t bytes[100], copy[100];
    size_t differs = 0;
    (void)state;
    fill(bytes, sizeof(bytes), 1);
    struct iovec pieces[3] = {{bytes, 10}, {bytes + 10, 1}, {bytes + 11, 89}}, out[3];
    struct data *a = data_wrap(&pool, pieces, 3, NULL, NULL), *b = data_new(&pool, 100);
    assert_int_equal(data_slice(a, 5, 20, out), 3);
    assert_ptr_equal(out[0].iov_base, bytes + 5);
    assert_int_equal(out[2].iov_len, 14);
    data_copy(b, 0, a, 0, 100);
    assert_true(data_equal(a, 0, b, 0, 100, &differs));
    memcpy(copy, bytes, 100);
    ((uint8_t *)b->iov[0].iov_base)[57] ^= 1;
    assert_false(data_equal(a, 3, b, 3, 97, &differs));
    assert_int_equal(differs, 54);
    assert_true(data_detach(a));
    memset(bytes, 0, sizeof(bytes));
    assert_memory_equal(a->iov[0].iov_base, copy, 100);
    data_unref(a);
    data_unref(b);
    mirror_pool_done(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_and_comparisons_cross_pieces),
        cmocka_unit_test_setup_teardown(a_write_is_on_every_disk_and_reads_back, start_two, end),
        cmocka_unit_test_setup_teardown(zeroes_reach_every_disk_also_one_that_cannot, start_two, end),
        cmocka_unit_test_setup_teardown(compare_and_write_compares, start_three, end),
        cmocka_unit_test_setup_teardown(a_failover_keeps_everything_and_resync_copies_only_what_changed, start_two, end),
        cmocka_unit_test_setup_teardown(a_disk_that_fails_leaves_and_io_goes_on, start_two, end),
        cmocka_unit_test_setup_teardown(the_last_disk_s_error_is_the_answer, start_two, end),
        cmocka_unit_test_setup_teardown(nothing_is_acknowledged_or_read_without_the_other, start_two, end),
        cmocka_unit_test_setup_teardown(ownership_moves_without_waiting_out_the_lease, start_three, end),
        cmocka_unit_test_setup_teardown(another_disk_is_copied_in_full, start_two, end),
        cmocka_unit_test_setup_teardown(the_mirror_survives_bad_metadata_by_refusing_it, start_two, end),
        cmocka_unit_test_setup_teardown(heartbeats_that_came_while_it_was_idle_hold_the_lease, start_two, end),
        cmocka_unit_test_setup_teardown(an_answer_given_while_it_was_idle_binds_the_member, start_two, end),
        cmocka_unit_test_setup_teardown(closing_answers_what_is_held, start_two, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
