/* One replicated volume of production objects (plugin, mirror device, peer mesh), each node a process of its own on the
 * loopback, without the agent: what the cluster would commit, the owner's process decides and tells the others by a pipe.
 * The caller's process is node 1, the owner. Linked with peer_plain.c in place of agent/io/peer_tls.c the links are in clear.  */
#ifndef DIRECTOR_BENCH_CLUSTER_H
#define DIRECTOR_BENCH_CLUSTER_H

#include "agent/io/peer_listener.h"
#include "plugins/loader/loader.h"
#include "replication/io/mirror_device.h"
#include "replication/io/mirror_pulse.h"

struct bench_cluster_options {
    const char *plugins; /* folder of the plugins */
    const char *plugin;  /* "file" or "ram" */
    const char *folder;  /* node k uses folder/nK, made anew */
    unsigned replicas;   /* 1..4 */
    uint64_t size_bytes;
    uint8_t isr;         /* at first; 0: all */
    struct mirror_policy policy;
    bool checksum; /* at rest */
    bool filled;         /* the data are there before, and no intent bit is set */
    bool foreign;        /* the last replica has another disk than the others know of: all of the data are there before, the same on
                            all but for every 16th MiB on that one, and nobody knows which */
};

struct bench_member {
    pid_t pid;
    int control; /* parent: to and from the member's process */
    uint16_t port;
    bool linked;
};

struct bench_cluster {
    struct bench_cluster_options options;
    uv_loop_t loop;
    unsigned index; /* of this process; 0 = owner */
    struct plugin_loader *plugins;
    struct peer_mesh *mesh;
    struct peer_listener *listener;
    struct mirror_pulses *pulses;
    struct mirror_device *device;
    struct mirror_config config;
    struct bench_member members[MIRROR_REPLICAS_MAX]; /* 1.. in the owner's process */
    pid_t pids[MIRROR_REPLICAS_MAX];                  /* of all nodes, for the meter */
    uv_poll_t control;                                /* member */
    uint8_t wanted;                                   /* members to be linked */
    unsigned asked;                                   /* changes of the in-sync set that the owner asked for; all are granted */
    const char *asked_reason;
};

/* Fork the members, open everything; only the links are not made. Call before anything else starts a thread. */
void bench_cluster_start(struct bench_cluster *cluster, const struct bench_cluster_options *options);
/* Have links to these members (bit k: replica k) and no others. Returns at once. */
void bench_cluster_link(struct bench_cluster *cluster, uint8_t members);
/* Commit this in-sync set. */
void bench_cluster_commit(struct bench_cluster *cluster, uint8_t isr);
/* Run the loop until the volume is served; ends the process with words when that takes 10 s. */
void bench_cluster_wait_serving(struct bench_cluster *cluster);
/* End the members and close the owner's device. Files stay. */
void bench_cluster_end(struct bench_cluster *cluster);
/* The data device alone, without a mirror, in the folder of node 1. */
struct block_device *bench_data_open(struct bench_cluster *cluster, const char *folder);

#endif
