/* Membership of this node: formation (pure, agent/core/formation) driven by discovery and control links; corosync and the
 * CPG group; admission of newcomers; the node list in corosync.conf.
 *
 * Joining, seen from the newcomer: discovery -> control link -> JOIN -> JOIN_REPLY {nodeid, list} -> corosync -> view ->
 * learner -> voter. Seen from the member asked: JOIN -> NodeAdd committed -> JOIN_REPLY.
 *
 * A change of the node list is two-phase (scenario 35): every member that applied it writes its corosync.conf and says so in
 * the group (STAGED); the sequencer reloads corosync when all in the view have, or after NODE_STAGE_MS; a member that stages
 * later makes the sequencer reload once more. */
#define LOG_MODULE "members"
#include "agent/node/node.h"

#include "director/base/bytes.h"
#include "director/base/log.h"
#include <errno.h>
#include <limits.h>
#include <proto/director.pb-c.h>
#include <string.h>
#include <unistd.h>

/* First byte of what goes through the group. */
enum group_message {
    GROUP_LOG = 'L',    /* a message of the replicated log */
    GROUP_IDENT = 'I',  /* u64 boot, u64 staged node list version */
};

static void formation_feed(struct node *node, const struct formation_event *event);

/* --- facts about ourselves ---------------------------------------------------------------------------------------- */

static bool self_pristine(const struct node *node)
{
    return uuid_is_zero(&node->admitting) && tree_node_count(node->tree) <= 1 && tree_volume_count(node->tree) == 0 &&
           list_empty(&node->calls);
}

static struct formation_facts self_facts(const struct node *node)
{
    struct formation_facts facts = {.formed = !uuid_is_zero(&node->self.cluster)};
    if (!facts.formed)
        return facts;
    size_t nodes = tree_node_count(node->tree);
    facts.cluster = node->self.cluster;
    facts.node_count = (uint32_t)MAX(nodes, MAX(node->list_count, (size_t)1));
    facts.pristine = facts.node_count <= 1 && self_pristine(node);
    facts.list_version = node->list_version;
    return facts;
}

static struct discovery_peer self_announcement(const struct node *node)
{
    struct formation_facts facts = self_facts(node);
    struct discovery_peer self = {.uuid = node->self.uuid, .port = PEER_PORT, .boot = node->boot, .formed = facts.formed,
                                  .cluster = facts.cluster, .node_count = facts.node_count};
    (void)snprintf(self.address, sizeof(self.address), "%s", node->address);
    return self;
}

static struct peer_hello self_hello(const struct node *node)
{
    struct formation_facts facts = self_facts(node);
    struct peer_hello hello = {.cluster = facts.cluster, .node = node->self.uuid, .nodeid = node->self.nodeid,
                               .boot = node->boot, .node_count = facts.node_count, .pristine = facts.pristine};
    (void)snprintf(hello.name, sizeof(hello.name), "%s", node->options.name);
    (void)snprintf(hello.address, sizeof(hello.address), "%s:%u", node->address, PEER_PORT);
    (void)snprintf(hello.software, sizeof(hello.software), "%s", DIRECTOR_VERSION);
    return hello;
}

static void self_announce(struct node *node)
{
    struct discovery_peer self = self_announcement(node);
    struct peer_hello hello = self_hello(node);
    if (node->discovery)
        discovery_update(node->discovery, &self);
    if (node->control)
        peer_mesh_set_hello(node->control, &hello);
    engine_set_hello(node->engine, &hello);
    struct formation_event event = {.type = FORMATION_FACTS, .facts = self_facts(node),
                                    .status = node->quorate && node->current ? 0 : -EAGAIN};
    formation_feed(node, &event);
}

void node_members_not_pristine(struct node *node)
{
    self_announce(node);
}

/* --- the node list: in memory, in the store (key "nodes"), in corosync.conf, in the meshes ------------------------- */

static void list_from_tree(struct node *node)
{
    node->list_count = 0;
    for (size_t i = 0; i < tree_node_count(node->tree) && i < COROSYNC_NODES_MAX; i++) {
        const struct tree_node *from = tree_node_at(node->tree, i);
        struct corosync_node *to = &node->list[node->list_count];
        node->list_uuid[node->list_count++] = from->uuid;
        to->nodeid = from->nodeid;
        (void)snprintf(to->name, sizeof(to->name), "%s", from->name);
        (void)snprintf(to->address, sizeof(to->address), "%s", from->address);
    }
    node->list_version = tree_get_cluster(node->tree)->node_list_version;
}

static void list_from_message(struct node *node, Director__NodeInfo **nodes, size_t count, uint64_t version)
{
    node->list_count = 0;
    for (size_t i = 0; i < count && i < COROSYNC_NODES_MAX; i++) {
        struct corosync_node *to = &node->list[node->list_count];
        if (nodes[i]->uuid.len != sizeof(struct uuid) || !nodes[i]->nodeid || nodes[i]->nodeid > UINT16_MAX)
            continue;
        memcpy(node->list_uuid[node->list_count++].bytes, nodes[i]->uuid.data, sizeof(struct uuid));
        to->nodeid = nodes[i]->nodeid;
        (void)snprintf(to->name, sizeof(to->name), "%s", nodes[i]->name);
        (void)snprintf(to->address, sizeof(to->address), "%s", nodes[i]->address);
    }
    node->list_version = version;
}

