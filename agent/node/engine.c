/* The I/O thread: its mail, its data links and its target. One volume's life is in engine_volume.c.
 *
 * Who is linked, per volume: a link between two nodes counts for a volume only while both have its mirror device open. Each
 * side says VOLUME_UP on the link when its device opens, and for all open devices when the link comes up; so frames of a
 * volume never reach a node that would have to drop them, and the order that replication relies on (replication/core/step.h)
 * holds per volume. */
#define LOG_MODULE "engine"
#include "agent/node/engine_internal.h"

#include "director/base/log.h"
#include <errno.h>
#include <signal.h>
#include <string.h>

/* --- mail ------------------------------------------------------------------------------------------------------------ */

/* To the I/O thread: a function and its arguments. */
struct order {
    struct mail mail;
    void (*run)(struct engine *engine, struct order *order);
    uint64_t number;
    uint64_t boot;
    size_t count;
    union {
        struct engine_volume volume;
        struct peer_hello hello;
        char iqn[TREE_IQN_SIZE];
        struct engine_check check;
    };
    void *array; /* freed with the order */
};

/* To the control thread. */
struct notice {
    struct mail mail;
    void (*run)(struct engine *engine, struct notice *notice);
    uint64_t volume, epoch, version, incarnation;
    uint32_t isr;
    char reason[128];
    union {
        struct api_live_volume live;
        struct api_live_replica own;
    };
    uint32_t bytes_size;
    uint8_t *bytes; /* freed with the notice */
};

static struct order *order_new(void (*run)(struct engine *engine, struct order *order))
{
    struct order *order = calloc(1, sizeof(*order));
    ASSERT(order); /* control path: out of memory ends the process, which the cluster survives */
    list_init(&order->mail.link);
    order->run = run;
    return order;
}

static void order_receive(struct mail *mail, void *context)
{
    struct order *order = container_of(mail, struct order, mail);
    if (!((struct engine *)context)->closing) /* its parts go one by one */
        order->run(context, order);
    free(order->array);
    free(order);
}

static void notice_receive(struct mail *mail, void *context)
{
    struct notice *notice = container_of(mail, struct notice, mail);
    notice->run(context, notice);
    free(notice->bytes);
    free(notice);
}

static struct notice *notice_new(uint64_t volume, void (*run)(struct engine *engine, struct notice *notice))
{
    struct notice *notice = calloc(1, sizeof(*notice));
    ASSERT(notice);
    list_init(&notice->mail.link);
    notice->run = run;
    notice->volume = volume;
    return notice;
}

static void run_ask_isr(struct engine *engine, struct notice *notice)
{
    const struct engine_callbacks *callbacks = &engine->options.callbacks;
    callbacks->ask_isr(callbacks->context, notice->volume, notice->epoch, notice->version, notice->isr, notice->reason);
}

void engine_tell_ask_isr(struct engine *engine, uint64_t volume, uint64_t epoch, uint64_t version, uint32_t isr,
                         const char *reason)
{
    struct notice *notice = notice_new(volume, run_ask_isr);
    notice->epoch = epoch;
    notice->version = version;
    notice->isr = isr;
    (void)snprintf(notice->reason, sizeof(notice->reason), "%s", reason);
    mailbox_post(&engine->outbox, &notice->mail);
}

static void run_reserve(struct engine *engine, struct notice *notice)
{
    const struct engine_callbacks *callbacks = &engine->options.callbacks;
    callbacks->reserve(callbacks->context, notice->volume, notice->epoch, notice->version, notice->bytes, notice->bytes_size);
}

/* The target asks: see target_server.h. */
static void tell_reserve(void *context, uint64_t volume, uint64_t epoch, uint64_t version, const uint8_t *bytes, uint32_t size)
{
    struct engine *engine = context;
    struct notice *notice = notice_new(volume, run_reserve);
    notice->epoch = epoch;
    notice->version = version;
    notice->bytes = malloc(size);
    ASSERT(notice->bytes);
    memcpy(notice->bytes, bytes, size);
    notice->bytes_size = size;
    mailbox_post(&engine->outbox, &notice->mail);
}

static void run_record(struct engine *engine, struct notice *notice)
{
    engine->options.callbacks.replica_record(engine->options.callbacks.context, notice->volume, notice->incarnation);
}

