/* What must hold over all nodes, whatever happened: one index has one content and one tree; an epoch has one owner (I1), an
 * in-sync set is not empty and holds its owner (I10); what was acknowledged is never lost (C1) and seen by every barrier that
 * began later; at the end replicas and trees are equal and what clients saw is linearizable. */
#include "director/base/crc32c.h"
#include "tests/simulation/sim.h"

#include <string.h>

static struct sim_record *record(struct sim *sim, uint64_t index)
{
    if (index >= sim->record_capacity) {
        size_t capacity = MAX((size_t)index + 1, sim->record_capacity * 2);
        sim->records = realloc(sim->records, capacity * sizeof(sim->records[0]));
        ASSERT(sim->records);
        memset(sim->records + sim->record_capacity, 0, (capacity - sim->record_capacity) * sizeof(sim->records[0]));
        sim->record_capacity = capacity;
    }
    return &sim->records[index];
}

static void same(struct sim_node *node, uint64_t index, uint64_t *known, uint64_t found, const char *what)
{
    if (*known == 0)
        *known = found;
    if (*known != found)
        sim_violate(&node->sim->world, "index %llu has two %s, one on node %u", (unsigned long long)index, what, node->nodeid);
}

static void check_volume(struct sim_node *node, const struct tree_volume *volume)
{
    struct sim *sim = node->sim;
    int place = sim_volume_place(volume->name), owner = tree_volume_replica_of(volume, volume->owner);
    if (place < 0)
        return;
    if (!volume->isr || owner < 0 || !(volume->isr >> owner & 1))
        sim_violate(&sim->world, "%s: in-sync set %x without its owner node %u (I10)", volume->name, volume->isr, volume->owner);
    if (volume->epoch >= sim->epochs[place].capacity) {
        size_t capacity = MAX((size_t)volume->epoch + 1, sim->epochs[place].capacity * 2);
        uint16_t *owners = realloc(sim->epochs[place].owners, capacity * sizeof(uint16_t));
        ASSERT(owners);
        memset(owners + sim->epochs[place].capacity, 0, (capacity - sim->epochs[place].capacity) * sizeof(uint16_t));
        sim->epochs[place].owners = owners;
        sim->epochs[place].capacity = capacity;
    }
    uint16_t *known = &sim->epochs[place].owners[volume->epoch];
    if (!*known) {
        *known = volume->owner;
        sim->counts.promotions += volume->epoch > 1;
        SIM_LOG(sim, "committed: %s epoch %llu owner %u isr %x", volume->name, (unsigned long long)volume->epoch, volume->owner,
                volume->isr);
    }
    if (*known != volume->owner)
        sim_violate(&sim->world, "%s: epoch %llu is owned by nodes %u and %u (I1)", volume->name,
                    (unsigned long long)volume->epoch, *known, volume->owner);
}

void sim_check_applied(struct sim_node *node, uint64_t index, const uint8_t *data, size_t size)
{
    struct sim_record *known = record(node->sim, index);
    uint64_t content = (uint64_t)crc32c(0, data, size) << 32 | (uint32_t)size | 1;
    same(node, index, &known->content, content, "contents");
    same(node, index, &known->tree, tree_hash(node->control.tree) | 1, "trees");
    for (size_t i = 0; i < tree_volume_count(node->control.tree); i++)
        check_volume(node, tree_volume_at(node->control.tree, i));
}

void sim_check_restored(struct sim_node *node, uint64_t index)
{
    uint64_t at = index;
    (void)record(node->sim, index);
    while (at > 0 && !node->sim->records[at].tree) /* the last command in it */
        at--;
    if (at > 0)
        same(node, at, &node->sim->records[at].tree, tree_hash(node->control.tree) | 1, "trees (a snapshot)");
}

void sim_check_acknowledged(struct sim_node *node, size_t count, const char *when)
{
    char iqn[64];
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(iqn, sizeof(iqn), "iqn.2026-01.org.director:%u", node->sim->acknowledged[i]);
        if (!tree_target_by_iqn(node->control.tree, iqn))
            sim_violate(&node->sim->world, "acknowledged change %u is not on node %u at %s (C1)", node->sim->acknowledged[i],
                        node->nodeid, when);
    }
}

void sim_check_replicas(struct sim *sim, unsigned volume)
{
    const struct tree_volume *v = sim_volume(sim, volume);
    const struct sim_node *first = NULL;
    for (unsigned k = 0; k < v->replica_count; k++) {
        const struct sim_node *node = sim_replica(sim, v, k);
        const struct sim_disk *a = first ? &first->disks[volume] : NULL, *b = node ? &node->disks[volume] : NULL;
        first = first ? first : node;
        for (uint32_t block = 0; block < SIM_BLOCKS && a && b; block++)
            if (a->blocks[block] != b->blocks[block]) {
                sim_violate(&sim->world, "%s block %u differs: %u on node %u, %u on node %u", v->name, block, a->blocks[block],
                            first->nodeid, b->blocks[block], node->nodeid);
                return;
            }
    }
}

