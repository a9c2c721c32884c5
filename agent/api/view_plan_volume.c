/* What changes a volume that is there: its properties, its owner, its replicas, checks of it, last resorts. */
#include "agent/api/view_plan_internal.h"

#include "director/base/size.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

static void here(struct planning *planning)
{
    (void)snprintf(planning->plan->path, sizeof(planning->plan->path), "%s", planning->place.path);
}

#define SAY(planning, ...) (void)snprintf((planning)->plan->message, sizeof((planning)->plan->message), __VA_ARGS__)

/* ---- owner ----------------------------------------------------------------------------------------------------------------- */

static void promote_to(struct planning *planning, uint16_t nodeid, uint64_t epoch)
{
    const struct tree_volume *volume = planning->place.volume;
    Director__VolumePromote *promote = NEW_BODY(planning, VOLUME_PROMOTE, VolumePromote, volume_promote);
    promote->volume = volume->id;
    promote->expect_epoch = epoch;
    promote->owner = nodeid;
    promote->isr = volume->isr;
    view_string_set(&promote->reason, "moved by an operator");
}

int plan_move(struct planning *planning, const char *to)
{
    const struct api_view *view = planning->view;
    const struct tree_volume *volume = planning->place.volume;
    const struct tree_node *node = tree_node_by_name(view->tree, to);
    struct text names = {0};
    int code = 0;
    here(planning);
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
        SAY(planning, "volume %s is served by %s already", volume->name, to);
        return 0;
    }
    promote_to(planning, node->nodeid, volume->epoch);
    SAY(planning, "volume %s: owner %s -> %s", volume->name, view_node_name(view, volume->owner), to);
    return 0;
}

/* ---- properties ------------------------------------------------------------------------------------------------------------ */

static int one_of(struct planning *planning, const char *name, const char *no, const char *yes, bool *ret_yes)
{
    const char *value = plan_argument(planning, name);
    if (strcmp(value, yes) != 0 && strcmp(value, no) != 0)
        return error_set(planning->error, -EINVAL, "%s must be %s or %s, not \"%.40s\"", name, no, yes, value);
    *ret_yes = strcmp(value, yes) == 0;
    return 0;
}

/* "500ms", "5s". */
static int argument_ms(struct planning *planning, const char *name, uint32_t lowest, uint32_t highest, uint32_t *ret_ms)
{
    const char *text = plan_argument(planning, name), *p = text;
    uint64_t value = 0;
    while (*p >= '0' && *p <= '9' && value < UINT32_MAX)
        value = value * 10 + (uint64_t)(*p++ - '0');
    bool seconds = strcmp(p, "s") == 0, good = p > text && (seconds || strcmp(p, "ms") == 0);
    value *= seconds ? 1000 : 1;
    if (!good || value < lowest || value > highest)
        return error_set(planning->error, -EINVAL, "%s must be a time from %ums to %us, for example 500ms or 2s, not \"%.40s\"", name,
                         lowest, highest / 1000, text);
    *ret_ms = (uint32_t)value;
    return 0;
}

/* A speed; 0 is the default of both. */
static int argument_speed(struct planning *planning, const char *name, uint64_t *ret_speed)
{
    uint64_t zero;
    if (size_parse(plan_argument(planning, name), &zero) == 0 && zero == 0) {
        *ret_speed = 0;
        return 0;
    }
    return plan_argument_size(planning, name, TREE_RESYNC_MIN, TREE_RESYNC_MAX, 1, ret_speed);
}

