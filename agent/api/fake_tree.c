/* A stand-in for agent/core/tree.c in the tests of the view and of the shell: the same contract for the few commands they
 * use, without its invariants, so that these tests judge the view and nothing else. */
#include "agent/core/tree.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

enum { MOST = 64 };

struct tree {
    struct tree_cluster cluster;
    struct tree_node nodes[MOST];
    struct tree_store stores[MOST];
    struct tree_volume volumes[MOST];
    struct tree_target targets[MOST];
    struct tree_lun luns[MOST][8];
    size_t node_count, store_count, volume_count, target_count;
};

struct tree *tree_new(void)
{
    struct tree *tree = calloc(1, sizeof(*tree));
    ASSERT(tree);
    for (size_t i = 0; i < MOST; i++)
        tree->targets[i].luns = tree->luns[i];
    return tree;
}

void tree_free(struct tree *tree)
{
    free(tree);
}

static void copy(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from);
}

static int add_volume(struct tree *tree, const Director__VolumeCreate *create, uint64_t now, struct error *error)
{
    struct tree_volume *volume = &tree->volumes[tree->volume_count];
    if (create->size > 1ull << 40)
        return error_set(error, -ENOSPC, "no room for %s", create->name);
    memset(volume, 0, sizeof(*volume));
    volume->id = ++tree->cluster.next_volume_id;
    copy(volume->name, sizeof(volume->name), create->name);
    memcpy(volume->uuid.bytes, create->uuid.data, sizeof(volume->uuid.bytes));
    volume->size_bytes = create->size;
    volume->block_bytes = create->block_size;
    volume->replica_count = create->replicas;
    volume->epoch = volume->isr_version = 1;
    volume->created_ms = now;
    for (unsigned i = 0; i < create->replicas; i++) {
        volume->replicas[i].nodeid = (uint16_t)(create->n_nodes ? create->nodes[i] : i + 1);
        copy(volume->replicas[i].store, TREE_NAME_SIZE, create->store[0] ? create->store : "default");
        volume->replicas[i].incarnation = create->incarnations[i];
        volume->isr |= 1u << i;
    }
    volume->owner = volume->replicas[0].nodeid;
    tree->volume_count++;
    return 0;
}

#define REMOVE(array, count, place) \
    (memmove(&(array)[place], &(array)[(place) + 1], (--(count) - (place)) * sizeof((array)[0])))

static void lun_change(struct tree *tree, const char *iqn, uint32_t number, const char *volume)
{
    struct tree_target *target = (struct tree_target *)tree_target_by_iqn(tree, iqn);
    if (volume) {
        target->luns[target->lun_count++] = (struct tree_lun){number, tree_volume_by_name(tree, volume)->id};
        return;
    }
    for (unsigned i = 0; i < target->lun_count; i++)
        if (target->luns[i].lun == number) {
            REMOVE(target->luns, target->lun_count, i);
            return;
        }
}

int tree_apply(struct tree *tree, const Director__Command *command, struct tree_result *ret_result, struct error *error)
{
    struct tree_volume *volume;
    (void)ret_result;
    switch (command->body_case) {
    case DIRECTOR__COMMAND__BODY_CLUSTER_INIT:
        copy(tree->cluster.name, TREE_NAME_SIZE, command->cluster_init->name);
        memcpy(tree->cluster.uuid.bytes, command->cluster_init->uuid.data, 16);
        return 0;
    case DIRECTOR__COMMAND__BODY_NODE_ADD: {
        const Director__NodeInfo *info = command->node_add->node;
        struct tree_node *node = &tree->nodes[tree->node_count++];
        node->nodeid = (uint16_t)tree->node_count;
        node->voter = info->voter;
        copy(node->name, sizeof(node->name), info->name);
        copy(node->address, sizeof(node->address), info->address);
        copy(node->software, sizeof(node->software), info->software);
        node->uuid.bytes[15] = (uint8_t)node->nodeid;
        return 0;
    }
    case DIRECTOR__COMMAND__BODY_STORE_PUT: {
        struct tree_store *store = &tree->stores[tree->store_count++];
        store->nodeid = (uint16_t)command->store_put->nodeid;
        store->capacity_bytes = command->store_put->capacity;
        copy(store->name, sizeof(store->name), command->store_put->name);
        copy(store->plugin, sizeof(store->plugin), command->store_put->plugin);
        copy(store->path, sizeof(store->path), command->store_put->path);
        return 0;
    }
    case DIRECTOR__COMMAND__BODY_VOLUME_CREATE:
        return add_volume(tree, command->volume_create, command->time_ms, error);
    case DIRECTOR__COMMAND__BODY_VOLUME_DELETE:
        volume = (struct tree_volume *)tree_volume_by_name(tree, command->volume_delete->name);
        REMOVE(tree->volumes, tree->volume_count, (size_t)(volume - tree->volumes));
        return 0;
    case DIRECTOR__COMMAND__BODY_VOLUME_PROMOTE:
        volume = (struct tree_volume *)tree_volume_by_id(tree, command->volume_promote->volume);
        volume->owner = (uint16_t)command->volume_promote->owner;
        volume->isr = command->volume_promote->isr;
        volume->epoch++;
        return 0;
    case DIRECTOR__COMMAND__BODY_VOLUME_ISR:
        volume = (struct tree_volume *)tree_volume_by_id(tree, command->volume_isr->volume);
        volume->isr = command->volume_isr->isr;
        return 0;
    case DIRECTOR__COMMAND__BODY_TARGET_CREATE:
        copy(tree->targets[tree->target_count++].iqn, TREE_IQN_SIZE, command->target_create->iqn);
        return 0;
    case DIRECTOR__COMMAND__BODY_TARGET_DELETE:
        tree->target_count--; /* the tests delete the last only */
        tree->targets[tree->target_count].iqn[0] = '\0';
        return 0;
    case DIRECTOR__COMMAND__BODY_LUN_ADD:
        lun_change(tree, command->lun_add->iqn, command->lun_add->lun, command->lun_add->volume);
        return 0;
    case DIRECTOR__COMMAND__BODY_LUN_REMOVE:
        lun_change(tree, command->lun_remove->iqn, command->lun_remove->lun, NULL);
        return 0;
    default:
        return error_set(error, -ENOTSUP, "the stand-in does not know this command");
    }
}

