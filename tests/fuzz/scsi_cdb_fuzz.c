/* Commands one after another: one byte session (bit 0) and way of the device (bit 1: leave it busy), 16 bytes CDB, two bytes
 * length of what the initiator offers, then that much data-out. */
#include "tests/fuzz/target_fixture.h"

#define TASKS 64

struct fuzz_task {
    struct target_task task; /* first */
    bool busy;
};

static struct fuzz_target fuzz;
static struct fuzz_task tasks[TASKS];
static struct target_session sessions[2];

static void done(struct target_task *target_task)
{
    struct fuzz_task *task = container_of(target_task, struct fuzz_task, task);
    const struct scsi_task *scsi = &target_task->scsi;
    ASSERT(task->busy);
    ASSERT(scsi->sense_bytes <= SCSI_SENSE_MAX_BYTES);
    ASSERT(scsi->data_in_bytes == 0 || scsi->data_in_bytes <= scsi->buffer->capacity_bytes);
    data_pool_put(&fuzz.target.pool, scsi->buffer);
    task->busy = false;
}

static void nothing(struct target_session *session)
{
    (void)session;
}

static void submit(struct fuzz_task *task, struct target_session *session, const uint8_t *cdb, const uint8_t *data,
                   uint32_t offered)
{
    struct scsi_task *scsi = &task->task.scsi;
    uint64_t bytes;
    memset(task, 0, sizeof(*task));
    memcpy(scsi->cdb, cdb, SCSI_CDB_BYTES);
    task->task.session = session;
    task->task.done = done;
    task->busy = true;
    enum scsi_direction direction = target_command_data(session, 0, cdb, &bytes);
    if (direction != SCSI_DATA_NONE && bytes <= TARGET_TRANSFER_MAX_BYTES) {
        scsi->buffer = target_buffer(&fuzz.target, (uint32_t)bytes);
        if (!scsi->buffer)
            abort();
    }
    scsi->expected_bytes = offered;
    if (direction == SCSI_DATA_OUT && scsi->buffer) {
        scsi->data_out_bytes = (uint32_t)MIN(bytes, offered);
        memcpy(scsi->buffer->data, data, scsi->data_out_bytes);
    }
    target_submit(&fuzz.target, &task->task);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned next = 0;
    if (size > 65536)
        return 0;
    fuzz_target_open(&fuzz);
    for (unsigned i = 0; i < 2; i++) {
        memset(&sessions[i], 0, sizeof(sessions[i]));
        sessions[i].iqn = target_find_iqn(&fuzz.target, FUZZ_IQN);
        sessions[i].nexus.initiator[0] = (char)('a' + i);
        sessions[i].drop = nothing;
        target_session_begin(&fuzz.target, &sessions[i]);
        memset(sessions[i].announced, 0xff, sizeof(sessions[i].announced)); /* no power-on attention in the way */
    }
    while (size >= 19) {
        uint32_t offered = MIN(get_be16(data + 17), (uint32_t)(size - 19));
        submit(&tasks[next], &sessions[data[0] & 1], data + 1, data + 19, offered);
        if (!(data[0] & 2) || ++next == 12)
            test_device_drain(&fuzz.device);
        if (!fuzz.device.count)
            next = 0;
        data += 19 + offered;
        size -= 19 + offered;
    }
    test_device_drain(&fuzz.device);
    for (unsigned i = 0; i < 2; i++)
        target_session_end(&fuzz.target, &sessions[i]);
    for (unsigned i = 0; i < TASKS; i++)
        ASSERT(!tasks[i].busy);
    fuzz_target_close(&fuzz);
    return 0;
}
