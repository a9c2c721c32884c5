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

int scsi_reservations_copy(struct scsi_reservations *to, const struct scsi_reservations *from)
{
    struct scsi_registrant *registrants = NULL;
    if (from->count) {
        registrants = malloc(from->count * sizeof(*registrants));
        if (!registrants)
            return -ENOMEM;
        memcpy(registrants, from->registrants, from->count * sizeof(*registrants));
    }
    *to = *from;
    to->registrants = registrants;
    to->room = from->count;
    return 0;
}

int scsi_reservations_find(const struct scsi_reservations *reservations, const struct scsi_nexus_id *id)
{
    for (unsigned i = 0; i < reservations->count; i++)
        if (scsi_nexus_id_equal(&reservations->registrants[i].id, id))
            return (int)i;
    return -1;
}

int scsi_reservations_add(struct scsi_reservations *reservations, const struct scsi_nexus_id *id, uint64_t key)
{
    if (reservations->count == reservations->room) {
        unsigned room = reservations->room ? reservations->room * 2 : 4;
        struct scsi_registrant *more = reservations->count < SCSI_REGISTRANTS_MAX
                                           ? realloc(reservations->registrants, room * sizeof(*more)) : NULL;
        if (!more)
            return -1;
        reservations->registrants = more;
        reservations->room = room;
    }
    reservations->registrants[reservations->count] = (struct scsi_registrant){.id = *id, .key = key};
    return (int)reservations->count++;
}

/* Order is kept: the holder's index follows. */
void scsi_reservations_drop(struct scsi_reservations *reservations, unsigned index)
{
    memmove(&reservations->registrants[index], &reservations->registrants[index + 1],
            (reservations->count - index - 1) * sizeof(*reservations->registrants));
    reservations->count--;
    if (reservations->type && !scsi_reservation_of_all(reservations->type) && reservations->holder == index)
        reservations->type = SCSI_RESERVATION_NONE;
    else if (reservations->holder > index)
        reservations->holder--;
    if (reservations->count == 0)
        reservations->type = SCSI_RESERVATION_NONE;
    if (reservations->type == SCSI_RESERVATION_NONE || reservations->holder >= reservations->count)
        reservations->holder = 0;
}

bool scsi_reservations_hold(const struct scsi_reservations *reservations, unsigned index)
{
    return reservations->type && (scsi_reservation_of_all(reservations->type) || index == reservations->holder);
}

/* ---- TransportIDs: format 01b, an initiator port; padded to a multiple of four, at least 24 bytes ---- */

enum { TRANSPORT_ID_ISCSI_PORT = 0x45 };

