/* The tree from the bytes of a snapshot. What comes is checked as if it came from a stranger; fields that an older one has not
 * are at their defaults. */
#include "agent/core/tree_internal.h"

static bool uuid_take(ProtobufCBinaryData data, struct uuid *ret_uuid)
{
    if (data.len != sizeof(ret_uuid->bytes))
        return false;
    memcpy(ret_uuid->bytes, data.data, sizeof(ret_uuid->bytes));
    return true;
}

static bool take_cluster(struct tree *tree, const Director__TreeSnapshot *from)
{
    if (from->cluster_uuid.len != 0 && !uuid_take(from->cluster_uuid, &tree->cluster.uuid))
        return false;
    if (!tree_text_fits(from->cluster_name, TREE_NAME_SIZE) || from->next_volume_id == 0)
        return false;
    tree_copy(tree->cluster.name, TREE_NAME_SIZE, from->cluster_name);
    tree->cluster.next_volume_id = from->next_volume_id;
    tree->cluster.node_list_version = from->node_list_version;
    if (!tree_profile_timings(from->profile))
        return false;
    tree->cluster.profile = from->profile;
    return true;
}

static bool take_node(struct tree *tree, const Director__NodeInfo *from)
{
    struct tree_node node = {.voter = from->voter, .boot = from->boot, .version_max = from->version_max};
    if (tree->node_count == TREE_NODES_MAX || from->nodeid == 0 || from->nodeid > UINT16_MAX ||
        (tree->node_count && tree->nodes[tree->node_count - 1].nodeid >= from->nodeid) ||
        !uuid_take(from->uuid, &node.uuid) || tree_check_name("", from->name, NULL) || tree_node_by_name(tree, from->name) ||
        tree_node_by_uuid(tree, &node.uuid) || !tree_text_fits(from->address, TREE_ADDRESS_SIZE) ||
        !tree_text_fits(from->software, TREE_NAME_SIZE))
        return false;
    node.nodeid = (uint16_t)from->nodeid;
    tree_copy(node.name, sizeof(node.name), from->name);
    tree_copy(node.address, sizeof(node.address), from->address);
    tree_copy(node.software, sizeof(node.software), from->software);
    tree->nodes[tree->node_count++] = node;
    return true;
}

static bool take_store(struct tree *tree, const Director__StorePut *from)
{
    struct tree_store store = {.nodeid = (uint16_t)from->nodeid, .capacity_bytes = from->capacity};
    if (!tree_node_find(tree, from->nodeid) || tree_check_name("", from->name, NULL) ||
        tree_check_name("", from->plugin, NULL) || !tree_text_fits(from->path, TREE_PATH_SIZE) ||
        tree_store_find(tree, store.nodeid, from->name))
        return false;
    tree_copy(store.name, sizeof(store.name), from->name);
    tree_copy(store.plugin, sizeof(store.plugin), from->plugin);
    tree_copy(store.path, sizeof(store.path), from->path);
    return tree_store_insert(tree, &store);
}

static bool take_replicas(struct tree *tree, const Director__TreeVolume *from, struct tree_volume *volume)
{
    if (from->n_replicas < 1 || from->n_replicas > TREE_REPLICAS_MAX)
        return false;
    for (size_t i = 0; i < from->n_replicas; i++) {
        const Director__TreeReplica *replica = from->replicas[i];
        if (replica->nodeid == 0) { /* an empty place; the last is never */
            if (replica->incarnation || replica->held || replica->left_ms || *replica->store || i + 1 == from->n_replicas)
                return false;
            volume->replica_count++;
            continue;
        }
        if (replica->nodeid > UINT16_MAX || tree_volume_replica_of(volume, (uint16_t)replica->nodeid) >= 0 ||
            !tree_text_fits(replica->store, TREE_NAME_SIZE) ||
            !tree_store_find(tree, (uint16_t)replica->nodeid, replica->store))
            return false;
        struct tree_replica *to = &volume->replicas[volume->replica_count++];
        to->nodeid = (uint16_t)replica->nodeid;
        to->incarnation = replica->incarnation;
        to->held = replica->held;
        to->left_ms = replica->left_ms;
        tree_copy(to->store, sizeof(to->store), replica->store);
    }
    int owner = from->owner <= UINT16_MAX ? tree_volume_replica_of(volume, (uint16_t)from->owner) : -1;
    return owner >= 0 && (from->isr & ~tree_volume_mask(volume)) == 0 && (from->isr >> owner & 1); /* I10 */
}

