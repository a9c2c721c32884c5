#include "agent/io/peer_session.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/* Two sessions joined by memory. Time stands still unless a test moves it. */
struct side {
    struct peer_tls_context *tls;
    struct peer_session *session;
    struct peer_hello hello;
    struct error error;
    int failed;
    unsigned up, hellos, frames, heartbeats, acked;
    uint64_t acked_us;
    struct peer_header header;
    struct peer_buffer *payload; /* of the last frame */
    uint64_t next_argument;      /* frames must come in this order, when check_order */
    bool check_order;
    bool send_on_heartbeat;
    bool refuse;
};

struct pair {
    struct peer_pool *pool;
    struct side client, server;
    uint64_t now_us;
    size_t piece; /* bytes handed over at a time */
};

static const uint8_t good_psk[PEER_TLS_PSK_BYTES] = {1, 2, 3};

static struct peer_hello hello_of(uint8_t id)
{
    struct peer_hello hello = {.node = {{id}}, .nodeid = id, .boot = id * 1000u, .version_min = 1, .version_max = 1};
    (void)snprintf(hello.name, sizeof(hello.name), "node%u", id);
    return hello;
}

static void side_begin(struct pair *pair, struct side *side, enum peer_tls_role role, const uint8_t *psk)
{
    struct peer_session_config config = {
        .pool = pair->pool,
        .role = role,
        .hello = &side->hello,
        .heartbeat_us = 50000,
        .silence_us = 1000000,
        .handshake_us = 3000000,
        .queue_bytes = 8u << 20,
        .key_update_records = 100,
    };
    assert_int_equal(peer_tls_context_new(psk, &side->tls, NULL), 0);
    config.tls = side->tls;
    assert_int_equal(peer_session_new(&config, pair->now_us, &side->session), 0);
}

static void pair_begin(struct pair *pair, const uint8_t *client_psk, const uint8_t *server_psk)
{
    pair->pool = peer_pool_new();
    pair->now_us = 1000000;
    pair->piece = SIZE_MAX;
    side_begin(pair, &pair->client, PEER_TLS_CLIENT, client_psk);
    side_begin(pair, &pair->server, PEER_TLS_SERVER, server_psk);
}

static void side_end(struct side *side)
{
    peer_buffer_unref(side->payload);
    peer_session_free(side->session);
    peer_tls_context_free(side->tls);
}

static void pair_end(struct pair *pair)
{
    side_end(&pair->client);
    side_end(&pair->server);
    peer_pool_free(pair->pool);
}

static void side_event(struct side *side, struct peer_session_event *event, uint64_t now_us)
{
    switch (event->kind) {
    case PEER_SESSION_INTRODUCED:
        if (side->refuse) {
            peer_session_refuse(side->session, -EUSERS, "we are full up");
            break;
        }
        side->up++;
        assert_int_equal(peer_session_send(side->session, &(struct peer_header){.type = 0x40}, NULL, 0), -ENOTCONN);
        assert_int_equal(peer_session_admit(side->session, now_us), 0);
        break;
    case PEER_SESSION_HELLO:
        side->hellos++;
        break;
    case PEER_SESSION_FRAME:
        side->frames++;
        side->header = event->header;
        if (side->check_order)
            assert_int_equal(event->header.argument, side->next_argument++);
        peer_buffer_unref(side->payload);
        side->payload = event->payload;
        break;
    case PEER_SESSION_HEARTBEAT:
        side->heartbeats++;
        if (side->send_on_heartbeat)
            assert_int_equal(peer_session_send(side->session, &(struct peer_header){.type = PEER_MIRROR_FIRST}, NULL, 0), 0);
        break;
    case PEER_SESSION_HEARTBEAT_ACKED:
        side->acked++;
        side->acked_us = event->time_us;
        break;
    }
}

static void side_drain(struct pair *pair, struct side *side)
{
    struct peer_session_event event;
    int result = 0;
    while (!side->failed && (result = peer_session_next(side->session, pair->now_us, &event, &side->error)) == 1)
        side_event(side, &event, pair->now_us);
    if (result < 0)
        side->failed = result;
}

