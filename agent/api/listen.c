#include "agent/api/listen.h"

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Remove a socket that nobody listens on. -EADDRINUSE when somebody does, or when it is no socket. */
static int remove_left_over(const struct sockaddr_un *address, struct error *error)
{
    struct stat status;
    if (lstat(address->sun_path, &status) < 0)
        return errno == ENOENT ? 0 : error_set(error, -errno, "cannot look at %s: %s", address->sun_path, strerror(errno));
    if (!S_ISSOCK(status.st_mode))
        return error_set(error, -EADDRINUSE, "%s is there and is no socket; remove it or choose another run folder",
                         address->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(error, -errno, "cannot make a socket: %s", strerror(errno));
    int connected = connect(fd, (const struct sockaddr *)address, sizeof(*address));
    int reason = connected < 0 ? errno : 0;
    close(fd);
    if (reason != ECONNREFUSED && reason != ENOENT)
        return error_set(error, -EADDRINUSE, "another process listens on %s; is directord running already?",
                         address->sun_path);
    (void)unlink(address->sun_path);
    return 0;
}

int api_listen_socket(const char *path, const char *group, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct group *entry = group ? getgrnam(group) : NULL;
    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(error, -ENAMETOOLONG, "the socket path %.60s... is longer than %zu bytes", path,
                         sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    int code = remove_left_over(&address, error);
    if (code < 0)
        return code;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(error, -errno, "cannot make a socket: %s", strerror(errno));
    /* Linux gives the file the socket's own mode (unix(7) is silent, af_unix.c unix_bind_bsd is not): no instant at which
     * others could connect, and no umask() that other threads would see. */
    if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        code = error_set(error, -errno, "cannot listen on %s: %s", path, strerror(errno));
        close(fd);
        return code;
    }
    if (entry && (chown(path, (uid_t)-1, entry->gr_gid) < 0 || chmod(path, 0660) < 0)) {
        code = error_set(error, -errno, "cannot give %s to group %s: %s", path, group, strerror(errno));
        (void)unlink(path);
        close(fd);
        return code;
    }
    return fd;
}
