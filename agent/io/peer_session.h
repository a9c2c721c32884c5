/* One peer link as a session without sockets: ciphertext in, events out; frames in, ciphertext out. Time is an argument
 * (CLOCK_MONOTONIC microseconds). One thread.
 *
 *   HANDSHAKE --TLS done; a client queues its HELLO--> HELLO --good HELLO of the peer--> INTRODUCED
 *   INTRODUCED --peer_session_admit; a server queues its HELLO--> UP
 *   So the server decides first, and a client that it refuses never was UP.
 *   any state --peer_session_next/_tick/_send fails--> FAILED (only output is of use then: it may tell the peer why)
 *
 * Invariants: P1 nothing of the peer is believed before TLS has proved the key; P2 no frame but HELLO and ERROR is handled
 * before UP; P3 a peer with our own uuid is never UP (Selfie attack, RFC 9257 §4.1); P4 both sides agree on the channel and
 * on a version; P5 a heartbeat is answered after the event that announces it was handed out, so that what the user sends on
 * that event precedes the answer. */
#ifndef DIRECTOR_AGENT_IO_PEER_SESSION_H
#define DIRECTOR_AGENT_IO_PEER_SESSION_H

#include "agent/io/peer_buffer.h"
#include "agent/io/peer_hello.h"
#include "agent/io/peer_tls.h"
#include "proto/peer.h"

#define PEER_ERROR_MAX_BYTES 256u

struct peer_session;

struct peer_session_config {
    struct peer_tls_context *tls;
    struct peer_pool *pool;
    enum peer_tls_role role;
    const struct peer_hello *hello; /* ours, with channel and versions; copied */
    uint64_t heartbeat_us, silence_us, handshake_us;
    size_t queue_bytes;
    uint32_t key_update_records; /* 0: default */
};

enum peer_session_event_kind {
    PEER_SESSION_INTRODUCED,      /* the peer said who it is, peer_session_hello(): admit or refuse it now */
    PEER_SESSION_HELLO,           /* it did so anew */
    PEER_SESSION_FRAME,           /* header, payload */
    PEER_SESSION_HEARTBEAT,       /* its heartbeat will now be answered; time_us = now */
    PEER_SESSION_HEARTBEAT_ACKED, /* it answered the heartbeat we sent at time_us */
};

struct peer_session_event {
    enum peer_session_event_kind kind;
    struct peer_header header;   /* FRAME */
    struct peer_buffer *payload; /* FRAME: NULL when empty; one reference, the caller's */
    uint64_t time_us;
};

MUST_CHECK int peer_session_new(const struct peer_session_config *config, uint64_t now_us, struct peer_session **ret_session);
/* NULL is fine. */
void peer_session_free(struct peer_session *session);

/* Ciphertext from the peer, read in place: then call peer_session_next() until it returns 0. */
void peer_session_input(struct peer_session *session, const uint8_t *bytes, size_t size);
/* 1: an event. 0: all input is consumed. Negative with words ("it ..."): the link is lost; the output may hold an ERROR
 * frame or a TLS alert for the peer. -ECONNREFUSED: the peer refused us with words; -ELOOP, -EALREADY: it says that we are
 * the same node, or that there is a link already. A client calls it once without input to begin. */
MUST_CHECK int peer_session_next(struct peer_session *session, uint64_t now_us, struct peer_session_event *ret_event,
                                 struct error *error);
/* Heartbeats and deadlines; call at least every half heartbeat. Negative with words: the link is lost. */
MUST_CHECK int peer_session_tick(struct peer_session *session, uint64_t now_us, struct error *error);

/* One frame; header->payload_bytes is set from iov. Only when UP. All is copied. -EAGAIN (queue full), -EMSGSIZE, -ENOTCONN,
 * or, the link being lost: -ENOMEM, -EPROTO. */
MUST_CHECK int peer_session_send(struct peer_session *session, const struct peer_header *header, const struct iovec *iov,
                                 unsigned iov_count);
/* The same in parts, so that the output of a long frame can be written before its end is encrypted: begin checks and sends the
 * header, then each iov follows, in parts as the caller likes. Nothing else may be sent before the frame is whole. */
MUST_CHECK int peer_session_send_begin(struct peer_session *session, const struct peer_header *header, const struct iovec *iov,
                                       unsigned iov_count);
MUST_CHECK int peer_session_send_part(struct peer_session *session, const void *from, size_t size);
/* Introduce ourselves anew (when UP), or so (before). A failure is that of the link and shows at the next call, too. */
int peer_session_set_hello(struct peer_session *session, const struct peer_hello *hello);
/* The answer to INTRODUCED, before anything else: the session is UP. A failure is that of the link and shows again later. */
int peer_session_admit(struct peer_session *session, uint64_t now_us);
/* Tell the peer why we close (code: a negative errno) and take nothing more from it. */
void peer_session_refuse(struct peer_session *session, int code, const char *words);

/* Ciphertext to write now (what was staged is encrypted first), and how much of it was written. */
unsigned peer_session_output(struct peer_session *session, struct iovec *iov, unsigned count);
void peer_session_output_consumed(struct peer_session *session, size_t size);
size_t peer_session_queued(const struct peer_session *session);

bool peer_session_is_up(const struct peer_session *session);
/* Valid once INTRODUCED was handed out. */
const struct peer_hello *peer_session_hello(const struct peer_session *session);
uint32_t peer_session_version(const struct peer_session *session);
/* When something authentic came last; 0 = never. */
uint64_t peer_session_last_heard_us(const struct peer_session *session);

#endif
