#include "agent/api/request.h"

#include <errno.h>
#include <string.h>

static int check_text(const char *what, const char *text, size_t longest, struct error *error)
{
    size_t length = strnlen(text, longest + 1);
    if (length > longest)
        return error_set(error, -EINVAL, "%s is longer than %zu bytes", what, longest);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return error_set(error, -EINVAL, "%s holds a control character", what);
    return 0;
}

static int check_call(const Director__Call *call, struct error *error)
{
    int code = check_text("the path", call->path, API_PATH_MAX_BYTES, error);
    if (code == 0)
        code = check_text("the name", call->name, API_NAME_MAX_BYTES, error);
    if (code < 0)
        return code;
    if (call->path[0] != '/')
        return error_set(error, -EINVAL, "the path \"%.64s\" does not start with /", call->path);
    if (call->n_properties > API_PROPERTIES_MAX)
        return error_set(error, -EINVAL, "more than %u properties in one request", API_PROPERTIES_MAX);
    if (call->depth > API_DEPTH_MAX)
        return error_set(error, -EINVAL, "a depth of %u is more than %u", call->depth, API_DEPTH_MAX);
    for (size_t i = 0; i < call->n_properties && code == 0; i++) {
        code = check_text("a property's name", call->properties[i]->name, API_NAME_MAX_BYTES, error);
        if (code == 0)
            code = check_text("a property's value", call->properties[i]->value, API_VALUE_MAX_BYTES, error);
    }
    return code;
}

int api_request_decode(const uint8_t *payload, size_t size, Director__Call **ret_call, uint64_t *ret_id,
                       struct error *error)
{
    Director__Call *call = director__call__unpack(NULL, size, payload);
    *ret_id = 0;
    if (!call)
        return error_set(error, -EPROTO, "the frame of %zu bytes holds no request that can be understood", size);
    *ret_id = call->id;
    int code = check_call(call, error);
    if (code < 0) {
        director__call__free_unpacked(call, NULL);
        return code;
    }
    *ret_call = call;
    return 0;
}
