/* What directord is told on its command line. There is no configuration file: everything else is in the tree. */
#ifndef DIRECTOR_AGENT_NODE_OPTIONS_H
#define DIRECTOR_AGENT_NODE_OPTIONS_H

#include "director/base/common.h"
#include <stdbool.h>

struct options {
    const char *key_path;       /* cluster key file */
    const char *state_path;     /* durable state of this node */
    const char *run_path;       /* sockets, corosync.conf, pid files */
    const char *store_path;     /* folder of the default store, NULL: <state>/store */
    const char *plugins_path;   /* folder of the plugins */
    const char *discovery_path; /* the discovery helper, NULL: beside this program or in the library folder */
    const char *name;           /* node name */
    const char *interface;      /* NULL: the first that is up, not loopback, and has an IPv4 address */
    const char *seeds;          /* comma-separated addresses to try besides mDNS, or NULL */
    const char *generate_key;   /* write a new key file here and exit */
    const char *faults_path;    /* fault injection for tests, see engine_fault.h, or NULL */
    bool portal;                /* serve iSCSI on this node */
    uint64_t capacity_bytes;    /* of the default store; 0: what the file system has */
};

/* Parse argv into ret_options (texts point into argv or static storage; name and paths may be allocated once for the
 * life of the process). 0: go on; 1: done (help, version), exit with 0; -EINVAL: words were printed, exit with 2. */
MUST_CHECK int options_parse(int argc, char **argv, struct options *ret_options);

#endif
