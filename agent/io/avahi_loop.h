/* AvahiPoll on a libuv loop (libavahi's own main loop interface, avahi-common/watch.h). */
#ifndef DIRECTOR_AGENT_IO_AVAHI_LOOP_H
#define DIRECTOR_AGENT_IO_AVAHI_LOOP_H

#include <avahi-common/watch.h>
#include <uv.h>

struct avahi_loop {
    AvahiPoll api;
    uv_loop_t *loop;
    unsigned watches, timeouts; /* alive, for tests: both 0 once everything of Avahi is freed and the loop has turned */
};

/* One per loop; must outlive every object of Avahi that uses &avahi->api. */
void avahi_loop_init(struct avahi_loop *avahi, uv_loop_t *loop);

#endif
