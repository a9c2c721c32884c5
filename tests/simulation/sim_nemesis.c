/* Faults by lot, and what operators do meanwhile. */
#include "tests/simulation/sim.h"

struct turn {
    struct sim_event event;
    struct sim *sim;
};

static void turn_drop(struct sim_event *event)
{
    free(container_of(event, struct turn, event));
}

static struct sim_node *any(struct sim *sim)
{
    return &sim->nodes[sim_random(&sim->world, sim->node_count)];
}

static void heal_some(struct sim *sim)
{
    SIM_LOG(sim, "nemesis: heal");
    for (unsigned a = 0; a < sim->node_count; a++) {
        for (unsigned b = 0; b < sim->node_count; b++) {
            sim->bus_cut[a][b] = false;
            if (a < b)
                sim_link_cut(sim, a, b, false);
        }
        sim_node_wake(&sim->nodes[a]);
        sim->nodes[a].data_broken = sim->nodes[a].meta_broken = sim->nodes[a].hung = false;
        sim->nodes[a].slow = 1;
    }
    sim_bus_changed(sim);
}

static void hang(struct sim_node *node, uint64_t argument)
{
    (void)argument;
    sim_node_ready(node);
}

static void cut(struct sim *sim)
{
    struct sim_world *world = &sim->world;
    unsigned a = any(sim)->place, b = any(sim)->place;
    if (a == b)
        return;
    switch (sim_random(world, 4)) {
    case 0:
        SIM_LOG(sim, "nemesis: cut data link %u - %u", a + 1, b + 1);
        sim_link_cut(sim, a, b, true);
        break;
    case 1:
        SIM_LOG(sim, "nemesis: bus cut %u -> %u", a + 1, b + 1);
        sim_cut_bus(sim, a, b, true);
        break;
    case 2:
        SIM_LOG(sim, "nemesis: cut %u - %u", a + 1, b + 1);
        sim_link_cut(sim, a, b, true);
        sim->bus_cut[a][b] = true;
        sim_cut_bus(sim, b, a, true);
        break;
    default: /* a flap */
        sim_link_break(sim, a, b);
    }
}

/* A live move, or a strange wish: compare-and-set decides. */
static void move(struct sim *sim)
{
    struct sim_world *world = &sim->world;
    unsigned volume = (unsigned)sim_random(world, sim->options.volumes);
    struct sim_node *by = any(sim);
    const struct tree_volume *v = sim_volume(sim, volume);
    if (!v || !by->up || by->paused)
        return;
    uint32_t isr = v->isr;
    unsigned place = (unsigned)sim_random(world, v->replica_count);
    for (unsigned k = 0; k < v->replica_count; k++)
        if (k != place && sim_chance(world, 1500))
            isr &= ~(1u << k);
    SIM_LOG(sim, "nemesis: node %u wants v%u at node %u, isr %x", by->nodeid, volume, v->replicas[place].nodeid, isr);
    (void)sim_control_promote(by, volume, v->replicas[place].nodeid, isr);
}

static void break_disk(struct sim *sim, struct sim_node *node)
{
    struct sim_world *world = &sim->world;
    node->slow = 1 + (unsigned)sim_random(world, 30);
    if (sim_chance(world, 3500)) {
        bool *kinds[] = {&node->data_broken, &node->log_broken, &node->meta_broken, &node->hung};
        *kinds[sim_random(world, ARRAY_SIZE(kinds))] = true;
    }
    SIM_LOG(sim, "nemesis: disks of node %u: %u times slower%s%s%s%s", node->nodeid, node->slow,
            node->data_broken ? ", data fails" : "", node->log_broken ? ", log fails" : "",
            node->meta_broken ? ", metadata fails" : "", node->hung ? ", nothing answers" : "");
}

