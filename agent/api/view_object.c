/* Objects of the view as protobuf messages: building blocks, summaries, property values. */
#include "agent/api/view_internal.h"

#include "director/base/size.h"
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

/* ---- building: memory as protobuf-c's free functions expect it; out of memory ends the agent -------------------------- */

static void *need(void *memory)
{
    ASSERT(memory);
    return memory;
}

/* Room for one more pointer in an array of count, which doubles at each power of two. */
static void *grow(void *array, size_t count)
{
    if (count & (count - 1))
        return array;
    return need(realloc(array, (count ? 2 * count : 1) * sizeof(void *)));
}

void view_string_set(char **string, const char *value)
{
    if (*string != (char *)protobuf_c_empty_string)
        free(*string);
    *string = need(strdup(value));
}

Director__Result *view_result_new(void)
{
    Director__Result *result = need(malloc(sizeof(*result)));
    director__result__init(result);
    return result;
}

Director__Result *view_result_error(int code, const char *message)
{
    Director__Result *result = view_result_new();
    result->code = code;
    view_string_set(&result->message, message);
    return result;
}

void api_result_free(Director__Result *result)
{
    if (result)
        director__result__free_unpacked(result, NULL);
}

Director__Object *view_result_object(Director__Result *result, const char *path, const char *kind, const char *summary)
{
    Director__Object *object = need(malloc(sizeof(*object)));
    director__object__init(object);
    view_string_set(&object->path, path);
    view_string_set(&object->kind, kind);
    view_string_set(&object->summary, summary);
    result->objects = grow(result->objects, result->n_objects);
    result->objects[result->n_objects++] = object;
    return object;
}

void view_result_line(Director__Result *result, const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    result->lines = grow(result->lines, result->n_lines);
    result->lines[result->n_lines++] = need(strdup(line));
}

Director__Property *view_object_property(Director__Object *object, const struct view_property *schema, const char *value)
{
    Director__Property *property = need(malloc(sizeof(*property)));
    director__property__init(property);
    view_string_set(&property->name, schema->name);
    view_string_set(&property->value, value);
    view_string_set(&property->type, schema->type);
    view_string_set(&property->help, schema->help);
    view_string_set(&property->default_text, schema->default_text ? schema->default_text : "");
    property->writable = schema->writable;
    property->required = schema->required;
    object->properties = grow(object->properties, object->n_properties);
    object->properties[object->n_properties++] = property;
    return property;
}

void view_property_choice(Director__Property *property, const char *value)
{
    property->choices = grow(property->choices, property->n_choices);
    property->choices[property->n_choices++] = need(strdup(value));
}

/* ---- figures ------------------------------------------------------------------------------------------------------------- */

static unsigned nodes_online(const struct api_view *view)
{
    unsigned online = 0;
    for (size_t i = 0; i < tree_node_count(view->tree); i++)
        online += !view_node_offline(view, tree_node_at(view->tree, i)->nodeid);
    return online;
}

static unsigned volumes_owned(const struct api_view *view, uint16_t nodeid)
{
    unsigned count = 0;
    for (size_t i = 0; i < tree_volume_count(view->tree); i++)
        count += tree_volume_at(view->tree, i)->owner == nodeid;
    return count;
}

/* Replicas on a node; store NULL: in any of its stores. */
static unsigned replicas_on(const struct api_view *view, uint16_t nodeid, const char *store)
{
    unsigned count = 0;
    for (size_t i = 0; i < tree_volume_count(view->tree); i++) {
        const struct tree_volume *volume = tree_volume_at(view->tree, i);
        int replica = tree_volume_replica_of(volume, nodeid);
        count += replica >= 0 && (!store || strcmp(volume->replicas[replica].store, store) == 0);
    }
    return count;
}

static unsigned volumes_not_healthy(const struct api_view *view)
{
    unsigned count = 0;
    for (size_t i = 0; i < tree_volume_count(view->tree); i++) {
        struct view_volume_judgement judgement;
        view_judge_volume(view, tree_volume_at(view->tree, i), &judgement);
        count += judgement.health != VIEW_HEALTHY;
    }
    return count;
}