void engine_tell_record(struct engine *engine, uint64_t volume, uint64_t incarnation)
{
    struct notice *notice = notice_new(volume, run_record);
    notice->incarnation = incarnation;
    mailbox_post(&engine->outbox, &notice->mail);
}

static void run_grown(struct engine *engine, struct notice *notice)
{
    engine->options.callbacks.replica_grown(engine->options.callbacks.context, notice->volume, notice->isr, notice->version,
                                            notice->incarnation);
}

void engine_tell_grown(struct engine *engine, uint64_t volume, uint32_t replica, uint64_t size_bytes, uint64_t incarnation)
{
    struct notice *notice = notice_new(volume, run_grown);
    notice->isr = replica;
    notice->version = size_bytes;
    notice->incarnation = incarnation;
    mailbox_post(&engine->outbox, &notice->mail);
}

static void run_gone(struct engine *engine, struct notice *notice)
{
    engine->options.callbacks.replica_gone(engine->options.callbacks.context, notice->volume);
}

void engine_tell_gone(struct engine *engine, uint64_t volume)
{
    mailbox_post(&engine->outbox, &notice_new(volume, run_gone)->mail);
}

static void run_blank(struct engine *engine, struct notice *notice)
{
    engine->options.callbacks.replica_blank(engine->options.callbacks.context, notice->volume, notice->isr, notice->incarnation);
}

void engine_tell_blank(struct engine *engine, uint64_t volume, uint32_t replica, uint64_t incarnation)
{
    struct notice *notice = notice_new(volume, run_blank);
    notice->isr = replica;
    notice->incarnation = incarnation;
    mailbox_post(&engine->outbox, &notice->mail);
}

static void run_live(struct engine *engine, struct notice *notice)
{
    engine->options.callbacks.live(engine->options.callbacks.context, notice->volume, &notice->live);
}

void engine_tell_live(struct engine *engine, uint64_t volume, const struct api_live_volume *figures)
{
    struct notice *notice = notice_new(volume, run_live);
    notice->live = *figures;
    mailbox_post(&engine->outbox, &notice->mail);
}

static void run_own(struct engine *engine, struct notice *notice)
{
    engine->options.callbacks.own(engine->options.callbacks.context, notice->volume, &notice->own);
}

void engine_tell_own(struct engine *engine, uint64_t volume, const struct api_live_replica *figures)
{
    struct notice *notice = notice_new(volume, run_own);
    notice->own = *figures;
    mailbox_post(&engine->outbox, &notice->mail);
}

/* --- data links -------------------------------------------------------------------------------------------------------- */

static const struct engine_link *link_find(const struct engine *engine, uint16_t nodeid)
{
    for (unsigned i = 0; i < engine->link_count; i++)
        if (engine->links[i].nodeid == nodeid)
            return &engine->links[i];
    return NULL;
}

static void data_up(struct peer *peer, const struct peer_hello *hello, void *context)
{
    struct engine *engine = context;
    if (engine->link_count == TREE_NODES_MAX || link_find(engine, peer_nodeid(peer)))
        return;
    engine->links[engine->link_count++] = (struct engine_link){.nodeid = peer_nodeid(peer), .boot = hello->boot};
    list_foreach(link, &engine->units)
    {
        struct engine_unit *unit = list_entry(link, struct engine_unit, link);
        if (unit->device)
            engine_unit_announce(unit, peer_nodeid(peer), true);
    }
}

static void data_lost(struct engine *engine, uint16_t nodeid)
{
    for (unsigned i = 0; i < engine->link_count; i++)
        if (engine->links[i].nodeid == nodeid)
            engine->links[i--] = engine->links[--engine->link_count];
    list_foreach(link, &engine->units) engine_unit_link_down(list_entry(link, struct engine_unit, link), nodeid);
    if (engine->target)
        target_server_node_down(engine->target, nodeid);
}

static void data_down(struct peer *peer, int reason, const char *words, void *context)
{
    (void)reason;
    log_info("data link to node %u is down: %s", peer_nodeid(peer), words);
    data_lost(context, peer_nodeid(peer));
}

static void data_changed(struct peer *peer, const struct peer_hello *hello, void *context)
{
    struct engine *engine = context;
    if (!link_find(engine, peer_nodeid(peer)))
        data_up(peer, hello, context);
}

