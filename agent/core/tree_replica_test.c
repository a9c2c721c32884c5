/* Policies, replica sets, growing, last resorts, tasks and events of the tree. */
#include "agent/core/tree.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static struct error error;
static struct tree_result result;
static uint64_t clock_ms;

static int apply(struct tree *tree, Director__Command *command)
{
    command->origin = 1;
    command->time_ms = ++clock_ms;
    command->who = (char *)"root";
    error_clear(&error);
    uint64_t before = tree_hash(tree);
    int checked = tree_check(tree, command, NULL);
    assert_true(tree_hash(tree) == before); /* T1 */
    int status = tree_apply(tree, command, &result, &error);
    assert_int_equal(checked, status);
    assert_true(status == 0 || strlen(error.message) > 20);
    assert_true(status == 0 || tree_hash(tree) == before); /* T1 */
    return status;
}

/* DO(tree, VOLUME_SET, volume_set, .volume = 1, ...): the status of the command with that body. */
#define DO(tree, CASE, member, ...)                                                                      \
    ({                                                                                                   \
        Director__Command command_ = DIRECTOR__COMMAND__INIT;                                            \
        __typeof__(*command_.member) body_ = {.base = PROTOBUF_C_MESSAGE_INIT(&director__##member##__descriptor), __VA_ARGS__}; \
        command_.body_case = DIRECTOR__COMMAND__BODY_##CASE;                                             \
        command_.member = &body_;                                                                        \
        apply((tree), &command_);                                                                        \
    })

static void restored_alike(const struct tree *tree)
{
    struct tree *other = tree_new();
    uint8_t *data, *again;
    size_t size, size_again;
    tree_snapshot(tree, &data, &size);
    assert_int_equal(tree_restore(other, data, size, &error), 0);
    tree_snapshot(other, &again, &size_again);
    assert_int_equal(size, size_again);
    assert_memory_equal(data, again, size);
    for (size_t i = 0; i < tree_store_count(tree); i++)
        assert_int_equal(tree_store_at(tree, i)->allocated_bytes, tree_store_at(other, i)->allocated_bytes);
    free(data);
    free(again);
    tree_free(other);
}

static void done(struct tree *tree)
{
    restored_alike(tree);
    tree_free(tree);
}

/* Four nodes with a store of 10 GiB each, and volume 1 "v" of 1 GiB on nodes 1 and 2, owner 1. */
static struct tree *four_nodes(void)
{
    struct tree *tree = tree_new();
    uint8_t uuid[16] = {9};
    assert_int_equal(DO(tree, CLUSTER_INIT, cluster_init, .uuid = {16, uuid}, .name = (char *)"c"), 0);
    for (uint8_t i = 1; i <= 4; i++) {
        char name[16], address[32];
        uuid[15] = i;
        (void)snprintf(name, sizeof(name), "n%u", i);
        (void)snprintf(address, sizeof(address), "10.0.0.%u", i);
        Director__NodeInfo info = DIRECTOR__NODE_INFO__INIT;
        info.uuid = (ProtobufCBinaryData){16, uuid};
        info.name = name;
        info.address = address;
        assert_int_equal(DO(tree, NODE_ADD, node_add, .node = &info), 0);
        assert_int_equal(DO(tree, STORE_PUT, store_put, .nodeid = i, .name = (char *)"s", .plugin = (char *)"file",
                            .path = (char *)"/s", .capacity = 10 * GIB), 0);
    }
    uint64_t incarnations[] = {11, 12};
    uint32_t nodes[] = {1, 2};
    assert_int_equal(DO(tree, VOLUME_CREATE, volume_create, .name = (char *)"v", .uuid = {16, uuid}, .size = GIB, .replicas = 2,
                        .store = (char *)"", .n_incarnations = 2, .incarnations = incarnations, .n_nodes = 2, .nodes = nodes), 0);
    return tree;
}

static const struct tree_volume *v(const struct tree *tree)
{
    return tree_volume_by_id(tree, 1);
}

static int set_isr(struct tree *tree, uint32_t isr)
{
    return DO(tree, VOLUME_ISR, volume_isr, .volume = 1, .expect_epoch = v(tree)->epoch, .expect_version = v(tree)->isr_version,
              .isr = isr, .reason = (char *)"test");
}

static int add(struct tree *tree, uint32_t nodeid, uint64_t incarnation)
{
    return DO(tree, VOLUME_REPLICA_ADD, volume_replica_add, .volume = 1, .nodeid = nodeid, .store = (char *)"",
              .incarnation = incarnation);
}

static int remove_replica(struct tree *tree, uint32_t nodeid)
{
    return DO(tree, VOLUME_REPLICA_REMOVE, volume_replica_remove, .volume = 1, .nodeid = nodeid);
}

static void a_policy_is_set_field_by_field(void **state)
{
    (void)state;
    struct tree *tree = four_nodes();
    Director__VolumePolicy policy = DIRECTOR__VOLUME_POLICY__INIT;
    uint64_t version = v(tree)->isr_version;
    policy.write_back = true;
    policy.slow_ms = 500;
    policy.in_sync_min = 2;
    assert_int_equal(DO(tree, VOLUME_SET, volume_set, .volume = 1, .policy = &policy,
                        .fields = DIRECTOR__VOLUME_POLICY_FIELD__POLICY_WRITE_BACK |
                                  DIRECTOR__VOLUME_POLICY_FIELD__POLICY_SLOW), 0);
    assert_true(v(tree)->policy.write_back);
    assert_int_equal(v(tree)->policy.slow_ms, 500);
    assert_int_equal(v(tree)->policy.in_sync_min, 0);
    assert_int_equal(v(tree)->isr_version, version + 1); /* the mirrors take it */
    policy.slow_ms = 499;
    assert_int_equal(DO(tree, VOLUME_SET, volume_set, .volume = 1, .policy = &policy,
                        .fields = DIRECTOR__VOLUME_POLICY_FIELD__POLICY_SLOW), -EINVAL);
    policy.resync_floor = 2 * MIB;
    policy.resync_cap = MIB;
    assert_int_equal(DO(tree, VOLUME_SET, volume_set, .volume = 1, .policy = &policy,
                        .fields = DIRECTOR__VOLUME_POLICY_FIELD__POLICY_RESYNC_CAP), 0);
    assert_int_equal(DO(tree, VOLUME_SET, volume_set, .volume = 1, .policy = &policy,
                        .fields = DIRECTOR__VOLUME_POLICY_FIELD__POLICY_RESYNC_FLOOR), -EINVAL); /* above the cap */
    assert_int_equal(DO(tree, VOLUME_SET, volume_set, .volume = 1, .policy = &policy, .fields = 64), -EINVAL);
    assert_int_equal(DO(tree, VOLUME_SET, volume_set, .volume = 7, .policy = &policy, .fields = 1), -ENOENT);
    done(tree);
}

static void when_a_replica_left_is_known(void **state)
{
    (void)state;
    struct tree *tree = four_nodes();
    assert_int_equal(v(tree)->replicas[1].left_ms, 0);
    assert_int_equal(set_isr(tree, 1), 0);
    uint64_t left = v(tree)->replicas[1].left_ms;
    assert_int_equal(left, clock_ms);
    assert_int_equal(set_isr(tree, 1), 0); /* it left before */
    assert_int_equal(v(tree)->replicas[1].left_ms, left);
    restored_alike(tree);
    assert_int_equal(set_isr(tree, 3), 0);
    assert_int_equal(v(tree)->replicas[1].left_ms, 0);
    assert_int_equal(DO(tree, VOLUME_PROMOTE, volume_promote, .volume = 1, .expect_epoch = 1, .owner = 2, .isr = 2,
                        .reason = (char *)""), 0);
    assert_int_equal(v(tree)->replicas[0].left_ms, clock_ms);
    done(tree);
}

static void a_profile_has_corosync_reloaded(void **state)
{
    (void)state;
    struct tree *tree = four_nodes();
    uint64_t version = tree_get_cluster(tree)->node_list_version;
    assert_int_equal(DO(tree, CLUSTER_SET, cluster_set, .profile = 7), -EINVAL);
    assert_int_equal(DO(tree, CLUSTER_SET, cluster_set, .profile = DIRECTOR__CLUSTER_PROFILE__PROFILE_STEADY), 0);
    assert_int_equal(tree_get_cluster(tree)->node_list_version, version + 1);
    assert_int_equal(tree_profile_timings(tree_get_cluster(tree)->profile)->token_ms, 1000);
    assert_int_equal(DO(tree, CLUSTER_SET, cluster_set, .profile = DIRECTOR__CLUSTER_PROFILE__PROFILE_STEADY), 0);
    assert_int_equal(tree_get_cluster(tree)->node_list_version, version + 1);
    done(tree);
}

static void a_replica_keeps_its_place(void **state)
{
    (void)state;
    struct tree *tree = four_nodes();
    assert_int_equal(add(tree, 3, 13), 0);
    assert_int_equal(v(tree)->replica_count, 3);
    assert_int_equal(v(tree)->isr, 3); /* not before it is synced */
    assert_int_equal(tree_store_find(tree, 3, "s")->allocated_bytes, GIB);
    assert_int_equal(add(tree, 3, 14), -EEXIST);
    assert_int_equal(remove_replica(tree, 2), 0);
    assert_int_equal(v(tree)->isr, 1);
    assert_int_equal(v(tree)->replica_count, 3);
    assert_int_equal(v(tree)->replicas[1].nodeid, 0);
    assert_int_equal(tree_volume_mask(v(tree)), 5);
    assert_int_equal(tree_volume_replica_of(v(tree), 0), -1);
    assert_int_equal(tree_volume_replica_of(v(tree), 3), 2); /* T4 */
    assert_int_equal(tree_store_find(tree, 2, "s")->allocated_bytes, 0);
    assert_int_equal(set_isr(tree, 3), -EINVAL); /* no replica there */
    restored_alike(tree);
    assert_int_equal(add(tree, 0, 15), 0); /* placed: n2 or n4, in the empty place */
    assert_int_equal(tree_volume_mask(v(tree)), 7);
    assert_int_equal(v(tree)->replicas[1].nodeid, result.nodeid);
    assert_int_equal(add(tree, 0, 16), 0);
    assert_int_equal(add(tree, 0, 17), -E2BIG);
    assert_int_equal(remove_replica(tree, v(tree)->replicas[3].nodeid), 0);
    assert_int_equal(v(tree)->replica_count, 3); /* the last place is never empty */
    done(tree);
}

static void the_last_replica_in_sync_stays(void **state)
{
    (void)state;
    struct tree *tree = four_nodes();
    assert_int_equal(remove_replica(tree, 1), -EBUSY); /* it serves */
    assert_int_equal(set_isr(tree, 1), 0);
    assert_int_equal(remove_replica(tree, 1), -EBUSY);
    assert_non_null(strstr(error.message, "only one"));
    assert_int_equal(remove_replica(tree, 4), -ENOENT);
    assert_int_equal(remove_replica(tree, 2), 0);
    assert_int_equal(v(tree)->replica_count, 1);
    done(tree);
}

/* I11: a node that slept while its replica was removed and added anew must not come back with the old files. */
static void an_incarnation_never_comes_back(void **state)
{
    (void)state;
    struct tree *tree = four_nodes();
    assert_int_equal(remove_replica(tree, 2), 0);
    assert_true(tree_volume_retired(v(tree), 12));
    assert_int_equal(add(tree, 2, 12), -EINVAL);
    assert_int_equal(add(tree, 2, 11), -EINVAL); /* another's */
    assert_int_equal(add(tree, 2, 22), 0);
    assert_int_equal(DO(tree, VOLUME_INCARNATION, volume_incarnation, .volume = 1, .replica = 1, .incarnation = 12), -ESTALE);
    assert_int_equal(DO(tree, VOLUME_INCARNATION, volume_incarnation, .volume = 1, .replica = 1, .incarnation = 23), 0);
    assert_true(tree_volume_retired(v(tree), 22));
    for (uint64_t i = 100; i < 100 + TREE_RETIRED_MAX; i++)
        assert_int_equal(DO(tree, VOLUME_INCARNATION, volume_incarnation, .volume = 1, .replica = 1, .incarnation = i), 0);
    assert_int_equal(v(tree)->retired_count, TREE_RETIRED_MAX);
    assert_false(tree_volume_retired(v(tree), 12)); /* the oldest is dropped */
    done(tree);
}

static int grow(struct tree *tree, uint64_t size)
{
    return DO(tree, VOLUME_GROW, volume_grow, .volume = 1, .size = size);
}

static int grown(struct tree *tree, uint32_t replica, uint64_t size, uint64_t incarnation)
{
    return DO(tree, VOLUME_GROWN, volume_grown, .volume = 1, .replica = replica, .size = size, .incarnation = incarnation);
}

static void a_volume_grows_when_all_in_sync_have(void **state)
{
    (void)state;
    struct tree *tree = four_nodes();
    assert_int_equal(add(tree, 3, 13), 0);
    assert_int_equal(grow(tree, GIB / 2), -EINVAL);
    assert_int_equal(grow(tree, 2 * GIB + 1), -EINVAL);
    assert_int_equal(grow(tree, 11 * GIB), -ENOSPC);
    assert_int_equal(grow(tree, 2 * GIB), 0);
    assert_int_equal(v(tree)->size_bytes, GIB);
    assert_int_equal(tree_store_find(tree, 1, "s")->allocated_bytes, 2 * GIB);
    assert_int_equal(grow(tree, 3 * GIB), -EBUSY);
    uint64_t version = v(tree)->isr_version;
    assert_int_equal(grow(tree, 2 * GIB), 0); /* again: nothing */
    assert_int_equal(v(tree)->isr_version, version);
    assert_int_equal(grown(tree, 0, 3 * GIB, 11), -ESTALE);
    assert_int_equal(grown(tree, 0, 2 * GIB, 99), -ESTALE);
    size_t events = tree_event_count(tree);
    assert_int_equal(grown(tree, 0, 2 * GIB, 11), 0);
    assert_false(result.grown);
    assert_int_equal(tree_event_count(tree), events); /* a step on the way is none */
    assert_int_equal(v(tree)->epoch, 1);
    restored_alike(tree);
    assert_int_equal(grown(tree, 1, 2 * GIB, 12), 0); /* 2 is not in sync: not waited for */
    assert_true(result.grown);
    assert_int_equal(tree_event_count(tree), events + 1);
    assert_int_equal(v(tree)->size_bytes, 2 * GIB);
    assert_int_equal(v(tree)->size_wanted, 0);
    assert_int_equal(v(tree)->epoch, 2);
    assert_int_equal(v(tree)->owner, 1);
    assert_int_equal(tree_store_find(tree, 3, "s")->allocated_bytes, 2 * GIB);
    /* cancelled: room is given back */
    assert_int_equal(grow(tree, 4 * GIB), 0);
    assert_int_equal(grown(tree, 0, 4 * GIB, 11), 0);
    assert_int_equal(grow(tree, 2 * GIB), 0);
    assert_int_equal(tree_store_find(tree, 1, "s")->allocated_bytes, 2 * GIB);
    assert_int_equal(grown(tree, 1, 4 * GIB, 12), -ESTALE);
    assert_int_equal(v(tree)->size_bytes, 2 * GIB);
    /* the one that was waited for leaves: whoever looks again finds it done */
    assert_int_equal(grow(tree, 3 * GIB), 0);
    assert_int_equal(grown(tree, 0, 3 * GIB, 11), 0);
    assert_int_equal(set_isr(tree, 1), 0);
    assert_int_equal(v(tree)->size_bytes, 2 * GIB);
    assert_int_equal(grown(tree, 4, 3 * GIB, 0), 0);
    assert_int_equal(v(tree)->size_bytes, 3 * GIB);
    done(tree);
}

static int verify(struct tree *tree)
{
    return DO(tree, TASK_CREATE, task_create, .kind = DIRECTOR__TASK_KIND__TASK_VERIFY, .volume = 1, .repair = true,
              .store = (char *)"");
}

static int force(struct tree *tree, uint64_t epoch, uint32_t nodeid, const char *reason)
{
    static uint64_t base = 30;
    uint64_t incarnations[] = {base + 1, base + 2, base + 3, base + 4};
    base += 100;
    return DO(tree, VOLUME_FORCE, volume_force, .volume = 1, .expect_epoch = epoch, .nodeid = nodeid, .n_incarnations = 4,
              .incarnations = incarnations, .reason = (char *)reason);
}

static int discard(struct tree *tree, uint32_t nodeid, uint64_t incarnation)
{
    return DO(tree, VOLUME_DISCARD, volume_discard, .volume = 1, .expect_epoch = v(tree)->epoch, .nodeid = nodeid,
              .incarnation = incarnation, .reason = (char *)"not needed");
}

static void forced_only_by_the_operators_word(void **state)
{
    (void)state;
    struct tree *tree = four_nodes();
    assert_int_equal(add(tree, 3, 13), 0);
    assert_int_equal(set_isr(tree, 1), 0);
    assert_int_equal(verify(tree), 0);
    assert_int_equal(force(tree, 2, 2, "n1 burnt"), -ESTALE);
    assert_int_equal(force(tree, 1, 2, ""), -EINVAL);
    assert_int_equal(force(tree, 1, 1, "n1 burnt"), -EINVAL); /* in sync */
    assert_int_equal(force(tree, 1, 4, "n1 burnt"), -ENOENT);
    assert_int_equal(force(tree, 1, 2, "n1 burnt"), 0);
    assert_int_equal(tree_task_by_id(tree, 1)->state, DIRECTOR__TASK_STATE__TASK_CANCELLED);
    assert_int_equal(v(tree)->owner, 2);
    assert_int_equal(v(tree)->isr, 2);
    assert_int_equal(v(tree)->epoch, 2);
    assert_int_equal(v(tree)->replicas[1].incarnation, 12);
    assert_true(v(tree)->replicas[0].held && v(tree)->replicas[2].held && !v(tree)->replicas[1].held);
    assert_int_not_equal(v(tree)->replicas[0].incarnation, 11);
    assert_true(tree_volume_retired(v(tree), 11));
    const struct tree_event *event = tree_event_at(tree, tree_event_count(tree) - 1);
    assert_int_equal(event->kind, DIRECTOR__COMMAND__BODY_VOLUME_FORCE);
    assert_string_equal(event->words, "n1 burnt");
    assert_string_equal(event->who, "root");
    assert_int_equal(event->node, 2);
    assert_int_equal(event->in_sync[0], 2);
    /* what n1 holds cannot come back by itself, not even with its old number, and cannot be forced back */
    assert_int_equal(DO(tree, VOLUME_INCARNATION, volume_incarnation, .volume = 1, .replica = 0, .incarnation = 11), -ESTALE);
    assert_int_equal(force(tree, 2, 1, "n1 is back"), -EINVAL);
    assert_non_null(strstr(error.message, "is held"));
    restored_alike(tree);
    assert_int_equal(discard(tree, 2, 41), -EBUSY);
    assert_int_equal(discard(tree, 1, 11), -EINVAL);
    assert_int_equal(discard(tree, 1, 41), 0);
    assert_false(v(tree)->replicas[0].held);
    /* a new disk at n3: nothing is held there any more */
    assert_int_equal(DO(tree, VOLUME_INCARNATION, volume_incarnation, .volume = 1, .replica = 2, .incarnation = 42), 0);
    assert_false(v(tree)->replicas[2].held);
    done(tree);
}

static void a_discarded_replica_leaves_the_in_sync_set(void **state)
{
    (void)state;
    struct tree *tree = four_nodes();
    assert_int_equal(discard(tree, 1, 41), -EBUSY); /* it serves */
    assert_int_equal(discard(tree, 2, 41), 0);
    assert_int_equal(v(tree)->isr, 1);
    assert_int_equal(v(tree)->replicas[1].incarnation, 41);
    assert_true(tree_volume_retired(v(tree), 12));
    assert_int_equal(discard(tree, 1, 42), -EBUSY);
    done(tree);
}

static int end(struct tree *tree, uint64_t task, Director__TaskState how)
{
    return DO(tree, TASK_END, task_end, .task = task, .state = how, .words = (char *)"");
}

static void tasks_go_on_until_they_end(void **state)
{
    (void)state;
    struct tree *tree = four_nodes();
    Director__TaskFigures figures = DIRECTOR__TASK_FIGURES__INIT;
    assert_int_equal(verify(tree), 0);
    assert_int_equal(result.task, 1);
    assert_int_equal(verify(tree), -EBUSY);
    assert_int_equal(DO(tree, TASK_CREATE, task_create, .kind = DIRECTOR__TASK_KIND__TASK_SCRUB, .volume = 1, .store = (char *)""),
                     -EBUSY);
    figures.done_bytes = MIB;
    figures.total_bytes = GIB;
    figures.mismatches = 2;
    figures.unrepaired = 1;
    assert_int_equal(DO(tree, TASK_PROGRESS, task_progress, .task = 1, .epoch = 1, .figures = &figures), 0);
    assert_int_equal(tree_task_by_id(tree, 1)->done_bytes, MIB);
    assert_int_equal(tree_task_by_id(tree, 1)->unrepaired, 1);
    assert_int_equal(DO(tree, TASK_PROGRESS, task_progress, .task = 1, .epoch = 2, .figures = &figures), -ESTALE);
    assert_int_equal(DO(tree, TASK_PROGRESS, task_progress, .task = 9, .epoch = 1, .figures = &figures), -ENOENT);
    restored_alike(tree);
    assert_int_equal(end(tree, 1, DIRECTOR__TASK_STATE__TASK_RUNNING), -EINVAL);
    assert_int_equal(end(tree, 1, DIRECTOR__TASK_STATE__TASK_DONE), 0);
    assert_int_equal(tree_task_by_id(tree, 1)->mismatches, 2); /* its result stays */
    assert_int_equal(end(tree, 1, DIRECTOR__TASK_STATE__TASK_DONE), -ESTALE);
    assert_int_equal(DO(tree, TASK_CREATE, task_create, .kind = DIRECTOR__TASK_KIND__TASK_SCRUB, .volume = 1, .store = (char *)""),
                     -EINVAL); /* no checksums */
    for (unsigned i = 0; i < TREE_TASKS_KEPT + 3; i++) {
        assert_int_equal(verify(tree), 0);
        assert_int_equal(end(tree, result.task, DIRECTOR__TASK_STATE__TASK_CANCELLED), 0);
    }
    assert_int_equal(tree_task_count(tree), TREE_TASKS_KEPT);
    assert_null(tree_task_by_id(tree, 1));
    assert_int_equal(verify(tree), 0);
    assert_int_equal(DO(tree, VOLUME_DELETE, volume_delete, .name = (char *)"v"), 0);
    const struct tree_task *last = tree_task_at(tree, tree_task_count(tree) - 1);
    assert_int_equal(last->state, DIRECTOR__TASK_STATE__TASK_CANCELLED);
    assert_string_equal(last->volume_name, "v");
    done(tree);
}

static int move(struct tree *tree, uint32_t from, uint32_t to)
{
    return DO(tree, TASK_CREATE, task_create, .kind = DIRECTOR__TASK_KIND__TASK_MOVE, .volume = 1, .from = from, .to = to,
              .store = (char *)"", .incarnation = 50 + to);
}

static void a_move_adds_its_replica_with_it(void **state)
{
    (void)state;
    struct tree *tree = four_nodes();
    assert_int_equal(move(tree, 3, 4), -ENOENT);
    assert_int_equal(move(tree, 2, 1), -EEXIST);
    assert_int_equal(tree_volume_replicas(v(tree)), 2);
    assert_int_equal(move(tree, 2, 4), 0);
    assert_int_equal(tree_volume_replica_of(v(tree), 4), 2);
    assert_int_equal(tree_task_running(tree, 1, DIRECTOR__TASK_KIND__TASK_MOVE)->to, 4);
    assert_int_equal(move(tree, 2, 3), -EBUSY);
    done(tree);
}

static void everyday_events_do_not_push_out_lasting_ones(void **state)
{
    (void)state;
    struct tree *tree = four_nodes();
    assert_int_equal(set_isr(tree, 1), 0);
    assert_int_equal(force(tree, 1, 2, "n1 burnt"), 0);
    uint64_t forced = tree_event_at(tree, tree_event_count(tree) - 1)->id;
    for (unsigned i = 0; i < 2 * TREE_EVENTS_MAX; i++)
        assert_int_equal(set_isr(tree, 2), 0);
    assert_int_equal(tree_event_count(tree), TREE_EVENTS_MAX);
    assert_int_equal(tree_event_at(tree, 0)->id, forced);
    restored_alike(tree);
    uint64_t incarnation = 1000;
    for (unsigned i = 0; i < 2 * TREE_EVENTS_MAX; i++)
        assert_int_equal(discard(tree, 1, incarnation++), 0);
    assert_int_equal(tree_event_count(tree), TREE_EVENTS_MAX);
    assert_int_not_equal(tree_event_at(tree, 0)->id, forced);
    done(tree);
}

/* A snapshot of before there were policies, tasks and events, made by that version. */
static void a_snapshot_of_before_is_restored(void **state)
{
    (void)state;
    struct tree *tree = four_nodes();
    uint8_t *data, *old;
    size_t size, old_size;
    tree_snapshot(tree, &data, &size);
    Director__TreeSnapshot *snapshot = director__tree_snapshot__unpack(NULL, size, data);
    assert_null(snapshot->volumes[0]->policy); /* defaults take no bytes */
    for (size_t i = 0; i < snapshot->n_events; i++)
        director__tree_event__free_unpacked(snapshot->events[i], NULL);
    snapshot->n_events = 0;
    snapshot->last_event = 0;
    old_size = director__tree_snapshot__get_packed_size(snapshot);
    old = malloc(old_size);
    director__tree_snapshot__pack(snapshot, old);
    director__tree_snapshot__free_unpacked(snapshot, NULL);
    struct tree *restored = tree_new();
    assert_int_equal(tree_restore(restored, old, old_size, &error), 0);
    assert_int_equal(tree_event_count(restored), 0);
    assert_int_equal(v(restored)->replica_count, 2);
    assert_int_equal(verify(restored), 0);
    free(data);
    free(old);
    tree_free(tree);
    done(restored);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_policy_is_set_field_by_field),
        cmocka_unit_test(when_a_replica_left_is_known),
        cmocka_unit_test(a_profile_has_corosync_reloaded),
        cmocka_unit_test(a_replica_keeps_its_place),
        cmocka_unit_test(the_last_replica_in_sync_stays),
        cmocka_unit_test(an_incarnation_never_comes_back),
        cmocka_unit_test(a_volume_grows_when_all_in_sync_have),
        cmocka_unit_test(forced_only_by_the_operators_word),
        cmocka_unit_test(a_discarded_replica_leaves_the_in_sync_set),
        cmocka_unit_test(tasks_go_on_until_they_end),
        cmocka_unit_test(a_move_adds_its_replica_with_it),
        cmocka_unit_test(everyday_events_do_not_push_out_lasting_ones),
        cmocka_unit_test(a_snapshot_of_before_is_restored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
