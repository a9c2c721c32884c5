/* Two nodes in memory: routing, forwarding, holding, loss of owners, task management across nodes. */
#include "target/core/test_nodes.h"

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

static void node_apart_sends_commands_to_other_paths(void **state)
{
    struct cluster *cluster = *state;
    struct run held, later;
    uint8_t data[512] = {0};
    clear_attentions(cluster);
    set_state(cluster, 1, TARGET_LU_TRANSITION, 0, 8);
    (void)ready(cluster, 1);
    begin(cluster, 1, &held, write_cdb, data);
    assert_int_equal(held.done, 0);
    target_set_apart(&cluster->nodes[1].target, true);
    settle(cluster);
    assert_int_equal(sense_of(&held), SCSI_SENSE_ALUA_UNAVAILABLE);
    end(cluster, 1, &held);
    assert_int_equal(ready(cluster, 1), SCSI_SENSE(6, 0x2a, 0x06));
    assert_int_equal(ready(cluster, 1), SCSI_SENSE_ALUA_UNAVAILABLE);
    target_set_apart(&cluster->nodes[1].target, false);
    (void)ready(cluster, 1);
    begin(cluster, 1, &later, write_cdb, data);
    assert_int_equal(later.done, 0);
    set_state(cluster, 1, TARGET_LU_FORWARD, 1, 7);
    settle(cluster);
    assert_int_equal(later.done, 1);
    end(cluster, 1, &later);
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

/* The owner answers after the node that asked was started anew: the answer must not pass for that of a request of the new life. */
static void an_answer_to_an_earlier_life_is_nobodys(void **state)
{
    struct cluster *cluster = *state;
    struct node *node = &cluster->nodes[1];
    struct run old, new;
    clear_attentions(cluster);
    begin(cluster, 1, &old, read_cdb, NULL);
    deliver(cluster);
    assert_int_equal(cluster->device.count, 1); /* the owner works on it */
    uint64_t number = old.task.request;
    target_session_end(&node->target, &node->session);
    end(cluster, 1, &old);
    drop_frames(cluster);
    target_done(&node->target);
    node_init(cluster, 1, 2);
    for (unsigned i = 0; i < 100 && node->target.next_request + 1 != number; i++) { /* were they counted from the same start */
        begin(cluster, 1, &new, CDB(0x5e, 2, 0, 0, 0, 0, 0, 0, 8), NULL);
        struct frame *mine = cluster->frames;
        cluster->frames = NULL;
        assert_int_equal(target_forward_receive(&cluster->nodes[0].target, 2, &mine->header, mine->payload), 0);
        free(mine);
        deliver(cluster);
        end(cluster, 1, &new);
    }
    begin(cluster, 1, &new, read_cdb, NULL);
    struct frame *asked = cluster->frames;
    cluster->frames = NULL;
    test_device_drain(&cluster->device); /* the old answer comes first */
    deliver(cluster);
    assert_int_equal(new.done, 0);
    cluster->frames = asked;
    settle(cluster);
    end(cluster, 1, &new);
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
        TEST(node_apart_sends_commands_to_other_paths),
        TEST(owner_of_another_epoch_does_not_execute),
        TEST(task_lives_until_the_link_lets_go_of_its_frame),
        TEST(forwarded_task_is_aborted_at_the_owner),
        TEST(reset_through_one_node_reaches_the_sessions_of_all),
        TEST(an_answer_to_an_earlier_life_is_nobodys),
        TEST(lost_session_releases_at_the_owner),
        TEST(port_groups_tell_where_the_owner_is),
        TEST(unit_without_lun_is_not_there),
        TEST(rubbish_from_a_node_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
