/* What must outlive a loss of all power (I5): for each flush that was answered, each write that was answered before the flush was
 * asked for, or one that may have come after it. */
#include "tests/simulation/mirror_world.h"

#define WRITES_MAX 4096u

static struct {
    uint32_t block, tag;
    uint64_t invoked, done;
} writes[WRITES_MAX];
static unsigned count;
static uint64_t newest_flush; /* when the newest flush that was answered was asked for */

void durable_begin(void)
{
    count = 0;
    newest_flush = 0;
}

void durable_written(uint32_t block, uint32_t tag, uint64_t invoked)
{
    if (count == WRITES_MAX)
        return;
    writes[count].block = block;
    writes[count].tag = tag;
    writes[count].invoked = invoked;
    writes[count++].done = world.now_us;
}

void durable_flushed(uint64_t invoked)
{
    newest_flush = MAX(newest_flush, invoked);
}

void durable_check(uint32_t block, uint32_t tag)
{
    uint64_t done = 0; /* 0: of before; UINT64_MAX: never answered, it may be the newest */
    if (count == WRITES_MAX)
        return;
    for (unsigned i = 0; i < count; i++)
        if (writes[i].tag == tag && writes[i].block == block)
            done = writes[i].done;
    if (!done && tag > writes[0].tag && count)
        done = UINT64_MAX;
    for (unsigned i = 0; i < count; i++)
        if (writes[i].block == block && writes[i].done <= newest_flush && writes[i].tag != tag && done < writes[i].invoked) {
            sim_violate(&world, "block %u shows %u after the loss of power, %u was written and flushed", block, tag, writes[i].tag);
            return;
        }
}
