/* The iSCSI target of one node, on a libuv loop: portals, sessions, logical units and where their owner is.
 *
 * Model. Every node exports every logical unit (LU) of the cluster with the same identity. For each LU this node
 * knows one of three states (enum target_lu_state):
 *   ACTIVE      this node owns the LU: its device server runs here, on a block_device;
 *   FORWARD     another node owns it: commands go there over the peer link and their replies come back;
 *   TRANSITION  nobody owns it now: commands are held up to hold_ms, then answered NOT READY (02/04/0A).
 * The state may change at any time with commands in flight: held ones go on at once, reads that a dead owner never
 * answered are sent again, other commands that may have been executed end ABORTED COMMAND so that the initiator
 * decides (nothing is executed twice behind its back).
 *
 * Ports. A node is one target port group (ALUA) and one iSCSI portal group; group id, portal group tag and relative
 * target port id are all the node id, so they are unique in the cluster.
 *
 * Threads: everything here runs on the loop given to target_server_new(), and so do all callbacks. No call blocks.
 * Errors: 0 or a negative errno; struct error gets words where an operator may read them. */
#ifndef DIRECTOR_TARGET_IO_TARGET_SERVER_H
#define DIRECTOR_TARGET_IO_TARGET_SERVER_H

#include "director/base/common.h"
#include "director/base/error.h"
#include "director/base/uuid.h"
#include "proto/peer.h"
#include "target/core/target_types.h"
#include <director/block_device.h>
#include <stdbool.h>
#include <uv.h>

struct target_server;

struct target_server_options {
    uv_loop_t *loop;
    uint16_t nodeid;                                /* 1..65535: this node's group, portal group tag and port id */
    const struct target_forward_operations *forward; /* may be NULL: no forwarding, FORWARD behaves as TRANSITION */
    void *forward_context;
    /* Commit the reservations (at most SCSI_RESERVATIONS_BYTES_MAX bytes, read during the call) of an LU that this node owns in
     * this epoch, in place of those of the version: PERSISTENT RESERVE OUT, RESERVE and RELEASE are answered when
     * target_server_set_reservations() brings them back (I14). Asked again every second until then. NULL: no cluster, they are in
     * force at once and in this node's memory only. */
    void (*commit)(void *context, uint64_t volume_id, uint64_t epoch, uint64_t version, const uint8_t *bytes, uint32_t size);
    void *commit_context;
    /* Bounds; 0 means the default. */
    uint32_t sessions_max;     /* 1024 sessions; a connection beyond it is closed at accept */
    uint64_t memory_max_bytes; /* 64 MiB of data buffers; beyond it commands wait or get TASK SET FULL */
    uint32_t hold_ms;          /* 20000: how long commands wait for an owner */
    uint32_t nop_interval_ms;  /* 5000: a quiet connection is asked by NOP-In */
    uint32_t nop_timeout_ms;   /* 10000: and dropped when it does not answer */
    uint32_t login_timeout_ms; /* 10000: from accept to full feature phase */
};

/* Make a server without portals, targets or LUs. *ret_server is the caller's until target_server_close(). The options
 * are copied; forward operations must outlive the server. -EINVAL, -ENOMEM or what libuv says. */
MUST_CHECK int target_server_new(const struct target_server_options *options, struct target_server **ret_server);

/* Drop all connections, wait for commands in the devices, free everything; then closed(context), once, from the loop.
 * Block devices stay the caller's, who closes them (before or after). */
void target_server_close(struct target_server *server, void (*closed)(void *context), void *context);

/* Listen on a numeric IPv4 or IPv6 address ("0.0.0.0", "::1"). port 0 takes a free one; *ret_port (may be NULL) tells
 * which. May be called several times for several portals. -EADDRINUSE and others, with words in error. */
MUST_CHECK int target_server_listen(struct target_server *server, const char *address, uint16_t port, uint16_t *ret_port,
                                    struct error *error);

/* This node takes no part for now and knows that others serve: what would be held here for an owner is answered NOT READY,
 * TARGET PORT IN UNAVAILABLE STATE (02/04/0C), so that initiators take another path, and its group is reported so. */
void target_server_set_apart(struct target_server *server, bool apart);
/* All portals of the cluster: what SendTargets lists and REPORT TARGET PORT GROUPS knows. Copied. Several portals may
 * have the same nodeid. alive=false: the group is reported UNAVAILABLE and SendTargets leaves the portal out.
 * A difference raises UNIT ATTENTION ASYMMETRIC ACCESS STATE CHANGED for every nexus. -EINVAL beyond TARGET_PORTS_MAX. */
