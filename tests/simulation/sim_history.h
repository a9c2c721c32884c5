/* What clients saw, block by block, and whether one copy of the block could have shown it. Blocks that were only read and
 * written: linearizability of registers with unique values, by zones (Gibbons and Korach, "Testing Shared Memories", 1997,
 * section 4). Blocks that saw COMPARE AND WRITE: a search for an order (Wing and Gong, 1993; with the memory of states
 * already tried of Lowe, 2017), in sim_order.c. */
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

enum sim_access_kind { SIM_ACCESS_READ, SIM_ACCESS_WRITE, SIM_ACCESS_COMPARE, SIM_ACCESS_DIFFERS /* a COMPARE AND WRITE refused */ };

/* One operation on one block. */
struct sim_access {
    enum sim_access_kind kind;
    uint64_t start, end; /* end UINT64_MAX: never answered with success: at any time after start, or not at all */
    uint32_t tag;        /* read, or written */
    uint32_t expected;   /* COMPARE, DIFFERS */
};

struct sim_block_history {
    struct sim_value *values;
    size_t count, capacity;
    struct sim_access *accesses;
    size_t access_count, access_capacity;
    unsigned compares;
};

struct sim_history {
    struct sim_world *world;
    struct sim_block_history *blocks;
    uint32_t block_count;
    unsigned searched, undecided; /* blocks by sim_order, and those where it gave up */
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
/* A COMPARE AND WRITE begins now; its outcome may stay unknown for ever. */
void sim_history_compare(struct sim_history *history, uint32_t block, uint32_t expected, uint32_t tag);
/* It was answered now: matched and written, or found to differ and not written. */
void sim_history_compared(struct sim_history *history, uint32_t block, uint32_t tag, bool matched, uint64_t invoked_us);
/* Violates the world when some block's history is not linearizable. */
void sim_history_check(struct sim_history *history);

enum sim_order { SIM_ORDERED, SIM_NO_ORDER, SIM_UNDECIDED };
/* Is there an order of the accesses, each at a moment between its start and end, that a block first read as 0 could have
 * seen? accesses is sorted and shortened. UNDECIDED: the search became too large. */
enum sim_order sim_order_search(struct sim_access *accesses, size_t count);

#endif
