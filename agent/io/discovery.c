#define LOG_MODULE "discovery"
#include "agent/io/discovery.h"

#include "director/base/log.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#define BACKOFF_MIN_MS  200
#define BACKOFF_MAX_MS  5000
#define SETTLED_MS      10000
#define SWEEP_MS        5000      /* after a restart: who was not seen again by then is gone */
#define GOODBYE_MS      1000      /* then the helper is killed */
#define QUEUE_MAX_BYTES (64u << 10)

/* One run of the helper. */
struct run {
    struct discovery *discovery;
    uv_process_t process;
    uv_pipe_t pipe;
    unsigned open;
    bool pipe_closing;
    char buffer[4096];
    char line[DISCOVERY_LINE_MAX + 1];
    size_t line_size;
};

struct known {
    struct discovery_peer peer;
    bool stale; /* not seen since the helper was started again */
};

struct discovery {
    uv_loop_t *loop;
    char *helper, *interface;
    char tag[DISCOVERY_TAG_SIZE];
    struct discovery_peer self;
    void (*on_peer)(const struct discovery_peer *peer, void *context);
    void (*on_gone)(const struct discovery_peer *peer, void *context);
    void *context;
    uv_timer_t timer; /* restart; while closing: goodbye */
    uv_timer_t sweep;
    uv_timer_t seeds_timer;
    unsigned timers_open;
    struct run *run;
    unsigned restarts, backoff_ms;
    uint64_t started_ms;
    bool closing, full_told;
    void (*closed)(void *context);
    void *closed_context;
    unsigned seed_count;
    struct discovery_peer seeds[DISCOVERY_PEERS_MAX];
    unsigned known_count;
    struct known known[DISCOVERY_PEERS_MAX];
};

static void helper_start(struct discovery *discovery);

/* ---- what is known ---- */

static struct known *known_find(struct discovery *discovery, const struct uuid *uuid)
{
    for (unsigned i = 0; i < discovery->known_count; i++)
        if (uuid_equal(&discovery->known[i].peer.uuid, uuid))
            return &discovery->known[i];
    return NULL;
}

static void peer_seen(struct discovery *discovery, const struct discovery_peer *peer)
{
    if (uuid_equal(&peer->uuid, &discovery->self.uuid))
        return;
    struct known *known = known_find(discovery, &peer->uuid);
    if (!known) {
        if (discovery->known_count == DISCOVERY_PEERS_MAX) {
            if (!discovery->full_told)
                log_warning("more than %d peers announce themselves: the others are not looked at; name yours by --seeds",
                            DISCOVERY_PEERS_MAX);
            discovery->full_told = true;
            return;
        }
        known = &discovery->known[discovery->known_count++];
    } else {
        known->stale = false;
        if (discovery_peer_equal(&known->peer, peer))
            return;
    }
    *known = (struct known){.peer = *peer};
    discovery->on_peer(peer, discovery->context);
}

static void known_remove(struct discovery *discovery, struct known *known)
{
    struct discovery_peer peer = known->peer;
    *known = discovery->known[--discovery->known_count];
    discovery->on_gone(&peer, discovery->context);
}

static void sweep_over(uv_timer_t *timer)
{
    struct discovery *discovery = timer->data;
    for (unsigned i = 0; i < discovery->known_count && !discovery->closing;) {
        if (discovery->known[i].stale)
            known_remove(discovery, &discovery->known[i]);
        else
            i++;
    }
}

/* ---- the helper ---- */

static void timer_closed(uv_handle_t *handle)
{
    struct discovery *discovery = handle->data;
    if (--discovery->timers_open)
        return;
    void (*closed)(void *) = discovery->closed;
    void *context = discovery->closed_context;
    free(discovery->helper);
    free(discovery->interface);
    free(discovery);
    if (closed)
        closed(context);
}

static void discovery_finish(struct discovery *discovery)
{
    discovery->timers_open = 3;
    uv_close((uv_handle_t *)&discovery->timer, timer_closed);
    uv_close((uv_handle_t *)&discovery->sweep, timer_closed);
    uv_close((uv_handle_t *)&discovery->seeds_timer, timer_closed);
}

