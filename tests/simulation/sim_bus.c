/* A bus like corosync's CPG, made a little worse than it is (replicated state is not to depend on extended virtual synchrony):
 *
 * - Within a view all members read the same letters in the same order, each at its own pace.
 * - When a ring breaks nothing is delivered until it has formed anew (token and consensus time-out); what is sent meanwhile
 *   comes out in the new view (a ghost).
 * - At a view change each member on its own keeps some of what it has not read yet, and loses the rest or reads it later.
 * - The end of a process is announced at once and by name; the loss of a node, or of its corosync, only after the time-out,
 *   and says nothing about the process.
 * - Rings are cliques. When not all can hear each other both ways, rings break and form anew every few seconds for ever. */
#include "tests/simulation/sim.h"

#include <string.h>

#define TOKEN_US    660000u  /* silence until a ring forms without the silent */
#define JOIN_US     150000u  /* until rings that can hear each other are one */
#define PROCESS_US  2500u    /* until a process's end or start is known */
#define REFORM_US   3200000u /* an asymmetric cut: rings break so often */

/* ---- letters -------------------------------------------------------------------------------------------------- */

static void list_free(struct sim_letter **list)
{
    while (*list) {
        struct sim_letter *letter = *list;
        *list = letter->next;
        free(letter);
    }
}

void sim_bus_clear(struct sim_bus_node *bus)
{
    list_free(&bus->inbox);
    list_free(&bus->outbox);
    bus->inbox_last = &bus->inbox;
    bus->outbox_last = &bus->outbox;
}

static struct sim_letter *letter_new(enum sim_letter_kind kind, size_t size)
{
    struct sim_letter *letter = calloc(1, sizeof(*letter) + size);
    ASSERT(letter);
    letter->kind = kind;
    letter->size = size;
    return letter;
}

static void read_one(struct sim_node *node, uint64_t argument)
{
    struct sim_letter *letter = node->bus.inbox;
    (void)argument;
    if (!letter)
        return;
    node->bus.inbox = letter->next;
    if (!node->bus.inbox)
        node->bus.inbox_last = &node->bus.inbox;
    sim_control_letter(node, letter);
    free(letter);
}

static void append(struct sim_letter ***last, struct sim_letter *letter)
{
    letter->next = NULL;
    **last = letter;
    *last = &letter->next;
}

static void deliver(struct sim_node *node, struct sim_letter *letter)
{
    struct sim_world *world = &node->sim->world;
    uint64_t at = world->now_us + 100 + sim_random(world, node->sim->mishaps && sim_chance(world, 200) ? 30000 : 500);
    append(&node->bus.inbox_last, letter);
    node->bus.inbox_at_us = MAX(at, node->bus.inbox_at_us + 1);
    sim_node_call(node, SIM_CONTROL, node->bus.inbox_at_us, read_one, 0);
}

static bool in_group(const struct sim_node *node)
{
    return node->bus.up && node->bus.joined && node->up;
}

static void send_to_ring(struct sim *sim, const struct sim_letter *letter, uint64_t ring)
{
    for (unsigned i = 0; i < sim->node_count; i++) {
        struct sim_node *to = &sim->nodes[i];
        if (!in_group(to) || to->bus.ring != ring || to->bus.frozen)
            continue;
        struct sim_letter *copy = letter_new(letter->kind, letter->size);
        memcpy(copy, letter, sizeof(*letter) + letter->size);
        deliver(to, copy);
    }
}

void sim_bus_multicast(struct sim_node *node, enum sim_letter_kind kind, uint64_t boot, const void *data, size_t size)
{
    if (!in_group(node) || !node->bus.ring)
        return;
    struct sim_letter *letter = letter_new(kind, size);
    letter->from = (struct sim_party){.nodeid = node->nodeid, .pid = node->bus.pid};
    letter->boot = boot;
    if (size)
        memcpy(letter->data, data, size);
    if (node->bus.stalled) {
        append(&node->bus.outbox_last, letter);
        return;
    }
    send_to_ring(node->sim, letter, node->bus.ring);
    free(letter);
}

/* ---- views ---------------------------------------------------------------------------------------------------- */

/* What has not been read: some is read before the view, the rest after it or never. */
static void tricks(struct sim_node *node, struct sim_letter *view)
{
    struct sim_world *world = &node->sim->world;
    struct sim_letter *old = node->bus.inbox;
    unsigned count = 0, keep;
    node->bus.inbox = NULL;
    node->bus.inbox_last = &node->bus.inbox;
    for (struct sim_letter *l = old; l; l = l->next)
        count++;
    keep = node->sim->mishaps ? (unsigned)sim_random(world, count + 1) : count;
    bool ghosts = sim_chance(world, 5000);
    for (; keep; keep--) {
        struct sim_letter *l = old;
        old = old->next;
        append(&node->bus.inbox_last, l);
    }
    deliver(node, view);
    while (old) {
        struct sim_letter *l = old;
        old = old->next;
        if (ghosts && l->kind != SIM_LETTER_VIEW)
            append(&node->bus.inbox_last, l); /* the call that was to read it comes anyway */
        else
            free(l);
    }
}

