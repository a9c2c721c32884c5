#include "agent/core/rsm_message.h"

#include "director/base/bytes.h"
#include "director/base/crc32c.h"
#include <assert.h>
#include <errno.h>

#define FIELD(name) (1 + offsetof(struct rsm_message, name)) /* 0 ends a list */

/* What each type carries after the header. */
static const struct layout {
    uint8_t flags;     /* allowed bits */
    bool addressed;    /* to must name a node; APPEND may */
    bool data;
    size_t fields[6];
} layouts[RSM_MESSAGE_TYPES] = {
    [RSM_STATE] = {1, false, false, {FIELD(boot), FIELD(last_term), FIELD(last_index), FIELD(commit)}},
    [RSM_CLAIM] = {3, false, false, {FIELD(last_term), FIELD(last_index)}},
    [RSM_GRANT] = {3, true, false, {FIELD(own_term), FIELD(last_term), FIELD(last_index)}},
    [RSM_APPEND] = {0, false, true, {FIELD(previous_index), FIELD(previous_term), FIELD(commit)}},
    [RSM_ACK] = {3, true, false, {FIELD(index), FIELD(last_index)}},
    [RSM_SNAPSHOT] = {0, true, true, {FIELD(index), FIELD(total), FIELD(offset)}},
    [RSM_SNAPSHOT_ACK] = {0, true, false, {FIELD(index), FIELD(offset)}},
    [RSM_SUBMIT] = {3, false, true, {FIELD(boot), FIELD(sequence), FIELD(change_nodeid)}},
    [RSM_HEARTBEAT] = {0, false, false, {FIELD(commit), FIELD(last_index)}},
    [RSM_BARRIER] = {0, false, false, {FIELD(round)}},
    [RSM_BARRIER_ACK] = {0, false, false, {FIELD(origin), FIELD(round)}},
    [RSM_BARRIER_ANSWER] = {0, true, false, {FIELD(round), FIELD(index)}},
    [RSM_HANDOVER] = {0, true, false, {0}},
};

static_assert(RSM_MESSAGE_HEADER_BYTES + 3 * 8 + RSM_CHUNK_BYTES <= RSM_MESSAGE_MAX_BYTES, "a chunk fits one message");
static_assert(RSM_ENTRY_OVERHEAD_BYTES + 2 + 2 * RSM_NODES_MAX + RSM_COMMAND_MAX_BYTES <= RSM_CHUNK_BYTES,
              "the longest entry fits one chunk");

static void *allocate(size_t size)
{
    void *memory = malloc(size ? size : 1);
    ASSERT(memory); /* out of memory is a crash, which the protocol survives */
    return memory;
}

uint8_t *rsm_message_encode(const struct rsm_message *message, size_t *ret_size)
{
    const struct layout *layout = &layouts[message->type];
    uint8_t *bytes = allocate(RSM_MESSAGE_HEADER_BYTES + sizeof(layout->fields) + message->data.size), *at = bytes;
    *at++ = RSM_WIRE_VERSION;
    *at++ = (uint8_t)message->type;
    *at++ = message->flags;
    *at++ = 0;
    put_le16(at, message->to);
    put_le16(at + 2, 0);
    put_le64(at + 4, message->cluster);
    put_le64(at + 12, message->view);
    put_le64(at + 20, message->term);
    at += 28;
    for (const size_t *field = layout->fields; *field; field++, at += 8) {
        uint64_t value;
        memcpy(&value, (const char *)message + *field - 1, sizeof(value));
        put_le64(at, value);
    }
    if (message->data.size) {
        ASSERT(layout->data);
        memcpy(at, message->data.data, message->data.size);
    }
    *ret_size = (size_t)(at - bytes) + message->data.size;
    ASSERT(*ret_size <= RSM_MESSAGE_MAX_BYTES);
    return bytes;
}

/* The entries of an APPEND follow its previous one without a gap, in terms that never fall (R3, R4). */
static int append_check(const struct rsm_message *message)
{
    uint64_t index = message->previous_index, term = message->previous_term;
    if (term > message->term)
        return -EPROTO;
    for (size_t used = 0, size; used < message->data.size; used += size) {
        struct rsm_entry entry;
        if (rsm_entry_decode(message->data.data + used, message->data.size - used, &entry, &size))
            return -EPROTO;
        if (entry.index != index + 1 || entry.term < term || entry.term > message->term)
            return -EPROTO;
        index = entry.index;
        term = entry.term;
    }
    return 0;
}

/* Terms and indices far from any that can be reached: so that sums of them never wrap. */
static bool out_of_range(const struct rsm_message *m)
{
    const uint64_t values[] = {m->term,           m->last_term, m->last_index, m->previous_index,
                               m->previous_term, m->commit,    m->own_term,   m->index};
    for (size_t i = 0; i < ARRAY_SIZE(values); i++)
        if (values[i] >> 62)
            return true;
    return false;
}

