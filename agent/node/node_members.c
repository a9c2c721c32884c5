/* Membership of this node, once it belongs: what it says of itself, the node list, corosync and the CPG group.
 * How it comes to belong is in node_formation.c, what goes over the control links in node_links.c.
 *
 * A change of the node list is two-phase (scenario 35): every member that applied it writes its corosync.conf and says so in
 * the group (IDENT); the sequencer reloads corosync when all in the view have, or after NODE_STAGE_MS; a member that stages
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

/* --- facts about ourselves ---------------------------------------------------------------------------------------- */

bool node_pristine(const struct node *node)
{
    return uuid_is_zero(&node->admitting) && tree_node_count(node->tree) <= 1 && tree_volume_count(node->tree) == 0 &&
           tree_target_count(node->tree) == 0 && list_empty(&node->calls);
}

struct formation_facts node_facts(const struct node *node)
{
    struct formation_facts facts = {.formed = !uuid_is_zero(&node->self.cluster)};
    if (!facts.formed)
        return facts;
    size_t nodes = tree_node_count(node->tree);
    facts.cluster = node->self.cluster;
    facts.node_count = (uint32_t)MAX(nodes, MAX(node->list_count, (size_t)1));
    facts.pristine = facts.node_count <= 1 && node_pristine(node);
    facts.list_version = node->list_version;
    return facts;
}

struct discovery_peer node_announcement(const struct node *node)
{
    struct formation_facts facts = node_facts(node);
    struct discovery_peer self = {.uuid = node->self.uuid, .port = PEER_PORT, .boot = node->boot, .formed = facts.formed,
                                  .cluster = facts.cluster, .node_count = facts.node_count};
    (void)snprintf(self.address, sizeof(self.address), "%s", node->address);
    return self;
}

struct peer_hello node_hello(const struct node *node)
{
    struct formation_facts facts = node_facts(node);
    struct peer_hello hello = {.cluster = facts.cluster, .node = node->self.uuid, .nodeid = node->self.nodeid,
                               .boot = node->boot, .node_count = facts.node_count, .pristine = facts.pristine, .quorate = node->quorate};
    (void)snprintf(hello.name, sizeof(hello.name), "%s", node->options.name);
    (void)snprintf(hello.address, sizeof(hello.address), "%s:%u", node->address, PEER_PORT);
    (void)snprintf(hello.software, sizeof(hello.software), "%s", DIRECTOR_VERSION);
    return hello;
}

void node_announce(struct node *node)
{
    struct discovery_peer self = node_announcement(node);
    struct peer_hello hello = node_hello(node);
    if (node->discovery)
        discovery_update(node->discovery, &self);
    if (node->control)
        peer_mesh_set_hello(node->control, &hello);
    engine_set_hello(node->engine, &hello);
    struct formation_event event = {.type = FORMATION_FACTS, .facts = node_facts(node),
                                    .status = node->quorate && node->current ? 0 : -EAGAIN};
    node_formation_feed(node, &event);
}

void node_members_say_quorate(struct node *node)
{
    struct peer_hello hello = node_hello(node);
    if (node->control && hello.quorate != node->quorate_said)
        peer_mesh_set_hello(node->control, &hello);
    node->quorate_said = hello.quorate;
}

void node_members_not_pristine(struct node *node)
{
    node_announce(node);
}

/* --- the node list: in memory, in the store (key "nodes"), in corosync.conf, in the meshes ------------------------- */

/* Our own address is the one we have, whatever the others know of it yet: with another one corosync would not start, and
 * the others could not be told. */
static void list_own_address(struct node *node)
{
    for (size_t i = 0; i < node->list_count; i++)
        if (uuid_equal(&node->list_uuid[i], &node->self.uuid))
            (void)snprintf(node->list[i].address, sizeof(node->list[i].address), "%s", node->address);
}

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
    node->list_profile = tree_get_cluster(node->tree)->profile;
    list_own_address(node);
}

void node_list_take(struct node *node, Director__NodeInfo **nodes, size_t count, uint64_t version, Director__ClusterProfile profile)
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
    node->list_profile = tree_profile_timings(profile) ? profile : DIRECTOR__CLUSTER_PROFILE__PROFILE_FAST;
    list_own_address(node);
}

