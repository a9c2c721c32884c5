#include "target/core/target_copy.h"

#include "director/base/bytes.h"
#include "target/core/target_private.h"

enum { HEADER_BYTES = 16, TYPE_IDENTIFICATION = 0xe4, TYPE_BLOCK_TO_BLOCK = 0x02, DC = 0x02 };
enum { LIST_ID_DISCARD = 2, LIST_ID_NONE = 3 };
enum { RESULT_COPY_STATUS = 0, RESULT_OPERATING_PARAMETERS = 3, RESULT_FAILED_SEGMENT = 4 };
enum { STATUS_IN_PROGRESS = 0, STATUS_DONE = 1, STATUS_FAILED = 2 };

struct segment {
    struct target_lu *from, *to; /* NULL: no such unit */
    uint64_t from_lba, to_lba, blocks; /* blocks of the one that DC names */
    bool counts_destination;
};

struct copy {
    struct target *target;
    struct target_task *task;          /* the command */
    struct target_copy_result *result; /* the session's */
    struct segment segments[TARGET_COPY_SEGMENTS_MAX];
    unsigned count, at;
    uint64_t done, length;             /* bytes of the segment at */
    uint32_t chunk;
    bool writing;
    struct data_buffer *buffer;
    struct target_task io;
};

bool target_copy_is(const uint8_t *cdb)
{
    return cdb[0] == SCSI_EXTENDED_COPY || cdb[0] == SCSI_RECEIVE_COPY_RESULTS;
}

static void sense(struct target_task *task, uint32_t code)
{
    scsi_task_set_sense(&task->scsi, &(struct scsi_sense){.code = code}, false);
    target_task_end(task);
}

/* ---- results ---- */

static struct target_copy_result *result_find(struct target_session *session, uint8_t list_id)
{
    for (unsigned i = 0; i < TARGET_COPY_RESULTS; i++)
        if (session->copies[i].known && session->copies[i].list_id == list_id)
            return &session->copies[i];
    return NULL;
}

/* A place for a new copy's result: its list id's, a free one, or the oldest that is over. NULL: all are under way. */
static struct target_copy_result *result_new(struct target_session *session, uint8_t list_id)
{
    struct target_copy_result *found = result_find(session, list_id), *best = found;
    uint64_t newest = 0;
    for (unsigned i = 0; i < TARGET_COPY_RESULTS; i++) {
        struct target_copy_result *place = &session->copies[i];
        bool over = !place->known || place->status != STATUS_IN_PROGRESS;
        newest = MAX(newest, place->age);
        if (!found && over && (!best || (best->known && (!place->known || place->age < best->age))))
            best = place;
    }
    if (best)
        *best = (struct target_copy_result){.known = true, .list_id = list_id, .age = newest + 1};
    return best;
}

/* §6.20, table 219 */
static uint32_t operating_parameters(uint8_t *to)
{
    static const uint8_t types[] = {TYPE_BLOCK_TO_BLOCK, TYPE_IDENTIFICATION};
    memset(to, 0, 46);
    put_be32(to, 42);
    to[4] = 1; /* SNLID: a list id is not needed */
    put_be16(to + 8, TARGET_COPY_TARGETS_MAX);
    put_be16(to + 10, TARGET_COPY_SEGMENTS_MAX);
    put_be32(to + 12, TARGET_COPY_LIST_MAX);
    put_be32(to + 16, TARGET_COPY_SEGMENT_MAX);
    put_be16(to + 34, TARGET_COPIES_MAX);
    to[36] = TARGET_COPY_RESULTS;
    to[37] = 9; /* granularity: 2^9 bytes */
    to[43] = sizeof(types);
    memcpy(to + 44, types, sizeof(types));
    return 46;
}

