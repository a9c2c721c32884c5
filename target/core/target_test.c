/* Two nodes in memory: routing, forwarding, holding, loss of owners, task management across nodes. */
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

static int send_frame(void *context, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov,
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

static const struct target_forward_operations operations = {send_frame};

static void deliver(struct cluster *cluster)
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

static void drop_frames(struct cluster *cluster)
{
    while (cluster->frames) {
        struct frame *frame = cluster->frames;
        cluster->frames = frame->next;
        free(frame);
    }
}

/* Frames and block requests until nothing moves. */
static void settle(struct cluster *cluster)
{
    do {
        deliver(cluster);
        test_device_drain(&cluster->device);
    } while (cluster->frames || cluster->device.count);
}

static void set_state(struct cluster *cluster, unsigned node, enum target_lu_state state, uint16_t owner, uint64_t epoch)
{
    assert_int_equal(target_set_lu_state(&cluster->nodes[node].target, VOLUME, state, owner, epoch,
                                         state == TARGET_LU_ACTIVE ? &cluster->device.device : NULL),
                     0);
}

static void nothing_to_drop(struct target_session *session)
{
    (void)session;
}

static int set_up(void **state)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));
    struct target_lu_identity identity = {
        .volume_id = VOLUME, .uuid = {{1}}, .size_bytes = TEST_DEVICE_BYTES, .block_bytes = 512};
    struct target_port ports[2] = {{.nodeid = 1, .port = 1, .alive = true, .address = "::1"},
                                   {.nodeid = 2, .port = 2, .alive = true, .address = "::1"}};
    test_device_init(&cluster->device, 0);
    for (unsigned i = 0; i < 2; i++) {
        struct node *node = &cluster->nodes[i];
        node->cluster = cluster;
        node->id = (uint16_t)(i + 1);
        target_init(&node->target, node->id, 64u << 20, 20000, 0);
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
    *state = cluster;
    return 0;
}

static int tear_down(void **state)
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

static void run_done(struct target_task *task)
{
    container_of(task, struct run, task)->done++;
}

static void begin(struct cluster *cluster, unsigned node, struct run *run, const uint8_t *cdb, const void *data)
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

static void end(struct cluster *cluster, unsigned node, struct run *run)
{
    assert_int_equal(run->done, 1);
    data_pool_put(&cluster->nodes[node].target.pool, run->task.scsi.buffer);
    run->task.scsi.buffer = NULL;
}

static uint32_t sense_of(const struct run *run)
{
    const struct scsi_task *scsi = &run->task.scsi;
    return scsi->sense_bytes ? SCSI_SENSE(scsi->sense[2] & 15, scsi->sense[12], scsi->sense[13]) : 0;
}

#define CDB(...) ((const uint8_t[SCSI_CDB_BYTES]){__VA_ARGS__})
static const uint8_t ready_cdb[SCSI_CDB_BYTES] = {0};
static const uint8_t read_cdb[SCSI_CDB_BYTES] = {0x28, 0, 0, 0, 0, 0, 0, 0, 1};
static const uint8_t write_cdb[SCSI_CDB_BYTES] = {0x2a, 0, 0, 0, 0, 0, 0, 0, 1};

static uint32_t ready(struct cluster *cluster, unsigned node)
{
    struct run run;
    begin(cluster, node, &run, ready_cdb, NULL);
    settle(cluster);
    end(cluster, node, &run);
    return sense_of(&run);
}

/* Take the attentions of a new session. */
static void clear_attentions(struct cluster *cluster)
{
    for (unsigned node = 0; node < 2; node++)
        for (unsigned i = 0; i < 8 && ready(cluster, node); i++)
            ;
}

static void forwarded_write_is_read_by_the_owner(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    uint8_t data[512];
    memset(data, 0x5c, sizeof(data));
    assert_int_equal(ready(cluster, 1), SCSI_SENSE_POWER_ON); /* a new session, also through another node */
    clear_attentions(cluster);
    begin(cluster, 1, &run, write_cdb, data);
    assert_int_equal(run.done, 0);
    settle(cluster);
    assert_int_equal(run.task.scsi.status, SCSI_GOOD);
    end(cluster, 1, &run);
    begin(cluster, 0, &run, read_cdb, NULL);
    settle(cluster);
    assert_memory_equal(run.task.scsi.buffer->data, data, 512);
    end(cluster, 0, &run);
    begin(cluster, 1, &run, read_cdb, NULL);
    settle(cluster);
    assert_int_equal(run.task.scsi.data_in_bytes, 512);
    assert_memory_equal(run.task.scsi.buffer->data, data, 512);
    end(cluster, 1, &run);
}

