/* Two nodes in memory with one logical unit, for tests: frames between them and block requests move when told to. */
#ifndef DIRECTOR_TARGET_CORE_TEST_NODES_H
#define DIRECTOR_TARGET_CORE_TEST_NODES_H

#include "target/core/target.h"
#include "target/core/test_device.h"

#include "director/base/bytes.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define IQN    "iqn.2026-01.org.director:test"
#define VOLUME 42u

struct frame {
    struct frame *next;
    uint16_t from, to;
    struct peer_header header;
    uint8_t payload[];
};

struct cluster;
struct node {
    struct cluster *cluster;
    uint16_t id;
    struct target target;
    struct target_session session;
};

struct cluster {
    struct node nodes[2];
    struct test_device device;
    struct frame *frames;
    bool cut;                    /* send answers -ENOTCONN */
    void (*late_done)(void *);   /* a frame whose memory the link keeps */
    void *late_argument;
    bool keep;
};

struct run {
    struct target_task task; /* first */
    unsigned done;
};

__attribute__((unused)) static int send_frame(void *context, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov,
                      unsigned iov_count, void (*done)(void *), void *argument)
{
    struct node *node = context;
    struct cluster *cluster = node->cluster;
    if (cluster->cut)
        return -ENOTCONN;
    struct frame *frame = malloc(sizeof(*frame) + header->payload_bytes);
    uint32_t at = 0;
    for (unsigned i = 0; i < iov_count; at += (uint32_t)iov[i++].iov_len)
        memcpy(frame->payload + at, iov[i].iov_base, iov[i].iov_len);
    assert_int_equal(at, header->payload_bytes);
    frame->from = node->id;
    frame->to = nodeid;
    frame->header = *header;
    frame->next = NULL;
    struct frame **tail = &cluster->frames;
    while (*tail)
        tail = &(*tail)->next;
    *tail = frame;
    if (cluster->keep && !cluster->late_done) {
        cluster->late_done = done;
        cluster->late_argument = argument;
    } else {
        done(argument);
    }
    return 0;
}

__attribute__((unused)) static const struct target_forward_operations operations = {send_frame};

__attribute__((unused)) static void deliver(struct cluster *cluster)
{
    while (cluster->frames) {
        struct frame *frame = cluster->frames;
        cluster->frames = frame->next;
        assert_int_equal(target_forward_receive(&cluster->nodes[frame->to - 1].target, frame->from, &frame->header,
                                                frame->payload),
                         0);
        free(frame);
    }
}

__attribute__((unused)) static void drop_frames(struct cluster *cluster)
{
    while (cluster->frames) {
        struct frame *frame = cluster->frames;
        cluster->frames = frame->next;
        free(frame);
    }
}

/* Frames and block requests until nothing moves. */
__attribute__((unused)) static void settle(struct cluster *cluster)
{
    do {
        deliver(cluster);
        test_device_drain(&cluster->device);
    } while (cluster->frames || cluster->device.count);
}

__attribute__((unused)) static void set_state(struct cluster *cluster, unsigned node, enum target_lu_state state, uint16_t owner, uint64_t epoch)
{
    assert_int_equal(target_set_lu_state(&cluster->nodes[node].target, VOLUME, state, owner, epoch,
                                         state == TARGET_LU_ACTIVE ? &cluster->device.device : NULL),
                     0);
}

__attribute__((unused)) static void nothing_to_drop(struct target_session *session)
{
    (void)session;
}

/* A life of node number i; seed tells it from others. */
__attribute__((unused)) static void node_init(struct cluster *cluster, unsigned i, uint64_t seed)
{
    struct target_lu_identity identity = {
        .volume_id = VOLUME, .uuid = {{1}}, .size_bytes = TEST_DEVICE_BYTES, .block_bytes = 512};
    struct target_port ports[2] = {{.nodeid = 1, .port = 1, .alive = true, .address = "::1"},
                                   {.nodeid = 2, .port = 2, .alive = true, .address = "::1"}};
    struct node *node = &cluster->nodes[i];
    memset(node, 0, sizeof(*node));
    node->cluster = cluster;
    node->id = (uint16_t)(i + 1);
    target_init(&node->target, node->id, 64u << 20, 20000, seed);
    node->target.forward = &operations;
    node->target.forward_context = node;
    assert_int_equal(target_put_lu(&node->target, &identity), 0);
    assert_int_equal(target_put_iqn(&node->target, IQN), 0);
    assert_int_equal(target_set_lun(&node->target, IQN, 0, VOLUME), 0);
    assert_int_equal(target_set_ports(&node->target, ports, 2), 0);
    set_state(cluster, i, i == 0 ? TARGET_LU_ACTIVE : TARGET_LU_FORWARD, 1, 7);
    strcpy(node->session.nexus.initiator, i ? "iqn.b" : "iqn.a");
    strcpy(node->session.nexus.target, IQN);
    node->session.iqn = target_find_iqn(&node->target, IQN);
    node->session.drop = nothing_to_drop;
    target_session_begin(&node->target, &node->session);
}

__attribute__((unused)) static int set_up(void **state)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));
    test_device_init(&cluster->device, 0);
    for (unsigned i = 0; i < 2; i++)
        node_init(cluster, i, 1);
    *state = cluster;
    return 0;
}

__attribute__((unused)) static int tear_down(void **state)
{
    struct cluster *cluster = *state;
    for (unsigned i = 0; i < 2; i++)
        target_session_end(&cluster->nodes[i].target, &cluster->nodes[i].session);
    settle(cluster);
    for (unsigned i = 0; i < 2; i++)
        target_done(&cluster->nodes[i].target);
    free(cluster);
    return 0;
}

__attribute__((unused)) static void run_done(struct target_task *task)
{
    container_of(task, struct run, task)->done++;
}

__attribute__((unused)) static void begin(struct cluster *cluster, unsigned node, struct run *run, const uint8_t *cdb, const void *data)
{
    struct target *target = &cluster->nodes[node].target;
    uint64_t bytes;
    memset(run, 0, sizeof(*run));
    memcpy(run->task.scsi.cdb, cdb, SCSI_CDB_BYTES);
    run->task.session = &cluster->nodes[node].session;
    run->task.done = run_done;
    run->task.scsi.tag = (uint64_t)(uintptr_t)run;
    if (target_command_data(run->task.session, 0, cdb, &bytes) != SCSI_DATA_NONE)
        run->task.scsi.buffer = target_buffer(target, (uint32_t)bytes);
    run->task.scsi.expected_bytes = (uint32_t)bytes;
    if (data) {
        memcpy(run->task.scsi.buffer->data, data, bytes);
        run->task.scsi.data_out_bytes = (uint32_t)bytes;
    }
    target_submit(target, &run->task);
}

__attribute__((unused)) static void end(struct cluster *cluster, unsigned node, struct run *run)
{
    assert_int_equal(run->done, 1);
    data_pool_put(&cluster->nodes[node].target.pool, run->task.scsi.buffer);
    run->task.scsi.buffer = NULL;
}

__attribute__((unused)) static uint32_t sense_of(const struct run *run)
{
    const struct scsi_task *scsi = &run->task.scsi;
    return scsi->sense_bytes ? SCSI_SENSE(scsi->sense[2] & 15, scsi->sense[12], scsi->sense[13]) : 0;
}

#define CDB(...) ((const uint8_t[SCSI_CDB_BYTES]){__VA_ARGS__})

#endif
