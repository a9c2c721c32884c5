/* fault_shim.so, preloaded into a node's programs by `deploy/testbed up N --faults`: what the file system and the clock of one
 * node can do wrong. Steered through one page of text that all of them map (DIRECTOR_SHIM names the file):
 *
 *     clock SECONDS        the wall clock is off by so much (CLOCK_REALTIME only; monotonic clocks never jump)
 *     sync ERRNO PART      fsync and fdatasync of files whose path contains PART fail
 *     write ERRNO PART     write and pwrite to such files fail
 *
 * ERRNO is EIO or ENOSPC. Calls that go straight to the kernel (io_uring) are not seen: data files have the filters of
 * agent/node/engine_fault.h instead. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SHIM_BYTES 4096

static const char *rules; /* never changes once set; the page behind it does */

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static __attribute__((constructor)) void shim_start(void)
{
    const char *path = getenv("DIRECTOR_SHIM");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, SHIM_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        rules = page;
}

/* The words after `name ` at the begin of a line; NULL when there are none. copy keeps the page as it was at one moment. */
static const char *rule_find(const char *name, char copy[static SHIM_BYTES])
{
    size_t length = strlen(name);
    if (!rules || !rules[0])
        return NULL;
    memcpy(copy, rules, SHIM_BYTES - 1);
    copy[SHIM_BYTES - 1] = '\0';
    for (const char *line = copy; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (!strncmp(line, name, length) && line[length] == ' ')
            return line + length + 1;
    return NULL;
}

/* The errno that a rule has for this descriptor, or 0. */
static int rule_errno(const char *name, int fd)
{
    char copy[SHIM_BYTES], link[64], path[1024], error[16] = "", part[256] = "";
    const char *words = rule_find(name, copy);
    if (!words || sscanf(words, "%15s %255s", error, part) != 2)
        return 0;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    if (!strstr(path, part))
        return 0;
    return strcmp(error, "ENOSPC") ? EIO : ENOSPC;
}

#define FAIL(name, fd) \
    do { \
        int failed = rule_errno(name, fd); \
        if (failed) { \
            errno = failed; \
            return -1; \
        } \
    } while (0)

int fsync(int fd)
{
    REAL(fsync);
    FAIL("sync", fd);
    return real(fd);
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    FAIL("sync", fd);
    return real(fd);
}

ssize_t pwrite(int fd, const void *from, size_t size, off_t offset)
{
    REAL(pwrite);
    FAIL("write", fd);
    return real(fd, from, size, offset);
}

ssize_t pwrite64(int fd, const void *from, size_t size, off64_t offset)
{
    REAL(pwrite64);
    FAIL("write", fd);
    return real(fd, from, size, offset);
}

ssize_t write(int fd, const void *from, size_t size)
{
    REAL(write);
    FAIL("write", fd);
    return real(fd, from, size);
}

static long clock_off(void)
{
    char copy[SHIM_BYTES];
    const char *words = rule_find("clock", copy);
    return words ? atol(words) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *ret_time)
{
    REAL(clock_gettime);
    int result = real(clock, ret_time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        ret_time->tv_sec += clock_off();
    return result;
}

int gettimeofday(struct timeval *restrict ret_time, void *restrict zone)
{
    REAL(gettimeofday);
    int result = real(ret_time, zone);
    if (result == 0)
        ret_time->tv_sec += clock_off();
    return result;
}

time_t time(time_t *ret_time)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (ret_time)
        *ret_time = now.tv_sec;
    return now.tv_sec;
}
