#include "tests/cluster/ioverify_check.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

/* One block's life, step by step. */
static struct io_history history;
static uint8_t content[IO_BLOCK_BYTES];

static int setup(void **state)
{
    (void)state;
    memset(content, 0, sizeof(content));
    return io_history_init(&history, 77, 16);
}

static int teardown(void **state)
{
    (void)state;
    io_history_done(&history);
    return 0;
}

static struct io_tag write_begin(uint64_t block)
{
    return io_history_write_begin(&history, block);
}

static struct io_tag write_acknowledged(uint64_t block)
{
    struct io_tag tag = io_history_write_begin(&history, block);
    io_history_write_acknowledged(&history, block);
    return tag;
}

static enum io_verdict read_of(uint64_t block, const struct io_tag *tag, bool final)
{
    struct io_reading reading = io_history_read_begin(&history, block);
    struct error words = {0};
    io_block_fill(content, tag);
    enum io_verdict verdict = io_history_read_end(&history, &reading, content, final, &words);
    assert_int_equal(verdict != IO_FINE, words.code != 0);
    return verdict;
}

static void the_last_acknowledged_write_is_fine(void **state)
{
    (void)state;
    struct io_tag a = write_acknowledged(3);
    assert_int_equal(read_of(3, &a, false), IO_FINE);
    struct io_tag b = write_acknowledged(3);
    assert_int_equal(read_of(3, &b, true), IO_FINE);
}

static void an_older_value_is_stale_and_at_the_end_lost(void **state)
{
    (void)state;
    struct io_tag a = write_acknowledged(3);
    struct io_tag b = write_acknowledged(3);
    assert_int_equal(read_of(3, &a, false), IO_STALE);
    assert_int_equal(read_of(3, &a, true), IO_LOST);
    assert_int_equal(read_of(3, &b, true), IO_FINE);
}

static void content_that_is_not_ours_is_lost_once_a_write_is_acknowledged(void **state)
{
    (void)state;
    struct io_reading reading = io_history_read_begin(&history, 3);
    assert_int_equal(io_history_read_end(&history, &reading, content, true, NULL), IO_FINE);
    struct io_tag before = {.writer = 76, .sequence = 5, .block = 3};
    assert_int_equal(read_of(3, &before, true), IO_FINE);
    (void)write_acknowledged(3);
    assert_int_equal(read_of(3, &before, true), IO_LOST);
    memset(content, 0, sizeof(content));
    reading = io_history_read_begin(&history, 3);
    assert_int_equal(io_history_read_end(&history, &reading, content, true, NULL), IO_LOST);
    assert_int_equal(io_history_read_end(&history, &reading, content, false, NULL), IO_STALE);
}