static void receive_results(struct target_task *task)
{
    const uint8_t *cdb = task->scsi.cdb;
    uint8_t to[64] = {0};
    uint32_t bytes, allocation = get_be32(cdb + 10);
    const struct target_copy_result *result = result_find(task->session, cdb[2]);
    switch (cdb[1] & 0x1f) {
    case RESULT_OPERATING_PARAMETERS:
        bytes = operating_parameters(to);
        break;
    case RESULT_COPY_STATUS: /* §6.18.1 */
        if (!result) {
            sense(task, SCSI_SENSE_INVALID_FIELD_IN_CDB);
            return;
        }
        put_be32(to, 8);
        to[4] = result->status;
        put_be16(to + 5, result->segments);
        to[7] = 1; /* KiB */
        put_be32(to + 8, (uint32_t)MIN(result->bytes >> 10, UINT32_MAX));
        bytes = 12;
        break;
    default: /* FAILED SEGMENT DETAILS, §6.19: what there is to say was in the sense data */
        if (!result || result->status == STATUS_IN_PROGRESS) {
            sense(task, SCSI_SENSE_INVALID_FIELD_IN_CDB);
            return;
        }
        bytes = 60;
        put_be32(to, bytes - 4);
        break;
    }
    bytes = MIN(bytes, allocation);
    if (bytes)
        memcpy(task->scsi.buffer->data, to, bytes);
    task->scsi.transfer_bytes = task->scsi.data_in_bytes = bytes;
    target_task_end(task);
}

/* ---- copying ---- */

static void copy_end(struct copy *copy)
{
    struct target_task *task = copy->task;
    data_pool_put(&copy->target->pool, copy->buffer);
    copy->target->copies--;
    if (copy->result && task->session && !task->scsi.aborted)
        copy->result->status = task->scsi.status == SCSI_GOOD ? STATUS_DONE : STATUS_FAILED;
    free(copy);
    target_task_end(task);
}

/* COPY ABORTED (SPC-4 §6.4.3): nothing more is written. */
static void copy_fail(struct copy *copy, uint32_t code)
{
    scsi_task_set_sense(&copy->task->scsi, &(struct scsi_sense){.code = code}, false);
    copy_end(copy);
}

static void copy_next(struct copy *copy);

static void io_done(struct target_task *io)
{
    struct copy *copy = container_of(io, struct copy, io);
    struct target_task *task = copy->task;
    const struct scsi_task *scsi = &io->scsi;
    if (scsi->aborted || !io->session) { /* the command was aborted, or its session is gone */
        task->scsi.aborted = true;
        copy_end(copy);
        return;
    }
    if (scsi->status == SCSI_CHECK_CONDITION && scsi->sense_bytes > 2 && (scsi->sense[2] & 15) == 6) {
        /* A unit attention belongs to the initiator, not to us. */
        task->scsi.status = scsi->status;
        task->scsi.sense_bytes = scsi->sense_bytes;
        memcpy(task->scsi.sense, scsi->sense, scsi->sense_bytes);
        copy_end(copy);
        return;
    }
    if (scsi->status != SCSI_GOOD) {
        copy_fail(copy, SCSI_SENSE_THIRD_PARTY_DEVICE_FAILURE);
        return;
    }
    if (copy->writing) {
        copy->done += copy->chunk;
        if (copy->result)
            copy->result->bytes += copy->chunk;
    }
    copy->writing = !copy->writing;
    copy_next(copy);
}

static uint32_t block_of(const struct target_lu *lu)
{
    return lu->unit.identity.block_bytes;
}

/* Check the segment that begins. True: it can be done. */
static bool segment_begin(struct copy *copy)
{
    struct segment *segment = &copy->segments[copy->at];
    if (!segment->from || !segment->to) {
        copy_fail(copy, SCSI_SENSE_UNREACHABLE_COPY_TARGET);
        return false;
    }
    uint64_t from_size = segment->from->unit.identity.size_bytes, to_size = segment->to->unit.identity.size_bytes;
    copy->length = segment->blocks * block_of(segment->counts_destination ? segment->to : segment->from);
    uint64_t from_blocks = from_size / block_of(segment->from), to_blocks = to_size / block_of(segment->to);
    bool fits = segment->from_lba <= from_blocks && segment->to_lba <= to_blocks &&
                copy->length <= from_size - segment->from_lba * block_of(segment->from) &&
                copy->length <= to_size - segment->to_lba * block_of(segment->to) &&
                copy->length % block_of(segment->from) == 0 && copy->length % block_of(segment->to) == 0;
    if (!fits)
        copy_fail(copy, SCSI_SENSE_COPY_ABORTED);
    return fits;
}

