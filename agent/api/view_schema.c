/* Every property and verb, with type, default and help: what GET fills, DESCRIBE tells and changes are checked against. */
#include "agent/api/view_internal.h"

#include <string.h>

static const struct {
    const char *word, *help;
} kinds[VIEW_KIND_COUNT] = {
    [VIEW_CLUSTER] = {"cluster", "The cluster."},
    [VIEW_NODES] = {"folder", "The nodes of the cluster. They join by themselves when they hold its key."},
    [VIEW_NODE] = {"node", "One server of the cluster."},
    [VIEW_STORES] = {"folder", "Where replicas may live on this node."},
    [VIEW_STORE] = {"store", "A place on a node in which replicas of volumes live."},
    [VIEW_VOLUMES] = {"folder", "The volumes: mirrored block storage."},
    [VIEW_VOLUME] = {"volume", "Block storage, mirrored over nodes, served by one of them at a time."},
    [VIEW_REPLICAS] = {"folder", "The copies of the volume, one a node."},
    [VIEW_REPLICA] = {"replica", "The copy of a volume on one node."},
    [VIEW_TARGETS] = {"folder", "The iSCSI targets. Every node serves every target."},
    [VIEW_TARGET] = {"target", "A name under which initiators find luns."},
    [VIEW_LUNS] = {"folder", "The luns of the target."},
    [VIEW_LUN] = {"lun", "A volume under a number of the target."},
    [VIEW_SESSIONS] = {"folder", "The initiators that are logged in."},
    [VIEW_SESSION] = {"session", "An initiator that is logged in."},
    [VIEW_PLUGINS] = {"folder", "What is loaded."},
    [VIEW_PLUGIN] = {"plugin", "A loaded module: a kind of store, or a filter."},
    [VIEW_TASKS] = {"folder", "Work under way, and how the last that ended went. A failover does not stop it."},
    [VIEW_TASK] = {"task", "Work on a volume: a resync, a move, growing, a verify or a scrub."},
    [VIEW_EVENTS] = {"folder", "What happened lately, the same on every node. Forced volumes, discarded replicas and deletions stay longest."},
    [VIEW_EVENT] = {"event", "Something that happened."},
};

static const struct view_property none[] = {{0}};

static const struct view_property cluster_properties[] = {
    {.name = "name", .type = "string", .help = "Name of the cluster, part of its targets' names."},
    {.name = "state", .type = "string", .help = "healthy, degraded, or not quorate."},
    {.name = "quorate", .type = "bool", .help = "A majority of the voting nodes is together, so changes can be made."},
    {.name = "leader", .type = "string", .help = "The node that orders changes now."},
    {.name = "nodes", .type = "number", .help = "Nodes of the cluster."},
    {.name = "nodes_online", .type = "number", .help = "Nodes that are up."},
    {.name = "voters", .type = "number", .help = "Nodes whose majority decides."},
    {.name = "volumes", .type = "number", .help = "Volumes."},
    {.name = "targets", .type = "number", .help = "iSCSI targets."},
    {.name = "profile", .type = "string", .writable = true, .default_text = "fast",
     .help = "fast: a node without power is noticed in 0.7 s (token 300 ms), one that hangs in 1.5 s; steady: in 2.2 s (token 1000 ms) and "
             "4 s, for nodes or networks that others keep busy."},
    {.name = "uuid", .type = "string", .help = "Identity of the cluster."},
    {0},
};

static const struct view_property node_properties[] = {
    {.name = "name", .type = "string", .help = "Name of the node."},
    {.name = "state", .type = "string", .help = "online or offline, as the cluster sees it."},
    {.name = "address", .type = "string", .help = "Where it listens for its peers and for initiators."},
    {.name = "id", .type = "number", .help = "Its number in the cluster."},
    {.name = "voter", .type = "bool", .help = "It counts for the majority; a newcomer does once it has caught up."},
    {.name = "volumes_owned", .type = "number", .help = "Volumes it serves now."},
    {.name = "replicas", .type = "number", .help = "Replicas in its stores."},
    {.name = "software", .type = "string", .help = "Version of its directord."},
    {.name = "uuid", .type = "string", .help = "Identity of the node, made at its first start."},
    {0},
};

