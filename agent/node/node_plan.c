/* What follows from the tree: the engine is told of volumes, targets and portals; the sequencer's node plans failovers and
 * makes voters of learners that caught up; each node keeps its own entries (boot, address, store) right. */
#define LOG_MODULE "plan"
#include "agent/node/node.h"

#include "director/base/bytes.h"
#include "director/base/log.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PLAN_STEPS_MAX   64u  /* proposals of the planner under way */
#define VOTER_LAG_MAX    64u  /* entries that a learner may lack when it becomes a voter */
#define OWN_RETRY_MS     1000u
#define DEFAULT_STORE    "default"
#define RECORD_BYTES     (24u + TREE_NAME_SIZE) /* le64 incarnation, volume uuid, store name with NULs */

/* --- who is alive ------------------------------------------------------------------------------------------------------ */

void node_plan_alive(struct node *node, struct failover_nodes *ret_alive)
{
    uint64_t now_us = peer_clock_us(), now_ms = node_now_ms(node);
    uint64_t alive_ms = tree_profile_timings(tree_get_cluster(node->tree)->profile)->alive_ms;
    ret_alive->count = 0;
    for (size_t i = 0; i < node->member_count && ret_alive->count < TREE_NODES_MAX; i++) {
        const struct node_member *member = &node->members[i];
        uint64_t heard_us = peer_mesh_last_heard_us(node->control, member->nodeid);
        bool fresh = heard_us && now_us - heard_us < alive_ms * 1000ull;
        if (member->nodeid == node->self.nodeid || fresh || now_ms - member->since_ms < NODE_GRACE_MS)
            ret_alive->ids[ret_alive->count++] = member->nodeid;
    }
}

/* --- the engine's picture --------------------------------------------------------------------------------------------- */

static void record_key(uint64_t volume, char key[static 48])
{
    (void)snprintf(key, 48, "replica-%" PRIu64, volume);
}

/* Incarnation of the files that this node made last for the volume, or 0. The uuid tells it from one of another cluster.
 * store: in which one. */
static uint64_t record_get(struct node *node, const struct tree_volume *volume, char store[static TREE_NAME_SIZE])
{
    uint8_t bytes[RECORD_BYTES];
    char key[48];
    size_t size;
    record_key(volume->id, key);
    if (log_store_get(node->store, key, bytes, sizeof(bytes), &size, NULL) < 0 || size != sizeof(bytes) ||
        memcmp(bytes + 8, volume->uuid.bytes, sizeof(volume->uuid)))
        return 0;
    memcpy(store, bytes + 24, TREE_NAME_SIZE);
    store[TREE_NAME_SIZE - 1] = '\0';
    return get_le64(bytes);
}

/* uuid NULL: forget it. */
static int record_set(struct node *node, uint64_t volume, const struct uuid *uuid, const char *store, uint64_t incarnation)
{
    uint8_t bytes[RECORD_BYTES] = {0};
    char key[48];
    struct error error = {0};
    record_key(volume, key);
    put_le64(bytes, incarnation);
    if (uuid) {
        memcpy(bytes + 8, uuid->bytes, sizeof(*uuid));
        (void)snprintf((char *)bytes + 24, TREE_NAME_SIZE, "%s", store);
    }
    int result = log_store_begin(node->store, &error);
    if (result == 0) {
        (void)log_store_put(node->store, key, uuid ? bytes : NULL, uuid ? sizeof(bytes) : 0, &error);
        result = log_store_commit(node->store, &error);
    }
    if (result < 0)
        log_error("the replica of volume %" PRIu64 " could not be recorded: %s", volume, error.message);
    return result;
}

static void push_volume(struct node *node, const struct tree_volume *volume)
{
    struct engine_volume push = {.volume = *volume, .replica = tree_volume_replica_of(volume, node->self.nodeid)};
    char name[TREE_NAME_SIZE];
    push.recorded = record_get(node, volume, name);
    if (push.replica >= 0)
        memcpy(name, volume->replicas[push.replica].store, sizeof(name));
    if (push.replica >= 0 || push.recorded) { /* with a record only: it was removed, and its files are to go */
        const struct tree_store *store = tree_store_find(node->tree, node->self.nodeid, name);
        if (store) {
            memcpy(push.plugin, store->plugin, sizeof(push.plugin));
            memcpy(push.store_path, store->path, sizeof(push.store_path));
        } else {
            push.replica = -1;
            push.recorded = 0;
        }
    }
    engine_put_volume(node->engine, &push, tree_volume_reservation(node->tree, volume->id));
}

