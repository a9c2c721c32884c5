/* The corosync of this node, run as a child of the agent, watched, restarted and told to re-read its configuration.
 *
 * A corosync outlives an agent that is killed (the peers see the CPG leave at once, CORRECTNESS 23); the next agent finds
 * it by RUN/corosync.pid and takes it over when it runs the same identity, else ends it. Only processes recorded there,
 * with the same kernel boot and start time, are ever signalled. All calls and callbacks in the loop's thread. */
#ifndef DIRECTOR_AGENT_IO_COROSYNC_PROCESS_H
#define DIRECTOR_AGENT_IO_COROSYNC_PROCESS_H

#include "director/base/error.h"
#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

enum corosync_process_state {
    COROSYNC_PROCESS_STOPPED, /* not started, or stopped on request */
    COROSYNC_PROCESS_RUNNING, /* the process lives; whether CPG answers is cpg_group's matter */
    COROSYNC_PROCESS_BACKOFF, /* it died; started again after 0.1 s, doubling up to 5 s */
    COROSYNC_PROCESS_STOPPING,
};

struct corosync_process;

struct corosync_process_options {
    const char *program;     /* NULL: /usr/sbin/corosync, else from PATH */
    const char *config_path; /* given to corosync -c; must be there when started */
    const char *run_dir;     /* corosync.pid (our record) and corosync.out (what it printed) are kept here */
    const char *identity;    /* what must be equal for an orphan to be taken over: cluster uuid and nodeid; no white space */
    const char *log_path;    /* NULL, or the logfile of its configuration: the words quote its last error */
    /* May be NULL. words: a sentence for the log and status; valid during the call. May come from inside start and stop. */
    void (*on_state)(enum corosync_process_state state, const char *words, void *context);
    void *context;
};

/* Strings are copied. 0 or negative errno. Nothing runs yet. Free with corosync_process_close(). */
MUST_CHECK int corosync_process_new(uv_loop_t *loop, const struct corosync_process_options *options,
                                    struct corosync_process **ret_process);
/* Take over a living orphan of the same identity (and make it re-read its configuration), or start a new one. When an
 * orphan of another identity lives it is ended first; then starting goes on by itself. 0 also when already started. */
MUST_CHECK int corosync_process_start(struct corosync_process *process, struct error *error);
/* corosync_cfg_reload_config() in the thread pool; retried while corosync starts, for up to 5 s. done (may be NULL) is
 * called once from the loop: 0, -ETIMEDOUT, -ESRCH (not running) or another negative errno. Requests that come while one
 * is under way are joined into one further reload. */
void corosync_process_reload(struct corosync_process *process, void (*done)(int status, void *context), void *context);
/* SIGTERM (the ring sees a leave within ms), SIGKILL after 3 s. stopped (may be NULL) is called once from the loop. */
void corosync_process_stop(struct corosync_process *process, void (*stopped)(void *context), void *context);
/* Forget the process without ending it (leave = true: the next agent takes it over) or after stopping it, then free.
 * closed (may be NULL) from the loop when nothing of it is left on the loop. */
void corosync_process_close(struct corosync_process *process, bool leave, void (*closed)(void *context), void *context);

/* pid of the running corosync, or 0. */
pid_t corosync_process_pid(const struct corosync_process *process);
enum corosync_process_state corosync_process_state(const struct corosync_process *process);

#endif
