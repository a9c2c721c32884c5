#include "target/core/iscsi_text.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

int iscsi_text_next(char *text, uint32_t bytes, uint32_t *at, char **ret_key, char **ret_value)
{
    while (*at < bytes && text[*at] == '\0') /* padding some initiators count in */
        (*at)++;
    if (*at >= bytes)
        return 0;
    char *key = text + *at, *end = memchr(key, '\0', bytes - *at);
    if (!end)
        return -EPROTO;
    char *equals = memchr(key, '=', (size_t)(end - key));
    if (!equals || equals == key || equals - key > (ptrdiff_t)ISCSI_KEY_MAX_BYTES)
        return -EPROTO;
    *equals = '\0';
    *ret_key = key;
    *ret_value = equals + 1;
    *at = (uint32_t)(end + 1 - text);
    return 1;
}

static bool reserve(struct iscsi_text *text, uint32_t more)
{
    if (text->failed || more > ISCSI_TEXT_MAX_BYTES - text->length) {
        text->failed = true;
        return false;
    }
    if (text->length + more <= text->room)
        return true;
    uint32_t room = MAX(text->room * 2, MAX(text->length + more, 512u));
    char *bytes = realloc(text->bytes, room);
    if (!bytes) {
        text->failed = true;
        return false;
    }
    text->bytes = bytes;
    text->room = room;
    return true;
}

void iscsi_text_append(struct iscsi_text *text, const void *bytes, uint32_t length)
{
    if (!length || !reserve(text, length))
        return;
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}

void iscsi_text_put(struct iscsi_text *text, const char *key, const char *format, ...)
{
    char value[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(value, sizeof(value), format, arguments);
    va_end(arguments);
    if (length < 0 || length >= (int)sizeof(value)) {
        text->failed = true;
        return;
    }
    iscsi_text_append(text, key, (uint32_t)strlen(key));
    iscsi_text_append(text, "=", 1);
    iscsi_text_append(text, value, (uint32_t)length + 1);
}

void iscsi_text_free(struct iscsi_text *text)
{
    free(text->bytes);
    *text = (struct iscsi_text){0};
}

bool iscsi_text_offers(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

int iscsi_text_number(const char *value, uint32_t *ret_number)
{
    char *end;
    if (*value < '0' || *value > '9')
        return -EPROTO;
    errno = 0;
    bool hex = value[0] == '0' && (value[1] == 'x' || value[1] == 'X');
    unsigned long long number = strtoull(hex ? value + 2 : value, &end, hex ? 16 : 10);
    if (errno || *end || end == value + (hex ? 2 : 0) || number > UINT32_MAX)
        return -EPROTO;
    *ret_number = (uint32_t)number;
    return 0;
}

int iscsi_text_bool(const char *value, bool *ret_bool)
{
    if (strcmp(value, "Yes") != 0 && strcmp(value, "No") != 0)
        return -EPROTO;
    *ret_bool = value[0] == 'Y';
    return 0;
}
