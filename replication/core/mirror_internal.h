/* Inside of the mirror, shared by mirror.c (states, events), mirror_config.c (configuration), mirror_member.c (attaching,
 * bitmaps), mirror_request.c (reads and writes), mirror_confirm.c (verified reads), mirror_slow.c (slow members) and
 * mirror_copy.c (reconciliation and resync). */
#ifndef DIRECTOR_REPLICATION_MIRROR_INTERNAL_H
#define DIRECTOR_REPLICATION_MIRROR_INTERNAL_H

#include "replication/core/bitmap.h"
#include "replication/core/lease.h"
#include "replication/core/message.h"
#include "replication/core/metadata.h"
#include "replication/core/mirror.h"
#include "replication/core/range_lock.h"

#define INTERNAL_OPS 32u
#define COPIES_MAX   2u       /* in the background, of each kind and member */
#define ASK_AGAIN_US 1000000u
#define TICK_US      50000u
#define TELL_US      100000u  /* how often an idle owner tells which writes are complete */
#define KEEP_US      2000000u /* how often resync progress is written down */
#define BLOBS_MAX    64u
#define RETRY_US     10000u   /* for a buffer or a source that was not there */
#define BACKOFF_MOST 64u      /* times resync_backoff_us: the longest wait, and the calm that forgives */
#define AWAY_FREE    2u       /* departures of one that was only away, before it has to wait */

enum op_kind { OP_READ, OP_WRITE, OP_COMPARE, OP_RECONCILE, OP_RESYNC };
enum op_phase {
    OP_LOCK,    /* waits for its range */
    OP_START,   /* granted; waits for a buffer or a source */
    OP_READING, /* READ sent */
    OP_LEASE,   /* data or miscompare there: waits for a valid lease, or to be confirmed (I7) */
    OP_WRITING, /* WRITE sent; on the issued list */
    OP_LINGER,  /* complete, answered; the range stays taken until a syncing member has it too */
};

struct mirror_op {
    struct list link;   /* m->active or m->unused */
    struct list issued; /* m->issued, in order of sequence */
    struct list by_sequence; /* m->by_sequence, from its write on */
    struct list ready;  /* m->ready */
    struct range range;
    enum op_kind kind;
    enum op_phase phase;
    uint32_t index, turn;
    struct mirror_request *request; /* NULL: a copy, or answered at its deadline */
    struct mirror_data data;        /* of the request: one reference */
    struct mirror_data buffer;      /* of a copy or a comparison: one reference */
    uint64_t io_offset, io_length;  /* what is being read or written now */
    enum block_operation io_operation;
    uint32_t io_flags;
    uint64_t end;                   /* copies: of their range */
    unsigned target;                /* OP_RESYNC */
    unsigned read_from;
    uint8_t read_tried;
    int status;                     /* for OP_LEASE */
    bool verified;                  /* OP_LEASE: waits for the answer to question `confirm` instead of a lease */
    uint64_t confirm;
    uint64_t sequence, issued_us;   /* issued: WRITE or READ sent */
    uint8_t targets, need, acked, errors;
    uint64_t merge_number;          /* BITMAP that must be durable on the whole ISR before this completes (I9) */
};

struct member {
    uint16_t nodeid;
    uint64_t incarnation;
    bool link_up;
    uint64_t boot;
    enum mirror_member_state state;
    int refused;
    uint64_t attach;
    uint64_t seal_sent_us;
    uint64_t lease_sent_us; /* when the newest heartbeat was sent that it answered in this attachment */
    uint64_t away_since_us;
    bool bad; /* to be dropped from the ISR */
    enum mirror_ask_reason bad_reason;
    uint64_t retry_us;          /* not attached before, while outside the ISR (scenarios 21, 31) */
    unsigned departures;        /* times it left or failed without a calm in between */
    uint64_t in_sync_since_us;  /* 0: since before this mirror served */
    uint64_t merge_sent, merge_acked;
    uint64_t confirmed; /* the newest CONFIRM that it answered */
    bool carry_reported;
    struct bitmap carry; /* what it reported, while outside the ISR */
    struct bitmap todo;  /* regions still to be copied to it */
    uint32_t todo_total;
    uint64_t keep_us;    /* when progress is next written down */
    bool progressed;
};

