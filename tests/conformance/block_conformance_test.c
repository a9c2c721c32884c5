/* The block_device contract over every backstore and filter, and over stacks of them. Usage: FOLDER of plugins, FOLDER for
 * files. One more implementation is one more subject in main(). */
#include "director/base/common.h"
#include "plugins/loader/loader.h"
#include "replication/io/checksum_device.h"
#include "replication/io/checksum_store.h"
#include "tests/conformance/block_conformance.h"
#include "tests/conformance/block_sync.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define LAYERS_MAX 3

/* A backstore and filters on it. */
struct stack {
    const struct director_plugin *backstore;
    char path[512];
    struct director_option options[4];
    const char *sums; /* checksums at rest on top, in this file */
    unsigned filter_count;
    struct {
        const struct director_plugin *plugin;
        struct director_option options[4];
    } filters[LAYERS_MAX];
};

static struct block_device *stack_open(struct block_subject *subject, bool fresh)
{
    struct stack *stack = subject->context;
    struct error error = {0};
    struct block_device *device = NULL;
    int result = 0;
    if (fresh) {
        result = plugin_remove(stack->backstore, stack->path, &error);
        if (result == 0)
            result = plugin_create(stack->backstore, stack->path, BLOCK_SUBJECT_BYTES, stack->options, &error);
    }
    if (result == 0)
        result = plugin_open(stack->backstore, subject->loop, stack->path, NULL, stack->options, &device, &error);
    for (unsigned i = 0; i < stack->filter_count && result == 0; i++) {
        struct block_device *lower = device;
        result = plugin_open(stack->filters[i].plugin, subject->loop, "", lower, stack->filters[i].options, &device, &error);
    }
    if (result == 0 && stack->sums) {
        struct checksum_device_options options = {.lower = device, .path = stack->sums, .region_bytes = 65536,
                                                  .header = {.incarnation = 1}};
        if (fresh)
            result = checksum_file_create(stack->sums, &options.header, &error);
        if (result == 0)
            result = checksum_device_open(subject->loop, &options, &device, &error);
    }
    if (result < 0) {
        print_error("%s: %s\n", subject->name, error.message);
        return NULL;
    }
    return device;
}

static void stack_discard(struct block_subject *subject)
{
    struct stack *stack = subject->context;
    struct error error = {0};
    if (stack->sums)
        (void)unlink(stack->sums);
    if (plugin_remove(stack->backstore, stack->path, &error) < 0)
        fail_msg("%s", error.message);
}

static struct plugin_loader *loader;
static uv_loop_t loop;

static const struct director_plugin *find(enum director_plugin_kind kind, const char *name)
{
    struct error error;
    const struct director_plugin *plugin = plugin_loader_find(loader, kind, name, &error);
    if (!plugin) {
        print_error("%s\n", error.message);
        exit(1);
    }
    return plugin;
}

static int run(const char *name, struct stack *stack)
{
    struct block_subject subject = {
        .name = name, .loop = &loop, .context = stack, .open = stack_open, .discard = stack_discard};
    return block_conformance_run(&subject);
}

static void refused(const char *file, const struct error *error, void *context)
{
    (void)file;
    (void)context;
    print_error("%s\n", error->message);
}

int main(int argc, char **argv)
{
    int failures = 0;
    struct error error;
    if (argc != 3) {
        print_error("usage: %s PLUGIN-FOLDER FILE-FOLDER\n", argv[0]);
        return 2;
    }
    if (plugin_loader_new(NULL, &loader) < 0 || plugin_loader_load_folder(loader, argv[1], refused, NULL, &error) < 4 ||
        uv_loop_init(&loop) < 0) {
        print_error("plugins cannot be loaded from %s\n", argv[1]);
        return 1;
    }
    const struct director_plugin *ram = find(DIRECTOR_PLUGIN_BACKSTORE, "ram");
    const struct director_plugin *file = find(DIRECTOR_PLUGIN_BACKSTORE, "file");
    const struct director_plugin *delay = find(DIRECTOR_PLUGIN_FILTER, "delay");
    const struct director_plugin *fault = find(DIRECTOR_PLUGIN_FILTER, "error");

    failures += run("ram", &(struct stack){.backstore = ram, .path = "r"});
    failures += run("ram with blocks of 512", &(struct stack){.backstore = ram, .path = "r", .options = {{"block", "512"}}});
    failures += run("delay on ram", &(struct stack){.backstore = ram,
                                                    .path = "r",
                                                    .filter_count = 1,
                                                    .filters = {{delay, {{"ms", "0"}, {"write_ms", "1"}, {"flush_ms", "2"}}}}});
    failures += run("error on ram", &(struct stack){.backstore = ram, .path = "r", .filter_count = 1, .filters = {{fault, {{0}}}}});
    failures += run("error on delay on ram",
                    &(struct stack){.backstore = ram, .path = "r", .filter_count = 2, .filters = {{delay, {{0}}}, {fault, {{0}}}}});

    const struct director_plugin *cache = find(DIRECTOR_PLUGIN_FILTER, "volatile");
    failures += run("volatile on ram",
                    &(struct stack){.backstore = ram, .path = "r", .filter_count = 1, .filters = {{cache, {{"on", "yes"}}}}});
    failures += run("small volatile on delay on ram with blocks of 512",
                    &(struct stack){.backstore = ram, .path = "r", .options = {{"block", "512"}}, .filter_count = 2,
                                    .filters = {{delay, {{"ms", "1"}}}, {cache, {{"on", "yes"}, {"size", "64K"}}}}});

    char sums[512];
    (void)snprintf(sums, sizeof(sums), "%s/conformance-%d.sums", argv[2], (int)getpid());
    failures += run("checksums on ram", &(struct stack){.backstore = ram, .path = "r", .sums = sums});
    failures += run("checksums on ram with blocks of 512",
                    &(struct stack){.backstore = ram, .path = "r", .options = {{"block", "512"}}, .sums = sums});

    const char *folders[] = {argv[2], "/dev/shm"};
    static const char *const directs[] = {"auto", "no"};
    static const char *const blocks[] = {"4096", "512"};
    for (size_t f = 0; f < ARRAY_SIZE(folders); f++) {
        for (size_t d = 0; d < ARRAY_SIZE(directs); d++) {
            for (size_t b = 0; b < ARRAY_SIZE(blocks); b++) {
                char name[600];
                struct stack stack = {.backstore = file, .options = {{"direct", directs[d]}, {"block", blocks[b]}}};
                (void)snprintf(stack.path, sizeof(stack.path), "%s/director-conformance-%d", folders[f], (int)getpid());
                (void)snprintf(name, sizeof(name), "file in %s, direct=%s, block=%s", folders[f], directs[d], blocks[b]);
                failures += run(name, &stack);
                (void)unlink(stack.path);
            }
        }
    }
    struct stack stack = {.backstore = file, .filter_count = 2, .filters = {{delay, {{0}}}, {fault, {{0}}}}};
    (void)snprintf(stack.path, sizeof(stack.path), "%s/director-conformance-%d", argv[2], (int)getpid());
    failures += run("error on delay on file", &stack);
    (void)unlink(stack.path);

    if (uv_loop_close(&loop) != 0) {
        print_error("handles are left open in the loop\n");
        failures++;
    }
    plugin_loader_free(loader);
    return failures ? 1 : 0;
}
