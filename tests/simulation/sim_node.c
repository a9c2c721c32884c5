/* The life of a node's process, its threads and its clock. */
#include "tests/simulation/sim_target.h"

#include <string.h>

uint64_t sim_clock_us(const struct sim_node *node)
{
    uint64_t now = node->sim->world.now_us;
    return (uint64_t)((int64_t)(now + node->skew_us) + (int64_t)now * node->drift_ppm / 1000000);
}

uint64_t sim_clock_when(const struct sim_node *node, uint64_t clock_us)
{
    uint64_t now = node->sim->world.now_us, clock = sim_clock_us(node);
    if (clock_us <= clock)
        return now + 1;
    return now + (clock_us - clock) * 1000000 / (uint64_t)(1000000 + node->drift_ppm) + 1;
}

/* From now on; the clock does not jump. */
void sim_clock_drift(struct sim_node *node, int drift_ppm)
{
    uint64_t before = sim_clock_us(node);
    node->drift_ppm = drift_ppm;
    node->skew_us += before - sim_clock_us(node);
}

uint64_t sim_clock_ms(const struct sim_node *node)
{
    return sim_clock_us(node) / 1000;
}

/* ---- events of a node ----------------------------------------------------------------------------------------- */

static bool busy(const struct sim_node *node)
{
    return node->control.syncing || node->control.busy_until_us > node->sim->world.now_us;
}

static enum sim_fate admit(struct sim_world *world, struct sim_event *event)
{
    struct sim_node *node = event->place;
    (void)world;
    if (!node)
        return SIM_RUN;
    if (!node->up || node->life != event->life)
        return SIM_DROP;
    if (node->paused) {
        sim_queue_push(&node->held, event);
        return SIM_HELD;
    }
    if (event->thread == SIM_CONTROL && busy(node)) {
        sim_queue_push(&node->waiting, event);
        return SIM_HELD;
    }
    return SIM_RUN;
}

void sim_node_ready(struct sim_node *node)
{
    if (!busy(node))
        sim_queue_release(&node->sim->world, &node->waiting);
}

void sim_node_plan(struct sim_node *node, enum sim_thread thread, struct sim_event *event, uint64_t at_us)
{
    node->sim->world.admit = admit;
    event->place = node;
    event->life = node->life;
    event->thread = thread;
    sim_plan(&node->sim->world, event, at_us);
}

struct call {
    struct sim_event event;
    void (*function)(struct sim_node *node, uint64_t argument);
    uint64_t argument;
};

static void call_drop(struct sim_event *event)
{
    free(container_of(event, struct call, event));
}

static void call_run(struct sim_world *world, struct sim_event *event)
{
    struct call call = *container_of(event, struct call, event);
    (void)world;
    free(container_of(event, struct call, event));
    call.function(call.event.place, call.argument);
}

void sim_node_call(struct sim_node *node, enum sim_thread thread, uint64_t at_us,
                   void (*function)(struct sim_node *node, uint64_t argument), uint64_t argument)
{
    struct call *call = calloc(1, sizeof(*call));
    ASSERT(call);
    call->event.run = call_run;
    call->event.drop = call_drop;
    call->function = function;
    call->argument = argument;
    sim_node_plan(node, thread, &call->event, at_us);
}

uint64_t sim_node_mail_at(struct sim_node *node, enum sim_thread thread)
{
    struct sim_world *world = &node->sim->world;
    uint64_t at = world->now_us + 10 + sim_random(world, node->sim->mishaps && sim_chance(world, node->sim->mix.slow_mail) ? 20000 : 100);
    node->mail_at[thread] = MAX(at, node->mail_at[thread] + 1);
    return node->mail_at[thread];
}

/* ---- start and crash ------------------------------------------------------------------------------------------ */

void sim_node_start(struct sim_node *node)
{
    if (node->up)
        return;
    node->up = true;
    node->boot = (uint64_t)node->nodeid << 32 | ++node->life;
    node->mail_at[0] = node->mail_at[1] = 0;
    SIM_LOG(node->sim, "node %u starts", node->nodeid);
    sim_target_start(node);
    sim_control_start(node);
    if (node->up)
        sim_link_start(node);
}