/* At one node alone: what is rotten on two disks is lost, whatever we do. */
static void rot(struct sim *sim)
{
    struct sim_world *world = &sim->world;
    struct sim_node *node = &sim->nodes[sim->mix.rot_place];
    unsigned volume = (unsigned)sim_random(world, sim->options.volumes), count = 1 + (unsigned)sim_random(world, 8);
    enum sim_block_state state = sim_chance(world, 5000) ? SIM_BLOCK_ROTTEN : SIM_BLOCK_UNREADABLE;
    for (unsigned i = 0; i < count; i++)
        sim_disk_spoil(node, volume, (uint32_t)(sim_chance(world, 5000) ? sim_random(world, 6) * 7 : sim_random(world, SIM_BLOCKS)),
                       state);
}

/* Of a replica that is not needed: the last copy of something must not be thrown away. */
static void lose(struct sim *sim)
{
    unsigned volume = (unsigned)sim_random(&sim->world, sim->options.volumes);
    const struct sim_node *knows = sim_sequencer(sim);
    const struct tree_volume *v = knows && knows->control.current ? sim_volume(sim, volume) : NULL;
    for (unsigned k = 0; v && k < v->replica_count; k++) {
        struct sim_node *node = sim_replica(sim, v, k);
        if (!node || v->isr >> k & 1 || node->up || !node->disks[volume].meta_there)
            continue;
        SIM_LOG(sim, "nemesis: node %u gets an empty disk for v%u", node->nodeid, volume);
        sim_disk_lose(&node->disks[volume]);
        return;
    }
}

/* Operators at work: replicas come and go, policies change, the volume is checked. */
static void places(struct sim *sim)
{
    struct sim_world *world = &sim->world;
    unsigned volume = (unsigned)sim_random(world, sim->options.volumes);
    struct sim_node *by = any(sim), *other = any(sim);
    const struct tree_volume *v = sim_volume(sim, volume);
    struct tree_policy policy = {.verified_reads = sim_chance(world, 4000), .in_sync_min = (uint8_t)sim_random(world, 3),
                                 .slow_ms = sim_chance(world, 5000) ? 500 : 0,
                                 .resync_cap = sim_chance(world, 3000) ? 1u << 20 : 0,
                                 .resync_floor = sim_chance(world, 3000) ? 1u << 20 : 0};
    if (!v || !by->up || by->paused || !by->control.rsm)
        return;
    switch (sim_random(world, 5)) {
    case 0:
        SIM_LOG(sim, "nemesis: node %u wants the replica of v%u on node %u removed", by->nodeid, volume, other->nodeid);
        (void)sim_operator_remove(by, volume, other->nodeid);
        break;
    case 1:
    case 2:
        if (tree_volume_replica_of(v, other->nodeid) < 0) {
            SIM_LOG(sim, "nemesis: node %u wants a replica of v%u on node %u", by->nodeid, volume, other->nodeid);
            (void)sim_operator_add(by, volume, other->nodeid);
        }
        break;
    case 3:
        SIM_LOG(sim, "nemesis: v%u: reads %s, in sync %u", volume, policy.verified_reads ? "verified" : "by lease", policy.in_sync_min);
        (void)sim_operator_policy(by, volume, sim->mix.policies, &policy);
        break;
    default:
        if (sim_owner(sim, volume)->up && !sim_owner(sim, volume)->paused)
            (void)sim_operator_check(sim_owner(sim, volume), volume,
                                     sim_chance(world, 5000) ? MIRROR_CHECK_VERIFY : MIRROR_CHECK_SCRUB, sim_chance(world, 5000));
    }
}

