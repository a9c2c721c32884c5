#include "agent/io/discovery_message.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>

/* The same keys in both codecs; bit positions in `seen`. */
enum field { FIELD_TAG, FIELD_ID, FIELD_ADDRESS, FIELD_PORT, FIELD_BOOT, FIELD_FORMED, FIELD_CLUSTER, FIELD_NODES,
             FIELD_VERSION, FIELD_COUNT };
#define BIT(field) (1u << (field))
#define NODES_MAX  65535u

static const char *const line_keys[FIELD_COUNT] = {[FIELD_TAG] = "tag",       [FIELD_ID] = "id",
                                                   [FIELD_ADDRESS] = "address", [FIELD_PORT] = "port",
                                                   [FIELD_BOOT] = "boot",     [FIELD_FORMED] = "formed",
                                                   [FIELD_CLUSTER] = "cluster", [FIELD_NODES] = "nodes"};
static const char *const txt_keys[FIELD_COUNT] = {[FIELD_TAG] = "cl",   [FIELD_ID] = "id",     [FIELD_BOOT] = "be",
                                                  [FIELD_FORMED] = "st", [FIELD_CLUSTER] = "cu", [FIELD_NODES] = "n",
                                                  [FIELD_VERSION] = "v"};
#define PEER_FIELDS (BIT(FIELD_ID) | BIT(FIELD_ADDRESS) | BIT(FIELD_PORT) | BIT(FIELD_BOOT) | BIT(FIELD_FORMED) | \
                     BIT(FIELD_CLUSTER) | BIT(FIELD_NODES))
#define TXT_FIELDS  (BIT(FIELD_TAG) | BIT(FIELD_ID) | BIT(FIELD_BOOT) | BIT(FIELD_FORMED) | BIT(FIELD_CLUSTER) | \
                     BIT(FIELD_NODES) | BIT(FIELD_VERSION))

bool discovery_address_valid(const char *address)
{
    uint8_t binary[16];
    char host[DISCOVERY_ADDRESS_SIZE];
    size_t length = strnlen(address, DISCOVERY_ADDRESS_SIZE);
    if (!length || length == DISCOVERY_ADDRESS_SIZE)
        return false;
    if (inet_pton(AF_INET, address, binary) == 1)
        return true;
    const char *scope = strchr(address, '%');
    size_t host_length = scope ? (size_t)(scope - address) : length;
    memcpy(host, address, host_length);
    host[host_length] = '\0';
    if (inet_pton(AF_INET6, host, binary) != 1)
        return false;
    if (!scope)
        return true;
    size_t scope_length = strlen(scope + 1);
    if (!scope_length || scope_length > 15) /* IFNAMSIZ with its NUL is 16 */
        return false;
    for (const char *p = scope + 1; *p; p++)
        if (*p <= ' ' || *p > '~' || *p == '%' || *p == '=')
            return false;
    return true;
}

bool discovery_peer_equal(const struct discovery_peer *a, const struct discovery_peer *b)
{
    return uuid_equal(&a->uuid, &b->uuid) && strcmp(a->address, b->address) == 0 && a->port == b->port &&
           a->boot == b->boot && a->formed == b->formed && uuid_equal(&a->cluster, &b->cluster) &&
           a->node_count == b->node_count;
}

static bool tag_valid(const char *tag)
{
    return strspn(tag, "0123456789abcdef") == DISCOVERY_TAG_SIZE - 1 && !tag[DISCOVERY_TAG_SIZE - 1];
}

/* Decimal without sign or leading zeros, at most limit. */
static bool number_parse(const char *text, uint32_t limit, uint32_t *ret_value)
{
    uint32_t value = 0;
    if (!*text || (text[0] == '0' && text[1]))
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        value = value * 10 + (uint32_t)(*text - '0');
        if (value > limit)
            return false;
    }
    *ret_value = value;
    return true;
}

static bool boot_parse(const char *text, uint64_t *ret_value)
{
    if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return false;
    *ret_value = strtoull(text, NULL, 16);
    return true;
}

