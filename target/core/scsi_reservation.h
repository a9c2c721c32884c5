/* Reservations of one logical unit: the persistent table (SPC-4 r37 §5.13) and SPC-2's RESERVE/RELEASE.
 * Registrants are named by I_T nexus as initiator port and target port names, so the table means the same on every node
 * and in every session of that initiator port.
 *
 * I14: a table comes into force when the cluster has committed it, and what changed it is answered only then. So every node
 * has the same table, and an owner that takes over goes on with it. See struct scsi_proposal in scsi_unit.h. */
#ifndef DIRECTOR_TARGET_CORE_SCSI_RESERVATION_H
#define DIRECTOR_TARGET_CORE_SCSI_RESERVATION_H

#include "target/core/scsi_task.h"
#include "target/core/target_types.h"

#define SCSI_REGISTRANTS_MAX        256u
#define SCSI_RESERVATIONS_BYTES_MAX 30720u /* encoded: what one command of the replicated state can carry */

/* An I_T nexus by name: initiator port (iSCSI name and ISID), target port (iSCSI name and portal group tag). */
struct scsi_nexus_id {
    char initiator[TARGET_NAME_BYTES];
    char target[TARGET_NAME_BYTES];
    uint8_t isid[6];
    uint16_t port; /* portal group tag = relative target port id */
};

struct scsi_registrant {
    struct scsi_nexus_id id;
    uint64_t key;
};

enum scsi_reservation_type {
    SCSI_RESERVATION_NONE = 0,
    SCSI_RESERVATION_WRITE_EXCLUSIVE = 1,
    SCSI_RESERVATION_EXCLUSIVE_ACCESS = 3,
    SCSI_RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS = 5,
    SCSI_RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS = 6,
    SCSI_RESERVATION_WRITE_EXCLUSIVE_ALL = 7,
    SCSI_RESERVATION_EXCLUSIVE_ACCESS_ALL = 8,
};

struct scsi_reservations {
    uint32_t generation; /* PRGENERATION */
    struct scsi_registrant *registrants;
    unsigned count, room;
    uint8_t type;    /* enum scsi_reservation_type */
    unsigned holder; /* index, when type is one with a single holder */
    bool aptpl;      /* of the last registration: PTPL_A. What is committed survives power loss in any case */
    uint64_t reserved_session; /* that holds the unit by RESERVE(6) or (10), 0: none */
};

void scsi_reservations_done(struct scsi_reservations *reservations);
/* A table of its own memory; *to must be empty. -ENOMEM. */
MUST_CHECK int scsi_reservations_copy(struct scsi_reservations *to, const struct scsi_reservations *from);
/* Index of the nexus among the registrants, or -1. */
int scsi_reservations_find(const struct scsi_reservations *reservations, const struct scsi_nexus_id *id);
/* Index of the new registrant, or -1: no memory or too many. */
int scsi_reservations_add(struct scsi_reservations *reservations, const struct scsi_nexus_id *id, uint64_t key);
/* Drop a registrant; the reservation goes with its holder (§5.13.11.2.2). */
void scsi_reservations_drop(struct scsi_reservations *reservations, unsigned index);
/* Does this registrant hold the reservation? §5.13.10: with the all registrants types everyone does. */
bool scsi_reservations_hold(const struct scsi_reservations *reservations, unsigned index);
static inline bool scsi_reservation_of_all(uint8_t type)
{
    return type == SCSI_RESERVATION_WRITE_EXCLUSIVE_ALL || type == SCSI_RESERVATION_EXCLUSIVE_ACCESS_ALL;
}

/* May this nexus run a command with these flags (enum scsi_command_flags) now? SPC-4 tables 66 and 67, SBC-3 table 13. */
bool scsi_reservations_allow(const struct scsi_reservations *reservations, const struct scsi_nexus_id *id,
                             uint32_t command_flags);

/* PERSISTENT RESERVE IN and OUT: handlers of the device server. */
void scsi_persistent_reserve_in(struct scsi_task *task);
void scsi_persistent_reserve_out(struct scsi_task *task);

/* iSCSI TransportIDs, SPC-4 §7.6.4.6. put: bytes written, at most SCSI_TRANSPORT_ID_MAX. get: bytes taken, or -EPROTO when it is
 * malformed, of another protocol, or names no initiator port (format 00b); fills initiator and isid only. */
#define SCSI_TRANSPORT_ID_MAX 264u
uint32_t scsi_transport_id_put(const struct scsi_nexus_id *id, uint8_t *to);
MUST_CHECK int scsi_transport_id_get(const uint8_t *from, uint32_t size, struct scsi_nexus_id *id);

/* The table as canonical bytes, and back. encode: bytes written, or -ENOSPC. decode: 0, -EPROTO, -ENOMEM; nothing changes on error. */
int scsi_reservations_encode(const struct scsi_reservations *reservations, uint8_t *to, uint32_t size);
int scsi_reservations_decode(struct scsi_reservations *reservations, const uint8_t *from, uint32_t size);

bool scsi_nexus_id_equal(const struct scsi_nexus_id *a, const struct scsi_nexus_id *b);

#endif
