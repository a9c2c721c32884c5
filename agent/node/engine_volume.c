/* One volume on this node's I/O thread: its files, its mirror device, its logical unit.
 *
 * Happy path: put -> LU in the target (TRANSITION) -> a worker makes or checks the files -> data device and mirror device
 * open -> announced to the peers, configured -> the target is told where the owner is.
 * Failure paths: files cannot be made or opened -> FAILED, tried again every few seconds; an owner asks that another member
 * takes over meanwhile.
 *
 * What is committed of our replica may change at any time: it goes (removed: the device is closed, the files are deleted), it
 * is held (VolumeForce: closed, the files are left alone), its files are retired (closed, made anew, opened). unit_follow(). */
#define LOG_MODULE "volume"
#include "agent/node/engine_internal.h"
#include "agent/node/volume_config.h"

#include "director/base/log.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define UNIT_RETRY_MS 3000u

static void unit_open(struct engine_unit *unit);

static uint64_t unit_now_ms(void)
{
    return uv_hrtime() / 1000000;
}

/* --- the target -------------------------------------------------------------------------------------------------------- */

static void unit_target(struct engine_unit *unit)
{
    struct engine *engine = unit->engine;
    const struct tree_volume *volume = &unit->config.volume;
    struct block_device *device = NULL;
    enum target_lu_state state = TARGET_LU_TRANSITION;
    if (!engine->target)
        return;
    if (!unit->in_target || unit->target_bytes != volume->size_bytes) { /* larger: CAPACITY DATA HAS CHANGED, 2A/09 */
        struct target_lu_identity identity = {.volume_id = volume->id, .uuid = volume->uuid, .size_bytes = volume->size_bytes,
                                              .block_bytes = volume->block_bytes, .physical_bytes = 4096, .thin = true};
        (void)snprintf(identity.name, sizeof(identity.name), "%s", volume->name);
        int result = target_server_put_lu(engine->target, &identity);
        if (result < 0) {
            log_error("%s: the target refused its logical unit: %s", volume->name, strerror(-result));
            return;
        }
        unit->in_target = true;
        unit->target_bytes = volume->size_bytes;
    }
    if (unit->reservations_version) { /* before the state: an owner starts with what was committed (I14) */
        int taken = target_server_set_reservations(engine->target, volume->id, unit->reservations_version, unit->reservations,
                                                   unit->reservations_bytes);
        if (taken < 0)
            log_error("%s: its reservations could not be taken over: %s", volume->name, strerror(-taken));
        if (taken < 0) /* nobody is let in without them */
            return;
    }
    if (engine->authority && volume->owner == engine->nodeid && unit->device) {
        state = TARGET_LU_ACTIVE;
        device = mirror_device_block(unit->device);
    } else if (engine->authority && volume->owner && volume->owner != engine->nodeid) {
        state = TARGET_LU_FORWARD;
    }
    int result = target_server_set_lu_state(engine->target, volume->id, state, volume->owner, volume->epoch, device);
    if (result < 0)
        log_error("%s: the target refused its state: %s", volume->name, strerror(-result));
}

/* --- the mirror -------------------------------------------------------------------------------------------------------- */

static void unit_configure(struct engine_unit *unit)
{
    struct mirror_config config = volume_config(&unit->config.volume);
    mirror_device_config(unit->device, &config);
}

static int transport_send(void *context, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov,
                          unsigned iov_count)
{
    struct engine_unit *unit = context;
    return unit->engine->mesh ? peer_mesh_send(unit->engine->mesh, nodeid, header, iov, iov_count) : -ENOTCONN;
}

static void transport_reset(void *context, uint16_t nodeid, const char *words)
{
    struct engine_unit *unit = context;
    struct peer *peer = unit->engine->mesh ? peer_mesh_find(unit->engine->mesh, nodeid) : NULL;
    log_warning("%s: link to node %u is broken off: %s", unit->config.volume.name, nodeid, words);
    if (peer)
        peer_close(peer, words);
}

static void device_ask_isr(void *context, struct mirror_device *device, uint64_t epoch, uint64_t version, uint8_t isr,
                           const char *reason)
{
    struct engine_unit *unit = context;
    (void)device;
    engine_tell_ask_isr(unit->engine, unit->config.volume.id, epoch, version, isr, reason);
}

static void device_state(void *context, struct mirror_device *device, const struct mirror_status *status, const char *words)
{
    struct engine_unit *unit = context;
    (void)device;
    if (strcmp(unit->words, words))
        log_info("%s: %s", unit->config.volume.name, words);
    (void)snprintf(unit->words, sizeof(unit->words), "%s", words);
    (void)status;
}

