/* The replicated log: every node holds the same commands in the same order. Pure: no socket, clock, disk or randomness;
 * the caller feeds events and performs effects. agent/io drives it with corosync and SQLite, tests/simulation with ghosts.
 *
 * It is Raft's safety argument (Ongaro, "Consensus: Bridging Theory and Practice", chapters 3, 4, 6.4, 9.6) over a
 * multicast bus with views. The bus (CPG) gives membership, order and the trigger for elections; none of it is trusted
 * for safety: a message may be lost at a view change, delivered to its sender alone, or come out in a later view.
 *
 * Roles
 *
 *     FOLLOWER ---- view or silence, best log of a majority ----> CLAIMING ---- majority of voters granted ----> SEQUENCER
 *        ^                                                          |                                              |
 *        +----- newer term, other sequencer, view changed ---------+---- newer term, view lost the majority, ------+
 *        |                                                               no majority heard for check_quorum_ms,
 *        |                                                               removed from the voters, handed over
 *     any ---- storage failed ----> OUT (silent for ever; restart the process)
 *
 * Invariants
 *   R1  A node grants at most one claim a term, and the vote is durable before the grant is sent.
 *   R2  A claim is granted only to a log at least as up to date as the voter's own (last term, then last index).
 *   R3  (term, index) names one content: only the one sequencer of a term makes entries of it, and only appends.
 *   R4  An APPEND is taken only where the entry before it matches, so equal (term, index) implies equal prefixes.
 *   R5  A sequencer commits by counting only entries of its own term, at a majority of the configured voters (C2).
 *   R6  Committed entries are never truncated. Each node applies 1, 2, 3 ... once, or jumps by a snapshot of applied ones.
 *   R7  The voter set in force is that of the last CONFIG entry in the log, committed or not; one uncommitted at a time,
 *       changed by one voter, and only after the sequencer committed an entry of its own term.
 *   R8  A node's acknowledgement says "durable here up to this index, equal to the sequencer's log of this term".
 *   R9  A barrier completes only after a majority confirmed the sequencer's term after the barrier was asked for.
 *   R10 All memory is bounded: members, pending proposals, barriers, uncommitted entries, one incoming snapshot.
 *
 * Happy path of a proposal: PROPOSE at any member -> SUBMIT multicast -> the sequencer appends and multicasts APPEND, makes
 * it durable meanwhile -> members append, make durable, ACK -> majority: commit, HEARTBEAT carries the commit index ->
 * APPLY everywhere; at the origin APPLY bears the ticket, then PROPOSAL_DONE.
 *
 * Failure paths: sequencer leaves the view: STATE round in the new view, best log probes, claims, appends a NOOP. Sequencer
 * hangs: silence of silence_ms + rank_ms * rank, then the same. Sequencer with its view in the minority steps down. A probe
 * (a claim that changes nothing durable) goes before each claim and is refused by members that hear a sequencer, so that a
 * flapping node does not inflate terms. Divergent tail: truncated by the first APPEND. Too far behind: snapshot in chunks.
 * Proposal not answered: submitted again to the new sequencer; the tree's request table makes it apply once. Storage
 * failed: STORAGE_FAILED, the node is OUT. Out of memory: the process aborts, which is a crash, which is survived.
 *
 * Effects are a queue: performed strictly in order, over all lists, and one after a durable effect (HARD_STATE, LOG_APPEND,
 * LOG_TRUNCATE, SNAPSHOT) only once that is on disk. Neighbouring durable ones may share one transaction. A crash between
 * any two effects is safe. An asynchronous shell keeps that queue; a synchronous one performs the list after each step. */
#ifndef DIRECTOR_AGENT_CORE_RSM_H
#define DIRECTOR_AGENT_CORE_RSM_H

#include "director/base/common.h"
#include <stdbool.h>

#define RSM_NODES_MAX          64u                 /* members of a view, and voters */
#define RSM_COMMAND_MAX_BYTES  32768u              /* of one proposal */
#define RSM_MESSAGE_MAX_BYTES  65536u              /* of one multicast */
#define RSM_CHUNK_BYTES        49152u              /* of entries or snapshot in one message */
#define RSM_SNAPSHOT_MAX_BYTES (64u * 1024 * 1024) /* encoded */
#define RSM_PENDING_MAX        1024u               /* proposals, and barriers, of this node */
#define RSM_UNCOMMITTED_MAX    4096u               /* entries a sequencer takes beyond the commit index */
#define RSM_TICK_MS            20u                 /* feed TICK about so often */

enum rsm_entry_kind {
    RSM_ENTRY_NOOP = 0,    /* first of a term; no bytes, never given to APPLY */
    RSM_ENTRY_COMMAND = 1, /* bytes for the tree */
    RSM_ENTRY_CONFIG = 2,  /* a new voter set, and bytes for the tree */
};

enum rsm_change { RSM_CHANGE_NONE = 0, RSM_CHANGE_ADD_VOTER = 1, RSM_CHANGE_REMOVE_VOTER = 2 };

