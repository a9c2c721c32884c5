/* What delay, error and volatile do beyond passing on. PLUGINS: the folder of plugins. */
#include "director/base/common.h"
#include "plugins/loader/loader.h"
#include "tests/conformance/block_sync.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static uv_loop_t loop;
static struct plugin_loader *loader;
static const struct director_plugin *ram, *delay, *fault, *cache;
static struct block_device *lower;
static uint8_t buffer[8192];

static int group_setup(void **state)
{
    struct error error;
    (void)state;
    if (uv_loop_init(&loop) < 0 || plugin_loader_new(NULL, &loader) < 0 ||
        plugin_loader_load_folder(loader, PLUGINS, NULL, NULL, &error) < 4)
        return -1;
    ram = plugin_loader_find(loader, DIRECTOR_PLUGIN_BACKSTORE, "ram", &error);
    delay = plugin_loader_find(loader, DIRECTOR_PLUGIN_FILTER, "delay", &error);
    fault = plugin_loader_find(loader, DIRECTOR_PLUGIN_FILTER, "error", &error);
    cache = plugin_loader_find(loader, DIRECTOR_PLUGIN_FILTER, "volatile", &error);
    return ram && delay && fault && cache ? 0 : -1;
}

static int group_teardown(void **state)
{
    (void)state;
    int result = uv_loop_close(&loop);
    plugin_loader_free(loader);
    return result;
}

static int setup(void **state)
{
    struct error error;
    (void)state;
    return plugin_create(ram, "f", 1 << 20, NULL, &error) || plugin_open(ram, &loop, "f", NULL, NULL, &lower, &error);
}

static int teardown(void **state)
{
    struct error error;
    (void)state;
    return plugin_remove(ram, "f", &error);
}

static struct block_device *stacked(const struct director_plugin *filter, const struct director_option *options)
{
    struct error error;
    struct block_device *device;
    if (plugin_open(filter, &loop, "", lower, options, &device, &error) < 0)
        fail_msg("%s", error.message);
    return device;
}

static int configure(const struct director_plugin *filter, struct block_device *device, const char *name, const char *value)
{
    struct error error;
    const struct director_option options[] = {{name, value}, {NULL, NULL}};
    return plugin_configure(filter, device, options, &error);
}

static uint64_t elapsed_ms(uint64_t since_ns)
{
    return (uv_hrtime() - since_ns) / 1000000;
}

#define READ(device, offset)  block_sync_read(&loop, device, offset, buffer, 4096)
#define WRITE(device, offset) block_sync_write(&loop, device, offset, buffer, 4096, 0)

static void delay_waits_by_kind_and_is_changed_live(void **state)
{
    (void)state;
    struct block_device *device = stacked(delay, (struct director_option[]){{"ms", "5"}, {"write_ms", "40"}, {NULL, NULL}});
    uint64_t since = uv_hrtime();
    assert_int_equal(WRITE(device, 0), 0);
    assert_in_range(elapsed_ms(since), 39, 400);
    since = uv_hrtime();
    assert_int_equal(READ(device, 0), 0);
    assert_in_range(elapsed_ms(since), 4, 35);
    assert_int_equal(configure(delay, device, "write_ms", "0"), 0);
    assert_int_equal(configure(delay, device, "flush_ms", "30"), 0);
    since = uv_hrtime();
    assert_int_equal(WRITE(device, 0), 0);
    assert_true(elapsed_ms(since) < 30);
    since = uv_hrtime();
    assert_int_equal(block_sync_flush(&loop, device), 0);
    assert_true(elapsed_ms(since) >= 29);
    assert_int_equal(configure(delay, device, "ms", "99999999999"), -EINVAL);
    assert_int_equal(configure(delay, device, "read_ms", "soon"), -EINVAL);
    block_sync_close(&loop, device);
}

struct held {
    struct block_request request;
    struct iovec iov;
    bool done;
};

static void held_done(struct block_request *request)
{
    container_of(request, struct held, request)->done = true;
}

