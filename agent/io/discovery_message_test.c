#include "agent/io/discovery_message.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define TAG "0123456789abcdef0123456789abcdef"

static struct discovery_peer sample(bool formed)
{
    struct discovery_peer peer = {.uuid = {{1, 2, 3}}, .address = "10.0.0.7", .port = 7600, .boot = 0xfedcba9876543210ull};
    if (formed) {
        peer.formed = true;
        peer.cluster = (struct uuid){{9, 8}};
        peer.node_count = 3;
    }
    return peer;
}

static void lines_round_trip(void **state)
{
    (void)state;
    for (int verb = DISCOVERY_SELF; verb <= DISCOVERY_PEER; verb++) {
        for (int formed = 0; formed < 2; formed++) {
            struct discovery_message message = {.verb = verb, .peer = sample(formed)}, back;
            char line[DISCOVERY_LINE_MAX + 1];
            if (verb == DISCOVERY_SELF)
                memcpy(message.tag, TAG, sizeof(TAG));
            int length = discovery_message_encode(&message, line);
            assert_true(length > 0 && line[length - 1] == '\n');
            assert_int_equal(discovery_message_decode(line, (size_t)length - 1, &back), 0);
            assert_int_equal(back.verb, verb);
            assert_string_equal(back.tag, message.tag);
            assert_true(discovery_peer_equal(&back.peer, &message.peer));
        }
    }
    struct discovery_message gone = {.verb = DISCOVERY_GONE, .peer.uuid = {{5}}}, back;
    char line[DISCOVERY_LINE_MAX + 1];
    int length = discovery_message_encode(&gone, line);
    assert_int_equal(discovery_message_decode(line, (size_t)length - 1, &back), 0);
    assert_int_equal(back.peer.uuid.bytes[0], 5);
}

static void the_longest_line_fits(void **state)
{
    (void)state;
    struct discovery_message message = {.verb = DISCOVERY_SELF, .tag = TAG, .peer = sample(true)}, back;
    char line[DISCOVERY_LINE_MAX + 1];
    (void)snprintf(message.peer.address, sizeof(message.peer.address), "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%%abcdefghijklmno");
    message.peer.port = 65535;
    message.peer.node_count = 65535;
    int length = discovery_message_encode(&message, line);
    assert_true(length > 0 && length <= DISCOVERY_LINE_MAX);
    assert_int_equal(discovery_message_decode(line, (size_t)length - 1, &back), 0);
    assert_true(discovery_peer_equal(&back.peer, &message.peer));
}

static void bad_lines_are_refused(void **state)
{
    (void)state;
#define ID   "id=01020300-0000-0000-0000-000000000000"
#define NONE "cluster=00000000-0000-0000-0000-000000000000 nodes=0"
    static const char *const bad[] = {
        "", " ", "hello", "gone", "gone id=", "gone " ID " port=1", "gone " ID " " ID,
        "gone id=00000000-0000-0000-0000-000000000000",
        "peer " ID, "peer " ID " address=10.0.0.1 port=1 boot=0000000000000000 formed=0",
        "peer " ID " address=10.0.0.1 port=0 boot=0000000000000000 formed=0 " NONE,
        "peer " ID " address=10.0.0.1 port=65536 boot=0000000000000000 formed=0 " NONE,
        "peer " ID " address=10.0.0.1 port=01 boot=0000000000000000 formed=0 " NONE,
        "peer " ID " address=10.0.0.1 port=-1 boot=0000000000000000 formed=0 " NONE,
        "peer " ID " address=10.0.0 port=1 boot=0000000000000000 formed=0 " NONE,
        "peer " ID " address=fe80::1% port=1 boot=0000000000000000 formed=0 " NONE,
        "peer " ID " address=fe80::1%0123456789abcdef port=1 boot=0000000000000000 formed=0 " NONE,
        "peer " ID " address=10.0.0.1 port=1 boot=000000000000000 formed=0 " NONE,
        "peer " ID " address=10.0.0.1 port=1 boot=0000000000000000 formed=2 " NONE,
        "peer " ID " address=10.0.0.1 port=1 boot=0000000000000000 formed=1 " NONE, /* formed without cluster */
        "peer " ID " address=10.0.0.1 port=1 boot=0000000000000000 formed=0 cluster=01020300-0000-0000-0000-000000000000 nodes=0",
        "peer " ID " address=10.0.0.1 port=1 boot=0000000000000000 formed=0 " NONE " more=1",
        "peer tag=" TAG " " ID " address=10.0.0.1 port=1 boot=0000000000000000 formed=0 " NONE,
        "self " ID " address=10.0.0.1 port=1 boot=0000000000000000 formed=0 " NONE, /* no tag */
        "self tag=0123 " ID " address=10.0.0.1 port=1 boot=0000000000000000 formed=0 " NONE,
        "peer\t" ID " address=10.0.0.1 port=1 boot=0000000000000000 formed=0 " NONE,
    };
    struct discovery_message message;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (discovery_message_decode(bad[i], strlen(bad[i]), &message) != -EPROTO)
            fail_msg("taken: %s", bad[i]);
    const char *good = "peer " ID " address=10.0.0.1 port=1 boot=0000000000000000 formed=0 " NONE;
    assert_int_equal(discovery_message_decode(good, strlen(good), &message), 0);
    char with_nul[] = "gone " ID;
    with_nul[2] = '\0';
    assert_int_equal(discovery_message_decode(with_nul, sizeof(with_nul) - 1, &message), -EPROTO);
    char longest[DISCOVERY_LINE_MAX + 2];
    memset(longest, ' ', sizeof(longest));
    assert_int_equal(discovery_message_decode(longest, sizeof(longest), &message), -EPROTO);
}

