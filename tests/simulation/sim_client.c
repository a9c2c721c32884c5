/* Clients: reads, uniquely tagged writes and COMPARE AND WRITE at any node whose mirror takes them, stale owners included. */
#include "tests/simulation/sim_target.h"

#include <errno.h>
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

static void answered(struct sim *sim, const struct sim_op *op, uint32_t i, int status)
{
    uint32_t block = op->volume * SIM_BLOCKS + op->first + i;
    if (op->read)
        sim_history_read(&sim->history, block, op->data->tags[i], op->invoked);
    else if (op->compare)
        sim_history_compared(&sim->history, block, op->tag, status == 0, op->invoked);
    else
        sim_history_written(&sim->history, block, op->tag, op->invoked);
    if (status == 0)
        sim->seen[block] = op->read ? op->data->tags[i] : op->tag;
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
    for (uint32_t i = 0; i < op->count && (status == 0 || (op->compare && status == -EILSEQ)); i++)
        answered(sim, op, i, status);
    SIM_LOG(sim, "node %u %s v%u blocks %u+%u tag %u -> %d", node->nodeid,
            op->read ? "read" : op->compare ? "compared and wrote" : "wrote", op->volume, op->first, op->count,
            op->read && !status ? op->data->tags[0] : op->tag, status);
    if (op->read && status == 0)
        op->tag = op->data->tags[0];
    if (op->compare && (status == 0 || status == -EILSEQ))
        sim->counts.compares++;
    else
        *(status ? &sim->counts.failed : op->read ? &sim->counts.reads : &sim->counts.writes) += 1;
    sim_bytes_unref(&sim->data, op->data);
    op->data = NULL;
}

static void submit(struct sim_node *node, uint64_t argument)
{
    struct sim_op *op = (struct sim_op *)(uintptr_t)argument;
    struct mirror_event event = {.type = MIRROR_EVENT_REQUEST, .request = &op->request};
    if (!node->units[op->volume].mirror || node->units[op->volume].closing) {
        op->status = SIM_UNKNOWN;
        sim_client_finish(node, &op->request, -19);
        return;
    }
    sim_bytes_ref(op->data); /* the core's */
    sim_unit_step_mirror(node, op->volume, &event);
}

static struct sim_op *op_new(struct sim_node *node, unsigned volume, uint32_t first, uint32_t count)
{
    struct sim *sim = node->sim;
    struct sim_op *op = calloc(1, sizeof(*op));
    ASSERT(op);
    op->next = sim->ops;
    sim->ops = op;
    op->node = node->place;
    op->volume = volume;
    op->first = first;
    op->count = count;
    op->invoked = sim->world.now_us;
    op->status = SIM_PENDING;
    return op;
}

static struct sim_op *send(struct sim_node *node, struct sim_op *op, enum block_operation operation)
{
    struct sim *sim = node->sim;
    uint32_t buffers = op->compare ? 2 : 1;
    if (!node->up) {
        op->status = SIM_UNKNOWN;
        return op;
    }
    op->data = sim_bytes_new(&sim->data, (uint64_t)buffers * op->count * SIM_BLOCK_BYTES);
    for (uint32_t i = 0; i < op->count && !op->read; i++)
        op->data->tags[(buffers - 1) * op->count + i] = op->tag;
    for (uint32_t i = 0; i < op->count && op->compare; i++)
        op->data->tags[i] = op->expected;
    op->request.operation = operation;
    op->request.offset_bytes = (uint64_t)op->first * SIM_BLOCK_BYTES;
    op->request.length_bytes = (uint64_t)op->count * SIM_BLOCK_BYTES;
    op->request.data.handle = op->data;
    op->next_active = node->ops;
    node->ops = op;
    sim_node_call(node, SIM_IO, sim->world.now_us, submit, (uint64_t)(uintptr_t)op);
    return op;
}

struct sim_op *sim_client_submit(struct sim_node *node, unsigned volume, bool read, uint32_t first, uint32_t count)
{
    struct sim *sim = node->sim;
    struct sim_op *op = op_new(node, volume, first, count);
    op->read = read;
    if (!read) {
        op->tag = ++sim->next_tag;
        for (uint32_t i = 0; i < count; i++)
            sim_history_write(&sim->history, volume * SIM_BLOCKS + first + i, op->tag);
    }
    return send(node, op, read ? BLOCK_READ : BLOCK_WRITE);
}

struct sim_op *sim_client_compare(struct sim_node *node, unsigned volume, uint32_t block, uint32_t expected)
{
    struct sim *sim = node->sim;
    struct sim_op *op = op_new(node, volume, block, 1);
    op->compare = true;
    op->expected = expected;
    op->tag = ++sim->next_tag;
    sim_history_compare(&sim->history, volume * SIM_BLOCKS + block, expected, op->tag);
    return send(node, op, BLOCK_COMPARE_AND_WRITE);
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
    const struct sim_mix *mix = &sim->mix;
    struct sim_node *node = &sim->nodes[sim_random(world, sim->node_count)];
    unsigned volume = (unsigned)sim_random(world, sim->options.volumes), under_way[2] = {0, 0};
    bool read = sim_chance(world, mix->reads);
    if (mix->commands && sim_chance(world, mix->commands)) {
        sim_target_turn(node, volume);
        return;
    }
    if (!sim_unit_serving(node, volume))
        return;
    for (struct sim_op *op = node->ops; op; op = op->next_active)
        under_way[op->read] += op->volume == volume;
    if (under_way[read] >= HELD_MAX)
        return;
    /* Few hot blocks, so that things meet. A paused node finds the request when it wakes, before the news. */
    uint32_t first = sim_chance(world, mix->hot) ? (uint32_t)sim_random(world, mix->hot_blocks) * 7
                                                 : (uint32_t)sim_random(world, SIM_BLOCKS - 4);
    uint32_t seen = sim->seen[volume * SIM_BLOCKS + first];
    if (!read && sim_chance(world, mix->compares))
        (void)sim_client_compare(node, volume, first, sim_chance(world, 8500) ? seen : sim->next_tag);
    else
        (void)sim_client_submit(node, volume, read, first, 1 + (uint32_t)sim_random(world, 3));
}

static void turn_run(struct sim_world *world, struct sim_event *event)
{
    struct sim *sim = container_of(event, struct turn, event)->sim;
    if (!sim->clients) {
        turn_drop(event);
        return;
    }
    turn(sim);
    sim_plan(world, event, world->now_us + 100 + sim_random(world, sim->mix.client_us));
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
