/* One node of the cluster, control side: what directord's control thread holds, shared by the files of this folder.
 *
 *   node.c         life: open state, start, stop
 *   node_log.c     drives the replicated log (agent/core/rsm) with CPG and the log store; applies to the tree
 *   node_members.c the node list, corosync, the CPG group
 *   node_links.c   frames of the control links; admission of newcomers
 *   node_formation.c  formation, discovery
 *   node_plan.c    what follows from the tree: engine configuration, failover, voters, this node's own entries
 *   node_live.c    live figures
 *   node_task.c    verify, scrub, moves of replicas, growing
 *   node_api.c     calls of shells and programs
 *   engine.c       the I/O thread: target, mirrors, data links
 *
 * Everything here belongs to the control thread. */
#ifndef DIRECTOR_AGENT_NODE_NODE_H
#define DIRECTOR_AGENT_NODE_NODE_H

#include "agent/api/server.h"
#include "agent/api/view.h"
#include "agent/core/failover.h"
#include "agent/core/formation.h"
#include "agent/core/ring_rest.h"
#include "agent/core/rsm.h"
#include "agent/core/tree.h"
#include "agent/io/corosync_config.h"
#include "agent/io/corosync_process.h"
#include "agent/io/cpg_group.h"
#include "agent/io/discovery.h"
#include "agent/io/key.h"
#include "agent/io/log_store.h"
#include "agent/io/peer_listener.h"
#include "agent/io/peer_mesh.h"
#include "agent/node/engine.h"
#include "agent/node/options.h"
#include "director/base/list.h"
#include "plugins/loader/loader.h"

#define NODE_GROUP_NAME      "director"
#define NODE_HEARD_MS        1000u /* a peer heard on its control link within this time is heard (ring_rest.h) */
#define NODE_GRACE_MS        2500u /* one that just came into the view is, without having been heard */
#define NODE_PLAN_MS         100u  /* the planner looks at least so often */
#define NODE_STAGE_MS        1000u /* corosync is reloaded so long after a new list even if a member has not staged it */
#define NODE_ARRIVE_MS       5000u /* a newcomer is waited for so long before the next one is let in */
#define NODE_QUORUM_WAIT_MS  3000u /* a change waits so long for a quorum before it is refused */
#define NODE_CHANGE_WAIT_MS  15000u /* and so long for its commit */
#define NODE_CHECKS_MAX      64u /* volumes that one node verifies or scrubs at once; more wait */
#define NODE_STOP_MS         15000u /* a stop that is not done by then ends the process as a crash would */
#define NODE_VOTE_REST_MS    20000u /* a vote that was taken is not given back for so long: its node is being removed */

/* What this node is, durable under the key "identity" of the log store. */
struct node_identity {
    struct uuid uuid;
    struct uuid cluster; /* zero: not formed */
    uint16_t nodeid;     /* 0: none yet */
};

/* One member of the CPG view. */
struct node_member {
    uint16_t nodeid;
    uint32_t pid;
    uint64_t boot;      /* as it announced in the group; 0: not yet */
    uint64_t since_ms;
    uint64_t staged;    /* node list version its corosync.conf has */
};

/* A proposal of this node under way: done once, with the outcome of its APPLY, or a negative errno and words. */
struct node_proposal;
typedef void node_proposal_done(struct node_proposal *proposal, int status, const struct tree_result *result,
                                const struct error *error);
struct node_proposal {
    struct list link;
    uint64_t ticket;
    uint64_t deadline_ms; /* 0: none */
    node_proposal_done *done;
    void *context;
};

/* A barrier of this node under way. */
struct node_barrier;
typedef void node_barrier_done(struct node_barrier *barrier, int status);
struct node_barrier {
    struct list link;
    uint64_t ticket;
    node_barrier_done *done;
};

