/* SCSI commands on a connection: data-out by immediate, unsolicited and solicited data, execution, data-in and status.
 *
 *     COLLECTING -> (WAITING ->) EXECUTING -> REPLYING -> freed
 *
 * Memory: data buffers come from the target's pool. A command without data-out under way waits for memory in line; one
 * whose data is already coming is received into nowhere and answered TASK SET FULL, so that nothing blocks the stream. */
#include "target/core/iscsi_private.h"

static struct list *bucket(struct iscsi_connection *connection, uint32_t itt)
{
    return &connection->buckets[(itt ^ itt >> 16) % ISCSI_TASK_BUCKETS];
}

struct iscsi_task *iscsi_task_find(struct iscsi_connection *connection, uint32_t itt)
{
    struct list *head = bucket(connection, itt);
    list_foreach(node, head)
    {
        struct iscsi_task *task = list_entry(node, struct iscsi_task, bucket_link);
        if (task->itt == itt)
            return task;
    }
    return NULL;
}

static struct iscsi_task *task_new(struct iscsi_connection *connection)
{
    struct iscsi_environment *environment = connection->environment;
    struct iscsi_task *task = environment->free_tasks;
    if (task) {
        environment->free_tasks = task->next_free;
        environment->free_count--;
    } else {
        task = malloc(sizeof(*task));
        if (!task)
            return NULL;
    }
    task->environment = environment;
    task->connection = connection;
    task->item = (struct iscsi_item){.is_task = true};
    list_init(&task->item.link);
    task->target.scsi.buffer = NULL;
    task->target.scsi.data_out_bytes = 0;
    task->target.session = &connection->session;
    task->received_bytes = task->asked_bytes = task->sequence_end = 0;
    task->r2t_sn = task->r2t_outstanding = task->data_sn_in = 0;
    task->data_sn = task->sent_bytes = task->send_bytes = task->burst_sent = 0;
    task->wanted_bytes = 0;
    task->unsolicited = task->discards = false;
    task->counted = true;
    connection->in_flight++;
    return task;
}

static void uncount(struct iscsi_task *task)
{
    if (task->counted && task->connection)
        task->connection->in_flight--;
    task->counted = false;
}

/* Unhook from its connection: queue, tables, count. */
static void detach(struct iscsi_task *task)
{
    uncount(task);
    if (task->item.queued || task->state == ISCSI_TASK_WAITING)
        list_remove(&task->item.link);
    task->item.queued = false;
    if (task->connection) {
        list_remove(&task->link);
        list_remove(&task->bucket_link);
    }
    task->connection = NULL;
}

void iscsi_task_free(struct iscsi_task *task)
{
    struct iscsi_environment *environment = task->environment;
    detach(task);
    data_pool_put(&environment->target->pool, task->target.scsi.buffer);
    task->target.scsi.buffer = NULL;
    if (environment->free_count < 4 * ISCSI_WINDOW) {
        task->next_free = environment->free_tasks;
        environment->free_tasks = task;
        environment->free_count++;
    } else {
        free(task);
    }
    if (!list_empty(&environment->waiting))
        iscsi_memory_available(environment);
}

/* The connection ends: those in the target come back by task_done() as orphans. */
void iscsi_tasks_forget(struct iscsi_connection *connection)
{
    while (!list_empty(&connection->tasks)) {
        struct iscsi_task *task = list_first(&connection->tasks, struct iscsi_task, link);
        if (task->state == ISCSI_TASK_EXECUTING)
            detach(task);
        else
            iscsi_task_free(task);
    }
}

/* ---- execution ---- */

static void task_done(struct target_task *target_task)
{
    struct iscsi_task *task = container_of(target_task, struct iscsi_task, target);
    struct iscsi_connection *connection = task->connection;
    task->state = ISCSI_TASK_REPLYING;
    if (!connection || task->target.scsi.aborted) {
        iscsi_task_free(task);
        return;
    }
    struct scsi_task *scsi = &task->target.scsi;
    task->send_bytes = task->reads ? MIN(scsi->data_in_bytes, task->expected_bytes) : 0;
    connection->commands++;
    connection->read_bytes += task->send_bytes;
    connection->written_bytes += scsi->data_out_bytes;
    iscsi_queue_item(connection, &task->item);
}

static void execute(struct iscsi_task *task)
{
    task->state = ISCSI_TASK_EXECUTING;
    task->target.scsi.data_out_bytes = task->received_bytes;
    task->target.done = task_done;
    target_submit(task->environment->target, &task->target);
}

