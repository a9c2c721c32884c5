#include "tests/simulation/mirror_world.h"

#include <errno.h>
#include <string.h>

struct sim_world world;
struct sim_data pool;
struct sim_history history;
struct node nodes[NODES];
struct cluster_link links[NODES + 1][NODES + 1];
struct mirror_config committed;
uint64_t incarnations[NODES];
uint32_t next_tag;
bool calm, write_back, convalescent;
uint32_t bugs;
uint64_t patience_us;
unsigned done_reads, done_writes, failed_ops, promotions, crashes;
bool trace, verbose;

struct happening *plan(uint64_t at, enum what what, unsigned node)
{
    struct happening *h = calloc(1, sizeof(*h));
    h->event.run = happening_run;
    h->event.drop = happening_drop;
    h->what = what;
    h->node = node;
    h->boot = node < NODES ? nodes[node].boot : 0;
    sim_plan(&world, &h->event, at);
    return h;
}
/* Awake again: all that came meanwhile happens now, in its order, before anything later. */
void wake(unsigned n)
{
    if (nodes[n].paused && committed.policy.verified_reads) /* a hypervisor stops the clock too (scenario 7) */
        nodes[n].skew -= world.now_us - nodes[n].paused_at;
    nodes[n].paused = false;
    sim_queue_release(&world, &nodes[n].held);
}
void happening_free(struct happening *h)
{
    sim_bytes_unref(&pool, h->data);
    free(h->body);
    free(h);
}

uint64_t clock_of(unsigned n)
{
    return world.now_us + nodes[n].skew;
}

void link_break(unsigned a, unsigned b)
{
    if (!LINK(a, b).up)
        return;
    LINK(a, b).up = false;
    LINK(a, b).generation++;
    if (a == SERVICE || b == SERVICE)
        return;
    /* A reset is seen at once; silence (a cut cable) only when the link times out. */
    bool silent = !calm && chance(4000);
    uint64_t down[2] = {world.now_us + (silent ? 500000 : 0) + rnd(30000), world.now_us + (silent ? 500000 : 0) + rnd(30000)};
    LINK(a, b).down_at = MAX(down[0], down[1]);
    struct happening *h = plan(down[0], W_LINK_DOWN, a);
    h->from = b;
    h->link = LINK(a, b).generation;
    h = plan(down[1], W_LINK_DOWN, b);
    h->from = a;
    h->link = LINK(a, b).generation;
}
void link_make(unsigned a, unsigned b)
{
    if (LINK(a, b).up || LINK(a, b).cut || !nodes[a].up || !nodes[b].up)
        return;
    if (world.now_us <= LINK(a, b).down_at) /* also when a process has started anew: its peer first drops the old link */
        return;
    LINK(a, b).up = true;
    LINK(a, b).generation++;
    uint64_t at = world.now_us + 30000 + rnd(20000); /* after any LINK_DOWN of the former one */
    LINK(a, b).last_at[0] = LINK(a, b).last_at[1] = at + 1000;
    for (int side = 0; side < 2; side++) {
        struct happening *h = plan(at, W_LINK_UP, side ? a : b);
        h->from = side ? b : a;
        h->link = LINK(a, b).generation;
    }
}

/* Frames of one link arrive in order; those still on the way when it breaks may or may not (they carry its generation). */
struct happening *transmit(unsigned from, unsigned to, enum what what)
{
    if (from != to && !LINK(from, to).up)
        return NULL;
    uint64_t *last = &LINK(from, to).last_at[from < to];
    uint64_t at = world.now_us + (from == to ? 0 : 50 + rnd(chance(300) ? 30000 : 600));
    if (from != to && at <= *last)
        at = *last + 1;
    if (from != to)
        *last = at;
    struct happening *h = plan(at, what, to);
    h->from = from;
    h->link = LINK(from, to).generation;
    return h;
}


/* ---- history ------------------------------------------------------------------------------------------------------- */

static void op_done(struct client_op *op, int status)
{
    if (op->flush) {
        TRACE("node %u flush -> %d", op->node, status);
        if (status == 0)
            durable_flushed(op->invoked);
        return;
    }
    for (uint32_t i = 0; i < op->count; i++) {
        uint32_t block = op->first + i;
        if (status)
            continue;
        if (op->read)
            sim_history_read(&history, block, op->data->tags[i], op->invoked);
        else
            sim_history_written(&history, block, op->tag, op->invoked);
        if (!op->read)
            durable_written(block, op->tag, op->invoked);
    }
    TRACE("node %u %s blocks %u+%u tag %u -> %d%s", op->node, op->read ? "read" : "write", op->first, op->count,
          op->read && !status ? op->data->tags[0] : op->tag, status, "");
    if (status)
        failed_ops++;
    else if (op->read)
        done_reads++;
    else
        done_writes++;
}

