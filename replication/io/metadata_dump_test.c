/* director-metadata over files that are good, torn, and beyond help; and the same files opened (scenarios 12, 13). */
#include "replication/io/checksum_store.h"
#include "replication/io/metadata_file.h"
#include "replication/io/mirror_device.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char path[128], sums[128], output[16384];

static int dump(const char *file)
{
    char command[512];
    (void)snprintf(command, sizeof(command), "%s %s 2>&1", DUMP, file);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t got = fread(output, 1, sizeof(output) - 1, pipe);
    output[got] = '\0';
    return WEXITSTATUS(pclose(pipe));
}

static bool says(const char *words)
{
    return strstr(output, words) != NULL;
}

static void damage(const char *file, off_t offset)
{
    int fd = open(file, O_RDWR);
    assert_int_equal(pwrite(fd, "torn", 4, offset), 4);
    close(fd);
}

/* The header with a newer generation, as a step of the replica writes it, into its slot. */
static void write_header(uint64_t generation, uint64_t epoch)
{
    struct metadata_header header;
    struct metadata_page page;
    struct error error;
    assert_int_equal(mirror_replica_check(path, &header, &error), 0);
    header.generation = generation;
    header.sealed_epoch = epoch;
    metadata_header_encode(&header, &page);
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, page.bytes, sizeof(page.bytes), (off_t)page.offset_bytes), sizeof(page.bytes));
    close(fd);
}

static int setup(void **state)
{
    struct error error;
    struct mirror_replica_identity identity = {.volume = 5, .size_bytes = 64 << 20, .replica_index = 1, .incarnation = 0x51,
                                               .incarnations = {0x50, 0x51}, .checksum = true};
    (void)state;
    (void)snprintf(path, sizeof(path), "metadata-dump-%d.meta", (int)getpid());
    mirror_replica_sums_path(path, sums, sizeof(sums));
    return mirror_replica_create(path, &identity, &error);
}

static int teardown(void **state)
{
    struct error error;
    (void)state;
    return mirror_replica_remove(path, &error) < 0 || access(sums, F_OK) == 0;
}

static void a_fresh_file_is_good(void **state)
{
    (void)state;
    assert_int_equal(dump(path), 0);
    assert_true(says("header slot 1: good, counts"));
    assert_true(says("header slot 0: not yet written"));
    assert_true(says("67108864 bytes in 1024 regions of 65536"));
    assert_true(says("bitmap intent: 0 of 1024 regions\n"));
    assert_true(says("bitmap cold: 0 of 1024 regions\n"));
    assert_int_equal(dump(sums), 0);
    assert_true(says("incarnation 0000000000000051"));
    assert_int_equal(dump("/nonexistent"), 2);
}

static void s12_a_torn_header_costs_one_slot(void **state)
{
    struct metadata_header header;
    struct error error;
    (void)state;
    write_header(2, 7);
    write_header(3, 8);
    assert_int_equal(mirror_replica_check(path, &header, &error), 0);
    assert_int_equal(header.sealed_epoch, 8);
    damage(path, 4096 + 92); /* generation 3, torn */
    assert_int_equal(mirror_replica_check(path, &header, &error), 0);
    assert_int_equal(header.sealed_epoch, 7);
    assert_int_equal(dump(path), 1);
    assert_true(says("header slot 0: good, counts"));
    assert_true(says("header slot 1: DAMAGED"));
}

static void s12_a_torn_page_of_marks_reads_as_all_ones(void **state)
{
    (void)state;
    damage(path, 8192 + 100);
    assert_int_equal(dump(path), 1);
    assert_true(says("bitmap intent: 1024 of 1024 regions, 1 of 1 pages DAMAGED"));
    assert_true(says("regions 0 to 1023"));
    assert_true(says("bitmap dirty of replica 0: 0 of 1024 regions\n"));
}

static void s13_both_headers_bad_are_a_blank_disk(void **state)
{
    struct metadata_header header;
    struct error error;
    (void)state;
    write_header(2, 7);
    damage(path, 20);
    damage(path, 4096 + 20);
    assert_int_equal(mirror_replica_check(path, &header, &error), -EBADMSG);
    assert_int_equal(dump(path), 1);
    assert_true(says("no good header: the disk counts as blank"));
}

static void damaged_checksums_are_shown(void **state)
{
    (void)state;
    damage(sums, 4096 + 512 * 3);
    assert_int_equal(truncate(sums, 8192), 0);
    assert_int_equal(dump(sums), 1);
    assert_true(says("sector 3 of page 0: DAMAGED"));
}

/* ---- scenario 15: a sync that fails -------------------------------------------------------------------------------- */

static int written = 1;

static void metadata_written(struct metadata_file *file, int status)
{
    (void)file;
    written = status;
}

static void s15_a_failed_sync_is_told(void **state)
{
    uv_loop_t loop;
    struct metadata_file file;
    struct metadata_page page = {.offset_bytes = 8192};
    struct error error;
    uint8_t *image;
    uint64_t bytes;
    (void)state;
    uv_loop_init(&loop);
    assert_int_equal(metadata_file_open(&file, &loop, path, &image, &bytes, &error), 0);
    free(image);
    file.done = metadata_written;
    int kept = file.fd;
    file.fd = open("/dev/full", O_WRONLY); /* neither written nor synced */
    metadata_file_write(&file, &page, 1);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_true(written < 0);
    close(file.fd);
    file.fd = open("/dev/null", O_WRONLY); /* written, and the sync fails: EINVAL */
    written = 1;
    metadata_file_write(&file, &page, 1);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(written, -EINVAL);
    close(file.fd);
    file.fd = kept;
    metadata_file_close(&file);
    assert_int_equal(uv_loop_close(&loop), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_fresh_file_is_good),
        TEST(s12_a_torn_header_costs_one_slot),
        TEST(s12_a_torn_page_of_marks_reads_as_all_ones),
        TEST(s13_both_headers_bad_are_a_blank_disk),
        TEST(damaged_checksums_are_shown),
        TEST(s15_a_failed_sync_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
