/* Commands that touch the medium. Each is a chain of block requests: a handler checks and submits the first, the
 * completion calls task->step, which submits the next or ends the task.
 *
 * Happy path: handler -> submit() -> block_done() -> step -> ... -> scsi_task_good().
 * Failure: a block error ends the task by fail(); an abort ends it at the next completion (U4); another owner meanwhile
 * (unit->device changed) ends it as stale before its next request, so that nothing continues on a device of the past. */
#include "target/core/scsi_unit.h"

#include "director/base/bytes.h"
#include <errno.h>

static uint32_t block_bytes(const struct scsi_task *task)
{
    return task->unit->identity.block_bytes;
}

static void fail(struct scsi_task *task, int status)
{
    bool reading = task->block.operation == BLOCK_READ;
    switch (status) {
    case -ESTALE:
    case -ECANCELED: /* the owner changed; whether this happened is not known: the initiator repeats it */
        task->stale = true;
        scsi_task_sense(task, SCSI_SENSE_COMMUNICATION_TIMEOUT);
        return;
    case -EAGAIN: /* suspended beyond the deadline */
        scsi_task_sense(task, SCSI_SENSE_ALUA_TRANSITION);
        return;
    case -ENOSPC: /* SBC-3 §4.7.3.6 */
        scsi_task_sense(task, SCSI_SENSE_SPACE_ALLOCATION_FAILED);
        return;
    case -EROFS:
        scsi_task_sense(task, SCSI_SENSE_WRITE_PROTECTED);
        return;
    case -EIO:
    case -EBADMSG: /* bad checksums at every replica */
        scsi_task_sense_information(task, reading ? SCSI_SENSE_READ_ERROR : SCSI_SENSE_WRITE_ERROR,
                                    task->block.offset_bytes / block_bytes(task));
        return;
    default:
        scsi_task_sense(task, SCSI_SENSE_INTERNAL_FAILURE);
        return;
    }
}

static void block_done(struct block_request *request)
{
    struct scsi_task *task = container_of(request, struct scsi_task, block);
    task->submitted = false;
    if (task->marked_aborted)
        scsi_task_good(task); /* the status is not used */
    else if (request->status < 0 && request->status != -EILSEQ)
        fail(task, request->status);
    else
        task->step(task);
}

/* Submit a request of length bytes; data is its memory (NULL for requests without). */
static void submit(struct scsi_task *task, enum block_operation operation, uint64_t offset, uint64_t length, void *data,
                   uint32_t flags, void (*step)(struct scsi_task *))
{
    if (task->device != task->unit->device) {
        fail(task, -ESTALE);
        return;
    }
    task->iov[0] = (struct iovec){data, data ? length : 0};
    task->block.operation = operation;
    task->block.flags = flags;
    task->block.offset_bytes = offset;
    task->block.length_bytes = length;
    task->block.iov = data ? task->iov : NULL;
    task->block.iov_count = data ? 1 : 0;
    task->block.done = block_done;
    task->block.status = 0;
    task->step = step;
    int status = block_request_check(task->device, &task->block);
    if (status < 0) { /* the device shrank or turned read-only under a configured identity */
        fail(task, status);
        return;
    }
    task->submitted = true;
    block_device_submit(task->device, &task->block);
}

static bool get_scratch(struct scsi_task *task, uint32_t size)
{
    if (!task->scratch)
        task->scratch = data_pool_get(task->unit->shared->pool, size);
    if (!task->scratch)
        scsi_task_status(task, SCSI_TASK_SET_FULL); /* memory is used up: the initiator comes again */
    return task->scratch != NULL;
}

void scsi_task_confirm(struct scsi_task *task, void (*step)(struct scsi_task *task))
{
    uint32_t size = block_bytes(task);
    if (get_scratch(task, size))
        submit(task, BLOCK_READ, 0, size, task->scratch->data, 0, step);
}

