/* OpenSSL sees neither sockets nor memory BIOs but a BIO of ours, which reads from the caller's input in place and appends
 * to a queue of pooled buffers: one copy less each way and nothing allocated per record.
 * Errors of OpenSSL are mapped here; nothing of it is seen above. */
#include "agent/io/peer_tls.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

#define OUTPUT_CHUNK_BYTES   65536u
#define KEY_UPDATE_RECORDS   (1u << 22) /* 64 GiB of full records: far below RFC 8446 §5.5 */
#define HANDSHAKE_MAX_INPUT  65536u     /* more before the handshake is done is no TLS peer of ours */

/* One scheme, one identity: what distinguishes nodes is said, and checked, inside (RFC 9257 §6: the identity must not
 * leak anything). */
static const char psk_identity[] = "director peer link 1";

struct peer_tls_context {
    uint8_t psk[PEER_TLS_PSK_BYTES];
    SSL_CTX *client, *server;
    BIO_METHOD *method;
};

struct peer_tls {
    struct peer_tls_context *context;
    struct peer_pool *pool;
    SSL *ssl;
    const uint8_t *input;
    size_t input_size;
    size_t handshake_input;
    struct list output; /* struct peer_buffer; size = written so far */
    size_t output_bytes;
    size_t output_sent; /* of the first buffer */
    struct peer_buffer *staged;
    uint32_t records, key_update_records;
    bool server;
    bool established;
    bool lost; /* no memory while OpenSSL wrote */
};

/* SSL_get_error() wants an empty queue. Emptying it is not free, and it nearly always is. */
static void errors_clear(void)
{
    if (ERR_peek_error())
        ERR_clear_error();
}

/* ---- the BIO ---- */

