/* The frame header of the peer link: 48 bytes, little endian, then payload_bytes of payload.
 * One codec for both channels; what object, epoch and argument mean is up to the type. No sockets here. */
#ifndef DIRECTOR_PROTO_PEER_H
#define DIRECTOR_PROTO_PEER_H

#include "director/base/common.h"
#include <assert.h>

#define PEER_MAGIC               0x31524944u /* "DIR1" on the wire */
#define PEER_VERSION             1u
#define PEER_VERSION_MIN         1u
#define PEER_HEADER_BYTES        48u
#define PEER_PAYLOAD_MAX_BYTES   ((1u << 20) + 65536u)
#define PEER_PORT                7600

enum peer_channel { PEER_CHANNEL_CONTROL = 0, PEER_CHANNEL_DATA = 1, PEER_CHANNEL_COUNT = 2 };

enum peer_frame_type {
    /* Link: 0x00.. */
    PEER_HELLO = 0x01,         /* payload: PeerHello (protobuf); first frame both ways */
    PEER_ERROR = 0x02,         /* payload: one sentence, argument: its errno; the link closes after it */
    PEER_HEARTBEAT = 0x03,     /* argument: sender's monotonic microseconds */
    PEER_HEARTBEAT_ACK = 0x04, /* argument: echoed */
    /* Control: 0x10.. payload: protobuf of proto/director.proto */
    PEER_JOIN = 0x10,
    PEER_JOIN_REPLY = 0x11,
    PEER_MEMBERS = 0x12, /* ask for the current node list */
    PEER_MEMBERS_REPLY = 0x13,
    PEER_CALL = 0x14, /* an API call forwarded to the node where a live figure arises */
    PEER_CALL_REPLY = 0x15,
    PEER_LIVE = 0x16, /* payload: LiveVolumes; figures of volumes that the sender owns */
    /* Data: 0x20.. object: volume id */
    PEER_VOLUME_UP = 0x20,   /* the sender's mirror device of the volume is open; flag 1: say the same of yours */
    PEER_VOLUME_DOWN = 0x21, /* it is closed */
    /* Replication: 0x40.. object: volume id */
    PEER_MIRROR_FIRST = 0x40,
    PEER_MIRROR_LAST = 0x5f,
    /* Forwarded SCSI: 0x60.. object: volume id */
    PEER_SCSI_FIRST = 0x60,
    PEER_SCSI_LAST = 0x6f,
};

struct peer_header {
    uint16_t type;  /* enum peer_frame_type */
    uint16_t flags; /* of the type */
    uint32_t payload_bytes;
    uint32_t payload_crc; /* CRC32C of the payload; 0 = not computed */
    uint64_t request;     /* echoed in the reply */
    uint64_t object;
    uint64_t epoch;
    uint64_t argument;
};

/* Write the 48 bytes. */
void peer_header_encode(const struct peer_header *header, uint8_t to[static PEER_HEADER_BYTES]);
/* Read 48 bytes from a peer. 0, -EPROTO (magic), or -EMSGSIZE (payload longer than PEER_PAYLOAD_MAX_BYTES). */
MUST_CHECK int peer_header_decode(const uint8_t from[static PEER_HEADER_BYTES], struct peer_header *ret_header);

#endif
