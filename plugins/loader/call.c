/* Calling a plugin: options checked against what it declares, defaults filled in, its words carried over. */
#include "plugins/loader/loader.h"
#include "plugins/common/option.h"

#include <errno.h>
#include <string.h>

#define OPTIONS_MAX 32

static const struct director_parameter *parameter_find(const struct director_plugin *plugin, const char *name)
{
    for (const struct director_parameter *p = plugin->parameters; p && p->name; p++)
        if (strcmp(p->name, name) == 0)
            return p;
    return NULL;
}

/* "block, direct", or "none". */
static void parameter_names(const struct director_plugin *plugin, bool live_only, char *text, size_t size)
{
    size_t used = 0;
    (void)snprintf(text, size, "none");
    for (const struct director_parameter *p = plugin->parameters; p && p->name && used < size; p++)
        if (!live_only || (p->flags & DIRECTOR_PARAMETER_LIVE))
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", p->name);
}

static int value_check(const struct director_parameter *parameter, const char *value)
{
    uint64_t number;
    bool truth;
    switch (parameter->type) {
    case DIRECTOR_PARAMETER_STRING:
        return 0;
    case DIRECTOR_PARAMETER_SIZE:
        return option_parse_size(value, &number);
    case DIRECTOR_PARAMETER_NUMBER:
        return option_parse_number(value, &number);
    case DIRECTOR_PARAMETER_BOOL:
        return option_parse_bool(value, &truth);
    }
    return -EINVAL;
}

static const char *type_words(enum director_parameter_type type)
{
    switch (type) {
    case DIRECTOR_PARAMETER_STRING:
        return "a text";
    case DIRECTOR_PARAMETER_SIZE:
        return "a size such as 4096, 64K or 10G";
    case DIRECTOR_PARAMETER_NUMBER:
        return "a number";
    case DIRECTOR_PARAMETER_BOOL:
        return "yes or no";
    }
    return "something else";
}

int plugin_options_check(const struct director_plugin *plugin, const struct director_option *options,
                         enum plugin_options_use use, struct error *error)
{
    char names[120];
    bool live = use == PLUGIN_OPTIONS_CONFIGURE;
    unsigned count = 0;
    for (const struct director_option *o = options; o && o->name; o++) {
        const struct director_parameter *parameter = parameter_find(plugin, o->name);
        if (!parameter || (live && !(parameter->flags & DIRECTOR_PARAMETER_LIVE))) {
            parameter_names(plugin, live, names, sizeof(names));
            return error_set(error, -EINVAL, "%s %s has no parameter \"%s\"%s; it has: %s", plugin_kind_name(plugin->kind),
                             plugin->name, o->name, parameter ? " that can be changed while open" : "", names);
        }
        if (!o->value || value_check(parameter, o->value) < 0)
            return error_set(error, -EINVAL, "parameter %s of %s %s must be %s, not \"%s\"", o->name,
                             plugin_kind_name(plugin->kind), plugin->name, type_words(parameter->type),
                             o->value ? o->value : "");
        for (const struct director_option *earlier = options; earlier < o; earlier++)
            if (strcmp(earlier->name, o->name) == 0)
                return error_set(error, -EINVAL, "parameter %s of %s %s is given twice", o->name,
                                 plugin_kind_name(plugin->kind), plugin->name);
        count++;
    }
    if (count > OPTIONS_MAX)
        return error_set(error, -EINVAL, "more than %d parameters for %s %s", OPTIONS_MAX, plugin_kind_name(plugin->kind),
                         plugin->name);
    for (const struct director_parameter *p = plugin->parameters; !live && p && p->name; p++)
        if (!p->default_text && !option_find(options, p->name))
            return error_set(error, -EINVAL, "%s %s needs the parameter %s (%s)", plugin_kind_name(plugin->kind),
                             plugin->name, p->name, p->help);
    return 0;
}

/* Check, then list every declared parameter: given or default. */
static int options_complete(const struct director_plugin *plugin, const struct director_option *options,
                            struct director_option complete[OPTIONS_MAX + 1], struct error *error)
{
    unsigned count = 0;
    int result = plugin_options_check(plugin, options, PLUGIN_OPTIONS_OPEN, error);
    if (result < 0)
        return result;
    for (const struct director_parameter *p = plugin->parameters; p && p->name; p++) {
        if (count == OPTIONS_MAX)
            return error_set(error, -EINVAL, "%s %s declares more than %d parameters", plugin_kind_name(plugin->kind),
                             plugin->name, OPTIONS_MAX);
        const char *given = option_find(options, p->name);
        complete[count++] = (struct director_option){p->name, given ? given : p->default_text};
    }
    complete[count] = (struct director_option){NULL, NULL};
    return 0;
}

