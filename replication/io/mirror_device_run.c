/* The shell around mirror and replica. One event goes in, its effects are performed in order; frames to the own node queue
 * up and are handed over one by one until none is left. What the user of this device must hear (completions, callbacks) is
 * noted and told from an idle handle on the next turn of the loop, never inside a call.
 *
 * Happy path of a write: submit -> REQUEST -> SEND to peers (copied by the transport) and to ourselves -> replica ->
 * DISK_WRITE -> done -> DISK_DONE -> WRITE_REPLY to ourselves; peers' WRITE_REPLY by receive -> COMPLETE -> idle -> done. */
#include "replication/io/mirror_device_private.h"

/* ---- telling the user ------------------------------------------------------------------------------------------- */

static void teller_turn(uv_idle_t *idle);

void device_tell(struct mirror_device *d)
{
    if (!uv_is_active((uv_handle_t *)&d->teller))
        uv_idle_start(&d->teller, teller_turn);
}

static const char *ask_words(enum mirror_ask_reason reason)
{
    switch (reason) {
    case MIRROR_ASK_MEMBER_AWAY: return "a replica cannot be reached";
    case MIRROR_ASK_MEMBER_ERROR: return "a replica's disk failed";
    case MIRROR_ASK_MEMBER_SLOW: return "a replica does not answer in time";
    case MIRROR_ASK_MEMBER_FOREIGN: return "a replica's disk is not the one that was in sync";
    case MIRROR_ASK_MEMBER_SYNCED: return "a replica has caught up";
    case MIRROR_ASK_MEMBER_COLD: return "a replica lost its write cache with its power";
    }
    return "unknown";
}

static void teller_turn(uv_idle_t *idle)
{
    struct mirror_device *d = container_of(idle, struct mirror_device, teller);
    const struct mirror_device_callbacks *callbacks = &d->options.callbacks;
    uv_idle_stop(idle);
    struct device_request *r = d->told_first;
    d->told_first = NULL;
    d->told_end = &d->told_first;
    while (r) {
        struct device_request *next = r->next;
        struct block_request *block = r->block;
        r->next = d->requests_free;
        d->requests_free = r;
        if (--d->requests_busy == 0)
            list_remove(&d->busy);
        block->done(block); /* may submit */
        r = next;
    }
    bool ask = d->tell_ask, state = d->tell_state, drained = d->tell_drained;
    d->tell_ask = d->tell_state = d->tell_drained = false;
    if (d->closing) {
        device_close_advance(d);
        return;
    }
    if (state && callbacks->state) {
        struct mirror_status status;
        char words[256];
        mirror_get_status(d->mirror, mirror_clock_us(), &status);
        mirror_device_describe(d, words, sizeof(words));
        callbacks->state(callbacks->context, d, &status, words);
    }
    if (ask && !d->closing)
        callbacks->ask_isr(callbacks->context, d, d->ask_epoch, d->ask_version, d->ask_isr, ask_words(d->ask_reason));
    if (drained && callbacks->drained && !d->closing)
        callbacks->drained(callbacks->context, d);
}

/* ---- events and effects ------------------------------------------------------------------------------------------- */

static void perform(struct mirror_device *d, const struct mirror_effect *effect)
{
    switch (effect->type) {
    case MIRROR_EFFECT_SEND:
        device_send(d, effect);
        break;
    case MIRROR_EFFECT_DISK_READ:
    case MIRROR_EFFECT_DISK_WRITE:
    case MIRROR_EFFECT_DISK_FLUSH:
        device_disk_start(d, effect);
        break;
    case MIRROR_EFFECT_DISK_DIGEST:
        device_digest_start(d, effect);
        break;
    case MIRROR_EFFECT_META_WRITE:
        metadata_file_write(&d->metadata, effect->meta.pages, effect->meta.count);
        break;
    case MIRROR_EFFECT_META_REPLACE:
        metadata_file_replace(&d->metadata, effect->replace.image, effect->replace.bytes);
        break;
    case MIRROR_EFFECT_COMPLETE: {
        struct device_request *r = container_of(effect->complete.request, struct device_request, request);
        if (effect->complete.status == -EAGAIN && r->data && !r->data_gone && r->request.operation != BLOCK_READ &&
            r->data->released && data_detach(r->data))
            r->data_gone = true; /* answered at its deadline, still under way: it goes on with a copy */
        device_request_complete(r, effect->complete.status);
        break;
    }
    case MIRROR_EFFECT_RELEASE:
        data_unref(effect->release);
        break;
    case MIRROR_EFFECT_ASK_ISR:
        d->tell_ask = true;
        d->ask_isr = effect->ask_isr.isr;
        d->ask_epoch = effect->ask_isr.epoch;
        d->ask_version = effect->ask_isr.isr_version;
        d->ask_reason = effect->ask_isr.reason;
        device_tell(d);
        break;
    case MIRROR_EFFECT_DRAINED:
        d->tell_drained = true;
        device_tell(d);
        break;
    case MIRROR_EFFECT_STATE:
        d->tell_state = true;
        device_tell(d);
        break;
    }
}