/* PROTECT field: no protection information here (SBC-3 §4.22, INQUIRY PROTECT 0). */
static bool protect_is_zero(struct scsi_task *task)
{
    if (task->cdb[0] < 0x20 || !(task->cdb[1] & 0xe0))
        return true;
    scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 1, 7);
    return false;
}

static bool fits(struct scsi_task *task, uint64_t bytes, uint64_t max, uint16_t field)
{
    if (bytes <= max)
        return true;
    scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, field, 0xff); /* SBC-3 §6.6.4 */
    return false;
}

static uint16_t length_field(const struct scsi_task *task)
{
    switch (task->cdb[0] >> 5) {
    case 0:
        return 4;
    case 1:
    case 2:
        return 7;
    case 5:
        return 6;
    default:
        return task->cdb[0] == SCSI_COMPARE_AND_WRITE ? 13 : 10;
    }
}

/* Enough data-out came? If the initiator offered less than the CDB asks for, nothing is written (SPC-4 table 56: 0E/03). */
static bool has_data(struct scsi_task *task, uint64_t needed)
{
    task->transfer_bytes = (uint32_t)needed;
    if (task->data_out_bytes >= needed)
        return true;
    scsi_task_sense(task, SCSI_SENSE(5, 0x0e, 0x03));
    return false;
}

/* The commands whose data length is fixed by the CDB and that change the medium by it want exactly that. */
static bool has_exact_data(struct scsi_task *task, uint64_t needed)
{
    if (!has_data(task, needed))
        return false;
    if (task->expected_bytes == needed)
        return true;
    scsi_task_sense(task, SCSI_SENSE(5, 0x0e, 0x03));
    return false;
}

static uint32_t next_chunk(const struct scsi_task *task, uint64_t total, uint32_t most)
{
    uint32_t device_max = task->device->geometry.max_transfer_bytes;
    uint64_t chunk = total - task->position_bytes;
    chunk = MIN(chunk, most);
    if (device_max)
        chunk = MIN(chunk, device_max);
    return (uint32_t)chunk;
}

/* ---- READ ---- */

static void read_step(struct scsi_task *task)
{
    if (task->index++) /* not the first time: a chunk is done */
        task->position_bytes += task->chunk_bytes;
    if (task->position_bytes == task->length_bytes) {
        task->transfer_bytes = task->data_in_bytes = (uint32_t)task->length_bytes;
        task->unit->stats.reads++;
        task->unit->stats.read_bytes += task->length_bytes;
        scsi_task_good(task);
        return;
    }
    task->chunk_bytes = next_chunk(task, task->length_bytes, UINT32_MAX);
    submit(task, BLOCK_READ, task->offset_bytes + task->position_bytes, task->chunk_bytes,
           task->buffer->data + task->position_bytes, 0, read_step);
}

void scsi_block_read(struct scsi_task *task)
{
    if (!protect_is_zero(task) || !fits(task, task->length_bytes, TARGET_TRANSFER_MAX_BYTES, length_field(task)))
        return;
    ASSERT(task->length_bytes == 0 || (task->buffer && task->buffer->capacity_bytes >= task->length_bytes));
    task->index = 0;
    read_step(task);
}

/* ---- WRITE ---- */

static void verify_begin(struct scsi_task *task);

/* SBC-3 §6.5.6, §4.15: without a write cache (WCE 0) each write is durable before it is answered. With one, those that ask for
 * it by FUA are, and those that are verified; the others when SYNCHRONIZE CACHE is answered. */
static uint32_t write_flags(const struct scsi_task *task)
{
    if (!(task->device->geometry.capabilities & BLOCK_CAP_WRITE_CACHE))
        return BLOCK_FUA;
    switch (task->cdb[0]) {
    case SCSI_WRITE_6:
    case SCSI_UNMAP:
    case SCSI_WRITE_SAME_10:
    case SCSI_WRITE_SAME_16:
        return 0;
    case SCSI_WRITE_VERIFY_10:
    case SCSI_WRITE_VERIFY_12:
    case SCSI_WRITE_VERIFY_16:
        return BLOCK_FUA;
    default:
        return task->cdb[1] & 0x08 ? BLOCK_FUA : 0;
    }
}