/* Hand over what from has to say. */
static bool hand_over(struct pair *pair, struct side *from, struct side *to)
{
    struct iovec iov[1];
    bool moved = false;
    while (peer_session_output(from->session, iov, 1)) {
        size_t size = MIN(iov[0].iov_len, pair->piece);
        if (!to->failed) {
            peer_session_input(to->session, iov[0].iov_base, size);
            side_drain(pair, to);
        }
        peer_session_output_consumed(from->session, size);
        moved = true;
    }
    return moved;
}

static void pair_settle(struct pair *pair)
{
    side_drain(pair, &pair->client);
    bool a, b;
    do {
        a = hand_over(pair, &pair->client, &pair->server);
        b = hand_over(pair, &pair->server, &pair->client);
    } while (a || b);
}

static void pair_begin_up(struct pair *pair)
{
    *pair = (struct pair){.client.hello = hello_of(1), .server.hello = hello_of(2)};
    pair_begin(pair, good_psk, good_psk);
    pair_settle(pair);
    assert_int_equal(pair->client.up, 1);
    assert_int_equal(pair->server.up, 1);
}

static void sides_come_up_and_know_each_other(void **state)
{
    (void)state;
    struct pair pair;
    pair_begin_up(&pair);
    assert_true(peer_session_is_up(pair.client.session));
    assert_string_equal(peer_session_hello(pair.client.session)->name, "node2");
    assert_int_equal(peer_session_hello(pair.server.session)->boot, 1000);
    assert_int_equal(peer_session_version(pair.server.session), 1);
    pair_end(&pair);
}

static void handshake_and_frames_survive_any_cutting(void **state)
{
    (void)state;
    for (size_t piece = 1; piece < 60; piece += 7) {
        struct pair pair = {.client.hello = hello_of(1), .server.hello = hello_of(2)};
        char text[] = "0123456789";
        struct iovec iov[2] = {{text, 4}, {text + 4, 6}};
        pair_begin(&pair, good_psk, good_psk);
        pair.piece = piece;
        pair_settle(&pair);
        assert_int_equal(peer_session_send(pair.client.session, &(struct peer_header){.type = 0x40, .request = 7}, iov, 2), 0);
        pair_settle(&pair);
        assert_int_equal(pair.server.frames, 1);
        assert_int_equal(pair.server.header.request, 7);
        assert_int_equal(pair.server.payload->size, 10);
        assert_memory_equal(pair.server.payload->data, text, 10);
        pair_end(&pair);
    }
}

static void other_key_is_refused_on_both_sides_with_words(void **state)
{
    (void)state;
    static const uint8_t other[PEER_TLS_PSK_BYTES] = {9};
    struct pair pair = {.client.hello = hello_of(1), .server.hello = hello_of(2)};
    pair_begin(&pair, other, good_psk);
    pair_settle(&pair);
    assert_int_equal(pair.server.failed, -EACCES);
    assert_non_null(strstr(pair.server.error.message, "does not hold our cluster key"));
    assert_int_equal(pair.client.failed, -EACCES);
    assert_non_null(strstr(pair.client.error.message, "refuses our cluster key"));
    assert_int_equal(pair.client.up + pair.server.up, 0);
    pair_end(&pair);
}

/* P3: the Selfie attack reflects a node's own handshake to it. */
static void own_uuid_is_refused(void **state)
{
    (void)state;
    struct pair pair = {.client.hello = hello_of(1), .server.hello = hello_of(1)};
    pair_begin(&pair, good_psk, good_psk);
    pair_settle(&pair);
    assert_int_equal(pair.server.failed, -ELOOP);
    assert_int_equal(pair.client.up + pair.server.up, 0);
    pair_end(&pair);

    struct pair copy = {.client.hello = hello_of(1), .server.hello = hello_of(1)};
    copy.server.hello.boot = 77;
    pair_begin(&copy, good_psk, good_psk);
    pair_settle(&copy);
    assert_int_equal(copy.server.failed, -EEXIST);
    assert_non_null(strstr(copy.server.error.message, "copy"));
    pair_end(&copy);
}