int plan_policy(struct planning *planning, Director__VolumePolicy *policy, uint32_t *ret_fields)
{
    uint64_t number = 0;
    uint32_t fields = 0;
    int code = 0;
    bool flag = false;
    if (plan_argument(planning, "cache")) {
        code = one_of(planning, "cache", "write-through", "write-back", &flag);
        policy->write_back = flag;
        fields |= DIRECTOR__VOLUME_POLICY_FIELD__POLICY_WRITE_BACK;
    }
    if (code == 0 && plan_argument(planning, "reads")) {
        code = one_of(planning, "reads", "lease", "verified", &flag);
        policy->verified_reads = flag;
        fields |= DIRECTOR__VOLUME_POLICY_FIELD__POLICY_VERIFIED_READS;
    }
    if (code == 0 && plan_argument(planning, "checksum")) { /* at create only: no field of VolumeSet */
        code = one_of(planning, "checksum", "off", "on", &flag);
        policy->checksum = flag;
    }
    if (code == 0 && plan_argument(planning, "slow")) {
        code = argument_ms(planning, "slow", TREE_SLOW_MIN_MS, TREE_SLOW_MAX_MS, &policy->slow_ms);
        fields |= DIRECTOR__VOLUME_POLICY_FIELD__POLICY_SLOW;
    }
    if (code == 0 && plan_argument(planning, "in_sync_min")) {
        code = plan_argument_number(planning, "in_sync_min", 1, TREE_REPLICAS_MAX, 1, &number);
        policy->in_sync_min = (uint32_t)number;
        fields |= DIRECTOR__VOLUME_POLICY_FIELD__POLICY_IN_SYNC_MIN;
    }
    if (code == 0 && plan_argument(planning, "resync_floor")) {
        code = argument_speed(planning, "resync_floor", &policy->resync_floor);
        fields |= DIRECTOR__VOLUME_POLICY_FIELD__POLICY_RESYNC_FLOOR;
    }
    if (code == 0 && plan_argument(planning, "resync_cap")) {
        code = argument_speed(planning, "resync_cap", &policy->resync_cap);
        fields |= DIRECTOR__VOLUME_POLICY_FIELD__POLICY_RESYNC_CAP;
    }
    if (code == 0 && policy->resync_floor && policy->resync_cap && policy->resync_floor > policy->resync_cap)
        code = error_set(planning->error, -EINVAL, "resync_floor must not be more than resync_cap");
    *ret_fields = fields;
    return code;
}

static int plan_size(struct planning *planning)
{
    const struct tree_volume *volume = planning->place.volume;
    char now[SIZE_TEXT_SIZE], then[SIZE_TEXT_SIZE];
    uint64_t size;
    int code = plan_argument_size(planning, "size", TREE_VOLUME_MIN_BYTES, TREE_VOLUME_MAX_BYTES, TREE_VOLUME_UNIT_BYTES, &size);
    if (code < 0)
        return code;
    size_format_exact(volume->size_bytes, now);
    size_format_exact(size, then);
    if (size < volume->size_bytes)
        return error_set(planning->error, -EINVAL, "volume %s has %s and cannot be made smaller: what initiators wrote there would be lost",
                         volume->name, now);
    if (volume->size_wanted && size != volume->size_wanted && size != volume->size_bytes)
        return error_set(planning->error, -EBUSY, "volume %s is growing to %s already; to stop that: director /tasks/grow-%s cancel",
                         volume->name, size_format_exact(volume->size_wanted, then), volume->name);
    if (size == volume->size_bytes && !volume->size_wanted) {
        SAY(planning, "volume %s has %s already", volume->name, now);
        return 0;
    }
    Director__VolumeGrow *grow = NEW_BODY(planning, VOLUME_GROW, VolumeGrow, volume_grow);
    grow->volume = volume->id;
    grow->size = size;
    if (size == volume->size_bytes)
        SAY(planning, "volume %s stays at %s", volume->name, now);
    else
        SAY(planning, "volume %s grows from %s to %s; initiators see it when every replica in sync has: director ls /tasks",
            volume->name, now, then);
    return 0;
}

static void set_names(const struct planning *planning, struct text *names)
{
    for (size_t i = 0; i < planning->call->n_properties; i++)
        text_addf(names, "%s%.40s=%.40s", i ? ", " : "", planning->call->properties[i]->name, planning->call->properties[i]->value);
}

