/* Completing requests from the loop, never inline: a list and one idle handle. Belongs to the device's home loop.
 * The link of a waiting request is kept in its device_private. */
#ifndef PLUGINS_COMMON_COMPLETION_H
#define PLUGINS_COMMON_COMPLETION_H

#include "director/base/list.h"
#include <director/block_device.h>
#include <uv.h>

struct completion_queue {
    uv_idle_t idle; /* active while something waits, so that the loop neither sleeps nor ends */
    struct list ready;
    unsigned waiting; /* added and not yet completed */
    bool closing;
    void (*closed)(struct completion_queue *queue);
};

/* Cannot fail: libuv's idle handles have no resources. */
void completion_queue_init(struct completion_queue *queue, uv_loop_t *loop);
/* request->done runs in the next turn of the loop, with status. */
void completion_queue_add(struct completion_queue *queue, struct block_request *request, int status);
/* Once. What waits is completed first; then closed runs from the loop. */
void completion_queue_close(struct completion_queue *queue, void (*closed)(struct completion_queue *queue));

#endif
