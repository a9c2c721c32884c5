#include "tests/simulation/mirror_world.h"

/* ---- the configuration service --------------------------------------------------------------------------------------- */

void config_spread(void)
{
    TRACE("committed epoch %llu version %llu owner %u isr %x", (unsigned long long)committed.epoch,
          (unsigned long long)committed.isr_version, committed.owner - 1u, committed.isr);
    for (unsigned n = 0; n < NODES; n++)
        if (nodes[n].up)
            plan(world.now_us + rnd(chance(1000) ? 100000 : 5000), W_CONFIG, n);
}

static void promote(unsigned n, uint8_t isr)
{
    committed.epoch++;
    committed.isr_version++;
    committed.owner = (uint16_t)(n + 1);
    committed.isr = isr;
    promotions++;
    config_spread();
}

static bool heard(unsigned n)
{
    return nodes[n].up && world.now_us - nodes[n].last_heard < patience_us;
}

/* The planner: an owner not heard of is replaced from the ISR (I4); a member not heard of is left to the owner. */
void watch(void)
{
    unsigned owner = committed.owner - 1u;
    plan(world.now_us + 20000 + rnd(20000), W_WATCH, SERVICE);
    for (unsigned n = 0; n < NODES; n++)
        if (nodes[n].up && !nodes[n].paused && LINK(n, SERVICE).up)
            nodes[n].last_heard = world.now_us;
    if (!calm && chance(60))
        place_empty();
    grow_turn();
    bool move = !calm && chance(60);
    if (heard(owner) && !move)
        return;
    unsigned first = (unsigned)rnd(NODES);
    for (unsigned i = 0; i < NODES; i++) {
        unsigned n = (first + i) % NODES;
        if (n == owner || !heard(n) || !node_in_sync(n))
            continue;
        uint8_t isr = 0;
        for (unsigned k = 0; k < NODES; k++)
            if (node_in_sync(k) && (heard(k) || chance(2000)))
                isr |= (uint8_t)(1u << place_of(k));
        promote(n, isr);
        return;
    }
}

void asked(const struct happening *h)
{
    unsigned owner = committed.owner - 1u;
    if (h->config.epoch != committed.epoch || h->config.isr_version != committed.isr_version || h->isr == 0 || chance(1000))
        return;
    if (!(h->isr >> place_of(owner) & 1)) {
        for (unsigned n = 0; n < NODES; n++)
            if (node_in_sync(n) && h->isr & (1u << place_of(n))) {
                promote(n, h->isr & committed.isr);
                return;
            }
        return;
    }
    committed.isr = h->isr;
    committed.isr_version++;
    config_spread();
}

/* ---- clients and faults ---------------------------------------------------------------------------------------------- */

void client_submit(unsigned n, bool read, uint32_t first, uint32_t count)
{
    struct client_op *op = calloc(1, sizeof(*op));
    op->read = read;
    op->node = n;
    op->invoked = world.now_us;
    op->first = first;
    op->count = count;
    op->data = sim_bytes_new(&pool, count * BLOCK);
    op->data->references++; /* one for the core */
    op->request.operation = read ? BLOCK_READ : BLOCK_WRITE;
    op->request.offset_bytes = first * BLOCK;
    op->request.length_bytes = count * BLOCK;
    op->request.data.handle = op->data;
    if (!read) {
        op->tag = ++next_tag;
        for (uint32_t i = 0; i < count; i++) {
            sim_history_write(&history, first + i, op->tag);
            op->data->tags[i] = op->tag;
        }
    }
    op->next = nodes[n].ops;
    nodes[n].ops = op;
    step_mirror(n, &(struct mirror_event){.type = MIRROR_EVENT_REQUEST, .request = &op->request});
}

void client_flush(unsigned n)
{
    struct client_op *op = calloc(1, sizeof(*op));
    op->flush = true;
    op->node = n;
    op->invoked = world.now_us;
    op->request.operation = BLOCK_FLUSH;
    op->next = nodes[n].ops;
    nodes[n].ops = op;
    step_mirror(n, &(struct mirror_event){.type = MIRROR_EVENT_REQUEST, .request = &op->request});
}

