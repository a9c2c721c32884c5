/* States, configuration and events of the owner. See mirror.h for the diagram. */
#include "replication/core/mirror_internal.h"
#include <errno.h>
#include <string.h>

#define REQUESTS_DEFAULT       128u
#define MEMBER_TIMEOUT_DEFAULT 1000000u
#define WRITE_TIMEOUT_DEFAULT  5000000u
#define COPY_DEFAULT           262144u
#define BACKOFF_DEFAULT        1000000u
#define COLD_PATIENCE          60u /* member timeouts */

static int mirror_memory(struct mirror *m)
{
    int bad = bitmap_init(&m->unreconciled, m->regions) | bitmap_init(&m->scratch, m->regions);
    for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++) {
        bad |= bitmap_init(&m->dirty[k], m->regions);
        bad |= bitmap_init(&m->members[k].carry, m->regions);
        bad |= bitmap_init(&m->members[k].todo, m->regions);
    }
    m->op_count = m->parameters.requests_max + INTERNAL_OPS;
    m->ops = calloc(m->op_count, sizeof(*m->ops));
    return bad || !m->ops ? -ENOMEM : 0;
}

struct mirror *mirror_new(const struct mirror_parameters *parameters)
{
    struct mirror *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->parameters = *parameters;
    struct mirror_parameters *p = &m->parameters;
    p->requests_max = p->requests_max ? p->requests_max : REQUESTS_DEFAULT;
    p->member_timeout_us = p->member_timeout_us ? p->member_timeout_us : MEMBER_TIMEOUT_DEFAULT;
    p->write_timeout_us = p->write_timeout_us ? p->write_timeout_us : WRITE_TIMEOUT_DEFAULT;
    p->copy_bytes = p->copy_bytes ? p->copy_bytes : COPY_DEFAULT;
    p->resync_backoff_us = p->resync_backoff_us ? p->resync_backoff_us : BACKOFF_DEFAULT;
    p->region_bytes = metadata_region_bytes(p->size_bytes);
    m->regions = metadata_regions_of(p->size_bytes);
    m->self = -1;
    m->instance = m->next_attach = p->now_us;
    m->retry_us = m->throttled_us = UINT64_MAX;
    resync_throttle_init(&m->throttle, p->now_us);
    list_init(&m->active);
    list_init(&m->unused);
    list_init(&m->issued);
    list_init(&m->ready);
    list_init(&m->waiting);
    range_lock_init(&m->locks);
    for (unsigned i = 0; i < SEQUENCE_BUCKETS; i++)
        list_init(&m->by_sequence[i]);
    mirror_flush_init(m);
    if (mirror_memory(m) < 0) {
        mirror_free(m);
        return NULL;
    }
    for (uint32_t i = 0; i < m->op_count; i++) {
        m->ops[i].index = i;
        list_append(&m->unused, &m->ops[i].link);
    }
    return m;
}

void mirror_free(struct mirror *m)
{
    if (!m)
        return;
    bitmap_done(&m->unreconciled);
    bitmap_done(&m->scratch);
    for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++) {
        bitmap_done(&m->dirty[k]);
        bitmap_done(&m->members[k].carry);
        bitmap_done(&m->members[k].todo);
        bitmap_done(&m->members[k].cold);
    }
    for (unsigned i = 0; i < BLOBS_MAX; i++)
        free(m->blobs[i]);
    free(m->ops);
    free(m);
}

void mirror_send(struct mirror *m, unsigned k, struct mirror_message *message, struct mirror_data data,
                 uint32_t data_bytes)
{
    struct mirror_effect *effect = mirror_effects_add(m->out, MIRROR_EFFECT_SEND);
    message->epoch = m->config.epoch; /* I2 */
    message->boot = m->parameters.boot;
    message->attach = m->members[k].attach;
    mirror_message_encode(message, m->parameters.volume, data_bytes, effect);
    effect->send.nodeid = m->members[k].nodeid;
    effect->send.data = data;
}

/* I7: nobody else can have become owner by now. Each counted member other than ourselves has answered, within the lease,
 * while it was sealed to our epoch. */
