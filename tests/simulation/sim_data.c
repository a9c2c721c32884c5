#include "tests/simulation/sim_data.h"

#include <string.h>

struct sim_bytes *sim_bytes_new(struct sim_data *data, uint64_t size_bytes)
{
    uint32_t count = (uint32_t)(size_bytes / SIM_BLOCK_BYTES);
    struct sim_bytes *bytes = calloc(1, sizeof(*bytes) + count * sizeof(uint32_t));
    ASSERT(bytes);
    bytes->references = 1;
    bytes->count = count;
    bytes->next = data->all;
    data->all = bytes;
    data->alive++;
    return bytes;
}

void sim_bytes_ref(struct sim_bytes *bytes)
{
    bytes->references++;
}

void sim_bytes_unref(struct sim_data *data, void *handle)
{
    struct sim_bytes *bytes = handle;
    if (!bytes)
        return;
    if (bytes->references <= 0)
        sim_violate(data->world, "a buffer is released more often than it was taken");
    else if (--bytes->references == 0)
        data->alive--;
}

void sim_data_done(struct sim_data *data)
{
    while (data->all) {
        struct sim_bytes *bytes = data->all;
        data->all = bytes->next;
        free(bytes);
    }
    data->alive = 0;
}

static void *data_alloc(void *context, uint32_t size_bytes)
{
    struct sim_data *data = context;
    return sim_chance(data->world, data->scarce) ? NULL : sim_bytes_new(data, size_bytes);
}

static uint32_t *tags_of(struct mirror_data data)
{
    return ((struct sim_bytes *)data.handle)->tags + data.offset / SIM_BLOCK_BYTES;
}

static void data_copy(void *context, struct mirror_data to, struct mirror_data from, uint64_t size_bytes)
{
    (void)context;
    memcpy(tags_of(to), tags_of(from), size_bytes / SIM_BLOCK_BYTES * sizeof(uint32_t));
}

static bool data_equal(void *context, struct mirror_data a, struct mirror_data b, uint64_t size_bytes, uint64_t *ret_differs)
{
    (void)context;
    for (uint64_t i = 0; i < size_bytes / SIM_BLOCK_BYTES; i++)
        if (tags_of(a)[i] != tags_of(b)[i]) {
            *ret_differs = i * SIM_BLOCK_BYTES;
            return false;
        }
    return true;
}

static bool data_zero(void *context, struct mirror_data data, uint64_t size_bytes)
{
    (void)context;
    for (uint64_t i = 0; i < size_bytes / SIM_BLOCK_BYTES; i++)
        if (tags_of(data)[i])
            return false;
    return true;
}

#define UNREADABLE UINT32_MAX

struct sim_bytes *sim_digests_new(struct sim_data *data, const uint32_t *blocks, const bool *bad, const struct mirror_effect *effect)
{
    uint64_t first = effect->disk.offset_bytes / SIM_BLOCK_BYTES, count = effect->disk.length_bytes / SIM_BLOCK_BYTES;
    uint64_t each = effect->disk.piece_bytes / SIM_BLOCK_BYTES, pieces = (count + each - 1) / each;
    struct sim_bytes *digests = sim_bytes_new(data, pieces * SIM_BLOCK_BYTES);
    for (uint64_t i = 0; i < count; i++) {
        uint32_t *digest = &digests->tags[i / each], tag = effect->disk.read_only ? 0 : blocks[first + i];
        if ((bad && bad[first + i]) || *digest == UNREADABLE)
            *digest = UNREADABLE;
        else if (*digest || tag)
            *digest = ((*digest ^ tag ^ (uint32_t)(i % each) << 24) * 0x9e3779b1u | 1) & INT32_MAX;
    }
    return digests;
}

static void data_digest(void *context, struct mirror_data digests, uint32_t index, uint8_t ret_digest[MIRROR_DIGEST_BYTES])
{
    uint32_t tag = ((struct sim_bytes *)digests.handle)->tags[index];
    (void)context;
    memset(ret_digest, tag == UNREADABLE ? 0xff : 0, MIRROR_DIGEST_BYTES);
    memcpy(ret_digest, &tag, sizeof(tag));
}

struct mirror_data_operations sim_data_operations(struct sim_data *data)
{
    return (struct mirror_data_operations){.context = data, .alloc = data_alloc, .copy = data_copy, .equal = data_equal,
                                           .zero = data_zero, .digest = data_digest};
}
