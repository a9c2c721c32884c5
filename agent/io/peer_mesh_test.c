/* Real sockets on the loopback, all nodes in one process. */
#include "agent/io/peer_listener.h"
#include "agent/io/peer_mesh.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define NODES 3
#define QUEUE_BYTES (8u << 20)

struct node {
    struct peer_mesh *mesh[PEER_CHANNEL_COUNT];
    struct peer_listener *listener;
    struct peer_hello hello;
    unsigned ups, downs, changes, frames, errors, acked, answered;
    int last_reason, last_error;
    char last_words[320], last_down[320];
    struct peer *last_up;
    struct peer_buffer *kept;
    struct peer_header header;
    uint64_t next_argument, received_bytes;
    uint64_t acked_us, answered_us;
    bool echo, close_on_frame, open;
};

static uv_loop_t loop;
static struct node nodes[NODES];
static uint64_t boots = 100;
static unsigned closings;

static void closed(void *context)
{
    (void)context;
    closings--;
}

static void on_up(struct peer *peer, const struct peer_hello *hello, void *context)
{
    struct node *node = context;
    assert_null(peer_context(peer));
    assert_non_null(hello);
    node->ups++;
    node->last_up = peer;
    node->next_argument = 0;
}

static void on_changed(struct peer *peer, const struct peer_hello *hello, void *context)
{
    (void)peer, (void)hello;
    ((struct node *)context)->changes++;
}

static void on_down(struct peer *peer, int reason, const char *words, void *context)
{
    struct node *node = context;
    (void)peer;
    node->downs++;
    node->last_reason = reason;
    (void)snprintf(node->last_down, sizeof(node->last_down), "%s", words);
}

static void on_frame(struct peer *peer, const struct peer_header *header, struct peer_buffer *payload, void *context)
{
    struct node *node = context;
    node->frames++;
    node->header = *header;
    node->received_bytes += payload ? payload->size : 0;
    if (header->object == 1) /* ordered */
        assert_int_equal(header->argument, node->next_argument++);
    if (header->object == 2) {
        peer_buffer_unref(node->kept);
        node->kept = peer_buffer_ref(payload);
    }
    if (node->echo) {
        struct iovec iov = {payload ? payload->data : NULL, payload ? payload->size : 0};
        assert_int_equal(peer_send(peer, header, &iov, payload ? 1 : 0), 0);
    }
    if (node->close_on_frame)
        peer_close(peer, "enough");
}

static void on_acked(struct peer *peer, uint64_t sent_us, void *context)
{
    struct node *node = context;
    (void)peer;
    assert_true(sent_us <= peer_clock_us());
    assert_true(sent_us > node->acked_us);
    node->acked_us = sent_us;
    node->acked++;
}

static void on_answered(struct peer *peer, uint64_t answered_us, void *context)
{
    struct node *node = context;
    (void)peer;
    node->answered_us = answered_us;
    node->answered++;
}

static void on_error(int code, const char *words, void *context)
{
    struct node *node = context;
    node->errors++;
    node->last_error = code;
    (void)snprintf(node->last_words, sizeof(node->last_words), "%s", words);
}

static const struct peer_mesh_callbacks callbacks = {on_up, on_changed, on_down, on_frame, on_acked, on_answered, on_error};

static void node_open_with(unsigned i, const uint8_t *psk, uint16_t port, unsigned silence_ms)
{
    struct node *node = &nodes[i];
    struct error error;
    memset(node, 0, sizeof(*node));
    node->hello = (struct peer_hello){.node = {{(uint8_t)(i + 1)}}, .nodeid = (uint16_t)(i + 1), .boot = ++boots};
    (void)snprintf(node->hello.name, sizeof(node->hello.name), "n%u", i + 1);
    for (unsigned channel = 0; channel < PEER_CHANNEL_COUNT; channel++) {
        struct peer_mesh_config config = {.loop = &loop, .channel = channel, .psk = psk, .hello = node->hello,
                                          .callbacks = &callbacks, .context = node, .silence_ms = silence_ms,
                                          .heartbeat_ms = 50, .queue_bytes = QUEUE_BYTES};
        assert_int_equal(peer_mesh_new(&config, &node->mesh[channel], &error), 0);
    }
    assert_int_equal(peer_listener_new(&loop, "127.0.0.1", port, node->mesh, &node->listener, &error), 0);
    node->open = true;
}

