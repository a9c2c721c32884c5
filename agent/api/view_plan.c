/* CREATE, SET, DELETE and ACTION: from words to commands, with every refusal that can be known early. */
#include "agent/api/view_internal.h"

#include "director/base/size.h"
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

struct planning {
    const struct api_view *view;
    const Director__Call *call;
    const struct api_entropy *entropy;
    struct view_place place;
    struct api_plan *plan;
    struct error *error;
};

/* ---- building commands -------------------------------------------------------------------------------------------------- */

static void *need(size_t size)
{
    void *memory = calloc(1, size);
    ASSERT(memory);
    return memory;
}

static Director__Command *plan_command(struct planning *planning, Director__Command__BodyCase body)
{
    struct api_plan *plan = planning->plan;
    Director__Command *command = need(sizeof(*command));
    director__command__init(command);
    command->body_case = body;
    ASSERT(plan->command_count < API_PLAN_COMMANDS_MAX);
    plan->commands[plan->command_count++] = command;
    return command;
}

/* NEW_BODY(planning, VOLUME_CREATE, VolumeCreate, volume_create): append a command with that body and give the body. */
#define NEW_BODY(planning, CASE, Type, member)                                                         \
    ({                                                                                                 \
        Director__Command *command_ = plan_command(planning, DIRECTOR__COMMAND__BODY_##CASE);          \
        command_->member = need(sizeof(Director__##Type));                                             \
        *command_->member = (Director__##Type)DIRECTOR__##CASE##__INIT;                                \
        command_->member;                                                                              \
    })

void api_plan_done(struct api_plan *plan)
{
    for (unsigned i = 0; i < plan->command_count; i++)
        director__command__free_unpacked(plan->commands[i], NULL);
    memset(plan, 0, sizeof(*plan));
}

static void plan_path(struct planning *planning, const char *folder, const char *name)
{
    (void)snprintf(planning->plan->path, sizeof(planning->plan->path), "%.240s/%.255s", folder, name);
}

/* ---- arguments ----------------------------------------------------------------------------------------------------------- */

static const char *argument(const struct planning *planning, const char *name)
{
    for (size_t i = 0; i < planning->call->n_properties; i++)
        if (strcmp(planning->call->properties[i]->name, name) == 0)
            return planning->call->properties[i]->value;
    return NULL;
}

static void list_names(const struct view_property *list, bool writable_only, bool with_name, struct text *names)
{
    for (; list->name; list++)
        if ((!writable_only || list->writable) && (with_name || strcmp(list->name, "name") != 0))
            text_addf(names, "%s%s", names->used ? ", " : "", list->name);
}

static int unknown_property(struct planning *planning, const char *what, const char *name, const struct view_property *list)
{
    struct text_nearest nearest = {.word = name};
    struct text names = {0};
    for (const struct view_property *p = list; p->name; p++)
        text_nearest_offer(&nearest, p->name);
    list_names(list, false, false, &names);
    int code;
    if (nearest.best[0])
        code = error_set(planning->error, -EINVAL, "%s has no property \"%.40s\"; did you mean %s? It has: %s", what, name,
                         nearest.best, text_get(&names));
    else if (names.used)
        code = error_set(planning->error, -EINVAL, "%s has no property \"%.40s\"; it has: %s", what, name, text_get(&names));
    else
        code = error_set(planning->error, -EINVAL, "%s takes no properties, but \"%.40s\" was given", what, name);
    text_done(&names);
    return code;
}

/* Every property given is known and given once; every required one is there. "name" comes as the call's name. */
static int check_arguments(struct planning *planning, const char *what, const struct view_property *list)
{
    const Director__Call *call = planning->call;
    for (size_t i = 0; i < call->n_properties; i++) {
        const char *name = call->properties[i]->name;
        if (!view_property_find(list, name) || strcmp(name, "name") == 0)
            return unknown_property(planning, what, name, list);
        for (size_t k = 0; k < i; k++)
            if (strcmp(call->properties[k]->name, name) == 0)
                return error_set(planning->error, -EINVAL, "%s is given twice", name);
    }
    for (; list->name; list++)
        if (list->required && strcmp(list->name, "name") != 0 && !argument(planning, list->name))
            return error_set(planning->error, -EINVAL, "%s needs %s=...: %s", what, list->name, list->help);
    return 0;
}

static int argument_number(struct planning *planning, const char *name, uint64_t lowest, uint64_t highest, uint64_t fallback,
                           uint64_t *ret_value)
{
    const char *text = argument(planning, name);
    uint64_t value = 0;
    if (!text) {
        *ret_value = fallback;
        return 0;
    }
    bool good = *text != '\0' && strlen(text) <= 18;
    for (const char *p = text; *p && good; p++) {
        good = isdigit((unsigned char)*p);
        value = value * 10 + (uint64_t)(*p - '0');
    }
    if (!good || value < lowest || value > highest)
        return error_set(planning->error, -EINVAL, "%s must be a number from %" PRIu64 " to %" PRIu64 ", not \"%.40s\"", name,
                         lowest, highest, text);
    *ret_value = value;
    return 0;
}

static int parse_size(struct planning *planning, const char *name, uint64_t lowest, uint64_t highest, uint64_t unit,
                      uint64_t *ret_bytes)
{
    const char *text = argument(planning, name);
    char low[SIZE_TEXT_SIZE], high[SIZE_TEXT_SIZE];
    uint64_t bytes = 0;
    int code = size_parse(text, &bytes);
    if (code == -EINVAL)
        return error_set(planning->error, -EINVAL, "\"%.40s\" is no %s: write a number with K, M, G or T, for example 10G", text,
                         name);
    if (code < 0 || bytes < lowest || bytes > highest)
        return error_set(planning->error, -EINVAL, "%s must be from %s to %s, not %.40s", name, size_format_exact(lowest, low),
                         size_format_exact(highest, high), text);
    if (bytes % unit)
        return error_set(planning->error, -EINVAL, "%s must be a multiple of %s; %.40s is not, %" PRIu64 " would be", name,
                         size_format_exact(unit, low), text, bytes - bytes % unit + unit);
    *ret_bytes = bytes;
    return 0;
}

/* ---- create ---------------------------------------------------------------------------------------------------------------- */

/* nodes=node1,node2 as node ids. The array is the command's. */
static int parse_nodes(struct planning *planning, const char *text, uint32_t **ret_nodes, size_t *ret_count)
{
    uint32_t *nodes = need(TREE_REPLICAS_MAX * sizeof(*nodes));
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
    const char *name = planning->call->name, *nodes = argument(planning, "nodes"), *store = argument(planning, "store");
    uint64_t size, replicas, block_size;
    uint32_t *node_ids = NULL;
    size_t node_count = 0;
    if (tree_volume_by_name(view->tree, name))
        return error_set(planning->error, -EEXIST, "volume %s exists already", name);
    int code = tree_check_name("volume name", name, planning->error);
    if (code == 0)
        code = parse_size(planning, "size", TREE_VOLUME_MIN_BYTES, TREE_VOLUME_MAX_BYTES, TREE_VOLUME_UNIT_BYTES, &size);
    if (code == 0)
        code = argument_number(planning, "block_size", 512, 4096, 512, &block_size);
    if (code == 0 && block_size != 512 && block_size != 4096)
        code = error_set(planning->error, -EINVAL, "block_size must be 512 or 4096, not %" PRIu64, block_size);
    if (code == 0 && store && !store_exists(view, store))
        code = error_set(planning->error, -EINVAL, "no node has a store \"%.63s\"; to see them: ls /nodes", store);
    if (code == 0 && nodes)
        code = parse_nodes(planning, nodes, &node_ids, &node_count);
    uint64_t fallback = node_count ? node_count : tree_node_count(view->tree) < 2 ? 1 : 2;
    if (code == 0)
        code = argument_number(planning, "replicas", 1, TREE_REPLICAS_MAX, fallback, &replicas);
    if (code == 0 && node_count && node_count != replicas)
        code = error_set(planning->error, -EINVAL, "replicas=%" PRIu64 ", but nodes= names %zu", replicas, node_count);
    if (code == 0 && replicas > tree_node_count(view->tree))
        code = error_set(planning->error, -ENOSPC,
                         "%" PRIu64 " replicas need %" PRIu64 " nodes, each on its own, and the cluster has %zu", replicas,
                         replicas, tree_node_count(view->tree));
    if (code < 0) {
        free(node_ids);
        return code;
    }
    Director__VolumeCreate *create = NEW_BODY(planning, VOLUME_CREATE, VolumeCreate, volume_create);
    view_string_set(&create->name, name);
    create->uuid.data = need(sizeof(planning->entropy->uuid));
    create->uuid.len = sizeof(planning->entropy->uuid);
    memcpy(create->uuid.data, planning->entropy->uuid, create->uuid.len);
    create->size = size;
    create->replicas = (uint32_t)replicas;
    create->block_size = (uint32_t)block_size;
    if (store)
        view_string_set(&create->store, store);
    create->nodes = node_ids;
    create->n_nodes = node_count;
    create->incarnations = need(replicas * sizeof(uint64_t));
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
    const char *name = planning->call->name, *path = argument(planning, "path"), *plugin = argument(planning, "plugin");
    const struct tree_node *node = planning->place.node;
    uint64_t capacity;
    if (tree_store_find(planning->view->tree, node->nodeid, name))
        return error_set(planning->error, -EEXIST, "node %s has a store %s already", node->name, name);
    int code = tree_check_name("store name", name, planning->error);
    if (code == 0)
        code = parse_size(planning, "capacity", TREE_VOLUME_MIN_BYTES, UINT64_MAX >> 1, 1, &capacity);
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
static int check_iqn(const char *iqn, struct error *error)
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
    int code = check_iqn(iqn, planning->error);
    if (code < 0)
        return code;
    if (tree_target_by_iqn(planning->view->tree, iqn))
        return error_set(planning->error, -EEXIST, "target %s exists already", iqn);
    view_string_set(&NEW_BODY(planning, TARGET_CREATE, TargetCreate, target_create)->iqn, iqn);
    plan_path(planning, "/targets", iqn);
    (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "target %.200s made, without luns", iqn);
    return 0;
}

static const struct tree_lun *lun_find(const struct tree_target *target, uint32_t number)
{
    for (unsigned i = 0; target && i < target->lun_count; i++)
        if (target->luns[i].lun == number)
            return &target->luns[i];
    return NULL;
}

static void add_lun(struct planning *planning, const char *iqn, uint32_t number, const char *volume)
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
    int code = volume_argument(planning, argument(planning, "volume"), &volume);
    if (code < 0)
        return code;
    bool good = *text != '\0' && strlen(text) <= 3;
    for (const char *p = text; *p && good; p++) {
        good = isdigit((unsigned char)*p);
        number = number * 10 + (uint32_t)(*p - '0');
    }
    if (!good || number >= TREE_LUNS_MAX)
        return error_set(planning->error, -EINVAL, "a lun is a number from 0 to %u, not \"%.40s\"", TREE_LUNS_MAX - 1, text);
    if (lun_find(target, number))
        return error_set(planning->error, -EEXIST, "target %.120s has a lun %u already", target->iqn, number);
    add_lun(planning, target->iqn, number, volume->name);
    char name[16];
    (void)snprintf(name, sizeof(name), "%u", number);
    plan_path(planning, planning->place.path, name);
    (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "volume %s is lun %u now", volume->name, number);
    return 0;
}

static int plan_create(struct planning *planning)
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
    int code = check_arguments(planning, what, verb->arguments);
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

/* ---- move ------------------------------------------------------------------------------------------------------------------ */

static int plan_move(struct planning *planning, const char *to)
{
    const struct api_view *view = planning->view;
    const struct tree_volume *volume = planning->place.volume;
    const struct tree_node *node = tree_node_by_name(view->tree, to);
    struct text names = {0};
    int code = 0;
    (void)snprintf(planning->plan->path, sizeof(planning->plan->path), "%s", planning->place.path);
    view_replica_names(view, volume, volume->isr, ", ", &names);
    int replica = node ? tree_volume_replica_of(volume, node->nodeid) : -1;
    if (!node)
        code = error_set(planning->error, -EINVAL, "no such node: %.63s; volume %s can be served by %.120s", to, volume->name,
                         text_get(&names));
    else if (replica < 0)
        code = error_set(planning->error, -EINVAL, "node %s has no replica of volume %s; it can be served by %.120s", to,
                         volume->name, text_get(&names));
    else if (!(volume->isr >> replica & 1))
        code = error_set(planning->error, -EBUSY, "the replica of volume %s on %s is not in sync yet; wait for its resync, or use %.120s",
                         volume->name, to, text_get(&names));
    else if (view_node_offline(view, node->nodeid))
        code = error_set(planning->error, -EBUSY, "node %s is offline", to);
    text_done(&names);
    if (code < 0)
        return code;
    if (volume->owner == node->nodeid) {
        (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "volume %s is served by %s already",
                       volume->name, to);
        return 0;
    }
    Director__VolumePromote *promote = NEW_BODY(planning, VOLUME_PROMOTE, VolumePromote, volume_promote);
    promote->volume = volume->id;
    promote->expect_epoch = volume->epoch;
    promote->owner = node->nodeid;
    promote->isr = volume->isr;
    view_string_set(&promote->reason, "moved by an operator");
    (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "volume %s: owner %s -> %s", volume->name,
                   view_node_name(view, volume->owner), to);
    return 0;
}

/* ---- set ------------------------------------------------------------------------------------------------------------------- */

static int plan_set(struct planning *planning)
{
    const Director__Call *call = planning->call;
    const struct view_property *list = view_properties(planning->place.kind);
    struct text names = {0};
    char what[300];
    (void)snprintf(what, sizeof(what), "%.250s", planning->place.path);
    if (call->n_properties == 0)
        return error_set(planning->error, -EINVAL, "set needs at least one property=value");
    list_names(list, true, true, &names);
    int code = 0;
    for (size_t i = 0; i < call->n_properties && code == 0; i++) {
        const char *name = call->properties[i]->name;
        const struct view_property *schema = view_property_find(list, name);
        if (!schema)
            code = unknown_property(planning, what, name, list);
        else if (!schema->writable && names.used)
            code = error_set(planning->error, -EINVAL, "%s of %s cannot be set; what can: %s", name, what, text_get(&names));
        else if (!schema->writable)
            code = error_set(planning->error, -EINVAL, "%s of %s cannot be set, nor anything else there", name, what);
        for (size_t k = 0; k < i && code == 0; k++)
            if (strcmp(call->properties[k]->name, name) == 0)
                code = error_set(planning->error, -EINVAL, "%s is given twice", name);
    }
    text_done(&names);
    if (code < 0)
        return code;
    ASSERT(planning->place.kind == VIEW_VOLUME); /* its owner is the only writable property yet */
    return plan_move(planning, argument(planning, "owner"));
}

/* ---- delete ---------------------------------------------------------------------------------------------------------------- */

static int delete_volume(struct planning *planning)
{
    const struct tree_volume *volume = planning->place.volume;
    uint32_t lun;
    const struct tree_target *target = tree_volume_export(planning->view->tree, volume->id, &lun);
    if (target)
        return error_set(planning->error, -EBUSY, "volume %s is exported as %.120s lun %" PRIu32 "; first: director /volumes/%s unexport",
                         volume->name, target->iqn, lun, volume->name);
    view_string_set(&NEW_BODY(planning, VOLUME_DELETE, VolumeDelete, volume_delete)->name, volume->name);
    return 0;
}

/* Volumes with a replica on nodeid (in store, unless NULL), the first few by name. */
static unsigned volumes_there(const struct api_view *view, uint16_t nodeid, const char *store, struct text *names)
{
    unsigned count = 0;
    for (size_t i = 0; i < tree_volume_count(view->tree); i++) {
        const struct tree_volume *volume = tree_volume_at(view->tree, i);
        int replica = tree_volume_replica_of(volume, nodeid);
        if (replica < 0 || (store && strcmp(volume->replicas[replica].store, store) != 0))
            continue;
        if (count++ < 3)
            text_addf(names, "%s%.40s", names->used ? ", " : "", volume->name);
    }
    if (count > 3)
        text_addf(names, " and %u more", count - 3);
    return count;
}

static int delete_store(struct planning *planning)
{
    const struct tree_store *store = planning->place.store;
    struct text names = {0};
    int code = 0;
    if (volumes_there(planning->view, store->nodeid, store->name, &names))
        code = error_set(planning->error, -EBUSY, "store %s of node %s holds replicas of %s; delete them first", store->name,
                         planning->place.node->name, text_get(&names));
    text_done(&names);
    if (code < 0)
        return code;
    Director__StoreRemove *remove = NEW_BODY(planning, STORE_REMOVE, StoreRemove, store_remove);
    remove->nodeid = store->nodeid;
    view_string_set(&remove->name, store->name);
    return 0;
}

/* Without node's vote, do those that are left and answer still have a majority? */
static int majority_stays(struct planning *planning, const struct tree_node *node)
{
    const struct api_view *view = planning->view;
    unsigned voters = 0, alive = 0;
    for (size_t i = 0; i < tree_node_count(view->tree); i++) {
        const struct tree_node *other = tree_node_at(view->tree, i);
        if (other == node || !other->voter)
            continue;
        voters++;
        alive += !view->live || !view->live->node_alive || view->live->node_alive(view->live_context, other->nodeid);
    }
    if (!node->voter || alive > voters / 2)
        return 0;
    return error_set(planning->error, -EBUSY, "without node %s only %u of %u voters would be alive, no majority; bring back "
                                              "another, or remove that one first", node->name, alive, voters);
}

static int delete_node(struct planning *planning)
{
    const struct tree_node *node = planning->place.node;
    struct text names = {0};
    int code = 0;
    if (volumes_there(planning->view, node->nodeid, NULL, &names))
        code = error_set(planning->error, -EBUSY, "node %s holds replicas of %s; delete them first", node->name,
                         text_get(&names));
    else if (tree_node_count(planning->view->tree) == 1)
        code = error_set(planning->error, -EBUSY, "node %s is the last of the cluster", node->name);
    else
        code = majority_stays(planning, node);
    text_done(&names);
    if (code < 0)
        return code;
    if (node->voter) { /* whoever proposes it also takes the vote in the log */
        Director__NodeVoter *voter = NEW_BODY(planning, NODE_VOTER, NodeVoter, node_voter);
        voter->nodeid = node->nodeid;
        voter->voter = false;
    }
    (void)snprintf(planning->plan->message, sizeof(planning->plan->message),
                   "node %s is no longer in the cluster; to let it join again, clear its state folder first", node->name);
    NEW_BODY(planning, NODE_REMOVE, NodeRemove, node_remove)->nodeid = node->nodeid;
    return 0;
}

static int delete_target(struct planning *planning)
{
    const struct tree_target *target = planning->place.target;
    if (target->lun_count)
        return error_set(planning->error, -EBUSY, "target %.140s has %u %s; delete %s first", target->iqn, target->lun_count,
                         target->lun_count == 1 ? "lun" : "luns", target->lun_count == 1 ? "it" : "them");
    view_string_set(&NEW_BODY(planning, TARGET_DELETE, TargetDelete, target_delete)->iqn, target->iqn);
    return 0;
}

static void remove_lun(struct planning *planning, const char *iqn, uint32_t number)
{
    Director__LunRemove *remove = NEW_BODY(planning, LUN_REMOVE, LunRemove, lun_remove);
    view_string_set(&remove->iqn, iqn);
    remove->lun = number;
}

static int plan_delete(struct planning *planning)
{
    int code = check_arguments(planning, "delete", view_properties(VIEW_NODES) /* none */);
    if (code < 0)
        return code;
    switch (planning->place.kind) {
    case VIEW_VOLUME:
        code = delete_volume(planning);
        break;
    case VIEW_STORE:
        code = delete_store(planning);
        break;
    case VIEW_NODE:
        code = delete_node(planning);
        break;
    case VIEW_TARGET:
        code = delete_target(planning);
        break;
    case VIEW_LUN:
        remove_lun(planning, planning->place.target->iqn, planning->place.lun->lun);
        break;
    default:
        return error_set(planning->error, -ENOTSUP, "%.160s cannot be deleted; volumes, stores, nodes, targets and luns can",
                         planning->place.path);
    }
    if (code < 0)
        return code;
    const char *slash = strrchr(planning->place.path, '/');
    (void)snprintf(planning->plan->path, sizeof(planning->plan->path), "%.*s", (int)(slash - planning->place.path),
                   planning->place.path);
    (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "%.230s deleted", planning->place.path);
    return 0;
}

/* ---- actions --------------------------------------------------------------------------------------------------------------- */

static bool default_iqn(const struct api_view *view, const struct tree_volume *volume, char iqn[static TREE_IQN_SIZE])
{
    /* '_' may stand in a volume's name, but not in an iSCSI name (RFC 7143 §4.2.7.1). */
    int length = snprintf(iqn, TREE_IQN_SIZE, VIEW_TARGET_PREFIX "%s:%s", tree_get_cluster(view->tree)->name, volume->name);
    for (char *p = iqn; *p; p++)
        *p = *p == '_' ? '-' : *p;
    return length < (int)TREE_IQN_SIZE;
}

static int plan_export(struct planning *planning)
{
    const struct api_view *view = planning->view;
    const struct tree_volume *volume = planning->place.volume;
    const char *asked = argument(planning, "target");
    char iqn[TREE_IQN_SIZE];
    uint32_t there;
    uint64_t lowest = 0, number = 0;
    const struct tree_target *target = tree_volume_export(view->tree, volume->id, &there);
    (void)snprintf(planning->plan->path, sizeof(planning->plan->path), "%s", planning->place.path);
    int code = target ? argument_number(planning, "lun", 0, TREE_LUNS_MAX - 1, there, &number) : 0;
    if (code < 0)
        return code;
    if (target && number == there && (!asked || strcmp(asked, target->iqn) == 0)) {
        (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "volume %s is exported already as %.150s lun %u",
                       volume->name, target->iqn, there);
        return 0;
    }
    if (target)
        return error_set(planning->error, -EBUSY, "volume %s is exported already as %.120s lun %u; first: director /volumes/%s unexport",
                         volume->name, target->iqn, there, volume->name);
    if (asked) {
        code = check_iqn(asked, planning->error);
        if (code < 0)
            return code;
        (void)snprintf(iqn, sizeof(iqn), "%s", asked);
    } else if (!default_iqn(view, volume, iqn)) {
        return error_set(planning->error, -ENAMETOOLONG, "the default target name would be too long; give target=iqn....");
    }
    target = tree_target_by_iqn(view->tree, iqn);
    while (lun_find(target, (uint32_t)lowest))
        lowest++;
    code = argument_number(planning, "lun", 0, TREE_LUNS_MAX - 1, lowest, &number);
    if (code < 0)
        return code;
    if (number >= TREE_LUNS_MAX)
        return error_set(planning->error, -ENOSPC, "target %.140s has no free lun; export by another target", iqn);
    if (lun_find(target, (uint32_t)number))
        return error_set(planning->error, -EEXIST, "target %.140s has a lun %u already", iqn, (unsigned)number);
    if (!target)
        view_string_set(&NEW_BODY(planning, TARGET_CREATE, TargetCreate, target_create)->iqn, iqn);
    add_lun(planning, iqn, (uint32_t)number, volume->name);
    (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "volume %s is exported as %.150s lun %u", volume->name,
                   iqn, (unsigned)number);
    return 0;
}

static int plan_unexport(struct planning *planning)
{
    const struct tree_volume *volume = planning->place.volume;
    char iqn[TREE_IQN_SIZE];
    uint32_t lun;
    const struct tree_target *target = tree_volume_export(planning->view->tree, volume->id, &lun);
    (void)snprintf(planning->plan->path, sizeof(planning->plan->path), "%s", planning->place.path);
    if (!target) {
        (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "volume %s is not exported", volume->name);
        return 0;
    }
    remove_lun(planning, target->iqn, lun);
    /* A target that export made goes with its last lun. */
    if (target->lun_count == 1 && default_iqn(planning->view, volume, iqn) && strcmp(iqn, target->iqn) == 0)
        view_string_set(&NEW_BODY(planning, TARGET_DELETE, TargetDelete, target_delete)->iqn, iqn);
    (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "volume %s is not exported any more", volume->name);
    return 0;
}

static int plan_action(struct planning *planning)
{
    const char *word = planning->call->name;
    const struct view_verb *verb = view_verb_find(planning->place.kind, word);
    if (!verb || strcmp(word, "create") == 0 || strcmp(word, "delete") == 0) {
        struct text_nearest nearest = {.word = word};
        struct text words = {0};
        for (verb = view_verbs; verb->word; verb++) {
            if (verb->kind != planning->place.kind)
                continue;
            text_nearest_offer(&nearest, verb->word);
            text_addf(&words, "%s%s", words.used ? ", " : "", verb->word);
        }
        int code = error_set(planning->error, -EINVAL, "%.120s has no verb \"%.40s\"%s%s; it has: ls, get, status, help%s%s",
                             planning->place.path, word, nearest.best[0] ? "; did you mean " : "", nearest.best,
                             words.used ? ", " : "", text_get(&words));
        text_done(&words);
        return code;
    }
    int code = check_arguments(planning, word, verb->arguments);
    if (code < 0)
        return code;
    if (strcmp(word, "move") == 0)
        return plan_move(planning, argument(planning, "owner"));
    if (strcmp(word, "export") == 0)
        return plan_export(planning);
    ASSERT(strcmp(word, "unexport") == 0);
    return plan_unexport(planning);
}

int api_view_plan(const struct api_view *view, const Director__Call *call, const struct api_entropy *entropy,
                  struct api_plan *ret_plan, struct error *error)
{
    struct api_plan plan = {0};
    struct planning planning = {.view = view, .call = call, .entropy = entropy, .plan = &plan, .error = error};
    int code = view_resolve(view, call->path, &planning.place, error);
    if (code < 0)
        return code;
    switch (call->verb) {
    case DIRECTOR__VERB__CREATE:
        code = plan_create(&planning);
        break;
    case DIRECTOR__VERB__SET:
        code = plan_set(&planning);
        break;
    case DIRECTOR__VERB__DELETE:
        code = plan_delete(&planning);
        break;
    case DIRECTOR__VERB__ACTION:
        code = plan_action(&planning);
        break;
    default:
        code = error_set(error, -ENOTSUP, "this agent does not know that verb; is it older than the shell?");
    }
    if (code < 0) {
        api_plan_done(&plan);
        return code;
    }
    *ret_plan = plan;
    return 0;
}

Director__Result *api_view_done(const struct api_view *view, const struct api_plan *plan)
{
    struct view_place place;
    struct error error;
    Director__Result *result = view_result_new();
    view_string_set(&result->message, plan->message);
    if (view_resolve(view, plan->path, &place, &error) == 0)
        (void)view_object_add(view, &place, true, result);
    return result;
}
