/* Scripted PDUs on one connection: login, data in all its ways, digests, residuals, task management, malformed input. */
#include "target/core/iscsi_connection.h"
#include "target/core/test_device.h"

#include "director/base/bytes.h"
#include "director/base/crc32c.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define IQN "iqn.2026-01.org.director:test"

struct fixture {
    struct target target;
    struct iscsi_environment environment;
    struct iscsi_connection connection;
    struct test_device device;
    uint32_t cmd_sn;
    bool digests;
    uint8_t output[1u << 21];
    size_t have, at;
    /* The PDU last taken from output. */
    uint8_t bhs[48];
    uint8_t *data;
    uint32_t data_bytes;
};

static void changed(struct iscsi_connection *connection)
{
    (void)connection;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct target_lu_identity identity = {
        .volume_id = 1, .uuid = {{1}}, .size_bytes = TEST_DEVICE_BYTES, .block_bytes = 512, .thin = true};
    target_init(&f->target, 1, 64u << 20, 20000, 0);
    test_device_init(&f->device, 0);
    assert_int_equal(target_put_lu(&f->target, &identity), 0);
    assert_int_equal(target_put_iqn(&f->target, IQN), 0);
    assert_int_equal(target_set_lun(&f->target, IQN, 0, 1), 0);
    assert_int_equal(target_set_lu_state(&f->target, 1, TARGET_LU_ACTIVE, 1, 1, &f->device.device), 0);
    iscsi_environment_init(&f->environment, &f->target);
    iscsi_connection_init(&f->connection, &f->environment, 0);
    f->connection.changed = changed;
    strcpy(f->connection.local, "127.0.0.1:3260");
    f->cmd_sn = 100;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    iscsi_connection_done(&f->connection);
    test_device_drain(&f->device);
    iscsi_environment_done(&f->environment);
    target_done(&f->target); /* asserts that nothing leaked from the pool */
    free(f);
    return 0;
}

/* Send a PDU byte by byte in pieces of odd sizes, as TCP may. */
static int send_pdu(struct fixture *f, uint8_t *bhs, const void *data, uint32_t bytes)
{
    uint8_t *wire = calloc(1, 48 + bytes + 16);
    size_t length = 48;
    put_be24(bhs + 5, bytes);
    memcpy(wire, bhs, 48);
    if (f->digests) {
        put_le32(wire + length, crc32c(0, wire, 48));
        length += 4;
    }
    if (bytes) {
        uint32_t padded = (bytes + 3) & ~3u;
        memcpy(wire + length, data, bytes);
        if (f->digests)
            put_le32(wire + length + padded, crc32c(0, wire + length, padded));
        length += padded + (f->digests ? 4 : 0);
    }
    int status = 0;
    for (size_t at = 0, step = 7; at < length && status == 0; at += step, step = step * 3 + 1) {
        step = MIN(step, length - at);
        status = iscsi_connection_input(&f->connection, wire + at, step, 1);
    }
    free(wire);
    return status;
}

/* Take what the connection wants to send, in odd pieces. */
static void pump(struct fixture *f)
{
    struct iovec iov[3 * ISCSI_SLOTS];
    unsigned count;
    while ((count = iscsi_connection_output(&f->connection, iov, ARRAY_SIZE(iov))) > 0) {
        size_t room = 1000, sent = 0;
        for (unsigned i = 0; i < count && room; i++) {
            size_t n = MIN(room, iov[i].iov_len);
            assert_true(f->have + n <= sizeof(f->output));
            memcpy(f->output + f->have, iov[i].iov_base, n);
            f->have += n;
            sent += n;
            room -= n;
        }
        iscsi_connection_sent(&f->connection, sent);
    }
}

