/* A filter that keeps a CRC32C of each 4 KiB block of the device below and verifies what is read: between mirror_device and the
 * data device of a replica. A block whose sum does not match is answered -EBADMSG, and the mirror reads it from another member.
 *
 * No sync write is added to a write: sums change in memory when the data are done, and go to their file any time. What makes
 * that safe are the intent bits of the replica (S1, S2):
 *   S1  Outside of regions with a durable intent bit, the sums on disk are those of the data on disk.
 *       An intent bit is durable before the data of its region change, and is cleared only after a barrier
 *       (checksum_device_barrier) that began when no write there was under way: it writes the sums, then flushes the data.
 *   S2  Sums of regions that had an intent bit when the replica was opened are not believed. They are made anew from the data,
 *       region by region in the background; until then such a region is read without being verified, and the barrier says
 *       -EAGAIN, so that its bit stays.
 * So a stale sum never condemns good data (S2), and data that rotted after their barrier never pass (S1).
 * After a write that failed the content of its blocks is unknown: its regions are not believed any more, as after S2.
 * A damaged sector of sums: the same for the regions it is about.
 *
 * Requests on one block are serialised (range lock): readers share. Volumes of 512-byte blocks: a write that covers part of a
 * block reads the rest of it first. One loop, as every block_device. */
#ifndef DIRECTOR_REPLICATION_CHECKSUM_DEVICE_H
#define DIRECTOR_REPLICATION_CHECKSUM_DEVICE_H

#include "director/base/error.h"
#include "replication/core/bitmap.h"
#include "replication/core/checksum.h"
#include <director/block_device.h>
#include <uv.h>

struct checksum_device_options {
    struct block_device *lower;    /* owned from a successful open on; its size is a multiple of 4 KiB */
    const char *path;              /* of the file of sums */
    struct checksum_header header; /* about which replica */
    uint32_t region_bytes;         /* of intent */
    const struct bitmap *intent;   /* regions whose sums are not believed; only read during the call */
    unsigned cache_pages;          /* 0: CHECKSUM_CACHE_PAGES */
    bool planted_trust;            /* tests only: believe them all the same (S2) */
};

struct checksum_device_status {
    uint64_t errors;          /* blocks whose sum did not match */
    uint64_t lost;            /* sums that were in damaged sectors */
    uint32_t rebuild_regions; /* not believed, still to be made anew */
    uint64_t page_reads, page_writes;
};

/* Home loop. When the file is missing or about another replica all sums are made anew. */
MUST_CHECK int checksum_device_open(uv_loop_t *loop, const struct checksum_device_options *options,
                                    struct block_device **ret_device, struct error *error);
/* As a BLOCK_FLUSH, for the sums too (S1). -EAGAIN: regions are still being made anew. Requests of operation BLOCK_FLUSH only. */
void checksum_device_barrier(struct block_device *device, struct block_request *request);
void checksum_device_get_status(const struct block_device *device, struct checksum_device_status *ret_status);

#endif
