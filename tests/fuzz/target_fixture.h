/* What the target's fuzzers share: a target with one thin LU on memory, made anew for every input. */
#ifndef DIRECTOR_TESTS_FUZZ_TARGET_FIXTURE_H
#define DIRECTOR_TESTS_FUZZ_TARGET_FIXTURE_H

#include "director/base/bytes.h"
#include "target/core/iscsi_connection.h"
#include "target/core/test_device.h"

#define FUZZ_IQN "iqn.2026-01.org.director:fuzz"

struct fuzz_target {
    struct target target;
    struct iscsi_environment environment;
    struct iscsi_connection connection;
    struct test_device device;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void fuzz_changed(struct iscsi_connection *connection)
{
    (void)connection;
}

static inline void fuzz_target_open(struct fuzz_target *fuzz)
{
    struct target_lu_identity identity = {
        .volume_id = 1, .uuid = {{1}}, .size_bytes = TEST_DEVICE_BYTES, .block_bytes = 512, .thin = true, .removable = true};
    memset(&fuzz->connection, 0, sizeof(fuzz->connection));
    target_init(&fuzz->target, 1, 16u << 20, 20000, 0);
    test_device_init(&fuzz->device, BLOCK_CAP_WRITE_ZEROES);
    ASSERT(target_put_lu(&fuzz->target, &identity) == 0);
    ASSERT(target_put_iqn(&fuzz->target, FUZZ_IQN) == 0);
    ASSERT(target_set_lun(&fuzz->target, FUZZ_IQN, 0, 1) == 0);
    ASSERT(target_set_lu_state(&fuzz->target, 1, TARGET_LU_ACTIVE, 1, 1, &fuzz->device.device) == 0);
    iscsi_environment_init(&fuzz->environment, &fuzz->target);
    iscsi_connection_init(&fuzz->connection, &fuzz->environment, 0);
    fuzz->connection.changed = fuzz_changed;
}

/* Take all output, as a reader in pieces of 999 bytes. */
static inline void fuzz_output(struct fuzz_target *fuzz)
{
    struct iovec iov[3 * ISCSI_SLOTS];
    unsigned count;
    while ((count = iscsi_connection_output(&fuzz->connection, iov, ARRAY_SIZE(iov))) > 0) {
        size_t sum = 0;
        for (unsigned i = 0; i < count; i++)
            sum += iov[i].iov_len;
        iscsi_connection_sent(&fuzz->connection, MIN(sum, 999));
    }
}

static inline void fuzz_target_close(struct fuzz_target *fuzz)
{
    iscsi_connection_done(&fuzz->connection);
    test_device_drain(&fuzz->device);
    iscsi_environment_done(&fuzz->environment);
    target_done(&fuzz->target); /* asserts that no task and no buffer is lost */
}

/* One login request; flags are byte 1 of its header. */
static inline int fuzz_login(struct fuzz_target *fuzz, uint8_t flags, const void *text, size_t size)
{
    uint8_t bhs[48] = {0x43, flags}, pad[4] = {0};
    put_be24(bhs + 5, (uint32_t)size);
    put_be32(bhs + 24, 100);
    int status = iscsi_connection_input(&fuzz->connection, bhs, 48, 0);
    if (status == 0 && size)
        status = iscsi_connection_input(&fuzz->connection, text, size, 0);
    if (status == 0 && size % 4)
        status = iscsi_connection_input(&fuzz->connection, pad, 4 - size % 4, 0);
    return status;
}

#endif
