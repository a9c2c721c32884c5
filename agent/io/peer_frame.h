/* Cuts a stream of plaintext bytes into frames (proto/peer.h), without copying: the reader says where the next bytes
 * belong, the caller puts them there. Payloads come in buffers of a pool. Pure. */
#ifndef DIRECTOR_AGENT_IO_PEER_FRAME_H
#define DIRECTOR_AGENT_IO_PEER_FRAME_H

#include "agent/io/peer_buffer.h"
#include "director/base/error.h"
#include "proto/peer.h"

struct peer_frame_reader {
    struct peer_pool *pool;
    struct peer_header header;
    struct peer_buffer *payload; /* being filled; NULL while the header is */
    uint32_t filled;             /* of the header or of the payload */
    uint32_t payload_max_bytes;
    uint8_t raw[PEER_HEADER_BYTES];
};

/* Frames with more than payload_max_bytes of payload are refused; it may be changed between frames. */
void peer_frame_reader_init(struct peer_frame_reader *reader, struct peer_pool *pool, uint32_t payload_max_bytes);
void peer_frame_reader_done(struct peer_frame_reader *reader);

/* Where the next bytes go and how many may (at least 1). */
void peer_frame_reader_want(struct peer_frame_reader *reader, uint8_t **ret_to, size_t *ret_size);
/* size bytes were put there. 1: a frame is complete; header and payload (one reference, the caller's; NULL when empty) are
 * set. 0: more is needed. -EPROTO, -EMSGSIZE, -EBADMSG (CRC) or -ENOMEM with words: the stream is lost. */
MUST_CHECK int peer_frame_reader_filled(struct peer_frame_reader *reader, size_t size, struct peer_header *ret_header,
                                        struct peer_buffer **ret_payload, struct error *error);

#endif
