/* CREATE of volumes, stores, targets and luns. */
#include "agent/api/view_plan_internal.h"

#include "director/base/size.h"
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* nodes=node1,node2 as node ids. The array is the command's. */
static int parse_nodes(struct planning *planning, const char *text, uint32_t **ret_nodes, size_t *ret_count)
{
    uint32_t *nodes = plan_need(TREE_REPLICAS_MAX * sizeof(*nodes));
    size_t count = 0;
    for (const char *p = text; *p;) {
        char name[TREE_NAME_SIZE];
        size_t length = strcspn(p, ", ");
        if (length == 0) {
            p++;
            continue;
        }
        (void)snprintf(name, sizeof(name), "%.*s", (int)MIN(length, sizeof(name) - 1), p);
        p += length;
        const struct tree_node *node = tree_node_by_name(planning->view->tree, name);
        const char *wrong = !node ? "is no node of this cluster" : count == TREE_REPLICAS_MAX ? "is one node too many" : NULL;
        for (size_t i = 0; node && i < count; i++)
            if (nodes[i] == node->nodeid)
                wrong = "is named twice";
        if (wrong) {
            free(nodes);
            return error_set(planning->error, -EINVAL, "nodes=%.80s: %s %s; to see them: ls /nodes", text, name, wrong);
        }
        nodes[count++] = node->nodeid;
    }
    if (count == 0) {
        free(nodes);
        return error_set(planning->error, -EINVAL, "nodes= names no node; leave it out to have the volume placed");
    }
    *ret_nodes = nodes;
    *ret_count = count;
    return 0;
}

static bool store_exists(const struct api_view *view, const char *name)
{
    for (size_t i = 0; i < tree_store_count(view->tree); i++)
        if (strcmp(tree_store_at(view->tree, i)->name, name) == 0)
            return true;
    return false;
}

static int create_volume(struct planning *planning)
{
    const struct api_view *view = planning->view;
    const char *name = planning->call->name, *nodes = plan_argument(planning, "nodes"), *store = plan_argument(planning, "store");
    uint64_t size, replicas, block_size;
    uint32_t *node_ids = NULL, fields;
    size_t node_count = 0;
    Director__VolumePolicy policy = DIRECTOR__VOLUME_POLICY__INIT;
    policy.checksum = true; /* it costs about 1 % (replication/README): rot is worth knowing of */
    if (tree_volume_by_name(view->tree, name))
        return error_set(planning->error, -EEXIST, "volume %s exists already", name);
    int code = tree_check_name("volume name", name, planning->error);
    if (code == 0)
        code = plan_argument_size(planning, "size", TREE_VOLUME_MIN_BYTES, TREE_VOLUME_MAX_BYTES, TREE_VOLUME_UNIT_BYTES, &size);
    if (code == 0)
        code = plan_argument_number(planning, "block_size", 512, 4096, 512, &block_size);
    if (code == 0 && block_size != 512 && block_size != 4096)
        code = error_set(planning->error, -EINVAL, "block_size must be 512 or 4096, not %" PRIu64, block_size);
    if (code == 0 && store && !store_exists(view, store))
        code = error_set(planning->error, -EINVAL, "no node has a store \"%.63s\"; to see them: ls /nodes", store);
    if (code == 0 && nodes)
        code = parse_nodes(planning, nodes, &node_ids, &node_count);
    uint64_t fallback = node_count ? node_count : tree_node_count(view->tree) < 2 ? 1 : 2;
    if (code == 0)
        code = plan_argument_number(planning, "replicas", 1, TREE_REPLICAS_MAX, fallback, &replicas);
    if (code == 0 && node_count && node_count != replicas)
        code = error_set(planning->error, -EINVAL, "replicas=%" PRIu64 ", but nodes= names %zu", replicas, node_count);
    if (code == 0 && replicas > tree_node_count(view->tree))
        code = error_set(planning->error, -ENOSPC,
                         "%" PRIu64 " replicas need %" PRIu64 " nodes, each on its own, and the cluster has %zu", replicas,
                         replicas, tree_node_count(view->tree));
    if (code == 0)
        code = plan_policy(planning, &policy, &fields);
    if (code < 0) {
        free(node_ids);
        return code;
    }
    Director__VolumeCreate *create = NEW_BODY(planning, VOLUME_CREATE, VolumeCreate, volume_create);
    view_string_set(&create->name, name);
    create->uuid.data = plan_need(sizeof(planning->entropy->uuid));
    create->uuid.len = sizeof(planning->entropy->uuid);
    memcpy(create->uuid.data, planning->entropy->uuid, create->uuid.len);
    create->size = size;
    create->replicas = (uint32_t)replicas;
    create->block_size = (uint32_t)block_size;
    if (store)
        view_string_set(&create->store, store);
    create->policy = plan_need(sizeof(policy));
    *create->policy = policy;
    create->nodes = node_ids;
    create->n_nodes = node_count;
    create->incarnations = plan_need(replicas * sizeof(uint64_t));
    create->n_incarnations = replicas;
    memcpy(create->incarnations, planning->entropy->incarnations, replicas * sizeof(uint64_t));
    plan_path(planning, "/volumes", name);
    char text[SIZE_TEXT_SIZE];
    (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "volume %s made: %s, %" PRIu64 " %s", name,
                   size_format_exact(size, text), replicas, replicas == 1 ? "replica" : "replicas");
    return 0;
}

