/* The API server. See server.h for what it promises.
 *
 * A client's life: accepted -> OPEN (reads frames, answers) -> DRAINING (nothing is read any more; what is queued goes
 * out, then it is closed; at most LINGER_MS) -> CLOSING (uv_close under way) -> freed in client_closed().
 * A Call's life: taken off the reader -> handler -> reply packed and queued -> written: only then it no longer counts as
 * under way, so that a client that does not read its answers is not read from (A2). */
#include "agent/api/server.h"

#include "agent/api/listen.h"
#include "agent/api/request.h"
#include "director/base/bytes.h"
#include "director/base/list.h"
#include "proto/frame.h"
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINGER_MS = 2000, SWEEP_MS = 500, BACKLOG = 64, TURNED_AWAY_MAX = 16 };

enum client_state { CLIENT_OPEN, CLIENT_DRAINING, CLIENT_CLOSING };

struct api_server {
    uv_loop_t *loop;
    uv_pipe_t listener;
    uv_timer_t sweep; /* closes draining clients that do not read; the last handle to go */
    struct list clients;
    unsigned client_count;
    unsigned call_count; /* with the handler (A1) */
    struct api_server_options options;
    char *socket_path;
    api_call_handler *handler;
    void *context;
    bool closing, listener_closed;
    void (*closed)(void *context);
    void *closed_context;
};

struct watch {
    struct list link;
    uint64_t id;
    char path[];
};

struct api_client {
    struct list link; /* server->clients */
    struct api_server *server;
    uv_pipe_t pipe;
    enum client_state state;
    bool reading;
    uint64_t drain_until_ms;
    uid_t uid;
    struct frame_reader reader;
    struct list calls;    /* with the handler */
    unsigned under_way;   /* with the handler, or answered and not yet written */
    struct list watches;
    unsigned watch_count;
    size_t queued_events; /* bytes */
};

struct api_call {
    struct list link;
    struct api_server *server;
    struct api_client *client; /* NULL: gone */
    Director__Call *request;
    uid_t uid;
};

enum write_kind { WRITE_ANSWER, WRITE_EVENT, WRITE_LAST };

struct write_job {
    uv_write_t request;
    struct api_client *client;
    enum write_kind kind;
    size_t size;
    uint8_t bytes[];
};

static void client_take(struct api_client *client);

/* ---- end of a server ----------------------------------------------------------------------------------------------- */

static void server_freed(uv_handle_t *handle)
{
    struct api_server *server = handle->data;
    void (*closed)(void *) = server->closed;
    void *context = server->closed_context;
    free(server->socket_path);
    free(server);
    if (closed)
        closed(context);
}

static void server_end_check(struct api_server *server)
{
    if (!server->closing || !server->listener_closed || server->client_count || server->call_count)
        return;
    if (!uv_is_closing((uv_handle_t *)&server->sweep))
        uv_close((uv_handle_t *)&server->sweep, server_freed);
}

/* ---- end of a client ----------------------------------------------------------------------------------------------- */

static void client_closed(uv_handle_t *handle)
{
    struct api_client *client = handle->data;
    struct api_server *server = client->server;
    list_foreach_safe(node, after, &client->watches)
        free(list_entry(node, struct watch, link));
    frame_reader_done(&client->reader);
    list_remove(&client->link);
    server->client_count--;
    free(client);
    server_end_check(server);
}

static void client_close(struct api_client *client)
{
    if (client->state == CLIENT_CLOSING)
        return;
    client->state = CLIENT_CLOSING;
    list_foreach_safe(node, after, &client->calls) {
        list_entry(node, struct api_call, link)->client = NULL;
        list_remove(node);
    }
    uv_close((uv_handle_t *)&client->pipe, client_closed);
}

static void client_read_stop(struct api_client *client)
{
    if (client->reading)
        (void)uv_read_stop((uv_stream_t *)&client->pipe);
    client->reading = false;
}

/* ---- writing --------------------------------------------------------------------------------------------------------- */

static void write_done(uv_write_t *request, int status)
{
    struct write_job *job = container_of(request, struct write_job, request);
    struct api_client *client = job->client;
    enum write_kind kind = job->kind;
    if (kind == WRITE_ANSWER)
        client->under_way--;
    else if (kind == WRITE_EVENT)
        client->queued_events -= job->size;
    free(job);
    if (client->state == CLIENT_CLOSING)
        return;
    if (status < 0 || kind == WRITE_LAST)
        client_close(client);
    else
        client_take(client);
}

