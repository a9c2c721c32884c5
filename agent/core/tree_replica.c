/* The set of a volume's replicas, its size and its last resorts. Invariants I1, I10, I11, T4, T5.
 *
 * Retired incarnations (I11). What an incarnation was replaced by must never be confused with it again: a node that was away while
 * its replica was removed and added anew, or while the volume was forced to another, comes back with files whose incarnation the
 * others have long forgotten marks for. So every incarnation that goes is remembered, and is never accepted again. A node
 * that finds its files retired makes them anew; when the replica is held it leaves them alone until VolumeDiscard. */
#include "agent/core/tree_internal.h"

#include "director/base/size.h"

uint32_t tree_volume_mask(const struct tree_volume *volume)
{
    uint32_t mask = 0;
    for (unsigned i = 0; i < volume->replica_count; i++)
        mask |= volume->replicas[i].nodeid ? 1u << i : 0;
    return mask;
}

unsigned tree_volume_replicas(const struct tree_volume *volume)
{
    return (unsigned)__builtin_popcount(tree_volume_mask(volume));
}

bool tree_volume_retired(const struct tree_volume *volume, uint64_t incarnation)
{
    for (unsigned i = 0; i < volume->retired_count; i++)
        if (volume->retired[i] == incarnation)
            return true;
    return false;
}

bool tree_volume_incarnation_new(const struct tree_volume *volume, uint64_t incarnation)
{
    bool used = incarnation == 0 || tree_volume_retired(volume, incarnation);
    for (unsigned i = 0; i < volume->replica_count; i++)
        used = used || volume->replicas[i].incarnation == incarnation;
    return !used;
}

void tree_volume_set_isr(struct tree_change *change, struct tree_volume *volume, uint32_t isr)
{
    for (unsigned i = 0; i < volume->replica_count; i++) {
        if (isr >> i & 1)
            volume->replicas[i].left_ms = 0;
        else if (volume->isr >> i & 1 && volume->replicas[i].nodeid)
            volume->replicas[i].left_ms = change->command->time_ms;
    }
    volume->isr = isr;
}

void tree_volume_retire(struct tree_volume *volume, unsigned place)
{
    uint64_t incarnation = volume->replicas[place].incarnation;
    volume->grown &= ~(1u << place); /* what is made anew has said nothing yet */
    if (tree_volume_retired(volume, incarnation))
        return;
    if (volume->retired_count == TREE_RETIRED_MAX)
        memmove(volume->retired, volume->retired + 1, --volume->retired_count * sizeof(volume->retired[0]));
    volume->retired[volume->retired_count++] = incarnation;
}

int tree_volume_get(struct tree_change *change, uint64_t id, struct tree_volume **ret_volume)
{
    *ret_volume = tree_volume_find(change->tree, id);
    if (!*ret_volume)
        return error_set(change->error, -ENOENT, "there is no volume with id %" PRIu64 ": it was deleted", id);
    return 0;
}

int tree_volume_node(struct tree_change *change, const struct tree_volume *volume, uint32_t nodeid, unsigned *ret_place)
{
    int place = nodeid && nodeid <= UINT16_MAX ? tree_volume_replica_of(volume, (uint16_t)nodeid) : -1;
    if (place < 0)
        return error_set(change->error, -ENOENT, "node '%s' has no replica of volume '%s': list /volumes/%s/replicas",
                         nodeid <= UINT16_MAX ? tree_node_label(change->tree, (uint16_t)nodeid) : "?", volume->name, volume->name);
    *ret_place = (unsigned)place;
    return 0;
}

static uint64_t allocated_bytes(const struct tree_volume *volume)
{
    return MAX(volume->size_bytes, volume->size_wanted);
}

static void allocate_in(struct tree *tree, const struct tree_volume *volume, unsigned place, bool take)
{
    struct tree_store *store = tree_store_find_mutable(tree, volume->replicas[place].nodeid, volume->replicas[place].store);
    ASSERT(store); /* T2 */
    store->allocated_bytes += take ? allocated_bytes(volume) : -allocated_bytes(volume);
}

void tree_volume_allocate(struct tree *tree, const struct tree_volume *volume, bool take)
{
    for (unsigned i = 0; i < volume->replica_count; i++)
        if (volume->replicas[i].nodeid)
            allocate_in(tree, volume, i, take);
}

/* ---- add and remove ------------------------------------------------------------------------------------------------ */

