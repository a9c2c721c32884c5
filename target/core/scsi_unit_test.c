/* The device server on a device in memory: commands and their sense data, reservations, attentions, task management. */
#include "target/core/scsi_unit.h"
#include "target/core/target_forward.h"
#include "target/core/test_device.h"

#include "director/base/bytes.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct fixture {
    struct data_pool pool;
    struct scsi_shared shared;
    struct scsi_unit unit;
    struct test_device device;
    struct scsi_nexus *nexus[2];
};

struct run {
    struct scsi_task task; /* first */
    unsigned done;
};

static void run_done(struct scsi_task *task)
{
    container_of(task, struct run, task)->done++;
}

static const struct scsi_nexus_id ids[2] = {{.initiator = "iqn.a", .target = "iqn.t", .isid = {1}, .port = 1},
                                            {.initiator = "iqn.b", .target = "iqn.t", .isid = {2}, .port = 1}};

static int set_up_with(void **state, uint32_t capabilities)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct target_lu_identity identity = {.volume_id = 1,
                                          .uuid = {{0xab, 0xcd, 0xef}},
                                          .name = "vol",
                                          .size_bytes = TEST_DEVICE_BYTES,
                                          .block_bytes = 512,
                                          .thin = true};
    data_pool_init(&f->pool, 64u << 20);
    f->shared.pool = &f->pool;
    f->shared.nodeid = 1;
    test_device_init(&f->device, capabilities);
    scsi_unit_init(&f->unit, &f->shared, &identity);
    f->unit.device = &f->device.device;
    f->unit.owner = 1;
    f->unit.has_owner = true;
    for (unsigned i = 0; i < 2; i++)
        f->nexus[i] = scsi_unit_nexus(&f->unit, &ids[i], i + 1, false);
    *state = f;
    return 0;
}

static int set_up(void **state)
{
    return set_up_with(state, BLOCK_CAP_UNMAP | BLOCK_CAP_UNMAP_ZEROES | BLOCK_CAP_WRITE_ZEROES);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    scsi_unit_done(&f->unit);
    data_pool_done(&f->pool); /* asserts that every buffer came back */
    free(f);
    return 0;
}

/* Start a command; data is its data-out (or NULL), size what the initiator offers or expects. */
static void begin(struct fixture *f, struct run *run, unsigned nexus, const uint8_t *cdb, const void *data, uint32_t size)
{
    uint64_t bytes;
    memset(run, 0, sizeof(*run));
    memcpy(run->task.cdb, cdb, SCSI_CDB_BYTES);
    enum scsi_direction direction = scsi_cdb_data(cdb, 512, &bytes);
    if (direction != SCSI_DATA_NONE && bytes <= TARGET_TRANSFER_MAX_BYTES)
        run->task.buffer = data_pool_get(&f->pool, (uint32_t)bytes);
    run->task.expected_bytes = size;
    if (data && direction == SCSI_DATA_OUT && run->task.buffer) {
        run->task.data_out_bytes = (uint32_t)MIN(bytes, size);
        memcpy(run->task.buffer->data, data, run->task.data_out_bytes);
    }
    run->task.tag = (uint64_t)(uintptr_t)run;
    run->task.done = run_done;
    scsi_unit_execute(&f->unit, f->nexus[nexus], &run->task);
}

static void end(struct fixture *f, struct run *run)
{
    data_pool_put(&f->pool, run->task.buffer);
    run->task.buffer = NULL;
}

static uint32_t sense_of(const struct run *run)
{
    return run->task.sense_bytes ? SCSI_SENSE(run->task.sense[2] & 15, run->task.sense[12], run->task.sense[13]) : 0;
}

/* Run a command to its end; the buffer stays until end(). */
static void execute(struct fixture *f, struct run *run, unsigned nexus, const uint8_t *cdb, const void *data, uint32_t size)
{
    begin(f, run, nexus, cdb, data, size);
    test_device_drain(&f->device);
    assert_int_equal(run->done, 1);
}