static const uint8_t psk_good[32] = {1, 2, 3}, psk_bad[32] = {4};

static void node_open(unsigned i)
{
    node_open_with(i, psk_good, 0, 1000);
}

static void run_until(bool (*ready)(void), unsigned limit_ms);
static bool never(void)
{
    return false;
}

static bool listener_gone(void)
{
    return closings == 0;
}

static void node_close(unsigned i)
{
    struct node *node = &nodes[i];
    if (!node->open)
        return;
    closings++;
    peer_listener_close(node->listener, closed, NULL);
    run_until(listener_gone, 2000);
    closings += 2;
    peer_mesh_close(node->mesh[0], closed, NULL);
    peer_mesh_close(node->mesh[1], closed, NULL);
    run_until(listener_gone, 2000);
    peer_buffer_unref(node->kept);
    node->kept = NULL;
    node->open = false;
}

static struct peer_node entry_of(unsigned i)
{
    struct peer_node entry = {.uuid = {{(uint8_t)(i + 1)}}, .nodeid = (uint16_t)(i + 1)};
    (void)snprintf(entry.address, sizeof(entry.address), "127.0.0.1:%u", peer_listener_port(nodes[i].listener));
    return entry;
}

/* Tell node i of the first count nodes. */
static void know(unsigned i, enum peer_channel channel, unsigned count)
{
    struct peer_node list[NODES];
    for (unsigned k = 0; k < count; k++)
        list[k] = entry_of(k);
    assert_int_equal(peer_mesh_set_peers(nodes[i].mesh[channel], list, count), 0);
}

static void stop_loop(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

static void run_until(bool (*ready)(void), unsigned limit_ms)
{
    uv_timer_t limit;
    bool late = false;
    uv_timer_init(&loop, &limit);
    limit.data = &late;
    uv_timer_start(&limit, stop_loop, limit_ms, 0);
    while (!late && !ready())
        uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&limit, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    if (ready != never)
        assert_true(ready());
}

static bool two_are_up(void)
{
    return peer_mesh_find(nodes[0].mesh[1], 2) && peer_mesh_find(nodes[1].mesh[1], 1);
}

static int setup(void **state)
{
    (void)state;
    return uv_loop_init(&loop);
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NODES; i++)
        node_close(i);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

static void two_up(void)
{
    node_open(0);
    node_open(1);
    know(0, PEER_CHANNEL_DATA, 2);
    know(1, PEER_CHANNEL_DATA, 2);
    run_until(two_are_up, 2000);
}

/* ---- tests ---- */

static void two_nodes_that_know_each_other_link_once(void **state)
{
    (void)state;
    uint64_t begun_us = peer_clock_us();
    two_up();
    assert_true(peer_clock_us() - begun_us < 250000); /* the lower dials at once */
    run_until(never, 700);                            /* the other must not dial a second one */
    assert_int_equal(nodes[0].ups, 1);
    assert_int_equal(nodes[1].ups, 1);
    assert_int_equal(nodes[0].downs + nodes[1].downs, 0);
    assert_string_equal(peer_hello(nodes[0].last_up)->name, "n2");
    assert_int_equal(peer_nodeid(nodes[0].last_up), 2);
    assert_ptr_equal(peer_mesh_next(nodes[0].mesh[1], NULL), nodes[0].last_up);
    assert_null(peer_mesh_next(nodes[0].mesh[1], nodes[0].last_up));
    assert_null(peer_mesh_find(nodes[0].mesh[1], 0));
    assert_int_equal(peer_mesh_send(nodes[0].mesh[1], 9, &(struct peer_header){.type = 0x40}, NULL, 0), -ENOTCONN);
}

static void both_dial_at_once_and_one_link_stays(void **state)
{
    (void)state;
    node_open(0);
    node_open(1);
    for (unsigned i = 0; i < 2; i++) { /* seeds know no order: both dial immediately */
        char address[32];
        const char *list[1] = {address};
        (void)snprintf(address, sizeof(address), "127.0.0.1:%u", peer_listener_port(nodes[1 - i].listener));
        assert_int_equal(peer_mesh_set_seeds(nodes[i].mesh[0], list, 1), 0);
    }
    run_until(never, 1500);
    assert_int_equal(nodes[0].ups - nodes[0].downs, 1);
    assert_int_equal(nodes[1].ups - nodes[1].downs, 1);
    assert_true(nodes[0].downs <= 1 && nodes[1].downs <= 1);
    assert_non_null(peer_mesh_find_uuid(nodes[0].mesh[0], &nodes[1].hello.node));
    assert_non_null(peer_mesh_find_uuid(nodes[1].mesh[0], &nodes[0].hello.node));
}

static bool three_are_up(void)
{
    for (unsigned i = 0; i < 3; i++)
        for (uint16_t k = 1; k <= 3; k++)
            if (k != i + 1 && (!peer_mesh_find(nodes[i].mesh[0], k) || !peer_mesh_find(nodes[i].mesh[1], k)))
                return false;
    return true;
}

static void three_nodes_mesh_on_both_channels(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        node_open(i);
    for (unsigned i = 0; i < 3; i++) {
        know(i, PEER_CHANNEL_CONTROL, 3);
        know(i, PEER_CHANNEL_DATA, 3);
    }
    run_until(three_are_up, 3000);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(nodes[i].ups, 4);
        assert_int_equal(nodes[i].errors, 0);
    }
}

