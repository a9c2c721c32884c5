/* Frames of the peer link to an owner and to a node that waits for replies: type, two bytes payload length, payload; repeated.
 * Bit 7 of the type byte leaves the device busy. */
#include "tests/fuzz/target_fixture.h"

static int send_frame(void *context, uint16_t nodeid, const struct peer_header *header, const struct iovec *iov,
                      unsigned iov_count, void (*done)(void *), void *argument)
{
    static volatile uint8_t sink;
    (void)context;
    (void)nodeid;
    (void)header;
    for (unsigned i = 0; i < iov_count; i++)
        for (size_t k = 0; k < iov[i].iov_len; k += 64)
            sink = sink ^ ((const uint8_t *)iov[i].iov_base)[k];
    (void)sink;
    done(argument);
    return 0;
}

static const struct target_forward_operations operations = {send_frame};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_target fuzz;
    struct scsi_reservations reservations = {0};
    if (size > 65536)
        return 0;
    fuzz_target_open(&fuzz);
    fuzz.target.forward = &operations;
    if (scsi_reservations_decode(&reservations, data, (uint32_t)size) == 0)
        scsi_reservations_done(&reservations);
    while (size >= 3) {
        uint32_t bytes = MIN(get_be16(data + 1), (uint32_t)(size - 3));
        struct peer_header header = {.type = (uint16_t)(PEER_SCSI_FIRST + (data[0] & 15)),
                                     .payload_bytes = bytes,
                                     .request = data[0] >> 4 & 3,
                                     .object = 1,
                                     .epoch = 1,
                                     .argument = 2ull << 48 | (data[0] >> 5 & 1)};
        (void)target_forward_receive(&fuzz.target, 2, &header, data + 3);
        if (!(data[0] & 0x80) || fuzz.device.count > 100)
            test_device_drain(&fuzz.device);
        data += 3 + bytes;
        size -= 3 + bytes;
    }
    test_device_drain(&fuzz.device);
    target_node_dead(&fuzz.target, 2);
    fuzz_target_close(&fuzz);
    return 0;
}
