/* The I/O thread of a node: for each volume its mirror and its replica, as agent/node/engine.c, engine_volume.c and
 * replication/io/mirror_device.c join them. A link counts for a volume only while both ends have it open (VOLUME_UP). */
#include "tests/simulation/sim_target.h"

#include "agent/node/volume_config.h"

#include <errno.h>
#include <string.h>

#define BLANK_RETRY_US 1000000u

/* ---- mail between the threads --------------------------------------------------------------------------------- */

enum mail_kind { MAIL_PUT, MAIL_AUTHORITY, MAIL_NODE_DEAD, MAIL_ASK_ISR, MAIL_BLANK, MAIL_RESERVE };

struct mail {
    struct sim_event event;
    enum mail_kind kind;
    unsigned volume;
    struct tree_volume config;
    bool authority;
    uint16_t nodeid;
    uint64_t boot, epoch, version, incarnation;
    uint32_t isr;
    unsigned replica;
    uint8_t *table; /* of reservations: the mail's */
    uint32_t table_bytes;
    uint64_t volume_id;
};

static void unit_update(struct sim_node *node, unsigned volume);

static void mail_drop(struct sim_event *event)
{
    struct mail *mail = container_of(event, struct mail, event);
    free(mail->table);
    free(mail);
}

static void node_dead(struct sim_node *node, const struct mail *mail)
{
    struct mirror_event event = {.type = MIRROR_EVENT_NODE_DEAD, .nodeid = mail->nodeid, .boot = mail->boot};
    uint64_t life = node->life;
    for (unsigned v = 0; v < SIM_VOLUMES_MAX; v++) {
        if (node->life == life && node->units[v].mirror)
            sim_unit_step_replica(node, v, &event);
        if (node->life == life && node->units[v].mirror)
            sim_unit_step_mirror(node, v, &event);
    }
    if (node->life == life)
        sim_target_node_dead(node, mail->nodeid);
}

static void mail_read(struct sim_world *world, struct sim_event *event)
{
    struct mail *mail = container_of(event, struct mail, event);
    struct sim_node *node = event->place;
    uint64_t life = node->life;
    (void)world;
    switch (mail->kind) {
    case MAIL_PUT:
        node->units[mail->volume].known = true;
        node->units[mail->volume].config = mail->config;
        node->units[mail->volume].replica = tree_volume_replica_of(&mail->config, node->nodeid);
        if (mail->version > node->units[mail->volume].reservations_version) {
            free(node->units[mail->volume].reservations);
            node->units[mail->volume].reservations = mail->table;
            node->units[mail->volume].reservations_bytes = mail->table_bytes;
            node->units[mail->volume].reservations_version = mail->version;
            mail->table = NULL;
        }
        unit_update(node, mail->volume);
        break;
    case MAIL_AUTHORITY:
        node->authority = mail->authority;
        for (unsigned v = 0; v < SIM_VOLUMES_MAX && node->life == life; v++)
            unit_update(node, v);
        break;
    case MAIL_NODE_DEAD:
        node_dead(node, mail);
        break;
    case MAIL_ASK_ISR:
        sim_control_ask_isr(node, mail->volume, mail->epoch, mail->version, mail->isr);
        break;
    case MAIL_BLANK:
        sim_control_blank(node, mail->volume, mail->replica, mail->incarnation);
        break;
    case MAIL_RESERVE:
        sim_control_reserve(node, mail->volume_id, mail->epoch, mail->version, mail->table, mail->table_bytes);
        break;
    }
    free(mail->table);
    free(mail);
}

static struct mail *mail_new(struct sim_node *node, enum mail_kind kind)
{
    struct mail *mail = calloc(1, sizeof(*mail));
    ASSERT(mail);
    (void)node;
    mail->event.run = mail_read;
    mail->event.drop = mail_drop;
    mail->kind = kind;
    return mail;
}

static void mail_send(struct sim_node *node, struct mail *mail)
{
    enum sim_thread to = mail->kind >= MAIL_ASK_ISR ? SIM_CONTROL : SIM_IO;
    sim_node_plan(node, to, &mail->event, sim_node_mail_at(node, to));
}

static void mail_table(struct mail *mail, uint64_t version, const uint8_t *bytes, uint32_t size)
{
    mail->table = malloc(size + 1u);
    ASSERT(mail->table);
    memcpy(mail->table, bytes, size);
    mail->table_bytes = size;
    mail->version = version;
}

