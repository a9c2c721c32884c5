#include "tests/cluster/ioverify_path.h"
#include "director/base/bytes.h"

#include <poll.h>

#define PATH_RECONNECT_MS 100
#define PATH_PROBE_MS     200
#define PATH_PROBE_FAST   30

enum { PROBE_READY, PROBE_IDENTITY, PROBE_CAPACITY, PROBE_GROUPS, PROBE_STEPS };

static void path_probe(struct path *path, uint64_t now_ms);
static uint64_t clock_ms; /* of the turn: libiscsi's callbacks carry none */

void path_init(struct path *path, const struct path_settings *settings, const char *portal, unsigned index)
{
    memset(path, 0, sizeof(*path));
    path->settings = settings;
    path->portal = portal;
    path->index = index;
    list_init(&path->under_way);
    list_init(&path->probe.link);
}

void path_fail(struct path *path, const char *why)
{
    if (path->failed || path->state == PATH_DOWN)
        return;
    path->failed = true;
    (void)snprintf(path->why, sizeof(path->why), "%s", why);
}

/* Throw the session away. libiscsi calls back everything under way with CANCELLED, which is ignored here: after that, all
 * are handed back in one place. */
static void path_tear_down(struct path *path, uint64_t now_ms)
{
    struct list lost;
    bool was_ready = path->state == PATH_READY;
    path->tearing = true;
    if (path->iscsi)
        (void)iscsi_destroy_context(path->iscsi);
    path->iscsi = NULL;
    path->tearing = path->failed = path->probing = path->ping_under_way = false;
    path->state = PATH_DOWN;
    path->failures++;
    path->next_try_ms = now_ms + (was_ready ? 0 : PATH_RECONNECT_MS);
    list_init(&lost);
    list_splice(&lost, &path->under_way);
    while (!list_empty(&lost)) {
        struct path_io *io = list_first(&lost, struct path_io, link);
        list_remove(&io->link);
        scsi_free_scsi_task(io->task);
        io->task = NULL;
        if (!io->probe)
            path->settings->lost(io);
    }
    if (path->settings->verbose)
        fprintf(stderr, "path %s: down: %s\n", path->portal, path->why);
}

void path_done(struct path *path)
{
    if (path->iscsi)
        path_tear_down(path, 0);
}

static void path_login_done(struct iscsi_context *iscsi, int status, void *data, void *context)
{
    struct path *path = context;
    (void)data;
    if (path->tearing)
        return;
    if (status != SCSI_STATUS_GOOD) {
        path_fail(path, status == SCSI_STATUS_ERROR ? iscsi_get_error(iscsi) : "login was cut off");
        return;
    }
    path->state = PATH_PROBING;
    path->probe_step = PROBE_READY;
    path->probe_at_ms = 0;
    path->heard_ms = clock_ms;
    path->logins++;
    path->settings->logged_in(path);
}

static void path_connect_done(struct iscsi_context *iscsi, int status, void *data, void *context)
{
    struct path *path = context;
    (void)data;
    if (path->tearing)
        return;
    if (status != SCSI_STATUS_GOOD || iscsi_login_async(iscsi, path_login_done, path) != 0)
        path_fail(path, iscsi_get_error(iscsi));
}

static void path_connect(struct path *path, uint64_t now_ms)
{
    path->state = PATH_CONNECTING;
    path->started_ms = now_ms;
    path->access_state = 0;
    path->avoid_until_ms = 0;
    path->iscsi = iscsi_create_context(path->settings->initiator);
    if (!path->iscsi) {
        path_fail(path, "no memory for a session");
        return;
    }
    iscsi_set_noautoreconnect(path->iscsi, 1);
    if (iscsi_set_isid_random(path->iscsi, path->settings->isid, path->index) != 0 ||
        iscsi_set_targetname(path->iscsi, path->settings->target) != 0 ||
        iscsi_set_session_type(path->iscsi, ISCSI_SESSION_NORMAL) != 0 ||
        iscsi_set_header_digest(path->iscsi, ISCSI_HEADER_DIGEST_NONE) != 0 ||
        iscsi_connect_async(path->iscsi, path->portal, path_connect_done, path) != 0)
        path_fail(path, iscsi_get_error(path->iscsi));
}

