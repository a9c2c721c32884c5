/* Volumes: placement, and the configuration that replication obeys: epoch, owner, ISR. Invariants I1, I4, I8, I10, I11. */
#include "agent/core/tree_internal.h"

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

/* ---- policy --------------------------------------------------------------------------------------------------- */

int tree_policy_check(const char *name, const Director__VolumePolicy *policy, struct error *error)
{
    if (!policy)
        return 0;
    if (policy->slow_ms && (policy->slow_ms < TREE_SLOW_MIN_MS || policy->slow_ms > TREE_SLOW_MAX_MS))
        return error_set(error, -EINVAL, "volume '%s' cannot call a replica slow after %u ms: give %u to %u, or 0 for the default",
                         name, policy->slow_ms, TREE_SLOW_MIN_MS, TREE_SLOW_MAX_MS);
    if (policy->in_sync_min > TREE_REPLICAS_MAX)
        return error_set(error, -EINVAL, "volume '%s' cannot keep %u replicas in sync: give 1 to %u", name, policy->in_sync_min,
                         TREE_REPLICAS_MAX);
    if ((policy->resync_floor && (policy->resync_floor < TREE_RESYNC_MIN || policy->resync_floor > TREE_RESYNC_MAX)) ||
        (policy->resync_cap && (policy->resync_cap < TREE_RESYNC_MIN || policy->resync_cap > TREE_RESYNC_MAX)))
        return error_set(error, -EINVAL, "volume '%s' cannot be resynced at that speed: give 64 KiB to 1 TiB a second, or 0 for the "
                         "default", name);
    if (policy->resync_floor && policy->resync_cap && policy->resync_floor > policy->resync_cap)
        return error_set(error, -EINVAL, "resync of volume '%s' cannot get at least %" PRIu64 " and at most %" PRIu64
                         " bytes a second: raise the cap or lower the floor", name, policy->resync_floor, policy->resync_cap);
    return 0;
}

void tree_policy_take(struct tree_policy *policy, const Director__VolumePolicy *from)
{
    *policy = (struct tree_policy){0};
    if (!from)
        return;
    policy->write_back = from->write_back;
    policy->verified_reads = from->verified_reads;
    policy->checksum = from->checksum;
    policy->slow_ms = from->slow_ms;
    policy->in_sync_min = (uint8_t)from->in_sync_min;
    policy->resync_floor = from->resync_floor;
    policy->resync_cap = from->resync_cap;
}

static Director__VolumePolicy policy_message(const struct tree_policy *policy)
{
    Director__VolumePolicy message = DIRECTOR__VOLUME_POLICY__INIT;
    message.write_back = policy->write_back;
    message.verified_reads = policy->verified_reads;
    message.checksum = policy->checksum;
    message.slow_ms = policy->slow_ms;
    message.in_sync_min = policy->in_sync_min;
    message.resync_floor = policy->resync_floor;
    message.resync_cap = policy->resync_cap;
    return message;
}

int tree_volume_set(struct tree_change *change)
{
    const Director__VolumeSet *set = change->command->volume_set;
    const Director__VolumePolicy *wanted = set->policy;
    struct tree_volume *volume;
    int status = tree_volume_get(change, set->volume, &volume);
    if (status)
        return status;
    uint32_t known = DIRECTOR__VOLUME_POLICY_FIELD__POLICY_WRITE_BACK | DIRECTOR__VOLUME_POLICY_FIELD__POLICY_VERIFIED_READS |
                     DIRECTOR__VOLUME_POLICY_FIELD__POLICY_SLOW | DIRECTOR__VOLUME_POLICY_FIELD__POLICY_IN_SYNC_MIN |
                     DIRECTOR__VOLUME_POLICY_FIELD__POLICY_RESYNC_FLOOR | DIRECTOR__VOLUME_POLICY_FIELD__POLICY_RESYNC_CAP;
    if (!wanted || !set->fields || set->fields & ~known)
        return error_set(change->error, -EINVAL, "nothing that this version knows was to be set for volume '%s'", volume->name);
    Director__VolumePolicy next = policy_message(&volume->policy);
    if (set->fields & DIRECTOR__VOLUME_POLICY_FIELD__POLICY_WRITE_BACK)
        next.write_back = wanted->write_back;
    if (set->fields & DIRECTOR__VOLUME_POLICY_FIELD__POLICY_VERIFIED_READS)
        next.verified_reads = wanted->verified_reads;
    if (set->fields & DIRECTOR__VOLUME_POLICY_FIELD__POLICY_SLOW)
        next.slow_ms = wanted->slow_ms;
    if (set->fields & DIRECTOR__VOLUME_POLICY_FIELD__POLICY_IN_SYNC_MIN)
        next.in_sync_min = wanted->in_sync_min;
    if (set->fields & DIRECTOR__VOLUME_POLICY_FIELD__POLICY_RESYNC_FLOOR)
        next.resync_floor = wanted->resync_floor;
    if (set->fields & DIRECTOR__VOLUME_POLICY_FIELD__POLICY_RESYNC_CAP)
        next.resync_cap = wanted->resync_cap;
    status = tree_policy_check(volume->name, &next, change->error);
    if (status || change->dry)
        return status;
    tree_policy_take(&volume->policy, &next);
    volume->isr_version++; /* the mirrors take over no configuration without a newer version */
    change->result->volume = volume->id;
    change->result->version = volume->isr_version;
    return 0;
}

/* ---- create and delete ---------------------------------------------------------------------------------------- */