/* In an order in which none makes the next one stale: the owner's epoch last. */
int plan_volume_set(struct planning *planning)
{
    const struct tree_volume *volume = planning->place.volume;
    Director__VolumePolicy policy = DIRECTOR__VOLUME_POLICY__INIT;
    struct text names = {0};
    uint32_t fields;
    here(planning);
    policy.resync_floor = volume->policy.resync_floor; /* judged together with the one that is given */
    policy.resync_cap = volume->policy.resync_cap;
    int code = plan_policy(planning, &policy, &fields);
    if (code == 0 && fields) {
        Director__VolumeSet *set = NEW_BODY(planning, VOLUME_SET, VolumeSet, volume_set);
        set->volume = volume->id;
        set->fields = fields;
        set->policy = plan_need(sizeof(*set->policy));
        *set->policy = policy;
    }
    if (code == 0 && plan_argument(planning, "size"))
        code = plan_size(planning);
    if (code == 0 && plan_argument(planning, "owner"))
        code = plan_move(planning, plan_argument(planning, "owner"));
    if (code == 0 && (fields || planning->call->n_properties > 1)) {
        set_names(planning, &names);
        SAY(planning, "volume %s: %.180s", volume->name, text_get(&names));
        text_done(&names);
    }
    return code;
}

/* ---- replicas -------------------------------------------------------------------------------------------------------------- */

/* node=..., which must be a node; with_replica: that has, or has not, one. */
static int node_argument(struct planning *planning, const char *argument, bool with_replica, const struct tree_node **ret_node)
{
    const struct api_view *view = planning->view;
    const struct tree_volume *volume = planning->place.volume;
    const char *name = plan_argument(planning, argument);
    struct text_nearest nearest = {.word = name};
    *ret_node = tree_node_by_name(view->tree, name);
    if (!*ret_node) {
        for (size_t i = 0; i < tree_node_count(view->tree); i++)
            text_nearest_offer(&nearest, tree_node_at(view->tree, i)->name);
        return error_set(planning->error, -EINVAL, "no such node: %.63s; %s%s%s", name,
                         nearest.best[0] ? "did you mean " : "", nearest.best[0] ? nearest.best : "to see them: ls /nodes",
                         nearest.best[0] ? "?" : "");
    }
    bool has = tree_volume_replica_of(volume, (*ret_node)->nodeid) >= 0;
    if (has == with_replica)
        return 0;
    struct text names = {0};
    view_replica_names(view, volume, tree_volume_mask(volume), ", ", &names);
    int code = has ? error_set(planning->error, -EEXIST, "node %s has a replica of volume %s already; replicas are on %.150s", name,
                               volume->name, text_get(&names))
                   : error_set(planning->error, -EINVAL, "node %s has no replica of volume %s; replicas are on %.150s", name, volume->name,
                               text_get(&names));
    text_done(&names);
    return code;
}

static int room_for_one(struct planning *planning)
{
    const struct tree_volume *volume = planning->place.volume;
    if (tree_volume_replicas(volume) < TREE_REPLICAS_MAX)
        return 0;
    return error_set(planning->error, -E2BIG, "volume %s has %u replicas, the most there can be; first: director /volumes/%s "
                     "remove-replica node=...", volume->name, TREE_REPLICAS_MAX, volume->name);
}

