/* The member's side. Happy path of a write: WRITE -> mark regions -> (WAIT_META until durable) -> DISK -> WRITE_REPLY.
 * Of a promotion: SEAL -> tell the old owner (FENCED) -> promise run out, disk quiet -> header durable -> SEAL_REPLY. */
#include "replication/core/replica.h"
#include "replication/core/lease.h"
#include "replication/core/message.h"
#include "replication/core/mirror.h"
#include <errno.h>
#include <string.h>

#define OPERATIONS_DEFAULT   512u
#define INTENT_CLEAR_DEFAULT 5000000u
#define HOT_TURN_US          100000u
#define BATCH_PAGES          16u
#define LINKS_MAX            128u

enum { SLOT_INTENT = 0, SLOT_DIRTY = 1 };
enum operation_kind { OPERATION_WRITE, OPERATION_READ, OPERATION_BITMAP };
enum operation_state { OPERATION_WAIT_META, OPERATION_DISK };

struct operation {
    struct list link;
    enum operation_kind kind;
    enum operation_state state;
    bool orphan; /* its session ended: finish, do not answer */
    uint16_t from;
    uint32_t index, turn; /* token */
    struct mirror_message message;
    struct mirror_data data;
    uint64_t ticket;
};

struct page_state {
    uint64_t first_unsaved; /* ticket of the first change that no batch has taken, 0 = none */
    uint64_t last_set;      /* ticket of the last bit that was set */
};

struct link_state {
    uint16_t nodeid;
    uint64_t boot; /* 0 = down */
};

struct replica {
    struct replica_parameters parameters;
    struct metadata_header header;
    uint32_t regions, pages; /* pages of one bitmap */
    struct bitmap maps[METADATA_BITMAPS];
    struct bitmap carry;             /* may differ between members, since before this session or this process */
    struct bitmap hot, hot_before;   /* written in this session, perhaps not complete everywhere; before: up to turn_sequence */
    struct bitmap recent;            /* written since the last look at intent bits */
    struct bitmap scratch;
    uint8_t *blob;                   /* of SEAL_REPLY, made when first needed */
    uint64_t next_hot_us, next_clear_us;

    /* Metadata: every change gets a ticket; durable says up to which they are on disk. One batch at a time. */
    struct page_state *page_states; /* METADATA_BITMAPS * pages */
    uint64_t header_unsaved;
    uint64_t change, durable;
    bool batch_busy;
    uint64_t batch_ticket;
    uint32_t batch_cursor;
    struct metadata_page *batch;
    bool failed;

    /* The session with the owner of header.sealed_epoch. */
    bool attached;
    uint64_t boot, instance, attach;
    uint64_t last_sequence; /* of this attachment */
    uint64_t max_sequence, turn_sequence, complete;
    struct lease_promise promise;

    /* A SEAL being answered. */
    bool pending, pending_saved;
    bool pending_continued;
    uint16_t pending_from;
    uint64_t pending_ticket;
    struct mirror_message pending_seal;

    struct operation *operations;
    struct list active, unused;
    struct link_state links[LINKS_MAX];
    unsigned link_count;
};

static bool bug(const struct replica *r, uint32_t which)
{
    return r->parameters.planted_bugs & which;
}

/* ---- making and freeing ---------------------------------------------------------------------------------------- */

static int replica_memory(struct replica *r)
{
    int bad = 0;
    for (unsigned i = 0; i < METADATA_BITMAPS; i++)
        bad |= bitmap_init(&r->maps[i], r->regions);
    bad |= bitmap_init(&r->carry, r->regions) | bitmap_init(&r->hot, r->regions);
    bad |= bitmap_init(&r->hot_before, r->regions) | bitmap_init(&r->recent, r->regions);
    bad |= bitmap_init(&r->scratch, r->regions);
    r->page_states = calloc((size_t)METADATA_BITMAPS * r->pages, sizeof(*r->page_states));
    r->batch = calloc(BATCH_PAGES, sizeof(*r->batch));
    r->operations = calloc(r->parameters.operations_max, sizeof(*r->operations));
    return bad || !r->page_states || !r->batch || !r->operations ? -ENOMEM : 0;
}