static const char *cluster_state(const struct api_view *view)
{
    if (!view_quorate(view))
        return "not quorate";
    if (nodes_online(view) < tree_node_count(view->tree) || volumes_not_healthy(view))
        return "degraded";
    return "healthy";
}

static void export_name(const struct api_view *view, const struct tree_volume *volume, struct text *text)
{
    uint32_t lun;
    const struct tree_target *target = tree_volume_export(view->tree, volume->id, &lun);
    if (target)
        text_addf(text, "%s lun %" PRIu32, target->iqn, lun);
}

static uint64_t store_free(const struct tree_store *store)
{
    return store->capacity_bytes > store->allocated_bytes ? store->capacity_bytes - store->allocated_bytes : 0;
}

static void portals(const struct api_view *view, struct text *text)
{
    for (size_t i = 0; i < tree_node_count(view->tree); i++) {
        const struct tree_node *node = tree_node_at(view->tree, i);
        const char *form = strchr(node->address, ':') ? "%s[%s]:%u" : "%s%s:%u";
        if (node->address[0])
            text_addf(text, form, text->used ? " " : "", node->address, view->portal_port ? view->portal_port : 3260);
    }
}

/* ---- summaries: a state, a comma, details --------------------------------------------------------------------------------- */

#define COUNT(n, word) (unsigned)(n), (n) == 1 ? word : word "s"

static void summary_volumes(const struct api_view *view, struct text *summary)
{
    unsigned bad = volumes_not_healthy(view);
    uint64_t bytes = 0;
    char size[SIZE_TEXT_SIZE];
    for (size_t i = 0; i < tree_volume_count(view->tree); i++)
        bytes += tree_volume_at(view->tree, i)->size_bytes;
    text_addf(summary, "%u %s", COUNT(tree_volume_count(view->tree), "volume"));
    if (bytes)
        text_addf(summary, ", %s", size_format(bytes, size));
    if (bad)
        text_addf(summary, ", %u not healthy", bad);
}

static void summary_volume(const struct api_view *view, const struct tree_volume *volume, struct text *summary)
{
    struct view_volume_judgement judgement;
    char size[SIZE_TEXT_SIZE];
    view_judge_volume(view, volume, &judgement);
    text_addf(summary, "%s, %s, owner %s, %u of %u in sync", view_health_word(judgement.health),
              size_format_exact(volume->size_bytes, size), view_node_name(view, volume->owner), judgement.in_sync,
              tree_volume_replicas(volume));
}

static void summary_replica(const struct api_view *view, const struct view_place *place, struct text *summary)
{
    const struct tree_volume *volume = place->volume;
    const struct tree_replica *replica = &volume->replicas[place->replica];
    struct view_volume_judgement judgement;
    view_judge_volume(view, volume, &judgement);
    view_replica_state(view, volume, place->replica, &judgement, summary);
    text_addf(summary, ", %sstore %s", replica->nodeid == volume->owner ? "owner, " : "", replica->store);
}

static unsigned count_children(const struct api_view *view, const struct view_place *place);

static bool running_one(const struct view_place *child, void *context)
{
    *(unsigned *)context += view_task_running(child);
    return true;
}

static void summary_tasks(const struct api_view *view, const struct view_place *place, struct text *summary)
{
    unsigned running = 0, all = count_children(view, place);
    view_children(view, place, running_one, &running);
    text_addf(summary, "%u running", running);
    if (all > running)
        text_addf(summary, ", %u ended", all - running);
}

