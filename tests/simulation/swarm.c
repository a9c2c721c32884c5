#include "tests/simulation/swarm.h"

#include <string.h>

#define MISHAPS_MS 5000u
#define SETTLE_MS  150000u /* planned moves of a flapping volume wait up to 30 s, twice */

bool swarm_run(uint64_t seed, const struct swarm_bugs *bugs, bool trace, bool verbose, struct swarm_counts *counts,
               char text[static 240])
{
    struct sim_options options = {
        .seed = seed,
        .nodes = seed % 4 == 3 ? 5 : 3,
        .volumes = seed % 3 == 2 ? 2 : 1,
        .replicas = seed % 5 == 4 ? 2 : 3,
        .trace = trace,
        .verbose = verbose,
        .replication_bugs = bugs->replication,
        .rsm_bugs = bugs->rsm,
        .sim_bugs = bugs->sim,
    };
    struct sim *sim = sim_new(&options);
    if (!sim->world.violated) {
        sim_mix_draw(&sim->mix, &sim->world, sim->node_count);
        SIM_LOG(sim, "--- faults %x, mischief %u, spoil %u, wire %u, drift %d, hot blocks %u", sim->mix.faults, sim->mix.mischief,
                sim->mix.spoil, sim->mix.wire, sim->mix.drift_ppm, sim->mix.hot_blocks);
        sim_nemesis_start(sim);
        sim_client_start(sim);
        sim_run(sim, MISHAPS_MS);
        sim_heal(sim);
        sim_settle(sim, SETTLE_MS);
        if (!sim->world.violated)
            sim_check_end(sim);
    }
    bool good = !sim->world.violated;
    memcpy(text, sim->world.violation, sizeof(sim->world.violation));
    counts->runs++;
    counts->commands += sim->counts.commands;
    counts->reads += sim->counts.reads;
    counts->writes += sim->counts.writes;
    counts->compares += sim->counts.compares;
    counts->spoiled += sim->counts.spoiled;
    counts->repaired += sim->counts.repaired;
    counts->damaged += sim->counts.damaged;
    counts->undecided += sim->history.undecided;
    counts->failed += sim->counts.failed;
    counts->changes += sim->counts.changes;
    counts->questions += sim->counts.questions;
    counts->promotions += sim->counts.promotions;
    counts->crashes += sim->counts.crashes;
    counts->views += sim->counts.views;
    sim_free(sim);
    return good;
}