/* The list as a MembersReply; the arrays live in *infos and *pointers, the caller's. */
static void list_to_message(struct node *node, Director__MembersReply *message, Director__NodeInfo *infos,
                            Director__NodeInfo **pointers)
{
    director__members_reply__init(message);
    message->cluster_uuid.data = node->self.cluster.bytes;
    message->cluster_uuid.len = uuid_is_zero(&node->self.cluster) ? 0 : sizeof(struct uuid);
    for (size_t i = 0; i < node->list_count; i++) {
        director__node_info__init(&infos[i]);
        infos[i].uuid.data = node->list_uuid[i].bytes;
        infos[i].uuid.len = sizeof(struct uuid);
        infos[i].nodeid = node->list[i].nodeid;
        infos[i].name = node->list[i].name;
        infos[i].address = node->list[i].address;
        pointers[i] = &infos[i];
    }
    message->n_nodes = node->list_count;
    message->nodes = pointers;
    message->node_list_version = node->list_version;
    message->pristine = self_facts(node).pristine;
}

static int list_save(struct node *node, struct error *error)
{
    Director__MembersReply message;
    Director__NodeInfo infos[COROSYNC_NODES_MAX], *pointers[COROSYNC_NODES_MAX];
    uint8_t bytes[COROSYNC_NODES_MAX * 256];
    list_to_message(node, &message, infos, pointers);
    size_t size = director__members_reply__get_packed_size(&message);
    ASSERT(size <= sizeof(bytes));
    director__members_reply__pack(&message, bytes);
    int result = log_store_begin(node->store, error);
    if (result < 0)
        return result;
    (void)log_store_put(node->store, "nodes", bytes, size, error);
    return log_store_commit(node->store, error);
}

static void list_load(struct node *node)
{
    uint8_t bytes[COROSYNC_NODES_MAX * 256];
    size_t size;
    struct error error;
    if (log_store_get(node->store, "nodes", bytes, sizeof(bytes), &size, &error) < 0 || size > sizeof(bytes))
        return;
    Director__MembersReply *message = director__members_reply__unpack(NULL, size, bytes);
    if (!message)
        return;
    list_from_message(node, message->nodes, message->n_nodes, message->node_list_version);
    director__members_reply__free_unpacked(message, NULL);
}

static struct peer_node *list_peers(const struct node *node, struct peer_node peers[static COROSYNC_NODES_MAX])
{
    for (size_t i = 0; i < node->list_count; i++) {
        peers[i].uuid = node->list_uuid[i];
        peers[i].nodeid = (uint16_t)node->list[i].nodeid;
        (void)snprintf(peers[i].address, sizeof(peers[i].address), "%.60s:%u", node->list[i].address, PEER_PORT);
    }
    return peers;
}

