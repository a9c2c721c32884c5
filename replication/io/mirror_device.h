/* One replicated volume on one node: the protocol cores tied to a data device, a metadata file and the peer links.
 *
 * Every node that holds a replica of the volume opens one mirror_device, and so does an owner without one. It contains the
 * replica (when it has a data device) and the mirror, and is itself a struct block_device, kind "mirror", which serves when
 * this node is the committed owner and answers -ESTALE otherwise.
 *
 * Threads: everything on the loop given to mirror_device_open() (the I/O loop), except where a function says otherwise.
 * No locks. Callbacks come from the loop, never inside a call of this API.
 *
 * What the agent's engine does:
 *   1. VolumeCreate applied and a replica is ours: create the data place (plugin) and mirror_replica_create() with the
 *      committed incarnation, on a worker. Only then, or after VolumeIncarnation: when the metadata file of a replica that
 *      had been created is missing later, or open says -EBADMSG, the disk is blank. Then make it anew with a random
 *      incarnation and commit VolumeIncarnation first: a blank disk must never pass for the old member (I11).
 *   2. mirror_device_open(), then mirror_device_config() now and at every committed change of the volume.
 *   3. Feed links: link_up/link_down for every peer, mirror_pulses_*() for heartbeats of the DATA channel, receive() for frames 0x40..0x5f whose
 *      header.object is the volume, node_dead() when CPG tells that a process (boot id) is gone. All in the order in which the
 *      mesh reports them: FENCED and heartbeat answers travel on the same link, and I7 relies on their order.
 *   4. ask_isr: propose VolumeIsr{volume, expect_epoch, expect_version, isr}. When the mask lacks this node itself (its own
 *      disk failed) propose VolumePromote of a member in the mask instead. Asked again every second until the
 *      configuration changes; a refusal needs no answer.
 *   5. A volume grows in two phases: every node makes its data place larger and tells the mirror (mirror_device_data_grown());
 *      when all of the in-sync set have, a config of a newer epoch brings size_bytes. Before a device is opened, its data
 *      place must have the committed size. The metadata follow by themselves, with the first SEAL of that epoch.
 *   6. Hand mirror_device_block() to the target while this node is the owner. To move ownership: mirror_device_drain(),
 *      in drained() propose VolumePromote, and when that fails mirror_device_resume(). */
#ifndef DIRECTOR_REPLICATION_MIRROR_DEVICE_H
#define DIRECTOR_REPLICATION_MIRROR_DEVICE_H

#include "director/base/error.h"
#include "replication/core/mirror.h"
#include "replication/core/replica.h"
#include <uv.h>

struct mirror_device;
struct mirror_pulses;

/* What identifies a replica on disk. */
struct mirror_replica_identity {
    uint64_t volume;
    struct uuid volume_uuid;
    struct uuid node_uuid;
    uint64_t size_bytes;
    uint32_t replica_index;
    uint64_t incarnation; /* of this replica */
    /* Committed incarnations of all replicas at VolumeCreate. For a replica made later (a replaced disk) all zero. */
    uint64_t incarnations[MIRROR_REPLICAS_MAX];
    bool checksum; /* the data are all zeroes: make an empty file of checksums too. false: they are made from the data at open */
};

/* Make the metadata file of a fresh replica, durably. Blocks: on a worker thread. 0; -EEXIST: it is there (it is left alone;
 * see mirror_replica_check()); other negative errno with words. */
MUST_CHECK int mirror_replica_create(const char *metadata_path, const struct mirror_replica_identity *identity,
                                     struct error *error);
/* What a metadata file says. Blocks. 0, -ENOENT, -EBADMSG (both header slots bad: treat as blank), ... */
MUST_CHECK int mirror_replica_check(const char *metadata_path, struct metadata_header *ret_header, struct error *error);
/* Where the checksums of a replica are: beside its metadata, <name>.sums for <name>.meta. */
void mirror_replica_sums_path(const char *metadata_path, char *path, size_t size);
/* Remove the metadata file and the checksums; 0 also when it is not there. Blocks. */
MUST_CHECK int mirror_replica_remove(const char *metadata_path, struct error *error);

/* How frames reach other nodes. */
struct mirror_transport {
    void *context;
    /* Queue one frame; everything is copied before return. Frames to one node stay in order. Negative errno: not queued. */
    int (*send)(void *context, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov, unsigned iov_count);
    /* A frame could not be queued, or a peer sent nonsense: break the link (down, later up again). words for the log. */
    void (*reset)(void *context, uint16_t nodeid, const char *words);
};