static bool refused_both(void)
{
    return nodes[0].errors >= 1 && nodes[1].errors >= 1;
}

static void other_key_is_refused_with_words_on_both_sides(void **state)
{
    (void)state;
    node_open(0);
    node_open_with(1, psk_bad, 0, 1000);
    know(0, PEER_CHANNEL_DATA, 2);
    run_until(refused_both, 2000);
    assert_int_equal(nodes[0].last_error, -EACCES);
    assert_int_equal(nodes[1].last_error, -EACCES);
    assert_non_null(strstr(nodes[0].last_words, "refuses our cluster key"));
    assert_non_null(strstr(nodes[1].last_words, "does not hold our cluster key"));
    run_until(never, 600);
    assert_int_equal(nodes[0].ups + nodes[1].ups, 0);
    assert_int_equal(nodes[1].errors, 1); /* said once, however often it is tried */
}

static void own_address_as_seed_does_no_harm(void **state)
{
    (void)state;
    char address[32];
    const char *list[1] = {address};
    node_open(0);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", peer_listener_port(nodes[0].listener));
    assert_int_equal(peer_mesh_set_seeds(nodes[0].mesh[0], list, 1), 0);
    run_until(never, 600);
    assert_int_equal(nodes[0].ups, 0);
    assert_int_equal(nodes[0].errors, 0);
}

static bool stranger_is_up(void)
{
    return nodes[0].ups == 1 && nodes[1].ups == 1;
}

static bool became_known(void)
{
    return nodes[0].changes == 1;
}

static void newcomer_is_up_as_a_stranger_then_becomes_known(void **state)
{
    (void)state;
    char address[32];
    const char *list[1] = {address};
    node_open(0);
    node_open(1);
    (void)snprintf(address, sizeof(address), "localhost:%u", peer_listener_port(nodes[0].listener)); /* by name */
    assert_int_equal(peer_mesh_set_seeds(nodes[1].mesh[0], list, 1), 0);
    run_until(stranger_is_up, 3000);
    assert_int_equal(peer_nodeid(nodes[0].last_up), 0);
    assert_int_equal(peer_send(nodes[0].last_up, &(struct peer_header){.type = PEER_JOIN_REPLY}, NULL, 0), 0);
    know(0, PEER_CHANNEL_CONTROL, 2);
    assert_int_equal(peer_nodeid(nodes[0].last_up), 2);
    assert_int_equal(nodes[0].changes, 0); /* never inline */
    run_until(became_known, 1000);
    run_until(never, 500);
    assert_int_equal(nodes[0].ups, 1);
    assert_int_equal(nodes[0].downs, 0);
    assert_int_equal(nodes[1].frames, 1);
    know(0, PEER_CHANNEL_CONTROL, 1); /* removed */
    run_until(never, 300);
    assert_int_equal(nodes[0].downs, 1);
    assert_int_equal(nodes[1].last_reason, -ECONNREFUSED);
    assert_non_null(strstr(nodes[1].last_down, "no member of the cluster any more"));
}

static void stranger_is_refused_on_the_data_channel(void **state)
{
    (void)state;
    node_open(0);
    node_open(1);
    know(1, PEER_CHANNEL_DATA, 2); /* 0 does not know 1 */
    run_until(refused_both, 2000);
    assert_int_equal(nodes[0].last_error, -EACCES);
    assert_int_equal(nodes[1].last_error, -ECONNREFUSED);
    assert_non_null(strstr(nodes[1].last_words, "no member"));
    assert_int_equal(nodes[0].ups, 0);
}