const struct tree_cluster *tree_get_cluster(const struct tree *tree)
{
    return &tree->cluster;
}

#define FIND(array, count, condition)          \
    for (size_t i = 0; i < (count); i++) {     \
        __typeof__(&(array)[0]) it = &(array)[i]; \
        if (condition)                         \
            return it;                         \
    }                                          \
    return NULL

size_t tree_node_count(const struct tree *tree)
{
    return tree->node_count;
}

const struct tree_node *tree_node_at(const struct tree *tree, size_t place)
{
    return place < tree->node_count ? &tree->nodes[place] : NULL;
}

const struct tree_node *tree_node_by_id(const struct tree *tree, uint16_t nodeid)
{
    FIND(tree->nodes, tree->node_count, it->nodeid == nodeid);
}

const struct tree_node *tree_node_by_name(const struct tree *tree, const char *name)
{
    FIND(tree->nodes, tree->node_count, strcmp(it->name, name) == 0);
}

const struct tree_node *tree_node_by_uuid(const struct tree *tree, const struct uuid *uuid)
{
    FIND(tree->nodes, tree->node_count, uuid_equal(&it->uuid, uuid));
}

size_t tree_store_count(const struct tree *tree)
{
    return tree->store_count;
}

const struct tree_store *tree_store_at(const struct tree *tree, size_t place)
{
    return place < tree->store_count ? &tree->stores[place] : NULL;
}

const struct tree_store *tree_store_find(const struct tree *tree, uint16_t nodeid, const char *name)
{
    FIND(tree->stores, tree->store_count, it->nodeid == nodeid && strcmp(it->name, name) == 0);
}

size_t tree_volume_count(const struct tree *tree)
{
    return tree->volume_count;
}

const struct tree_volume *tree_volume_at(const struct tree *tree, size_t place)
{
    return place < tree->volume_count ? &tree->volumes[place] : NULL;
}

const struct tree_volume *tree_volume_by_id(const struct tree *tree, uint64_t id)
{
    FIND(tree->volumes, tree->volume_count, it->id == id);
}

const struct tree_volume *tree_volume_by_name(const struct tree *tree, const char *name)
{
    FIND(tree->volumes, tree->volume_count, strcmp(it->name, name) == 0);
}

size_t tree_target_count(const struct tree *tree)
{
    return tree->target_count;
}

const struct tree_target *tree_target_at(const struct tree *tree, size_t place)
{
    return place < tree->target_count ? &tree->targets[place] : NULL;
}

const struct tree_target *tree_target_by_iqn(const struct tree *tree, const char *iqn)
{
    FIND(tree->targets, tree->target_count, strcmp(it->iqn, iqn) == 0);
}

const struct tree_target *tree_volume_export(const struct tree *tree, uint64_t volume, uint32_t *ret_lun)
{
    for (size_t i = 0; i < tree->target_count; i++)
        for (unsigned k = 0; k < tree->targets[i].lun_count; k++)
            if (tree->luns[i][k].volume == volume) {
                if (ret_lun)
                    *ret_lun = tree->luns[i][k].lun;
                return &tree->targets[i];
            }
    return NULL;
}

int tree_volume_replica_of(const struct tree_volume *volume, uint16_t nodeid)
{
    for (unsigned i = 0; i < volume->replica_count; i++)
        if (volume->replicas[i].nodeid == nodeid)
            return (int)i;
    return -1;
}

int tree_check_name(const char *what, const char *name, struct error *error)
{
    bool good = islower((unsigned char)name[0]) || isdigit((unsigned char)name[0]);
    for (const char *p = name; *p && good; p++)
        good = islower((unsigned char)*p) || isdigit((unsigned char)*p) || strchr("._-", *p);
    return good && strlen(name) < TREE_NAME_SIZE ? 0 : error_set(error, -EINVAL, "bad %s \"%s\"", what, name);
}
