/* Handles and calls.
 * Happy path of a call: (re)connect when stale -> send -> receive until the Result with this id.
 * Failures: the connection breaks: reads go round once more, changes fail with -ECONNRESET. The deadline passes: the
 * connection is closed, so that a late answer is never taken for another call's. */
#include "director/library/channel.h"

#include <director/client.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#ifndef DIRECTOR_VERSION
#define DIRECTOR_VERSION "0.1.0"
#endif

struct director {
    struct channel channel;
    char *socket_path;
    int timeout_ms;
    uint64_t last_id;
    struct error error;
};

struct director_watch {
    struct channel channel;
    struct error error;
};

const char *director_version(void)
{
    return DIRECTOR_VERSION;
}

int director_open(const char *socket_path, struct director **ret_director)
{
    const char *from_environment = getenv("DIRECTOR_SOCKET");
    struct director *director = calloc(1, sizeof(*director));
    *ret_director = NULL;
    if (!director)
        return -ENOMEM;
    if (!socket_path)
        socket_path = from_environment && from_environment[0] ? from_environment : DIRECTOR_DEFAULT_SOCKET;
    director->socket_path = strdup(socket_path);
    if (!director->socket_path) {
        free(director);
        return -ENOMEM;
    }
    director->timeout_ms = DIRECTOR_DEFAULT_TIMEOUT_MS;
    channel_init(&director->channel);
    *ret_director = director;
    return channel_connect(&director->channel, director->socket_path, channel_deadline(director->timeout_ms),
                           &director->error);
}

void director_close(struct director *director)
{
    if (!director)
        return;
    channel_close(&director->channel);
    free(director->socket_path);
    free(director);
}

void director_set_timeout(struct director *director, int timeout_ms)
{
    director->timeout_ms = timeout_ms;
}

const char *director_error(const struct director *director)
{
    return director->error.message;
}

static bool only_reads(Director__Verb verb)
{
    return verb == DIRECTOR__VERB__LIST || verb == DIRECTOR__VERB__GET || verb == DIRECTOR__VERB__STATUS ||
           verb == DIRECTOR__VERB__DESCRIBE;
}

/* One attempt: 0 and the Result with the call's id, or an error. */
static int exchange(struct director *director, const Director__Call *call, int64_t deadline,
                    Director__Result **ret_result)
{
    struct error *error = &director->error;
    if (channel_is_stale(&director->channel)) {
        int code = channel_connect(&director->channel, director->socket_path, deadline, error);
        if (code < 0)
            return code;
    }
    int code = channel_send(&director->channel, call, deadline, error);
    /* A server that refuses the frame may answer and close before it was all sent: nothing to read then either. */
    if (code < 0)
        return code;
    for (;;) {
        Director__Result *result = NULL;
        code = channel_receive(&director->channel, deadline, &result, error);
        if (code == 0) {
            channel_close(&director->channel);
            return error_set(error, -ETIMEDOUT, "no answer within %d.%d s", director->timeout_ms / 1000,
                             director->timeout_ms % 1000 / 100);
        }
        if (code < 0)
            return code;
        /* Id 0 with a code is said of the connection itself: too many clients, a malformed frame. */
        if (result->id == call->id || (result->id == 0 && result->code < 0)) {
            *ret_result = result;
            return 0;
        }
        director__result__free_unpacked(result, NULL);
    }
}

static int call_run(struct director *director, Director__Call *call, struct director_result **ret_result)
{
    int64_t deadline = channel_deadline(director->timeout_ms);
    Director__Result *result = NULL;
    call->id = ++director->last_id;
    error_clear(&director->error);
    int code = exchange(director, call, deadline, &result);
    if (code == -ECONNRESET && only_reads(call->verb))
        code = exchange(director, call, deadline, &result);
    else if ((code == -ECONNRESET || code == -ETIMEDOUT) && !only_reads(call->verb)) {
        struct error cause = director->error;
        (void)error_set(&director->error, code, "%.180s; the change may or may not have been made", cause.message);
    }
    if (code < 0)
        return code;
    if (result->code < 0) {
        code = result->code;
        (void)error_set(&director->error, code, "%s", result->message[0] ? result->message : strerror(-code));
        director__result__free_unpacked(result, NULL);
        return code;
    }
    if (ret_result)
        *ret_result = (struct director_result *)result;
    else
        director__result__free_unpacked(result, NULL);
    return 0;
}

static int call_path(struct director *director, Director__Verb verb, const char *path,
                     struct director_result **ret_result)
{
    Director__Call call = DIRECTOR__CALL__INIT;
    call.verb = verb;
    call.path = (char *)path;
    return call_run(director, &call, ret_result);
}

static int call_change(struct director *director, Director__Verb verb, const char *path, const char *name,
                       const struct director_argument *arguments, size_t count, struct director_result **ret_result)
{
    Director__Call call = DIRECTOR__CALL__INIT;
    _cleanup_free_ Director__Property *properties = calloc(count ? count : 1, sizeof(*properties));
    _cleanup_free_ Director__Property **pointers = calloc(count ? count : 1, sizeof(*pointers));
    if (!properties || !pointers)
        return error_set(&director->error, -ENOMEM, "out of memory");
    for (size_t i = 0; i < count; i++) {
        director__property__init(&properties[i]);
        properties[i].name = (char *)arguments[i].name;
        properties[i].value = (char *)arguments[i].value;
        pointers[i] = &properties[i];
    }
    call.verb = verb;
    call.path = (char *)path;
    call.name = (char *)(name ? name : "");
    call.properties = pointers;
    call.n_properties = count;
    return call_run(director, &call, ret_result);
}

