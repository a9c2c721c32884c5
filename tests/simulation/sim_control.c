/* The control thread of a node: replicated log, tree, planner, as agent/node/node_log.c, node_plan.c and node_members.c join
 * them. Effects of the log are performed strictly in order; a transaction to the disk holds the thread up. */
#include "tests/simulation/sim.h"

#include <errno.h>
#include <string.h>

#define PLAN_MS        100u
#define ALIVE_MS       1500u /* NODE_ALIVE_MS */
#define GRACE_MS       2500u /* NODE_GRACE_MS */
#define VOTER_LAG_MAX  64u
#define OWN_RETRY_MS   1000u
#define PROPOSAL_MS    10000u
#define STORE_NAME     "default"
#define WALL_US        1767225600000000 /* of the wall clock when the world begins: jumps go both ways */

static void perform(struct sim_node *node);

static int step(struct sim_node *node, const struct rsm_event *event)
{
    struct sim_control *c = &node->control;
    if (!c->rsm)
        return -ESHUTDOWN;
    int status = rsm_step(c->rsm, event, sim_clock_ms(node), &c->effects);
    perform(node);
    return status;
}

/* ---- proposals ------------------------------------------------------------------------------------------------ */

bool sim_control_propose(struct sim_node *node, Director__Command *command, enum rsm_change change, uint16_t change_nodeid,
                         enum sim_proposal_kind kind, uint32_t value)
{
    struct sim_control *c = &node->control;
    uint8_t bytes[2048];
    if (!c->rsm || c->failed || c->syncing || c->proposal_count == SIM_PROPOSALS_MAX)
        return false;
    command->origin = node->nodeid;
    command->origin_boot = node->boot;
    command->origin_sequence = ++c->next_ticket;
    command->time_ms = ((uint64_t)WALL_US + node->sim->world.now_us + (uint64_t)node->wall_us) / 1000;
    size_t size = director__command__get_packed_size(command);
    ASSERT(size <= sizeof(bytes));
    director__command__pack(command, bytes);
    c->proposals[c->proposal_count++] = (struct sim_proposal){
        .ticket = c->next_ticket, .deadline_ms = sim_clock_ms(node) + PROPOSAL_MS, .kind = kind, .value = value};
    struct rsm_event event = {.kind = RSM_EVENT_PROPOSE, .ticket = c->next_ticket, .data = {bytes, size}, .change = change,
                              .change_nodeid = change_nodeid};
    if (rsm_step(c->rsm, &event, sim_clock_ms(node), &c->effects) < 0) {
        c->proposal_count--;
        return false;
    }
    perform(node);
    return true;
}

static void acknowledge(struct sim *sim, uint32_t value)
{
    if (sim->acknowledged_count == sim->acknowledged_capacity) {
        sim->acknowledged_capacity = sim->acknowledged_capacity ? sim->acknowledged_capacity * 2 : 64;
        sim->acknowledged = realloc(sim->acknowledged, sim->acknowledged_capacity * sizeof(uint32_t));
        ASSERT(sim->acknowledged);
    }
    sim->acknowledged[sim->acknowledged_count++] = value;
    sim->counts.changes++;
}

static void proposal_done(struct sim_node *node, uint64_t ticket, int status)
{
    struct sim_control *c = &node->control;
    for (unsigned i = 0; i < c->proposal_count; i++) {
        struct sim_proposal done = c->proposals[i];
        if (done.ticket != ticket)
            continue;
        c->proposals[i] = c->proposals[--c->proposal_count];
        if (done.kind == SIM_PROPOSE_OWN) {
            c->own_busy = false;
            c->own_retry_ms = status < 0 ? sim_clock_ms(node) + OWN_RETRY_MS : 0;
        } else if (done.kind == SIM_PROPOSE_VOTER) {
            c->voter_busy = false;
        } else if (done.kind == SIM_PROPOSE_CLIENT && status == 0) {
            acknowledge(node->sim, done.value);
        }
        c->plan_wanted = true;
        return;
    }
}

