#include "replication/io/checksum_store.h"
#include "replication/io/metadata_file.h"
#include "replication/io/mirror_device.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_all(int fd, const uint8_t *from, size_t size, uint64_t offset)
{
    while (size) {
        ssize_t n = pwrite(fd, from, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        from += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

/* Bytes read, which are fewer at the end of the file, or negative errno. */
static ssize_t read_all(int fd, uint8_t *to, size_t size)
{
    size_t got = 0;
    while (got < size) {
        ssize_t n = pread(fd, to + got, size - got, (off_t)got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

static int sync_folder_of(const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    int length = slash ? (int)(slash - path) : 1;
    snprintf(folder, sizeof(folder), "%.*s", length ? length : 1, slash ? (length ? path : "/") : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return result;
}

void mirror_replica_sums_path(const char *metadata_path, char *path, size_t size)
{
    size_t length = strlen(metadata_path), end = strlen(".meta");
    if (length > end && strcmp(metadata_path + length - end, ".meta") == 0)
        length -= end;
    (void)snprintf(path, size, "%.*s.sums", (int)length, metadata_path);
}

int mirror_replica_create(const char *metadata_path, const struct mirror_replica_identity *identity, struct error *error)
{
    struct metadata_header header = {.generation = 1, .volume_uuid = identity->volume_uuid,
                                     .node_uuid = identity->node_uuid, .volume = identity->volume,
                                     .incarnation = identity->incarnation, .size_bytes = identity->size_bytes,
                                     .region_bytes = metadata_region_bytes(identity->size_bytes),
                                     .replica_index = identity->replica_index};
    char making[4096];
    if (identity->size_bytes == 0 || identity->replica_index >= MIRROR_REPLICAS_MAX)
        return error_set(error, -EINVAL, "replica metadata %s: size or replica index is out of range", metadata_path);
    if (access(metadata_path, F_OK) == 0)
        return error_set(error, -EEXIST, "replica metadata %s is there already", metadata_path);
    memcpy(header.dirty_incarnation, identity->incarnations, sizeof(header.dirty_incarnation));
    uint64_t size = metadata_file_bytes(metadata_regions(&header));
    if (snprintf(making, sizeof(making), "%s.new", metadata_path) >= (int)sizeof(making))
        return error_set(error, -ENAMETOOLONG, "replica metadata path is too long: %s", metadata_path);
    uint8_t *_cleanup_free_ image = malloc(size);
    if (!image)
        return error_set(error, -ENOMEM, "no memory for replica metadata %s", metadata_path);
    metadata_format(&header, image);
    if (identity->checksum) { /* first: metadata are made last */
        struct checksum_header sums = {.volume_uuid = identity->volume_uuid, .incarnation = identity->incarnation};
        char path[4096];
        mirror_replica_sums_path(metadata_path, path, sizeof(path));
        int made = checksum_file_create(path, &sums, error);
        if (made < 0)
            return made;
    }
    int fd = open(making, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(error, -errno, "cannot make replica metadata %s: %s", making, strerror(errno));
    int result = write_all(fd, image, size, 0);
    if (result == 0 && fsync(fd) < 0)
        result = -errno;
    close(fd);
    if (result == 0 && renameat2(AT_FDCWD, making, AT_FDCWD, metadata_path, RENAME_NOREPLACE) < 0)
        result = -errno;
    if (result == 0)
        result = sync_folder_of(metadata_path);
    if (result < 0) {
        unlink(making);
        return error_set(error, result, "cannot write replica metadata %s: %s", metadata_path, strerror(-result));
    }
    return 0;
}

int mirror_replica_check(const char *metadata_path, struct metadata_header *ret_header, struct error *error)
{
    uint8_t image[2 * METADATA_PAGE_BYTES];
    int fd = open(metadata_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, -errno, "cannot open replica metadata %s: %s", metadata_path, strerror(errno));
    ssize_t got = read_all(fd, image, sizeof(image));
    close(fd);
    if (got < 0)
        return error_set(error, (int)got, "cannot read replica metadata %s: %s", metadata_path, strerror((int)-got));
    int result = metadata_header_decode(image, (uint64_t)got, ret_header);
    if (result < 0)
        return error_set(error, result, "replica metadata %s: %s", metadata_path,
                         result == -EBADMSG ? "no good header; the disk counts as blank"
                                            : "it was written by a newer version");
    return 0;
}

int mirror_replica_remove(const char *metadata_path, struct error *error)
{
    if (unlink(metadata_path) < 0 && errno != ENOENT)
        return error_set(error, -errno, "cannot remove replica metadata %s: %s", metadata_path, strerror(errno));
    char path[4096];
    mirror_replica_sums_path(metadata_path, path, sizeof(path));
    if (unlink(path) < 0 && errno != ENOENT)
        return error_set(error, -errno, "cannot remove checksums %s: %s", path, strerror(errno));
    return 0;
}

int metadata_file_open(struct metadata_file *file, uv_loop_t *loop, const char *path, uint8_t **ret_image,
                       uint64_t *ret_image_bytes, struct error *error)
{
    struct stat status;
    uint8_t *image = NULL;
    int result = 0;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, -errno, "cannot open replica metadata %s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        result = error_set(error, -EBUSY, "replica metadata %s is open in another process", path);
        goto out;
    }
    if (fstat(fd, &status) < 0) {
        result = error_set(error, -errno, "cannot read replica metadata %s: %s", path, strerror(errno));
        goto out;
    }
    if (status.st_size < METADATA_PAGE_BYTES || status.st_size > 64 << 20) {
        result = error_set(error, -EBADMSG, "replica metadata %s: it has a wrong size; the disk counts as blank", path);
        goto out;
    }
    image = malloc((size_t)status.st_size);
    ssize_t got = image ? read_all(fd, image, (size_t)status.st_size) : -ENOMEM;
    if (got < 0) {
        result = error_set(error, (int)got, "cannot read replica metadata %s: %s", path, strerror((int)-got));
        goto out;
    }
    memset(file, 0, sizeof(*file));
    file->loop = loop;
    file->fd = fd;
    file->path = path;
    *ret_image = image;
    *ret_image_bytes = (uint64_t)got;
    return 0;
out:
    free(image);
    close(fd);
    return result;
}

static void metadata_file_work(uv_work_t *work)
{
    struct metadata_file *file = container_of(work, struct metadata_file, work);
    file->status = 0;
    for (unsigned i = 0; i < file->count && file->status == 0; i++)
        file->status = write_all(file->fd, file->pages[i].bytes, METADATA_PAGE_BYTES, file->pages[i].offset_bytes);
    if (file->status == 0 && fdatasync(file->fd) < 0)
        file->status = -errno; /* I12: the replica goes out of service, nothing is tried again */
}

static void metadata_file_work_done(uv_work_t *work, int status)
{
    struct metadata_file *file = container_of(work, struct metadata_file, work);
    file->busy = false;
    file->done(file, status < 0 ? status : file->status);
}

void metadata_file_write(struct metadata_file *file, const struct metadata_page *pages, unsigned count)
{
    ASSERT(!file->busy);
    file->busy = true;
    file->pages = pages;
    file->count = count;
    ASSERT(uv_queue_work(file->loop, &file->work, metadata_file_work, metadata_file_work_done) == 0);
}

/* Written beside the old one, locked, synced, renamed over it, the folder synced: a crash leaves the one or the other. */
static int replace_work(struct metadata_file *file)
{
    char making[4096];
    if (snprintf(making, sizeof(making), "%s.new", file->path) >= (int)sizeof(making))
        return -ENAMETOOLONG;
    int fd = open(making, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int result = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : write_all(fd, file->image, file->image_bytes, 0);
    if (result == 0 && fsync(fd) < 0)
        result = -errno;
    if (result == 0 && rename(making, file->path) < 0)
        result = -errno;
    if (result < 0) {
        unlink(making);
        close(fd);
        return result;
    }
    close(file->fd);
    file->fd = fd;
    return sync_folder_of(file->path);
}

static void metadata_file_replace_work(uv_work_t *work)
{
    struct metadata_file *file = container_of(work, struct metadata_file, work);
    file->status = replace_work(file);
}

void metadata_file_replace(struct metadata_file *file, const uint8_t *image, uint64_t bytes)
{
    ASSERT(!file->busy);
    file->busy = true;
    file->image = image;
    file->image_bytes = bytes;
    ASSERT(uv_queue_work(file->loop, &file->work, metadata_file_replace_work, metadata_file_work_done) == 0);
}

void metadata_file_close(struct metadata_file *file)
{
    ASSERT(!file->busy);
    close(file->fd);
    file->fd = -1;
}
