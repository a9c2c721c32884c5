/* The member's side, event by event. Node 1 owns epoch 5, node 2 is this one. */
#include "replication/core/lease.h"
#include "replication/core/message.h"
#include "replication/core/mirror.h"
#include "replication/core/replica.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define SIZE   (4u << 20)
#define VOLUME 7u

static uint8_t image[65536];
static struct replica *replica;
static struct mirror_effects effects;
static uint64_t now = 10000000;
static struct metadata_page saved[16];
static unsigned saved_count;

static void step(const struct mirror_event *event)
{
    effects.count = 0;
    assert_int_equal(replica_step(replica, event, now, &effects), 0);
}

static const struct mirror_effect *effect_of(enum mirror_effect_type type, uint16_t message)
{
    for (unsigned i = 0; i < effects.count; i++)
        if (effects.items[i].type == type && (type != MIRROR_EFFECT_SEND || effects.items[i].send.header.type == message))
            return &effects.items[i];
    return NULL;
}

static void receive(uint16_t from, const struct mirror_message *message, uint32_t data_bytes)
{
    struct mirror_effect frame = {0};
    struct mirror_event event = {.type = MIRROR_EVENT_MESSAGE, .nodeid = from};
    mirror_message_encode(message, VOLUME, data_bytes, &frame);
    event.message.header = frame.send.header;
    event.message.body = frame.send.body;
    event.message.body_bytes = frame.send.body_bytes;
    event.message.data_bytes = data_bytes;
    step(&event);
}

static void seal(uint16_t from, uint64_t epoch, uint64_t boot)
{
    struct mirror_message message = {.type = MIRROR_SEAL, .epoch = epoch, .request = epoch * 10, .attach = epoch * 10,
                                     .boot = boot, .instance = 1, .incarnation = 71, .regions = SIZE / 65536, .size_bytes = SIZE,
                                     .replica_index = 1};
    receive(from, &message, 0);
}

static uint32_t write_flags = BLOCK_FUA;

static void write_frame(uint64_t epoch, uint64_t sequence, uint8_t dirty)
{
    struct mirror_message message = {.type = MIRROR_WRITE, .epoch = epoch, .request = sequence, .attach = epoch * 10,
                                     .boot = 100, .offset_bytes = 65536, .length_bytes = 4096, .operation = BLOCK_WRITE,
                                     .io_flags = write_flags, .dirty_mask = dirty};
    receive(1, &message, 4096);
}

static bool metadata_wanted(void)
{
    const struct mirror_effect *effect = effect_of(MIRROR_EFFECT_META_WRITE, 0);
    saved_count = effect ? effect->meta.count : 0;
    for (unsigned i = 0; i < saved_count; i++)
        saved[i] = effect->meta.pages[i];
    return effect != NULL;
}

static void metadata_done(int status)
{
    for (unsigned i = 0; i < saved_count && status == 0; i++)
        memcpy(image + saved[i].offset_bytes, saved[i].bytes, 4096);
    step(&(struct mirror_event){.type = MIRROR_EVENT_META_DONE, .meta_status = status});
}

static void token_done(uint64_t token, int status)
{
    struct mirror_event event = {.type = MIRROR_EVENT_DISK_DONE};
    event.disk.token = token;
    event.disk.status = status;
    step(&event);
}

static void disk_done(int status)
{
    const struct mirror_effect *effect = effect_of(MIRROR_EFFECT_DISK_WRITE, 0);
    assert_non_null(effect);
    token_done(effect->disk.token, status);
}

static uint8_t machine = 1;

static void open_replica(uint64_t boot)
{
    struct replica_parameters parameters = {.volume = VOLUME, .nodeid = 2, .boot = boot, .now_us = now};
    parameters.machine.bytes[0] = machine;
    replica_free(replica);
    assert_int_equal(replica_new(&parameters, image, sizeof(image), &replica), 0);
    step(&(struct mirror_event){.type = MIRROR_EVENT_LINK_UP, .nodeid = 1, .boot = 100});
    (void)metadata_wanted(); /* news of the machine: saved[], if the test lets it be written */
    step(&(struct mirror_event){.type = MIRROR_EVENT_LINK_UP, .nodeid = 3, .boot = 300});
}

