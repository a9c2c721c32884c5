#include "replication/io/test_cluster.h"
#include "replication/core/message.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

bool test_cluster_checksum;

struct test_frame {
    unsigned references; /* the courier's, and one for each keep of the payload */
    struct test_frame *next;
    unsigned from, to;
    struct peer_header header;
    uint8_t payload[];
};

/* ---- a disk in memory ------------------------------------------------------------------------------------------ */

static int disk_apply(struct test_disk *disk, struct block_request *r)
{
    uint64_t at = r->offset_bytes;
    bool change = r->operation == BLOCK_WRITE || r->operation == BLOCK_WRITE_ZEROES;
    if (change && !(r->flags & BLOCK_FUA))
        disk->fua_missing++;
    if (change && disk->fail_writes)
        return disk->fail_writes;
    for (uint64_t block = at / 4096; block <= (at + r->length_bytes - 1) / 4096 && r->length_bytes; block++) {
        if (r->operation == BLOCK_READ && disk->bad[block])
            return -EIO;
        if (change && disk->bad[block] == 1)
            disk->bad[block] = 0;
        if (change) /* what is unmapped is mapped again by the next write */
            disk->mapped[block] = r->operation == BLOCK_WRITE || !(r->flags & BLOCK_MAY_UNMAP) || r->length_bytes % 4096 || at % 4096;
    }
    disk->written_bytes += r->operation == BLOCK_WRITE ? r->length_bytes : 0;
    if (r->operation == BLOCK_WRITE_ZEROES)
        memset(disk->bytes + at, 0, r->length_bytes);
    for (unsigned i = 0; i < r->iov_count; i++) {
        if (r->operation == BLOCK_READ)
            memcpy(r->iov[i].iov_base, disk->bytes + at, r->iov[i].iov_len);
        else
            memcpy(disk->bytes + at, r->iov[i].iov_base, r->iov[i].iov_len);
        at += r->iov[i].iov_len;
    }
    return 0;
}

void test_disk_turn(uv_idle_t *idle)
{
    struct test_disk *disk = container_of(idle, struct test_disk, idle);
    struct block_request *r = disk->stalled ? NULL : disk->first;
    uv_idle_stop(idle);
    if (disk->stalled)
        return;
    disk->first = NULL;
    disk->end = &disk->first;
    while (r) {
        struct block_request *next = r->device_private[0];
        r->status = disk_apply(disk, r);
        r->done(r);
        r = next;
    }
}

void test_disk_wake(struct test_disk *disk)
{
    uv_idle_start(&disk->idle, test_disk_turn);
}

static void disk_submit(struct block_device *device, struct block_request *request)
{
    struct test_disk *disk = container_of(device, struct test_disk, device);
    ASSERT(block_request_check(device, request) == 0);
    request->device_private[0] = NULL;
    *disk->end = request;
    disk->end = (struct block_request **)&request->device_private[0];
    uv_idle_start(&disk->idle, test_disk_turn);
}

static void disk_idle_closed(uv_handle_t *handle)
{
    struct test_disk *disk = container_of((uv_idle_t *)handle, struct test_disk, idle);
    disk->closed(disk->closed_context);
}

static void disk_close(struct block_device *device, void (*closed)(void *context), void *context)
{
    struct test_disk *disk = container_of(device, struct test_disk, device);
    ASSERT(!disk->first);
    disk->closed = closed;
    disk->closed_context = context;
    uv_close((uv_handle_t *)&disk->idle, disk_idle_closed);
}

static const struct block_device_operations disk_operations = {.submit = disk_submit, .close = disk_close};

/* ---- links ------------------------------------------------------------------------------------------------------- */

static void frame_keep(void *payload)
{
    struct test_frame *frame = payload;
    frame->references++;
}

static void frame_release(void *payload)
{
    struct test_frame *frame = payload;
    ASSERT(frame->references > 0);
    if (--frame->references == 0)
        free(frame);
}

