#include "target/core/target_forward.h"

#include "director/base/bytes.h"
#include <errno.h>

enum { VERSION = 1 };

/* version 0, flags 1, port 2, isid 4, name lengths 10 and 11, cdb 12, expected 28, tag 32, data bytes 40, names 44 */
uint32_t forward_request_encode(const struct forward_request *request, uint8_t to[static FORWARD_REQUEST_MAX_BYTES])
{
    size_t initiator = strlen(request->nexus.initiator), target = strlen(request->nexus.target);
    ASSERT(initiator < TARGET_NAME_BYTES && target < TARGET_NAME_BYTES);
    to[0] = VERSION;
    to[1] = request->flags;
    put_le16(to + 2, request->nexus.port);
    memcpy(to + 4, request->nexus.isid, 6);
    to[10] = (uint8_t)initiator;
    to[11] = (uint8_t)target;
    memcpy(to + 12, request->cdb, SCSI_CDB_BYTES);
    put_le32(to + 28, request->expected_bytes);
    put_le64(to + 32, request->tag);
    put_le32(to + 40, request->data_bytes);
    memcpy(to + FORWARD_REQUEST_FIXED_BYTES, request->nexus.initiator, initiator);
    memcpy(to + FORWARD_REQUEST_FIXED_BYTES + initiator, request->nexus.target, target);
    return FORWARD_REQUEST_FIXED_BYTES + (uint32_t)(initiator + target);
}

int forward_request_decode(const uint8_t *payload, uint32_t bytes, struct forward_request *ret_request)
{
    if (bytes < FORWARD_REQUEST_FIXED_BYTES || payload[0] != VERSION)
        return -EPROTO;
    uint32_t initiator = payload[10], target = payload[11], data = get_le32(payload + 40);
    const uint8_t *names = payload + FORWARD_REQUEST_FIXED_BYTES;
    if (initiator >= TARGET_NAME_BYTES || target >= TARGET_NAME_BYTES || data > TARGET_TRANSFER_MAX_BYTES ||
        bytes != FORWARD_REQUEST_FIXED_BYTES + initiator + target + data)
        return -EPROTO;
    if (memchr(names, 0, initiator + target))
        return -EPROTO;
    *ret_request = (struct forward_request){
        .nexus.port = get_le16(payload + 2),
        .flags = payload[1],
        .expected_bytes = get_le32(payload + 28),
        .tag = get_le64(payload + 32),
        .data = names + initiator + target,
        .data_bytes = data,
    };
    memcpy(ret_request->nexus.isid, payload + 4, 6);
    memcpy(ret_request->cdb, payload + 12, SCSI_CDB_BYTES);
    memcpy(ret_request->nexus.initiator, names, initiator);
    memcpy(ret_request->nexus.target, names + initiator, target);
    return 0;
}

/* version 0, outcome 1, status 2, sense bytes 3, transfer 4, data bytes 8, sense 12 */
uint32_t forward_reply_encode(const struct forward_reply *reply, uint8_t to[static FORWARD_REPLY_MAX_BYTES])
{
    ASSERT(reply->sense_bytes <= SCSI_SENSE_MAX_BYTES);
    to[0] = VERSION;
    to[1] = (uint8_t)reply->outcome;
    to[2] = reply->status;
    to[3] = reply->sense_bytes;
    put_le32(to + 4, reply->transfer_bytes);
    put_le32(to + 8, reply->data_bytes);
    if (reply->sense_bytes)
        memcpy(to + FORWARD_REPLY_FIXED_BYTES, reply->sense, reply->sense_bytes);
    return FORWARD_REPLY_FIXED_BYTES + reply->sense_bytes;
}

int forward_reply_decode(const uint8_t *payload, uint32_t bytes, struct forward_reply *ret_reply)
{
    if (bytes < FORWARD_REPLY_FIXED_BYTES || payload[0] != VERSION || payload[1] > FORWARD_STALE)
        return -EPROTO;
    uint32_t sense = payload[3], data = get_le32(payload + 8);
    if (sense > SCSI_SENSE_MAX_BYTES || data > TARGET_TRANSFER_MAX_BYTES ||
        bytes != FORWARD_REPLY_FIXED_BYTES + sense + data)
        return -EPROTO;
    *ret_reply = (struct forward_reply){
        .outcome = (enum forward_outcome)payload[1],
        .status = payload[2],
        .sense_bytes = (uint8_t)sense,
        .sense = payload + FORWARD_REPLY_FIXED_BYTES,
        .transfer_bytes = get_le32(payload + 4),
        .data = payload + FORWARD_REPLY_FIXED_BYTES + sense,
        .data_bytes = data,
    };
    return 0;
}