static void every_torn_sector_is_caught(void **state)
{
    (void)state;
    struct io_tag a = write_acknowledged(3), b = write_acknowledged(3);
    uint8_t old[IO_BLOCK_BYTES];
    io_block_fill(old, &a);
    for (unsigned sector = 0; sector < 8; sector++) {
        struct io_reading reading = io_history_read_begin(&history, 3);
        io_block_fill(content, &b);
        memcpy(content + 512 * sector, old + 512 * sector, 512);
        assert_int_equal(io_history_read_end(&history, &reading, content, true, NULL), IO_TORN);
    }
    /* torn against zeroes, beginning with zeroes, acknowledged or not */
    struct io_reading reading = io_history_read_begin(&history, 3);
    io_block_fill(content, &b);
    memset(content, 0, 512);
    assert_int_equal(io_history_read_end(&history, &reading, content, true, NULL), IO_TORN);
    struct io_tag first = write_begin(9);
    reading = io_history_read_begin(&history, 9);
    io_block_fill(content, &first);
    memset(content, 0, 1024);
    assert_int_equal(io_history_read_end(&history, &reading, content, true, NULL), IO_TORN);
    for (unsigned bit = 0; bit < 8 * IO_BLOCK_BYTES; bit += 37) {
        struct io_tag tag;
        io_block_fill(content, &b);
        content[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(io_block_examine(content, &tag), IO_CONTENT_TAGGED);
    }
}

static void a_pending_write_may_be_there_or_not_but_not_come_and_go(void **state)
{
    (void)state;
    struct io_tag a = write_acknowledged(3);
    struct io_tag b = write_begin(3);
    assert_int_equal(read_of(3, &a, false), IO_FINE);
    assert_int_equal(read_of(3, &b, false), IO_FINE);
    assert_int_equal(read_of(3, &a, false), IO_STALE);
    assert_int_equal(read_of(3, &a, true), IO_STALE); /* never acknowledged, so not lost: flip-flop */
    assert_int_equal(read_of(3, &b, true), IO_FINE);
}

static void a_first_write_once_seen_may_not_vanish(void **state)
{
    (void)state;
    struct io_tag a = write_begin(3);
    struct io_tag none = {.writer = 1, .sequence = 1, .block = 3};
    assert_int_equal(read_of(3, &none, false), IO_FINE);
    assert_int_equal(read_of(3, &a, false), IO_FINE);
    assert_int_equal(read_of(3, &none, false), IO_STALE);
}

static void a_read_that_began_before_the_acknowledgement_may_return_either(void **state)
{
    (void)state;
    struct io_tag a = write_acknowledged(3);
    struct io_tag b = write_begin(3);
    struct io_reading early = io_history_read_begin(&history, 3);
    io_history_write_acknowledged(&history, 3);
    io_block_fill(content, &a);
    assert_int_equal(io_history_read_end(&history, &early, content, false, NULL), IO_FINE);
    io_block_fill(content, &b);
    assert_int_equal(io_history_read_end(&history, &early, content, false, NULL), IO_FINE);
    struct io_tag c = write_acknowledged(3); /* written while the read was under way */
    io_block_fill(content, &c);
    assert_int_equal(io_history_read_end(&history, &early, content, false, NULL), IO_FINE);
    assert_int_equal(read_of(3, &a, false), IO_STALE);
    assert_int_equal(read_of(3, &b, false), IO_STALE);
}

static void a_write_of_another_block_or_never_made_is_misplaced(void **state)
{
    (void)state;
    struct io_tag a = write_acknowledged(3), other = write_acknowledged(4);
    assert_int_equal(read_of(3, &other, true), IO_MISPLACED);
    (void)write_acknowledged(3); /* now the other's sequence is one of the past */
    assert_int_equal(read_of(3, &other, true), IO_MISPLACED);
    assert_int_equal(read_of(3, &other, false), IO_MISPLACED);
    a.sequence += 100;
    assert_int_equal(read_of(3, &a, true), IO_MISPLACED);
}

static void history_survives_a_file_and_damage_is_noticed(void **state)
{
    (void)state;
    char file[] = "/tmp/ioverify-history-XXXXXX";
    struct error error = {0};
    struct io_history back;
    int fd = mkstemp(file);
    assert_true(fd >= 0);
    (void)close(fd);
    (void)write_acknowledged(3);
    (void)write_acknowledged(5);
    (void)write_begin(5);
    history.offset_bytes = 1 << 20;
    assert_int_equal(io_history_save(&history, file, &error), 0);
    assert_int_equal(io_history_load(&back, file, &error), 0);
    assert_int_equal(back.writer, history.writer);
    assert_int_equal(back.sequence, history.sequence);
    assert_int_equal(back.offset_bytes, history.offset_bytes);
    assert_memory_equal(back.records, history.records, 16 * sizeof(*back.records));
    io_history_done(&back);
    struct stat info;
    assert_int_equal(stat(file, &info), 0);
    assert_int_equal(truncate(file, info.st_size - 5), 0); /* the closing line is cut */
    assert_int_equal(io_history_load(&back, file, &error), -EINVAL);
    assert_int_equal(truncate(file, 0), 0);
    assert_int_equal(io_history_load(&back, file, &error), -EINVAL);
    (void)unlink(file);
    assert_int_equal(io_history_load(&back, file, &error), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_last_acknowledged_write_is_fine, setup, teardown),
        cmocka_unit_test_setup_teardown(an_older_value_is_stale_and_at_the_end_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(content_that_is_not_ours_is_lost_once_a_write_is_acknowledged, setup, teardown),
        cmocka_unit_test_setup_teardown(every_torn_sector_is_caught, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pending_write_may_be_there_or_not_but_not_come_and_go, setup, teardown),
        cmocka_unit_test_setup_teardown(a_first_write_once_seen_may_not_vanish, setup, teardown),
        cmocka_unit_test_setup_teardown(a_read_that_began_before_the_acknowledgement_may_return_either, setup, teardown),
        cmocka_unit_test_setup_teardown(a_write_of_another_block_or_never_made_is_misplaced, setup, teardown),
        cmocka_unit_test_setup_teardown(history_survives_a_file_and_damage_is_noticed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
