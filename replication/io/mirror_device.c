/* The shell around mirror and replica. One event goes in, its effects are performed in order; frames to the own node queue
 * up and are handed over one by one until none is left. What the user of this device must hear (completions, callbacks) is
 * noted and told from an idle handle on the next turn of the loop, never inside a call.
 *
 * Happy path of a write: submit -> REQUEST -> SEND to peers (copied by the transport) and to ourselves -> replica ->
 * DISK_WRITE -> done -> DISK_DONE -> WRITE_REPLY to ourselves; peers' WRITE_REPLY by receive -> COMPLETE -> idle -> done. */
#include "replication/io/mirror_device.h"
#include "replication/core/message.h"
#include "replication/io/data.h"
#include "replication/io/metadata_file.h"
#include <errno.h>
#include <string.h>
#include <time.h>

#define SEND_IOV_MAX      1024u
#define BUFFERS_MAX       8u /* for copies between members, at a time */
#define MAX_TRANSFER      (1u << 20)
#define MAX_ZEROES        (64u << 20)
#define ZERO_PIECE        65536u
#define TICK_FLOOR_MS     1u

/* One request of the block device. */
struct device_request {
    struct mirror_request request;
    struct mirror_device *device;
    struct device_request *next; /* free, or waiting to be told */
    struct block_request *block;
    struct data *data;
    bool completed, data_gone;
    unsigned disk_operations; /* on the original memory */
};

/* One operation on the data device, in pieces as its geometry wants. */
struct disk_operation {
    struct block_request request;
    struct mirror_device *device;
    struct disk_operation *next;
    uint64_t token;
    struct data *data;
    size_t data_offset;
    bool brought; /* the data came from us, for a read of another node */
    struct device_request *original;
    uint64_t offset, length, done; /* done: bytes */
    enum block_operation operation;
    uint32_t flags;
    uint64_t piece;
    bool emulate;
    struct iovec *iov;
    unsigned iov_capacity;
};

/* A frame to ourselves. */
struct loop_frame {
    struct loop_frame *next;
    struct peer_header header;
    uint32_t body_bytes, data_bytes;
    struct mirror_data data;
    uint8_t *body; /* small, or allocated */
    uint8_t small[MIRROR_BODY_MAX];
};

struct mirror_device {
    struct block_device block;
    struct mirror_device_options options;
    uv_loop_t *loop;
    uv_timer_t timer;
    uv_idle_t teller;
    uint64_t timer_at_us;
    struct mirror *mirror;
    struct replica *replica;
    struct metadata_file metadata;
    struct mirror_effects effects;
    struct mirror_pool pool;
    struct mirror_config config;
    bool running, closing, closed_data;
    struct loop_frame *frames, **frames_end, *frames_free;
    struct device_request *requests_free, *told_first, **told_end;
    struct disk_operation *disk_free;
    unsigned disk_busy, requests_busy;
    bool tell_ask, tell_state, tell_drained;
    uint8_t ask_isr;
    uint64_t ask_epoch, ask_version;
    enum mirror_ask_reason ask_reason;
    uint8_t *zeroes;
    uint64_t reads, writes, read_bytes, written_bytes, metadata_writes;
    void (*closed)(void *context);
    void *closed_context;
    unsigned handles;
};

uint64_t mirror_clock_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void device_run(struct mirror_device *d, bool member, struct mirror_event *event);
static void device_close_advance(struct mirror_device *d);

/* ---- telling the user ------------------------------------------------------------------------------------------- */

static void teller_turn(uv_idle_t *idle);

static void tell(struct mirror_device *d)
{
    if (!uv_is_active((uv_handle_t *)&d->teller))
        uv_idle_start(&d->teller, teller_turn);
}

static const char *ask_words(enum mirror_ask_reason reason)
{
    switch (reason) {
    case MIRROR_ASK_MEMBER_AWAY: return "a replica cannot be reached";
    case MIRROR_ASK_MEMBER_ERROR: return "a replica's disk failed";
    case MIRROR_ASK_MEMBER_SLOW: return "a replica does not answer in time";
    case MIRROR_ASK_MEMBER_FOREIGN: return "a replica's disk is not the one that was in sync";
    case MIRROR_ASK_MEMBER_SYNCED: return "a replica has caught up";
    }
    return "unknown";
}