static void proposals_tick(struct sim_node *node)
{
    struct sim_control *c = &node->control;
    for (unsigned i = 0; i < c->proposal_count; i++) {
        if (sim_clock_ms(node) < c->proposals[i].deadline_ms)
            continue;
        uint64_t ticket = c->proposals[i].ticket;
        struct rsm_event abandon = {.kind = RSM_EVENT_ABANDON, .ticket = ticket};
        IGNORE_RESULT(rsm_step(c->rsm, &abandon, sim_clock_ms(node), &c->effects));
        proposal_done(node, ticket, -ETIMEDOUT);
        return;
    }
}

void sim_control_question(struct sim_node *node)
{
    struct sim_control *c = &node->control;
    if (!c->rsm || c->failed || c->syncing)
        return;
    unsigned slot = (unsigned)(++c->next_ticket % SIM_BARRIERS_MAX);
    c->barriers[slot].ticket = c->next_ticket;
    c->barriers[slot].acknowledged = node->sim->acknowledged_count;
    struct rsm_event event = {.kind = RSM_EVENT_BARRIER, .ticket = c->next_ticket};
    (void)step(node, &event);
}

/* ---- who is alive, what follows ------------------------------------------------------------------------------- */

void sim_control_alive(struct sim_node *node, struct failover_nodes *ret_alive)
{
    struct sim_control *c = &node->control;
    uint64_t now = sim_clock_ms(node);
    ret_alive->count = 0;
    for (unsigned i = 0; i < c->member_count; i++) {
        const struct sim_member *member = &c->members[i];
        uint64_t heard = c->heard_ms[member->party.nodeid - 1];
        bool fresh = heard && now - heard < ALIVE_MS;
        if (member->party.nodeid == node->nodeid || fresh || now - member->since_ms < GRACE_MS)
            ret_alive->ids[ret_alive->count++] = member->party.nodeid;
    }
}

static void push(struct sim_node *node, const struct tree_volume *volume)
{
    int place = sim_volume_place(volume->name);
    bool current = node->control.current || node->sim->options.sim_bugs & SIM_BUG_PUSH_BEFORE_CURRENT;
    if (place >= 0 && current)
        sim_unit_put(node, (unsigned)place, volume);
}

static void push_all(struct sim_node *node)
{
    for (size_t i = 0; i < tree_volume_count(node->control.tree); i++) {
        failover_observe(node->control.failover, tree_volume_at(node->control.tree, i), sim_clock_ms(node));
        push(node, tree_volume_at(node->control.tree, i));
    }
}

void sim_control_ask_isr(struct sim_node *node, unsigned place, uint64_t epoch, uint64_t version, uint32_t isr)
{
    char name[16];
    struct failover_nodes alive;
    sim_volume_name(place, name);
    const struct tree_volume *volume = node->control.tree ? tree_volume_by_name(node->control.tree, name) : NULL;
    struct failover_step answer;
    if (!node->control.quorate || !volume)
        return; /* it asks again */
    sim_control_alive(node, &alive);
    if (!failover_answer(node->control.failover, volume, node->nodeid, &alive, epoch, version, isr, sim_clock_ms(node), &answer))
        return;
    if (answer.action == FAILOVER_PROMOTE)
        (void)sim_control_promote(node, place, answer.owner, answer.isr);
    else
        sim_control_propose_isr(node, volume->id, epoch, version, answer.isr);
}

void sim_control_reserve(struct sim_node *node, uint64_t volume_id, uint64_t epoch, uint64_t version, const uint8_t *bytes,
                         uint32_t size)
{
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeReserve reserve = DIRECTOR__VOLUME_RESERVE__INIT;
    if (!node->control.quorate)
        return; /* it asks again */
    reserve.volume = volume_id;
    reserve.expect_epoch = epoch;
    reserve.expect_version = version;
    reserve.table = (ProtobufCBinaryData){size, (uint8_t *)bytes};
    command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_RESERVE;
    command.volume_reserve = &reserve;
    (void)sim_control_propose(node, &command, RSM_CHANGE_NONE, 0, SIM_PROPOSE_PLAN, 0);
}

