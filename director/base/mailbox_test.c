#include "director/base/mailbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct number {
    struct mail mail;
    int value;
};
static int received, in_order = 1;

static void number_receive(struct mail *mail, void *context)
{
    struct number *number = container_of(mail, struct number, mail);
    in_order &= number->value == received;
    if (++received == 1000)
        mailbox_close(context, NULL);
}

static struct number numbers[1000];

static void sender(void *argument)
{
    for (int i = 0; i < 1000; i++) {
        numbers[i].value = i;
        list_init(&numbers[i].mail.link);
        mailbox_post(argument, &numbers[i].mail);
    }
}

static void mailbox_delivers_every_mail_in_order_across_threads(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_thread_t thread;
    struct mailbox mailbox;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(mailbox_init(&mailbox, &loop, number_receive, &mailbox), 0);
    assert_int_equal(uv_thread_create(&thread, sender, &mailbox), 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_thread_join(&thread);
    assert_int_equal(received, 1000);
    assert_true(in_order);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(mailbox_delivers_every_mail_in_order_across_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
