/* One SQLite file, one connection in exclusive mode (so a second process is refused and no shared-memory file is needed).
 * Happy path: begin -> changes -> commit (one fsync of the WAL). A failed change is remembered; commit then undoes all.
 * SQLite's codes are mapped in store_fail() and nowhere else. */
#include "agent/io/log_store.h"

#include "director/base/bytes.h"
#include "director/base/crc32c.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STORE_FORMAT 1 /* PRAGMA user_version */

static const char store_schema[] =
    "CREATE TABLE state(id INTEGER PRIMARY KEY CHECK(id=1), term INTEGER NOT NULL, voted_for INTEGER NOT NULL, "
    "commit_index INTEGER NOT NULL);"
    "CREATE TABLE log(idx INTEGER PRIMARY KEY, term INTEGER NOT NULL, kind INTEGER NOT NULL, crc INTEGER NOT NULL, "
    "bytes BLOB NOT NULL);"
    "CREATE TABLE snapshot(id INTEGER PRIMARY KEY CHECK(id=1), idx INTEGER NOT NULL, term INTEGER NOT NULL, "
    "crc INTEGER NOT NULL, config BLOB NOT NULL, bytes BLOB NOT NULL);"
    "CREATE TABLE identity(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"
    "INSERT INTO state VALUES(1,0,0,0);"
    "PRAGMA user_version=1;";

enum store_statement {
    ST_BEGIN, ST_COMMIT, ST_ROLLBACK, ST_STATE, ST_APPEND, ST_TRUNCATE, ST_DROP, ST_TERM_AT, ST_EACH,
    ST_SNAPSHOT_PUT, ST_SNAPSHOT_GET, ST_PUT, ST_REMOVE, ST_GET, ST_CLEAR_LOG, ST_CLEAR_SNAPSHOT, ST_COUNT
};

static const char *const store_sql[ST_COUNT] = {
    [ST_BEGIN] = "BEGIN IMMEDIATE",
    [ST_COMMIT] = "COMMIT",
    [ST_ROLLBACK] = "ROLLBACK",
    [ST_STATE] = "UPDATE state SET term=?1, voted_for=?2, commit_index=?3 WHERE id=1",
    [ST_APPEND] = "INSERT INTO log(idx,term,kind,crc,bytes) VALUES(?1,?2,?3,?4,?5)",
    [ST_TRUNCATE] = "DELETE FROM log WHERE idx>=?1",
    [ST_DROP] = "DELETE FROM log WHERE idx<?1",
    [ST_TERM_AT] = "SELECT term FROM log WHERE idx=?1",
    [ST_EACH] = "SELECT idx,term,kind,crc,bytes FROM log WHERE idx>=?1 ORDER BY idx",
    [ST_SNAPSHOT_PUT] = "INSERT OR REPLACE INTO snapshot(id,idx,term,crc,config,bytes) VALUES(1,?1,?2,?3,?4,?5)",
    [ST_SNAPSHOT_GET] = "SELECT idx,term,crc,config,bytes FROM snapshot WHERE id=1",
    [ST_PUT] = "INSERT OR REPLACE INTO identity(key,value) VALUES(?1,?2)",
    [ST_REMOVE] = "DELETE FROM identity WHERE key=?1",
    [ST_GET] = "SELECT value FROM identity WHERE key=?1",
    [ST_CLEAR_LOG] = "DELETE FROM log",
    [ST_CLEAR_SNAPSHOT] = "DELETE FROM snapshot",
};

/* What is asked often, kept beside the file. */
struct store_view {
    struct log_store_hard_state hard;
    uint64_t commit_index;
    uint64_t first, last;
    uint64_t snapshot_index;
};

struct log_store {
    sqlite3 *db;
    sqlite3_stmt *statements[ST_COUNT];
    char path[PATH_MAX];
    struct store_view view, before; /* before: what a rollback goes back to */
    bool in_transaction;
    bool failed;        /* L4 */
    struct error first; /* error of this transaction */
};

/* ---- errors ---- */

