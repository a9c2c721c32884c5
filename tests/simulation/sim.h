/* A whole cluster in one process under a simulated clock: on each node the production cores together (replicated log, tree,
 * failover planner, formation's steps by hand; mirror and replica of each volume), around them a bus like CPG, data links,
 * disks, clients. What stands between the cores on a real node is agent/node; here it is sim_control.c (control thread) and
 * sim_unit.c (I/O thread), which keep to the same order of things.
 *
 *     sim_world  time, chance, events            sim_bus      views, multicasts, ghosts, stalls
 *     sim_data, sim_history   see there          sim_link     data links with heartbeats, control heartbeats
 *     sim_disk   log and replica disks           sim_control  log, tree, planner of a node
 *     sim_node   start, crash, pause; clocks     sim_unit     mirror and replica of a volume on a node
 *     sim_mix    how bad a run is                sim_operator what clients and operators ask an agent for
 *     sim_target the production target: SCSI commands on top of all that
 *     sim_client reads and writes                sim_check    what must hold over all nodes
 *     sim_nemesis random faults                  sim_cluster  making, forming, healing, settling */
#ifndef DIRECTOR_TESTS_SIM_H
#define DIRECTOR_TESTS_SIM_H

#include "agent/core/failover.h"
#include "agent/core/rsm.h"
#include "agent/core/tree.h"
#include "replication/core/metadata.h"
#include "replication/core/mirror.h"
#include "replication/core/replica.h"
#include "tests/simulation/sim_data.h"
#include "tests/simulation/sim_history.h"
#include "tests/simulation/sim_world.h"

#define SIM_NODES_MAX     5u
#define SIM_VOLUMES_MAX   2u
#define SIM_VOLUME_BYTES  TREE_VOLUME_MIN_BYTES
#define SIM_BLOCKS        (uint32_t)(SIM_VOLUME_BYTES / SIM_BLOCK_BYTES)
#define SIM_REGION_BYTES  METADATA_REGION_MIN
#define SIM_REGIONS       (uint32_t)(SIM_VOLUME_BYTES / SIM_REGION_BYTES)
#define SIM_PROPOSALS_MAX 64u
#define SIM_BARRIERS_MAX  16u

/* Which thread of a node an event is for. */
enum sim_thread { SIM_CONTROL = 0, SIM_IO = 1, SIM_OUTSIDE = 2 /* disks, timers of the world: not held up by a busy thread */ };

/* Deliberate bugs in what stands between the cores. */
enum sim_bug {
    SIM_BUG_PUSH_BEFORE_CURRENT = 1u << 0, /* configuration reaches the mirror before the node's tree is current */
    SIM_BUG_VIEW_LOSS_IS_DEATH = 1u << 1,  /* a node that left the view is taken for dead, whatever the reason (I7) */
    SIM_BUG_NO_WIRE_CHECK = 1u << 2,       /* bits flipped on the wire are not noticed (scenario 32) */
    SIM_BUG_NO_CHECKSUM = 1u << 3,         /* rotten blocks are read as they are (scenario 11) */
    SIM_BUG_OWN_EPOCH = 1u << 4,           /* a promotion takes effect where it is proposed, before it is committed (I1) */
    SIM_BUG_RESERVE_EARLY = 1u << 6,       /* reservations are in force before they are committed (I14) */
    SIM_BUG_PROMOTE_ANY = 1u << 5,         /* with nobody in sync alive, another replica is forced into service (I4, I10) */
};

/* Kinds of faults: a run has some of them. */
enum sim_fault {
    SIM_FAULT_CRASH = 1u << 0,
    SIM_FAULT_SITE = 1u << 1,    /* all lose power */
    SIM_FAULT_CUT = 1u << 2,     /* data links, the bus in one direction, both; flaps */
    SIM_FAULT_ISOLATE = 1u << 3,
    SIM_FAULT_PAUSE = 1u << 4,
    SIM_FAULT_HANG = 1u << 5,    /* the control thread */
    SIM_FAULT_BUS = 1u << 6,     /* corosync dies */
    SIM_FAULT_DISK = 1u << 7,    /* slow, failing, hanging, full */
    SIM_FAULT_ROT = 1u << 8,     /* unreadable and rotten blocks, lost and misdirected writes, at one node */
    SIM_FAULT_MOVE = 1u << 9,    /* owners are moved, by strange wishes too */
    SIM_FAULT_WIRE = 1u << 10,   /* flipped bits, connections reset */
    SIM_FAULT_WALL = 1u << 11,   /* wall clocks jump */
    SIM_FAULT_LOSE = 1u << 12,   /* the disk of a node that is down and out of sync is replaced by an empty one */
    SIM_FAULT_PLACES = 1u << 13, /* operators: replicas removed and added, policies, online checks */
    SIM_FAULT_ALL = (1u << 14) - 1,
};