static uint8_t status_of(struct fixture *f, unsigned nexus, const uint8_t *cdb, const void *data, uint32_t size)
{
    struct run run;
    execute(f, &run, nexus, cdb, data, size);
    end(f, &run);
    return run.task.status;
}

#define CDB(...) ((const uint8_t[SCSI_CDB_BYTES]){__VA_ARGS__})

static void commands_answer_with_the_right_sense(void **state)
{
    struct fixture *f = *state;
    static const uint8_t zeroes[4096];
    static const struct {
        uint8_t cdb[SCSI_CDB_BYTES];
        uint8_t status;
        uint32_t sense, size;
    } table[] = {
        {{0x00}, SCSI_GOOD, 0, 0},
        {{0xff}, SCSI_CHECK_CONDITION, SCSI_SENSE_INVALID_OPCODE, 0},
        {{0x00, 0, 0, 0, 0, 0x04}, SCSI_CHECK_CONDITION, SCSI_SENSE_INVALID_FIELD_IN_CDB, 0}, /* NACA */
        {{0x9e, 0x1f}, SCSI_CHECK_CONDITION, SCSI_SENSE_INVALID_FIELD_IN_CDB, 0},             /* service action */
        {{0x12, 0, 0x83, 0, 255}, SCSI_CHECK_CONDITION, SCSI_SENSE_INVALID_FIELD_IN_CDB, 255},
        {{0x12, 1, 0x77, 0, 255}, SCSI_CHECK_CONDITION, SCSI_SENSE_INVALID_FIELD_IN_CDB, 255},
        {{0x12, 1, 0x83, 0, 255}, SCSI_GOOD, 0, 255},
        {{0x28, 0, 0, 0, 0x07, 0xff, 0, 0, 1}, SCSI_GOOD, 0, 512},
        {{0x28, 0, 0, 0, 0x08, 0x00, 0, 0, 1}, SCSI_CHECK_CONDITION, SCSI_SENSE_LBA_OUT_OF_RANGE, 512},
        {{0x28, 0, 0, 0, 0x08, 0x00, 0, 0, 0}, SCSI_GOOD, 0, 0},
        {{0x28, 0, 0, 0, 0x08, 0x01, 0, 0, 0}, SCSI_CHECK_CONDITION, SCSI_SENSE_LBA_OUT_OF_RANGE, 0},
        {{0x28, 0x20, 0, 0, 0, 0, 0, 0, 1}, SCSI_CHECK_CONDITION, SCSI_SENSE_INVALID_FIELD_IN_CDB, 512}, /* RDPROTECT */
        {{0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1}, SCSI_CHECK_CONDITION,
         SCSI_SENSE_LBA_OUT_OF_RANGE, 512},
        {{0x2a, 0, 0, 0, 0, 0, 0, 0, 1}, SCSI_GOOD, 0, 512},
        {{0x2a, 0, 0, 0, 0, 0, 0, 0, 1}, SCSI_CHECK_CONDITION, SCSI_SENSE(5, 0x0e, 0x03), 100}, /* a broken block */
        {{0x2e, 0x04, 0, 0, 0, 0, 0, 0, 1}, SCSI_CHECK_CONDITION, SCSI_SENSE_INVALID_FIELD_IN_CDB, 512},
        {{0x2f, 0x02, 0, 0, 0, 0, 0, 0, 1}, SCSI_GOOD, 0, 512},
        {{0x42, 0, 0, 0, 0, 0, 0, 0, 4}, SCSI_CHECK_CONDITION, SCSI_SENSE_PARAMETER_LIST_LENGTH, 4},
        {{0x42, 1, 0, 0, 0, 0, 0, 0, 24}, SCSI_CHECK_CONDITION, SCSI_SENSE_INVALID_FIELD_IN_CDB, 24}, /* ANCHOR */
        {{0x42, 0, 0, 0, 0, 0, 0, 0, 24}, SCSI_GOOD, 0, 24},
        {{0x41, 0, 0, 0, 0, 0, 0, 0, 8}, SCSI_GOOD, 0, 512},
        {{0x41, 0, 0, 0, 0, 0, 0, 0, 8}, SCSI_CHECK_CONDITION, SCSI_SENSE(5, 0x0e, 0x03), 1024},
        {{0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, SCSI_GOOD, 0, 1024},
        {{0x1a, 0, 0xc8, 0, 255}, SCSI_CHECK_CONDITION, SCSI_SENSE_SAVING_NOT_SUPPORTED, 255},
        {{0x1a, 0, 0x05, 0, 255}, SCSI_CHECK_CONDITION, SCSI_SENSE_INVALID_FIELD_IN_CDB, 255},
        {{0x1a, 0, 0x3f, 0, 255}, SCSI_GOOD, 0, 255},
        {{0x15, 0x00, 0, 0, 24}, SCSI_CHECK_CONDITION, SCSI_SENSE_INVALID_FIELD_IN_CDB, 24}, /* PF */
        {{0x15, 0x10, 0, 0, 3}, SCSI_CHECK_CONDITION, SCSI_SENSE_PARAMETER_LIST_LENGTH, 3},
        {{0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0x08, 0, 0, 0, 0, 24}, SCSI_CHECK_CONDITION, SCSI_SENSE_LBA_OUT_OF_RANGE, 24},
        {{0x5f, 0, 0, 0, 0, 0, 0, 0, 23}, SCSI_CHECK_CONDITION, SCSI_SENSE_PARAMETER_LIST_LENGTH, 23},
        {{0x5e, 5, 0, 0, 0, 0, 0, 0, 24}, SCSI_CHECK_CONDITION, SCSI_SENSE_INVALID_FIELD_IN_CDB, 24},
        {{0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 255}, SCSI_GOOD, 0, 255},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        struct run run;
        execute(f, &run, 0, table[i].cdb, zeroes, table[i].size);
        end(f, &run);
        if (run.task.status != table[i].status || sense_of(&run) != table[i].sense)
            fail_msg("row %u: status %#x sense %#x", i, run.task.status, sense_of(&run));
    }
}

static void identity_is_made_of_the_uuid(void **state)
{
    struct fixture *f = *state;
    struct run run;
    execute(f, &run, 0, CDB(0x12, 1, 0x83, 0, 255), NULL, 255);
    const uint8_t *data = run.task.buffer->data;
    assert_int_equal(data[5], 0x03);
    assert_int_equal(data[8], 0x6b); /* NAA 6, then the uuid's bits */
    assert_int_equal(data[9], 0xcd);
    assert_int_equal(get_be16(data + 2) + 4u, run.task.data_in_bytes);
    end(f, &run);
    execute(f, &run, 0, CDB(0x12, 1, 0x80, 0, 255), NULL, 255);
    assert_memory_equal(run.task.buffer->data + 4, "abcdef00", 8);
    end(f, &run);
}

static void what_was_written_is_read(void **state)
{
    struct fixture *f = *state;
    static uint8_t data[131072];
    struct run run;
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 512);
    /* 256 blocks: more than the device takes at once */
    assert_int_equal(status_of(f, 0, CDB(0x2a, 0, 0, 0, 0, 3, 0, 1, 0), data, sizeof(data)), SCSI_GOOD);
    execute(f, &run, 0, CDB(0x28, 0, 0, 0, 0, 3, 0, 1, 0), NULL, sizeof(data));
    assert_int_equal(run.task.data_in_bytes, sizeof(data));
    assert_memory_equal(run.task.buffer->data, data, sizeof(data));
    end(f, &run);
    data[70000]++;
    execute(f, &run, 0, CDB(0x2f, 2, 0, 0, 0, 3, 0, 1, 0), data, sizeof(data));
    assert_int_equal(sense_of(&run), SCSI_SENSE_MISCOMPARE);
    assert_int_equal(get_be32(run.task.sense + 3), 70000);
    end(f, &run);
}

