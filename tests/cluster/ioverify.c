/* ioverify: a multipath initiator that writes uniquely tagged blocks to a LUN while anything may happen to its targets, and
 * checks that nothing acknowledged is lost, torn or stale. See ioverify.md; the checking itself is in ioverify_check.c, a
 * path in ioverify_path.c.
 *
 *     LOAD (until the time or the file says so) -> DRAIN (what is under way) -> VERIFY (each block through each path) -> END
 *
 * Never two writes of one block are under way. When a path fails with a write under way, that write is repeated elsewhere
 * with the same tag; until a new session on the failed path has made sure that the old command is dead, the block rests: a new
 * value for it could be overwritten by the old command, and no target could help that. */
#include "director/base/uuid.h"
#include "tests/cluster/ioverify_check.h"
#include "tests/cluster/ioverify_path.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define PATHS_MAX      16u
#define DEPTH_MAX      256u
#define READ_SHARE     6u /* one in so many operations is a read */
#define VIOLATIONS_MAX 20u
#define GAP_TOLD_MS    5u

enum op_state { OP_FREE, OP_READY, OP_SENT };

struct op {
    struct path_io io;
    enum op_state state;
    bool write;
    uint64_t block;
    struct io_reading reading;
    struct path *only; /* for the last check: this path and no other */
    uint64_t not_before_ms;
    uint8_t *buffer;
};

enum phase { PHASE_LOAD, PHASE_DRAIN, PHASE_VERIFY, PHASE_END };

static struct {
    const char *portals[PATHS_MAX];
    unsigned portal_count;
    const char *target, *history_file, *until_file, *verify_only, *gaps_file;
    int lun;
    unsigned depth;
    uint64_t seconds, blocks, offset_bytes, stride_bytes, timeout_ms, command_timeout_ms, drain_ms, settle_ms, rate;
    bool json, quiet, verbose;
} options = {.depth = 16,
             .seconds = UINT64_MAX,
             .blocks = 4096,
             .stride_bytes = IO_BLOCK_BYTES,
             .timeout_ms = 500,
             .command_timeout_ms = 10000,
             .drain_ms = 30000,
             .settle_ms = 15000};

static struct path_settings settings;
static struct path paths[PATHS_MAX];
static struct op ops[DEPTH_MAX];
static struct io_history history;
static uint32_t *resting; /* by block: bit per path whose old session may still hold a write of it */
static bool *writing;     /* by block */
static struct path *current;
static enum phase phase;
static uint64_t start_ms, phase_ms, now_ms, random_state;
static struct path *verifying;
static uint64_t verify_next, verify_done;
static bool verified[PATHS_MAX];
static volatile sig_atomic_t stop_asked;
static FILE *gaps;

static struct {
    uint64_t writes, reads, retries, switches, errors, verified_reads;
    uint64_t verdicts[IO_VERDICTS];
    uint64_t last_ack_ms, gap_ms, gap_at_ms, unknown, violations_told;
    struct timespec wall_start;
    char last_error[200];
} total;

static uint64_t clock_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t random_below(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 11) % below;
}

static void wall_time(uint64_t at_ms, char text[16])
{
    uint64_t ms = (uint64_t)total.wall_start.tv_sec * 1000 + (uint64_t)total.wall_start.tv_nsec / 1000000 + at_ms;
    time_t seconds = (time_t)(ms / 1000);
    struct tm broken;
    localtime_r(&seconds, &broken);
    size_t used = strftime(text, 16, "%H:%M:%S", &broken);
    (void)snprintf(text + used, 16 - used, ".%03u", (unsigned)(ms % 1000));
}

/* An operation was acknowledged (or the load ended): how long was it since the one before? */
static void gap_note(void)
{
    uint64_t gap_ms = total.last_ack_ms ? now_ms - total.last_ack_ms : 0;
    if (gaps && gap_ms >= GAP_TOLD_MS)
        fprintf(gaps, "%" PRIu64 " %" PRIu64 "\n",
                (uint64_t)total.wall_start.tv_sec * 1000 + (uint64_t)total.wall_start.tv_nsec / 1000000 + total.last_ack_ms - start_ms, gap_ms);
    if (gap_ms > total.gap_ms) {
        total.gap_ms = gap_ms;
        total.gap_at_ms = total.last_ack_ms - start_ms;
    }
    total.last_ack_ms = now_ms;
}