static int create_store(struct planning *planning)
{
    const char *name = planning->call->name, *path = plan_argument(planning, "path"), *plugin = plan_argument(planning, "plugin");
    const struct tree_node *node = planning->place.node;
    uint64_t capacity;
    if (tree_store_find(planning->view->tree, node->nodeid, name))
        return error_set(planning->error, -EEXIST, "node %s has a store %s already", node->name, name);
    int code = tree_check_name("store name", name, planning->error);
    if (code == 0)
        code = plan_argument_size(planning, "capacity", TREE_VOLUME_MIN_BYTES, UINT64_MAX >> 1, 1, &capacity);
    if (code < 0)
        return code;
    if (path[0] != '/' || strlen(path) >= TREE_PATH_SIZE)
        return error_set(planning->error, -EINVAL, "path must be an absolute path of at most %u bytes, not \"%.40s\"",
                         TREE_PATH_SIZE - 1, path);
    Director__StorePut *put = NEW_BODY(planning, STORE_PUT, StorePut, store_put);
    put->nodeid = node->nodeid;
    view_string_set(&put->name, name);
    view_string_set(&put->path, path);
    view_string_set(&put->plugin, plugin ? plugin : "file");
    put->capacity = capacity;
    plan_path(planning, planning->place.path, name);
    (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "store %s of node %s made", name, node->name);
    return 0;
}

/* RFC 7143 §4.2.7: iqn.yyyy-mm.reversed-domain[:text]; the characters that the tree takes too. */
int plan_check_iqn(const char *iqn, struct error *error)
{
    const char *date = iqn + 4;
    bool good = strncmp(iqn, "iqn.", 4) == 0 && strlen(iqn) < TREE_IQN_SIZE && strlen(iqn) > 12;
    for (int i = 0; good && i < 7; i++)
        good = i == 4 ? date[i] == '-' : isdigit((unsigned char)date[i]);
    good = good && date[7] == '.' && isalnum((unsigned char)date[8]);
    for (const char *p = iqn; *p && good; p++)
        good = islower((unsigned char)*p) || isdigit((unsigned char)*p) || strchr("-.:", *p);
    if (good)
        return 0;
    return error_set(error, -EINVAL,
                     "\"%.60s\" is no iSCSI name: write iqn.YEAR-MONTH.DOMAIN:TEXT in a-z 0-9 . - :, for example "
                     "iqn.2026-01.org.example:disk1", iqn);
}

