/* The one asynchronous block contract. Files, mirrors, filters and fault injectors all implement it and can be
 * stacked on one another; tests/conformance runs one suite over every implementation.
 *
 * Threads: a device belongs to one libuv loop (its home loop). All calls are made, and all completions arrive, on it.
 * Requests: memory of the caller, who embeds struct block_request and finds his own by container_of. A submit never
 * fails by return value: every request submitted completes exactly once, and never inside the submit call.
 * Buffers (iov and what it points at) stay untouched by the caller until completion. Reads may leave any content in
 * the buffers when they fail. For O_DIRECT devices buffers should be aligned to geometry.memory_alignment; a device
 * must accept any alignment and may bounce.
 * Layers: a layer that passes a request on submits one of its own; it never hands down the one it was given.
 * Order: none between requests in flight. A request submitted after another completed sees its effect.
 * Errors: 0 or a negative errno in status: -EIO (medium), -ENOSPC, -EINVAL (range or alignment: caller's bug),
 * -ENOTSUP, -ENOMEM (try again), -ECANCELED (device closing), -ESTALE (fenced by a newer epoch), -EAGAIN (suspended, deadline passed),
 * -EILSEQ (compare_and_write miscompare; ret_miscompare says where). */
#ifndef DIRECTOR_BLOCK_DEVICE_H
#define DIRECTOR_BLOCK_DEVICE_H

#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

enum block_operation {
    BLOCK_READ = 0,
    BLOCK_WRITE = 1,
    BLOCK_FLUSH = 2,             /* what completed before is durable afterwards; offset and length are 0 */
    BLOCK_WRITE_ZEROES = 3,      /* reads back as zeroes; with BLOCK_MAY_UNMAP storage may be released */
    BLOCK_UNMAP = 4,             /* a hint; content becomes zeroes where BLOCK_CAP_UNMAP_ZEROES, else undefined */
    BLOCK_COMPARE_AND_WRITE = 5, /* iov holds compare data (length bytes), then write data (length bytes) */
};

enum block_request_flags {
    BLOCK_FUA = 1u << 0,       /* durable before completion */
    BLOCK_MAY_UNMAP = 1u << 1, /* for BLOCK_WRITE_ZEROES */
};

enum block_capabilities {
    BLOCK_CAP_WRITE_CACHE = 1u << 0, /* completed writes may be volatile until BLOCK_FLUSH; without: always durable */
    BLOCK_CAP_UNMAP = 1u << 1,
    BLOCK_CAP_UNMAP_ZEROES = 1u << 2,
    BLOCK_CAP_WRITE_ZEROES = 1u << 3,
    BLOCK_CAP_COMPARE_AND_WRITE = 1u << 4,
    BLOCK_CAP_READ_ONLY = 1u << 5,
};

struct block_geometry {
    uint64_t size_bytes;         /* a multiple of block_bytes */
    uint32_t block_bytes;        /* smallest addressable unit: 512 or 4096 */
    uint32_t physical_bytes;     /* efficient and torn-free unit, >= block_bytes */
    uint32_t memory_alignment;   /* of buffers, to avoid a bounce; a power of two */
    uint32_t max_transfer_bytes; /* longest read or write; callers split. A multiple of physical_bytes */
    uint64_t max_unmap_bytes;    /* longest unmap or write_zeroes; callers split */
    uint32_t capabilities;       /* enum block_capabilities */
};

struct block_request;
typedef void block_request_done(struct block_request *request);

struct block_request {
    /* Set by the caller before submit. */
    enum block_operation operation;
    uint32_t flags; /* enum block_request_flags */
    uint64_t offset_bytes;
    uint64_t length_bytes;   /* for reads and writes the sum of iov */
    const struct iovec *iov; /* NULL for flush, write_zeroes, unmap */
    unsigned iov_count;
    block_request_done *done;
    /* Set by the device before done. */
    int status;
    uint64_t ret_miscompare; /* offset of the first differing byte within the compare data, for -EILSEQ */
    /* For the device while it holds the request: list links, state of a layer. */
    void *device_private[6];
};

struct block_device;

struct block_device_operations {
    /* Takes the request; completes it later, never inline. A request that does not pass block_request_check() is
     * completed with that error. */
    void (*submit)(struct block_device *device, struct block_request *request);
    /* Finish the requests held, release; then closed(context), never inline, once. Submitting after close is a bug. */
    void (*close)(struct block_device *device, void (*closed)(void *context), void *context);
    /* The place below has been made larger (by the plugin's grow, or by a lower device's refresh): take its size over into the
     * geometry, at once. A size never shrinks. 0 or negative errno; NULL: this device cannot. Home loop. */
    int (*refresh)(struct block_device *device);
};

/* Implementations embed this first and fill it before handing it out. */
struct block_device {
    const struct block_device_operations *operations;
    struct block_geometry geometry; /* may grow, on the home loop only */
    const char *kind;               /* "file", "mirror", ...: static text for logs */
};

/* Check range and alignment against the geometry. 0, -EINVAL, or -EROFS for a change to a read-only device. Lengths of
 * iov are not looked at: that they add up is the caller's word. */
static inline int block_request_check(const struct block_device *device, const struct block_request *request)
{
    const struct block_geometry *geometry = &device->geometry;
    uint64_t mask = geometry->block_bytes - 1;
    if (request->operation == BLOCK_FLUSH)
        return 0;
    if ((request->offset_bytes | request->length_bytes) & mask || request->length_bytes == 0)
        return -22; /* EINVAL */
    if (request->offset_bytes > geometry->size_bytes ||
        request->length_bytes > geometry->size_bytes - request->offset_bytes)
        return -22;
    if (request->operation != BLOCK_READ && (geometry->capabilities & BLOCK_CAP_READ_ONLY))
        return -30; /* EROFS */
    return 0;
}

/* Hand a request to a device. */
static inline void block_device_submit(struct block_device *device, struct block_request *request)
{
    device->operations->submit(device, request);
}

/* Take over a larger size. 0; -ENOTSUP. */
static inline int block_device_refresh(struct block_device *device)
{
    return device->operations->refresh ? device->operations->refresh(device) : -95; /* ENOTSUP */
}

/* Close a device: closed runs once, on the home loop, after every request completed. */
static inline void block_device_close(struct block_device *device, void (*closed)(void *context), void *context)
{
    device->operations->close(device, closed, context);
}

#ifdef __cplusplus
}
#endif
#endif
