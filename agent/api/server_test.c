/* The API server on a real socket: its loop runs in a thread, the tests talk to it with raw frames and with libdirector. */
#include "agent/api/server.h"

#include "director/base/bytes.h"
#include "director/base/list.h"
#include <director/client.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { HELD_MAX = 64 };

struct fixture {
    char path[108];
    uv_loop_t loop;
    uv_async_t wake;
    pthread_t thread;
    struct api_server *server;
    struct api_call *held[HELD_MAX];
    unsigned held_count;
    unsigned calls, gone;
    int order;          /* what the loop shall do when woken */
    unsigned publish;
    uv_sem_t done;
    bool closed;
};

enum { ORDER_STOP = 1, ORDER_RELEASE, ORDER_PUBLISH, ORDER_COUNT_GONE };

static void handle(struct api_call *call, void *context)
{
    struct fixture *fixture = context;
    const Director__Call *request = api_call_request(call);
    fixture->calls++;
    if (strcmp(request->path, "/hold") == 0 && fixture->held_count < HELD_MAX) {
        fixture->held[fixture->held_count++] = call;
    } else if (strcmp(request->path, "/fail") == 0) {
        api_call_fail(call, -ENOENT, "no such object: %s", request->path);
    } else {
        size_t size = strcmp(request->path, "/big") == 0 ? 1u << 20 : strcmp(request->path, "/huge") == 0 ? 17u << 20 : 1;
        char *line = malloc(size + 1);
        Director__Result result = DIRECTOR__RESULT__INIT;
        memset(line, 'x', size);
        line[size] = '\0';
        result.lines = &line;
        result.n_lines = 1;
        api_call_reply(call, &result);
        free(line);
    }
}

static void closed(void *context)
{
    struct fixture *fixture = context;
    fixture->closed = true;
    uv_close((uv_handle_t *)&fixture->wake, NULL);
}

static void woken(uv_async_t *async)
{
    struct fixture *fixture = async->data;
    switch (fixture->order) {
    case ORDER_STOP:
        api_server_close(fixture->server, closed, fixture);
        /* fall through: A1, what is held must still be answered */
    case ORDER_RELEASE:
        while (fixture->held_count)
            api_call_fail(fixture->held[--fixture->held_count], 0, "released");
        break;
    case ORDER_PUBLISH: {
        Director__Result event = DIRECTOR__RESULT__INIT;
        char *line = calloc(1, 2000);
        memset(line, 'e', 1999);
        event.lines = &line;
        event.n_lines = 1;
        for (unsigned i = 0; i < fixture->publish; i++) {
            api_server_publish(fixture->server, "/volumes/vol1", &event);
            api_server_publish(fixture->server, "/nodes/n1", &event);
        }
        free(line);
        break;
    }
    case ORDER_COUNT_GONE:
        fixture->gone = 0;
        for (unsigned i = 0; i < fixture->held_count; i++)
            fixture->gone += api_call_gone(fixture->held[i]);
        break;
    }
    fixture->order = 0;
    uv_sem_post(&fixture->done);
}

static void command(struct fixture *fixture, int order)
{
    fixture->order = order;
    uv_async_send(&fixture->wake);
    uv_sem_wait(&fixture->done);
}

static void *run(void *context)
{
    struct fixture *fixture = context;
    uv_run(&fixture->loop, UV_RUN_DEFAULT);
    return NULL;
}

static int start(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct error error = {0};
    (void)snprintf(fixture->path, sizeof(fixture->path), "/tmp/director-server-test-%d.sock", (int)getpid());
    const struct api_server_options options = {.socket_path = fixture->path, .group = "no-such-group", .max_clients = 4,
                                               .max_calls = 4, .max_watches = 2, .max_request_bytes = 65536,
                                               .max_queued_bytes = 100000};
    assert_int_equal(uv_loop_init(&fixture->loop), 0);
    assert_int_equal(uv_sem_init(&fixture->done, 0), 0);
    fixture->wake.data = fixture;
    assert_int_equal(uv_async_init(&fixture->loop, &fixture->wake, woken), 0);
    assert_int_equal(api_server_new(&fixture->loop, &options, handle, fixture, &fixture->server, &error), 0);
    assert_int_equal(pthread_create(&fixture->thread, NULL, run, fixture), 0);
    *state = fixture;
    return 0;
}