int replica_new(const struct replica_parameters *parameters, const uint8_t *image, uint64_t image_bytes,
                struct replica **ret_replica)
{
    struct metadata_header header;
    int result = metadata_header_decode(image, image_bytes, &header);
    if (result < 0)
        return result;
    struct replica *r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    r->parameters = *parameters;
    if (!r->parameters.operations_max)
        r->parameters.operations_max = OPERATIONS_DEFAULT;
    if (!r->parameters.intent_clear_us)
        r->parameters.intent_clear_us = INTENT_CLEAR_DEFAULT;
    r->header = header;
    r->regions = metadata_regions(&header);
    r->pages = metadata_bitmap_pages(r->regions);
    list_init(&r->active);
    list_init(&r->unused);
    if (replica_memory(r) < 0) {
        replica_free(r);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < METADATA_BITMAPS; i++)
        (void)metadata_bitmap_decode(image, image_bytes, i, header.incarnation, &r->maps[i]);
    /* What was in flight when the last process ended is known only by its intent (I6). */
    bitmap_copy(&r->carry, &r->maps[SLOT_INTENT]);
    for (uint32_t i = 0; i < r->parameters.operations_max; i++) {
        r->operations[i].index = i;
        list_append(&r->unused, &r->operations[i].link);
    }
    /* An earlier process may have promised just before it ended (I7); one of our own node has ended with its mirror. */
    r->promise.answered_us = parameters->now_us;
    r->promise.released = header.sealed_owner == parameters->nodeid && header.sealed_boot != parameters->boot;
    r->next_clear_us = parameters->now_us + r->parameters.intent_clear_us;
    *ret_replica = r;
    return 0;
}

void replica_free(struct replica *r)
{
    if (!r)
        return;
    for (unsigned i = 0; i < METADATA_BITMAPS; i++)
        bitmap_done(&r->maps[i]);
    bitmap_done(&r->carry);
    bitmap_done(&r->hot);
    bitmap_done(&r->hot_before);
    bitmap_done(&r->recent);
    bitmap_done(&r->scratch);
    free(r->blob);
    free(r->page_states);
    free(r->batch);
    free(r->operations);
    free(r);
}

/* ---- small parts ----------------------------------------------------------------------------------------------- */

static struct link_state *link_find(struct replica *r, uint16_t nodeid, bool add)
{
    for (unsigned i = 0; i < r->link_count; i++)
        if (r->links[i].nodeid == nodeid)
            return &r->links[i];
    if (!add || r->link_count == LINKS_MAX)
        return NULL;
    r->links[r->link_count] = (struct link_state){.nodeid = nodeid};
    return &r->links[r->link_count++];
}

static void send_message(struct replica *r, uint16_t to, const struct mirror_message *message, struct mirror_data data,
                         uint32_t data_bytes, struct mirror_effects *out)
{
    struct mirror_effect *effect = mirror_effects_add(out, MIRROR_EFFECT_SEND);
    mirror_message_encode(message, r->parameters.volume, data_bytes, effect);
    effect->send.nodeid = to;
    effect->send.data = data;
}

static void send_reply(struct replica *r, uint16_t to, const struct mirror_message *question, uint16_t type, int status,
                       struct mirror_data data, uint32_t data_bytes, struct mirror_effects *out)
{
    struct mirror_message reply = {.type = type, .epoch = question->epoch, .request = question->request,
                                   .argument = (uint64_t)(int64_t)status, .boot = question->boot,
                                   .attach = question->attach};
    send_message(r, to, &reply, data, data_bytes, out);
}

static void send_fenced(struct replica *r, uint16_t to, uint64_t epoch, struct mirror_effects *out)
{
    struct mirror_message fenced = {.type = MIRROR_FENCED, .epoch = epoch};
    send_message(r, to, &fenced, (struct mirror_data){0}, 0, out);
}

static void release(struct mirror_data data, struct mirror_effects *out)
{
    if (data.handle)
        mirror_effects_add(out, MIRROR_EFFECT_RELEASE)->release = data.handle;
}

