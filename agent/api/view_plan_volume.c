/* What changes a volume that is there: its owner. */
#include "agent/api/view_plan_internal.h"

#include <errno.h>
#include <string.h>

int plan_move(struct planning *planning, const char *to)
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
