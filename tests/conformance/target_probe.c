/* A target to judge: RAM volumes behind two in-process nodes. Node 1 owns all volumes, node 2 forwards to it.
 *
 *     target_probe [--size MIB]
 *
 * Listens on two free ports of 127.0.0.1, writes "PORT1 PORT2" to standard output and runs until standard input ends.
 * LUN 0: thin; 1: removable; 2: read-only; 3: 4096-byte blocks; the
 * others have 512-byte blocks, in 4096-byte physical ones but for 4.
 * Commands on standard input, one a line: "owner 1" or "owner 2" moves ownership, "owner 0" takes it away. */
#include "target/io/target_server.h"
#include "tests/conformance/ram_device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IQN   "iqn.2026-01.org.director:probe"
#define NODES 2
#define LUNS  5

struct probe;

struct node {
    struct probe *probe;
    uint16_t nodeid, port;
    struct target_server *server;
};

/* A frame between the nodes: they share a process, not memory. */
struct frame {
    struct list link;
    uint16_t from, to;
    struct peer_header header;
    uint8_t payload[];
};

struct probe {
    uv_loop_t *loop;
    struct node nodes[NODES];
    struct ram_device rams[LUNS];
    struct list frames;
    uv_idle_t delivery;
    uv_pipe_t input;
    uint64_t epoch;
    unsigned open_servers;
};

static void deliver(uv_idle_t *idle)
{
    struct probe *probe = container_of(idle, struct probe, delivery);
    struct list batch;
    list_init(&batch);
    list_splice(&batch, &probe->frames);
    uv_idle_stop(idle);
    while (!list_empty(&batch)) {
        struct frame *frame = list_first(&batch, struct frame, link);
        uint8_t wire[PEER_HEADER_BYTES];
        struct peer_header header;
        list_remove(&frame->link);
        peer_header_encode(&frame->header, wire);
        struct target_server *server = probe->nodes[frame->to - 1].server;
        int status = peer_header_decode(wire, &header);
        if (status == 0 && server)
            status = target_server_forward_receive(server, frame->from, &header, frame->payload);
        if (status < 0)
            fprintf(stderr, "frame %#x: %s\n", frame->header.type, strerror(-status));
        free(frame);
    }
}

static int send_frame(void *context, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov,
                      unsigned iov_count, void (*done)(void *), void *argument)
{
    struct node *node = context;
    struct probe *probe = node->probe;
    if (nodeid == 0 || nodeid > NODES)
        return -ENOTCONN;
    struct frame *frame = malloc(sizeof(*frame) + header->payload_bytes);
    if (!frame)
        return -EAGAIN;
    uint32_t at = 0;
    for (unsigned i = 0; i < iov_count; i++) {
        memcpy(frame->payload + at, iov[i].iov_base, iov[i].iov_len);
        at += (uint32_t)iov[i].iov_len;
    }
    if (at != header->payload_bytes)
        abort();
    frame->from = node->nodeid;
    frame->to = nodeid;
    frame->header = *header;
    list_append(&probe->frames, &frame->link);
    (void)uv_idle_start(&probe->delivery, deliver);
    done(argument);
    return 0;
}

static const struct target_forward_operations forward = {send_frame};

static void set_owner(struct probe *probe, uint16_t owner)
{
    probe->epoch++;
    for (unsigned n = 0; n < NODES; n++) {
        for (unsigned lun = 0; lun < LUNS; lun++) {
            bool here = owner == n + 1;
            enum target_lu_state state = owner == 0 ? TARGET_LU_TRANSITION : here ? TARGET_LU_ACTIVE : TARGET_LU_FORWARD;
            int status = target_server_set_lu_state(probe->nodes[n].server, lun + 1, state, owner, probe->epoch,
                                                    here ? &probe->rams[lun].device : NULL);
            if (status < 0)
                fprintf(stderr, "owner %u of LUN %u: %s\n", owner, lun, strerror(-status));
        }
    }
}

