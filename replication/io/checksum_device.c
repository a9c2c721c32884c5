/* Happy path of a read: range -> pages of sums -> read below -> verify -> done. Of a write: range -> pages -> [edges of blocks
 * that it covers in part are read and verified] -> sums of its blocks -> write below -> sums take effect -> done. */
#include "replication/io/checksum_device.h"
#include "replication/core/range_lock.h"
#include "replication/io/checksum_store.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TRANSFER_MAX  (1u << 20)
#define ZEROES_MAX    (4u << 20) /* longest write of zeroes: bounds the pages that one request holds */
#define PAGES_MAX     (ZEROES_MAX / CHECKSUM_BLOCK_BYTES / CHECKSUM_PAGE_SUMS + 2)
#define BLOCKS_MAX    (TRANSFER_MAX / CHECKSUM_BLOCK_BYTES + 2)
#define REBUILD_BYTES (256u << 10)

enum step { STEP_EDGES, STEP_IO, STEP_FLUSH_SUMS, STEP_FLUSH_DATA };

struct operation {
    struct list link; /* free, or to be told, or granted */
    struct checksum_device *device;
    struct block_request *request; /* NULL: the rebuild */
    struct block_request lower;
    enum step step;
    bool barrier, pinned;
    unsigned edge, edges;
    struct range range;
    uint64_t first, count; /* blocks */
    struct sum_waiter waiter;
    struct sum_flush flush;
    struct sum_page *pages[PAGES_MAX];
    unsigned page_count;
    int status;
    struct iovec iov;
    uint8_t *bounce; /* of an unaligned read; edges of an unaligned write: two blocks */
    size_t bounce_bytes;
    uint32_t sums[BLOCKS_MAX];
};

struct checksum_device {
    struct block_device block;
    struct block_device *lower;
    uv_loop_t *loop;
    uv_idle_t teller;
    struct checksum_store store;
    struct range_lock ranges;
    struct list free, told, granted;
    unsigned busy;
    struct bitmap untrusted;
    uint32_t region_bytes;
    /* The rebuild: one region at a time, in pieces. */
    bool rebuilding, again; /* again: a write of the region failed meanwhile */
    bool singly;
    uint32_t region;
    uint64_t piece_offset;
    uint64_t errors, lost;
    bool closing, closed_lower;
    void (*closed)(void *context);
    void *context;
};

static void pages_next(struct operation *op);
static void rebuild_start(struct checksum_device *d);
static void close_advance(struct checksum_device *d);

/* ---- operations ------------------------------------------------------------------------------------------------- */

static void teller_turn(uv_idle_t *idle);

static void tell(struct checksum_device *d)
{
    if (!uv_is_active((uv_handle_t *)&d->teller))
        uv_idle_start(&d->teller, teller_turn);
}

static struct operation *operation_new(struct checksum_device *d, struct block_request *request)
{
    struct operation *op;
    if (list_empty(&d->free)) {
        op = calloc(1, sizeof(*op));
        ASSERT(op); /* as many as were ever under way at a time, then never again */
        op->device = d;
        list_init(&op->link);
    } else {
        op = list_first(&d->free, struct operation, link);
        list_remove(&op->link);
    }
    op->request = request;
    op->status = 0;
    op->page_count = 0;
    op->barrier = op->pinned = false;
    op->edge = op->edges = 0;
    d->busy++;
    return op;
}

static uint8_t *operation_bounce(struct operation *op, size_t bytes)
{
    if (op->bounce_bytes < bytes) {
        free(op->bounce);
        op->bounce = aligned_alloc(4096, bytes);
        op->bounce_bytes = op->bounce ? bytes : 0;
    }
    return op->bounce;
}

static void granted(void *context, struct range *range)
{
    struct checksum_device *d = context;
    list_append(&d->granted, &container_of(range, struct operation, range)->link);
}

static void run_granted(struct checksum_device *d)
{
    while (!list_empty(&d->granted)) {
        struct operation *op = list_first(&d->granted, struct operation, link);
        list_remove(&op->link);
        pages_next(op);
    }
}

static void rebuild_piece_done(struct checksum_device *d, struct operation *op);

/* Lets go of everything; its request is told on the next turn. */
static void operation_end(struct operation *op, int status)
{
    struct checksum_device *d = op->device;
    for (unsigned i = 0; i < op->page_count; i++)
        checksum_store_put(&d->store, op->pages[i]);
    op->page_count = 0;
    if (op->pinned)
        range_lock_remove(&d->ranges, &op->range, granted, d);
    op->pinned = false;
    op->status = status;
    if (op->request) {
        list_append(&d->told, &op->link);
        tell(d);
    } else {
        rebuild_piece_done(d, op);
    }
    run_granted(d);
}

