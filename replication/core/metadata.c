#include "replication/core/metadata.h"
#include "director/base/bytes.h"
#include "director/base/crc32c.h"
#include <errno.h>
#include <string.h>

#define HEADER_MAGIC   0x3154454d52494444ull /* "DDIRMET1" */
#define BITMAP_MAGIC   0x4d425244u           /* "DRBM" */
#define HEADER_SLOTS   2u
#define HEADER_BYTES   176u /* that the checksum covers */
#define BITMAP_HEADER  24u

static_assert(METADATA_PAGE_BITS == (METADATA_PAGE_BYTES - BITMAP_HEADER) * 8, "page header size");
static_assert(METADATA_BITMAPS_OFFSET == HEADER_SLOTS * METADATA_PAGE_BYTES, "bitmaps follow the headers");
static_assert(METADATA_PAGE_BITS % 64 == 0, "pages hold whole words");

uint32_t metadata_region_bytes(uint64_t size_bytes)
{
    uint64_t region = METADATA_REGION_MIN;
    while ((size_bytes + region - 1) / region > METADATA_REGIONS_MAX)
        region *= 2;
    return (uint32_t)region;
}

uint32_t metadata_regions(const struct metadata_header *header)
{
    return (uint32_t)((header->size_bytes + header->region_bytes - 1) / header->region_bytes);
}

uint32_t metadata_regions_of(uint64_t size_bytes)
{
    struct metadata_header header = {.size_bytes = size_bytes, .region_bytes = metadata_region_bytes(size_bytes)};
    return metadata_regions(&header);
}

uint32_t metadata_bitmap_pages(uint32_t regions)
{
    return (regions + METADATA_PAGE_BITS - 1) / METADATA_PAGE_BITS;
}

uint64_t metadata_file_bytes(uint32_t regions)
{
    return METADATA_BITMAPS_OFFSET + (uint64_t)METADATA_BITMAPS * metadata_bitmap_pages(regions) * METADATA_PAGE_BYTES;
}

/* Offsets of the header: 0 magic, 8 crc, 12 version, 16 generation, 24 volume uuid, 40 node uuid, 56 volume, 64 incarnation,
 * 72 size, 80 region bytes, 84 replica index, 88 sealed epoch, 96 sealed owner (u32), 100 zero, 104 sealed boot,
 * 112 dirty incarnations (4 * u64), 144 machine, 160 flags (u32: 1 cached), 164..175 zero. */
void metadata_header_encode(const struct metadata_header *header, struct metadata_page *page)
{
    uint8_t *b = page->bytes;
    memset(b, 0, METADATA_PAGE_BYTES);
    page->offset_bytes = header->generation % HEADER_SLOTS * METADATA_PAGE_BYTES;
    put_le64(b, HEADER_MAGIC);
    put_le32(b + 12, METADATA_VERSION);
    put_le64(b + 16, header->generation);
    memcpy(b + 24, header->volume_uuid.bytes, 16);
    memcpy(b + 40, header->node_uuid.bytes, 16);
    put_le64(b + 56, header->volume);
    put_le64(b + 64, header->incarnation);
    put_le64(b + 72, header->size_bytes);
    put_le32(b + 80, header->region_bytes);
    put_le32(b + 84, header->replica_index);
    put_le64(b + 88, header->sealed_epoch);
    put_le32(b + 96, header->sealed_owner);
    put_le64(b + 104, header->sealed_boot);
    for (unsigned i = 0; i < MIRROR_REPLICAS_MAX; i++)
        put_le64(b + 112 + 8 * i, header->dirty_incarnation[i]);
    memcpy(b + 144, header->machine.bytes, 16);
    put_le32(b + 160, header->cached);
    put_le32(b + 8, crc32c(0, b + 12, HEADER_BYTES - 12));
}

/* One slot. 0, -EBADMSG, -EPROTONOSUPPORT. */
static int header_slot_decode(const uint8_t *b, unsigned slot, struct metadata_header *ret)
{
    struct metadata_header h = {0};
    if (get_le64(b) != HEADER_MAGIC || get_le32(b + 8) != crc32c(0, b + 12, HEADER_BYTES - 12))
        return -EBADMSG;
    if (get_le32(b + 12) != METADATA_VERSION)
        return -EPROTONOSUPPORT;
    h.generation = get_le64(b + 16);
    memcpy(h.volume_uuid.bytes, b + 24, 16);
    memcpy(h.node_uuid.bytes, b + 40, 16);
    h.volume = get_le64(b + 56);
    h.incarnation = get_le64(b + 64);
    h.size_bytes = get_le64(b + 72);
    h.region_bytes = get_le32(b + 80);
    h.replica_index = get_le32(b + 84);
    h.sealed_epoch = get_le64(b + 88);
    h.sealed_owner = (uint16_t)get_le32(b + 96);
    h.sealed_boot = get_le64(b + 104);
    for (unsigned i = 0; i < MIRROR_REPLICAS_MAX; i++)
        h.dirty_incarnation[i] = get_le64(b + 112 + 8 * i);
    memcpy(h.machine.bytes, b + 144, 16);
    h.cached = get_le32(b + 160) & 1;
    if (h.generation % HEADER_SLOTS != slot || h.size_bytes == 0 || h.replica_index >= MIRROR_REPLICAS_MAX)
        return -EBADMSG;
    if (h.size_bytes > (uint64_t)METADATA_REGIONS_MAX << 31 || h.region_bytes != metadata_region_bytes(h.size_bytes))
        return -EBADMSG;
    *ret = h;
    return 0;
}

