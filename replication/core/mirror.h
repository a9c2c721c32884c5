/* The mirror: the owner's side of network RAID1 over 1..4 replicas. Pure: see step.h for how it is driven.
 *
 *   IDLE ----CONFIG(owner = self)----> SEALING --every ISR member sealed--> SERVING
 *     ^                                   |                                    |
 *     +------- CONFIG(other owner) -------+---- FENCED or newer epoch seen ----+   (requests: -ESTALE; RELEASE sent)
 *
 * IDLE:    requests are answered -ESTALE.
 * SEALING: requests are held (up to MIRROR_HOLD_US, then -EAGAIN) while each member of the ISR persists our epoch (I2),
 *          waits out the old owner's lease (I7) and reports what was in flight (I6).
 * SERVING: writes go to all of the ISR and complete when all are durable (I3), with dirty marks for the others (I9). The
 *          name "suspended" is used for SERVING while a member of the ISR is not attached.
 *
 * Invariants upheld here: I3 complete_write(), I4 only what config says, I6 unreconciled regions, I7 lease_valid(),
 * I8 grow only after todo is empty with new writes counted, I9 merge before complete, I10 never asks for an empty ISR,
 * I11 another incarnation is resynced in full. */
#ifndef DIRECTOR_REPLICATION_MIRROR_H
#define DIRECTOR_REPLICATION_MIRROR_H

#include "replication/core/step.h"

#define MIRROR_HOLD_US 30000000u /* how long a request is held while suspended, before -EAGAIN */

struct mirror;

struct mirror_parameters {
    uint64_t volume;
    uint64_t size_bytes;   /* at first: it grows with the configuration */
    uint32_t region_bytes; /* (set by the mirror: metadata_region_bytes(size)) */
    uint16_t nodeid;       /* this node */
    uint64_t boot;         /* of this process */
    uint64_t now_us;
    struct mirror_data_operations data;
    uint32_t requests_max;        /* in flight; more wait in a FIFO. 0 = 128 */
    uint64_t member_timeout_us;   /* a member of the ISR is away this long: ask to shrink. 0 = 1 s */
    uint64_t write_timeout_us;    /* a member of the ISR does not answer a write: ask to shrink. 0 = 5 s */
    uint32_t copy_bytes;          /* of one resync step. 0 = 256 KiB */
    uint64_t resync_backoff_us;   /* after a failed resync or a write error, doubling to 64 times. 0 = 1 s */
    uint32_t planted_bugs;        /* tests only: MIRROR_BUG_*, deliberate violations that the checkers must see */
};

