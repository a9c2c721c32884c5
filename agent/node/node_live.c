/* Live figures of volumes: what this node's engine says of those it owns, told to the peers over the control links, and what
 * they tell of theirs. For status only, never for decisions; unheard ones are forgotten. */
#define LOG_MODULE "live"
#include "agent/node/node.h"

#include <proto/director.pb-c.h>
#include <string.h>

#define LIVE_SEND_MS     1000u
#define LIVE_FORGET_MS   5000u

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

static void live_put(struct node *node, uint16_t nodeid, uint64_t volume, const struct api_live_volume *figures)
{
    struct node_live *live = live_find(node, volume);
    if (!tree_volume_by_id(node->tree, volume))
        return;
    if (!live) {
        live = calloc(1, sizeof(*live));
        if (!live)
            return;
        live->volume = volume;
        list_append(&node->live, &live->link);
    }
    live->nodeid = nodeid;
    live->heard_ms = node_now_ms(node);
    live->figures = *figures;
}

void node_live_figures(void *context, uint64_t volume, const struct api_live_volume *figures)
{
    struct node *node = context;
    const struct node_live *old = live_find(node, volume);
    bool urgent = !old || old->figures.serving != figures->serving || old->figures.suspended != figures->suspended ||
                  memcmp(old->figures.replica, figures->replica, sizeof(old->figures.replica)) != 0;
    live_put(node, node->self.nodeid, volume, figures);
    if (urgent)
        node->live_sent_ms = 0;
}

bool node_live_volume(struct node *node, uint64_t volume_id, struct api_live_volume *ret_figures)
{
    const struct node_live *live = live_find(node, volume_id);
    const struct tree_volume *volume = tree_volume_by_id(node->tree, volume_id);
    if (!live || !volume || live->nodeid != volume->owner ||
        (live->nodeid != node->self.nodeid && node_now_ms(node) - live->heard_ms > LIVE_FORGET_MS))
        return false;
    *ret_figures = live->figures;
    return true;
}

/* Tell the peers of the volumes that we own: at once when something changed in kind, else every second. */
void node_live_send(struct node *node)
{
    Director__LiveVolumes message = DIRECTOR__LIVE_VOLUMES__INIT;
    Director__LiveVolume volumes[128], *pointers[128];
    Director__LiveReplica replicas[128][TREE_REPLICAS_MAX], *replica_pointers[128][TREE_REPLICAS_MAX];
    uint64_t now = node_now_ms(node);
    if (now - node->live_sent_ms < LIVE_SEND_MS)
        return;
    node->live_sent_ms = now;
    message.volumes = pointers;
    list_foreach_safe(link, after, &node->live)
    {
        struct node_live *live = list_entry(link, struct node_live, link);
        const struct tree_volume *volume = tree_volume_by_id(node->tree, live->volume);
        if (!volume) {
            list_remove(&live->link);
            free(live);
            continue;
        }
        if (live->nodeid != node->self.nodeid || volume->owner != node->self.nodeid || message.n_volumes == ARRAY_SIZE(volumes))
            continue;
        size_t i = message.n_volumes++;
        director__live_volume__init(&volumes[i]);
        pointers[i] = &volumes[i];
        volumes[i].volume = live->volume;
        volumes[i].serving = live->figures.serving;
        volumes[i].suspended = live->figures.suspended;
        volumes[i].reason = live->figures.reason;
        volumes[i].reads = live->figures.reads;
        volumes[i].writes = live->figures.writes;
        volumes[i].read_bytes = live->figures.read_bytes;
        volumes[i].written_bytes = live->figures.written_bytes;
        volumes[i].resynced_bytes = live->figures.resynced_bytes;
        volumes[i].n_replicas = volume->replica_count;
        volumes[i].replicas = replica_pointers[i];
        for (unsigned k = 0; k < volume->replica_count; k++) {
            director__live_replica__init(&replicas[i][k]);
            replica_pointers[i][k] = &replicas[i][k];
            replicas[i][k].syncing = live->figures.replica[k].syncing;
            replicas[i][k].total_bytes = live->figures.replica[k].total_bytes;
            replicas[i][k].done_bytes = live->figures.replica[k].done_bytes;
            replicas[i][k].bytes_per_second = live->figures.replica[k].bytes_per_second;
        }
    }
    if (!message.n_volumes)
        return;
    size_t size = director__live_volumes__get_packed_size(&message);
    _cleanup_free_ uint8_t *bytes = malloc(size);
    if (!bytes)
        return;
    director__live_volumes__pack(&message, bytes);
    struct peer_header header = {.type = PEER_LIVE};
    struct iovec iov = {bytes, size};
    for (struct peer *peer = peer_mesh_next(node->control, NULL); peer; peer = peer_mesh_next(node->control, peer))
        if (peer_nodeid(peer))
            IGNORE_RESULT(peer_send(peer, &header, &iov, 1));
}

void node_live_frame(struct node *node, uint16_t from, const void *bytes, size_t size)
{
    Director__LiveVolumes *message = director__live_volumes__unpack(NULL, size, bytes);
    if (!message)
        return;
    for (size_t i = 0; i < message->n_volumes; i++) {
        const Director__LiveVolume *volume = message->volumes[i];
        struct api_live_volume figures = {.known = true, .serving = volume->serving, .suspended = volume->suspended,
                                          .reads = volume->reads, .writes = volume->writes, .read_bytes = volume->read_bytes,
                                          .written_bytes = volume->written_bytes, .resynced_bytes = volume->resynced_bytes};
        (void)snprintf(figures.reason, sizeof(figures.reason), "%s", volume->reason);
        for (size_t k = 0; k < volume->n_replicas && k < ARRAY_SIZE(figures.replica); k++) {
            figures.replica[k].syncing = volume->replicas[k]->syncing;
            figures.replica[k].total_bytes = volume->replicas[k]->total_bytes;
            figures.replica[k].done_bytes = volume->replicas[k]->done_bytes;
            figures.replica[k].bytes_per_second = volume->replicas[k]->bytes_per_second;
        }
        if (from)
            live_put(node, from, volume->volume, &figures);
    }
    director__live_volumes__free_unpacked(message, NULL);
}
