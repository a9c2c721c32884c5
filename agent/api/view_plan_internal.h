/* What the planning of changes shares. view_plan.c: commands, arguments, set, dispatch. view_plan_create.c, _delete.c, _export.c,
 * _volume.c: the verbs. */
#ifndef DIRECTOR_AGENT_API_VIEW_PLAN_INTERNAL_H
#define DIRECTOR_AGENT_API_VIEW_PLAN_INTERNAL_H

#include "agent/api/view_internal.h"

struct planning {
    const struct api_view *view;
    const Director__Call *call;
    const struct api_entropy *entropy;
    struct view_place place;
    struct api_plan *plan;
    struct error *error;
};

/* Zeroed, never NULL. */
void *plan_need(size_t size);
Director__Command *plan_command(struct planning *planning, Director__Command__BodyCase body);

/* NEW_BODY(planning, VOLUME_CREATE, VolumeCreate, volume_create): append a command with that body and give the body. */
#define NEW_BODY(planning, CASE, Type, member)                                                         \
    ({                                                                                                 \
        Director__Command *command_ = plan_command(planning, DIRECTOR__COMMAND__BODY_##CASE);          \
        command_->member = plan_need(sizeof(Director__##Type));                                             \
        *command_->member = (Director__##Type)DIRECTOR__##CASE##__INIT;                                \
        command_->member;                                                                              \
    })

/* What to show afterwards: folder/name. */
void plan_path(struct planning *planning, const char *folder, const char *name);

/* The value given for name, or NULL. */
const char *plan_argument(const struct planning *planning, const char *name);
void plan_list_names(const struct view_property *list, bool writable_only, bool with_name, struct text *names);
int plan_unknown_property(struct planning *planning, const char *what, const char *name, const struct view_property *list);
/* Every property given is known and given once; every required one is there. "name" comes as the call's name. */
int plan_check_arguments(struct planning *planning, const char *what, const struct view_property *list);
int plan_argument_number(struct planning *planning, const char *name, uint64_t lowest, uint64_t highest, uint64_t fallback,
                         uint64_t *ret_value);
/* The argument is there. */
int plan_argument_size(struct planning *planning, const char *name, uint64_t lowest, uint64_t highest, uint64_t unit,
                       uint64_t *ret_bytes);

/* RFC 7143 §4.2.7. */
int plan_check_iqn(const char *iqn, struct error *error);
const struct tree_lun *plan_lun_find(const struct tree_target *target, uint32_t number);
void plan_add_lun(struct planning *planning, const char *iqn, uint32_t number, const char *volume);
void plan_remove_lun(struct planning *planning, const char *iqn, uint32_t number);

/* The verbs. */
int plan_create(struct planning *planning);
int plan_delete(struct planning *planning);
int plan_export(struct planning *planning);
int plan_unexport(struct planning *planning);
int plan_move(struct planning *planning, const char *to);
int plan_volume_set(struct planning *planning);
/* The verbs of view_schema.c but create and delete; arguments are checked. */
int plan_verb(struct planning *planning, const char *word);
/* What of a volume's policy was given; ret_fields: bits of VolumePolicyField. */
int plan_policy(struct planning *planning, Director__VolumePolicy *policy, uint32_t *ret_fields);

#endif