static int message_check(const struct rsm_message *m)
{
    if (out_of_range(m))
        return -EPROTO;
    switch (m->type) {
    case RSM_APPEND:
        return append_check(m);
    case RSM_SNAPSHOT:
        if (m->total > RSM_SNAPSHOT_MAX_BYTES || m->offset > m->total || m->data.size > m->total - m->offset ||
            m->data.size > RSM_CHUNK_BYTES || m->index == 0)
            return -EPROTO;
        return 0;
    case RSM_SUBMIT:
        if (m->data.size == 0 || m->data.size > RSM_COMMAND_MAX_BYTES || m->sequence == 0 || m->boot == 0 || m->flags > RSM_CHANGE_REMOVE_VOTER ||
            m->change_nodeid > UINT16_MAX || (m->flags == RSM_CHANGE_NONE) != (m->change_nodeid == 0))
            return -EPROTO;
        return 0;
    case RSM_BARRIER_ACK:
        return m->origin == 0 || m->origin > UINT16_MAX ? -EPROTO : 0;
    default:
        return 0;
    }
}

int rsm_message_decode(const uint8_t *data, size_t size, struct rsm_message *ret_message)
{
    if (size < RSM_MESSAGE_HEADER_BYTES || size > RSM_MESSAGE_MAX_BYTES || data[0] != RSM_WIRE_VERSION)
        return -EPROTO;
    if (data[1] == 0 || data[1] >= RSM_MESSAGE_TYPES || data[3] != 0 || get_le16(data + 6) != 0)
        return -EPROTO;
    const struct layout *layout = &layouts[data[1]];
    struct rsm_message message = {
        .type = data[1],
        .flags = data[2],
        .to = get_le16(data + 4),
        .cluster = get_le64(data + 8),
        .view = get_le64(data + 16),
        .term = get_le64(data + 24),
    };
    if (message.flags & ~layout->flags)
        return -EPROTO;
    if (layout->addressed ? message.to == 0 : message.to != 0 && message.type != RSM_APPEND)
        return -EPROTO;
    size_t used = RSM_MESSAGE_HEADER_BYTES;
    for (const size_t *field = layout->fields; *field; field++, used += 8) {
        if (size - used < 8)
            return -EPROTO;
        uint64_t value = get_le64(data + used);
        memcpy((char *)&message + *field - 1, &value, sizeof(value));
    }
    message.data = (struct rsm_blob){data + used, size - used};
    if (message.data.size && !layout->data)
        return -EPROTO;
    int status = message_check(&message);
    if (status == 0)
        *ret_message = message;
    return status;
}

int rsm_config_find(const struct rsm_config *config, uint16_t nodeid)
{
    for (size_t i = 0; i < config->count; i++)
        if (config->voters[i] == nodeid)
            return (int)i;
    return -1;
}

bool rsm_config_add(struct rsm_config *config, uint16_t nodeid)
{
    if (config->count == RSM_NODES_MAX || rsm_config_find(config, nodeid) >= 0)
        return false;
    size_t place = config->count++;
    for (; place > 0 && config->voters[place - 1] > nodeid; place--)
        config->voters[place] = config->voters[place - 1];
    config->voters[place] = nodeid;
    return true;
}

bool rsm_config_remove(struct rsm_config *config, uint16_t nodeid)
{
    int place = rsm_config_find(config, nodeid);
    if (place < 0)
        return false;
    config->count--;
    for (size_t i = (size_t)place; i < config->count; i++)
        config->voters[i] = config->voters[i + 1];
    return true;
}

static uint8_t *config_encode(const struct rsm_config *config, uint8_t *at)
{
    for (size_t i = 0; i < config->count; i++, at += 2)
        put_le16(at, config->voters[i]);
    return at;
}

/* count voters at data; false unless ascending and free of 0. */
static bool config_decode(const uint8_t *data, size_t count, struct rsm_config *ret_config)
{
    *ret_config = (struct rsm_config){.count = count};
    for (size_t i = 0; i < count; i++) {
        ret_config->voters[i] = get_le16(data + 2 * i);
        if (ret_config->voters[i] <= (i ? ret_config->voters[i - 1] : 0))
            return false;
    }
    return true;
}

/* version 0, kind 1, origin 2, body bytes 4, index 8, term 16, boot 24, sequence 32, body, crc32c of all before.
 * Body of CONFIG: count u16, voters u16 each, data. Else data. */