void sim_unit_put(struct sim_node *node, unsigned volume, const struct tree_volume *config)
{
    struct mail *mail = mail_new(node, MAIL_PUT);
    const struct tree_reservation *reservation = tree_volume_reservation(node->control.tree, config->id);
    mail->volume = volume;
    mail->config = *config;
    if (reservation)
        mail_table(mail, reservation->version, reservation->table, reservation->table_bytes);
    mail_send(node, mail);
}

void sim_unit_reserve(struct sim_node *node, uint64_t volume_id, uint64_t epoch, uint64_t version, const uint8_t *bytes, uint32_t size)
{
    struct mail *mail = mail_new(node, MAIL_RESERVE);
    mail->volume_id = volume_id;
    mail->epoch = epoch;
    mail_table(mail, version, bytes, size);
    mail_send(node, mail);
}

void sim_unit_authority(struct sim_node *node, bool authority)
{
    struct mail *mail = mail_new(node, MAIL_AUTHORITY);
    mail->authority = authority;
    mail_send(node, mail);
}

void sim_unit_node_dead(struct sim_node *node, uint16_t nodeid, uint64_t boot)
{
    struct mail *mail = mail_new(node, MAIL_NODE_DEAD);
    mail->nodeid = nodeid;
    mail->boot = boot;
    mail_send(node, mail);
}

/* ---- the cores ------------------------------------------------------------------------------------------------ */

static void plan_tick(struct sim_node *node, unsigned volume);

static void tick(struct sim_node *node, uint64_t volume)
{
    struct mirror_event event = {.type = MIRROR_EVENT_TICK};
    struct sim_unit *unit = &node->units[volume];
    uint64_t life = node->life;
    unit->tick_at = 0;
    if (!unit->mirror)
        return;
    sim_unit_step_replica(node, (unsigned)volume, &event);
    if (node->life == life)
        sim_unit_step_mirror(node, (unsigned)volume, &event);
}

static void plan_tick(struct sim_node *node, unsigned volume)
{
    struct sim_unit *unit = &node->units[volume];
    uint64_t next = MIN(mirror_next_tick(unit->mirror), replica_next_tick(unit->core)), now = node->sim->world.now_us;
    if (next == UINT64_MAX)
        return;
    next = sim_clock_when(node, next);
    if (unit->tick_at > now && unit->tick_at <= next)
        return;
    unit->tick_at = next;
    sim_node_call(node, SIM_IO, next, tick, volume);
}

static void ask_isr(struct sim_node *node, unsigned volume, const struct mirror_effect *effect)
{
    struct mail *mail = mail_new(node, MAIL_ASK_ISR);
    mail->volume = volume;
    mail->epoch = effect->ask_isr.epoch;
    mail->version = effect->ask_isr.isr_version;
    mail->isr = effect->ask_isr.isr;
    SIM_LOG(node->sim, "node %u asks for isr %x of v%u at epoch %llu version %llu, reason %d", node->nodeid, mail->isr, volume,
            (unsigned long long)mail->epoch, (unsigned long long)mail->version, effect->ask_isr.reason);
    if (mail->isr == 0)
        sim_violate(&node->sim->world, "node %u asks for an empty in-sync set (I10)", node->nodeid);
    mail_send(node, mail);
}