static void short_write_is_cut_to_whole_blocks(void **state)
{
    struct fixture *f = *state;
    uint8_t data[1024];
    struct run run;
    memset(data, 0x11, sizeof(data));
    execute(f, &run, 0, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 2), data, 512);
    assert_int_equal(run.task.status, SCSI_GOOD);
    assert_int_equal(run.task.transfer_bytes, 1024);
    assert_int_equal(f->device.bytes[511], 0x11);
    assert_int_equal(f->device.bytes[512], 0);
    end(f, &run);
}

static void compare_and_write_holds_overlapping_writes(void **state)
{
    struct fixture *f = *state;
    uint8_t swap[1024] = {0}, data[512];
    struct run first, second, other;
    memset(swap + 512, 0x22, 512);
    memset(data, 0x33, 512);
    begin(f, &first, 0, CDB(0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), swap, 1024);
    begin(f, &second, 1, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), data, 512);
    begin(f, &other, 1, CDB(0x2a, 0, 0, 0, 0, 9, 0, 0, 1), data, 512);
    assert_int_equal(f->device.count, 2); /* the compare's read and the write elsewhere */
    test_device_drain(&f->device);
    assert_int_equal(first.done + second.done + other.done, 3);
    assert_int_equal(first.task.status, SCSI_GOOD);
    assert_int_equal(f->device.bytes[0], 0x33); /* the write came after */
    end(f, &first);
    end(f, &second);
    end(f, &other);
    execute(f, &first, 0, CDB(0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), swap, 1024);
    assert_int_equal(sense_of(&first), SCSI_SENSE_MISCOMPARE);
    end(f, &first);
}

