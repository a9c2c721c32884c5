/* Clients: reads and uniquely tagged writes at any node whose mirror takes them, stale owners included. */
#include "tests/simulation/sim.h"

#include <string.h>

#define HELD_MAX 3u /* reads, and writes, under way at one node and volume */

/* A crashed process answers nothing: the outcome stays unknown. */
void sim_client_forget(struct sim_node *node)
{
    for (struct sim_op *op = node->ops; op; op = op->next_active) {
        op->status = SIM_UNKNOWN;
        sim_bytes_unref(&node->sim->data, op->data);
        op->data = NULL;
    }
    node->ops = NULL;
}

void sim_client_finish(struct sim_node *node, struct mirror_request *request, int status)
{
    struct sim_op *op = container_of(request, struct sim_op, request);
    struct sim *sim = node->sim;
    struct sim_op **at = &node->ops;
    while (*at && *at != op)
        at = &(*at)->next_active;
    if (!*at) {
        sim_violate(&sim->world, "node %u answers a request that is not under way", node->nodeid);
        return;
    }
    *at = op->next_active;
    op->status = status;
    op->answered = sim->world.now_us;
    for (uint32_t i = 0; i < op->count && status == 0; i++) {
        uint32_t block = op->volume * SIM_BLOCKS + op->first + i;
        if (op->read)
            sim_history_read(&sim->history, block, op->data->tags[i], op->invoked);
        else
            sim_history_written(&sim->history, block, op->tag, op->invoked);
    }
    SIM_LOG(sim, "node %u %s v%u blocks %u+%u tag %u -> %d", node->nodeid, op->read ? "read" : "wrote", op->volume, op->first,
            op->count, op->read && !status ? op->data->tags[0] : op->tag, status);
    if (op->read && status == 0)
        op->tag = op->data->tags[0];
    *(status ? &sim->counts.failed : op->read ? &sim->counts.reads : &sim->counts.writes) += 1;
    sim_bytes_unref(&sim->data, op->data);
    op->data = NULL;
}

static void submit(struct sim_node *node, uint64_t argument)
{
    struct sim_op *op = (struct sim_op *)(uintptr_t)argument;
    struct mirror_event event = {.type = MIRROR_EVENT_REQUEST, .request = &op->request};
    if (!node->units[op->volume].mirror) {
        op->status = SIM_UNKNOWN;
        sim_client_finish(node, &op->request, -19);
        return;
    }
    sim_bytes_ref(op->data); /* the core's */
    sim_unit_step_mirror(node, op->volume, &event);
}

struct sim_op *sim_client_submit(struct sim_node *node, unsigned volume, bool read, uint32_t first, uint32_t count)
{
    struct sim *sim = node->sim;
    struct sim_op *op = calloc(1, sizeof(*op));
    ASSERT(op);
    op->next = sim->ops;
    sim->ops = op;
    op->node = node->place;
    op->volume = volume;
    op->read = read;
    op->first = first;
    op->count = count;
    op->invoked = sim->world.now_us;
    op->status = SIM_PENDING;
    if (!read) {
        op->tag = ++sim->next_tag;
        for (uint32_t i = 0; i < count; i++)
            sim_history_write(&sim->history, volume * SIM_BLOCKS + first + i, op->tag);
    }
    if (!node->up) {
        op->status = SIM_UNKNOWN;
        return op;
    }
    op->data = sim_bytes_new(&sim->data, (uint64_t)count * SIM_BLOCK_BYTES);
    for (uint32_t i = 0; i < count && !read; i++)
        op->data->tags[i] = op->tag;
    op->request.operation = read ? BLOCK_READ : BLOCK_WRITE;
    op->request.offset_bytes = (uint64_t)first * SIM_BLOCK_BYTES;
    op->request.length_bytes = (uint64_t)count * SIM_BLOCK_BYTES;
    op->request.data.handle = op->data;
    op->next_active = node->ops;
    node->ops = op;
    sim_node_call(node, SIM_IO, sim->world.now_us, submit, (uint64_t)(uintptr_t)op);
    return op;
}

bool sim_client_all_answered(struct sim *sim)
{
    for (unsigned i = 0; i < sim->node_count; i++)
        if (sim->nodes[i].ops)
            return false;
    return true;
}

/* ---- by lot --------------------------------------------------------------------------------------------------- */

struct turn {
    struct sim_event event;
    struct sim *sim;
};

static void turn_drop(struct sim_event *event)
{
    free(container_of(event, struct turn, event));
}

static void turn(struct sim *sim)
{
    struct sim_world *world = &sim->world;
    struct sim_node *node = &sim->nodes[sim_random(world, sim->node_count)];
    unsigned volume = (unsigned)sim_random(world, sim->options.volumes), under_way[2] = {0, 0};
    bool read = sim_chance(world, 5000);
    if (!sim_unit_serving(node, volume))
        return;
    for (struct sim_op *op = node->ops; op; op = op->next_active)
        under_way[op->read] += op->volume == volume;
    if (under_way[read] >= HELD_MAX)
        return;
    /* Few hot blocks, so that things meet. A paused node finds the request when it wakes, before the news. */
    uint32_t first = sim_chance(world, 6000) ? (uint32_t)sim_random(world, 6) * 7 : (uint32_t)sim_random(world, SIM_BLOCKS - 4);
    sim_client_submit(node, volume, read, first, 1 + (uint32_t)sim_random(world, 3));
}

static void turn_run(struct sim_world *world, struct sim_event *event)
{
    struct sim *sim = container_of(event, struct turn, event)->sim;
    if (!sim->clients) {
        turn_drop(event);
        return;
    }
    turn(sim);
    sim_plan(world, event, world->now_us + 200 + sim_random(world, 2000));
}

void sim_client_start(struct sim *sim)
{
    struct turn *first = calloc(1, sizeof(*first));
    ASSERT(first);
    first->event.run = turn_run;
    first->event.drop = turn_drop;
    first->sim = sim;
    sim->clients = true;
    sim_plan(&sim->world, &first->event, sim->world.now_us);
}
