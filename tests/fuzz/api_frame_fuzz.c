/* The API's byte stream as the server reads it: frames cut anywhere, then Calls decoded and checked. The first byte is how
 * many bytes are pushed at a time. */
#include "agent/api/request.h"
#include "proto/frame.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame_reader reader;
    if (size < 1)
        return 0;
    size_t step = data[0] ? data[0] : 65536;
    int next = 0;
    frame_reader_init(&reader, 65536);
    for (size_t at = 1; at < size && next >= 0; at += step) {
        const uint8_t *payload;
        size_t length;
        if (frame_reader_push(&reader, data + at, MIN(step, size - at)) < 0)
            break;
        while ((next = frame_reader_next(&reader, &payload, &length, NULL)) > 0) {
            Director__Call *call;
            struct error error = {0};
            uint64_t id;
            int code = api_request_decode(payload, length, &call, &id, &error);
            if (code == 0) {
                ASSERT(call->path[0] == '/' && strlen(call->path) <= API_PATH_MAX_BYTES);
                director__call__free_unpacked(call, NULL);
            } else {
                ASSERT(error.message[0]);
            }
        }
        ASSERT(next < 0 || next == 1 || frame_reader_need(&reader) > 0);
    }
    frame_reader_done(&reader);
    return 0;
}
