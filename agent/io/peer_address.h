/* Addresses of peers as text: "192.0.2.1", "192.0.2.1:7600", "fe80::1%eth0", "[fe80::1%eth0]:7600", "host", "host:7600". */
#ifndef DIRECTOR_AGENT_IO_PEER_ADDRESS_H
#define DIRECTOR_AGENT_IO_PEER_ADDRESS_H

#include "agent/io/peer_hello.h"
#include <sys/socket.h>

/* Split text into host and port (default_port when it names none). -EINVAL when it is no address. */
MUST_CHECK int peer_address_split(const char *text, uint16_t default_port, char ret_host[static PEER_ADDRESS_SIZE],
                                  uint16_t *ret_port);
/* A numeric host; -EINVAL when it is a name that must be looked up. Never blocks. */
MUST_CHECK int peer_address_numeric(const char *host, uint16_t port, struct sockaddr_storage *ret_address,
                                    socklen_t *ret_size);
/* "host:port"; "?" when the family is unknown. */
void peer_address_format(const struct sockaddr *address, char to[static PEER_ADDRESS_SIZE]);

#endif
