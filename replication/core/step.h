/* Events into and effects out of the two protocol cores: the mirror (owner side) and the replica (member side).
 * Both are driven the same way, by the I/O shell and by the simulator:
 *
 *     effects.count = 0;
 *     mirror_step(mirror, &event, now_us, &effects);      or replica_step(...)
 *     perform effects.items[0..count) in order
 *
 * Time is microseconds of the node's monotonic clock, non-zero and never going back. No call re-enters another.
 *
 * Messages: SEND names a node id. A SEND to the own node is handed, in order, as a MESSAGE to the other core of the same
 * node: owner-to-member frames (mirror_message_to_member()) to the replica, the others to the mirror. Within one link (from
 * LINK_UP to LINK_DOWN at a receiver) messages arrive in order or not at all after the first lost one; when a frame cannot
 * be queued the shell must break the link. Heartbeats travel on that same link and the same queue: FENCED relies on it (I7).
 *
 * Data: bytes of reads and writes are never touched here. A struct mirror_data is a handle of the shell's and an offset in
 * it. Handles are counted by the shell. A handle that arrives in an event (REQUEST, MESSAGE, DISK_DONE) brings one
 * reference, given back by exactly one RELEASE. Handles inside SEND, DISK_READ and DISK_WRITE are borrowed: the shell takes
 * its own reference for as long as it needs the bytes. RELEASE usually precedes COMPLETE; when COMPLETE comes first
 * (deadline of a write that is still under way), the bytes are still needed: the shell copies them or delays.
 *
 * Crash: everything in memory goes; what DISK_DONE and META_DONE confirmed stays, what was started may or may not be there.
 * SEND, COMPLETE and ASK_ISR effects never precede the durability they stand for: the core waits for the DONE event. */
#ifndef DIRECTOR_REPLICATION_STEP_H
#define DIRECTOR_REPLICATION_STEP_H

#include "director/base/list.h"
#include "director/base/uuid.h"
#include "proto/peer.h"
#include <director/block_device.h>
#include <stdbool.h>
#include <stdint.h>

#define MIRROR_REPLICAS_MAX 4u
#define MIRROR_BODY_MAX     96u /* fixed part of any mirror frame */
#define MIRROR_DIGEST_BYTES 16u
#define MIRROR_DIGESTS_MAX  256u /* pieces of one DISK_DIGEST */
#define MIRROR_DIGEST_RANGE_MAX (2u << 20) /* bytes of one */

/* Bytes somewhere: a handle of the shell's and an offset within. handle NULL: none. */
struct mirror_data {
    void *handle;
    uint64_t offset;
};

/* One request to the volume. Memory of the caller from REQUEST until COMPLETE; link is the core's meanwhile. */
struct mirror_request {
    struct list link;
    enum block_operation operation;
    uint32_t flags; /* enum block_request_flags; BLOCK_FUA is implied unless the policy says write-back */
    uint64_t offset_bytes;
    uint64_t length_bytes;
    struct mirror_data data;    /* read: to fill; write: to store; compare_and_write: compare bytes, then write bytes */
    uint64_t deadline_us;       /* set by the core */
    uint64_t ret_miscompare;    /* for COMPLETE with -EILSEQ */
};

/* What the operator set for a volume. All of it may change while the volume is open, except where said. Zero: the defaults. */
struct mirror_policy {
    bool write_back;          /* acknowledged when every in-sync member has it in its cache; a flush is a barrier on all (I5).
                                 false: write-through, durable before the acknowledgement */
    bool verified_reads;      /* a read is answered after the in-sync members confirmed that we are still the owner (I7) */
    uint8_t in_sync_min;      /* a slow member is kept when fewer than this would be left in sync. 0 = 1 */
    uint32_t slow_us;         /* a member that keeps a write waiting this long, while others have it, leaves the in-sync set
                                 (scenario 31). 0 = the mirror's write_timeout_us */
    uint64_t resync_floor;    /* bytes a second for each volume that resync gets however busy the foreground is. 0 = 4 MiB/s */
    uint64_t resync_cap;      /* bytes a second it never exceeds. 0 = no cap */
};

