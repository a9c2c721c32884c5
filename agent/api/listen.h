/* Making the API's listening socket: ownership, mode and what to do with one left over. */
#ifndef DIRECTOR_AGENT_API_LISTEN_H
#define DIRECTOR_AGENT_API_LISTEN_H

#include "director/base/error.h"

/* A bound, not yet listening, non-blocking stream socket, or negative errno with words. group may be NULL. */
MUST_CHECK int api_listen_socket(const char *path, const char *group, struct error *error);

#endif
