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

static const struct view_property volume_properties[] = {
    {.name = "name", .type = "string", .help = "Name of the volume."},
    {.name = "state", .type = "string", .help = "healthy, resyncing, degraded, failing over, or suspended."},
    {.name = "reason", .type = "string", .help = "Why it is not healthy."},
    {.name = "size", .type = "size", .help = "Size as initiators see it."},
    {.name = "replicas", .type = "number", .help = "Copies, each on a node of its own."},
    {.name = "owner", .type = "string", .help = "The node that serves it. Setting it moves the volume there, live.",
     .writable = true},
    {.name = "in_sync", .type = "string", .help = "Nodes whose replica holds every acknowledged write."},
    {.name = "export", .type = "string", .help = "Target and lun under which initiators reach it."},
    {.name = "block_size", .type = "number", .help = "Logical block size, 512 or 4096 bytes."},
    {.name = "epoch", .type = "number", .help = "Counts its owners since it was made."},
    {.name = "read_bytes", .type = "number", .help = "Read by initiators since its owner opened it."},
    {.name = "written_bytes", .type = "number", .help = "Written by initiators since its owner opened it."},
    {.name = "reads", .type = "number", .help = "Read requests since its owner opened it."},
    {.name = "writes", .type = "number", .help = "Write requests since its owner opened it."},
    {.name = "resynced_bytes", .type = "number", .help = "Copied to replicas that had missed writes, since its owner opened it."},
    {.name = "created", .type = "time", .help = "When it was made."},
    {.name = "id", .type = "number", .help = "Its number in the cluster, never used again."},
    {.name = "uuid", .type = "string", .help = "Its identity, of which the SCSI identity is made."},
    {0},
};

static const struct view_property replica_properties[] = {
    {.name = "node", .type = "string", .help = "The node it is on."},
    {.name = "state", .type = "string", .help = "in sync, syncing, out of sync, or offline."},
    {.name = "owner", .type = "bool", .help = "Its node serves the volume."},
    {.name = "store", .type = "string", .help = "The store of the node it is in."},
    {.name = "index", .type = "number", .help = "Its place in the volume's list of replicas."},
    {.name = "resync_done", .type = "size", .help = "Copied by the resync under way."},
    {.name = "resync_total", .type = "size", .help = "To be copied by the resync under way, all in all."},
    {.name = "resync_speed", .type = "size", .help = "Bytes a second of the resync under way."},
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

static const struct view_property *const properties[VIEW_KIND_COUNT] = {
    [VIEW_CLUSTER] = cluster_properties, [VIEW_NODE] = node_properties,       [VIEW_STORE] = store_properties,
    [VIEW_VOLUME] = volume_properties,   [VIEW_REPLICA] = replica_properties, [VIEW_TARGET] = target_properties,
    [VIEW_LUN] = lun_properties,         [VIEW_SESSION] = session_properties, [VIEW_PLUGIN] = plugin_properties,
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

const struct view_verb view_verbs[] = {
    {VIEW_VOLUMES, "create", "Make a volume.", false, volume_arguments},
    {VIEW_VOLUME, "export", "Let initiators reach it: make a target with it as a lun.", false, export_arguments},
    {VIEW_VOLUME, "unexport", "Take it away from initiators; the data stays.", true, none},
    {VIEW_VOLUME, "move", "Let another node serve it, live.", false, move_arguments},
    {VIEW_VOLUME, "delete", "Delete the volume and all its data.", true, none},
    {VIEW_NODE, "delete", "Take a node that holds no replica out of the cluster for good.", true, none},
    {VIEW_STORES, "create", "Let replicas live in a folder of this node.", false, store_arguments},
    {VIEW_STORE, "delete", "Do not use the store any more; it must hold no replica.", true, none},
    {VIEW_TARGETS, "create", "Make a target without luns.", false, target_arguments},
    {VIEW_TARGET, "delete", "Delete the target; it must have no luns.", true, none},
    {VIEW_LUNS, "create", "Give initiators a volume under a number.", false, lun_arguments},
    {VIEW_LUN, "delete", "Take the lun away from initiators; the volume and its data stay.", true, none},
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

const struct view_property *view_property_find(const struct view_property *list, const char *name)
{
    for (; list->name; list++)
        if (strcmp(list->name, name) == 0)
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
