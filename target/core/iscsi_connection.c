/* PDUs in and out of the byte stream; what the PDUs mean is in iscsi_login.c, iscsi_task.c and iscsi_request.c. */
#include "target/core/iscsi_private.h"

#include "director/base/crc32c.h"

void iscsi_environment_init(struct iscsi_environment *environment, struct target *target)
{
    *environment = (struct iscsi_environment){
        .target = target, .nop_interval_ms = 5000, .nop_timeout_ms = 10000, .login_timeout_ms = 10000};
    list_init(&environment->waiting);
}

void iscsi_environment_done(struct iscsi_environment *environment)
{
    ASSERT(list_empty(&environment->waiting));
    while (environment->free_tasks) {
        struct iscsi_task *task = environment->free_tasks;
        environment->free_tasks = task->next_free;
        free(task);
    }
}

void iscsi_connection_init(struct iscsi_connection *connection, struct iscsi_environment *environment, uint64_t now_ms)
{
    connection->environment = environment;
    connection->stage = ISCSI_STAGE_SECURITY;
    connection->leading = true;
    connection->failed = connection->closing = connection->discovery = connection->session_open = false;
    connection->login_failed = connection->ping_outstanding = false;
    connection->sent_portal_group = connection->sent_segment_length = false;
    memset(&connection->session, 0, sizeof(connection->session));
    connection->tsih = connection->cid = 0;
    connection->parameters = (struct iscsi_parameters){ /* §13 defaults */
        .initial_r2t = true,
        .immediate_data = true,
        .send_segment_bytes = ISCSI_LOGIN_SEGMENT_BYTES,
        .max_burst_bytes = 262144,
        .first_burst_bytes = 65536,
        .max_outstanding_r2t = 1,
    };
    connection->exp_cmd_sn = connection->max_cmd_sn = 0;
    connection->stat_sn = 1;
    connection->in_flight = connection->controls = 0;
    connection->commands = connection->read_bytes = connection->written_bytes = 0;
    connection->text_in = connection->text_out = (struct iscsi_text){0};
    connection->text_sent = connection->text_tag = 0;
    connection->phase = ISCSI_INPUT_HEADER;
    connection->header_have = 0;
    connection->header_want = ISCSI_BHS_BYTES;
    connection->data_task = NULL;
    connection->control_data = NULL;
    connection->data_to = NULL;
    list_init(&connection->queue);
    connection->slot_first = connection->slot_count = 0;
    connection->sent_of_first = 0;
    list_init(&connection->tasks);
    for (unsigned i = 0; i < ISCSI_TASK_BUCKETS; i++)
        list_init(&connection->buckets[i]);
    list_init(&connection->functions);
    connection->opened_ms = connection->heard_ms = connection->now_ms = now_ms;
}

void iscsi_connection_done(struct iscsi_connection *connection)
{
    connection->failed = true;
    if (connection->session_open) {
        connection->session_open = false;
        target_session_end(connection->environment->target, &connection->session);
    }
    iscsi_functions_forget(connection);
    for (unsigned i = 0; i < connection->slot_count; i++) {
        struct iscsi_slot *slot = &connection->slots[(connection->slot_first + i) % ISCSI_SLOTS];
        free(slot->control); /* tasks: all are freed below */
    }
    connection->slot_count = 0;
    list_foreach_safe(node, after, &connection->queue)
    {
        struct iscsi_item *item = list_entry(node, struct iscsi_item, link);
        list_remove(&item->link);
        item->queued = false;
        if (!item->is_task)
            free(container_of(item, struct iscsi_control, item));
    }
    iscsi_tasks_forget(connection);
    free(connection->control_data);
    connection->control_data = NULL;
    iscsi_text_free(&connection->text_in);
    iscsi_text_free(&connection->text_out);
}

void iscsi_fail(struct iscsi_connection *connection)
{
    connection->failed = true;
    connection->changed(connection);
}

/* ---- numbers ---- */

