/* Where new replicas go: pure over the committed stores and what is allocated in them. */
#include "agent/core/tree_internal.h"

#include "director/base/size.h"

static uint64_t room(const struct tree_store *store)
{
    return store->capacity_bytes > store->allocated_bytes ? store->capacity_bytes - store->allocated_bytes : 0;
}

static bool wanted(const struct tree_wish *wish, uint16_t nodeid)
{
    if (wish->beside && tree_volume_replica_of(wish->beside, nodeid) >= 0)
        return false;
    for (size_t i = 0; i < wish->node_count; i++)
        if (wish->nodes[i] == nodeid)
            return true;
    return wish->node_count == 0;
}

struct candidates {
    const struct tree_store *stores[TREE_NODES_MAX]; /* one per node: that with most room */
    size_t count;
};

/* One store per wanted node: the named one, or the one with most room; most room first, then lowest nodeid. */
static void candidates_find(const struct tree *tree, const struct tree_wish *wish, struct candidates *found)
{
    found->count = 0;
    for (size_t n = 0; n < tree->node_count; n++) {
        const struct tree_store *best = NULL;
        for (size_t i = 0; i < tree->store_count && wanted(wish, tree->nodes[n].nodeid); i++) {
            const struct tree_store *store = &tree->stores[i];
            if (store->nodeid != tree->nodes[n].nodeid || (*wish->store && strcmp(store->name, wish->store) != 0))
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
static int no_space(struct tree_change *change, const struct tree_wish *wish, const struct candidates *found)
{
    char list[128] = "", needed[SIZE_TEXT_SIZE], there[SIZE_TEXT_SIZE];
    for (size_t i = 0, used = 0; i < found->count && used < sizeof(list) - 1; i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%.20s/%.20s has %s", i ? ", " : "",
                                 tree_node_label(change->tree, found->stores[i]->nodeid), found->stores[i]->name,
                                 size_format_exact(room(found->stores[i]) >> 20 << 20, there));
    return error_set(change->error, -ENOSPC, "volume '%.40s' needs %s free on %u %s: %s", wish->volume,
                     size_format_exact(wish->size, needed), wish->count, wish->count == 1 ? "node" : "nodes", list);
}

int tree_place(struct tree_change *change, const struct tree_wish *wish, const struct tree_store **ret_stores)
{
    struct candidates found;
    for (size_t i = 0; i < wish->node_count; i++)
        if (!tree_node_find(change->tree, wish->nodes[i]))
            return error_set(change->error, -ENOENT, "there is no node with id %u for volume '%s'", wish->nodes[i], wish->volume);
    candidates_find(change->tree, wish, &found);
    if (found.count < wish->count && wish->beside)
        return error_set(change->error, -ENOSPC, "no node%s without a replica of volume '%s' has a store%s%.40s: add a node or a store",
                         wish->node_count ? " of those named" : "", wish->volume, *wish->store ? " named " : "", wish->store);
    if (found.count < wish->count)
        return error_set(change->error, -ENOSPC,
                         "volume '%s' needs %u nodes with a store%s%.40s: only %zu %s there; add nodes or ask for fewer replicas",
                         wish->volume, wish->count, *wish->store ? " named " : "", wish->store, found.count,
                         found.count == 1 ? "is" : "are");
    if (room(found.stores[wish->count - 1]) < wish->size)
        return no_space(change, wish, &found);
    memcpy(ret_stores, found.stores, wish->count * sizeof(*ret_stores));
    return 0;
}
