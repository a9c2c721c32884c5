#include "replication/io/mirror_pulse.h"
#include "replication/io/mirror_device_private.h"

static struct mirror_pulse *pulse_of(struct mirror_pulses *pulses, uint16_t nodeid)
{
    for (unsigned i = 0; i < pulses->count; i++)
        if (pulses->nodes[i].nodeid == nodeid)
            return &pulses->nodes[i];
    if (pulses->count == pulses->capacity) {
        unsigned capacity = pulses->capacity ? pulses->capacity * 2 : 8;
        pulses->nodes = realloc(pulses->nodes, capacity * sizeof(*pulses->nodes));
        ASSERT(pulses->nodes); /* one for each node ever met: N3 */
        pulses->capacity = capacity;
    }
    pulses->nodes[pulses->count] = (struct mirror_pulse){.nodeid = nodeid};
    return &pulses->nodes[pulses->count++];
}

struct mirror_pulses *mirror_pulses_new(void)
{
    struct mirror_pulses *pulses = calloc(1, sizeof(*pulses));
    if (pulses)
        list_init(&pulses->busy);
    return pulses;
}

void mirror_pulses_free(struct mirror_pulses *pulses)
{
    if (!pulses)
        return;
    ASSERT(list_empty(&pulses->busy));
    free(pulses->nodes);
    free(pulses);
}

void mirror_pulses_answered(struct mirror_pulses *pulses, uint16_t nodeid, uint64_t sent_us)
{
    struct mirror_pulse *pulse = pulse_of(pulses, nodeid);
    pulse->answered_us = MAX(pulse->answered_us, sent_us);
    pulse->answered_change = ++pulses->changes;
    list_foreach_safe(node, after, &pulses->busy) /* N2 */
        device_pulse(list_entry(node, struct mirror_device, busy));
}

void mirror_pulses_answered_by_us(struct mirror_pulses *pulses, uint16_t nodeid, uint64_t answered_us)
{
    struct mirror_pulse *pulse = pulse_of(pulses, nodeid);
    pulse->answered_by_us_us = MAX(pulse->answered_by_us_us, answered_us);
    pulse->answered_by_us_change = ++pulses->changes;
}
