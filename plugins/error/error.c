/* Filter error: lets chosen operations fail, to show what a failing disk does.
 *
 * One rule: which operations, which range, every how many of those that match, how often at all, with which errno, and
 * whether the lower device still carries the operation out. Rules add up by stacking. */
#include "plugins/common/filter.h"
#include "plugins/common/option.h"

#include <errno.h>
#include <string.h>

struct error_rule {
    uint32_t operations; /* bit per enum block_operation */
    int status;
    uint64_t from_bytes, length_bytes; /* length 0: to the end. A flush has no range: it always matches */
    uint64_t every;
    uint64_t count; /* shots left; 0 when unlimited */
    bool unlimited;
    bool executed; /* carried out, then answered with the error */
};

struct error_filter {
    struct filter filter;
    struct error_rule rule;
    uint64_t matched;
};

static const struct {
    const char *name;
    uint32_t bits;
} error_operations[] = {
    {"none", 0},
    {"all", 0x3f},
    {"read", 1u << BLOCK_READ},
    {"write", 1u << BLOCK_WRITE},
    {"flush", 1u << BLOCK_FLUSH},
    {"zeroes", 1u << BLOCK_WRITE_ZEROES},
    {"unmap", 1u << BLOCK_UNMAP},
    {"compare_and_write", 1u << BLOCK_COMPARE_AND_WRITE},
};

static const struct {
    const char *name;
    int status;
} error_statuses[] = {
    {"EIO", -EIO},       {"ENOSPC", -ENOSPC}, {"EAGAIN", -EAGAIN},       {"ENOMEM", -ENOMEM},
    {"ESTALE", -ESTALE}, {"EINVAL", -EINVAL}, {"ECANCELED", -ECANCELED}, {"ENOTSUP", -ENOTSUP},
    {"EBADMSG", -EBADMSG},
};

/* "read,write" -> bits. */
static int error_parse_operations(const char *text, uint32_t *ret_bits)
{
    uint32_t bits = 0;
    for (const char *p = text;;) {
        size_t length = strcspn(p, ",");
        size_t i;
        for (i = 0; i < ARRAY_SIZE(error_operations); i++)
            if (strlen(error_operations[i].name) == length && strncmp(error_operations[i].name, p, length) == 0)
                break;
        if (i == ARRAY_SIZE(error_operations))
            return -EINVAL;
        bits |= error_operations[i].bits;
        if (!p[length])
            break;
        p += length + 1;
    }
    *ret_bits = bits;
    return 0;
}

static int error_parse_status(const char *text, int *ret_status)
{
    for (size_t i = 0; i < ARRAY_SIZE(error_statuses); i++) {
        if (strcmp(error_statuses[i].name, text) == 0) {
            *ret_status = error_statuses[i].status;
            return 0;
        }
    }
    return -EINVAL;
}

static int error_parse(const struct director_option *options, struct error_rule *rule,
                       struct director_plugin_error *error)
{
    const char *text = option_find(options, "operations");
    if (text && error_parse_operations(text, &rule->operations) < 0)
        return plugin_error_set(error, -EINVAL,
                                "error: operations must be none, all, or some of read,write,flush,zeroes,unmap,"
                                "compare_and_write, not \"%s\"",
                                text);
    text = option_find(options, "status");
    if (text && error_parse_status(text, &rule->status) < 0)
        return plugin_error_set(error, -EINVAL,
                                "error: status must be EIO, ENOSPC, EAGAIN, ENOMEM, ESTALE, EINVAL, ECANCELED, "
                                "ENOTSUP or EBADMSG, not \"%s\"",
                                text);
    int result = option_get_size(options, "from", &rule->from_bytes);
    if (result == 0)
        result = option_get_size(options, "length", &rule->length_bytes);
    if (result == 0)
        result = option_get_number(options, "every", &rule->every);
    if (result == 0 && option_find(options, "count")) {
        result = option_get_number(options, "count", &rule->count);
        rule->unlimited = rule->count == 0;
    }
    if (result == 0)
        result = option_get_bool(options, "executed", &rule->executed);
    if (result < 0 || rule->every == 0)
        return plugin_error_set(error, -EINVAL, "error: from, length, every (at least 1), count or executed makes no sense");
    return 0;
}

