/* Shared by engine.c (thread, mail, links, target) and engine_volume.c (one volume's life). I/O thread. */
#ifndef DIRECTOR_AGENT_NODE_ENGINE_INTERNAL_H
#define DIRECTOR_AGENT_NODE_ENGINE_INTERNAL_H

#include "agent/node/engine.h"
#include "agent/node/engine_fault.h"
#include "director/base/mailbox.h"
#include "replication/io/mirror_device.h"
#include "replication/io/mirror_pulse.h"
#include "target/io/target_server.h"

#define ENGINE_LIVE_MS       250u
#define ENGINE_BUCKETS       1024u
#define ENGINE_LISTEN_MS     2000u
#define ENGINE_FAULT_MS      50u
#define ENGINE_VOLUME_ANSWER 1u /* flag of VOLUME_UP: say the same of yours */

struct engine_iqn {
    struct list link;
    char iqn[TREE_IQN_SIZE];
    uint64_t luns[TREE_LUNS_MAX]; /* volume id, 0: none */
};

/* A node with a data link. */
struct engine_link {
    uint16_t nodeid;
    uint64_t boot;
};

enum engine_volume_phase {
    ENGINE_VOLUME_IDLE,    /* no replica here, or not yet looked at */
    ENGINE_VOLUME_MAKING,  /* a worker makes or checks its files */
    ENGINE_VOLUME_RECORDING, /* the control thread records their incarnation; asked again after a while */
    ENGINE_VOLUME_OPEN,    /* the mirror device lives */
    ENGINE_VOLUME_SHUTTING, /* the device closes; what is committed now comes next */
    ENGINE_VOLUME_DELETING, /* a worker deletes the files of a replica that was removed */
    ENGINE_VOLUME_FAILED,  /* tried again after a while */
    ENGINE_VOLUME_CLOSING,
};

struct engine_unit {
    struct list link;
    struct list by_id; /* in engine->buckets */
    struct engine *engine;
    struct engine_volume config;
    bool removed;         /* close, then delete its files */
    bool in_target;       /* the target knows the LU */
    uint8_t *reservations; /* as committed last, for the target: kept until it knows the LU */
    uint32_t reservations_bytes;
    uint64_t reservations_version;
    enum engine_volume_phase phase;
    uint64_t retry_ms;
    struct mirror_device *device;
    uint64_t incarnation; /* of the device's replica */
    struct block_device *data; /* the device's, under it */
    bool growing;         /* a worker makes the data place larger */
    uint64_t grow_ms;     /* when that, or telling of it, is due again */
    uint64_t target_bytes; /* size that the target knows */
    struct engine_fault_stack faults; /* on the data device, for tests */
    uint64_t wanted;      /* RECORDING: what config.recorded will be */
    uint64_t granted;     /* incarnation of a blank replica that was recorded and may be made */
    uint64_t blank_ms;    /* when the control thread was told of it last */
    int place;            /* index of the device's replica */
    uint16_t linked[TREE_NODES_MAX]; /* nodes whose device of this volume is open and linked */
    unsigned linked_count;
    struct api_live_volume live;
    struct api_live_replica own;
    struct engine_check check; /* wanted: with what was found before it was started last */
    bool check_started;
    struct mirror_check_status check_now; /* since then */
    uint64_t rate_bytes, rate_ms;
    char words[160];
    /* The worker's. */
    uv_work_t work;
    struct engine_volume work_config;
    int work_status;
    uint64_t work_granted;
    uint64_t work_record; /* not 0: to be recorded before anything else */
    bool work_blank;      /* and then to be made */
    uint64_t work_incarnation; /* of the files that are there and good */
    struct error work_error;
    char data_path[TREE_PATH_SIZE + 64], metadata_path[TREE_PATH_SIZE + 64];
};

