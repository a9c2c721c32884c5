/* Replicated writes from end to end in one process: two nodes, each with peer mesh (TLS), mirror device and file backstore as the
 * I/O thread has them. What they cost in allocations once warm: none, on either side. This program's allocation functions stand
 * before those of the C library, so that those of libuv and plugins are counted as well; not those of OpenSSL, which makes
 * one of a few bytes for each record. */
#include "agent/io/peer_listener.h"
#include "plugins/loader/loader.h"
#include "replication/io/mirror_device.h"
#include "replication/io/mirror_pulse.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define EXPORT     __attribute__((visibility("default")))
#define SIZE       (32u << 20)
#define AREA       (8u << 20)
#define DEPTH_MAX  16u
#define LARGEST    (1u << 20)

static unsigned long allocations;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

EXPORT void *malloc(size_t size)
{
    allocations++;
    return __libc_malloc(size);
}

EXPORT void *calloc(size_t count, size_t size)
{
    allocations++;
    return __libc_calloc(count, size);
}

EXPORT void *realloc(void *memory, size_t size)
{
    allocations++;
    return __libc_realloc(memory, size);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    allocations++;
    return __libc_memalign(alignment, size);
}

EXPORT int posix_memalign(void **pointer, size_t alignment, size_t size)
{
    allocations++;
    *pointer = __libc_memalign(alignment, size);
    return *pointer ? 0 : ENOMEM;
}

/* OpenSSL's own, not counted. */
static void *tls_malloc(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return __libc_malloc(size);
}

static void *tls_realloc(void *memory, size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return __libc_realloc(memory, size);
}

static void tls_free(void *memory, const char *file, int line)
{
    (void)file, (void)line;
    free(memory);
}

static const uint8_t psk[32] = {9};

struct node {
    unsigned index;
    char data_path[600], metadata_path[600];
    struct peer_mesh *mesh;
    struct peer_listener *listener;
    struct mirror_pulses *pulses;
    struct mirror_device *device;
};

static uv_loop_t loop;
static struct plugin_loader *loader;
static struct node nodes[2];
static unsigned open_parts;

static int transport_send(void *context, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov, unsigned iov_count)
{
    return peer_mesh_send(((struct node *)context)->mesh, nodeid, header, iov, iov_count);
}

static void transport_reset(void *context, uint16_t nodeid, const char *words)
{
    (void)context;
    fail_msg("link to node %u is broken off: %s", nodeid, words);
}

static void ask_isr(void *context, struct mirror_device *device, uint64_t epoch, uint64_t version, uint8_t isr, const char *reason)
{
    (void)context, (void)device, (void)epoch, (void)version, (void)isr;
    fail_msg("another in-sync set is asked for: %s", reason);
}

static void link_up(struct peer *peer, const struct peer_hello *hello, void *context)
{
    mirror_device_link_up(((struct node *)context)->device, peer_nodeid(peer), hello->boot);
}

static void link_down(struct peer *peer, int reason, const char *words, void *context)
{
    (void)reason, (void)words;
    mirror_device_link_down(((struct node *)context)->device, peer_nodeid(peer));
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
    struct mirror_payload_keeper keeper = {payload, payload_keep, payload_release};
    mirror_device_receive(((struct node *)context)->device, peer_nodeid(peer), header, payload ? payload->data : (const uint8_t *)"",
                          payload ? &keeper : NULL);
}

static void link_acked(struct peer *peer, uint64_t sent_us, void *context)
{
    mirror_pulses_answered(((struct node *)context)->pulses, peer_nodeid(peer), sent_us);
}

static void link_answered(struct peer *peer, uint64_t answered_us, void *context)
{
    mirror_pulses_answered_by_us(((struct node *)context)->pulses, peer_nodeid(peer), answered_us);
}

static const struct peer_mesh_callbacks callbacks = {.up = link_up, .down = link_down, .frame = link_frame,
                                                     .heartbeat_acked = link_acked, .heartbeat_answered = link_answered};

static void node_open(struct node *node)
{
    struct error error = {0};
    struct block_device *data;
    const struct director_plugin *file = plugin_loader_find(loader, DIRECTOR_PLUGIN_BACKSTORE, "file", &error);
    unsigned id = node->index + 1;
    assert_non_null(file);
    (void)snprintf(node->data_path, sizeof(node->data_path), "%s/replicated-write-%d-%u.data", FILES, (int)getpid(), id);
    (void)snprintf(node->metadata_path, sizeof(node->metadata_path), "%s/replicated-write-%d-%u.meta", FILES, (int)getpid(), id);
    assert_int_equal(plugin_create(file, node->data_path, SIZE, NULL, &error), 0);
    struct mirror_replica_identity identity = {.volume = 1, .volume_uuid = {{1}}, .size_bytes = SIZE, .replica_index = node->index,
                                               .incarnation = 10 + node->index, .incarnations = {10, 11}};
    assert_int_equal(mirror_replica_create(node->metadata_path, &identity, &error), 0);
    assert_int_equal(plugin_open(file, &loop, node->data_path, NULL, NULL, &data, &error), 0);
    node->pulses = mirror_pulses_new();
    struct mirror_device_options options = {
        .volume = 1, .volume_uuid = {{1}}, .size_bytes = SIZE, .block_bytes = 4096, .nodeid = (uint16_t)id, .boot = 100 + id,
        .data = data, .metadata_path = node->metadata_path, .pulses = node->pulses,
        .transport = {node, transport_send, transport_reset}, .callbacks = {.context = node, .ask_isr = ask_isr}};
    assert_int_equal(mirror_device_open(&loop, &options, &node->device, &error), 0);
    struct peer_mesh_config mesh = {.loop = &loop, .channel = PEER_CHANNEL_DATA, .psk = psk, .callbacks = &callbacks, .context = node,
                                    .hello = {.node = {{(uint8_t)id}}, .boot = 100 + id}, .silence_ms = 20000};
    assert_int_equal(peer_mesh_new(&mesh, &node->mesh, &error), 0);
    struct peer_mesh *meshes[PEER_CHANNEL_COUNT] = {NULL, node->mesh};
    assert_int_equal(peer_listener_new(&loop, "127.0.0.1", 0, meshes, &node->listener, &error), 0);
}

