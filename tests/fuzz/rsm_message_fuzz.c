/* What members send: a run of messages, each after a u16 (length; its top bit says who sends), is decoded, must encode to the
 * same bytes, and is fed to a node in a view of three. Nothing a peer sends may make it assert. Entries and snapshots, as they
 * come from disk, are tried on the same bytes. */
#include "agent/core/rsm_message.h"

#include "director/base/bytes.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void step(struct rsm *rsm, const struct rsm_event *event, uint64_t now)
{
    struct rsm_effects effects = {0};
    (void)!rsm_step(rsm, event, now, &effects);
    rsm_effects_done(&effects);
}

static struct rsm *node(void)
{
    static const uint16_t members[] = {1, 2, 3};
    struct rsm_options options = {.self = 2, .boot = 7, .snapshot_entries = 3, .keep_entries = 1};
    struct rsm *rsm = rsm_new(&options);
    struct rsm_entry entry = {
        .index = 1, .term = 1, .kind = RSM_ENTRY_CONFIG, .config = {.voters = {1, 2, 3}, .count = 3}};
    size_t size;
    uint8_t *bytes = rsm_entry_encode(&entry, &size);
    struct rsm_blob blob = {bytes, size};
    struct rsm_persistent persistent = {.term = 1, .voted_for = 1, .entries = &blob, .entry_count = 1};
    struct rsm_event start = {.kind = RSM_EVENT_START, .persistent = &persistent};
    struct rsm_event view = {.kind = RSM_EVENT_VIEW, .view = 1, .members = members, .member_count = 3};
    step(rsm, &start, 1000);
    step(rsm, &view, 1000);
    free(bytes);
    return rsm;
}

static void decode(const uint8_t *data, size_t size)
{
    struct rsm_message message;
    if (rsm_message_decode(data, size, &message) == 0) {
        size_t again;
        uint8_t *bytes = rsm_message_encode(&message, &again);
        ASSERT(again == size && memcmp(bytes, data, size) == 0);
        free(bytes);
    }
    struct rsm_entry entry;
    size_t used;
    if (rsm_entry_decode(data, size, &entry, &used) == 0)
        ASSERT(used <= size);
    struct rsm_snapshot_header snapshot;
    (void)!rsm_snapshot_decode(data, size, &snapshot);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rsm *rsm = node();
    uint64_t now = 1000;
    decode(data, size);
    while (size >= 2) {
        uint16_t head = get_le16(data);
        size_t length = MIN((size_t)(head & 0x7fff), size - 2);
        data += 2;
        size -= 2;
        decode(data, length);
        struct rsm_event event = {
            .kind = RSM_EVENT_MESSAGE, .from = head & 0x8000 ? 3 : 1, .data = {data, length}};
        struct rsm_event tick = {.kind = RSM_EVENT_TICK};
        step(rsm, &event, now);
        now += length % 3 == 0 ? 1000 : 10;
        step(rsm, &tick, now);
        data += length;
        size -= length;
    }
    rsm_free(rsm);
    return 0;
}
