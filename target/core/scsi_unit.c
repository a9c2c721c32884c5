#include "target/core/scsi_unit.h"

#include "director/base/bytes.h"

void scsi_unit_init(struct scsi_unit *unit, struct scsi_shared *shared, const struct target_lu_identity *identity)
{
    *unit = (struct scsi_unit){.shared = shared, .identity = *identity};
    for (unsigned i = 0; i < SCSI_NEXUS_BUCKETS; i++)
        list_init(&unit->nexuses[i]);
    list_init(&unit->tasks);
    list_init(&unit->blocked);
    list_init(&unit->managements);
}

static void nexus_free(struct scsi_unit *unit, struct scsi_nexus *nexus)
{
    list_remove(&nexus->link);
    unit->nexus_count--;
    free(nexus);
}

void scsi_unit_done(struct scsi_unit *unit)
{
    ASSERT(list_empty(&unit->tasks) && list_empty(&unit->blocked) && list_empty(&unit->managements));
    for (unsigned i = 0; i < SCSI_NEXUS_BUCKETS; i++)
        list_foreach_safe(node, after, &unit->nexuses[i])
            nexus_free(unit, list_entry(node, struct scsi_nexus, link));
    scsi_proposal_free(unit->proposal);
    scsi_reservations_done(&unit->reservations);
}

/* ---- nexuses ---- */

static struct list *nexus_bucket(struct scsi_unit *unit, uint64_t session)
{
    return &unit->nexuses[(session ^ session >> 48) % SCSI_NEXUS_BUCKETS];
}

static struct scsi_nexus *nexus_find(struct scsi_unit *unit, uint64_t session)
{
    struct list *bucket = nexus_bucket(unit, session);
    list_foreach(node, bucket)
    {
        struct scsi_nexus *nexus = list_entry(node, struct scsi_nexus, link);
        if (nexus->session == session)
            return nexus;
    }
    return NULL;
}

struct scsi_nexus *scsi_unit_nexus(struct scsi_unit *unit, const struct scsi_nexus_id *id, uint64_t session, bool fresh)
{
    struct scsi_nexus *nexus = nexus_find(unit, session);
    if (nexus)
        return nexus;
    if (unit->nexus_count >= SCSI_NEXUSES_MAX)
        return NULL;
    nexus = calloc(1, sizeof(*nexus));
    if (!nexus)
        return NULL;
    nexus->id = *id;
    nexus->session = session;
    nexus->attentions = fresh ? SCSI_UA_POWER_ON : 0;
    list_append(nexus_bucket(unit, session), &nexus->link);
    unit->nexus_count++;
    return nexus;
}

void scsi_unit_attention(struct scsi_unit *unit, uint32_t attentions, const struct scsi_nexus *except)
{
    for (unsigned i = 0; i < SCSI_NEXUS_BUCKETS; i++)
        list_foreach(node, &unit->nexuses[i])
        {
            struct scsi_nexus *nexus = list_entry(node, struct scsi_nexus, link);
            if (nexus != except)
                nexus->attentions |= attentions;
        }
}

/* ---- ends of a task ---- */

static bool management_waits(const struct scsi_unit *unit, const struct scsi_management *management)
{
    bool waits = management->resets && unit->release;
    list_foreach(node, &unit->tasks)
    {
        const struct scsi_task *task = list_entry(node, struct scsi_task, link);
        waits |= task->marked_aborted && task->sequence < management->sequence;
    }
    return waits;
}

static void managements_check(struct scsi_unit *unit)
{
    bool again = true;
    while (again) { /* its end may end others: look again from the start */
        again = false;
        list_foreach(node, &unit->managements)
        {
            struct scsi_management *management = list_entry(node, struct scsi_management, link);
            if (management_waits(unit, management))
                continue;
            list_remove(&management->link);
            management->done(management); /* U4 */
            again = true;
            break;
        }
    }
}

static bool overlaps(const struct scsi_task *a, const struct scsi_task *b)
{
    return a->offset_bytes < b->offset_bytes + b->length_bytes && b->offset_bytes < a->offset_bytes + a->length_bytes;
}

