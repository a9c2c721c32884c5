/* The parts below the protocol: bitmap, range lock, metadata, messages. */
#include "replication/core/bitmap.h"
#include "replication/core/message.h"
#include "replication/core/metadata.h"
#include "replication/core/range_lock.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void bitmap_counts_finds_and_survives_the_wire(void **state)
{
    struct bitmap a, b;
    uint8_t wire[32];
    (void)state;
    assert_int_equal(bitmap_init(&a, 131), 0);
    assert_int_equal(bitmap_init(&b, 131), 0);
    assert_int_equal(bitmap_bytes(131), 24);
    assert_true(bitmap_set(&a, 130));
    assert_false(bitmap_set(&a, 130));
    assert_true(bitmap_set(&a, 64));
    assert_int_equal(bitmap_next(&a, 0), 64);
    assert_int_equal(bitmap_next(&a, 65), 130);
    assert_int_equal(bitmap_next(&a, 131), BITMAP_NONE);
    bitmap_encode(&a, wire);
    wire[23] |= 0xf0; /* beyond the end */
    bitmap_decode(&b, wire);
    assert_int_equal(b.set, 2);
    assert_true(bitmap_contains(&a, &b));
    bitmap_set(&b, 3);
    assert_false(bitmap_contains(&a, &b));
    bitmap_or(&a, &b);
    assert_int_equal(a.set, 3);
    bitmap_clear(&b, 64);
    bitmap_and(&a, &b);
    assert_int_equal(a.set, 2);
    bitmap_fill(&a);
    assert_int_equal(a.set, 131);
    bitmap_zero(&a);
    assert_int_equal(bitmap_next(&a, 0), BITMAP_NONE);
    bitmap_done(&a);
    bitmap_done(&b);
}

static unsigned granted_count;
static struct range *granted_last;
static void note_granted(void *context, struct range *range)
{
    (void)context;
    granted_count++;
    granted_last = range;
}

static void ranges_wait_for_earlier_conflicts_only(void **state)
{
    struct range_lock lock;
    struct range w = {.offset_bytes = 0, .length_bytes = 8, .exclusive = true};
    struct range r1 = {.offset_bytes = 4, .length_bytes = 8}, r2 = {.offset_bytes = 6, .length_bytes = 2};
    struct range w2 = {.offset_bytes = 7, .length_bytes = 9, .exclusive = true};
    struct range far = {.offset_bytes = 8, .length_bytes = 1, .exclusive = true};
    (void)state;
    range_lock_init(&lock);
    assert_true(range_lock_add(&lock, &w));
    assert_false(range_lock_add(&lock, &r1));
    assert_false(range_lock_add(&lock, &r2));
    assert_false(range_lock_add(&lock, &w2));
    assert_false(range_lock_add(&lock, &far)); /* touches r1 and w2, not w */
    range_lock_remove(&lock, &w, note_granted, NULL);
    assert_int_equal(granted_count, 2); /* both readers */
    range_lock_remove(&lock, &r1, note_granted, NULL);
    range_lock_remove(&lock, &r2, note_granted, NULL);
    assert_int_equal(granted_count, 3);
    assert_ptr_equal(granted_last, &w2);
    range_lock_remove(&lock, &w2, note_granted, NULL);
    assert_ptr_equal(granted_last, &far);
    range_lock_remove(&lock, &far, note_granted, NULL);
    assert_true(list_empty(&lock.held));
}

/* The rule itself, told by looking at all: granted when no earlier one held conflicts. */
#define MODEL_RANGES 200u
static struct range model_ranges[MODEL_RANGES];
static uint64_t model_arrival[MODEL_RANGES]; /* 0: not held */
static bool model_granted[MODEL_RANGES];
static uint64_t model_last_granted;

static bool model_free(unsigned i)
{
    const struct range *a = &model_ranges[i];
    for (unsigned k = 0; k < MODEL_RANGES; k++) {
        const struct range *b = &model_ranges[k];
        if (model_arrival[k] && model_arrival[k] < model_arrival[i] && (a->exclusive || b->exclusive) &&
            a->offset_bytes < b->offset_bytes + b->length_bytes && b->offset_bytes < a->offset_bytes + a->length_bytes)
            return false;
    }
    return true;
}

