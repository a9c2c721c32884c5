/* Phases of a group; one job in the thread pool at a time:
 *
 *   CONNECTING -joined-> JOINED -corosync gone-> CLOSING_POLL -> FINALIZING -> WAITING -timer-> CONNECTING
 *       |failed-> WAITING        |a call failed, corosync lives-> QUARANTINE -timer-> CLOSING_POLL
 *
 * QUARANTINE: when a living corosync sees our connection closed it tells the others that our process is down, and they may
 * conclude that nobody here holds a lease any more (I7). So after on_lost that news is held back until every lease is over.
 *
 * Closing only marks the group and wakes `act`: each phase ends its job and then frees (group_finish). So nothing is
 * ever finalized from inside a callback of libcpg, and its descriptor is closed only after libuv let go of it. */
#define LOG_MODULE "cpg"
#include "agent/io/cpg_group.h"

#include "director/base/bytes.h"
#include "director/base/list.h"
#include "director/base/log.h"

#include <corosync/cpg.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DISPATCH_BATCH   64  /* messages a turn of the loop, so that a flood does not starve the rest */
#define HEADER_BYTES     8   /* u32 magic, u32 sequence: little endian */
#define HEADER_MAGIC     0x31474344u /* "DCG1" */
#define BACKOFF_MIN_MS   50
#define BACKOFF_MAX_MS   500
#define RETRY_MIN_MS     1   /* after TRY_AGAIN of a send */
#define RETRY_MAX_MS     20
#define JOIN_PATIENCE_MS 10000
#define QUARANTINE_MS    2000 /* longer than any lease of ours */

enum phase { PHASE_CONNECTING, PHASE_JOINED, PHASE_QUARANTINE, PHASE_CLOSING_POLL, PHASE_FINALIZING, PHASE_WAITING, PHASE_FINISHED };

struct message {
    struct list link;
    size_t size;
    uint8_t bytes[];
};

struct cpg_group {
    uv_loop_t *loop;
    struct cpg_group_callbacks callbacks;
    void *context;
    struct cpg_name name;
    enum phase phase;
    bool closing, have_view;
    const char *broken; /* a call failed: why the connection must be given up */
    void (*closed)(void *context);
    void *closed_context;

    uv_poll_t poll;
    uv_work_t work;
    uv_timer_t backoff, retry, act;
    unsigned handles_open;
    unsigned backoff_ms, retry_ms;

    /* Owned by the pool's thread while work is under way. */
    cpg_handle_t handle;
    cs_error_t error;
    const char *where;
    uint32_t nodeid;
    bool leave;
    atomic_bool cancel;

    uint32_t pid;
    struct cpg_view_builder builder;
    struct list queue;
    unsigned queued;
    size_t queued_bytes;
    uint32_t next_sequence, done_sequence; /* own messages: sent up to, delivered up to */
    uint32_t flight_sizes[CPG_GROUP_FLIGHT_MAX];
    size_t flight_bytes;
    struct cpg_group_statistics statistics;
};

static void group_connect(struct cpg_group *group);
static void group_act(uv_timer_t *timer);

static unsigned group_in_flight(const struct cpg_group *group)
{
    return group->next_sequence - group->done_sequence;
}

static void group_queue_drop(struct cpg_group *group)
{
    list_foreach_safe (node, after, &group->queue)
        free(list_entry(node, struct message, link));
    list_init(&group->queue);
    group->queued = 0;
    group->queued_bytes = 0;
    group->done_sequence = group->next_sequence;
    group->flight_bytes = 0;
}

/* ---- ending ---- */

static void handle_closed(uv_handle_t *handle)
{
    struct cpg_group *group = handle->data;
    if (--group->handles_open)
        return;
    void (*closed)(void *) = group->closed;
    void *context = group->closed_context;
    group_queue_drop(group);
    free(group);
    if (closed)
        closed(context);
}

static void group_finish(struct cpg_group *group)
{
    if (group->phase == PHASE_FINISHED)
        return;
    group->phase = PHASE_FINISHED;
    group->handles_open = 3;
    uv_close((uv_handle_t *)&group->backoff, handle_closed);
    uv_close((uv_handle_t *)&group->retry, handle_closed);
    uv_close((uv_handle_t *)&group->act, handle_closed);
}