enum rsm_role { RSM_FOLLOWER = 0, RSM_CLAIMING = 1, RSM_SEQUENCER = 2, RSM_OUT = 3 };

/* Fixed for the life of an rsm. Times in milliseconds; 0 takes the default in brackets. */
struct rsm_options {
    uint16_t self;    /* own nodeid, 1..65535 */
    uint64_t boot;    /* random for each process start, not 0 */
    uint64_t cluster; /* tag of the cluster, e.g. first half of its uuid: messages of others are dropped */
    uint32_t heartbeat_ms;     /* [100] between the sequencer's heartbeats */
    uint32_t silence_ms;       /* [600] a sequencer unheard for so long is taken for hung */
    uint32_t rank_ms;          /* [100] more silence for each place in the view */
    uint32_t grace_ms;         /* [50] wait for the last STATEs of a view once a majority answered */
    uint32_t check_quorum_ms;  /* [1500] a sequencer that hears no majority for so long steps down */
    uint32_t resubmit_ms;      /* [300] an unanswered proposal or barrier is sent again */
    uint32_t barrier_ms;       /* [10000] a barrier fails with -ETIMEDOUT */
    uint32_t snapshot_entries; /* [1000] NEED_SNAPSHOT after so many applied entries, */
    uint32_t snapshot_bytes;   /* [1 MiB] or so many bytes of log */
    uint32_t keep_entries;     /* [200] kept in memory behind a snapshot for members slightly behind */
    uint32_t planted_bugs;     /* tests only: RSM_BUG_*, deliberate violations that the checkers must see */
};

/* Deliberate bugs, so that each checker is seen to fail. */
enum rsm_bug {
    RSM_BUG_VOLATILE_VOTE = 1u << 0,    /* terms and votes are not made durable (R1) */
    RSM_BUG_GRANT_ANY_LOG = 1u << 1,    /* a claim is granted whatever the claimant's log holds (R2) */
    RSM_BUG_NO_MATCH = 1u << 2,         /* an APPEND is taken though the entry before it is of another term (R4) */
    RSM_BUG_COUNT_OLD_TERMS = 1u << 3,  /* entries of earlier terms are committed by counting (R5) */
    RSM_BUG_MAJORITY_PRESENT = 1u << 4, /* majorities are counted over the voters present (R5, C2) */
    RSM_BUG_ACK_EARLY = 1u << 5,        /* entries are acknowledged before they are durable (R8) */
    RSM_BUG_BARRIER_ALONE = 1u << 6,    /* barriers are answered without asking a majority (R9) */
};

struct rsm_blob {
    const uint8_t *data;
    size_t size;
};

/* What START is given: what the effects made durable. Entries in order of index, without gaps; those at or below the
 * snapshot's index are ignored. A node that joins has none of it (term 0). A new cluster: rsm_bootstrap(). */
struct rsm_persistent {
    uint64_t term;
    uint16_t voted_for;
    struct rsm_blob snapshot; /* as SNAPSHOT gave it; size 0: none */
    const struct rsm_blob *entries; /* as LOG_APPEND gave them */
    size_t entry_count;
};

enum rsm_event_kind {
    RSM_EVENT_START = 1,          /* persistent; first, once */
    RSM_EVENT_VIEW = 2,           /* view, members */
    RSM_EVENT_MESSAGE = 3,        /* from, data: one multicast of a member (own ones are ignored, so may be fed or not) */
    RSM_EVENT_PROPOSE = 4,        /* ticket, data, change + change_nodeid */
    RSM_EVENT_ABANDON = 5,        /* ticket: stop submitting; it may be applied yet; no PROPOSAL_DONE follows */
    RSM_EVENT_BARRIER = 6,        /* ticket */
    RSM_EVENT_TICK = 7,           /* time passed */
    RSM_EVENT_SNAPSHOT_TAKEN = 8, /* index, data: the answer to NEED_SNAPSHOT */
    RSM_EVENT_LEAVE = 9,          /* graceful: hand the role over; LEFT follows (within 300 ms of ticks) */
    RSM_EVENT_STORAGE_FAILED = 10, /* a durable effect could not be performed, nor any after it: drop them. OUT */
};

struct rsm_event {
    enum rsm_event_kind kind;
    const struct rsm_persistent *persistent;
    /* VIEW. The id is equal on all members of one view and differs between views: a hash of the ring id and the (nodeid,
     * pid) of all members will do. members: without duplicates, any order; empty or without self: cut off. */
    uint64_t view;
    const uint16_t *members;
    size_t member_count;
    uint16_t from; /* MESSAGE: nodeid of the sender, as the bus says */
    /* PROPOSE: not 0, and larger with each proposal of this boot; (self, boot, ticket) is the request id, and the tree's
     * Command bears the same three, so that a proposal submitted twice is applied once. BARRIER: any value. */
    uint64_t ticket;
    uint64_t index;
    struct rsm_blob data;
    enum rsm_change change; /* PROPOSE: the proposal also changes the voter set by change_nodeid */
    uint16_t change_nodeid;
};

