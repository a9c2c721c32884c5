/* RFC 9562 version 4 identifiers. */
#ifndef DIRECTOR_BASE_UUID_H
#define DIRECTOR_BASE_UUID_H

#include "director/base/common.h"
#include <stdbool.h>
#include <string.h>

struct uuid {
    uint8_t bytes[16];
};

#define UUID_TEXT_SIZE 37 /* with the closing NUL */

/* Fill with kernel randomness. 0 or negative errno. Never called by pure cores: ids come with commands (C3). */
MUST_CHECK int uuid_generate(struct uuid *ret_uuid);
void uuid_format(const struct uuid *uuid, char text[static UUID_TEXT_SIZE]);
/* -EINVAL when text is not 8-4-4-4-12 hex digits. */
MUST_CHECK int uuid_parse(const char *text, struct uuid *ret_uuid);
/* Kernel randomness for keys, boot ids and seeds. 0 or negative errno. */
MUST_CHECK int random_bytes(void *to, size_t size);

static inline bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

static inline int uuid_compare(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

static inline bool uuid_is_zero(const struct uuid *uuid)
{
    static const struct uuid zero;
    return uuid_equal(uuid, &zero);
}

#endif