static void answer_without_executing(struct iscsi_task *task, enum scsi_status status)
{
    struct scsi_task *scsi = &task->target.scsi;
    scsi->status = (uint8_t)status;
    scsi->sense_bytes = 0;
    scsi->aborted = false;
    scsi->transfer_bytes = scsi->data_in_bytes = 0;
    task_done(&task->target);
}

/* More data-out to ask for, or all there: go on. */
static void proceed(struct iscsi_task *task)
{
    if (task->unsolicited)
        return;
    if (task->discards) {
        answer_without_executing(task, SCSI_TASK_SET_FULL);
        return;
    }
    if (task->received_bytes >= task->wanted_bytes) {
        execute(task);
        return;
    }
    if (task->asked_bytes < task->wanted_bytes &&
        task->r2t_outstanding < task->connection->parameters.max_outstanding_r2t)
        iscsi_queue_item(task->connection, &task->item);
}

void iscsi_memory_available(struct iscsi_environment *environment)
{
    while (!list_empty(&environment->waiting)) {
        struct iscsi_task *task = list_first(&environment->waiting, struct iscsi_task, item.link);
        uint64_t bytes;
        if (task->connection->failed) { /* its session may be over: it is closed soon */
            list_remove(&task->item.link);
            continue; /* iscsi_tasks_forget() frees it */
        }
        (void)target_command_data(&task->connection->session, task->target.lun, task->target.scsi.cdb, &bytes);
        if (bytes <= TARGET_TRANSFER_MAX_BYTES) {
            task->target.scsi.buffer = target_buffer(environment->target, (uint32_t)bytes);
            if (!task->target.scsi.buffer)
                return;
        }
        list_remove(&task->item.link);
        task->state = ISCSI_TASK_COLLECTING;
        proceed(task);
    }
}

/* ---- SCSI Command PDU, RFC 7143 §11.3 ---- */

/* A buffer for what the CDB moves. False: there is no memory now. */
static bool find_buffer(struct iscsi_task *task)
{
    struct iscsi_environment *environment = task->environment;
    uint64_t bytes;
    enum scsi_direction direction =
        target_command_data(task->target.session, task->target.lun, task->target.scsi.cdb, &bytes);
    if (direction == SCSI_DATA_NONE || bytes > TARGET_TRANSFER_MAX_BYTES)
        return true;
    if (direction == SCSI_DATA_OUT && !task->reads)
        task->wanted_bytes = (uint32_t)MIN(bytes, task->expected_bytes);
    if (list_empty(&environment->waiting)) /* else: not past those who wait */
        task->target.scsi.buffer = target_buffer(environment->target, (uint32_t)bytes);
    return task->target.scsi.buffer != NULL;
}

int iscsi_command_begin(struct iscsi_connection *connection)
{
    const uint8_t *bhs = connection->header;
    uint32_t itt = get_be32(bhs + 16);
    bool reads = bhs[1] & ISCSI_FLAG_READ, writes = bhs[1] & ISCSI_FLAG_WRITE;

    connection->data_task = NULL;
    if (connection->data_want > connection->parameters.first_burst_bytes || (connection->data_want && !writes))
        return -EPROTO;
    switch (iscsi_take_cmd_sn(connection)) {
    case ISCSI_TURN_IGNORE:
        return 0;
    case ISCSI_TURN_ERROR:
        return -EPROTO;
    default:
        break;
    }
    if (iscsi_task_find(connection, itt)) {
        iscsi_reject(connection, ISCSI_REJECT_TASK_IN_PROGRESS);
        return 0;
    }
    if ((reads && writes) || itt == ISCSI_NO_TAG) { /* bidirectional commands: none of ours */
        iscsi_reject(connection, ISCSI_REJECT_INVALID_FIELD);
        return 0;
    }
    if (connection->in_flight >= ISCSI_WINDOW + ISCSI_IMMEDIATE_EXTRA) {
        iscsi_reject(connection, ISCSI_REJECT_IMMEDIATE);
        return 0;
    }
    struct iscsi_task *task = task_new(connection);
    if (!task)
        return -ENOMEM;
    task->itt = itt;
    task->reads = reads;
    task->expected_bytes = get_be32(bhs + 20);
    task->target.lun = get_be64(bhs + 8);
    task->target.scsi.tag = itt;
    task->target.scsi.expected_bytes = task->expected_bytes;
    memcpy(task->target.scsi.cdb, bhs + 32, SCSI_CDB_BYTES);
    task->unsolicited = writes && !(bhs[1] & ISCSI_FLAG_FINAL);
    task->state = ISCSI_TASK_COLLECTING;
    list_append(&connection->tasks, &task->link);
    list_append(bucket(connection, itt), &task->bucket_link);
    if (connection->data_want > task->expected_bytes ||
        (task->unsolicited && connection->parameters.initial_r2t)) { /* §11.3.1: F must be 1 then */
        iscsi_task_free(task);
        return -EPROTO;
    }
    if (!find_buffer(task)) {
        if (connection->data_want || task->unsolicited) {
            task->discards = true;
        } else {
            task->state = ISCSI_TASK_WAITING;
            list_append(&connection->environment->waiting, &task->item.link);
        }
    }
    connection->data_task = task;
    if (connection->data_want && task->target.scsi.buffer && task->wanted_bytes) {
        connection->data_to = task->target.scsi.buffer->data;
        connection->data_room = task->wanted_bytes;
    }
    return 0;
}

