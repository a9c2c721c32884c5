/* Login: RFC 7143 §6 and §13. One connection a session, so every login is a leading one.
 *
 * The initiator speaks first; each complete request (C bit 0) is answered by one response (in pieces when it is long).
 * SECURITY offers AuthMethod None only; a stage is left when the initiator sets T, to the stage it asks for. Reaching
 * FULL_FEATURE opens the session. A request that is wrong gets a response with a status class and the connection closes. */
#include "target/core/iscsi_private.h"

struct login {
    struct iscsi_connection *connection;
    struct iscsi_text *out;
    uint16_t status; /* enum iscsi_login_status */
    bool offers_authentication, accepts_none;
};

static void fail(struct login *login, enum iscsi_login_status status)
{
    if (login->status == ISCSI_LOGIN_OK)
        login->status = (uint16_t)status;
}

/* ---- keys ---- */

static void key_name(struct login *login, const char *value)
{
    struct scsi_nexus_id *nexus = &login->connection->session.nexus;
    size_t length = strlen(value);
    if (length == 0 || length >= TARGET_NAME_BYTES) {
        fail(login, ISCSI_LOGIN_INITIATOR_ERROR);
        return;
    }
    memcpy(nexus->initiator, value, length + 1);
}

static void key_target(struct login *login, const char *value)
{
    struct scsi_nexus_id *nexus = &login->connection->session.nexus;
    size_t length = strlen(value);
    if (length >= TARGET_NAME_BYTES) {
        fail(login, ISCSI_LOGIN_NOT_FOUND);
        return;
    }
    memcpy(nexus->target, value, length + 1);
}

static void key_session_type(struct login *login, const char *value)
{
    if (strcmp(value, "Discovery") == 0)
        login->connection->discovery = true;
    else if (strcmp(value, "Normal") != 0)
        fail(login, ISCSI_LOGIN_SESSION_TYPE);
}

static void key_auth_method(struct login *login, const char *value)
{
    login->offers_authentication = true;
    login->accepts_none = iscsi_text_offers(value, "None");
    iscsi_text_put(login->out, "AuthMethod", login->accepts_none ? "None" : "Reject");
    if (!login->accepts_none)
        fail(login, ISCSI_LOGIN_AUTHENTICATION_FAILURE);
}

/* The first of the initiator's list that we have: §6.2.1 */
static void key_digest(struct login *login, const char *key, const char *value, bool *digest)
{
    const char *none = strstr(value, "None"), *crc = strstr(value, "CRC32C");
    bool has_none = iscsi_text_offers(value, "None"), has_crc = iscsi_text_offers(value, "CRC32C");
    if (!has_none && !has_crc) {
        iscsi_text_put(login->out, key, "Reject");
        fail(login, ISCSI_LOGIN_INITIATOR_ERROR);
        return;
    }
    *digest = has_crc && (!has_none || crc < none);
    iscsi_text_put(login->out, key, "%s", *digest ? "CRC32C" : "None");
}

static void key_max_segment(struct login *login, const char *value)
{
    uint32_t number;
    if (iscsi_text_number(value, &number) < 0 || number < 512 || number > 0xffffff) {
        fail(login, ISCSI_LOGIN_INITIATOR_ERROR);
        return;
    }
    login->connection->parameters.send_segment_bytes = number;
}

/* A number of which the result is the smaller (or, for Time2Wait, the larger) of both sides' values. */
static void key_number(struct login *login, const char *key, const char *value, uint32_t low, uint32_t high, uint32_t ours,
                       bool larger, uint32_t *result)
{
    uint32_t number;
    if (iscsi_text_number(value, &number) < 0 || number < low || number > high) {
        iscsi_text_put(login->out, key, "Reject");
        return;
    }
    number = larger ? MAX(number, ours) : MIN(number, ours);
    if (result)
        *result = number;
    iscsi_text_put(login->out, key, "%u", number);
}

static void key_bool(struct login *login, const char *key, const char *value, bool ours, bool is_or, bool *result)
{
    bool theirs;
    if (iscsi_text_bool(value, &theirs) < 0) {
        iscsi_text_put(login->out, key, "Reject");
        return;
    }
    bool agreed = is_or ? ours || theirs : ours && theirs;
    if (result)
        *result = agreed;
    iscsi_text_put(login->out, key, "%s", agreed ? "Yes" : "No");
}

