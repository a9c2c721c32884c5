/* The file of sums of one replica, with a bounded cache of its pages. Reads and writes happen on worker threads, everything else
 * on the loop. Pages are written out whenever room is wanted: no order is needed before a flush (see checksum_device.h). */
#ifndef DIRECTOR_REPLICATION_CHECKSUM_STORE_H
#define DIRECTOR_REPLICATION_CHECKSUM_STORE_H

#include "director/base/error.h"
#include "director/base/list.h"
#include "replication/core/checksum.h"
#include <uv.h>

#define CHECKSUM_CACHE_PAGES 4096u /* default bound: 16 MiB, the sums of 16 GiB; taken as they are needed */
#define CHECKSUM_BATCH       64u   /* pages of one write */

struct checksum_store;

struct sum_page {
    struct list link;  /* store->idle (clean, least recently used first), store->dirty (oldest first), or alone */
    struct list chain; /* of its bucket */
    struct list waiters;
    struct checksum_store *store;
    uint64_t number;
    uint64_t dirty_since; /* 0: clean */
    unsigned pins;        /* users; one for being read or written */
    bool loading;
    int status;
    uv_work_t work;
    uint8_t bytes[CHECKSUM_PAGE_BYTES];
};

/* Waits for a page; memory of the caller until ready. */
struct sum_waiter {
    struct list link;
    uint64_t number;
    void (*ready)(struct sum_waiter *waiter, struct sum_page *page, int status); /* page pinned when status is 0 */
};

/* Waits for a flush; memory of the caller until done. */
struct sum_flush {
    struct list link;
    uint64_t goal;
    void (*done)(struct sum_flush *flush, int status);
};

struct checksum_store {
    uv_loop_t *loop;
    int fd;
    uint64_t salt;
    unsigned pages_max, page_count, bucket_count;
    struct list *buckets;
    struct list idle, dirty, starved, flushes;
    uint64_t changes;      /* counts pages that became dirty */
    unsigned dirty_count, loads;
    bool writing, syncing; /* one writer; syncing: its barrier covers flush_goal */
    uint64_t flush_goal;
    int failed;            /* a write or barrier failed: every flush from then on does (I12) */
    uv_work_t work;
    struct sum_page *batch[CHECKSUM_BATCH];
    uint8_t *batch_bytes;
    unsigned batch_count;
    int batch_status;
    void *context;
    /* Sums of these blocks are lost: the sector that held them is damaged. During a ready(), before it. */
    void (*damaged)(void *context, uint64_t first_block, uint32_t count);
    void (*quiet)(void *context); /* nothing is under way on any worker any more */
    uint64_t reads, writes, flushes_done;
};

/* Make the file anew, empty: the sums of a replica that is all zeroes. Blocks. */
MUST_CHECK int checksum_file_create(const char *path, const struct checksum_header *header, struct error *error);
/* Open; blocks for one small read. *ret_known: false when it was missing or about another replica and was made anew, so that
 * nothing in it is about these data. context, damaged and quiet are set by the caller afterwards. */
MUST_CHECK int checksum_store_open(struct checksum_store *store, uv_loop_t *loop, const char *path,
                                   const struct checksum_header *header, unsigned pages_max, bool *ret_known,
                                   struct error *error);
/* The page, pinned; or NULL: waiter->ready() comes later, from the loop. */
struct sum_page *checksum_store_get(struct checksum_store *store, uint64_t number, struct sum_waiter *waiter);
void checksum_store_put(struct checksum_store *store, struct sum_page *page);
/* Its sums were changed; it is pinned. */
void checksum_store_changed(struct checksum_store *store, struct sum_page *page);
/* Everything changed until now is durable when done() comes, from the loop. */
void checksum_store_flush(struct checksum_store *store, struct sum_flush *flush);
bool checksum_store_busy(const struct checksum_store *store);
/* Not while busy, nothing pinned. What is dirty is written, without a barrier; blocks for that. */
void checksum_store_close(struct checksum_store *store);

#endif
