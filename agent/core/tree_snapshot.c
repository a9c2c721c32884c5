/* The tree as canonical bytes. Every array of the tree is kept in the order of its keys, protobuf-c packs fields in the
 * order of their numbers: equal trees give equal bytes. What is all zero is left out, so that a tree without it gives the
 * bytes it gave before there was such a thing. tree_restore.c: the way back. */
#include "agent/core/tree_internal.h"

#include "director/base/crc32c.h"

static ProtobufCBinaryData uuid_data(const struct uuid *uuid)
{
    return (ProtobufCBinaryData){uuid_is_zero(uuid) ? 0 : sizeof(uuid->bytes), (uint8_t *)uuid->bytes};
}

/* count messages of size bytes behind an array of pointers to them, in one allocation. */
static void *message_array(size_t count, size_t size, void ***ret_pointers)
{
    char *memory = tree_allocate(count * (sizeof(void *) + size));
    void **pointers = (void **)memory;
    for (size_t i = 0; i < count; i++)
        pointers[i] = memory + count * sizeof(void *) + i * size;
    *ret_pointers = pointers;
    return memory + count * sizeof(void *);
}

static void fill_nodes(const struct tree *tree, Director__TreeSnapshot *snapshot)
{
    Director__NodeInfo *info = message_array(tree->node_count, sizeof(*info), (void ***)&snapshot->nodes);
    snapshot->n_nodes = tree->node_count;
    for (size_t i = 0; i < tree->node_count; i++, info++) {
        const struct tree_node *node = &tree->nodes[i];
        director__node_info__init(info);
        info->uuid = uuid_data(&node->uuid);
        info->nodeid = node->nodeid;
        info->name = (char *)node->name;
        info->address = (char *)node->address;
        info->voter = node->voter;
        info->boot = node->boot;
        info->version_max = node->version_max;
        info->software = (char *)node->software;
    }
}

static void fill_stores(const struct tree *tree, Director__TreeSnapshot *snapshot)
{
    Director__StorePut *put = message_array(tree->store_count, sizeof(*put), (void ***)&snapshot->stores);
    snapshot->n_stores = tree->store_count;
    for (size_t i = 0; i < tree->store_count; i++, put++) {
        const struct tree_store *store = &tree->stores[i];
        director__store_put__init(put);
        put->nodeid = store->nodeid;
        put->name = (char *)store->name;
        put->plugin = (char *)store->plugin;
        put->path = (char *)store->path;
        put->capacity = store->capacity_bytes;
    }
}

static Director__VolumePolicy *fill_policy(const struct tree_policy *policy)
{
    static const struct tree_policy none;
    if (policy->write_back == none.write_back && policy->verified_reads == none.verified_reads &&
        policy->checksum == none.checksum && policy->slow_ms == none.slow_ms && policy->in_sync_min == none.in_sync_min &&
        policy->resync_floor == none.resync_floor && policy->resync_cap == none.resync_cap)
        return NULL;
    Director__VolumePolicy *to = tree_allocate(sizeof(*to));
    director__volume_policy__init(to);
    to->write_back = policy->write_back;
    to->verified_reads = policy->verified_reads;
    to->checksum = policy->checksum;
    to->slow_ms = policy->slow_ms;
    to->in_sync_min = policy->in_sync_min;
    to->resync_floor = policy->resync_floor;
    to->resync_cap = policy->resync_cap;
    return to;
}