static void block_errors_become_sense(void **state)
{
    struct fixture *f = *state;
    static const struct {
        int status;
        uint32_t sense;
        bool stale;
    } table[] = {{-EIO, SCSI_SENSE_READ_ERROR, false},
                 {-EAGAIN, SCSI_SENSE_ALUA_TRANSITION, false},
                 {-ESTALE, SCSI_SENSE_COMMUNICATION_TIMEOUT, true},
                 {-ECANCELED, SCSI_SENSE_COMMUNICATION_TIMEOUT, true},
                 {-ENOSPC, SCSI_SENSE_SPACE_ALLOCATION_FAILED, false},
                 {-EPERM, SCSI_SENSE_INTERNAL_FAILURE, false}};
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        struct run run;
        f->device.status = table[i].status;
        execute(f, &run, 0, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 512);
        assert_int_equal(sense_of(&run), table[i].sense);
        assert_int_equal(run.task.stale, table[i].stale);
        end(f, &run);
    }
}

static void attention_is_reported_once_and_not_by_inquiry(void **state)
{
    struct fixture *f = *state;
    struct run run;
    scsi_unit_attention(&f->unit, SCSI_UA_LUN_RESET | SCSI_UA_CAPACITY_CHANGED, f->nexus[1]);
    assert_int_equal(status_of(f, 0, CDB(0x12, 0, 0, 0, 96), NULL, 96), SCSI_GOOD);
    execute(f, &run, 0, CDB(0x00), NULL, 0);
    assert_int_equal(sense_of(&run), SCSI_SENSE(6, 0x29, 0x03));
    execute(f, &run, 0, CDB(0x03, 0, 0, 0, 18), NULL, 18); /* REQUEST SENSE takes the next */
    assert_int_equal(run.task.buffer->data[12], 0x2a);
    assert_int_equal(run.task.buffer->data[13], 0x09);
    end(f, &run);
    assert_int_equal(status_of(f, 0, CDB(0x00), NULL, 0), SCSI_GOOD);
    assert_int_equal(status_of(f, 1, CDB(0x00), NULL, 0), SCSI_GOOD);
}

static uint8_t pr_out(struct fixture *f, unsigned nexus, uint8_t action, uint8_t type, uint64_t key, uint64_t service_key)
{
    uint8_t list[24] = {0};
    put_be64(list, key);
    put_be64(list + 8, service_key);
    return status_of(f, nexus, CDB(0x5f, action, type, 0, 0, 0, 0, 0, 24), list, 24);
}

