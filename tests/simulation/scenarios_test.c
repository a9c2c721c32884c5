/* The scenarios of the design's table, each as one deterministic story (story.h).
 *     scenarios_test NAME...    only these */
#include "tests/simulation/story.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define STORY_TEST(name) cmocka_unit_test(name),

/* Bugs and a story that fails with each of them, every time: the swarm finds most of them too (simulation_test). */
static const struct {
    const char *invariant, *bugs, *story;
} planted[] = {
    {"I1 a promotion takes effect before it is committed", "0:0:0x10", "two_promotions_to_one_epoch"},
    {"I2 lower epochs are accepted", "0x10000:0:0", "a_write_of_a_lower_epoch_is_refused"},
    {"I3 ack before the shrink is committed", "1:0:0", "s30_witness_lost_then_the_link"},
    {"I4 a replica that is not in sync is promoted", "0:0:0x20", "s29_last_isr_member_dies"},
    {"I5 a replica acks before it is durable", "0x40000:0:0", "s31_hanging_disk_of_a_member"},
    {"I6 regions in flight served as they are", "4:0:0", "s1_owner_crashes_with_writes_in_flight"},
    {"I6 what a returning member had in flight is ignored", "0x10:0:0", "a_returning_member_tells_what_it_alone_has"},
    {"I6 data before intent", "0x20000:0:0", "s9_all_power_lost_all_return"},
    {"I6 a write answered with an error is told as complete", "0x100:0:0", "failed_writes_are_not_complete"},
    {"I7 reads without a lease", "8:0:0", "a_read_without_a_lease_would_be_stale"},
    {"I7 promises to the old owner are not kept", "0x80000:0:0", "promises_hold_back_the_next_owner"},
    {"I7 verified reads that nobody confirmed", "0x400:0:0", "s7_verified_reads_when_the_clock_stops_too"},
    {"I7 a node that left the view is taken for dead", "0:0:2", "s7_whole_node_paused"},
    {"I8 a joining member is not counted while the grow commits", "0x20:0:0", "a_joiner_that_failed_a_write_is_copied_again"},
    {"I8 a joiner that failed a write is trusted", "0x80:0:0", "a_joiner_that_failed_a_write_is_copied_again"},
    {"I9 no dirty marks", "2:0:0", "s2_replica_crashes_during_resync"},
    {"I10 an empty set is asked for", "0x8000000:0:0", "s10_the_last_disks_fail"},
    {"I11 any disk is taken for the one that was in sync", "0x4000000:0:0", "s19_an_empty_disk_waits_for_its_commitment"},
    {"I11 a new replica in an emptied place is trusted", "0x200:0:0", "s19_disk_replaced_by_an_empty_one"},
    {"I12 metadata that failed count as durable", "0x1000000:0:0", "s15_metadata_sync_fails"},
    {"I13 the header has one slot", "0x2000000:0:0", "s12_torn_metadata_write"},
    {"I14 reservations are in force before they are committed", "0:0:0x40", "s33_preempt_during_failover"},
    {"overlapping requests race", "0x40:0:0", "overlapping_writes_end_equal"},
    {"checksums at rest are not looked at", "0:0:8", "s11_read_error_or_bad_checksum"},
    {"bits flipped on the wire are not noticed", "0:0:4", "s32_bits_flip_on_the_wire"},
    {"R1 votes are not durable", "0:1:0", "s25_joiner_dies_during_state_transfer"},
    {"R2 votes for any log", "0:2:0", "s29_last_isr_member_dies"},
    {"R4 entries taken without a match", "0:4:0", "minority_acknowledges_no_change"},
    {"C2 majority of the voters present", "0:0x10:0", "s4_isolated_owner_acknowledges_nothing"},
    {"R8 the log acks before it is durable", "0:0x20:0", "an_entry_counts_when_it_is_durable"},
    {"R9 barriers answered alone", "0:0x40:0", "what_a_minority_says_is_not_current"},
};

/* In a process of its own: some bugs trip an assertion of the cores, which catches them as well. */
static bool story_fails(const char *self, const char *story, const char *bugs)
{
    int status;
    (void)fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int nowhere = open("/dev/null", O_WRONLY);
        (void)dup2(nowhere, 1);
        (void)dup2(nowhere, 2);
        (void)setenv("SIM_BUGS", bugs, 1);
        (void)execl(self, self, story, (char *)NULL);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void each_planted_bug_fails_its_story(void **state)
{
    (void)state;
    unsigned missed = 0;
    for (size_t i = 0; i < ARRAY_SIZE(planted); i++) {
        bool caught = story_fails("/proc/self/exe", planted[i].story, planted[i].bugs);
        print_message("%s %s by %s\n", caught ? "caught" : "MISSED", planted[i].invariant, planted[i].story);
        missed += !caught;
    }
    assert_int_equal(missed, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {STORIES(STORY_TEST) cmocka_unit_test(each_planted_bug_fails_its_story)};
    struct CMUnitTest chosen[ARRAY_SIZE(tests)];
    size_t count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
        for (int k = 1; k < argc; k++)
            if (!strcmp(tests[i].name, argv[k]) && count < ARRAY_SIZE(chosen))
                chosen[count++] = tests[i];
    if (argc > 1)
        return count ? _cmocka_run_group_tests("chosen", chosen, count, NULL, NULL) : 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