bool mirror_lease_valid(const struct mirror *m)
{
    uint8_t counted = counted_mask(m);
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        if (!(counted >> k & 1) || (int)k == m->self)
            continue;
        if (!member_attached(&m->members[k]) || m->now >= lease_until(m->members[k].lease_sent_us))
            return false;
    }
    return true;
}

/* ---- becoming and ceasing to be owner ---------------------------------------------------------------------------- */

/* Give the lease back: we serve nothing at or below this epoch any more. */
static void send_release(struct mirror *m, uint64_t epoch, unsigned k)
{
    struct mirror_effect *effect = mirror_effects_add(m->out, MIRROR_EFFECT_SEND);
    struct mirror_message message = {.type = MIRROR_RELEASE, .epoch = epoch, .boot = m->parameters.boot};
    mirror_message_encode(&message, m->parameters.volume, 0, effect);
    effect->send.nodeid = m->members[k].nodeid;
}

/* The same owner goes on in a newer epoch: what was under way is put back to the head of the queue, in its order, before
 * anything that came later, and done again. A write that some member has already is given to all then. A comparison whose
 * write was sent cannot be repeated (it may have been its own write that it would find): its outcome is unknown. */
static void requests_keep(struct mirror *m)
{
    struct list kept;
    list_init(&kept);
    list_foreach_safe(node, after, &m->active) {
        struct mirror_op *op = list_entry(node, struct mirror_op, link);
        struct mirror_request *request = op->request;
        if (!request || (op->kind == OP_COMPARE && op->phase >= OP_WRITING))
            continue;
        request->data = op->data; /* its reference goes along */
        op->data.handle = NULL;
        op->request = NULL;
        list_append(&kept, &request->link);
    }
    while (!list_empty(&m->waiting)) {
        struct mirror_request *request = list_first(&m->waiting, struct mirror_request, link);
        list_remove(&request->link);
        list_append(&kept, &request->link);
    }
    while (!list_empty(&kept)) {
        struct mirror_request *request = list_first(&kept, struct mirror_request, link);
        list_remove(&request->link);
        list_append(&m->waiting, &request->link);
    }
}

void mirror_stop(struct mirror *m, int status)
{
    if (m->state == MIRROR_IDLE)
        return;
    m->state = MIRROR_IDLE;
    m->activating = m->draining = m->drained = false;
    m->fenced_epoch = MAX(m->fenced_epoch, m->config.epoch);
    m->pending_grow = 0;
    if (mirror_check_stop(m, m->now) == 0)
        m->check.redo_count = 0;
    m->check.repairs = m->repair_count = 0;
    if (status == 0)
        requests_keep(m);
    while (!list_empty(&m->active)) {
        struct mirror_op *op = list_first(&m->active, struct mirror_op, link);
        struct mirror_request *request = op->request;
        op_free(m, op);
        if (request)
            mirror_answer(m, request, status ? status : -ESTALE);
    }
    while (status && !list_empty(&m->waiting)) {
        struct mirror_request *request = list_first(&m->waiting, struct mirror_request, link);
        list_remove(&request->link);
        if (request->data.handle)
            mirror_effects_add(m->out, MIRROR_EFFECT_RELEASE)->release = request->data.handle;
        mirror_answer(m, request, status);
    }
    mirror_flush_stop(m, status);
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        struct member *member = &m->members[k];
        if (member->link_up)
            send_release(m, m->config.epoch, k);
        member->state = MIRROR_MEMBER_AWAY;
        member->lease_sent_us = 0;
        bitmap_zero(&member->todo);
    }
}

/* ---- asking for another in-sync set ------------------------------------------------------------------------------- */

