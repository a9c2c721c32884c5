#include "plugins/common/option.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

const char *option_find(const struct director_option *options, const char *name)
{
    for (; options && options->name; options++)
        if (strcmp(options->name, name) == 0)
            return options->value;
    return NULL;
}

/* Digits up to *ret_end. strtoull is too kind: it takes signs and blanks. */
static int parse_digits(const char *text, uint64_t *ret_number, const char **ret_end)
{
    uint64_t number = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(number, 10, &number) || __builtin_add_overflow(number, (uint64_t)(*p - '0'), &number))
            return -ERANGE;
    }
    if (p == text)
        return -EINVAL;
    *ret_number = number;
    *ret_end = p;
    return 0;
}

int option_parse_number(const char *text, uint64_t *ret_number)
{
    uint64_t number;
    const char *end;
    int result = parse_digits(text, &number, &end);
    if (result < 0)
        return result;
    if (*end)
        return -EINVAL;
    *ret_number = number;
    return 0;
}

int option_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char letters[] = "KMGTPE";
    uint64_t bytes;
    const char *end;
    int result = parse_digits(text, &bytes, &end);
    if (result < 0)
        return result;
    if (*end) {
        char upper = *end >= 'a' && *end <= 'z' ? (char)(*end - 'a' + 'A') : *end;
        const char *letter = strchr(letters, upper);
        if (!letter)
            return -EINVAL;
        end++;
        if (end[0] == 'i' && end[1] == 'B')
            end += 2;
        else if (end[0] == 'i' || end[0] == 'B')
            end++;
        if (*end)
            return -EINVAL;
        if (__builtin_mul_overflow(bytes, (uint64_t)1 << (10 * (letter - letters + 1)), &bytes))
            return -ERANGE;
    }
    *ret_bytes = bytes;
    return 0;
}

int option_parse_bool(const char *text, bool *ret_value)
{
    static const char *const words[][2] = {{"no", "yes"}, {"false", "true"}, {"off", "on"}, {"0", "1"}};
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        for (int value = 0; value < 2; value++) {
            if (strcmp(text, words[i][value]) == 0) {
                *ret_value = value;
                return 0;
            }
        }
    }
    return -EINVAL;
}

int option_get_size(const struct director_option *options, const char *name, uint64_t *value)
{
    const char *text = option_find(options, name);
    return text ? option_parse_size(text, value) : 0;
}

int option_get_number(const struct director_option *options, const char *name, uint64_t *value)
{
    const char *text = option_find(options, name);
    return text ? option_parse_number(text, value) : 0;
}

int option_get_bool(const struct director_option *options, const char *name, bool *value)
{
    const char *text = option_find(options, name);
    return text ? option_parse_bool(text, value) : 0;
}

int plugin_error_set(struct director_plugin_error *error, int code, const char *format, ...)
{
    if (error && error->message && error->size) {
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(error->message, error->size, format, arguments);
        va_end(arguments);
    }
    return code;
}
