/* STATUS: what a person wants to know first, worst things first, and what to do next. */
#include "agent/api/view_internal.h"

#include "director/base/size.h"
#include <string.h>

enum { HEALTHY_SHOWN_MAX = 32, ILL_SHOWN_MAX = 200 };

static unsigned online(const struct api_view *view)
{
    unsigned count = 0;
    for (size_t i = 0; i < tree_node_count(view->tree); i++)
        count += !view_node_offline(view, tree_node_at(view->tree, i)->nodeid);
    return count;
}

/* "resync of node3 43% (1.7G of 4.0G, 120M/s)" for each replica being copied to. */
static void resync_progress(const struct api_view *view, const struct tree_volume *volume,
                            const struct view_volume_judgement *judgement, struct text *text)
{
    char done[SIZE_TEXT_SIZE], total[SIZE_TEXT_SIZE], speed[SIZE_TEXT_SIZE];
    for (unsigned i = 0; judgement->live.known && i < volume->replica_count; i++) {
        if (!volume->replicas[i].nodeid || !judgement->live.replica[i].syncing || volume->isr >> i & 1 || judgement->health >= VIEW_FAILING_OVER ||
            view_node_offline(view, volume->replicas[i].nodeid))
            continue;
        uint64_t total_bytes = judgement->live.replica[i].total_bytes, done_bytes = judgement->live.replica[i].done_bytes;
        text_addf(text, ", resync of %s", view_node_name(view, volume->replicas[i].nodeid));
        if (total_bytes)
            text_addf(text, " %u%% (%s of %s", (unsigned)(done_bytes >= total_bytes ? 100 : (double)done_bytes * 100 / (double)total_bytes),
                      size_format(done_bytes, done), size_format(total_bytes, total));
        if (total_bytes && judgement->live.replica[i].bytes_per_second)
            text_addf(text, ", %s/s", size_format(judgement->live.replica[i].bytes_per_second, speed));
        if (total_bytes)
            text_add(text, ")");
    }
}

static void volume_line(const struct api_view *view, const struct tree_volume *volume,
                        const struct view_volume_judgement *judgement, int width, Director__Result *result)
{
    struct text text = {0};
    char size[SIZE_TEXT_SIZE];
    text_addf(&text, "  %-*s  %-12s  %6s  owner %s, %u of %u in sync", width, volume->name, view_health_word(judgement->health),
              size_format_exact(volume->size_bytes, size), view_node_name(view, volume->owner), judgement->in_sync,
              tree_volume_replicas(volume));
    resync_progress(view, volume, judgement, &text);
    if (judgement->reason[0] && judgement->health != VIEW_RESYNCING)
        text_addf(&text, "; %s", judgement->reason);
    view_result_line(result, "%s", text_get(&text));
    text_done(&text);
}

static void status_nodes(const struct api_view *view, Director__Result *result)
{
    size_t count = tree_node_count(view->tree);
    int width = 0, address = 0;
    for (size_t i = 0; i < count; i++) {
        width = MAX(width, (int)strlen(tree_node_at(view->tree, i)->name));
        address = MAX(address, (int)strlen(tree_node_at(view->tree, i)->address));
    }
    for (size_t i = 0; i < count; i++) {
        const struct tree_node *node = tree_node_at(view->tree, i);
        const char *leader = view->live && view->live->leader ? view->live->leader(view->live_context) : NULL;
        unsigned serves = 0;
        for (size_t k = 0; k < tree_volume_count(view->tree); k++)
            serves += tree_volume_at(view->tree, k)->owner == node->nodeid;
        struct text text = {0};
        text_addf(&text, "  %-*s  %-12s  %-*s  serves %u %s%s%s", width, node->name, view_node_state(view, node->nodeid), address,
                  node->address, serves, serves == 1 ? "volume" : "volumes",
                  leader && strcmp(leader, node->name) == 0 ? ", orders changes" : "",
                  node->voter ? "" : ", catching up, does not vote yet");
        view_result_line(result, "%s", text_get(&text));
        text_done(&text);
    }
}

static void add_volume_object(const struct api_view *view, const struct tree_volume *volume, Director__Result *result)
{
    struct view_place place = {.kind = VIEW_VOLUME, .volume = volume};
    (void)snprintf(place.path, sizeof(place.path), "/volumes/%s", volume->name);
    (void)view_object_add(view, &place, true, result);
}