static void push_ports(struct node *node)
{
    struct target_port ports[TARGET_PORTS_MAX];
    struct failover_nodes alive;
    unsigned count = 0;
    node_plan_alive(node, &alive);
    for (size_t i = 0; i < tree_node_count(node->tree) && count < TARGET_PORTS_MAX; i++) {
        const struct tree_node *from = tree_node_at(node->tree, i);
        if (!from->address[0])
            continue;
        struct target_port *port = &ports[count++];
        memset(port, 0, sizeof(*port));
        port->nodeid = from->nodeid;
        port->port = 3260;
        port->alive = failover_nodes_have(&alive, from->nodeid);
        (void)snprintf(port->address, sizeof(port->address), "%s", from->address);
    }
    if (count == node->port_count && !memcmp(ports, node->ports, count * sizeof(ports[0])))
        return;
    memcpy(node->ports, ports, count * sizeof(ports[0]));
    node->port_count = count;
    engine_set_ports(node->engine, ports, count);
}

/* Once after a start: a record of a volume that the current tree has no more means files that nobody deleted. */
static void sweep_records(struct node *node)
{
    uint8_t bytes[RECORD_BYTES];
    char key[48];
    size_t size;
    node->swept = true;
    for (uint64_t id = 1; id < tree_get_cluster(node->tree)->next_volume_id; id++) {
        record_key(id, key);
        if (tree_volume_by_id(node->tree, id) || log_store_get(node->store, key, bytes, sizeof(bytes), &size, NULL) < 0 ||
            size != sizeof(bytes))
            continue;
        log_notice("volume %" PRIu64 " was deleted while this node was away: its files are removed", id);
        for (size_t i = 0; i < tree_store_count(node->tree); i++) {
            const struct tree_store *store = tree_store_at(node->tree, i);
            struct engine_volume gone = {.volume = {.id = id}};
            if (store->nodeid != node->self.nodeid)
                continue;
            memcpy(gone.volume.uuid.bytes, bytes + 8, sizeof(gone.volume.uuid));
            (void)snprintf(gone.volume.name, sizeof(gone.volume.name), "volume %" PRIu64, id);
            memcpy(gone.plugin, store->plugin, sizeof(gone.plugin));
            memcpy(gone.store_path, store->path, sizeof(gone.store_path));
            engine_discard_volume(node->engine, &gone);
        }
    }
}

/* Volumes and targets that the engine has: to know what to remove after a snapshot replaced the tree. */
static void push_all(struct node *node)
{
    if (!node->swept)
        sweep_records(node);
    for (size_t i = 0; i < node->pushed_count;) {
        if (tree_volume_by_id(node->tree, node->pushed[i])) {
            i++;
            continue;
        }
        engine_remove_volume(node->engine, node->pushed[i]);
        node->pushed[i] = node->pushed[--node->pushed_count];
    }
    for (size_t i = 0; i < tree_volume_count(node->tree); i++)
        node_plan_push(node, tree_volume_at(node->tree, i));
    for (size_t i = 0; i < tree_target_count(node->tree); i++)
        engine_put_target(node->engine, tree_target_at(node->tree, i));
    engine_keep_targets(node->engine, node->tree);
    push_ports(node);
}

void node_plan_push(struct node *node, const struct tree_volume *volume)
{
    size_t i = 0;
    while (i < node->pushed_count && node->pushed[i] != volume->id)
        i++;
    if (i == node->pushed_count) {
        if (node->pushed_count == node->pushed_capacity) {
            node->pushed_capacity = node->pushed_capacity ? node->pushed_capacity * 2 : 64;
            node->pushed = realloc(node->pushed, node->pushed_capacity * sizeof(node->pushed[0]));
            ASSERT(node->pushed);
        }
        node->pushed[node->pushed_count++] = volume->id;
    }
    push_volume(node, volume);
}

void node_plan_reset(struct node *node)
{
    node_members_changed(node);
    for (size_t i = 0; i < tree_volume_count(node->tree); i++)
        failover_observe(node->failover, tree_volume_at(node->tree, i), node_now_ms(node));
    if (node->current)
        push_all(node);
    node_plan_wake(node);
}

static void vote_note(struct node *node, const Director__Command *command);