static void operational_key(struct login *login, const char *key, const char *value)
{
    struct iscsi_parameters *parameters = &login->connection->parameters;
    if (strcmp(key, "HeaderDigest") == 0)
        key_digest(login, key, value, &parameters->header_digest);
    else if (strcmp(key, "DataDigest") == 0)
        key_digest(login, key, value, &parameters->data_digest);
    else if (strcmp(key, "MaxRecvDataSegmentLength") == 0)
        key_max_segment(login, value);
    else if (strcmp(key, "MaxConnections") == 0)
        key_number(login, key, value, 1, 65535, 1, false, NULL);
    else if (strcmp(key, "InitialR2T") == 0)
        key_bool(login, key, value, false, true, &parameters->initial_r2t);
    else if (strcmp(key, "ImmediateData") == 0)
        key_bool(login, key, value, true, false, &parameters->immediate_data);
    else if (strcmp(key, "MaxBurstLength") == 0)
        key_number(login, key, value, 512, 0xffffff, ISCSI_MAX_BURST_BYTES, false, &parameters->max_burst_bytes);
    else if (strcmp(key, "FirstBurstLength") == 0)
        key_number(login, key, value, 512, 0xffffff, ISCSI_FIRST_BURST_BYTES, false, &parameters->first_burst_bytes);
    else if (strcmp(key, "MaxOutstandingR2T") == 0)
        key_number(login, key, value, 1, 65535, ISCSI_R2T_MAX, false, &parameters->max_outstanding_r2t);
    else if (strcmp(key, "DefaultTime2Wait") == 0)
        key_number(login, key, value, 0, 3600, 0, true, NULL);
    else if (strcmp(key, "DefaultTime2Retain") == 0)
        key_number(login, key, value, 0, 3600, 0, false, NULL);
    else if (strcmp(key, "ErrorRecoveryLevel") == 0)
        key_number(login, key, value, 0, 2, 0, false, NULL);
    else if (strcmp(key, "DataPDUInOrder") == 0 || strcmp(key, "DataSequenceInOrder") == 0)
        key_bool(login, key, value, true, true, NULL);
    else if (strcmp(key, "IFMarker") == 0 || strcmp(key, "OFMarker") == 0) /* obsolete: §13.25 */
        key_bool(login, key, value, false, false, NULL);
    else if (strcmp(key, "IFMarkInt") == 0 || strcmp(key, "OFMarkInt") == 0)
        iscsi_text_put(login->out, key, "Irrelevant");
    else if (strcmp(key, "TaskReporting") == 0)
        iscsi_text_put(login->out, key, iscsi_text_offers(value, "RFC3720") ? "RFC3720" : "Reject");
    else if (strcmp(key, "iSCSIProtocolLevel") == 0)
        key_number(login, key, value, 0, 31, 1, false, NULL);
    else
        iscsi_text_put(login->out, key, "NotUnderstood"); /* §6.2 */
}

static void take_key(struct login *login, const char *key, const char *value)
{
    bool first = login->connection->leading;
    if (strcmp(key, "InitiatorName") == 0)
        first ? key_name(login, value) : fail(login, ISCSI_LOGIN_INITIATOR_ERROR);
    else if (strcmp(key, "TargetName") == 0)
        first ? key_target(login, value) : fail(login, ISCSI_LOGIN_INITIATOR_ERROR);
    else if (strcmp(key, "SessionType") == 0)
        first ? key_session_type(login, value) : fail(login, ISCSI_LOGIN_INITIATOR_ERROR);
    else if (strcmp(key, "InitiatorAlias") == 0)
        return;
    else if (strcmp(key, "AuthMethod") == 0)
        key_auth_method(login, value);
    else
        operational_key(login, key, value);
}

/* ---- responses ---- */

static void put_response_header(struct iscsi_connection *connection, struct iscsi_control *control)
{
    control->plain = true;
    memcpy(control->bhs + 8, connection->header + 8, 6);
    put_be16(control->bhs + 14, connection->tsih);
}

static int send_failure(struct iscsi_connection *connection, uint16_t status)
{
    struct iscsi_control *control =
        iscsi_control_new(connection, ISCSI_LOGIN_RESPONSE, get_be32(connection->header + 16), 0);
    if (!control)
        return -ENOMEM;
    put_response_header(connection, control);
    control->bhs[1] = 0;
    put_be16(control->bhs + 36, status);
    connection->closing = true;
    iscsi_control_send(connection, control);
    return 0;
}

