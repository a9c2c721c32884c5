/* PERSISTENT RESERVE IN and OUT: SPC-4 r37 §6.15, §6.16, §5.13. OUT changes a copy of the table and proposes it: see
 * struct scsi_proposal in scsi_unit.h (I14). */
#include "target/core/scsi_unit.h"

#include "director/base/bytes.h"

enum { IN_READ_KEYS = 0, IN_READ_RESERVATION = 1, IN_REPORT_CAPABILITIES = 2, IN_READ_FULL_STATUS = 3 };
enum {
    OUT_REGISTER = 0,
    OUT_RESERVE = 1,
    OUT_RELEASE = 2,
    OUT_CLEAR = 3,
    OUT_PREEMPT = 4,
    OUT_PREEMPT_AND_ABORT = 5,
    OUT_REGISTER_AND_IGNORE = 6,
    OUT_REGISTER_AND_MOVE = 7,
};
enum { LIST_BYTES = 24, SPEC_I_PT = 0x08, ALL_TG_PT = 0x04, APTPL = 0x01, MOVE_UNREG = 0x02, MOVE_APTPL = 0x01 };

static bool is_registrants_only(uint8_t type)
{
    return type == SCSI_RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS || type == SCSI_RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS;
}

/* ---- IN ---- */

static void read_keys(struct scsi_task *task)
{
    const struct scsi_reservations *pr = &task->unit->reservations;
    uint8_t *to = task->unit->shared->scratch;
    put_be32(to, pr->generation);
    put_be32(to + 4, pr->count * 8);
    for (unsigned i = 0; i < pr->count; i++)
        put_be64(to + 8 + 8 * i, pr->registrants[i].key);
    scsi_task_reply(task, to, 8 + pr->count * 8, get_be16(task->cdb + 7));
}

static void read_reservation(struct scsi_task *task)
{
    const struct scsi_reservations *pr = &task->unit->reservations;
    uint8_t to[24] = {0};
    put_be32(to, pr->generation);
    if (pr->type) {
        put_be32(to + 4, 16);
        if (!scsi_reservation_of_all(pr->type)) /* §6.15.3.2: 0 for all registrants */
            put_be64(to + 8, pr->registrants[pr->holder].key);
        to[21] = pr->type; /* SCOPE 0: logical unit */
    }
    scsi_task_reply(task, to, pr->type ? 24 : 8, get_be16(task->cdb + 7));
}

/* §6.15.4 */
static void report_capabilities(struct scsi_task *task)
{
    uint8_t to[8] = {0, 8, 0x10 | 0x08 | 0x04 | 0x01 /* CRH, SIP_C, ATP_C, PTPL_C */, 0x80 /* TMV */, 0xea, 0x01};
    to[3] |= task->unit->reservations.aptpl; /* PTPL_A */
    scsi_task_reply(task, to, sizeof(to), get_be16(task->cdb + 7));
}

static void read_full_status(struct scsi_task *task)
{
    const struct scsi_reservations *pr = &task->unit->reservations;
    uint8_t *to = task->unit->shared->scratch;
    uint32_t at = 8;
    /* What the scratch cannot hold does not fit an allocation length either: both are 64 KiB. */
    for (unsigned i = 0; i < pr->count && at + 24 + SCSI_TRANSPORT_ID_MAX <= SCSI_SCRATCH_BYTES; i++) {
        memset(to + at, 0, 24);
        put_be64(to + at, pr->registrants[i].key);
        if (scsi_reservations_hold(pr, i)) {
            to[at + 12] = 1; /* R_HOLDER */
            to[at + 13] = pr->type;
        }
        put_be16(to + at + 18, pr->registrants[i].id.port);
        uint32_t length = scsi_transport_id_put(&pr->registrants[i].id, to + at + 24);
        put_be32(to + at + 20, length);
        at += 24 + length;
    }
    put_be32(to, pr->generation);
    put_be32(to + 4, at - 8);
    scsi_task_reply(task, to, at, get_be16(task->cdb + 7));
}

/* An owner of the past that does not know it yet must not tell its old table (I14). */
void scsi_persistent_reserve_in(struct scsi_task *task)
{
    switch (task->cdb[1] & 0x1f) {
    case IN_READ_KEYS:
        scsi_task_confirm(task, read_keys);
        return;
    case IN_READ_RESERVATION:
        scsi_task_confirm(task, read_reservation);
        return;
    case IN_REPORT_CAPABILITIES:
        report_capabilities(task);
        return;
    default:
        scsi_task_confirm(task, read_full_status);
        return;
    }
}

/* ---- OUT ----
 * Each service action works on a change and says how it ends; nothing but the change is touched. */

