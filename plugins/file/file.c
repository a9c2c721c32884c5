/* Backstore file: a sparse file of a store folder. Here: making, removing and opening it; I/O is in device.c. */
#include "plugins/common/option.h"
#include "plugins/file/device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/file.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Make the entry of path in its folder durable, or its absence. */
static int folder_sync(const char *path)
{
    _cleanup_free_ char *folder = strdup(path);
    if (!folder)
        return -ENOMEM;
    char *slash = strrchr(folder, '/');
    if (slash && slash != folder)
        *slash = '\0';
    else
        (void)strcpy(folder, slash ? "/" : "."); /* path has at least one character, so there is room */
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = fsync(fd) < 0 ? -errno : 0;
    (void)close(fd);
    return result;
}

static int file_create(const char *path, uint64_t size_bytes, const struct director_option *options,
                       struct director_plugin_error *error)
{
    (void)options;
    if (!path[0] || size_bytes == 0 || size_bytes % 512 || size_bytes > INT64_MAX)
        return plugin_error_set(error, -EINVAL, "file \"%s\" cannot have %llu bytes: give a path and a multiple of 512", path,
                                (unsigned long long)size_bytes);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        int code = -errno;
        return plugin_error_set(error, code, "file %s cannot be made: %s", path, strerror(-code));
    }
    int result = 0;
    if (ftruncate(fd, (off_t)size_bytes) < 0 || fsync(fd) < 0)
        result = -errno;
    (void)close(fd);
    if (result == 0)
        result = folder_sync(path);
    if (result < 0) {
        (void)unlink(path);
        return plugin_error_set(error, result, "file %s cannot be made with %llu bytes: %s", path,
                                (unsigned long long)size_bytes, strerror(-result));
    }
    return 0;
}

static int file_remove(const char *path, struct director_plugin_error *error)
{
    int result = 0;
    if (unlink(path) < 0)
        result = errno == ENOENT ? 0 : -errno;
    else
        result = folder_sync(path);
    if (result < 0)
        return plugin_error_set(error, result, "file %s cannot be removed: %s", path, strerror(-result));
    return 0;
}

/* Past the end the file is a hole: zeroes, and no storage taken. The size is metadata of the file: fsync, not fdatasync alone. */
static int file_grow(const char *path, uint64_t size_bytes, struct director_plugin_error *error)
{
    struct stat info;
    int result = 0;
    if (size_bytes == 0 || size_bytes % 512 || size_bytes > INT64_MAX)
        return plugin_error_set(error, -EINVAL, "file %s cannot have %llu bytes: give a multiple of 512", path,
                                (unsigned long long)size_bytes);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) < 0)
        result = -errno;
    else if ((uint64_t)info.st_size < size_bytes && (ftruncate(fd, (off_t)size_bytes) < 0 || fsync(fd) < 0))
        result = -errno;
    if (fd >= 0)
        (void)close(fd);
    if (result < 0)
        return plugin_error_set(error, result, "file %s cannot be made %llu bytes large: %s", path, (unsigned long long)size_bytes,
                                strerror(-result));
    return 0;
}

static int file_space(const char *store, uint64_t *ret_capacity_bytes, uint64_t *ret_free_bytes)
{
    struct statvfs info;
    if (statvfs(store, &info) < 0)
        return -errno;
    *ret_capacity_bytes = (uint64_t)info.f_blocks * info.f_frsize;
    *ret_free_bytes = (uint64_t)info.f_bavail * info.f_frsize;
    return 0;
}

/* What O_DIRECT wants of buffers on this file; false when block-sized I/O is not possible that way. */
static bool direct_alignment(int fd, uint32_t block_bytes, uint32_t *ret_memory, uint32_t *ret_offset)
{
    uint32_t memory = 4096, offset = block_bytes;
#ifdef STATX_DIOALIGN
    struct statx info;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 && (info.stx_mask & STATX_DIOALIGN)) {
        if (info.stx_dio_mem_align == 0 || info.stx_dio_offset_align == 0)
            return false;
        memory = info.stx_dio_mem_align;
        offset = info.stx_dio_offset_align;
        if (offset > block_bytes || (memory & (memory - 1)) || memory > 4096)
            return false;
        *ret_memory = memory;
        *ret_offset = offset;
        return true;
    }
#endif
    /* Older kernels do not say: try the smallest read there will be. */
    void *buffer;
    if (posix_memalign(&buffer, 4096, 4096) != 0)
        return false;
    bool works = pread(fd, buffer, block_bytes, block_bytes) >= 0;
    free(buffer);
    *ret_memory = memory;
    *ret_offset = offset;
    return works;
}

