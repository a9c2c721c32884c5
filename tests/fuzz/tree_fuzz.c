/* Commands and snapshots of the tree. The bytes are taken as a snapshot, then as a run of commands, each after a u16 length. What
 * a snapshot makes, and what a tree is after commands, must come back from its own bytes the same; a refused command leaves
 * all but the request table. */
#include "agent/core/tree.h"

#include "director/base/bytes.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const struct tree *tree)
{
    struct tree *other = tree_new();
    uint8_t *data, *again;
    size_t size, size_again;
    tree_snapshot(tree, &data, &size);
    ASSERT(tree_restore(other, data, size, NULL) == 0);
    tree_snapshot(other, &again, &size_again);
    ASSERT(size == size_again && memcmp(data, again, size) == 0);
    free(data);
    free(again);
    tree_free(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tree *tree = tree_new();
    if (tree_restore(tree, data, size, NULL) == 0)
        round_trip(tree);
    while (size >= 2) {
        size_t length = MIN((size_t)get_le16(data), size - 2);
        struct error error;
        error_clear(&error);
        int status = tree_apply_bytes(tree, data + 2, length, NULL, &error);
        ASSERT(status == 0 || error.message[0]);
        data += 2 + length;
        size -= 2 + length;
    }
    round_trip(tree);
    tree_free(tree);
    return 0;
}