/* How bad a run is: chances are of ten thousand. */
struct sim_mix {
    uint32_t faults;          /* enum sim_fault */
    unsigned mischief;        /* a turn of the nemesis does something */
    unsigned heal;            /* and that is to heal */
    unsigned turn_us;
    unsigned crash_between;   /* two effects of a core */
    unsigned disk_error;      /* of one operation */
    unsigned spoil;           /* a write is lost or goes elsewhere, a block rots; at rot_place alone */
    unsigned rot_place;
    unsigned wire;            /* a frame is damaged, or its connection reset */
    unsigned slow_disk, slow_frame, slow_mail;
    unsigned commands;        /* SCSI commands, of what clients do */
    unsigned reads, compares; /* of the accesses; of the others */
    unsigned hot, hot_blocks;
    unsigned client_us;
    int drift_ppm;            /* clocks run up to so much faster or slower */
    uint32_t policies;        /* POLICY_ bits that operators set */
};
/* What every run had before runs differed. */
void sim_mix_default(struct sim_mix *mix);
/* Its own subset of faults, each with its own intensity. */
void sim_mix_draw(struct sim_mix *mix, struct sim_world *world, unsigned nodes);

struct sim;
struct sim_node;

/* ---- the bus ---------------------------------------------------------------------------------------------------- */

enum sim_letter_kind { SIM_LETTER_VIEW, SIM_LETTER_LOG, SIM_LETTER_IDENT };

struct sim_party { /* one process in the group */
    uint16_t nodeid;
    uint32_t pid;
    bool process_down; /* of one that departed: its end is certain */
};

struct sim_letter {
    struct sim_letter *next;
    enum sim_letter_kind kind;
    uint64_t view;
    struct sim_party members[SIM_NODES_MAX], departed[SIM_NODES_MAX];
    unsigned member_count, departed_count;
    struct sim_party from;
    uint64_t boot; /* IDENT */
    size_t size;
    uint8_t data[];
};

/* A node's corosync, and the agent's place in the group. */
struct sim_bus_node {
    bool up;      /* corosync runs */
    bool frozen;  /* stopped with the whole node */
    bool joined;  /* the agent is in the group */
    uint32_t pid;
    uint64_t ring, view;
    bool stalled; /* the ring is broken, nothing is delivered until it has formed anew */
    struct sim_letter *inbox, **inbox_last;
    uint64_t inbox_at_us;
    struct sim_letter *outbox, **outbox_last; /* held while stalled */
    struct sim_party told[SIM_NODES_MAX];     /* members of the newest view letter */
    unsigned told_count;
};

void sim_bus_start(struct sim_node *node);              /* corosync runs, unless it did; the agent joins soon */
void sim_bus_agent_gone(struct sim_node *node);         /* the process ended */
void sim_bus_stop(struct sim_node *node);               /* corosync is gone; the others find out by silence */
void sim_bus_changed(struct sim *sim);                  /* cuts or freezes changed: rings break and form anew */
void sim_bus_multicast(struct sim_node *node, enum sim_letter_kind kind, uint64_t boot, const void *data, size_t size);
void sim_bus_clear(struct sim_bus_node *bus);

/* ---- data links --------------------------------------------------------------------------------------------------- */

struct sim_link {
    bool up, cut;
    uint64_t generation, last_at[2], down_at;
};
struct sim_link *sim_link_between(struct sim *sim, unsigned a, unsigned b);
void sim_link_break(struct sim *sim, unsigned a, unsigned b);
void sim_link_make(struct sim *sim, unsigned a, unsigned b);
void sim_link_cut(struct sim *sim, unsigned a, unsigned b, bool cut);
void sim_link_start(struct sim_node *node); /* heartbeats of a process */
/* One frame of a volume; data travels as a copy. body is copied. Lost when there is no link. */
void sim_link_send(struct sim_node *from, unsigned to, const struct mirror_effect *send);
/* A forwarded SCSI command or its reply; takes payload when there is a link. */
bool sim_link_send_scsi(struct sim_node *from, unsigned to, const struct peer_header *header, uint8_t *payload);
/* VOLUME_UP of agent/node/engine.c. */
void sim_link_announce(struct sim_node *from, unsigned to, unsigned volume, bool ask);
void sim_link_part(struct sim_node *from, unsigned to, unsigned volume); /* VOLUME_DOWN */