static void expect_refusal(struct peer_hello server, int code, const char *word)
{
    struct pair pair = {.client.hello = hello_of(1), .server.hello = server};
    pair.client.hello.channel = PEER_CHANNEL_DATA;
    pair.client.hello.cluster.bytes[0] = 5;
    pair_begin(&pair, good_psk, good_psk);
    pair_settle(&pair);
    assert_int_equal(pair.server.failed, code);
    assert_non_null(strstr(pair.server.error.message, word));
    assert_int_equal(pair.client.failed, -ECONNREFUSED);
    assert_non_null(strstr(pair.client.error.message, word));
    assert_int_equal(pair.client.up + pair.server.up, 0);
    pair_end(&pair);
}

static void server_decides_first_and_the_refused_client_was_never_up(void **state)
{
    (void)state;
    struct pair pair = {.client.hello = hello_of(1), .server.hello = hello_of(2), .server.refuse = true};
    pair_begin(&pair, good_psk, good_psk);
    pair_settle(&pair);
    assert_int_equal(pair.client.up, 0);
    assert_int_equal(pair.client.failed, -ECONNREFUSED);
    assert_non_null(strstr(pair.client.error.message, "full up"));
    pair_end(&pair);
}

static void wrong_channel_version_or_cluster_is_refused(void **state)
{
    (void)state;
    struct peer_hello hello = hello_of(2);
    hello.channel = PEER_CHANNEL_CONTROL;
    expect_refusal(hello, -EPROTO, "channel");
    hello.channel = PEER_CHANNEL_DATA;
    hello.version_min = 2;
    hello.version_max = 9;
    expect_refusal(hello, -EPROTONOSUPPORT, "upgrade");
    hello.version_min = 1;
    hello.cluster.bytes[0] = 6;
    expect_refusal(hello, -EXDEV, "another cluster");
}

static void garbage_instead_of_tls_is_refused(void **state)
{
    (void)state;
    struct pair pair = {.client.hello = hello_of(1), .server.hello = hello_of(2)};
    pair_begin(&pair, good_psk, good_psk);
    peer_session_input(pair.server.session, (const uint8_t *)"GET / HTTP/1.0\r\n\r\n", 18);
    side_drain(&pair, &pair.server);
    assert_int_equal(pair.server.failed, -EPROTO);
    pair_end(&pair);
}

static void altered_ciphertext_is_refused(void **state)
{
    (void)state;
    struct pair pair;
    struct iovec iov;
    uint8_t copy[4096];
    pair_begin_up(&pair);
    assert_int_equal(peer_session_send(pair.client.session, &(struct peer_header){.type = 0x40}, NULL, 0), 0);
    assert_int_equal(peer_session_output(pair.client.session, &iov, 1), 1);
    memcpy(copy, iov.iov_base, iov.iov_len);
    copy[iov.iov_len - 1] ^= 1;
    peer_session_input(pair.server.session, copy, iov.iov_len);
    side_drain(&pair, &pair.server);
    assert_int_equal(pair.server.failed, -EPROTO);
    assert_int_equal(pair.server.frames, 0);
    pair_end(&pair);
}

static void bad_frames_end_the_session_and_the_peer_learns_why(void **state)
{
    (void)state;
    struct pair pair;
    char text[] = "payload";
    struct iovec iov = {text, sizeof(text)};
    pair_begin_up(&pair);
    assert_int_equal(
        peer_session_send(pair.client.session, &(struct peer_header){.type = 0x40, .payload_crc = 1}, &iov, 1), 0);
    pair_settle(&pair);
    assert_int_equal(pair.server.failed, -EBADMSG);
    assert_int_equal(pair.client.failed, -ECONNREFUSED);
    assert_non_null(strstr(pair.client.error.message, "checksum"));
    pair_end(&pair);
}

