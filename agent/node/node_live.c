/* Live figures of volumes: what this node's engine says of those it owns and of its own replicas, told to the peers over the
 * control links, and what they tell of theirs. For status only, never for decisions. Of an owner's figures what was heard last is
 * kept: when all that is newer is gone, an operator wants to know it (preview of force). */
#define LOG_MODULE "live"
#include "agent/node/node.h"

#include <proto/director.pb-c.h>
#include <string.h>

#define LIVE_SEND_MS     1000u
#define LIVE_FORGET_MS   5000u
#define LIVE_BATCH       128u /* volumes in one frame */

static struct node_live *live_find(struct node *node, uint64_t volume)
{
    list_foreach(link, &node->live)
    {
        struct node_live *live = list_entry(link, struct node_live, link);
        if (live->volume == volume)
            return live;
    }
    return NULL;
}

/* NULL: there is no such volume, or no memory. */
static struct node_live *live_get(struct node *node, uint64_t volume)
{
    struct node_live *live = live_find(node, volume);
    if (live || !tree_volume_by_id(node->tree, volume))
        return live;
    live = calloc(1, sizeof(*live));
    if (!live)
        return NULL;
    live->volume = volume;
    list_append(&node->live, &live->link);
    return live;
}

static void live_put(struct node *node, uint16_t nodeid, uint64_t volume, const struct api_live_volume *figures)
{
    struct node_live *live = live_get(node, volume);
    if (!live)
        return;
    live->nodeid = nodeid;
    live->heard_ms = node_now_ms(node);
    live->figures = *figures;
    live->known = true;
}

static void own_put(struct node *node, uint16_t nodeid, uint64_t volume, const struct api_live_replica *figures)
{
    struct node_live *live = live_get(node, volume);
    const struct tree_volume *now = tree_volume_by_id(node->tree, volume);
    if (!live || !now || tree_volume_replica_of(now, nodeid) < 0)
        return;
    unsigned place = TREE_REPLICAS_MAX;
    for (unsigned i = TREE_REPLICAS_MAX; i-- > 0;)
        if (!live->own[i].nodeid || tree_volume_replica_of(now, live->own[i].nodeid) < 0)
            place = i;
    for (unsigned i = 0; i < TREE_REPLICAS_MAX; i++)
        if (live->own[i].nodeid == nodeid)
            place = i;
    if (place == TREE_REPLICAS_MAX)
        return;
    live->own[place].nodeid = nodeid;
    live->own[place].heard_ms = node_now_ms(node);
    live->own[place].figures = *figures;
}

void node_live_figures(void *context, uint64_t volume, const struct api_live_volume *figures)
{
    struct node *node = context;
    const struct node_live *old = live_find(node, volume);
    struct api_live_volume named = *figures;
    node_task_words(node, volume, &named.check);
    figures = &named;
    node_task_figures(node, volume, &figures->check);
    bool urgent = !old || !old->known || old->figures.serving != figures->serving || old->figures.suspended != figures->suspended ||
                  memcmp(old->figures.replica, figures->replica, sizeof(old->figures.replica)) != 0;
    live_put(node, node->self.nodeid, volume, figures);
    if (urgent)
        node->live_sent_ms = 0;
}

void node_live_own(void *context, uint64_t volume, const struct api_live_replica *figures)
{
    struct node *node = context;
    own_put(node, node->self.nodeid, volume, figures);
}

bool node_live_volume(struct node *node, uint64_t volume_id, struct api_live_volume *ret_figures)
{
    const struct node_live *live = live_find(node, volume_id);
    const struct tree_volume *volume = tree_volume_by_id(node->tree, volume_id);
    if (!live || !live->known || !volume || live->nodeid != volume->owner ||
        (live->nodeid != node->self.nodeid && node_now_ms(node) - live->heard_ms > LIVE_FORGET_MS))
        return false;
    *ret_figures = live->figures;
    return true;
}

bool node_live_volume_last(struct node *node, uint64_t volume_id, struct api_live_volume *ret_figures)
{
    const struct node_live *live = live_find(node, volume_id);
    if (!live || !live->known)
        return false;
    *ret_figures = live->figures;
    return true;
}