struct change {
    struct scsi_task *task;
    struct scsi_proposal *proposal;
    struct scsi_reservations *table;         /* the proposal's */
    const uint8_t *list;                     /* parameter list */
    uint32_t list_bytes;
    uint64_t key, service_key;
    uint8_t type;
    uint32_t sense;                          /* what to say with OUTCOME_SENSE or OUTCOME_FIELD */
    uint16_t field;                          /* of the parameter list, or of the CDB */
    uint8_t bit;
};

enum outcome { OUTCOME_GOOD, OUTCOME_CONFLICT, OUTCOME_SENSE, OUTCOME_FIELD };

static enum outcome bad_parameter(struct change *change, uint16_t byte)
{
    change->sense = SCSI_SENSE_INVALID_PARAMETER;
    change->field = byte;
    change->bit = 0xff;
    return OUTCOME_FIELD;
}

/* A registrant of the table in force hears of it when the change is. */
static void note(struct change *change, const struct scsi_nexus_id *id, uint32_t effects)
{
    int index = scsi_reservations_find(&change->task->unit->reservations, id);
    if (index >= 0)
        change->proposal->effects[index] |= effects;
}

/* All registrants but one index (or none: -1). */
static void note_registrants(struct change *change, int except, uint32_t effects)
{
    for (unsigned i = 0; i < change->table->count; i++)
        if ((int)i != except)
            note(change, &change->table->registrants[i].id, effects);
}

static int own_index(const struct change *change)
{
    return scsi_reservations_find(change->table, &change->task->nexus->id);
}

/* §5.13.11.2.2: what a registrant leaves behind when it unregisters */
static void unregister(struct change *change, unsigned index)
{
    struct scsi_reservations *table = change->table;
    uint8_t type = table->type;
    scsi_reservations_drop(table, index);
    if (type && !table->type && is_registrants_only(type))
        note_registrants(change, -1, SCSI_UA_RESERVATIONS_RELEASED);
}

/* Register one I_T nexus, or give it another key. */
static bool put_key(struct change *change, const struct scsi_nexus_id *id)
{
    int index = scsi_reservations_find(change->table, id);
    if (index >= 0)
        change->table->registrants[index].key = change->service_key;
    return index >= 0 || scsi_reservations_add(change->table, id, change->service_key) >= 0;
}

/* An initiator port at its nexus' target port, or at all of them (ALL_TG_PT, §6.16.3). */
static bool put_keys(struct change *change, const struct scsi_nexus_id *id, bool all_ports)
{
    const struct scsi_shared *shared = change->task->unit->shared;
    struct scsi_nexus_id at = *id;
    bool good = put_key(change, id);
    for (unsigned i = 0; good && all_ports && i < shared->port_count; i++) {
        at.port = shared->ports[i].nodeid;
        good = put_key(change, &at);
    }
    return good;
}

/* The list of TransportIDs of SPEC_I_PT: §6.16.3, table 209. */
static enum outcome put_listed(struct change *change, bool all_ports)
{
    uint32_t at = LIST_BYTES + 4;
    if (change->list_bytes < at || get_be32(change->list + LIST_BYTES) != change->list_bytes - at)
        return bad_parameter(change, LIST_BYTES);
    while (at < change->list_bytes) {
        struct scsi_nexus_id id = change->task->nexus->id; /* the target port is that of this nexus */
        int taken = scsi_transport_id_get(change->list + at, change->list_bytes - at, &id);
        if (taken < 0)
            return bad_parameter(change, (uint16_t)at);
        int index = scsi_reservations_find(change->table, &id);
        if (index >= 0 && index != own_index(change)) { /* §5.13.7.3: nothing is registered then */
            return OUTCOME_CONFLICT;
        }
        if (!put_keys(change, &id, all_ports)) {
            change->sense = SCSI_SENSE_REGISTRATION_RESOURCES;
            return OUTCOME_SENSE;
        }
        at += (uint32_t)taken;
    }
    return OUTCOME_GOOD;
}

/* §5.13.7, table 68: REGISTER and REGISTER AND IGNORE EXISTING KEY */
static enum outcome out_register(struct change *change, bool ignore)
{
    struct scsi_reservations *table = change->table;
    int index = own_index(change);
    uint8_t flags = change->list[20];
    if (!ignore && (index < 0 ? change->key != 0 : change->key != table->registrants[index].key))
        return OUTCOME_CONFLICT;
    if (flags & SPEC_I_PT && (ignore || index >= 0)) /* §6.16.3: only with a first REGISTER */
        return bad_parameter(change, 20);
    table->generation++;
    table->aptpl = flags & APTPL;
    if (!change->service_key) {
        if (index >= 0)
            unregister(change, (unsigned)index);
        return OUTCOME_GOOD;
    }
    if (!put_keys(change, &change->task->nexus->id, flags & ALL_TG_PT)) {
        change->sense = SCSI_SENSE_REGISTRATION_RESOURCES;
        return OUTCOME_SENSE;
    }
    return flags & SPEC_I_PT ? put_listed(change, flags & ALL_TG_PT) : OUTCOME_GOOD;
}

