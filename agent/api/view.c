/* LIST, GET, DESCRIBE and STATUS. */
#include "agent/api/view_internal.h"

#include <errno.h>
#include <string.h>

static bool is_preview(const Director__Call *call)
{
    const char *preview = view_call_value(call, "preview");
    return call->verb == DIRECTOR__VERB__ACTION && preview && strcmp(preview, "yes") == 0;
}

bool api_view_is_read(const Director__Call *call)
{
    return call->verb == DIRECTOR__VERB__LIST || call->verb == DIRECTOR__VERB__GET ||
           call->verb == DIRECTOR__VERB__STATUS || call->verb == DIRECTOR__VERB__DESCRIBE || is_preview(call);
}

struct listing {
    const struct api_view *view;
    Director__Result *result;
    unsigned depth;
    bool full;
};

static bool list_one(const struct view_place *child, void *context)
{
    struct listing *listing = context;
    (void)view_object_add(listing->view, child, listing->full, listing->result);
    if (listing->depth > 1 && child->kind != VIEW_EVENTS) { /* the many events only when they are asked for */
        listing->depth--;
        view_children(listing->view, child, list_one, listing);
        listing->depth++;
    }
    return true;
}

/* ---- DESCRIBE ------------------------------------------------------------------------------------------------------------- */

enum { CHOICES_MAX = 1000 };

static bool choice_one(const struct view_place *child, void *context)
{
    Director__Property *property = context;
    view_property_choice(property, view_last_name(child->path));
    return property->n_choices < CHOICES_MAX;
}

static void choices_of_folder(const struct api_view *view, enum view_kind kind, const char *path, Director__Property *property)
{
    struct view_place folder = {.kind = kind};
    (void)snprintf(folder.path, sizeof(folder.path), "%s", path);
    view_children(view, &folder, choice_one, property);
}

/* Store names of all nodes, each once. */
static void choices_of_stores(const struct api_view *view, Director__Property *property)
{
    for (size_t i = 0; i < tree_store_count(view->tree); i++) {
        const char *name = tree_store_at(view->tree, i)->name;
        bool seen = false;
        for (size_t k = 0; k < property->n_choices && !seen; k++)
            seen = strcmp(property->choices[k], name) == 0;
        if (!seen)
            view_property_choice(property, name);
    }
}

static void choices_of_plugins(const struct api_view *view, Director__Property *property)
{
    struct api_live_plugin plugin = {0};
    for (unsigned i = 0; view->live && view->live->plugin && view->live->plugin(view->live_context, i, &plugin); i++)
        if (strcmp(plugin.kind, "backstore") == 0)
            view_property_choice(property, plugin.name);
}

static void choices_of_replicas(const struct api_view *view, const struct tree_volume *volume, Director__Property *property)
{
    for (unsigned i = 0; i < volume->replica_count; i++)
        if (volume->replicas[i].nodeid)
            view_property_choice(property, view_node_name(view, volume->replicas[i].nodeid));
}

static bool choices_of_policy(const char *name, Director__Property *property)
{
    static const struct {
        const char *name, *values[2];
    } policies[] = {{"profile", {"fast", "steady"}},
                    {"cache", {"write-through", "write-back"}}, {"reads", {"lease", "verified"}}, {"checksum", {"on", "off"}}};
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
        if (strcmp(policies[i].name, name) != 0)
            continue;
        view_property_choice(property, policies[i].values[0]);
        view_property_choice(property, policies[i].values[1]);
        return true;
    }
    return false;
}