void sim_control_blank(struct sim_node *node, unsigned place, unsigned replica, uint64_t incarnation)
{
    char name[16];
    sim_volume_name(place, name);
    const struct tree_volume *volume = tree_volume_by_name(node->control.tree, name);
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeIncarnation change = DIRECTOR__VOLUME_INCARNATION__INIT;
    if (!volume)
        return;
    change.volume = volume->id;
    change.replica = replica;
    change.incarnation = incarnation;
    change.expect = volume->replicas[replica].incarnation;
    command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_INCARNATION;
    command.volume_incarnation = &change;
    (void)sim_control_propose(node, &command, RSM_CHANGE_NONE, 0, SIM_PROPOSE_PLAN, 0);
}

/* The planted bug: an operator's last resort, without an operator. */
static void plan_force(struct sim_node *node, const struct failover_nodes *alive)
{
    struct sim_control *c = &node->control;
    for (size_t i = 0; i < tree_volume_count(c->tree); i++) {
        const struct tree_volume *v = tree_volume_at(c->tree, i);
        uint16_t any = 0;
        bool in_sync = false;
        for (unsigned k = 0; k < v->replica_count; k++) {
            bool there = failover_nodes_have(alive, v->replicas[k].nodeid);
            in_sync |= there && v->isr >> k & 1;
            any = there ? v->replicas[k].nodeid : any;
        }
        if (in_sync || !any)
            continue;
        (void)sim_operator_force(node, (unsigned)sim_volume_place(v->name), any);
        return;
    }
}

static void plan_failover(struct sim_node *node)
{
    struct sim_control *c = &node->control;
    struct failover_nodes alive;
    struct failover_step steps[8];
    sim_control_alive(node, &alive);
    size_t count = failover_plan(c->failover, c->tree, &alive, sim_clock_ms(node), steps, ARRAY_SIZE(steps));
    uint64_t life = node->life;
    if (count == 0 && node->sim->options.sim_bugs & SIM_BUG_PROMOTE_ANY)
        plan_force(node, &alive);
    for (size_t i = 0; i < count && node->life == life && !c->syncing; i++) {
        const struct failover_step *s = &steps[i];
        const struct tree_volume *volume = tree_volume_by_id(c->tree, s->volume);
        SIM_LOG(node->sim, "node %u plans for %s: %s", node->nodeid, volume->name, s->reason);
        if (s->action == FAILOVER_PROMOTE)
            (void)sim_control_promote(node, (unsigned)sim_volume_place(volume->name), s->owner, s->isr);
        else
            sim_control_propose_isr(node, s->volume, s->expect_epoch, s->expect_version, s->isr);
    }
}

static void plan_voters(struct sim_node *node)
{
    struct sim_control *c = &node->control;
    struct rsm_status status;
    struct rsm_progress progress;
    rsm_get_status(c->rsm, &status);
    for (size_t i = 0; i < tree_node_count(c->tree) && status.config_committed && !c->voter_busy; i++) {
        const struct tree_node *candidate = tree_node_at(c->tree, i);
        Director__Command command = DIRECTOR__COMMAND__INIT;
        Director__NodeVoter voter = DIRECTOR__NODE_VOTER__INIT;
        if (candidate->voter || !rsm_get_progress(c->rsm, candidate->nodeid, &progress) ||
            progress.match_index + VOTER_LAG_MAX < status.commit)
            continue;
        bool in_force = false;
        for (size_t k = 0; k < status.voter_count; k++)
            in_force |= status.voters[k] == candidate->nodeid;
        voter.nodeid = candidate->nodeid;
        voter.voter = true;
        command.body_case = DIRECTOR__COMMAND__BODY_NODE_VOTER;
        command.node_voter = &voter;
        c->voter_busy = sim_control_propose(node, &command, in_force ? RSM_CHANGE_NONE : RSM_CHANGE_ADD_VOTER,
                                            in_force ? 0 : candidate->nodeid, SIM_PROPOSE_VOTER, 0);
        return;
    }
}

