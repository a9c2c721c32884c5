/* The tree as canonical bytes and back. Every array of the tree is kept in the order of its keys, protobuf-c packs fields in the
 * order of their numbers: equal trees give equal bytes. What comes back is checked as if it came from a stranger. */
#include "agent/core/tree_internal.h"

#include "director/base/crc32c.h"

static ProtobufCBinaryData uuid_data(const struct uuid *uuid)
{
    return (ProtobufCBinaryData){uuid_is_zero(uuid) ? 0 : sizeof(uuid->bytes), (uint8_t *)uuid->bytes};
}

/* count messages of size bytes behind an array of pointers to them, in one allocation. */
static void *message_array(size_t count, size_t size, void ***ret_pointers)
{
    char *memory = tree_allocate(count * (sizeof(void *) + size));
    void **pointers = (void **)memory;
    for (size_t i = 0; i < count; i++)
        pointers[i] = memory + count * sizeof(void *) + i * size;
    *ret_pointers = pointers;
    return memory + count * sizeof(void *);
}

static void fill_nodes(const struct tree *tree, Director__TreeSnapshot *snapshot)
{
    Director__NodeInfo *info = message_array(tree->node_count, sizeof(*info), (void ***)&snapshot->nodes);
    snapshot->n_nodes = tree->node_count;
    for (size_t i = 0; i < tree->node_count; i++, info++) {
        const struct tree_node *node = &tree->nodes[i];
        director__node_info__init(info);
        info->uuid = uuid_data(&node->uuid);
        info->nodeid = node->nodeid;
        info->name = (char *)node->name;
        info->address = (char *)node->address;
        info->voter = node->voter;
        info->boot = node->boot;
        info->version_max = node->version_max;
        info->software = (char *)node->software;
    }
}

static void fill_stores(const struct tree *tree, Director__TreeSnapshot *snapshot)
{
    Director__StorePut *put = message_array(tree->store_count, sizeof(*put), (void ***)&snapshot->stores);
    snapshot->n_stores = tree->store_count;
    for (size_t i = 0; i < tree->store_count; i++, put++) {
        const struct tree_store *store = &tree->stores[i];
        director__store_put__init(put);
        put->nodeid = store->nodeid;
        put->name = (char *)store->name;
        put->plugin = (char *)store->plugin;
        put->path = (char *)store->path;
        put->capacity = store->capacity_bytes;
    }
}

static void fill_volumes(const struct tree *tree, Director__TreeSnapshot *snapshot)
{
    Director__TreeVolume *to = message_array(tree->volume_count, sizeof(*to), (void ***)&snapshot->volumes);
    snapshot->n_volumes = tree->volume_count;
    for (size_t i = 0; i < tree->volume_count; i++, to++) {
        const struct tree_volume *volume = tree->volumes[i];
        director__tree_volume__init(to);
        to->id = volume->id;
        to->uuid = (ProtobufCBinaryData){sizeof(volume->uuid.bytes), (uint8_t *)volume->uuid.bytes};
        to->name = (char *)volume->name;
        to->size = volume->size_bytes;
        to->block_size = volume->block_bytes;
        Director__TreeReplica *replica =
            message_array(volume->replica_count, sizeof(*replica), (void ***)&to->replicas);
        to->n_replicas = volume->replica_count;
        for (unsigned r = 0; r < volume->replica_count; r++, replica++) {
            director__tree_replica__init(replica);
            replica->nodeid = volume->replicas[r].nodeid;
            replica->store = (char *)volume->replicas[r].store;
            replica->incarnation = volume->replicas[r].incarnation;
        }
        to->epoch = volume->epoch;
        to->owner = volume->owner;
        to->isr = volume->isr;
        to->isr_version = volume->isr_version;
        to->created_ms = volume->created_ms;
    }
}

static void fill_targets(const struct tree *tree, Director__TreeSnapshot *snapshot)
{
    Director__TreeTarget *to = message_array(tree->target_count, sizeof(*to), (void ***)&snapshot->targets);
    snapshot->n_targets = tree->target_count;
    for (size_t i = 0; i < tree->target_count; i++, to++) {
        const struct tree_target *target = tree->targets[i];
        director__tree_target__init(to);
        to->iqn = (char *)target->iqn;
        Director__TreeLun *lun = message_array(target->lun_count, sizeof(*lun), (void ***)&to->luns);
        to->n_luns = target->lun_count;
        for (unsigned l = 0; l < target->lun_count; l++, lun++) {
            director__tree_lun__init(lun);
            lun->lun = target->luns[l].lun;
            lun->volume = target->luns[l].volume;
        }
    }
}

static void fill_requests(const struct tree *tree, Director__TreeSnapshot *snapshot)
{
    Director__TreeRequests *to = message_array(tree->request_count, sizeof(*to), (void ***)&snapshot->requests);
    snapshot->n_requests = tree->request_count;
    for (size_t i = 0; i < tree->request_count; i++, to++) {
        const struct tree_requests *requests = &tree->requests[i];
        director__tree_requests__init(to);
        to->origin = requests->origin;
        to->boot = requests->boot;
        to->highest = requests->highest;
        to->n_applied = to->n_refused = TREE_REQUEST_WORDS;
        to->applied = (uint64_t *)requests->applied;
        to->refused = (uint64_t *)requests->refused;
    }
}

