/* Mirror frames from a peer: decoded, then given to a replica and to a serving mirror, each frame of any content.
 * Input: a sequence of { type u8, flags u8, request u8, epoch u8, argument u8, body bytes u8, data blocks u8, body }. Where flags bit 0
 * is set the session at the head of the body is made to fit, so that what lies behind the check is reached. */
#include "director/base/bytes.h"
#include "replication/core/message.h"
#include "replication/core/mirror.h"
#include "replication/core/replica.h"
#include <string.h>

#define SIZE   (1u << 20)
#define VOLUME 1u

static struct mirror *mirror;
static struct replica *replica;
static uint64_t now;
static char handle; /* any address: bytes are never touched */
static uint64_t seal_attach[2];

static void *no_alloc(void *context, uint32_t bytes)
{
    (void)context, (void)bytes;
    return &handle;
}
static void no_copy(void *context, struct mirror_data to, struct mirror_data from, uint64_t bytes)
{
    (void)context, (void)to, (void)from, (void)bytes;
}
static bool no_equal(void *context, struct mirror_data a, struct mirror_data b, uint64_t bytes, uint64_t *ret_differs)
{
    (void)context, (void)a, (void)b, (void)bytes, (void)ret_differs;
    return true;
}

static bool no_zero(void *context, struct mirror_data data, uint64_t bytes)
{
    (void)context, (void)data, (void)bytes;
    return false;
}
static void no_digest(void *context, struct mirror_data digests, uint32_t index, uint8_t ret_digest[MIRROR_DIGEST_BYTES])
{
    (void)context, (void)digests;
    memset(ret_digest, index & 0xff, MIRROR_DIGEST_BYTES);
}

/* Perform effects: disk and metadata succeed at once, everything else is dropped. */
static void feed(bool member, struct mirror_event *event)
{
    struct mirror_effects effects = {0};
    if (member)
        (void)replica_step(replica, event, now, &effects);
    else
        (void)mirror_step(mirror, event, now, &effects);
    for (unsigned i = 0; i < effects.count; i++) {
        const struct mirror_effect *effect = &effects.items[i];
        struct mirror_event done = {.type = MIRROR_EVENT_TICK};
        if (effect->type == MIRROR_EFFECT_SEND && effect->send.header.type == MIRROR_SEAL)
            seal_attach[effect->send.nodeid - 1] = effect->send.header.request;
        if (effect->type == MIRROR_EFFECT_META_WRITE || effect->type == MIRROR_EFFECT_META_REPLACE) {
            done.type = MIRROR_EVENT_META_DONE;
        } else if (effect->type == MIRROR_EFFECT_DISK_READ || effect->type == MIRROR_EFFECT_DISK_DIGEST ||
                   effect->type == MIRROR_EFFECT_DISK_WRITE) {
            done.type = MIRROR_EVENT_DISK_DONE;
            done.disk.token = effect->disk.token;
        } else {
            continue;
        }
        feed(true, &done);
    }
    mirror_effects_done(&effects);
}

static void one_frame(const uint8_t **data, size_t *size)
{
    const uint8_t *d = *data;
    uint32_t body_bytes = MIN((uint32_t)d[5], (uint32_t)(*size - 7)), data_bytes = d[6] * 512u;
    uint16_t type = 0x40 + d[0] % 0x20;
    uint8_t body[256] = {0};
    struct mirror_event event = {.type = MIRROR_EVENT_MESSAGE, .nodeid = (uint16_t)(1 + (d[1] >> 1) % 3)};
    memcpy(body, d + 7, body_bytes);
    if (d[1] & 1 && body_bytes >= 16) {
        bool member = mirror_message_to_member(type);
        put_le64(body, member ? 20 : 10);
        put_le64(body + 8, member ? d[2] : seal_attach[event.nodeid == 2]);
    }
    *data += 7 + body_bytes;
    *size -= 7 + body_bytes;
    event.message.header = (struct peer_header){.type = type, .request = d[2], .epoch = d[3], .argument = (uint64_t)(int8_t)d[4],
                                                .object = VOLUME, .payload_bytes = body_bytes + data_bytes};
    if (d[1] & 1 && type == MIRROR_SEAL_REPLY)
        event.message.header.request = seal_attach[event.nodeid == 2];
    uint32_t split;
    if (mirror_message_split(&event.message.header, body_bytes + data_bytes, &split) == 0 && split > body_bytes)
        data_bytes = 0; /* cannot be: the shell splits by this */
    event.message.body = body;
    event.message.body_bytes = body_bytes;
    event.message.data_bytes = data_bytes;
    event.message.data.handle = data_bytes ? &handle : NULL;
    feed(mirror_message_to_member(type), &event);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t image[65536];
    struct metadata_header header = {.generation = 1, .volume = VOLUME, .incarnation = 1, .size_bytes = SIZE,
                                     .region_bytes = 65536, .dirty_incarnation = {1, 2}};
    struct mirror_config config = {.epoch = 3, .isr_version = 1, .owner = 1, .isr = 3, .replica_count = 2,
                                   .replicas = {{1, 1}, {2, 2}}};
    struct replica_parameters rp = {.volume = VOLUME, .nodeid = 3, .boot = 30, .now_us = 1, .operations_max = 8};
    struct mirror_parameters mp = {.volume = VOLUME, .size_bytes = SIZE, .region_bytes = 65536, .nodeid = 1, .boot = 10,
                                   .now_us = 1, .requests_max = 4, .data = {NULL, no_alloc, no_copy, no_equal, no_zero, no_digest}};
    struct mirror_request requests[3] = {
        {.operation = BLOCK_WRITE, .length_bytes = 4096, .data.handle = &handle},
        {.operation = BLOCK_READ, .offset_bytes = 65536, .length_bytes = 4096, .data.handle = &handle},
        {.operation = BLOCK_COMPARE_AND_WRITE, .offset_bytes = 131072, .length_bytes = 512, .data.handle = &handle},
    };
    now = 1000000;
    metadata_format(&header, image);
    if (replica_new(&rp, image, sizeof(image), &replica) < 0 || !(mirror = mirror_new(&mp)))
        abort();
    feed(true, &(struct mirror_event){.type = MIRROR_EVENT_LINK_UP, .nodeid = 2, .boot = 20});
    feed(false, &(struct mirror_event){.type = MIRROR_EVENT_LINK_UP, .nodeid = 2, .boot = 20});
    feed(false, &(struct mirror_event){.type = MIRROR_EVENT_CONFIG, .config = &config});
    for (unsigned i = 0; i < 3; i++)
        feed(false, &(struct mirror_event){.type = MIRROR_EVENT_REQUEST, .request = &requests[i]});
    if (mirror_check_start(mirror, &(struct mirror_check_options){.kind = MIRROR_CHECK_VERIFY, .repair = true}, now) < 0)
        abort();
    while (size > 7) {
        one_frame(&data, &size);
        now += 1000;
        feed(true, &(struct mirror_event){.type = MIRROR_EVENT_TICK});
        feed(false, &(struct mirror_event){.type = MIRROR_EVENT_TICK});
    }
    mirror_free(mirror);
    replica_free(replica);
    return 0;
}
