/* For tests: some nodes with the replicated log, their disks, and a bus like CPG: total order within a view, each node at its
 * own pace; at a view change what a node has not read yet may come before the change, after it (ghosts), or never.
 * The state machine is a list of u64 values, each applied at most once. Checks made all the time:
 *   one index has one content on all nodes; a restored snapshot is the state of its index; what was acknowledged is there
 *   when a barrier that began later completes. */
#ifndef DIRECTOR_AGENT_CORE_RSM_TESTBUS_H
#define DIRECTOR_AGENT_CORE_RSM_TESTBUS_H

#include "agent/core/rsm.h"

#define TESTBUS_NODES 6u

struct testbus_letter {
    bool is_view;
    uint64_t view;
    uint16_t members[TESTBUS_NODES];
    size_t member_count;
    uint16_t from;
    uint8_t *data;
    size_t size;
};

struct testbus_values {
    uint64_t *items;
    size_t count, capacity;
};

struct testbus_node {
    uint16_t id;
    bool up, stalled, disk_broken;
    uint64_t boot;
    struct rsm *rsm;
    unsigned group; /* nodes of one group see each other */
    struct testbus_letter *inbox;
    size_t inbox_count, inbox_capacity;
    uint64_t view; /* newest view put into the inbox */
    /* disk */
    uint64_t term;
    uint16_t voted_for;
    struct rsm_blob snapshot, *entries;
    size_t entry_count, entry_capacity;
    uint64_t entry_first; /* index of entries[0] */
    /* state machine */
    struct testbus_values state;
    uint64_t applied;
    uint64_t next_ticket;
    uint64_t snapshot_due;
    uint8_t *snapshot_data;
    size_t snapshot_size;
    int last_done_status;
    unsigned done_count, barrier_done_count, restore_count, left_count;
    struct {
        uint64_t ticket;
        size_t acknowledged; /* of bus->acknowledged when it was asked */
    } barriers[64];
    struct {
        uint64_t ticket, value;
    } proposals[2048];
    size_t proposal_count;
    int crash_after; /* effects until a crash; -1: none */
};

struct testbus {
    uint64_t now, seed, view;
    struct testbus_node nodes[TESTBUS_NODES]; /* nodeid = place + 1 */
    size_t node_count;
    struct rsm_options options; /* template */
    uint64_t *history;          /* hash of the entry applied at index; 0: none yet */
    uint64_t *state_history;    /* hash of the state after index */
    size_t history_size;
    struct testbus_values acknowledged; /* values whose proposal was answered */
    uint64_t messages;
};

void testbus_init(struct testbus *bus, size_t node_count, uint64_t seed);
void testbus_done(struct testbus *bus);
uint64_t testbus_random(struct testbus *bus, uint64_t below);
struct testbus_node *testbus_node(struct testbus *bus, uint16_t id);
/* Node 1 of a new cluster, on disk only. */
void testbus_bootstrap(struct testbus *bus, uint16_t id);
/* Power: nothing of memory survives. Take or give it; then testbus_view_change(). */
void testbus_start(struct testbus *bus, uint16_t id);
void testbus_crash(struct testbus *bus, uint16_t id);
/* Put every node that is up into a new view of its group; lossy: play tricks with what is not read yet. */
void testbus_view_change(struct testbus *bus, bool lossy);
void testbus_run(struct testbus *bus, uint64_t ms);              /* all read everything, time passes in 10 ms */
void testbus_deliver_some(struct testbus *bus, unsigned letters); /* of nodes drawn by lot */
void testbus_tick(struct testbus *bus, uint64_t ms);
/* value: never 0, different each time. Returns rsm_step's status. */
int testbus_propose(struct testbus *bus, uint16_t id, uint64_t value, enum rsm_change change, uint16_t change_nodeid);
int testbus_barrier(struct testbus *bus, uint16_t id, uint64_t ticket);
int testbus_event(struct testbus *bus, uint16_t id, const struct rsm_event *event);
uint16_t testbus_sequencer(struct testbus *bus); /* of the highest term, quorate; 0: none */
bool testbus_holds(const struct testbus_node *node, uint64_t value);
/* Grow from the bootstrapped node 1: all up in one view, all voters. */
void testbus_form(struct testbus *bus);

#endif
