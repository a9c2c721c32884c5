/* Data buffers of commands: aligned, in four size classes, with one budget. Freed buffers are kept for the next command,
 * so that the I/O path does not allocate after warm-up; data_pool_trim() gives idle memory back.
 * One thread. Bound: budget_bytes counts what is in use and what is kept. */
#ifndef DIRECTOR_TARGET_CORE_DATA_POOL_H
#define DIRECTOR_TARGET_CORE_DATA_POOL_H

#include "director/base/common.h"
#include <stdbool.h>

#define DATA_POOL_CLASSES   4
#define DATA_POOL_MAX_BYTES (1u << 20)

struct data_pool {
    uint64_t budget_bytes, used_bytes, kept_bytes;
    uint64_t allocations; /* calls into the system allocator since the start: stands still after warm-up */
    struct data_buffer *kept[DATA_POOL_CLASSES];
};

/* Bytes are at data, 4096-aligned. */
struct data_buffer {
    struct data_buffer *next;
    uint8_t *data;
    uint32_t capacity_bytes;
    uint8_t class;
};

void data_pool_init(struct data_pool *pool, uint64_t budget_bytes);
/* Every buffer must be back. */
void data_pool_done(struct data_pool *pool);
/* A buffer of at least size bytes (<= DATA_POOL_MAX_BYTES), content undefined; NULL when the budget or memory is used up. */
struct data_buffer *data_pool_get(struct data_pool *pool, uint32_t size_bytes);
/* NULL is fine. */
void data_pool_put(struct data_pool *pool, struct data_buffer *buffer);
/* Free what is kept until at most keep_bytes remain. */
void data_pool_trim(struct data_pool *pool, uint64_t keep_bytes);

#endif
