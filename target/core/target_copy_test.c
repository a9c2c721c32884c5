/* EXTENDED COPY over two nodes: the node that got it reads and writes where the owner is. */
#include "target/core/test_nodes.h"

enum { LIST_BYTES = 16 + 32 + 28 };

/* One unit, one segment of so many blocks. */
static void list_make(uint8_t *list, const struct cluster *cluster, uint16_t blocks, uint64_t from, uint64_t to)
{
    memset(list, 0, LIST_BYTES);
    list[0] = 9; /* list id */
    put_be16(list + 2, 32);
    put_be32(list + 8, 28);
    uint8_t *unit = list + 16, *segment = list + 48;
    unit[0] = 0xe4;
    unit[4] = 1;
    unit[5] = 3;
    unit[7] = scsi_designator(&target_find_lu(&cluster->nodes[0].target, VOLUME)->unit, 3, unit + 8);
    segment[0] = 2;
    put_be16(segment + 2, 24);
    put_be16(segment + 10, blocks);
    put_be64(segment + 12, from);
    put_be64(segment + 20, to);
}

static const uint8_t copy_cdb[SCSI_CDB_BYTES] = {0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, LIST_BYTES};
static const uint8_t status_cdb[SCSI_CDB_BYTES] = {0x84, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64};

static void no_attentions(struct cluster *cluster, unsigned node)
{
    struct run run;
    do {
        begin(cluster, node, &run, CDB(0), NULL);
        settle(cluster);
        end(cluster, node, &run);
    } while (run.task.scsi.status == SCSI_CHECK_CONDITION);
}

static void copies_where_the_owner_is(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    uint8_t list[LIST_BYTES];
    for (unsigned node = 0; node < 2; node++) {
        uint64_t to = 1000 + 100 * node;
        no_attentions(cluster, node);
        memset(cluster->device.bytes, 'a' + (int)node, 40 * 512);
        list_make(list, cluster, 40, 0, to);
        begin(cluster, node, &run, copy_cdb, list);
        settle(cluster);
        assert_int_equal(run.task.scsi.status, SCSI_GOOD);
        end(cluster, node, &run);
        assert_memory_equal(cluster->device.bytes, cluster->device.bytes + to * 512, 40 * 512);
        assert_int_equal(cluster->device.bytes[(to + 40) * 512], 0);
        begin(cluster, node, &run, status_cdb, NULL);
        assert_int_equal(run.task.scsi.buffer->data[4], 1);
        assert_int_equal(get_be16(run.task.scsi.buffer->data + 5), 1);
        assert_int_equal(get_be32(run.task.scsi.buffer->data + 8), 20); /* KiB */
        end(cluster, node, &run);
        assert_int_equal(cluster->nodes[node].target.copies, 0);
    }
}

static void a_segment_beyond_the_end_copies_nothing(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    uint8_t list[LIST_BYTES];
    no_attentions(cluster, 0);
    list_make(list, cluster, 2, 0, TEST_DEVICE_BYTES / 512 - 1);
    begin(cluster, 0, &run, copy_cdb, list);
    settle(cluster);
    assert_int_equal(sense_of(&run), SCSI_SENSE_COPY_ABORTED);
    end(cluster, 0, &run);
    put_be16(list + 48 + 6, 1); /* a unit that was not listed */
    begin(cluster, 0, &run, copy_cdb, list);
    assert_int_equal(sense_of(&run), SCSI_SENSE_UNREACHABLE_COPY_TARGET);
    end(cluster, 0, &run);
    begin(cluster, 0, &run, status_cdb, NULL);
    assert_int_equal(run.task.scsi.buffer->data[4], 2);
    end(cluster, 0, &run);
}

static void a_reservation_of_another_stops_it(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    uint8_t list[LIST_BYTES];
    no_attentions(cluster, 0);
    no_attentions(cluster, 1);
    begin(cluster, 1, &run, CDB(0x16), NULL);
    settle(cluster);
    end(cluster, 1, &run);
    list_make(list, cluster, 8, 0, 64);
    begin(cluster, 0, &run, copy_cdb, list);
    settle(cluster);
    assert_int_equal(sense_of(&run), SCSI_SENSE_THIRD_PARTY_DEVICE_FAILURE);
    end(cluster, 0, &run);
}

static void the_end_of_the_session_ends_it(void **state)
{
    struct cluster *cluster = *state;
    struct node *node = &cluster->nodes[1];
    struct run run;
    uint8_t list[LIST_BYTES];
    no_attentions(cluster, 1);
    list_make(list, cluster, 8, 0, 64);
    begin(cluster, 1, &run, copy_cdb, list); /* forwarded, not answered */
    target_session_end(&node->target, &node->session);
    assert_int_equal(run.done, 1);
    assert_true(run.task.scsi.aborted);
    assert_int_equal(node->target.copies, 0);
    end(cluster, 1, &run);
    settle(cluster);
    node->session.iqn = target_find_iqn(&node->target, IQN);
    target_session_begin(&node->target, &node->session);
}

static void response_taken(void *context, uint8_t response)
{
    *(uint8_t *)context = response;
}

static void abort_task_finds_what_it_is_doing(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    uint8_t list[LIST_BYTES];
    static uint8_t response;
    no_attentions(cluster, 0);
    list_make(list, cluster, 8, 0, 64);
    begin(cluster, 0, &run, copy_cdb, list);
    response = 255;
    target_manage(&cluster->nodes[0].target, &cluster->nodes[0].session, SCSI_ABORT_TASK, 0, run.task.scsi.tag, response_taken,
                  &response);
    assert_int_equal(response, 255); /* the read is with the device still (U4) */
    settle(cluster);
    assert_int_equal(response, SCSI_FUNCTION_COMPLETE);
    assert_true(run.task.scsi.aborted);
    end(cluster, 0, &run);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(copies_where_the_owner_is),     TEST(a_segment_beyond_the_end_copies_nothing), TEST(a_reservation_of_another_stops_it),
        TEST(the_end_of_the_session_ends_it), TEST(abort_task_finds_what_it_is_doing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