int tree_replica_add_check(struct tree_change *change, uint64_t id, uint32_t nodeid, const char *store, uint64_t incarnation,
                           struct tree_addition *ret_addition)
{
    struct tree_volume *volume;
    int status = tree_volume_get(change, id, &volume);
    if (status)
        return status;
    if (tree_volume_replicas(volume) == TREE_REPLICAS_MAX)
        return error_set(change->error, -E2BIG, "volume '%s' has %u replicas, the most there can be: remove one first", volume->name,
                         TREE_REPLICAS_MAX);
    if (nodeid > UINT16_MAX)
        return error_set(change->error, -EINVAL, "%u is no node id: volume '%s' gets no replica there", nodeid, volume->name);
    if (nodeid && tree_volume_replica_of(volume, (uint16_t)nodeid) >= 0)
        return error_set(change->error, -EEXIST, "node '%s' has a replica of volume '%s' already: name another node",
                         tree_node_label(change->tree, (uint16_t)nodeid), volume->name);
    if (!tree_volume_incarnation_new(volume, incarnation))
        return error_set(change->error, -EINVAL, "incarnation %" PRIx64 " of a replica of volume '%s' is not new: make a random one",
                         incarnation, volume->name);
    struct tree_wish wish = {.volume = volume->name, .size = allocated_bytes(volume), .count = 1, .store = store, .nodes = &nodeid,
                             .node_count = nodeid ? 1 : 0, .beside = volume};
    *ret_addition = (struct tree_addition){.volume = volume, .incarnation = incarnation};
    return tree_place(change, &wish, &ret_addition->store);
}

void tree_replica_add_make(struct tree_change *change, const struct tree_addition *addition)
{
    struct tree_volume *volume = addition->volume;
    unsigned place = 0;
    while (place < volume->replica_count && volume->replicas[place].nodeid)
        place++;
    ASSERT(place < TREE_REPLICAS_MAX);
    struct tree_replica *replica = &volume->replicas[place];
    *replica = (struct tree_replica){.nodeid = addition->store->nodeid, .incarnation = addition->incarnation};
    tree_copy(replica->store, sizeof(replica->store), addition->store->name);
    volume->replica_count = MAX(volume->replica_count, place + 1);
    volume->grown &= ~(1u << place);
    volume->isr_version++;
    allocate_in(change->tree, volume, place, true);
    change->result->volume = volume->id;
    change->result->version = volume->isr_version;
    change->result->nodeid = replica->nodeid;
}

int tree_volume_replica_add(struct tree_change *change)
{
    const Director__VolumeReplicaAdd *add = change->command->volume_replica_add;
    struct tree_addition addition;
    int status = tree_replica_add_check(change, add->volume, add->nodeid, add->store, add->incarnation, &addition);
    if (status == 0 && !change->dry)
        tree_replica_add_make(change, &addition);
    return status;
}

int tree_volume_replica_remove(struct tree_change *change)
{
    const Director__VolumeReplicaRemove *remove = change->command->volume_replica_remove;
    struct tree_volume *volume;
    unsigned place;
    int status = tree_volume_get(change, remove->volume, &volume);
    if (status == 0)
        status = tree_volume_node(change, volume, remove->nodeid, &place);
    if (status)
        return status;
    const char *node = tree_node_label(change->tree, volume->replicas[place].nodeid);
    if (volume->isr == 1u << place) /* I10: it is the owner's, too */
        return error_set(change->error, -EBUSY, "the replica on node '%s' is the only one of volume '%s' that holds every acknowledged "
                         "write: wait until another is in sync", node, volume->name);
    if (volume->owner == volume->replicas[place].nodeid)
        return error_set(change->error, -EBUSY, "node '%s' serves volume '%s': move the volume to another node first", node,
                         volume->name);
    if (change->dry)
        return 0;
    allocate_in(change->tree, volume, place, false);
    tree_volume_retire(volume, place);
    volume->replicas[place] = (struct tree_replica){0};
    while (!volume->replicas[volume->replica_count - 1].nodeid)
        volume->replica_count--;
    tree_volume_set_isr(change, volume, volume->isr & ~(1u << place));
    volume->isr_version++;
    tree_volume_reach(change->tree, volume);
    change->result->volume = volume->id;
    change->result->version = volume->isr_version;
    return 0;
}

/* ---- grow ----------------------------------------------------------------------------------------------------------- */

/* T5. The epoch tells the I/O of the two sizes apart. */
void tree_volume_reach(struct tree *tree, struct tree_volume *volume)
{
    (void)tree;
    if (!volume->size_wanted || volume->isr & ~volume->grown)
        return;
    volume->size_bytes = volume->size_wanted; /* what is allocated stays: it was taken for the larger one */
    volume->size_wanted = 0;
    volume->grown = 0;
    volume->epoch++;
    volume->isr_version++;
}