static int sealed_by_one(void **state)
{
    struct metadata_header header = {.generation = 1, .volume = VOLUME, .incarnation = 71, .size_bytes = SIZE,
                                     .region_bytes = 65536, .replica_index = 1, .dirty_incarnation = {70, 71, 72}};
    (void)state;
    write_flags = BLOCK_FUA;
    machine = header.machine.bytes[0] = 1;
    metadata_format(&header, image);
    open_replica(200);
    seal(1, 5, 100);
    assert_null(effect_of(MIRROR_EFFECT_SEND, MIRROR_SEAL_REPLY)); /* I2: not before it is durable */
    assert_true(metadata_wanted());
    metadata_done(0);
    assert_non_null(effect_of(MIRROR_EFFECT_SEND, MIRROR_SEAL_REPLY));
    return 0;
}

static int finish(void **state)
{
    (void)state;
    replica_free(replica);
    replica = NULL;
    return 0;
}

static void a_lower_epoch_is_refused_also_after_a_restart(void **state)
{
    (void)state;
    open_replica(201);
    seal(1, 4, 100);
    assert_null(effect_of(MIRROR_EFFECT_SEND, MIRROR_SEAL_REPLY));
    assert_int_equal(effect_of(MIRROR_EFFECT_SEND, MIRROR_FENCED)->send.header.epoch, 5);
    write_frame(4, 1, 0);
    assert_null(effect_of(MIRROR_EFFECT_DISK_WRITE, 0));
    assert_non_null(effect_of(MIRROR_EFFECT_SEND, MIRROR_FENCED));
}

static void intent_is_durable_before_data_and_data_before_the_ack(void **state)
{
    (void)state;
    write_frame(5, 1, 0);
    assert_null(effect_of(MIRROR_EFFECT_DISK_WRITE, 0));
    assert_true(metadata_wanted());
    metadata_done(0);
    assert_null(effect_of(MIRROR_EFFECT_SEND, MIRROR_WRITE_REPLY));
    disk_done(0);
    assert_non_null(effect_of(MIRROR_EFFECT_SEND, MIRROR_WRITE_REPLY));
    write_frame(5, 2, 0); /* the region is marked already */
    assert_null(effect_of(MIRROR_EFFECT_META_WRITE, 0));
    disk_done(0);
    write_frame(5, 2, 0); /* twice within one attachment */
    assert_int_equal(effects.count, 0);
}

static void degraded_write_waits_for_its_dirty_mask(void **state)
{
    (void)state;
    write_frame(5, 1, 0);
    assert_true(metadata_wanted());
    metadata_done(0);
    disk_done(0);
    write_frame(5, 2, 1u << 2); /* intent is there; the mark for replica 2 is new (I9) */
    assert_null(effect_of(MIRROR_EFFECT_DISK_WRITE, 0));
    assert_true(metadata_wanted());
    metadata_done(0);
    disk_done(0);
    assert_non_null(effect_of(MIRROR_EFFECT_SEND, MIRROR_WRITE_REPLY));
    struct bitmap dirty;
    assert_int_equal(bitmap_init(&dirty, SIZE / 65536), 0);
    assert_int_equal(metadata_bitmap_decode(image, sizeof(image), 3, 71, &dirty), 0);
    assert_true(bitmap_test(&dirty, 1));
    bitmap_done(&dirty);
}

static void a_new_owner_waits_out_the_promise_to_the_old_one(void **state)
{
    (void)state;
    step(&(struct mirror_event){.type = MIRROR_EVENT_HEARTBEAT_ANSWERED_BY_US, .nodeid = 1, .time_us = now});
    now += 100000;
    seal(3, 6, 300);
    const struct mirror_effect *fenced = effect_of(MIRROR_EFFECT_SEND, MIRROR_FENCED);
    assert_int_equal(fenced->send.nodeid, 1);
    assert_false(metadata_wanted());
    /* Answers after that do not prolong it. */
    step(&(struct mirror_event){.type = MIRROR_EVENT_HEARTBEAT_ANSWERED_BY_US, .nodeid = 1, .time_us = now});
    assert_true(replica_next_tick(replica) <= now - 100000 + MIRROR_LEASE_US);
    now = now - 100000 + MIRROR_LEASE_US;
    step(&(struct mirror_event){.type = MIRROR_EVENT_TICK});
    assert_true(metadata_wanted());
    metadata_done(0);
    assert_int_equal(effect_of(MIRROR_EFFECT_SEND, MIRROR_SEAL_REPLY)->send.nodeid, 3);
    write_frame(5, 9, 0); /* the old owner is out */
    assert_null(effect_of(MIRROR_EFFECT_DISK_WRITE, 0));
    assert_non_null(effect_of(MIRROR_EFFECT_SEND, MIRROR_FENCED));
}

