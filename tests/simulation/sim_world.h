/* Time, chance and what happens when: the bottom of every simulation. Seed in, same run out.
 *
 * Everything that happens is a sim_event at a moment of the one simulated clock; equal moments keep the order in which they
 * were planned. The world knows nothing of nodes: `admit` decides what becomes of an event whose place has crashed or sleeps. */
#ifndef DIRECTOR_TESTS_SIM_WORLD_H
#define DIRECTOR_TESTS_SIM_WORLD_H

#include "director/base/common.h"
#include <stdbool.h>

struct sim_world;

/* Embedded in what happens. run and drop take the event over: one of them is called, once, and frees it. */
struct sim_event {
    uint64_t at, order;
    struct sim_event *next; /* in a sim_queue */
    void (*run)(struct sim_world *world, struct sim_event *event);
    void (*drop)(struct sim_event *event);
    void *place;   /* for admit: the node, NULL: everywhere */
    uint64_t life; /* for admit: of the node when it was planned */
    int thread;    /* for admit */
};

/* First in, first out: events that wait for their node. */
struct sim_queue {
    struct sim_event *first, **last;
};

enum sim_fate { SIM_RUN, SIM_DROP, SIM_HELD };

struct sim_world {
    uint64_t now_us, order, random;
    struct sim_event **heap;
    size_t heap_count, heap_capacity;
    enum sim_fate (*admit)(struct sim_world *world, struct sim_event *event); /* HELD: it has taken the event */
    bool violated;
    char violation[240];
    bool trace, verbose;
};

/* World at 1 s, with nothing planned. */
void sim_world_init(struct sim_world *world, uint64_t seed);
/* Drops what is planned and gives back the memory. */
void sim_world_done(struct sim_world *world);

/* Plan an event; at is at least now. */
void sim_plan(struct sim_world *world, struct sim_event *event, uint64_t at_us);
/* Let things happen until the moment end, or the first violation. */
void sim_run_until(struct sim_world *world, uint64_t end_us);

void sim_queue_push(struct sim_queue *queue, struct sim_event *event);
/* All of it happens now, in its order, before anything later. */
void sim_queue_release(struct sim_world *world, struct sim_queue *queue);
void sim_queue_drop(struct sim_queue *queue);

/* 0..below-1. */
uint64_t sim_random(struct sim_world *world, uint64_t below);
/* True so many times in ten thousand. */
bool sim_chance(struct sim_world *world, unsigned of_ten_thousand);

/* Something that must never be: the first one is kept, and ends the run. */
void sim_violate(struct sim_world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define SIM_TRACE(world, ...)                                          \
    do {                                                               \
        if ((world)->trace) {                                          \
            printf("%10.3f ms ", (double)(world)->now_us / 1000.0);    \
            printf(__VA_ARGS__);                                       \
            printf("\n");                                              \
        }                                                              \
    } while (0)

#endif
