/* The metadata file of one replica: format, encoding, decoding. The layout is written down in replication/README.md.
 *
 *     0      header slot 0   4 KiB       written alternately (I13): a torn write costs one slot
 *     4096   header slot 1   4 KiB
 *     8192   bitmap pages    4 KiB each  intent, dirty of replica 0..3, cold; page p of bitmap b is b * pages + p
 *
 * Each page carries a CRC32C; a bitmap page whose checksum is wrong reads as all ones, which is always safe. */
#ifndef DIRECTOR_REPLICATION_METADATA_H
#define DIRECTOR_REPLICATION_METADATA_H

#include "director/base/uuid.h"
#include "replication/core/bitmap.h"
#include "replication/core/step.h"

#define METADATA_PAGE_BYTES    4096u
#define METADATA_VERSION       1u
#define METADATA_BITMAPS       6u /* enum metadata_slot */
#define METADATA_PAGE_BITS     ((METADATA_PAGE_BYTES - 24u) * 8u)
#define METADATA_BITMAPS_OFFSET 8192u /* in the file */
#define METADATA_REGIONS_MAX   (1u << 20)
#define METADATA_REGION_MIN    65536u

enum metadata_slot {
    METADATA_INTENT = 0, /* a write may be under way, or not yet flushed here */
    METADATA_DIRTY = 1,  /* 1..4: replica index 0..3 lacks something */
    METADATA_COLD = 5,   /* what was acknowledged here may have been lost with a write cache (I5) */
};

struct metadata_header {
    uint64_t generation;
    struct uuid volume_uuid;
    struct uuid node_uuid;
    uint64_t volume;
    uint64_t incarnation; /* of this replica's disk (I11) */
    uint64_t size_bytes;
    uint32_t region_bytes;
    uint32_t replica_index;
    uint64_t sealed_epoch; /* highest epoch accepted (I2) */
    uint16_t sealed_owner; /* node id of its owner, 0 = never sealed */
    uint64_t sealed_boot;  /* boot id of that owner's process */
    uint64_t dirty_incarnation[MIRROR_REPLICAS_MAX]; /* of the disk that each dirty bitmap is about (I11) */
    struct uuid machine; /* boot of the machine under which it was last in use: another one means that caches are gone */
    bool cached;         /* regions with intent bits may have writes that were acknowledged before they were durable */
};

/* Region size for a volume: a power of two, at least 64 KiB, so that a bitmap has at most METADATA_REGIONS_MAX bits. */
uint32_t metadata_region_bytes(uint64_t size_bytes);
uint32_t metadata_regions(const struct metadata_header *header);
/* Regions of a volume of that size. */
uint32_t metadata_regions_of(uint64_t size_bytes);
/* Pages of one bitmap, and bytes of the whole file. */
uint32_t metadata_bitmap_pages(uint32_t regions);
uint64_t metadata_file_bytes(uint32_t regions);

/* Encode the header into the page of its slot (generation % 2) and set its offset. */
void metadata_header_encode(const struct metadata_header *header, struct metadata_page *page);
/* Pick the newer good slot out of the first 8 KiB. 0, -EBADMSG (none), -EPROTONOSUPPORT (only newer versions). */
MUST_CHECK int metadata_header_decode(const uint8_t *image, uint64_t image_bytes, struct metadata_header *ret_header);
/* Encode page number index of bitmap slot and set its offset. salt: the incarnation, so that no foreign page fits. */
void metadata_bitmap_encode(const struct bitmap *bitmap, unsigned slot, uint32_t index, uint64_t salt,
                            uint64_t generation, struct metadata_page *page);
/* Read one bitmap out of the file; bad or missing pages become ones. Returns how many were bad. */
uint32_t metadata_bitmap_decode(const uint8_t *image, uint64_t image_bytes, unsigned slot, uint64_t salt,
                                struct bitmap *bitmap);
/* Write the whole file into image of metadata_file_bytes(): header (in the slot of its generation) and these bitmaps. */
void metadata_encode(const struct metadata_header *header, const struct bitmap maps[METADATA_BITMAPS], uint64_t generation,
                     uint8_t *image);
/* Write a fresh file image (all bitmaps empty) into image of metadata_file_bytes(). */
void metadata_format(const struct metadata_header *header, uint8_t *image);

#endif