static void lost_owner_repeats_reads_and_aborts_writes(void **state)
{
    struct cluster *cluster = *state;
    struct run reads, writes;
    uint8_t data[512] = {0};
    clear_attentions(cluster);
    begin(cluster, 1, &reads, read_cdb, NULL);
    begin(cluster, 1, &writes, write_cdb, data);
    drop_frames(cluster);
    cluster->cut = true;
    target_node_down(&cluster->nodes[1].target, 1);
    assert_int_equal(reads.done, 0);
    assert_int_equal(writes.done, 1); /* T2 */
    assert_int_equal(sense_of(&writes), SCSI_SENSE_COMMUNICATION_TIMEOUT);
    end(cluster, 1, &writes);
    cluster->cut = false;
    set_state(cluster, 0, TARGET_LU_FORWARD, 2, 8);
    set_state(cluster, 1, TARGET_LU_ACTIVE, 2, 8);
    settle(cluster);
    assert_int_equal(reads.done, 1);
    assert_int_equal(reads.task.scsi.status, SCSI_GOOD);
    end(cluster, 1, &reads);
}

static void command_is_held_until_there_is_an_owner(void **state)
{
    struct cluster *cluster = *state;
    struct run first, second;
    uint8_t data[512] = {0};
    clear_attentions(cluster);
    set_state(cluster, 1, TARGET_LU_TRANSITION, 0, 8);
    assert_int_equal(ready(cluster, 1), SCSI_SENSE(6, 0x2a, 0x06)); /* the change is told at once */
    begin(cluster, 1, &first, write_cdb, data);
    assert_true(target_tick(&cluster->nodes[1].target, 19999) != UINT64_MAX);
    assert_int_equal(first.done, 0);
    set_state(cluster, 0, TARGET_LU_ACTIVE, 1, 8);
    set_state(cluster, 1, TARGET_LU_FORWARD, 1, 8);
    settle(cluster);
    assert_int_equal(first.task.scsi.status, SCSI_GOOD);
    end(cluster, 1, &first);
    clear_attentions(cluster);
    set_state(cluster, 1, TARGET_LU_TRANSITION, 0, 9);
    (void)ready(cluster, 1);
    begin(cluster, 1, &second, write_cdb, data);
    (void)target_tick(&cluster->nodes[1].target, 39998);
    assert_int_equal(second.done, 0);
    (void)target_tick(&cluster->nodes[1].target, 39999);
    assert_int_equal(sense_of(&second), SCSI_SENSE_ALUA_TRANSITION);
    end(cluster, 1, &second);
}

static void owner_of_another_epoch_does_not_execute(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    uint8_t data[512];
    memset(data, 1, sizeof(data));
    clear_attentions(cluster);
    set_state(cluster, 0, TARGET_LU_ACTIVE, 1, 8); /* node 2 has not heard of epoch 8 */
    begin(cluster, 1, &run, write_cdb, data);
    settle(cluster);
    assert_int_equal(run.done, 0);
    assert_int_equal(cluster->device.bytes[0], 0); /* T3 */
    set_state(cluster, 1, TARGET_LU_FORWARD, 1, 8);
    settle(cluster);
    assert_int_equal(run.task.scsi.status, SCSI_GOOD);
    assert_int_equal(cluster->device.bytes[0], 1);
    end(cluster, 1, &run);
}

static void task_lives_until_the_link_lets_go_of_its_frame(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    clear_attentions(cluster);
    cluster->keep = true;
    begin(cluster, 1, &run, read_cdb, NULL);
    settle(cluster);
    assert_int_equal(run.done, 0); /* answered, but its frame is still being read */
    cluster->late_done(cluster->late_argument);
    end(cluster, 1, &run);
}

static unsigned responses;
static uint8_t response;

static void function_done(void *context, uint8_t result)
{
    (void)context;
    responses++;
    response = result;
}

static void forwarded_task_is_aborted_at_the_owner(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    clear_attentions(cluster);
    begin(cluster, 1, &run, read_cdb, NULL);
    deliver(cluster);
    assert_int_equal(cluster->device.count, 1);
    responses = 0;
    target_manage(&cluster->nodes[1].target, &cluster->nodes[1].session, SCSI_ABORT_TASK, 0, run.task.scsi.tag,
                  function_done, NULL);
    deliver(cluster);
    assert_int_equal(responses + run.done, 0);
    settle(cluster);
    assert_int_equal(responses, 1);
    assert_int_equal(response, SCSI_FUNCTION_COMPLETE);
    assert_true(run.task.scsi.aborted);
    end(cluster, 1, &run);
}

