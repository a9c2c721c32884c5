/* corosync.conf and corosync's key file, written from our own committed node list.
 * corosync never decides anything for us: votequorum is configured plainly and not asked. Pure but for the *_write(). */
#ifndef DIRECTOR_AGENT_IO_COROSYNC_CONFIG_H
#define DIRECTOR_AGENT_IO_COROSYNC_CONFIG_H

#include "agent/io/key.h"
#include "director/base/error.h"
#include "director/base/uuid.h"

#define COROSYNC_NODES_MAX   64
#define COROSYNC_NAME_SIZE   64 /* with the closing NUL */
#define COROSYNC_TEXT_SIZE   16384 /* enough for COROSYNC_NODES_MAX nodes */
#define COROSYNC_PORT        5405

struct corosync_node {
    uint32_t nodeid;                   /* 1..65535 */
    char name[COROSYNC_NAME_SIZE];     /* [A-Za-z0-9._-]+ */
    char address[COROSYNC_NAME_SIZE];  /* IPv4 or IPv6 literal; all of one family */
};

struct corosync_config {
    struct uuid cluster;       /* becomes the cluster name: rings of two clusters never mix */
    const struct corosync_node *nodes;
    size_t node_count;         /* 1..COROSYNC_NODES_MAX */
    const char *keyfile;       /* absolute paths without white space */
    const char *state_dir;
    const char *logfile;
    uint16_t port;             /* 0: COROSYNC_PORT */
    /* 0 means the default in brackets. Detection of a dead node takes token + 1.2 token + about 20 ms. */
    uint32_t token_ms;         /* [300] */
    uint32_t ping_interval_ms; /* [200] */
    uint32_t ping_timeout_ms;  /* [1000] */
    uint32_t pong_count;       /* [2] */
};

/* Write the text of corosync.conf to text (size bytes, NUL-terminated); nodes are written in order of nodeid, so that
 * the same list gives the same bytes. Length, or -EINVAL (what is wrong: error), -ENOSPC. */
MUST_CHECK int corosync_config_render(const struct corosync_config *config, char *text, size_t size,
                                      struct error *error);
/* Render and replace the file at path atomically (temporary file in the same folder, fsync, rename, fsync of the
 * folder), mode 0600; creates state_dir. 0, 1 when the file already had these bytes and was left, or negative errno. */
MUST_CHECK int corosync_config_write(const struct corosync_config *config, const char *path, struct error *error);

/* Write corosync's key of this cluster (key_corosync()) to path, mode 0600, atomically. 0, 1 when it was already there,
 * or negative errno. */
MUST_CHECK int corosync_key_write(const struct cluster_key *key, const struct uuid *cluster, const char *path,
                                  struct error *error);

#endif
