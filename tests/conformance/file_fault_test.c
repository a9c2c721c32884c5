/* The file backstore when the system refuses: each allocation and system call of create, remove, open and I/O fails once.
 * The functions below stand before the real ones (this program exports them), so the plugin's calls come here. */
#include "director/base/common.h"
#include "plugins/loader/loader.h"
#include "tests/conformance/block_sync.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define EXPORT __attribute__((visibility("default")))

static bool armed;
static long calls, fail_at; /* the fail_at-th call while armed fails; 0: none */
static size_t largest_alignment_request = SIZE_MAX;
static int fail_errno;

static bool fault(void)
{
    return armed && ++calls == fail_at;
}

#define REAL(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))
#define SYSTEM_CALL(type, name, parameters, arguments)     \
    EXPORT type name parameters;                           \
    EXPORT type name parameters                            \
    {                                                      \
        if (fault()) {                                     \
            errno = fail_errno;                            \
            return -1;                                     \
        }                                                  \
        return REAL(name) arguments;                       \
    }

SYSTEM_CALL(int, ftruncate, (int fd, off_t size), (fd, size))
SYSTEM_CALL(int, fsync, (int fd), (fd))
SYSTEM_CALL(int, fstat, (int fd, struct stat *info), (fd, info))
SYSTEM_CALL(int, flock, (int fd, int operation), (fd, operation))
SYSTEM_CALL(int, unlink, (const char *path), (path))
SYSTEM_CALL(int, uv_poll_start, (uv_poll_t * handle, int events, uv_poll_cb callback), (handle, events, callback))

EXPORT int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    if (fault()) {
        errno = fail_errno;
        return -1;
    }
    return REAL(open)(path, flags, mode);
}

EXPORT int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
    return fault() ? -fail_errno : REAL(io_uring_queue_init)(entries, ring, flags);
}

EXPORT int uv_poll_init(uv_loop_t *loop, uv_poll_t *handle, int fd)
{
    return fault() ? -fail_errno : REAL(uv_poll_init)(loop, handle, fd);
}

EXPORT void *calloc(size_t count, size_t size)
{
    extern void *__libc_calloc(size_t, size_t);
    return fault() ? NULL : __libc_calloc(count, size);
}

EXPORT void *malloc(size_t size)
{
    extern void *__libc_malloc(size_t);
    return fault() ? NULL : __libc_malloc(size);
}

EXPORT int posix_memalign(void **pointer, size_t alignment, size_t size)
{
    extern void *__libc_memalign(size_t, size_t);
    if (fault() || size > largest_alignment_request)
        return ENOMEM;
    *pointer = __libc_memalign(alignment, size);
    return *pointer ? 0 : ENOMEM;
}

static uv_loop_t loop;
static struct plugin_loader *loader;
static const struct director_plugin *file;
static char path[600];

static int group_setup(void **state)
{
    struct error error;
    (void)state;
    (void)snprintf(path, sizeof(path), "%s/file-fault-%d", FILES, (int)getpid());
    if (uv_loop_init(&loop) < 0 || plugin_loader_new(NULL, &loader) < 0 ||
        plugin_loader_load(loader, PLUGINS "/file.so", &error) < 0)
        return -1;
    file = plugin_loader_find(loader, DIRECTOR_PLUGIN_BACKSTORE, "file", &error);
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    (void)unlink(path);
    int result = uv_loop_close(&loop);
    plugin_loader_free(loader);
    return result;
}

static void arm(long at, int error)
{
    calls = 0;
    fail_at = at;
    fail_errno = error;
    armed = true;
}

/* Was the fault of the last arm() reached? */
static bool disarm(void)
{
    armed = false;
    return calls >= fail_at;
}

