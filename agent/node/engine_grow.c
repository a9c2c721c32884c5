/* Growing, as far as one node's files go: when the volume is to be larger, or is, and this node's data place is not, a worker makes
 * it so, the open device takes the size over, and the control thread is told for VolumeGrown. The volume itself has the new size
 * when the committed configuration says so; the metadata follow with the first SEAL of that epoch (replication/README).
 * What fails is tried again every few seconds; a replica that is not open gets its size when it is opened. */
#define LOG_MODULE "grow"
#include "agent/node/engine_internal.h"

#include "director/base/log.h"
#include "director/base/size.h"

#define GROW_RETRY_MS 3000u

/* Of its own: the unit may close meanwhile. */
struct grow_job {
    uv_work_t work;
    struct engine *engine;
    const struct director_plugin *plugin;
    uint64_t volume, size_bytes, incarnation;
    char path[TREE_PATH_SIZE + 64];
    int status;
    struct error error;
};

static void job_run(uv_work_t *work)
{
    struct grow_job *job = container_of(work, struct grow_job, work);
    job->status = plugin_grow(job->plugin, job->path, job->size_bytes, &job->error);
}

static void job_done(uv_work_t *work, int status)
{
    struct grow_job *job = container_of(work, struct grow_job, work);
    struct engine *engine = job->engine;
    struct engine_unit *unit = engine->closing ? NULL : engine_unit_find(engine, job->volume);
    bool same = unit && unit->growing && unit->incarnation == job->incarnation;
    if (unit)
        unit->growing = false;
    if (status < 0)
        job->status = error_set(&job->error, status, "%s", uv_strerror(status));
    if (same && unit->device && job->status == 0) {
        job->status = block_device_refresh(unit->data);
        if (job->status < 0)
            (void)error_set(&job->error, job->status, "an open %s device cannot grow", unit->data->kind);
        else
            mirror_device_data_grown(unit->device);
    }
    if (unit && job->status < 0) {
        log_error("%s: this node's replica cannot be made larger: %s", unit->config.volume.name, job->error.message);
        (void)snprintf(unit->words, sizeof(unit->words), "cannot grow: %.140s", job->error.message);
    } else if (same && unit->device) {
        char text[SIZE_TEXT_SIZE];
        log_info("%s: this node's replica has room for %s", unit->config.volume.name, size_format_exact(job->size_bytes, text));
        unit->grow_ms = 0; /* tell at once */
        engine_grow_tick(unit, uv_hrtime() / 1000000);
    }
    free(job);
    engine_part_closed(engine);
}

static void grow_start(struct engine_unit *unit, uint64_t size_bytes)
{
    struct engine *engine = unit->engine;
    struct grow_job *job = calloc(1, sizeof(*job));
    ASSERT(job);
    job->engine = engine;
    job->volume = unit->config.volume.id;
    job->size_bytes = size_bytes;
    job->incarnation = unit->incarnation;
    (void)snprintf(job->path, sizeof(job->path), "%s", unit->data_path);
    job->plugin = engine_files_plugin(unit, &job->error);
    if (!job->plugin || uv_queue_work(&engine->loop, &job->work, job_run, job_done) < 0) {
        free(job);
        return;
    }
    unit->growing = true;
    engine->open_parts++;
}

void engine_grow_tick(struct engine_unit *unit, uint64_t now_ms)
{
    const struct tree_volume *volume = &unit->config.volume;
    uint64_t wanted = engine_files_wanted(volume);
    if (!unit->device || !unit->engine->authority || unit->config.replica < 0 || unit->growing || now_ms < unit->grow_ms)
        return;
    if (unit->data->geometry.size_bytes < wanted) {
        unit->grow_ms = now_ms + GROW_RETRY_MS;
        grow_start(unit, wanted);
    } else if (volume->size_wanted && !(volume->grown >> unit->config.replica & 1)) {
        unit->grow_ms = now_ms + GROW_RETRY_MS;
        engine_tell_grown(unit->engine, volume->id, (uint32_t)unit->config.replica, volume->size_wanted, unit->incarnation);
    }
}
