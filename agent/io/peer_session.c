#include "agent/io/peer_session.h"

#include "agent/io/peer_frame.h"
#include <errno.h>
#include <string.h>

enum session_state { SESSION_HANDSHAKE, SESSION_HELLO, SESSION_INTRODUCED, SESSION_UP, SESSION_FAILED };

struct peer_session {
    enum session_state state;
    bool server;
    struct peer_tls *tls;
    struct peer_frame_reader reader;
    struct peer_hello ours, theirs;
    uint32_t version;
    uint64_t heartbeat_us, silence_us;
    uint64_t deadline_us; /* to be UP */
    uint64_t last_heard_us, next_heartbeat_us;
    size_t queue_bytes;
    bool renewed;      /* our hello changed after a client sent it */
    bool answer_waits; /* P5 */
    uint64_t answer;
};

int peer_session_new(const struct peer_session_config *config, uint64_t now_us, struct peer_session **ret_session)
{
    struct peer_session *session = calloc(1, sizeof(*session));
    if (!session)
        return -ENOMEM;
    int result = peer_tls_new(config->tls, config->pool, config->role, config->key_update_records, &session->tls);
    if (result < 0) {
        free(session);
        return result;
    }
    /* P2: until UP nothing longer than a hello has a place */
    peer_frame_reader_init(&session->reader, config->pool, PEER_HELLO_MAX_BYTES);
    session->server = config->role == PEER_TLS_SERVER;
    session->ours = *config->hello;
    session->heartbeat_us = config->heartbeat_us;
    session->silence_us = config->silence_us;
    session->deadline_us = now_us + config->handshake_us;
    session->queue_bytes = config->queue_bytes;
    *ret_session = session;
    return 0;
}

void peer_session_free(struct peer_session *session)
{
    if (!session)
        return;
    peer_frame_reader_done(&session->reader);
    peer_tls_free(session->tls);
    free(session);
}

/* ---- sending ---- */

static int bytes_write(struct peer_session *session, const void *from, size_t size)
{
    int result = peer_tls_write(session->tls, from, size);
    if (result < 0)
        session->state = SESSION_FAILED; /* half a frame may be out */
    return result;
}

static int header_write(struct peer_session *session, const struct peer_header *header, size_t payload_bytes)
{
    uint8_t raw[PEER_HEADER_BYTES];
    struct peer_header copy = *header;
    copy.payload_bytes = (uint32_t)payload_bytes;
    peer_header_encode(&copy, raw);
    return bytes_write(session, raw, sizeof(raw));
}

static int small_frame_write(struct peer_session *session, uint16_t type, uint64_t argument, const void *payload, size_t size)
{
    struct peer_header header = {.type = type, .argument = argument};
    int result = header_write(session, &header, size);
    return result == 0 && size ? bytes_write(session, payload, size) : result;
}

int peer_session_send_begin(struct peer_session *session, const struct peer_header *header, const struct iovec *iov,
                            unsigned iov_count)
{
    size_t size = 0;
    if (session->state != SESSION_UP)
        return -ENOTCONN;
    for (unsigned i = 0; i < iov_count; i++) {
        if (iov[i].iov_len > PEER_PAYLOAD_MAX_BYTES - size)
            return -EMSGSIZE;
        size += iov[i].iov_len;
    }
    if (peer_tls_queued(session->tls) + PEER_HEADER_BYTES + size > session->queue_bytes)
        return -EAGAIN;
    return header_write(session, header, size);
}

int peer_session_send_part(struct peer_session *session, const void *from, size_t size)
{
    return session->state == SESSION_UP ? bytes_write(session, from, size) : -ENOTCONN;
}

int peer_session_send(struct peer_session *session, const struct peer_header *header, const struct iovec *iov,
                      unsigned iov_count)
{
    int result = peer_session_send_begin(session, header, iov, iov_count);
    for (unsigned i = 0; i < iov_count && result == 0; i++)
        result = peer_session_send_part(session, iov[i].iov_base, iov[i].iov_len);
    return result;
}

static int hello_write(struct peer_session *session)
{
    uint8_t bytes[PEER_HELLO_MAX_BYTES];
    size_t size = peer_hello_encode(&session->ours, bytes);
    return small_frame_write(session, PEER_HELLO, 0, bytes, size);
}

int peer_session_set_hello(struct peer_session *session, const struct peer_hello *hello)
{
    session->ours = *hello;
    session->renewed = session->state == SESSION_HELLO;
    if (session->state == SESSION_UP)
        return hello_write(session);
    return 0; /* a HELLO that is out already is renewed once UP */
}

int peer_session_admit(struct peer_session *session, uint64_t now_us)
{
    ASSERT(session->state == SESSION_INTRODUCED);
    session->state = SESSION_UP;
    session->reader.payload_max_bytes = PEER_PAYLOAD_MAX_BYTES;
    session->next_heartbeat_us = now_us; /* at once, so that leases begin early */
    if (session->server || session->renewed)
        return hello_write(session);
    return 0;
}