static void write_step(struct scsi_task *task)
{
    if (task->index++)
        task->position_bytes += task->chunk_bytes;
    if (task->position_bytes == task->length_bytes) {
        task->unit->stats.writes++;
        task->unit->stats.written_bytes += task->length_bytes;
        if (task->phase) /* WRITE AND VERIFY */
            verify_begin(task);
        else
            scsi_task_good(task);
        return;
    }
    task->chunk_bytes = next_chunk(task, task->length_bytes, UINT32_MAX);
    submit(task, BLOCK_WRITE, task->offset_bytes + task->position_bytes, task->chunk_bytes,
           task->buffer->data + task->position_bytes, write_flags(task), write_step);
}

/* An initiator that offers fewer bytes than the CDB asks for: whole blocks are written and the residual says the rest; a
 * broken block is refused and nothing is written (both as FCP-4 §9.4.2.2 a) and b), which iSCSI leaves open). */
static bool write_checks(struct scsi_task *task)
{
    if (!protect_is_zero(task) || !fits(task, task->length_bytes, TARGET_TRANSFER_MAX_BYTES, length_field(task)))
        return false;
    if (task->data_out_bytes % block_bytes(task) && !has_data(task, task->length_bytes))
        return false;
    task->transfer_bytes = (uint32_t)task->length_bytes;
    task->length_bytes = MIN(task->length_bytes, task->data_out_bytes);
    return true;
}

void scsi_block_write(struct scsi_task *task)
{
    if (!write_checks(task))
        return;
    task->index = 0;
    write_step(task);
}

void scsi_block_write_verify(struct scsi_task *task)
{
    if (!write_checks(task))
        return;
    if (task->cdb[1] >> 1 & 2) { /* BYTCHK 10b, 11b: SBC-3 §5.48 */
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 1, 2);
        return;
    }
    task->index = 0;
    task->phase = 1;
    write_step(task);
}

/* ---- VERIFY ---- */

/* Offset of the first difference of two pieces, or their length. */
static uint32_t first_difference(const uint8_t *a, const uint8_t *b, uint32_t size)
{
    if (memcmp(a, b, size) == 0)
        return size;
    uint32_t i = 0;
    while (a[i] == b[i])
        i++;
    return i;
}

static bool chunk_matches(struct scsi_task *task)
{
    const uint8_t *expected = task->buffer ? task->buffer->data : NULL;
    uint32_t unit = block_bytes(task), bytchk = task->cdb[1] >> 1 & 3;
    if (bytchk == 0)
        return true;
    for (uint32_t at = 0; at < task->chunk_bytes; at += unit) {
        const uint8_t *with = bytchk == 3 ? expected : expected + task->position_bytes + at;
        uint32_t same = first_difference(task->scratch->data + at, with, unit);
        if (same == unit)
            continue;
        /* SBC-3 §4.16.3: INFORMATION is the offset of the first byte that differs */
        scsi_task_sense_information(task, SCSI_SENSE_MISCOMPARE, task->position_bytes + at + same);
        return false;
    }
    return true;
}

static void verify_step(struct scsi_task *task)
{
    if (task->index++) {
        if (!chunk_matches(task))
            return;
        task->position_bytes += task->chunk_bytes;
    }
    if (task->position_bytes == task->length_bytes) {
        scsi_task_good(task);
        return;
    }
    task->chunk_bytes = next_chunk(task, task->length_bytes, SCSI_VERIFY_CHUNK);
    submit(task, BLOCK_READ, task->offset_bytes + task->position_bytes, task->chunk_bytes, task->scratch->data, 0,
           verify_step);
}