static void fill_volumes(const struct tree *tree, Director__TreeSnapshot *snapshot)
{
    Director__TreeVolume *to = message_array(tree->volume_count, sizeof(*to), (void ***)&snapshot->volumes);
    snapshot->n_volumes = tree->volume_count;
    for (size_t i = 0; i < tree->volume_count; i++, to++) {
        const struct tree_volume *volume = tree->volumes[i];
        director__tree_volume__init(to);
        to->id = volume->id;
        to->uuid = (ProtobufCBinaryData){sizeof(volume->uuid.bytes), (uint8_t *)volume->uuid.bytes};
        to->name = (char *)volume->name;
        to->size = volume->size_bytes;
        to->block_size = volume->block_bytes;
        Director__TreeReplica *replica =
            message_array(volume->replica_count, sizeof(*replica), (void ***)&to->replicas);
        to->n_replicas = volume->replica_count;
        for (unsigned r = 0; r < volume->replica_count; r++, replica++) {
            director__tree_replica__init(replica);
            replica->nodeid = volume->replicas[r].nodeid;
            replica->store = (char *)volume->replicas[r].store;
            replica->incarnation = volume->replicas[r].incarnation;
            replica->held = volume->replicas[r].held;
            replica->left_ms = volume->replicas[r].left_ms;
        }
        to->epoch = volume->epoch;
        to->owner = volume->owner;
        to->isr = volume->isr;
        to->isr_version = volume->isr_version;
        to->created_ms = volume->created_ms;
        to->policy = fill_policy(&volume->policy);
        to->size_wanted = volume->size_wanted;
        to->grown = volume->grown;
        to->retired = (uint64_t *)volume->retired;
        to->n_retired = volume->retired_count;
    }
}

static void fill_targets(const struct tree *tree, Director__TreeSnapshot *snapshot)
{
    Director__TreeTarget *to = message_array(tree->target_count, sizeof(*to), (void ***)&snapshot->targets);
    snapshot->n_targets = tree->target_count;
    for (size_t i = 0; i < tree->target_count; i++, to++) {
        const struct tree_target *target = tree->targets[i];
        director__tree_target__init(to);
        to->iqn = (char *)target->iqn;
        Director__TreeLun *lun = message_array(target->lun_count, sizeof(*lun), (void ***)&to->luns);
        to->n_luns = target->lun_count;
        for (unsigned l = 0; l < target->lun_count; l++, lun++) {
            director__tree_lun__init(lun);
            lun->lun = target->luns[l].lun;
            lun->volume = target->luns[l].volume;
        }
    }
}

static void fill_reservations(const struct tree *tree, Director__TreeSnapshot *snapshot)
{
    Director__TreeReservation *to = message_array(tree->reservation_count, sizeof(*to), (void ***)&snapshot->reservations);
    snapshot->n_reservations = tree->reservation_count;
    for (size_t i = 0; i < tree->reservation_count; i++, to++) {
        const struct tree_reservation *from = &tree->reservations[i];
        director__tree_reservation__init(to);
        to->volume = from->volume;
        to->version = from->version;
        to->table = (ProtobufCBinaryData){from->table_bytes, (uint8_t *)from->table};
    }
}

static void fill_requests(const struct tree *tree, Director__TreeSnapshot *snapshot)
{
    Director__TreeRequests *to = message_array(tree->request_count, sizeof(*to), (void ***)&snapshot->requests);
    snapshot->n_requests = tree->request_count;
    for (size_t i = 0; i < tree->request_count; i++, to++) {
        const struct tree_requests *requests = &tree->requests[i];
        director__tree_requests__init(to);
        to->origin = requests->origin;
        to->boot = requests->boot;
        to->highest = requests->highest;
        to->n_applied = to->n_refused = TREE_REQUEST_WORDS;
        to->applied = (uint64_t *)requests->applied;
        to->refused = (uint64_t *)requests->refused;
    }
}

