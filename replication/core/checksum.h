/* Checksums at rest: what a file of sums looks like. Pure. The layout is written down in replication/README.md.
 *
 * One CRC32C for each 4 KiB block of the data, kept as its difference (xor) to the sum of a block of zeroes: so what was never
 * written, a hole in the data and a hole in this file, agree. 127 of them stand in a sector of 512 bytes, which is the unit
 * that disks write whole, behind a CRC32C of their own: a torn page is some sectors old and some new, each good by itself, and a
 * sector that rotted condemns no data, it only knows nothing any more. A sector of zeroes is good.
 *
 *     page 0      header, in its first sector
 *     page 1 + n  sums of blocks n * 1016 .. n * 1016 + 1015, in 8 sectors */
#ifndef DIRECTOR_REPLICATION_CHECKSUM_H
#define DIRECTOR_REPLICATION_CHECKSUM_H

#include "director/base/common.h"
#include "director/base/uuid.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define CHECKSUM_BLOCK_BYTES  4096u
#define CHECKSUM_PAGE_BYTES   4096u
#define CHECKSUM_SECTOR_BYTES 512u
#define CHECKSUM_SECTOR_SUMS  127u
#define CHECKSUM_SECTORS      (CHECKSUM_PAGE_BYTES / CHECKSUM_SECTOR_BYTES)
#define CHECKSUM_PAGE_SUMS    (CHECKSUM_SECTORS * CHECKSUM_SECTOR_SUMS)
#define CHECKSUM_VERSION      1u

struct checksum_header {
    struct uuid volume_uuid;
    uint64_t incarnation; /* of the replica whose data these are about (I11); also the salt of its sectors */
};

void checksum_header_encode(const struct checksum_header *header, uint8_t page[static CHECKSUM_PAGE_BYTES]);
/* 0, -EBADMSG, -EPROTONOSUPPORT. */
MUST_CHECK int checksum_header_decode(const uint8_t page[static CHECKSUM_PAGE_BYTES], struct checksum_header *ret_header);

/* The sum of one block, in the form that is kept. */
uint32_t checksum_block(const uint8_t block[static CHECKSUM_BLOCK_BYTES]);
/* Of count blocks that lie in iov from byte skip on; no block may go beyond it. */
void checksum_blocks(const struct iovec *iov, unsigned iov_count, uint64_t skip, uint32_t count, uint32_t *ret_sums);

static inline uint64_t checksum_page_of(uint64_t block)
{
    return block / CHECKSUM_PAGE_SUMS;
}
uint32_t checksum_page_get(const uint8_t *page, uint64_t block);
void checksum_page_set(uint8_t *page, uint64_t block, uint32_t sum);
/* Before a page goes to the file: the sums of its sectors. number: checksum_page_of() of its blocks. */
void checksum_page_seal(uint8_t *page, uint64_t number, uint64_t salt);
/* After it came from there: bit i: sector i is damaged, or belongs elsewhere. */
uint8_t checksum_page_damage(const uint8_t *page, uint64_t number, uint64_t salt);

#endif