/* Queue a Result. Out of memory drops the client: it would wait for ever otherwise. */
static void client_send(struct api_client *client, const Director__Result *result, enum write_kind kind)
{
    size_t size = director__result__get_packed_size(result);
    struct write_job *job = malloc(sizeof(*job) + FRAME_HEADER_BYTES + size);
    if (!job) {
        client_close(client);
        return;
    }
    job->client = client;
    job->kind = kind;
    job->size = FRAME_HEADER_BYTES + size;
    put_le32(job->bytes, (uint32_t)size);
    director__result__pack(result, job->bytes + FRAME_HEADER_BYTES);
    uv_buf_t buffer = uv_buf_init((char *)job->bytes, (unsigned)job->size);
    if (uv_write(&job->request, (uv_stream_t *)&client->pipe, &buffer, 1, write_done) < 0) {
        free(job);
        client_close(client);
        return;
    }
    if (kind == WRITE_EVENT)
        client->queued_events += job->size;
}

static void sweep(uv_timer_t *timer)
{
    struct api_server *server = timer->data;
    bool again = false;
    list_foreach_safe(node, after, &server->clients) {
        struct api_client *client = list_entry(node, struct api_client, link);
        if (client->state != CLIENT_DRAINING)
            continue;
        if (uv_now(server->loop) >= client->drain_until_ms)
            client_close(client);
        else
            again = true;
    }
    if (!again)
        (void)uv_timer_stop(timer);
}

/* Say one last thing, then close, whether it is read or not. */
static void client_drop(struct api_client *client, uint64_t id, int code, const char *message)
{
    struct api_server *server = client->server;
    Director__Result result = DIRECTOR__RESULT__INIT;
    if (client->state != CLIENT_OPEN)
        return;
    client_read_stop(client);
    client->state = CLIENT_DRAINING;
    client->drain_until_ms = uv_now(server->loop) + LINGER_MS;
    if (!uv_is_active((uv_handle_t *)&server->sweep))
        (void)uv_timer_start(&server->sweep, sweep, SWEEP_MS, SWEEP_MS);
    result.id = id;
    result.code = code;
    result.message = (char *)message;
    client_send(client, &result, WRITE_LAST);
}

/* ---- watching -------------------------------------------------------------------------------------------------------- */