/* What the cluster committed about a volume. */
struct mirror_config {
    uint64_t epoch;
    uint64_t isr_version; /* bumped by every committed change of owner, isr or incarnations, also one that changes nothing */
    uint64_t size_bytes;  /* of the volume: grows with the epoch only. 0 = as it was */
    uint16_t owner;       /* node id, 0 = none */
    uint8_t isr;          /* bit i: replicas[i] is in sync */
    uint8_t replica_count; /* places used in replicas[]; one with nodeid 0 is empty: a replica that was removed */
    struct {
        uint16_t nodeid;
        uint64_t incarnation;
    } replicas[MIRROR_REPLICAS_MAX];
    struct mirror_policy policy;
};

enum mirror_event_type {
    MIRROR_EVENT_CONFIG,                  /* mirror */
    MIRROR_EVENT_MESSAGE,                 /* both */
    MIRROR_EVENT_LINK_UP,                 /* both; never for the own node, which is always up */
    MIRROR_EVENT_LINK_DOWN,               /* both */
    MIRROR_EVENT_HEARTBEAT_ANSWERED,      /* mirror: node answered the heartbeat that we sent at time */
    MIRROR_EVENT_HEARTBEAT_ANSWERED_BY_US, /* replica: we answered a heartbeat of node at time */
    MIRROR_EVENT_NODE_DEAD,               /* both: the process with this boot id is certainly gone */
    MIRROR_EVENT_DISK_DONE,               /* replica */
    MIRROR_EVENT_META_DONE,               /* replica: the one META_WRITE or META_REPLACE under way is durable, or failed */
    MIRROR_EVENT_REQUEST,                 /* mirror */
    MIRROR_EVENT_DRAIN,                   /* mirror: hold new requests, finish those under way, then DRAINED */
    MIRROR_EVENT_RESUME,                  /* mirror: stop draining */
    MIRROR_EVENT_TICK,                    /* both: at the time *_next_tick() names, or any other time */
};

struct mirror_event {
    enum mirror_event_type type;
    uint16_t nodeid;  /* MESSAGE, LINK_*, HEARTBEAT_*, NODE_DEAD */
    uint64_t boot;    /* LINK_UP, NODE_DEAD */
    uint64_t time_us; /* HEARTBEAT_* */
    union {
        const struct mirror_config *config;
        struct {
            struct peer_header header;
            const uint8_t *body; /* valid during the step; ends before the data of WRITE and READ_REPLY */
            uint32_t body_bytes;
            uint32_t data_bytes;
            struct mirror_data data; /* one reference; on a READ to the own node: where to read to */
        } message;
        struct {
            uint64_t token;
            int status;
            struct mirror_data data; /* for a DISK_READ that named no handle: what was read, one reference */
        } disk;
        int meta_status; /* META_DONE */
        struct mirror_request *request;
    };
};

enum mirror_effect_type {
    MIRROR_EFFECT_SEND,
    MIRROR_EFFECT_DISK_READ,  /* answered by DISK_DONE */
    MIRROR_EFFECT_DISK_DIGEST, /* read, hash each piece; answered by DISK_DONE with the digests (MIRROR_DIGEST_BYTES each) as data */
    MIRROR_EFFECT_DISK_WRITE, /* operation BLOCK_WRITE or BLOCK_WRITE_ZEROES, with BLOCK_FUA durable before DISK_DONE. BLOCK_WRITE
                                 with flag BLOCK_MAY_UNMAP: blocks of zeroes within may be unmapped (thin stays thin) */
    MIRROR_EFFECT_DISK_FLUSH, /* what was DONE before is durable at its DISK_DONE; flags: MIRROR_FLUSH_BARRIER */
    MIRROR_EFFECT_META_WRITE, /* pages, in any order, then one barrier; answered by one META_DONE */
    MIRROR_EFFECT_META_REPLACE, /* the whole file, all or nothing, durable before META_DONE */
    MIRROR_EFFECT_COMPLETE,
    MIRROR_EFFECT_RELEASE,
    MIRROR_EFFECT_ASK_ISR,  /* commit VolumeIsr{epoch, isr_version, isr}; repeated until a newer CONFIG comes */
    MIRROR_EFFECT_DRAINED,
    MIRROR_EFFECT_STATE,    /* mirror_state() or its reason changed */
};