static bool error_rule_matches(const struct error_rule *rule, const struct block_request *request)
{
    if (!(rule->operations & 1u << request->operation))
        return false;
    if (request->operation == BLOCK_FLUSH)
        return true;
    if (request->offset_bytes + request->length_bytes <= rule->from_bytes)
        return false;
    return rule->length_bytes == 0 || request->offset_bytes < rule->from_bytes ||
           request->offset_bytes - rule->from_bytes < rule->length_bytes;
}

static void error_submit(struct block_device *device, struct block_request *request)
{
    struct error_filter *self = container_of(device, struct error_filter, filter.device);
    struct error_rule *rule = &self->rule;
    struct filter_op *op = filter_op_new(&self->filter, request);
    if (!op)
        return;
    bool shot = (rule->unlimited || rule->count > 0) && error_rule_matches(rule, request) &&
                ++self->matched % rule->every == 0;
    if (!shot) {
        filter_op_forward(op);
        return;
    }
    if (!rule->unlimited)
        rule->count--;
    if (rule->executed) {
        op->override_status = rule->status;
        filter_op_forward(op);
    } else {
        filter_op_finish(op, rule->status);
    }
}

static void error_close(struct block_device *device, void (*closed)(void *context), void *context)
{
    filter_close(&container_of(device, struct error_filter, filter.device)->filter, closed, context);
}

static const struct block_device_operations error_device_operations = {.submit = error_submit, .close = error_close,
                                                                       .refresh = filter_refresh};

static int error_open(struct uv_loop_s *loop, const char *path, struct block_device *lower,
                      const struct director_option *options, struct block_device **ret_device,
                      struct director_plugin_error *error)
{
    (void)path;
    struct error_filter *self = calloc(1, sizeof(*self));
    if (!self)
        return -ENOMEM;
    self->rule = (struct error_rule){.status = -EIO, .every = 1, .unlimited = true};
    int result = error_parse(options, &self->rule, error);
    if (result == 0)
        result = filter_init(&self->filter, loop, lower, "error", &error_device_operations);
    if (result < 0) {
        free(self);
        return result;
    }
    *ret_device = &self->filter.device;
    return 0;
}

static int error_configure(struct block_device *device, const struct director_option *options,
                           struct director_plugin_error *error)
{
    struct error_filter *self = container_of(device, struct error_filter, filter.device);
    struct error_rule rule = self->rule;
    int result = error_parse(options, &rule, error);
    if (result < 0)
        return result;
    self->rule = rule;
    self->matched = 0;
    return 0;
}

static const struct director_parameter error_parameters[] = {
    {"operations", DIRECTOR_PARAMETER_STRING, DIRECTOR_PARAMETER_LIVE, "none",
     "What fails: none, all, or some of read,write,flush,zeroes,unmap,compare_and_write."},
    {"status", DIRECTOR_PARAMETER_STRING, DIRECTOR_PARAMETER_LIVE, "EIO",
     "With which error: EIO, ENOSPC, EAGAIN, ENOMEM, ESTALE, EINVAL, ECANCELED, ENOTSUP, EBADMSG."},
    {"from", DIRECTOR_PARAMETER_SIZE, DIRECTOR_PARAMETER_LIVE, "0", "First byte of the range that fails."},
    {"length", DIRECTOR_PARAMETER_SIZE, DIRECTOR_PARAMETER_LIVE, "0", "Bytes of the range; 0 is up to the end."},
    {"every", DIRECTOR_PARAMETER_NUMBER, DIRECTOR_PARAMETER_LIVE, "1", "Only every so manieth of those that match."},
    {"count", DIRECTOR_PARAMETER_NUMBER, DIRECTOR_PARAMETER_LIVE, "0", "How many fail in all; 0 is no limit, 1 one shot."},
    {"executed", DIRECTOR_PARAMETER_BOOL, DIRECTOR_PARAMETER_LIVE, "no",
     "Carry the operation out before answering with the error."},
    {NULL, 0, 0, NULL, NULL},
};

DIRECTOR_PLUGIN_EXPORT const struct director_plugin director_plugin = {
    .struct_bytes = sizeof(director_plugin),
    .abi_major = DIRECTOR_PLUGIN_ABI_MAJOR,
    .abi_minor = DIRECTOR_PLUGIN_ABI_MINOR,
    .name = "error",
    .version = "1.0",
    .summary = "Makes chosen operations fail, to show what a failing disk does.",
    .kind = DIRECTOR_PLUGIN_FILTER,
    .parameters = error_parameters,
    .open = error_open,
    .configure = error_configure,
};
