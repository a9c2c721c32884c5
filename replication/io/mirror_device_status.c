/* What it looks like from outside. */
#include "replication/io/checksum_device.h"
#include "replication/io/mirror_device_private.h"

void mirror_device_get_status(const struct mirror_device *d, struct mirror_device_status *ret_status)
{
    memset(ret_status, 0, sizeof(*ret_status));
    mirror_get_status(d->mirror, mirror_clock_us(), &ret_status->mirror);
    ret_status->has_replica = d->replica != NULL;
    if (d->replica)
        replica_get_status(d->replica, &ret_status->replica);
    ret_status->reads = d->reads;
    ret_status->writes = d->writes;
    ret_status->read_bytes = d->read_bytes;
    ret_status->written_bytes = d->written_bytes;
    ret_status->metadata_writes = d->metadata_writes;
    if (d->checksum) {
        struct checksum_device_status sums;
        checksum_device_get_status(d->checksum, &sums);
        ret_status->checksum_errors = sums.errors;
        ret_status->checksum_lost = sums.lost;
        ret_status->checksum_rebuild_regions = sums.rebuild_regions;
    }
}

static size_t add_nodes(const struct mirror_device *d, uint8_t mask, char *text, size_t size, size_t at)
{
    const char *between = "";
    for (unsigned k = 0; k < d->config.replica_count && at < size; k++)
        if (mask >> k & 1) {
            at += (size_t)snprintf(text + at, size - at, "%s%u", between, d->config.replicas[k].nodeid);
            between = ", ";
        }
    return at;
}

void mirror_device_describe(const struct mirror_device *d, char *text, size_t size)
{
    struct mirror_status s;
    size_t at = 0;
    mirror_get_status(d->mirror, mirror_clock_us(), &s);
    if (s.state == MIRROR_IDLE) {
        snprintf(text, size, "not the owner; the owner is node %u", d->config.owner);
        return;
    }
    if (s.needed) {
        at = (size_t)snprintf(text, size, "%s, waits for node ", s.state == MIRROR_SEALING ? "taking over" : "suspended");
        at = add_nodes(d, s.needed, text, size, at);
    } else {
        at = (size_t)snprintf(text, size, "%s", s.state == MIRROR_SEALING ? "taking over" : "serving");
    }
    if (at < size)
        at += (size_t)snprintf(text + at, size - at, "; in sync on node ");
    at = add_nodes(d, s.isr, text, size, at);
    for (unsigned k = 0; k < d->config.replica_count && at < size; k++) {
        if (s.members[k].state == MIRROR_MEMBER_SYNCING && !s.members[k].in_sync)
            at += (size_t)snprintf(text + at, size - at, "; node %u resyncs, %llu of %llu regions left",
                                   d->config.replicas[k].nodeid, (unsigned long long)s.members[k].todo_regions,
                                   (unsigned long long)s.members[k].total_regions);
        else if (s.members[k].state == MIRROR_MEMBER_REFUSED)
            at += (size_t)snprintf(text + at, size - at, "; node %u is refused: %s", d->config.replicas[k].nodeid,
                                   s.members[k].refused == -ENODEV ? "it has another disk" : "its disk failed");
    }
}