void tree_snapshot(const struct tree *tree, uint8_t **ret_data, size_t *ret_size)
{
    Director__TreeSnapshot snapshot = DIRECTOR__TREE_SNAPSHOT__INIT;
    snapshot.format = TREE_SNAPSHOT_FORMAT;
    snapshot.cluster_uuid = uuid_data(&tree->cluster.uuid);
    snapshot.cluster_name = (char *)tree->cluster.name;
    snapshot.next_volume_id = tree->cluster.next_volume_id;
    snapshot.node_list_version = tree->cluster.node_list_version;
    fill_nodes(tree, &snapshot);
    fill_stores(tree, &snapshot);
    fill_volumes(tree, &snapshot);
    fill_targets(tree, &snapshot);
    fill_requests(tree, &snapshot);
    *ret_size = director__tree_snapshot__get_packed_size(&snapshot);
    *ret_data = tree_allocate(*ret_size);
    director__tree_snapshot__pack(&snapshot, *ret_data);
    for (size_t i = 0; i < snapshot.n_volumes; i++)
        free(snapshot.volumes[i]->replicas);
    for (size_t i = 0; i < snapshot.n_targets; i++)
        free(snapshot.targets[i]->luns);
    free(snapshot.nodes);
    free(snapshot.stores);
    free(snapshot.volumes);
    free(snapshot.targets);
    free(snapshot.requests);
}

/* ---- restore -------------------------------------------------------------------------------------------------- */

static bool uuid_take(ProtobufCBinaryData data, struct uuid *ret_uuid)
{
    if (data.len != sizeof(ret_uuid->bytes))
        return false;
    memcpy(ret_uuid->bytes, data.data, sizeof(ret_uuid->bytes));
    return true;
}

static bool take_cluster(struct tree *tree, const Director__TreeSnapshot *from)
{
    if (from->cluster_uuid.len != 0 && !uuid_take(from->cluster_uuid, &tree->cluster.uuid))
        return false;
    if (!tree_text_fits(from->cluster_name, TREE_NAME_SIZE) || from->next_volume_id == 0)
        return false;
    tree_copy(tree->cluster.name, TREE_NAME_SIZE, from->cluster_name);
    tree->cluster.next_volume_id = from->next_volume_id;
    tree->cluster.node_list_version = from->node_list_version;
    return true;
}

static bool take_node(struct tree *tree, const Director__NodeInfo *from)
{
    struct tree_node node = {.voter = from->voter, .boot = from->boot, .version_max = from->version_max};
    if (tree->node_count == TREE_NODES_MAX || from->nodeid == 0 || from->nodeid > UINT16_MAX ||
        (tree->node_count && tree->nodes[tree->node_count - 1].nodeid >= from->nodeid) ||
        !uuid_take(from->uuid, &node.uuid) || tree_check_name("", from->name, NULL) || tree_node_by_name(tree, from->name) ||
        tree_node_by_uuid(tree, &node.uuid) || !tree_text_fits(from->address, TREE_ADDRESS_SIZE) ||
        !tree_text_fits(from->software, TREE_NAME_SIZE))
        return false;
    node.nodeid = (uint16_t)from->nodeid;
    tree_copy(node.name, sizeof(node.name), from->name);
    tree_copy(node.address, sizeof(node.address), from->address);
    tree_copy(node.software, sizeof(node.software), from->software);
    tree->nodes[tree->node_count++] = node;
    return true;
}

static bool take_store(struct tree *tree, const Director__StorePut *from)
{
    struct tree_store store = {.nodeid = (uint16_t)from->nodeid, .capacity_bytes = from->capacity};
    if (!tree_node_find(tree, from->nodeid) || tree_check_name("", from->name, NULL) ||
        tree_check_name("", from->plugin, NULL) || !tree_text_fits(from->path, TREE_PATH_SIZE) ||
        tree_store_find(tree, store.nodeid, from->name))
        return false;
    tree_copy(store.name, sizeof(store.name), from->name);
    tree_copy(store.plugin, sizeof(store.plugin), from->plugin);
    tree_copy(store.path, sizeof(store.path), from->path);
    return tree_store_insert(tree, &store);
}

static bool take_replicas(struct tree *tree, const Director__TreeVolume *from, struct tree_volume *volume)
{
    if (from->n_replicas < 1 || from->n_replicas > TREE_REPLICAS_MAX)
        return false;
    for (size_t i = 0; i < from->n_replicas; i++) {
        const Director__TreeReplica *replica = from->replicas[i];
        if (replica->nodeid > UINT16_MAX || tree_volume_replica_of(volume, (uint16_t)replica->nodeid) >= 0 ||
            !tree_text_fits(replica->store, TREE_NAME_SIZE) ||
            !tree_store_find(tree, (uint16_t)replica->nodeid, replica->store))
            return false;
        struct tree_replica *to = &volume->replicas[volume->replica_count++];
        to->nodeid = (uint16_t)replica->nodeid;
        to->incarnation = replica->incarnation;
        tree_copy(to->store, sizeof(to->store), replica->store);
    }
    int owner = from->owner <= UINT16_MAX ? tree_volume_replica_of(volume, (uint16_t)from->owner) : -1;
    return owner >= 0 && from->isr >> volume->replica_count == 0 && (from->isr >> owner & 1); /* I10 */
}

