/* The frame reader of the peer link and the hello: byte 0 says how the rest is cut. */
#include "agent/io/peer_frame.h"
#include "agent/io/peer_hello.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct peer_frame_reader reader;
    struct peer_pool *pool = peer_pool_new();
    size_t cut = size ? data[0] + 1u : 1;
    struct peer_hello hello;
    if (!pool)
        return 0;
    if (size)
        data++, size--;
    (void)!peer_hello_decode(data, size, &hello, NULL);
    peer_frame_reader_init(&reader, pool, 1u << 16);
    while (size) {
        uint8_t *to;
        size_t want;
        struct peer_header header;
        struct peer_buffer *payload = NULL;
        peer_frame_reader_want(&reader, &to, &want);
        ASSERT(want > 0);
        size_t take = MIN(MIN(want, cut), size);
        memcpy(to, data, take);
        data += take;
        size -= take;
        int result = peer_frame_reader_filled(&reader, take, &header, &payload, NULL);
        if (result < 0)
            break;
        ASSERT(result == 1 || payload == NULL);
        if (result == 1)
            ASSERT((payload ? payload->size : 0) == header.payload_bytes);
        peer_buffer_unref(payload);
    }
    peer_frame_reader_done(&reader);
    peer_pool_free(pool);
    return 0;
}
