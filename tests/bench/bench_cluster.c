#include "tests/bench/bench_cluster.h"

#include "tests/bench/bench_load.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define VOLUME          7u
#define INCARNATION(k)  (100u + (k))
#define FOREIGN_STAMP   (1ull << 40)
#define FOREIGN_EVERY   16u

static const uint8_t psk[32] = {7};

/* ---- links ---- */

static void link_up(struct peer *peer, const struct peer_hello *hello, void *context)
{
    struct bench_cluster *c = context;
    if (c->index == 0)
        c->members[peer_nodeid(peer) - 1].linked = true;
    mirror_device_link_up(c->device, peer_nodeid(peer), hello->boot);
}

static void link_down(struct peer *peer, int reason, const char *words, void *context)
{
    struct bench_cluster *c = context;
    (void)reason;
    if (c->index == 0) {
        if (c->wanted >> (peer_nodeid(peer) - 1) & 1)
            fprintf(stderr, "link to node %u is down: %s\n", peer_nodeid(peer), words);
        c->members[peer_nodeid(peer) - 1].linked = false;
    }
    mirror_device_link_down(c->device, peer_nodeid(peer));
}

static void payload_keep(void *payload)
{
    peer_buffer_ref(payload);
}

static void payload_release(void *payload)
{
    peer_buffer_unref(payload);
}

static void link_frame(struct peer *peer, const struct peer_header *header, struct peer_buffer *payload, void *context)
{
    struct bench_cluster *c = context;
    mirror_device_receive(c->device, peer_nodeid(peer), header, payload ? payload->data : (const uint8_t *)"",
                          payload ? &(struct mirror_payload_keeper){payload, payload_keep, payload_release} : NULL);
}

static void link_acked(struct peer *peer, uint64_t sent_us, void *context)
{
    mirror_pulses_answered(((struct bench_cluster *)context)->pulses, peer_nodeid(peer), sent_us);
}

static void link_answered(struct peer *peer, uint64_t answered_us, void *context)
{
    mirror_pulses_answered_by_us(((struct bench_cluster *)context)->pulses, peer_nodeid(peer), answered_us);
}

static void link_error(int code, const char *words, void *context)
{
    (void)code;
    if (((struct bench_cluster *)context)->index == 0) /* a member that is left alone dials in vain */
        fprintf(stderr, "%s\n", words);
}

static const struct peer_mesh_callbacks link_callbacks = {.up = link_up, .down = link_down, .frame = link_frame,
                                                          .heartbeat_acked = link_acked, .heartbeat_answered = link_answered,
                                                          .error = link_error};

static int transport_send(void *context, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov,
                          unsigned iov_count)
{
    return peer_mesh_send(((struct bench_cluster *)context)->mesh, nodeid, header, iov, iov_count);
}

static void transport_reset(void *context, uint16_t nodeid, const char *words)
{
    struct peer *peer = peer_mesh_find(((struct bench_cluster *)context)->mesh, nodeid);
    fprintf(stderr, "node %u: %s\n", nodeid, words);
    if (peer)
        peer_close(peer, words);
}

/* ---- one node ---- */

static void must(int result, const struct error *error)
{
    if (result >= 0)
        return;
    fprintf(stderr, "%s\n", error->message);
    exit(1);
}

static void asked(void *context, struct mirror_device *device, uint64_t epoch, uint64_t version, uint8_t isr, const char *reason)
{
    struct bench_cluster *c = context;
    (void)device;
    if (epoch != c->config.epoch || version != c->config.isr_version)
        return;
    c->asked++;
    c->asked_reason = reason;
    bench_cluster_commit(c, isr);
}

struct block_device *bench_data_open(struct bench_cluster *c, const char *folder)
{
    char path[512];
    struct error error = {0};
    struct block_device *data;
    (void)mkdir(folder, 0700);
    (void)snprintf(path, sizeof(path), "%s/bench.data", folder);
    must(plugin_loader_new(NULL, &c->plugins), &(struct error){.message = "no memory"});
    must(plugin_loader_load_folder(c->plugins, c->options.plugins, NULL, NULL, &error), &error);
    const struct director_plugin *plugin = plugin_loader_find(c->plugins, DIRECTOR_PLUGIN_BACKSTORE, c->options.plugin, &error);
    must(plugin ? 0 : -ENOENT, &error);
    must(plugin_remove(plugin, path, &error), &error);
    must(plugin_create(plugin, path, c->options.size_bytes, NULL, &error), &error);
    must(plugin_open(plugin, &c->loop, path, NULL, NULL, &data, &error), &error);
    return data;
}

