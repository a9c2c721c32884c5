/* Checksums at rest over a disk in memory that can rot. A restart is a close and an open with the intent bits that would be on
 * disk then; a crash of the process copies the file of sums as it is and goes on with the copy. */
#include "director/base/bytes.h"
#include "replication/io/checksum_device.h"
#include "replication/io/checksum_store.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define SIZE    (16u << 20)
#define REGION  65536u
#define REGIONS (SIZE / REGION)

static uv_loop_t loop;
static uint8_t disk[SIZE];
static struct {
    struct block_device device;
    uv_idle_t idle;
    struct block_request *first, **end;
    int fail_writes, fail_reads, fail_flush;
    unsigned flushes, reads;
    void (*closed)(void *context);
    void *context;
} lower;
static struct block_device *device;
static struct bitmap intent;
static uint32_t region_bytes = REGION;
static char path[128], copy_path[160];

static void lower_turn(uv_idle_t *idle)
{
    struct block_request *r = lower.first;
    lower.first = NULL;
    lower.end = &lower.first;
    uv_idle_stop(idle);
    while (r) {
        struct block_request *next = r->device_private[0];
        uint8_t *at = disk + r->offset_bytes;
        r->status = r->operation == BLOCK_READ ? lower.fail_reads : r->operation == BLOCK_FLUSH ? lower.fail_flush : lower.fail_writes;
        lower.flushes += r->operation == BLOCK_FLUSH;
        lower.reads += r->operation == BLOCK_READ;
        if (r->operation == BLOCK_WRITE_ZEROES && r->status == 0)
            memset(at, 0, r->length_bytes);
        for (unsigned i = 0; i < r->iov_count && r->status == 0; at += r->iov[i++].iov_len) {
            if (r->operation == BLOCK_READ)
                memcpy(r->iov[i].iov_base, at, r->iov[i].iov_len);
            else
                memcpy(at, r->iov[i].iov_base, r->iov[i].iov_len);
        }
        r->done(r);
        r = next;
    }
}

static void lower_submit(struct block_device *block, struct block_request *request)
{
    (void)block;
    request->device_private[0] = NULL;
    *lower.end = request;
    lower.end = (struct block_request **)&request->device_private[0];
    uv_idle_start(&lower.idle, lower_turn);
}

static void lower_handle_closed(uv_handle_t *handle)
{
    (void)handle;
    lower.closed(lower.context);
}

static void lower_close(struct block_device *block, void (*closed)(void *context), void *context)
{
    (void)block;
    lower.closed = closed;
    lower.context = context;
    uv_close((uv_handle_t *)&lower.idle, lower_handle_closed);
}

static const struct block_device_operations lower_operations = {.submit = lower_submit, .close = lower_close};

static void device_open(bool planted)
{
    struct error error;
    struct checksum_device_options options = {.lower = &lower.device, .path = path, .header = {.incarnation = 7},
                                              .region_bytes = region_bytes, .intent = &intent, .planted_trust = planted,
                                              .cache_pages = 8};
    lower.device = (struct block_device){
        .operations = &lower_operations, .kind = "memory",
        .geometry = {.size_bytes = SIZE, .block_bytes = 512, .physical_bytes = 4096, .memory_alignment = 1,
                     .max_transfer_bytes = 1 << 20, .max_unmap_bytes = 64 << 20,
                     .capabilities = BLOCK_CAP_WRITE_CACHE | BLOCK_CAP_WRITE_ZEROES}};
    lower.first = NULL;
    lower.end = &lower.first;
    uv_idle_init(&loop, &lower.idle);
    if (checksum_device_open(&loop, &options, &device, &error) < 0)
        fail_msg("%s", error.message);
}

static void note(void *context)
{
    *(bool *)context = true;
}

static void device_close(void)
{
    bool closed = false;
    block_device_close(device, note, &closed);
    while (!closed)
        uv_run(&loop, UV_RUN_ONCE);
    device = NULL;
}

/* The process ends here and now: what was in memory is gone, the file is as it is. */
static void process_crash(bool planted)
{
    char command[400];
    (void)snprintf(command, sizeof(command), "cp %s %s", path, copy_path);
    assert_int_equal(system(command), 0);
    device_close();
    assert_int_equal(rename(copy_path, path), 0);
    device_open(planted);
}

