#include "proto/frame.h"

#include "director/base/bytes.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void frames_come_out_however_the_bytes_are_cut(void **state)
{
    (void)state;
    uint8_t wire[64];
    size_t size = 0;
    for (uint8_t n = 1; n <= 5; n++) {
        put_le32(wire + size, n);
        memset(wire + size + 4, 'a' + n, n);
        size += 4u + n;
    }
    for (size_t cut = 1; cut <= size; cut++) {
        struct frame_reader reader;
        frame_reader_init(&reader, 16);
        uint8_t expected = 1;
        for (size_t at = 0; at < size; at += cut) {
            const uint8_t *payload;
            size_t length;
            assert_int_equal(frame_reader_push(&reader, wire + at, MIN(cut, size - at)), 0);
            while (frame_reader_next(&reader, &payload, &length, NULL) == 1) {
                assert_int_equal(length, expected);
                for (size_t i = 0; i < length; i++)
                    assert_int_equal(payload[i], 'a' + expected);
                expected++;
            }
        }
        assert_int_equal(expected, 6);
        frame_reader_done(&reader);
    }
}

static void too_long_and_empty_frames_are_refused_before_memory_is_taken(void **state)
{
    (void)state;
    struct frame_reader reader;
    const uint8_t *payload;
    size_t length, announced = 0;
    frame_reader_init(&reader, 16);
    assert_int_equal(frame_reader_push(&reader, "\xff\xff\xff\xff", 4), 0);
    assert_int_equal(frame_reader_next(&reader, &payload, &length, &announced), -EMSGSIZE);
    assert_int_equal(announced, 0xffffffffu);
    assert_true(reader.capacity <= 4096);
    frame_reader_done(&reader);
    assert_int_equal(frame_reader_push(&reader, "\0\0\0\0", 4), 0);
    assert_int_equal(frame_reader_next(&reader, &payload, &length, NULL), -EPROTO);
    frame_reader_done(&reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_come_out_however_the_bytes_are_cut),
        cmocka_unit_test(too_long_and_empty_frames_are_refused_before_memory_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
