#include "tests/conformance/block_sync.h"
#include "director/base/common.h"

#include <stdbool.h>

/* done has no context of its own, so the flag stands beside the request. */
struct sync_request {
    struct block_request request;
    bool answered;
};

static void block_sync_done(struct block_request *request)
{
    container_of(request, struct sync_request, request)->answered = true;
}

int block_sync(uv_loop_t *loop, struct block_device *device, struct block_request *request)
{
    struct sync_request sync = {.request = *request};
    sync.request.done = block_sync_done;
    block_device_submit(device, &sync.request);
    ASSERT(!sync.answered);
    while (!sync.answered)
        uv_run(loop, UV_RUN_ONCE);
    request->status = sync.request.status;
    request->ret_miscompare = sync.request.ret_miscompare;
    return request->status;
}

int block_sync_read(uv_loop_t *loop, struct block_device *device, uint64_t offset_bytes, void *to, size_t length)
{
    struct iovec iov = {to, length};
    struct block_request request = {
        .operation = BLOCK_READ, .offset_bytes = offset_bytes, .length_bytes = length, .iov = &iov, .iov_count = 1};
    return block_sync(loop, device, &request);
}

int block_sync_write(uv_loop_t *loop, struct block_device *device, uint64_t offset_bytes, const void *from, size_t length,
                     uint32_t flags)
{
    struct iovec iov = {(void *)(uintptr_t)from, length};
    struct block_request request = {.operation = BLOCK_WRITE,
                                    .flags = flags,
                                    .offset_bytes = offset_bytes,
                                    .length_bytes = length,
                                    .iov = &iov,
                                    .iov_count = 1};
    return block_sync(loop, device, &request);
}

int block_sync_plain(uv_loop_t *loop, struct block_device *device, enum block_operation operation, uint64_t offset_bytes,
                     uint64_t length, uint32_t flags)
{
    struct block_request request = {
        .operation = operation, .flags = flags, .offset_bytes = offset_bytes, .length_bytes = length};
    return block_sync(loop, device, &request);
}

int block_sync_flush(uv_loop_t *loop, struct block_device *device)
{
    return block_sync_plain(loop, device, BLOCK_FLUSH, 0, 0, 0);
}

static void block_sync_closed(void *context)
{
    *(bool *)context = true;
}

void block_sync_close(uv_loop_t *loop, struct block_device *device)
{
    bool closed = false;
    block_device_close(device, block_sync_closed, &closed);
    ASSERT(!closed);
    while (!closed)
        uv_run(loop, UV_RUN_ONCE);
}