/* The next PDU; its opcode, or -1. */
static int next_pdu(struct fixture *f)
{
    pump(f);
    if (f->at == f->have)
        return -1;
    memcpy(f->bhs, f->output + f->at, 48);
    f->at += 48;
    if (f->digests) {
        assert_int_equal(get_le32(f->output + f->at), crc32c(0, f->bhs, 48));
        f->at += 4;
    }
    f->data_bytes = get_be24(f->bhs + 5);
    f->data = f->output + f->at;
    uint32_t padded = (f->data_bytes + 3) & ~3u;
    f->at += padded;
    if (f->digests && f->data_bytes) {
        assert_int_equal(get_le32(f->output + f->at), crc32c(0, f->data, padded));
        f->at += 4;
    }
    assert_true(f->at <= f->have);
    return f->bhs[0] & 0x3f;
}

static int send_login(struct fixture *f, uint8_t flags, const char *text, uint32_t bytes)
{
    uint8_t bhs[48] = {0x43, flags};
    memcpy(bhs + 8, "\x80\x01\x02\x03\x04\x05", 6);
    put_be32(bhs + 16, 1);
    put_be32(bhs + 24, f->cmd_sn);
    return send_pdu(f, bhs, text, bytes);
}

#define NAMES "InitiatorName=iqn.a\0TargetName=" IQN "\0SessionType=Normal\0"

static void log_in(struct fixture *f, const char *more, uint32_t more_bytes)
{
    char text[1024];
    memcpy(text, NAMES, sizeof(NAMES) - 1);
    memcpy(text + sizeof(NAMES) - 1, more, more_bytes);
    assert_int_equal(send_login(f, 0x87, text, (uint32_t)sizeof(NAMES) - 1 + more_bytes), 0);
    assert_int_equal(next_pdu(f), ISCSI_LOGIN_RESPONSE);
    assert_int_equal(get_be16(f->bhs + 36), 0);
    assert_int_equal(f->bhs[1], 0x87);
    assert_true(get_be16(f->bhs + 14) != 0);
    assert_int_equal(get_be32(f->bhs + 28), f->cmd_sn);
}
#define LOG_IN(f, more) log_in(f, more, sizeof(more) - 1)

static void put_command(struct fixture *f, uint8_t *bhs, uint8_t flags, uint32_t itt, uint32_t expected, const uint8_t *cdb)
{
    memset(bhs, 0, 48);
    bhs[0] = ISCSI_COMMAND;
    bhs[1] = flags;
    put_be32(bhs + 16, itt);
    put_be32(bhs + 20, expected);
    put_be32(bhs + 24, f->cmd_sn++);
    memcpy(bhs + 32, cdb, 16);
}

static int command(struct fixture *f, uint8_t flags, uint32_t itt, uint32_t expected, const uint8_t *cdb, const void *data,
                   uint32_t bytes)
{
    uint8_t bhs[48];
    put_command(f, bhs, flags, itt, expected, cdb);
    return send_pdu(f, bhs, data, bytes);
}

#define CDB(...) ((const uint8_t[16]){__VA_ARGS__})
static const uint8_t ready_cdb[16];

/* Take the power-on attention. */
static void first_command(struct fixture *f)
{
    assert_int_equal(command(f, 0x80, 7, 0, ready_cdb, NULL, 0), 0);
    assert_int_equal(next_pdu(f), ISCSI_RESPONSE);
    assert_int_equal(f->bhs[3], SCSI_CHECK_CONDITION);
    assert_int_equal(f->data[2 + 2] & 15, 6);
}

static void data_out(struct fixture *f, uint8_t flags, uint32_t itt, uint32_t tag, uint32_t data_sn, uint32_t offset,
                     const void *data, uint32_t bytes, int expect)
{
    uint8_t bhs[48] = {ISCSI_DATA_OUT, flags};
    put_be32(bhs + 16, itt);
    put_be32(bhs + 20, tag);
    put_be32(bhs + 36, data_sn);
    put_be32(bhs + 40, offset);
    assert_int_equal(send_pdu(f, bhs, data, bytes), expect);
}