static void courier_turn(uv_idle_t *idle)
{
    struct test_cluster *c = container_of(idle, struct test_cluster, courier);
    struct test_frame *frame = c->first;
    uv_idle_stop(idle);
    c->first = NULL;
    c->end = &c->first;
    while (frame) {
        struct test_frame *next = frame->next;
        struct test_node *to = &c->nodes[frame->to];
        if (c->link[frame->from][frame->to] && to->device)
            mirror_device_receive(to->device, c->nodes[frame->from].nodeid, &frame->header, frame->payload,
                                  &(struct mirror_payload_keeper){frame, frame_keep, frame_release});
        frame_release(frame);
        frame = next;
    }
}

static int cluster_send(void *context, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov,
                        unsigned iov_count)
{
    struct test_node *from = context;
    struct test_cluster *c = from->cluster;
    unsigned a = (unsigned)(from - c->nodes), b = nodeid - 1u;
    uint32_t at = 0;
    ASSERT(b < c->count && a != b);
    if (!c->link[a][b])
        return -ENOTCONN;
    c->sent_bytes[a][b] += header->payload_bytes;
    if (header->type == MIRROR_CONFIRM) {
        c->confirms++;
        if (c->hold_confirms)
            return 0;
    }
    struct test_frame *frame = malloc(sizeof(*frame) + header->payload_bytes);
    frame->next = NULL;
    frame->references = 1;
    frame->from = a;
    frame->to = b;
    frame->header = *header;
    for (unsigned i = 0; i < iov_count; i++) {
        memcpy(frame->payload + at, iov[i].iov_base, iov[i].iov_len);
        at += (uint32_t)iov[i].iov_len;
    }
    ASSERT(at == header->payload_bytes);
    *c->end = frame;
    c->end = &frame->next;
    uv_idle_start(&c->courier, courier_turn);
    return 0;
}

static void cluster_reset(void *context, uint16_t nodeid, const char *words)
{
    struct test_node *from = context;
    (void)nodeid, (void)words;
    from->cluster->resets++;
}

static void heart_turn(uv_timer_t *timer)
{
    struct test_cluster *c = container_of(timer, struct test_cluster, heart);
    for (unsigned a = 0; a < c->count; a++)
        for (unsigned b = 0; b < c->count; b++) {
            if (a == b || !c->link[a][b] || !c->nodes[a].device || !c->nodes[b].device)
                continue;
            uint64_t now = mirror_clock_us();
            mirror_pulses_answered_by_us(c->nodes[b].pulses, c->nodes[a].nodeid, now);
            mirror_pulses_answered(c->nodes[a].pulses, c->nodes[b].nodeid, now);
        }
}

void test_cluster_link(struct test_cluster *c, unsigned a, unsigned b, bool up)
{
    if (c->link[a][b] == up)
        return;
    c->link[a][b] = c->link[b][a] = up;
    for (int side = 0; side < 2; side++) {
        struct test_node *node = &c->nodes[side ? a : b], *other = &c->nodes[side ? b : a];
        if (!node->device)
            continue;
        if (up)
            mirror_device_link_up(node->device, other->nodeid, other->boot);
        else
            mirror_device_link_down(node->device, other->nodeid);
    }
}

/* ---- configuration -------------------------------------------------------------------------------------------------- */

static void cluster_spread(struct test_cluster *c)
{
    for (unsigned i = 0; i < c->count; i++)
        if (c->nodes[i].device)
            mirror_device_config(c->nodes[i].device, &c->config);
}

void test_disk_grow(struct test_cluster *c, unsigned index, uint64_t size_bytes)
{
    struct test_node *node = &c->nodes[index];
    ASSERT(size_bytes <= 2 * c->made_bytes);
    node->disk.room_bytes = node->disk.device.geometry.size_bytes = size_bytes;
    if (node->device)
        mirror_device_data_grown(node->device);
}

void test_cluster_commit(struct test_cluster *c, uint16_t owner, uint8_t isr, bool new_epoch)
{
    c->config.epoch += new_epoch;
    c->config.isr_version++;
    c->config.owner = owner;
    c->config.isr = isr;
    cluster_spread(c);
}