/* The ISR without those that failed; never empty (I10): with nobody good left, one whose errors are then answered. */
static uint8_t wanted_isr(struct mirror *m, enum mirror_ask_reason *ret_reason)
{
    uint8_t want = 0, erring = 0;
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        struct member *member = &m->members[k];
        if (!in_isr(m, k))
            continue;
        if (!member_attached(member) && !member->bad && member->away_since_us &&
            m->now >= member->away_since_us + m->parameters.member_timeout_us)
            member_fail(m, k, MIRROR_ASK_MEMBER_AWAY);
        if (member->bad && member->bad_reason == MIRROR_ASK_MEMBER_AWAY && member_attached(member))
            member->bad = false;
        if (!member->bad)
            want |= (uint8_t)(1u << k);
        else
            *ret_reason = member->bad_reason;
        if (member->bad && member_attached(member))
            erring |= (uint8_t)(1u << k);
    }
    bool some = false, warm = false;
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (want >> k & 1 && member_attached(&m->members[k])) {
            some = true;
            warm |= !m->members[k].cold.set;
        }
    /* All at hand lost their caches: those away may still have what was acknowledged (I5). They are waited for, not for ever. */
    if (some && !warm && m->state == MIRROR_SEALING && !mirror_bug(m, MIRROR_BUG_COLD_SOURCE) &&
        m->now < m->sealing_since_us + COLD_PATIENCE * m->parameters.member_timeout_us)
        return m->config.isr;
    if (some || (erring && mirror_bug(m, MIRROR_BUG_EMPTY_ISR)))
        return want;
    if (!erring)
        return m->config.isr; /* nobody is there: wait for them, suspended */
    if (m->self >= 0 && erring >> m->self & 1)
        return (uint8_t)(1u << m->self);
    return erring & (uint8_t)-erring;
}

static void mirror_ask(struct mirror *m)
{
    enum mirror_ask_reason reason = MIRROR_ASK_MEMBER_SYNCED;
    if (m->state == MIRROR_IDLE)
        return;
    /* A pending grow is asked for until it is decided: it loses nothing, since every write counts the member already. */
    uint8_t want = wanted_isr(m, &reason) | m->pending_grow;
    ASSERT(want != 0 || mirror_bug(m, MIRROR_BUG_EMPTY_ISR));
    if (want == m->config.isr) {
        m->asked_isr = 0;
        return;
    }
    if (want == m->asked_isr && m->asked_version == m->config.isr_version && m->now < m->ask_again_us)
        return;
    m->asked_isr = want;
    m->asked_version = m->config.isr_version;
    m->ask_again_us = m->now + ASK_AGAIN_US;
    struct mirror_effect *effect = mirror_effects_add(m->out, MIRROR_EFFECT_ASK_ISR);
    effect->ask_isr.epoch = m->config.epoch;
    effect->ask_isr.isr_version = m->config.isr_version;
    effect->ask_isr.isr = want;
    effect->ask_isr.reason = reason;
}

/* ---- messages ----------------------------------------------------------------------------------------------------- */

static void on_fenced(struct mirror *m, uint16_t from, uint64_t epoch)
{
    if (m->state != MIRROR_IDLE && epoch > m->config.epoch) {
        m->fenced_epoch = MAX(m->fenced_epoch, epoch - 1);
        mirror_stop(m, -ESTALE);
        return;
    }
    if (m->state != MIRROR_IDLE || epoch == 0)
        return;
    m->fenced_epoch = MAX(m->fenced_epoch, epoch - 1);
    struct mirror_effect *effect = mirror_effects_add(m->out, MIRROR_EFFECT_SEND);
    struct mirror_message message = {.type = MIRROR_RELEASE, .epoch = epoch - 1, .boot = m->parameters.boot};
    mirror_message_encode(&message, m->parameters.volume, 0, effect);
    effect->send.nodeid = from;
}