static void restart_over(uv_timer_t *timer)
{
    helper_start(timer->data);
}

static void restart_later(struct discovery *discovery)
{
    if (uv_now(discovery->loop) - discovery->started_ms >= SETTLED_MS)
        discovery->backoff_ms = BACKOFF_MIN_MS;
    discovery->restarts++;
    for (unsigned i = 0; i < discovery->known_count; i++)
        discovery->known[i].stale = true;
    uv_timer_start(&discovery->timer, restart_over, discovery->backoff_ms, 0);
    discovery->backoff_ms = MIN(discovery->backoff_ms * 2, (unsigned)BACKOFF_MAX_MS);
}

/* Process and pipe of a run are both gone. */
static void run_part_closed(uv_handle_t *handle)
{
    struct run *run = handle->data;
    struct discovery *discovery = run->discovery;
    if (--run->open)
        return;
    free(run);
    discovery->run = NULL;
    if (discovery->closing)
        discovery_finish(discovery);
    else
        restart_later(discovery);
}

static void run_pipe_close(struct run *run)
{
    if (run->pipe_closing)
        return;
    run->pipe_closing = true;
    uv_close((uv_handle_t *)&run->pipe, run_part_closed);
}

/* It hung up, or said what we do not understand: end it. */
static void run_give_up(struct run *run, const char *words)
{
    if (run->pipe_closing)
        return;
    if (!run->discovery->closing)
        log_warning("director-discovery %d: running -> ending, because %s", run->process.pid, words);
    run_pipe_close(run);
    (void)uv_process_kill(&run->process, SIGKILL);
}

static void run_exited(uv_process_t *process, int64_t status, int signal_number)
{
    struct run *run = process->data;
    if (!run->discovery->closing)
        log_warning("director-discovery %d: running -> ended, because of %s %d", process->pid,
                    signal_number ? "signal" : "status", signal_number ? signal_number : (int)status);
    run_pipe_close(run);
    uv_close((uv_handle_t *)process, run_part_closed);
}

static void run_line(struct run *run)
{
    struct discovery *discovery = run->discovery;
    struct discovery_message message;
    if (discovery_message_decode(run->line, run->line_size, &message) < 0 || message.verb == DISCOVERY_SELF) {
        run_give_up(run, "it said something that is not understood");
        return;
    }
    if (message.verb == DISCOVERY_PEER) {
        peer_seen(discovery, &message.peer);
        return;
    }
    struct known *known = known_find(discovery, &message.peer.uuid);
    if (known)
        known_remove(discovery, known);
}

static void run_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct run *run = handle->data;
    (void)suggested;
    *buffer = uv_buf_init(run->buffer, sizeof(run->buffer));
}

static void run_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct run *run = stream->data;
    if (size < 0) {
        run_give_up(run, "it hung up");
        return;
    }
    for (ssize_t i = 0; i < size && !run->pipe_closing && !run->discovery->closing; i++) {
        if (buffer->base[i] == '\n') {
            run_line(run);
            run->line_size = 0;
        } else if (run->line_size == DISCOVERY_LINE_MAX) {
            run_give_up(run, "it sent a line that is too long");
        } else {
            run->line[run->line_size++] = buffer->base[i];
        }
    }
}

struct outgoing {
    uv_write_t request;
    char line[DISCOVERY_LINE_MAX + 1];
};

static void written(uv_write_t *request, int status)
{
    (void)status; /* reading tells of the end */
    free(container_of(request, struct outgoing, request));
}