void client_turn(void)
{
    struct mirror_status status;
    unsigned n = (unsigned)rnd(NODES), held[2] = {0, 0};
    bool read = chance(5000);
    plan(world.now_us + 200 + rnd(3000), W_CLIENT, SERVICE);
    if (!nodes[n].up)
        return;
    mirror_get_status(nodes[n].mirror, clock_of(n), &status);
    for (struct client_op *op = nodes[n].ops; op; op = op->next)
        held[op->read]++;
    if (status.state == MIRROR_IDLE || held[read] >= 3)
        return;
    /* Few hot blocks, so that things meet. */
    uint32_t first = chance(6000) ? (uint32_t)rnd(6) * 7 : (uint32_t)rnd(status.size_bytes / BLOCK - 4);
    /* To a paused node as well: it finds the request when it wakes, before the news of what happened meanwhile. */
    unsigned queued = 0;
    for (struct sim_event *e = nodes[n].held.first; e; e = e->next)
        queued += container_of(e, struct happening, event)->what == W_SUBMIT;
    if (queued >= 4)
        return;
    struct happening *h = plan(world.now_us, W_SUBMIT, n);
    h->isr = chance(500) ? 2 : read;
    h->time = first;
    h->body_bytes = 1 + (uint32_t)rnd(3);
}

/* Blocks go bad on one node at a time, and the operator runs checks, which must never see a difference. */
void wear_turn(void)
{
    struct mirror_status status;
    unsigned n = (unsigned)rnd(NODES), owner = committed.owner - 1u;
    uint32_t block = chance(6000) ? (uint32_t)rnd(6) * 7 : (uint32_t)rnd(committed.size_bytes / BLOCK);
    for (unsigned other = 0; other < NODES; other++) {
        if (!nodes[other].up)
            continue;
        mirror_get_status(nodes[other].mirror, clock_of(other), &status);
        if (status.check.mismatches)
            sim_violate(&world, "node %u verifies, and finds %llu blocks that differ, the first at %llu on %x", other,
                        (unsigned long long)status.check.mismatches, (unsigned long long)status.check.findings[0].offset,
                        status.check.findings[0].members);
    }
    if (calm)
        return;
    plan(world.now_us + 10000 + rnd(150000), W_WEAR, SERVICE);
    bool spare = false; /* another in-sync member has it */
    for (unsigned k = 0; k < committed.replica_count; k++)
        spare |= committed.isr >> k & 1 && committed.replicas[k].nodeid != n + 1;
    for (unsigned other = 0; other < NODES; other++)
        spare = spare && !nodes[other].bad[block];
    if (spare && !convalescent && chance(4000)) {
        TRACE("block %u of node %u goes bad", block, n);
        nodes[n].bad[block] = true;
    }
    if (!nodes[owner].up)
        return;
    struct mirror_check_options options = {.kind = chance(3000) ? MIRROR_CHECK_SCRUB : MIRROR_CHECK_VERIFY,
                                           .repair = chance(5000), .from_offset = chance(5000) ? 0 : rnd(committed.size_bytes)};
    if (chance(1000))
        (void)mirror_check_stop(nodes[owner].mirror, clock_of(owner));
    else if (mirror_check_start(nodes[owner].mirror, &options, clock_of(owner)) == 0)
        step_mirror(owner, &(struct mirror_event){.type = MIRROR_EVENT_TICK});
}

void chaos_turn(void)
{
    unsigned a = (unsigned)rnd(NODES), b = (unsigned)rnd(NODES + 1);
    if (calm)
        return;
    plan(world.now_us + 10000 + rnd(400000), W_CHAOS, SERVICE);
    if (convalescent && healthy())
        convalescent = false;
    if (convalescent)
        return;
    if (write_back && healthy() && chance(5000)) {
        crash(a, true);
        return;
    }
    switch (rnd(8)) {
    case 0:
    case 1:
        crash(a, chance(5000) && !write_back);
        break;
    case 2: /* the whole site loses power */
        for (unsigned n = 0; n < NODES && !write_back && chance(5000); n++)
            crash(n, true);
        break;
    case 3: /* a flap */
        if (b < NODES && a != b) {
            link_break(a, b);
            link_make(a, b);
        }
        break;
    case 4: /* a cut of one pair */
        if (a != b) {
            LINK(a, b).cut = true;
            link_break(a, b);
            TRACE("cut %u - %u", a, b);
        }
        break;
    case 5: /* isolation */
        for (unsigned other = 0; other <= NODES; other++)
            if (other != a) {
                LINK(a, other).cut = true;
                link_break(a, other);
            }
        TRACE("isolate %u", a);
        break;
    case 6: /* pause: SIGSTOP; its peers notice only by silence */
        if (nodes[a].up && !nodes[a].paused) {
            nodes[a].paused = true;
            nodes[a].paused_at = world.now_us;
            TRACE("pause %u", a);
        }
        break;
    default: /* heal */
        TRACE("heal");
        for (unsigned i = 0; i <= NODES; i++)
            for (unsigned j = i + 1; j <= NODES; j++)
                if (LINK(i, j).cut) {
                    LINK(i, j).cut = false;
                    if (j == SERVICE)
                        LINK(i, j).up = nodes[i].up;
                    else
                        link_make(i, j);
                }
        for (unsigned i = 0; i < NODES; i++)
            wake(i);
    }
}
