/* Options of plugins: finding one, and turning its text into a value. Used by plugins and by the loader's checks. */
#ifndef PLUGINS_COMMON_OPTION_H
#define PLUGINS_COMMON_OPTION_H

#include "director/base/common.h"
#include <director/plugin.h>
#include <stdbool.h>

/* Text of the option called name, or NULL. options may be NULL. The text is the caller's of the plugin. */
const char *option_find(const struct director_option *options, const char *name);

/* "4096", "64K", "10G", "1T" (powers of 1024; i and B after the letter are allowed: "10GiB"). -EINVAL, -ERANGE. */
MUST_CHECK int option_parse_size(const char *text, uint64_t *ret_bytes);
/* Unsigned decimal. -EINVAL, -ERANGE. */
MUST_CHECK int option_parse_number(const char *text, uint64_t *ret_number);
/* "yes" or "no" (also true/false, on/off, 1/0). -EINVAL. */
MUST_CHECK int option_parse_bool(const char *text, bool *ret_value);

/* The same for an option of a list: *value stays as it was when the option is absent. */
MUST_CHECK int option_get_size(const struct director_option *options, const char *name, uint64_t *value);
MUST_CHECK int option_get_number(const struct director_option *options, const char *name, uint64_t *value);
MUST_CHECK int option_get_bool(const struct director_option *options, const char *name, bool *value);

/* Put words into error (may be NULL) and return code. */
int plugin_error_set(struct director_plugin_error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
