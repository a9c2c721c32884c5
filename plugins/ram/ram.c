/* Backstore ram: memory of this process under a name. What create made is found by open as long as the process lives.
 *
 * The places are kept in one list under a lock, as create and remove come from worker threads; a device itself belongs to
 * its loop. A request is carried out when it is submitted and completed in the next turn of the loop. */
#include "plugins/common/completion.h"
#include "plugins/common/option.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define RAM_MAX_TRANSFER (1u << 20)

struct ram_place {
    struct list link;
    char *name;
    uint8_t *memory;
    uint64_t size_bytes;
    bool open;
};

struct ram_device {
    struct block_device device;
    struct ram_place *place;
    struct completion_queue completions;
    bool closing;
    void (*closed)(void *context);
    void *closed_context;
};

static pthread_mutex_t ram_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list ram_places = {&ram_places, &ram_places};

static struct ram_place *ram_place_find(const char *name)
{
    list_foreach(node, &ram_places) {
        struct ram_place *place = list_entry(node, struct ram_place, link);
        if (strcmp(place->name, name) == 0)
            return place;
    }
    return NULL;
}

static void ram_place_free(struct ram_place *place)
{
    if (!place)
        return;
    if (place->memory)
        (void)munmap(place->memory, place->size_bytes);
    free(place->name);
    free(place);
}

static int ram_create(const char *path, uint64_t size_bytes, const struct director_option *options,
                      struct director_plugin_error *error)
{
    (void)options;
    if (size_bytes == 0 || size_bytes % 512 || size_bytes > SIZE_MAX / 2)
        return plugin_error_set(error, -EINVAL, "memory %s cannot have %llu bytes: give a multiple of 512", path,
                                (unsigned long long)size_bytes);
    struct ram_place *place = calloc(1, sizeof(*place));
    if (!place)
        return -ENOMEM;
    place->size_bytes = size_bytes;
    place->name = strdup(path);
    if (!place->name) {
        ram_place_free(place);
        return -ENOMEM;
    }
    void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        int code = -errno;
        ram_place_free(place);
        return plugin_error_set(error, code, "memory %s: %llu bytes cannot be had: %s", path,
                                (unsigned long long)size_bytes, strerror(-code));
    }
    place->memory = memory;
    pthread_mutex_lock(&ram_lock);
    bool there = ram_place_find(path) != NULL;
    if (!there)
        list_append(&ram_places, &place->link);
    pthread_mutex_unlock(&ram_lock);
    if (there) {
        ram_place_free(place);
        return plugin_error_set(error, -EEXIST, "memory %s is there already", path);
    }
    return 0;
}

static int ram_remove(const char *path, struct director_plugin_error *error)
{
    pthread_mutex_lock(&ram_lock);
    struct ram_place *place = ram_place_find(path);
    bool open = place && place->open;
    if (place && !open)
        list_remove(&place->link);
    pthread_mutex_unlock(&ram_lock);
    if (open)
        return plugin_error_set(error, -EBUSY, "memory %s is in use", path);
    ram_place_free(place);
    return 0;
}

static int ram_space(const char *store, uint64_t *ret_capacity_bytes, uint64_t *ret_free_bytes)
{
    struct sysinfo info;
    (void)store;
    if (sysinfo(&info) < 0)
        return -errno;
    *ret_capacity_bytes = (uint64_t)info.totalram * info.mem_unit;
    *ret_free_bytes = (uint64_t)(info.freeram + info.bufferram) * info.mem_unit;
    return 0;
}

/* Copy between iov, from its byte skip on, and memory. */
static void iov_copy(const struct block_request *request, uint64_t skip, uint8_t *memory, uint64_t length, bool to_iov)
{
    for (unsigned i = 0; i < request->iov_count && length; i++) {
        uint64_t size = request->iov[i].iov_len;
        if (skip >= size) {
            skip -= size;
            continue;
        }
        uint64_t piece = MIN(size - skip, length);
        uint8_t *buffer = (uint8_t *)request->iov[i].iov_base + skip;
        memcpy(to_iov ? buffer : memory, to_iov ? memory : buffer, piece);
        memory += piece;
        length -= piece;
        skip = 0;
    }
}

static int ram_compare_and_write(struct block_request *request, uint8_t *memory)
{
    uint64_t at = 0;
    for (unsigned i = 0; i < request->iov_count && at < request->length_bytes; i++) {
        const uint8_t *buffer = request->iov[i].iov_base;
        uint64_t piece = MIN(request->iov[i].iov_len, request->length_bytes - at);
        for (uint64_t k = 0; k < piece; k++) {
            if (buffer[k] != memory[at + k]) {
                request->ret_miscompare = at + k;
                return -EILSEQ;
            }
        }
        at += piece;
    }
    iov_copy(request, request->length_bytes, memory, request->length_bytes, false);
    return 0;
}

/* Whole pages go back to the system and read as zeroes again; the rest is overwritten. */
static void ram_zero(uint8_t *memory, uint64_t length)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uint8_t *first = (uint8_t *)(((uintptr_t)memory + page - 1) & ~(page - 1));
    uint8_t *last = (uint8_t *)(((uintptr_t)memory + length) & ~(page - 1));
    if (first >= last || madvise(first, (size_t)(last - first), MADV_DONTNEED) < 0) {
        memset(memory, 0, length);
        return;
    }
    memset(memory, 0, (size_t)(first - memory));
    memset(last, 0, (size_t)(memory + length - last));
}