static void payload_keep(void *payload)
{
    peer_buffer_ref(payload);
}

static void payload_release(void *payload)
{
    peer_buffer_unref(payload);
}

static void data_frame(struct peer *peer, const struct peer_header *header, struct peer_buffer *payload, void *context)
{
    struct engine *engine = context;
    const uint8_t *bytes = payload ? payload->data : (const uint8_t *)"";
    uint16_t nodeid = peer_nodeid(peer);
    struct engine_unit *unit;
    if (header->type >= PEER_SCSI_FIRST && header->type <= PEER_SCSI_LAST) {
        if (engine->target && target_server_forward_receive(engine->target, nodeid, header, bytes) == -EPROTO)
            peer_close(peer, "a forwarded SCSI frame makes no sense");
        return;
    }
    unit = engine_unit_find(engine, header->object);
    if (header->type >= PEER_MIRROR_FIRST && header->type <= PEER_MIRROR_LAST) {
        if (unit && unit->device)
            mirror_device_receive(unit->device, nodeid, header, bytes,
                                  payload ? &(struct mirror_payload_keeper){payload, payload_keep, payload_release} : NULL);
    } else if (header->type == PEER_VOLUME_UP) {
        const struct engine_link *link = link_find(engine, nodeid);
        if (unit && unit->device && link) {
            /* The answer goes out before anything that the mirror sends now. Not open yet: we announce ourselves later. */
            if (header->flags & ENGINE_VOLUME_ANSWER)
                engine_unit_announce(unit, nodeid, false);
            engine_unit_link_up(unit, link);
        }
    } else if (header->type == PEER_VOLUME_DOWN) {
        if (unit)
            engine_unit_link_down(unit, nodeid);
    } else {
        peer_close(peer, "a frame of a type this version does not know");
    }
}

static void data_heartbeat_acked(struct peer *peer, uint64_t sent_us, void *context)
{
    struct engine *engine = context;
    if (peer_nodeid(peer))
        mirror_pulses_answered(engine->pulses, peer_nodeid(peer), sent_us);
}

static void data_heartbeat_answered(struct peer *peer, uint64_t answered_us, void *context)
{
    struct engine *engine = context;
    if (peer_nodeid(peer))
        mirror_pulses_answered_by_us(engine->pulses, peer_nodeid(peer), answered_us);
}

static void data_error(int code, const char *words, void *context)
{
    (void)code;
    (void)context;
    log_warning("data link: %s", words);
}

static const struct peer_mesh_callbacks data_callbacks = {
    .up = data_up,
    .changed = data_changed,
    .down = data_down,
    .frame = data_frame,
    .heartbeat_acked = data_heartbeat_acked,
    .heartbeat_answered = data_heartbeat_answered,
    .error = data_error,
};

/* --- target ------------------------------------------------------------------------------------------------------------ */

static int forward_send(void *context, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov,
                        unsigned iov_count, void (*done)(void *argument), void *argument)
{
    struct engine *engine = context;
    int result = peer_mesh_send(engine->mesh, nodeid, header, iov, iov_count);
    if (result == 0)
        done(argument); /* the mesh copied everything */
    return result;
}

static const struct target_forward_operations forward_operations = {.send = forward_send};

static void iqn_apply(struct engine *engine, struct engine_iqn *iqn, const uint64_t luns[static TREE_LUNS_MAX])
{
    struct error error;
    if (!engine->target)
        return;
    if (target_server_put_target(engine->target, iqn->iqn, &error) < 0) {
        log_error("target %s: %s", iqn->iqn, error.message);
        return;
    }
    for (uint16_t lun = 0; lun < TREE_LUNS_MAX; lun++) {
        const struct engine_unit *unit = luns[lun] ? engine_unit_find(engine, luns[lun]) : NULL;
        if (iqn->luns[lun] == luns[lun])
            continue;
        if (iqn->luns[lun])
            (void)target_server_clear_lun(engine->target, iqn->iqn, lun);
        iqn->luns[lun] = 0;
        if (!unit || !unit->in_target)
            continue;
        if (target_server_set_lun(engine->target, iqn->iqn, lun, luns[lun], &error) < 0)
            log_error("target %s: %s", iqn->iqn, error.message);
        else
            iqn->luns[lun] = luns[lun];
    }
}