static void login_negotiates_and_says_what_it_does_not_know(void **state)
{
    struct fixture *f = *state;
    LOG_IN(f, "HeaderDigest=CRC32C,None\0InitialR2T=No\0MaxConnections=8\0ErrorRecoveryLevel=2\0X-what=1\0"
              "MaxBurstLength=16384\0");
    static const char *const answers[] = {"HeaderDigest=CRC32C", "InitialR2T=No", "MaxConnections=1",
                                          "ErrorRecoveryLevel=0", "X-what=NotUnderstood", "MaxBurstLength=16384",
                                          "TargetPortalGroupTag=1"};
    for (unsigned i = 0; i < ARRAY_SIZE(answers); i++)
        if (!memmem(f->data, f->data_bytes, answers[i], strlen(answers[i]) + 1))
            fail_msg("no %s", answers[i]);
}

static void login_failures_have_their_status(void **state)
{
    static const struct {
        const char *text;
        uint32_t bytes;
        uint16_t status;
    } table[] = {
#define ROW(text, status) {text, sizeof(text) - 1, status}
        ROW("TargetName=" IQN "\0", ISCSI_LOGIN_MISSING_PARAMETER),
        ROW("InitiatorName=iqn.a\0", ISCSI_LOGIN_MISSING_PARAMETER),
        ROW("InitiatorName=iqn.a\0TargetName=iqn.none\0", ISCSI_LOGIN_NOT_FOUND),
        ROW(NAMES "AuthMethod=CHAP\0", ISCSI_LOGIN_AUTHENTICATION_FAILURE),
        ROW(NAMES "MaxRecvDataSegmentLength=1\0", ISCSI_LOGIN_INITIATOR_ERROR),
        ROW("SessionType=Odd\0" NAMES, ISCSI_LOGIN_SESSION_TYPE),
        ROW("no equals\0", ISCSI_LOGIN_INITIATOR_ERROR),
    };
    struct fixture *f = *state;
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        iscsi_connection_done(&f->connection);
        iscsi_connection_init(&f->connection, &f->environment, 0);
        assert_int_equal(send_login(f, 0x87, table[i].text, table[i].bytes), 0);
        assert_int_equal(next_pdu(f), ISCSI_LOGIN_RESPONSE);
        if (get_be16(f->bhs + 36) != table[i].status)
            fail_msg("row %u: %#x", i, get_be16(f->bhs + 36));
        assert_true(f->connection.closing);
        assert_true(list_empty(&f->target.sessions));
    }
}

static void security_stage_and_pieces_lead_to_full_feature(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(send_login(f, 0x40, "InitiatorName=iq", 16), 0); /* C: more to come */
    assert_int_equal(next_pdu(f), ISCSI_LOGIN_RESPONSE);
    assert_int_equal(f->data_bytes, 0);
    static const char rest[] = "n.a\0TargetName=" IQN "\0AuthMethod=None\0";
    assert_int_equal(send_login(f, 0x81, rest, sizeof(rest) - 1), 0);
    assert_int_equal(next_pdu(f), ISCSI_LOGIN_RESPONSE);
    assert_int_equal(f->bhs[1], 0x81);
    assert_int_equal(send_login(f, 0x87, NULL, 0), 0);
    assert_int_equal(next_pdu(f), ISCSI_LOGIN_RESPONSE);
    assert_int_equal(f->bhs[1], 0x87);
    assert_string_equal(f->connection.session.nexus.initiator, "iqn.a");
}