static void teller_turn(uv_idle_t *idle)
{
    struct checksum_device *d = container_of(idle, struct checksum_device, teller);
    struct list told;
    uv_idle_stop(idle);
    list_init(&told);
    list_splice(&told, &d->told);
    while (!list_empty(&told)) {
        struct operation *op = list_first(&told, struct operation, link);
        struct block_request *request = op->request;
        list_remove(&op->link);
        request->status = op->status;
        list_append(&d->free, &op->link);
        d->busy--;
        request->done(request); /* may submit */
    }
    if (!d->rebuilding)
        rebuild_start(d);
    close_advance(d);
}

/* ---- sums ------------------------------------------------------------------------------------------------------------- */

static struct sum_page *page_of(struct operation *op, uint64_t block)
{
    return op->pages[checksum_page_of(block) - checksum_page_of(op->first)];
}

static bool trusted(const struct checksum_device *d, uint64_t block)
{
    return !d->untrusted.set || !bitmap_test(&d->untrusted, (uint32_t)(block * CHECKSUM_BLOCK_BYTES / d->region_bytes));
}

static void distrust(struct checksum_device *d, uint64_t first, uint64_t count)
{
    uint64_t blocks = d->block.geometry.size_bytes / CHECKSUM_BLOCK_BYTES;
    if (first >= blocks)
        return;
    count = MIN(count, blocks - first);
    uint32_t from = (uint32_t)(first * CHECKSUM_BLOCK_BYTES / d->region_bytes);
    uint32_t to = (uint32_t)(((first + count) * CHECKSUM_BLOCK_BYTES - 1) / d->region_bytes);
    for (uint32_t r = from; r <= to; r++) {
        (void)bitmap_set(&d->untrusted, r);
        if (d->rebuilding && r == d->region)
            d->again = true;
    }
    tell(d); /* the rebuild */
}

static void sums_lost(void *context, uint64_t first_block, uint32_t count)
{
    struct checksum_device *d = context;
    d->lost += count;
    distrust(d, first_block, count);
}

/* False: a block that is believed does not match. */
static bool verify(struct operation *op, uint64_t block, uint32_t count, const uint32_t *sums)
{
    struct checksum_device *d = op->device;
    bool good = true;
    for (uint32_t i = 0; i < count; i++)
        if (trusted(d, block + i) && checksum_page_get(page_of(op, block + i)->bytes, block + i) != sums[i]) {
            d->errors++;
            good = false;
        }
    return good;
}

static void sums_set(struct operation *op, uint64_t block, uint64_t count, const uint32_t *sums)
{
    for (uint64_t i = 0; i < count; i++) {
        struct sum_page *page = page_of(op, block + i);
        checksum_page_set(page->bytes, block + i, sums ? sums[i] : 0);
        checksum_store_changed(&op->device->store, page);
    }
}

/* ---- below ------------------------------------------------------------------------------------------------------------- */

static void lower_done(struct block_request *request);

static void lower_submit(struct operation *op, enum block_operation operation, uint32_t flags, uint64_t offset, uint64_t length,
                         const struct iovec *iov, unsigned iov_count)
{
    op->lower = (struct block_request){.operation = operation, .flags = flags, .offset_bytes = offset, .length_bytes = length,
                                       .iov = iov, .iov_count = iov_count, .done = lower_done};
    block_device_submit(op->device->lower, &op->lower);
}

static uint64_t request_offset(const struct operation *op)
{
    return op->request ? op->request->offset_bytes : op->first * CHECKSUM_BLOCK_BYTES;
}

static uint64_t request_length(const struct operation *op)
{
    return op->request ? op->request->length_bytes : op->count * CHECKSUM_BLOCK_BYTES;
}

static bool aligned(const struct operation *op)
{
    return (request_offset(op) | request_length(op)) % CHECKSUM_BLOCK_BYTES == 0;
}

static bool is_write(const struct operation *op)
{
    return op->request && op->request->operation != BLOCK_READ;
}

/* Block that edge i is about: the first, and the last when that is another one and covered in part too. */
static uint64_t edge_block(const struct operation *op, unsigned edge)
{
    bool head = request_offset(op) % CHECKSUM_BLOCK_BYTES;
    return edge == 0 && (head || op->count == 1) ? op->first : op->first + op->count - 1;
}