static void judge(struct op *op)
{
    static const char *const names[IO_VERDICTS] = {"fine", "STALE", "LOST", "TORN", "MISPLACED"};
    struct error words = {0};
    bool final = phase == PHASE_VERIFY;
    enum io_verdict verdict = io_history_read_end(&history, &op->reading, op->buffer, final, &words);
    total.verdicts[verdict]++;
    if (verdict == IO_FINE || total.violations_told++ >= VIOLATIONS_MAX)
        return;
    char when[16];
    wall_time(now_ms - start_ms, when);
    fprintf(stderr, "%s: %s (through %s, %s)\n", names[verdict], words.message, op->io.path->portal, when);
}

static void op_answered(struct path_io *io, enum path_outcome outcome, uint64_t delay_ms, const char *words)
{
    struct op *op = container_of(io, struct op, io);
    if (outcome == PATH_RETRY) {
        total.retries++;
        op->state = OP_READY;
        op->not_before_ms = now_ms + delay_ms;
        return;
    }
    if (outcome == PATH_HARD) {
        /* The block of a failed write keeps it pending: either value is right from now on, and it is not written again. */
        total.errors++;
        (void)snprintf(total.last_error, sizeof(total.last_error), "%s of block %" PRIu64 " through %s: %s",
                       op->write ? "write" : "read", op->block, io->path->portal, words);
        if (total.errors <= VIOLATIONS_MAX)
            fprintf(stderr, "error: %s\n", total.last_error);
        if (op->only)
            verify_done++;
        op->state = OP_FREE;
        return;
    }
    op->state = OP_FREE;
    if (phase != PHASE_VERIFY)
        gap_note();
    if (op->write) {
        io_history_write_acknowledged(&history, op->block);
        writing[op->block] = false;
        total.writes++;
        return;
    }
    judge(op);
    if (op->only) {
        total.verified_reads++;
        verify_done++;
    } else {
        total.reads++;
    }
}

static void op_lost(struct path_io *io)
{
    struct op *op = container_of(io, struct op, io);
    if (op->write)
        resting[op->block] |= 1u << io->path->index;
    total.retries++;
    op->state = OP_READY;
    op->not_before_ms = 0;
}

/* A new session of a path: what the old one still held is dead. */
static void path_logged_in(struct path *path)
{
    for (uint64_t block = 0; block < history.block_count; block++)
        resting[block] &= ~(1u << path->index);
}

static void check_capacity(const struct path *path)
{
    uint64_t end = history.offset_bytes + (history.block_count - 1) * history.stride_bytes + IO_BLOCK_BYTES;
    if (path->size_bytes >= end)
        return;
    fprintf(stderr, "the LUN has %" PRIu64 " bytes, but %" PRIu64 " blocks from byte %" PRIu64 " on need %" PRIu64
                    ": give fewer --blocks\n",
            path->size_bytes, history.block_count, history.offset_bytes, end);
    exit(2);
}

/* The best usable path; the current one as long as none is better. */
static struct path *path_choose(void)
{
    struct path *best = NULL;
    if (current && path_usable(current, now_ms))
        best = current;
    for (unsigned i = 0; i < options.portal_count; i++) {
        if (path_usable(&paths[i], now_ms) && (!best || paths[i].access_state < best->access_state))
            best = &paths[i];
    }
    if (best && best != current) {
        check_capacity(best);
        if (current)
            total.switches++;
        current = best;
    }
    return best;
}

static bool op_begin(struct op *op)
{
    uint64_t block = 0;
    bool write = random_below(READ_SHARE) != 0;
    unsigned tries;
    for (tries = 0; tries < 32; tries++) {
        block = random_below(history.block_count);
        const struct io_record *record = &history.records[block];
        if (write ? !writing[block] && !resting[block] && !record->pending : record->seen != 0)
            break;
    }
    if (tries == 32)
        return false;
    op->write = write;
    op->block = block;
    op->only = NULL;
    op->state = OP_READY;
    op->not_before_ms = 0;
    if (write) {
        struct io_tag tag = io_history_write_begin(&history, block);
        writing[block] = true;
        io_block_fill(op->buffer, &tag);
    } else {
        op->reading = io_history_read_begin(&history, block);
    }
    return true;
}

static void op_send(struct op *op, struct path *path)
{
    op->state = OP_SENT;
    path_send(path, &op->io, op->write, history.offset_bytes + op->block * history.stride_bytes, op->buffer, IO_BLOCK_BYTES,
              now_ms);
}

static unsigned ops_busy(void)
{
    unsigned busy = 0;
    for (unsigned i = 0; i < options.depth; i++)
        busy += ops[i].state != OP_FREE;
    return busy;
}

