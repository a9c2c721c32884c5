#include "director/base/uuid.h"

#include <errno.h>
#include <sys/random.h>

int random_bytes(void *to, size_t size)
{
    char *p = to;
    while (size) {
        ssize_t got = getrandom(p, size, 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        p += got;
        size -= (size_t)got;
    }
    return 0;
}

int uuid_generate(struct uuid *ret_uuid)
{
    struct uuid uuid;
    int result = random_bytes(uuid.bytes, sizeof(uuid.bytes));
    if (result < 0)
        return result;
    uuid.bytes[6] = (uuid.bytes[6] & 0x0f) | 0x40; /* RFC 9562 §5.4: version 4 */
    uuid.bytes[8] = (uuid.bytes[8] & 0x3f) | 0x80; /* §4.1: variant */
    *ret_uuid = uuid;
    return 0;
}

void uuid_format(const struct uuid *uuid, char text[static UUID_TEXT_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    char *p = text;
    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        *p++ = digits[uuid->bytes[i] >> 4];
        *p++ = digits[uuid->bytes[i] & 15];
    }
    *p = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int uuid_parse(const char *text, struct uuid *ret_uuid)
{
    struct uuid uuid;
    const char *p = text;
    for (unsigned i = 0; i < 16; i++) {
        if ((i == 4 || i == 6 || i == 8 || i == 10) && *p++ != '-')
            return -EINVAL;
        int high = hex_digit(p[0]);
        int low = high < 0 ? -1 : hex_digit(p[1]);
        if (low < 0)
            return -EINVAL;
        uuid.bytes[i] = (uint8_t)(high << 4 | low);
        p += 2;
    }
    if (*p)
        return -EINVAL;
    *ret_uuid = uuid;
    return 0;
}