static unsigned descriptors(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void create_leaves_nothing_behind_when_a_call_fails(void **state)
{
    (void)state;
    unsigned before = descriptors();
    for (long at = 1;; at++) {
        struct error error = {0};
        arm(at, EIO);
        int result = plugin_create(file, path, 1 << 20, NULL, &error);
        bool reached = disarm();
        assert_int_equal(descriptors(), before);
        if (!reached) {
            assert_int_equal(result, 0);
            assert_true(at > 5);
            break;
        }
        assert_true(result < 0);
        assert_true(error.message[0]);
        assert_int_equal(access(path, F_OK), -1);
    }
    struct error error;
    assert_int_equal(plugin_create(file, path, 1 << 20, NULL, &error), -EEXIST);
    assert_int_equal(access(path, F_OK), 0);
}

static void open_gives_everything_back_when_a_call_fails(void **state)
{
    (void)state;
    for (int direct = 0; direct < 2; direct++) {
        const struct director_option options[] = {{"direct", direct ? "auto" : "no"}, {NULL, NULL}};
        unsigned before = descriptors();
        unsigned failures = 0;
        for (long at = 1;; at++) {
            struct error error = {0};
            struct block_device *device = NULL;
            arm(at, EMFILE);
            int result = plugin_open(file, &loop, path, NULL, options, &device, &error);
            bool reached = disarm();
            if (result == 0)
                block_sync_close(&loop, device); /* a probe of O_DIRECT that failed: opened the other way */
            else
                failures++;
            for (int i = 0; i < 5; i++)
                uv_run(&loop, UV_RUN_NOWAIT);
            assert_int_equal(descriptors(), before);
            if (!reached) {
                assert_int_equal(result, 0);
                break;
            }
        }
        assert_true(failures >= 6);
    }
}

static struct block_device *opened(void)
{
    struct error error;
    struct block_device *device;
    if (plugin_open(file, &loop, path, NULL, NULL, &device, &error) < 0)
        fail_msg("%s", error.message);
    return device;
}

static void remove_tells_when_a_call_fails(void **state)
{
    (void)state;
    struct error error = {0};
    arm(1, EPERM);
    assert_int_equal(plugin_remove(file, path, &error), -EPERM);
    (void)disarm();
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(plugin_remove(file, "/absent/file", &error), 0);
}

static void a_second_opener_and_wrong_files_are_refused(void **state)
{
    (void)state;
    struct error error = {0};
    struct block_device *device = opened(), *second;
    assert_int_equal(plugin_open(file, &loop, path, NULL, NULL, &second, &error), -EBUSY);
    assert_non_null(strstr(error.message, "in use"));
    block_sync_close(&loop, device);
    assert_int_equal(plugin_open(file, &loop, FILES, NULL, (struct director_option[]){{"read_only", "yes"}, {NULL, NULL}},
                                 &second, &error),
                     -EINVAL);
    assert_non_null(strstr(error.message, "not a regular file"));
    assert_int_equal(plugin_open(file, &loop, "/absent/file", NULL, NULL, &second, &error), -ENOENT);
    assert_int_equal(plugin_open(file, &loop, path, NULL, (struct director_option[]){{"block", "1024"}, {NULL, NULL}}, &second, &error),
                     -EINVAL);
    assert_int_equal(plugin_open(file, &loop, path, NULL, (struct director_option[]){{"direct", "maybe"}, {NULL, NULL}}, &second, &error),
                     -EINVAL);
    assert_int_equal(truncate(path, 5000), 0);
    assert_int_equal(plugin_open(file, &loop, path, NULL, NULL, &second, &error), -EINVAL);
    assert_non_null(strstr(error.message, "5000"));
    assert_int_equal(truncate(path, 1 << 20), 0);
}

static void read_only_devices_refuse_changes(void **state)
{
    (void)state;
    struct error error = {0};
    struct block_device *device;
    uint8_t buffer[4096] = {0};
    const struct director_option options[] = {{"read_only", "yes"}, {NULL, NULL}};
    assert_int_equal(plugin_open(file, &loop, path, NULL, options, &device, &error), 0);
    assert_int_equal(block_sync_read(&loop, device, 0, buffer, sizeof(buffer)), 0);
    assert_int_equal(block_sync_write(&loop, device, 0, buffer, sizeof(buffer), 0), -EROFS);
    assert_int_equal(block_sync_plain(&loop, device, BLOCK_WRITE_ZEROES, 0, 4096, 0), -EROFS);
    block_sync_close(&loop, device);
}

static void short_memory_makes_smaller_bounces_and_then_an_error(void **state)
{
    (void)state;
    struct block_device *device = opened();
    enum { LENGTH = 256 << 10 };
    uint8_t *buffer = malloc(2 * LENGTH + 1), *out = buffer + 1, *in = out + LENGTH;
    for (size_t i = 0; i < LENGTH; i++)
        out[i] = (uint8_t)(i * 11 + (i >> 9));
    if (device->geometry.memory_alignment > 1) {
        largest_alignment_request = 0;
        assert_int_equal(block_sync_write(&loop, device, 0, out, LENGTH, 0), -ENOMEM);
    } else {
        print_message("no O_DIRECT in %s: there is nothing to bounce\n", FILES);
    }
    largest_alignment_request = 4096;
    assert_int_equal(block_sync_write(&loop, device, 4096, out, LENGTH, BLOCK_FUA), 0);
    assert_int_equal(block_sync_read(&loop, device, 4096, in, LENGTH), 0);
    largest_alignment_request = SIZE_MAX;
    assert_memory_equal(in, out, LENGTH);
    /* the same in buffers of odd lengths with gaps, so that pieces of the bounce and buffers never agree */
    struct iovec iov[64], back[64];
    unsigned count = 0;
    uint8_t *scattered = calloc(2, LENGTH);
    for (size_t at = 0; at < LENGTH; at += iov[count++].iov_len) {
        size_t piece = MIN((size_t)5001, LENGTH - at);
        iov[count] = (struct iovec){out + at, piece};
        back[count] = (struct iovec){scattered + (size_t)(63 - count) * 6007, piece}; /* in reverse order */
    }
    struct block_request request = {
        .operation = BLOCK_WRITE, .offset_bytes = 8192, .length_bytes = LENGTH, .iov = iov, .iov_count = count};
    largest_alignment_request = 4096;
    assert_int_equal(block_sync(&loop, device, &request), 0);
    request.operation = BLOCK_READ;
    request.iov = back;
    assert_int_equal(block_sync(&loop, device, &request), 0);
    largest_alignment_request = SIZE_MAX;
    for (unsigned i = 0; i < count; i++)
        assert_memory_equal(back[i].iov_base, iov[i].iov_base, iov[i].iov_len);
    free(scattered);
    free(buffer);
    block_sync_close(&loop, device);
}

static void a_file_cut_short_answers_reads_with_an_error(void **state)
{
    (void)state;
    struct block_device *device = opened();
    uint8_t buffer[8192];
    assert_int_equal(truncate(path, 4096), 0);
    assert_int_equal(block_sync_read(&loop, device, 0, buffer, 4096), 0);
    assert_int_equal(block_sync_read(&loop, device, 8192, buffer, 4096), -EIO);
    assert_int_equal(block_sync_read(&loop, device, 0, buffer, 8192), -EIO);
    block_sync_close(&loop, device);
}

static void a_place_grows_under_an_open_device_and_its_filter(void **state)
{
    struct error error;
    struct block_device *lower = opened(), *device;
    uint8_t block[4096], zero[4096] = {0};
    struct stat info;
    (void)state;
    assert_int_equal(plugin_loader_load(loader, PLUGINS "/delay.so", &error), 0);
    const struct director_plugin *delay = plugin_loader_find(loader, DIRECTOR_PLUGIN_FILTER, "delay", &error);
    assert_non_null(delay);
    assert_int_equal(plugin_open(delay, &loop, "", lower, NULL, &device, &error), 0);
    uint64_t old = device->geometry.size_bytes;
    assert_int_equal(block_device_refresh(device), 0); /* nothing new */
    assert_int_equal(device->geometry.size_bytes, old);
    for (long at = 1;; at++) {
        arm(at, ENOSPC);
        int result = plugin_grow(file, path, 2 * old, &error);
        if (!disarm()) {
            assert_int_equal(result, 0);
            assert_true(at > 3);
            break;
        }
        assert_int_equal(result, -ENOSPC);
        assert_int_equal(stat(path, &info), 0);
        assert_int_equal(device->geometry.size_bytes, old);
    }
    memset(block, 0x5a, sizeof(block));
    assert_int_equal(block_sync_write(&loop, device, 2 * old - 4096, block, sizeof(block), 0), -EINVAL); /* not told yet */
    assert_int_equal(block_device_refresh(device), 0);
    assert_int_equal(device->geometry.size_bytes, 2 * old);
    assert_int_equal(block_sync_write(&loop, device, 2 * old - 4096, block, sizeof(block), 0), 0);
    assert_int_equal(block_sync_read(&loop, device, old, block, sizeof(block)), 0);
    assert_memory_equal(block, zero, sizeof(block));
    assert_int_equal(plugin_grow(file, path, old, &error), 0); /* never smaller */
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_size, 2 * old);
    assert_true(plugin_grow(file, path, 100, &error) < 0);
    block_sync_close(&loop, device);
    assert_int_equal(truncate(path, (off_t)old), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_leaves_nothing_behind_when_a_call_fails),
        cmocka_unit_test(open_gives_everything_back_when_a_call_fails),
        cmocka_unit_test(remove_tells_when_a_call_fails),
        cmocka_unit_test(a_second_opener_and_wrong_files_are_refused),
        cmocka_unit_test(a_place_grows_under_an_open_device_and_its_filter),
        cmocka_unit_test(read_only_devices_refuse_changes),
        cmocka_unit_test(short_memory_makes_smaller_bounces_and_then_an_error),
        cmocka_unit_test(a_file_cut_short_answers_reads_with_an_error),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
