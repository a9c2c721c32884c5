/* The data device below: an operation of the replica, in pieces as its geometry wants. */
#include "replication/io/checksum_device.h"
#include "replication/io/mirror_device_private.h"

#define SPARSE_UNIT 4096u /* files have holes of whole blocks of this size */

static void disk_done(struct block_request *request);

static void disk_next(struct disk_operation *op)
{
    struct mirror_device *d = op->device;
    struct block_device *disk = d->options.data;
    uint64_t left = op->length - op->done;
    struct block_request *request = &op->request;
    uint64_t most = disk->geometry.max_transfer_bytes ? disk->geometry.max_transfer_bytes : MAX_TRANSFER;
    request->operation = op->operation;
    request->flags = op->operation == BLOCK_READ || op->operation == BLOCK_FLUSH ? 0 : op->flags;
    request->iov = NULL;
    request->iov_count = 0;
    if (op->operation == BLOCK_WRITE_ZEROES) {
        op->emulate = op->emulate || !(disk->geometry.capabilities & BLOCK_CAP_WRITE_ZEROES);
        most = disk->geometry.max_unmap_bytes ? disk->geometry.max_unmap_bytes : MAX_ZEROES;
    }
    op->piece = MIN(left, most);
    bool zero = false;
    if (op->sparse)
        op->piece = data_zero_run(op->data, op->data_offset + op->done, op->piece, SPARSE_UNIT, &zero);
    if (zero) {
        request->operation = BLOCK_WRITE_ZEROES;
        request->flags = (op->flags & BLOCK_FUA) | BLOCK_MAY_UNMAP;
    } else if (op->operation == BLOCK_WRITE_ZEROES && op->emulate) {
        op->piece = MIN(op->piece, ZERO_PIECE);
        request->operation = BLOCK_WRITE;
        request->flags = op->flags & BLOCK_FUA;
        op->iov[0] = (struct iovec){d->zeroes, op->piece};
        request->iov = op->iov;
        request->iov_count = 1;
    } else if (op->operation != BLOCK_WRITE_ZEROES && op->operation != BLOCK_FLUSH) {
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
    if (op->operation == BLOCK_FLUSH && op->barrier && d->checksum)
        checksum_device_barrier(d->checksum, request);
    else
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
        device_request_try_finish(original);
    }
    device_run(d, true, &event);
    if (d->closing)
        device_tell(d);
}

static void disk_done(struct block_request *request)
{
    struct disk_operation *op = container_of(request, struct disk_operation, request);
    if (request->status == -ENOTSUP && op->sparse) {
        op->sparse = false;
        disk_next(op);
        return;
    }
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

void device_disk_start(struct mirror_device *d, const struct mirror_effect *effect)
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
    op->barrier = effect->disk.flags & MIRROR_FLUSH_BARRIER;
    op->flags = effect->disk.flags & (BLOCK_FUA | (op->operation == BLOCK_WRITE_ZEROES ? BLOCK_MAY_UNMAP : 0));
    op->sparse = op->operation == BLOCK_WRITE && effect->disk.flags & BLOCK_MAY_UNMAP &&
                 d->options.data->geometry.capabilities & BLOCK_CAP_WRITE_ZEROES;
    op->offset = effect->disk.offset_bytes;
    op->length = effect->disk.length_bytes;
    op->done = 0;
    op->emulate = op->brought = false;
    op->data = effect->disk.data.handle;
    op->data_offset = effect->disk.data.offset;
    op->original = NULL;
    if (!op->data && (op->operation == BLOCK_READ || op->operation == BLOCK_WRITE)) {
        op->data = data_new(&d->pool, op->length);
        ASSERT(op->data);
        op->brought = true;
    } else if (op->data) {
        data_ref(op->data);
        if (op->data->released == device_request_data_released) {
            op->original = op->data->context;
            op->original->disk_operations++;
        }
    }
    d->disk_busy++;
    disk_next(op);
}