static bool answered(struct sim *sim, void *argument)
{
    (void)argument;
    return sim_client_all_answered(sim);
}

struct check {
    unsigned volume;
    struct mirror_check_status status;
};

static bool check_done(struct sim *sim, void *argument)
{
    struct check *check = argument;
    struct sim_node *owner = sim_owner(sim, check->volume);
    struct mirror_status status;
    if (!owner->up || !owner->units[check->volume].mirror)
        return false;
    mirror_get_status(owner->units[check->volume].mirror, sim_clock_us(owner), &status);
    check->status = status.check;
    return status.check.state == MIRROR_CHECK_DONE || status.check.state == MIRROR_CHECK_STOPPED ||
           status.check.state == MIRROR_CHECK_IDLE; /* another owner meanwhile: a task starts it there again */
}

static bool check_runs(struct sim *sim, unsigned volume, enum mirror_check_kind kind, bool repair, struct check *ret_check)
{
    for (unsigned owners = 0; owners < 5; owners++) {
        *ret_check = (struct check){.volume = volume};
        for (unsigned i = 0; i < 100 && !sim_operator_check(sim_owner(sim, volume), volume, kind, repair); i++) {
            sim_operator_stop(sim_owner(sim, volume), volume); /* one that was begun before */
            sim_run(sim, 50);
        }
        if (!sim_wait(sim, 60000, check_done, ret_check) || ret_check->status.state != MIRROR_CHECK_IDLE)
            break;
    }
    if (ret_check->status.kind != kind || ret_check->status.state != MIRROR_CHECK_DONE) {
        sim_violate(&sim->world, "v%u: a check of kind %d came to no end (state %d, at %llu)", volume, kind, ret_check->status.state,
                    (unsigned long long)ret_check->status.position);
        return false;
    }
    return true;
}

/* Scrub finds and repairs all that is rotten, then verify finds nothing. */
static void check_online(struct sim *sim, unsigned volume)
{
    struct check check;
    const struct tree_volume *v = sim_volume(sim, volume);
    for (uint64_t version = 0; version != v->isr_version; v = sim_volume(sim, volume)) { /* again when a member left meanwhile */
        sim_settle(sim, 60000);
        version = sim->world.violated ? v->isr_version : sim_volume(sim, volume)->isr_version;
        if (sim->world.violated || !check_runs(sim, volume, MIRROR_CHECK_SCRUB, true, &check))
            return;
    }
    for (unsigned k = 0; k < v->replica_count; k++)
        for (uint32_t block = 0; block < SIM_BLOCKS && sim_replica(sim, v, k) && v->isr >> k & 1; block++)
            if (sim_replica(sim, v, k)->disks[volume].states[block])
                sim_violate(&sim->world, "%s block %u is still bad on node %u after a scrub", v->name, block, v->replicas[k].nodeid);
    sim->counts.repaired += (unsigned)check.status.repaired;
    if (sim_places(v) & (sim_places(v) - 1) && check_runs(sim, volume, MIRROR_CHECK_VERIFY, false, &check) &&
        (check.status.mismatches || check.status.bad_blocks || check.status.failed))
        sim_violate(&sim->world, "%s: verify finds %llu mismatches and %llu bad blocks", v->name,
                    (unsigned long long)check.status.mismatches, (unsigned long long)check.status.bad_blocks);
}

void sim_check_end(struct sim *sim)
{
    for (unsigned v = 0; v < sim->options.volumes && !sim->world.violated; v++) /* everything is read once more */
        for (uint32_t block = 0; block < SIM_BLOCKS; block += 8)
            (void)sim_client_submit(sim_owner(sim, v), v, true, block, 8);
    if (!sim->world.violated && !sim_wait(sim, 20000, answered, NULL))
        sim_violate(&sim->world, "requests hang after all was healed");
    for (unsigned v = 0; v < sim->options.volumes && !sim->world.violated; v++)
        check_online(sim, v);
    sim_settle(sim, 10000); /* agents may have proposed something meanwhile */
    for (unsigned i = 0; i < sim->node_count && !sim->world.violated; i++) {
        struct sim_node *node = &sim->nodes[i];
        if (tree_hash(node->control.tree) != tree_hash(sim_tree(sim)))
            sim_violate(&sim->world, "the tree of node %u is another", node->nodeid);
        sim_check_acknowledged(node, sim->acknowledged_count, "the end");
    }
    for (unsigned v = 0; v < sim->options.volumes && !sim->world.violated; v++)
        sim_check_replicas(sim, v);
    if (!sim->world.violated)
        sim_history_check(&sim->history);
}
