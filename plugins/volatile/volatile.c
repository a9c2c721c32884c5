/* Filter volatile: a disk with a volatile write cache. Writes without FUA complete from memory and go to the lower device with
 * the next flush; when the process is killed they are lost, as they are at a power cut.
 *
 * What reads saw must not go back, so the cache is emptied only while nothing else is under way: a flush, and a change that goes to
 * the lower device itself (FUA, zeroes, unmap, compare and write) where it touches something cached, first let what is under way
 * end and hold back what comes (`emptying`). Slow, and right: it is for tests. */
#include "plugins/common/filter.h"
#include "plugins/common/option.h"

#include <errno.h>
#include <string.h>

#define VOLATILE_BUCKETS 4096u
#define VOLATILE_DEPTH   32u /* writes to the lower device at once while emptying */

struct cached {
    struct cached *next; /* in its bucket */
    uint64_t block;
    uint8_t data[];
};

struct volatile_filter;

struct volatile_write {
    struct volatile_filter *filter;
    struct block_request request;
    struct iovec iov;
};

struct volatile_filter {
    struct filter filter;
    bool on;
    uint64_t most_blocks;
    uint64_t count; /* cached blocks */
    struct cached *buckets[VOLATILE_BUCKETS];
    struct list waiting;  /* struct filter_op, while emptying */
    unsigned under_way;   /* at the lower device */
    bool emptying;
    unsigned bucket;      /* the next to be written out */
    struct cached *at;    /* and the next block of it */
    unsigned writes;
    int failed;           /* of this emptying */
    struct volatile_write write[VOLATILE_DEPTH];
    struct volatile_write *unused[VOLATILE_DEPTH];
    unsigned unused_count;
    void (*closed)(void *context); /* close is wanted */
    void *closed_context;
};

static void empty_go_on(struct volatile_filter *self);

static uint32_t block_bytes(const struct volatile_filter *self)
{
    return self->filter.lower->geometry.block_bytes;
}

static struct cached *cached_find(struct volatile_filter *self, uint64_t block)
{
    struct cached *c = self->buckets[block % VOLATILE_BUCKETS];
    while (c && c->block != block)
        c = c->next;
    return c;
}

static bool cached_touches(struct volatile_filter *self, const struct block_request *request)
{
    uint64_t first = request->offset_bytes / block_bytes(self), count = request->length_bytes / block_bytes(self);
    for (uint64_t i = 0; self->count && i < count; i++)
        if (cached_find(self, first + i))
            return true;
    return false;
}

/* Copy between a request's buffers, from its byte `at` on, and flat memory. */
static void iov_copy(const struct block_request *request, uint64_t at, uint8_t *flat, size_t size, bool to_iov)
{
    for (unsigned i = 0; i < request->iov_count && size; i++) {
        const struct iovec *iov = &request->iov[i];
        if (at >= iov->iov_len) {
            at -= iov->iov_len;
            continue;
        }
        size_t part = MIN(size, iov->iov_len - at);
        if (to_iov)
            memcpy((uint8_t *)iov->iov_base + at, flat, part);
        else
            memcpy(flat, (const uint8_t *)iov->iov_base + at, part);
        flat += part;
        size -= part;
        at = 0;
    }
}

/* Take a write into memory. false: no room. */
static bool cache_write(struct volatile_filter *self, const struct block_request *request)
{
    uint32_t size = block_bytes(self);
    uint64_t first = request->offset_bytes / size, count = request->length_bytes / size;
    if (self->count + count > self->most_blocks)
        return false;
    for (uint64_t i = 0; i < count; i++) {
        struct cached *c = cached_find(self, first + i);
        if (!c) {
            struct cached **bucket = &self->buckets[(first + i) % VOLATILE_BUCKETS];
            c = malloc(sizeof(*c) + size);
            ASSERT(c); /* a fault injector: the test fails */
            *c = (struct cached){.next = *bucket, .block = first + i};
            *bucket = c;
            self->count++;
        }
        iov_copy(request, i * size, c->data, size, false);
    }
    return true;
}

static void cache_read(struct volatile_filter *self, const struct block_request *request)
{
    uint32_t size = block_bytes(self);
    uint64_t first = request->offset_bytes / size, count = request->length_bytes / size;
    for (uint64_t i = 0; self->count && i < count; i++) {
        struct cached *c = cached_find(self, first + i);
        if (c)
            iov_copy(request, i * size, c->data, size, true);
    }
}