int director_list(struct director *director, const char *path, unsigned depth, int full,
                  struct director_result **ret_result)
{
    Director__Call call = DIRECTOR__CALL__INIT;
    call.verb = DIRECTOR__VERB__LIST;
    call.path = (char *)path;
    call.depth = depth;
    call.full = full;
    return call_run(director, &call, ret_result);
}

int director_get(struct director *director, const char *path, struct director_result **ret_result)
{
    return call_path(director, DIRECTOR__VERB__GET, path, ret_result);
}

int director_status(struct director *director, const char *path, struct director_result **ret_result)
{
    return call_path(director, DIRECTOR__VERB__STATUS, path, ret_result);
}

int director_describe(struct director *director, const char *path, struct director_result **ret_result)
{
    return call_path(director, DIRECTOR__VERB__DESCRIBE, path, ret_result);
}

int director_create(struct director *director, const char *path, const char *name,
                    const struct director_argument *arguments, size_t count, struct director_result **ret_result)
{
    return call_change(director, DIRECTOR__VERB__CREATE, path, name, arguments, count, ret_result);
}

int director_set(struct director *director, const char *path, const struct director_argument *arguments, size_t count,
                 struct director_result **ret_result)
{
    return call_change(director, DIRECTOR__VERB__SET, path, NULL, arguments, count, ret_result);
}

int director_delete(struct director *director, const char *path, struct director_result **ret_result)
{
    return call_path(director, DIRECTOR__VERB__DELETE, path, ret_result);
}

int director_action(struct director *director, const char *path, const char *action,
                    const struct director_argument *arguments, size_t count, struct director_result **ret_result)
{
    return call_change(director, DIRECTOR__VERB__ACTION, path, action, arguments, count, ret_result);
}

/* The next Result of a watch that is neither an error nor the last: 1, 0 at the deadline, or its error. */
static int watch_receive(struct director_watch *watch, int64_t deadline, Director__Result **ret_result)
{
    Director__Result *result = NULL;
    if (watch->channel.fd < 0)
        return watch->error.code ? watch->error.code : -ECONNRESET;
    int code = channel_receive(&watch->channel, deadline, &result, &watch->error);
    if (code <= 0)
        return code;
    if (result->code < 0 || !result->more) {
        code = result->code < 0 ? result->code : -ECONNRESET;
        (void)error_set(&watch->error, code, "%s", result->message[0] ? result->message : "the agent ended the watch");
        director__result__free_unpacked(result, NULL);
        channel_close(&watch->channel);
        return code;
    }
    *ret_result = result;
    return 1;
}

int director_watch_open(struct director *director, const char *path, struct director_watch **ret_watch)
{
    int64_t deadline = channel_deadline(director->timeout_ms);
    Director__Call call = DIRECTOR__CALL__INIT;
    Director__Result *result = NULL;
    struct director_watch *watch = calloc(1, sizeof(*watch));
    error_clear(&director->error);
    if (!watch)
        return error_set(&director->error, -ENOMEM, "out of memory");
    channel_init(&watch->channel);
    call.id = 1;
    call.verb = DIRECTOR__VERB__WATCH;
    call.path = (char *)path;
    int code = channel_connect(&watch->channel, director->socket_path, deadline, &watch->error);
    if (code == 0)
        code = channel_send(&watch->channel, &call, deadline, &watch->error);
    if (code == 0) {
        /* The first Result says that the watch stands. */
        code = watch_receive(watch, deadline, &result);
        if (code == 0)
            code = error_set(&watch->error, -ETIMEDOUT, "no answer in time");
    }
    if (code < 0) {
        director->error = watch->error;
        director_watch_close(watch);
        return code;
    }
    director__result__free_unpacked(result, NULL);
    *ret_watch = watch;
    return 0;
}

int director_watch_fd(const struct director_watch *watch)
{
    return watch->channel.fd;
}

int director_watch_next(struct director_watch *watch, int timeout_ms, struct director_result **ret_result)
{
    Director__Result *result = NULL;
    int code = watch_receive(watch, channel_deadline(timeout_ms), &result);
    if (code == 1)
        *ret_result = (struct director_result *)result;
    return code;
}

const char *director_watch_error(const struct director_watch *watch)
{
    return watch->error.message;
}

void director_watch_close(struct director_watch *watch)
{
    if (!watch)
        return;
    channel_close(&watch->channel);
    free(watch);
}

int director_watch(struct director *director, const char *path, director_watch_callback *callback, void *context)
{
    struct director_watch *watch;
    int code = director_watch_open(director, path, &watch);
    if (code < 0)
        return code;
    do {
        struct director_result *event = NULL;
        code = director_watch_next(watch, -1, &event);
        if (code < 0) {
            director->error = watch->error;
            break;
        }
        code = code == 1 ? callback(event, context) : 0;
        director_result_free(event);
    } while (code == 0);
    director_watch_close(watch);
    return code;
}
