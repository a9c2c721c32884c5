#include "tests/cluster/ioverify_check.h"
#include "director/base/bytes.h"
#include "director/base/crc32c.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#define IO_MAGIC  0x31676174666f7665ull
#define IO_HEADER 32u

void io_block_fill(void *buffer, const struct io_tag *tag)
{
    uint8_t *p = buffer;
    put_le64(p, IO_MAGIC);
    put_le64(p + 8, tag->writer);
    put_le64(p + 16, tag->sequence);
    put_le64(p + 24, tag->block);
    uint64_t x = (tag->writer ^ tag->sequence * 0x9e3779b97f4a7c15ull ^ tag->block << 40) | 1;
    for (unsigned at = IO_HEADER; at < IO_BLOCK_BYTES; at += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        put_le64(p + at, x);
    }
    put_le32(p + IO_BLOCK_BYTES - 4, crc32c(0, p, IO_BLOCK_BYTES - 4));
}

enum io_content io_block_examine(const void *buffer, struct io_tag *ret_tag)
{
    const uint8_t *p = buffer;
    if (get_le64(p) != IO_MAGIC)
        return IO_CONTENT_OTHER;
    ret_tag->writer = get_le64(p + 8);
    ret_tag->sequence = get_le64(p + 16);
    ret_tag->block = get_le64(p + 24);
    return crc32c(0, p, IO_BLOCK_BYTES - 4) == get_le32(p + IO_BLOCK_BYTES - 4) ? IO_CONTENT_TAGGED : IO_CONTENT_TORN;
}

int io_history_init(struct io_history *history, uint64_t writer, uint64_t block_count)
{
    *history = (struct io_history){.writer = writer, .block_count = block_count, .stride_bytes = IO_BLOCK_BYTES};
    history->records = calloc(block_count, sizeof(*history->records));
    return history->records ? 0 : -ENOMEM;
}

void io_history_done(struct io_history *history)
{
    free(history->records);
    history->records = NULL;
}

struct io_tag io_history_write_begin(struct io_history *history, uint64_t block)
{
    struct io_record *record = &history->records[block];
    ASSERT(block < history->block_count && record->pending == 0);
    record->pending = ++history->sequence;
    return (struct io_tag){.writer = history->writer, .sequence = record->pending, .block = block};
}

void io_history_write_acknowledged(struct io_history *history, uint64_t block)
{
    struct io_record *record = &history->records[block];
    ASSERT(record->pending > record->acknowledged);
    record->acknowledged = record->pending;
    record->seen = MAX(record->seen, record->acknowledged);
    record->pending = 0;
}

struct io_reading io_history_read_begin(const struct io_history *history, uint64_t block)
{
    const struct io_record *record = &history->records[block];
    return (struct io_reading){.block = block, .acknowledged = record->acknowledged, .seen = record->seen};
}

/* Does part of a write stand in a block that as a whole is not ours? */
static bool holds_part_of(const struct io_history *history, uint64_t block, uint64_t sequence, const uint8_t *content)
{
    uint8_t whole[IO_BLOCK_BYTES];
    struct io_tag tag = {.writer = history->writer, .sequence = sequence, .block = block};
    if (!sequence)
        return false;
    io_block_fill(whole, &tag);
    for (unsigned at = 0; at < IO_BLOCK_BYTES; at += 512)
        if (memcmp(content + at, whole + at, 512) == 0)
            return true;
    return false;
}

static enum io_verdict missing(const struct io_reading *reading, bool final, struct error *words, const char *what)
{
    (void)error_set(words, -EIO, "block %" PRIu64 ": %s, but write %" PRIu64 " is acknowledged", reading->block, what,
                    reading->acknowledged);
    return final ? IO_LOST : IO_STALE;
}