static bool type_is_valid(uint8_t type)
{
    return type == 1 || type == 3 || (type >= 5 && type <= 8);
}

/* §5.13.9 */
static enum outcome out_reserve(struct change *change, unsigned index)
{
    struct scsi_reservations *table = change->table;
    if (table->type)
        return scsi_reservations_hold(table, index) && table->type == change->type ? OUTCOME_GOOD : OUTCOME_CONFLICT;
    table->type = change->type;
    table->holder = index;
    return OUTCOME_GOOD;
}

/* §5.13.11.2.1 */
static enum outcome out_release(struct change *change, unsigned index)
{
    struct scsi_reservations *table = change->table;
    if (!table->type || !scsi_reservations_hold(table, index))
        return OUTCOME_GOOD;
    if (table->type != change->type) {
        change->sense = SCSI_SENSE_INVALID_RELEASE;
        return OUTCOME_SENSE;
    }
    if (is_registrants_only(table->type) || scsi_reservation_of_all(table->type))
        note_registrants(change, (int)index, SCSI_UA_RESERVATIONS_RELEASED);
    table->type = SCSI_RESERVATION_NONE;
    table->holder = 0;
    return OUTCOME_GOOD;
}

/* §5.13.11.2.8 */
static enum outcome out_clear(struct change *change, unsigned index)
{
    struct scsi_reservations *table = change->table;
    note_registrants(change, (int)index, SCSI_UA_RESERVATIONS_PREEMPTED);
    table->count = 0;
    table->type = SCSI_RESERVATION_NONE;
    table->holder = 0;
    table->generation++;
    return OUTCOME_GOOD;
}

/* §5.13.11.2.4, figure 9: PREEMPT and PREEMPT AND ABORT */
static enum outcome out_preempt(struct change *change, bool abort_tasks)
{
    struct scsi_reservations *table = change->table;
    const struct scsi_nexus_id *self = &change->task->nexus->id;
    bool all = scsi_reservation_of_all(table->type);
    bool take = table->type && (all ? change->service_key == 0 : table->registrants[table->holder].key == change->service_key);
    uint8_t old_type = table->type;
    unsigned removed = 0;

    if (change->service_key == 0 && !take) /* §5.13.11.2.4: zero is for all registrants reservations only */
        return bad_parameter(change, 8);
    if (take && !type_is_valid(change->type)) {
        change->sense = SCSI_SENSE_INVALID_FIELD_IN_CDB;
        change->field = 2;
        change->bit = 3;
        return OUTCOME_FIELD;
    }
    for (unsigned i = table->count; i-- > 0;) {
        struct scsi_nexus_id id = table->registrants[i].id;
        if (scsi_nexus_id_equal(&id, self)) {
            removed += table->registrants[i].key == change->service_key; /* itself stays registered */
            continue;
        }
        if (change->service_key != 0 && table->registrants[i].key != change->service_key)
            continue;
        note(change, &id, SCSI_UA_REGISTRATIONS_PREEMPTED | (abort_tasks ? SCSI_EFFECT_ABORT : 0));
        scsi_reservations_drop(table, i);
        removed++;
    }
    if (change->service_key != 0 && !removed)
        return OUTCOME_CONFLICT;
    if (take) {
        int index = own_index(change);
        ASSERT(index >= 0);
        table->type = change->type;
        table->holder = (unsigned)index;
        if (old_type != change->type && (is_registrants_only(old_type) || scsi_reservation_of_all(old_type)))
            note_registrants(change, index, SCSI_UA_RESERVATIONS_RELEASED); /* §5.13.11.2.4 d) */
    }
    table->generation++;
    return OUTCOME_GOOD;
}

