/* What the I/O thread says of its volumes: figures of those that this node owns, of its own replicas, and the checks (verify,
 * scrub) that it runs for the control thread.
 *
 * A check is wanted (engine_set_check) until it is not any more. It is started when the mirror serves, and started again from
 * where it was after anything that ended it before its end: another owner meanwhile, the device closed and opened. Its figures
 * are those it came with (of an earlier owner) plus what was found since. */
#define LOG_MODULE "volume"
#include "agent/node/engine_internal.h"

#include "director/base/log.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

static void member_figures(const struct engine_unit *unit, const struct mirror_member_status *member, uint64_t speed,
                           unsigned place, struct api_live_volume *live)
{
    uint64_t region = metadata_region_bytes(unit->config.volume.size_bytes);
    live->replica[place].dirty_bytes = member->dirty_regions * region;
    live->replica[place].read_errors = member->read_errors;
    live->replica[place].repaired_blocks = member->repaired_blocks;
    live->replica[place].left_ms = UINT64_MAX;
    live->replica[place].syncing = member->state == MIRROR_MEMBER_SYNCING;
    if (!live->replica[place].syncing)
        return;
    live->replica[place].compared_bytes = member->compared_bytes;
    live->replica[place].sent_bytes = member->sent_bytes;
    if (member->total_bytes) {
        live->replica[place].total_bytes = member->total_bytes;
        live->replica[place].done_bytes = member->done_bytes;
        live->replica[place].bytes_per_second = member->bytes_per_second;
        live->replica[place].left_ms = member->left_ms;
        return;
    }
    live->replica[place].total_bytes = member->total_regions * region;
    live->replica[place].done_bytes = (member->total_regions - MIN(member->todo_regions, member->total_regions)) * region;
    live->replica[place].bytes_per_second = speed;
}

static void owner_figures(struct engine_unit *unit, const struct mirror_device_status *status, uint64_t now_ms,
                          struct api_live_volume *live)
{
    live->serving = status->mirror.state == MIRROR_SERVING && unit->engine->authority;
    live->suspended = status->mirror.suspended || !live->serving;
    if (live->suspended)
        (void)snprintf(live->reason, sizeof(live->reason), "%.127s", unit->words);
    live->reads = status->reads;
    live->writes = status->writes;
    live->read_bytes = status->read_bytes;
    live->written_bytes = status->written_bytes;
    live->resynced_bytes = status->mirror.resynced_bytes;
    live->repaired_blocks = status->mirror.repaired_blocks;
    uint64_t speed = now_ms > unit->rate_ms
                         ? (status->mirror.resynced_bytes - unit->rate_bytes) * 1000 / (now_ms - unit->rate_ms) : 0;
    unit->rate_bytes = status->mirror.resynced_bytes;
    unit->rate_ms = now_ms;
    for (unsigned i = 0; i < unit->config.volume.replica_count; i++)
        member_figures(unit, &status->mirror.members[i], speed, i, live);
}

/* ---- checks ----------------------------------------------------------------------------------------------------------- */

void engine_unit_check(struct engine_unit *unit, const struct engine_check *check)
{
    if (unit->check.task == check->task)
        return;
    if (unit->check_started && unit->device)
        (void)mirror_device_check_stop(unit->device);
    unit->check = *check;
    unit->check_started = false;
    memset(&unit->check_now, 0, sizeof(unit->check_now));
}

static void check_start(struct engine_unit *unit)
{
    struct mirror_check_options options = {.kind = unit->check.kind, .repair = unit->check.repair, .from_offset = unit->check.from};
    int result = mirror_device_check_start(unit->device, &options);
    if (result == -EBUSY) { /* one that is wanted no more */
        (void)mirror_device_check_stop(unit->device);
        return;
    }
    unit->check_started = result == 0;
    if (result == 0)
        log_info("%s: task %" PRIu64 " goes on from %" PRIu64, unit->config.volume.name, unit->check.task, unit->check.from);
}