static void teller_turn(uv_idle_t *idle)
{
    struct mirror_device *d = container_of(idle, struct mirror_device, teller);
    const struct mirror_device_callbacks *callbacks = &d->options.callbacks;
    uv_idle_stop(idle);
    struct device_request *r = d->told_first;
    d->told_first = NULL;
    d->told_end = &d->told_first;
    while (r) {
        struct device_request *next = r->next;
        struct block_request *block = r->block;
        r->next = d->requests_free;
        d->requests_free = r;
        d->requests_busy--;
        block->done(block); /* may submit */
        r = next;
    }
    bool ask = d->tell_ask, state = d->tell_state, drained = d->tell_drained;
    d->tell_ask = d->tell_state = d->tell_drained = false;
    if (d->closing) {
        device_close_advance(d);
        return;
    }
    if (state && callbacks->state) {
        struct mirror_status status;
        char words[256];
        mirror_get_status(d->mirror, mirror_clock_us(), &status);
        mirror_device_describe(d, words, sizeof(words));
        callbacks->state(callbacks->context, d, &status, words);
    }
    if (ask && !d->closing)
        callbacks->ask_isr(callbacks->context, d, d->ask_epoch, d->ask_version, d->ask_isr, ask_words(d->ask_reason));
    if (drained && callbacks->drained && !d->closing)
        callbacks->drained(callbacks->context, d);
}

/* Its answer is known, and nobody uses the caller's memory any more: tell. */
static void request_try_finish(struct device_request *r)
{
    struct mirror_device *d = r->device;
    if (!r->completed || r->disk_operations || (r->data && !r->data_gone))
        return;
    r->completed = false; /* once */
    r->next = NULL;
    *d->told_end = r;
    d->told_end = &r->next;
    tell(d);
}

static void request_data_released(void *context)
{
    struct device_request *r = context;
    r->data_gone = true;
    request_try_finish(r);
}

static void request_complete(struct device_request *r, int status)
{
    struct mirror_device *d = r->device;
    if (d->closing && status == -ESTALE)
        status = -ECANCELED;
    r->block->status = status;
    r->block->ret_miscompare = r->request.ret_miscompare;
    r->completed = true;
    if (status == 0 && r->request.operation == BLOCK_READ) {
        d->reads++;
        d->read_bytes += r->request.length_bytes;
    } else if (status == 0 && r->request.operation != BLOCK_FLUSH) {
        d->writes++;
        d->written_bytes += r->request.length_bytes;
    }
    request_try_finish(r);
}

/* ---- the data device ----------------------------------------------------------------------------------------------- */

static void disk_done(struct block_request *request);

static void disk_next(struct disk_operation *op)
{
    struct mirror_device *d = op->device;
    struct block_device *disk = d->options.data;
    uint64_t left = op->length - op->done;
    struct block_request *request = &op->request;
    uint64_t most = disk->geometry.max_transfer_bytes ? disk->geometry.max_transfer_bytes : MAX_TRANSFER;
    request->operation = op->operation;
    request->flags = op->operation == BLOCK_READ ? 0 : op->flags | BLOCK_FUA; /* durable before the ack (I5) */
    request->iov = NULL;
    request->iov_count = 0;
    if (op->operation == BLOCK_WRITE_ZEROES) {
        op->emulate = op->emulate || !(disk->geometry.capabilities & BLOCK_CAP_WRITE_ZEROES);
        most = disk->geometry.max_unmap_bytes ? disk->geometry.max_unmap_bytes : MAX_ZEROES;
    }
    op->piece = MIN(left, most);
    if (op->operation == BLOCK_WRITE_ZEROES && op->emulate) {
        op->piece = MIN(op->piece, ZERO_PIECE);
        request->operation = BLOCK_WRITE;
        request->flags = BLOCK_FUA;
        op->iov[0] = (struct iovec){d->zeroes, op->piece};
        request->iov = op->iov;
        request->iov_count = 1;
    } else if (op->operation != BLOCK_WRITE_ZEROES) {
        unsigned count = data_slice(op->data, op->data_offset + op->done, op->piece, NULL);
        if (count > op->iov_capacity) {
            op->iov = realloc(op->iov, count * sizeof(*op->iov));
            ASSERT(op->iov); /* grows to the longest request seen, then never again */
            op->iov_capacity = count;
        }
        request->iov_count = data_slice(op->data, op->data_offset + op->done, op->piece, op->iov);
        request->iov = op->iov;
    }
    request->offset_bytes = op->offset + op->done;
    request->length_bytes = op->piece;
    request->done = disk_done;
    block_device_submit(disk, request);
}

