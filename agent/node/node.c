/* Life of a node: open the durable state, start the parts, tick, stop them. */
#define LOG_MODULE "node"
#include "agent/node/node.h"

#include "director/base/bytes.h"
#include "director/base/log.h"
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IDENTITY_KEY   "identity"
#define IDENTITY_BYTES 34u /* node uuid, cluster uuid, le16 nodeid */

static int folder_make(const char *path, struct error *error)
{
    char partial[PATH_MAX];
    (void)snprintf(partial, sizeof(partial), "%s", path);
    for (char *p = partial + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char kept = *p;
        *p = '\0';
        if (mkdir(partial, 0755) < 0 && errno != EEXIST)
            return error_set(error, -errno, "folder %s cannot be made: %s", partial, strerror(errno));
        *p = kept;
        if (!kept)
            return 0;
    }
}

/* The address that peers and initiators use: the first IPv4 one of the interface, or of any that is up and not loopback. */
static int address_find(struct node *node, struct error *error)
{
    static char interface[IF_NAMESIZE];
    struct ifaddrs *all;
    if (getifaddrs(&all) < 0)
        return error_set(error, -errno, "interfaces cannot be listed: %s", strerror(errno));
    for (struct ifaddrs *a = all; a && !node->address[0]; a = a->ifa_next) {
        if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET || !(a->ifa_flags & IFF_UP))
            continue;
        if (node->options.interface ? strcmp(a->ifa_name, node->options.interface) != 0 : (a->ifa_flags & IFF_LOOPBACK) != 0)
            continue;
        (void)inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)a->ifa_addr)->sin_addr, node->address, sizeof(node->address));
        (void)snprintf(interface, sizeof(interface), "%s", a->ifa_name);
        node->options.interface = interface;
    }
    freeifaddrs(all);
    if (node->address[0])
        return 0;
    return node->options.interface
               ? error_set(error, -EADDRNOTAVAIL, "interface %s is not up or has no IPv4 address; choose another with --interface",
                           node->options.interface)
               : error_set(error, -EADDRNOTAVAIL, "no interface but loopback is up with an IPv4 address; bring one up or name one "
                                                  "with --interface");
}

static void identity_put(struct node *node, struct error *error)
{
    uint8_t bytes[IDENTITY_BYTES];
    memcpy(bytes, node->self.uuid.bytes, 16);
    memcpy(bytes + 16, node->self.cluster.bytes, 16);
    put_le16(bytes + 32, node->self.nodeid);
    (void)log_store_put(node->store, IDENTITY_KEY, bytes, sizeof(bytes), error); /* commit tells */
}

int node_identity_save(struct node *node, struct error *error)
{
    int result = log_store_begin(node->store, error);
    if (result < 0)
        return result;
    identity_put(node, error);
    return log_store_commit(node->store, error);
}

int node_identity_begin(struct node *node, bool bootstrap, struct error *error)
{
    int result = log_store_begin(node->store, error);
    if (result < 0)
        return result;
    (void)log_store_reset(node->store, error);
    (void)log_store_put(node->store, "nodes", NULL, 0, error);
    if (bootstrap)
        node_log_bootstrap(node, error);
    identity_put(node, error);
    return log_store_commit(node->store, error);
}

static int identity_load(struct node *node, struct error *error)
{
    uint8_t bytes[IDENTITY_BYTES];
    size_t size;
    int result = log_store_get(node->store, IDENTITY_KEY, bytes, sizeof(bytes), &size, error);
    if (result == -ENOENT) {
        result = uuid_generate(&node->self.uuid);
        return result < 0 ? error_set(error, result, "no randomness: %s", strerror(-result)) : node_identity_save(node, error);
    }
    if (result < 0)
        return result;
    if (size != sizeof(bytes))
        return error_set(error, -EUCLEAN, "the identity in %s/state.db is damaged; wipe the folder to let this node join anew, if "
                                          "the other nodes are well", node->options.state_path);
    memcpy(node->self.uuid.bytes, bytes, 16);
    memcpy(node->self.cluster.bytes, bytes + 16, 16);
    node->self.nodeid = get_le16(bytes + 32);
    return 0;
}

static void plugin_line(int level, const char *text)
{
    log_write((enum log_level)level, "plugin", "%s", text);
}

static void plugin_was_refused(const char *file, const struct error *error, void *context)
{
    (void)context;
    log_warning("plugin %s refused: %s", file, error->message);
}