/* What an answer means for the command. SAM-5 §5.3, SPC-4 §4.5. */
static enum path_outcome status_outcome(const struct scsi_task *task, int status, uint64_t *ret_delay_ms, char *words,
                                        size_t size)
{
    int code = task->sense.ascq >> 8;
    *ret_delay_ms = 0;
    switch (status) {
    case SCSI_STATUS_GOOD:
        return PATH_GOOD;
    case SCSI_STATUS_BUSY:
    case SCSI_STATUS_TASK_SET_FULL:
        *ret_delay_ms = 10;
        (void)snprintf(words, size, "busy");
        return PATH_RETRY;
    case SCSI_STATUS_TASK_ABORTED:
        (void)snprintf(words, size, "task aborted");
        return PATH_RETRY;
    case SCSI_STATUS_CHECK_CONDITION:
        break;
    default:
        (void)snprintf(words, size, "SCSI status 0x%x", (unsigned)status);
        return PATH_HARD;
    }
    (void)snprintf(words, size, "%s, %s (0x%04x)", scsi_sense_key_str(task->sense.key), scsi_sense_ascq_str(task->sense.ascq),
                   (unsigned)task->sense.ascq);
    switch ((int)task->sense.key) {
    case SCSI_SENSE_UNIT_ATTENTION:
    case SCSI_SENSE_COMMAND_ABORTED:
        return PATH_RETRY;
    case SCSI_SENSE_NOT_READY:
        *ret_delay_ms = 20;
        return PATH_RETRY;
    case SCSI_SENSE_ILLEGAL_REQUEST:
        /* LOGICAL UNIT NOT SUPPORTED: a node that has just come up and does not know the LUN yet. */
        *ret_delay_ms = 100;
        return code == 0x25 ? PATH_RETRY : PATH_HARD;
    default:
        return PATH_HARD;
    }
}

static void path_io_done(struct iscsi_context *iscsi, int status, void *data, void *context)
{
    struct path_io *io = context;
    struct path *path = io->path;
    char words[160] = "";
    uint64_t delay_ms;
    (void)data;
    if (path->tearing)
        return;
    if (status >= SCSI_STATUS_CANCELLED) {
        path_fail(path, status == SCSI_STATUS_ERROR ? iscsi_get_error(iscsi) : "the connection broke");
        return; /* handed back when torn down */
    }
    enum path_outcome outcome = status_outcome(io->task, status, &delay_ms, words, sizeof(words));
    if (outcome == PATH_GOOD && io->task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL) {
        outcome = PATH_HARD;
        (void)snprintf(words, sizeof(words), "transferred too few or too many bytes");
    }
    if (outcome == PATH_RETRY) {
        path->probe_at_ms = 0; /* look at the port group's state at once */
        if (delay_ms)
            path->avoid_until_ms = clock_ms + delay_ms;
    }
    list_remove(&io->link);
    scsi_free_scsi_task(io->task);
    io->task = NULL;
    path->settings->answered(io, outcome, delay_ms, words);
}

static void path_queue(struct path *path, struct path_io *io, struct scsi_task *task, iscsi_command_cb done, uint64_t now_ms)
{
    io->path = path;
    io->task = task;
    io->sent_ms = now_ms;
    if (list_empty(&path->under_way) && !path->ping_under_way)
        path->heard_ms = now_ms; /* nothing was owed until now */
    list_append(&path->under_way, &io->link);
    if (iscsi_scsi_command_async(path->iscsi, path->settings->lun, task, done, NULL, io) != 0)
        path_fail(path, iscsi_get_error(path->iscsi));
}

static struct scsi_task *task_new(unsigned char *cdb, int size, int direction, uint32_t length)
{
    struct scsi_task *task = scsi_create_task(size, cdb, direction, (int)length);
    ASSERT(task);
    return task;
}

