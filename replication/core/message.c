#include "replication/core/message.h"
#include "director/base/bytes.h"
#include "replication/core/bitmap.h"
#include "replication/core/metadata.h"
#include <errno.h>
#include <string.h>

/* Bodies. Every body begins with the session, 16 bytes: boot, attach.
 *   SEAL         instance u64, incarnation u64, regions u32, replica index u8, 3 zero, size u64   48
 *   SEAL_REPLY   incarnation u64, regions u32, flags u32, bitmaps u8, 7 zero, dirty incarnations 4 * u64   72, bitmaps
 *   WRITE        offset u64, length u64, flags u32, operation u8, dirty mask u8, 2 zero      40, data
 *   READ         offset u64, length u64                                                      32
 *   READ_REPLY   (nothing more)                                                              16, data
 *   BITMAP       incarnation u64, regions u32, replica index u8, action u8, 2 zero           32, bitmap
 *   DIGEST       offset u64, length u64, piece u32, flags u32 (1 read only)                  40
 *   DIGEST_REPLY (nothing more)                                                              16, 16 for each piece
 *   COPY         offset u64, length u64, joiner's attach u64, joiner's node u16, 6 zero      48
 *   COPIED       as WRITE                                                                    40, data
 *   others       (nothing more)                                                              16 */
#define SESSION_BYTES    16u
#define SEAL_BYTES       48u
#define SEAL_REPLY_BYTES 72u
#define WRITE_BYTES      40u
#define READ_BYTES       32u
#define BITMAP_BYTES     32u
#define DIGEST_BYTES     40u
#define COPY_BYTES       48u
#define DIGEST_READ_ONLY 1u
static_assert(SEAL_REPLY_BYTES <= MIRROR_BODY_MAX, "the fixed part fits into an effect");

static uint32_t fixed_bytes(uint16_t type)
{
    switch (type) {
    case MIRROR_SEAL: return SEAL_BYTES;
    case MIRROR_SEAL_REPLY: return SEAL_REPLY_BYTES;
    case MIRROR_COPY: return COPY_BYTES;
    case MIRROR_COPIED:
    case MIRROR_WRITE: return WRITE_BYTES;
    case MIRROR_READ: return READ_BYTES;
    case MIRROR_BITMAP: return BITMAP_BYTES;
    case MIRROR_DIGEST: return DIGEST_BYTES;
    case MIRROR_COPY_REPLY:
    case MIRROR_DIGEST_REPLY:
    case MIRROR_WRITE_REPLY:
    case MIRROR_READ_REPLY:
    case MIRROR_COMPLETE:
    case MIRROR_BITMAP_REPLY:
    case MIRROR_RECONCILED:
    case MIRROR_FENCED:
    case MIRROR_RELEASE:
    case MIRROR_CONFIRM:
    case MIRROR_CONFIRM_REPLY:
    case MIRROR_FLUSH:
    case MIRROR_FLUSH_REPLY: return SESSION_BYTES;
    default: return 0;
    }
}

bool mirror_message_to_member(uint16_t type)
{
    switch (type) {
    case MIRROR_SEAL_REPLY:
    case MIRROR_WRITE_REPLY:
    case MIRROR_READ_REPLY:
    case MIRROR_BITMAP_REPLY:
    case MIRROR_CONFIRM_REPLY:
    case MIRROR_DIGEST_REPLY:
    case MIRROR_COPY_REPLY:
    case MIRROR_FLUSH_REPLY:
    case MIRROR_FENCED: return false;
    default: return true;
    }
}

static bool with_data(uint16_t type)
{
    return type == MIRROR_WRITE || type == MIRROR_COPIED || type == MIRROR_READ_REPLY || type == MIRROR_DIGEST_REPLY;
}

int mirror_message_split(const struct peer_header *header, uint32_t payload_bytes, uint32_t *ret_body_bytes)
{
    uint32_t fixed = fixed_bytes(header->type);
    if (fixed == 0 || payload_bytes < fixed)
        return -EPROTO;
    *ret_body_bytes = with_data(header->type) ? fixed : payload_bytes;
    return 0;
}