static void node_of_another_cluster_stays_a_stranger(void **state)
{
    (void)state;
    struct peer_hello a, b;
    node_open(0);
    node_open(1);
    a = nodes[0].hello, b = nodes[1].hello;
    a.cluster.bytes[0] = 1, b.cluster.bytes[0] = 2;
    peer_mesh_set_hello(nodes[0].mesh[0], &a);
    peer_mesh_set_hello(nodes[1].mesh[0], &b);
    know(0, PEER_CHANNEL_CONTROL, 2);
    run_until(stranger_is_up, 2000);
    assert_int_equal(peer_nodeid(nodes[0].last_up), 0);
    peer_mesh_set_hello(nodes[1].mesh[0], &a); /* it dissolved and joined ours */
    run_until(became_known, 1000);
    assert_int_equal(peer_nodeid(nodes[0].last_up), 2);
}

static unsigned expected_frames;
static bool frames_arrived(void)
{
    return nodes[1].frames >= expected_frames;
}

static void frames_keep_their_order_and_small_ones_share_writes(void **state)
{
    (void)state;
    static uint8_t block[5000];
    struct peer_statistics statistics;
    two_up();
    for (uint64_t i = 0; i < 1000; i++) {
        struct iovec iov = {block, (size_t)(i * 37 % sizeof(block))};
        assert_int_equal(peer_mesh_send(nodes[0].mesh[1], 2,
                                        &(struct peer_header){.type = 0x40, .object = 1, .argument = i}, &iov, 1), 0);
    }
    expected_frames = 1000;
    run_until(frames_arrived, 5000);
    peer_statistics(peer_mesh_find(nodes[0].mesh[1], 2), &statistics);
    assert_int_equal(statistics.frames_sent, 1000);
    assert_true(statistics.writes < 50);
}

static void payload_of_a_mebibyte_is_whole_aligned_and_may_be_kept(void **state)
{
    (void)state;
    size_t size = 1u << 20;
    uint8_t *block = malloc(size);
    struct iovec iov[2] = {{block, 1000}, {block + 1000, size - 1000}};
    for (size_t i = 0; i < size; i++)
        block[i] = (uint8_t)(i * 2654435761u >> 11);
    two_up();
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(peer_mesh_send(nodes[0].mesh[1], 2, &(struct peer_header){.type = 0x40, .object = 2}, iov, 2), 0);
    expected_frames = 4;
    run_until(frames_arrived, 5000);
    assert_int_equal(nodes[1].kept->size, size);
    assert_int_equal((uintptr_t)nodes[1].kept->data % 4096, 0);
    assert_memory_equal(nodes[1].kept->data, block, size);
    node_close(0); /* kept beyond link and, in node_close(1), mesh */
    assert_memory_equal(nodes[1].kept->data, block, size);
    free(block);
}

static void full_queue_is_told_and_drains(void **state)
{
    (void)state;
    static uint8_t block[1u << 20];
    struct iovec iov = {block, sizeof(block)};
    int result;
    unsigned taken = 0;
    two_up();
    while ((result = peer_mesh_send(nodes[0].mesh[1], 2, &(struct peer_header){.type = 0x40, .object = 1, .argument = taken},
                                    &iov, 1)) == 0)
        taken++;
    struct peer_statistics statistics;
    assert_int_equal(result, -EAGAIN);
    assert_true(taken >= 7); /* and what the sockets took meanwhile */
    peer_statistics(peer_mesh_find(nodes[0].mesh[1], 2), &statistics);
    assert_true(statistics.queued_bytes <= QUEUE_BYTES && statistics.queued_bytes > QUEUE_BYTES - (2u << 20));
    expected_frames = taken;
    run_until(frames_arrived, 5000);
    assert_int_equal(peer_mesh_send(nodes[0].mesh[1], 2, &(struct peer_header){.type = 0x40}, NULL, 0), 0);
}

static bool node0_down(void)
{
    return nodes[0].downs >= 1;
}

static bool two_are_up_again(void)
{
    return two_are_up() && nodes[0].ups == 2;
}

