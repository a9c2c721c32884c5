/* Drives corosync_config, corosync_process and cpg_group of one node for tests/cluster/member_test: commands on standard input, events with
 * the milliseconds of CLOCK_BOOTTIME (as in /proc/uptime) on standard output.
 *   member_probe DIR NODEID NODES [HELPER INTERFACE TAGDIGIT]     NODES: 1=10.0.0.1,2=10.0.0.2; with HELPER: discovery, too
 * Commands: nodes NODES (write corosync.conf) | reload | send TEXT | formed NODES (announce) | flood COUNT SIZE | statistics | stop (all of it, corosync too) |
 *           leave (the agent's part only) */
#include "agent/io/corosync_config.h"
#include "agent/io/corosync_process.h"
#include "agent/io/cpg_group.h"
#include "agent/io/discovery.h"
#include "director/base/crc32c.h"
#include "director/base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct probe {
    uv_loop_t *loop;
    char folder[200], config_path[256], key_path[256], log_path[256], state_path[256];
    uint32_t nodeid;
    struct corosync_process *corosync;
    struct cpg_group *group;
    struct discovery *discovery;
    struct discovery_peer self;
    uv_pipe_t input;
    char line[4096], buffer[4096];
    size_t line_size;
    unsigned flood_left;
    size_t flood_size;
    uint64_t flood_received, flood_started;
    uint32_t digest; /* over all messages in order: must be equal everywhere */
    unsigned ending;
} probe;

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void __attribute__((format(printf, 1, 2))) say(const char *format, ...)
{
    char line[8192];
    va_list arguments;
    int used = snprintf(line, sizeof(line), "%.1f ", now_ms());
    va_start(arguments, format);
    used += vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, arguments);
    va_end(arguments);
    used = MIN(used, (int)sizeof(line) - 2);
    line[used++] = '\n';
    ssize_t ignored = write(STDOUT_FILENO, line, (size_t)used);
    (void)ignored;
}

static void config_write(const char *text)
{
    struct corosync_node nodes[COROSYNC_NODES_MAX];
    struct error error = {0};
    struct cluster_key key = {.bytes = {7}};
    size_t count = 0;
    char copy[4096], *save = NULL;
    (void)snprintf(copy, sizeof(copy), "%s", text);
    for (char *part = strtok_r(copy, ",", &save); part && count < ARRAY_SIZE(nodes); part = strtok_r(NULL, ",", &save)) {
        struct corosync_node *node = &nodes[count++];
        char *equals = strchr(part, '=');
        ASSERT(equals);
        node->nodeid = (uint32_t)atoi(part);
        (void)snprintf(node->name, sizeof(node->name), "n%u", node->nodeid);
        (void)snprintf(node->address, sizeof(node->address), "%s", equals + 1);
    }
    struct corosync_config config = {.cluster = {.bytes = {1, 2, 3}},
                                     .nodes = nodes,
                                     .node_count = count,
                                     .keyfile = probe.key_path,
                                     .state_dir = probe.state_path,
                                     .logfile = probe.log_path};
    int result = corosync_key_write(&key, &config.cluster, probe.key_path, &error);
    if (result >= 0)
        result = corosync_config_write(&config, probe.config_path, &error);
    say("config %d nodes %zu %s", result, count, error.message);
}

static void flood_pump(void)
{
    static uint8_t bytes[CPG_GROUP_MESSAGE_MAX_BYTES];
    bytes[0] = 'F';
    while (probe.flood_left) {
        int result = cpg_group_send(probe.group, bytes, probe.flood_size);
        if (result < 0) {
            if (result != -EAGAIN)
                say("flood failed %d", result);
            return;
        }
        probe.flood_left--;
    }
}

