/* Operations under way at a member, and its answers. */
#include "replication/core/replica_internal.h"
#include <errno.h>

struct link_state *replica_link_find(struct replica *r, uint16_t nodeid, bool add)
{
    for (unsigned i = 0; i < r->link_count; i++)
        if (r->links[i].nodeid == nodeid)
            return &r->links[i];
    if (!add || r->link_count == LINKS_MAX)
        return NULL;
    r->links[r->link_count] = (struct link_state){.nodeid = nodeid};
    return &r->links[r->link_count++];
}

void replica_send(struct replica *r, uint16_t to, const struct mirror_message *message, struct mirror_data data,
                  uint32_t data_bytes, struct mirror_effects *out)
{
    struct mirror_effect *effect = mirror_effects_add(out, MIRROR_EFFECT_SEND);
    mirror_message_encode(message, r->parameters.volume, data_bytes, effect);
    effect->send.nodeid = to;
    effect->send.data = data;
}

void replica_reply(struct replica *r, uint16_t to, const struct mirror_message *question, uint16_t type, int status,
                   struct mirror_data data, uint32_t data_bytes, struct mirror_effects *out)
{
    struct mirror_message reply = {.type = type, .epoch = question->epoch, .request = question->request,
                                   .argument = (uint64_t)(int64_t)status, .boot = question->boot,
                                   .attach = question->attach};
    replica_send(r, to, &reply, data, data_bytes, out);
}

void replica_send_fenced(struct replica *r, uint16_t to, uint64_t epoch, struct mirror_effects *out)
{
    struct mirror_message fenced = {.type = MIRROR_FENCED, .epoch = epoch};
    replica_send(r, to, &fenced, (struct mirror_data){0}, 0, out);
}

void replica_release(struct mirror_data data, struct mirror_effects *out)
{
    if (data.handle)
        mirror_effects_add(out, MIRROR_EFFECT_RELEASE)->release = data.handle;
}

/* The epoch below which everything is refused (I2): sealed on disk, or about to be. */
uint64_t replica_floor_epoch(const struct replica *r)
{
    return r->pending ? MAX(r->header.sealed_epoch, r->pending_seal.epoch) : r->header.sealed_epoch;
}

bool replica_session_matches(const struct replica *r, uint16_t from, const struct mirror_message *m)
{
    if (replica_bug(r, REPLICA_BUG_NO_SEAL) && (m->type == MIRROR_WRITE || m->type == MIRROR_READ) &&
        m->epoch < r->header.sealed_epoch)
        return true;
    return r->attached && m->epoch == r->header.sealed_epoch && from == r->header.sealed_owner && m->boot == r->boot &&
           m->attach == r->attach;
}

void replica_note_complete(struct replica *r, uint64_t complete)
{
    r->complete = MAX(r->complete, complete);
}

/* ---- operations --------------------------------------------------------------------------------------------------- */