void view_summary(const struct api_view *view, const struct view_place *place, struct text *summary)
{
    const struct tree *tree = view->tree;
    char a[SIZE_TEXT_SIZE], b[SIZE_TEXT_SIZE];
    switch (place->kind) {
    case VIEW_CLUSTER:
        text_addf(summary, "%s, cluster %s, %u of %zu nodes online", cluster_state(view), tree_get_cluster(tree)->name,
                  nodes_online(view), tree_node_count(tree));
        break;
    case VIEW_NODES:
        text_addf(summary, "%u %s, %u online", COUNT(tree_node_count(tree), "node"), nodes_online(view));
        break;
    case VIEW_NODE:
        text_addf(summary, "%s, %s", view_node_state(view, place->node->nodeid), place->node->address);
        if (!place->node->voter)
            text_add(summary, ", catching up");
        if (volumes_owned(view, place->node->nodeid))
            text_addf(summary, ", serves %u %s", COUNT(volumes_owned(view, place->node->nodeid), "volume"));
        break;
    case VIEW_STORE:
        text_addf(summary, "%s, %s of %s free, %s", place->store->plugin, size_format(store_free(place->store), a),
                  size_format(place->store->capacity_bytes, b), place->store->path);
        break;
    case VIEW_VOLUMES:
        summary_volumes(view, summary);
        break;
    case VIEW_VOLUME:
        summary_volume(view, place->volume, summary);
        break;
    case VIEW_REPLICA:
        summary_replica(view, place, summary);
        break;
    case VIEW_TARGETS:
        text_addf(summary, "%u %s", COUNT(tree_target_count(tree), "target"));
        break;
    case VIEW_TARGET:
        text_addf(summary, "%u %s, %u %s", COUNT(place->target->lun_count, "lun"),
                  COUNT(view_session_count(view, place->target->iqn), "session"));
        break;
    case VIEW_LUN:
        text_addf(summary, "volume %s", place->volume ? place->volume->name : "?");
        if (place->volume)
            text_addf(summary, ", %s", size_format_exact(place->volume->size_bytes, a));
        break;
    case VIEW_SESSION:
        text_addf(summary, "%s, from %s, by %s", place->session.initiator, place->session.address, place->session.node);
        break;
    case VIEW_PLUGIN:
        text_addf(summary, "%s, version %s, %s", place->plugin.kind, place->plugin.version, place->plugin.summary);
        break;
    case VIEW_STORES:
        text_addf(summary, "%u %s", COUNT(count_children(view, place), "store"));
        break;
    case VIEW_REPLICAS:
        text_addf(summary, "%u %s", COUNT(tree_volume_replicas(place->volume), "replica"));
        break;
    case VIEW_LUNS:
        text_addf(summary, "%u %s", COUNT(place->target->lun_count, "lun"));
        break;
    case VIEW_SESSIONS:
        text_addf(summary, "%u %s", COUNT(view_session_count(view, place->target->iqn), "session"));
        break;
    case VIEW_PLUGINS:
        text_addf(summary, "%u loaded", count_children(view, place));
        break;
    case VIEW_TASKS:
        summary_tasks(view, place, summary);
        break;
    case VIEW_TASK:
        view_task_summary(view, place, summary);
        break;
    case VIEW_EVENTS:
        text_addf(summary, "%u %s", COUNT(tree_event_count(tree), "event"));
        break;
    case VIEW_EVENT:
        view_time(place->event->time_ms, summary);
        text_add(summary, ", ");
        view_event_words(view, place->event, summary);
        break;
    case VIEW_KIND_COUNT:
        break;
    }
}

static bool count_one(const struct view_place *child, void *context)
{
    (void)child;
    ++*(unsigned *)context;
    return true;
}

static unsigned count_children(const struct api_view *view, const struct view_place *place)
{
    unsigned count = 0;
    view_children(view, place, count_one, &count);
    return count;
}

/* ---- property values: an empty value means that the property is not known now ------------------------------------------ */

#define IS(word) (strcmp(name, word) == 0)
static const char *yes_no(bool value)
{
    return value ? "yes" : "no";
}

static void uuid_value(const struct uuid *uuid, struct text *value)
{
    char text[UUID_TEXT_SIZE];
    uuid_format(uuid, text);
    text_add(value, text);
}