static int stop(void **state)
{
    struct fixture *fixture = *state;
    command(fixture, ORDER_STOP);
    pthread_join(fixture->thread, NULL);
    assert_true(fixture->closed);
    assert_int_equal(access(fixture->path, F_OK), -1);
    assert_int_equal(uv_loop_close(&fixture->loop), 0);
    uv_sem_destroy(&fixture->done);
    free(fixture);
    return 0;
}

/* ---- a raw client ---------------------------------------------------------------------------------------------------- */

static int dial(const struct fixture *fixture)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = 5};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(address.sun_path, fixture->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    return fd;
}

static void ask(int fd, uint64_t id, Director__Verb verb, const char *path)
{
    Director__Call call = DIRECTOR__CALL__INIT;
    uint8_t bytes[70000];
    call.id = id;
    call.verb = verb;
    call.path = (char *)path;
    size_t size = director__call__pack(&call, bytes + 4);
    put_le32(bytes, (uint32_t)size);
    assert_int_equal(send(fd, bytes, size + 4, MSG_NOSIGNAL), size + 4);
}

static bool receive_all(int fd, void *to, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t n = recv(fd, (uint8_t *)to + got, size - got, 0);
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

/* The next Result, or NULL at the end of the connection. */
static Director__Result *hear(int fd)
{
    uint8_t header[4];
    if (!receive_all(fd, header, 4))
        return NULL;
    uint32_t size = get_le32(header);
    uint8_t *bytes = malloc(size);
    assert_true(receive_all(fd, bytes, size));
    Director__Result *result = director__result__unpack(NULL, size, bytes);
    free(bytes);
    assert_non_null(result);
    return result;
}

static void expect(int fd, uint64_t id, int code)
{
    Director__Result *result = hear(fd);
    assert_non_null(result);
    assert_int_equal(result->id, id);
    assert_int_equal(result->code, code);
    assert_true(code == 0 || result->message[0]);
    director__result__free_unpacked(result, NULL);
}

static void expect_closed(int fd)
{
    uint8_t byte;
    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    close(fd);
}

static void the_socket_is_for_root_alone_without_its_group(void **state)
{
    struct fixture *fixture = *state;
    struct stat status;
    assert_int_equal(stat(fixture->path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
}

static void answers_go_to_their_calls_now_and_later(void **state)
{
    struct fixture *fixture = *state;
    int fd = dial(fixture);
    ask(fd, 7, DIRECTOR__VERB__GET, "/hold");
    ask(fd, 8, DIRECTOR__VERB__GET, "/");
    ask(fd, 9, DIRECTOR__VERB__GET, "/fail");
    expect(fd, 8, 0);
    expect(fd, 9, -ENOENT);
    command(fixture, ORDER_RELEASE);
    expect(fd, 7, 0);
    close(fd);
}

static void a_wrong_field_is_answered_and_the_connection_goes_on(void **state)
{
    struct fixture *fixture = *state;
    int fd = dial(fixture);
    ask(fd, 1, DIRECTOR__VERB__GET, "volumes");
    expect(fd, 1, -EINVAL);
    ask(fd, 2, DIRECTOR__VERB__GET, "/a\nb");
    expect(fd, 2, -EINVAL);
    char path[2000];
    memset(path, '/', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    ask(fd, 3, DIRECTOR__VERB__GET, path);
    expect(fd, 3, -EINVAL);
    ask(fd, 4, DIRECTOR__VERB__GET, "/");
    expect(fd, 4, 0);
    assert_int_equal(fixture->calls, 1);
    close(fd);
}

static void a_malformed_frame_gets_one_error_and_only_its_connection_is_dropped(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *bytes;
        size_t size;
        int code;
    } table[] = {
        {"\x03\0\0\0\xff\xff\xff", 7, -EPROTO},       /* no protobuf */
        {"\0\0\0\0", 4, -EPROTO},                     /* empty */
        {"\xff\xff\xff\xff", 4, -EMSGSIZE},           /* 4 GiB announced */
        {"GET / HTTP/1.1\r\n\r\n", 18, -EMSGSIZE},    /* another protocol */
    };
    int other = dial(fixture);
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        int fd = dial(fixture);
        assert_int_equal(send(fd, table[i].bytes, table[i].size, MSG_NOSIGNAL), table[i].size);
        expect(fd, 0, table[i].code);
        expect_closed(fd);
    }
    ask(other, 5, DIRECTOR__VERB__GET, "/");
    expect(other, 5, 0);
    close(other);
}

static void half_a_frame_and_a_hang_up_harm_nobody(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < 20; i++) {
        int fd = dial(fixture);
        assert_int_equal(send(fd, "\x10\0\0\0half", 8, MSG_NOSIGNAL), 8);
        close(fd);
        int check = dial(fixture);
        ask(check, 1, DIRECTOR__VERB__GET, "/");
        expect(check, 1, 0);
        close(check);
    }
}

static void calls_under_way_are_bounded_and_none_is_lost(void **state)
{
    struct fixture *fixture = *state;
    int fd = dial(fixture);
    for (uint64_t id = 1; id <= 10; id++)
        ask(fd, id, DIRECTOR__VERB__GET, "/hold");
    int other = dial(fixture);
    ask(other, 1, DIRECTOR__VERB__GET, "/");
    expect(other, 1, 0);
    close(other);
    usleep(50000);
    assert_int_equal(fixture->held_count, 4);
    unsigned answered = 0;
    while (answered < 10) {
        command(fixture, ORDER_RELEASE);
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        while (poll(&poll_fd, 1, 50) == 1) {
            Director__Result *result = hear(fd);
            assert_non_null(result);
            director__result__free_unpacked(result, NULL);
            answered++;
        }
    }
    assert_int_equal(fixture->calls, 11);
    close(fd);
}

static void a_client_that_does_not_read_is_not_read_from(void **state)
{
    struct fixture *fixture = *state;
    int fd = dial(fixture);
    for (uint64_t id = 1; id <= 100; id++)
        ask(fd, id, DIRECTOR__VERB__GET, "/big");
    usleep(100000);
    assert_true(fixture->calls <= 4);
    for (uint64_t id = 1; id <= 100; id++)
        expect(fd, id, 0);
    close(fd);
}

static void an_answer_longer_than_a_frame_becomes_an_error(void **state)
{
    struct fixture *fixture = *state;
    int fd = dial(fixture);
    ask(fd, 1, DIRECTOR__VERB__GET, "/huge");
    expect(fd, 1, -EMSGSIZE);
    ask(fd, 2, DIRECTOR__VERB__GET, "/");
    expect(fd, 2, 0);
    close(fd);
}

static void one_client_too_many_is_told_so(void **state)
{
    struct fixture *fixture = *state;
    int fds[4];
    for (int i = 0; i < 4; i++) {
        fds[i] = dial(fixture);
        ask(fds[i], 1, DIRECTOR__VERB__GET, "/");
        expect(fds[i], 1, 0);
    }
    int fd = dial(fixture);
    expect(fd, 0, -EUSERS);
    expect_closed(fd);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    usleep(50000);
    fd = dial(fixture);
    ask(fd, 1, DIRECTOR__VERB__GET, "/");
    expect(fd, 1, 0);
    close(fd);
}

static void a_call_outlives_its_client(void **state)
{
    struct fixture *fixture = *state;
    int fd = dial(fixture);
    ask(fd, 1, DIRECTOR__VERB__GET, "/hold");
    while (fixture->held_count == 0)
        usleep(1000);
    close(fd);
    for (int i = 0; i < 1000 && fixture->gone == 0; i++) {
        usleep(1000);
        command(fixture, ORDER_COUNT_GONE);
    }
    assert_int_equal(fixture->gone, 1);
    command(fixture, ORDER_RELEASE);
}

static void closing_waits_for_the_calls_that_are_held(void **state)
{
    struct fixture *fixture = *state;
    int fd = dial(fixture);
    ask(fd, 1, DIRECTOR__VERB__GET, "/hold");
    while (fixture->held_count == 0)
        usleep(1000);
    close(fd); /* stop() closes first and answers then */
}

static void a_watcher_hears_of_its_path_only(void **state)
{
    struct fixture *fixture = *state;
    struct director *director;
    struct director_watch *all, *volume, *other;
    struct director_result *event;
    assert_int_equal(director_open(fixture->path, &director), 0);
    assert_int_equal(director_watch_open(director, "/", &all), 0);
    assert_int_equal(director_watch_open(director, "/volumes/vol1", &volume), 0);
    assert_int_equal(director_watch_open(director, "/volumes/vol", &other), 0);
    fixture->publish = 1;
    command(fixture, ORDER_PUBLISH);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(director_watch_next(all, 5000, &event), 1);
        director_result_free(event);
    }
    assert_int_equal(director_watch_next(volume, 5000, &event), 1);
    director_result_free(event);
    assert_int_equal(director_watch_next(volume, 50, &event), 0);
    assert_int_equal(director_watch_next(other, 0, &event), 0);
    director_watch_close(all);
    director_watch_close(volume);
    director_watch_close(other);
    director_close(director);
}