static void backoff_over(uv_timer_t *timer)
{
    struct cpg_group *group = timer->data;
    if (!group->closing)
        group_connect(group);
}

static void group_wait(struct cpg_group *group)
{
    if (group->closing) {
        group_finish(group);
        return;
    }
    group->phase = PHASE_WAITING;
    uv_timer_start(&group->backoff, backoff_over, group->backoff_ms, 0);
    group->backoff_ms = MIN(group->backoff_ms * 2, (unsigned)BACKOFF_MAX_MS);
}

static void finalize_work(uv_work_t *work)
{
    struct cpg_group *group = work->data;
    if (group->leave) /* a word to the others; corosync would tell them of our end anyway */
        (void)cpg_leave(group->handle, &group->name);
    (void)cpg_finalize(group->handle);
}

static void finalize_done(uv_work_t *work, int status)
{
    (void)status;
    group_wait(work->data);
}

static void poll_closed(uv_handle_t *handle)
{
    struct cpg_group *group = handle->data;
    group->phase = PHASE_FINALIZING;
    ASSERT(uv_queue_work(group->loop, &group->work, finalize_work, finalize_done) == 0);
}

static void quarantine_over(uv_timer_t *timer)
{
    struct cpg_group *group = timer->data;
    group->phase = PHASE_CLOSING_POLL;
    uv_close((uv_handle_t *)&group->poll, poll_closed);
}

/* The connection is of no more use. With words: say so at once. hung_up: the other side is gone already. */
static void group_disconnect(struct cpg_group *group, const char *words, bool hung_up)
{
    bool tell = group->have_view && words && !group->closing;
    group->leave = !words;
    group->have_view = false;
    group->broken = NULL;
    group->backoff_ms = BACKOFF_MIN_MS;
    group->nodeid = 0;
    group_queue_drop(group);
    uv_timer_stop(&group->retry);
    if (tell && !hung_up) {
        group->phase = PHASE_QUARANTINE;
        (void)uv_poll_stop(&group->poll);
        uv_timer_start(&group->backoff, quarantine_over, QUARANTINE_MS, 0);
    } else {
        group->phase = PHASE_CLOSING_POLL;
        uv_close((uv_handle_t *)&group->poll, poll_closed);
    }
    if (!tell)
        return;
    group->statistics.losses++;
    log_warning("group %s: joined -> lost, because %s", group->name.value, words);
    group->callbacks.on_lost(words, group->context);
}

/* Whatever must not happen inside a callback or a call: at the top of the loop. */
static void group_act(uv_timer_t *timer)
{
    struct cpg_group *group = timer->data;
    if (group->phase == PHASE_JOINED && group->closing)
        group_disconnect(group, NULL, false);
    else if (group->phase == PHASE_JOINED && group->broken)
        group_disconnect(group, group->broken, false);
    else if (group->phase == PHASE_WAITING && group->closing)
        group_finish(group);
}

static void group_wake(struct cpg_group *group)
{
    uv_timer_start(&group->act, group_act, 0, 0);
}

/* ---- sending ---- */

/* CS_OK: under way. */
static cs_error_t group_multicast(struct cpg_group *group, const void *bytes, size_t size)
{
    uint8_t header[HEADER_BYTES];
    put_le32(header, HEADER_MAGIC);
    put_le32(header + 4, group->next_sequence);
    struct iovec parts[2] = {{.iov_base = header, .iov_len = sizeof(header)},
                             {.iov_base = (void *)bytes, .iov_len = size}};
    cs_error_t error = cpg_mcast_joined(group->handle, CPG_TYPE_AGREED, parts, 2);
    if (error == CS_OK) {
        group->flight_sizes[group->next_sequence % CPG_GROUP_FLIGHT_MAX] = (uint32_t)size;
        group->next_sequence++;
        group->flight_bytes += size;
        group->statistics.sent++;
        group->retry_ms = RETRY_MIN_MS;
    }
    return error;
}

