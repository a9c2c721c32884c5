/* INQUIRY: standard data (SPC-4 r37 §6.6.2) and vital product data (§7.8, SBC-3 r36 §6.6). */
#include "target/core/scsi_unit.h"

#include "director/base/bytes.h"
#include "target/core/target_copy.h"
#include <stdio.h>

static const char vendor[] = "DIRECTOR";
static const char product[] = "SAN VOLUME      ";
static const char revision[] = "0001";

static void put_hex(const uint8_t *bytes, unsigned count, char *to)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < count; i++) {
        to[2 * i] = digits[bytes[i] >> 4];
        to[2 * i + 1] = digits[bytes[i] & 15];
    }
}

/* SPC-4 r37 §6.6.2, table 139 */
static uint32_t standard(const struct scsi_unit *unit, uint8_t *to)
{
    static const uint16_t versions[] = {0x00a0 /* SAM-5 */, 0x0460 /* SPC-4 */, 0x04c0 /* SBC-3 */, 0x0960 /* iSCSI */};
    memset(to, 0, 96);
    to[1] = unit->identity.removable ? 0x80 : 0;
    to[2] = 6;    /* SPC-4 */
    to[3] = 0x12; /* HISUP, response data format 2 */
    to[4] = 96 - 5;
    to[5] = 0x10 | 0x08; /* TPGS 01b: implicit asymmetric logical unit access; 3PC */
    to[7] = 0x02; /* CMDQUE */
    memcpy(to + 8, vendor, 8);
    memcpy(to + 16, product, 16);
    memcpy(to + 32, revision, 4);
    for (unsigned i = 0; i < ARRAY_SIZE(versions); i++)
        put_be16(to + 58 + 2 * i, versions[i]);
    return 96;
}

/* §7.8.15 Supported VPD Pages; must be in ascending order. */
static uint32_t page_supported(uint8_t *to)
{
    static const uint8_t pages[] = {0x00, 0x80, 0x83, 0x86, 0x8f, 0xb0, 0xb1, 0xb2};
    memcpy(to + 4, pages, sizeof(pages));
    return sizeof(pages);
}

/* §7.8.14: the uuid's 32 hex digits, so that initiators which build names from the serial find hex digits. */
static uint32_t page_serial(const struct scsi_unit *unit, uint8_t *to)
{
    put_hex(unit->identity.uuid.bytes, 16, (char *)to + 4);
    return 32;
}

uint8_t scsi_designator(const struct scsi_unit *unit, uint8_t type, uint8_t to[static SCSI_DESIGNATOR_MAX])
{
    if (type != 3)
        return 0;
    memcpy(to, unit->identity.uuid.bytes, 16);
    to[0] = 0x60 | (to[0] & 0x0f);
    return 16;
}

/* §7.8.6 Device Identification: the LU by NAA (IEEE registered extended) and T10 vendor id, then the port it came through. */
static uint32_t page_identification(const struct scsi_unit *unit, uint8_t *to)
{
    const uint8_t *uuid = unit->identity.uuid.bytes;
    uint8_t *p = to + 4;

    /* NAA 6, §7.8.6.6.5: company id and vendor ids are bits of the uuid: 124 of them, unique enough for any fabric. */
    p[0] = 0x01;
    p[1] = 0x03;
    p[3] = scsi_designator(unit, 3, p + 4);
    p += 20;

    /* T10 vendor id, §7.8.6.4 */
    p[0] = 0x02;
    p[1] = 0x01;
    memcpy(p + 4, vendor, 8);
    put_hex(uuid, 16, (char *)p + 12);
    size_t name = strnlen(unit->identity.name, sizeof(unit->identity.name));
    p[44] = ' ';
    memcpy(p + 45, unit->identity.name, name);
    p[3] = (uint8_t)(8 + 32 + (name ? 1 + name : 0));
    p += 4 + p[3];

    /* Relative target port, §7.8.6.7: iSCSI protocol, association target port */
    p[0] = 0x51;
    p[1] = 0x94;
    p[3] = 4;
    put_be16(p + 6, unit->shared->nodeid);
    p += 8;

    /* Target port group, §7.8.6.8 */
    p[0] = 0x51;
    p[1] = 0x95;
    p[3] = 4;
    put_be16(p + 6, unit->shared->nodeid);
    p += 8;
    return (uint32_t)(p - to - 4);
}

/* §7.8.7 Extended INQUIRY Data */
static uint32_t page_extended(uint8_t *to)
{
    to[5] = 0x01; /* SIMPSUP: every command is treated as SIMPLE; ORDERED is not honoured, so not claimed */
    to[7] = 0x01; /* LUICLR */
    return 0x3c;
}

