/* How this node comes to belong: performs the effects of agent/core/formation and feeds it what discovery, the control
 * links and our own proposals tell. Forming: identity and log durable, corosync, then ClusterInit, NodeAdd and NodeVoter,
 * which wait in the log until the first view. */
#define LOG_MODULE "formation"
#include "agent/node/node.h"

#include "director/base/log.h"
#include <errno.h>
#include <string.h>

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
    IGNORE_RESULT(peer_mesh_set_seeds(node->control, seeds, node->dialled_count));
}

static void form_propose(struct node *node);

static void form_failed(struct node *node, const struct error *error)
{
    log_error("form: %s", error->message);
    node->forming = false;
    struct formation_event event = {.type = FORMATION_FORMED, .status = error->code ? error->code : -EIO};
    node_formation_feed(node, &event);
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
    struct formation_event event = {.type = FORMATION_FORMED, .facts = node_facts(node)};
    node_formation_feed(node, &event);
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
    if (node_identity_begin(node, true, &error) < 0) {
        node->self.cluster = (struct uuid){0};
        node->self.nodeid = 0;
        form_failed(node, &error);
        return;
    }
    node_members_run(node);
    form_propose(node);
}

void node_formation_resume(struct node *node)
{
    if (node->forming || node->own_busy || node->stopping)
        return;
    log_notice("form: going on where an earlier start was interrupted");
    node->forming = true;
    form_propose(node);
}

static void form_propose(struct node *node)
{
    struct error error = {0};
    char text[UUID_TEXT_SIZE], name[32];
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
    (void)node_link_send(peer, PEER_JOIN, 0, &request.base);
}

static void formation_fetch(struct node *node, const struct formation_where *where)
{
    struct peer *peer = peer_mesh_find_uuid(node->control, &where->uuid);
    struct peer_header header = {.type = PEER_MEMBERS};
    if (peer)
        IGNORE_RESULT(peer_send(peer, &header, NULL, 0));
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
    engine_set_authority(node->engine, false);
    node_log_stop(node);
    tree_free(node->tree);
    node->tree = tree_new();
    event.status = node_identity_begin(node, false, &error);
    if (event.status < 0)
        log_error("dissolve: %s", error.message);
    IGNORE_RESULT(peer_mesh_set_peers(node->control, NULL, 0));
    IGNORE_RESULT(engine_set_peers(node->engine, NULL, 0));
    node_plan_reset(node);
    node_announce(node);
    node_formation_feed(node, &event);
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
    if (!node_pristine(node)) { /* F2, by the current account */
        struct formation_event event = {.type = FORMATION_DISSOLVED, .status = -EBUSY};
        node_formation_feed(node, &event);
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
        node_members_run(node); /* the list of a reply was taken over when it came; else it is the one loaded at start */
        break;
    case FORMATION_DISSOLVE:
        formation_dissolve(node);
        break;
    case FORMATION_REPORT:
        if (formation_state(node->formation) == FORMATION_REMOVED && !node->removed) {
            node->removed = true;
            node_members_withdraw(node);
        }
        (void)formation_describe(node->formation, node_now_ms(node), text, sizeof(text));
        log_notice("formation: %s", text);
        break;
    }
}

static void formation_timer_due(uv_timer_t *timer);

void node_formation_feed(struct node *node, const struct formation_event *event)
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
    node_formation_feed(node, &event);
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
    node_formation_feed(context, &event);
}

static void discovery_peer_gone(const struct discovery_peer *peer, void *context)
{
    struct formation_event event = discovered(FORMATION_PEER_GONE, peer);
    node_formation_feed(context, &event);
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
    node_list_load(node);
    struct peer_mesh_config mesh = {.loop = node->loop, .channel = PEER_CHANNEL_CONTROL, .psk = psk, .hello = node_hello(node),
                                    .callbacks = &node_link_callbacks, .context = node};
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
    discover.self = node_announcement(node);
    result = discovery_start(node->loop, &discover, &node->discovery, error);
    if (result < 0)
        return result;
    struct peer_node peers[COROSYNC_NODES_MAX];
    size_t count = node_list_peers(node, peers);
    if (count && peer_mesh_set_peers(node->control, peers, count) < 0)
        return error_set(error, -ENOMEM, "out of memory");
    struct formation_event event = {.type = FORMATION_START, .facts = node_facts(node)};
    node_formation_feed(node, &event);
    return 0;
}

static void part_closed(void *context)
{
    node_part_closed(context);
}

void node_members_withdraw(struct node *node)
{
    struct cpg_group *group = node->group;
    node->group = NULL;
    node->in_view = node->quorate = node->is_sequencer = node->current = false;
    node->member_count = 0;
    engine_set_authority(node->engine, false);
    if (group)
        cpg_group_close(group, NULL, NULL);
    if (node->removed && node->corosync) {
        struct corosync_process *corosync = node->corosync;
        node->corosync = NULL;
        corosync_process_close(corosync, false, NULL, NULL);
    }
}

void node_members_expelled(struct node *node)
{
    struct formation_event event = {.type = FORMATION_EXPELLED};
    node_formation_feed(node, &event);
}

/* Close what is open; each part reports to part_closed. */
void node_members_stop(struct node *node)
{
    node->parts_closing = true;
    node->closing++; /* ourselves, until all have been told */
    node_log_stop(node); /* first: nothing is applied, and nothing asked of the engine, from here on */
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