void path_send(struct path *path, struct path_io *io, bool write, uint64_t offset_bytes, void *buffer, uint32_t length,
               uint64_t now_ms)
{
    /* READ(16) and WRITE(16): SBC-3 §5.14, §5.36 */
    unsigned char cdb[16] = {write ? 0x8a : 0x88};
    put_be64(cdb + 2, offset_bytes / path->block_bytes);
    put_be32(cdb + 10, length / path->block_bytes);
    struct scsi_task *task = task_new(cdb, sizeof(cdb), write ? SCSI_XFER_WRITE : SCSI_XFER_READ, length);
    int result = write ? scsi_task_add_data_out_buffer(task, (int)length, buffer)
                       : scsi_task_add_data_in_buffer(task, (int)length, buffer);
    ASSERT(result == 0);
    io->probe = false;
    path_queue(path, io, task, path_io_done, now_ms);
}

/* VPD page 83h: the target port group designator. SPC-4 §7.8.6.8 */
static unsigned identity_group(const uint8_t *page, int size)
{
    for (int at = 4; at + 4 <= size;) {
        int length = page[at + 3];
        if ((page[at + 1] & 15) == 5 && length >= 4 && at + 8 <= size)
            return get_be16(page + at + 6);
        at += 4 + length;
    }
    return 0;
}

/* REPORT TARGET PORT GROUPS data. SPC-4 §6.37, table 306 */
static unsigned groups_state(const uint8_t *data, int size, unsigned group)
{
    for (int at = 4; at + 8 <= size; at += 8 + 4 * data[at + 7])
        if (get_be16(data + at + 2) == group)
            return data[at] & 15;
    return 0;
}

static void probe_take(struct path *path, const struct scsi_task *task)
{
    const uint8_t *data = task->datain.data;
    int size = data ? task->datain.size : 0;
    switch (path->probe_step) {
    case PROBE_IDENTITY:
        path->group = size > 4 ? identity_group(data, size) : 0;
        break;
    case PROBE_CAPACITY:
        if (size >= 12) {
            path->block_bytes = get_be32(data + 8);
            path->size_bytes = (get_be64(data) + 1) * path->block_bytes;
        }
        if (path->block_bytes == 0 || 4096 % path->block_bytes)
            path_fail(path, "the LUN's block size is none that fits 4096");
        break;
    case PROBE_GROUPS: {
        unsigned before = path->access_state;
        path->access_state = groups_state(data, size, path->group);
        if (path->settings->verbose && (path->state != PATH_READY || before != path->access_state))
            fprintf(stderr, "path %s: ready, group %u, access state %u\n", path->portal, path->group, path->access_state);
        break;
    }
    default:
        break;
    }
}

static void path_probe_done(struct iscsi_context *iscsi, int status, void *data, void *context)
{
    struct path_io *io = context;
    struct path *path = io->path;
    char words[160] = "";
    uint64_t delay_ms;
    (void)data;
    if (path->tearing)
        return;
    if (status >= SCSI_STATUS_CANCELLED) {
        path_fail(path, status == SCSI_STATUS_ERROR ? iscsi_get_error(iscsi) : "the connection broke");
        return;
    }
    enum path_outcome outcome = status_outcome(io->task, status, &delay_ms, words, sizeof(words));
    path->probing = false;
    path->probe_at_ms = clock_ms + PATH_PROBE_FAST;
    /* A target without port groups or identity answers ILLEGAL REQUEST: then every path is as good. */
    if (outcome == PATH_GOOD || (outcome == PATH_HARD && (path->probe_step == PROBE_IDENTITY || path->probe_step == PROBE_GROUPS))) {
        if (outcome == PATH_GOOD)
            probe_take(path, io->task);
        else
            path->access_state = 0;
        if (path->probe_step + 1 < PROBE_STEPS) {
            path->probe_step++;
            path->probe_at_ms = 0;
        } else {
            if (path->state != PATH_READY)
                path->state = PATH_READY;
            path->probe_at_ms = clock_ms + PATH_PROBE_MS;
        }
    } else if (outcome == PATH_HARD) {
        path_fail(path, words);
    }
    list_remove(&io->link);
    scsi_free_scsi_task(io->task);
    io->task = NULL;
}