/* Room for the new size in each store that holds a replica. */
static int grow_room(struct tree_change *change, const struct tree_volume *volume, uint64_t size)
{
    char needed[SIZE_TEXT_SIZE], there[SIZE_TEXT_SIZE];
    uint64_t more = size - volume->size_bytes;
    for (unsigned i = 0; i < volume->replica_count; i++) {
        const struct tree_replica *replica = &volume->replicas[i];
        if (!replica->nodeid)
            continue;
        const struct tree_store *store = tree_store_find(change->tree, replica->nodeid, replica->store);
        ASSERT(store); /* T2 */
        uint64_t room = store->capacity_bytes > store->allocated_bytes ? store->capacity_bytes - store->allocated_bytes : 0;
        if (room < more)
            return error_set(change->error, -ENOSPC, "volume '%.40s' needs %s more on each of its nodes, and %.40s/%.40s has %s: make room "
                             "there, or move the replica", volume->name, size_format_exact(more, needed),
                             tree_node_label(change->tree, replica->nodeid), replica->store,
                             size_format_exact(room >> 20 << 20, there));
    }
    return 0;
}

static int grow_check(struct tree_change *change, const struct tree_volume *volume, uint64_t size)
{
    char now[SIZE_TEXT_SIZE];
    if (size == volume->size_bytes)
        return 0; /* no more growing */
    int status = tree_check_size(volume->name, size, volume->block_bytes, change->error);
    if (status)
        return status;
    if (size < volume->size_bytes)
        return error_set(change->error, -EINVAL, "volume '%s' has %s and cannot be made smaller: what initiators wrote there would be lost",
                         volume->name, size_format_exact(volume->size_bytes, now));
    if (volume->size_wanted && size != volume->size_wanted)
        return error_set(change->error, -EBUSY, "volume '%s' is growing to %s already: wait for it, or cancel it with its present size",
                         volume->name, size_format_exact(volume->size_wanted, now));
    return volume->size_wanted ? 0 : grow_room(change, volume, size);
}

int tree_volume_grow(struct tree_change *change)
{
    const Director__VolumeGrow *grow = change->command->volume_grow;
    struct tree_volume *volume;
    int status = tree_volume_get(change, grow->volume, &volume);
    if (status == 0)
        status = grow_check(change, volume, grow->size);
    if (status || change->dry)
        return status;
    change->result->volume = volume->id;
    if (grow->size != volume->size_wanted && (grow->size != volume->size_bytes || volume->size_wanted)) {
        tree_volume_allocate(change->tree, volume, false);
        volume->size_wanted = grow->size == volume->size_bytes ? 0 : grow->size;
        volume->grown = 0;
        volume->isr_version++;
        tree_volume_allocate(change->tree, volume, true);
    }
    change->result->version = volume->isr_version;
    return 0;
}

int tree_volume_grown(struct tree_change *change)
{
    const Director__VolumeGrown *grown = change->command->volume_grown;
    struct tree_volume *volume;
    int status = tree_volume_get(change, grown->volume, &volume);
    if (status)
        return status;
    if (!volume->size_wanted || grown->size != volume->size_wanted)
        return error_set(change->error, -ESTALE, "volume '%s' is not growing to %" PRIu64 " bytes: look again", volume->name,
                         grown->size);
    bool look = grown->replica == TREE_REPLICAS_MAX && grown->incarnation == 0;
    if (!look && (grown->replica >= volume->replica_count || grown->incarnation == 0 ||
                  volume->replicas[grown->replica].incarnation != grown->incarnation))
        return error_set(change->error, -ESTALE, "replica %u of volume '%s' has another incarnation than that which grew: look again",
                         grown->replica, volume->name);
    if (change->dry)
        return 0;
    uint64_t epoch = volume->epoch;
    if (!look)
        volume->grown |= 1u << grown->replica;
    tree_volume_reach(change->tree, volume);
    change->result->grown = volume->epoch != epoch;
    change->result->volume = volume->id;
    change->result->version = volume->isr_version;
    return 0;
}

/* ---- last resorts --------------------------------------------------------------------------------------------------- */