static void model_note_granted(void *context, struct range *range)
{
    unsigned i = (unsigned)(range - model_ranges);
    (void)context;
    assert_false(model_granted[i]);
    assert_true(model_arrival[i] > model_last_granted); /* in order of arrival */
    model_last_granted = model_arrival[i];
    model_granted[i] = true;
}

static void ranges_long_and_short_are_granted_as_the_rule_says(void **state)
{
    struct range_lock lock;
    uint64_t seed = 7, arrivals = 0;
    (void)state;
    range_lock_init(&lock);
    for (unsigned turn = 0; turn < 20000; turn++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned i = (unsigned)(seed >> 33) % MODEL_RANGES, kind = (unsigned)(seed >> 20) % 16;
        if (model_arrival[i]) {
            model_arrival[i] = 0; /* granted or still waiting */
            model_last_granted = 0;
            range_lock_remove(&lock, &model_ranges[i], model_note_granted, NULL);
        } else {
            uint64_t span = kind == 0 ? 64u << 20 : kind < 4 ? 1u << 20 : kind < 8 ? 192u << 10 : 4096;
            model_ranges[i] = (struct range){.offset_bytes = (seed >> 40) % 16384 * 4096, .length_bytes = 1 + (seed >> 12) % span,
                                             .exclusive = kind & 1};
            model_arrival[i] = ++arrivals;
            model_granted[i] = range_lock_add(&lock, &model_ranges[i]);
        }
        for (unsigned k = 0; k < MODEL_RANGES; k++)
            if (model_arrival[k])
                assert_int_equal(model_granted[k], model_free(k));
    }
}

static struct metadata_header sample_header(uint64_t size)
{
    struct metadata_header header = {.generation = 4, .volume = 9, .incarnation = 77, .size_bytes = size,
                                     .region_bytes = metadata_region_bytes(size), .replica_index = 2,
                                     .sealed_epoch = 12, .sealed_owner = 3, .sealed_boot = 99,
                                     .dirty_incarnation = {1, 2, 77, 4}};
    memcpy(header.volume_uuid.bytes, "0123456789abcdef", 16);
    return header;
}

static void regions_stay_within_their_limit(void **state)
{
    (void)state;
    assert_int_equal(metadata_region_bytes(1 << 20), 65536);
    assert_int_equal(metadata_region_bytes(64ull << 30), 65536);
    assert_int_equal(metadata_region_bytes((64ull << 30) + 4096), 131072);
    assert_int_equal(metadata_region_bytes(64ull << 40), 64u << 20);
}

static void a_torn_header_costs_one_slot(void **state)
{
    struct metadata_header header = sample_header(10 << 20), found;
    struct metadata_page page;
    uint8_t image[65536 + 8192];
    (void)state;
    assert_true(metadata_file_bytes(metadata_regions(&header)) <= sizeof(image));
    metadata_format(&header, image);
    header.generation++;
    header.sealed_epoch = 13;
    metadata_header_encode(&header, &page);
    assert_int_equal(page.offset_bytes, 4096); /* the other slot (I13) */
    memcpy(image + 4096, page.bytes, 4096);
    assert_int_equal(metadata_header_decode(image, sizeof(image), &found), 0);
    assert_int_equal(found.sealed_epoch, 13);
    assert_memory_equal(&found, &header, sizeof(found));
    image[4096 + 90] ^= 1;
    assert_int_equal(metadata_header_decode(image, sizeof(image), &found), 0);
    assert_int_equal(found.sealed_epoch, 12);
    image[90] ^= 1;
    assert_int_equal(metadata_header_decode(image, sizeof(image), &found), -EBADMSG);
}

