/* A plain set of region numbers, with ranges of bytes mapped to regions. Pure; memory is taken at init only. */
#ifndef DIRECTOR_REPLICATION_BITMAP_H
#define DIRECTOR_REPLICATION_BITMAP_H

#include "director/base/common.h"
#include <stdbool.h>
#include <stdint.h>

struct bitmap {
    uint64_t *words; /* little endian in memory as on the wire: bit b is words[b / 64] >> (b % 64) */
    uint32_t bits;
    uint32_t set; /* number of ones */
};

#define BITMAP_NONE UINT32_MAX

/* All zeroes. 0 or -ENOMEM. */
MUST_CHECK int bitmap_init(struct bitmap *bitmap, uint32_t bits);
void bitmap_done(struct bitmap *bitmap);

/* Bytes of the encoded form: bits rounded up to whole 64-bit words. */
uint32_t bitmap_bytes(uint32_t bits);

static inline bool bitmap_test(const struct bitmap *bitmap, uint32_t bit)
{
    return bitmap->words[bit / 64] >> (bit % 64) & 1;
}

/* True when the bit changed. */
bool bitmap_set(struct bitmap *bitmap, uint32_t bit);
bool bitmap_clear(struct bitmap *bitmap, uint32_t bit);
void bitmap_fill(struct bitmap *bitmap);
void bitmap_zero(struct bitmap *bitmap);
/* to |= from, to &= from, to = from; the sizes are equal. */
void bitmap_or(struct bitmap *to, const struct bitmap *from);
void bitmap_and(struct bitmap *to, const struct bitmap *from);
void bitmap_copy(struct bitmap *to, const struct bitmap *from);
/* Is every bit of part in whole? */
bool bitmap_contains(const struct bitmap *whole, const struct bitmap *part);
/* The same set over another number of regions: each new one covers factor old ones (a power of two), and is in the set when one of
 * these is; those beyond the old end are not. 0 or -ENOMEM, and the bitmap as it was. */
MUST_CHECK int bitmap_rescale(struct bitmap *bitmap, uint32_t bits, uint32_t factor);
/* The first one at or after from, or BITMAP_NONE. */
uint32_t bitmap_next(const struct bitmap *bitmap, uint32_t from);
/* Little-endian words of the whole set, bitmap_bytes() long. Decoding takes any bytes: bits beyond the end are ignored. */
void bitmap_encode(const struct bitmap *bitmap, uint8_t *to);
void bitmap_decode(struct bitmap *bitmap, const uint8_t *from);

#endif