static void discovery_lists_every_portal(void **state)
{
    struct fixture *f = *state;
    struct target_port ports[3] = {{.nodeid = 1, .port = 3260, .alive = true, .address = "10.0.0.1"},
                                   {.nodeid = 2, .port = 3260, .alive = true, .address = "fd00::2"},
                                   {.nodeid = 3, .port = 3260, .alive = false, .address = "10.0.0.3"}};
    assert_int_equal(target_set_ports(&f->target, ports, 3), 0);
    static const char text[] = "InitiatorName=iqn.a\0SessionType=Discovery\0";
    assert_int_equal(send_login(f, 0x87, text, sizeof(text) - 1), 0);
    assert_int_equal(next_pdu(f), ISCSI_LOGIN_RESPONSE);
    uint8_t bhs[48] = {ISCSI_TEXT, 0x80};
    put_be32(bhs + 16, 5);
    put_be32(bhs + 20, ISCSI_NO_TAG);
    put_be32(bhs + 24, f->cmd_sn++);
    assert_int_equal(send_pdu(f, bhs, "SendTargets=All", 16), 0);
    assert_int_equal(next_pdu(f), ISCSI_TEXT_RESPONSE);
    static const char expected[] = "TargetName=" IQN "\0TargetAddress=10.0.0.1:3260,1\0TargetAddress=[fd00::2]:3260,2";
    assert_int_equal(f->data_bytes, sizeof(expected));
    assert_memory_equal(f->data, expected, sizeof(expected));
}

static void read_comes_in_segments_and_bursts_with_status_at_the_end(void **state)
{
    struct fixture *f = *state;
    LOG_IN(f, "MaxRecvDataSegmentLength=512\0MaxBurstLength=1024\0");
    first_command(f);
    for (unsigned i = 0; i < 2048; i++)
        f->device.bytes[i] = (uint8_t)(i / 3);
    assert_int_equal(command(f, 0xc0, 8, 2048, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 4), NULL, 0), 0);
    assert_int_equal(next_pdu(f), -1);
    test_device_drain(&f->device);
    uint32_t stat_sn = f->connection.stat_sn;
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(next_pdu(f), ISCSI_DATA_IN);
        assert_int_equal(f->bhs[1], i == 3 ? 0x81 : i == 1 ? 0x80 : 0);
        assert_int_equal(get_be32(f->bhs + 36), i);
        assert_int_equal(get_be32(f->bhs + 40), i * 512);
        assert_memory_equal(f->data, f->device.bytes + i * 512, 512);
    }
    assert_int_equal(get_be32(f->bhs + 24), stat_sn);
    assert_int_equal(next_pdu(f), -1);
    assert_int_equal(f->connection.in_flight, 0);
}

static void write_uses_immediate_unsolicited_and_solicited_data(void **state)
{
    struct fixture *f = *state;
    uint8_t data[8192];
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i ^ i >> 8);
    LOG_IN(f, "InitialR2T=No\0FirstBurstLength=2048\0MaxBurstLength=4096\0MaxOutstandingR2T=2\0");
    first_command(f);
    assert_int_equal(command(f, 0x20, 9, 8192, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 16), data, 1024), 0);
    assert_int_equal(next_pdu(f), -1); /* unsolicited data is still to come */
    data_out(f, 0x00, 9, ISCSI_NO_TAG, 0, 1024, data + 1024, 512, 0);
    data_out(f, 0x80, 9, ISCSI_NO_TAG, 1, 1536, data + 1536, 512, 0);
    uint32_t tags[2];
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(next_pdu(f), ISCSI_R2T);
        assert_int_equal(get_be32(f->bhs + 36), i);
        assert_int_equal(get_be32(f->bhs + 40), 2048 + i * 4096);
        assert_int_equal(get_be32(f->bhs + 44), i ? 2048 : 4096);
        tags[i] = get_be32(f->bhs + 20);
    }
    data_out(f, 0x00, 9, tags[0], 0, 2048, data + 2048, 2048, 0);
    data_out(f, 0x80, 9, tags[0], 1, 4096, data + 4096, 2048, 0);
    assert_int_equal(f->device.count, 0);
    data_out(f, 0x80, 9, tags[1], 0, 6144, data + 6144, 2048, 0);
    test_device_drain(&f->device);
    assert_int_equal(next_pdu(f), ISCSI_RESPONSE);
    assert_int_equal(f->bhs[3], SCSI_GOOD);
    assert_memory_equal(f->device.bytes, data, sizeof(data));
}