/* §7.8.17 Third-party Copy: supported commands, parameter data, supported descriptors, general copy operations */
static uint32_t page_third_party_copy(uint8_t *to)
{
    static const uint8_t commands[] = {SCSI_EXTENDED_COPY, 1, 0x00, SCSI_RECEIVE_COPY_RESULTS, 3, 0x00, 0x03, 0x04};
    static const uint8_t types[] = {0x02, 0xe4};
    uint8_t *p = to + 4;
    put_be16(p, 0x0001);
    put_be16(p + 2, 12);
    p[4] = sizeof(commands);
    memcpy(p + 5, commands, sizeof(commands));
    p += 16;
    put_be16(p, 0x0004);
    put_be16(p + 2, 28);
    put_be16(p + 8, TARGET_COPY_TARGETS_MAX);
    put_be16(p + 10, TARGET_COPY_SEGMENTS_MAX);
    put_be32(p + 12, TARGET_COPY_LIST_MAX);
    p += 32;
    put_be16(p, 0x0008);
    put_be16(p + 2, 4);
    p[4] = sizeof(types);
    memcpy(p + 5, types, sizeof(types));
    p += 8;
    put_be16(p, 0x8001);
    put_be16(p + 2, 32);
    put_be32(p + 4, TARGET_COPIES_MAX);
    put_be32(p + 8, TARGET_COPY_RESULTS);
    put_be32(p + 12, TARGET_COPY_SEGMENT_MAX);
    p[16] = 9;
    p += 36;
    return (uint32_t)(p - to - 4);
}

/* SBC-3 r36 §6.6.4 Block Limits */
static uint32_t page_block_limits(const struct scsi_unit *unit, uint8_t *to)
{
    uint32_t block = unit->identity.block_bytes;
    uint32_t physical = MAX(unit->identity.physical_bytes, block);
    to[5] = (uint8_t)MIN(SCSI_COMPARE_MAX_BYTES / block, 255u);
    put_be16(to + 6, (uint16_t)(physical / block));
    put_be32(to + 8, TARGET_TRANSFER_MAX_BYTES / block);
    put_be32(to + 12, 65536 / block);
    if (unit->identity.thin) {
        put_be32(to + 20, SCSI_UNMAP_MAX / block);
        put_be32(to + 24, SCSI_UNMAP_DESCRIPTORS);
        put_be32(to + 28, physical / block);
        put_be32(to + 32, 0x80000000u);
    }
    put_be64(to + 36, SCSI_WRITE_SAME_MAX / block);
    return 0x3c;
}

/* SBC-3 r36 §6.6.3 Block Device Characteristics: not rotating */
static uint32_t page_characteristics(uint8_t *to)
{
    put_be16(to + 4, 1);
    return 0x3c;
}

/* SBC-3 r36 §6.6.5 Logical Block Provisioning: LBPU, LBPWS, LBPWS10, LBPRZ; thin */
static uint32_t page_provisioning(const struct scsi_unit *unit, uint8_t *to)
{
    if (unit->identity.thin) {
        to[5] = 0x80 | 0x40 | 0x20 | 0x04;
        to[6] = 0x02;
    }
    return 4;
}

void scsi_inquiry(struct scsi_task *task)
{
    const struct scsi_unit *unit = task->unit;
    uint8_t *to = unit->shared->scratch;
    uint32_t allocation = get_be16(task->cdb + 3), length;

    if (!(task->cdb[1] & 1)) {
        if (task->cdb[2]) { /* §6.6.1: a page code without EVPD */
            scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 2, 0xff);
            return;
        }
        length = standard(unit, to);
        scsi_task_reply(task, to, length, allocation);
        return;
    }
    memset(to, 0, 256);
    to[1] = task->cdb[2];
    switch (task->cdb[2]) {
    case 0x00:
        length = page_supported(to);
        break;
    case 0x80:
        length = page_serial(unit, to);
        break;
    case 0x83:
        length = page_identification(unit, to);
        break;
    case 0x86:
        length = page_extended(to);
        break;
    case 0x8f:
        length = page_third_party_copy(to);
        break;
    case 0xb0:
        length = page_block_limits(unit, to);
        break;
    case 0xb1:
        length = page_characteristics(to);
        break;
    case 0xb2:
        length = page_provisioning(unit, to);
        break;
    default:
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 2, 0xff);
        return;
    }
    put_be16(to + 2, (uint16_t)length);
    scsi_task_reply(task, to, length + 4, allocation);
}
