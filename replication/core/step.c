#include "replication/core/step.h"
#include <string.h>

struct mirror_effect *mirror_effects_add(struct mirror_effects *effects, enum mirror_effect_type type)
{
    if (effects->count == effects->capacity) {
        unsigned capacity = effects->capacity ? effects->capacity * 2 : 32;
        effects->items = realloc(effects->items, capacity * sizeof(*effects->items));
        ASSERT(effects->items); /* grows to the high-water mark of one step, then never again */
        effects->capacity = capacity;
    }
    struct mirror_effect *effect = &effects->items[effects->count++];
    memset(effect, 0, sizeof(*effect));
    effect->type = type;
    return effect;
}

void mirror_effects_done(struct mirror_effects *effects)
{
    free(effects->items);
    memset(effects, 0, sizeof(*effects));
}