static void load_turn(void)
{
    struct path *path = path_choose();
    for (unsigned i = 0; i < options.depth; i++) {
        struct op *op = &ops[i];
        if (!path)
            return;
        if (op->state == OP_FREE && phase == PHASE_LOAD) {
            if (options.rate && total.writes + total.reads + ops_busy() > (now_ms - start_ms) * options.rate / 1000)
                continue;
            if (!op_begin(op))
                continue;
        }
        if (op->state == OP_READY && now_ms >= op->not_before_ms) {
            op_send(op, path);
            if (path->failed)
                path = path_choose();
        }
    }
}

static void verify_start(struct path *path)
{
    verifying = path;
    verify_next = verify_done = 0;
    phase_ms = now_ms;
}

static void phase_verify(void)
{
    phase = PHASE_VERIFY;
    current = NULL;
    verify_start(&paths[0]);
}

static void verify_turn(void)
{
    if (verify_done == history.block_count || now_ms - phase_ms > options.settle_ms) {
        verified[verifying->index] = verify_done == history.block_count;
        for (unsigned i = 0; i < options.depth; i++) {
            if (ops[i].state == OP_SENT)
                path_fail(verifying, "the last check takes too long here");
            else
                ops[i].state = OP_FREE;
        }
        if (verifying->failed)
            return; /* its commands come back first */
        if (verifying->index + 1 == options.portal_count)
            phase = PHASE_END;
        else
            verify_start(&paths[verifying->index + 1]);
        return;
    }
    for (unsigned i = 0; i < options.depth; i++) {
        struct op *op = &ops[i];
        if (op->state == OP_FREE && verify_next < history.block_count) {
            op->write = false;
            op->block = verify_next++;
            op->only = verifying;
            op->not_before_ms = 0;
            op->reading = io_history_read_begin(&history, op->block);
            op->state = OP_READY;
        }
        if (op->state == OP_READY && now_ms >= op->not_before_ms && path_usable(verifying, now_ms)) {
            check_capacity(verifying);
            op_send(op, verifying);
            phase_ms = now_ms; /* time out only when nothing moves */
        }
    }
}

static void drain_turn(void)
{
    load_turn();
    bool late = now_ms - phase_ms > options.drain_ms;
    if (ops_busy() && !late)
        return;
    for (unsigned i = 0; i < options.depth; i++) {
        if (ops[i].state == OP_SENT)
            path_fail(ops[i].io.path, "a command is still unanswered at the end");
        else if (ops[i].state == OP_READY)
            ops[i].state = OP_FREE;
    }
    if (ops_busy())
        return; /* given back when the paths are torn down */
    for (uint64_t block = 0; block < history.block_count; block++)
        total.unknown += history.records[block].pending != 0;
    phase_verify();
}

static bool load_is_over(void)
{
    return stop_asked || now_ms - start_ms >= options.seconds * 1000 ||
           (options.until_file && access(options.until_file, F_OK) == 0);
}

static void progress(void)
{
    static uint64_t told_s;
    uint64_t second = (now_ms - start_ms) / 1000;
    unsigned up = 0;
    if (second == told_s)
        return;
    told_s = second;
    for (unsigned i = 0; i < options.portal_count; i++)
        up += paths[i].state == PATH_READY;
    if (options.quiet)
        return;
    if (phase == PHASE_VERIFY)
        fprintf(stderr, "%3" PRIu64 " s: checking %s: %" PRIu64 " of %" PRIu64 " blocks\n", second, verifying->portal,
                verify_done, history.block_count);
    else
        fprintf(stderr,
                "%3" PRIu64 " s: %" PRIu64 " writes acknowledged, %" PRIu64 " reads, %u of %u paths up, through %s, longest gap %" PRIu64
                " ms\n",
                second, total.writes, total.reads, up, options.portal_count, current ? current->portal : "none",
                MAX(total.gap_ms, total.last_ack_ms && phase == PHASE_LOAD ? now_ms - total.last_ack_ms : 0));
}

