/* TLS 1.3 over memory with an external PSK (RFC 8446 §4.2.11, §2.2; RFC 9257): ciphertext in, plaintext out and the reverse.
 * Only psk_dhe_ke and TLS_AES_128_GCM_SHA256; no certificates, no tickets, no early data. No sockets; one thread. */
#ifndef DIRECTOR_AGENT_IO_PEER_TLS_H
#define DIRECTOR_AGENT_IO_PEER_TLS_H

#include "agent/io/peer_buffer.h"
#include "director/base/error.h"
#include <sys/uio.h>

#define PEER_TLS_PSK_BYTES    32u
#define PEER_TLS_RECORD_BYTES 16384u /* RFC 8446 §5.1 */

enum peer_tls_role { PEER_TLS_CLIENT, PEER_TLS_SERVER };

/* Settings and key that many connections share. */
struct peer_tls_context;
struct peer_tls;

MUST_CHECK int peer_tls_context_new(const uint8_t psk[static PEER_TLS_PSK_BYTES], struct peer_tls_context **ret_context,
                                    struct error *error);
/* After the last connection. NULL is fine. */
void peer_tls_context_free(struct peer_tls_context *context);

/* Output is kept in buffers of pool until peer_tls_output_consumed(). key_update_records: after so many records our sending
 * key is renewed (RFC 8446 §5.5 allows 2^24.5 full ones for AES-GCM); 0: the default. */
MUST_CHECK int peer_tls_new(struct peer_tls_context *context, struct peer_pool *pool, enum peer_tls_role role,
                            uint32_t key_update_records, struct peer_tls **ret_tls);
void peer_tls_free(struct peer_tls *tls);

/* Ciphertext from the peer, read in place: it must stay until peer_tls_read() or _handshake() has returned 0. */
void peer_tls_input(struct peer_tls *tls, const uint8_t *bytes, size_t size);
/* 1: complete (and authentic). 0: needs input, all of which was consumed; there may be output. -EACCES (the keys differ),
 * -EPROTO with words. */
MUST_CHECK int peer_tls_handshake(struct peer_tls *tls, struct error *error);
/* Plaintext: bytes read (> 0), 0 when all input is consumed, -ECONNRESET (the peer closed in order), -EPROTO with words. */
MUST_CHECK int peer_tls_read(struct peer_tls *tls, uint8_t *to, size_t size, struct error *error);
/* Stage plaintext; full records are encrypted at once. After the handshake only. -ENOMEM or -EPROTO: the connection is lost. */
MUST_CHECK int peer_tls_write(struct peer_tls *tls, const void *from, size_t size);
/* Encrypt what is staged. */
MUST_CHECK int peer_tls_flush(struct peer_tls *tls);
/* Ciphertext to send: fills up to count vectors and returns how many. */
unsigned peer_tls_output(struct peer_tls *tls, struct iovec *iov, unsigned count);
/* The first size bytes of it were sent. */
void peer_tls_output_consumed(struct peer_tls *tls, size_t size);
/* Ciphertext and staged plaintext waiting, in bytes. */
size_t peer_tls_queued(const struct peer_tls *tls);

#endif
