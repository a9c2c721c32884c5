/* CREATE, SET, DELETE and ACTION: from words to commands, with every refusal that can be known early. Here: commands,
 * arguments, set, and the way to the function of each verb. */
#include "agent/api/view_plan_internal.h"

#include "director/base/size.h"
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* ---- building commands -------------------------------------------------------------------------------------------------- */

void *plan_need(size_t size)
{
    void *memory = calloc(1, size);
    ASSERT(memory);
    return memory;
}

Director__Command *plan_command(struct planning *planning, Director__Command__BodyCase body)
{
    struct api_plan *plan = planning->plan;
    Director__Command *command = plan_need(sizeof(*command));
    director__command__init(command);
    command->body_case = body;
    ASSERT(plan->command_count < API_PLAN_COMMANDS_MAX);
    plan->commands[plan->command_count++] = command;
    return command;
}

void api_plan_done(struct api_plan *plan)
{
    for (unsigned i = 0; i < plan->command_count; i++)
        director__command__free_unpacked(plan->commands[i], NULL);
    memset(plan, 0, sizeof(*plan));
}

void plan_path(struct planning *planning, const char *folder, const char *name)
{
    (void)snprintf(planning->plan->path, sizeof(planning->plan->path), "%.240s/%.255s", folder, name);
}

/* ---- arguments ----------------------------------------------------------------------------------------------------------- */

const char *plan_argument(const struct planning *planning, const char *name)
{
    for (size_t i = 0; i < planning->call->n_properties; i++)
        if (view_name_equal(planning->call->properties[i]->name, name))
            return planning->call->properties[i]->value;
    return NULL;
}

void plan_list_names(const struct view_property *list, bool writable_only, bool with_name, struct text *names)
{
    for (; list->name; list++)
        if ((!writable_only || list->writable) && (with_name || strcmp(list->name, "name") != 0))
            text_addf(names, "%s%s", names->used ? ", " : "", list->name);
}

int plan_unknown_property(struct planning *planning, const char *what, const char *name, const struct view_property *list)
{
    struct text_nearest nearest = {.word = name};
    struct text names = {0};
    for (const struct view_property *p = list; p->name; p++)
        text_nearest_offer(&nearest, p->name);
    plan_list_names(list, false, false, &names);
    int code;
    if (nearest.best[0] && names.used > 150)
        code = error_set(planning->error, -EINVAL, "%s has no property \"%.40s\"; did you mean %s? To see all: director help %.120s", what,
                         name, nearest.best, planning->place.path);
    else if (nearest.best[0])
        code = error_set(planning->error, -EINVAL, "%s has no property \"%.40s\"; did you mean %s? It has: %s", what, name,
                         nearest.best, text_get(&names));
    else if (names.used > 150)
        code = error_set(planning->error, -EINVAL, "%s has no property \"%.40s\"; to see what it has: director help %.120s", what, name,
                         planning->place.path);
    else if (names.used)
        code = error_set(planning->error, -EINVAL, "%s has no property \"%.40s\"; it has: %s", what, name, text_get(&names));
    else
        code = error_set(planning->error, -EINVAL, "%s takes no properties, but \"%.40s\" was given", what, name);
    text_done(&names);
    return code;
}

/* Every property given is known and given once; every required one is there. "name" comes as the call's name. */
int plan_check_arguments(struct planning *planning, const char *what, const struct view_property *list)
{
    const Director__Call *call = planning->call;
    for (size_t i = 0; i < call->n_properties; i++) {
        const char *name = call->properties[i]->name;
        if (!view_property_find(list, name) || strcmp(name, "name") == 0)
            return plan_unknown_property(planning, what, name, list);
        for (size_t k = 0; k < i; k++)
            if (view_name_equal(call->properties[k]->name, name))
                return error_set(planning->error, -EINVAL, "%s is given twice", name);
    }
    for (; list->name; list++)
        if (list->required && strcmp(list->name, "name") != 0 && !plan_argument(planning, list->name))
            return error_set(planning->error, -EINVAL, "%s needs %s=...: %s", what, list->name, list->help);
    return 0;
}

int plan_argument_number(struct planning *planning, const char *name, uint64_t lowest, uint64_t highest, uint64_t fallback,
                           uint64_t *ret_value)
{
    const char *text = plan_argument(planning, name);
    uint64_t value = 0;
    if (!text) {
        *ret_value = fallback;
        return 0;
    }
    bool good = *text != '\0' && strlen(text) <= 18;
    for (const char *p = text; *p && good; p++) {
        good = isdigit((unsigned char)*p);
        value = value * 10 + (uint64_t)(*p - '0');
    }
    if (!good || value < lowest || value > highest)
        return error_set(planning->error, -EINVAL, "%s must be a number from %" PRIu64 " to %" PRIu64 ", not \"%.40s\"", name,
                         lowest, highest, text);
    *ret_value = value;
    return 0;
}

int plan_argument_size(struct planning *planning, const char *name, uint64_t lowest, uint64_t highest, uint64_t unit,
                      uint64_t *ret_bytes)
{
    const char *text = plan_argument(planning, name);
    char low[SIZE_TEXT_SIZE], high[SIZE_TEXT_SIZE];
    uint64_t bytes = 0;
    int code = size_parse(text, &bytes);
    if (code == -EINVAL)
        return error_set(planning->error, -EINVAL, "\"%.40s\" is no %s: write a number with K, M, G or T, for example 10G", text,
                         name);
    if (code < 0 || bytes < lowest || bytes > highest)
        return error_set(planning->error, -EINVAL, "%s must be from %s to %s, not %.40s", name, size_format_exact(lowest, low),
                         size_format_exact(highest, high), text);
    if (bytes % unit)
        return error_set(planning->error, -EINVAL, "%s must be a multiple of %s; %.40s is not, %" PRIu64 " would be", name,
                         size_format_exact(unit, low), text, bytes - bytes % unit + unit);
    *ret_bytes = bytes;
    return 0;
}