/* ---- disks ------------------------------------------------------------------------------------------------------------ */

/* What the log store holds: written in transactions, each whole or not at all. */
struct sim_log_disk {
    uint64_t term;
    uint16_t voted_for;
    struct rsm_blob snapshot, *entries;
    size_t entry_count, entry_capacity;
    uint64_t entry_first;
    uint64_t recorded[SIM_VOLUMES_MAX]; /* incarnation of the disk in use last, 0: none was made here */
};
void sim_log_disk_apply(struct sim *sim, struct sim_log_disk *disk, struct rsm_effect *effect); /* takes its data */
void sim_log_disk_done(struct sim_log_disk *disk);

struct sim_disk_write {
    struct sim_disk_write *next;
    bool read;
    bool fua;
    struct sim_cached *snapshot; /* a flush: what it makes stable */
    uint64_t token, offset, length;
    enum block_operation operation;
    struct sim_bytes *data;
    uint64_t data_offset;
    struct mirror_effect digest; /* of a DISK_DIGEST, piece_bytes 0: none */
};

/* A block behind a volatile write cache: sim_disk.blocks is what is seen, this what outlives the machine's power. */
struct sim_cached {
    uint32_t tag, stable; /* tag: as seen */
    uint64_t version, stable_version;
};

/* What became of a block on the medium. The checksums at rest find a ROTTEN one: rot, a write that was lost or went elsewhere. */
enum sim_block_state { SIM_BLOCK_GOOD, SIM_BLOCK_UNREADABLE, SIM_BLOCK_ROTTEN };

/* Data and metadata file of one replica. */
struct sim_disk {
    bool data_there, meta_there;
    uint32_t blocks[SIM_BLOCKS];
    struct sim_cached cache[SIM_BLOCKS];
    uint8_t states[SIM_BLOCKS]; /* enum sim_block_state; a write makes it good again */
    uint8_t *meta;
    uint64_t sealed; /* epoch in the header, since a barrier confirmed it: it never goes back (I2, I13) */
    /* under way, of the running process */
    struct sim_disk_write *writing;
    struct metadata_page *meta_pages;
    unsigned meta_count;
    uint8_t *meta_whole; /* META_REPLACE */
};
void sim_disk_format(struct sim_disk *disk, const struct metadata_header *header);
void sim_disk_lose(struct sim_disk *disk); /* replaced by an empty one */
void sim_disk_spoil(struct sim_node *node, unsigned volume, uint32_t block, enum sim_block_state state);
/* Blocks that nobody in sync can read any more are made good: the story of their loss ends here. */
void sim_disk_recover(struct sim *sim, unsigned volume);
void sim_disk_submit(struct sim_node *node, unsigned volume, const struct mirror_effect *effect);
void sim_disk_submit_meta(struct sim_node *node, unsigned volume, const struct mirror_effect *effect);
/* What was under way: partly there (power), or whole or not at all (process). */
void sim_disk_crash(struct sim_node *node, unsigned volume, bool power);

/* ---- one node: control thread ------------------------------------------------------------------------------------------ */

enum sim_proposal_kind { SIM_PROPOSE_PLAN, SIM_PROPOSE_OWN, SIM_PROPOSE_VOTER, SIM_PROPOSE_CLIENT };

struct sim_proposal {
    uint64_t ticket, deadline_ms;
    enum sim_proposal_kind kind;
    uint32_t value; /* CLIENT: number of the target it creates */
};

struct sim_member {
    struct sim_party party;
    uint64_t boot, since_ms;
};

struct sim_control {
    struct rsm *rsm;
    struct tree *tree;
    struct failover *failover;
    struct rsm_effects effects;
    size_t effect_next, sync_to; /* sync_to: a transaction [effect_next, sync_to) is on its way to the disk */
    bool performing, syncing, failed;
    uint64_t busy_until_us; /* the thread hangs */
    uint64_t next_ticket;
    struct sim_proposal proposals[SIM_PROPOSALS_MAX];
    unsigned proposal_count;
    struct {
        uint64_t ticket;
        size_t acknowledged; /* of sim->acknowledged when it was asked */
    } barriers[SIM_BARRIERS_MAX];
    uint64_t current_barrier;
    bool in_view, current, quorate, sequencing, own_busy, voter_busy, plan_wanted;
    uint64_t planned_ms, own_retry_ms;
    struct sim_member members[SIM_NODES_MAX];
    unsigned member_count;
    uint64_t heard_ms[SIM_NODES_MAX]; /* on control links */
    uint64_t applied;
};