static bool is_serving(void)
{
    struct mirror_device_status status;
    mirror_device_get_status(nodes[0].device, &status);
    return status.mirror.state == MIRROR_SERVING && !status.mirror.suspended;
}

static int begin(void **state)
{
    struct mirror_config config = {.epoch = 1, .isr_version = 1, .owner = 1, .isr = 3, .replica_count = 2,
                                   .replicas = {{.nodeid = 1, .incarnation = 10}, {.nodeid = 2, .incarnation = 11}}};
    struct error error;
    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(plugin_loader_new(NULL, &loader), 0);
    assert_int_equal(plugin_loader_load(loader, PLUGINS "/file.so", &error), 0);
    for (unsigned i = 0; i < 2; i++) {
        nodes[i].index = i;
        node_open(&nodes[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct peer_node other = {.uuid = {{(uint8_t)(2 - i)}}, .nodeid = (uint16_t)(2 - i)};
        (void)snprintf(other.address, sizeof(other.address), "127.0.0.1:%u", peer_listener_port(nodes[1 - i].listener));
        assert_int_equal(peer_mesh_set_peers(nodes[i].mesh, &other, 1), 0);
        mirror_device_config(nodes[i].device, &config);
    }
    while (!is_serving())
        uv_run(&loop, UV_RUN_ONCE);
    return 0;
}

static void part_closed(void *context)
{
    (void)context;
    open_parts--;
}

static int end(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        open_parts += 3;
        peer_listener_close(nodes[i].listener, part_closed, NULL);
        mirror_device_close(nodes[i].device, part_closed, NULL);
        peer_mesh_close(nodes[i].mesh, part_closed, NULL);
    }
    while (open_parts)
        uv_run(&loop, UV_RUN_ONCE);
    for (unsigned i = 0; i < 2; i++) {
        mirror_pulses_free(nodes[i].pulses);
        (void)unlink(nodes[i].data_path);
        (void)unlink(nodes[i].metadata_path);
    }
    int result = uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    plugin_loader_free(loader);
    return result;
}

static struct slot {
    struct block_request request;
    struct iovec iov;
} slots[DEPTH_MAX];
static uint8_t bytes[LARGEST] __attribute__((aligned(4096)));
static unsigned left, under_way;
static uint64_t place;

static void slot_done(struct block_request *request);

static void slot_write(struct slot *slot, size_t size)
{
    slot->iov = (struct iovec){bytes, size};
    slot->request = (struct block_request){.operation = BLOCK_WRITE, .offset_bytes = place, .length_bytes = size,
                                           .iov = &slot->iov, .iov_count = 1, .done = slot_done};
    place = (place + size) % AREA;
    left--;
    under_way++;
    block_device_submit(mirror_device_block(nodes[0].device), &slot->request);
}

static void slot_done(struct block_request *request)
{
    struct slot *slot = container_of(request, struct slot, request);
    assert_int_equal(request->status, 0);
    under_way--;
    if (left)
        slot_write(slot, slot->iov.iov_len);
}

static void run_writes(unsigned count, size_t size, unsigned depth)
{
    left = count;
    for (unsigned i = 0; i < depth; i++)
        slot_write(&slots[i], size);
    while (under_way)
        uv_run(&loop, UV_RUN_ONCE);
}

static void replicated_writes_allocate_nothing_once_warm(void **state)
{
    static const struct {
        size_t size;
        unsigned depth, count;
    } kinds[] = {{4096, 1, 100}, {4096, 16, 500}, {65536, 8, 100}, {LARGEST, 4, 16}};
    (void)state;
    memset(bytes, 0x5a, sizeof(bytes));
    /* Warm is when the pools have met the peaks of this load; how much output queues up at a peak depends on when the kernel takes
     * it. An allocation for each write, or each thousandth, would be seen every time. */
    allocations = 1;
    for (unsigned turn = 0; turn < 10 && allocations; turn++) {
        allocations = 0;
        for (unsigned round = 0; round < 3; round++)
            for (size_t k = 0; k < ARRAY_SIZE(kinds); k++)
                run_writes(kinds[k].count, kinds[k].size, kinds[k].depth);
    }
    assert_int_equal(allocations, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(replicated_writes_allocate_nothing_once_warm, begin, end)};
    if (!CRYPTO_set_mem_functions(tls_malloc, tls_realloc, tls_free)) /* before anything else */
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
