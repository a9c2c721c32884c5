/* The cluster, its nodes and their stores. */
#include "agent/core/tree_internal.h"

static bool uuid_from(ProtobufCBinaryData data, struct uuid *ret_uuid)
{
    if (data.len != sizeof(ret_uuid->bytes))
        return false;
    memcpy(ret_uuid->bytes, data.data, sizeof(ret_uuid->bytes));
    return !uuid_is_zero(ret_uuid);
}

int tree_cluster_init(struct tree_change *change)
{
    const Director__ClusterInit *init = change->command->cluster_init;
    struct tree_cluster *cluster = &change->tree->cluster;
    struct uuid uuid;
    if (!uuid_from(init->uuid, &uuid))
        return error_set(change->error, -EINVAL, "the cluster's uuid is missing: it must have 16 bytes");
    if (uuid_equal(&uuid, &cluster->uuid))
        return 0;
    if (!uuid_is_zero(&cluster->uuid))
        return error_set(change->error, -EEXIST, "the cluster '%s' exists already: a node belongs to one cluster", cluster->name);
    int status = tree_check_name("cluster name", init->name, change->error);
    if (status || change->dry)
        return status;
    cluster->uuid = uuid;
    tree_copy(cluster->name, sizeof(cluster->name), init->name);
    return 0;
}

const struct tree_timings *tree_profile_timings(Director__ClusterProfile profile)
{
    static const struct tree_timings timings[] = {
        [DIRECTOR__CLUSTER_PROFILE__PROFILE_FAST] = {"fast", 300, 1500},
        [DIRECTOR__CLUSTER_PROFILE__PROFILE_STEADY] = {"steady", 1000, 4000},
    };
    return (size_t)profile < ARRAY_SIZE(timings) ? &timings[profile] : NULL;
}

int tree_cluster_set(struct tree_change *change)
{
    struct tree_cluster *cluster = &change->tree->cluster;
    Director__ClusterProfile profile = change->command->cluster_set->profile;
    if (uuid_is_zero(&cluster->uuid))
        return error_set(change->error, -ENOENT, "there is no cluster yet whose timings could be set");
    if (!tree_profile_timings(profile))
        return error_set(change->error, -EINVAL, "%d is no profile of the cluster: fast and steady are", (int)profile);
    if (change->dry || profile == cluster->profile)
        return 0;
    cluster->profile = profile;
    cluster->node_list_version++; /* all nodes write their corosync.conf anew, then it is reloaded */
    return 0;
}

/* By another node than nodeid. */
static bool name_taken(const struct tree *tree, const char *name, uint16_t nodeid)
{
    for (size_t i = 0; i < tree->node_count; i++)
        if (tree->nodes[i].nodeid != nodeid && strcmp(tree->nodes[i].name, name) == 0)
            return true;
    return false;
}

