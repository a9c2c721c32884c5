/* Forwarded SCSI on the peer link: frames of type PEER_SCSI_FIRST.. of proto/peer.h. Pure codec, little endian.
 * Header: object = volume id, epoch = the volume's epoch, request = the sender's number, argument = session id
 * (in replies to MANAGE: the response). */
#ifndef DIRECTOR_TARGET_CORE_TARGET_FORWARD_H
#define DIRECTOR_TARGET_CORE_TARGET_FORWARD_H

#include "target/core/scsi_reservation.h"

enum forward_type {
    FORWARD_COMMAND = PEER_SCSI_FIRST,
    FORWARD_REPLY,        /* to COMMAND */
    FORWARD_MANAGE,       /* a task management function */
    FORWARD_MANAGE_REPLY, /* argument: enum scsi_function_response, or FORWARD_MANAGE_NOT_OWNER */
    FORWARD_NEXUS_LOSS,   /* argument: session id; no reply */
};

#define FORWARD_MANAGE_NOT_OWNER 0x100u

enum forward_outcome {
    FORWARD_DONE = 0,
    FORWARD_ABORTED = 1,   /* by task management: no status */
    FORWARD_NOT_OWNER = 2, /* not executed: send it to the owner */
    FORWARD_STALE = 3,     /* ownership was lost on the way: may or may not have been executed */
};

#define FORWARD_REQUEST_FIXED_BYTES 44u
#define FORWARD_REQUEST_MAX_BYTES   (FORWARD_REQUEST_FIXED_BYTES + 2 * TARGET_NAME_BYTES)
#define FORWARD_REPLY_FIXED_BYTES   12u
#define FORWARD_REPLY_MAX_BYTES     (FORWARD_REPLY_FIXED_BYTES + SCSI_SENSE_MAX_BYTES)
#define FORWARD_FLAG_FRESH          0x01u /* first command of this session for this unit */

/* COMMAND and MANAGE before their data-out. */
struct forward_request {
    struct scsi_nexus_id nexus;
    uint8_t flags;
    uint8_t cdb[SCSI_CDB_BYTES]; /* for MANAGE: [0] is the function */
    uint64_t tag;
    uint32_t expected_bytes;
    const uint8_t *data; /* decode: into the payload */
    uint32_t data_bytes;
};

struct forward_reply {
    enum forward_outcome outcome;
    uint8_t status, sense_bytes;
    const uint8_t *sense;
    uint32_t transfer_bytes;
    const uint8_t *data;
    uint32_t data_bytes;
};

/* Write what comes before the data; returns its bytes. */
uint32_t forward_request_encode(const struct forward_request *request, uint8_t to[static FORWARD_REQUEST_MAX_BYTES]);
uint32_t forward_reply_encode(const struct forward_reply *reply, uint8_t to[static FORWARD_REPLY_MAX_BYTES]);
/* Read a whole payload. 0, or -EPROTO when anything does not add up. */
MUST_CHECK int forward_request_decode(const uint8_t *payload, uint32_t bytes, struct forward_request *ret_request);
MUST_CHECK int forward_reply_decode(const uint8_t *payload, uint32_t bytes, struct forward_reply *ret_reply);

#endif