static void ram_submit(struct block_device *device, struct block_request *request)
{
    struct ram_device *ram = container_of(device, struct ram_device, device);
    ASSERT(!ram->closing);
    int status = block_request_check(device, request);
    if (status == 0) {
        uint8_t *memory = ram->place->memory + request->offset_bytes;
        switch (request->operation) {
        case BLOCK_READ:
            iov_copy(request, 0, memory, request->length_bytes, true);
            break;
        case BLOCK_WRITE:
            iov_copy(request, 0, memory, request->length_bytes, false);
            break;
        case BLOCK_FLUSH:
            break;
        case BLOCK_WRITE_ZEROES:
        case BLOCK_UNMAP:
            ram_zero(memory, request->length_bytes);
            break;
        case BLOCK_COMPARE_AND_WRITE:
            status = ram_compare_and_write(request, memory);
            break;
        default:
            status = -ENOTSUP;
        }
    }
    completion_queue_add(&ram->completions, request, status);
}

static void ram_completions_closed(struct completion_queue *queue)
{
    struct ram_device *ram = container_of(queue, struct ram_device, completions);
    void (*closed)(void *context) = ram->closed;
    void *context = ram->closed_context;
    pthread_mutex_lock(&ram_lock);
    ram->place->open = false;
    pthread_mutex_unlock(&ram_lock);
    free(ram);
    closed(context);
}

static void ram_close(struct block_device *device, void (*closed)(void *context), void *context)
{
    struct ram_device *ram = container_of(device, struct ram_device, device);
    ram->closing = true;
    ram->closed = closed;
    ram->closed_context = context;
    completion_queue_close(&ram->completions, ram_completions_closed);
}

static const struct block_device_operations ram_operations = {.submit = ram_submit, .close = ram_close};

static int ram_open(struct uv_loop_s *loop, const char *path, struct block_device *lower,
                    const struct director_option *options, struct block_device **ret_device,
                    struct director_plugin_error *error)
{
    uint64_t block_bytes = 4096;
    int result = option_get_size(options, "block", &block_bytes);
    (void)lower;
    if (result < 0 || (block_bytes != 512 && block_bytes != 4096))
        return plugin_error_set(error, -EINVAL, "memory %s: block must be 512 or 4096", path);
    struct ram_device *ram = calloc(1, sizeof(*ram));
    if (!ram)
        return -ENOMEM;
    pthread_mutex_lock(&ram_lock);
    struct ram_place *place = ram_place_find(path);
    if (!place)
        result = plugin_error_set(error, -ENOENT, "there is no memory %s: create it first; it does not outlive the process",
                                  path);
    else if (place->open)
        result = plugin_error_set(error, -EBUSY, "memory %s is open already", path);
    else if (place->size_bytes % block_bytes)
        result = plugin_error_set(error, -EINVAL, "memory %s: its %llu bytes are no whole number of blocks of %llu", path,
                                  (unsigned long long)place->size_bytes, (unsigned long long)block_bytes);
    else
        place->open = true;
    pthread_mutex_unlock(&ram_lock);
    if (result < 0) {
        free(ram);
        return result;
    }
    ram->place = place;
    ram->device.operations = &ram_operations;
    ram->device.kind = "ram";
    ram->device.geometry =
        (struct block_geometry){.size_bytes = place->size_bytes,
                                .block_bytes = (uint32_t)block_bytes,
                                .physical_bytes = 4096,
                                .memory_alignment = 1,
                                .max_transfer_bytes = RAM_MAX_TRANSFER,
                                .max_unmap_bytes = 1ull << 30,
                                .capabilities = BLOCK_CAP_UNMAP | BLOCK_CAP_UNMAP_ZEROES | BLOCK_CAP_WRITE_ZEROES |
                                                BLOCK_CAP_COMPARE_AND_WRITE};
    completion_queue_init(&ram->completions, loop);
    *ret_device = &ram->device;
    return 0;
}

static void ram_unload(void)
{
    while (!list_empty(&ram_places)) {
        struct ram_place *place = list_first(&ram_places, struct ram_place, link);
        list_remove(&place->link);
        ram_place_free(place);
    }
}

static const struct director_parameter ram_parameters[] = {
    {"block", DIRECTOR_PARAMETER_SIZE, 0, "4096", "Bytes of a block: 512 or 4096."},
    {NULL, 0, 0, NULL, NULL},
};

DIRECTOR_PLUGIN_EXPORT const struct director_plugin director_plugin = {
    .struct_bytes = sizeof(director_plugin),
    .abi_major = DIRECTOR_PLUGIN_ABI_MAJOR,
    .abi_minor = DIRECTOR_PLUGIN_ABI_MINOR,
    .name = "ram",
    .version = "1.0",
    .summary = "Memory of the agent, gone when it ends: for tests and scratch volumes.",
    .kind = DIRECTOR_PLUGIN_BACKSTORE,
    .parameters = ram_parameters,
    .unload = ram_unload,
    .create = ram_create,
    .remove = ram_remove,
    .space = ram_space,
    .open = ram_open,
};
