/* Calls of shells and programs: read barrier, answer; or plan, propose one command after another, answer.
 *
 * Without a quorum a read is answered from what this node knows, and says so; a change waits a little for a quorum, then is
 * refused with the nodes that are missing. */
#define LOG_MODULE "api"
#include "agent/node/node.h"

#include "director/base/log.h"
#include <errno.h>
#include <pwd.h>
#include <string.h>

struct pending_call {
    struct list link;
    struct node *node;
    struct api_call *call;
    struct node_barrier barrier;
    struct node_proposal proposal;
    struct api_plan plan;
    bool planned;
    bool busy;          /* a barrier or proposal is under way */
    unsigned next;      /* command of the plan */
    uint64_t since_ms;
};

static bool live_quorate(void *context)
{
    return ((struct node *)context)->quorate;
}

static const char *live_leader(void *context)
{
    struct node *node = context;
    const struct tree_node *leader = node->sequencer ? tree_node_by_id(node->tree, node->sequencer) : NULL;
    return leader ? leader->name : NULL;
}

static bool live_node_alive(void *context, uint32_t nodeid)
{
    struct failover_nodes alive;
    node_plan_alive(context, &alive);
    return failover_nodes_have(&alive, (uint16_t)nodeid);
}

static bool live_volume(void *context, uint64_t volume_id, struct api_live_volume *ret_figures)
{
    return node_live_volume(context, volume_id, ret_figures);
}

static bool live_volume_last(void *context, uint64_t volume_id, struct api_live_volume *ret_figures)
{
    return node_live_volume_last(context, volume_id, ret_figures);
}

static bool live_replica(void *context, uint64_t volume_id, uint32_t nodeid, struct api_live_replica *ret_figures)
{
    return node_live_replica(context, volume_id, (uint16_t)nodeid, ret_figures);
}

static bool live_plugin(void *context, unsigned index, struct api_live_plugin *ret_plugin)
{
    struct node *node = context;
    struct plugin_info info;
    if (!plugin_loader_get(node->plugins, index, &info))
        return false;
    memset(ret_plugin, 0, sizeof(*ret_plugin));
    (void)snprintf(ret_plugin->name, sizeof(ret_plugin->name), "%s", info.plugin->name);
    (void)snprintf(ret_plugin->kind, sizeof(ret_plugin->kind), "%s", plugin_kind_name(info.plugin->kind));
    (void)snprintf(ret_plugin->version, sizeof(ret_plugin->version), "%s", info.plugin->version);
    (void)snprintf(ret_plugin->summary, sizeof(ret_plugin->summary), "%s", info.plugin->summary);
    return true;
}

static const struct api_live live_operations = {.quorate = live_quorate, .leader = live_leader, .node_alive = live_node_alive,
                                                .volume = live_volume, .volume_last = live_volume_last,
                                                .replica = live_replica, .plugin = live_plugin};

static struct api_view node_view(struct node *node)
{
    const struct tree_node *self = tree_node_by_uuid(node->tree, &node->self.uuid);
    return (struct api_view){.tree = node->tree, .live = &live_operations, .live_context = node,
                             .self = self ? self->name : node->options.name}; /* the cluster may have given it another name */
}

static void call_free(struct pending_call *pending)
{
    list_remove(&pending->link);
    if (pending->planned)
        api_plan_done(&pending->plan);
    free(pending);
}

static void call_fail(struct pending_call *pending, int code, const char *words)
{
    char partial[512];
    if (pending->planned)
        words = api_plan_failed(&pending->plan, pending->next, words, sizeof(partial), partial);
    api_call_fail(pending->call, code, "%s", words);
    call_free(pending);
}

