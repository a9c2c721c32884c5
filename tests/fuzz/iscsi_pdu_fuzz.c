/* A logged-in session (first byte: bit 0 discovery, bit 1 InitialR2T=No, bit 2 small segments), then the byte stream. The device
 * answers between pieces whose size the second byte gives. */
#include "tests/fuzz/target_fixture.h"

#define NAMES "InitiatorName=iqn.f\0TargetName=" FUZZ_IQN "\0"

static const struct {
    const char *text;
    size_t size;
} logins[8] = {
#define LOGIN(text) {text, sizeof(text) - 1}
    LOGIN(NAMES),
    LOGIN("InitiatorName=iqn.f\0SessionType=Discovery\0"),
    LOGIN(NAMES "InitialR2T=No\0FirstBurstLength=1024\0MaxOutstandingR2T=3\0"),
    LOGIN("InitiatorName=iqn.f\0SessionType=Discovery\0MaxRecvDataSegmentLength=512\0"),
    LOGIN(NAMES "MaxRecvDataSegmentLength=512\0MaxBurstLength=512\0"),
    LOGIN(NAMES "ImmediateData=No\0"),
    LOGIN(NAMES "InitialR2T=No\0MaxRecvDataSegmentLength=1024\0MaxBurstLength=2048\0"),
    LOGIN(NAMES "MaxOutstandingR2T=8\0"),
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_target fuzz;
    if (size < 2 || size > 65536)
        return 0;
    fuzz_target_open(&fuzz);
    ASSERT(fuzz_login(&fuzz, 0x87, logins[data[0] & 7].text, logins[data[0] & 7].size) == 0);
    fuzz_output(&fuzz);
    ASSERT(fuzz.connection.session_open);
    size_t step = data[1] + 1u;
    for (size_t at = 2; at < size; at += step) {
        struct iovec place;
        size_t n = MIN(step, size - at);
        int status;
        if (iscsi_connection_direct(&fuzz.connection, &place) && n <= place.iov_len) {
            memcpy(place.iov_base, data + at, n);
            status = iscsi_connection_direct_done(&fuzz.connection, n, 0);
        } else {
            status = iscsi_connection_input(&fuzz.connection, data + at, n, 0);
        }
        if (status < 0)
            break;
        if (at % 3)
            test_device_drain(&fuzz.device);
        if (at % 2)
            fuzz_output(&fuzz);
        if (!iscsi_connection_wants_input(&fuzz.connection)) {
            fuzz_output(&fuzz);
            if (!iscsi_connection_wants_input(&fuzz.connection))
                break;
        }
    }
    fuzz_target_close(&fuzz);
    return 0;
}