/* The port may be taken by another program for now: that must not cost this node its portal for ever. */
static void target_listen(struct engine *engine)
{
    struct error error;
    uint64_t now = uv_hrtime() / 1000000;
    if (!engine->target || engine->listening || now < engine->listen_ms)
        return;
    engine->listening = target_server_listen(engine->target, engine->address, 3260, NULL, &error) == 0;
    engine->listen_ms = now + ENGINE_LISTEN_MS;
    if (!engine->listening)
        log_error("target: %s; tried again", error.message);
}

static void target_open(struct engine *engine)
{
    struct target_server_options options = {
        .loop = &engine->loop, .nodeid = engine->nodeid, .forward = &forward_operations, .forward_context = engine,
        .commit = tell_reserve, .commit_context = engine};
    int result = target_server_new(&options, &engine->target);
    if (result < 0) {
        log_error("target: %s", strerror(-result));
        return;
    }
    engine->listening = !engine->options.portal;
    target_listen(engine);
    if (target_server_set_ports(engine->target, engine->ports, engine->port_count) < 0)
        log_error("target: the list of portals was refused");
}

/* --- orders ------------------------------------------------------------------------------------------------------------ */

static void run_set_hello(struct engine *engine, struct order *order)
{
    peer_mesh_set_hello(engine->mesh, &order->hello);
}

void engine_set_hello(struct engine *engine, const struct peer_hello *hello)
{
    struct order *order = order_new(run_set_hello);
    order->hello = *hello;
    mailbox_post(&engine->inbox, &order->mail);
}

static void target_closed(void *context)
{
    engine_part_closed(context);
}

static void run_set_self(struct engine *engine, struct order *order)
{
    if (engine->nodeid == (uint16_t)order->number)
        return;
    engine->nodeid = (uint16_t)order->number;
    if (engine->target) { /* after a dissolution: nothing was exported */
        engine->open_parts++;
        target_server_close(engine->target, target_closed, engine);
        engine->target = NULL;
    }
    target_open(engine);
}

void engine_set_self(struct engine *engine, uint16_t nodeid)
{
    struct order *order = order_new(run_set_self);
    order->number = nodeid;
    mailbox_post(&engine->inbox, &order->mail);
}

static void run_set_peers(struct engine *engine, struct order *order)
{
    if (peer_mesh_set_peers(engine->mesh, order->array, order->count) < 0)
        log_error("data links: out of memory for the node list");
}

int engine_set_peers(struct engine *engine, const struct peer_node *nodes, size_t count)
{
    struct order *order = order_new(run_set_peers);
    order->array = calloc(count + 1, sizeof(*nodes));
    if (!order->array) {
        free(order);
        return -ENOMEM;
    }
    if (count)
        memcpy(order->array, nodes, count * sizeof(*nodes));
    order->count = count;
    mailbox_post(&engine->inbox, &order->mail);
    return 0;
}

static void run_set_ports(struct engine *engine, struct order *order)
{
    memcpy(engine->ports, order->array, order->count * sizeof(engine->ports[0]));
    engine->port_count = (unsigned)order->count;
    if (engine->target && target_server_set_ports(engine->target, engine->ports, engine->port_count) < 0)
        log_error("target: the list of portals was refused");
}

void engine_set_ports(struct engine *engine, const struct target_port *ports, unsigned count)
{
    struct order *order = order_new(run_set_ports);
    order->count = MIN(count, TARGET_PORTS_MAX);
    order->array = calloc(order->count + 1, sizeof(*ports));
    ASSERT(order->array);
    memcpy(order->array, ports, order->count * sizeof(*ports));
    mailbox_post(&engine->inbox, &order->mail);
}

static void run_set_authority(struct engine *engine, struct order *order)
{
    if (engine->authority == (bool)order->number)
        return;
    engine->authority = order->number;
    log_info("this node %s", engine->authority ? "serves what it owns" : "serves nothing for now");
    list_foreach(link, &engine->units) engine_unit_update(list_entry(link, struct engine_unit, link));
}

void engine_set_authority(struct engine *engine, bool authority)
{
    struct order *order = order_new(run_set_authority);
    order->number = authority;
    mailbox_post(&engine->inbox, &order->mail);
}

