#include "plugins/common/pool.h"

#include <errno.h>

#define POOL_SLAB_OBJECTS 64

struct slab {
    struct list link;
    max_align_t objects[];
};

static int pool_grow(struct pool *pool)
{
    struct slab *slab = malloc(sizeof(*slab) + POOL_SLAB_OBJECTS * pool->object_bytes);
    if (!slab)
        return -ENOMEM;
    list_append(&pool->slabs, &slab->link);
    for (size_t i = 0; i < POOL_SLAB_OBJECTS; i++)
        list_append(&pool->unused, (struct list *)(void *)((char *)slab->objects + i * pool->object_bytes));
    return 0;
}

int pool_init(struct pool *pool, size_t object_bytes)
{
    ASSERT(object_bytes >= sizeof(struct list));
    pool->object_bytes = (object_bytes + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    list_init(&pool->unused);
    list_init(&pool->slabs);
    return pool_grow(pool);
}

void pool_done(struct pool *pool)
{
    while (!list_empty(&pool->slabs)) {
        struct slab *slab = list_first(&pool->slabs, struct slab, link);
        list_remove(&slab->link);
        free(slab);
    }
    list_init(&pool->unused);
}

void *pool_get(struct pool *pool)
{
    if (list_empty(&pool->unused) && pool_grow(pool) < 0)
        return NULL;
    struct list *object = pool->unused.next;
    list_remove(object);
    return object;
}

void pool_put(struct pool *pool, void *object)
{
    list_prepend(&pool->unused, object); /* the warmest first */
}
