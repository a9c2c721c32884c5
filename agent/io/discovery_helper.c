/* director-discovery: multicast DNS for the agent, in a process of its own and without privileges, because it reads packets
 * from anybody. Started by the agent (discovery.c) with a socketpair as standard input: lines of discovery_message.h both
 * ways. Ends when the agent closes it. Options: --interface NAME */
#define LOG_MODULE "discovery"
#include "agent/io/discovery_mdns.h"
#include "director/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#define QUEUE_MAX_BYTES (256u << 10) /* to an agent that does not read: then we end, and it starts a new one */
#define ADDRESS_SPACE   (256u << 20)

static struct helper {
    uv_loop_t *loop;
    uv_pipe_t agent;
    const char *interface;
    struct discovery_mdns *mdns;
    char buffer[4096];
    char line[DISCOVERY_LINE_MAX + 1];
    size_t line_size;
    bool ending;
    int status;
} helper;

static void helper_end(int status)
{
    if (helper.ending)
        return;
    helper.ending = true;
    helper.status = status;
    if (helper.mdns)
        discovery_mdns_free(helper.mdns);
    uv_close((uv_handle_t *)&helper.agent, NULL);
}

/* Nothing is left that a packet could use: no root, no new privileges, few descriptors, bounded memory. */
static int privileges_drop(void)
{
    struct rlimit limit = {.rlim_cur = 64, .rlim_max = 64};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || setrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    limit.rlim_cur = limit.rlim_max = 0;
    (void)setrlimit(RLIMIT_CORE, &limit);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    limit.rlim_cur = limit.rlim_max = ADDRESS_SPACE;
    (void)setrlimit(RLIMIT_AS, &limit);
#endif
    if (geteuid() == 0) {
        const struct passwd *nobody = getpwnam("nobody");
        uid_t uid = nobody ? nobody->pw_uid : 65534;
        gid_t gid = nobody ? nobody->pw_gid : 65534;
        if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
            return -errno;
    }
    if (chdir("/") < 0)
        return -errno;
    return prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) < 0 ? -errno : 0; /* cleared by setresuid(): so here */
}

struct outgoing {
    uv_write_t request;
    char line[DISCOVERY_LINE_MAX + 1];
};

static void written(uv_write_t *request, int status)
{
    free(container_of(request, struct outgoing, request));
    if (status < 0)
        helper_end(0);
}

static void say(const struct discovery_message *message)
{
    if (helper.ending)
        return;
    struct outgoing *outgoing = malloc(sizeof(*outgoing));
    int length = outgoing ? discovery_message_encode(message, outgoing->line) : -ENOMEM;
    if (length < 0 || uv_stream_get_write_queue_size((uv_stream_t *)&helper.agent) > QUEUE_MAX_BYTES) {
        free(outgoing);
        if (length != -EINVAL)
            helper_end(1);
        return;
    }
    uv_buf_t buffer = uv_buf_init(outgoing->line, (unsigned)length);
    if (uv_write(&outgoing->request, (uv_stream_t *)&helper.agent, &buffer, 1, written) < 0) {
        free(outgoing);
        helper_end(1);
    }
}

static void on_peer(const struct discovery_peer *peer, void *context)
{
    struct discovery_message message = {.verb = DISCOVERY_PEER, .peer = *peer};
    (void)context;
    say(&message);
}

static void on_gone(const struct uuid *uuid, void *context)
{
    struct discovery_message message = {.verb = DISCOVERY_GONE, .peer.uuid = *uuid};
    (void)context;
    say(&message);
}

/* Avahi's state is not to be trusted any more: a fresh process is the way out. */
static void on_failed(const char *words, void *context)
{
    (void)context;
    log_error("multicast DNS failed: %s", words);
    _exit(1);
}

static void command(const char *line, size_t length)
{
    static const struct discovery_mdns_callbacks callbacks = {on_peer, on_gone, on_failed};
    struct discovery_message message;
    int result = discovery_message_decode(line, length, &message);
    if (result < 0 || message.verb != DISCOVERY_SELF) {
        log_error("the agent said something that is not understood: another version?");
        helper_end(1);
        return;
    }
    if (helper.mdns) {
        result = discovery_mdns_update(helper.mdns, &message.peer);
    } else {
        result = discovery_mdns_new(helper.loop, helper.interface, message.tag, &message.peer, &callbacks, NULL, &helper.mdns);
        if (result == 0)
            result = privileges_drop();
    }
    if (result < 0) {
        log_error("cannot announce this node: %s", strerror(-result));
        helper_end(1);
    }
}

static void line_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)handle, (void)suggested;
    *buffer = uv_buf_init(helper.buffer, sizeof(helper.buffer));
}

static void line_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    (void)stream;
    if (size < 0) {
        helper_end(0); /* the agent is gone: say goodbye */
        return;
    }
    for (ssize_t i = 0; i < size && !helper.ending; i++) {
        if (buffer->base[i] == '\n') {
            size_t length = helper.line_size;
            helper.line_size = 0;
            command(helper.line, length);
        } else if (helper.line_size == DISCOVERY_LINE_MAX) {
            helper_end(1);
        } else {
            helper.line[helper.line_size++] = buffer->base[i];
        }
    }
}

static void on_terminate(uv_signal_t *handle, int number)
{
    (void)number;
    uv_close((uv_handle_t *)handle, NULL);
    helper_end(0);
}

int main(int argc, char **argv)
{
    uv_signal_t terminate;
    struct timespec now;
    if (argc == 3 && strcmp(argv[1], "--interface") == 0) {
        helper.interface = argv[2];
    } else if (argc != 1) {
        fprintf(stderr, "usage: director-discovery [--interface NAME]   (started by directord)\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* of the agent's terminal: the agent decides */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    clock_gettime(CLOCK_MONOTONIC, &now);
    srand((unsigned)getpid() ^ (unsigned)now.tv_nsec); /* Avahi spreads its packets by rand() */
    helper.loop = uv_default_loop();
    if (uv_pipe_init(helper.loop, &helper.agent, 0) < 0 || uv_pipe_open(&helper.agent, STDIN_FILENO) < 0 ||
        uv_read_start((uv_stream_t *)&helper.agent, line_buffer, line_read) < 0 ||
        uv_signal_init(helper.loop, &terminate) < 0 || uv_signal_start(&terminate, on_terminate, SIGTERM) < 0) {
        fprintf(stderr, "director-discovery: standard input is not the agent's socket\n");
        return 2;
    }
    uv_unref((uv_handle_t *)&terminate);
    (void)uv_run(helper.loop, UV_RUN_DEFAULT);
    return helper.status;
}
