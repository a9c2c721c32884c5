/* Frames to ourselves, to other nodes, and from them. */
#include "replication/io/mirror_device_private.h"
#include "director/base/crc32c.h"

static void send_to_self(struct mirror_device *d, const struct mirror_effect *effect)
{
    struct loop_frame *frame = d->frames_free;
    uint32_t bytes = effect->send.body_bytes + effect->send.blob_bytes;
    if (frame)
        d->frames_free = frame->next;
    else
        frame = calloc(1, sizeof(*frame));
    ASSERT(frame);
    frame->body = bytes <= sizeof(frame->small) ? frame->small : malloc(bytes);
    ASSERT(frame->body);
    frame->next = NULL;
    frame->header = effect->send.header;
    frame->body_bytes = bytes;
    frame->data_bytes = effect->send.data_bytes;
    frame->data = effect->send.data;
    memcpy(frame->body, effect->send.body, effect->send.body_bytes);
    if (effect->send.blob_bytes)
        memcpy(frame->body + effect->send.body_bytes, effect->send.blob, effect->send.blob_bytes);
    if (frame->data.handle)
        data_ref(frame->data.handle);
    *d->frames_end = frame;
    d->frames_end = &frame->next;
}

static void send_to_peer(struct mirror_device *d, const struct mirror_effect *effect)
{
    struct iovec iov[SEND_IOV_MAX];
    unsigned count = 0;
    struct data *data = effect->send.data.handle, *flat = NULL;
    const struct mirror_transport *transport = &d->options.transport;
    iov[count++] = (struct iovec){(void *)effect->send.body, effect->send.body_bytes};
    if (effect->send.blob_bytes)
        iov[count++] = (struct iovec){(void *)effect->send.blob, effect->send.blob_bytes};
    if (effect->send.data_bytes) {
        size_t offset = effect->send.data.offset;
        if (data_slice(data, offset, effect->send.data_bytes, NULL) > SEND_IOV_MAX - count) {
            flat = data_new(&d->pool, effect->send.data_bytes); /* a request of very many pieces */
            ASSERT(flat);
            data_copy(flat, 0, data, offset, effect->send.data_bytes);
            data = flat;
            offset = 0;
        }
        count += data_slice(data, offset, effect->send.data_bytes, iov + count);
    }
    struct peer_header header = effect->send.header;
    for (unsigned i = 0; i < count; i++) /* from end to end: TLS guards the wire only */
        header.payload_crc = crc32c(header.payload_crc, iov[i].iov_base, iov[i].iov_len);
    int result = transport->send(transport->context, effect->send.nodeid, &header, iov, count);
    if (flat)
        data_unref(flat);
    if (result < 0 && result != -ENOTCONN)
        transport->reset(transport->context, effect->send.nodeid, "a replication frame could not be queued");
}

void device_send(struct mirror_device *d, const struct mirror_effect *effect)
{
    if (effect->send.nodeid == d->options.nodeid)
        send_to_self(d, effect);
    else
        send_to_peer(d, effect);
}

void device_frames_run(struct mirror_device *d)
{
    while (d->frames) {
        struct loop_frame *frame = d->frames;
        struct mirror_event event = {.type = MIRROR_EVENT_MESSAGE, .nodeid = d->options.nodeid};
        d->frames = frame->next;
        if (!d->frames)
            d->frames_end = &d->frames;
        event.message.header = frame->header;
        event.message.body = frame->body;
        event.message.body_bytes = frame->body_bytes;
        event.message.data_bytes = frame->data_bytes;
        event.message.data = frame->data;
        (void)device_step(d, mirror_message_to_member(frame->header.type), &event);
        if (frame->body != frame->small)
            free(frame->body);
        frame->next = d->frames_free;
        d->frames_free = frame;
    }
}

static struct data *receive_data(struct mirror_device *d, const uint8_t *from, size_t bytes,
                                 const struct mirror_payload_keeper *keeper)
{
    struct data *data;
    if (keeper) {
        data = data_wrap(&d->pool, NULL, 1, keeper->release, keeper->payload);
        if (data) {
            data->own = (struct iovec){(void *)from, bytes}; /* never written: a received payload is only a source */
            data->iov = &data->own;
            keeper->keep(keeper->payload);
        }
        return data;
    }
    data = data_new(&d->pool, bytes);
    if (data)
        data_fill(data, from, bytes);
    return data;
}

void mirror_device_receive(struct mirror_device *d, uint16_t nodeid, const struct peer_header *header,
                           const uint8_t *payload, const struct mirror_payload_keeper *keeper)
{
    struct mirror_event event = {.type = MIRROR_EVENT_MESSAGE, .nodeid = nodeid};
    uint32_t body;
    if (d->closing)
        return;
    int result = mirror_message_split(header, header->payload_bytes, &body);
    if (result == 0) {
        event.message.header = *header;
        event.message.body = payload;
        event.message.body_bytes = body;
        event.message.data_bytes = header->payload_bytes - body;
        if (event.message.data_bytes) {
            struct data *data = receive_data(d, payload + body, event.message.data_bytes, keeper);
            if (!data) {
                d->options.transport.reset(d->options.transport.context, nodeid, "no memory for a replication frame");
                return;
            }
            event.message.data.handle = data;
        }
        result = device_feed(d, mirror_message_to_member(header->type), &event);
    }
    if (result < 0)
        d->options.transport.reset(d->options.transport.context, nodeid, "a malformed replication frame");
}
