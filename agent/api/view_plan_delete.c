/* DELETE of volumes, stores, nodes, targets and luns. */
#include "agent/api/view_plan_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

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
        code = error_set(planning->error, -EBUSY, "node %s holds replicas of %s; first move them: director /volumes/V move-replica "
                         "from=%s to=...", node->name, text_get(&names), node->name);
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

void plan_remove_lun(struct planning *planning, const char *iqn, uint32_t number)
{
    Director__LunRemove *remove = NEW_BODY(planning, LUN_REMOVE, LunRemove, lun_remove);
    view_string_set(&remove->iqn, iqn);
    remove->lun = number;
}

int plan_delete(struct planning *planning)
{
    int code = plan_check_arguments(planning, "delete", view_properties(VIEW_NODES) /* none */);
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
        plan_remove_lun(planning, planning->place.target->iqn, planning->place.lun->lun);
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
