/* floor_bench STORE FOLDER REPLICAS SIZE_MIB SECONDS WORKLOADS
 * What the machine can do at best: bare programs, one per replica, that move the bytes of the product's frames over plain TCP on
 * the loopback and do the same write to the same store, and nothing else: no protocol state, no checks, no intent, no TLS.
 *
 * write: the owner sends 48+40 bytes and the data, from the caller's memory, to each other replica, and writes it itself; the
 * others write it and answer 48+16 bytes; done when all are. read: of the own store. copy (for resync): the owner reads a piece
 * of its store and sends it, the first other replica writes and answers.
 * Store: "ram" is one memcpy; otherwise a file: on tmpfs pread and pwrite in place, elsewhere io_uring with O_DIRECT and, for
 * writes, RWF_DSYNC: what the product's file backstore does.
 * Each program is one thread with one io_uring for sockets and file together: one system call a turn, whatever became ready
 * in a turn is sent by one sendmsg. Prints "floor STORE REPLICAS" and the meter's figures. */
#include "tests/bench/bench_meter.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/magic.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define PEERS_MAX     3u
#define REQUEST_BYTES 88u /* frame header and body of a WRITE */
#define REPLY_BYTES   64u /* of a WRITE_REPLY */
#define BUFFER_BYTES  (256u << 10)
#define DIRECT_BYTES  (32u << 10) /* this much of a payload outstanding: it is received where it will be written from */
#define IOV_MAX_SEND  512u

enum tag { TAG_RECEIVE, TAG_SEND, TAG_DISK };

struct frame { /* both directions; what is not used is padding of the size that the product sends */
    uint64_t slot;
    uint64_t offset;
    uint32_t bytes;
    uint8_t rest[REQUEST_BYTES - 20];
};
static_assert(sizeof(struct frame) >= REQUEST_BYTES, "a frame is at least a request");

struct slot {
    struct frame frame;
    uint8_t *data;
    size_t capacity;
    struct connection *connection; /* peer: where to answer */
    uint64_t submitted_ns;
    unsigned missing; /* owner: acknowledgements */
    bool busy;
};

struct connection {
    int fd;
    struct msghdr message;
    struct iovec iov[2][IOV_MAX_SEND];
    unsigned gathering, count; /* iov[gathering][0..count) wait for the send under way */
    bool sending;
    uint8_t *buffer;
    uint8_t head[REQUEST_BYTES];
    size_t have;
    struct slot *slot; /* peer: its payload is being received */
    size_t got;
    bool direct;
};

static struct io_uring ring;
static struct connection connections[PEERS_MAX];
static unsigned connection_count;
static struct slot slots[BENCH_DEPTH_MAX];
static uint8_t *memory; /* store ram */
static bool in_place;   /* ram or tmpfs: no ring for the store */
static struct slot *deferred[BENCH_DEPTH_MAX]; /* in place, but the network is served first */
static unsigned deferred_count;
static int file = -1;
static uint64_t size_bytes;
static const struct bench_workload *workload;
static bool copying;
static struct bench_meter meter;
static struct bench_offsets offsets;
static unsigned under_way, waiting; /* waiting: slots to be submitted at the next turn */

static struct io_uring_sqe *entry(enum tag tag, void *pointer)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (!sqe) {
        (void)io_uring_submit(&ring);
        sqe = io_uring_get_sqe(&ring);
    }
    sqe->user_data = (uintptr_t)pointer | tag;
    return sqe;
}

static void prepared(struct io_uring_sqe *sqe, enum tag tag, void *pointer)
{
    sqe->user_data = (uintptr_t)pointer | tag; /* io_uring_prep_* clears it */
}

/* ---- sending ---- */

static void send_start(struct connection *c)
{
    if (c->sending || !c->count)
        return;
    c->message = (struct msghdr){.msg_iov = c->iov[c->gathering], .msg_iovlen = c->count};
    struct io_uring_sqe *sqe = entry(TAG_SEND, c);
    io_uring_prep_sendmsg(sqe, c->fd, &c->message, MSG_NOSIGNAL | MSG_WAITALL);
    prepared(sqe, TAG_SEND, c);
    c->sending = true;
    c->gathering ^= 1;
    c->count = 0;
}