static int bio_read(BIO *bio, char *to, size_t size, size_t *ret_size)
{
    struct peer_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (tls->input_size == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    size_t take = MIN(size, tls->input_size);
    memcpy(to, tls->input, take);
    tls->input += take;
    tls->input_size -= take;
    *ret_size = take;
    return 1;
}

static int bio_write(BIO *bio, const char *from, size_t size, size_t *ret_size)
{
    struct peer_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    size_t left = size;
    while (left) {
        struct peer_buffer *tail = list_empty(&tls->output) ? NULL : list_entry(tls->output.prev, struct peer_buffer, link);
        if (!tail || tail->size == tail->capacity) {
            tail = peer_buffer_new(tls->pool, OUTPUT_CHUNK_BYTES);
            if (!tail) {
                tls->lost = true;
                return 0;
            }
            list_append(&tls->output, &tail->link);
        }
        size_t take = MIN(left, (size_t)(tail->capacity - tail->size));
        memcpy(tail->data + tail->size, from, take);
        tail->size += (uint32_t)take;
        tls->output_bytes += take;
        from += take;
        left -= take;
    }
    *ret_size = size;
    return 1;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP;
}

/* ---- the PSK ---- */

static SSL_SESSION *psk_session(SSL *ssl, const struct peer_tls_context *context)
{
    static const unsigned char aes128_gcm_sha256[] = {0x13, 0x01}; /* RFC 8446 appendix B.4 */
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes128_gcm_sha256);
    SSL_SESSION *session = SSL_SESSION_new();
    if (cipher && session && SSL_SESSION_set1_master_key(session, context->psk, sizeof(context->psk)) &&
        SSL_SESSION_set_cipher(session, cipher) && SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
        return session;
    SSL_SESSION_free(session);
    return NULL;
}

static int psk_use(SSL *ssl, const EVP_MD *digest, const unsigned char **ret_id, size_t *ret_size, SSL_SESSION **ret_session)
{
    const struct peer_tls *tls = SSL_get_app_data(ssl);
    *ret_session = NULL;
    if (digest && !EVP_MD_is_a(digest, "SHA256"))
        return 1; /* after a HelloRetryRequest for another hash: we have no such key */
    *ret_session = psk_session(ssl, tls->context);
    *ret_id = (const unsigned char *)psk_identity;
    *ret_size = sizeof(psk_identity) - 1;
    return *ret_session != NULL;
}

static int psk_find(SSL *ssl, const unsigned char *id, size_t size, SSL_SESSION **ret_session)
{
    const struct peer_tls *tls = SSL_get_app_data(ssl);
    *ret_session = NULL;
    if (size != sizeof(psk_identity) - 1 || memcmp(id, psk_identity, size))
        return 1; /* unknown: without a certificate the handshake fails */
    *ret_session = psk_session(ssl, tls->context);
    return *ret_session != NULL;
}

static SSL_CTX *ssl_context_new(bool server)
{
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (!ctx)
        return NULL;
    if (!SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) || !SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256") || !SSL_CTX_set_num_tickets(ctx, 0)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    /* psk_ke (no forward secrecy) is off unless SSL_OP_ALLOW_NO_DHE_KEX; say so in case a system-wide file turned it on. */
    SSL_CTX_clear_options(ctx, SSL_OP_ALLOW_NO_DHE_KEX);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_early_data(ctx, 0);
    SSL_CTX_set_mode(ctx, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (server) {
        SSL_CTX_set_psk_find_session_callback(ctx, psk_find);
    } else {
        SSL_CTX_set_psk_use_session_callback(ctx, psk_use);
        /* A server that offers a certificate instead of the PSK fails here: nothing is trusted. */
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    }
    return ctx;
}

int peer_tls_context_new(const uint8_t psk[static PEER_TLS_PSK_BYTES], struct peer_tls_context **ret_context,
                         struct error *error)
{
    struct peer_tls_context *context = calloc(1, sizeof(*context));
    if (!context)
        return error_set(error, -ENOMEM, "No memory for the keys of the peer links");
    memcpy(context->psk, psk, sizeof(context->psk));
    context->client = ssl_context_new(false);
    context->server = ssl_context_new(true);
    context->method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "peer link");
    if (!context->client || !context->server || !context->method ||
        !BIO_meth_set_read_ex(context->method, bio_read) || !BIO_meth_set_write_ex(context->method, bio_write) ||
        !BIO_meth_set_ctrl(context->method, bio_control)) {
        ERR_clear_error();
        peer_tls_context_free(context);
        return error_set(error, -ENOTSUP, "OpenSSL offers no TLS 1.3 with AES-128-GCM for the peer links");
    }
    *ret_context = context;
    return 0;
}

void peer_tls_context_free(struct peer_tls_context *context)
{
    if (!context)
        return;
    SSL_CTX_free(context->client);
    SSL_CTX_free(context->server);
    BIO_meth_free(context->method);
    OPENSSL_cleanse(context->psk, sizeof(context->psk));
    free(context);
}

/* ---- a connection ---- */

int peer_tls_new(struct peer_tls_context *context, struct peer_pool *pool, enum peer_tls_role role,
                 uint32_t key_update_records, struct peer_tls **ret_tls)
{
    struct peer_tls *tls = calloc(1, sizeof(*tls));
    if (!tls)
        return -ENOMEM;
    tls->context = context;
    tls->pool = pool;
    tls->server = role == PEER_TLS_SERVER;
    tls->key_update_records = key_update_records ? key_update_records : KEY_UPDATE_RECORDS;
    list_init(&tls->output);
    tls->ssl = SSL_new(tls->server ? context->server : context->client);
    BIO *bio = tls->ssl ? BIO_new(context->method) : NULL;
    if (!bio) {
        ERR_clear_error();
        peer_tls_free(tls);
        return -ENOMEM;
    }
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio); /* takes the BIO */
    SSL_set_app_data(tls->ssl, tls);
    if (tls->server)
        SSL_set_accept_state(tls->ssl);
    else
        SSL_set_connect_state(tls->ssl);
    *ret_tls = tls;
    return 0;
}

void peer_tls_free(struct peer_tls *tls)
{
    if (!tls)
        return;
    SSL_free(tls->ssl);
    peer_buffer_unref(tls->staged);
    while (!list_empty(&tls->output)) {
        struct peer_buffer *buffer = list_first(&tls->output, struct peer_buffer, link);
        list_remove(&buffer->link);
        peer_buffer_unref(buffer);
    }
    free(tls);
}

void peer_tls_input(struct peer_tls *tls, const uint8_t *bytes, size_t size)
{
    ASSERT(tls->input_size == 0);
    tls->input = bytes;
    tls->input_size = size;
    if (!tls->established)
        tls->handshake_input += size;
}

/* Words for a failed call. Which side notices that keys differ: the server, whose check of the PSK binder fails; the client
 * learns it by an alert, or by a server that has neither this PSK nor a certificate. */
static int tls_failure(struct peer_tls *tls, const char *during, struct error *error)
{
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_REASON(code);
    char text[128];
    ERR_error_string_n(code, text, sizeof(text));
    const char *cause = ERR_reason_error_string(code);
    ERR_clear_error();
    if (tls->lost)
        return error_set(error, -ENOMEM, "there is no memory for its output");
    if (!tls->established) {
        if (reason == SSL_R_BINDER_DOES_NOT_VERIFY || reason == SSL_R_NO_SHARED_CIPHER ||
            reason == SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM)
            return error_set(error, -EACCES, "it does not hold our cluster key; give it the key of this cluster, or let it be");
        if (!tls->server && reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256)
            return error_set(error, -EACCES, "it refuses our cluster key: the two nodes hold different keys");
    }
    return error_set(error, -EPROTO, "TLS failed %s: %s", during, cause ? cause : text);
}

