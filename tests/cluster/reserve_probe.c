/* An initiator for persistent reservations, for tests/cluster/reservations.sh.
 *   reserve_probe URL INITIATOR COMMAND [ARGUMENT ...] [COMMAND ...]
 *     register KEY | unregister | reserve TYPE | preempt KEY TYPE | clear     with the key last registered in this run or before
 *     key KEY         the key it has registered already
 *     keys            "KEY KEY ... type T holder K", keys in hexadecimal, ascending: the same through every node
 *     write           "good" or "conflict"
 *     count SECONDS   gives itself key 1, 2, 3 ... for so long; through a failover, too. After each error the key there must be the last
 *                     one acknowledged or the one on its way. Says how many were acknowledged and the longest time between two.
 * The I_T nexus is the same in every run: the session id is fixed. Unit attentions are read and passed over. Exit 1: a command did
 * not end GOOD, or a count is wrong. */
#include <inttypes.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct iscsi_context *iscsi;
static const char *url_text, *initiator;
static int lun;
static uint64_t own_key;

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void die(const char *what)
{
    printf("%s: %s\n", what, iscsi ? iscsi_get_error(iscsi) : "no memory");
    exit(1);
}

static bool connect_once(void)
{
    iscsi = iscsi_create_context(initiator);
    if (!iscsi)
        die("context");
    struct iscsi_url *url = iscsi_parse_full_url(iscsi, url_text);
    if (!url)
        die("URL");
    iscsi_set_isid_random(iscsi, 0x123456, 0);
    iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(iscsi, ISCSI_HEADER_DIGEST_NONE);
    iscsi_set_noautoreconnect(iscsi, 1);
    iscsi_set_timeout(iscsi, 30);
    lun = url->lun;
    iscsi_set_targetname(iscsi, url->target);
    bool good = iscsi_full_connect_sync(iscsi, url->portal, lun) == 0;
    iscsi_destroy_url(url);
    return good;
}

static void disconnect(void)
{
    iscsi_destroy_context(iscsi);
    iscsi = NULL;
}

/* Status of one PERSISTENT RESERVE OUT; unit attentions are passed over. -1: no answer. */
static int out(int action, int type, uint64_t key, uint64_t service_key)
{
    for (int i = 0; i < 20; i++) {
        struct scsi_persistent_reserve_out_basic list = {.reservation_key = key, .service_action_reservation_key = service_key};
        struct scsi_task *task = iscsi_persistent_reserve_out_sync(iscsi, lun, action, 0, type, &list);
        if (!task)
            return -1;
        int status = task->status, sense = task->sense.key;
        scsi_free_scsi_task(task);
        if (status != SCSI_STATUS_CHECK_CONDITION || sense != SCSI_SENSE_UNIT_ATTENTION)
            return status;
    }
    return -1;
}

static struct scsi_task *in(int action)
{
    for (int i = 0; i < 20; i++) {
        struct scsi_task *task = iscsi_persistent_reserve_in_sync(iscsi, lun, action, 16384);
        if (!task || task->status == SCSI_STATUS_GOOD)
            return task;
        bool again = task->sense.key == SCSI_SENSE_UNIT_ATTENTION || task->sense.key == SCSI_SENSE_COMMAND_ABORTED;
        scsi_free_scsi_task(task);
        if (!again)
            return NULL;
    }
    return NULL;
}

