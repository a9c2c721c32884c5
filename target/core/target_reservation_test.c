/* Reservations in a cluster (I14): in force and answered when committed, the same on every node, through a change of owner. */
#include "target/core/test_nodes.h"
#include <errno.h>

/* What the replicated state does: takes a table for a version, tells every node when told to. */
static struct {
    uint64_t epoch, version;
    uint8_t asked[SCSI_RESERVATIONS_BYTES_MAX], table[SCSI_RESERVATIONS_BYTES_MAX];
    uint32_t asked_size, table_size;
    unsigned questions;
} tree;

static void ask(void *context, uint64_t volume_id, uint64_t epoch, uint64_t version, const uint8_t *bytes, uint32_t size)
{
    (void)context;
    assert_int_equal(volume_id, VOLUME);
    tree.questions++;
    if (epoch != tree.epoch || version != tree.version)
        return;
    memcpy(tree.asked, bytes, size);
    tree.asked_size = size;
}

static void commit(struct cluster *cluster)
{
    assert_true(tree.asked_size > 0);
    tree.version++;
    memcpy(tree.table, tree.asked, tree.asked_size);
    tree.table_size = tree.asked_size;
    tree.asked_size = 0;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(target_set_reservations(&cluster->nodes[i].target, VOLUME, tree.version, tree.table, tree.table_size), 0);
    settle(cluster);
}

static int set_up_committing(void **state)
{
    int result = set_up(state);
    struct cluster *cluster = *state;
    memset(&tree, 0, sizeof(tree));
    tree.epoch = 7;
    for (unsigned i = 0; i < 2; i++)
        target_set_commit(&cluster->nodes[i].target, ask, NULL);
    return result;
}

/* The owner is node 1 - owner, with the next epoch. */
static void move(struct cluster *cluster, unsigned owner)
{
    tree.epoch++;
    set_state(cluster, owner, TARGET_LU_ACTIVE, 0, tree.epoch);
    set_state(cluster, 1 - owner, TARGET_LU_FORWARD, (uint16_t)(owner + 1), tree.epoch);
    settle(cluster);
}

static void begin_out(struct cluster *cluster, unsigned node, struct run *run, uint8_t action, uint8_t type, uint64_t key,
                      uint64_t service_key)
{
    uint8_t list[24] = {0};
    put_be64(list, key);
    put_be64(list + 8, service_key);
    begin(cluster, node, run, CDB(0x5f, action, type, 0, 0, 0, 0, 0, 24), list);
    settle(cluster);
}

static void out(struct cluster *cluster, unsigned node, uint8_t action, uint8_t type, uint64_t key, uint64_t service_key)
{
    struct run run;
    begin_out(cluster, node, &run, action, type, key, service_key);
    assert_int_equal(run.done, 0); /* I14 */
    commit(cluster);
    assert_int_equal(run.task.scsi.status, SCSI_GOOD);
    end(cluster, node, &run);
}

static uint8_t status_of(struct cluster *cluster, unsigned node, const uint8_t *cdb)
{
    static const uint8_t block[512];
    struct run run;
    begin(cluster, node, &run, cdb, cdb[0] == 0x2a ? block : NULL);
    settle(cluster);
    end(cluster, node, &run);
    return run.task.scsi.status;
}

static void no_attentions(struct cluster *cluster)
{
    for (unsigned node = 0; node < 2; node++)
        while (status_of(cluster, node, CDB(0)) == SCSI_CHECK_CONDITION)
            ;
}

static const uint8_t write_one[SCSI_CDB_BYTES] = {0x2a, 0, 0, 0, 0, 0, 0, 0, 1};

