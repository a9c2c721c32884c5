/* MODE SENSE and MODE SELECT: SPC-4 r37 §6.11 to §6.14, §7.5; SBC-3 r36 §6.5. */
#include "target/core/scsi_unit.h"

#include "director/base/bytes.h"

enum { PAGE_ERROR_RECOVERY = 0x01, PAGE_CACHING = 0x08, PAGE_CONTROL = 0x0a, PAGE_EXCEPTIONS = 0x1c, PAGE_ALL = 0x3f };
enum { CONTROL_CURRENT = 0, CONTROL_CHANGEABLE = 1, CONTROL_DEFAULT = 2, CONTROL_SAVED = 3 };

/* SBC-3 §6.5.8: AWRE, ARRE: reallocation is the store's business and always on. */
static uint32_t put_error_recovery(uint8_t *to, unsigned control)
{
    memset(to, 0, 12);
    to[0] = PAGE_ERROR_RECOVERY;
    to[1] = 10;
    if (control != CONTROL_CHANGEABLE)
        to[2] = 0xc0;
    return 12;
}

/* SBC-3 §6.5.6. WCE 0: a write is answered when it is durable on every in-sync replica; 1 (cache=write-back): when they have it. */
static uint32_t put_caching(const struct scsi_unit *unit, uint8_t *to, unsigned control)
{
    memset(to, 0, 20);
    to[0] = PAGE_CACHING;
    to[1] = 18;
    if (control != CONTROL_CHANGEABLE && unit->device && unit->device->geometry.capabilities & BLOCK_CAP_WRITE_CACHE)
        to[2] = 0x04;
    return 20;
}

/* SPC-4 §7.5.8. TST 000b: one task set for all; TAS 1: others whose commands are cleared see TASK ABORTED. */
static uint32_t put_control(const struct scsi_unit *unit, uint8_t *to, unsigned control)
{
    memset(to, 0, 12);
    to[0] = PAGE_CONTROL;
    to[1] = 10;
    if (control == CONTROL_CHANGEABLE) {
        to[2] = 0x04;
        to[4] = 0x08;
        return 12;
    }
    to[3] = 0x10; /* QUEUE ALGORITHM MODIFIER 1: unrestricted reordering */
    to[5] = 0x40; /* TAS */
    put_be16(to + 8, 0xffff); /* BUSY TIMEOUT PERIOD: unlimited */
    if (control == CONTROL_CURRENT) {
        to[2] = unit->descriptor_sense ? 0x04 : 0;
        to[4] = unit->software_write_protect ? 0x08 : 0;
    }
    return 12;
}

/* SPC-4 §7.5.12: nothing is reported but what commands say; DEXCPT */
static uint32_t put_exceptions(uint8_t *to, unsigned control)
{
    memset(to, 0, 12);
    to[0] = PAGE_EXCEPTIONS;
    to[1] = 10;
    if (control != CONTROL_CHANGEABLE)
        to[2] = 0x08;
    return 12;
}

static uint32_t put_page(const struct scsi_unit *unit, uint8_t page, unsigned control, uint8_t *to)
{
    switch (page) {
    case PAGE_ERROR_RECOVERY:
        return put_error_recovery(to, control);
    case PAGE_CACHING:
        return put_caching(unit, to, control);
    case PAGE_CONTROL:
        return put_control(unit, to, control);
    case PAGE_EXCEPTIONS:
        return put_exceptions(to, control);
    default:
        return 0;
    }
}

static uint32_t put_pages(const struct scsi_unit *unit, uint8_t page, unsigned control, uint8_t *to)
{
    static const uint8_t all[] = {PAGE_ERROR_RECOVERY, PAGE_CACHING, PAGE_CONTROL, PAGE_EXCEPTIONS};
    uint32_t length = 0;
    if (page != PAGE_ALL)
        return put_page(unit, page, control, to);
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
        length += put_page(unit, all[i], control, to + length);
    return length;
}

/* Block descriptors, SPC-4 §7.5.6: long (16 bytes) for LLBAA. */
static uint32_t put_descriptor(const struct scsi_unit *unit, bool is_long, uint8_t *to)
{
    uint64_t blocks = unit->identity.size_bytes / unit->identity.block_bytes;
    memset(to, 0, 16);
    if (is_long) {
        put_be64(to, blocks);
        put_be32(to + 12, unit->identity.block_bytes);
        return 16;
    }
    put_be32(to, (uint32_t)MIN(blocks, UINT32_MAX));
    put_be24(to + 5, unit->identity.block_bytes);
    return 8;
}

