#include "agent/core/task_plan.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define GIB (1ull << 30)

static int apply(struct tree *tree, Director__Command *command)
{
    struct error error = {0};
    int status = tree_apply(tree, command, NULL, &error);
    if (status)
        print_message("%s\n", error.message);
    return status;
}

#define DO(tree, CASE, member, ...)                                                                      \
    ({                                                                                                   \
        Director__Command command_ = DIRECTOR__COMMAND__INIT;                                            \
        __typeof__(*command_.member) body_ = {.base = PROTOBUF_C_MESSAGE_INIT(&director__##member##__descriptor), __VA_ARGS__}; \
        command_.body_case = DIRECTOR__COMMAND__BODY_##CASE;                                             \
        command_.member = &body_;                                                                        \
        apply((tree), &command_);                                                                        \
    })

/* Three nodes; volume 1 on 1 and 2, owner 1, all alive. */
struct world {
    struct tree *tree;
    struct failover_nodes alive;
};

static struct world world_new(void)
{
    struct world world = {.tree = tree_new(), .alive = {{1, 2, 3}, 3}};
    uint8_t uuid[16] = {9};
    uint64_t incarnations[] = {11, 12};
    uint32_t nodes[] = {1, 2};
    for (uint8_t i = 1; i <= 3; i++) {
        char name[] = {'n', (char)('0' + i), 0}, address[] = {(char)('0' + i), 0};
        Director__NodeInfo info = DIRECTOR__NODE_INFO__INIT;
        uuid[15] = i;
        info.uuid = (ProtobufCBinaryData){16, uuid};
        info.name = name;
        info.address = address;
        assert_int_equal(DO(world.tree, NODE_ADD, node_add, .node = &info), 0);
        assert_int_equal(DO(world.tree, STORE_PUT, store_put, .nodeid = i, .name = (char *)"s", .plugin = (char *)"file",
                            .path = (char *)"/s", .capacity = 10 * GIB), 0);
    }
    assert_int_equal(DO(world.tree, VOLUME_CREATE, volume_create, .name = (char *)"v", .uuid = {16, uuid}, .size = GIB, .replicas = 2,
                        .store = (char *)"", .n_incarnations = 2, .incarnations = incarnations, .n_nodes = 2, .nodes = nodes), 0);
    return world;
}

static const struct tree_volume *v(const struct world *world)
{
    return tree_volume_by_id(world->tree, 1);
}

static void set_isr(struct world *world, uint32_t isr)
{
    assert_int_equal(DO(world->tree, VOLUME_ISR, volume_isr, .volume = 1, .expect_epoch = v(world)->epoch,
                        .expect_version = v(world)->isr_version, .isr = isr, .reason = (char *)""), 0);
}

static void move(struct world *world, uint32_t from)
{
    assert_int_equal(DO(world->tree, TASK_CREATE, task_create, .kind = DIRECTOR__TASK_KIND__TASK_MOVE, .volume = 1, .from = from,
                        .to = 3, .store = (char *)"", .incarnation = 13), 0);
}

static void remove_replica(struct world *world, uint32_t nodeid)
{
    assert_int_equal(DO(world->tree, VOLUME_REPLICA_REMOVE, volume_replica_remove, .volume = 1, .nodeid = nodeid), 0);
}

static void the_old_replica_stays_until_the_new_one_counts(void **state)
{
    (void)state;
    struct world world = world_new();
    struct task_step step;
    assert_false(task_plan(world.tree, &world.alive, &step));
    move(&world, 2);
    assert_false(task_plan(world.tree, &world.alive, &step)); /* being synced */
    set_isr(&world, 7);
    world.alive.count = 2;
    assert_false(task_plan(world.tree, &world.alive, &step)); /* in sync, but away */
    world.alive.count = 3;
    assert_true(task_plan(world.tree, &world.alive, &step));
    assert_int_equal(step.action, TASK_STEP_REMOVE);
    assert_int_equal(step.nodeid, 2);
    remove_replica(&world, 2);
    assert_true(task_plan(world.tree, &world.alive, &step));
    assert_int_equal(step.action, TASK_STEP_END);
    assert_int_equal(step.state, DIRECTOR__TASK_STATE__TASK_DONE);
    tree_free(world.tree);
}

static void an_owner_moves_away_before_its_replica_goes(void **state)
{
    (void)state;
    struct world world = world_new();
    struct task_step step;
    move(&world, 1);
    set_isr(&world, 7);
    assert_true(task_plan(world.tree, &world.alive, &step));
    assert_int_equal(step.action, TASK_STEP_PROMOTE);
    assert_int_equal(step.nodeid, 3);
    assert_int_equal(step.isr, 7);
    world.alive = (struct failover_nodes){{2, 3}, 2};
    assert_false(task_plan(world.tree, &world.alive, &step)); /* the failover's business */
    assert_int_equal(DO(world.tree, VOLUME_PROMOTE, volume_promote, .volume = 1, .expect_epoch = 1, .owner = 3, .isr = 6,
                        .reason = (char *)""), 0);
    assert_true(task_plan(world.tree, &world.alive, &step));
    assert_int_equal(step.action, TASK_STEP_REMOVE); /* dead or not */
    assert_int_equal(step.nodeid, 1);
    tree_free(world.tree);
}

static void a_move_whose_new_replica_went_has_failed(void **state)
{
    (void)state;
    struct world world = world_new();
    struct task_step step;
    move(&world, 2);
    remove_replica(&world, 3);
    assert_true(task_plan(world.tree, &world.alive, &step));
    assert_int_equal(step.action, TASK_STEP_END);
    assert_int_equal(step.state, DIRECTOR__TASK_STATE__TASK_FAILED);
    assert_non_null(strstr(step.words, "n3"));
    tree_free(world.tree);
}

static void growing_ends_when_the_one_waited_for_leaves(void **state)
{
    (void)state;
    struct world world = world_new();
    struct task_step step;
    assert_int_equal(DO(world.tree, VOLUME_GROW, volume_grow, .volume = 1, .size = 2 * GIB), 0);
    assert_int_equal(DO(world.tree, VOLUME_GROWN, volume_grown, .volume = 1, .replica = 0, .size = 2 * GIB, .incarnation = 11), 0);
    assert_false(task_plan(world.tree, &world.alive, &step));
    set_isr(&world, 1);
    assert_true(task_plan(world.tree, &world.alive, &step));
    assert_int_equal(step.action, TASK_STEP_GROWN);
    assert_int_equal(step.size, 2 * GIB);
    tree_free(world.tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_old_replica_stays_until_the_new_one_counts),
        cmocka_unit_test(an_owner_moves_away_before_its_replica_goes),
        cmocka_unit_test(a_move_whose_new_replica_went_has_failed),
        cmocka_unit_test(growing_ends_when_the_one_waited_for_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
