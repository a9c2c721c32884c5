/* Memory, lookups, names, and the way from a command to the function that does it. */
#include "agent/core/tree_internal.h"

void *tree_allocate(size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    ASSERT(memory); /* half a tree is worse than a crash, which the cluster survives */
    return memory;
}

void tree_copy(char *to, size_t size, const char *from)
{
    size_t length = strnlen(from ? from : "", size - 1);
    memset(to, 0, size);
    memcpy(to, from ? from : "", length);
}

struct tree *tree_new(void)
{
    struct tree *tree = tree_allocate(sizeof(*tree));
    tree->cluster.next_volume_id = 1;
    return tree;
}

void tree_empty(struct tree *tree)
{
    for (size_t i = 0; i < tree->volume_count; i++)
        free(tree->volumes[i]);
    for (size_t i = 0; i < tree->target_count; i++)
        tree_target_free(tree->targets[i]);
    for (size_t i = 0; i < tree->reservation_count; i++)
        free((void *)tree->reservations[i].table);
    free(tree->reservations);
    free(tree->stores);
    free(tree->volumes);
    free(tree->volumes_by_id);
    free(tree->targets);
    memset(tree, 0, sizeof(*tree));
    tree->cluster.next_volume_id = 1;
}

void tree_free(struct tree *tree)
{
    if (!tree)
        return;
    tree_empty(tree);
    free(tree);
}

/* ---- names ---------------------------------------------------------------------------------------------------- */

static bool name_character(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (!first && (c == '.' || c == '_' || c == '-'));
}

int tree_check_name(const char *what, const char *name, struct error *error)
{
    size_t length = name ? strlen(name) : 0;
    if (length == 0)
        return error_set(error, -EINVAL, "a %s is missing: give 1 to %u characters a-z 0-9 . _ -", what, TREE_NAME_SIZE - 1);
    if (length >= TREE_NAME_SIZE)
        return error_set(error, -EINVAL, "the %s '%.20s...' has %zu characters: at most %u are allowed", what, name, length,
                         TREE_NAME_SIZE - 1);
    for (size_t i = 0; i < length; i++)
        if (!name_character(name[i], i == 0))
            return error_set(error, -EINVAL, "the %s '%s' is not valid: use a-z 0-9 . _ - and begin with a letter or digit",
                             what, name);
    return 0;
}