/* The list as a MembersReply; the arrays live in *infos and *pointers, the caller's. */
void node_list_message(struct node *node, Director__MembersReply *message, Director__NodeInfo *infos,
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
    message->profile = node->list_profile;
    message->pristine = node_facts(node).pristine;
}

static int list_save(struct node *node, struct error *error)
{
    Director__MembersReply message;
    Director__NodeInfo infos[COROSYNC_NODES_MAX], *pointers[COROSYNC_NODES_MAX];
    uint8_t bytes[COROSYNC_NODES_MAX * 256];
    node_list_message(node, &message, infos, pointers);
    size_t size = director__members_reply__get_packed_size(&message);
    ASSERT(size <= sizeof(bytes));
    director__members_reply__pack(&message, bytes);
    int result = log_store_begin(node->store, error);
    if (result < 0)
        return result;
    (void)log_store_put(node->store, "nodes", bytes, size, error);
    return log_store_commit(node->store, error);
}

void node_list_load(struct node *node)
{
    uint8_t bytes[COROSYNC_NODES_MAX * 256];
    size_t size;
    struct error error;
    if (log_store_get(node->store, "nodes", bytes, sizeof(bytes), &size, &error) < 0 || size > sizeof(bytes))
        return;
    Director__MembersReply *message = director__members_reply__unpack(NULL, size, bytes);
    if (!message)
        return;
    node_list_take(node, message->nodes, message->n_nodes, message->node_list_version, message->profile);
    director__members_reply__free_unpacked(message, NULL);
}

size_t node_list_peers(const struct node *node, struct peer_node peers[static COROSYNC_NODES_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < node->list_count; i++) {
        struct peer_node *peer = &peers[count];
        if (!node->list[i].address[0])
            continue;
        peer->uuid = node->list_uuid[i];
        peer->nodeid = (uint16_t)node->list[i].nodeid;
        (void)snprintf(peer->address, sizeof(peer->address), "%.60s:%u", node->list[i].address, PEER_PORT);
        count++;
    }
    return count;
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
    struct corosync_node ring[COROSYNC_NODES_MAX];
    size_t ring_count = 0;
    for (size_t i = 0; i < node->list_count; i++)
        if (node->list[i].address[0]) /* others are nowhere */
            ring[ring_count++] = node->list[i];
    struct corosync_config config = {.cluster = node->self.cluster, .nodes = ring, .node_count = ring_count,
                                     .keyfile = keyfile, .state_dir = state, .logfile = logfile,
                                     .token_ms = tree_profile_timings(node->list_profile)->token_ms};
    int result = list_save(node, error);
    if (result == 0)
        result = corosync_key_write(&node->key, &node->self.cluster, keyfile, error);
    if (result >= 0)
        result = corosync_config_write(&config, path, error);
    if (result < 0)
        return result;
    size_t count = node_list_peers(node, peers);
    result = peer_mesh_set_peers(node->control, peers, count);
    if (result < 0)
        return error_set(error, result, "out of memory for the node list");
    return engine_set_peers(node->engine, peers, count) < 0
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

/* --- partial cuts: see agent/core/ring_rest.h ------------------------------------------------------------------------- */

static void rest_view(struct node *node)
{
    struct rsm_status status;
    uint16_t members[CPG_VIEW_MEMBERS_MAX];
    size_t voters = 0;
    rsm_get_status(node->rsm, &status);
    for (size_t i = 0; i < node->member_count; i++)
        members[i] = node->members[i].nodeid;
    for (size_t i = 0; i < status.voter_count; i++)
        voters += node_members_find(node, status.voters[i]) != NULL;
    ring_rest_view(&node->rest, members, node->member_count, voters > status.voter_count / 2, node_now_ms(node));
}

/* What the links say, and the names of those that are not heard. */
static struct ring_rest_heard rest_heard(struct node *node, char *silent, size_t silent_size)
{
    struct ring_rest_heard heard = {.everybody = true};
    uint64_t now_us = peer_clock_us();
    size_t used = 0;
    silent[0] = '\0';
    for (size_t i = 0; i < tree_node_count(node->tree); i++) {
        const struct tree_node *other = tree_node_at(node->tree, i);
        uint64_t heard_us = peer_mesh_last_heard_us(node->control, other->nodeid);
        if (other->nodeid == node->self.nodeid)
            continue;
        if (!heard_us || now_us - heard_us >= NODE_HEARD_MS * 1000ull) {
            heard.everybody = false;
            if (used < silent_size)
                used += (size_t)snprintf(silent + used, silent_size - used, "%s%s", used ? ", " : "", other->name);
            continue;
        }
        struct peer *peer = peer_mesh_find(node->control, other->nodeid);
        heard.outside |= !node_members_find(node, other->nodeid);
        heard.quorate |= peer && peer_hello(peer)->quorate;
    }
    return heard;
}

void node_members_rest(struct node *node)
{
    struct error error = {0};
    char silent[100];
    if (!node->corosync || !node->group || node->removed || node->stopping)
        return;
    struct ring_rest_heard heard = rest_heard(node, silent, sizeof(silent));
    /* Resting, or on the way back from it, while others serve. */
    bool apart = heard.quorate && !node->in_view && (node->rest.resting || node->apart);
    if (apart != node->apart)
        engine_set_apart(node->engine, apart);
    node->apart = apart;
    switch (ring_rest_step(&node->rest, node->self.nodeid, &heard, node_now_ms(node))) {
    case RING_REST_NOTHING:
        break;
    case RING_REST_STOP:
        (void)snprintf(node->rest_words, sizeof(node->rest_words), "this node rests for the sake of the others: it hears some of "
                       "them but not all (%s); look at the network", silent[0] ? silent : "all, by other ways");
        log_warning("corosync: running -> resting, because %s", node->rest_words);
        corosync_process_stop(node->corosync, NULL, NULL);
        break;
    case RING_REST_START:
        log_notice("corosync: resting -> running, because %s", heard.everybody  ? "every node is heard again"
                                                                : heard.quorate ? "it is time to try"
                                                                                : "the others are not quorate without this node");
        node->rest_words[0] = '\0';
        if (corosync_process_start(node->corosync, &error) < 0)
            log_error("corosync: %s", error.message);
        break;
    }
}

/* --- the group -------------------------------------------------------------------------------------------------------- */

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
        /* Only the end of a process proves that it answers nothing any more (I7); a lost node may live on, cut off. One that
         * merely gave up its connection to corosync serves nothing since 2 s, longer than any lease (cpg_group.c). */
        if (known && gone->reason == CPG_VIEW_PROCESS_DOWN)
            engine_node_dead(node->engine, member->nodeid, member->boot);
        if (member && member->pid == gone->member.pid)
            member->pid = 0; /* who comes back with the same pid is another process */
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
    rest_view(node);
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
    struct node *node = context;
    (void)snprintf(node->corosync_words, sizeof(node->corosync_words), "%s", state == COROSYNC_PROCESS_BACKOFF ? words : "");
    if (state == COROSYNC_PROCESS_BACKOFF)
        log_warning("corosync: %s", words);
    else
        log_info("corosync: %s", words);
}