/* Count a data segment: what is beyond the wanted length was dropped on the way. */
static void received(struct iscsi_task *task, uint32_t bytes)
{
    task->received_bytes = MIN(task->received_bytes + bytes, task->wanted_bytes);
}

int iscsi_command_end(struct iscsi_connection *connection)
{
    struct iscsi_task *task = connection->data_task;
    if (!task) /* ignored or rejected */
        return 0;
    received(task, connection->data_want);
    task->asked_bytes = connection->data_want;
    if (task->state == ISCSI_TASK_COLLECTING)
        proceed(task);
    return 0;
}

/* ---- SCSI Data-Out PDU, §11.7 ---- */

int iscsi_data_out_begin(struct iscsi_connection *connection)
{
    const uint8_t *bhs = connection->header;
    uint32_t offset = get_be32(bhs + 40), tag = get_be32(bhs + 20), data_sn = get_be32(bhs + 36);
    struct iscsi_task *task = iscsi_task_find(connection, get_be32(bhs + 16));

    connection->data_task = NULL;
    if (!task || task->state != ISCSI_TASK_COLLECTING) /* aborted meanwhile: its data may still come (§11.5.1) */
        return 0;
    if (tag == ISCSI_NO_TAG) {
        uint64_t end = (uint64_t)offset + connection->data_want;
        if (!task->unsolicited || end > connection->parameters.first_burst_bytes || end > task->expected_bytes ||
            offset != task->asked_bytes)
            return -EPROTO;
        task->asked_bytes = (uint32_t)end;
    } else if (task->unsolicited || !task->r2t_outstanding || tag != task->itt || offset != task->received_bytes ||
               connection->data_want > task->asked_bytes - offset) {
        return -EPROTO; /* DataPDUInOrder, DataSequenceInOrder: §13.18, §13.19 */
    }
    if (data_sn != task->data_sn_in++)
        return -EPROTO;
    connection->data_task = task;
    if (task->target.scsi.buffer && offset < task->wanted_bytes) {
        connection->data_to = task->target.scsi.buffer->data + offset;
        connection->data_room = task->wanted_bytes - offset;
    }
    return 0;
}

int iscsi_data_out_end(struct iscsi_connection *connection)
{
    struct iscsi_task *task = connection->data_task;
    bool final = connection->header[1] & ISCSI_FLAG_FINAL;
    if (!task)
        return 0;
    bool solicited = get_be32(connection->header + 20) != ISCSI_NO_TAG;
    received(task, connection->data_want);
    if (!final)
        return 0;
    task->data_sn_in = 0;
    if (solicited) {
        uint32_t burst = connection->parameters.max_burst_bytes;
        uint32_t end = MIN(task->sequence_end + burst, task->wanted_bytes);
        if (task->received_bytes != end) /* shorter or longer than asked */
            return -EPROTO;
        task->sequence_end = end;
        task->r2t_outstanding--;
    } else {
        task->unsolicited = false;
    }
    proceed(task);
    return 0;
}

/* ---- output ---- */