/* WCE says so; FUA and verified writes go through the cache, SYNCHRONIZE CACHE empties it. */
static void a_write_cache_is_shown_and_respected(void **state)
{
    struct fixture *f = *state;
    uint8_t data[512] = {0};
    static const struct {
        uint8_t cdb[SCSI_CDB_BYTES];
        uint32_t cached, uncached;
    } writes[] = {{{0x2a, 0, 0, 0, 0, 0, 0, 0, 1}, 0, BLOCK_FUA},
                  {{0x2a, 0x08, 0, 0, 0, 0, 0, 0, 1}, BLOCK_FUA, BLOCK_FUA},
                  {{0x2e, 0, 0, 0, 0, 0, 0, 0, 1}, BLOCK_FUA, BLOCK_FUA},
                  {{0x0a, 0, 0, 0, 1}, 0, BLOCK_FUA}};
    for (unsigned cache = 0; cache < 2; cache++) {
        struct run run;
        if (cache)
            f->device.device.geometry.capabilities |= BLOCK_CAP_WRITE_CACHE;
        execute(f, &run, 0, CDB(0x1a, 0x08, 0x08, 0, 24), NULL, 24);
        assert_int_equal(run.task.buffer->data[4 + 2] & 0x04, cache ? 0x04 : 0);
        end(f, &run);
        for (unsigned i = 0; i < ARRAY_SIZE(writes); i++) {
            begin(f, &run, 0, writes[i].cdb, data, 512);
            assert_int_equal(f->device.count, 1);
            assert_int_equal(f->device.held[0]->flags & BLOCK_FUA, cache ? writes[i].cached : writes[i].uncached);
            test_device_drain(&f->device);
            assert_int_equal(run.task.status, SCSI_GOOD);
            end(f, &run);
        }
        begin(f, &run, 0, CDB(0x35), NULL, 0);
        assert_int_equal(f->device.held[0]->operation, BLOCK_FLUSH);
        test_device_drain(&f->device);
        end(f, &run);
    }
}