static void gather(struct connection *c, const void *bytes, size_t size)
{
    bench_must(c->count < IOV_MAX_SEND ? 0 : -ENOBUFS, "send queue");
    c->iov[c->gathering][c->count++] = (struct iovec){(void *)bytes, size};
}

/* ---- the store ---- */

static void disk_done(struct slot *slot);

static void disk_in_place(struct slot *slot, bool write)
{
    struct frame *f = &slot->frame;
    ssize_t result = f->bytes;
    if (memory && write)
        memcpy(memory + f->offset, slot->data, f->bytes);
    else if (memory)
        memcpy(slot->data, memory + f->offset, f->bytes);
    else if (write)
        result = pwrite(file, slot->data, f->bytes, (off_t)f->offset);
    else
        result = pread(file, slot->data, f->bytes, (off_t)f->offset);
    bench_must(result == (ssize_t)f->bytes ? 0 : -EIO, "store");
    disk_done(slot);
}

static void disk_start(struct slot *slot, bool write)
{
    if (in_place) {
        disk_in_place(slot, write);
        return;
    }
    struct io_uring_sqe *sqe = entry(TAG_DISK, slot);
    if (write)
        io_uring_prep_write(sqe, file, slot->data, slot->frame.bytes, slot->frame.offset);
    else
        io_uring_prep_read(sqe, file, slot->data, slot->frame.bytes, slot->frame.offset);
    if (write)
        sqe->rw_flags = RWF_DSYNC;
    prepared(sqe, TAG_DISK, slot);
}

/* ---- the owner ---- */

static void owner_submit(struct slot *slot)
{
    slot->submitted_ns = bench_clock_ns();
    slot->frame.slot = (uint64_t)(slot - slots);
    slot->frame.offset = bench_offset(&offsets);
    slot->frame.bytes = workload->bytes;
    under_way++;
    slot->missing = 1;
    if (workload->write && !copying) {
        slot->missing += connection_count;
        for (unsigned i = 0; i < connection_count; i++) {
            gather(&connections[i], &slot->frame, REQUEST_BYTES);
            gather(&connections[i], slot->data, slot->frame.bytes);
        }
    }
    if (in_place && connection_count && workload->write && !copying)
        deferred[deferred_count++] = slot;
    else
        disk_start(slot, workload->write && !copying);
}

static void owner_done(struct slot *slot)
{
    if (--slot->missing)
        return;
    under_way--;
    slot->busy = false;
    if (bench_meter_completed(&meter, slot->submitted_ns)) {
        slot->busy = true; /* submitted anew at the next turn, not from here: memcpy stores would recurse */
        waiting++;
    }
}

/* ---- a peer ---- */

static struct slot *peer_slot(uint64_t number, uint32_t bytes)
{
    struct slot *slot = &slots[number % BENCH_DEPTH_MAX];
    if (slot->capacity < bytes) {
        free(slot->data);
        slot->data = bench_buffer(bytes);
        slot->capacity = bytes;
    }
    return slot;
}

static bool is_owner;

static void disk_done(struct slot *slot)
{
    if (is_owner && copying && slot->missing == 1 && slot->frame.bytes && !slot->connection) {
        slot->connection = &connections[0]; /* read: send it */
        gather(slot->connection, &slot->frame, REQUEST_BYTES);
        gather(slot->connection, slot->data, slot->frame.bytes);
        return;
    }
    if (is_owner)
        owner_done(slot);
    else
        gather(slot->connection, &slot->frame, REPLY_BYTES);
}

static void owner_input(struct connection *c, const uint8_t *bytes, size_t size)
{
    while (size) {
        size_t take = MIN(size, REPLY_BYTES - c->have);
        memcpy(c->head + c->have, bytes, take);
        c->have += take;
        bytes += take;
        size -= take;
        if (c->have == REPLY_BYTES) {
            uint64_t number;
            memcpy(&number, c->head, sizeof(number));
            c->have = 0;
            slots[number].connection = NULL;
            owner_done(&slots[number]);
        }
    }
}

