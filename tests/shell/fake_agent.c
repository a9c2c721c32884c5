/* fake_agent SOCKET [empty]: the API of an agent, with the real server and view on a made-up cluster, for the shell's
 * transcripts. Path /silent is never answered. Ends with SIGTERM. */
#include "agent/api/server.h"
#include "agent/api/view_fixture.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fake_agent {
    struct view_fixture fixture;
    struct api_server *server;
};

static void applied(const Director__Command *command, void *context)
{
    struct fake_agent *agent = context;
    char path[512];
    Director__Result *event = api_view_event(&agent->fixture.view, command, path);
    if (event)
        api_server_publish(agent->server, path, event);
    api_result_free(event);
}

/* Signals change the made-up world: USR1 takes node2 away, USR2 node3 too and so the quorum. */
static struct fake_agent agent;

static void world(uv_signal_t *handle, int number)
{
    (void)handle;
    agent.fixture.offline[2] = true;
    agent.fixture.offline[3] = number == SIGUSR2;
    agent.fixture.quorate = number == SIGUSR1;
}

static void stop(uv_signal_t *handle, int number)
{
    (void)handle;
    (void)number;
    uv_stop(handle->loop);
}

static void handle(struct api_call *call, void *context)
{
    const Director__Call *request = api_call_request(call);
    (void)context;
    if (strcmp(request->path, "/silent") == 0)
        return;
    if (!api_view_is_read(request) && !agent.fixture.quorate) {
        api_call_fail(call, -EAGAIN, "the cluster is not quorate: nothing can be changed until a majority of its nodes is back");
        return;
    }
    Director__Result *result = view_fixture_call(&agent.fixture, request, applied, &agent);
    api_call_reply(call, result);
    api_result_free(result);
}

int main(int argc, char **argv)
{
    static const int numbers[] = {SIGUSR1, SIGUSR2, SIGTERM};
    static uv_signal_t signals[ARRAY_SIZE(numbers)];
    struct api_server_options options = {.socket_path = argv[1]};
    struct error error;
    uv_loop_t *loop = uv_default_loop();
    if (argc < 2)
        return 2;
    view_fixture_init(&agent.fixture, argc < 3);
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        uv_signal_init(loop, &signals[i]);
        uv_signal_start(&signals[i], numbers[i] == SIGTERM ? stop : world, numbers[i]);
    }
    if (api_server_new(loop, &options, handle, NULL, &agent.server, &error) < 0) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    puts("ready");
    fflush(stdout);
    uv_run(loop, UV_RUN_DEFAULT);
    unlink(argv[1]);
    return 0;
}