static int check_blob(const struct mirror_message *m, unsigned count)
{
    if (m->regions == 0 || m->regions > METADATA_REGIONS_MAX)
        return -EPROTO;
    return m->blob_bytes == count * bitmap_bytes(m->regions) ? 0 : -EPROTO;
}

static int decode_write(struct mirror_message *m, const uint8_t *b, uint32_t data_bytes)
{
    m->offset_bytes = get_le64(b);
    m->length_bytes = get_le64(b + 8);
    m->io_flags = get_le32(b + 16);
    m->operation = b[20];
    m->dirty_mask = b[21];
    if (m->operation != BLOCK_WRITE && m->operation != BLOCK_WRITE_ZEROES)
        return -EPROTO;
    if (m->length_bytes == 0 || m->offset_bytes + m->length_bytes < m->offset_bytes ||
        m->dirty_mask >> MIRROR_REPLICAS_MAX)
        return -EPROTO;
    return data_bytes == (m->operation == BLOCK_WRITE ? m->length_bytes : 0) ? 0 : -EPROTO;
}

int mirror_message_decode(const struct peer_header *header, const uint8_t *body, uint32_t body_bytes,
                          uint32_t data_bytes, struct mirror_message *ret_message)
{
    struct mirror_message m = {.type = header->type, .epoch = header->epoch, .request = header->request,
                               .argument = header->argument};
    uint32_t fixed = fixed_bytes(header->type);
    int result = 0;
    if (fixed == 0 || body_bytes < fixed)
        return -EPROTO;
    m.boot = get_le64(body);
    m.attach = get_le64(body + 8);
    m.blob = body + fixed;
    m.blob_bytes = body_bytes - fixed;
    const uint8_t *b = body + SESSION_BYTES;
    if (data_bytes && !with_data(m.type))
        return -EPROTO;
    switch (header->type) {
    case MIRROR_SEAL:
        m.instance = get_le64(b);
        m.incarnation = get_le64(b + 8);
        m.regions = get_le32(b + 16);
        m.replica_index = b[20];
        m.size_bytes = get_le64(b + 24);
        result = m.replica_index < MIRROR_REPLICAS_MAX && m.blob_bytes == 0 && m.size_bytes &&
                         m.size_bytes <= (uint64_t)METADATA_REGIONS_MAX << 31
                     ? 0
                     : -EPROTO;
        break;
    case MIRROR_SEAL_REPLY:
        m.incarnation = get_le64(b);
        m.regions = get_le32(b + 8);
        m.flags = get_le32(b + 12);
        m.bitmaps = b[16];
        for (unsigned i = 0; i < MIRROR_REPLICAS_MAX; i++)
            m.dirty_incarnation[i] = get_le64(b + 24 + 8 * i);
        result = m.bitmaps >> METADATA_BITMAPS ? -EPROTO : check_blob(&m, (unsigned)__builtin_popcount(m.bitmaps));
        break;
    case MIRROR_COPY:
        m.offset_bytes = get_le64(b);
        m.length_bytes = get_le64(b + 8);
        m.joiner_attach = get_le64(b + 16);
        m.joiner = get_le16(b + 24);
        if (m.blob_bytes || m.length_bytes == 0 || m.length_bytes > PEER_PAYLOAD_MAX_BYTES - WRITE_BYTES ||
            m.offset_bytes + m.length_bytes < m.offset_bytes)
            result = -EPROTO;
        break;
    case MIRROR_COPIED:
    case MIRROR_WRITE:
        result = m.blob_bytes ? -EPROTO : decode_write(&m, b, data_bytes);
        break;
    case MIRROR_READ:
        m.offset_bytes = get_le64(b);
        m.length_bytes = get_le64(b + 8);
        result = m.blob_bytes || m.length_bytes == 0 || m.length_bytes > PEER_PAYLOAD_MAX_BYTES - SESSION_BYTES ||
                         m.offset_bytes + m.length_bytes < m.offset_bytes
                     ? -EPROTO
                     : 0;
        break;
    case MIRROR_DIGEST:
        m.offset_bytes = get_le64(b);
        m.length_bytes = get_le64(b + 8);
        m.piece_bytes = get_le32(b + 16);
        m.read_only = get_le32(b + 20) & DIGEST_READ_ONLY;
        if (m.blob_bytes || m.piece_bytes < 4096 || m.piece_bytes % 4096 || m.length_bytes == 0 ||
            m.length_bytes > MIRROR_DIGEST_RANGE_MAX || (m.length_bytes + m.piece_bytes - 1) / m.piece_bytes > MIRROR_DIGESTS_MAX ||
            m.offset_bytes + m.length_bytes < m.offset_bytes)
            result = -EPROTO;
        break;
    case MIRROR_DIGEST_REPLY:
        result = m.blob_bytes || data_bytes % MIRROR_DIGEST_BYTES || data_bytes > MIRROR_DIGESTS_MAX * MIRROR_DIGEST_BYTES
                     ? -EPROTO
                     : 0;
        break;
    case MIRROR_BITMAP:
        m.incarnation = get_le64(b);
        m.regions = get_le32(b + 8);
        m.replica_index = b[12];
        m.action = b[13];
        if (m.replica_index >= MIRROR_REPLICAS_MAX || (m.action != MIRROR_BITMAP_MERGE && m.action != MIRROR_BITMAP_KEEP))
            result = -EPROTO;
        else
            result = check_blob(&m, 1);
        break;
    default:
        result = m.blob_bytes ? -EPROTO : 0;
    }
    if (result == 0)
        *ret_message = m;
    return result;
}

