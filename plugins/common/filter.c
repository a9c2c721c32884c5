#include "plugins/common/filter.h"

#include <errno.h>
#include <string.h>

int filter_init(struct filter *filter, uv_loop_t *loop, struct block_device *lower, const char *kind,
                const struct block_device_operations *operations)
{
    int result = pool_init(&filter->ops, sizeof(struct filter_op));
    if (result < 0)
        return result;
    completion_queue_init(&filter->completions, loop);
    filter->device = (struct block_device){.operations = operations, .geometry = lower->geometry, .kind = kind};
    filter->lower = lower;
    filter->held = 0;
    filter->closing = false;
    return 0;
}

static void filter_lower_closed(void *context);

static void filter_close_when_idle(struct filter *filter)
{
    if (filter->closing && filter->held == 0)
        block_device_close(filter->lower, filter_lower_closed, filter);
}

int filter_refresh(struct block_device *device)
{
    struct filter *filter = container_of(device, struct filter, device);
    int result = block_device_refresh(filter->lower);
    if (result == 0)
        filter->device.geometry = filter->lower->geometry;
    return result;
}

struct filter_op *filter_op_new(struct filter *filter, struct block_request *request)
{
    ASSERT(!filter->closing);
    filter->device.geometry = filter->lower->geometry; /* it may have grown */
    int result = block_request_check(&filter->device, request);
    struct filter_op *op = result == 0 ? pool_get(&filter->ops) : NULL;
    if (!op) {
        completion_queue_add(&filter->completions, request, result == 0 ? -ENOMEM : result);
        return NULL;
    }
    memset(op, 0, sizeof(*op));
    list_init(&op->link);
    op->filter = filter;
    op->upper = request;
    filter->held++;
    return op;
}

static void filter_op_lower_done(struct block_request *lower)
{
    struct filter_op *op = container_of(lower, struct filter_op, lower);
    struct filter *filter = op->filter;
    struct block_request *upper = op->upper;
    upper->status = op->override_status ? op->override_status : lower->status;
    upper->ret_miscompare = lower->ret_miscompare;
    pool_put(&filter->ops, op);
    /* Count down only after done: a close called inside it must not free the filter under us. */
    upper->done(upper);
    filter->held--;
    filter_close_when_idle(filter);
}

void filter_op_forward(struct filter_op *op)
{
    const struct block_request *upper = op->upper;
    op->lower = (struct block_request){.operation = upper->operation,
                                       .flags = upper->flags,
                                       .offset_bytes = upper->offset_bytes,
                                       .length_bytes = upper->length_bytes,
                                       .iov = upper->iov,
                                       .iov_count = upper->iov_count,
                                       .done = filter_op_lower_done};
    block_device_submit(op->filter->lower, &op->lower);
}

void filter_op_finish(struct filter_op *op, int status)
{
    struct filter *filter = op->filter;
    struct block_request *upper = op->upper;
    pool_put(&filter->ops, op);
    filter->held--;
    completion_queue_add(&filter->completions, upper, status);
    filter_close_when_idle(filter);
}

void filter_free(struct filter *filter)
{
    void (*closed)(void *context) = filter->closed;
    void *context = filter->closed_context;
    pool_done(&filter->ops);
    free(filter);
    closed(context);
}

static void filter_completions_closed(struct completion_queue *queue)
{
    struct filter *filter = container_of(queue, struct filter, completions);
    if (filter->release)
        filter->release(filter);
    else
        filter_free(filter);
}

static void filter_lower_closed(void *context)
{
    struct filter *filter = context;
    completion_queue_close(&filter->completions, filter_completions_closed);
}

void filter_close(struct filter *filter, void (*closed)(void *context), void *context)
{
    ASSERT(!filter->closing);
    filter->closing = true;
    filter->closed = closed;
    filter->closed_context = context;
    filter_close_when_idle(filter);
}
