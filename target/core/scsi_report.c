/* REPORT TARGET PORT GROUPS, REPORT SUPPORTED OPERATION CODES, REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS. */
#include "target/core/scsi_unit.h"

#include "director/base/bytes.h"

enum { ALUA_OPTIMIZED = 0, ALUA_NON_OPTIMIZED = 1, ALUA_UNAVAILABLE = 3, ALUA_TRANSITIONING = 15 };

static bool group_seen(const struct scsi_shared *shared, unsigned before, uint16_t nodeid)
{
    for (unsigned i = 0; i < before; i++)
        if (shared->ports[i].nodeid == nodeid)
            return true;
    return false;
}

static bool group_alive(const struct scsi_shared *shared, uint16_t nodeid)
{
    for (unsigned i = 0; i < shared->port_count; i++)
        if (shared->ports[i].nodeid == nodeid && shared->ports[i].alive)
            return true;
    return false;
}

/* SPC-4 r37 §5.15.2.4: a node that is down is UNAVAILABLE; without an owner the others wait, TRANSITIONING. */
static uint8_t group_state(const struct scsi_unit *unit, uint16_t nodeid)
{
    if (unit->shared->apart && nodeid == unit->shared->nodeid)
        return ALUA_UNAVAILABLE;
    if (!group_alive(unit->shared, nodeid) && nodeid != unit->shared->nodeid)
        return ALUA_UNAVAILABLE;
    if (!unit->has_owner)
        return ALUA_TRANSITIONING;
    return unit->owner == nodeid ? ALUA_OPTIMIZED : ALUA_NON_OPTIMIZED;
}

/* One target port group descriptor with its single port (group id = relative port id = node id): §6.37, table 310. */
static uint32_t put_group(const struct scsi_unit *unit, uint16_t nodeid, uint8_t *to)
{
    memset(to, 0, 12);
    to[0] = group_state(unit, nodeid) | (unit->has_owner && unit->owner == nodeid ? 0x80 : 0); /* PREF */
    to[1] = 0x80 | 0x08 | 0x02 | 0x01; /* T_SUP U_SUP AN_SUP AO_SUP */
    put_be16(to + 2, nodeid);
    to[5] = 2; /* status: altered by implicit asymmetric logical unit access behaviour */
    to[7] = 1;
    put_be16(to + 10, nodeid);
    return 12;
}

void scsi_report_target_port_groups(struct scsi_task *task)
{
    const struct scsi_unit *unit = task->unit;
    const struct scsi_shared *shared = unit->shared;
    uint8_t *to = unit->shared->scratch;
    bool extended = task->cdb[1] >> 5 == 1; /* PARAMETER DATA FORMAT */
    uint32_t length = extended ? 8 : 4;

    if (task->cdb[1] >> 5 > 1) {
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 1, 7);
        return;
    }
    memset(to, 0, 8);
    if (extended) {
        to[4] = 0x10; /* FORMAT TYPE 001b */
        to[5] = 20;   /* IMPLICIT TRANSITION TIME, seconds: as long as commands are held */
    }
    for (unsigned i = 0; i < shared->port_count; i++)
        if (!group_seen(shared, i, shared->ports[i].nodeid))
            length += put_group(unit, shared->ports[i].nodeid, to + length);
    if (!group_seen(shared, shared->port_count, shared->nodeid))
        length += put_group(unit, shared->nodeid, to + length);
    put_be32(to, length - 4);
    scsi_task_reply(task, to, length, get_be32(task->cdb + 6));
}

/* Command timeouts descriptor, SPC-4 §6.35.4: no values given. */
static uint32_t put_timeouts(uint8_t *to)
{
    memset(to, 0, 12);
    put_be16(to, 10);
    return 12;
}

/* §6.35.2, table 303: all commands */
static uint32_t report_all(uint8_t *to, bool timeouts)
{
    unsigned count;
    const struct scsi_command *commands = scsi_command_table(&count);
    uint32_t length = 4;
    for (unsigned i = 0; i < count; i++) {
        memset(to + length, 0, 8);
        to[length] = commands[i].opcode;
        put_be16(to + length + 2, commands[i].has_service_action ? commands[i].service_action : 0);
        to[length + 5] = (timeouts ? 0x02 : 0) | (commands[i].has_service_action ? 0x01 : 0);
        put_be16(to + length + 6, commands[i].cdb_bytes);
        length += 8;
        if (timeouts)
            length += put_timeouts(to + length);
    }
    put_be32(to, length - 4);
    return length;
}

static const struct scsi_command *find_by_option(const uint8_t *cdb, bool *ret_bad)
{
    unsigned count;
    const struct scsi_command *commands = scsi_command_table(&count);
    uint8_t option = cdb[2] & 7, opcode = cdb[3];
    uint16_t service = get_be16(cdb + 4);
    *ret_bad = false;
    for (unsigned i = 0; i < count; i++) {
        if (commands[i].opcode != opcode)
            continue;
        bool has = commands[i].has_service_action;
        if (option == 3) {
            if (has ? commands[i].service_action == service : service == 0)
                return &commands[i];
            continue;
        }
        if ((option == 1) == has) { /* §6.35.1: the option does not fit an opcode that is supported */
            *ret_bad = true;
            return NULL;
        }
        if (option == 1 || commands[i].service_action == service)
            return &commands[i];
    }
    return NULL;
}

void scsi_report_supported_opcodes(struct scsi_task *task)
{
    uint8_t *to = task->unit->shared->scratch;
    const uint8_t *cdb = task->cdb;
    bool timeouts = cdb[2] & 0x80, bad;
    uint32_t allocation = get_be32(cdb + 6), length;

    if ((cdb[2] & 7) == 0) {
        length = report_all(to, timeouts);
        scsi_task_reply(task, to, length, allocation);
        return;
    }
    if ((cdb[2] & 7) > 3) {
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 2, 2);
        return;
    }
    const struct scsi_command *command = find_by_option(cdb, &bad);
    if (bad) {
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 2, 2);
        return;
    }
    memset(to, 0, 4 + SCSI_CDB_BYTES);
    length = 4;
    to[1] = command ? 3 : 1; /* §6.35.3, table 306: supported as the standard says, or not supported */
    if (command) {
        put_be16(to + 2, command->cdb_bytes);
        memcpy(to + 4, command->usage, command->cdb_bytes);
        to[4] = command->opcode;
        length += command->cdb_bytes;
        if (timeouts) {
            to[1] |= 0x80;
            length += put_timeouts(to + length);
        }
    }
    scsi_task_reply(task, to, length, allocation);
}

/* SPC-4 §6.36 */
void scsi_report_supported_tmf(struct scsi_task *task)
{
    uint8_t to[16] = {0x80 | 0x40 | 0x10 | 0x08, 0}; /* ATS ATSS CTSS LURS; target resets are the iSCSI layer's: TRS */
    bool extended = task->cdb[2] & 0x80;
    to[0] |= 0x02;
    if (extended)
        to[3] = 12;
    scsi_task_reply(task, to, extended ? 16 : 4, get_be32(task->cdb + 6));
}
