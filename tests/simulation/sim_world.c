#include "tests/simulation/sim_world.h"

#include <stdarg.h>
#include <string.h>

void sim_world_init(struct sim_world *world, uint64_t seed)
{
    *world = (struct sim_world){.now_us = 1000000, .random = seed * 0x9e3779b97f4a7c15u + 0x1234567};
}

uint64_t sim_random(struct sim_world *world, uint64_t below)
{
    world->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    uint64_t z = world->random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

bool sim_chance(struct sim_world *world, unsigned of_ten_thousand)
{
    return sim_random(world, 10000) < of_ten_thousand;
}

/* ---- the heap ------------------------------------------------------------------------------------------------- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void sim_plan(struct sim_world *world, struct sim_event *event, uint64_t at_us)
{
    event->at = MAX(at_us, world->now_us);
    event->order = world->order++;
    if (world->heap_count == world->heap_capacity) {
        world->heap_capacity = world->heap_capacity ? world->heap_capacity * 2 : 1024;
        world->heap = realloc(world->heap, world->heap_capacity * sizeof(world->heap[0]));
        ASSERT(world->heap);
    }
    size_t i = world->heap_count++;
    for (; i > 0 && before(event, world->heap[(i - 1) / 2]); i = (i - 1) / 2)
        world->heap[i] = world->heap[(i - 1) / 2];
    world->heap[i] = event;
}

static struct sim_event *next_event(struct sim_world *world)
{
    struct sim_event *top = world->heap[0], *last = world->heap[--world->heap_count];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < world->heap_count) {
        if (child + 1 < world->heap_count && before(world->heap[child + 1], world->heap[child]))
            child++;
        if (!before(world->heap[child], last))
            break;
        world->heap[i] = world->heap[child];
        i = child;
    }
    if (world->heap_count)
        world->heap[i] = last;
    return top;
}

void sim_run_until(struct sim_world *world, uint64_t end_us)
{
    while (world->heap_count && world->heap[0]->at <= end_us && !world->violated) {
        struct sim_event *event = next_event(world);
        world->now_us = event->at;
        enum sim_fate fate = world->admit ? world->admit(world, event) : SIM_RUN;
        if (fate == SIM_RUN)
            event->run(world, event);
        else if (fate == SIM_DROP)
            event->drop(event);
    }
    world->now_us = MAX(world->now_us, end_us);
}

void sim_world_done(struct sim_world *world)
{
    while (world->heap_count) {
        struct sim_event *event = next_event(world);
        event->drop(event);
    }
    free(world->heap);
    world->heap = NULL;
    world->heap_capacity = 0;
}

/* ---- queues --------------------------------------------------------------------------------------------------- */

void sim_queue_push(struct sim_queue *queue, struct sim_event *event)
{
    if (!queue->first)
        queue->last = &queue->first;
    event->next = NULL;
    *queue->last = event;
    queue->last = &event->next;
}

void sim_queue_release(struct sim_world *world, struct sim_queue *queue)
{
    while (queue->first) {
        struct sim_event *event = queue->first;
        queue->first = event->next;
        sim_plan(world, event, world->now_us);
    }
}

void sim_queue_drop(struct sim_queue *queue)
{
    while (queue->first) {
        struct sim_event *event = queue->first;
        queue->first = event->next;
        event->drop(event);
    }
}

void sim_violate(struct sim_world *world, const char *format, ...)
{
    va_list list;
    if (world->violated)
        return;
    va_start(list, format);
    vsnprintf(world->violation, sizeof(world->violation), format, list);
    va_end(list);
    world->violated = true;
    SIM_TRACE(world, "VIOLATION: %s", world->violation);
}
