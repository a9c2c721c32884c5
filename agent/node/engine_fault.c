#define LOG_MODULE "faults"
#include "agent/node/engine_internal.h"

#include "director/base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FAULT_OPTIONS_MAX 16u

/* One line of the file. */
struct fault_rule {
    const char *filter, *volume;
    struct director_option options[FAULT_OPTIONS_MAX + 1];
};

static const char *layer_filter(unsigned layer)
{
    return layer == 0 ? "volatile" : layer == 1 ? "delay" : "error";
}

static const struct director_plugin *filter_find(struct engine *engine, const char *name, struct error *error)
{
    return plugin_loader_find(engine->options.plugins, DIRECTOR_PLUGIN_FILTER, name, error);
}

/* Take one line apart in place. 1: a rule; 0: nothing in it; negative errno with words. */
static int rule_parse(char *line, struct fault_rule *ret_rule, struct error *error)
{
    struct fault_rule rule = {0};
    unsigned count = 0;
    char *kept;
    line[strcspn(line, "#")] = '\0';
    for (char *word = strtok_r(line, " \t", &kept); word; word = strtok_r(NULL, " \t", &kept)) {
        char *value = strchr(word, '=');
        if (!rule.filter && !value) {
            rule.filter = word;
            continue;
        }
        if (!value)
            return error_set(error, -EINVAL, "\"%s\" is no NAME=VALUE", word);
        *value++ = '\0';
        if (!rule.filter && !strcmp(word, "volume")) {
            rule.volume = value;
            continue;
        }
        if (!rule.filter || count == FAULT_OPTIONS_MAX)
            return error_set(error, -EINVAL, "a rule is [volume=NAME] volatile|delay|error NAME=VALUE ..., at most %u of them",
                             FAULT_OPTIONS_MAX);
        rule.options[count++] = (struct director_option){word, value};
    }
    if (!rule.filter)
        return rule.volume ? error_set(error, -EINVAL, "volume=%s without a rule", rule.volume) : 0;
    *ret_rule = rule;
    return 1;
}

/* Give one filter all its live parameters: what the rule (may be NULL) says, else the default. */
static int layer_set(struct engine *engine, const char *filter, struct block_device *device, const struct fault_rule *rule,
                     struct error *error)
{
    struct director_option options[FAULT_OPTIONS_MAX * 2 + 1] = {0};
    unsigned count = 0;
    const struct director_plugin *plugin = filter_find(engine, filter, error);
    if (!plugin)
        return -ENOENT;
    for (; rule && rule->options[count].name; count++)
        options[count] = rule->options[count];
    for (const struct director_parameter *p = plugin->parameters; p && p->name && count < FAULT_OPTIONS_MAX * 2; p++) {
        bool given = false;
        for (const struct director_option *o = rule ? rule->options : NULL; o && o->name; o++)
            given |= !strcmp(o->name, p->name);
        if (!given && p->flags & DIRECTOR_PARAMETER_LIVE)
            options[count++] = (struct director_option){p->name, p->default_text};
    }
    return device ? plugin_configure(plugin, device, options, error)
                  : plugin_options_check(plugin, options, PLUGIN_OPTIONS_CONFIGURE, error);
}