/* Write the list wherever it is needed. 0 or negative errno. */
static int list_publish(struct node *node, struct error *error)
{
    struct peer_node peers[COROSYNC_NODES_MAX];
    char path[PATH_MAX], keyfile[PATH_MAX], state[PATH_MAX], logfile[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/corosync.conf", node->options.run_path);
    (void)snprintf(keyfile, sizeof(keyfile), "%s/corosync.key", node->options.run_path);
    (void)snprintf(state, sizeof(state), "%s/corosync", node->options.state_path);
    (void)snprintf(logfile, sizeof(logfile), "%s/corosync.log", node->options.run_path);
    struct corosync_config config = {.cluster = node->self.cluster, .nodes = node->list, .node_count = node->list_count,
                                     .keyfile = keyfile, .state_dir = state, .logfile = logfile};
    int result = list_save(node, error);
    if (result == 0)
        result = corosync_key_write(&node->key, &node->self.cluster, keyfile, error);
    if (result >= 0)
        result = corosync_config_write(&config, path, error);
    if (result < 0)
        return result;
    (void)list_peers(node, peers);
    result = peer_mesh_set_peers(node->control, peers, node->list_count);
    if (result < 0)
        return error_set(error, result, "out of memory for the node list");
    return engine_set_peers(node->engine, peers, node->list_count) < 0
               ? error_set(error, -ENOMEM, "out of memory for the node list") : 0;
}

/* --- the group ------------------------------------------------------------------------------------------------------ */

struct node_member *node_members_find(struct node *node, uint16_t nodeid)
{
    for (size_t i = 0; i < node->member_count; i++)
        if (node->members[i].nodeid == nodeid)
            return &node->members[i];
    return NULL;
}

static void group_send(struct node *node, enum group_message type, const void *bytes, size_t size)
{
    uint8_t message[CPG_GROUP_MESSAGE_MAX_BYTES];
    if (!node->group || size + 1 > sizeof(message))
        return;
    message[0] = (uint8_t)type;
    memcpy(message + 1, bytes, size);
    int result = cpg_group_send(node->group, message, size + 1);
    if (result < 0 && result != -ENOTCONN)
        log_debug("group: a message was not sent: %s", strerror(-result)); /* the log's own retries make up for it */
}

void node_members_multicast_log(struct node *node, const void *bytes, size_t size)
{
    group_send(node, GROUP_LOG, bytes, size);
}

static void group_send_ident(struct node *node)
{
    uint8_t ident[16];
    put_le64(ident, node->boot);
    put_le64(ident + 8, node->list_version);
    group_send(node, GROUP_IDENT, ident, sizeof(ident));
}

static void group_view(const struct cpg_view *view, void *context)
{
    struct node *node = context;
    struct node_member members[CPG_VIEW_MEMBERS_MAX];
    size_t count = 0;
    uint64_t now = node_now_ms(node);
    for (unsigned i = 0; i < view->departed_count; i++) {
        const struct cpg_view_departed *gone = &view->departed[i];
        struct node_member *member = node_members_find(node, (uint16_t)gone->member.nodeid);
        bool known = member && member->pid == gone->member.pid && member->boot;
        log_notice("view: node %u left (%s)", gone->member.nodeid, cpg_view_reason_name(gone->reason));
        /* Only the end of a process proves that it answers nothing any more (I7); a lost node may live on, cut off. */
        if (known && gone->reason == CPG_VIEW_PROCESS_DOWN)
            engine_node_dead(node->engine, member->nodeid, member->boot);
    }
    for (unsigned i = 0; i < view->member_count; i++) {
        const struct cpg_view_member *from = &view->members[i];
        struct node_member *old = node_members_find(node, (uint16_t)from->nodeid);
        struct node_member member = {.nodeid = (uint16_t)from->nodeid, .pid = from->pid, .since_ms = now};
        if (old && old->pid == from->pid)
            member = *old;
        else
            log_notice("view: node %u joined", from->nodeid);
        members[count++] = member;
    }
    memcpy(node->members, members, count * sizeof(members[0]));
    node->member_count = count;
    node->in_view = true;
    group_send_ident(node);
    node_log_view(node, view);
    node_plan_wake(node);
}

static void group_message(uint32_t nodeid, uint32_t pid, const void *bytes, size_t size, void *context)
{
    struct node *node = context;
    const uint8_t *message = bytes;
    struct node_member *member = node_members_find(node, (uint16_t)nodeid);
    if (size < 1 || !member || member->pid != pid)
        return;
    if (message[0] == GROUP_LOG) {
        node_log_message(node, (uint16_t)nodeid, message + 1, size - 1);
    } else if (message[0] == GROUP_IDENT && size >= 17) {
        uint64_t staged = get_le64(message + 9);
        member->boot = get_le64(message + 1);
        /* A member that was late to stage: corosync must read its files once more. */
        if (staged > member->staged && node->list_reloaded == staged)
            node->list_reloaded--;
        member->staged = staged;
        node_members_tick(node);
    }
}

static void group_lost(const char *words, void *context)
{
    struct node *node = context;
    log_warning("group: %s; this node serves nothing until corosync is back", words);
    node->in_view = false;
    node->member_count = 0;
    engine_set_authority(node->engine, false); /* scenario 22 */
    node_log_view(node, NULL);
    node_plan_wake(node);
}

static const struct cpg_group_callbacks group_callbacks = {
    .on_view = group_view, .on_message = group_message, .on_lost = group_lost};

/* --- corosync ------------------------------------------------------------------------------------------------------- */

static void corosync_state(enum corosync_process_state state, const char *words, void *context)
{
    (void)context;
    if (state == COROSYNC_PROCESS_BACKOFF)
        log_warning("corosync: %s", words);
    else
        log_info("corosync: %s", words);
}

static void corosync_reloaded(int status, void *context)
{
    (void)context;
    if (status < 0)
        log_warning("corosync: the new node list could not be loaded: %s", strerror(-status));
}

/* Be a member: corosync and the group run, with the list as it is now. */
static void members_run(struct node *node)
{
    struct error error = {0};
    char config[PATH_MAX], identity[UUID_TEXT_SIZE + 8];
    int result = list_publish(node, &error);
    if (result == 0 && !node->rsm)
        result = node_log_start(node, &error);
    if (result == 0 && !node->corosync) {
        uuid_format(&node->self.cluster, identity);
        (void)snprintf(identity + UUID_TEXT_SIZE - 1, 8, ":%u", node->self.nodeid);
        (void)snprintf(config, sizeof(config), "%s/corosync.conf", node->options.run_path);
        struct corosync_process_options options = {.config_path = config, .run_dir = node->options.run_path,
                                                   .identity = identity, .on_state = corosync_state, .context = node};
        char log_path[PATH_MAX];
        (void)snprintf(log_path, sizeof(log_path), "%s/corosync.log", node->options.run_path);
        options.log_path = log_path;
        result = corosync_process_new(node->loop, &options, &node->corosync);
        if (result == 0)
            result = corosync_process_start(node->corosync, &error);
        else
            (void)error_set(&error, result, "corosync: %s", strerror(-result));
    } else if (result == 0) {
        corosync_process_reload(node->corosync, corosync_reloaded, node);
    }
    if (result == 0 && !node->group) {
        result = cpg_group_new(node->loop, NODE_GROUP_NAME, &group_callbacks, node, &node->group);
        if (result < 0)
            (void)error_set(&error, result, "the group cannot be joined: %s", strerror(-result));
    }
    engine_set_self(node->engine, node->self.nodeid);
    self_announce(node);
    if (result < 0)
        log_error("cannot run as a member: %s", error.message);
}

void node_members_changed(struct node *node)
{
    struct error error = {0};
    const struct tree_cluster *cluster = tree_get_cluster(node->tree);
    const struct tree_node *self = tree_node_by_uuid(node->tree, &node->self.uuid);
    if (cluster->node_list_version > node->list_version && self && self->nodeid == node->self.nodeid) {
        list_from_tree(node);
        node->list_changed_ms = node_now_ms(node);
        if (list_publish(node, &error) < 0)
            log_error("node list: %s", error.message);
        else
            group_send_ident(node);
    }
    self_announce(node);
}

void node_members_tick(struct node *node)
{
    if (!node->is_sequencer || !node->corosync || node->list_reloaded >= node->list_version)
        return;
    bool all = true;
    for (size_t i = 0; i < node->member_count; i++)
        all &= node->members[i].staged >= node->list_version || node->members[i].nodeid == node->self.nodeid;
    if (!all && node_now_ms(node) - node->list_changed_ms < NODE_STAGE_MS)
        return;
    node->list_reloaded = node->list_version;
    log_info("node list %llu: %zu nodes, loaded into corosync", (unsigned long long)node->list_version, node->list_count);
    corosync_process_reload(node->corosync, corosync_reloaded, node);
}

/* --- control links --------------------------------------------------------------------------------------------------- */

static struct formation_facts hello_facts(const struct peer_hello *hello)
{
    return (struct formation_facts){.formed = !uuid_is_zero(&hello->cluster), .pristine = hello->pristine,
                                    .cluster = hello->cluster, .node_count = hello->node_count};
}

static struct formation_where hello_where(const struct peer_hello *hello)
{
    struct formation_where where = {.uuid = hello->node, .port = PEER_PORT};
    const char *colon = strrchr(hello->address, ':');
    (void)snprintf(where.address, sizeof(where.address), "%.*s",
                   colon ? (int)MIN((size_t)(colon - hello->address), sizeof(where.address) - 1) : 0, hello->address);
    return where;
}

static void control_up(struct peer *peer, const struct peer_hello *hello, void *context)
{
    struct node *node = context;
    struct formation_event event = {.type = FORMATION_HELLO, .where = hello_where(hello), .facts = hello_facts(hello)};
    log_info("link: %s (node %u) is up", hello->name, peer_nodeid(peer));
    formation_feed(node, &event);
    node_plan_wake(node);
}

static void control_changed(struct peer *peer, const struct peer_hello *hello, void *context)
{
    struct node *node = context;
    struct formation_event event = {.type = FORMATION_HELLO, .where = hello_where(hello), .facts = hello_facts(hello)};
    (void)peer;
    formation_feed(node, &event);
    node_plan_wake(node);
}

static void control_down(struct peer *peer, int reason, const char *words, void *context)
{
    struct node *node = context;
    struct formation_event event = {.type = FORMATION_LINK_DOWN, .where = hello_where(peer_hello(peer))};
    (void)reason;
    log_info("link: %s (node %u) is down: %s", peer_hello(peer)->name, peer_nodeid(peer), words);
    formation_feed(node, &event);
    node_plan_wake(node);
}

static void control_error(int code, const char *words, void *context)
{
    (void)code;
    (void)context;
    log_warning("link: %s", words);
}

static int control_reply(struct peer *peer, uint16_t type, uint64_t request, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    _cleanup_free_ uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes)
        return -ENOMEM;
    protobuf_c_message_pack(message, bytes);
    struct peer_header header = {.type = type, .request = request};
    struct iovec iov = {bytes, size};
    return peer_send(peer, &header, &iov, size ? 1 : 0);
}

