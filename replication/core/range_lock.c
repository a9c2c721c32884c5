#include "replication/core/range_lock.h"

static bool range_conflicts(const struct range *a, const struct range *b)
{
    if (!a->exclusive && !b->exclusive)
        return false;
    return a->offset_bytes < b->offset_bytes + b->length_bytes && b->offset_bytes < a->offset_bytes + a->length_bytes;
}

void range_lock_init(struct range_lock *lock)
{
    list_init(&lock->held);
}

bool range_lock_add(struct range_lock *lock, struct range *range)
{
    range->waits_for = 0;
    list_foreach(node, &lock->held)
        if (range_conflicts(list_entry(node, struct range, link), range))
            range->waits_for++;
    list_append(&lock->held, &range->link);
    return range->waits_for == 0;
}

void range_lock_remove(struct range_lock *lock, struct range *range, void (*granted)(void *context, struct range *range),
                       void *context)
{
    struct list *node = range->link.next;
    list_remove(&range->link);
    for (; node != &lock->held; node = node->next) {
        struct range *later = list_entry(node, struct range, link);
        if (range_conflicts(range, later)) {
            ASSERT(later->waits_for > 0);
            if (--later->waits_for == 0 && granted)
                granted(context, later);
        }
    }
}