/* What is known of a peer's owned volumes: see PEER_LIVE. */
struct node_live {
    struct list link;
    uint64_t volume;
    uint16_t nodeid;
    uint64_t heard_ms;
    struct api_live_volume figures;
    bool known; /* the owner's figures above are any */
    struct {
        uint16_t nodeid; /* 0: nothing */
        uint64_t heard_ms;
        struct api_live_replica figures;
    } own[TREE_REPLICAS_MAX]; /* what nodes say of their own replicas, by no order */
};

/* A verify or scrub that this node's engine was told to run. */
struct node_check {
    uint64_t task; /* 0: a free slot */
    uint64_t volume;
    uint64_t committed_ms;
    struct api_live_check figures;
};

struct node {
    uv_loop_t *loop;
    struct options options;
    struct cluster_key key;
    struct node_identity self;
    char address[TREE_ADDRESS_SIZE]; /* IPv4 literal of our interface */
    uint64_t boot;
    struct log_store *store;
    struct plugin_loader *plugins;
    bool stopping;

    /* node_log.c */
    struct rsm *rsm;
    struct rsm_effects effects;
    size_t effect_next; /* first effect not performed */
    bool performing;
    bool log_failed;    /* storage failed: this node is out until restarted */
    struct tree *tree;
    uint64_t next_ticket;
    struct list proposals; /* struct node_proposal, by ticket */
    struct list barriers;
    bool quorate;
    bool is_sequencer;
    uint16_t sequencer;
    bool leaving; /* LEAVE was fed to the log */
    bool left;    /* and done: the parts may be closed, at the next tick */
    bool parts_closing;
    uint64_t stop_ms; /* when the stop began */
    bool current; /* a barrier completed since the last loss of the view: the tree is not of the past */
    struct node_barrier current_barrier;
    bool current_barrier_busy;
    uv_timer_t tick;

    /* node_members.c */
    struct formation *formation;
    uv_timer_t formation_timer;
    uint8_t formation_depth;
    struct discovery *discovery;
    struct peer_mesh *control;
    struct peer_listener *listener;
    struct corosync_process *corosync;
    struct cpg_group *group;
    bool in_view;
    struct ring_rest rest;
    bool apart; /* as the engine was told */
    bool quorate_said; /* in our hello */
    char rest_words[160]; /* why our corosync rests; empty: it does not */
    struct node_member members[CPG_VIEW_MEMBERS_MAX];
    size_t member_count;
    char dialled[FORMATION_PEERS_MAX][PEER_ADDRESS_SIZE];
    size_t dialled_count;
    struct corosync_node list[COROSYNC_NODES_MAX]; /* the list corosync.conf was last written from */
    struct uuid list_uuid[COROSYNC_NODES_MAX];
    size_t list_count;
    bool removed;            /* taken out of the cluster by its operator: nothing runs until the state is cleared */
    char corosync_words[160]; /* why it does not run; empty: it does */
    Director__ClusterProfile list_profile; /* whose timings it has */
    uint64_t list_version;
    uint64_t list_changed_ms; /* when the sequencer first saw this version, for NODE_STAGE_MS */
    uint64_t list_reloaded;   /* version that corosync was last told to reload by us */
    uint64_t reload_retry_ms; /* it failed: not again before */
    bool forming;
    struct uuid admitting; /* newcomer whose NodeAdd is under way; zero: none */
    struct node_proposal admit_proposal;

    /* node_plan.c */
    struct failover *failover;
    struct engine *engine;
    uint64_t planned_ms;
    unsigned steps_under_way; /* proposals of the planner */
    bool plan_wanted;
    uint64_t address_ms; /* when another node's new address was proposed last */
    bool own_busy; /* a proposal about this node's own entries is under way */
    struct node_proposal own_proposal;
    uint64_t own_retry_ms;
    bool voter_busy;
    struct {
        uint16_t nodeid;
        uint64_t taken_ms;
    } vote_taken[TREE_NODES_MAX]; /* by a removal, lately: see NODE_VOTE_REST_MS */
    struct node_proposal voter_proposal;
    uint64_t store_capacity_bytes;
    struct target_port ports[TARGET_PORTS_MAX]; /* as the engine was told */
    unsigned port_count;
    bool swept; /* files of volumes that went while we were away are being removed */
    uint64_t *pushed; /* volumes that the engine was told of */
    size_t pushed_count, pushed_capacity;
    struct list live; /* struct node_live */
    struct node_check checks[NODE_CHECKS_MAX]; /* that the engine runs for us */
    bool task_busy;
    struct node_proposal task_proposal;
    uint64_t task_retry_ms;
    uint64_t live_sent_ms;