/* The epoch below which everything is refused (I2): sealed on disk, or about to be. */
static uint64_t floor_epoch(const struct replica *r)
{
    return r->pending ? MAX(r->header.sealed_epoch, r->pending_seal.epoch) : r->header.sealed_epoch;
}

static bool session_matches(const struct replica *r, uint16_t from, const struct mirror_message *m)
{
    if (bug(r, REPLICA_BUG_NO_SEAL) && (m->type == MIRROR_WRITE || m->type == MIRROR_READ) &&
        m->epoch < r->header.sealed_epoch)
        return true;
    return r->attached && m->epoch == r->header.sealed_epoch && from == r->header.sealed_owner && m->boot == r->boot &&
           m->attach == r->attach;
}

static void note_complete(struct replica *r, uint64_t complete)
{
    r->complete = MAX(r->complete, complete);
}

/* ---- metadata --------------------------------------------------------------------------------------------------- */

/* Set a bit; the ticket that must be durable before one may rely on it. */
static uint64_t mark(struct replica *r, unsigned slot, uint32_t region)
{
    struct page_state *page = &r->page_states[slot * r->pages + region / METADATA_PAGE_BITS];
    if (bitmap_set(&r->maps[slot], region)) {
        page->last_set = ++r->change;
        if (!page->first_unsaved)
            page->first_unsaved = r->change;
    }
    return page->last_set;
}

static void unmark(struct replica *r, unsigned slot, uint32_t region)
{
    struct page_state *page = &r->page_states[slot * r->pages + region / METADATA_PAGE_BITS];
    if (bitmap_clear(&r->maps[slot], region)) {
        r->change++;
        if (!page->first_unsaved)
            page->first_unsaved = r->change;
    }
}

static uint64_t touch_header(struct replica *r)
{
    r->change++;
    if (!r->header_unsaved)
        r->header_unsaved = r->change;
    return r->change;
}

/* Write what has changed, if nothing is being written. Group commit: one batch takes all of a step. */
static void metadata_flush(struct replica *r, struct mirror_effects *out)
{
    unsigned count = 0;
    uint64_t ticket = r->change;
    uint32_t total = METADATA_BITMAPS * r->pages;
    if (r->batch_busy || r->failed || r->durable == r->change)
        return;
    if (r->header_unsaved) {
        r->header.generation++; /* I13: the other slot */
        metadata_header_encode(&r->header, &r->batch[count++]);
        r->header_unsaved = 0;
    }
    for (uint32_t i = 0; i < total; i++) {
        uint32_t at = (r->batch_cursor + i) % total;
        struct page_state *page = &r->page_states[at];
        if (!page->first_unsaved)
            continue;
        if (count == BATCH_PAGES) {
            ticket = MIN(ticket, page->first_unsaved - 1);
            continue;
        }
        metadata_bitmap_encode(&r->maps[at / r->pages], at / r->pages, at % r->pages, r->header.incarnation, r->change,
                               &r->batch[count++]);
        page->first_unsaved = 0;
        if (count == BATCH_PAGES)
            r->batch_cursor = (at + 1) % total;
    }
    r->batch_ticket = MAX(ticket, r->durable);
    r->batch_busy = true;
    struct mirror_effect *effect = mirror_effects_add(out, MIRROR_EFFECT_META_WRITE);
    effect->meta.count = count;
    effect->meta.pages = r->batch;
}

/* ---- operations --------------------------------------------------------------------------------------------------- */

static struct operation *operation_new(struct replica *r, enum operation_kind kind, uint16_t from,
                                       const struct mirror_message *m, struct mirror_data data)
{
    if (list_empty(&r->unused))
        return NULL;
    struct operation *op = list_first(&r->unused, struct operation, link);
    list_remove(&op->link);
    list_append(&r->active, &op->link);
    op->kind = kind;
    op->state = OPERATION_WAIT_META;
    op->orphan = false;
    op->from = from;
    op->message = *m;
    op->message.blob = NULL;
    op->data = data;
    op->ticket = 0;
    return op;
}

static void operation_free(struct replica *r, struct operation *op, struct mirror_effects *out)
{
    release(op->data, out);
    op->data.handle = NULL;
    op->turn++;
    list_remove(&op->link);
    list_append(&r->unused, &op->link);
}