static int create_target(struct planning *planning)
{
    const char *iqn = planning->call->name;
    int code = plan_check_iqn(iqn, planning->error);
    if (code < 0)
        return code;
    if (tree_target_by_iqn(planning->view->tree, iqn))
        return error_set(planning->error, -EEXIST, "target %s exists already", iqn);
    view_string_set(&NEW_BODY(planning, TARGET_CREATE, TargetCreate, target_create)->iqn, iqn);
    plan_path(planning, "/targets", iqn);
    (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "target %.200s made, without luns", iqn);
    return 0;
}

const struct tree_lun *plan_lun_find(const struct tree_target *target, uint32_t number)
{
    for (unsigned i = 0; target && i < target->lun_count; i++)
        if (target->luns[i].lun == number)
            return &target->luns[i];
    return NULL;
}

void plan_add_lun(struct planning *planning, const char *iqn, uint32_t number, const char *volume)
{
    Director__LunAdd *add = NEW_BODY(planning, LUN_ADD, LunAdd, lun_add);
    view_string_set(&add->iqn, iqn);
    add->lun = number;
    view_string_set(&add->volume, volume);
}

static int volume_argument(struct planning *planning, const char *name, const struct tree_volume **ret_volume)
{
    struct text_nearest nearest = {.word = name};
    *ret_volume = tree_volume_by_name(planning->view->tree, name);
    if (*ret_volume)
        return 0;
    for (size_t i = 0; i < tree_volume_count(planning->view->tree); i++)
        text_nearest_offer(&nearest, tree_volume_at(planning->view->tree, i)->name);
    if (nearest.best[0])
        return error_set(planning->error, -ENOENT, "no such volume: %.63s; did you mean %s?", name, nearest.best);
    return error_set(planning->error, -ENOENT, "no such volume: %.63s; to see what there is: ls /volumes", name);
}

static int create_lun(struct planning *planning)
{
    const struct tree_target *target = planning->place.target;
    const char *text = planning->call->name;
    const struct tree_volume *volume;
    uint32_t number = 0;
    int code = volume_argument(planning, plan_argument(planning, "volume"), &volume);
    if (code < 0)
        return code;
    bool good = *text != '\0' && strlen(text) <= 3;
    for (const char *p = text; *p && good; p++) {
        good = isdigit((unsigned char)*p);
        number = number * 10 + (uint32_t)(*p - '0');
    }
    if (!good || number >= TREE_LUNS_MAX)
        return error_set(planning->error, -EINVAL, "a lun is a number from 0 to %u, not \"%.40s\"", TREE_LUNS_MAX - 1, text);
    if (plan_lun_find(target, number))
        return error_set(planning->error, -EEXIST, "target %.120s has a lun %u already", target->iqn, number);
    plan_add_lun(planning, target->iqn, number, volume->name);
    char name[16];
    (void)snprintf(name, sizeof(name), "%u", number);
    plan_path(planning, planning->place.path, name);
    (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "volume %s is lun %u now", volume->name, number);
    return 0;
}

int plan_create(struct planning *planning)
{
    const struct view_verb *verb = view_verb_find(planning->place.kind, "create");
    if (!verb)
        return error_set(planning->error, -ENOTSUP, "nothing can be made in %.120s; things are made in /volumes, /targets, "
                                                    "/targets/T/luns and /nodes/N/stores", planning->place.path);
    if (planning->call->name[0] == '\0')
        return error_set(planning->error, -EINVAL, "create needs a name, for example: director %.80s create NAME ...",
                         planning->place.path);
    char what[320];
    (void)snprintf(what, sizeof(what), "%s %.63s",
                   planning->place.kind == VIEW_VOLUMES   ? "volume"
                   : planning->place.kind == VIEW_STORES  ? "store"
                   : planning->place.kind == VIEW_TARGETS ? "target"
                                                          : "lun",
                   planning->call->name);
    int code = plan_check_arguments(planning, what, verb->arguments);
    if (code < 0)
        return code;
    switch (planning->place.kind) {
    case VIEW_VOLUMES:
        return create_volume(planning);
    case VIEW_STORES:
        return create_store(planning);
    case VIEW_TARGETS:
        return create_target(planning);
    default:
        return create_lun(planning);
    }
}
