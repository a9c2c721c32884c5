#include "tests/simulation/story.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

struct sim *cluster(unsigned nodes, unsigned replicas, unsigned stores)
{
    struct sim_options options = {.seed = 7, .nodes = nodes, .volumes = 1, .replicas = replicas, .stores = stores,
                                  .trace = getenv("SIM_TRACE") != NULL, .verbose = getenv("SIM_VERBOSE") != NULL};
    const char *bugs = getenv("SIM_BUGS");
    if (bugs)
        (void)sscanf(bugs, "%i:%i:%i", (int *)&options.replication_bugs, (int *)&options.rsm_bugs, (int *)&options.sim_bugs);
    struct sim *sim = sim_new(&options);
    if (sim->world.violated)
        fail_msg("%s", sim->world.violation);
    return sim;
}

void fine(const struct sim *sim)
{
    if (sim->world.violated)
        fail_msg("%s", sim->world.violation);
}

void happy_end(struct sim *sim)
{
    fine(sim);
    sim_heal(sim);
    sim_settle(sim, 100000);
    if (!sim->world.violated)
        sim_check_end(sim);
    fine(sim);
    sim_free(sim);
}

struct sim_op *writes(struct sim_node *node, uint32_t first)
{
    return sim_client_submit(node, 0, false, first, 1);
}

struct sim_op *reads(struct sim_node *node, uint32_t first)
{
    return sim_client_submit(node, 0, true, first, 1);
}

bool op_answered(struct sim *sim, void *argument)
{
    (void)sim;
    return ((struct sim_op *)argument)->status != SIM_PENDING;
}

void must_succeed(struct sim *sim, struct sim_op *op, uint64_t ms)
{
    (void)sim_wait(sim, ms, op_answered, op);
    fine(sim);
    assert_int_equal(op->status, 0);
}

static bool epoch_reached(struct sim *sim, void *argument)
{
    return sim_volume(sim, 0) && sim_volume(sim, 0)->epoch >= *(uint64_t *)argument;
}

void wait_epoch(struct sim *sim, uint64_t epoch, uint64_t ms)
{
    bool reached = sim_wait(sim, ms, epoch_reached, &epoch);
    fine(sim);
    assert_true(reached);
}

static bool isr_is(struct sim *sim, void *argument)
{
    return sim_volume(sim, 0) && sim_volume(sim, 0)->isr == *(uint32_t *)argument;
}

void wait_isr(struct sim *sim, uint32_t isr, uint64_t ms)
{
    bool reached = sim_wait(sim, ms, isr_is, &isr);
    fine(sim);
    assert_true(reached);
}

struct sim_node *replica(struct sim *sim, unsigned k)
{
    return &sim->nodes[sim_volume(sim, 0)->replicas[k].nodeid - 1];
}

unsigned replica_of(struct sim *sim, const struct sim_node *node)
{
    int k = tree_volume_replica_of(sim_volume(sim, 0), node->nodeid);
    assert_true(k >= 0);
    return (unsigned)k;
}

enum mirror_member_state member_state(struct sim *sim, unsigned k)
{
    struct sim_node *owner = sim_owner(sim, 0);
    struct mirror_status status;
    if (!owner->up || !owner->units[0].mirror)
        return MIRROR_MEMBER_AWAY;
    mirror_get_status(owner->units[0].mirror, sim_clock_us(owner), &status);
    return status.members[k].state;
}

static bool syncing(struct sim *sim, void *argument)
{
    return member_state(sim, *(unsigned *)argument) == MIRROR_MEMBER_SYNCING;
}

void wait_syncing(struct sim *sim, unsigned k, uint64_t ms)
{
    for (uint64_t end = sim->world.now_us + ms * 1000; sim->world.now_us < end && !syncing(sim, &k);)
        sim_run_until(&sim->world, sim->world.now_us + 200);
    assert_true(syncing(sim, &k));
}

void write_everywhere(struct sim *sim)
{
    for (uint32_t region = 0; region < SIM_REGIONS; region++)
        must_succeed(sim, writes(sim_owner(sim, 0), region * (SIM_BLOCKS / SIM_REGIONS) + 3), 5000);
}

void leave_behind(struct sim *sim, unsigned k, enum sim_crash crash)
{
    uint32_t without = sim_volume(sim, 0)->isr & ~(1u << k);
    sim_node_crash(replica(sim, k), crash);
    wait_isr(sim, without, 5000);
    write_everywhere(sim);
}

uint64_t gap_ms(struct sim *sim)
{
    uint64_t begin = sim->world.now_us;
    while (sim->world.now_us - begin < 20000000 && !sim->world.violated) {
        struct sim_node *owner = sim_owner(sim, 0);
        struct sim_op *op = sim_unit_serving(owner, 0) ? writes(owner, 9) : NULL;
        for (unsigned i = 0; op && i < 50 && op->status == SIM_PENDING; i++)
            sim_run(sim, 10);
        if (op && op->status == 0)
            break;
        sim_run(sim, 10);
    }
    fine(sim);
    return (sim->world.now_us - begin) / 1000;
}

static void ready(struct sim_node *node, uint64_t argument)
{
    (void)argument;
    sim_node_ready(node);
}

void hang_control(struct sim_node *node, uint64_t ms)
{
    node->control.busy_until_us = node->sim->world.now_us + ms * 1000;
    sim_node_call(node, SIM_OUTSIDE, node->control.busy_until_us, ready, 0);
}