void node_plan_applied(struct node *node, const Director__Command *command, const struct tree_result *result)
{
    uint64_t id = 0;
    const char *iqn = NULL;
    /* At start the log is applied again: that is the past, not news. */
    enum log_level level = node->current ? LOG_LEVEL_NOTICE : LOG_LEVEL_DEBUG;
    vote_note(node, command);
    switch (command->body_case) {
    case DIRECTOR__COMMAND__BODY_CLUSTER_INIT:
    case DIRECTOR__COMMAND__BODY_CLUSTER_SET:
    case DIRECTOR__COMMAND__BODY_NODE_ADD:
    case DIRECTOR__COMMAND__BODY_NODE_UPDATE:
    case DIRECTOR__COMMAND__BODY_NODE_VOTER:
    case DIRECTOR__COMMAND__BODY_NODE_REMOVE:
        node_members_changed(node);
        push_ports(node);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_CREATE: {
        const struct tree_volume *volume = tree_volume_by_name(node->tree, command->volume_create->name);
        id = volume ? volume->id : 0;
        node_members_changed(node); /* not pristine any more */
        break;
    }
    case DIRECTOR__COMMAND__BODY_VOLUME_DELETE:
        failover_forget_deleted(node->failover, node->tree);
        if (node->current)
            push_all(node);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_PROMOTE:
        id = command->volume_promote->volume;
        log_at(level, "volume %" PRIu64 ": epoch %" PRIu64 ", owner node %u: %s", id, command->volume_promote->expect_epoch + 1,
                   command->volume_promote->owner, command->volume_promote->reason);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_ISR:
        id = command->volume_isr->volume;
        log_at(level, "volume %" PRIu64 ": in-sync set 0x%x: %s", id, command->volume_isr->isr, command->volume_isr->reason);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_INCARNATION:
        id = command->volume_incarnation->volume;
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_SET:
    case DIRECTOR__COMMAND__BODY_VOLUME_REPLICA_ADD:
    case DIRECTOR__COMMAND__BODY_VOLUME_REPLICA_REMOVE:
    case DIRECTOR__COMMAND__BODY_VOLUME_GROW:
    case DIRECTOR__COMMAND__BODY_VOLUME_GROWN:
    case DIRECTOR__COMMAND__BODY_VOLUME_FORCE:
    case DIRECTOR__COMMAND__BODY_VOLUME_DISCARD:
    case DIRECTOR__COMMAND__BODY_TASK_CREATE:
        id = result->volume;
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_RESERVE:
        id = command->volume_reserve->volume;
        break;
    case DIRECTOR__COMMAND__BODY_TARGET_CREATE:
        iqn = command->target_create->iqn;
        break;
    case DIRECTOR__COMMAND__BODY_LUN_ADD:
        iqn = command->lun_add->iqn;
        break;
    case DIRECTOR__COMMAND__BODY_LUN_REMOVE:
        iqn = command->lun_remove->iqn;
        break;
    case DIRECTOR__COMMAND__BODY_TARGET_DELETE:
        if (node->current)
            engine_remove_target(node->engine, command->target_delete->iqn);
        break;
    default:
        break;
    }
    if (id && tree_volume_by_id(node->tree, id))
        failover_observe(node->failover, tree_volume_by_id(node->tree, id), node_now_ms(node));
    if (id && node->current && tree_volume_by_id(node->tree, id))
        node_plan_push(node, tree_volume_by_id(node->tree, id));
    if (iqn && node->current && tree_target_by_iqn(node->tree, iqn))
        engine_put_target(node->engine, tree_target_by_iqn(node->tree, iqn));
    node_plan_wake(node);
}

/* --- proposals without a client ---------------------------------------------------------------------------------------- */

/* A change that the node itself wants. What loses its compare-and-set is simply not done: the next look decides anew. */
struct plan_proposal {
    struct node_proposal proposal;
    struct node *node;
    char what[64];
};

static void plan_done(struct node_proposal *proposal, int status, const struct tree_result *result, const struct error *error)
{
    struct plan_proposal *plan = container_of(proposal, struct plan_proposal, proposal);
    (void)result;
    plan->node->steps_under_way--;
    if (status < 0 && status != -ESTALE)
        log_warning("%s: %s", plan->what, error->message);
    free(plan);
}