static void restarted_peer_is_linked_again(void **state)
{
    (void)state;
    two_up();
    uint16_t port = peer_listener_port(nodes[1].listener);
    node_close(1);
    run_until(node0_down, 2000);
    assert_int_equal(nodes[0].last_reason, -ECONNRESET);
    assert_true(peer_mesh_last_heard_us(nodes[0].mesh[1], 2) > 0);
    run_until(never, 400);
    node_open_with(1, psk_good, port, 1000);
    know(1, PEER_CHANNEL_DATA, 2);
    uint64_t begun_us = peer_clock_us();
    run_until(two_are_up_again, 3000);
    assert_true(peer_clock_us() - begun_us < 1200000);
    assert_int_equal(peer_hello(peer_mesh_find(nodes[0].mesh[1], 2))->boot, nodes[1].hello.boot);
}

static void closing_tells_why_and_dials_again(void **state)
{
    (void)state;
    two_up();
    nodes[1].close_on_frame = true;
    assert_int_equal(peer_mesh_send(nodes[0].mesh[1], 2, &(struct peer_header){.type = 0x40}, NULL, 0), 0);
    run_until(node0_down, 2000);
    assert_int_equal(nodes[0].last_reason, -ECONNREFUSED);
    assert_non_null(strstr(nodes[0].last_down, "enough"));
    assert_int_equal(nodes[1].last_reason, -ECANCELED);
    run_until(two_are_up_again, 2000);
}