static bool take_volume(struct tree *tree, const Director__TreeVolume *from)
{
    struct tree_volume volume = {
        .id = from->id,
        .size_bytes = from->size,
        .block_bytes = from->block_size,
        .epoch = from->epoch,
        .owner = (uint16_t)from->owner,
        .isr = from->isr,
        .isr_version = from->isr_version,
        .created_ms = from->created_ms,
    };
    if (tree->volume_count == TREE_VOLUMES_MAX || from->id == 0 || from->id >= tree->cluster.next_volume_id ||
        tree_volume_find(tree, from->id) || tree_check_name("", from->name, NULL) || tree_volume_by_name(tree, from->name) ||
        tree_check_size(from->name, from->size, from->block_size, NULL) || !uuid_take(from->uuid, &volume.uuid) ||
        from->epoch == 0 || from->isr_version == 0 || !take_replicas(tree, from, &volume))
        return false;
    tree_copy(volume.name, sizeof(volume.name), from->name);
    struct tree_volume *made = tree_allocate(sizeof(*made));
    *made = volume;
    tree_volume_insert(tree, made);
    return true;
}

static bool take_target(struct tree *tree, const Director__TreeTarget *from)
{
    if (tree->target_count == TREE_TARGETS_MAX || tree_check_iqn(from->iqn, NULL) || tree_target_by_iqn(tree, from->iqn) ||
        from->n_luns > TREE_LUNS_MAX)
        return false;
    for (size_t i = 0; i < from->n_luns; i++)
        if (from->luns[i]->lun >= TREE_LUNS_MAX || (i && from->luns[i]->lun <= from->luns[i - 1]->lun) ||
            !tree_volume_find(tree, from->luns[i]->volume))
            return false;
    struct tree_target *target = tree_allocate(sizeof(*target));
    tree_copy(target->iqn, sizeof(target->iqn), from->iqn);
    target->lun_count = (unsigned)from->n_luns;
    target->luns = tree_allocate(from->n_luns * sizeof(*target->luns));
    for (size_t i = 0; i < from->n_luns; i++)
        target->luns[i] = (struct tree_lun){.lun = from->luns[i]->lun, .volume = from->luns[i]->volume};
    tree_target_insert(tree, target);
    return true;
}

static bool take_requests(struct tree *tree, const Director__TreeRequests *from)
{
    if (tree->request_count == TREE_ORIGINS_MAX || from->origin == 0 || from->origin > UINT16_MAX ||
        (tree->request_count && tree->requests[tree->request_count - 1].origin >= from->origin) ||
        from->n_applied != TREE_REQUEST_WORDS || from->n_refused != TREE_REQUEST_WORDS)
        return false;
    struct tree_requests *to = &tree->requests[tree->request_count++];
    *to = (struct tree_requests){.origin = (uint16_t)from->origin, .boot = from->boot, .highest = from->highest};
    memcpy(to->applied, from->applied, sizeof(to->applied));
    memcpy(to->refused, from->refused, sizeof(to->refused));
    return true;
}

static bool take(struct tree *tree, const Director__TreeSnapshot *from)
{
    bool good = from->format == TREE_SNAPSHOT_FORMAT && take_cluster(tree, from);
    for (size_t i = 0; good && i < from->n_nodes; i++)
        good = take_node(tree, from->nodes[i]);
    for (size_t i = 0; good && i < from->n_stores; i++)
        good = take_store(tree, from->stores[i]);
    for (size_t i = 0; good && i < from->n_volumes; i++)
        good = take_volume(tree, from->volumes[i]);
    for (size_t i = 0; good && i < from->n_targets; i++)
        good = take_target(tree, from->targets[i]);
    for (size_t i = 0; good && i < from->n_requests; i++)
        good = take_requests(tree, from->requests[i]);
    return good;
}

int tree_restore(struct tree *tree, const uint8_t *data, size_t size, struct error *error)
{
    struct tree *made = tree_new();
    bool good = true;
    if (size) {
        Director__TreeSnapshot *snapshot = director__tree_snapshot__unpack(NULL, size, data);
        good = snapshot && take(made, snapshot);
        if (snapshot)
            director__tree_snapshot__free_unpacked(snapshot, NULL);
    }
    if (!good) {
        tree_free(made);
        return error_set(error, -EBADMSG, "a snapshot of %zu bytes is damaged: this node must take the state of another", size);
    }
    tree_empty(tree);
    *tree = *made;
    free(made);
    return 0;
}

uint64_t tree_hash(const struct tree *tree)
{
    uint8_t *data;
    size_t size;
    tree_snapshot(tree, &data, &size);
    uint64_t hash = (uint64_t)crc32c(0, data, size) << 32 | crc32c(0x9e3779b9u, data, size);
    free(data);
    return hash;
}
