#include "replication/core/bitmap.h"
#include "director/base/bytes.h"
#include <errno.h>
#include <string.h>

static uint32_t bitmap_words(uint32_t bits)
{
    return (bits + 63) / 64;
}

int bitmap_init(struct bitmap *bitmap, uint32_t bits)
{
    bitmap->bits = bits;
    bitmap->set = 0;
    bitmap->words = calloc(MAX(bitmap_words(bits), 1u), sizeof(uint64_t));
    return bitmap->words ? 0 : -ENOMEM;
}

void bitmap_done(struct bitmap *bitmap)
{
    free(bitmap->words);
    bitmap->words = NULL;
    bitmap->bits = bitmap->set = 0;
}

uint32_t bitmap_bytes(uint32_t bits)
{
    return bitmap_words(bits) * 8;
}

bool bitmap_set(struct bitmap *bitmap, uint32_t bit)
{
    uint64_t mask = 1ull << (bit % 64);
    ASSERT(bit < bitmap->bits);
    if (bitmap->words[bit / 64] & mask)
        return false;
    bitmap->words[bit / 64] |= mask;
    bitmap->set++;
    return true;
}

bool bitmap_clear(struct bitmap *bitmap, uint32_t bit)
{
    uint64_t mask = 1ull << (bit % 64);
    ASSERT(bit < bitmap->bits);
    if (!(bitmap->words[bit / 64] & mask))
        return false;
    bitmap->words[bit / 64] &= ~mask;
    bitmap->set--;
    return true;
}

/* Drop bits beyond the end and count. */
static void bitmap_settle(struct bitmap *bitmap)
{
    uint32_t words = bitmap_words(bitmap->bits);
    if (bitmap->bits % 64)
        bitmap->words[words - 1] &= (1ull << (bitmap->bits % 64)) - 1;
    bitmap->set = 0;
    for (uint32_t i = 0; i < words; i++)
        bitmap->set += (uint32_t)__builtin_popcountll(bitmap->words[i]);
}

void bitmap_fill(struct bitmap *bitmap)
{
    memset(bitmap->words, 0xff, bitmap_bytes(bitmap->bits));
    bitmap_settle(bitmap);
}

void bitmap_zero(struct bitmap *bitmap)
{
    if (bitmap->set)
        memset(bitmap->words, 0, bitmap_bytes(bitmap->bits));
    bitmap->set = 0;
}

void bitmap_or(struct bitmap *to, const struct bitmap *from)
{
    ASSERT(to->bits == from->bits);
    if (!from->set)
        return;
    for (uint32_t i = 0; i < bitmap_words(to->bits); i++)
        to->words[i] |= from->words[i];
    bitmap_settle(to);
}

void bitmap_and(struct bitmap *to, const struct bitmap *from)
{
    ASSERT(to->bits == from->bits);
    for (uint32_t i = 0; i < bitmap_words(to->bits); i++)
        to->words[i] &= from->words[i];
    bitmap_settle(to);
}

void bitmap_copy(struct bitmap *to, const struct bitmap *from)
{
    ASSERT(to->bits == from->bits);
    memcpy(to->words, from->words, bitmap_bytes(to->bits));
    to->set = from->set;
}

bool bitmap_contains(const struct bitmap *whole, const struct bitmap *part)
{
    ASSERT(whole->bits == part->bits);
    if (!part->set)
        return true;
    for (uint32_t i = 0; i < bitmap_words(part->bits); i++)
        if (part->words[i] & ~whole->words[i])
            return false;
    return true;
}

int bitmap_rescale(struct bitmap *bitmap, uint32_t bits, uint32_t factor)
{
    struct bitmap made;
    int result = bitmap_init(&made, bits);
    if (result < 0)
        return result;
    for (uint32_t b = bitmap_next(bitmap, 0); b != BITMAP_NONE; b = bitmap_next(bitmap, b + 1))
        bitmap_set(&made, b / factor);
    bitmap_done(bitmap);
    *bitmap = made;
    return 0;
}

uint32_t bitmap_next(const struct bitmap *bitmap, uint32_t from)
{
    if (!bitmap->set || from >= bitmap->bits)
        return BITMAP_NONE;
    uint32_t i = from / 64, words = bitmap_words(bitmap->bits);
    uint64_t word = bitmap->words[i] & (~0ull << (from % 64));
    while (!word) {
        if (++i >= words)
            return BITMAP_NONE;
        word = bitmap->words[i];
    }
    return i * 64 + (uint32_t)__builtin_ctzll(word);
}

void bitmap_encode(const struct bitmap *bitmap, uint8_t *to)
{
    for (uint32_t i = 0; i < bitmap_words(bitmap->bits); i++)
        put_le64(to + i * 8, bitmap->words[i]);
}

void bitmap_decode(struct bitmap *bitmap, const uint8_t *from)
{
    for (uint32_t i = 0; i < bitmap_words(bitmap->bits); i++)
        bitmap->words[i] = get_le64(from + i * 8);
    bitmap_settle(bitmap);
}