static void persistent_reservation_keeps_others_out(void **state)
{
    struct fixture *f = *state;
    static const uint8_t read[SCSI_CDB_BYTES] = {0x28, 0, 0, 0, 0, 0, 0, 0, 1}, write[SCSI_CDB_BYTES] = {0x2a, 0, 0, 0, 0, 0, 0, 0, 1};
    uint8_t data[512] = {0};
    assert_int_equal(pr_out(f, 0, 1, 1, 5, 0), SCSI_RESERVATION_CONFLICT); /* not registered */
    assert_int_equal(pr_out(f, 0, 0, 0, 0, 5), SCSI_GOOD);
    assert_int_equal(pr_out(f, 0, 1, 1, 5, 0), SCSI_GOOD);
    assert_int_equal(status_of(f, 1, read, NULL, 512), SCSI_GOOD);
    assert_int_equal(status_of(f, 1, write, data, 512), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(pr_out(f, 1, 6, 0, 0, 7), SCSI_GOOD);
    assert_int_equal(status_of(f, 1, write, data, 512), SCSI_RESERVATION_CONFLICT);
    /* preempt: the other takes it over; the first loses its registration and hears of it */
    assert_int_equal(pr_out(f, 1, 4, 3, 7, 5), SCSI_GOOD);
    assert_int_equal(status_of(f, 1, write, data, 512), SCSI_GOOD);
    struct run run;
    execute(f, &run, 0, read, NULL, 512);
    assert_int_equal(sense_of(&run), SCSI_SENSE(6, 0x2a, 0x05));
    end(f, &run);
    assert_int_equal(status_of(f, 0, read, NULL, 512), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(f->unit.reservations.generation, 3);
}

static void reservations_survive_their_bytes(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[512], again[512];
    struct scsi_reservations copy = {0};
    assert_int_equal(pr_out(f, 0, 0, 0, 0, 5), SCSI_GOOD);
    assert_int_equal(pr_out(f, 1, 0, 0, 0, 6), SCSI_GOOD);
    assert_int_equal(pr_out(f, 1, 1, 5, 6, 0), SCSI_GOOD);
    int size = scsi_reservations_encode(&f->unit.reservations, bytes, sizeof(bytes));
    assert_true(size > 0);
    assert_int_equal(scsi_reservations_encode(&f->unit.reservations, again, (uint32_t)size - 1), -ENOSPC);
    assert_int_equal(scsi_reservations_decode(&copy, bytes, (uint32_t)size), 0);
    assert_int_equal(copy.holder, 1);
    assert_int_equal(scsi_reservations_encode(&copy, again, sizeof(again)), size);
    assert_memory_equal(bytes, again, (size_t)size);
    for (int cut = 0; cut < size; cut++)
        assert_int_equal(scsi_reservations_decode(&copy, bytes, (uint32_t)cut), -EPROTO);
    bytes[10] = 9; /* a holder that is none of them */
    assert_int_equal(scsi_reservations_decode(&copy, bytes, (uint32_t)size), -EPROTO);
    assert_int_equal(copy.count, 2);
    scsi_reservations_done(&copy);
}

static void reserve_ends_with_its_nexus(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(status_of(f, 0, CDB(0x16), NULL, 0), SCSI_GOOD);
    assert_int_equal(status_of(f, 1, CDB(0x00), NULL, 0), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(status_of(f, 1, CDB(0x17), NULL, 0), SCSI_GOOD); /* another's release has no effect */
    assert_int_equal(status_of(f, 1, CDB(0x16), NULL, 0), SCSI_RESERVATION_CONFLICT);
    scsi_unit_nexus_loss(&f->unit, 1);
    assert_int_equal(status_of(f, 1, CDB(0x16), NULL, 0), SCSI_GOOD);
}

struct managed {
    struct scsi_management management;
    unsigned done;
};

static void managed_done(struct scsi_management *management)
{
    container_of(management, struct managed, management)->done++;
}

static void abort_is_answered_after_the_medium_is_left(void **state)
{
    struct fixture *f = *state;
    uint8_t data[512] = {1};
    struct run run;
    struct managed managed = {.management = {.function = SCSI_ABORT_TASK, .done = managed_done}};
    begin(f, &run, 0, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), data, 512);
    managed.management.tag = run.task.tag;
    scsi_unit_manage(&f->unit, f->nexus[0], &managed.management);
    assert_int_equal(managed.done + run.done, 0); /* U4 */
    test_device_drain(&f->device);
    assert_int_equal(managed.done, 1);
    assert_int_equal(run.done, 1);
    assert_true(run.task.aborted);
    assert_int_equal(managed.management.response, SCSI_FUNCTION_COMPLETE);
    end(f, &run);
    managed.done = 0;
    scsi_unit_manage(&f->unit, f->nexus[0], &managed.management);
    assert_int_equal(managed.done, 1);
    assert_int_equal(managed.management.response, SCSI_FUNCTION_NO_TASK);
}

static void reset_ends_all_tasks_and_tells_everybody(void **state)
{
    struct fixture *f = *state;
    uint8_t swap[1024] = {0};
    struct run own, other, waiting;
    struct managed managed = {.management = {.function = SCSI_LUN_RESET, .done = managed_done}};
    begin(f, &own, 0, CDB(0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), swap, 1024);
    begin(f, &other, 1, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 512);
    begin(f, &waiting, 1, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), swap, 512); /* behind the compare and write */
    scsi_unit_manage(&f->unit, f->nexus[0], &managed.management);
    test_device_drain(&f->device);
    assert_int_equal(managed.done, 1);
    assert_true(own.task.aborted);
    assert_int_equal(other.task.status, SCSI_TASK_ABORTED); /* TAS */
    assert_int_equal(waiting.task.status, SCSI_TASK_ABORTED);
    assert_int_equal(f->unit.atomics, 0);
    end(f, &own);
    end(f, &other);
    end(f, &waiting);
    for (unsigned i = 0; i < 2; i++) {
        execute(f, &own, i, CDB(0x00), NULL, 0);
        assert_int_equal(sense_of(&own), SCSI_SENSE(6, 0x29, 0x03));
    }
}

static void nothing_continues_on_a_device_of_the_past(void **state)
{
    struct fixture *f = *state;
    static uint8_t data[131072];
    struct test_device *next = malloc(sizeof(*next));
    struct run run;
    test_device_init(next, 0);
    begin(f, &run, 0, CDB(0x2a, 0, 0, 0, 0, 0, 0, 1, 0), data, sizeof(data)); /* two requests */
    f->unit.device = &next->device;
    test_device_drain(&f->device);
    assert_int_equal(run.done, 1);
    assert_true(run.task.stale);
    assert_int_equal(sense_of(&run), SCSI_SENSE_COMMUNICATION_TIMEOUT);
    assert_int_equal(next->count, 0);
    end(f, &run);
    free(next);
}

static void frames_survive_their_bytes(void **state)
{
    (void)state;
    struct forward_request request = {.nexus = ids[1], .flags = 1, .cdb = {0x2a, 1}, .tag = 99, .expected_bytes = 5, .data_bytes = 3};
    struct forward_request decoded;
    uint8_t bytes[FORWARD_REQUEST_MAX_BYTES + 3];
    uint32_t head = forward_request_encode(&request, bytes);
    memcpy(bytes + head, "abc", 3);
    assert_int_equal(forward_request_decode(bytes, head + 3, &decoded), 0);
    assert_true(scsi_nexus_id_equal(&decoded.nexus, &ids[1]));
    assert_true(decoded.tag == 99);
    assert_memory_equal(decoded.data, "abc", 3);
    for (uint32_t cut = 0; cut < head + 3; cut++)
        assert_int_equal(forward_request_decode(bytes, cut, &decoded), -EPROTO);
    struct forward_reply reply = {.outcome = FORWARD_DONE, .status = 2, .sense_bytes = 4, .sense = bytes, .transfer_bytes = 7, .data_bytes = 2};
    struct forward_reply back;
    uint8_t answer[FORWARD_REPLY_MAX_BYTES + 2];
    head = forward_reply_encode(&reply, answer);
    assert_int_equal(forward_reply_decode(answer, head + 2, &back), 0);
    assert_int_equal(back.status, 2);
    assert_int_equal(back.transfer_bytes, 7);
    for (uint32_t cut = 0; cut < head + 2; cut++)
        assert_int_equal(forward_reply_decode(answer, cut, &back), -EPROTO);
    answer[1] = 9;
    assert_int_equal(forward_reply_decode(answer, head + 2, &back), -EPROTO);
}

static void pool_does_not_allocate_after_warm_up(void **state)
{
    struct fixture *f = *state;
    static const uint8_t read[SCSI_CDB_BYTES] = {0x28, 0, 0, 0, 0, 0, 0, 0, 8};
    assert_int_equal(status_of(f, 0, read, NULL, 4096), SCSI_GOOD);
    uint64_t before = f->pool.allocations;
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(status_of(f, 0, read, NULL, 4096), SCSI_GOOD);
    assert_true(f->pool.allocations == before);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(commands_answer_with_the_right_sense),
        TEST(identity_is_made_of_the_uuid),
        TEST(what_was_written_is_read),
        TEST(short_write_is_cut_to_whole_blocks),
        TEST(compare_and_write_holds_overlapping_writes),
        TEST(block_errors_become_sense),
        TEST(attention_is_reported_once_and_not_by_inquiry),
        TEST(a_write_cache_is_shown_and_respected),
        TEST(persistent_reservation_keeps_others_out),
        TEST(reservations_survive_their_bytes),
        TEST(reserve_ends_with_its_nexus),
        TEST(abort_is_answered_after_the_medium_is_left),
        TEST(reset_ends_all_tasks_and_tells_everybody),
        TEST(nothing_continues_on_a_device_of_the_past),
        TEST(frames_survive_their_bytes),
        TEST(pool_does_not_allocate_after_warm_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