    /* node_api.c */
    struct api_server *api;
    struct list calls; /* calls that wait: struct pending_call */

    /* end of life */
    void (*stopped)(struct node *node);
    unsigned closing; /* parts that are still open */
};

/* Monotonic milliseconds, the clock of all cores here. */
static inline uint64_t node_now_ms(const struct node *node)
{
    (void)node;
    return uv_hrtime() / 1000000;
}

/* node.c: read key, state and identity, open everything. On error words are logged. */
MUST_CHECK int node_start(struct node *node, uv_loop_t *loop, const struct options *options, struct error *error);
/* Leave the cluster's view gracefully, close everything, then stopped(node). */
void node_stop(struct node *node, void (*stopped)(struct node *node));
MUST_CHECK int node_identity_save(struct node *node, struct error *error);
/* Begin another life, all or nothing: an empty log (bootstrap: that of the first node of a cluster), no node list, and the
 * identity as it is in memory. */
MUST_CHECK int node_identity_begin(struct node *node, bool bootstrap, struct error *error);
/* While stopping: one part that was open is closed. */
void node_part_closed(struct node *node);

/* node_log.c */
MUST_CHECK int node_log_start(struct node *node, struct error *error);
/* Put what the first node of a cluster starts with into the open transaction; its commit tells how it went. */
void node_log_bootstrap(struct node *node, struct error *error);
/* Hand the sequencer's role over; node->left says when that is done. */
void node_log_leave(struct node *node);
/* Forget the log; what was proposed and not answered ends with -ETIMEDOUT (its outcome is unknown). Not from inside an effect. */
void node_log_stop(struct node *node);
void node_log_view(struct node *node, const struct cpg_view *view); /* NULL: cut off */
void node_log_message(struct node *node, uint16_t from, const void *bytes, size_t size);
void node_log_tick(struct node *node);
/* Propose a command; its origin fields are filled here. proposal stays the caller's until done. 0 (done follows) or
 * negative errno with words (done does not follow). wait_ms 0: for ever. */
MUST_CHECK int node_log_propose(struct node *node, Director__Command *command, enum rsm_change change, uint16_t change_nodeid,
                                uint32_t wait_ms, struct node_proposal *proposal, struct error *error);
/* Ask for a moment at which the tree holds all that was committed when it was asked. */
MUST_CHECK int node_log_barrier(struct node *node, struct node_barrier *barrier);

/* node_members.c */
MUST_CHECK int node_members_start(struct node *node, struct error *error);
void node_members_stop(struct node *node);
/* This node orders, votes and serves no more, but lives: leave the group, so that the others take over at once. Removed:
 * corosync ends too. */
void node_members_withdraw(struct node *node);
/* Committed, or said by a member with a newer node list: we are in the cluster no longer. */
void node_members_expelled(struct node *node);
/* The tree's nodes changed, or volumes came to be: tell formation, discovery, links, corosync. */
void node_members_changed(struct node *node);
void node_members_tick(struct node *node);
/* Whether we are quorate changed: tell the peers. */
void node_members_say_quorate(struct node *node);
/* Look whether our corosync should rest, or has rested enough; at each tick. */
void node_members_rest(struct node *node);
struct node_member *node_members_find(struct node *node, uint16_t nodeid);
/* Before a command is proposed that ends our being pristine (F2 of formation.h). */
void node_members_not_pristine(struct node *node);
void node_members_multicast_log(struct node *node, const void *bytes, size_t size);

