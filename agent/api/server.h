/* The API server: a unix socket on which clients send framed Calls (proto/frame.h, proto/director.proto) and get Results.
 * It knows framing, bounds, watch subscriptions and whose answer goes where, and nothing of what the calls mean: each
 * Call goes to one handler, which answers now or later.
 *
 * Threads: everything on the loop's thread.
 * Bounds (all in struct api_server_options): clients, Calls under way and bytes queued per client, frame length. A client
 * at its Calls-under-way bound is not read until one is answered; a client too many gets one Result, -EUSERS, and is closed.
 * A malformed frame or Call gets one Result with id 0 (or the Call's) and -EPROTO or -EMSGSIZE and words, and only that
 * connection is dropped.
 *
 * Invariants: A1 every Call the handler was given is answered by exactly one api_call_reply/api_call_fail, and is valid
 * until then, also when its client is gone. A2 what is queued for a client is bounded. A3 a watcher that misses an event is
 * told so in its last Result and disconnected: no event is ever lost silently. */
#ifndef DIRECTOR_AGENT_API_SERVER_H
#define DIRECTOR_AGENT_API_SERVER_H

#include "director/base/common.h"
#include "director/base/error.h"
#include <proto/director.pb-c.h>
#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

struct api_server;
struct api_call;

struct api_server_options {
    const char *socket_path;      /* copied; an old socket nobody listens on is replaced */
    const char *group;            /* that may use it (mode 0660); NULL, or a group that does not exist: root alone, 0600 */
    unsigned max_clients;         /* 0: 64 */
    unsigned max_calls;           /* under way per client; 0: 16 */
    unsigned max_watches;         /* per client; 0: 16 */
    size_t max_request_bytes;     /* of a Call's frame; 0: 1 MiB */
    size_t max_queued_bytes;      /* of events to one client; 0: 1 MiB */
};

/* Called once for each Call (WATCH excepted: the server answers it). Answer inside or later. */
typedef void api_call_handler(struct api_call *call, void *context);

/* Listen. On success *ret_server is the caller's until api_server_close(). Errors: -EADDRINUSE when another process
 * listens there, or what bind(2) says; error has the words. */
MUST_CHECK int api_server_new(uv_loop_t *loop, const struct api_server_options *options, api_call_handler *handler,
                              void *context, struct api_server **ret_server, struct error *error);
/* Stop listening, remove the socket, drop all clients; then closed(context) (may be NULL) from the loop, once every call
 * given to the handler has been answered (A1). */
void api_server_close(struct api_server *server, void (*closed)(void *context), void *context);

/* The request; part of the call. Its path is never NULL; property names and values neither. */
const Director__Call *api_call_request(const struct api_call *call);
/* User id of the client's process, for the log. */
uid_t api_call_uid(const struct api_call *call);
/* The client is gone: the answer will go nowhere, so long work may stop. It must be answered all the same. */
bool api_call_gone(const struct api_call *call);

/* Answer and release the call. result is packed before this returns and stays the caller's; its id is set here. An answer
 * longer than a frame may be is turned into -EMSGSIZE with words. */
void api_call_reply(struct api_call *call, Director__Result *result);
/* Answer with an error (code < 0) or, with code 0, with a remark, and release the call. */
void api_call_fail(struct api_call *call, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Send event to every watcher whose path is path or above it. event stays the caller's. */
void api_server_publish(struct api_server *server, const char *path, Director__Result *event);
/* Clients now connected, for status. */
unsigned api_server_client_count(const struct api_server *server);

#endif