/* Deliberate bugs, so that each checker is seen to fail. */
enum mirror_bug {
    MIRROR_BUG_ACK_BEFORE_SHRINK = 1u << 0, /* complete when those that answer have it (I3) */
    MIRROR_BUG_NO_DIRTY = 1u << 1,          /* no dirty marks (I9) */
    MIRROR_BUG_NO_RECONCILE = 1u << 2,      /* serve regions in flight as they are (I6) */
    MIRROR_BUG_NO_LEASE = 1u << 3,          /* answer reads without a lease (I7) */
    MIRROR_BUG_NO_RETURN_INTENT = 1u << 4,  /* ignore what the returning member had in flight */
    MIRROR_BUG_EARLY_GROW = 1u << 5,        /* do not count the joining member while the grow commits (I8) */
    MIRROR_BUG_NO_RANGE_LOCK = 1u << 6,
    MIRROR_BUG_TRUST_JOINER = 1u << 7,      /* a joiner that failed a write stays caught up when its grow is refused (I8) */
    MIRROR_BUG_FAILED_COMPLETE = 1u << 8,   /* a write answered with an error counts as complete everywhere (I6) */
    MIRROR_BUG_TRUST_NEW_PLACE = 1u << 9,   /* a new replica in a place that was emptied inherits no full resync (I11) */
    MIRROR_BUG_NO_CONFIRM = 1u << 10,       /* a verified read is answered without asking the others (I7) */
    MIRROR_BUG_OLD_CONFIRM = 1u << 11,      /* it takes an answer to a question asked before its data was fetched (I7) */
    MIRROR_BUG_RESYNC_UNLOCKED = 1u << 12,  /* resync holds no range: an old copy lands on a newer write (I8) */
    MIRROR_BUG_REPAIR_UNLOCKED = 1u << 13,  /* repair holds no range (I5) */
    MIRROR_BUG_CHECK_UNLOCKED = 1u << 14,   /* verify compares while writes are under way: it finds what is not there */
    MIRROR_BUG_LATE_COPY = 1u << 15,        /* a copy that a failed source may still send is forgotten (I8) */
    REPLICA_BUG_GROW_FORGETS = 1u << 31,    /* marks are lost when the metadata is made for a larger volume (I6, I9) */
    MIRROR_BUG_FLUSH_HERE = 1u << 28,       /* a flush is answered when our own disk has flushed (I5) */
    MIRROR_BUG_COLD_SOURCE = 1u << 29,      /* regions are copied from a member that may have lost its cache (I5) */
    MIRROR_BUG_GROW_UNFLUSHED = 1u << 30,   /* a joiner counts before what it was given is durable there (I5) */
    REPLICA_BUG_NO_SEAL = 1u << 16,         /* accept lower epochs (I2) */
    REPLICA_BUG_NO_INTENT = 1u << 17,       /* data before intent */
    REPLICA_BUG_ACK_EARLY = 1u << 18,       /* ack before durable */
    REPLICA_BUG_NO_PROMISE = 1u << 19,      /* seal at once, whatever was promised (I7) */
    REPLICA_BUG_VOLATILE_DIRTY = 1u << 20,  /* dirty marks not waited for (I9) */
    REPLICA_BUG_NO_BARRIER = 1u << 21,      /* intent bits cleared while their writes are in a volatile cache (I5) */
    REPLICA_BUG_FLUSH_ERROR = 1u << 22,     /* a failed flush counts as done (I12) */
    REPLICA_BUG_NEVER_COLD = 1u << 23,      /* a lost write cache is not told of (I5) */
    REPLICA_BUG_META_ERROR = 1u << 24,      /* metadata that could not be written count as durable (I12) */
    REPLICA_BUG_ONE_SLOT = 1u << 25,        /* the header is always written to the same slot (I13) */
    REPLICA_BUG_ANY_DISK = 1u << 26,        /* seals whatever incarnation the owner means (I11) */
    MIRROR_BUG_EMPTY_ISR = 1u << 27,        /* asks for a set without anybody when the last disk fails (I10) */
};

enum mirror_state { MIRROR_IDLE, MIRROR_SEALING, MIRROR_SERVING };

enum mirror_member_state {
    MIRROR_MEMBER_AWAY,     /* no link */
    MIRROR_MEMBER_SEALING,  /* asked, not answered */
    MIRROR_MEMBER_ATTACHED, /* sealed to our epoch; in sync, or waiting for its resync */
    MIRROR_MEMBER_SYNCING,  /* gets all writes and the regions it lacks */
    MIRROR_MEMBER_REFUSED,  /* another incarnation, or its disk failed */
};

struct mirror_member_status {
    enum mirror_member_state state;
    bool in_sync;             /* in the committed ISR */
    int refused;              /* REFUSED: -ENODEV foreign or blank disk, -EIO failed */
    uint64_t todo_regions;    /* still to copy to it */
    uint64_t total_regions;   /* there were to copy when this resync began */
    uint64_t dirty_regions;   /* marked for it */
    /* Of the resync under way, or the last one: */
    uint64_t total_bytes;      /* that it had to look at */
    uint64_t done_bytes;       /* looked at, and equal now */
    uint64_t compared_bytes;   /* of these: compared by digest first */
    uint64_t sent_bytes;       /* of these: sent as data (equal pieces and zeroes are not) */
    uint64_t bytes_per_second; /* done_bytes, over the last seconds. 0: not known yet */
    uint64_t left_ms;          /* estimate at that speed. UINT64_MAX: not known */
    uint8_t sources;           /* bit i: replica i has sent to it directly or through us */
    /* Since this node became the owner: */
    uint64_t read_errors;      /* reads of it that failed with -EIO or -EBADMSG and were answered by another member */
    uint64_t repaired_blocks;  /* 4 KiB blocks of it rewritten from a good member, read back and compared */
};

/* An online check of the whole volume, while it serves.
 * VERIFY compares digests of all in-sync members block by block (4 KiB), each range while no write to it is under way, so a
 * mismatch is never a write in flight. The majority is right; without one, the member that reads are answered from.
 * SCRUB has each in-sync member read everything, and so check its own checksums; nothing is compared between members. */