static void perform(struct sim_node *node, unsigned volume, const struct mirror_effects *effects)
{
    struct sim *sim = node->sim;
    for (unsigned i = 0; i < effects->count; i++) {
        const struct mirror_effect *effect = &effects->items[i];
        if (sim->mishaps && sim_chance(&sim->world, sim->mix.crash_between)) { /* between any two effects */
            sim_node_crash(node, sim_chance(&sim->world, 5000) ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
            return;
        }
        switch (effect->type) {
        case MIRROR_EFFECT_SEND:
            sim_link_send(node, effect->send.nodeid - 1u, effect);
            break;
        case MIRROR_EFFECT_DISK_READ:
        case MIRROR_EFFECT_DISK_DIGEST:
        case MIRROR_EFFECT_DISK_WRITE:
        case MIRROR_EFFECT_DISK_FLUSH:
            sim_disk_submit(node, volume, effect);
            break;
        case MIRROR_EFFECT_META_WRITE:
        case MIRROR_EFFECT_META_REPLACE:
            sim_disk_submit_meta(node, volume, effect);
            break;
        case MIRROR_EFFECT_COMPLETE:
            if (!sim_target_complete(node, effect->complete.request, effect->complete.status))
                sim_client_finish(node, effect->complete.request, effect->complete.status);
            break;
        case MIRROR_EFFECT_RELEASE:
            sim_bytes_unref(&sim->data, effect->release);
            break;
        case MIRROR_EFFECT_ASK_ISR:
            ask_isr(node, volume, effect);
            break;
        default:
            break;
        }
    }
}

static void stepped(struct sim_node *node, unsigned volume, struct mirror_effects *effects)
{
    uint64_t life = node->life;
    perform(node, volume, effects);
    mirror_effects_done(effects);
    if (node->life == life)
        plan_tick(node, volume);
}

void sim_unit_step_mirror(struct sim_node *node, unsigned volume, struct mirror_event *event)
{
    struct mirror_effects effects = {0};
    if (mirror_step(node->units[volume].mirror, event, sim_clock_us(node), &effects) == -EPROTO)
        sim_violate(&node->sim->world, "node %u: a frame of node %u makes no sense to its mirror", node->nodeid, event->nodeid);
    stepped(node, volume, &effects);
}

void sim_unit_step_replica(struct sim_node *node, unsigned volume, struct mirror_event *event)
{
    struct mirror_effects effects = {0};
    if (replica_step(node->units[volume].core, event, sim_clock_us(node), &effects) == -EPROTO)
        sim_violate(&node->sim->world, "node %u: a frame of node %u makes no sense to its replica", node->nodeid, event->nodeid);
    stepped(node, volume, &effects);
}

bool sim_unit_serving(struct sim_node *node, unsigned volume)
{
    struct mirror_status status;
    if (!node->up || !node->units[volume].mirror || node->units[volume].closing)
        return false;
    mirror_get_status(node->units[volume].mirror, sim_clock_us(node), &status);
    return status.state != MIRROR_IDLE;
}

/* ---- opening -------------------------------------------------------------------------------------------------- */

static void tell_blank(struct sim_node *node, unsigned volume, uint64_t incarnation)
{
    struct mail *mail = mail_new(node, MAIL_BLANK);
    mail->volume = volume;
    mail->replica = (unsigned)node->units[volume].replica;
    mail->incarnation = incarnation;
    node->units[volume].blank_told_us = node->sim->world.now_us;
    mail_send(node, mail);
}

/* Look at the files, make what is missing. False: the disk found is not the one in use last (scenario 20). What was there
 * before and is not whole any more becomes a blank replica of a new incarnation, which is recorded, made, and must be committed
 * before it counts (I11); its old bytes stay until they are synced over. */
static bool make_files(struct sim_node *node, unsigned volume)
{
    struct sim_unit *unit = &node->units[volume];
    struct sim_disk *disk = &node->disks[volume];
    uint64_t *recorded = &node->log.recorded[volume], committed = unit->config.replicas[unit->replica].incarnation;
    struct metadata_header header = {.generation = 1, .volume = unit->config.id, .volume_uuid = unit->config.uuid,
                                     .node_uuid = node->uuid, .size_bytes = SIM_VOLUME_BYTES, .region_bytes = SIM_REGION_BYTES,
                                     .replica_index = (uint32_t)unit->replica}, found = {0};
    int checked = disk->meta_there ? metadata_header_decode(disk->meta, metadata_file_bytes(SIM_REGIONS), &found) : -ENOENT;
    if (checked == 0 && found.sealed_epoch < disk->sealed)
        sim_violate(&node->sim->world, "node %u: its metadata went back from epoch %llu to %llu (I2, I13)", node->nodeid,
                    (unsigned long long)disk->sealed, (unsigned long long)found.sealed_epoch);
    if (checked == 0 && *recorded == found.incarnation && tree_volume_retired(&unit->config, *recorded)) {
        disk->meta_there = false; /* removed and added again, or discarded: the bytes stay, nothing trusts them */
        checked = -ENOENT;
    }
    if (checked == 0 && disk->data_there) {
        if (found.incarnation != (*recorded ? *recorded : committed)) {
            SIM_LOG(node->sim, "node %u refuses a disk that was not in use last", node->nodeid);
            return false;
        }
        *recorded = unit->incarnation = found.incarnation;
        return true;
    }
    bool blank = *recorded || checked != -ENOENT;
    header.incarnation = blank ? ++node->sim->next_incarnation + 1000000 : committed;
    for (unsigned i = 0; i < unit->config.replica_count && !blank && unit->config.isr >> unit->replica & 1; i++)
        header.dirty_incarnation[i] = unit->config.replicas[i].incarnation;
    if (blank)
        SIM_LOG(node->sim, "node %u makes a blank replica of v%u", node->nodeid, volume);
    sim_disk_format(disk, &header);
    *recorded = unit->incarnation = header.incarnation;
    return true;
}

static void opened(struct sim_node *node, uint64_t volume)
{
    struct sim *sim = node->sim;
    struct sim_unit *unit = &node->units[volume];
    uint32_t bugs = sim->options.replication_bugs;
    if (unit->replica < 0 || unit->config.replicas[unit->replica].held) { /* news came meanwhile */
        unit->opening = false;
        return;
    }
    if (!make_files(node, (unsigned)volume))
        return; /* and again at the next start */
    struct mirror_parameters mirror = {
        .volume = unit->config.id, .size_bytes = SIM_VOLUME_BYTES, .region_bytes = SIM_REGION_BYTES, .nodeid = node->nodeid,
        .boot = node->boot, .now_us = sim_clock_us(node), .data = sim_data_operations(&sim->data), .requests_max = 8,
        .member_timeout_us = 300000, .write_timeout_us = 600000, .copy_bytes = SIM_REGION_BYTES / 2,
        .resync_backoff_us = 50000, .planted_bugs = bugs};
    struct replica_parameters replica = {.volume = unit->config.id, .nodeid = node->nodeid, .boot = node->boot,
                                         .now_us = sim_clock_us(node), .operations_max = 64, .intent_clear_us = 300000,
                                         .planted_bugs = bugs};
    replica.machine.bytes[0] = (uint8_t)node->machine;
    replica.machine.bytes[1] = node->nodeid;
    int result = replica_new(&replica, node->disks[volume].meta, metadata_file_bytes(SIM_REGIONS), &unit->core);
    if (result < 0) {
        sim_violate(&sim->world, "node %u cannot open its metadata of v%u: %d", node->nodeid, (unsigned)volume, result);
        return;
    }
    unit->mirror = mirror_new(&mirror);
    unit->opening = unit->closing = false;
    unit->place = unit->replica;
    unit->linked = 0;
    unit->blank_told_us = 0;
    for (unsigned peer = 0; peer < SIM_NODES_MAX; peer++)
        if (node->links[peer])
            sim_link_announce(node, peer, (unsigned)volume, true);
    unit_update(node, (unsigned)volume);
}

/* The disk in use is not the one committed: its incarnation is proposed until it is. */
static void blank_check(struct sim_node *node, uint64_t volume)
{
    struct sim_unit *unit = &node->units[volume];
    if (!unit->mirror || unit->closing || unit->replica < 0 ||
        unit->config.replicas[unit->replica].incarnation == unit->incarnation)
        return;
    if (unit->blank_told_us && node->sim->world.now_us - unit->blank_told_us < BLANK_RETRY_US)
        return;
    tell_blank(node, (unsigned)volume, unit->incarnation);
    sim_node_call(node, SIM_IO, node->sim->world.now_us + BLANK_RETRY_US, blank_check, volume);
}

static void closed(struct sim_node *node, uint64_t volume)
{
    struct sim_unit *unit = &node->units[volume];
    if (!unit->closing)
        return;
    if (node->disks[volume].writing || node->disks[volume].meta_pages) {
        sim_node_call(node, SIM_IO, node->sim->world.now_us + 200, closed, volume);
        return;
    }
    mirror_free(unit->mirror);
    replica_free(unit->core);
    unit->mirror = NULL;
    unit->core = NULL;
    unit->closing = false;
    unit_update(node, (unsigned)volume);
}

/* Its requests end, the peers are told, what is under way on the disk is awaited. */
static void unit_shut(struct sim_node *node, unsigned volume)
{
    struct sim_unit *unit = &node->units[volume];
    struct mirror_config none = volume_config(&unit->config);
    struct mirror_event event = {.type = MIRROR_EVENT_CONFIG, .config = &none};
    uint64_t life = node->life;
    SIM_LOG(node->sim, "node %u closes its replica of v%u", node->nodeid, volume);
    none.isr_version = UINT64_MAX;
    none.owner = 0;
    sim_unit_step_mirror(node, volume, &event);
    if (node->life != life)
        return;
    for (unsigned peer = 0; peer < SIM_NODES_MAX; peer++)
        if (peer != node->place && node->links[peer])
            sim_link_part(node, peer, volume);
    unit->closing = true;
    unit->linked = 0;
    sim_node_call(node, SIM_IO, node->sim->world.now_us + 200, closed, volume);
}

/* Do the files stand as is committed? engine_volume.c, unit_follow(). */
static bool unit_follow(struct sim_node *node, unsigned volume)
{
    struct sim_unit *unit = &node->units[volume];
    struct sim_world *world = &node->sim->world;
    const struct tree_replica *mine = unit->replica >= 0 ? &unit->config.replicas[unit->replica] : NULL;
    if (unit->mirror && !unit->closing &&
        (!mine || mine->held || unit->place != unit->replica || tree_volume_retired(&unit->config, unit->incarnation)))
        unit_shut(node, volume);
    if (unit->mirror)
        return !unit->closing;
    if (!mine && node->log.recorded[volume]) { /* removed: its files go */
        sim_disk_lose(&node->disks[volume]);
        node->log.recorded[volume] = 0;
    }
    if (mine && !mine->held && !unit->opening) {
        unit->opening = true;
        sim_node_call(node, SIM_IO, world->now_us + 500 + sim_random(world, 2000), opened, volume);
    }
    return false;
}

static void mirror_update(struct sim_node *node, unsigned volume)
{
    struct sim_unit *unit = &node->units[volume];
    bool bug = node->sim->options.sim_bugs & SIM_BUG_PUSH_BEFORE_CURRENT;
    uint64_t life = node->life;
    if (!unit->known || !(node->authority || bug) || !unit_follow(node, volume) || node->life != life)
        return;
    struct mirror_config config = volume_config(&unit->config);
    struct mirror_event event = {.type = MIRROR_EVENT_CONFIG, .config = &config};
    sim_unit_step_mirror(node, volume, &event);
    if (node->life == life)
        blank_check(node, volume);
}

static void unit_update(struct sim_node *node, unsigned volume)
{
    uint64_t life = node->life;
    mirror_update(node, volume);
    if (node->life == life)
        sim_target_update(node, volume);
}

/* ---- links ---------------------------------------------------------------------------------------------------- */

void sim_unit_link_up(struct sim_node *node, unsigned peer, uint64_t boot)
{
    node->links[peer] = boot;
    for (unsigned v = 0; v < SIM_VOLUMES_MAX; v++)
        if (node->units[v].mirror && !node->units[v].closing)
            sim_link_announce(node, peer, v, true);
}

void sim_unit_link_down(struct sim_node *node, unsigned peer)
{
    struct mirror_event event = {.type = MIRROR_EVENT_LINK_DOWN, .nodeid = (uint16_t)(peer + 1)};
    uint64_t life = node->life;
    node->links[peer] = 0;
    for (unsigned v = 0; v < SIM_VOLUMES_MAX && node->life == life; v++) {
        struct sim_unit *unit = &node->units[v];
        if (!unit->mirror || !(unit->linked & 1u << peer))
            continue;
        unit->linked &= ~(1u << peer);
        sim_unit_step_replica(node, v, &event);
        if (node->life == life)
            sim_unit_step_mirror(node, v, &event);
    }
    if (node->life == life)
        sim_target_link_down(node, peer);
}

void sim_unit_announced(struct sim_node *node, unsigned peer, unsigned volume, bool ask)
{
    struct sim_unit *unit = &node->units[volume];
    struct mirror_event event = {.type = MIRROR_EVENT_LINK_UP, .nodeid = (uint16_t)(peer + 1), .boot = node->links[peer]};
    uint64_t life = node->life;
    if (!unit->mirror || unit->closing || !node->links[peer])
        return; /* not open yet: it announces itself when it is */
    if (ask)
        sim_link_announce(node, peer, volume, false);
    if (unit->linked & 1u << peer)
        return;
    unit->linked |= 1u << peer;
    sim_unit_step_replica(node, volume, &event);
    if (node->life == life)
        sim_unit_step_mirror(node, volume, &event);
}

void sim_unit_parted(struct sim_node *node, unsigned peer, unsigned volume)
{
    struct mirror_event event = {.type = MIRROR_EVENT_LINK_DOWN, .nodeid = (uint16_t)(peer + 1)};
    struct sim_unit *unit = &node->units[volume];
    uint64_t life = node->life;
    if (!unit->mirror || !(unit->linked & 1u << peer))
        return;
    unit->linked &= ~(1u << peer);
    sim_unit_step_replica(node, volume, &event);
    if (node->life == life)
        sim_unit_step_mirror(node, volume, &event);
}

/* ---- the end -------------------------------------------------------------------------------------------------- */

void sim_unit_crash(struct sim_node *node, bool power)
{
    for (unsigned v = 0; v < SIM_VOLUMES_MAX; v++) {
        sim_disk_crash(node, v, power);
        mirror_free(node->units[v].mirror);
        replica_free(node->units[v].core);
        free(node->units[v].reservations);
        memset(&node->units[v], 0, sizeof(node->units[v]));
    }
    memset(node->links, 0, sizeof(node->links));
    node->authority = false;
}
