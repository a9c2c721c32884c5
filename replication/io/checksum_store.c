#include "replication/io/checksum_store.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- the file --------------------------------------------------------------------------------------------------- */

static int write_all(int fd, const uint8_t *from, size_t size, uint64_t offset)
{
    while (size) {
        ssize_t n = pwrite(fd, from, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        from += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

/* What lies beyond the end reads as zeroes. */
static int read_page(int fd, uint8_t *to, uint64_t offset)
{
    size_t got = 0;
    while (got < CHECKSUM_PAGE_BYTES) {
        ssize_t n = pread(fd, to + got, CHECKSUM_PAGE_BYTES - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    memset(to + got, 0, CHECKSUM_PAGE_BYTES - got);
    return 0;
}

static int sync_folder_of(const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    int length = slash ? (int)(slash - path) : 1;
    (void)snprintf(folder, sizeof(folder), "%.*s", length ? length : 1, slash ? (length ? path : "/") : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return result;
}

int checksum_file_create(const char *path, const struct checksum_header *header, struct error *error)
{
    uint8_t page[CHECKSUM_PAGE_BYTES];
    char making[4096];
    if (snprintf(making, sizeof(making), "%s.new", path) >= (int)sizeof(making))
        return error_set(error, -ENAMETOOLONG, "path of checksums is too long: %s", path);
    checksum_header_encode(header, page);
    int fd = open(making, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(error, -errno, "cannot make checksums %s: %s", making, strerror(errno));
    int result = write_all(fd, page, sizeof(page), 0);
    if (result == 0 && fsync(fd) < 0)
        result = -errno;
    close(fd);
    if (result == 0 && rename(making, path) < 0)
        result = -errno;
    if (result == 0)
        result = sync_folder_of(path);
    if (result < 0) {
        unlink(making);
        return error_set(error, result, "cannot write checksums %s: %s", path, strerror(-result));
    }
    return 0;
}

/* 1: it is about this replica; 0: it is not, or is not there. */
static int file_known(const char *path, const struct checksum_header *header)
{
    uint8_t page[CHECKSUM_PAGE_BYTES];
    struct checksum_header found;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    int result = read_page(fd, page, 0);
    close(fd);
    if (result < 0)
        return result;
    result = checksum_header_decode(page, &found);
    if (result == -EPROTONOSUPPORT)
        return result;
    return result == 0 && found.incarnation == header->incarnation && uuid_equal(&found.volume_uuid, &header->volume_uuid);
}

int checksum_store_open(struct checksum_store *store, uv_loop_t *loop, const char *path,
                        const struct checksum_header *header, unsigned pages_max, bool *ret_known, struct error *error)
{
    memset(store, 0, sizeof(*store));
    int known = file_known(path, header);
    if (known < 0)
        return error_set(error, known, "checksums %s cannot be used: %s", path,
                         known == -EPROTONOSUPPORT ? "they were written by a newer version" : strerror(-known));
    int result = known ? 0 : checksum_file_create(path, header, error);
    if (result < 0)
        return result;
    store->fd = open(path, O_RDWR | O_CLOEXEC);
    if (store->fd < 0)
        return error_set(error, -errno, "cannot open checksums %s: %s", path, strerror(errno));
    store->loop = loop;
    store->salt = header->incarnation;
    store->pages_max = MAX(pages_max ? pages_max : CHECKSUM_CACHE_PAGES, 8u);
    for (store->bucket_count = 16; store->bucket_count < store->pages_max;)
        store->bucket_count *= 2;
    store->buckets = calloc(store->bucket_count, sizeof(*store->buckets));
    store->batch_bytes = malloc((size_t)CHECKSUM_BATCH * CHECKSUM_PAGE_BYTES);
    if (!store->buckets || !store->batch_bytes) {
        free(store->buckets);
        free(store->batch_bytes);
        close(store->fd);
        return error_set(error, -ENOMEM, "no memory for checksums %s", path);
    }
    for (unsigned i = 0; i < store->bucket_count; i++)
        list_init(&store->buckets[i]);
    list_init(&store->idle);
    list_init(&store->dirty);
    list_init(&store->starved);
    list_init(&store->flushes);
    *ret_known = known;
    return 0;
}

/* ---- writing out --------------------------------------------------------------------------------------------------- */

static void write_start(struct checksum_store *store);
static void starved_again(struct checksum_store *store);

bool checksum_store_busy(const struct checksum_store *store)
{
    return store->loads || store->writing;
}

static void tell_quiet(struct checksum_store *store)
{
    if (!checksum_store_busy(store) && store->quiet)
        store->quiet(store->context);
}

static void write_work(uv_work_t *work)
{
    struct checksum_store *store = container_of(work, struct checksum_store, work);
    store->batch_status = 0;
    for (unsigned i = 0; i < store->batch_count && store->batch_status == 0; i++)
        store->batch_status = write_all(store->fd, store->batch_bytes + (size_t)i * CHECKSUM_PAGE_BYTES, CHECKSUM_PAGE_BYTES,
                                        (store->batch[i]->number + 1) * CHECKSUM_PAGE_BYTES);
    if (store->batch_status == 0 && store->syncing && fdatasync(store->fd) < 0)
        store->batch_status = -errno;
}

static void flushes_tell(struct checksum_store *store)
{
    list_foreach_safe(node, after, &store->flushes) {
        struct sum_flush *flush = list_entry(node, struct sum_flush, link);
        if (!store->failed && flush->goal > store->flush_goal)
            continue;
        list_remove(&flush->link);
        store->flushes_done++;
        flush->done(flush, store->failed);
    }
}

static void write_done(uv_work_t *work, int status)
{
    struct checksum_store *store = container_of(work, struct checksum_store, work);
    bool synced = store->syncing;
    int result = status < 0 ? status : store->batch_status;
    store->writing = store->syncing = false;
    if (result < 0)
        store->failed = result;
    for (unsigned i = 0; i < store->batch_count; i++)
        checksum_store_put(store, store->batch[i]);
    store->batch_count = 0;
    if (synced || store->failed)
        flushes_tell(store);
    starved_again(store);
    if (!list_empty(&store->flushes) || !list_empty(&store->starved))
        write_start(store);
    tell_quiet(store);
}

/* Write the oldest changes; with a barrier when that is all that a flush waits for. */
static void write_start(struct checksum_store *store)
{
    uint64_t goal = 0;
    if (store->writing || store->failed)
        return;
    list_foreach(node, &store->flushes)
        goal = MAX(goal, list_entry(node, struct sum_flush, link)->goal);
    while (store->batch_count < CHECKSUM_BATCH && !list_empty(&store->dirty)) {
        struct sum_page *page = list_first(&store->dirty, struct sum_page, link);
        uint8_t *bytes = store->batch_bytes + (size_t)store->batch_count * CHECKSUM_PAGE_BYTES;
        list_remove(&page->link);
        store->dirty_count--;
        page->dirty_since = 0;
        page->pins++;
        memcpy(bytes, page->bytes, CHECKSUM_PAGE_BYTES);
        checksum_page_seal(bytes, page->number, store->salt);
        store->batch[store->batch_count++] = page;
    }
    bool rest = !list_empty(&store->dirty) && list_first(&store->dirty, struct sum_page, link)->dirty_since <= goal;
    store->syncing = !list_empty(&store->flushes) && !rest;
    if (!store->batch_count && !store->syncing)
        return;
    if (store->syncing)
        store->flush_goal = goal;
    store->writing = true;
    store->writes += store->batch_count;
    int result = uv_queue_work(store->loop, &store->work, write_work, write_done);
    ASSERT(result == 0);
}

void checksum_store_flush(struct checksum_store *store, struct sum_flush *flush)
{
    flush->goal = store->changes;
    list_append(&store->flushes, &flush->link);
    if (store->failed) {
        /* Told from a worker's return, as every answer. */
        store->writing = store->syncing = true;
        store->batch_count = 0;
        int result = uv_queue_work(store->loop, &store->work, write_work, write_done);
        ASSERT(result == 0);
        return;
    }
    write_start(store);
}

/* ---- pages --------------------------------------------------------------------------------------------------------- */

static struct list *bucket_of(struct checksum_store *store, uint64_t number)
{
    return &store->buckets[(number * 0x9e3779b97f4a7c15ull >> 32) & (store->bucket_count - 1)];
}

static struct sum_page *page_find(struct checksum_store *store, uint64_t number)
{
    list_foreach(node, bucket_of(store, number)) {
        struct sum_page *page = list_entry(node, struct sum_page, chain);
        if (page->number == number)
            return page;
    }
    return NULL;
}

/* A page for another number: a new one up to the bound, else the one not used for longest. NULL: all are in use or dirty. */
static struct sum_page *page_take(struct checksum_store *store)
{
    struct sum_page *page = NULL;
    if (store->page_count < store->pages_max && (page = malloc(sizeof(*page)))) {
        memset(page, 0, offsetof(struct sum_page, bytes));
        page->store = store;
        list_init(&page->link);
        list_init(&page->chain);
        list_init(&page->waiters);
        store->page_count++;
        return page;
    }
    if (list_empty(&store->idle))
        return NULL;
    page = list_first(&store->idle, struct sum_page, link);
    list_remove(&page->link);
    list_remove(&page->chain);
    return page;
}

static void load_work(uv_work_t *work)
{
    struct sum_page *page = container_of(work, struct sum_page, work);
    page->status = read_page(page->store->fd, page->bytes, (page->number + 1) * CHECKSUM_PAGE_BYTES);
}

static void page_damage(struct checksum_store *store, struct sum_page *page)
{
    uint8_t bad = checksum_page_damage(page->bytes, page->number, store->salt);
    for (unsigned i = 0; i < CHECKSUM_SECTORS; i++)
        if (bad >> i & 1) {
            memset(page->bytes + (size_t)i * CHECKSUM_SECTOR_BYTES, 0, CHECKSUM_SECTOR_BYTES);
            store->damaged(store->context, page->number * CHECKSUM_PAGE_SUMS + (uint64_t)i * CHECKSUM_SECTOR_SUMS,
                           CHECKSUM_SECTOR_SUMS);
        }
}

static void load_done(uv_work_t *work, int status)
{
    struct sum_page *page = container_of(work, struct sum_page, work);
    struct checksum_store *store = page->store;
    int result = status < 0 ? status : page->status;
    struct list waiters;
    store->loads--;
    page->loading = false;
    if (result == 0)
        page_damage(store, page);
    else
        list_remove(&page->chain); /* read again by the next who wants it */
    list_init(&waiters);
    list_splice(&waiters, &page->waiters);
    while (!list_empty(&waiters)) {
        struct sum_waiter *waiter = list_first(&waiters, struct sum_waiter, link);
        list_remove(&waiter->link);
        if (result == 0)
            page->pins++;
        waiter->ready(waiter, result == 0 ? page : NULL, result);
    }
    checksum_store_put(store, page);
    tell_quiet(store);
}

struct sum_page *checksum_store_get(struct checksum_store *store, uint64_t number, struct sum_waiter *waiter)
{
    struct sum_page *page = page_find(store, number);
    if (page && !page->loading) {
        if (page->pins++ == 0 && !page->dirty_since)
            list_remove(&page->link); /* not idle */
        return page;
    }
    waiter->number = number;
    if (page) {
        list_append(&page->waiters, &waiter->link);
        return NULL;
    }
    page = page_take(store);
    if (!page) { /* after the writer, or when somebody lets one go */
        list_append(&store->starved, &waiter->link);
        write_start(store);
        return NULL;
    }
    page->number = number;
    page->loading = true;
    page->pins = 1;
    list_append(bucket_of(store, number), &page->chain);
    list_append(&page->waiters, &waiter->link);
    store->loads++;
    store->reads++;
    int result = uv_queue_work(store->loop, &page->work, load_work, load_done);
    ASSERT(result == 0);
    return NULL;
}

static void starved_again(struct checksum_store *store)
{
    struct list waiters;
    list_init(&waiters);
    list_splice(&waiters, &store->starved);
    while (!list_empty(&waiters)) {
        struct sum_waiter *waiter = list_first(&waiters, struct sum_waiter, link);
        list_remove(&waiter->link);
        struct sum_page *page = checksum_store_get(store, waiter->number, waiter);
        if (page)
            waiter->ready(waiter, page, 0);
    }
}

void checksum_store_put(struct checksum_store *store, struct sum_page *page)
{
    ASSERT(page->pins > 0);
    if (--page->pins > 0 || page->dirty_since)
        return;
    list_append(&store->idle, &page->link);
    if (!list_empty(&store->starved) && !store->writing) {
        struct sum_waiter *waiter = list_first(&store->starved, struct sum_waiter, link);
        list_remove(&waiter->link);
        struct sum_page *other = checksum_store_get(store, waiter->number, waiter);
        if (other)
            waiter->ready(waiter, other, 0);
    }
}

void checksum_store_changed(struct checksum_store *store, struct sum_page *page)
{
    ASSERT(page->pins > 0);
    if (page->dirty_since)
        return;
    page->dirty_since = ++store->changes;
    list_append(&store->dirty, &page->link);
    if (++store->dirty_count > store->pages_max / 4 * 3)
        write_start(store);
}

void checksum_store_close(struct checksum_store *store)
{
    ASSERT(!checksum_store_busy(store));
    while (!list_empty(&store->dirty) && !store->failed) { /* intent bits cover what does not get there */
        struct sum_page *page = list_first(&store->dirty, struct sum_page, link);
        list_remove(&page->link);
        checksum_page_seal(page->bytes, page->number, store->salt);
        if (write_all(store->fd, page->bytes, CHECKSUM_PAGE_BYTES, (page->number + 1) * CHECKSUM_PAGE_BYTES) < 0)
            store->failed = -EIO;
    }
    list_foreach_safe(node, after, &store->idle) { /* those that could not be read are in no bucket */
        struct sum_page *page = list_entry(node, struct sum_page, link);
        list_remove(&page->link);
        if (list_empty(&page->chain))
            free(page);
    }
    for (unsigned i = 0; i < store->bucket_count; i++)
        while (!list_empty(&store->buckets[i])) {
            struct sum_page *page = list_first(&store->buckets[i], struct sum_page, chain);
            list_remove(&page->chain);
            free(page);
        }
    free(store->buckets);
    free(store->batch_bytes);
    close(store->fd);
}