static int resort_get(struct tree_change *change, uint64_t id, uint64_t expect_epoch, uint32_t nodeid, const char *reason,
                      struct tree_volume **ret_volume, unsigned *ret_place)
{
    int status = tree_volume_get(change, id, ret_volume);
    if (status)
        return status;
    if ((*ret_volume)->epoch != expect_epoch)
        return error_set(change->error, -ESTALE, "volume '%s' is at epoch %" PRIu64 ", not %" PRIu64 ": look again at what would be lost",
                         (*ret_volume)->name, (*ret_volume)->epoch, expect_epoch);
    if (!reason[0] || !tree_text_fits(reason, TREE_WORDS_SIZE))
        return error_set(change->error, -EINVAL, "a reason is missing: say in 1 to %u characters why volume '%s' needs this",
                         TREE_WORDS_SIZE - 1, (*ret_volume)->name);
    return tree_volume_node(change, *ret_volume, nodeid, ret_place);
}

/* I10: the operator's explicit word. Nothing that the others hold can come back by itself. */
int tree_volume_force(struct tree_change *change)
{
    const Director__VolumeForce *force = change->command->volume_force;
    struct tree_volume *volume;
    unsigned place;
    int status = resort_get(change, force->volume, force->expect_epoch, force->nodeid, force->reason, &volume, &place);
    if (status)
        return status;
    if (volume->isr >> place & 1)
        return error_set(change->error, -EINVAL, "the replica on node '%s' is in sync with volume '%s': there is nothing to force",
                         tree_node_label(change->tree, volume->replicas[place].nodeid), volume->name);
    if (volume->replicas[place].held)
        return error_set(change->error, -EINVAL, "the replica on node '%s' is held since volume '%s' was forced to another: nothing of the "
                         "cluster knows it any more", tree_node_label(change->tree, volume->replicas[place].nodeid), volume->name);
    for (unsigned i = 0; i < TREE_REPLICAS_MAX; i++) {
        bool good = i < force->n_incarnations && tree_volume_incarnation_new(volume, force->incarnations[i]);
        for (unsigned k = 0; k < i && good; k++)
            good = force->incarnations[k] != force->incarnations[i];
        if (!good)
            return error_set(change->error, -EINVAL, "volume '%s' needs %u new incarnations to be forced: make random ones",
                             volume->name, TREE_REPLICAS_MAX);
    }
    if (change->dry)
        return 0;
    for (unsigned i = 0; i < volume->replica_count; i++) {
        if (i == place || !volume->replicas[i].nodeid)
            continue;
        tree_volume_retire(volume, i);
        volume->replicas[i].incarnation = force->incarnations[i];
        volume->replicas[i].held = true;
    }
    volume->owner = volume->replicas[place].nodeid;
    tree_volume_set_isr(change, volume, 1u << place);
    volume->epoch++;
    volume->isr_version++;
    if (volume->size_wanted) { /* an operation of the past configuration */
        tree_volume_allocate(change->tree, volume, false);
        volume->size_wanted = 0;
        volume->grown = 0;
        tree_volume_allocate(change->tree, volume, true);
    }
    tree_tasks_cancel(change->tree, volume->id, change->command->time_ms, "the volume was forced to another replica");
    change->result->volume = volume->id;
    change->result->version = volume->isr_version;
    return 0;
}

int tree_volume_discard(struct tree_change *change)
{
    const Director__VolumeDiscard *discard = change->command->volume_discard;
    struct tree_volume *volume;
    unsigned place;
    int status = resort_get(change, discard->volume, discard->expect_epoch, discard->nodeid, discard->reason, &volume, &place);
    if (status)
        return status;
    const char *node = tree_node_label(change->tree, volume->replicas[place].nodeid);
    if (volume->isr == 1u << place)
        return error_set(change->error, -EBUSY, "the replica on node '%s' is the only one of volume '%s' that holds every acknowledged "
                         "write: it cannot be discarded", node, volume->name);
    if (volume->owner == volume->replicas[place].nodeid)
        return error_set(change->error, -EBUSY, "node '%s' serves volume '%s': move the volume to another node first", node,
                         volume->name);
    if (!tree_volume_incarnation_new(volume, discard->incarnation))
        return error_set(change->error, -EINVAL, "incarnation %" PRIx64 " of a replica of volume '%s' is not new: make a random one",
                         discard->incarnation, volume->name);
    if (change->dry)
        return 0;
    tree_volume_retire(volume, place);
    volume->replicas[place].incarnation = discard->incarnation;
    volume->replicas[place].held = false;
    tree_volume_set_isr(change, volume, volume->isr & ~(1u << place));
    volume->isr_version++;
    tree_volume_reach(change->tree, volume);
    change->result->volume = volume->id;
    change->result->version = volume->isr_version;
    return 0;
}
