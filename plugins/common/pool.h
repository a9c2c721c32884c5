/* Objects of one size, kept for reuse, so that no I/O allocates after warm-up. One thread. */
#ifndef PLUGINS_COMMON_POOL_H
#define PLUGINS_COMMON_POOL_H

#include "director/base/list.h"

struct pool {
    struct list unused; /* objects, linked through their first bytes */
    struct list slabs;
    size_t object_bytes;
};

/* A pool that holds one slab of objects of at least sizeof(struct list) bytes. 0 or -ENOMEM. */
MUST_CHECK int pool_init(struct pool *pool, size_t object_bytes);
/* All objects must have been put back, or be of no use any more. */
void pool_done(struct pool *pool);
/* An object, its content undefined; NULL when memory is short. */
void *pool_get(struct pool *pool);
void pool_put(struct pool *pool, void *object);

#endif
