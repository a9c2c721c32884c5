/* Bytes of reads and writes, as the cores see them: counted handles. One u32 tag stands for one block of SIM_BLOCK_BYTES. */
#ifndef DIRECTOR_TESTS_SIM_DATA_H
#define DIRECTOR_TESTS_SIM_DATA_H

#include "replication/core/step.h"
#include "tests/simulation/sim_world.h"

#define SIM_BLOCK_BYTES 4096u

struct sim_bytes {
    struct sim_bytes *next;
    int references;
    uint32_t count;
    uint32_t tags[];
};

/* All buffers of a run: a crash forgets references, so they are freed together at the end. */
struct sim_data {
    struct sim_world *world;
    struct sim_bytes *all;
    int alive;
    unsigned scarce; /* of ten thousand allocations by the cores fail */
};

/* With one reference. */
struct sim_bytes *sim_bytes_new(struct sim_data *data, uint64_t size_bytes);
void sim_bytes_ref(struct sim_bytes *bytes);
/* NULL is fine. Counting below zero is a violation. */
void sim_bytes_unref(struct sim_data *data, void *bytes);
void sim_data_done(struct sim_data *data);
/* What answers a DISK_DIGEST of these blocks: a tag for each piece, made of its blocks' tags. bad: blocks that cannot be read,
 * NULL: none. */
struct sim_bytes *sim_digests_new(struct sim_data *data, const uint32_t *blocks, const bool *bad, const struct mirror_effect *effect);
/* For mirror_new(); context is the sim_data. */
struct mirror_data_operations sim_data_operations(struct sim_data *data);

#endif
