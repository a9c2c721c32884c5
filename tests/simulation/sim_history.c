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
        free(history->blocks[i].values);
    free(history->blocks);
    history->blocks = NULL;
}

void sim_history_write(struct sim_history *history, uint32_t block, uint32_t tag)
{
    struct sim_value *value = value_of(history, block, tag);
    value->written = true;
    value->write_start = history->world->now_us;
}

static void take_effect(struct sim_history *history, struct sim_value *value, uint64_t invoked_us)
{
    value->seen = true;
    value->first_end = MIN(value->first_end, history->world->now_us);
    value->last_start = MAX(value->last_start, invoked_us);
}

void sim_history_written(struct sim_history *history, uint32_t block, uint32_t tag, uint64_t invoked_us)
{
    take_effect(history, value_of(history, block, tag), invoked_us);
}

void sim_history_read(struct sim_history *history, uint32_t block, uint32_t tag, uint64_t invoked_us)
{
    struct sim_value *value = value_of(history, block, tag);
    if (!value->written)
        sim_violate(history->world, "block %u read as %u, never written to it", block, tag);
    take_effect(history, value, invoked_us);
}

/* Linearizable exactly when no two forward zones overlap and no backward zone lies within a forward one. For a backward zone
 * [last_start, first_end] within a: the same comparison of ends. */
static bool clash(const struct sim_value *a, const struct sim_value *b)
{
    return a->first_end < b->last_start && b->first_end < a->last_start;
}

void sim_history_check(struct sim_history *history)
{
    for (uint32_t block = 0; block < history->block_count; block++) {
        const struct sim_block_history *b = &history->blocks[block];
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
