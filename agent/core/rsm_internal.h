#ifndef DIRECTOR_AGENT_CORE_RSM_INTERNAL_H
#define DIRECTOR_AGENT_CORE_RSM_INTERNAL_H

#include "agent/core/rsm.h"

struct rsm_effect *rsm_effect_add(struct rsm_effects *effects, enum rsm_effect_kind kind);

#endif
