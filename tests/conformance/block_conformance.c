#include "tests/conformance/block_conformance.h"
#include "director/base/common.h"
#include "tests/conformance/block_sync.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

/* A request whose answers are counted, with a buffer and guards around it. */
struct probe {
    struct block_request request;
    struct iovec iov;
    unsigned answers;
    bool submitting; /* inside submit: an answer now would be inline */
    bool answered_inline;
};

static void probe_done(struct block_request *request)
{
    struct probe *probe = container_of(request, struct probe, request);
    probe->answers++;
    probe->answered_inline |= probe->submitting;
}

static void probe_submit(struct block_device *device, struct probe *probe)
{
    probe->request.done = probe_done;
    probe->submitting = true;
    block_device_submit(device, &probe->request);
    probe->submitting = false;
}

static void probe_set(struct probe *probe, enum block_operation operation, uint64_t offset, void *buffer, size_t length)
{
    memset(probe, 0, sizeof(*probe));
    probe->iov = (struct iovec){buffer, operation == BLOCK_COMPARE_AND_WRITE ? 2 * length : length};
    probe->request = (struct block_request){.operation = operation,
                                            .offset_bytes = offset,
                                            .length_bytes = length,
                                            .iov = buffer ? &probe->iov : NULL,
                                            .iov_count = buffer ? 1 : 0};
}

/* A few turns of the loop, to let a second answer show itself. */
static void turns(struct block_subject *subject, unsigned count)
{
    while (count--)
        uv_run(subject->loop, UV_RUN_NOWAIT);
}

static struct block_device *fresh(struct block_subject *subject)
{
    struct block_device *device = subject->open(subject, true);
    assert_non_null(device);
    assert_true(device->geometry.size_bytes >= BLOCK_SUBJECT_BYTES);
    return device;
}

static void finish(struct block_subject *subject, struct block_device *device)
{
    block_sync_close(subject->loop, device);
    if (subject->discard)
        subject->discard(subject);
}

static void fill(uint8_t *buffer, size_t length, unsigned seed)
{
    for (size_t i = 0; i < length; i++)
        buffer[i] = (uint8_t)(seed * 131 + i * 7 + (i >> 8));
}

static bool all_zero(const uint8_t *buffer, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (buffer[i])
            return false;
    return true;
}

#define CAN(device, capability) (((device)->geometry.capabilities & (capability)) != 0)

static void geometry_makes_sense(void **state)
{
    struct block_subject *subject = *state;
    struct block_device *device = fresh(subject);
    const struct block_geometry *g = &device->geometry;
    assert_true(g->block_bytes == 512 || g->block_bytes == 4096);
    assert_int_equal(g->size_bytes % g->block_bytes, 0);
    assert_true(g->physical_bytes >= g->block_bytes && g->physical_bytes % g->block_bytes == 0);
    assert_true(g->memory_alignment && (g->memory_alignment & (g->memory_alignment - 1)) == 0);
    assert_true(g->max_transfer_bytes >= 65536 && g->max_transfer_bytes % g->physical_bytes == 0);
    assert_true(g->max_unmap_bytes >= g->max_transfer_bytes);
    assert_non_null(device->kind);
    finish(subject, device);
}

static void fresh_device_reads_as_zeroes(void **state)
{
    struct block_subject *subject = *state;
    struct block_device *device = fresh(subject);
    uint8_t *buffer = malloc(65536);
    for (uint64_t at = 0; at < BLOCK_SUBJECT_BYTES; at += 65536) {
        memset(buffer, 0xa5, 65536);
        assert_int_equal(block_sync_read(subject->loop, device, at, buffer, 65536), 0);
        assert_true(all_zero(buffer, 65536));
    }
    free(buffer);
    finish(subject, device);
}

