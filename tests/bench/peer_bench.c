/* peer_bench [seconds]: the peer link between two processes on the loopback, beside plain TCP doing the same.
 * rr: a frame of 48 bytes asks, 48+4096 answer, at depth 1 and 32. stream: frames of 48+1 MiB one way, acknowledged by 48.
 * CPU is of both processes together, per frame that carries payload. */
#include "agent/io/peer_listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define ASK    0x40
#define ANSWER 0x41
#define STREAM 0x42
#define SMALL  4096u
#define LARGE  (1u << 20)

static const uint8_t psk[32] = {7};
static uint8_t block[LARGE];

struct run {
    const char *name;
    unsigned depth;
    bool stream;
};
static const struct run runs[] = {{"4 KiB read, depth 1", 1, false}, {"4 KiB read, depth 32", 32, false}, {"1 MiB write, depth 8", 8, true}};

static double cpu_seconds(int who)
{
    struct rusage usage;
    (void)getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + 1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void report(const char *transport, const struct run *run, uint64_t count, uint64_t took_us, double cpu_s)
{
    double seconds = (double)took_us / 1e6;
    printf("%-9s %-22s %9.0f frames/s %8.0f MB/s %8.2f us CPU/frame (both ends)\n", transport, run->name, (double)count / seconds,
           (double)count * (run->stream ? LARGE : SMALL) / seconds / 1e6, cpu_s * 1e6 / (double)count);
    fflush(stdout);
}

/* ---- the peer link ---- */

static struct {
    const struct run *run;
    uint64_t count, end_us;
    unsigned under_way;
    bool over;
    uv_loop_t loop;
    struct peer_mesh *mesh;
} bench;

static void must(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(-result));
        _exit(1);
    }
}

static void ask(struct peer *peer)
{
    struct iovec iov = {block, LARGE};
    struct peer_header header = {.type = bench.run->stream ? STREAM : ASK};
    must(peer_send(peer, &header, &iov, bench.run->stream ? 1 : 0), "send");
    bench.under_way++;
}

static void on_up(struct peer *peer, const struct peer_hello *hello, void *context)
{
    (void)hello, (void)context;
    for (unsigned i = 0; bench.run && i < bench.run->depth; i++)
        ask(peer);
}

static void on_down(struct peer *peer, int reason, const char *words, void *context)
{
    (void)peer, (void)reason, (void)words, (void)context;
    bench.over = true;
}

static void on_frame(struct peer *peer, const struct peer_header *header, struct peer_buffer *payload, void *context)
{
    struct iovec iov = {block, SMALL};
    (void)context, (void)payload;
    if (header->type == ANSWER) {
        bench.count++;
        bench.under_way--;
        if (peer_clock_us() < bench.end_us)
            ask(peer);
        else if (bench.under_way == 0)
            bench.over = true;
        return;
    }
    must(peer_send(peer, &(struct peer_header){.type = ANSWER}, &iov, header->type == ASK ? 1 : 0), "send");
}

static void on_error(int code, const char *words, void *context)
{
    (void)code, (void)context;
    fprintf(stderr, "%s\n", words);
}

static const struct peer_mesh_callbacks callbacks = {.up = on_up, .down = on_down, .frame = on_frame, .error = on_error};

static void mesh_open(uint8_t id)
{
    struct error error;
    struct peer_mesh_config config = {.loop = &bench.loop, .channel = PEER_CHANNEL_DATA, .psk = psk,
                                      .hello = {.node = {{id}}, .boot = id}, .callbacks = &callbacks};
    uv_loop_init(&bench.loop);
    must(peer_mesh_new(&config, &bench.mesh, &error), "mesh");
}

static void server_main(int to)
{
    struct peer_listener *listener;
    struct peer_node other = {.uuid = {{1}}, .nodeid = 1, .address = "127.0.0.1:1"};
    mesh_open(2);
    struct peer_mesh *meshes[PEER_CHANNEL_COUNT] = {NULL, bench.mesh};
    must(peer_listener_new(&bench.loop, "127.0.0.1", 0, meshes, &listener, NULL), "listen");
    must(peer_mesh_set_peers(bench.mesh, &other, 1), "peers");
    uint16_t port = peer_listener_port(listener);
    if (write(to, &port, sizeof(port)) != sizeof(port))
        _exit(1);
    while (!bench.over)
        uv_run(&bench.loop, UV_RUN_ONCE);
    _exit(0);
}

static pid_t start(void (*main_)(int), uint16_t *ret_port)
{
    int ends[2];
    must(pipe(ends) < 0 ? -errno : 0, "pipe");
    pid_t child = fork();
    if (child == 0)
        main_(ends[1]);
    if (read(ends[0], ret_port, sizeof(*ret_port)) != sizeof(*ret_port))
        exit(1);
    close(ends[0]);
    close(ends[1]);
    return child;
}

static void bench_link(const struct run *run, double seconds)
{
    uint16_t port;
    double children = cpu_seconds(RUSAGE_CHILDREN), self;
    memset(&bench, 0, sizeof(bench)); /* for the child as well */
    pid_t child = start(server_main, &port);
    struct peer_node other = {.uuid = {{2}}, .nodeid = 2};
    (void)snprintf(other.address, sizeof(other.address), "127.0.0.1:%u", port);
    bench.run = run;
    mesh_open(1);
    must(peer_mesh_set_peers(bench.mesh, &other, 1), "peers");
    self = cpu_seconds(RUSAGE_SELF);
    uint64_t begun_us = peer_clock_us();
    bench.end_us = begun_us + (uint64_t)(seconds * 1e6);
    while (!bench.over)
        uv_run(&bench.loop, UV_RUN_ONCE);
    uint64_t took_us = peer_clock_us() - begun_us;
    self = cpu_seconds(RUSAGE_SELF) - self;
    peer_mesh_close(bench.mesh, NULL, NULL);
    uv_run(&bench.loop, UV_RUN_DEFAULT);
    uv_loop_close(&bench.loop);
    (void)waitpid(child, NULL, 0);
    report("peer link", run, bench.count, took_us, self + cpu_seconds(RUSAGE_CHILDREN) - children);
}