#define LINKS_MAX        128u
#define SEQUENCE_BUCKETS 128u /* sequences of writes in flight are mostly neighbours: about one in each */

struct mirror {
    struct mirror_parameters parameters;
    struct {
        uint16_t nodeid;
        uint64_t boot; /* 0 = down */
    } links[LINKS_MAX]; /* of all nodes, also before they are members */
    unsigned link_count;
    uint32_t regions;
    enum mirror_state state;
    bool activating; /* SEALING, all sealed: dirty marks are being merged */
    bool draining, drained;
    uint64_t serving_since_us;
    struct mirror_config config;
    uint8_t places;        /* bit k: config.replicas[k] is a replica, not an empty place */
    uint64_t fenced_epoch; /* not served at or below, whatever config says */
    int self;              /* our replica index, -1: none */
    struct member members[MIRROR_REPLICAS_MAX];
    uint64_t instance, next_attach;
    uint64_t sequence, told_complete;
    uint64_t failed_sequence; /* the first write answered with an error since all were in sync; 0: none */
    uint64_t merge_number;
    uint64_t confirm_asked, confirm_wanted; /* numbers of CONFIRM: sent, and to be sent */
    struct bitmap dirty[MIRROR_REPLICAS_MAX];
    struct bitmap unreconciled, scratch;
    uint8_t mismatch;     /* replicas whose marks are about another disk at some member (I11) */
    uint8_t stale_marks;  /* in-sync replicas for whom some member still has marks */
    uint8_t *blobs[BLOBS_MAX]; /* encoded bitmaps of the effects of one step */
    unsigned blobs_used;
    uint8_t pending_grow; /* I8: asked for, outcome unknown */
    uint8_t asked_isr;
    uint64_t asked_version, ask_again_us;
    struct mirror_op *ops;
    uint32_t op_count, foreground, background;
    struct list active, unused, issued, ready, waiting;
    struct range_lock locks;
    struct list by_sequence[SEQUENCE_BUCKETS]; /* ops that replies to writes are for */
    uint64_t retry_us;    /* something waits for a buffer or source */
    uint64_t tell_us;
    uint64_t reconcile_retry_us;
    uint64_t reconciled_regions, resynced_bytes;
    uint64_t told_mark; /* for STATE */
    uint64_t now;
    struct mirror_effects *out;
};

/* mirror.c */
static inline bool mirror_bug(const struct mirror *m, uint32_t which)
{
    return m->parameters.planted_bugs & which;
}
/* Members are bound by our epoch, or about to be: marks go to all of them at once. */
static inline bool mirror_active(const struct mirror *m)
{
    return m->state == MIRROR_SERVING || m->activating;
}
/* In the ISR or being added to it: what an acknowledgement must wait for (I8). */
static inline uint8_t counted_mask(const struct mirror *m)
{
    return mirror_bug(m, MIRROR_BUG_EARLY_GROW) ? m->config.isr : m->config.isr | m->pending_grow;
}
static inline bool in_isr(const struct mirror *m, unsigned k)
{
    return m->config.isr >> k & 1;
}
bool mirror_lease_valid(const struct mirror *m);
/* Answer the reads that waited for a lease or a confirmation, and may go now. */
void mirror_check_readers(struct mirror *m);
/* May the data of op, which are there, be answered? (I7) */
bool mirror_may_answer(const struct mirror *m, const struct mirror_op *op);

/* mirror_confirm.c */
void mirror_confirm_want(struct mirror *m, struct mirror_op *op);
bool mirror_confirmed(const struct mirror *m, const struct mirror_op *op);
void mirror_confirm_ask(struct mirror *m);
void mirror_confirm_again(struct mirror *m, unsigned k);
void mirror_confirm_reply(struct mirror *m, unsigned k, const struct mirror_message *message);