/* Open with O_DIRECT if wanted and possible. Returns the descriptor or negative errno. */
static int open_direct(const char *path, int flags, bool required, bool allowed, struct file_setup *setup)
{
    setup->memory_alignment = setup->offset_alignment = 1;
    if (allowed) {
        int fd = open(path, flags | O_DIRECT);
        if (fd >= 0 && direct_alignment(fd, setup->block_bytes, &setup->memory_alignment, &setup->offset_alignment))
            return fd;
        int code = fd < 0 ? -errno : -EINVAL;
        if (fd >= 0)
            (void)close(fd);
        setup->memory_alignment = setup->offset_alignment = 1;
        if (required || code != -EINVAL)
            return code;
    }
    int fd = open(path, flags);
    return fd < 0 ? -errno : fd;
}

/* Look at the open file and lock it: two writers of one file would destroy it. */
static int file_examine(const char *path, struct file_setup *setup, struct director_plugin_error *error)
{
    struct stat info;
    if (fstat(setup->fd, &info) < 0) {
        int code = -errno;
        return plugin_error_set(error, code, "file %s cannot be looked at: %s", path, strerror(-code));
    }
    if (!S_ISREG(info.st_mode))
        return plugin_error_set(error, -EINVAL, "%s is not a regular file", path);
    if (info.st_size <= 0 || info.st_size % setup->block_bytes)
        return plugin_error_set(error, -EINVAL, "file %s: its %lld bytes are no whole number of blocks of %u", path,
                                (long long)info.st_size, setup->block_bytes);
    setup->size_bytes = (uint64_t)info.st_size;
    if (flock(setup->fd, (setup->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0) {
        int code = errno == EWOULDBLOCK ? -EBUSY : -errno;
        return plugin_error_set(error, code, "file %s is %s", path,
                                code == -EBUSY ? "in use (locked by another device or process)" : strerror(-code));
    }
    struct statfs system;
    setup->in_memory = fstatfs(setup->fd, &system) == 0 && (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC);
    /* A hole beyond the end changes nothing and shows whether holes can be made. */
    setup->can_punch =
        !setup->read_only && fallocate(setup->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, info.st_size, 4096) == 0;
    return 0;
}

static int file_open(struct uv_loop_s *loop, const char *path, struct block_device *lower,
                     const struct director_option *options, struct block_device **ret_device,
                     struct director_plugin_error *error)
{
    struct file_setup setup = {0};
    uint64_t block_bytes = 4096;
    bool wanted = true;
    const char *direct = option_find(options, "direct");
    bool automatic = !direct || strcmp(direct, "auto") == 0;
    (void)lower;
    if (option_get_size(options, "block", &block_bytes) < 0 || (block_bytes != 512 && block_bytes != 4096))
        return plugin_error_set(error, -EINVAL, "file %s: block must be 512 or 4096", path);
    if (!automatic && option_parse_bool(direct, &wanted) < 0)
        return plugin_error_set(error, -EINVAL, "file %s: direct must be auto, yes or no", path);
    if (option_get_bool(options, "read_only", &setup.read_only) < 0)
        return plugin_error_set(error, -EINVAL, "file %s: read_only must be yes or no", path);
    setup.block_bytes = (uint32_t)block_bytes;
    setup.fd = open_direct(path, (setup.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC, wanted && !automatic, wanted, &setup);
    if (setup.fd < 0)
        return plugin_error_set(error, setup.fd, "file %s cannot be opened%s: %s", path,
                                setup.fd == -EINVAL && !automatic ? " with direct=yes on this file system" : "",
                                strerror(-setup.fd));
    int result = file_examine(path, &setup, error);
    if (result == 0) {
        result = file_device_new(loop, &setup, ret_device);
        if (result < 0)
            (void)plugin_error_set(error, result, "file %s: io_uring cannot be set up: %s", path, strerror(-result));
    }
    if (result < 0)
        (void)close(setup.fd);
    return result;
}

static const struct director_parameter file_parameters[] = {
    {"block", DIRECTOR_PARAMETER_SIZE, 0, "4096", "Bytes of a block: 512 or 4096."},
    {"direct", DIRECTOR_PARAMETER_STRING, 0, "auto",
     "Past the page cache (O_DIRECT): yes, no, or auto where the file system has it."},
    {"read_only", DIRECTOR_PARAMETER_BOOL, 0, "no", "Refuse every change."},
    {NULL, 0, 0, NULL, NULL},
};

DIRECTOR_PLUGIN_EXPORT const struct director_plugin director_plugin = {
    .struct_bytes = sizeof(director_plugin),
    .abi_major = DIRECTOR_PLUGIN_ABI_MAJOR,
    .abi_minor = DIRECTOR_PLUGIN_ABI_MINOR,
    .name = "file",
    .version = "1.0",
    .summary = "Sparse files in a folder, through io_uring and past the page cache where possible.",
    .kind = DIRECTOR_PLUGIN_BACKSTORE,
    .parameters = file_parameters,
    .create = file_create,
    .grow = file_grow,
    .remove = file_remove,
    .space = file_space,
    .open = file_open,
};
