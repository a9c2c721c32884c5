/* The SCSI reservations of volumes (I14). A table stands from its first change to the end of its volume, also when it is empty: its
 * version only grows. */
#include "agent/core/tree_internal.h"

static size_t place_of(const struct tree *tree, uint64_t volume)
{
    size_t low = 0, high = tree->reservation_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tree->reservations[middle].volume < volume)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct tree_reservation *find(const struct tree *tree, uint64_t volume)
{
    size_t place = place_of(tree, volume);
    return place < tree->reservation_count && tree->reservations[place].volume == volume ? &tree->reservations[place] : NULL;
}

const struct tree_reservation *tree_volume_reservation(const struct tree *tree, uint64_t volume)
{
    return find(tree, volume);
}

void tree_reservation_put(struct tree *tree, uint64_t volume, uint64_t version, const uint8_t *table, size_t table_bytes)
{
    struct tree_reservation *to = find(tree, volume);
    if (!to) {
        if (tree->reservation_count == tree->reservation_capacity) {
            tree->reservation_capacity = tree->reservation_capacity ? tree->reservation_capacity * 2 : 16;
            tree->reservations = realloc(tree->reservations, tree->reservation_capacity * sizeof(*tree->reservations));
            ASSERT(tree->reservations);
        }
        size_t place = place_of(tree, volume);
        to = &tree->reservations[place];
        memmove(to + 1, to, (tree->reservation_count++ - place) * sizeof(*to));
        *to = (struct tree_reservation){.volume = volume};
    }
    uint8_t *copy = tree_allocate(table_bytes + 1);
    if (table_bytes)
        memcpy(copy, table, table_bytes);
    free((void *)to->table);
    to->table = copy;
    to->table_bytes = (uint32_t)table_bytes;
    to->version = version;
}

void tree_reservation_drop(struct tree *tree, uint64_t volume)
{
    struct tree_reservation *gone = find(tree, volume);
    if (!gone)
        return;
    free((void *)gone->table);
    memmove(gone, gone + 1, (size_t)(tree->reservations + --tree->reservation_count - gone) * sizeof(*gone));
}

int tree_volume_reserve(struct tree_change *change)
{
    const Director__VolumeReserve *reserve = change->command->volume_reserve;
    const struct tree_volume *volume = tree_volume_find(change->tree, reserve->volume);
    if (!volume)
        return error_set(change->error, -ENOENT, "there is no volume with id %" PRIu64 ": it was deleted", reserve->volume);
    const struct tree_reservation *now = find(change->tree, volume->id);
    uint64_t version = now ? now->version : 0;
    if (reserve->expect_epoch != volume->epoch || reserve->expect_version != version)
        return error_set(change->error, -ESTALE,
                         "volume '%s' is at epoch %" PRIu64 " with reservations %" PRIu64 ", not %" PRIu64 " and %" PRIu64 ": look again",
                         volume->name, volume->epoch, version, reserve->expect_epoch, reserve->expect_version);
    if (change->command->origin != volume->owner)
        return error_set(change->error, -ESTALE, "node %u does not own volume '%s': its owner keeps the reservations",
                         change->command->origin, volume->name);
    if (reserve->table.len > TREE_RESERVATION_BYTES)
        return error_set(change->error, -E2BIG, "the reservations of volume '%s' take %zu bytes: at most %u are possible",
                         volume->name, reserve->table.len, TREE_RESERVATION_BYTES);
    if (change->dry)
        return 0;
    tree_reservation_put(change->tree, volume->id, version + 1, reserve->table.data, reserve->table.len);
    change->result->volume = volume->id;
    change->result->version = version + 1;
    return 0;
}
