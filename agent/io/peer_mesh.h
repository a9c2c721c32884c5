/* The links of one node to its peers on one channel: dialling, accepting, authentication, heartbeats, frames.
 *
 * A mesh belongs to one libuv loop; all calls except peer_mesh_adopt() are made, and all callbacks arrive, on it.
 * Callbacks never come inside a call of this API. In a callback every call is allowed, peer_mesh_close() included.
 *
 * Links are TCP with TLS 1.3 keyed by the cluster key (see peer_session.h), one per pair of nodes and channel. The node
 * with the lower uuid dials at once, the other only when no link has come up after a while; if both did, the one dialled
 * by the lower uuid stays. A peer that started anew (other boot) replaces its old link.
 *
 * Peers: the set of known ones (peer_mesh_set_peers) has nodeids; these are dialled, and kept connected. On the CONTROL
 * channel a node that holds the key but is not in the set (a newcomer, or one of another cluster) is up as well, with
 * nodeid 0, until it is closed or becomes known. On the DATA channel only known peers of our cluster are let in.
 *
 * Order: frames to one peer arrive in the order sent, or the link goes down. What was sent and not answered when a link
 * goes down may or may not have been received. Frames sent inside up() arrive before the first heartbeat answer of that
 * link, and what is sent before an answer arrives before it: a member can so tell an owner that it is sealed before any
 * later answer could prolong the owner's lease (I7). */
#ifndef DIRECTOR_AGENT_IO_PEER_MESH_H
#define DIRECTOR_AGENT_IO_PEER_MESH_H

#include "agent/io/peer_buffer.h"
#include "agent/io/peer_hello.h"
#include <sys/socket.h>
#include <sys/uio.h>
#include <uv.h>

#define PEER_QUEUE_DEFAULT_BYTES     (64u << 20)
#define PEER_HEARTBEAT_CONTROL_MS    200u
#define PEER_HEARTBEAT_DATA_MS       50u
#define PEER_SILENCE_CONTROL_MS      3000u
#define PEER_SILENCE_DATA_MS         2000u

struct peer_mesh;
struct peer; /* a node with a link that is up; valid from up() until down() returns */

struct peer_mesh_callbacks {
    /* A link is up; peer_nodeid() is 0 for a stranger. hello is valid during the call; peer_hello() later. */
    void (*up)(struct peer *peer, const struct peer_hello *hello, void *context);
    /* The peer, still up, was given a nodeid or another one (peer_mesh_set_peers), or introduced itself anew
     * (peer_mesh_set_hello there). May be NULL. */
    void (*changed)(struct peer *peer, const struct peer_hello *hello, void *context);
    /* The link is gone: reason is a negative errno, words say what the peer did or what befell it ("it has been silent for
     * 2000 ms"). -ESTALE: it started anew, up() follows. The peer is invalid afterwards. */
    void (*down)(struct peer *peer, int reason, const char *words, void *context);
    /* A frame. payload is NULL when it has none; it is the mesh's: take a reference to keep it. */
    void (*frame)(struct peer *peer, const struct peer_header *header, struct peer_buffer *payload, void *context);
    /* The peer answered the heartbeat that we sent at sent_us. May be NULL. */
    void (*heartbeat_acked)(struct peer *peer, uint64_t sent_us, void *context);
    /* We are about to answer a heartbeat of the peer; answered_us is now. Frames sent here go before the answer.
     * May be NULL. */
    void (*heartbeat_answered)(struct peer *peer, uint64_t answered_us, void *context);
    /* Something an operator may want to read: a connection refused or dropped before it was up, an address that cannot be
     * resolved. A complete sentence, at most one per cause, host and ten seconds. May be NULL. */
    void (*error)(int code, const char *words, void *context);
};

struct peer_mesh_config {
    uv_loop_t *loop;
    enum peer_channel channel;
    const uint8_t *psk;      /* 32 bytes of key_peer_psk(); copied */
    struct peer_hello hello; /* node, boot, name, address, cluster...; channel and versions are set by the mesh */
    const struct peer_mesh_callbacks *callbacks; /* must outlive the mesh */
    void *context;
    unsigned heartbeat_ms; /* 0: the default of the channel */
    unsigned silence_ms;   /* a link that says nothing for so long is down; 0: the default of the channel */
    size_t queue_bytes;    /* per peer; 0: PEER_QUEUE_DEFAULT_BYTES */
};