uint8_t *rsm_entry_encode(const struct rsm_entry *entry, size_t *ret_size)
{
    size_t config_size = entry->kind == RSM_ENTRY_CONFIG ? 2 + 2 * entry->config.count : 0;
    size_t size = RSM_ENTRY_OVERHEAD_BYTES + config_size + entry->data.size;
    uint8_t *bytes = allocate(size), *at = bytes + RSM_ENTRY_HEADER_BYTES;
    bytes[0] = RSM_WIRE_VERSION;
    bytes[1] = (uint8_t)entry->kind;
    put_le16(bytes + 2, entry->origin);
    put_le32(bytes + 4, (uint32_t)(config_size + entry->data.size));
    put_le64(bytes + 8, entry->index);
    put_le64(bytes + 16, entry->term);
    put_le64(bytes + 24, entry->boot);
    put_le64(bytes + 32, entry->sequence);
    if (entry->kind == RSM_ENTRY_CONFIG) {
        put_le16(at, (uint16_t)entry->config.count);
        at = config_encode(&entry->config, at + 2);
    }
    if (entry->data.size)
        memcpy(at, entry->data.data, entry->data.size);
    put_le32(bytes + size - 4, crc32c(0, bytes, size - 4));
    *ret_size = size;
    return bytes;
}

int rsm_entry_decode(const uint8_t *data, size_t size, struct rsm_entry *ret_entry, size_t *ret_used)
{
    if (size < RSM_ENTRY_OVERHEAD_BYTES || data[0] != RSM_WIRE_VERSION || data[1] > RSM_ENTRY_CONFIG)
        return -EBADMSG;
    size_t body = get_le32(data + 4);
    if (body > RSM_CHUNK_BYTES || body > size - RSM_ENTRY_OVERHEAD_BYTES)
        return -EBADMSG;
    size_t used = RSM_ENTRY_OVERHEAD_BYTES + body;
    if (get_le32(data + used - 4) != crc32c(0, data, used - 4))
        return -EBADMSG;
    struct rsm_entry entry = {
        .index = get_le64(data + 8),
        .term = get_le64(data + 16),
        .kind = data[1],
        .origin = get_le16(data + 2),
        .boot = get_le64(data + 24),
        .sequence = get_le64(data + 32),
        .data = {data + RSM_ENTRY_HEADER_BYTES, body},
    };
    if (entry.kind == RSM_ENTRY_CONFIG) {
        size_t count = body >= 2 ? get_le16(entry.data.data) : 0;
        if (count == 0 || count > RSM_NODES_MAX || body < 2 + 2 * count ||
            !config_decode(entry.data.data + 2, count, &entry.config))
            return -EBADMSG;
        entry.data.data += 2 + 2 * count;
        entry.data.size -= 2 + 2 * count;
    }
    if (entry.index == 0 || entry.term == 0 || entry.data.size > (entry.kind == RSM_ENTRY_NOOP ? 0 : RSM_COMMAND_MAX_BYTES))
        return -EBADMSG;
    *ret_entry = entry;
    *ret_used = used;
    return 0;
}

#define SNAPSHOT_MAGIC 0x504e5352u /* "RSNP" */

/* magic 0, version u16 4, voters u16 6, index 8, term 16, voters u16 each, data, crc32c of all before. */
uint8_t *rsm_snapshot_encode(const struct rsm_snapshot_header *snapshot, size_t *ret_size)
{
    size_t size = RSM_SNAPSHOT_HEADER_BYTES + 2 * snapshot->config.count + snapshot->data.size + 4;
    uint8_t *bytes = allocate(size);
    put_le32(bytes, SNAPSHOT_MAGIC);
    put_le16(bytes + 4, RSM_WIRE_VERSION);
    put_le16(bytes + 6, (uint16_t)snapshot->config.count);
    put_le64(bytes + 8, snapshot->index);
    put_le64(bytes + 16, snapshot->term);
    uint8_t *at = config_encode(&snapshot->config, bytes + RSM_SNAPSHOT_HEADER_BYTES);
    if (snapshot->data.size)
        memcpy(at, snapshot->data.data, snapshot->data.size);
    put_le32(bytes + size - 4, crc32c(0, bytes, size - 4));
    *ret_size = size;
    return bytes;
}

int rsm_snapshot_decode(const uint8_t *data, size_t size, struct rsm_snapshot_header *ret_snapshot)
{
    if (size < RSM_SNAPSHOT_HEADER_BYTES + 4 || size > RSM_SNAPSHOT_MAX_BYTES || get_le32(data) != SNAPSHOT_MAGIC ||
        get_le16(data + 4) != RSM_WIRE_VERSION || get_le32(data + size - 4) != crc32c(0, data, size - 4))
        return -EBADMSG;
    size_t count = get_le16(data + 6), overhead = RSM_SNAPSHOT_HEADER_BYTES + 2 * count + 4;
    struct rsm_snapshot_header snapshot = {.index = get_le64(data + 8), .term = get_le64(data + 16)};
    if (count == 0 || count > RSM_NODES_MAX || size < overhead || snapshot.index == 0 || snapshot.term == 0 ||
        !config_decode(data + RSM_SNAPSHOT_HEADER_BYTES, count, &snapshot.config))
        return -EBADMSG;
    snapshot.data = (struct rsm_blob){data + RSM_SNAPSHOT_HEADER_BYTES + 2 * count, size - overhead};
    *ret_snapshot = snapshot;
    return 0;
}
