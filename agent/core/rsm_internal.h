/* What the files of the replicated log share. rsm.c: events, views, time. rsm_log.c: entries, commit, apply, snapshots.
 * rsm_election.c: who sequences. rsm_replicate.c: entries and snapshots on their way. rsm_propose.c: proposals, barriers. */
#ifndef DIRECTOR_AGENT_CORE_RSM_INTERNAL_H
#define DIRECTOR_AGENT_CORE_RSM_INTERNAL_H

#include "agent/core/rsm.h"
#include "agent/core/rsm_message.h"

#include <errno.h>
#include <string.h>

#define RSM_SUBMIT_WINDOW 64u  /* proposals of one node under way at once; corosync spins beyond ~200 messages */
#define RSM_STATE_MS      200u /* STATE is sent again so often while no sequencer is known */
#define RSM_CLAIM_MS      300u /* a claim without a decision is given up */
#define RSM_RETRY_MS      300u /* an addressed APPEND or SNAPSHOT without answer is sent again */
#define RSM_ACK_MS        250u /* a follower that has nothing to say acknowledges so often */
#define RSM_REJECT_MS     20u  /* and rejects at most so often what was sent to all */
#define RSM_HANDOVER_MS   300u

/* An entry in memory; blob is its encoded form, entry.data points into it. */
struct log_entry {
    struct rsm_entry entry;
    uint8_t *blob;
    size_t size;
};

/* A member of the view. */
struct member {
    uint16_t nodeid;
    bool stated; /* its STATE of this view came: */
    uint64_t term, last_term, last_index;
    /* Sequencer's view of it. Streaming: it takes what is sent to all. Else it is fed by addressed messages, one at a time. */
    uint64_t match, next; /* R8: durable and equal up to match; next to send when not streaming */
    bool streaming, outstanding, snapshotting;
    uint64_t sent_ms, heard_ms;
    uint64_t snapshot_index, snapshot_offset;
    /* Its barrier question, asked of the sequencer. */
    bool asked;
    uint64_t ask_round;
    uint64_t ask_voters; /* bit: place in the voter set; R9 */
};

struct pending {
    uint64_t ticket;
    enum rsm_change change;
    uint16_t change_nodeid;
    uint8_t *data;
    size_t size;
    uint64_t sent_ms, sent_term; /* sent_term 0: not sent in this view */
};

struct barrier {
    uint64_t ticket, deadline_ms;
    uint64_t round; /* 0: not asked yet */
    bool answered;
    uint64_t index; /* when answered */
};

struct rsm {
    struct rsm_options options;
    enum rsm_role role;
    bool started, leaving, left;
    uint64_t leave_ms;

    /* Durable (R1). */
    uint64_t term;
    uint16_t voted_for;
    struct log_entry *log; /* log[i] has index base_index + 1 + i */
    size_t log_count, log_capacity;
    uint64_t base_index, base_term; /* what comes before log[0] */
    uint8_t *snapshot;              /* encoded; NULL: none */
    size_t snapshot_size;
    uint64_t snapshot_index;
    struct rsm_config snapshot_config;

    struct rsm_config config; /* in force (R7) */
    uint64_t config_index;    /* of its entry; at most snapshot_index: from the snapshot */
    uint64_t commit, applied;
    size_t log_bytes; /* of entries above the snapshot */
    bool snapshot_asked;

    /* View. */
    uint64_t view, view_ms, state_ms;
    bool in_view;
    struct member members[RSM_NODES_MAX];
    size_t member_count;

    /* Follower. */
    uint16_t sequencer;     /* 0: none known */
    uint64_t heard_ms;      /* from it */
    uint64_t lost_ms;       /* since when none is known */
    uint64_t matched;       /* our log equals that of this term's sequencer up to here (R8) */
    uint64_t ack_ms, reject_ms;
    uint8_t *incoming; /* snapshot being received */
    size_t incoming_size, incoming_capacity;
    uint64_t incoming_index, incoming_total, incoming_term;

    /* Claimant. Masks: places in the voter set. */
    bool claim_probe, claim_handover;
    uint64_t claim_term, claim_ms, claim_after_ms, granted, refused, seen_term;

    /* Sequencer. */
    uint64_t term_start;  /* index of our NOOP */
    uint64_t since_ms, heartbeat_ms;

    struct pending *pending;
    size_t pending_count;
    uint64_t last_ticket;
    struct barrier *barriers;
    size_t barrier_count;
    uint64_t barrier_round, barrier_asked_ms;
    bool barrier_asking;

    struct rsm_effect last_role; /* as last reported */
    uint64_t dropped, elections;

    /* During a step. */
    uint64_t now;
    struct rsm_effects *out;
};

/* rsm_effects.c */
struct rsm_effect *rsm_effect_add(struct rsm_effects *effects, enum rsm_effect_kind kind);
struct rsm_effect *rsm_effect_add_bytes(struct rsm_effects *effects, enum rsm_effect_kind kind, const void *data, size_t size);