static void fill_tasks(const struct tree *tree, Director__TreeSnapshot *snapshot)
{
    struct {
        Director__TreeTask task;
        Director__TaskFigures figures;
    } *to = message_array(tree->task_count, sizeof(*to), (void ***)&snapshot->tasks);
    snapshot->n_tasks = tree->task_count;
    snapshot->last_task = tree->last_task;
    for (size_t i = 0; i < tree->task_count; i++, to++) {
        const struct tree_task *task = &tree->tasks[i];
        director__tree_task__init(&to->task);
        director__task_figures__init(&to->figures);
        to->task.id = task->id;
        to->task.kind = task->kind;
        to->task.state = task->state;
        to->task.volume = task->volume;
        to->task.volume_name = (char *)task->volume_name;
        to->task.repair = task->repair;
        to->task.from = task->from;
        to->task.to = task->to;
        to->task.started_ms = task->started_ms;
        to->task.ended_ms = task->ended_ms;
        to->task.figures = &to->figures;
        to->task.words = (char *)task->words;
        to->task.who = (char *)task->who;
        to->figures.done_bytes = task->done_bytes;
        to->figures.total_bytes = task->total_bytes;
        to->figures.mismatches = task->mismatches;
        to->figures.bad_blocks = task->bad_blocks;
        to->figures.repaired = task->repaired;
        to->figures.unrepaired = task->unrepaired;
    }
}

static void fill_events(const struct tree *tree, Director__TreeSnapshot *snapshot)
{
    struct {
        Director__TreeEvent event;
        uint32_t in_sync[TREE_REPLICAS_MAX];
    } *to = message_array(tree->event_count, sizeof(*to), (void ***)&snapshot->events);
    snapshot->n_events = tree->event_count;
    snapshot->last_event = tree->last_event;
    for (size_t i = 0; i < tree->event_count; i++, to++) {
        const struct tree_event *event = &tree->events[i];
        director__tree_event__init(&to->event);
        to->event.id = event->id;
        to->event.time_ms = event->time_ms;
        to->event.kind = event->kind;
        to->event.object = (char *)event->object;
        to->event.node = event->node;
        to->event.number = event->number;
        to->event.detail = event->detail;
        to->event.owner = event->owner;
        to->event.in_sync = to->in_sync;
        for (unsigned k = 0; k < TREE_REPLICAS_MAX && event->in_sync[k]; k++)
            to->in_sync[to->event.n_in_sync++] = event->in_sync[k];
        to->event.epoch = event->epoch;
        to->event.words = (char *)event->words;
        to->event.who = (char *)event->who;
        to->event.origin = event->origin;
    }
}

void tree_snapshot(const struct tree *tree, uint8_t **ret_data, size_t *ret_size)
{
    Director__TreeSnapshot snapshot = DIRECTOR__TREE_SNAPSHOT__INIT;
    snapshot.format = TREE_SNAPSHOT_FORMAT;
    snapshot.cluster_uuid = uuid_data(&tree->cluster.uuid);
    snapshot.cluster_name = (char *)tree->cluster.name;
    snapshot.next_volume_id = tree->cluster.next_volume_id;
    snapshot.node_list_version = tree->cluster.node_list_version;
    snapshot.profile = tree->cluster.profile;
    fill_nodes(tree, &snapshot);
    fill_stores(tree, &snapshot);
    fill_volumes(tree, &snapshot);
    fill_targets(tree, &snapshot);
    fill_requests(tree, &snapshot);
    fill_tasks(tree, &snapshot);
    fill_events(tree, &snapshot);
    fill_reservations(tree, &snapshot);
    *ret_size = director__tree_snapshot__get_packed_size(&snapshot);
    *ret_data = tree_allocate(*ret_size);
    director__tree_snapshot__pack(&snapshot, *ret_data);
    for (size_t i = 0; i < snapshot.n_volumes; i++) {
        free(snapshot.volumes[i]->replicas);
        free(snapshot.volumes[i]->policy);
    }
    for (size_t i = 0; i < snapshot.n_targets; i++)
        free(snapshot.targets[i]->luns);
    free(snapshot.nodes);
    free(snapshot.stores);
    free(snapshot.volumes);
    free(snapshot.targets);
    free(snapshot.requests);
    free(snapshot.tasks);
    free(snapshot.events);
    free(snapshot.reservations);
}

uint64_t tree_hash(const struct tree *tree)
{
    uint8_t *data;
    size_t size;
    tree_snapshot(tree, &data, &size);
    uint64_t hash = (uint64_t)crc32c(0, data, size) << 32 | crc32c(0x9e3779b9u, data, size);
    free(data);
    return hash;
}
