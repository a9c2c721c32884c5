/* The one TCP port (7600) of the peer links. A connection begins with four bytes in clear: 'D', 'P', preamble version
 * (1), channel. That much is read here; then the connection goes to the mesh of its channel, on whatever loop that lives,
 * and TLS begins there. The preamble is a hint only: the channel is verified in the authenticated hello.
 * All calls on the listener's loop. */
#ifndef DIRECTOR_AGENT_IO_PEER_LISTENER_H
#define DIRECTOR_AGENT_IO_PEER_LISTENER_H

#include "agent/io/peer_mesh.h"

#define PEER_PREAMBLE_BYTES       4u
#define PEER_LISTENER_PENDING_MAX 64u   /* connections without a preamble yet; the oldest is dropped beyond */
#define PEER_LISTENER_PREAMBLE_MS 2000u /* and after this time */

struct peer_listener;

/* Listen on address:port; address NULL or "" means all (IPv6 and IPv4), port 0 any free one. meshes[channel] gets the
 * connections of the channel, NULL refuses them; the meshes must outlive the listener. Words name the address. */
MUST_CHECK int peer_listener_new(uv_loop_t *loop, const char *address, uint16_t port,
                                 struct peer_mesh *const meshes[static PEER_CHANNEL_COUNT],
                                 struct peer_listener **ret_listener, struct error *error);
uint16_t peer_listener_port(const struct peer_listener *listener);
/* Stop and free; closed (may be NULL) from the loop when done: only then may the meshes be closed. */
void peer_listener_close(struct peer_listener *listener, void (*closed)(void *context), void *context);

#endif
