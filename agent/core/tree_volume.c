/* Volumes: placement, and the configuration that replication obeys: epoch, owner, ISR. Invariants I1, I4, I8, I10, I11. */
#include "agent/core/tree_internal.h"

#include "director/base/size.h"

int tree_check_size(const char *name, uint64_t size, uint32_t block, struct error *error)
{
    if (block != 512 && block != 4096)
        return error_set(error, -EINVAL, "volume '%s' cannot have blocks of %u bytes: 512 or 4096 are possible", name, block);
    if (size < TREE_VOLUME_MIN_BYTES || size > TREE_VOLUME_MAX_BYTES)
        return error_set(error, -EINVAL, "volume '%s' cannot have %" PRIu64 " bytes: give 1 MiB to 64 TiB", name, size);
    if (size % TREE_VOLUME_UNIT_BYTES)
        return error_set(error, -EINVAL, "volume '%s' cannot have %" PRIu64 " bytes: give a multiple of %u", name, size,
                         TREE_VOLUME_UNIT_BYTES);
    return 0;
}

/* ---- placement ------------------------------------------------------------------------------------------------ */

static uint64_t room(const struct tree_store *store)
{
    return store->capacity_bytes > store->allocated_bytes ? store->capacity_bytes - store->allocated_bytes : 0;
}

static bool wanted(const Director__VolumeCreate *create, uint16_t nodeid)
{
    for (size_t i = 0; i < create->n_nodes; i++)
        if (create->nodes[i] == nodeid)
            return true;
    return create->n_nodes == 0;
}

static unsigned owned_by(const struct tree *tree, uint16_t nodeid)
{
    unsigned count = 0;
    for (size_t i = 0; i < tree->volume_count; i++)
        count += tree->volumes[i]->owner == nodeid;
    return count;
}

struct candidates {
    const struct tree_store *stores[TREE_NODES_MAX]; /* one per node: that with most room */
    size_t count;
};

/* One store per wanted node: the named one, or the one with most room; most room first, then lowest nodeid. */
static void candidates_find(const struct tree *tree, const Director__VolumeCreate *create, struct candidates *found)
{
    found->count = 0;
    for (size_t n = 0; n < tree->node_count; n++) {
        const struct tree_store *best = NULL;
        for (size_t i = 0; i < tree->store_count && wanted(create, tree->nodes[n].nodeid); i++) {
            const struct tree_store *store = &tree->stores[i];
            if (store->nodeid != tree->nodes[n].nodeid || (*create->store && strcmp(store->name, create->store) != 0))
                continue;
            if (!best || room(store) > room(best))
                best = store;
        }
        if (!best)
            continue;
        size_t place = found->count++;
        for (; place > 0 && room(found->stores[place - 1]) < room(best); place--)
            found->stores[place] = found->stores[place - 1];
        found->stores[place] = best;
    }
}

/* Say which stores lack room. */
static int no_space(struct tree_change *change, const struct candidates *found)
{
    const Director__VolumeCreate *create = change->command->volume_create;
    char list[128] = "", needed[SIZE_TEXT_SIZE], there[SIZE_TEXT_SIZE];
    for (size_t i = 0, used = 0; i < found->count && used < sizeof(list) - 1; i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%.20s/%.20s has %s", i ? ", " : "",
                                 tree_node_label(change->tree, found->stores[i]->nodeid), found->stores[i]->name,
                                 size_format_exact(room(found->stores[i]) >> 20 << 20, there));
    return error_set(change->error, -ENOSPC, "volume '%.40s' needs %s free on %u %s: %s", create->name,
                     size_format_exact(create->size, needed), create->replicas, create->replicas == 1 ? "node" : "nodes", list);
}