static bool field_parse(enum field field, const char *value, char tag[static DISCOVERY_TAG_SIZE],
                        struct discovery_peer *peer, uint32_t *version)
{
    uint32_t number;
    switch (field) {
    case FIELD_TAG:
        if (strlen(value) != DISCOVERY_TAG_SIZE - 1 || !tag_valid(value))
            return false;
        memcpy(tag, value, DISCOVERY_TAG_SIZE);
        return true;
    case FIELD_ID:
        return uuid_parse(value, &peer->uuid) == 0 && !uuid_is_zero(&peer->uuid);
    case FIELD_ADDRESS:
        if (!discovery_address_valid(value))
            return false;
        memcpy(peer->address, value, strlen(value) + 1);
        return true;
    case FIELD_PORT:
        if (!number_parse(value, 65535, &number) || !number)
            return false;
        peer->port = (uint16_t)number;
        return true;
    case FIELD_BOOT:
        return boot_parse(value, &peer->boot);
    case FIELD_FORMED:
        if ((value[0] != '0' && value[0] != '1') || value[1])
            return false;
        peer->formed = value[0] == '1';
        return true;
    case FIELD_CLUSTER:
        return uuid_parse(value, &peer->cluster) == 0;
    case FIELD_NODES:
        return number_parse(value, NODES_MAX, &peer->node_count);
    case FIELD_VERSION:
        return version && number_parse(value, 1000000, version);
    case FIELD_COUNT:
        break;
    }
    return false;
}

/* Fields that fit each other: a formed node names its cluster, one that is not has none. */
static bool peer_consistent(const struct discovery_peer *peer)
{
    return peer->formed ? !uuid_is_zero(&peer->cluster) && peer->node_count
                        : uuid_is_zero(&peer->cluster) && !peer->node_count;
}

static enum field key_find(const char *const keys[static FIELD_COUNT], const char *key, size_t length)
{
    for (enum field field = 0; field < FIELD_COUNT; field++)
        if (keys[field] && strlen(keys[field]) == length && memcmp(keys[field], key, length) == 0)
            return field;
    return FIELD_COUNT;
}

int discovery_message_encode(const struct discovery_message *message, char line[static DISCOVERY_LINE_MAX + 1])
{
    const struct discovery_peer *peer = &message->peer;
    char id[UUID_TEXT_SIZE], cluster[UUID_TEXT_SIZE], tag[DISCOVERY_TAG_SIZE + 5] = "";
    int length;
    uuid_format(&peer->uuid, id);
    uuid_format(&peer->cluster, cluster);
    if (uuid_is_zero(&peer->uuid))
        return -EINVAL;
    if (message->verb == DISCOVERY_GONE)
        return snprintf(line, DISCOVERY_LINE_MAX + 1, "gone id=%s\n", id);
    if (!discovery_address_valid(peer->address) || !peer->port || !peer_consistent(peer) || peer->node_count > NODES_MAX)
        return -EINVAL;
    if (message->verb == DISCOVERY_SELF) {
        if (!tag_valid(message->tag))
            return -EINVAL;
        (void)snprintf(tag, sizeof(tag), " tag=%s", message->tag);
    }
    length = snprintf(line, DISCOVERY_LINE_MAX + 1,
                      "%s%s id=%s address=%s port=%u boot=%016" PRIx64 " formed=%d cluster=%s nodes=%u\n",
                      message->verb == DISCOVERY_SELF ? "self" : "peer", tag, id, peer->address, peer->port, peer->boot,
                      peer->formed, cluster, peer->node_count);
    ASSERT(length <= DISCOVERY_LINE_MAX);
    return length;
}

