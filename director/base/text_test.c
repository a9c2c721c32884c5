#include "director/base/json.h"
#include "director/base/size.h"
#include "director/base/text.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void text_grows_and_is_taken(void **state)
{
    (void)state;
    struct text text = {0};
    assert_string_equal(text_get(&text), "");
    for (int i = 0; i < 1000; i++)
        text_addf(&text, "%d,", i % 10);
    assert_int_equal(text.used, 2000);
    assert_true(text_ok(&text));
    char *bytes = text_take(&text);
    assert_int_equal(strlen(bytes), 2000);
    assert_null(text.bytes);
    free(bytes);
    bytes = text_take(&text);
    assert_string_equal(bytes, "");
    free(bytes);
}

static void distance_counts_single_letter_edits(void **state)
{
    (void)state;
    assert_int_equal(text_distance("volumes", "volumes", 3), 0);
    assert_int_equal(text_distance("volmues", "volumes", 3), 1);
    assert_int_equal(text_distance("vlumes", "volumes", 3), 1);
    assert_int_equal(text_distance("VOL1", "vol2", 3), 1);
    assert_int_equal(text_distance("abc", "xyz", 3), 3);
    assert_int_equal(text_distance("abcdef", "uvwxyz", 3), 4);
}

static void nearest_word_is_offered_only_when_near(void **state)
{
    (void)state;
    struct text_nearest nearest = {.word = "valumes"};
    text_nearest_offer(&nearest, "nodes");
    text_nearest_offer(&nearest, "volumes");
    text_nearest_offer(&nearest, "targets");
    assert_string_equal(nearest.best, "volumes");
    nearest = (struct text_nearest){.word = "replicas"};
    text_nearest_offer(&nearest, "size");
    assert_string_equal(nearest.best, "");
    nearest = (struct text_nearest){.word = "iqn.2026"};
    text_nearest_offer(&nearest, "iqn.2026-01.org.director:c1:vol1");
    assert_string_equal(nearest.best, "iqn.2026-01.org.director:c1:vol1");
}

static void sizes_are_read_as_people_write_them(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int result;
        uint64_t bytes;
    } table[] = {
        {"0", 0, 0},
        {"4096", 0, 4096},
        {"10G", 0, 10ull << 30},
        {"10g", 0, 10ull << 30},
        {"10GiB", 0, 10ull << 30},
        {"10 GB", 0, 10ull << 30},
        {"1.5T", 0, 3ull << 39},
        {"12B", 0, 12},
        {"10E", 0, 10ull << 60},
        {"15.5E", 0, 31ull << 59},
        {"18446744073709551615", 0, UINT64_MAX},
        {"18446744073709551616", -ERANGE, 0},
        {"16E", -ERANGE, 0},
        {"100000E", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"G", -EINVAL, 0},
        {"-1G", -EINVAL, 0},
        {"+1G", -EINVAL, 0},
        {" 1G", -EINVAL, 0},
        {"1G ", -EINVAL, 0},
        {"1X", -EINVAL, 0},
        {"1GG", -EINVAL, 0},
        {"1.G", -EINVAL, 0},
        {"0.3", -EINVAL, 0},
        {"1.0000000001K", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        uint64_t bytes = 0;
        int result = size_parse(table[i].text, &bytes);
        if (result != table[i].result || bytes != table[i].bytes)
            fail_msg("\"%s\": result %d, %llu bytes", table[i].text, result, (unsigned long long)bytes);
    }
}

static void sizes_are_written_short_and_exact(void **state)
{
    (void)state;
    char text[SIZE_TEXT_SIZE];
    assert_string_equal(size_format_exact(10ull << 30, text), "10G");
    assert_string_equal(size_format_exact(3ull << 39, text), "1536G");
    assert_string_equal(size_format_exact(1000, text), "1000");
    assert_string_equal(size_format_exact(0, text), "0");
    assert_string_equal(size_format(0, text), "0B");
    assert_string_equal(size_format(1023, text), "1023B");
    assert_string_equal(size_format(10ull << 30, text), "10G");
    assert_string_equal(size_format(3ull << 39, text), "1.5T");
    assert_string_equal(size_format((10ull << 30) - 1, text), "10G");
    assert_string_equal(size_format(1000ull << 20, text), "1.0G");
    assert_string_equal(size_format(UINT64_MAX, text), "16E");
}

static void json_nests_and_escapes(void **state)
{
    (void)state;
    struct text text = {0};
    struct json json = {.text = &text};
    json_object_begin(&json, NULL);
    json_string(&json, "a", "q\"b\\n\n\t\x01\x7f \xc3\xa9 \xff \xed\xa0\x80");
    json_number(&json, "n", UINT64_MAX);
    json_signed(&json, "s", -5);
    json_array_begin(&json, "l");
    json_bool(&json, NULL, true);
    json_object_begin(&json, NULL);
    json_object_end(&json);
    json_array_end(&json);
    json_object_end(&json);
    assert_string_equal(text_get(&text),
                        "{\"a\": \"q\\\"b\\\\n\\n\\t\\u0001\\u007f \xc3\xa9 \\ufffd \\ufffd\\ufffd\\ufffd\", "
                        "\"n\": 18446744073709551615, \"s\": -5, \"l\": [true, {}]}");
    text_done(&text);
    json = (struct json){.text = &text, .indent = 2};
    json_array_begin(&json, NULL);
    json_number(&json, NULL, 1);
    json_number(&json, NULL, 2);
    json_array_end(&json);
    assert_string_equal(text_get(&text), "[\n  1,\n  2\n]");
    text_done(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_grows_and_is_taken),
        cmocka_unit_test(distance_counts_single_letter_edits),
        cmocka_unit_test(nearest_word_is_offered_only_when_near),
        cmocka_unit_test(sizes_are_read_as_people_write_them),
        cmocka_unit_test(sizes_are_written_short_and_exact),
        cmocka_unit_test(json_nests_and_escapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
