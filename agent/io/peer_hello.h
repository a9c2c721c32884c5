/* How a node introduces itself on a peer link: PeerHello of proto/director.proto as a plain structure. */
#ifndef DIRECTOR_AGENT_IO_PEER_HELLO_H
#define DIRECTOR_AGENT_IO_PEER_HELLO_H

#include "director/base/error.h"
#include "director/base/uuid.h"
#include "proto/peer.h"

#define PEER_HELLO_MAX_BYTES 2048u
#define PEER_NAME_SIZE       64u
#define PEER_ADDRESS_SIZE    128u /* "192.0.2.1:7600", "[fe80::1%eth0]:7600", "host:7600" */
#define PEER_SOFTWARE_SIZE   32u

struct peer_hello {
    struct uuid cluster; /* zero: not yet formed */
    struct uuid node;
    uint16_t nodeid; /* what the node believes; 0: none yet. A mesh trusts its own list instead. */
    uint64_t boot;
    uint32_t channel;
    uint32_t version_min, version_max;
    char name[PEER_NAME_SIZE];
    char address[PEER_ADDRESS_SIZE]; /* where it listens */
    uint32_t node_count;             /* of its cluster */
    bool pristine;                   /* one node, no volumes: may dissolve */
    bool quorate;                    /* in a quorate view now */
    char software[PEER_SOFTWARE_SIZE];
};

/* Bytes written (at most PEER_HELLO_MAX_BYTES). */
size_t peer_hello_encode(const struct peer_hello *hello, uint8_t to[static PEER_HELLO_MAX_BYTES]);
/* -EPROTO with words when the bytes are no hello, a uuid or text has a wrong length, or a text is not printable. */
MUST_CHECK int peer_hello_decode(const void *bytes, size_t size, struct peer_hello *ret_hello, struct error *error);

#endif
