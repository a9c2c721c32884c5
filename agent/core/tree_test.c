#include "agent/core/tree.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static struct error error;
static struct tree_result result;

#define MIB (1ull << 20)
#define GIB (1ull << 30)

/* Apply a body; the error sentence must not be empty when refused. */
static int apply(struct tree *tree, Director__Command command)
{
    error_clear(&error);
    int checked = tree_check(tree, &command, NULL);
    int status = tree_apply(tree, &command, &result, &error);
    assert_int_equal(checked, status);
    assert_true(status == 0 || strlen(error.message) > 20);
    return status;
}

#define COMMAND(CASE, member, body)                                                                       \
    ((Director__Command){PROTOBUF_C_MESSAGE_INIT(&director__command__descriptor),                          \
                         .body_case = DIRECTOR__COMMAND__BODY_##CASE, .member = (body)})

static int node_add(struct tree *tree, uint8_t tag, const char *name)
{
    uint8_t uuid[16] = {tag, 1};
    Director__NodeInfo info = DIRECTOR__NODE_INFO__INIT;
    Director__NodeAdd add = DIRECTOR__NODE_ADD__INIT;
    info.uuid = (ProtobufCBinaryData){16, uuid};
    info.name = (char *)name;
    info.address = "10.0.0.1";
    add.node = &info;
    return apply(tree, COMMAND(NODE_ADD, node_add, &add));
}

static int store_put(struct tree *tree, uint32_t nodeid, const char *name, uint64_t capacity)
{
    Director__StorePut put = DIRECTOR__STORE_PUT__INIT;
    put.nodeid = nodeid;
    put.name = (char *)name;
    put.plugin = "file";
    put.path = "/var/lib/director/store";
    put.capacity = capacity;
    return apply(tree, COMMAND(STORE_PUT, store_put, &put));
}

static int volume_create(struct tree *tree, const char *name, uint64_t size, uint32_t replicas)
{
    static uint8_t uuid[16];
    uint64_t incarnations[9] = {11, 12, 13, 14, 15, 16, 17, 18, 19};
    Director__VolumeCreate create = DIRECTOR__VOLUME_CREATE__INIT;
    uuid[3]++;
    create.name = (char *)name;
    create.uuid = (ProtobufCBinaryData){16, uuid};
    create.size = size;
    create.replicas = replicas;
    create.n_incarnations = replicas <= 9 ? replicas : 9;
    create.incarnations = incarnations;
    return apply(tree, COMMAND(VOLUME_CREATE, volume_create, &create));
}

static int promote(struct tree *tree, uint64_t volume, uint64_t epoch, uint32_t owner, uint32_t isr)
{
    Director__VolumePromote body = DIRECTOR__VOLUME_PROMOTE__INIT;
    body.volume = volume;
    body.expect_epoch = epoch;
    body.owner = owner;
    body.isr = isr;
    return apply(tree, COMMAND(VOLUME_PROMOTE, volume_promote, &body));
}

static int isr(struct tree *tree, uint64_t volume, uint64_t epoch, uint64_t version, uint32_t mask)
{
    Director__VolumeIsr body = DIRECTOR__VOLUME_ISR__INIT;
    body.volume = volume;
    body.expect_epoch = epoch;
    body.expect_version = version;
    body.isr = mask;
    return apply(tree, COMMAND(VOLUME_ISR, volume_isr, &body));
}

static int lun_add(struct tree *tree, const char *iqn, uint32_t lun, const char *volume)
{
    Director__LunAdd body = DIRECTOR__LUN_ADD__INIT;
    body.iqn = (char *)iqn;
    body.lun = lun;
    body.volume = (char *)volume;
    return apply(tree, COMMAND(LUN_ADD, lun_add, &body));
}

static int target_create(struct tree *tree, const char *iqn)
{
    Director__TargetCreate body = DIRECTOR__TARGET_CREATE__INIT;
    body.iqn = (char *)iqn;
    return apply(tree, COMMAND(TARGET_CREATE, target_create, &body));
}

static int volume_delete(struct tree *tree, const char *name)
{
    Director__VolumeDelete body = DIRECTOR__VOLUME_DELETE__INIT;
    body.name = (char *)name;
    return apply(tree, COMMAND(VOLUME_DELETE, volume_delete, &body));
}

static int node_voter(struct tree *tree, uint32_t nodeid, bool voter)
{
    Director__NodeVoter body = DIRECTOR__NODE_VOTER__INIT;
    body.nodeid = nodeid;
    body.voter = voter;
    return apply(tree, COMMAND(NODE_VOTER, node_voter, &body));
}

static int node_remove(struct tree *tree, uint32_t nodeid)
{
    Director__NodeRemove body = DIRECTOR__NODE_REMOVE__INIT;
    body.nodeid = nodeid;
    return apply(tree, COMMAND(NODE_REMOVE, node_remove, &body));
}

/* Three nodes with a store of 10 GiB each. */
static struct tree *three_nodes(void)
{
    struct tree *tree = tree_new();
    uint8_t uuid[16] = {99};
    Director__ClusterInit init = DIRECTOR__CLUSTER_INIT__INIT;
    init.uuid = (ProtobufCBinaryData){16, uuid};
    init.name = "director";
    assert_int_equal(apply(tree, COMMAND(CLUSTER_INIT, cluster_init, &init)), 0);
    for (uint8_t i = 1; i <= 3; i++) {
        char name[8];
        snprintf(name, sizeof(name), "node%u", i);
        assert_int_equal(node_add(tree, i, name), 0);
        assert_int_equal(result.nodeid, i);
        assert_int_equal(store_put(tree, i, "default", 10 * GIB), 0);
    }
    return tree;
}

/* A refused command leaves every byte as it was (T1). */
#define REFUSED(tree, status, call)                     \
    do {                                                \
        uint64_t before_ = tree_hash(tree);             \
        assert_int_equal((call), (status));             \
        assert_true(tree_hash(tree) == before_);        \
    } while (0)

static void an_address_belongs_to_the_node_that_was_there_last(void **state)
{
    (void)state;
    struct tree *tree = tree_new();
    uint8_t uuid[16] = {1, 1};
    Director__NodeInfo info = DIRECTOR__NODE_INFO__INIT;
    Director__NodeUpdate update = DIRECTOR__NODE_UPDATE__INIT;
    assert_int_equal(node_add(tree, 1, "one"), 0);
    assert_int_equal(node_add(tree, 7, "one"), 0); /* the same machine, set up anew */
    assert_string_equal(tree_node_by_id(tree, 1)->address, "");
    assert_string_equal(tree_node_by_id(tree, 2)->address, "10.0.0.1");
    uint64_t version = tree_get_cluster(tree)->node_list_version;
    memcpy(uuid, tree_node_by_id(tree, 1)->uuid.bytes, sizeof(uuid));
    info.uuid = (ProtobufCBinaryData){16, uuid};
    info.address = (char *)"10.0.0.1";
    update.node = &info;
    assert_int_equal(apply(tree, COMMAND(NODE_UPDATE, node_update, &update)), 0); /* and the first is back */
    assert_string_equal(tree_node_by_id(tree, 1)->address, "10.0.0.1");
    assert_string_equal(tree_node_by_id(tree, 2)->address, "");
    assert_int_equal(tree_get_cluster(tree)->node_list_version, version + 1);
    info.address = (char *)"10.0.0.9"; /* another one: in two steps */
    assert_int_equal(apply(tree, COMMAND(NODE_UPDATE, node_update, &update)), 0);
    assert_string_equal(tree_node_by_id(tree, 1)->address, "");
    assert_int_equal(apply(tree, COMMAND(NODE_UPDATE, node_update, &update)), 0);
    assert_string_equal(tree_node_by_id(tree, 1)->address, "10.0.0.9");
    assert_int_equal(tree_get_cluster(tree)->node_list_version, version + 3);
    tree_free(tree);
}

static void nodes_get_the_lowest_free_id_and_unique_names(void **state)
{
    (void)state;
    struct tree *tree = three_nodes();
    assert_true(tree_node_by_id(tree, 1)->voter);
    assert_false(tree_node_by_id(tree, 2)->voter);
    uint64_t version = tree_get_cluster(tree)->node_list_version;
    assert_int_equal(node_add(tree, 2, "node2"), 0); /* the same uuid again */
    assert_int_equal(result.nodeid, 2);
    assert_true(tree_get_cluster(tree)->node_list_version == version);
    assert_int_equal(node_remove(tree, 2), 0);
    assert_null(tree_store_find(tree, 2, "default"));
    assert_int_equal(node_add(tree, 9, "Node3.EXAMPLE"), 0);
    assert_int_equal(result.nodeid, 2);
    assert_string_equal(tree_node_by_id(tree, 2)->name, "node3.example");
    assert_true(tree_get_cluster(tree)->node_list_version == version + 2);
    assert_int_equal(node_add(tree, 10, "node1"), 0);
    assert_string_equal(tree_node_by_id(tree, 4)->name, "node1-4");
    uint8_t uuid[16] = {1, 1};
    Director__NodeInfo info = DIRECTOR__NODE_INFO__INIT;
    Director__NodeUpdate update = DIRECTOR__NODE_UPDATE__INIT;
    info.uuid = (ProtobufCBinaryData){16, uuid};
    info.name = "node3";
    update.node = &info;
    assert_int_equal(apply(tree, COMMAND(NODE_UPDATE, node_update, &update)), 0);
    assert_string_equal(tree_node_by_id(tree, 1)->name, "node3-1"); /* node 3 has it */
    tree_free(tree);
}

static void a_node_in_use_is_not_removed(void **state)
{
    (void)state;
    struct tree *tree = three_nodes();
    assert_int_equal(volume_create(tree, "vol1", GIB, 3), 0);
    REFUSED(tree, -EBUSY, node_remove(tree, 3));
    assert_non_null(strstr(error.message, "vol1"));
    assert_int_equal(volume_delete(tree, "vol1"), 0);
    assert_int_equal(node_voter(tree, 3, true), 0);
    REFUSED(tree, -EBUSY, node_remove(tree, 3));
    assert_int_equal(node_voter(tree, 3, false), 0);
    assert_int_equal(node_remove(tree, 3), 0);
    REFUSED(tree, -EBUSY, node_voter(tree, 1, false));
    REFUSED(tree, -EBUSY, node_remove(tree, 1));
    REFUSED(tree, -ENOENT, node_remove(tree, 7));
    tree_free(tree);
}

static void a_volume_is_placed_where_most_room_is(void **state)
{
    (void)state;
    struct tree *tree = three_nodes();
    assert_int_equal(store_put(tree, 3, "big", 20 * GIB), 0);
    assert_int_equal(volume_create(tree, "vol1", 2 * GIB, 2), 0);
    const struct tree_volume *volume = tree_volume_by_id(tree, result.volume);
    assert_int_equal(volume->replicas[0].nodeid, 3);
    assert_string_equal(volume->replicas[0].store, "big");
    assert_int_equal(volume->replicas[1].nodeid, 1);
    assert_int_equal(volume->epoch, 1);
    assert_int_equal(volume->isr, 3);
    assert_int_equal(volume->owner, 3);
    assert_int_equal(tree_store_find(tree, 3, "big")->allocated_bytes, 2 * GIB);
    assert_int_equal(volume_create(tree, "vol2", 2 * GIB, 2), 0);
    volume = tree_volume_by_name(tree, "vol2");
    assert_int_equal(volume->owner, 2); /* owns fewer than node 3 */
    assert_int_equal(volume_delete(tree, "vol1"), 0);
    assert_int_equal(volume_delete(tree, "vol2"), 0);
    for (size_t i = 0; i < tree_store_count(tree); i++)
        assert_int_equal(tree_store_at(tree, i)->allocated_bytes, 0);
    assert_int_equal(volume_create(tree, "vol1", GIB, 1), 0);
    assert_int_equal(result.volume, 3); /* ids are never used again */
    tree_free(tree);
}

static void bad_volumes_are_refused_in_words(void **state)
{
    (void)state;
    struct tree *tree = three_nodes();
    REFUSED(tree, -EINVAL, volume_create(tree, "vol1", 0, 2));
    REFUSED(tree, -EINVAL, volume_create(tree, "vol1", 10ull << 60, 2));
    REFUSED(tree, -EINVAL, volume_create(tree, "vol1", MIB + 512, 2));
    REFUSED(tree, -EINVAL, volume_create(tree, "vol1", GIB, 9));
    REFUSED(tree, -EINVAL, volume_create(tree, "vol1", GIB, 0));
    REFUSED(tree, -EINVAL, volume_create(tree, "Vol1", GIB, 2));
    REFUSED(tree, -EINVAL, volume_create(tree, "", GIB, 2));
    REFUSED(tree, -ENOSPC, volume_create(tree, "vol1", 11 * GIB, 2));
    assert_non_null(strstr(error.message, "node1/default has 10G"));
    REFUSED(tree, -ENOSPC, volume_create(tree, "vol1", GIB, 4));
    assert_int_equal(volume_create(tree, "vol1", GIB, 2), 0);
    REFUSED(tree, -EEXIST, volume_create(tree, "vol1", GIB, 2));
    tree_free(tree);
}

static void a_promotion_comes_from_the_committed_isr(void **state)
{
    (void)state;
    struct tree *tree = three_nodes();
    assert_int_equal(volume_create(tree, "vol1", GIB, 3), 0);
    const struct tree_volume *volume = tree_volume_by_name(tree, "vol1");
    uint16_t nodes[3] = {volume->replicas[0].nodeid, volume->replicas[1].nodeid, volume->replicas[2].nodeid};
    REFUSED(tree, -ESTALE, promote(tree, 1, 2, nodes[1], 6)); /* I1: not this epoch */
    assert_int_equal(isr(tree, 1, 1, 1, 3), 0);               /* replica 2 out */
    REFUSED(tree, -ESTALE, promote(tree, 1, 1, nodes[2], 4)); /* I4 */
    REFUSED(tree, -ESTALE, promote(tree, 1, 1, nodes[1], 6)); /* I8 */
    REFUSED(tree, -EINVAL, promote(tree, 1, 1, nodes[1], 1)); /* the owner must be in it */
    REFUSED(tree, -EINVAL, promote(tree, 1, 1, nodes[1], 0)); /* I10 */
    REFUSED(tree, -EINVAL, promote(tree, 1, 1, 77, 2));
    assert_int_equal(promote(tree, 1, 1, nodes[1], 2), 0);
    assert_int_equal(volume->epoch, 2);
    assert_int_equal(volume->owner, nodes[1]);
    assert_int_equal(volume->isr_version, 3);
    REFUSED(tree, -ESTALE, promote(tree, 1, 1, nodes[0], 1)); /* the other candidate comes too late */
    REFUSED(tree, -ENOENT, promote(tree, 8, 1, nodes[0], 1));
    tree_free(tree);
}

static void the_isr_is_compared_and_set(void **state)
{
    (void)state;
    struct tree *tree = three_nodes();
    assert_int_equal(volume_create(tree, "vol1", GIB, 2), 0);
    REFUSED(tree, -ESTALE, isr(tree, 1, 1, 2, 1));
    REFUSED(tree, -ESTALE, isr(tree, 1, 2, 1, 1));
    REFUSED(tree, -EINVAL, isr(tree, 1, 1, 1, 0)); /* I10 */
    REFUSED(tree, -EINVAL, isr(tree, 1, 1, 1, 2)); /* without the owner */
    REFUSED(tree, -EINVAL, isr(tree, 1, 1, 1, 5)); /* there is no replica 2 */
    assert_int_equal(isr(tree, 1, 1, 1, 1), 0);
    assert_int_equal(result.version, 2);
    assert_int_equal(isr(tree, 1, 1, 2, 3), 0); /* growth, by version */
    tree_free(tree);
}

static void a_replica_in_sync_keeps_its_incarnation(void **state)
{
    (void)state;
    struct tree *tree = three_nodes();
    assert_int_equal(volume_create(tree, "vol1", GIB, 2), 0);
    Director__VolumeIncarnation body = DIRECTOR__VOLUME_INCARNATION__INIT;
    body.volume = 1;
    body.replica = 1;
    body.incarnation = 77;
    REFUSED(tree, -EBUSY, apply(tree, COMMAND(VOLUME_INCARNATION, volume_incarnation, &body)));
    assert_int_equal(isr(tree, 1, 1, 1, 1), 0);
    uint64_t version = tree_volume_by_id(tree, 1)->isr_version;
    assert_int_equal(apply(tree, COMMAND(VOLUME_INCARNATION, volume_incarnation, &body)), 0);
    assert_int_equal(tree_volume_by_id(tree, 1)->replicas[1].incarnation, 77);
    assert_int_equal(tree_volume_by_id(tree, 1)->isr_version, version + 1); /* else the mirrors would not take it over */
    assert_int_equal(apply(tree, COMMAND(VOLUME_INCARNATION, volume_incarnation, &body)), 0);
    assert_int_equal(tree_volume_by_id(tree, 1)->isr_version, version + 1);
    body.incarnation = 78;
    body.expect = 76; /* what was there before another disk came */
    REFUSED(tree, -ESTALE, apply(tree, COMMAND(VOLUME_INCARNATION, volume_incarnation, &body)));
    body.expect = 77;
    assert_int_equal(apply(tree, COMMAND(VOLUME_INCARNATION, volume_incarnation, &body)), 0);
    tree_free(tree);
}

static int reserve(struct tree *tree, uint16_t origin, Director__VolumeReserve *body)
{
    Director__Command command = COMMAND(VOLUME_RESERVE, volume_reserve, body);
    command.origin = origin;
    return apply(tree, command);
}

static void reservations_change_in_the_epoch_of_their_owner(void **state)
{
    (void)state;
    struct tree *tree = three_nodes();
    uint8_t table[TREE_RESERVATION_BYTES + 1] = {1, 2, 3};
    Director__VolumeReserve body = DIRECTOR__VOLUME_RESERVE__INIT;
    assert_int_equal(volume_create(tree, "vol1", GIB, 2), 0);
    uint16_t owner = tree_volume_by_id(tree, 1)->owner;
    body.volume = 1;
    body.expect_epoch = 1;
    body.table = (ProtobufCBinaryData){3, table};
    assert_null(tree_volume_reservation(tree, 1));
    REFUSED(tree, -ESTALE, reserve(tree, owner + 1, &body)); /* not its own */
    assert_int_equal(reserve(tree, owner, &body), 0);
    REFUSED(tree, -ESTALE, reserve(tree, owner, &body));
    body.expect_version = 1;
    body.table.len = sizeof(table);
    REFUSED(tree, -E2BIG, reserve(tree, owner, &body));
    body.table.len = 2;
    body.expect_epoch = 2;
    REFUSED(tree, -ESTALE, reserve(tree, owner, &body));
    body.expect_epoch = 1;
    assert_int_equal(reserve(tree, owner, &body), 0);
    const struct tree_reservation *now = tree_volume_reservation(tree, 1);
    assert_int_equal(now->version, 2);
    assert_int_equal(now->table_bytes, 2);
    uint8_t *bytes;
    size_t size;
    struct tree *copy = tree_new();
    tree_snapshot(tree, &bytes, &size);
    assert_int_equal(tree_restore(copy, bytes, size, NULL), 0);
    assert_int_equal(tree_hash(copy), tree_hash(tree));
    assert_memory_equal(tree_volume_reservation(copy, 1)->table, table, 2);
    free(bytes);
    tree_free(copy);
    Director__VolumeDelete gone = DIRECTOR__VOLUME_DELETE__INIT;
    gone.name = (char *)tree_volume_by_id(tree, 1)->name;
    assert_int_equal(apply(tree, COMMAND(VOLUME_DELETE, volume_delete, &gone)), 0);
    assert_null(tree_volume_reservation(tree, 1));
    tree_free(tree);
}

static void an_exported_volume_is_not_deleted(void **state)
{
    (void)state;
    static const char iqn[] = "iqn.2026-01.org.director:director:vol1";
    struct tree *tree = three_nodes();
    assert_int_equal(volume_create(tree, "vol1", GIB, 2), 0);
    REFUSED(tree, -EINVAL, target_create(tree, "iqn.26-01.org.director"));
    REFUSED(tree, -EINVAL, target_create(tree, "iqn.2026-01.Org"));
    assert_int_equal(target_create(tree, iqn), 0);
    REFUSED(tree, -EEXIST, target_create(tree, iqn));
    REFUSED(tree, -ENOENT, lun_add(tree, iqn, 0, "nothing"));
    REFUSED(tree, -EINVAL, lun_add(tree, iqn, 256, "vol1"));
    assert_int_equal(lun_add(tree, iqn, 5, "vol1"), 0);
    REFUSED(tree, -EEXIST, lun_add(tree, iqn, 6, "vol1"));
    assert_int_equal(volume_create(tree, "vol2", GIB, 1), 0);
    REFUSED(tree, -EEXIST, lun_add(tree, iqn, 5, "vol2"));
    assert_int_equal(lun_add(tree, iqn, 1, "vol2"), 0);
    assert_int_equal(tree_target_by_iqn(tree, iqn)->luns[0].lun, 1);
    REFUSED(tree, -EBUSY, volume_delete(tree, "vol1"));
    assert_non_null(strstr(error.message, "lun 5 of target iqn."));
    Director__LunRemove remove = DIRECTOR__LUN_REMOVE__INIT;
    remove.iqn = (char *)iqn;
    remove.lun = 5;
    assert_int_equal(apply(tree, COMMAND(LUN_REMOVE, lun_remove, &remove)), 0);
    assert_int_equal(volume_delete(tree, "vol1"), 0);
    Director__TargetDelete delete = DIRECTOR__TARGET_DELETE__INIT;
    delete.iqn = (char *)iqn;
    REFUSED(tree, -EBUSY, apply(tree, COMMAND(TARGET_DELETE, target_delete, &delete)));
    tree_free(tree);
}

static int request(struct tree *tree, uint64_t boot, uint64_t sequence, const char *iqn)
{
    Director__TargetCreate body = DIRECTOR__TARGET_CREATE__INIT;
    body.iqn = (char *)iqn;
    Director__Command command = COMMAND(TARGET_CREATE, target_create, &body);
    command.origin = 2;
    command.origin_boot = boot;
    command.origin_sequence = sequence;
    return tree_apply(tree, &command, &result, &error);
}

static void a_request_has_its_effect_once(void **state)
{
    (void)state;
    struct tree *tree = three_nodes();
    assert_int_equal(request(tree, 5, 10, "iqn.2026-01.a:1"), 0);
    assert_int_equal(request(tree, 5, 10, "iqn.2026-01.a:1"), 0);
    assert_true(result.duplicate);
    assert_int_equal(request(tree, 5, 9, "iqn.2026-01.a:2"), 0); /* out of order, but new */
    assert_false(result.duplicate);
    assert_int_equal(request(tree, 5, 11, "iqn.2026-01.a:2"), -EEXIST);
    assert_int_equal(request(tree, 5, 11, "iqn.2026-01.a:3"), -EALREADY);
    assert_int_equal(request(tree, 5, 11 + TREE_REQUEST_WINDOW, "iqn.2026-01.a:4"), 0);
    assert_int_equal(request(tree, 5, 11, "iqn.2026-01.a:5"), 0);
    assert_true(result.duplicate); /* so old that it must have been */
    assert_int_equal(request(tree, 5, 12, "iqn.2026-01.a:6"), 0);
    assert_false(result.duplicate);
    assert_int_equal(request(tree, 6, 10, "iqn.2026-01.a:7"), 0); /* another process */
    assert_false(result.duplicate);
    assert_int_equal(tree_target_count(tree), 5);
    tree_free(tree);
}

static void snapshot_and_restore_give_the_same_tree(void **state)
{
    (void)state;
    struct tree *tree = three_nodes(), *other = tree_new();
    assert_int_equal(volume_create(tree, "zeta", GIB, 3), 0);
    assert_int_equal(volume_create(tree, "alpha", GIB, 2), 0);
    assert_int_equal(target_create(tree, "iqn.2026-01.org.director:a"), 0);
    assert_int_equal(lun_add(tree, "iqn.2026-01.org.director:a", 0, "zeta"), 0);
    assert_int_equal(request(tree, 5, 10, "iqn.2026-01.a:1"), 0);
    assert_string_equal(tree_volume_at(tree, 0)->name, "alpha");
    uint8_t *data, *again;
    size_t size, size_again;
    tree_snapshot(tree, &data, &size);
    assert_int_equal(tree_restore(other, data, size, &error), 0);
    tree_snapshot(other, &again, &size_again);
    assert_int_equal(size, size_again);
    assert_memory_equal(data, again, size);
    assert_true(tree_hash(tree) == tree_hash(other));
    /* and they go on alike: placement, ids, request table */
    assert_int_equal(request(other, 5, 10, "iqn.2026-01.a:1"), 0);
    assert_true(result.duplicate);
    assert_int_equal(tree_store_find(other, 1, "default")->allocated_bytes,
                     tree_store_find(tree, 1, "default")->allocated_bytes);
    assert_string_equal(tree_volume_export(other, 1, NULL)->iqn, "iqn.2026-01.org.director:a");
    /* damage is refused, and leaves the tree as it was: cut at each byte */
    for (size_t cut = 1; cut < size; cut++) {
        struct tree *third = tree_new();
        if (tree_restore(third, data, cut, NULL) == 0) {
            uint8_t *cut_data; /* a cut between fields may be a smaller, but whole tree */
            size_t cut_size;
            tree_snapshot(third, &cut_data, &cut_size);
            free(cut_data);
        }
        tree_free(third);
    }
    data[0] ^= 0xff;
    REFUSED(other, -EBADMSG, tree_restore(other, data, size, &error));
    assert_int_equal(tree_restore(other, NULL, 0, &error), 0);
    assert_int_equal(tree_node_count(other), 0);
    free(data);
    free(again);
    tree_free(tree);
    tree_free(other);
}

static void unknown_and_malformed_commands_are_refused(void **state)
{
    (void)state;
    struct tree *tree = three_nodes();
    Director__Command nothing = DIRECTOR__COMMAND__INIT;
    REFUSED(tree, -ENOTSUP, apply(tree, nothing));
    static const uint8_t rubbish[] = {0xff, 0xff, 0xff, 0x01, 0x02};
    REFUSED(tree, -EBADMSG, tree_apply_bytes(tree, rubbish, sizeof(rubbish), NULL, &error));
    tree_free(tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_get_the_lowest_free_id_and_unique_names),
        cmocka_unit_test(an_address_belongs_to_the_node_that_was_there_last),
        cmocka_unit_test(a_node_in_use_is_not_removed),
        cmocka_unit_test(a_volume_is_placed_where_most_room_is),
        cmocka_unit_test(bad_volumes_are_refused_in_words),
        cmocka_unit_test(a_promotion_comes_from_the_committed_isr),
        cmocka_unit_test(the_isr_is_compared_and_set),
        cmocka_unit_test(a_replica_in_sync_keeps_its_incarnation),
        cmocka_unit_test(reservations_change_in_the_epoch_of_their_owner),
        cmocka_unit_test(an_exported_volume_is_not_deleted),
        cmocka_unit_test(a_request_has_its_effect_once),
        cmocka_unit_test(snapshot_and_restore_give_the_same_tree),
        cmocka_unit_test(unknown_and_malformed_commands_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
