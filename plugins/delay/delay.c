/* Filter delay: each operation waits a while before it goes on to the lower device.
 *
 * Operations of one kind are released in the order they came, so one timer and a queue per kind suffice: only the head of
 * each queue can be due next. A change of the delay holds for what waits already, too. */
#include "plugins/common/filter.h"
#include "plugins/common/option.h"

#include <errno.h>

enum delay_kind { DELAY_READ, DELAY_WRITE, DELAY_FLUSH, DELAY_UNMAP, DELAY_KINDS };
static const char *const delay_names[DELAY_KINDS] = {"read_ms", "write_ms", "flush_ms", "unmap_ms"};
#define DELAY_MAX_MS (24u * 3600 * 1000)

struct delay {
    struct filter filter;
    uv_loop_t *loop;
    uv_timer_t timer;
    uint64_t delay_ms[DELAY_KINDS];
    struct list waiting[DELAY_KINDS];
};

static enum delay_kind delay_kind_of(const struct block_request *request)
{
    switch (request->operation) {
    case BLOCK_READ:
        return DELAY_READ;
    case BLOCK_FLUSH:
        return DELAY_FLUSH;
    case BLOCK_UNMAP:
    case BLOCK_WRITE_ZEROES:
        return DELAY_UNMAP;
    default:
        return DELAY_WRITE;
    }
}

static void delay_timeout(uv_timer_t *timer);

/* Forward what is due and set the timer for what is due next. */
static void delay_release(struct delay *delay)
{
    uint64_t next_ms = UINT64_MAX;
    uint64_t now_ms = uv_now(delay->loop);
    for (unsigned kind = 0; kind < DELAY_KINDS; kind++) {
        while (!list_empty(&delay->waiting[kind])) {
            struct filter_op *op = list_first(&delay->waiting[kind], struct filter_op, link);
            uint64_t due_ms = op->arrived_ms + delay->delay_ms[kind];
            if (due_ms > now_ms && !delay->filter.closing) {
                next_ms = MIN(next_ms, due_ms);
                break;
            }
            list_remove(&op->link);
            filter_op_forward(op);
        }
    }
    if (next_ms == UINT64_MAX)
        (void)uv_timer_stop(&delay->timer);
    else
        (void)uv_timer_start(&delay->timer, delay_timeout, next_ms - now_ms, 0);
}

static void delay_timeout(uv_timer_t *timer)
{
    delay_release(container_of(timer, struct delay, timer));
}

static void delay_submit(struct block_device *device, struct block_request *request)
{
    struct delay *delay = container_of(device, struct delay, filter.device);
    struct filter_op *op = filter_op_new(&delay->filter, request);
    if (!op)
        return;
    enum delay_kind kind = delay_kind_of(request);
    if (delay->delay_ms[kind] == 0 && list_empty(&delay->waiting[kind])) {
        filter_op_forward(op);
        return;
    }
    uv_update_time(delay->loop); /* the loop's time is that of the turn's begin: a wait must not be cut short */
    op->arrived_ms = uv_now(delay->loop);
    bool first = list_empty(&delay->waiting[kind]);
    list_append(&delay->waiting[kind], &op->link);
    if (first)
        delay_release(delay);
}

static void delay_close(struct block_device *device, void (*closed)(void *context), void *context)
{
    struct delay *delay = container_of(device, struct delay, filter.device);
    filter_close(&delay->filter, closed, context);
    delay_release(delay); /* nothing waits any longer */
}

static const struct block_device_operations delay_operations = {.submit = delay_submit, .close = delay_close,
                                                                .refresh = filter_refresh};

static void delay_timer_closed(uv_handle_t *handle)
{
    filter_free(&container_of((uv_timer_t *)handle, struct delay, timer)->filter);
}

static void delay_filter_release(struct filter *filter)
{
    struct delay *delay = container_of(filter, struct delay, filter);
    uv_close((uv_handle_t *)&delay->timer, delay_timer_closed);
}

