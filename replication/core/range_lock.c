#include "replication/core/range_lock.h"

static bool range_conflicts(const struct range *a, const struct range *b)
{
    if (!a->exclusive && !b->exclusive)
        return false;
    return a->offset_bytes < b->offset_bytes + b->length_bytes && b->offset_bytes < a->offset_bytes + a->length_bytes;
}

static struct list *bucket_of(struct range_lock *lock, uint64_t chunk)
{
    return &lock->buckets[(chunk ^ chunk / RANGE_LOCK_BUCKETS) % RANGE_LOCK_BUCKETS];
}

void range_lock_init(struct range_lock *lock)
{
    list_init(&lock->held);
    list_init(&lock->wide);
    for (unsigned i = 0; i < RANGE_LOCK_BUCKETS; i++)
        list_init(&lock->buckets[i]);
    lock->arrivals = 0;
}

static void count_places(const struct list *head, struct range *range)
{
    list_foreach(node, head)
        if (range_conflicts(list_entry(node, struct range_place, link)->range, range))
            range->waits_for++;
}

static void place(struct list *head, struct range *range)
{
    struct range_place *at = &range->places[range->place_count++];
    at->range = range;
    list_append(head, &at->link);
}

bool range_lock_add(struct range_lock *lock, struct range *range)
{
    uint64_t first = range->offset_bytes / RANGE_LOCK_CHUNK;
    uint64_t last = (range->offset_bytes + range->length_bytes - 1) / RANGE_LOCK_CHUNK;
    range->waits_for = 0;
    range->place_count = 0;
    range->wide = last - first > 1;
    range->arrival = ++lock->arrivals;
    if (range->wide) {
        list_foreach(node, &lock->held)
            if (range_conflicts(list_entry(node, struct range, link), range))
                range->waits_for++;
        place(&lock->wide, range);
    } else {
        count_places(&lock->wide, range);
        count_places(bucket_of(lock, first), range);
        if (last != first)
            count_places(bucket_of(lock, last), range);
        place(bucket_of(lock, first), range);
        if (last != first)
            place(bucket_of(lock, last), range);
    }
    list_append(&lock->held, &range->link);
    return range->waits_for == 0;
}

/* One reason less to wait; granted ones are collected in order of arrival. */
static void let_go(const struct range *range, struct range *later, struct list *granted)
{
    if (!range_conflicts(range, later))
        return;
    ASSERT(later->waits_for > 0);
    if (--later->waits_for > 0)
        return;
    struct list *after = granted->prev;
    while (after != granted && list_entry(after, struct range, granted)->arrival > later->arrival)
        after = after->prev;
    list_insert_before(after->next, &later->granted);
}

void range_lock_remove(struct range_lock *lock, struct range *range, void (*granted)(void *context, struct range *range),
                       void *context)
{
    struct list batch;
    list_init(&batch);
    if (range->wide) {
        for (struct list *node = range->link.next; node != &lock->held; node = node->next)
            let_go(range, list_entry(node, struct range, link), &batch);
    } else {
        list_foreach(node, &lock->wide) {
            struct range *wide = list_entry(node, struct range_place, link)->range;
            if (wide->arrival > range->arrival)
                let_go(range, wide, &batch);
        }
        uint64_t first = range->offset_bytes / RANGE_LOCK_CHUNK;
        for (unsigned i = 0; i < range->place_count; i++) {
            struct list *head = bucket_of(lock, first + i);
            for (struct list *node = range->places[i].link.next; node != head; node = node->next) {
                struct range *later = list_entry(node, struct range_place, link)->range;
                if (later != range)
                    let_go(range, later, &batch);
            }
        }
    }
    for (unsigned i = 0; i < range->place_count; i++)
        list_remove(&range->places[i].link);
    list_remove(&range->link);
    while (!list_empty(&batch)) {
        struct range *later = list_first(&batch, struct range, granted);
        list_remove(&later->granted);
        if (granted)
            granted(context, later);
    }
}