static int plan_add_replica(struct planning *planning)
{
    const struct tree_volume *volume = planning->place.volume;
    const struct tree_node *node = NULL;
    const char *store = plan_argument(planning, "store");
    here(planning);
    int code = room_for_one(planning);
    if (code == 0 && plan_argument(planning, "node"))
        code = node_argument(planning, "node", false, &node);
    if (code < 0)
        return code;
    Director__VolumeReplicaAdd *add = NEW_BODY(planning, VOLUME_REPLICA_ADD, VolumeReplicaAdd, volume_replica_add);
    add->volume = volume->id;
    add->nodeid = node ? node->nodeid : 0;
    add->incarnation = planning->entropy->incarnations[0];
    if (store)
        view_string_set(&add->store, store);
    SAY(planning, "volume %s gets a replica on %s; it counts when its resync is done: director ls /tasks", volume->name,
        node ? node->name : "the node with most room");
    return 0;
}

/* Another in-sync replica on a node that is up, to serve instead of nodeid; 0: none. */
static uint16_t other_owner(const struct planning *planning, uint16_t nodeid)
{
    const struct tree_volume *volume = planning->place.volume;
    for (unsigned i = 0; i < volume->replica_count; i++)
        if ((volume->isr >> i & 1) && volume->replicas[i].nodeid != nodeid &&
            !view_node_offline(planning->view, volume->replicas[i].nodeid))
            return volume->replicas[i].nodeid;
    return 0;
}

static int plan_remove_replica(struct planning *planning)
{
    const struct api_view *view = planning->view;
    const struct tree_volume *volume = planning->place.volume;
    const struct tree_node *node;
    here(planning);
    int code = node_argument(planning, "node", true, &node);
    if (code < 0)
        return code;
    int replica = tree_volume_replica_of(volume, node->nodeid);
    uint16_t other = other_owner(planning, node->nodeid);
    if (volume->isr == 1u << replica)
        return error_set(planning->error, -EBUSY, "the replica of volume %s on %s is the only one that holds every acknowledged write; %s",
                         volume->name, node->name,
                         tree_volume_replicas(volume) == 1 ? "to delete the volume itself: delete" : "wait until another is in sync");
    if (volume->replicas[replica].held)
        return error_set(planning->error, -EBUSY, "the replica of volume %s on %s holds writes from before the volume was forced to another; "
                         "first: director /volumes/%s discard node=%s reason=...", volume->name, node->name, volume->name, node->name);
    if (volume->owner == node->nodeid && !other)
        return error_set(planning->error, -EBUSY, "%s serves volume %s, and no other node with a replica in sync is online; bring one back",
                         node->name, volume->name);
    if (!other && (volume->isr >> replica & 1))
        return error_set(planning->error, -EBUSY, "no other node with a replica of volume %s in sync is online; bring one back", volume->name);
    bool moves = volume->owner == node->nodeid;
    if (moves)
        promote_to(planning, other, volume->epoch);
    Director__VolumeReplicaRemove *remove = NEW_BODY(planning, VOLUME_REPLICA_REMOVE, VolumeReplicaRemove, volume_replica_remove);
    remove->volume = volume->id;
    remove->nodeid = node->nodeid;
    unsigned left = tree_volume_replicas(volume) - 1;
    SAY(planning, "volume %s: replica on %s removed, %u left%s%s", volume->name, node->name, left, moves ? ", owner " : "",
        moves ? view_node_name(view, other) : "");
    return 0;
}

static int plan_move_replica(struct planning *planning)
{
    const struct tree_volume *volume = planning->place.volume;
    const struct tree_node *from, *to;
    const char *store = plan_argument(planning, "store");
    int code = node_argument(planning, "from", true, &from);
    if (code == 0)
        code = node_argument(planning, "to", false, &to);
    if (code == 0)
        code = room_for_one(planning);
    if (code < 0)
        return code;
    Director__TaskCreate *create = NEW_BODY(planning, TASK_CREATE, TaskCreate, task_create);
    create->kind = DIRECTOR__TASK_KIND__TASK_MOVE;
    create->volume = volume->id;
    create->from = from->nodeid;
    create->to = to->nodeid;
    create->incarnation = planning->entropy->incarnations[0];
    if (store)
        view_string_set(&create->store, store);
    (void)snprintf(planning->plan->path, sizeof(planning->plan->path), "/tasks");
    SAY(planning, "the replica of volume %s on %s moves to %s; it goes when the new one is in sync: director ls /tasks", volume->name,
        from->name, to->name);
    return 0;
}