static void plan_propose(struct node *node, Director__Command *command, const char *verb, const char *object, uint64_t number)
{
    struct error error = {0};
    if (node->stopping || node->steps_under_way >= PLAN_STEPS_MAX)
        return;
    struct plan_proposal *plan = calloc(1, sizeof(*plan));
    if (!plan)
        return;
    plan->node = node;
    plan->proposal.done = plan_done;
    (void)snprintf(plan->what, sizeof(plan->what), "%s of %s %" PRIu64, verb, object, number);
    node->steps_under_way++;
    if (node_log_propose(node, command, RSM_CHANGE_NONE, 0, 10000, &plan->proposal, &error) < 0) {
        log_warning("%s: %s", plan->what, error.message);
        node->steps_under_way--;
        free(plan);
    }
}

static void propose_promote(struct node *node, uint64_t volume, uint64_t epoch, uint16_t owner, uint32_t isr, const char *reason)
{
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumePromote promote = DIRECTOR__VOLUME_PROMOTE__INIT;
    promote.volume = volume;
    promote.expect_epoch = epoch;
    promote.owner = owner;
    promote.isr = isr;
    promote.reason = (char *)reason;
    command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_PROMOTE;
    command.volume_promote = &promote;
    plan_propose(node, &command, "promotion", "volume", volume);
}

static void propose_isr(struct node *node, uint64_t volume, uint64_t epoch, uint64_t version, uint32_t isr, const char *reason)
{
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeIsr change = DIRECTOR__VOLUME_ISR__INIT;
    change.volume = volume;
    change.expect_epoch = epoch;
    change.expect_version = version;
    change.isr = isr;
    change.reason = (char *)reason;
    command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_ISR;
    command.volume_isr = &change;
    plan_propose(node, &command, "in-sync set", "volume", volume);
}

/* The mirror asks for another in-sync set. */
static void engine_asks_isr(void *context, uint64_t id, uint64_t epoch, uint64_t version, uint32_t isr, const char *reason)
{
    struct node *node = context;
    const struct tree_volume *volume = tree_volume_by_id(node->tree, id);
    struct failover_nodes alive;
    struct failover_step step;
    if (!node->quorate || !volume)
        return; /* it asks again */
    node_plan_alive(node, &alive);
    if (!failover_answer(node->failover, volume, node->self.nodeid, &alive, epoch, version, isr, node_now_ms(node), &step))
        return;
    if (step.action == FAILOVER_PROMOTE)
        propose_promote(node, id, epoch, step.owner, step.isr, reason);
    else
        propose_isr(node, id, epoch, version, step.isr, reason);
}

/* The device server has a change of its reservations to be committed (I14). */
static void engine_reserves(void *context, uint64_t id, uint64_t epoch, uint64_t version, const uint8_t *bytes, uint32_t size)
{
    struct node *node = context;
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeReserve reserve = DIRECTOR__VOLUME_RESERVE__INIT;
    if (!node->quorate || !tree_volume_by_id(node->tree, id))
        return; /* it asks again */
    reserve.volume = id;
    reserve.expect_epoch = epoch;
    reserve.expect_version = version;
    reserve.table = (ProtobufCBinaryData){size, (uint8_t *)bytes};
    command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_RESERVE;
    command.volume_reserve = &reserve;
    plan_propose(node, &command, "reservation", "volume", id);
}

static void engine_records_replica(void *context, uint64_t id, uint64_t incarnation)
{
    struct node *node = context;
    const struct tree_volume *volume = tree_volume_by_id(node->tree, id);
    int place = volume ? tree_volume_replica_of(volume, node->self.nodeid) : -1;
    if (place < 0 || node->stopping)
        return;
    if (incarnation != volume->replicas[place].incarnation)
        log_warning("volume %s: this node's replica is missing, damaged or retired, and is made anew", volume->name);
    if (record_set(node, id, &volume->uuid, volume->replicas[place].store, incarnation) == 0 && node->current)
        node_plan_push(node, volume);
}

/* Only now: what is left after a crash is found by its record. */
static void engine_forgets_replica(void *context, uint64_t id)
{
    struct node *node = context;
    const struct tree_volume *volume = tree_volume_by_id(node->tree, id);
    if (record_set(node, id, NULL, NULL, 0) == 0 && volume && node->current && !node->stopping)
        node_plan_push(node, volume); /* it may have been added again meanwhile */
}