static int code_of_sqlite(sqlite3 *db, int code)
{
    int system = db ? sqlite3_system_errno(db) : 0;
    switch (code & 0xff) {
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_IOERR:
        if (code == SQLITE_IOERR_NOMEM)
            return -ENOMEM;
        if (code == SQLITE_IOERR_WRITE && (system == ENOSPC || system == EDQUOT))
            return -ENOSPC;
        return -EIO;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
        return -EUCLEAN;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return -EACCES;
    case SQLITE_CANTOPEN:
        return system ? -system : -EACCES;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_TOOBIG:
        return -EMSGSIZE;
    default:
        return -EIO;
    }
}

/* Words for an SQLite code while doing something; marks the store failed where L4 says so. */
static int store_fail(struct log_store *store, int sqlite_code, const char *doing, struct error *error)
{
    int code = code_of_sqlite(store->db, sqlite_code);
    const char *cause = sqlite3_errstr(sqlite_code);
    int system = store->db ? sqlite3_system_errno(store->db) : 0;
    switch (code) {
    case -ENOSPC:
        return error_set(error, code, "No space to %s in %s: free some; nothing was changed", doing, store->path);
    case -EUCLEAN:
        store->failed = true;
        return error_set(error, code, "The state file %s is damaged (%s): move it away, and the node joins its cluster anew",
                         store->path, cause);
    case -EBUSY:
        return error_set(error, code, "The state file %s is in use by another process: only one directord may have it",
                         store->path);
    case -EIO:
        store->failed = true;
        return error_set(error, code, "Cannot %s in %s: %s%s%s; the node must stop until its disk is looked at", doing, store->path,
                         cause, system ? ", " : "", system ? strerror(system) : "");
    default:
        return error_set(error, code, "Cannot %s in %s: %s", doing, store->path, strerror(-code));
    }
}

static int store_damaged(struct log_store *store, struct error *error, const char *what, uint64_t index)
{
    store->failed = true;
    return error_set(error, -EUCLEAN,
                     "The state file %s is damaged (%s at index %llu): move it away, and the node joins its cluster anew",
                     store->path, what, (unsigned long long)index);
}

/* The first error of a transaction is what commit will return. */
static int change_failed(struct log_store *store, struct error *error)
{
    if (store->in_transaction && !store->first.code)
        store->first = *error;
    return error->code;
}

/* ---- statements ---- */

static sqlite3_stmt *statement(struct log_store *store, enum store_statement which)
{
    return store->statements[which];
}

/* Run one that returns no rows; its bindings are cleared. */
static int run(struct log_store *store, enum store_statement which, const char *doing, struct error *error)
{
    sqlite3_stmt *st = statement(store, which);
    int code = sqlite3_step(st);
    int result = code == SQLITE_DONE ? 0 : store_fail(store, sqlite3_extended_errcode(store->db), doing, error);
    (void)sqlite3_reset(st);
    (void)sqlite3_clear_bindings(st);
    return result;
}

static void bind_u64(sqlite3_stmt *st, int column, uint64_t value)
{
    (void)sqlite3_bind_int64(st, column, (sqlite3_int64)value); /* the bits; fails only for a column that is not there */
}

static void bind_blob(sqlite3_stmt *st, int column, const void *bytes, size_t size)
{
    if (size)
        (void)sqlite3_bind_blob64(st, column, bytes, size, SQLITE_STATIC);
    else
        (void)sqlite3_bind_zeroblob(st, column, 0); /* not NULL */
}

static uint32_t entry_crc(uint64_t index, uint64_t term, uint32_t kind, const void *bytes, size_t size)
{
    uint8_t head[20];
    put_le64(head, index);
    put_le64(head + 8, term);
    put_le32(head + 16, kind);
    return crc32c(crc32c(0, head, sizeof(head)), bytes, size);
}

static uint32_t snapshot_crc(const struct log_store_snapshot *snapshot)
{
    uint8_t head[24];
    put_le64(head, snapshot->index);
    put_le64(head + 8, snapshot->term);
    put_le64(head + 16, snapshot->config_size);
    uint32_t crc = crc32c(0, head, sizeof(head));
    crc = crc32c(crc, snapshot->config, snapshot->config_size);
    return crc32c(crc, snapshot->bytes, snapshot->size);
}