void scsi_mode_sense(struct scsi_task *task)
{
    const struct scsi_unit *unit = task->unit;
    const uint8_t *cdb = task->cdb;
    uint8_t *to = unit->shared->scratch;
    bool ten = cdb[0] == SCSI_MODE_SENSE_10;
    uint32_t header = ten ? 8 : 4, length = header;
    uint32_t allocation = ten ? get_be16(cdb + 7) : cdb[4];
    unsigned control = cdb[2] >> 6;
    uint8_t device_specific = 0x10 | (scsi_task_is_read_only(unit) ? 0x80 : 0); /* DPOFUA, WP: SBC-3 §6.5.1 */

    if (control == CONTROL_SAVED) {
        scsi_task_sense(task, SCSI_SENSE_SAVING_NOT_SUPPORTED);
        return;
    }
    if (cdb[3] != 0 && cdb[3] != 0xff) {
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 3, 0xff);
        return;
    }
    memset(to, 0, 8);
    if (!(cdb[1] & 0x08)) /* DBD */
        length += put_descriptor(unit, ten && (cdb[1] & 0x10), to + length);
    uint32_t descriptor = length - header;
    uint32_t pages = put_pages(unit, cdb[2] & 0x3f, control, to + length);
    if (!pages) {
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 2, 5);
        return;
    }
    length += pages;
    if (ten) {
        put_be16(to, (uint16_t)(length - 2));
        to[3] = device_specific;
        to[4] = descriptor == 16;
        put_be16(to + 6, (uint16_t)descriptor);
    } else {
        to[0] = (uint8_t)(length - 1);
        to[2] = device_specific;
        to[3] = (uint8_t)descriptor;
    }
    scsi_task_reply(task, to, length, allocation);
}

static void select_invalid(struct scsi_task *task, uint32_t byte)
{
    scsi_task_sense_field(task, SCSI_SENSE_INVALID_PARAMETER, (uint16_t)byte, 0xff);
}

/* Check one page of a parameter list against what may change. Returns its bytes, or 0 after ending the task. */
static uint32_t check_page(struct scsi_task *task, const uint8_t *list, uint32_t at, uint32_t bytes)
{
    uint8_t current[20], changeable[20];
    const uint8_t *page = list + at;
    if (bytes < 2 || page[0] & 0x40) { /* subpage format: we have none */
        select_invalid(task, at);
        return 0;
    }
    uint32_t length = put_page(task->unit, page[0] & 0x3f, CONTROL_CURRENT, current);
    if (length == 0 || page[1] != length - 2) {
        select_invalid(task, at + (length ? 1 : 0));
        return 0;
    }
    if (bytes < length) {
        scsi_task_sense(task, SCSI_SENSE_PARAMETER_LIST_LENGTH);
        return 0;
    }
    put_page(task->unit, page[0] & 0x3f, CONTROL_CHANGEABLE, changeable);
    for (uint32_t i = 2; i < length; i++) {
        if ((page[i] ^ current[i]) & ~changeable[i]) {
            select_invalid(task, at + i);
            return 0;
        }
    }
    return length;
}

static void apply_page(struct scsi_unit *unit, const uint8_t *page)
{
    if ((page[0] & 0x3f) != PAGE_CONTROL)
        return;
    unit->descriptor_sense = page[2] & 0x04;
    unit->software_write_protect = page[4] & 0x08;
}

void scsi_mode_select(struct scsi_task *task)
{
    const uint8_t *cdb = task->cdb;
    bool ten = cdb[0] == SCSI_MODE_SELECT_10;
    uint32_t header = ten ? 8 : 4;
    uint32_t length = ten ? get_be16(cdb + 7) : cdb[4];
    const uint8_t *list = task->buffer ? task->buffer->data : NULL;

    if (!(cdb[1] & 0x10) || cdb[1] & 0x01) { /* PF must be 1; SP: nothing is saved */
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 1, cdb[1] & 1 ? 0 : 4);
        return;
    }
    if (length == 0) { /* §6.11: not an error */
        scsi_task_good(task);
        return;
    }
    if (length < header || task->data_out_bytes < length) {
        scsi_task_sense(task, SCSI_SENSE_PARAMETER_LIST_LENGTH);
        return;
    }
    uint32_t at = header + (ten ? get_be16(list + 6) : list[3]); /* block descriptors are ignored: nothing to change in them */
    if (at > length) {
        scsi_task_sense(task, SCSI_SENSE_PARAMETER_LIST_LENGTH);
        return;
    }
    uint32_t first = at;
    while (at < length) { /* all or nothing: check every page, then apply */
        uint32_t bytes = check_page(task, list, at, length - at);
        if (!bytes)
            return;
        at += bytes;
    }
    for (at = first; at < length; at += list[at + 1] + 2u)
        apply_page(task->unit, list + at);
    scsi_unit_attention(task->unit, SCSI_UA_MODE_CHANGED, task->nexus); /* §6.11 */
    scsi_task_good(task);
}