void mirror_message_encode(const struct mirror_message *m, uint64_t volume, uint32_t data_bytes,
                           struct mirror_effect *effect)
{
    uint8_t *body = effect->send.body, *b = body + SESSION_BYTES;
    memset(body, 0, MIRROR_BODY_MAX);
    put_le64(body, m->boot);
    put_le64(body + 8, m->attach);
    switch (m->type) {
    case MIRROR_SEAL:
        put_le64(b, m->instance);
        put_le64(b + 8, m->incarnation);
        put_le32(b + 16, m->regions);
        b[20] = m->replica_index;
        put_le64(b + 24, m->size_bytes);
        break;
    case MIRROR_SEAL_REPLY:
        put_le64(b, m->incarnation);
        put_le32(b + 8, m->regions);
        put_le32(b + 12, m->flags);
        b[16] = m->bitmaps;
        for (unsigned i = 0; i < MIRROR_REPLICAS_MAX; i++)
            put_le64(b + 24 + 8 * i, m->dirty_incarnation[i]);
        break;
    case MIRROR_COPY:
        put_le64(b, m->offset_bytes);
        put_le64(b + 8, m->length_bytes);
        put_le64(b + 16, m->joiner_attach);
        put_le16(b + 24, m->joiner);
        break;
    case MIRROR_COPIED:
    case MIRROR_WRITE:
        put_le64(b, m->offset_bytes);
        put_le64(b + 8, m->length_bytes);
        put_le32(b + 16, m->io_flags);
        b[20] = m->operation;
        b[21] = m->dirty_mask;
        break;
    case MIRROR_READ:
        put_le64(b, m->offset_bytes);
        put_le64(b + 8, m->length_bytes);
        break;
    case MIRROR_DIGEST:
        put_le64(b, m->offset_bytes);
        put_le64(b + 8, m->length_bytes);
        put_le32(b + 16, m->piece_bytes);
        put_le32(b + 20, m->read_only ? DIGEST_READ_ONLY : 0);
        break;
    case MIRROR_BITMAP:
        put_le64(b, m->incarnation);
        put_le32(b + 8, m->regions);
        b[12] = m->replica_index;
        b[13] = m->action;
        break;
    default:
        break;
    }
    effect->send.body_bytes = fixed_bytes(m->type);
    effect->send.blob = m->blob;
    effect->send.blob_bytes = m->blob_bytes;
    effect->send.data_bytes = data_bytes;
    effect->send.header = (struct peer_header){
        .type = m->type,
        .payload_bytes = effect->send.body_bytes + m->blob_bytes + data_bytes,
        .request = m->request,
        .object = volume,
        .epoch = m->epoch,
        .argument = m->argument,
    };
}