/* Growing, policy, retired incarnations. */
static bool take_volume_rest(const Director__TreeVolume *from, struct tree_volume *volume)
{
    if (tree_policy_check(from->name, from->policy, NULL) || from->n_retired > TREE_RETIRED_MAX ||
        (from->size_wanted && (from->size_wanted <= from->size ||
                               tree_check_size(from->name, from->size_wanted, from->block_size, NULL))) ||
        from->grown & ~tree_volume_mask(volume) || (from->grown && !from->size_wanted))
        return false;
    tree_policy_take(&volume->policy, from->policy);
    volume->size_wanted = from->size_wanted;
    volume->grown = from->grown;
    for (size_t i = 0; i < from->n_retired; i++) {
        if (from->retired[i] == 0 || tree_volume_retired(volume, from->retired[i]))
            return false;
        volume->retired[volume->retired_count++] = from->retired[i];
    }
    return true;
}

static bool take_volume(struct tree *tree, const Director__TreeVolume *from)
{
    struct tree_volume volume = {
        .id = from->id,
        .size_bytes = from->size,
        .block_bytes = from->block_size,
        .epoch = from->epoch,
        .owner = (uint16_t)from->owner,
        .isr = from->isr,
        .isr_version = from->isr_version,
        .created_ms = from->created_ms,
    };
    if (tree->volume_count == TREE_VOLUMES_MAX || from->id == 0 || from->id >= tree->cluster.next_volume_id ||
        tree_volume_find(tree, from->id) || tree_check_name("", from->name, NULL) || tree_volume_by_name(tree, from->name) ||
        tree_check_size(from->name, from->size, from->block_size, NULL) || !uuid_take(from->uuid, &volume.uuid) ||
        from->epoch == 0 || from->isr_version == 0 || !take_replicas(tree, from, &volume) ||
        !take_volume_rest(from, &volume))
        return false;
    tree_copy(volume.name, sizeof(volume.name), from->name);
    struct tree_volume *made = tree_allocate(sizeof(*made));
    *made = volume;
    tree_volume_insert(tree, made);
    return true;
}

static bool take_target(struct tree *tree, const Director__TreeTarget *from)
{
    if (tree->target_count == TREE_TARGETS_MAX || tree_check_iqn(from->iqn, NULL) || tree_target_by_iqn(tree, from->iqn) ||
        from->n_luns > TREE_LUNS_MAX)
        return false;
    for (size_t i = 0; i < from->n_luns; i++)
        if (from->luns[i]->lun >= TREE_LUNS_MAX || (i && from->luns[i]->lun <= from->luns[i - 1]->lun) ||
            !tree_volume_find(tree, from->luns[i]->volume))
            return false;
    struct tree_target *target = tree_allocate(sizeof(*target));
    tree_copy(target->iqn, sizeof(target->iqn), from->iqn);
    target->lun_count = (unsigned)from->n_luns;
    target->luns = tree_allocate(from->n_luns * sizeof(*target->luns));
    for (size_t i = 0; i < from->n_luns; i++)
        target->luns[i] = (struct tree_lun){.lun = from->luns[i]->lun, .volume = from->luns[i]->volume};
    tree_target_insert(tree, target);
    return true;
}

static bool take_requests(struct tree *tree, const Director__TreeRequests *from)
{
    if (tree->request_count == TREE_ORIGINS_MAX || from->origin == 0 || from->origin > UINT16_MAX ||
        (tree->request_count && tree->requests[tree->request_count - 1].origin >= from->origin) ||
        from->n_applied != TREE_REQUEST_WORDS || from->n_refused != TREE_REQUEST_WORDS)
        return false;
    struct tree_requests *to = &tree->requests[tree->request_count++];
    *to = (struct tree_requests){.origin = (uint16_t)from->origin, .boot = from->boot, .highest = from->highest};
    memcpy(to->applied, from->applied, sizeof(to->applied));
    memcpy(to->refused, from->refused, sizeof(to->refused));
    return true;
}

static bool take_task(struct tree *tree, const Director__TreeTask *from)
{
    static const Director__TaskFigures nothing = DIRECTOR__TASK_FIGURES__INIT;
    const Director__TaskFigures *figures = from->figures ? from->figures : &nothing;
    if (tree->task_count == ARRAY_SIZE(tree->tasks) || from->id == 0 || from->id > tree->last_task ||
        (tree->task_count && tree->tasks[tree->task_count - 1].id >= from->id) ||
        from->kind <= DIRECTOR__TASK_KIND__TASK_NONE || from->kind > DIRECTOR__TASK_KIND__TASK_MOVE ||
        from->state < DIRECTOR__TASK_STATE__TASK_RUNNING || from->state > DIRECTOR__TASK_STATE__TASK_CANCELLED ||
        (from->state == DIRECTOR__TASK_STATE__TASK_RUNNING && !tree_volume_find(tree, from->volume)) ||
        tree_check_name("", from->volume_name, NULL) || from->from > UINT16_MAX || from->to > UINT16_MAX ||
        !tree_text_fits(from->words, TREE_WORDS_SIZE) || !tree_text_fits(from->who, TREE_NAME_SIZE))
        return false;
    struct tree_task *to = &tree->tasks[tree->task_count++];
    *to = (struct tree_task){.id = from->id, .kind = from->kind, .state = from->state, .volume = from->volume, .repair = from->repair,
                             .from = (uint16_t)from->from, .to = (uint16_t)from->to, .started_ms = from->started_ms,
                             .ended_ms = from->ended_ms, .done_bytes = figures->done_bytes, .total_bytes = figures->total_bytes,
                             .mismatches = figures->mismatches, .bad_blocks = figures->bad_blocks, .repaired = figures->repaired,
                             .unrepaired = figures->unrepaired};
    tree_copy(to->volume_name, sizeof(to->volume_name), from->volume_name);
    tree_copy(to->words, sizeof(to->words), from->words);
    tree_copy(to->who, sizeof(to->who), from->who);
    return true;
}