static int place(struct tree_change *change, struct tree_volume *volume)
{
    const Director__VolumeCreate *create = change->command->volume_create;
    struct candidates found;
    for (size_t i = 0; i < create->n_nodes; i++)
        if (!tree_node_find(change->tree, create->nodes[i]))
            return error_set(change->error, -ENOENT, "there is no node with id %u for volume '%s'", create->nodes[i], create->name);
    candidates_find(change->tree, create, &found);
    if (found.count < create->replicas)
        return error_set(change->error, -ENOSPC,
                         "volume '%s' needs %u nodes with a store%s%.40s: only %zu %s there; add nodes or ask for fewer replicas",
                         create->name, create->replicas, *create->store ? " named " : "", create->store, found.count,
                         found.count == 1 ? "is" : "are");
    if (room(found.stores[create->replicas - 1]) < create->size)
        return no_space(change, &found);
    volume->replica_count = create->replicas;
    unsigned best = 0;
    for (unsigned i = 0; i < create->replicas; i++) {
        volume->replicas[i].nodeid = found.stores[i]->nodeid;
        volume->replicas[i].incarnation = create->incarnations[i];
        tree_copy(volume->replicas[i].store, TREE_NAME_SIZE, found.stores[i]->name);
        if (owned_by(change->tree, volume->replicas[i].nodeid) < owned_by(change->tree, volume->replicas[best].nodeid))
            best = i;
    }
    /* The owner is the first placed replica: put the node that owns fewest there. */
    struct tree_replica first = volume->replicas[best];
    volume->replicas[best] = volume->replicas[0];
    volume->replicas[0] = first;
    return 0;
}

/* ---- create and delete ---------------------------------------------------------------------------------------- */

