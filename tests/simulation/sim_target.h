/* The target of a node, the production object, on the simulated volumes: its device servers run on the mirrors, commands for other
 * owners travel over the data links, reservations are committed by the log; as agent/node/engine.c joins them. One initiator with
 * one session at each node sends READ, WRITE, COMPARE AND WRITE, and gives itself ever new reservation keys.
 *
 * What initiators see goes into the histories: blocks as any access, and the key that an initiator has registered with a volume as
 * one more register, at sim_target_key_block(): written by REGISTER AND IGNORE EXISTING KEY, read by READ KEYS (I14). */
#ifndef DIRECTOR_TESTS_SIM_TARGET_H
#define DIRECTOR_TESTS_SIM_TARGET_H

#include "tests/simulation/sim.h"

struct sim_target;

/* History block of the key that the initiator at a node has registered with a volume. */
static inline uint32_t sim_target_key_block(unsigned volume, unsigned place)
{
    return SIM_VOLUMES_MAX * SIM_BLOCKS + volume * SIM_NODES_MAX + place;
}
#define SIM_TARGET_BLOCKS (SIM_VOLUMES_MAX * SIM_NODES_MAX)

void sim_target_start(struct sim_node *node);
void sim_target_crash(struct sim_node *node);
/* Configuration, authority or mirror of a volume changed. */
void sim_target_update(struct sim_node *node, unsigned volume);
/* A request of the mirror ended. False: it is not the target's. */
bool sim_target_complete(struct sim_node *node, struct mirror_request *request, int status);
void sim_target_receive(struct sim_node *node, unsigned from, const struct peer_header *header, const uint8_t *payload);
void sim_target_link_down(struct sim_node *node, unsigned peer);
void sim_target_node_dead(struct sim_node *node, uint16_t nodeid);

/* One more command by lot at this node, when its initiator is free. */
void sim_target_turn(struct sim_node *node, unsigned volume);

/* For stories. A command of the initiator at a node; data-out is copied. Outcome: -1 not answered (yet, or the node died), else the
 * SCSI status; sense is key << 16 | ASC << 8 | ASCQ. The command is the sim's. */
struct sim_command {
    struct sim_command *next;
    int status;
    uint32_t sense, data_in_bytes;
    uint8_t data_in[512];
};
struct sim_command *sim_target_command(struct sim_node *node, unsigned volume, const uint8_t cdb[static 16], const uint8_t *data_out);
/* PERSISTENT RESERVE OUT. */
struct sim_command *sim_target_reserve_out(struct sim_node *node, unsigned volume, uint8_t action, uint8_t type, uint64_t key,
                                           uint64_t service_key);

#endif