static void run_announce(struct run *run)
{
    struct discovery *discovery = run->discovery;
    struct discovery_message message = {.verb = DISCOVERY_SELF, .peer = discovery->self};
    struct outgoing *outgoing = malloc(sizeof(*outgoing));
    memcpy(message.tag, discovery->tag, sizeof(message.tag));
    int length = outgoing ? discovery_message_encode(&message, outgoing->line) : -ENOMEM;
    uv_buf_t buffer = uv_buf_init(outgoing ? outgoing->line : NULL, length < 0 ? 0 : (unsigned)length);
    if (length < 0 || uv_stream_get_write_queue_size((uv_stream_t *)&run->pipe) > QUEUE_MAX_BYTES ||
        uv_write(&outgoing->request, (uv_stream_t *)&run->pipe, &buffer, 1, written) < 0) {
        free(outgoing);
        run_give_up(run, "it does not read what we say");
    }
}

static void helper_start(struct discovery *discovery)
{
    struct run *run = calloc(1, sizeof(*run));
    discovery->started_ms = uv_now(discovery->loop);
    if (!run || uv_pipe_init(discovery->loop, &run->pipe, 0) < 0) {
        free(run);
        restart_later(discovery);
        return;
    }
    run->discovery = discovery;
    run->process.data = run->pipe.data = run;
    run->open = 2;
    discovery->run = run;
    char *arguments[] = {discovery->helper, discovery->interface ? (char *)"--interface" : NULL, discovery->interface, NULL};
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_CREATE_PIPE | UV_READABLE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&run->pipe},
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO}};
    uv_process_options_t options = {
        .file = discovery->helper, .args = arguments, .exit_cb = run_exited, .stdio = stdio, .stdio_count = 3};
    int result = uv_spawn(discovery->loop, &run->process, &options);
    if (result < 0) {
        log_warning("cannot run %s: %s; peers are found by --seeds only until it can", discovery->helper, uv_strerror(result));
        run->pipe_closing = true;
        uv_close((uv_handle_t *)&run->pipe, run_part_closed);
        uv_close((uv_handle_t *)&run->process, run_part_closed);
        return;
    }
    log_info("director-discovery: started as process %d", run->process.pid);
    (void)uv_read_start((uv_stream_t *)&run->pipe, run_buffer, run_read);
    run_announce(run);
    if (discovery->known_count)
        uv_timer_start(&discovery->sweep, sweep_over, SWEEP_MS, 0);
}

/* ---- seeds ---- */

static int seed_parse(const char *text, size_t length, uint16_t port, struct discovery_peer *ret_peer)
{
    struct discovery_peer peer = {.port = port};
    char copy[DISCOVERY_ADDRESS_SIZE + 8], *host = copy, *end = NULL;
    if (!length || length >= sizeof(copy))
        return -EINVAL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    if (copy[0] == '[') { /* [v6] or [v6]:port */
        host++;
        end = strchr(host, ']');
        if (!end)
            return -EINVAL;
        *end++ = '\0';
        if (*end && *end != ':')
            return -EINVAL;
    } else if (strchr(copy, ':') == strrchr(copy, ':')) { /* else v6 without port */
        end = strchr(copy, ':');
    }
    if (end && *end == ':') {
        char *stop;
        *end++ = '\0';
        unsigned long number = strtoul(end, &stop, 10);
        if (end[0] < '0' || end[0] > '9' || *stop || !number || number > 65535)
            return -EINVAL;
        peer.port = (uint16_t)number;
    }
    if (!discovery_address_valid(host) || !peer.port)
        return -EINVAL;
    memcpy(peer.address, host, strlen(host) + 1); /* valid: it fits */
    *ret_peer = peer;
    return 0;
}

static int seeds_parse(struct discovery *discovery, const char *text, uint16_t port, struct error *error)
{
    while (text && *text) {
        size_t length = strcspn(text, ", ");
        if (length) {
            if (discovery->seed_count == DISCOVERY_PEERS_MAX)
                return error_set(error, -EINVAL, "more than %d seeds: name fewer", DISCOVERY_PEERS_MAX);
            if (seed_parse(text, length, port, &discovery->seeds[discovery->seed_count]) < 0)
                return error_set(error, -EINVAL, "the seed \"%.*s\" is not an IP address, address:port or [address]:port",
                                 (int)MIN(length, (size_t)100), text);
            discovery->seed_count++;
        }
        text += length + strspn(text + length, ", ");
    }
    return 0;
}