/* The values a property or argument can have now, where they can be listed. */
static void choices(const struct api_view *view, const struct view_place *place, Director__Property *property)
{
    const char *name = property->name;
    if (strcmp(property->type, "bool") == 0) {
        view_property_choice(property, "yes");
        view_property_choice(property, "no");
    } else if (strcmp(name, "owner") == 0 && place->kind == VIEW_VOLUME) {
        for (unsigned i = 0; i < place->volume->replica_count; i++)
            if (place->volume->isr >> i & 1)
                view_property_choice(property, view_node_name(view, place->volume->replicas[i].nodeid));
    } else if (place->kind == VIEW_VOLUME && (strcmp(name, "node") == 0 || strcmp(name, "from") == 0)) {
        choices_of_replicas(view, place->volume, property);
    } else if (place->kind == VIEW_VOLUME && strcmp(name, "to") == 0) {
        choices_of_folder(view, VIEW_NODES, "/nodes", property);
    } else if (choices_of_policy(name, property)) {
        return;
    } else if (strcmp(name, "nodes") == 0 && place->kind == VIEW_VOLUMES) {
        choices_of_folder(view, VIEW_NODES, "/nodes", property);
    } else if (strcmp(name, "store") == 0 && (place->kind == VIEW_VOLUMES || place->kind == VIEW_VOLUME)) {
        choices_of_stores(view, property);
    } else if (strcmp(name, "replicas") == 0 && place->kind == VIEW_VOLUMES) {
        for (char count[2] = "1"; count[0] <= '0' + (int)TREE_REPLICAS_MAX; count[0]++)
            view_property_choice(property, count);
    } else if (strcmp(name, "block_size") == 0 && place->kind == VIEW_VOLUMES) {
        view_property_choice(property, "512");
        view_property_choice(property, "4096");
    } else if (strcmp(name, "volume") == 0 && place->kind == VIEW_LUNS) {
        choices_of_folder(view, VIEW_VOLUMES, "/volumes", property);
    } else if (strcmp(name, "target") == 0 && place->kind == VIEW_VOLUME) {
        choices_of_folder(view, VIEW_TARGETS, "/targets", property);
    } else if (strcmp(name, "plugin") == 0 && place->kind == VIEW_STORES) {
        choices_of_plugins(view, property);
    }
}

static void describe(const struct api_view *view, const struct view_place *place, Director__Result *result)
{
    Director__Object *object = view_object_add(view, place, true, result);
    view_string_set(&object->summary, view_kind_help(place->kind));
    for (size_t i = 0; i < object->n_properties; i++)
        if (object->properties[i]->writable)
            choices(view, place, object->properties[i]);
    for (const struct view_verb *verb = view_verbs; verb->word; verb++) {
        if (verb->kind != place->kind)
            continue;
        object = view_result_object(result, verb->word, "verb", verb->help);
        object->destructive = verb->destructive;
        for (const struct view_property *argument = verb->arguments; argument->name; argument++)
            choices(view, place, view_object_property(object, argument, ""));
    }
}

/* ---- all of them ------------------------------------------------------------------------------------------------------------ */

Director__Result *api_view_answer(const struct api_view *view, const Director__Call *call)
{
    struct view_place place;
    struct error error = {0};
    int code = view_resolve(view, call->path, &place, &error);
    if (code < 0)
        return view_result_error(code, error.message);
    Director__Result *result = view_result_new();
    struct listing listing = {view, result, call->depth ? call->depth : 1, call->full};
    switch (call->verb) {
    case DIRECTOR__VERB__LIST:
        (void)view_object_add(view, &place, call->full, result);
        view_children(view, &place, list_one, &listing);
        break;
    case DIRECTOR__VERB__GET:
        (void)view_object_add(view, &place, true, result);
        break;
    case DIRECTOR__VERB__DESCRIBE:
        describe(view, &place, result);
        break;
    case DIRECTOR__VERB__STATUS:
        view_status(view, &place, result);
        break;
    case DIRECTOR__VERB__ACTION:
        code = view_preview(view, &place, call, result, &error);
        if (code < 0) {
            api_result_free(result);
            return view_result_error(code, error.message);
        }
        break;
    default:
        api_result_free(result);
        return view_result_error(-ENOTSUP, "this agent does not know that verb; is it older than the shell?");
    }
    return result;
}
