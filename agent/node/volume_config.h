/* What the mirrors of a volume are told of it: the committed volume as a struct mirror_config. Pure; used by the node and by the
 * simulator. */
#ifndef DIRECTOR_AGENT_NODE_VOLUME_CONFIG_H
#define DIRECTOR_AGENT_NODE_VOLUME_CONFIG_H

#include "agent/core/tree.h"
#include "replication/core/step.h"

struct mirror_config volume_config(const struct tree_volume *volume);

#endif
