/* Text of login and text PDUs: key=value pairs, each ended by NUL. RFC 7143 §6.1. */
#ifndef DIRECTOR_TARGET_CORE_ISCSI_TEXT_H
#define DIRECTOR_TARGET_CORE_ISCSI_TEXT_H

#include "director/base/common.h"
#include <stdbool.h>

#define ISCSI_TEXT_MAX_BYTES 65536u /* of one negotiation message over all its PDUs */
#define ISCSI_KEY_MAX_BYTES  63u    /* §6.1 */

/* Read the next pair of text[*at .. bytes). 1: *ret_key and *ret_value (NUL-terminated, the pair cut in place in text,
 * which must be writable) are set; 0: no more; -EPROTO: no "=", key too long, or no closing NUL. */
MUST_CHECK int iscsi_text_next(char *text, uint32_t bytes, uint32_t *at, char **ret_key, char **ret_value);

/* Text under construction; grows to ISCSI_TEXT_MAX_BYTES, then sets failed. */
struct iscsi_text {
    char *bytes;
    uint32_t length, room;
    bool failed;
};

void iscsi_text_put(struct iscsi_text *text, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void iscsi_text_append(struct iscsi_text *text, const void *bytes, uint32_t length);
void iscsi_text_free(struct iscsi_text *text);

/* Is word one of the comma separated words of list? */
bool iscsi_text_offers(const char *list, const char *word);
/* A number: decimal or 0x hex, §6.1. -EPROTO when it is none, or larger than 32 bits. */
MUST_CHECK int iscsi_text_number(const char *value, uint32_t *ret_number);
/* "Yes" or "No". */
MUST_CHECK int iscsi_text_bool(const char *value, bool *ret_bool);

#endif
