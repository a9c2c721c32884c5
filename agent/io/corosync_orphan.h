/* The record of a corosync that we started, and whether that very process still lives. */
#ifndef DIRECTOR_AGENT_IO_COROSYNC_ORPHAN_H
#define DIRECTOR_AGENT_IO_COROSYNC_ORPHAN_H

#include "director/base/common.h"
#include <stdbool.h>
#include <sys/types.h>

#define COROSYNC_IDENTITY_SIZE 128
#define COROSYNC_BOOT_ID_SIZE  64

struct corosync_orphan {
    pid_t pid;
    unsigned long long start_ticks;       /* proc(5), /proc/PID/stat field 22: with boot_id it names one process for ever */
    char boot_id[COROSYNC_BOOT_ID_SIZE];  /* of the kernel */
    char identity[COROSYNC_IDENTITY_SIZE];
};

/* What /proc says of pid, with identity copied in. 0, -ESRCH (gone, or a zombie) or -EINVAL (identity too long). */
MUST_CHECK int corosync_orphan_inspect(pid_t pid, const char *identity, struct corosync_orphan *ret_orphan);
/* Write the record, whole or not at all. 0 or negative errno. */
MUST_CHECK int corosync_orphan_save(const char *path, const struct corosync_orphan *orphan);
/* Read the record; -ENOENT, -EPROTO when it is not one of ours. */
MUST_CHECK int corosync_orphan_load(const char *path, struct corosync_orphan *ret_orphan);
/* A pidfd of the recorded process when it still lives, else -ESRCH. The caller closes it. Signals sent through it
 * cannot hit another process. */
MUST_CHECK int corosync_orphan_open(const struct corosync_orphan *orphan);
/* pidfd_send_signal(2). 0 or negative errno. */
int corosync_orphan_signal(int pidfd, int number);

/* Remove what libqb of an ended corosync left in shared memory (it does so by itself only when it ends in order). */
void corosync_orphan_clean(pid_t pid);

#endif