static void operation_answer(struct replica *r, struct operation *op, int status, struct mirror_effects *out)
{
    uint16_t type = op->kind == OPERATION_WRITE  ? MIRROR_WRITE_REPLY
                    : op->kind == OPERATION_READ ? MIRROR_READ_REPLY
                                                 : MIRROR_BITMAP_REPLY;
    bool with_data = op->kind == OPERATION_READ && status == 0;
    struct mirror_data none = {0};
    if (!op->orphan)
        send_reply(r, op->from, &op->message, type, status, with_data ? op->data : none,
                   with_data ? (uint32_t)op->message.length_bytes : 0, out);
}

static void operation_disk(struct operation *op, struct mirror_effects *out)
{
    bool read = op->kind == OPERATION_READ;
    struct mirror_effect *effect = mirror_effects_add(out, read ? MIRROR_EFFECT_DISK_READ : MIRROR_EFFECT_DISK_WRITE);
    effect->disk.token = (uint64_t)op->turn << 32 | op->index;
    effect->disk.operation = read ? BLOCK_READ : (enum block_operation)op->message.operation;
    effect->disk.flags = read ? 0 : op->message.io_flags;
    effect->disk.offset_bytes = op->message.offset_bytes;
    effect->disk.length_bytes = op->message.length_bytes;
    effect->disk.data = op->data;
    op->state = OPERATION_DISK;
}

/* The metadata is durable as far as op needs: go on. */
static void operation_advance(struct replica *r, struct operation *op, struct mirror_effects *out)
{
    if (op->ticket > r->durable)
        return;
    if (op->kind == OPERATION_BITMAP) {
        operation_answer(r, op, 0, out);
        operation_free(r, op, out);
        return;
    }
    operation_disk(op, out);
    if (op->kind == OPERATION_WRITE && bug(r, REPLICA_BUG_ACK_EARLY)) {
        operation_answer(r, op, 0, out);
        op->orphan = true;
    }
}

/* The session ended: what has not reached the disk will not; what has finishes unanswered (the owner sends it again). */
static void operations_orphan(struct replica *r, struct mirror_effects *out)
{
    list_foreach_safe(node, after, &r->active) {
        struct operation *op = list_entry(node, struct operation, link);
        if (op->state == OPERATION_WAIT_META)
            operation_free(r, op, out);
        else
            op->orphan = true;
    }
}

/* ---- SEAL --------------------------------------------------------------------------------------------------------- */

static void seal_refuse(struct replica *r, uint16_t from, const struct mirror_message *m, int status,
                        struct mirror_effects *out)
{
    struct mirror_message reply = {.type = MIRROR_SEAL_REPLY, .epoch = m->epoch, .request = m->request,
                                   .argument = (uint64_t)(int64_t)status, .boot = m->boot, .attach = m->attach,
                                   .incarnation = r->header.incarnation, .regions = r->regions};
    send_message(r, from, &reply, (struct mirror_data){0}, 0, out);
}

static void seal_answer(struct replica *r, struct mirror_effects *out)
{
    const struct mirror_message *m = &r->pending_seal;
    uint32_t one = bitmap_bytes(r->regions);
    struct mirror_message reply = {.type = MIRROR_SEAL_REPLY, .epoch = m->epoch, .request = m->request, .boot = m->boot,
                                   .attach = m->attach, .incarnation = r->header.incarnation, .regions = r->regions,
                                   .flags = r->pending_continued ? MIRROR_SEAL_CONTINUED : 0};
    if (!r->blob)
        r->blob = calloc(METADATA_BITMAPS, one);
    if (!r->blob) {
        seal_refuse(r, r->pending_from, m, -EIO, out);
        return;
    }
    /* I6: whatever may not be complete everywhere. */
    bitmap_copy(&r->scratch, &r->carry);
    bitmap_or(&r->scratch, &r->hot);
    bitmap_or(&r->scratch, &r->hot_before);
    for (unsigned i = 0; i < METADATA_BITMAPS; i++) {
        const struct bitmap *map = i == 0 ? &r->scratch : &r->maps[i];
        if (i > 0)
            reply.dirty_incarnation[i - 1] = r->header.dirty_incarnation[i - 1];
        if (!map->set)
            continue;
        bitmap_encode(map, r->blob + reply.blob_bytes);
        reply.bitmaps |= (uint8_t)(1u << i);
        reply.blob_bytes += one;
    }
    reply.blob = r->blob;
    send_message(r, r->pending_from, &reply, (struct mirror_data){0}, 0, out);
}

