/* Random runs: one seed, one run, faults and clients by lot. */
#ifndef DIRECTOR_TESTS_SWARM_H
#define DIRECTOR_TESTS_SWARM_H

#include "tests/simulation/sim.h"

struct swarm_bugs {
    uint32_t replication, rsm, sim;
};

struct swarm_counts {
    uint64_t runs, commands, reads, writes, compares, failed, changes, questions, promotions, crashes, views, spoiled, damaged, repaired, undecided;
};

/* One run; true when nothing was violated, else text says what. */
bool swarm_run(uint64_t seed, const struct swarm_bugs *bugs, bool trace, bool verbose, struct swarm_counts *counts,
               char text[static 240]);

#endif