/* U3: must this task wait for one that runs, or for one that waits since before it? One change of reservations at a time. */
static bool must_wait(const struct scsi_unit *unit, const struct scsi_task *task)
{
    if (task->reserves)
        return unit->proposal != NULL;
    list_foreach(node, &unit->tasks)
    {
        const struct scsi_task *other = list_entry(node, struct scsi_task, link);
        if (other != task && other->writes && (task->atomic || other->atomic) && overlaps(task, other))
            return true;
    }
    list_foreach(node, &unit->blocked)
    {
        const struct scsi_task *other = list_entry(node, struct scsi_task, link);
        if (other->sequence < task->sequence && (task->atomic || other->atomic) && overlaps(task, other))
            return true;
    }
    return false;
}

static void blocked_check(struct scsi_unit *unit)
{
    bool again = true;
    while (again) {
        again = false;
        list_foreach(node, &unit->blocked)
        {
            struct scsi_task *task = list_entry(node, struct scsi_task, link);
            if (must_wait(unit, task))
                continue;
            list_remove(&task->link);
            task->blocked = false;
            list_append(&unit->tasks, &task->link);
            if (task->device == unit->device) {
                task->step(task);
            } else { /* it waited for what ended with our ownership */
                task->stale = true;
                scsi_task_sense(task, SCSI_SENSE_COMMUNICATION_TIMEOUT);
            }
            again = true;
            break; /* the step may have changed the list */
        }
    }
}

void scsi_unit_continue(struct scsi_unit *unit)
{
    managements_check(unit);
    blocked_check(unit);
}

static void finish(struct scsi_task *task)
{
    struct scsi_unit *unit = task->unit;
    bool atomic = task->atomic, marked = task->marked_aborted;
    list_remove(&task->link);
    data_pool_put(unit->shared->pool, task->scratch);
    task->scratch = NULL;
    task->aborted = marked && !task->abort_reported;
    if (marked && task->abort_reported) { /* TAS: SPC-4 §7.5.8 */
        task->status = SCSI_TASK_ABORTED;
        task->sense_bytes = 0;
        task->data_in_bytes = 0;
    }
    if (atomic)
        unit->atomics--;
    task->done(task);
    if (marked || !list_empty(&unit->managements))
        managements_check(unit);
    if (!list_empty(&unit->blocked))
        blocked_check(unit);
}

void scsi_task_set_sense(struct scsi_task *task, const struct scsi_sense *sense, bool descriptor)
{
    task->status = SCSI_CHECK_CONDITION;
    task->data_in_bytes = 0;
    task->sense_bytes = scsi_sense_encode(sense, descriptor, task->sense);
}

static void end_with_sense(struct scsi_task *task, const struct scsi_sense *sense)
{
    scsi_task_set_sense(task, sense, task->unit->descriptor_sense);
    finish(task);
}

void scsi_task_good(struct scsi_task *task)
{
    scsi_task_status(task, SCSI_GOOD);
}

void scsi_task_status(struct scsi_task *task, enum scsi_status status)
{
    task->status = (uint8_t)status;
    finish(task);
}

void scsi_task_sense(struct scsi_task *task, uint32_t code)
{
    end_with_sense(task, &(struct scsi_sense){.code = code});
}

void scsi_task_sense_field(struct scsi_task *task, uint32_t code, uint16_t byte, uint8_t bit)
{
    end_with_sense(task, &(struct scsi_sense){.code = code,
                                              .has_field = true,
                                              .field_in_cdb = code == SCSI_SENSE_INVALID_FIELD_IN_CDB,
                                              .field_byte = byte,
                                              .field_bit = bit});
}

void scsi_task_sense_information(struct scsi_task *task, uint32_t code, uint64_t information)
{
    end_with_sense(task, &(struct scsi_sense){.code = code, .has_information = true, .information = information});
}

