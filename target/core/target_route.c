/* The way of a command of this node's sessions: answered here, executed here, forwarded, or held. */
#include "target/core/target_private.h"

#include "director/base/bytes.h"

static void route(struct target *target, struct target_task *task);

/* ---- LUNs ---- */

/* SAM-5 §4.7.4 to §4.7.7: single level, peripheral (00b, bus 0) or flat space (01b) addressing. */
static unsigned lun_number(uint64_t lun)
{
    unsigned method = (unsigned)(lun >> 62), number = (unsigned)(lun >> 48) & 0x3fff;
    if (lun & 0xffffffffffffull || method > 1 || (method == 0 && number > 0xff) || number >= TARGET_LUNS_MAX)
        return TARGET_LUNS_MAX;
    return number;
}

struct target_lu *target_resolve(const struct target_session *session, uint64_t lun, unsigned *ret_number)
{
    *ret_number = lun_number(lun);
    return session->iqn && *ret_number < TARGET_LUNS_MAX ? session->iqn->luns[*ret_number] : NULL;
}

bool target_announce(struct target_session *session, unsigned number)
{
    uint8_t bit = (uint8_t)(1u << number % 8);
    bool fresh = !(session->announced[number / 8] & bit);
    session->announced[number / 8] |= bit;
    return fresh;
}

struct scsi_nexus *target_local_nexus(struct target_lu *lu, struct target_session *session, unsigned number)
{
    bool fresh = target_announce(session, number);
    return scsi_unit_nexus(&lu->unit, &session->nexus, session->id, fresh);
}

enum scsi_direction target_command_data(const struct target_session *session, uint64_t lun, const uint8_t *cdb,
                                        uint64_t *ret_bytes)
{
    unsigned number;
    const struct target_lu *lu = target_resolve(session, lun, &number);
    return scsi_cdb_data(cdb, lu ? lu->unit.identity.block_bytes : 512, ret_bytes);
}

/* ---- ends ---- */

/* T1. While the peer link still reads the task's frame the end waits for frame_sent(). */
static void end(struct target_task *task)
{
    if (task->sending) {
        task->ended = true;
        list_append(&task->target->ending, &task->link);
        return;
    }
    task->ended = false;
    task->place = TARGET_TASK_IDLE;
    if (task->lu) {
        task->lu->users--;
        task->lu = NULL;
    }
    task->done(task);
}

void target_task_end(struct target_task *task)
{
    end(task);
}

static void end_with_sense(struct target_task *task, uint32_t code)
{
    scsi_task_set_sense(&task->scsi, &(struct scsi_sense){.code = code}, false);
    end(task);
}

static void end_aborted(struct target_task *task)
{
    task->scsi.aborted = true;
    end(task);
}

static void end_with_data(struct target_task *task, const uint8_t *data, uint32_t bytes, uint32_t allocation)
{
    bytes = MIN(bytes, allocation);
    if (bytes)
        memcpy(task->scsi.buffer->data, data, bytes);
    task->scsi.transfer_bytes = task->scsi.data_in_bytes = bytes;
    end(task);
}

/* ---- answered by the target itself ---- */

/* SPC-4 r37 §6.33 */
static void report_luns(struct target *target, struct target_task *task)
{
    const uint8_t *cdb = task->scsi.cdb;
    uint8_t *to = target->shared.scratch;
    uint32_t count = 0;
    if (cdb[2] > 2) {
        end_with_sense(task, SCSI_SENSE_INVALID_FIELD_IN_CDB);
        return;
    }
    memset(to, 0, 8 + 8 * TARGET_LUNS_MAX);
    for (unsigned lun = 0; cdb[2] != 1 && task->session->iqn && lun < TARGET_LUNS_MAX; lun++)
        if (task->session->iqn->luns[lun])
            to[8 + 8 * count++ + 1] = (uint8_t)lun;
    put_be32(to, count * 8);
    for (unsigned lun = 0; lun < TARGET_LUNS_MAX; lun++) /* §6.33.1: this clears the attention on every LUN */
        task->session->attentions[lun] &= (uint16_t)~SCSI_UA_LUNS_CHANGED;
    end_with_data(task, to, 8 + 8 * count, get_be32(cdb + 6));
}

