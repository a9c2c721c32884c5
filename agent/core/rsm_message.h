/* The wire and disk forms of the replicated log: messages between members, log entries, snapshots. Little endian.
 *
 * Message: version u8, type u8, flags u8, 0 u8, to u16, 0 u16, cluster u64, view u64, term u64, then the type's own u64
 * fields in the order of the table in rsm_message.c, then for some types data to the end. Canonical: what decodes encodes to the same
 * bytes. Entry and snapshot carry a CRC32C, since they lie on disk and travel unchanged. */
#ifndef DIRECTOR_AGENT_CORE_RSM_MESSAGE_H
#define DIRECTOR_AGENT_CORE_RSM_MESSAGE_H

#include "agent/core/rsm.h"

#define RSM_WIRE_VERSION          1u
#define RSM_MESSAGE_HEADER_BYTES  32u
#define RSM_ENTRY_HEADER_BYTES    40u
#define RSM_ENTRY_OVERHEAD_BYTES  (RSM_ENTRY_HEADER_BYTES + 4u)
#define RSM_SNAPSHOT_HEADER_BYTES 24u

enum rsm_message_type {
    RSM_STATE = 1,          /* term, last_term, last_index, commit, boot: how the sender stands; in each view */
    RSM_CLAIM = 2,          /* sender wants to sequence `term`; PROBE: would you grant it? HANDOVER: the old one wants it */
    RSM_GRANT = 3,          /* to the claimant: GRANTED or refused, with own_term and own last_term, last_index */
    RSM_APPEND = 4,         /* entries that follow (previous_index, previous_term); to 0: for all */
    RSM_ACK = 5,            /* index: durable and equal up to it. REJECT: index does not match, try from last_index. LAG: behind */
    RSM_SNAPSHOT = 6,       /* a piece at offset of the snapshot (index), total bytes */
    RSM_SNAPSHOT_ACK = 7,   /* offset: received so far */
    RSM_SUBMIT = 8,         /* (sender, boot, sequence) proposes data; change in flags */
    RSM_HEARTBEAT = 9,      /* commit and last_index of the sequencer */
    RSM_BARRIER = 10,       /* sender asks for a read index; round names the question */
    RSM_BARRIER_ACK = 11,   /* a voter's term after origin's question */
    RSM_BARRIER_ANSWER = 12, /* index: apply up to it, then read */
    RSM_HANDOVER = 13,      /* to: claim now, the sequencer leaves */
    RSM_MESSAGE_TYPES
};

enum rsm_message_flags {
    RSM_FLAG_SEQUENCER = 1, /* STATE */
    RSM_FLAG_PROBE = 1,     /* CLAIM, GRANT */
    RSM_FLAG_HANDOVER = 2,  /* CLAIM */
    RSM_FLAG_GRANTED = 2,   /* GRANT */
    RSM_FLAG_REJECT = 1,    /* ACK */
    RSM_FLAG_LAG = 2,       /* ACK */
};

struct rsm_message {
    enum rsm_message_type type;
    uint8_t flags;
    uint16_t to; /* nodeid, 0: all */
    uint64_t cluster, view, term;
    uint64_t boot, sequence, index, last_index, last_term, previous_index, previous_term, commit, own_term;
    uint64_t total, offset, round, origin, change_nodeid;
    struct rsm_blob data; /* within the bytes decoded */
};

/* Bytes of message into a new allocation (free()); the caller's lengths are trusted. */
uint8_t *rsm_message_encode(const struct rsm_message *message, size_t *ret_size);
/* -EPROTO unless it is the canonical form of a message within all limits; entries of APPEND are checked too. */
MUST_CHECK int rsm_message_decode(const uint8_t *data, size_t size, struct rsm_message *ret_message);

/* A set of voters, ascending, no 0. */
struct rsm_config {
    uint16_t voters[RSM_NODES_MAX];
    size_t count;
};
/* Place of nodeid among the voters, or -1. */
int rsm_config_find(const struct rsm_config *config, uint16_t nodeid);
bool rsm_config_add(struct rsm_config *config, uint16_t nodeid);    /* false: it is there, or the set is full */
bool rsm_config_remove(struct rsm_config *config, uint16_t nodeid); /* false: it is not there */

struct rsm_entry {
    uint64_t index, term;
    enum rsm_entry_kind kind;
    uint16_t origin; /* request id: origin, boot, sequence; 0: none */
    uint64_t boot, sequence;
    struct rsm_config config; /* CONFIG only */
    struct rsm_blob data;     /* for the tree */
};

/* New allocation (free()). */
uint8_t *rsm_entry_encode(const struct rsm_entry *entry, size_t *ret_size);
/* Decode the entry at the front of size bytes; *ret_used is its length. ret_entry->data points into data. -EBADMSG. */
MUST_CHECK int rsm_entry_decode(const uint8_t *data, size_t size, struct rsm_entry *ret_entry, size_t *ret_used);

struct rsm_snapshot_header {
    uint64_t index, term;
    struct rsm_config config;
    struct rsm_blob data; /* for the tree */
};
uint8_t *rsm_snapshot_encode(const struct rsm_snapshot_header *snapshot, size_t *ret_size);
MUST_CHECK int rsm_snapshot_decode(const uint8_t *data, size_t size, struct rsm_snapshot_header *ret_snapshot);

#endif
