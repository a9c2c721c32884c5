#include "tests/simulation/sim_target.h"

#include "director/base/bytes.h"
#include "target/core/target.h"
#include <errno.h>
#include <string.h>

#define IQN           "iqn.2026-01.org.director:sim"
#define MEMORY_BYTES  (8u << 20)
#define HOLD_MS       3000u
#define COMMANDS_MAX  3u /* under way at one initiator */
#define KEY(place, tag) ((uint64_t)((place) + 1) << 32 | (tag))

/* A request of a device server to the mirror: real bytes there, tags here. */
struct io {
    struct io *next;
    struct mirror_request request;
    struct block_request *block;
    struct sim_bytes *data;
    unsigned volume;
};

struct device {
    struct block_device block;
    struct sim_node *node;
    unsigned volume;
};

enum purpose { FOR_READ, FOR_WRITE, FOR_COMPARE, FOR_KEY, FOR_KEYS, FOR_STORY };

struct command {
    struct target_task task; /* first */
    struct command *next;
    struct sim_node *node;
    enum purpose purpose;
    unsigned volume;
    uint32_t first, count, tag;
    uint64_t invoked;
    struct sim_command *story;
};

struct sim_target {
    struct target target;
    struct device devices[SIM_VOLUMES_MAX];
    struct target_session session;
    struct io *ios;
    struct command *commands;
    unsigned command_count;
    bool mapped[SIM_VOLUMES_MAX], crashing;
    uint64_t tick_at;
};

/* ---- the device: a mirror of this node ------------------------------------------------------------------------ */

/* The tag of the block at offset of the request's memory; set it when put. */
static uint32_t tag_at(const struct block_request *block, uint64_t offset, const uint32_t *put)
{
    uint8_t bytes[4] = {0};
    for (unsigned i = 0; i < block->iov_count; i++) {
        uint64_t length = block->iov[i].iov_len;
        if (offset >= length) {
            offset -= length;
            continue;
        }
        ASSERT(length - offset >= SIM_BLOCK_BYTES); /* buffers hold whole blocks */
        uint8_t *at = (uint8_t *)block->iov[i].iov_base + offset;
        if (put) {
            memset(at, 0, SIM_BLOCK_BYTES);
            put_le32(at, *put);
        }
        memcpy(bytes, at, sizeof(bytes));
        break;
    }
    return get_le32(bytes);
}

static void io_forget(struct sim_target *t, struct io *io)
{
    struct io **at = &t->ios;
    while (*at != io)
        at = &(*at)->next;
    *at = io->next;
}

static void io_end(struct sim_node *node, struct io *io, int status)
{
    struct block_request *block = io->block;
    io_forget(node->target, io);
    if (status == 0 && block->operation == BLOCK_READ)
        for (uint32_t i = 0; i < io->data->count; i++)
            (void)tag_at(block, (uint64_t)i * SIM_BLOCK_BYTES, &io->data->tags[i]);
    block->status = status;
    block->ret_miscompare = io->request.ret_miscompare;
    sim_bytes_unref(&node->sim->data, io->data);
    free(io);
    block->done(block);
}

static void io_ended(struct sim_node *node, uint64_t argument)
{
    struct io *io = (struct io *)(uintptr_t)argument;
    io_end(node, io, io->block->status);
}

bool sim_target_complete(struct sim_node *node, struct mirror_request *request, int status)
{
    struct io *io = node->target ? node->target->ios : NULL;
    while (io && &io->request != request)
        io = io->next;
    if (!io)
        return false;
    io->block->status = status; /* told on the next turn of the loop */
    sim_node_call(node, SIM_IO, node->sim->world.now_us, io_ended, (uint64_t)(uintptr_t)io);
    return true;
}

static void io_start(struct sim_node *node, uint64_t argument)
{
    struct io *io = (struct io *)(uintptr_t)argument;
    struct mirror_event event = {.type = MIRROR_EVENT_REQUEST, .request = &io->request};
    if (!node->units[io->volume].mirror) {
        io_end(node, io, -ESTALE);
        return;
    }
    if (io->data)
        sim_bytes_ref(io->data); /* the core's */
    sim_unit_step_mirror(node, io->volume, &event);
}

