/* The files of one volume's replica: made, checked, deleted, on a worker thread.
 *
 * Incarnations (I11). The node's record says which incarnation its files had last; it is durable before a replica takes part,
 * so that no crash makes a disk pass for another one:
 *   no record, no files            -> made with the committed incarnation, recorded, opened
 *   no record, files of committed  -> made a moment before a crash: recorded, opened
 *   record, files of the record    -> opened
 *   record, no or damaged files    -> a blank disk: a new incarnation is recorded, then made, opened, and committed
 *   files of the record, retired   -> the replica was removed and added again, or discarded: a blank disk
 *   files of another incarnation   -> a disk of another time: left alone, refused (scenario 20) */
#define LOG_MODULE "volume"
#include "agent/node/engine_internal.h"

#include "director/base/log.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void engine_files_paths(struct engine_unit *unit)
{
    char uuid[UUID_TEXT_SIZE];
    uuid_format(&unit->work_config.volume.uuid, uuid);
    (void)snprintf(unit->data_path, sizeof(unit->data_path), "%s/%s.data", unit->work_config.store_path, uuid);
    (void)snprintf(unit->metadata_path, sizeof(unit->metadata_path), "%s/%s.meta", unit->work_config.store_path, uuid);
}

const struct director_plugin *engine_files_plugin(struct engine_unit *unit, struct error *error)
{
    return plugin_loader_find(unit->engine->options.plugins, DIRECTOR_PLUGIN_BACKSTORE, unit->work_config.plugin, error);
}

/* Bytes that the data place must have: an open device gets more when the volume grows. */
uint64_t engine_files_wanted(const struct tree_volume *volume)
{
    return MAX(volume->size_bytes, volume->size_wanted);
}

/* Worker: one that is smaller than the volume is made larger; what is new in it reads as zeroes. */
static int data_grow(struct engine_unit *unit, const struct director_plugin *plugin, struct error *error)
{
    uint64_t size_bytes = engine_files_wanted(&unit->work_config.volume);
    struct stat status;
    if (stat(unit->data_path, &status) < 0 || !S_ISREG(status.st_mode) || (uint64_t)status.st_size >= size_bytes)
        return 0; /* not a file: the device tells its size when it is opened */
    return plugin_grow(plugin, unit->data_path, size_bytes, error);
}

/* Worker: the data file, empty where it was not there. Old bytes are left as they are: a new incarnation is synced in full, and
 * until then they may be the last copy there is. */
static int make_data(struct engine_unit *unit, const struct director_plugin *plugin, struct error *error)
{
    uint64_t size_bytes = engine_files_wanted(&unit->work_config.volume);
    int result = plugin_create(plugin, unit->data_path, size_bytes, NULL, error);
    if (result != -EEXIST)
        return result;
    return data_grow(unit, plugin, error);
}

/* Worker: look at the files, make them when that is due. What comes out of it is said at the top. */
void engine_files_make(uv_work_t *work)
{
    struct engine_unit *unit = container_of(work, struct engine_unit, work);
    const struct tree_volume *volume = &unit->work_config.volume;
    struct error *error = &unit->work_error;
    const struct director_plugin *plugin = engine_files_plugin(unit, error);
    uint64_t committed = volume->replicas[unit->work_config.replica].incarnation, recorded = unit->work_config.recorded;
    struct metadata_header header;
    struct mirror_replica_identity identity = {.volume = volume->id, .volume_uuid = volume->uuid,
                                               .node_uuid = unit->engine->options.node_uuid, .size_bytes = volume->size_bytes,
                                               .replica_index = (uint32_t)unit->work_config.replica};
    unit->work_status = plugin ? 0 : -ENOENT;
    if (!plugin)
        return;
    int checked = mirror_replica_check(unit->metadata_path, &header, error);
    bool data_there = access(unit->data_path, F_OK) == 0;
    if (checked == 0 && header.incarnation == recorded && tree_volume_retired(volume, recorded)) {
        /* First of all, so that they cannot be taken for a disk that was put back; the data file keeps its bytes. */
        unit->work_status = mirror_replica_remove(unit->metadata_path, error);
        if (unit->work_status < 0)
            return;
        checked = -ENOENT;
    }
    if (checked == 0 && data_there) {
        unit->work_status = data_grow(unit, plugin, error); /* the volume may have grown meanwhile */
        if (unit->work_status < 0)
            return;
        unit->work_incarnation = header.incarnation;
        if (header.incarnation != (recorded ? recorded : committed))
            unit->work_status = error_set(error, -EMEDIUMTYPE, "%s is not the disk that was in use last; bring that one back, or "
                                          "remove this file to have the replica made anew", unit->metadata_path);
        else if (!recorded)
            unit->work_record = header.incarnation;
        return;
    }
    if (checked < 0 && checked != -ENOENT && checked != -EBADMSG) {
        unit->work_status = checked;
        return;
    }
    /* Metadata is made last: with it there, or damaged, or recorded, this replica existed before. */
    if (!recorded && checked == -ENOENT) {
        identity.incarnation = committed;
        identity.checksum = volume->policy.checksum; /* nothing was ever written to its data */
        /* One that is made later knows nothing of the others' marks: they are sent to it while it is synced. */
        for (unsigned i = 0; i < volume->replica_count && volume->isr >> unit->work_config.replica & 1; i++)
            identity.incarnations[i] = volume->replicas[i].incarnation;
    } else if (recorded && recorded == unit->work_granted) {
        identity.incarnation = recorded;
        unit->work_status = mirror_replica_remove(unit->metadata_path, error);
    } else {
        unit->work_blank = true;
        unit->work_status = random_bytes(&unit->work_record, sizeof(unit->work_record));
        unit->work_record |= 1; /* never 0 */
        return;
    }
    if (unit->work_status == 0)
        unit->work_status = make_data(unit, plugin, error);
    if (unit->work_status == 0)
        unit->work_status = mirror_replica_create(unit->metadata_path, &identity, error);
    unit->work_incarnation = identity.incarnation;
    if (!recorded)
        unit->work_record = identity.incarnation;
}

/* Worker: metadata first, so that what is left after a crash is no replica. */
void engine_files_delete(uv_work_t *work)
{
    struct engine_unit *unit = container_of(work, struct engine_unit, work);
    struct error error = {0};
    const struct director_plugin *plugin = engine_files_plugin(unit, &error);
    int result = mirror_replica_remove(unit->metadata_path, &error);
    if (result == 0 && plugin)
        result = plugin_remove(plugin, unit->data_path, &error);
    if (result < 0)
        log_warning("%s: its files could not be removed: %s", unit->work_config.volume.name, error.message);
    unit->work_status = result;
}
