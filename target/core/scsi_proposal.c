/* Changes of the reservations on their way to be committed (I14): see struct scsi_proposal in scsi_unit.h. */
#include "target/core/scsi_unit.h"

#include <errno.h>

struct scsi_proposal *scsi_proposal_new(const struct scsi_unit *unit)
{
    struct scsi_proposal *proposal = calloc(1, sizeof(*proposal));
    if (!proposal)
        return NULL;
    list_init(&proposal->wait.link);
    if (scsi_reservations_copy(&proposal->table, &unit->reservations) < 0) {
        free(proposal);
        return NULL;
    }
    return proposal;
}

void scsi_proposal_free(struct scsi_proposal *proposal)
{
    if (!proposal)
        return;
    scsi_reservations_done(&proposal->table);
    free(proposal->bytes);
    free(proposal);
}

/* Tell every session of a registrant. */
static void attend(struct scsi_unit *unit, const struct scsi_nexus_id *id, uint32_t attentions)
{
    for (unsigned i = 0; i < SCSI_NEXUS_BUCKETS; i++)
        list_foreach(node, &unit->nexuses[i])
        {
            struct scsi_nexus *nexus = list_entry(node, struct scsi_nexus, link);
            if (scsi_nexus_id_equal(&nexus->id, id))
                nexus->attentions |= attentions;
        }
}

/* SPC-4 §5.13.11.2.7: the commands of a preempted nexus are aborted. */
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

/* Over: the command, if it still waits, is answered; others that waited for it go on. */
static void end(struct scsi_unit *unit, bool committed)
{
    struct scsi_proposal *proposal = unit->proposal;
    struct scsi_task *task = proposal->task;
    unit->proposal = NULL;
    scsi_proposal_free(proposal);
    if (task && committed) {
        scsi_task_good(task);
    } else if (task) { /* whether it was committed is not known: the initiator asks and decides */
        task->stale = true;
        scsi_task_sense(task, SCSI_SENSE_COMMUNICATION_TIMEOUT);
    }
    scsi_unit_release_due(unit);
    scsi_unit_continue(unit);
}

static void aborted_all(struct scsi_management *management)
{
    struct scsi_proposal *proposal = container_of(management, struct scsi_proposal, wait);
    end(proposal->unit, true);
}

/* Its table is in force from now on. */
static void take_effect(struct scsi_unit *unit)
{
    struct scsi_proposal *proposal = unit->proposal;
    struct scsi_reservations old = unit->reservations;
    bool aborts = false;
    unit->reservations = proposal->table;
    proposal->table = (struct scsi_reservations){0};
    proposal->in_force = true;
    for (unsigned i = 0; i < old.count; i++) {
        uint32_t effects = proposal->effects[i];
        if (effects & SCSI_EFFECT_ABORT)
            abort_tasks_of(unit, &old.registrants[i].id);
        if (effects & ~SCSI_EFFECT_ABORT)
            attend(unit, &old.registrants[i].id, effects & ~SCSI_EFFECT_ABORT);
        aborts |= effects & SCSI_EFFECT_ABORT;
    }
    scsi_reservations_done(&old);
    if (!aborts) {
        end(unit, true);
        return;
    }
    proposal->wait.sequence = ++unit->sequence; /* answered when what was aborted has left the medium alone (U4) */
    proposal->wait.done = aborted_all;
    list_append(&unit->managements, &proposal->wait.link);
    scsi_unit_continue(unit);
}

void scsi_proposal_submit(struct scsi_unit *unit, struct scsi_proposal *proposal, struct scsi_task *task)
{
    ASSERT(!unit->proposal);
    uint8_t *room = unit->shared->scratch;
    int size = scsi_reservations_encode(&proposal->table, room, SCSI_RESERVATIONS_BYTES_MAX), before;
    if (size < 0) {
        scsi_proposal_free(proposal);
        scsi_task_sense(task, SCSI_SENSE_REGISTRATION_RESOURCES);
        return;
    }
    proposal->bytes = malloc((size_t)size);
    if (!proposal->bytes) {
        scsi_proposal_free(proposal);
        if (task)
            scsi_task_status(task, SCSI_BUSY);
        return;
    }
    memcpy(proposal->bytes, room, (size_t)size);
    proposal->size = (uint32_t)size;
    before = scsi_reservations_encode(&unit->reservations, room, SCSI_SCRATCH_BYTES);
    bool changes = before != size || memcmp(room, proposal->bytes, (size_t)size) != 0;
    unit->proposal = proposal;
    proposal->unit = unit;
    proposal->task = task;
    if (task)
        task->submitted = true;
    if (changes && unit->shared->commit)
        unit->shared->commit(unit->shared->commit_context, unit, proposal->bytes, proposal->size);
    else
        take_effect(unit);
}

int scsi_unit_set_reservations(struct scsi_unit *unit, uint64_t version, const uint8_t *bytes, uint32_t size)
{
    if (version <= unit->reservations_version)
        return 0;
    struct scsi_proposal *proposal = unit->proposal;
    if (proposal && !proposal->in_force && proposal->size == size && memcmp(proposal->bytes, bytes, size) == 0) {
        unit->reservations_version = version;
        take_effect(unit);
        return 0;
    }
    int result = 0;
    if (size)
        result = scsi_reservations_decode(&unit->reservations, bytes, size);
    else
        scsi_reservations_done(&unit->reservations);
    if (result < 0)
        return result;
    unit->reservations_version = version;
    scsi_unit_proposals_fail(unit); /* made on a table that is of the past */
    return 0;
}

void scsi_unit_proposals_fail(struct scsi_unit *unit)
{
    unit->release = false;
    list_foreach(node, &unit->managements)
    {
        struct scsi_management *management = list_entry(node, struct scsi_management, link);
        if (management->resets && unit->reservations.reserved_session)
            management->response = SCSI_FUNCTION_REJECTED;
    }
    if (unit->proposal && !unit->proposal->in_force)
        end(unit, false);
    else
        scsi_unit_continue(unit);
}

void scsi_unit_release(struct scsi_unit *unit)
{
    unit->release = unit->device && unit->reservations.reserved_session;
    scsi_unit_release_due(unit);
}

void scsi_unit_release_due(struct scsi_unit *unit)
{
    if (!unit->release || unit->proposal)
        return;
    if (!unit->device || !unit->reservations.reserved_session) {
        unit->release = false;
        return;
    }
    struct scsi_proposal *proposal = scsi_proposal_new(unit);
    if (!proposal)
        return; /* tried again with the next tick */
    proposal->table.reserved_session = 0;
    scsi_proposal_submit(unit, proposal, NULL);
}