static void a_torn_bitmap_page_reads_as_all_ones(void **state)
{
    struct metadata_header header = sample_header(4ull << 30); /* 65536 regions: three pages */
    uint32_t regions = metadata_regions(&header);
    uint64_t size = metadata_file_bytes(regions);
    uint8_t *image = malloc(size);
    struct bitmap map, read;
    struct metadata_page page;
    (void)state;
    assert_int_equal(bitmap_init(&map, regions), 0);
    assert_int_equal(bitmap_init(&read, regions), 0);
    metadata_format(&header, image);
    bitmap_set(&map, 5);
    bitmap_set(&map, METADATA_PAGE_BITS + 1);
    for (uint32_t i = 0; i < metadata_bitmap_pages(regions); i++) {
        metadata_bitmap_encode(&map, 1, i, header.incarnation, 8, &page);
        memcpy(image + page.offset_bytes, page.bytes, 4096);
    }
    assert_int_equal(metadata_bitmap_decode(image, size, 1, header.incarnation, &read), 0);
    assert_int_equal(read.set, 2);
    assert_true(bitmap_test(&read, 5) && bitmap_test(&read, METADATA_PAGE_BITS + 1));
    image[page.offset_bytes + 2000] ^= 4;
    assert_int_equal(metadata_bitmap_decode(image, size, 1, header.incarnation, &read), 1);
    assert_int_equal(read.set, 2 + regions - 2 * METADATA_PAGE_BITS);
    assert_int_equal(metadata_bitmap_decode(image, size, 1, header.incarnation + 1, &read), 3); /* another disk's */
    assert_int_equal(read.set, regions);
    assert_int_equal(metadata_bitmap_decode(image, size, 0, header.incarnation, &read), 0);
    assert_int_equal(read.set, 0);
    bitmap_done(&map);
    bitmap_done(&read);
    free(image);
}

static void messages_survive_the_wire_and_nonsense_is_refused(void **state)
{
    uint8_t blob[16] = {1, 2, 3};
    struct mirror_message reply = {.type = MIRROR_SEAL_REPLY, .epoch = 3, .request = 4, .argument = (uint64_t)-5, .boot = 6,
                                   .attach = 7, .incarnation = 8, .regions = 60, .flags = 1, .bitmaps = 5,
                                   .dirty_incarnation = {1, 2, 3, 4}, .blob = blob, .blob_bytes = 16};
    struct mirror_message write = {.type = MIRROR_WRITE, .epoch = 3, .request = 4, .offset_bytes = 4096,
                                   .length_bytes = 8192, .operation = BLOCK_WRITE, .dirty_mask = 6};
    struct mirror_message found;
    struct mirror_effect effect = {0};
    uint8_t body[256];
    uint32_t split;
    (void)state;
    mirror_message_encode(&reply, 9, 0, &effect);
    assert_int_equal(effect.send.header.payload_bytes, effect.send.body_bytes + 16);
    memcpy(body, effect.send.body, effect.send.body_bytes);
    memcpy(body + effect.send.body_bytes, blob, 16);
    uint32_t bytes = effect.send.header.payload_bytes;
    assert_int_equal(mirror_message_decode(&effect.send.header, body, bytes, 0, &found), 0);
    assert_int_equal(found.bitmaps, 5);
    assert_int_equal(found.dirty_incarnation[3], 4);
    assert_int_equal((int64_t)found.argument, -5);
    assert_int_equal(mirror_message_decode(&effect.send.header, body, bytes - 1, 0, &found), -EPROTO);
    mirror_message_encode(&write, 9, 8192, &effect);
    assert_int_equal(mirror_message_split(&effect.send.header, effect.send.header.payload_bytes, &split), 0);
    assert_int_equal(split, effect.send.body_bytes);
    assert_int_equal(mirror_message_decode(&effect.send.header, effect.send.body, split, 8192, &found), 0);
    assert_int_equal(found.length_bytes, 8192);
    assert_int_equal(found.dirty_mask, 6);
    assert_int_equal(mirror_message_decode(&effect.send.header, effect.send.body, split, 4096, &found), -EPROTO);
    memset(effect.send.body + 16, 0xff, 16); /* offset + length overflows */
    assert_int_equal(mirror_message_decode(&effect.send.header, effect.send.body, split, 8192, &found), -EPROTO);
    effect.send.header.type = 0x5f;
    assert_int_equal(mirror_message_split(&effect.send.header, 100, &split), -EPROTO);
}

