// Compiled, not run: the public block and plugin contracts in a C++ program.
#include <director/plugin.h>

static int device_is_fine(const block_device *device, const block_request *request)
{
    return block_request_check(device, request);
}

int main()
{
    block_device device{};
    block_request request{};
    device.geometry.block_bytes = 4096;
    return device_is_fine(&device, &request);
}
