/* libdirector against a scripted server: a thread that reads Calls and answers as the test says. */
#include <director/client.h>

#include "director/base/bytes.h"
#include <errno.h>
#include <poll.h>
#include <proto/director.pb-c.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/* What the server does with the nth Call it gets, over all connections. */
enum act { ANSWER, FAIL, HANG_UP, SILENT, GARBAGE, TOO_LONG, LATE, EVENTS_THEN_OVERFLOW, EVENTS_THEN_HANG_UP };

struct fake {
    char path[108];
    int listener;
    pthread_t thread;
    enum act acts[8];
    unsigned act_count;
    unsigned calls; /* seen */
    unsigned connections;
    Director__Call *last;
};

static bool read_all(int fd, void *to, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t n = read(fd, (uint8_t *)to + got, size - got);
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

static void send_result(int fd, const Director__Result *result)
{
    size_t size = director__result__get_packed_size(result);
    uint8_t *bytes = malloc(size + 4);
    put_le32(bytes, (uint32_t)size);
    director__result__pack(result, bytes + 4);
    (void)!send(fd, bytes, size + 4, MSG_NOSIGNAL);
    free(bytes);
}

static void send_answer(int fd, uint64_t id, bool more)
{
    Director__Property size = DIRECTOR__PROPERTY__INIT;
    char *choices[] = {(char *)"10G", (char *)"20G"};
    size.name = (char *)"size";
    size.value = (char *)"10G";
    size.type = (char *)"size";
    size.help = (char *)"Bytes.";
    size.default_text = (char *)"1G";
    size.writable = size.required = true;
    size.choices = choices;
    size.n_choices = 2;
    Director__Property *properties[] = {&size};
    Director__Object volume = DIRECTOR__OBJECT__INIT;
    volume.path = (char *)"/volumes/vol1";
    volume.kind = (char *)"volume";
    volume.summary = (char *)"10G";
    volume.properties = properties;
    volume.n_properties = 1;
    volume.has_children = true;
    Director__Object *objects[] = {&volume};
    char *lines[] = {(char *)"line one", (char *)"line two"};
    Director__Result result = DIRECTOR__RESULT__INIT;
    result.id = id;
    result.message = (char *)"remark";
    result.objects = objects;
    result.n_objects = 1;
    result.lines = lines;
    result.n_lines = 2;
    result.more = more;
    send_result(fd, &result);
}

static void send_failure(int fd, uint64_t id, int code, const char *words)
{
    Director__Result result = DIRECTOR__RESULT__INIT;
    result.id = id;
    result.code = code;
    result.message = (char *)words;
    send_result(fd, &result);
}

/* One connection; false: hung up. */
static void serve(struct fake *fake, int fd)
{
    for (;;) {
        uint8_t header[4];
        if (!read_all(fd, header, 4))
            return;
        uint32_t size = get_le32(header);
        uint8_t *bytes = malloc(size);
        if (!read_all(fd, bytes, size)) {
            free(bytes);
            return;
        }
        Director__Call *call = director__call__unpack(NULL, size, bytes);
        free(bytes);
        enum act act = fake->calls < fake->act_count ? fake->acts[fake->calls] : ANSWER;
        fake->calls++;
        if (fake->last)
            director__call__free_unpacked(fake->last, NULL);
        fake->last = call;
        switch (act) {
        case ANSWER:
            send_answer(fd, call->id, false);
            break;
        case FAIL:
            send_failure(fd, call->id, -ENOENT, "no such object: /volumes/vol9; did you mean /volumes/vol1?");
            break;
        case HANG_UP:
            return;
        case SILENT:
            break;
        case GARBAGE:
            (void)!send(fd, "\x03\0\0\0\xff\xff\xff", 7, MSG_NOSIGNAL);
            break;
        case TOO_LONG:
            (void)!send(fd, "\xff\xff\xff\x7f", 4, MSG_NOSIGNAL);
            break;
        case LATE:
            send_answer(fd, call->id + 1000, false);
            send_answer(fd, call->id, false);
            break;
        case EVENTS_THEN_OVERFLOW:
        case EVENTS_THEN_HANG_UP:
            for (int i = 0; i < 3; i++) /* that it stands, then two events */
                send_answer(fd, call->id, true);
            if (act == EVENTS_THEN_OVERFLOW)
                send_failure(fd, call->id, -EOVERFLOW, "events were lost");
            else
                return;
            break;
        }
    }
}

static void *run(void *context)
{
    struct fake *fake = context;
    for (;;) {
        int fd = accept(fake->listener, NULL, NULL);
        if (fd < 0)
            return NULL;
        fake->connections++;
        serve(fake, fd);
        close(fd);
    }
}

static void fake_start(struct fake *fake, unsigned count, const enum act *acts)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    *fake = (struct fake){.act_count = count};
    for (unsigned i = 0; i < count; i++)
        fake->acts[i] = acts[i];
    (void)snprintf(fake->path, sizeof(fake->path), "/tmp/director-client-test-%d.sock", (int)getpid());
    (void)unlink(fake->path);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", fake->path);
    fake->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fake->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fake->listener, 8), 0);
    assert_int_equal(pthread_create(&fake->thread, NULL, run, fake), 0);
}
#define FAKE_START(fake, ...) \
    fake_start(fake, sizeof((enum act[]){__VA_ARGS__}) / sizeof(enum act), (enum act[]){__VA_ARGS__})