static void a_dead_owner_is_not_waited_for(void **state)
{
    (void)state;
    step(&(struct mirror_event){.type = MIRROR_EVENT_HEARTBEAT_ANSWERED_BY_US, .nodeid = 1, .time_us = now});
    seal(3, 6, 300);
    assert_false(metadata_wanted());
    step(&(struct mirror_event){.type = MIRROR_EVENT_NODE_DEAD, .nodeid = 1, .boot = 99}); /* an earlier one */
    assert_false(metadata_wanted());
    step(&(struct mirror_event){.type = MIRROR_EVENT_NODE_DEAD, .nodeid = 1, .boot = 100});
    assert_true(metadata_wanted());
}

static void a_restarted_member_keeps_the_promise_of_its_earlier_life(void **state)
{
    (void)state;
    open_replica(201);
    seal(3, 6, 300);
    assert_false(metadata_wanted());
    now += MIRROR_LEASE_US;
    step(&(struct mirror_event){.type = MIRROR_EVENT_TICK});
    assert_true(metadata_wanted());
}

static void seal_waits_for_writes_on_their_way_to_the_disk(void **state)
{
    struct mirror_event event = {.type = MIRROR_EVENT_DISK_DONE};
    (void)state;
    write_frame(5, 1, 0);
    assert_true(metadata_wanted());
    metadata_done(0);
    event.disk.token = effect_of(MIRROR_EFFECT_DISK_WRITE, 0)->disk.token;
    step(&(struct mirror_event){.type = MIRROR_EVENT_NODE_DEAD, .nodeid = 1, .boot = 100});
    seal(3, 6, 300);
    assert_false(metadata_wanted());
    step(&event);
    assert_null(effect_of(MIRROR_EFFECT_SEND, MIRROR_WRITE_REPLY)); /* its session is over */
    assert_true(metadata_wanted());
    metadata_done(0);
    const struct mirror_effect *reply = effect_of(MIRROR_EFFECT_SEND, MIRROR_SEAL_REPLY);
    assert_int_equal(reply->send.blob_bytes, bitmap_bytes(SIZE / 65536));
    assert_int_equal(reply->send.blob[0], 2); /* region 1 was in flight (I6) */
}

static void another_disk_is_refused(void **state)
{
    (void)state;
    struct mirror_message message = {.type = MIRROR_SEAL, .epoch = 6, .request = 60, .attach = 60, .boot = 100,
                                     .instance = 1, .incarnation = 72, .regions = SIZE / 65536, .size_bytes = SIZE, .replica_index = 1};
    receive(1, &message, 0);
    const struct mirror_effect *reply = effect_of(MIRROR_EFFECT_SEND, MIRROR_SEAL_REPLY);
    assert_int_equal((int64_t)reply->send.header.argument, -ENODEV); /* I11 */
    assert_false(metadata_wanted());
}

static void a_failed_metadata_write_takes_the_replica_out(void **state)
{
    struct replica_status status;
    (void)state;
    write_frame(5, 1, 0);
    assert_true(metadata_wanted());
    metadata_done(-EIO);
    assert_int_equal((int64_t)effect_of(MIRROR_EFFECT_SEND, MIRROR_WRITE_REPLY)->send.header.argument, -EIO);
    replica_get_status(replica, &status);
    assert_true(status.failed); /* I12 */
    write_frame(5, 2, 0);
    assert_int_equal((int64_t)effect_of(MIRROR_EFFECT_SEND, MIRROR_WRITE_REPLY)->send.header.argument, -EIO);
}

static void idle_regions_lose_their_intent(void **state)
{
    struct replica_status status;
    struct mirror_message complete = {.type = MIRROR_COMPLETE, .epoch = 5, .argument = 1, .boot = 100, .attach = 50};
    (void)state;
    write_frame(5, 1, 0);
    assert_true(metadata_wanted());
    metadata_done(0);
    disk_done(0);
    for (int i = 0; i < 40; i++) { /* not complete everywhere: kept, however long */
        now += 1000000;
        step(&(struct mirror_event){.type = MIRROR_EVENT_TICK});
    }
    replica_get_status(replica, &status);
    assert_int_equal(status.intent_regions, 1);
    receive(1, &complete, 0);
    for (int i = 0; i < 40; i++) {
        now += 1000000;
        step(&(struct mirror_event){.type = MIRROR_EVENT_TICK});
        if (metadata_wanted())
            metadata_done(0);
    }
    replica_get_status(replica, &status);
    assert_int_equal(status.intent_regions, 0);
}