bool tree_text_fits(const char *text, size_t size)
{
    if (!text || strlen(text) >= size)
        return false;
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

/* ---- lookups -------------------------------------------------------------------------------------------------- */

const struct tree_cluster *tree_get_cluster(const struct tree *tree)
{
    return &tree->cluster;
}

size_t tree_node_count(const struct tree *tree)
{
    return tree->node_count;
}

const struct tree_node *tree_node_at(const struct tree *tree, size_t place)
{
    return place < tree->node_count ? &tree->nodes[place] : NULL;
}

struct tree_node *tree_node_find(struct tree *tree, uint64_t nodeid)
{
    for (size_t i = 0; i < tree->node_count; i++)
        if (tree->nodes[i].nodeid == nodeid)
            return &tree->nodes[i];
    return NULL;
}

const struct tree_node *tree_node_by_id(const struct tree *tree, uint16_t nodeid)
{
    return tree_node_find((struct tree *)tree, nodeid);
}

const struct tree_node *tree_node_by_name(const struct tree *tree, const char *name)
{
    for (size_t i = 0; i < tree->node_count; i++)
        if (strcmp(tree->nodes[i].name, name) == 0)
            return &tree->nodes[i];
    return NULL;
}

const struct tree_node *tree_node_by_uuid(const struct tree *tree, const struct uuid *uuid)
{
    for (size_t i = 0; i < tree->node_count; i++)
        if (uuid_equal(&tree->nodes[i].uuid, uuid))
            return &tree->nodes[i];
    return NULL;
}

const char *tree_node_label(const struct tree *tree, uint16_t nodeid)
{
    const struct tree_node *node = tree_node_by_id(tree, nodeid);
    return node ? node->name : "?";
}

size_t tree_store_count(const struct tree *tree)
{
    return tree->store_count;
}

const struct tree_store *tree_store_at(const struct tree *tree, size_t place)
{
    return place < tree->store_count ? &tree->stores[place] : NULL;
}

struct tree_store *tree_store_find_mutable(struct tree *tree, uint16_t nodeid, const char *name)
{
    for (size_t i = 0; i < tree->store_count; i++)
        if (tree->stores[i].nodeid == nodeid && strcmp(tree->stores[i].name, name) == 0)
            return &tree->stores[i];
    return NULL;
}

const struct tree_store *tree_store_find(const struct tree *tree, uint16_t nodeid, const char *name)
{
    return tree_store_find_mutable((struct tree *)tree, nodeid, name);
}

size_t tree_volume_count(const struct tree *tree)
{
    return tree->volume_count;
}

const struct tree_volume *tree_volume_at(const struct tree *tree, size_t place)
{
    return place < tree->volume_count ? tree->volumes[place] : NULL;
}

struct tree_volume *tree_volume_find(struct tree *tree, uint64_t id)
{
    size_t low = 0, high = tree->volume_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tree->volumes_by_id[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < tree->volume_count && tree->volumes_by_id[low]->id == id ? tree->volumes_by_id[low] : NULL;
}

const struct tree_volume *tree_volume_by_id(const struct tree *tree, uint64_t id)
{
    return tree_volume_find((struct tree *)tree, id);
}

const struct tree_volume *tree_volume_by_name(const struct tree *tree, const char *name)
{
    size_t low = 0, high = tree->volume_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(tree->volumes[middle]->name, name);
        if (order == 0)
            return tree->volumes[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

size_t tree_target_count(const struct tree *tree)
{
    return tree->target_count;
}

const struct tree_target *tree_target_at(const struct tree *tree, size_t place)
{
    return place < tree->target_count ? tree->targets[place] : NULL;
}

const struct tree_target *tree_target_by_iqn(const struct tree *tree, const char *iqn)
{
    size_t low = 0, high = tree->target_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(tree->targets[middle]->iqn, iqn);
        if (order == 0)
            return tree->targets[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const struct tree_target *tree_volume_export(const struct tree *tree, uint64_t volume, uint32_t *ret_lun)
{
    for (size_t i = 0; i < tree->target_count; i++) {
        for (unsigned j = 0; j < tree->targets[i]->lun_count; j++) {
            if (tree->targets[i]->luns[j].volume != volume)
                continue;
            if (ret_lun)
                *ret_lun = tree->targets[i]->luns[j].lun;
            return tree->targets[i];
        }
    }
    return NULL;
}

int tree_volume_replica_of(const struct tree_volume *volume, uint16_t nodeid)
{
    for (unsigned i = 0; i < volume->replica_count; i++)
        if (nodeid && volume->replicas[i].nodeid == nodeid) /* 0 is an empty place (T4) */
            return (int)i;
    return -1;
}

/* ---- applying ------------------------------------------------------------------------------------------------- */

static int change_make(struct tree_change *change)
{
    switch (change->command->body_case) {
    case DIRECTOR__COMMAND__BODY_CLUSTER_INIT:
        return tree_cluster_init(change);
    case DIRECTOR__COMMAND__BODY_CLUSTER_SET:
        return tree_cluster_set(change);
    case DIRECTOR__COMMAND__BODY_NODE_ADD:
        return tree_node_add(change);
    case DIRECTOR__COMMAND__BODY_NODE_UPDATE:
        return tree_node_update(change);
    case DIRECTOR__COMMAND__BODY_NODE_VOTER:
        return tree_node_voter(change);
    case DIRECTOR__COMMAND__BODY_NODE_REMOVE:
        return tree_node_remove(change);
    case DIRECTOR__COMMAND__BODY_STORE_PUT:
        return tree_store_put(change);
    case DIRECTOR__COMMAND__BODY_STORE_REMOVE:
        return tree_store_remove(change);
    case DIRECTOR__COMMAND__BODY_VOLUME_CREATE:
        return tree_volume_create(change);
    case DIRECTOR__COMMAND__BODY_VOLUME_DELETE:
        return tree_volume_delete(change);
    case DIRECTOR__COMMAND__BODY_VOLUME_PROMOTE:
        return tree_volume_promote(change);
    case DIRECTOR__COMMAND__BODY_VOLUME_ISR:
        return tree_volume_isr(change);
    case DIRECTOR__COMMAND__BODY_VOLUME_INCARNATION:
        return tree_volume_incarnation(change);
    case DIRECTOR__COMMAND__BODY_VOLUME_SET:
        return tree_volume_set(change);
    case DIRECTOR__COMMAND__BODY_VOLUME_REPLICA_ADD:
        return tree_volume_replica_add(change);
    case DIRECTOR__COMMAND__BODY_VOLUME_REPLICA_REMOVE:
        return tree_volume_replica_remove(change);
    case DIRECTOR__COMMAND__BODY_VOLUME_GROW:
        return tree_volume_grow(change);
    case DIRECTOR__COMMAND__BODY_VOLUME_GROWN:
        return tree_volume_grown(change);
    case DIRECTOR__COMMAND__BODY_VOLUME_FORCE:
        return tree_volume_force(change);
    case DIRECTOR__COMMAND__BODY_VOLUME_DISCARD:
        return tree_volume_discard(change);
    case DIRECTOR__COMMAND__BODY_TASK_CREATE:
        return tree_task_create(change);
    case DIRECTOR__COMMAND__BODY_TASK_PROGRESS:
        return tree_task_progress(change);
    case DIRECTOR__COMMAND__BODY_TASK_END:
        return tree_task_end(change);
    case DIRECTOR__COMMAND__BODY_VOLUME_RESERVE:
        return tree_volume_reserve(change);
    case DIRECTOR__COMMAND__BODY_TARGET_CREATE:
        return tree_target_create(change);
    case DIRECTOR__COMMAND__BODY_TARGET_DELETE:
        return tree_target_delete(change);
    case DIRECTOR__COMMAND__BODY_LUN_ADD:
        return tree_lun_add(change);
    case DIRECTOR__COMMAND__BODY_LUN_REMOVE:
        return tree_lun_remove(change);
    default:
        return error_set(change->error, -ENOTSUP,
                         "this version does not know command %d: bring all nodes to the same version",
                         (int)change->command->body_case);
    }
}

int tree_apply(struct tree *tree, const Director__Command *command, struct tree_result *ret_result, struct error *error)
{
    struct tree_result result = {0};
    struct tree_change change = {.tree = tree, .command = command, .result = &result, .error = error};
    enum tree_request_state before = tree_request_look(tree, command);
    int status;
    if (before == TREE_REQUEST_NEW) {
        struct tree_event event;
        bool told = tree_event_begin(tree, command, &event);
        status = change_make(&change);
        if (status == 0 && told)
            tree_event_end(tree, command, &result, &event);
        tree_request_note(tree, command, status != 0);
    } else {
        result.duplicate = true;
        status = before == TREE_REQUEST_APPLIED
                     ? 0
                     : error_set(error, -EALREADY, "this request came twice and was refused the first time: look at the "
                                                   "object and ask again");
    }
    if (ret_result)
        *ret_result = result;
    return status;
}

int tree_apply_bytes(struct tree *tree, const uint8_t *data, size_t size, struct tree_result *ret_result, struct error *error)
{
    Director__Command *command = director__command__unpack(NULL, size, data);
    if (!command)
        return error_set(error, -EBADMSG, "a command of %zu bytes is malformed: nothing was changed", size);
    int status = tree_apply(tree, command, ret_result, error);
    director__command__free_unpacked(command, NULL);
    return status;
}

int tree_check(struct tree *tree, const Director__Command *command, struct error *error)
{
    struct tree_result result = {0};
    struct tree_change change = {.tree = tree, .command = command, .result = &result, .error = error, .dry = true};
    return change_make(&change);
}