static void digests_are_checked_and_sent(void **state)
{
    struct fixture *f = *state;
    uint8_t data[513];
    memset(data, 0x3e, sizeof(data));
    LOG_IN(f, "HeaderDigest=CRC32C\0DataDigest=CRC32C\0");
    f->digests = true;
    first_command(f); /* next_pdu() checks the digests of sense data, which needs padding */
    assert_int_equal(command(f, 0xa0, 8, 512, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), data, 512), 0);
    test_device_drain(&f->device);
    assert_int_equal(next_pdu(f), ISCSI_RESPONSE);
    assert_int_equal(command(f, 0xc0, 8, 512, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0), 0);
    test_device_drain(&f->device);
    assert_int_equal(next_pdu(f), ISCSI_DATA_IN);
    assert_memory_equal(f->data, data, 512);
    uint8_t wire[52] = {ISCSI_COMMAND, 0x80};
    assert_int_equal(iscsi_connection_input(&f->connection, wire, 52, 1), -EBADMSG);
}

static void residuals_say_over_and_under(void **state)
{
    struct fixture *f = *state;
    LOG_IN(f, "");
    first_command(f);
    assert_int_equal(command(f, 0xc0, 8, 10000, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0), 0);
    test_device_drain(&f->device);
    assert_int_equal(next_pdu(f), ISCSI_DATA_IN);
    assert_int_equal(f->bhs[1], 0x83);
    assert_int_equal(get_be32(f->bhs + 44), 10000 - 512);
    assert_int_equal(command(f, 0xc0, 9, 100, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0), 0);
    test_device_drain(&f->device);
    assert_int_equal(next_pdu(f), ISCSI_DATA_IN);
    assert_int_equal(f->data_bytes, 100);
    assert_int_equal(f->bhs[1], 0x85);
    assert_int_equal(get_be32(f->bhs + 44), 412);
}

static void command_outside_the_window_is_ignored(void **state)
{
    struct fixture *f = *state;
    LOG_IN(f, "");
    first_command(f);
    f->cmd_sn += 1000;
    assert_int_equal(command(f, 0x80, 8, 0, ready_cdb, NULL, 0), 0);
    assert_int_equal(next_pdu(f), -1);
    f->cmd_sn -= 1003;
    assert_int_equal(command(f, 0x80, 8, 0, ready_cdb, NULL, 0), 0);
    assert_int_equal(next_pdu(f), -1);
    f->cmd_sn += 1;
    assert_int_equal(command(f, 0x80, 8, 0, ready_cdb, NULL, 0), 0);
    assert_int_equal(next_pdu(f), ISCSI_RESPONSE);
    assert_int_equal(f->bhs[3], SCSI_GOOD);
    assert_int_equal(get_be32(f->bhs + 32) - get_be32(f->bhs + 28), ISCSI_WINDOW - 1);
}

static void window_closes_when_full_and_opens_again(void **state)
{
    struct fixture *f = *state;
    LOG_IN(f, "");
    first_command(f);
    for (unsigned i = 0; i < ISCSI_WINDOW + 5; i++) /* five more than allowed: ignored */
        assert_int_equal(command(f, 0xc0, 100 + i, 512, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0), 0);
    assert_int_equal(f->device.count, ISCSI_WINDOW);
    assert_int_equal(f->connection.in_flight, ISCSI_WINDOW);
    test_device_drain(&f->device);
    for (unsigned i = 0; i < ISCSI_WINDOW; i++)
        assert_int_equal(next_pdu(f), ISCSI_DATA_IN);
    assert_int_equal(next_pdu(f), -1);
    assert_int_equal(get_be32(f->bhs + 32) - get_be32(f->bhs + 28), ISCSI_WINDOW - 1);
}