void sim_control_start(struct sim_node *node);
void sim_control_crash(struct sim_node *node);
void sim_control_letter(struct sim_node *node, const struct sim_letter *letter);
void sim_control_bus_lost(struct sim_node *node);
void sim_control_ask_isr(struct sim_node *node, unsigned volume, uint64_t epoch, uint64_t version, uint32_t isr);
void sim_control_reserve(struct sim_node *node, uint64_t volume_id, uint64_t epoch, uint64_t version, const uint8_t *bytes,
                         uint32_t size);
void sim_control_blank(struct sim_node *node, unsigned volume, unsigned replica, uint64_t incarnation);
/* command: origin and time are filled in. Returns false when the log refused it. */
bool sim_control_propose(struct sim_node *node, Director__Command *command, enum rsm_change change, uint16_t change_nodeid,
                         enum sim_proposal_kind kind, uint32_t value);
/* A client's configuration change: a target of its own number is created. */
bool sim_control_change(struct sim_node *node);
/* A client's question: all that was acknowledged before must be in the tree when it is answered. */
void sim_control_question(struct sim_node *node);
bool sim_control_promote(struct sim_node *node, unsigned volume, uint16_t owner, uint32_t isr);
bool sim_control_isr(struct sim_node *node, unsigned volume, uint32_t isr); /* VolumeIsr of the version it knows */
void sim_control_propose_isr(struct sim_node *node, uint64_t volume, uint64_t epoch, uint64_t version, uint32_t isr);
void sim_node_info(const struct sim_node *node, Director__NodeInfo *info, char name[16]);
/* What an operator wishes: proposed by this node's agent for the volume as its tree has it. fields: POLICY_ bits of
 * director.proto. nodeid 0: placed by the tree. */
bool sim_operator_policy(struct sim_node *node, unsigned volume, uint32_t fields, const struct tree_policy *wanted);
bool sim_operator_add(struct sim_node *node, unsigned volume, uint16_t nodeid);
bool sim_operator_remove(struct sim_node *node, unsigned volume, uint16_t nodeid);
bool sim_operator_force(struct sim_node *node, unsigned volume, uint16_t nodeid);
bool sim_operator_discard(struct sim_node *node, unsigned volume, uint16_t nodeid);
/* Begin an online check at this node, in its I/O thread. False: it is not the owner, or one is running. */
bool sim_operator_check(struct sim_node *node, unsigned volume, enum mirror_check_kind kind, bool repair);
void sim_operator_stop(struct sim_node *node, unsigned volume);
void sim_control_add_node(struct sim_node *node, const struct sim_node *added);
void sim_control_create_volume(struct sim_node *node, unsigned volume);
void sim_control_alive(struct sim_node *node, struct failover_nodes *ret_alive);

/* ---- one node: I/O thread ------------------------------------------------------------------------------------------------ */

struct sim_op {
    struct mirror_request request;
    struct sim_op *next, *next_active;
    unsigned node, volume;
    bool read, compare;
    uint64_t invoked, answered;
    uint32_t first, count, tag, expected;
    int status; /* SIM_PENDING, SIM_UNKNOWN after a crash, 0, or a negative errno */
    struct sim_bytes *data;
};
#define SIM_PENDING 1
#define SIM_UNKNOWN 2

/* A volume on a node. */
struct sim_unit {
    bool known;              /* configuration came */
    struct tree_volume config;
    int replica;
    bool opening;
    bool closing;            /* what is under way on the disk is awaited */
    int place;               /* of the files that are open */
    struct mirror *mirror;   /* NULL: not open */
    struct replica *core;
    uint32_t linked;         /* bit: node place */
    uint64_t tick_at;
    uint8_t *reservations;   /* as committed last (I14) */
    uint32_t reservations_bytes;
    uint64_t reservations_version;
    uint64_t incarnation;    /* of the disk that is open */
    uint64_t blank_told_us;
};

