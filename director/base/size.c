#include "director/base/size.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

static const char units[] = "KMGTPE";

/* The shift of the unit at text, which must be all that is left; -1 when it is something else. */
static int unit_shift(const char *text)
{
    if (*text == '\0' || strcasecmp(text, "b") == 0)
        return 0;
    const char *unit = strchr(units, toupper((unsigned char)*text));
    if (!unit)
        return -1;
    text++;
    if (*text != '\0' && strcasecmp(text, "b") != 0 && strcasecmp(text, "ib") != 0)
        return -1;
    return (int)(unit - units + 1) * 10;
}

int size_parse(const char *text, uint64_t *ret_bytes)
{
    unsigned __int128 value = 0, scale = 1;
    const char *p = text;
    if (!isdigit((unsigned char)*p))
        return -EINVAL;
    for (; isdigit((unsigned char)*p); p++) {
        value = value * 10 + (unsigned)(*p - '0');
        if (value > UINT64_MAX)
            return -ERANGE;
    }
    if (*p == '.') {
        if (!isdigit((unsigned char)*++p))
            return -EINVAL;
        for (; isdigit((unsigned char)*p); p++) {
            if (scale >= 1000000000)
                return -EINVAL;
            value = value * 10 + (unsigned)(*p - '0');
            scale *= 10;
        }
    }
    if (*p == ' ' && p[1] != '\0')
        p++;
    int shift = unit_shift(p);
    if (shift < 0)
        return -EINVAL;
    /* value < 2^64 * 10^9 < 2^94, but with a shift of 60 it could leave 128 bits. */
    if (shift && value >> (127 - shift))
        return -ERANGE;
    value <<= shift;
    if (value % scale)
        return -EINVAL;
    value /= scale;
    if (value > UINT64_MAX)
        return -ERANGE;
    *ret_bytes = (uint64_t)value;
    return 0;
}

const char *size_format_exact(uint64_t bytes, char text[static SIZE_TEXT_SIZE])
{
    int unit = 0;
    while (bytes && unit < 6 && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    (void)snprintf(text, SIZE_TEXT_SIZE, unit ? "%" PRIu64 "%c" : "%" PRIu64, bytes, unit ? units[unit - 1] : 0);
    return text;
}

const char *size_format(uint64_t bytes, char text[static SIZE_TEXT_SIZE])
{
    if (bytes < 1024) {
        (void)snprintf(text, SIZE_TEXT_SIZE, "%" PRIu64 "B", bytes);
        return text;
    }
    int unit = 0;
    double value = (double)bytes;
    while (value >= 999.5 && unit < 6) {
        value /= 1024;
        unit++;
    }
    int digits = value < 9.95 && value != (double)(uint64_t)value;
    (void)snprintf(text, SIZE_TEXT_SIZE, "%.*f%c", digits, value, units[unit - 1]);
    return text;
}
