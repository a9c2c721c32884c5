/* Scenarios 27 and 32 where they are decided: in the session of a link (agent/io/peer_session, bytes in and bytes out). What the
 * mirrors make of a link that ended for it is in scenarios_test. */
#include "agent/io/peer_session.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

struct end {
    struct peer_tls_context *tls;
    struct peer_session *session;
    struct error error;
    int failed;
    unsigned up, frames;
};

struct wire {
    struct peer_pool *pool;
    struct end ends[2]; /* client, server */
};

static void wire_begin(struct wire *wire, const uint32_t versions[2][2])
{
    static const uint8_t psk[PEER_TLS_PSK_BYTES] = {7};
    memset(wire, 0, sizeof(*wire));
    wire->pool = peer_pool_new();
    for (unsigned i = 0; i < 2; i++) {
        struct peer_hello hello = {.node = {{(uint8_t)(i + 1)}}, .nodeid = (uint16_t)(i + 1), .boot = 9 + i,
                                   .version_min = versions[i][0], .version_max = versions[i][1]};
        (void)snprintf(hello.name, sizeof(hello.name), "node%u", i + 1);
        assert_int_equal(peer_tls_context_new(psk, &wire->ends[i].tls, NULL), 0);
        struct peer_session_config config = {.tls = wire->ends[i].tls, .pool = wire->pool, .hello = &hello,
                                             .role = i ? PEER_TLS_SERVER : PEER_TLS_CLIENT, .heartbeat_us = 50000,
                                             .silence_us = 1000000, .handshake_us = 3000000, .queue_bytes = 1u << 20};
        assert_int_equal(peer_session_new(&config, 1000000, &wire->ends[i].session), 0);
    }
}

static void wire_end(struct wire *wire)
{
    for (unsigned i = 0; i < 2; i++) {
        peer_session_free(wire->ends[i].session);
        peer_tls_context_free(wire->ends[i].tls);
    }
    peer_pool_free(wire->pool);
}

static void drain(struct end *end)
{
    struct peer_session_event event;
    int result = 0;
    while (!end->failed && (result = peer_session_next(end->session, 1000000, &event, &end->error)) == 1) {
        if (event.kind == PEER_SESSION_INTRODUCED) {
            end->up++;
            (void)peer_session_admit(end->session, 1000000);
        } else if (event.kind == PEER_SESSION_FRAME) {
            end->frames++;
            peer_buffer_unref(event.payload);
        }
    }
    end->failed = result < 0 ? result : end->failed;
}

/* All there is goes over, bit number flip of it turned round; -1: none. */
static bool carry(struct wire *wire, unsigned from, long flip)
{
    struct iovec iov;
    uint8_t copy[32768];
    bool moved = false;
    while (peer_session_output(wire->ends[from].session, &iov, 1)) {
        size_t size = MIN(iov.iov_len, sizeof(copy));
        memcpy(copy, iov.iov_base, size);
        if (flip >= 0 && (size_t)flip < size * 8)
            copy[flip / 8] ^= (uint8_t)(1u << flip % 8);
        flip -= (long)size * 8;
        peer_session_output_consumed(wire->ends[from].session, size);
        if (!wire->ends[!from].failed) {
            peer_session_input(wire->ends[!from].session, copy, size);
            drain(&wire->ends[!from]);
        }
        moved = true;
    }
    return moved;
}

static void settle(struct wire *wire)
{
    drain(&wire->ends[0]);
    for (bool more = true; more;) {
        more = carry(wire, 0, -1);
        more |= carry(wire, 1, -1);
    }
}

static void s27_the_lower_version_is_spoken_and_none_in_common_refused_with_words(void **state)
{
    (void)state;
    static const struct {
        uint32_t versions[2][2], spoken;
    } cases[] = {{{{1, 1}, {1, 1}}, 1}, {{{1, 1}, {1, 4}}, 1}, {{{1, 3}, {2, 4}}, 3}, {{{2, 4}, {1, 3}}, 3},
                 {{{1, 1}, {2, 3}}, 0}, {{{3, 4}, {1, 2}}, 0}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct wire wire;
        wire_begin(&wire, cases[i].versions);
        settle(&wire);
        for (unsigned k = 0; k < 2; k++) {
            assert_int_equal(wire.ends[k].up, cases[i].spoken != 0);
            if (cases[i].spoken)
                assert_int_equal(peer_session_version(wire.ends[k].session), cases[i].spoken);
            else
                assert_true(wire.ends[k].failed && wire.ends[k].error.message[0]);
        }
        wire_end(&wire);
    }
}

/* A frame with 100 bytes: whichever bit turns round, it is not handed out, nor anything after it. */
static void s32_each_flipped_bit_ends_the_link(void **state)
{
    (void)state;
    static const uint32_t versions[2][2] = {{1, 1}, {1, 1}};
    uint8_t bytes[100] = {1, 2, 3};
    struct iovec iov = {bytes, sizeof(bytes)}, out;
    struct peer_header header = {.type = PEER_MIRROR_FIRST, .request = 5, .object = 1};
    long bits = 1;
    for (long flip = 0; flip < bits; flip += flip < 80 ? 1 : 7) { /* of the record's header each, of the rest every seventh */
        struct wire wire;
        wire_begin(&wire, versions);
        settle(&wire);
        assert_int_equal(peer_session_send(wire.ends[0].session, &header, &iov, 1), 0);
        assert_int_equal(peer_session_output(wire.ends[0].session, &out, 1), 1);
        bits = (long)out.iov_len * 8;
        (void)carry(&wire, 0, flip);
        for (unsigned more = 0; more < 3 && !wire.ends[1].failed; more++) { /* a longer length waits for what follows */
            uint8_t large[16384] = {0};
            struct iovec rest = {large, sizeof(large)};
            if (peer_session_send(wire.ends[0].session, &header, &rest, 1) == 0)
                (void)carry(&wire, 0, -1);
        }
        assert_int_equal(wire.ends[1].frames, 0);
        assert_true(wire.ends[1].failed < 0);
        wire_end(&wire);
    }
    assert_true(bits > 8 * 148);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(s27_the_lower_version_is_spoken_and_none_in_common_refused_with_words),
        cmocka_unit_test(s32_each_flipped_bit_ends_the_link),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
