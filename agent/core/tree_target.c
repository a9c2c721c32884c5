/* Targets and their luns. */
#include "agent/core/tree_internal.h"

/* RFC 7143 §4.2.7.4: iqn.yyyy-mm.naming-authority[:text]; characters as RFC 3722 leaves them, in lower case. */
int tree_check_iqn(const char *iqn, struct error *error)
{
    size_t length = iqn ? strlen(iqn) : 0;
    if (length == 0 || length >= TREE_IQN_SIZE)
        return error_set(error, -EINVAL, "a target name has 1 to %u characters, this one has %zu", TREE_IQN_SIZE - 1, length);
    static const char shape[] = "iqn.dddd-dd.";
    bool valid = length > sizeof(shape) - 1;
    for (size_t i = 0; valid && i < sizeof(shape) - 1; i++)
        valid = shape[i] == 'd' && i > 2 ? iqn[i] >= '0' && iqn[i] <= '9' : iqn[i] == shape[i];
    for (size_t i = 0; valid && i < length; i++)
        valid = (iqn[i] >= 'a' && iqn[i] <= 'z') || (iqn[i] >= '0' && iqn[i] <= '9') || strchr(".-:", iqn[i]);
    if (!valid)
        return error_set(error, -EINVAL, "'%.120s' is no target name: write iqn.2026-01.org.example:name in a-z 0-9 . - :", iqn);
    return 0;
}

static size_t iqn_place(const struct tree *tree, const char *iqn)
{
    size_t low = 0, high = tree->target_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(tree->targets[middle]->iqn, iqn) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void tree_target_insert(struct tree *tree, struct tree_target *target)
{
    if (tree->target_count == tree->target_capacity) {
        tree->target_capacity = tree->target_capacity ? tree->target_capacity * 2 : 16;
        tree->targets = realloc(tree->targets, tree->target_capacity * sizeof(*tree->targets));
        ASSERT(tree->targets);
    }
    size_t place = iqn_place(tree, target->iqn);
    memmove(&tree->targets[place + 1], &tree->targets[place], (tree->target_count - place) * sizeof(*tree->targets));
    tree->targets[place] = target;
    tree->target_count++;
}

void tree_target_free(struct tree_target *target)
{
    if (!target)
        return;
    free(target->luns);
    free(target);
}

int tree_target_create(struct tree_change *change)
{
    const char *iqn = change->command->target_create->iqn;
    int status = tree_check_iqn(iqn, change->error);
    if (status)
        return status;
    if (tree_target_by_iqn(change->tree, iqn))
        return error_set(change->error, -EEXIST, "target %.160s exists already: choose another name", iqn);
    if (change->tree->target_count == TREE_TARGETS_MAX)
        return error_set(change->error, -E2BIG, "target %.120s cannot be created: a cluster has at most %u targets", iqn,
                         TREE_TARGETS_MAX);
    if (change->dry)
        return 0;
    struct tree_target *target = tree_allocate(sizeof(*target));
    tree_copy(target->iqn, sizeof(target->iqn), iqn);
    tree_target_insert(change->tree, target);
    return 0;
}

static int target_get(struct tree_change *change, const char *iqn, struct tree_target **ret_target)
{
    *ret_target = (struct tree_target *)tree_target_by_iqn(change->tree, iqn);
    if (!*ret_target)
        return error_set(change->error, -ENOENT, "there is no target %.160s: list /targets for those that are", iqn);
    return 0;
}

int tree_target_delete(struct tree_change *change)
{
    struct tree *tree = change->tree;
    struct tree_target *target;
    int status = target_get(change, change->command->target_delete->iqn, &target);
    if (status)
        return status;
    if (target->lun_count)
        return error_set(change->error, -EBUSY, "target %.120s has %u lun%s: delete %s first", target->iqn, target->lun_count,
                         target->lun_count == 1 ? "" : "s", target->lun_count == 1 ? "it" : "them");
    if (change->dry)
        return 0;
    size_t place = iqn_place(tree, target->iqn);
    tree->target_count--;
    memmove(&tree->targets[place], &tree->targets[place + 1], (tree->target_count - place) * sizeof(*tree->targets));
    tree_target_free(target);
    return 0;
}

int tree_lun_add(struct tree_change *change)
{
    const Director__LunAdd *add = change->command->lun_add;
    struct tree_target *target;
    int status = target_get(change, add->iqn, &target);
    if (status)
        return status;
    if (add->lun >= TREE_LUNS_MAX)
        return error_set(change->error, -EINVAL, "lun %u of target %.120s is not possible: give 0 to %u", add->lun, target->iqn,
                         TREE_LUNS_MAX - 1);
    const struct tree_volume *volume = tree_volume_by_name(change->tree, add->volume);
    if (!volume)
        return error_set(change->error, -ENOENT, "there is no volume '%.63s' to be lun %u: create it first", add->volume, add->lun);
    unsigned place = 0;
    for (unsigned i = 0; i < target->lun_count; i++) {
        if (target->luns[i].lun == add->lun)
            return error_set(change->error, -EEXIST, "target %.120s has a lun %u already: choose another number", target->iqn,
                             add->lun);
        if (target->luns[i].volume == volume->id)
            return error_set(change->error, -EEXIST, "volume '%s' is lun %u of target %.100s already", volume->name,
                             target->luns[i].lun, target->iqn);
        if (target->luns[i].lun < add->lun)
            place = i + 1;
    }
    if (change->dry)
        return 0;
    target->luns = realloc(target->luns, (target->lun_count + 1) * sizeof(*target->luns));
    ASSERT(target->luns);
    memmove(&target->luns[place + 1], &target->luns[place], (target->lun_count - place) * sizeof(*target->luns));
    target->luns[place] = (struct tree_lun){.lun = add->lun, .volume = volume->id};
    target->lun_count++;
    change->result->volume = volume->id;
    return 0;
}

int tree_lun_remove(struct tree_change *change)
{
    const Director__LunRemove *body = change->command->lun_remove;
    struct tree_target *target;
    int status = target_get(change, body->iqn, &target);
    if (status)
        return status;
    unsigned place = 0;
    while (place < target->lun_count && target->luns[place].lun != body->lun)
        place++;
    if (place == target->lun_count)
        return error_set(change->error, -ENOENT, "target %.120s has no lun %u", target->iqn, body->lun);
    if (change->dry)
        return 0;
    change->result->volume = target->luns[place].volume;
    target->lun_count--;
    memmove(&target->luns[place], &target->luns[place + 1], (target->lun_count - place) * sizeof(*target->luns));
    return 0;
}