static bool finished;

static void request_done(struct block_request *request)
{
    (void)request;
    finished = true;
}

static int run(struct block_request *request, bool barrier)
{
    finished = false;
    request->done = request_done;
    if (barrier)
        checksum_device_barrier(device, request);
    else
        block_device_submit(device, request);
    assert_false(finished); /* never inline */
    while (!finished)
        uv_run(&loop, UV_RUN_ONCE);
    return request->status;
}

static int transfer(enum block_operation operation, uint64_t offset, void *bytes, size_t length)
{
    /* In pieces that agree with no block. */
    struct iovec iov[2] = {{bytes, length / 3}, {(uint8_t *)bytes + length / 3, length - length / 3}};
    struct block_request request = {.operation = operation, .offset_bytes = offset, .length_bytes = length, .iov = iov,
                                    .iov_count = 2};
    return run(&request, false);
}

static int zeroes(uint64_t offset, uint64_t length)
{
    struct block_request request = {.operation = BLOCK_WRITE_ZEROES, .offset_bytes = offset, .length_bytes = length};
    return run(&request, false);
}

static int barrier(void)
{
    struct block_request request = {.operation = BLOCK_FLUSH};
    return run(&request, true);
}

static void settle(void)
{
    struct checksum_device_status status;
    do {
        uv_run(&loop, UV_RUN_NOWAIT);
        checksum_device_get_status(device, &status);
    } while (status.rebuild_regions);
}

static uint8_t buffer[1 << 20], again[1 << 20];

static int setup(void **state)
{
    struct error error;
    (void)state;
    (void)snprintf(path, sizeof(path), "checksum-test-%d.sums", (int)getpid());
    (void)snprintf(copy_path, sizeof(copy_path), "%s.copy", path);
    memset(disk, 0, sizeof(disk));
    lower.fail_writes = lower.fail_reads = lower.fail_flush = 0;
    lower.flushes = 0;
    for (size_t i = 0; i < sizeof(buffer); i++)
        buffer[i] = (uint8_t)(rand() >> 7);
    if (checksum_file_create(path, &(struct checksum_header){.incarnation = 7}, &error) < 0 || bitmap_init(&intent, REGIONS) < 0)
        return -1;
    device_open(false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (device)
        device_close();
    bitmap_done(&intent);
    return unlink(path);
}

static void rot_is_found_and_healed_by_a_write(void **state)
{
    struct checksum_device_status status;
    (void)state;
    assert_int_equal(transfer(BLOCK_WRITE, 8192, buffer, 16384), 0);
    assert_int_equal(transfer(BLOCK_READ, 8192, again, 16384), 0);
    assert_memory_equal(buffer, again, 16384);
    disk[12288 + 77] ^= 1;
    assert_int_equal(transfer(BLOCK_READ, 8192, again, 16384), -EBADMSG);
    assert_int_equal(transfer(BLOCK_READ, 8192, again, 4096), 0); /* its neighbour is good */
    checksum_device_get_status(device, &status);
    assert_int_equal(status.errors, 1);
    assert_int_equal(transfer(BLOCK_WRITE, 12288, buffer, 4096), 0);
    assert_int_equal(transfer(BLOCK_READ, 12288, again, 4096), 0);
    disk[1 << 20] = 1; /* where nothing was written: a sum of zeroes is implied */
    assert_int_equal(transfer(BLOCK_READ, 1 << 20, again, 4096), -EBADMSG);
}

static void lost_and_misdirected_writes_are_found(void **state)
{
    (void)state;
    assert_int_equal(transfer(BLOCK_WRITE, 0, buffer, 8192), 0);
    assert_int_equal(transfer(BLOCK_WRITE, 0, buffer + 8192, 4096), 0);
    memcpy(disk, buffer, 4096); /* the second one never came there */
    assert_int_equal(transfer(BLOCK_READ, 0, again, 4096), -EBADMSG);
    memcpy(disk + 4096, buffer, 4096); /* a write that was meant for another block */
    assert_int_equal(transfer(BLOCK_READ, 4096, again, 4096), -EBADMSG);
}

static void parts_of_a_block_keep_its_sum(void **state)
{
    (void)state;
    assert_int_equal(transfer(BLOCK_WRITE, 0, buffer, 16384), 0);
    static const struct { uint32_t offset, length; } parts[] = {{512, 512}, {3584, 1024}, {0, 512}, {4608, 8192}, {7680, 4608}};
    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
        memcpy(buffer + parts[i].offset, buffer + 65536 + i * 512, parts[i].length);
        assert_int_equal(transfer(BLOCK_WRITE, parts[i].offset, buffer + parts[i].offset, parts[i].length), 0);
        assert_int_equal(transfer(BLOCK_READ, 0, again, 16384), 0);
        assert_memory_equal(again, buffer, 16384);
        assert_int_equal(transfer(BLOCK_READ, 512, again, 7168), 0);
        assert_memory_equal(again, buffer + 512, 7168);
    }
    memset(buffer + 1024, 0, 9216);
    assert_int_equal(zeroes(1024, 9216), 0);
    assert_int_equal(transfer(BLOCK_READ, 0, again, 16384), 0);
    assert_memory_equal(again, buffer, 16384);
    disk[100] ^= 1; /* a part of a block whose rest is not known any more */
    assert_int_equal(transfer(BLOCK_WRITE, 512, buffer, 512), -EBADMSG);
}