static bool group_has_room(const struct cpg_group *group, size_t size)
{
    unsigned flight = group_in_flight(group);
    return flight == 0 || (flight < CPG_GROUP_FLIGHT_MAX && group->flight_bytes + size <= CPG_GROUP_FLIGHT_MAX_BYTES);
}

static void group_pump(struct cpg_group *group);

static void retry_over(uv_timer_t *timer)
{
    group_pump(timer->data);
}

/* A send did not go out. True: it may later. */
static bool group_send_failed(struct cpg_group *group, cs_error_t error)
{
    if (error == CS_ERR_TRY_AGAIN) {
        group->statistics.try_again++;
        uv_timer_start(&group->retry, retry_over, group->retry_ms, 0);
        group->retry_ms = MIN(group->retry_ms * 2, (unsigned)RETRY_MAX_MS);
        return true;
    }
    group->broken = "a send to corosync failed";
    group_wake(group);
    return false;
}

static void group_pump(struct cpg_group *group)
{
    if (group->phase != PHASE_JOINED || group->broken || group->closing || uv_is_active((uv_handle_t *)&group->retry))
        return;
    while (!list_empty(&group->queue)) {
        struct message *message = list_first(&group->queue, struct message, link);
        if (!group_has_room(group, message->size))
            return; /* the delivery of an own message comes back here */
        cs_error_t error = group_multicast(group, message->bytes, message->size);
        if (error != CS_OK) {
            (void)group_send_failed(group, error);
            return;
        }
        list_remove(&message->link);
        group->queued--;
        group->queued_bytes -= message->size;
        free(message);
    }
}

int cpg_group_send(struct cpg_group *group, const void *bytes, size_t size)
{
    if (size > CPG_GROUP_MESSAGE_MAX_BYTES)
        return -EMSGSIZE;
    if (group->phase != PHASE_JOINED || !group->have_view || group->closing || group->broken)
        return -ENOTCONN;
    if (list_empty(&group->queue) && !uv_is_active((uv_handle_t *)&group->retry) && group_has_room(group, size)) {
        cs_error_t error = group_multicast(group, bytes, size);
        if (error == CS_OK)
            return 0;
        if (!group_send_failed(group, error))
            return -ENOTCONN;
    }
    if (group->queued >= CPG_GROUP_QUEUE_MAX || group->queued_bytes + size > CPG_GROUP_QUEUE_MAX_BYTES)
        return -EAGAIN;
    struct message *message = malloc(sizeof(*message) + size);
    if (!message)
        return -ENOMEM;
    message->size = size;
    if (size)
        memcpy(message->bytes, bytes, size);
    list_append(&group->queue, &message->link);
    group->queued++;
    group->queued_bytes += size;
    return 0;
}

/* ---- receiving: callbacks of libcpg, from inside cpg_dispatch() ---- */

static struct cpg_group *group_of(cpg_handle_t handle)
{
    void *context = NULL;
    (void)cpg_context_get(handle, &context);
    return context;
}

static void own_delivered(struct cpg_group *group, uint32_t sequence)
{
    if (sequence - group->done_sequence >= group_in_flight(group))
        return; /* of an earlier connection */
    while (group->done_sequence != sequence + 1)
        group->flight_bytes -= group->flight_sizes[group->done_sequence++ % CPG_GROUP_FLIGHT_MAX];
    group->statistics.own_delivered++;
}

static void message_delivered(cpg_handle_t handle, const struct cpg_name *name, uint32_t nodeid, uint32_t pid,
                              void *bytes, size_t size)
{
    struct cpg_group *group = group_of(handle);
    (void)name;
    if (!group || group->closing)
        return;
    if (size < HEADER_BYTES || get_le32(bytes) != HEADER_MAGIC || size - HEADER_BYTES > CPG_GROUP_MESSAGE_MAX_BYTES) {
        group->statistics.foreign++;
        return;
    }
    if (nodeid == group->nodeid && pid == group->pid)
        own_delivered(group, get_le32((uint8_t *)bytes + 4));
    if (!group->have_view || !cpg_view_has(&group->builder.view, nodeid, pid)) {
        group->statistics.ghosts++;
        return;
    }
    group->statistics.delivered++;
    group->callbacks.on_message(nodeid, pid, (uint8_t *)bytes + HEADER_BYTES, size - HEADER_BYTES, group->context);
}

