/* Inside of the replica, shared by replica.c (making, events), replica_seal.c (SEAL), replica_request.c (what an attached
 * owner asks for), replica_operation.c (operations under way, answers) replica_metadata.c (durable marks) and replica_grow.c. */
#ifndef DIRECTOR_REPLICATION_REPLICA_INTERNAL_H
#define DIRECTOR_REPLICATION_REPLICA_INTERNAL_H

#include "replication/core/lease.h"
#include "replication/core/message.h"
#include "replication/core/mirror.h"
#include "replication/core/replica.h"

#define BATCH_PAGES          16u
#define LINKS_MAX            128u

enum { SLOT_INTENT = METADATA_INTENT, SLOT_DIRTY = METADATA_DIRTY, SLOT_COLD = METADATA_COLD };
enum operation_kind {
    OPERATION_WRITE,
    OPERATION_READ,
    OPERATION_DIGEST,
    OPERATION_COPY,
    OPERATION_BITMAP,
    OPERATION_FLUSH,   /* an owner's; waits for the writes that came before it */
    OPERATION_BARRIER, /* our own, before intent bits are cleared */
};
enum operation_state { OPERATION_WAIT_META, OPERATION_WAIT_WRITES, OPERATION_DISK };

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
    struct bitmap clearing;          /* intent bits that go when the barrier under way is done */
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
    unsigned batch_count;
    uint64_t *settled; /* words of the intent bits that are on the disk; a subset of those in maps */
    struct metadata_page *batch;
    uint8_t *image; /* of META_REPLACE, until META_DONE */
    bool failed;
    bool flush_failed;      /* I12 */
    bool cached;            /* a write without FUA is done, or may have been before we started: no barrier since */
    bool barrier_busy;
    bool machine_new;       /* header.machine is of an earlier boot; replaced when the cold marks are durable */
    uint64_t machine_ticket, cached_ticket;
    uint32_t flushes_waiting;

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

static inline bool replica_bug(const struct replica *r, uint32_t which)
{
    return r->parameters.planted_bugs & which;
}

/* Out of service until restart. */
static inline bool replica_out(const struct replica *r)
{
    return r->failed || r->flush_failed;
}

/* replica_operation.c */
struct link_state *replica_link_find(struct replica *r, uint16_t nodeid, bool add);
void replica_send(struct replica *r, uint16_t to, const struct mirror_message *message, struct mirror_data data,
                  uint32_t data_bytes, struct mirror_effects *out);
void replica_reply(struct replica *r, uint16_t to, const struct mirror_message *question, uint16_t type, int status,
                   struct mirror_data data, uint32_t data_bytes, struct mirror_effects *out);
void replica_send_fenced(struct replica *r, uint16_t to, uint64_t epoch, struct mirror_effects *out);
void replica_release(struct mirror_data data, struct mirror_effects *out);
uint64_t replica_floor_epoch(const struct replica *r);
bool replica_session_matches(const struct replica *r, uint16_t from, const struct mirror_message *m);
void replica_note_complete(struct replica *r, uint64_t complete);
struct operation *operation_new(struct replica *r, enum operation_kind kind, uint16_t from, const struct mirror_message *m,
                                struct mirror_data data);
void operation_free(struct replica *r, struct operation *op, struct mirror_effects *out);
void operation_answer(struct replica *r, struct operation *op, int status, struct mirror_effects *out);
void operation_disk(struct operation *op, struct mirror_effects *out);
void operation_advance(struct replica *r, struct operation *op, struct mirror_effects *out);
void operations_orphan(struct replica *r, struct mirror_effects *out);
/* Is anything on its way to or from the data? Flushes do not count: they change nothing. */
bool replica_disk_quiet(const struct replica *r);
void replica_on_disk_done(struct replica *r, const struct mirror_event *event, struct mirror_effects *out);

/* replica_metadata.c */
uint64_t replica_mark(struct replica *r, unsigned slot, uint32_t region);
void replica_unmark(struct replica *r, unsigned slot, uint32_t region);
uint64_t replica_touch_header(struct replica *r);
void replica_metadata_flush(struct replica *r, struct mirror_effects *out);
void replica_on_meta_done(struct replica *r, int status, struct mirror_effects *out);

/* replica_intent.c */
/* Mark a region that is about to be written; the ticket to wait for, 0 when its bit is on the disk. */
uint64_t replica_mark_intent(struct replica *r, uint32_t region);
/* A bit was cleared; the batch is durable. */
void replica_intent_unsettle(struct replica *r, uint32_t region);
void replica_intent_settle(struct replica *r);

/* replica_grow.c */
void replica_grow(struct replica *r, uint64_t size_bytes, struct mirror_effects *out);

/* replica_flush.c */
void replica_machine_check(struct replica *r, uint32_t damaged_cold_pages);
void replica_machine_advance(struct replica *r);
/* A write without FUA: the ticket it has to wait for. */
uint64_t replica_note_cached(struct replica *r);
void replica_on_flush(struct replica *r, uint16_t from, const struct mirror_message *m, struct mirror_effects *out);
void replica_flush_advance(struct replica *r, struct mirror_effects *out);
void replica_flush_failed(struct replica *r);
void replica_intent_clear(struct replica *r, struct mirror_effects *out);
void replica_barrier_done(struct replica *r, int status);

/* replica_seal.c */
void replica_seal_advance(struct replica *r, uint64_t now_us, struct mirror_effects *out);
int replica_on_seal(struct replica *r, uint16_t from, const struct mirror_message *m, uint64_t now_us,
                    struct mirror_effects *out);

/* replica_request.c */
void replica_on_write(struct replica *r, uint16_t from, const struct mirror_message *m, struct mirror_data data,
                      struct mirror_effects *out);
void replica_on_read(struct replica *r, uint16_t from, const struct mirror_message *m, struct mirror_data data,
                     struct mirror_effects *out);
void replica_on_copied(struct replica *r, const struct mirror_message *m, struct mirror_data data, struct mirror_effects *out);
void operation_copied(struct replica *r, const struct operation *op, int status, struct mirror_effects *out);
int replica_on_bitmap(struct replica *r, uint16_t from, const struct mirror_message *m, struct mirror_effects *out);
void replica_on_release(struct replica *r, uint16_t from, const struct mirror_message *m);

#endif