static bool take_event(struct tree *tree, const Director__TreeEvent *from)
{
    if (tree->event_count == TREE_EVENTS_MAX || from->id == 0 || from->id > tree->last_event ||
        (tree->event_count && tree->events[tree->event_count - 1].id >= from->id) || from->kind > INT32_MAX ||
        !tree_text_fits(from->object, TREE_IQN_SIZE) || from->node > UINT16_MAX || from->owner > UINT16_MAX ||
        from->n_in_sync > TREE_REPLICAS_MAX || !tree_text_fits(from->words, TREE_WORDS_SIZE) ||
        !tree_text_fits(from->who, TREE_NAME_SIZE) || from->origin > UINT16_MAX)
        return false;
    for (size_t i = 0; i < from->n_in_sync; i++)
        if (from->in_sync[i] == 0 || from->in_sync[i] > UINT16_MAX)
            return false;
    struct tree_event *to = &tree->events[tree->event_count++];
    *to = (struct tree_event){.id = from->id, .time_ms = from->time_ms, .kind = (Director__Command__BodyCase)from->kind,
                              .node = (uint16_t)from->node, .number = from->number, .owner = (uint16_t)from->owner,
                              .detail = from->detail, .epoch = from->epoch, .origin = (uint16_t)from->origin};
    for (size_t i = 0; i < from->n_in_sync; i++)
        to->in_sync[i] = (uint16_t)from->in_sync[i];
    tree_copy(to->object, sizeof(to->object), from->object);
    tree_copy(to->words, sizeof(to->words), from->words);
    tree_copy(to->who, sizeof(to->who), from->who);
    return true;
}

static bool take_reservation(struct tree *tree, const Director__TreeReservation *from)
{
    size_t count = tree->reservation_count;
    if (!tree_volume_find(tree, from->volume) || (count && tree->reservations[count - 1].volume >= from->volume) ||
        from->version == 0 || from->table.len > TREE_RESERVATION_BYTES)
        return false;
    tree_reservation_put(tree, from->volume, from->version, from->table.data, from->table.len);
    return true;
}

static bool take(struct tree *tree, const Director__TreeSnapshot *from)
{
    bool good = from->format == TREE_SNAPSHOT_FORMAT && take_cluster(tree, from);
    for (size_t i = 0; good && i < from->n_nodes; i++)
        good = take_node(tree, from->nodes[i]);
    for (size_t i = 0; good && i < from->n_stores; i++)
        good = take_store(tree, from->stores[i]);
    for (size_t i = 0; good && i < from->n_volumes; i++)
        good = take_volume(tree, from->volumes[i]);
    for (size_t i = 0; good && i < from->n_targets; i++)
        good = take_target(tree, from->targets[i]);
    for (size_t i = 0; good && i < from->n_requests; i++)
        good = take_requests(tree, from->requests[i]);
    for (size_t i = 0; good && i < from->n_reservations; i++)
        good = take_reservation(tree, from->reservations[i]);
    tree->last_task = from->last_task;
    tree->last_event = from->last_event;
    size_t running = 0;
    for (size_t i = 0; good && i < from->n_tasks; i++) {
        good = take_task(tree, from->tasks[i]);
        running += from->tasks[i]->state == DIRECTOR__TASK_STATE__TASK_RUNNING;
    }
    good = good && running <= TREE_TASKS_MAX && from->n_tasks - running <= TREE_TASKS_KEPT;
    for (size_t i = 0; good && i < from->n_events; i++)
        good = take_event(tree, from->events[i]);
    return good;
}

int tree_restore(struct tree *tree, const uint8_t *data, size_t size, struct error *error)
{
    struct tree *made = tree_new();
    bool good = true;
    if (size) {
        Director__TreeSnapshot *snapshot = director__tree_snapshot__unpack(NULL, size, data);
        good = snapshot && take(made, snapshot);
        if (snapshot)
            director__tree_snapshot__free_unpacked(snapshot, NULL);
    }
    if (!good) {
        tree_free(made);
        return error_set(error, -EBADMSG, "a snapshot of %zu bytes is damaged: this node must take the state of another", size);
    }
    tree_empty(tree);
    *tree = *made;
    free(made);
    return 0;
}