static void what_cannot_be_read_is_not_written(void **state)
{
    (void)state;
    char line[DISCOVERY_LINE_MAX + 1];
    struct discovery_message message = {.verb = DISCOVERY_PEER, .peer = sample(true)};
    message.peer.cluster = (struct uuid){0};
    assert_int_equal(discovery_message_encode(&message, line), -EINVAL);
    message.peer = sample(false);
    memcpy(message.peer.address, "a b", 4);
    assert_int_equal(discovery_message_encode(&message, line), -EINVAL);
    message.peer = sample(false);
    message.verb = DISCOVERY_SELF;
    assert_int_equal(discovery_message_encode(&message, line), -EINVAL); /* no tag */
}

static int read_txt(struct discovery_txt *txt, const char *const *pairs, size_t count)
{
    discovery_txt_init(txt);
    for (size_t i = 0; i < count; i++) {
        int result = discovery_txt_add(txt, pairs[i], strlen(pairs[i]));
        if (result < 0)
            return result;
    }
    return discovery_txt_finish(txt);
}

static void txt_records_round_trip_and_tolerate_what_is_newer(void **state)
{
    (void)state;
    char pairs[DISCOVERY_TXT_PAIRS][DISCOVERY_TXT_PAIR_SIZE];
    const char *list[DISCOVERY_TXT_PAIRS + 3];
    struct discovery_peer peer = sample(true);
    struct discovery_txt txt;
    discovery_txt_format(&peer, TAG, pairs);
    for (size_t i = 0; i < DISCOVERY_TXT_PAIRS; i++)
        list[i] = pairs[i];
    list[DISCOVERY_TXT_PAIRS] = "new=thing";
    list[DISCOVERY_TXT_PAIRS + 1] = "flag";
    assert_int_equal(read_txt(&txt, list, DISCOVERY_TXT_PAIRS + 2), 0);
    assert_string_equal(txt.tag, TAG);
    memcpy(txt.peer.address, peer.address, sizeof(peer.address));
    txt.peer.port = peer.port;
    assert_true(discovery_peer_equal(&txt.peer, &peer));
    list[DISCOVERY_TXT_PAIRS + 2] = "n=4"; /* twice */
    assert_int_equal(read_txt(&txt, list, DISCOVERY_TXT_PAIRS + 3), -EPROTO);
    for (size_t without = 0; without < DISCOVERY_TXT_PAIRS; without++) {
        const char *some[DISCOVERY_TXT_PAIRS];
        size_t count = 0;
        for (size_t i = 0; i < DISCOVERY_TXT_PAIRS; i++)
            if (i != without)
                some[count++] = pairs[i];
        assert_int_equal(read_txt(&txt, some, count), -EPROTO);
    }
    list[0] = "v=2";
    assert_int_equal(read_txt(&txt, list, DISCOVERY_TXT_PAIRS), -EPROTONOSUPPORT);
    list[0] = "v=x";
    assert_int_equal(read_txt(&txt, list, DISCOVERY_TXT_PAIRS), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_round_trip),
        cmocka_unit_test(the_longest_line_fits),
        cmocka_unit_test(bad_lines_are_refused),
        cmocka_unit_test(what_cannot_be_read_is_not_written),
        cmocka_unit_test(txt_records_round_trip_and_tolerate_what_is_newer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
