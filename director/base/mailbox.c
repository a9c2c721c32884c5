#include "director/base/mailbox.h"

static void mailbox_drain(struct mailbox *mailbox)
{
    struct list batch;
    list_init(&batch);
    pthread_mutex_lock(&mailbox->lock);
    list_splice(&batch, &mailbox->waiting);
    pthread_mutex_unlock(&mailbox->lock);
    while (!list_empty(&batch)) {
        struct mail *mail = list_first(&batch, struct mail, link);
        list_remove(&mail->link);
        mailbox->receive(mail, mailbox->context);
    }
}

static void mailbox_woken(uv_async_t *wake)
{
    mailbox_drain(container_of(wake, struct mailbox, wake));
}

int mailbox_init(struct mailbox *mailbox, uv_loop_t *loop, mailbox_receive *receive, void *context)
{
    list_init(&mailbox->waiting);
    mailbox->receive = receive;
    mailbox->context = context;
    mailbox->closed = NULL;
    int result = pthread_mutex_init(&mailbox->lock, NULL);
    if (result)
        return -result;
    result = uv_async_init(loop, &mailbox->wake, mailbox_woken);
    if (result < 0)
        pthread_mutex_destroy(&mailbox->lock);
    return result;
}

void mailbox_post(struct mailbox *mailbox, struct mail *mail)
{
    pthread_mutex_lock(&mailbox->lock);
    list_append(&mailbox->waiting, &mail->link);
    pthread_mutex_unlock(&mailbox->lock);
    uv_async_send(&mailbox->wake);
}

static void mailbox_handle_closed(uv_handle_t *handle)
{
    struct mailbox *mailbox = container_of((uv_async_t *)handle, struct mailbox, wake);
    pthread_mutex_destroy(&mailbox->lock);
    if (mailbox->closed)
        mailbox->closed(mailbox);
}

void mailbox_close(struct mailbox *mailbox, void (*closed)(struct mailbox *mailbox))
{
    mailbox->closed = closed;
    mailbox_drain(mailbox);
    uv_close((uv_handle_t *)&mailbox->wake, mailbox_handle_closed);
}