static void frames_before_the_hello_are_refused(void **state)
{
    (void)state;
    /* A peer that holds the key but does not follow the protocol: TLS by hand, then a frame. */
    struct pair pair = {.client.hello = hello_of(1), .server.hello = hello_of(2)};
    struct peer_tls *tls;
    struct iovec iov;
    uint8_t raw[PEER_HEADER_BYTES];
    pair_begin(&pair, good_psk, good_psk);
    assert_int_equal(peer_tls_new(pair.client.tls, pair.pool, PEER_TLS_CLIENT, 0, &tls), 0);
    while (peer_tls_handshake(tls, NULL) == 0) {
        while (peer_tls_output(tls, &iov, 1)) {
            peer_session_input(pair.server.session, iov.iov_base, iov.iov_len);
            side_drain(&pair, &pair.server);
            peer_tls_output_consumed(tls, iov.iov_len);
        }
        if (peer_session_output(pair.server.session, &iov, 1)) {
            peer_tls_input(tls, iov.iov_base, iov.iov_len);
            int result = peer_tls_handshake(tls, NULL);
            assert_true(result >= 0);
            peer_session_output_consumed(pair.server.session, iov.iov_len);
            if (result == 1)
                break;
        }
    }
    peer_header_encode(&(struct peer_header){.type = PEER_JOIN}, raw);
    assert_int_equal(peer_tls_write(tls, raw, sizeof(raw)), 0);
    assert_int_equal(peer_tls_flush(tls), 0);
    while (peer_tls_output(tls, &iov, 1)) {
        if (!pair.server.failed)
            peer_session_input(pair.server.session, iov.iov_base, iov.iov_len);
        side_drain(&pair, &pair.server);
        peer_tls_output_consumed(tls, iov.iov_len);
    }
    assert_int_equal(pair.server.failed, -EPROTO);
    assert_int_equal(pair.server.frames, 0);
    peer_tls_free(tls);
    pair_end(&pair);
}

static void order_is_kept_over_many_frames_and_key_updates(void **state)
{
    (void)state;
    struct pair pair;
    static uint8_t block[300000];
    uint64_t sent = 0;
    pair_begin_up(&pair);
    pair.server.check_order = true;
    for (unsigned round = 0; round < 60; round++) {
        for (unsigned i = 0; i < 50; i++) {
            size_t size = (sent * 7919) % 9000;
            if (i == 0)
                size = sizeof(block);
            memset(block, (int)sent, sizeof(block));
            struct iovec iov = {block, size};
            assert_int_equal(
                peer_session_send(pair.client.session, &(struct peer_header){.type = 0x40, .argument = sent++}, &iov, 1), 0);
        }
        pair_settle(&pair);
    }
    assert_int_equal(pair.server.failed, 0);
    assert_int_equal(pair.server.frames, sent);
    pair_end(&pair);
}

/* A head of any length that is no whole sectors: the data behind it can be written with O_DIRECT from where they lie. */
static void data_behind_a_short_head_arrive_aligned(void **state)
{
    static const uint32_t heads[] = {16, 32, 40, 72, 511}, data[] = {512, 4096, 12288, 65536, 1u << 20};
    (void)state;
    struct pair pair;
    uint8_t *block = malloc(PEER_PAYLOAD_MAX_BYTES);
    for (size_t i = 0; i < PEER_PAYLOAD_MAX_BYTES; i++)
        block[i] = (uint8_t)(i * 2654435761u >> 13);
    pair_begin_up(&pair);
    for (size_t h = 0; h < ARRAY_SIZE(heads); h++)
        for (size_t d = 0; d < ARRAY_SIZE(data); d++) {
            struct iovec iov[2] = {{block, heads[h]}, {block + heads[h], data[d]}};
            assert_int_equal(peer_session_send(pair.client.session, &(struct peer_header){.type = 0x42}, iov, 2), 0);
            pair_settle(&pair);
            const struct peer_buffer *payload = pair.server.payload;
            assert_int_equal(payload->size, heads[h] + data[d]);
            assert_int_equal((uintptr_t)(payload->data + heads[h]) % PEER_BUFFER_ALIGNMENT, 0);
            assert_memory_equal(payload->data, block, heads[h] + data[d]);
        }
    pair_end(&pair);
    free(block);
}

