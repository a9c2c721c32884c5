#include "agent/io/key.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* RFC 5869 §2.2: the salt need not be secret. It names the scheme, so that a later one can derive other keys. */
static const char key_salt[] = "director cluster key 1";

#define KEY_LABEL_DISCOVERY "director discovery tag"
#define KEY_LABEL_PEER      "director peer link psk"
#define KEY_LABEL_COROSYNC  "director corosync key"
#define KEY_INFO_MAX_BYTES  256u
#define HKDF_MAX_BYTES      (255u * 32u) /* RFC 5869 §2.3: L <= 255 * HashLen */

static int sync_directory_of(const char *path)
{
    char copy[PATH_MAX];
    if (snprintf(copy, sizeof(copy), "%s", path) >= (int)sizeof(copy))
        return -ENAMETOOLONG;
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return result;
}

static int write_all(int fd, const char *from, size_t size)
{
    while (size) {
        ssize_t wrote = write(fd, from, size);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return -errno;
        from += wrote;
        size -= (size_t)wrote;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

int key_generate(const char *path, struct error *error)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[CLUSTER_KEY_BYTES];
    char text[CLUSTER_KEY_FILE_BYTES];
    int result = random_bytes(bytes, sizeof(bytes));
    if (result < 0)
        return error_set(error, result, "No randomness from the kernel for a cluster key: %s", strerror(-result));
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    text[sizeof(text) - 1] = '\n';
    OPENSSL_cleanse(bytes, sizeof(bytes));

    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        result = -errno;
        OPENSSL_cleanse(text, sizeof(text));
        if (result == -EEXIST)
            return error_set(error, result, "%s exists already; a cluster key is never overwritten: choose another path "
                                            "or remove it", path);
        return error_set(error, result, "Cannot create the cluster key file %s: %s", path, strerror(-result));
    }
    result = fchmod(fd, 0600) < 0 ? -errno : 0; /* whatever the umask took away */
    if (result == 0)
        result = write_all(fd, text, sizeof(text));
    close(fd);
    if (result == 0)
        result = sync_directory_of(path);
    OPENSSL_cleanse(text, sizeof(text));
    if (result < 0) {
        (void)unlink(path);
        return error_set(error, result, "Cannot write the cluster key file %s: %s", path, strerror(-result));
    }
    return 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int key_parse(const char *text, size_t size, struct cluster_key *ret_key)
{
    if (size == CLUSTER_KEY_FILE_BYTES && text[size - 1] == '\n')
        size--;
    if (size != 2 * CLUSTER_KEY_BYTES)
        return -EINVAL;
    struct cluster_key key;
    for (unsigned i = 0; i < CLUSTER_KEY_BYTES; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return -EINVAL;
        key.bytes[i] = (uint8_t)(high << 4 | low);
    }
    *ret_key = key;
    key_wipe(&key);
    return 0;
}

/* What fstat says of a file that we shall trust with being secret. */
static int key_file_check(const char *path, const struct stat *st, struct error *error)
{
    if (!S_ISREG(st->st_mode))
        return error_set(error, -EINVAL, "The cluster key %s is not a regular file", path);
    if (st->st_uid != 0 && st->st_uid != geteuid())
        return error_set(error, -EPERM, "The cluster key %s belongs to user %u, who could change it: chown root %s", path,
                         (unsigned)st->st_uid, path);
    if (st->st_mode & 077)
        return error_set(error, -EPERM, "The cluster key %s is open to others (mode %04o): chmod 600 %s", path,
                         (unsigned)(st->st_mode & 07777), path);
    return 0;
}

int key_read(const char *path, struct cluster_key *ret_key, struct error *error)
{
    char text[CLUSTER_KEY_FILE_BYTES + 1]; /* one more, to see that a file is too long */
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        int result = -errno;
        if (result == -ENOENT)
            return error_set(error, result, "There is no cluster key at %s: make one with directord --generate-key %s, or "
                                            "copy it from a node of the cluster", path, path);
        return error_set(error, result, "Cannot open the cluster key %s: %s", path, strerror(-result));
    }
    int result = fstat(fd, &st) < 0 ? error_set(error, -errno, "Cannot look at the cluster key %s: %s", path, strerror(errno))
                                    : key_file_check(path, &st, error);
    size_t size = 0;
    while (result == 0 && size < sizeof(text)) {
        ssize_t got = read(fd, text + size, sizeof(text) - size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            result = error_set(error, -errno, "Cannot read the cluster key %s: %s", path, strerror(errno));
        if (got <= 0)
            break;
        size += (size_t)got;
    }
    close(fd);
    if (result == 0 && key_parse(text, size, ret_key) < 0)
        result = error_set(error, -EINVAL, "The cluster key %s is malformed: it must be %u hex digits and a newline; copy it "
                                           "again from a node of the cluster", path, 2 * CLUSTER_KEY_BYTES);
    OPENSSL_cleanse(text, sizeof(text));
    return result;
}

int key_derive(const struct cluster_key *key, const char *label, const void *context, size_t context_bytes, void *to,
               size_t size)
{
    /* info = label NUL context: no label can run into a context. */
    uint8_t info[KEY_INFO_MAX_BYTES];
    size_t label_bytes = strlen(label) + 1;
    if (size == 0 || size > HKDF_MAX_BYTES || label_bytes > sizeof(info) || context_bytes > sizeof(info) - label_bytes)
        return -EINVAL;
    memcpy(info, label, label_bytes);
    if (context_bytes)
        memcpy(info + label_bytes, context, context_bytes);

    EVP_KDF *kdf = EVP_KDF_fetch(NULL, OSSL_KDF_NAME_HKDF, NULL);
    EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)key->bytes, sizeof(key->bytes)),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)key_salt, sizeof(key_salt) - 1),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, label_bytes + context_bytes),
        OSSL_PARAM_construct_end(),
    };
    int result = ctx && EVP_KDF_derive(ctx, to, size, params) == 1 ? 0 : -ENOMEM;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return result;
}

int key_discovery_tag(const struct cluster_key *key, char ret_tag[static KEY_TAG_TEXT_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[16];
    int result = key_derive(key, KEY_LABEL_DISCOVERY, NULL, 0, bytes, sizeof(bytes));
    if (result < 0)
        return result;
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        ret_tag[2 * i] = digits[bytes[i] >> 4];
        ret_tag[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret_tag[KEY_TAG_TEXT_SIZE - 1] = '\0';
    return 0;
}

int key_peer_psk(const struct cluster_key *key, uint8_t ret_psk[static KEY_PSK_BYTES])
{
    return key_derive(key, KEY_LABEL_PEER, NULL, 0, ret_psk, KEY_PSK_BYTES);
}

int key_corosync(const struct cluster_key *key, const struct uuid *cluster, uint8_t ret_bytes[static KEY_COROSYNC_BYTES])
{
    return key_derive(key, KEY_LABEL_COROSYNC, cluster->bytes, sizeof(cluster->bytes), ret_bytes, KEY_COROSYNC_BYTES);
}

void key_wipe(struct cluster_key *key)
{
    OPENSSL_cleanse(key, sizeof(*key));
}
