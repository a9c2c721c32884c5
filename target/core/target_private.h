/* Between target.c, target_route.c, target_function.c and target_owner.c. */
#ifndef DIRECTOR_TARGET_CORE_TARGET_PRIVATE_H
#define DIRECTOR_TARGET_CORE_TARGET_PRIVATE_H

#include "target/core/target.h"

/* The LU a session sees under a wire LUN; NULL: none. *ret_number: its number, TARGET_LUNS_MAX when malformed. */
struct target_lu *target_resolve(const struct target_session *session, uint64_t lun, unsigned *ret_number);
/* Send a frame that stays valid until done. */
int target_send(struct target *target, uint16_t to, const struct peer_header *header, const struct iovec *iov,
                unsigned iov_count, void (*done)(void *), void *argument);
/* Deadlines may have changed. */
void target_wake(struct target *target);
/* Nexus of a session at a local unit, and whether this is its first command there. */
struct scsi_nexus *target_local_nexus(struct target_lu *lu, struct target_session *session, unsigned number);
bool target_announce(struct target_session *session, unsigned number);

/* target_route.c */
/* A command of the copy manager, for a unit that need not be in the session's LUN map. */
void target_submit_to(struct target *target, struct target_task *task, struct target_lu *lu);
/* Its status is set: T1. */
void target_task_end(struct target_task *task);
void target_route_held(struct target *target, struct target_lu *lu);
void target_route_reply(struct target *target, uint16_t from, uint64_t request, const struct forward_reply *reply);
void target_route_lost(struct target *target, struct target_task *task);
void target_route_session_end(struct target *target, struct target_session *session);
void target_route_tick(struct target *target, struct target_lu *lu);
unsigned target_route_abort_held(struct target_lu *lu, const struct target_session *session, const uint64_t *tag,
                                 bool everybody);
void target_route_fail(struct target_lu *lu, uint32_t sense);

/* target_function.c */
void target_functions_state(struct target *target, struct target_lu *lu);
void target_functions_node_down(struct target *target, uint16_t nodeid);
void target_functions_session_end(struct target *target, struct target_session *session);
void target_functions_tick(struct target *target);
void target_functions_reply(struct target *target, uint16_t from, uint64_t request, uint64_t response);
void target_functions_lu_gone(struct target *target, struct target_lu *lu);

/* target_owner.c */
int target_owner_command(struct target *target, uint16_t from, const struct peer_header *header,
                         const struct forward_request *request);
int target_owner_manage(struct target *target, uint16_t from, const struct peer_header *header,
                        const struct forward_request *request);
void target_owner_done(struct target *target);

#endif
