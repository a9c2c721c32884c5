/* One connection of the client side: connect, send a Call, receive Results, all with a deadline. Internal to libdirector. */
#ifndef DIRECTOR_LIBRARY_CHANNEL_H
#define DIRECTOR_LIBRARY_CHANNEL_H

#include "director/base/error.h"
#include "proto/frame.h"
#include <proto/director.pb-c.h>

struct channel {
    int fd; /* -1: not connected */
    struct frame_reader reader;
};

#define DEADLINE_NEVER INT64_MAX

/* Monotonic milliseconds. */
int64_t channel_now(void);
/* timeout_ms from now; negative: DEADLINE_NEVER. */
int64_t channel_deadline(int timeout_ms);

void channel_init(struct channel *channel);
void channel_close(struct channel *channel);
/* Anything but a live, silent connection (end of file, stray bytes) needs a new one. */
int channel_is_stale(const struct channel *channel);
/* 0 or negative errno, with words; closes an older connection first. */
MUST_CHECK int channel_connect(struct channel *channel, const char *socket_path, int64_t deadline, struct error *error);
/* 0; -ECONNRESET when the connection broke: closed then; -ETIMEDOUT: closed then; -EMSGSIZE: nothing was sent. */
MUST_CHECK int channel_send(struct channel *channel, const Director__Call *call, int64_t deadline, struct error *error);
/* 1 and the next Result (director__result__free_unpacked), 0 when the deadline passed (still connected), -ECONNRESET,
 * -EPROTO, -EMSGSIZE, -ENOMEM: closed then. */
MUST_CHECK int channel_receive(struct channel *channel, int64_t deadline, Director__Result **ret_result,
                               struct error *error);

#endif
