/* One volume on this node's I/O thread: its files, its mirror device, its logical unit.
 *
 * Happy path: put -> LU in the target (TRANSITION) -> a worker makes or checks the files -> data device and mirror device
 * open -> announced to the peers, configured -> the target is told where the owner is.
 * Failure paths: files cannot be made or opened -> FAILED, tried again every few seconds, the words go to the live figures.
 * Files that this node made before are missing or unreadable -> a blank replica with a new incarnation (I11). */
#define LOG_MODULE "volume"
#include "agent/node/engine_internal.h"

#include "director/base/log.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

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
    if (!unit->in_target) {
        struct target_lu_identity identity = {.volume_id = volume->id, .uuid = volume->uuid, .size_bytes = volume->size_bytes,
                                              .block_bytes = volume->block_bytes, .physical_bytes = 4096, .thin = true};
        (void)snprintf(identity.name, sizeof(identity.name), "%s", volume->name);
        int result = target_server_put_lu(engine->target, &identity);
        if (result < 0) {
            log_error("%s: the target refused its logical unit: %s", volume->name, strerror(-result));
            return;
        }
        unit->in_target = true;
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
    const struct tree_volume *volume = &unit->config.volume;
    struct mirror_config config = {.epoch = volume->epoch, .isr_version = volume->isr_version, .owner = volume->owner,
                                   .isr = (uint8_t)volume->isr, .replica_count = (uint8_t)volume->replica_count};
    for (unsigned i = 0; i < volume->replica_count; i++) {
        config.replicas[i].nodeid = volume->replicas[i].nodeid;
        config.replicas[i].incarnation = volume->replicas[i].incarnation;
    }
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

void engine_unit_announce(struct engine_unit *unit, uint16_t nodeid, bool ask)
{
    struct engine *engine = unit->engine;
    struct peer_header header = {.type = PEER_VOLUME_UP, .flags = ask ? ENGINE_VOLUME_ANSWER : 0,
                                 .object = unit->config.volume.id};
    for (unsigned i = 0; i < engine->link_count; i++)
        if (!nodeid || engine->links[i].nodeid == nodeid)
            IGNORE_RESULT(peer_mesh_send(engine->mesh, engine->links[i].nodeid, &header, NULL, 0));
}

void engine_unit_link_up(struct engine_unit *unit, const struct engine_link *link)
{
    int replica = tree_volume_replica_of(&unit->config.volume, link->nodeid);
    if (replica < 0 || unit->linked & 1u << replica)
        return;
    unit->linked |= 1u << replica;
    mirror_device_link_up(unit->device, link->nodeid, link->boot);
}

void engine_unit_link_down(struct engine_unit *unit, uint16_t nodeid)
{
    int replica = tree_volume_replica_of(&unit->config.volume, nodeid);
    if (replica < 0 || !(unit->linked & 1u << replica))
        return;
    unit->linked &= ~(1u << replica);
    if (unit->device)
        mirror_device_link_down(unit->device, nodeid);
}

/* --- files ------------------------------------------------------------------------------------------------------------- */

static void unit_paths(struct engine_unit *unit)
{
    char uuid[UUID_TEXT_SIZE];
    uuid_format(&unit->work_config.volume.uuid, uuid);
    (void)snprintf(unit->data_path, sizeof(unit->data_path), "%s/%s.data", unit->work_config.store_path, uuid);
    (void)snprintf(unit->metadata_path, sizeof(unit->metadata_path), "%s/%s.meta", unit->work_config.store_path, uuid);
}

static const struct director_plugin *unit_plugin(struct engine_unit *unit, struct error *error)
{
    return plugin_loader_find(unit->engine->options.plugins, DIRECTOR_PLUGIN_BACKSTORE, unit->work_config.plugin, error);
}

/* Worker: make what is missing. Files that were there before (recorded, or half of a pair) and are not whole any more
 * make a blank replica: new files under a new incarnation, which must be committed before they count (I11). */
static void unit_make(uv_work_t *work)
{
    struct engine_unit *unit = container_of(work, struct engine_unit, work);
    const struct tree_volume *volume = &unit->work_config.volume;
    struct error *error = &unit->work_error;
    const struct director_plugin *plugin = unit_plugin(unit, error);
    struct metadata_header header;
    struct mirror_replica_identity identity = {.volume = volume->id, .volume_uuid = volume->uuid,
                                               .node_uuid = unit->engine->options.node_uuid, .size_bytes = volume->size_bytes,
                                               .replica_index = (uint32_t)unit->work_config.replica,
                                               .incarnation = volume->replicas[unit->work_config.replica].incarnation};
    if (!plugin) {
        unit->work_status = -ENOENT;
        return;
    }
    int checked = mirror_replica_check(unit->metadata_path, &header, error);
    bool data_there = access(unit->data_path, F_OK) == 0;
    if (checked == 0 && data_there) {
        unit->work_made = !unit->work_config.replica_recorded;
        unit->work_status = 0;
        return;
    }
    if (checked < 0 && checked != -ENOENT && checked != -EBADMSG) {
        unit->work_status = checked;
        return;
    }
    /* Metadata is made last: with it there, or damaged, or recorded, this replica existed before. */
    bool blank = unit->work_config.replica_recorded || checked != -ENOENT;
    if (blank) {
        if (random_bytes(&identity.incarnation, sizeof(identity.incarnation)) < 0 ||
            plugin_remove(plugin, unit->data_path, error) < 0 || mirror_replica_remove(unit->metadata_path, error) < 0) {
            unit->work_status = -EIO;
            return;
        }
        unit->work_blank = identity.incarnation;
    } else {
        for (unsigned i = 0; i < volume->replica_count; i++)
            identity.incarnations[i] = volume->replicas[i].incarnation;
    }
    int result = plugin_create(plugin, unit->data_path, volume->size_bytes, NULL, error);
    if (result == 0 || result == -EEXIST)
        result = mirror_replica_create(unit->metadata_path, &identity, error);
    unit->work_made = result == 0;
    unit->work_status = result;
}

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
    const struct director_plugin *plugin = unit_plugin(unit, &error);
    const struct director_option data_options[] = {{"block", unit->config.volume.block_bytes == 512 ? "512" : "4096"}, {0}};
    int result = plugin ? plugin_open(plugin, &engine->loop, unit->data_path, NULL, data_options, &data, &error) : -ENOENT;
    if (result < 0) {
        unit_fail(unit, "its replica here cannot be opened", &error);
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
        .transport = {.context = unit, .send = transport_send, .reset = transport_reset},
        .callbacks = {.context = unit, .ask_isr = device_ask_isr, .state = device_state},
    };
    result = mirror_device_open(&engine->loop, &options, &unit->device, &error);
    if (result < 0) {
        block_device_close(data, data_closed, unit);
        unit_fail(unit, "its replica here cannot be opened", &error);
        return;
    }
    unit->phase = ENGINE_VOLUME_OPEN;
    unit->linked = 0;
    if (unit->work_blank)
        engine_tell_blank(engine, unit->config.volume.id, (uint32_t)unit->config.replica, unit->work_blank);
    if (unit->work_made) {
        unit->config.replica_recorded = true;
        engine_tell_made(engine, unit->config.volume.id);
    }
    engine_unit_announce(unit, 0, true);
    engine_unit_update(unit);
}