/* ---- volatile caches (I5, I12) -------------------------------------------------------------------------------------- */

static void cached_write(uint64_t sequence)
{
    write_flags = 0;
    write_frame(5, sequence, 0);
    if (metadata_wanted())
        metadata_done(0);
    disk_done(0);
    assert_non_null(effect_of(MIRROR_EFFECT_SEND, MIRROR_WRITE_REPLY));
}

static void flush_frame(uint64_t number)
{
    struct mirror_message message = {.type = MIRROR_FLUSH, .epoch = 5, .request = number, .boot = 100, .attach = 50};
    receive(1, &message, 0);
}

/* Ticks until an effect comes; its token. */
static uint64_t barrier_wanted(unsigned ticks)
{
    for (unsigned i = 0; i < ticks; i++) {
        now += 1000000;
        step(&(struct mirror_event){.type = MIRROR_EVENT_TICK});
        const struct mirror_effect *effect = effect_of(MIRROR_EFFECT_DISK_FLUSH, 0);
        if (effect) {
            assert_true(effect->disk.flags & MIRROR_FLUSH_BARRIER);
            return effect->disk.token;
        }
        assert_false(metadata_wanted());
    }
    return 0;
}

static void complete_to(uint64_t sequence)
{
    struct mirror_message complete = {.type = MIRROR_COMPLETE, .epoch = 5, .argument = sequence, .boot = 100, .attach = 50};
    receive(1, &complete, 0);
}

static void a_cached_write_loses_its_intent_after_a_barrier_only(void **state)
{
    struct replica_status status;
    (void)state;
    cached_write(1);
    complete_to(1);
    uint64_t token = barrier_wanted(40);
    assert_int_not_equal(token, 0);
    cached_write(2); /* after the barrier began: its region keeps the bit */
    token_done(token, 0);
    assert_false(metadata_wanted());
    replica_get_status(replica, &status);
    assert_int_equal(status.intent_regions, 1);
    complete_to(2);
    token = barrier_wanted(40);
    assert_int_not_equal(token, 0);
    token_done(token, -EAGAIN); /* not now: tried again */
    replica_get_status(replica, &status);
    assert_int_equal(status.intent_regions, 1);
    assert_false(status.failed);
    token = barrier_wanted(40);
    token_done(token, 0);
    assert_true(metadata_wanted());
    metadata_done(0);
    replica_get_status(replica, &status);
    assert_int_equal(status.intent_regions, 0);
}

static void flush_waits_for_the_writes_before_it(void **state)
{
    (void)state;
    write_flags = 0;
    write_frame(5, 1, 0);
    assert_true(metadata_wanted());
    flush_frame(9);
    assert_null(effect_of(MIRROR_EFFECT_DISK_FLUSH, 0));
    metadata_done(0);
    uint64_t token = effect_of(MIRROR_EFFECT_DISK_WRITE, 0)->disk.token;
    assert_null(effect_of(MIRROR_EFFECT_DISK_FLUSH, 0));
    token_done(token, 0);
    const struct mirror_effect *effect = effect_of(MIRROR_EFFECT_DISK_FLUSH, 0);
    assert_non_null(effect);
    assert_null(effect_of(MIRROR_EFFECT_SEND, MIRROR_FLUSH_REPLY));
    token_done(effect->disk.token, 0);
    effect = effect_of(MIRROR_EFFECT_SEND, MIRROR_FLUSH_REPLY);
    assert_int_equal(effect->send.header.request, 9);
    assert_int_equal((int64_t)effect->send.header.argument, 0);
}

