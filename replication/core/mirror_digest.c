/* Asking members for digests of a range, for an op in phase OP_DIGEST. */
#include "replication/core/mirror_internal.h"
#include <errno.h>
#include <string.h>

void digest_ask(struct mirror *m, struct mirror_op *op, uint8_t members, uint32_t piece, bool read_only)
{
    op->phase = OP_DIGEST;
    op->digest_wait = members;
    op->digest_have = op->digest_late = 0;
    op->issued_us = m->now;
    for (unsigned k = 0; k < m->config.replica_count; k++) {
        if (!(members >> k & 1))
            continue;
        struct mirror_message message = {.type = MIRROR_DIGEST, .request = (uint64_t)op->turn << 32 | op->index,
                                         .offset_bytes = op->io_offset, .length_bytes = op->io_length,
                                         .piece_bytes = piece, .read_only = read_only};
        mirror_send(m, k, &message, (struct mirror_data){0}, 0);
    }
}

void digest_drop(struct mirror *m, struct mirror_op *op)
{
    for (unsigned k = 0; k < MIRROR_REPLICAS_MAX; k++) {
        if (op->digests[k].handle)
            mirror_effects_add(m->out, MIRROR_EFFECT_RELEASE)->release = op->digests[k].handle;
        op->digests[k].handle = NULL;
    }
    op->digest_wait = op->digest_have = 0;
}

void digest_get(const struct mirror *m, const struct mirror_op *op, unsigned k, uint32_t piece,
                uint8_t ret_digest[MIRROR_DIGEST_BYTES])
{
    const struct mirror_data_operations *data = &m->parameters.data;
    data->digest(data->context, op->digests[k], piece, ret_digest);
}

bool digest_unreadable(const uint8_t digest[MIRROR_DIGEST_BYTES])
{
    for (unsigned i = 0; i < MIRROR_DIGEST_BYTES; i++)
        if (digest[i] != 0xff)
            return false;
    return true;
}

/* Members keep their digests: the range is not held for them. */
void digest_slow(struct mirror *m, struct mirror_op *op)
{
    op->digest_late = op->digest_wait;
    digest_drop(m, op);
    op->turn++;
    op->phase = OP_START;
    list_append(&m->ready, &op->ready);
}

static void digest_failed(struct mirror *m, struct mirror_op *op, unsigned k, int status)
{
    digest_drop(m, op);
    op->turn++; /* the other answers are not wanted any more */
    if (op->kind == OP_CHECK) {
        check_compared(m, op, status);
        return;
    }
    if (op->kind == OP_REPAIR) {
        repair_located(m, op, status);
        return;
    }
    if (op->joiners >> k & 1) { /* it cannot be compared now: it starts anew later */
        member_back_off(m, k, true);
        member_detach(m, k, MIRROR_MEMBER_AWAY);
        return;
    }
    op->compare = false; /* read it, and find another source */
    op->phase = OP_START;
    op_run(m, op);
}

void mirror_digest_reply(struct mirror *m, unsigned k, const struct mirror_message *message, struct mirror_data data,
                         uint32_t data_bytes)
{
    uint32_t index = (uint32_t)message->request;
    struct mirror_op *op = index < m->op_count ? &m->ops[index] : NULL;
    int status = (int)(int64_t)message->argument;
    if (!op || op->turn != message->request >> 32 || op->phase != OP_DIGEST || !(op->digest_wait >> k & 1)) {
        if (data.handle)
            mirror_effects_add(m->out, MIRROR_EFFECT_RELEASE)->release = data.handle;
        return;
    }
    uint32_t piece = op->kind == OP_RESYNC ? DIGEST_PIECE : BLOCK_BYTES;
    op->digest_wait &= (uint8_t)~(1u << k);
    op->digests[k] = data;
    if (status == 0 && data_bytes != (op->io_length + piece - 1) / piece * MIRROR_DIGEST_BYTES)
        status = -EPROTO;
    if (status < 0) {
        digest_failed(m, op, k, status);
        return;
    }
    op->digest_have |= (uint8_t)(1u << k);
    if (op->digest_wait)
        return;
    if (op->kind == OP_CHECK)
        check_compared(m, op, 0);
    else if (op->kind == OP_REPAIR)
        repair_located(m, op, 0);
    else
        resync_compared(m, op);
}