static void engine_blank_replica(void *context, uint64_t volume, uint32_t replica, uint64_t incarnation)
{
    struct node *node = context;
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeIncarnation change = DIRECTOR__VOLUME_INCARNATION__INIT;
    const struct tree_volume *now = tree_volume_by_id(node->tree, volume);
    if (!node->quorate || !now || now->isr & 1u << replica)
        return; /* it asks again; the owner sees another disk than it knew and has it out of the in-sync set */
    change.volume = volume;
    change.replica = replica;
    change.incarnation = incarnation;
    change.expect = now->replicas[replica].incarnation;
    command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_INCARNATION;
    command.volume_incarnation = &change;
    plan_propose(node, &command, "new incarnation", "volume", volume);
}

static void engine_grown_replica(void *context, uint64_t volume, uint32_t replica, uint64_t size_bytes, uint64_t incarnation)
{
    struct node *node = context;
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeGrown grown = DIRECTOR__VOLUME_GROWN__INIT;
    const struct tree_volume *now = tree_volume_by_id(node->tree, volume);
    if (!node->quorate || !now || now->size_wanted != size_bytes || now->grown >> replica & 1)
        return; /* it is told again */
    grown.volume = volume;
    grown.replica = replica;
    grown.size = size_bytes;
    grown.incarnation = incarnation;
    command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_GROWN;
    command.volume_grown = &grown;
    plan_propose(node, &command, "growing", "volume", volume);
}

/* --- the sequencer's duties -------------------------------------------------------------------------------------------- */

static void plan_failover(struct node *node)
{
    struct failover_nodes alive;
    struct failover_step steps[16];
    node_plan_alive(node, &alive);
    size_t count = failover_plan(node->failover, node->tree, &alive, node_now_ms(node), steps, ARRAY_SIZE(steps));
    for (size_t i = 0; i < count; i++) {
        const struct failover_step *step = &steps[i];
        if (step->action == FAILOVER_PROMOTE)
            propose_promote(node, step->volume, step->expect_epoch, step->owner, step->isr, step->reason);
        else
            propose_isr(node, step->volume, step->expect_epoch, step->expect_version, step->isr, step->reason);
    }
    if (count == ARRAY_SIZE(steps))
        node->plan_wanted = true;
}

/* A member that came back with another address is on no ring before all know it: it says so on its control link. */
static void plan_addresses(struct node *node)
{
    if (node_now_ms(node) - node->address_ms < OWN_RETRY_MS)
        return;
    for (struct peer *peer = peer_mesh_next(node->control, NULL); peer; peer = peer_mesh_next(node->control, peer)) {
        const struct peer_hello *hello = peer_hello(peer);
        const struct tree_node *known = tree_node_by_uuid(node->tree, &hello->node);
        struct formation_where where = node_hello_where(hello);
        if (!known || !uuid_equal(&hello->cluster, &node->self.cluster) || !where.address[0] ||
            !strcmp(where.address, known->address) || node_members_find(node, known->nodeid))
            continue;
        if (!known->address[0] && (node->list_reloaded < node->list_version ||
                                   node_now_ms(node) - node->list_changed_ms < NODE_STAGE_MS))
            continue; /* the second step, when corosync runs without it */
        Director__Command command = DIRECTOR__COMMAND__INIT;
        Director__NodeUpdate update = DIRECTOR__NODE_UPDATE__INIT;
        Director__NodeInfo info = DIRECTOR__NODE_INFO__INIT;
        struct uuid uuid = known->uuid;
        log_notice("node %s has another address now: %s", known->name, where.address);
        info.uuid.data = uuid.bytes;
        info.uuid.len = sizeof(uuid);
        info.nodeid = known->nodeid;
        info.address = where.address;
        update.node = &info;
        command.body_case = DIRECTOR__COMMAND__BODY_NODE_UPDATE;
        command.node_update = &update;
        node->address_ms = node_now_ms(node);
        plan_propose(node, &command, "new address", "node", info.nodeid);
        return;
    }
}

static void voter_done(struct node_proposal *proposal, int status, const struct tree_result *result, const struct error *error)
{
    struct node *node = container_of(proposal, struct node, voter_proposal);
    (void)result;
    node->voter_busy = false;
    if (status < 0)
        log_warning("voter: %s", error->message);
    node->plan_wanted = true;
}