/* What cannot be said must not be missed: the link is broken off, and all is said anew when it is up again. */
static void unit_say(struct engine_unit *unit, uint16_t nodeid, const struct peer_header *header)
{
    int result = peer_mesh_send(unit->engine->mesh, nodeid, header, NULL, 0);
    if (result < 0 && result != -ENOTCONN)
        transport_reset(unit, nodeid, "its queue is full");
}

void engine_unit_announce(struct engine_unit *unit, uint16_t nodeid, bool ask)
{
    struct engine *engine = unit->engine;
    struct peer_header header = {.type = PEER_VOLUME_UP, .flags = ask ? ENGINE_VOLUME_ANSWER : 0,
                                 .object = unit->config.volume.id};
    for (unsigned i = 0; i < engine->link_count; i++)
        if (!nodeid || engine->links[i].nodeid == nodeid)
            unit_say(unit, engine->links[i].nodeid, &header);
}

/* Also of nodes that have no replica as far as we know: theirs may be news that has not come here yet. */
bool engine_unit_linked(const struct engine_unit *unit, uint16_t nodeid)
{
    for (unsigned i = 0; i < unit->linked_count; i++)
        if (unit->linked[i] == nodeid)
            return true;
    return false;
}

void engine_unit_link_up(struct engine_unit *unit, const struct engine_link *link)
{
    if (engine_unit_linked(unit, link->nodeid) || unit->linked_count == TREE_NODES_MAX)
        return;
    unit->linked[unit->linked_count++] = link->nodeid;
    mirror_device_link_up(unit->device, link->nodeid, link->boot);
}

void engine_unit_link_down(struct engine_unit *unit, uint16_t nodeid)
{
    for (unsigned i = 0; i < unit->linked_count; i++)
        if (unit->linked[i] == nodeid) {
            unit->linked[i] = unit->linked[--unit->linked_count];
            if (unit->device)
                mirror_device_link_down(unit->device, nodeid);
            return;
        }
}

/* --- opening ------------------------------------------------------------------------------------------------------------ */

static void unit_fail(struct engine_unit *unit, const char *what, const struct error *error)
{
    log_error("%s: %s: %s", unit->config.volume.name, what, error->message);
    (void)snprintf(unit->words, sizeof(unit->words), "%s: %.100s", what, error->message);
    unit->phase = ENGINE_VOLUME_FAILED;
    unit->retry_ms = unit_now_ms() + UNIT_RETRY_MS;
}

static void data_closed(void *context)
{
    (void)context;
}

static void unit_made(uv_work_t *work, int status)
{
    struct engine_unit *unit = container_of(work, struct engine_unit, work);
    struct engine *engine = unit->engine;
    struct error error = {0};
    struct block_device *data = NULL;
    (void)status;
    if (unit->removed || engine->closing) {
        unit->phase = ENGINE_VOLUME_IDLE;
        engine_unit_close(unit);
        return;
    }
    if (unit->work_status < 0) {
        unit_fail(unit, "its replica here cannot be made", &unit->work_error);
        return;
    }
    if (unit->work_record) {
        if (unit->work_blank)
            unit->granted = unit->work_record;
        unit->wanted = unit->work_record;
        unit->phase = ENGINE_VOLUME_RECORDING;
        unit->retry_ms = unit_now_ms() + UNIT_RETRY_MS;
        engine_tell_record(engine, unit->config.volume.id, unit->wanted);
        return;
    }
    const struct director_plugin *plugin = engine_files_plugin(unit, &error);
    const struct director_option data_options[] = {{"block", unit->config.volume.block_bytes == 512 ? "512" : "4096"}, {0}};
    int result = plugin ? plugin_open(plugin, &engine->loop, unit->data_path, NULL, data_options, &data, &error) : -ENOENT;
    if (result < 0) {
        unit_fail(unit, "its replica here cannot be opened", &error);
        return;
    }
    result = engine_fault_open(unit, &data, &error);
    if (result < 0) {
        block_device_close(data, data_closed, unit);
        unit_fail(unit, "its filters cannot be opened", &error);
        return;
    }
    struct mirror_device_options options = {
        .volume = unit->config.volume.id,
        .volume_uuid = unit->config.volume.uuid,
        .size_bytes = unit->config.volume.size_bytes,
        .block_bytes = unit->config.volume.block_bytes,
        .nodeid = engine->nodeid,
        .boot = engine->options.boot,
        .data = data,
        .metadata_path = unit->metadata_path,
        .checksum = unit->config.volume.policy.checksum,
        .pulses = engine->pulses,
        .transport = {.context = unit, .send = transport_send, .reset = transport_reset},
        .callbacks = {.context = unit, .ask_isr = device_ask_isr, .state = device_state},
    };
    result = mirror_device_open(&engine->loop, &options, &unit->device, &error);
    if (result < 0) {
        engine_fault_forget(unit);
        block_device_close(data, data_closed, unit);
        unit_fail(unit, "its replica here cannot be opened", &error);
        return;
    }
    unit->phase = ENGINE_VOLUME_OPEN;
    unit->linked_count = 0;
    unit->incarnation = unit->work_incarnation;
    unit->place = unit->work_config.replica;
    unit->data = data;
    unit->growing = false;
    unit->grow_ms = 0;
    unit->blank_ms = 0;
    engine_unit_announce(unit, 0, true);
    engine_unit_update(unit);
}