/* The next read or write. */
static void copy_next(struct copy *copy)
{
    while (!copy->writing && copy->done == copy->length) {
        if (copy->result && copy->length)
            copy->result->segments = (uint16_t)(copy->at + 1);
        copy->at += copy->buffer != NULL;
        if (copy->at == copy->count) {
            copy_end(copy);
            return;
        }
        copy->done = copy->length = 0;
        if (!segment_begin(copy))
            return;
        if (!copy->buffer)
            copy->buffer = target_buffer(copy->target, TARGET_TRANSFER_MAX_BYTES);
        if (!copy->buffer) {
            copy->task->scsi.status = SCSI_BUSY;
            copy_end(copy);
            return;
        }
    }
    const struct segment *segment = &copy->segments[copy->at];
    struct target_lu *lu = copy->writing ? segment->to : segment->from;
    uint64_t lba = (copy->writing ? segment->to_lba : segment->from_lba) + copy->done / block_of(lu);
    struct target_task *io = &copy->io;
    if (!copy->writing)
        copy->chunk = (uint32_t)MIN(copy->length - copy->done, (uint64_t)TARGET_TRANSFER_MAX_BYTES);
    memset(io->scsi.cdb, 0, sizeof(io->scsi.cdb));
    io->scsi.cdb[0] = copy->writing ? SCSI_WRITE_16 : SCSI_READ_16;
    put_be64(io->scsi.cdb + 2, lba);
    put_be32(io->scsi.cdb + 10, copy->chunk / block_of(lu));
    io->scsi.tag = copy->task->scsi.tag; /* ABORT TASK finds it */
    io->scsi.buffer = copy->buffer;
    io->scsi.expected_bytes = copy->chunk;
    io->scsi.data_out_bytes = copy->writing ? copy->chunk : 0;
    io->session = copy->task->session;
    io->done = io_done;
    target_submit_to(copy->target, io, lu);
}

/* ---- the parameter list ---- */

/* The unit an identification descriptor names, §6.4.5.3; those that the session sees first. NULL: none. */
static struct target_lu *unit_of(struct target *target, const struct target_session *session, const uint8_t *descriptor)
{
    uint8_t designator[SCSI_DESIGNATOR_MAX];
    uint8_t type = descriptor[5] & 0x0f, length = descriptor[7];
    if ((descriptor[5] >> 4 & 3) != 0 || length > 20) /* of a logical unit */
        return NULL;
    for (unsigned i = 0; session->iqn && i < TARGET_LUNS_MAX; i++) {
        struct target_lu *lu = session->iqn->luns[i];
        if (lu && scsi_designator(&lu->unit, type, designator) == length && !memcmp(designator, descriptor + 8, length))
            return lu;
    }
    for (unsigned i = 0; i < TARGET_LU_BUCKETS; i++)
        list_foreach(node, &target->lus[i])
        {
            struct target_lu *lu = list_entry(node, struct target_lu, link);
            if (scsi_designator(&lu->unit, type, designator) == length && !memcmp(designator, descriptor + 8, length))
                return lu;
        }
    return NULL;
}