/* ---- effects ------------------------------------------------------------------------------------------------------- */

static void perform_send(unsigned n, const struct mirror_effect *e)
{
    unsigned to = e->send.nodeid - 1u;
    struct happening *h = transmit(n, to, W_MESSAGE);
    if (verbose)
        TRACE("  %u -> %u: type %02x request %llu argument %lld%s", n, to, e->send.header.type,
              (unsigned long long)e->send.header.request, (long long)e->send.header.argument, h ? "" : " (no link)");
    if (!h)
        return;
    h->header = e->send.header;
    h->body_bytes = e->send.body_bytes + e->send.blob_bytes;
    h->body = malloc(h->body_bytes);
    memcpy(h->body, e->send.body, e->send.body_bytes);
    if (e->send.blob_bytes)
        memcpy(h->body + e->send.body_bytes, e->send.blob, e->send.blob_bytes);
    h->data_bytes = e->send.data_bytes;
    struct sim_bytes *data = e->send.data.handle;
    if (!data)
        return;
    if (to == n || e->send.header.type == MIRROR_DIGEST_REPLY) { /* (digests are not counted in blocks) */
        data->references++;
        h->data = data;
        h->data_offset = e->send.data.offset;
    } else if (h->data_bytes) {
        h->data = sim_bytes_new(&pool, h->data_bytes);
        memcpy(h->data->tags, data->tags + e->send.data.offset / BLOCK, h->data_bytes / BLOCK * 4);
    }
}

static void perform_disk(unsigned n, const struct mirror_effect *e)
{
    struct disk_write *d = calloc(1, sizeof(*d));
    d->read = e->type == MIRROR_EFFECT_DISK_READ || e->type == MIRROR_EFFECT_DISK_DIGEST;
    if (e->type == MIRROR_EFFECT_DISK_DIGEST)
        d->digest = *e;
    d->token = e->disk.token;
    d->operation = e->disk.operation;
    d->fua = e->disk.flags & BLOCK_FUA;
    if (e->type == MIRROR_EFFECT_DISK_FLUSH) {
        d->snapshot = malloc(sizeof(nodes[n].cache));
        memcpy(d->snapshot, nodes[n].cache, sizeof(nodes[n].cache));
    }
    d->offset = e->disk.offset_bytes;
    d->length = e->disk.length_bytes;
    d->data = e->disk.data.handle;
    d->data_offset = e->disk.data.offset;
    if (d->data)
        d->data->references++;
    d->next = nodes[n].writing;
    nodes[n].writing = d;
    plan(world.now_us + 20 + rnd(chance(300) ? 20000 : 300), W_DISK, n)->disk = d;
}

static void disk_settle(struct disk_cache *block, uint32_t tag, uint64_t version)
{
    if (version <= block->stable_version)
        return;
    block->stable = tag;
    block->stable_version = version;
}

void disk_apply(struct node *node, const struct disk_write *d, uint32_t blocks)
{
    for (uint32_t i = 0; i < BLOCKS && d->snapshot; i++)
        disk_settle(&node->cache[i], d->snapshot[i].tag, d->snapshot[i].version);
    for (uint32_t i = 0; i < blocks && !d->read && !d->snapshot; i++) {
        uint32_t at = (uint32_t)(d->offset / BLOCK) + i;
        struct disk_cache *block = &node->cache[at];
        node->bad[at] = false;
        node->disk[at] = block->tag = d->operation == BLOCK_WRITE ? d->data->tags[d->data_offset / BLOCK + i] : 0;
        block->version++;
        if (d->fua)
            disk_settle(block, block->tag, block->version);
    }
}

void disk_free(struct disk_write *d)
{
    sim_bytes_unref(&pool, d->data);
    free(d->snapshot);
    free(d);
}

/* The volatile cache is gone: of each block what was stable, or what happened to be written out. */
static void disk_power_loss(struct node *node)
{
    for (uint32_t i = 0; i < BLOCKS; i++) {
        struct disk_cache *block = &node->cache[i];
        if (block->version != block->stable_version && chance(5000))
            disk_settle(block, block->tag, block->version);
        node->disk[i] = block->tag = block->stable;
        block->version = block->stable_version;
    }
}

static void client_finish(unsigned n, struct mirror_request *request, int status)
{
    struct client_op *op = container_of(request, struct client_op, request);
    for (struct client_op **at = &nodes[n].ops; *at; at = &(*at)->next)
        if (*at == op) {
            *at = op->next;
            break;
        }
    op_done(op, status);
    sim_bytes_unref(&pool, op->data);
    free(op);
}

