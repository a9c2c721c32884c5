/* Sizes in bytes as people write and read them. Units are binary: 1K = 1024. */
#ifndef DIRECTOR_BASE_SIZE_H
#define DIRECTOR_BASE_SIZE_H

#include "director/base/common.h"

#define SIZE_TEXT_SIZE 32

/* "4096", "10G", "1.5T", "512MiB", "64 KB": digits, an optional fraction, an optional K M G T P E with B or iB after it.
 * -EINVAL when it is none of that, or no whole number of bytes; -ERANGE when it does not fit in 64 bits. */
MUST_CHECK int size_parse(const char *text, uint64_t *ret_bytes);
/* Exact and short: "10G" for 10737418240, "1000000" where no unit divides it. size_parse() reads it back. */
const char *size_format_exact(uint64_t bytes, char text[static SIZE_TEXT_SIZE]);
/* For reading: three digits at most, "9.5G", "512M", "17K", "12B". */
const char *size_format(uint64_t bytes, char text[static SIZE_TEXT_SIZE]);

#endif