static const struct view_property store_properties[] = {
    {.name = "name", .type = "string", .help = "Name of the store on its node."},
    {.name = "plugin", .type = "string", .help = "The kind of store."},
    {.name = "path", .type = "string", .help = "Folder or device on the node."},
    {.name = "capacity", .type = "size", .help = "What it may hold."},
    {.name = "allocated", .type = "size", .help = "What its replicas may grow to."},
    {.name = "free", .type = "size", .help = "Capacity not yet given to replicas."},
    {.name = "replicas", .type = "number", .help = "Replicas in it."},
    {.name = "space_total", .type = "size", .help = "Size of the file system below it, as last measured."},
    {.name = "space_free", .type = "size", .help = "Free bytes of the file system below it, as last measured."},
    {0},
};

/* The policy of a volume, at create and later. */
#define POLICY_PROPERTIES(can_set)                                                                                            \
    {.name = "cache", .type = "string", .default_text = "write-through", .writable = can_set,                                  \
     .help = "write-through: a write is on every disk when it is acknowledged; write-back: in every cache, on disk at a flush."}, \
    {.name = "reads", .type = "string", .default_text = "lease", .writable = can_set,                                          \
     .help = "lease: the owner answers under its lease; verified: after a peer confirmed it, for nodes that a hypervisor may pause."}, \
    {.name = "slow", .type = "string", .default_text = "5s", .writable = can_set,                                              \
     .help = "A replica that keeps a write waiting so long leaves the in-sync set, 500ms to 60s."},                            \
    {.name = "in_sync_min", .type = "number", .default_text = "1", .writable = can_set,                                        \
     .help = "A slow replica stays when fewer than this would be left in sync, 1 to 4."},                                      \
    {.name = "resync_floor", .type = "size", .default_text = "4M", .writable = can_set,                                        \
     .help = "Bytes a second that a resync gets however busy the volume is; 0: the default."},                                 \
    {.name = "resync_cap", .type = "size", .default_text = "0", .writable = can_set,                                           \
     .help = "Bytes a second that a resync never exceeds; 0: no cap."}

static const struct view_property volume_properties[] = {
    {.name = "name", .type = "string", .help = "Name of the volume."},
    {.name = "state", .type = "string", .help = "healthy, resyncing, degraded, failing over, or suspended."},
    {.name = "reason", .type = "string", .help = "Why it is not healthy."},
    {.name = "size", .type = "size", .help = "Size as initiators see it. Setting it to more makes the volume grow, live.",
     .writable = true},
    {.name = "growing_to", .type = "size", .help = "The size it gets when every replica in sync has room for it."},
    {.name = "replicas", .type = "number", .help = "Copies, each on a node of its own; see add-replica."},
    {.name = "owner", .type = "string", .help = "The node that serves it. Setting it moves the volume there, live.",
     .writable = true},
    {.name = "in_sync", .type = "string", .help = "Nodes whose replica holds every acknowledged write."},
    {.name = "export", .type = "string", .help = "Target and lun under which initiators reach it."},
    {.name = "block_size", .type = "number", .help = "Logical block size, 512 or 4096 bytes."},
    POLICY_PROPERTIES(true),
    {.name = "checksum", .type = "string", .help = "on: each block has a checksum in every replica, so that rot is found and repaired. Given "
     "when the volume is made."},
    {.name = "epoch", .type = "number", .help = "Counts its owners since it was made."},
    {.name = "read_bytes", .type = "number", .help = "Read by initiators since its owner opened it."},
    {.name = "written_bytes", .type = "number", .help = "Written by initiators since its owner opened it."},
    {.name = "read_requests", .type = "number", .help = "Read requests since its owner opened it."},
    {.name = "write_requests", .type = "number", .help = "Write requests since its owner opened it."},
    {.name = "resynced_bytes", .type = "number", .help = "Copied to replicas that had missed writes, since its owner opened it."},
    {.name = "repaired_blocks", .type = "number", .help = "Blocks of 4K rewritten from a good replica, since its owner opened it."},
    {.name = "created", .type = "time", .help = "When it was made."},
    {.name = "id", .type = "number", .help = "Its number in the cluster, never used again."},
    {.name = "uuid", .type = "string", .help = "Its identity, of which the SCSI identity is made."},
    {0},
};