static void abort_of_a_collecting_task_is_complete_at_once(void **state)
{
    struct fixture *f = *state;
    LOG_IN(f, "ImmediateData=No\0");
    first_command(f);
    assert_int_equal(command(f, 0xa0, 8, 512, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0), 0);
    assert_int_equal(next_pdu(f), ISCSI_R2T);
    uint32_t tag = get_be32(f->bhs + 20);
    uint8_t bhs[48] = {ISCSI_TASK_MANAGEMENT | 0x40, 0x80 | SCSI_ABORT_TASK};
    put_be32(bhs + 16, 50);
    put_be32(bhs + 20, 8);
    assert_int_equal(send_pdu(f, bhs, NULL, 0), 0);
    assert_int_equal(next_pdu(f), ISCSI_TASK_MANAGEMENT_RESPONSE);
    assert_int_equal(f->bhs[2], SCSI_FUNCTION_COMPLETE);
    uint8_t data[512] = {0};
    data_out(f, 0x80, 8, tag, 0, 0, data, 512, 0); /* was on its way: dropped */
    assert_int_equal(next_pdu(f), -1);
    assert_int_equal(f->device.count, 0);
    bhs[1] = 0x80 | SCSI_TASK_REASSIGN;
    assert_int_equal(send_pdu(f, bhs, NULL, 0), 0);
    assert_int_equal(next_pdu(f), ISCSI_TASK_MANAGEMENT_RESPONSE);
    assert_int_equal(f->bhs[2], 4);
}

static void same_initiator_port_takes_over_its_session(void **state)
{
    struct fixture *f = *state;
    struct fixture *g = calloc(1, sizeof(*g));
    LOG_IN(f, "");
    first_command(f);
    assert_int_equal(command(f, 0xc0, 8, 512, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0), 0);
    g->cmd_sn = 1;
    iscsi_connection_init(&g->connection, &f->environment, 0);
    g->connection.changed = changed;
    LOG_IN(g, "");
    assert_true(f->connection.failed);
    assert_int_equal(f->target.session_count, 1);
    test_device_drain(&f->device); /* the old session's read ends for nobody */
    iscsi_connection_done(&g->connection);
    free(g);
}

static void ping_is_echoed_and_silence_ends_the_connection(void **state)
{
    struct fixture *f = *state;
    LOG_IN(f, "");
    uint8_t bhs[48] = {ISCSI_NOP_OUT | 0x40, 0x80};
    put_be32(bhs + 16, 77);
    put_be32(bhs + 20, ISCSI_NO_TAG);
    assert_int_equal(send_pdu(f, bhs, "hello", 5), 0);
    assert_int_equal(next_pdu(f), ISCSI_NOP_IN);
    assert_int_equal(f->data_bytes, 5);
    assert_memory_equal(f->data, "hello", 5);
    assert_int_equal(iscsi_connection_tick(&f->connection, 4000), 0);
    assert_int_equal(next_pdu(f), -1);
    assert_int_equal(iscsi_connection_tick(&f->connection, 5002), 0);
    assert_int_equal(next_pdu(f), ISCSI_NOP_IN);
    assert_int_equal(get_be32(f->bhs + 16), ISCSI_NO_TAG);
    assert_int_equal(iscsi_connection_tick(&f->connection, 15002), -ETIMEDOUT);
}

static void half_a_login_times_out(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(iscsi_connection_tick(&f->connection, 9999), 0);
    assert_int_equal(iscsi_connection_tick(&f->connection, 10000), -ETIMEDOUT);
}

