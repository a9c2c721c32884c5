/* Records (all of our own making, so that their times to live are ours and nothing is probed: the names are unique):
 *   _director._tcp.local PTR <uuid>._director._tcp.local     <uuid>... SRV dir-<uuid>.local port     <uuid>... TXT     dir-<uuid>.local A
 * Works beside an avahi-daemon of the host: no host name, address or reverse record of the host is published. */
#include "agent/io/discovery_mdns.h"

#include "agent/io/avahi_loop.h"

#include <arpa/inet.h>
#include <avahi-common/domain.h>
#include <avahi-common/error.h>
#include <avahi-common/malloc.h>
#include <avahi-core/core.h>
#include <avahi-core/lookup.h>
#include <avahi-core/publish.h>
#include <avahi-core/rr.h>
#include <errno.h>
#include <net/if.h>

#define SERVICE_TYPE   "_director._tcp"
#define TTL_S          60
#define FLUSH_MS       50
#define FLUSH_MAX      64
#define CACHE_ENTRIES  2048

/* One service instance on one interface and protocol; several may be one peer. */
struct found {
    bool used, reported, dirty;
    struct discovery_mdns *mdns;
    struct uuid uuid;
    AvahiIfIndex interface;
    AvahiProtocol protocol;
    AvahiSServiceResolver *resolver;
    struct discovery_peer peer;
};

struct discovery_mdns {
    struct avahi_loop avahi;
    AvahiServer *server;
    AvahiSEntryGroup *group;     /* what does not change */
    AvahiSEntryGroup *txt_group; /* reset for each update: announced at once, where AVAHI_PUBLISH_UPDATE takes seconds */
    AvahiSServiceBrowser *browser;
    AvahiIfIndex interface;
    AvahiProtocol protocol;
    char tag[DISCOVERY_TAG_SIZE];
    struct discovery_peer self;
    struct discovery_mdns_callbacks callbacks;
    void *context;
    uv_timer_t flush;
    bool announced;
    struct found found[DISCOVERY_PEERS_MAX];
};

static int avahi_map(int error)
{
    return error == AVAHI_ERR_NO_MEMORY ? -ENOMEM : error == AVAHI_ERR_NO_NETWORK ? -ENETDOWN : error < 0 ? -EIO : 0;
}

/* ---- announcing ---- */

static int record_add(struct discovery_mdns *mdns, AvahiSEntryGroup *group, AvahiRecord *record, unsigned flags)
{
    if (!record)
        return AVAHI_ERR_NO_MEMORY;
    int result = avahi_server_add(mdns->server, group, mdns->interface, mdns->protocol, flags, record);
    avahi_record_unref(record);
    return result;
}

static AvahiRecord *record_txt(const struct discovery_mdns *mdns, const char *service)
{
    char pairs[DISCOVERY_TXT_PAIRS][DISCOVERY_TXT_PAIR_SIZE];
    AvahiRecord *record = avahi_record_new_full(service, AVAHI_DNS_CLASS_IN, AVAHI_DNS_TYPE_TXT, TTL_S);
    if (!record)
        return NULL;
    discovery_txt_format(&mdns->self, mdns->tag, pairs);
    for (unsigned i = DISCOVERY_TXT_PAIRS; i--;) /* the list is built from its end */
        record->data.txt.string_list = avahi_string_list_add(record->data.txt.string_list, pairs[i]);
    return record;
}

static AvahiRecord *record_address(const struct discovery_mdns *mdns, const char *host)
{
    char text[DISCOVERY_ADDRESS_SIZE];
    AvahiAddress address;
    (void)snprintf(text, sizeof(text), "%s", mdns->self.address);
    text[strcspn(text, "%")] = '\0';
    if (!avahi_address_parse(text, AVAHI_PROTO_UNSPEC, &address))
        return NULL;
    bool v4 = address.proto == AVAHI_PROTO_INET;
    AvahiRecord *record = avahi_record_new_full(host, AVAHI_DNS_CLASS_IN, v4 ? AVAHI_DNS_TYPE_A : AVAHI_DNS_TYPE_AAAA, TTL_S);
    if (record && v4)
        record->data.a.address = address.data.ipv4;
    else if (record)
        record->data.aaaa.address = address.data.ipv6;
    return record;
}

