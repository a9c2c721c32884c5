#include "agent/io/peer_hello.h"

#include <errno.h>
#include <proto/director.pb-c.h>

size_t peer_hello_encode(const struct peer_hello *hello, uint8_t to[static PEER_HELLO_MAX_BYTES])
{
    static_assert(PEER_NAME_SIZE + PEER_ADDRESS_SIZE + PEER_SOFTWARE_SIZE + 256 < PEER_HELLO_MAX_BYTES, "always fits");
    Director__PeerHello message = DIRECTOR__PEER_HELLO__INIT;
    if (!uuid_is_zero(&hello->cluster)) {
        message.cluster_uuid.data = (uint8_t *)hello->cluster.bytes;
        message.cluster_uuid.len = sizeof(hello->cluster.bytes);
    }
    message.node_uuid.data = (uint8_t *)hello->node.bytes;
    message.node_uuid.len = sizeof(hello->node.bytes);
    message.nodeid = hello->nodeid;
    message.boot = hello->boot;
    message.channel = hello->channel;
    message.version_min = hello->version_min;
    message.version_max = hello->version_max;
    message.name = (char *)hello->name;
    message.address = (char *)hello->address;
    message.node_count = hello->node_count;
    message.pristine = hello->pristine;
    message.quorate = hello->quorate;
    message.software = (char *)hello->software;
    return director__peer_hello__pack(&message, to);
}

/* Texts of peers end in logs and on terminals: printable ASCII only. */
static int text_copy(const char *from, char *to, size_t size)
{
    size_t length = strlen(from);
    if (length >= size)
        return -EPROTO;
    for (size_t i = 0; i < length; i++)
        if (from[i] < ' ' || from[i] > '~')
            return -EPROTO;
    memcpy(to, from, length + 1);
    return 0;
}

static int uuid_copy(const ProtobufCBinaryData *from, struct uuid *to)
{
    if (from->len != sizeof(to->bytes))
        return -EPROTO;
    memcpy(to->bytes, from->data, sizeof(to->bytes));
    return 0;
}

static int hello_convert(const Director__PeerHello *message, struct peer_hello *hello, struct error *error)
{
    if (message->cluster_uuid.len && uuid_copy(&message->cluster_uuid, &hello->cluster) < 0)
        return error_set(error, -EPROTO, "its cluster uuid is not 16 bytes long");
    if (uuid_copy(&message->node_uuid, &hello->node) < 0 || uuid_is_zero(&hello->node))
        return error_set(error, -EPROTO, "its hello names no node uuid");
    if (message->nodeid > UINT16_MAX)
        return error_set(error, -EPROTO, "its nodeid %u is beyond 65535", message->nodeid);
    if (message->version_min > message->version_max)
        return error_set(error, -EPROTO, "its versions %u..%u are upside down", message->version_min, message->version_max);
    if (text_copy(message->name, hello->name, sizeof(hello->name)) < 0 ||
        text_copy(message->address, hello->address, sizeof(hello->address)) < 0 ||
        text_copy(message->software, hello->software, sizeof(hello->software)) < 0)
        return error_set(error, -EPROTO, "its hello has a text that is too long or not printable");
    hello->nodeid = (uint16_t)message->nodeid;
    hello->boot = message->boot;
    hello->channel = message->channel;
    hello->version_min = message->version_min;
    hello->version_max = message->version_max;
    hello->node_count = message->node_count;
    hello->pristine = message->pristine;
    hello->quorate = message->quorate;
    return 0;
}

int peer_hello_decode(const void *bytes, size_t size, struct peer_hello *ret_hello, struct error *error)
{
    if (size > PEER_HELLO_MAX_BYTES)
        return error_set(error, -EPROTO, "its hello is %zu bytes long", size);
    Director__PeerHello *message = director__peer_hello__unpack(NULL, size, bytes);
    if (!message)
        return error_set(error, -EPROTO, "its hello cannot be decoded");
    struct peer_hello hello = {0};
    int result = hello_convert(message, &hello, error);
    director__peer_hello__free_unpacked(message, NULL);
    if (result == 0)
        *ret_hello = hello;
    return result;
}
