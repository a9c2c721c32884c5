#include "proto/frame.h"

#include "director/base/bytes.h"
#include <errno.h>

void frame_reader_init(struct frame_reader *reader, size_t max_bytes)
{
    *reader = (struct frame_reader){.max_bytes = max_bytes};
}

void frame_reader_done(struct frame_reader *reader)
{
    free(reader->bytes);
    *reader = (struct frame_reader){.max_bytes = reader->max_bytes};
}

int frame_reader_push(struct frame_reader *reader, const void *data, size_t size)
{
    if (reader->start) {
        memmove(reader->bytes, reader->bytes + reader->start, reader->used - reader->start);
        reader->used -= reader->start;
        reader->start = 0;
    }
    if (size > reader->capacity - reader->used) {
        size_t capacity = reader->capacity ? reader->capacity : 4096;
        while (capacity - reader->used < size)
            capacity *= 2;
        uint8_t *bytes = realloc(reader->bytes, capacity);
        if (!bytes)
            return -ENOMEM;
        reader->bytes = bytes;
        reader->capacity = capacity;
    }
    if (size)
        memcpy(reader->bytes + reader->used, data, size);
    reader->used += size;
    return 0;
}

int frame_reader_next(struct frame_reader *reader, const uint8_t **ret_payload, size_t *ret_size,
                      size_t *ret_announced_bytes)
{
    size_t have = reader->used - reader->start;
    if (have < FRAME_HEADER_BYTES)
        return 0;
    size_t length = get_le32(reader->bytes + reader->start);
    if (length == 0)
        return -EPROTO;
    if (length > reader->max_bytes) {
        if (ret_announced_bytes)
            *ret_announced_bytes = length;
        return -EMSGSIZE;
    }
    if (have - FRAME_HEADER_BYTES < length)
        return 0;
    *ret_payload = reader->bytes + reader->start + FRAME_HEADER_BYTES;
    *ret_size = length;
    reader->start += FRAME_HEADER_BYTES + length;
    return 1;
}

size_t frame_reader_need(const struct frame_reader *reader)
{
    size_t have = reader->used - reader->start;
    if (have < FRAME_HEADER_BYTES)
        return FRAME_HEADER_BYTES - have;
    size_t length = get_le32(reader->bytes + reader->start);
    if (length == 0 || length > reader->max_bytes || have - FRAME_HEADER_BYTES >= length)
        return 0;
    return FRAME_HEADER_BYTES + length - have;
}