static void every_operation_is_answered_once_and_never_inline(void **state)
{
    struct block_subject *subject = *state;
    struct block_device *device = fresh(subject);
    static const enum block_operation operations[] = {BLOCK_READ,  BLOCK_WRITE,        BLOCK_FLUSH,
                                                      BLOCK_UNMAP, BLOCK_WRITE_ZEROES, BLOCK_COMPARE_AND_WRITE};
    uint32_t block = device->geometry.block_bytes;
    uint8_t *buffer = calloc(2, block);
    for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
        struct probe probe;
        bool data = operations[i] == BLOCK_READ || operations[i] == BLOCK_WRITE || operations[i] == BLOCK_COMPARE_AND_WRITE;
        probe_set(&probe, operations[i], 0, data ? buffer : NULL, operations[i] == BLOCK_FLUSH ? 0 : block);
        probe_submit(device, &probe);
        while (!probe.answers)
            uv_run(subject->loop, UV_RUN_ONCE);
        turns(subject, 5);
        assert_false(probe.answered_inline);
        assert_int_equal(probe.answers, 1);
        if (operations[i] != BLOCK_UNMAP && operations[i] != BLOCK_COMPARE_AND_WRITE)
            assert_int_equal(probe.request.status, 0);
    }
    free(buffer);
    finish(subject, device);
}

static void a_request_sees_what_completed_before(void **state)
{
    struct block_subject *subject = *state;
    struct block_device *device = fresh(subject);
    uint8_t out[4096], in[4096];
    for (unsigned i = 0; i < 50; i++) {
        fill(out, sizeof(out), i);
        assert_int_equal(block_sync_write(subject->loop, device, 8192, out, sizeof(out), i & 1 ? BLOCK_FUA : 0), 0);
        assert_int_equal(block_sync_read(subject->loop, device, 8192, in, sizeof(in)), 0);
        assert_memory_equal(in, out, sizeof(in));
    }
    assert_int_equal(block_sync_flush(subject->loop, device), 0);
    finish(subject, device);
}

static void wrong_ranges_are_refused_and_change_nothing(void **state)
{
    struct block_subject *subject = *state;
    struct block_device *device = fresh(subject);
    uint64_t size = device->geometry.size_bytes;
    uint32_t block = device->geometry.block_bytes;
    const struct {
        uint64_t offset, length;
    } wrong[] = {{1, block},        {0, block + 1},  {0, block / 2},         {0, 0},
                 {size, block},     {size - block, 2 * (uint64_t)block},     {size + block, block},
                 {UINT64_MAX - block + 1, block}, {UINT64_MAX - block + 1, 2 * (uint64_t)block}};
    static const enum block_operation operations[] = {BLOCK_READ, BLOCK_WRITE, BLOCK_UNMAP, BLOCK_WRITE_ZEROES};
    uint8_t *buffer = malloc(3 * (size_t)block);
    memset(buffer, 0x77, 3 * (size_t)block);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(operations); k++) {
            struct probe probe;
            probe_set(&probe, operations[k], wrong[i].offset, buffer, wrong[i].length);
            assert_int_equal(block_request_check(device, &probe.request), -EINVAL);
            probe_submit(device, &probe);
            while (!probe.answers)
                uv_run(subject->loop, UV_RUN_ONCE);
            assert_false(probe.answered_inline);
            assert_int_equal(probe.request.status, -EINVAL);
        }
    }
    assert_int_equal(block_sync_read(subject->loop, device, size - block, buffer, block), 0);
    assert_true(all_zero(buffer, block));
    assert_int_equal(block_sync_read(subject->loop, device, 0, buffer, 2 * (size_t)block), 0);
    assert_true(all_zero(buffer, 2 * (size_t)block));
    free(buffer);
    finish(subject, device);
}

static void any_buffer_alignment_and_split_works_and_stays_in_bounds(void **state)
{
    struct block_subject *subject = *state;
    struct block_device *device = fresh(subject);
    enum { LENGTH = 16384, GUARD = 64 };
    uint8_t *out = malloc(LENGTH + 2 * GUARD + 64), *in = malloc(LENGTH + 2 * GUARD + 64);
    static const unsigned shifts[] = {0, 1, 3, 8, 17, 63};
    static const unsigned cuts[] = {LENGTH, 4096, 1000, 511, 8};
    for (size_t s = 0; s < ARRAY_SIZE(shifts); s++) {
        for (size_t c = 0; c < ARRAY_SIZE(cuts); c++) {
            struct iovec iov[LENGTH / 8 + 1];
            uint8_t *from = out + GUARD + shifts[s], *to = in + GUARD + shifts[s];
            unsigned count = 0;
            fill(from, LENGTH, (unsigned)(s * 16 + c));
            for (unsigned at = 0; at < LENGTH; at += cuts[c])
                iov[count++] = (struct iovec){from + at, MIN(cuts[c], LENGTH - at)};
            struct block_request request = {.operation = BLOCK_WRITE,
                                            .flags = c & 1 ? BLOCK_FUA : 0,
                                            .offset_bytes = 4096 * s,
                                            .length_bytes = LENGTH,
                                            .iov = iov,
                                            .iov_count = count};
            assert_int_equal(block_sync(subject->loop, device, &request), 0);
            memset(in, 0xee, LENGTH + 2 * GUARD + 64);
            for (unsigned i = 0; i < count; i++)
                iov[i].iov_base = to + ((uint8_t *)iov[i].iov_base - from);
            request.operation = BLOCK_READ;
            request.flags = 0;
            assert_int_equal(block_sync(subject->loop, device, &request), 0);
            assert_memory_equal(to, from, LENGTH);
            for (unsigned i = 1; i <= GUARD; i++) {
                assert_int_equal(to[-(int)i], 0xee);
                assert_int_equal(to[LENGTH + i - 1], 0xee);
            }
        }
    }
    free(out);
    free(in);
    finish(subject, device);
}

