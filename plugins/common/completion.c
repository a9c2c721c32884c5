#include "plugins/common/completion.h"

#include <assert.h>

static_assert(sizeof(struct list) <= sizeof(((struct block_request *)0)->device_private), "link fits in a request");

static struct list *request_link(struct block_request *request)
{
    return (struct list *)(void *)request->device_private;
}

static void completion_queue_handle_closed(uv_handle_t *handle)
{
    struct completion_queue *queue = container_of((uv_idle_t *)handle, struct completion_queue, idle);
    queue->closed(queue);
}

static void completion_queue_settle(struct completion_queue *queue)
{
    if (queue->waiting)
        return;
    uv_idle_stop(&queue->idle);
    if (queue->closing && !uv_is_closing((uv_handle_t *)&queue->idle))
        uv_close((uv_handle_t *)&queue->idle, completion_queue_handle_closed);
}

static void completion_queue_turn(uv_idle_t *idle)
{
    struct completion_queue *queue = container_of(idle, struct completion_queue, idle);
    struct list batch;
    list_init(&batch);
    list_splice(&batch, &queue->ready); /* what is added meanwhile waits for the next turn */
    while (!list_empty(&batch)) {
        struct list *link = batch.next;
        struct block_request *request = container_of((void **)(void *)link, struct block_request, device_private[0]);
        list_remove(link);
        queue->waiting--;
        request->done(request);
    }
    /* Still ours: even when the last done closed us, closed comes from the loop's closing phase. */
    completion_queue_settle(queue);
}

void completion_queue_init(struct completion_queue *queue, uv_loop_t *loop)
{
    int result = uv_idle_init(loop, &queue->idle);
    ASSERT(result == 0);
    list_init(&queue->ready);
    queue->waiting = 0;
    queue->closing = false;
    queue->closed = NULL;
}

void completion_queue_add(struct completion_queue *queue, struct block_request *request, int status)
{
    request->status = status;
    queue->waiting++;
    list_append(&queue->ready, request_link(request));
    int result = uv_idle_start(&queue->idle, completion_queue_turn);
    ASSERT(result == 0);
}

void completion_queue_close(struct completion_queue *queue, void (*closed)(struct completion_queue *queue))
{
    ASSERT(!queue->closing);
    queue->closing = true;
    queue->closed = closed;
    completion_queue_settle(queue);
}
