/* For benches only: the interface of agent/io/peer_tls.h without TLS, to see what TLS costs. A bench that names this source
 * is linked with it instead of peer_tls.c; no library and no program of the product contains it, so that no setting of
 * directord can reach it. It authenticates nobody. */
#include "agent/io/peer_tls.h"

#include <errno.h>
#include <string.h>

#define OUTPUT_CHUNK_BYTES 65536u

struct peer_tls_context {
    int unused;
};

struct peer_tls {
    struct peer_pool *pool;
    const uint8_t *input;
    size_t input_size;
    struct list output; /* struct peer_buffer */
    size_t output_bytes, output_sent;
};

int peer_tls_context_new(const uint8_t psk[static PEER_TLS_PSK_BYTES], struct peer_tls_context **ret_context, struct error *error)
{
    (void)psk;
    *ret_context = calloc(1, sizeof(**ret_context));
    return *ret_context ? 0 : error_set(error, -ENOMEM, "no memory");
}

void peer_tls_context_free(struct peer_tls_context *context)
{
    free(context);
}

int peer_tls_new(struct peer_tls_context *context, struct peer_pool *pool, enum peer_tls_role role, uint32_t key_update_records,
                 struct peer_tls **ret_tls)
{
    struct peer_tls *tls = calloc(1, sizeof(*tls));
    (void)context, (void)role, (void)key_update_records;
    if (!tls)
        return -ENOMEM;
    tls->pool = pool;
    list_init(&tls->output);
    *ret_tls = tls;
    return 0;
}

void peer_tls_free(struct peer_tls *tls)
{
    if (!tls)
        return;
    peer_tls_output_consumed(tls, tls->output_bytes);
    while (!list_empty(&tls->output)) {
        struct peer_buffer *buffer = list_first(&tls->output, struct peer_buffer, link);
        list_remove(&buffer->link);
        peer_buffer_unref(buffer);
    }
    free(tls);
}

void peer_tls_input(struct peer_tls *tls, const uint8_t *bytes, size_t size)
{
    tls->input = bytes;
    tls->input_size = size;
}

int peer_tls_handshake(struct peer_tls *tls, struct error *error)
{
    (void)tls, (void)error;
    return 1;
}

int peer_tls_read(struct peer_tls *tls, uint8_t *to, size_t size, struct error *error)
{
    size_t take = MIN(size, tls->input_size);
    (void)error;
    if (take)
        memcpy(to, tls->input, take);
    tls->input += take;
    tls->input_size -= take;
    return (int)take;
}

int peer_tls_write(struct peer_tls *tls, const void *from, size_t size)
{
    const uint8_t *p = from;
    while (size) {
        struct peer_buffer *tail = list_empty(&tls->output) ? NULL : list_entry(tls->output.prev, struct peer_buffer, link);
        if (!tail || tail->size == tail->capacity) {
            tail = peer_buffer_new(tls->pool, OUTPUT_CHUNK_BYTES);
            if (!tail)
                return -ENOMEM;
            list_append(&tls->output, &tail->link);
        }
        size_t take = MIN(size, (size_t)(tail->capacity - tail->size));
        memcpy(tail->data + tail->size, p, take);
        tail->size += (uint32_t)take;
        tls->output_bytes += take;
        p += take;
        size -= take;
    }
    return 0;
}

int peer_tls_flush(struct peer_tls *tls)
{
    (void)tls;
    return 0;
}

unsigned peer_tls_output(struct peer_tls *tls, struct iovec *iov, unsigned count)
{
    unsigned n = 0;
    size_t skip = tls->output_sent;
    list_foreach(node, &tls->output)
    {
        struct peer_buffer *buffer = list_entry(node, struct peer_buffer, link);
        if (n == count)
            break;
        if (buffer->size > skip)
            iov[n++] = (struct iovec){buffer->data + skip, buffer->size - skip};
        skip = 0;
    }
    return n;
}

void peer_tls_output_consumed(struct peer_tls *tls, size_t size)
{
    tls->output_bytes -= size;
    size += tls->output_sent;
    while (!list_empty(&tls->output)) {
        struct peer_buffer *buffer = list_first(&tls->output, struct peer_buffer, link);
        if (size < buffer->size)
            break;
        size -= buffer->size;
        list_remove(&buffer->link);
        peer_buffer_unref(buffer);
    }
    tls->output_sent = size;
}

size_t peer_tls_queued(const struct peer_tls *tls)
{
    return tls->output_bytes;
}
