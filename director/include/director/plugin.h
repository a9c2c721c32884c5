/* The whole plugin ABI. A plugin is a shared object that exports one symbol,
 *     DIRECTOR_PLUGIN_EXPORT const struct director_plugin director_plugin = { ... };
 * and is loaded by every node from its plugin folder. Version rule: the loader refuses another abi_major; within one
 * major, structures only grow at their end and struct_bytes says what the plugin was built with.
 *
 * Threads: open and everything on the returned device run on the device's home loop. */
#ifndef DIRECTOR_PLUGIN_H
#define DIRECTOR_PLUGIN_H

#include <director/block_device.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DIRECTOR_PLUGIN_ABI_MAJOR 1
#define DIRECTOR_PLUGIN_ABI_MINOR 1 /* 1: grow */

struct uv_loop_s;

enum director_plugin_kind {
    DIRECTOR_PLUGIN_BACKSTORE = 1, /* makes a device out of a place: file, ram, ... */
    DIRECTOR_PLUGIN_FILTER = 2,    /* makes a device on top of another: delay, error, ... */
};

enum director_parameter_type {
    DIRECTOR_PARAMETER_STRING = 1,
    DIRECTOR_PARAMETER_SIZE = 2,   /* bytes; text may end in K, M, G, T */
    DIRECTOR_PARAMETER_NUMBER = 3, /* unsigned decimal */
    DIRECTOR_PARAMETER_BOOL = 4,   /* yes or no */
};

enum director_parameter_flags {
    DIRECTOR_PARAMETER_LIVE = 1u << 0, /* configure may change it on an open device */
};

/* One parameter that create and open understand, so that the shell can list, complete and check it. The host fills in
 * defaults: create and open always see every declared parameter, configure sees only what is to change. The layout of
 * this structure is fixed within a major version, as it stands in arrays. */
struct director_parameter {
    const char *name;
    enum director_parameter_type type;
    uint32_t flags;           /* enum director_parameter_flags */
    const char *default_text; /* NULL: required */
    const char *help;         /* one sentence */
};

/* A name and its text. Lists of options are ended by a NULL name; the texts are the caller's and live for the call. */
struct director_option {
    const char *name;
    const char *value;
};

/* Services of the host, valid for the life of the plugin. */
struct director_host {
    uint32_t struct_bytes;
    /* One log line, no newline. level: 0 error ... 4 debug. Any thread. */
    void (*log)(int level, const char *text);
};

/* Words for the operator: buffer of size bytes, set when a call returns an error. */
struct director_plugin_error {
    char *message;
    uint32_t size;
};

struct director_plugin {
    uint32_t struct_bytes;
    uint16_t abi_major;
    uint16_t abi_minor;
    const char *name;    /* "file": unique per kind */
    const char *version; /* "1.0" */
    const char *summary; /* one sentence */
    enum director_plugin_kind kind;
    const struct director_parameter *parameters; /* ended by a NULL name; may be NULL */

    /* Once after loading. 0 or negative errno: refused. May be NULL. */
    int (*load)(const struct director_host *host);
    void (*unload)(void);

    /* Backstores. May block: called on a worker thread. options are checked against parameters beforehand.
     * create: make the place for size_bytes, reading as zeroes, at path (for a store folder: a file in it), durably.
     *         -EEXIST when it is there. Nothing is left behind when it fails.
     * remove: delete it and what it holds, durably; 0 when it is not there; -EBUSY when it is open and that matters.
     * space:  capacity and free bytes of a store folder. May be NULL. */
    int (*create)(const char *path, uint64_t size_bytes, const struct director_option *options,
                  struct director_plugin_error *error);
    int (*remove)(const char *path, struct director_plugin_error *error);
    int (*space)(const char *store, uint64_t *ret_capacity_bytes, uint64_t *ret_free_bytes);

    /* Home loop. Backstores: open what create made; lower is NULL. Filters: stack on lower, which the new device owns
     * from then on and closes with itself; when open fails, lower stays the caller's. On success *ret_device is the
     * caller's until block_device_close(). */
    int (*open)(struct uv_loop_s *loop, const char *path, struct block_device *lower, const struct director_option *options,
                struct block_device **ret_device, struct director_plugin_error *error);
    /* Home loop. Change live parameters of an open device, e.g. delay or error rate: all of the options or, with an
     * error, none. NULL: nothing can be changed. */
    int (*configure)(struct block_device *device, const struct director_option *options,
                     struct director_plugin_error *error);

    /* Backstores, since 1.1. Worker thread; the place may be open meanwhile, also with requests under way. Make it at least
     * size_bytes large, durably; what is new reads as zeroes. One that failed may be larger or not. An open device has the new size
     * after its block_device_refresh(). NULL: places keep the size they were made with. */
    int (*grow)(const char *path, uint64_t size_bytes, struct director_plugin_error *error);
};

#if defined(__GNUC__)
#define DIRECTOR_PLUGIN_EXPORT __attribute__((visibility("default")))
#else
#define DIRECTOR_PLUGIN_EXPORT
#endif

#ifdef __cplusplus
}
#endif
#endif
