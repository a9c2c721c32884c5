#include "target/core/data_pool.h"

#include <stdlib.h>

static const uint32_t class_bytes[DATA_POOL_CLASSES] = {8192, 65536, 262144, DATA_POOL_MAX_BYTES};

void data_pool_init(struct data_pool *pool, uint64_t budget_bytes)
{
    *pool = (struct data_pool){.budget_bytes = budget_bytes};
}

static void free_one(struct data_pool *pool, unsigned class)
{
    struct data_buffer *buffer = pool->kept[class];
    pool->kept[class] = buffer->next;
    pool->kept_bytes -= buffer->capacity_bytes;
    free(buffer->data);
    free(buffer);
}

void data_pool_trim(struct data_pool *pool, uint64_t keep_bytes)
{
    for (unsigned class = DATA_POOL_CLASSES; class-- > 0;)
        while (pool->kept_bytes > keep_bytes && pool->kept[class])
            free_one(pool, class);
}

void data_pool_done(struct data_pool *pool)
{
    data_pool_trim(pool, 0);
    ASSERT(pool->used_bytes == 0 && pool->kept_bytes == 0);
}

static struct data_buffer *allocate(struct data_pool *pool, unsigned class)
{
    uint32_t size = class_bytes[class];
    if (pool->used_bytes + size > pool->budget_bytes)
        return NULL;
    if (pool->used_bytes + pool->kept_bytes + size > pool->budget_bytes)
        data_pool_trim(pool, pool->budget_bytes - pool->used_bytes - size);
    struct data_buffer *buffer = malloc(sizeof(*buffer));
    uint8_t *data = aligned_alloc(4096, size);
    if (!buffer || !data) {
        free(buffer);
        free(data);
        return NULL;
    }
    pool->allocations++;
    *buffer = (struct data_buffer){.data = data, .capacity_bytes = size, .class = (uint8_t)class};
    return buffer;
}

struct data_buffer *data_pool_get(struct data_pool *pool, uint32_t size_bytes)
{
    ASSERT(size_bytes <= DATA_POOL_MAX_BYTES);
    unsigned class = 0;
    while (class_bytes[class] < size_bytes)
        class++;
    struct data_buffer *buffer = pool->kept[class];
    if (buffer) {
        pool->kept[class] = buffer->next;
        pool->kept_bytes -= buffer->capacity_bytes;
        buffer->next = NULL;
    } else {
        buffer = allocate(pool, class);
    }
    if (buffer)
        pool->used_bytes += buffer->capacity_bytes;
    return buffer;
}

void data_pool_put(struct data_pool *pool, struct data_buffer *buffer)
{
    if (!buffer)
        return;
    pool->used_bytes -= buffer->capacity_bytes;
    pool->kept_bytes += buffer->capacity_bytes;
    buffer->next = pool->kept[buffer->class];
    pool->kept[buffer->class] = buffer;
}
