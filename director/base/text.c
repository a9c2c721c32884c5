#include "director/base/text.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>

static bool text_reserve(struct text *text, size_t more)
{
    if (text->failed || more > SIZE_MAX / 4 - text->used) {
        text->failed = true;
        return false;
    }
    size_t need = text->used + more + 1;
    if (need <= text->capacity)
        return true;
    size_t capacity = text->capacity ? text->capacity : 64;
    while (capacity < need)
        capacity *= 2;
    char *bytes = realloc(text->bytes, capacity);
    if (!bytes) {
        text->failed = true;
        return false;
    }
    text->bytes = bytes;
    text->capacity = capacity;
    return true;
}

void text_add_bytes(struct text *text, const char *bytes, size_t size)
{
    if (!text_reserve(text, size))
        return;
    memcpy(text->bytes + text->used, bytes, size);
    text->used += size;
    text->bytes[text->used] = '\0';
}

void text_add(struct text *text, const char *string)
{
    text_add_bytes(text, string, strlen(string));
}

void text_addf(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0 || !text_reserve(text, (size_t)length))
        return;
    va_start(arguments, format);
    (void)vsnprintf(text->bytes + text->used, (size_t)length + 1, format, arguments);
    va_end(arguments);
    text->used += (size_t)length;
}

char *text_take(struct text *text)
{
    char *bytes = NULL;
    if (text_reserve(text, 0)) {
        bytes = text->bytes;
        bytes[text->used] = '\0';
        text->bytes = NULL;
    }
    text_done(text);
    return bytes;
}

void text_done(struct text *text)
{
    free(text->bytes);
    *text = (struct text){0};
}

/* Damerau's distance in its "optimal string alignment" form, three rows at a time. Case does not count. */
unsigned text_distance(const char *a, const char *b, unsigned limit)
{
    enum { LONGEST = 128 };
    size_t la = strlen(a), lb = strlen(b);
    if (la > LONGEST || lb > LONGEST || (la > lb ? la - lb : lb - la) > limit)
        return limit + 1;
    unsigned rows[3][LONGEST + 1];
    for (size_t j = 0; j <= lb; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= lb; j++) {
            int ca = tolower((unsigned char)a[i - 1]), cb = tolower((unsigned char)b[j - 1]);
            unsigned best = above[j - 1] + (ca != cb);
            best = MIN(best, above[j] + 1);
            best = MIN(best, row[j - 1] + 1);
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) && cb == tolower((unsigned char)a[i - 2]))
                best = MIN(best, above2[j - 2] + 1);
            row[j] = best;
        }
    }
    unsigned distance = rows[la % 3][lb];
    return MIN(distance, limit + 1);
}

void text_nearest_offer(struct text_nearest *nearest, const char *candidate)
{
    size_t length = strlen(nearest->word), other = strlen(candidate);
    unsigned limit = length <= 2 ? 1 : length <= 5 ? 2 : 3;
    unsigned distance = text_distance(nearest->word, candidate, limit);
    /* A word that was begun but not finished counts as near. */
    if (distance > limit && length >= 2 && other > length && strncmp(nearest->word, candidate, length) == 0)
        distance = limit;
    if (distance > limit || (nearest->best[0] && distance >= nearest->distance))
        return;
    nearest->distance = distance;
    (void)snprintf(nearest->best, sizeof(nearest->best), "%s", candidate);
}