/* The volumes that are not healthy, then healthy ones while there is room. */
static void status_volumes(const struct api_view *view, Director__Result *result)
{
    unsigned shown[2] = {0}, left[2] = {0};
    const unsigned most[2] = {ILL_SHOWN_MAX, HEALTHY_SHOWN_MAX};
    int width = 0;
    for (size_t i = 0; i < tree_volume_count(view->tree); i++)
        width = MAX(width, (int)strlen(tree_volume_at(view->tree, i)->name));
    for (int healthy = 0; healthy <= 1; healthy++) {
        for (size_t i = 0; i < tree_volume_count(view->tree); i++) {
            const struct tree_volume *volume = tree_volume_at(view->tree, i);
            struct view_volume_judgement judgement;
            view_judge_volume(view, volume, &judgement);
            if ((judgement.health == VIEW_HEALTHY) != healthy)
                continue;
            if (shown[healthy] == most[healthy]) {
                left[healthy]++;
                continue;
            }
            shown[healthy]++;
            volume_line(view, volume, &judgement, width, result);
            add_volume_object(view, volume, result);
        }
        if (left[healthy])
            view_result_line(result, "  and %u more that are %s", left[healthy], healthy ? "healthy" : "not healthy");
    }
}

/* Names of the nodes (or voters only) that are offline, to say which to start. */
static void offline_nodes(const struct api_view *view, bool voters_only, struct text *names)
{
    for (size_t i = 0; i < tree_node_count(view->tree); i++) {
        const struct tree_node *node = tree_node_at(view->tree, i);
        if ((node->voter || !voters_only) && view_node_offline(view, node->nodeid))
            text_addf(names, "%s%s", names->used ? ", " : "", node->name);
    }
}

static void next_steps(const struct api_view *view, Director__Result *result)
{
    const struct tree_volume *lonely = NULL;
    struct text names = {0};
    if (!view_quorate(view)) {
        unsigned voters = 0;
        for (size_t i = 0; i < tree_node_count(view->tree); i++)
            voters += tree_node_at(view->tree, i)->voter;
        offline_nodes(view, true, &names);
        view_result_line(result, "next: bring back a majority, %u of the %u voting nodes; this one does not see %s", voters / 2 + 1,
                         voters, names.used ? text_get(&names) : "the others");
        text_done(&names);
        return;
    }
    if (tree_volume_count(view->tree) == 0) {
        if (tree_store_count(view->tree) == 0)
            view_result_line(result, "next: give a node a store: director /nodes/%s/stores create default path=/srv/director capacity=100G",
                             tree_node_count(view->tree) ? tree_node_at(view->tree, 0)->name : "NODE");
        else
            view_result_line(result, "next: make a volume: director /volumes create vol1 size=10G replicas=%u",
                             tree_node_count(view->tree) > 1 ? 2 : 1);
        return;
    }
    offline_nodes(view, false, &names);
    if (names.used) {
        view_result_line(result, "next: bring back %s", text_get(&names));
        text_done(&names);
        return;
    }
    for (size_t i = 0; i < MIN(tree_volume_count(view->tree), (size_t)HEALTHY_SHOWN_MAX) && !lonely; i++) {
        const struct tree_volume *volume = tree_volume_at(view->tree, i);
        if (!tree_volume_export(view->tree, volume->id, NULL))
            lonely = volume;
    }
    if (lonely)
        view_result_line(result, "next: let initiators reach %s: director /volumes/%s export", lonely->name, lonely->name);
}

static void status_cluster(const struct api_view *view, const struct view_place *place, Director__Result *result)
{
    Director__Object *cluster = view_object_add(view, place, true, result);
    const char *state = "";
    for (size_t i = 0; i < cluster->n_properties; i++)
        if (strcmp(cluster->properties[i]->name, "state") == 0)
            state = cluster->properties[i]->value;
    size_t nodes = tree_node_count(view->tree);
    if (uuid_is_zero(&tree_get_cluster(view->tree)->uuid)) {
        view_result_line(result, "this node is in no cluster yet: it looks for its peers, and forms one with those that hold its key");
        return;
    }
    const char *quorum = !view_quorum_known(view) ? "" : view_quorate(view) ? ", quorate" : ": changes and I/O wait for a majority";
    view_result_line(result, "cluster %s: %s, %u of %zu %s online%s", tree_get_cluster(view->tree)->name, state, online(view),
                     nodes, nodes == 1 ? "node" : "nodes", quorum);
    view_result_line(result, "nodes:");
    status_nodes(view, result);
    if (tree_volume_count(view->tree)) {
        view_result_line(result, "volumes:");
        status_volumes(view, result);
    }
    next_steps(view, result);
}

struct task_lines {
    const struct api_view *view;
    const struct tree_volume *volume;
    Director__Result *result;
};

static bool task_line(const struct view_place *child, void *context)
{
    struct task_lines *lines = context;
    struct text text = {0};
    bool resync = !child->task && child->replica != VIEW_NO_REPLICA; /* told in the first line */
    if (child->volume != lines->volume || resync || !view_task_running(child))
        return true;
    view_task_summary(lines->view, child, &text);
    view_result_line(lines->result, "  task %s: %s", view_last_name(child->path), text_get(&text));
    text_done(&text);
    return true;
}

