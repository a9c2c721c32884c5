/* Formation: how nodes that come up find or make their one cluster. Pure: time is an argument, effects are values.
 *
 *   IDLE -START, no membership-> SEARCHING -settled, lowest uuid-> FORMING -FORMED-> MEMBER
 *                                SEARCHING -a formed peer proved itself-> JOINING -JOIN_REPLY ok-> MEMBER
 *   IDLE -START, membership----> FETCHING -newest node list or 2 s-> MEMBER
 *   MEMBER (alone, pristine) -a better cluster with the same key-> DISSOLVING -DISSOLVED-> SEARCHING (-> JOINING)
 *   FETCHING, MEMBER -a member says that we were removed-> REMOVED (ends; an operator's matter)
 *
 * F1 Discovery is a hint: only what came over an authenticated link (HELLO, MEMBERS_REPLY, JOIN_REPLY) makes a node form
 *    less, join or dissolve. A hint alone delays forming for at most a bounded time.
 * F2 A cluster dissolves only when it is pristine by its own, current account: one node, no volume, nobody being added.
 * F3 Of two clusters at most one dissolves for the other: pristine gives way to not pristine; of two pristine ones
 *    the higher cluster uuid gives way. The order is total, so a chain of them ends.
 * F4 A node with membership never starts corosync with an older list than one it was shown, and never joins or forms
 *    anew by itself while its membership stands. */
#ifndef DIRECTOR_AGENT_CORE_FORMATION_H
#define DIRECTOR_AGENT_CORE_FORMATION_H

#include "director/base/uuid.h"

#define FORMATION_PEERS_MAX    256
#define FORMATION_EFFECTS_MAX  64
#define FORMATION_ADDRESS_SIZE 64
#define FORMATION_NEVER        UINT64_MAX

enum formation_state {
    FORMATION_IDLE,
    FORMATION_SEARCHING,
    FORMATION_FORMING,
    FORMATION_JOINING,
    FORMATION_FETCHING,
    FORMATION_MEMBER,
    FORMATION_DISSOLVING,
    FORMATION_REMOVED,
};

/* What a node says of itself. */
struct formation_facts {
    bool formed;
    bool pristine;         /* one node, no volumes, and none of either being added */
    struct uuid cluster;   /* zero when not formed */
    uint32_t node_count;   /* 0 when not formed */
    uint64_t list_version; /* version of the node list it knows (index of its last change) */
};

struct formation_where {
    struct uuid uuid;      /* zero: a seed whose uuid is not known yet */
    char address[FORMATION_ADDRESS_SIZE];
    uint16_t port;
};

enum formation_event_type {
    FORMATION_START,         /* self: facts from disk (formed or not); node_count includes ourselves */
    FORMATION_PEER_SEEN,     /* a hint: where and facts (pristine and list_version are not known from it) */
    FORMATION_PEER_GONE,     /* a hint: where.uuid */
    FORMATION_HELLO,         /* the control link with where.uuid is up; facts as it says */
    FORMATION_LINK_DOWN,     /* where.uuid */
    FORMATION_MEMBERS_REPLY, /* from where.uuid: facts; listed: we are in its node list. Answers FETCH */
    FORMATION_JOIN_REPLY,    /* from where.uuid: status (0, -EAGAIN busy: ask again, else refused), facts of the cluster */
    FORMATION_FORMED,        /* FORM is done, committed: facts of our new cluster; or status < 0 */
    FORMATION_FACTS,         /* our own facts, as they are now; status 0: confirmed by a quorate view in which we caught up
                                (needed once after each RUN), < 0: as far as the disk says. pristine must turn false BEFORE a NodeAdd or VolumeCreate is submitted (F2) */
    FORMATION_DISSOLVED,     /* DISSOLVE is done: nothing of the old cluster is left; or status < 0: refused, still member */
    FORMATION_TICK,          /* formation_deadline() has come */
    FORMATION_EXPELLED,      /* our committed log, or an authenticated member with a newer node list, says that we were removed */
};

struct formation_event {
    enum formation_event_type type;
    struct formation_where where;
    struct formation_facts facts;
    int status;
    bool listed;
};

enum formation_effect_type {
    FORMATION_DIAL,         /* open and keep the control link to where (a seed's uuid is zero); answer: HELLO */
    FORMATION_FORM,         /* make a one-node cluster (new uuid, ClusterInit, NodeAdd self, corosync); answer: FORMED */
    FORMATION_JOIN,         /* send JOIN to where.uuid; answer: JOIN_REPLY */
    FORMATION_FETCH,        /* ask where.uuid for facts and node list; answer: MEMBERS_REPLY */
    FORMATION_RUN,          /* be a member: write corosync.conf from the list of the event that is being handled (list_own
                               false) or from disk (true), start corosync or make it reload. May come again with a newer list */
    FORMATION_DISSOLVE,     /* leave CPG, stop corosync, wipe cluster state (not the node's uuid); answer: DISSOLVED */
    FORMATION_REPORT,       /* the state in words changed: formation_describe() */
};

struct formation_effect {
    enum formation_effect_type type;
    struct formation_where where;
    bool list_own;
};

struct formation_effects {
    unsigned count;
    struct formation_effect items[FORMATION_EFFECTS_MAX];
};

/* All in ms; 0 takes the default in brackets. */
struct formation_timing {
    uint32_t settle_ms;      /* [1500] listen that long before forming */
    uint32_t hint_ms;        /* [3000] wait that much longer for peers that are hinted at but have not proved themselves */
    uint32_t leader_ms;      /* [6000] wait that long for the lowest uuid to form */
    uint32_t join_ms;        /* [8000] no answer to JOIN: try another */
    uint32_t busy_ms;        /* [250] ask again after "busy" */
    uint32_t refused_ms;     /* [3000] leave a peer alone that refused or died */
    uint32_t fetch_ms;       /* [2000] then start with the own list */
    uint32_t poll_ms;        /* [1000] ask linked peers outside our cluster how they stand, while that matters */
};

struct formation;

/* self: this node's uuid. NULL when out of memory. */
struct formation *formation_new(const struct uuid *self, const struct formation_timing *timing);
void formation_free(struct formation *formation);
/* Handle one event at now_ms (monotonic); effects are to be performed in order. Cannot fail: what does not fit the
 * state (a late reply) is ignored. */
void formation_step(struct formation *formation, const struct formation_event *event, uint64_t now_ms,
                    struct formation_effects *ret_effects);
/* When the next TICK is wanted, or FORMATION_NEVER. */
uint64_t formation_deadline(const struct formation *formation);
enum formation_state formation_state(const struct formation *formation);
/* Our own facts as last told, for HELLO, MEMBERS_REPLY and discovery_update(). */
const struct formation_facts *formation_facts(const struct formation *formation);
/* Whether a JOIN from a peer may be taken up now: we are a member and not about to give way. Else answer -EAGAIN. */
bool formation_may_admit(const struct formation *formation);
/* One sentence for status: what it does and what it waits for. Length as snprintf. */
int formation_describe(const struct formation *formation, uint64_t now_ms, char *text, size_t size);
const char *formation_state_name(enum formation_state state);

#endif
