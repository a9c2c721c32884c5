/* How initiators get at a volume, or lose it: export and unexport. */
#include "agent/api/view_plan_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static bool default_iqn(const struct api_view *view, const struct tree_volume *volume, char iqn[static TREE_IQN_SIZE])
{
    /* '_' may stand in a volume's name, but not in an iSCSI name (RFC 7143 §4.2.7.1). */
    int length = snprintf(iqn, TREE_IQN_SIZE, VIEW_TARGET_PREFIX "%s:%s", tree_get_cluster(view->tree)->name, volume->name);
    for (char *p = iqn; *p; p++)
        *p = *p == '_' ? '-' : *p;
    return length < (int)TREE_IQN_SIZE;
}

int plan_export(struct planning *planning)
{
    const struct api_view *view = planning->view;
    const struct tree_volume *volume = planning->place.volume;
    const char *asked = plan_argument(planning, "target");
    char iqn[TREE_IQN_SIZE];
    uint32_t there;
    uint64_t lowest = 0, number = 0;
    const struct tree_target *target = tree_volume_export(view->tree, volume->id, &there);
    (void)snprintf(planning->plan->path, sizeof(planning->plan->path), "%s", planning->place.path);
    int code = target ? plan_argument_number(planning, "lun", 0, TREE_LUNS_MAX - 1, there, &number) : 0;
    if (code < 0)
        return code;
    if (target && number == there && (!asked || strcmp(asked, target->iqn) == 0)) {
        (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "volume %s is exported already as %.150s lun %u",
                       volume->name, target->iqn, there);
        return 0;
    }
    if (target)
        return error_set(planning->error, -EBUSY, "volume %s is exported already as %.120s lun %u; first: director /volumes/%s unexport",
                         volume->name, target->iqn, there, volume->name);
    if (asked) {
        code = plan_check_iqn(asked, planning->error);
        if (code < 0)
            return code;
        (void)snprintf(iqn, sizeof(iqn), "%s", asked);
    } else if (!default_iqn(view, volume, iqn)) {
        return error_set(planning->error, -ENAMETOOLONG, "the default target name would be too long; give target=iqn....");
    }
    target = tree_target_by_iqn(view->tree, iqn);
    while (plan_lun_find(target, (uint32_t)lowest))
        lowest++;
    code = plan_argument_number(planning, "lun", 0, TREE_LUNS_MAX - 1, lowest, &number);
    if (code < 0)
        return code;
    if (number >= TREE_LUNS_MAX)
        return error_set(planning->error, -ENOSPC, "target %.140s has no free lun; export by another target", iqn);
    if (plan_lun_find(target, (uint32_t)number))
        return error_set(planning->error, -EEXIST, "target %.140s has a lun %u already", iqn, (unsigned)number);
    if (!target)
        view_string_set(&NEW_BODY(planning, TARGET_CREATE, TargetCreate, target_create)->iqn, iqn);
    plan_add_lun(planning, iqn, (uint32_t)number, volume->name);
    (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "volume %s is exported as %.150s lun %u", volume->name,
                   iqn, (unsigned)number);
    return 0;
}

int plan_unexport(struct planning *planning)
{
    const struct tree_volume *volume = planning->place.volume;
    char iqn[TREE_IQN_SIZE];
    uint32_t lun;
    const struct tree_target *target = tree_volume_export(planning->view->tree, volume->id, &lun);
    (void)snprintf(planning->plan->path, sizeof(planning->plan->path), "%s", planning->place.path);
    if (!target) {
        (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "volume %s is not exported", volume->name);
        return 0;
    }
    plan_remove_lun(planning, target->iqn, lun);
    /* A target that export made goes with its last lun. */
    if (target->lun_count == 1 && default_iqn(planning->view, volume, iqn) && strcmp(iqn, target->iqn) == 0)
        view_string_set(&NEW_BODY(planning, TARGET_DELETE, TargetDelete, target_delete)->iqn, iqn);
    (void)snprintf(planning->plan->message, sizeof(planning->plan->message), "volume %s is not exported any more", volume->name);
    return 0;
}
