#include "agent/io/corosync_orphan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int file_read(const char *path, char *to, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, to, size - 1);
    int result = got < 0 ? -errno : (int)got;
    close(fd);
    to[result < 0 ? 0 : result] = '\0';
    return result;
}

int corosync_orphan_inspect(pid_t pid, const char *identity, struct corosync_orphan *ret_orphan)
{
    struct corosync_orphan orphan = {.pid = pid};
    char path[64], stat[1024], state;
    if (strlen(identity) >= sizeof(orphan.identity))
        return -EINVAL;
    memcpy(orphan.identity, identity, strlen(identity) + 1);
    (void)snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    if (file_read(path, stat, sizeof(stat)) <= 0)
        return -ESRCH;
    const char *after = strrchr(stat, ')'); /* the command may hold blanks and parentheses */
    /* Fields 3 (state) to 22 (start time). */
    if (!after || sscanf(after + 1,
                         " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &state,
                         &orphan.start_ticks) != 2)
        return -ESRCH;
    if (state == 'Z' || state == 'X')
        return -ESRCH;
    if (file_read("/proc/sys/kernel/random/boot_id", orphan.boot_id, sizeof(orphan.boot_id)) <= 0)
        return -ESRCH;
    orphan.boot_id[strcspn(orphan.boot_id, "\n")] = '\0';
    *ret_orphan = orphan;
    return 0;
}

int corosync_orphan_save(const char *path, const struct corosync_orphan *orphan)
{
    char text[512], temporary[4096];
    int length = snprintf(text, sizeof(text), "%ld %llu %s %s\n", (long)orphan->pid, orphan->start_ticks,
                          orphan->boot_id, orphan->identity);
    if (length >= (int)sizeof(text) || snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
        return -ENAMETOOLONG;
    (void)unlink(temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int result = write(fd, text, (size_t)length) == length ? 0 : -EIO;
    close(fd);
    if (result == 0 && rename(temporary, path) < 0)
        result = -errno;
    if (result < 0)
        (void)unlink(temporary);
    return result;
}

int corosync_orphan_load(const char *path, struct corosync_orphan *ret_orphan)
{
    struct corosync_orphan orphan = {0};
    char text[512];
    long pid;
    int length = file_read(path, text, sizeof(text));
    if (length < 0)
        return length;
    if (sscanf(text, "%ld %llu %63s %127s", &pid, &orphan.start_ticks, orphan.boot_id, orphan.identity) != 4 || pid <= 1)
        return -EPROTO;
    orphan.pid = (pid_t)pid;
    *ret_orphan = orphan;
    return 0;
}

int corosync_orphan_open(const struct corosync_orphan *orphan)
{
    struct corosync_orphan now;
    int pidfd = (int)syscall(SYS_pidfd_open, orphan->pid, 0u); /* close-on-exec by itself */
    if (pidfd < 0)
        return -ESRCH;
    /* Looked at after the descriptor was opened: it stands for what we look at. */
    if (corosync_orphan_inspect(orphan->pid, "", &now) < 0 || now.start_ticks != orphan->start_ticks ||
        strcmp(now.boot_id, orphan->boot_id) != 0) {
        close(pidfd);
        return -ESRCH;
    }
    return pidfd;
}

int corosync_orphan_signal(int pidfd, int number)
{
    return syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0u) < 0 ? -errno : 0;
}

static void folder_empty(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            (void)unlinkat(fd, entry->d_name, 0);
    closedir(folder);
    (void)unlinkat(parent, name, AT_REMOVEDIR);
}

void corosync_orphan_clean(pid_t pid)
{
    char blackbox[64], connection[64];
    (void)snprintf(blackbox, sizeof(blackbox), "qb-corosync-%ld-", (long)pid);
    (void)snprintf(connection, sizeof(connection), "qb-%ld-", (long)pid);
    DIR *folder = opendir("/dev/shm");
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (strncmp(entry->d_name, blackbox, strlen(blackbox)) == 0)
            (void)unlinkat(dirfd(folder), entry->d_name, 0);
        else if (strncmp(entry->d_name, connection, strlen(connection)) == 0)
            folder_empty(dirfd(folder), entry->d_name);
    }
    closedir(folder);
}
