/* Between the iscsi_*.c files. */
#ifndef DIRECTOR_TARGET_CORE_ISCSI_PRIVATE_H
#define DIRECTOR_TARGET_CORE_ISCSI_PRIVATE_H

#include "director/base/bytes.h"
#include "target/core/iscsi_connection.h"
#include <errno.h>

/* A command-numbered PDU: is it this one's turn? RFC 7143 §4.2.2.1 */
enum iscsi_turn { ISCSI_TURN_NOW, ISCSI_TURN_IGNORE, ISCSI_TURN_ERROR };
enum iscsi_turn iscsi_take_cmd_sn(struct iscsi_connection *connection);

/* Make a reply with room for data; header: opcode, final bit, data length and ITT are set. NULL: too many or no memory,
 * and the connection has failed. */
struct iscsi_control *iscsi_control_new(struct iscsi_connection *connection, enum iscsi_opcode opcode, uint32_t itt,
                                        uint32_t data_bytes);
void iscsi_control_send(struct iscsi_connection *connection, struct iscsi_control *control);
void iscsi_reject(struct iscsi_connection *connection, enum iscsi_reject_reason reason);
void iscsi_queue_item(struct iscsi_connection *connection, struct iscsi_item *item);
void iscsi_fail(struct iscsi_connection *connection);
/* Put ExpCmdSN and MaxCmdSN into a header of ours. */
void iscsi_put_window(struct iscsi_connection *connection, uint8_t *bhs);

/* iscsi_login.c */
int iscsi_login(struct iscsi_connection *connection);
/* iscsi_text_request.c and others: complete PDUs in connection->header with control_data */
int iscsi_text_request(struct iscsi_connection *connection);
int iscsi_nop_out(struct iscsi_connection *connection);
int iscsi_task_management(struct iscsi_connection *connection);
int iscsi_logout(struct iscsi_connection *connection);
void iscsi_functions_forget(struct iscsi_connection *connection);

/* iscsi_task.c. begin: the header is there, the data segment not yet; it says where the data goes. end: all is there. */
int iscsi_command_begin(struct iscsi_connection *connection);
int iscsi_command_end(struct iscsi_connection *connection);
int iscsi_data_out_begin(struct iscsi_connection *connection);
int iscsi_data_out_end(struct iscsi_connection *connection);
/* Fill a slot with the next PDU of a task. Returns whether the task has more to send now. */
bool iscsi_task_emit(struct iscsi_task *task, struct iscsi_slot *slot);
void iscsi_task_free(struct iscsi_task *task);
struct iscsi_task *iscsi_task_find(struct iscsi_connection *connection, uint32_t itt);
void iscsi_tasks_forget(struct iscsi_connection *connection);

#endif
