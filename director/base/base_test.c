#include "director/base/bytes.h"
#include "director/base/crc32c.h"
#include "director/base/error.h"
#include "director/base/list.h"
#include "director/base/log.h"
#include "director/base/uuid.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void crc32c_matches_the_vectors_of_rfc3720(void **state)
{
    (void)state;
    uint8_t data[32] = {0};
    assert_int_equal(crc32c(0, data, 32), 0x8a9136aa);
    memset(data, 0xff, 32);
    assert_int_equal(crc32c(0, data, 32), 0x62a8ab43);
    for (unsigned i = 0; i < 32; i++)
        data[i] = (uint8_t)i;
    assert_int_equal(crc32c(0, data, 32), 0x46dd794e);
    assert_int_equal(crc32c(crc32c(0, data, 7), data + 7, 25), 0x46dd794e);
}

static void uuid_text_round_trips_and_refuses_rubbish(void **state)
{
    (void)state;
    struct uuid a, b;
    char text[UUID_TEXT_SIZE];
    assert_int_equal(uuid_generate(&a), 0);
    uuid_format(&a, text);
    assert_int_equal(uuid_parse(text, &b), 0);
    assert_true(uuid_equal(&a, &b));
    assert_int_equal(text[14], '4');
    assert_int_equal(uuid_parse("", &b), -EINVAL);
    assert_int_equal(uuid_parse("01234567-89ab-cdef-0123-456789abcdeg", &b), -EINVAL);
    assert_int_equal(uuid_parse("01234567-89ab-cdef-0123-456789abcdef0", &b), -EINVAL);
    assert_int_equal(uuid_parse("0123456789ab-cdef-0123-456789abcdef", &b), -EINVAL);
}

static void bytes_keep_their_order(void **state)
{
    (void)state;
    uint8_t raw[8];
    put_be32(raw, 0x01020304);
    assert_int_equal(raw[0], 1);
    assert_int_equal(get_be32(raw), 0x01020304);
    put_le64(raw, 0x0102030405060708);
    assert_int_equal(raw[0], 8);
    assert_true(get_le64(raw) == 0x0102030405060708);
    put_be24(raw, 0x010203);
    assert_int_equal(get_be24(raw), 0x010203);
}

static void list_splice_keeps_order(void **state)
{
    (void)state;
    struct list a, b, n[4];
    list_init(&a);
    list_init(&b);
    list_append(&a, &n[0]);
    list_append(&a, &n[1]);
    list_append(&b, &n[2]);
    list_append(&b, &n[3]);
    list_splice(&a, &b);
    assert_true(list_empty(&b));
    unsigned i = 0;
    list_foreach(node, &a) assert_ptr_equal(node, &n[i++]);
    assert_int_equal(i, 4);
    list_remove(&n[1]);
    list_remove(&n[1]);
    assert_ptr_equal(n[0].next, &n[2]);
}

static void error_set_returns_its_code_with_words(void **state)
{
    (void)state;
    struct error error;
    assert_int_equal(error_set(&error, -ENOENT, "no volume %s", "vol1"), -ENOENT);
    assert_string_equal(error.message, "no volume vol1");
    assert_int_equal(error_set(NULL, -EIO, "x"), -EIO);
    assert_int_equal(log_configure("loud"), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc32c_matches_the_vectors_of_rfc3720),
        cmocka_unit_test(uuid_text_round_trips_and_refuses_rubbish),
        cmocka_unit_test(bytes_keep_their_order),
        cmocka_unit_test(list_splice_keeps_order),
        cmocka_unit_test(error_set_returns_its_code_with_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
