/* Paths to objects and the children of objects. */
#include "agent/api/view_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

const char *view_last_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void child_at(const struct view_place *parent, enum view_kind kind, const char *name, struct view_place *child)
{
    *child = *parent;
    child->kind = kind;
    (void)snprintf(child->path, sizeof(child->path), "%.240s/%.255s", parent->kind == VIEW_CLUSTER ? "" : parent->path, name);
}

struct folder {
    enum view_kind of, kind;
    const char *name;
};

static const struct folder folders[] = {
    {VIEW_CLUSTER, VIEW_NODES, "nodes"},       {VIEW_CLUSTER, VIEW_VOLUMES, "volumes"},
    {VIEW_CLUSTER, VIEW_TARGETS, "targets"},   {VIEW_CLUSTER, VIEW_PLUGINS, "plugins"},
    {VIEW_CLUSTER, VIEW_TASKS, "tasks"},       {VIEW_CLUSTER, VIEW_EVENTS, "events"},
    {VIEW_NODE, VIEW_STORES, "stores"},        {VIEW_VOLUME, VIEW_REPLICAS, "replicas"},
    {VIEW_TARGET, VIEW_LUNS, "luns"},          {VIEW_TARGET, VIEW_SESSIONS, "sessions"},
};

static void visit_nodes(const struct api_view *view, struct view_place *child, const struct view_place *place,
                        view_visit *visit, void *context)
{
    for (size_t i = 0; i < tree_node_count(view->tree); i++) {
        const struct tree_node *node = tree_node_at(view->tree, i);
        child_at(place, VIEW_NODE, node->name, child);
        child->node = node;
        if (!visit(child, context))
            return;
    }
}

static void visit_stores(const struct api_view *view, struct view_place *child, const struct view_place *place,
                         view_visit *visit, void *context)
{
    for (size_t i = 0; i < tree_store_count(view->tree); i++) {
        const struct tree_store *store = tree_store_at(view->tree, i);
        if (store->nodeid != place->node->nodeid)
            continue;
        child_at(place, VIEW_STORE, store->name, child);
        child->store = store;
        if (!visit(child, context))
            return;
    }
}

static void visit_volumes(const struct api_view *view, struct view_place *child, const struct view_place *place,
                          view_visit *visit, void *context)
{
    for (size_t i = 0; i < tree_volume_count(view->tree); i++) {
        const struct tree_volume *volume = tree_volume_at(view->tree, i);
        child_at(place, VIEW_VOLUME, volume->name, child);
        child->volume = volume;
        if (!visit(child, context))
            return;
    }
}

static void visit_replicas(const struct api_view *view, struct view_place *child, const struct view_place *place,
                           view_visit *visit, void *context)
{
    for (unsigned i = 0; i < place->volume->replica_count; i++) {
        if (!place->volume->replicas[i].nodeid)
            continue;
        child_at(place, VIEW_REPLICA, view_node_name(view, place->volume->replicas[i].nodeid), child);
        child->replica = i;
        if (!visit(child, context))
            return;
    }
}

static void visit_targets(const struct api_view *view, struct view_place *child, const struct view_place *place,
                          view_visit *visit, void *context)
{
    for (size_t i = 0; i < tree_target_count(view->tree); i++) {
        const struct tree_target *target = tree_target_at(view->tree, i);
        child_at(place, VIEW_TARGET, target->iqn, child);
        child->target = target;
        if (!visit(child, context))
            return;
    }
}

static void visit_luns(struct view_place *child, const struct api_view *view, const struct view_place *place,
                       view_visit *visit, void *context)
{
    for (unsigned i = 0; i < place->target->lun_count; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "%" PRIu32, place->target->luns[i].lun);
        child_at(place, VIEW_LUN, name, child);
        child->lun = &place->target->luns[i];
        child->volume = tree_volume_by_id(view->tree, child->lun->volume);
        if (!visit(child, context))
            return;
    }
}

static void visit_live(const struct api_view *view, struct view_place *child, const struct view_place *place,
                       view_visit *visit, void *context)
{
    const struct api_live *live = view->live;
    for (unsigned i = 0; place->kind == VIEW_SESSIONS && live && live->session && i < 100000; i++) {
        struct api_live_session session = {0};
        if (!live->session(view->live_context, place->target->iqn, i, &session))
            return;
        child_at(place, VIEW_SESSION, session.name, child);
        child->session = session;
        if (!visit(child, context))
            return;
    }
    for (unsigned i = 0; place->kind == VIEW_PLUGINS && live && live->plugin && i < 1000; i++) {
        struct api_live_plugin plugin = {0};
        if (!live->plugin(view->live_context, i, &plugin))
            return;
        child_at(place, VIEW_PLUGIN, plugin.name, child);
        child->plugin = plugin;
        if (!visit(child, context))
            return;
    }
}

static void visit_events(const struct api_view *view, struct view_place *child, const struct view_place *place,
                         view_visit *visit, void *context)
{
    for (size_t i = 0; i < tree_event_count(view->tree); i++) {
        char name[24];
        const struct tree_event *event = tree_event_at(view->tree, i);
        (void)snprintf(name, sizeof(name), "%" PRIu64, event->id);
        child_at(place, VIEW_EVENT, name, child);
        child->event = event;
        if (!visit(child, context))
            return;
    }
}

