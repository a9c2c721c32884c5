#include "director/library/channel.h"

#include "director/base/bytes.h"
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int64_t channel_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t channel_deadline(int timeout_ms)
{
    return timeout_ms < 0 ? DEADLINE_NEVER : channel_now() + timeout_ms;
}

void channel_init(struct channel *channel)
{
    channel->fd = -1;
    frame_reader_init(&channel->reader, FRAME_MAX_BYTES);
}

void channel_close(struct channel *channel)
{
    if (channel->fd >= 0)
        close(channel->fd);
    channel->fd = -1;
    frame_reader_done(&channel->reader);
}

int channel_is_stale(const struct channel *channel)
{
    struct pollfd poll_fd = {.fd = channel->fd, .events = POLLIN};
    return channel->fd < 0 || poll(&poll_fd, 1, 0) != 0;
}

/* Wait for events on the socket: 1, 0 when the deadline passed, or negative errno. */
static int wait_for(int fd, short events, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline == DEADLINE_NEVER ? 0 : deadline - channel_now();
        int timeout = deadline == DEADLINE_NEVER ? -1 : (int)MAX((int64_t)0, MIN(left, (int64_t)1000000));
        struct pollfd poll_fd = {.fd = fd, .events = events};
        int ready = poll(&poll_fd, 1, timeout);
        if (ready > 0)
            return 1;
        if (ready < 0 && errno != EINTR)
            return -errno;
        if (deadline != DEADLINE_NEVER && deadline <= channel_now())
            return 0;
    }
}

static int connect_words(int code, const char *path, struct error *error)
{
    switch (code) {
    case -ENOENT:
        return error_set(error, -ECONNREFUSED, "no agent here: %s does not exist; is directord running?", path);
    case -ECONNREFUSED:
        return error_set(error, code, "no agent answers at %s; is directord running?", path);
    case -EACCES:
    case -EPERM:
        return error_set(error, code, "not allowed to use %s: be root or in its group", path);
    default:
        return error_set(error, code, "cannot connect to %s: %s", path, strerror(-code));
    }
}

int channel_connect(struct channel *channel, const char *socket_path, int64_t deadline, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    channel_close(channel);
    if (strlen(socket_path) >= sizeof(address.sun_path))
        return error_set(error, -ENAMETOOLONG, "the socket path %.40s... is longer than %zu bytes", socket_path,
                         sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(error, -errno, "cannot make a socket: %s", strerror(errno));
    /* A unix socket connects at once, or says EAGAIN while the listener's backlog is full. */
    while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int code = -errno;
        if (code == -EINTR)
            continue;
        if (code == -EAGAIN && channel_now() < deadline) {
            (void)poll(NULL, 0, 10);
            continue;
        }
        close(fd);
        return connect_words(code, socket_path, error);
    }
    channel->fd = fd;
    return 0;
}

int channel_send(struct channel *channel, const Director__Call *call, int64_t deadline, struct error *error)
{
    size_t size = director__call__get_packed_size(call), sent = 0;
    if (size > FRAME_MAX_BYTES)
        return error_set(error, -EMSGSIZE, "the request is longer than %u MiB", FRAME_MAX_BYTES >> 20);
    _cleanup_free_ uint8_t *bytes = malloc(FRAME_HEADER_BYTES + size);
    if (!bytes)
        return error_set(error, -ENOMEM, "out of memory");
    put_le32(bytes, (uint32_t)size);
    director__call__pack(call, bytes + FRAME_HEADER_BYTES);
    size += FRAME_HEADER_BYTES;
    while (sent < size) {
        ssize_t n = send(channel->fd, bytes + sent, size - sent, MSG_NOSIGNAL);
        if (n >= 0) {
            sent += (size_t)n;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN) {
            channel_close(channel);
            return error_set(error, -ECONNRESET, "the connection to the agent broke");
        }
        int ready = wait_for(channel->fd, POLLOUT, deadline);
        if (ready <= 0) {
            channel_close(channel);
            return error_set(error, ready ? -ECONNRESET : -ETIMEDOUT, "the agent does not take the request");
        }
    }
    return 0;
}

static int receive_broken(struct channel *channel, int code, struct error *error, const char *words)
{
    channel_close(channel);
    return error_set(error, code, "%s", words);
}

int channel_receive(struct channel *channel, int64_t deadline, Director__Result **ret_result, struct error *error)
{
    for (;;) {
        const uint8_t *payload;
        size_t size;
        int next = frame_reader_next(&channel->reader, &payload, &size, NULL);
        if (next < 0)
            return receive_broken(channel, next, error, "what answers there does not speak this protocol");
        if (next > 0) {
            Director__Result *result = director__result__unpack(NULL, size, payload);
            if (!result)
                return receive_broken(channel, -EPROTO, error, "the agent's answer cannot be understood");
            *ret_result = result;
            return 1;
        }
        /* No more than this frame: what poll() tells of a watch's socket must be all there is. */
        uint8_t bytes[65536];
        ssize_t n = recv(channel->fd, bytes, MIN(sizeof(bytes), frame_reader_need(&channel->reader)), 0);
        if (n > 0) {
            if (frame_reader_push(&channel->reader, bytes, (size_t)n) < 0)
                return receive_broken(channel, -ENOMEM, error, "out of memory");
            continue;
        }
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            return receive_broken(channel, -ECONNRESET, error, "the connection to the agent broke");
        int ready = wait_for(channel->fd, POLLIN, deadline);
        if (ready < 0)
            return receive_broken(channel, ready, error, "the connection to the agent broke");
        if (ready == 0)
            return 0;
    }
}