static void plan_own(struct sim_node *node)
{
    struct sim_control *c = &node->control;
    const struct tree_node *self = tree_node_by_id(c->tree, node->nodeid);
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__NodeUpdate update = DIRECTOR__NODE_UPDATE__INIT;
    Director__StorePut put = DIRECTOR__STORE_PUT__INIT;
    Director__NodeInfo info;
    char name[16];
    bool has_store = node->place < (node->sim->options.stores ? node->sim->options.stores : SIM_NODES_MAX);
    if (c->own_busy || !self || !c->current || sim_clock_ms(node) < c->own_retry_ms)
        return;
    if (self->boot != node->boot) {
        sim_node_info(node, &info, name);
        update.node = &info;
        command.body_case = DIRECTOR__COMMAND__BODY_NODE_UPDATE;
        command.node_update = &update;
    } else if (has_store && !tree_store_find(c->tree, node->nodeid, STORE_NAME)) {
        put.nodeid = node->nodeid;
        put.name = (char *)STORE_NAME;
        put.plugin = (char *)"file";
        put.path = (char *)"/store";
        put.capacity = 1ull << 40;
        command.body_case = DIRECTOR__COMMAND__BODY_STORE_PUT;
        command.store_put = &put;
    } else {
        return;
    }
    c->own_busy = sim_control_propose(node, &command, RSM_CHANGE_NONE, 0, SIM_PROPOSE_OWN, 0);
}

static void plan(struct sim_node *node)
{
    struct sim_control *c = &node->control;
    uint64_t now = sim_clock_ms(node), life = node->life;
    if (!c->plan_wanted && now - c->planned_ms < PLAN_MS)
        return;
    c->plan_wanted = false;
    c->planned_ms = now;
    if (!c->quorate)
        return;
    plan_own(node);
    if (node->life != life || c->syncing || !c->sequencing || !c->current)
        return;
    plan_failover(node);
    if (node->life == life && !c->syncing)
        plan_voters(node);
}

/* ---- effects -------------------------------------------------------------------------------------------------- */

static void apply(struct sim_node *node, const struct rsm_effect *effect)
{
    struct sim_control *c = &node->control;
    struct tree_result result = {0};
    struct error error = {0};
    Director__Command *command = director__command__unpack(NULL, effect->size, effect->data);
    int status = command ? tree_apply(c->tree, command, &result, &error) : -EBADMSG;
    uint64_t id = 0;
    if (!command)
        sim_violate(&node->sim->world, "node %u: entry %llu is no command", node->nodeid, (unsigned long long)effect->index);
    c->applied = effect->index;
    sim_check_applied(node, effect->index, effect->data, effect->size);
    if (status == 0 && !result.duplicate) {
        id = result.volume;
        if (command->body_case == DIRECTOR__COMMAND__BODY_VOLUME_PROMOTE)
            id = command->volume_promote->volume;
        else if (command->body_case == DIRECTOR__COMMAND__BODY_VOLUME_ISR)
            id = command->volume_isr->volume;
        else if (command->body_case == DIRECTOR__COMMAND__BODY_VOLUME_INCARNATION)
            id = command->volume_incarnation->volume;
        if (id && tree_volume_by_id(c->tree, id)) {
            failover_observe(c->failover, tree_volume_by_id(c->tree, id), sim_clock_ms(node));
            push(node, tree_volume_by_id(c->tree, id));
        }
        c->plan_wanted = true;
    }
    if (effect->ticket)
        proposal_done(node, effect->ticket, status);
    if (command)
        director__command__free_unpacked(command, NULL);
}