static int start_node(struct probe *probe, unsigned index)
{
    struct node *node = &probe->nodes[index];
    struct error error = {0};
    node->probe = probe;
    node->nodeid = (uint16_t)(index + 1);
    struct target_server_options options = {
        .loop = probe->loop, .nodeid = node->nodeid, .forward = &forward, .forward_context = node};
    int status = target_server_new(&options, &node->server);
    if (status == 0)
        status = target_server_listen(node->server, "127.0.0.1", 0, &node->port, &error);
    if (status == 0)
        status = target_server_put_target(node->server, IQN, &error);
    for (uint16_t lun = 0; status == 0 && lun < LUNS; lun++) {
        struct target_lu_identity identity = {
            .volume_id = lun + 1u,
            .uuid = {{0xd1, 0x8e, 0xc7, 0x08, lun, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
            .size_bytes = probe->rams[lun].device.geometry.size_bytes,
            .block_bytes = probe->rams[lun].device.geometry.block_bytes,
            .physical_bytes = lun == 4 ? 512 : 4096,
            .thin = lun != 2,
            .removable = lun == 1,
            .read_only = lun == 2,
        };
        (void)snprintf(identity.name, sizeof(identity.name), "probe%u", lun);
        status = target_server_put_lu(node->server, &identity);
        if (status == 0)
            status = target_server_set_lun(node->server, IQN, lun, identity.volume_id, &error);
    }
    if (status < 0)
        fprintf(stderr, "node %u: %s %s\n", node->nodeid, strerror(-status), error.message);
    return status;
}

static void server_closed(void *context)
{
    struct probe *probe = context;
    if (--probe->open_servers == 0)
        uv_stop(probe->loop);
}

static void allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    static char line[256];
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(line, sizeof(line) - 1);
}

static void input(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct probe *probe = container_of((uv_pipe_t *)stream, struct probe, input);
    if (size < 0) {
        uv_read_stop(stream);
        probe->open_servers = NODES;
        for (unsigned n = 0; n < NODES; n++) {
            struct target_server *server = probe->nodes[n].server;
            probe->nodes[n].server = NULL;
            target_server_close(server, server_closed, probe);
        }
        return;
    }
    buffer->base[size] = '\0';
    for (char *line = strtok(buffer->base, "\n"); line; line = strtok(NULL, "\n"))
        if (strncmp(line, "owner ", 6) == 0 && atoi(line + 6) <= NODES)
            set_owner(probe, (uint16_t)atoi(line + 6));
}

int main(int argc, char **argv)
{
    static struct probe probe;
    uint64_t size_bytes = 64u << 20;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--size") == 0 && i + 1 < argc)
            size_bytes = strtoull(argv[++i], NULL, 10) << 20;
    probe.loop = uv_default_loop();
    list_init(&probe.frames);
    (void)uv_idle_init(probe.loop, &probe.delivery);
    for (unsigned lun = 0; lun < LUNS; lun++)
        if (ram_device_open(&probe.rams[lun], probe.loop, size_bytes, lun == 3 ? 4096 : 512,
                            BLOCK_CAP_UNMAP | BLOCK_CAP_UNMAP_ZEROES | BLOCK_CAP_WRITE_ZEROES |
                                (lun == 0 ? 0 : BLOCK_CAP_COMPARE_AND_WRITE)) < 0)
            return 1;
    for (unsigned n = 0; n < NODES; n++)
        if (start_node(&probe, n) < 0)
            return 1;
    struct target_port ports[NODES] = {0};
    for (unsigned n = 0; n < NODES; n++) {
        ports[n] = (struct target_port){.nodeid = (uint16_t)(n + 1), .alive = true, .port = probe.nodes[n].port};
        (void)strcpy(ports[n].address, "127.0.0.1");
    }
    for (unsigned n = 0; n < NODES; n++)
        if (target_server_set_ports(probe.nodes[n].server, ports, NODES) < 0)
            return 1;
    set_owner(&probe, 1);
    (void)uv_pipe_init(probe.loop, &probe.input, 0);
    if (uv_pipe_open(&probe.input, STDIN_FILENO) < 0 || uv_read_start((uv_stream_t *)&probe.input, allocate, input) < 0)
        return 1;
    printf("%u %u\n", probe.nodes[0].port, probe.nodes[1].port);
    fflush(stdout);
    return uv_run(probe.loop, UV_RUN_DEFAULT) < 0;
}