static void peer_received(struct connection *c)
{
    if (c->got < c->slot->frame.bytes)
        return;
    struct slot *slot = c->slot;
    c->slot = NULL;
    disk_start(slot, true);
}

static void peer_input(struct connection *c, const uint8_t *bytes, size_t size)
{
    while (size) {
        if (c->slot) {
            size_t take = MIN(size, c->slot->frame.bytes - c->got);
            memcpy(c->slot->data + c->got, bytes, take);
            c->got += take;
            bytes += take;
            size -= take;
            peer_received(c);
            continue;
        }
        size_t take = MIN(size, REQUEST_BYTES - c->have);
        memcpy(c->head + c->have, bytes, take);
        c->have += take;
        bytes += take;
        size -= take;
        if (c->have == REQUEST_BYTES) {
            struct frame frame;
            memcpy(&frame, c->head, REQUEST_BYTES);
            c->have = 0;
            c->got = 0;
            c->slot = peer_slot(frame.slot, frame.bytes);
            memcpy(&c->slot->frame, &frame, REQUEST_BYTES);
            c->slot->connection = c;
        }
    }
}

/* ---- the loop ---- */

static void receive_start(struct connection *c)
{
    struct io_uring_sqe *sqe = entry(TAG_RECEIVE, c);
    c->direct = c->slot && c->slot->frame.bytes - c->got >= DIRECT_BYTES;
    if (c->direct)
        io_uring_prep_recv(sqe, c->fd, c->slot->data + c->got, c->slot->frame.bytes - c->got, 0);
    else
        io_uring_prep_recv(sqe, c->fd, c->buffer, BUFFER_BYTES, 0);
    prepared(sqe, TAG_RECEIVE, c);
}

/* False: the other end is gone. */
static bool received(struct connection *c, int result)
{
    if (result <= 0)
        return false;
    if (c->direct) {
        c->got += (size_t)result;
        peer_received(c);
    } else if (is_owner) {
        owner_input(c, c->buffer, (size_t)result);
    } else {
        peer_input(c, c->buffer, (size_t)result);
    }
    receive_start(c);
    return true;
}

static bool turn(void)
{
    struct io_uring_cqe *cqes[128];
    do
        for (unsigned i = 0; waiting && i < BENCH_DEPTH_MAX; i++)
            if (slots[i].busy && slots[i].missing == 0) {
                waiting--;
                owner_submit(&slots[i]);
            }
    while (waiting); /* what memcpy stores complete at once */
    for (unsigned i = 0; i < connection_count; i++)
        send_start(&connections[i]);
    if (deferred_count) {
        bench_must(io_uring_submit(&ring), "io_uring");
        for (unsigned i = 0; i < deferred_count; i++)
            disk_in_place(deferred[i], true); /* never the last to be done: no answer has been read yet */
        deferred_count = 0;
    }
    if (is_owner && !under_way)
        return true;
    int result = io_uring_submit_and_wait(&ring, 1);
    bench_must(result == -EINTR ? 0 : result, "io_uring");
    unsigned count = io_uring_peek_batch_cqe(&ring, cqes, ARRAY_SIZE(cqes));
    for (unsigned i = 0; i < count; i++) {
        enum tag tag = cqes[i]->user_data & 7;
        void *pointer = (void *)(uintptr_t)(cqes[i]->user_data & ~7ull);
        int status = cqes[i]->res;
        if (tag == TAG_RECEIVE) {
            if (!received(pointer, status))
                return false;
        } else if (tag == TAG_SEND) {
            struct connection *c = pointer;
            bench_must(status, "send");
            c->sending = false;
        } else {
            bench_must(status, "store");
            disk_done(pointer);
        }
    }
    io_uring_cq_advance(&ring, count);
    return true;
}

