/* Text that grows, and the nearest of some words. Out of memory is remembered, not returned by each call: text_ok(). */
#ifndef DIRECTOR_BASE_TEXT_H
#define DIRECTOR_BASE_TEXT_H

#include "director/base/common.h"
#include <stdbool.h>

/* Start with {0}. bytes is NULL or ends in a NUL. */
struct text {
    char *bytes;
    size_t used, capacity;
    bool failed;
};

void text_add_bytes(struct text *text, const char *bytes, size_t size);
void text_add(struct text *text, const char *string);
void text_addf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Never NULL. Part of text. */
static inline const char *text_get(const struct text *text)
{
    return text->bytes ? text->bytes : "";
}
/* False once an allocation failed: what is there is then cut short. */
static inline bool text_ok(const struct text *text)
{
    return !text->failed;
}
/* Hand the bytes to the caller, who frees them; text is empty afterwards. NULL when out of memory. */
MUST_CHECK char *text_take(struct text *text);
void text_done(struct text *text);

/* How many single-letter edits (change, insert, remove, swap of neighbours) make b of a; at most limit + 1 is told. */
unsigned text_distance(const char *a, const char *b, unsigned limit);

/* Feed candidates one by one; the nearest to word that is near enough to be meant remains. Start with {.word = word}. */
struct text_nearest {
    const char *word;
    char best[256]; /* "" when none is near */
    unsigned distance;
};
void text_nearest_offer(struct text_nearest *nearest, const char *candidate);

#endif
