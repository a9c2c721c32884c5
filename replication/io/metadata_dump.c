/* director-metadata FILE: prints what a replica's metadata file (.meta) or file of checksums (.sums) says, and what of it is
 * damaged. Only reads; also while directord has the file open, when what it shows may be of different moments.
 * Exit status: 0 all good, 1 something is damaged, 2 it cannot be read or is no such file. */
#include "replication/core/checksum.h"
#include "replication/core/metadata.h"
#include "director/base/bytes.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUNS_MAX 16u /* runs of regions printed for each bitmap */

static int read_file(const char *path, uint8_t **ret_image, uint64_t *ret_bytes)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0) {
        fprintf(stderr, "director-metadata: cannot open %s: %s\n", path, strerror(errno));
        return -1;
    }
    uint8_t *image = malloc((size_t)status.st_size + 1);
    uint64_t got = 0;
    while (image && got < (uint64_t)status.st_size) {
        ssize_t n = pread(fd, image + got, (size_t)status.st_size - got, (off_t)got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        got += (uint64_t)n;
    }
    close(fd);
    if (!image || got < (uint64_t)status.st_size) {
        fprintf(stderr, "director-metadata: cannot read all of %s\n", path);
        free(image);
        return -1;
    }
    *ret_image = image;
    *ret_bytes = got;
    return 0;
}

static void print_header(const struct metadata_header *h)
{
    char volume[UUID_TEXT_SIZE], node[UUID_TEXT_SIZE], machine[UUID_TEXT_SIZE];
    uuid_format(&h->volume_uuid, volume);
    uuid_format(&h->node_uuid, node);
    uuid_format(&h->machine, machine);
    printf("  generation        %" PRIu64 "\n  volume            %" PRIu64 " %s\n  node              %s\n"
           "  incarnation       %016" PRIx64 "\n  replica           %" PRIu32 "\n"
           "  size              %" PRIu64 " bytes in %" PRIu32 " regions of %" PRIu32 "\n"
           "  sealed            epoch %" PRIu64 " of node %u, boot %016" PRIx64 "\n"
           "  machine           boot %s\n  write cache       %s\n",
           h->generation, h->volume, volume, node, h->incarnation, h->replica_index, h->size_bytes, metadata_regions(h),
           h->region_bytes, h->sealed_epoch, h->sealed_owner, h->sealed_boot, machine,
           h->cached ? "regions with intent may have writes that are not durable" : "nothing depends on it");
    for (unsigned i = 0; i < MIRROR_REPLICAS_MAX; i++)
        printf("  marks %u           about incarnation %016" PRIx64 "\n", i, h->dirty_incarnation[i]);
}

/* Each slot by itself. Returns how many are good. */
static unsigned print_slots(const uint8_t *image, uint64_t bytes, struct metadata_header *ret_header)
{
    static uint8_t alone[2 * METADATA_PAGE_BYTES];
    struct metadata_header found[2];
    unsigned good = 0;
    int results[2];
    for (unsigned slot = 0; slot < 2; slot++) {
        memset(alone, 0, sizeof(alone));
        uint64_t offset = (uint64_t)slot * METADATA_PAGE_BYTES;
        if (bytes >= offset + METADATA_PAGE_BYTES)
            memcpy(alone + offset, image + offset, METADATA_PAGE_BYTES);
        results[slot] = metadata_header_decode(alone, sizeof(alone), &found[slot]);
        good += results[slot] == 0;
    }
    unsigned counts = results[1] == 0 && (results[0] < 0 || found[1].generation > found[0].generation);
    for (unsigned slot = 0; slot < 2; slot++) {
        static const uint8_t zeroes[METADATA_PAGE_BYTES];
        uint64_t offset = (uint64_t)slot * METADATA_PAGE_BYTES;
        bool unused = bytes >= offset + METADATA_PAGE_BYTES && memcmp(image + offset, zeroes, sizeof(zeroes)) == 0;
        if (results[slot] == 0) {
            printf("header slot %u: good%s\n", slot, slot == counts ? ", counts" : ", older");
            print_header(&found[slot]);
        } else {
            printf("header slot %u: %s\n", slot, results[slot] == -EPROTONOSUPPORT ? "written by a newer version"
                                                : unused                            ? "not yet written"
                                                                                    : "DAMAGED");
            good += unused;
        }
    }
    if (results[counts] == 0)
        *ret_header = found[counts];
    return results[counts] == 0 ? good : 0;
}

