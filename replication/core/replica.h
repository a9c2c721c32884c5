/* The replica: one member's disk, on the owner's own node too. Pure: see step.h for how it is driven.
 *
 * It needs no configuration: whoever was committed as owner of an epoch comes with SEAL(epoch). It persists the highest
 * epoch before it answers, rejects lower ones (I2), and answers only when what it promised to the owner before has run
 * out or been given back (I7) and no earlier write is on its way to the disk.
 *
 * For each write, in this order: intent bit of its regions and dirty bits of the replicas named by the owner durable in
 * the metadata (I9), data done (durable when it says BLOCK_FUA), ack. An intent bit is cleared only after a flush barrier that
 * began when all writes to its region were complete everywhere: so whatever this disk's cache may lose is named by an intent
 * bit (I5). After its machine lost power those regions are "cold": reported so, until the owner has made them equal. Regions that may differ between members ("carry") are reported in the answer
 * to SEAL: all intent bits after a restart, else those of writes not known to be complete everywhere (I6). */
#ifndef DIRECTOR_REPLICATION_REPLICA_H
#define DIRECTOR_REPLICATION_REPLICA_H

#include "replication/core/metadata.h"
#include "replication/core/step.h"

struct replica;

struct replica_parameters {
    uint64_t volume;
    uint16_t nodeid; /* this node */
    uint64_t boot;   /* of this process */
    uint64_t now_us;
    uint64_t data_bytes;            /* that the data device has; 0: as many as are wanted */
    uint32_t operations_max;        /* under way; beyond it writes are refused. 0 = 512 */
    bool (*zero)(void *context, struct mirror_data data, uint64_t bytes); /* nothing but zeroes? NULL: not looked at */
    void *zero_context;
    uint64_t intent_clear_us;       /* how long an idle region keeps its intent bit. 0 = 5 s */
    struct uuid machine;            /* boot of this machine (kernel's boot id): another one than before means cold caches */
    bool barrier;                   /* something besides data waits for the barrier (checksums): one before each clearing */
    uint32_t planted_bugs;          /* tests only: REPLICA_BUG_* */
};

struct replica_status {
    uint64_t size_bytes;     /* of the volume, as last sealed */
    uint64_t sealed_epoch;
    uint64_t incarnation;
    uint16_t owner;          /* that it is sealed to */
    bool failed;             /* metadata could not be written, or a flush failed: out of service until restart (I12) */
    bool waiting_for_lease;  /* a SEAL waits for a promise to run out */
    uint32_t intent_regions;
    uint32_t carry_regions;
    uint32_t cold_regions;   /* may have lost what was acknowledged, with a write cache */
    uint32_t operations;     /* under way */
};

/* Open a replica from the whole metadata file (metadata_file_bytes() of it). image is only read during the call.
 * 0; -EBADMSG: neither header slot is good: treat the disk as blank (I13); -ENOMEM; -EPROTONOSUPPORT: newer format. */
MUST_CHECK int replica_new(const struct replica_parameters *parameters, const uint8_t *image, uint64_t image_bytes,
                           struct replica **ret_replica);
/* Frees it as a crash would: no effects. NULL is fine. */
void replica_free(struct replica *replica);
/* One event. -EPROTO: the message was malformed and ignored. */
int replica_step(struct replica *replica, const struct mirror_event *event, uint64_t now_us, struct mirror_effects *out);
/* The data device has this many bytes now; a volume that grew beyond it is refused until then. */
void replica_set_room(struct replica *replica, uint64_t data_bytes);
/* When the next TICK is wanted, UINT64_MAX: not at all. */
uint64_t replica_next_tick(const struct replica *replica);
void replica_get_status(const struct replica *replica, struct replica_status *ret_status);

#endif
