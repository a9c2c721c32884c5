/* Life of a request: file_submit -> one file_op -> one or several pieces, each an operation of the ring -> done.
 *
 * A read or write is one piece unless its buffers are not aligned as O_DIRECT wants them (then pieces go through a bounce
 * buffer), it has more than IOV_MAX buffers, or the kernel did a part only. Zeroes are one fallocate, followed by a sync
 * for FUA, or pieces of zero writes where the file system cannot. On a file system in memory reads and writes are plain
 * system calls in the next turn of the loop. Errors: the first one ends the request; a write may
 * then have been carried out in part, as the contract allows for a write that failed. */
#include "plugins/file/device.h"
#include "plugins/common/completion.h"
#include "plugins/file/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILE_MAX_TRANSFER (1u << 20)
#define FILE_ZERO_BYTES   (64u << 10)
#define FILE_OP_IOVECS    16u
#define FILE_RETRIES      8u

struct file_device {
    struct block_device device;
    struct file_setup setup;
    struct ring *ring;
    struct pool ops;
    struct completion_queue completions;
    unsigned held;
    bool no_zero_range; /* learned: the file system cannot */
    bool no_punch;
    bool closing;
    void (*closed)(void *context);
    void *closed_context;
};

enum file_step { STEP_TRANSFER, STEP_FLUSH, STEP_PUNCH, STEP_ZERO_RANGE, STEP_ZERO_WRITE };

struct file_op {
    struct ring_op ring_op;
    struct file_device *file;
    struct block_request *request;
    enum file_step step;
    uint64_t transferred;
    unsigned retries;
    void *bounce;
    size_t bounce_bytes;
    const struct iovec *iov; /* the piece under way */
    unsigned iov_count;
    struct iovec own_iov[FILE_OP_IOVECS];
};

/* Never written. */
static uint8_t file_zeroes[FILE_ZERO_BYTES] __attribute__((aligned(4096)));

static void file_op_next(struct file_op *op);
static void file_close_when_idle(struct file_device *file);

static void file_op_complete(struct file_op *op, int status)
{
    struct file_device *file = op->file;
    struct block_request *request = op->request;
    if (op->bounce)
        ring_buffer_put(file->ring, op->bounce, op->bounce_bytes);
    pool_put(&file->ops, op);
    request->status = status;
    request->done(request);
    file->held--; /* after done: a close called inside it must not free the device under us */
    file_close_when_idle(file);
}

/* What the contract has for an errno of the system. */
static int file_status(int result)
{
    switch (result) {
    case -ENOSPC:
    case -EDQUOT:
    case -EFBIG:
        return -ENOSPC;
    case -ENOMEM:
        return -ENOMEM;
    case -EOPNOTSUPP:
        return -ENOTSUP;
    default:
        return -EIO;
    }
}

/* Copy between the request's buffers, from byte skip on, and the bounce buffer. */
static void file_op_bounce(struct file_op *op, uint64_t skip, uint64_t length, bool to_request)
{
    uint8_t *bounce = op->bounce;
    for (unsigned i = 0; i < op->request->iov_count && length; i++) {
        const struct iovec *iov = &op->request->iov[i];
        if (skip >= iov->iov_len) {
            skip -= iov->iov_len;
            continue;
        }
        uint64_t piece = MIN(iov->iov_len - skip, length);
        uint8_t *buffer = (uint8_t *)iov->iov_base + skip;
        memcpy(to_request ? buffer : bounce, to_request ? bounce : buffer, piece);
        bounce += piece;
        length -= piece;
        skip = 0;
    }
}

static bool file_iov_aligned(const struct file_device *file, const struct iovec *iov, unsigned count)
{
    uintptr_t memory_mask = file->setup.memory_alignment - 1, length_mask = file->setup.offset_alignment - 1;
    uintptr_t memory = 0, length = 0;
    for (unsigned i = 0; i < count; i++) {
        memory |= (uintptr_t)iov[i].iov_base;
        length |= iov[i].iov_len;
    }
    return !(memory & memory_mask) && !(length & length_mask);
}