static void print_runs(const struct bitmap *map)
{
    unsigned runs = 0;
    for (uint32_t b = bitmap_next(map, 0); b != BITMAP_NONE; b = bitmap_next(map, b)) {
        uint32_t first = b;
        while (b < map->bits && bitmap_test(map, b))
            b++;
        if (runs++ == RUNS_MAX) {
            printf("    and more\n");
            return;
        }
        printf("    regions %" PRIu32 " to %" PRIu32 "\n", first, b - 1);
        if (b >= map->bits)
            return;
    }
}

static int dump_metadata(const uint8_t *image, uint64_t bytes)
{
    static const char *const names[METADATA_BITMAPS] = {"intent", "dirty of replica 0", "dirty of replica 1", "dirty of replica 2",
                                                        "dirty of replica 3", "cold"};
    struct metadata_header header;
    unsigned good = print_slots(image, bytes, &header);
    bool damaged = good < 2;
    if (good == 0) {
        printf("no good header: the disk counts as blank\n");
        return 1;
    }
    uint32_t regions = metadata_regions(&header);
    if (bytes != metadata_file_bytes(regions)) {
        printf("the file has %" PRIu64 " bytes, not %" PRIu64 "\n", bytes, metadata_file_bytes(regions));
        damaged = true;
    }
    for (unsigned slot = 0; slot < METADATA_BITMAPS; slot++) {
        struct bitmap map;
        if (bitmap_init(&map, regions) < 0)
            return 2;
        uint32_t bad = metadata_bitmap_decode(image, bytes, slot, header.incarnation, &map);
        printf("bitmap %s: %" PRIu32 " of %" PRIu32 " regions", names[slot], map.set, regions);
        if (bad)
            printf(", %" PRIu32 " of %" PRIu32 " pages DAMAGED (they count as all ones)", bad, metadata_bitmap_pages(regions));
        printf("\n");
        print_runs(&map);
        bitmap_done(&map);
        damaged |= bad > 0;
    }
    return damaged;
}

static int dump_checksums(const uint8_t *image, uint64_t bytes, const struct checksum_header *header)
{
    char uuid[UUID_TEXT_SIZE];
    uint64_t damaged = 0, sums = 0;
    uuid_format(&header->volume_uuid, uuid);
    printf("checksums of volume %s, incarnation %016" PRIx64 "\n", uuid, header->incarnation);
    for (uint64_t page = 0; (page + 2) * CHECKSUM_PAGE_BYTES <= bytes; page++) {
        const uint8_t *at = image + (page + 1) * CHECKSUM_PAGE_BYTES;
        uint8_t bad = checksum_page_damage(at, page, header->incarnation);
        damaged += (unsigned)__builtin_popcount(bad);
        for (uint64_t i = 0; i < CHECKSUM_PAGE_SUMS; i++)
            sums += checksum_page_get(at, page * CHECKSUM_PAGE_SUMS + i) != 0;
        for (unsigned sector = 0; bad >> sector; sector++)
            if (bad >> sector & 1)
                printf("sector %u of page %" PRIu64 ": DAMAGED\n", sector, page);
    }
    printf("%" PRIu64 " pages, %" PRIu64 " blocks that are not zeroes, %" PRIu64 " sectors damaged\n",
           bytes / CHECKSUM_PAGE_BYTES - 1, sums, damaged);
    return damaged > 0;
}

int main(int argc, char **argv)
{
    struct checksum_header sums;
    uint8_t *image;
    uint64_t bytes;
    if (argc != 2 || argv[1][0] == '-') {
        fprintf(stderr, "usage: director-metadata FILE.meta|FILE.sums\n");
        return 2;
    }
    if (read_file(argv[1], &image, &bytes) < 0)
        return 2;
    int result;
    if (bytes >= CHECKSUM_PAGE_BYTES && checksum_header_decode(image, &sums) == 0)
        result = dump_checksums(image, bytes, &sums);
    else
        result = dump_metadata(image, bytes);
    free(image);
    return result;
}
