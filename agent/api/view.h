/* The tree as the API shows it: objects under paths made of the committed tree plus live figures, and the commands that a
 * change asked for by path means. Pure: no sockets, clock or randomness; the tree and the callbacks are only read.
 *
 *     /                              the cluster
 *     /nodes/N                       /nodes/N/stores/S
 *     /volumes/V                     /volumes/V/replicas/N        (N: the node's name)
 *     /targets/IQN                   /targets/IQN/luns/L          /targets/IQN/sessions/K (live)
 *     /plugins/P                                                  (live)
 *     /tasks/K                       verify-7, move-8 (committed); grow-V, resync-V-N (as the volumes stand)
 *     /events/I                      what happened, by number
 *
 * How the agent uses it, for a Call from api/server.h (after its read barrier):
 *     if (api_view_is_read(call)) { r = api_view_answer(&view, call); api_call_reply(c, r); api_result_free(r); }
 *     else { api_view_plan(&view, call, &entropy, &plan, &error); submit plan.commands one after another, each after the
 *            one before was applied; stop at the first error and answer with api_plan_failed(); then
 *            r = api_view_done(&view, &plan) on the tree as it is then. }
 * and after each command that was applied: api_view_event(), then api_server_publish(). */
#ifndef DIRECTOR_AGENT_API_VIEW_H
#define DIRECTOR_AGENT_API_VIEW_H

#include "director/base/common.h"
#include "director/base/error.h"
#include <proto/director.pb-c.h>
#include <stdbool.h>
#include <stdint.h>

struct tree; /* agent/core/tree.h */

/* Live figures of a volume, as its owner (or this node) knows them. */
struct api_live_volume {
    bool known;                   /* nothing below is meaningful without */
    bool serving;                 /* the owner has it open and answers */
    bool suspended;               /* I/O is held: words in reason */
    char reason[128];
    uint64_t read_bytes, written_bytes, reads, writes; /* since the owner opened it */
    uint64_t resynced_bytes; /* copied to returning replicas since the owner opened it */
    uint64_t repaired_blocks; /* rewritten from a good replica since the owner opened it */
    struct {
        bool syncing;
        uint64_t total_bytes, done_bytes; /* of this resync */
        uint64_t compared_bytes, sent_bytes;
        uint64_t bytes_per_second, left_ms; /* UINT64_MAX: not known */
        uint64_t dirty_bytes;     /* known to differ, in whole regions */
        uint64_t read_errors, repaired_blocks; /* since the owner opened it */
    } replica[4];                 /* by replica index */
    struct api_live_check {
        uint64_t task;            /* 0: none is running */
        bool waiting;             /* for a member, or for a resync to end */
        bool ended;               /* figures are final */
        uint64_t position, total_bytes, bytes_per_second, left_ms;
        uint64_t mismatches, bad_blocks, repaired, unrepaired; /* with what was found before a failover */
        char words[128];          /* the first findings */
        unsigned found_count;     /* the same as figures, where they come from */
        struct {
            uint64_t offset, length;
            uint8_t replicas;     /* bit i: replica i is bad there */
        } found[4];
    } check;
};

/* What a node says of its own replica of a volume. */
struct api_live_replica {
    bool failed;              /* out of service until its directord is restarted or its disk replaced */
    uint64_t intent_marks;    /* regions with writes that may be under way */
    uint64_t carry_marks;     /* of these: of an earlier life, to be reconciled by the owner */
    uint64_t sealed_epoch;
    uint64_t checksum_errors; /* since it was opened */
};

struct api_live_session {
    char name[24];                /* short, unique in its target: "1", "2" */
    char initiator[224];
    char address[64];             /* of the initiator */
    char node[64];                /* whose portal it uses */
};

struct api_live_plugin {
    char name[64], kind[16], version[32], summary[160];
};

/* Where live figures come from. A NULL function means: not known. Every function may be called many times per answer. */
struct api_live {
    bool (*quorate)(void *context);                                  /* this node is in a quorate view */
    const char *(*leader)(void *context);                            /* name of the sequencer's node, or NULL */
    bool (*node_alive)(void *context, uint32_t nodeid);              /* as the cluster sees it */
    bool (*volume)(void *context, uint64_t volume_id, struct api_live_volume *ret_figures);
    /* The same as it was last heard, however old. */
    bool (*volume_last)(void *context, uint64_t volume_id, struct api_live_volume *ret_figures);
    bool (*replica)(void *context, uint64_t volume_id, uint32_t nodeid, struct api_live_replica *ret_figures);
    bool (*session)(void *context, const char *iqn, unsigned index, struct api_live_session *ret_session); /* false: no more */
    bool (*plugin)(void *context, unsigned index, struct api_live_plugin *ret_plugin);                     /* false: no more */
    bool (*store_space)(void *context, uint32_t nodeid, const char *store, uint64_t *ret_capacity_bytes,
                        uint64_t *ret_free_bytes);
};

struct api_view {
    const struct tree *tree;
    const struct api_live *live;  /* may be NULL: nothing is known */
    void *live_context;
    const char *self;             /* name of the node that answers; "" when not known */
    uint16_t portal_port;         /* for the "connect by" hint; 0: 3260 */
};

/* Randomness for one plan, fetched by the caller (C3: ids come with commands). */
struct api_entropy {
    uint8_t uuid[16];             /* already a version 4 uuid */
    uint64_t incarnations[4];
};

#define API_PLAN_COMMANDS_MAX 4

/* A change, as commands to be proposed in order. Release with api_plan_done(). */
struct api_plan {
    Director__Command *commands[API_PLAN_COMMANDS_MAX]; /* origin fields are the proposer's to fill */
    unsigned command_count;       /* 0: nothing to do, it is so already */
    char path[512];               /* the object to show afterwards; of a deletion the parent */
    char message[384];            /* one sentence of success */
};

/* LIST, GET, DESCRIBE, STATUS, and an ACTION with preview=yes (what would it do?): answered by api_view_answer(). CREATE, SET,
 * DELETE, ACTION: by api_view_plan(). */
bool api_view_is_read(const Director__Call *call);
/* Never NULL; errors are in code and message. The caller's until api_result_free(). */
Director__Result *api_view_answer(const struct api_view *view, const Director__Call *call);
/* Turn a change into commands, or say early and clearly why not: -ENOENT (with the nearest path), -EINVAL (with the valid
 * properties, limits or name rules), -EEXIST, -EBUSY, -ENOTSUP. What passes may still be refused by the tree. */
MUST_CHECK int api_view_plan(const struct api_view *view, const Director__Call *call, const struct api_entropy *entropy,
                             struct api_plan *ret_plan, struct error *error);
/* The answer to a plan whose commands were all applied, made of the tree as it is now. */
Director__Result *api_view_done(const struct api_view *view, const struct api_plan *plan);
/* The words for a plan of which the first `done` commands were applied and the next failed because of `why`: what was done
 * (it stays done), then why. With done 0 that is `why` itself, else text, which has size bytes; cut when it does not fit. */
const char *api_plan_failed(const struct api_plan *plan, unsigned done, const char *why, size_t size, char *text);
void api_plan_done(struct api_plan *plan);

/* What a watcher is told of a command that was applied (view->tree is the tree after it): the object's path in path, and
 * a Result with the object and one line. NULL when nobody outside cares. The caller's until api_result_free(). */
Director__Result *api_view_event(const struct api_view *view, const Director__Command *applied, char path[static 512]);

/* NULL is fine. */
void api_result_free(Director__Result *result);

#endif
