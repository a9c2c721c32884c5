/* The events: the last that happened, made of the commands as they are applied, so that every node tells the same and a failover
 * loses none. Structured; words are made where they are read. Steps on the way (progress, a member that grew, a node's own
 * entry) are none. Last-resort operations, deletions and removals are lasting: the everyday ones do not push them out. */
#include "agent/core/tree_internal.h"

size_t tree_event_count(const struct tree *tree)
{
    return tree->event_count;
}

const struct tree_event *tree_event_at(const struct tree *tree, size_t place)
{
    return place < tree->event_count ? &tree->events[place] : NULL;
}

static bool lasting(Director__Command__BodyCase kind)
{
    switch (kind) {
    case DIRECTOR__COMMAND__BODY_VOLUME_FORCE:
    case DIRECTOR__COMMAND__BODY_VOLUME_DISCARD:
    case DIRECTOR__COMMAND__BODY_VOLUME_DELETE:
    case DIRECTOR__COMMAND__BODY_NODE_REMOVE:
        return true;
    default:
        return false;
    }
}

static void name_volume(const struct tree *tree, uint64_t id, struct tree_event *event)
{
    const struct tree_volume *volume = tree_volume_by_id(tree, id);
    if (volume)
        tree_copy(event->object, sizeof(event->object), volume->name);
}

static void name_node(const struct tree *tree, uint32_t nodeid, struct tree_event *event)
{
    const struct tree_node *node = tree_node_find((struct tree *)tree, nodeid);
    event->node = nodeid <= UINT16_MAX ? (uint16_t)nodeid : 0;
    if (node)
        tree_copy(event->object, sizeof(event->object), node->name);
}

static void take_words(struct tree_event *event, const char *words)
{
    if (tree_text_fits(words, TREE_WORDS_SIZE))
        tree_copy(event->words, sizeof(event->words), words);
}

static void about(struct tree_event *event, const char *object, uint32_t node, uint64_t number)
{
    tree_copy(event->object, sizeof(event->object), object);
    event->node = node <= UINT16_MAX ? (uint16_t)node : 0;
    event->number = number;
}

/* A command about a volume by its id. */
static bool volume_begin(const struct tree *tree, const Director__Command *command, struct tree_event *event)
{
    switch (command->body_case) {
    case DIRECTOR__COMMAND__BODY_VOLUME_PROMOTE:
        name_volume(tree, command->volume_promote->volume, event);
        take_words(event, command->volume_promote->reason);
        return true;
    case DIRECTOR__COMMAND__BODY_VOLUME_ISR:
        name_volume(tree, command->volume_isr->volume, event);
        take_words(event, command->volume_isr->reason);
        return true;
    case DIRECTOR__COMMAND__BODY_VOLUME_INCARNATION:
        name_volume(tree, command->volume_incarnation->volume, event);
        return true;
    case DIRECTOR__COMMAND__BODY_VOLUME_SET:
        name_volume(tree, command->volume_set->volume, event);
        event->number = command->volume_set->fields;
        return true;
    case DIRECTOR__COMMAND__BODY_VOLUME_REPLICA_ADD:
        name_volume(tree, command->volume_replica_add->volume, event);
        return true;
    case DIRECTOR__COMMAND__BODY_VOLUME_REPLICA_REMOVE:
        name_volume(tree, command->volume_replica_remove->volume, event);
        event->node = (uint16_t)command->volume_replica_remove->nodeid;
        return true;
    case DIRECTOR__COMMAND__BODY_VOLUME_GROW:
        name_volume(tree, command->volume_grow->volume, event);
        event->number = command->volume_grow->size;
        return true;
    case DIRECTOR__COMMAND__BODY_VOLUME_GROWN:
        name_volume(tree, command->volume_grown->volume, event);
        event->number = command->volume_grown->size;
        return true;
    case DIRECTOR__COMMAND__BODY_VOLUME_FORCE:
        name_volume(tree, command->volume_force->volume, event);
        event->node = (uint16_t)command->volume_force->nodeid;
        take_words(event, command->volume_force->reason);
        return true;
    case DIRECTOR__COMMAND__BODY_VOLUME_DISCARD:
        name_volume(tree, command->volume_discard->volume, event);
        event->node = (uint16_t)command->volume_discard->nodeid;
        take_words(event, command->volume_discard->reason);
        return true;
    default:
        return false;
    }
}

static bool task_begin(const struct tree *tree, const Director__Command *command, struct tree_event *event)
{
    if (command->body_case == DIRECTOR__COMMAND__BODY_TASK_CREATE) {
        name_volume(tree, command->task_create->volume, event);
        event->detail = (uint32_t)command->task_create->kind;
        return true;
    }
    const struct tree_task *task = tree_task_by_id(tree, command->task_end->task);
    about(event, task ? task->volume_name : "", 0, command->task_end->task);
    take_words(event, command->task_end->words);
    event->detail = task ? (uint32_t)task->kind + 16 * (uint32_t)command->task_end->state : 0;
    return true;
}

