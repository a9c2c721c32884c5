#include "proto/peer.h"

#include "director/base/bytes.h"
#include <errno.h>

/* magic 0, type 4, flags 6, payload_bytes 8, payload_crc 12, request 16, object 24, epoch 32, argument 40 */
static_assert(PEER_HEADER_BYTES == 40 + sizeof(uint64_t), "the argument is the last field");

void peer_header_encode(const struct peer_header *header, uint8_t to[static PEER_HEADER_BYTES])
{
    put_le32(to, PEER_MAGIC);
    put_le16(to + 4, header->type);
    put_le16(to + 6, header->flags);
    put_le32(to + 8, header->payload_bytes);
    put_le32(to + 12, header->payload_crc);
    put_le64(to + 16, header->request);
    put_le64(to + 24, header->object);
    put_le64(to + 32, header->epoch);
    put_le64(to + 40, header->argument);
}

int peer_header_decode(const uint8_t from[static PEER_HEADER_BYTES], struct peer_header *ret_header)
{
    if (get_le32(from) != PEER_MAGIC)
        return -EPROTO;
    if (get_le32(from + 8) > PEER_PAYLOAD_MAX_BYTES)
        return -EMSGSIZE;
    *ret_header = (struct peer_header){
        .type = get_le16(from + 4),
        .flags = get_le16(from + 6),
        .payload_bytes = get_le32(from + 8),
        .payload_crc = get_le32(from + 12),
        .request = get_le64(from + 16),
        .object = get_le64(from + 24),
        .epoch = get_le64(from + 32),
        .argument = get_le64(from + 40),
    };
    return 0;
}