/* The window opens as tasks end; MaxCmdSN never goes back (RFC 7143 §4.2.2.1). */
static void advance_window(struct iscsi_connection *connection)
{
    unsigned used = MIN(connection->in_flight, ISCSI_WINDOW);
    uint32_t max = connection->exp_cmd_sn + (ISCSI_WINDOW - used) - 1;
    if ((int32_t)(max - connection->max_cmd_sn) > 0)
        connection->max_cmd_sn = max;
}

void iscsi_put_window(struct iscsi_connection *connection, uint8_t *bhs)
{
    advance_window(connection);
    put_be32(bhs + 28, connection->exp_cmd_sn);
    put_be32(bhs + 32, connection->max_cmd_sn);
}

enum iscsi_turn iscsi_take_cmd_sn(struct iscsi_connection *connection)
{
    uint32_t cmd_sn = get_be32(connection->header + 24);
    if (connection->header[0] & ISCSI_IMMEDIATE)
        return ISCSI_TURN_NOW;
    if (cmd_sn == connection->exp_cmd_sn && (int32_t)(cmd_sn - connection->max_cmd_sn) <= 0) {
        connection->exp_cmd_sn++;
        return ISCSI_TURN_NOW;
    }
    if ((int32_t)(cmd_sn - connection->exp_cmd_sn) < 0 || (int32_t)(cmd_sn - connection->max_cmd_sn) > 0)
        return ISCSI_TURN_IGNORE;
    return ISCSI_TURN_ERROR; /* a hole that nothing can fill on the only connection: ERL 0 ends the session */
}

/* ---- replies ---- */

struct iscsi_control *iscsi_control_new(struct iscsi_connection *connection, enum iscsi_opcode opcode, uint32_t itt,
                                        uint32_t data_bytes)
{
    struct iscsi_control *control =
        connection->controls < ISCSI_CONTROLS_MAX + 8 ? calloc(1, sizeof(*control) + data_bytes) : NULL;
    if (!control) {
        iscsi_fail(connection);
        return NULL;
    }
    connection->controls++;
    control->takes_stat_sn = true;
    control->data_bytes = data_bytes;
    control->bhs[0] = (uint8_t)opcode;
    control->bhs[1] = ISCSI_FLAG_FINAL;
    put_be24(control->bhs + 5, data_bytes);
    put_be32(control->bhs + 16, itt);
    return control;
}

void iscsi_queue_item(struct iscsi_connection *connection, struct iscsi_item *item)
{
    if (item->queued)
        return;
    item->queued = true;
    list_append(&connection->queue, &item->link);
    connection->changed(connection);
}

void iscsi_control_send(struct iscsi_connection *connection, struct iscsi_control *control)
{
    iscsi_queue_item(connection, &control->item);
}

/* RFC 7143 §11.17: the header that was wrong comes back */
void iscsi_reject(struct iscsi_connection *connection, enum iscsi_reject_reason reason)
{
    struct iscsi_control *control = iscsi_control_new(connection, ISCSI_REJECT, ISCSI_NO_TAG, ISCSI_BHS_BYTES);
    if (!control)
        return;
    control->bhs[2] = (uint8_t)reason;
    memcpy(control->data, connection->header, ISCSI_BHS_BYTES);
    iscsi_control_send(connection, control);
}

/* ---- input ---- */

static uint32_t padding(uint32_t bytes)
{
    return -bytes & 3;
}

static bool full_feature(const struct iscsi_connection *connection)
{
    return connection->stage == ISCSI_STAGE_FULL_FEATURE;
}

/* Room for the data segment of a PDU that is not about a task. */
static int control_data_begin(struct iscsi_connection *connection)
{
    if (!connection->data_want)
        return 0;
    free(connection->control_data);
    connection->control_data = malloc(connection->data_want);
    if (!connection->control_data)
        return -ENOMEM;
    connection->data_to = connection->control_data;
    connection->data_room = connection->data_want;
    return 0;
}

