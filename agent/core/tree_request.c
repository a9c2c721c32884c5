/* T3: which requests of an origin had their effect. Only its newest boot is kept: messages of an older process are dropped by
 * the replicated log, since its view ended with it. */
#include "agent/core/tree_internal.h"

static bool bit_get(const uint64_t *words, uint64_t sequence)
{
    uint64_t bit = sequence % TREE_REQUEST_WINDOW;
    return words[bit / 64] >> bit % 64 & 1;
}

static void bit_put(uint64_t *words, uint64_t sequence, bool value)
{
    uint64_t bit = sequence % TREE_REQUEST_WINDOW, mask = 1ull << bit % 64;
    words[bit / 64] = value ? words[bit / 64] | mask : words[bit / 64] & ~mask;
}

static bool tracked(const Director__Command *command)
{
    return command->origin != 0 && command->origin <= UINT16_MAX && command->origin_boot != 0 && command->origin_sequence != 0;
}

static const struct tree_requests *find(const struct tree *tree, uint32_t origin)
{
    for (size_t i = 0; i < tree->request_count; i++)
        if (tree->requests[i].origin == origin)
            return &tree->requests[i];
    return NULL;
}

enum tree_request_state tree_request_look(const struct tree *tree, const Director__Command *command)
{
    const struct tree_requests *requests = tracked(command) ? find(tree, command->origin) : NULL;
    uint64_t sequence = command->origin_sequence;
    if (!requests || requests->boot != command->origin_boot || sequence > requests->highest)
        return TREE_REQUEST_NEW;
    if (requests->highest - sequence >= TREE_REQUEST_WINDOW)
        return TREE_REQUEST_APPLIED;
    if (!bit_get(requests->applied, sequence))
        return TREE_REQUEST_NEW;
    return bit_get(requests->refused, sequence) ? TREE_REQUEST_REFUSED : TREE_REQUEST_APPLIED;
}

/* Make room by forgetting an origin that is no node any more. There is one: the table is larger than the cluster. */
static void forget_one(struct tree *tree)
{
    size_t place = 0;
    while (tree_node_find(tree, tree->requests[place].origin))
        place++;
    ASSERT(place < tree->request_count);
    tree->request_count--;
    memmove(&tree->requests[place], &tree->requests[place + 1], (tree->request_count - place) * sizeof(tree->requests[0]));
}

static struct tree_requests *find_or_add(struct tree *tree, uint16_t origin)
{
    struct tree_requests *requests = (struct tree_requests *)find(tree, origin);
    if (requests)
        return requests;
    if (tree->request_count == TREE_ORIGINS_MAX)
        forget_one(tree);
    size_t place = tree->request_count++;
    for (; place > 0 && tree->requests[place - 1].origin > origin; place--)
        tree->requests[place] = tree->requests[place - 1];
    tree->requests[place] = (struct tree_requests){.origin = origin};
    return &tree->requests[place];
}

void tree_request_note(struct tree *tree, const Director__Command *command, bool refused)
{
    if (!tracked(command))
        return;
    struct tree_requests *requests = find_or_add(tree, (uint16_t)command->origin);
    uint64_t sequence = command->origin_sequence;
    if (requests->boot != command->origin_boot)
        *requests = (struct tree_requests){.origin = (uint16_t)command->origin, .boot = command->origin_boot};
    if (sequence > requests->highest) {
        uint64_t steps = sequence - requests->highest;
        if (steps >= TREE_REQUEST_WINDOW) {
            memset(requests->applied, 0, sizeof(requests->applied));
            memset(requests->refused, 0, sizeof(requests->refused));
        } else {
            for (uint64_t s = requests->highest + 1; s <= sequence; s++) {
                bit_put(requests->applied, s, false);
                bit_put(requests->refused, s, false);
            }
        }
        requests->highest = sequence;
    }
    bit_put(requests->applied, sequence, true);
    bit_put(requests->refused, sequence, refused);
}