static void size_value(uint64_t bytes, struct text *value)
{
    char text[SIZE_TEXT_SIZE];
    text_add(value, size_format_exact(bytes, text));
}

static void cluster_value(const struct api_view *view, const char *name, struct text *value)
{
    const struct tree_cluster *cluster = tree_get_cluster(view->tree);
    unsigned voters = 0;
    for (size_t i = 0; i < tree_node_count(view->tree); i++)
        voters += tree_node_at(view->tree, i)->voter;
    if (IS("name"))
        text_add(value, cluster->name);
    else if (IS("state"))
        text_add(value, cluster_state(view));
    else if (IS("quorate") && view_quorum_known(view))
        text_add(value, yes_no(view_quorate(view)));
    else if (IS("leader") && view->live && view->live->leader && view->live->leader(view->live_context))
        text_add(value, view->live->leader(view->live_context));
    else if (IS("nodes"))
        text_addf(value, "%zu", tree_node_count(view->tree));
    else if (IS("nodes_online"))
        text_addf(value, "%u", nodes_online(view));
    else if (IS("voters"))
        text_addf(value, "%u", voters);
    else if (IS("volumes"))
        text_addf(value, "%zu", tree_volume_count(view->tree));
    else if (IS("targets"))
        text_addf(value, "%zu", tree_target_count(view->tree));
    else if (IS("profile"))
        text_add(value, tree_profile_timings(cluster->profile)->name);
    else if (IS("uuid"))
        uuid_value(&cluster->uuid, value);
}

static void node_value(const struct api_view *view, const struct tree_node *node, const char *name, struct text *value)
{
    if (IS("name"))
        text_add(value, node->name);
    else if (IS("state"))
        text_add(value, view_node_state(view, node->nodeid));
    else if (IS("address"))
        text_add(value, node->address);
    else if (IS("id"))
        text_addf(value, "%u", node->nodeid);
    else if (IS("voter"))
        text_add(value, yes_no(node->voter));
    else if (IS("volumes_owned"))
        text_addf(value, "%u", volumes_owned(view, node->nodeid));
    else if (IS("replicas"))
        text_addf(value, "%u", replicas_on(view, node->nodeid, NULL));
    else if (IS("software"))
        text_add(value, node->software);
    else if (IS("uuid"))
        uuid_value(&node->uuid, value);
}

static void store_value(const struct api_view *view, const struct tree_store *store, const char *name, struct text *value)
{
    uint64_t capacity, free_bytes;
    if (IS("name"))
        text_add(value, store->name);
    else if (IS("plugin"))
        text_add(value, store->plugin);
    else if (IS("path"))
        text_add(value, store->path);
    else if (IS("capacity"))
        size_value(store->capacity_bytes, value);
    else if (IS("allocated"))
        size_value(store->allocated_bytes, value);
    else if (IS("free"))
        size_value(store_free(store), value);
    else if (IS("replicas"))
        text_addf(value, "%u", replicas_on(view, store->nodeid, store->name));
    else if (view->live && view->live->store_space &&
             view->live->store_space(view->live_context, store->nodeid, store->name, &capacity, &free_bytes))
        size_value(IS("space_total") ? capacity : free_bytes, value);
}

static void volume_live_value(const struct view_volume_judgement *judgement, const char *name, struct text *value)
{
    if (!judgement->live.known)
        return;
    uint64_t figure = IS("read_bytes")    ? judgement->live.read_bytes
                      : IS("written_bytes") ? judgement->live.written_bytes
                      : IS("read_requests") ? judgement->live.reads
                      : IS("resynced_bytes") ? judgement->live.resynced_bytes
                      : IS("repaired_blocks") ? judgement->live.repaired_blocks
                                            : judgement->live.writes;
    text_addf(value, "%" PRIu64, figure);
}

