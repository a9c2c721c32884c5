/* What the parts of the view share: places (resolved paths), the schema of properties and verbs, building of results. */
#ifndef DIRECTOR_AGENT_API_VIEW_INTERNAL_H
#define DIRECTOR_AGENT_API_VIEW_INTERNAL_H

#include "agent/api/view.h"
#include "agent/core/tree.h"
#include "director/base/text.h"

enum view_kind {
    VIEW_CLUSTER,
    VIEW_NODES,
    VIEW_NODE,
    VIEW_STORES,
    VIEW_STORE,
    VIEW_VOLUMES,
    VIEW_VOLUME,
    VIEW_REPLICAS,
    VIEW_REPLICA,
    VIEW_TARGETS,
    VIEW_TARGET,
    VIEW_LUNS,
    VIEW_LUN,
    VIEW_SESSIONS,
    VIEW_SESSION,
    VIEW_PLUGINS,
    VIEW_PLUGIN,
    VIEW_TASKS,
    VIEW_TASK,
    VIEW_EVENTS,
    VIEW_EVENT,
    VIEW_KIND_COUNT
};

#define VIEW_PATH_SIZE 512u

/* An object of the view: what of the tree and of the live figures it stands on. Valid as long as the tree is not changed. */
struct view_place {
    enum view_kind kind;
    char path[VIEW_PATH_SIZE];
    const struct tree_node *node;
    const struct tree_store *store;
    const struct tree_volume *volume;
    unsigned replica; /* index in volume */
    const struct tree_target *target;
    const struct tree_lun *lun;
    const struct tree_task *task; /* VIEW_TASK; NULL: the resync of replica, or (replica none) the growing, of volume */
    const struct tree_event *event;
    struct api_live_session session;
    struct api_live_plugin plugin;
};

/* ---- view_place.c ------------------------------------------------------------------------------------------------------ */

/* Find path, in any spelling ("/volumes/", "//volumes/./vol1/.."). -ENOENT with the nearest path in words. */
MUST_CHECK int view_resolve(const struct api_view *view, const char *path, struct view_place *ret_place,
                            struct error *error);
typedef bool view_visit(const struct view_place *child, void *context); /* false: enough */
/* Each object directly below place, in order. */
void view_children(const struct api_view *view, const struct view_place *place, view_visit *visit, void *context);
bool view_has_children(const struct api_view *view, const struct view_place *place);
const char *view_last_name(const char *path);

/* ---- view_schema.c ----------------------------------------------------------------------------------------------------- */

struct view_property {
    const char *name, *type, *help;
    const char *default_text; /* "" or NULL: none */
    bool writable;            /* by SET */
    bool required;            /* as an argument */
};

struct view_verb {
    enum view_kind kind; /* of the object it is called on; for create: the folder */
    const char *word, *help;
    bool destructive;
    const struct view_property *arguments; /* ended by a NULL name */
};

const char *view_kind_word(enum view_kind kind);
const char *view_kind_help(enum view_kind kind);
/* Ended by a NULL name. */
const struct view_property *view_properties(enum view_kind kind);
/* Equal names of properties: in_sync_min and in-sync-min are the same. */
bool view_name_equal(const char *a, const char *b);
const struct view_property *view_property_find(const struct view_property *list, const char *name);
/* Ended by a NULL word; all kinds. */
extern const struct view_verb view_verbs[];
const struct view_verb *view_verb_find(enum view_kind kind, const char *word);

/* ---- view_object.c ----------------------------------------------------------------------------------------------------- */

Director__Result *view_result_new(void);
Director__Result *view_result_error(int code, const char *message);
Director__Object *view_result_object(Director__Result *result, const char *path, const char *kind, const char *summary);
void view_result_line(Director__Result *result, const char *format, ...) __attribute__((format(printf, 2, 3)));
void view_string_set(char **string, const char *value);
Director__Property *view_object_property(Director__Object *object, const struct view_property *schema, const char *value);
void view_property_choice(Director__Property *property, const char *value);
/* Fill summary (one line). */
void view_summary(const struct api_view *view, const struct view_place *place, struct text *summary);
/* Append the object of place to result; full: with its properties. */
Director__Object *view_object_add(const struct api_view *view, const struct view_place *place, bool full,
                                  Director__Result *result);

/* ---- view_judge.c: states in words --------------------------------------------------------------------------------------- */

enum view_health { VIEW_HEALTHY, VIEW_RESYNCING, VIEW_DEGRADED, VIEW_FAILING_OVER, VIEW_SUSPENDED };

struct view_volume_judgement {
    enum view_health health;
    unsigned in_sync;           /* replicas in the ISR */
    unsigned syncing;           /* replicas being resynced now */
    struct api_live_volume live; /* known = false: no figures */
    char reason[256];           /* why it is not healthy, with the nodes it needs; "" when healthy */
};

const char *view_health_word(enum view_health health);
bool view_quorate(const struct api_view *view);
bool view_quorum_known(const struct api_view *view);
/* "online", "offline", or "unknown" without live figures. */
const char *view_node_state(const struct api_view *view, uint32_t nodeid);
bool view_node_offline(const struct api_view *view, uint32_t nodeid);
const char *view_node_name(const struct api_view *view, uint32_t nodeid);
void view_judge_volume(const struct api_view *view, const struct tree_volume *volume,
                       struct view_volume_judgement *ret_judgement);
/* "in sync", "syncing 43%", "out of sync", "offline". */
void view_replica_state(const struct api_view *view, const struct tree_volume *volume, unsigned replica,
                        const struct view_volume_judgement *judgement, struct text *state);
/* Names of the nodes of the replicas in mask: "node1, node2". */
void view_replica_names(const struct api_view *view, const struct tree_volume *volume, uint32_t mask, const char *separator,
                        struct text *names);
unsigned view_session_count(const struct api_view *view, const char *iqn);

/* ---- view_task.c: committed tasks, resyncs and growing as objects ----------------------------------------------------------- */

#define VIEW_NO_REPLICA UINT32_MAX /* in view_place.replica */

void view_task_visit(const struct api_view *view, struct view_place *child, const struct view_place *place, view_visit *visit,
                     void *context);
void view_task_summary(const struct api_view *view, const struct view_place *place, struct text *summary);
void view_task_value(const struct api_view *view, const struct view_place *place, const char *name, struct text *value);
bool view_task_running(const struct view_place *place);
const char *view_task_kind(uint64_t kind); /* "verify" */
const char *view_task_state(uint64_t state); /* "cancelled" */

/* ---- view_log.c: the events ------------------------------------------------------------------------------------------------ */

/* One line: what happened, why, by whom. */
void view_event_words(const struct api_view *view, const struct tree_event *event, struct text *words);
void view_event_value(const struct api_view *view, const struct tree_event *event, const char *name, struct text *value);
void view_time(uint64_t ms, struct text *text); /* 2026-11-22T21:00:00Z; nothing for 0 */

/* ---- view_resort.c: what force and discard would do ---------------------------------------------------------------------------- */

/* Fill result with lines; 0 or the same refusals as the plan. */
int view_preview(const struct api_view *view, const struct view_place *place, const Director__Call *call,
                 Director__Result *result, struct error *error);
const char *view_call_value(const Director__Call *call, const char *name);
int view_resort_check(const struct api_view *view, const struct tree_volume *volume, bool force, const char *node,
                      unsigned *ret_replica, struct error *error);

/* ---- view_status.c ------------------------------------------------------------------------------------------------------- */

void view_status(const struct api_view *view, const struct view_place *place, Director__Result *result);

#define VIEW_TARGET_PREFIX "iqn.2026-01.org.director:"

#endif