int discovery_message_decode(const char *line, size_t length, struct discovery_message *ret_message)
{
    static const struct {
        const char *name;
        unsigned fields;
    } verbs[] = {[DISCOVERY_SELF] = {"self", PEER_FIELDS | BIT(FIELD_TAG)},
                 [DISCOVERY_PEER] = {"peer", PEER_FIELDS},
                 [DISCOVERY_GONE] = {"gone", BIT(FIELD_ID)}};
    struct discovery_message message = {0};
    char copy[DISCOVERY_LINE_MAX + 1], *save = NULL;
    unsigned seen = 0, verb;
    if (length > DISCOVERY_LINE_MAX)
        return -EPROTO;
    for (size_t i = 0; i < length; i++)
        if (line[i] < ' ' || line[i] > '~')
            return -EPROTO;
    memcpy(copy, line, length);
    copy[length] = '\0';
    char *word = strtok_r(copy, " ", &save);
    for (verb = 0; verb < ARRAY_SIZE(verbs); verb++)
        if (word && strcmp(word, verbs[verb].name) == 0)
            break;
    if (verb == ARRAY_SIZE(verbs))
        return -EPROTO;
    while ((word = strtok_r(NULL, " ", &save))) {
        char *equals = strchr(word, '=');
        enum field field = equals ? key_find(line_keys, word, (size_t)(equals - word)) : FIELD_COUNT;
        if (field == FIELD_COUNT || (seen & BIT(field)) || !(verbs[verb].fields & BIT(field)) ||
            !field_parse(field, equals + 1, message.tag, &message.peer, NULL))
            return -EPROTO;
        seen |= BIT(field);
    }
    if (seen != verbs[verb].fields || (verb != DISCOVERY_GONE && !peer_consistent(&message.peer)))
        return -EPROTO;
    message.verb = verb;
    *ret_message = message;
    return 0;
}

void discovery_txt_init(struct discovery_txt *txt)
{
    memset(txt, 0, sizeof(*txt));
}

int discovery_txt_add(struct discovery_txt *txt, const void *pair, size_t size)
{
    char value[DISCOVERY_TXT_PAIR_SIZE];
    const char *equals = memchr(pair, '=', size);
    if (!equals)
        return 0; /* RFC 6763 §6.4: a key without a value; none of ours */
    size_t key_size = (size_t)(equals - (const char *)pair);
    size_t value_size = size - key_size - 1;
    enum field field = key_find(txt_keys, pair, key_size);
    if (field == FIELD_COUNT)
        return 0;
    if ((txt->seen & BIT(field)) || value_size >= sizeof(value) || memchr(equals + 1, '\0', value_size))
        return -EPROTO;
    memcpy(value, equals + 1, value_size);
    value[value_size] = '\0';
    if (!field_parse(field, value, txt->tag, &txt->peer, &txt->version))
        return -EPROTO;
    txt->seen |= BIT(field);
    return 0;
}

int discovery_txt_finish(const struct discovery_txt *txt)
{
    if (!(txt->seen & BIT(FIELD_VERSION)))
        return -EPROTO;
    if (txt->version != DISCOVERY_TXT_VERSION)
        return -EPROTONOSUPPORT;
    return txt->seen == TXT_FIELDS && peer_consistent(&txt->peer) ? 0 : -EPROTO;
}

void discovery_txt_format(const struct discovery_peer *peer, const char *tag,
                          char pairs[static DISCOVERY_TXT_PAIRS][DISCOVERY_TXT_PAIR_SIZE])
{
    char id[UUID_TEXT_SIZE], cluster[UUID_TEXT_SIZE];
    uuid_format(&peer->uuid, id);
    uuid_format(&peer->cluster, cluster);
    (void)snprintf(pairs[0], DISCOVERY_TXT_PAIR_SIZE, "v=%u", DISCOVERY_TXT_VERSION); /* RFC 6763 §6.7: version first */
    (void)snprintf(pairs[1], DISCOVERY_TXT_PAIR_SIZE, "id=%s", id);
    (void)snprintf(pairs[2], DISCOVERY_TXT_PAIR_SIZE, "cl=%.32s", tag);
    (void)snprintf(pairs[3], DISCOVERY_TXT_PAIR_SIZE, "st=%d", peer->formed);
    (void)snprintf(pairs[4], DISCOVERY_TXT_PAIR_SIZE, "cu=%s", cluster);
    (void)snprintf(pairs[5], DISCOVERY_TXT_PAIR_SIZE, "be=%016" PRIx64, peer->boot);
    (void)snprintf(pairs[6], DISCOVERY_TXT_PAIR_SIZE, "n=%u", peer->node_count);
}