static void restore(struct sim_node *node, const struct rsm_effect *effect)
{
    struct sim_control *c = &node->control;
    struct error error = {0};
    if (tree_restore(c->tree, effect->data, effect->size, &error) < 0) {
        sim_violate(&node->sim->world, "node %u cannot restore its tree: %s", node->nodeid, error.message);
        return;
    }
    c->applied = effect->index;
    SIM_LOG(node->sim, "node %u restores a snapshot at %llu", node->nodeid, (unsigned long long)effect->index);
    sim_check_restored(node, effect->index);
    push_all(node);
    c->plan_wanted = true;
}

static void barrier_done(struct sim_node *node, const struct rsm_effect *effect)
{
    struct sim_control *c = &node->control;
    if (effect->ticket == c->current_barrier) {
        c->current_barrier = 0;
        if (effect->status < 0 || !c->in_view)
            return;
        SIM_LOG(node->sim, "node %u: its tree is current", node->nodeid);
        c->current = true;
        push_all(node);
        c->plan_wanted = true;
        sim_unit_authority(node, true);
        return;
    }
    for (unsigned i = 0; i < SIM_BARRIERS_MAX && effect->status == 0; i++)
        if (c->barriers[i].ticket == effect->ticket) {
            node->sim->counts.questions++;
            sim_check_acknowledged(node, c->barriers[i].acknowledged, "a read barrier");
        }
}

static void role(struct sim_node *node, const struct rsm_effect *effect)
{
    struct sim_control *c = &node->control;
    SIM_LOG(node->sim, "node %u: role %d, %squorate, sequencer %u, term %llu", node->nodeid, effect->role,
            effect->quorate ? "" : "not ", effect->sequencer, (unsigned long long)effect->term);
    c->sequencing = effect->role == RSM_SEQUENCER;
    c->quorate = effect->quorate;
    c->plan_wanted = true;
}

static void snapshot(struct sim_node *node, uint64_t index)
{
    struct sim_control *c = &node->control;
    uint8_t *data;
    size_t size;
    tree_snapshot(c->tree, &data, &size);
    struct rsm_event event = {.kind = RSM_EVENT_SNAPSHOT_TAKEN, .index = index, .data = {data, size}};
    IGNORE_RESULT(rsm_step(c->rsm, &event, sim_clock_ms(node), &c->effects));
    free(data);
}

static void perform_one(struct sim_node *node, const struct rsm_effect *effect)
{
    switch (effect->kind) {
    case RSM_EFFECT_MULTICAST:
        if (effect->size > RSM_MESSAGE_MAX_BYTES)
            sim_violate(&node->sim->world, "a multicast of %zu bytes", effect->size);
        sim_bus_multicast(node, SIM_LETTER_LOG, 0, effect->data, effect->size);
        break;
    case RSM_EFFECT_RESTORE:
        restore(node, effect);
        break;
    case RSM_EFFECT_APPLY:
        apply(node, effect);
        break;
    case RSM_EFFECT_PROPOSAL_DONE:
        proposal_done(node, effect->ticket, effect->status);
        break;
    case RSM_EFFECT_BARRIER_DONE:
        barrier_done(node, effect);
        break;
    case RSM_EFFECT_ROLE:
        role(node, effect);
        break;
    case RSM_EFFECT_NEED_SNAPSHOT:
        snapshot(node, effect->index);
        break;
    default:
        break;
    }
}

static bool durable(const struct rsm_effect *effect)
{
    return effect->kind == RSM_EFFECT_HARD_STATE || effect->kind == RSM_EFFECT_LOG_APPEND ||
           effect->kind == RSM_EFFECT_LOG_TRUNCATE || effect->kind == RSM_EFFECT_SNAPSHOT;
}

static void store(struct sim_node *node)
{
    struct sim_control *c = &node->control;
    while (c->effect_next < c->sync_to)
        sim_log_disk_apply(node->sim, &node->log, &c->effects.items[c->effect_next++]);
}