/* A whole header is there: decide where its data goes. */
static int pdu_begin(struct iscsi_connection *connection)
{
    const uint8_t *bhs = connection->header;
    bool digest = full_feature(connection) && connection->parameters.data_digest;
    uint8_t opcode = bhs[0] & ISCSI_OPCODE_MASK;

    connection->data_have = connection->tail_have = 0;
    connection->data_to = NULL;
    connection->data_room = 0;
    connection->data_task = NULL;
    connection->data_crc = 0;
    connection->tail_want = padding(connection->data_want) + (digest && connection->data_want ? ISCSI_DIGEST_BYTES : 0);
    if (full_feature(connection) ? connection->data_want > ISCSI_RECEIVE_MAX_BYTES
                                 : connection->data_want > ISCSI_LOGIN_SEGMENT_BYTES || opcode != ISCSI_LOGIN)
        return -EPROTO;
    if (full_feature(connection) && opcode == ISCSI_LOGIN)
        return -EPROTO;
    switch (opcode) {
    case ISCSI_COMMAND:
        return connection->discovery ? 0 : iscsi_command_begin(connection);
    case ISCSI_DATA_OUT:
        return connection->discovery ? 0 : iscsi_data_out_begin(connection);
    case ISCSI_NOP_OUT:
    case ISCSI_LOGIN:
    case ISCSI_TEXT:
        return control_data_begin(connection);
    default:
        return 0;
    }
}

static int pdu_end(struct iscsi_connection *connection)
{
    switch (connection->header[0] & ISCSI_OPCODE_MASK) {
    case ISCSI_LOGIN:
        return iscsi_login(connection);
    case ISCSI_COMMAND:
        if (!connection->discovery)
            return iscsi_command_end(connection);
        iscsi_reject(connection, ISCSI_REJECT_PROTOCOL_ERROR);
        return 0;
    case ISCSI_DATA_OUT:
        return connection->discovery ? 0 : iscsi_data_out_end(connection);
    case ISCSI_NOP_OUT:
        return iscsi_nop_out(connection);
    case ISCSI_TASK_MANAGEMENT:
        return iscsi_task_management(connection);
    case ISCSI_TEXT:
        return iscsi_text_request(connection);
    case ISCSI_LOGOUT:
        return iscsi_logout(connection);
    case ISCSI_SNACK: /* ErrorRecoveryLevel 0 */
        iscsi_reject(connection, ISCSI_REJECT_SNACK);
        return 0;
    default:
        iscsi_reject(connection, ISCSI_REJECT_NOT_SUPPORTED);
        return 0;
    }
}

static int pdu_done(struct iscsi_connection *connection)
{
    int status = pdu_end(connection);
    free(connection->control_data);
    connection->control_data = NULL;
    connection->data_task = NULL;
    connection->data_to = NULL;
    connection->phase = ISCSI_INPUT_HEADER;
    connection->header_have = 0;
    connection->header_want = ISCSI_BHS_BYTES;
    return connection->failed && !status ? -ECONNABORTED : status;
}

static int header_complete(struct iscsi_connection *connection)
{
    const uint8_t *header = connection->header;
    bool digest = full_feature(connection) && connection->parameters.header_digest;
    if (connection->header_want == ISCSI_BHS_BYTES) {
        connection->header_want += header[4] * 4u + (digest ? ISCSI_DIGEST_BYTES : 0);
        connection->data_want = get_be24(header + 5);
        if (connection->header_want > connection->header_have)
            return 0;
    }
    if (digest) { /* RFC 7143 §7.8: a header digest error at ERL 0 ends the connection */
        uint32_t size = connection->header_want - ISCSI_DIGEST_BYTES;
        if (crc32c(0, header, size) != get_le32(header + size))
            return -EBADMSG;
    }
    int status = pdu_begin(connection);
    if (status < 0)
        return status;
    if (connection->data_want) {
        connection->phase = ISCSI_INPUT_DATA;
        return 0;
    }
    return pdu_done(connection);
}

static int tail_complete(struct iscsi_connection *connection)
{
    uint32_t pad = padding(connection->data_want);
    if (connection->tail_want > pad) {
        uint32_t crc = crc32c(connection->data_crc, connection->tail, pad);
        if (crc != get_le32(connection->tail + pad))
            return -EBADMSG; /* §7.8: at ERL 0 the session is dropped, the initiator starts again */
    }
    return pdu_done(connection);
}