static void voter_propose(struct node *node, uint16_t nodeid, bool voter, enum rsm_change change)
{
    struct error error = {0};
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__NodeVoter body = DIRECTOR__NODE_VOTER__INIT;
    body.nodeid = nodeid;
    body.voter = voter;
    command.body_case = DIRECTOR__COMMAND__BODY_NODE_VOTER;
    command.node_voter = &body;
    node->voter_proposal.done = voter_done;
    node->voter_busy = true; /* before: a cluster of one answers at once */
    if (node_log_propose(node, &command, change, change ? nodeid : 0, 10000, &node->voter_proposal, &error) == 0)
        return;
    node->voter_busy = false;
    log_warning("voter: %s", error.message);
}

/* A vote was taken, or the node is gone: remembered on every node, whoever is the sequencer next. */
static void vote_note(struct node *node, const Director__Command *command)
{
    if (command->body_case != DIRECTOR__COMMAND__BODY_NODE_VOTER || command->node_voter->voter)
        return;
    size_t oldest = 0;
    for (size_t i = 1; i < ARRAY_SIZE(node->vote_taken); i++)
        if (node->vote_taken[i].taken_ms < node->vote_taken[oldest].taken_ms)
            oldest = i;
    node->vote_taken[oldest].nodeid = (uint16_t)command->node_voter->nodeid;
    node->vote_taken[oldest].taken_ms = node_now_ms(node);
}

static bool vote_rests(struct node *node, uint16_t nodeid)
{
    for (size_t i = 0; i < ARRAY_SIZE(node->vote_taken); i++)
        if (node->vote_taken[i].nodeid == nodeid && node_now_ms(node) - node->vote_taken[i].taken_ms < NODE_VOTE_REST_MS)
            return true;
    return false;
}

static bool voter_in_force(const struct rsm_status *status, uint16_t nodeid)
{
    for (size_t i = 0; i < status->voter_count; i++)
        if (status->voters[i] == nodeid)
            return true;
    return false;
}

/* The log's voters and the tree's flags should say the same; where they do not, the flag is what was asked for last. A
 * learner that has caught up becomes a voter. One at a time (R7). */
static void plan_voters(struct node *node)
{
    struct rsm_status status;
    struct rsm_progress progress;
    if (node->voter_busy)
        return;
    rsm_get_status(node->rsm, &status);
    if (!status.config_committed)
        return;
    for (size_t i = 0; i < status.voter_count; i++) {
        const struct tree_node *voter = tree_node_by_id(node->tree, status.voters[i]);
        if (voter && (voter->voter || !vote_rests(node, voter->nodeid)))
            continue; /* without the flag it gets it, below */
        log_warning("voter: node %u votes in the log but not in the tree; its vote is taken", status.voters[i]);
        voter_propose(node, status.voters[i], false, RSM_CHANGE_REMOVE_VOTER);
        return;
    }
    for (size_t i = 0; i < tree_node_count(node->tree); i++) {
        const struct tree_node *candidate = tree_node_at(node->tree, i);
        bool in_force = voter_in_force(&status, candidate->nodeid);
        if (candidate->voter == in_force && in_force)
            continue;
        if (vote_rests(node, candidate->nodeid) || !node_members_find(node, candidate->nodeid) ||
            (!in_force && (!rsm_get_progress(node->rsm, candidate->nodeid, &progress) ||
                           progress.match_index + VOTER_LAG_MAX < status.commit)))
            continue;
        voter_propose(node, candidate->nodeid, true, in_force ? RSM_CHANGE_NONE : RSM_CHANGE_ADD_VOTER);
        return;
    }
}

/* --- this node's own entries ------------------------------------------------------------------------------------------- */

static void own_done(struct node_proposal *proposal, int status, const struct tree_result *result, const struct error *error)
{
    struct node *node = container_of(proposal, struct node, own_proposal);
    (void)result;
    node->own_busy = false;
    node->own_retry_ms = status < 0 ? node_now_ms(node) + OWN_RETRY_MS : 0;
    if (status < 0)
        log_warning("this node's entry: %s", error->message);
    node->plan_wanted = true;
}

