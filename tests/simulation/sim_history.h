/* What clients saw, block by block, and whether one copy of the block could have shown it: linearizability of registers with
 * unique values (Gibbons and Korach, "Testing Shared Memories", 1997, section 4). */
#ifndef DIRECTOR_TESTS_SIM_HISTORY_H
#define DIRECTOR_TESTS_SIM_HISTORY_H

#include "tests/simulation/sim_world.h"

/* All operations on one value of one block. */
struct sim_value {
    uint32_t tag;
    bool written; /* a write of it was begun, */
    bool seen;    /* and took effect: acknowledged or read */
    uint64_t write_start;
    uint64_t first_end, last_start; /* the zone: forward when first_end < last_start */
};

struct sim_block_history {
    struct sim_value *values;
    size_t count, capacity;
};

struct sim_history {
    struct sim_world *world;
    struct sim_block_history *blocks;
    uint32_t block_count;
};

/* All blocks read as tag 0. */
void sim_history_init(struct sim_history *history, struct sim_world *world, uint32_t block_count);
void sim_history_done(struct sim_history *history);
/* A write begins now; its outcome may stay unknown for ever. */
void sim_history_write(struct sim_history *history, uint32_t block, uint32_t tag);
/* It was acknowledged now. */
void sim_history_written(struct sim_history *history, uint32_t block, uint32_t tag, uint64_t invoked_us);
/* A read that was begun at invoked_us was answered with tag now. A tag that cannot be is a violation. */
void sim_history_read(struct sim_history *history, uint32_t block, uint32_t tag, uint64_t invoked_us);
/* Violates the world when some block's history is not linearizable. */
void sim_history_check(struct sim_history *history);

#endif
