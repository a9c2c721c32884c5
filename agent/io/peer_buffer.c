#include "agent/io/peer_buffer.h"

#include "proto/peer.h"
#include <errno.h>

/* Size classes and how many free buffers of each are kept: at most about 30 MiB in all, and that only while in use
 * (peer_pool_trim). A class has a page more than a round number, for the head of a payload. The last holds the longest. */
static const struct {
    uint32_t capacity;
    uint32_t keep;
} peer_buffer_classes[] = {
    {512, 1024}, {8192, 512}, {20480, 64}, {69632, 32}, {266240, 16}, {PEER_PAYLOAD_MAX_BYTES + PEER_BUFFER_ALIGNMENT, 16},
};
#define CLASS_COUNT ARRAY_SIZE(peer_buffer_classes)
static_assert(PEER_PAYLOAD_MAX_BYTES % PEER_BUFFER_ALIGNMENT == 0, "aligned_alloc wants a multiple");

struct peer_pool {
    struct {
        struct list free;
        uint32_t count;
        uint32_t low; /* least count since the last trim: so many were not needed */
    } classes[CLASS_COUNT];
    uint64_t live; /* buffers handed out */
    bool closed;
};

struct peer_pool *peer_pool_new(void)
{
    struct peer_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return NULL;
    for (size_t i = 0; i < CLASS_COUNT; i++)
        list_init(&pool->classes[i].free);
    return pool;
}

static void buffer_release(struct peer_buffer *buffer)
{
    free(buffer->memory);
    free(buffer);
}

static void class_shrink(struct peer_pool *pool, size_t class, uint32_t by)
{
    while (by-- && !list_empty(&pool->classes[class].free)) {
        struct peer_buffer *buffer = list_first(&pool->classes[class].free, struct peer_buffer, link);
        list_remove(&buffer->link);
        pool->classes[class].count--;
        buffer_release(buffer);
    }
}

void peer_pool_trim(struct peer_pool *pool)
{
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        class_shrink(pool, i, pool->classes[i].low);
        pool->classes[i].low = pool->classes[i].count;
    }
}

void peer_pool_free(struct peer_pool *pool)
{
    if (!pool)
        return;
    for (size_t i = 0; i < CLASS_COUNT; i++)
        class_shrink(pool, i, UINT32_MAX);
    pool->closed = true;
    if (pool->live == 0)
        free(pool);
}

static struct peer_buffer *buffer_get(struct peer_pool *pool, uint32_t capacity)
{
    size_t class = 0;
    while (class < CLASS_COUNT && peer_buffer_classes[class].capacity < capacity)
        class++;
    if (class == CLASS_COUNT)
        return NULL;
    struct peer_buffer *buffer;
    if (!list_empty(&pool->classes[class].free)) {
        buffer = list_first(&pool->classes[class].free, struct peer_buffer, link);
        list_remove(&buffer->link);
        pool->classes[class].count--;
        pool->classes[class].low = MIN(pool->classes[class].low, pool->classes[class].count);
    } else {
        buffer = calloc(1, sizeof(*buffer));
        if (!buffer)
            return NULL;
        uint32_t bytes = peer_buffer_classes[class].capacity;
        buffer->memory = aligned_alloc(MIN(bytes, PEER_BUFFER_ALIGNMENT), bytes);
        if (!buffer->memory) {
            free(buffer);
            return NULL;
        }
        buffer->size_class = (uint32_t)class;
        buffer->pool = pool;
        list_init(&buffer->link);
    }
    buffer->references = 1;
    buffer->size = 0;
    buffer->data = buffer->memory;
    buffer->capacity = peer_buffer_classes[class].capacity;
    pool->live++;
    return buffer;
}

struct peer_buffer *peer_buffer_new(struct peer_pool *pool, uint32_t capacity)
{
    return capacity > PEER_PAYLOAD_MAX_BYTES ? NULL : buffer_get(pool, MAX(capacity, PEER_BUFFER_SECTOR + 1));
}

struct peer_buffer *peer_buffer_new_payload(struct peer_pool *pool, uint32_t payload_bytes)
{
    uint32_t head = payload_bytes % PEER_BUFFER_SECTOR;
    uint32_t lead = payload_bytes > PEER_BUFFER_SECTOR && head ? PEER_BUFFER_ALIGNMENT - head : 0;
    struct peer_buffer *buffer = payload_bytes > PEER_PAYLOAD_MAX_BYTES ? NULL : buffer_get(pool, payload_bytes + lead);
    if (buffer) {
        buffer->data += lead;
        buffer->capacity -= lead;
    }
    return buffer;
}

struct peer_buffer *peer_buffer_ref(struct peer_buffer *buffer)
{
    ASSERT(buffer->references > 0);
    buffer->references++;
    return buffer;
}

void peer_buffer_unref(struct peer_buffer *buffer)
{
    if (!buffer)
        return;
    ASSERT(buffer->references > 0);
    if (--buffer->references)
        return;
    struct peer_pool *pool = buffer->pool;
    size_t class = buffer->size_class;
    pool->live--;
    if (pool->closed || pool->classes[class].count >= peer_buffer_classes[class].keep) {
        buffer_release(buffer);
        if (pool->closed && pool->live == 0)
            free(pool);
        return;
    }
    list_prepend(&pool->classes[class].free, &buffer->link); /* the warmest first */
    pool->classes[class].count++;
}
