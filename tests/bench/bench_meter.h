/* What all benches of replicated volumes share: the workloads, a meter of one run, CPU time of several processes. */
#ifndef DIRECTOR_BENCH_METER_H
#define DIRECTOR_BENCH_METER_H

#include "director/base/common.h"
#include <stdbool.h>
#include <sys/types.h>

#define BENCH_PROCESSES_MAX 16u
#define BENCH_LARGEST_BYTES (1u << 20)
#define BENCH_DEPTH_MAX     64u

struct bench_workload {
    const char *name;
    bool write, random;
    bool copy; /* of the first replica to the second; for the floor of resync */
    uint32_t bytes;
    unsigned depth;
};

/* By name, or NULL. */
const struct bench_workload *bench_workload_find(const char *name);
/* "w4k-1,w4k-32": calls run for each; ends the process with words when a name is unknown. */
void bench_workloads(char *list, void (*run)(const struct bench_workload *workload, void *context), void *context);

/* Offsets of one workload: random ones, or one after the other. */
struct bench_offsets {
    uint64_t blocks, next, state;
    const struct bench_workload *workload;
};
void bench_offsets_init(struct bench_offsets *offsets, const struct bench_workload *workload, uint64_t size_bytes);
uint64_t bench_offset(struct bench_offsets *offsets);

/* Requests that completed between begin and end, their latencies, and the CPU time that the processes took meanwhile. */
struct bench_meter {
    uint64_t begin_ns, end_ns, begun_ns;
    uint32_t *samples_ns;
    size_t count, capacity;
    double cpu_begin, cpu_s;
    uint64_t took_ns;
    const pid_t *pids;
    unsigned pid_count;
};

uint64_t bench_clock_ns(void);
/* CPU seconds, user and system, of these processes, all their threads. */
double bench_cpu_s(const pid_t *pids, unsigned count);
/* Measure for seconds after warm_s. pids stay the caller's. */
void bench_meter_begin(struct bench_meter *meter, double warm_s, double seconds, const pid_t *pids, unsigned pid_count);
/* A request that was submitted at submitted_ns has completed. False: the time is over, submit no more. One thread at a time. */
bool bench_meter_completed(struct bench_meter *meter, uint64_t submitted_ns);
/* One line: prefix, workload, requests/s, MB/s, p50 and p99 in us, CPU us per request. Frees the samples. */
void bench_meter_report(struct bench_meter *meter, const char *prefix, const struct bench_workload *workload);
/* The quantile (0..1) in us. Sorts. */
double bench_meter_quantile_us(struct bench_meter *meter, double quantile);

/* End the process with words when result is negative. */
void bench_must(int result, const char *what);
/* Memory aligned for O_DIRECT, filled with bytes that are not zero and differ from block to block. */
void *bench_buffer(size_t bytes);

#endif