/* Clients must be closed before. */
static void fake_stop(struct fake *fake)
{
    shutdown(fake->listener, SHUT_RDWR);
    pthread_join(fake->thread, NULL);
    close(fake->listener);
    unlink(fake->path);
    if (fake->last)
        director__call__free_unpacked(fake->last, NULL);
}

static void an_answer_can_be_read_through_the_accessors(void **state)
{
    (void)state;
    struct fake fake;
    struct director *director;
    struct director_result *result = NULL;
    FAKE_START(&fake, ANSWER);
    assert_int_equal(director_open(fake.path, &director), 0);
    assert_int_equal(director_list(director, "/volumes", 7, 1, &result), 0);
    assert_string_equal(director_result_message(result), "remark");
    assert_int_equal(director_result_line_count(result), 2);
    assert_string_equal(director_result_line(result, 1), "line two");
    assert_null(director_result_line(result, 2));
    assert_int_equal(director_result_object_count(result), 1);
    assert_null(director_result_object(result, 1));
    const struct director_object *object = director_result_object(result, 0);
    assert_string_equal(director_object_path(object), "/volumes/vol1");
    assert_string_equal(director_object_kind(object), "volume");
    assert_string_equal(director_object_summary(object), "10G");
    assert_true(director_object_has_children(object));
    assert_false(director_object_deleted(object));
    assert_false(director_object_destructive(object));
    assert_int_equal(director_object_property_count(object), 1);
    assert_string_equal(director_object_value(object, "size"), "10G");
    assert_null(director_object_value(object, "colour"));
    const struct director_property *property = director_object_property(object, 0);
    assert_null(director_object_property(object, 1));
    assert_string_equal(director_property_name(property), "size");
    assert_string_equal(director_property_value(property), "10G");
    assert_string_equal(director_property_type(property), "size");
    assert_string_equal(director_property_help(property), "Bytes.");
    assert_string_equal(director_property_default(property), "1G");
    assert_true(director_property_writable(property));
    assert_true(director_property_required(property));
    assert_string_equal(director_property_choice(property, 1), "20G");
    assert_null(director_property_choice(property, 2));
    director_close(director);
    director_result_free(result); /* outlives its handle */
    fake_stop(&fake);
    director_result_free(NULL);
    director_close(NULL);
    director_watch_close(NULL);
}

static void a_call_carries_verb_path_name_and_properties(void **state)
{
    (void)state;
    struct fake fake;
    struct director *director;
    const struct director_argument arguments[] = {{"size", "10G"}, {"replicas", "2"}};
    FAKE_START(&fake, ANSWER);
    assert_int_equal(director_open(fake.path, &director), 0);
    assert_int_equal(director_create(director, "/volumes", "vol1", arguments, 2, NULL), 0);
    assert_int_equal(fake.last->verb, DIRECTOR__VERB__CREATE);
    assert_string_equal(fake.last->path, "/volumes");
    assert_string_equal(fake.last->name, "vol1");
    assert_int_equal(fake.last->n_properties, 2);
    assert_string_equal(fake.last->properties[1]->name, "replicas");
    assert_string_equal(fake.last->properties[1]->value, "2");
    assert_int_equal(director_action(director, "/volumes/vol1", "export", NULL, 0, NULL), 0);
    assert_int_equal(fake.last->verb, DIRECTOR__VERB__ACTION);
    assert_string_equal(fake.last->name, "export");
    assert_int_equal(director_set(director, "/volumes/vol1", arguments, 1, NULL), 0);
    assert_int_equal(fake.last->verb, DIRECTOR__VERB__SET);
    assert_int_equal(director_delete(director, "/volumes/vol1", NULL), 0);
    assert_int_equal(fake.last->verb, DIRECTOR__VERB__DELETE);
    assert_int_equal(fake.connections, 1);
    director_close(director);
    fake_stop(&fake);
}

