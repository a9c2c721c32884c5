/* Verified reads (I7, scenario 7). A lease is a statement about clocks; a hypervisor that stops a whole node stops its clock
 * too, and what it answers when it goes on may be of the past. With policy.verified_reads a read is answered when every other
 * counted member has said, to a question sent after the data was fetched, that it is still bound by our epoch.
 *
 * Why that is enough: a newer owner comes from the committed in-sync set, which the counted members contain (I8), and is not
 * ourselves; its own replica is sealed to the newer epoch before it serves (I2), and a sealed one does not confirm. So when that
 * member answered, nobody else had served yet; the data fetched before is what any reader would have got at that moment. A
 * member that leaves by a committed configuration need not be asked any more: who was not made owner before, cannot be after.
 *
 * One question serves all reads fetched before it was sent; one is under way at a time, those fetched meanwhile share the next. */
#include "replication/core/mirror_internal.h"

static void confirm_send(struct mirror *m, unsigned k)
{
    struct mirror_message message = {.type = MIRROR_CONFIRM, .request = m->confirm_asked};
    mirror_send(m, k, &message, (struct mirror_data){0}, 0);
}

/* The newest question that all who count have answered. */
static uint64_t confirmed(const struct mirror *m)
{
    uint64_t least = UINT64_MAX; /* alone: nobody else can be owner */
    uint8_t counted = counted_mask(m);
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (counted >> k & 1 && (int)k != m->self)
            least = MIN(least, m->members[k].confirmed);
    return least;
}

/* Data of op is there: the number of the question whose answer it waits for. */
void mirror_confirm_want(struct mirror *m, struct mirror_op *op)
{
    op->confirm = m->confirm_asked + 1;
    if (mirror_bug(m, MIRROR_BUG_OLD_CONFIRM))
        op->confirm = m->confirm_asked;
    m->confirm_wanted = MAX(m->confirm_wanted, op->confirm);
}

bool mirror_confirmed(const struct mirror *m, const struct mirror_op *op)
{
    return mirror_bug(m, MIRROR_BUG_NO_CONFIRM) || confirmed(m) >= op->confirm;
}

/* At the end of each step: ask what is wanted, once for all. */
void mirror_confirm_ask(struct mirror *m)
{
    if (m->state != MIRROR_SERVING || m->confirm_wanted <= m->confirm_asked || confirmed(m) < m->confirm_asked)
        return;
    uint8_t counted = counted_mask(m);
    m->confirm_asked++;
    for (unsigned k = 0; k < m->config.replica_count; k++)
        if (counted >> k & 1 && (int)k != m->self && member_attached(&m->members[k]))
            confirm_send(m, k);
}

/* A member attached, or is counted from now on: what is asked is asked of it too. */
void mirror_confirm_again(struct mirror *m, unsigned k)
{
    if ((int)k != m->self && counted_mask(m) >> k & 1 && member_attached(&m->members[k]) &&
        m->members[k].confirmed < m->confirm_asked)
        confirm_send(m, k);
}

void mirror_confirm_reply(struct mirror *m, unsigned k, const struct mirror_message *message)
{
    if (message->request <= m->confirm_asked)
        m->members[k].confirmed = MAX(m->members[k].confirmed, message->request);
    mirror_check_readers(m);
}