static void group_changed(AvahiServer *server, AvahiSEntryGroup *group, AvahiEntryGroupState state, void *context)
{
    struct discovery_mdns *mdns = context;
    (void)server;
    (void)group;
    if (state == AVAHI_ENTRY_GROUP_COLLISION) /* somebody uses our uuid: two copies of one disk, or a forger */
        mdns->callbacks.failed("another host announces the uuid of this node", mdns->context);
    else if (state == AVAHI_ENTRY_GROUP_FAILURE)
        mdns->callbacks.failed("the announcement failed", mdns->context);
}

static void names(const struct discovery_mdns *mdns, char service[static AVAHI_DOMAIN_NAME_MAX], char host[static 64])
{
    char id[UUID_TEXT_SIZE];
    uuid_format(&mdns->self.uuid, id);
    (void)avahi_service_name_join(service, AVAHI_DOMAIN_NAME_MAX, id, SERVICE_TYPE, "local");
    (void)snprintf(host, 64, "dir-%s.local", id);
}

#define UNIQUE (AVAHI_PUBLISH_UNIQUE | AVAHI_PUBLISH_NO_PROBE)

/* An empty group, made or reset. NULL: no memory. */
static AvahiSEntryGroup *group_empty(struct discovery_mdns *mdns, AvahiSEntryGroup **group)
{
    if (*group)
        avahi_s_entry_group_reset(*group);
    else
        *group = avahi_s_entry_group_new(mdns->server, group_changed, mdns);
    return *group;
}

static int announce_txt(struct discovery_mdns *mdns)
{
    char service[AVAHI_DOMAIN_NAME_MAX], host[64];
    names(mdns, service, host);
    if (!group_empty(mdns, &mdns->txt_group))
        return AVAHI_ERR_NO_MEMORY;
    int result = record_add(mdns, mdns->txt_group, record_txt(mdns, service), UNIQUE);
    return result < 0 ? result : avahi_s_entry_group_commit(mdns->txt_group);
}

static int announce(struct discovery_mdns *mdns)
{
    char service[AVAHI_DOMAIN_NAME_MAX], host[64];
    names(mdns, service, host);
    if (!group_empty(mdns, &mdns->group))
        return -ENOMEM;
    AvahiRecord *pointer = avahi_record_new_full(SERVICE_TYPE ".local", AVAHI_DNS_CLASS_IN, AVAHI_DNS_TYPE_PTR, TTL_S);
    AvahiRecord *server = avahi_record_new_full(service, AVAHI_DNS_CLASS_IN, AVAHI_DNS_TYPE_SRV, TTL_S);
    if (pointer)
        pointer->data.ptr.name = avahi_strdup(service);
    if (server) {
        server->data.srv.priority = server->data.srv.weight = 0;
        server->data.srv.port = mdns->self.port;
        server->data.srv.name = avahi_strdup(host);
    }
    int address = record_add(mdns, mdns->group, record_address(mdns, host), UNIQUE);
    int srv = record_add(mdns, mdns->group, server, UNIQUE);
    int ptr = record_add(mdns, mdns->group, pointer, 0);
    int result = address < 0 ? address : srv < 0 ? srv : ptr < 0 ? ptr : avahi_s_entry_group_commit(mdns->group);
    if (result >= 0)
        result = announce_txt(mdns);
    mdns->announced = result >= 0;
    return avahi_map(result);
}

int discovery_mdns_update(struct discovery_mdns *mdns, const struct discovery_peer *self)
{
    bool moved = strcmp(self->address, mdns->self.address) != 0 || self->port != mdns->self.port;
    bool same = discovery_peer_equal(self, &mdns->self);
    if (!uuid_equal(&self->uuid, &mdns->self.uuid))
        return -EINVAL;
    mdns->self = *self;
    if (!mdns->announced || same)
        return 0; /* announced when the server runs */
    return moved ? announce(mdns) : avahi_map(announce_txt(mdns));
}

/* ---- browsing ---- */

static void flush(uv_timer_t *timer)
{
    struct discovery_mdns *mdns = timer->data;
    unsigned reported = 0;
    for (unsigned i = 0; i < DISCOVERY_PEERS_MAX; i++) {
        struct found *found = &mdns->found[i];
        if (!found->used || !found->dirty)
            continue;
        if (reported++ == FLUSH_MAX) {
            uv_timer_start(timer, flush, FLUSH_MS, 0);
            return;
        }
        found->dirty = false;
        found->reported = true;
        mdns->callbacks.peer(&found->peer, mdns->context);
    }
}

