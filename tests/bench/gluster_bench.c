/* gluster_bench NAME STORE REPLICAS HOST VOLUME SIZE_MIB SECONDS WORKLOADS [PID...]
 * The workloads on a file of a GlusterFS volume, through its libgfapi in this process (loaded at run time: no build dependency).
 * The file is opened O_DIRECT|O_DSYNC: like the product's, a write that was answered is durable on every replica.
 * With a NAME that ends in +wb it is opened O_DIRECT only: what was answered need not be durable.
 * Depth 1 uses the blocking calls, other depths the asynchronous ones. PID...: the bricks, whose CPU time counts as well.
 * Prints "NAME STORE REPLICAS" and the meter's figures. */
#include "tests/bench/bench_meter.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PORT 24007

struct glfs;
struct glfs_fd;
struct glfs_stat;
typedef void glfs_callback(struct glfs_fd *fd, ssize_t result, struct glfs_stat *before, struct glfs_stat *after, void *data);

/* <glusterfs/api/glfs.h> of GlusterFS 6 and later (GFAPI_6.0). */
static struct {
    struct glfs *(*new)(const char *volume);
    int (*set_volfile_server)(struct glfs *fs, const char *transport, const char *host, int port);
    int (*set_logging)(struct glfs *fs, const char *file, int level);
    int (*init)(struct glfs *fs);
    struct glfs_fd *(*creat)(struct glfs *fs, const char *path, int flags, mode_t mode);
    ssize_t (*pwrite)(struct glfs_fd *fd, const void *from, size_t size, off_t offset, int flags, struct glfs_stat *before,
                      struct glfs_stat *after);
    ssize_t (*pread)(struct glfs_fd *fd, void *to, size_t size, off_t offset, int flags, struct glfs_stat *after);
    int (*pwrite_async)(struct glfs_fd *fd, const void *from, size_t size, off_t offset, int flags, glfs_callback *callback, void *data);
    int (*pread_async)(struct glfs_fd *fd, void *to, size_t size, off_t offset, int flags, glfs_callback *callback, void *data);
    int (*close)(struct glfs_fd *fd);
} gf;

static void load(void)
{
    static const struct {
        const char *name, *version;
        void *to;
    } symbols[] = {
        {"glfs_new", "GFAPI_3.4.0", &gf.new}, {"glfs_set_volfile_server", "GFAPI_3.4.0", &gf.set_volfile_server},
        {"glfs_set_logging", "GFAPI_3.4.0", &gf.set_logging}, {"glfs_init", "GFAPI_3.4.0", &gf.init},
        {"glfs_creat", "GFAPI_3.4.0", &gf.creat}, {"glfs_pwrite", "GFAPI_6.0", &gf.pwrite}, {"glfs_pread", "GFAPI_6.0", &gf.pread},
        {"glfs_pwrite_async", "GFAPI_6.0", &gf.pwrite_async}, {"glfs_pread_async", "GFAPI_6.0", &gf.pread_async},
        {"glfs_close", "GFAPI_3.4.0", &gf.close},
    };
    void *library = dlopen("libgfapi.so.0", RTLD_NOW);
    for (size_t i = 0; i < ARRAY_SIZE(symbols); i++) {
        void *symbol = library ? dlvsym(library, symbols[i].name, symbols[i].version) : NULL;
        if (!symbol) {
            fprintf(stderr, "%s\n", dlerror());
            exit(1);
        }
        memcpy(symbols[i].to, &symbol, sizeof(symbol));
    }
}

static struct glfs_fd *fd;
static uint64_t size_bytes;
static const struct bench_workload *workload;
static struct bench_offsets offsets;
static struct bench_meter meter;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t over = PTHREAD_COND_INITIALIZER;
static unsigned under_way;

struct slot {
    void *data;
    uint64_t submitted_ns;
};
static struct slot slots[BENCH_DEPTH_MAX];

static void completed(struct glfs_fd *from, ssize_t result, struct glfs_stat *before, struct glfs_stat *after, void *data);

static void submit(struct slot *slot, uint64_t offset)
{
    slot->submitted_ns = bench_clock_ns();
    int result = workload->write ? gf.pwrite_async(fd, slot->data, workload->bytes, (off_t)offset, 0, completed, slot)
                                 : gf.pread_async(fd, slot->data, workload->bytes, (off_t)offset, 0, completed, slot);
    bench_must(result < 0 ? -errno : 0, "submit");
}

