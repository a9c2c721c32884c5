/* Using a block_device from straight-line code: submits and runs the loop until the answer is there. For tests and small
 * tools only: other things of the same loop run meanwhile. */
#ifndef TESTS_CONFORMANCE_BLOCK_SYNC_H
#define TESTS_CONFORMANCE_BLOCK_SYNC_H

#include <director/block_device.h>
#include <stddef.h>
#include <uv.h>

/* Submit a request filled in except for done; returns its status. */
int block_sync(uv_loop_t *loop, struct block_device *device, struct block_request *request);
int block_sync_read(uv_loop_t *loop, struct block_device *device, uint64_t offset_bytes, void *to, size_t length);
int block_sync_write(uv_loop_t *loop, struct block_device *device, uint64_t offset_bytes, const void *from, size_t length,
                     uint32_t flags);
int block_sync_flush(uv_loop_t *loop, struct block_device *device);
/* write_zeroes, unmap: operations without data. */
int block_sync_plain(uv_loop_t *loop, struct block_device *device, enum block_operation operation, uint64_t offset_bytes,
                     uint64_t length, uint32_t flags);
/* Close and wait until it is closed. */
void block_sync_close(uv_loop_t *loop, struct block_device *device);

#endif