static void a_slow_watcher_is_told_that_events_were_lost(void **state)
{
    struct fixture *fixture = *state;
    struct director *director;
    struct director_watch *watch;
    struct director_result *event;
    unsigned heard = 0;
    int code;
    assert_int_equal(director_open(fixture->path, &director), 0);
    assert_int_equal(director_watch_open(director, "/", &watch), 0);
    fixture->publish = 1000; /* 4 MB; the socket and the queue hold a few hundred kB */
    command(fixture, ORDER_PUBLISH);
    while ((code = director_watch_next(watch, 5000, &event)) == 1) {
        director_result_free(event);
        heard++;
    }
    assert_int_equal(code, -EOVERFLOW);
    assert_true(heard > 10 && heard < 2000);
    assert_non_null(strstr(director_watch_error(watch), "events were lost"));
    director_watch_close(watch);
    director_close(director);
}

static void watches_of_a_connection_are_bounded(void **state)
{
    struct fixture *fixture = *state;
    int fd = dial(fixture);
    for (uint64_t id = 1; id <= 3; id++) {
        ask(fd, id, DIRECTOR__VERB__WATCH, "/");
        expect(fd, id, id <= 2 ? 0 : -EUSERS);
    }
    close(fd);
}

static void a_second_server_on_the_same_socket_is_refused(void **state)
{
    struct fixture *fixture = *state;
    const struct api_server_options options = {.socket_path = fixture->path};
    struct api_server *server;
    struct error error = {0};
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(api_server_new(&loop, &options, handle, NULL, &server, &error), -EADDRINUSE);
    assert_non_null(strstr(error.message, "another process listens"));
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void a_socket_left_over_is_replaced(void **state)
{
    (void)state;
    char path[108];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct api_server *server;
    struct error error = {0};
    uv_loop_t loop;
    (void)snprintf(path, sizeof(path), "/tmp/director-server-left-%d.sock", (int)getpid());
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    assert_int_equal(uv_loop_init(&loop), 0);
    const struct api_server_options options = {.socket_path = path};
    assert_int_equal(api_server_new(&loop, &options, handle, NULL, &server, &error), 0);
    api_server_close(server, NULL, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_socket_is_for_root_alone_without_its_group),
        TEST(answers_go_to_their_calls_now_and_later),
        TEST(a_wrong_field_is_answered_and_the_connection_goes_on),
        TEST(a_malformed_frame_gets_one_error_and_only_its_connection_is_dropped),
        TEST(half_a_frame_and_a_hang_up_harm_nobody),
        TEST(calls_under_way_are_bounded_and_none_is_lost),
        TEST(a_client_that_does_not_read_is_not_read_from),
        TEST(an_answer_longer_than_a_frame_becomes_an_error),
        TEST(one_client_too_many_is_told_so),
        TEST(a_call_outlives_its_client),
        TEST(closing_waits_for_the_calls_that_are_held),
        TEST(a_watcher_hears_of_its_path_only),
        TEST(a_slow_watcher_is_told_that_events_were_lost),
        TEST(watches_of_a_connection_are_bounded),
        TEST(a_second_server_on_the_same_socket_is_refused),
        cmocka_unit_test(a_socket_left_over_is_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
