/* What agent and director-discovery say to each other, and the TXT record on the network: one codec, both ways, bounded.
 * A message is one line of printable ASCII: a verb, then key=value fields, LF at the end. Pure. */
#ifndef DIRECTOR_AGENT_IO_DISCOVERY_MESSAGE_H
#define DIRECTOR_AGENT_IO_DISCOVERY_MESSAGE_H

#include "director/base/uuid.h"

#define DISCOVERY_TAG_SIZE      33  /* 32 hex digits and NUL: = KEY_TAG_TEXT_SIZE */
#define DISCOVERY_ADDRESS_SIZE  64  /* IPv4, or IPv6 with %interface, and NUL */
#define DISCOVERY_LINE_MAX      384 /* with LF */
#define DISCOVERY_PEERS_MAX     256 /* more are not looked at */
#define DISCOVERY_TXT_VERSION   1u

struct discovery_peer {
    struct uuid uuid;      /* zero: a seed, not yet known */
    char address[DISCOVERY_ADDRESS_SIZE];
    uint16_t port;
    uint64_t boot;         /* random for each start of the agent: a restart shows although mDNS gives no event */
    bool formed;           /* false: cluster is zero */
    struct uuid cluster;
    uint32_t node_count;   /* of its cluster; 0 when not formed */
};

enum discovery_verb {
    DISCOVERY_SELF, /* agent -> helper: announce this, show peers with this tag */
    DISCOVERY_PEER, /* helper -> agent: found or changed */
    DISCOVERY_GONE, /* helper -> agent: uuid only */
};

struct discovery_message {
    enum discovery_verb verb;
    char tag[DISCOVERY_TAG_SIZE]; /* SELF only */
    struct discovery_peer peer;
};

/* Length of the line with LF (NUL-terminated behind it), or -EINVAL (address or tag with foreign characters). */
MUST_CHECK int discovery_message_encode(const struct discovery_message *message, char line[static DISCOVERY_LINE_MAX + 1]);
/* Read one line without its LF. 0 or -EPROTO: unknown verb or key, a key twice, a missing or malformed value. */
MUST_CHECK int discovery_message_decode(const char *line, size_t length, struct discovery_message *ret_message);

/* One "key=value" of a TXT record (RFC 6763 §6.3) at a time. Unknown keys are ignored (newer versions may add some). */
struct discovery_txt {
    uint32_t version;
    char tag[DISCOVERY_TAG_SIZE];
    struct discovery_peer peer; /* without address and port */
    unsigned seen;              /* internal: which keys came */
};
void discovery_txt_init(struct discovery_txt *txt);
/* 0 or -EPROTO when a key that we know is malformed or comes twice. */
MUST_CHECK int discovery_txt_add(struct discovery_txt *txt, const void *pair, size_t size);
/* 0 when all that is needed came and fits together, else -EPROTO; -EPROTONOSUPPORT for another version. */
MUST_CHECK int discovery_txt_finish(const struct discovery_txt *txt);
/* The pairs that announce a peer with a tag: text of at most 63 bytes each, count DISCOVERY_TXT_PAIRS. */
#define DISCOVERY_TXT_PAIRS     7
#define DISCOVERY_TXT_PAIR_SIZE 64
void discovery_txt_format(const struct discovery_peer *peer, const char *tag,
                          char pairs[static DISCOVERY_TXT_PAIRS][DISCOVERY_TXT_PAIR_SIZE]);

/* Valid IPv4 or IPv6 literal (with %interface), fit for our lines. */
bool discovery_address_valid(const char *address);
/* Same facts (all fields). */
bool discovery_peer_equal(const struct discovery_peer *a, const struct discovery_peer *b);

#endif
