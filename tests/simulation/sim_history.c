#include "tests/simulation/sim_history.h"

#include <string.h>

static struct sim_value *value_of(struct sim_history *history, uint32_t block, uint32_t tag)
{
    struct sim_block_history *b = &history->blocks[block];
    for (size_t i = b->count; i > 0; i--)
        if (b->values[i - 1].tag == tag)
            return &b->values[i - 1];
    if (b->count == b->capacity) {
        b->capacity = b->capacity ? b->capacity * 2 : 4;
        b->values = realloc(b->values, b->capacity * sizeof(b->values[0]));
        ASSERT(b->values);
    }
    b->values[b->count] = (struct sim_value){.tag = tag, .first_end = UINT64_MAX};
    return &b->values[b->count++];
}

static struct sim_access *access_add(struct sim_history *history, uint32_t block, struct sim_access access)
{
    struct sim_block_history *b = &history->blocks[block];
    if (b->access_count == b->access_capacity) {
        b->access_capacity = b->access_capacity ? b->access_capacity * 2 : 8;
        b->accesses = realloc(b->accesses, b->access_capacity * sizeof(b->accesses[0]));
        ASSERT(b->accesses);
    }
    b->accesses[b->access_count++] = access;
    return &b->accesses[b->access_count - 1];
}

/* The write or comparison that was begun with this tag. */
static struct sim_access *access_of(struct sim_history *history, uint32_t block, uint32_t tag)
{
    struct sim_block_history *b = &history->blocks[block];
    for (size_t i = b->access_count; i > 0; i--)
        if (b->accesses[i - 1].tag == tag && b->accesses[i - 1].kind != SIM_ACCESS_READ)
            return &b->accesses[i - 1];
    ASSERT(!"an answer to what was never asked");
    return NULL;
}

void sim_history_init(struct sim_history *history, struct sim_world *world, uint32_t block_count)
{
    *history = (struct sim_history){.world = world, .block_count = block_count};
    history->blocks = calloc(block_count, sizeof(history->blocks[0]));
    ASSERT(history->blocks);
    for (uint32_t i = 0; i < block_count; i++) {
        struct sim_value *zero = value_of(history, i, 0);
        zero->written = zero->seen = true;
        zero->first_end = 1;
    }
}

void sim_history_done(struct sim_history *history)
{
    for (uint32_t i = 0; history->blocks && i < history->block_count; i++)
        free(history->blocks[i].values), free(history->blocks[i].accesses);
    free(history->blocks);
    history->blocks = NULL;
}

void sim_history_write(struct sim_history *history, uint32_t block, uint32_t tag)
{
    struct sim_value *value = value_of(history, block, tag);
    value->written = true;
    value->write_start = history->world->now_us;
    access_add(history, block, (struct sim_access){SIM_ACCESS_WRITE, history->world->now_us, UINT64_MAX, tag, 0});
}

void sim_history_compare(struct sim_history *history, uint32_t block, uint32_t expected, uint32_t tag)
{
    struct sim_value *value = value_of(history, block, tag);
    value->written = true;
    value->write_start = history->world->now_us;
    access_add(history, block, (struct sim_access){SIM_ACCESS_COMPARE, history->world->now_us, UINT64_MAX, tag, expected});
    history->blocks[block].compares++;
}

static void take_effect(struct sim_history *history, struct sim_value *value, uint64_t invoked_us)
{
    value->seen = true;
    value->first_end = MIN(value->first_end, history->world->now_us);
    value->last_start = MAX(value->last_start, MAX(invoked_us, value->write_start)); /* the write is one of them */
}

void sim_history_written(struct sim_history *history, uint32_t block, uint32_t tag, uint64_t invoked_us)
{
    take_effect(history, value_of(history, block, tag), invoked_us);
    access_of(history, block, tag)->end = history->world->now_us;
}

void sim_history_compared(struct sim_history *history, uint32_t block, uint32_t tag, bool matched, uint64_t invoked_us)
{
    struct sim_access *access = access_of(history, block, tag);
    access->end = history->world->now_us;
    if (matched) {
        take_effect(history, value_of(history, block, tag), invoked_us);
        return;
    }
    access->kind = SIM_ACCESS_DIFFERS;
    if (value_of(history, block, tag)->seen)
        sim_violate(history->world, "block %u was read as %u, of a COMPARE AND WRITE that was refused", block, tag);
    value_of(history, block, tag)->written = false;
}

void sim_history_read(struct sim_history *history, uint32_t block, uint32_t tag, uint64_t invoked_us)
{
    struct sim_value *value = value_of(history, block, tag);
    if (!value->written)
        sim_violate(history->world, "block %u read as %u, never written to it", block, tag);
    take_effect(history, value, invoked_us);
    access_add(history, block, (struct sim_access){SIM_ACCESS_READ, invoked_us, history->world->now_us, tag, 0});
}

/* Linearizable exactly when no two forward zones overlap and no backward zone lies within a forward one. For a backward zone
 * [last_start, first_end] within a: the same comparison of ends. */
static bool clash(const struct sim_value *a, const struct sim_value *b)
{
    return a->first_end < b->last_start && b->first_end < a->last_start;
}

static void search(struct sim_history *history, uint32_t block)
{
    struct sim_block_history *b = &history->blocks[block];
    enum sim_order found = sim_order_search(b->accesses, b->access_count);
    history->searched++;
    history->undecided += found == SIM_UNDECIDED;
    if (found == SIM_NO_ORDER)
        sim_violate(history->world, "block %u: its %zu reads, writes and comparisons are in no order", block, b->access_count);
}

void sim_history_check(struct sim_history *history)
{
    for (uint32_t block = 0; block < history->block_count; block++) {
        const struct sim_block_history *b = &history->blocks[block];
        if (b->compares)
            search(history, block);
        for (size_t i = 0; i < b->count; i++) {
            const struct sim_value *a = &b->values[i];
            for (size_t j = 0; j < b->count && a->seen && a->first_end < a->last_start; j++) {
                const struct sim_value *c = &b->values[j];
                if (i != j && c->seen && clash(a, c))
                    sim_violate(history->world, "block %u: values %u (%.3f..%.3f ms) and %u (%.3f..%.3f ms) are in no order", block,
                                a->tag, (double)a->first_end / 1000, (double)a->last_start / 1000, c->tag,
                                (double)c->first_end / 1000, (double)c->last_start / 1000);
            }
        }
    }
}