static void disk_finish(struct disk_operation *op, int status)
{
    struct mirror_device *d = op->device;
    struct device_request *original = op->original;
    struct mirror_event event = {.type = MIRROR_EVENT_DISK_DONE};
    event.disk.token = op->token;
    event.disk.status = status;
    if (op->brought)
        event.disk.data.handle = op->data; /* our reference goes along */
    else if (op->data)
        data_unref(op->data);
    op->next = d->disk_free;
    d->disk_free = op;
    d->disk_busy--;
    if (original) {
        original->disk_operations--;
        request_try_finish(original);
    }
    device_run(d, true, &event);
    if (d->closing)
        tell(d);
}

static void disk_done(struct block_request *request)
{
    struct disk_operation *op = container_of(request, struct disk_operation, request);
    if (request->status == -ENOTSUP && op->operation == BLOCK_WRITE_ZEROES && !op->emulate) {
        op->emulate = true;
        disk_next(op);
        return;
    }
    op->done += op->piece;
    if (request->status == 0 && op->done < op->length) {
        disk_next(op);
        return;
    }
    disk_finish(op, request->status > 0 ? -EIO : request->status);
}

/* Effect DISK_READ or DISK_WRITE. */
static void disk_start(struct mirror_device *d, const struct mirror_effect *effect)
{
    struct disk_operation *op = d->disk_free;
    if (op) {
        d->disk_free = op->next;
    } else {
        op = calloc(1, sizeof(*op));
        ASSERT(op);
        op->iov_capacity = 8;
        op->iov = calloc(op->iov_capacity, sizeof(*op->iov));
        ASSERT(op->iov);
    }
    op->device = d;
    op->token = effect->disk.token;
    op->operation = effect->disk.operation;
    op->flags = effect->disk.flags & BLOCK_MAY_UNMAP;
    op->offset = effect->disk.offset_bytes;
    op->length = effect->disk.length_bytes;
    op->done = 0;
    op->emulate = op->brought = false;
    op->data = effect->disk.data.handle;
    op->data_offset = effect->disk.data.offset;
    op->original = NULL;
    if (!op->data && op->operation != BLOCK_WRITE_ZEROES) {
        op->data = data_new(&d->pool, op->length);
        ASSERT(op->data);
        op->brought = true;
    } else if (op->data) {
        data_ref(op->data);
        if (op->data->released == request_data_released) {
            op->original = op->data->context;
            op->original->disk_operations++;
        }
    }
    d->disk_busy++;
    disk_next(op);
}

static void metadata_written(struct metadata_file *file, int status)
{
    struct mirror_device *d = container_of(file, struct mirror_device, metadata);
    struct mirror_event event = {.type = MIRROR_EVENT_META_DONE};
    event.meta_status = status;
    d->metadata_writes++;
    device_run(d, true, &event);
    if (d->closing)
        tell(d);
}

/* ---- frames -------------------------------------------------------------------------------------------------------- */

static void send_to_self(struct mirror_device *d, const struct mirror_effect *effect)
{
    struct loop_frame *frame = d->frames_free;
    uint32_t bytes = effect->send.body_bytes + effect->send.blob_bytes;
    if (frame)
        d->frames_free = frame->next;
    else
        frame = calloc(1, sizeof(*frame));
    ASSERT(frame);
    frame->body = bytes <= sizeof(frame->small) ? frame->small : malloc(bytes);
    ASSERT(frame->body);
    frame->next = NULL;
    frame->header = effect->send.header;
    frame->body_bytes = bytes;
    frame->data_bytes = effect->send.data_bytes;
    frame->data = effect->send.data;
    memcpy(frame->body, effect->send.body, effect->send.body_bytes);
    if (effect->send.blob_bytes)
        memcpy(frame->body + effect->send.body_bytes, effect->send.blob, effect->send.blob_bytes);
    if (frame->data.handle)
        data_ref(frame->data.handle);
    *d->frames_end = frame;
    d->frames_end = &frame->next;
}

