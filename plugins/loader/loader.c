/* The registry: which shared objects are loaded. Calling them is in call.c. */
#include "plugins/loader/loader.h"
#include "director/base/list.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

struct loaded {
    struct list link;
    void *handle;
    char *file;
    struct director_plugin plugin; /* our copy: whole even when built against an older minor version */
};

struct plugin_loader {
    struct director_host host;
    struct list plugins;
};

/* What every plugin of this major version has; later minors only add behind it. */
#define PLUGIN_BYTES_1_0 (offsetof(struct director_plugin, configure) + sizeof(void (*)(void)))

const char *plugin_kind_name(enum director_plugin_kind kind)
{
    switch (kind) {
    case DIRECTOR_PLUGIN_BACKSTORE:
        return "backstore";
    case DIRECTOR_PLUGIN_FILTER:
        return "filter";
    }
    return "unknown";
}

static void log_nothing(int level, const char *text)
{
    (void)level;
    (void)text;
}

int plugin_loader_new(void (*log)(int level, const char *text), struct plugin_loader **ret_loader)
{
    struct plugin_loader *loader = calloc(1, sizeof(*loader));
    if (!loader)
        return -ENOMEM;
    loader->host.struct_bytes = sizeof(loader->host);
    loader->host.log = log ? log : log_nothing;
    list_init(&loader->plugins);
    *ret_loader = loader;
    return 0;
}

static void loaded_free(struct loaded *loaded)
{
    if (loaded->handle)
        dlclose(loaded->handle);
    free(loaded->file);
    free(loaded);
}

void plugin_loader_free(struct plugin_loader *loader)
{
    if (!loader)
        return;
    while (!list_empty(&loader->plugins)) {
        struct loaded *loaded = list_entry(loader->plugins.prev, struct loaded, link);
        list_remove(&loaded->link);
        if (loaded->plugin.unload)
            loaded->plugin.unload();
        loaded_free(loaded);
    }
    free(loader);
}

static bool name_is_good(const char *name)
{
    return name && name[0] >= 'a' && name[0] <= 'z' && strlen(name) <= 32 &&
           name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-")] == '\0';
}

/* Does the description make sense? Everything a later call relies on is looked at here, once. */
static int description_check(const char *file, const struct director_plugin *plugin, struct error *error)
{
    if (!name_is_good(plugin->name))
        return error_set(error, -EINVAL, "plugin file %s: its name is missing or not of [a-z0-9_-]", file);
    if (!plugin->version || !plugin->summary)
        return error_set(error, -EINVAL, "plugin file %s: version or summary is missing", file);
    if (plugin->kind != DIRECTOR_PLUGIN_BACKSTORE && plugin->kind != DIRECTOR_PLUGIN_FILTER)
        return error_set(error, -EINVAL, "plugin file %s: kind %d is unknown", file, (int)plugin->kind);
    if (!plugin->open || (plugin->kind == DIRECTOR_PLUGIN_BACKSTORE && (!plugin->create || !plugin->remove)))
        return error_set(error, -EINVAL, "plugin file %s: a %s must have open%s", file, plugin_kind_name(plugin->kind),
                         plugin->kind == DIRECTOR_PLUGIN_BACKSTORE ? ", create and remove" : "");
    for (const struct director_parameter *p = plugin->parameters; p && p->name; p++) {
        if (!name_is_good(p->name) || !p->help || p->type < DIRECTOR_PARAMETER_STRING || p->type > DIRECTOR_PARAMETER_BOOL)
            return error_set(error, -EINVAL, "plugin file %s: parameter \"%s\" is badly declared", file, p->name);
        if ((p->flags & DIRECTOR_PARAMETER_LIVE) && !plugin->configure)
            return error_set(error, -EINVAL, "plugin file %s: parameter \"%s\" is live, but there is no configure", file,
                             p->name);
    }
    return 0;
}

/* Copy the description out of the shared object if its version is ours. */
static int description_copy(const char *file, const struct director_plugin *theirs, struct director_plugin *ret_plugin,
                            struct error *error)
{
    if (theirs->abi_major != DIRECTOR_PLUGIN_ABI_MAJOR)
        return error_set(error, -EPROTONOSUPPORT, "plugin file %s is built for plugin ABI %u, this is %u: rebuild it", file,
                         theirs->abi_major, DIRECTOR_PLUGIN_ABI_MAJOR);
    if (theirs->struct_bytes < PLUGIN_BYTES_1_0)
        return error_set(error, -EINVAL, "plugin file %s: its description is %u bytes long, at least %zu are needed", file,
                         theirs->struct_bytes, PLUGIN_BYTES_1_0);
    memset(ret_plugin, 0, sizeof(*ret_plugin));
    memcpy(ret_plugin, theirs, MIN(theirs->struct_bytes, sizeof(*ret_plugin)));
    return 0;
}

