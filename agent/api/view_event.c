/* What watchers hear of applied commands. */
#include "agent/api/view_internal.h"

#include "director/base/size.h"
#include <inttypes.h>
#include <string.h>

struct event {
    char *path;
    bool deleted;
    struct text line;
};

static void event_path(struct event *event, const char *format, const char *a, const char *b)
{
    char text[VIEW_PATH_SIZE];
    (void)snprintf(text, sizeof(text), "%s%.255s%s%.200s", format, a, b ? "/" : "", b ? b : "");
    memcpy(event->path, text, strlen(text) + 1);
}

static void volume_event(const struct api_view *view, const struct tree_volume *volume, const char *reason, struct event *event)
{
    event_path(event, "/volumes/", volume->name, NULL);
    text_addf(&event->line, "volume %s: owner %s, in sync on ", volume->name, view_node_name(view, volume->owner));
    view_replica_names(view, volume, volume->isr, " ", &event->line);
    text_addf(&event->line, ", epoch %" PRIu64, volume->epoch);
    if (reason[0])
        text_addf(&event->line, ", because %.200s", reason);
}

static void node_event(const struct api_view *view, const Director__NodeInfo *info, const char *what, struct event *event)
{
    struct uuid uuid;
    if (info->uuid.len != sizeof(uuid.bytes))
        return;
    memcpy(uuid.bytes, info->uuid.data, sizeof(uuid.bytes));
    const struct tree_node *node = tree_node_by_uuid(view->tree, &uuid);
    if (!node)
        return;
    event_path(event, "/nodes/", node->name, NULL);
    text_addf(&event->line, "node %s: %s, %s", node->name, what, node->address);
}

static void store_event(const struct api_view *view, uint32_t nodeid, const char *name, bool deleted, struct event *event)
{
    char parent[128];
    (void)snprintf(parent, sizeof(parent), "%s/stores", view_node_name(view, nodeid));
    event_path(event, "/nodes/", parent, name);
    event->deleted = deleted;
    text_addf(&event->line, "store %s of node %s: %s", name, view_node_name(view, nodeid), deleted ? "deleted" : "made or changed");
}

static void lun_event(const char *iqn, uint32_t lun, const char *volume, struct event *event)
{
    char parent[256], name[16];
    (void)snprintf(parent, sizeof(parent), "%.230s/luns", iqn);
    (void)snprintf(name, sizeof(name), "%" PRIu32, lun);
    event_path(event, "/targets/", parent, name);
    event->deleted = volume == NULL;
    if (volume)
        text_addf(&event->line, "target %s: lun %s is volume %s", iqn, name, volume);
    else
        text_addf(&event->line, "target %s: lun %s deleted", iqn, name);
}

static void named_event(const char *folder, const char *kind, const char *name, bool deleted, struct event *event)
{
    event_path(event, folder, name, NULL);
    event->deleted = deleted;
    text_addf(&event->line, "%s %s: %s", kind, name, deleted ? "deleted" : "made");
}

/* What the log of events just got, in its words. */
static void logged_event(const struct api_view *view, const Director__Command *command, struct event *event)
{
    size_t count = tree_event_count(view->tree);
    const struct tree_event *last = count ? tree_event_at(view->tree, count - 1) : NULL;
    if (!last || last->kind != command->body_case)
        return;
    if (last->kind == DIRECTOR__COMMAND__BODY_CLUSTER_SET)
        event_path(event, "/", "", NULL);
    else if (last->kind == DIRECTOR__COMMAND__BODY_TASK_CREATE || last->kind == DIRECTOR__COMMAND__BODY_TASK_END)
        event_path(event, "/tasks", "", NULL);
    else if (tree_volume_by_name(view->tree, last->object))
        event_path(event, "/volumes/", last->object, NULL);
    else
        return;
    view_event_words(view, last, &event->line);
}

static void describe_command(const struct api_view *view, const Director__Command *command, struct event *event)
{
    const struct tree_volume *volume;
    const struct tree_node *node;
    switch (command->body_case) {
    case DIRECTOR__COMMAND__BODY_CLUSTER_INIT:
        event_path(event, "/", "", NULL);
        text_addf(&event->line, "cluster %s: formed", command->cluster_init->name);
        break;
    case DIRECTOR__COMMAND__BODY_NODE_ADD:
        if (command->node_add->node)
            node_event(view, command->node_add->node, "joined", event);
        break;
    case DIRECTOR__COMMAND__BODY_NODE_UPDATE:
        if (command->node_update->node)
            node_event(view, command->node_update->node, "updated", event);
        break;
    case DIRECTOR__COMMAND__BODY_NODE_VOTER:
        node = tree_node_by_id(view->tree, (uint16_t)command->node_voter->nodeid);
        if (!node)
            break;
        event_path(event, "/nodes/", node->name, NULL);
        text_addf(&event->line, "node %s: %s", node->name, node->voter ? "votes" : "does not vote");
        break;
    case DIRECTOR__COMMAND__BODY_NODE_REMOVE:
        event_path(event, "/nodes", "", NULL);
        text_addf(&event->line, "node with id %" PRIu32 ": removed", command->node_remove->nodeid);
        break;
    case DIRECTOR__COMMAND__BODY_STORE_PUT:
        store_event(view, command->store_put->nodeid, command->store_put->name, false, event);
        break;
    case DIRECTOR__COMMAND__BODY_STORE_REMOVE:
        store_event(view, command->store_remove->nodeid, command->store_remove->name, true, event);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_CREATE:
        named_event("/volumes/", "volume", command->volume_create->name, false, event);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_DELETE:
        named_event("/volumes/", "volume", command->volume_delete->name, true, event);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_PROMOTE:
        if ((volume = tree_volume_by_id(view->tree, command->volume_promote->volume)))
            volume_event(view, volume, command->volume_promote->reason, event);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_ISR:
        if ((volume = tree_volume_by_id(view->tree, command->volume_isr->volume)))
            volume_event(view, volume, command->volume_isr->reason, event);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_INCARNATION:
        if ((volume = tree_volume_by_id(view->tree, command->volume_incarnation->volume)))
            volume_event(view, volume, "a replica was replaced", event);
        break;
    case DIRECTOR__COMMAND__BODY_TARGET_CREATE:
        named_event("/targets/", "target", command->target_create->iqn, false, event);
        break;
    case DIRECTOR__COMMAND__BODY_TARGET_DELETE:
        named_event("/targets/", "target", command->target_delete->iqn, true, event);
        break;
    case DIRECTOR__COMMAND__BODY_LUN_ADD:
        lun_event(command->lun_add->iqn, command->lun_add->lun, command->lun_add->volume, event);
        break;
    case DIRECTOR__COMMAND__BODY_LUN_REMOVE:
        lun_event(command->lun_remove->iqn, command->lun_remove->lun, NULL, event);
        break;
    default:
        logged_event(view, command, event);
    }
}

Director__Result *api_view_event(const struct api_view *view, const Director__Command *applied, char path[static 512])
{
    struct event event = {.path = path};
    struct view_place place;
    struct error error;
    describe_command(view, applied, &event);
    if (event.line.used == 0) {
        text_done(&event.line);
        return NULL;
    }
    Director__Result *result = view_result_new();
    view_result_line(result, "%s", text_get(&event.line));
    text_done(&event.line);
    if (event.deleted)
        view_result_object(result, path, "", "")->deleted = true;
    else if (view_resolve(view, path, &place, &error) == 0)
        (void)view_object_add(view, &place, true, result);
    return result;
}