static void path_probe(struct path *path, uint64_t now_ms)
{
    struct scsi_task *task;
    switch (path->probe_step) {
    case PROBE_READY: {
        unsigned char cdb[6] = {0x00};
        task = task_new(cdb, sizeof(cdb), SCSI_XFER_NONE, 0);
        break;
    }
    case PROBE_IDENTITY: {
        unsigned char cdb[6] = {0x12, 1, 0x83, 0, 255};
        task = task_new(cdb, sizeof(cdb), SCSI_XFER_READ, 255);
        break;
    }
    case PROBE_CAPACITY: {
        unsigned char cdb[16] = {0x9e, 0x10};
        put_be32(cdb + 10, 32);
        task = task_new(cdb, sizeof(cdb), SCSI_XFER_READ, 32);
        break;
    }
    default: {
        unsigned char cdb[12] = {0xa3, 0x0a};
        put_be32(cdb + 6, 4096);
        task = task_new(cdb, sizeof(cdb), SCSI_XFER_READ, 4096);
        break;
    }
    }
    path->probing = true;
    path->probe.probe = true;
    path_queue(path, &path->probe, task, path_probe_done, now_ms);
}

static void path_ping_done(struct iscsi_context *iscsi, int status, void *data, void *context)
{
    struct path *path = context;
    (void)iscsi;
    (void)data;
    if (path->tearing)
        return;
    path->ping_under_way = false;
    if (status >= SCSI_STATUS_CANCELLED)
        path_fail(path, "the connection broke");
}

static void path_watch(struct path *path, uint64_t now_ms)
{
    const struct path_settings *settings = path->settings;
    char why[120];
    if (list_empty(&path->under_way) && !path->ping_under_way)
        return;
    uint64_t silent_ms = now_ms - path->heard_ms;
    if (silent_ms >= settings->timeout_ms) {
        (void)snprintf(why, sizeof(why), "no word from the target for %llu ms", (unsigned long long)silent_ms);
        path_fail(path, why);
        return;
    }
    if (silent_ms >= settings->timeout_ms / 2 && !path->ping_under_way) {
        path->ping_under_way = true;
        if (iscsi_nop_out_async(path->iscsi, path_ping_done, NULL, 0, path) != 0)
            path_fail(path, iscsi_get_error(path->iscsi));
    }
    if (list_empty(&path->under_way))
        return;
    const struct path_io *oldest = list_first(&path->under_way, struct path_io, link);
    if (now_ms - oldest->sent_ms >= settings->command_timeout_ms) {
        (void)snprintf(why, sizeof(why), "a command is unanswered for %llu ms", (unsigned long long)(now_ms - oldest->sent_ms));
        path_fail(path, why);
    }
}

void path_tick(struct path *path, uint64_t now_ms)
{
    clock_ms = now_ms;
    if (path->state == PATH_DOWN && now_ms >= path->next_try_ms)
        path_connect(path, now_ms);
    if (path->failed) {
        path_tear_down(path, now_ms);
        return;
    }
    switch (path->state) {
    case PATH_DOWN:
        break;
    case PATH_CONNECTING:
        if (now_ms - path->started_ms >= MAX(path->settings->timeout_ms, 1000))
            path_fail(path, "no answer to connect or login");
        break;
    case PATH_PROBING:
    case PATH_READY:
        if (!path->probing && now_ms >= path->probe_at_ms)
            path_probe(path, now_ms);
        path_watch(path, now_ms);
        break;
    }
    if (path->failed)
        path_tear_down(path, now_ms);
}

int path_poll(struct path *path, short *ret_events)
{
    if (!path->iscsi || path->failed)
        return -1;
    *ret_events = (short)iscsi_which_events(path->iscsi);
    return iscsi_get_fd(path->iscsi);
}

void path_service(struct path *path, short events, uint64_t now_ms)
{
    clock_ms = now_ms;
    if (!path->iscsi || path->failed)
        return;
    if (events & POLLIN)
        path->heard_ms = now_ms;
    if (iscsi_service(path->iscsi, events) != 0)
        path_fail(path, iscsi_get_error(path->iscsi));
}

bool path_usable(const struct path *path, uint64_t now_ms)
{
    return path->state == PATH_READY && !path->failed && now_ms >= path->avoid_until_ms && path->access_state <= 1;
}
