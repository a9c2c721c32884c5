/* Words that stories are told in, and the list of stories: each a deterministic run of one scenario of the design's table, its
 * number in its name. A story fails as a cmocka test does. SIM_TRACE=1 tells it; SIM_BUGS=1:0x20:0 plants bugs (replication,
 * log, between). */
#ifndef DIRECTOR_TESTS_STORY_H
#define DIRECTOR_TESTS_STORY_H

#include "tests/simulation/sim.h"

#define STORIES(X)                                  \
    X(s1_owner_crashes_with_writes_in_flight)       \
    X(s2_replica_crashes_during_resync)             \
    X(s3_resync_source_crashes)                     \
    X(s3_without_another_source_nobody_is_promoted) \
    X(s4_isolated_owner_acknowledges_nothing)       \
    X(s5_asymmetric_partition)                      \
    X(s6_paused_owner_is_sealed)                    \
    X(s7_whole_node_paused)                         \
    X(s7_verified_reads_when_the_clock_stops_too)   \
    X(s8_stale_node_alone_refuses_to_serve)         \
    X(s9_all_power_lost_all_return)                 \
    X(s10_write_error_on_one_replica)               \
    X(s10_the_last_disks_fail)                      \
    X(s11_read_error_or_bad_checksum)               \
    X(s11_two_disks_with_different_holes)           \
    X(s11_scrub_repairs_what_nobody_read)           \
    X(s12_torn_metadata_write)                      \
    X(s13_both_header_slots_bad)                    \
    X(s14_log_store_full)                           \
    X(s15_metadata_sync_fails)                      \
    X(s15_log_sync_fails)                           \
    X(s16_wall_clocks_jump)                         \
    X(s16_clocks_run_at_different_speeds)           \
    X(s17_new_owner_dies_during_failover)           \
    X(s18_owner_and_sequencer_die_together)         \
    X(s19_disk_replaced_by_an_empty_one)            \
    X(s19_an_empty_disk_waits_for_its_commitment)   \
    X(s20_old_disk_returns_after_replacement)       \
    X(s21_flapping_link)                            \
    X(s21_flapping_node)                            \
    X(s22_corosync_killed)                          \
    X(s23_agent_killed)                             \
    X(s24_agent_hung_corosync_alive)                \
    X(s24_control_thread_hung)                      \
    X(s25_joiner_dies_during_state_transfer)        \
    X(s26_join_during_a_failover)                   \
    X(s28_state_transfer_donor_dies)                \
    X(s29_last_isr_member_dies)                     \
    X(s30_witness_lost_then_the_link)               \
    X(s30_sole_committed_side_serves)               \
    X(s31_slow_disk_of_a_member)                    \
    X(s31_hanging_disk_of_a_member)                 \
    X(s31_a_slow_member_that_is_needed_stays)       \
    X(s31_slow_link)                                \
    X(s32_bits_flip_on_the_wire)                    \
    X(s33_preempt_during_failover)                  \
    X(an_isolated_owner_tells_no_reservations)      \
    X(s35_a_node_lags_on_a_change_of_members)       \
    X(overlapping_writes_end_equal)                 \
    X(a_stale_replica_is_forced_into_service)       \
    X(a_replica_moves_while_clients_go_on)          \
    X(two_promotions_to_one_epoch)                  \
    X(minority_acknowledges_no_change)              \
    X(a_joiner_that_failed_a_write_is_copied_again) \
    X(a_returning_member_tells_what_it_alone_has)   \
    X(failed_writes_are_not_complete)               \
    X(promises_hold_back_the_next_owner)            \
    X(what_a_minority_says_is_not_current)          \
    X(an_entry_counts_when_it_is_durable)           \
    X(a_read_without_a_lease_would_be_stale)        \
    X(a_write_of_a_lower_epoch_is_refused)

#define STORY_DECLARE(name) void name(void **state);
STORIES(STORY_DECLARE)

struct sim *cluster(unsigned nodes, unsigned replicas, unsigned stores);
void fine(const struct sim *sim);
/* Heal all, wait until all is in sync, check replicas, trees and histories. Frees. */
void happy_end(struct sim *sim);
/* One block of volume 0. */
struct sim_op *writes(struct sim_node *node, uint32_t first);
struct sim_op *reads(struct sim_node *node, uint32_t first);
/* For sim_wait(): argument is the op. */
bool op_answered(struct sim *sim, void *argument);
void must_succeed(struct sim *sim, struct sim_op *op, uint64_t ms);
void wait_epoch(struct sim *sim, uint64_t epoch, uint64_t ms);
void wait_isr(struct sim *sim, uint32_t isr, uint64_t ms);
/* The node of replica k. */
struct sim_node *replica(struct sim *sim, unsigned k);
unsigned replica_of(struct sim *sim, const struct sim_node *node);
enum mirror_member_state member_state(struct sim *sim, unsigned k);
void wait_syncing(struct sim *sim, unsigned k, uint64_t ms);
/* A block of each region. */
void write_everywhere(struct sim *sim);
/* Replica k dies and is out of the in-sync set; meanwhile something is written. */
void leave_behind(struct sim *sim, unsigned k, enum sim_crash crash);
/* Milliseconds until a write at whoever owns the volume is acknowledged. */
uint64_t gap_ms(struct sim *sim);
/* The control thread of this node does nothing for so long. */
void hang_control(struct sim_node *node, uint64_t ms);

#endif