static void zeroes_over_many_pages(void **state)
{
    (void)state;
    for (uint64_t at = 0; at < 6 << 20; at += sizeof(buffer))
        assert_int_equal(transfer(BLOCK_WRITE, at, buffer, sizeof(buffer)), 0);
    assert_int_equal(zeroes(4096, 4 << 20), 0);
    for (uint64_t at = 0; at < 6 << 20; at += sizeof(again))
        assert_int_equal(transfer(BLOCK_READ, at, again, sizeof(again)), 0);
    disk[2 << 20] = 1;
    assert_int_equal(transfer(BLOCK_READ, 2 << 20, again, 4096), -EBADMSG);
}

/* Eight pages hold the sums of 32 MiB of the 16: everything goes through the file when each is touched. */
static void sums_are_there_after_a_barrier_and_a_crash(void **state)
{
    (void)state;
    for (uint64_t at = 0; at < SIZE; at += sizeof(buffer))
        assert_int_equal(transfer(BLOCK_WRITE, at, buffer, sizeof(buffer)), 0);
    assert_int_equal(barrier(), 0);
    assert_int_equal(lower.flushes, 1);
    process_crash(false); /* no intent is left: all sums are believed */
    for (uint64_t at = 0; at < SIZE; at += sizeof(again))
        assert_int_equal(transfer(BLOCK_READ, at, again, sizeof(again)), 0);
    disk[SIZE - 1] ^= 0x80;
    assert_int_equal(transfer(BLOCK_READ, SIZE - 4096, again, 4096), -EBADMSG);
}

static void stale_sums(bool planted, int expected)
{
    assert_int_equal(transfer(BLOCK_WRITE, 0, buffer, 4096), 0);
    assert_int_equal(barrier(), 0);
    assert_int_equal(transfer(BLOCK_WRITE, 0, buffer + 4096, 4096), 0); /* its sum is in memory alone */
    bitmap_set(&intent, 0);
    process_crash(planted);
    assert_int_equal(transfer(BLOCK_READ, 0, again, 4096), expected);
}

static void a_stale_sum_condemns_no_good_data(void **state)
{
    struct checksum_device_status status;
    (void)state;
    stale_sums(false, 0);
    assert_memory_equal(again, buffer + 4096, 4096);
    settle();
    disk[0] ^= 1; /* from here on rot is seen again */
    assert_int_equal(transfer(BLOCK_READ, 0, again, 4096), -EBADMSG);
    checksum_device_get_status(device, &status);
    assert_int_equal(status.errors, 1);
}

static void planted_bug_stale_sums_are_believed(void **state)
{
    (void)state;
    stale_sums(true, -EBADMSG); /* what the test above would see */
}