/* ---- opening ---- */

static int directory_make(const char *directory, struct error *error)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s", directory) >= (int)sizeof(path) - 16)
        return error_set(error, -ENAMETOOLONG, "The path of the state directory is too long: %.100s...", directory);
    for (char *p = path + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char end = *p;
        *p = '\0';
        if (mkdir(path, end ? 0755 : 0700) < 0 && errno != EEXIST)
            return error_set(error, -errno, "Cannot make the state directory %s: %s", path, strerror(errno));
        *p = end;
        if (!end)
            return 0;
    }
}

/* Make the file ours alone before SQLite opens it, and its name durable. The WAL takes the same mode. */
static int file_make(const char *directory, const char *path, struct error *error)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set(error, -errno, "Cannot open the state file %s: %s", path, strerror(errno));
    int result = fchmod(fd, 0600) < 0 ? -errno : 0;
    close(fd);
    fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (result == 0 && (fd < 0 || fsync(fd) < 0))
        result = -errno;
    if (fd >= 0)
        close(fd);
    if (result < 0)
        return error_set(error, result, "Cannot make the state file %s: %s", path, strerror(-result));
    return 0;
}

static int execute(struct log_store *store, const char *sql, const char *doing, struct error *error)
{
    if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return store_fail(store, sqlite3_extended_errcode(store->db), doing, error);
    return 0;
}

static int first_column(void *context, int count, char **values, char **names)
{
    (void)count, (void)names;
    (void)snprintf(context, 64, "%s", values[0] ? values[0] : "");
    return 0;
}

static int query(struct log_store *store, const char *sql, char ret_text[static 64], struct error *error)
{
    ret_text[0] = '\0';
    if (sqlite3_exec(store->db, sql, first_column, ret_text, NULL) != SQLITE_OK &&
        sqlite3_extended_errcode(store->db) != SQLITE_ABORT)
        return store_fail(store, sqlite3_extended_errcode(store->db), "read the state", error);
    return 0;
}

static int database_configure(struct log_store *store, struct error *error)
{
    char mode[64];
    int result = execute(store, "PRAGMA locking_mode=EXCLUSIVE", "lock", error);
    if (result == 0)
        result = query(store, "PRAGMA journal_mode=WAL", mode, error);
    if (result == 0 && strcmp(mode, "wal") != 0)
        result = error_set(error, -ENOTSUP, "The state file %s cannot be used with a write-ahead log on this file system",
                           store->path);
    if (result == 0)
        result = execute(store, "PRAGMA synchronous=FULL; PRAGMA cell_size_check=ON; PRAGMA trusted_schema=OFF;"
                                "PRAGMA foreign_keys=OFF; PRAGMA cache_size=-2000; PRAGMA journal_size_limit=8388608", "set up",
                         error);
    return result;
}

static int database_prepare(struct log_store *store, struct error *error)
{
    char version[64], check[64];
    int result = query(store, "PRAGMA user_version", version, error);
    if (result < 0)
        return result;
    int format = atoi(version);
    if (format > STORE_FORMAT)
        return error_set(error, -EPROTONOSUPPORT, "The state file %s was made by a newer version (format %d, known %d): upgrade "
                                                  "this node", store->path, format, STORE_FORMAT);
    if (format == 0) {
        result = execute(store, "BEGIN IMMEDIATE", "begin", error);
        if (result == 0)
            result = execute(store, store_schema, "make the tables", error);
        if (result == 0)
            result = execute(store, "COMMIT", "make the tables", error);
        if (result < 0)
            return result;
    }
    result = query(store, "PRAGMA integrity_check(1)", check, error);
    if (result < 0)
        return result;
    if (strcmp(check, "ok") != 0) {
        store->failed = true;
        return error_set(error, -EUCLEAN, "The state file %s is damaged (%.60s): move it away, and the node joins its cluster anew",
                         store->path, check);
    }
    for (unsigned i = 0; i < ST_COUNT; i++)
        if (sqlite3_prepare_v3(store->db, store_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &store->statements[i], NULL) != SQLITE_OK)
            return store_fail(store, sqlite3_extended_errcode(store->db), "prepare", error);
    return 0;
}