static void send_to_peer(struct mirror_device *d, const struct mirror_effect *effect)
{
    struct iovec iov[SEND_IOV_MAX];
    unsigned count = 0;
    struct data *data = effect->send.data.handle, *flat = NULL;
    const struct mirror_transport *transport = &d->options.transport;
    iov[count++] = (struct iovec){(void *)effect->send.body, effect->send.body_bytes};
    if (effect->send.blob_bytes)
        iov[count++] = (struct iovec){(void *)effect->send.blob, effect->send.blob_bytes};
    if (effect->send.data_bytes) {
        size_t offset = effect->send.data.offset;
        if (data_slice(data, offset, effect->send.data_bytes, NULL) > SEND_IOV_MAX - count) {
            flat = data_new(&d->pool, effect->send.data_bytes); /* a request of very many pieces */
            ASSERT(flat);
            data_copy(flat, 0, data, offset, effect->send.data_bytes);
            data = flat;
            offset = 0;
        }
        count += data_slice(data, offset, effect->send.data_bytes, iov + count);
    }
    int result = transport->send(transport->context, effect->send.nodeid, &effect->send.header, iov, count);
    if (flat)
        data_unref(flat);
    if (result < 0 && result != -ENOTCONN)
        transport->reset(transport->context, effect->send.nodeid, "a replication frame could not be queued");
}

static void perform(struct mirror_device *d, const struct mirror_effect *effect)
{
    switch (effect->type) {
    case MIRROR_EFFECT_SEND:
        if (effect->send.nodeid == d->options.nodeid)
            send_to_self(d, effect);
        else
            send_to_peer(d, effect);
        break;
    case MIRROR_EFFECT_DISK_READ:
    case MIRROR_EFFECT_DISK_WRITE:
        disk_start(d, effect);
        break;
    case MIRROR_EFFECT_META_WRITE:
        metadata_file_write(&d->metadata, effect->meta.pages, effect->meta.count);
        break;
    case MIRROR_EFFECT_COMPLETE: {
        struct device_request *r = container_of(effect->complete.request, struct device_request, request);
        if (effect->complete.status == -EAGAIN && r->data && !r->data_gone && r->request.operation != BLOCK_READ &&
            r->data->released && data_detach(r->data))
            r->data_gone = true; /* answered at its deadline, still under way: it goes on with a copy */
        request_complete(r, effect->complete.status);
        break;
    }
    case MIRROR_EFFECT_RELEASE:
        data_unref(effect->release);
        break;
    case MIRROR_EFFECT_ASK_ISR:
        d->tell_ask = true;
        d->ask_isr = effect->ask_isr.isr;
        d->ask_epoch = effect->ask_isr.epoch;
        d->ask_version = effect->ask_isr.isr_version;
        d->ask_reason = effect->ask_isr.reason;
        tell(d);
        break;
    case MIRROR_EFFECT_DRAINED:
        d->tell_drained = true;
        tell(d);
        break;
    case MIRROR_EFFECT_STATE:
        d->tell_state = true;
        tell(d);
        break;
    }
}

/* One event to one core. -EPROTO when it was a malformed message. */
static int device_step(struct mirror_device *d, bool member, const struct mirror_event *event)
{
    int result = 0;
    d->effects.count = 0;
    if (!member)
        result = mirror_step(d->mirror, event, mirror_clock_us(), &d->effects);
    else if (d->replica)
        result = replica_step(d->replica, event, mirror_clock_us(), &d->effects);
    else if (event->type == MIRROR_EVENT_MESSAGE && event->message.data.handle)
        data_unref(event->message.data.handle); /* no replica here */
    for (unsigned i = 0; i < d->effects.count; i++)
        perform(d, &d->effects.items[i]);
    return result;
}

static void timer_fired(uv_timer_t *timer);

static void timer_set(struct mirror_device *d)
{
    uint64_t next = mirror_next_tick(d->mirror), now = mirror_clock_us();
    if (d->replica)
        next = MIN(next, replica_next_tick(d->replica));
    if (d->closing || next == UINT64_MAX || (uv_is_active((uv_handle_t *)&d->timer) && d->timer_at_us <= next))
        return;
    uint64_t wait_ms = next > now ? (next - now + 999) / 1000 : 0;
    d->timer_at_us = next;
    uv_timer_start(&d->timer, timer_fired, MAX(wait_ms, TICK_FLOOR_MS), 0);
}

