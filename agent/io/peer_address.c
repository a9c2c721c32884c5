#include "agent/io/peer_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>

static int port_parse(const char *text, uint16_t *ret_port)
{
    unsigned value = 0;
    if (!*text || strlen(text) > 5)
        return -EINVAL;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -EINVAL;
        value = 10 * value + (unsigned)(*text - '0');
    }
    if (value == 0 || value > UINT16_MAX)
        return -EINVAL;
    *ret_port = (uint16_t)value;
    return 0;
}

int peer_address_split(const char *text, uint16_t default_port, char ret_host[static PEER_ADDRESS_SIZE], uint16_t *ret_port)
{
    const char *host = text, *end, *port = NULL;
    if (*text == '[') { /* RFC 3986 §3.2.2: an IPv6 literal in brackets */
        host = text + 1;
        end = strchr(host, ']');
        if (!end || (end[1] && end[1] != ':'))
            return -EINVAL;
        port = end[1] ? end + 2 : NULL;
    } else {
        const char *colon = strchr(text, ':');
        if (colon && !strchr(colon + 1, ':')) {
            end = colon;
            port = colon + 1;
        } else {
            end = text + strlen(text); /* no port, or a bare IPv6 literal */
        }
    }
    if (end == host || (size_t)(end - host) >= PEER_ADDRESS_SIZE)
        return -EINVAL;
    uint16_t number = default_port;
    if (port && port_parse(port, &number) < 0)
        return -EINVAL;
    memcpy(ret_host, host, (size_t)(end - host));
    ret_host[end - host] = '\0';
    *ret_port = number;
    return 0;
}

int peer_address_numeric(const char *host, uint16_t port, struct sockaddr_storage *ret_address, socklen_t *ret_size)
{
    char service[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *list = NULL;
    (void)snprintf(service, sizeof(service), "%u", port);
    if (getaddrinfo(host, service, &hints, &list))
        return -EINVAL;
    memset(ret_address, 0, sizeof(*ret_address));
    memcpy(ret_address, list->ai_addr, list->ai_addrlen);
    *ret_size = list->ai_addrlen;
    freeaddrinfo(list);
    return 0;
}

void peer_address_format(const struct sockaddr *address, char to[static PEER_ADDRESS_SIZE])
{
    char host[INET6_ADDRSTRLEN], scope[IF_NAMESIZE];
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        (void)snprintf(to, PEER_ADDRESS_SIZE, "%s:%u", host, ntohs(in->sin_port));
        return;
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
    if (address->sa_family != AF_INET6) {
        (void)snprintf(to, PEER_ADDRESS_SIZE, "?");
    } else if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        inet_ntop(AF_INET, in6->sin6_addr.s6_addr + 12, host, sizeof(host));
        (void)snprintf(to, PEER_ADDRESS_SIZE, "%s:%u", host, ntohs(in6->sin6_port));
    } else {
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        bool scoped = in6->sin6_scope_id && if_indextoname(in6->sin6_scope_id, scope);
        (void)snprintf(to, PEER_ADDRESS_SIZE, "[%s%s%s]:%u", host, scoped ? "%" : "", scoped ? scope : "",
                       ntohs(in6->sin6_port));
    }
}