static void join_answer(struct node *node, const struct uuid *newcomer, uint16_t nodeid, int code, const char *words)
{
    struct peer *peer = peer_mesh_find_uuid(node->control, newcomer);
    Director__MembersReply members;
    Director__NodeInfo infos[COROSYNC_NODES_MAX], *pointers[COROSYNC_NODES_MAX];
    Director__JoinReply reply = DIRECTOR__JOIN_REPLY__INIT;
    if (!peer)
        return; /* it asks again */
    list_to_message(node, &members, infos, pointers);
    reply.code = code;
    reply.message = (char *)words;
    reply.cluster_uuid = members.cluster_uuid;
    if (code == 0) {
        reply.nodeid = nodeid;
        reply.n_nodes = members.n_nodes;
        reply.nodes = members.nodes;
        reply.node_list_version = members.node_list_version;
    }
    if (control_reply(peer, PEER_JOIN_REPLY, 0, &reply.base) < 0)
        log_warning("join: the answer to %s could not be sent; it will ask again", peer_hello(peer)->name);
}

static void admit_done(struct node_proposal *proposal, int status, const struct tree_result *result, const struct error *error)
{
    struct node *node = proposal->context;
    struct uuid newcomer = node->admitting;
    node->admitting = (struct uuid){0};
    if (status == 0 || status == -EALREADY)
        join_answer(node, &newcomer, result->nodeid, 0, "");
    else
        join_answer(node, &newcomer, 0, status == -ETIMEDOUT ? -EAGAIN : status, error->message);
    self_announce(node);
}

