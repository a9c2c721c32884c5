#include "target/core/scsi_sense.h"

#include "director/base/bytes.h"
#include "director/base/common.h"

/* Sense key specific data, field pointer format: SPC-4 r37 §4.5.2.4.2, table 50. */
static void encode_field(const struct scsi_sense *sense, uint8_t to[3])
{
    to[0] = 0x80 | (sense->field_in_cdb ? 0x40 : 0);
    if (sense->field_bit != 0xff)
        to[0] |= 0x08 | (sense->field_bit & 7);
    put_be16(to + 1, sense->field_byte);
}

/* SPC-4 r37 §4.5.3, table 53 */
static uint8_t encode_fixed(const struct scsi_sense *sense, uint8_t *to)
{
    to[0] = 0x70;
    to[2] = (uint8_t)(sense->code >> 16);
    /* The field has four bytes; a larger value is not reported here (VALID stays 0). */
    if (sense->has_information && sense->information <= UINT32_MAX) {
        to[0] |= 0x80;
        put_be32(to + 3, (uint32_t)sense->information);
    }
    to[7] = 10;
    to[12] = (uint8_t)(sense->code >> 8);
    to[13] = (uint8_t)sense->code;
    if (sense->has_field)
        encode_field(sense, to + 15);
    return 18;
}

/* SPC-4 r37 §4.5.2, table 45 */
static uint8_t encode_descriptors(const struct scsi_sense *sense, uint8_t *to)
{
    uint8_t length = 8;
    to[0] = 0x72;
    to[1] = (uint8_t)(sense->code >> 16);
    to[2] = (uint8_t)(sense->code >> 8);
    to[3] = (uint8_t)sense->code;
    if (sense->has_information) { /* §4.5.2.2 */
        to[length] = 0x00;
        to[length + 1] = 0x0a;
        to[length + 2] = 0x80;
        put_be64(to + length + 4, sense->information);
        length += 12;
    }
    if (sense->has_field) { /* §4.5.2.4 */
        to[length] = 0x02;
        to[length + 1] = 0x06;
        encode_field(sense, to + length + 4);
        length += 8;
    }
    to[7] = (uint8_t)(length - 8);
    return length;
}

uint8_t scsi_sense_encode(const struct scsi_sense *sense, bool descriptor, uint8_t to[static SCSI_SENSE_MAX_BYTES])
{
    memset(to, 0, SCSI_SENSE_MAX_BYTES);
    return descriptor ? encode_descriptors(sense, to) : encode_fixed(sense, to);
}

uint32_t scsi_unit_attention_first(uint32_t pending, uint32_t *ret_bit)
{
    static const uint16_t codes[SCSI_UA_COUNT] = {0x2900, 0x2903, 0x2907, 0x2f00, 0x2a03, 0x2a04,
                                                  0x2a05, 0x2a01, 0x2a06, 0x2a09, 0x3f0e, 0x2800};
    ASSERT(pending != 0 && pending < 1u << SCSI_UA_COUNT);
    unsigned bit = (unsigned)__builtin_ctz(pending);
    *ret_bit = 1u << bit;
    return 6u << 16 | codes[bit];
}