void scsi_task_reply(struct scsi_task *task, const uint8_t *data, uint32_t length_bytes, uint32_t allocation_bytes)
{
    uint32_t bytes = MIN(length_bytes, allocation_bytes);
    ASSERT(bytes == 0 || (task->buffer && bytes <= task->buffer->capacity_bytes));
    if (bytes)
        memcpy(task->buffer->data, data, bytes);
    task->transfer_bytes = task->data_in_bytes = bytes;
    scsi_task_good(task);
}

/* ---- execution ---- */

/* SPC-2 §5.5.1: another nexus holds the unit reserved. */
static bool reserved_by_other(const struct scsi_task *task, const struct scsi_command *command)
{
    const struct scsi_unit *unit = task->unit;
    if (!unit->reservations.reserved_session || unit->reservations.reserved_session == task->nexus->session)
        return false;
    switch (command->opcode) {
    case SCSI_INQUIRY:
    case SCSI_REQUEST_SENSE:
    case SCSI_REPORT_LUNS:
    case SCSI_RELEASE_6:
    case SCSI_RELEASE_10:
        return false;
    case SCSI_PREVENT_ALLOW: /* allowing removal is */
        return task->cdb[4] & 3;
    case SCSI_PERSISTENT_RESERVE_IN:
        return true;
    default:
        return command->opcode != SCSI_MAINTENANCE_IN && command->opcode != SCSI_READ_CAPACITY_10 &&
               command->opcode != SCSI_SERVICE_ACTION_IN_16;
    }
}

static void report_attention(struct scsi_task *task)
{
    uint32_t bit, code = scsi_unit_attention_first(task->nexus->attentions, &bit);
    task->nexus->attentions &= ~bit;
    scsi_task_sense(task, code);
}

/* The checks before a command, in the order of precedence of SAM-5 §5.3.3 and SPC-4 §5.13.1. True: go on. */
static bool admit(struct scsi_task *task, const struct scsi_command *command, bool known_opcode)
{
    struct scsi_unit *unit = task->unit;
    bool no_ua = command && (command->flags & SCSI_COMMAND_NO_UA);

    if (task->nexus && task->nexus->attentions && !no_ua) {
        report_attention(task);
        return false;
    }
    if (!command) {
        if (known_opcode)
            scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 1, 4);
        else
            scsi_task_sense(task, SCSI_SENSE_INVALID_OPCODE);
        return false;
    }
    if (task->cdb[command->cdb_bytes - 1] & 0x04) { /* NACA: NormACA is 0, SAM-5 §5.2 */
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, command->cdb_bytes - 1u, 2);
        return false;
    }
    if (task->nexus && (reserved_by_other(task, command) ||
                        !scsi_reservations_allow(&unit->reservations, &task->nexus->id, command->flags))) {
        scsi_task_status(task, SCSI_RESERVATION_CONFLICT);
        return false;
    }
    if ((command->flags & SCSI_COMMAND_MEDIUM) && unit->ejected) {
        scsi_task_sense(task, SCSI_SENSE_MEDIUM_NOT_PRESENT);
        return false;
    }
    return true;
}

/* Fill in and check the block range. SBC-3 §4.5: LOGICAL BLOCK ADDRESS OUT OF RANGE, also for zero blocks beyond the end. */
static bool take_range(struct scsi_task *task)
{
    const struct target_lu_identity *identity = &task->unit->identity;
    uint64_t lba, blocks = identity->size_bytes / identity->block_bytes;
    uint32_t count;
    scsi_cdb_range(task->cdb, &lba, &count);
    if (lba > blocks || count > blocks - lba) {
        scsi_task_sense_information(task, SCSI_SENSE_LBA_OUT_OF_RANGE, lba);
        return false;
    }
    if (count == 0 && (task->cdb[0] == SCSI_WRITE_SAME_10 || task->cdb[0] == SCSI_WRITE_SAME_16)) {
        task->offset_bytes = lba * identity->block_bytes; /* WSNZ 0, SBC-3 §5.46: 0 is all from there to the end */
        task->length_bytes = identity->size_bytes - task->offset_bytes;
        return true;
    }
    task->offset_bytes = lba * identity->block_bytes;
    task->length_bytes = (uint64_t)count * identity->block_bytes;
    return true;
}

