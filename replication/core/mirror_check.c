/* Online check of a volume: verify (members against each other) and scrub (each against its own checksums). */
#include "replication/core/mirror_internal.h"
#include <errno.h>

int mirror_check_start(struct mirror *m, const struct mirror_check_options *options, uint64_t now_us)
{
    (void)now_us;
    if (options->kind != MIRROR_CHECK_VERIFY && options->kind != MIRROR_CHECK_SCRUB)
        return -EINVAL;
    return m->state == MIRROR_IDLE ? -ESTALE : -ENOTSUP;
}

int mirror_check_stop(struct mirror *m, uint64_t now_us)
{
    (void)m, (void)now_us;
    return -ENOENT;
}