static void frames_run(struct mirror_device *d)
{
    while (d->frames) {
        struct loop_frame *frame = d->frames;
        struct mirror_event event = {.type = MIRROR_EVENT_MESSAGE, .nodeid = d->options.nodeid};
        d->frames = frame->next;
        if (!d->frames)
            d->frames_end = &d->frames;
        event.message.header = frame->header;
        event.message.body = frame->body;
        event.message.body_bytes = frame->body_bytes;
        event.message.data_bytes = frame->data_bytes;
        event.message.data = frame->data;
        (void)device_step(d, mirror_message_to_member(frame->header.type), &event);
        if (frame->body != frame->small)
            free(frame->body);
        frame->next = d->frames_free;
        d->frames_free = frame;
    }
}

static int device_feed(struct mirror_device *d, bool member, const struct mirror_event *event)
{
    ASSERT(!d->running); /* devices and transports do not call back inside a call */
    d->running = true;
    int result = device_step(d, member, event);
    frames_run(d);
    d->running = false;
    timer_set(d);
    return result;
}

static void device_run(struct mirror_device *d, bool member, struct mirror_event *event)
{
    (void)device_feed(d, member, event);
}

static void device_run_both(struct mirror_device *d, struct mirror_event *event)
{
    if (d->replica)
        device_run(d, true, event);
    device_run(d, false, event);
}

static void timer_fired(uv_timer_t *timer)
{
    struct mirror_device *d = container_of(timer, struct mirror_device, timer);
    device_run_both(d, &(struct mirror_event){.type = MIRROR_EVENT_TICK});
}

/* ---- block device --------------------------------------------------------------------------------------------------- */

static void device_submit(struct block_device *block, struct block_request *request)
{
    struct mirror_device *d = container_of(block, struct mirror_device, block);
    struct device_request *r = d->requests_free;
    int result = d->closing ? -ECANCELED : block_request_check(block, request);
    if (r)
        d->requests_free = r->next;
    else
        r = calloc(1, sizeof(*r));
    ASSERT(r);
    memset(r, 0, sizeof(*r));
    d->requests_busy++;
    r->device = d;
    r->block = request;
    r->request.operation = request->operation;
    r->request.flags = request->flags;
    r->request.offset_bytes = request->offset_bytes;
    r->request.length_bytes = request->length_bytes;
    bool bytes = request->operation == BLOCK_READ || request->operation == BLOCK_WRITE ||
                 request->operation == BLOCK_COMPARE_AND_WRITE;
    if (result == 0 && request->operation != BLOCK_FLUSH &&
        request->length_bytes > (bytes ? block->geometry.max_transfer_bytes : block->geometry.max_unmap_bytes))
        result = -EINVAL;
    if (result == 0 && bytes) {
        r->data = data_wrap(&d->pool, request->iov, request->iov_count, request_data_released, r);
        result = r->data ? 0 : -ENOMEM;
    }
    if (result < 0) {
        request_complete(r, result);
        return;
    }
    r->request.data.handle = r->data;
    device_run(d, false, &(struct mirror_event){.type = MIRROR_EVENT_REQUEST, .request = &r->request});
}

static void device_close(struct block_device *block, void (*closed)(void *context), void *context)
{
    mirror_device_close(container_of(block, struct mirror_device, block), closed, context);
}

static const struct block_device_operations device_operations = {.submit = device_submit, .close = device_close};

static void *operations_alloc(void *context, uint32_t bytes)
{
    struct mirror_device *d = context;
    return d->pool.outstanding > BUFFERS_MAX + 4 * 512 ? NULL : data_new(&d->pool, bytes);
}
static void operations_copy(void *context, struct mirror_data to, struct mirror_data from, uint64_t bytes)
{
    (void)context;
    data_copy(to.handle, to.offset, from.handle, from.offset, bytes);
}
static bool operations_equal(void *context, struct mirror_data a, struct mirror_data b, uint64_t bytes,
                             uint64_t *ret_differs)
{
    size_t differs = 0;
    bool equal = data_equal(a.handle, a.offset, b.handle, b.offset, bytes, &differs);
    (void)context;
    *ret_differs = differs;
    return equal;
}