/* One event to one core. -EPROTO when it was a malformed message. */
int device_step(struct mirror_device *d, bool member, const struct mirror_event *event)
{
    int result = 0;
    d->effects.count = 0;
    if (!member)
        result = mirror_step(d->mirror, event, d->now_us, &d->effects);
    else if (d->replica)
        result = replica_step(d->replica, event, d->now_us, &d->effects);
    else if (event->type == MIRROR_EVENT_MESSAGE && event->message.data.handle)
        data_unref(event->message.data.handle); /* no replica here */
    for (unsigned i = 0; i < d->effects.count; i++)
        perform(d, &d->effects.items[i]);
    return result;
}

static void timer_fired(uv_timer_t *timer);

void device_timer_set(struct mirror_device *d)
{
    uint64_t next = mirror_next_tick(d->mirror), now = d->now_us;
    if (d->replica)
        next = MIN(next, replica_next_tick(d->replica));
    if (d->closing || next == UINT64_MAX || (uv_is_active((uv_handle_t *)&d->timer) && d->timer_at_us <= next))
        return;
    uint64_t wait_ms = next > now ? (next - now + 999) / 1000 : 0;
    d->timer_at_us = next;
    uv_timer_start(&d->timer, timer_fired, MAX(wait_ms, TICK_FLOOR_MS), 0);
}

/* N1: before anything else that happens. */
static void pulses_hear(struct mirror_device *d)
{
    const struct mirror_pulses *pulses = d->options.pulses;
    uint64_t heard = d->pulses_heard;
    if (pulses->changes == heard)
        return;
    d->pulses_heard = pulses->changes;
    for (unsigned i = 0; i < pulses->count; i++) {
        const struct mirror_pulse *pulse = &pulses->nodes[i];
        struct mirror_event event = {.nodeid = pulse->nodeid};
        if (d->replica && pulse->answered_by_us_change > heard) {
            event.type = MIRROR_EVENT_HEARTBEAT_ANSWERED_BY_US;
            event.time_us = pulse->answered_by_us_us;
            (void)device_step(d, true, &event);
            device_frames_run(d);
        }
        if (pulse->answered_change > heard) {
            event.type = MIRROR_EVENT_HEARTBEAT_ANSWERED;
            event.time_us = pulse->answered_us;
            (void)device_step(d, false, &event);
            device_frames_run(d);
        }
    }
}

void device_pulse(struct mirror_device *d)
{
    ASSERT(!d->running);
    d->running = true;
    d->now_us = mirror_clock_us();
    pulses_hear(d);
    d->running = false;
    device_timer_set(d);
}

int device_feed(struct mirror_device *d, bool member, const struct mirror_event *event)
{
    ASSERT(!d->running); /* devices and transports do not call back inside a call */
    d->running = true;
    d->now_us = mirror_clock_us(); /* once: what follows of the event takes no time that counts */
    pulses_hear(d);
    int result = device_step(d, member, event);
    device_frames_run(d);
    d->running = false;
    device_timer_set(d);
    return result;
}

void device_run(struct mirror_device *d, bool member, struct mirror_event *event)
{
    (void)device_feed(d, member, event);
}

void device_run_both(struct mirror_device *d, struct mirror_event *event)
{
    if (d->replica)
        device_run(d, true, event);
    device_run(d, false, event);
}

static void timer_fired(uv_timer_t *timer)
{
    struct mirror_device *d = container_of(timer, struct mirror_device, timer);
    device_run_both(d, &(struct mirror_event){.type = MIRROR_EVENT_TICK});
}
