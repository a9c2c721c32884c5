#include "agent/io/corosync_config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOKEN_MS         300
#define PING_INTERVAL_MS 200
#define PING_TIMEOUT_MS  1000
#define PONG_COUNT       2

struct text {
    char *to;
    size_t size, used;
};

static void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void text_add(struct text *text, const char *format, ...)
{
    va_list arguments;
    size_t room = text->used < text->size ? text->size - text->used : 0;
    va_start(arguments, format);
    int length = vsnprintf(room ? text->to + text->used : NULL, room, format, arguments);
    va_end(arguments);
    if (length > 0)
        text->used += (size_t)length;
}

static bool path_valid(const char *path)
{
    if (!path || path[0] != '/')
        return false;
    for (; *path; path++)
        if (!isgraph((unsigned char)*path) || *path == '{' || *path == '}' || *path == '#')
            return false;
    return true;
}

static bool name_valid(const char *name)
{
    size_t length = strnlen(name, COROSYNC_NAME_SIZE);
    if (!length || length == COROSYNC_NAME_SIZE)
        return false;
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
            return false;
    return true;
}

static int address_family(const char *address)
{
    uint8_t binary[16];
    if (strnlen(address, COROSYNC_NAME_SIZE) == COROSYNC_NAME_SIZE)
        return -1;
    if (inet_pton(AF_INET, address, binary) == 1)
        return AF_INET;
    return inet_pton(AF_INET6, address, binary) == 1 ? AF_INET6 : -1;
}

static int nodeid_compare(const void *a, const void *b)
{
    const struct corosync_node *const *x = a, *const *y = b;
    return (*x)->nodeid < (*y)->nodeid ? -1 : (*x)->nodeid > (*y)->nodeid;
}

static int config_check(const struct corosync_config *config, const struct corosync_node **sorted, struct error *error)
{
    if (!config->node_count || config->node_count > COROSYNC_NODES_MAX)
        return error_set(error, -EINVAL, "corosync takes 1 to %d nodes, not %zu", COROSYNC_NODES_MAX,
                         config->node_count);
    if (!path_valid(config->keyfile) || !path_valid(config->state_dir) || !path_valid(config->logfile))
        return error_set(error, -EINVAL, "corosync needs absolute paths without white space or braces: choose another "
                                         "--state and --run");
    for (size_t i = 0; i < config->node_count; i++) {
        const struct corosync_node *node = &config->nodes[i];
        if (!node->nodeid || node->nodeid > 65535)
            return error_set(error, -EINVAL, "node id %u is not in 1..65535", node->nodeid);
        if (!name_valid(node->name))
            return error_set(error, -EINVAL, "the name of node %u is not made of letters, digits, '.', '_', '-'",
                             node->nodeid);
        if (address_family(node->address) < 0)
            return error_set(error, -EINVAL, "the address of node %s is not an IP address", node->name);
        if (address_family(node->address) != address_family(config->nodes[0].address))
            return error_set(error, -EINVAL, "nodes %s and %s do not have addresses of one family",
                             config->nodes[0].name, node->name);
        sorted[i] = node;
    }
    qsort(sorted, config->node_count, sizeof(sorted[0]), nodeid_compare);
    for (size_t i = 1; i < config->node_count; i++)
        if (sorted[i]->nodeid == sorted[i - 1]->nodeid)
            return error_set(error, -EINVAL, "nodes %s and %s have the same node id %u", sorted[i - 1]->name,
                             sorted[i]->name, sorted[i]->nodeid);
    return 0;
}