/* For DISK_FLUSH: with the data also what is kept about them (checksums at rest). Before intent bits are cleared. DISK_DONE may
 * say -EAGAIN: not now, nothing is wrong. */
#define MIRROR_FLUSH_BARRIER (1u << 8)

enum mirror_ask_reason {
    MIRROR_ASK_MEMBER_AWAY,
    MIRROR_ASK_MEMBER_ERROR,
    MIRROR_ASK_MEMBER_SLOW,
    MIRROR_ASK_MEMBER_FOREIGN, /* another incarnation answers: not the disk that was in sync (I11) */
    MIRROR_ASK_MEMBER_SYNCED,
    MIRROR_ASK_MEMBER_COLD, /* it lost its write cache with its machine's power (I5) */
};

struct mirror_effect {
    enum mirror_effect_type type;
    union {
        struct { /* the frame is body, blob, data, in this order; header.payload_bytes is their sum, payload_crc 0 */
            uint16_t nodeid;
            struct peer_header header;
            uint32_t body_bytes;
            const uint8_t *blob; /* memory of the core, valid until its next step */
            uint32_t blob_bytes;
            struct mirror_data data;
            uint32_t data_bytes;
            uint8_t body[MIRROR_BODY_MAX]; /* last: not zeroed by mirror_effects_add() */
        } send;
        struct {
            uint64_t token;
            enum block_operation operation;
            uint32_t flags;
            uint64_t offset_bytes;
            uint64_t length_bytes;
            struct mirror_data data; /* DISK_READ with NULL: the shell brings a buffer */
            uint32_t piece_bytes;    /* DISK_DIGEST: see mirror_data_operations for what a digest is */
            bool read_only;          /* DISK_DIGEST: all zeroes for whatever can be read; nothing is hashed */
        } disk;
        struct {
            unsigned count;
            const struct metadata_page *pages; /* memory of the core, stable until META_DONE */
        } meta;
        struct {
            const uint8_t *image; /* memory of the core, stable until META_DONE */
            uint64_t bytes;
        } replace;
        struct {
            struct mirror_request *request;
            int status;
        } complete;
        void *release; /* a handle */
        struct {
            uint64_t epoch;
            uint64_t isr_version; /* expected */
            uint8_t isr;
            enum mirror_ask_reason reason;
        } ask_isr;
    };
};

/* One 4 KiB page of the metadata file to be written at offset_bytes. */
struct metadata_page {
    uint64_t offset_bytes;
    uint8_t bytes[4096];
};

/* A growing list that the caller owns and reuses. Zero it before first use; count = 0 before each step. */
struct mirror_effects {
    struct mirror_effect *items;
    unsigned count, capacity;
};

/* Append one zeroed effect. For the cores. */
struct mirror_effect *mirror_effects_add(struct mirror_effects *effects, enum mirror_effect_type type);
void mirror_effects_done(struct mirror_effects *effects);

/* What the cores need to do with bytes. All are immediate. */
struct mirror_data_operations {
    void *context;
    /* A buffer of this size with one reference (given back by RELEASE), or NULL: none now, tried again at the next tick. */
    void *(*alloc)(void *context, uint32_t bytes);
    void (*copy)(void *context, struct mirror_data to, struct mirror_data from, uint64_t bytes);
    /* Equal? Otherwise the offset of the first differing byte. */
    bool (*equal)(void *context, struct mirror_data a, struct mirror_data b, uint64_t bytes, uint64_t *ret_differs);
    /* Nothing but zeroes? */
    bool (*zero)(void *context, struct mirror_data data, uint64_t bytes);
    /* Digest number index of the data of a DISK_DIGEST or DIGEST_REPLY: SHA-256 of the piece cut to 128 bits, but all zeroes
     * for a piece of zeroes, and all ones for a piece that could not be read (-EIO, -EBADMSG). */
    void (*digest)(void *context, struct mirror_data digests, uint32_t index, uint8_t ret_digest[MIRROR_DIGEST_BYTES]);
};

/* Which core a frame is for: true the replica, false the mirror. */
bool mirror_message_to_member(uint16_t type);
/* Split a payload: bytes of body before the data. -EPROTO for a type or length that cannot be. */
MUST_CHECK int mirror_message_split(const struct peer_header *header, uint32_t payload_bytes, uint32_t *ret_body_bytes);

#endif
