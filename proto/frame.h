/* Framing of the client API: u32 little-endian length, then that many bytes. Bytes in, frames out; no sockets. */
#ifndef DIRECTOR_PROTO_FRAME_H
#define DIRECTOR_PROTO_FRAME_H

#include "director/base/common.h"

#define FRAME_HEADER_BYTES 4u
#define FRAME_MAX_BYTES    (16u << 20) /* payload; both sides of the client API */

/* Memory held is what arrived, never what a header merely announces: at most max_bytes and one push. */
struct frame_reader {
    uint8_t *bytes;
    size_t start, used, capacity; /* bytes[start..used) has arrived and is not yet taken */
    size_t max_bytes;             /* of a payload */
};

/* No allocation. */
void frame_reader_init(struct frame_reader *reader, size_t max_bytes);
void frame_reader_done(struct frame_reader *reader);
/* Append what arrived. Frames handed out before become invalid. 0 or -ENOMEM. */
MUST_CHECK int frame_reader_push(struct frame_reader *reader, const void *data, size_t size);
/* 1: the next payload, valid until the next push; 0: not yet complete; -EMSGSIZE: longer than max_bytes; -EPROTO: empty.
 * After an error the stream cannot be read on. *ret_announced_bytes (may be NULL) is the length told, set for -EMSGSIZE. */
MUST_CHECK int frame_reader_next(struct frame_reader *reader, const uint8_t **ret_payload, size_t *ret_size,
                                 size_t *ret_announced_bytes);

/* How many bytes are missing until frame_reader_next() has something to say; 0: nothing. A reader that never pushes more
 * keeps no byte of a later frame, so that polling its socket tells all. */
size_t frame_reader_need(const struct frame_reader *reader);

#endif