void scsi_unit_execute(struct scsi_unit *unit, struct scsi_nexus *nexus, struct scsi_task *task)
{
    bool known_opcode;
    const struct scsi_command *command = scsi_command_find(task->cdb, &known_opcode);

    ASSERT(unit->device || (command && (command->flags & SCSI_COMMAND_ANY_NODE))); /* U1 */
    task->unit = unit;
    task->nexus = nexus;
    task->device = unit->device;
    task->status = SCSI_GOOD;
    task->sense_bytes = 0;
    task->aborted = task->stale = false;
    task->transfer_bytes = task->data_in_bytes = 0;
    task->scratch = NULL;
    task->sequence = ++unit->sequence;
    task->offset_bytes = task->length_bytes = task->position_bytes = 0;
    task->writes = task->atomic = task->reserves = task->blocked = task->submitted = task->marked_aborted = task->abort_reported = false;
    task->phase = 0;
    list_append(&unit->tasks, &task->link); /* U2 */
    unit->stats.executed++;

    if (!admit(task, command, known_opcode))
        return;
    if ((command->flags & SCSI_COMMAND_RANGE) && !take_range(task))
        return;
    if (!command->execute) { /* REPORT LUNS belongs to the target */
        scsi_task_sense(task, SCSI_SENSE_INVALID_OPCODE);
        return;
    }
    if (command->flags & SCSI_COMMAND_WRITES && command->flags & SCSI_COMMAND_MEDIUM &&
        command->execute != scsi_block_synchronize_cache) {
        if (scsi_task_is_read_only(unit)) { /* SBC-3 §4.12 */
            scsi_task_sense(task, SCSI_SENSE_WRITE_PROTECTED);
            return;
        }
        task->writes = true;
        task->atomic = command->flags & SCSI_COMMAND_ATOMIC;
        if (task->atomic)
            unit->atomics++;
        if (command->opcode == SCSI_UNMAP) /* several ranges: counts as all blocks */
            task->length_bytes = unit->identity.size_bytes;
        if (unit->atomics && must_wait(unit, task)) {
            list_remove(&task->link);
            list_append(&unit->blocked, &task->link);
            task->blocked = true;
            task->step = command->execute;
            return;
        }
    }
    task->reserves = command->execute == scsi_persistent_reserve_out || command->execute == scsi_reserve_release;
    if (task->reserves && must_wait(unit, task)) {
        list_remove(&task->link);
        list_append(&unit->blocked, &task->link);
        task->blocked = true;
        task->step = command->execute;
        return;
    }
    command->execute(task);
}

/* ---- task management ---- */

/* Abort one task. Those in the block layer end when it lets go of them; the others end here. One whose reservation is being
 * committed ends here too: whether that happened the initiator must ask, as after any abort. */
static void abort_one(struct scsi_task *task, bool report)
{
    task->marked_aborted = true;
    task->abort_reported = report;
    if (task->unit->proposal && task->unit->proposal->task == task) {
        task->unit->proposal->task = NULL;
        finish(task);
        return;
    }
    if (!task->submitted) {
        ASSERT(task->blocked);
        task->blocked = false;
        finish(task);
    }
}

static bool is_victim(const struct scsi_task *task, const struct scsi_nexus *nexus, const struct scsi_management *m)
{
    if (task->marked_aborted || task->sequence >= m->sequence)
        return false;
    switch (m->function) {
    case SCSI_ABORT_TASK:
        return task->nexus == nexus && task->tag == m->tag;
    case SCSI_ABORT_TASK_SET:
        return task->nexus == nexus;
    default: /* one task set for all nexuses: TST 000b */
        return true;
    }
}

