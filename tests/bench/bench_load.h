/* A closed loop of requests on a block device: depth of them at a time, the next when one completes. */
#ifndef DIRECTOR_BENCH_LOAD_H
#define DIRECTOR_BENCH_LOAD_H

#include "tests/bench/bench_meter.h"
#include <director/block_device.h>
#include <uv.h>

struct bench_load;

struct bench_load_slot {
    struct block_request request;
    struct iovec iov;
    struct bench_load *load;
    uint64_t submitted_ns;
};

struct bench_load {
    struct block_device *device;
    const struct bench_workload *workload;
    struct bench_offsets offsets;
    struct bench_meter meter;
    struct bench_load_slot slots[BENCH_DEPTH_MAX];
    unsigned under_way;
    uint64_t errors;
    bool stop;
};

/* Begin; the meter's report is the caller's. Writes are FUA. */
void bench_load_start(struct bench_load *load, struct block_device *device, const struct bench_workload *workload,
                      double warm_s, double seconds, const pid_t *pids, unsigned pid_count);
/* The whole device once, in writes of 1 MiB; no block is like another, or like one of an earlier fill. Runs the loop. */
void bench_fill(uv_loop_t *loop, struct block_device *device);
/* The same, with the same content for the same stamp; but every MiB whose number is a multiple of every differs (0: none). */
void bench_fill_stamped(uv_loop_t *loop, struct block_device *device, uint64_t stamp, unsigned every);
/* Start and run the loop until it is over. */
void bench_load_run(uv_loop_t *loop, struct bench_load *load, struct block_device *device, const struct bench_workload *workload,
                    double warm_s, double seconds, const pid_t *pids, unsigned pid_count);

#endif