/* Why there is no quorum, and who is missing. */
static void quorum_words(struct node *node, char *text, size_t size)
{
    struct rsm_status status = {0};
    size_t present = 0, length;
    if (node->removed || node->log_failed) {
        (void)snprintf(text, size, "%s", node->removed ? "this node was removed from its cluster: to let it join again, stop directord, "
                                                         "clear its state folder and start it"
                                                       : "the state store of this node failed: restart directord when its disk is "
                                                         "well; ask another node");
        return;
    }
    if (!node->rsm) {
        char state[160];
        (void)formation_describe(node->formation, node_now_ms(node), state, sizeof(state));
        (void)snprintf(text, size, "this node is not in a cluster yet: %s", state);
        return;
    }
    rsm_get_status(node->rsm, &status);
    if (!node->in_view && node->rest_words[0]) {
        (void)snprintf(text, size, "%s", node->rest_words);
        return;
    }
    if (!node->in_view && node->corosync_words[0]) {
        (void)snprintf(text, size, "corosync does not run here: %s", node->corosync_words);
        return;
    }
    for (size_t i = 0; i < status.voter_count; i++)
        present += node_members_find(node, status.voters[i]) != NULL;
    if (present > status.voter_count / 2) {
        (void)snprintf(text, size, "the nodes are just agreeing on who orders changes; ask again in a moment");
        return;
    }
    length = (size_t)snprintf(text, size, "the cluster is not quorate here: %zu of %zu voters present, a majority of %zu is needed",
                              present, status.voter_count, status.voter_count / 2 + 1);
    for (size_t i = 0, named = 0; i < status.voter_count && length < size; i++) {
        const struct tree_node *voter = tree_node_by_id(node->tree, status.voters[i]);
        if (!node_members_find(node, status.voters[i]) && voter)
            length += (size_t)snprintf(text + length, size - length, "%s%s", named++ ? ", " : "; missing: ", voter->name);
    }
}

static void call_answer(struct pending_call *pending, const char *remark)
{
    struct api_view view = node_view(pending->node);
    Director__Result *result = api_view_answer(&view, api_call_request(pending->call));
    if (remark && result->code == 0 && !(result->message && result->message[0])) {
        char *old = result->message;
        result->message = (char *)remark;
        api_call_reply(pending->call, result);
        result->message = old;
    } else {
        api_call_reply(pending->call, result);
    }
    api_result_free(result);
    call_free(pending);
}

static void call_barrier_done(struct node_barrier *barrier, int status)
{
    struct pending_call *pending = container_of(barrier, struct pending_call, barrier);
    pending->busy = false;
    call_answer(pending, status < 0 ? "the cluster did not confirm that this answer is current" : NULL);
}

static void call_next(struct pending_call *pending);

static void call_proposal_done(struct node_proposal *proposal, int status, const struct tree_result *result,
                               const struct error *error)
{
    struct pending_call *pending = container_of(proposal, struct pending_call, proposal);
    (void)result;
    pending->busy = false;
    if (status < 0) {
        call_fail(pending, status, error->message);
        return;
    }
    pending->next++;
    call_next(pending);
}

/* For the events: the user's name by the local file, or number. Never by a name service: this thread must not wait for one. */
static void command_who(Director__Command *command, uid_t uid)
{
    char name[TREE_NAME_SIZE], buffer[1024];
    struct passwd entry, *found;
    FILE *file = fopen("/etc/passwd", "re");
    (void)snprintf(name, sizeof(name), "user %u", (unsigned)uid);
    while (file && fgetpwent_r(file, &entry, buffer, sizeof(buffer), &found) == 0)
        if (found->pw_uid == uid && strlen(found->pw_name) < sizeof(name)) {
            (void)snprintf(name, sizeof(name), "%s", found->pw_name);
            break;
        }
    if (file)
        fclose(file);
    char *copy = strdup(name);
    if (copy)
        command->who = copy; /* the plan's commands are made here and have none yet */
}

static void call_next(struct pending_call *pending)
{
    struct node *node = pending->node;
    struct error error = {0};
    if (pending->next == pending->plan.command_count) {
        struct api_view view = node_view(node);
        Director__Result *result = api_view_done(&view, &pending->plan);
        api_call_reply(pending->call, result);
        api_result_free(result);
        call_free(pending);
        return;
    }
    pending->busy = true;
    pending->proposal.done = call_proposal_done;
    Director__Command *command = pending->plan.commands[pending->next];
    command_who(command, api_call_uid(pending->call));
    enum rsm_change change = RSM_CHANGE_NONE;
    uint16_t nodeid = 0;
    if (command->body_case == DIRECTOR__COMMAND__BODY_NODE_VOTER) {
        change = command->node_voter->voter ? RSM_CHANGE_ADD_VOTER : RSM_CHANGE_REMOVE_VOTER;
        nodeid = (uint16_t)command->node_voter->nodeid;
    }
    int status = node_log_propose(node, command, change, nodeid, NODE_CHANGE_WAIT_MS, &pending->proposal, &error);
    if (status < 0)
        call_fail(pending, status, error.message);
}

