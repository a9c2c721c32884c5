#include "tests/conformance/ram_device.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* While the device holds a request its first two private words link it. */
struct held {
    struct list link;
};

static struct block_request *request_of(struct list *link)
{
    return container_of((void *)link, struct block_request, device_private);
}

static void copy(struct ram_device *ram, struct block_request *request, bool writes)
{
    uint8_t *at = ram->bytes + request->offset_bytes;
    for (unsigned i = 0; i < request->iov_count; i++) {
        if (writes)
            memcpy(at, request->iov[i].iov_base, request->iov[i].iov_len);
        else
            memcpy(request->iov[i].iov_base, at, request->iov[i].iov_len);
        at += request->iov[i].iov_len;
    }
}

static int compare_and_write(struct ram_device *ram, struct block_request *request)
{
    const uint8_t *expected = request->iov[0].iov_base;
    uint8_t *at = ram->bytes + request->offset_bytes;
    for (uint64_t i = 0; i < request->length_bytes; i++) {
        if (at[i] != expected[i]) {
            request->ret_miscompare = i;
            return -EILSEQ;
        }
    }
    memcpy(at, request->iov[1].iov_base, request->length_bytes);
    return 0;
}

static int execute(struct ram_device *ram, struct block_request *request)
{
    switch (request->operation) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        copy(ram, request, request->operation == BLOCK_WRITE);
        return 0;
    case BLOCK_WRITE_ZEROES:
    case BLOCK_UNMAP:
        memset(ram->bytes + request->offset_bytes, 0, request->length_bytes);
        return 0;
    case BLOCK_COMPARE_AND_WRITE:
        return compare_and_write(ram, request);
    default:
        return 0;
    }
}

static void turn(uv_idle_t *idle)
{
    struct ram_device *ram = container_of(idle, struct ram_device, idle);
    struct list batch;
    list_init(&batch);
    list_splice(&batch, &ram->waiting);
    uv_idle_stop(idle);
    while (!list_empty(&batch)) {
        struct list *link = batch.next;
        list_remove(link);
        struct block_request *request = request_of(link);
        request->status = execute(ram, request);
        request->done(request);
    }
}

static void submit(struct block_device *device, struct block_request *request)
{
    struct ram_device *ram = container_of(device, struct ram_device, device);
    struct list *link = (struct list *)request->device_private;
    list_append(&ram->waiting, link);
    (void)uv_idle_start(&ram->idle, turn);
}

static void close_now(struct block_device *device, void (*closed)(void *context), void *context)
{
    struct ram_device *ram = container_of(device, struct ram_device, device);
    turn(&ram->idle);
    munmap(ram->bytes, ram->device.geometry.size_bytes);
    closed(context);
}

int ram_device_open(struct ram_device *ram, uv_loop_t *loop, uint64_t size_bytes, uint32_t block_bytes, uint32_t capabilities)
{
    static const struct block_device_operations operations = {.submit = submit, .close = close_now};
    static_assert(sizeof(struct held) <= sizeof(((struct block_request *)0)->device_private), "the link fits");
    memset(ram, 0, sizeof(*ram));
    ram->bytes = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ram->bytes == MAP_FAILED)
        return -ENOMEM;
    list_init(&ram->waiting);
    ram->device = (struct block_device){
        .operations = &operations,
        .geometry = {.size_bytes = size_bytes,
                     .block_bytes = block_bytes,
                     .physical_bytes = 4096,
                     .memory_alignment = 1,
                     .max_transfer_bytes = 1u << 20,
                     .max_unmap_bytes = 64u << 20,
                     .capabilities = capabilities},
        .kind = "ram-test",
    };
    return uv_idle_init(loop, &ram->idle);
}
