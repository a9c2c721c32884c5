/* Intent bits under writes in many places: they are on the disk before data, and seldom waited for. Node 2 is owned by node 1. */
#include "replication/core/message.h"
#include "replication/core/metadata.h"
#include "replication/core/replica.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define REGION  65536u
#define REGIONS 1024u
#define SIZE    ((uint64_t)REGIONS * REGION)

static uint8_t image[65536];
static struct replica *replica;
static struct mirror_effects effects;
static uint64_t now, sequence, complete;
static struct metadata_page saved[16];
static unsigned saved_count, meta_writes, disk_writes;
static bool meta_busy;
static uint64_t tokens[4096];
static unsigned under_way;

/* The bit as a reader of the file would find it, now and when what is being written has got there. */
static bool bit_on_disk(uint32_t region)
{
    static uint8_t later[sizeof(image)];
    struct bitmap map;
    assert_int_equal(bitmap_init(&map, REGIONS), 0);
    memcpy(later, image, sizeof(image));
    for (unsigned i = 0; meta_busy && i < saved_count; i++)
        memcpy(later + saved[i].offset_bytes, saved[i].bytes, sizeof(saved[i].bytes));
    (void)metadata_bitmap_decode(image, sizeof(image), 0, 71, &map);
    bool set = bitmap_test(&map, region);
    (void)metadata_bitmap_decode(later, sizeof(later), 0, 71, &map);
    set = set && bitmap_test(&map, region);
    bitmap_done(&map);
    return set;
}

static void step(const struct mirror_event *event)
{
    effects.count = 0;
    assert_int_equal(replica_step(replica, event, now, &effects), 0);
    for (unsigned i = 0; i < effects.count; i++) {
        const struct mirror_effect *effect = &effects.items[i];
        if (effect->type == MIRROR_EFFECT_META_WRITE) {
            assert_false(meta_busy);
            meta_busy = true;
            meta_writes++;
            saved_count = effect->meta.count;
            memcpy(saved, effect->meta.pages, saved_count * sizeof(saved[0]));
        } else if (effect->type == MIRROR_EFFECT_DISK_WRITE) {
            assert_true(bit_on_disk((uint32_t)(effect->disk.offset_bytes / REGION))); /* I6 */
            disk_writes++;
            tokens[under_way++] = effect->disk.token;
        }
    }
}

static void meta_done(void)
{
    for (unsigned i = 0; i < saved_count; i++)
        memcpy(image + saved[i].offset_bytes, saved[i].bytes, sizeof(saved[i].bytes));
    meta_busy = false;
    step(&(struct mirror_event){.type = MIRROR_EVENT_META_DONE});
}

static void receive(const struct mirror_message *message, uint32_t data_bytes)
{
    struct mirror_effect frame = {0};
    struct mirror_event event = {.type = MIRROR_EVENT_MESSAGE, .nodeid = 1};
    mirror_message_encode(message, 7, data_bytes, &frame);
    event.message.header = frame.send.header;
    event.message.body = frame.send.body;
    event.message.body_bytes = frame.send.body_bytes;
    event.message.data_bytes = data_bytes;
    step(&event);
}

static void write_region(uint32_t region)
{
    struct mirror_message message = {.type = MIRROR_WRITE, .epoch = 5, .request = ++sequence, .argument = complete, .attach = 50,
                                     .boot = 100, .offset_bytes = (uint64_t)region * REGION, .length_bytes = 4096,
                                     .operation = BLOCK_WRITE, .io_flags = BLOCK_FUA};
    receive(&message, 4096);
}

static void disk_done_all(void)
{
    while (under_way) {
        struct mirror_event event = {.type = MIRROR_EVENT_DISK_DONE};
        event.disk.token = tokens[--under_way];
        step(&event);
    }
}

static void tick(uint64_t us)
{
    now += us;
    step(&(struct mirror_event){.type = MIRROR_EVENT_TICK});
}

static int begin(void **state)
{
    struct metadata_header header = {.generation = 1, .volume = 7, .incarnation = 71, .size_bytes = SIZE,
                                     .region_bytes = REGION, .replica_index = 1, .dirty_incarnation = {70, 71, 72}};
    (void)state;
    memset(image, 0, sizeof(image));
    assert_true(metadata_file_bytes(REGIONS) <= sizeof(image));
    metadata_format(&header, image);
    now = 10000000;
    sequence = complete = 0;
    under_way = meta_writes = disk_writes = 0;
    meta_busy = false;
    struct replica_parameters parameters = {.volume = 7, .nodeid = 2, .boot = 200, .now_us = now};
    assert_int_equal(replica_new(&parameters, image, sizeof(image), &replica), 0);
    step(&(struct mirror_event){.type = MIRROR_EVENT_LINK_UP, .nodeid = 1, .boot = 100});
    receive(&(struct mirror_message){.type = MIRROR_SEAL, .epoch = 5, .request = 50, .attach = 50, .boot = 100, .instance = 1,
                                     .incarnation = 71, .regions = REGIONS, .size_bytes = SIZE, .replica_index = 1}, 0);
    meta_done();
    return 0;
}

static int end(void **state)
{
    (void)state;
    replica_free(replica);
    replica = NULL;
    return 0;
}

static void a_marked_region_does_not_wait_for_the_mark_of_another(void **state)
{
    (void)state;
    write_region(3);
    meta_done();
    assert_int_equal(disk_writes, 1);
    write_region(900);
    assert_true(meta_busy);
    assert_int_equal(disk_writes, 1);
    write_region(3);
    assert_int_equal(disk_writes, 2);
    meta_done();
    assert_int_equal(disk_writes, 3);
}

static void few_writes_mark_only_what_they_touch(void **state)
{
    struct replica_status status;
    (void)state;
    for (uint32_t i = 0; i < 32; i++) {
        write_region(i * 32);
        meta_done();
    }
    replica_get_status(replica, &status);
    assert_int_equal(status.intent_regions, 32);
}

static void many_writes_find_their_neighbourhood_marked(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < REGIONS; i++) {
        write_region(i);
        if (meta_busy)
            meta_done();
        disk_done_all();
    }
    assert_int_equal(disk_writes, REGIONS);
    assert_true(meta_writes <= 1 + 64 + (REGIONS - 64) / 64);
}

static void data_never_precede_their_mark_however_marks_come_and_go(void **state)
{
    uint64_t seed = 11;
    (void)state;
    for (unsigned turn = 0; turn < 100000; turn++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned what = (unsigned)(seed >> 33) % 100;
        if (what < 40 && under_way < 64 && sequence - complete < 200) {
            write_region((uint32_t)(seed >> 45) % 160); /* few in the time after which an idle one is cleared */
        } else if (what < 50) {
            if (meta_busy)
                meta_done();
        } else if (what < 70) {
            disk_done_all();
        } else if (what < 90) {
            tick(1000000);
        } else {
            disk_done_all();
            if (meta_busy)
                meta_done();
            disk_done_all();
            if (meta_busy)
                meta_done();
            disk_done_all();
            complete = sequence;
        }
    }
    assert_true(disk_writes > 5000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_marked_region_does_not_wait_for_the_mark_of_another),
        TEST(few_writes_mark_only_what_they_touch),
        TEST(many_writes_find_their_neighbourhood_marked),
        TEST(data_never_precede_their_mark_however_marks_come_and_go),
    };
    int result = cmocka_run_group_tests(tests, NULL, NULL);
    mirror_effects_done(&effects);
    return result;
}
