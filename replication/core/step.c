#include "replication/core/step.h"
#include <stddef.h>
#include <string.h>

#define EFFECT_FITS(member) \
    static_assert(sizeof(((struct mirror_effect *)0)->member) <= \
                      offsetof(struct mirror_effect, send.body) - offsetof(struct mirror_effect, send), "is zeroed in full")
EFFECT_FITS(disk);
EFFECT_FITS(meta);
EFFECT_FITS(complete);
EFFECT_FITS(ask_isr);

struct mirror_effect *mirror_effects_add(struct mirror_effects *effects, enum mirror_effect_type type)
{
    if (effects->count == effects->capacity) {
        unsigned capacity = effects->capacity ? effects->capacity * 2 : 32;
        effects->items = realloc(effects->items, capacity * sizeof(*effects->items));
        ASSERT(effects->items); /* grows to the high-water mark of one step, then never again */
        effects->capacity = capacity;
    }
    struct mirror_effect *effect = &effects->items[effects->count++];
    /* All but the body of a SEND, which is most of it and which its encoder writes in full. */
    memset(effect, 0, offsetof(struct mirror_effect, send.body));
    effect->type = type;
    return effect;
}

void mirror_effects_done(struct mirror_effects *effects)
{
    free(effects->items);
    memset(effects, 0, sizeof(*effects));
}