/* SAM-5 §5.13, SPC-4 §6.6.1: what a LUN without a unit answers */
static void no_unit(struct target *target, struct target_task *task)
{
    const uint8_t *cdb = task->scsi.cdb;
    uint8_t *to = target->shared.scratch;
    if (cdb[0] == SCSI_INQUIRY && !(cdb[1] & 1) && cdb[2] == 0) {
        memset(to, 0, 36);
        to[0] = 0x7f; /* no device can be here */
        to[2] = 6;
        to[3] = 2;
        to[4] = 31;
        end_with_data(task, to, 36, get_be16(cdb + 3));
        return;
    }
    if (cdb[0] == SCSI_REQUEST_SENSE) {
        uint8_t sense[SCSI_SENSE_MAX_BYTES];
        uint8_t bytes =
            scsi_sense_encode(&(struct scsi_sense){.code = SCSI_SENSE_LU_NOT_SUPPORTED}, cdb[1] & 1, sense);
        end_with_data(task, sense, bytes, cdb[4]);
        return;
    }
    end_with_sense(task, SCSI_SENSE_LU_NOT_SUPPORTED);
}

/* Attentions that this node knows of itself. True: the command is answered. */
static bool attend(struct target_task *task, unsigned number, uint32_t flags)
{
    uint16_t *attentions = &task->session->attentions[number];
    uint32_t bit, code;
    if (!*attentions || (flags & SCSI_COMMAND_NO_UA && task->scsi.cdb[0] != SCSI_REQUEST_SENSE))
        return false;
    code = scsi_unit_attention_first(*attentions, &bit);
    *attentions &= (uint16_t)~bit;
    if (task->scsi.cdb[0] == SCSI_REQUEST_SENSE) {
        uint8_t sense[SCSI_SENSE_MAX_BYTES];
        uint8_t bytes = scsi_sense_encode(&(struct scsi_sense){.code = code}, task->scsi.cdb[1] & 1, sense);
        end_with_data(task, sense, bytes, task->scsi.cdb[4]);
    } else {
        end_with_sense(task, code);
    }
    return true;
}

/* ---- executed here ---- */

/* May it be sent to an owner again when nobody knows whether the last one executed it? (T2) */
static bool may_repeat(const struct target_task *task)
{
    bool known;
    const struct scsi_command *command = scsi_command_find(task->scsi.cdb, &known);
    if (!command)
        return true;
    switch (command->opcode) {
    case SCSI_SYNCHRONIZE_CACHE_10:
    case SCSI_SYNCHRONIZE_CACHE_16:
        return true;
    case SCSI_REQUEST_SENSE:
    case SCSI_RESERVE_6:
    case SCSI_RESERVE_10:
    case SCSI_RELEASE_6:
    case SCSI_RELEASE_10:
    case SCSI_PREVENT_ALLOW:
    case SCSI_START_STOP_UNIT:
    case SCSI_PERSISTENT_RESERVE_OUT:
        return false;
    default:
        return !(command->flags & SCSI_COMMAND_WRITES);
    }
}

static void hold(struct target *target, struct target_task *task)
{
    if (target->shared.apart) { /* who waits here waits at the wrong door: SPC-4 r37 §5.15.2.4.5 */
        end_with_sense(task, SCSI_SENSE_ALUA_UNAVAILABLE);
        return;
    }
    task->place = TARGET_TASK_HELD;
    list_append(&task->lu->held, &task->link);
    task->lu->stats.held++;
    target_wake(target);
}