/* A proxy that stops forwarding: nothing is closed, nobody hears anything. */
static int raw_connect(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

struct relay {
    uv_tcp_t server;
    uv_poll_t poll[2];
    int fd[2];
    bool mute;
    unsigned handles;
};

static void relay_ready(uv_poll_t *poll, int status, int events)
{
    struct relay *relay = poll->data;
    char bytes[65536];
    int from = poll == &relay->poll[0] ? 0 : 1;
    (void)status, (void)events;
    ssize_t got = recv(relay->fd[from], bytes, sizeof(bytes), MSG_DONTWAIT);
    if (got > 0 && !relay->mute)
        (void)!send(relay->fd[1 - from], bytes, (size_t)got, MSG_NOSIGNAL);
    if (got == 0)
        uv_poll_stop(poll);
}

static void relay_begin(struct relay *relay, int inner, int outer)
{
    relay->fd[0] = inner, relay->fd[1] = outer;
    for (unsigned i = 0; i < 2; i++) {
        uv_poll_init(&loop, &relay->poll[i], relay->fd[i]);
        relay->poll[i].data = relay;
        uv_poll_start(&relay->poll[i], UV_READABLE, relay_ready);
    }
}

static int relay_listen_fd;
static struct relay relay;
static void relay_accept(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    int fd = accept4(relay_listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (relay.fd[0]) { /* one only */
        close(fd);
        return;
    }
    relay_begin(&relay, raw_connect(peer_listener_port(nodes[1].listener)), fd);
    (void)poll;
}

static void half_open_link_goes_down_after_silence(void **state)
{
    (void)state;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    uv_poll_t poll;
    memset(&relay, 0, sizeof(relay));
    relay_listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(relay_listen_fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(relay_listen_fd, 5), 0);
    assert_int_equal(getsockname(relay_listen_fd, (struct sockaddr *)&at, &size), 0);
    uv_poll_init(&loop, &poll, relay_listen_fd);
    uv_poll_start(&poll, UV_READABLE, relay_accept);
    node_open_with(0, psk_good, 0, 500);
    node_open_with(1, psk_good, 0, 500);
    struct peer_node other = entry_of(1), self = entry_of(0);
    (void)snprintf(other.address, sizeof(other.address), "127.0.0.1:%u", ntohs(at.sin_port));
    (void)snprintf(self.address, sizeof(self.address), "127.0.0.1:1");
    assert_int_equal(peer_mesh_set_peers(nodes[0].mesh[1], &other, 1), 0);
    assert_int_equal(peer_mesh_set_peers(nodes[1].mesh[1], &self, 1), 0);
    run_until(two_are_up, 2000);
    relay.mute = true;
    uint64_t begun_us = peer_clock_us();
    run_until(node0_down, 2000);
    uint64_t took_us = peer_clock_us() - begun_us;
    assert_int_equal(nodes[0].last_reason, -ETIMEDOUT);
    assert_true(took_us > 350000 && took_us < 900000);
    assert_null(peer_mesh_find(nodes[0].mesh[1], 2));
    uv_close((uv_handle_t *)&poll, NULL);
    uv_close((uv_handle_t *)&relay.poll[0], NULL);
    uv_close((uv_handle_t *)&relay.poll[1], NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    close(relay.fd[0]);
    close(relay.fd[1]);
    close(relay_listen_fd);
}

static void garbage_drops_only_its_own_connection(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {{"GET / HTTP/1.0\r\n\r\n", 18}, {"DP\x01\x07", 4}, {"DP\x02\x00", 4}, {"DP\x01\x00hello, this is no TLS at all", 32},
               {"DP\x01\x01\x16\x03\x01\xff\xff\x01", 10}};
    int fds[ARRAY_SIZE(bad)];
    two_up();
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        fds[i] = raw_connect(peer_listener_port(nodes[1].listener));
        assert_int_equal(send(fds[i], bad[i].bytes, bad[i].size, 0), (ssize_t)bad[i].size);
    }
    run_until(never, 700);
    for (size_t i = 0; i < 4; i++) { /* closed on us; the last is an unfinished record: it has until the time-out */
        char rest[256];
        ssize_t got;
        while ((got = recv(fds[i], rest, sizeof(rest), MSG_DONTWAIT)) > 0)
            ;
        assert_true(got == 0 || errno == ECONNRESET);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        close(fds[i]);
    assert_true(two_are_up());
    assert_int_equal(nodes[1].ups, 1);
    assert_int_equal(nodes[1].downs, 0);
}

static void connections_that_say_nothing_are_dropped_and_do_not_block_others(void **state)
{
    (void)state;
    int fds[PEER_LISTENER_PENDING_MAX + 10];
    node_open(0);
    node_open(1);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        fds[i] = raw_connect(peer_listener_port(nodes[1].listener));
    know(0, PEER_CHANNEL_DATA, 2);
    know(1, PEER_CHANNEL_DATA, 2);
    run_until(two_are_up, 2000);
    run_until(never, 2500);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        char byte;
        assert_int_equal(recv(fds[i], &byte, 1, MSG_DONTWAIT), 0);
        close(fds[i]);
    }
    assert_true(two_are_up());
}

static void heartbeats_keep_their_pace_and_carry_times(void **state)
{
    (void)state;
    two_up();
    run_until(never, 1000);
    printf("%u heartbeats acknowledged, %u answered in 1 s\n", nodes[0].acked, nodes[1].answered);
    assert_in_range(nodes[0].acked, 12, 24); /* 20, on a machine that is not overloaded */
    assert_in_range(nodes[1].answered, 12, 24);
    assert_true(peer_clock_us() - nodes[0].acked_us < 250000);
    assert_true(peer_clock_us() - peer_mesh_last_heard_us(nodes[0].mesh[1], 2) < 250000);
    assert_int_equal(peer_mesh_last_heard_us(nodes[0].mesh[1], 3), 0);
}

/* Allocations of our code are counted (linker option --wrap); OpenSSL's and libuv's are not. */
static unsigned allocations;
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_malloc(size_t size)
{
    allocations++;
    return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    allocations++;
    return __real_calloc(count, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    allocations++;
    return __real_aligned_alloc(alignment, size);
}

static bool echoed(void)
{
    return nodes[0].frames >= expected_frames;
}

static void nothing_is_allocated_per_frame_once_warm(void **state)
{
    (void)state;
    static uint8_t block[4096];
    struct iovec iov = {block, sizeof(block)};
    two_up();
    nodes[1].echo = true;
    for (unsigned round = 1; round <= 5; round++) {
        for (unsigned i = 0; i < 200; i++)
            assert_int_equal(peer_mesh_send(nodes[0].mesh[1], 2, &(struct peer_header){.type = 0x40}, &iov, 1), 0);
        expected_frames = 200 * round;
        run_until(echoed, 3000);
        if (round == 1)
            allocations = 0;
    }
    assert_true(allocations < 32); /* of 1600 frames: the depth of queues varies a little, then the pool grows */
    assert_int_equal(nodes[1].received_bytes, 1000 * sizeof(block));
    assert_int_equal(nodes[0].received_bytes, 1000 * sizeof(block));
}

static void bad_listen_address_is_refused_with_words(void **state)
{
    (void)state;
    struct error error;
    struct peer_listener *listener;
    node_open(0);
    assert_int_equal(peer_listener_new(&loop, "127.0.0.1", peer_listener_port(nodes[0].listener), nodes[0].mesh, &listener, &error),
                     -EADDRINUSE);
    assert_non_null(strstr(error.message, "127.0.0.1"));
    assert_int_equal(peer_listener_new(&loop, "nowhere", 7600, nodes[0].mesh, &listener, &error), -EINVAL);
}

/* ---- a mesh on another loop ---- */

struct remote_loop {
    uv_thread_t thread;
    uv_sem_t ready;
    uv_loop_t loop;
    uv_async_t end;
    struct peer_mesh *mesh;
    struct node node;
    struct peer_node peer;
};

static void remote_end(uv_async_t *async)
{
    struct remote_loop *remote = async->data;
    uv_close((uv_handle_t *)async, NULL);
    peer_mesh_close(remote->mesh, NULL, NULL);
}

static void remote_main(void *argument)
{
    struct remote_loop *remote = argument;
    struct peer_mesh_config config = {.loop = &remote->loop, .channel = PEER_CHANNEL_DATA, .psk = psk_good,
                                      .hello = {.node = {{9}}, .boot = 1}, .callbacks = &callbacks, .context = &remote->node};
    uv_loop_init(&remote->loop);
    uv_async_init(&remote->loop, &remote->end, remote_end);
    remote->end.data = remote;
    remote->node.echo = true;
    assert_int_equal(peer_mesh_new(&config, &remote->mesh, NULL), 0);
    assert_int_equal(peer_mesh_set_peers(remote->mesh, &remote->peer, 1), 0);
    uv_sem_post(&remote->ready);
    uv_run(&remote->loop, UV_RUN_DEFAULT);
    uv_loop_close(&remote->loop);
}

static bool remote_is_up(void)
{
    return peer_mesh_find(nodes[0].mesh[1], 9) != NULL;
}

static bool first_frame(void)
{
    return nodes[0].frames == 1;
}

static void listener_hands_connections_to_the_loop_of_their_channel(void **state)
{
    (void)state;
    static struct remote_loop remote;
    struct peer_listener *listener;
    node_open(0);
    remote.peer = entry_of(0);
    (void)snprintf(remote.peer.address, sizeof(remote.peer.address), "127.0.0.1:1"); /* only we dial */
    uv_sem_init(&remote.ready, 0);
    uv_thread_create(&remote.thread, remote_main, &remote);
    uv_sem_wait(&remote.ready);
    struct peer_mesh *meshes[PEER_CHANNEL_COUNT] = {NULL, remote.mesh};
    assert_int_equal(peer_listener_new(&loop, NULL, 0, meshes, &listener, NULL), 0);
    struct peer_node entry = {.uuid = {{9}}, .nodeid = 9};
    (void)snprintf(entry.address, sizeof(entry.address), "[::1]:%u", peer_listener_port(listener));
    assert_int_equal(peer_mesh_set_peers(nodes[0].mesh[1], &entry, 1), 0);
    run_until(remote_is_up, 2000);
    assert_int_equal(peer_mesh_send(nodes[0].mesh[1], 9, &(struct peer_header){.type = 0x40}, NULL, 0), 0);
    run_until(first_frame, 2000);
    closings++;
    peer_listener_close(listener, closed, NULL);
    run_until(listener_gone, 1000);
    uv_async_send(&remote.end);
    uv_thread_join(&remote.thread);
    uv_sem_destroy(&remote.ready);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(two_nodes_that_know_each_other_link_once),
        TEST(both_dial_at_once_and_one_link_stays),
        TEST(three_nodes_mesh_on_both_channels),
        TEST(other_key_is_refused_with_words_on_both_sides),
        TEST(own_address_as_seed_does_no_harm),
        TEST(newcomer_is_up_as_a_stranger_then_becomes_known),
        TEST(stranger_is_refused_on_the_data_channel),
        TEST(node_of_another_cluster_stays_a_stranger),
        TEST(frames_keep_their_order_and_small_ones_share_writes),
        TEST(payload_of_a_mebibyte_is_whole_aligned_and_may_be_kept),
        TEST(full_queue_is_told_and_drains),
        TEST(restarted_peer_is_linked_again),
        TEST(closing_tells_why_and_dials_again),
        TEST(half_open_link_goes_down_after_silence),
        TEST(garbage_drops_only_its_own_connection),
        TEST(connections_that_say_nothing_are_dropped_and_do_not_block_others),
        TEST(heartbeats_keep_their_pace_and_carry_times),
        TEST(nothing_is_allocated_per_frame_once_warm),
        TEST(bad_listen_address_is_refused_with_words),
        TEST(listener_hands_connections_to_the_loop_of_their_channel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
