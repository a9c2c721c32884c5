/* resync_bench NAME STORE FOLDER PLUGINS REPLICAS SIZE_MIB SECONDS WORKLOADS
 * With "foreign" for WORKLOADS: the last replica comes with a disk that nobody knows and that differs in every 16th MiB; prints
 *   NAME STORE REPLICAS foreign MB/s seconds MIB_SENT
 * Otherwise the last replica of a volume is away while all of the volume is written, comes back and is resynced: first an idle volume,
 * then under each workload. Prints
 *   NAME STORE REPLICAS idle MB/s seconds
 *   NAME STORE REPLICAS WORKLOAD IOPS p50 p99 (us, all in sync) IOPS p50 p99 (while the resync runs) MB/s of the resync meanwhile
 * Foreground figures during the resync are taken for SECONDS at most; then the load stops. */
#include "tests/bench/bench_cluster.h"
#include "tests/bench/bench_load.h"

#include <string.h>
#include <unistd.h>

#define LIMIT_NS (60ull * 1000000000ull)

static struct bench_cluster cluster;
static struct bench_load load;
static uv_timer_t timer;
static unsigned joiner;

struct bench {
    char prefix[64];
    double seconds;
};

static void wake(uv_timer_t *handle)
{
    (void)handle;
}

static void get_status(struct mirror_device_status *ret_status)
{
    mirror_device_get_status(cluster.device, ret_status);
}

static bool member_gone(const struct mirror_status *status)
{
    return !(status->isr >> joiner & 1) && status->members[joiner].state == MIRROR_MEMBER_AWAY;
}

static bool member_syncing(const struct mirror_status *status)
{
    return status->members[joiner].state == MIRROR_MEMBER_SYNCING || status->isr >> joiner & 1;
}

static bool member_in_sync(const struct mirror_status *status)
{
    return status->isr >> joiner & 1 && status->members[joiner].in_sync;
}

static void wait_until(bool (*condition)(const struct mirror_status *status), const char *what)
{
    struct mirror_device_status status;
    for (uint64_t begun = bench_clock_ns(); get_status(&status), !condition(&status.mirror); uv_run(&cluster.loop, UV_RUN_ONCE))
        if (bench_clock_ns() - begun > LIMIT_NS) {
            char words[256];
            mirror_device_describe(cluster.device, words, sizeof(words));
            fprintf(stderr, "resync_bench: %s: not within a minute: %s\n", what, words);
            exit(1);
        }
}

static void away_and_fill(void)
{
    bench_cluster_link(&cluster, (uint8_t)~(1u << joiner));
    wait_until(member_gone, "the replica is away");
    bench_fill(&cluster.loop, mirror_device_block(cluster.device));
}

static void over(uv_timer_t *handle)
{
    *(bool *)handle->data = true;
}

/* So that the volume counts as idle. */
static void rest(unsigned ms)
{
    bool done = false;
    uv_timer_t once;
    uv_timer_init(&cluster.loop, &once);
    once.data = &done;
    uv_timer_start(&once, over, ms, 0);
    while (!done)
        uv_run(&cluster.loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&once, NULL);
    uv_run(&cluster.loop, UV_RUN_NOWAIT);
}

static void back(void)
{
    bench_cluster_link(&cluster, 0xff);
    wait_until(member_syncing, "the resync begins");
}

static void run_idle(const struct bench *bench)
{
    struct mirror_device_status before, after;
    bench_fill(&cluster.loop, mirror_device_block(cluster.device)); /* the store has its blocks, as the floor's has */
    get_status(&before);
    away_and_fill();
    rest(1500);
    back();
    uint64_t begun = bench_clock_ns();
    wait_until(member_in_sync, "the resync");
    double seconds = (double)(bench_clock_ns() - begun) / 1e9;
    get_status(&after);
    uint64_t bytes = after.mirror.resynced_bytes - before.mirror.resynced_bytes;
    printf("%s idle %.1f %.2f\n", bench->prefix, (double)bytes / seconds / 1e6, seconds);
    if (bytes < cluster.options.size_bytes)
        fprintf(stderr, "resync_bench: only %llu bytes were resynced\n", (unsigned long long)bytes);
    (void)fflush(stdout);
}