static size_t name_place(const struct tree *tree, const char *name)
{
    size_t low = 0, high = tree->volume_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(tree->volumes[middle]->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static size_t id_place(const struct tree *tree, uint64_t id)
{
    size_t low = 0, high = tree->volume_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tree->volumes_by_id[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void allocate_in_stores(struct tree *tree, const struct tree_volume *volume, bool take)
{
    for (unsigned i = 0; i < volume->replica_count; i++) {
        struct tree_store *store = tree_store_find_mutable(tree, volume->replicas[i].nodeid, volume->replicas[i].store);
        ASSERT(store); /* T2 */
        store->allocated_bytes += take ? volume->size_bytes : -volume->size_bytes;
    }
}

void tree_volume_insert(struct tree *tree, struct tree_volume *volume)
{
    if (tree->volume_count == tree->volume_capacity) {
        tree->volume_capacity = tree->volume_capacity ? tree->volume_capacity * 2 : 16;
        tree->volumes = realloc(tree->volumes, tree->volume_capacity * sizeof(*tree->volumes));
        tree->volumes_by_id = realloc(tree->volumes_by_id, tree->volume_capacity * sizeof(*tree->volumes_by_id));
        ASSERT(tree->volumes && tree->volumes_by_id);
    }
    size_t by_name = name_place(tree, volume->name), by_id = id_place(tree, volume->id);
    memmove(&tree->volumes[by_name + 1], &tree->volumes[by_name], (tree->volume_count - by_name) * sizeof(*tree->volumes));
    memmove(&tree->volumes_by_id[by_id + 1], &tree->volumes_by_id[by_id],
            (tree->volume_count - by_id) * sizeof(*tree->volumes_by_id));
    tree->volumes[by_name] = volume;
    tree->volumes_by_id[by_id] = volume;
    tree->volume_count++;
    allocate_in_stores(tree, volume, true);
}

static int create_check(struct tree_change *change)
{
    const Director__VolumeCreate *create = change->command->volume_create;
    int status = tree_check_name("volume name", create->name, change->error);
    if (status)
        return status;
    if (tree_volume_by_name(change->tree, create->name))
        return error_set(change->error, -EEXIST, "volume '%s' exists already: choose another name", create->name);
    status = tree_check_size(create->name, create->size, create->block_size ? create->block_size : 512, change->error);
    if (status)
        return status;
    if (create->replicas < 1 || create->replicas > TREE_REPLICAS_MAX)
        return error_set(change->error, -EINVAL, "volume '%s' cannot have %u replicas: give 1 to %u", create->name,
                         create->replicas, TREE_REPLICAS_MAX);
    if (create->uuid.len != sizeof(struct uuid))
        return error_set(change->error, -EINVAL, "the uuid of volume '%s' is missing: it must have 16 bytes", create->name);
    for (size_t i = 0; i < change->tree->volume_count; i++)
        if (memcmp(change->tree->volumes[i]->uuid.bytes, create->uuid.data, sizeof(struct uuid)) == 0)
            return error_set(change->error, -EEXIST, "the uuid of volume '%s' is that of volume '%s': make a new one",
                             create->name, change->tree->volumes[i]->name);
    bool incarnations = create->n_incarnations >= create->replicas;
    for (size_t i = 0; incarnations && i < create->replicas; i++)
        incarnations = create->incarnations[i] != 0;
    if (!incarnations)
        return error_set(change->error, -EINVAL, "volume '%s' needs an incarnation, not 0, for each of %u replicas",
                         create->name, create->replicas);
    if (change->tree->volume_count == TREE_VOLUMES_MAX)
        return error_set(change->error, -E2BIG, "volume '%s' cannot be created: a cluster has at most %u volumes", create->name,
                         TREE_VOLUMES_MAX);
    return 0;
}

/* All replicas are new and read as zero, so all are in sync. */
int tree_volume_create(struct tree_change *change)
{
    const Director__VolumeCreate *create = change->command->volume_create;
    struct tree_volume made = {0};
    int status = create_check(change);
    if (status == 0)
        status = place(change, &made);
    if (status || change->dry)
        return status;
    made.id = change->tree->cluster.next_volume_id++;
    memcpy(made.uuid.bytes, create->uuid.data, sizeof(made.uuid.bytes));
    tree_copy(made.name, sizeof(made.name), create->name);
    made.size_bytes = create->size;
    made.block_bytes = create->block_size ? create->block_size : 512;
    made.epoch = made.isr_version = 1;
    made.owner = made.replicas[0].nodeid;
    made.isr = (1u << made.replica_count) - 1;
    made.created_ms = change->command->time_ms;
    struct tree_volume *volume = tree_allocate(sizeof(*volume));
    *volume = made;
    tree_volume_insert(change->tree, volume);
    change->result->volume = volume->id;
    change->result->version = volume->isr_version;
    return 0;
}

int tree_volume_delete(struct tree_change *change)
{
    struct tree *tree = change->tree;
    const char *name = change->command->volume_delete->name;
    struct tree_volume *volume = (struct tree_volume *)tree_volume_by_name(tree, name);
    if (!volume)
        return error_set(change->error, -ENOENT, "there is no volume '%.63s': list /volumes for those that are", name);
    uint32_t lun;
    const struct tree_target *target = tree_volume_export(tree, volume->id, &lun);
    if (target)
        return error_set(change->error, -EBUSY, "volume '%s' is exported as lun %u of target %.120s: delete that lun first",
                         volume->name, lun, target->iqn);
    if (change->dry)
        return 0;
    allocate_in_stores(tree, volume, false);
    change->result->volume = volume->id;
    size_t by_name = name_place(tree, volume->name), by_id = id_place(tree, volume->id);
    tree->volume_count--;
    memmove(&tree->volumes[by_name], &tree->volumes[by_name + 1], (tree->volume_count - by_name) * sizeof(*tree->volumes));
    memmove(&tree->volumes_by_id[by_id], &tree->volumes_by_id[by_id + 1],
            (tree->volume_count - by_id) * sizeof(*tree->volumes_by_id));
    free(volume);
    return 0;
}

/* ---- configuration -------------------------------------------------------------------------------------------- */

static int volume_get(struct tree_change *change, uint64_t id, struct tree_volume **ret_volume)
{
    *ret_volume = tree_volume_find(change->tree, id);
    if (!*ret_volume)
        return error_set(change->error, -ENOENT, "there is no volume with id %" PRIu64 ": it was deleted", id);
    return 0;
}

/* I10, and an owner always is a member of its ISR. */
static int isr_check(struct tree_change *change, const struct tree_volume *volume, uint16_t owner, uint32_t isr)
{
    int place_of_owner = tree_volume_replica_of(volume, owner);
    if (isr == 0)
        return error_set(change->error, -EINVAL, "the in-sync set of volume '%s' cannot be empty", volume->name);
    if (isr >> volume->replica_count)
        return error_set(change->error, -EINVAL, "the in-sync set %#x of volume '%s' names a replica beyond its %u", isr,
                         volume->name, volume->replica_count);
    if (place_of_owner < 0 || !(isr >> place_of_owner & 1))
        return error_set(change->error, -EINVAL, "node '%s' cannot own volume '%s' without being in its in-sync set %#x",
                         tree_node_label(change->tree, owner), volume->name, isr);
    return 0;
}

/* I1: the epoch names one owner. I4, I8: owner and ISR come from the committed ISR. */
int tree_volume_promote(struct tree_change *change)
{
    const Director__VolumePromote *promote = change->command->volume_promote;
    struct tree_volume *volume;
    int status = volume_get(change, promote->volume, &volume);
    if (status)
        return status;
    if (promote->expect_epoch != volume->epoch)
        return error_set(change->error, -ESTALE, "volume '%s' is at epoch %" PRIu64 ", not %" PRIu64 ": look again",
                         volume->name, volume->epoch, promote->expect_epoch);
    if (promote->owner > UINT16_MAX)
        return error_set(change->error, -EINVAL, "%u is no node id: volume '%s' keeps its owner", promote->owner, volume->name);
    status = isr_check(change, volume, (uint16_t)promote->owner, promote->isr);
    if (status)
        return status;
    if (promote->isr & ~volume->isr)
        return error_set(change->error, -ESTALE,
                         "the in-sync set of volume '%s' is %#x by now: a promotion to %#x would use a stale replica; look again",
                         volume->name, volume->isr, promote->isr);
    if (change->dry)
        return 0;
    volume->epoch++;
    volume->isr_version++;
    volume->owner = (uint16_t)promote->owner;
    volume->isr = promote->isr;
    change->result->volume = volume->id;
    change->result->version = volume->isr_version;
    return 0;
}

int tree_volume_isr(struct tree_change *change)
{
    const Director__VolumeIsr *body = change->command->volume_isr;
    struct tree_volume *volume;
    int status = volume_get(change, body->volume, &volume);
    if (status)
        return status;
    if (body->expect_epoch != volume->epoch || body->expect_version != volume->isr_version)
        return error_set(change->error, -ESTALE,
                         "volume '%s' is at epoch %" PRIu64 " version %" PRIu64 ", not %" PRIu64 " and %" PRIu64 ": look again",
                         volume->name, volume->epoch, volume->isr_version, body->expect_epoch, body->expect_version);
    status = isr_check(change, volume, volume->owner, body->isr);
    if (status || change->dry)
        return status;
    volume->isr_version++;
    volume->isr = body->isr;
    change->result->volume = volume->id;
    change->result->version = volume->isr_version;
    return 0;
}

int tree_volume_incarnation(struct tree_change *change)
{
    const Director__VolumeIncarnation *body = change->command->volume_incarnation;
    struct tree_volume *volume;
    int status = volume_get(change, body->volume, &volume);
    if (status)
        return status;
    if (body->replica >= volume->replica_count || body->incarnation == 0)
        return error_set(change->error, -EINVAL, "volume '%s' has replicas 0 to %u, and 0 is no incarnation", volume->name,
                         volume->replica_count - 1);
    if (volume->isr >> body->replica & 1)
        return error_set(change->error, -EBUSY, "replica %u of volume '%s' is in sync: it must leave the in-sync set before it "
                         "gets another disk", body->replica, volume->name);
    if (change->dry)
        return 0;
    if (volume->replicas[body->replica].incarnation != body->incarnation)
        volume->isr_version++; /* the mirrors take over no configuration without a newer version */
    volume->replicas[body->replica].incarnation = body->incarnation;
    change->result->volume = volume->id;
    change->result->version = volume->isr_version;
    return 0;
}