static void malformed_pdus_end_the_connection_only(void **state)
{
    struct fixture *f = *state;
    static const struct {
        uint8_t bhs[48];
        uint32_t bytes;
    } table[] = {
        {{ISCSI_COMMAND, 0x80}, 16},                                     /* data without the W flag */
        {{ISCSI_LOGIN | 0x40, 0x87}, 0},                                 /* in full feature phase */
        {{ISCSI_COMMAND, 0x20, [23] = 1}, 0},                            /* unsolicited data although InitialR2T */
        {{ISCSI_COMMAND, 0xa0, [22] = 2, [27] = 101, [32] = 0x2a, [40] = 1}, 1024}, /* more data than it offers */
    };
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        uint8_t bhs[48], data[1024] = {0};
        iscsi_connection_done(&f->connection);
        iscsi_connection_init(&f->connection, &f->environment, 0);
        f->cmd_sn = 100;
        LOG_IN(f, "");
        memcpy(bhs, table[i].bhs, 48);
        put_be32(bhs + 24, 100);
        if (send_pdu(f, bhs, data, table[i].bytes) != -EPROTO)
            fail_msg("row %u", i);
    }
    uint8_t huge[48] = {0x01, 0xa0, 0, 0, 0, 0xff, 0xff, 0xff};
    iscsi_connection_done(&f->connection);
    iscsi_connection_init(&f->connection, &f->environment, 0);
    assert_int_equal(iscsi_connection_input(&f->connection, huge, 48, 0), -EPROTO); /* before login */
}

static void unknown_pdu_is_rejected(void **state)
{
    struct fixture *f = *state;
    LOG_IN(f, "");
    uint8_t bhs[48] = {0x1c, 0x80, [16] = 9};
    assert_int_equal(send_pdu(f, bhs, NULL, 0), 0);
    assert_int_equal(next_pdu(f), ISCSI_REJECT);
    assert_int_equal(f->bhs[2], ISCSI_REJECT_NOT_SUPPORTED);
    assert_int_equal(f->data_bytes, 48);
    assert_memory_equal(f->data, bhs, 5);
}

static void command_without_memory_waits_or_is_told_so(void **state)
{
    struct fixture *f = *state;
    struct data_buffer *hoard[64];
    uint8_t data[512] = {0};
    unsigned count = 0;
    LOG_IN(f, "");
    first_command(f);
    while (count < 64 && (hoard[count] = target_buffer(&f->target, 1u << 20)))
        count++;
    assert_int_equal(command(f, 0xa0, 8, 512, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), data, 512), 0);
    assert_int_equal(next_pdu(f), ISCSI_RESPONSE);
    assert_int_equal(f->bhs[3], SCSI_TASK_SET_FULL);
    assert_int_equal(command(f, 0xc0, 9, 512, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0), 0);
    assert_int_equal(f->device.count, 0);
    while (count)
        data_pool_put(&f->target.pool, hoard[--count]);
    assert_int_equal(command(f, 0x80, 10, 0, ready_cdb, NULL, 0), 0); /* its end wakes the one that waits */
    assert_int_equal(next_pdu(f), ISCSI_RESPONSE);
    test_device_drain(&f->device);
    assert_int_equal(next_pdu(f), ISCSI_DATA_IN);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(login_negotiates_and_says_what_it_does_not_know),
        TEST(login_failures_have_their_status),
        TEST(security_stage_and_pieces_lead_to_full_feature),
        TEST(discovery_lists_every_portal),
        TEST(read_comes_in_segments_and_bursts_with_status_at_the_end),
        TEST(write_uses_immediate_unsolicited_and_solicited_data),
        TEST(digests_are_checked_and_sent),
        TEST(residuals_say_over_and_under),
        TEST(command_outside_the_window_is_ignored),
        TEST(window_closes_when_full_and_opens_again),
        TEST(abort_of_a_collecting_task_is_complete_at_once),
        TEST(same_initiator_port_takes_over_its_session),
        TEST(ping_is_echoed_and_silence_ends_the_connection),
        TEST(half_a_login_times_out),
        TEST(malformed_pdus_end_the_connection_only),
        TEST(unknown_pdu_is_rejected),
        TEST(command_without_memory_waits_or_is_told_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
