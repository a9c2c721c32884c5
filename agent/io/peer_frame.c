#include "agent/io/peer_frame.h"

#include "director/base/crc32c.h"
#include <errno.h>

void peer_frame_reader_init(struct peer_frame_reader *reader, struct peer_pool *pool, uint32_t payload_max_bytes)
{
    *reader = (struct peer_frame_reader){.pool = pool, .payload_max_bytes = payload_max_bytes};
}

void peer_frame_reader_done(struct peer_frame_reader *reader)
{
    peer_buffer_unref(reader->payload);
    reader->payload = NULL;
}

void peer_frame_reader_want(struct peer_frame_reader *reader, uint8_t **ret_to, size_t *ret_size)
{
    if (reader->payload) {
        *ret_to = reader->payload->data + reader->filled;
        *ret_size = reader->header.payload_bytes - reader->filled;
    } else {
        *ret_to = reader->raw + reader->filled;
        *ret_size = sizeof(reader->raw) - reader->filled;
    }
}

static int header_complete(struct peer_frame_reader *reader, struct error *error)
{
    int result = peer_header_decode(reader->raw, &reader->header);
    if (result == -EPROTO)
        return error_set(error, result, "it sent bytes that are no frame");
    if (result == 0 && reader->header.payload_bytes > reader->payload_max_bytes)
        result = -EMSGSIZE;
    if (result < 0)
        return error_set(error, result, "it sent a frame that is longer than allowed");
    reader->filled = 0;
    if (reader->header.payload_bytes == 0)
        return 1;
    reader->payload = peer_buffer_new_payload(reader->pool, reader->header.payload_bytes);
    if (!reader->payload)
        return error_set(error, -ENOMEM, "there is no memory for a frame of %u bytes", reader->header.payload_bytes);
    return 0;
}

int peer_frame_reader_filled(struct peer_frame_reader *reader, size_t size, struct peer_header *ret_header,
                             struct peer_buffer **ret_payload, struct error *error)
{
    reader->filled += (uint32_t)size;
    if (!reader->payload) {
        ASSERT(reader->filled <= sizeof(reader->raw));
        if (reader->filled < sizeof(reader->raw))
            return 0;
        int result = header_complete(reader, error);
        if (result == 1) {
            *ret_header = reader->header;
            *ret_payload = NULL;
        }
        return result;
    }
    ASSERT(reader->filled <= reader->header.payload_bytes);
    if (reader->filled < reader->header.payload_bytes)
        return 0;
    struct peer_buffer *payload = reader->payload;
    payload->size = reader->header.payload_bytes;
    if (reader->header.payload_crc && crc32c(0, payload->data, payload->size) != reader->header.payload_crc)
        return error_set(error, -EBADMSG, "the checksum of a frame of type 0x%02x does not hold", reader->header.type);
    *ret_header = reader->header;
    *ret_payload = payload;
    reader->payload = NULL;
    reader->filled = 0;
    return 1;
}