/* rsm.c */
void *rsm_allocate(size_t size);
struct member *rsm_member(struct rsm *rsm, uint16_t nodeid);
bool rsm_view_has_majority(const struct rsm *rsm);
bool rsm_is_majority(const struct rsm *rsm, uint64_t voters);
unsigned rsm_rank(const struct rsm *rsm);
/* Fill in sender's cluster, view and, unless set, term; encode; MULTICAST. */
void rsm_send(struct rsm *rsm, struct rsm_message *message);
/* Make a newer term, or a vote in this one, durable. */
void rsm_set_term(struct rsm *rsm, uint64_t term, uint16_t voted_for);

/* rsm_log.c */
uint64_t rsm_last_index(const struct rsm *rsm);
uint64_t rsm_last_term(const struct rsm *rsm);
struct log_entry *rsm_log_at(struct rsm *rsm, uint64_t index); /* NULL: not held */
bool rsm_term_at(const struct rsm *rsm, uint64_t index, uint64_t *ret_term); /* false: not known any more, or yet */
uint64_t rsm_config_at(const struct rsm *rsm, uint64_t index, struct rsm_config *ret_config); /* returns its index */
/* In memory only; the blob becomes the log's. */
void rsm_log_push(struct rsm *rsm, const struct rsm_entry *entry, uint8_t *blob, size_t size);
void rsm_log_truncate(struct rsm *rsm, uint64_t from); /* with its effect; from > commit (R6) */
void rsm_commit_to(struct rsm *rsm, uint64_t index);   /* and apply */
int rsm_snapshot_taken(struct rsm *rsm, uint64_t index, struct rsm_blob data);
int rsm_snapshot_install(struct rsm *rsm, const uint8_t *data, size_t size);
int rsm_log_start(struct rsm *rsm, const struct rsm_persistent *persistent);
void rsm_log_free(struct rsm *rsm);

/* rsm_election.c */
void rsm_state_send(struct rsm *rsm);
void rsm_state_receive(struct rsm *rsm, struct member *from, const struct rsm_message *message);
void rsm_claim_receive(struct rsm *rsm, struct member *from, const struct rsm_message *message);
void rsm_grant_receive(struct rsm *rsm, struct member *from, const struct rsm_message *message);
void rsm_handover_receive(struct rsm *rsm, uint16_t from, const struct rsm_message *message);
void rsm_handover(struct rsm *rsm);
void rsm_election_consider(struct rsm *rsm);
void rsm_election_tick(struct rsm *rsm);
/* Not sequencer, not claimant; no sequencer known. */
void rsm_step_down(struct rsm *rsm);
/* from sequences term >= ours: follow it. -EPROTO when we are the sequencer of that term ourselves (R3). */
int rsm_follow(struct rsm *rsm, uint16_t from, uint64_t term);

/* rsm_replicate.c */
void rsm_sequencer_append(struct rsm *rsm, const struct rsm_entry *entry); /* index and term are filled in */
void rsm_heartbeat_send(struct rsm *rsm);
void rsm_progress_reset(struct rsm *rsm);
void rsm_progress_start(struct rsm *rsm, struct member *member, uint64_t last_index);
void rsm_commit_advance(struct rsm *rsm);
int rsm_append_receive(struct rsm *rsm, uint16_t from, const struct rsm_message *message);
int rsm_ack_receive(struct rsm *rsm, struct member *from, const struct rsm_message *message);
int rsm_snapshot_receive(struct rsm *rsm, uint16_t from, const struct rsm_message *message);
void rsm_snapshot_ack_receive(struct rsm *rsm, struct member *from, const struct rsm_message *message);
int rsm_heartbeat_receive(struct rsm *rsm, uint16_t from, const struct rsm_message *message);
void rsm_sequencer_tick(struct rsm *rsm);

/* rsm_propose.c */
int rsm_propose(struct rsm *rsm, const struct rsm_event *event);
void rsm_abandon(struct rsm *rsm, uint64_t ticket);
/* The own proposal (boot, sequence) was applied at index: its ticket, or 0 when it is not (or no longer) pending. */
uint64_t rsm_pending_take(struct rsm *rsm, uint64_t boot, uint64_t sequence);
void rsm_pending_resend(struct rsm *rsm); /* a new view: nothing counts as sent */
void rsm_pending_send(struct rsm *rsm);
void rsm_submit_receive(struct rsm *rsm, uint16_t from, const struct rsm_message *message);
int rsm_barrier(struct rsm *rsm, uint64_t ticket);
void rsm_barrier_receive(struct rsm *rsm, struct member *from, const struct rsm_message *message);
void rsm_barrier_ack_receive(struct rsm *rsm, uint16_t from, const struct rsm_message *message);
void rsm_barrier_answer_receive(struct rsm *rsm, const struct rsm_message *message);
void rsm_barrier_answer_ready(struct rsm *rsm);   /* sequencer: answer what a majority confirmed */
void rsm_barrier_complete(struct rsm *rsm);       /* origin: applied far enough? */
void rsm_barrier_tick(struct rsm *rsm);
void rsm_propose_fail_all(struct rsm *rsm, int status);

#endif
