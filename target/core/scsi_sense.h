/* Sense data, SPC-4 r37 §4.5. */
#ifndef DIRECTOR_TARGET_CORE_SCSI_SENSE_H
#define DIRECTOR_TARGET_CORE_SCSI_SENSE_H

#include "target/core/scsi.h"
#include <stdbool.h>

#define SCSI_SENSE_MAX_BYTES 32u

/* What a CHECK CONDITION says. */
struct scsi_sense {
    uint32_t code;         /* enum scsi_sense_code, 0 = no sense */
    bool has_field;        /* sense key specific: field pointer (§4.5.2.4.2) */
    bool field_in_cdb;     /* else in the parameter list */
    uint16_t field_byte;
    uint8_t field_bit;     /* 0xff: no bit pointer */
    bool has_information;
    uint64_t information;  /* LBA or offset of a miscompare */
};

/* Write sense data in fixed format (70h) or descriptor format (72h) for D_SENSE. Returns its length. */
uint8_t scsi_sense_encode(const struct scsi_sense *sense, bool descriptor, uint8_t to[static SCSI_SENSE_MAX_BYTES]);

/* The sense code of the unit attention to report first in a set that is not empty; *ret_bit is its bit. */
uint32_t scsi_unit_attention_first(uint32_t pending, uint32_t *ret_bit);

#endif