static int check_entry(const struct log_store_entry *entry, void *context)
{
    struct store_view *view = context;
    if (view->first == 0)
        view->first = entry->index;
    else if (entry->index != view->last + 1) /* L1 */
        return -EUCLEAN;
    view->last = entry->index;
    return 0;
}

static int load_state(struct log_store *store, struct error *error)
{
    sqlite3_stmt *st;
    if (sqlite3_prepare_v2(store->db, "SELECT term,voted_for,commit_index FROM state WHERE id=1", -1, &st, NULL) != SQLITE_OK)
        return store_fail(store, sqlite3_extended_errcode(store->db), "read the state", error);
    int code = sqlite3_step(st), result = 0;
    if (code == SQLITE_ROW) {
        store->view.hard.term = (uint64_t)sqlite3_column_int64(st, 0);
        store->view.hard.voted_for = (uint64_t)sqlite3_column_int64(st, 1);
        store->view.commit_index = (uint64_t)sqlite3_column_int64(st, 2);
    } else if (code == SQLITE_DONE) {
        result = store_damaged(store, error, "no hard state", 0);
    } else {
        result = store_fail(store, sqlite3_extended_errcode(store->db), "read the state", error);
    }
    (void)sqlite3_finalize(st);
    return result;
}

/* Read everything once: L1, L2, L3. */
static int load(struct log_store *store, struct error *error)
{
    struct log_store_snapshot snapshot;
    struct store_view walked = {0};
    int result = load_state(store, error);
    if (result == 0)
        result = log_store_snapshot(store, &snapshot, error);
    if (result < 0)
        return result;
    store->view.snapshot_index = snapshot.index;
    free((void *)snapshot.config);
    result = log_store_each(store, 0, check_entry, &walked, error);
    if (result < 0)
        return result == -EUCLEAN && error->code == 0 ? store_damaged(store, error, "a hole", walked.last + 1) : result;
    store->view.first = walked.first ? walked.first : snapshot.index + 1;
    store->view.last = walked.first ? walked.last : snapshot.index;
    if (store->view.first > snapshot.index + 1 || store->view.last < snapshot.index) /* L2 */
        return store_damaged(store, error, "log and snapshot do not join", store->view.first);
    return 0;
}