static unsigned abort_list(struct list *tasks, const struct scsi_nexus *nexus,
                           const struct scsi_management *management)
{
    unsigned count = 0;
    bool again = true;
    while (again) { /* ending one may start others: look again from the start */
        again = false;
        list_foreach(node, tasks)
        {
            struct scsi_task *task = list_entry(node, struct scsi_task, link);
            if (!is_victim(task, nexus, management))
                continue;
            bool other = task->nexus != nexus;
            if (other && task->nexus && management->function == SCSI_CLEAR_TASK_SET)
                task->nexus->attentions |= SCSI_UA_COMMANDS_CLEARED; /* SAM-5 §7.4 */
            count++;
            abort_one(task, other);
            again = true;
            break;
        }
    }
    return count;
}

/* SAM-5 §6.3.3, §7.7: what a logical unit reset does besides ending the tasks. */
static void reset_state(struct scsi_unit *unit)
{
    unit->descriptor_sense = false;
    unit->software_write_protect = false;
    for (unsigned i = 0; i < SCSI_NEXUS_BUCKETS; i++)
        list_foreach(node, &unit->nexuses[i])
            list_entry(node, struct scsi_nexus, link)->prevents = false;
    scsi_unit_attention(unit, SCSI_UA_LUN_RESET, NULL);
    scsi_unit_release(unit);
}

void scsi_unit_manage(struct scsi_unit *unit, struct scsi_nexus *nexus, struct scsi_management *management)
{
    management->sequence = ++unit->sequence;
    management->response = SCSI_FUNCTION_COMPLETE;
    list_init(&management->link);
    switch (management->function) {
    case SCSI_ABORT_TASK:
    case SCSI_ABORT_TASK_SET:
    case SCSI_CLEAR_TASK_SET:
    case SCSI_LUN_RESET:
    case SCSI_TARGET_WARM_RESET:
    case SCSI_TARGET_COLD_RESET:
        break;
    default:
        management->response = SCSI_FUNCTION_NOT_SUPPORTED;
        management->done(management);
        return;
    }
    unsigned count = abort_list(&unit->blocked, nexus, management);
    count += abort_list(&unit->tasks, nexus, management);
    if (management->function == SCSI_ABORT_TASK && !count)
        management->response = SCSI_FUNCTION_NO_TASK;
    management->resets = management->function >= SCSI_LUN_RESET;
    list_append(&unit->managements, &management->link);
    if (management->resets)
        reset_state(unit);
    managements_check(unit);
}

void scsi_unit_abort_nexus(struct scsi_unit *unit, struct scsi_nexus *nexus)
{
    struct scsi_management management = {.function = SCSI_ABORT_TASK_SET, .sequence = ++unit->sequence};
    abort_list(&unit->blocked, nexus, &management);
    abort_list(&unit->tasks, nexus, &management);
}

static void lose(struct scsi_unit *unit, struct scsi_nexus *nexus)
{
    scsi_unit_abort_nexus(unit, nexus);
    list_foreach(node, &unit->tasks) /* tasks outlive their nexus while the block layer holds them */
    {
        struct scsi_task *task = list_entry(node, struct scsi_task, link);
        if (task->nexus == nexus)
            task->nexus = NULL;
    }
    nexus_free(unit, nexus);
}

void scsi_unit_nexus_loss(struct scsi_unit *unit, uint64_t session)
{
    struct scsi_nexus *nexus = nexus_find(unit, session);
    if (nexus)
        lose(unit, nexus);
    if (unit->reservations.reserved_session == session) /* also when it came here with an earlier owner */
        scsi_unit_release(unit);
}

void scsi_unit_node_loss(struct scsi_unit *unit, uint16_t nodeid)
{
    for (unsigned i = 0; i < SCSI_NEXUS_BUCKETS; i++)
        list_foreach_safe(node, after, &unit->nexuses[i])
        {
            struct scsi_nexus *nexus = list_entry(node, struct scsi_nexus, link);
            if (nexus->session >> 48 == nodeid)
                lose(unit, nexus);
        }
    if (unit->reservations.reserved_session >> 48 == nodeid)
        scsi_unit_release(unit);
}