/* May the old owner still answer reads on our word? */
static bool promise_holds(const struct replica *r, uint64_t now_us)
{
    uint16_t old = r->header.sealed_owner;
    if (r->pending_seal.epoch == r->header.sealed_epoch || old == 0 || old == r->pending_from || r->promise.released ||
        bug(r, REPLICA_BUG_NO_PROMISE))
        return false;
    if (old == r->parameters.nodeid)
        return true; /* our own mirror: no lease, its word (RELEASE) */
    return now_us < lease_promise_until(&r->promise);
}

static void seal_advance(struct replica *r, uint64_t now_us, struct mirror_effects *out)
{
    const struct mirror_message *m = &r->pending_seal;
    if (!r->pending)
        return;
    if (r->failed) {
        seal_refuse(r, r->pending_from, m, -EIO, out);
        r->pending = false;
        return;
    }
    if (!r->pending_saved) {
        if (promise_holds(r, now_us) || !list_empty(&r->active))
            return;
        if (m->epoch != r->header.sealed_epoch || m->boot != r->header.sealed_boot) {
            r->header.sealed_epoch = m->epoch;
            r->header.sealed_owner = r->pending_from;
            r->header.sealed_boot = m->boot;
            r->promise.released = true; /* nobody can hold a lease of ours until we answer */
            touch_header(r);
        }
        /* Also waits for marks set before: the owner takes what is reported as durable. */
        r->pending_ticket = r->change;
        r->pending_saved = true;
    }
    if (r->durable < r->pending_ticket)
        return;
    seal_answer(r, out);
    r->pending = false;
    r->attached = true;
    r->boot = m->boot;
    r->instance = m->instance;
    r->attach = m->attach;
    r->last_sequence = 0;
    if (!r->pending_continued)
        r->complete = r->max_sequence = r->turn_sequence = 0;
    note_complete(r, m->argument);
    r->promise = (struct lease_promise){.answered_us = now_us};
}

static int on_seal(struct replica *r, uint16_t from, const struct mirror_message *m, uint64_t now_us,
                   struct mirror_effects *out)
{
    const struct link_state *link = link_find(r, from, false);
    uint64_t peer_boot = from == r->parameters.nodeid ? r->parameters.boot : link ? link->boot : 0;
    if (m->boot != peer_boot)
        return 0; /* left over from an earlier life of that node */
    if (m->epoch < floor_epoch(r)) {
        send_fenced(r, from, floor_epoch(r), out); /* I2 */
        return 0;
    }
    if (m->epoch == 0 || (r->header.sealed_epoch == m->epoch && r->header.sealed_owner != from) ||
        (r->pending && r->pending_seal.epoch == m->epoch && r->pending_from != from))
        return -EPROTO; /* I1: one owner per epoch */
    if (m->incarnation != r->header.incarnation || m->regions != r->regions || m->replica_index != r->header.replica_index) {
        seal_refuse(r, from, m, -ENODEV, out); /* I11 */
        return 0;
    }
    bool same_boot = m->epoch == r->header.sealed_epoch && m->boot == r->boot;
    if ((same_boot && m->attach <= r->attach) ||
        (r->pending && m->epoch == r->pending_seal.epoch && m->boot == r->pending_seal.boot &&
         m->attach <= r->pending_seal.attach))
        return 0; /* overtaken by a later attachment */
    uint16_t old = r->header.sealed_owner;
    if (m->epoch > floor_epoch(r) && old != 0 && old != from &&
        !(old == r->parameters.nodeid && r->header.sealed_boot != r->parameters.boot))
        send_fenced(r, old, m->epoch, out); /* before any later heartbeat answer on the same link (I7) */
    r->pending_continued = same_boot && m->instance == r->instance;
    if (!r->pending_continued) {
        bitmap_or(&r->carry, &r->hot);
        bitmap_or(&r->carry, &r->hot_before);
        bitmap_zero(&r->hot);
        bitmap_zero(&r->hot_before);
    }
    operations_orphan(r, out);
    r->attached = false;
    r->pending = true;
    r->pending_saved = false;
    r->pending_from = from;
    r->pending_seal = *m;
    r->pending_seal.blob = NULL;
    seal_advance(r, now_us, out);
    return 0;
}