/* From one thread of a node to the other, in order. */
void sim_unit_put(struct sim_node *node, unsigned volume, const struct tree_volume *config);
void sim_unit_authority(struct sim_node *node, bool authority);
/* The target asks for a commit: from the I/O to the control thread. */
void sim_unit_reserve(struct sim_node *node, uint64_t volume_id, uint64_t epoch, uint64_t version, const uint8_t *bytes, uint32_t size);
void sim_unit_node_dead(struct sim_node *node, uint16_t nodeid, uint64_t boot);
/* In the I/O thread. */
void sim_unit_link_up(struct sim_node *node, unsigned peer, uint64_t boot);
void sim_unit_link_down(struct sim_node *node, unsigned peer);
void sim_unit_announced(struct sim_node *node, unsigned peer, unsigned volume, bool ask);
void sim_unit_parted(struct sim_node *node, unsigned peer, unsigned volume); /* VOLUME_DOWN */
void sim_unit_step_mirror(struct sim_node *node, unsigned volume, struct mirror_event *event);
void sim_unit_step_replica(struct sim_node *node, unsigned volume, struct mirror_event *event);
void sim_unit_crash(struct sim_node *node, bool power);
bool sim_unit_serving(struct sim_node *node, unsigned volume); /* its mirror takes requests */

/* ---- one node: life ---------------------------------------------------------------------------------------------------- */

struct sim_node {
    struct sim *sim;
    unsigned place; /* 0.. */
    uint16_t nodeid;
    struct uuid uuid;
    bool member;    /* was told to join */
    bool up, paused;
    uint64_t life, boot, skew_us;
    uint64_t machine; /* boot of the machine: another one after each loss of power */
    int drift_ppm;    /* its monotonic clock is so much faster */
    int64_t wall_us;  /* its wall clock is so far off */
    uint64_t mail_at[2]; /* of the last mail to each thread */
    uint64_t links[SIM_NODES_MAX]; /* boot of the peer's process, 0: no data link as this I/O thread knows */
    struct sim_queue held, waiting; /* while paused; while the control thread is busy */
    /* disks */
    struct sim_log_disk log;
    struct sim_disk disks[SIM_VOLUMES_MAX];
    bool log_broken, data_broken, meta_broken; /* errors from now on */
    bool hung;                    /* data and metadata: nothing is answered */
    bool clock_stops;             /* its monotonic clock too, while it is paused: as hypervisors do */
    uint64_t paused_us;
    bool tear;                    /* the next loss of power tears each metadata page that is being written */
    unsigned slow;                /* disk times multiplied */
    /* the process */
    struct sim_control control;
    bool authority;
    struct sim_unit units[SIM_VOLUMES_MAX];
    struct sim_target *target; /* of the process */
    struct sim_op *ops;
    struct sim_bus_node bus;
};

uint64_t sim_clock_us(const struct sim_node *node); /* its own monotonic clock */
uint64_t sim_clock_ms(const struct sim_node *node);
/* When its clock will show that. */
uint64_t sim_clock_when(const struct sim_node *node, uint64_t clock_us);
void sim_clock_drift(struct sim_node *node, int drift_ppm);
void sim_node_start(struct sim_node *node);
enum sim_crash { SIM_CRASH_PROCESS, SIM_CRASH_POWER };
void sim_node_crash(struct sim_node *node, enum sim_crash crash);
/* SIGSTOP of the agent, or of all there is on the node. */
void sim_node_pause(struct sim_node *node, bool whole);
void sim_node_wake(struct sim_node *node);
/* Call a function later, in one of the node's threads, if its process still lives then. */
void sim_node_call(struct sim_node *node, enum sim_thread thread, uint64_t at_us,
                   void (*function)(struct sim_node *node, uint64_t argument), uint64_t argument);
void sim_node_plan(struct sim_node *node, enum sim_thread thread, struct sim_event *event, uint64_t at_us);
/* Later and in order after what was mailed to that thread before. */
uint64_t sim_node_mail_at(struct sim_node *node, enum sim_thread thread);
/* The thread was busy and is so no more. */
void sim_node_ready(struct sim_node *node);

/* ---- the cluster -------------------------------------------------------------------------------------------------------- */

struct sim_options {
    uint64_t seed;
    unsigned nodes;    /* that form the cluster */
    unsigned volumes;
    unsigned replicas;
    unsigned stores;   /* so many of the nodes have a store; 0: all */
    bool mishaps;      /* crashes between any two effects, single disk errors, slow frames: the swarm's */
    bool trace, verbose;
    uint32_t replication_bugs, rsm_bugs, sim_bugs;
};

struct sim_record { /* of one index of the log */
    uint64_t content, tree;
};