static void the_table_is_the_same_through_a_change_of_owner(void **state)
{
    struct cluster *cluster = *state;
    no_attentions(cluster);
    out(cluster, 1, 0, 0, 0, 5);
    out(cluster, 1, 1, 1, 5, 0); /* write exclusive for node 2's session */
    assert_int_equal(status_of(cluster, 0, write_one), SCSI_RESERVATION_CONFLICT);
    move(cluster, 1);
    no_attentions(cluster);
    assert_int_equal(status_of(cluster, 0, write_one), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(status_of(cluster, 1, write_one), SCSI_GOOD);
    out(cluster, 0, 6, 0, 0, 9);
    out(cluster, 0, 4, 3, 9, 5); /* preempt */
    move(cluster, 0);
    no_attentions(cluster);
    assert_int_equal(status_of(cluster, 1, write_one), SCSI_RESERVATION_CONFLICT);
}

/* Scenario 33: the owner goes while a PREEMPT is on its way. The initiator hears that nobody knows; the table has it or not, whole. */
static void preempt_during_a_failover_happens_or_not(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    no_attentions(cluster);
    out(cluster, 1, 0, 0, 0, 5);
    out(cluster, 1, 1, 1, 5, 0);
    out(cluster, 0, 0, 0, 0, 6);
    for (unsigned committed = 0; committed < 2; committed++) {
        begin_out(cluster, 0, &run, 4, 1, 6, 5);
        uint8_t late[SCSI_RESERVATIONS_BYTES_MAX];
        uint32_t late_size = tree.asked_size;
        assert_true(late_size > 0);
        memcpy(late, tree.asked, late_size);
        tree.asked_size = 0;
        if (committed) { /* it made it into the log, the owner never heard */
            tree.version++;
            memcpy(tree.table, late, late_size);
            tree.table_size = late_size;
        }
        assert_int_equal(run.done, 0);
        if (committed) {
            assert_int_equal(target_set_reservations(&cluster->nodes[1].target, VOLUME, tree.version, tree.table, tree.table_size), 0);
        }
        move(cluster, committed ? 1 : 0);
        assert_int_equal(run.task.scsi.status, SCSI_CHECK_CONDITION);
        assert_int_equal(run.task.scsi.sense[2] & 15, 0x0b); /* ABORTED COMMAND: ask and decide */
        end(cluster, 0, &run);
        if (!committed) {
            no_attentions(cluster);
            assert_int_equal(status_of(cluster, 0, write_one), SCSI_RESERVATION_CONFLICT);
        }
    }
    assert_int_equal(target_set_reservations(&cluster->nodes[0].target, VOLUME, tree.version, tree.table, tree.table_size), 0);
    no_attentions(cluster);
    assert_int_equal(status_of(cluster, 0, write_one), SCSI_GOOD);
    assert_int_equal(status_of(cluster, 1, write_one), SCSI_RESERVATION_CONFLICT);
}

static void changes_wait_for_each_other(void **state)
{
    struct cluster *cluster = *state;
    struct run first, second;
    no_attentions(cluster);
    begin_out(cluster, 0, &first, 0, 0, 0, 5);
    begin_out(cluster, 1, &second, 0, 0, 0, 6);
    commit(cluster);
    assert_int_equal(first.done, 1);
    assert_int_equal(second.done, 0);
    commit(cluster);
    end(cluster, 0, &first);
    end(cluster, 1, &second);
    assert_int_equal(second.task.scsi.status, SCSI_GOOD);
    assert_int_equal(target_find_lu(&cluster->nodes[1].target, VOLUME)->unit.reservations.count, 2);
}

static void a_question_without_an_answer_is_asked_again(void **state)
{
    struct cluster *cluster = *state;
    struct target *target = &cluster->nodes[0].target;
    struct run run;
    no_attentions(cluster);
    begin_out(cluster, 0, &run, 0, 0, 0, 5);
    assert_int_equal(tree.questions, 1);
    tree.asked_size = 0; /* no quorum: lost */
    (void)target_tick(target, target->now_ms + TARGET_COMMIT_AGAIN_MS - 1);
    assert_int_equal(tree.questions, 1);
    (void)target_tick(target, target->now_ms + 1);
    assert_int_equal(tree.questions, 2);
    commit(cluster);
    end(cluster, 0, &run);
}

static void an_aborted_change_leaves_the_next_one_its_turn(void **state)
{
    struct cluster *cluster = *state;
    struct run first, second;
    no_attentions(cluster);
    begin_out(cluster, 0, &first, 0, 0, 0, 5);
    begin_out(cluster, 1, &second, 0, 0, 0, 6);
    scsi_unit_nexus_loss(&target_find_lu(&cluster->nodes[0].target, VOLUME)->unit, cluster->nodes[0].session.id);
    assert_true(first.task.scsi.aborted);
    end(cluster, 0, &first);
    assert_int_equal(second.done, 0);
    commit(cluster);
    commit(cluster);
    end(cluster, 1, &second);
    assert_int_equal(second.task.scsi.status, SCSI_GOOD);
}

/* RESERVE(6): held by the session, seen by a new owner, gone with the session even when nobody owned the unit at that moment. */
static void reserve_follows_its_session_and_no_further(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    struct node *node = &cluster->nodes[1];
    no_attentions(cluster);
    begin(cluster, 1, &run, CDB(0x16), NULL);
    settle(cluster);
    assert_int_equal(run.done, 0);
    commit(cluster);
    end(cluster, 1, &run);
    move(cluster, 1);
    no_attentions(cluster);
    assert_int_equal(status_of(cluster, 0, write_one), SCSI_RESERVATION_CONFLICT);
    move(cluster, 0);
    set_state(cluster, 1, TARGET_LU_TRANSITION, 1, tree.epoch);
    target_session_end(&node->target, &node->session);
    settle(cluster);
    assert_int_equal(tree.asked_size, 0); /* nobody heard */
    set_state(cluster, 1, TARGET_LU_FORWARD, 1, tree.epoch);
    settle(cluster);
    commit(cluster);
    node->session.iqn = target_find_iqn(&node->target, IQN);
    target_session_begin(&node->target, &node->session);
    no_attentions(cluster);
    assert_int_equal(status_of(cluster, 0, write_one), SCSI_GOOD);
}

static unsigned resets_done;

static void reset_done(struct scsi_management *management)
{
    (void)management;
    resets_done++;
}

static void reset_is_answered_when_the_release_is_committed(void **state)
{
    struct cluster *cluster = *state;
    struct run run;
    struct scsi_unit *unit = &target_find_lu(&cluster->nodes[0].target, VOLUME)->unit;
    struct scsi_management reset = {.function = SCSI_LUN_RESET};
    reset.done = reset_done;
    resets_done = 0;
    no_attentions(cluster);
    begin(cluster, 1, &run, CDB(0x16), NULL);
    settle(cluster);
    commit(cluster);
    end(cluster, 1, &run);
    scsi_unit_manage(unit, NULL, &reset);
    assert_int_equal(resets_done, 0);
    commit(cluster);
    assert_int_equal(resets_done, 1);
    assert_int_equal(unit->reservations.reserved_session, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up_committing, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_table_is_the_same_through_a_change_of_owner),
        TEST(preempt_during_a_failover_happens_or_not),
        TEST(changes_wait_for_each_other),
        TEST(a_question_without_an_answer_is_asked_again),
        TEST(an_aborted_change_leaves_the_next_one_its_turn),
        TEST(reserve_follows_its_session_and_no_further),
        TEST(reset_is_answered_when_the_release_is_committed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
