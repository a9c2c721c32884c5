#include "plugins/file/ring.h"

#include "director/base/turn.h"
#include <errno.h>
#include <pthread.h>

#define RING_ENTRIES      256u
#define RING_BATCH        64u
#define BUFFER_SMALLEST   4096u
#define BUFFER_CLASSES    9u         /* 4 KiB ... 1 MiB */
#define BUFFER_KEEP_BYTES (1u << 20) /* kept of each class */

struct ring {
    struct list link; /* in rings */
    uv_loop_t *loop;
    unsigned references;
    struct io_uring uring;
    uv_poll_t readable;
    struct turn submit;     /* at the end of the turn */
    uv_idle_t finish;       /* active while deferred is not empty */
    struct list deferred;   /* to be carried out by a plain system call */
    unsigned handles_open;
    unsigned under_way, limit;
    struct list waiting; /* no room in the ring (F2) */
    struct list buffers[BUFFER_CLASSES];
    unsigned kept[BUFFER_CLASSES];
    void (*released)(void *context);
    void *released_context;
};

/* Which loops have a ring. Only looked at when devices open and close. */
static pthread_mutex_t rings_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list rings = {&rings, &rings};

/* An entry to fill, or NULL when the ring cannot take more now. */
static struct io_uring_sqe *ring_entry(struct ring *ring)
{
    if (ring->under_way >= ring->limit)
        return NULL;
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring->uring);
    if (!entry && io_uring_submit(&ring->uring) > 0)
        entry = io_uring_get_sqe(&ring->uring);
    return entry;
}

static bool ring_op_queue(struct ring *ring, struct ring_op *op)
{
    struct io_uring_sqe *entry = ring_entry(ring);
    if (!entry)
        return false;
    op->prepare(op, entry);
    io_uring_sqe_set_data(entry, op);
    if (ring->under_way++ == 0)
        uv_ref((uv_handle_t *)&ring->readable); /* the loop must not end while the kernel holds our memory */
    return true;
}

void ring_op_start(struct ring *ring, struct ring_op *op)
{
    if (!list_empty(&ring->waiting) || !ring_op_queue(ring, op))
        list_append(&ring->waiting, &op->link);
    turn_want(&ring->submit);
}

static void ring_finish(uv_idle_t *idle)
{
    struct ring *ring = container_of(idle, struct ring, finish);
    struct list batch;
    list_init(&batch);
    list_splice(&batch, &ring->deferred); /* what is deferred meanwhile waits for the next turn */
    (void)uv_idle_stop(idle);
    while (!list_empty(&batch)) {
        struct ring_op *op = list_first(&batch, struct ring_op, link);
        list_remove(&op->link);
        op->done(op, op->perform(op));
    }
}

void ring_op_defer(struct ring *ring, struct ring_op *op)
{
    list_append(&ring->deferred, &op->link);
    (void)uv_idle_start(&ring->finish, ring_finish);
}

/* Take what has completed. Entries are given back to the kernel before the callbacks run, which may start others. */
static unsigned ring_reap(struct ring *ring)
{
    struct {
        struct ring_op *op;
        int result;
    } batch[RING_BATCH];
    struct io_uring_cqe *entries[RING_BATCH];
    unsigned count = io_uring_peek_batch_cqe(&ring->uring, entries, RING_BATCH);
    for (unsigned i = 0; i < count; i++) {
        batch[i].op = io_uring_cqe_get_data(entries[i]);
        batch[i].result = entries[i]->res;
    }
    io_uring_cq_advance(&ring->uring, count);
    ASSERT(ring->under_way >= count);
    ring->under_way -= count;
    if (count && ring->under_way == 0)
        uv_unref((uv_handle_t *)&ring->readable);
    for (unsigned i = 0; i < count; i++)
        batch[i].op->done(batch[i].op, batch[i].result);
    return count;
}

static void ring_queue_waiting(struct ring *ring)
{
    while (!list_empty(&ring->waiting)) {
        struct ring_op *op = list_first(&ring->waiting, struct ring_op, link);
        if (!ring_op_queue(ring, op))
            break;
        list_remove(&op->link);
    }
}

/* All that a turn queued goes by one call. */
static void ring_submit(struct turn *turn)
{
    struct ring *ring = container_of(turn, struct ring, submit);
    ring_queue_waiting(ring);
    if (io_uring_sq_ready(&ring->uring) > 0)
        (void)io_uring_submit(&ring->uring);
    if (io_uring_sq_ready(&ring->uring) > 0) /* what it did not take (-EAGAIN, -EBUSY) is tried in the next turn */
        turn_want(&ring->submit);
    /* What completed at once (page cache) is taken here, without a round through epoll. */
    if (ring_reap(ring) > 0 && !list_empty(&ring->waiting))
        turn_want(&ring->submit);
}

static void ring_readable(uv_poll_t *readable, int status, int events)
{
    struct ring *ring = container_of(readable, struct ring, readable);
    (void)status;
    (void)events;
    for (unsigned rounds = 0; rounds < 8 && ring_reap(ring) == RING_BATCH; rounds++)
        ; /* the descriptor stays readable: the rest comes in the next turn, others are served meanwhile */
    if (!list_empty(&ring->waiting))
        turn_want(&ring->submit);
}

