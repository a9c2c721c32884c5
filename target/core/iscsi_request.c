/* Requests that are no SCSI commands: NOP-Out, text, task management, logout. */
#include "target/core/iscsi_private.h"

/* ---- NOP-Out, RFC 7143 §11.18 ---- */

int iscsi_nop_out(struct iscsi_connection *connection)
{
    uint32_t itt = get_be32(connection->header + 16);
    if (itt == ISCSI_NO_TAG) { /* the answer to our ping, or an ExpStatSN for nothing */
        connection->ping_outstanding = false;
        return 0;
    }
    switch (iscsi_take_cmd_sn(connection)) {
    case ISCSI_TURN_IGNORE:
        return 0;
    case ISCSI_TURN_ERROR:
        return -EPROTO;
    default:
        break;
    }
    /* The ping data comes back as far as the initiator takes it. */
    uint32_t bytes = MIN(connection->data_want, connection->parameters.send_segment_bytes);
    struct iscsi_control *control = iscsi_control_new(connection, ISCSI_NOP_IN, itt, bytes);
    if (!control)
        return -ENOMEM;
    memcpy(control->bhs + 8, connection->header + 8, 8);
    put_be32(control->bhs + 20, ISCSI_NO_TAG);
    if (bytes)
        memcpy(control->data, connection->control_data, bytes);
    iscsi_control_send(connection, control);
    return 0;
}

/* ---- Text, §11.10 ---- */

/* §8 appendix C: one TargetName and all its addresses for each target; every node of the cluster exports every target. */
static void put_target(struct iscsi_connection *connection, const char *name)
{
    const struct target_port *ports;
    struct target *target = connection->environment->target;
    unsigned count = target_portals(target, &ports);
    iscsi_text_put(&connection->text_out, "TargetName", "%s", name);
    for (unsigned i = 0; i < count; i++) {
        bool ipv6 = strchr(ports[i].address, ':') != NULL;
        if (ports[i].alive)
            iscsi_text_put(&connection->text_out, "TargetAddress", ipv6 ? "[%s]:%u,%u" : "%s:%u,%u", ports[i].address,
                           ports[i].port, ports[i].nodeid);
    }
    if (!count)
        iscsi_text_put(&connection->text_out, "TargetAddress", "%s,%u", connection->local, target->shared.nodeid);
}

static void send_targets(struct iscsi_connection *connection, const char *value)
{
    struct target *target = connection->environment->target;
    if (strcmp(value, "All") == 0 && !connection->discovery) { /* only in discovery sessions */
        iscsi_text_put(&connection->text_out, "SendTargets", "Reject");
        return;
    }
    if (*value == '\0' && connection->session.iqn) {
        put_target(connection, connection->session.iqn->name);
        return;
    }
    list_foreach(node, &target->iqns)
    {
        const struct target_iqn *iqn = list_entry(node, struct target_iqn, link);
        if (strcmp(value, "All") == 0 || strcmp(value, iqn->name) == 0)
            put_target(connection, iqn->name);
    }
}

/* The next piece of text_out, as much as the initiator takes. */
static int send_text(struct iscsi_connection *connection, uint32_t itt)
{
    uint32_t left = connection->text_out.length - connection->text_sent;
    uint32_t bytes = MIN(left, connection->parameters.send_segment_bytes);
    bool last = bytes == left;
    struct iscsi_control *control = iscsi_control_new(connection, ISCSI_TEXT_RESPONSE, itt, bytes);
    if (!control)
        return -ENOMEM;
    if (!last)
        control->bhs[1] = ISCSI_FLAG_CONTINUE;
    put_be32(control->bhs + 20, last ? ISCSI_NO_TAG : 1);
    if (bytes)
        memcpy(control->data, connection->text_out.bytes + connection->text_sent, bytes);
    connection->text_sent += bytes;
    if (last) {
        iscsi_text_free(&connection->text_out);
        connection->text_sent = 0;
    }
    iscsi_control_send(connection, control);
    return 0;
}

int iscsi_text_request(struct iscsi_connection *connection)
{
    const uint8_t *bhs = connection->header;
    uint32_t itt = get_be32(bhs + 16), at = 0;
    char *key, *value;
    int status;

    switch (iscsi_take_cmd_sn(connection)) {
    case ISCSI_TURN_IGNORE:
        return 0;
    case ISCSI_TURN_ERROR:
        return -EPROTO;
    default:
        break;
    }
    if (get_be32(bhs + 20) != ISCSI_NO_TAG && connection->text_out.length) /* asks for the next piece */
        return send_text(connection, itt);
    iscsi_text_free(&connection->text_out);
    connection->text_sent = 0;
    iscsi_text_append(&connection->text_in, connection->control_data, connection->data_want);
    if (connection->text_in.failed)
        return -EPROTO;
    if (bhs[1] & ISCSI_FLAG_CONTINUE) { /* an empty answer asks for the rest */
        struct iscsi_control *control = iscsi_control_new(connection, ISCSI_TEXT_RESPONSE, itt, 0);
        if (!control)
            return -ENOMEM;
        control->bhs[1] = 0;
        put_be32(control->bhs + 20, 1);
        iscsi_control_send(connection, control);
        return 0;
    }
    while ((status = iscsi_text_next(connection->text_in.bytes, connection->text_in.length, &at, &key, &value)) > 0) {
        if (strcmp(key, "SendTargets") == 0)
            send_targets(connection, value);
        else
            iscsi_text_put(&connection->text_out, key, "NotUnderstood");
    }
    iscsi_text_free(&connection->text_in);
    if (status < 0 || connection->text_out.failed)
        return -EPROTO;
    return send_text(connection, itt);
}

