/* Several nodes' mirrors and replicas in one process: the world of mirror_cluster_test.c. Replication alone, against a small
 * configuration service that keeps I1, I4 and I10.
 *
 *     mirror_world   links, disks, effects, nodes that crash and start     mirror_chaos   service, clients, faults by lot
 *     mirror_places  replicas added and removed, policies     mirror_cluster_test   running, checks, planted bugs */
#ifndef DIRECTOR_TESTS_MIRROR_WORLD_H
#define DIRECTOR_TESTS_MIRROR_WORLD_H

#include "replication/core/message.h"
#include "replication/core/mirror.h"
#include "replication/core/replica.h"
#include "tests/simulation/sim_data.h"
#include "tests/simulation/sim_history.h"

#define NODES        3u
#define BLOCK        4096u
#define REGION       65536u
#define REGIONS      8u /* of the volume when it has grown most */
#define BLOCKS       (REGIONS * REGION / BLOCK)
#define SERVICE      NODES /* the configuration service, as a place that links can be cut from */

enum what { W_MESSAGE, W_HEARTBEAT, W_BEAT, W_BEAT_ACK, W_DISK, W_META, W_TICK, W_CONFIG, W_CLIENT, W_CHAOS, W_LINK_DOWN,
            W_LINK_UP, W_ASK, W_WATCH, W_RESTART, W_DEAD, W_SUBMIT, W_REFILL, W_WEAR, W_EXTEND };

struct happening {
    struct sim_event event;
    enum what what;
    unsigned node, from;
    uint64_t boot; /* of node when it was made: a crash voids it */
    uint64_t link; /* generation of the link */
    uint64_t time;
    struct peer_header header;
    uint8_t *body;
    uint32_t body_bytes, data_bytes;
    struct sim_bytes *data;
    uint64_t data_offset;
    struct disk_write *disk;
    struct mirror_config config;
    uint8_t isr;
};

/* A block of a disk with a volatile cache: disk[] is what is seen, this what outlives the machine's power. */
struct disk_cache {
    uint32_t tag, stable; /* tag: as disk[] */
    uint64_t version, stable_version;
};

struct disk_write {
    struct disk_write *next;
    bool read, fua;
    struct disk_cache *snapshot; /* a flush: what it makes stable */
    struct mirror_effect digest; /* of a DISK_DIGEST, piece_bytes 0: none */
    uint64_t token, offset, length;
    enum block_operation operation;
    struct sim_bytes *data;
    uint64_t data_offset;
};

struct client_op {
    struct mirror_request request;
    struct client_op *next;
    bool read, flush;
    unsigned node;
    uint64_t boot, invoked;
    struct sim_bytes *data;
    uint32_t first, count, tag;
};

struct node {
    bool up, paused;
    uint64_t boot, machine, skew, tick_at, paused_at;
    struct mirror *mirror;
    struct replica *replica;
    uint32_t disk[BLOCKS];
    bool bad[BLOCKS]; /* cannot be read until it is written */
    struct disk_cache cache[BLOCKS];
    uint8_t *meta;
    struct disk_write *writing;
    struct metadata_page *meta_pages;
    unsigned meta_count;
    uint8_t *meta_whole; /* META_REPLACE under way */
    uint64_t meta_bytes, meta_whole_bytes;
    uint64_t room;       /* bytes of the data file */
    struct client_op *ops;
    struct mirror_config seen;
    struct sim_queue held; /* while paused */
    uint64_t last_heard; /* by the service */
};

struct cluster_link {
    bool up;
    uint64_t generation, last_at[2], down_at;
    bool cut;
};

extern struct sim_world world; /* its randomness and its violation; events are this test's own */
extern struct sim_data pool;
extern struct sim_history history;
extern struct node nodes[NODES];
extern struct cluster_link links[NODES + 1][NODES + 1]; /* [low][high] */
extern struct mirror_config committed;
extern uint64_t incarnations[NODES];
extern uint32_t next_tag;
extern bool calm;
extern bool write_back;   /* then power goes at one node at a time only, and nothing else fails until all is in sync again: */
extern bool convalescent; /* what is acknowledged must survive that also unflushed */
extern uint32_t bugs;
extern uint64_t patience_us; /* of the service */
extern unsigned done_reads, done_writes, failed_ops, promotions, crashes;
extern bool trace, verbose;

#define TRACE(...)                                          \
    do {                                                    \
        if (trace) {                                        \
            printf("%8.3f ms ", (double)world.now_us / 1000.0);      \
            printf(__VA_ARGS__);                            \
            printf("\n");                                   \
        }                                                   \
    } while (0)

#define LINK(a, b) links[(a) < (b) ? (a) : (b)][(a) < (b) ? (b) : (a)]

static inline uint64_t rnd(uint64_t below)
{
    return sim_random(&world, below);
}
static inline bool chance(unsigned percent_of_percent)
{
    return sim_chance(&world, percent_of_percent);
}

/* mirror_world.c */
struct happening *plan(uint64_t at, enum what what, unsigned node);
void wake(unsigned n);
void happening_free(struct happening *h);
uint64_t clock_of(unsigned n);
void link_break(unsigned a, unsigned b);
void link_make(unsigned a, unsigned b);
/* NULL: there is no link. */
struct happening *transmit(unsigned from, unsigned to, enum what what);
void disk_apply(struct node *node, const struct disk_write *d, uint32_t blocks);
void disk_free(struct disk_write *d);
/* Serving, all in sync, up and connected. */
bool healthy(void);
void step_mirror(unsigned n, struct mirror_event *event);
void step_replica(unsigned n, struct mirror_event *event);
void step_both(unsigned n, struct mirror_event *event);
void crash(unsigned n, bool power);
void start(unsigned n);

/* mirror_places.c */
extern unsigned replacements;
int place_of(unsigned n); /* of the committed configuration; -1: none */
bool node_in_sync(unsigned n);
uint8_t places_mask(void);
void place_empty(void);
void place_fill(unsigned n);
void policy_draw(void);
extern uint64_t size_wanted; /* the volume grows to, 0: not */
extern unsigned grows;
/* Part of the service's watch: begin to grow, have files made larger, commit. */
void grow_turn(void);
void grow_extend(unsigned n);
uint64_t room_needed(void);
void meta_replace(struct node *node, bool done);

/* mirror_chaos.c */
void config_spread(void);
void watch(void);
void asked(const struct happening *h);
void client_submit(unsigned n, bool read, uint32_t first, uint32_t count);
void client_flush(unsigned n);
void client_turn(void);
void chaos_turn(void);
void wear_turn(void);

/* mirror_durable.c: the end of a write-back run: I/O with flushes, then all power is lost. Whatever a flush covered is there. */
void durable_begin(void);
void durable_written(uint32_t block, uint32_t tag, uint64_t invoked);
void durable_flushed(uint64_t invoked);
void durable_check(uint32_t block, uint32_t tag);

/* mirror_cluster_test.c */
void happening_run(struct sim_world *unused, struct sim_event *event);
void happening_drop(struct sim_event *event);

#endif
