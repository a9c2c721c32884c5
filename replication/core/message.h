/* Mirror frames: types 0x40..0x5f on struct peer_header. object is the volume id, epoch the sender's epoch.
 * All integers are little endian. Owner to member unless said otherwise; see replication/README.md for the table.
 *
 * A session is one attachment of a member: (boot of the owner's process, attach number). attach numbers grow within a
 * boot, so that what an earlier attachment left on the way is recognised and dropped. Sequence numbers of writes grow
 * within an attachment and name the write in the reply; a resent write keeps its number. */
#ifndef DIRECTOR_REPLICATION_MESSAGE_H
#define DIRECTOR_REPLICATION_MESSAGE_H

#include "replication/core/step.h"

enum mirror_message_type {
    MIRROR_SEAL = 0x40,         /* request: attach number; argument: complete_seq */
    MIRROR_SEAL_REPLY = 0x41,   /* member to owner; request echoed; bitmaps follow */
    MIRROR_WRITE = 0x42,        /* request: sequence; argument: complete_seq; data follows for BLOCK_WRITE */
    MIRROR_WRITE_REPLY = 0x43,  /* member to owner; argument: status */
    MIRROR_READ = 0x44,         /* request: token */
    MIRROR_READ_REPLY = 0x45,   /* member to owner; argument: status; data follows when it is 0 */
    MIRROR_COMPLETE = 0x46,     /* argument: complete_seq: every write up to it is complete on the whole ISR */
    MIRROR_BITMAP = 0x47,       /* request: number; one dirty bitmap to merge or to keep */
    MIRROR_BITMAP_REPLY = 0x48, /* member to owner: it is durable; argument: status */
    MIRROR_RECONCILED = 0x49,   /* all that the member reported when it attached is equal everywhere now */
    MIRROR_FENCED = 0x4a,       /* member to owner: sealed, or about to be, by epoch (header) */
    MIRROR_RELEASE = 0x4b,      /* owner that serves epoch (header) no more: its lease is given back */
    MIRROR_CONFIRM = 0x54,      /* request: number; are you still bound by our epoch? (I7) */
    MIRROR_CONFIRM_REPLY = 0x55, /* member to owner: yes; request echoed. No answer otherwise */
    MIRROR_DIGEST = 0x4e,       /* request: token; digests of a range wanted, piece by piece */
    MIRROR_DIGEST_REPLY = 0x4f, /* member to owner; argument: status; the digests follow when it is 0 */
    MIRROR_COPY = 0x50,         /* request: token; argument: sequence of the write; send a range to a joiner as COPIED */
    MIRROR_COPY_REPLY = 0x51,   /* member to owner; argument: status, below 0: nothing was sent and nothing will be */
    MIRROR_COPIED = 0x52,       /* member to joiner, in the joiner's session with the owner; else as WRITE. The owner gets WRITE_REPLY */
    MIRROR_FLUSH = 0x4c,        /* request: number; durable shall be every WRITE that came before it on this link */
    MIRROR_FLUSH_REPLY = 0x4d,  /* member to owner; request echoed; argument: status */
};

enum mirror_seal_flags {
    MIRROR_SEAL_CONTINUED = 1u << 0, /* reply: memory of this owner instance is still there */
};

enum mirror_bitmap_action { MIRROR_BITMAP_MERGE = 1, MIRROR_BITMAP_KEEP = 2 };

struct mirror_message {
    uint16_t type;
    uint64_t epoch, request, argument;
    uint64_t boot, attach; /* the session: owner to member; echoed by replies */
    /* SEAL */
    uint64_t instance;    /* of the owner's mirror object: sequence numbers start anew with it */
    uint64_t size_bytes;  /* SEAL: of the volume; larger than what the member knows: it has grown */
    uint64_t incarnation; /* SEAL: expected; SEAL_REPLY: found; BITMAP: of the disk that it is about */
    uint32_t regions;
    uint8_t replica_index; /* SEAL: the member's; BITMAP: whom it is about */
    /* SEAL_REPLY: argument is the status: 0, -ENODEV, -EIO, -EAGAIN (not yet); bitmaps bit 0 carry, bits 1..4 dirty of replica
     * 0..3, bit 5 cold: regions of carry that may lack writes that were acknowledged here (I5) */
    uint32_t flags;
    uint8_t bitmaps;
    uint64_t dirty_incarnation[MIRROR_REPLICAS_MAX];
    const uint8_t *blob; /* SEAL_REPLY, BITMAP: bitmap_bytes(regions) for each bitmap present, lowest bit first */
    uint32_t blob_bytes;
    /* WRITE, READ */
    uint64_t offset_bytes;
    uint64_t length_bytes;
    uint8_t operation;  /* BLOCK_WRITE or BLOCK_WRITE_ZEROES */
    uint8_t dirty_mask; /* replicas to mark before the ack (I9) */
    uint32_t io_flags;
    uint8_t action; /* BITMAP: enum mirror_bitmap_action */
    /* DIGEST: of offset_bytes, length_bytes */
    uint32_t piece_bytes;
    bool read_only; /* only whether each piece can be read */
    /* COPY: of offset_bytes, length_bytes */
    uint16_t joiner;        /* node id */
    uint64_t joiner_attach; /* its session with the owner */
};

/* Bounds-checked decode of a body (without data). 0 or -EPROTO. Ranges are checked for overflow, not against a volume. */
MUST_CHECK int mirror_message_decode(const struct peer_header *header, const uint8_t *body, uint32_t body_bytes,
                                     uint32_t data_bytes, struct mirror_message *ret_message);
/* Fill header, body, blob of a SEND effect; data is the caller's to add (with data_bytes for the total). */
void mirror_message_encode(const struct mirror_message *message, uint64_t volume, uint32_t data_bytes,
                           struct mirror_effect *effect);

#endif