static void seeds_report(uv_timer_t *timer)
{
    struct discovery *discovery = timer->data;
    for (unsigned i = 0; i < discovery->seed_count && !discovery->closing; i++)
        discovery->on_peer(&discovery->seeds[i], discovery->context);
}

/* ---- the interface ---- */

/* director-discovery beside the running program (build), in ../libexec/director (installed), else by PATH. */
static char *helper_find(void)
{
    static const char *const places[] = {"/director-discovery", "/../libexec/director/director-discovery"};
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 64);
    if (length <= 0)
        return strdup("director-discovery");
    path[length] = '\0';
    char *slash = strrchr(path, '/');
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        (void)snprintf(slash, 64, "%s", places[i]);
        if (access(path, X_OK) == 0)
            return strdup(path);
    }
    return strdup("director-discovery");
}

int discovery_start(uv_loop_t *loop, const struct discovery_options *options, struct discovery **ret_discovery,
                    struct error *error)
{
    struct discovery *discovery = calloc(1, sizeof(*discovery));
    int result = discovery ? seeds_parse(discovery, options->seeds, options->seed_port, error)
                           : error_set(error, -ENOMEM, "no memory for discovery");
    if (result < 0) {
        free(discovery);
        return result;
    }
    discovery->loop = loop;
    discovery->self = options->self;
    memcpy(discovery->tag, options->tag, sizeof(discovery->tag));
    discovery->on_peer = options->on_peer;
    discovery->on_gone = options->on_gone;
    discovery->context = options->context;
    discovery->backoff_ms = BACKOFF_MIN_MS;
    discovery->helper = options->helper ? strdup(options->helper) : helper_find();
    if (options->interface && options->interface[0])
        discovery->interface = strdup(options->interface);
    if (!discovery->helper || (options->interface && options->interface[0] && !discovery->interface)) {
        free(discovery->helper);
        free(discovery);
        return error_set(error, -ENOMEM, "no memory for discovery");
    }
    (void)uv_timer_init(loop, &discovery->timer);
    (void)uv_timer_init(loop, &discovery->sweep);
    (void)uv_timer_init(loop, &discovery->seeds_timer);
    discovery->timer.data = discovery->sweep.data = discovery->seeds_timer.data = discovery;
    if (discovery->seed_count)
        uv_timer_start(&discovery->seeds_timer, seeds_report, 0, 0);
    helper_start(discovery);
    *ret_discovery = discovery;
    return 0;
}

void discovery_update(struct discovery *discovery, const struct discovery_peer *self)
{
    ASSERT(uuid_equal(&self->uuid, &discovery->self.uuid) && !discovery->closing);
    if (discovery_peer_equal(self, &discovery->self))
        return;
    discovery->self = *self;
    if (discovery->run && !discovery->run->pipe_closing)
        run_announce(discovery->run);
}

static void goodbye_over(uv_timer_t *timer)
{
    struct discovery *discovery = timer->data;
    if (discovery->run)
        (void)uv_process_kill(&discovery->run->process, SIGKILL);
}

void discovery_close(struct discovery *discovery, void (*closed)(void *context), void *context)
{
    ASSERT(!discovery->closing);
    discovery->closing = true;
    discovery->closed = closed;
    discovery->closed_context = context;
    uv_timer_stop(&discovery->sweep);
    uv_timer_stop(&discovery->seeds_timer);
    uv_timer_stop(&discovery->timer);
    if (!discovery->run) {
        discovery_finish(discovery);
        return;
    }
    run_pipe_close(discovery->run); /* it reads the end, says goodbye and exits */
    uv_timer_start(&discovery->timer, goodbye_over, GOODBYE_MS, 0);
}

unsigned discovery_restarts(const struct discovery *discovery)
{
    return discovery->restarts;
}

bool discovery_running(const struct discovery *discovery)
{
    return discovery->run && !discovery->run->pipe_closing;
}