static void corosync_reloaded(int status, void *context)
{
    struct node *node = context;
    if (status >= 0)
        return;
    log_warning("corosync: the new node list could not be loaded: %s", strerror(-status));
    node->list_reloaded = 0; /* the sequencer tells it again */
    node->reload_retry_ms = node_now_ms(node) + NODE_STAGE_MS;
}

/* Be a member: corosync and the group run, with the list as it is now. */
void node_members_run(struct node *node)
{
    struct error error = {0};
    char config[PATH_MAX], identity[UUID_TEXT_SIZE + 8];
    if (node->log_failed || node->removed)
        return;
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
    } else if (result == 0 && !node->rest.resting) {
        corosync_process_reload(node->corosync, corosync_reloaded, node);
    }
    if (result == 0 && !node->group) {
        result = cpg_group_new(node->loop, NODE_GROUP_NAME, &group_callbacks, node, &node->group);
        if (result < 0)
            (void)error_set(&error, result, "the group cannot be joined: %s", strerror(-result));
    }
    engine_set_self(node->engine, node->self.nodeid);
    node_announce(node);
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
        node_links_push_list(node);
    }
    node_announce(node);
    if (!self && node->current && !node->forming && tree_node_count(node->tree) && !node->removed)
        node_members_expelled(node);
}

void node_members_tick(struct node *node)
{
    if (!node->is_sequencer || !node->corosync || node->list_reloaded >= node->list_version ||
        node_now_ms(node) < node->reload_retry_ms)
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
