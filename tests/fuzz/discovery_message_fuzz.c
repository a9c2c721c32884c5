/* Lines between agent and director-discovery, and TXT records from the network. First byte even: a line; odd: a TXT record as on
 * the wire (RFC 6763 §6.1: length byte, then the pair). What is taken must survive a round trip. */
#include "agent/io/discovery_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct discovery_message message, again;
    struct discovery_txt txt;
    char line[DISCOVERY_LINE_MAX + 1];
    if (!size)
        return 0;
    if (data[0] % 2 == 0) {
        if (discovery_message_decode((const char *)data + 1, size - 1, &message) < 0)
            return 0;
        int length = discovery_message_encode(&message, line);
        ASSERT(length > 0);
        ASSERT(discovery_message_decode(line, (size_t)length - 1, &again) == 0);
        ASSERT(again.verb == message.verb && discovery_peer_equal(&again.peer, &message.peer));
        return 0;
    }
    discovery_txt_init(&txt);
    for (size_t at = 1; at < size && at + 1 + data[at] <= size; at += 1u + data[at])
        if (discovery_txt_add(&txt, data + at + 1, data[at]) < 0)
            return 0;
    if (discovery_txt_finish(&txt) == 0) {
        char pairs[DISCOVERY_TXT_PAIRS][DISCOVERY_TXT_PAIR_SIZE];
        struct discovery_txt back;
        discovery_txt_format(&txt.peer, txt.tag, pairs);
        discovery_txt_init(&back);
        for (unsigned i = 0; i < DISCOVERY_TXT_PAIRS; i++)
            ASSERT(discovery_txt_add(&back, pairs[i], strlen(pairs[i])) == 0);
        ASSERT(discovery_txt_finish(&back) == 0 && discovery_peer_equal(&back.peer, &txt.peer));
    }
    return 0;
}