static void on_view(const struct cpg_view *view, void *context)
{
    char text[4096];
    size_t used = 0;
    (void)context;
    for (unsigned i = 0; i < view->member_count && used < sizeof(text) - 64; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%u/%u", i ? "," : "", view->members[i].nodeid,
                                 view->members[i].pid);
    used += (size_t)snprintf(text + used, sizeof(text) - used, " departed=");
    for (unsigned i = 0; i < view->departed_count && used < sizeof(text) - 64; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%u/%u:%s", i ? "," : "",
                                 view->departed[i].member.nodeid, view->departed[i].member.pid,
                                 cpg_view_reason_name(view->departed[i].reason));
    say("view id=%016llx ring=%u.%llu count=%u members=%s", (unsigned long long)view->id, view->ring_nodeid,
        (unsigned long long)view->ring_sequence, view->member_count, text);
}

static void on_message(uint32_t nodeid, uint32_t pid, const void *bytes, size_t size, void *context)
{
    uint32_t header[3] = {nodeid, pid, (uint32_t)size};
    (void)context;
    probe.digest = crc32c(crc32c(probe.digest, header, sizeof(header)), bytes, size);
    if (size && *(const char *)bytes == 'F') {
        if (!probe.flood_received)
            probe.flood_started = uv_hrtime();
        probe.flood_received++;
        flood_pump();
        return;
    }
    say("message %u/%u %.*s", nodeid, pid, (int)size, (const char *)bytes);
}

static void on_lost(const char *words, void *context)
{
    (void)context;
    say("lost %s", words);
}

static void on_corosync(enum corosync_process_state state, const char *words, void *context)
{
    (void)context;
    say("corosync state=%d pid=%ld %s", state, (long)corosync_process_pid(probe.corosync), words);
}

static void reload_done(int status, void *context)
{
    (void)context;
    say("reloaded %d", status);
}

static void closed(void *context)
{
    (void)context;
    say("closed");
}

static void on_peer(const struct discovery_peer *peer, void *context)
{
    (void)context;
    say("peer %u address=%s port=%u boot=%llx formed=%d nodes=%u", peer->uuid.bytes[0], peer->address, peer->port,
        (unsigned long long)peer->boot, peer->formed, peer->node_count);
}

static void on_gone(const struct discovery_peer *peer, void *context)
{
    (void)context;
    say("gone %u", peer->uuid.bytes[0]);
}

static void discovery_begin(const char *nodes, const char *helper, const char *interface, char digit)
{
    struct discovery_options options = {
        .helper = helper, .interface = interface, .on_peer = on_peer, .on_gone = on_gone, .seed_port = 7600};
    struct error error = {0};
    char want[16];
    (void)snprintf(want, sizeof(want), "%u=", probe.nodeid);
    const char *own = strstr(nodes, want);
    ASSERT(own);
    probe.self = (struct discovery_peer){.uuid.bytes = {(uint8_t)probe.nodeid}, .port = 7600};
    own += strlen(want);
    (void)snprintf(probe.self.address, sizeof(probe.self.address), "%.*s", (int)strcspn(own, ","), own);
    ASSERT(random_bytes(&probe.self.boot, sizeof(probe.self.boot)) == 0);
    options.self = probe.self;
    memset(options.tag, digit, DISCOVERY_TAG_SIZE - 1);
    options.tag[DISCOVERY_TAG_SIZE - 1] = '\0';
    if (discovery_start(probe.loop, &options, &probe.discovery, &error) < 0)
        say("discovery failed: %s", error.message);
}

static void probe_end(bool leave)
{
    if (probe.ending++)
        return;
    uv_close((uv_handle_t *)&probe.input, NULL);
    cpg_group_close(probe.group, closed, NULL);
    corosync_process_close(probe.corosync, leave, closed, NULL);
    if (probe.discovery)
        discovery_close(probe.discovery, closed, NULL);
}

