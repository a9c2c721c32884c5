/* The only way two threads of the agent talk: a queue of messages that wakes the receiver's libuv loop.
 * Messages are the sender's memory until delivered, then the receiver's. Order per sender is kept. */
#ifndef DIRECTOR_BASE_MAILBOX_H
#define DIRECTOR_BASE_MAILBOX_H

#include "director/base/list.h"
#include <pthread.h>
#include <uv.h>

struct mail {
    struct list link;
};

struct mailbox;
typedef void mailbox_receive(struct mail *mail, void *context);

struct mailbox {
    uv_async_t wake;
    pthread_mutex_t lock;
    struct list waiting;
    mailbox_receive *receive;
    void *context;
    void (*closed)(struct mailbox *mailbox);
};

/* Receiver's thread. receive runs on loop for each mail. 0 or negative errno. */
MUST_CHECK int mailbox_init(struct mailbox *mailbox, uv_loop_t *loop, mailbox_receive *receive, void *context);
/* Any thread. Never blocks for longer than a list operation. Unbounded: a sender must bound what it has under way. */
void mailbox_post(struct mailbox *mailbox, struct mail *mail);
/* Receiver's thread, when nobody posts any more: delivers what waits, then closed (may be NULL) from the loop. */
void mailbox_close(struct mailbox *mailbox, void (*closed)(struct mailbox *mailbox));

#endif