/* --- requests ---------------------------------------------------------------------------------------------------------- */

static void lower_done(struct block_request *lower)
{
    struct filter_op *op = container_of(lower, struct filter_op, lower);
    struct volatile_filter *self = container_of(op->filter, struct volatile_filter, filter);
    if (lower->operation == BLOCK_READ && lower->status == 0)
        cache_read(self, op->upper);
    op->upper->ret_miscompare = lower->ret_miscompare;
    self->under_way--;
    filter_op_finish(op, lower->status);
    empty_go_on(self);
}

static void forward(struct volatile_filter *self, struct filter_op *op)
{
    const struct block_request *upper = op->upper;
    op->lower = (struct block_request){.operation = upper->operation, .flags = upper->flags, .offset_bytes = upper->offset_bytes,
                                       .length_bytes = upper->length_bytes, .iov = upper->iov, .iov_count = upper->iov_count,
                                       .done = lower_done};
    self->under_way++;
    block_device_submit(self->filter.lower, &op->lower);
}

static void start(struct volatile_filter *self, struct filter_op *op)
{
    const struct block_request *request = op->upper;
    bool volatile_write = request->operation == BLOCK_WRITE && !(request->flags & BLOCK_FUA);
    if (request->operation == BLOCK_READ) {
        forward(self, op);
    } else if (volatile_write && self->on && cache_write(self, request)) {
        filter_op_finish(op, 0);
    } else if (request->operation == BLOCK_FLUSH ? self->count > 0 : cached_touches(self, request)) {
        list_prepend(&self->waiting, &op->link);
        self->emptying = true;
        self->failed = 0;
        self->bucket = 0;
        self->at = NULL;
        empty_go_on(self);
    } else {
        forward(self, op);
    }
}

static void volatile_submit(struct block_device *device, struct block_request *request)
{
    struct volatile_filter *self = container_of(device, struct volatile_filter, filter.device);
    struct filter_op *op = filter_op_new(&self->filter, request);
    if (self->on)
        device->geometry.capabilities |= BLOCK_CAP_WRITE_CACHE;
    if (!op)
        return;
    if (self->emptying)
        list_append(&self->waiting, &op->link);
    else
        start(self, op);
}

/* --- emptying ---------------------------------------------------------------------------------------------------------- */

static void cache_forget(struct volatile_filter *self)
{
    for (unsigned i = 0; i < VOLATILE_BUCKETS; i++)
        while (self->buckets[i]) {
            struct cached *c = self->buckets[i];
            self->buckets[i] = c->next;
            free(c);
        }
    self->count = 0;
}

static void write_done(struct block_request *request)
{
    struct volatile_write *write = container_of(request, struct volatile_write, request);
    struct volatile_filter *self = write->filter;
    if (request->status < 0)
        self->failed = request->status;
    self->unused[self->unused_count++] = write;
    self->writes--;
    empty_go_on(self);
}

/* The next block to be written out, NULL: no more. */
static struct cached *next_block(struct volatile_filter *self)
{
    while (!self->at && self->bucket < VOLATILE_BUCKETS)
        self->at = self->buckets[self->bucket++];
    struct cached *c = self->at;
    if (c)
        self->at = c->next;
    return c;
}

static void empty_end(struct volatile_filter *self)
{
    struct list waiting;
    if (!self->failed)
        cache_forget(self);
    self->emptying = false;
    list_init(&waiting);
    list_splice(&waiting, &self->waiting);
    if (self->failed && !list_empty(&waiting)) { /* the one that wanted it */
        struct filter_op *op = list_first(&waiting, struct filter_op, link);
        list_remove(&op->link);
        filter_op_finish(op, self->failed);
    }
    while (!list_empty(&waiting)) {
        struct filter_op *op = list_first(&waiting, struct filter_op, link);
        list_remove(&op->link);
        if (self->emptying)
            list_append(&self->waiting, &op->link);
        else
            start(self, op);
    }
    if (self->closed && !self->emptying)
        filter_close(&self->filter, self->closed, self->closed_context);
}

