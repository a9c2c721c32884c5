/* Effect DISK_DIGEST: read a stretch of the data device, hash it piece by piece on a worker thread.
 * Happy path: read in transfers the device takes -> hash -> DISK_DONE with the digests. When a read says that the medium is bad
 * (-EIO, -EBADMSG) everything is read again piece by piece, so that only the bad pieces count as unreadable. */
#include "replication/io/mirror_device_private.h"
#include <openssl/evp.h>

struct digest_operation {
    struct block_request request;
    uv_work_t work;
    struct mirror_device *device;
    uint64_t token, offset, length, done, step; /* bytes */
    uint32_t piece;
    bool read_only, singly;
    struct data *bytes, *digests;
    struct iovec iov;
};

static void digest_next(struct digest_operation *op);

static uint8_t *digest_of(const struct digest_operation *op, uint64_t offset)
{
    return (uint8_t *)op->digests->iov[0].iov_base + offset / op->piece * MIRROR_DIGEST_BYTES;
}

static void digest_finish(struct digest_operation *op, int status)
{
    struct mirror_device *d = op->device;
    struct mirror_event event = {.type = MIRROR_EVENT_DISK_DONE};
    event.disk.token = op->token;
    event.disk.status = status;
    event.disk.data.handle = op->digests; /* our reference goes along */
    if (op->bytes)
        data_unref(op->bytes);
    free(op);
    d->disk_busy--;
    device_run(d, true, &event);
    if (d->closing)
        device_tell(d);
}

/* On a worker thread; touches only memory of op's own. */
static void digest_work(uv_work_t *work)
{
    struct digest_operation *op = container_of(work, struct digest_operation, work);
    const uint8_t *bytes = op->bytes->iov[0].iov_base;
    uint8_t hash[EVP_MAX_MD_SIZE];
    static const uint8_t none[MIRROR_DIGEST_BYTES] = {0};
    EVP_MD *sha256 = EVP_MD_fetch(NULL, "SHA256", NULL); /* once for all pieces: looking it up costs more than one of them */
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    for (uint64_t at = 0; at < op->length; at += op->piece) {
        uint64_t size = MIN(op->piece, op->length - at);
        uint8_t *digest = digest_of(op, at);
        if (digest[0]) /* unreadable */
            continue;
        if (memory_is_zero(bytes + at, size))
            continue;
        /* Without memory for it, nothing compares equal: it is copied. */
        bool hashed = sha256 && context && EVP_DigestInit_ex2(context, sha256, NULL) && EVP_DigestUpdate(context, bytes + at, size) &&
                      EVP_DigestFinal_ex(context, hash, NULL);
        if (hashed)
            memcpy(digest, hash, MIRROR_DIGEST_BYTES);
        else
            memset(digest, 0xff, MIRROR_DIGEST_BYTES);
        if (memcmp(digest, none, MIRROR_DIGEST_BYTES) == 0)
            digest[0] = 1; /* (all zeroes means zeroes) */
    }
    EVP_MD_CTX_free(context);
    EVP_MD_free(sha256);
}

static void digest_worked(uv_work_t *work, int status)
{
    (void)status; /* never cancelled */
    digest_finish(container_of(work, struct digest_operation, work), 0);
}

static void digest_read(struct block_request *request)
{
    struct digest_operation *op = container_of(request, struct digest_operation, request);
    bool bad = request->status == -EIO || request->status == -EBADMSG;
    if (bad && !op->singly) {
        op->singly = true;
        op->done = 0;
        digest_next(op);
        return;
    }
    if (bad)
        memset(digest_of(op, op->done), 0xff, MIRROR_DIGEST_BYTES);
    else if (request->status < 0) {
        digest_finish(op, request->status);
        return;
    }
    op->done += op->step;
    if (op->done < op->length) {
        digest_next(op);
        return;
    }
    if (op->read_only || uv_queue_work(op->device->loop, &op->work, digest_work, digest_worked) < 0)
        digest_finish(op, op->read_only ? 0 : -ENOMEM);
}

static void digest_next(struct digest_operation *op)
{
    struct block_device *disk = op->device->options.data;
    uint64_t most = disk->geometry.max_transfer_bytes ? disk->geometry.max_transfer_bytes : MAX_TRANSFER;
    op->step = MIN(op->length - op->done, most);
    if (op->singly) /* to the end of the piece, or as far as one transfer goes */
        op->step = MIN(op->step, op->piece - op->done % op->piece);
    op->iov = (struct iovec){(uint8_t *)op->bytes->iov[0].iov_base + op->done, op->step};
    op->request = (struct block_request){.operation = BLOCK_READ, .offset_bytes = op->offset + op->done,
                                         .length_bytes = op->step, .iov = &op->iov, .iov_count = 1, .done = digest_read};
    block_device_submit(disk, &op->request);
}

void device_digest_start(struct mirror_device *d, const struct mirror_effect *effect)
{
    struct digest_operation *op = calloc(1, sizeof(*op));
    ASSERT(op);
    op->device = d;
    op->token = effect->disk.token;
    op->offset = effect->disk.offset_bytes;
    op->length = effect->disk.length_bytes;
    op->piece = effect->disk.piece_bytes;
    op->read_only = effect->disk.read_only;
    size_t digests = (op->length + op->piece - 1) / op->piece * MIRROR_DIGEST_BYTES;
    op->bytes = data_new(&d->pool, op->length);
    op->digests = data_new(&d->pool, digests);
    ASSERT(op->bytes && op->digests);
    memset(op->digests->iov[0].iov_base, 0, digests);
    d->disk_busy++;
    digest_next(op);
}
