/* One iSCSI connection, which is also one session (MaxConnections is 1, ErrorRecoveryLevel 0): bytes in, bytes out, next
 * deadline. RFC 7143. No sockets, no clock.
 *
 *     accept -> SECURITY <-> OPERATIONAL -> FULL_FEATURE -> (logout, error, drop) -> failed
 *
 * S1  A PDU that cannot be right ends this connection (input returns -EPROTO) and nothing else.
 * S2  Bounds: ISCSI_WINDOW commands, ISCSI_CONTROLS_MAX other replies, ISCSI_SLOTS PDUs under transmission; beyond them
 *     input is refused until output has drained (wants_input), never queued.
 * S3  StatSN is given at emission, in the order of transmission.
 * S4  A buffer is freed after the last byte of the PDU that points into it was sent.
 *
 * The shell reads with readv() into {direct place, shared buffer} and writes what output() lists with one writev(). */
#ifndef DIRECTOR_TARGET_CORE_ISCSI_CONNECTION_H
#define DIRECTOR_TARGET_CORE_ISCSI_CONNECTION_H

#include "target/core/iscsi.h"
#include "target/core/iscsi_text.h"
#include "target/core/target.h"

#define ISCSI_WINDOW              128u    /* commands of one session under way */
#define ISCSI_IMMEDIATE_EXTRA     16u     /* immediate commands beyond the window */
#define ISCSI_CONTROLS_MAX        64u
#define ISCSI_SLOTS               48u
#define ISCSI_TASK_BUCKETS        64u
#define ISCSI_RECEIVE_MAX_BYTES   262144u /* our MaxRecvDataSegmentLength */
#define ISCSI_LOGIN_SEGMENT_BYTES 8192u   /* §13.12: the limit before negotiation */
#define ISCSI_FIRST_BURST_BYTES   262144u
#define ISCSI_MAX_BURST_BYTES     1048576u
#define ISCSI_R2T_MAX             8u
#define ISCSI_DIRECT_BYTES        16384u  /* data segments with more to come are read straight into place */

/* What all connections of a server share. */
struct iscsi_environment {
    struct target *target;
    uint32_t nop_interval_ms, nop_timeout_ms, login_timeout_ms;
    uint16_t next_tsih;
    struct iscsi_task *free_tasks; /* kept for the next ones */
    unsigned free_count;
    struct list waiting; /* iscsi_task.item.link: commands that wait for memory */
};

struct iscsi_parameters { /* negotiated; RFC 7143 §13 */
    bool header_digest, data_digest, initial_r2t, immediate_data;
    uint32_t send_segment_bytes; /* the initiator's MaxRecvDataSegmentLength */
    uint32_t max_burst_bytes, first_burst_bytes, max_outstanding_r2t;
};

/* A place in the queue of things to send. */
struct iscsi_item {
    struct list link;
    bool is_task, queued;
};

enum iscsi_task_state {
    ISCSI_TASK_COLLECTING, /* data-out is coming */
    ISCSI_TASK_WAITING,    /* for memory */
    ISCSI_TASK_EXECUTING,  /* in the target */
    ISCSI_TASK_REPLYING,   /* data-in and status are going out */
};

struct iscsi_task {
    struct target_task target; /* first */
    struct iscsi_item item;
    struct list link, bucket_link; /* in connection->tasks and ->buckets[] */
    struct iscsi_connection *connection; /* NULL: it ended before the task did */
    struct iscsi_environment *environment;
    enum iscsi_task_state state;
    uint32_t itt, expected_bytes;
    bool reads, unsolicited, discards, counted;
    uint32_t wanted_bytes;   /* data-out to collect */
    uint32_t received_bytes; /* in order */
    uint32_t asked_bytes;    /* by R2T, or unsolicited */
    uint32_t sequence_end;   /* where the current data-out sequence has to end */
    uint32_t r2t_sn, r2t_outstanding, data_sn_in;
    uint32_t data_sn, sent_bytes, send_bytes, burst_sent;
    struct iscsi_task *next_free;
    uint8_t sense_segment[2 + SCSI_SENSE_MAX_BYTES];
};

/* A reply that is no task's: NOP-In, login, text, ... */
struct iscsi_control {
    struct iscsi_item item;
    uint8_t bhs[ISCSI_BHS_BYTES];
    bool plain;          /* no digests: login */
    bool takes_stat_sn;
    uint32_t data_bytes;
    uint8_t data[];
};