struct engine {
    struct engine_options options;
    uint8_t psk[32];
    char address[64];
    uv_thread_t thread;
    uv_loop_t loop;
    struct mailbox inbox;   /* I/O thread */
    struct mailbox outbox;  /* control thread */
    uv_sem_t started;
    struct peer_mesh *mesh;
    struct target_server *target;
    uint16_t nodeid;
    bool authority;
    bool apart;
    bool closing;
    unsigned open_parts;    /* while closing */
    struct list units;      /* struct engine_unit */
    struct list buckets[ENGINE_BUCKETS]; /* the same by volume id */
    struct mirror_pulses *pulses;
    struct list iqns;
    struct target_port ports[TARGET_PORTS_MAX];
    unsigned port_count;
    struct engine_link links[TREE_NODES_MAX];
    unsigned link_count;
    bool listening;
    uint64_t listen_ms;     /* when listening is tried again */
    uv_timer_t timer;
    struct engine_faults faults;
    uv_timer_t fault_timer; /* only with fault injection */
    void (*closed)(void *context);
    void *closed_context;
};

static inline struct list *engine_bucket(struct engine *engine, uint64_t volume)
{
    return &engine->buckets[volume % ENGINE_BUCKETS]; /* ids are counted up */
}
struct engine_unit *engine_unit_find(struct engine *engine, uint64_t volume);
/* A unit's config, authority or device changed: open, configure, tell the target. */
void engine_unit_update(struct engine_unit *unit);
bool engine_unit_linked(const struct engine_unit *unit, uint16_t nodeid);
void engine_unit_link_up(struct engine_unit *unit, const struct engine_link *link);
void engine_unit_link_down(struct engine_unit *unit, uint16_t nodeid);
/* Send VOLUME_UP to one node, or to all linked ones (nodeid 0); ask for the same in return. */
void engine_unit_announce(struct engine_unit *unit, uint16_t nodeid, bool ask);
void engine_unit_close(struct engine_unit *unit);
/* The node is apart: close what it owned; it is opened again with the next authority. */
void engine_unit_part(struct engine_unit *unit);
/* Delete the files of a volume of which there is no unit. */
void engine_unit_discard(struct engine *engine, const struct engine_volume *volume);
void engine_unit_tick(struct engine_unit *unit, uint64_t now_ms);
/* engine_files.c. Paths and plugin of work_config; workers for unit->work. */
void engine_files_paths(struct engine_unit *unit);
const struct director_plugin *engine_files_plugin(struct engine_unit *unit, struct error *error);
uint64_t engine_files_wanted(const struct tree_volume *volume);
/* engine_grow.c. Make the data place larger, and tell of it, when that is due. */
void engine_grow_tick(struct engine_unit *unit, uint64_t now_ms);
/* Look at the files, make them when that is due. What comes out of it is said at the top of engine_files.c. */
void engine_files_make(uv_work_t *work);
void engine_files_delete(uv_work_t *work);
/* engine_live.c. Figures and checks, at each tick; another check is wanted, or none. */
void engine_live_tick(struct engine_unit *unit, uint64_t now_ms);
void engine_unit_check(struct engine_unit *unit, const struct engine_check *check);
/* Mail to the control thread. */
void engine_tell_ask_isr(struct engine *engine, uint64_t volume, uint64_t epoch, uint64_t version, uint32_t isr,
                         const char *reason);
void engine_tell_record(struct engine *engine, uint64_t volume, uint64_t incarnation);
void engine_tell_grown(struct engine *engine, uint64_t volume, uint32_t replica, uint64_t size_bytes, uint64_t incarnation);
void engine_tell_gone(struct engine *engine, uint64_t volume);
void engine_tell_blank(struct engine *engine, uint64_t volume, uint32_t replica, uint64_t incarnation);
void engine_tell_own(struct engine *engine, uint64_t volume, const struct api_live_replica *figures);
void engine_tell_live(struct engine *engine, uint64_t volume, const struct api_live_volume *figures);
/* One part that was open while closing is gone. */
void engine_part_closed(struct engine *engine);

#endif
