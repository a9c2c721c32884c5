/* Task management functions of this node's sessions. A function has one part per logical unit it concerns (one, or all
 * of the target for target resets); a part runs at the device server here, at the owner's node, or waits for an owner.
 * The function is answered when its last part is. */
#include "target/core/target_private.h"

struct function {
    struct target *target;
    struct target_session *session; /* NULL: it ended, nobody waits for the answer */
    uint8_t function, response;
    uint64_t tag;
    unsigned pending;
    target_function_done *done;
    void *context;
};

struct function_part {
    struct list link; /* in target->functions unless it runs here */
    struct function *function;
    struct target_lu *lu;
    unsigned number;
    bool forwarded, held, sending, ended;
    uint16_t to;
    uint64_t request, deadline_ms;
    unsigned aborted; /* tasks that waited on this node */
    struct scsi_management management;
    uint8_t frame[FORWARD_REQUEST_MAX_BYTES];
};

static void function_end_part(struct function *function, uint8_t response)
{
    if (response != SCSI_FUNCTION_COMPLETE)
        function->response = response;
    if (--function->pending)
        return;
    if (function->session)
        function->done(function->context, function->response);
    free(function);
}

static void part_end(struct function_part *part, uint8_t response)
{
    if (response == SCSI_FUNCTION_NO_TASK && part->aborted)
        response = SCSI_FUNCTION_COMPLETE;
    list_remove(&part->link);
    part->lu->users--;
    function_end_part(part->function, response);
    if (part->sending)
        part->ended = true;
    else
        free(part);
}

static void local_done(struct scsi_management *management)
{
    part_end(container_of(management, struct function_part, management), management->response);
}

static void frame_sent(void *argument)
{
    struct function_part *part = argument;
    part->sending = false;
    if (part->ended)
        free(part);
}

static void part_hold(struct function_part *part)
{
    part->held = true;
    part->forwarded = false;
    target_wake(part->function->target);
}

static void part_forward(struct function_part *part)
{
    struct function *function = part->function;
    struct target *target = function->target;
    struct forward_request request = {
        .nexus = function->session->nexus,
        .flags = target_announce(function->session, part->number) ? FORWARD_FLAG_FRESH : 0,
        .cdb = {function->function},
        .tag = function->tag,
    };
    struct iovec iov = {part->frame, forward_request_encode(&request, part->frame)};
    struct peer_header header = {
        .type = FORWARD_MANAGE,
        .payload_bytes = (uint32_t)iov.iov_len,
        .request = ++target->next_request,
        .object = part->lu->unit.identity.volume_id,
        .epoch = part->lu->epoch,
        .argument = function->session->id,
    };
    part->request = header.request;
    part->to = part->lu->owner;
    part->forwarded = true;
    part->held = false;
    part->sending = true;
    if (target_send(target, part->to, &header, &iov, 1, frame_sent, part) < 0) {
        part->sending = false;
        part_hold(part);
    }
}

static void part_run(struct function_part *part)
{
    struct function *function = part->function;
    if (!function->session) { /* its session ended: nexus loss has done all that is due */
        part_end(part, SCSI_FUNCTION_REJECTED);
        return;
    }
    bool own_only = function->function == SCSI_ABORT_TASK || function->function == SCSI_ABORT_TASK_SET;
    switch (part->lu->state) {
    case TARGET_LU_ACTIVE: {
        struct scsi_nexus *nexus = target_local_nexus(part->lu, function->session, part->number);
        if (!nexus) {
            part_end(part, SCSI_FUNCTION_REJECTED);
            return;
        }
        part->held = part->forwarded = false;
        part->management.function = function->function;
        part->management.tag = function->tag;
        part->management.done = local_done;
        scsi_unit_manage(&part->lu->unit, nexus, &part->management);
        return;
    }
    case TARGET_LU_FORWARD:
        if (part->sending)
            part_hold(part);
        else
            part_forward(part);
        return;
    default:
        if (own_only && !part->forwarded) /* nothing of this nexus runs anywhere */
            part_end(part, part->aborted ? SCSI_FUNCTION_COMPLETE : SCSI_FUNCTION_NO_TASK);
        else
            part_hold(part);
        return;
    }
}

