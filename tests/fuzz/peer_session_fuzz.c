/* A session on the peer link whose peer holds the key but says anything: TLS is done by hand, the input is the plaintext.
 * Byte 0: bit 0 our role, the rest how the plaintext is cut into records. */
#include "agent/io/peer_session.h"

#include <string.h>

static struct peer_tls_context *context;
static struct peer_pool *pool;

struct fuzz {
    struct peer_session *session;
    struct peer_tls *peer;
    bool lost;
};

static void drain(struct fuzz *fuzz)
{
    struct peer_session_event event;
    int result = 0;
    while (!fuzz->lost && (result = peer_session_next(fuzz->session, 1000, &event, NULL)) == 1) {
        if (event.kind == PEER_SESSION_INTRODUCED)
            (void)peer_session_admit(fuzz->session, 1000);
        if (event.kind == PEER_SESSION_FRAME)
            peer_buffer_unref(event.payload);
    }
    if (result < 0)
        fuzz->lost = true;
}

static bool to_session(struct fuzz *fuzz)
{
    struct iovec iov;
    bool any = false;
    while (peer_tls_output(fuzz->peer, &iov, 1)) {
        if (!fuzz->lost)
            peer_session_input(fuzz->session, iov.iov_base, iov.iov_len);
        drain(fuzz);
        peer_tls_output_consumed(fuzz->peer, iov.iov_len);
        any = true;
    }
    return any;
}

static bool to_peer(struct fuzz *fuzz)
{
    struct iovec iov;
    uint8_t discard[4096];
    bool any = false;
    while (peer_session_output(fuzz->session, &iov, 1)) {
        peer_tls_input(fuzz->peer, iov.iov_base, iov.iov_len);
        int result = peer_tls_handshake(fuzz->peer, NULL);
        while (result > 0)
            result = peer_tls_read(fuzz->peer, discard, sizeof(discard), NULL);
        ASSERT(result == 0); /* what the session says is always sound */
        peer_session_output_consumed(fuzz->session, iov.iov_len);
        any = true;
    }
    return any;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t psk[PEER_TLS_PSK_BYTES] = {1};
    const struct peer_hello hello = {.node = {{1}}, .boot = 1, .version_min = 1, .version_max = 1};
    struct fuzz fuzz = {0};
    if (size == 0)
        return 0;
    if (!context) {
        pool = peer_pool_new();
        ASSERT(pool && peer_tls_context_new(psk, &context, NULL) == 0);
    }
    bool server = data[0] & 1;
    size_t cut = (data[0] >> 1) * 7u + 1;
    struct peer_session_config config = {.tls = context, .pool = pool, .role = server ? PEER_TLS_SERVER : PEER_TLS_CLIENT,
                                         .hello = &hello, .heartbeat_us = 1000, .silence_us = 1000000, .handshake_us = 1000000,
                                         .queue_bytes = 1u << 20};
    ASSERT(peer_session_new(&config, 0, &fuzz.session) == 0);
    ASSERT(peer_tls_new(context, pool, server ? PEER_TLS_CLIENT : PEER_TLS_SERVER, 0, &fuzz.peer) == 0);
    ASSERT(peer_tls_handshake(fuzz.peer, NULL) == 0);
    drain(&fuzz);
    for (bool moved = true; moved;) {
        moved = to_session(&fuzz);
        moved = to_peer(&fuzz) || moved;
    }
    ASSERT(!fuzz.lost && peer_tls_handshake(fuzz.peer, NULL) == 1);
    data++, size--;
    while (size && !fuzz.lost) {
        size_t take = MIN(size, cut);
        ASSERT(peer_tls_write(fuzz.peer, data, take) == 0 && peer_tls_flush(fuzz.peer) == 0);
        (void)to_session(&fuzz);
        (void)to_peer(&fuzz);
        data += take;
        size -= take;
    }
    if (!fuzz.lost)
        (void)!peer_session_tick(fuzz.session, 2000, NULL);
    (void)to_peer(&fuzz);
    peer_session_free(fuzz.session);
    peer_tls_free(fuzz.peer);
    return 0;
}