/* Words of a call that failed: the plugin's own, else what it was about and the errno's. */
static int call_failed(const struct director_plugin *plugin, const char *verb, const char *path, int code,
                       const char *words, struct error *error)
{
    if (words[0])
        return error_set(error, code, "%s", words);
    return error_set(error, code, "%s %s cannot %s %s: %s", plugin_kind_name(plugin->kind), plugin->name, verb,
                     path ? path : "it", strerror(-code));
}

static int lacks(const struct director_plugin *plugin, const char *verb, struct error *error)
{
    return error_set(error, -ENOTSUP, "%s %s has no %s", plugin_kind_name(plugin->kind), plugin->name, verb);
}

int plugin_create(const struct director_plugin *plugin, const char *path, uint64_t size_bytes,
                  const struct director_option *options, struct error *error)
{
    struct director_option complete[OPTIONS_MAX + 1];
    char words[200] = "";
    struct director_plugin_error plugin_error = {words, sizeof(words)};
    if (!plugin->create)
        return lacks(plugin, "create", error);
    int result = options_complete(plugin, options, complete, error);
    if (result < 0)
        return result;
    result = plugin->create(path, size_bytes, complete, &plugin_error);
    return result < 0 ? call_failed(plugin, "create", path, result, words, error) : 0;
}

int plugin_grow(const struct director_plugin *plugin, const char *path, uint64_t size_bytes, struct error *error)
{
    char words[200] = "";
    struct director_plugin_error plugin_error = {words, sizeof(words)};
    if (!plugin->grow)
        return lacks(plugin, "grow", error);
    int result = plugin->grow(path, size_bytes, &plugin_error);
    return result < 0 ? call_failed(plugin, "make larger", path, result, words, error) : 0;
}

int plugin_remove(const struct director_plugin *plugin, const char *path, struct error *error)
{
    char words[200] = "";
    struct director_plugin_error plugin_error = {words, sizeof(words)};
    if (!plugin->remove)
        return lacks(plugin, "remove", error);
    int result = plugin->remove(path, &plugin_error);
    return result < 0 ? call_failed(plugin, "remove", path, result, words, error) : 0;
}

int plugin_space(const struct director_plugin *plugin, const char *store, uint64_t *ret_capacity_bytes,
                 uint64_t *ret_free_bytes, struct error *error)
{
    if (!plugin->space)
        return lacks(plugin, "space", error);
    int result = plugin->space(store, ret_capacity_bytes, ret_free_bytes);
    return result < 0 ? call_failed(plugin, "measure", store, result, "", error) : 0;
}

int plugin_open(const struct director_plugin *plugin, struct uv_loop_s *loop, const char *path, struct block_device *lower,
                const struct director_option *options, struct block_device **ret_device, struct error *error)
{
    struct director_option complete[OPTIONS_MAX + 1];
    char words[200] = "";
    struct director_plugin_error plugin_error = {words, sizeof(words)};
    if ((plugin->kind == DIRECTOR_PLUGIN_FILTER) != (lower != NULL))
        return error_set(error, -EINVAL, "%s %s %s", plugin_kind_name(plugin->kind), plugin->name,
                         lower ? "cannot be stacked on a device" : "needs a device to be stacked on");
    int result = options_complete(plugin, options, complete, error);
    if (result < 0)
        return result;
    result = plugin->open(loop, path, lower, complete, ret_device, &plugin_error);
    return result < 0 ? call_failed(plugin, "open", path, result, words, error) : 0;
}

int plugin_configure(const struct director_plugin *plugin, struct block_device *device,
                     const struct director_option *options, struct error *error)
{
    char words[200] = "";
    struct director_plugin_error plugin_error = {words, sizeof(words)};
    if (!plugin->configure)
        return lacks(plugin, "parameters that can be changed while open", error);
    int result = plugin_options_check(plugin, options, PLUGIN_OPTIONS_CONFIGURE, error);
    if (result < 0)
        return result;
    result = plugin->configure(device, options, &plugin_error);
    return result < 0 ? call_failed(plugin, "configure", device->kind, result, words, error) : 0;
}
