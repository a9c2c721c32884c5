/* A volume that grows under a replica: metadata of another layout, whole or not at all (scenario 34). */
#include "replication/core/message.h"
#include "replication/core/mirror.h"
#include "replication/core/replica.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define GIB    (1ull << 30)
#define VOLUME 7u

static uint8_t image[1 << 20], before[1 << 20];
static uint64_t image_bytes;
static struct replica *replica;
static struct mirror_effects effects;
static uint64_t now = 10000000;

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

static void receive(const struct mirror_message *message, uint32_t data_bytes)
{
    struct mirror_effect frame = {0};
    struct mirror_event event = {.type = MIRROR_EVENT_MESSAGE, .nodeid = 1};
    mirror_message_encode(message, VOLUME, data_bytes, &frame);
    event.message.header = frame.send.header;
    event.message.body = frame.send.body;
    event.message.body_bytes = frame.send.body_bytes;
    event.message.data_bytes = data_bytes;
    step(&event);
}

static void seal(uint64_t epoch, uint64_t size_bytes)
{
    struct mirror_message message = {.type = MIRROR_SEAL, .epoch = epoch, .request = epoch * 10, .attach = epoch * 10,
                                     .boot = 100, .instance = 1, .incarnation = 71, .replica_index = 1,
                                     .size_bytes = size_bytes, .regions = metadata_regions_of(size_bytes)};
    receive(&message, 0);
}

/* Perform metadata effects until none comes; the last SEAL_REPLY's status and carry, if any. */
static bool settle(int *ret_status, struct bitmap *ret_carry)
{
    bool replied = false;
    for (;;) {
        const struct mirror_effect *reply = effect_of(MIRROR_EFFECT_SEND, MIRROR_SEAL_REPLY);
        if (reply) {
            replied = true;
            *ret_status = (int)(int64_t)reply->send.header.argument;
            if (ret_carry && reply->send.blob)
                bitmap_decode(ret_carry, reply->send.blob);
        }
        const struct mirror_effect *pages = effect_of(MIRROR_EFFECT_META_WRITE, 0);
        const struct mirror_effect *whole = effect_of(MIRROR_EFFECT_META_REPLACE, 0);
        for (unsigned i = 0; pages && i < pages->meta.count; i++)
            memcpy(image + pages->meta.pages[i].offset_bytes, pages->meta.pages[i].bytes, 4096);
        if (whole) {
            assert_true(whole->replace.bytes <= sizeof(image));
            memcpy(image, whole->replace.image, whole->replace.bytes);
            image_bytes = whole->replace.bytes;
        }
        if (!pages && !whole)
            return replied;
        step(&(struct mirror_event){.type = MIRROR_EVENT_META_DONE});
    }
}

static void open_replica(uint64_t room)
{
    struct replica_parameters parameters = {.volume = VOLUME, .nodeid = 2, .boot = 200, .now_us = now, .data_bytes = room};
    replica_free(replica);
    assert_int_equal(replica_new(&parameters, image, image_bytes, &replica), 0);
    step(&(struct mirror_event){.type = MIRROR_EVENT_LINK_UP, .nodeid = 1, .boot = 100});
}

static void make(uint64_t size_bytes, uint64_t room)
{
    struct metadata_header header = {.generation = 1, .volume = VOLUME, .incarnation = 71, .size_bytes = size_bytes,
                                     .region_bytes = metadata_region_bytes(size_bytes), .replica_index = 1,
                                     .dirty_incarnation = {70, 71, 72}};
    int status;
    image_bytes = metadata_file_bytes(metadata_regions(&header));
    metadata_format(&header, image);
    open_replica(room);
    seal(5, size_bytes);
    assert_true(settle(&status, NULL));
    assert_int_equal(status, 0);
}

static void write_at(uint64_t offset)
{
    static uint64_t sequence;
    struct mirror_message message = {.type = MIRROR_WRITE, .epoch = 5, .request = ++sequence, .attach = 50, .boot = 100,
                                     .offset_bytes = offset, .length_bytes = 4096, .operation = BLOCK_WRITE, .dirty_mask = 4};
    int status;
    receive(&message, 4096);
    (void)settle(&status, NULL);
    const struct mirror_effect *disk = effect_of(MIRROR_EFFECT_DISK_WRITE, 0);
    assert_non_null(disk);
    struct mirror_event event = {.type = MIRROR_EVENT_DISK_DONE};
    event.disk.token = disk->disk.token;
    step(&event);
    (void)settle(&status, NULL);
}

static int finish(void **state)
{
    (void)state;
    replica_free(replica);
    replica = NULL;
    return 0;
}