static int plugins_load(struct node *node, struct error *error)
{
    uint64_t free_bytes;
    int result = plugin_loader_new(plugin_line, &node->plugins);
    if (result < 0)
        return error_set(error, result, "out of memory");
    result = plugin_loader_load_folder(node->plugins, node->options.plugins_path, plugin_was_refused, node, error);
    if (result < 0)
        return result;
    log_info("%d plugins loaded from %s", result, node->options.plugins_path);
    const struct director_plugin *file = plugin_loader_find(node->plugins, DIRECTOR_PLUGIN_BACKSTORE, "file", error);
    if (!file)
        return error->code;
    result = folder_make(node->options.store_path, error);
    if (result == 0)
        result = plugin_space(file, node->options.store_path, &node->store_capacity_bytes, &free_bytes, error);
    return result;
}

static void node_tick(uv_timer_t *timer)
{
    struct node *node = container_of(timer, struct node, tick);
    if (node->rsm)
        node_log_tick(node);
    if (node->stopping) {
        if (node->left && !node->parts_closing)
            node_members_stop(node);
        if (node_now_ms(node) - node->stop_ms > NODE_STOP_MS) {
            log_error("stopping takes too long; ending as a crash would, which the cluster survives");
            _exit(1);
        }
        return;
    }
    if (node->log_failed && node->group)
        node_members_withdraw(node);
    node_members_rest(node);
    node_members_tick(node);
    node_plan_tick(node);
    node_api_tick(node);
}

int node_start(struct node *node, uv_loop_t *loop, const struct options *options, struct error *error)
{
    static char store[PATH_MAX];
    memset(node, 0, sizeof(*node));
    node->loop = loop;
    node->options = *options;
    if (!node->options.store_path) {
        (void)snprintf(store, sizeof(store), "%s/store", options->state_path);
        node->options.store_path = store;
    }
    list_init(&node->proposals);
    list_init(&node->barriers);
    list_init(&node->calls);
    list_init(&node->live);
    node->tree = tree_new();
    int result = tree_check_name("node name", options->name, error);
    if (result == 0)
        result = key_read(options->key_path, &node->key, error);
    if (result == 0)
        result = address_find(node, error);
    if (result == 0)
        result = folder_make(options->state_path, error);
    if (result == 0)
        result = folder_make(options->run_path, error);
    if (result == 0)
        result = random_bytes(&node->boot, sizeof(node->boot));
    node->boot |= 1; /* never 0 */
    if (result == 0)
        result = log_store_open(options->state_path, &node->store, error);
    if (result == 0)
        result = identity_load(node, error);
    if (result == 0)
        result = plugins_load(node, error);
    if (result == 0)
        result = node_plan_start(node, error);
    if (result == 0)
        result = node_api_start(node, error);
    if (result == 0) {
        uv_timer_init(loop, &node->tick);
        uv_timer_start(&node->tick, node_tick, RSM_TICK_MS, RSM_TICK_MS);
        result = node_members_start(node, error);
    }
    if (result == 0)
        log_notice("node %s at %s, %s", options->name, node->address,
                   node->self.nodeid ? "a member of a cluster" : "in no cluster yet");
    return result;
}

static void node_closed(struct node *node)
{
    void (*stopped)(struct node *node) = node->stopped;
    log_store_close(node->store);
    tree_free(node->tree);
    failover_free(node->failover);
    plugin_loader_free(node->plugins);
    key_wipe(&node->key);
    while (!list_empty(&node->live)) {
        struct node_live *live = list_first(&node->live, struct node_live, link);
        list_remove(&live->link);
        free(live);
    }
    free(node->pushed);
    stopped(node);
}

static void control_closed(void *context)
{
    node_closed(context);
}

void node_part_closed(struct node *node)
{
    ASSERT(node->closing > 0);
    if (--node->closing > 0)
        return;
    uv_timer_stop(&node->tick);
    uv_close((uv_handle_t *)&node->tick, NULL);
    struct peer_mesh *control = node->control;
    node->control = NULL;
    if (control)
        peer_mesh_close(control, control_closed, node);
    else
        node_closed(node);
}

void node_stop(struct node *node, void (*stopped)(struct node *node))
{
    if (node->stopping)
        return;
    log_notice("stopping");
    node->stopping = true;
    node->stop_ms = node_now_ms(node);
    node->stopped = stopped;
    engine_set_authority(node->engine, false);
    node_log_leave(node);
}