/* ---- plain TCP: blocking sockets, everything read at once is answered by one write ---- */

static void send_all(int fd, const void *from, size_t size)
{
    for (const uint8_t *p = from; size;) {
        ssize_t wrote = send(fd, p, size, MSG_NOSIGNAL);
        if (wrote <= 0)
            _exit(0);
        p += wrote;
        size -= (size_t)wrote;
    }
}

/* Answer until the peer goes away. */
static void plain_serve(int fd)
{
    static uint8_t in[1u << 18], out[64 * (PEER_HEADER_BYTES + SMALL)];
    uint8_t head[PEER_HEADER_BYTES];
    size_t have = 0, skip = 0;
    for (;;) {
        ssize_t got = recv(fd, in, sizeof(in), 0);
        size_t at = 0, answer = 0;
        if (got <= 0)
            _exit(0);
        while (at < (size_t)got) {
            size_t take = MIN(skip ? skip : sizeof(head) - have, (size_t)got - at);
            if (skip) {
                skip -= take;
            } else {
                memcpy(head + have, in + at, take);
                have += take;
            }
            at += take;
            struct peer_header header;
            if (!skip && have == sizeof(head) && peer_header_decode(head, &header) == 0) {
                if (header.payload_bytes && header.type == STREAM) {
                    skip = header.payload_bytes;
                    header.payload_bytes = 0;
                    header.type = ANSWER;
                    peer_header_encode(&header, head); /* answered when the payload is in */
                    continue;
                }
                have = 0;
                size_t size = header.type == ASK ? SMALL : 0;
                peer_header_encode(&(struct peer_header){.type = ANSWER, .payload_bytes = (uint32_t)size}, out + answer);
                memcpy(out + answer + PEER_HEADER_BYTES, block, size);
                answer += PEER_HEADER_BYTES + size;
            }
        }
        send_all(fd, out, answer);
    }
}

static void plain_main(int to)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    must(bind(fd, (struct sockaddr *)&at, size) < 0 || listen(fd, 1) < 0 ? -errno : 0, "listen");
    (void)getsockname(fd, (struct sockaddr *)&at, &size);
    uint16_t port = ntohs(at.sin_port);
    if (write(to, &port, sizeof(port)) != sizeof(port))
        _exit(1);
    int peer = accept(fd, NULL, NULL);
    (void)setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    plain_serve(peer);
}

static void plain_ask(int fd, const struct run *run, unsigned count)
{
    static uint8_t out[64 * PEER_HEADER_BYTES];
    if (count == 0)
        return;
    if (!run->stream) {
        for (unsigned i = 0; i < count; i++)
            peer_header_encode(&(struct peer_header){.type = ASK}, out + i * PEER_HEADER_BYTES);
        send_all(fd, out, count * PEER_HEADER_BYTES);
        return;
    }
    while (count--) {
        peer_header_encode(&(struct peer_header){.type = STREAM, .payload_bytes = LARGE}, out);
        send_all(fd, out, PEER_HEADER_BYTES);
        send_all(fd, block, LARGE);
    }
}

static void bench_plain(const struct run *run, double seconds)
{
    static uint8_t in[1u << 18];
    uint16_t port;
    int one = 1;
    size_t answer = PEER_HEADER_BYTES + (run->stream ? 0 : SMALL), have = 0;
    uint64_t count = 0;
    unsigned under_way = run->depth;
    double children = cpu_seconds(RUSAGE_CHILDREN), self;
    pid_t child = start(plain_main, &port);
    int fd = socket(AF_INET, SOCK_STREAM, 0); /* not before: the child would hold it open */
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    must(connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ? -errno : 0, "connect");
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    self = cpu_seconds(RUSAGE_SELF);
    uint64_t begun_us = peer_clock_us(), end_us = begun_us + (uint64_t)(seconds * 1e6);
    plain_ask(fd, run, run->depth);
    while (under_way) {
        ssize_t got = recv(fd, in, sizeof(in), 0);
        must(got <= 0 ? -ECONNRESET : 0, "receive");
        have += (size_t)got;
        unsigned done = (unsigned)(have / answer);
        have %= answer;
        count += done;
        under_way -= done;
        if (peer_clock_us() < end_us) {
            plain_ask(fd, run, done);
            under_way += done;
        }
    }
    uint64_t took_us = peer_clock_us() - begun_us;
    self = cpu_seconds(RUSAGE_SELF) - self;
    close(fd);
    (void)waitpid(child, NULL, 0);
    report("plain TCP", run, count, took_us, self + cpu_seconds(RUSAGE_CHILDREN) - children);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 3;
    (void)signal(SIGPIPE, SIG_IGN);
    memset(block, 0x5a, sizeof(block));
    for (size_t i = 0; i < ARRAY_SIZE(runs); i++) {
        bench_plain(&runs[i], seconds);
        bench_link(&runs[i], seconds);
    }
    return 0;
}
