#include "agent/node/volume_config.h"

static_assert(TREE_REPLICAS_MAX == MIRROR_REPLICAS_MAX, "one place for each replica");

struct mirror_config volume_config(const struct tree_volume *volume)
{
    struct mirror_config config = {
        .epoch = volume->epoch,
        .isr_version = volume->isr_version,
        .size_bytes = volume->size_bytes,
        .owner = volume->owner,
        .isr = (uint8_t)volume->isr,
        .replica_count = (uint8_t)volume->replica_count,
        .policy =
            {
                .write_back = volume->policy.write_back,
                .verified_reads = volume->policy.verified_reads,
                .in_sync_min = volume->policy.in_sync_min,
                .slow_us = volume->policy.slow_ms * 1000u,
                .resync_floor = volume->policy.resync_floor,
                .resync_cap = volume->policy.resync_cap,
            },
    };
    for (unsigned i = 0; i < volume->replica_count; i++) {
        config.replicas[i].nodeid = volume->replicas[i].nodeid;
        config.replicas[i].incarnation = volume->replicas[i].incarnation;
    }
    return config;
}
