/* Links between nodes, as agent/io/peer_mesh.c and agent/node/engine.c make them. The data link of a pair carries heartbeats and
 * the frames of all volumes in order; when it breaks, what is on the way is lost. A reset is seen at once, a cut cable only by
 * silence. Control links are modelled by their heartbeats alone. */
#include "replication/core/message.h"
#include "tests/simulation/sim_target.h"

#include <string.h>

#define HEARTBEAT_DATA_US    50000u
#define HEARTBEAT_CONTROL_US 200000u
#define SILENCE_US           500000u /* a cut link is noticed; shorter than the mesh's, so that runs can be short */

enum frame_kind { FRAME_VOLUME, FRAME_ANNOUNCE, FRAME_PART, FRAME_BEAT, FRAME_BEAT_ACK, FRAME_UP, FRAME_DOWN, FRAME_SCSI, FRAME_CONTROL_BEAT };

struct frame {
    struct sim_event event;
    enum frame_kind kind;
    unsigned from;
    uint64_t generation; /* of the link */
    uint64_t time;       /* BEAT: sent; UP: boot */
    unsigned volume;
    bool ask, damaged;
    struct peer_header header;
    uint8_t *body;
    uint32_t body_bytes, data_bytes;
    struct sim_bytes *data;
    uint64_t data_offset;
    struct sim_data *pool;
};

struct sim_link *sim_link_between(struct sim *sim, unsigned a, unsigned b)
{
    return &sim->links[MIN(a, b)][MAX(a, b)];
}

static void frame_free(struct frame *frame)
{
    sim_bytes_unref(frame->pool, frame->data);
    free(frame->body);
    free(frame);
}

static void frame_drop(struct sim_event *event)
{
    frame_free(container_of(event, struct frame, event));
}

static void frame_arrives(struct sim_world *world, struct sim_event *event);

static struct frame *frame_new(struct sim *sim, enum frame_kind kind, unsigned from)
{
    struct frame *frame = calloc(1, sizeof(*frame));
    ASSERT(frame);
    frame->event.run = frame_arrives;
    frame->event.drop = frame_drop;
    frame->kind = kind;
    frame->from = from;
    frame->pool = &sim->data;
    return frame;
}

static struct frame *transmit(struct sim_node *from, unsigned to, enum frame_kind kind)
{
    struct sim *sim = from->sim;
    struct sim_world *world = &sim->world;
    struct sim_link *link = sim_link_between(sim, from->place, to);
    bool self = from->place == to;
    if (!self && !link->up)
        return NULL;
    struct frame *frame = frame_new(sim, kind, from->place);
    uint64_t at = world->now_us;
    if (!self) {
        uint64_t *last = &link->last_at[from->place < to];
        at += 50 + sim_random(world, sim->mishaps && sim_chance(world, sim->mix.slow_frame) ? 30000 : 600);
        at = *last = MAX(at, *last + 1);
        frame->generation = link->generation;
        frame->damaged = sim->mishaps && sim_chance(world, sim->mix.wire);
    }
    sim_node_plan(&sim->nodes[to], SIM_IO, &frame->event, at);
    return frame;
}

/* ---- up and down ---------------------------------------------------------------------------------------------- */

static void tell_down(struct sim *sim, unsigned to, unsigned peer, uint64_t at)
{
    if (!sim->nodes[to].up)
        return;
    struct frame *frame = frame_new(sim, FRAME_DOWN, peer);
    sim_node_plan(&sim->nodes[to], SIM_IO, &frame->event, at);
}

void sim_link_break(struct sim *sim, unsigned a, unsigned b)
{
    struct sim_link *link = sim_link_between(sim, a, b);
    struct sim_world *world = &sim->world;
    if (!link->up)
        return;
    link->up = false;
    link->generation++;
    uint64_t silence = link->cut && !sim_chance(world, 3000) ? SILENCE_US : 0;
    uint64_t down[2] = {world->now_us + silence + sim_random(world, 30000), world->now_us + silence + sim_random(world, 30000)};
    link->down_at = MAX(down[0], down[1]);
    tell_down(sim, a, b, down[0]);
    tell_down(sim, b, a, down[1]);
}

void sim_link_make(struct sim *sim, unsigned a, unsigned b)
{
    struct sim_link *link = sim_link_between(sim, a, b);
    struct sim_world *world = &sim->world;
    if (link->up || link->cut || !sim->nodes[a].up || !sim->nodes[b].up ||
        sim->nodes[a].paused || sim->nodes[b].paused)
        return;
    if (world->now_us <= link->down_at) /* also when a process started anew: its peer first drops the old link */
        return;
    link->up = true;
    link->generation++;
    uint64_t at = world->now_us + 30000 + sim_random(world, 20000);
    link->last_at[0] = link->last_at[1] = at + 1000;
    for (int side = 0; side < 2; side++) {
        unsigned to = side ? a : b, from = side ? b : a;
        struct frame *frame = frame_new(sim, FRAME_UP, from);
        frame->generation = link->generation;
        frame->time = sim->nodes[from].boot;
        sim_node_plan(&sim->nodes[to], SIM_IO, &frame->event, at);
    }
}

