/* Inside of the mirror, shared by mirror.c (states, events), mirror_config.c (configuration), mirror_member.c (attaching,
 * bitmaps), mirror_request.c (reads and writes), mirror_confirm.c (verified reads), mirror_slow.c (slow members),
 * mirror_copy.c (copying between members, reconciliation), mirror_resync.c (joining), mirror_repair.c (bad blocks rewritten in
 * place), mirror_digest.c (comparing members) and mirror_check.c (verify, scrub). */
#ifndef DIRECTOR_REPLICATION_MIRROR_INTERNAL_H
#define DIRECTOR_REPLICATION_MIRROR_INTERNAL_H

#include "replication/core/bitmap.h"
#include "replication/core/lease.h"
#include "replication/core/message.h"
#include "replication/core/metadata.h"
#include "replication/core/mirror.h"
#include "replication/core/range_lock.h"
#include "replication/core/resync_throttle.h"

#define INTERNAL_OPS 64u
#define RECONCILE_RESERVE 24u /* of these, kept for what requests wait for */
#define COPIES_MAX   2u       /* in the background, of each kind and member, while clients are busy */
#define COPIES_IDLE  8u       /* while they are not */
#define COPY_BUSY    65536u   /* bytes of a copy step while clients are busy */
#define REPAIRS_MAX  64u      /* noted; one that does not fit is found again by the next read or check */
#define REPAIRS_RUN  2u       /* at a time */
#define BLOCK_BYTES  4096u    /* repairs and findings are in these */
#define AVOID_US     10000000u /* for which a member is not asked to send to a joiner that it did not reach */
#define DIGEST_PIECE 65536u   /* of a resync by digest */
#define ASK_AGAIN_US 1000000u
#define TICK_US      50000u
#define TELL_US      100000u  /* how often an idle owner tells which writes are complete */
#define KEEP_US      2000000u /* how often resync progress is written down */
#define BLOBS_MAX    64u
#define RETRY_US     10000u   /* for a buffer or a source that was not there */
#define NOT_YET_US   100000u  /* for a member whose files have not grown yet */
#define BACKOFF_MOST 64u      /* times resync_backoff_us: the longest wait, and the calm that forgives */
#define AWAY_FREE    2u       /* departures of one that was only away, before it has to wait */

#define READ_BACK_MAX 3u /* a disk that fails a read now and then is not thrown out for one */

enum op_kind { OP_READ, OP_WRITE, OP_COMPARE, OP_RECONCILE, OP_RESYNC, OP_REPAIR, OP_CHECK };
enum op_phase {
    OP_LOCK,    /* waits for its range */
    OP_START,   /* granted; waits for a buffer or a source */
    OP_READING, /* READ sent */
    OP_DIGEST,  /* DIGEST sent; digest_wait says to whom */
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
    uint8_t joiners;                /* OP_RESYNC: whom it is copied to */
    unsigned read_from;
    uint8_t read_tried;
    uint8_t read_bad;               /* of these: could not read the medium (EIO, EBADMSG) */
    uint8_t repair;                 /* OP_REPAIR: members still to be rewritten, then still to be read back */
    uint8_t repair_all, avoid;      /* OP_REPAIR: members to be rewritten; never read from */
    bool reading_back, of_check, located;
    uint8_t read_back_failures;     /* of the member that is being read back */
    uint64_t singly_to;             /* up to here block by block: no member could read a longer stretch, but each block one may */
    bool compare;                   /* OP_RESYNC: by digest first */
    bool copying;                   /* OP_RESYNC, OP_WRITING: read_from sends it to the joiner itself */
    bool unlocked;                  /* planted bugs only: holds no range */
    uint64_t compared_from, compared_to, wanted; /* bit i: piece i from compared_from on differs */
    uint8_t digest_wait, digest_have, digest_late;
    struct mirror_data digests[MIRROR_REPLICAS_MAX]; /* one reference each */
    int status;                     /* for OP_LEASE */
    bool verified;                  /* OP_LEASE: waits for the answer to question `confirm` instead of a lease */
    uint64_t confirm;
    uint64_t sequence, issued_us;   /* issued: WRITE or READ sent */
    uint8_t targets, need, acked, errors;
    uint64_t merge_number;          /* BITMAP that must be durable on the whole ISR before this completes (I9) */
};