static const struct view_property replica_properties[] = {
    {.name = "node", .type = "string", .help = "The node it is on."},
    {.name = "state", .type = "string", .help = "in sync, syncing, out of sync, held, or offline."},
    {.name = "owner", .type = "bool", .help = "Its node serves the volume."},
    {.name = "store", .type = "string", .help = "The store of the node it is in."},
    {.name = "index", .type = "number", .help = "Its place in the volume's list of replicas."},
    {.name = "resync_done", .type = "size", .help = "Copied by the resync under way."},
    {.name = "resync_total", .type = "size", .help = "To be copied by the resync under way, all in all."},
    {.name = "resync_speed", .type = "size", .help = "Bytes a second of the resync under way."},
    {.name = "resync_sent", .type = "size", .help = "Of what is copied: sent as data; equal pieces and zeroes are not."},
    {.name = "resync_seconds_left", .type = "number", .help = "Estimate for the resync under way."},
    {.name = "dirty", .type = "size", .help = "Known to differ from the volume, in whole regions."},
    {.name = "intent_marks", .type = "number", .help = "Regions with writes that may be under way; 0 a few seconds after the last one."},
    {.name = "carry_marks", .type = "number", .help = "Regions that were being written when it stopped last, not yet reconciled."},
    {.name = "read_errors", .type = "number", .help = "Reads of it that failed and were answered by another, since the owner opened it."},
    {.name = "repaired_blocks", .type = "number", .help = "Blocks of 4K of it rewritten from a good replica, since the owner opened it."},
    {.name = "checksum_errors", .type = "number", .help = "Blocks of it whose checksum was wrong, since its node opened it."},
    {.name = "out_since", .type = "time", .help = "When it left the in-sync set last; nothing while it is in it, or if it never was."},
    {.name = "held", .type = "bool", .help = "Its files are from before the volume was forced to another; discard makes it anew."},
    {.name = "incarnation", .type = "string", .help = "Tells this replica from an older one on the same node."},
    {0},
};

static const struct view_property target_properties[] = {
    {.name = "iqn", .type = "string", .help = "Name by which initiators log in (RFC 7143)."},
    {.name = "luns", .type = "number", .help = "Luns."},
    {.name = "sessions", .type = "number", .help = "Initiators logged in."},
    {.name = "portals", .type = "string", .help = "Where initiators can connect: every node."},
    {0},
};

static const struct view_property lun_properties[] = {
    {.name = "lun", .type = "number", .help = "Its number in the target."},
    {.name = "volume", .type = "string", .help = "The volume behind it."},
    {.name = "size", .type = "size", .help = "Size of the volume."},
    {.name = "state", .type = "string", .help = "State of the volume."},
    {0},
};

static const struct view_property session_properties[] = {
    {.name = "initiator", .type = "string", .help = "Name of the initiator."},
    {.name = "address", .type = "string", .help = "Where it comes from."},
    {.name = "node", .type = "string", .help = "The node whose portal it uses."},
    {0},
};

static const struct view_property plugin_properties[] = {
    {.name = "name", .type = "string", .help = "Name of the plugin."},
    {.name = "kind", .type = "string", .help = "backstore or filter."},
    {.name = "version", .type = "string", .help = "Its version."},
    {.name = "summary", .type = "string", .help = "What it does."},
    {0},
};

static const struct view_property task_properties[] = {
    {.name = "kind", .type = "string", .help = "resync, move, grow, verify or scrub."},
    {.name = "state", .type = "string", .help = "running, waiting, done, failed or cancelled."},
    {.name = "reason", .type = "string", .help = "What it waits for, what it found first, or why it ended."},
    {.name = "volume", .type = "string", .help = "The volume it works on."},
    {.name = "from", .type = "string", .help = "Move: the node whose replica goes."},
    {.name = "to", .type = "string", .help = "Move and resync: the node that is copied to."},
    {.name = "percent", .type = "number", .help = "How far it is."},
    {.name = "done", .type = "size", .help = "Bytes done."},
    {.name = "total", .type = "size", .help = "Bytes to do, all in all."},
    {.name = "speed", .type = "size", .help = "Bytes a second, lately."},
    {.name = "seconds_left", .type = "number", .help = "Estimate."},
    {.name = "repair", .type = "bool", .help = "Verify and scrub: what is bad is rewritten from a good replica."},
    {.name = "mismatches", .type = "number", .help = "Verify: blocks of 4K that differ between replicas."},
    {.name = "bad_blocks", .type = "number", .help = "Blocks of 4K that could not be read, or whose checksum was wrong."},
    {.name = "repaired", .type = "number", .help = "Of these, rewritten and equal now."},
    {.name = "unrepaired", .type = "number", .help = "Of these, not to be repaired: no good copy, or the disk failed."},
    {.name = "started", .type = "time", .help = "When it was asked for."},
    {.name = "ended", .type = "time", .help = "When it ended."},
    {.name = "by", .type = "string", .help = "The user who asked for it."},
    {0},
};