static void verify_begin(struct scsi_task *task)
{
    if (!get_scratch(task, SCSI_VERIFY_CHUNK))
        return;
    task->index = 0;
    task->position_bytes = 0;
    verify_step(task);
}

void scsi_block_verify(struct scsi_task *task)
{
    uint32_t bytchk = task->cdb[1] >> 1 & 3;
    uint64_t needed;
    if (!protect_is_zero(task))
        return;
    if (bytchk == 2) { /* SBC-3 §5.32, table 109: reserved */
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 1, 2);
        return;
    }
    (void)scsi_cdb_data(task->cdb, block_bytes(task), &needed);
    if (!fits(task, needed, TARGET_TRANSFER_MAX_BYTES, length_field(task)) || !has_data(task, needed))
        return;
    verify_begin(task);
}

/* ---- SYNCHRONIZE CACHE, PRE-FETCH ---- */

void scsi_block_synchronize_cache(struct scsi_task *task)
{
    submit(task, BLOCK_FLUSH, 0, 0, NULL, 0, scsi_task_good); /* IMMED: done is done, only later */
}

/* SBC-3 §5.11: a hint. GOOD, not CONDITION MET: nothing is promised to be cached. */
void scsi_block_pre_fetch(struct scsi_task *task)
{
    scsi_task_good(task);
}

/* ---- UNMAP, WRITE SAME ---- */

/* How this device makes zeroes of a range, and at most how many bytes at once. */
static enum block_operation zero_operation(const struct scsi_task *task, bool unmap, uint64_t *ret_most)
{
    const struct block_geometry *geometry = &task->device->geometry;
    *ret_most = geometry->max_unmap_bytes ? geometry->max_unmap_bytes : UINT64_MAX;
    if (unmap && (geometry->capabilities & BLOCK_CAP_UNMAP) && (geometry->capabilities & BLOCK_CAP_UNMAP_ZEROES))
        return BLOCK_UNMAP;
    if (geometry->capabilities & BLOCK_CAP_WRITE_ZEROES)
        return BLOCK_WRITE_ZEROES;
    *ret_most = task->scratch->capacity_bytes; /* write them */
    if (geometry->max_transfer_bytes)
        *ret_most = MIN(*ret_most, geometry->max_transfer_bytes);
    return BLOCK_WRITE;
}

/* Make zeroes of the next piece of [offset, offset + length); scratch holds zeroes. */
static void submit_zeroes(struct scsi_task *task, uint64_t offset, uint64_t length, bool unmap,
                          void (*step)(struct scsi_task *))
{
    uint64_t most;
    enum block_operation operation = zero_operation(task, unmap, &most);
    uint32_t flags = write_flags(task) | (operation == BLOCK_WRITE_ZEROES && unmap ? BLOCK_MAY_UNMAP : 0);
    uint64_t chunk = MIN(length, MIN(most, 1u << 30));
    task->chunk_bytes = (uint32_t)chunk;
    submit(task, operation, offset, chunk, operation == BLOCK_WRITE ? task->scratch->data : NULL, flags, step);
}

static void unmap_step(struct scsi_task *task)
{
    const uint8_t *list = task->buffer->data;
    unsigned count = (get_be16(list + 2)) / 16;
    uint64_t block = block_bytes(task);

    if (task->phase)
        task->position_bytes += task->chunk_bytes;
    task->phase = 1;
    for (; task->index < count; task->index++) {
        const uint8_t *descriptor = list + 8 + 16 * task->index;
        uint64_t offset = get_be64(descriptor) * block, length = get_be32(descriptor + 8) * block;
        if (task->position_bytes < length) {
            submit_zeroes(task, offset + task->position_bytes, length - task->position_bytes, true, unmap_step);
            return;
        }
        task->position_bytes = 0;
    }
    scsi_task_good(task);
}

