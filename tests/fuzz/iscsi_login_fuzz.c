/* Login: the first byte is the flags of each request, 0xff bytes part the requests, the rest is text. */
#include "tests/fuzz/target_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_target fuzz;
    if (size == 0 || size > 32768)
        return 0;
    fuzz_target_open(&fuzz);
    uint8_t flags = data[0];
    const uint8_t *at = data + 1, *end = data + size;
    int status = 0;
    while (status == 0 && at < end) {
        const uint8_t *cut = memchr(at, 0xff, (size_t)(end - at));
        size_t length = (size_t)((cut ? cut : end) - at);
        status = fuzz_login(&fuzz, flags, at, length);
        fuzz_output(&fuzz);
        at = cut ? cut + 1 : end;
        if (at < end)
            flags = *at++;
    }
    fuzz_target_close(&fuzz);
    return 0;
}
