/* One io_uring for each libuv loop, shared by the file devices of that loop.
 *
 * Life of an operation: ring_op_new, the caller fills an entry in his prepare callback, ring_op_start queues it; all that a
 * turn of the loop queued is submitted at once at the turn's end; completions make the ring's descriptor
 * readable, and done runs from the loop.
 *
 * F1  done runs exactly once per start, from the loop, never inside start.
 * F2  no more operations are under way than the completion ring holds; the others wait in order. */
#ifndef PLUGINS_FILE_RING_H
#define PLUGINS_FILE_RING_H

#include "director/base/list.h"
#include "plugins/common/pool.h"
#include <liburing.h>
#include <uv.h>

struct ring;

/* Embedded by the caller in what he gets from ring->ops. */
struct ring_op {
    struct list link;
    void (*prepare)(struct ring_op *op, struct io_uring_sqe *entry); /* may run again if the operation is started again */
    void (*done)(struct ring_op *op, int result);                    /* result as of the system call, negative errno */
    int (*perform)(struct ring_op *op); /* for ring_op_defer(): the system call itself; its result */
};

/* The loop's ring, made when there is none yet. Give it back by ring_put. 0 or negative errno. Home loop. */
MUST_CHECK int ring_get(uv_loop_t *loop, struct ring **ret_ring);
/* released(context) runs when a ring that nobody uses any more is gone, or at once when others use it. */
void ring_put(struct ring *ring, void (*released)(void *context), void *context);

/* Start op: prepare fills an entry now or when there is room, done tells the result. */
void ring_op_start(struct ring *ring, struct ring_op *op);
/* Carry op out by its perform, in the next turn of the loop: after what this turn sends has left, so that others work on it
 * meanwhile. Then done. */
void ring_op_defer(struct ring *ring, struct ring_op *op);

/* An aligned buffer of at least one page and at most size bytes (rounded up to a power of two, ret_size says), from those
 * kept for reuse. NULL when memory is short. */
void *ring_buffer_get(struct ring *ring, size_t size, size_t *ret_size);
void ring_buffer_put(struct ring *ring, void *buffer, size_t size);

#endif