/* One piece of the answer; flags are for the last. */
static int send_piece(struct iscsi_connection *connection, uint8_t flags)
{
    uint32_t left = connection->text_out.length - connection->text_sent;
    uint32_t bytes = MIN(left, ISCSI_LOGIN_SEGMENT_BYTES);
    struct iscsi_control *control =
        iscsi_control_new(connection, ISCSI_LOGIN_RESPONSE, get_be32(connection->header + 16), bytes);
    if (!control)
        return -ENOMEM;
    put_response_header(connection, control);
    control->bhs[1] = bytes == left ? flags : (flags & 0x0c) | ISCSI_FLAG_CONTINUE;
    if (bytes)
        memcpy(control->data, connection->text_out.bytes + connection->text_sent, bytes);
    connection->text_sent += bytes;
    if (connection->text_sent == connection->text_out.length) {
        iscsi_text_free(&connection->text_out);
        connection->text_sent = 0;
    }
    iscsi_control_send(connection, control);
    return 0;
}

/* ---- the session opens ---- */

static void drop_session(struct target_session *session)
{
    struct iscsi_connection *connection = container_of(session, struct iscsi_connection, session);
    iscsi_fail(connection);
}

/* §6.3.5: the same initiator port logs in to the same target again: the old session ends first, at once. */
static void reinstate(struct iscsi_connection *connection)
{
    struct target *target = connection->environment->target;
    list_foreach_safe(node, after, &target->sessions)
    {
        struct target_session *other = list_entry(node, struct target_session, link);
        struct iscsi_connection *old = container_of(other, struct iscsi_connection, session);
        if (memcmp(other->nexus.isid, connection->session.nexus.isid, 6) != 0 ||
            strcmp(other->nexus.initiator, connection->session.nexus.initiator) != 0 ||
            strcmp(other->nexus.target, connection->session.nexus.target) != 0 || old->discovery != connection->discovery)
            continue;
        old->session_open = false;
        target_session_end(target, other);
        iscsi_fail(old);
    }
}

static uint16_t open_session(struct iscsi_connection *connection)
{
    struct iscsi_environment *environment = connection->environment;
    struct iscsi_parameters *parameters = &connection->parameters;
    if (parameters->first_burst_bytes > parameters->max_burst_bytes) /* §13.14 */
        parameters->first_burst_bytes = parameters->max_burst_bytes;
    if (!connection->discovery) {
        connection->session.iqn = target_find_iqn(environment->target, connection->session.nexus.target);
        if (!connection->session.iqn)
            return ISCSI_LOGIN_NOT_FOUND;
    }
    reinstate(connection);
    if (++environment->next_tsih == 0)
        environment->next_tsih = 1;
    connection->tsih = environment->next_tsih;
    connection->session.drop = drop_session;
    target_session_begin(environment->target, &connection->session);
    connection->session_open = true;
    return ISCSI_LOGIN_OK;
}

/* ---- the exchange ---- */

/* What the first request must have: §6.3.1, §13.4, §13.5 */
static uint16_t check_leading(struct iscsi_connection *connection)
{
    const struct scsi_nexus_id *nexus = &connection->session.nexus;
    if (!nexus->initiator[0])
        return ISCSI_LOGIN_MISSING_PARAMETER;
    if (connection->discovery)
        return ISCSI_LOGIN_OK;
    if (!nexus->target[0])
        return ISCSI_LOGIN_MISSING_PARAMETER;
    return target_find_iqn(connection->environment->target, nexus->target) ? ISCSI_LOGIN_OK : ISCSI_LOGIN_NOT_FOUND;
}

/* The header of the first request starts the connection's numbers. */
static uint16_t begin(struct iscsi_connection *connection)
{
    const uint8_t *bhs = connection->header;
    if (bhs[3] > 0) /* version-min: we speak 0 */
        return ISCSI_LOGIN_UNSUPPORTED_VERSION;
    if (get_be16(bhs + 14) != 0) { /* TSIH: another connection of a session */
        list_foreach(node, &connection->environment->target->sessions)
        {
            struct target_session *other = list_entry(node, struct target_session, link);
            if (container_of(other, struct iscsi_connection, session)->tsih == get_be16(bhs + 14))
                return ISCSI_LOGIN_TOO_MANY_CONNECTIONS;
        }
        return ISCSI_LOGIN_NO_SESSION;
    }
    memcpy(connection->session.nexus.isid, bhs + 8, 6);
    connection->cid = get_be16(bhs + 20);
    connection->exp_cmd_sn = get_be32(bhs + 24);
    connection->max_cmd_sn = connection->exp_cmd_sn - 1;
    return ISCSI_LOGIN_OK;
}