/* What this node says of itself, to formation, discovery and peers. announce tells them all. */
bool node_pristine(const struct node *node);
struct formation_facts node_facts(const struct node *node);
struct discovery_peer node_announcement(const struct node *node);
struct peer_hello node_hello(const struct node *node);
void node_announce(struct node *node);
/* The node list: taken from a peer, as a message (arrays are the caller's, COROSYNC_NODES_MAX long), from disk, as peers. */
void node_list_take(struct node *node, Director__NodeInfo **nodes, size_t count, uint64_t version, Director__ClusterProfile profile);
void node_list_message(struct node *node, Director__MembersReply *message, Director__NodeInfo *infos,
                       Director__NodeInfo **pointers);
void node_list_load(struct node *node);
size_t node_list_peers(const struct node *node, struct peer_node peers[static COROSYNC_NODES_MAX]); /* those with an address */
/* Be a member: corosync and the group run, with the list as it is now. */
void node_members_run(struct node *node);

/* node_links.c */
extern const struct peer_mesh_callbacks node_link_callbacks;
/* Send the node list to all peers of our cluster. */
void node_links_push_list(struct node *node);
struct formation_where node_hello_where(const struct peer_hello *hello);
/* Pack and send a message over a control link. 0 or negative errno. */
int node_link_send(struct peer *peer, uint16_t type, uint64_t request, const ProtobufCMessage *message);

/* node_formation.c */
void node_formation_feed(struct node *node, const struct formation_event *event);
/* Our log is current and holds no cluster: its forming was interrupted between identity and commands. */
void node_formation_resume(struct node *node);

/* node_plan.c */
MUST_CHECK int node_plan_start(struct node *node, struct error *error);
void node_plan_stop(struct node *node);
/* Tell the engine of a volume as it is now. */
void node_plan_push(struct node *node, const struct tree_volume *volume);
/* A command was applied. */
void node_plan_applied(struct node *node, const Director__Command *command, const struct tree_result *result);
/* The whole tree was replaced, or the node became current: push everything. */
void node_plan_reset(struct node *node);
void node_plan_tick(struct node *node);
/* Roles, view or liveness changed: look now. */
void node_plan_wake(struct node *node);
/* This node's view of who is alive, in nodeid order. */
void node_plan_alive(struct node *node, struct failover_nodes *ret_alive);

/* node_live.c */
/* The engine's figures of a volume that this node owns (its callback); a change in kind is told to the peers at once. */
void node_live_figures(void *context, uint64_t volume, const struct api_live_volume *figures);
/* Tell the peers, at most so often; at each tick. */
void node_live_send(struct node *node);
/* PEER_LIVE came from a node. */
void node_live_frame(struct node *node, uint16_t from, const void *bytes, size_t size);
/* The engine's figures of this node's replica of a volume (its callback). */
void node_live_own(void *context, uint64_t volume, const struct api_live_replica *figures);
bool node_live_replica(struct node *node, uint64_t volume_id, uint16_t nodeid, struct api_live_replica *ret_figures);
/* What was heard of a volume last, however old. */
bool node_live_volume_last(struct node *node, uint64_t volume_id, struct api_live_volume *ret_figures);
/* What is known of a volume; false: nothing that is fresh. */
bool node_live_volume(struct node *node, uint64_t volume_id, struct api_live_volume *ret_figures);

/* node_task.c */
/* At each tick of the planner, when quorate. */
void node_task_tick(struct node *node);
/* The engine tells of a check that it runs; its words, of what it found, with names. */
void node_task_figures(struct node *node, uint64_t volume, const struct api_live_check *figures);
void node_task_words(struct node *node, uint64_t volume, struct api_live_check *check);

/* node_api.c */
MUST_CHECK int node_api_start(struct node *node, struct error *error);
void node_api_stop(struct node *node);
void node_api_applied(struct node *node, const Director__Command *command);
void node_api_tick(struct node *node);

#endif