static int on_message(struct mirror *m, const struct mirror_event *event)
{
    struct mirror_message message;
    struct mirror_data data = event->message.data;
    unsigned k = 0;
    int result = mirror_message_decode(&event->message.header, event->message.body, event->message.body_bytes,
                                       event->message.data_bytes, &message);
    if (result == 0 && mirror_message_to_member(message.type))
        result = -EPROTO;
    if (result == 0 && message.type == MIRROR_FENCED) {
        on_fenced(m, event->nodeid, message.epoch);
        goto drop;
    }
    while (k < m->config.replica_count && m->members[k].nodeid != event->nodeid)
        k++;
    if (result < 0 || m->state == MIRROR_IDLE || k == m->config.replica_count || message.epoch != m->config.epoch ||
        message.boot != m->parameters.boot || message.attach != m->members[k].attach)
        goto drop; /* malformed, or of an earlier attachment */
    if (message.type == MIRROR_SEAL_REPLY)
        return member_seal_reply(m, k, &message);
    if (!member_attached(&m->members[k]))
        goto drop;
    switch (message.type) {
    case MIRROR_WRITE_REPLY:
        mirror_write_reply(m, k, &message);
        return 0;
    case MIRROR_FLUSH_REPLY:
        mirror_flush_reply(m, k, &message);
        return 0;
    case MIRROR_READ_REPLY:
        mirror_read_reply(m, k, &message, data, event->message.data_bytes);
        return 0;
    case MIRROR_CONFIRM_REPLY:
        mirror_confirm_reply(m, k, &message);
        return 0;
    case MIRROR_COPY_REPLY:
        mirror_copy_reply(m, k, &message);
        return 0;
    case MIRROR_DIGEST_REPLY:
        mirror_digest_reply(m, k, &message, data, event->message.data_bytes);
        return 0;
    default: /* MIRROR_BITMAP_REPLY */
        if ((int64_t)message.argument < 0) {
            member_fail(m, k, MIRROR_ASK_MEMBER_ERROR);
            if (!in_isr(m, k) && !(m->pending_grow >> k & 1)) {
                member_back_off(m, k, true);
                member_detach(m, k, MIRROR_MEMBER_AWAY);
            }
            return 0;
        }
        m->members[k].merge_acked = MAX(m->members[k].merge_acked, message.request);
        mirror_activate(m);
        mirror_check_all(m);
        return 0;
    }
drop:
    if (data.handle)
        mirror_effects_add(m->out, MIRROR_EFFECT_RELEASE)->release = data.handle;
    return result;
}

/* ---- other events --------------------------------------------------------------------------------------------------- */

static void note_link(struct mirror *m, uint16_t nodeid, uint64_t boot)
{
    unsigned i = 0;
    while (i < m->link_count && m->links[i].nodeid != nodeid)
        i++;
    if (i == LINKS_MAX)
        return; /* more nodes than a cluster may have */
    m->links[i].nodeid = nodeid;
    m->links[i].boot = boot;
    m->link_count = MAX(m->link_count, i + 1);
}

static void on_link(struct mirror *m, uint16_t nodeid, bool up, uint64_t boot)
{
    note_link(m, nodeid, up ? boot : 0);
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        struct member *member = &m->members[k];
        if (member->nodeid != nodeid || (int)k == m->self)
            continue;
        if (member->link_up && m->state != MIRROR_IDLE && member->state != MIRROR_MEMBER_AWAY)
            member_detach(m, k, MIRROR_MEMBER_AWAY);
        member->link_up = up;
        member->boot = boot;
        if (up && m->state != MIRROR_IDLE && (in_isr(m, k) || m->now >= member->retry_us))
            member_seal(m, k);
    }
}

static void on_node_dead(struct mirror *m, uint16_t nodeid, uint64_t boot)
{
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        struct member *member = &m->members[k];
        if (member->nodeid != nodeid || member->boot != boot || (int)k == m->self)
            continue;
        on_link(m, nodeid, false, boot);
        if (m->state != MIRROR_IDLE)
            member_fail(m, k, MIRROR_ASK_MEMBER_AWAY);
    }
}

bool mirror_may_answer(const struct mirror *m, const struct mirror_op *op)
{
    if (op->verified)
        return mirror_confirmed(m, op);
    return mirror_lease_valid(m) || mirror_bug(m, MIRROR_BUG_NO_LEASE);
}

void mirror_check_readers(struct mirror *m)
{
    list_foreach_safe(node, after, &m->active) {
        struct mirror_op *op = list_entry(node, struct mirror_op, link);
        if (op->phase != OP_LEASE || !mirror_may_answer(m, op))
            continue;
        struct mirror_request *request = op->request;
        int status = op->status;
        op_free(m, op);
        mirror_answer(m, request, status);
    }
}