static bool told(const struct sim_party *parties, unsigned count, const struct sim_party *party)
{
    for (unsigned i = 0; i < count; i++)
        if (parties[i].nodeid == party->nodeid && parties[i].pid == party->pid)
            return true;
    return false;
}

/* One view for all of a ring whose membership is not what they were told. */
static void view_ring(struct sim *sim, uint64_t ring)
{
    struct sim_letter *letter = letter_new(SIM_LETTER_VIEW, 0);
    bool changed = false;
    for (unsigned i = 0; i < sim->node_count; i++)
        if (in_group(&sim->nodes[i]) && sim->nodes[i].bus.ring == ring)
            letter->members[letter->member_count++] =
                (struct sim_party){.nodeid = sim->nodes[i].nodeid, .pid = sim->nodes[i].bus.pid};
    for (unsigned i = 0; i < letter->member_count; i++) {
        const struct sim_bus_node *bus = &sim->nodes[letter->members[i].nodeid - 1].bus;
        changed |= bus->told_count != letter->member_count;
        for (unsigned k = 0; k < letter->member_count; k++)
            changed |= !told(bus->told, bus->told_count, &letter->members[k]);
    }
    if (changed) {
        letter->view = ++sim->bus_view;
        sim->counts.views++;
    }
    for (unsigned i = 0; changed && i < letter->member_count; i++) {
        struct sim_node *to = &sim->nodes[letter->members[i].nodeid - 1];
        struct sim_letter *copy = letter_new(SIM_LETTER_VIEW, 0);
        memcpy(copy, letter, sizeof(*letter));
        for (unsigned k = 0; k < to->bus.told_count; k++) {
            struct sim_party gone = to->bus.told[k];
            const struct sim_node *from = &sim->nodes[gone.nodeid - 1];
            if (told(letter->members, letter->member_count, &gone))
                continue;
            gone.process_down = from->bus.up && !from->bus.frozen && from->bus.ring == ring && (!from->up || from->bus.pid != gone.pid);
            copy->departed[copy->departed_count++] = gone;
        }
        memcpy(to->bus.told, letter->members, sizeof(to->bus.told));
        to->bus.told_count = letter->member_count;
        tricks(to, copy);
    }
    free(letter);
}

/* ---- rings ---------------------------------------------------------------------------------------------------- */

static bool alive(const struct sim_node *node)
{
    return node->bus.up && !node->bus.frozen;
}

static bool hear_each_other(const struct sim *sim, unsigned a, unsigned b)
{
    return alive(&sim->nodes[a]) && alive(&sim->nodes[b]) && !sim->bus_cut[a][b] && !sim->bus_cut[b][a];
}

static bool rings_whole(struct sim *sim);

struct bus_call {
    struct sim_event event;
    struct sim *sim;
};

static void bus_call_drop(struct sim_event *event)
{
    free(container_of(event, struct bus_call, event));
}

static void bus_call(struct sim *sim, uint64_t after_us, void (*run)(struct sim_world *, struct sim_event *))
{
    struct bus_call *call = calloc(1, sizeof(*call));
    ASSERT(call);
    call->event.run = run;
    call->event.drop = bus_call_drop;
    call->sim = sim;
    sim_plan(&sim->world, &call->event, sim->world.now_us + after_us);
}

static void flush(struct sim_node *node)
{
    struct sim_letter *outbox = node->bus.outbox;
    node->bus.outbox = NULL;
    node->bus.outbox_last = &node->bus.outbox;
    while (outbox) {
        struct sim_letter *letter = outbox;
        outbox = outbox->next;
        if (in_group(node))
            send_to_ring(node->sim, letter, node->bus.ring);
        free(letter);
    }
}

/* Rings form anew among those that can hear each other. */
static void reform(struct sim_world *world, struct sim_event *event)
{
    struct bus_call *call = container_of(event, struct bus_call, event);
    struct sim *sim = call->sim;
    free(call);
    if (sim->bus_reform_at > world->now_us)
        return; /* put off */
    sim->bus_reform_at = 0;
    unsigned first = (unsigned)sim_random(world, sim->node_count);
    bool placed[SIM_NODES_MAX] = {false};
    for (unsigned i = 0; i < sim->node_count; i++) {
        unsigned a = (first + i) % sim->node_count, members[SIM_NODES_MAX], count = 0;
        if (placed[a] || !alive(&sim->nodes[a]))
            continue;
        for (unsigned k = 0; k < sim->node_count; k++) {
            unsigned b = (a + k) % sim->node_count;
            bool fits = !placed[b] && alive(&sim->nodes[b]);
            for (unsigned m = 0; m < count && fits; m++)
                fits = hear_each_other(sim, members[m], b);
            if (fits) {
                members[count++] = b;
                placed[b] = true;
            }
        }
        sim->bus_ring++;
        for (unsigned m = 0; m < count; m++) {
            sim->nodes[members[m]].bus.ring = sim->bus_ring;
            sim->nodes[members[m]].bus.stalled = false;
        }
        view_ring(sim, sim->bus_ring);
        for (unsigned m = 0; m < count; m++)
            flush(&sim->nodes[members[m]]);
    }
    if (!rings_whole(sim))
        bus_call(sim, REFORM_US, reform); /* goes on for ever */
}

