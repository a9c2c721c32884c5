/* What clients and operators ask a node's agent for. A proposal that is refused or lost says nothing. */
#include "tests/simulation/sim.h"

#include <errno.h>
#include <string.h>

bool sim_control_change(struct sim_node *node)
{
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__TargetCreate create = DIRECTOR__TARGET_CREATE__INIT;
    char iqn[64];
    uint32_t value = ++node->sim->next_change;
    (void)snprintf(iqn, sizeof(iqn), "iqn.2026-01.org.director:%u", value);
    create.iqn = iqn;
    command.body_case = DIRECTOR__COMMAND__BODY_TARGET_CREATE;
    command.target_create = &create;
    return sim_control_propose(node, &command, RSM_CHANGE_NONE, 0, SIM_PROPOSE_CLIENT, value);
}

bool sim_control_promote(struct sim_node *node, unsigned volume, uint16_t owner, uint32_t isr)
{
    char name[16];
    sim_volume_name(volume, name);
    const struct tree_volume *v = tree_volume_by_name(node->control.tree, name);
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumePromote promote = DIRECTOR__VOLUME_PROMOTE__INIT;
    if (!v)
        return false;
    if (node->sim->options.sim_bugs & SIM_BUG_OWN_EPOCH) {
        struct tree_volume early = *v;
        early.epoch++;
        early.isr_version++;
        early.owner = owner;
        early.isr = isr;
        sim_unit_put(node, volume, &early);
    }
    promote.volume = v->id;
    promote.expect_epoch = v->epoch;
    promote.owner = owner;
    promote.isr = isr;
    command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_PROMOTE;
    command.volume_promote = &promote;
    return sim_control_propose(node, &command, RSM_CHANGE_NONE, 0, SIM_PROPOSE_PLAN, 0);
}

void sim_control_propose_isr(struct sim_node *node, uint64_t volume, uint64_t epoch, uint64_t version, uint32_t isr)
{
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeIsr change = DIRECTOR__VOLUME_ISR__INIT;
    change.volume = volume;
    change.expect_epoch = epoch;
    change.expect_version = version;
    change.isr = isr;
    command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_ISR;
    command.volume_isr = &change;
    (void)sim_control_propose(node, &command, RSM_CHANGE_NONE, 0, SIM_PROPOSE_PLAN, 0);
}

bool sim_control_isr(struct sim_node *node, unsigned volume, uint32_t isr)
{
    char name[16];
    sim_volume_name(volume, name);
    const struct tree_volume *v = tree_volume_by_name(node->control.tree, name);
    if (v)
        sim_control_propose_isr(node, v->id, v->epoch, v->isr_version, isr);
    return v != NULL;
}

void sim_node_info(const struct sim_node *node, Director__NodeInfo *info, char name[16])
{
    director__node_info__init(info);
    (void)snprintf(name, 16, "node%u", node->nodeid);
    info->uuid.data = (uint8_t *)node->uuid.bytes;
    info->uuid.len = sizeof(node->uuid);
    info->nodeid = node->nodeid;
    info->name = info->address = name;
    info->boot = node->boot;
    info->version_max = 1;
}

void sim_control_add_node(struct sim_node *node, const struct sim_node *added)
{
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__NodeAdd add = DIRECTOR__NODE_ADD__INIT;
    Director__NodeInfo info;
    char name[16];
    sim_node_info(added, &info, name);
    add.node = &info;
    command.body_case = DIRECTOR__COMMAND__BODY_NODE_ADD;
    command.node_add = &add;
    (void)sim_control_propose(node, &command, RSM_CHANGE_NONE, 0, SIM_PROPOSE_PLAN, 0);
}

void sim_control_create_volume(struct sim_node *node, unsigned volume)
{
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeCreate create = DIRECTOR__VOLUME_CREATE__INIT;
    uint64_t incarnations[TREE_REPLICAS_MAX];
    struct uuid uuid = {.bytes = {[15] = (uint8_t)(volume + 1)}};
    char name[16];
    sim_volume_name(volume, name);
    for (unsigned i = 0; i < TREE_REPLICAS_MAX; i++)
        incarnations[i] = ++node->sim->next_incarnation;
    create.name = name;
    create.uuid.data = uuid.bytes;
    create.uuid.len = sizeof(uuid);
    create.size = SIM_VOLUME_BYTES;
    create.replicas = node->sim->options.replicas;
    create.block_size = SIM_BLOCK_BYTES;
    create.n_incarnations = TREE_REPLICAS_MAX;
    create.incarnations = incarnations;
    command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_CREATE;
    command.volume_create = &create;
    (void)sim_control_propose(node, &command, RSM_CHANGE_NONE, 0, SIM_PROPOSE_PLAN, 0);
}

/* ---- replicas and policies of a volume ------------------------------------------------------------------------------ */

