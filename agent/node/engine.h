/* The I/O thread of a node: iSCSI target, mirrors, data links, on one libuv loop. The control thread tells it what the tree
 * says; it tells the control thread what it needs committed and how things stand. Both by mail: no locks, no shared state.
 *
 * Threads: every function here is called on the control thread and returns at once; every callback comes on the control
 * thread. What must hold whatever the control thread does (epochs, leases, seals) is enforced in the mirrors. */
#ifndef DIRECTOR_AGENT_NODE_ENGINE_H
#define DIRECTOR_AGENT_NODE_ENGINE_H

#include "agent/api/view.h"
#include "agent/core/tree.h"
#include "agent/io/peer_mesh.h"
#include "plugins/loader/loader.h"
#include "replication/core/mirror.h"
#include "target/core/target_types.h"
#include <uv.h>

struct engine;

/* A volume as the tree has it, and where this node's replica lies. */
struct engine_volume {
    struct tree_volume volume;
    int replica;                    /* ours: index, or -1 */
    uint64_t recorded;              /* incarnation of the files this node made last, 0: none. Missing or other files mean
                                       a blank or an old disk (I11). Without a replica: files to be deleted */
    char plugin[TREE_NAME_SIZE];    /* of the store */
    char store_path[TREE_PATH_SIZE];
};

/* A verify or scrub to be run while this node owns the volume; progress comes with the live figures. */
struct engine_check {
    uint64_t task; /* 0: none */
    enum mirror_check_kind kind;
    bool repair;
    uint64_t from; /* bytes that are through already */
    uint64_t mismatches, bad_blocks, repaired, unrepaired; /* found in these */
};

struct engine_callbacks {
    void *context;
    /* Commit VolumeIsr, see mirror_device.h. */
    void (*ask_isr)(void *context, uint64_t volume, uint64_t epoch, uint64_t version, uint32_t isr, const char *reason);
    /* Record durably that this node's replica has this incarnation, then engine_put_volume() with it: nothing is opened
     * before. Asked again every few seconds. */
    void (*replica_record)(void *context, uint64_t volume, uint64_t incarnation);
    /* The replica is a blank one, made in place of one that was recorded: commit VolumeIncarnation, when it is outside the
     * in-sync set. Asked again every few seconds until the volume has it. */
    void (*replica_blank)(void *context, uint64_t volume, uint32_t replica, uint64_t incarnation);
    /* Commit the SCSI reservations of a volume that this node owns in this epoch, in place of the version (I14), then
     * engine_put_volume() with them. bytes are read during the call. Asked again every second until then. */
    void (*reserve)(void *context, uint64_t volume, uint64_t epoch, uint64_t version, const uint8_t *bytes, uint32_t size);
    /* This node's data place has the size that the volume is to grow to: commit VolumeGrown. Told again every few seconds. */
    void (*replica_grown)(void *context, uint64_t volume, uint32_t replica, uint64_t size_bytes, uint64_t incarnation);
    /* The files of a volume that is gone are removed. */
    void (*replica_gone)(void *context, uint64_t volume);
    /* Figures of a volume that this node owns changed. */
    void (*live)(void *context, uint64_t volume, const struct api_live_volume *figures);
    /* Figures of this node's own replica changed. */
    void (*own)(void *context, uint64_t volume, const struct api_live_replica *figures);
};

struct engine_options {
    uv_loop_t *control_loop;
    const uint8_t *psk;               /* 32 bytes, copied */
    const struct peer_hello *hello;   /* copied */
    const char *address;              /* portals listen here; copied */
    bool portal;
    struct uuid node_uuid;
    uint64_t boot;
    const struct plugin_loader *plugins; /* complete; must outlive the engine */
    const char *faults_path;             /* fault injection (engine_fault.h), or NULL; must outlive the engine */
    struct engine_callbacks callbacks;
};

/* Start the thread. 0 or negative errno with words. */
MUST_CHECK int engine_new(const struct engine_options *options, struct engine **ret_engine, struct error *error);
/* Close everything in order; closed(context) on the control loop when the thread has ended. */
void engine_close(struct engine *engine, void (*closed)(void *context), void *context);

/* The mesh of the data channel, for peer_listener (peer_mesh_adopt() only). */
struct peer_mesh *engine_mesh(struct engine *engine);
void engine_set_hello(struct engine *engine, const struct peer_hello *hello);
/* This node has a nodeid: the target may serve. Again with another one after a dissolution. */
void engine_set_self(struct engine *engine, uint16_t nodeid);
MUST_CHECK int engine_set_peers(struct engine *engine, const struct peer_node *nodes, size_t count);
void engine_set_ports(struct engine *engine, const struct target_port *ports, unsigned count);
/* false: the tree of this node may be of the past, or corosync is gone: serve nothing (as owner), forward nothing. */
void engine_set_authority(struct engine *engine, bool authority);
/* true: this node takes no part for now, and others serve (agent/core/ring_rest.h): what it owned is closed, initiators are sent
 * to other paths. Without authority only. */
void engine_set_apart(struct engine *engine, bool apart);
/* The process with this boot id has certainly ended. */
void engine_node_dead(struct engine *engine, uint16_t nodeid, uint64_t boot);
/* A volume is as given, with its SCSI reservations (NULL: it never had any); replaces what was said before. Copied. */
void engine_put_volume(struct engine *engine, const struct engine_volume *volume, const struct tree_reservation *reservation);
/* What the volume's owner is to check now. The same task again changes nothing. */
void engine_set_check(struct engine *engine, uint64_t volume, const struct engine_check *check);
/* It is gone: close it and remove this node's replica from its store. */
void engine_remove_volume(struct engine *engine, uint64_t volume);
/* Remove the files of a volume that went while this node was away: id, uuid, plugin and store_path say which. */
void engine_discard_volume(struct engine *engine, const struct engine_volume *volume);
/* A target and all its LUNs. */
void engine_put_target(struct engine *engine, const struct tree_target *target);
void engine_remove_target(struct engine *engine, const char *iqn);
/* All other targets than the tree's are gone: after the tree was replaced. */
void engine_keep_targets(struct engine *engine, const struct tree *tree);

#endif
