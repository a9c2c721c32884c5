/* Pooled, reference-counted buffers for payloads: contiguous, placed so that the data in them are aligned, recycled so that
 * nothing is allocated per frame once the pool is warm. A pool and its buffers belong to one thread (the loop of their mesh). */
#ifndef DIRECTOR_AGENT_IO_PEER_BUFFER_H
#define DIRECTOR_AGENT_IO_PEER_BUFFER_H

#include "director/base/list.h"

#define PEER_BUFFER_ALIGNMENT 4096u
#define PEER_BUFFER_SECTOR    512u

struct peer_pool;

struct peer_buffer {
    uint8_t *data;
    uint32_t size;   /* bytes in use */
    uint32_t capacity; /* from data on */
    /* Private to the pool. */
    uint8_t *memory;
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

/* A buffer of at least capacity bytes with one reference and size 0, data aligned to PEER_BUFFER_ALIGNMENT; the caller's to
 * unref. NULL when memory is short or capacity is beyond PEER_PAYLOAD_MAX_BYTES. */
struct peer_buffer *peer_buffer_new(struct peer_pool *pool, uint32_t capacity);
/* The same for a payload of so many bytes, which is a short head and then whole sectors of data, as those of replication are:
 * placed so that the sectors are aligned to PEER_BUFFER_ALIGNMENT and can go to a disk from where they lie (O_DIRECT). What
 * the head is need not be known: it is what is left over of whole sectors. */
struct peer_buffer *peer_buffer_new_payload(struct peer_pool *pool, uint32_t payload_bytes);
/* One reference more; returns buffer. This is how a receiver takes a payload beyond its callback. */
struct peer_buffer *peer_buffer_ref(struct peer_buffer *buffer);
/* One reference less; NULL is fine. */
void peer_buffer_unref(struct peer_buffer *buffer);

#endif