static bool policy_value(const struct tree_policy *policy, const char *name, struct text *value)
{
    uint32_t slow_ms = policy->slow_ms ? policy->slow_ms : 5000;
    if (IS("cache"))
        text_add(value, policy->write_back ? "write-back" : "write-through");
    else if (IS("reads"))
        text_add(value, policy->verified_reads ? "verified" : "lease");
    else if (IS("checksum"))
        text_add(value, policy->checksum ? "on" : "off");
    else if (IS("slow"))
        text_addf(value, slow_ms % 1000 ? "%ums" : "%us", slow_ms % 1000 ? slow_ms : slow_ms / 1000);
    else if (IS("in_sync_min"))
        text_addf(value, "%u", policy->in_sync_min ? policy->in_sync_min : 1);
    else if (IS("resync_floor"))
        size_value(policy->resync_floor ? policy->resync_floor : 4u << 20, value);
    else if (IS("resync_cap"))
        size_value(policy->resync_cap, value);
    else
        return false;
    return true;
}

static void volume_value(const struct api_view *view, const struct tree_volume *volume, const char *name, struct text *value)
{
    struct view_volume_judgement judgement;
    view_judge_volume(view, volume, &judgement);
    if (IS("name"))
        text_add(value, volume->name);
    else if (IS("state"))
        text_add(value, view_health_word(judgement.health));
    else if (IS("reason"))
        text_add(value, judgement.reason);
    else if (IS("size"))
        size_value(volume->size_bytes, value);
    else if (IS("replicas"))
        text_addf(value, "%u", tree_volume_replicas(volume));
    else if (IS("owner"))
        text_add(value, view_node_name(view, volume->owner));
    else if (IS("in_sync"))
        view_replica_names(view, volume, volume->isr, " ", value);
    else if (IS("export"))
        export_name(view, volume, value);
    else if (IS("block_size"))
        text_addf(value, "%" PRIu32, volume->block_bytes);
    else if (IS("epoch"))
        text_addf(value, "%" PRIu64, volume->epoch);
    else if (IS("created"))
        view_time(volume->created_ms, value);
    else if (IS("id"))
        text_addf(value, "%" PRIu64, volume->id);
    else if (IS("uuid"))
        uuid_value(&volume->uuid, value);
    else if (IS("growing_to")) {
        if (volume->size_wanted)
            size_value(volume->size_wanted, value);
    } else if (policy_value(&volume->policy, name, value))
        return;
    else
        volume_live_value(&judgement, name, value);
}

/* What its node says of it. */
static void replica_own_value(const struct api_view *view, const struct tree_volume *volume, const struct tree_replica *replica,
                              const char *name, struct text *value)
{
    struct api_live_replica own;
    if (!view->live || !view->live->replica || view_node_offline(view, replica->nodeid) ||
        !view->live->replica(view->live_context, volume->id, replica->nodeid, &own))
        return;
    if (IS("intent_marks"))
        text_addf(value, "%" PRIu64, own.intent_marks);
    else if (IS("carry_marks"))
        text_addf(value, "%" PRIu64, own.carry_marks);
    else if (IS("checksum_errors"))
        text_addf(value, "%" PRIu64, own.checksum_errors);
}

