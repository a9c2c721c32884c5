/* Work at the end of a turn of a libuv loop: what callbacks of the turn ask for is done once, just before the loop sleeps.
 * So what many of them queue leaves by one system call. Idle handles run earlier in the turn: what they ask for is done in
 * the same one. One thread, the loop's. */
#ifndef DIRECTOR_BASE_TURN_H
#define DIRECTOR_BASE_TURN_H

#include "director/base/common.h"
#include <uv.h>

struct turn {
    uv_prepare_t prepare;
    uv_idle_t awake; /* active with prepare: when asked for behind its place in the turn, the loop does not sleep first */
    void (*run)(struct turn *turn);
    void (*closed)(struct turn *turn);
    unsigned open;
};

/* Cannot fail: these handles have no resources. */
static inline void turn_init(struct turn *turn, uv_loop_t *loop, void (*run)(struct turn *turn))
{
    (void)uv_prepare_init(loop, &turn->prepare);
    (void)uv_idle_init(loop, &turn->awake);
    turn->prepare.data = turn->awake.data = turn;
    turn->run = run;
    turn->open = 2;
}

static inline void turn_awake(uv_idle_t *idle)
{
    (void)idle;
}

static inline void turn_prepare(uv_prepare_t *prepare)
{
    struct turn *turn = prepare->data;
    (void)uv_prepare_stop(&turn->prepare);
    (void)uv_idle_stop(&turn->awake);
    turn->run(turn);
}

/* run is called before the loop sleeps next, never inside this call. Any number of times. */
static inline void turn_want(struct turn *turn)
{
    if (uv_is_active((uv_handle_t *)&turn->prepare))
        return;
    (void)uv_prepare_start(&turn->prepare, turn_prepare);
    (void)uv_idle_start(&turn->awake, turn_awake);
}

static inline void turn_handle_closed(uv_handle_t *handle)
{
    struct turn *turn = handle->data;
    if (--turn->open == 0)
        turn->closed(turn);
}

/* run is not called any more; closed from the loop, when the memory is the caller's again. */
static inline void turn_close(struct turn *turn, void (*closed)(struct turn *turn))
{
    turn->closed = closed;
    uv_close((uv_handle_t *)&turn->prepare, turn_handle_closed);
    uv_close((uv_handle_t *)&turn->awake, turn_handle_closed);
}

#endif