static void mischief_of(struct sim *sim, enum sim_fault fault)
{
    struct sim_world *world = &sim->world;
    struct sim_node *node = any(sim);
    switch (fault) {
    case SIM_FAULT_CRASH:
        sim_node_crash(node, sim_chance(world, 5000) ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
        break;
    case SIM_FAULT_SITE: /* the whole site loses power */
        for (unsigned k = 0; k < sim->node_count && sim_chance(world, 7000); k++)
            for (unsigned i = 0; i < sim->node_count; i++)
                sim_node_crash(&sim->nodes[i], SIM_CRASH_POWER);
        break;
    case SIM_FAULT_CUT:
        cut(sim);
        break;
    case SIM_FAULT_ISOLATE:
        SIM_LOG(sim, "nemesis: isolate %u", node->nodeid);
        sim_isolate(sim, node->place, true);
        break;
    case SIM_FAULT_PAUSE:
        sim_node_pause(node, sim_chance(world, 4000));
        break;
    case SIM_FAULT_HANG:
        if (node->up && !node->paused) {
            uint64_t until = world->now_us + 10000 + sim_random(world, 1200000);
            SIM_LOG(sim, "nemesis: control thread of node %u hangs", node->nodeid);
            node->control.busy_until_us = until;
            sim_node_call(node, SIM_OUTSIDE, until, hang, 0);
        }
        break;
    case SIM_FAULT_BUS:
        SIM_LOG(sim, "nemesis: corosync of node %u dies", node->nodeid);
        sim_bus_stop(node);
        break;
    case SIM_FAULT_DISK:
        break_disk(sim, node);
        break;
    case SIM_FAULT_ROT:
        rot(sim);
        break;
    case SIM_FAULT_MOVE:
        move(sim);
        break;
    case SIM_FAULT_WIRE: {
        unsigned other = any(sim)->place;
        if (other != node->place)
            sim_link_break(sim, node->place, other);
        break;
    }
    case SIM_FAULT_WALL:
        node->wall_us = ((int64_t)sim_random(world, 7200) - 3600) * 1000000;
        break;
    case SIM_FAULT_LOSE:
        lose(sim);
        break;
    case SIM_FAULT_PLACES:
        places(sim);
        break;
    case SIM_FAULT_ALL:
        break;
    }
}

static void mischief(struct sim *sim)
{
    static const uint8_t weights[] = {4, 1, 6, 2, 2, 2, 1, 2, 2, 3, 1, 1, 3, 4}; /* by bit of enum sim_fault */
    unsigned sum = 0;
    if (sim_chance(&sim->world, sim->mix.heal)) {
        heal_some(sim);
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(weights); i++)
        sum += sim->mix.faults >> i & 1 ? weights[i] : 0;
    uint64_t draw = sum ? sim_random(&sim->world, sum) : 0;
    for (unsigned i = 0; i < ARRAY_SIZE(weights) && sum; i++) {
        unsigned weight = sim->mix.faults >> i & 1 ? weights[i] : 0;
        if (draw < weight) {
            mischief_of(sim, (enum sim_fault)(1u << i));
            return;
        }
        draw -= weight;
    }
}

static void turn_run(struct sim_world *world, struct sim_event *event)
{
    struct sim *sim = container_of(event, struct turn, event)->sim;
    if (!sim->mishaps) {
        turn_drop(event);
        return;
    }
    struct sim_node *node = any(sim);
    bool awake = node->up && !node->paused && node->control.rsm;
    if (sim_chance(world, sim->mix.mischief))
        mischief(sim);
    else if (awake && sim_chance(world, 4000))
        (void)sim_control_change(node);
    else if (awake)
        sim_control_question(node);
    for (unsigned i = 0; i < sim->node_count; i++) /* a node that stepped out is started again, with a good disk */
        if (sim->nodes[i].up && sim->nodes[i].control.failed && sim_chance(world, 500)) {
            sim->nodes[i].log_broken = false;
            sim_node_crash(&sim->nodes[i], SIM_CRASH_PROCESS);
        }
    sim_plan(world, event, world->now_us + 10000 + sim_random(world, sim->mix.turn_us));
}

void sim_nemesis_start(struct sim *sim)
{
    struct turn *first = calloc(1, sizeof(*first));
    ASSERT(first);
    first->event.run = turn_run;
    first->event.drop = turn_drop;
    first->sim = sim;
    sim->mishaps = sim->restarts = true;
    for (unsigned i = 0; i < sim->node_count && sim->mix.drift_ppm; i++)
        sim_clock_drift(&sim->nodes[i], (int)sim_random(&sim->world, 2 * (unsigned)sim->mix.drift_ppm + 1) - sim->mix.drift_ppm);
    sim_plan(&sim->world, &first->event, sim->world.now_us + 50000);
}
