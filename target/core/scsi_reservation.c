/* The persistent reservation table and what it allows. SPC-4 r37 §5.13. The commands are in scsi_persistent.c. */
#include "target/core/scsi_reservation.h"

#include "director/base/bytes.h"
#include "target/core/scsi_unit.h"
#include <errno.h>

void scsi_reservations_done(struct scsi_reservations *reservations)
{
    free(reservations->registrants);
    *reservations = (struct scsi_reservations){0};
}

bool scsi_nexus_id_equal(const struct scsi_nexus_id *a, const struct scsi_nexus_id *b)
{
    return a->port == b->port && memcmp(a->isid, b->isid, sizeof(a->isid)) == 0 &&
           strcmp(a->initiator, b->initiator) == 0 && strcmp(a->target, b->target) == 0;
}

/* SPC-4 r37 tables 66 (SPC commands) and SBC-3 table 13, by what a command does to the medium. */
bool scsi_reservations_allow(const struct scsi_reservations *reservations, const struct scsi_nexus_id *id,
                             uint32_t command_flags)
{
    if (reservations->type == SCSI_RESERVATION_NONE || (command_flags & SCSI_COMMAND_ALWAYS))
        return true;
    bool registered = false, holder = false;
    for (unsigned i = 0; i < reservations->count; i++) {
        if (!scsi_nexus_id_equal(&reservations->registrants[i].id, id))
            continue;
        registered = true;
        holder = i == reservations->holder;
    }
    switch (reservations->type) {
    case SCSI_RESERVATION_WRITE_EXCLUSIVE:
        return holder || !(command_flags & SCSI_COMMAND_WRITES);
    case SCSI_RESERVATION_EXCLUSIVE_ACCESS:
        return holder;
    case SCSI_RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS:
    case SCSI_RESERVATION_WRITE_EXCLUSIVE_ALL:
        return registered || !(command_flags & SCSI_COMMAND_WRITES);
    default:
        return registered;
    }
}

/* ---- canonical bytes: version, generation, type, holder + 1, count, then each: key, isid, port, two names with lengths ---- */

enum { HEADER_BYTES = 12, ENTRY_BYTES = 18 };

int scsi_reservations_encode(const struct scsi_reservations *reservations, uint8_t *to, uint32_t size)
{
    uint32_t at = HEADER_BYTES;
    if (size < HEADER_BYTES)
        return -ENOSPC;
    put_le16(to, 1);
    put_le16(to + 2, (uint16_t)reservations->count);
    put_le32(to + 4, reservations->generation);
    to[8] = reservations->type;
    to[9] = 0;
    put_le16(to + 10, (uint16_t)(reservations->type ? reservations->holder : 0));
    for (unsigned i = 0; i < reservations->count; i++) {
        const struct scsi_registrant *r = &reservations->registrants[i];
        size_t initiator = strlen(r->id.initiator), target = strlen(r->id.target);
        if (size - at < ENTRY_BYTES + initiator + target)
            return -ENOSPC;
        put_le64(to + at, r->key);
        memcpy(to + at + 8, r->id.isid, 6);
        put_le16(to + at + 14, r->id.port);
        to[at + 16] = (uint8_t)initiator;
        to[at + 17] = (uint8_t)target;
        memcpy(to + at + ENTRY_BYTES, r->id.initiator, initiator);
        memcpy(to + at + ENTRY_BYTES + initiator, r->id.target, target);
        at += ENTRY_BYTES + (uint32_t)(initiator + target);
    }
    return (int)at;
}

static bool decode_entry(struct scsi_registrant *r, const uint8_t *from, uint32_t size, uint32_t *at)
{
    if (size - *at < ENTRY_BYTES)
        return false;
    const uint8_t *p = from + *at;
    uint32_t initiator = p[16], target = p[17];
    if (initiator >= TARGET_NAME_BYTES || target >= TARGET_NAME_BYTES || size - *at - ENTRY_BYTES < initiator + target)
        return false;
    r->key = get_le64(p);
    memcpy(r->id.isid, p + 8, 6);
    r->id.port = get_le16(p + 14);
    memcpy(r->id.initiator, p + ENTRY_BYTES, initiator);
    memcpy(r->id.target, p + ENTRY_BYTES + initiator, target);
    *at += ENTRY_BYTES + initiator + target;
    return strlen(r->id.initiator) == initiator && strlen(r->id.target) == target;
}

int scsi_reservations_decode(struct scsi_reservations *reservations, const uint8_t *from, uint32_t size)
{
    struct scsi_reservations new = {0};
    uint32_t at = HEADER_BYTES;
    if (size < HEADER_BYTES || get_le16(from) != 1 || get_le16(from + 2) > SCSI_REGISTRANTS_MAX || from[9])
        return -EPROTO;
    new.generation = get_le32(from + 4);
    new.type = from[8];
    new.holder = get_le16(from + 10);
    unsigned count = get_le16(from + 2);
    if (new.type > 8 || new.type == 2 || new.type == 4 || (new.type ? new.holder >= count : new.holder != 0))
        return -EPROTO;
    new.registrants = count ? calloc(count, sizeof(*new.registrants)) : NULL;
    if (count && !new.registrants)
        return -ENOMEM;
    for (new.room = count; new.count < count; new.count++) {
        if (!decode_entry(&new.registrants[new.count], from, size, &at)) {
            scsi_reservations_done(&new);
            return -EPROTO;
        }
    }
    if (at != size) {
        scsi_reservations_done(&new);
        return -EPROTO;
    }
    scsi_reservations_done(reservations);
    *reservations = new;
    return 0;
}