static void plan_own(struct node *node)
{
    const struct tree_node *self = tree_node_by_id(node->tree, node->self.nodeid);
    struct error error = {0};
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__NodeUpdate update = DIRECTOR__NODE_UPDATE__INIT;
    Director__NodeInfo info = DIRECTOR__NODE_INFO__INIT;
    Director__StorePut put = DIRECTOR__STORE_PUT__INIT;
    if (node->current && !node->forming && node->self.nodeid == 1 && !tree_node_count(node->tree))
        node_formation_resume(node);
    if (node->own_busy || node->forming || !self || !node->current || node_now_ms(node) < node->own_retry_ms)
        return;
    const struct tree_store *store = tree_store_find(node->tree, node->self.nodeid, DEFAULT_STORE);
    if (self->boot != node->boot || strcmp(self->address, node->address) || strcmp(self->software, DIRECTOR_VERSION)) {
        info.uuid.data = node->self.uuid.bytes;
        info.uuid.len = sizeof(struct uuid);
        info.nodeid = node->self.nodeid;
        info.name = (char *)self->name;
        info.address = node->address;
        info.boot = node->boot;
        info.version_max = PEER_VERSION;
        info.software = (char *)DIRECTOR_VERSION;
        update.node = &info;
        command.body_case = DIRECTOR__COMMAND__BODY_NODE_UPDATE;
        command.node_update = &update;
    } else if (node->store_capacity_bytes && (!store || strcmp(store->path, node->options.store_path))) {
        put.nodeid = node->self.nodeid;
        put.name = (char *)DEFAULT_STORE;
        put.plugin = (char *)"file";
        put.path = (char *)node->options.store_path;
        put.capacity = node->store_capacity_bytes;
        command.body_case = DIRECTOR__COMMAND__BODY_STORE_PUT;
        command.store_put = &put;
    } else {
        return;
    }
    node->own_proposal.done = own_done;
    node->own_busy = true; /* before: a cluster of one answers at once */
    if (node_log_propose(node, &command, RSM_CHANGE_NONE, 0, 10000, &node->own_proposal, &error) < 0) {
        node->own_busy = false;
        log_warning("this node's entry: %s", error.message);
        node->own_retry_ms = node_now_ms(node) + OWN_RETRY_MS;
    }
}

/* --- life -------------------------------------------------------------------------------------------------------------- */

void node_plan_wake(struct node *node)
{
    node->plan_wanted = true;
}

void node_plan_tick(struct node *node)
{
    uint64_t now = node_now_ms(node);
    node_live_send(node);
    if (!node->plan_wanted && now - node->planned_ms < NODE_PLAN_MS)
        return;
    node->plan_wanted = false;
    node->planned_ms = now;
    push_ports(node);
    if (!node->quorate || !node->rsm)
        return;
    plan_own(node);
    node_task_tick(node);
    if (node->is_sequencer && node->current) {
        plan_failover(node);
        plan_voters(node);
        plan_addresses(node);
    }
}

int node_plan_start(struct node *node, struct error *error)
{
    struct peer_hello hello = {.cluster = node->self.cluster, .node = node->self.uuid, .nodeid = node->self.nodeid,
                               .boot = node->boot};
    uint8_t psk[KEY_PSK_BYTES];
    (void)snprintf(hello.name, sizeof(hello.name), "%s", node->options.name);
    (void)snprintf(hello.address, sizeof(hello.address), "%s:%u", node->address, PEER_PORT);
    (void)snprintf(hello.software, sizeof(hello.software), "%s", DIRECTOR_VERSION);
    list_init(&node->live);
    node->failover = failover_new();
    int result = key_peer_psk(&node->key, psk);
    if (result < 0)
        return error_set(error, result, "keys could not be derived from the cluster key");
    struct engine_options options = {
        .control_loop = node->loop,
        .psk = psk,
        .hello = &hello,
        .address = node->address,
        .portal = node->options.portal,
        .node_uuid = node->self.uuid,
        .boot = node->boot,
        .plugins = node->plugins,
        .faults_path = node->options.faults_path,
        .callbacks = {.context = node, .ask_isr = engine_asks_isr, .replica_record = engine_records_replica, .replica_gone = engine_forgets_replica,
                      .replica_blank = engine_blank_replica, .replica_grown = engine_grown_replica, .reserve = engine_reserves, .live = node_live_figures, .own = node_live_own},
    };
    return engine_new(&options, &node->engine, error);
}

static void engine_gone(void *context)
{
    struct node *node = context;
    node->engine = NULL;
    node_part_closed(node);
}

void node_plan_stop(struct node *node)
{
    if (node->engine) {
        node->closing++;
        engine_close(node->engine, engine_gone, node);
    }
}