/* ---- other messages ------------------------------------------------------------------------------------------------ */

/* Mark what a write touches; sets op->ticket. */
static void write_mark(struct replica *r, struct operation *op)
{
    const struct mirror_message *m = &op->message;
    uint32_t first = (uint32_t)(m->offset_bytes / r->header.region_bytes);
    uint32_t last = (uint32_t)((m->offset_bytes + m->length_bytes - 1) / r->header.region_bytes);
    for (uint32_t region = first; region <= last; region++) {
        bitmap_set(&r->hot, region);
        bitmap_set(&r->recent, region);
        if (!bug(r, REPLICA_BUG_NO_INTENT))
            op->ticket = MAX(op->ticket, mark(r, SLOT_INTENT, region));
        for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++)
            if (m->dirty_mask >> k & 1 && k != r->header.replica_index) {
                uint64_t ticket = mark(r, SLOT_DIRTY + k, region);
                if (!bug(r, REPLICA_BUG_VOLATILE_DIRTY))
                    op->ticket = MAX(op->ticket, ticket); /* I9 */
            }
    }
}

static void on_write(struct replica *r, uint16_t from, const struct mirror_message *m, struct mirror_data data,
                     struct mirror_effects *out)
{
    struct mirror_data none = {0};
    if (m->request <= r->last_sequence && m->epoch == r->header.sealed_epoch) {
        release(data, out); /* a duplicate within this attachment */
        return;
    }
    if (m->epoch == r->header.sealed_epoch)
        r->last_sequence = m->request;
    r->max_sequence = MAX(r->max_sequence, m->request);
    note_complete(r, m->argument);
    struct operation *op = NULL;
    int refuse = 0;
    if (r->failed)
        refuse = -EIO;
    else if (m->offset_bytes + m->length_bytes > r->header.size_bytes)
        refuse = -EPROTO;
    else if (!(op = operation_new(r, OPERATION_WRITE, from, m, data)))
        refuse = -ENOBUFS;
    if (refuse) {
        send_reply(r, from, m, MIRROR_WRITE_REPLY, refuse, none, 0, out);
        release(data, out);
        return;
    }
    write_mark(r, op);
    operation_advance(r, op, out);
}

static void on_read(struct replica *r, uint16_t from, const struct mirror_message *m, struct mirror_data data,
                    struct mirror_effects *out)
{
    struct mirror_data none = {0};
    struct operation *op = NULL;
    int refuse = m->offset_bytes + m->length_bytes > r->header.size_bytes          ? -EPROTO
                 : !(op = operation_new(r, OPERATION_READ, from, m, data)) ? -ENOBUFS
                                                                                    : 0;
    if (refuse) {
        send_reply(r, from, m, MIRROR_READ_REPLY, refuse, none, 0, out);
        release(data, out);
        return;
    }
    operation_disk(op, out);
}