/* From size a to size b with a write at some offsets: the report to the next owner names their regions, and so do the files. */
static void grows(uint64_t a, uint64_t b, const uint64_t *offsets, unsigned count)
{
    struct bitmap carry;
    struct replica_status status;
    int result;
    uint32_t region = metadata_region_bytes(b);
    make(a, b);
    for (unsigned i = 0; i < count; i++)
        write_at(offsets[i]);
    assert_int_equal(bitmap_init(&carry, metadata_regions_of(b)), 0);
    seal(6, b);
    assert_null(effect_of(MIRROR_EFFECT_SEND, MIRROR_SEAL_REPLY));
    assert_non_null(effect_of(MIRROR_EFFECT_META_REPLACE, 0));
    assert_true(settle(&result, &carry));
    assert_int_equal(result, 0);
    uint32_t different = 0;
    for (unsigned i = 0; i < count; i++) {
        assert_true(bitmap_test(&carry, (uint32_t)(offsets[i] / region)));
        different += i == 0 || offsets[i] / region != offsets[i - 1] / region;
    }
    assert_int_equal(carry.set, different);
    replica_get_status(replica, &status);
    assert_int_equal(status.size_bytes, b);
    open_replica(b); /* and after a restart */
    replica_get_status(replica, &status);
    assert_int_equal(status.size_bytes, b);
    assert_int_equal(status.sealed_epoch, 6);
    assert_int_equal(status.intent_regions, different);
    bitmap_done(&carry);
}

static void marks_stay_when_pages_move(void **state)
{
    (void)state;
    grows(1 * GIB, 9 * GIB, (const uint64_t[]){0, 65536, 700 << 20, GIB - 4096}, 4); /* 1 page a bitmap, then 5 */
}

static void marks_stay_when_regions_get_larger(void **state)
{
    (void)state;
    grows(60 * GIB, 200 * GIB, (const uint64_t[]){0, 65536, 196608, 262144, 60 * GIB - 4096}, 5); /* 64 KiB, then 256 */
}

static void marks_stay_when_the_end_is_within_a_region(void **state)
{
    (void)state;
    grows(GIB + 4096, GIB + 8192, (const uint64_t[]){GIB}, 1);
}

static void writes_reach_the_new_end_and_not_beyond(void **state)
{
    (void)state;
    make(GIB, 2 * GIB);
    struct mirror_message message = {.type = MIRROR_WRITE, .epoch = 5, .request = 900, .attach = 50, .boot = 100,
                                     .offset_bytes = GIB, .length_bytes = 4096, .operation = BLOCK_WRITE};
    int status;
    receive(&message, 4096);
    assert_int_equal((int64_t)effect_of(MIRROR_EFFECT_SEND, MIRROR_WRITE_REPLY)->send.header.argument, -EPROTO);
    seal(6, 2 * GIB);
    assert_true(settle(&status, NULL));
    message.epoch = 6;
    message.attach = 60;
    message.request = 901;
    receive(&message, 4096);
    (void)settle(&status, NULL);
    assert_non_null(effect_of(MIRROR_EFFECT_DISK_WRITE, 0));
}

static void a_size_that_the_disk_has_not_yet_is_refused_for_now(void **state)
{
    struct replica_status status;
    int result;
    (void)state;
    make(GIB, GIB);
    memcpy(before, image, image_bytes);
    seal(6, 2 * GIB);
    assert_true(settle(&result, NULL));
    assert_int_equal(result, -EAGAIN);
    assert_memory_equal(before, image, image_bytes);
    replica_get_status(replica, &status);
    assert_int_equal(status.sealed_epoch, 5);
    replica_set_room(replica, 2 * GIB);
    seal(6, 2 * GIB);
    assert_true(settle(&result, NULL));
    assert_int_equal(result, 0);
}

static void a_size_smaller_than_before_is_another_volume_s(void **state)
{
    int result;
    (void)state;
    make(GIB, GIB);
    seal(6, GIB / 2);
    assert_true(settle(&result, NULL));
    assert_int_equal(result, -ENODEV);
}

static void when_the_new_file_cannot_be_written_the_old_one_stays(void **state)
{
    struct replica_status status;
    int result;
    (void)state;
    make(GIB, 2 * GIB);
    write_at(GIB / 2);
    memcpy(before, image, image_bytes);
    seal(6, 2 * GIB);
    assert_non_null(effect_of(MIRROR_EFFECT_META_REPLACE, 0));
    step(&(struct mirror_event){.type = MIRROR_EVENT_META_DONE, .meta_status = -ENOSPC});
    assert_true(settle(&result, NULL));
    assert_int_equal(result, -EIO); /* I12 */
    assert_memory_equal(before, image, image_bytes);
    open_replica(2 * GIB);
    replica_get_status(replica, &status);
    assert_int_equal(status.size_bytes, GIB);
    assert_int_equal(status.sealed_epoch, 5);
    assert_int_equal(status.carry_regions, 1);
}

#define TEST(name) cmocka_unit_test_teardown(name, finish)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(marks_stay_when_pages_move),
        TEST(marks_stay_when_regions_get_larger),
        TEST(marks_stay_when_the_end_is_within_a_region),
        TEST(writes_reach_the_new_end_and_not_beyond),
        TEST(a_size_that_the_disk_has_not_yet_is_refused_for_now),
        TEST(a_size_smaller_than_before_is_another_volume_s),
        TEST(when_the_new_file_cannot_be_written_the_old_one_stays),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mirror_effects_done(&effects);
    return failed;
}