struct peer_node {
    struct uuid uuid;
    uint16_t nodeid;
    char address[PEER_ADDRESS_SIZE];
};

struct peer_statistics {
    uint64_t frames_sent, frames_received;
    uint64_t bytes_sent, bytes_received; /* on the wire */
    uint64_t writes, reads;              /* system calls */
    size_t queued_bytes;
};

/* CLOCK_MONOTONIC in microseconds: the clock of all times here. */
uint64_t peer_clock_us(void);

/* 0 or negative errno with words. The mesh is the caller's, to be ended by peer_mesh_close(). */
MUST_CHECK int peer_mesh_new(const struct peer_mesh_config *config, struct peer_mesh **ret_mesh, struct error *error);
/* No callback comes after this call; closed (may be NULL) is called from the loop when everything is gone and freed.
 * Nobody may peer_mesh_adopt() any more. */
void peer_mesh_close(struct peer_mesh *mesh, void (*closed)(void *context), void *context);
/* Introduce ourselves so from now on (cluster formed, nodeid given, address changed); peers that are up are told. Node and
 * boot cannot change. */
void peer_mesh_set_hello(struct peer_mesh *mesh, const struct peer_hello *hello);
/* The known peers, replacing those known before; our own uuid among them is skipped. A stranger that is up and now listed
 * keeps its link and gets changed(); one no longer listed is closed. -ENOMEM leaves the old set. */
MUST_CHECK int peer_mesh_set_peers(struct peer_mesh *mesh, const struct peer_node *nodes, size_t count);
/* Addresses to dial without knowing who is there (seeds, what discovery found), kept up like known peers; replaces the
 * seeds before. Links that are up stay. CONTROL channel only. -ENOMEM leaves the old ones. */
MUST_CHECK int peer_mesh_set_seeds(struct peer_mesh *mesh, const char *const *addresses, size_t count);
/* Any thread. Take over an accepted connection whose preamble was read (see peer_listener.h). */
void peer_mesh_adopt(struct peer_mesh *mesh, int fd);

/* Send one frame. header->payload_bytes is set from iov; payload_crc is the caller's (0: none, TLS protects the bytes).
 * All is copied (encrypted) before return, and written at the end of the loop's turn, or
 * before when it is much. -EAGAIN: the queue of that peer is full,
 * -EMSGSIZE, -ENOMEM, -ENOTCONN (the link is going down). */
MUST_CHECK int peer_send(struct peer *peer, const struct peer_header *header, const struct iovec *iov, unsigned iov_count);
/* The same by nodeid; -ENOTCONN when that one is not up. */
MUST_CHECK int peer_mesh_send(struct peer_mesh *mesh, uint16_t nodeid, const struct peer_header *header,
                              const struct iovec *iov, unsigned iov_count);
/* Close the link, telling the peer why; down() follows. A known peer is dialled again. words NULL: silently. */
void peer_close(struct peer *peer, const char *words);

/* The peer that is up with this nodeid (not 0) or uuid, or NULL. One that peer_close() was called on is not found. */
struct peer *peer_mesh_find(struct peer_mesh *mesh, uint16_t nodeid);
struct peer *peer_mesh_find_uuid(struct peer_mesh *mesh, const struct uuid *uuid);
/* All that are up: start with NULL; NULL at the end. */
struct peer *peer_mesh_next(struct peer_mesh *mesh, struct peer *peer);
/* When something authentic last came from it, whether or not it is up now; 0 = never. */
uint64_t peer_mesh_last_heard_us(struct peer_mesh *mesh, uint16_t nodeid);

uint16_t peer_nodeid(const struct peer *peer);
const struct peer_hello *peer_hello(const struct peer *peer);
/* The lower of both sides' newest versions. */
uint32_t peer_version(const struct peer *peer);
/* The address of the other end of the link, as text. */
const char *peer_remote(const struct peer *peer);
uint64_t peer_last_heard_us(const struct peer *peer);
void peer_statistics(const struct peer *peer, struct peer_statistics *ret_statistics);
/* The user's own pointer; kept while the peer is up, NULL at up(). */
void peer_set_context(struct peer *peer, void *context);
void *peer_context(const struct peer *peer);

#endif
