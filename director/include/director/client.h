/* libdirector: see and change a Director cluster from a program. The shell `director` uses nothing else.
 *
 * A handle is one connection to the agent of one node; every agent gives the same answers. All calls wait for their
 * answer up to the handle's timeout. The cluster is a tree of objects: /nodes/N, /nodes/N/stores/S, /volumes/V,
 * /volumes/V/replicas/N, /targets/IQN, /targets/IQN/luns/L, /plugins/P, /tasks/K, /events/I. An object has a kind, a one-line summary and
 * properties; all values are text (sizes as "10G", booleans as "yes" and "no").
 *
 * Errors: functions return 0 or a negative errno; director_error() then has one sentence for a person. -ENOENT: no such
 * object; -EEXIST; -EINVAL: a wrong name, property or value; -EBUSY: in use; -ENOSPC; -EAGAIN: the cluster is not
 * quorate; -ETIMEDOUT; -ECONNREFUSED: no agent there; -EACCES: not allowed to use its socket; -EUSERS: too many clients;
 * -ECONNRESET: the connection broke before the answer; -EPROTO: the other side does not speak this protocol;
 * -EMSGSIZE: the answer would be longer than DIRECTOR_FRAME_MAX_BYTES; -EOVERFLOW: a watcher lost events.
 *
 * Reconnecting: when the connection is found broken, a call first makes a new one. When it breaks while a call waits,
 * a call that only reads (list, get, status, describe) is repeated once on a new connection; a call that changes
 * something is never repeated: it fails with -ECONNRESET (or -ETIMEDOUT) and the change may or may not have been made.
 * A watch is never re-established: what happened meanwhile would be missed silently.
 *
 * Threads: one handle, watch or result is used by one thread at a time; different ones are independent. No global
 * state; SIGPIPE is never raised. */
#ifndef DIRECTOR_CLIENT_H
#define DIRECTOR_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define DIRECTOR_CLIENT_API __attribute__((visibility("default")))
#else
#define DIRECTOR_CLIENT_API
#endif

#define DIRECTOR_DEFAULT_SOCKET     "/run/director/director.sock"
#define DIRECTOR_FRAME_MAX_BYTES    (16u << 20)
#define DIRECTOR_DEFAULT_TIMEOUT_MS 30000
#define DIRECTOR_DEPTH_ALL          1000u

struct director;          /* a connection */
struct director_watch;    /* a stream of events */
struct director_result;   /* an answer, or one event */
struct director_object;   /* part of a result */
struct director_property; /* part of an object */

/* A property to create, set or act with. Both texts are the caller's. */
struct director_argument {
    const char *name;
    const char *value;
};

/* ---- connection ------------------------------------------------------------------------------------------------- */

/* Version of the library: "0.1.0". */
DIRECTOR_CLIENT_API const char *director_version(void);

/* Connect to the agent at socket_path; NULL means $DIRECTOR_SOCKET, and without it DIRECTOR_DEFAULT_SOCKET.
 * *ret_director is set also on failure (except -ENOMEM, where it is NULL), so that director_error() can say why:
 * always give it to director_close(). */
DIRECTOR_CLIENT_API int director_open(const char *socket_path, struct director **ret_director);
/* NULL is fine. Results stay valid. */
DIRECTOR_CLIENT_API void director_close(struct director *director);
/* How long a call waits for its answer, connecting included; negative: for ever. */
DIRECTOR_CLIENT_API void director_set_timeout(struct director *director, int timeout_ms);
/* One sentence about the last call on this handle that failed; "" when none did. Valid until the next call. */
DIRECTOR_CLIENT_API const char *director_error(const struct director *director);

/* ---- calls: *ret_result is set only on success and is the caller's until director_result_free(); NULL where it is
 * not wanted is allowed for create, set, delete and action ------------------------------------------------------------ */

/* The object at path, then what is below it, parents before children, depth levels deep (0 means 1,
 * DIRECTOR_DEPTH_ALL everything). full: with all properties, else only path, kind and summary. */
DIRECTOR_CLIENT_API int director_list(struct director *director, const char *path, unsigned depth, int full,
                                      struct director_result **ret_result);
/* The object at path with all its properties. */
DIRECTOR_CLIENT_API int director_get(struct director *director, const char *path,
                                     struct director_result **ret_result);
/* Health of the cluster (path "/") or of one object: lines for a person, and objects with what was judged. */
DIRECTOR_CLIENT_API int director_status(struct director *director, const char *path,
                                        struct director_result **ret_result);
/* What can be done at path: the object with every property it can have, then one object of kind "verb" for each further
 * verb ("create", "delete", "export", ...), whose properties are its arguments. */
DIRECTOR_CLIENT_API int director_describe(struct director *director, const char *path,
                                          struct director_result **ret_result);
/* Make name below path, e.g. "/volumes", "vol1". The result holds the new object. */
DIRECTOR_CLIENT_API int director_create(struct director *director, const char *path, const char *name,
                                        const struct director_argument *arguments, size_t count,
                                        struct director_result **ret_result);
