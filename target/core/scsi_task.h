/* One SCSI command on its way through the device server. Memory of whoever submits it, reused by him after done. */
#ifndef DIRECTOR_TARGET_CORE_SCSI_TASK_H
#define DIRECTOR_TARGET_CORE_SCSI_TASK_H

#include "director/base/list.h"
#include "target/core/data_pool.h"
#include "target/core/scsi_sense.h"
#include <director/block_device.h>

#define SCSI_CDB_BYTES 16u

enum scsi_direction { SCSI_DATA_NONE, SCSI_DATA_IN, SCSI_DATA_OUT };

struct scsi_unit;
struct scsi_nexus;

struct scsi_task {
    /* Set by the submitter. */
    uint8_t cdb[SCSI_CDB_BYTES];
    uint64_t tag;               /* unique among the tasks of its nexus: what ABORT TASK names */
    struct data_buffer *buffer; /* data-out, or room for data-in; NULL when scsi_cdb_data() wants none */
    uint32_t data_out_bytes;    /* received into buffer */
    uint32_t expected_bytes;    /* what the initiator offered or expects (EDTL) */
    void (*done)(struct scsi_task *task); /* once, possibly before scsi_unit_execute() returns */

    /* Set before done. */
    uint8_t status; /* enum scsi_status */
    uint8_t sense_bytes;
    uint8_t sense[SCSI_SENSE_MAX_BYTES];
    bool aborted;            /* by task management: no status goes to the initiator */
    bool stale;              /* a write the device refused as fenced, or a command that never began here */
    uint32_t transfer_bytes; /* what the command moves, for the residual; may exceed what was moved */
    uint32_t data_in_bytes;  /* valid in buffer */

    /* The device server's, between execute and done. */
    struct scsi_unit *unit;
    struct scsi_nexus *nexus;
    struct block_device *device; /* the one it began on */
    struct list link;            /* in unit->tasks or unit->blocked */
    uint64_t sequence;
    struct data_buffer *scratch;
    struct block_request block;
    struct iovec iov[2];
    uint64_t offset_bytes, length_bytes, position_bytes; /* of the medium; position counts from offset */
    void (*step)(struct scsi_task *task);                /* what the completion of block continues with */
    uint32_t chunk_bytes, index;
    uint8_t phase;
    bool writes, atomic, reserves, blocked, submitted, marked_aborted, abort_reported;
};

#endif
