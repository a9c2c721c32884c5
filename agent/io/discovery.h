/* Discovery of peers by multicast DNS (RFC 6762, RFC 6763). What it says is a hint, never trusted: whoever is found must
 * still prove the cluster key on the peer link. Never used to detect failures.
 *
 * mDNS itself runs in the helper process director-discovery, unprivileged, because it reads packets from anybody; the agent
 * talks to it over a socketpair and starts it again when it dies. Only nodes with the same tag (a hash of the cluster key)
 * are reported. All calls and callbacks in the loop's thread; callbacks are never made from inside a call. */
#ifndef DIRECTOR_AGENT_IO_DISCOVERY_H
#define DIRECTOR_AGENT_IO_DISCOVERY_H

#include "agent/io/discovery_message.h"
#include "director/base/error.h"
#include <uv.h>

struct discovery;

struct discovery_options {
    const char *helper;    /* NULL: director-discovery beside the running program, else from PATH */
    const char *interface; /* NULL or "": every one (tests should name one) */
    char tag[DISCOVERY_TAG_SIZE]; /* key_discovery_tag() */
    struct discovery_peer self; /* uuid, address, port, boot, formed, cluster, node_count */
    const char *seeds;     /* NULL or "address[:port],[v6]:port,...": reported at once as peers with a zero uuid */
    uint16_t seed_port;    /* where a seed names no port */
    /* New peer, or something of it changed. A peer is known by uuid; a seed by address and port. */
    void (*on_peer)(const struct discovery_peer *peer, void *context);
    /* It said goodbye or was not heard for its time to live. Not proof of death. */
    void (*on_gone)(const struct discovery_peer *peer, void *context);
    void *context;
};

/* Copies the options. -EINVAL with words for a bad seed; a helper that cannot be started is retried, not an error.
 * Free with discovery_close(). */
MUST_CHECK int discovery_start(uv_loop_t *loop, const struct discovery_options *options, struct discovery **ret_discovery,
                               struct error *error);
/* Announce new facts about ourselves: formed, cluster, node_count, address. The uuid may not change. */
void discovery_update(struct discovery *discovery, const struct discovery_peer *self);
/* Say goodbye, end the helper, free. closed (may be NULL) from the loop. No other callback comes afterwards. */
void discovery_close(struct discovery *discovery, void (*closed)(void *context), void *context);
/* How often the helper was started again, and whether it runs now: for status. */
unsigned discovery_restarts(const struct discovery *discovery);
bool discovery_running(const struct discovery *discovery);

#endif