enum io_verdict io_history_read_end(struct io_history *history, const struct io_reading *reading, const void *buffer,
                                    bool final, struct error *words)
{
    struct io_record *record = &history->records[reading->block];
    struct io_tag tag = {0};
    enum io_content content = io_block_examine(buffer, &tag);
    if (content == IO_CONTENT_TORN) {
        (void)error_set(words, -EIO, "block %" PRIu64 ": begins as write %" PRIu64 " of block %" PRIu64 " but is not whole",
                        reading->block, tag.sequence, tag.block);
        return IO_TORN;
    }
    if (content == IO_CONTENT_OTHER || tag.writer != history->writer) {
        if (holds_part_of(history, reading->block, record->pending, buffer) ||
            holds_part_of(history, reading->block, record->acknowledged, buffer)) {
            (void)error_set(words, -EIO, "block %" PRIu64 ": holds a part of a write", reading->block);
            return IO_TORN;
        }
        /* What was there before us: fine only while no write of ours has been acknowledged or seen. */
        if (reading->acknowledged)
            return missing(reading, final, words, content == IO_CONTENT_OTHER ? "holds nothing of ours" : "holds an older run");
        if (reading->seen) {
            (void)error_set(words, -EIO, "block %" PRIu64 ": write %" PRIu64 " was read and is gone again", reading->block,
                            reading->seen);
            return IO_STALE;
        }
        return IO_FINE;
    }
    if (tag.block != reading->block || tag.sequence > MAX(record->pending, record->acknowledged)) {
        (void)error_set(words, -EIO, "block %" PRIu64 ": holds write %" PRIu64 " of block %" PRIu64 "%s", reading->block,
                        tag.sequence, tag.block, tag.block == reading->block ? ", which was never made" : "");
        return IO_MISPLACED;
    }
    if (tag.sequence < reading->acknowledged) {
        char what[64];
        (void)snprintf(what, sizeof(what), "holds write %" PRIu64, tag.sequence);
        return missing(reading, final, words, what);
    }
    if (tag.sequence < reading->seen) {
        (void)error_set(words, -EIO, "block %" PRIu64 ": write %" PRIu64 " was read, and now the older %" PRIu64 " is back",
                        reading->block, reading->seen, tag.sequence);
        return IO_STALE;
    }
    record->seen = MAX(record->seen, tag.sequence);
    return IO_FINE;
}

int io_history_save(const struct io_history *history, const char *file, struct error *error)
{
    char temporary[4096];
    int result = 0;
    if ((size_t)snprintf(temporary, sizeof(temporary), "%s.new", file) >= sizeof(temporary))
        return error_set(error, -ENAMETOOLONG, "history %s: the name is too long", file);
    FILE *out = fopen(temporary, "we");
    if (!out)
        result = -errno;
    if (out) {
        fprintf(out, "ioverify-history 1 writer=%" PRIu64 " sequence=%" PRIu64 " blocks=%" PRIu64 " offset=%" PRIu64
                     " stride=%" PRIu64 "\n",
                history->writer, history->sequence, history->block_count, history->offset_bytes, history->stride_bytes);
        for (uint64_t i = 0; i < history->block_count; i++) {
            const struct io_record *r = &history->records[i];
            if (r->acknowledged || r->pending || r->seen)
                fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", i, r->acknowledged, r->pending, r->seen);
        }
        fprintf(out, "end\n");
        if (fflush(out) != 0 || fsync(fileno(out)) < 0)
            result = -errno;
        if (fclose(out) != 0 && result == 0)
            result = -errno;
        if (result == 0 && rename(temporary, file) < 0)
            result = -errno;
    }
    if (result < 0) {
        (void)unlink(temporary);
        return error_set(error, result, "history %s cannot be written: %s", file, strerror(-result));
    }
    return 0;
}

static int history_parse(struct io_history *history, FILE *in)
{
    uint64_t writer, sequence, blocks, offset, stride;
    char line[256];
    if (!fgets(line, sizeof(line), in) ||
        sscanf(line,
               "ioverify-history 1 writer=%" SCNu64 " sequence=%" SCNu64 " blocks=%" SCNu64 " offset=%" SCNu64
               " stride=%" SCNu64,
               &writer, &sequence, &blocks, &offset, &stride) != 5 ||
        blocks == 0 || blocks > 1u << 26 || stride < IO_BLOCK_BYTES)
        return -EINVAL;
    int result = io_history_init(history, writer, blocks);
    if (result < 0)
        return result;
    history->sequence = sequence;
    history->offset_bytes = offset;
    history->stride_bytes = stride;
    while (fgets(line, sizeof(line), in)) {
        uint64_t block;
        struct io_record r;
        if (strcmp(line, "end\n") == 0)
            return 0;
        if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &block, &r.acknowledged, &r.pending, &r.seen) != 4 ||
            block >= blocks || r.acknowledged > sequence || r.pending > sequence || r.seen > sequence)
            break;
        history->records[block] = r;
    }
    io_history_done(history);
    return -EINVAL; /* cut off or wrong */
}

int io_history_load(struct io_history *history, const char *file, struct error *error)
{
    FILE *in = fopen(file, "re");
    if (!in) {
        int code = -errno;
        return error_set(error, code, "history %s cannot be read: %s", file, strerror(-code));
    }
    int result = history_parse(history, in);
    (void)fclose(in);
    return result < 0 ? error_set(error, result, "history %s is damaged or not a history of ioverify", file) : 0;
}