enum rsm_effect_kind {
    RSM_EFFECT_MULTICAST = 1,     /* data: to all members of the view, <= RSM_MESSAGE_MAX_BYTES */
    RSM_EFFECT_HARD_STATE = 2,    /* term, voted_for: durable */
    RSM_EFFECT_LOG_APPEND = 3,    /* index, term, data: one encoded entry: durable */
    RSM_EFFECT_LOG_TRUNCATE = 4,  /* index: delete this entry and all after it: durable */
    RSM_EFFECT_SNAPSHOT = 5,      /* index, term, data: replace the snapshot; delete entries up to index: durable */
    RSM_EFFECT_RESTORE = 6,       /* index, data: the tree becomes tree_restore(data); empty data: an empty tree */
    RSM_EFFECT_APPLY = 7,         /* index, entry_kind, data: tree_apply; ticket not 0: a pending proposal of this node */
    RSM_EFFECT_PROPOSAL_DONE = 8, /* ticket, status: 0 after its APPLY (index), -EIO when OUT */
    RSM_EFFECT_BARRIER_DONE = 9,  /* ticket, status: 0, -ETIMEDOUT, -EIO */
    RSM_EFFECT_ROLE = 10,         /* role, quorate, sequencer (0: none known), term changed */
    RSM_EFFECT_NEED_SNAPSHOT = 11, /* index: take tree_snapshot now, before further APPLYs; feed SNAPSHOT_TAKEN when done */
    RSM_EFFECT_LEFT = 12,         /* the bus may be left now */
};

struct rsm_effect {
    enum rsm_effect_kind kind;
    uint64_t index;
    uint64_t term;
    uint64_t ticket;
    int status;
    uint16_t voted_for;
    uint16_t sequencer;
    enum rsm_role role;
    bool quorate;
    enum rsm_entry_kind entry_kind;
    uint8_t *data; /* owned by the list; a taker sets it to NULL and frees it with free() */
    size_t size;
};

/* Grows as needed; zero-initialise once, reuse with rsm_effects_clear(). */
struct rsm_effects {
    struct rsm_effect *items;
    size_t count, capacity;
};

/* Free what the items own and empty the list; done also gives the array back. */
void rsm_effects_clear(struct rsm_effects *effects);
void rsm_effects_done(struct rsm_effects *effects);

struct rsm;

/* A new core; feed START next. Never NULL. Free with rsm_free(). */
struct rsm *rsm_new(const struct rsm_options *options);
void rsm_free(struct rsm *rsm);

/* Feed one event; effects are appended to effects. now_ms: any monotonic clock. 0, or:
 * -EAGAIN  PROPOSE, BARRIER: too many pending; nothing was taken, no DONE follows
 * -EMSGSIZE PROPOSE longer than RSM_COMMAND_MAX_BYTES
 * -EINVAL  PROPOSE without bytes, or with a ticket not larger than the last, or a bad change; VIEW with too many members
 * -EPROTO  MESSAGE malformed or impossible: it was dropped, nothing changed
 * -EBADMSG START: what was persisted is damaged (crc, gap): the node must not run on it
 * -ESHUTDOWN the node is OUT */
MUST_CHECK int rsm_step(struct rsm *rsm, const struct rsm_event *event, uint64_t now_ms, struct rsm_effects *effects);

/* What the one node of a new cluster must persist before START: appends HARD_STATE and LOG_APPEND (the voter set {self}) to
 * effects. Term 1, index 1. */
void rsm_bootstrap(uint16_t self, struct rsm_effects *effects);

/* Figures for the orchestrator, status and tests. */
struct rsm_status {
    enum rsm_role role;
    bool quorate;       /* a sequencer is known and heard, and the view holds a majority of the voters */
    uint16_t sequencer; /* nodeid, 0: none known */
    uint64_t term, commit, applied, last_index, last_term, snapshot_index;
    uint64_t view;
    uint16_t voters[RSM_NODES_MAX]; /* in force (R7), ascending */
    size_t voter_count;
    bool config_committed;
    size_t pending;    /* proposals of this node without answer */
    uint64_t dropped;  /* messages refused as malformed or impossible */
    uint64_t elections; /* claims made (terms used) by this node */
};
void rsm_get_status(const struct rsm *rsm, struct rsm_status *ret_status);

/* What the sequencer knows of a member of its view: how far its log matches, and when it was last heard. False when this
 * node is not the sequencer or nodeid is not in the view. A learner whose match_index is near commit may become a voter. */
struct rsm_progress {
    uint64_t match_index;
    uint64_t heard_ms;
    bool snapshotting;
};
bool rsm_get_progress(const struct rsm *rsm, uint16_t nodeid, struct rsm_progress *ret_progress);

#endif