static int delay_parse(const struct director_option *options, uint64_t delay_ms[DELAY_KINDS],
                       struct director_plugin_error *error)
{
    uint64_t all_ms = 0;
    int result = option_get_number(options, "ms", &all_ms);
    bool all = option_find(options, "ms") && option_find(options, "ms")[0];
    for (unsigned kind = 0; kind < DELAY_KINDS && result == 0; kind++) {
        if (all)
            delay_ms[kind] = all_ms;
        const char *text = option_find(options, delay_names[kind]);
        if (text && text[0])
            result = option_parse_number(text, &delay_ms[kind]);
        if (delay_ms[kind] > DELAY_MAX_MS)
            result = -ERANGE;
    }
    if (result < 0)
        return plugin_error_set(error, -EINVAL, "delay: milliseconds from 0 to %u are possible", DELAY_MAX_MS);
    return 0;
}

static int delay_open(struct uv_loop_s *loop, const char *path, struct block_device *lower,
                      const struct director_option *options, struct block_device **ret_device,
                      struct director_plugin_error *error)
{
    (void)path;
    struct delay *delay = calloc(1, sizeof(*delay));
    if (!delay)
        return -ENOMEM;
    int result = delay_parse(options, delay->delay_ms, error);
    if (result == 0)
        result = filter_init(&delay->filter, loop, lower, "delay", &delay_operations);
    if (result < 0) {
        free(delay);
        return result;
    }
    delay->filter.release = delay_filter_release;
    delay->loop = loop;
    (void)uv_timer_init(loop, &delay->timer);
    for (unsigned kind = 0; kind < DELAY_KINDS; kind++)
        list_init(&delay->waiting[kind]);
    *ret_device = &delay->filter.device;
    return 0;
}

static int delay_configure(struct block_device *device, const struct director_option *options,
                           struct director_plugin_error *error)
{
    struct delay *delay = container_of(device, struct delay, filter.device);
    uint64_t delay_ms[DELAY_KINDS];
    for (unsigned kind = 0; kind < DELAY_KINDS; kind++)
        delay_ms[kind] = delay->delay_ms[kind];
    int result = delay_parse(options, delay_ms, error);
    if (result < 0)
        return result;
    for (unsigned kind = 0; kind < DELAY_KINDS; kind++)
        delay->delay_ms[kind] = delay_ms[kind];
    uv_update_time(delay->loop);
    delay_release(delay);
    return 0;
}

/* The kinds are texts, so that "as ms says" (empty) and 0 differ. */
static const struct director_parameter delay_parameters[] = {
    {"ms", DIRECTOR_PARAMETER_NUMBER, DIRECTOR_PARAMETER_LIVE, "0", "Milliseconds that every operation waits."},
    {"read_ms", DIRECTOR_PARAMETER_STRING, DIRECTOR_PARAMETER_LIVE, "", "Milliseconds for reads, instead of ms."},
    {"write_ms", DIRECTOR_PARAMETER_STRING, DIRECTOR_PARAMETER_LIVE, "", "Milliseconds for writes, instead of ms."},
    {"flush_ms", DIRECTOR_PARAMETER_STRING, DIRECTOR_PARAMETER_LIVE, "", "Milliseconds for flushes, instead of ms."},
    {"unmap_ms", DIRECTOR_PARAMETER_STRING, DIRECTOR_PARAMETER_LIVE, "",
     "Milliseconds for unmaps and zeroes, instead of ms."},
    {NULL, 0, 0, NULL, NULL},
};

DIRECTOR_PLUGIN_EXPORT const struct director_plugin director_plugin = {
    .struct_bytes = sizeof(director_plugin),
    .abi_major = DIRECTOR_PLUGIN_ABI_MAJOR,
    .abi_minor = DIRECTOR_PLUGIN_ABI_MINOR,
    .name = "delay",
    .version = "1.0",
    .summary = "Slows operations down, to show what a slow disk does.",
    .kind = DIRECTOR_PLUGIN_FILTER,
    .parameters = delay_parameters,
    .open = delay_open,
    .configure = delay_configure,
};