/* Wait for the network, at most until something is due. */
static void poll_turn(void)
{
    struct pollfd fds[PATHS_MAX];
    for (unsigned i = 0; i < options.portal_count; i++) {
        fds[i] = (struct pollfd){.fd = -1};
        short events = 0;
        fds[i].fd = path_poll(&paths[i], &events);
        fds[i].events = events;
    }
    (void)poll(fds, options.portal_count, 10);
    uint64_t before_ms = now_ms;
    now_ms = clock_now_ms();
    for (unsigned i = 0; i < options.portal_count; i++) {
        if (fds[i].fd >= 0 && fds[i].revents)
            path_service(&paths[i], fds[i].revents, now_ms);
        else if (now_ms - before_ms > 100)
            paths[i].heard_ms += now_ms - before_ms; /* it was we who did not run */
    }
    for (unsigned i = 0; i < options.portal_count; i++)
        path_tick(&paths[i], now_ms);
}

static void run(void)
{
    now_ms = start_ms = phase_ms = clock_now_ms();
    clock_gettime(CLOCK_REALTIME, &total.wall_start);
    if (options.verify_only)
        phase_verify();
    while (phase != PHASE_END) {
        poll_turn();
        switch (phase) {
        case PHASE_LOAD:
            load_turn();
            if (load_is_over()) {
                if (ops_busy())
                    gap_note(); /* an outage that lasts until the end counts, too */
                phase = PHASE_DRAIN;
                phase_ms = now_ms;
            }
            break;
        case PHASE_DRAIN:
            drain_turn();
            break;
        case PHASE_VERIFY:
            verify_turn();
            break;
        case PHASE_END:
            break;
        }
        progress();
    }
    for (unsigned i = 0; i < options.portal_count; i++)
        path_done(&paths[i]);
}

static uint64_t violations(void)
{
    return total.verdicts[IO_STALE] + total.verdicts[IO_LOST] + total.verdicts[IO_TORN] + total.verdicts[IO_MISPLACED];
}

static unsigned verified_paths(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < options.portal_count; i++)
        count += verified[i];
    return count;
}

static void report_json(bool good)
{
    char when[16];
    wall_time(total.gap_at_ms, when);
    printf("{\"ok\": %s, \"writes_acknowledged\": %" PRIu64 ", \"reads\": %" PRIu64 ", \"retries\": %" PRIu64
           ", \"path_switches\": %" PRIu64 ", \"longest_gap_ms\": %" PRIu64 ", \"longest_gap_at_ms\": %" PRIu64
           ", \"longest_gap_at\": \"%s\", \"lost\": %" PRIu64 ", \"torn\": %" PRIu64 ", \"stale\": %" PRIu64
           ", \"misplaced\": %" PRIu64 ", \"errors\": %" PRIu64 ", \"unknown\": %" PRIu64 ", \"verified_reads\": %" PRIu64
           ", \"paths\": [",
           good ? "true" : "false", total.writes, total.reads, total.retries, total.switches, total.gap_ms, total.gap_at_ms, when,
           total.verdicts[IO_LOST], total.verdicts[IO_TORN], total.verdicts[IO_STALE], total.verdicts[IO_MISPLACED], total.errors,
           total.unknown, total.verified_reads);
    for (unsigned i = 0; i < options.portal_count; i++)
        printf("%s{\"portal\": \"%s\", \"logins\": %" PRIu64 ", \"failures\": %" PRIu64 ", \"verified\": %s}", i ? ", " : "",
               paths[i].portal, paths[i].logins, paths[i].failures, verified[i] ? "true" : "false");
    printf("]}\n");
}

static void report_words(bool good)
{
    char when[16];
    wall_time(total.gap_at_ms, when);
    if (!options.verify_only) {
        printf("%" PRIu64 " writes acknowledged, %" PRIu64 " reads, %" PRIu64 " retries, %" PRIu64 " path switches\n", total.writes,
               total.reads, total.retries, total.switches);
        printf("longest gap in acknowledged I/O: %" PRIu64 " ms, at %" PRIu64 ".%03" PRIu64 " s (%s)\n", total.gap_ms,
               total.gap_at_ms / 1000, total.gap_at_ms % 1000, when);
    }
    printf("%" PRIu64 " blocks checked through %u of %u paths\n", history.block_count, verified_paths(), options.portal_count);
    for (unsigned i = 0; i < options.portal_count; i++)
        if (!verified[i])
            printf("not checked through %s: %s\n", paths[i].portal, paths[i].why[0] ? paths[i].why : "not usable");
    if (total.unknown)
        printf("%" PRIu64 " writes were never answered: either value is right for their blocks\n", total.unknown);
    if (total.errors)
        printf("%" PRIu64 " commands failed for good, the last: %s\n", total.errors, total.last_error);
    printf("lost=%" PRIu64 " torn=%" PRIu64 " stale=%" PRIu64 " misplaced=%" PRIu64 ": %s\n", total.verdicts[IO_LOST],
           total.verdicts[IO_TORN], total.verdicts[IO_STALE], total.verdicts[IO_MISPLACED],
           violations() ? "DATA IS WRONG" : good ? "every acknowledged block is intact" : "not everything could be checked");
}