static void ring_free(struct ring *ring)
{
    for (unsigned class = 0; class < BUFFER_CLASSES; class++) {
        while (!list_empty(&ring->buffers[class])) {
            struct list *buffer = ring->buffers[class].next;
            list_remove(buffer);
            free(buffer);
        }
    }
    io_uring_queue_exit(&ring->uring);
    free(ring);
}

static void ring_part_closed(struct ring *ring)
{
    if (--ring->handles_open > 0)
        return;
    void (*released)(void *context) = ring->released;
    void *context = ring->released_context;
    ring_free(ring);
    if (released)
        released(context);
}

static void ring_handle_closed(uv_handle_t *handle)
{
    ring_part_closed(handle->data);
}

static void ring_turn_closed(struct turn *turn)
{
    ring_part_closed(container_of(turn, struct ring, submit));
}

/* A ring of loop, not yet in the list. */
static int ring_new(uv_loop_t *loop, struct ring **ret_ring)
{
    struct ring *ring = calloc(1, sizeof(*ring));
    if (!ring)
        return -ENOMEM;
    int result = io_uring_queue_init(RING_ENTRIES, &ring->uring, 0);
    if (result < 0) {
        free(ring);
        return result;
    }
    ring->loop = loop;
    ring->limit = ring->uring.cq.ring_entries;
    list_init(&ring->waiting);
    list_init(&ring->deferred);
    for (unsigned class = 0; class < BUFFER_CLASSES; class++)
        list_init(&ring->buffers[class]);
    result = uv_poll_init(loop, &ring->readable, ring->uring.ring_fd);
    if (result < 0) {
        ring_free(ring);
        return result;
    }
    ring->readable.data = ring->finish.data = ring;
    ring->handles_open = 1;
    result = uv_poll_start(&ring->readable, UV_READABLE, ring_readable);
    if (result < 0) {
        uv_close((uv_handle_t *)&ring->readable, ring_handle_closed); /* frees the ring from the loop */
        return result;
    }
    uv_unref((uv_handle_t *)&ring->readable);
    turn_init(&ring->submit, loop, ring_submit);
    (void)uv_idle_init(loop, &ring->finish);
    ring->handles_open = 3;
    *ret_ring = ring;
    return 0;
}

int ring_get(uv_loop_t *loop, struct ring **ret_ring)
{
    struct ring *found = NULL;
    pthread_mutex_lock(&rings_lock);
    list_foreach(node, &rings) {
        struct ring *ring = list_entry(node, struct ring, link);
        if (ring->loop == loop) {
            found = ring;
            break;
        }
    }
    pthread_mutex_unlock(&rings_lock);
    if (!found) {
        int result = ring_new(loop, &found);
        if (result < 0)
            return result;
        pthread_mutex_lock(&rings_lock);
        list_append(&rings, &found->link);
        pthread_mutex_unlock(&rings_lock);
    }
    found->references++;
    *ret_ring = found;
    return 0;
}

void ring_put(struct ring *ring, void (*released)(void *context), void *context)
{
    if (--ring->references > 0) {
        if (released)
            released(context);
        return;
    }
    ASSERT(ring->under_way == 0 && list_empty(&ring->waiting) && list_empty(&ring->deferred));
    pthread_mutex_lock(&rings_lock);
    list_remove(&ring->link);
    pthread_mutex_unlock(&rings_lock);
    ring->released = released;
    ring->released_context = context;
    uv_close((uv_handle_t *)&ring->readable, ring_handle_closed);
    uv_close((uv_handle_t *)&ring->finish, ring_handle_closed);
    turn_close(&ring->submit, ring_turn_closed);
}

static unsigned buffer_class(size_t size)
{
    unsigned class = 0;
    while (class + 1 < BUFFER_CLASSES && ((size_t)BUFFER_SMALLEST << class) < size)
        class++;
    return class;
}

void *ring_buffer_get(struct ring *ring, size_t size, size_t *ret_size)
{
    unsigned class = buffer_class(size);
    if (!list_empty(&ring->buffers[class])) {
        struct list *buffer = ring->buffers[class].next;
        list_remove(buffer);
        ring->kept[class]--;
        *ret_size = (size_t)BUFFER_SMALLEST << class;
        return buffer;
    }
    /* When memory is short a smaller one will do: the caller goes on in smaller pieces. */
    for (;; class--) {
        void *buffer;
        if (posix_memalign(&buffer, BUFFER_SMALLEST, (size_t)BUFFER_SMALLEST << class) == 0) {
            *ret_size = (size_t)BUFFER_SMALLEST << class;
            return buffer;
        }
        if (class == 0)
            return NULL;
    }
}

void ring_buffer_put(struct ring *ring, void *buffer, size_t size)
{
    unsigned class = buffer_class(size);
    if ((size_t)ring->kept[class] * size >= BUFFER_KEEP_BYTES) {
        free(buffer);
        return;
    }
    ring->kept[class]++;
    list_prepend(&ring->buffers[class], buffer);
}