static void edges_read(struct operation *op)
{
    op->iov = (struct iovec){op->bounce + (size_t)op->edge * CHECKSUM_BLOCK_BYTES, CHECKSUM_BLOCK_BYTES};
    lower_submit(op, BLOCK_READ, 0, edge_block(op, op->edge) * CHECKSUM_BLOCK_BYTES, CHECKSUM_BLOCK_BYTES, &op->iov, 1);
}

static void copy_out(const struct iovec *iov, unsigned iov_count, uint64_t skip, uint8_t *to, size_t bytes, bool back)
{
    for (unsigned i = 0; i < iov_count && bytes; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t piece = MIN(bytes, iov[i].iov_len - skip);
        uint8_t *theirs = (uint8_t *)iov[i].iov_base + skip;
        memcpy(back ? theirs : to, back ? to : theirs, piece);
        to += piece;
        bytes -= piece;
        skip = 0;
    }
}

/* The sum that an edge block will have: the old bytes with the request's on top. */
static void edge_sum(struct operation *op, unsigned edge)
{
    uint64_t block = edge_block(op, edge), begin = block * CHECKSUM_BLOCK_BYTES;
    uint64_t from = MAX(begin, op->request->offset_bytes);
    uint64_t to = MIN(begin + CHECKSUM_BLOCK_BYTES, op->request->offset_bytes + op->request->length_bytes);
    uint8_t *bytes = op->bounce + (size_t)edge * CHECKSUM_BLOCK_BYTES;
    if (op->request->iov)
        copy_out(op->request->iov, op->request->iov_count, from - op->request->offset_bytes, bytes + (from - begin),
                 (size_t)(to - from), false);
    else
        memset(bytes + (from - begin), 0, (size_t)(to - from));
    if (op->request->iov)
        op->sums[block - op->first] = checksum_block(bytes);
    else
        op->sums[edge] = checksum_block(bytes);
}

static void io_start(struct operation *op)
{
    const struct block_request *request = op->request;
    op->step = STEP_IO;
    if (is_write(op)) {
        if (request->iov) { /* sums of the blocks that it covers whole */
            uint64_t head = (CHECKSUM_BLOCK_BYTES - request->offset_bytes % CHECKSUM_BLOCK_BYTES) % CHECKSUM_BLOCK_BYTES;
            uint64_t whole = request->length_bytes > head ? (request->length_bytes - head) / CHECKSUM_BLOCK_BYTES : 0;
            checksum_blocks(request->iov, request->iov_count, head, (uint32_t)whole, op->sums + (head ? 1 : 0));
        }
        for (unsigned edge = 0; edge < op->edges; edge++)
            edge_sum(op, edge);
        lower_submit(op, request->operation, request->flags, request->offset_bytes, request->length_bytes, request->iov,
                     request->iov_count);
        return;
    }
    if (request && aligned(op)) {
        lower_submit(op, BLOCK_READ, 0, request->offset_bytes, request->length_bytes, request->iov, request->iov_count);
        return;
    }
    size_t bytes = (size_t)op->count * CHECKSUM_BLOCK_BYTES;
    if (!operation_bounce(op, bytes)) {
        operation_end(op, -ENOMEM);
        return;
    }
    op->iov = (struct iovec){op->bounce, bytes};
    lower_submit(op, BLOCK_READ, 0, op->first * CHECKSUM_BLOCK_BYTES, bytes, &op->iov, 1);
}

static void io_begin(struct operation *op)
{
    if (!is_write(op) || aligned(op)) {
        io_start(op);
        return;
    }
    bool head = op->request->offset_bytes % CHECKSUM_BLOCK_BYTES;
    bool tail = (op->request->offset_bytes + op->request->length_bytes) % CHECKSUM_BLOCK_BYTES;
    op->edges = op->count == 1 ? 1 : (unsigned)head + tail;
    op->edge = 0;
    op->step = STEP_EDGES;
    if (!operation_bounce(op, 2 * CHECKSUM_BLOCK_BYTES)) {
        operation_end(op, -ENOMEM);
        return;
    }
    edges_read(op);
}

/* One page after the other; all of them are held when the I/O begins. */
static void page_ready(struct sum_waiter *waiter, struct sum_page *page, int status)
{
    struct operation *op = container_of(waiter, struct operation, waiter);
    if (status < 0) {
        operation_end(op, status); /* without sums neither read nor written: another member is as good */
        return;
    }
    op->pages[op->page_count++] = page;
    pages_next(op);
}

