/* Finds, checks and keeps the plugins of one process, and calls them with checked options and words for the operator.
 *
 * A loader is used by one thread at a time while plugins are being loaded; after that, looking up and calling is free for
 * any thread (the registry does not change). What thread a plugin's function wants is said in <director/plugin.h>. */
#ifndef PLUGINS_LOADER_LOADER_H
#define PLUGINS_LOADER_LOADER_H

#include "director/base/error.h"
#include <director/plugin.h>

struct plugin_loader;

/* What is known of a loaded plugin. Both live as long as the loader. */
struct plugin_info {
    const struct director_plugin *plugin;
    const char *file;
};

/* Told of each file of a folder that was refused. */
typedef void plugin_refused(const char *file, const struct error *error, void *context);

/* A loader without plugins. log takes the plugins' own lines (level 0 error ... 4 debug, any thread); may be NULL.
 * The caller frees *ret_loader by plugin_loader_free(). 0 or -ENOMEM. */
MUST_CHECK int plugin_loader_new(void (*log)(int level, const char *text), struct plugin_loader **ret_loader);

/* Unload all. Every device they opened must have been closed. NULL is fine. */
void plugin_loader_free(struct plugin_loader *loader);

/* Load one shared object. Errors: -ENOENT, -ELIBBAD (not a plugin), -EPROTONOSUPPORT (another ABI), -EEXIST (a plugin of
 * that kind and name is loaded), -EINVAL (its description makes no sense), or what its load() says. */
MUST_CHECK int plugin_loader_load(struct plugin_loader *loader, const char *file, struct error *error);

/* Load every *.so of a folder, in the order of their names. A file that is refused is told and skipped. Returns how many
 * were loaded, or a negative errno when the folder cannot be read. */
MUST_CHECK int plugin_loader_load_folder(struct plugin_loader *loader, const char *folder, plugin_refused *refused,
                                         void *context, struct error *error);

/* A plugin by kind and name, or NULL with -ENOENT in error (may be NULL), which names the ones there are. */
const struct director_plugin *plugin_loader_find(const struct plugin_loader *loader, enum director_plugin_kind kind,
                                                 const char *name, struct error *error);

/* For listing: the index-th plugin in order of loading. False past the last. */
bool plugin_loader_get(const struct plugin_loader *loader, size_t index, struct plugin_info *ret_info);

/* "backstore" or "filter". */
const char *plugin_kind_name(enum director_plugin_kind kind);

enum plugin_options_use {
    PLUGIN_OPTIONS_OPEN,      /* create and open: required ones must be there */
    PLUGIN_OPTIONS_CONFIGURE, /* only live ones */
};

/* Check options (may be NULL) against the plugin's declared parameters. Any thread. 0 or -EINVAL with words. */
MUST_CHECK int plugin_options_check(const struct director_plugin *plugin, const struct director_option *options,
                                    enum plugin_options_use use, struct error *error);

/* The functions of <director/plugin.h>, with options checked and defaults filled in beforehand, and the plugin's words in
 * error. -ENOTSUP when the plugin lacks the function. create, remove and space block: worker thread. open and configure: the
 * device's home loop. */
MUST_CHECK int plugin_create(const struct director_plugin *plugin, const char *path, uint64_t size_bytes,
                             const struct director_option *options, struct error *error);
/* Worker thread. Make it larger; an open device is then told by block_device_refresh(). */
MUST_CHECK int plugin_grow(const struct director_plugin *plugin, const char *path, uint64_t size_bytes, struct error *error);
MUST_CHECK int plugin_remove(const struct director_plugin *plugin, const char *path, struct error *error);
MUST_CHECK int plugin_space(const struct director_plugin *plugin, const char *store, uint64_t *ret_capacity_bytes,
                            uint64_t *ret_free_bytes, struct error *error);
MUST_CHECK int plugin_open(const struct director_plugin *plugin, struct uv_loop_s *loop, const char *path,
                           struct block_device *lower, const struct director_option *options,
                           struct block_device **ret_device, struct error *error);
MUST_CHECK int plugin_configure(const struct director_plugin *plugin, struct block_device *device,
                                const struct director_option *options, struct error *error);

#endif