static void a_failed_flush_takes_the_replica_out_and_is_never_tried_again(void **state)
{
    struct replica_status status;
    struct mirror_message read = {.type = MIRROR_READ, .epoch = 5, .request = 1, .boot = 100, .attach = 50,
                                  .offset_bytes = 65536, .length_bytes = 4096};
    (void)state;
    cached_write(1);
    flush_frame(1);
    token_done(effect_of(MIRROR_EFFECT_DISK_FLUSH, 0)->disk.token, -EIO);
    assert_int_equal((int64_t)effect_of(MIRROR_EFFECT_SEND, MIRROR_FLUSH_REPLY)->send.header.argument, -EIO);
    assert_true(metadata_wanted()); /* what it may have lost is written down */
    metadata_done(0);
    flush_frame(2);
    assert_null(effect_of(MIRROR_EFFECT_DISK_FLUSH, 0));
    assert_int_equal((int64_t)effect_of(MIRROR_EFFECT_SEND, MIRROR_FLUSH_REPLY)->send.header.argument, -EIO);
    write_frame(5, 3, 0);
    assert_int_equal((int64_t)effect_of(MIRROR_EFFECT_SEND, MIRROR_WRITE_REPLY)->send.header.argument, -EIO);
    receive(1, &read, 0); /* nor is it read from where it may have lost something */
    assert_int_equal((int64_t)effect_of(MIRROR_EFFECT_SEND, MIRROR_READ_REPLY)->send.header.argument, -EIO);
    open_replica(201); /* the same machine, and yet: cold */
    replica_get_status(replica, &status);
    assert_false(status.failed);
    assert_int_equal(status.cold_regions, 1);
}

static void only_another_boot_of_the_machine_makes_cold(void **state)
{
    struct replica_status status;
    (void)state;
    cached_write(1);
    open_replica(201); /* the process alone: the caches are still there */
    replica_get_status(replica, &status);
    assert_int_equal(status.carry_regions, 1);
    assert_int_equal(status.cold_regions, 0);
    machine = 2;
    open_replica(202);
    replica_get_status(replica, &status);
    assert_int_equal(status.cold_regions, 1);
    open_replica(203); /* and again before anything was written down */
    replica_get_status(replica, &status);
    assert_int_equal(status.cold_regions, 1);
    assert_int_not_equal(saved_count, 0);
    do
        metadata_done(0);
    while (metadata_wanted());
    open_replica(204); /* and after: the mark outlives the news */
    replica_get_status(replica, &status);
    assert_int_equal(status.cold_regions, 1);
    seal(1, 6, 100);
    assert_true(metadata_wanted());
    metadata_done(0);
    const struct mirror_effect *effect = effect_of(MIRROR_EFFECT_SEND, MIRROR_SEAL_REPLY);
    struct mirror_message reply;
    uint8_t body[512];
    memcpy(body, effect->send.body, effect->send.body_bytes);
    memcpy(body + effect->send.body_bytes, effect->send.blob, effect->send.blob_bytes);
    assert_int_equal(mirror_message_decode(&effect->send.header, body, effect->send.body_bytes + effect->send.blob_bytes, 0,
                                           &reply), 0);
    assert_int_equal(reply.bitmaps & (1u << METADATA_COLD | 1u), 1u << METADATA_COLD | 1u);
}

static void write_through_is_never_cold(void **state)
{
    struct replica_status status;
    (void)state;
    write_frame(5, 1, 0);
    assert_true(metadata_wanted());
    metadata_done(0);
    disk_done(0);
    machine = 2;
    open_replica(201);
    replica_get_status(replica, &status);
    assert_int_equal(status.carry_regions, 1);
    assert_int_equal(status.cold_regions, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, sealed_by_one, finish)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_lower_epoch_is_refused_also_after_a_restart),
        TEST(intent_is_durable_before_data_and_data_before_the_ack),
        TEST(degraded_write_waits_for_its_dirty_mask),
        TEST(a_new_owner_waits_out_the_promise_to_the_old_one),
        TEST(a_dead_owner_is_not_waited_for),
        TEST(a_restarted_member_keeps_the_promise_of_its_earlier_life),
        TEST(seal_waits_for_writes_on_their_way_to_the_disk),
        TEST(another_disk_is_refused),
        TEST(a_failed_metadata_write_takes_the_replica_out),
        TEST(idle_regions_lose_their_intent),
        TEST(a_cached_write_loses_its_intent_after_a_barrier_only),
        TEST(flush_waits_for_the_writes_before_it),
        TEST(a_failed_flush_takes_the_replica_out_and_is_never_tried_again),
        TEST(only_another_boot_of_the_machine_makes_cold),
        TEST(write_through_is_never_cold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
