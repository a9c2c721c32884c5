/* Plugins that are wrong in one way each, or right: built several times with another WRONG. */
#include <director/plugin.h>

#include <errno.h>
#include <stddef.h>
#include <string.h>

static struct block_device device = {.kind = "test"};
static char seen[200];

static int test_create(const char *path, uint64_t size_bytes, const struct director_option *options,
                       struct director_plugin_error *error)
{
    (void)path;
    (void)size_bytes;
    (void)error;
    for (seen[0] = '\0'; options && options->name; options++) {
        strcat(seen, options->name);
        strcat(seen, "=");
        strcat(seen, options->value);
        strcat(seen, ";");
    }
    return strcmp(path, "full") == 0 ? -ENOSPC : 0;
}

#ifndef WRONG_FUNCTIONS
static int test_remove(const char *path, struct director_plugin_error *error)
{
    (void)path;
    strncpy(error->message, "the test plugin's own words", error->size - 1);
    return -EBUSY;
}
#endif

static int test_open(struct uv_loop_s *loop, const char *path, struct block_device *lower,
                     const struct director_option *options, struct block_device **ret_device,
                     struct director_plugin_error *error)
{
    (void)loop;
    (void)lower;
    int result = test_create(path, 0, options, error);
    device.kind = seen; /* lets the test look at what arrived */
    *ret_device = &device;
    return result;
}

static int test_configure(struct block_device *opened, const struct director_option *options,
                          struct director_plugin_error *error)
{
    (void)opened;
    return test_create("", 0, options, error);
}

static int test_load(const struct director_host *host)
{
    host->log(3, "loaded");
#ifdef WRONG_LOAD
    return -EACCES;
#else
    return 0;
#endif
}

static const struct director_parameter parameters[] = {
    {"block", DIRECTOR_PARAMETER_SIZE, 0, "4096", "A size."},
    {"depth", DIRECTOR_PARAMETER_NUMBER, DIRECTOR_PARAMETER_LIVE, "8", "A number."},
    {"fast", DIRECTOR_PARAMETER_BOOL, DIRECTOR_PARAMETER_LIVE, "no", "A truth."},
#ifdef WRONG_PARAMETER
    {"Bad Name", DIRECTOR_PARAMETER_STRING, 0, "", "A text."},
#endif
    {"label", DIRECTOR_PARAMETER_STRING, 0, NULL, "A text."},
    {NULL, 0, 0, NULL, NULL},
};

#ifndef WRONG_SYMBOL
#define director_plugin_name director_plugin
#endif

#ifdef WRONG_SYMBOL
extern const struct director_plugin director_plugin_name;
#endif
DIRECTOR_PLUGIN_EXPORT const struct director_plugin director_plugin_name = {
#ifdef WRONG_SIZE
    .struct_bytes = 40,
#else
    .struct_bytes = sizeof(struct director_plugin),
#endif
#ifdef WRONG_ABI
    .abi_major = DIRECTOR_PLUGIN_ABI_MAJOR + 1,
#else
    .abi_major = DIRECTOR_PLUGIN_ABI_MAJOR,
#endif
    .abi_minor = DIRECTOR_PLUGIN_ABI_MINOR,
    .name = "test",
    .version = "1.0",
    .summary = "For the loader's tests.",
#ifdef WRONG_KIND
    .kind = 9,
#else
    .kind = DIRECTOR_PLUGIN_BACKSTORE,
#endif
    .parameters = parameters,
    .load = test_load,
    .create = test_create,
#ifndef WRONG_FUNCTIONS
    .remove = test_remove,
#endif
    .open = test_open,
    .configure = test_configure,
};
