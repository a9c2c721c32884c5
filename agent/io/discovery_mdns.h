/* Announce ourselves and browse for peers by multicast DNS: libavahi-core embedded on a loop. Used by director-discovery only. */
#ifndef DIRECTOR_AGENT_IO_DISCOVERY_MDNS_H
#define DIRECTOR_AGENT_IO_DISCOVERY_MDNS_H

#include "agent/io/discovery_message.h"
#include <uv.h>

struct discovery_mdns;

struct discovery_mdns_callbacks {
    /* A peer with our tag was found or changed; at most 64 calls in 50 ms whatever the network says. */
    void (*peer)(const struct discovery_peer *peer, void *context);
    void (*gone)(const struct uuid *uuid, void *context);
    /* Avahi gave up; nothing more comes. */
    void (*failed)(const char *words, void *context);
};

/* Opens the sockets before it returns. interface: NULL or "" for all. 0 or negative errno. */
MUST_CHECK int discovery_mdns_new(uv_loop_t *loop, const char *interface, const char *tag, const struct discovery_peer *self,
                                  const struct discovery_mdns_callbacks *callbacks, void *context,
                                  struct discovery_mdns **ret_mdns);
/* Announce other facts. 0 or negative errno. */
MUST_CHECK int discovery_mdns_update(struct discovery_mdns *mdns, const struct discovery_peer *self);
/* Say goodbye and free; handles close in later turns of the loop. */
void discovery_mdns_free(struct discovery_mdns *mdns);

#endif
