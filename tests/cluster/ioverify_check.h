/* The pure part of ioverify: what each block may hold, and whether what was read is right.
 *
 * Every write of a block carries a tag of its own. A block has at most one write under way, so its writes have an order,
 * and it behaves as a single register:
 *   V1  a read returns the value that was acknowledged last before it began, or one written later;
 *   V2  once a read has returned a value, no read that begins afterwards returns an older one (an unacknowledged write
 *       may be there or not, but it may not come and go);
 *   V3  what is read is one whole write of that very block.
 * A write with unknown outcome stays pending, and is repeated with the same tag until it is acknowledged. */
#ifndef TESTS_CLUSTER_IOVERIFY_CHECK_H
#define TESTS_CLUSTER_IOVERIFY_CHECK_H

#include "director/base/error.h"
#include <stdbool.h>

#define IO_BLOCK_BYTES 4096u

struct io_tag {
    uint64_t writer;   /* of one run, random */
    uint64_t sequence; /* from 1, grows with each write of the run */
    uint64_t block;    /* index */
};

enum io_content {
    IO_CONTENT_TAGGED, /* one whole write */
    IO_CONTENT_TORN,   /* begins as a write of ours, but is not whole */
    IO_CONTENT_OTHER,  /* never written by ioverify */
};

/* Fill IO_BLOCK_BYTES with what a write of that tag looks like: every byte depends on the tag, the last four are a crc32c. */
void io_block_fill(void *buffer, const struct io_tag *tag);
/* What is in the buffer; *ret_tag is set unless it is IO_CONTENT_OTHER. */
enum io_content io_block_examine(const void *buffer, struct io_tag *ret_tag);

struct io_record {
    uint64_t acknowledged; /* sequence of the last acknowledged write, 0: none */
    uint64_t pending;      /* under way or of unknown outcome, 0: none */
    uint64_t seen;         /* highest sequence that was read or acknowledged */
};

struct io_history {
    uint64_t writer;
    uint64_t sequence; /* last given out */
    uint64_t block_count;
    uint64_t offset_bytes; /* of block 0 on the LUN */
    uint64_t stride_bytes; /* from one block to the next */
    struct io_record *records;
};

/* 0 or -ENOMEM. The caller frees what it holds by io_history_done(). */
MUST_CHECK int io_history_init(struct io_history *history, uint64_t writer, uint64_t block_count);
void io_history_done(struct io_history *history);

/* A new write of block: its tag. No other write of it may be pending. */
struct io_tag io_history_write_begin(struct io_history *history, uint64_t block);
/* The pending write was acknowledged. */
void io_history_write_acknowledged(struct io_history *history, uint64_t block);

/* What a read that begins now may return at the oldest. */
struct io_reading {
    uint64_t block;
    uint64_t acknowledged, seen;
};
struct io_reading io_history_read_begin(const struct io_history *history, uint64_t block);

enum io_verdict {
    IO_FINE,
    IO_STALE,     /* V1, V2: older than it may be */
    IO_LOST,      /* V1 at the end: the acknowledged write is not there */
    IO_TORN,      /* V3: not one whole write */
    IO_MISPLACED, /* V3: a write of another block, or one that was never made */
    IO_VERDICTS,
};

/* The read has returned buffer. final: nothing is under way any more, so what is missing is lost. words (may be NULL) are set
 * unless the verdict is IO_FINE. */
enum io_verdict io_history_read_end(struct io_history *history, const struct io_reading *reading, const void *buffer,
                                    bool final, struct error *words);

/* Keep a history in a file (text, replaced as a whole), and take it up again. Pending writes stay pending. */
MUST_CHECK int io_history_save(const struct io_history *history, const char *file, struct error *error);
MUST_CHECK int io_history_load(struct io_history *history, const char *file, struct error *error);

#endif