static void unit_open(struct engine_unit *unit)
{
    unit->work_config = unit->config;
    unit->work_granted = unit->granted;
    unit->work_record = unit->work_incarnation = 0;
    unit->work_blank = false;
    unit->work_error = (struct error){0};
    engine_files_paths(unit);
    unit->phase = ENGINE_VOLUME_MAKING;
    int result = uv_queue_work(&unit->engine->loop, &unit->work, engine_files_make, unit_made);
    if (result < 0) {
        struct error error;
        (void)error_set(&error, result, "%s", uv_strerror(result));
        unit_fail(unit, "no worker", &error);
    }
}

static void unit_deleted(uv_work_t *work, int status);

/* Our replica was removed: its files go. unit_deleted() comes back. */
static void unit_delete(struct engine_unit *unit)
{
    unit->work_config = unit->config;
    engine_files_paths(unit);
    unit->phase = ENGINE_VOLUME_DELETING;
    if (uv_queue_work(&unit->engine->loop, &unit->work, engine_files_delete, unit_deleted) == 0)
        return;
    unit->phase = ENGINE_VOLUME_FAILED;
    unit->retry_ms = unit_now_ms() + UNIT_RETRY_MS;
}

static void unit_say_down(struct engine_unit *unit)
{
    struct peer_header header = {.type = PEER_VOLUME_DOWN, .object = unit->config.volume.id};
    for (unsigned i = 0; i < unit->engine->link_count; i++)
        unit_say(unit, unit->engine->links[i].nodeid, &header);
}

static void unit_shut_done(void *context)
{
    struct engine_unit *unit = context;
    unit->phase = ENGINE_VOLUME_IDLE;
    if (unit->removed || unit->engine->closing)
        engine_unit_close(unit);
    else
        engine_unit_update(unit);
}

/* Close the device; the unit stays, and goes on with what is committed now. */
static void unit_shut(struct engine_unit *unit)
{
    struct mirror_device *device = unit->device;
    unit_say_down(unit);
    unit->phase = ENGINE_VOLUME_SHUTTING;
    unit->device = NULL;
    unit->linked_count = 0;
    engine_fault_forget(unit);
    unit_target(unit); /* before: it holds the device */
    mirror_device_close(device, unit_shut_done, unit);
}

void engine_unit_part(struct engine_unit *unit)
{
    if (unit->phase != ENGINE_VOLUME_OPEN || unit->config.volume.owner != unit->engine->nodeid)
        return;
    log_notice("%s: closed here: others serve, and this node takes no part", unit->config.volume.name);
    unit_shut(unit);
}

/* Do our files stand as is committed? */
static void unit_follow(struct engine_unit *unit)
{
    const struct tree_volume *volume = &unit->config.volume;
    const struct tree_replica *mine = unit->config.replica >= 0 ? &volume->replicas[unit->config.replica] : NULL;
    if (unit->phase == ENGINE_VOLUME_OPEN &&
        (!mine || mine->held || unit->place != unit->config.replica || tree_volume_retired(volume, unit->incarnation))) {
        log_notice("%s: its replica here is closed: %s", volume->name, !mine        ? "it was removed"
                                                                       : mine->held ? "the volume was forced to another one"
                                                                                    : "it is made anew");
        unit_shut(unit);
    }
    if (unit->phase != ENGINE_VOLUME_IDLE)
        return;
    if (mine && mine->held)
        (void)snprintf(unit->words, sizeof(unit->words), "its replica here is held since the volume was forced to another one");
    else if (mine)
        unit_open(unit);
    else if (unit->config.recorded)
        unit_delete(unit);
}

/* --- life -------------------------------------------------------------------------------------------------------------- */

void engine_unit_update(struct engine_unit *unit)
{
    if (unit->removed || unit->engine->closing)
        return;
    /* Before the node's state is current its configuration may be of the past; an owner of the past must not wake up. */
    if (unit->phase == ENGINE_VOLUME_RECORDING && unit->config.recorded == unit->wanted)
        unit->phase = ENGINE_VOLUME_IDLE;
    if (unit->engine->authority)
        unit_follow(unit);
    if (unit->device && unit->engine->authority)
        unit_configure(unit);
    unit_target(unit);
    engine_grow_tick(unit, unit_now_ms());
}

