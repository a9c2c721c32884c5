#include "replication/io/data.h"
#include <string.h>

static int class_of(size_t size)
{
    int class = 0;
    while (((size_t)4096 << class) < size)
        class++;
    return class;
}

struct data *data_new(struct mirror_pool *pool, size_t size)
{
    int class = class_of(size);
    if (class >= (int)DATA_CLASSES)
        return NULL;
    struct data *data = pool->free[class];
    if (data) {
        pool->free[class] = data->next;
        pool->cached_bytes -= (size_t)4096 << class;
    } else {
        data = calloc(1, sizeof(*data));
        if (!data || posix_memalign(&data->memory, 4096, (size_t)4096 << class) != 0) {
            free(data);
            return NULL;
        }
    }
    data->pool = pool;
    data->refs = 1;
    data->class = class;
    data->own = (struct iovec){data->memory, size};
    data->iov = &data->own;
    data->iov_count = 1;
    data->released = NULL;
    pool->outstanding++;
    return data;
}

struct data *data_wrap(struct mirror_pool *pool, const struct iovec *iov, unsigned iov_count,
                       void (*released)(void *context), void *context)
{
    struct data *data = pool->bare;
    if (data)
        pool->bare = data->next;
    else
        data = calloc(1, sizeof(*data));
    if (!data)
        return NULL;
    data->pool = pool;
    data->refs = 1;
    data->class = -1;
    data->iov = iov;
    data->iov_count = iov_count;
    data->released = released;
    data->context = context;
    pool->outstanding++;
    return data;
}

size_t data_bytes(const struct data *data)
{
    size_t sum = 0;
    for (unsigned i = 0; i < data->iov_count; i++)
        sum += data->iov[i].iov_len;
    return sum;
}

bool data_detach(struct data *data)
{
    size_t size = data_bytes(data), at = 0;
    uint8_t *copy = malloc(size);
    if (!copy)
        return false;
    for (unsigned i = 0; i < data->iov_count; i++) {
        memcpy(copy + at, data->iov[i].iov_base, data->iov[i].iov_len);
        at += data->iov[i].iov_len;
    }
    data->memory = copy;
    data->own = (struct iovec){copy, size};
    data->iov = &data->own;
    data->iov_count = 1;
    data->released = NULL;
    return true;
}

void data_unref(struct data *data)
{
    struct mirror_pool *pool = data->pool;
    ASSERT(data->refs > 0);
    if (--data->refs > 0)
        return;
    pool->outstanding--;
    if (data->class < 0) {
        void (*released)(void *context) = data->released;
        void *context = data->context;
        free(data->memory); /* of a detached one */
        data->memory = NULL;
        data->next = pool->bare;
        pool->bare = data;
        if (released)
            released(context);
        return;
    }
    size_t size = (size_t)4096 << data->class;
    if (pool->cached_bytes + size > DATA_CACHED_BYTES) {
        free(data->memory);
        free(data);
        return;
    }
    pool->cached_bytes += size;
    data->next = pool->free[data->class];
    pool->free[data->class] = data;
}

unsigned data_slice(const struct data *data, size_t offset, size_t bytes, struct iovec *to)
{
    unsigned count = 0;
    for (unsigned i = 0; i < data->iov_count && bytes; i++) {
        size_t length = data->iov[i].iov_len;
        if (offset >= length) {
            offset -= length;
            continue;
        }
        length = MIN(length - offset, bytes);
        if (to)
            to[count] = (struct iovec){(uint8_t *)data->iov[i].iov_base + offset, length};
        count++;
        bytes -= length;
        offset = 0;
    }
    ASSERT(bytes == 0);
    return count;
}

/* Where a walk over the bytes stands. */
struct cursor {
    const struct data *data;
    unsigned i;
    size_t offset;
};

static struct cursor cursor_at(const struct data *data, size_t offset)
{
    struct cursor c = {data, 0, offset};
    while (c.i < data->iov_count && c.offset >= data->iov[c.i].iov_len)
        c.offset -= data->iov[c.i++].iov_len;
    return c;
}

static uint8_t *cursor_piece(const struct cursor *c, size_t *ret_length)
{
    ASSERT(c->i < c->data->iov_count);
    *ret_length = c->data->iov[c->i].iov_len - c->offset;
    return (uint8_t *)c->data->iov[c->i].iov_base + c->offset;
}

static void cursor_step(struct cursor *c, size_t bytes)
{
    c->offset += bytes;
    while (c->i < c->data->iov_count && c->offset >= c->data->iov[c->i].iov_len)
        c->offset -= c->data->iov[c->i++].iov_len;
}

void data_copy(struct data *to, size_t to_offset, const struct data *from, size_t from_offset, size_t bytes)
{
    struct cursor a = cursor_at(to, to_offset), b = cursor_at(from, from_offset);
    while (bytes) {
        size_t la, lb;
        uint8_t *pa = cursor_piece(&a, &la);
        const uint8_t *pb = cursor_piece(&b, &lb);
        size_t n = MIN(MIN(la, lb), bytes);
        memcpy(pa, pb, n);
        cursor_step(&a, n);
        cursor_step(&b, n);
        bytes -= n;
    }
}

bool data_equal(const struct data *x, size_t x_offset, const struct data *y, size_t y_offset, size_t bytes,
                size_t *ret_differs)
{
    struct cursor a = cursor_at(x, x_offset), b = cursor_at(y, y_offset);
    size_t done = 0;
    while (done < bytes) {
        size_t la, lb;
        const uint8_t *pa = cursor_piece(&a, &la), *pb = cursor_piece(&b, &lb);
        size_t n = MIN(MIN(la, lb), bytes - done);
        if (memcmp(pa, pb, n) != 0) {
            size_t i = 0;
            while (pa[i] == pb[i])
                i++;
            *ret_differs = done + i;
            return false;
        }
        cursor_step(&a, n);
        cursor_step(&b, n);
        done += n;
    }
    return true;
}

bool memory_is_zero(const void *memory, size_t bytes)
{
    const uint8_t *p = memory;
    return bytes == 0 || (p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0);
}

bool data_is_zero(const struct data *data, size_t offset, size_t bytes)
{
    struct cursor c = cursor_at(data, offset);
    while (bytes) {
        size_t length;
        const uint8_t *piece = cursor_piece(&c, &length);
        length = MIN(length, bytes);
        if (!memory_is_zero(piece, length))
            return false;
        cursor_step(&c, length);
        bytes -= length;
    }
    return true;
}

size_t data_zero_run(const struct data *data, size_t offset, size_t bytes, size_t unit, bool *ret_zero)
{
    size_t run = MIN(unit, bytes);
    *ret_zero = data_is_zero(data, offset, run);
    while (run < bytes && data_is_zero(data, offset + run, MIN(unit, bytes - run)) == *ret_zero)
        run += MIN(unit, bytes - run);
    return run;
}

void data_fill(struct data *to, const uint8_t *from, size_t bytes)
{
    ASSERT(to->iov_count == 1 && to->iov[0].iov_len >= bytes);
    memcpy(to->iov[0].iov_base, from, bytes);
}

void mirror_pool_done(struct mirror_pool *pool)
{
    ASSERT(pool->outstanding == 0);
    for (unsigned class = 0; class < DATA_CLASSES; class++)
        while (pool->free[class]) {
            struct data *data = pool->free[class];
            pool->free[class] = data->next;
            free(data->memory);
            free(data);
        }
    while (pool->bare) {
        struct data *data = pool->bare;
        pool->bare = data->next;
        free(data);
    }
}