static void replica_value(const struct api_view *view, const struct view_place *place, const char *name, struct text *value)
{
    const struct tree_volume *volume = place->volume;
    const struct tree_replica *replica = &volume->replicas[place->replica];
    struct view_volume_judgement judgement;
    view_judge_volume(view, volume, &judgement);
    bool syncing = judgement.live.known && judgement.live.replica[place->replica].syncing;
    if (IS("node"))
        text_add(value, view_node_name(view, replica->nodeid));
    else if (IS("state"))
        view_replica_state(view, volume, place->replica, &judgement, value);
    else if (IS("owner"))
        text_add(value, yes_no(replica->nodeid == volume->owner));
    else if (IS("store"))
        text_add(value, replica->store);
    else if (IS("index"))
        text_addf(value, "%u", place->replica);
    else if (IS("incarnation"))
        text_addf(value, "%016" PRIx64, replica->incarnation);
    else if (syncing && IS("resync_done"))
        size_value(judgement.live.replica[place->replica].done_bytes, value);
    else if (syncing && IS("resync_total"))
        size_value(judgement.live.replica[place->replica].total_bytes, value);
    else if (syncing && IS("resync_speed"))
        size_value(judgement.live.replica[place->replica].bytes_per_second, value);
    else if (syncing && IS("resync_sent"))
        size_value(judgement.live.replica[place->replica].sent_bytes, value);
    else if (syncing && IS("resync_seconds_left") && judgement.live.replica[place->replica].left_ms != UINT64_MAX)
        text_addf(value, "%" PRIu64, (judgement.live.replica[place->replica].left_ms + 999) / 1000);
    else if (IS("out_since"))
        view_time(replica->left_ms, value);
    else if (IS("held"))
        text_add(value, yes_no(replica->held));
    else if (judgement.live.known && IS("dirty"))
        size_value(judgement.live.replica[place->replica].dirty_bytes, value);
    else if (judgement.live.known && IS("read_errors"))
        text_addf(value, "%" PRIu64, judgement.live.replica[place->replica].read_errors);
    else if (judgement.live.known && IS("repaired_blocks"))
        text_addf(value, "%" PRIu64, judgement.live.replica[place->replica].repaired_blocks);
    else
        replica_own_value(view, volume, replica, name, value);
}

static void target_value(const struct api_view *view, const struct tree_target *target, const char *name, struct text *value)
{
    if (IS("iqn"))
        text_add(value, target->iqn);
    else if (IS("luns"))
        text_addf(value, "%u", target->lun_count);
    else if (IS("sessions"))
        text_addf(value, "%u", view_session_count(view, target->iqn));
    else if (IS("portals"))
        portals(view, value);
}

static void lun_value(const struct api_view *view, const struct view_place *place, const char *name, struct text *value)
{
    if (IS("lun"))
        text_addf(value, "%" PRIu32, place->lun->lun);
    else if (IS("volume") && place->volume)
        text_add(value, place->volume->name);
    else if (place->volume)
        volume_value(view, place->volume, name, value); /* size, state */
}

static void place_value(const struct api_view *view, const struct view_place *place, const char *name, struct text *value)
{
    switch (place->kind) {
    case VIEW_CLUSTER:
        cluster_value(view, name, value);
        break;
    case VIEW_NODE:
        node_value(view, place->node, name, value);
        break;
    case VIEW_STORE:
        store_value(view, place->store, name, value);
        break;
    case VIEW_VOLUME:
        volume_value(view, place->volume, name, value);
        break;
    case VIEW_REPLICA:
        replica_value(view, place, name, value);
        break;
    case VIEW_TARGET:
        target_value(view, place->target, name, value);
        break;
    case VIEW_LUN:
        lun_value(view, place, name, value);
        break;
    case VIEW_SESSION:
        text_add(value, IS("initiator") ? place->session.initiator
                        : IS("address") ? place->session.address
                                        : place->session.node);
        break;
    case VIEW_TASK:
        view_task_value(view, place, name, value);
        break;
    case VIEW_EVENT:
        view_event_value(view, place->event, name, value);
        break;
    case VIEW_PLUGIN:
        text_add(value, IS("name")      ? place->plugin.name
                        : IS("kind")    ? place->plugin.kind
                        : IS("version") ? place->plugin.version
                                        : place->plugin.summary);
        break;
    default:
        break;
    }
}

Director__Object *view_object_add(const struct api_view *view, const struct view_place *place, bool full,
                                  Director__Result *result)
{
    struct text text = {0};
    view_summary(view, place, &text);
    Director__Object *object = view_result_object(result, place->path, view_kind_word(place->kind), text_get(&text));
    text_done(&text);
    object->has_children = view_has_children(view, place);
    for (const struct view_property *schema = view_properties(place->kind); full && schema->name; schema++) {
        place_value(view, place, schema->name, &text);
        ASSERT(text_ok(&text));
        (void)view_object_property(object, schema, text_get(&text));
        text_done(&text);
    }
    return object;
}
