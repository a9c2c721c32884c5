/* The block device above: requests in, completions told. */
#include "replication/io/mirror_device_private.h"

void device_request_try_finish(struct device_request *r)
{
    struct mirror_device *d = r->device;
    if (!r->completed || r->disk_operations || (r->data && !r->data_gone))
        return;
    r->completed = false; /* once */
    r->next = NULL;
    *d->told_end = r;
    d->told_end = &r->next;
    device_tell(d);
}

void device_request_data_released(void *context)
{
    struct device_request *r = context;
    r->data_gone = true;
    device_request_try_finish(r);
}

void device_request_complete(struct device_request *r, int status)
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
    device_request_try_finish(r);
}

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
    if (d->requests_busy++ == 0)
        list_append(&d->options.pulses->busy, &d->busy);
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
        r->data = data_wrap(&d->pool, request->iov, request->iov_count, device_request_data_released, r);
        result = r->data ? 0 : -ENOMEM;
    }
    if (result < 0) {
        device_request_complete(r, result);
        return;
    }
    r->request.data.handle = r->data;
    device_run(d, false, &(struct mirror_event){.type = MIRROR_EVENT_REQUEST, .request = &r->request});
}

static void device_close(struct block_device *block, void (*closed)(void *context), void *context)
{
    mirror_device_close(container_of(block, struct mirror_device, block), closed, context);
}

const struct block_device_operations device_operations = {.submit = device_submit, .close = device_close};

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

static bool operations_zero(void *context, struct mirror_data data, uint64_t bytes)
{
    (void)context;
    return data_is_zero(data.handle, data.offset, bytes);
}

static void operations_digest(void *context, struct mirror_data digests, uint32_t index,
                              uint8_t ret_digest[MIRROR_DIGEST_BYTES])
{
    const struct data *data = digests.handle;
    size_t offset = digests.offset + (size_t)index * MIRROR_DIGEST_BYTES;
    (void)context;
    ASSERT(data->iov_count == 1 && offset + MIRROR_DIGEST_BYTES <= data->iov[0].iov_len);
    memcpy(ret_digest, (const uint8_t *)data->iov[0].iov_base + offset, MIRROR_DIGEST_BYTES);
}

const struct mirror_data_operations device_data_operations = {
    .alloc = operations_alloc, .copy = operations_copy, .equal = operations_equal, .zero = operations_zero,
    .digest = operations_digest};