static void no_barrier_before_all_sums_are_made_anew(void **state)
{
    (void)state;
    assert_int_equal(transfer(BLOCK_WRITE, 0, buffer, 4096), 0);
    bitmap_set(&intent, 0);
    bitmap_set(&intent, 9);
    process_crash(false);
    assert_int_equal(barrier(), -EAGAIN);
    settle();
    assert_int_equal(barrier(), 0);
    bitmap_zero(&intent);
    process_crash(false);
    assert_int_equal(transfer(BLOCK_READ, 0, again, 4096), 0);
}

static void unreadable_blocks_do_not_stop_the_rebuild(void **state)
{
    (void)state;
    bitmap_set(&intent, 3);
    lower.fail_reads = -EIO;
    process_crash(false);
    settle();
    assert_int_equal(barrier(), 0);
}

static void after_a_failed_write_its_blocks_are_not_known(void **state)
{
    (void)state;
    assert_int_equal(transfer(BLOCK_WRITE, 0, buffer, 4096), 0);
    lower.fail_writes = -EIO;
    assert_int_equal(transfer(BLOCK_WRITE, 0, buffer + 4096, 4096), -EIO);
    lower.fail_writes = 0;
    memcpy(disk, buffer + 4096, 4096); /* it had come there all the same */
    assert_int_equal(transfer(BLOCK_READ, 0, again, 4096), 0);
    settle();
    assert_int_equal(transfer(BLOCK_READ, 0, again, 4096), 0);
}

/* A region that is made anew in several pieces: a write into an earlier one fails meanwhile. */
static void a_write_that_fails_during_the_rebuild_starts_it_again(void **state)
{
    (void)state;
    region_bytes = 1 << 20;
    assert_int_equal(transfer(BLOCK_WRITE, 0, buffer, sizeof(buffer)), 0);
    bitmap_set(&intent, 0);
    process_crash(false);
    lower.reads = 0;
    while (lower.reads == 0) /* the first piece */
        uv_run(&loop, UV_RUN_ONCE);
    lower.fail_writes = -EIO;
    assert_int_equal(transfer(BLOCK_WRITE, 0, buffer + 4096, 4096), -EIO);
    lower.fail_writes = 0;
    memcpy(disk, buffer + 4096, 4096);
    settle();
    assert_int_equal(transfer(BLOCK_READ, 0, again, 4096), 0);
    region_bytes = REGION;
}

static void parts_of_one_block_at_a_time_keep_its_sum(void **state)
{
    static struct block_request requests[8];
    static struct iovec iov[8];
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        iov[i] = (struct iovec){buffer + 512 * i, 512};
        requests[i] = (struct block_request){.operation = BLOCK_WRITE, .offset_bytes = 8192 + 512 * i, .length_bytes = 512,
                                             .iov = &iov[i], .iov_count = 1, .done = request_done, .status = 1};
        block_device_submit(device, &requests[i]);
    }
    for (unsigned i = 0; i < 8; i++)
        while (requests[i].status == 1)
            uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(transfer(BLOCK_READ, 8192, again, 4096), 0);
    assert_memory_equal(again, buffer, 4096);
}

static void a_damaged_sector_of_sums_condemns_no_data(void **state)
{
    struct checksum_device_status status;
    (void)state;
    assert_int_equal(transfer(BLOCK_WRITE, 0, buffer, sizeof(buffer)), 0);
    assert_int_equal(barrier(), 0);
    device_close();
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "rot", 3, 4096 + 512 + 100), 3); /* the sums of blocks 127..253 */
    close(fd);
    device_open(false);
    assert_int_equal(transfer(BLOCK_READ, 0, again, sizeof(again)), 0);
    checksum_device_get_status(device, &status);
    assert_int_equal(status.lost, 127);
    disk[0] ^= 1; /* others are believed as before */
    assert_int_equal(transfer(BLOCK_READ, 0, again, 4096), -EBADMSG);
    settle();
    disk[130 * 4096] ^= 1;
    assert_int_equal(transfer(BLOCK_READ, 130 * 4096, again, 4096), -EBADMSG);
}