static void run_foreign(const struct bench *bench)
{
    struct mirror_device_status before, after;
    get_status(&before);
    rest(1500);
    back();
    uint64_t begun = bench_clock_ns();
    wait_until(member_in_sync, "the resync");
    double seconds = (double)(bench_clock_ns() - begun) / 1e9;
    get_status(&after);
    printf("%s foreign %.1f %.2f %.1f\n", bench->prefix, (double)cluster.options.size_bytes / seconds / 1e6, seconds,
           (double)(after.mirror.resynced_bytes - before.mirror.resynced_bytes) / 1048576.0);
}

static void run(const struct bench_workload *workload, void *context)
{
    struct bench *bench = context;
    struct block_device *device = mirror_device_block(cluster.device);
    struct mirror_device_status begun, ended;
    bench_load_run(&cluster.loop, &load, device, workload, 0.3, bench->seconds, cluster.pids, cluster.options.replicas);
    struct bench_meter quiet = load.meter;
    away_and_fill();
    back();
    get_status(&begun);
    bench_load_start(&load, device, workload, 0.05, bench->seconds, cluster.pids, cluster.options.replicas);
    uint64_t from = bench_clock_ns(), to = 0;
    while (load.under_way) {
        uv_run(&cluster.loop, UV_RUN_ONCE);
        if (load.stop || load.meter.took_ns)
            continue; /* the last ones of the load come in */
        get_status(&ended);
        to = bench_clock_ns();
        if (!load.stop && member_in_sync(&ended.mirror)) {
            load.stop = true;
            load.meter.end_ns = bench_clock_ns();
        }
    }
    double seconds = (double)(to - from) / 1e9;
    if (!load.meter.took_ns) /* all that were under way when it was stopped had completed */
        load.meter.took_ns = to > load.meter.begun_ns ? to - load.meter.begun_ns : 1;
    printf("%s %s %.0f %.1f %.1f %.0f %.1f %.1f %.1f\n", bench->prefix, workload->name, (double)quiet.count * 1e9 / (double)quiet.took_ns,
           bench_meter_quantile_us(&quiet, 0.5), bench_meter_quantile_us(&quiet, 0.99),
           (double)load.meter.count * 1e9 / (double)load.meter.took_ns, bench_meter_quantile_us(&load.meter, 0.5),
           bench_meter_quantile_us(&load.meter, 0.99),
           (double)(ended.mirror.resynced_bytes - begun.mirror.resynced_bytes) / seconds / 1e6);
    (void)fflush(stdout);
    free(quiet.samples_ns);
    free(load.meter.samples_ns);
    wait_until(member_in_sync, "the resync");
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    if (argc != 9) {
        fprintf(stderr, "resync_bench NAME STORE FOLDER PLUGINS REPLICAS SIZE_MIB SECONDS WORKLOADS\n");
        return 2;
    }
    struct bench_cluster_options options = {.plugin = strcmp(argv[2], "ram") ? "file" : "ram", .folder = argv[3],
                                            .plugins = argv[4], .replicas = (unsigned)atoi(argv[5]),
                                            .size_bytes = (uint64_t)atoi(argv[6]) << 20};
    (void)snprintf(bench.prefix, sizeof(bench.prefix), "%s %s %u", argv[1], argv[2], options.replicas);
    bench.seconds = atof(argv[7]);
    joiner = options.replicas - 1;
    if (!strcmp(argv[8], "foreign")) {
        options.foreign = true;
        options.isr = (uint8_t)((1u << joiner) - 1);
    }
    bench_cluster_start(&cluster, &options);
    uv_timer_init(&cluster.loop, &timer);
    uv_timer_start(&timer, wake, 2, 2);
    bench_cluster_link(&cluster, options.foreign ? (uint8_t)~(1u << joiner) : 0xff);
    bench_cluster_wait_serving(&cluster);
    if (options.foreign) {
        run_foreign(&bench);
    } else {
        run_idle(&bench);
        bench_workloads(argv[8], run, &bench);
    }
    bench_cluster_end(&cluster);
    return 0;
}