uint32_t scsi_transport_id_put(const struct scsi_nexus_id *id, uint8_t *to)
{
    int text = snprintf((char *)to + 4, SCSI_TRANSPORT_ID_MAX - 4, "%s,i,0x%02x%02x%02x%02x%02x%02x", id->initiator, id->isid[0],
                        id->isid[1], id->isid[2], id->isid[3], id->isid[4], id->isid[5]);
    uint32_t length = MAX(((uint32_t)text + 1 + 3) & ~3u, 20u);
    memset(to + 4 + text, 0, length - (uint32_t)text);
    memset(to, 0, 4);
    to[0] = TRANSPORT_ID_ISCSI_PORT;
    put_be16(to + 2, (uint16_t)length);
    return 4 + length;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int scsi_transport_id_get(const uint8_t *from, uint32_t size, struct scsi_nexus_id *id)
{
    if (size < 24 || from[0] != TRANSPORT_ID_ISCSI_PORT)
        return -EPROTO;
    uint32_t length = get_be16(from + 2);
    const char *text = (const char *)from + 4, *end = memchr(text, 0, MIN(length, size - 4));
    if (length < 20 || length % 4 || length > size - 4 || !end)
        return -EPROTO;
    const char *comma = memchr(text, ',', (size_t)(end - text));
    if (!comma || comma == text || comma - text >= (ptrdiff_t)sizeof(id->initiator) || end - comma != 17 ||
        memcmp(comma, ",i,0x", 5) != 0)
        return -EPROTO;
    for (unsigned i = 0; i < sizeof(id->isid); i++) {
        int high = hex_digit(comma[5 + 2 * i]), low = hex_digit(comma[6 + 2 * i]);
        if (high < 0 || low < 0)
            return -EPROTO;
        id->isid[i] = (uint8_t)(high << 4 | low);
    }
    memset(id->initiator, 0, sizeof(id->initiator));
    memcpy(id->initiator, text, (size_t)(comma - text));
    return (int)(4 + length);
}

/* ---- canonical bytes ----
 * le16 format 2, le16 count, le32 generation, type, flags (1: APTPL), le16 holder, le64 session of RESERVE; then for each
 * registrant le64 key, isid, le16 port, length of the initiator's name, length of the target's, both names. A length of 255 stands for
 * the name of the registrant before. */

enum { FORMAT = 2, HEADER_BYTES = 20, ENTRY_BYTES = 18, SAME_NAME = 255 };

static bool put_name(uint8_t *to, uint32_t size, uint32_t *at, uint8_t *length, const char *name, const char *before)
{
    size_t bytes = strlen(name);
    *length = SAME_NAME;
    if (before && strcmp(before, name) == 0)
        return true;
    if (size - *at < bytes)
        return false;
    *length = (uint8_t)bytes;
    memcpy(to + *at, name, bytes);
    *at += (uint32_t)bytes;
    return true;
}

int scsi_reservations_encode(const struct scsi_reservations *reservations, uint8_t *to, uint32_t size)
{
    uint32_t at = HEADER_BYTES;
    if (size < HEADER_BYTES)
        return -ENOSPC;
    put_le16(to, FORMAT);
    put_le16(to + 2, (uint16_t)reservations->count);
    put_le32(to + 4, reservations->generation);
    to[8] = reservations->type;
    to[9] = reservations->aptpl;
    put_le16(to + 10, (uint16_t)(reservations->type ? reservations->holder : 0));
    put_le64(to + 12, reservations->reserved_session);
    for (unsigned i = 0; i < reservations->count; i++) {
        const struct scsi_registrant *r = &reservations->registrants[i], *before = i ? r - 1 : NULL;
        uint8_t *entry = to + at;
        if (size - at < ENTRY_BYTES)
            return -ENOSPC;
        put_le64(entry, r->key);
        memcpy(entry + 8, r->id.isid, 6);
        put_le16(entry + 14, r->id.port);
        at += ENTRY_BYTES;
        if (!put_name(to, size, &at, &entry[16], r->id.initiator, before ? before->id.initiator : NULL) ||
            !put_name(to, size, &at, &entry[17], r->id.target, before ? before->id.target : NULL))
            return -ENOSPC;
    }
    return (int)at;
}

static bool get_name(const uint8_t *from, uint32_t size, uint32_t *at, uint8_t length, char *name, const char *before)
{
    if (length == SAME_NAME) {
        if (before)
            strcpy(name, before);
        return before != NULL;
    }
    if (length >= TARGET_NAME_BYTES || size - *at < length || memchr(from + *at, 0, length) ||
        (before && strlen(before) == length && memcmp(before, from + *at, length) == 0))
        return false;
    memcpy(name, from + *at, length);
    *at += length;
    return true;
}

static bool decode_entry(struct scsi_registrant *r, const struct scsi_registrant *before, const uint8_t *from, uint32_t size,
                         uint32_t *at)
{
    const uint8_t *entry = from + *at;
    if (size - *at < ENTRY_BYTES)
        return false;
    r->key = get_le64(entry);
    memcpy(r->id.isid, entry + 8, 6);
    r->id.port = get_le16(entry + 14);
    *at += ENTRY_BYTES;
    return get_name(from, size, at, entry[16], r->id.initiator, before ? before->id.initiator : NULL) &&
           get_name(from, size, at, entry[17], r->id.target, before ? before->id.target : NULL);
}

int scsi_reservations_decode(struct scsi_reservations *reservations, const uint8_t *from, uint32_t size)
{
    struct scsi_reservations new = {0};
    uint32_t at = HEADER_BYTES;
    if (size < HEADER_BYTES || get_le16(from) != FORMAT || get_le16(from + 2) > SCSI_REGISTRANTS_MAX || from[9] > 1)
        return -EPROTO;
    new.generation = get_le32(from + 4);
    new.type = from[8];
    new.aptpl = from[9];
    new.holder = get_le16(from + 10);
    new.reserved_session = get_le64(from + 12);
    unsigned count = get_le16(from + 2);
    if (new.type > 8 || new.type == 2 || new.type == 4 || (new.type ? new.holder >= count : new.holder != 0) ||
        (count && new.reserved_session))
        return -EPROTO;
    new.registrants = count ? calloc(count, sizeof(*new.registrants)) : NULL;
    if (count && !new.registrants)
        return -ENOMEM;
    for (new.room = count; new.count < count; new.count++) {
        struct scsi_registrant *r = &new.registrants[new.count];
        if (!decode_entry(r, new.count ? r - 1 : NULL, from, size, &at)) {
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