/* corosync.conf(5), 3.1. The reasons for each value: agent/io/README.md. */
int corosync_config_render(const struct corosync_config *config, char *text, size_t size, struct error *error)
{
    const struct corosync_node *sorted[COROSYNC_NODES_MAX];
    struct text to = {.to = text, .size = size};
    char cluster[UUID_TEXT_SIZE];
    int result = config_check(config, sorted, error);
    if (result < 0)
        return result;
    uuid_format(&config->cluster, cluster);
    text_add(&to,
             "# Written by directord from the committed node list; changes made here are lost.\n"
             "totem {\n"
             "  version: 2\n"
             "  cluster_name: %s\n"
             "  transport: knet\n"
             "  crypto_model: openssl\n"
             "  crypto_cipher: aes256\n"
             "  crypto_hash: sha256\n"
             "  keyfile: %s\n"
             "  token: %u\n"
             "  token_coefficient: 0\n"
             "  interface {\n"
             "    linknumber: 0\n"
             "    mcastport: %u\n"
             "    knet_ping_interval: %u\n"
             "    knet_ping_timeout: %u\n"
             "    knet_pong_count: %u\n"
             "  }\n"
             "}\n"
             "quorum {\n"
             "  provider: corosync_votequorum\n"
             "}\n"
             "system {\n"
             "  state_dir: %s\n"
             "  allow_knet_handle_fallback: yes\n"
             "}\n"
             "logging {\n"
             "  to_stderr: no\n"
             "  to_syslog: no\n"
             "  to_logfile: yes\n"
             "  logfile: %s\n"
             "  timestamp: hires\n"
             "}\n"
             "nodelist {\n",
             cluster, config->keyfile, config->token_ms ? config->token_ms : TOKEN_MS,
             config->port ? config->port : COROSYNC_PORT,
             config->ping_interval_ms ? config->ping_interval_ms : PING_INTERVAL_MS,
             config->ping_timeout_ms ? config->ping_timeout_ms : PING_TIMEOUT_MS,
             config->pong_count ? config->pong_count : PONG_COUNT, config->state_dir, config->logfile);
    for (size_t i = 0; i < config->node_count; i++)
        text_add(&to,
                 "  node {\n"
                 "    nodeid: %u\n"
                 "    name: %s\n"
                 "    ring0_addr: %s\n"
                 "  }\n",
                 sorted[i]->nodeid, sorted[i]->name, sorted[i]->address);
    text_add(&to, "}\n");
    if (to.used >= size)
        return error_set(error, -ENOSPC, "corosync.conf needs %zu bytes and has room for %zu", to.used + 1, size);
    return (int)to.used;
}

static int write_all(int fd, const void *bytes, size_t size)
{
    const char *from = bytes;
    while (size) {
        ssize_t wrote = write(fd, from, size);
        if (wrote < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        from += wrote;
        size -= (size_t)wrote;
    }
    return 0;
}

static bool file_equals(const char *path, const void *bytes, size_t size)
{
    struct stat status;
    bool equal = false;
    char *_cleanup_free_ have = malloc(size + 1);
    int fd = have ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0)
        return false;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && (status.st_mode & 0777) == 0600 &&
        status.st_uid == geteuid()) {
        size_t got = 0;
        ssize_t once = 0;
        while (got <= size && (once = read(fd, have + got, size + 1 - got)) > 0)
            got += (size_t)once;
        equal = once == 0 && got == size && memcmp(have, bytes, size) == 0;
    }
    close(fd);
    return equal;
}

/* Replace path so that a reader, and a crash, finds the old bytes or the new ones and nothing between. */
static int file_replace(const char *path, const void *bytes, size_t size, struct error *error)
{
    char temporary[4096], folder[4096];
    if (file_equals(path, bytes, size))
        return 1;
    const char *slash = strrchr(path, '/');
    if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary) || !slash)
        return error_set(error, -ENAMETOOLONG, "the path of %s is too long or not absolute", path);
    (void)snprintf(folder, sizeof(folder), "%.*s", slash == path ? 1 : (int)(slash - path), path);
    (void)unlink(temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set(error, -errno, "cannot create %s: %s", temporary, strerror(errno));
    int result = write_all(fd, bytes, size);
    if (result == 0 && fsync(fd) < 0)
        result = -errno;
    if (close(fd) < 0 && result == 0)
        result = -errno;
    if (result == 0 && rename(temporary, path) < 0)
        result = -errno;
    if (result < 0) {
        (void)unlink(temporary);
        return error_set(error, result, "cannot write %s: %s", path, strerror(-result));
    }
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        result = -errno;
    if (fd >= 0)
        close(fd);
    return result < 0 ? error_set(error, result, "cannot sync the folder %s: %s", folder, strerror(-result)) : 0;
}

int corosync_config_write(const struct corosync_config *config, const char *path, struct error *error)
{
    char *_cleanup_free_ text = malloc(COROSYNC_TEXT_SIZE);
    if (!text)
        return error_set(error, -ENOMEM, "no memory for corosync.conf");
    int length = corosync_config_render(config, text, COROSYNC_TEXT_SIZE, error);
    if (length < 0)
        return length;
    if (mkdir(config->state_dir, 0700) < 0 && errno != EEXIST)
        return error_set(error, -errno, "cannot create the folder %s: %s", config->state_dir, strerror(errno));
    return file_replace(path, text, (size_t)length, error);
}

int corosync_key_write(const struct cluster_key *key, const struct uuid *cluster, const char *path, struct error *error)
{
    uint8_t bytes[KEY_COROSYNC_BYTES];
    int result = key_corosync(key, cluster, bytes);
    if (result < 0)
        return error_set(error, result, "cannot derive corosync's key from the cluster key: %s", strerror(-result));
    result = file_replace(path, bytes, sizeof(bytes), error);
    OPENSSL_cleanse(bytes, sizeof(bytes));
    return result;
}