/* ---- set ------------------------------------------------------------------------------------------------------------------- */

/* profile is all that can be set. */
static int plan_cluster_set(struct planning *planning)
{
    const char *name = plan_argument(planning, "profile");
    const struct tree_timings *timings;
    struct text names = {0};
    (void)snprintf(planning->plan->path, sizeof(planning->plan->path), "/");
    for (int i = 0; (timings = tree_profile_timings((Director__ClusterProfile)i)); i++) {
        text_addf(&names, "%s%s", i ? " or " : "", timings->name);
        if (strcmp(timings->name, name) != 0)
            continue;
        NEW_BODY(planning, CLUSTER_SET, ClusterSet, cluster_set)->profile = (Director__ClusterProfile)i;
        (void)snprintf(planning->plan->message, sizeof(planning->plan->message),
                       "profile %s: a node that is gone is noticed in %.1f s, one that hangs in %.1f s", name, timings->token_ms * 2.2 / 1000,
                       timings->alive_ms / 1000.0);
        text_done(&names);
        return 0;
    }
    int code = error_set(planning->error, -EINVAL, "profile must be %s, not \"%.40s\"", text_get(&names), name);
    text_done(&names);
    return code;
}

static int plan_set(struct planning *planning)
{
    const Director__Call *call = planning->call;
    const struct view_property *list = view_properties(planning->place.kind);
    struct text names = {0};
    char what[300];
    (void)snprintf(what, sizeof(what), "%.250s", planning->place.path);
    if (call->n_properties == 0)
        return error_set(planning->error, -EINVAL, "set needs at least one property=value");
    plan_list_names(list, true, true, &names);
    int code = 0;
    for (size_t i = 0; i < call->n_properties && code == 0; i++) {
        const char *name = call->properties[i]->name;
        const struct view_property *schema = view_property_find(list, name);
        if (!schema)
            code = plan_unknown_property(planning, what, name, list);
        else if (!schema->writable && names.used)
            code = error_set(planning->error, -EINVAL, "%s of %s cannot be set; what can: %s", name, what, text_get(&names));
        else if (!schema->writable)
            code = error_set(planning->error, -EINVAL, "%s of %s cannot be set, nor anything else there", name, what);
        for (size_t k = 0; k < i && code == 0; k++)
            if (view_name_equal(call->properties[k]->name, name))
                code = error_set(planning->error, -EINVAL, "%s is given twice", name);
    }
    text_done(&names);
    if (code < 0)
        return code;
    if (planning->place.kind == VIEW_CLUSTER)
        return plan_cluster_set(planning);
    ASSERT(planning->place.kind == VIEW_VOLUME); /* nothing else has writable properties yet */
    return plan_volume_set(planning);
}

/* ---- actions --------------------------------------------------------------------------------------------------------------- */

static int plan_action(struct planning *planning)
{
    const char *word = planning->call->name;
    const struct view_verb *verb = view_verb_find(planning->place.kind, word);
    if (!verb || strcmp(word, "create") == 0 || strcmp(word, "delete") == 0) {
        struct text_nearest nearest = {.word = word};
        struct text words = {0};
        for (verb = view_verbs; verb->word; verb++) {
            if (verb->kind != planning->place.kind)
                continue;
            text_nearest_offer(&nearest, verb->word);
            text_addf(&words, "%s%s", words.used ? ", " : "", verb->word);
        }
        int code = error_set(planning->error, -EINVAL, "%.120s has no verb \"%.40s\"%s%s; it has: ls, get, status, help%s%s",
                             planning->place.path, word, nearest.best[0] ? "; did you mean " : "", nearest.best,
                             words.used ? ", " : "", text_get(&words));
        text_done(&words);
        return code;
    }
    int code = plan_check_arguments(planning, word, verb->arguments);
    if (code < 0)
        return code;
    return plan_verb(planning, word);
}

int api_view_plan(const struct api_view *view, const Director__Call *call, const struct api_entropy *entropy,
                  struct api_plan *ret_plan, struct error *error)
{
    struct api_plan plan = {0};
    struct planning planning = {.view = view, .call = call, .entropy = entropy, .plan = &plan, .error = error};
    int code = view_resolve(view, call->path, &planning.place, error);
    if (code < 0)
        return code;
    switch (call->verb) {
    case DIRECTOR__VERB__CREATE:
        code = plan_create(&planning);
        break;
    case DIRECTOR__VERB__SET:
        code = plan_set(&planning);
        break;
    case DIRECTOR__VERB__DELETE:
        code = plan_delete(&planning);
        break;
    case DIRECTOR__VERB__ACTION:
        code = plan_action(&planning);
        break;
    default:
        code = error_set(error, -ENOTSUP, "this agent does not know that verb; is it older than the shell?");
    }
    if (code < 0) {
        api_plan_done(&plan);
        return code;
    }
    *ret_plan = plan;
    return 0;
}

Director__Result *api_view_done(const struct api_view *view, const struct api_plan *plan)
{
    struct view_place place;
    struct error error;
    Director__Result *result = view_result_new();
    view_string_set(&result->message, plan->message);
    if (view_resolve(view, plan->path, &place, &error) == 0)
        (void)view_object_add(view, &place, true, result);
    return result;
}