void peer_session_refuse(struct peer_session *session, int code, const char *words)
{
    if (session->state == SESSION_HELLO || session->state == SESSION_INTRODUCED || session->state == SESSION_UP)
        (void)small_frame_write(session, PEER_ERROR, (uint64_t)-code, words, MIN(strlen(words), (size_t)PEER_ERROR_MAX_BYTES));
    session->state = SESSION_FAILED;
}

unsigned peer_session_output(struct peer_session *session, struct iovec *iov, unsigned count)
{
    if (peer_tls_flush(session->tls) < 0)
        session->state = SESSION_FAILED;
    return peer_tls_output(session->tls, iov, count);
}

void peer_session_output_consumed(struct peer_session *session, size_t size)
{
    peer_tls_output_consumed(session->tls, size);
}

size_t peer_session_queued(const struct peer_session *session)
{
    return peer_tls_queued(session->tls);
}

/* ---- receiving ---- */

void peer_session_input(struct peer_session *session, const uint8_t *bytes, size_t size)
{
    if (session->state != SESSION_FAILED)
        peer_tls_input(session->tls, bytes, size);
}

static int hello_check(const struct peer_hello *ours, const struct peer_hello *theirs, struct error *error)
{
    static const char *const channels[] = {"control", "data"};
    if (uuid_equal(&ours->node, &theirs->node)) { /* P3 */
        if (ours->boot == theirs->boot)
            return error_set(error, -ELOOP, "it is this node itself");
        return error_set(error, -EEXIST, "it has our own node uuid: one of the two state directories is a copy; empty it there");
    }
    if (theirs->channel != ours->channel) /* P4 */
        return error_set(error, -EPROTO, "it speaks on channel %u where this is the %s channel", theirs->channel,
                         ours->channel < ARRAY_SIZE(channels) ? channels[ours->channel] : "?");
    if (MIN(ours->version_max, theirs->version_max) < MAX(ours->version_min, theirs->version_min))
        return error_set(error, -EPROTONOSUPPORT, "it speaks versions %u to %u of the peer link, we %u to %u: upgrade the older",
                         theirs->version_min, theirs->version_max, ours->version_min, ours->version_max);
    if (ours->channel == PEER_CHANNEL_DATA && !uuid_is_zero(&ours->cluster) && !uuid_is_zero(&theirs->cluster) &&
        !uuid_equal(&ours->cluster, &theirs->cluster))
        return error_set(error, -EXDEV, "it belongs to another cluster");
    return 0;
}

static int hello_received(struct peer_session *session, const struct peer_buffer *payload,
                          struct peer_session_event *event, struct error *error)
{
    struct peer_hello hello;
    int result = peer_hello_decode(payload ? payload->data : (const uint8_t *)"", payload ? payload->size : 0, &hello, error);
    if (result == 0)
        result = hello_check(&session->ours, &hello, error);
    if (result < 0)
        return result;
    if (session->state == SESSION_UP) {
        if (!uuid_equal(&hello.node, &session->theirs.node) || hello.boot != session->theirs.boot)
            return error_set(error, -EPROTO, "it became another node on one link");
        event->kind = PEER_SESSION_HELLO;
    } else {
        session->state = SESSION_INTRODUCED;
        event->kind = PEER_SESSION_INTRODUCED;
    }
    session->theirs = hello;
    session->version = MIN(session->ours.version_max, hello.version_max);
    return 1;
}

static int error_received(struct peer_session *session, const struct peer_header *header, const struct peer_buffer *payload,
                          struct error *error)
{
    session->state = SESSION_FAILED; /* nobody listens any more */
    char words[PEER_ERROR_MAX_BYTES + 1];
    uint32_t size = payload ? MIN(payload->size, PEER_ERROR_MAX_BYTES) : 0;
    for (uint32_t i = 0; i < size; i++)
        words[i] = payload->data[i] >= ' ' && payload->data[i] <= '~' ? (char)payload->data[i] : '?';
    words[size] = '\0';
    if (header->argument == ELOOP || header->argument == EALREADY)
        return error_set(error, -(int)header->argument, "%s", words);
    return error_set(error, -ECONNREFUSED, "it closed the link and says of us: %.220s", words);
}

/* One complete frame. 1: event set (a FRAME takes the payload). 0: nothing for the user. */
static int frame_received(struct peer_session *session, const struct peer_header *header, struct peer_buffer *payload,
                          uint64_t now_us, struct peer_session_event *event, struct error *error)
{
    if (header->type == PEER_HELLO)
        return hello_received(session, payload, event, error);
    if (header->type == PEER_ERROR)
        return error_received(session, header, payload, error);
    if (session->state != SESSION_UP) /* P2 */
        return error_set(error, -EPROTO, "it sent a frame of type 0x%02x before its hello", header->type);
    switch (header->type) {
    case PEER_HEARTBEAT:
        session->answer_waits = true;
        session->answer = header->argument;
        event->kind = PEER_SESSION_HEARTBEAT;
        event->time_us = now_us;
        return 1;
    case PEER_HEARTBEAT_ACK:
        /* A time that we have not reached was never sent: it would prolong a lease into the future (I7). */
        if (header->argument > now_us)
            return error_set(error, -EPROTO, "it answered a heartbeat that was never sent");
        event->kind = PEER_SESSION_HEARTBEAT_ACKED;
        event->time_us = header->argument;
        return 1;
    default:
        if (header->type < PEER_JOIN)
            return 0; /* a link frame of a later version */
        event->kind = PEER_SESSION_FRAME;
        event->header = *header;
        event->payload = payload;
        return 1;
    }
}