struct operation *operation_new(struct replica *r, enum operation_kind kind, uint16_t from,
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

void operation_free(struct replica *r, struct operation *op, struct mirror_effects *out)
{
    replica_release(op->data, out);
    op->data.handle = NULL;
    op->turn++;
    list_remove(&op->link);
    list_append(&r->unused, &op->link);
}

void operation_answer(struct replica *r, struct operation *op, int status, struct mirror_effects *out)
{
    static const uint16_t types[] = {MIRROR_WRITE_REPLY, MIRROR_READ_REPLY, MIRROR_DIGEST_REPLY, MIRROR_COPY_REPLY,
                                     MIRROR_BITMAP_REPLY, MIRROR_FLUSH_REPLY, 0};
    const struct mirror_message *m = &op->message;
    struct mirror_data none = {0};
    uint64_t bytes = op->kind == OPERATION_READ ? m->length_bytes : 0;
    if (op->kind == OPERATION_DIGEST)
        bytes = (m->length_bytes + m->piece_bytes - 1) / m->piece_bytes * MIRROR_DIGEST_BYTES;
    if (status < 0)
        bytes = 0;
    if (op->kind == OPERATION_COPY)
        operation_copied(r, op, status, out);
    else if (!op->orphan)
        replica_reply(r, op->from, m, types[op->kind], status, bytes ? op->data : none, (uint32_t)bytes, out);
}

void operation_disk(struct operation *op, struct mirror_effects *out)
{
    static const enum mirror_effect_type types[] = {
        [OPERATION_WRITE] = MIRROR_EFFECT_DISK_WRITE,
        [OPERATION_READ] = MIRROR_EFFECT_DISK_READ,
        [OPERATION_DIGEST] = MIRROR_EFFECT_DISK_DIGEST,
        [OPERATION_COPY] = MIRROR_EFFECT_DISK_READ,
        [OPERATION_FLUSH] = MIRROR_EFFECT_DISK_FLUSH,
        [OPERATION_BARRIER] = MIRROR_EFFECT_DISK_FLUSH,
    };
    struct mirror_effect *effect = mirror_effects_add(out, types[op->kind]);
    effect->disk.token = (uint64_t)op->turn << 32 | op->index;
    op->state = OPERATION_DISK;
    if (effect->type == MIRROR_EFFECT_DISK_FLUSH) {
        effect->disk.operation = BLOCK_FLUSH;
        effect->disk.flags = op->kind == OPERATION_BARRIER ? MIRROR_FLUSH_BARRIER : 0;
        return;
    }
    bool read = op->kind != OPERATION_WRITE;
    effect->disk.operation = read ? BLOCK_READ : (enum block_operation)op->message.operation;
    effect->disk.flags = read ? 0 : op->message.io_flags;
    effect->disk.offset_bytes = op->message.offset_bytes;
    effect->disk.length_bytes = op->message.length_bytes;
    effect->disk.data = op->data;
    effect->disk.piece_bytes = op->message.piece_bytes;
    effect->disk.read_only = op->message.read_only;
}

bool replica_disk_quiet(const struct replica *r)
{
    list_foreach(node, &r->active) {
        const struct operation *op = list_entry(node, struct operation, link);
        if (op->kind != OPERATION_FLUSH && op->kind != OPERATION_BARRIER)
            return false;
    }
    return true;
}

/* The metadata is durable as far as op needs: go on. */
void operation_advance(struct replica *r, struct operation *op, struct mirror_effects *out)
{
    if (op->ticket > r->durable)
        return;
    if (op->kind == OPERATION_BITMAP) {
        operation_answer(r, op, 0, out);
        operation_free(r, op, out);
        return;
    }
    operation_disk(op, out);
    if (op->kind == OPERATION_WRITE && replica_bug(r, REPLICA_BUG_ACK_EARLY)) {
        operation_answer(r, op, 0, out);
        op->orphan = true;
    }
}

/* The session ended: what has not reached the disk will not; what has finishes unanswered (the owner sends it again). */
void operations_orphan(struct replica *r, struct mirror_effects *out)
{
    list_foreach_safe(node, after, &r->active) {
        struct operation *op = list_entry(node, struct operation, link);
        if (op->state == OPERATION_DISK) {
            op->orphan = true;
            continue;
        }
        if (op->state == OPERATION_WAIT_WRITES)
            r->flushes_waiting--;
        operation_free(r, op, out);
    }
}

void replica_on_disk_done(struct replica *r, const struct mirror_event *event, struct mirror_effects *out)
{
    uint32_t index = (uint32_t)event->disk.token;
    ASSERT(index < r->parameters.operations_max);
    struct operation *op = &r->operations[index];
    ASSERT(op->turn == event->disk.token >> 32 && op->state == OPERATION_DISK);
    if (event->disk.data.handle) {
        ASSERT(!op->data.handle);
        op->data = event->disk.data;
    }
    int status = event->disk.status;
    if (op->kind == OPERATION_BARRIER)
        replica_barrier_done(r, status);
    else if (op->kind == OPERATION_FLUSH && status < 0 && !replica_bug(r, REPLICA_BUG_FLUSH_ERROR))
        replica_flush_failed(r);
    else if (op->kind == OPERATION_FLUSH && status < 0)
        status = 0; /* the planted bug */
    else if (op->kind == OPERATION_WRITE && !(op->message.io_flags & BLOCK_FUA))
        r->cached = true;
    operation_answer(r, op, status, out);
    operation_free(r, op, out);
}