/* Read the list into the copy. 0, or the sense code to answer. */
static uint32_t parse(struct copy *copy, const uint8_t *list, uint32_t bytes)
{
    struct target_lu *units[TARGET_COPY_TARGETS_MAX];
    if (bytes < HEADER_BYTES)
        return SCSI_SENSE_PARAMETER_LIST_LENGTH;
    uint32_t targets = get_be16(list + 2), segments = get_be32(list + 8), inline_bytes = get_be32(list + 12);
    if (segments > bytes || inline_bytes > bytes || HEADER_BYTES + targets + segments + inline_bytes > bytes ||
        targets + segments > TARGET_COPY_LIST_MAX)
        return SCSI_SENSE_PARAMETER_LIST_LENGTH;
    const uint8_t *at = list + HEADER_BYTES, *targets_end = at + targets, *end = targets_end + segments;
    unsigned unit_count = 0;
    for (; at < targets_end; at += TARGET_COPY_TARGET_BYTES) {
        if (at[0] != TYPE_IDENTIFICATION)
            return SCSI_SENSE_UNSUPPORTED_TARGET_DESCRIPTOR;
        if (unit_count == TARGET_COPY_TARGETS_MAX)
            return SCSI_SENSE_TOO_MANY_TARGET_DESCRIPTORS;
        if (targets_end - at < (ptrdiff_t)TARGET_COPY_TARGET_BYTES)
            return SCSI_SENSE_PARAMETER_LIST_LENGTH;
        units[unit_count++] = unit_of(copy->target, copy->task->session, at);
    }
    for (; at < end; at += TARGET_COPY_SEGMENT_BYTES) {
        if (at[0] != TYPE_BLOCK_TO_BLOCK)
            return SCSI_SENSE_UNSUPPORTED_SEGMENT_DESCRIPTOR;
        if (copy->count == TARGET_COPY_SEGMENTS_MAX)
            return SCSI_SENSE_TOO_MANY_SEGMENT_DESCRIPTORS;
        if (end - at < (ptrdiff_t)TARGET_COPY_SEGMENT_BYTES || get_be16(at + 2) != TARGET_COPY_SEGMENT_BYTES - 4)
            return SCSI_SENSE_PARAMETER_LIST_LENGTH;
        uint16_t from = get_be16(at + 4), to = get_be16(at + 6);
        copy->segments[copy->count++] = (struct segment){
            .from = from < unit_count ? units[from] : NULL,
            .to = to < unit_count ? units[to] : NULL,
            .blocks = get_be16(at + 10),
            .from_lba = get_be64(at + 12),
            .to_lba = get_be64(at + 20),
            .counts_destination = at[1] & DC,
        };
    }
    return 0;
}

static void extended_copy(struct target *target, struct target_task *task)
{
    const uint8_t *list = task->scsi.buffer ? task->scsi.buffer->data : NULL;
    uint32_t bytes = get_be32(task->scsi.cdb + 10);
    if (bytes == 0) { /* §6.4.2: no error */
        target_task_end(task);
        return;
    }
    if (!list || task->scsi.data_out_bytes < bytes) {
        sense(task, SCSI_SENSE_PARAMETER_LIST_LENGTH);
        return;
    }
    task->scsi.transfer_bytes = bytes;
    struct copy *copy = target->copies < TARGET_COPIES_MAX ? calloc(1, sizeof(*copy)) : NULL;
    if (!copy) {
        task->scsi.status = SCSI_BUSY;
        target_task_end(task);
        return;
    }
    copy->target = target;
    copy->task = task;
    target->copies++;
    uint32_t code = parse(copy, list, bytes);
    uint8_t usage = bytes >= 2 ? list[1] >> 3 & 3 : 0;
    if (!code && usage != LIST_ID_NONE && usage != LIST_ID_DISCARD)
        copy->result = result_new(task->session, list[0]);
    if (code)
        copy_fail(copy, code);
    else if (copy->count == 0)
        copy_end(copy);
    else
        copy_next(copy);
}

void target_copy(struct target *target, struct target_task *task)
{
    if (task->scsi.cdb[0] == SCSI_EXTENDED_COPY)
        extended_copy(target, task);
    else
        receive_results(task);
}