static void longest_transfer_works(void **state)
{
    struct block_subject *subject = *state;
    struct block_device *device = fresh(subject);
    size_t length = MIN(device->geometry.max_transfer_bytes, BLOCK_SUBJECT_BYTES / 2);
    uint8_t *out = malloc(length + 1), *in = malloc(length + 1);
    for (unsigned shift = 0; shift < 2; shift++) { /* aligned or not */
        fill(out + shift, length, 5 + shift);
        assert_int_equal(block_sync_write(subject->loop, device, 0, out + shift, length, 0), 0);
        assert_int_equal(block_sync_read(subject->loop, device, 0, in + shift, length), 0);
        assert_memory_equal(in + shift, out + shift, length);
    }
    free(out);
    free(in);
    finish(subject, device);
}

static void zeroes_and_unmap_clear_exactly_their_range(void **state)
{
    struct block_subject *subject = *state;
    struct block_device *device = fresh(subject);
    uint32_t block = device->geometry.block_bytes;
    static const struct {
        enum block_operation operation;
        uint32_t flags;
    } kinds[] = {{BLOCK_WRITE_ZEROES, 0},
                 {BLOCK_WRITE_ZEROES, BLOCK_FUA},
                 {BLOCK_WRITE_ZEROES, BLOCK_MAY_UNMAP},
                 {BLOCK_WRITE_ZEROES, BLOCK_MAY_UNMAP | BLOCK_FUA},
                 {BLOCK_UNMAP, 0}};
    const struct {
        uint64_t offset, length;
    } ranges[] = {{block, block}, {3 * (uint64_t)block, 65536}, {0, 1u << 20}, {block, (2u << 20) + 3 * (uint64_t)block}};
    size_t span = 3u << 20;
    uint8_t *out = malloc(span), *in = malloc(span);
    fill(out, span, 9);
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        if (kinds[k].operation == BLOCK_UNMAP && !CAN(device, BLOCK_CAP_UNMAP_ZEROES))
            continue;
        for (size_t r = 0; r < ARRAY_SIZE(ranges); r++) {
            uint64_t offset = ranges[r].offset, length = ranges[r].length;
            for (uint64_t at = 0; at < span; at += 1u << 20)
                assert_int_equal(block_sync_write(subject->loop, device, at, out + at, 1u << 20, 0), 0);
            assert_int_equal(
                block_sync_plain(subject->loop, device, kinds[k].operation, offset, length, kinds[k].flags), 0);
            for (uint64_t at = 0; at < span; at += 1u << 20)
                assert_int_equal(block_sync_read(subject->loop, device, at, in + at, 1u << 20), 0);
            assert_memory_equal(in, out, offset);
            assert_true(all_zero(in + offset, length));
            assert_memory_equal(in + offset + length, out + offset + length, span - offset - length);
        }
    }
    free(out);
    free(in);
    finish(subject, device);
}

static void unmap_is_refused_where_it_is_not_offered(void **state)
{
    struct block_subject *subject = *state;
    struct block_device *device = fresh(subject);
    int status = block_sync_plain(subject->loop, device, BLOCK_UNMAP, 0, device->geometry.block_bytes, 0);
    assert_int_equal(status, CAN(device, BLOCK_CAP_UNMAP) ? 0 : -ENOTSUP);
    finish(subject, device);
}