static void cluster_ask(void *context, struct mirror_device *device, uint64_t epoch, uint64_t version, uint8_t isr,
                        const char *reason)
{
    struct test_node *node = context;
    struct test_cluster *c = node->cluster;
    (void)device, (void)reason;
    c->asked++;
    c->asked_isr = isr;
    if (c->commits && epoch == c->config.epoch && version == c->config.isr_version)
        test_cluster_commit(c, c->config.owner, isr, false);
}

static void cluster_drained(void *context, struct mirror_device *device)
{
    struct test_node *node = context;
    (void)device;
    node->drained++;
}

/* ---- nodes ----------------------------------------------------------------------------------------------------------- */

void test_node_up(struct test_cluster *c, unsigned index)
{
    struct test_node *node = &c->nodes[index];
    struct error error;
    node->boot++;
    node->disk.device.operations = &disk_operations;
    node->disk.device.kind = "test";
    node->disk.device.geometry = (struct block_geometry){.size_bytes = MAX(node->disk.room_bytes, c->size_bytes), .block_bytes = 512,
                                                         .physical_bytes = 4096, .memory_alignment = 1,
                                                         .max_transfer_bytes = 128 << 10, .max_unmap_bytes = 1 << 20,
                                                         .capabilities = index ? BLOCK_CAP_WRITE_ZEROES : 0};
    node->disk.first = NULL;
    node->disk.end = &node->disk.first;
    uv_idle_init(c->loop, &node->disk.idle);
    node->pulses = mirror_pulses_new(); /* of one life of the process */
    struct mirror_device_options options = {
        .volume = 5, .size_bytes = c->size_bytes, .block_bytes = 512, .nodeid = node->nodeid, .boot = node->boot,
        .data = &node->disk.device, .metadata_path = node->metadata,
        .checksum = test_cluster_checksum, .pulses = node->pulses,
        .transport = {node, cluster_send, cluster_reset},
        .callbacks = {.context = node, .ask_isr = cluster_ask, .drained = cluster_drained},
        .member_timeout_us = 200000,
    };
    memcpy(options.volume_uuid.bytes, "volume-uuid-test", 16);
    if (mirror_device_open(c->loop, &options, &node->device, &error) < 0) {
        fprintf(stderr, "%s\n", error.message);
        abort();
    }
    for (unsigned other = 0; other < c->count; other++)
        if (other != index && c->nodes[other].device)
            test_cluster_link(c, index, other, true);
    if (c->config.epoch)
        mirror_device_config(node->device, &c->config);
}

static void node_closed(void *context)
{
    ((struct test_node *)context)->device = NULL;
}

void test_node_down(struct test_cluster *c, unsigned index)
{
    struct test_node *node = &c->nodes[index];
    struct mirror_device *device = node->device;
    if (!device)
        return;
    mirror_device_close(device, node_closed, node);
    for (unsigned other = 0; other < c->count; other++)
        if (other != index)
            test_cluster_link(c, index, other, false);
    while (node->device)
        uv_run(c->loop, UV_RUN_ONCE);
    mirror_pulses_free(node->pulses);
    node->pulses = NULL;
}

