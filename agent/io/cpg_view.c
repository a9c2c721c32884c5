#include "agent/io/cpg_view.h"

#include <string.h>

void cpg_view_builder_init(struct cpg_view_builder *builder)
{
    memset(builder, 0, sizeof(*builder));
}

static int member_compare(const void *a, const void *b)
{
    const struct cpg_view_member *x = a, *y = b;
    if (x->nodeid != y->nodeid)
        return x->nodeid < y->nodeid ? -1 : 1;
    return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static int nodeid_compare(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

bool cpg_view_has(const struct cpg_view *view, uint32_t nodeid, uint32_t pid)
{
    for (unsigned i = 0; i < view->member_count; i++)
        if (view->members[i].nodeid == nodeid && view->members[i].pid == pid)
            return true;
    return false;
}

static bool totem_has(const struct cpg_view_builder *builder, uint32_t nodeid)
{
    return bsearch(&nodeid, builder->totem, builder->totem_count, sizeof(nodeid), nodeid_compare) != NULL;
}

/* FNV-1a, 64 bit: small, and nobody gains by a collision. */
static uint64_t digest_add(uint64_t digest, uint64_t value)
{
    for (unsigned i = 0; i < 64; i += 8)
        digest = (digest ^ (value >> i & 0xff)) * 0x100000001b3ull;
    return digest;
}

static uint64_t view_digest(const struct cpg_view *view)
{
    uint64_t digest = 0xcbf29ce484222325ull;
    digest = digest_add(digest, view->ring_nodeid);
    digest = digest_add(digest, view->ring_sequence);
    digest = digest_add(digest, view->member_count);
    for (unsigned i = 0; i < view->member_count; i++)
        digest = digest_add(digest, (uint64_t)view->members[i].nodeid << 32 | view->members[i].pid);
    for (unsigned i = 0; i < view->totem_count; i++)
        digest = digest_add(digest, view->totem[i]);
    return digest ? digest : 1;
}

static const struct cpg_view_departed *departed_find(const struct cpg_view_builder *builder,
                                                     const struct cpg_view_member *member)
{
    for (unsigned i = 0; i < builder->departed_count; i++)
        if (member_compare(&builder->departed[i].member, member) == 0)
            return &builder->departed[i];
    return NULL;
}

/* Both kinds agree: make the view. False when it is the one that we have. */
static bool view_complete(struct cpg_view_builder *builder)
{
    struct cpg_view next = {.ring_nodeid = builder->ring_nodeid, .ring_sequence = builder->ring_sequence};
    if (!builder->have_group || !builder->have_totem || builder->ring_changing)
        return false;
    for (unsigned i = 0; i < builder->group_count; i++)
        if (totem_has(builder, builder->group[i].nodeid)) /* else a ghost */
            next.members[next.member_count++] = builder->group[i];
    memcpy(next.totem, builder->totem, sizeof(builder->totem[0]) * builder->totem_count);
    next.totem_count = builder->totem_count;
    next.id = view_digest(&next);
    for (unsigned i = 0; i < builder->view.member_count; i++) {
        const struct cpg_view_member *old = &builder->view.members[i];
        const struct cpg_view_departed *told = departed_find(builder, old);
        if (told)
            next.departed[next.departed_count++] = *told;
        else if (!cpg_view_has(&next, old->nodeid, old->pid)) /* dropped as a ghost */
            next.departed[next.departed_count++] =
                (struct cpg_view_departed){.member = *old, .reason = CPG_VIEW_NODE_DOWN};
    }
    builder->departed_count = 0;
    if (next.id == builder->view.id && !next.departed_count)
        return false;
    builder->view = next;
    return true;
}

bool cpg_view_builder_group(struct cpg_view_builder *builder, const struct cpg_view_member *members, size_t member_count,
                            const struct cpg_view_departed *departed, size_t departed_count, bool ring_changing)
{
    builder->group_count = (unsigned)MIN(member_count, (size_t)CPG_VIEW_MEMBERS_MAX);
    if (builder->group_count)
        memcpy(builder->group, members, sizeof(members[0]) * builder->group_count);
    qsort(builder->group, builder->group_count, sizeof(builder->group[0]), member_compare);
    for (size_t i = 0; i < departed_count && builder->departed_count < CPG_VIEW_MEMBERS_MAX; i++)
        if (!departed_find(builder, &departed[i].member))
            builder->departed[builder->departed_count++] = departed[i];
    builder->have_group = true;
    if (ring_changing)
        builder->ring_changing = true; /* until the totem list comes */
    return view_complete(builder);
}

bool cpg_view_builder_totem(struct cpg_view_builder *builder, uint32_t ring_nodeid, uint64_t ring_sequence,
                            const uint32_t *nodes, size_t node_count)
{
    builder->totem_count = (unsigned)MIN(node_count, (size_t)CPG_VIEW_MEMBERS_MAX);
    if (builder->totem_count)
        memcpy(builder->totem, nodes, sizeof(nodes[0]) * builder->totem_count);
    qsort(builder->totem, builder->totem_count, sizeof(builder->totem[0]), nodeid_compare);
    builder->ring_nodeid = ring_nodeid;
    builder->ring_sequence = ring_sequence;
    builder->have_totem = true;
    builder->ring_changing = false;
    return view_complete(builder);
}

const char *cpg_view_reason_name(enum cpg_view_reason reason)
{
    switch (reason) {
    case CPG_VIEW_LEFT:
        return "left";
    case CPG_VIEW_PROCESS_DOWN:
        return "process down";
    case CPG_VIEW_NODE_DOWN:
        return "node down";
    }
    return "?";
}