struct sim {
    struct sim_world world;
    struct sim_data data;
    struct sim_history history; /* block of volume v: v * SIM_BLOCKS + block */
    struct sim_options options;
    struct sim_node nodes[SIM_NODES_MAX];
    unsigned node_count; /* with those that joined later */
    struct sim_link links[SIM_NODES_MAX][SIM_NODES_MAX];
    bool bus_cut[SIM_NODES_MAX][SIM_NODES_MAX]; /* [from][to] */
    uint64_t bus_ring, bus_view, bus_reform_at;
    struct sim_mix mix;
    uint32_t seen[SIM_VOLUMES_MAX * SIM_BLOCKS]; /* the tag that a client saw last in a block */
    bool mishaps;  /* now */
    bool restarts; /* crashed nodes come back by themselves */
    bool clients;  /* go on reading and writing */
    /* records */
    struct sim_record *records;
    size_t record_capacity;
    uint32_t *acknowledged; /* numbers of targets whose creation was answered */
    size_t acknowledged_count, acknowledged_capacity;
    uint32_t next_change, next_tag;
    struct {
        uint16_t *owners; /* by epoch */
        size_t capacity;
    } epochs[SIM_VOLUMES_MAX];
    uint64_t next_incarnation;
    struct sim_op *ops;
    struct sim_command *commands; /* of stories */
    struct {
        unsigned commands, reads, writes, compares, failed, changes, questions, promotions, crashes, views, spoiled, damaged, repaired;
    } counts;
};

#define SIM_LOG(sim, ...) SIM_TRACE(&(sim)->world, __VA_ARGS__)

/* A cluster whose nodes run, are members and voters, with volumes made and serving. The run goes on by sim_run(). */
struct sim *sim_new(const struct sim_options *options);
void sim_free(struct sim *sim);
void sim_run(struct sim *sim, uint64_t ms);
/* Until condition holds; false: not within ms, or a violation. */
bool sim_wait(struct sim *sim, uint64_t ms, bool (*condition)(struct sim *sim, void *argument), void *argument);
/* No faults any more: cuts, pauses, broken disks; what is down starts. */
void sim_heal(struct sim *sim);
/* All in sync and calm, within ms; else a violation that says what is missing. */
void sim_settle(struct sim *sim, uint64_t ms);
/* The node places of the volume's committed owner, and the newest tree there is (of the most advanced running node). */
const struct tree *sim_tree(struct sim *sim);
const struct tree_volume *sim_volume(struct sim *sim, unsigned volume);
/* Where replica k of it is; NULL: the place is empty, or held after a last resort. */
struct sim_node *sim_replica(struct sim *sim, const struct tree_volume *v, unsigned k);
uint32_t sim_places(const struct tree_volume *v); /* those that are neither */
struct sim_node *sim_owner(struct sim *sim, unsigned volume);
struct sim_node *sim_sequencer(struct sim *sim);
void sim_isolate(struct sim *sim, unsigned place, bool cut);
void sim_cut_bus(struct sim *sim, unsigned from, unsigned to, bool cut);
/* Node number place of its own joins: as a learner at first. */
void sim_join(struct sim *sim, unsigned place);
void sim_volume_name(unsigned volume, char name[static 16]);
int sim_volume_place(const char *name); /* -1: none of ours */

/* ---- clients --------------------------------------------------------------------------------------------------------------- */

/* At this node, whatever it is: a stale owner will do. The op is the sim's. */
struct sim_op *sim_client_submit(struct sim_node *node, unsigned volume, bool read, uint32_t first, uint32_t count);
/* COMPARE AND WRITE of one block. */
struct sim_op *sim_client_compare(struct sim_node *node, unsigned volume, uint32_t block, uint32_t expected);
void sim_client_finish(struct sim_node *node, struct mirror_request *request, int status);
void sim_client_forget(struct sim_node *node); /* its process is gone */
void sim_client_start(struct sim *sim);        /* reads and writes by lot, until all is healed */
bool sim_client_all_answered(struct sim *sim);

/* ---- checks ----------------------------------------------------------------------------------------------------------------- */

void sim_check_applied(struct sim_node *node, uint64_t index, const uint8_t *data, size_t size);
void sim_check_restored(struct sim_node *node, uint64_t index);
void sim_check_acknowledged(struct sim_node *node, size_t count, const char *when);
/* After all was healed and is settled: replicas, trees, histories. */
void sim_check_end(struct sim *sim);
void sim_check_replicas(struct sim *sim, unsigned volume); /* all that are in sync are equal */

/* ---- faults by lot ------------------------------------------------------------------------------------------------------------ */

void sim_nemesis_start(struct sim *sim);

#endif
