/* Writing JSON (RFC 8259) into a struct text. Commas and nesting are kept by the writer; names are NULL inside arrays. */
#ifndef DIRECTOR_BASE_JSON_H
#define DIRECTOR_BASE_JSON_H

#include "director/base/text.h"
#include <stdint.h>

#define JSON_DEPTH_MAX 16

/* Start with {.text = &text, .indent = 2 or 0}. */
struct json {
    struct text *text;
    unsigned indent; /* blanks per level; 0: all on one line */
    unsigned depth;
    bool filled[JSON_DEPTH_MAX + 1];
};

void json_object_begin(struct json *json, const char *name);
void json_object_end(struct json *json);
void json_array_begin(struct json *json, const char *name);
void json_array_end(struct json *json);
/* Bytes that are not UTF-8 become U+FFFD, so that the output always parses. */
void json_string(struct json *json, const char *name, const char *value);
void json_number(struct json *json, const char *name, uint64_t value);
void json_signed(struct json *json, const char *name, int64_t value);
void json_bool(struct json *json, const char *name, bool value);
void json_null(struct json *json, const char *name);

#endif