void sim_link_cut(struct sim *sim, unsigned a, unsigned b, bool cut)
{
    sim_link_between(sim, a, b)->cut = cut;
    if (cut)
        sim_link_break(sim, a, b);
    else
        sim_link_make(sim, a, b);
}

/* ---- frames --------------------------------------------------------------------------------------------------- */

void sim_link_send(struct sim_node *from, unsigned to, const struct mirror_effect *send)
{
    struct sim *sim = from->sim;
    struct frame *frame = transmit(from, to, FRAME_VOLUME);
    if (sim->world.verbose)
        SIM_LOG(sim, "  %u -> %u: v%llu type %02x epoch %llu request %llu argument %lld%s", from->nodeid, to + 1, (unsigned long long)send->send.header.object, send->send.header.type,
                (unsigned long long)send->send.header.epoch, (unsigned long long)send->send.header.request,
                (long long)send->send.header.argument, frame ? "" : " (no link)");
    if (!frame)
        return;
    frame->header = send->send.header;
    frame->volume = (unsigned)send->send.header.object;
    frame->body_bytes = send->send.body_bytes + send->send.blob_bytes;
    frame->body = malloc(frame->body_bytes + 1);
    ASSERT(frame->body);
    memcpy(frame->body, send->send.body, send->send.body_bytes);
    if (send->send.blob_bytes)
        memcpy(frame->body + send->send.body_bytes, send->send.blob, send->send.blob_bytes);
    frame->data_bytes = send->send.data_bytes;
    struct sim_bytes *data = send->send.data.handle;
    if (data && (to == from->place || send->send.header.type == MIRROR_DIGEST_REPLY)) { /* (digests are not counted in blocks) */
        sim_bytes_ref(data);
        frame->data = data;
        frame->data_offset = send->send.data.offset;
    } else if (data && frame->data_bytes) {
        frame->data = sim_bytes_new(&sim->data, frame->data_bytes);
        memcpy(frame->data->tags, data->tags + send->send.data.offset / SIM_BLOCK_BYTES,
               frame->data_bytes / SIM_BLOCK_BYTES * sizeof(uint32_t));
    }
}

bool sim_link_send_scsi(struct sim_node *from, unsigned to, const struct peer_header *header, uint8_t *payload)
{
    struct frame *frame = transmit(from, to, FRAME_SCSI);
    if (!frame)
        return false;
    frame->header = *header;
    frame->body = payload;
    return true;
}

void sim_link_announce(struct sim_node *from, unsigned to, unsigned volume, bool ask)
{
    struct frame *frame = transmit(from, to, FRAME_ANNOUNCE);
    if (!frame)
        return;
    frame->volume = volume;
    frame->ask = ask;
}

void sim_link_part(struct sim_node *from, unsigned to, unsigned volume)
{
    struct frame *frame = transmit(from, to, FRAME_PART);
    if (frame)
        frame->volume = volume;
}

static void volume_frame(struct sim_node *node, struct frame *frame)
{
    struct mirror_event event = {.type = MIRROR_EVENT_MESSAGE, .nodeid = (uint16_t)(frame->from + 1)};
    unsigned volume = frame->volume; /* the tree's id */
    int place = -1;
    for (unsigned v = 0; v < SIM_VOLUMES_MAX; v++)
        if (node->units[v].known && node->units[v].config.id == volume)
            place = (int)v;
    if (place < 0 || !node->units[place].mirror || node->units[place].closing)
        return;
    event.message.header = frame->header;
    event.message.body = frame->body;
    event.message.body_bytes = frame->body_bytes;
    event.message.data_bytes = frame->data_bytes;
    event.message.data = (struct mirror_data){frame->data, frame->data_offset};
    frame->data = NULL; /* its reference goes along */
    if (mirror_message_to_member(frame->header.type))
        sim_unit_step_replica(node, (unsigned)place, &event);
    else
        sim_unit_step_mirror(node, (unsigned)place, &event);
}

static void heartbeat(struct sim_node *node, struct frame *frame)
{
    uint64_t life = node->life;
    struct mirror_event event = {.nodeid = (uint16_t)(frame->from + 1)};
    bool beat = frame->kind == FRAME_BEAT;
    event.type = beat ? MIRROR_EVENT_HEARTBEAT_ANSWERED_BY_US : MIRROR_EVENT_HEARTBEAT_ANSWERED;
    event.time_us = beat ? sim_clock_us(node) : frame->time;
    for (unsigned v = 0; v < SIM_VOLUMES_MAX && node->life == life; v++) {
        struct sim_unit *unit = &node->units[v];
        if (!unit->mirror || unit->closing)
            continue;
        if (beat) /* linked or not: a promise once given binds (I7) */
            sim_unit_step_replica(node, v, &event);
        else if (unit->linked & 1u << frame->from)
            sim_unit_step_mirror(node, v, &event);
    }
    if (!beat || node->life != life)
        return;
    struct frame *ack = sim_link_between(node->sim, node->place, frame->from)->generation == frame->generation
                            ? transmit(node, frame->from, FRAME_BEAT_ACK) : NULL;
    if (ack)
        ack->time = frame->time;
}

