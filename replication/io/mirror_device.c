/* Opening, the agent's side, closing. */
#include "replication/io/checksum_device.h"
#include "replication/io/mirror_device_private.h"
#include <time.h>
#include <unistd.h>

uint64_t mirror_clock_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void metadata_written(struct metadata_file *file, int status)
{
    struct mirror_device *d = container_of(file, struct mirror_device, metadata);
    struct mirror_event event = {.type = MIRROR_EVENT_META_DONE};
    event.meta_status = status;
    d->metadata_writes++;
    device_run(d, true, &event);
    if (d->closing)
        device_tell(d);
}

/* Which boot of the machine this is: another one means that volatile caches are gone. All zero where the kernel does not tell: then
 * no loss of a cache is ever seen, so such a machine should not use write-back. */
static struct uuid machine_boot(void)
{
    struct uuid uuid = {0};
    char text[64] = "";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!file)
        return uuid;
    if (fgets(text, sizeof(text), file))
        text[strcspn(text, "\n")] = '\0';
    fclose(file);
    return uuid_parse(text, &uuid) == 0 ? uuid : (struct uuid){0};
}

/* Put the filter between the replica and its data, or see that none of another time is left. */
static int device_open_checksum(struct mirror_device *d, const struct metadata_header *header, const uint8_t *image,
                                uint64_t bytes, struct error *error)
{
    struct mirror_device_options *o = &d->options;
    char path[4096];
    struct bitmap intent;
    mirror_replica_sums_path(o->metadata_path, path, sizeof(path));
    if (!o->checksum) /* sums that are not kept up would condemn good data one day */
        return unlink(path) < 0 && errno != ENOENT
                   ? error_set(error, -errno, "cannot remove checksums %s: %s", path, strerror(errno)) : 0;
    if (bitmap_init(&intent, metadata_regions(header)) < 0)
        return error_set(error, -ENOMEM, "no memory for checksums %s", path);
    (void)metadata_bitmap_decode(image, bytes, METADATA_INTENT, header->incarnation, &intent);
    struct checksum_device_options options = {
        .lower = o->data, .path = path, .region_bytes = header->region_bytes, .intent = &intent,
        .header = {.volume_uuid = header->volume_uuid, .incarnation = header->incarnation},
    };
    int result = checksum_device_open(d->loop, &options, &d->checksum, error);
    bitmap_done(&intent);
    if (result == 0)
        o->data = d->checksum;
    return result;
}

static int device_open_replica(struct mirror_device *d, struct error *error)
{
    const struct mirror_device_options *o = &d->options;
    const struct block_geometry *disk = &o->data->geometry;
    struct replica_parameters parameters = {.volume = o->volume, .zero = device_data_operations.zero, .nodeid = o->nodeid, .boot = o->boot,
                                            .now_us = mirror_clock_us(), .data_bytes = disk->size_bytes,
                                            .intent_clear_us = o->intent_clear_ms * 1000ull,
                                            .barrier = o->checksum,
                                            .machine = o->machine ? *o->machine : machine_boot()};
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
             header.size_bytes > o->size_bytes) /* a smaller one is made larger when an owner comes */
        result = error_set(error, -EMEDIUMTYPE, "replica metadata %s belongs to another volume or size", o->metadata_path);
    else if ((result = replica_new(&parameters, image, bytes, &d->replica)) < 0)
        result = error_set(error, result, "replica metadata %s: %s", o->metadata_path, strerror(-result));
    else
        result = device_open_checksum(d, &header, image, bytes, error);
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
    list_init(&d->busy);
    d->frames_end = &d->frames;
    d->told_end = &d->told_first;
    struct mirror_parameters parameters = {
        .volume = options->volume,
        .size_bytes = options->size_bytes,
        .region_bytes = metadata_region_bytes(options->size_bytes),
        .nodeid = options->nodeid,
        .boot = options->boot,
        .now_us = mirror_clock_us(),
        .data = device_data_operations,
        .requests_max = options->requests_max,
        .member_timeout_us = options->member_timeout_us,
    };
    parameters.data.context = d;
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
    d->now_us = mirror_clock_us();
    device_timer_set(d);
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

void device_close_advance(struct mirror_device *d)
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
    device_tell(d);
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
    if (config->size_bytes > d->block.geometry.size_bytes)
        d->block.geometry.size_bytes = config->size_bytes; /* requests beyond the old end wait until all are sealed */
    if (config->policy.write_back)
        d->block.geometry.capabilities |= BLOCK_CAP_WRITE_CACHE;
    else
        d->block.geometry.capabilities &= ~(uint32_t)BLOCK_CAP_WRITE_CACHE;
    device_run(d, false, &(struct mirror_event){.type = MIRROR_EVENT_CONFIG, .config = &d->config});
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

void mirror_device_node_dead(struct mirror_device *d, uint16_t nodeid, uint64_t boot)
{
    if (!d->closing && nodeid != d->options.nodeid)
        device_run_both(d, &(struct mirror_event){.type = MIRROR_EVENT_NODE_DEAD, .nodeid = nodeid, .boot = boot});
}

void mirror_device_data_grown(struct mirror_device *d)
{
    if (d->checksum)
        IGNORE_RESULT(block_device_refresh(d->checksum));
    if (d->replica)
        replica_set_room(d->replica, d->options.data->geometry.size_bytes);
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
