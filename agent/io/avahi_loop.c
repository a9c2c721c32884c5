/* What Avahi expects and libuv does differently:
 * - one descriptor may be watched twice; uv_poll_init() refuses that (EEXIST), so the second watch polls a duplicate;
 * - uv_poll reports an error once and stops the handle: it is armed again;
 * - avahi-core asserts that a socket reported to it is readable: an error alone is reported as the wanted events;
 * - timeouts are absolute wall clock times: made relative when they are set;
 * - free may be called from inside the callback of the same object: memory lives until libuv has closed the handle. */
#include "agent/io/avahi_loop.h"

#include <avahi-common/timeval.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct AvahiWatch {
    uv_poll_t poll;
    struct avahi_loop *avahi;
    int fd, duplicate;
    AvahiWatchEvent wanted, happened;
    AvahiWatchCallback callback;
    void *context;
};

struct AvahiTimeout {
    uv_timer_t timer;
    struct avahi_loop *avahi;
    AvahiTimeoutCallback callback;
    void *context;
};

static void watch_ready(uv_poll_t *poll, int status, int events);

static void watch_arm(AvahiWatch *watch)
{
    int events = 0;
    if (watch->wanted & AVAHI_WATCH_IN)
        events |= UV_READABLE;
    if (watch->wanted & AVAHI_WATCH_OUT)
        events |= UV_WRITABLE;
    if (watch->wanted & AVAHI_WATCH_HUP)
        events |= UV_DISCONNECT;
    if (events)
        (void)uv_poll_start(&watch->poll, events, watch_ready);
    else
        (void)uv_poll_stop(&watch->poll);
}

static void watch_ready(uv_poll_t *poll, int status, int events)
{
    AvahiWatch *watch = poll->data;
    unsigned happened = 0;
    if (status < 0) {
        happened = watch->wanted & (AVAHI_WATCH_IN | AVAHI_WATCH_OUT);
        watch_arm(watch);
    }
    if (events & UV_READABLE)
        happened |= AVAHI_WATCH_IN;
    if (events & UV_WRITABLE)
        happened |= AVAHI_WATCH_OUT;
    if (events & UV_DISCONNECT)
        happened |= AVAHI_WATCH_HUP;
    if (!watch->callback || !happened)
        return;
    watch->happened = happened;
    watch->callback(watch, watch->fd, happened, watch->context);
    watch->happened = 0;
}

static AvahiWatch *watch_new(const AvahiPoll *api, int fd, AvahiWatchEvent wanted, AvahiWatchCallback callback,
                             void *context)
{
    struct avahi_loop *avahi = api->userdata;
    AvahiWatch *watch = calloc(1, sizeof(*watch));
    if (!watch)
        return NULL;
    *watch = (AvahiWatch){
        .avahi = avahi, .fd = fd, .duplicate = -1, .wanted = wanted, .callback = callback, .context = context};
    int result = uv_poll_init(avahi->loop, &watch->poll, fd);
    if (result == UV_EEXIST) {
        watch->duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        result = watch->duplicate < 0 ? UV_EMFILE : uv_poll_init(avahi->loop, &watch->poll, watch->duplicate);
    }
    if (result < 0) {
        if (watch->duplicate >= 0)
            close(watch->duplicate);
        free(watch);
        return NULL;
    }
    watch->poll.data = watch;
    avahi->watches++;
    watch_arm(watch);
    return watch;
}

static void watch_update(AvahiWatch *watch, AvahiWatchEvent wanted)
{
    watch->wanted = wanted;
    watch_arm(watch);
}

static AvahiWatchEvent watch_get_events(AvahiWatch *watch)
{
    return watch->happened;
}

static void watch_closed(uv_handle_t *handle)
{
    AvahiWatch *watch = handle->data;
    watch->avahi->watches--;
    free(watch);
}

static void watch_free(AvahiWatch *watch)
{
    watch->callback = NULL;
    uv_close((uv_handle_t *)&watch->poll, watch_closed); /* out of epoll at once: Avahi closes fd next */
    if (watch->duplicate >= 0)
        close(watch->duplicate);
}

static void timeout_over(uv_timer_t *timer)
{
    AvahiTimeout *timeout = timer->data;
    if (timeout->callback)
        timeout->callback(timeout, timeout->context);
}

static void timeout_update(AvahiTimeout *timeout, const struct timeval *when)
{
    if (!when) {
        uv_timer_stop(&timeout->timer);
        return;
    }
    AvahiUsec wait = -avahi_age(when);
    if (wait < 0)
        wait = 0;
    uv_update_time(timeout->avahi->loop);
    uv_timer_start(&timeout->timer, timeout_over, (uint64_t)(wait + 999) / 1000, 0); /* rounded up: never early */
}

static AvahiTimeout *timeout_new(const AvahiPoll *api, const struct timeval *when, AvahiTimeoutCallback callback,
                                 void *context)
{
    AvahiTimeout *timeout = calloc(1, sizeof(*timeout));
    if (!timeout)
        return NULL;
    timeout->avahi = api->userdata;
    timeout->callback = callback;
    timeout->context = context;
    (void)uv_timer_init(timeout->avahi->loop, &timeout->timer);
    timeout->timer.data = timeout;
    timeout->avahi->timeouts++;
    timeout_update(timeout, when);
    return timeout;
}

static void timeout_closed(uv_handle_t *handle)
{
    AvahiTimeout *timeout = handle->data;
    timeout->avahi->timeouts--;
    free(timeout);
}

static void timeout_free(AvahiTimeout *timeout)
{
    timeout->callback = NULL;
    uv_close((uv_handle_t *)&timeout->timer, timeout_closed);
}

void avahi_loop_init(struct avahi_loop *avahi, uv_loop_t *loop)
{
    *avahi = (struct avahi_loop){.loop = loop,
                                 .api = {.userdata = avahi,
                                         .watch_new = watch_new,
                                         .watch_update = watch_update,
                                         .watch_get_events = watch_get_events,
                                         .watch_free = watch_free,
                                         .timeout_new = timeout_new,
                                         .timeout_update = timeout_update,
                                         .timeout_free = timeout_free}};
}