static void unit_open(struct engine_unit *unit)
{
    unit->work_config = unit->config;
    unit->work_made = false;
    unit->work_blank = 0;
    unit->work_error = (struct error){0};
    unit_paths(unit);
    unit->phase = ENGINE_VOLUME_MAKING;
    int result = uv_queue_work(&unit->engine->loop, &unit->work, unit_make, unit_made);
    if (result < 0) {
        struct error error;
        (void)error_set(&error, result, "%s", uv_strerror(result));
        unit_fail(unit, "no worker", &error);
    }
}

/* --- life -------------------------------------------------------------------------------------------------------------- */

void engine_unit_update(struct engine_unit *unit)
{
    if (unit->removed || unit->engine->closing)
        return;
    /* Before the node's state is current its configuration may be of the past; an owner of the past must not wake up. */
    if (unit->config.replica >= 0 && unit->phase == ENGINE_VOLUME_IDLE && unit->engine->authority)
        unit_open(unit);
    if (unit->device && unit->engine->authority)
        unit_configure(unit);
    unit_target(unit);
}

static void unit_free(struct engine_unit *unit)
{
    struct engine *engine = unit->engine;
    list_remove(&unit->link);
    free(unit);
    engine->open_parts++; /* balanced at once: this is where closing goes on when the last unit is gone */
    engine_part_closed(engine);
}