static void compare_and_write_writes_only_on_a_match(void **state)
{
    struct block_subject *subject = *state;
    struct block_device *device = fresh(subject);
    uint32_t block = device->geometry.block_bytes;
    uint8_t *both = calloc(4, block), *in = malloc(2 * (size_t)block);
    struct iovec iov[3] = {{both, block + 100}, {both + block + 100, block - 100}, {both + 2 * (size_t)block, 2 * (size_t)block}};
    struct block_request request = {.operation = BLOCK_COMPARE_AND_WRITE,
                                    .offset_bytes = 4 * (uint64_t)block,
                                    .length_bytes = 2 * (uint64_t)block,
                                    .iov = iov,
                                    .iov_count = 3};
    memset(both + 2 * (size_t)block, 0x3c, 2 * (size_t)block);
    if (!CAN(device, BLOCK_CAP_COMPARE_AND_WRITE)) {
        assert_int_equal(block_sync(subject->loop, device, &request), -ENOTSUP);
        goto out;
    }
    assert_int_equal(block_sync(subject->loop, device, &request), 0);
    assert_int_equal(block_sync_read(subject->loop, device, request.offset_bytes, in, 2 * (size_t)block), 0);
    assert_memory_equal(in, both + 2 * (size_t)block, 2 * (size_t)block);
    memset(both, 0x3c, 2 * (size_t)block);
    for (unsigned at = 0; at < 2 * block; at += 97) {
        both[at] ^= 1;
        memset(both + 2 * (size_t)block, 0x11, 2 * (size_t)block);
        assert_int_equal(block_sync(subject->loop, device, &request), -EILSEQ);
        assert_int_equal(request.ret_miscompare, at);
        both[at] ^= 1;
    }
    assert_int_equal(block_sync_read(subject->loop, device, request.offset_bytes, in, 2 * (size_t)block), 0);
    assert_memory_equal(in, both, 2 * (size_t)block);
out:
    free(both);
    free(in);
    finish(subject, device);
}

static void content_survives_close_and_open(void **state)
{
    struct block_subject *subject = *state;
    struct block_device *device = fresh(subject);
    uint8_t out[4096], in[4096];
    fill(out, sizeof(out), 77);
    assert_int_equal(block_sync_write(subject->loop, device, BLOCK_SUBJECT_BYTES - 4096, out, sizeof(out), 0), 0);
    block_sync_close(subject->loop, device);
    device = subject->open(subject, false);
    assert_non_null(device);
    assert_int_equal(block_sync_read(subject->loop, device, BLOCK_SUBJECT_BYTES - 4096, in, sizeof(in)), 0);
    assert_memory_equal(in, out, sizeof(in));
    finish(subject, device);
}

struct closing {
    struct probe probes[40];
    unsigned answered_at_close;
    bool closed;
};

static void closing_closed(void *context)
{
    struct closing *closing = context;
    assert_false(closing->closed);
    closing->closed = true;
    for (size_t i = 0; i < ARRAY_SIZE(closing->probes); i++)
        closing->answered_at_close += closing->probes[i].answers;
}

static void close_waits_for_requests_in_flight(void **state)
{
    struct block_subject *subject = *state;
    struct block_device *device = fresh(subject);
    struct closing *closing = calloc(1, sizeof(*closing));
    uint8_t *buffer = malloc(ARRAY_SIZE(closing->probes) * 4096), in[4096];
    for (size_t i = 0; i < ARRAY_SIZE(closing->probes); i++) {
        fill(buffer + i * 4096, 4096, (unsigned)i);
        if (i % 10 == 9)
            probe_set(&closing->probes[i], BLOCK_READ, 1, buffer, 4096); /* refused, yet answered */
        else
            probe_set(&closing->probes[i], BLOCK_WRITE, i * 4096, buffer + i * 4096, 4096);
        probe_submit(device, &closing->probes[i]);
    }
    block_device_close(device, closing_closed, closing);
    assert_false(closing->closed);
    while (!closing->closed)
        uv_run(subject->loop, UV_RUN_ONCE);
    assert_int_equal(closing->answered_at_close, ARRAY_SIZE(closing->probes));
    turns(subject, 5);
    device = subject->open(subject, false);
    assert_non_null(device);
    for (size_t i = 0; i < ARRAY_SIZE(closing->probes); i++) {
        assert_int_equal(closing->probes[i].answers, 1);
        if (i % 10 == 9) {
            assert_int_equal(closing->probes[i].request.status, -EINVAL);
            continue;
        }
        assert_int_equal(block_sync_read(subject->loop, device, i * 4096, in, 4096), 0);
        if (closing->probes[i].request.status == 0)
            assert_memory_equal(in, buffer + i * 4096, 4096);
        else
            assert_int_equal(closing->probes[i].request.status, -ECANCELED);
    }
    free(buffer);
    free(closing);
    finish(subject, device);
}

