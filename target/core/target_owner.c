/* Commands and functions that other nodes forwarded to this one, the owner. */
#include "target/core/target_private.h"

#include "director/base/bytes.h"
#include <errno.h>

struct foreign_task {
    struct scsi_task scsi; /* first: found from it */
    struct foreign_task *next;
    struct target *target;
    struct target_lu *lu;
    uint16_t from;
    uint64_t request;
    uint8_t frame[FORWARD_REPLY_MAX_BYTES];
};

struct foreign_function {
    struct scsi_management management;
    struct target *target;
    struct target_lu *lu;
    uint16_t from;
    uint64_t request;
};

static struct foreign_task *get_task(struct target *target)
{
    if (target->foreign_count >= TARGET_FOREIGN_MAX)
        return NULL;
    struct foreign_task *task = target->foreign_free;
    if (task)
        target->foreign_free = task->next;
    else
        task = malloc(sizeof(*task));
    if (task)
        target->foreign_count++;
    return task;
}

/* The reply has left, or will never. */
static void put_task(void *argument)
{
    struct foreign_task *task = argument;
    struct target *target = task->target;
    data_pool_put(&target->pool, task->scsi.buffer);
    if (task->lu)
        task->lu->users--;
    task->next = target->foreign_free;
    target->foreign_free = task;
    target->foreign_count--;
}

void target_owner_done(struct target *target)
{
    while (target->foreign_free) {
        struct foreign_task *task = target->foreign_free;
        target->foreign_free = task->next;
        free(task);
    }
}

static void send_reply(struct foreign_task *task, enum forward_outcome outcome)
{
    const struct scsi_task *scsi = &task->scsi;
    bool done = outcome == FORWARD_DONE;
    struct forward_reply reply = {
        .outcome = outcome,
        .status = scsi->status,
        .sense_bytes = done ? scsi->sense_bytes : 0,
        .sense = scsi->sense,
        .transfer_bytes = done ? scsi->transfer_bytes : 0,
        .data_bytes = done ? scsi->data_in_bytes : 0,
    };
    struct iovec iov[2] = {{task->frame, forward_reply_encode(&reply, task->frame)}};
    unsigned count = 1;
    if (reply.data_bytes)
        iov[count++] = (struct iovec){scsi->buffer->data, reply.data_bytes};
    struct peer_header header = {
        .type = FORWARD_REPLY,
        .payload_bytes = (uint32_t)iov[0].iov_len + reply.data_bytes,
        .request = task->request,
        .object = task->lu ? task->lu->unit.identity.volume_id : 0,
    };
    if (target_send(task->target, task->from, &header, iov, count, put_task, task) < 0)
        put_task(task); /* the node lost its link and knows */
}

static void command_done(struct scsi_task *scsi)
{
    struct foreign_task *task = container_of(scsi, struct foreign_task, scsi);
    send_reply(task, scsi->aborted ? FORWARD_ABORTED : scsi->stale ? FORWARD_STALE : FORWARD_DONE);
}

static bool is_owner(const struct target_lu *lu, const struct peer_header *header)
{
    return lu && lu->state == TARGET_LU_ACTIVE && lu->epoch == header->epoch; /* T3 */
}

/* Room for what the command moves, as target_command_data() on the other side; data-out is copied in. */
static bool take_data(struct foreign_task *task, const struct forward_request *request)
{
    uint64_t bytes;
    enum scsi_direction direction =
        scsi_cdb_data(request->cdb, task->lu->unit.identity.block_bytes, &bytes);
    task->scsi.buffer = NULL;
    task->scsi.data_out_bytes = 0;
    if (direction == SCSI_DATA_NONE || bytes > TARGET_TRANSFER_MAX_BYTES)
        return true;
    task->scsi.buffer = target_buffer(task->target, (uint32_t)bytes);
    if (!task->scsi.buffer)
        return false;
    if (direction == SCSI_DATA_OUT) {
        task->scsi.data_out_bytes = (uint32_t)MIN(bytes, request->data_bytes);
        memcpy(task->scsi.buffer->data, request->data, task->scsi.data_out_bytes);
    }
    return true;
}

int target_owner_command(struct target *target, uint16_t from, const struct peer_header *header,
                         const struct forward_request *request)
{
    struct target_lu *lu = target_find_lu(target, header->object);
    if (header->argument >> 48 != from)
        return -EPROTO;
    struct foreign_task *task = get_task(target);
    if (!task)
        return 0; /* more than 8192 commands are under way: the sender's link or deadline gives this one up */
    task->target = target;
    task->lu = NULL;
    task->from = from;
    task->request = header->request;
    task->scsi.buffer = NULL;
    task->scsi.status = SCSI_GOOD;
    task->scsi.sense_bytes = 0;
    task->scsi.data_in_bytes = task->scsi.transfer_bytes = 0;
    if (!is_owner(lu, header)) {
        send_reply(task, FORWARD_NOT_OWNER);
        return 0;
    }
    task->lu = lu;
    lu->users++;
    struct scsi_nexus *nexus =
        scsi_unit_nexus(&lu->unit, &request->nexus, header->argument, request->flags & FORWARD_FLAG_FRESH);
    if (!nexus || !take_data(task, request)) {
        task->scsi.status = nexus ? SCSI_TASK_SET_FULL : SCSI_BUSY;
        send_reply(task, FORWARD_DONE);
        return 0;
    }
    memcpy(task->scsi.cdb, request->cdb, SCSI_CDB_BYTES);
    task->scsi.tag = request->tag;
    task->scsi.expected_bytes = request->expected_bytes;
    task->scsi.done = command_done;
    scsi_unit_execute(&lu->unit, nexus, &task->scsi);
    return 0;
}

/* ---- task management ---- */

static void nothing(void *argument)
{
    (void)argument;
}

static void reply_to_function(struct target *target, uint16_t to, uint64_t request, uint64_t response)
{
    struct peer_header header = {.type = FORWARD_MANAGE_REPLY, .request = request, .argument = response};
    (void)target_send(target, to, &header, NULL, 0, nothing, NULL);
}

static void function_done(struct scsi_management *management)
{
    struct foreign_function *function = container_of(management, struct foreign_function, management);
    function->lu->users--;
    reply_to_function(function->target, function->from, function->request, management->response);
    free(function);
}

int target_owner_manage(struct target *target, uint16_t from, const struct peer_header *header,
                        const struct forward_request *request)
{
    struct target_lu *lu = target_find_lu(target, header->object);
    if (header->argument >> 48 != from)
        return -EPROTO;
    if (!is_owner(lu, header)) {
        reply_to_function(target, from, header->request, FORWARD_MANAGE_NOT_OWNER);
        return 0;
    }
    struct scsi_nexus *nexus =
        scsi_unit_nexus(&lu->unit, &request->nexus, header->argument, request->flags & FORWARD_FLAG_FRESH);
    struct foreign_function *function = nexus ? calloc(1, sizeof(*function)) : NULL;
    if (!function) {
        reply_to_function(target, from, header->request, SCSI_FUNCTION_REJECTED);
        return 0;
    }
    function->target = target;
    function->lu = lu;
    function->from = from;
    function->request = header->request;
    function->management.function = request->cdb[0];
    function->management.tag = request->tag;
    function->management.done = function_done;
    lu->users++;
    scsi_unit_manage(&lu->unit, nexus, &function->management);
    return 0;
}
