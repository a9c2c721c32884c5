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

static void write_frame(uint64_t epoch, uint64_t sequence, uint8_t dirty)
{
    struct mirror_message message = {.type = MIRROR_WRITE, .epoch = epoch, .request = sequence, .attach = epoch * 10,
                                     .boot = 100, .offset_bytes = 65536, .length_bytes = 4096, .operation = BLOCK_WRITE,
                                     .dirty_mask = dirty};
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

static void disk_done(int status)
{
    const struct mirror_effect *effect = effect_of(MIRROR_EFFECT_DISK_WRITE, 0);
    assert_non_null(effect);
    struct mirror_event event = {.type = MIRROR_EVENT_DISK_DONE};
    event.disk.token = effect->disk.token;
    event.disk.status = status;
    step(&event);
}

static void open_replica(uint64_t boot)
{
    struct replica_parameters parameters = {.volume = VOLUME, .nodeid = 2, .boot = boot, .now_us = now};
    replica_free(replica);
    assert_int_equal(replica_new(&parameters, image, sizeof(image), &replica), 0);
    step(&(struct mirror_event){.type = MIRROR_EVENT_LINK_UP, .nodeid = 1, .boot = 100});
    step(&(struct mirror_event){.type = MIRROR_EVENT_LINK_UP, .nodeid = 3, .boot = 300});
}

static int sealed_by_one(void **state)
{
    struct metadata_header header = {.generation = 1, .volume = VOLUME, .incarnation = 71, .size_bytes = SIZE,
                                     .region_bytes = 65536, .replica_index = 1, .dirty_incarnation = {70, 71, 72}};
    (void)state;
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