/* Is path at or below the watched one? */
static bool watch_covers(const char *watched, const char *path)
{
    size_t length = strlen(watched);
    while (length && watched[length - 1] == '/')
        length--;
    return strncmp(watched, path, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static void client_watch(struct api_client *client, const Director__Call *call)
{
    Director__Result result = DIRECTOR__RESULT__INIT;
    struct watch *watch = NULL;
    result.id = call->id;
    if (client->watch_count >= client->server->options.max_watches) {
        result.code = -EUSERS;
        result.message = (char *)"too many watches on this connection";
    } else if (!(watch = malloc(sizeof(*watch) + strlen(call->path) + 1))) {
        result.code = -ENOMEM;
        result.message = (char *)"out of memory";
    } else {
        watch->id = call->id;
        strcpy(watch->path, call->path);
        list_append(&client->watches, &watch->link);
        client->watch_count++;
        result.more = true;
    }
    client->under_way++;
    client_send(client, &result, WRITE_ANSWER);
}

void api_server_publish(struct api_server *server, const char *path, Director__Result *event)
{
    uint64_t id_before = event->id;
    event->more = true;
    list_foreach_safe(node, after, &server->clients) {
        struct api_client *client = list_entry(node, struct api_client, link);
        list_foreach(watch_node, &client->watches) {
            struct watch *watch = list_entry(watch_node, struct watch, link);
            if (client->state != CLIENT_OPEN)
                break;
            if (!watch_covers(watch->path, path))
                continue;
            event->id = watch->id;
            size_t size = director__result__get_packed_size(event) + FRAME_HEADER_BYTES;
            if (client->queued_events + size > server->options.max_queued_bytes) {
                /* A3 */
                client_drop(client, watch->id, -EOVERFLOW,
                            "events were lost because they were not read quickly enough; read the state anew and watch again");
                break;
            }
            client_send(client, event, WRITE_EVENT);
        }
    }
    event->id = id_before;
}

/* ---- calls ----------------------------------------------------------------------------------------------------------- */

const Director__Call *api_call_request(const struct api_call *call)
{
    return call->request;
}

uid_t api_call_uid(const struct api_call *call)
{
    return call->uid;
}

bool api_call_gone(const struct api_call *call)
{
    return call->client == NULL;
}

void api_call_reply(struct api_call *call, Director__Result *result)
{
    struct api_server *server = call->server;
    struct api_client *client = call->client;
    if (client) {
        list_remove(&call->link);
        result->id = call->request->id;
        size_t size = director__result__get_packed_size(result);
        if (size > FRAME_MAX_BYTES) {
            char words[128];
            Director__Result refusal = DIRECTOR__RESULT__INIT;
            (void)snprintf(words, sizeof(words), "the answer would be %zu MiB, more than %u: ask for less at once", size >> 20,
                           FRAME_MAX_BYTES >> 20);
            refusal.id = result->id;
            refusal.code = -EMSGSIZE;
            refusal.message = words;
            client_send(client, &refusal, WRITE_ANSWER);
        } else {
            client_send(client, result, WRITE_ANSWER);
        }
    }
    director__call__free_unpacked(call->request, NULL);
    free(call);
    server->call_count--;
    server_end_check(server);
}

void api_call_fail(struct api_call *call, int code, const char *format, ...)
{
    char words[512];
    va_list arguments;
    Director__Result result = DIRECTOR__RESULT__INIT;
    va_start(arguments, format);
    (void)vsnprintf(words, sizeof(words), format, arguments);
    va_end(arguments);
    result.code = code;
    result.message = words;
    api_call_reply(call, &result);
}

static void client_call(struct api_client *client, Director__Call *request)
{
    struct api_server *server = client->server;
    struct api_call *call = malloc(sizeof(*call));
    if (!call) {
        director__call__free_unpacked(request, NULL);
        client_close(client);
        return;
    }
    *call = (struct api_call){.server = server, .client = client, .request = request, .uid = client->uid};
    list_append(&client->calls, &call->link);
    client->under_way++;
    server->call_count++;
    server->handler(call, server->context);
}

/* One frame's payload. */
static void client_frame(struct api_client *client, const uint8_t *payload, size_t size)
{
    Director__Call *request;
    struct error error;
    uint64_t id;
    int code = api_request_decode(payload, size, &request, &id, &error);
    if (code == -EINVAL) {
        Director__Result result = DIRECTOR__RESULT__INIT;
        result.id = id;
        result.code = code;
        result.message = error.message;
        client->under_way++;
        client_send(client, &result, WRITE_ANSWER);
    } else if (code < 0) {
        client_drop(client, 0, code, error.message);
    } else if (request->verb == DIRECTOR__VERB__WATCH) {
        client_watch(client, request);
        director__call__free_unpacked(request, NULL);
    } else {
        client_call(client, request);
    }
}

static bool client_has_room(const struct api_client *client)
{
    return client->under_way < client->server->options.max_calls &&
           uv_stream_get_write_queue_size((const uv_stream_t *)&client->pipe) < client->server->options.max_queued_bytes;
}

static void read_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    static char shared[65536]; /* one loop thread; emptied by read_done before the next read */
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(shared, sizeof(shared));
}

static void read_done(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct api_client *client = stream->data;
    if (size == 0 || client->state != CLIENT_OPEN)
        return;
    /* End of file means gone: a client that gives up waiting must not hold its place until the answer comes. */
    if (size < 0 || frame_reader_push(&client->reader, buffer->base, (size_t)size) < 0) {
        client_close(client);
        return;
    }
    client_take(client);
}

/* Take frames while there is room, then read on or pause. */
static void client_take(struct api_client *client)
{
    while (client->state == CLIENT_OPEN && client_has_room(client)) {
        const uint8_t *payload;
        size_t size, announced = 0;
        char words[160];
        int next = frame_reader_next(&client->reader, &payload, &size, &announced);
        if (next == 0) {
            if (!client->reading) {
                client->reading = uv_read_start((uv_stream_t *)&client->pipe, read_allocate, read_done) == 0;
                if (!client->reading)
                    client_close(client);
            }
            return;
        }
        if (next == -EMSGSIZE) {
            (void)snprintf(words, sizeof(words), "a frame of %zu bytes is more than the %zu a request may have", announced,
                           client->server->options.max_request_bytes);
            client_drop(client, 0, next, words);
        } else if (next < 0) {
            client_drop(client, 0, next, "a frame without content is no request");
        } else {
            client_frame(client, payload, size);
        }
    }
    if (client->state == CLIENT_OPEN)
        client_read_stop(client);
}

/* ---- connections ------------------------------------------------------------------------------------------------------ */

static void client_accepted(uv_stream_t *listener, int status)
{
    struct api_server *server = listener->data;
    struct ucred peer;
    socklen_t peer_size = sizeof(peer);
    uv_os_fd_t fd;
    if (status < 0 || server->closing)
        return;
    struct api_client *client = calloc(1, sizeof(*client));
    if (!client)
        return;
    client->server = server;
    client->pipe.data = client;
    client->uid = (uid_t)-1;
    list_init(&client->calls);
    list_init(&client->watches);
    frame_reader_init(&client->reader, server->options.max_request_bytes);
    if (uv_pipe_init(server->loop, &client->pipe, 0) < 0) {
        free(client);
        return;
    }
    list_append(&server->clients, &client->link);
    server->client_count++;
    if (uv_accept(listener, (uv_stream_t *)&client->pipe) < 0) {
        client_close(client);
        return;
    }
    if (uv_fileno((uv_handle_t *)&client->pipe, &fd) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_size) == 0)
        client->uid = peer.uid;
    if (server->client_count > server->options.max_clients + TURNED_AWAY_MAX)
        client_close(client);
    else if (server->client_count > server->options.max_clients)
        client_drop(client, 0, -EUSERS, "too many clients are connected to this agent; try again later");
    else
        client_take(client);
}