static void perform(unsigned n, struct mirror_effects *effects)
{
    struct node *node = &nodes[n];
    for (unsigned i = 0; i < effects->count; i++) {
        const struct mirror_effect *e = &effects->items[i];
        if (!calm && !convalescent && chance(4)) {
            crash(n, chance(5000) && (!write_back || healthy())); /* between any two effects */
            return;
        }
        switch (e->type) {
        case MIRROR_EFFECT_SEND:
            perform_send(n, e);
            break;
        case MIRROR_EFFECT_DISK_READ:
        case MIRROR_EFFECT_DISK_DIGEST:
        case MIRROR_EFFECT_DISK_WRITE:
        case MIRROR_EFFECT_DISK_FLUSH:
            perform_disk(n, e);
            break;
        case MIRROR_EFFECT_META_WRITE:
            ASSERT(!node->meta_pages);
            node->meta_count = e->meta.count;
            node->meta_pages = malloc(e->meta.count * sizeof(*node->meta_pages));
            memcpy(node->meta_pages, e->meta.pages, e->meta.count * sizeof(*node->meta_pages));
            plan(world.now_us + 20 + rnd(chance(300) ? 20000 : 400), W_META, n);
            break;
        case MIRROR_EFFECT_META_REPLACE:
            ASSERT(!node->meta_pages && !node->meta_whole);
            node->meta_whole_bytes = e->replace.bytes;
            node->meta_whole = malloc(e->replace.bytes);
            memcpy(node->meta_whole, e->replace.image, e->replace.bytes);
            plan(world.now_us + 20 + rnd(chance(300) ? 20000 : 4000), W_META, n);
            break;
        case MIRROR_EFFECT_COMPLETE:
            client_finish(n, e->complete.request, e->complete.status);
            break;
        case MIRROR_EFFECT_RELEASE:
            sim_bytes_unref(&pool, e->release);
            break;
        case MIRROR_EFFECT_ASK_ISR: {
            struct happening *h = transmit(n, SERVICE, W_ASK);
            if (h) {
                h->config.epoch = e->ask_isr.epoch;
                h->config.isr_version = e->ask_isr.isr_version;
                h->isr = e->ask_isr.isr;
            }
            TRACE("node %u asks isr %x at epoch %llu version %llu reason %d", n, e->ask_isr.isr,
                  (unsigned long long)e->ask_isr.epoch, (unsigned long long)e->ask_isr.isr_version, e->ask_isr.reason);
            break;
        }
        default:
            break;
        }
    }
}

static void plan_tick(unsigned n)
{
    struct node *node = &nodes[n];
    uint64_t next = MIN(mirror_next_tick(node->mirror), replica_next_tick(node->replica));
    if (next == UINT64_MAX)
        return;
    next = next > clock_of(n) ? next - node->skew : world.now_us + 1;
    if (node->tick_at > world.now_us && node->tick_at <= next)
        return;
    node->tick_at = next;
    plan(next, W_TICK, n);
}

void step_mirror(unsigned n, struct mirror_event *event)
{
    struct mirror_effects effects = {0};
    uint64_t boot = nodes[n].boot;
    mirror_step(nodes[n].mirror, event, clock_of(n), &effects);
    perform(n, &effects);
    mirror_effects_done(&effects);
    if (nodes[n].up && nodes[n].boot == boot)
        plan_tick(n);
}
void step_replica(unsigned n, struct mirror_event *event)
{
    struct mirror_effects effects = {0};
    uint64_t boot = nodes[n].boot;
    replica_step(nodes[n].replica, event, clock_of(n), &effects);
    perform(n, &effects);
    mirror_effects_done(&effects);
    if (nodes[n].up && nodes[n].boot == boot)
        plan_tick(n);
}
void step_both(unsigned n, struct mirror_event *event)
{
    uint64_t boot = nodes[n].boot;
    step_replica(n, event);
    if (nodes[n].up && nodes[n].boot == boot)
        step_mirror(n, event);
}

/* A new metadata file takes the place of the old one, or does not. */
void meta_replace(struct node *node, bool done)
{
    free(done ? node->meta : node->meta_whole);
    if (done) {
        node->meta = node->meta_whole;
        node->meta_bytes = node->meta_whole_bytes;
    }
    node->meta_whole = NULL;
}

bool healthy(void)
{
    struct mirror_status status;
    unsigned owner = committed.owner - 1u;
    for (unsigned n = 0; n < NODES; n++) {
        if (memchr(nodes[n].bad, true, sizeof(nodes[n].bad)))
            return false;
        if (!nodes[n].up || nodes[n].paused || nodes[n].seen.isr_version != committed.isr_version)
            return false;
        for (unsigned other = 0; other <= NODES; other++)
            if (other != n && (LINK(n, other).cut || !LINK(n, other).up))
                return false;
    }
    mirror_get_status(nodes[owner].mirror, clock_of(owner), &status);
    return status.state == MIRROR_SERVING && status.isr == (1u << NODES) - 1 && !status.suspended && !status.unreconciled_regions;
}