/* ---- checks ----------------------------------------------------------------------------------------------------------------- */

static int plan_check(struct planning *planning, Director__TaskKind kind)
{
    const struct tree_volume *volume = planning->place.volume;
    const char *word = kind == DIRECTOR__TASK_KIND__TASK_VERIFY ? "verify" : "scrub";
    const struct tree_task *other = tree_task_running(planning->view->tree, volume->id, DIRECTOR__TASK_KIND__TASK_VERIFY);
    bool repair = false;
    if (!other)
        other = tree_task_running(planning->view->tree, volume->id, DIRECTOR__TASK_KIND__TASK_SCRUB);
    if (other)
        return error_set(planning->error, -EBUSY, "volume %s is being checked already; to stop that: director /tasks/%s-%" PRIu64 " cancel",
                         volume->name, other->kind == DIRECTOR__TASK_KIND__TASK_VERIFY ? "verify" : "scrub", other->id);
    if (kind == DIRECTOR__TASK_KIND__TASK_SCRUB && !volume->policy.checksum)
        return error_set(planning->error, -EINVAL, "volume %s has no checksums to scrub; to compare its replicas: director /volumes/%s verify",
                         volume->name, volume->name);
    if (kind == DIRECTOR__TASK_KIND__TASK_VERIFY && tree_volume_replicas(volume) < 2)
        return error_set(planning->error, -EINVAL, "volume %s has one replica: there is nothing to compare it with", volume->name);
    if (plan_argument(planning, "repair")) {
        int code = one_of(planning, "repair", "no", "yes", &repair);
        if (code < 0)
            return code;
    }
    Director__TaskCreate *create = NEW_BODY(planning, TASK_CREATE, TaskCreate, task_create);
    create->kind = kind;
    create->volume = volume->id;
    create->repair = repair;
    (void)snprintf(planning->plan->path, sizeof(planning->plan->path), "/tasks");
    SAY(planning, "%s of volume %s started; to see how it goes: director ls /tasks", word, volume->name);
    return 0;
}

static int plan_verify(struct planning *planning)
{
    return plan_check(planning, DIRECTOR__TASK_KIND__TASK_VERIFY);
}

static int plan_scrub(struct planning *planning)
{
    return plan_check(planning, DIRECTOR__TASK_KIND__TASK_SCRUB);
}

/* A move's new replica goes again, unless it counts already. */
static int cancel_move(struct planning *planning)
{
    const struct tree_task *task = planning->place.task;
    const struct tree_volume *volume = planning->place.volume;
    int to = volume ? tree_volume_replica_of(volume, task->to) : -1;
    if (to < 0 || volume->isr >> to & 1)
        return 0;
    Director__VolumeReplicaRemove *remove = NEW_BODY(planning, VOLUME_REPLICA_REMOVE, VolumeReplicaRemove, volume_replica_remove);
    remove->volume = volume->id;
    remove->nodeid = task->to;
    return 0;
}

static int plan_cancel(struct planning *planning)
{
    const struct tree_task *task = planning->place.task;
    const struct tree_volume *volume = planning->place.volume;
    const char *name = view_last_name(planning->place.path);
    (void)snprintf(planning->plan->path, sizeof(planning->plan->path), "/tasks");
    if (!task && planning->place.replica != VIEW_NO_REPLICA)
        return error_set(planning->error, -ENOTSUP, "a resync is not cancelled: its replica would be out of sync for ever; to have it use "
                         "less: director /volumes/%s set resync_cap=10M", volume->name);
    if (!view_task_running(&planning->place))
        return error_set(planning->error, -EINVAL, "task %s has ended already", name);
    SAY(planning, "task %s cancelled", name);
    if (!task) {
        Director__VolumeGrow *grow = NEW_BODY(planning, VOLUME_GROW, VolumeGrow, volume_grow);
        grow->volume = volume->id;
        grow->size = volume->size_bytes;
        return 0;
    }
    Director__TaskEnd *end = NEW_BODY(planning, TASK_END, TaskEnd, task_end);
    end->task = task->id;
    end->state = DIRECTOR__TASK_STATE__TASK_CANCELLED;
    return task->kind == DIRECTOR__TASK_KIND__TASK_MOVE ? cancel_move(planning) : 0;
}

