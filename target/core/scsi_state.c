/* Commands that ask for or change the state of the unit: TEST UNIT READY, REQUEST SENSE, START STOP UNIT, PREVENT ALLOW,
 * RESERVE/RELEASE, READ CAPACITY, GET LBA STATUS, READ DEFECT DATA. */
#include "target/core/scsi_unit.h"

#include "director/base/bytes.h"

void scsi_test_unit_ready(struct scsi_task *task)
{
    scsi_task_good(task); /* admit() did the work */
}

/* SPC-4 r37 §6.39: a pending unit attention comes as data and is cleared; else the state of the medium, else nothing. */
void scsi_request_sense(struct scsi_task *task)
{
    uint8_t data[SCSI_SENSE_MAX_BYTES];
    struct scsi_sense sense = {0};
    uint32_t bit;
    if (task->nexus->attentions) {
        sense.code = scsi_unit_attention_first(task->nexus->attentions, &bit);
        task->nexus->attentions &= ~bit;
    } else if (task->unit->ejected) {
        sense.code = SCSI_SENSE_MEDIUM_NOT_PRESENT;
    }
    uint8_t length = scsi_sense_encode(&sense, task->cdb[1] & 1, data);
    scsi_task_reply(task, data, length, task->cdb[4]);
}

static bool anybody_prevents(const struct scsi_unit *unit)
{
    for (unsigned i = 0; i < SCSI_NEXUS_BUCKETS; i++)
        list_foreach(node, &unit->nexuses[i])
            if (list_entry(node, struct scsi_nexus, link)->prevents)
                return true;
    return false;
}

/* SBC-3 §5.25. Volumes do not spin: only LOEJ of a removable medium has an effect. */
void scsi_start_stop_unit(struct scsi_task *task)
{
    struct scsi_unit *unit = task->unit;
    uint8_t flags = task->cdb[4];
    bool load_eject = flags & 0x02, start = flags & 0x01, power = flags & 0xf0;
    if (!load_eject || power || !unit->identity.removable) { /* with a POWER CONDITION the other bits are ignored */
        scsi_task_good(task);
        return;
    }
    if (anybody_prevents(unit)) {
        scsi_task_sense(task, SCSI_SENSE_REMOVAL_PREVENTED);
        return;
    }
    if (unit->ejected != !start) {
        unit->ejected = !start;
        if (start)
            scsi_unit_attention(unit, SCSI_UA_MEDIUM_CHANGED, task->nexus);
    }
    scsi_task_good(task);
}

/* SBC-3 §5.12 (SPC-4 annex): per nexus */
void scsi_prevent_allow(struct scsi_task *task)
{
    if (task->cdb[4] & 2) { /* values 2 and 3 are obsolete */
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 4, 1);
        return;
    }
    task->nexus->prevents = task->cdb[4] & 1;
    scsi_task_good(task);
}

/* SPC-2 §7.21, §7.24. A persistent registration of anyone makes RESERVE a conflict unless CRH rules say otherwise
 * (SPC-4 §5.13.3): a registrant's own is GOOD and without effect. The session that reserved is committed like any reservation. */
void scsi_reserve_release(struct scsi_task *task)
{
    struct scsi_unit *unit = task->unit;
    const struct scsi_reservations *now = &unit->reservations;
    bool reserve = task->cdb[0] == SCSI_RESERVE_6 || task->cdb[0] == SCSI_RESERVE_10;
    if (task->cdb[1] & 0x1f) { /* third party and extents are obsolete */
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 1, 4);
        return;
    }
    if (now->count) {
        bool registered = scsi_reservations_find(now, &task->nexus->id) >= 0;
        scsi_task_status(task, registered ? SCSI_GOOD : SCSI_RESERVATION_CONFLICT);
        return;
    }
    bool mine = now->reserved_session == task->nexus->session;
    if (mine ? reserve : !reserve) { /* reserved already; or another's, whom a release does not touch */
        scsi_task_good(task);
        return;
    }
    if (now->reserved_session && !mine) { /* while this command waited */
        scsi_task_status(task, SCSI_RESERVATION_CONFLICT);
        return;
    }
    struct scsi_proposal *proposal = scsi_proposal_new(unit);
    if (!proposal) {
        scsi_task_status(task, SCSI_BUSY);
        return;
    }
    proposal->table.reserved_session = reserve ? task->nexus->session : 0;
    scsi_proposal_submit(unit, proposal, task);
}

/* SBC-3 §5.15 */
void scsi_read_capacity_10(struct scsi_task *task)
{
    const struct target_lu_identity *identity = &task->unit->identity;
    uint64_t last = identity->size_bytes / identity->block_bytes - 1;
    uint8_t data[8];
    if (!(task->cdb[8] & 1) && get_be32(task->cdb + 2)) { /* an LBA without PMI */
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 2, 0xff);
        return;
    }
    put_be32(data, (uint32_t)MIN(last, UINT32_MAX));
    put_be32(data + 4, identity->block_bytes);
    scsi_task_reply(task, data, sizeof(data), sizeof(data));
}

/* SBC-3 §5.16 */
void scsi_read_capacity_16(struct scsi_task *task)
{
    const struct target_lu_identity *identity = &task->unit->identity;
    uint32_t physical = MAX(identity->physical_bytes, identity->block_bytes);
    uint8_t data[32] = {0};
    put_be64(data, identity->size_bytes / identity->block_bytes - 1);
    put_be32(data + 8, identity->block_bytes);
    data[13] = (uint8_t)__builtin_ctz(physical / identity->block_bytes);
    if (identity->thin)
        data[14] = 0xc0; /* LBPME, LBPRZ */
    scsi_task_reply(task, data, sizeof(data), get_be32(task->cdb + 10));
}

/* SBC-3 §5.6. The block contract has no map of what is allocated: everything from the LBA on is reported mapped, which
 * §4.7.3.1 allows a device server that cannot tell. */
void scsi_get_lba_status(struct scsi_task *task)
{
    const struct target_lu_identity *identity = &task->unit->identity;
    uint64_t lba = get_be64(task->cdb + 2), blocks = identity->size_bytes / identity->block_bytes;
    uint8_t data[24] = {0};
    if (lba >= blocks) {
        scsi_task_sense_information(task, SCSI_SENSE_LBA_OUT_OF_RANGE, lba);
        return;
    }
    put_be32(data, 20);
    put_be64(data + 8, lba);
    put_be32(data + 16, (uint32_t)MIN(blocks - lba, UINT32_MAX));
    scsi_task_reply(task, data, sizeof(data), get_be32(task->cdb + 10));
}

/* SBC-3 §5.17, §5.18: the lists are empty; the format asked for is echoed */
void scsi_read_defect_data(struct scsi_task *task)
{
    uint8_t data[8] = {0};
    if (task->cdb[0] == SCSI_READ_DEFECT_DATA_10) {
        data[1] = task->cdb[2] & 0x1f;
        scsi_task_reply(task, data, 4, get_be16(task->cdb + 7));
        return;
    }
    data[1] = task->cdb[1] & 0x1f;
    scsi_task_reply(task, data, 8, get_be32(task->cdb + 6));
}