/* Change properties of the object at path. The result holds the object as it is now. */
DIRECTOR_CLIENT_API int director_set(struct director *director, const char *path,
                                     const struct director_argument *arguments, size_t count,
                                     struct director_result **ret_result);
DIRECTOR_CLIENT_API int director_delete(struct director *director, const char *path,
                                        struct director_result **ret_result);
/* Do something that an object can do, e.g. "/volumes/vol1", "export". */
DIRECTOR_CLIENT_API int director_action(struct director *director, const char *path, const char *action,
                                        const struct director_argument *arguments, size_t count,
                                        struct director_result **ret_result);

/* ---- watching: on a connection of its own --------------------------------------------------------------------------- */

/* Get an event for each change at or below path, from now on. Errors are told by director_error(director). */
DIRECTOR_CLIENT_API int director_watch_open(struct director *director, const char *path,
                                            struct director_watch **ret_watch);
/* To poll for POLLIN; then call director_watch_next() with timeout 0 until it returns 0. */
DIRECTOR_CLIENT_API int director_watch_fd(const struct director_watch *watch);
/* 1: *ret_result is the next event, the caller's; 0: none came within timeout_ms (negative: wait for ever);
 * -EOVERFLOW: events were lost because they were not read quickly enough; -ECONNRESET: the agent went away. After an
 * error the watch is over: read the state anew and open another one. */
DIRECTOR_CLIENT_API int director_watch_next(struct director_watch *watch, int timeout_ms,
                                            struct director_result **ret_result);
/* One sentence about the last error of this watch. */
DIRECTOR_CLIENT_API const char *director_watch_error(const struct director_watch *watch);
/* NULL is fine. */
DIRECTOR_CLIENT_API void director_watch_close(struct director_watch *watch);

typedef int director_watch_callback(const struct director_result *event, void *context);
/* Watch path and call callback for each event, on this thread, until it returns other than 0 (which is then returned)
 * or an error ends the watch. The event is valid during the callback. */
DIRECTOR_CLIENT_API int director_watch(struct director *director, const char *path, director_watch_callback *callback,
                                       void *context);

/* ---- results: everything returned is part of the result and lives as long ------------------------------------------ */

/* NULL is fine. */
DIRECTOR_CLIENT_API void director_result_free(struct director_result *result);
/* A remark of the agent, "" when there is none. */
DIRECTOR_CLIENT_API const char *director_result_message(const struct director_result *result);
DIRECTOR_CLIENT_API size_t director_result_line_count(const struct director_result *result);
/* NULL when index is too high. */
DIRECTOR_CLIENT_API const char *director_result_line(const struct director_result *result, size_t index);
DIRECTOR_CLIENT_API size_t director_result_object_count(const struct director_result *result);
/* NULL when index is too high. */
DIRECTOR_CLIENT_API const struct director_object *director_result_object(const struct director_result *result,
                                                                         size_t index);

DIRECTOR_CLIENT_API const char *director_object_path(const struct director_object *object);
/* "cluster", "folder", "node", "store", "volume", "replica", "target", "lun", "session", "plugin", "verb". */
DIRECTOR_CLIENT_API const char *director_object_kind(const struct director_object *object);
DIRECTOR_CLIENT_API const char *director_object_summary(const struct director_object *object);
DIRECTOR_CLIENT_API int director_object_has_children(const struct director_object *object);
/* In an event: the object is gone. */
DIRECTOR_CLIENT_API int director_object_deleted(const struct director_object *object);
/* Of a verb: ask a person first. */
DIRECTOR_CLIENT_API int director_object_destructive(const struct director_object *object);
DIRECTOR_CLIENT_API size_t director_object_property_count(const struct director_object *object);
/* NULL when index is too high. */
DIRECTOR_CLIENT_API const struct director_property *director_object_property(const struct director_object *object,
                                                                             size_t index);
/* The value of the property with this name; NULL when there is none. */
DIRECTOR_CLIENT_API const char *director_object_value(const struct director_object *object, const char *name);

DIRECTOR_CLIENT_API const char *director_property_name(const struct director_property *property);
DIRECTOR_CLIENT_API const char *director_property_value(const struct director_property *property);
/* "string", "size", "number", "bool" or "time". */
DIRECTOR_CLIENT_API const char *director_property_type(const struct director_property *property);
DIRECTOR_CLIENT_API const char *director_property_help(const struct director_property *property);
/* What it is when not given; "" when there is none. */
DIRECTOR_CLIENT_API const char *director_property_default(const struct director_property *property);
DIRECTOR_CLIENT_API int director_property_writable(const struct director_property *property);
DIRECTOR_CLIENT_API int director_property_required(const struct director_property *property);
/* The values it can have now, where they can be listed. NULL when index is too high. */
DIRECTOR_CLIENT_API const char *director_property_choice(const struct director_property *property, size_t index);

#ifdef __cplusplus
}
#endif
#endif