static void local_done(struct scsi_task *scsi)
{
    struct target_task *task = container_of(scsi, struct target_task, scsi);
    if (scsi->stale && !scsi->aborted && task->session && may_repeat(task)) {
        scsi->sense_bytes = 0;
        scsi->status = SCSI_GOOD;
        hold(task->target, task); /* the state change routes it */
        return;
    }
    end(task);
}

static void execute(struct target_task *task)
{
    unsigned number;
    struct scsi_nexus *nexus;
    (void)target_resolve(task->session, task->lun, &number);
    if (task->internal)
        nexus = scsi_unit_nexus(&task->lu->unit, &task->session->nexus, task->session->id, false);
    else
        nexus = target_local_nexus(task->lu, task->session, number);
    task->place = TARGET_TASK_LOCAL;
    if (!nexus) {
        task->scsi.status = SCSI_BUSY;
        end(task);
        return;
    }
    scsi_unit_execute(&task->lu->unit, nexus, &task->scsi);
}

/* ---- forwarded ---- */

static void frame_sent(void *argument)
{
    struct target_task *task = argument;
    task->sending = false;
    if (task->ended) {
        list_remove(&task->link);
        end(task);
    }
}

static void forward(struct target *target, struct target_task *task)
{
    struct target_lu *lu = task->lu;
    unsigned number;
    (void)target_resolve(task->session, task->lun, &number);
    struct forward_request request = {
        .nexus = task->session->nexus,
        .flags = !task->internal && target_announce(task->session, number) ? FORWARD_FLAG_FRESH : 0,
        .tag = task->scsi.tag,
        .expected_bytes = task->scsi.expected_bytes,
        .data_bytes = task->scsi.data_out_bytes,
    };
    memcpy(request.cdb, task->scsi.cdb, SCSI_CDB_BYTES);
    struct iovec iov[2] = {{task->frame, forward_request_encode(&request, task->frame)}};
    unsigned count = 1;
    if (request.data_bytes)
        iov[count++] = (struct iovec){task->scsi.buffer->data, request.data_bytes};
    struct peer_header header = {
        .type = FORWARD_COMMAND,
        .payload_bytes = (uint32_t)iov[0].iov_len + request.data_bytes,
        .request = ++target->next_request,
        .object = lu->unit.identity.volume_id,
        .epoch = lu->epoch,
        .argument = task->session->id,
    };
    task->request = header.request;
    task->to = lu->owner;
    task->lost_ms = UINT64_MAX;
    task->place = TARGET_TASK_FORWARDED;
    list_append(&lu->forwarded, &task->link);
    list_append(&target->requests[task->request % TARGET_REQUEST_BUCKETS], &task->request_link);
    task->sending = true; /* before send: its done may run inside */
    int status = target_send(target, task->to, &header, iov, count, frame_sent, task);
    if (status < 0) { /* not connected or queue full: wait for better times */
        task->sending = false;
        if (request.flags & FORWARD_FLAG_FRESH)
            task->session->announced[number / 8] &= (uint8_t) ~(1u << number % 8);
        list_remove(&task->link);
        list_remove(&task->request_link);
        hold(target, task);
        return;
    }
    lu->stats.forwarded++;
    target_wake(target);
}

static struct target_task *find_request(struct target *target, uint64_t request)
{
    list_foreach(node, &target->requests[request % TARGET_REQUEST_BUCKETS])
    {
        struct target_task *task = list_entry(node, struct target_task, request_link);
        if (task->request == request)
            return task;
    }
    return NULL;
}

static void take_reply(struct target_task *task, const struct forward_reply *reply)
{
    struct scsi_task *scsi = &task->scsi;
    scsi->status = reply->status;
    scsi->sense_bytes = reply->sense_bytes;
    memcpy(scsi->sense, reply->sense, reply->sense_bytes);
    scsi->transfer_bytes = reply->transfer_bytes;
    scsi->data_in_bytes = reply->data_bytes;
    if (reply->data_bytes && (!scsi->buffer || reply->data_bytes > scsi->buffer->capacity_bytes)) {
        end_with_sense(task, SCSI_SENSE_INTERNAL_FAILURE); /* another node's bug must not be ours */
        return;
    }
    if (reply->data_bytes)
        memcpy(scsi->buffer->data, reply->data, reply->data_bytes);
    end(task);
}