static int compare_keys(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void print_keys(void)
{
    uint64_t keys[512];
    int count = 0;
    struct scsi_task *task = in(SCSI_PERSISTENT_RESERVE_READ_KEYS);
    const struct scsi_persistent_reserve_in_read_keys *found = task ? scsi_datain_unmarshall(task) : NULL;
    if (!found)
        die("READ KEYS");
    for (; count < found->num_keys && count < 512; count++)
        keys[count] = found->keys[count];
    scsi_free_scsi_task(task);
    qsort(keys, (size_t)count, sizeof(keys[0]), compare_keys);
    for (int i = 0; i < count; i++)
        printf("%" PRIx64 " ", keys[i]);
    task = in(SCSI_PERSISTENT_RESERVE_READ_RESERVATION);
    const struct scsi_persistent_reserve_in_read_reservation *held = task ? scsi_datain_unmarshall(task) : NULL;
    if (!held)
        die("READ RESERVATION");
    printf("type %d holder %" PRIx64 "\n", held->reserved ? (int)held->pr_type : 0, held->reserved ? held->reservation_key : 0);
    scsi_free_scsi_task(task);
}

/* Our own key as the device server has it; 0: none, UINT64_MAX: no answer. */
static uint64_t key_there(void)
{
    uint64_t key = 0;
    struct scsi_task *task = in(SCSI_PERSISTENT_RESERVE_READ_KEYS);
    const struct scsi_persistent_reserve_in_read_keys *found = task ? scsi_datain_unmarshall(task) : NULL;
    if (!found)
        return UINT64_MAX;
    for (int i = 0; i < found->num_keys; i++)
        if (found->keys[i] < 0xffffffff)
            key = found->keys[i];
    scsi_free_scsi_task(task);
    return key;
}

static void count(double seconds)
{
    double begin = now_ms(), last = begin, gap = 0;
    uint64_t acknowledged = 0, errors = 0;
    if (out(SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, 0, 1) != SCSI_STATUS_GOOD)
        die("the first key");
    for (uint64_t key = 1; now_ms() - begin < seconds * 1e3;) {
        if (iscsi && out(SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, 0, key + 1) == SCSI_STATUS_GOOD) {
            double now = now_ms();
            gap = now - last > gap ? now - last : gap;
            last = now;
            key++;
            acknowledged++;
            continue;
        }
        errors++;
        uint64_t there = iscsi ? key_there() : UINT64_MAX;
        if (there == UINT64_MAX) { /* the session is gone */
            if (iscsi)
                disconnect();
            if (!connect_once())
                disconnect();
            usleep(20000);
            continue;
        }
        if (there != key && there != key + 1) {
            printf("key %" PRIu64 " was acknowledged, %" PRIu64 " is there\n", key, there);
            exit(1);
        }
        key = there;
    }
    printf("%" PRIu64 " acknowledged, %" PRIu64 " errors, longest gap %.0f ms\n", acknowledged, errors, gap);
    own_key = key_there();
}

static void print_write(void)
{
    uint8_t block[512] = {0};
    for (int i = 0; i < 20; i++) {
        struct scsi_task *task = iscsi_write10_sync(iscsi, lun, 0, block, sizeof(block), 512, 0, 0, 0, 0, 0);
        if (!task)
            die("WRITE");
        int status = task->status, sense = task->sense.key;
        scsi_free_scsi_task(task);
        if (status == SCSI_STATUS_CHECK_CONDITION && sense == SCSI_SENSE_UNIT_ATTENTION)
            continue;
        puts(status == SCSI_STATUS_GOOD ? "good" : status == SCSI_STATUS_RESERVATION_CONFLICT ? "conflict" : "error");
        return;
    }
    die("WRITE");
}

static void expect_good(const char *what, int status)
{
    if (status == SCSI_STATUS_GOOD)
        return;
    printf("%s: %s\n", what, status < 0 ? "no answer" : status == SCSI_STATUS_RESERVATION_CONFLICT ? "conflict" : "error");
    exit(1);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: reserve_probe URL INITIATOR COMMAND...\n");
        return 2;
    }
    url_text = argv[1];
    initiator = argv[2];
    if (!connect_once())
        die("login");
    for (int i = 3; i < argc; i++) {
        const char *word = argv[i];
        bool takes = !strcmp(word, "register") || !strcmp(word, "reserve") || !strcmp(word, "preempt") || !strcmp(word, "key") ||
                     !strcmp(word, "count");
        uint64_t number = takes && i + 1 < argc ? strtoull(argv[++i], NULL, 0) : 0;
        if (!strcmp(word, "register")) {
            expect_good(word, out(SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, 0, number));
            own_key = number;
        } else if (!strcmp(word, "key")) {
            own_key = number;
        } else if (!strcmp(word, "unregister")) {
            expect_good(word, out(SCSI_PERSISTENT_RESERVE_REGISTER, 0, own_key, 0));
        } else if (!strcmp(word, "reserve")) {
            expect_good(word, out(SCSI_PERSISTENT_RESERVE_RESERVE, (int)number, own_key, 0));
        } else if (!strcmp(word, "preempt") && i + 1 < argc) {
            expect_good(word, out(SCSI_PERSISTENT_RESERVE_PREEMPT, atoi(argv[++i]), own_key, number));
        } else if (!strcmp(word, "clear")) {
            expect_good(word, out(SCSI_PERSISTENT_RESERVE_CLEAR, 0, own_key, 0));
        } else if (!strcmp(word, "keys")) {
            print_keys();
        } else if (!strcmp(word, "write")) {
            print_write();
        } else if (!strcmp(word, "count")) {
            count((double)number);
        } else {
            fprintf(stderr, "reserve_probe: what is '%s'?\n", word);
            return 2;
        }
        fflush(stdout);
    }
    if (iscsi) {
        (void)iscsi_logout_sync(iscsi);
        disconnect();
    }
    return 0;
}