/* SBC-3 §5.28.2: check the whole list before anything is unmapped. */
static bool unmap_check(struct scsi_task *task, const uint8_t *list, uint32_t length)
{
    const struct target_lu_identity *identity = &task->unit->identity;
    uint32_t descriptors = get_be16(list + 2);
    uint64_t blocks = identity->size_bytes / identity->block_bytes, total = 0;

    if (descriptors % 16 || descriptors > length - 8) {
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_PARAMETER, 2, 0xff);
        return false;
    }
    if (descriptors / 16 > SCSI_UNMAP_DESCRIPTORS) {
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_PARAMETER, 2, 0xff);
        return false;
    }
    for (unsigned i = 0; i < descriptors / 16; i++) {
        uint64_t lba = get_be64(list + 8 + 16 * i), count = get_be32(list + 16 + 16 * i);
        if (lba > blocks || count > blocks - lba) {
            scsi_task_sense_information(task, SCSI_SENSE_LBA_OUT_OF_RANGE, lba);
            return false;
        }
        total += count;
    }
    if (total * identity->block_bytes > SCSI_UNMAP_MAX) {
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_PARAMETER, 8, 0xff);
        return false;
    }
    return true;
}

void scsi_block_unmap(struct scsi_task *task)
{
    uint32_t length = get_be16(task->cdb + 7);
    if (!task->unit->identity.thin) {
        scsi_task_sense(task, SCSI_SENSE_INVALID_OPCODE);
        return;
    }
    if (task->cdb[1] & 1) { /* ANCHOR: ANC_SUP is 0 */
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 1, 0);
        return;
    }
    if (length == 0) { /* §5.28.1: not an error */
        scsi_task_good(task);
        return;
    }
    if (length < 8) {
        scsi_task_sense(task, SCSI_SENSE_PARAMETER_LIST_LENGTH);
        return;
    }
    if (!has_data(task, length) || !unmap_check(task, task->buffer->data, length) ||
        !get_scratch(task, SCSI_VERIFY_CHUNK))
        return;
    memset(task->scratch->data, 0, task->scratch->capacity_bytes);
    task->index = 0;
    unmap_step(task);
}

static bool is_zero(const uint8_t *bytes, uint32_t size)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

/* phase 1: zeroes, by the device's own way; phase 2: zeroes by unmapping; phase 3: the pattern in scratch */
static void write_same_step(struct scsi_task *task)
{
    if (task->index++)
        task->position_bytes += task->chunk_bytes;
    uint64_t left = task->length_bytes - task->position_bytes;
    uint64_t offset = task->offset_bytes + task->position_bytes;
    if (left == 0) {
        scsi_task_good(task);
        return;
    }
    if (task->phase != 3) {
        submit_zeroes(task, offset, left, task->phase == 2, write_same_step);
        return;
    }
    task->chunk_bytes = next_chunk(task, task->length_bytes, task->scratch->capacity_bytes);
    submit(task, BLOCK_WRITE, offset, task->chunk_bytes, task->scratch->data, write_flags(task), write_same_step);
}

void scsi_block_write_same(struct scsi_task *task)
{
    bool sixteen = task->cdb[0] == SCSI_WRITE_SAME_16;
    bool no_data = sixteen && task->cdb[1] & 0x01, unmap = task->cdb[1] & 0x08;
    uint32_t block = block_bytes(task);

    if (!protect_is_zero(task))
        return;
    if (task->cdb[1] & 0x10 || (unmap && !task->unit->identity.thin)) { /* ANCHOR; UNMAP without provisioning */
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 1, unmap ? 3 : 4);
        return;
    }
    if (!fits(task, task->length_bytes, SCSI_WRITE_SAME_MAX, length_field(task)) ||
        !has_exact_data(task, no_data ? 0 : block) || !get_scratch(task, SCSI_VERIFY_CHUNK))
        return;
    task->index = 0;
    if (no_data || is_zero(task->buffer->data, block)) {
        memset(task->scratch->data, 0, task->scratch->capacity_bytes);
        task->phase = unmap ? 2 : 1;
    } else {
        for (uint32_t at = 0; at < task->scratch->capacity_bytes; at += block)
            memcpy(task->scratch->data + at, task->buffer->data, block);
        task->phase = 3;
    }
    write_same_step(task);
}