static void an_error_brings_its_code_and_sentence(void **state)
{
    (void)state;
    struct fake fake;
    struct director *director;
    struct director_result *result = NULL;
    FAKE_START(&fake, FAIL, ANSWER);
    assert_int_equal(director_open(fake.path, &director), 0);
    assert_int_equal(director_get(director, "/volumes/vol9", &result), -ENOENT);
    assert_null(result);
    assert_string_equal(director_error(director), "no such object: /volumes/vol9; did you mean /volumes/vol1?");
    assert_int_equal(director_get(director, "/volumes/vol1", &result), 0);
    assert_string_equal(director_error(director), "");
    assert_int_equal(fake.connections, 1);
    director_result_free(result);
    director_close(director);
    fake_stop(&fake);
}

static void open_without_an_agent_says_so(void **state)
{
    (void)state;
    struct director *director;
    assert_int_equal(director_open("/nonexistent/director.sock", &director), -ECONNREFUSED);
    assert_string_equal(director_error(director),
                        "no agent here: /nonexistent/director.sock does not exist; is directord running?");
    director_close(director);
    char path[300];
    memset(path, 'x', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(director_open(path, &director), -ENAMETOOLONG);
    director_close(director);
    setenv("DIRECTOR_SOCKET", "/nonexistent/other.sock", 1);
    assert_int_equal(director_open(NULL, &director), -ECONNREFUSED);
    assert_non_null(strstr(director_error(director), "/nonexistent/other.sock"));
    director_close(director);
    unsetenv("DIRECTOR_SOCKET");
}

static void a_read_is_repeated_once_when_the_connection_breaks(void **state)
{
    (void)state;
    struct fake fake;
    struct director *director;
    struct director_result *result = NULL;
    FAKE_START(&fake, HANG_UP, ANSWER, HANG_UP, HANG_UP);
    assert_int_equal(director_open(fake.path, &director), 0);
    assert_int_equal(director_get(director, "/", &result), 0);
    director_result_free(result);
    assert_int_equal(fake.calls, 2);
    assert_int_equal(fake.connections, 2);
    assert_int_equal(director_status(director, "/", &result), -ECONNRESET);
    assert_int_equal(fake.calls, 4);
    director_close(director);
    fake_stop(&fake);
}

static void a_change_is_never_repeated(void **state)
{
    (void)state;
    struct fake fake;
    struct director *director;
    FAKE_START(&fake, HANG_UP, ANSWER);
    assert_int_equal(director_open(fake.path, &director), 0);
    assert_int_equal(director_delete(director, "/volumes/vol1", NULL), -ECONNRESET);
    assert_string_equal(director_error(director),
                        "the connection to the agent broke; the change may or may not have been made");
    assert_int_equal(fake.calls, 1);
    /* The next call makes a new connection by itself. */
    assert_int_equal(director_delete(director, "/volumes/vol1", NULL), 0);
    assert_int_equal(fake.connections, 2);
    director_close(director);
    fake_stop(&fake);
}

static void a_silent_agent_times_out(void **state)
{
    (void)state;
    struct fake fake;
    struct director *director;
    struct director_result *result = NULL;
    FAKE_START(&fake, SILENT, SILENT, ANSWER);
    assert_int_equal(director_open(fake.path, &director), 0);
    director_set_timeout(director, 100);
    assert_int_equal(director_get(director, "/", &result), -ETIMEDOUT);
    assert_string_equal(director_error(director), "no answer within 0.1 s");
    assert_int_equal(director_delete(director, "/volumes/v", NULL), -ETIMEDOUT);
    assert_string_equal(director_error(director),
                        "no answer within 0.1 s; the change may or may not have been made");
    director_set_timeout(director, 5000);
    assert_int_equal(director_get(director, "/", &result), 0);
    assert_int_equal(fake.connections, 3);
    director_result_free(result);
    director_close(director);
    fake_stop(&fake);
}

static void answers_to_other_calls_are_skipped(void **state)
{
    (void)state;
    struct fake fake;
    struct director *director;
    struct director_result *result = NULL;
    FAKE_START(&fake, LATE);
    assert_int_equal(director_open(fake.path, &director), 0);
    assert_int_equal(director_get(director, "/", &result), 0);
    director_result_free(result);
    director_close(director);
    fake_stop(&fake);
}

static void a_server_that_talks_nonsense_is_refused(void **state)
{
    (void)state;
    struct fake fake;
    struct director *director;
    struct director_result *result = NULL;
    FAKE_START(&fake, GARBAGE, TOO_LONG, ANSWER);
    assert_int_equal(director_open(fake.path, &director), 0);
    assert_int_equal(director_get(director, "/", &result), -EPROTO);
    assert_int_equal(director_get(director, "/", &result), -EMSGSIZE);
    assert_int_equal(director_get(director, "/", &result), 0);
    director_result_free(result);
    director_close(director);
    fake_stop(&fake);
}

static int stop_at_second(const struct director_result *event, void *context)
{
    unsigned *count = context;
    assert_int_equal(director_result_object_count(event), 1);
    return ++*count == 2 ? 42 : 0;
}

static void a_watch_gives_events_until_it_is_told_of_a_loss(void **state)
{
    (void)state;
    struct fake fake;
    struct director *director;
    struct director_watch *watch;
    struct director_result *event = NULL;
    unsigned count = 0;
    /* The fake serves one connection at a time: the handle opens its own only for a call, so close it first. */
    FAKE_START(&fake, ANSWER, EVENTS_THEN_OVERFLOW);
    assert_int_equal(director_open(fake.path, &director), 0);
    director_set_timeout(director, 50);
    assert_int_equal(director_watch_open(director, "/", &watch), -ETIMEDOUT);
    director_close(director);
    fake_stop(&fake);

    const enum act acts[] = {EVENTS_THEN_OVERFLOW, EVENTS_THEN_HANG_UP, EVENTS_THEN_OVERFLOW};
    for (int i = 0; i < 3; i++) {
        FAKE_START(&fake, HANG_UP, acts[i]);
        assert_int_equal(director_open(fake.path, &director), 0);
        assert_int_equal(director_delete(director, "/x", NULL), -ECONNRESET);
        if (i < 2) {
            assert_int_equal(director_watch_open(director, "/", &watch), 0);
            struct pollfd poll_fd = {.fd = director_watch_fd(watch), .events = POLLIN};
            assert_int_equal(poll(&poll_fd, 1, 5000), 1);
            for (int n = 0; n < 2; n++) {
                assert_int_equal(director_watch_next(watch, 5000, &event), 1);
                director_result_free(event);
            }
            assert_int_equal(director_watch_next(watch, 5000, &event), i == 0 ? -EOVERFLOW : -ECONNRESET);
            assert_string_equal(director_watch_error(watch),
                                i == 0 ? "events were lost" : "the connection to the agent broke");
            assert_int_equal(director_watch_next(watch, 0, &event), i == 0 ? -EOVERFLOW : -ECONNRESET);
            director_watch_close(watch);
        } else {
            assert_int_equal(director_watch(director, "/", stop_at_second, &count), 42);
            assert_int_equal(count, 2);
        }
        director_close(director);
        fake_stop(&fake);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_can_be_read_through_the_accessors),
        cmocka_unit_test(a_call_carries_verb_path_name_and_properties),
        cmocka_unit_test(an_error_brings_its_code_and_sentence),
        cmocka_unit_test(open_without_an_agent_says_so),
        cmocka_unit_test(a_read_is_repeated_once_when_the_connection_breaks),
        cmocka_unit_test(a_change_is_never_repeated),
        cmocka_unit_test(a_silent_agent_times_out),
        cmocka_unit_test(answers_to_other_calls_are_skipped),
        cmocka_unit_test(a_server_that_talks_nonsense_is_refused),
        cmocka_unit_test(a_watch_gives_events_until_it_is_told_of_a_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