static void view_report(struct cpg_group *group)
{
    const struct cpg_view *view = &group->builder.view;
    if (!cpg_view_has(view, group->nodeid, group->pid))
        return; /* on the way in or out: not yet, or no more, a member */
    group->have_view = true;
    group->statistics.views++;
    log_info("group %s: view %016llx ring %u/%llu, %u members, %u departed", group->name.value,
             (unsigned long long)view->id, view->ring_nodeid, (unsigned long long)view->ring_sequence,
             view->member_count, view->departed_count);
    group->callbacks.on_view(view, group->context);
}

static void group_changed(cpg_handle_t handle, const struct cpg_name *name, const struct cpg_address *members,
                          size_t member_count, const struct cpg_address *left, size_t left_count,
                          const struct cpg_address *joined, size_t joined_count)
{
    struct cpg_group *group = group_of(handle);
    struct cpg_view_member now[CPG_VIEW_MEMBERS_MAX];
    struct cpg_view_departed departed[CPG_VIEW_MEMBERS_MAX];
    bool ring_changing = false;
    (void)name;
    if (!group || group->closing)
        return;
    member_count = MIN(member_count, (size_t)CPG_VIEW_MEMBERS_MAX);
    left_count = MIN(left_count, (size_t)CPG_VIEW_MEMBERS_MAX);
    for (size_t i = 0; i < member_count; i++)
        now[i] = (struct cpg_view_member){.nodeid = members[i].nodeid, .pid = members[i].pid};
    for (size_t i = 0; i < left_count; i++) {
        enum cpg_view_reason reason = left[i].reason == CPG_REASON_LEAVE      ? CPG_VIEW_LEFT
                                      : left[i].reason == CPG_REASON_PROCDOWN ? CPG_VIEW_PROCESS_DOWN
                                                                              : CPG_VIEW_NODE_DOWN;
        ring_changing |= reason == CPG_VIEW_NODE_DOWN;
        departed[i] = (struct cpg_view_departed){.member = {.nodeid = left[i].nodeid, .pid = left[i].pid},
                                                 .reason = reason};
    }
    for (size_t i = 0; i < joined_count; i++)
        ring_changing |= joined[i].reason == CPG_REASON_NODEUP;
    if (cpg_view_builder_group(&group->builder, now, member_count, departed, left_count, ring_changing))
        view_report(group);
}

static void totem_changed(cpg_handle_t handle, struct cpg_ring_id ring, uint32_t count, const uint32_t *nodes)
{
    struct cpg_group *group = group_of(handle);
    if (group && !group->closing && cpg_view_builder_totem(&group->builder, ring.nodeid, ring.seq, nodes, count))
        view_report(group);
}

static void group_readable(uv_poll_t *poll, int status, int events)
{
    struct cpg_group *group = poll->data;
    cs_error_t error = CS_OK;
    if (status < 0 || (events & UV_DISCONNECT)) { /* what it had queued for us is of no use without a quorum behind it */
        group_disconnect(group, "corosync hung up", true);
        return;
    }
    for (unsigned i = 0; i < DISPATCH_BATCH && error == CS_OK && !group->closing && !group->broken; i++)
        error = cpg_dispatch(group->handle, CS_DISPATCH_ONE_NONBLOCKING);
    if (error != CS_OK && error != CS_ERR_TRY_AGAIN) {
        group_disconnect(group, "corosync's connection failed", false);
        return;
    }
    group_pump(group);
}

/* ---- connecting ---- */

static void join_sleep(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
}