/* Speed of a count that grows. */
struct meter {
    uint64_t since_us, from, rate; /* rate: a second */
};
static inline void meter_start(struct meter *meter, uint64_t count, uint64_t now_us)
{
    *meter = (struct meter){.since_us = now_us, .from = count};
}
static inline void meter_update(struct meter *meter, uint64_t count, uint64_t now_us)
{
    uint64_t passed = now_us - meter->since_us;
    if (passed < (meter->rate ? 1000000u : 200000u))
        return;
    uint64_t rate = (count - meter->from) * 1000 / MAX(passed / 1000, 1u);
    meter->rate = meter->rate ? (3 * meter->rate + rate) / 4 : rate;
    meter->since_us = now_us;
    meter->from = count;
}
static inline uint64_t meter_left_ms(const struct meter *meter, uint64_t left)
{
    return meter->rate ? left * 1000 / meter->rate : left ? UINT64_MAX : 0;
}

/* How a resync goes; stays until the next one. */
struct sync_progress {
    uint64_t total, done, compared, sent; /* bytes */
    uint8_t sources;
    struct meter meter;
    bool by_digest;               /* what it has is not known: compare before sending */
    uint32_t equal, different;    /* pieces lately */
    uint32_t blind, blind_next;   /* bytes / DIGEST_PIECE to send without comparing, for comparing did not pay */
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
    bool lost;           /* it may show what its disk does not have (a failed flush): copied, not compared */
    bool accepted;       /* its last attachment was: what it continues is what we know */
    bool carry_reported;
    struct bitmap cold;  /* in sync: regions where it may lack what was acknowledged, not yet made equal; words NULL: never any */
    uint64_t barrier;    /* joining: number of the FLUSH before it counts, 0: none. From then on client flushes wait for it too */
    bool barrier_done;
    struct bitmap carry; /* what it reported, while outside the ISR */
    struct bitmap todo;  /* regions still to be copied to it */
    uint32_t todo_total;
    uint64_t keep_us;    /* when progress is next written down */
    bool progressed;
    struct sync_progress sync;
    uint8_t avoid;       /* members that could not send to it directly, until then */
    uint64_t avoid_until_us;
    uint64_t read_errors, repaired_blocks;
};

/* Blocks to be rewritten on some members from one that is good. */
struct repair {
    uint64_t offset, length;
    uint8_t members; /* to be rewritten */
    uint8_t avoid;   /* never to be read from; holds members */
    bool of_check;
    bool located;    /* exactly these blocks; otherwise somewhere in there */
};

#define CHECK_REDO_MAX COPIES_IDLE

struct check {
    struct mirror_check_status status;
    uint64_t next;     /* where the next piece begins */
    struct {
        uint64_t offset, length;
    } redo[CHECK_REDO_MAX]; /* pieces below it that could not be finished */
    unsigned redo_count;
    uint64_t retry_us;
    struct meter meter;
    unsigned repairs;  /* noted or under way */
};

#define LINKS_MAX        128u
#define SEQUENCE_BUCKETS 128u /* sequences of writes in flight are mostly neighbours: about one in each */
/* A flush of clients: one barrier on all counted members at a time. Requests that come meanwhile wait for the next one. */
struct mirror_flush {
    bool busy;
    uint64_t number, issued_us;
    uint8_t need, acked, errors;
    struct list served, next; /* of requests */
};


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
    uint64_t sealing_since_us, serving_since_us;
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
    struct mirror_flush flush;
    uint64_t flush_number; /* of the newest FLUSH sent */
    bool cached;           /* a completed write may be in a member's volatile cache */
    bool cache_lost;       /* what was acknowledged and not flushed is lost: the next flush says so */
    uint64_t retry_us;    /* something waits for a buffer or source */
    uint64_t tell_us;
    uint64_t reconcile_retry_us;
    uint64_t reconciled_regions, resynced_bytes, repaired_blocks;
    struct resync_throttle throttle;
    uint64_t throttled_us; /* when copying is wanted again that the throttle has held back; UINT64_MAX: none is held */
    struct repair repairs[REPAIRS_MAX];
    unsigned repair_count;
    struct check check;
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
/* No longer owner: fail everything, give the lease back, become IDLE. With status 0 the requests are kept, to be served anew. */
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
/* A member of the ISR that has not failed this op's read: our own disk first. -1: none is attached; -2: all have failed. */
int op_read_source(const struct mirror *m, const struct mirror_op *op);
/* Cut io_length to one block where longer stretches cannot be read. */
void op_read_step(struct mirror_op *op);
/* There is none: try later (-1), or fail (-2). */
void op_read_none(struct mirror *m, struct mirror_op *op, int source);
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

