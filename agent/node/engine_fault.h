/* Fault injection, for tests: `directord --faults FILE` puts the filters `volatile`, `delay` and `error` under the data device of every
 * replica on this node and keeps them as FILE says, also while I/O is under way. Without the option nothing of this exists.
 *
 * FILE, read again when it changed (looked at every 50 ms); missing or empty: no faults. One rule a line:
 *
 *     [volume=NAME] volatile on=yes
 *     [volume=NAME] delay write_ms=500
 *     [volume=NAME] error operations=write,zeroes status=EIO count=1
 *     # a comment
 *
 * The words after the filter's name are its parameters (plugins/volatile/volatile.md, delay/delay.md, error/error.md). A volume has one
 * volatile, lowest, one delay and ENGINE_FAULT_ERRORS error filters; the n-th rule for error is that of the n-th filter. What no rule names is neutral.
 * When the file was put in force the log has one line with its text; a line that no filter understands
 * is told there, and the file changes nothing.
 *
 * Threads: the I/O thread. */
#ifndef DIRECTOR_AGENT_NODE_ENGINE_FAULT_H
#define DIRECTOR_AGENT_NODE_ENGINE_FAULT_H

#include "plugins/loader/loader.h"
#include <uv.h>

#define ENGINE_FAULT_ERRORS 3u
#define ENGINE_FAULT_LAYERS (2u + ENGINE_FAULT_ERRORS)
#define ENGINE_FAULT_BYTES  4096u

struct engine_unit;

/* Of the engine. */
struct engine_faults {
    const char *path; /* NULL: no fault injection */
    char text[ENGINE_FAULT_BYTES]; /* in force */
    uint64_t inode, size_bytes;
    struct timespec changed;
};

/* Of a unit: the filters on its data device, lowest first; NULL while there are none. */
struct engine_fault_stack {
    struct block_device *layers[ENGINE_FAULT_LAYERS];
};

/* Stack the filters on *device, which the unit is about to use, and replace it by the top one; does nothing without --faults.
 * On failure *device is a device that still has to be closed. 0 or negative errno with words. */
MUST_CHECK int engine_fault_open(struct engine_unit *unit, struct block_device **device, struct error *error);
/* The unit's data device is about to be closed. */
void engine_fault_forget(struct engine_unit *unit);

struct engine;
/* Look whether the file changed, and put it in force for all units. */
void engine_fault_tick(struct engine *engine);

#endif