static void empty_go_on(struct volatile_filter *self)
{
    if (!self->emptying || self->under_way)
        return;
    while (self->unused_count && !self->failed) {
        struct cached *c = next_block(self);
        if (!c)
            break;
        struct volatile_write *write = self->unused[--self->unused_count];
        write->iov = (struct iovec){c->data, block_bytes(self)};
        write->request = (struct block_request){.operation = BLOCK_WRITE, .offset_bytes = c->block * block_bytes(self),
                                                .length_bytes = block_bytes(self), .iov = &write->iov, .iov_count = 1,
                                                .done = write_done};
        self->writes++;
        block_device_submit(self->filter.lower, &write->request);
    }
    if (!self->writes)
        empty_end(self);
}

/* Closing is no power cut: what is cached goes to the lower device first. */
static void volatile_close(struct block_device *device, void (*closed)(void *context), void *context)
{
    struct volatile_filter *self = container_of(device, struct volatile_filter, filter.device);
    if (!self->emptying && !self->count) {
        filter_close(&self->filter, closed, context);
        return;
    }
    self->closed = closed;
    self->closed_context = context;
    if (!self->emptying) {
        self->emptying = true;
        self->failed = 0;
        self->bucket = 0;
        self->at = NULL;
        empty_go_on(self);
    }
}

static void volatile_release(struct filter *filter)
{
    struct volatile_filter *self = container_of(filter, struct volatile_filter, filter);
    cache_forget(self);
    filter_free(filter);
}

static const struct block_device_operations volatile_operations = {.submit = volatile_submit, .close = volatile_close,
                                                                   .refresh = filter_refresh};

/* --- plugin ------------------------------------------------------------------------------------------------------------ */

static int volatile_configure(struct block_device *device, const struct director_option *options,
                              struct director_plugin_error *error)
{
    struct volatile_filter *self = container_of(device, struct volatile_filter, filter.device);
    uint64_t most_bytes = self->most_blocks * block_bytes(self);
    bool on = self->on;
    int result = option_get_bool(options, "on", &on);
    if (result == 0)
        result = option_get_size(options, "size", &most_bytes);
    if (result < 0)
        return plugin_error_set(error, result, "volatile: on is yes or no, size a size such as 64M");
    self->on = on;
    self->most_blocks = most_bytes / block_bytes(self);
    return 0;
}

static int volatile_open(struct uv_loop_s *loop, const char *path, struct block_device *lower,
                         const struct director_option *options, struct block_device **ret_device,
                         struct director_plugin_error *error)
{
    (void)path;
    struct volatile_filter *self = calloc(1, sizeof(*self));
    if (!self)
        return -ENOMEM;
    list_init(&self->waiting);
    for (unsigned i = 0; i < VOLATILE_DEPTH; i++) {
        self->write[i].filter = self;
        self->unused[self->unused_count++] = &self->write[i];
    }
    int result = filter_init(&self->filter, loop, lower, "volatile", &volatile_operations);
    if (result < 0) {
        free(self);
        return result;
    }
    result = volatile_configure(&self->filter.device, options, error);
    if (result < 0) {
        pool_done(&self->filter.ops);
        free(self);
        return result;
    }
    self->filter.release = volatile_release;
    if (self->on)
        self->filter.device.geometry.capabilities |= BLOCK_CAP_WRITE_CACHE;
    *ret_device = &self->filter.device;
    return 0;
}

static const struct director_parameter volatile_parameters[] = {
    {"on", DIRECTOR_PARAMETER_BOOL, DIRECTOR_PARAMETER_LIVE, "no", "Whether writes without FUA stay in memory until a flush."},
    {"size", DIRECTOR_PARAMETER_SIZE, DIRECTOR_PARAMETER_LIVE, "64M", "So much is cached; what is beyond goes to the disk at once."},
    {NULL, 0, 0, NULL, NULL},
};

DIRECTOR_PLUGIN_EXPORT const struct director_plugin director_plugin = {
    .struct_bytes = sizeof(director_plugin),
    .abi_major = DIRECTOR_PLUGIN_ABI_MAJOR,
    .abi_minor = DIRECTOR_PLUGIN_ABI_MINOR,
    .name = "volatile",
    .version = "1.0",
    .summary = "Keeps writes in memory until a flush, to show what a disk with a volatile cache loses.",
    .kind = DIRECTOR_PLUGIN_FILTER,
    .parameters = volatile_parameters,
    .open = volatile_open,
    .configure = volatile_configure,
};
