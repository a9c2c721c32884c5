/* Views of our CPG group, derived from libcpg's two kinds of configuration change. Pure.
 *
 * corosync reports a change of the ring as CONFCHG (one or more; reasons NODEDOWN, NODEUP) and then a totem CONFCHG; a
 * process that joins, leaves or dies on an unchanged ring gives a CONFCHG alone (JOIN, LEAVE, PROCDOWN). A view is
 * complete only when both agree. Members that the totem list lacks are ghosts and are dropped (seen after heals). */
#ifndef DIRECTOR_AGENT_IO_CPG_VIEW_H
#define DIRECTOR_AGENT_IO_CPG_VIEW_H

#include "director/base/common.h"
#include <stdbool.h>

#define CPG_VIEW_MEMBERS_MAX 128 /* = CPG_MEMBERS_MAX */

enum cpg_view_reason {
    CPG_VIEW_LEFT,          /* the process left the group on request */
    CPG_VIEW_PROCESS_DOWN,  /* the process died; its node lives */
    CPG_VIEW_NODE_DOWN,     /* the node is gone, or cut off: nothing is known of the process */
};

struct cpg_view_member {
    uint32_t nodeid;
    uint32_t pid;
};

struct cpg_view_departed {
    struct cpg_view_member member;
    enum cpg_view_reason reason;
};

struct cpg_view {
    uint64_t id;           /* digest of all below but departed: the same on every member. A ring and member set that come
                              back (join, then leave) give the same id again. Never 0 */
    uint32_t ring_nodeid;  /* the ring's representative */
    uint64_t ring_sequence;
    unsigned member_count; /* sorted by nodeid, then pid */
    struct cpg_view_member members[CPG_VIEW_MEMBERS_MAX];
    unsigned totem_count;  /* nodes on the ring, with or without an agent, sorted */
    uint32_t totem[CPG_VIEW_MEMBERS_MAX];
    unsigned departed_count; /* since the last view. One that went and came back at once is here and in members */
    struct cpg_view_departed departed[CPG_VIEW_MEMBERS_MAX];
};

struct cpg_view_builder {
    struct cpg_view view;  /* the last complete one */
    unsigned group_count;  /* the last CONFCHG's members */
    struct cpg_view_member group[CPG_VIEW_MEMBERS_MAX];
    unsigned departed_count;
    struct cpg_view_departed departed[CPG_VIEW_MEMBERS_MAX];
    uint32_t ring_nodeid;
    uint64_t ring_sequence;
    unsigned totem_count;
    uint32_t totem[CPG_VIEW_MEMBERS_MAX];
    bool have_group, have_totem, ring_changing;
};

/* A new connection: nothing is known. */
void cpg_view_builder_init(struct cpg_view_builder *builder);
/* A CONFCHG: members, those who left, and whether any reason says that the ring itself changes (NODEDOWN, NODEUP).
 * True: builder->view is a new complete view. Lists longer than CPG_VIEW_MEMBERS_MAX are cut (corosync has no more). */
bool cpg_view_builder_group(struct cpg_view_builder *builder, const struct cpg_view_member *members, size_t member_count,
                            const struct cpg_view_departed *departed, size_t departed_count, bool ring_changing);
/* A totem CONFCHG. True: builder->view is a new complete view. */
bool cpg_view_builder_totem(struct cpg_view_builder *builder, uint32_t ring_nodeid, uint64_t ring_sequence,
                            const uint32_t *nodes, size_t node_count);
/* Whether the view holds this process. */
bool cpg_view_has(const struct cpg_view *view, uint32_t nodeid, uint32_t pid);
const char *cpg_view_reason_name(enum cpg_view_reason reason);

#endif