static void tell_complete(struct mirror *m)
{
    uint64_t complete = mirror_complete_sequence(m);
    if (m->state != MIRROR_SERVING || m->now < m->tell_us || complete == m->told_complete)
        return;
    m->tell_us = m->now + TELL_US;
    m->told_complete = complete;
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (member_attached(&m->members[k])) {
            struct mirror_message message = {.type = MIRROR_COMPLETE, .argument = complete};
            mirror_send(m, k, &message, (struct mirror_data){0}, 0);
        }
}

static void on_tick(struct mirror *m)
{
    mirror_expire(m);
    if (m->state == MIRROR_IDLE)
        return;
    if (m->now >= m->retry_us) {
        m->retry_us = UINT64_MAX;
        list_foreach(node, &m->active) {
            struct mirror_op *op = list_entry(node, struct mirror_op, link);
            if (op->phase == OP_START && list_empty(&op->ready))
                list_append(&m->ready, &op->ready);
        }
    }
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        struct member *member = &m->members[k];
        if (member->link_up && (member->state == MIRROR_MEMBER_AWAY || member->state == MIRROR_MEMBER_REFUSED) &&
            m->now >= member->retry_us)
            member_seal(m, k);
    }
    mirror_check_slow(m);
    mirror_check_readers(m);
    resync_keep(m);
    tell_complete(m);
}

static void on_request(struct mirror *m, struct mirror_request *request)
{
    if (m->state == MIRROR_IDLE) {
        if (request->data.handle)
            mirror_effects_add(m->out, MIRROR_EFFECT_RELEASE)->release = request->data.handle;
        mirror_answer(m, request, -ESTALE);
        return;
    }
    request->deadline_us = m->now + MIRROR_HOLD_US;
    resync_throttle_foreground(&m->throttle, 0, m->now);
    list_append(&m->waiting, &request->link);
}

/* One number for all that STATE is about; cheap, for it is looked at after every event. */
static uint64_t state_mark(const struct mirror *m)
{
    uint64_t mark = (uint64_t)m->state << 60 | (uint64_t)m->config.isr << 56;
    for (unsigned k = 0; k < m->config.replica_count; k++)
        mark |= (uint64_t)m->members[k].state << (4 * k);
    return mark ^ m->config.epoch << 24;
}

static void tell_state(struct mirror *m)
{
    uint64_t mark = state_mark(m);
    if (mark == m->told_mark)
        return;
    m->told_mark = mark;
    mirror_effects_add(m->out, MIRROR_EFFECT_STATE);
}

int mirror_step(struct mirror *m, const struct mirror_event *event, uint64_t now_us, struct mirror_effects *out)
{
    int result = 0;
    m->now = now_us;
    m->out = out;
    m->blobs_used = 0;
    switch (event->type) {
    case MIRROR_EVENT_CONFIG:
        mirror_on_config(m, event->config);
        break;
    case MIRROR_EVENT_MESSAGE:
        result = on_message(m, event);
        break;
    case MIRROR_EVENT_LINK_UP:
        on_link(m, event->nodeid, true, event->boot);
        break;
    case MIRROR_EVENT_LINK_DOWN:
        on_link(m, event->nodeid, false, 0);
        break;
    case MIRROR_EVENT_HEARTBEAT_ANSWERED:
        for (unsigned k = 0; k < m->config.replica_count; k++)
            if (m->members[k].nodeid == event->nodeid && member_attached(&m->members[k]))
                m->members[k].lease_sent_us = MAX(m->members[k].lease_sent_us, event->time_us);
        if (m->state == MIRROR_SERVING)
            mirror_check_readers(m);
        break;
    case MIRROR_EVENT_NODE_DEAD:
        on_node_dead(m, event->nodeid, event->boot);
        break;
    case MIRROR_EVENT_REQUEST:
        on_request(m, event->request);
        break;
    case MIRROR_EVENT_DRAIN:
        m->draining = m->state != MIRROR_IDLE;
        m->drained = false;
        break;
    case MIRROR_EVENT_RESUME:
        m->draining = m->drained = false;
        break;
    case MIRROR_EVENT_TICK:
        on_tick(m);
        break;
    default:
        break; /* the replica's */
    }
    mirror_run_ready(m);
    mirror_pump(m);
    mirror_background(m);
    mirror_run_ready(m);
    mirror_confirm_ask(m);
    mirror_ask(m);
    if (m->draining && !m->drained && list_empty(&m->active) && !m->flush.busy) {
        m->drained = true;
        mirror_effects_add(out, MIRROR_EFFECT_DRAINED);
    }
    tell_state(m);
    m->out = NULL;
    return result;
}

