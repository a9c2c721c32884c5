/* Pooled, reference-counted buffers for payloads: contiguous, aligned to 4096, recycled so that nothing is allocated per
 * frame once the pool is warm. A pool and its buffers belong to one thread (the loop of their mesh). */
#ifndef DIRECTOR_AGENT_IO_PEER_BUFFER_H
#define DIRECTOR_AGENT_IO_PEER_BUFFER_H

#include "director/base/list.h"

#define PEER_BUFFER_ALIGNMENT 4096u

struct peer_pool;

struct peer_buffer {
    uint8_t *data;   /* aligned to PEER_BUFFER_ALIGNMENT */
    uint32_t size;   /* bytes in use */
    uint32_t capacity;
    /* Private to the pool. */
    uint32_t references;
    uint32_t size_class;
    struct peer_pool *pool;
    struct list link;
};

/* NULL when memory is short. */
struct peer_pool *peer_pool_new(void);
/* The owner lets go. Buffers still referenced stay valid; the last unref frees the pool. NULL is fine. */
void peer_pool_free(struct peer_pool *pool);
/* Give back to the system what lay unused since the last call. Called now and then by the mesh. */
void peer_pool_trim(struct peer_pool *pool);

/* A buffer of at least capacity bytes with one reference and size 0; the caller's to unref. NULL when memory is short or
 * capacity is beyond PEER_PAYLOAD_MAX_BYTES. */
struct peer_buffer *peer_buffer_new(struct peer_pool *pool, uint32_t capacity);
/* One reference more; returns buffer. This is how a receiver takes a payload beyond its callback. */
struct peer_buffer *peer_buffer_ref(struct peer_buffer *buffer);
/* One reference less; NULL is fine. */
void peer_buffer_unref(struct peer_buffer *buffer);

#endif