enum mirror_check_kind { MIRROR_CHECK_NONE, MIRROR_CHECK_VERIFY, MIRROR_CHECK_SCRUB };

enum mirror_check_state {
    MIRROR_CHECK_IDLE,    /* none was started since the mirror was made */
    MIRROR_CHECK_RUNNING,
    MIRROR_CHECK_WAITING, /* for a member to return, for a resync to end, for a second in-sync member (VERIFY) */
    MIRROR_CHECK_DONE,    /* reached the end of the volume; repairs asked for are through */
    MIRROR_CHECK_STOPPED, /* by mirror_check_stop(), or this node is not the owner any more: start again from position */
};

#define MIRROR_FINDINGS_MAX 16u

struct mirror_check_options {
    enum mirror_check_kind kind;
    bool repair;          /* rewrite blocks that differ or cannot be read from a good member, in place */
    uint64_t from_offset; /* bytes: where to begin, 0 or the position of a check that was stopped */
};

struct mirror_check_status {
    enum mirror_check_kind kind;
    enum mirror_check_state state;
    bool repair;
    uint64_t position;     /* bytes of the volume that are through, from_offset included; all below it was checked */
    uint64_t total_bytes;  /* of the volume */
    uint64_t bytes_per_second; /* over the last seconds; 0: not known yet */
    uint64_t left_ms;          /* estimate; UINT64_MAX: not known */
    /* Counted since this start, in blocks of 4 KiB: */
    uint64_t mismatches;   /* differ between members */
    uint64_t bad_blocks;   /* could not be read, or failed their checksum, on some member */
    uint64_t repaired;     /* rewritten, read back and equal; a block of two members counts twice */
    uint64_t failed;       /* could not be repaired: no good copy, or the rewrite failed */
    uint32_t finding_count; /* the first ones, for the operator */
    struct {
        uint64_t offset, length; /* bytes */
        uint8_t members;         /* bit i: replica i is the one that differs or could not be read */
        bool unreadable;
    } findings[MIRROR_FINDINGS_MAX];
};

struct mirror_status {
    enum mirror_state state;
    bool suspended; /* a member that is needed is not attached, or the read lease has run out */
    uint8_t needed; /* bit i: replica i is waited for */
    uint64_t epoch, isr_version;
    uint64_t size_bytes; /* of the volume */
    uint8_t isr;
    struct mirror_member_status members[MIRROR_REPLICAS_MAX];
    uint64_t unreconciled_regions;
    uint64_t reconciled_regions;  /* since the mirror was made */
    uint64_t resynced_bytes;      /* copied to joining replicas since the mirror was made */
    uint64_t resync_rate;         /* bytes a second that copying and checking may use now; UINT64_MAX: all there is */
    uint64_t repaired_blocks;     /* 4 KiB, all members, since the mirror was made */
    struct mirror_check_status check;
    uint32_t in_flight, waiting;  /* requests */
};

/* A mirror in state IDLE; the caller frees it. NULL: no memory. */
struct mirror *mirror_new(const struct mirror_parameters *parameters);
/* Frees it as a crash would: no effects. To stop in order, feed a CONFIG without owner first. NULL is fine. */
void mirror_free(struct mirror *mirror);
/* One event. Effects are appended to out. -EPROTO: the message was malformed and ignored (the shell should drop the link). */
int mirror_step(struct mirror *mirror, const struct mirror_event *event, uint64_t now_us, struct mirror_effects *out);
/* When the next TICK is wanted, UINT64_MAX: not at all. */
uint64_t mirror_next_tick(const struct mirror *mirror);
void mirror_get_status(const struct mirror *mirror, uint64_t now_us, struct mirror_status *ret_status);

/* Start an online check; work begins with the next step (feed a TICK). Progress and results are in mirror_status.check, and
 * stay there until the next start. 0; -ESTALE: not the owner; -EBUSY: one is running (stop it first); -EINVAL: no such kind,
 * or from_offset is beyond the end. It survives the loss of members; it ends (STOPPED) when this node ceases to be the owner:
 * the next owner starts anew from the position reached. Shares the throttle with resync, and waits for resyncs to end. */
MUST_CHECK int mirror_check_start(struct mirror *mirror, const struct mirror_check_options *options, uint64_t now_us);
/* Stop the running check, keeping its results. Feed a TICK afterwards. -ENOENT: none is running. */
int mirror_check_stop(struct mirror *mirror, uint64_t now_us);

#endif