/* Choose the next piece of a read or write. 0 or -ENOMEM. */
static int file_op_piece(struct file_op *op)
{
    struct file_device *file = op->file;
    const struct block_request *request = op->request;
    if (!op->bounce && op->transferred == 0 && request->iov_count <= IOV_MAX &&
        file_iov_aligned(file, request->iov, request->iov_count)) {
        op->iov = request->iov;
        op->iov_count = request->iov_count;
        return 0;
    }
    op->iov = op->own_iov;
    if (!op->bounce && file_iov_aligned(file, request->iov, request->iov_count)) {
        uint64_t skip = op->transferred;
        op->iov_count = 0;
        for (unsigned i = 0; i < request->iov_count && op->iov_count < FILE_OP_IOVECS; i++) {
            if (skip >= request->iov[i].iov_len) {
                skip -= request->iov[i].iov_len;
                continue;
            }
            op->own_iov[op->iov_count++] = (struct iovec){.iov_base = (uint8_t *)request->iov[i].iov_base + skip,
                                                          .iov_len = request->iov[i].iov_len - skip};
            skip = 0;
        }
        return op->iov_count ? 0 : -EIO;
    }
    uint64_t left = request->length_bytes - op->transferred;
    if (!op->bounce)
        op->bounce = ring_buffer_get(file->ring, MIN(left, FILE_MAX_TRANSFER), &op->bounce_bytes);
    if (!op->bounce)
        return -ENOMEM;
    uint64_t piece = MIN(left, op->bounce_bytes);
    if (request->operation == BLOCK_WRITE)
        file_op_bounce(op, op->transferred, piece, false);
    op->own_iov[0] = (struct iovec){.iov_base = op->bounce, .iov_len = piece};
    op->iov_count = 1;
    return 0;
}

static void file_op_zero_piece(struct file_op *op)
{
    uint64_t left = op->request->length_bytes - op->transferred;
    op->iov = op->own_iov;
    for (op->iov_count = 0; op->iov_count < FILE_OP_IOVECS && left; op->iov_count++) {
        uint64_t piece = MIN(left, FILE_ZERO_BYTES);
        op->own_iov[op->iov_count] = (struct iovec){.iov_base = file_zeroes, .iov_len = piece};
        left -= piece;
    }
}

static void file_op_prepare(struct ring_op *ring_op, struct io_uring_sqe *entry)
{
    struct file_op *op = container_of(ring_op, struct file_op, ring_op);
    const struct block_request *request = op->request;
    int fd = op->file->setup.fd;
    uint64_t offset = request->offset_bytes + op->transferred;
    switch (op->step) {
    case STEP_TRANSFER:
    case STEP_ZERO_WRITE:
        if (request->operation == BLOCK_READ)
            io_uring_prep_readv(entry, fd, op->iov, op->iov_count, offset);
        else
            io_uring_prep_writev2(entry, fd, op->iov, op->iov_count, offset,
                                  request->flags & BLOCK_FUA ? RWF_DSYNC : 0);
        break;
    case STEP_FLUSH:
        io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC);
        break;
    case STEP_PUNCH:
        io_uring_prep_fallocate(entry, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                                (off_t)request->length_bytes);
        break;
    case STEP_ZERO_RANGE:
        io_uring_prep_fallocate(entry, fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                                (off_t)request->length_bytes);
        break;
    }
}

static int file_op_perform(struct ring_op *ring_op)
{
    struct file_op *op = container_of(ring_op, struct file_op, ring_op);
    const struct block_request *request = op->request;
    int fd = op->file->setup.fd;
    off_t offset = (off_t)(request->offset_bytes + op->transferred);
    ssize_t result;
    if (op->iov_count == 1)
        result = request->operation == BLOCK_READ ? pread(fd, op->iov[0].iov_base, op->iov[0].iov_len, offset)
                                                  : pwrite(fd, op->iov[0].iov_base, op->iov[0].iov_len, offset);
    else
        result = request->operation == BLOCK_READ ? preadv(fd, op->iov, (int)op->iov_count, offset)
                                                  : pwritev(fd, op->iov, (int)op->iov_count, offset);
    return result < 0 ? -errno : (int)result;
}