/* A newcomer asks to be let in. */
static void join_asked(struct node *node, struct peer *peer, const void *bytes, size_t size)
{
    const struct uuid newcomer = peer_hello(peer)->node;
    struct error error = {0};
    Director__JoinRequest *request = director__join_request__unpack(NULL, size, bytes);
    if (!request || !request->node) {
        peer_close(peer, "the join request makes no sense");
        goto out;
    }
    const struct tree_node *known = tree_node_by_uuid(node->tree, &newcomer);
    if (known && node->quorate && node->list_version >= tree_get_cluster(node->tree)->node_list_version) {
        join_answer(node, &newcomer, known->nodeid, 0, "");
        goto out;
    }
    if (!formation_may_admit(node->formation) || !node->quorate || !node->current || !uuid_is_zero(&node->admitting)) {
        join_answer(node, &newcomer, 0, -EAGAIN, "busy with another change of the node list, or not quorate");
        goto out;
    }
    node->admitting = newcomer;
    node_members_not_pristine(node);
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__NodeAdd add = DIRECTOR__NODE_ADD__INIT;
    request->node->uuid.len = sizeof(newcomer);
    free(request->node->uuid.data);
    request->node->uuid.data = malloc(sizeof(newcomer));
    ASSERT(request->node->uuid.data);
    memcpy(request->node->uuid.data, newcomer.bytes, sizeof(newcomer)); /* the one that proved itself */
    request->node->nodeid = 0;
    request->node->voter = false;
    add.node = request->node;
    command.body_case = DIRECTOR__COMMAND__BODY_NODE_ADD;
    command.node_add = &add;
    log_notice("join: %s at %s asks to be let in", request->node->name, request->node->address);
    node->admit_proposal.done = admit_done;
    node->admit_proposal.context = node;
    if (node_log_propose(node, &command, RSM_CHANGE_NONE, 0, 6000, &node->admit_proposal, &error) < 0) {
        node->admitting = (struct uuid){0};
        join_answer(node, &newcomer, 0, -EAGAIN, error.message);
    }
out:
    if (request)
        director__join_request__free_unpacked(request, NULL);
}

/* A member let us in, or not. */
static void join_answered(struct node *node, struct peer *peer, const void *bytes, size_t size)
{
    Director__JoinReply *reply = director__join_reply__unpack(NULL, size, bytes);
    struct formation_event event = {.type = FORMATION_JOIN_REPLY, .where = hello_where(peer_hello(peer))};
    struct error error = {0};
    if (!reply)
        return;
    event.status = reply->code;
    if (reply->code == 0 && formation_state(node->formation) == FORMATION_JOINING) {
        if (reply->cluster_uuid.len != sizeof(struct uuid) || !reply->nodeid || reply->nodeid > UINT16_MAX) {
            event.status = -EPROTO;
        } else {
            memcpy(node->self.cluster.bytes, reply->cluster_uuid.data, sizeof(struct uuid));
            node->self.nodeid = (uint16_t)reply->nodeid;
            list_from_message(node, reply->nodes, reply->n_nodes, reply->node_list_version);
            event.status = node_identity_save(node, &error);
            if (event.status < 0) {
                log_error("join: %s", error.message);
                node->self.cluster = (struct uuid){0};
                node->self.nodeid = 0;
            } else {
                log_notice("join: let in by %s as node %u", peer_hello(peer)->name, node->self.nodeid);
            }
        }
        event.facts = self_facts(node);
    } else if (reply->code != -EAGAIN && reply->code < 0) {
        log_warning("join: %s refuses: %s", peer_hello(peer)->name, reply->message);
    }
    director__join_reply__free_unpacked(reply, NULL);
    formation_feed(node, &event);
}

static void members_asked(struct node *node, struct peer *peer)
{
    Director__MembersReply message;
    Director__NodeInfo infos[COROSYNC_NODES_MAX], *pointers[COROSYNC_NODES_MAX];
    list_to_message(node, &message, infos, pointers);
    (void)control_reply(peer, PEER_MEMBERS_REPLY, 0, &message.base);
}

static void members_answered(struct node *node, struct peer *peer, const void *bytes, size_t size)
{
    Director__MembersReply *reply = director__members_reply__unpack(NULL, size, bytes);
    struct formation_event event = {.type = FORMATION_MEMBERS_REPLY, .where = hello_where(peer_hello(peer))};
    if (!reply)
        return;
    if (reply->cluster_uuid.len == sizeof(struct uuid)) {
        event.facts.formed = true;
        memcpy(event.facts.cluster.bytes, reply->cluster_uuid.data, sizeof(struct uuid));
        event.facts.node_count = (uint32_t)reply->n_nodes;
        event.facts.pristine = reply->pristine;
        event.facts.list_version = reply->node_list_version;
        for (size_t i = 0; i < reply->n_nodes; i++)
            event.listed |= reply->nodes[i]->uuid.len == sizeof(struct uuid) &&
                            !memcmp(reply->nodes[i]->uuid.data, node->self.uuid.bytes, sizeof(struct uuid));
        if (uuid_equal(&event.facts.cluster, &node->self.cluster) && event.listed &&
            reply->node_list_version > node->list_version)
            list_from_message(node, reply->nodes, reply->n_nodes, reply->node_list_version);
    }
    director__members_reply__free_unpacked(reply, NULL);
    formation_feed(node, &event);
}

