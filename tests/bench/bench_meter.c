#include "tests/bench/bench_meter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct bench_workload workloads[] = {
    {"w4k-1", true, true, false, 4096, 1},        {"w4k-32", true, true, false, 4096, 32},
    {"w1m-1", true, false, false, 1 << 20, 1},    {"w1m-4", true, false, false, 1 << 20, 4},
    {"r4k-1", false, true, false, 4096, 1},       {"r4k-32", false, true, false, 4096, 32},
    {"r1m-4", false, false, false, 1 << 20, 4},   {"w64k-8", true, true, false, 65536, 8},
    {"w4k-4", true, true, false, 4096, 4},        {"w4k-8", true, true, false, 4096, 8},
    {"copy256k-8", true, false, true, 1 << 18, 8}, {"copy1m-4", true, false, true, 1 << 20, 4},
};

const struct bench_workload *bench_workload_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(workloads); i++)
        if (!strcmp(workloads[i].name, name))
            return &workloads[i];
    return NULL;
}

void bench_workloads(char *list, void (*run)(const struct bench_workload *workload, void *context), void *context)
{
    char *rest = NULL;
    for (char *name = strtok_r(list, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        const struct bench_workload *workload = bench_workload_find(name);
        if (!workload) {
            fprintf(stderr, "no workload %s; there are:", name);
            for (size_t i = 0; i < ARRAY_SIZE(workloads); i++)
                fprintf(stderr, " %s", workloads[i].name);
            fprintf(stderr, "\n");
            exit(2);
        }
        run(workload, context);
    }
}

void bench_offsets_init(struct bench_offsets *offsets, const struct bench_workload *workload, uint64_t size_bytes)
{
    *offsets = (struct bench_offsets){.blocks = size_bytes / workload->bytes, .state = 88172645463325252u, .workload = workload};
}

uint64_t bench_offset(struct bench_offsets *offsets)
{
    if (!offsets->workload->random)
        return offsets->next++ % offsets->blocks * offsets->workload->bytes;
    offsets->state ^= offsets->state << 13;
    offsets->state ^= offsets->state >> 7;
    offsets->state ^= offsets->state << 17;
    return offsets->state % offsets->blocks * offsets->workload->bytes;
}

uint64_t bench_clock_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double bench_cpu_s(const pid_t *pids, unsigned count)
{
    double sum = 0;
    for (unsigned i = 0; i < count; i++) {
        clockid_t clock;
        struct timespec t;
        if (clock_getcpuclockid(pids[i], &clock) == 0 && clock_gettime(clock, &t) == 0)
            sum += (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    }
    return sum;
}

void bench_meter_begin(struct bench_meter *meter, double warm_s, double seconds, const pid_t *pids, unsigned pid_count)
{
    *meter = (struct bench_meter){.pids = pids, .pid_count = pid_count, .capacity = 1u << 16};
    meter->begin_ns = bench_clock_ns() + (uint64_t)(warm_s * 1e9);
    meter->end_ns = meter->begin_ns + (uint64_t)(seconds * 1e9);
    meter->samples_ns = malloc(meter->capacity * sizeof(*meter->samples_ns));
    bench_must(meter->samples_ns ? 0 : -ENOMEM, "samples");
}

bool bench_meter_completed(struct bench_meter *meter, uint64_t submitted_ns)
{
    uint64_t now = bench_clock_ns(), latency = now - submitted_ns;
    if (meter->took_ns)
        return false;
    if (now < meter->begin_ns)
        return true;
    if (!meter->begun_ns) {
        meter->begun_ns = now;
        meter->cpu_begin = bench_cpu_s(meter->pids, meter->pid_count);
        return true;
    }
    if (meter->count == meter->capacity) {
        meter->capacity *= 2;
        meter->samples_ns = realloc(meter->samples_ns, meter->capacity * sizeof(*meter->samples_ns));
        bench_must(meter->samples_ns ? 0 : -ENOMEM, "samples");
    }
    meter->samples_ns[meter->count++] = latency > UINT32_MAX ? UINT32_MAX : (uint32_t)latency;
    if (now < meter->end_ns)
        return true;
    meter->took_ns = now - meter->begun_ns;
    meter->cpu_s = bench_cpu_s(meter->pids, meter->pid_count) - meter->cpu_begin;
    return false;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

double bench_meter_quantile_us(struct bench_meter *meter, double quantile)
{
    if (!meter->count)
        return 0;
    qsort(meter->samples_ns, meter->count, sizeof(*meter->samples_ns), compare);
    return meter->samples_ns[MIN((size_t)(quantile * (double)meter->count), meter->count - 1)] / 1e3;
}

void bench_meter_report(struct bench_meter *meter, const char *prefix, const struct bench_workload *workload)
{
    double seconds = (double)meter->took_ns / 1e9, count = (double)meter->count;
    printf("%s %s %.0f %.1f %.1f %.1f %.2f\n", prefix, workload->name, count / seconds, count * workload->bytes / seconds / 1e6,
           bench_meter_quantile_us(meter, 0.5), bench_meter_quantile_us(meter, 0.99), meter->cpu_s * 1e6 / MAX(count, 1));
    (void)fflush(stdout);
    free(meter->samples_ns);
    meter->samples_ns = NULL;
}

void bench_must(int result, const char *what)
{
    if (result >= 0)
        return;
    fprintf(stderr, "%s: %s\n", what, strerror(-result));
    exit(1);
}

void *bench_buffer(size_t bytes)
{
    void *memory = NULL;
    bench_must(-posix_memalign(&memory, 4096, bytes), "buffer");
    uint64_t *words = memory;
    for (size_t i = 0; i < bytes / 8; i++)
        words[i] = (i + 1) * 0x9e3779b97f4a7c15u;
    return memory;
}
