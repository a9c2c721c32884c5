/* A block_device in memory for unit tests and fuzzers: holds its requests until test_device_complete(). */
#ifndef DIRECTOR_TARGET_CORE_TEST_DEVICE_H
#define DIRECTOR_TARGET_CORE_TEST_DEVICE_H

#include "director/base/common.h"
#include <director/block_device.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define TEST_DEVICE_BYTES 1048576u
#define TEST_DEVICE_HELD  512u

struct test_device {
    struct block_device device; /* first */
    struct block_request *held[TEST_DEVICE_HELD];
    unsigned count;
    int status; /* what the next completions say, when negative */
    uint8_t bytes[TEST_DEVICE_BYTES];
};

static inline void test_device_submit(struct block_device *device, struct block_request *request)
{
    struct test_device *test = container_of(device, struct test_device, device);
    ASSERT(block_request_check(device, request) == 0);
    ASSERT(test->count < TEST_DEVICE_HELD);
    test->held[test->count++] = request;
}

static inline void test_device_init(struct test_device *test, uint32_t capabilities)
{
    static const struct block_device_operations operations = {.submit = test_device_submit};
    memset(test, 0, sizeof(*test));
    test->device.operations = &operations;
    test->device.kind = "test";
    test->device.geometry = (struct block_geometry){.size_bytes = TEST_DEVICE_BYTES,
                                                    .block_bytes = 512,
                                                    .physical_bytes = 512,
                                                    .memory_alignment = 1,
                                                    .max_transfer_bytes = 65536,
                                                    .max_unmap_bytes = 65536,
                                                    .capabilities = capabilities};
}

static inline int test_device_run(struct test_device *test, struct block_request *request)
{
    uint8_t *at = test->bytes + request->offset_bytes;
    switch (request->operation) {
    case BLOCK_READ:
        memcpy(request->iov[0].iov_base, at, request->length_bytes);
        return 0;
    case BLOCK_WRITE:
        memcpy(at, request->iov[0].iov_base, request->length_bytes);
        return 0;
    case BLOCK_WRITE_ZEROES:
    case BLOCK_UNMAP:
        memset(at, 0, request->length_bytes);
        return 0;
    case BLOCK_COMPARE_AND_WRITE:
        for (uint64_t i = 0; i < request->length_bytes; i++) {
            if (at[i] != ((uint8_t *)request->iov[0].iov_base)[i]) {
                request->ret_miscompare = i;
                return -EILSEQ;
            }
        }
        memcpy(at, request->iov[1].iov_base, request->length_bytes);
        return 0;
    default:
        return 0;
    }
}

/* Complete the oldest request. False: there is none. */
static inline bool test_device_complete(struct test_device *test)
{
    if (!test->count)
        return false;
    struct block_request *request = test->held[0];
    memmove(test->held, test->held + 1, --test->count * sizeof(*test->held));
    request->status = test->status < 0 ? test->status : test_device_run(test, request);
    request->done(request);
    return true;
}

static inline void test_device_drain(struct test_device *test)
{
    while (test_device_complete(test))
        ;
}

#endif