static int on_bitmap(struct replica *r, uint16_t from, const struct mirror_message *m, struct mirror_effects *out)
{
    unsigned slot = SLOT_DIRTY + m->replica_index;
    uint64_t ticket = 0;
    struct mirror_data none = {0};
    if (m->regions != r->regions)
        return -EPROTO;
    struct operation *op = r->failed ? NULL : operation_new(r, OPERATION_BITMAP, from, m, none);
    if (!op) {
        send_reply(r, from, m, MIRROR_BITMAP_REPLY, r->failed ? -EIO : -ENOBUFS, none, 0, out);
        return 0;
    }
    bitmap_decode(&r->scratch, m->blob);
    if (m->action == MIRROR_BITMAP_MERGE) {
        if (r->header.dirty_incarnation[m->replica_index] != m->incarnation)
            bitmap_fill(&r->scratch); /* marks of another disk say nothing about this one (I11) */
        for (uint32_t b = bitmap_next(&r->scratch, 0); b != BITMAP_NONE; b = bitmap_next(&r->scratch, b + 1))
            ticket = MAX(ticket, mark(r, slot, b));
    } else {
        for (uint32_t b = bitmap_next(&r->maps[slot], 0); b != BITMAP_NONE; b = bitmap_next(&r->maps[slot], b + 1))
            if (!bitmap_test(&r->scratch, b))
                unmark(r, slot, b);
    }
    if (r->header.dirty_incarnation[m->replica_index] != m->incarnation) {
        r->header.dirty_incarnation[m->replica_index] = m->incarnation;
        ticket = MAX(ticket, touch_header(r));
    }
    op->ticket = bug(r, REPLICA_BUG_VOLATILE_DIRTY) ? 0 : ticket;
    operation_advance(r, op, out);
    return 0;
}

static void on_release(struct replica *r, uint16_t from, const struct mirror_message *m)
{
    if (from == r->header.sealed_owner && m->epoch >= r->header.sealed_epoch && m->boot == r->header.sealed_boot &&
        !r->pending_saved)
        r->promise.released = true;
}

static int on_message(struct replica *r, const struct mirror_event *event, uint64_t now_us, struct mirror_effects *out)
{
    struct mirror_message m;
    struct mirror_data data = event->message.data;
    uint16_t from = event->nodeid;
    int result = mirror_message_decode(&event->message.header, event->message.body, event->message.body_bytes,
                                       event->message.data_bytes, &m);
    if (result < 0 || !mirror_message_to_member(m.type)) {
        release(data, out);
        return -EPROTO;
    }
    if (m.type == MIRROR_SEAL)
        return on_seal(r, from, &m, now_us, out);
    if (m.type == MIRROR_RELEASE) {
        on_release(r, from, &m);
        return 0;
    }
    if (!session_matches(r, from, &m)) {
        if (m.epoch < floor_epoch(r))
            send_fenced(r, from, floor_epoch(r), out); /* I2 */
        release(data, out);
        return 0;
    }
    switch (m.type) {
    case MIRROR_WRITE:
        on_write(r, from, &m, data, out);
        return 0;
    case MIRROR_READ:
        on_read(r, from, &m, data, out);
        return 0;
    case MIRROR_COMPLETE:
        note_complete(r, m.argument);
        return 0;
    case MIRROR_BITMAP:
        return on_bitmap(r, from, &m, out);
    case MIRROR_RECONCILED:
        bitmap_zero(&r->carry);
        return 0;
    default:
        return -EPROTO;
    }
}

/* ---- other events --------------------------------------------------------------------------------------------------- */

static void on_disk_done(struct replica *r, const struct mirror_event *event, struct mirror_effects *out)
{
    uint32_t index = (uint32_t)event->disk.token;
    ASSERT(index < r->parameters.operations_max);
    struct operation *op = &r->operations[index];
    ASSERT(op->turn == event->disk.token >> 32 && op->state == OPERATION_DISK);
    if (event->disk.data.handle) {
        ASSERT(!op->data.handle);
        op->data = event->disk.data;
    }
    operation_answer(r, op, event->disk.status, out);
    operation_free(r, op, out);
}

static void on_meta_done(struct replica *r, int status, struct mirror_effects *out)
{
    ASSERT(r->batch_busy);
    r->batch_busy = false;
    if (status == 0)
        r->durable = r->batch_ticket;
    else
        r->failed = true; /* never retried as if nothing had happened (I12) */
    list_foreach_safe(node, after, &r->active) {
        struct operation *op = list_entry(node, struct operation, link);
        if (op->state != OPERATION_WAIT_META)
            continue;
        if (r->failed) {
            operation_answer(r, op, -EIO, out);
            operation_free(r, op, out);
        } else {
            operation_advance(r, op, out);
        }
    }
}

