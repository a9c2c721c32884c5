/* What a CDB says before anything is executed: which command, how much data, which blocks. */
#ifndef DIRECTOR_TARGET_CORE_SCSI_CDB_H
#define DIRECTOR_TARGET_CORE_SCSI_CDB_H

#include "target/core/scsi_task.h"

enum scsi_command_flags {
    SCSI_COMMAND_READS = 1u << 0,     /* the medium: conflicts with exclusive access reservations */
    SCSI_COMMAND_WRITES = 1u << 1,    /* the medium: conflicts with all; refused when write protected */
    SCSI_COMMAND_ALWAYS = 1u << 2,    /* allowed under anybody's reservation (SPC-4 table 66 "Allowed") */
    SCSI_COMMAND_NO_UA = 1u << 3,     /* neither reports nor clears unit attentions: SAM-5 §5.14.4 */
    SCSI_COMMAND_MEDIUM = 1u << 4,    /* needs the medium to be in */
    SCSI_COMMAND_ANY_NODE = 1u << 5,  /* answered where it arrives: the same everywhere, owner or not */
    SCSI_COMMAND_RANGE = 1u << 6,     /* has a logical block range at the usual place */
    SCSI_COMMAND_ATOMIC = 1u << 7,    /* reads, then writes what depends on it: alone on its blocks */
};

struct scsi_command {
    uint8_t opcode;
    uint8_t service_action; /* when has_service_action */
    bool has_service_action;
    uint8_t cdb_bytes;
    uint32_t flags;
    uint8_t usage[SCSI_CDB_BYTES]; /* CDB usage map for REPORT SUPPORTED OPERATION CODES, SPC-4 §6.35.3 */
    void (*execute)(struct scsi_task *task);
};

/* The command a CDB asks for; NULL: unsupported. *ret_known_opcode: the opcode exists, only its service action does not. */
const struct scsi_command *scsi_command_find(const uint8_t *cdb, bool *ret_known_opcode);
/* All commands, for reporting. */
const struct scsi_command *scsi_command_table(unsigned *ret_count);

/* Logical block range of a command with SCSI_COMMAND_RANGE. */
void scsi_cdb_range(const uint8_t *cdb, uint64_t *ret_lba, uint32_t *ret_blocks);

/* Direction and length of the data of a CDB, to size a task's buffer and to ask for data-out. *ret_bytes may be more
 * than TARGET_TRANSFER_MAX_BYTES: the command will be refused and needs no buffer. Unknown commands have no data. */
enum scsi_direction scsi_cdb_data(const uint8_t *cdb, uint32_t block_bytes, uint64_t *ret_bytes);

#endif