static void node_open(struct bench_cluster *c)
{
    char folder[400], path[512];
    struct error error = {0};
    (void)snprintf(folder, sizeof(folder), "%s/n%u", c->options.folder, c->index + 1);
    bench_must(uv_loop_init(&c->loop), "loop");
    struct block_device *data = bench_data_open(c, folder);
    bool last = c->index + 1 == c->options.replicas;
    if (c->options.foreign || c->options.filled)
        bench_fill_stamped(&c->loop, data, FOREIGN_STAMP, c->options.foreign && last ? FOREIGN_EVERY : 0);
    struct mirror_replica_identity identity = {.volume = VOLUME, .volume_uuid = {{VOLUME}}, .size_bytes = c->options.size_bytes,
                                               .replica_index = c->index, .incarnation = c->config.replicas[c->index].incarnation};
    for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++)
        identity.incarnations[k] = INCARNATION(k);
    (void)snprintf(path, sizeof(path), "%s/bench.meta", folder);
    (void)unlink(path);
    identity.checksum = c->options.checksum && !c->options.foreign;
    must(mirror_replica_create(path, &identity, &error), &error);
    c->pulses = mirror_pulses_new();
    struct mirror_device_options options = {
        .pulses = c->pulses,
        .volume = VOLUME, .volume_uuid = {{VOLUME}}, .size_bytes = c->options.size_bytes, .block_bytes = 4096,
        .nodeid = (uint16_t)(c->index + 1), .boot = c->index + 1, .data = data, .metadata_path = path,
        .checksum = c->options.checksum,
        .transport = {c, transport_send, transport_reset}, .callbacks = {.context = c, .ask_isr = asked},
    };
    must(mirror_device_open(&c->loop, &options, &c->device, &error), &error);
    struct peer_mesh_config mesh = {.loop = &c->loop, .channel = PEER_CHANNEL_DATA, .psk = psk, .callbacks = &link_callbacks,
                                    .context = c, .hello = {.node = {{(uint8_t)(c->index + 1)}}, .boot = c->index + 1}};
    must(peer_mesh_new(&mesh, &c->mesh, &error), &error);
    mirror_device_config(c->device, &c->config);
}

/* ---- a member's process ---- */

static void member_control(uv_poll_t *poll, int status, int events)
{
    struct bench_cluster *c = container_of(poll, struct bench_cluster, control);
    struct mirror_config config;
    (void)events;
    if (status < 0 || read(c->members[0].control, &config, sizeof(config)) != sizeof(config))
        _exit(0); /* the owner is gone */
    mirror_device_config(c->device, &config);
}

static void member_main(struct bench_cluster *c, int control)
{
    struct peer_node owner = {.uuid = {{1}}, .nodeid = 1, .address = "127.0.0.1:1"}; /* it dials, having the lower uuid */
    struct error error = {0};
    c->members[0].control = control;
    node_open(c);
    struct peer_mesh *meshes[PEER_CHANNEL_COUNT] = {NULL, c->mesh};
    must(peer_listener_new(&c->loop, "127.0.0.1", 0, meshes, &c->listener, &error), &error);
    bench_must(peer_mesh_set_peers(c->mesh, &owner, 1), "peers");
    uint16_t port = peer_listener_port(c->listener);
    bench_must(write(control, &port, sizeof(port)) == sizeof(port) ? 0 : -EPIPE, "control");
    uv_poll_init(&c->loop, &c->control, control);
    uv_poll_start(&c->control, UV_READABLE, member_control);
    uv_run(&c->loop, UV_RUN_DEFAULT);
    _exit(0);
}

/* ---- the owner's process ---- */

