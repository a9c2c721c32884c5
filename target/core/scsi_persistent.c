/* PERSISTENT RESERVE IN and OUT: SPC-4 r37 §6.15, §6.16, §5.13. In memory at the owner in this version (PTPL_C 0): the
 * table is exported and imported by scsi_reservations_encode()/decode(). */
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
};

static bool is_all_registrants(uint8_t type)
{
    return type == SCSI_RESERVATION_WRITE_EXCLUSIVE_ALL || type == SCSI_RESERVATION_EXCLUSIVE_ACCESS_ALL;
}

static bool is_registrants_only(uint8_t type)
{
    return type == SCSI_RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS || type == SCSI_RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS;
}

static int find_registrant(const struct scsi_reservations *pr, const struct scsi_nexus_id *id)
{
    for (unsigned i = 0; i < pr->count; i++)
        if (scsi_nexus_id_equal(&pr->registrants[i].id, id))
            return (int)i;
    return -1;
}

/* Does this registrant hold the reservation? §5.13.10: with the all registrants types everyone does. */
static bool holds(const struct scsi_reservations *pr, unsigned index)
{
    return pr->type && (is_all_registrants(pr->type) || index == pr->holder);
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
        if (!is_all_registrants(pr->type)) /* §6.15.3.2: 0 for all registrants */
            put_be64(to + 8, pr->registrants[pr->holder].key);
        to[21] = pr->type; /* SCOPE 0: logical unit */
    }
    scsi_task_reply(task, to, pr->type ? 24 : 8, get_be16(task->cdb + 7));
}

/* §6.15.4 */
static void report_capabilities(struct scsi_task *task)
{
    uint8_t to[8] = {0, 8, 0x10 /* CRH */, 0x80 /* TMV */, 0xea, 0x01};
    scsi_task_reply(task, to, sizeof(to), get_be16(task->cdb + 7));
}

/* iSCSI TransportID with ISID, SPC-4 §7.6.4.6: padded to a multiple of four, at least 24 */
static uint32_t put_transport_id(const struct scsi_nexus_id *id, uint8_t *to)
{
    int text = snprintf((char *)to + 4, 256, "%s,i,0x%02x%02x%02x%02x%02x%02x", id->initiator, id->isid[0], id->isid[1],
                        id->isid[2], id->isid[3], id->isid[4], id->isid[5]);
    uint32_t length = MAX(((uint32_t)text + 1 + 3) & ~3u, 20u);
    memset(to + 4 + text, 0, length - (uint32_t)text);
    memset(to, 0, 4);
    to[0] = 0x45; /* FORMAT CODE 01b, iSCSI */
    put_be16(to + 2, (uint16_t)length);
    return 4 + length;
}

static void read_full_status(struct scsi_task *task)
{
    const struct scsi_reservations *pr = &task->unit->reservations;
    uint8_t *to = task->unit->shared->scratch;
    uint32_t at = 8;
    /* What the scratch cannot hold does not fit an allocation length either: both are 64 KiB. */
    for (unsigned i = 0; i < pr->count && at + 24 + 300 <= SCSI_SCRATCH_BYTES; i++) {
        memset(to + at, 0, 24);
        put_be64(to + at, pr->registrants[i].key);
        if (holds(pr, i)) {
            to[at + 12] = 1; /* R_HOLDER */
            to[at + 13] = pr->type;
        }
        put_be16(to + at + 18, pr->registrants[i].id.port);
        uint32_t length = put_transport_id(&pr->registrants[i].id, to + at + 24);
        put_be32(to + at + 20, length);
        at += 24 + length;
    }
    put_be32(to, pr->generation);
    put_be32(to + 4, at - 8);
    scsi_task_reply(task, to, at, get_be16(task->cdb + 7));
}

void scsi_persistent_reserve_in(struct scsi_task *task)
{
    switch (task->cdb[1] & 0x1f) {
    case IN_READ_KEYS:
        read_keys(task);
        return;
    case IN_READ_RESERVATION:
        read_reservation(task);
        return;
    case IN_REPORT_CAPABILITIES:
        report_capabilities(task);
        return;
    default:
        read_full_status(task);
        return;
    }
}

/* ---- OUT ---- */

/* Tell every session of a registrant. */
static void attend(struct scsi_unit *unit, const struct scsi_nexus_id *id, uint32_t attention)
{
    for (unsigned i = 0; i < SCSI_NEXUS_BUCKETS; i++)
        list_foreach(node, &unit->nexuses[i])
        {
            struct scsi_nexus *nexus = list_entry(node, struct scsi_nexus, link);
            if (scsi_nexus_id_equal(&nexus->id, id))
                nexus->attentions |= attention;
        }
}

/* Tell all registrants but one index (or none: -1). */
static void attend_registrants(struct scsi_unit *unit, int except, uint32_t attention)
{
    const struct scsi_reservations *pr = &unit->reservations;
    for (unsigned i = 0; i < pr->count; i++)
        if ((int)i != except)
            attend(unit, &pr->registrants[i].id, attention);
}