/* size bytes of the data segment are in place. */
static int data_taken(struct iscsi_connection *connection, const uint8_t *bytes, uint32_t size)
{
    if (connection->parameters.data_digest && full_feature(connection))
        connection->data_crc = crc32c(connection->data_crc, bytes, size);
    connection->data_have += size;
    if (connection->data_have < connection->data_want)
        return 0;
    connection->phase = ISCSI_INPUT_TAIL;
    return connection->tail_want ? 0 : pdu_done(connection);
}

static int take_data(struct iscsi_connection *connection, const uint8_t *bytes, uint32_t size)
{
    if (connection->data_to && connection->data_have < connection->data_room) {
        uint32_t keep = MIN(size, connection->data_room - connection->data_have);
        memcpy(connection->data_to + connection->data_have, bytes, keep);
    }
    return data_taken(connection, bytes, size);
}

int iscsi_connection_input(struct iscsi_connection *connection, const uint8_t *bytes, size_t size, uint64_t now_ms)
{
    connection->now_ms = connection->heard_ms = now_ms;
    while (size) {
        uint32_t n;
        int status = 0;
        if (connection->failed)
            return -ECONNABORTED;
        switch (connection->phase) {
        case ISCSI_INPUT_HEADER:
            n = (uint32_t)MIN(size, connection->header_want - connection->header_have);
            memcpy(connection->header + connection->header_have, bytes, n);
            connection->header_have += n;
            if (connection->header_have == connection->header_want)
                status = header_complete(connection);
            break;
        case ISCSI_INPUT_DATA:
            n = (uint32_t)MIN(size, connection->data_want - connection->data_have);
            status = take_data(connection, bytes, n);
            break;
        default:
            n = (uint32_t)MIN(size, connection->tail_want - connection->tail_have);
            memcpy(connection->tail + connection->tail_have, bytes, n);
            connection->tail_have += n;
            if (connection->tail_have == connection->tail_want)
                status = tail_complete(connection);
            break;
        }
        if (status < 0)
            return status;
        bytes += n;
        size -= n;
    }
    return 0;
}

bool iscsi_connection_direct(struct iscsi_connection *connection, struct iovec *ret_place)
{
    if (connection->phase != ISCSI_INPUT_DATA || !connection->data_to || connection->failed ||
        connection->data_want - connection->data_have < ISCSI_DIRECT_BYTES ||
        connection->data_room < connection->data_want)
        return false;
    *ret_place = (struct iovec){connection->data_to + connection->data_have, connection->data_want - connection->data_have};
    return true;
}

int iscsi_connection_direct_done(struct iscsi_connection *connection, size_t size, uint64_t now_ms)
{
    connection->now_ms = connection->heard_ms = now_ms;
    return data_taken(connection, connection->data_to + connection->data_have, (uint32_t)size);
}

bool iscsi_connection_wants_input(const struct iscsi_connection *connection)
{
    return !connection->failed && !connection->closing && connection->controls < ISCSI_CONTROLS_MAX;
}

/* ---- output ---- */

static void control_emit(struct iscsi_connection *connection, struct iscsi_control *control, struct iscsi_slot *slot)
{
    memcpy(slot->head, control->bhs, ISCSI_BHS_BYTES);
    put_be32(slot->head + 24, connection->stat_sn);
    if (control->takes_stat_sn)
        connection->stat_sn++;
    iscsi_put_window(connection, slot->head);
    slot->data = control->data;
    slot->data_bytes = control->data_bytes;
    slot->control = control;
}

/* Digests and padding, once header and data are final. */
static void slot_finish(struct iscsi_connection *connection, struct iscsi_slot *slot)
{
    bool digests = !(slot->control && slot->control->plain);
    uint32_t pad = padding(slot->data_bytes);
    slot->head_bytes = ISCSI_BHS_BYTES;
    slot->tail_bytes = slot->data_bytes ? pad : 0;
    if (digests && connection->parameters.header_digest) {
        put_le32(slot->head + ISCSI_BHS_BYTES, crc32c(0, slot->head, ISCSI_BHS_BYTES));
        slot->head_bytes += ISCSI_DIGEST_BYTES;
    }
    memset(slot->tail, 0, 4);
    if (digests && connection->parameters.data_digest && slot->data_bytes) {
        uint32_t crc = crc32c(0, slot->data, slot->data_bytes);
        put_le32(slot->tail + pad, crc32c(crc, slot->tail, pad));
        slot->tail_bytes += ISCSI_DIGEST_BYTES;
    }
}

