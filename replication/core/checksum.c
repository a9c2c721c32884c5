#include "replication/core/checksum.h"
#include "director/base/bytes.h"
#include "director/base/crc32c.h"
#include <errno.h>
#include <string.h>

#define HEADER_MAGIC 0x314d555352494444ull /* "DDIRSUM1" */
#define HEADER_BYTES 64u

static uint32_t zero_sum(void)
{
    static uint32_t sum; /* of a constant: written with the same value by whoever comes first */
    static const uint8_t zeroes[CHECKSUM_BLOCK_BYTES];
    if (!sum)
        sum = crc32c(0, zeroes, sizeof(zeroes));
    return sum;
}

/* Offsets: 0 magic, 8 crc of 12..63, 12 version, 16 volume uuid, 32 incarnation, 40 block bytes, 44 zero. */
void checksum_header_encode(const struct checksum_header *header, uint8_t page[static CHECKSUM_PAGE_BYTES])
{
    memset(page, 0, CHECKSUM_PAGE_BYTES);
    put_le64(page, HEADER_MAGIC);
    put_le32(page + 12, CHECKSUM_VERSION);
    memcpy(page + 16, header->volume_uuid.bytes, 16);
    put_le64(page + 32, header->incarnation);
    put_le32(page + 40, CHECKSUM_BLOCK_BYTES);
    put_le32(page + 8, crc32c(0, page + 12, HEADER_BYTES - 12));
}

int checksum_header_decode(const uint8_t page[static CHECKSUM_PAGE_BYTES], struct checksum_header *ret_header)
{
    if (get_le64(page) != HEADER_MAGIC || get_le32(page + 8) != crc32c(0, page + 12, HEADER_BYTES - 12))
        return -EBADMSG;
    if (get_le32(page + 12) != CHECKSUM_VERSION || get_le32(page + 40) != CHECKSUM_BLOCK_BYTES)
        return -EPROTONOSUPPORT;
    memcpy(ret_header->volume_uuid.bytes, page + 16, 16);
    ret_header->incarnation = get_le64(page + 32);
    return 0;
}

uint32_t checksum_block(const uint8_t block[static CHECKSUM_BLOCK_BYTES])
{
    return crc32c(0, block, CHECKSUM_BLOCK_BYTES) ^ zero_sum();
}

void checksum_blocks(const struct iovec *iov, unsigned iov_count, uint64_t skip, uint32_t count, uint32_t *ret_sums)
{
    unsigned at = 0;
    while (at < iov_count && skip >= iov[at].iov_len)
        skip -= iov[at++].iov_len;
    for (uint32_t i = 0; i < count; i++) {
        size_t left = CHECKSUM_BLOCK_BYTES;
        uint32_t sum = 0;
        while (left) {
            ASSERT(at < iov_count);
            size_t piece = MIN(left, iov[at].iov_len - skip);
            sum = crc32c(sum, (const uint8_t *)iov[at].iov_base + skip, piece);
            left -= piece;
            skip += piece;
            if (skip == iov[at].iov_len) {
                skip = 0;
                at++;
            }
        }
        ret_sums[i] = sum ^ zero_sum();
    }
}

static size_t sum_offset(uint64_t block)
{
    uint32_t in_page = (uint32_t)(block % CHECKSUM_PAGE_SUMS);
    return (size_t)(in_page / CHECKSUM_SECTOR_SUMS) * CHECKSUM_SECTOR_BYTES + 4 + (size_t)(in_page % CHECKSUM_SECTOR_SUMS) * 4;
}

uint32_t checksum_page_get(const uint8_t *page, uint64_t block)
{
    return get_le32(page + sum_offset(block));
}

void checksum_page_set(uint8_t *page, uint64_t block, uint32_t sum)
{
    put_le32(page + sum_offset(block), sum);
}

/* Of the sums of a sector and of the place where it belongs. */
static uint32_t sector_sum(const uint8_t *sector, uint64_t number, unsigned index, uint64_t salt)
{
    uint8_t place[20];
    put_le64(place, salt);
    put_le64(place + 8, number);
    put_le32(place + 16, index);
    return crc32c(crc32c(0, place, sizeof(place)), sector + 4, CHECKSUM_SECTOR_BYTES - 4);
}

void checksum_page_seal(uint8_t *page, uint64_t number, uint64_t salt)
{
    for (unsigned i = 0; i < CHECKSUM_SECTORS; i++) {
        uint8_t *sector = page + (size_t)i * CHECKSUM_SECTOR_BYTES;
        put_le32(sector, sector_sum(sector, number, i, salt));
    }
}

uint8_t checksum_page_damage(const uint8_t *page, uint64_t number, uint64_t salt)
{
    static const uint8_t zeroes[CHECKSUM_SECTOR_BYTES];
    uint8_t bad = 0;
    for (unsigned i = 0; i < CHECKSUM_SECTORS; i++) {
        const uint8_t *sector = page + (size_t)i * CHECKSUM_SECTOR_BYTES;
        if (get_le32(sector) != sector_sum(sector, number, i, salt) && memcmp(sector, zeroes, sizeof(zeroes)) != 0)
            bad |= (uint8_t)(1u << i);
    }
    return bad;
}