/* A chain: each done submits the next request, the last one closes the device. */
struct chain {
    struct block_request request;
    struct block_device *device;
    unsigned left;
    bool submitting, closed, nested;
};

static void chain_closed(void *context)
{
    ((struct chain *)context)->closed = true;
}

static void chain_done(struct block_request *request)
{
    struct chain *chain = container_of(request, struct chain, request);
    chain->nested |= chain->submitting;
    if (chain->left-- == 0) {
        block_device_close(chain->device, chain_closed, chain);
        chain->nested |= chain->closed;
        return;
    }
    chain->submitting = true;
    block_device_submit(chain->device, request);
    chain->submitting = false;
}

static void done_may_submit_and_close(void **state)
{
    struct block_subject *subject = *state;
    struct chain chain = {.device = fresh(subject), .left = 100};
    uint8_t buffer[4096] = {1};
    struct iovec iov = {buffer, sizeof(buffer)};
    chain.request = (struct block_request){
        .operation = BLOCK_WRITE, .length_bytes = sizeof(buffer), .iov = &iov, .iov_count = 1, .done = chain_done};
    block_device_submit(chain.device, &chain.request);
    while (!chain.closed)
        uv_run(subject->loop, UV_RUN_ONCE);
    assert_false(chain.nested);
    if (subject->discard)
        subject->discard(subject);
}

static void more_requests_than_any_queue_holds_are_all_answered(void **state)
{
    struct block_subject *subject = *state;
    struct block_device *device = fresh(subject);
    enum { COUNT = 1600 };
    struct probe *probes = calloc(COUNT, sizeof(*probes));
    uint8_t *buffer = malloc(COUNT * 4096), in[4096];
    for (unsigned i = 0; i < COUNT; i++) {
        fill(buffer + i * 4096u, 4096, i);
        probe_set(&probes[i], BLOCK_WRITE, i * 4096ull, buffer + i * 4096u, 4096);
        probe_submit(device, &probes[i]);
    }
    for (unsigned i = 0; i < COUNT; i++)
        while (!probes[i].answers)
            uv_run(subject->loop, UV_RUN_ONCE);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(probes[i].answers, 1);
        assert_int_equal(probes[i].request.status, 0);
        assert_int_equal(block_sync_read(subject->loop, device, i * 4096ull, in, 4096), 0);
        assert_memory_equal(in, buffer + i * 4096u, 4096);
    }
    free(buffer);
    free(probes);
    finish(subject, device);
}

static void warm_device_allocates_nothing_per_request(void **state)
{
    struct block_subject *subject = *state;
    if (subject->allocates)
        skip();
    struct block_device *device = fresh(subject);
    enum { COUNT = 32 };
    static struct probe probes[COUNT];
    uint8_t *buffer = malloc(COUNT * 4096 + 1);
    memset(buffer, 0x42, COUNT * 4096 + 1);
    size_t warm = 0;
    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            /* the odd ones are unaligned and go through a bounce buffer where there is one */
            probe_set(&probes[i], round & 1 ? BLOCK_READ : BLOCK_WRITE, i * 4096, buffer + i * 4096 + (i & 1), 4096 );
            if (i & 1)
                probes[i].iov.iov_len = 4096;
            probe_submit(device, &probes[i]);
        }
        for (unsigned i = 0; i < COUNT; i++)
            while (!probes[i].answers)
                uv_run(subject->loop, UV_RUN_ONCE);
        if (round == 20)
            warm = mallinfo2().uordblks;
    }
    assert_int_equal(mallinfo2().uordblks, warm);
    free(buffer);
    finish(subject, device);
}

/* Random operations, several at a time on disjoint ranges, against a plain array. */
enum { MODEL_SLOTS = 16, MODEL_MAX = 128 << 10 };