int peer_tls_handshake(struct peer_tls *tls, struct error *error)
{
    if (tls->established)
        return 1;
    if (tls->handshake_input > HANDSHAKE_MAX_INPUT)
        return error_set(error, -EPROTO, "it sent too much before the TLS handshake was done");
    errors_clear();
    int result = SSL_do_handshake(tls->ssl);
    if (result != 1) {
        int kind = SSL_get_error(tls->ssl, result);
        if (kind == SSL_ERROR_WANT_READ)
            return 0;
        return tls_failure(tls, "in the handshake", error);
    }
    /* Both must have used the PSK: anything else has authenticated nobody. */
    if (!SSL_session_reused(tls->ssl) || SSL_version(tls->ssl) != TLS1_3_VERSION)
        return error_set(error, -EACCES, "it did not prove that it holds our cluster key");
    tls->established = true;
    return 1;
}

int peer_tls_read(struct peer_tls *tls, uint8_t *to, size_t size, struct error *error)
{
    size_t got = 0;
    errors_clear();
    int result = SSL_read_ex(tls->ssl, to, MIN(size, (size_t)INT32_MAX), &got);
    if (result == 1)
        return (int)got;
    int kind = SSL_get_error(tls->ssl, result);
    if (kind == SSL_ERROR_WANT_READ)
        return 0;
    if (kind == SSL_ERROR_ZERO_RETURN)
        return error_set(error, -ECONNRESET, "it closed the link");
    return tls_failure(tls, "while reading", error);
}

static int record_write(struct peer_tls *tls, const void *from, size_t size)
{
    size_t wrote;
    errors_clear();
    if (++tls->records >= tls->key_update_records) {
        tls->records = 0;
        if (!SSL_key_update(tls->ssl, SSL_KEY_UPDATE_NOT_REQUESTED))
            return -EPROTO;
    }
    if (SSL_write_ex(tls->ssl, from, size, &wrote) != 1) {
        ERR_clear_error();
        return tls->lost ? -ENOMEM : -EPROTO;
    }
    ASSERT(wrote == size); /* our BIO never takes less */
    return 0;
}

int peer_tls_flush(struct peer_tls *tls)
{
    struct peer_buffer *staged = tls->staged;
    if (!staged || !staged->size)
        return 0;
    int result = record_write(tls, staged->data, staged->size);
    staged->size = 0;
    peer_buffer_unref(staged);
    tls->staged = NULL;
    return result;
}

int peer_tls_write(struct peer_tls *tls, const void *from, size_t size)
{
    const uint8_t *p = from;
    ASSERT(tls->established);
    while (size) {
        uint32_t staged = tls->staged ? tls->staged->size : 0;
        if (staged == 0 && size >= PEER_TLS_RECORD_BYTES) { /* a full record straight from the caller's memory */
            int result = record_write(tls, p, PEER_TLS_RECORD_BYTES);
            if (result < 0)
                return result;
            p += PEER_TLS_RECORD_BYTES;
            size -= PEER_TLS_RECORD_BYTES;
            continue;
        }
        if (!tls->staged && !(tls->staged = peer_buffer_new(tls->pool, PEER_TLS_RECORD_BYTES)))
            return -ENOMEM;
        size_t take = MIN(size, (size_t)(PEER_TLS_RECORD_BYTES - staged));
        memcpy(tls->staged->data + staged, p, take);
        tls->staged->size += (uint32_t)take;
        p += take;
        size -= take;
        if (tls->staged->size == PEER_TLS_RECORD_BYTES) {
            int result = peer_tls_flush(tls);
            if (result < 0)
                return result;
        }
    }
    return 0;
}

unsigned peer_tls_output(struct peer_tls *tls, struct iovec *iov, unsigned count)
{
    unsigned n = 0;
    size_t skip = tls->output_sent;
    list_foreach(node, &tls->output)
    {
        if (n == count)
            break;
        struct peer_buffer *buffer = list_entry(node, struct peer_buffer, link);
        if (buffer->size > skip)
            iov[n++] = (struct iovec){buffer->data + skip, buffer->size - skip};
        skip = 0;
    }
    return n;
}

void peer_tls_output_consumed(struct peer_tls *tls, size_t size)
{
    ASSERT(size <= tls->output_bytes);
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
    return tls->output_bytes + (tls->staged ? tls->staged->size : 0);
}