/* mirror_flush.c */
void mirror_flush_init(struct mirror *m);
void mirror_flush_add(struct mirror *m, struct mirror_request *request);
void mirror_flush_check(struct mirror *m);
/* The configuration changed, or k outside the in-sync set detached: it is waited for no more. */
void mirror_flush_forget(struct mirror *m, uint8_t mask);
/* k attached again: what it has not answered goes out again. */
void mirror_flush_resend(struct mirror *m, unsigned k);
void mirror_flush_reply(struct mirror *m, unsigned k, const struct mirror_message *message);
void mirror_flush_stop(struct mirror *m, int status);
void mirror_flush_expire(struct mirror *m);
/* Before joining member k counts: all it was given is durable there. Sends the FLUSH when needed. */
bool member_barrier(struct mirror *m, unsigned k);
/* Cold regions (I5). */
bool member_is_cold(const struct mirror *m, unsigned k, uint64_t offset, uint64_t length);
void member_cold_add(struct mirror *m, unsigned k, const struct bitmap *regions);
void member_cold_clear(struct mirror *m, unsigned k);
/* The region is equal everywhere. */
void mirror_cold_done(struct mirror *m, uint32_t region);

/* mirror_copy.c */
/* Before a request touches [offset, offset + length): copy what may differ there. False: no room, try later. */
bool mirror_reconcile_range(struct mirror *m, uint64_t offset, uint64_t length);
uint64_t mirror_region_offset(const struct mirror *m, uint32_t region);
unsigned mirror_copies(const struct mirror *m, enum op_kind kind, uint8_t joiners);
void copy_run(struct mirror *m, struct mirror_op *op);
void copy_read_done(struct mirror *m, struct mirror_op *op, int status);
void copy_written(struct mirror *m, struct mirror_op *op);
/* Give the buffer back: it may still be on its way to a member that was dropped. */
void copy_drop_buffer(struct mirror *m, struct mirror_op *op);
/* Take op->buffer if it is not there; false: none now, op will be run again. */
bool copy_take_buffer(struct mirror *m, struct mirror_op *op);
void mirror_background(struct mirror *m);
/* May a background step of this many bytes start? */
bool mirror_throttle_take(struct mirror *m, uint64_t bytes);

/* mirror_resync.c */
void resync_begin(struct mirror *m, unsigned k);
void resync_continue(struct mirror *m, unsigned k);
void resync_stop(struct mirror *m, unsigned k);
void resync_keep(struct mirror *m);
void resync_run(struct mirror *m, struct mirror_op *op);
void resync_unreadable(struct mirror *m, struct mirror_op *op);
void resync_written(struct mirror *m, struct mirror_op *op);
/* The session with k is over: as a source it cannot say any more whether it has sent what it was told to. */
void resync_session_over(struct mirror *m, unsigned k);
void resync_check_slow(struct mirror *m);
void mirror_copy_reply(struct mirror *m, unsigned k, const struct mirror_message *message);
/* All digests of op are there. */
void resync_compared(struct mirror *m, struct mirror_op *op);

/* mirror_repair.c */
/* Note blocks to be rewritten on members from one not in avoid. */
void mirror_repair_note(struct mirror *m, uint64_t offset, uint64_t length, uint8_t members, uint8_t avoid, bool of_check);
void mirror_repair_start(struct mirror *m);
/* What the dropped member k was to be repaired: its marks cover it from now on. */
void mirror_repair_dropped(struct mirror *m, unsigned k, struct bitmap *marks);
void repair_run(struct mirror *m, struct mirror_op *op);
void repair_unreadable(struct mirror *m, struct mirror_op *op);
/* Digests that tell which blocks are bad are there, or status says why not. */
void repair_located(struct mirror *m, struct mirror_op *op, int status);
void repair_written(struct mirror *m, struct mirror_op *op);
/* Member k has been read back. Takes no reference. */
void repair_read_back(struct mirror *m, struct mirror_op *op, unsigned k, int status, struct mirror_data data);

/* mirror_digest.c */
/* Ask these members for digests of [io_offset, io_offset + io_length) in pieces. read_only: only whether it can be read. */
void digest_ask(struct mirror *m, struct mirror_op *op, uint8_t members, uint32_t piece, bool read_only);
void digest_drop(struct mirror *m, struct mirror_op *op);
void digest_slow(struct mirror *m, struct mirror_op *op);
void mirror_digest_reply(struct mirror *m, unsigned k, const struct mirror_message *message, struct mirror_data data,
                         uint32_t data_bytes);
/* Digest of piece i by member k. */
void digest_get(const struct mirror *m, const struct mirror_op *op, unsigned k, uint32_t piece, uint8_t ret_digest[16]);
bool digest_unreadable(const uint8_t digest[16]);

/* mirror_check.c */
void mirror_check_continue(struct mirror *m);
void mirror_check_ended(struct mirror *m, enum mirror_check_state state);
void check_run(struct mirror *m, struct mirror_op *op);
void check_compared(struct mirror *m, struct mirror_op *op, int status);
bool mirror_check_wanted(const struct mirror *m);

static inline uint32_t mirror_region(const struct mirror *m, uint64_t offset)
{
    return (uint32_t)(offset / m->parameters.region_bytes);
}

#endif
