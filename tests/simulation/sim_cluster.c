/* The cluster as a whole: made and formed as agents form it (one node bootstraps, others are added, caught up, made voters),
 * healed, settled. */
#include "tests/simulation/sim_target.h"

#include <string.h>

void sim_volume_name(unsigned volume, char name[static 16])
{
    (void)snprintf(name, 16, "v%u", volume);
}

int sim_volume_place(const char *name)
{
    return name[0] == 'v' && name[1] >= '0' && name[1] < (char)('0' + SIM_VOLUMES_MAX) && !name[2] ? name[1] - '0' : -1;
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

const struct tree *sim_tree(struct sim *sim)
{
    const struct sim_node *best = NULL;
    for (unsigned i = 0; i < sim->node_count; i++)
        if (sim->nodes[i].up && (!best || sim->nodes[i].control.applied > best->control.applied))
            best = &sim->nodes[i];
    return best ? best->control.tree : NULL;
}

const struct tree_volume *sim_volume(struct sim *sim, unsigned volume)
{
    char name[16];
    const struct tree *tree = sim_tree(sim);
    sim_volume_name(volume, name);
    return tree ? tree_volume_by_name(tree, name) : NULL;
}

struct sim_node *sim_replica(struct sim *sim, const struct tree_volume *v, unsigned k)
{
    bool there = k < v->replica_count && v->replicas[k].nodeid && !v->replicas[k].held;
    return there ? &sim->nodes[v->replicas[k].nodeid - 1] : NULL;
}

uint32_t sim_places(const struct tree_volume *v)
{
    uint32_t places = 0;
    for (unsigned k = 0; k < v->replica_count; k++)
        places |= v->replicas[k].nodeid && !v->replicas[k].held ? 1u << k : 0;
    return places;
}

struct sim_node *sim_owner(struct sim *sim, unsigned volume)
{
    const struct tree_volume *v = sim_volume(sim, volume);
    return v ? &sim->nodes[v->owner - 1] : NULL;
}

struct sim_node *sim_sequencer(struct sim *sim)
{
    struct sim_node *found = NULL;
    uint64_t term = 0;
    for (unsigned i = 0; i < sim->node_count; i++) {
        struct rsm_status status;
        if (!sim->nodes[i].up)
            continue;
        rsm_get_status(sim->nodes[i].control.rsm, &status);
        if (status.role == RSM_SEQUENCER && status.term > term) {
            term = status.term;
            found = &sim->nodes[i];
        }
    }
    return found;
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

void sim_run(struct sim *sim, uint64_t ms)
{
    sim_run_until(&sim->world, sim->world.now_us + ms * 1000);
}

bool sim_wait(struct sim *sim, uint64_t ms, bool (*condition)(struct sim *sim, void *argument), void *argument)
{
    for (uint64_t end = sim->world.now_us + ms * 1000; sim->world.now_us < end && !sim->world.violated;) {
        if (condition(sim, argument))
            return true;
        sim_run(sim, 20);
    }
    return !sim->world.violated && condition(sim, argument);
}

/* ---- making ----------------------------------------------------------------------------------------------------- */

static bool is_current(struct sim *sim, void *argument)
{
    (void)sim;
    const struct sim_node *node = argument;
    return node->up && node->control.current && node->control.quorate;
}

static bool is_voter(struct sim *sim, void *argument)
{
    const struct sim_node *node = argument;
    const struct tree_node *entry = sim_tree(sim) ? tree_node_by_id(sim_tree(sim), node->nodeid) : NULL;
    return entry && entry->voter;
}

static bool is_added(struct sim *sim, void *argument)
{
    const struct sim_node *node = argument;
    return sim_tree(sim) && tree_node_by_id(sim_tree(sim), node->nodeid) != NULL;
}

static void need(struct sim *sim, uint64_t ms, bool (*condition)(struct sim *sim, void *argument), void *argument,
                 const char *what)
{
    if (!sim_wait(sim, ms, condition, argument))
        sim_violate(&sim->world, "%s: not within %llu ms", what, (unsigned long long)ms);
}

static void node_init(struct sim *sim, unsigned place)
{
    struct sim_node *node = &sim->nodes[place];
    node->sim = sim;
    node->place = place;
    node->nodeid = (uint16_t)(place + 1);
    node->uuid.bytes[0] = (uint8_t)(place + 1);
    node->skew_us = sim_random(&sim->world, 10000000);
    node->slow = 1;
    node->log.entry_first = 1;
    sim_bus_clear(&node->bus);
}

static void bootstrap(struct sim *sim, struct sim_node *node)
{
    struct rsm_effects effects = {0};
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__ClusterInit init = DIRECTOR__CLUSTER_INIT__INIT;
    rsm_bootstrap(node->nodeid, &effects);
    for (size_t i = 0; i < effects.count; i++)
        sim_log_disk_apply(sim, &node->log, &effects.items[i]);
    rsm_effects_clear(&effects);
    rsm_effects_done(&effects);
    node->member = true;
    sim_node_start(node);
    need(sim, 5000, is_current, node, "the first node");
    init.uuid.data = (uint8_t *)node->uuid.bytes;
    init.uuid.len = sizeof(node->uuid);
    init.name = (char *)"simulated";
    command.body_case = DIRECTOR__COMMAND__BODY_CLUSTER_INIT;
    command.cluster_init = &init;
    (void)sim_control_propose(node, &command, RSM_CHANGE_NONE, 0, SIM_PROPOSE_PLAN, 0);
    sim_run(sim, 20);
    sim_control_add_node(node, node);
    need(sim, 1000, is_added, node, "the first node's entry");
}

void sim_join(struct sim *sim, unsigned place)
{
    struct sim_node *node = &sim->nodes[place], *by = sim_sequencer(sim);
    sim->node_count = MAX(sim->node_count, place + 1);
    node->member = true;
    for (unsigned try = 0; try < 20 && !is_added(sim, node); try++, sim_run(sim, 50))
        if (by && by->up && !by->paused && try % 5 == 0)
            sim_control_add_node(by, node);
    need(sim, 1000, is_added, node, "a node's entry");
    sim_node_start(node);
}

static bool has_stores(struct sim *sim, void *argument)
{
    (void)argument;
    unsigned wanted = sim->options.stores ? sim->options.stores : sim->options.nodes;
    return tree_store_count(sim_tree(sim)) >= wanted;
}

static bool settled(struct sim *sim, void *argument);

struct sim *sim_new(const struct sim_options *options)
{
    struct sim *sim = calloc(1, sizeof(*sim));
    ASSERT(sim);
    sim->options = *options;
    sim_world_init(&sim->world, options->seed);
    sim_mix_default(&sim->mix);
    sim->world.trace = options->trace;
    sim->world.verbose = options->verbose;
    sim->data.world = &sim->world;
    sim->next_incarnation = 100;
    sim_history_init(&sim->history, &sim->world, SIM_VOLUMES_MAX * SIM_BLOCKS + SIM_TARGET_BLOCKS);
    for (unsigned i = 0; i < SIM_NODES_MAX; i++)
        node_init(sim, i);
    sim->node_count = 1;
    bootstrap(sim, &sim->nodes[0]);
    for (unsigned i = 1; i < options->nodes && !sim->world.violated; i++) {
        sim_join(sim, i);
        need(sim, 10000, is_voter, &sim->nodes[i], "a voter");
    }
    if (!sim->world.violated)
        need(sim, 10000, has_stores, NULL, "the stores");
    for (unsigned v = 0; v < options->volumes && !sim->world.violated; v++) {
        for (unsigned try = 0; try < 50 && !sim_volume(sim, v); try++, sim_run(sim, 20))
            if (try % 10 == 0 && sim_sequencer(sim))
                sim_control_create_volume(sim_sequencer(sim), v);
    }
    sim_settle(sim, 10000);
    SIM_LOG(sim, "--- formed");
    return sim;
}

void sim_free(struct sim *sim)
{
    sim->restarts = sim->mishaps = false;
    for (unsigned i = 0; i < SIM_NODES_MAX; i++)
        sim_node_crash(&sim->nodes[i], SIM_CRASH_POWER);
    sim_world_done(&sim->world);
    for (unsigned i = 0; i < SIM_NODES_MAX; i++) {
        struct sim_node *node = &sim->nodes[i];
        sim_bus_clear(&node->bus);
        sim_log_disk_done(&node->log);
        for (unsigned v = 0; v < SIM_VOLUMES_MAX; v++)
            free(node->disks[v].meta);
    }
    while (sim->ops) {
        struct sim_op *op = sim->ops;
        sim->ops = op->next;
        free(op);
    }
    while (sim->commands) {
        struct sim_command *command = sim->commands;
        sim->commands = command->next;
        free(command);
    }
    for (unsigned v = 0; v < SIM_VOLUMES_MAX; v++)
        free(sim->epochs[v].owners);
    sim_history_done(&sim->history);
    sim_data_done(&sim->data);
    free(sim->records);
    free(sim->acknowledged);
    free(sim);
}

/* ---- cuts and healing ------------------------------------------------------------------------------------------- */

void sim_cut_bus(struct sim *sim, unsigned from, unsigned to, bool cut)
{
    sim->bus_cut[from][to] = cut;
    sim_bus_changed(sim);
}

void sim_isolate(struct sim *sim, unsigned place, bool cut)
{
    for (unsigned other = 0; other < SIM_NODES_MAX; other++) {
        if (other == place)
            continue;
        sim->bus_cut[place][other] = sim->bus_cut[other][place] = cut;
        sim_link_cut(sim, place, other, cut);
    }
    sim_bus_changed(sim);
}

void sim_heal(struct sim *sim)
{
    sim->mishaps = sim->restarts = sim->clients = false;
    SIM_LOG(sim, "--- all is healed");
    memset(sim->bus_cut, 0, sizeof(sim->bus_cut));
    for (unsigned a = 0; a < SIM_NODES_MAX; a++)
        for (unsigned b = a + 1; b < SIM_NODES_MAX; b++)
            sim->links[a][b].cut = false;
    for (unsigned i = 0; i < sim->node_count; i++) {
        struct sim_node *node = &sim->nodes[i];
        bool out = node->up && node->control.failed;
        node->log_broken = node->data_broken = node->meta_broken = node->hung = false;
        node->slow = 1;
        sim_node_wake(node);
        if (out) /* an operator starts it again */
            sim_node_crash(node, SIM_CRASH_PROCESS);
        for (unsigned v = 0; v < SIM_VOLUMES_MAX && node->up; v++) {
            struct replica_status status;
            if (!node->units[v].core)
                continue;
            replica_get_status(node->units[v].core, &status);
            if (status.failed && node->up)
                sim_node_crash(node, SIM_CRASH_PROCESS);
        }
        if (node->member && !node->up)
            sim_node_start(node);
    }
    sim_bus_changed(sim);
}

/* ---- settling --------------------------------------------------------------------------------------------------- */

static bool volume_settled(struct sim *sim, unsigned volume, char *why, size_t size)
{
    const struct tree_volume *v = sim_volume(sim, volume);
    struct sim_node *owner = sim_owner(sim, volume);
    struct mirror_status status;
    if (!v || !owner->up || !owner->units[volume].mirror) {
        (void)snprintf(why, size, "v%u has no owner", volume);
        return false;
    }
    mirror_get_status(owner->units[volume].mirror, sim_clock_us(owner), &status);
    if (status.state == MIRROR_SERVING && status.isr == tree_volume_mask(v) && !status.suspended && !status.in_flight &&
        !status.waiting && !status.unreconciled_regions && status.epoch == v->epoch)
        return true;
    (void)snprintf(why, size, "v%u at node %u: state %d epoch %llu of %llu isr %x%s in flight %u waiting %u unreconciled %llu "
                   "members %d %d %d", volume, owner->nodeid, status.state, (unsigned long long)status.epoch,
                   (unsigned long long)v->epoch, status.isr, status.suspended ? " suspended" : "", status.in_flight,
                   status.waiting, (unsigned long long)status.unreconciled_regions, status.members[0].state,
                   status.members[1].state, status.members[2].state);
    return false;
}

static bool why_not_settled(struct sim *sim, char *why, size_t size)
{
    uint64_t applied = 0;
    for (unsigned i = 0; i < sim->node_count; i++) {
        struct sim_node *node = &sim->nodes[i];
        struct rsm_status status;
        if (!node->up) {
            (void)snprintf(why, size, "node %u is down", node->nodeid);
            return true;
        }
        rsm_get_status(node->control.rsm, &status);
        applied = i ? applied : status.applied;
        if (!status.quorate || status.applied != applied || status.pending || status.last_index != status.commit ||
            !node->control.current || !node->authority || node->control.proposal_count) {
            (void)snprintf(why, size, "node %u: role %d %squorate, log %llu committed %llu applied %llu of %llu, pending %zu, %scurrent",
                           node->nodeid, status.role, status.quorate ? "" : "not ", (unsigned long long)status.last_index,
                           (unsigned long long)status.commit, (unsigned long long)status.applied, (unsigned long long)applied,
                           status.pending, node->control.current ? "" : "not ");
            return true;
        }
    }
    for (unsigned v = 0; v < sim->options.volumes; v++)
        if (!volume_settled(sim, v, why, size))
            return true;
    return false;
}

static bool settled(struct sim *sim, void *argument)
{
    char why[200];
    (void)argument;
    for (unsigned v = 0; v < sim->options.volumes; v++) /* a replica that leaves may have had the last good copy */
        sim_disk_recover(sim, v);
    return !why_not_settled(sim, why, sizeof(why));
}

void sim_settle(struct sim *sim, uint64_t ms)
{
    char why[200] = "";
    if (sim->world.violated || sim_wait(sim, ms, settled, NULL) || sim->world.violated)
        return;
    (void)why_not_settled(sim, why, sizeof(why));
    sim_violate(&sim->world, "not settled after %llu s: %s", (unsigned long long)ms / 1000, why);
}