/* ---- nodes --------------------------------------------------------------------------------------------------------- */

void crash(unsigned n, bool power)
{
    struct node *node = &nodes[n];
    if (!node->up)
        return;
    TRACE("node %u crashes%s", n, power ? " (power)" : "");
    crashes++;
    wake(n);
    node->up = false;
    for (struct disk_write *d = node->writing, *after; d; d = after) {
        after = d->next;
        d->fua = d->fua && chance(5000); /* seen, and perhaps not stable */
        if (!d->snapshot)
            disk_apply(node, d, power ? (uint32_t)rnd(d->length / BLOCK + 1) : chance(5000) ? (uint32_t)(d->length / BLOCK) : 0);
        disk_free(d);
    }
    node->writing = NULL;
    if (power) {
        disk_power_loss(node);
        node->machine++;
        convalescent = write_back && !calm;
    }
    for (unsigned i = 0; i < node->meta_count; i++) {
        struct metadata_page *page = &node->meta_pages[i];
        if (chance(5000))
            memcpy(node->meta + page->offset_bytes, page->bytes, power && chance(2000) ? 1 + rnd(4000) : 4096);
    }
    free(node->meta_pages);
    node->meta_pages = NULL;
    node->meta_count = 0;
    meta_replace(node, node->meta_whole && chance(5000));
    while (node->ops) {
        struct client_op *op = node->ops;
        node->ops = op->next;
        TRACE("node %u forgets %s blocks %u+%u tag %u", n, op->read ? "read" : "write", op->first, op->count, op->tag);
        sim_bytes_unref(&pool, op->data);
        free(op);
    }
    for (unsigned other = 0; other <= NODES; other++)
        if (other != n)
            link_break(n, other);
    struct happening *h;
    for (unsigned other = 0; other < NODES && !power; other++)
        if (other != n && !LINK(n, SERVICE).cut && !LINK(other, SERVICE).cut) { /* CPG sees the process die */
            h = plan(world.now_us + 1000 + rnd(5000), W_DEAD, other);
            h->from = n;
            h->time = node->boot;
        }
    /* freed lazily: we may be inside a step of it */
    struct mirror *mirror = node->mirror;
    struct replica *replica = node->replica;
    node->mirror = NULL;
    node->replica = NULL;
    mirror_free(mirror);
    replica_free(replica);
    node->boot++;
    plan(world.now_us + 1000 + rnd(chance(5000) ? 100000 : 1500000), W_RESTART, n);
}

static struct mirror_parameters mirror_parameters_of(unsigned n)
{
    return (struct mirror_parameters){
        .volume = 7, .size_bytes = committed.size_bytes, .nodeid = (uint16_t)(n + 1),
        .boot = nodes[n].boot, .now_us = clock_of(n),
        .data = sim_data_operations(&pool),
        .requests_max = 8, .member_timeout_us = 200000, .write_timeout_us = 500000, .copy_bytes = REGION / 2,
        .resync_backoff_us = 50000, .planted_bugs = bugs};
}

void start(unsigned n)
{
    struct node *node = &nodes[n];
    struct mirror_parameters mp = mirror_parameters_of(n);
    struct replica_parameters rp = {.volume = 7, .nodeid = (uint16_t)(n + 1), .boot = node->boot, .now_us = clock_of(n),
                                    .operations_max = 64, .intent_clear_us = 300000, .planted_bugs = bugs};
    rp.machine.bytes[0] = (uint8_t)node->machine;
    rp.machine.bytes[1] = (uint8_t)(n + 1);
    node->up = true;
    node->room = MAX(node->room, room_needed()); /* before it is opened */
    rp.data_bytes = node->room;
    node->tick_at = 0;
    node->mirror = mirror_new(&mp);
    int result = replica_new(&rp, node->meta, node->meta_bytes, &node->replica);
    if (result < 0) {
        sim_violate(&world, "node %u cannot open its metadata: %d", n, result);
        abort();
    }
    TRACE("node %u starts, boot %llu", n, (unsigned long long)node->boot);
    memset(&node->seen, 0, sizeof(node->seen));
    node->last_heard = world.now_us;
    for (unsigned other = 0; other <= NODES; other++)
        if (other != n && other < NODES)
            link_make(n, other);
    if (!LINK(n, SERVICE).cut)
        LINK(n, SERVICE).up = true;
    plan(world.now_us + rnd(50000), W_HEARTBEAT, n);
    plan(world.now_us + rnd(20000), W_CONFIG, n);
}