/* Address in words; IPv6 link-local ones are of use with their interface only. */
static bool address_format(const AvahiAddress *address, AvahiIfIndex interface, char to[static DISCOVERY_ADDRESS_SIZE])
{
    char text[AVAHI_ADDRESS_STR_MAX], name[IF_NAMESIZE];
    avahi_address_snprint(text, sizeof(text), address);
    bool link_local = address->proto == AVAHI_PROTO_INET6 && address->data.ipv6.address[0] == 0xfe &&
                      (address->data.ipv6.address[1] & 0xc0) == 0x80;
    if (link_local && !if_indextoname((unsigned)interface, name))
        return false;
    (void)snprintf(to, DISCOVERY_ADDRESS_SIZE, "%s%s%s", text, link_local ? "%" : "", link_local ? name : "");
    return discovery_address_valid(to);
}

static void resolved(AvahiSServiceResolver *resolver, AvahiIfIndex interface, AvahiProtocol protocol,
                     AvahiResolverEvent event, const char *name, const char *type, const char *domain, const char *host,
                     const AvahiAddress *address, uint16_t port, AvahiStringList *strings, AvahiLookupResultFlags flags,
                     void *context)
{
    struct found *found = context;
    struct discovery_mdns *mdns = found->mdns;
    struct discovery_txt txt;
    (void)resolver, (void)protocol, (void)name, (void)type, (void)domain, (void)host, (void)flags;
    if (event != AVAHI_RESOLVER_FOUND || !address || !port)
        return; /* the resolver stays and may find it yet */
    discovery_txt_init(&txt);
    for (AvahiStringList *item = strings; item; item = avahi_string_list_get_next(item))
        if (discovery_txt_add(&txt, avahi_string_list_get_text(item), avahi_string_list_get_size(item)) < 0)
            return;
    if (discovery_txt_finish(&txt) < 0 || strcmp(txt.tag, mdns->tag) != 0 || !uuid_equal(&txt.peer.uuid, &found->uuid))
        return;
    txt.peer.port = port;
    if (!address_format(address, interface, txt.peer.address) ||
        (found->reported && discovery_peer_equal(&txt.peer, &found->peer)))
        return;
    found->peer = txt.peer;
    found->dirty = true;
    if (!uv_is_active((uv_handle_t *)&mdns->flush))
        uv_timer_start(&mdns->flush, flush, 0, 0);
}

static void found_add(struct discovery_mdns *mdns, const struct uuid *uuid, AvahiIfIndex interface, AvahiProtocol protocol,
                      const char *name, const char *type, const char *domain)
{
    struct found *place = NULL;
    for (unsigned i = 0; i < DISCOVERY_PEERS_MAX; i++) {
        struct found *found = &mdns->found[i];
        if (!found->used) {
            place = place ? place : found;
        } else if (uuid_equal(&found->uuid, uuid) && found->interface == interface && found->protocol == protocol) {
            return;
        }
    }
    if (!place)
        return; /* 256 instances: more are not looked at until some are gone */
    *place = (struct found){.used = true, .mdns = mdns, .uuid = *uuid, .interface = interface, .protocol = protocol};
    place->resolver = avahi_s_service_resolver_new(mdns->server, interface, protocol, name, type, domain, protocol, 0,
                                                   resolved, place);
    if (!place->resolver)
        place->used = false;
}

static void found_remove(struct discovery_mdns *mdns, const struct uuid *uuid, AvahiIfIndex interface,
                         AvahiProtocol protocol)
{
    bool reported = false, elsewhere = false;
    for (unsigned i = 0; i < DISCOVERY_PEERS_MAX; i++) {
        struct found *found = &mdns->found[i];
        if (!found->used || !uuid_equal(&found->uuid, uuid))
            continue;
        if (found->interface == interface && found->protocol == protocol) {
            reported = found->reported;
            avahi_s_service_resolver_free(found->resolver);
            found->used = false;
        } else if (found->reported) {
            elsewhere = true;
        }
    }
    if (reported && !elsewhere)
        mdns->callbacks.gone(uuid, mdns->context);
}

static void browsed(AvahiSServiceBrowser *browser, AvahiIfIndex interface, AvahiProtocol protocol, AvahiBrowserEvent event,
                    const char *name, const char *type, const char *domain, AvahiLookupResultFlags flags, void *context)
{
    struct discovery_mdns *mdns = context;
    struct uuid uuid;
    (void)browser, (void)flags;
    if (event == AVAHI_BROWSER_FAILURE) {
        mdns->callbacks.failed("browsing failed", mdns->context);
        return;
    }
    if ((event != AVAHI_BROWSER_NEW && event != AVAHI_BROWSER_REMOVE) || uuid_parse(name, &uuid) < 0 ||
        uuid_equal(&uuid, &mdns->self.uuid))
        return;
    if (event == AVAHI_BROWSER_NEW)
        found_add(mdns, &uuid, interface, protocol, name, type, domain);
    else
        found_remove(mdns, &uuid, interface, protocol);
}