/* The piece chosen is carried out. In memory a copy is all there is to it: the ring would hand it to a kernel thread, since a
 * write to tmpfs may wait for memory, and that costs several times the copy. */
static void file_op_start(struct file_op *op)
{
    if (op->file->setup.in_memory && (op->step == STEP_TRANSFER || op->step == STEP_ZERO_WRITE))
        ring_op_defer(op->file->ring, &op->ring_op);
    else
        ring_op_start(op->file->ring, &op->ring_op);
}

/* A fallocate answered. */
static void file_op_zeroed(struct file_op *op, int result)
{
    struct file_device *file = op->file;
    if (result == -EOPNOTSUPP) {
        if (op->step == STEP_PUNCH)
            file->no_punch = true;
        else
            file->no_zero_range = true;
        if (op->request->operation == BLOCK_UNMAP) {
            file_op_complete(op, -ENOTSUP);
        } else {
            op->step = STEP_ZERO_WRITE;
            file_op_next(op);
        }
    } else if (result < 0) {
        file_op_complete(op, file_status(result));
    } else if (op->request->flags & BLOCK_FUA) {
        op->step = STEP_FLUSH;
        file_op_next(op);
    } else {
        file_op_complete(op, 0);
    }
}

/* A read or a write answered. */
static void file_op_transferred(struct file_op *op, int result)
{
    const struct block_request *request = op->request;
    if (result <= 0) {
        /* 0: the file has become shorter than the device. */
        file_op_complete(op, result == 0 ? -EIO : file_status(result));
        return;
    }
    if (op->bounce && request->operation == BLOCK_READ)
        file_op_bounce(op, op->transferred, (uint64_t)result, true);
    op->transferred += (uint64_t)result;
    op->retries = 0;
    if (op->transferred < request->length_bytes)
        file_op_next(op);
    else
        file_op_complete(op, 0);
}

static void file_op_done(struct ring_op *ring_op, int result)
{
    struct file_op *op = container_of(ring_op, struct file_op, ring_op);
    if ((result == -EINTR || result == -EAGAIN) && op->retries++ < FILE_RETRIES) {
        file_op_start(op);
        return;
    }
    switch (op->step) {
    case STEP_TRANSFER:
    case STEP_ZERO_WRITE:
        file_op_transferred(op, result);
        break;
    case STEP_FLUSH:
        file_op_complete(op, result < 0 ? file_status(result) : 0); /* never tried again (I12) */
        break;
    case STEP_PUNCH:
    case STEP_ZERO_RANGE:
        file_op_zeroed(op, result);
        break;
    }
}

static void file_op_next(struct file_op *op)
{
    int result = 0;
    if (op->step == STEP_TRANSFER)
        result = file_op_piece(op);
    else if (op->step == STEP_ZERO_WRITE)
        file_op_zero_piece(op);
    if (result < 0 && op->transferred == 0) {
        /* Still inside submit. */
        struct file_device *file = op->file;
        struct block_request *request = op->request;
        pool_put(&file->ops, op);
        file->held--;
        completion_queue_add(&file->completions, request, result);
    } else if (result < 0) {
        file_op_complete(op, result);
    } else {
        file_op_start(op);
    }
}

/* How an operation begins. -ENOTSUP when it cannot. */
static int file_first_step(const struct file_device *file, const struct block_request *request, enum file_step *ret_step)
{
    bool punch = file->setup.can_punch && !file->no_punch;
    switch (request->operation) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        *ret_step = STEP_TRANSFER;
        return 0;
    case BLOCK_FLUSH:
        *ret_step = STEP_FLUSH;
        return 0;
    case BLOCK_WRITE_ZEROES:
        if ((request->flags & BLOCK_MAY_UNMAP) && punch)
            *ret_step = STEP_PUNCH;
        else
            *ret_step = file->no_zero_range ? STEP_ZERO_WRITE : STEP_ZERO_RANGE;
        return 0;
    case BLOCK_UNMAP:
        *ret_step = STEP_PUNCH;
        return punch ? 0 : -ENOTSUP;
    default:
        return -ENOTSUP;
    }
}

