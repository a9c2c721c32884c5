#include "director/base/json.h"

#include <inttypes.h>
#include <string.h>

/* Length of the well-formed UTF-8 sequence at p (Unicode 15, table 3-7), 0 when it is none. */
static size_t utf8_length(const unsigned char *p)
{
    unsigned char lead = p[0], low = 0x80, high = 0xbf;
    size_t length;
    if (lead < 0x80)
        return 1;
    if (lead >= 0xc2 && lead <= 0xdf)
        length = 2;
    else if (lead >= 0xe0 && lead <= 0xef)
        length = 3;
    else if (lead >= 0xf0 && lead <= 0xf4)
        length = 4;
    else
        return 0;
    if (lead == 0xe0)
        low = 0xa0;
    else if (lead == 0xed)
        high = 0x9f;
    else if (lead == 0xf0)
        low = 0x90;
    else if (lead == 0xf4)
        high = 0x8f;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

static void quote(struct text *text, const char *value)
{
    text_add(text, "\"");
    for (const unsigned char *p = (const unsigned char *)value; *p;) {
        size_t length = utf8_length(p);
        if (length == 0) {
            text_add(text, "\\ufffd");
            p++;
            continue;
        }
        if (*p == '"' || *p == '\\')
            text_addf(text, "\\%c", *p);
        else if (*p == '\n')
            text_add(text, "\\n");
        else if (*p == '\t')
            text_add(text, "\\t");
        else if (*p < 0x20 || *p == 0x7f)
            text_addf(text, "\\u%04x", *p);
        else
            text_add_bytes(text, (const char *)p, length);
        p += length;
    }
    text_add(text, "\"");
}

static void new_line(struct json *json)
{
    if (json->indent)
        text_addf(json->text, "\n%*s", (int)(json->depth * json->indent), "");
}

static void item(struct json *json, const char *name)
{
    if (json->depth) {
        if (json->filled[json->depth])
            text_add(json->text, json->indent ? "," : ", ");
        new_line(json);
    }
    json->filled[json->depth] = true;
    if (name) {
        quote(json->text, name);
        text_add(json->text, ": ");
    }
}

static void begin(struct json *json, const char *name, const char *bracket)
{
    item(json, name);
    text_add(json->text, bracket);
    ASSERT(json->depth < JSON_DEPTH_MAX);
    json->filled[++json->depth] = false;
}

static void end(struct json *json, const char *bracket)
{
    ASSERT(json->depth > 0);
    bool filled = json->filled[json->depth--];
    if (filled)
        new_line(json);
    text_add(json->text, bracket);
}

void json_object_begin(struct json *json, const char *name)
{
    begin(json, name, "{");
}

void json_object_end(struct json *json)
{
    end(json, "}");
}

void json_array_begin(struct json *json, const char *name)
{
    begin(json, name, "[");
}

void json_array_end(struct json *json)
{
    end(json, "]");
}

void json_string(struct json *json, const char *name, const char *value)
{
    item(json, name);
    quote(json->text, value);
}

void json_number(struct json *json, const char *name, uint64_t value)
{
    item(json, name);
    text_addf(json->text, "%" PRIu64, value);
}

void json_signed(struct json *json, const char *name, int64_t value)
{
    item(json, name);
    text_addf(json->text, "%" PRId64, value);
}

void json_bool(struct json *json, const char *name, bool value)
{
    item(json, name);
    text_add(json->text, value ? "true" : "false");
}

void json_null(struct json *json, const char *name)
{
    item(json, name);
    text_add(json->text, "null");
}
