/* The member's side: making it, events, status. Others: replica_seal.c, replica_request.c, replica_operation.c,
 * replica_metadata.c. */
#include "replication/core/replica_internal.h"
#include <errno.h>

#define OPERATIONS_DEFAULT   512u
#define INTENT_CLEAR_DEFAULT 5000000u
#define HOT_TURN_US          100000u

/* ---- making and freeing ---------------------------------------------------------------------------------------- */

static int replica_memory(struct replica *r)
{
    int bad = 0;
    for (unsigned i = 0; i < METADATA_BITMAPS; i++)
        bad |= bitmap_init(&r->maps[i], r->regions);
    bad |= bitmap_init(&r->carry, r->regions) | bitmap_init(&r->hot, r->regions);
    bad |= bitmap_init(&r->hot_before, r->regions) | bitmap_init(&r->recent, r->regions);
    bad |= bitmap_init(&r->clearing, r->regions) | bitmap_init(&r->scratch, r->regions);
    r->settled = calloc((r->regions + 63) / 64, sizeof(*r->settled));
    r->page_states = calloc((size_t)METADATA_BITMAPS * r->pages, sizeof(*r->page_states));
    r->batch = calloc(BATCH_PAGES, sizeof(*r->batch));
    r->operations = calloc(r->parameters.operations_max, sizeof(*r->operations));
    return bad || !r->settled || !r->page_states || !r->batch || !r->operations ? -ENOMEM : 0;
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
    uint32_t damaged = 0; /* of the last map: cold */
    for (unsigned i = 0; i < METADATA_BITMAPS; i++)
        damaged = metadata_bitmap_decode(image, image_bytes, i, header.incarnation, &r->maps[i]);
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
    replica_machine_check(r, damaged);
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
    bitmap_done(&r->clearing);
    bitmap_done(&r->scratch);
    free(r->blob);
    free(r->settled);
    free(r->page_states);
    free(r->batch);
    free(r->image);
    free(r->operations);
    free(r);
}

/* ---- events ---------------------------------------------------------------------------------------------------------- */

static int on_message(struct replica *r, const struct mirror_event *event, uint64_t now_us, struct mirror_effects *out)
{
    struct mirror_message m;
    struct mirror_data data = event->message.data;
    uint16_t from = event->nodeid;
    int result = mirror_message_decode(&event->message.header, event->message.body, event->message.body_bytes,
                                       event->message.data_bytes, &m);
    if (result < 0 || !mirror_message_to_member(m.type)) {
        replica_release(data, out);
        return -EPROTO;
    }
    if (m.type == MIRROR_SEAL)
        return replica_on_seal(r, from, &m, now_us, out);
    if (m.type == MIRROR_RELEASE) {
        replica_on_release(r, from, &m);
        return 0;
    }
    if (m.type == MIRROR_COPIED) {
        replica_on_copied(r, &m, data, out);
        return 0;
    }
    if (!replica_session_matches(r, from, &m)) {
        if (m.epoch < replica_floor_epoch(r))
            replica_send_fenced(r, from, replica_floor_epoch(r), out); /* I2 */
        replica_release(data, out);
        return 0;
    }
    switch (m.type) {
    case MIRROR_WRITE:
        replica_on_write(r, from, &m, data, out);
        return 0;
    case MIRROR_READ:
    case MIRROR_DIGEST:
    case MIRROR_COPY:
        replica_on_read(r, from, &m, data, out);
        return 0;
    case MIRROR_COMPLETE:
        replica_note_complete(r, m.argument);
        return 0;
    case MIRROR_BITMAP:
        return replica_on_bitmap(r, from, &m, out);
    case MIRROR_CONFIRM: /* the session matches: not sealed by, nor being asked by a newer epoch (I7) */
        replica_reply(r, from, &m, MIRROR_CONFIRM_REPLY, 0, (struct mirror_data){0}, 0, out);
        return 0;
    case MIRROR_RECONCILED:
        bitmap_zero(&r->carry);
        for (uint32_t b = bitmap_next(&r->maps[SLOT_COLD], 0); b != BITMAP_NONE; b = bitmap_next(&r->maps[SLOT_COLD], b + 1))
            replica_unmark(r, SLOT_COLD, b);
        return 0;
    case MIRROR_FLUSH:
        replica_on_flush(r, from, &m, out);
        return 0;
    default:
        return -EPROTO;
    }
}

/* Forget what is known to be complete everywhere: quickly for the report to the next owner, lazily for intent bits. */
static void on_tick(struct replica *r, uint64_t now_us, struct mirror_effects *out)
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
        replica_intent_clear(r, out);
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
        link = replica_link_find(r, event->nodeid, true);
        if (link)
            link->boot = event->boot;
        on_node_gone(r, event->nodeid, event->boot, false);
        break;
    case MIRROR_EVENT_LINK_DOWN:
        link = replica_link_find(r, event->nodeid, false);
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
        replica_on_disk_done(r, event, out);
        break;
    case MIRROR_EVENT_META_DONE:
        replica_on_meta_done(r, event->meta_status, out);
        break;
    case MIRROR_EVENT_TICK:
        on_tick(r, now_us, out);
        break;
    default:
        break; /* the mirror's */
    }
    replica_machine_advance(r);
    replica_flush_advance(r, out);
    replica_seal_advance(r, now_us, out);
    replica_metadata_flush(r, out);
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
        .size_bytes = r->header.size_bytes,
        .sealed_epoch = r->header.sealed_epoch,
        .incarnation = r->header.incarnation,
        .owner = r->header.sealed_owner,
        .failed = replica_out(r),
        .waiting_for_lease = r->pending && !r->pending_saved && replica_disk_quiet(r),
        .intent_regions = r->maps[SLOT_INTENT].set,
        .carry_regions = r->carry.set,
        .cold_regions = r->maps[SLOT_COLD].set,
        .operations = operations,
    };
}