static void control_frame(struct peer *peer, const struct peer_header *header, struct peer_buffer *payload, void *context)
{
    struct node *node = context;
    const void *bytes = payload ? payload->data : (const void *)"";
    size_t size = payload ? payload->size : 0;
    switch (header->type) {
    case PEER_JOIN:
        join_asked(node, peer, bytes, size);
        break;
    case PEER_JOIN_REPLY:
        join_answered(node, peer, bytes, size);
        break;
    case PEER_MEMBERS:
        members_asked(node, peer);
        break;
    case PEER_MEMBERS_REPLY:
        members_answered(node, peer, bytes, size);
        break;
    case PEER_LIVE:
        node_plan_live_frame(node, peer_nodeid(peer), bytes, size);
        break;
    default:
        peer_close(peer, "a frame of a type this version does not know");
    }
}

static const struct peer_mesh_callbacks control_callbacks = {
    .up = control_up, .changed = control_changed, .down = control_down, .frame = control_frame, .error = control_error};

/* --- formation ------------------------------------------------------------------------------------------------------- */

static void formation_dial(struct node *node, const struct formation_where *where)
{
    char address[PEER_ADDRESS_SIZE];
    const char *seeds[FORMATION_PEERS_MAX];
    (void)snprintf(address, sizeof(address), "%s:%u", where->address, where->port ? where->port : PEER_PORT);
    for (size_t i = 0; i < node->dialled_count; i++)
        if (!strcmp(node->dialled[i], address))
            return;
    if (node->dialled_count == FORMATION_PEERS_MAX) { /* the oldest goes */
        memmove(node->dialled[0], node->dialled[1], sizeof(node->dialled) - sizeof(node->dialled[0]));
        node->dialled_count--;
    }
    memcpy(node->dialled[node->dialled_count++], address, sizeof(address));
    for (size_t i = 0; i < node->dialled_count; i++)
        seeds[i] = node->dialled[i];
    (void)peer_mesh_set_seeds(node->control, seeds, node->dialled_count);
}

static void form_failed(struct node *node, const struct error *error)
{
    log_error("form: %s", error->message);
    node->forming = false;
    struct formation_event event = {.type = FORMATION_FORMED, .status = error->code ? error->code : -EIO};
    formation_feed(node, &event);
}

static void form_voter_done(struct node_proposal *proposal, int status, const struct tree_result *result,
                            const struct error *error)
{
    struct node *node = proposal->context;
    (void)result;
    if (status < 0) {
        form_failed(node, error);
        return;
    }
    node->forming = false;
    log_notice("form: a new cluster of one node");
    struct formation_event event = {.type = FORMATION_FORMED, .facts = self_facts(node)};
    formation_feed(node, &event);
}

static void form_node_done(struct node_proposal *proposal, int status, const struct tree_result *result,
                           const struct error *error)
{
    struct node *node = proposal->context;
    struct error words = {0};
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__NodeVoter voter = DIRECTOR__NODE_VOTER__INIT;
    if (status < 0 || result->nodeid != node->self.nodeid) {
        form_failed(node, error);
        return;
    }
    voter.nodeid = node->self.nodeid;
    voter.voter = true;
    command.body_case = DIRECTOR__COMMAND__BODY_NODE_VOTER;
    command.node_voter = &voter;
    proposal->done = form_voter_done;
    if (node_log_propose(node, &command, RSM_CHANGE_NONE, 0, 0, proposal, &words) < 0)
        form_failed(node, &words);
}

static void form_cluster_done(struct node_proposal *proposal, int status, const struct tree_result *result,
                              const struct error *error)
{
    struct node *node = proposal->context;
    struct error words = {0};
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__NodeAdd add = DIRECTOR__NODE_ADD__INIT;
    Director__NodeInfo info = DIRECTOR__NODE_INFO__INIT;
    (void)result;
    if (status < 0) {
        form_failed(node, error);
        return;
    }
    info.uuid.data = node->self.uuid.bytes;
    info.uuid.len = sizeof(struct uuid);
    info.name = (char *)node->options.name;
    info.address = node->address;
    info.boot = node->boot;
    info.version_max = PEER_VERSION;
    info.software = (char *)DIRECTOR_VERSION;
    add.node = &info;
    command.body_case = DIRECTOR__COMMAND__BODY_NODE_ADD;
    command.node_add = &add;
    proposal->done = form_node_done;
    if (node_log_propose(node, &command, RSM_CHANGE_NONE, 0, 0, proposal, &words) < 0)
        form_failed(node, &words);
}

/* Make a cluster of this one node: identity and bootstrapped log durable, corosync, then the first three commands. They
 * wait in the log until the first view makes us its sequencer. */
