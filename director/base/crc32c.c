#include "director/base/crc32c.h"

#include <limits.h>
#include <isa-l/crc.h>

uint32_t crc32c(uint32_t seed, const void *data, size_t size)
{
    /* isa-l takes and returns the bare register: complement both ways. Its length is an int. */
    uint32_t state = ~seed;
    unsigned char *p = (unsigned char *)data;
    while (size > INT_MAX) {
        state = crc32_iscsi(p, INT_MAX, state);
        p += INT_MAX;
        size -= INT_MAX;
    }
    return ~crc32_iscsi(p, (int)size, state);
}