static int add_registrant(struct scsi_reservations *pr, const struct scsi_nexus_id *id, uint64_t key)
{
    if (pr->count == pr->room) {
        unsigned room = pr->room ? pr->room * 2 : 4;
        struct scsi_registrant *more =
            pr->count < SCSI_REGISTRANTS_MAX ? realloc(pr->registrants, room * sizeof(*more)) : NULL;
        if (!more)
            return -1;
        pr->registrants = more;
        pr->room = room;
    }
    pr->registrants[pr->count] = (struct scsi_registrant){.id = *id, .key = key};
    return (int)pr->count++;
}

/* Drop a registrant; the reservation goes with its holder. Order is kept: the holder's index follows. */
static void drop_registrant(struct scsi_reservations *pr, unsigned index)
{
    memmove(&pr->registrants[index], &pr->registrants[index + 1], (pr->count - index - 1) * sizeof(*pr->registrants));
    pr->count--;
    if (pr->type && !is_all_registrants(pr->type) && pr->holder == index)
        pr->type = SCSI_RESERVATION_NONE;
    else if (pr->holder > index)
        pr->holder--;
    if (pr->count == 0)
        pr->type = SCSI_RESERVATION_NONE;
    if (pr->type == SCSI_RESERVATION_NONE || pr->holder >= pr->count)
        pr->holder = 0;
}

/* §5.13.11.2.2: what a registrant leaves behind when it unregisters */
static void unregister(struct scsi_unit *unit, unsigned index)
{
    struct scsi_reservations *pr = &unit->reservations;
    uint8_t type = pr->type;
    drop_registrant(pr, index);
    if (type && !pr->type && is_registrants_only(type))
        attend_registrants(unit, -1, SCSI_UA_RESERVATIONS_RELEASED);
}

/* §5.13.7, table 68: REGISTER and REGISTER AND IGNORE EXISTING KEY */
static void out_register(struct scsi_task *task, uint64_t key, uint64_t service_key, bool ignore)
{
    struct scsi_unit *unit = task->unit;
    struct scsi_reservations *pr = &unit->reservations;
    int index = find_registrant(pr, &task->nexus->id);

    if (!ignore && (index < 0 ? key != 0 : key != pr->registrants[index].key)) {
        scsi_task_status(task, SCSI_RESERVATION_CONFLICT);
        return;
    }
    if (index < 0 && service_key && add_registrant(pr, &task->nexus->id, service_key) < 0) {
        scsi_task_sense(task, SCSI_SENSE_REGISTRATION_RESOURCES);
        return;
    }
    if (index >= 0 && service_key)
        pr->registrants[index].key = service_key;
    else if (index >= 0)
        unregister(unit, (unsigned)index);
    pr->generation++;
    scsi_task_good(task);
}

static bool type_is_valid(uint8_t type)
{
    return type == 1 || type == 3 || (type >= 5 && type <= 8);
}

/* §5.13.9 */
static void out_reserve(struct scsi_task *task, unsigned index, uint8_t type)
{
    struct scsi_reservations *pr = &task->unit->reservations;
    if (pr->type && (!holds(pr, index) || pr->type != type)) {
        scsi_task_status(task, SCSI_RESERVATION_CONFLICT);
        return;
    }
    if (!pr->type) {
        pr->type = type;
        pr->holder = index;
    }
    scsi_task_good(task);
}

/* §5.13.11.2.1 */
static void out_release(struct scsi_task *task, unsigned index, uint8_t type)
{
    struct scsi_reservations *pr = &task->unit->reservations;
    if (!pr->type || !holds(pr, index)) {
        scsi_task_good(task);
        return;
    }
    if (pr->type != type) {
        scsi_task_sense(task, SCSI_SENSE_INVALID_RELEASE);
        return;
    }
    pr->type = SCSI_RESERVATION_NONE;
    pr->holder = 0;
    if (is_registrants_only(type) || is_all_registrants(type))
        attend_registrants(task->unit, (int)index, SCSI_UA_RESERVATIONS_RELEASED);
    scsi_task_good(task);
}

/* §5.13.11.2.8 */
static void out_clear(struct scsi_task *task, unsigned index)
{
    struct scsi_reservations *pr = &task->unit->reservations;
    attend_registrants(task->unit, (int)index, SCSI_UA_RESERVATIONS_PREEMPTED);
    pr->count = 0;
    pr->type = SCSI_RESERVATION_NONE;
    pr->holder = 0;
    pr->generation++;
    scsi_task_good(task);
}

