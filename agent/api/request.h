/* A Call as it came off the wire, checked before anything looks at it. Pure; fuzzed by tests/fuzz/api_frame_fuzz.c. */
#ifndef DIRECTOR_AGENT_API_REQUEST_H
#define DIRECTOR_AGENT_API_REQUEST_H

#include "director/base/error.h"
#include <proto/director.pb-c.h>

#define API_PATH_MAX_BYTES     1024u
#define API_NAME_MAX_BYTES     255u
#define API_VALUE_MAX_BYTES    4096u
#define API_PROPERTIES_MAX     64u
#define API_DEPTH_MAX          1000u

/* Decode a frame's payload. 0: *ret_call is the caller's (director__call__free_unpacked); strings are bounded and free of
 * control characters, path starts with "/". -EPROTO: it is no Call, the connection cannot be trusted any further.
 * -EINVAL: a Call with a wrong field; *ret_id is its id, to be answered, and the connection goes on. */
MUST_CHECK int api_request_decode(const uint8_t *payload, size_t size, Director__Call **ret_call, uint64_t *ret_id,
                                  struct error *error);

#endif
