/* A block_device in memory for tests: completes in the next loop turn; can be told to stall or fail. */
#ifndef DIRECTOR_TESTS_CONFORMANCE_RAM_DEVICE_H
#define DIRECTOR_TESTS_CONFORMANCE_RAM_DEVICE_H

#include "director/base/list.h"
#include <director/block_device.h>
#include <uv.h>

struct ram_device {
    struct block_device device; /* first */
    uv_idle_t idle;
    uint8_t *bytes;
    struct list waiting;
};

/* capabilities: of enum block_capabilities. Memory of the caller; bytes are zero. 0 or negative errno. */
int ram_device_open(struct ram_device *ram, uv_loop_t *loop, uint64_t size_bytes, uint32_t block_bytes, uint32_t capabilities);

#endif