/* Host names come as they are: made legal, and unique by the nodeid. */
static void node_name_make(const struct tree *tree, const char *wanted, uint16_t nodeid, char name[TREE_NAME_SIZE])
{
    char made[TREE_NAME_SIZE];
    size_t length = 0;
    for (const char *c = wanted ? wanted : ""; *c && length < sizeof(made) - 8; c++) {
        char lower = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
        bool plain = (lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9');
        if (plain || (length > 0 && (lower == '.' || lower == '_' || lower == '-')))
            made[length++] = lower;
        else if (length > 0)
            made[length++] = '-';
    }
    made[length] = '\0';
    if (length == 0)
        snprintf(made, sizeof(made), "node%u", nodeid);
    char unique[TREE_NAME_SIZE]; /* not name: that may be the node's own, in the tree */
    tree_copy(unique, sizeof(unique), made);
    for (unsigned try = nodeid; name_taken(tree, unique, nodeid); try++)
        snprintf(unique, sizeof(unique), "%.56s-%u", made, try % 100000);
    tree_copy(name, TREE_NAME_SIZE, unique);
}

static uint16_t lowest_free_nodeid(struct tree *tree)
{
    uint16_t nodeid = 1;
    while (tree_node_find(tree, nodeid))
        nodeid++;
    return nodeid;
}

static int node_info_check(struct tree_change *change, const Director__NodeInfo *info, struct uuid *ret_uuid)
{
    if (!info || !uuid_from(info->uuid, ret_uuid))
        return error_set(change->error, -EINVAL, "the node's uuid is missing: it must have 16 bytes");
    if (!tree_text_fits(info->address, TREE_ADDRESS_SIZE))
        return error_set(change->error, -EINVAL, "the address of node '%.40s' is too long or not printable", info->name);
    return 0;
}

/* An address belongs to the node that was there last: a machine that was set up anew takes it from its former self, whose
 * entry stays until it is removed. Without one a node is on no list of corosync's: two with the same would be one to it. */
static void address_take(struct tree *tree, const struct tree_node *owner)
{
    for (size_t i = 0; i < tree->node_count; i++)
        if (&tree->nodes[i] != owner && strcmp(tree->nodes[i].address, owner->address) == 0)
            tree->nodes[i].address[0] = '\0';
}

/* A learner; the first node of the cluster is its first voter, as the replicated log was begun with it. */
int tree_node_add(struct tree_change *change)
{
    struct tree *tree = change->tree;
    const Director__NodeInfo *info = change->command->node_add->node;
    struct uuid uuid;
    int status = node_info_check(change, info, &uuid);
    if (status)
        return status;
    const struct tree_node *same = tree_node_by_uuid(tree, &uuid);
    if (same) {
        change->result->nodeid = same->nodeid;
        return 0;
    }
    if (tree->node_count == TREE_NODES_MAX)
        return error_set(change->error, -E2BIG, "node '%.40s' cannot be added: a cluster has at most %u nodes", info->name,
                         TREE_NODES_MAX);
    if (info->nodeid > UINT16_MAX || (info->nodeid && tree_node_find(tree, info->nodeid)))
        return error_set(change->error, -EEXIST, "node id %u is taken or above 65535: ask for 0 to be given a free one",
                         info->nodeid);
    if (change->dry)
        return 0;
    struct tree_node node = {
        .uuid = uuid,
        .nodeid = info->nodeid ? (uint16_t)info->nodeid : lowest_free_nodeid(tree),
        .voter = tree->node_count == 0,
        .boot = info->boot,
        .version_max = info->version_max,
    };
    node_name_make(tree, info->name, node.nodeid, node.name);
    tree_copy(node.address, sizeof(node.address), info->address);
    if (tree_text_fits(info->software, sizeof(node.software)))
        tree_copy(node.software, sizeof(node.software), info->software);
    size_t place = tree->node_count++;
    for (; place > 0 && tree->nodes[place - 1].nodeid > node.nodeid; place--)
        tree->nodes[place] = tree->nodes[place - 1];
    tree->nodes[place] = node;
    address_take(tree, &tree->nodes[place]);
    tree->cluster.node_list_version++;
    change->result->nodeid = node.nodeid;
    return 0;
}

int tree_node_update(struct tree_change *change)
{
    struct tree *tree = change->tree;
    const Director__NodeInfo *info = change->command->node_update->node;
    struct uuid uuid;
    int status = node_info_check(change, info, &uuid);
    if (status)
        return status;
    struct tree_node *node = (struct tree_node *)tree_node_by_uuid(tree, &uuid);
    if (!node)
        return error_set(change->error, -ENOENT, "node '%.40s' is not a member: it must join first", info->name);
    if (change->dry)
        return 0;
    change->result->nodeid = node->nodeid;
    if (info->name && *info->name)
        node_name_make(tree, info->name, node->nodeid, node->name);
    if (info->address && *info->address && strcmp(info->address, node->address) != 0) {
        /* In two steps: corosync takes no other address for a node it has, so the lists must lack it in between. */
        if (node->address[0]) {
            node->address[0] = '\0';
        } else {
            tree_copy(node->address, sizeof(node->address), info->address);
            address_take(tree, node);
        }
        tree->cluster.node_list_version++;
    }
    if (info->boot)
        node->boot = info->boot;
    if (info->version_max)
        node->version_max = info->version_max;
    if (info->software && *info->software && tree_text_fits(info->software, sizeof(node->software)))
        tree_copy(node->software, sizeof(node->software), info->software);
    return 0;
}

static int node_get(struct tree_change *change, uint32_t nodeid, struct tree_node **ret_node)
{
    *ret_node = tree_node_find(change->tree, nodeid);
    if (!*ret_node)
        return error_set(change->error, -ENOENT, "there is no node with id %u: list /nodes for those that are", nodeid);
    return 0;
}

int tree_node_voter(struct tree_change *change)
{
    const Director__NodeVoter *body = change->command->node_voter;
    struct tree_node *node;
    int status = node_get(change, body->nodeid, &node);
    if (status)
        return status;
    unsigned voters = 0;
    for (size_t i = 0; i < change->tree->node_count; i++)
        voters += change->tree->nodes[i].voter;
    if (!body->voter && node->voter && voters == 1)
        return error_set(change->error, -EBUSY, "node '%s' is the last voter: make another node a voter first", node->name);
    if (!change->dry)
        node->voter = body->voter;
    change->result->nodeid = node->nodeid;
    return 0;
}

int tree_node_remove(struct tree_change *change)
{
    struct tree *tree = change->tree;
    struct tree_node *node;
    int status = node_get(change, change->command->node_remove->nodeid, &node);
    if (status)
        return status;
    for (size_t i = 0; i < tree->volume_count; i++)
        if (tree_volume_replica_of(tree->volumes[i], node->nodeid) >= 0)
            return error_set(change->error, -EBUSY, "node '%s' holds a replica of volume '%s': delete or move the volume first",
                             node->name, tree->volumes[i]->name);
    if (node->voter)
        return error_set(change->error, -EBUSY, "node '%s' is %s voter: %s first", node->name,
                         tree->node_count == 1 ? "the last" : "a",
                         tree->node_count == 1 ? "add another node" : "take its vote");
    if (change->dry)
        return 0;
    size_t kept = 0;
    for (size_t i = 0; i < tree->store_count; i++)
        if (tree->stores[i].nodeid != node->nodeid)
            tree->stores[kept++] = tree->stores[i];
    tree->store_count = kept;
    size_t place = (size_t)(node - tree->nodes);
    tree->node_count--;
    memmove(node, node + 1, (tree->node_count - place) * sizeof(*node));
    tree->cluster.node_list_version++;
    return 0;
}

/* ---- stores --------------------------------------------------------------------------------------------------- */

bool tree_store_insert(struct tree *tree, const struct tree_store *store)
{
    if (tree->store_count == TREE_STORES_MAX)
        return false;
    if (!tree->stores)
        tree->stores = tree_allocate(TREE_STORES_MAX * sizeof(*tree->stores));
    size_t place = tree->store_count++;
    for (; place > 0; place--) {
        const struct tree_store *before = &tree->stores[place - 1];
        if (before->nodeid < store->nodeid || (before->nodeid == store->nodeid && strcmp(before->name, store->name) < 0))
            break;
        tree->stores[place] = *before;
    }
    tree->stores[place] = *store;
    return true;
}

int tree_store_put(struct tree_change *change)
{
    const Director__StorePut *put = change->command->store_put;
    struct tree_node *node;
    int status = node_get(change, put->nodeid, &node);
    if (status == 0)
        status = tree_check_name("store name", put->name, change->error);
    if (status == 0)
        status = tree_check_name("plugin name", put->plugin, change->error);
    if (status)
        return status;
    if (!tree_text_fits(put->path, TREE_PATH_SIZE))
        return error_set(change->error, -EINVAL, "the path of store '%s' is not printable or has more than %u characters",
                         put->name, TREE_PATH_SIZE - 1);
    struct tree_store *store = tree_store_find_mutable(change->tree, node->nodeid, put->name);
    if (store && store->allocated_bytes &&
        (strcmp(store->plugin, put->plugin) != 0 || strcmp(store->path, put->path) != 0))
        return error_set(change->error, -EBUSY, "store '%s' of node '%s' holds replicas: its plugin and path cannot change",
                         put->name, node->name);
    if (!store && change->tree->store_count == TREE_STORES_MAX)
        return error_set(change->error, -E2BIG, "store '%s' cannot be added: a cluster has at most %u stores", put->name,
                         TREE_STORES_MAX);
    if (change->dry)
        return 0;
    struct tree_store made = {
        .nodeid = node->nodeid,
        .capacity_bytes = put->capacity,
        .allocated_bytes = store ? store->allocated_bytes : 0,
    };
    tree_copy(made.name, sizeof(made.name), put->name);
    tree_copy(made.plugin, sizeof(made.plugin), put->plugin);
    tree_copy(made.path, sizeof(made.path), put->path);
    if (store)
        *store = made;
    else
        ASSERT(tree_store_insert(change->tree, &made));
    return 0;
}

int tree_store_remove(struct tree_change *change)
{
    struct tree *tree = change->tree;
    const Director__StoreRemove *body = change->command->store_remove;
    struct tree_node *node;
    int status = node_get(change, body->nodeid, &node);
    if (status)
        return status;
    struct tree_store *store = tree_store_find_mutable(tree, node->nodeid, body->name);
    if (!store)
        return error_set(change->error, -ENOENT, "node '%s' has no store '%.63s'", node->name, body->name);
    for (size_t i = 0; i < tree->volume_count; i++) {
        int replica = tree_volume_replica_of(tree->volumes[i], node->nodeid);
        if (replica >= 0 && strcmp(tree->volumes[i]->replicas[replica].store, store->name) == 0)
            return error_set(change->error, -EBUSY, "store '%s' of node '%s' holds a replica of volume '%s': delete the volume "
                             "first", store->name, node->name, tree->volumes[i]->name);
    }
    if (change->dry)
        return 0;
    size_t place = (size_t)(store - tree->stores);
    tree->store_count--;
    memmove(store, store + 1, (tree->store_count - place) * sizeof(*store));
    return 0;
}
