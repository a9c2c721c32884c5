/* The replicated log of this node: feeds agent/core/rsm with views, messages, proposals and time, performs its effects in
 * order (durable ones share a transaction), and applies committed commands to the tree.
 *
 * Happy path: node_log_propose -> rsm SUBMIT -> ... -> APPLY with our ticket: tree_apply's outcome goes to the proposal.
 * Failure paths: the store fails -> nothing more is performed, rsm is told (OUT), the engine is fenced, all proposals end
 * with -EIO, and the group is left so that others take over (scenarios 14 and 15: the node steps out, nothing is half
 * applied). */
#define LOG_MODULE "log"
#include "agent/node/node.h"

#include "director/base/log.h"
#include <errno.h>
#include <string.h>
#include <time.h>

static void node_log_perform(struct node *node);

static int node_log_step(struct node *node, const struct rsm_event *event)
{
    if (!node->rsm)
        return -ESHUTDOWN;
    int result = rsm_step(node->rsm, event, node_now_ms(node), &node->effects);
    node_log_perform(node);
    return result;
}

/* --- durable effects -------------------------------------------------------------------------------------------- */

static bool effect_is_durable(const struct rsm_effect *effect)
{
    return effect->kind == RSM_EFFECT_HARD_STATE || effect->kind == RSM_EFFECT_LOG_APPEND ||
           effect->kind == RSM_EFFECT_LOG_TRUNCATE || effect->kind == RSM_EFFECT_SNAPSHOT;
}

static int effect_store(struct log_store *store, const struct rsm_effect *effect, struct error *error)
{
    switch (effect->kind) {
    case RSM_EFFECT_HARD_STATE: {
        struct log_store_hard_state state = {.term = effect->term, .voted_for = effect->voted_for};
        return log_store_put_hard_state(store, &state, error);
    }
    case RSM_EFFECT_LOG_APPEND: {
        struct log_store_entry entry = {
            .index = effect->index, .term = effect->term, .bytes = effect->data, .size = effect->size};
        return log_store_append(store, &entry, 1, error);
    }
    case RSM_EFFECT_LOG_TRUNCATE:
        return log_store_truncate_from(store, effect->index, error);
    case RSM_EFFECT_SNAPSHOT: {
        struct log_store_snapshot snapshot = {
            .index = effect->index, .term = effect->term, .config = "", .config_size = 0, .bytes = effect->data,
            .size = effect->size};
        return log_store_put_snapshot(store, &snapshot, effect->index + 1, error);
    }
    default:
        ASSERT(!"not a durable effect");
        return -EINVAL;
    }
}

/* Store the run of durable effects items[from..to). */
static int effects_store(struct node *node, size_t from, size_t to, struct error *error)
{
    int result = log_store_begin(node->store, error);
    if (result < 0)
        return result;
    for (size_t i = from; i < to && result == 0; i++)
        result = effect_store(node->store, &node->effects.items[i], error);
    if (result < 0) {
        log_store_rollback(node->store);
        return result;
    }
    return log_store_commit(node->store, error);
}

static void node_log_fail(struct node *node, const struct error *error)
{
    log_error("state store: %s; this node steps out of the cluster until directord is restarted", error->message);
    node->log_failed = true; /* the next tick leaves the group: not from in here */
    node->current = false;
    engine_set_authority(node->engine, false);
    rsm_effects_clear(&node->effects);
    node->effect_next = 0;
    struct rsm_event event = {.kind = RSM_EVENT_STORAGE_FAILED};
    IGNORE_RESULT(rsm_step(node->rsm, &event, node_now_ms(node), &node->effects));
}

/* --- the other effects ------------------------------------------------------------------------------------------- */

static struct node_proposal *node_log_take(struct node *node, uint64_t ticket)
{
    list_foreach(link, &node->proposals)
    {
        struct node_proposal *proposal = list_entry(link, struct node_proposal, link);
        if (proposal->ticket == ticket) {
            list_remove(&proposal->link);
            return proposal;
        }
    }
    return NULL;
}

static void node_log_apply(struct node *node, const struct rsm_effect *effect)
{
    struct tree_result result = {0};
    struct error error = {0};
    Director__Command *command = director__command__unpack(NULL, effect->size, effect->data);
    int status = command ? tree_apply(node->tree, command, &result, &error)
                         : error_set(&error, -EBADMSG, "entry %llu of the log is no command this version knows",
                                     (unsigned long long)effect->index);
    if (status < 0)
        log_info("command %llu refused: %s", (unsigned long long)effect->index, error.message);
    if (status == 0 && command && !result.duplicate) {
        node_plan_applied(node, command, &result);
        node_api_applied(node, command);
    }
    struct node_proposal *proposal = effect->ticket ? node_log_take(node, effect->ticket) : NULL;
    if (proposal)
        proposal->done(proposal, status, &result, &error);
    if (command)
        director__command__free_unpacked(command, NULL);
}