struct model_slot {
    struct block_request request;
    struct iovec iov[4];
    uint8_t *buffer; /* 2 * MODEL_MAX + slack */
    uint8_t *data;
    bool busy;
    struct model *model;
};

struct model {
    struct block_device *device;
    uint8_t *content;
    uint64_t random;
    unsigned busy;
    struct model_slot slots[MODEL_SLOTS];
};

static uint64_t model_random(struct model *model, uint64_t below)
{
    model->random ^= model->random << 13;
    model->random ^= model->random >> 7;
    model->random ^= model->random << 17;
    return (model->random >> 11) % below;
}

static void model_done(struct block_request *request)
{
    struct model_slot *slot = container_of(request, struct model_slot, request);
    struct model *model = slot->model;
    uint8_t *content = model->content + request->offset_bytes;
    size_t length = request->length_bytes;
    assert_true(slot->busy);
    slot->busy = false;
    model->busy--;
    switch (request->operation) {
    case BLOCK_READ:
        assert_int_equal(request->status, 0);
        assert_memory_equal(slot->data, content, length);
        break;
    case BLOCK_WRITE:
        assert_int_equal(request->status, 0);
        memcpy(content, slot->data, length);
        break;
    case BLOCK_FLUSH:
        assert_int_equal(request->status, 0);
        break;
    case BLOCK_UNMAP:
    case BLOCK_WRITE_ZEROES:
        assert_int_equal(request->status, 0);
        memset(content, 0, length);
        break;
    case BLOCK_COMPARE_AND_WRITE:
        if (memcmp(slot->data, content, length) == 0) {
            assert_int_equal(request->status, 0);
            memcpy(content, slot->data + length, length);
        } else {
            size_t at = 0;
            while (slot->data[at] == content[at])
                at++;
            assert_int_equal(request->status, -EILSEQ);
            assert_int_equal(request->ret_miscompare, at);
        }
        break;
    }
}

/* Does a range touch one under way? */
static bool model_overlaps(const struct model *model, uint64_t offset, uint64_t length)
{
    for (unsigned i = 0; i < MODEL_SLOTS; i++) {
        const struct block_request *other = &model->slots[i].request;
        if (model->slots[i].busy && other->operation != BLOCK_FLUSH && offset < other->offset_bytes + other->length_bytes &&
            other->offset_bytes < offset + length)
            return true;
    }
    return false;
}

static void model_buffers(struct model *model, struct model_slot *slot, size_t total)
{
    unsigned count = 1 + (unsigned)model_random(model, 4);
    size_t at = 0;
    slot->data = slot->buffer + (model_random(model, 2) ? model_random(model, 64) : 0);
    for (unsigned i = 0; i < count; i++) {
        size_t piece = i + 1 == count ? total - at : model_random(model, total - at + 1);
        slot->iov[i] = (struct iovec){slot->data + at, piece};
        at += piece;
    }
    slot->request.iov = slot->iov;
    slot->request.iov_count = count;
}

static void model_start(struct model *model, struct model_slot *slot)
{
    static const enum block_operation operations[] = {
        BLOCK_READ,  BLOCK_READ,  BLOCK_READ,         BLOCK_WRITE, BLOCK_WRITE,
        BLOCK_WRITE, BLOCK_FLUSH, BLOCK_WRITE_ZEROES, BLOCK_UNMAP, BLOCK_COMPARE_AND_WRITE};
    uint32_t block = model->device->geometry.block_bytes;
    enum block_operation operation = operations[model_random(model, ARRAY_SIZE(operations))];
    if (operation == BLOCK_UNMAP && !CAN(model->device, BLOCK_CAP_UNMAP_ZEROES))
        return;
    if (operation == BLOCK_COMPARE_AND_WRITE && !CAN(model->device, BLOCK_CAP_COMPARE_AND_WRITE))
        return;
    size_t length = operation == BLOCK_FLUSH ? 0 : block * (1 + (size_t)model_random(model, model_random(model, 4) ? 4 : MODEL_MAX / block));
    uint64_t offset = operation == BLOCK_FLUSH ? 0 : block * model_random(model, (BLOCK_SUBJECT_BYTES - length) / block + 1);
    if (length && model_overlaps(model, offset, length))
        return;
    slot->request = (struct block_request){
        .operation = operation, .offset_bytes = offset, .length_bytes = length, .done = model_done};
    if (operation != BLOCK_READ && operation != BLOCK_FLUSH && model_random(model, 3) == 0)
        slot->request.flags |= BLOCK_FUA;
    if (operation == BLOCK_WRITE_ZEROES && model_random(model, 2))
        slot->request.flags |= BLOCK_MAY_UNMAP;
    if (operation == BLOCK_READ || operation == BLOCK_WRITE)
        model_buffers(model, slot, length);
    if (operation == BLOCK_WRITE)
        fill(slot->data, length, (unsigned)model_random(model, 1000));
    if (operation == BLOCK_COMPARE_AND_WRITE) {
        model_buffers(model, slot, 2 * length);
        memcpy(slot->data, model->content + offset, length);
        fill(slot->data + length, length, (unsigned)model_random(model, 1000));
        if (model_random(model, 2))
            slot->data[model_random(model, length)] ^= 0x10;
    }
    slot->busy = true;
    model->busy++;
    block_device_submit(model->device, &slot->request);
}