/* ---- COMPARE AND WRITE, ORWRITE: alone on their blocks (U3) ---- */

static void compare_and_write_end(struct scsi_task *task)
{
    if (task->block.status == -EILSEQ)
        scsi_task_sense_information(task, SCSI_SENSE_MISCOMPARE, task->block.ret_miscompare);
    else
        scsi_task_good(task);
}

static void compare_step(struct scsi_task *task)
{
    uint32_t size = (uint32_t)task->length_bytes;
    uint32_t same = first_difference(task->scratch->data, task->buffer->data, size);
    if (same < size) {
        scsi_task_sense_information(task, SCSI_SENSE_MISCOMPARE, same);
        return;
    }
    submit(task, BLOCK_WRITE, task->offset_bytes, size, task->buffer->data + size, write_flags(task), scsi_task_good);
}

static void submit_compare_and_write(struct scsi_task *task)
{
    uint32_t size = (uint32_t)task->length_bytes;
    task->iov[0] = (struct iovec){task->buffer->data, size};
    task->iov[1] = (struct iovec){task->buffer->data + size, size};
    task->block.operation = BLOCK_COMPARE_AND_WRITE;
    task->block.flags = write_flags(task);
    task->block.offset_bytes = task->offset_bytes;
    task->block.length_bytes = size;
    task->block.iov = task->iov;
    task->block.iov_count = 2;
    task->block.done = block_done;
    task->block.status = 0;
    task->step = compare_and_write_end;
    task->submitted = true;
    block_device_submit(task->device, &task->block);
}

/* SBC-3 §5.2 */
void scsi_block_compare_and_write(struct scsi_task *task)
{
    if (!protect_is_zero(task) ||
        !fits(task, task->length_bytes, MIN(SCSI_COMPARE_MAX_BYTES, 255u * block_bytes(task)), 13))
        return;
    if (task->length_bytes == 0 && task->expected_bytes) { /* 256 blocks do not fit the field */
        scsi_task_sense_field(task, SCSI_SENSE_INVALID_FIELD_IN_CDB, 13, 0xff);
        return;
    }
    if (!has_exact_data(task, 2 * task->length_bytes))
        return;
    if (task->length_bytes == 0) {
        scsi_task_good(task);
        return;
    }
    if (task->device != task->unit->device) {
        fail(task, -ESTALE);
        return;
    }
    if (task->device->geometry.capabilities & BLOCK_CAP_COMPARE_AND_WRITE) {
        submit_compare_and_write(task);
        return;
    }
    if (get_scratch(task, (uint32_t)task->length_bytes))
        submit(task, BLOCK_READ, task->offset_bytes, task->length_bytes, task->scratch->data, 0, compare_step);
}

static void orwrite_step(struct scsi_task *task)
{
    const uint8_t *with = task->buffer->data;
    uint8_t *data = task->scratch->data;
    for (uint64_t i = 0; i < task->length_bytes; i++)
        data[i] |= with[i];
    submit(task, BLOCK_WRITE, task->offset_bytes, task->length_bytes, data, write_flags(task), scsi_task_good);
}

/* SBC-3 §5.7 */
void scsi_block_orwrite(struct scsi_task *task)
{
    if (!write_checks(task))
        return;
    if (task->length_bytes == 0)
        scsi_task_good(task);
    else if (get_scratch(task, (uint32_t)task->length_bytes))
        submit(task, BLOCK_READ, task->offset_bytes, task->length_bytes, task->scratch->data, 0, orwrite_step);
}