static void unit_free(struct engine_unit *unit)
{
    struct engine *engine = unit->engine;
    list_remove(&unit->link);
    list_remove(&unit->by_id);
    free(unit->reservations);
    free(unit);
    engine->open_parts++; /* balanced at once: this is where closing goes on when the last unit is gone */
    engine_part_closed(engine);
}

static void unit_deleted(uv_work_t *work, int status)
{
    struct engine_unit *unit = container_of(work, struct engine_unit, work);
    (void)status;
    if (unit->work_status == 0)
        engine_tell_gone(unit->engine, unit->config.volume.id);
    if (unit->phase != ENGINE_VOLUME_DELETING) {
        unit_free(unit); /* the volume is gone */
        return;
    }
    unit->phase = unit->work_status == 0 ? ENGINE_VOLUME_IDLE : ENGINE_VOLUME_FAILED;
    unit->retry_ms = unit_now_ms() + UNIT_RETRY_MS;
    if (unit->work_status == 0)
        unit->config.recorded = unit->granted = 0;
    if (unit->removed || unit->engine->closing)
        engine_unit_close(unit);
    else
        engine_unit_update(unit);
}

static void unit_closed(void *context)
{
    struct engine_unit *unit = context;
    if (!unit->removed || unit->config.replica < 0) {
        unit_free(unit);
        return;
    }
    unit->work_config = unit->config;
    engine_files_paths(unit);
    if (uv_queue_work(&unit->engine->loop, &unit->work, engine_files_delete, unit_deleted) < 0)
        unit_free(unit);
}

void engine_unit_discard(struct engine *engine, const struct engine_volume *volume)
{
    struct engine_unit *unit = calloc(1, sizeof(*unit));
    ASSERT(unit);
    unit->engine = engine;
    unit->config = *volume;
    unit->removed = true;
    unit->phase = ENGINE_VOLUME_CLOSING;
    list_append(&engine->units, &unit->link);
    list_append(engine_bucket(engine, volume->volume.id), &unit->by_id);
    unit_closed(unit);
}

void engine_unit_close(struct engine_unit *unit)
{
    struct engine *engine = unit->engine;
    if (unit->phase == ENGINE_VOLUME_MAKING || unit->phase == ENGINE_VOLUME_SHUTTING || unit->phase == ENGINE_VOLUME_DELETING ||
        unit->phase == ENGINE_VOLUME_CLOSING)
        return; /* what is under way comes back here; closing goes on by itself */
    unit->phase = ENGINE_VOLUME_CLOSING;
    if (engine->target && unit->in_target) {
        list_foreach(link, &engine->iqns)
        {
            struct engine_iqn *iqn = list_entry(link, struct engine_iqn, link);
            for (unsigned lun = 0; lun < TREE_LUNS_MAX; lun++)
                if (iqn->luns[lun] == unit->config.volume.id)
                    iqn->luns[lun] = 0;
        }
        (void)target_server_remove_lu(engine->target, unit->config.volume.id);
    }
    if (!unit->device) {
        unit_closed(unit);
        return;
    }
    unit_say_down(unit);
    struct mirror_device *device = unit->device;
    unit->device = NULL;
    engine_fault_forget(unit);
    mirror_device_close(device, unit_closed, unit);
}

void engine_unit_tick(struct engine_unit *unit, uint64_t now_ms)
{
    const struct tree_volume *volume = &unit->config.volume;
    bool mine = unit->engine->authority && volume->owner == unit->engine->nodeid;
    if ((unit->phase == ENGINE_VOLUME_FAILED || unit->phase == ENGINE_VOLUME_RECORDING) && now_ms >= unit->retry_ms) {
        uint32_t others = volume->isr & ~(unit->config.replica >= 0 ? 1u << unit->config.replica : 0);
        if (mine && others) /* the mirror would ask, but there is none */
            engine_tell_ask_isr(unit->engine, volume->id, volume->epoch, volume->isr_version, others, "its owner cannot open its replica");
        unit->phase = ENGINE_VOLUME_IDLE;
        engine_unit_update(unit);
    }
    if (unit->device && unit->engine->authority && unit->config.replica >= 0 && now_ms >= unit->blank_ms &&
        volume->replicas[unit->config.replica].incarnation != unit->incarnation) {
        unit->blank_ms = now_ms + UNIT_RETRY_MS;
        engine_tell_blank(unit->engine, volume->id, (uint32_t)unit->config.replica, unit->incarnation);
    }
    engine_grow_tick(unit, now_ms);
    engine_live_tick(unit, now_ms);
}
