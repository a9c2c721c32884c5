/* Online verify and scrub, asked for from outside. */
#include "replication/io/mirror_device_private.h"

int mirror_device_check_start(struct mirror_device *d, const struct mirror_check_options *options)
{
    int result = d->closing ? -ESTALE : mirror_check_start(d->mirror, options, mirror_clock_us());
    if (result == 0)
        device_run(d, false, &(struct mirror_event){.type = MIRROR_EVENT_TICK});
    return result;
}

int mirror_device_check_stop(struct mirror_device *d)
{
    int result = d->closing ? -ENOENT : mirror_check_stop(d->mirror, mirror_clock_us());
    if (result == 0)
        device_run(d, false, &(struct mirror_event){.type = MIRROR_EVENT_TICK});
    return result;
}