/* ---- opening and closing --------------------------------------------------------------------------------------------- */

static int device_open_replica(struct mirror_device *d, struct error *error)
{
    const struct mirror_device_options *o = &d->options;
    const struct block_geometry *disk = &o->data->geometry;
    struct replica_parameters parameters = {.volume = o->volume, .nodeid = o->nodeid, .boot = o->boot,
                                            .now_us = mirror_clock_us(),
                                            .intent_clear_us = o->intent_clear_ms * 1000ull};
    struct metadata_header header;
    uint8_t *_cleanup_free_ image = NULL;
    uint64_t bytes;
    if (disk->size_bytes < o->size_bytes || disk->block_bytes > o->block_bytes)
        return error_set(error, -EINVAL, "replica of volume %llu: its disk has %llu bytes in blocks of %u, too small or too coarse",
                         (unsigned long long)o->volume, (unsigned long long)disk->size_bytes, disk->block_bytes);
    int result = metadata_file_open(&d->metadata, d->loop, o->metadata_path, &image, &bytes, error);
    if (result < 0)
        return result;
    d->metadata.done = metadata_written;
    result = metadata_header_decode(image, bytes, &header);
    if (result < 0)
        result = error_set(error, result, "replica metadata %s: no good header; the disk counts as blank", o->metadata_path);
    else if (header.volume != o->volume || !uuid_equal(&header.volume_uuid, &o->volume_uuid) ||
             header.size_bytes != o->size_bytes)
        result = error_set(error, -EMEDIUMTYPE, "replica metadata %s belongs to another volume or size", o->metadata_path);
    else if ((result = replica_new(&parameters, image, bytes, &d->replica)) < 0)
        result = error_set(error, result, "replica metadata %s: %s", o->metadata_path, strerror(-result));
    if (result < 0)
        metadata_file_close(&d->metadata);
    return result;
}

static void device_free(struct mirror_device *d)
{
    while (d->requests_free) {
        struct device_request *r = d->requests_free;
        d->requests_free = r->next;
        free(r);
    }
    while (d->disk_free) {
        struct disk_operation *op = d->disk_free;
        d->disk_free = op->next;
        free(op->iov);
        free(op);
    }
    while (d->frames_free) {
        struct loop_frame *frame = d->frames_free;
        d->frames_free = frame->next;
        free(frame);
    }
    mirror_free(d->mirror);
    replica_free(d->replica);
    mirror_effects_done(&d->effects);
    mirror_pool_done(&d->pool);
    free(d->zeroes);
    free(d);
}

int mirror_device_open(uv_loop_t *loop, const struct mirror_device_options *options, struct mirror_device **ret_device,
                       struct error *error)
{
    struct mirror_device *d = calloc(1, sizeof(*d));
    if (!d)
        return error_set(error, -ENOMEM, "no memory for volume %llu", (unsigned long long)options->volume);
    d->options = *options;
    d->loop = loop;
    d->frames_end = &d->frames;
    d->told_end = &d->told_first;
    struct mirror_parameters parameters = {
        .volume = options->volume,
        .size_bytes = options->size_bytes,
        .region_bytes = metadata_region_bytes(options->size_bytes),
        .nodeid = options->nodeid,
        .boot = options->boot,
        .now_us = mirror_clock_us(),
        .data = {.context = d, .alloc = operations_alloc, .copy = operations_copy, .equal = operations_equal},
        .requests_max = options->requests_max,
        .member_timeout_us = options->member_timeout_us,
    };
    d->mirror = mirror_new(&parameters);
    d->zeroes = calloc(1, ZERO_PIECE);
    if (!d->mirror || !d->zeroes) {
        device_free(d);
        return error_set(error, -ENOMEM, "no memory for volume %llu", (unsigned long long)options->volume);
    }
    int result = options->data ? device_open_replica(d, error) : 0;
    if (result < 0) {
        device_free(d);
        return result;
    }
    d->block.operations = &device_operations;
    d->block.kind = "mirror";
    d->block.geometry = (struct block_geometry){
        .size_bytes = options->size_bytes,
        .block_bytes = options->block_bytes,
        .physical_bytes = MAX(options->block_bytes, 4096u),
        .memory_alignment = options->data ? options->data->geometry.memory_alignment : 1,
        .max_transfer_bytes = MAX_TRANSFER,
        .max_unmap_bytes = MAX_ZEROES,
        .capabilities = BLOCK_CAP_UNMAP | BLOCK_CAP_UNMAP_ZEROES | BLOCK_CAP_WRITE_ZEROES | BLOCK_CAP_COMPARE_AND_WRITE,
    };
    uv_timer_init(loop, &d->timer);
    uv_idle_init(loop, &d->teller);
    d->handles = 2;
    *ret_device = d;
    timer_set(d);
    return 0;
}

