/* directord: the agent of one node. See director/shell for the program people use. */
#define LOG_MODULE "directord"
#include "agent/node/node.h"

#include "director/base/log.h"
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

static struct node node;
static uv_signal_t on_terminate, on_interrupt;

static void node_stopped(struct node *stopped)
{
    (void)stopped;
    uv_close((uv_handle_t *)&on_terminate, NULL);
    uv_close((uv_handle_t *)&on_interrupt, NULL);
}

static void signal_received(uv_signal_t *handle, int number)
{
    (void)handle;
    (void)number;
    node_stop(&node, node_stopped);
}

/* Sessions and replicas need descriptors: take what the hard limit gives. */
static void limits_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv)
{
    struct options options;
    struct error error = {0};
    uv_loop_t *loop = uv_default_loop();
    int result = options_parse(argc, argv, &options);
    if (result)
        return result < 0 ? 2 : 0;
    if (options.generate_key) {
        if (key_generate(options.generate_key, &error) < 0) {
            fprintf(stderr, "directord: %s\n", error.message);
            return 1;
        }
        printf("new cluster key in %s: copy it to every node of the cluster, mode 0600\n", options.generate_key);
        return 0;
    }
    signal(SIGPIPE, SIG_IGN);
    limits_raise();
    result = node_start(&node, loop, &options, &error);
    if (result < 0) {
        log_error("cannot start: %s", error.message[0] ? error.message : strerror(-result));
        return 1;
    }
    uv_signal_init(loop, &on_terminate);
    uv_signal_start(&on_terminate, signal_received, SIGTERM);
    uv_signal_init(loop, &on_interrupt);
    uv_signal_start(&on_interrupt, signal_received, SIGINT);
    uv_run(loop, UV_RUN_DEFAULT);
    log_notice("stopped");
    return 0;
}
