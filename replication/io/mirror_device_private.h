/* Inside of the mirror device, shared by mirror_device.c (opening, the agent's side, closing), mirror_device_run.c (events
 * into the cores, effects out of them), mirror_device_request.c (the block device above), mirror_device_disk.c (the data
 * device below), mirror_device_frame.c (to and from the nodes) and mirror_device_status.c. */
#ifndef DIRECTOR_REPLICATION_MIRROR_DEVICE_PRIVATE_H
#define DIRECTOR_REPLICATION_MIRROR_DEVICE_PRIVATE_H

#include "replication/core/message.h"
#include "replication/io/data.h"
#include "replication/io/metadata_file.h"
#include "replication/io/mirror_device.h"
#include "replication/io/mirror_pulse.h"
#include <errno.h>
#include <string.h>

#define SEND_IOV_MAX      1024u
#define BUFFERS_MAX       8u /* for copies between members, at a time */
#define MAX_TRANSFER      (1u << 20)
#define MAX_ZEROES        (64u << 20)
#define ZERO_PIECE        65536u
#define TICK_FLOOR_MS     1u

/* One request of the block device. */
struct device_request {
    struct mirror_request request;
    struct mirror_device *device;
    struct device_request *next; /* free, or waiting to be told */
    struct block_request *block;
    struct data *data;
    bool completed, data_gone;
    unsigned disk_operations; /* on the original memory */
};

/* One operation on the data device, in pieces as its geometry wants. */
struct disk_operation {
    struct block_request request;
    struct mirror_device *device;
    struct disk_operation *next;
    uint64_t token;
    struct data *data;
    size_t data_offset;
    bool brought; /* the data came from us, for a read of another node */
    struct device_request *original;
    uint64_t offset, length, done; /* done: bytes */
    enum block_operation operation;
    uint32_t flags;
    uint64_t piece;
    bool sparse; /* a write whose blocks of zeroes become holes */
    bool emulate, barrier;
    struct iovec *iov;
    unsigned iov_capacity;
};

/* A frame to ourselves. */
struct loop_frame {
    struct loop_frame *next;
    struct peer_header header;
    uint32_t body_bytes, data_bytes;
    struct mirror_data data;
    uint8_t *body; /* small, or allocated */
    uint8_t small[MIRROR_BODY_MAX];
};

/* What is known of one node; a change number is that of mirror_pulses.changes when it was noted. */
struct mirror_pulse {
    uint16_t nodeid;
    uint64_t answered_us, answered_change;             /* when we sent the newest heartbeat that it answered */
    uint64_t answered_by_us_us, answered_by_us_change; /* when we last answered one of its */
};

struct mirror_pulses {
    uint64_t changes;
    struct mirror_pulse *nodes;
    unsigned count, capacity;
    struct list busy; /* devices with requests under way */
};

struct mirror_device {
    struct block_device block;
    struct mirror_device_options options;
    uv_loop_t *loop;
    uv_timer_t timer;
    uv_idle_t teller;
    uint64_t timer_at_us, now_us;
    struct list busy;      /* in options.pulses->busy, while requests_busy */
    uint64_t pulses_heard; /* options.pulses->changes that the cores have been told of */
    struct mirror *mirror;
    struct replica *replica;
    struct metadata_file metadata;
    struct mirror_effects effects;
    struct block_device *checksum; /* = options.data when it is the filter */
    struct mirror_pool pool;
    struct mirror_config config;
    bool running, closing, closed_data;
    struct loop_frame *frames, **frames_end, *frames_free;
    struct device_request *requests_free, *told_first, **told_end;
    struct disk_operation *disk_free;
    unsigned disk_busy, requests_busy;
    bool tell_ask, tell_state, tell_drained;
    uint8_t ask_isr;
    uint64_t ask_epoch, ask_version;
    enum mirror_ask_reason ask_reason;
    uint8_t *zeroes;
    uint64_t reads, writes, read_bytes, written_bytes, metadata_writes;
    void (*closed)(void *context);
    void *closed_context;
    unsigned handles;
};

/* mirror_device_run.c */
/* One event to one core; -EPROTO when it was a malformed message. device_step() only inside of a run. */
int device_step(struct mirror_device *d, bool member, const struct mirror_event *event);
int device_feed(struct mirror_device *d, bool member, const struct mirror_event *event);
void device_run(struct mirror_device *d, bool member, struct mirror_event *event);
void device_run_both(struct mirror_device *d, struct mirror_event *event);
/* Tell the cores which heartbeats were answered meanwhile. */
void device_pulse(struct mirror_device *d);
void device_timer_set(struct mirror_device *d);
/* See that what was noted is told on the next turn of the loop. */
void device_tell(struct mirror_device *d);

/* mirror_device_request.c */
extern const struct block_device_operations device_operations;
extern const struct mirror_data_operations device_data_operations; /* context to be set */
void device_request_complete(struct device_request *r, int status);
/* Its answer is known, and nobody uses the caller's memory any more: tell. */
void device_request_try_finish(struct device_request *r);
void device_request_data_released(void *context);

/* mirror_device_disk.c */
/* Effect DISK_READ, DISK_WRITE or DISK_FLUSH. */
void device_disk_start(struct mirror_device *d, const struct mirror_effect *effect);

/* mirror_device_digest.c */
/* Effect DISK_DIGEST. */
void device_digest_start(struct mirror_device *d, const struct mirror_effect *effect);

/* mirror_device_frame.c */
/* Effect SEND. */
void device_send(struct mirror_device *d, const struct mirror_effect *effect);
/* Hand over the frames to ourselves. */
void device_frames_run(struct mirror_device *d);

/* mirror_device.c */
void device_close_advance(struct mirror_device *d);

#endif
