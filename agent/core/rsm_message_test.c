#include "agent/core/rsm_message.h"

#include "director/base/bytes.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static const uint8_t words[] = "some bytes for the tree";

static struct rsm_entry entry_of(uint64_t index, uint64_t term, enum rsm_entry_kind kind)
{
    struct rsm_entry entry = {.index = index, .term = term, .kind = kind, .origin = 3, .boot = 4, .sequence = 5};
    if (kind == RSM_ENTRY_CONFIG)
        entry.config = (struct rsm_config){.voters = {1, 7, 65535}, .count = 3};
    if (kind != RSM_ENTRY_NOOP)
        entry.data = (struct rsm_blob){words, sizeof(words)};
    return entry;
}

static void an_entry_round_trips_and_damage_is_seen(void **state)
{
    (void)state;
    for (int kind = RSM_ENTRY_NOOP; kind <= RSM_ENTRY_CONFIG; kind++) {
        struct rsm_entry in = entry_of(9, 2, (enum rsm_entry_kind)kind), out;
        size_t size, used;
        uint8_t *bytes = rsm_entry_encode(&in, &size);
        assert_int_equal(rsm_entry_decode(bytes, size, &out, &used), 0);
        assert_int_equal(used, size);
        assert_int_equal(out.index, 9);
        assert_int_equal(out.kind, kind);
        assert_int_equal(out.sequence, 5);
        assert_int_equal(out.config.count, in.config.count);
        assert_int_equal(out.data.size, in.data.size);
        for (size_t i = 0; i < size; i++) {
            bytes[i] ^= 0x10;
            assert_int_equal(rsm_entry_decode(bytes, size, &out, &used), -EBADMSG);
            bytes[i] ^= 0x10;
            assert_int_equal(rsm_entry_decode(bytes, i, &out, &used), -EBADMSG);
        }
        free(bytes);
    }
}

static void a_snapshot_round_trips_and_damage_is_seen(void **state)
{
    (void)state;
    struct rsm_snapshot_header in = {.index = 5, .term = 2, .config = {{2, 3}, 2}, .data = {words, sizeof(words)}}, out;
    size_t size;
    uint8_t *bytes = rsm_snapshot_encode(&in, &size);
    assert_int_equal(rsm_snapshot_decode(bytes, size, &out), 0);
    assert_int_equal(out.config.voters[1], 3);
    assert_memory_equal(out.data.data, words, sizeof(words));
    for (size_t i = 0; i < size; i++) {
        bytes[i] ^= 0x10;
        assert_int_equal(rsm_snapshot_decode(bytes, size, &out), -EBADMSG);
        bytes[i] ^= 0x10;
        assert_int_equal(rsm_snapshot_decode(bytes, i, &out), -EBADMSG);
    }
    free(bytes);
}

static void a_message_is_canonical(void **state)
{
    (void)state;
    struct rsm_message in = {.type = RSM_GRANT, .flags = RSM_FLAG_GRANTED, .to = 2, .cluster = 1, .view = 2, .term = 3,
                             .own_term = 3, .last_term = 2, .last_index = 7}, out;
    size_t size;
    uint8_t *bytes = rsm_message_encode(&in, &size);
    assert_int_equal(size, RSM_MESSAGE_HEADER_BYTES + 24);
    assert_int_equal(rsm_message_decode(bytes, size, &out), 0);
    assert_int_equal(out.last_index, 7);
    assert_int_equal(rsm_message_decode(bytes, size - 1, &out), -EPROTO);
    uint8_t longer[128] = {0};
    memcpy(longer, bytes, size);
    assert_int_equal(rsm_message_decode(longer, size + 1, &out), -EPROTO); /* this type carries no data */
    static const size_t must_not_change[] = {0, 3, 6, 7};
    for (size_t i = 0; i < ARRAY_SIZE(must_not_change); i++) {
        bytes[must_not_change[i]] ^= 0x40;
        assert_int_equal(rsm_message_decode(bytes, size, &out), -EPROTO);
        bytes[must_not_change[i]] ^= 0x40;
    }
    bytes[1] = RSM_MESSAGE_TYPES;
    assert_int_equal(rsm_message_decode(bytes, size, &out), -EPROTO);
    bytes[1] = RSM_GRANT;
    put_le16(bytes + 4, 0); /* a grant is for somebody */
    assert_int_equal(rsm_message_decode(bytes, size, &out), -EPROTO);
    put_le16(bytes + 4, 2);
    put_le64(bytes + 24, UINT64_MAX); /* no term gets there */
    assert_int_equal(rsm_message_decode(bytes, size, &out), -EPROTO);
    free(bytes);
}

static int append_of(uint64_t previous_term, uint64_t term, struct rsm_entry first, struct rsm_entry second)
{
    size_t a, b, size;
    uint8_t *one = rsm_entry_encode(&first, &a), *two = rsm_entry_encode(&second, &b), both[512];
    memcpy(both, one, a);
    memcpy(both + a, two, b);
    struct rsm_message in = {.type = RSM_APPEND, .term = term, .previous_index = 8, .previous_term = previous_term,
                             .data = {both, a + b}}, out;
    uint8_t *bytes = rsm_message_encode(&in, &size);
    int status = rsm_message_decode(bytes, size, &out);
    free(one);
    free(two);
    free(bytes);
    return status;
}

static void appended_entries_follow_each_other(void **state)
{
    (void)state;
    assert_int_equal(append_of(2, 3, entry_of(9, 2, 1), entry_of(10, 3, 0)), 0);
    assert_int_equal(append_of(2, 3, entry_of(9, 2, 1), entry_of(11, 3, 0)), -EPROTO); /* a gap */
    assert_int_equal(append_of(2, 3, entry_of(9, 3, 1), entry_of(10, 2, 0)), -EPROTO); /* a term falls */
    assert_int_equal(append_of(3, 3, entry_of(9, 2, 1), entry_of(10, 3, 0)), -EPROTO);
    assert_int_equal(append_of(2, 3, entry_of(9, 2, 1), entry_of(10, 4, 0)), -EPROTO); /* of a term to come */
}

static void a_voter_set_stays_sorted(void **state)
{
    (void)state;
    struct rsm_config config = {.count = 0};
    assert_true(rsm_config_add(&config, 5) && rsm_config_add(&config, 2) && rsm_config_add(&config, 9));
    assert_false(rsm_config_add(&config, 5));
    assert_int_equal(config.voters[0], 2);
    assert_int_equal(config.voters[2], 9);
    assert_true(rsm_config_remove(&config, 5));
    assert_false(rsm_config_remove(&config, 5));
    assert_int_equal(rsm_config_find(&config, 9), 1);
    for (uint16_t i = 100; config.count < RSM_NODES_MAX; i++)
        assert_true(rsm_config_add(&config, i));
    assert_false(rsm_config_add(&config, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_round_trips_and_damage_is_seen),
        cmocka_unit_test(a_snapshot_round_trips_and_damage_is_seen),
        cmocka_unit_test(a_message_is_canonical),
        cmocka_unit_test(appended_entries_follow_each_other),
        cmocka_unit_test(a_voter_set_stays_sorted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