/* ---- Task management, §11.5 ---- */

struct iscsi_function {
    struct list link;
    struct iscsi_connection *connection;
    uint32_t itt;
};

static void send_function_response(struct iscsi_connection *connection, uint32_t itt, uint8_t response)
{
    struct iscsi_control *control = iscsi_control_new(connection, ISCSI_TASK_MANAGEMENT_RESPONSE, itt, 0);
    if (!control)
        return;
    control->bhs[2] = response;
    iscsi_control_send(connection, control);
}

static void function_done(void *context, uint8_t response)
{
    struct iscsi_function *function = context;
    send_function_response(function->connection, function->itt, response);
    list_remove(&function->link);
    free(function);
}

void iscsi_functions_forget(struct iscsi_connection *connection)
{
    list_foreach_safe(node, after, &connection->functions)
        free(list_entry(node, struct iscsi_function, link));
    list_init(&connection->functions);
}

/* Tasks that the device server has not seen yet end here. */
static unsigned abort_collecting(struct iscsi_connection *connection, uint8_t function, uint64_t lun, uint32_t tag)
{
    unsigned count = 0;
    list_foreach_safe(node, after, &connection->tasks)
    {
        struct iscsi_task *task = list_entry(node, struct iscsi_task, link);
        bool concerned = function == SCSI_ABORT_TASK ? task->itt == tag
                         : function == SCSI_TARGET_WARM_RESET || function == SCSI_TARGET_COLD_RESET
                             ? true
                             : task->target.lun == lun;
        if (!concerned || (task->state != ISCSI_TASK_COLLECTING && task->state != ISCSI_TASK_WAITING))
            continue;
        iscsi_task_free(task);
        count++;
        after = connection->tasks.next; /* freeing may have let others go on: look from the start */
        if (function == SCSI_ABORT_TASK)
            break;
    }
    return count;
}

int iscsi_task_management(struct iscsi_connection *connection)
{
    const uint8_t *bhs = connection->header;
    uint8_t function = bhs[1] & 0x7f;
    uint32_t itt = get_be32(bhs + 16), tag = get_be32(bhs + 20);
    uint64_t lun = get_be64(bhs + 8);

    switch (iscsi_take_cmd_sn(connection)) {
    case ISCSI_TURN_IGNORE:
        return 0;
    case ISCSI_TURN_ERROR:
        return -EPROTO;
    default:
        break;
    }
    if (connection->discovery || connection->controls >= ISCSI_CONTROLS_MAX) {
        iscsi_reject(connection, ISCSI_REJECT_PROTOCOL_ERROR);
        return 0;
    }
    bool aborts = function >= SCSI_ABORT_TASK && function <= SCSI_TARGET_COLD_RESET && function != SCSI_CLEAR_ACA;
    unsigned here = aborts ? abort_collecting(connection, function, lun, tag) : 0;
    if (function == SCSI_ABORT_TASK && here) {
        send_function_response(connection, itt, SCSI_FUNCTION_COMPLETE);
        return 0;
    }
    if (function == SCSI_TASK_REASSIGN) { /* ERL 2 only: §11.6.1, 4 = task allegiance reassignment not supported */
        send_function_response(connection, itt, 4);
        return 0;
    }
    struct iscsi_function *waiting = malloc(sizeof(*waiting));
    if (!waiting)
        return -ENOMEM;
    *waiting = (struct iscsi_function){.connection = connection, .itt = itt};
    list_append(&connection->functions, &waiting->link);
    target_manage(connection->environment->target, &connection->session, function, lun, tag, function_done, waiting);
    return 0;
}

/* ---- Logout, §11.14 ---- */

int iscsi_logout(struct iscsi_connection *connection)
{
    uint8_t reason = connection->header[1] & 0x7f;
    switch (iscsi_take_cmd_sn(connection)) {
    case ISCSI_TURN_IGNORE:
        return 0;
    case ISCSI_TURN_ERROR:
        return -EPROTO;
    default:
        break;
    }
    uint8_t response = 0;
    if (reason == 1 && get_be16(connection->header + 20) != connection->cid)
        response = 1; /* CID not found */
    else if (reason > 1)
        response = 2; /* connection recovery is not supported */
    struct iscsi_control *control =
        iscsi_control_new(connection, ISCSI_LOGOUT_RESPONSE, get_be32(connection->header + 16), 0);
    if (!control)
        return -ENOMEM;
    control->bhs[2] = response;
    iscsi_control_send(connection, control);
    if (response == 0)
        connection->closing = true;
    return 0;
}