struct restart {
    struct sim_event event;
    struct sim_node *node;
};

static void restart_drop(struct sim_event *event)
{
    free(container_of(event, struct restart, event));
}

static void restart_run(struct sim_world *world, struct sim_event *event)
{
    struct restart *restart = container_of(event, struct restart, event);
    (void)world;
    sim_node_start(restart->node);
    free(restart);
}

static void plan_restart(struct sim_node *node)
{
    struct sim_world *world = &node->sim->world;
    struct restart *restart = calloc(1, sizeof(*restart));
    ASSERT(restart);
    restart->event.run = restart_run;
    restart->event.drop = restart_drop;
    restart->node = node;
    sim_plan(world, &restart->event, world->now_us + 1000 + sim_random(world, sim_chance(world, 5000) ? 100000 : 1500000));
}

void sim_node_crash(struct sim_node *node, enum sim_crash crash)
{
    struct sim *sim = node->sim;
    bool power = crash == SIM_CRASH_POWER;
    node->machine += power;
    if (!node->up) {
        if (power)
            sim_bus_stop(node);
        return;
    }
    SIM_LOG(sim, "node %u crashes%s", node->nodeid, power ? " (power)" : "");
    sim->counts.crashes++;
    node->up = node->paused = false;
    sim_queue_drop(&node->held);
    sim_queue_drop(&node->waiting);
    sim_client_forget(node);
    sim_target_crash(node);
    sim_unit_crash(node, power);
    sim_control_crash(node);
    node->life++; /* voids what was planned for it */
    if (node->bus.frozen) {
        node->bus.frozen = false;
        sim_bus_changed(sim);
    }
    if (power)
        sim_bus_stop(node);
    else
        sim_bus_agent_gone(node);
    for (unsigned other = 0; other < sim->node_count; other++)
        if (other != node->place)
            sim_link_break(sim, node->place, other);
    if (sim->restarts)
        plan_restart(node);
}

/* ---- pauses --------------------------------------------------------------------------------------------------- */

struct silence {
    struct sim_event event;
    struct sim_node *node;
    uint64_t life;
};

static void silence_drop(struct sim_event *event)
{
    free(container_of(event, struct silence, event));
}

/* Its peers have not heard it for so long that they break the links. */
static void silence_run(struct sim_world *world, struct sim_event *event)
{
    struct silence *silence = container_of(event, struct silence, event);
    struct sim_node *node = silence->node;
    (void)world;
    if (node->up && node->paused && node->life == silence->life)
        for (unsigned other = 0; other < node->sim->node_count; other++)
            if (other != node->place)
                sim_link_break(node->sim, node->place, other);
    free(silence);
}

void sim_node_pause(struct sim_node *node, bool whole)
{
    struct silence *silence;
    if (!node->up || node->paused)
        return;
    SIM_LOG(node->sim, "node %u is paused%s", node->nodeid, whole ? ", the whole of it" : "");
    node->paused = true;
    node->paused_us = node->sim->world.now_us;
    node->bus.frozen = whole;
    if (whole)
        sim_bus_changed(node->sim);
    silence = calloc(1, sizeof(*silence));
    ASSERT(silence);
    silence->event.run = silence_run;
    silence->event.drop = silence_drop;
    silence->node = node;
    silence->life = node->life;
    sim_plan(&node->sim->world, &silence->event, node->sim->world.now_us + 2000000);
}

void sim_node_wake(struct sim_node *node)
{
    if (!node->paused)
        return;
    SIM_LOG(node->sim, "node %u wakes", node->nodeid);
    node->paused = false;
    if (node->clock_stops)
        node->skew_us -= node->sim->world.now_us - node->paused_us;
    sim_queue_release(&node->sim->world, &node->held);
    if (node->bus.frozen) {
        node->bus.frozen = false;
        sim_bus_changed(node->sim);
    }
}