static uint16_t take_text(struct iscsi_connection *connection)
{
    struct login login = {.connection = connection, .out = &connection->text_out};
    char *key, *value;
    uint32_t at = 0;
    int status;
    while ((status = iscsi_text_next(connection->text_in.bytes, connection->text_in.length, &at, &key, &value)) > 0)
        take_key(&login, key, value);
    iscsi_text_free(&connection->text_in);
    if (status < 0 || connection->text_out.failed)
        return ISCSI_LOGIN_INITIATOR_ERROR;
    return login.status;
}

/* Keys of ours that the initiator did not ask for. */
static void declare(struct iscsi_connection *connection, uint8_t stage)
{
    if (!connection->sent_portal_group && !connection->discovery) { /* §13.9 */
        iscsi_text_put(&connection->text_out, "TargetPortalGroupTag", "%u",
                       connection->environment->target->shared.nodeid);
        connection->sent_portal_group = true;
    }
    if (!connection->sent_segment_length && stage == ISCSI_STAGE_OPERATIONAL) {
        iscsi_text_put(&connection->text_out, "MaxRecvDataSegmentLength", "%u", ISCSI_RECEIVE_MAX_BYTES);
        connection->sent_segment_length = true;
    }
}

static bool stages_are_valid(const struct iscsi_connection *connection, uint8_t current, uint8_t next, bool transit)
{
    if (current != ISCSI_STAGE_SECURITY && current != ISCSI_STAGE_OPERATIONAL)
        return false;
    if (connection->leading ? false : current != connection->stage)
        return false;
    return !transit || (next > current && next != 2);
}

static int answer(struct iscsi_connection *connection, uint8_t current, uint8_t next, bool transit)
{
    uint8_t flags = (uint8_t)(current << 2);
    uint16_t status;
    declare(connection, current);
    if (connection->text_out.failed)
        return -ENOMEM;
    connection->stage = current;
    if (transit && connection->text_out.length <= ISCSI_LOGIN_SEGMENT_BYTES) {
        flags |= ISCSI_FLAG_FINAL | next;
        connection->stage = next;
    }
    if (connection->stage == ISCSI_STAGE_FULL_FEATURE) {
        status = open_session(connection);
        if (status != ISCSI_LOGIN_OK) {
            connection->stage = current;
            return send_failure(connection, status);
        }
    }
    return send_piece(connection, flags);
}

int iscsi_login(struct iscsi_connection *connection)
{
    const uint8_t *bhs = connection->header;
    bool transit = bhs[1] & ISCSI_FLAG_FINAL, more = bhs[1] & ISCSI_FLAG_CONTINUE;
    uint8_t current = bhs[1] >> 2 & 3, next = bhs[1] & 3;
    uint16_t status = ISCSI_LOGIN_OK;

    if (connection->leading && !connection->text_in.length)
        status = begin(connection);
    if (status == ISCSI_LOGIN_OK && ((transit && more) || !stages_are_valid(connection, current, next, transit)))
        status = ISCSI_LOGIN_INITIATOR_ERROR;
    if (status == ISCSI_LOGIN_OK && connection->text_sent) /* the initiator asks for the next piece of our answer */
        return send_piece(connection, (uint8_t)(current << 2));
    iscsi_text_append(&connection->text_in, connection->control_data, connection->data_want);
    if (status == ISCSI_LOGIN_OK && connection->text_in.failed)
        status = ISCSI_LOGIN_OUT_OF_RESOURCES;
    if (status == ISCSI_LOGIN_OK && more)
        return send_piece(connection, (uint8_t)(current << 2));
    if (status == ISCSI_LOGIN_OK)
        status = take_text(connection);
    if (status == ISCSI_LOGIN_OK && connection->leading)
        status = check_leading(connection);
    if (status != ISCSI_LOGIN_OK)
        return send_failure(connection, status);
    connection->leading = false;
    return answer(connection, current, next, transit);
}
