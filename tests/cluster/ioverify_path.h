/* One path of a multipath initiator: one iSCSI session to one portal, kept up in the background.
 *
 *     DOWN -> CONNECTING (TCP, login) -> PROBING (TEST UNIT READY, identity, capacity, port group state) -> READY
 *       ^------------- any failure: the session is thrown away, commands under way come back by lost() ----------'
 *
 * A path fails when its connection breaks, when the target says nothing at all for timeout_ms while something is owed (a
 * NOP-Out is sent half way, so a target that merely holds a command is not taken for dead), or when one command is unanswered
 * for command_timeout_ms. The next session of a path has the same ISID, so logging in reinstates it, and the target
 * must have ended what was left of the one before (RFC 7143 §6.3.5). */
#ifndef TESTS_CLUSTER_IOVERIFY_PATH_H
#define TESTS_CLUSTER_IOVERIFY_PATH_H

#include "director/base/list.h"
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

struct path;
struct path_io;

enum path_outcome {
    PATH_GOOD,
    PATH_RETRY, /* busy, not ready, aborted, unit attention: send again after delay_ms */
    PATH_HARD,  /* a medium error or the like */
};

struct path_settings {
    const char *target, *initiator;
    int lun;
    uint32_t isid;
    uint64_t timeout_ms, command_timeout_ms;
    bool verbose;
    void (*answered)(struct path_io *io, enum path_outcome outcome, uint64_t delay_ms, const char *words);
    void (*lost)(struct path_io *io); /* the path failed: the outcome is unknown, send it elsewhere */
    void (*logged_in)(struct path *path);
};

/* Embedded in what the caller sends. */
struct path_io {
    struct list link;
    struct path *path;
    struct scsi_task *task;
    uint64_t sent_ms;
    bool probe;
};

enum path_state { PATH_DOWN, PATH_CONNECTING, PATH_PROBING, PATH_READY };

struct path {
    const struct path_settings *settings;
    const char *portal;
    unsigned index;
    enum path_state state;
    struct iscsi_context *iscsi;
    bool failed; /* to be torn down by the next path_tick */
    bool tearing;
    char why[200];
    uint64_t started_ms, next_try_ms, heard_ms, probe_at_ms, avoid_until_ms;
    struct list under_way; /* path_io */
    struct path_io probe;
    bool probing, ping_under_way;
    unsigned probe_step;
    unsigned group; /* target port group of this port; 0 unknown */
    unsigned access_state; /* SPC-4 table 248: 0 active/optimized, 1 active/non-optimized, 2 standby, 3 unavailable, 15 transitioning */
    uint64_t size_bytes;
    uint32_t block_bytes;
    uint64_t logins, failures;
};

void path_init(struct path *path, const struct path_settings *settings, const char *portal, unsigned index);
void path_done(struct path *path);
/* Connect, probe, watch over time-outs, tear down. Call in each turn, after path_service. */
void path_tick(struct path *path, uint64_t now_ms);
/* Descriptor and events to poll for; -1 when there is none. */
int path_poll(struct path *path, short *ret_events);
void path_service(struct path *path, short events, uint64_t now_ms);
/* Give the session up, e.g. to be sure that nothing of it is under way. */
void path_fail(struct path *path, const char *why);
/* May commands be sent? */
bool path_usable(const struct path *path, uint64_t now_ms);
/* Send a read or write of length bytes; buffer stays with the path until answered() or lost(). */
void path_send(struct path *path, struct path_io *io, bool write, uint64_t offset_bytes, void *buffer, uint32_t length,
               uint64_t now_ms);

#endif