void target_route_reply(struct target *target, uint16_t from, uint64_t request, const struct forward_reply *reply)
{
    struct target_task *task = find_request(target, request);
    if (!task || task->to != from)
        return; /* given up meanwhile */
    list_remove(&task->link);
    list_remove(&task->request_link);
    switch (reply->outcome) {
    case FORWARD_DONE:
        take_reply(task, reply);
        return;
    case FORWARD_ABORTED:
        end_aborted(task);
        return;
    case FORWARD_NOT_OWNER: /* it was not executed: a data-out is still in the buffer */
        hold(target, task);
        return;
    case FORWARD_STALE:
        target_route_lost(target, task);
        return;
    }
}

/* The owner will not answer. The task is out of lu->forwarded. */
void target_route_lost(struct target *target, struct target_task *task)
{
    list_remove(&task->request_link);
    if (may_repeat(task)) {
        hold(target, task);
        return;
    }
    end_with_sense(task, SCSI_SENSE_COMMUNICATION_TIMEOUT); /* T2 */
}

/* ---- routing ---- */

static void route(struct target *target, struct target_task *task)
{
    switch (task->lu->state) {
    case TARGET_LU_ACTIVE:
        execute(task);
        return;
    case TARGET_LU_FORWARD:
        if (!task->sending) { /* a frame of the last attempt may still be with a link */
            forward(target, task);
            return;
        }
        /* fallthrough */
    default:
        hold(target, task);
        return;
    }
}

static void prepare(struct target *target, struct target_task *task)
{
    task->target = target;
    task->lu = NULL;
    task->internal = false;
    task->sending = task->ended = false;
    task->scsi.done = local_done;
    task->scsi.status = SCSI_GOOD;
    task->scsi.sense_bytes = 0;
    task->scsi.aborted = task->scsi.stale = false;
    task->scsi.transfer_bytes = task->scsi.data_in_bytes = 0;
    task->deadline_ms = target->now_ms + target->hold_ms;
    list_init(&task->link);
    list_init(&task->request_link);
}

void target_submit_to(struct target *target, struct target_task *task, struct target_lu *lu)
{
    prepare(target, task);
    task->internal = true;
    task->lu = lu;
    lu->users++;
    lu->stats.commands++;
    route(target, task);
}

void target_submit(struct target *target, struct target_task *task)
{
    bool known;
    unsigned number;
    const struct scsi_command *command = scsi_command_find(task->scsi.cdb, &known);
    struct target_lu *lu = target_resolve(task->session, task->lun, &number);

    prepare(target, task);
    if (task->scsi.cdb[0] == SCSI_REPORT_LUNS) {
        report_luns(target, task);
        return;
    }
    if (!lu) {
        no_unit(target, task);
        return;
    }
    task->lu = lu;
    lu->users++;
    lu->stats.commands++;
    if (attend(task, number, command ? command->flags : 0))
        return;
    if (command && target_copy_is(task->scsi.cdb)) {
        target_copy(target, task);
        return;
    }
    if (command && command->flags & SCSI_COMMAND_ANY_NODE) {
        task->place = TARGET_TASK_LOCAL;
        scsi_unit_execute(&lu->unit, NULL, &task->scsi);
        return;
    }
    route(target, task);
}

/* The state changed: everything held goes its way again, in order. */
void target_route_held(struct target *target, struct target_lu *lu)
{
    struct list waiting;
    list_init(&waiting);
    list_splice(&waiting, &lu->held);
    while (!list_empty(&waiting)) {
        struct target_task *task = list_first(&waiting, struct target_task, link);
        list_remove(&task->link);
        route(target, task);
    }
}

