/* Whole clusters under faults by lot.
 *
 *     simulation_test [first seed [count [replication bugs [rsm bugs [sim bugs]]]]]     one seed is replayed with its trace
 *     SIM_VERBOSE=1 shows each frame too */
#include "tests/simulation/swarm.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define SEEDS_MOST 400u /* by which a planted bug must have shown */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* others may need the machine meanwhile */
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void counts_print(const struct swarm_counts *c, double took)
{
    printf("%llu runs: %llu SCSI commands, %llu reads, %llu writes, %llu comparisons (%llu blocks undecided), %llu failed, %llu changes, %llu questions, "
           "%llu promotions, %llu crashes, %llu views, %llu blocks spoiled (%llu repaired by the last scrub), %llu frames damaged, %.1f s\n",
           (unsigned long long)c->runs, (unsigned long long)c->commands, (unsigned long long)c->reads, (unsigned long long)c->writes,
           (unsigned long long)c->compares, (unsigned long long)c->undecided, (unsigned long long)c->failed, (unsigned long long)c->changes, (unsigned long long)c->questions,
           (unsigned long long)c->promotions, (unsigned long long)c->crashes, (unsigned long long)c->views,
           (unsigned long long)c->spoiled, (unsigned long long)c->repaired, (unsigned long long)c->damaged, took);
}

static void nothing_acknowledged_is_lost_and_nothing_stale_is_read(void **state)
{
    (void)state;
    const struct swarm_bugs none = {0};
    struct swarm_counts counts = {0};
    char text[240];
    double begin = seconds();
    for (uint64_t seed = 1; seed <= 1500 && seconds() - begin < 20; seed++)
        if (!swarm_run(seed, &none, false, false, &counts, text))
            fail_msg("seed %llu: %s", (unsigned long long)seed, text);
    counts_print(&counts, seconds() - begin);
    assert_true(counts.runs >= 20 && counts.writes > 1000 && counts.promotions > 20);
}

/* Seeds that once found something. */
static void seeds_that_found_bugs_stay_clean(void **state)
{
    (void)state;
    static const uint64_t seeds[] = {12623, 13036, 17087, 19288, 23927, 25993, 53202};
    const struct swarm_bugs none = {0};
    struct swarm_counts counts = {0};
    char text[240];
    for (size_t i = 0; i < ARRAY_SIZE(seeds); i++)
        if (!swarm_run(seeds[i], &none, false, false, &counts, text))
            fail_msg("seed %llu: %s", (unsigned long long)seeds[i], text);
}

/* What the swarm finds soon. Each bug, the ones below and those that need a rare constellation, also has a story that fails with
 * it every time: scenarios_test. */