static void device_submit(struct block_device *block_device, struct block_request *block)
{
    struct device *device = container_of(block_device, struct device, block);
    struct sim_node *node = device->node;
    struct io *io = calloc(1, sizeof(*io));
    ASSERT(io);
    uint64_t bytes = block->operation == BLOCK_COMPARE_AND_WRITE ? 2 * block->length_bytes : block->length_bytes;
    bool carries = block->operation == BLOCK_WRITE || block->operation == BLOCK_COMPARE_AND_WRITE;
    io->block = block;
    io->volume = device->volume;
    io->next = node->target->ios;
    node->target->ios = io;
    if (block->operation == BLOCK_READ || carries)
        io->data = sim_bytes_new(&node->sim->data, bytes);
    for (uint32_t i = 0; carries && i < bytes / SIM_BLOCK_BYTES; i++)
        io->data->tags[i] = tag_at(block, (uint64_t)i * SIM_BLOCK_BYTES, NULL);
    io->request = (struct mirror_request){.operation = block->operation, .flags = block->flags, .offset_bytes = block->offset_bytes,
                                          .length_bytes = block->length_bytes, .data = {io->data, 0}};
    sim_node_call(node, SIM_IO, node->sim->world.now_us, io_start, (uint64_t)(uintptr_t)io);
}

static const struct block_device_operations device_operations = {.submit = device_submit};

/* ---- time ------------------------------------------------------------------------------------------------------- */

static void tick(struct sim_node *node, uint64_t argument)
{
    struct sim_target *t = node->target;
    (void)argument;
    t->tick_at = 0;
    uint64_t next = target_tick(&t->target, sim_clock_ms(node));
    if (next == UINT64_MAX || t->tick_at)
        return;
    t->tick_at = node->sim->world.now_us + next * 1000;
    sim_node_call(node, SIM_IO, t->tick_at, tick, 0);
}

static void wake(void *context)
{
    struct sim_node *node = context;
    struct sim_target *t = node->target;
    t->target.now_ms = sim_clock_ms(node);
    if (t->tick_at || t->crashing)
        return;
    t->tick_at = node->sim->world.now_us + 20000;
    sim_node_call(node, SIM_IO, t->tick_at, tick, 0);
}

/* ---- other nodes, the log ------------------------------------------------------------------------------------------ */

static int forward(void *context, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov, unsigned iov_count,
                   void (*done)(void *argument), void *argument)
{
    struct sim_node *node = context;
    uint8_t *payload = malloc(header->payload_bytes + 1);
    uint32_t at = 0;
    ASSERT(payload);
    for (unsigned i = 0; i < iov_count; at += (uint32_t)iov[i++].iov_len)
        memcpy(payload + at, iov[i].iov_base, iov[i].iov_len);
    bool sent = !node->target->crashing && nodeid != node->nodeid && sim_link_send_scsi(node, nodeid - 1u, header, payload);
    if (!sent)
        free(payload);
    else
        done(argument);
    return sent ? 0 : -ENOTCONN;
}

static const struct target_forward_operations forward_operations = {.send = forward};

static void commit(void *context, uint64_t volume_id, uint64_t epoch, uint64_t version, const uint8_t *bytes, uint32_t size)
{
    struct sim_node *node = context;
    SIM_LOG(node->sim, "node %u asks for reservations of v%llu in place of version %llu in epoch %llu", node->nodeid,
            (unsigned long long)volume_id, (unsigned long long)version, (unsigned long long)epoch);
    if (!node->target->crashing)
        sim_unit_reserve(node, volume_id, epoch, version, bytes, size);
}

void sim_target_receive(struct sim_node *node, unsigned from, const struct peer_header *header, const uint8_t *payload)
{
    node->target->target.now_ms = sim_clock_ms(node);
    if (target_forward_receive(&node->target->target, (uint16_t)(from + 1), header, payload) == -EPROTO)
        sim_violate(&node->sim->world, "node %u: a command forwarded by node %u makes no sense", node->nodeid, from + 1);
}

void sim_target_link_down(struct sim_node *node, unsigned peer)
{
    node->target->target.now_ms = sim_clock_ms(node);
    target_node_down(&node->target->target, (uint16_t)(peer + 1));
}

void sim_target_node_dead(struct sim_node *node, uint16_t nodeid)
{
    node->target->target.now_ms = sim_clock_ms(node);
    target_node_dead(&node->target->target, nodeid);
}