int log_store_open(const char *directory, struct log_store **ret_store, struct error *error)
{
    struct error local;
    error = error ? error : &local;
    error_clear(error);
    struct log_store *store = calloc(1, sizeof(*store));
    if (!store)
        return error_set(error, -ENOMEM, "No memory for the state store");
    int result = directory_make(directory, error);
    if (result == 0) {
        (void)snprintf(store->path, sizeof(store->path), "%s/state.db", directory);
        result = file_make(directory, store->path, error);
    }
    if (result == 0) {
        int code = sqlite3_open_v2(store->path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
        if (store->db)
            (void)sqlite3_extended_result_codes(store->db, 1);
        if (code != SQLITE_OK)
            result = store_fail(store, code, "open the state", error);
    }
    if (result == 0)
        result = database_configure(store, error);
    if (result == 0)
        result = database_prepare(store, error);
    if (result == 0)
        result = load(store, error);
    if (result < 0) {
        log_store_close(store);
        return result;
    }
    *ret_store = store;
    return 0;
}

void log_store_close(struct log_store *store)
{
    if (!store)
        return;
    if (store->in_transaction)
        log_store_rollback(store);
    for (unsigned i = 0; i < ST_COUNT; i++)
        (void)sqlite3_finalize(store->statements[i]);
    (void)sqlite3_close(store->db);
    free(store);
}

/* ---- transactions ---- */

int log_store_begin(struct log_store *store, struct error *error)
{
    ASSERT(!store->in_transaction);
    if (store->failed)
        return error_set(error, -EIO, "The state file %s failed before: restart the node after its disk was looked at", store->path);
    int result = run(store, ST_BEGIN, "begin", error);
    if (result < 0)
        return result;
    store->in_transaction = true;
    store->before = store->view;
    error_clear(&store->first);
    return 0;
}

void log_store_rollback(struct log_store *store)
{
    ASSERT(store->in_transaction);
    store->in_transaction = false;
    store->view = store->before;
    /* SQLite undid it by itself after some errors */
    if (!sqlite3_get_autocommit(store->db) && run(store, ST_ROLLBACK, "roll back", NULL) < 0)
        store->failed = true;
}

int log_store_commit(struct log_store *store, struct error *error)
{
    ASSERT(store->in_transaction);
    if (store->first.code) {
        struct error first = store->first;
        log_store_rollback(store);
        return error_set(error, first.code, "%s", first.message);
    }
    int result = run(store, ST_COMMIT, "commit", error);
    if (result < 0) {
        log_store_rollback(store);
        return result;
    }
    store->in_transaction = false;
    return 0;
}

/* ---- changes ---- */

static int put_state(struct log_store *store, struct error *error)
{
    struct error local;
    error = error ? error : &local;
    ASSERT(store->in_transaction);
    sqlite3_stmt *st = statement(store, ST_STATE);
    bind_u64(st, 1, store->view.hard.term);
    bind_u64(st, 2, store->view.hard.voted_for);
    bind_u64(st, 3, store->view.commit_index);
    return run(store, ST_STATE, "store the term", error) < 0 ? change_failed(store, error) : 0;
}

int log_store_put_hard_state(struct log_store *store, const struct log_store_hard_state *state, struct error *error)
{
    store->view.hard = *state;
    return put_state(store, error);
}

int log_store_put_commit_index(struct log_store *store, uint64_t index, struct error *error)
{
    store->view.commit_index = index;
    return put_state(store, error);
}

static int append_one(struct log_store *store, const struct log_store_entry *entry, struct error *error)
{
    if (entry->index != store->view.last + 1) /* L1 */
        return error_set(error, -EINVAL, "Entry %llu does not follow %llu in %s", (unsigned long long)entry->index,
                         (unsigned long long)store->view.last, store->path);
    if (entry->size > LOG_STORE_ENTRY_MAX_BYTES)
        return error_set(error, -EINVAL, "Entry %llu is %zu bytes long, more than %u", (unsigned long long)entry->index,
                         entry->size, LOG_STORE_ENTRY_MAX_BYTES);
    sqlite3_stmt *st = statement(store, ST_APPEND);
    bind_u64(st, 1, entry->index);
    bind_u64(st, 2, entry->term);
    bind_u64(st, 3, entry->kind);
    bind_u64(st, 4, entry_crc(entry->index, entry->term, entry->kind, entry->bytes, entry->size)); /* L3 */
    bind_blob(st, 5, entry->bytes, entry->size);
    int result = run(store, ST_APPEND, "append to the log", error);
    if (result == 0)
        store->view.last = entry->index;
    return result;
}

int log_store_append(struct log_store *store, const struct log_store_entry *entries, size_t count, struct error *error)
{
    struct error local;
    error = error ? error : &local;
    ASSERT(store->in_transaction);
    for (size_t i = 0; i < count; i++)
        if (append_one(store, &entries[i], error) < 0)
            return change_failed(store, error);
    return 0;
}

int log_store_truncate_from(struct log_store *store, uint64_t index, struct error *error)
{
    struct error local;
    error = error ? error : &local;
    ASSERT(store->in_transaction);
    if (index <= store->view.snapshot_index) { /* L2: what the snapshot holds was applied */
        (void)error_set(error, -EINVAL, "Entry %llu is within the snapshot up to %llu in %s", (unsigned long long)index,
                        (unsigned long long)store->view.snapshot_index, store->path);
        return change_failed(store, error);
    }
    if (index > store->view.last)
        return 0;
    bind_u64(statement(store, ST_TRUNCATE), 1, index);
    if (run(store, ST_TRUNCATE, "truncate the log", error) < 0)
        return change_failed(store, error);
    store->view.last = index - 1;
    if (store->view.first > store->view.last)
        store->view.first = store->view.snapshot_index + 1;
    return 0;
}

/* Does the log hold index with this term? Negative on error. */
static int log_has(struct log_store *store, uint64_t index, uint64_t term, struct error *error)
{
    sqlite3_stmt *st = statement(store, ST_TERM_AT);
    bind_u64(st, 1, index);
    int code = sqlite3_step(st), result;
    if (code == SQLITE_ROW)
        result = (uint64_t)sqlite3_column_int64(st, 0) == term;
    else
        result = code == SQLITE_DONE ? 0 : store_fail(store, sqlite3_extended_errcode(store->db), "read the log", error);
    (void)sqlite3_reset(st);
    return result;
}

int log_store_put_snapshot(struct log_store *store, const struct log_store_snapshot *snapshot, uint64_t keep_from,
                           struct error *error)
{
    struct error local;
    error = error ? error : &local;
    ASSERT(store->in_transaction);
    if (snapshot->index == 0 || snapshot->index < store->view.snapshot_index || keep_from > snapshot->index + 1 ||
        snapshot->size > LOG_STORE_SNAPSHOT_MAX_BYTES || snapshot->config_size > LOG_STORE_SNAPSHOT_MAX_BYTES) {
        (void)error_set(error, -EINVAL, "A snapshot of %zu bytes at %llu, keeping from %llu, does not fit behind the one at %llu",
                        snapshot->size, (unsigned long long)snapshot->index, (unsigned long long)keep_from,
                        (unsigned long long)store->view.snapshot_index);
        return change_failed(store, error);
    }
    int joins = snapshot->index == store->view.snapshot_index ? 1 : log_has(store, snapshot->index, snapshot->term, error);
    if (joins < 0)
        return change_failed(store, error);
    sqlite3_stmt *st = statement(store, ST_SNAPSHOT_PUT);
    bind_u64(st, 1, snapshot->index);
    bind_u64(st, 2, snapshot->term);
    bind_u64(st, 3, snapshot_crc(snapshot)); /* L3 */
    bind_blob(st, 4, snapshot->config, snapshot->config_size);
    bind_blob(st, 5, snapshot->bytes, snapshot->size);
    if (run(store, ST_SNAPSHOT_PUT, "store a snapshot", error) < 0)
        return change_failed(store, error);
    if (joins) {
        bind_u64(statement(store, ST_DROP), 1, keep_from);
        if (run(store, ST_DROP, "shorten the log", error) < 0)
            return change_failed(store, error);
        store->view.first = MAX(store->view.first, keep_from);
    } else {
        if (run(store, ST_CLEAR_LOG, "empty the log", error) < 0)
            return change_failed(store, error);
        store->view.last = snapshot->index;
    }
    store->view.snapshot_index = snapshot->index;
    if (!joins || store->view.first > store->view.last)
        store->view.first = snapshot->index + 1;
    return 0;
}

int log_store_put(struct log_store *store, const char *key, const void *bytes, size_t size, struct error *error)
{
    struct error local;
    error = error ? error : &local;
    ASSERT(store->in_transaction);
    size_t length = strlen(key);
    if (length == 0 || length > LOG_STORE_KEY_MAX_BYTES || size > LOG_STORE_VALUE_MAX_BYTES) {
        (void)error_set(error, -EINVAL, "The key %.64s or its value of %zu bytes is too long for %s", key, size, store->path);
        return change_failed(store, error);
    }
    enum store_statement which = bytes ? ST_PUT : ST_REMOVE;
    (void)sqlite3_bind_text(statement(store, which), 1, key, (int)length, SQLITE_STATIC);
    if (bytes)
        bind_blob(statement(store, which), 2, bytes, size);
    return run(store, which, "store the identity", error) < 0 ? change_failed(store, error) : 0;
}

int log_store_reset(struct log_store *store, struct error *error)
{
    struct error local;
    error = error ? error : &local;
    ASSERT(store->in_transaction);
    if (run(store, ST_CLEAR_LOG, "empty the log", error) < 0 || run(store, ST_CLEAR_SNAPSHOT, "drop the snapshot", error) < 0)
        return change_failed(store, error);
    store->view = (struct store_view){.first = 1};
    return put_state(store, error);
}

/* ---- reading ---- */

struct log_store_hard_state log_store_hard_state(const struct log_store *store)
{
    return store->view.hard;
}

uint64_t log_store_commit_index(const struct log_store *store)
{
    return store->view.commit_index;
}

uint64_t log_store_first(const struct log_store *store)
{
    return store->view.first;
}

uint64_t log_store_last(const struct log_store *store)
{
    return store->view.last;
}

int log_store_each(struct log_store *store, uint64_t from, log_store_visit *visit, void *context, struct error *error)
{
    sqlite3_stmt *st = statement(store, ST_EACH);
    int code, result = 0;
    bind_u64(st, 1, from);
    while (result >= 0 && (code = sqlite3_step(st)) == SQLITE_ROW) {
        struct log_store_entry entry = {
            .index = (uint64_t)sqlite3_column_int64(st, 0),
            .term = (uint64_t)sqlite3_column_int64(st, 1),
            .kind = (uint32_t)sqlite3_column_int64(st, 2),
            .bytes = sqlite3_column_blob(st, 4),
            .size = (size_t)sqlite3_column_bytes(st, 4),
        };
        if (entry_crc(entry.index, entry.term, entry.kind, entry.bytes, entry.size) != (uint32_t)sqlite3_column_int64(st, 3))
            result = store_damaged(store, error, "a checksum that does not hold", entry.index); /* L3 */
        else
            result = visit(&entry, context);
    }
    if (result >= 0)
        result = code == SQLITE_DONE ? 0 : store_fail(store, sqlite3_extended_errcode(store->db), "read the log", error);
    (void)sqlite3_reset(st);
    return result;
}

int log_store_snapshot(struct log_store *store, struct log_store_snapshot *ret_snapshot, struct error *error)
{
    sqlite3_stmt *st = statement(store, ST_SNAPSHOT_GET);
    struct log_store_snapshot snapshot = {0};
    int code = sqlite3_step(st), result = 0;
    if (code == SQLITE_ROW) {
        snapshot.index = (uint64_t)sqlite3_column_int64(st, 0);
        snapshot.term = (uint64_t)sqlite3_column_int64(st, 1);
        snapshot.config = sqlite3_column_blob(st, 3);
        snapshot.config_size = (size_t)sqlite3_column_bytes(st, 3);
        snapshot.bytes = sqlite3_column_blob(st, 4);
        snapshot.size = (size_t)sqlite3_column_bytes(st, 4);
        uint8_t *copy = NULL;
        if (snapshot_crc(&snapshot) != (uint32_t)sqlite3_column_int64(st, 2))
            result = store_damaged(store, error, "a snapshot whose checksum does not hold", snapshot.index); /* L3 */
        else if (!(copy = malloc(snapshot.config_size + snapshot.size + 1)))
            result = error_set(error, -ENOMEM, "No memory for a snapshot of %zu bytes", snapshot.size);
        if (copy) {
            if (snapshot.config_size)
                memcpy(copy, snapshot.config, snapshot.config_size);
            if (snapshot.size)
                memcpy(copy + snapshot.config_size, snapshot.bytes, snapshot.size);
            snapshot.config = copy;
            snapshot.bytes = copy + snapshot.config_size;
        }
    } else if (code != SQLITE_DONE) {
        result = store_fail(store, sqlite3_extended_errcode(store->db), "read the snapshot", error);
    }
    (void)sqlite3_reset(st);
    if (result == 0)
        *ret_snapshot = snapshot;
    return result;
}

int log_store_get(struct log_store *store, const char *key, void *to, size_t size, size_t *ret_size, struct error *error)
{
    sqlite3_stmt *st = statement(store, ST_GET);
    (void)sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
    int code = sqlite3_step(st), result = 0;
    if (code == SQLITE_ROW) {
        size_t length = (size_t)sqlite3_column_bytes(st, 0);
        if (length && size)
            memcpy(to, sqlite3_column_blob(st, 0), MIN(length, size));
        *ret_size = length;
    } else if (code == SQLITE_DONE) {
        result = error_set(error, -ENOENT, "There is no %s in %s", key, store->path);
    } else {
        result = store_fail(store, sqlite3_extended_errcode(store->db), "read the identity", error);
    }
    (void)sqlite3_reset(st);
    (void)sqlite3_clear_bindings(st);
    return result;
}