static void sums_of_another_replica_are_made_anew(void **state)
{
    struct checksum_device_status status;
    struct error error;
    (void)state;
    device_close();
    memcpy(disk, buffer, 8192);
    assert_int_equal(checksum_file_create(path, &(struct checksum_header){.incarnation = 8}, &error), 0);
    device_open(false);
    checksum_device_get_status(device, &status);
    assert_int_equal(status.rebuild_regions, REGIONS);
    assert_int_equal(transfer(BLOCK_READ, 0, again, 8192), 0);
    settle();
    disk[5000] ^= 1;
    assert_int_equal(transfer(BLOCK_READ, 4096, again, 4096), -EBADMSG);
}

static void a_failed_barrier_says_so(void **state)
{
    (void)state;
    assert_int_equal(transfer(BLOCK_WRITE, 0, buffer, 4096), 0);
    lower.fail_flush = -EIO;
    assert_int_equal(barrier(), -EIO);
}

/* Many at a time, over a cache that is far too small, against a model. */
#define MANY 24
static struct one {
    struct block_request request;
    struct iovec iov;
    uint8_t bytes[16384];
    bool busy;
} many[MANY];
static uint8_t model[SIZE];
static unsigned wrong;

static void one_done(struct block_request *request)
{
    struct one *one = container_of(request, struct one, request);
    wrong += request->status != 0;
    if (request->operation == BLOCK_READ && memcmp(one->bytes, model + request->offset_bytes, request->length_bytes) != 0)
        wrong++;
    one->busy = false;
}

static void many_at_a_time_agree_with_a_model(void **state)
{
    (void)state;
    memset(model, 0, sizeof(model));
    wrong = 0;
    for (unsigned turn = 0; turn < 20000; turn++) {
        struct one *one = &many[turn % MANY];
        while (one->busy)
            uv_run(&loop, UV_RUN_ONCE);
        /* Each has a place of its own, so that the model knows what a read must show. */
        uint64_t base = (uint64_t)(turn % MANY) * (SIZE / MANY / 4096 * 4096);
        uint64_t offset = base + (uint64_t)(rand() % (int)(SIZE / MANY / 512 - 40)) * 512;
        size_t length = (size_t)(1 + rand() % 32) * 512;
        one->iov = (struct iovec){one->bytes, length};
        one->request = (struct block_request){.operation = rand() % 2 ? BLOCK_READ : BLOCK_WRITE, .offset_bytes = offset,
                                              .length_bytes = length, .iov = &one->iov, .iov_count = 1, .done = one_done};
        if (one->request.operation == BLOCK_WRITE) {
            for (size_t i = 0; i < length; i++)
                one->bytes[i] = (uint8_t)(turn * 7 + i * 13);
            memcpy(model + offset, one->bytes, length);
        }
        one->busy = true;
        block_device_submit(device, &one->request);
        if (turn % 1000 == 999)
            assert_int_equal(barrier(), 0);
    }
    for (unsigned i = 0; i < MANY; i++)
        while (many[i].busy)
            uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(wrong, 0);
    assert_memory_equal(model, disk, SIZE);
    assert_int_equal(barrier(), 0);
    process_crash(false);
    for (uint64_t at = 0; at < SIZE; at += sizeof(again))
        assert_int_equal(transfer(BLOCK_READ, at, again, sizeof(again)), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(rot_is_found_and_healed_by_a_write),
        TEST(lost_and_misdirected_writes_are_found),
        TEST(parts_of_a_block_keep_its_sum),
        TEST(zeroes_over_many_pages),
        TEST(sums_are_there_after_a_barrier_and_a_crash),
        TEST(a_stale_sum_condemns_no_good_data),
        TEST(planted_bug_stale_sums_are_believed),
        TEST(no_barrier_before_all_sums_are_made_anew),
        TEST(unreadable_blocks_do_not_stop_the_rebuild),
        TEST(after_a_failed_write_its_blocks_are_not_known),
        TEST(a_write_that_fails_during_the_rebuild_starts_it_again),
        TEST(parts_of_one_block_at_a_time_keep_its_sum),
        TEST(a_damaged_sector_of_sums_condemns_no_data),
        TEST(sums_of_another_replica_are_made_anew),
        TEST(a_failed_barrier_says_so),
        TEST(many_at_a_time_agree_with_a_model),
    };
    uv_loop_init(&loop);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed || uv_loop_close(&loop) < 0;
}
