/* What goes over the control links: introductions for formation, requests to be let in, node lists, live figures.
 *
 * Admission: JOIN -> NodeAdd committed and its list staged here -> JOIN_REPLY {nodeid, list}. One newcomer at a time; the
 * others are told to ask again. */
#define LOG_MODULE "links"
#include "agent/node/node.h"

#include "director/base/log.h"
#include <errno.h>
#include <string.h>

/* --- control links --------------------------------------------------------------------------------------------------- */

static struct formation_facts hello_facts(const struct peer_hello *hello)
{
    return (struct formation_facts){.formed = !uuid_is_zero(&hello->cluster), .pristine = hello->pristine,
                                    .cluster = hello->cluster, .node_count = hello->node_count};
}

struct formation_where node_hello_where(const struct peer_hello *hello)
{
    struct formation_where where = {.uuid = hello->node, .port = PEER_PORT};
    const char *colon = strrchr(hello->address, ':');
    (void)snprintf(where.address, sizeof(where.address), "%.*s",
                   colon ? (int)MIN((size_t)(colon - hello->address), sizeof(where.address) - 1) : 0, hello->address);
    return where;
}

/* Tell one peer the node list, so that none keeps an old one: a ring whose members disagree forms anew for ever. */
static void list_push(struct node *node, struct peer *peer)
{
    Director__MembersReply message;
    Director__NodeInfo infos[COROSYNC_NODES_MAX], *pointers[COROSYNC_NODES_MAX];
    if (!node->list_version || !uuid_equal(&peer_hello(peer)->cluster, &node->self.cluster))
        return;
    node_list_message(node, &message, infos, pointers);
    (void)node_link_send(peer, PEER_MEMBERS_REPLY, 0, &message.base);
}

void node_links_push_list(struct node *node)
{
    for (struct peer *peer = peer_mesh_next(node->control, NULL); peer; peer = peer_mesh_next(node->control, peer))
        list_push(node, peer);
}

static void control_up(struct peer *peer, const struct peer_hello *hello, void *context)
{
    struct node *node = context;
    struct formation_event event = {.type = FORMATION_HELLO, .where = node_hello_where(hello), .facts = hello_facts(hello)};
    log_info("link: %s (node %u) is up", hello->name, peer_nodeid(peer));
    if (node->stopping)
        return;
    list_push(node, peer);
    node_formation_feed(node, &event);
    node_plan_wake(node);
}

static void control_changed(struct peer *peer, const struct peer_hello *hello, void *context)
{
    struct node *node = context;
    struct formation_event event = {.type = FORMATION_HELLO, .where = node_hello_where(hello), .facts = hello_facts(hello)};
    if (node->stopping)
        return;
    list_push(node, peer);
    node_formation_feed(node, &event);
    node_plan_wake(node);
}

static void control_down(struct peer *peer, int reason, const char *words, void *context)
{
    struct node *node = context;
    struct formation_event event = {.type = FORMATION_LINK_DOWN, .where = node_hello_where(peer_hello(peer))};
    (void)reason;
    log_info("link: %s (node %u) is down: %s", peer_hello(peer)->name, peer_nodeid(peer), words);
    node_formation_feed(node, &event);
    node_plan_wake(node);
}

static void control_error(int code, const char *words, void *context)
{
    (void)code;
    (void)context;
    log_warning("link: %s", words);
}

int node_link_send(struct peer *peer, uint16_t type, uint64_t request, const ProtobufCMessage *message)
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
    node_list_message(node, &members, infos, pointers);
    reply.code = code;
    reply.message = (char *)words;
    reply.cluster_uuid = members.cluster_uuid;
    if (code == 0) {
        reply.nodeid = nodeid;
        reply.n_nodes = members.n_nodes;
        reply.nodes = members.nodes;
        reply.node_list_version = members.node_list_version;
        reply.profile = members.profile;
    }
    if (node_link_send(peer, PEER_JOIN_REPLY, 0, &reply.base) < 0)
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
    node_announce(node);
}

/* One that was let in a moment ago is not a voter yet: a list that changes under a corosync that starts stops the ring. */
static bool someone_arrives(struct node *node)
{
    if (node_now_ms(node) - node->list_changed_ms > NODE_ARRIVE_MS)
        return false;
    for (size_t i = 0; i < tree_node_count(node->tree); i++)
        if (!tree_node_at(node->tree, i)->voter)
            return true;
    return false;
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
    if (!formation_may_admit(node->formation) || !node->quorate || !node->current || !uuid_is_zero(&node->admitting) ||
        someone_arrives(node)) {
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
    struct formation_event event = {.type = FORMATION_JOIN_REPLY, .where = node_hello_where(peer_hello(peer))};
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
            node_list_take(node, reply->nodes, reply->n_nodes, reply->node_list_version, reply->profile);
            event.status = node_identity_begin(node, false, &error);
            if (event.status < 0) {
                log_error("join: %s", error.message);
                node->self.cluster = (struct uuid){0};
                node->self.nodeid = 0;
            } else {
                log_notice("join: let in by %s as node %u", peer_hello(peer)->name, node->self.nodeid);
            }
        }
        event.facts = node_facts(node);
    } else if (reply->code != -EAGAIN && reply->code < 0) {
        log_warning("join: %s refuses: %s", peer_hello(peer)->name, reply->message);
    }
    director__join_reply__free_unpacked(reply, NULL);
    node_formation_feed(node, &event);
}

static void members_asked(struct node *node, struct peer *peer)
{
    Director__MembersReply message;
    Director__NodeInfo infos[COROSYNC_NODES_MAX], *pointers[COROSYNC_NODES_MAX];
    node_list_message(node, &message, infos, pointers);
    (void)node_link_send(peer, PEER_MEMBERS_REPLY, 0, &message.base);
}

static void members_answered(struct node *node, struct peer *peer, const void *bytes, size_t size)
{
    Director__MembersReply *reply = director__members_reply__unpack(NULL, size, bytes);
    struct formation_event event = {.type = FORMATION_MEMBERS_REPLY, .where = node_hello_where(peer_hello(peer))};
    bool newer = false, expelled = false;
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
            reply->node_list_version > node->list_version) {
            node_list_take(node, reply->nodes, reply->n_nodes, reply->node_list_version, reply->profile);
            newer = true;
        }
        expelled = uuid_equal(&event.facts.cluster, &node->self.cluster) && !event.listed && reply->n_nodes &&
                   reply->node_list_version > node->list_version;
    }
    director__members_reply__free_unpacked(reply, NULL);
    node_formation_feed(node, &event);
    if (expelled)
        node_members_expelled(node);
    if (newer && formation_state(node->formation) == FORMATION_MEMBER)
        node_members_run(node);
}

static void control_frame(struct peer *peer, const struct peer_header *header, struct peer_buffer *payload, void *context)
{
    struct node *node = context;
    const void *bytes = payload ? payload->data : (const void *)"";
    size_t size = payload ? payload->size : 0;
    if (node->stopping)
        return; /* its parts are being closed */
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
        node_live_frame(node, peer_nodeid(peer), bytes, size);
        break;
    default:
        peer_close(peer, "a frame of a type this version does not know");
    }
}

const struct peer_mesh_callbacks node_link_callbacks = {
    .up = control_up, .changed = control_changed, .down = control_down, .frame = control_frame, .error = control_error};