static void reset_through_one_node_reaches_the_sessions_of_all(void **state)
{
    struct cluster *cluster = *state;
    clear_attentions(cluster);
    responses = 0;
    target_manage(&cluster->nodes[1].target, &cluster->nodes[1].session, SCSI_TARGET_WARM_RESET, 0, 0, function_done, NULL);
    settle(cluster);
    assert_int_equal(responses, 1);
    assert_int_equal(ready(cluster, 0), SCSI_SENSE(6, 0x29, 0x03));
    assert_int_equal(ready(cluster, 1), SCSI_SENSE(6, 0x29, 0x03));
}

static void lost_session_releases_at_the_owner(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    clear_attentions(cluster);
    begin(cluster, 1, &run, CDB(0x16), NULL); /* RESERVE */
    settle(cluster);
    end(cluster, 1, &run);
    begin(cluster, 0, &run, ready_cdb, NULL);
    end(cluster, 0, &run);
    assert_int_equal(run.task.scsi.status, SCSI_RESERVATION_CONFLICT);
    struct node *node = &cluster->nodes[1];
    target_session_end(&node->target, &node->session);
    settle(cluster);
    begin(cluster, 0, &run, ready_cdb, NULL);
    end(cluster, 0, &run);
    assert_int_equal(run.task.scsi.status, SCSI_GOOD);
    node->session.iqn = target_find_iqn(&node->target, IQN);
    target_session_begin(&node->target, &node->session);
}

static void port_groups_tell_where_the_owner_is(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    static const uint8_t rtpg[SCSI_CDB_BYTES] = {0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 255};
    clear_attentions(cluster);
    for (unsigned node = 0; node < 2; node++) {
        begin(cluster, node, &run, rtpg, NULL);
        const uint8_t *data = run.task.scsi.buffer->data;
        assert_int_equal(get_be32(data), 24);
        assert_int_equal(data[4] & 15, 0);
        assert_int_equal(get_be16(data + 6), 1);
        assert_int_equal(data[16] & 15, 1);
        assert_int_equal(get_be16(data + 18), 2);
        end(cluster, node, &run);
    }
    struct target_port ports[2] = {{.nodeid = 1, .port = 1, .address = "::1"},
                                   {.nodeid = 2, .port = 2, .alive = true, .address = "::1"}};
    assert_int_equal(target_set_ports(&cluster->nodes[1].target, ports, 2), 0);
    set_state(cluster, 1, TARGET_LU_TRANSITION, 1, 8);
    (void)ready(cluster, 1);
    begin(cluster, 1, &run, rtpg, NULL);
    assert_int_equal(run.task.scsi.buffer->data[4] & 15, 3);   /* dead: UNAVAILABLE */
    assert_int_equal(run.task.scsi.buffer->data[16] & 15, 15); /* TRANSITIONING */
    end(cluster, 1, &run);
}

static void unit_without_lun_is_not_there(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    assert_int_equal(target_clear_lun(&cluster->nodes[0].target, IQN, 0), 0);
    begin(cluster, 0, &run, read_cdb, NULL);
    assert_int_equal(sense_of(&run), SCSI_SENSE_LU_NOT_SUPPORTED);
    end(cluster, 0, &run);
    begin(cluster, 0, &run, CDB(0x12, 0, 0, 0, 36), NULL);
    assert_int_equal(run.task.scsi.buffer->data[0], 0x7f);
    end(cluster, 0, &run);
    assert_int_equal(target_remove_lu(&cluster->nodes[0].target, VOLUME), 0);
    (void)target_tick(&cluster->nodes[0].target, 1);
}

static void rubbish_from_a_node_is_refused(void **state)
{
    struct cluster *cluster = *state;
    uint8_t bytes[64] = {0};
    for (unsigned type = FORWARD_COMMAND; type <= 0x6f; type++) {
        struct peer_header header = {.type = (uint16_t)type, .payload_bytes = sizeof(bytes), .argument = 0x3000000000000ull};
        int status = target_forward_receive(&cluster->nodes[0].target, 2, &header, bytes);
        assert_int_equal(status, -EPROTO);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(forwarded_write_is_read_by_the_owner),
        TEST(lost_owner_repeats_reads_and_aborts_writes),
        TEST(command_is_held_until_there_is_an_owner),
        TEST(owner_of_another_epoch_does_not_execute),
        TEST(task_lives_until_the_link_lets_go_of_its_frame),
        TEST(forwarded_task_is_aborted_at_the_owner),
        TEST(reset_through_one_node_reaches_the_sessions_of_all),
        TEST(lost_session_releases_at_the_owner),
        TEST(port_groups_tell_where_the_owner_is),
        TEST(unit_without_lun_is_not_there),
        TEST(rubbish_from_a_node_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