static void node_log_restore(struct node *node, const struct rsm_effect *effect)
{
    struct error error = {0};
    if (tree_restore(node->tree, effect->data, effect->size, &error) < 0) {
        node_log_fail(node, &error);
        return;
    }
    log_info("tree: restored from a snapshot of %zu bytes at index %llu", effect->size, (unsigned long long)effect->index);
    node_plan_reset(node);
}

static void current_done(struct node_barrier *barrier, int status)
{
    struct node *node = container_of(barrier, struct node, current_barrier);
    node->current_barrier_busy = false;
    if (status < 0 || !node->in_view || node->stopping || node->log_failed || node->removed)
        return; /* asked again at the next tick */
    log_info("state: this node's tree is current");
    node->current = true;
    node_plan_reset(node);
    node_members_changed(node); /* formation may rely on our facts from here on */
    engine_set_authority(node->engine, true);
}

static void node_log_role(struct node *node, const struct rsm_effect *effect)
{
    bool sequencer = effect->role == RSM_SEQUENCER;
    if (sequencer != node->is_sequencer || effect->quorate != node->quorate || effect->sequencer != node->sequencer)
        log_notice("log: %s, %s, sequencer %u, term %llu", sequencer ? "sequencer" : "follower",
                   effect->quorate ? "quorate" : "not quorate", effect->sequencer, (unsigned long long)effect->term);
    node->is_sequencer = sequencer;
    node->quorate = effect->quorate;
    node->sequencer = effect->sequencer;
    node_plan_wake(node);
    node_members_say_quorate(node);
}

static void node_log_snapshot(struct node *node, uint64_t index)
{
    uint8_t *data;
    size_t size;
    tree_snapshot(node->tree, &data, &size);
    struct rsm_event event = {.kind = RSM_EVENT_SNAPSHOT_TAKEN, .index = index, .data = {data, size}};
    IGNORE_RESULT(rsm_step(node->rsm, &event, node_now_ms(node), &node->effects));
    free(data);
}

static void barrier_finish(struct node *node, uint64_t ticket, int status)
{
    list_foreach(link, &node->barriers)
    {
        struct node_barrier *barrier = list_entry(link, struct node_barrier, link);
        if (barrier->ticket == ticket) {
            list_remove(&barrier->link);
            barrier->done(barrier, status);
            return;
        }
    }
}

static void node_log_left(struct node *node);

static void node_log_perform_one(struct node *node, const struct rsm_effect *effect)
{
    switch (effect->kind) {
    case RSM_EFFECT_MULTICAST:
        node_members_multicast_log(node, effect->data, effect->size);
        break;
    case RSM_EFFECT_RESTORE:
        node_log_restore(node, effect);
        break;
    case RSM_EFFECT_APPLY:
        node_log_apply(node, effect);
        break;
    case RSM_EFFECT_PROPOSAL_DONE: {
        /* The outcome went out at APPLY; what is still here failed, or was a duplicate applied before a snapshot. */
        struct node_proposal *proposal = node_log_take(node, effect->ticket);
        struct error error = {0};
        struct tree_result result = {0};
        if (proposal) {
            if (effect->status < 0)
                (void)error_set(&error, -ETIMEDOUT, "this node's state store failed before the change was confirmed; it may still "
                                                    "take effect: look on another node");
            proposal->done(proposal, effect->status < 0 ? -ETIMEDOUT : 0, &result, &error);
        }
        break;
    }
    case RSM_EFFECT_BARRIER_DONE:
        barrier_finish(node, effect->ticket, effect->status);
        break;
    case RSM_EFFECT_ROLE:
        node_log_role(node, effect);
        break;
    case RSM_EFFECT_NEED_SNAPSHOT:
        node_log_snapshot(node, effect->index);
        break;
    case RSM_EFFECT_LEFT:
        node_log_left(node);
        break;
    default:
        ASSERT(!"an effect that is performed elsewhere");
    }
}

/* Perform the queue in order. Steps made from inside append to its end and are performed by the outermost call. */
static void node_log_perform(struct node *node)
{
    if (node->performing)
        return;
    node->performing = true;
    while (node->effect_next < node->effects.count) {
        size_t from = node->effect_next, to = from;
        while (to < node->effects.count && effect_is_durable(&node->effects.items[to]))
            to++;
        if (to > from) {
            struct error error = {0};
            if (!node->log_failed && effects_store(node, from, to, &error) < 0) {
                node_log_fail(node, &error);
                continue;
            }
            node->effect_next = to;
            continue;
        }
        /* The array may move while the effect is performed: work on a copy that owns the data. */
        struct rsm_effect effect = node->effects.items[from];
        node->effects.items[from].data = NULL;
        node->effect_next = from + 1;
        node_log_perform_one(node, &effect);
        free(effect.data);
    }
    rsm_effects_clear(&node->effects);
    node->effect_next = 0;
    node->performing = false;
}