static int decode(const struct mirror_message *message, uint32_t data_bytes, struct mirror_message *ret_found)
{
    struct mirror_effect effect = {0};
    uint32_t split;
    mirror_message_encode(message, 9, data_bytes, &effect);
    assert_int_equal(mirror_message_split(&effect.send.header, effect.send.header.payload_bytes, &split), 0);
    assert_int_equal(split, effect.send.body_bytes);
    return mirror_message_decode(&effect.send.header, effect.send.body, split, data_bytes, ret_found);
}

static void digests_and_copies_survive_the_wire_within_their_limits(void **state)
{
    struct mirror_message digest = {.type = MIRROR_DIGEST, .request = 4, .offset_bytes = 65536, .length_bytes = 1 << 20,
                                    .piece_bytes = 4096, .read_only = true};
    struct mirror_message reply = {.type = MIRROR_DIGEST_REPLY, .request = 4};
    struct mirror_message copy = {.type = MIRROR_COPY, .request = 4, .argument = 77, .offset_bytes = 4096,
                                  .length_bytes = 65536, .joiner = 3, .joiner_attach = 99};
    struct mirror_message copied = {.type = MIRROR_COPIED, .request = 77, .attach = 99, .offset_bytes = 4096,
                                    .length_bytes = 65536, .operation = BLOCK_WRITE, .io_flags = BLOCK_MAY_UNMAP};
    struct mirror_message found;
    (void)state;
    assert_int_equal(decode(&digest, 0, &found), 0);
    assert_int_equal(found.piece_bytes, 4096);
    assert_true(found.read_only);
    assert_true(mirror_message_to_member(MIRROR_DIGEST) && !mirror_message_to_member(MIRROR_DIGEST_REPLY));
    digest.length_bytes += 4096; /* more pieces than an answer holds */
    assert_int_equal(decode(&digest, 0, &found), -EPROTO);
    digest.piece_bytes = 65536;
    assert_int_equal(decode(&digest, 0, &found), 0);
    digest.piece_bytes = 512;
    assert_int_equal(decode(&digest, 0, &found), -EPROTO);
    digest.piece_bytes = 65536;
    digest.length_bytes = 1ull << 40;
    assert_int_equal(decode(&digest, 0, &found), -EPROTO);
    assert_int_equal(decode(&reply, 256 * MIRROR_DIGEST_BYTES, &found), 0);
    assert_int_equal(decode(&reply, 257 * MIRROR_DIGEST_BYTES, &found), -EPROTO);
    assert_int_equal(decode(&reply, 15, &found), -EPROTO);
    assert_int_equal(decode(&copy, 0, &found), 0);
    assert_int_equal(found.joiner, 3);
    assert_int_equal(found.joiner_attach, 99);
    assert_int_equal(found.argument, 77);
    copy.length_bytes = 4u << 20; /* longer than a frame */
    assert_int_equal(decode(&copy, 0, &found), -EPROTO);
    assert_int_equal(decode(&copied, 65536, &found), 0);
    assert_int_equal(found.attach, 99);
    assert_int_equal(decode(&copied, 4096, &found), -EPROTO);
    assert_true(mirror_message_to_member(MIRROR_COPY) && mirror_message_to_member(MIRROR_COPIED) &&
                !mirror_message_to_member(MIRROR_COPY_REPLY));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bitmap_counts_finds_and_survives_the_wire),
        cmocka_unit_test(ranges_wait_for_earlier_conflicts_only),
        cmocka_unit_test(ranges_long_and_short_are_granted_as_the_rule_says),
        cmocka_unit_test(regions_stay_within_their_limit),
        cmocka_unit_test(a_torn_header_costs_one_slot),
        cmocka_unit_test(a_torn_bitmap_page_reads_as_all_ones),
        cmocka_unit_test(messages_survive_the_wire_and_nonsense_is_refused),
        cmocka_unit_test(digests_and_copies_survive_the_wire_within_their_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