static const char usage_text[] =
    "usage: ioverify --portal HOST[:PORT] [--portal ...] --target IQN [options]\n"
    "Writes uniquely tagged 4 KiB blocks through several paths as a multipath initiator does, and checks every one.\n"
    "  --portal HOST[:PORT]     a path; up to 16; port 3260 unless given\n"
    "  --target IQN             the target\n"
    "  --lun N                  its logical unit (0)\n"
    "  --seconds S              how long to write (10)\n"
    "  --until-file FILE        or until this file exists (then without --seconds for ever)\n"
    "  --depth D                commands under way (16, at most 256)\n"
    "  --rate N                 at most so many a second (no limit)\n"
    "  --gaps F                 write to F a line for each gap of 5 ms and more in acknowledged I/O\n"
    "  --blocks N               how many blocks are used (4096)\n"
    "  --offset BYTES           where they begin (0)\n"
    "  --stride BYTES           from one to the next (4096)\n"
    "  --timeout-ms MS          a path from which nothing is heard for so long is put aside (500)\n"
    "  --command-timeout-ms MS  a path is also put aside when one command is unanswered for so long (10000)\n"
    "  --drain-ms MS            wait so long for the last answers (30000)\n"
    "  --settle-ms MS           wait so long for a path in the last check (15000)\n"
    "  --history FILE           keep there what each block must hold, for --verify-only\n"
    "  --verify-only FILE       do not write: check against such a file\n"
    "  --json                   the result as one line of JSON\n"
    "  --quiet, --verbose       no line a second; each change of a path\n"
    "Ends with 0 when all is right, 1 when data is wrong or a command failed for good, 2 when it could not run or check.\n";

static void usage_wrong(const char *option, const char *value)
{
    fprintf(stderr, "ioverify: --%s cannot be \"%s\"; --help tells more\n", option, value);
    exit(2);
}

static uint64_t number(const char *option, const char *text, uint64_t least, uint64_t most)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || value < least || value > most)
        usage_wrong(option, text);
    return value;
}

static void portal_add(const char *text)
{
    char *portal;
    if (options.portal_count == PATHS_MAX || !text[0])
        usage_wrong("portal", text);
    const char *colon = strrchr(text, ':');
    bool port = colon && colon[1] && !strchr(colon, ']') && (text[0] == '[' || strchr(text, ':') == colon);
    if (asprintf(&portal, port ? "%s" : "%s:3260", text) < 0)
        exit(2);
    options.portals[options.portal_count++] = portal; /* for the life of the program */
}