/* TLS finds every flipped bit: the connection ends there and is made anew, nothing of the frame is used (scenario 32). */
static bool damage_found(struct sim_node *node, struct frame *frame)
{
    struct sim *sim = node->sim;
    if (!frame->damaged)
        return false;
    sim->counts.damaged++;
    if (sim->options.sim_bugs & SIM_BUG_NO_WIRE_CHECK) {
        for (uint32_t i = 0; frame->data && i < frame->data->count; i++)
            frame->data->tags[i] ^= 1u << sim_random(&sim->world, 31);
        return false;
    }
    SIM_LOG(sim, "node %u: a frame of node %u is damaged, the link ends", node->nodeid, frame->from + 1);
    sim_link_break(sim, node->place, frame->from);
    return true;
}

static void frame_arrives(struct sim_world *world, struct sim_event *event)
{
    struct frame *frame = container_of(event, struct frame, event);
    struct sim_node *node = event->place;
    bool self = frame->from == node->place;
    bool on_link = frame->kind != FRAME_DOWN && frame->kind != FRAME_CONTROL_BEAT && !self;
    (void)world;
    if (on_link && (sim_link_between(node->sim, node->place, frame->from)->generation != frame->generation ||
                    damage_found(node, frame))) {
        frame_free(frame);
        return;
    }
    switch (frame->kind) {
    case FRAME_VOLUME:
        volume_frame(node, frame);
        break;
    case FRAME_SCSI:
        sim_target_receive(node, frame->from, &frame->header, frame->body);
        break;
    case FRAME_ANNOUNCE:
        sim_unit_announced(node, frame->from, frame->volume, frame->ask);
        break;
    case FRAME_PART:
        sim_unit_parted(node, frame->from, frame->volume);
        break;
    case FRAME_BEAT:
    case FRAME_BEAT_ACK:
        heartbeat(node, frame);
        break;
    case FRAME_UP:
        sim_unit_link_up(node, frame->from, frame->time);
        break;
    case FRAME_DOWN:
        sim_unit_link_down(node, frame->from);
        break;
    case FRAME_CONTROL_BEAT:
        node->control.heard_ms[frame->from] = sim_clock_ms(node);
        break;
    }
    frame_free(frame);
}

/* ---- heartbeats ----------------------------------------------------------------------------------------------- */

static void beat_data(struct sim_node *node, uint64_t argument)
{
    struct sim *sim = node->sim;
    (void)argument;
    for (unsigned other = 0; other < sim->node_count; other++) {
        struct frame *beat = other != node->place ? transmit(node, other, FRAME_BEAT) : NULL;
        if (beat)
            beat->time = sim_clock_us(node);
    }
    sim_node_call(node, SIM_IO, sim->world.now_us + HEARTBEAT_DATA_US, beat_data, 0);
}

static void beat_control(struct sim_node *node, uint64_t argument)
{
    struct sim *sim = node->sim;
    (void)argument;
    for (unsigned other = 0; other < sim->node_count; other++) {
        if (other == node->place || !sim->nodes[other].up || sim_link_between(sim, node->place, other)->cut)
            continue;
        struct frame *beat = frame_new(sim, FRAME_CONTROL_BEAT, node->place);
        sim_node_plan(&sim->nodes[other], SIM_CONTROL, &beat->event, sim->world.now_us + 100 + sim_random(&sim->world, 1000));
    }
    sim_node_call(node, SIM_CONTROL, sim->world.now_us + HEARTBEAT_CONTROL_US, beat_control, 0);
}

/* Links that can be, are made, now and again. */
static void reconnect(struct sim_node *node, uint64_t argument)
{
    struct sim *sim = node->sim;
    (void)argument;
    for (unsigned other = 0; other < sim->node_count; other++)
        if (other != node->place)
            sim_link_make(sim, node->place, other);
    sim_node_call(node, SIM_OUTSIDE, sim->world.now_us + 40000 + sim_random(&sim->world, 20000), reconnect, 0);
}

void sim_link_start(struct sim_node *node)
{
    uint64_t now = node->sim->world.now_us;
    sim_node_call(node, SIM_IO, now + sim_random(&node->sim->world, HEARTBEAT_DATA_US), beat_data, 0);
    sim_node_call(node, SIM_CONTROL, now + sim_random(&node->sim->world, HEARTBEAT_CONTROL_US), beat_control, 0);
    sim_node_call(node, SIM_OUTSIDE, now + 1, reconnect, 0);
}