static void connect_work(uv_work_t *work)
{
    struct cpg_group *group = work->data;
    cpg_model_v1_data_t model = {.model = CPG_MODEL_V1,
                                 .cpg_deliver_fn = message_delivered,
                                 .cpg_confchg_fn = group_changed,
                                 .cpg_totem_confchg_fn = totem_changed,
                                 .flags = CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF};
    group->where = "connect";
    group->error = cpg_model_initialize(&group->handle, CPG_MODEL_V1, (cpg_model_data_t *)&model, group);
    if (group->error != CS_OK)
        return;
    group->where = "ask for the node id";
    group->error = cpg_local_get(group->handle, &group->nodeid);
    if (group->error == CS_OK) {
        group->where = "join";
        for (unsigned i = 0; i < JOIN_PATIENCE_MS / 10; i++) {
            group->error = cpg_join(group->handle, &group->name);
            if ((group->error != CS_ERR_TRY_AGAIN && group->error != CS_ERR_BUSY) || atomic_load(&group->cancel))
                break;
            join_sleep();
        }
    }
    if (group->error != CS_OK)
        (void)cpg_finalize(group->handle);
}

static void connect_done(uv_work_t *work, int status)
{
    struct cpg_group *group = work->data;
    int fd = -1;
    (void)status;
    if (group->error != CS_OK) {
        log_debug("group %s: cannot %s: corosync error %d", group->name.value, group->where, group->error);
        group->nodeid = 0;
        group_wait(group);
        return;
    }
    if (cpg_fd_get(group->handle, &fd) != CS_OK || uv_poll_init(group->loop, &group->poll, fd) < 0) {
        group->phase = PHASE_FINALIZING;
        group->leave = false;
        ASSERT(uv_queue_work(group->loop, &group->work, finalize_work, finalize_done) == 0);
        return;
    }
    group->poll.data = group;
    group->phase = PHASE_JOINED;
    group->retry_ms = RETRY_MIN_MS;
    if (group->closing) {
        group_disconnect(group, NULL, false);
        return;
    }
    log_info("group %s: connected as node %u", group->name.value, group->nodeid);
    ASSERT(uv_poll_start(&group->poll, UV_READABLE | UV_DISCONNECT, group_readable) == 0);
}

static void group_connect(struct cpg_group *group)
{
    group->phase = PHASE_CONNECTING;
    group->broken = NULL;
    cpg_view_builder_init(&group->builder);
    ASSERT(uv_queue_work(group->loop, &group->work, connect_work, connect_done) == 0);
}

int cpg_group_new(uv_loop_t *loop, const char *name, const struct cpg_group_callbacks *callbacks, void *context,
                  struct cpg_group **ret_group)
{
    size_t length = strlen(name);
    if (!length || length >= CPG_MAX_NAME_LENGTH)
        return -EINVAL;
    struct cpg_group *group = calloc(1, sizeof(*group));
    if (!group)
        return -ENOMEM;
    group->loop = loop;
    group->callbacks = *callbacks;
    group->context = context;
    group->name.length = (uint32_t)length;
    memcpy(group->name.value, name, length);
    group->pid = (uint32_t)getpid();
    group->backoff_ms = BACKOFF_MIN_MS;
    list_init(&group->queue);
    (void)uv_timer_init(loop, &group->backoff); /* these cannot fail */
    (void)uv_timer_init(loop, &group->retry);
    (void)uv_timer_init(loop, &group->act);
    group->backoff.data = group->retry.data = group->act.data = group->work.data = group;
    group_connect(group);
    *ret_group = group;
    return 0;
}

void cpg_group_close(struct cpg_group *group, void (*closed)(void *context), void *context)
{
    ASSERT(!group->closing);
    group->closing = true;
    group->closed = closed;
    group->closed_context = context;
    atomic_store(&group->cancel, true);
    group_wake(group);
}

uint32_t cpg_group_nodeid(const struct cpg_group *group)
{
    return group->phase == PHASE_JOINED ? group->nodeid : 0;
}

void cpg_group_statistics(const struct cpg_group *group, struct cpg_group_statistics *ret_statistics)
{
    *ret_statistics = group->statistics;
    ret_statistics->queued = group->queued;
    ret_statistics->queued_bytes = group->queued_bytes;
    ret_statistics->in_flight = group_in_flight(group);
}