void view_children(const struct api_view *view, const struct view_place *place, view_visit *visit, void *context)
{
    struct view_place child;
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        if (folders[i].of != place->kind)
            continue;
        child_at(place, folders[i].kind, folders[i].name, &child);
        if (!visit(&child, context))
            return;
    }
    switch (place->kind) {
    case VIEW_NODES:
        visit_nodes(view, &child, place, visit, context);
        break;
    case VIEW_STORES:
        visit_stores(view, &child, place, visit, context);
        break;
    case VIEW_VOLUMES:
        visit_volumes(view, &child, place, visit, context);
        break;
    case VIEW_REPLICAS:
        visit_replicas(view, &child, place, visit, context);
        break;
    case VIEW_TARGETS:
        visit_targets(view, &child, place, visit, context);
        break;
    case VIEW_LUNS:
        visit_luns(&child, view, place, visit, context);
        break;
    case VIEW_TASKS:
        view_task_visit(view, &child, place, visit, context);
        break;
    case VIEW_EVENTS:
        visit_events(view, &child, place, visit, context);
        break;
    case VIEW_SESSIONS:
    case VIEW_PLUGINS:
        visit_live(view, &child, place, visit, context);
        break;
    default:
        break;
    }
}

static bool seen_one(const struct view_place *child, void *context)
{
    (void)child;
    *(bool *)context = true;
    return false;
}

bool view_has_children(const struct api_view *view, const struct view_place *place)
{
    bool any = false;
    view_children(view, place, seen_one, &any);
    return any;
}

struct search {
    const char *name;
    size_t length;
    struct view_place *found; /* set when there */
    bool there;
    struct text_nearest nearest;
};

static bool match(const struct view_place *child, void *context)
{
    struct search *search = context;
    const char *name = view_last_name(child->path);
    if (strlen(name) == search->length && memcmp(name, search->name, search->length) == 0) {
        *search->found = *child;
        search->there = true;
        return false;
    }
    return true;
}

static bool offer(const struct view_place *child, void *context)
{
    struct search *search = context;
    text_nearest_offer(&search->nearest, view_last_name(child->path));
    return true;
}

/* By the tree's own index where there is one: a cluster may hold thousands of volumes. */
static bool quick_match(const struct api_view *view, const struct view_place *place, const char *name,
                        struct view_place *found)
{
    const struct tree_volume *volume;
    const struct tree_target *target;
    if (place->kind == VIEW_VOLUMES && (volume = tree_volume_by_name(view->tree, name))) {
        child_at(place, VIEW_VOLUME, name, found);
        found->volume = volume;
        return true;
    }
    if (place->kind == VIEW_TARGETS && (target = tree_target_by_iqn(view->tree, name))) {
        child_at(place, VIEW_TARGET, name, found);
        found->target = target;
        return true;
    }
    return false;
}

static int not_found(const struct api_view *view, const struct view_place *place, const char *name, struct error *error)
{
    struct search search = {.nearest = {.word = name}};
    const char *folder = place->kind == VIEW_CLUSTER ? "" : place->path;
    view_children(view, place, offer, &search);
    if (search.nearest.best[0])
        return error_set(error, -ENOENT, "no such object: %.80s/%.64s; did you mean %.80s/%.64s?", folder, name, folder,
                         search.nearest.best);
    if (!view_has_children(view, place))
        return error_set(error, -ENOENT, "no such object: %.120s/%.64s; there is nothing below %.120s", folder, name,
                         place->path);
    return error_set(error, -ENOENT, "no such object: %.80s/%.64s; to see what there is: ls %.80s", folder, name,
                     place->path);
}

int view_resolve(const struct api_view *view, const char *path, struct view_place *ret_place, struct error *error)
{
    struct view_place trail[16] = {{.kind = VIEW_CLUSTER, .path = "/"}};
    unsigned depth = 0;
    for (const char *p = path; *p;) {
        size_t length = strcspn(p, "/");
        char name[256];
        if (length == 0) {
            p++;
            continue;
        }
        if (length >= sizeof(name))
            return error_set(error, -ENOENT, "no such object: a name of %zu bytes is too long", length);
        memcpy(name, p, length);
        name[length] = '\0';
        p += length;
        if (strcmp(name, ".") == 0)
            continue;
        if (strcmp(name, "..") == 0) {
            depth -= depth > 0;
            continue;
        }
        ASSERT(depth + 1 < ARRAY_SIZE(trail)); /* the view is four levels deep */
        struct search search = {.name = name, .length = length, .found = &trail[depth + 1]};
        if (!quick_match(view, &trail[depth], name, &trail[depth + 1])) {
            view_children(view, &trail[depth], match, &search);
            if (!search.there)
                return not_found(view, &trail[depth], name, error);
        }
        depth++;
    }
    *ret_place = trail[depth];
    return 0;
}