/* On a thread of libgfapi. */
static void completed(struct glfs_fd *from, ssize_t result, struct glfs_stat *before, struct glfs_stat *after, void *data)
{
    struct slot *slot = data;
    (void)from, (void)before, (void)after;
    bench_must(result == (ssize_t)workload->bytes ? 0 : -EIO, workload->name);
    pthread_mutex_lock(&lock);
    bool more = bench_meter_completed(&meter, slot->submitted_ns);
    uint64_t offset = bench_offset(&offsets);
    if (!more && --under_way == 0)
        pthread_cond_signal(&over);
    pthread_mutex_unlock(&lock);
    if (more)
        submit(slot, offset);
}

static void run_blocking(void)
{
    uint64_t begun_ns;
    do {
        uint64_t offset = bench_offset(&offsets);
        begun_ns = bench_clock_ns();
        ssize_t result = workload->write ? gf.pwrite(fd, slots[0].data, workload->bytes, (off_t)offset, 0, NULL, NULL)
                                         : gf.pread(fd, slots[0].data, workload->bytes, (off_t)offset, 0, NULL);
        bench_must(result == (ssize_t)workload->bytes ? 0 : -EIO, workload->name);
    } while (bench_meter_completed(&meter, begun_ns));
}

struct bench {
    char prefix[64];
    double seconds;
    pid_t pids[BENCH_PROCESSES_MAX];
    unsigned pid_count;
};

static void run(const struct bench_workload *which, void *context)
{
    struct bench *bench = context;
    workload = which;
    bench_offsets_init(&offsets, workload, size_bytes);
    bench_meter_begin(&meter, 0.15, bench->seconds, bench->pids, bench->pid_count);
    if (workload->depth == 1) {
        run_blocking();
    } else {
        under_way = workload->depth;
        for (unsigned i = 0; i < workload->depth; i++) {
            pthread_mutex_lock(&lock);
            uint64_t offset = bench_offset(&offsets);
            pthread_mutex_unlock(&lock);
            submit(&slots[i], offset);
        }
        pthread_mutex_lock(&lock);
        while (under_way)
            pthread_cond_wait(&over, &lock);
        pthread_mutex_unlock(&lock);
    }
    bench_meter_report(&meter, bench->prefix, workload);
}

int main(int argc, char **argv)
{
    struct bench bench = {.pids = {getpid()}, .pid_count = 1};
    if (argc < 9) {
        fprintf(stderr, "gluster_bench NAME STORE REPLICAS HOST VOLUME SIZE_MIB SECONDS WORKLOADS [PID...]\n");
        return 2;
    }
    (void)snprintf(bench.prefix, sizeof(bench.prefix), "%s %s %s", argv[1], argv[2], argv[3]);
    size_bytes = (uint64_t)atoi(argv[6]) << 20;
    bench.seconds = atof(argv[7]);
    for (int i = 9; i < argc && bench.pid_count < BENCH_PROCESSES_MAX; i++)
        bench.pids[bench.pid_count++] = (pid_t)atoi(argv[i]);
    load();
    struct glfs *fs = gf.new(argv[5]);
    bench_must(fs ? 0 : -ENOMEM, "glfs_new");
    bench_must(gf.set_volfile_server(fs, "tcp", argv[4], PORT) < 0 ? -errno : 0, "glfs_set_volfile_server");
    bench_must(gf.set_logging(fs, "/dev/null", 1) < 0 ? -errno : 0, "glfs_set_logging");
    bench_must(gf.init(fs) < 0 ? -errno : 0, "glfs_init");
    fd = gf.creat(fs, "/bench.data", O_RDWR | O_DIRECT | (strstr(argv[1], "+wb") ? 0 : O_DSYNC), 0600);
    bench_must(fd ? 0 : -errno, "glfs_creat");
    for (unsigned i = 0; i < BENCH_DEPTH_MAX; i++)
        slots[i].data = bench_buffer(BENCH_LARGEST_BYTES);
    for (uint64_t at = 0; at < size_bytes; at += BENCH_LARGEST_BYTES)
        bench_must(gf.pwrite(fd, slots[0].data, BENCH_LARGEST_BYTES, (off_t)at, 0, NULL, NULL) == BENCH_LARGEST_BYTES ? 0 : -errno, "fill");
    bench_workloads(argv[8], run, &bench);
    (void)gf.close(fd);
    _exit(0); /* glfs_fini waits for threads that need not end */
}