/* mirror_slow.c */
void mirror_check_slow(struct mirror *m);

/* mirror_config.c */
void mirror_on_config(struct mirror *m, const struct mirror_config *config);
/* mirror.c */
/* No longer owner: fail everything, give the lease back, become IDLE. */
void mirror_stop(struct mirror *m, int status);
void mirror_send(struct mirror *m, unsigned k, struct mirror_message *message, struct mirror_data data,
                 uint32_t data_bytes);

/* mirror_member.c */
static inline bool member_attached(const struct member *member)
{
    return member->state == MIRROR_MEMBER_ATTACHED || member->state == MIRROR_MEMBER_SYNCING;
}
uint8_t mirror_syncing_mask(const struct mirror *m);
void member_seal(struct mirror *m, unsigned k);
void member_detach(struct mirror *m, unsigned k, enum mirror_member_state state);
void member_fail(struct mirror *m, unsigned k, enum mirror_ask_reason reason);
/* It left the ISR, or failed outside it: it waits, longer each time, before it is attached again. A calm time in sync
 * forgives. Without failed (it was only away) the first times are free. */
void member_back_off(struct mirror *m, unsigned k, bool failed);
int member_seal_reply(struct mirror *m, unsigned k, const struct mirror_message *message);
/* Send a dirty bitmap about replica `about` to member k. Acknowledged when durable: member->merge_acked. */
void member_send_bitmap(struct mirror *m, unsigned k, unsigned about, uint8_t action, const uint8_t *blob);
/* Encode for this step's effects. */
const uint8_t *mirror_blob(struct mirror *m, const struct bitmap *map);
/* Everything sent to it about dirty marks is durable there. */
static inline bool member_merged(const struct member *member)
{
    return member->merge_acked >= member->merge_sent;
}
void mirror_merge_all(struct mirror *m, unsigned about, const struct bitmap *map);
void mirror_keep_all(struct mirror *m, unsigned about, const struct bitmap *map);
void mirror_activate(struct mirror *m);

/* mirror_request.c */
struct mirror_op *op_new(struct mirror *m, enum op_kind kind, uint64_t offset, uint64_t length);
void op_free(struct mirror *m, struct mirror_op *op);
void op_lock(struct mirror *m, struct mirror_op *op);
void op_run(struct mirror *m, struct mirror_op *op);
void op_read(struct mirror *m, struct mirror_op *op, struct mirror_data to);
void op_write(struct mirror *m, struct mirror_op *op);
void op_send_write(struct mirror *m, struct mirror_op *op, unsigned k);
void op_check(struct mirror *m, struct mirror_op *op);
void mirror_check_all(struct mirror *m);
void mirror_pump(struct mirror *m);
void mirror_run_ready(struct mirror *m);
void mirror_expire(struct mirror *m);
void mirror_answer(struct mirror *m, struct mirror_request *request, int status);
uint64_t mirror_complete_sequence(const struct mirror *m);
void mirror_write_reply(struct mirror *m, unsigned k, const struct mirror_message *message);
void mirror_read_reply(struct mirror *m, unsigned k, const struct mirror_message *message, struct mirror_data data,
                       uint32_t data_bytes);

/* mirror_copy.c */
/* Before a request touches [offset, offset + length): copy what may differ there. False: no room, try later. */
bool mirror_reconcile_range(struct mirror *m, uint64_t offset, uint64_t length);
void copy_run(struct mirror *m, struct mirror_op *op);
void copy_read_done(struct mirror *m, struct mirror_op *op, int status);
void copy_written(struct mirror *m, struct mirror_op *op);
void mirror_background(struct mirror *m);
void resync_stop(struct mirror *m, unsigned k);
void resync_keep(struct mirror *m);

static inline uint32_t mirror_region(const struct mirror *m, uint64_t offset)
{
    return (uint32_t)(offset / m->parameters.region_bytes);
}

#endif