uint64_t mirror_next_tick(const struct mirror *m)
{
    bool quiet = list_empty(&m->active) && list_empty(&m->waiting) && !m->flush.busy && !m->pending_grow && !m->asked_isr &&
                 !m->repair_count && !mirror_check_wanted(m);
    if (m->state == MIRROR_IDLE)
        return UINT64_MAX;
    if (m->retry_us != UINT64_MAX)
        return m->retry_us;
    for (unsigned k = 0; k < m->config.replica_count; k++)
        quiet = quiet && (!m->members[k].link_up ? !in_isr(m, k) : m->members[k].state == MIRROR_MEMBER_ATTACHED);
    if (quiet && m->state == MIRROR_SERVING && !m->unreconciled.set && m->told_complete == mirror_complete_sequence(m))
        return UINT64_MAX;
    return MIN(m->now + TICK_US, MAX(m->throttled_us, m->now + 1));
}

static void member_status(const struct mirror *m, unsigned k, uint64_t now_us, struct mirror_member_status *status)
{
    const struct member *member = &m->members[k];
    const struct sync_progress *sync = &member->sync;
    bool syncing = member->state == MIRROR_MEMBER_SYNCING;
    struct meter meter = sync->meter;
    status->state = member->state;
    status->in_sync = in_isr(m, k);
    status->refused = member->state == MIRROR_MEMBER_REFUSED ? member->refused : 0;
    status->todo_regions = member->todo.set;
    status->total_regions = member->todo_total;
    status->dirty_regions = m->dirty[k].set;
    status->total_bytes = sync->total;
    status->done_bytes = MIN(sync->done, sync->total);
    status->compared_bytes = sync->compared;
    status->sent_bytes = sync->sent;
    if (syncing)
        meter_update(&meter, sync->done, MAX(now_us, meter.since_us));
    status->bytes_per_second = meter.rate;
    status->left_ms = syncing ? meter_left_ms(&meter, sync->total - status->done_bytes) : 0;
    status->sources = sync->sources;
    status->read_errors = member->read_errors;
    status->repaired_blocks = member->repaired_blocks;
}

void mirror_get_status(const struct mirror *m, uint64_t now_us, struct mirror_status *ret_status)
{
    struct mirror_status s = {.state = m->state, .epoch = m->config.epoch, .isr_version = m->config.isr_version,
                              .size_bytes = m->parameters.size_bytes, .isr = m->config.isr, .unreconciled_regions = m->unreconciled.set,
                              .reconciled_regions = m->reconciled_regions, .resynced_bytes = m->resynced_bytes,
                              .resync_rate = resync_throttle_rate(&m->throttle, now_us),
                              .repaired_blocks = m->repaired_blocks, .check = m->check.status};
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        member_status(m, k, now_us, &s.members[k]);
        if (m->state != MIRROR_IDLE && in_isr(m, k) && !member_attached(&m->members[k]))
            s.needed |= (uint8_t)(1u << k);
    }
    s.check.bytes_per_second = m->check.meter.rate;
    s.check.left_ms = mirror_check_wanted(m) ? meter_left_ms(&m->check.meter, s.check.total_bytes - s.check.position) : 0;
    s.suspended = s.needed != 0;
    list_foreach(node, &m->active)
        s.in_flight += list_entry(node, struct mirror_op, link)->request != NULL;
    list_foreach(node, &m->waiting)
        s.waiting++;
    *ret_status = s;
}