static int session_read(struct peer_session *session, uint64_t now_us, struct peer_session_event *event, struct error *error)
{
    for (;;) {
        uint8_t *to;
        size_t size;
        peer_frame_reader_want(&session->reader, &to, &size);
        int result = peer_tls_read(session->tls, to, size, error);
        if (result <= 0)
            return result;
        session->last_heard_us = now_us;
        struct peer_header header;
        struct peer_buffer *payload = NULL;
        result = peer_frame_reader_filled(&session->reader, (size_t)result, &header, &payload, error);
        if (result == 0)
            continue;
        if (result == 1) {
            event->payload = NULL;
            result = frame_received(session, &header, payload, now_us, event, error);
            if (result != 1 || event->payload == NULL)
                peer_buffer_unref(payload);
        }
        if (result != 0)
            return result;
    }
}

/* The link is lost: say why to the peer, unless it was the peer that ended it. */
static int session_fail(struct peer_session *session, int result, const struct error *error)
{
    if (result == -ECONNRESET)
        session->state = SESSION_FAILED;
    peer_session_refuse(session, result, error->message); /* silent when FAILED */
    return result;
}

int peer_session_next(struct peer_session *session, uint64_t now_us, struct peer_session_event *ret_event,
                      struct error *error)
{
    struct error local;
    struct error *words = error ? error : &local;
    struct peer_session_event event = {0};
    int result;
    error_clear(words);
    if (session->state == SESSION_FAILED)
        return error_set(words, -ENOTCONN, "the link was lost before");
    if (session->state == SESSION_HANDSHAKE) {
        result = peer_tls_handshake(session->tls, words);
        if (result <= 0)
            return result < 0 ? session_fail(session, result, words) : 0;
        session->state = SESSION_HELLO;
        result = session->server ? 0 : hello_write(session);
        if (result < 0)
            return error_set(words, result, "our hello cannot be sent: %s", strerror(-result));
    }
    ASSERT(session->state != SESSION_INTRODUCED);
    if (session->answer_waits) { /* P5: the user has had its turn */
        session->answer_waits = false;
        result = small_frame_write(session, PEER_HEARTBEAT_ACK, session->answer, NULL, 0);
        if (result < 0)
            return error_set(words, result, "an answer cannot be sent: %s", strerror(-result));
    }
    result = session_read(session, now_us, &event, words);
    if (result < 0)
        return session_fail(session, result, words);
    if (result == 1)
        *ret_event = event;
    return result;
}

int peer_session_tick(struct peer_session *session, uint64_t now_us, struct error *error)
{
    switch (session->state) {
    case SESSION_HANDSHAKE:
    case SESSION_HELLO:
    case SESSION_INTRODUCED:
        if (now_us >= session->deadline_us) {
            session->state = SESSION_FAILED;
            return error_set(error, -ETIMEDOUT, "it did not introduce itself in time");
        }
        return 0;
    case SESSION_UP:
        if (now_us >= session->last_heard_us + session->silence_us) {
            session->state = SESSION_FAILED;
            return error_set(error, -ETIMEDOUT, "it has been silent for %llu ms",
                             (unsigned long long)((now_us - session->last_heard_us) / 1000));
        }
        if (now_us + session->heartbeat_us / 4 >= session->next_heartbeat_us) {
            /* Keep the pace although ticks come a little early or late; after a pause do not catch up. */
            session->next_heartbeat_us += session->heartbeat_us;
            if (session->next_heartbeat_us < now_us)
                session->next_heartbeat_us = now_us + session->heartbeat_us;
            int result = small_frame_write(session, PEER_HEARTBEAT, now_us, NULL, 0);
            if (result < 0)
                return error_set(error, result, "a heartbeat cannot be sent: %s", strerror(-result));
        }
        return 0;
    case SESSION_FAILED:
        return error_set(error, -ENOTCONN, "the link was lost before");
    }
    return 0;
}

bool peer_session_is_up(const struct peer_session *session)
{
    return session->state == SESSION_UP;
}

const struct peer_hello *peer_session_hello(const struct peer_session *session)
{
    return &session->theirs;
}

uint32_t peer_session_version(const struct peer_session *session)
{
    return session->version;
}

uint64_t peer_session_last_heard_us(const struct peer_session *session)
{
    return session->last_heard_us;
}
