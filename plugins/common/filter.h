/* What filters have in common: own requests for the lower device, counting, and closing in order.
 *
 * A filter embeds struct filter first, gives submit and close of its own, and for each request it takes
 *     op = filter_op_new()  ->  filter_op_forward()  (completes the upper request when the lower one is done)
 *                           ->  or filter_op_finish() (completes it from the loop, without the lower device). */
#ifndef PLUGINS_COMMON_FILTER_H
#define PLUGINS_COMMON_FILTER_H

#include "plugins/common/completion.h"
#include "plugins/common/pool.h"

struct filter;

struct filter_op {
    struct list link; /* for the filter, until it forwards or finishes */
    struct filter *filter;
    struct block_request *upper;
    struct block_request lower;
    uint64_t arrived_ms; /* for the filter */
    int override_status; /* not 0: answered instead of what the lower device says */
};

struct filter {
    struct block_device device;
    struct block_device *lower;
    struct completion_queue completions;
    struct pool ops;
    unsigned held;
    bool closing;
    void (*closed)(void *context);
    void *closed_context;
    /* Called when all is done and lower is closed: must end in filter_free(). NULL: filter_free() itself. */
    void (*release)(struct filter *filter);
};

/* 0 or -ENOMEM. kind is static text. */
MUST_CHECK int filter_init(struct filter *filter, uv_loop_t *loop, struct block_device *lower, const char *kind,
                           const struct block_device_operations *operations);
/* Check and take a request. NULL: it could not be taken and will be completed with an error. */
struct filter_op *filter_op_new(struct filter *filter, struct block_request *request);
void filter_op_forward(struct filter_op *op);
void filter_op_finish(struct filter_op *op, int status);
/* block_device refresh: that of the lower device, and its geometry. */
int filter_refresh(struct block_device *device);
/* block_device close: everything held by the filter must have been forwarded or finished. Closes lower as well. */
void filter_close(struct filter *filter, void (*closed)(void *context), void *context);
/* End of release: free(filter), then closed. From the loop. */
void filter_free(struct filter *filter);

#endif