static void formation_form(struct node *node)
{
    struct error error = {0};
    char text[UUID_TEXT_SIZE], name[32];
    node->forming = true;
    if (uuid_generate(&node->self.cluster) < 0) {
        (void)error_set(&error, -EIO, "no randomness");
        form_failed(node, &error);
        return;
    }
    node->self.nodeid = 1;
    node->list[0] = (struct corosync_node){.nodeid = 1};
    (void)snprintf(node->list[0].name, sizeof(node->list[0].name), "%s", node->options.name);
    (void)snprintf(node->list[0].address, sizeof(node->list[0].address), "%s", node->address);
    node->list_uuid[0] = node->self.uuid;
    node->list_count = 1;
    node->list_version = 0;
    if (node_log_bootstrap(node, &error) < 0 || node_identity_save(node, &error) < 0) {
        node->self.cluster = (struct uuid){0};
        node->self.nodeid = 0;
        form_failed(node, &error);
        return;
    }
    members_run(node);
    uuid_format(&node->self.cluster, text);
    (void)snprintf(name, sizeof(name), "san-%.8s", text);
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__ClusterInit init = DIRECTOR__CLUSTER_INIT__INIT;
    init.uuid.data = node->self.cluster.bytes;
    init.uuid.len = sizeof(struct uuid);
    init.name = name;
    command.body_case = DIRECTOR__COMMAND__BODY_CLUSTER_INIT;
    command.cluster_init = &init;
    node->own_proposal.done = form_cluster_done;
    node->own_proposal.context = node;
    if (node_log_propose(node, &command, RSM_CHANGE_NONE, 0, 0, &node->own_proposal, &error) < 0)
        form_failed(node, &error);
}

static void formation_join(struct node *node, const struct formation_where *where)
{
    struct peer *peer = peer_mesh_find_uuid(node->control, &where->uuid);
    Director__JoinRequest request = DIRECTOR__JOIN_REQUEST__INIT;
    Director__NodeInfo info = DIRECTOR__NODE_INFO__INIT;
    if (!peer)
        return; /* LINK_DOWN told formation */
    info.uuid.data = node->self.uuid.bytes;
    info.uuid.len = sizeof(struct uuid);
    info.name = (char *)node->options.name;
    info.address = node->address;
    info.boot = node->boot;
    info.version_max = PEER_VERSION;
    info.software = (char *)DIRECTOR_VERSION;
    request.node = &info;
    (void)control_reply(peer, PEER_JOIN, 0, &request.base);
}

static void formation_fetch(struct node *node, const struct formation_where *where)
{
    struct peer *peer = peer_mesh_find_uuid(node->control, &where->uuid);
    struct peer_header header = {.type = PEER_MEMBERS};
    if (peer)
        (void)peer_send(peer, &header, NULL, 0);
}

static void dissolve_finish(struct node *node)
{
    struct error error = {0};
    struct formation_event event = {.type = FORMATION_DISSOLVED};
    node->self.cluster = (struct uuid){0};
    node->self.nodeid = 0;
    node->list_count = 0;
    node->list_version = node->list_reloaded = 0;
    node->in_view = node->quorate = node->is_sequencer = node->current = false;
    node->member_count = 0;
    node_log_stop(node);
    tree_free(node->tree);
    node->tree = tree_new();
    event.status = log_store_begin(node->store, &error);
    if (event.status == 0) {
        (void)log_store_reset(node->store, &error);
        (void)log_store_put(node->store, "nodes", NULL, 0, &error);
        event.status = log_store_commit(node->store, &error);
    }
    if (event.status == 0)
        event.status = node_identity_save(node, &error);
    if (event.status < 0)
        log_error("dissolve: %s", error.message);
    (void)peer_mesh_set_peers(node->control, NULL, 0);
    (void)engine_set_peers(node->engine, NULL, 0);
    node_plan_reset(node);
    self_announce(node);
    formation_feed(node, &event);
}

static void dissolve_corosync_closed(void *context)
{
    dissolve_finish(context);
}

static void dissolve_group_closed(void *context)
{
    struct node *node = context;
    struct corosync_process *corosync = node->corosync;
    node->corosync = NULL;
    if (corosync)
        corosync_process_close(corosync, false, dissolve_corosync_closed, node);
    else
        dissolve_finish(node);
}

static void formation_dissolve(struct node *node)
{
    struct cpg_group *group = node->group;
    if (!self_pristine(node)) { /* F2, by the current account */
        struct formation_event event = {.type = FORMATION_DISSOLVED, .status = -EBUSY};
        formation_feed(node, &event);
        return;
    }
    log_notice("dissolve: giving way to the other cluster with this key");
    node->group = NULL;
    if (group)
        cpg_group_close(group, dissolve_group_closed, node);
    else
        dissolve_group_closed(node);
}

static void formation_perform(struct node *node, const struct formation_effect *effect)
{
    char text[256];
    switch (effect->type) {
    case FORMATION_DIAL:
        formation_dial(node, &effect->where);
        break;
    case FORMATION_FORM:
        formation_form(node);
        break;
    case FORMATION_JOIN:
        formation_join(node, &effect->where);
        break;
    case FORMATION_FETCH:
        formation_fetch(node, &effect->where);
        break;
    case FORMATION_RUN:
        members_run(node); /* the list of a reply was taken over when it came; else it is the one loaded at start */
        break;
    case FORMATION_DISSOLVE:
        formation_dissolve(node);
        break;
    case FORMATION_REPORT:
        (void)formation_describe(node->formation, node_now_ms(node), text, sizeof(text));
        log_notice("formation: %s", text);
        break;
    }
}

