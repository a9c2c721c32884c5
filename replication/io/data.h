/* Bytes behind the handles of the protocol cores: a request's own buffers, or a buffer of a pool. Counted; one loop. */
#ifndef DIRECTOR_REPLICATION_DATA_H
#define DIRECTOR_REPLICATION_DATA_H

#include "director/base/common.h"
#include <stdbool.h>
#include <sys/uio.h>

#define DATA_CLASSES      10u /* 4 KiB << class */
#define DATA_CACHED_BYTES (2u << 20)

struct data;

struct mirror_pool {
    struct data *free[DATA_CLASSES];
    struct data *bare; /* without memory, for requests */
    size_t cached_bytes;
    unsigned outstanding; /* data not yet freed */
};

struct data {
    struct mirror_pool *pool;
    struct data *next;
    int refs;
    int class; /* -1: bare */
    const struct iovec *iov; /* the bytes */
    unsigned iov_count;
    struct iovec own;
    void *memory;
    /* When a request's bytes are not referred to any more. */
    void (*released)(void *context);
    void *context;
};

/* A buffer with one reference; NULL: no memory. size at most 4 KiB << (DATA_CLASSES - 1). */
struct data *data_new(struct mirror_pool *pool, size_t size);
/* Refer to memory of someone else, who is told by released when the last reference goes. */
struct data *data_wrap(struct mirror_pool *pool, const struct iovec *iov, unsigned iov_count,
                       void (*released)(void *context), void *context);
/* Copy a wrapped request's bytes, so that its memory is not needed any more. false: no memory. released is not called. */
bool data_detach(struct data *data);
static inline struct data *data_ref(struct data *data)
{
    data->refs++;
    return data;
}
void data_unref(struct data *data);
size_t data_bytes(const struct data *data);
/* The piece [offset, offset + bytes) as iovecs; returns how many. to may be NULL: only count. */
unsigned data_slice(const struct data *data, size_t offset, size_t bytes, struct iovec *to);
void data_copy(struct data *to, size_t to_offset, const struct data *from, size_t from_offset, size_t bytes);
bool data_equal(const struct data *a, size_t a_offset, const struct data *b, size_t b_offset, size_t bytes,
                size_t *ret_differs);
bool memory_is_zero(const void *memory, size_t bytes);
bool data_is_zero(const struct data *data, size_t offset, size_t bytes);
/* How far, from offset on and in steps of unit, the bytes are all zeroes, or each step has others: which says *ret_zero. */
size_t data_zero_run(const struct data *data, size_t offset, size_t bytes, size_t unit, bool *ret_zero);
void data_fill(struct data *to, const uint8_t *from, size_t bytes);
/* Free what is cached; nothing is outstanding. */
void mirror_pool_done(struct mirror_pool *pool);

#endif