/* §5.13.11.2.7: the commands of a preempted nexus are aborted */
static void abort_tasks_of(struct scsi_unit *unit, const struct scsi_nexus_id *id)
{
    for (unsigned i = 0; i < SCSI_NEXUS_BUCKETS; i++)
        list_foreach_safe(node, after, &unit->nexuses[i])
        {
            struct scsi_nexus *nexus = list_entry(node, struct scsi_nexus, link);
            if (scsi_nexus_id_equal(&nexus->id, id))
                scsi_unit_abort_nexus(unit, nexus);
        }
}

/* §5.13.11.2.4, figure 9: PREEMPT and PREEMPT AND ABORT */
static void out_preempt(struct scsi_task *task, uint64_t service_key, uint8_t type, bool abort_tasks)
{
    struct scsi_unit *unit = task->unit;
    struct scsi_reservations *pr = &unit->reservations;
    const struct scsi_nexus_id *self = &task->nexus->id;
    bool all = is_all_registrants(pr->type);
    bool take = pr->type && (all ? service_key == 0 : pr->registrants[pr->holder].key == service_key);
    uint8_t old_type = pr->type;
    unsigned removed = 0;

    if (service_key == 0 && !take) { /* §5.13.11.2.4: zero is for all registrants reservations only */
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_PARAMETER, 8, 0xff);
        return;
    }
    if (take && !type_is_valid(type)) {
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 2, 3);
        return;
    }
    for (unsigned i = pr->count; i-- > 0;) {
        struct scsi_nexus_id id = pr->registrants[i].id;
        if (scsi_nexus_id_equal(&id, self)) {
            removed += pr->registrants[i].key == service_key; /* itself stays registered */
            continue;
        }
        if (service_key != 0 && pr->registrants[i].key != service_key)
            continue;
        if (abort_tasks)
            abort_tasks_of(unit, &id);
        attend(unit, &id, SCSI_UA_REGISTRATIONS_PREEMPTED);
        drop_registrant(pr, i);
        removed++;
    }
    if (service_key != 0 && !removed) {
        scsi_task_status(task, SCSI_RESERVATION_CONFLICT);
        return;
    }
    if (take) {
        int index = find_registrant(pr, self);
        ASSERT(index >= 0);
        pr->type = type;
        pr->holder = (unsigned)index;
        if (old_type != type && (is_registrants_only(old_type) || is_all_registrants(old_type)))
            attend_registrants(unit, index, SCSI_UA_RESERVATIONS_RELEASED); /* §5.13.11.2.4 d) */
    }
    pr->generation++;
    scsi_task_good(task);
}

/* Checks that come before a service action. The list is 24 bytes: §6.16.3 */
static bool out_check(struct scsi_task *task, uint8_t action)
{
    const uint8_t *list = task->buffer ? task->buffer->data : NULL;
    uint8_t type = task->cdb[2] & 0x0f;
    if (get_be32(task->cdb + 5) != 24 || task->data_out_bytes < 24) {
        scsi_task_sense(task, SCSI_SENSE_PARAMETER_LIST_LENGTH);
        return false;
    }
    task->transfer_bytes = 24;
    if (list[20] & 0x0d && (action == OUT_REGISTER || action == OUT_REGISTER_AND_IGNORE)) {
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_PARAMETER, 20, 0xff); /* SPEC_I_PT, ALL_TG_PT, APTPL: not offered */
        return false;
    }
    if ((action == OUT_RESERVE || action == OUT_RELEASE) && (task->cdb[2] >> 4 || !type_is_valid(type))) {
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 2, task->cdb[2] >> 4 ? 7 : 3);
        return false;
    }
    return true;
}

void scsi_persistent_reserve_out(struct scsi_task *task)
{
    struct scsi_unit *unit = task->unit;
    uint8_t action = task->cdb[1] & 0x1f, type = task->cdb[2] & 0x0f;

    if (unit->reserved_by) { /* SPC-2 and persistent reservations exclude each other: SPC-2 §5.5.1 */
        scsi_task_status(task, SCSI_RESERVATION_CONFLICT);
        return;
    }
    if (!out_check(task, action))
        return;
    const uint8_t *list = task->buffer->data;
    uint64_t key = get_be64(list), service_key = get_be64(list + 8);
    if (action == OUT_REGISTER || action == OUT_REGISTER_AND_IGNORE) {
        out_register(task, key, service_key, action == OUT_REGISTER_AND_IGNORE);
        return;
    }
    int index = find_registrant(&unit->reservations, &task->nexus->id);
    if (index < 0 || unit->reservations.registrants[index].key != key) { /* §5.13.4 */
        scsi_task_status(task, SCSI_RESERVATION_CONFLICT);
        return;
    }
    switch (action) {
    case OUT_RESERVE:
        out_reserve(task, (unsigned)index, type);
        return;
    case OUT_RELEASE:
        out_release(task, (unsigned)index, type);
        return;
    case OUT_CLEAR:
        out_clear(task, (unsigned)index);
        return;
    default:
        out_preempt(task, service_key, type, action == OUT_PREEMPT_AND_ABORT);
        return;
    }
}