MUST_CHECK int target_server_set_ports(struct target_server *server, const struct target_port *ports, unsigned count);

/* Create the LU of a volume in state TRANSITION, or update one that exists: a new size raises CAPACITY DATA HAS CHANGED.
 * -EINVAL for block sizes other than 512 and 4096 or a size that is no multiple; uuid and block size never change. */
MUST_CHECK int target_server_put_lu(struct target_server *server, const struct target_lu_identity *identity);

/* Forget an LU: its LUNs disappear (UNIT ATTENTION REPORTED LUNS DATA HAS CHANGED), held and forwarded commands end
 * with LOGICAL UNIT NOT SUPPORTED. The device, if any, is not used any more once its requests completed. -ENOENT. */
int target_server_remove_lu(struct target_server *server, uint64_t volume_id);

/* Say where the LU's owner is.
 *   TARGET_LU_ACTIVE: owner is ignored, device must be open on this loop and stays the caller's. Between setting another
 *     state (or another device) and block_device_close() the caller need not wait: requests in flight complete by close.
 *   TARGET_LU_FORWARD: owner is the node id; device is NULL.
 *   TARGET_LU_TRANSITION: owner 0 or the last owner (it is reported as the group that is TRANSITIONING); device is NULL.
 * epoch is the volume's committed epoch; it travels with forwarded commands, and an owner answers "not the owner" to any
 * other epoch than its own, so that a command never reaches a device server of the past. -ENOENT, -EINVAL. */
MUST_CHECK int target_server_set_lu_state(struct target_server *server, uint64_t volume_id, enum target_lu_state state,
                                          uint16_t owner, uint64_t epoch, struct block_device *device);

/* Targets and their LUN maps. put_target is idempotent; remove_target drops the target's sessions (they may log in
 * nowhere). set_lun maps lun (0..TARGET_LUNS_MAX-1) to a volume whose LU exists; both raise REPORTED LUNS DATA HAS
 * CHANGED in open sessions. -ENOENT names what is missing; -EINVAL: no iSCSI name (RFC 7143 §4.2.7). */
MUST_CHECK int target_server_put_target(struct target_server *server, const char *iqn, struct error *error);
int target_server_remove_target(struct target_server *server, const char *iqn);
MUST_CHECK int target_server_set_lun(struct target_server *server, const char *iqn, uint16_t lun, uint64_t volume_id,
                                     struct error *error);
int target_server_clear_lun(struct target_server *server, const char *iqn, uint16_t lun);

/* A frame of type PEER_SCSI_FIRST..PEER_SCSI_LAST came from a node. payload is read during the call only. A malformed
 * frame is -EPROTO and changes nothing: the caller drops that peer link. */
MUST_CHECK int target_server_forward_receive(struct target_server *server, uint16_t from_nodeid,
                                             const struct peer_header *header, const void *payload);

/* The data link to a node went down, or its process is known dead: replies it owes will not come. Commands forwarded to
 * it are re-routed (reads) or end ABORTED COMMAND (others); nexuses that came through it stay, until the node says that
 * they are lost, or target_server_node_dead(). */
void target_server_node_down(struct target_server *server, uint16_t nodeid);
/* The node's process is gone for good (its sessions with it): I_T nexus loss for all nexuses that came through it. */
void target_server_node_dead(struct target_server *server, uint16_t nodeid);

/* The reservations of an LU as the cluster has committed them, canonical bytes under a version that grows with each change; size
 * 0 is the empty table. To be told on every node, before the state that follows it in the cluster's order, also as the outcome
 * of the commit option. An older version than the last is ignored. -ENOENT, -EPROTO for rubbish (nothing changes), -ENOMEM. */
MUST_CHECK int target_server_set_reservations(struct target_server *server, uint64_t volume_id, uint64_t version, const void *bytes,
                                              uint32_t size);

/* Live figures. Sessions are visited on this node only; the info is valid during the visit. */
void target_server_visit_sessions(struct target_server *server,
                                  void (*visit)(const struct target_session_info *info, void *context), void *context);
/* Drop a session by the id its info shows. -ENOENT. */
int target_server_drop_session(struct target_server *server, uint64_t session_id);
/* Commands that this node's portals received for an LU, and those it executed as owner. -ENOENT. */
int target_server_lu_stats(struct target_server *server, uint64_t volume_id, struct target_lu_stats *ret_stats);

#endif