static void options_parse(int argc, char **argv)
{
    static const struct option names[] = {
        {"portal", required_argument, NULL, 'p'},      {"target", required_argument, NULL, 't'},
        {"lun", required_argument, NULL, 'l'},         {"seconds", required_argument, NULL, 's'},
        {"depth", required_argument, NULL, 'd'},       {"blocks", required_argument, NULL, 'b'},
        {"history", required_argument, NULL, 'H'},     {"until-file", required_argument, NULL, 'u'},
        {"verify-only", required_argument, NULL, 'V'}, {"json", no_argument, NULL, 'j'},
        {"quiet", no_argument, NULL, 'q'},             {"verbose", no_argument, NULL, 'v'},
        {"offset", required_argument, NULL, 'o'},      {"stride", required_argument, NULL, 'S'},
        {"timeout-ms", required_argument, NULL, 'T'},  {"command-timeout-ms", required_argument, NULL, 'C'},
        {"drain-ms", required_argument, NULL, 'D'},    {"settle-ms", required_argument, NULL, 'e'},
        {"rate", required_argument, NULL, 'r'},        {"help", no_argument, NULL, 'h'},
        {"gaps", required_argument, NULL, 'g'},        {NULL, 0, NULL, 0}};
    int which, index = 0;
    while ((which = getopt_long(argc, argv, "", names, &index)) != -1) {
        const char *name = names[index].name;
        switch (which) {
        case 'p': portal_add(optarg); break;
        case 't': options.target = optarg; break;
        case 'l': options.lun = (int)number(name, optarg, 0, 16383); break;
        case 's': options.seconds = number(name, optarg, 0, 1u << 30); break;
        case 'd': options.depth = (unsigned)number(name, optarg, 1, DEPTH_MAX); break;
        case 'b': options.blocks = number(name, optarg, 1, 1u << 26); break;
        case 'H': options.history_file = optarg; break;
        case 'u': options.until_file = optarg; break;
        case 'g': options.gaps_file = optarg; break;
        case 'V': options.verify_only = optarg; break;
        case 'o': options.offset_bytes = number(name, optarg, 0, UINT64_MAX / 2); break;
        case 'S': options.stride_bytes = number(name, optarg, IO_BLOCK_BYTES, 1ull << 40); break;
        case 'T': options.timeout_ms = number(name, optarg, 10, 3600000); break;
        case 'C': options.command_timeout_ms = number(name, optarg, 10, 3600000); break;
        case 'D': options.drain_ms = number(name, optarg, 0, 3600000); break;
        case 'e': options.settle_ms = number(name, optarg, 0, 3600000); break;
        case 'r': options.rate = number(name, optarg, 0, 1u << 30); break;
        case 'j': options.json = true; break;
        case 'q': options.quiet = true; break;
        case 'v': options.verbose = true; break;
        case 'h': fputs(usage_text, stdout); exit(0);
        default: fputs("ioverify --help tells what there is\n", stderr); exit(2);
        }
    }
    if (options.seconds == UINT64_MAX)
        options.seconds = options.until_file ? 1u << 30 : 10;
    if (optind < argc || !options.portal_count || !options.target || options.offset_bytes % IO_BLOCK_BYTES ||
        options.stride_bytes % IO_BLOCK_BYTES) {
        fputs("ioverify: at least one --portal and a --target are needed; --offset and --stride are multiples of 4096; "
              "--help tells more\n",
              stderr);
        exit(2);
    }
}

static void stop(int signal)
{
    (void)signal;
    stop_asked = 1;
}

static int set_up(void)
{
    struct error error = {0};
    uint64_t seed[2];
    int result = random_bytes(seed, sizeof(seed));
    random_state = seed[0] | 1;
    if (result == 0 && options.verify_only) {
        result = io_history_load(&history, options.verify_only, &error);
    } else if (result == 0) {
        result = io_history_init(&history, seed[1], options.blocks);
        history.offset_bytes = options.offset_bytes;
        history.stride_bytes = options.stride_bytes;
    }
    if (result < 0) {
        fprintf(stderr, "ioverify: %s\n", error.code ? error.message : strerror(-result));
        return result;
    }
    if (options.gaps_file && !(gaps = fopen(options.gaps_file, "we"))) {
        result = -errno;
        fprintf(stderr, "ioverify: %s: %s\n", options.gaps_file, strerror(-result));
        return result;
    }
    if (gaps)
        setlinebuf(gaps);
    resting = calloc(history.block_count, sizeof(*resting));
    writing = calloc(history.block_count, sizeof(*writing));
    settings = (struct path_settings){.target = options.target,
                                      .initiator = "iqn.2026-01.org.director:ioverify",
                                      .lun = options.lun,
                                      .isid = (uint32_t)(seed[1] & 0xffffff),
                                      .timeout_ms = options.timeout_ms,
                                      .command_timeout_ms = options.command_timeout_ms,
                                      .verbose = options.verbose,
                                      .answered = op_answered,
                                      .lost = op_lost,
                                      .logged_in = path_logged_in};
    for (unsigned i = 0; i < options.portal_count; i++)
        path_init(&paths[i], &settings, options.portals[i], i);
    for (unsigned i = 0; i < options.depth; i++) {
        ops[i].buffer = aligned_alloc(4096, IO_BLOCK_BYTES);
        if (!ops[i].buffer || !resting || !writing) {
            fputs("ioverify: no memory\n", stderr);
            return -ENOMEM;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct error error = {0};
    options_parse(argc, argv);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGINT, stop);
    (void)signal(SIGTERM, stop);
    if (set_up() < 0)
        return 2;
    run();
    const char *keep = options.history_file ? options.history_file : options.verify_only;
    if (keep && io_history_save(&history, keep, &error) < 0)
        fprintf(stderr, "ioverify: %s\n", error.message);
    bool checked = verified_paths() > 0 && (options.verify_only || total.writes > 0 || options.seconds == 0);
    bool good = violations() == 0 && total.errors == 0 && checked;
    if (options.json)
        report_json(good);
    else
        report_words(good);
    io_history_done(&history);
    return violations() || total.errors ? 1 : checked && !error.code ? 0 : 2;
}