bool node_live_replica(struct node *node, uint64_t volume_id, uint16_t nodeid, struct api_live_replica *ret_figures)
{
    const struct node_live *live = live_find(node, volume_id);
    for (unsigned i = 0; live && i < TREE_REPLICAS_MAX; i++) {
        if (live->own[i].nodeid != nodeid ||
            (nodeid != node->self.nodeid && node_now_ms(node) - live->own[i].heard_ms > LIVE_FORGET_MS))
            continue;
        *ret_figures = live->own[i].figures;
        return true;
    }
    return false;
}

/* ---- to the peers ----------------------------------------------------------------------------------------------------- */

/* Memory of one message. */
struct batch {
    Director__LiveVolumes message;
    Director__LiveVolume volumes[LIVE_BATCH], *volume_pointers[LIVE_BATCH];
    Director__LiveReplica replicas[LIVE_BATCH][TREE_REPLICAS_MAX], *replica_pointers[LIVE_BATCH][TREE_REPLICAS_MAX];
    Director__LiveCheck checks[LIVE_BATCH];
    Director__LiveOwn own[LIVE_BATCH], *own_pointers[LIVE_BATCH];
};

static void batch_check(Director__LiveCheck *to, const struct api_live_check *from)
{
    director__live_check__init(to);
    to->task = from->task;
    to->waiting = from->waiting;
    to->position = from->position;
    to->total_bytes = from->total_bytes;
    to->bytes_per_second = from->bytes_per_second;
    to->left_ms = from->left_ms;
    to->mismatches = from->mismatches;
    to->bad_blocks = from->bad_blocks;
    to->repaired = from->repaired;
    to->unrepaired = from->unrepaired;
    to->words = (char *)from->words;
}

static void batch_volume(struct batch *batch, const struct tree_volume *volume, struct api_live_volume *figures)
{
    size_t i = batch->message.n_volumes++;
    Director__LiveVolume *to = &batch->volumes[i];
    director__live_volume__init(to);
    batch->volume_pointers[i] = to;
    to->volume = volume->id;
    to->serving = figures->serving;
    to->suspended = figures->suspended;
    to->reason = figures->reason;
    to->reads = figures->reads;
    to->writes = figures->writes;
    to->read_bytes = figures->read_bytes;
    to->written_bytes = figures->written_bytes;
    to->resynced_bytes = figures->resynced_bytes;
    to->repaired_blocks = figures->repaired_blocks;
    if (figures->check.task) {
        batch_check(&batch->checks[i], &figures->check);
        to->check = &batch->checks[i];
    }
    to->n_replicas = volume->replica_count;
    to->replicas = batch->replica_pointers[i];
    for (unsigned k = 0; k < volume->replica_count; k++) {
        Director__LiveReplica *replica = &batch->replicas[i][k];
        director__live_replica__init(replica);
        batch->replica_pointers[i][k] = replica;
        replica->syncing = figures->replica[k].syncing;
        replica->total_bytes = figures->replica[k].total_bytes;
        replica->done_bytes = figures->replica[k].done_bytes;
        replica->bytes_per_second = figures->replica[k].bytes_per_second;
        replica->left_ms = figures->replica[k].left_ms;
        replica->compared_bytes = figures->replica[k].compared_bytes;
        replica->sent_bytes = figures->replica[k].sent_bytes;
        replica->dirty_bytes = figures->replica[k].dirty_bytes;
        replica->read_errors = figures->replica[k].read_errors;
        replica->repaired_blocks = figures->replica[k].repaired_blocks;
    }
}

static void batch_own(struct batch *batch, uint64_t volume, const struct api_live_replica *figures)
{
    Director__LiveOwn *to = &batch->own[batch->message.n_own];
    batch->own_pointers[batch->message.n_own++] = to;
    director__live_own__init(to);
    to->volume = volume;
    to->failed = figures->failed;
    to->intent_marks = figures->intent_marks;
    to->carry_marks = figures->carry_marks;
    to->sealed_epoch = figures->sealed_epoch;
    to->checksum_errors = figures->checksum_errors;
}

static void batch_send(struct node *node, struct batch *batch)
{
    size_t size = director__live_volumes__get_packed_size(&batch->message);
    _cleanup_free_ uint8_t *bytes = size ? malloc(size) : NULL;
    if (bytes) {
        director__live_volumes__pack(&batch->message, bytes);
        struct peer_header header = {.type = PEER_LIVE};
        struct iovec iov = {bytes, size};
        for (struct peer *peer = peer_mesh_next(node->control, NULL); peer; peer = peer_mesh_next(node->control, peer))
            if (peer_nodeid(peer))
                IGNORE_RESULT(peer_send(peer, &header, &iov, 1));
    }
    batch->message.n_volumes = batch->message.n_own = 0;
}