static void part_begin(struct function *function, struct target_lu *lu, unsigned number)
{
    struct target *target = function->target;
    struct function_part *part = calloc(1, sizeof(*part));
    if (!part) {
        function_end_part(function, SCSI_FUNCTION_REJECTED);
        return;
    }
    part->function = function;
    part->lu = lu;
    part->number = number;
    part->deadline_ms = target->now_ms + target->hold_ms;
    lu->users++;
    list_append(&target->functions, &part->link);
    bool everybody = function->function != SCSI_ABORT_TASK && function->function != SCSI_ABORT_TASK_SET;
    part->aborted = target_route_abort_held(lu, function->session,
                                            function->function == SCSI_ABORT_TASK ? &function->tag : NULL, everybody);
    part_run(part);
}

static bool is_known(uint8_t function)
{
    return function == SCSI_ABORT_TASK || function == SCSI_ABORT_TASK_SET || function == SCSI_CLEAR_TASK_SET ||
           (function >= SCSI_LUN_RESET && function <= SCSI_TARGET_COLD_RESET);
}

void target_manage(struct target *target, struct target_session *session, uint8_t function_code, uint64_t lun,
                   uint64_t tag, target_function_done *done, void *context)
{
    unsigned number;
    bool whole_target = function_code == SCSI_TARGET_WARM_RESET || function_code == SCSI_TARGET_COLD_RESET;
    struct target_lu *lu = target_resolve(session, lun, &number);
    if (!is_known(function_code)) {
        done(context, SCSI_FUNCTION_NOT_SUPPORTED);
        return;
    }
    if (!whole_target && !lu) {
        done(context, SCSI_FUNCTION_NO_LUN);
        return;
    }
    struct function *function = calloc(1, sizeof(*function));
    if (!function) {
        done(context, SCSI_FUNCTION_REJECTED);
        return;
    }
    *function = (struct function){
        .target = target,
        .session = session,
        .function = function_code,
        .tag = tag,
        .done = done,
        .context = context,
        .pending = 1, /* until all parts began */
    };
    if (!whole_target) {
        function->pending++;
        part_begin(function, lu, number);
    }
    for (unsigned i = 0; whole_target && session->iqn && i < TARGET_LUNS_MAX; i++) {
        lu = session->iqn->luns[i];
        bool seen = !lu;
        for (unsigned k = 0; k < i && !seen; k++)
            seen = session->iqn->luns[k] == lu;
        if (seen)
            continue;
        function->pending++;
        part_begin(function, lu, i);
    }
    function_end_part(function, SCSI_FUNCTION_COMPLETE);
}

/* ---- what happens meanwhile ---- */

void target_functions_state(struct target *target, struct target_lu *lu)
{
    list_foreach_safe(node, after, &target->functions)
    {
        struct function_part *part = list_entry(node, struct function_part, link);
        if (part->lu == lu && part->held)
            part_run(part);
    }
}

void target_functions_reply(struct target *target, uint16_t from, uint64_t request, uint64_t response)
{
    list_foreach_safe(node, after, &target->functions)
    {
        struct function_part *part = list_entry(node, struct function_part, link);
        if (!part->forwarded || part->request != request || part->to != from)
            continue;
        if (response == FORWARD_MANAGE_NOT_OWNER)
            part_hold(part);
        else
            part_end(part, (uint8_t)response);
        return;
    }
}

void target_functions_node_down(struct target *target, uint16_t nodeid)
{
    list_foreach(node, &target->functions)
    {
        struct function_part *part = list_entry(node, struct function_part, link);
        if (part->forwarded && part->to == nodeid)
            part_hold(part); /* all functions may be repeated */
    }
}

void target_functions_session_end(struct target *target, struct target_session *session)
{
    list_foreach_safe(node, after, &target->functions)
    {
        struct function_part *part = list_entry(node, struct function_part, link);
        if (part->function->session == session)
            part->function->session = NULL;
    }
}

void target_functions_lu_gone(struct target *target, struct target_lu *lu)
{
    list_foreach_safe(node, after, &target->functions)
    {
        struct function_part *part = list_entry(node, struct function_part, link);
        if (part->lu == lu && (part->held || part->forwarded))
            part_end(part, SCSI_FUNCTION_NO_LUN);
    }
}

void target_functions_tick(struct target *target)
{
    list_foreach_safe(node, after, &target->functions)
    {
        struct function_part *part = list_entry(node, struct function_part, link);
        if (target->now_ms >= part->deadline_ms && (part->held || part->forwarded))
            part_end(part, SCSI_FUNCTION_REJECTED);
        else if (part->held && part->lu->state != TARGET_LU_TRANSITION)
            part_run(part);
    }
}