static void unit_delete(uv_work_t *work)
{
    struct engine_unit *unit = container_of(work, struct engine_unit, work);
    struct error error = {0};
    const struct director_plugin *plugin = unit_plugin(unit, &error);
    int result = mirror_replica_remove(unit->metadata_path, &error);
    if (result == 0 && plugin)
        result = plugin_remove(plugin, unit->data_path, &error);
    if (result < 0)
        log_warning("%s: its files could not be removed: %s", unit->work_config.volume.name, error.message);
}

static void unit_deleted(uv_work_t *work, int status)
{
    (void)status;
    unit_free(container_of(work, struct engine_unit, work));
}

static void unit_closed(void *context)
{
    struct engine_unit *unit = context;
    if (!unit->removed || unit->config.replica < 0) {
        unit_free(unit);
        return;
    }
    unit->work_config = unit->config;
    unit_paths(unit);
    if (uv_queue_work(&unit->engine->loop, &unit->work, unit_delete, unit_deleted) < 0)
        unit_free(unit);
}

void engine_unit_close(struct engine_unit *unit)
{
    struct engine *engine = unit->engine;
    struct peer_header header = {.type = PEER_VOLUME_DOWN, .object = unit->config.volume.id};
    if (unit->phase == ENGINE_VOLUME_MAKING || unit->phase == ENGINE_VOLUME_CLOSING)
        return; /* unit_made() comes back here; closing goes on by itself */
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
    for (unsigned i = 0; i < engine->link_count; i++)
        IGNORE_RESULT(peer_mesh_send(engine->mesh, engine->links[i].nodeid, &header, NULL, 0));
    struct mirror_device *device = unit->device;
    unit->device = NULL;
    mirror_device_close(device, unit_closed, unit);
}

static void unit_figures(struct engine_unit *unit, struct api_live_volume *ret_live, uint64_t now_ms)
{
    struct mirror_device_status status;
    struct api_live_volume live = {.known = true};
    mirror_device_get_status(unit->device, &status);
    live.serving = status.mirror.state == MIRROR_SERVING && unit->engine->authority;
    live.suspended = status.mirror.suspended || !live.serving;
    if (live.suspended)
        (void)snprintf(live.reason, sizeof(live.reason), "%.127s", unit->words);
    live.reads = status.reads;
    live.writes = status.writes;
    live.read_bytes = status.read_bytes;
    live.written_bytes = status.written_bytes;
    live.resynced_bytes = status.mirror.resynced_bytes;
    uint64_t region = metadata_region_bytes(unit->config.volume.size_bytes);
    uint64_t speed = now_ms > unit->rate_ms
                         ? (status.mirror.resynced_bytes - unit->rate_bytes) * 1000 / (now_ms - unit->rate_ms) : 0;
    unit->rate_bytes = status.mirror.resynced_bytes;
    unit->rate_ms = now_ms;
    for (unsigned i = 0; i < unit->config.volume.replica_count; i++) {
        const struct mirror_member_status *member = &status.mirror.members[i];
        live.replica[i].syncing = member->state == MIRROR_MEMBER_SYNCING;
        if (!live.replica[i].syncing)
            continue;
        live.replica[i].total_bytes = member->total_regions * region;
        live.replica[i].done_bytes = (member->total_regions - MIN(member->todo_regions, member->total_regions)) * region;
        live.replica[i].bytes_per_second = speed;
    }
    *ret_live = live;
}

void engine_unit_tick(struct engine_unit *unit, uint64_t now_ms)
{
    struct api_live_volume live;
    if (unit->phase == ENGINE_VOLUME_FAILED && now_ms >= unit->retry_ms) {
        unit->phase = ENGINE_VOLUME_IDLE;
        engine_unit_update(unit);
    }
    if (!unit->device || unit->config.volume.owner != unit->engine->nodeid)
        return;
    unit_figures(unit, &live, now_ms);
    if (!memcmp(&live, &unit->live, sizeof(live)))
        return;
    unit->live = live;
    engine_tell_live(unit->engine, unit->config.volume.id, &live);
}
