/* Words shared by the pure core and the libuv side of the target: identities, ports, states, the forwarding seam. */
#ifndef DIRECTOR_TARGET_CORE_TARGET_TYPES_H
#define DIRECTOR_TARGET_CORE_TARGET_TYPES_H

#include "director/base/uuid.h"
#include "proto/peer.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define TARGET_PORTS_MAX          128u
#define TARGET_LUNS_MAX           256u
#define TARGET_NAME_BYTES         224u /* iSCSI names: 223 bytes and the NUL, RFC 7143 §4.2.7.1 */
#define TARGET_TRANSFER_MAX_BYTES (1u << 20) /* longest data of one command; VPD page B0 says so */

enum target_lu_state { TARGET_LU_TRANSITION = 0, TARGET_LU_ACTIVE = 1, TARGET_LU_FORWARD = 2 };

/* One portal of the cluster. */
struct target_port {
    uint16_t nodeid;  /* 1.. */
    uint16_t port;    /* TCP */
    bool alive;
    char address[64]; /* numeric, IPv6 without brackets */
};

/* What makes a logical unit the same on every node. */
struct target_lu_identity {
    uint64_t volume_id;
    struct uuid uuid;         /* NAA designator and unit serial number are made of it */
    char name[64];            /* shown in the T10 vendor designator */
    uint64_t size_bytes;      /* a multiple of block_bytes */
    uint32_t block_bytes;     /* 512 or 4096 */
    uint32_t physical_bytes;  /* 0: same as block_bytes */
    bool read_only;
    bool removable;           /* RMB set; START STOP UNIT can eject */
    bool thin;                /* UNMAP and WRITE SAME with UNMAP offered, LBPRZ set: unmapped blocks read as zeroes */
};

/* How frames get to another node. Implemented by the agent's peer mesh. */
struct target_forward_operations {
    /* Send header and payload (iov_count <= 4) to nodeid. The implementation fills header->payload_crc if it wants one
     * (it copies the header), payload memory stays untouched until done(argument). 0: done runs exactly once, whatever
     * happens to the frame, possibly before send returns. Negative (-ENOTCONN, -EAGAIN queue full): done never runs. */
    int (*send)(void *context, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov,
                unsigned iov_count, void (*done)(void *argument), void *argument);
};

struct target_session_info {
    uint64_t id;
    const char *initiator; /* iSCSI name */
    const char *target;    /* iSCSI name; "" for discovery */
    const char *peer;      /* address:port of the initiator */
    uint8_t isid[6];
    uint16_t tsih;
    uint32_t commands_in_flight;
    uint64_t commands, read_bytes, written_bytes;
};

struct target_lu_stats {
    uint64_t commands, forwarded, held; /* received by this node's portals */
    uint64_t executed, reads, writes, read_bytes, written_bytes; /* as owner */
    uint32_t nexuses;                   /* known to the device server here */
};

#endif