static void status_tasks(const struct api_view *view, const struct tree_volume *volume, Director__Result *result)
{
    struct view_place folder = {.kind = VIEW_TASKS, .path = "/tasks"};
    struct task_lines lines = {view, volume, result};
    view_children(view, &folder, task_line, &lines);
}

/* The last resorts, where nothing else helps, and what they left behind. */
static void ways_out(const struct api_view *view, const struct tree_volume *volume, const struct view_volume_judgement *judgement,
                     Director__Result *result)
{
    bool lost = judgement->health == VIEW_SUSPENDED && view_quorate(view);
    for (unsigned i = 0; i < volume->replica_count && lost; i++)
        lost = !(volume->isr >> i & 1) || view_node_offline(view, volume->replicas[i].nodeid);
    for (unsigned i = 0; i < volume->replica_count; i++) {
        const struct tree_replica *replica = &volume->replicas[i];
        if (!replica->nodeid || volume->isr >> i & 1 || view_node_offline(view, replica->nodeid))
            continue;
        if (replica->held)
            view_result_line(result, "next: what %s holds is not used; to throw it away: director /volumes/%s discard node=%s reason=...",
                             view_node_name(view, replica->nodeid), volume->name, view_node_name(view, replica->nodeid));
        else if (lost)
            view_result_line(result, "only if those are lost for good: director /volumes/%s force node=%s reason=...; it says first what is lost",
                             volume->name, view_node_name(view, replica->nodeid));
    }
}

static void status_volume(const struct api_view *view, const struct view_place *place, Director__Result *result)
{
    const struct tree_volume *volume = place->volume;
    struct view_volume_judgement judgement;
    struct text text = {0};
    uint32_t lun;
    int width = 0;
    (void)view_object_add(view, place, true, result);
    view_judge_volume(view, volume, &judgement);
    text_addf(&text, "volume %s: %s", volume->name, view_health_word(judgement.health));
    if (judgement.reason[0])
        text_addf(&text, ": %s", judgement.reason);
    resync_progress(view, volume, &judgement, &text);
    view_result_line(result, "%s", text_get(&text));
    text_done(&text);
    for (unsigned i = 0; i < volume->replica_count; i++)
        width = MAX(width, (int)strlen(view_node_name(view, volume->replicas[i].nodeid)));
    for (unsigned i = 0; i < volume->replica_count; i++) {
        if (!volume->replicas[i].nodeid)
            continue;
        view_replica_state(view, volume, i, &judgement, &text);
        bool owner = volume->replicas[i].nodeid == volume->owner;
        view_result_line(result, "  %-*s  %-*s%s", width, view_node_name(view, volume->replicas[i].nodeid), owner ? 12 : 0,
                         text_get(&text), owner ? "  owner" : "");
        text_done(&text);
    }
    status_tasks(view, volume, result);
    const struct tree_target *target = tree_volume_export(view->tree, volume->id, &lun);
    if (target)
        view_result_line(result, "exported as %s lun %u, %u sessions", target->iqn, lun, view_session_count(view, target->iqn));
    else if (judgement.health != VIEW_SUSPENDED)
        view_result_line(result, "next: let initiators reach it: director /volumes/%s export", volume->name);
    ways_out(view, volume, &judgement, result);
}

struct status_children {
    const struct api_view *view;
    Director__Result *result;
    int width;
    unsigned count;
};

static bool child_width(const struct view_place *child, void *context)
{
    struct status_children *children = context;
    children->width = MAX(children->width, (int)strlen(view_last_name(child->path)));
    return ++children->count < ILL_SHOWN_MAX;
}

static bool child_line(const struct view_place *child, void *context)
{
    struct status_children *children = context;
    struct text summary = {0};
    (void)view_object_add(children->view, child, true, children->result);
    view_summary(children->view, child, &summary);
    view_result_line(children->result, "  %-*s  %s", children->width, view_last_name(child->path), text_get(&summary));
    text_done(&summary);
    return ++children->count < ILL_SHOWN_MAX;
}

void view_status(const struct api_view *view, const struct view_place *place, Director__Result *result)
{
    if (place->kind == VIEW_CLUSTER) {
        status_cluster(view, place, result);
        return;
    }
    if (place->kind == VIEW_VOLUME) {
        status_volume(view, place, result);
        return;
    }
    struct status_children children = {view, result, 0, 0};
    struct text summary = {0};
    (void)view_object_add(view, place, true, result);
    view_summary(view, place, &summary);
    view_result_line(result, "%s: %s", place->path, text_get(&summary));
    text_done(&summary);
    view_children(view, place, child_width, &children);
    children.count = 0;
    view_children(view, place, child_line, &children);
}
