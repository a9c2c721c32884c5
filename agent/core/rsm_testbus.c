#include "agent/core/rsm_testbus.h"

#include "director/base/bytes.h"
#include "director/base/crc32c.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

uint64_t testbus_random(struct testbus *bus, uint64_t below)
{
    bus->seed += 0x9e3779b97f4a7c15u; /* splitmix64 */
    uint64_t z = bus->seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

static void values_add(struct testbus_values *values, uint64_t value)
{
    if (values->count == values->capacity) {
        values->capacity = values->capacity ? values->capacity * 2 : 64;
        values->items = realloc(values->items, values->capacity * sizeof(uint64_t));
    }
    values->items[values->count++] = value;
}

static bool values_have(const struct testbus_values *values, uint64_t value)
{
    for (size_t i = values->count; i > 0; i--)
        if (values->items[i - 1] == value)
            return true;
    return false;
}

bool testbus_holds(const struct testbus_node *node, uint64_t value)
{
    return values_have(&node->state, value);
}

struct testbus_node *testbus_node(struct testbus *bus, uint16_t id)
{
    assert_in_range(id, 1, bus->node_count);
    return &bus->nodes[id - 1];
}

void testbus_init(struct testbus *bus, size_t node_count, uint64_t seed)
{
    *bus = (struct testbus){.now = 1000, .seed = seed, .node_count = node_count};
    bus->history_size = 200000;
    bus->history = calloc(bus->history_size, sizeof(uint64_t));
    bus->state_history = calloc(bus->history_size, sizeof(uint64_t));
    for (size_t i = 0; i < node_count; i++)
        bus->nodes[i] = (struct testbus_node){.id = (uint16_t)(i + 1), .entry_first = 1, .crash_after = -1};
}

static void inbox_clear(struct testbus_node *node)
{
    for (size_t i = 0; i < node->inbox_count; i++)
        free(node->inbox[i].data);
    node->inbox_count = 0;
}

void testbus_crash(struct testbus *bus, uint16_t id)
{
    struct testbus_node *node = testbus_node(bus, id);
    rsm_free(node->rsm);
    node->rsm = NULL;
    node->up = node->stalled = false;
    node->state.count = 0;
    node->applied = node->snapshot_due = 0;
    free(node->snapshot_data);
    node->snapshot_data = NULL;
    node->proposal_count = 0;
    node->crash_after = -1;
    memset(node->barriers, 0, sizeof(node->barriers));
    inbox_clear(node);
}

void testbus_done(struct testbus *bus)
{
    for (size_t i = 0; i < bus->node_count; i++) {
        struct testbus_node *node = &bus->nodes[i];
        testbus_crash(bus, node->id);
        for (size_t j = 0; j < node->entry_count; j++)
            free((void *)node->entries[j].data);
        free(node->entries);
        free((void *)node->snapshot.data);
        free(node->inbox);
        free(node->state.items);
    }
    free(bus->history);
    free(bus->state_history);
    free(bus->acknowledged.items);
}

/* ---- disk ------------------------------------------------------------------------------------------------------ */

static void disk_truncate(struct testbus_node *node, uint64_t from)
{
    while (node->entry_count && node->entry_first + node->entry_count - 1 >= from)
        free((void *)node->entries[--node->entry_count].data);
}

static void disk_drop_front(struct testbus_node *node, uint64_t index)
{
    size_t drop = index + 1 > node->entry_first ? MIN(index + 1 - node->entry_first, node->entry_count) : 0;
    for (size_t i = 0; i < drop; i++)
        free((void *)node->entries[i].data);
    node->entry_count -= drop;
    if (drop)
        memmove(node->entries, node->entries + drop, node->entry_count * sizeof(*node->entries));
    node->entry_first += drop;
    if (node->entry_count == 0)
        node->entry_first = MAX(node->entry_first, index + 1);
}

static void disk_append(struct testbus_node *node, struct rsm_effect *effect)
{
    assert_int_equal(effect->index, node->entry_first + node->entry_count); /* contiguous */
    if (node->entry_count == node->entry_capacity) {
        node->entry_capacity = node->entry_capacity ? node->entry_capacity * 2 : 64;
        node->entries = realloc(node->entries, node->entry_capacity * sizeof(*node->entries));
    }
    node->entries[node->entry_count++] = (struct rsm_blob){effect->data, effect->size};
    effect->data = NULL;
}

/* ---- effects --------------------------------------------------------------------------------------------------- */

static void inbox_add(struct testbus_node *node, const struct testbus_letter *letter)
{
    if (node->inbox_count == node->inbox_capacity) {
        node->inbox_capacity = node->inbox_capacity ? node->inbox_capacity * 2 : 64;
        node->inbox = realloc(node->inbox, node->inbox_capacity * sizeof(*node->inbox));
    }
    node->inbox[node->inbox_count] = *letter;
    if (letter->data) {
        node->inbox[node->inbox_count].data = malloc(letter->size ? letter->size : 1);
        memcpy(node->inbox[node->inbox_count].data, letter->data, letter->size);
    }
    node->inbox_count++;
}

static void multicast(struct testbus *bus, struct testbus_node *from, const struct rsm_effect *effect)
{
    assert_true(effect->size <= RSM_MESSAGE_MAX_BYTES);
    bus->messages++;
    struct testbus_letter letter = {.from = from->id, .data = effect->data, .size = effect->size};
    for (size_t i = 0; i < bus->node_count; i++)
        if (bus->nodes[i].up && bus->nodes[i].view == from->view)
            inbox_add(&bus->nodes[i], &letter);
}

static uint64_t hash(uint64_t seed, const void *data, size_t size)
{
    return (uint64_t)crc32c((uint32_t)seed, data, size) << 32 | crc32c((uint32_t)(seed >> 32) ^ 0x5bd1e995u, data, size) | 1;
}

static uint64_t state_hash(const struct testbus_node *node)
{
    return hash(7, node->state.items, node->state.count * sizeof(uint64_t));
}

static void check_history(uint64_t *history, uint64_t index, uint64_t value, const char *what)
{
    if (history[index] == 0)
        history[index] = value;
    if (history[index] != value)
        fail_msg("index %llu: two contents of %s", (unsigned long long)index, what);
}

static void apply(struct testbus *bus, struct testbus_node *node, const struct rsm_effect *effect)
{
    assert_true(effect->index > node->applied && effect->index < bus->history_size);
    assert_int_equal(effect->size, 8 + get_le16(effect->data + 6));
    uint64_t value = get_le64(effect->data) & 0xffffffffffff;
    check_history(bus->history, effect->index, hash(1, effect->data, effect->size), "the log");
    if (!values_have(&node->state, value))
        values_add(&node->state, value);
    node->applied = effect->index;
    check_history(bus->state_history, effect->index, state_hash(node), "the state");
}

static void restore(struct testbus *bus, struct testbus_node *node, const struct rsm_effect *effect)
{
    assert_true(effect->size >= 8 && effect->index > node->applied);
    uint64_t at = get_le64(effect->data); /* index of the last command in it */
    node->state.count = 0;
    for (size_t i = 8; i + 8 <= effect->size; i += 8)
        values_add(&node->state, get_le64(effect->data + i));
    node->applied = effect->index;
    node->restore_count++;
    if (at)
        check_history(bus->state_history, at, state_hash(node), "a snapshot");
}

static void done(struct testbus *bus, struct testbus_node *node, const struct rsm_effect *effect)
{
    node->done_count++;
    node->last_done_status = effect->status;
    for (size_t i = 0; i < node->proposal_count; i++) {
        if (node->proposals[i].ticket != effect->ticket)
            continue;
        if (effect->status == 0) {
            assert_true(testbus_holds(node, node->proposals[i].value));
            values_add(&bus->acknowledged, node->proposals[i].value);
        }
        node->proposals[i] = node->proposals[--node->proposal_count];
        return;
    }
    fail_msg("done of a proposal that was not pending");
}

/* No stale read: all acknowledged before the question is here (R9). */
static void barrier_done(struct testbus *bus, struct testbus_node *node, const struct rsm_effect *effect)
{
    size_t slot = effect->ticket % ARRAY_SIZE(node->barriers);
    if (effect->status)
        return;
    node->barrier_done_count++;
    if (node->barriers[slot].ticket == effect->ticket)
        for (size_t i = 0; i < node->barriers[slot].acknowledged; i++)
            if (!testbus_holds(node, bus->acknowledged.items[i]))
                fail_msg("stale read at node %u", node->id);
}

/* The bytes are of the moment of the effect, the answer comes when the list is done. */
static void snapshot_capture(struct testbus_node *node, uint64_t index)
{
    assert_true(node->applied <= index);
    node->snapshot_due = index;
    node->snapshot_size = 8 + node->state.count * 8;
    node->snapshot_data = malloc(node->snapshot_size);
    put_le64(node->snapshot_data, node->applied);
    for (size_t i = 0; i < node->state.count; i++)
        put_le64(node->snapshot_data + 8 + 8 * i, node->state.items[i]);
}

static void snapshot_taken(struct testbus *bus, struct testbus_node *node, struct rsm_effects *effects)
{
    struct rsm_event event = {.kind = RSM_EVENT_SNAPSHOT_TAKEN,
                              .index = node->snapshot_due,
                              .data = {node->snapshot_data, node->snapshot_size}};
    uint8_t *data = node->snapshot_data;
    node->snapshot_due = 0;
    node->snapshot_data = NULL;
    assert_int_equal(rsm_step(node->rsm, &event, bus->now, effects), 0);
    free(data);
}

static void perform(struct testbus *bus, struct testbus_node *node, struct rsm_effect *effect)
{
    switch (effect->kind) {
    case RSM_EFFECT_MULTICAST:
        multicast(bus, node, effect);
        break;
    case RSM_EFFECT_HARD_STATE:
        assert_true(effect->term >= node->term);
        node->term = effect->term;
        node->voted_for = effect->voted_for;
        break;
    case RSM_EFFECT_LOG_APPEND:
        disk_append(node, effect);
        break;
    case RSM_EFFECT_LOG_TRUNCATE:
        disk_truncate(node, effect->index);
        break;
    case RSM_EFFECT_SNAPSHOT:
        free((void *)node->snapshot.data);
        node->snapshot = (struct rsm_blob){effect->data, effect->size};
        effect->data = NULL;
        disk_drop_front(node, effect->index);
        break;
    case RSM_EFFECT_RESTORE:
        restore(bus, node, effect);
        break;
    case RSM_EFFECT_APPLY:
        apply(bus, node, effect);
        break;
    case RSM_EFFECT_PROPOSAL_DONE:
        done(bus, node, effect);
        break;
    case RSM_EFFECT_BARRIER_DONE:
        barrier_done(bus, node, effect);
        break;
    case RSM_EFFECT_NEED_SNAPSHOT:
        snapshot_capture(node, effect->index);
        break;
    case RSM_EFFECT_LEFT:
        node->left_count++;
        break;
    case RSM_EFFECT_ROLE:
        break;
    }
}

static int step(struct testbus *bus, struct testbus_node *node, const struct rsm_event *event)
{
    struct rsm_effects effects = {0};
    int status = rsm_step(node->rsm, event, bus->now, &effects);
    for (size_t i = 0; i < effects.count; i++) {
        if (node->crash_after == 0) {
            rsm_effects_done(&effects);
            testbus_crash(bus, node->id);
            return -ENODEV;
        }
        node->crash_after -= node->crash_after > 0;
        perform(bus, node, &effects.items[i]);
        if (node->snapshot_due && i + 1 == effects.count)
            snapshot_taken(bus, node, &effects);
    }
    rsm_effects_done(&effects);
    return status;
}

/* ---- events ---------------------------------------------------------------------------------------------------- */

void testbus_bootstrap(struct testbus *bus, uint16_t id)
{
    struct rsm_effects effects = {0};
    rsm_bootstrap(id, &effects);
    for (size_t i = 0; i < effects.count; i++)
        perform(bus, testbus_node(bus, id), &effects.items[i]);
    rsm_effects_done(&effects);
}

void testbus_start(struct testbus *bus, uint16_t id)
{
    struct testbus_node *node = testbus_node(bus, id);
    assert_false(node->up);
    struct rsm_options options = bus->options;
    options.self = id;
    options.boot = node->boot = 1 + testbus_random(bus, 1u << 30);
    options.cluster = 42;
    node->rsm = rsm_new(&options);
    node->up = true;
    node->view = 0;
    node->next_ticket = 0;
    struct rsm_persistent persistent = {node->term, node->voted_for, node->snapshot, node->entries, node->entry_count};
    struct rsm_event event = {.kind = RSM_EVENT_START, .persistent = &persistent};
    assert_int_equal(step(bus, node, &event), 0);
}

/* What is not read yet: kept before the change, dropped, or comes after it. */
static void inbox_tricks(struct testbus *bus, struct testbus_node *node, const struct testbus_letter *view)
{
    size_t count = node->inbox_count, keep = testbus_random(bus, count + 1);
    struct testbus_letter *old = node->inbox;
    node->inbox = NULL;
    node->inbox_count = node->inbox_capacity = 0;
    for (size_t i = 0; i < keep; i++)
        inbox_add(node, &old[i]);
    inbox_add(node, view);
    bool ghosts = testbus_random(bus, 2);
    for (size_t i = keep; i < count; i++)
        if (old[i].is_view ? 0 : ghosts)
            inbox_add(node, &old[i]);
    for (size_t i = 0; i < count; i++)
        free(old[i].data);
    free(old);
}

void testbus_view_change(struct testbus *bus, bool lossy)
{
    uint64_t base = ++bus->view * 100;
    for (size_t i = 0; i < bus->node_count; i++) {
        struct testbus_node *node = &bus->nodes[i];
        if (!node->up)
            continue;
        struct testbus_letter letter = {.is_view = true, .view = base + node->group};
        for (size_t j = 0; j < bus->node_count; j++)
            if (bus->nodes[j].up && bus->nodes[j].group == node->group)
                letter.members[letter.member_count++] = bus->nodes[j].id;
        node->view = letter.view;
        if (lossy)
            inbox_tricks(bus, node, &letter);
        else
            inbox_add(node, &letter);
    }
}

static void deliver_one(struct testbus *bus, struct testbus_node *node)
{
    struct testbus_letter letter = node->inbox[0];
    node->inbox_count--;
    memmove(node->inbox, node->inbox + 1, node->inbox_count * sizeof(*node->inbox));
    struct rsm_event event = {.kind = letter.is_view ? RSM_EVENT_VIEW : RSM_EVENT_MESSAGE,
                              .view = letter.view,
                              .members = letter.members,
                              .member_count = letter.member_count,
                              .from = letter.from,
                              .data = {letter.data, letter.size}};
    int status = step(bus, node, &event);
    free(letter.data);
    assert_true(status == 0 || status == -ENODEV || status == -ESHUTDOWN);
}

void testbus_deliver_some(struct testbus *bus, unsigned letters)
{
    for (unsigned i = 0; i < letters; i++) {
        struct testbus_node *node = &bus->nodes[testbus_random(bus, bus->node_count)];
        if (node->up && !node->stalled && node->inbox_count)
            deliver_one(bus, node);
    }
}

void testbus_tick(struct testbus *bus, uint64_t ms)
{
    bus->now += ms;
    struct rsm_event event = {.kind = RSM_EVENT_TICK};
    for (size_t i = 0; i < bus->node_count; i++)
        if (bus->nodes[i].up && !bus->nodes[i].stalled)
            (void)step(bus, &bus->nodes[i], &event);
}

void testbus_run(struct testbus *bus, uint64_t ms)
{
    for (uint64_t end = bus->now + ms; bus->now < end;) {
        for (bool any = true; any;) {
            any = false;
            for (size_t i = 0; i < bus->node_count; i++) {
                struct testbus_node *node = &bus->nodes[i];
                if (node->up && !node->stalled && node->inbox_count) {
                    deliver_one(bus, node);
                    any = true;
                }
            }
        }
        testbus_tick(bus, 10);
    }
}

int testbus_event(struct testbus *bus, uint16_t id, const struct rsm_event *event)
{
    return step(bus, testbus_node(bus, id), event);
}

/* 6 bytes of value, 2 of padding length, padding. */
int testbus_propose(struct testbus *bus, uint16_t id, uint64_t value, enum rsm_change change, uint16_t change_nodeid)
{
    struct testbus_node *node = testbus_node(bus, id);
    static uint8_t data[8 + 65536];
    uint16_t padding = value % 64 == 0 ? 20000 : (uint16_t)(value % 7);
    put_le64(data, value | (uint64_t)padding << 48);
    struct rsm_event event = {.kind = RSM_EVENT_PROPOSE,
                              .ticket = ++node->next_ticket,
                              .data = {data, 8u + padding},
                              .change = change,
                              .change_nodeid = change_nodeid};
    if (node->proposal_count == ARRAY_SIZE(node->proposals))
        return -EAGAIN;
    node->proposals[node->proposal_count].ticket = event.ticket;
    node->proposals[node->proposal_count++].value = value;
    int status = step(bus, node, &event);
    if (status && status != -ENODEV)
        node->proposal_count--;
    return status;
}

int testbus_barrier(struct testbus *bus, uint16_t id, uint64_t ticket)
{
    struct testbus_node *node = testbus_node(bus, id);
    size_t slot = ticket % ARRAY_SIZE(node->barriers);
    node->barriers[slot].ticket = ticket;
    node->barriers[slot].acknowledged = bus->acknowledged.count;
    struct rsm_event event = {.kind = RSM_EVENT_BARRIER, .ticket = ticket};
    return step(bus, node, &event);
}

uint16_t testbus_sequencer(struct testbus *bus)
{
    uint64_t term = 0;
    uint16_t found = 0;
    for (size_t i = 0; i < bus->node_count; i++) {
        struct rsm_status status;
        if (!bus->nodes[i].up)
            continue;
        rsm_get_status(bus->nodes[i].rsm, &status);
        if (status.role == RSM_SEQUENCER && status.term > term) {
            term = status.term;
            found = bus->nodes[i].id;
        }
    }
    return found;
}

void testbus_form(struct testbus *bus)
{
    testbus_bootstrap(bus, 1);
    for (size_t i = 0; i < bus->node_count; i++)
        testbus_start(bus, (uint16_t)(i + 1));
    testbus_view_change(bus, false);
    testbus_run(bus, 200);
    for (uint16_t id = 2; id <= bus->node_count; id++) {
        assert_int_equal(testbus_propose(bus, 1, 0xff0000u + id, RSM_CHANGE_ADD_VOTER, id), 0);
        testbus_run(bus, 400);
    }
    for (size_t i = 0; i < bus->node_count; i++) {
        struct rsm_status status;
        rsm_get_status(bus->nodes[i].rsm, &status);
        assert_int_equal(status.voter_count, bus->node_count);
        assert_true(status.quorate);
    }
}
