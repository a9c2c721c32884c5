/* Wing and Gong's search ("Testing and Verifying Concurrent Objects", 1993) with Lowe's memory of what was tried ("Testing for
 * Linearizability", 2017): a configuration is the set of accesses already put in order and the block's value then.
 *
 * Calls and returns stand in a list by time. The first call that the block could have answered so is taken out with its
 * return and the search goes on from the front; a return that is met before its call was taken out means that the order so far
 * is wrong: the last one taken is put back and the next is tried. */
#include "tests/simulation/sim_history.h"

#include <string.h>

#define STATES_MAX 400000u

struct mark { /* a call or a return in the list */
    struct mark *previous, *next, *back; /* back: of a call its return, NULL when it never came */
    struct sim_access *access;           /* of a call; NULL: a return */
    uint64_t at, name;
};

struct taken {
    struct mark *call;
    uint32_t value;
};

struct states { /* 64-bit names of configurations: a set */
    uint64_t *names;
    size_t count, capacity;
};

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* False: it was there. */
static bool states_add(struct states *states, uint64_t name)
{
    if (states->count * 2 >= states->capacity) {
        struct states larger = {.capacity = MAX(states->capacity * 2, 256u)};
        larger.names = calloc(larger.capacity, sizeof(uint64_t));
        ASSERT(larger.names);
        for (size_t i = 0; i < states->capacity; i++)
            if (states->names[i])
                (void)states_add(&larger, states->names[i]);
        free(states->names);
        *states = larger;
    }
    size_t at = name & (states->capacity - 1);
    for (; states->names[at]; at = (at + 1) & (states->capacity - 1))
        if (states->names[at] == name)
            return false;
    states->names[at] = name;
    states->count++;
    return true;
}

static bool possible(const struct sim_access *access, uint32_t value, uint32_t *ret_after)
{
    *ret_after = value;
    switch (access->kind) {
    case SIM_ACCESS_READ:
        return access->tag == value;
    case SIM_ACCESS_WRITE:
        *ret_after = access->tag;
        return true;
    case SIM_ACCESS_COMPARE:
        *ret_after = access->tag;
        return access->expected == value;
    case SIM_ACCESS_DIFFERS:
        return access->expected != value;
    }
    return false;
}

static void unlink_mark(struct mark *mark)
{
    mark->previous->next = mark->next;
    if (mark->next)
        mark->next->previous = mark->previous;
}

static void relink_mark(struct mark *mark)
{
    mark->previous->next = mark;
    if (mark->next)
        mark->next->previous = mark;
}

/* Did anybody see this value, or could somebody have been refused because of it? If not, an access without an answer that
 * would have made it may be taken never to have happened. */
static bool matters(const struct sim_access *accesses, size_t count, const struct sim_access *lost)
{
    for (size_t i = 0; i < count; i++) {
        const struct sim_access *a = &accesses[i];
        if (a != lost && ((a->kind == SIM_ACCESS_READ && a->tag == lost->tag) ||
                          (a->kind == SIM_ACCESS_COMPARE && a->expected == lost->tag) ||
                          (a->kind == SIM_ACCESS_DIFFERS && a->end > lost->start)))
            return true;
    }
    return false;
}

static int by_time(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return (x->access == NULL) - (y->access == NULL); /* at one moment: calls first, so they overlap */
}

static size_t shorten(struct sim_access *accesses, size_t count)
{
    size_t kept = 0;
    bool *drop = calloc(count + 1, sizeof(*drop));
    ASSERT(drop);
    for (size_t i = 0; i < count; i++)
        drop[i] = accesses[i].end == UINT64_MAX && !matters(accesses, count, &accesses[i]);
    for (size_t i = 0; i < count; i++)
        if (!drop[i])
            accesses[kept++] = accesses[i];
    free(drop);
    return kept;
}

/* The list behind head; its marks stand in one array. */
static struct mark *list_make(struct sim_access *accesses, size_t count, struct mark *head)
{
    struct mark *marks = calloc(2 * count + 1, sizeof(*marks));
    size_t n = 0;
    ASSERT(marks);
    for (size_t i = 0; i < count; i++) {
        marks[n++] = (struct mark){.access = &accesses[i], .at = accesses[i].start, .name = i};
        if (accesses[i].end != UINT64_MAX)
            marks[n++] = (struct mark){.at = accesses[i].end, .name = i};
    }
    qsort(marks, n, sizeof(*marks), by_time);
    struct mark **calls = calloc(count + 1, sizeof(struct mark *));
    ASSERT(calls);
    *head = (struct mark){0};
    for (size_t i = 0; i < n; i++) {
        marks[i].previous = i ? &marks[i - 1] : head;
        marks[i].next = i + 1 < n ? &marks[i + 1] : NULL;
        if (marks[i].access)
            calls[marks[i].name] = &marks[i];
        else
            calls[marks[i].name]->back = &marks[i];
        marks[i].name = mix(marks[i].name + 1);
    }
    head->next = n ? &marks[0] : NULL;
    free(calls);
    return marks;
}

enum sim_order sim_order_search(struct sim_access *accesses, size_t count)
{
    struct mark head, *at;
    struct states states = {0};
    size_t depth = 0, open = 0; /* open: answered ones not yet in order */
    uint32_t value = 0;
    uint64_t set = 0;
    enum sim_order found = SIM_ORDERED;
    count = shorten(accesses, count);
    struct mark *marks = list_make(accesses, count, &head);
    struct taken *stack = calloc(count + 1, sizeof(*stack));
    ASSERT(stack);
    for (size_t i = 0; i < count; i++)
        open += accesses[i].end != UINT64_MAX;
    for (at = head.next; open > 0;) {
        uint32_t after;
        ASSERT(at);
        if (at->access && possible(at->access, value, &after) && states_add(&states, mix(set ^ at->name ^ mix(1ull << 32 | after)) | 1)) {
            stack[depth++] = (struct taken){at, value};
            value = after;
            set ^= at->name;
            unlink_mark(at);
            if (at->back)
                unlink_mark(at->back);
            open -= at->back != NULL;
            at = head.next;
        } else if (at->access) {
            at = at->next;
        } else if (depth == 0) {
            found = SIM_NO_ORDER;
            break;
        } else {
            struct taken *last = &stack[--depth];
            if (last->call->back)
                relink_mark(last->call->back);
            open += last->call->back != NULL;
            relink_mark(last->call);
            value = last->value;
            set ^= last->call->name;
            at = last->call->next;
        }
        if (states.count > STATES_MAX) {
            found = SIM_UNDECIDED;
            break;
        }
    }
    free(stack);
    free(states.names);
    free(marks);
    return found;
}
