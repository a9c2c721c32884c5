/* replicated_bench NAME STORE FOLDER PLUGINS REPLICAS SIZE_MIB SECONDS WORKLOADS
 * One replicated volume, or with REPLICAS 0 the data device alone (the unreplicated path), under each workload in turn.
 * NAME may end in options of the volume: +wb (write-back), +verified (verified reads), +cold (its
 * regions have no intent bits at first: for one workload with SIZE_MIB large enough that most writes meet a new region).
 * STORE: ram, or anything else for the file plugin in FOLDER. Prints "NAME STORE REPLICAS" and the meter's figures. */
#include "tests/bench/bench_cluster.h"
#include "tests/bench/bench_load.h"

#include <string.h>
#include <unistd.h>

static struct bench_cluster cluster;
static struct bench_load load;

struct bench {
    struct block_device *device;
    char prefix[64];
    double seconds;
    unsigned processes;
};

static void run(const struct bench_workload *workload, void *context)
{
    struct bench *bench = context;
    bench_load_run(&cluster.loop, &load, bench->device, workload, 0.15, bench->seconds, cluster.pids, bench->processes);
    bench_meter_report(&load.meter, bench->prefix, workload);
    if (cluster.asked)
        fprintf(stderr, "%s %s: the in-sync set changed: %s\n", bench->prefix, workload->name, cluster.asked_reason);
    cluster.asked = 0;
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    if (argc != 9) {
        fprintf(stderr, "replicated_bench NAME STORE FOLDER PLUGINS REPLICAS SIZE_MIB SECONDS WORKLOADS\n");
        return 2;
    }
    struct bench_cluster_options options = {.plugin = strcmp(argv[2], "ram") ? "file" : "ram", .folder = argv[3],
                                            .plugins = argv[4], .replicas = (unsigned)atoi(argv[5]),
                                            .size_bytes = (uint64_t)atoi(argv[6]) << 20};
    options.policy.write_back = strstr(argv[1], "+wb");
    options.policy.verified_reads = strstr(argv[1], "+verified");
    options.checksum = strstr(argv[1], "+sum");
    options.filled = strstr(argv[1], "+cold");
    (void)snprintf(bench.prefix, sizeof(bench.prefix), "%s %s %u", argv[1], argv[2], MAX(options.replicas, 1u));
    bench.seconds = atof(argv[7]);
    bench.processes = MAX(options.replicas, 1u);
    if (options.replicas == 0) {
        cluster.options = options;
        cluster.pids[0] = getpid();
        bench_must(uv_loop_init(&cluster.loop), "loop");
        bench.device = bench_data_open(&cluster, options.folder);
    } else {
        bench_cluster_start(&cluster, &options);
        bench_cluster_link(&cluster, 0xff);
        bench_cluster_wait_serving(&cluster);
        bench.device = mirror_device_block(cluster.device);
    }
    if (!options.filled)
        bench_fill(&cluster.loop, bench.device);
    bench_workloads(argv[8], run, &bench);
    if (options.replicas)
        bench_cluster_end(&cluster);
    return 0;
}
