#include "agent/core/failover.h"

#include "director/base/common.h"
#include <stdarg.h>
#include <string.h>

/* What was done for a volume lately. */
struct memory {
    uint64_t volume;
    uint64_t epoch, version, planned_ms; /* the last step handed out, and on what it was made */
    unsigned promotions;                 /* since the last calm */
    uint64_t promoted_ms;
    struct {
        unsigned count;
        uint64_t at_ms;
    } thrown_out[TREE_REPLICAS_MAX]; /* replicas that were seen to leave the ISR */
    uint16_t nodes[TREE_REPLICAS_MAX];
    uint32_t isr; /* as observed last */
    bool observed;
};

struct failover {
    struct memory *items; /* by volume id */
    size_t count, capacity;
};

bool failover_nodes_have(const struct failover_nodes *nodes, uint16_t nodeid)
{
    for (size_t i = 0; i < nodes->count; i++)
        if (nodes->ids[i] == nodeid)
            return true;
    return false;
}

struct failover *failover_new(void)
{
    struct failover *failover = calloc(1, sizeof(*failover));
    ASSERT(failover);
    return failover;
}

void failover_free(struct failover *failover)
{
    if (!failover)
        return;
    free(failover->items);
    free(failover);
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

static size_t memory_place(const struct failover *failover, uint64_t volume)
{
    size_t low = 0, high = failover->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (failover->items[middle].volume < volume)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const struct memory *memory_find(const struct failover *failover, uint64_t volume)
{
    size_t place = memory_place(failover, volume);
    return place < failover->count && failover->items[place].volume == volume ? &failover->items[place] : NULL;
}

static struct memory *memory_get(struct failover *failover, const struct tree_volume *volume)
{
    size_t place = memory_place(failover, volume->id);
    if (place < failover->count && failover->items[place].volume == volume->id)
        return &failover->items[place];
    if (failover->count == failover->capacity) {
        failover->capacity = failover->capacity ? failover->capacity * 2 : 16;
        failover->items = realloc(failover->items, failover->capacity * sizeof(*failover->items));
        ASSERT(failover->items);
    }
    memmove(&failover->items[place + 1], &failover->items[place], (failover->count - place) * sizeof(*failover->items));
    failover->count++;
    failover->items[place] = (struct memory){.volume = volume->id};
    for (unsigned i = 0; i < volume->replica_count; i++)
        failover->items[place].nodes[i] = volume->replicas[i].nodeid;
    return &failover->items[place];
}

/* Bounded by the volumes there are. */
void failover_forget_deleted(struct failover *failover, const struct tree *tree)
{
    size_t kept = 0;
    for (size_t i = 0; i < failover->count; i++)
        if (tree_volume_by_id(tree, failover->items[i].volume))
            failover->items[kept++] = failover->items[i];
    failover->count = kept;
}

/* How long the next one after count of them has to wait: nothing for the first few, then doubled (scenario 21). */
static uint64_t backoff_ms(unsigned count)
{
    if (count < FAILOVER_BURST)
        return 0;
    unsigned doublings = MIN(count - FAILOVER_BURST, 10u);
    return MIN((uint64_t)FAILOVER_BACKOFF_MIN_MS << doublings, (uint64_t)FAILOVER_BACKOFF_MAX_MS);
}

static uint64_t wait_ms(unsigned count, uint64_t last_ms, uint64_t now_ms)
{
    uint64_t wait = now_ms - last_ms >= FAILOVER_CALM_MS ? 0 : backoff_ms(count);
    return now_ms - last_ms >= wait ? 0 : wait - (now_ms - last_ms);
}

/* ---- planning ------------------------------------------------------------------------------------------------- */

static uint32_t alive_members(const struct tree_volume *volume, const struct failover_nodes *alive)
{
    uint32_t mask = 0;
    for (unsigned i = 0; i < volume->replica_count; i++)
        if ((volume->isr >> i & 1) && failover_nodes_have(alive, volume->replicas[i].nodeid))
            mask |= 1u << i;
    return mask;
}

static const char *node_name(const struct tree *tree, uint16_t nodeid)
{
    const struct tree_node *node = tree_node_by_id(tree, nodeid);
    return node ? node->name : "?";
}

/* Names of the nodes of the replicas in mask: "a, b". */
static void names_of(const struct tree *tree, const struct tree_volume *volume, uint32_t mask, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < volume->replica_count && used < size; i++)
        if (mask >> i & 1)
            used += (size_t)snprintf(text + used, size - used, "%s%.40s", used ? ", " : "",
                                     node_name(tree, volume->replicas[i].nodeid));
}

/* How many volumes each node owns, with what this plan has given away already. */
struct load {
    uint16_t nodeid;
    unsigned owned;
};

static struct load *load_of(struct load *loads, size_t *count, uint16_t nodeid)
{
    for (size_t i = 0; i < *count; i++)
        if (loads[i].nodeid == nodeid)
            return &loads[i];
    ASSERT(*count < TREE_NODES_MAX); /* owners are nodes of the tree (T2) */
    loads[*count] = (struct load){.nodeid = nodeid};
    return &loads[(*count)++];
}

static unsigned choose_owner(const struct tree_volume *volume, uint32_t members, struct load *loads, size_t *load_count)
{
    unsigned best = TREE_REPLICAS_MAX;
    for (unsigned i = 0; i < volume->replica_count; i++) {
        if (!(members >> i & 1))
            continue;
        if (best == TREE_REPLICAS_MAX || load_of(loads, load_count, volume->replicas[i].nodeid)->owned <
                                             load_of(loads, load_count, volume->replicas[best].nodeid)->owned)
            best = i;
    }
    return best;
}

static void thrown_out(struct memory *memory, uint32_t lost, uint64_t now_ms)
{
    for (unsigned i = 0; i < TREE_REPLICAS_MAX; i++) {
        if (!(lost >> i & 1))
            continue;
        if (now_ms - memory->thrown_out[i].at_ms >= FAILOVER_CALM_MS)
            memory->thrown_out[i].count = 0;
        memory->thrown_out[i].count++;
        memory->thrown_out[i].at_ms = now_ms;
    }
}

/* False: nothing to do, or not yet. */
static bool plan_volume(struct failover *failover, const struct tree *tree, const struct tree_volume *volume,
                        const struct failover_nodes *alive, uint64_t now_ms, struct load *loads, size_t *load_count,
                        struct failover_step *step)
{
    uint32_t members = alive_members(volume, alive);
    bool owner_alive = failover_nodes_have(alive, volume->owner);
    if (members == 0 || (owner_alive && members == volume->isr))
        return false; /* I10: a stale replica is never the way out */
    struct memory *memory = memory_get(failover, volume);
    bool unchanged = memory->planned_ms != 0 && memory->epoch == volume->epoch && memory->version == volume->isr_version;
    if (unchanged && now_ms - memory->planned_ms < FAILOVER_REPEAT_MS)
        return false;
    if (!owner_alive && !unchanged && wait_ms(memory->promotions, memory->promoted_ms, now_ms))
        return false;
    char names[96];
    *step = (struct failover_step){
        .action = owner_alive ? FAILOVER_SHRINK : FAILOVER_PROMOTE,
        .volume = volume->id,
        .expect_epoch = volume->epoch,
        .expect_version = volume->isr_version,
        .owner = volume->owner,
        .isr = members,
    };
    if (owner_alive) {
        names_of(tree, volume, volume->isr & ~members, names, sizeof(names));
        snprintf(step->reason, sizeof(step->reason), "not alive: %s", names);
    } else {
        step->owner = volume->replicas[choose_owner(volume, members, loads, load_count)].nodeid;
        snprintf(step->reason, sizeof(step->reason), "owner %s is not alive", node_name(tree, volume->owner));
        load_of(loads, load_count, step->owner)->owned++;
        if (!unchanged) {
            memory->promotions = now_ms - memory->promoted_ms >= FAILOVER_CALM_MS ? 1 : memory->promotions + 1;
            memory->promoted_ms = now_ms;
        }
    }
    memory->epoch = volume->epoch;
    memory->version = volume->isr_version;
    memory->planned_ms = now_ms;
    return true;
}

size_t failover_plan(struct failover *failover, const struct tree *tree, const struct failover_nodes *alive, uint64_t now_ms,
                     struct failover_step *steps, size_t max)
{
    struct load loads[TREE_NODES_MAX];
    size_t load_count = 0, count = 0, volumes = tree_volume_count(tree);
    failover_forget_deleted(failover, tree);
    for (size_t i = 0; i < volumes; i++)
        load_of(loads, &load_count, tree_volume_at(tree, i)->owner)->owned++;
    for (size_t i = 0; i < volumes && count < max; i++)
        if (plan_volume(failover, tree, tree_volume_at(tree, i), alive, now_ms, loads, &load_count, &steps[count]))
            count++;
    return count;
}

void failover_observe(struct failover *failover, const struct tree_volume *volume, uint64_t now_ms)
{
    struct memory *memory = memory_get(failover, volume);
    uint32_t same = 0;
    for (unsigned i = 0; i < TREE_REPLICAS_MAX; i++) {
        uint16_t nodeid = i < volume->replica_count ? volume->replicas[i].nodeid : 0;
        if (memory->nodes[i] == nodeid) {
            same |= 1u << i;
            continue;
        }
        memory->nodes[i] = nodeid; /* another replica: what the one before it did does not count for it */
        memory->thrown_out[i].count = 0;
    }
    if (memory->observed)
        thrown_out(memory, memory->isr & ~volume->isr & same, now_ms);
    memory->isr = volume->isr;
    memory->observed = true;
}

uint32_t failover_rejoin_delay(const struct failover *failover, uint64_t volume, uint16_t nodeid, uint64_t now_ms)
{
    const struct memory *memory = memory_find(failover, volume);
    for (unsigned i = 0; memory && i < TREE_REPLICAS_MAX; i++)
        if (memory->nodes[i] == nodeid && memory->thrown_out[i].count)
            return (uint32_t)wait_ms(memory->thrown_out[i].count, memory->thrown_out[i].at_ms, now_ms);
    return 0;
}

bool failover_answer(const struct failover *failover, const struct tree_volume *volume, uint16_t self,
                     const struct failover_nodes *alive, uint64_t epoch, uint64_t version, uint32_t isr, uint64_t now_ms,
                     struct failover_step *ret_step)
{
    int place = tree_volume_replica_of(volume, self);
    if (volume->owner != self || volume->epoch != epoch || volume->isr_version != version || place < 0)
        return false;
    struct failover_step step = {
        .volume = volume->id, .expect_epoch = epoch, .expect_version = version, .owner = self, .isr = isr};
    if (isr >> place & 1) {
        uint32_t joining = isr & ~volume->isr;
        for (unsigned i = 0; i < volume->replica_count; i++)
            if ((joining >> i & 1) && (!failover_nodes_have(alive, volume->replicas[i].nodeid) ||
                                       failover_rejoin_delay(failover, volume->id, volume->replicas[i].nodeid, now_ms)))
                return false; /* scenario 21 */
        step.action = joining ? FAILOVER_GROW : FAILOVER_SHRINK;
        *ret_step = step;
        return true;
    }
    step.action = FAILOVER_PROMOTE;
    step.isr &= volume->isr;
    for (unsigned i = 0; i < volume->replica_count; i++) {
        if (!(step.isr >> i & 1) || !failover_nodes_have(alive, volume->replicas[i].nodeid))
            continue;
        step.owner = volume->replicas[i].nodeid;
        *ret_step = step;
        return true;
    }
    return false;
}

/* ---- words ---------------------------------------------------------------------------------------------------- */

static void say(char *text, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void say(char *text, size_t size, const char *format, ...)
{
    if (!text || size == 0)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, size, format, arguments);
    va_end(arguments);
}

enum failover_health failover_volume_state(const struct tree *tree, const struct tree_volume *volume,
                                           const struct failover_nodes *alive, bool quorate, char *text, size_t text_size)
{
    uint32_t members = alive_members(volume, alive), all = tree_volume_mask(volume);
    bool owner_alive = failover_nodes_have(alive, volume->owner);
    char names[192];
    if (!quorate && !(owner_alive && members == volume->isr)) {
        names_of(tree, volume, volume->isr & ~members, names, sizeof(names));
        say(text, text_size, "suspended: the cluster has no quorum and node %s is not alive; bring back a majority of the voters",
            names);
        return FAILOVER_SUSPENDED;
    }
    if (members == 0) {
        bool several = volume->isr & (volume->isr - 1);
        names_of(tree, volume, volume->isr, names, sizeof(names));
        say(text, text_size, "suspended: only %s %s the current data; bring %s back", names,
            several ? "hold" : "holds", several ? "one of them" : "it");
        return FAILOVER_SUSPENDED;
    }
    if (!owner_alive) {
        say(text, text_size, "changing: owner %s is not alive, another takes over", node_name(tree, volume->owner));
        return FAILOVER_CHANGING;
    }
    unsigned in_sync = (unsigned)__builtin_popcount(members);
    if (members != all) {
        names_of(tree, volume, all & ~members, names, sizeof(names));
        say(text, text_size, "degraded: %u of %u replicas in sync, not in sync: %s", in_sync, tree_volume_replicas(volume), names);
        return FAILOVER_DEGRADED;
    }
    say(text, text_size, "healthy: %u of %u replicas in sync", in_sync, tree_volume_replicas(volume));
    return FAILOVER_HEALTHY;
}

const char *failover_health_name(enum failover_health health)
{
    static const char *const names[] = {"healthy", "degraded", "changing", "suspended"};
    return (size_t)health < ARRAY_SIZE(names) ? names[health] : "unknown";
}