/* §5.13.8, §6.16.4: the holder hands registration and reservation to another nexus */
static enum outcome out_register_and_move(struct change *change, unsigned index)
{
    struct scsi_reservations *table = change->table;
    const struct scsi_shared *shared = change->task->unit->shared;
    struct scsi_nexus_id to = change->task->nexus->id;
    bool port_exists = false;
    if (!table->type || scsi_reservation_of_all(table->type) || table->holder != index)
        return OUTCOME_CONFLICT;
    if (change->service_key == 0)
        return bad_parameter(change, 8);
    to.port = get_be16(change->list + 18);
    for (unsigned i = 0; i < shared->port_count; i++)
        port_exists |= shared->ports[i].nodeid == to.port;
    if (!port_exists && to.port != shared->nodeid)
        return bad_parameter(change, 18);
    if (get_be32(change->list + 20) != change->list_bytes - LIST_BYTES)
        return bad_parameter(change, 20);
    int taken = scsi_transport_id_get(change->list + LIST_BYTES, change->list_bytes - LIST_BYTES, &to);
    if (taken < 0 || (uint32_t)taken != change->list_bytes - LIST_BYTES || scsi_nexus_id_equal(&to, &change->task->nexus->id))
        return bad_parameter(change, LIST_BYTES);
    if (!put_key(change, &to)) {
        change->sense = SCSI_SENSE_REGISTRATION_RESOURCES;
        return OUTCOME_SENSE;
    }
    table->holder = (unsigned)scsi_reservations_find(table, &to);
    table->generation++;
    table->aptpl = change->list[17] & MOVE_APTPL;
    if (change->list[17] & MOVE_UNREG)
        scsi_reservations_drop(table, index);
    return OUTCOME_GOOD;
}

static enum outcome out_run(struct change *change, uint8_t action)
{
    if (action == OUT_REGISTER || action == OUT_REGISTER_AND_IGNORE)
        return out_register(change, action == OUT_REGISTER_AND_IGNORE);
    int index = own_index(change);
    if (index < 0 || change->table->registrants[index].key != change->key) /* §5.13.4 */
        return OUTCOME_CONFLICT;
    switch (action) {
    case OUT_RESERVE:
        return out_reserve(change, (unsigned)index);
    case OUT_RELEASE:
        return out_release(change, (unsigned)index);
    case OUT_CLEAR:
        return out_clear(change, (unsigned)index);
    case OUT_REGISTER_AND_MOVE:
        return out_register_and_move(change, (unsigned)index);
    default:
        return out_preempt(change, action == OUT_PREEMPT_AND_ABORT);
    }
}

/* Checks that come before a service action. §6.16.3: 24 bytes, more only for TransportIDs. */
static bool out_check(struct scsi_task *task, uint8_t action)
{
    const uint8_t *list = task->buffer ? task->buffer->data : NULL;
    uint32_t bytes = get_be32(task->cdb + 5);
    uint8_t type = task->cdb[2] & 0x0f;
    bool registers = action == OUT_REGISTER || action == OUT_REGISTER_AND_IGNORE;
    bool longer = bytes > LIST_BYTES && task->data_out_bytes >= LIST_BYTES &&
                  (action == OUT_REGISTER_AND_MOVE || (registers && list[20] & SPEC_I_PT));
    if (bytes < LIST_BYTES || (bytes > LIST_BYTES && !longer) || task->data_out_bytes < bytes) {
        scsi_task_sense(task, SCSI_SENSE_PARAMETER_LIST_LENGTH);
        return false;
    }
    task->transfer_bytes = bytes;
    if ((action == OUT_RESERVE || action == OUT_RELEASE) && (task->cdb[2] >> 4 || !type_is_valid(type))) {
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 2, task->cdb[2] >> 4 ? 7 : 3);
        return false;
    }
    return true;
}

void scsi_persistent_reserve_out(struct scsi_task *task)
{
    struct scsi_unit *unit = task->unit;
    uint8_t action = task->cdb[1] & 0x1f;

    if (unit->reservations.reserved_session) { /* SPC-2 and persistent reservations exclude each other: SPC-2 §5.5.1 */
        scsi_task_status(task, SCSI_RESERVATION_CONFLICT);
        return;
    }
    if (!out_check(task, action))
        return;
    struct change change = {
        .task = task,
        .proposal = scsi_proposal_new(unit),
        .list = task->buffer->data,
        .list_bytes = task->transfer_bytes,
        .key = get_be64(task->buffer->data),
        .service_key = get_be64(task->buffer->data + 8),
        .type = task->cdb[2] & 0x0f,
    };
    if (!change.proposal) {
        scsi_task_status(task, SCSI_BUSY);
        return;
    }
    change.table = &change.proposal->table;
    enum outcome outcome = out_run(&change, action);
    if (outcome == OUTCOME_GOOD) {
        scsi_proposal_submit(unit, change.proposal, task);
        return;
    }
    scsi_proposal_free(change.proposal);
    if (outcome == OUTCOME_CONFLICT)
        scsi_task_status(task, SCSI_RESERVATION_CONFLICT);
    else if (outcome == OUTCOME_SENSE)
        scsi_task_sense(task, change.sense);
    else
        scsi_task_sense_field(task, change.sense, change.field, change.bit);
}