static void longest_payload_arrives_aligned_and_longer_is_refused(void **state)
{
    (void)state;
    struct pair pair;
    uint8_t *block = malloc(PEER_PAYLOAD_MAX_BYTES);
    struct iovec iov[2] = {{block, PEER_PAYLOAD_MAX_BYTES}, {block, 1}};
    for (size_t i = 0; i < PEER_PAYLOAD_MAX_BYTES; i++)
        block[i] = (uint8_t)(i * 2654435761u >> 13);
    pair_begin_up(&pair);
    assert_int_equal(peer_session_send(pair.client.session, &(struct peer_header){.type = 0x40}, iov, 2), -EMSGSIZE);
    assert_int_equal(peer_session_send(pair.client.session, &(struct peer_header){.type = 0x40}, iov, 1), 0);
    pair_settle(&pair);
    assert_int_equal(pair.server.payload->size, PEER_PAYLOAD_MAX_BYTES);
    assert_int_equal((uintptr_t)pair.server.payload->data % PEER_BUFFER_ALIGNMENT, 0);
    assert_memory_equal(pair.server.payload->data, block, PEER_PAYLOAD_MAX_BYTES);
    pair_end(&pair);
    free(block);
}

static void full_queue_says_so_and_recovers(void **state)
{
    (void)state;
    struct pair pair;
    static uint8_t block[1u << 20];
    struct iovec iov = {block, sizeof(block)};
    unsigned taken = 0;
    int result;
    pair_begin_up(&pair);
    while ((result = peer_session_send(pair.client.session, &(struct peer_header){.type = 0x40}, &iov, 1)) == 0)
        taken++;
    assert_int_equal(result, -EAGAIN);
    assert_int_equal(taken, 7); /* of 8 MiB, with what TLS adds */
    assert_true(peer_session_queued(pair.client.session) <= 8u << 20);
    pair_settle(&pair);
    assert_int_equal(pair.server.frames, taken);
    assert_int_equal(peer_session_send(pair.client.session, &(struct peer_header){.type = 0x40}, &iov, 1), 0);
    pair_end(&pair);
}

static void heartbeats_are_answered_with_their_send_time(void **state)
{
    (void)state;
    struct pair pair;
    pair_begin_up(&pair);
    for (unsigned i = 0; i < 10; i++) {
        pair.now_us += 50000;
        assert_int_equal(peer_session_tick(pair.client.session, pair.now_us, NULL), 0);
        uint64_t sent_us = pair.now_us;
        pair.now_us += 700;
        pair_settle(&pair);
        assert_int_equal(pair.client.acked_us, sent_us);
    }
    assert_int_equal(pair.server.heartbeats, 10);
    assert_int_equal(pair.client.acked, 10);
    assert_int_equal(peer_session_tick(pair.client.session, pair.now_us, NULL), 0);
    pair_settle(&pair);
    assert_int_equal(pair.server.heartbeats, 10); /* not before its time */
    pair_end(&pair);
}

/* P5: what a member sends on seeing the heartbeat is there before its answer. */
static void frame_sent_on_a_heartbeat_precedes_the_answer(void **state)
{
    (void)state;
    struct pair pair;
    struct iovec iov;
    struct peer_session_event event;
    pair_begin_up(&pair);
    pair.server.send_on_heartbeat = true;
    assert_int_equal(peer_session_tick(pair.client.session, pair.now_us, NULL), 0);
    (void)hand_over(&pair, &pair.client, &pair.server);
    assert_int_equal(peer_session_output(pair.server.session, &iov, 1), 1);
    peer_session_input(pair.client.session, iov.iov_base, iov.iov_len);
    assert_int_equal(peer_session_next(pair.client.session, pair.now_us, &event, NULL), 1);
    assert_int_equal(event.kind, PEER_SESSION_FRAME);
    assert_int_equal(peer_session_next(pair.client.session, pair.now_us, &event, NULL), 1);
    assert_int_equal(event.kind, PEER_SESSION_HEARTBEAT_ACKED);
    pair_end(&pair);
}

static void answer_to_a_heartbeat_of_the_future_is_refused(void **state)
{
    (void)state;
    struct pair pair;
    pair_begin_up(&pair);
    assert_int_equal(peer_session_send(pair.server.session,
                                       &(struct peer_header){.type = PEER_HEARTBEAT_ACK, .argument = pair.now_us + 1}, NULL, 0),
                     0);
    pair_settle(&pair);
    assert_int_equal(pair.client.failed, -EPROTO);
    assert_int_equal(pair.client.acked, 0);
    pair_end(&pair);
}