struct iscsi_slot {
    uint8_t head[ISCSI_BHS_BYTES + ISCSI_DIGEST_BYTES];
    uint8_t tail[8]; /* padding and data digest */
    const uint8_t *data;
    uint32_t head_bytes, data_bytes, tail_bytes;
    struct iscsi_task *task;       /* ends with this slot, or NULL */
    struct iscsi_control *control; /* likewise */
};

enum iscsi_input_phase { ISCSI_INPUT_HEADER, ISCSI_INPUT_DATA, ISCSI_INPUT_TAIL };

struct iscsi_connection {
    struct iscsi_environment *environment;
    /* The shell's: output has come up, or failed was set, outside of a call from it. */
    void (*changed)(struct iscsi_connection *connection);
    char local[80], peer[80]; /* "address:port" */

    uint8_t stage; /* enum iscsi_stage */
    bool failed;   /* close at once */
    bool closing;  /* close when output is drained */
    bool discovery, session_open, leading, login_failed;
    struct target_session session;
    uint16_t tsih, cid;
    struct iscsi_parameters parameters;
    uint32_t exp_cmd_sn, max_cmd_sn, stat_sn;
    unsigned in_flight;
    uint64_t commands, read_bytes, written_bytes;

    /* Login and text. */
    struct iscsi_text text_in, text_out;
    uint32_t text_sent, text_tag;
    bool sent_portal_group, sent_segment_length;

    /* Input. */
    enum iscsi_input_phase phase;
    uint8_t header[ISCSI_BHS_BYTES + ISCSI_AHS_MAX + ISCSI_DIGEST_BYTES];
    uint32_t header_have, header_want;
    uint32_t data_want, data_have; /* of the segment, without padding */
    uint8_t tail[8];
    uint32_t tail_want, tail_have;
    uint8_t *data_to;   /* NULL: discard */
    uint32_t data_room; /* what is beyond is discarded */
    uint32_t data_crc;
    struct iscsi_task *data_task;
    uint8_t *control_data; /* data segment of a PDU that is not a task's */

    /* Output. */
    struct list queue; /* iscsi_item.link */
    struct iscsi_slot slots[ISCSI_SLOTS];
    unsigned slot_first, slot_count;
    size_t sent_of_first;
    unsigned controls;

    struct list tasks, buckets[ISCSI_TASK_BUCKETS];
    struct list functions; /* task management under way */

    /* Time. */
    uint64_t opened_ms, heard_ms, now_ms;
    bool ping_outstanding;
};

void iscsi_environment_init(struct iscsi_environment *environment, struct target *target);
/* No connection and no task may be left. */
void iscsi_environment_done(struct iscsi_environment *environment);

/* Buffers may have come back: commands that wait for memory go on as far as it reaches. Called by the end of every command
 * of a connection; the shell calls it once a turn, since commands of other nodes give memory back too. */
void iscsi_memory_available(struct iscsi_environment *environment);

/* changed, local and peer are set by the caller before. */
void iscsi_connection_init(struct iscsi_connection *connection, struct iscsi_environment *environment, uint64_t now_ms);
/* End the session and forget what is queued. Tasks in the block layer go on without it. */
void iscsi_connection_done(struct iscsi_connection *connection);

/* Bytes came. 0, or a negative errno: close (S1). */
MUST_CHECK int iscsi_connection_input(struct iscsi_connection *connection, const uint8_t *bytes, size_t size,
                                      uint64_t now_ms);
/* Where the next bytes belong when they are the rest of a long data segment. False: use a buffer of your own. */
bool iscsi_connection_direct(struct iscsi_connection *connection, struct iovec *ret_place);
/* size bytes were read into that place. As input. */
MUST_CHECK int iscsi_connection_direct_done(struct iscsi_connection *connection, size_t size, uint64_t now_ms);
bool iscsi_connection_wants_input(const struct iscsi_connection *connection);

/* What to send, at most max (>= 3 * ISCSI_SLOTS for all of it) pieces; 0: nothing. Valid until sent(). */
unsigned iscsi_connection_output(struct iscsi_connection *connection, struct iovec *iov, unsigned max);
void iscsi_connection_sent(struct iscsi_connection *connection, size_t size);

/* Keep-alive and time-outs, about once a second. 0, or -ETIMEDOUT: close. */
MUST_CHECK int iscsi_connection_tick(struct iscsi_connection *connection, uint64_t now_ms);

#endif