static void random_operations_agree_with_a_plain_array(void **state)
{
    struct block_subject *subject = *state;
    struct model *model = calloc(1, sizeof(*model));
    const char *text = getenv("DIRECTOR_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : (uint64_t)time(NULL);
    unsigned operations = subject->model_operations ? subject->model_operations : 3000;
    print_message("%s: DIRECTOR_SEED=%llu\n", subject->name, (unsigned long long)seed);
    model->random = seed * 2654435761u + 88172645463325252ull;
    model->device = fresh(subject);
    model->content = calloc(1, BLOCK_SUBJECT_BYTES);
    for (unsigned i = 0; i < MODEL_SLOTS; i++) {
        model->slots[i].model = model;
        model->slots[i].buffer = aligned_alloc(4096, 2 * MODEL_MAX + 4096);
    }
    for (unsigned i = 0; i < operations; i++) {
        struct model_slot *slot = &model->slots[model_random(model, MODEL_SLOTS)];
        if (!slot->busy)
            model_start(model, slot);
        if (model->busy >= MODEL_SLOTS / 2 || model_random(model, 8) == 0)
            uv_run(subject->loop, model->busy ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    }
    while (model->busy)
        uv_run(subject->loop, UV_RUN_ONCE);
    block_sync_close(subject->loop, model->device);
    model->device = subject->open(subject, false);
    assert_non_null(model->device);
    for (uint64_t at = 0; at < BLOCK_SUBJECT_BYTES; at += MODEL_MAX) {
        assert_int_equal(block_sync_read(subject->loop, model->device, at, model->slots[0].buffer, MODEL_MAX), 0);
        assert_memory_equal(model->slots[0].buffer, model->content + at, MODEL_MAX);
    }
    finish(subject, model->device);
    for (unsigned i = 0; i < MODEL_SLOTS; i++)
        free(model->slots[i].buffer);
    free(model->content);
    free(model);
}

#define CONFORMANCE(test) {#test, test, NULL, NULL, subject}

int block_conformance_run(struct block_subject *subject)
{
    const struct CMUnitTest tests[] = {
        CONFORMANCE(geometry_makes_sense),
        CONFORMANCE(fresh_device_reads_as_zeroes),
        CONFORMANCE(every_operation_is_answered_once_and_never_inline),
        CONFORMANCE(a_request_sees_what_completed_before),
        CONFORMANCE(wrong_ranges_are_refused_and_change_nothing),
        CONFORMANCE(any_buffer_alignment_and_split_works_and_stays_in_bounds),
        CONFORMANCE(longest_transfer_works),
        CONFORMANCE(zeroes_and_unmap_clear_exactly_their_range),
        CONFORMANCE(unmap_is_refused_where_it_is_not_offered),
        CONFORMANCE(compare_and_write_writes_only_on_a_match),
        CONFORMANCE(content_survives_close_and_open),
        CONFORMANCE(close_waits_for_requests_in_flight),
        CONFORMANCE(done_may_submit_and_close),
        CONFORMANCE(more_requests_than_any_queue_holds_are_all_answered),
        CONFORMANCE(warm_device_allocates_nothing_per_request),
        CONFORMANCE(random_operations_agree_with_a_plain_array),
    };
    return cmocka_run_group_tests_name(subject->name, tests, NULL, NULL);
}