static void log_fail(struct sim_node *node)
{
    struct sim_control *c = &node->control;
    SIM_LOG(node->sim, "node %u: its log disk failed, it steps out", node->nodeid);
    c->failed = true; /* the next tick leaves the group */
    c->current = false;
    sim_unit_authority(node, false);
    rsm_effects_clear(&c->effects);
    c->effect_next = 0;
    struct rsm_event event = {.kind = RSM_EVENT_STORAGE_FAILED};
    IGNORE_RESULT(rsm_step(c->rsm, &event, sim_clock_ms(node), &c->effects));
}

static void stored(struct sim_node *node, uint64_t argument)
{
    struct sim_control *c = &node->control;
    (void)argument;
    c->syncing = false;
    if (node->log_broken)
        log_fail(node);
    else
        store(node);
    uint64_t life = node->life;
    perform(node);
    if (node->life == life)
        sim_node_ready(node);
}

static void perform(struct sim_node *node)
{
    struct sim_control *c = &node->control;
    struct sim *sim = node->sim;
    struct sim_world *world = &sim->world;
    uint64_t life = node->life;
    if (c->performing || c->syncing)
        return;
    c->performing = true;
    while (c->effect_next < c->effects.count) {
        if (sim->mishaps && sim_chance(world, 2 * sim->mix.crash_between)) { /* between any two effects */
            sim_node_crash(node, sim_chance(world, 5000) ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
            return;
        }
        c->sync_to = c->effect_next;
        while (c->sync_to < c->effects.count && durable(&c->effects.items[c->sync_to]))
            c->sync_to++;
        if (c->sync_to > c->effect_next) {
            uint64_t time = 100 + sim_random(world, sim->mishaps && sim_chance(world, 200) ? 50000 : 700);
            c->syncing = true;
            c->performing = false;
            sim_node_call(node, SIM_OUTSIDE, world->now_us + time * MAX(node->slow, 1u), stored, 0);
            return;
        }
        struct rsm_effect effect = c->effects.items[c->effect_next]; /* the array may move meanwhile */
        c->effects.items[c->effect_next++].data = NULL;
        perform_one(node, &effect);
        free(effect.data);
        if (node->life != life)
            return;
    }
    rsm_effects_clear(&c->effects);
    c->effect_next = 0;
    c->performing = false;
}

/* ---- events --------------------------------------------------------------------------------------------------- */

static struct sim_member *member_find(struct sim_control *c, uint16_t nodeid)
{
    for (unsigned i = 0; i < c->member_count; i++)
        if (c->members[i].party.nodeid == nodeid)
            return &c->members[i];
    return NULL;
}

static void view(struct sim_node *node, const struct sim_letter *letter)
{
    struct sim_control *c = &node->control;
    struct sim_member members[SIM_NODES_MAX];
    uint16_t ids[SIM_NODES_MAX];
    struct rsm_event event = {.kind = RSM_EVENT_VIEW, .view = letter->view, .members = ids};
    for (unsigned i = 0; i < letter->departed_count; i++) {
        const struct sim_party *gone = &letter->departed[i];
        const struct sim_member *m = member_find(c, gone->nodeid);
        bool certain = gone->process_down || node->sim->options.sim_bugs & SIM_BUG_VIEW_LOSS_IS_DEATH;
        if (m && m->party.pid == gone->pid && m->boot && certain)
            sim_unit_node_dead(node, gone->nodeid, m->boot);
    }
    for (unsigned i = 0; i < letter->member_count; i++) {
        const struct sim_member *old = member_find(c, letter->members[i].nodeid);
        members[i] = (struct sim_member){.party = letter->members[i], .since_ms = sim_clock_ms(node)};
        if (old && old->party.pid == letter->members[i].pid)
            members[i] = *old;
        ids[event.member_count++] = letter->members[i].nodeid;
    }
    memcpy(c->members, members, sizeof(members));
    c->member_count = letter->member_count;
    c->in_view = true;
    if (node->sim->world.trace) {
        char text[64] = "";
        for (unsigned i = 0; i < letter->member_count; i++)
            (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), " %u", letter->members[i].nodeid);
        SIM_LOG(node->sim, "node %u: view %llu of%s", node->nodeid, (unsigned long long)letter->view, text);
    }
    sim_bus_multicast(node, SIM_LETTER_IDENT, node->boot, NULL, 0);
    (void)step(node, &event);
}