static void command(char *line)
{
    unsigned count, size;
    struct cpg_group_statistics s;
    if (!strncmp(line, "nodes ", 6)) {
        config_write(line + 6);
    } else if (!strcmp(line, "reload")) {
        corosync_process_reload(probe.corosync, reload_done, NULL);
    } else if (!strncmp(line, "send ", 5)) {
        say("sent %d", cpg_group_send(probe.group, line + 5, strlen(line + 5)));
    } else if (sscanf(line, "flood %u %u", &count, &size) == 2) {
        probe.flood_left = count;
        probe.flood_size = MAX(1u, MIN(size, CPG_GROUP_MESSAGE_MAX_BYTES));
        flood_pump();
    } else if (sscanf(line, "formed %u", &count) == 1 && probe.discovery) {
        probe.self.formed = count > 0;
        probe.self.node_count = count;
        probe.self.cluster = (struct uuid){.bytes = {count ? 0xc1 : 0}};
        discovery_update(probe.discovery, &probe.self);
    } else if (!strcmp(line, "statistics")) {
        cpg_group_statistics(probe.group, &s);
        say("statistics flood=%llu digest=%08x sent=%llu own=%llu delivered=%llu again=%llu foreign=%llu ghosts=%llu views=%llu "
            "losses=%llu queued=%u flight=%u ms=%.0f",
            (unsigned long long)probe.flood_received, probe.digest, (unsigned long long)s.sent,
            (unsigned long long)s.own_delivered, (unsigned long long)s.delivered, (unsigned long long)s.try_again,
            (unsigned long long)s.foreign, (unsigned long long)s.ghosts, (unsigned long long)s.views,
            (unsigned long long)s.losses, s.queued, s.in_flight,
            probe.flood_received ? (double)(uv_hrtime() - probe.flood_started) / 1e6 : 0);
    } else if (!strcmp(line, "stop")) {
        probe_end(false);
    } else if (!strcmp(line, "leave")) {
        probe_end(true);
    } else {
        say("unknown command");
    }
}

static void input_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(probe.buffer, sizeof(probe.buffer));
}

static void input_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    (void)stream;
    if (size < 0) {
        probe_end(false);
        return;
    }
    for (ssize_t i = 0; i < size && !probe.ending; i++) {
        char c = buffer->base[i];
        if (c != '\n') {
            if (probe.line_size < sizeof(probe.line) - 1)
                probe.line[probe.line_size++] = c;
            continue;
        }
        probe.line[probe.line_size] = '\0';
        probe.line_size = 0;
        command(probe.line);
    }
}

int main(int argc, char **argv)
{
    static const struct cpg_group_callbacks callbacks = {on_view, on_message, on_lost};
    char identity[64];
    struct error error = {0};
    if (argc != 4 && argc != 7) {
        fprintf(stderr, "usage: member_probe DIR NODEID NODES [HELPER INTERFACE TAGDIGIT]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    probe.loop = uv_default_loop();
    probe.nodeid = (uint32_t)atoi(argv[2]);
    (void)snprintf(probe.folder, sizeof(probe.folder), "%s", argv[1]);
    (void)snprintf(probe.config_path, sizeof(probe.config_path), "%s/corosync.conf", probe.folder);
    (void)snprintf(probe.key_path, sizeof(probe.key_path), "%s/corosync.key", probe.folder);
    (void)snprintf(probe.log_path, sizeof(probe.log_path), "%s/corosync.log", probe.folder);
    (void)snprintf(probe.state_path, sizeof(probe.state_path), "%s/corosync.state", probe.folder);
    (void)snprintf(identity, sizeof(identity), "test:%u", probe.nodeid);
    (void)mkdir(probe.folder, 0700);
    config_write(argv[3]);
    struct corosync_process_options options = {.config_path = probe.config_path,
                                               .run_dir = probe.folder,
                                               .identity = identity,
                                               .log_path = probe.log_path,
                                               .on_state = on_corosync};
    ASSERT(uv_pipe_init(probe.loop, &probe.input, 0) == 0 && uv_pipe_open(&probe.input, STDIN_FILENO) == 0);
    ASSERT(uv_read_start((uv_stream_t *)&probe.input, input_buffer, input_read) == 0);
    ASSERT(corosync_process_new(probe.loop, &options, &probe.corosync) == 0);
    if (corosync_process_start(probe.corosync, &error) < 0) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    ASSERT(cpg_group_new(probe.loop, "director-test", &callbacks, NULL, &probe.group) == 0);
    if (argc == 7)
        discovery_begin(argv[3], argv[4], argv[5], argv[6][0]);
    say("started pid=%ld", (long)getpid());
    (void)uv_run(probe.loop, UV_RUN_DEFAULT);
    say("end %d", uv_loop_close(probe.loop));
    return 0;
}