/* At once when something changed in kind, else every second. */
void node_live_send(struct node *node)
{
    uint64_t now = node_now_ms(node);
    if (now - node->live_sent_ms < LIVE_SEND_MS)
        return;
    node->live_sent_ms = now;
    struct batch *batch = malloc(sizeof(*batch));
    if (!batch)
        return;
    director__live_volumes__init(&batch->message);
    batch->message.volumes = batch->volume_pointers;
    batch->message.own = batch->own_pointers;
    list_foreach_safe(link, after, &node->live)
    {
        struct node_live *live = list_entry(link, struct node_live, link);
        const struct tree_volume *volume = tree_volume_by_id(node->tree, live->volume);
        if (!volume) {
            list_remove(&live->link);
            free(live);
            continue;
        }
        if (live->known && live->nodeid == node->self.nodeid && volume->owner == node->self.nodeid)
            batch_volume(batch, volume, &live->figures);
        for (unsigned i = 0; i < TREE_REPLICAS_MAX; i++)
            if (live->own[i].nodeid == node->self.nodeid && batch->message.n_own < LIVE_BATCH)
                batch_own(batch, live->volume, &live->own[i].figures);
        if (batch->message.n_volumes == LIVE_BATCH || batch->message.n_own == LIVE_BATCH)
            batch_send(node, batch);
    }
    batch_send(node, batch);
    free(batch);
}

/* ---- from them -------------------------------------------------------------------------------------------------------- */

static void take_volume(struct node *node, uint16_t from, const Director__LiveVolume *volume)
{
    struct api_live_volume figures = {.known = true, .serving = volume->serving, .suspended = volume->suspended,
                                      .reads = volume->reads, .writes = volume->writes, .read_bytes = volume->read_bytes,
                                      .written_bytes = volume->written_bytes, .resynced_bytes = volume->resynced_bytes,
                                      .repaired_blocks = volume->repaired_blocks};
    const Director__LiveCheck *check = volume->check;
    (void)snprintf(figures.reason, sizeof(figures.reason), "%s", volume->reason);
    if (check) {
        figures.check = (struct api_live_check){.task = check->task, .waiting = check->waiting, .position = check->position,
                                                .total_bytes = check->total_bytes, .bytes_per_second = check->bytes_per_second,
                                                .left_ms = check->left_ms, .mismatches = check->mismatches,
                                                .bad_blocks = check->bad_blocks, .repaired = check->repaired,
                                                .unrepaired = check->unrepaired};
        (void)snprintf(figures.check.words, sizeof(figures.check.words), "%s", check->words);
    }
    for (size_t k = 0; k < volume->n_replicas && k < ARRAY_SIZE(figures.replica); k++) {
        const Director__LiveReplica *replica = volume->replicas[k];
        figures.replica[k].syncing = replica->syncing;
        figures.replica[k].total_bytes = replica->total_bytes;
        figures.replica[k].done_bytes = replica->done_bytes;
        figures.replica[k].bytes_per_second = replica->bytes_per_second;
        figures.replica[k].left_ms = replica->left_ms;
        figures.replica[k].compared_bytes = replica->compared_bytes;
        figures.replica[k].sent_bytes = replica->sent_bytes;
        figures.replica[k].dirty_bytes = replica->dirty_bytes;
        figures.replica[k].read_errors = replica->read_errors;
        figures.replica[k].repaired_blocks = replica->repaired_blocks;
    }
    live_put(node, from, volume->volume, &figures);
}

void node_live_frame(struct node *node, uint16_t from, const void *bytes, size_t size)
{
    Director__LiveVolumes *message = director__live_volumes__unpack(NULL, size, bytes);
    if (!message)
        return;
    for (size_t i = 0; from && i < message->n_volumes; i++)
        take_volume(node, from, message->volumes[i]);
    for (size_t i = 0; from && i < message->n_own; i++) {
        const Director__LiveOwn *own = message->own[i];
        struct api_live_replica figures = {.failed = own->failed, .intent_marks = own->intent_marks, .carry_marks = own->carry_marks,
                                           .sealed_epoch = own->sealed_epoch, .checksum_errors = own->checksum_errors};
        own_put(node, from, own->volume, &figures);
    }
    director__live_volumes__free_unpacked(message, NULL);
}