static void call_plan(struct pending_call *pending)
{
    struct api_view view = node_view(pending->node);
    struct api_entropy entropy;
    struct uuid uuid;
    struct error error = {0};
    int status = uuid_generate(&uuid);
    if (status == 0)
        status = random_bytes(entropy.incarnations, sizeof(entropy.incarnations));
    memcpy(entropy.uuid, uuid.bytes, sizeof(entropy.uuid));
    if (status == 0)
        status = api_view_plan(&view, api_call_request(pending->call), &entropy, &pending->plan, &error);
    if (status < 0) {
        call_fail(pending, status, error.message[0] ? error.message : strerror(-status));
        return;
    }
    pending->planned = true;
    node_members_not_pristine(pending->node);
    call_next(pending);
}

/* Go on with a call that waits for a quorum; true: it is on its way or gone. */
static bool call_go(struct pending_call *pending)
{
    struct node *node = pending->node;
    bool read = api_view_is_read(api_call_request(pending->call));
    bool late = node_now_ms(node) - pending->since_ms >= NODE_QUORUM_WAIT_MS;
    char words[256];
    if (node->quorate && node->current) {
        if (!read) {
            call_plan(pending);
            return true;
        }
        pending->barrier.done = call_barrier_done;
        pending->busy = true;
        if (node_log_barrier(node, &pending->barrier) == 0)
            return true;
        pending->busy = false;
    }
    if (read && (!node->in_view || late)) {
        quorum_words(node, words, sizeof(words));
        call_answer(pending, words);
        return true;
    }
    if (!read && late) {
        quorum_words(node, words, sizeof(words));
        call_fail(pending, -EAGAIN, words);
        return true;
    }
    return false;
}

static void call_received(struct api_call *call, void *context)
{
    struct node *node = context;
    struct pending_call *pending = calloc(1, sizeof(*pending));
    if (!pending) {
        api_call_fail(call, -ENOMEM, "out of memory");
        return;
    }
    list_init(&pending->proposal.link);
    list_init(&pending->barrier.link);
    pending->node = node;
    pending->call = call;
    pending->since_ms = node_now_ms(node);
    list_append(&node->calls, &pending->link);
    if (node->stopping)
        call_fail(pending, -ESHUTDOWN, "this node is stopping; ask another node");
    else
        (void)call_go(pending);
}

void node_api_tick(struct node *node)
{
    list_foreach(link, &node->calls)
    {
        struct pending_call *pending = list_entry(link, struct pending_call, link);
        if (!pending->busy && call_go(pending))
            break; /* the list may have changed; the rest at the next tick */
    }
}

void node_api_applied(struct node *node, const Director__Command *command)
{
    char path[512];
    struct api_view view = node_view(node);
    if (!node->api || !api_server_client_count(node->api))
        return;
    Director__Result *event = api_view_event(&view, command, path);
    if (!event)
        return;
    api_server_publish(node->api, path, event);
    api_result_free(event);
}

int node_api_start(struct node *node, struct error *error)
{
    char path[512];
    list_init(&node->calls);
    (void)snprintf(path, sizeof(path), "%s/director.sock", node->options.run_path);
    struct api_server_options options = {.socket_path = path, .group = "director"};
    return api_server_new(node->loop, &options, call_received, node, &node->api, error);
}

static void api_gone(void *context)
{
    node_part_closed(context);
}

void node_api_stop(struct node *node)
{
    if (!node->api)
        return;
    while (!list_empty(&node->calls)) {
        struct pending_call *pending = list_first(&node->calls, struct pending_call, link);
        ASSERT(!pending->busy); /* node_log_stop() ended what was under way, and said that its outcome is unknown */
        call_fail(pending, -ESHUTDOWN, "this node is stopping; ask another node");
    }
    node->closing++;
    api_server_close(node->api, api_gone, node);
    node->api = NULL;
}