/* §11.8. DataSN of a sequence starts at 0; bursts follow each other from what came unsolicited. */
static bool emit_r2t(struct iscsi_task *task, struct iscsi_slot *slot)
{
    struct iscsi_connection *connection = task->connection;
    uint32_t length = MIN(connection->parameters.max_burst_bytes, task->wanted_bytes - task->asked_bytes);
    uint8_t *bhs = slot->head;
    if (task->r2t_sn == 0)
        task->sequence_end = task->asked_bytes;
    memset(bhs, 0, ISCSI_BHS_BYTES);
    bhs[0] = ISCSI_R2T;
    bhs[1] = ISCSI_FLAG_FINAL;
    put_be64(bhs + 8, task->target.lun);
    put_be32(bhs + 16, task->itt);
    put_be32(bhs + 20, task->itt); /* target transfer tag: unique as the task is */
    put_be32(bhs + 24, connection->stat_sn);
    iscsi_put_window(connection, bhs);
    put_be32(bhs + 36, task->r2t_sn++);
    put_be32(bhs + 40, task->asked_bytes);
    put_be32(bhs + 44, length);
    task->asked_bytes += length;
    task->r2t_outstanding++;
    return task->asked_bytes < task->wanted_bytes &&
           task->r2t_outstanding < connection->parameters.max_outstanding_r2t;
}

/* Residual count and its flags: RFC 7143 §11.4.5. */
static uint8_t put_residual(const struct iscsi_task *task, uint8_t *to)
{
    uint32_t moves = task->target.scsi.transfer_bytes, expected = task->expected_bytes;
    put_be32(to, moves > expected ? moves - expected : expected - moves);
    return moves > expected ? ISCSI_FLAG_OVERFLOW : moves < expected ? ISCSI_FLAG_UNDERFLOW : 0;
}

static void put_status_numbers(struct iscsi_task *task, uint8_t *bhs)
{
    struct iscsi_connection *connection = task->connection;
    put_be32(bhs + 24, connection->stat_sn++); /* S3 */
    uncount(task);
    iscsi_put_window(connection, bhs);
}

/* §11.7: the last Data-In of a command that ended GOOD carries the status. */
static bool emit_data_in(struct iscsi_task *task, struct iscsi_slot *slot)
{
    struct iscsi_connection *connection = task->connection;
    const struct iscsi_parameters *parameters = &connection->parameters;
    uint32_t left = task->send_bytes - task->sent_bytes;
    uint32_t burst_left = parameters->max_burst_bytes - task->burst_sent;
    uint32_t length = MIN(left, MIN(parameters->send_segment_bytes, burst_left));
    bool last = length == left, collapse = last && task->target.scsi.status == SCSI_GOOD;
    uint8_t *bhs = slot->head;

    memset(bhs, 0, ISCSI_BHS_BYTES);
    bhs[0] = ISCSI_DATA_IN;
    put_be24(bhs + 5, length);
    put_be32(bhs + 16, task->itt);
    put_be32(bhs + 20, ISCSI_NO_TAG);
    put_be32(bhs + 36, task->data_sn++);
    put_be32(bhs + 40, task->sent_bytes);
    if (last || length == burst_left)
        bhs[1] |= ISCSI_FLAG_FINAL;
    if (collapse) {
        bhs[1] |= ISCSI_FLAG_STATUS | put_residual(task, bhs + 44);
        put_status_numbers(task, bhs);
    } else {
        iscsi_put_window(connection, bhs);
    }
    slot->data = task->target.scsi.buffer->data + task->sent_bytes;
    slot->data_bytes = length;
    task->sent_bytes += length;
    task->burst_sent = length == burst_left ? 0 : task->burst_sent + length;
    if (collapse)
        slot->task = task;
    return !collapse;
}

/* §11.4 */
static void emit_response(struct iscsi_task *task, struct iscsi_slot *slot)
{
    const struct scsi_task *scsi = &task->target.scsi;
    uint8_t *bhs = slot->head;
    memset(bhs, 0, ISCSI_BHS_BYTES);
    bhs[0] = ISCSI_RESPONSE;
    bhs[1] = ISCSI_FLAG_FINAL | put_residual(task, bhs + 44);
    bhs[3] = scsi->status;
    put_be32(bhs + 16, task->itt);
    put_status_numbers(task, bhs);
    put_be32(bhs + 36, task->data_sn + task->r2t_sn);
    if (scsi->sense_bytes) { /* §11.4.7.2 */
        put_be16(task->sense_segment, scsi->sense_bytes);
        memcpy(task->sense_segment + 2, scsi->sense, scsi->sense_bytes);
        slot->data = task->sense_segment;
        slot->data_bytes = scsi->sense_bytes + 2u;
        put_be24(bhs + 5, slot->data_bytes);
    }
    slot->task = task;
}

bool iscsi_task_emit(struct iscsi_task *task, struct iscsi_slot *slot)
{
    if (task->state == ISCSI_TASK_COLLECTING)
        return emit_r2t(task, slot);
    if (task->sent_bytes < task->send_bytes)
        return emit_data_in(task, slot);
    emit_response(task, slot);
    return false;
}