static void run_set_apart(struct engine *engine, struct order *order)
{
    engine->apart = order->number;
    if (engine->target)
        target_server_set_apart(engine->target, engine->apart);
    if (engine->apart && !engine->authority)
        list_foreach(link, &engine->units) engine_unit_part(list_entry(link, struct engine_unit, link));
}

void engine_set_apart(struct engine *engine, bool apart)
{
    struct order *order = order_new(run_set_apart);
    order->number = apart;
    mailbox_post(&engine->inbox, &order->mail);
}

static void run_node_dead(struct engine *engine, struct order *order)
{
    uint16_t nodeid = (uint16_t)order->number;
    list_foreach(link, &engine->units)
    {
        struct engine_unit *unit = list_entry(link, struct engine_unit, link);
        if (unit->device)
            mirror_device_node_dead(unit->device, nodeid, order->boot);
    }
    if (engine->target)
        target_server_node_dead(engine->target, nodeid);
}

void engine_node_dead(struct engine *engine, uint16_t nodeid, uint64_t boot)
{
    struct order *order = order_new(run_node_dead);
    order->number = nodeid;
    order->boot = boot;
    mailbox_post(&engine->inbox, &order->mail);
}

static void run_put_volume(struct engine *engine, struct order *order)
{
    struct engine_unit *unit = engine_unit_find(engine, order->volume.volume.id);
    if (!unit) {
        unit = calloc(1, sizeof(*unit));
        ASSERT(unit);
        unit->engine = engine;
        list_append(&engine->units, &unit->link);
        list_append(engine_bucket(engine, order->volume.volume.id), &unit->by_id);
    }
    unit->config = order->volume;
    if (order->number > unit->reservations_version) {
        free(unit->reservations);
        unit->reservations = order->array;
        unit->reservations_bytes = (uint32_t)order->count;
        unit->reservations_version = order->number;
        order->array = NULL;
    }
    engine_unit_update(unit);
}

void engine_put_volume(struct engine *engine, const struct engine_volume *volume, const struct tree_reservation *reservation)
{
    struct order *order = order_new(run_put_volume);
    order->volume = *volume;
    if (reservation) {
        order->number = reservation->version;
        order->count = reservation->table_bytes;
        order->array = malloc(reservation->table_bytes + 1u);
        ASSERT(order->array);
        memcpy(order->array, reservation->table, reservation->table_bytes);
    }
    mailbox_post(&engine->inbox, &order->mail);
}

static void run_set_check(struct engine *engine, struct order *order)
{
    struct engine_unit *unit = engine_unit_find(engine, order->number);
    if (unit)
        engine_unit_check(unit, &order->check);
}

void engine_set_check(struct engine *engine, uint64_t volume, const struct engine_check *check)
{
    struct order *order = order_new(run_set_check);
    order->number = volume;
    order->check = *check;
    mailbox_post(&engine->inbox, &order->mail);
}

static void run_remove_volume(struct engine *engine, struct order *order)
{
    struct engine_unit *unit = engine_unit_find(engine, order->number);
    if (!unit)
        return;
    unit->removed = true;
    engine_unit_close(unit);
}

void engine_remove_volume(struct engine *engine, uint64_t volume)
{
    struct order *order = order_new(run_remove_volume);
    order->number = volume;
    mailbox_post(&engine->inbox, &order->mail);
}

static void run_discard_volume(struct engine *engine, struct order *order)
{
    const struct engine_unit *unit = engine_unit_find(engine, order->volume.volume.id);
    if (!unit || unit->removed) /* the other is that of another store */
        engine_unit_discard(engine, &order->volume);
}

void engine_discard_volume(struct engine *engine, const struct engine_volume *volume)
{
    struct order *order = order_new(run_discard_volume);
    order->volume = *volume;
    mailbox_post(&engine->inbox, &order->mail);
}

static struct engine_iqn *iqn_find(struct engine *engine, const char *iqn)
{
    list_foreach(link, &engine->iqns)
    {
        struct engine_iqn *found = list_entry(link, struct engine_iqn, link);
        if (!strcmp(found->iqn, iqn))
            return found;
    }
    return NULL;
}