static unsigned owned_by(const struct tree *tree, uint16_t nodeid)
{
    unsigned count = 0;
    for (size_t i = 0; i < tree->volume_count; i++)
        count += tree->volumes[i]->owner == nodeid;
    return count;
}

static int place(struct tree_change *change, struct tree_volume *volume)
{
    const Director__VolumeCreate *create = change->command->volume_create;
    const struct tree_store *stores[TREE_REPLICAS_MAX];
    struct tree_wish wish = {.volume = create->name, .size = create->size, .count = create->replicas, .store = create->store,
                             .nodes = create->nodes, .node_count = create->n_nodes};
    int status = tree_place(change, &wish, stores);
    if (status)
        return status;
    volume->replica_count = create->replicas;
    unsigned best = 0;
    for (unsigned i = 0; i < create->replicas; i++) {
        volume->replicas[i].nodeid = stores[i]->nodeid;
        volume->replicas[i].incarnation = create->incarnations[i];
        tree_copy(volume->replicas[i].store, TREE_NAME_SIZE, stores[i]->name);
        if (owned_by(change->tree, volume->replicas[i].nodeid) < owned_by(change->tree, volume->replicas[best].nodeid))
            best = i;
    }
    /* The owner is the first placed replica: put the node that owns fewest there. */
    struct tree_replica first = volume->replicas[best];
    volume->replicas[best] = volume->replicas[0];
    volume->replicas[0] = first;
    return 0;
}

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
    tree_volume_allocate(tree, volume, true);
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
    status = tree_policy_check(create->name, create->policy, change->error);
    if (status)
        return status;
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
    tree_policy_take(&made.policy, create->policy);
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
    tree_volume_allocate(tree, volume, false);
    tree_tasks_cancel(tree, volume->id, change->command->time_ms, "the volume was deleted");
    change->result->volume = volume->id;
    tree_reservation_drop(tree, volume->id);
    size_t by_name = name_place(tree, volume->name), by_id = id_place(tree, volume->id);
    tree->volume_count--;
    memmove(&tree->volumes[by_name], &tree->volumes[by_name + 1], (tree->volume_count - by_name) * sizeof(*tree->volumes));
    memmove(&tree->volumes_by_id[by_id], &tree->volumes_by_id[by_id + 1],
            (tree->volume_count - by_id) * sizeof(*tree->volumes_by_id));
    free(volume);
    return 0;
}

/* ---- configuration -------------------------------------------------------------------------------------------- */

/* I10, and an owner always is a member of its ISR. */
static int isr_check(struct tree_change *change, const struct tree_volume *volume, uint16_t owner, uint32_t isr)
{
    int place_of_owner = tree_volume_replica_of(volume, owner);
    if (isr == 0)
        return error_set(change->error, -EINVAL, "the in-sync set of volume '%s' cannot be empty", volume->name);
    if (isr & ~tree_volume_mask(volume))
        return error_set(change->error, -EINVAL, "the in-sync set %#x of volume '%s' names a replica that it has not: %#x are there",
                         isr, volume->name, tree_volume_mask(volume));
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
    int status = tree_volume_get(change, promote->volume, &volume);
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
    tree_volume_set_isr(change, volume, promote->isr);
    change->result->volume = volume->id;
    change->result->version = volume->isr_version;
    return 0;
}

int tree_volume_isr(struct tree_change *change)
{
    const Director__VolumeIsr *body = change->command->volume_isr;
    struct tree_volume *volume;
    int status = tree_volume_get(change, body->volume, &volume);
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
    tree_volume_set_isr(change, volume, body->isr);
    change->result->volume = volume->id;
    change->result->version = volume->isr_version;
    return 0;
}

int tree_volume_incarnation(struct tree_change *change)
{
    const Director__VolumeIncarnation *body = change->command->volume_incarnation;
    struct tree_volume *volume;
    int status = tree_volume_get(change, body->volume, &volume);
    if (status)
        return status;
    if (body->replica >= volume->replica_count || !volume->replicas[body->replica].nodeid || body->incarnation == 0)
        return error_set(change->error, -EINVAL, "volume '%s' has no replica %u, or 0 was given, which is no incarnation", volume->name,
                         body->replica);
    struct tree_replica *replica = &volume->replicas[body->replica];
    if (volume->isr >> body->replica & 1)
        return error_set(change->error, -EBUSY, "replica %u of volume '%s' is in sync: it must leave the in-sync set before it "
                         "gets another disk", body->replica, volume->name);
    if (body->expect && body->incarnation != replica->incarnation && body->expect != replica->incarnation)
        return error_set(change->error, -ESTALE, "replica %u of volume '%s' has another incarnation by now: look again", body->replica,
                         volume->name);
    if (body->incarnation != replica->incarnation && !tree_volume_incarnation_new(volume, body->incarnation))
        return error_set(change->error, -ESTALE, "incarnation %" PRIx64 " of volume '%s' was used before: files of that time do not take "
                         "part any more, the replica must be made anew", body->incarnation, volume->name);
    if (change->dry)
        return 0;
    if (replica->incarnation != body->incarnation) {
        tree_volume_retire(volume, body->replica);
        replica->incarnation = body->incarnation;
        replica->held = false; /* another disk: nothing of before is on it */
        volume->isr_version++; /* the mirrors take over no configuration without a newer version */
    }
    change->result->volume = volume->id;
    change->result->version = volume->isr_version;
    return 0;
}