void sim_control_letter(struct sim_node *node, const struct sim_letter *letter)
{
    struct sim_control *c = &node->control;
    struct sim_member *member;
    if (letter->kind == SIM_LETTER_VIEW) {
        view(node, letter);
        return;
    }
    member = member_find(c, letter->from.nodeid);
    if (!member || member->party.pid != letter->from.pid)
        return;
    if (letter->kind == SIM_LETTER_IDENT) {
        member->boot = letter->boot;
        return;
    }
    struct rsm_event event = {.kind = RSM_EVENT_MESSAGE, .from = letter->from.nodeid, .data = {letter->data, letter->size}};
    if (step(node, &event) == -EPROTO)
        sim_violate(&node->sim->world, "node %u: a message of node %u makes no sense", node->nodeid, letter->from.nodeid);
}

void sim_control_bus_lost(struct sim_node *node)
{
    struct sim_control *c = &node->control;
    struct rsm_event event = {.kind = RSM_EVENT_VIEW};
    SIM_LOG(node->sim, "node %u: corosync is gone", node->nodeid);
    c->in_view = c->current = false;
    c->member_count = 0;
    sim_unit_authority(node, false);
    (void)step(node, &event);
}

static void tick(struct sim_node *node, uint64_t argument)
{
    struct sim_control *c = &node->control;
    struct rsm_event event = {.kind = RSM_EVENT_TICK};
    uint64_t life = node->life;
    (void)argument;
    sim_node_call(node, SIM_CONTROL, node->sim->world.now_us + RSM_TICK_MS * 1000, tick, 0);
    (void)step(node, &event);
    if (node->life == life && c->failed && node->bus.joined) {
        c->member_count = 0;
        c->in_view = false;
        sim_bus_agent_gone(node);
    }
    if (node->life != life || c->failed || c->syncing)
        return;
    proposals_tick(node);
    if (!c->current && c->in_view && c->quorate && !c->current_barrier) {
        c->current_barrier = ++c->next_ticket;
        struct rsm_event barrier = {.kind = RSM_EVENT_BARRIER, .ticket = c->next_ticket};
        (void)step(node, &barrier);
    }
    if (node->life == life && !c->syncing)
        plan(node);
}

void sim_control_start(struct sim_node *node)
{
    struct sim_control *c = &node->control;
    const struct sim_options *options = &node->sim->options;
    struct rsm_options rsm = {.self = node->nodeid, .boot = node->boot, .cluster = 42, .snapshot_entries = 30,
                              .keep_entries = 5, .planted_bugs = options->rsm_bugs};
    struct rsm_persistent persistent = {node->log.term, node->log.voted_for, node->log.snapshot, node->log.entries,
                                        node->log.entry_count};
    struct rsm_event event = {.kind = RSM_EVENT_START, .persistent = &persistent};
    memset(c, 0, sizeof(*c));
    c->tree = tree_new();
    c->failover = failover_new();
    c->rsm = rsm_new(&rsm);
    uint64_t life = node->life;
    int status = step(node, &event);
    if (status < 0)
        sim_violate(&node->sim->world, "node %u cannot start from its log: %d", node->nodeid, status);
    if (node->life != life)
        return;
    sim_bus_start(node);
    sim_node_call(node, SIM_CONTROL, node->sim->world.now_us + sim_random(&node->sim->world, 20000), tick, 0);
}

void sim_control_crash(struct sim_node *node)
{
    struct sim_control *c = &node->control;
    if (c->syncing && sim_chance(&node->sim->world, 5000))
        store(node); /* the transaction was complete just in time */
    rsm_effects_clear(&c->effects);
    rsm_effects_done(&c->effects);
    rsm_free(c->rsm);
    tree_free(c->tree);
    failover_free(c->failover);
    memset(c, 0, sizeof(*c));
}