/* --- events ------------------------------------------------------------------------------------------------------ */

void node_log_view(struct node *node, const struct cpg_view *view)
{
    uint16_t members[CPG_VIEW_MEMBERS_MAX];
    struct rsm_event event = {.kind = RSM_EVENT_VIEW, .members = members};
    if (view) {
        event.view = view->id;
        for (unsigned i = 0; i < view->member_count; i++)
            if (!i || view->members[i].nodeid != members[event.member_count - 1])
                members[event.member_count++] = (uint16_t)view->members[i].nodeid;
    } else {
        node->current = false;
    }
    (void)node_log_step(node, &event);
}

void node_log_message(struct node *node, uint16_t from, const void *bytes, size_t size)
{
    struct rsm_event event = {.kind = RSM_EVENT_MESSAGE, .from = from, .data = {bytes, size}};
    int result = node_log_step(node, &event);
    if (result == -EPROTO)
        log_warning("group: node %u sent a message that makes no sense (%zu bytes); it was dropped", from, size);
}

int node_log_propose(struct node *node, Director__Command *command, enum rsm_change change, uint16_t change_nodeid,
                     uint32_t wait_ms, struct node_proposal *proposal, struct error *error)
{
    if (!node->rsm || node->log_failed)
        return error_set(error, -ESHUTDOWN, node->stopping     ? "this node is stopping; ask another node"
                                            : node->log_failed ? "the state store of this node failed; ask another node"
                                                               : "this node has not joined a cluster yet; see status");
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    command->origin = node->self.nodeid;
    command->origin_boot = node->boot;
    command->origin_sequence = ++node->next_ticket;
    command->time_ms = (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000;
    size_t size = director__command__get_packed_size(command);
    if (size > RSM_COMMAND_MAX_BYTES)
        return error_set(error, -EMSGSIZE, "the command is %zu bytes long; %u is the limit", size, RSM_COMMAND_MAX_BYTES);
    _cleanup_free_ uint8_t *bytes = malloc(size);
    if (!bytes)
        return error_set(error, -ENOMEM, "out of memory");
    director__command__pack(command, bytes);
    struct rsm_event event = {.kind = RSM_EVENT_PROPOSE, .ticket = node->next_ticket, .data = {bytes, size},
                              .change = change, .change_nodeid = change_nodeid};
    proposal->ticket = node->next_ticket;
    proposal->deadline_ms = wait_ms ? node_now_ms(node) + wait_ms : 0;
    list_append(&node->proposals, &proposal->link);
    int result = rsm_step(node->rsm, &event, node_now_ms(node), &node->effects);
    if (result < 0) {
        list_remove(&proposal->link);
        return error_set(error, result, result == -EAGAIN ? "too many changes are under way; try again"
                                                          : "the replicated log refused the change (%s)", strerror(-result));
    }
    node_log_perform(node);
    return 0;
}

int node_log_barrier(struct node *node, struct node_barrier *barrier)
{
    barrier->ticket = ++node->next_ticket;
    struct rsm_event event = {.kind = RSM_EVENT_BARRIER, .ticket = barrier->ticket};
    if (!node->rsm)
        return -ESHUTDOWN;
    list_append(&node->barriers, &barrier->link);
    int result = rsm_step(node->rsm, &event, node_now_ms(node), &node->effects);
    if (result < 0)
        list_remove(&barrier->link);
    else
        node_log_perform(node);
    return result;
}

void node_log_tick(struct node *node)
{
    struct rsm_event event = {.kind = RSM_EVENT_TICK};
    (void)node_log_step(node, &event);
    uint64_t now = node_now_ms(node);
    list_foreach_safe(link, after, &node->proposals)
    {
        struct node_proposal *proposal = list_entry(link, struct node_proposal, link);
        if (!proposal->deadline_ms || now < proposal->deadline_ms)
            continue;
        struct rsm_event abandon = {.kind = RSM_EVENT_ABANDON, .ticket = proposal->ticket};
        struct error error;
        list_remove(&proposal->link);
        IGNORE_RESULT(rsm_step(node->rsm, &abandon, now, &node->effects));
        (void)error_set(&error, -ETIMEDOUT, "no majority of the nodes confirmed the change in time; it may still take effect: "
                                            "look again when the cluster is quorate");
        proposal->done(proposal, -ETIMEDOUT, NULL, &error);
        break; /* done may have changed the list; the rest at the next tick */
    }
    if (!node->current && node->in_view && node->quorate && !node->current_barrier_busy) {
        node->current_barrier.done = current_done;
        node->current_barrier_busy = true; /* before: a cluster of one answers at once */
        if (node_log_barrier(node, &node->current_barrier) < 0)
            node->current_barrier_busy = false;
    }
    node_log_perform(node);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct gathered {
    struct rsm_blob *blobs;
    size_t count, capacity;
};

static int gather_entry(const struct log_store_entry *entry, void *context)
{
    struct gathered *gathered = context;
    if (gathered->count == gathered->capacity) {
        size_t capacity = gathered->capacity ? gathered->capacity * 2 : 256;
        struct rsm_blob *blobs = realloc(gathered->blobs, capacity * sizeof(*blobs));
        if (!blobs)
            return -ENOMEM;
        gathered->blobs = blobs;
        gathered->capacity = capacity;
    }
    uint8_t *copy = malloc(entry->size ? entry->size : 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, entry->bytes, entry->size);
    gathered->blobs[gathered->count++] = (struct rsm_blob){copy, entry->size};
    return 0;
}

static void gathered_done(struct gathered *gathered)
{
    for (size_t i = 0; i < gathered->count; i++)
        free((void *)gathered->blobs[i].data);
    free(gathered->blobs);
}

void node_log_bootstrap(struct node *node, struct error *error)
{
    struct rsm_effects effects = {0};
    rsm_bootstrap(node->self.nodeid, &effects);
    for (size_t i = 0; i < effects.count; i++)
        if (effect_store(node->store, &effects.items[i], error) < 0)
            break;
    rsm_effects_clear(&effects);
    rsm_effects_done(&effects);
}

int node_log_start(struct node *node, struct error *error)
{
    ASSERT(!node->rsm);
    uint64_t cluster_tag;
    memcpy(&cluster_tag, node->self.cluster.bytes, sizeof(cluster_tag));
    struct rsm_options options = {.self = node->self.nodeid, .boot = node->boot, .cluster = cluster_tag};
    struct gathered gathered = {0};
    struct log_store_snapshot snapshot = {0};
    int result = log_store_snapshot(node->store, &snapshot, error);
    if (result == 0)
        result = log_store_each(node->store, log_store_first(node->store), gather_entry, &gathered, error);
    if (result == 0) {
        struct log_store_hard_state hard = log_store_hard_state(node->store);
        struct rsm_persistent persistent = {
            .term = hard.term,
            .voted_for = (uint16_t)hard.voted_for,
            .snapshot = {snapshot.bytes, snapshot.size},
            .entries = gathered.blobs,
            .entry_count = gathered.count,
        };
        struct rsm_event event = {.kind = RSM_EVENT_START, .persistent = &persistent};
        node->rsm = rsm_new(&options);
        result = node_log_step(node, &event);
        if (result < 0) {
            rsm_free(node->rsm);
            node->rsm = NULL;
            (void)error_set(error, result, "the replicated log in %s/state.db is damaged; wipe the folder to let this node join "
                                           "anew, if the other nodes are well", node->options.state_path);
        }
    }
    gathered_done(&gathered);
    free((void *)snapshot.config);
    return result;
}

static void node_log_left(struct node *node)
{
    node->left = node->leaving; /* the next tick closes the parts: nothing is closed from inside an effect */
    node->leaving = false;
}

void node_log_leave(struct node *node)
{
    struct rsm_event event = {.kind = RSM_EVENT_LEAVE};
    node->leaving = true;
    if (node_log_step(node, &event) < 0)
        node_log_left(node); /* no log, or it is out already */
}

void node_log_stop(struct node *node)
{
    struct error error;
    struct tree_result none = {0};
    ASSERT(!node->performing);
    (void)error_set(&error, -ETIMEDOUT, "this node leaves its cluster before the change was confirmed; it may still take effect: "
                                        "look on another node");
    while (!list_empty(&node->proposals)) {
        struct node_proposal *proposal = list_first(&node->proposals, struct node_proposal, link);
        list_remove(&proposal->link);
        proposal->done(proposal, -ETIMEDOUT, &none, &error);
    }
    while (!list_empty(&node->barriers)) {
        struct node_barrier *barrier = list_first(&node->barriers, struct node_barrier, link);
        list_remove(&barrier->link);
        barrier->done(barrier, -ECANCELED);
    }
    rsm_effects_clear(&node->effects);
    rsm_effects_done(&node->effects);
    node->effect_next = 0;
    rsm_free(node->rsm);
    node->rsm = NULL;
}