static void formation_timer_due(uv_timer_t *timer);

static void formation_feed(struct node *node, const struct formation_event *event)
{
    struct formation_effects effects;
    if (!node->formation || node->stopping)
        return;
    formation_step(node->formation, event, node_now_ms(node), &effects);
    for (unsigned i = 0; i < effects.count; i++)
        formation_perform(node, &effects.items[i]);
    uint64_t deadline = formation_deadline(node->formation), now = node_now_ms(node);
    if (deadline == FORMATION_NEVER)
        uv_timer_stop(&node->formation_timer);
    else
        uv_timer_start(&node->formation_timer, formation_timer_due, deadline > now ? deadline - now : 1, 0);
}

static void formation_timer_due(uv_timer_t *timer)
{
    struct node *node = container_of(timer, struct node, formation_timer);
    struct formation_event event = {.type = FORMATION_TICK};
    formation_feed(node, &event);
}

/* --- discovery ------------------------------------------------------------------------------------------------------- */

static struct formation_event discovered(enum formation_event_type type, const struct discovery_peer *peer)
{
    struct formation_event event = {.type = type};
    event.where.uuid = peer->uuid;
    event.where.port = peer->port;
    (void)snprintf(event.where.address, sizeof(event.where.address), "%s", peer->address);
    event.facts = (struct formation_facts){.formed = peer->formed, .cluster = peer->cluster, .node_count = peer->node_count};
    return event;
}

static void discovery_peer_seen(const struct discovery_peer *peer, void *context)
{
    struct formation_event event = discovered(FORMATION_PEER_SEEN, peer);
    formation_feed(context, &event);
}

static void discovery_peer_gone(const struct discovery_peer *peer, void *context)
{
    struct formation_event event = discovered(FORMATION_PEER_GONE, peer);
    formation_feed(context, &event);
}

/* --- life ------------------------------------------------------------------------------------------------------------- */

int node_members_start(struct node *node, struct error *error)
{
    uint8_t psk[KEY_PSK_BYTES];
    struct discovery_options discover = {.helper = node->options.discovery_path, .interface = node->options.interface,
                                         .seeds = node->options.seeds, .seed_port = PEER_PORT, .on_peer = discovery_peer_seen,
                                         .on_gone = discovery_peer_gone, .context = node};
    int result = key_peer_psk(&node->key, psk);
    if (result == 0)
        result = key_discovery_tag(&node->key, discover.tag);
    if (result < 0)
        return error_set(error, result, "keys could not be derived from the cluster key");
    list_load(node);
    struct peer_mesh_config mesh = {.loop = node->loop, .channel = PEER_CHANNEL_CONTROL, .psk = psk, .hello = self_hello(node),
                                    .callbacks = &control_callbacks, .context = node};
    result = peer_mesh_new(&mesh, &node->control, error);
    if (result < 0)
        return result;
    struct peer_mesh *meshes[PEER_CHANNEL_COUNT] = {node->control, engine_mesh(node->engine)};
    result = peer_listener_new(node->loop, node->address, PEER_PORT, meshes, &node->listener, error);
    if (result < 0)
        return result;
    node->formation = formation_new(&node->self.uuid, NULL);
    if (!node->formation)
        return error_set(error, -ENOMEM, "out of memory");
    uv_timer_init(node->loop, &node->formation_timer);
    discover.self = self_announcement(node);
    result = discovery_start(node->loop, &discover, &node->discovery, error);
    if (result < 0)
        return result;
    struct peer_node peers[COROSYNC_NODES_MAX];
    if (node->list_count && peer_mesh_set_peers(node->control, list_peers(node, peers), node->list_count) < 0)
        return error_set(error, -ENOMEM, "out of memory");
    struct formation_event event = {.type = FORMATION_START, .facts = self_facts(node)};
    formation_feed(node, &event);
    return 0;
}

static void part_closed(void *context)
{
    node_part_closed(context);
}

/* Close what is open; each part reports to part_closed. */
void node_members_stop(struct node *node)
{
    node->closing++; /* ourselves, until all have been told */
    if (node->discovery) {
        node->closing++;
        discovery_close(node->discovery, part_closed, node);
        node->discovery = NULL;
    }
    if (node->listener) {
        node->closing++;
        peer_listener_close(node->listener, part_closed, node);
        node->listener = NULL;
    }
    if (node->group) {
        node->closing++;
        cpg_group_close(node->group, part_closed, node);
        node->group = NULL;
    }
    if (node->corosync) {
        node->closing++;
        corosync_process_close(node->corosync, false, part_closed, node);
        node->corosync = NULL;
    }
    if (node->formation) {
        uv_timer_stop(&node->formation_timer);
        uv_close((uv_handle_t *)&node->formation_timer, NULL);
        formation_free(node->formation);
        node->formation = NULL;
    }
    node_api_stop(node);
    node_plan_stop(node);
    part_closed(node);
}