void bench_cluster_start(struct bench_cluster *c, const struct bench_cluster_options *options)
{
    memset(c, 0, sizeof(*c));
    c->options = *options;
    c->config = (struct mirror_config){.epoch = 1, .isr_version = 1, .owner = 1, .replica_count = (uint8_t)options->replicas,
                                       .isr = options->isr ? options->isr : (uint8_t)((1u << options->replicas) - 1),
                                       .policy = options->policy};
    for (unsigned k = 0; k < options->replicas; k++) {
        c->config.replicas[k].nodeid = (uint16_t)(k + 1);
        c->config.replicas[k].incarnation = INCARNATION(k) + (options->foreign && k + 1 == options->replicas ? 1000u : 0);
    }
    (void)signal(SIGPIPE, SIG_IGN);
    (void)fflush(NULL);
    c->pids[0] = getpid();
    for (unsigned k = 1; k < options->replicas; k++) {
        int ends[2];
        bench_must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0 ? -errno : 0, "control");
        c->members[k].pid = c->pids[k] = fork();
        bench_must(c->pids[k] < 0 ? -errno : 0, "fork");
        if (c->pids[k] == 0) {
            for (unsigned other = 1; other < k; other++)
                close(c->members[other].control);
            close(ends[0]);
            c->index = k;
            member_main(c, ends[1]);
        }
        close(ends[1]);
        c->members[k].control = ends[0];
    }
    node_open(c);
    for (unsigned k = 1; k < options->replicas; k++)
        bench_must(read(c->members[k].control, &c->members[k].port, sizeof(uint16_t)) == sizeof(uint16_t) ? 0 : -EPIPE, "member");
}

void bench_cluster_link(struct bench_cluster *c, uint8_t members)
{
    struct peer_node nodes[MIRROR_REPLICAS_MAX] = {0};
    size_t count = 0;
    c->wanted = members;
    for (unsigned k = 1; k < c->options.replicas; k++)
        if (members >> k & 1) {
            nodes[count] = (struct peer_node){.uuid = {{(uint8_t)(k + 1)}}, .nodeid = (uint16_t)(k + 1)};
            (void)snprintf(nodes[count++].address, sizeof(nodes[0].address), "127.0.0.1:%u", c->members[k].port);
        }
    bench_must(peer_mesh_set_peers(c->mesh, nodes, count), "peers");
}

void bench_cluster_commit(struct bench_cluster *c, uint8_t isr)
{
    c->config.isr = isr;
    c->config.isr_version++;
    mirror_device_config(c->device, &c->config);
    for (unsigned k = 1; k < c->options.replicas; k++)
        bench_must(send(c->members[k].control, &c->config, sizeof(c->config), MSG_NOSIGNAL) < 0 ? -errno : 0, "control");
}

static void wake(uv_timer_t *timer)
{
    (void)timer;
}

void bench_cluster_wait_serving(struct bench_cluster *c)
{
    uv_timer_t timer;
    struct mirror_device_status status;
    uint64_t until = bench_clock_ns() + 10000000000u;
    uv_timer_init(&c->loop, &timer);
    uv_timer_start(&timer, wake, 5, 5);
    for (;;) {
        mirror_device_get_status(c->device, &status);
        if (status.mirror.state == MIRROR_SERVING && !status.mirror.suspended)
            break;
        if (bench_clock_ns() > until) {
            char words[256];
            mirror_device_describe(c->device, words, sizeof(words));
            fprintf(stderr, "the volume is not served: %s\n", words);
            exit(1);
        }
        uv_run(&c->loop, UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&c->loop, UV_RUN_NOWAIT);
}

static void device_closed(void *context)
{
    *(bool *)context = true;
}

void bench_cluster_end(struct bench_cluster *c)
{
    bool closed = false, mesh_closed = false;
    mirror_device_close(c->device, device_closed, &closed);
    while (!closed)
        uv_run(&c->loop, UV_RUN_ONCE);
    peer_mesh_close(c->mesh, device_closed, &mesh_closed);
    while (!mesh_closed)
        uv_run(&c->loop, UV_RUN_ONCE);
    for (unsigned k = 1; k < c->options.replicas; k++) {
        close(c->members[k].control);
        (void)waitpid(c->members[k].pid, NULL, 0);
    }
}
