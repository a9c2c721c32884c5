/* The durable state of a node in one SQLite file, STATE/state.db (WAL, synchronous=FULL): the replicated log, hard state,
 * snapshot and the node's identity. Used by one thread; every call may block for the disk.
 *
 * Changes are made between begin and commit, all or nothing; when commit has returned 0 they survive a power loss.
 * Invariants, checked at open and kept by each commit:
 *   L1 the entries are contiguous: first .. last, no hole;
 *   L2 first <= snapshot index + 1: snapshot and tail join;
 *   L3 every entry and the snapshot carry a CRC32C that holds;
 *   L4 after a failed sync nothing is acknowledged any more (-EIO until the process starts again): what the kernel dropped
 *      cannot be known. A full disk (-ENOSPC) is different: the transaction is undone and may be tried again. */
#ifndef DIRECTOR_AGENT_IO_LOG_STORE_H
#define DIRECTOR_AGENT_IO_LOG_STORE_H

#include "director/base/error.h"
#include <stdbool.h>

#define LOG_STORE_ENTRY_MAX_BYTES    (1u << 20)
#define LOG_STORE_SNAPSHOT_MAX_BYTES (256u << 20)
#define LOG_STORE_KEY_MAX_BYTES      64u
#define LOG_STORE_VALUE_MAX_BYTES    (64u << 10)

struct log_store;

struct log_store_entry {
    uint64_t index; /* from 1 */
    uint64_t term;
    uint32_t kind; /* the caller's */
    const void *bytes;
    size_t size;
};

struct log_store_hard_state {
    uint64_t term;
    uint64_t voted_for; /* in term; 0: nobody */
};

struct log_store_snapshot {
    uint64_t index, term; /* of the last entry it contains; 0: there is none */
    const void *config;   /* the voter set at index, the caller's form */
    size_t config_size;
    const void *bytes;
    size_t size;
};

/* Open or make directory/state.db (the directory is made too, mode 0700). Checks the whole file. Refused with words:
 * -EUCLEAN (damaged), -EBUSY (another process has it), -EPROTONOSUPPORT (made by a newer version), -ENOSPC, -EIO, -EACCES. */
MUST_CHECK int log_store_open(const char *directory, struct log_store **ret_store, struct error *error);
/* An open transaction is undone. NULL is fine. */
void log_store_close(struct log_store *store);

/* Begin; must not be nested. After a failed change the transaction can only be ended: commit then undoes it and returns
 * the first error, so that callers may check commit alone. */
MUST_CHECK int log_store_begin(struct log_store *store, struct error *error);
MUST_CHECK int log_store_commit(struct log_store *store, struct error *error);
void log_store_rollback(struct log_store *store);

/* The changes; each needs an open transaction. -EINVAL with words when an invariant would break (a bug of the caller). */
int log_store_put_hard_state(struct log_store *store, const struct log_store_hard_state *state, struct error *error);
/* A hint of how far the log is committed: no vote depends on it. */
int log_store_put_commit_index(struct log_store *store, uint64_t index, struct error *error);
/* Entries must follow the last one (L1); in an empty log, the snapshot. */
int log_store_append(struct log_store *store, const struct log_store_entry *entries, size_t count, struct error *error);
/* Drop index and everything after it. */
int log_store_truncate_from(struct log_store *store, uint64_t index, struct error *error);
/* Replace the snapshot and drop the entries up to keep_from - 1 (keep_from <= index + 1 keeps a tail for laggards). When the
 * log does not reach the snapshot's index, or has another term there, all entries are dropped (a snapshot from a peer). */
int log_store_put_snapshot(struct log_store *store, const struct log_store_snapshot *snapshot, uint64_t keep_from,
                           struct error *error);
/* A small value under a key, for the node's identity. bytes NULL removes it. */
int log_store_put(struct log_store *store, const char *key, const void *bytes, size_t size, struct error *error);
/* Forget log, hard state, commit index and snapshot; the keys stay. For a node that leaves its cluster for another. */
int log_store_reset(struct log_store *store, struct error *error);

/* Reading. Inside a transaction they see its changes. */
struct log_store_hard_state log_store_hard_state(const struct log_store *store);
uint64_t log_store_commit_index(const struct log_store *store);
/* First and last index held; when there are no entries first = last + 1 = snapshot index + 1. */
uint64_t log_store_first(const struct log_store *store);
uint64_t log_store_last(const struct log_store *store);
/* visit for each entry from .. last in order, its bytes valid during the call; a negative return ends the walk and is
 * returned. -EUCLEAN when an entry is damaged. */
typedef int log_store_visit(const struct log_store_entry *entry, void *context);
MUST_CHECK int log_store_each(struct log_store *store, uint64_t from, log_store_visit *visit, void *context,
                              struct error *error);
/* The snapshot; config and bytes are one allocation, freed by the caller with free((void *)ret->config). index 0 and NULLs
 * when there is none. */
MUST_CHECK int log_store_snapshot(struct log_store *store, struct log_store_snapshot *ret_snapshot, struct error *error);
/* Up to size bytes of a value; ret_size its full length. -ENOENT. */
MUST_CHECK int log_store_get(struct log_store *store, const char *key, void *to, size_t size, size_t *ret_size,
                             struct error *error);

#endif