static const struct view_property event_properties[] = {
    {.name = "time", .type = "time", .help = "When, by the clock of the node it came from."},
    {.name = "what", .type = "string", .help = "What happened."},
    {.name = "object", .type = "string", .help = "Name of the volume, node or target it is about."},
    {.name = "why", .type = "string", .help = "The reason given, by the cluster or by whoever asked for it."},
    {.name = "by", .type = "string", .help = "The user who asked for it; the cluster itself if there is none."},
    {.name = "at", .type = "string", .help = "The node it came from."},
    {0},
};

static const struct view_property *const properties[VIEW_KIND_COUNT] = {
    [VIEW_CLUSTER] = cluster_properties, [VIEW_NODE] = node_properties,       [VIEW_STORE] = store_properties,
    [VIEW_VOLUME] = volume_properties,   [VIEW_REPLICA] = replica_properties, [VIEW_TARGET] = target_properties,
    [VIEW_LUN] = lun_properties,         [VIEW_SESSION] = session_properties, [VIEW_PLUGIN] = plugin_properties,
    [VIEW_TASK] = task_properties,       [VIEW_EVENT] = event_properties,
};

static const struct view_property volume_arguments[] = {
    {.name = "name", .type = "string", .help = "Lower-case letters, digits, dot, dash and underscore; 1 to 63 of them.",
     .required = true},
    {.name = "size", .type = "size", .help = "1M to 64T, a multiple of 4K, for example 10G.", .required = true},
    {.name = "replicas", .type = "number", .help = "Copies, 1 to 4, each on a node of its own (1 in a cluster of one node).",
     .default_text = "2"},
    {.name = "block_size", .type = "number", .help = "Logical block size: 512 or 4096 bytes.", .default_text = "512"},
    {.name = "nodes", .type = "string", .help = "Nodes to place it on, with commas; else where most room is."},
    {.name = "store", .type = "string", .help = "Name of the store on each node; else the one with most room."},
    POLICY_PROPERTIES(false),
    {.name = "checksum", .type = "string", .help = "on: each block has a checksum in every replica, so that rot is found and repaired; for good.",
     .default_text = "on"},
    {0},
};

static const struct view_property store_arguments[] = {
    {.name = "name", .type = "string", .help = "Name of the store on its node.", .required = true},
    {.name = "path", .type = "string", .help = "Absolute path of a folder on the node.", .required = true},
    {.name = "capacity", .type = "size", .help = "What it may hold, for example 500G.", .required = true},
    {.name = "plugin", .type = "string", .help = "The kind of store.", .default_text = "file"},
    {0},
};

static const struct view_property target_arguments[] = {
    {.name = "name", .type = "string", .help = "An iqn. name, for example iqn.2026-01.org.example:disk1.", .required = true},
    {0},
};

static const struct view_property lun_arguments[] = {
    {.name = "name", .type = "number", .help = "Number of the lun, 0 to 255.", .required = true},
    {.name = "volume", .type = "string", .help = "The volume behind it.", .required = true},
    {0},
};

static const struct view_property export_arguments[] = {
    {.name = "target", .type = "string", .help = "Target to export it by; made when it is not there.",
     .default_text = VIEW_TARGET_PREFIX "<cluster>:<volume>"},
    {.name = "lun", .type = "number", .help = "Number of the lun; else the lowest free one."},
    {0},
};

static const struct view_property move_arguments[] = {
    {.name = "owner", .type = "string", .help = "The node to serve it from now on; its replica must be in sync.",
     .required = true},
    {0},
};

static const struct view_property add_replica_arguments[] = {
    {.name = "node", .type = "string", .help = "The node to place it on; else where most room is."},
    {.name = "store", .type = "string", .help = "Name of the store there; else the one with most room."},
    {0},
};

static const struct view_property remove_replica_arguments[] = {
    {.name = "node", .type = "string", .help = "The node whose replica goes, with its files.", .required = true},
    {0},
};

static const struct view_property move_replica_arguments[] = {
    {.name = "from", .type = "string", .help = "The node whose replica goes when the new one is in sync.", .required = true},
    {.name = "to", .type = "string", .help = "The node that gets one.", .required = true},
    {.name = "store", .type = "string", .help = "Name of the store there; else the one with most room."},
    {0},
};