static void handle_closed(uv_handle_t *handle)
{
    struct mirror_device *d = handle->data;
    if (--d->handles > 0)
        return;
    void (*closed)(void *context) = d->closed;
    void *context = d->closed_context;
    device_free(d);
    if (closed)
        closed(context);
}

static void data_closed(void *context)
{
    struct mirror_device *d = context;
    d->timer.data = d->teller.data = d;
    uv_close((uv_handle_t *)&d->timer, handle_closed);
    uv_close((uv_handle_t *)&d->teller, handle_closed);
}

static void device_close_advance(struct mirror_device *d)
{
    if (d->closed_data || d->disk_busy || d->metadata.busy || d->requests_busy || d->frames || d->running)
        return;
    d->closed_data = true;
    if (!d->replica) {
        data_closed(d);
        return;
    }
    metadata_file_close(&d->metadata);
    block_device_close(d->options.data, data_closed, d);
}

static int send_nowhere(void *context, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov,
                        unsigned iov_count)
{
    (void)context, (void)nodeid, (void)header, (void)iov, (void)iov_count;
    return -ENOTCONN;
}

void mirror_device_close(struct mirror_device *d, void (*closed)(void *context), void *context)
{
    ASSERT(!d->closing);
    d->closing = true;
    d->closed = closed;
    d->closed_context = context;
    uv_timer_stop(&d->timer);
    /* As if nobody were owner: everything is answered, and the lease is given back. */
    d->config.isr_version++;
    d->config.owner = 0;
    if (d->config.epoch)
        device_run(d, false, &(struct mirror_event){.type = MIRROR_EVENT_CONFIG, .config = &d->config});
    d->options.transport.send = send_nowhere;
    tell(d);
}

/* ---- the agent's side --------------------------------------------------------------------------------------------------- */

struct block_device *mirror_device_block(struct mirror_device *d)
{
    return &d->block;
}

void mirror_device_config(struct mirror_device *d, const struct mirror_config *config)
{
    if (d->closing || config->epoch < d->config.epoch ||
        (config->epoch == d->config.epoch && config->isr_version <= d->config.isr_version))
        return;
    d->config = *config;
    device_run(d, false, &(struct mirror_event){.type = MIRROR_EVENT_CONFIG, .config = &d->config});
}

void mirror_device_receive(struct mirror_device *d, uint16_t nodeid, const struct peer_header *header,
                           const uint8_t *payload)
{
    struct mirror_event event = {.type = MIRROR_EVENT_MESSAGE, .nodeid = nodeid};
    uint32_t body;
    if (d->closing)
        return;
    int result = mirror_message_split(header, header->payload_bytes, &body);
    if (result == 0) {
        event.message.header = *header;
        event.message.body = payload;
        event.message.body_bytes = body;
        event.message.data_bytes = header->payload_bytes - body;
        if (event.message.data_bytes) {
            struct data *data = data_new(&d->pool, event.message.data_bytes);
            if (!data) {
                d->options.transport.reset(d->options.transport.context, nodeid, "no memory for a replication frame");
                return;
            }
            data_fill(data, payload + body, event.message.data_bytes);
            event.message.data.handle = data;
        }
        result = device_feed(d, mirror_message_to_member(header->type), &event);
    }
    if (result < 0)
        d->options.transport.reset(d->options.transport.context, nodeid, "a malformed replication frame");
}

void mirror_device_link_up(struct mirror_device *d, uint16_t nodeid, uint64_t boot)
{
    if (!d->closing && nodeid != d->options.nodeid)
        device_run_both(d, &(struct mirror_event){.type = MIRROR_EVENT_LINK_UP, .nodeid = nodeid, .boot = boot});
}