int plugin_loader_load(struct plugin_loader *loader, const char *file, struct error *error)
{
    int result;
    struct loaded *loaded = calloc(1, sizeof(*loaded));
    if (!loaded)
        return error_set(error, -ENOMEM, "no memory for plugin file %s", file);
    loaded->file = strdup(file);
    if (!loaded->file) {
        result = error_set(error, -ENOMEM, "no memory for plugin file %s", file);
        goto fail;
    }
    loaded->handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!loaded->handle) {
        const char *why = dlerror();
        result = error_set(error, -ENOENT, "plugin file %s cannot be loaded: %s", file, why ? why : "unknown reason");
        goto fail;
    }
    const struct director_plugin *theirs = dlsym(loaded->handle, "director_plugin");
    if (!theirs) {
        result = error_set(error, -ELIBBAD, "%s is not a Director plugin: it has no symbol director_plugin", file);
        goto fail;
    }
    result = description_copy(file, theirs, &loaded->plugin, error);
    if (result < 0)
        goto fail;
    result = description_check(file, &loaded->plugin, error);
    if (result < 0)
        goto fail;
    list_foreach(node, &loader->plugins) {
        const struct loaded *other = list_entry(node, struct loaded, link);
        if (other->plugin.kind == loaded->plugin.kind && strcmp(other->plugin.name, loaded->plugin.name) == 0) {
            result = error_set(error, -EEXIST, "plugin file %s: %s %s is already loaded from %s", file,
                               plugin_kind_name(other->plugin.kind), other->plugin.name, other->file);
            goto fail;
        }
    }
    if (loaded->plugin.load) {
        result = loaded->plugin.load(&loader->host);
        if (result < 0) {
            (void)error_set(error, result, "plugin file %s refuses to start: %s", file, strerror(-result));
            goto fail;
        }
    }
    list_append(&loader->plugins, &loaded->link);
    return 0;
fail:
    loaded_free(loaded);
    return result;
}

static int is_shared_object(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length > 3 && entry->d_name[0] != '.' && strcmp(entry->d_name + length - 3, ".so") == 0;
}

int plugin_loader_load_folder(struct plugin_loader *loader, const char *folder, plugin_refused *refused, void *context,
                              struct error *error)
{
    struct dirent **entries;
    int loaded = 0;
    int count = scandir(folder, &entries, is_shared_object, alphasort);
    if (count < 0) {
        int code = -errno;
        return error_set(error, code, "plugin folder %s cannot be read: %s", folder, strerror(-code));
    }
    for (int i = 0; i < count; i++) {
        char file[4096];
        struct error why = {0};
        int result;
        if ((size_t)snprintf(file, sizeof(file), "%s/%s", folder, entries[i]->d_name) >= sizeof(file))
            result = error_set(&why, -ENAMETOOLONG, "plugin file %s: the path is too long", entries[i]->d_name);
        else
            result = plugin_loader_load(loader, file, &why);
        if (result == 0)
            loaded++;
        else if (refused)
            refused(file, &why, context);
        free(entries[i]);
    }
    free(entries);
    return loaded;
}

const struct director_plugin *plugin_loader_find(const struct plugin_loader *loader, enum director_plugin_kind kind,
                                                 const char *name, struct error *error)
{
    char names[160] = "";
    size_t used = 0;
    list_foreach(node, &loader->plugins) {
        const struct loaded *loaded = list_entry(node, struct loaded, link);
        if (loaded->plugin.kind != kind)
            continue;
        if (strcmp(loaded->plugin.name, name) == 0)
            return &loaded->plugin;
        if (used < sizeof(names))
            used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", used ? ", " : "", loaded->plugin.name);
    }
    (void)error_set(error, -ENOENT, "there is no %s \"%s\"; loaded are: %s", plugin_kind_name(kind), name,
                    names[0] ? names : "none");
    return NULL;
}

bool plugin_loader_get(const struct plugin_loader *loader, size_t index, struct plugin_info *ret_info)
{
    list_foreach(node, &loader->plugins) {
        const struct loaded *loaded = list_entry(node, struct loaded, link);
        if (index-- == 0) {
            ret_info->plugin = &loaded->plugin;
            ret_info->file = loaded->file;
            return true;
        }
    }
    return false;
}