/* As unit_target() of agent/node/engine_volume.c. */
void sim_target_update(struct sim_node *node, unsigned volume)
{
    struct sim_target *t = node->target;
    const struct sim_unit *unit = &node->units[volume];
    const struct tree_volume *config = &unit->config;
    enum target_lu_state state = TARGET_LU_TRANSITION;
    struct block_device *device = NULL;
    if (!unit->known)
        return;
    t->target.now_ms = sim_clock_ms(node);
    if (!t->mapped[volume]) {
        struct target_lu_identity identity = {.volume_id = config->id, .uuid = config->uuid, .size_bytes = SIM_VOLUME_BYTES,
                                              .block_bytes = SIM_BLOCK_BYTES, .thin = true};
        int result = target_put_lu(&t->target, &identity);
        if (result == 0)
            result = target_set_lun(&t->target, IQN, (uint16_t)volume, config->id);
        ASSERT(result == 0);
        t->mapped[volume] = true;
    }
    if (unit->reservations_version &&
        target_set_reservations(&t->target, config->id, unit->reservations_version, unit->reservations, unit->reservations_bytes) < 0)
        sim_violate(&node->sim->world, "node %u cannot take over the reservations of v%u", node->nodeid, volume);
    if (node->authority && config->owner == node->nodeid && unit->mirror && !unit->closing) {
        state = TARGET_LU_ACTIVE;
        device = &t->devices[volume].block;
    } else if (node->authority && config->owner && config->owner != node->nodeid) {
        state = TARGET_LU_FORWARD;
    }
    if (target_set_lu_state(&t->target, config->id, state, config->owner, config->epoch, device) < 0)
        sim_violate(&node->sim->world, "node %u: its target refuses the state of v%u", node->nodeid, volume);
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

static void drop(struct target_session *session)
{
    (void)session;
}

void sim_target_start(struct sim_node *node)
{
    struct sim_target *t = calloc(1, sizeof(*t));
    ASSERT(t);
    node->target = t;
    target_init(&t->target, node->nodeid, MEMORY_BYTES, HOLD_MS, node->boot);
    t->target.now_ms = sim_clock_ms(node);
    t->target.forward = &forward_operations;
    t->target.forward_context = node;
    t->target.wake = wake;
    t->target.wake_context = node;
    if (!(node->sim->options.sim_bugs & SIM_BUG_RESERVE_EARLY))
        target_set_commit(&t->target, commit, node);
    for (unsigned v = 0; v < SIM_VOLUMES_MAX; v++) {
        t->devices[v].node = node;
        t->devices[v].volume = v;
        t->devices[v].block.operations = &device_operations;
        t->devices[v].block.kind = "sim";
        t->devices[v].block.geometry = (struct block_geometry){
            .size_bytes = SIM_VOLUME_BYTES, .block_bytes = SIM_BLOCK_BYTES, .physical_bytes = SIM_BLOCK_BYTES,
            .memory_alignment = 1, .max_transfer_bytes = 1u << 20, .max_unmap_bytes = 1u << 20,
            .capabilities = BLOCK_CAP_UNMAP | BLOCK_CAP_UNMAP_ZEROES | BLOCK_CAP_WRITE_ZEROES | BLOCK_CAP_COMPARE_AND_WRITE};
    }
    int result = target_put_iqn(&t->target, IQN);
    ASSERT(result == 0);
    (void)snprintf(t->session.nexus.initiator, sizeof(t->session.nexus.initiator), "iqn.2026-01.org.director:client%u", node->place);
    (void)snprintf(t->session.nexus.target, sizeof(t->session.nexus.target), IQN);
    t->session.iqn = target_find_iqn(&t->target, IQN);
    t->session.drop = drop;
    target_session_begin(&t->target, &t->session);
}

/* Whatever was under way has an unknown outcome. */
void sim_target_crash(struct sim_node *node)
{
    struct sim_target *t = node->target;
    if (!t)
        return;
    t->crashing = true;
    target_session_end(&t->target, &t->session);
    for (unsigned turn = 0; turn < 1000 && !target_is_quiet(&t->target); turn++) { /* the end of one may begin another */
        target_give_up(&t->target);
        while (t->ios)
            io_end(node, t->ios, -ECANCELED);
    }
    ASSERT(target_is_quiet(&t->target));
    target_done(&t->target);
    ASSERT(!t->commands);
    free(t);
    node->target = NULL;
}

/* ---- the initiator ---------------------------------------------------------------------------------------------------- */

static void command_forget(struct sim_target *t, struct command *command)
{
    struct command **at = &t->commands;
    while (*at != command)
        at = &(*at)->next;
    *at = command->next;
    t->command_count--;
}

static void keys_seen(struct sim_node *node, const struct command *command)
{
    struct sim *sim = node->sim;
    const uint8_t *data = command->task.scsi.buffer->data;
    uint32_t tags[SIM_NODES_MAX] = {0}, bytes = get_be32(data + 4);
    for (uint32_t at = 0; at + 8 <= bytes; at += 8) {
        uint64_t key = get_be64(data + 8 + at);
        uint32_t place = (uint32_t)(key >> 32) - 1;
        if (place < SIM_NODES_MAX)
            tags[place] = (uint32_t)key;
    }
    for (unsigned place = 0; place < sim->node_count; place++)
        sim_history_read(&sim->history, sim_target_key_block(command->volume, place), tags[place], command->invoked);
}

static void good(struct sim_node *node, const struct command *command)
{
    struct sim *sim = node->sim;
    uint32_t block = command->volume * SIM_BLOCKS + command->first;
    switch (command->purpose) {
    case FOR_READ:
        for (uint32_t i = 0; i < command->count; i++)
            sim_history_read(&sim->history, block + i, get_le32(command->task.scsi.buffer->data + i * SIM_BLOCK_BYTES),
                             command->invoked);
        break;
    case FOR_WRITE:
        for (uint32_t i = 0; i < command->count; i++)
            sim_history_written(&sim->history, block + i, command->tag, command->invoked);
        break;
    case FOR_COMPARE:
        sim_history_compared(&sim->history, block, command->tag, true, command->invoked);
        break;
    case FOR_KEY:
        sim_history_written(&sim->history, sim_target_key_block(command->volume, node->place), command->tag, command->invoked);
        break;
    case FOR_KEYS:
        keys_seen(node, command);
        break;
    default:
        break;
    }
    sim->counts.commands++;
}

static void command_done(struct target_task *task)
{
    struct command *command = container_of(task, struct command, task);
    struct sim_node *node = command->node;
    const struct scsi_task *scsi = &task->scsi;
    uint32_t sense = scsi->sense_bytes > 13 ? SCSI_SENSE(scsi->sense[2] & 15, scsi->sense[12], scsi->sense[13]) : 0;
    bool told = !node->target->crashing && !scsi->aborted;
    SIM_LOG(node->sim, "node %u: command %02x of v%u blocks %u+%u tag %u -> status %02x sense %06x%s", node->nodeid, scsi->cdb[0],
            command->volume, command->first, command->count, command->tag, scsi->status, sense, told ? "" : " (not told)");
    if (told && scsi->status == SCSI_GOOD)
        good(node, command);
    else if (told && command->purpose == FOR_COMPARE && sense == SCSI_SENSE_MISCOMPARE)
        sim_history_compared(&node->sim->history, command->volume * SIM_BLOCKS + command->first, command->tag, false, command->invoked);
    if (told && command->story) {
        command->story->status = scsi->status;
        command->story->sense = sense;
        command->story->data_in_bytes = MIN(scsi->data_in_bytes, (uint32_t)sizeof(command->story->data_in));
        if (command->story->data_in_bytes)
            memcpy(command->story->data_in, scsi->buffer->data, command->story->data_in_bytes);
    }
    command_forget(node->target, command);
    data_pool_put(&node->target->target.pool, scsi->buffer);
    free(command);
}

static struct command *command_new(struct sim_node *node, unsigned volume, enum purpose purpose, const uint8_t cdb[static 16])
{
    struct sim_target *t = node->target;
    struct command *command = calloc(1, sizeof(*command));
    uint64_t bytes;
    ASSERT(command);
    command->node = node;
    command->volume = volume;
    command->purpose = purpose;
    command->invoked = node->sim->world.now_us;
    command->next = t->commands;
    t->commands = command;
    t->command_count++;
    memcpy(command->task.scsi.cdb, cdb, SCSI_CDB_BYTES);
    command->task.session = &t->session;
    command->task.lun = (uint64_t)volume << 48;
    command->task.done = command_done;
    command->task.scsi.tag = (uint64_t)(uintptr_t)command;
    enum scsi_direction direction = target_command_data(&t->session, command->task.lun, cdb, &bytes);
    if (direction != SCSI_DATA_NONE) {
        command->task.scsi.buffer = target_buffer(&t->target, (uint32_t)bytes);
        ASSERT(command->task.scsi.buffer);
        memset(command->task.scsi.buffer->data, 0, bytes);
    }
    command->task.scsi.expected_bytes = (uint32_t)bytes;
    command->task.scsi.data_out_bytes = direction == SCSI_DATA_OUT ? (uint32_t)bytes : 0;
    return command;
}

static void submit(struct sim_node *node, uint64_t argument)
{
    struct command *command = (struct command *)(uintptr_t)argument;
    node->target->target.now_ms = sim_clock_ms(node);
    target_submit(&node->target->target, &command->task);
}

static void send(struct command *command)
{
    submit(command->node, (uint64_t)(uintptr_t)command);
}

static void access_by_lot(struct sim_node *node, unsigned volume)
{
    struct sim *sim = node->sim;
    struct sim_world *world = &sim->world;
    const struct sim_mix *mix = &sim->mix;
    uint8_t cdb[16] = {0};
    bool read = sim_chance(world, mix->reads), compare = !read && sim_chance(world, mix->compares);
    uint32_t first = sim_chance(world, mix->hot) ? (uint32_t)sim_random(world, mix->hot_blocks) * 7
                                                 : (uint32_t)sim_random(world, SIM_BLOCKS - 4);
    uint32_t count = compare ? 1 : 1 + (uint32_t)sim_random(world, 3);
    uint32_t block = volume * SIM_BLOCKS + first, expected = sim->seen[block];
    cdb[0] = read ? SCSI_READ_16 : compare ? SCSI_COMPARE_AND_WRITE : SCSI_WRITE_16;
    put_be64(cdb + 2, first);
    if (compare)
        cdb[13] = 1;
    else
        put_be32(cdb + 10, count);
    struct command *command = command_new(node, volume, read ? FOR_READ : compare ? FOR_COMPARE : FOR_WRITE, cdb);
    uint8_t *data = command->task.scsi.buffer->data;
    command->first = first;
    command->count = count;
    if (!read)
        command->tag = ++sim->next_tag;
    if (compare) {
        put_le32(data, expected);
        put_le32(data + SIM_BLOCK_BYTES, command->tag);
        sim_history_compare(&sim->history, block, expected, command->tag);
    }
    for (uint32_t i = 0; !read && !compare && i < count; i++) {
        put_le32(data + i * SIM_BLOCK_BYTES, command->tag);
        sim_history_write(&sim->history, block + i, command->tag);
    }
    send(command);
}

/* Our own key grows, or everybody's are read. One at a time. */
static void key_by_lot(struct sim_node *node, unsigned volume)
{
    struct sim *sim = node->sim;
    for (const struct command *c = node->target->commands; c; c = c->next)
        if (c->purpose == FOR_KEY || c->purpose == FOR_KEYS)
            return;
    if (sim_chance(&sim->world, 5000)) {
        send(command_new(node, volume, FOR_KEYS, (const uint8_t[16]){SCSI_PERSISTENT_RESERVE_IN, 0, 0, 0, 0, 0, 0, 4, 0}));
        return;
    }
    struct command *command =
        command_new(node, volume, FOR_KEY, (const uint8_t[16]){SCSI_PERSISTENT_RESERVE_OUT, 6, 0, 0, 0, 0, 0, 0, 24});
    command->tag = ++sim->next_tag;
    put_be64(command->task.scsi.buffer->data + 8, KEY(node->place, command->tag));
    sim_history_write(&sim->history, sim_target_key_block(volume, node->place), command->tag);
    send(command);
}

void sim_target_turn(struct sim_node *node, unsigned volume)
{
    struct sim_target *t = node->target;
    if (!node->up || node->paused || !t || !t->mapped[volume] || t->command_count >= COMMANDS_MAX)
        return;
    if (sim_chance(&node->sim->world, 1500))
        key_by_lot(node, volume);
    else
        access_by_lot(node, volume);
}

struct sim_command *sim_target_command(struct sim_node *node, unsigned volume, const uint8_t cdb[static 16], const uint8_t *data_out)
{
    struct sim *sim = node->sim;
    struct sim_command *story = calloc(1, sizeof(*story));
    ASSERT(story);
    story->status = -1;
    story->next = sim->commands;
    sim->commands = story;
    if (!node->up || !node->target)
        return story;
    struct command *command = command_new(node, volume, FOR_STORY, cdb);
    command->story = story;
    if (data_out)
        memcpy(command->task.scsi.buffer->data, data_out, command->task.scsi.data_out_bytes);
    send(command);
    return story;
}

struct sim_command *sim_target_reserve_out(struct sim_node *node, unsigned volume, uint8_t action, uint8_t type, uint64_t key,
                                           uint64_t service_key)
{
    uint8_t list[24] = {0};
    put_be64(list, key);
    put_be64(list + 8, service_key);
    return sim_target_command(node, volume, (const uint8_t[16]){SCSI_PERSISTENT_RESERVE_OUT, action, type, 0, 0, 0, 0, 0, 24}, list);
}