static void silence_and_slow_handshakes_end_the_session(void **state)
{
    (void)state;
    struct pair pair;
    struct error error;
    pair_begin_up(&pair);
    assert_int_equal(peer_session_tick(pair.client.session, pair.now_us + 999999, &error), 0);
    assert_int_equal(peer_session_tick(pair.client.session, pair.now_us + 1000000, &error), -ETIMEDOUT);
    assert_non_null(strstr(error.message, "silent"));
    pair_end(&pair);

    struct pair slow = {.client.hello = hello_of(1), .server.hello = hello_of(2)};
    pair_begin(&slow, good_psk, good_psk);
    assert_int_equal(peer_session_tick(slow.server.session, slow.now_us + 2999999, &error), 0);
    assert_int_equal(peer_session_tick(slow.server.session, slow.now_us + 3000000, &error), -ETIMEDOUT);
    pair_end(&slow);
}

static void hello_can_be_renewed_but_not_exchanged(void **state)
{
    (void)state;
    struct pair pair;
    pair_begin_up(&pair);
    pair.client.hello.cluster.bytes[3] = 3;
    pair.client.hello.node_count = 1;
    assert_int_equal(peer_session_set_hello(pair.client.session, &pair.client.hello), 0);
    pair_settle(&pair);
    assert_int_equal(pair.server.hellos, 1);
    assert_int_equal(peer_session_hello(pair.server.session)->node_count, 1);
    pair.client.hello.boot++;
    assert_int_equal(peer_session_set_hello(pair.client.session, &pair.client.hello), 0);
    pair_settle(&pair);
    assert_int_equal(pair.server.failed, -EPROTO);
    pair_end(&pair);
}

static void hello_with_unprintable_text_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[PEER_HELLO_MAX_BYTES];
    struct peer_hello hello = hello_of(1), back;
    size_t size = peer_hello_encode(&hello, bytes);
    assert_int_equal(peer_hello_decode(bytes, size, &back, NULL), 0);
    assert_memory_equal(&hello, &back, sizeof(hello));
    (void)snprintf(hello.name, sizeof(hello.name), "a\033[2Jb");
    size = peer_hello_encode(&hello, bytes);
    assert_int_equal(peer_hello_decode(bytes, size, &back, NULL), -EPROTO);
    assert_int_equal(peer_hello_decode(bytes, 3, &back, NULL), -EPROTO);
    assert_int_equal(peer_hello_decode("", 0, &back, NULL), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sides_come_up_and_know_each_other),
        cmocka_unit_test(handshake_and_frames_survive_any_cutting),
        cmocka_unit_test(other_key_is_refused_on_both_sides_with_words),
        cmocka_unit_test(own_uuid_is_refused),
        cmocka_unit_test(wrong_channel_version_or_cluster_is_refused),
        cmocka_unit_test(server_decides_first_and_the_refused_client_was_never_up),
        cmocka_unit_test(garbage_instead_of_tls_is_refused),
        cmocka_unit_test(altered_ciphertext_is_refused),
        cmocka_unit_test(bad_frames_end_the_session_and_the_peer_learns_why),
        cmocka_unit_test(frames_before_the_hello_are_refused),
        cmocka_unit_test(order_is_kept_over_many_frames_and_key_updates),
        cmocka_unit_test(data_behind_a_short_head_arrive_aligned),
        cmocka_unit_test(longest_payload_arrives_aligned_and_longer_is_refused),
        cmocka_unit_test(full_queue_says_so_and_recovers),
        cmocka_unit_test(heartbeats_are_answered_with_their_send_time),
        cmocka_unit_test(frame_sent_on_a_heartbeat_precedes_the_answer),
        cmocka_unit_test(answer_to_a_heartbeat_of_the_future_is_refused),
        cmocka_unit_test(silence_and_slow_handshakes_end_the_session),
        cmocka_unit_test(hello_can_be_renewed_but_not_exchanged),
        cmocka_unit_test(hello_with_unprintable_text_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