static const struct tree_volume *volume_of(const struct sim_node *node, unsigned volume)
{
    char name[16];
    sim_volume_name(volume, name);
    return node->control.tree ? tree_volume_by_name(node->control.tree, name) : NULL;
}

static bool propose(struct sim_node *node, Director__Command *command, Director__Command__BodyCase body)
{
    command->body_case = body;
    return sim_control_propose(node, command, RSM_CHANGE_NONE, 0, SIM_PROPOSE_PLAN, 0);
}

bool sim_operator_policy(struct sim_node *node, unsigned volume, uint32_t fields, const struct tree_policy *wanted)
{
    const struct tree_volume *v = volume_of(node, volume);
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeSet set = DIRECTOR__VOLUME_SET__INIT;
    Director__VolumePolicy policy = DIRECTOR__VOLUME_POLICY__INIT;
    if (!v)
        return false;
    policy.write_back = wanted->write_back;
    policy.verified_reads = wanted->verified_reads;
    policy.slow_ms = wanted->slow_ms;
    policy.in_sync_min = wanted->in_sync_min;
    policy.resync_floor = wanted->resync_floor;
    policy.resync_cap = wanted->resync_cap;
    set.volume = v->id;
    set.fields = fields;
    set.policy = &policy;
    command.volume_set = &set;
    return propose(node, &command, DIRECTOR__COMMAND__BODY_VOLUME_SET);
}

bool sim_operator_add(struct sim_node *node, unsigned volume, uint16_t nodeid)
{
    const struct tree_volume *v = volume_of(node, volume);
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeReplicaAdd add = DIRECTOR__VOLUME_REPLICA_ADD__INIT;
    if (!v)
        return false;
    add.volume = v->id;
    add.nodeid = nodeid;
    add.incarnation = ++node->sim->next_incarnation;
    command.volume_replica_add = &add;
    return propose(node, &command, DIRECTOR__COMMAND__BODY_VOLUME_REPLICA_ADD);
}

bool sim_operator_remove(struct sim_node *node, unsigned volume, uint16_t nodeid)
{
    const struct tree_volume *v = volume_of(node, volume);
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeReplicaRemove remove = DIRECTOR__VOLUME_REPLICA_REMOVE__INIT;
    if (!v)
        return false;
    remove.volume = v->id;
    remove.nodeid = nodeid;
    command.volume_replica_remove = &remove;
    return propose(node, &command, DIRECTOR__COMMAND__BODY_VOLUME_REPLICA_REMOVE);
}

bool sim_operator_force(struct sim_node *node, unsigned volume, uint16_t nodeid)
{
    const struct tree_volume *v = volume_of(node, volume);
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeForce force = DIRECTOR__VOLUME_FORCE__INIT;
    uint64_t incarnations[TREE_REPLICAS_MAX];
    if (!v)
        return false;
    for (unsigned k = 0; k < TREE_REPLICAS_MAX; k++)
        incarnations[k] = ++node->sim->next_incarnation;
    force.volume = v->id;
    force.expect_epoch = v->epoch;
    force.nodeid = nodeid;
    force.n_incarnations = TREE_REPLICAS_MAX;
    force.incarnations = incarnations;
    force.reason = (char *)"it is all there is";
    command.volume_force = &force;
    return propose(node, &command, DIRECTOR__COMMAND__BODY_VOLUME_FORCE);
}

bool sim_operator_discard(struct sim_node *node, unsigned volume, uint16_t nodeid)
{
    const struct tree_volume *v = volume_of(node, volume);
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeDiscard discard = DIRECTOR__VOLUME_DISCARD__INIT;
    if (!v)
        return false;
    discard.volume = v->id;
    discard.expect_epoch = v->epoch;
    discard.nodeid = nodeid;
    discard.incarnation = ++node->sim->next_incarnation;
    discard.reason = (char *)"not needed any more";
    command.volume_discard = &discard;
    return propose(node, &command, DIRECTOR__COMMAND__BODY_VOLUME_DISCARD);
}

bool sim_operator_check(struct sim_node *node, unsigned volume, enum mirror_check_kind kind, bool repair)
{
    struct mirror *mirror = node->up ? node->units[volume].mirror : NULL;
    struct mirror_check_options options = {.kind = kind, .repair = repair};
    struct mirror_event event = {.type = MIRROR_EVENT_TICK};
    if (!mirror || node->units[volume].closing || mirror_check_start(mirror, &options, sim_clock_us(node)) < 0)
        return false;
    sim_unit_step_mirror(node, volume, &event);
    return true;
}

void sim_operator_stop(struct sim_node *node, unsigned volume)
{
    struct mirror *mirror = node->up ? node->units[volume].mirror : NULL;
    struct mirror_event event = {.type = MIRROR_EVENT_TICK};
    if (mirror && !node->units[volume].closing && mirror_check_stop(mirror, sim_clock_us(node)) == 0)
        sim_unit_step_mirror(node, volume, &event);
}