static const struct {
    const char *name;
    struct swarm_bugs bugs;
} planted[] = {
    {.name = "ack before the shrink is committed (I3)", .bugs = {.replication = MIRROR_BUG_ACK_BEFORE_SHRINK}},
    {.name = "a promotion takes effect before it is committed (I1)", .bugs = {.sim = SIM_BUG_OWN_EPOCH}},
    {.name = "a replica that is not in sync is promoted (I4)", .bugs = {.sim = SIM_BUG_PROMOTE_ANY}},
    {.name = "an empty set is asked for (I10)", .bugs = {.replication = MIRROR_BUG_EMPTY_ISR}},
    {.name = "reservations are in force before they are committed (I14)", .bugs = {.sim = SIM_BUG_RESERVE_EARLY}},
    {.name = "checksums at rest are not looked at", .bugs = {.sim = SIM_BUG_NO_CHECKSUM}},
    {.name = "bits flipped on the wire are not noticed", .bugs = {.sim = SIM_BUG_NO_WIRE_CHECK}},
    {.name = "no dirty marks (I9)", .bugs = {.replication = MIRROR_BUG_NO_DIRTY}},
    {.name = "regions in flight served as they are (I6)", .bugs = {.replication = MIRROR_BUG_NO_RECONCILE}},
    {.name = "what a returning member had in flight is ignored (I6)", .bugs = {.replication = MIRROR_BUG_NO_RETURN_INTENT}},
    {.name = "a joining member is not counted while the grow commits (I8)", .bugs = {.replication = MIRROR_BUG_EARLY_GROW}},
    {.name = "overlapping requests race", .bugs = {.replication = MIRROR_BUG_NO_RANGE_LOCK}},
    {.name = "data before intent (I6)", .bugs = {.replication = REPLICA_BUG_NO_INTENT}},
    {.name = "replica acks before durable (I5)", .bugs = {.replication = REPLICA_BUG_ACK_EARLY}},
    {.name = "votes are not durable (R1)", .bugs = {.rsm = RSM_BUG_VOLATILE_VOTE}},
    {.name = "votes for any log (R2)", .bugs = {.rsm = RSM_BUG_GRANT_ANY_LOG}},
    {.name = "entries taken without a match (R4)", .bugs = {.rsm = RSM_BUG_NO_MATCH}},
    {.name = "majority of the voters present (C2)", .bugs = {.rsm = RSM_BUG_MAJORITY_PRESENT}},
    {.name = "barriers answered alone (R9)", .bugs = {.rsm = RSM_BUG_BARRIER_ALONE}},
    {.name = "configuration pushed before the tree is current", .bugs = {.sim = SIM_BUG_PUSH_BEFORE_CURRENT}},
    {.name = "a node that left the view is taken for dead (I7)", .bugs = {.sim = SIM_BUG_VIEW_LOSS_IS_DEATH}},
};

/* What a run in a process of its own came to. */
struct outcome {
    uint64_t seed;
    char text[240];
};

/* In a process of its own: some bugs trip an assertion of the cores, which catches them as well. */
static bool bug_is_caught(const struct swarm_bugs *bugs, struct outcome *outcome)
{
    int status;
    (void)fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct swarm_counts counts = {0};
        int nowhere = open("/dev/null", O_WRONLY);
        (void)dup2(nowhere, 2);
        for (uint64_t seed = 1; seed <= SEEDS_MOST; seed++) {
            outcome->seed = seed;
            (void)snprintf(outcome->text, sizeof(outcome->text), "an assertion of the core");
            if (!swarm_run(seed, bugs, false, false, &counts, outcome->text))
                _exit(1);
        }
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return !WIFEXITED(status) || WEXITSTATUS(status) == 1;
}

static void each_planted_bug_is_caught(void **state)
{
    (void)state;
    unsigned missed = 0;
    struct outcome *outcome = mmap(NULL, sizeof(*outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(outcome != MAP_FAILED);
    for (size_t i = 0; i < ARRAY_SIZE(planted); i++) {
        bool caught = bug_is_caught(&planted[i].bugs, outcome);
        printf("%s %s by seed %llu: %s\n", caught ? "caught" : "MISSED", planted[i].name, (unsigned long long)outcome->seed,
               caught ? outcome->text : "");
        missed += !caught;
    }
    assert_int_equal(munmap(outcome, sizeof(*outcome)), 0);
    assert_int_equal(missed, 0);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        uint64_t first = strtoull(argv[1], NULL, 0), count = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
        struct swarm_bugs bugs = {.replication = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 0) : 0,
                                  .rsm = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 0) : 0,
                                  .sim = argc > 5 ? (uint32_t)strtoul(argv[5], NULL, 0) : 0};
        struct swarm_counts counts = {0};
        char text[240];
        double begin = seconds();
        for (uint64_t seed = first; seed < first + count; seed++)
            if (!swarm_run(seed, &bugs, count == 1, count == 1 && getenv("SIM_VERBOSE"), &counts, text)) {
                printf("seed %llu: %s\n", (unsigned long long)seed, text);
                counts_print(&counts, seconds() - begin);
                return 1;
            }
        counts_print(&counts, seconds() - begin);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_acknowledged_is_lost_and_nothing_stale_is_read),
        cmocka_unit_test(seeds_that_found_bugs_stay_clean),
        cmocka_unit_test(each_planted_bug_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