/* Does each pair of living nodes agree on whether they are together? */
static bool rings_whole(struct sim *sim)
{
    for (unsigned a = 0; a < sim->node_count; a++)
        for (unsigned b = 0; b < sim->node_count; b++)
            for (unsigned c = 0; c < sim->node_count; c++)
                if (a != b && b != c && a != c && hear_each_other(sim, a, b) && hear_each_other(sim, b, c) &&
                    alive(&sim->nodes[a]) && alive(&sim->nodes[c]) && !hear_each_other(sim, a, c))
                    return false;
    return true;
}

void sim_bus_changed(struct sim *sim)
{
    bool broken = false;
    for (unsigned a = 0; a < sim->node_count; a++)
        for (unsigned b = 0; b < sim->node_count; b++)
            if (a != b && sim->nodes[a].bus.ring && sim->nodes[a].bus.ring == sim->nodes[b].bus.ring && !hear_each_other(sim, a, b))
                sim->nodes[a].bus.stalled = sim->nodes[b].bus.stalled = broken = true;
    for (unsigned a = 0; a < sim->node_count; a++) /* the whole ring stands still */
        for (unsigned b = 0; b < sim->node_count; b++)
            if (sim->nodes[a].bus.stalled && sim->nodes[a].bus.ring == sim->nodes[b].bus.ring)
                sim->nodes[b].bus.stalled = true;
    uint64_t after = broken ? TOKEN_US + sim_random(&sim->world, 30000) : JOIN_US + sim_random(&sim->world, 100000);
    sim->bus_reform_at = MAX(sim->bus_reform_at, sim->world.now_us + after);
    bus_call(sim, sim->bus_reform_at - sim->world.now_us, reform);
}

/* A process came or went: within its ring, unless that stands still. */
static void process_changed(struct sim_world *world, struct sim_event *event)
{
    struct bus_call *call = container_of(event, struct bus_call, event);
    struct sim *sim = call->sim;
    (void)world;
    free(call);
    for (unsigned i = 0; i < sim->node_count; i++) {
        bool first = sim->nodes[i].bus.up && sim->nodes[i].bus.ring && !sim->nodes[i].bus.stalled && !sim->nodes[i].bus.frozen;
        for (unsigned k = 0; k < i && first; k++)
            first = sim->nodes[k].bus.ring != sim->nodes[i].bus.ring;
        if (first)
            view_ring(sim, sim->nodes[i].bus.ring);
    }
}

/* ---- processes ------------------------------------------------------------------------------------------------ */

static void join(struct sim_node *node, uint64_t argument)
{
    (void)argument;
    if (node->bus.joined || node->control.failed)
        return;
    if (!node->bus.up) {
        node->bus.up = true;
        node->bus.ring = 0;
        node->bus.stalled = false;
        sim_bus_changed(node->sim);
    }
    node->bus.joined = true;
    node->bus.told_count = 0;
    if (node->bus.ring)
        bus_call(node->sim, PROCESS_US, process_changed);
}

void sim_bus_start(struct sim_node *node)
{
    struct sim_world *world = &node->sim->world;
    sim_bus_clear(&node->bus);
    node->bus.pid++;
    sim_node_call(node, SIM_CONTROL, world->now_us + (node->bus.up ? 5000 : 100000) + sim_random(world, 50000), join, 0);
}

void sim_bus_agent_gone(struct sim_node *node)
{
    bool was = node->bus.joined;
    node->bus.joined = false;
    node->bus.told_count = 0;
    node->bus.inbox_at_us = 0;
    sim_bus_clear(&node->bus);
    if (was && node->bus.up)
        bus_call(node->sim, PROCESS_US + sim_random(&node->sim->world, 1000), process_changed);
}

static void lost(struct sim_node *node, uint64_t argument)
{
    (void)argument;
    sim_control_bus_lost(node);
}

void sim_bus_stop(struct sim_node *node)
{
    bool was = node->bus.up;
    node->bus.up = node->bus.joined = false;
    node->bus.told_count = 0;
    sim_bus_clear(&node->bus);
    if (was)
        sim_bus_changed(node->sim);
    node->bus.ring = 0;
    node->bus.stalled = false;
    if (was && node->up) {
        sim_node_call(node, SIM_CONTROL, node->sim->world.now_us, lost, 0);
        sim_node_call(node, SIM_CONTROL, node->sim->world.now_us + 1000000, join, 0); /* directord starts it again */
    }
}