/* Make PDUs of what is queued while there are slots. */
static void fill_slots(struct iscsi_connection *connection)
{
    while (connection->slot_count < ISCSI_SLOTS && !list_empty(&connection->queue)) {
        struct iscsi_slot *slot = &connection->slots[(connection->slot_first + connection->slot_count) % ISCSI_SLOTS];
        struct iscsi_item *item = list_first(&connection->queue, struct iscsi_item, link);
        bool more = false;
        slot->task = NULL;
        slot->control = NULL;
        slot->data = NULL;
        slot->data_bytes = 0;
        if (item->is_task)
            more = iscsi_task_emit(container_of(item, struct iscsi_task, item), slot);
        else
            control_emit(connection, container_of(item, struct iscsi_control, item), slot);
        slot_finish(connection, slot);
        connection->slot_count++;
        if (!more) {
            list_remove(&item->link);
            item->queued = false;
        }
    }
}

unsigned iscsi_connection_output(struct iscsi_connection *connection, struct iovec *iov, unsigned max)
{
    unsigned count = 0;
    size_t skip = connection->sent_of_first;
    if (connection->failed)
        return 0;
    fill_slots(connection);
    for (unsigned i = 0; i < connection->slot_count && count + 3 <= max; i++) {
        struct iscsi_slot *slot = &connection->slots[(connection->slot_first + i) % ISCSI_SLOTS];
        const uint8_t *pieces[3] = {slot->head, slot->data, slot->tail};
        uint32_t sizes[3] = {slot->head_bytes, slot->data_bytes, slot->tail_bytes};
        for (unsigned k = 0; k < 3; k++) {
            size_t cut = MIN(skip, sizes[k]);
            skip -= cut;
            if (sizes[k] > cut)
                iov[count++] = (struct iovec){(void *)(pieces[k] + cut), sizes[k] - cut};
        }
    }
    return count;
}

void iscsi_connection_sent(struct iscsi_connection *connection, size_t size)
{
    connection->sent_of_first += size;
    while (connection->slot_count) {
        struct iscsi_slot *slot = &connection->slots[connection->slot_first];
        size_t total = (size_t)slot->head_bytes + slot->data_bytes + slot->tail_bytes;
        if (connection->sent_of_first < total)
            return;
        connection->sent_of_first -= total;
        connection->slot_first = (connection->slot_first + 1) % ISCSI_SLOTS;
        connection->slot_count--;
        if (slot->task)
            iscsi_task_free(slot->task); /* S4 */
        if (slot->control) {
            connection->controls--;
            free(slot->control);
        }
    }
}

/* ---- time ---- */

int iscsi_connection_tick(struct iscsi_connection *connection, uint64_t now_ms)
{
    const struct iscsi_environment *environment = connection->environment;
    connection->now_ms = now_ms;
    if (!full_feature(connection) || connection->closing)
        return now_ms - MAX(connection->opened_ms, connection->closing ? connection->heard_ms : 0) >=
                       environment->login_timeout_ms
                   ? -ETIMEDOUT
                   : 0;
    uint64_t quiet = now_ms - MIN(now_ms, connection->heard_ms);
    if (quiet < environment->nop_interval_ms) {
        connection->ping_outstanding = false;
        return 0;
    }
    if (quiet >= (uint64_t)environment->nop_interval_ms + environment->nop_timeout_ms)
        return -ETIMEDOUT;
    if (!connection->ping_outstanding) { /* RFC 7143 §11.19: a ping that wants an answer has a target transfer tag */
        struct iscsi_control *control = iscsi_control_new(connection, ISCSI_NOP_IN, ISCSI_NO_TAG, 0);
        if (!control)
            return -ENOMEM;
        put_be32(control->bhs + 20, 1);
        control->takes_stat_sn = false;
        connection->ping_outstanding = true;
        iscsi_control_send(connection, control);
    }
    return 0;
}