/* ---- last resorts ------------------------------------------------------------------------------------------------------------ */

static int resort_arguments(struct planning *planning, bool force, unsigned *ret_replica)
{
    const char *reason = plan_argument(planning, "reason");
    here(planning);
    int code = view_resort_check(planning->view, planning->place.volume, force, plan_argument(planning, "node"), ret_replica,
                                 planning->error);
    if (code == 0 && (!reason[0] || strlen(reason) >= TREE_WORDS_SIZE))
        code = error_set(planning->error, -EINVAL, "reason must have 1 to %u characters; it is kept in /events", TREE_WORDS_SIZE - 1);
    return code;
}

static int plan_force(struct planning *planning)
{
    const struct tree_volume *volume = planning->place.volume;
    unsigned replica;
    int code = resort_arguments(planning, true, &replica);
    if (code < 0)
        return code;
    Director__VolumeForce *force = NEW_BODY(planning, VOLUME_FORCE, VolumeForce, volume_force);
    force->volume = volume->id;
    force->expect_epoch = volume->epoch;
    force->nodeid = volume->replicas[replica].nodeid;
    force->incarnations = plan_need(sizeof(planning->entropy->incarnations));
    force->n_incarnations = TREE_REPLICAS_MAX;
    memcpy(force->incarnations, planning->entropy->incarnations, sizeof(planning->entropy->incarnations));
    view_string_set(&force->reason, plan_argument(planning, "reason"));
    SAY(planning, "volume %s goes on with what %s holds", volume->name, plan_argument(planning, "node"));
    return 0;
}

static int plan_discard(struct planning *planning)
{
    const struct tree_volume *volume = planning->place.volume;
    unsigned replica;
    int code = resort_arguments(planning, false, &replica);
    if (code < 0)
        return code;
    Director__VolumeDiscard *discard = NEW_BODY(planning, VOLUME_DISCARD, VolumeDiscard, volume_discard);
    discard->volume = volume->id;
    discard->expect_epoch = volume->epoch;
    discard->nodeid = volume->replicas[replica].nodeid;
    discard->incarnation = planning->entropy->incarnations[0];
    view_string_set(&discard->reason, plan_argument(planning, "reason"));
    SAY(planning, "the replica of volume %s on %s is made anew: director ls /tasks", volume->name, plan_argument(planning, "node"));
    return 0;
}

/* ---- verbs ------------------------------------------------------------------------------------------------------------------- */

static int plan_move_owner(struct planning *planning)
{
    return plan_move(planning, plan_argument(planning, "owner"));
}

int plan_verb(struct planning *planning, const char *word)
{
    static const struct {
        const char *word;
        int (*plan)(struct planning *planning);
    } verbs[] = {
        {"move", plan_move_owner},           {"export", plan_export},   {"unexport", plan_unexport},
        {"add-replica", plan_add_replica},   {"verify", plan_verify},   {"remove-replica", plan_remove_replica},
        {"move-replica", plan_move_replica}, {"scrub", plan_scrub},     {"cancel", plan_cancel},
        {"force", plan_force},               {"discard", plan_discard},
    };
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        if (strcmp(verbs[i].word, word) == 0)
            return verbs[i].plan(planning);
    ASSERT(!"a verb of the schema without a plan");
    return -ENOTSUP;
}