static void run_put_target(struct engine *engine, struct order *order)
{
    struct engine_iqn *iqn = iqn_find(engine, order->iqn);
    uint64_t luns[TREE_LUNS_MAX] = {0};
    const struct tree_lun *given = order->array;
    if (!iqn) {
        iqn = calloc(1, sizeof(*iqn));
        ASSERT(iqn);
        memcpy(iqn->iqn, order->iqn, sizeof(iqn->iqn));
        list_append(&engine->iqns, &iqn->link);
    }
    for (size_t i = 0; i < order->count; i++)
        luns[given[i].lun] = given[i].volume;
    iqn_apply(engine, iqn, luns);
}

void engine_put_target(struct engine *engine, const struct tree_target *target)
{
    struct order *order = order_new(run_put_target);
    (void)snprintf(order->iqn, sizeof(order->iqn), "%s", target->iqn);
    order->array = calloc(target->lun_count + 1, sizeof(struct tree_lun));
    ASSERT(order->array);
    if (target->lun_count)
        memcpy(order->array, target->luns, target->lun_count * sizeof(struct tree_lun));
    order->count = target->lun_count;
    mailbox_post(&engine->inbox, &order->mail);
}

static void run_remove_target(struct engine *engine, struct order *order)
{
    struct engine_iqn *iqn = iqn_find(engine, order->iqn);
    if (!iqn)
        return;
    list_remove(&iqn->link);
    free(iqn);
    if (engine->target)
        (void)target_server_remove_target(engine->target, order->iqn);
}

void engine_remove_target(struct engine *engine, const char *iqn)
{
    struct order *order = order_new(run_remove_target);
    (void)snprintf(order->iqn, sizeof(order->iqn), "%s", iqn);
    mailbox_post(&engine->inbox, &order->mail);
}

static void run_keep_targets(struct engine *engine, struct order *order)
{
    const char (*names)[TREE_IQN_SIZE] = order->array;
    list_foreach_safe(link, after, &engine->iqns)
    {
        struct engine_iqn *iqn = list_entry(link, struct engine_iqn, link);
        size_t i = 0;
        while (i < order->count && strcmp(names[i], iqn->iqn))
            i++;
        if (i < order->count)
            continue;
        if (engine->target)
            (void)target_server_remove_target(engine->target, iqn->iqn);
        list_remove(&iqn->link);
        free(iqn);
    }
}

void engine_keep_targets(struct engine *engine, const struct tree *tree)
{
    struct order *order = order_new(run_keep_targets);
    order->count = tree_target_count(tree);
    char (*names)[TREE_IQN_SIZE] = calloc(order->count + 1, TREE_IQN_SIZE);
    ASSERT(names);
    for (size_t i = 0; i < order->count; i++)
        memcpy(names[i], tree_target_at(tree, i)->iqn, TREE_IQN_SIZE);
    order->array = names;
    mailbox_post(&engine->inbox, &order->mail);
}

/* --- life -------------------------------------------------------------------------------------------------------------- */

struct engine_unit *engine_unit_find(struct engine *engine, uint64_t volume)
{
    list_foreach(link, engine_bucket(engine, volume))
    {
        struct engine_unit *unit = list_entry(link, struct engine_unit, by_id);
        if (unit->config.volume.id == volume)
            return unit;
    }
    return NULL;
}

struct peer_mesh *engine_mesh(struct engine *engine)
{
    return engine->mesh;
}

static void engine_tick(uv_timer_t *timer)
{
    struct engine *engine = container_of(timer, struct engine, timer);
    uint64_t now = uv_hrtime() / 1000000;
    if (!engine->closing)
        target_listen(engine);
    list_foreach_safe(link, after, &engine->units) engine_unit_tick(list_entry(link, struct engine_unit, link), now);
}

static void engine_fault_timeout(uv_timer_t *timer)
{
    struct engine *engine = container_of(timer, struct engine, fault_timer);
    if (!engine->closing)
        engine_fault_tick(engine);
}

/* Units, target and mesh are gone: the loop ends when its last handles are. */
static void engine_finish(struct engine *engine)
{
    while (!list_empty(&engine->iqns)) {
        struct engine_iqn *iqn = list_first(&engine->iqns, struct engine_iqn, link);
        list_remove(&iqn->link);
        free(iqn);
    }
    uv_close((uv_handle_t *)&engine->timer, NULL);
    if (engine->faults.path)
        uv_close((uv_handle_t *)&engine->fault_timer, NULL);
    mailbox_close(&engine->inbox, NULL);
}

