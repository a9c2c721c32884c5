/* Stories of initiators: reservations through failovers (I14). */
#include "tests/simulation/story.h"
#include "tests/simulation/sim_target.h"

#include "director/base/bytes.h"
#include "target/core/scsi_reservation.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

#define KEY_A 0xa000000000ull
#define KEY_B 0xb000000000ull

static bool command_answered(struct sim *sim, void *argument)
{
    (void)sim;
    return ((const struct sim_command *)argument)->status >= 0;
}

static bool is_attention(const struct sim_command *command)
{
    return command->status == SCSI_CHECK_CONDITION && (command->sense >> 16 == 6 || command->sense >> 16 == 0xb);
}

/* A PERSISTENT RESERVE OUT that must succeed; unit attentions are passed over. */
static void reserve_out(struct sim *sim, struct sim_node *node, uint8_t action, uint8_t type, uint64_t key, uint64_t service_key)
{
    struct sim_command *command;
    do {
        command = sim_target_reserve_out(node, 0, action, type, key, service_key);
        assert_true(sim_wait(sim, 10000, command_answered, command));
    } while (is_attention(command));
    assert_int_equal(command->status, SCSI_GOOD);
}

static struct sim_command *reserve_in(struct sim *sim, struct sim_node *node, uint8_t action)
{
    struct sim_command *command;
    do {
        command = sim_target_command(node, 0, (const uint8_t[16]){SCSI_PERSISTENT_RESERVE_IN, action, 0, 0, 0, 0, 0, 1, 0}, NULL);
        assert_true(sim_wait(sim, 10000, command_answered, command));
    } while (is_attention(command));
    assert_int_equal(command->status, SCSI_GOOD);
    return command;
}

static bool keys_have(const struct sim_command *keys, uint64_t key)
{
    for (uint32_t at = 8; at + 8 <= keys->data_in_bytes; at += 8)
        if (get_be64(keys->data_in + at) == key)
            return true;
    return false;
}

/* The owner dies at any moment of a PREEMPT that came through another node: it happened or not, the same for everybody; when it was
 * answered GOOD it happened. */
void s33_preempt_during_failover(void **state)
{
    unsigned answered = 0, unanswered = 0;
    (void)state;
    for (unsigned after_us = 0; after_us < 9000; after_us += 300) {
        struct sim *sim = cluster(3, 3, 0);
        struct sim_node *owner = sim_owner(sim, 0), *a = &sim->nodes[(owner->place + 1) % 3], *b = &sim->nodes[(owner->place + 2) % 3];
        reserve_out(sim, a, 6, 0, 0, KEY_A);
        reserve_out(sim, b, 6, 0, 0, KEY_B);
        reserve_out(sim, a, 1, SCSI_RESERVATION_WRITE_EXCLUSIVE, KEY_A, 0);
        struct sim_command *preempt = sim_target_reserve_out(b, 0, 4, SCSI_RESERVATION_WRITE_EXCLUSIVE, KEY_B, KEY_A);
        sim_run_until(&sim->world, sim->world.now_us + after_us);
        sim_node_crash(owner, after_us / 300 % 2 ? SIM_CRASH_PROCESS : SIM_CRASH_POWER);
        assert_true(sim_wait(sim, 10000, command_answered, preempt));
        *(preempt->status == SCSI_GOOD ? &answered : &unanswered) += 1;
        const struct sim_command *keys = reserve_in(sim, a, 0), *again = reserve_in(sim, b, 0);
        const struct sim_command *holder = reserve_in(sim, b, 1);
        bool happened = !keys_have(keys, KEY_A);
        assert_true(keys_have(keys, KEY_B));
        assert_true(happened || preempt->status != SCSI_GOOD);
        assert_true(get_be64(holder->data_in + 8) == (happened ? KEY_B : KEY_A));
        assert_int_equal(keys->data_in_bytes, again->data_in_bytes);
        assert_memory_equal(keys->data_in, again->data_in, keys->data_in_bytes);
        sim_heal(sim);
        sim_settle(sim, 60000);
        again = reserve_in(sim, owner, 0);
        assert_int_equal(keys->data_in_bytes, again->data_in_bytes);
        assert_memory_equal(keys->data_in, again->data_in, keys->data_in_bytes);
        happy_end(sim);
    }
    print_message("%u answered before the owner died, %u not\n", answered, unanswered);
    assert_true(answered > 3 && unanswered > 3);
}

/* An owner that is cut off tells nobody what it remembers: others may have changed it since. */
void an_isolated_owner_tells_no_reservations(void **state)
{
    (void)state;
    struct sim *sim = cluster(3, 3, 0);
    struct sim_node *owner = sim_owner(sim, 0), *other = &sim->nodes[(owner->place + 1) % 3];
    uint64_t epoch = sim_volume(sim, 0)->epoch;
    reserve_out(sim, owner, 6, 0, 0, KEY_A);
    owner->control.busy_until_us = sim->world.now_us + 5000000; /* its control thread hangs: it learns nothing */
    sim_isolate(sim, owner->place, true);
    wait_epoch(sim, epoch + 1, 8000);
    reserve_out(sim, other, 6, 0, 0, KEY_B);
    struct sim_command *stale =
        sim_target_command(owner, 0, (const uint8_t[16]){SCSI_PERSISTENT_RESERVE_IN, 0, 0, 0, 0, 0, 0, 1, 0}, NULL);
    sim_run(sim, 2000);
    assert_true(stale->status != SCSI_GOOD);
    sim_isolate(sim, owner->place, false);
    happy_end(sim);
}