int metadata_header_decode(const uint8_t *image, uint64_t image_bytes, struct metadata_header *ret_header)
{
    struct metadata_header best = {0}, found;
    int result = -EBADMSG;
    for (unsigned slot = 0; slot < HEADER_SLOTS; slot++) {
        if (image_bytes < (slot + 1ull) * METADATA_PAGE_BYTES)
            break;
        int got = header_slot_decode(image + slot * METADATA_PAGE_BYTES, slot, &found);
        if (got == 0 && (result != 0 || found.generation > best.generation)) {
            best = found;
            result = 0;
        } else if (got == -EPROTONOSUPPORT && result != 0) {
            result = got;
        }
    }
    if (result == 0)
        *ret_header = best;
    return result;
}

/* Offsets of a bitmap page: 0 crc, 4 magic, 8 generation, 16 crc of (salt, slot, index), 20 zero, 24 bits. */
static uint32_t bitmap_page_place(unsigned slot, uint32_t index, uint64_t salt)
{
    uint8_t b[16];
    put_le64(b, salt);
    put_le32(b + 8, slot);
    put_le32(b + 12, index);
    return crc32c(0, b, sizeof(b));
}

static uint64_t bitmap_page_offset(uint32_t pages, unsigned slot, uint32_t index)
{
    return METADATA_BITMAPS_OFFSET + ((uint64_t)slot * pages + index) * METADATA_PAGE_BYTES;
}

void metadata_bitmap_encode(const struct bitmap *bitmap, unsigned slot, uint32_t index, uint64_t salt,
                            uint64_t generation, struct metadata_page *page)
{
    uint8_t *b = page->bytes;
    uint32_t words = (bitmap->bits + 63) / 64, first = index * (METADATA_PAGE_BITS / 64);
    memset(b, 0, METADATA_PAGE_BYTES);
    page->offset_bytes = bitmap_page_offset(metadata_bitmap_pages(bitmap->bits), slot, index);
    put_le32(b + 4, BITMAP_MAGIC);
    put_le64(b + 8, generation);
    put_le32(b + 16, bitmap_page_place(slot, index, salt));
    for (uint32_t i = 0; i < METADATA_PAGE_BITS / 64 && first + i < words; i++)
        put_le64(b + BITMAP_HEADER + i * 8, bitmap->words[first + i]);
    put_le32(b, crc32c(0, b + 4, METADATA_PAGE_BYTES - 4));
}

uint32_t metadata_bitmap_decode(const uint8_t *image, uint64_t image_bytes, unsigned slot, uint64_t salt,
                                struct bitmap *bitmap)
{
    uint32_t pages = metadata_bitmap_pages(bitmap->bits), words = (bitmap->bits + 63) / 64, bad = 0;
    uint8_t *plain = calloc(MAX(words, 1u), 8);
    ASSERT(plain);
    for (uint32_t index = 0; index < pages; index++) {
        uint64_t offset = bitmap_page_offset(pages, slot, index);
        uint32_t first = index * (METADATA_PAGE_BITS / 64);
        uint32_t count = MIN(METADATA_PAGE_BITS / 64, words - first);
        const uint8_t *b = offset + METADATA_PAGE_BYTES <= image_bytes ? image + offset : NULL;
        if (b && get_le32(b + 4) == BITMAP_MAGIC && get_le32(b) == crc32c(0, b + 4, METADATA_PAGE_BYTES - 4) &&
            get_le32(b + 16) == bitmap_page_place(slot, index, salt)) {
            memcpy(plain + (size_t)first * 8, b + BITMAP_HEADER, (size_t)count * 8);
        } else {
            memset(plain + (size_t)first * 8, 0xff, (size_t)count * 8); /* torn: every region of the page, I13 */
            bad++;
        }
    }
    bitmap_decode(bitmap, plain);
    free(plain);
    return bad;
}

void metadata_encode(const struct metadata_header *header, const struct bitmap maps[METADATA_BITMAPS], uint64_t generation,
                     uint8_t *image)
{
    uint32_t regions = metadata_regions(header), pages = metadata_bitmap_pages(regions);
    struct metadata_page page;
    memset(image, 0, metadata_file_bytes(regions));
    metadata_header_encode(header, &page);
    memcpy(image + page.offset_bytes, page.bytes, METADATA_PAGE_BYTES);
    for (unsigned slot = 0; slot < METADATA_BITMAPS; slot++)
        for (uint32_t index = 0; index < pages; index++) {
            metadata_bitmap_encode(&maps[slot], slot, index, header->incarnation, generation, &page);
            memcpy(image + page.offset_bytes, page.bytes, METADATA_PAGE_BYTES);
        }
}

void metadata_format(const struct metadata_header *header, uint8_t *image)
{
    struct bitmap empty[METADATA_BITMAPS];
    for (unsigned slot = 0; slot < METADATA_BITMAPS; slot++)
        ASSERT(bitmap_init(&empty[slot], metadata_regions(header)) == 0);
    metadata_encode(header, empty, 0, image);
    for (unsigned slot = 0; slot < METADATA_BITMAPS; slot++)
        bitmap_done(&empty[slot]);
}