/* Task management: what waits here ends here. tag NULL: any. Others' tasks see TASK ABORTED (TAS). Returns how many. */
unsigned target_route_abort_held(struct target_lu *lu, const struct target_session *session, const uint64_t *tag,
                                 bool everybody)
{
    unsigned count = 0;
    list_foreach_safe(node, after, &lu->held)
    {
        struct target_task *task = list_entry(node, struct target_task, link);
        bool own = task->session == session;
        if ((!own && !everybody) || (tag && task->scsi.tag != *tag))
            continue;
        list_remove(&task->link);
        count++;
        task->scsi.status = SCSI_TASK_ABORTED;
        if (own)
            end_aborted(task);
        else
            end(task);
    }
    return count;
}

void target_route_tick(struct target *target, struct target_lu *lu)
{
    struct list *lists[] = {&lu->held, &lu->forwarded};
    for (unsigned i = 0; i < 2; i++) {
        struct list waiting;
        list_init(&waiting);
        list_splice(&waiting, lists[i]);
        while (!list_empty(&waiting)) {
            struct target_task *task = list_first(&waiting, struct target_task, link);
            list_remove(&task->link);
            if (i == 1 && target->now_ms >= task->lost_ms)
                target_route_lost(target, task);
            else if (i == 1)
                list_append(&lu->forwarded, &task->link);
            else if (target->now_ms >= task->deadline_ms)
                end_with_sense(task, SCSI_SENSE_ALUA_TRANSITION); /* SPC-4 §5.15.2.5 */
            else if (lu->state == TARGET_LU_TRANSITION)
                list_append(&lu->held, &task->link);
            else
                route(target, task);
        }
    }
}

/* The unit goes: end all that waits for it. */
void target_route_fail(struct target_lu *lu, uint32_t sense)
{
    struct list *lists[] = {&lu->held, &lu->forwarded};
    for (unsigned i = 0; i < 2; i++)
        while (!list_empty(lists[i])) {
            struct target_task *task = list_first(lists[i], struct target_task, link);
            list_remove(&task->link);
            list_remove(&task->request_link);
            end_with_sense(task, sense);
        }
}

void target_route_session_end(struct target *target, struct target_session *session)
{
    list_foreach(t, &target->ending)
    {
        struct target_task *task = list_entry(t, struct target_task, link);
        if (task->session == session) {
            task->session = NULL;
            task->scsi.aborted = true;
        }
    }
    for (unsigned i = 0; i < TARGET_LU_BUCKETS; i++)
        list_foreach(node, &target->lus[i])
        {
            struct target_lu *lu = list_entry(node, struct target_lu, link);
            struct list *lists[] = {&lu->held, &lu->forwarded};
            for (unsigned k = 0; k < 2; k++)
                list_foreach_safe(t, after, lists[k])
                {
                    struct target_task *task = list_entry(t, struct target_task, link);
                    if (task->session != session)
                        continue;
                    list_remove(&task->link);
                    list_remove(&task->request_link);
                    task->session = NULL;
                    end_aborted(task);
                }
            list_foreach(t, &lu->unit.tasks) /* those in the block layer end later, without a session */
            {
                struct scsi_task *scsi = list_entry(t, struct scsi_task, link);
                if (scsi->done == local_done) {
                    struct target_task *task = container_of(scsi, struct target_task, scsi);
                    if (task->session == session)
                        task->session = NULL;
                }
            }
        }
    list_foreach(node, &target->removed)
        list_foreach(t, &list_entry(node, struct target_lu, link)->unit.tasks)
        {
            struct scsi_task *scsi = list_entry(t, struct scsi_task, link);
            if (scsi->done == local_done && container_of(scsi, struct target_task, scsi)->session == session)
                container_of(scsi, struct target_task, scsi)->session = NULL;
        }
}