/* ---- the server ---- */

static void server_changed(AvahiServer *server, AvahiServerState state, void *context)
{
    struct discovery_mdns *mdns = context;
    mdns->server = server; /* the first call comes before avahi_server_new() returns */
    if (state == AVAHI_SERVER_RUNNING) {
        if (announce(mdns) < 0)
            mdns->callbacks.failed("the announcement failed", mdns->context);
    } else if (state == AVAHI_SERVER_FAILURE || state == AVAHI_SERVER_COLLISION) {
        mdns->callbacks.failed(avahi_strerror(avahi_server_errno(server)), mdns->context);
    }
}

int discovery_mdns_new(uv_loop_t *loop, const char *interface, const char *tag, const struct discovery_peer *self,
                       const struct discovery_mdns_callbacks *callbacks, void *context, struct discovery_mdns **ret_mdns)
{
    AvahiServerConfig config;
    char id[UUID_TEXT_SIZE], host[64];
    uint8_t binary[4];
    int error = 0;
    struct discovery_mdns *mdns = calloc(1, sizeof(*mdns));
    if (!mdns)
        return -ENOMEM;
    avahi_loop_init(&mdns->avahi, loop);
    bool v4 = inet_pton(AF_INET, self->address, binary) == 1;
    mdns->self = *self;
    mdns->callbacks = *callbacks;
    mdns->context = context;
    mdns->protocol = v4 ? AVAHI_PROTO_INET : AVAHI_PROTO_INET6;
    mdns->interface = AVAHI_IF_UNSPEC;
    (void)snprintf(mdns->tag, sizeof(mdns->tag), "%s", tag);
    (void)uv_timer_init(loop, &mdns->flush);
    mdns->flush.data = mdns;
    avahi_server_config_init(&config);
    uuid_format(&self->uuid, id);
    (void)snprintf(host, sizeof(host), "dir-%s", id);
    avahi_free(config.host_name);
    config.host_name = avahi_strdup(host);
    config.use_ipv4 = v4;
    config.use_ipv6 = !v4;
    config.publish_hinfo = config.publish_addresses = config.publish_workstation = config.publish_domain = 0;
    config.enable_wide_area = 0;
    config.n_cache_entries_max = CACHE_ENTRIES;
    if (interface && interface[0])
        config.allow_interfaces = avahi_string_list_add(config.allow_interfaces, interface);
    AvahiServer *server = avahi_server_new(&mdns->avahi.api, &config, server_changed, mdns, &error);
    avahi_server_config_free(&config);
    if (server) {
        mdns->server = server;
        mdns->browser = avahi_s_service_browser_new(server, AVAHI_IF_UNSPEC, mdns->protocol, SERVICE_TYPE, NULL, 0,
                                                    browsed, mdns);
        error = mdns->browser ? 0 : avahi_server_errno(server);
    }
    if (!server || !mdns->browser) {
        discovery_mdns_free(mdns);
        return error < 0 ? avahi_map(error) : -EIO;
    }
    *ret_mdns = mdns;
    return 0;
}

static void flush_closed(uv_handle_t *handle)
{
    free(handle->data);
}

/* Handles of Avahi point at us until libuv has closed them, which it does in no order that we could rely on. */
static void free_when_closed(uv_timer_t *timer)
{
    struct discovery_mdns *mdns = timer->data;
    if (mdns->avahi.watches || mdns->avahi.timeouts)
        uv_timer_start(timer, free_when_closed, 1, 0);
    else
        uv_close((uv_handle_t *)timer, flush_closed);
}

void discovery_mdns_free(struct discovery_mdns *mdns)
{
    for (unsigned i = 0; i < DISCOVERY_PEERS_MAX; i++)
        if (mdns->found[i].used)
            avahi_s_service_resolver_free(mdns->found[i].resolver);
    if (mdns->browser)
        avahi_s_service_browser_free(mdns->browser);
    if (mdns->server)
        avahi_server_free(mdns->server); /* says goodbye, and frees the group */
    uv_timer_start(&mdns->flush, free_when_closed, 0, 0);
}