static void pages_next(struct operation *op)
{
    struct checksum_store *store = &op->device->store;
    uint64_t first = checksum_page_of(op->first), last = checksum_page_of(op->first + op->count - 1);
    while (first + op->page_count <= last) {
        op->waiter.ready = page_ready;
        struct sum_page *page = checksum_store_get(store, first + op->page_count, &op->waiter);
        if (!page)
            return;
        op->pages[op->page_count++] = page;
    }
    io_begin(op);
}

/* ---- what came back ------------------------------------------------------------------------------------------------------ */

static void edge_done(struct operation *op)
{
    uint64_t block = edge_block(op, op->edge);
    uint32_t sum = checksum_block(op->bounce + (size_t)op->edge * CHECKSUM_BLOCK_BYTES);
    if (op->lower.status < 0 || !verify(op, block, 1, &sum)) {
        operation_end(op, op->lower.status < 0 ? op->lower.status : -EBADMSG); /* the rest of the block is not known */
        return;
    }
    if (++op->edge < op->edges)
        edges_read(op);
    else
        io_start(op);
}

static void read_done(struct operation *op)
{
    const struct block_request *request = op->request;
    int status = op->lower.status;
    bool bounced = !request || !aligned(op);
    if (status == 0)
        checksum_blocks(bounced ? &op->iov : request->iov, bounced ? 1 : request->iov_count, 0, (uint32_t)op->count, op->sums);
    if (status == 0 && !request) {
        sums_set(op, op->first, op->count, op->sums); /* S2: made anew */
    } else if (status == 0 && !verify(op, op->first, (uint32_t)op->count, op->sums)) {
        status = -EBADMSG;
    } else if (status == 0 && bounced) {
        copy_out(request->iov, request->iov_count, 0, op->bounce + request->offset_bytes % CHECKSUM_BLOCK_BYTES,
                 (size_t)request->length_bytes, true);
    }
    operation_end(op, status);
}

static void write_done(struct operation *op)
{
    int status = op->lower.status;
    if (status < 0) {
        distrust(op->device, op->first, op->count);
    } else if (op->request->iov) {
        sums_set(op, op->first, op->count, op->sums);
    } else { /* zeroes */
        sums_set(op, op->first, op->count, NULL);
        for (unsigned edge = 0; edge < op->edges; edge++)
            sums_set(op, edge_block(op, edge), 1, &op->sums[edge]);
    }
    operation_end(op, status);
}

static void lower_done(struct block_request *request)
{
    struct operation *op = container_of(request, struct operation, lower);
    if (op->step == STEP_EDGES)
        edge_done(op);
    else if (op->step == STEP_FLUSH_DATA)
        operation_end(op, op->lower.status);
    else if (is_write(op))
        write_done(op);
    else
        read_done(op);
}

/* ---- flushes ------------------------------------------------------------------------------------------------------------- */

static void sums_flushed(struct sum_flush *flush, int status)
{
    struct operation *op = container_of(flush, struct operation, flush);
    if (status < 0) {
        operation_end(op, status);
        return;
    }
    op->step = STEP_FLUSH_DATA;
    lower_submit(op, BLOCK_FLUSH, 0, 0, 0, NULL, 0);
}

void checksum_device_barrier(struct block_device *device, struct block_request *request)
{
    struct checksum_device *d = container_of(device, struct checksum_device, block);
    struct operation *op = operation_new(d, request);
    op->barrier = true;
    if (d->untrusted.set) {
        operation_end(op, -EAGAIN); /* S2: their intent bits are still needed */
        return;
    }
    op->step = STEP_FLUSH_SUMS;
    op->flush.done = sums_flushed;
    checksum_store_flush(&d->store, &op->flush);
}

/* ---- sums made anew (S2) --------------------------------------------------------------------------------------------------- */

static uint64_t region_end(const struct checksum_device *d)
{
    return MIN((uint64_t)(d->region + 1) * d->region_bytes, d->block.geometry.size_bytes);
}