static void file_submit(struct block_device *device, struct block_request *request)
{
    struct file_device *file = container_of(device, struct file_device, device);
    enum file_step step = STEP_FLUSH;
    ASSERT(!file->closing);
    int result = block_request_check(device, request);
    if (result == 0)
        result = file_first_step(file, request, &step);
    struct file_op *op = result == 0 ? pool_get(&file->ops) : NULL;
    if (!op) {
        completion_queue_add(&file->completions, request, result == 0 ? -ENOMEM : result);
        return;
    }
    op->ring_op.prepare = file_op_prepare;
    op->ring_op.done = file_op_done;
    op->ring_op.perform = file_op_perform;
    list_init(&op->ring_op.link);
    op->file = file;
    op->request = request;
    op->step = step;
    op->transferred = 0;
    op->retries = 0;
    op->bounce = NULL;
    file->held++;
    file_op_next(op);
}

static void file_released(void *context)
{
    struct file_device *file = context;
    void (*closed)(void *context) = file->closed;
    void *closed_context = file->closed_context;
    pool_done(&file->ops);
    (void)close(file->setup.fd); /* ends the lock, too */
    free(file);
    closed(closed_context);
}

static void file_completions_closed(struct completion_queue *queue)
{
    struct file_device *file = container_of(queue, struct file_device, completions);
    ring_put(file->ring, file_released, file);
}

static void file_close_when_idle(struct file_device *file)
{
    if (file->closing && file->held == 0)
        completion_queue_close(&file->completions, file_completions_closed);
}

static void file_close(struct block_device *device, void (*closed)(void *context), void *context)
{
    struct file_device *file = container_of(device, struct file_device, device);
    ASSERT(!file->closing);
    file->closing = true;
    file->closed = closed;
    file->closed_context = context;
    file_close_when_idle(file);
}

static int file_refresh(struct block_device *device)
{
    struct file_device *file = container_of(device, struct file_device, device);
    struct stat info;
    if (fstat(file->setup.fd, &info) < 0)
        return -errno;
    if ((uint64_t)info.st_size < device->geometry.size_bytes || info.st_size % file->setup.block_bytes)
        return -EINVAL;
    file->setup.size_bytes = device->geometry.size_bytes = (uint64_t)info.st_size;
    return 0;
}

static const struct block_device_operations file_operations = {.submit = file_submit, .close = file_close, .refresh = file_refresh};

int file_device_new(uv_loop_t *loop, const struct file_setup *setup, struct block_device **ret_device)
{
    struct file_device *file = calloc(1, sizeof(*file));
    if (!file)
        return -ENOMEM;
    int result = pool_init(&file->ops, sizeof(struct file_op));
    if (result < 0) {
        free(file);
        return result;
    }
    result = ring_get(loop, &file->ring);
    if (result < 0) {
        pool_done(&file->ops);
        free(file);
        return result;
    }
    completion_queue_init(&file->completions, loop);
    file->setup = *setup;
    file->device.operations = &file_operations;
    file->device.kind = "file";
    file->device.geometry = (struct block_geometry){
        .size_bytes = setup->size_bytes,
        .block_bytes = setup->block_bytes,
        .physical_bytes = MAX(setup->block_bytes, 4096),
        .memory_alignment = setup->memory_alignment,
        .max_transfer_bytes = FILE_MAX_TRANSFER,
        .max_unmap_bytes = 1ull << 30,
        .capabilities = BLOCK_CAP_WRITE_CACHE | BLOCK_CAP_WRITE_ZEROES |
                        (setup->can_punch ? BLOCK_CAP_UNMAP | BLOCK_CAP_UNMAP_ZEROES : 0u) |
                        (setup->read_only ? BLOCK_CAP_READ_ONLY : 0u)};
    *ret_device = &file->device;
    return 0;
}