struct mirror_device_callbacks {
    void *context;
    /* Commit this change of the in-sync set. reason is one lower-case phrase for the log and the event list. */
    void (*ask_isr)(void *context, struct mirror_device *device, uint64_t expect_epoch, uint64_t expect_version, uint8_t isr,
                    const char *reason);
    /* State, suspension or who is needed changed. May be NULL. */
    void (*state)(void *context, struct mirror_device *device, const struct mirror_status *status, const char *words);
    /* After mirror_device_drain(): nothing is under way, new requests are held. May be NULL. */
    void (*drained)(void *context, struct mirror_device *device);
};

struct mirror_device_options {
    uint64_t volume;
    struct uuid volume_uuid;
    uint64_t size_bytes;
    uint32_t block_bytes;  /* of the volume: 512 or 4096 */
    uint16_t nodeid;       /* this node */
    uint64_t boot;         /* of this process */
    struct block_device *data; /* the replica's disk, at least size_bytes; owned from a successful open on. NULL: none here */
    const char *metadata_path; /* NULL exactly when data is NULL */
    bool checksum; /* keep and verify checksums of the data (checksum_device.h). Opened without, those there are removed */
    struct mirror_transport transport;
    struct mirror_device_callbacks callbacks;
    struct mirror_pulses *pulses; /* heartbeats of the data links (mirror_pulse.h); outlives the device */
    uint64_t member_timeout_us; /* 0: default, see mirror.h */
    uint32_t requests_max;      /* 0: default */
    uint32_t intent_clear_ms;   /* 0: default */
    const struct uuid *machine; /* tests: which boot of the machine this is; NULL: the kernel's boot id */
};

struct mirror_device_status {
    struct mirror_status mirror;
    bool has_replica;
    struct replica_status replica;
    uint64_t reads, writes;            /* requests completed as owner */
    uint64_t read_bytes, written_bytes;
    uint64_t metadata_writes;          /* barriers of the metadata file */
    uint64_t checksum_errors;          /* blocks read here whose checksum was wrong, since it was opened */
    uint64_t checksum_lost;            /* checksums that were damaged themselves */
    uint32_t checksum_rebuild_regions; /* regions whose checksums are being made anew */
};

/* Home loop. Reads the metadata file (well under a MiB) before it returns. 0; -ENOENT, -EBADMSG: blank, see above;
 * -EMEDIUMTYPE: the file belongs to another volume or size; other negative errno with words. */
MUST_CHECK int mirror_device_open(uv_loop_t *loop, const struct mirror_device_options *options,
                                  struct mirror_device **ret_device, struct error *error);
/* Stop: requests held are answered -ECANCELED, then what is under way on the disk finishes, the data device and the
 * metadata file are closed and the device freed; then closed(context). Once. The transport is not used after this call. */
void mirror_device_close(struct mirror_device *device, void (*closed)(void *context), void *context);

/* The volume as a block device; valid until close. Its own close operation is mirror_device_close(). */
struct block_device *mirror_device_block(struct mirror_device *device);

/* The committed configuration; older ones are ignored. */
void mirror_device_config(struct mirror_device *device, const struct mirror_config *config);
/* How the memory of a received payload is kept beyond the call that brings it. */
struct mirror_payload_keeper {
    void *payload;
    void (*keep)(void *payload);    /* it must stay as it is until release */
    void (*release)(void *payload); /* once for each keep, on the loop; also after mirror_device_close() */
};

/* One frame of type 0x40..0x5f. Its data are used where they lie, kept by keeper; when that is NULL they are copied. Writes go
 * to the disk from there: without a copy when they are aligned as its geometry says. */
void mirror_device_receive(struct mirror_device *device, uint16_t nodeid, const struct peer_header *header,
                           const uint8_t *payload, const struct mirror_payload_keeper *keeper);
void mirror_device_link_up(struct mirror_device *device, uint16_t nodeid, uint64_t boot);
void mirror_device_link_down(struct mirror_device *device, uint16_t nodeid);
void mirror_device_node_dead(struct mirror_device *device, uint16_t nodeid, uint64_t boot);
/* The data device has a larger geometry now: the volume may grow up to there. */
void mirror_device_data_grown(struct mirror_device *device);
void mirror_device_drain(struct mirror_device *device);
void mirror_device_resume(struct mirror_device *device);
void mirror_device_get_status(const struct mirror_device *device, struct mirror_device_status *ret_status);
/* Online verify or scrub of the volume, at its owner; see mirror_check_start() in core/mirror.h for what they do and answer.
 * Progress and results: mirror_device_get_status(), mirror.check. */
MUST_CHECK int mirror_device_check_start(struct mirror_device *device, const struct mirror_check_options *options);
int mirror_device_check_stop(struct mirror_device *device);
/* One sentence on the state, for status lines: "serving, in sync on nodes 1 and 2". */
void mirror_device_describe(const struct mirror_device *device, char *text, size_t size);

/* CLOCK_MONOTONIC in microseconds. */
uint64_t mirror_clock_us(void);

#endif
