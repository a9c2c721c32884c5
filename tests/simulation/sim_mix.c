/* What a run is made of. Runs that all have every fault in the same measure hide what only shows where one kind is frequent and
 * the others are away: so each seed draws its own subset and its own intensities (swarm testing, Groce et al., 2012). */
#include "tests/simulation/sim.h"

void sim_mix_default(struct sim_mix *mix)
{
    *mix = (struct sim_mix){
        .faults = SIM_FAULT_ALL & ~SIM_FAULT_ROT & ~SIM_FAULT_WIRE,
        .mischief = 2500, .heal = 2100, .turn_us = 60000, .crash_between = 3, .disk_error = 3,
        .slow_disk = 300, .slow_frame = 300, .slow_mail = 200,
        .policies = DIRECTOR__VOLUME_POLICY_FIELD__POLICY_VERIFIED_READS | DIRECTOR__VOLUME_POLICY_FIELD__POLICY_SLOW |
                    DIRECTOR__VOLUME_POLICY_FIELD__POLICY_IN_SYNC_MIN | DIRECTOR__VOLUME_POLICY_FIELD__POLICY_RESYNC_FLOOR |
                    DIRECTOR__VOLUME_POLICY_FIELD__POLICY_RESYNC_CAP,
        .reads = 5000, .compares = 2000, .hot = 6000, .hot_blocks = 6, .client_us = 2000,
    };
}

/* 0, little, or much. */
static unsigned some(struct sim_world *world, unsigned much)
{
    switch (sim_random(world, 3)) {
    case 0:
        return 0;
    case 1:
        return much / 10 + 1;
    default:
        return much;
    }
}

void sim_mix_draw(struct sim_mix *mix, struct sim_world *world, unsigned nodes)
{
    sim_mix_default(mix);
    mix->rot_place = (unsigned)sim_random(world, nodes);
    mix->hot_blocks = 1 + (unsigned)sim_random(world, 6);
    mix->hot = sim_chance(world, 3000) ? 9500 : 6000;
    mix->compares = some(world, 4000);
    mix->commands = some(world, 4000);
    mix->reads = 2000 + (unsigned)sim_random(world, 6000);
    mix->client_us = sim_chance(world, 5000) ? 600 : 2500;
    mix->drift_ppm = (int)some(world, 40000);
    if (sim_chance(world, 2500)) { /* everything, as it always was */
        mix->faults = SIM_FAULT_ALL;
        mix->spoil = 20;
        mix->wire = 2;
        return;
    }
    mix->faults = (uint32_t)sim_random(world, SIM_FAULT_ALL + 1);
    if (sim_chance(world, 4000)) /* few kinds: each of them often */
        mix->faults &= (uint32_t)sim_random(world, SIM_FAULT_ALL + 1);
    mix->mischief = 800 + (unsigned)sim_random(world, 6000);
    mix->heal = 1000 + (unsigned)sim_random(world, 3500);
    mix->turn_us = 20000 + (unsigned)sim_random(world, 100000);
    mix->crash_between = mix->faults & SIM_FAULT_CRASH ? some(world, 6) : 0;
    mix->disk_error = mix->faults & SIM_FAULT_DISK ? some(world, 6) : 0;
    mix->spoil = mix->faults & SIM_FAULT_ROT ? 1 + some(world, 100) : 0;
    mix->wire = mix->faults & SIM_FAULT_WIRE ? 1 + some(world, 10) : 0;
    mix->slow_disk = some(world, 1000);
    mix->slow_frame = some(world, 1000);
    mix->slow_mail = some(world, 600);
}