void engine_part_closed(struct engine *engine)
{
    ASSERT(engine->open_parts > 0);
    engine->open_parts--;
    if (!engine->closing || engine->open_parts)
        return;
    if (!list_empty(&engine->units))
        return;
    if (engine->target) {
        struct target_server *target = engine->target;
        engine->target = NULL;
        engine->open_parts++;
        target_server_close(target, target_closed, engine);
    } else if (engine->mesh) {
        struct peer_mesh *mesh = engine->mesh;
        engine->mesh = NULL;
        engine->open_parts++;
        peer_mesh_close(mesh, target_closed, engine);
    } else {
        engine_finish(engine);
    }
}

static void run_close(struct engine *engine, struct order *order)
{
    (void)order;
    engine->closing = true;
    engine->open_parts++;
    list_foreach_safe(link, after, &engine->units) engine_unit_close(list_entry(link, struct engine_unit, link));
    engine_part_closed(engine);
}

static void outbox_closed(struct mailbox *outbox)
{
    struct engine *engine = container_of(outbox, struct engine, outbox);
    void (*closed)(void *context) = engine->closed;
    void *context = engine->closed_context;
    mirror_pulses_free(engine->pulses);
    free(engine);
    if (closed)
        closed(context);
}

static void run_ended(struct engine *engine, struct notice *notice)
{
    (void)notice;
    uv_thread_join(&engine->thread);
    mailbox_close(&engine->outbox, outbox_closed);
}

static void engine_thread(void *argument)
{
    struct engine *engine = argument;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    uv_run(&engine->loop, UV_RUN_DEFAULT);
    ASSERT(uv_loop_close(&engine->loop) == 0);
    mailbox_post(&engine->outbox, &notice_new(0, run_ended)->mail);
}

int engine_new(const struct engine_options *options, struct engine **ret_engine, struct error *error)
{
    struct engine *engine = calloc(1, sizeof(*engine));
    if (!engine)
        return error_set(error, -ENOMEM, "out of memory");
    engine->options = *options;
    memcpy(engine->psk, options->psk, sizeof(engine->psk));
    (void)snprintf(engine->address, sizeof(engine->address), "%s", options->address);
    list_init(&engine->units);
    for (unsigned i = 0; i < ENGINE_BUCKETS; i++)
        list_init(&engine->buckets[i]);
    list_init(&engine->iqns);
    engine->pulses = mirror_pulses_new();
    int result = engine->pulses ? uv_loop_init(&engine->loop) : -ENOMEM;
    if (result < 0)
        goto failed_loop;
    struct peer_mesh_config mesh = {.loop = &engine->loop, .channel = PEER_CHANNEL_DATA, .psk = engine->psk,
                                    .hello = *options->hello, .callbacks = &data_callbacks, .context = engine};
    result = mailbox_init(&engine->inbox, &engine->loop, order_receive, engine);
    if (result == 0)
        result = mailbox_init(&engine->outbox, options->control_loop, notice_receive, engine);
    if (result == 0)
        result = uv_timer_init(&engine->loop, &engine->timer);
    if (result == 0)
        result = uv_timer_start(&engine->timer, engine_tick, ENGINE_LIVE_MS, ENGINE_LIVE_MS);
    engine->faults.path = options->faults_path;
    if (result == 0 && engine->faults.path)
        result = uv_timer_init(&engine->loop, &engine->fault_timer);
    if (result == 0 && engine->faults.path)
        result = uv_timer_start(&engine->fault_timer, engine_fault_timeout, 0, ENGINE_FAULT_MS);
    if (result < 0)
        goto failed_loop;
    result = peer_mesh_new(&mesh, &engine->mesh, error);
    if (result < 0)
        return result; /* the process ends */
    result = uv_thread_create(&engine->thread, engine_thread, engine);
    if (result < 0)
        goto failed_loop;
    *ret_engine = engine;
    return 0;
failed_loop:
    mirror_pulses_free(engine->pulses);
    free(engine);
    return error_set(error, result, "the I/O thread cannot start: %s", uv_strerror(result));
}

void engine_close(struct engine *engine, void (*closed)(void *context), void *context)
{
    engine->closed = closed;
    engine->closed_context = context;
    mailbox_post(&engine->inbox, &order_new(run_close)->mail);
}