static void store_open(const char *store, const char *folder, unsigned index)
{
    char path[512];
    if (!strcmp(store, "ram")) {
        memory = bench_buffer(size_bytes);
        in_place = true;
        return;
    }
    (void)snprintf(path, sizeof(path), "%s/n%u", folder, index + 1);
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof(path), "%s/n%u/floor.data", folder, index + 1);
    file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_DIRECT, 0600);
    if (file < 0)
        file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bench_must(file < 0 ? -errno : 0, path);
    struct statfs system;
    in_place = fstatfs(file, &system) == 0 && system.f_type == TMPFS_MAGIC;
    uint8_t *block = bench_buffer(BENCH_LARGEST_BYTES);
    for (uint64_t at = 0; at < size_bytes; at += BENCH_LARGEST_BYTES)
        bench_must(pwrite(file, block, BENCH_LARGEST_BYTES, (off_t)at) == BENCH_LARGEST_BYTES ? 0 : -EIO, "fill");
    bench_must(fdatasync(file) < 0 ? -errno : 0, "fill");
    free(block);
}

static void ring_open(void)
{
    bench_must(io_uring_queue_init(256, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN), "io_uring");
}

static void connection_open(int fd)
{
    int one = 1;
    struct connection *c = &connections[connection_count++];
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    c->fd = fd;
    c->buffer = bench_buffer(BUFFER_BYTES);
}

static void peer_main(const char *store, const char *folder, unsigned index, const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    store_open(store, folder, index);
    ring_open();
    bench_must(connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0, "connect");
    connection_open(fd);
    receive_start(&connections[0]);
    while (turn())
        ;
    _exit(0);
}

struct bench {
    char prefix[64];
    double seconds;
    pid_t pids[PEERS_MAX + 1];
};

static void run(const struct bench_workload *which, void *context)
{
    struct bench *bench = context;
    workload = which;
    copying = which->copy;
    bench_offsets_init(&offsets, workload, size_bytes);
    bench_meter_begin(&meter, 0.15, bench->seconds, bench->pids, connection_count + 1);
    for (unsigned i = 0; i < workload->depth; i++) {
        struct slot *slot = peer_slot(i, BENCH_LARGEST_BYTES);
        slot->busy = true;
        slot->missing = 0;
        slot->connection = NULL;
        waiting++;
    }
    do
        bench_must(turn() ? 0 : -ECONNRESET, "peer");
    while (under_way || waiting);
    bench_meter_report(&meter, bench->prefix, workload);
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    if (argc != 7) {
        fprintf(stderr, "floor_bench STORE FOLDER REPLICAS SIZE_MIB SECONDS WORKLOADS\n");
        return 2;
    }
    unsigned replicas = (unsigned)atoi(argv[3]);
    bench_must(replicas >= 1 && replicas <= PEERS_MAX + 1 ? 0 : -EINVAL, "REPLICAS");
    size_bytes = (uint64_t)atoi(argv[4]) << 20;
    bench.seconds = atof(argv[5]);
    (void)snprintf(bench.prefix, sizeof(bench.prefix), "floor %s %u", argv[1], replicas);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bench_must(bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 4) < 0 ||
               getsockname(listener, (struct sockaddr *)&address, &length) < 0 ? -errno : 0, "listen");
    bench.pids[0] = getpid();
    for (unsigned k = 1; k < replicas; k++) {
        bench.pids[k] = fork();
        bench_must(bench.pids[k] < 0 ? -errno : 0, "fork");
        if (bench.pids[k] == 0) {
            close(listener);
            peer_main(argv[1], argv[2], k, &address);
        }
    }
    is_owner = true;
    store_open(argv[1], argv[2], 0);
    ring_open();
    for (unsigned k = 1; k < replicas; k++) {
        int fd = accept(listener, NULL, NULL);
        bench_must(fd < 0 ? -errno : 0, "accept");
        connection_open(fd);
        receive_start(&connections[k - 1]);
    }
    bench_workloads(argv[6], run, &bench);
    for (unsigned k = 1; k < replicas; k++)
        (void)shutdown(connections[k - 1].fd, SHUT_RDWR);
    for (unsigned k = 1; k < replicas; k++)
        (void)waitpid(bench.pids[k], NULL, 0);
    return 0;
}