void mirror_device_link_down(struct mirror_device *d, uint16_t nodeid)
{
    if (!d->closing && nodeid != d->options.nodeid)
        device_run_both(d, &(struct mirror_event){.type = MIRROR_EVENT_LINK_DOWN, .nodeid = nodeid});
}

void mirror_device_heartbeat_answered(struct mirror_device *d, uint16_t nodeid, uint64_t sent_us)
{
    if (!d->closing)
        device_run(d, false, &(struct mirror_event){.type = MIRROR_EVENT_HEARTBEAT_ANSWERED, .nodeid = nodeid,
                                                    .time_us = sent_us});
}

void mirror_device_heartbeat_answered_by_us(struct mirror_device *d, uint16_t nodeid, uint64_t answered_us)
{
    if (!d->closing && d->replica)
        device_run(d, true, &(struct mirror_event){.type = MIRROR_EVENT_HEARTBEAT_ANSWERED_BY_US, .nodeid = nodeid,
                                                   .time_us = answered_us});
}

void mirror_device_node_dead(struct mirror_device *d, uint16_t nodeid, uint64_t boot)
{
    if (!d->closing && nodeid != d->options.nodeid)
        device_run_both(d, &(struct mirror_event){.type = MIRROR_EVENT_NODE_DEAD, .nodeid = nodeid, .boot = boot});
}

void mirror_device_drain(struct mirror_device *d)
{
    if (!d->closing)
        device_run(d, false, &(struct mirror_event){.type = MIRROR_EVENT_DRAIN});
}

void mirror_device_resume(struct mirror_device *d)
{
    if (!d->closing)
        device_run(d, false, &(struct mirror_event){.type = MIRROR_EVENT_RESUME});
}

void mirror_device_get_status(const struct mirror_device *d, struct mirror_device_status *ret_status)
{
    memset(ret_status, 0, sizeof(*ret_status));
    mirror_get_status(d->mirror, mirror_clock_us(), &ret_status->mirror);
    ret_status->has_replica = d->replica != NULL;
    if (d->replica)
        replica_get_status(d->replica, &ret_status->replica);
    ret_status->reads = d->reads;
    ret_status->writes = d->writes;
    ret_status->read_bytes = d->read_bytes;
    ret_status->written_bytes = d->written_bytes;
    ret_status->metadata_writes = d->metadata_writes;
}

static size_t add_nodes(const struct mirror_device *d, uint8_t mask, char *text, size_t size, size_t at)
{
    const char *between = "";
    for (unsigned k = 0; k < d->config.replica_count && at < size; k++)
        if (mask >> k & 1) {
            at += (size_t)snprintf(text + at, size - at, "%s%u", between, d->config.replicas[k].nodeid);
            between = ", ";
        }
    return at;
}

void mirror_device_describe(const struct mirror_device *d, char *text, size_t size)
{
    struct mirror_status s;
    size_t at = 0;
    mirror_get_status(d->mirror, mirror_clock_us(), &s);
    if (s.state == MIRROR_IDLE) {
        snprintf(text, size, "not the owner; the owner is node %u", d->config.owner);
        return;
    }
    if (s.needed) {
        at = (size_t)snprintf(text, size, "%s, waits for node ", s.state == MIRROR_SEALING ? "taking over" : "suspended");
        at = add_nodes(d, s.needed, text, size, at);
    } else {
        at = (size_t)snprintf(text, size, "%s", s.state == MIRROR_SEALING ? "taking over" : "serving");
    }
    if (at < size)
        at += (size_t)snprintf(text + at, size - at, "; in sync on node ");
    at = add_nodes(d, s.isr, text, size, at);
    for (unsigned k = 0; k < d->config.replica_count && at < size; k++) {
        if (s.members[k].state == MIRROR_MEMBER_SYNCING && !s.members[k].in_sync)
            at += (size_t)snprintf(text + at, size - at, "; node %u resyncs, %llu of %llu regions left",
                                   d->config.replicas[k].nodeid, (unsigned long long)s.members[k].todo_regions,
                                   (unsigned long long)s.members[k].total_regions);
        else if (s.members[k].state == MIRROR_MEMBER_REFUSED)
            at += (size_t)snprintf(text + at, size - at, "; node %u is refused: %s", d->config.replicas[k].nodeid,
                                   s.members[k].refused == -ENODEV ? "it has another disk" : "its disk failed");
    }
}