static const struct view_property verify_arguments[] = {
    {.name = "repair", .type = "bool", .default_text = "no",
     .help = "Rewrite blocks that differ as the majority of the replicas has them; without one, as the owner has them."},
    {0},
};

static const struct view_property scrub_arguments[] = {
    {.name = "repair", .type = "bool", .help = "Rewrite bad blocks from a good replica.", .default_text = "no"},
    {0},
};

#define PREVIEW {.name = "preview", .type = "bool", .help = "Only say what would be lost.", .default_text = "no"}

static const struct view_property force_arguments[] = {
    {.name = "node", .type = "string", .help = "The node whose replica becomes the volume, as it is.", .required = true},
    {.name = "reason", .type = "string", .help = "Why; kept in /events with who and when.", .required = true},
    PREVIEW,
    {0},
};

static const struct view_property discard_arguments[] = {
    {.name = "node", .type = "string", .help = "The node whose replica is thrown away and made anew.", .required = true},
    {.name = "reason", .type = "string", .help = "Why; kept in /events with who and when.", .required = true},
    PREVIEW,
    {0},
};

const struct view_verb view_verbs[] = {
    {VIEW_VOLUMES, "create", "Make a volume.", false, volume_arguments},
    {VIEW_VOLUME, "export", "Let initiators reach it: make a target with it as a lun.", false, export_arguments},
    {VIEW_VOLUME, "unexport", "Take it away from initiators; the data stays.", true, none},
    {VIEW_VOLUME, "move", "Let another node serve it, live.", false, move_arguments},
    {VIEW_VOLUME, "add-replica", "Give it one more replica, live.", false, add_replica_arguments},
    {VIEW_VOLUME, "remove-replica", "Take a replica away, with its files; another serves when it has to.", true, remove_replica_arguments},
    {VIEW_VOLUME, "move-replica", "Move a replica to another node, live.", false, move_replica_arguments},
    {VIEW_VOLUME, "verify", "Compare its replicas, live.", false, verify_arguments},
    {VIEW_VOLUME, "scrub", "Read all replicas and check their checksums, live.", false, scrub_arguments},
    {VIEW_VOLUME, "force", "Last resort: go on with a replica that lacks writes. What it lacks is lost.", true, force_arguments},
    {VIEW_VOLUME, "discard", "Last resort: throw a replica's files away and copy it anew.", true, discard_arguments},
    {VIEW_VOLUME, "delete", "Delete the volume and all its data.", true, none},
    {VIEW_NODE, "delete", "Take a node that holds no replica out of the cluster for good.", true, none},
    {VIEW_STORES, "create", "Let replicas live in a folder of this node.", false, store_arguments},
    {VIEW_STORE, "delete", "Do not use the store any more; it must hold no replica.", true, none},
    {VIEW_TARGETS, "create", "Make a target without luns.", false, target_arguments},
    {VIEW_TARGET, "delete", "Delete the target; it must have no luns.", true, none},
    {VIEW_LUNS, "create", "Give initiators a volume under a number.", false, lun_arguments},
    {VIEW_LUN, "delete", "Take the lun away from initiators; the volume and its data stay.", true, none},
    {VIEW_TASK, "cancel", "Stop it. A move's new replica goes again, growing stays at the present size.", false, none},
    {0},
};

const char *view_kind_word(enum view_kind kind)
{
    return kinds[kind].word;
}

const char *view_kind_help(enum view_kind kind)
{
    return kinds[kind].help;
}

const struct view_property *view_properties(enum view_kind kind)
{
    return properties[kind] ? properties[kind] : none;
}

bool view_name_equal(const char *a, const char *b)
{
    while (*a && (*a == *b || ((*a == '-' || *a == '_') && (*b == '-' || *b == '_')))) {
        a++;
        b++;
    }
    return *a == *b;
}

const struct view_property *view_property_find(const struct view_property *list, const char *name)
{
    for (; list->name; list++)
        if (view_name_equal(list->name, name))
            return list;
    return NULL;
}

const struct view_verb *view_verb_find(enum view_kind kind, const char *word)
{
    for (const struct view_verb *verb = view_verbs; verb->word; verb++)
        if (verb->kind == kind && strcmp(verb->word, word) == 0)
            return verb;
    return NULL;
}
