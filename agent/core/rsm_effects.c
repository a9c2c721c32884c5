#include "agent/core/rsm_internal.h"

void rsm_effects_clear(struct rsm_effects *effects)
{
    for (size_t i = 0; i < effects->count; i++)
        free(effects->items[i].data);
    effects->count = 0;
}

void rsm_effects_done(struct rsm_effects *effects)
{
    rsm_effects_clear(effects);
    free(effects->items);
    *effects = (struct rsm_effects){0};
}

struct rsm_effect *rsm_effect_add(struct rsm_effects *effects, enum rsm_effect_kind kind)
{
    if (effects->count == effects->capacity) {
        effects->capacity = effects->capacity ? effects->capacity * 2 : 16;
        effects->items = realloc(effects->items, effects->capacity * sizeof(*effects->items));
        ASSERT(effects->items);
    }
    struct rsm_effect *effect = &effects->items[effects->count++];
    *effect = (struct rsm_effect){.kind = kind};
    return effect;
}

struct rsm_effect *rsm_effect_add_bytes(struct rsm_effects *effects, enum rsm_effect_kind kind, const void *data, size_t size)
{
    struct rsm_effect *effect = rsm_effect_add(effects, kind);
    effect->data = rsm_allocate(size);
    if (size)
        memcpy(effect->data, data, size);
    effect->size = size;
    return effect;
}
