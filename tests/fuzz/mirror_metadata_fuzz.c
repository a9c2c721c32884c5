/* The metadata file of a replica. The first byte says what to repair in the rest, so that checksums are no wall:
 * bit 0 header slot 0, bit 1 header slot 1, bit 2 every bitmap page. */
#include "director/base/bytes.h"
#include "director/base/crc32c.h"
#include "replication/core/replica.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct replica_parameters parameters = {.volume = 1, .nodeid = 1, .boot = 1, .now_us = 1, .operations_max = 4};
    struct metadata_header header;
    struct replica *replica;
    if (size < 1)
        return 0;
    uint8_t repair = data[0], *image = malloc(size);
    size--;
    memcpy(image, data + 1, size);
    for (unsigned slot = 0; slot < 2; slot++)
        if (repair >> slot & 1 && size >= (slot + 1) * 4096u)
            put_le32(image + slot * 4096u + 8, crc32c(0, image + slot * 4096u + 12, 148));
    for (size_t page = 8192; repair & 4 && page + 4096 <= size; page += 4096)
        put_le32(image + page, crc32c(0, image + page + 4, 4092));
    if (metadata_header_decode(image, size, &header) == 0 && metadata_regions(&header) <= 65536 &&
        replica_new(&parameters, image, size, &replica) == 0)
        replica_free(replica);
    free(image);
    return 0;
}