bool tree_event_begin(const struct tree *tree, const Director__Command *command, struct tree_event *event)
{
    *event = (struct tree_event){.time_ms = command->time_ms, .kind = command->body_case,
                                 .origin = command->origin <= UINT16_MAX ? (uint16_t)command->origin : 0};
    if (tree_text_fits(command->who, TREE_NAME_SIZE))
        tree_copy(event->who, sizeof(event->who), command->who);
    switch (command->body_case) {
    case DIRECTOR__COMMAND__BODY_CLUSTER_INIT:
        about(event, command->cluster_init->name, 0, 0);
        return true;
    case DIRECTOR__COMMAND__BODY_CLUSTER_SET:
        about(event, tree->cluster.name, 0, (uint64_t)command->cluster_set->profile);
        return true;
    case DIRECTOR__COMMAND__BODY_NODE_ADD:
        return command->node_add->node != NULL;
    case DIRECTOR__COMMAND__BODY_NODE_VOTER:
        name_node(tree, command->node_voter->nodeid, event);
        event->number = command->node_voter->voter;
        return true;
    case DIRECTOR__COMMAND__BODY_NODE_REMOVE:
        name_node(tree, command->node_remove->nodeid, event);
        return true;
    case DIRECTOR__COMMAND__BODY_STORE_REMOVE:
        about(event, command->store_remove->name, command->store_remove->nodeid, 0);
        return true;
    case DIRECTOR__COMMAND__BODY_VOLUME_CREATE:
        about(event, command->volume_create->name, 0, command->volume_create->size);
        return true;
    case DIRECTOR__COMMAND__BODY_VOLUME_DELETE:
        about(event, command->volume_delete->name, 0, 0);
        return true;
    case DIRECTOR__COMMAND__BODY_TARGET_CREATE:
        about(event, command->target_create->iqn, 0, 0);
        return true;
    case DIRECTOR__COMMAND__BODY_TARGET_DELETE:
        about(event, command->target_delete->iqn, 0, 0);
        return true;
    case DIRECTOR__COMMAND__BODY_LUN_ADD:
        about(event, command->lun_add->iqn, 0, command->lun_add->lun);
        take_words(event, command->lun_add->volume);
        return true;
    case DIRECTOR__COMMAND__BODY_LUN_REMOVE:
        about(event, command->lun_remove->iqn, 0, command->lun_remove->lun);
        return true;
    case DIRECTOR__COMMAND__BODY_TASK_CREATE:
    case DIRECTOR__COMMAND__BODY_TASK_END:
        return task_begin(tree, command, event);
    default:
        return volume_begin(tree, command, event);
    }
}

/* Room for one more: the oldest everyday event goes, or the oldest lasting one when there are many of those. */
static void make_room(struct tree *tree)
{
    size_t lasting_count = 0, oldest = 0;
    if (tree->event_count < TREE_EVENTS_MAX)
        return;
    for (size_t i = 0; i < tree->event_count; i++)
        lasting_count += lasting(tree->events[i].kind);
    bool among_lasting = lasting_count > TREE_EVENTS_LASTING;
    while (oldest < tree->event_count - 1 && lasting(tree->events[oldest].kind) != among_lasting)
        oldest++;
    memmove(&tree->events[oldest], &tree->events[oldest + 1], (tree->event_count - oldest - 1) * sizeof(tree->events[0]));
    tree->event_count--;
}

void tree_event_end(struct tree *tree, const Director__Command *command, const struct tree_result *result,
                    struct tree_event *event)
{
    const struct tree_volume *volume = result->volume ? tree_volume_by_id(tree, result->volume) : NULL;
    if (command->body_case == DIRECTOR__COMMAND__BODY_NODE_ADD)
        name_node(tree, result->nodeid, event);
    if (command->body_case == DIRECTOR__COMMAND__BODY_TASK_CREATE)
        event->number = result->task;
    if (command->body_case == DIRECTOR__COMMAND__BODY_VOLUME_REPLICA_ADD)
        event->node = result->nodeid;
    if (command->body_case == DIRECTOR__COMMAND__BODY_VOLUME_GROWN && !result->grown)
        return; /* a step on the way */
    if (volume && command->body_case == DIRECTOR__COMMAND__BODY_VOLUME_GROW)
        event->detail = volume->size_wanted == 0;
    if (volume) {
        unsigned count = 0;
        event->owner = volume->owner;
        event->epoch = volume->epoch;
        for (unsigned i = 0; i < volume->replica_count; i++)
            if (volume->isr >> i & 1)
                event->in_sync[count++] = volume->replicas[i].nodeid;
    }
    make_room(tree);
    event->id = ++tree->last_event;
    tree->events[tree->event_count++] = *event;
}