static void rebuild_piece(struct checksum_device *d)
{
    uint64_t most = d->singly ? CHECKSUM_BLOCK_BYTES : REBUILD_BYTES;
    struct operation *op = operation_new(d, NULL);
    op->first = d->piece_offset / CHECKSUM_BLOCK_BYTES;
    op->count = MIN(most, region_end(d) - d->piece_offset) / CHECKSUM_BLOCK_BYTES;
    op->range = (struct range){0};
    op->range.offset_bytes = d->piece_offset;
    op->range.length_bytes = op->count * CHECKSUM_BLOCK_BYTES;
    op->range.exclusive = true;
    op->pinned = true;
    if (range_lock_add(&d->ranges, &op->range))
        pages_next(op);
}

static void rebuild_start(struct checksum_device *d)
{
    if (!d->untrusted.set || d->closing)
        return;
    d->region = bitmap_next(&d->untrusted, 0);
    d->piece_offset = (uint64_t)d->region * d->region_bytes;
    d->rebuilding = true;
    d->again = d->singly = false;
    rebuild_piece(d);
}

static void rebuild_piece_done(struct checksum_device *d, struct operation *op)
{
    uint64_t next = (op->first + op->count) * CHECKSUM_BLOCK_BYTES;
    bool failed = op->status < 0;
    uint64_t count = op->count;
    list_append(&d->free, &op->link);
    d->busy--;
    if (failed && count > 1 && !d->closing) {
        d->singly = true; /* find the block that cannot be read; its sum stays what it was */
        rebuild_piece(d);
        return;
    }
    if (next % REBUILD_BYTES == 0)
        d->singly = false;
    d->piece_offset = next;
    if (!d->closing && next < region_end(d)) {
        rebuild_piece(d);
        return;
    }
    d->rebuilding = false;
    if (!d->closing && !d->again)
        (void)bitmap_clear(&d->untrusted, d->region);
    tell(d); /* the next one */
}

/* ---- block device --------------------------------------------------------------------------------------------------------- */

static void device_submit(struct block_device *block, struct block_request *request)
{
    struct checksum_device *d = container_of(block, struct checksum_device, block);
    struct operation *op = operation_new(d, request);
    int result = d->closing ? -ECANCELED : block_request_check(block, request);
    if (result == 0 && request->operation == BLOCK_FLUSH) {
        op->step = STEP_FLUSH_DATA;
        lower_submit(op, BLOCK_FLUSH, 0, 0, 0, NULL, 0);
        return;
    }
    bool bytes = request->operation == BLOCK_READ || request->operation == BLOCK_WRITE;
    if (result == 0 && (request->operation == BLOCK_COMPARE_AND_WRITE ||
                        (request->operation == BLOCK_UNMAP && !(block->geometry.capabilities & BLOCK_CAP_UNMAP))))
        result = -ENOTSUP;
    else if (result == 0 &&
             request->length_bytes > (bytes ? block->geometry.max_transfer_bytes : block->geometry.max_unmap_bytes))
        result = -EINVAL;
    if (result < 0) {
        operation_end(op, result);
        return;
    }
    uint64_t end = request->offset_bytes + request->length_bytes;
    op->range = (struct range){0};
    op->first = request->offset_bytes / CHECKSUM_BLOCK_BYTES;
    op->count = (end + CHECKSUM_BLOCK_BYTES - 1) / CHECKSUM_BLOCK_BYTES - op->first;
    op->range.offset_bytes = op->first * CHECKSUM_BLOCK_BYTES;
    op->range.length_bytes = op->count * CHECKSUM_BLOCK_BYTES;
    op->range.exclusive = request->operation != BLOCK_READ;
    op->pinned = true;
    if (range_lock_add(&d->ranges, &op->range))
        pages_next(op);
}

static void handle_closed(uv_handle_t *handle)
{
    struct checksum_device *d = handle->data;
    void (*closed)(void *context) = d->closed;
    void *context = d->context;
    checksum_store_close(&d->store);
    while (!list_empty(&d->free)) {
        struct operation *op = list_first(&d->free, struct operation, link);
        list_remove(&op->link);
        free(op->bounce);
        free(op);
    }
    bitmap_done(&d->untrusted);
    free(d);
    if (closed)
        closed(context);
}

static void lower_closed(void *context)
{
    struct checksum_device *d = context;
    d->teller.data = d;
    uv_close((uv_handle_t *)&d->teller, handle_closed);
}

static void close_advance(struct checksum_device *d)
{
    if (!d->closing || d->closed_lower || d->busy || checksum_store_busy(&d->store))
        return;
    d->closed_lower = true;
    block_device_close(d->lower, lower_closed, d);
}

static void store_quiet(void *context)
{
    struct checksum_device *d = context;
    if (d->closing)
        tell(d);
}

