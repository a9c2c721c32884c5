#include "tests/bench/bench_load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void slot_submit(struct bench_load_slot *slot)
{
    struct bench_load *load = slot->load;
    slot->request.operation = load->workload->write ? BLOCK_WRITE : BLOCK_READ;
    slot->request.flags = load->workload->write ? BLOCK_FUA : 0;
    slot->request.offset_bytes = bench_offset(&load->offsets);
    slot->request.length_bytes = load->workload->bytes;
    slot->submitted_ns = bench_clock_ns();
    load->under_way++;
    block_device_submit(load->device, &slot->request);
}

static void slot_done(struct block_request *request)
{
    struct bench_load_slot *slot = container_of(request, struct bench_load_slot, request);
    struct bench_load *load = slot->load;
    load->under_way--;
    if (request->status < 0 && load->errors++ == 0)
        fprintf(stderr, "%s: %s\n", load->workload->name, strerror(-request->status));
    bool goes_on = bench_meter_completed(&load->meter, slot->submitted_ns);
    if (goes_on && !load->stop)
        slot_submit(slot);
}

void bench_load_start(struct bench_load *load, struct block_device *device, const struct bench_workload *workload,
                      double warm_s, double seconds, const pid_t *pids, unsigned pid_count)
{
    load->device = device;
    load->workload = workload;
    load->errors = 0;
    load->stop = false;
    bench_offsets_init(&load->offsets, workload, device->geometry.size_bytes);
    for (unsigned i = 0; i < workload->depth; i++) {
        struct bench_load_slot *slot = &load->slots[i];
        if (!slot->iov.iov_base)
            slot->iov.iov_base = bench_buffer(BENCH_LARGEST_BYTES);
        slot->iov.iov_len = workload->bytes;
        slot->load = load;
        slot->request.iov = &slot->iov;
        slot->request.iov_count = 1;
        slot->request.done = slot_done;
    }
    bench_meter_begin(&load->meter, warm_s, seconds, pids, pid_count);
    for (unsigned i = 0; i < workload->depth; i++)
        slot_submit(&load->slots[i]);
}

void bench_load_run(uv_loop_t *loop, struct bench_load *load, struct block_device *device, const struct bench_workload *workload,
                    double warm_s, double seconds, const pid_t *pids, unsigned pid_count)
{
    bench_load_start(load, device, workload, warm_s, seconds, pids, pid_count);
    while (load->under_way)
        uv_run(loop, UV_RUN_ONCE);
    if (load->errors) {
        fprintf(stderr, "%s: %llu errors\n", workload->name, (unsigned long long)load->errors);
        exit(1);
    }
}

struct fill {
    struct block_device *device;
    uint64_t next, stamp;
    unsigned every;
    unsigned under_way;
};

struct fill_slot {
    struct block_request request;
    struct iovec iov;
    struct fill *fill;
};

static void fill_next(struct fill_slot *slot)
{
    struct fill *fill = slot->fill;
    uint64_t size = fill->device->geometry.size_bytes;
    if (fill->next >= size)
        return;
    slot->iov.iov_len = MIN((uint64_t)BENCH_LARGEST_BYTES, size - fill->next);
    slot->request.offset_bytes = fill->next;
    slot->request.length_bytes = slot->iov.iov_len;
    uint64_t differs = fill->every && fill->next / BENCH_LARGEST_BYTES % fill->every == 0 ? 1ull << 63 : 0;
    for (size_t at = 0; at < slot->iov.iov_len; at += 4096)
        memcpy((uint8_t *)slot->iov.iov_base + at, &(uint64_t){++fill->stamp ^ differs}, sizeof(uint64_t));
    fill->next += slot->iov.iov_len;
    fill->under_way++;
    block_device_submit(fill->device, &slot->request);
}

static void fill_done(struct block_request *request)
{
    struct fill_slot *slot = container_of(request, struct fill_slot, request);
    bench_must(request->status, "fill");
    slot->fill->under_way--;
    fill_next(slot);
}

void bench_fill(uv_loop_t *loop, struct block_device *device)
{
    bench_fill_stamped(loop, device, bench_clock_ns(), 0);
}

void bench_fill_stamped(uv_loop_t *loop, struct block_device *device, uint64_t stamp, unsigned every)
{
    struct fill fill = {.device = device, .stamp = stamp, .every = every};
    struct fill_slot slots[4] = {0};
    for (unsigned i = 0; i < ARRAY_SIZE(slots); i++) {
        slots[i] = (struct fill_slot){.fill = &fill, .iov = {bench_buffer(BENCH_LARGEST_BYTES), BENCH_LARGEST_BYTES}};
        slots[i].request = (struct block_request){.operation = BLOCK_WRITE, .flags = BLOCK_FUA, .iov = &slots[i].iov, .iov_count = 1,
                                                  .done = fill_done};
        fill_next(&slots[i]);
    }
    while (fill.under_way)
        uv_run(loop, UV_RUN_ONCE);
    for (unsigned i = 0; i < ARRAY_SIZE(slots); i++)
        free(slots[i].iov.iov_base);
}