/* Forget what is known to be complete everywhere: quickly for the report to the next owner, lazily for intent bits. */
static void on_tick(struct replica *r, uint64_t now_us)
{
    if (now_us >= r->next_hot_us && (r->hot.set || r->hot_before.set)) {
        r->next_hot_us = now_us + HOT_TURN_US;
        if (r->complete >= r->turn_sequence) {
            struct bitmap old = r->hot_before;
            r->hot_before = r->hot;
            r->hot = old;
            bitmap_zero(&r->hot);
            r->turn_sequence = r->max_sequence;
        }
    }
    if (now_us >= r->next_clear_us) {
        r->next_clear_us = now_us + r->parameters.intent_clear_us;
        bitmap_or(&r->recent, &r->hot);
        bitmap_or(&r->recent, &r->hot_before);
        bitmap_or(&r->recent, &r->carry);
        struct bitmap *intent = &r->maps[SLOT_INTENT];
        for (uint32_t b = bitmap_next(intent, 0); b != BITMAP_NONE; b = bitmap_next(intent, b + 1))
            if (!bitmap_test(&r->recent, b))
                unmark(r, SLOT_INTENT, b);
        bitmap_zero(&r->recent);
    }
}

static void on_node_gone(struct replica *r, uint16_t nodeid, uint64_t boot, bool this_boot)
{
    /* this_boot: the process with this boot id is dead; else: another process than boot runs there now. */
    if (nodeid == r->header.sealed_owner && (r->header.sealed_boot == boot) == this_boot)
        r->promise.released = true;
}

int replica_step(struct replica *r, const struct mirror_event *event, uint64_t now_us, struct mirror_effects *out)
{
    struct link_state *link;
    int result = 0;
    switch (event->type) {
    case MIRROR_EVENT_MESSAGE:
        result = on_message(r, event, now_us, out);
        break;
    case MIRROR_EVENT_LINK_UP:
        link = link_find(r, event->nodeid, true);
        if (link)
            link->boot = event->boot;
        on_node_gone(r, event->nodeid, event->boot, false);
        break;
    case MIRROR_EVENT_LINK_DOWN:
        link = link_find(r, event->nodeid, false);
        if (link)
            link->boot = 0;
        break;
    case MIRROR_EVENT_HEARTBEAT_ANSWERED_BY_US:
        /* Once a newer owner has asked, FENCED is on its way before this answer: it prolongs nothing. */
        if (event->nodeid == r->header.sealed_owner && !(r->pending && r->pending_seal.epoch > r->header.sealed_epoch))
            r->promise.answered_us = MAX(r->promise.answered_us, event->time_us);
        break;
    case MIRROR_EVENT_NODE_DEAD:
        on_node_gone(r, event->nodeid, event->boot, true);
        break;
    case MIRROR_EVENT_DISK_DONE:
        on_disk_done(r, event, out);
        break;
    case MIRROR_EVENT_META_DONE:
        on_meta_done(r, event->meta_status, out);
        break;
    case MIRROR_EVENT_TICK:
        on_tick(r, now_us);
        break;
    default:
        break; /* the mirror's */
    }
    seal_advance(r, now_us, out);
    metadata_flush(r, out);
    return result;
}

uint64_t replica_next_tick(const struct replica *r)
{
    uint64_t next = UINT64_MAX;
    if (r->hot.set || r->hot_before.set)
        next = MIN(next, r->next_hot_us);
    if (r->maps[SLOT_INTENT].set > 0)
        next = MIN(next, r->next_clear_us);
    if (r->pending && !r->pending_saved && !r->promise.released)
        next = MIN(next, lease_promise_until(&r->promise));
    return next;
}

void replica_get_status(const struct replica *r, struct replica_status *ret_status)
{
    uint32_t operations = 0;
    list_foreach(node, &r->active)
        operations++;
    *ret_status = (struct replica_status){
        .sealed_epoch = r->header.sealed_epoch,
        .incarnation = r->header.incarnation,
        .owner = r->header.sealed_owner,
        .failed = r->failed,
        .waiting_for_lease = r->pending && !r->pending_saved && list_empty(&r->active),
        .intent_regions = r->maps[SLOT_INTENT].set,
        .carry_regions = r->carry.set,
        .operations = operations,
    };
}