static void listener_closed(uv_handle_t *handle)
{
    struct api_server *server = handle->data;
    server->listener_closed = true;
    server_end_check(server);
}

static void options_fill(struct api_server_options *options)
{
    if (!options->max_clients)
        options->max_clients = 64;
    if (!options->max_calls)
        options->max_calls = 16;
    if (!options->max_watches)
        options->max_watches = 16;
    if (!options->max_request_bytes)
        options->max_request_bytes = 1u << 20;
    if (!options->max_queued_bytes)
        options->max_queued_bytes = 1u << 20;
}

int api_server_new(uv_loop_t *loop, const struct api_server_options *options, api_call_handler *handler, void *context,
                   struct api_server **ret_server, struct error *error)
{
    struct api_server *server = calloc(1, sizeof(*server));
    char *path = strdup(options->socket_path);
    if (!server || !path) {
        free(server);
        free(path);
        return error_set(error, -ENOMEM, "out of memory");
    }
    int fd = api_listen_socket(path, options->group, error);
    if (fd < 0) {
        free(server);
        free(path);
        return fd;
    }
    *server = (struct api_server){
        .loop = loop, .options = *options, .socket_path = path, .handler = handler, .context = context};
    options_fill(&server->options);
    list_init(&server->clients);
    server->listener.data = server->sweep.data = server;
    (void)uv_timer_init(loop, &server->sweep);         /* these two cannot fail */
    (void)uv_pipe_init(loop, &server->listener, 0);
    int code = uv_pipe_open(&server->listener, fd);
    if (code < 0)
        close(fd);
    else
        code = uv_listen((uv_stream_t *)&server->listener, BACKLOG, client_accepted);
    if (code < 0) {
        (void)error_set(error, code, "cannot listen on %s: %s", path, uv_strerror(code));
        api_server_close(server, NULL, NULL);
        return code;
    }
    *ret_server = server;
    return 0;
}

void api_server_close(struct api_server *server, void (*closed)(void *context), void *context)
{
    ASSERT(!server->closing);
    server->closing = true;
    server->closed = closed;
    server->closed_context = context;
    (void)unlink(server->socket_path);
    list_foreach_safe(node, after, &server->clients)
        client_close(list_entry(node, struct api_client, link));
    uv_close((uv_handle_t *)&server->listener, listener_closed);
}

unsigned api_server_client_count(const struct api_server *server)
{
    return server->client_count;
}