/* It ended before its end: what it found stays found. */
static void check_fold(struct engine_unit *unit)
{
    unit->check.from = MAX(unit->check.from, unit->check_now.position);
    unit->check.mismatches += unit->check_now.mismatches;
    unit->check.bad_blocks += unit->check_now.bad_blocks;
    unit->check.repaired += unit->check_now.repaired;
    unit->check.unrepaired += unit->check_now.failed;
    memset(&unit->check_now, 0, sizeof(unit->check_now));
    unit->check_started = false;
}

static void check_figures(const struct engine_unit *unit, struct api_live_check *figures)
{
    const struct mirror_check_status *now = &unit->check_now;
    *figures = (struct api_live_check){
        .task = unit->check.task,
        .waiting = !unit->check_started || now->state == MIRROR_CHECK_WAITING,
        .ended = now->state == MIRROR_CHECK_DONE,
        .position = MAX(unit->check.from, now->position),
        .total_bytes = now->total_bytes ? now->total_bytes : unit->config.volume.size_bytes,
        .bytes_per_second = now->bytes_per_second,
        .left_ms = unit->check_started ? now->left_ms : UINT64_MAX,
        .mismatches = unit->check.mismatches + now->mismatches,
        .bad_blocks = unit->check.bad_blocks + now->bad_blocks,
        .repaired = unit->check.repaired + now->repaired,
        .unrepaired = unit->check.unrepaired + now->failed,
        .found_count = MIN(now->finding_count, (uint32_t)ARRAY_SIZE(figures->found)),
    };
    for (unsigned i = 0; i < figures->found_count; i++) {
        figures->found[i].offset = now->findings[i].offset;
        figures->found[i].length = now->findings[i].length;
        figures->found[i].replicas = now->findings[i].members;
    }
}

static void check_tick(struct engine_unit *unit, const struct mirror_device_status *status, struct api_live_volume *live)
{
    if (!unit->check.task)
        return;
    if (unit->check_started) {
        const struct mirror_check_status *now = &status->mirror.check;
        if (now->state == MIRROR_CHECK_IDLE || now->state == MIRROR_CHECK_STOPPED) {
            if (now->state == MIRROR_CHECK_STOPPED)
                unit->check_now = *now;
            check_fold(unit);
        } else {
            unit->check_now = *now;
        }
    }
    if (!unit->check_started && status->mirror.state == MIRROR_SERVING)
        check_start(unit);
    check_figures(unit, &live->check);
}

/* ---- at each tick ----------------------------------------------------------------------------------------------------- */

static void own_tick(struct engine_unit *unit, const struct mirror_device_status *status)
{
    struct api_live_replica own = {.failed = status->replica.failed, .intent_marks = status->replica.intent_regions,
                                   .checksum_errors = status->checksum_errors,
                                   .carry_marks = status->replica.carry_regions, .sealed_epoch = status->replica.sealed_epoch};
    if (!status->has_replica || memcmp(&own, &unit->own, sizeof(own)) == 0)
        return;
    unit->own = own;
    engine_tell_own(unit->engine, unit->config.volume.id, &own);
}

void engine_live_tick(struct engine_unit *unit, uint64_t now_ms)
{
    struct mirror_device_status status;
    struct api_live_volume live;
    memset(&live, 0, sizeof(live)); /* compared as bytes */
    live.known = true;
    if (!unit->device) {
        if (unit->check_started)
            check_fold(unit);
        return;
    }
    mirror_device_get_status(unit->device, &status);
    own_tick(unit, &status);
    if (unit->config.volume.owner != unit->engine->nodeid)
        return;
    owner_figures(unit, &status, now_ms, &live);
    check_tick(unit, &status, &live);
    if (!memcmp(&live, &unit->live, sizeof(live)))
        return;
    unit->live = live;
    engine_tell_live(unit->engine, unit->config.volume.id, &live);
}
