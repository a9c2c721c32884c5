/* The copy manager: EXTENDED COPY (LID1) and RECEIVE COPY RESULTS, SPC-4 r37 §6.4, §6.18 to §6.20. It works at the node that got
 * the command, with reads and writes that go the way of any command of that session: so source and destination may be owned by any
 * nodes, and their reservations and unit attentions count. */
#ifndef DIRECTOR_TARGET_CORE_TARGET_COPY_H
#define DIRECTOR_TARGET_CORE_TARGET_COPY_H

#include <stdbool.h>
#include <stdint.h>

#define TARGET_COPY_TARGETS_MAX   16u
#define TARGET_COPY_SEGMENTS_MAX  64u
#define TARGET_COPY_TARGET_BYTES  32u
#define TARGET_COPY_SEGMENT_BYTES 28u
#define TARGET_COPY_LIST_MAX      (TARGET_COPY_TARGETS_MAX * TARGET_COPY_TARGET_BYTES + TARGET_COPY_SEGMENTS_MAX * TARGET_COPY_SEGMENT_BYTES)
#define TARGET_COPY_SEGMENT_MAX   (65535u * 4096u) /* bytes of one segment: a 16-bit number of blocks */
#define TARGET_COPIES_MAX         64u              /* under way on a node */
#define TARGET_COPY_RESULTS       4u               /* kept of a session */

/* What RECEIVE COPY RESULTS tells of a copy. */
struct target_copy_result {
    bool known;
    uint8_t list_id;
    uint8_t status;      /* 0 in progress, 1 completed, 2 completed with errors: §6.18.1, table 216 */
    uint16_t segments;   /* done */
    uint64_t bytes;      /* written */
    uint64_t age;
};

struct target;
struct target_task;

/* Run one of the two commands; the task ends by itself. Its unit is task->lu. */
void target_copy(struct target *target, struct target_task *task);
/* Is it one of the two? */
bool target_copy_is(const uint8_t *cdb);

#endif