static void device_close(struct block_device *block, void (*closed)(void *context), void *context)
{
    struct checksum_device *d = container_of(block, struct checksum_device, block);
    ASSERT(!d->closing);
    d->closing = true;
    d->closed = closed;
    d->context = context;
    tell(d);
}

/* The data below have grown: by zeroes, whose sums are implied. The regions here stay as large as they were. */
static int device_refresh(struct block_device *block)
{
    struct checksum_device *d = container_of(block, struct checksum_device, block);
    int result = d->lower->operations->refresh ? block_device_refresh(d->lower) : 0;
    uint64_t size_bytes = d->lower->geometry.size_bytes;
    if (result < 0 || size_bytes % CHECKSUM_BLOCK_BYTES || size_bytes < block->geometry.size_bytes)
        return result < 0 ? result : -EINVAL;
    result = bitmap_rescale(&d->untrusted, (uint32_t)((size_bytes + d->region_bytes - 1) / d->region_bytes), 1);
    if (result == 0)
        block->geometry.size_bytes = size_bytes;
    return result;
}

static const struct block_device_operations operations = {.submit = device_submit, .close = device_close,
                                                          .refresh = device_refresh};

int checksum_device_open(uv_loop_t *loop, const struct checksum_device_options *options, struct block_device **ret_device,
                         struct error *error)
{
    const struct block_geometry *below = &options->lower->geometry;
    struct checksum_device *d = calloc(1, sizeof(*d));
    bool known = false;
    if (!d)
        return error_set(error, -ENOMEM, "no memory for checksums %s", options->path);
    if (below->size_bytes % CHECKSUM_BLOCK_BYTES) {
        free(d);
        return error_set(error, -EINVAL, "checksums %s need a disk of whole blocks of 4 KiB", options->path);
    }
    d->region_bytes = options->region_bytes;
    uint32_t regions = (uint32_t)((below->size_bytes + d->region_bytes - 1) / d->region_bytes);
    int result = bitmap_init(&d->untrusted, regions);
    if (result < 0)
        result = error_set(error, result, "no memory for checksums %s", options->path);
    if (result == 0)
        result = checksum_store_open(&d->store, loop, options->path, &options->header, options->cache_pages, &known, error);
    if (result < 0) {
        bitmap_done(&d->untrusted);
        free(d);
        return result;
    }
    d->store.context = d;
    d->store.damaged = sums_lost;
    d->store.quiet = store_quiet;
    if (!known)
        bitmap_fill(&d->untrusted);
    for (uint32_t r = 0; known && options->intent && !options->planted_trust && r < MIN(regions, options->intent->bits); r++)
        if (bitmap_test(options->intent, r))
            (void)bitmap_set(&d->untrusted, r);
    d->lower = options->lower;
    d->loop = loop;
    range_lock_init(&d->ranges);
    list_init(&d->free);
    list_init(&d->told);
    list_init(&d->granted);
    uv_idle_init(loop, &d->teller);
    d->block.operations = &operations;
    d->block.kind = "checksum";
    d->block.geometry = *below;
    d->block.geometry.physical_bytes = MAX(below->physical_bytes, CHECKSUM_BLOCK_BYTES);
    d->block.geometry.max_transfer_bytes = MIN(below->max_transfer_bytes ? below->max_transfer_bytes : TRANSFER_MAX, TRANSFER_MAX);
    d->block.geometry.max_unmap_bytes = MIN(below->max_unmap_bytes ? below->max_unmap_bytes : ZEROES_MAX, ZEROES_MAX);
    d->block.geometry.capabilities &= ~(uint32_t)BLOCK_CAP_COMPARE_AND_WRITE;
    if (!(below->capabilities & BLOCK_CAP_UNMAP_ZEROES)) /* what cannot be known has no sum */
        d->block.geometry.capabilities &= ~(uint32_t)BLOCK_CAP_UNMAP;
    *ret_device = &d->block;
    if (d->untrusted.set)
        tell(d);
    return 0;
}

void checksum_device_get_status(const struct block_device *device, struct checksum_device_status *ret_status)
{
    const struct checksum_device *d = container_of(device, const struct checksum_device, block);
    *ret_status = (struct checksum_device_status){
        .errors = d->errors,
        .lost = d->lost,
        .rebuild_regions = d->untrusted.set,
        .page_reads = d->store.reads,
        .page_writes = d->store.writes,
    };
}