void test_cluster_start(struct test_cluster *c, uv_loop_t *loop, unsigned count, uint64_t size_bytes, const char *folder)
{
    memset(c, 0, sizeof(*c));
    c->loop = loop;
    c->count = count;
    c->size_bytes = c->made_bytes = size_bytes;
    c->commits = true;
    c->end = &c->first;
    uv_idle_init(loop, &c->courier);
    uv_timer_init(loop, &c->heart);
    uv_timer_start(&c->heart, heart_turn, 20, 20);
    c->config = (struct mirror_config){.epoch = 1, .isr_version = 1, .owner = 1, .isr = (uint8_t)((1u << count) - 1),
                                       .replica_count = (uint8_t)count};
    for (unsigned i = 0; i < count; i++) {
        c->config.replicas[i].nodeid = (uint16_t)(i + 1);
        c->config.replicas[i].incarnation = 50 + i;
    }
    for (unsigned i = 0; i < count; i++) {
        struct test_node *node = &c->nodes[i];
        struct error error;
        struct mirror_replica_identity identity = {.volume = 5, .size_bytes = size_bytes, .replica_index = i,
                                                   .incarnation = 50 + i, .incarnations = {50, 51, 52, 53},
                                                   .checksum = test_cluster_checksum};
        memcpy(identity.volume_uuid.bytes, "volume-uuid-test", 16);
        node->cluster = c;
        node->nodeid = (uint16_t)(i + 1);
        node->boot = 100 * (i + 1);
        node->disk.cluster = c;
        node->disk.bytes = calloc(1, 2 * size_bytes);
        node->disk.bad = calloc(1, 2 * size_bytes / 4096);
        node->disk.mapped = calloc(1, 2 * size_bytes / 4096);
        snprintf(node->metadata, sizeof(node->metadata), "%s/mirror-test-%d-%u.meta", folder, (int)getpid(), i);
        unlink(node->metadata);
        if (mirror_replica_create(node->metadata, &identity, &error) < 0) {
            fprintf(stderr, "%s\n", error.message);
            abort();
        }
        test_node_up(c, i);
    }
}

static void handle_closed(uv_handle_t *handle)
{
    (void)handle;
}

void test_cluster_end(struct test_cluster *c)
{
    for (unsigned i = 0; i < c->count; i++) {
        c->nodes[i].disk.stalled = false;
        if (c->nodes[i].device)
            uv_idle_start(&c->nodes[i].disk.idle, test_disk_turn);
        test_node_down(c, i);
        free(c->nodes[i].disk.bytes);
        free(c->nodes[i].disk.bad);
        free(c->nodes[i].disk.mapped);
        IGNORE_RESULT(mirror_replica_remove(c->nodes[i].metadata, &(struct error){0}));
    }
    while (c->first) {
        struct test_frame *frame = c->first;
        c->first = frame->next;
        free(frame);
    }
    uv_close((uv_handle_t *)&c->courier, handle_closed);
    uv_close((uv_handle_t *)&c->heart, handle_closed);
    while (uv_run(c->loop, UV_RUN_NOWAIT))
        ;
}

static void wake(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

bool test_cluster_run(struct test_cluster *c, bool (*condition)(struct test_cluster *cluster), unsigned timeout_ms)
{
    uv_timer_t *timer = malloc(sizeof(*timer));
    bool over = false, met = false;
    uv_timer_init(c->loop, timer);
    uv_update_time(c->loop);
    timer->data = &over;
    uv_timer_start(timer, wake, timeout_ms, 0);
    while (!over && !(met = condition && condition(c)))
        uv_run(c->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)timer, (uv_close_cb)free);
    uv_run(c->loop, UV_RUN_NOWAIT);
    return met;
}

static void io_done(struct block_request *request)
{
    request->device_private[5] = request;
}

int test_cluster_io(struct test_cluster *c, unsigned index, enum block_operation operation, uint64_t offset, void *data,
                    uint64_t length)
{
    uint64_t first = length / 3 / 512 * 512; /* two pieces, so that slicing shows */
    struct iovec iov[2] = {{data, first}, {(uint8_t *)data + first, length - first}};
    bool whole = first == 0 || operation == BLOCK_COMPARE_AND_WRITE;
    struct iovec one = {data, operation == BLOCK_COMPARE_AND_WRITE ? 2 * length : length};
    struct block_request request = {.operation = operation, .offset_bytes = offset, .length_bytes = length,
                                    .iov = data ? (whole ? &one : iov) : NULL, .iov_count = data ? (whole ? 1 : 2) : 0,
                                    .done = io_done};
    block_device_submit(mirror_device_block(c->nodes[index].device), &request);
    ASSERT(!request.device_private[5]); /* never inline */
    while (!request.device_private[5])
        uv_run(c->loop, UV_RUN_ONCE);
    return request.status;
}