/* Put a file's text in force for one unit, or, with NULL, only look whether it makes sense. */
static int text_apply(struct engine *engine, struct engine_unit *unit, const char *text, struct error *error)
{
    char copy[ENGINE_FAULT_BYTES];
    bool set[ENGINE_FAULT_LAYERS] = {0};
    char *kept;
    (void)snprintf(copy, sizeof(copy), "%s", text);
    for (char *line = strtok_r(copy, "\n", &kept); line; line = strtok_r(NULL, "\n", &kept)) {
        struct fault_rule rule;
        unsigned layer = 0;
        int result = rule_parse(line, &rule, error);
        if (result < 0)
            return result;
        if (result == 0 || (unit && rule.volume && strcmp(rule.volume, unit->config.volume.name)))
            continue;
        while (layer < ENGINE_FAULT_LAYERS && (strcmp(layer_filter(layer), rule.filter) || (unit && set[layer])))
            layer++;
        if (layer == ENGINE_FAULT_LAYERS)
            return error_set(error, -EINVAL, "no filter \"%s\" is left: there are one volatile, one delay and %u error", rule.filter,
                             ENGINE_FAULT_ERRORS);
        result = layer_set(engine, rule.filter, unit ? unit->faults.layers[layer] : NULL, &rule, error);
        if (result < 0)
            return result;
        set[layer] = true;
    }
    for (unsigned layer = 0; unit && layer < ENGINE_FAULT_LAYERS; layer++) {
        int result = set[layer] ? 0 : layer_set(engine, layer_filter(layer), unit->faults.layers[layer], NULL, error);
        if (result < 0)
            return result;
    }
    return 0;
}

/* The file's text; a missing file is an empty one. 1: it changed. 0: it did not. */
static int file_read(struct engine_faults *faults, char text[static ENGINE_FAULT_BYTES], struct error *error)
{
    struct stat status = {0};
    if (stat(faults->path, &status) < 0)
        memset(&status, 0, sizeof(status));
    if (status.st_ino == faults->inode && (uint64_t)status.st_size == faults->size_bytes &&
        status.st_mtim.tv_sec == faults->changed.tv_sec && status.st_mtim.tv_nsec == faults->changed.tv_nsec)
        return 0;
    faults->inode = status.st_ino;
    faults->size_bytes = (uint64_t)status.st_size;
    faults->changed = status.st_mtim;
    int fd = status.st_ino ? open(faults->path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t got = fd < 0 ? 0 : read(fd, text, ENGINE_FAULT_BYTES);
    int failed = errno;
    if (fd >= 0)
        close(fd);
    if (got < 0 || got == (ssize_t)ENGINE_FAULT_BYTES)
        return error_set(error, got < 0 ? -failed : -EFBIG, "%s", got < 0 ? strerror(failed) : "it is too long");
    text[got] = '\0';
    return 1;
}

void engine_fault_tick(struct engine *engine)
{
    struct engine_faults *faults = &engine->faults;
    struct error error = {0};
    char text[ENGINE_FAULT_BYTES];
    if (!faults->path)
        return;
    int result = file_read(faults, text, &error);
    if (result == 0)
        return;
    if (result > 0)
        result = text_apply(engine, NULL, text, &error);
    if (result < 0) {
        log_error("%s: %s; the faults stay as they are", faults->path, error.message);
        return;
    }
    memcpy(faults->text, text, sizeof(text));
    list_foreach(link, &engine->units)
    {
        struct engine_unit *unit = list_entry(link, struct engine_unit, link);
        if (unit->faults.layers[0] && text_apply(engine, unit, text, &error) < 0)
            log_error("%s: volume %s: %s", faults->path, unit->config.volume.name, error.message);
    }
    for (char *p = text; *p; p++)
        *p = *p == '\n' ? ';' : *p;
    log_notice("in force: %s", text[0] ? text : "none");
}

int engine_fault_open(struct engine_unit *unit, struct block_device **device, struct error *error)
{
    struct engine *engine = unit->engine;
    if (!engine->faults.path)
        return 0;
    for (unsigned layer = 0; layer < ENGINE_FAULT_LAYERS; layer++) {
        const struct director_plugin *plugin = filter_find(engine, layer_filter(layer), error);
        int result = plugin ? plugin_open(plugin, &engine->loop, NULL, *device, NULL, &unit->faults.layers[layer], error) : -ENOENT;
        if (result < 0) {
            engine_fault_forget(unit);
            return result;
        }
        *device = unit->faults.layers[layer];
    }
    return text_apply(engine, unit, engine->faults.text, error);
}

void engine_fault_forget(struct engine_unit *unit)
{
    memset(&unit->faults, 0, sizeof(unit->faults));
}
