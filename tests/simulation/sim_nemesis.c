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
        sim->nodes[a].data_broken = false;
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
    if (sim_chance(world, 2500))
        *(sim_chance(world, 5000) ? &node->data_broken : &node->log_broken) = true;
    SIM_LOG(sim, "nemesis: disks of node %u: %u times slower%s%s", node->nodeid, node->slow, node->data_broken ? ", data fails" : "",
            node->log_broken ? ", log fails" : "");
}

static void mischief(struct sim *sim)
{
    struct sim_world *world = &sim->world;
    struct sim_node *node = any(sim);
    switch (sim_random(world, 14)) {
    case 0:
    case 1:
        sim_node_crash(node, sim_chance(world, 5000) ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
        break;
    case 2: /* the whole site loses power */
        for (unsigned i = 0; i < sim->node_count && sim_chance(world, 6000); i++)
            for (unsigned k = 0; k < sim->node_count; k++)
                sim_node_crash(&sim->nodes[k], SIM_CRASH_POWER);
        break;
    case 3:
    case 4:
    case 5:
        cut(sim);
        break;
    case 6:
        SIM_LOG(sim, "nemesis: isolate %u", node->nodeid);
        sim_isolate(sim, node->place, true);
        break;
    case 7:
        sim_node_pause(node, sim_chance(world, 4000));
        break;
    case 8:
        if (node->up && !node->paused) {
            uint64_t until = world->now_us + 10000 + sim_random(world, 1200000);
            SIM_LOG(sim, "nemesis: control thread of node %u hangs", node->nodeid);
            node->control.busy_until_us = until;
            sim_node_call(node, SIM_OUTSIDE, until, hang, 0);
        }
        break;
    case 9:
        if (sim_chance(world, 3000)) {
            SIM_LOG(sim, "nemesis: corosync of node %u dies", node->nodeid);
            sim_bus_stop(node);
        }
        break;
    case 10:
        break_disk(sim, node);
        break;
    default:
        heal_some(sim);
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
    if (sim_chance(world, 2500))
        mischief(sim);
    else if (sim_chance(world, 800))
        move(sim);
    else if (awake && sim_chance(world, 4000))
        (void)sim_control_change(node);
    else if (awake)
        sim_control_question(node);
    for (unsigned i = 0; i < sim->node_count; i++) /* a node that stepped out is started again, with a good disk */
        if (sim->nodes[i].up && sim->nodes[i].control.failed && sim_chance(world, 500)) {
            sim->nodes[i].log_broken = false;
            sim_node_crash(&sim->nodes[i], SIM_CRASH_PROCESS);
        }
    sim_plan(world, event, world->now_us + 10000 + sim_random(world, 60000));
}

void sim_nemesis_start(struct sim *sim)
{
    struct turn *first = calloc(1, sizeof(*first));
    ASSERT(first);
    first->event.run = turn_run;
    first->event.drop = turn_drop;
    first->sim = sim;
    sim->mishaps = sim->restarts = true;
    sim_plan(&sim->world, &first->event, sim->world.now_us + 50000);
}