static void held_write(struct block_device *device, struct held *held)
{
    *held = (struct held){.iov = {buffer, 4096}};
    held->request = (struct block_request){
        .operation = BLOCK_WRITE, .length_bytes = 4096, .iov = &held->iov, .iov_count = 1, .done = held_done};
    block_device_submit(device, &held->request);
}

static void a_shorter_delay_frees_what_waits_already(void **state)
{
    (void)state;
    struct block_device *device = stacked(delay, (struct director_option[]){{"write_ms", "3600000"}, {NULL, NULL}});
    struct held held;
    held_write(device, &held);
    for (int i = 0; i < 20; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    assert_false(held.done);
    assert_int_equal(READ(device, 0), 0); /* others pass */
    assert_int_equal(configure(delay, device, "ms", "0"), 0);
    while (!held.done)
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(held.request.status, 0);
    block_sync_close(&loop, device);
}

static void close_does_not_wait_for_the_delay(void **state)
{
    (void)state;
    struct block_device *device = stacked(delay, (struct director_option[]){{"ms", "3600000"}, {NULL, NULL}});
    struct held held;
    held_write(device, &held);
    block_sync_close(&loop, device);
    assert_true(held.done);
    assert_int_equal(held.request.status, 0);
}

static void error_hits_only_its_kind_and_range(void **state)
{
    (void)state;
    struct block_device *device = stacked(
        fault, (struct director_option[]){{"operations", "read,flush"}, {"from", "8K"}, {"length", "4096"}, {NULL, NULL}});
    assert_int_equal(READ(device, 4096), 0);
    assert_int_equal(READ(device, 8192), -EIO);
    assert_int_equal(READ(device, 12288), 0);
    assert_int_equal(block_sync_read(&loop, device, 4096, buffer, 8192), -EIO);
    assert_int_equal(WRITE(device, 8192), 0);
    assert_int_equal(block_sync_flush(&loop, device), -EIO);
    assert_int_equal(configure(fault, device, "operations", "none"), 0);
    assert_int_equal(READ(device, 8192), 0);
    assert_int_equal(configure(fault, device, "operations", "chew"), -EINVAL);
    assert_int_equal(configure(fault, device, "every", "0"), -EINVAL);
    assert_int_equal(configure(fault, device, "status", "EFUN"), -EINVAL);
    block_sync_close(&loop, device);
}

static void error_hits_every_nth_and_so_many_times(void **state)
{
    (void)state;
    struct block_device *device = stacked(fault, (struct director_option[]){
                                                     {"operations", "all"}, {"every", "3"}, {"count", "2"}, {"status", "ENOSPC"}, {NULL, NULL}});
    int hits[10];
    for (int i = 0; i < 10; i++)
        hits[i] = WRITE(device, 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(hits[i], i == 2 || i == 5 ? -ENOSPC : 0);
    assert_int_equal(configure(fault, device, "every", "1"), 0);
    assert_int_equal(WRITE(device, 0), 0); /* the shots are used up */
    assert_int_equal(configure(fault, device, "count", "1"), 0);
    assert_int_equal(WRITE(device, 0), -ENOSPC);
    assert_int_equal(WRITE(device, 0), 0);
    block_sync_close(&loop, device);
}

static void error_may_come_after_the_work_is_done(void **state)
{
    (void)state;
    struct block_device *device = stacked(fault, (struct director_option[]){{"operations", "write"}, {NULL, NULL}});
    memset(buffer, 0x31, sizeof(buffer));
    assert_int_equal(WRITE(device, 0), -EIO);
    assert_int_equal(READ(device, 0), 0);
    assert_int_equal(buffer[0], 0);
    assert_int_equal(configure(fault, device, "executed", "yes"), 0);
    memset(buffer, 0x31, sizeof(buffer));
    assert_int_equal(WRITE(device, 0), -EIO);
    memset(buffer, 0, sizeof(buffer));
    assert_int_equal(READ(device, 0), 0);
    assert_int_equal(buffer[4095], 0x31);
    block_sync_close(&loop, device);
}

/* What a power cut would leave: block 0 of the device below. */
static uint8_t below(void)
{
    uint8_t block[4096];
    assert_int_equal(block_sync_read(&loop, lower, 0, block, sizeof(block)), 0);
    return block[0];
}

static void volatile_writes_reach_the_device_with_a_flush(void **state)
{
    (void)state;
    struct block_device *device = stacked(cache, (struct director_option[]){{"on", "yes"}, {NULL, NULL}});
    memset(buffer, 0x11, sizeof(buffer));
    assert_int_equal(WRITE(device, 0), 0);
    assert_int_equal(below(), 0);
    memset(buffer, 0, sizeof(buffer));
    assert_int_equal(READ(device, 0), 0);
    assert_int_equal(buffer[0], 0x11); /* but they are read back */
    assert_int_equal(block_sync_flush(&loop, device), 0);
    assert_int_equal(below(), 0x11);
    block_sync_close(&loop, device);
}

static void volatile_fua_goes_down_at_once_and_takes_nothing_back(void **state)
{
    (void)state;
    struct block_device *device = stacked(cache, (struct director_option[]){{"on", "yes"}, {NULL, NULL}});
    memset(buffer, 0x11, sizeof(buffer));
    assert_int_equal(WRITE(device, 0), 0);
    memset(buffer, 0x22, sizeof(buffer));
    assert_int_equal(block_sync_write(&loop, device, 0, buffer, 4096, BLOCK_FUA), 0);
    assert_int_equal(below(), 0x22);
    assert_int_equal(block_sync_flush(&loop, device), 0);
    assert_int_equal(below(), 0x22);
    memset(buffer, 0x33, sizeof(buffer));
    assert_int_equal(WRITE(device, 0), 0);
    assert_int_equal(block_sync_plain(&loop, device, BLOCK_WRITE_ZEROES, 0, 4096, 0), 0);
    assert_int_equal(READ(device, 0), 0);
    assert_int_equal(buffer[0], 0);
    assert_int_equal(configure(cache, device, "on", "no"), 0);
    memset(buffer, 0x44, sizeof(buffer));
    assert_int_equal(WRITE(device, 0), 0);
    assert_int_equal(below(), 0x44);
    block_sync_close(&loop, device);
}

static void ram_keeps_its_promises_about_places(void **state)
{
    (void)state;
    struct error error;
    struct block_device *second;
    uint64_t capacity, unused;
    assert_int_equal(plugin_create(ram, "f", 1 << 20, NULL, &error), -EEXIST);
    assert_int_equal(plugin_create(ram, "g", 1000, NULL, &error), -EINVAL);
    assert_int_equal(plugin_open(ram, &loop, "f", NULL, NULL, &second, &error), -EBUSY);
    assert_int_equal(plugin_open(ram, &loop, "g", NULL, NULL, &second, &error), -ENOENT);
    assert_int_equal(plugin_remove(ram, "f", &error), -EBUSY);
    assert_int_equal(plugin_remove(ram, "g", &error), 0);
    assert_int_equal(plugin_space(ram, "", &capacity, &unused, &error), 0);
    assert_true(capacity > 0 && unused <= capacity);
    block_sync_close(&loop, lower);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(delay_waits_by_kind_and_is_changed_live, setup, teardown),
        cmocka_unit_test_setup_teardown(a_shorter_delay_frees_what_waits_already, setup, teardown),
        cmocka_unit_test_setup_teardown(close_does_not_wait_for_the_delay, setup, teardown),
        cmocka_unit_test_setup_teardown(error_hits_only_its_kind_and_range, setup, teardown),
        cmocka_unit_test_setup_teardown(error_hits_every_nth_and_so_many_times, setup, teardown),
        cmocka_unit_test_setup_teardown(error_may_come_after_the_work_is_done, setup, teardown),
        cmocka_unit_test_setup_teardown(volatile_writes_reach_the_device_with_a_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(volatile_fua_goes_down_at_once_and_takes_nothing_back, setup, teardown),
        cmocka_unit_test_setup_teardown(ram_keeps_its_promises_about_places, setup, teardown),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
