#include "agent/io/key.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char directory[] = "/tmp/key_test.XXXXXX";
static char path[64];

static int make_directory(void **state)
{
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    (void)snprintf(path, sizeof(path), "%s/cluster.key", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(directory);
}

static int remove_file(void **state)
{
    (void)state;
    (void)unlink(path);
    return 0;
}

static void write_file(const char *text, mode_t mode)
{
    (void)unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static const char good[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1F\n";

static void generated_key_is_private_and_reads_back(void **state)
{
    (void)state;
    struct cluster_key a, b;
    struct error error;
    struct stat st;
    mode_t before = umask(0);
    assert_int_equal(key_generate(path, &error), 0);
    (void)umask(before);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, CLUSTER_KEY_FILE_BYTES);
    assert_int_equal(key_read(path, &a, &error), 0);
    assert_int_equal(key_generate(path, &error), -EEXIST);
    assert_non_null(strstr(error.message, path));
    assert_int_equal(key_read(path, &b, &error), 0);
    assert_memory_equal(&a, &b, sizeof(a));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(key_generate(path, &error), 0);
    assert_int_equal(key_read(path, &b, &error), 0);
    assert_memory_not_equal(&a, &b, sizeof(a));
}

static void key_open_to_others_is_refused_with_the_way_out(void **state)
{
    (void)state;
    static const mode_t modes[] = {0640, 0604, 0660, 0620, 0601};
    struct cluster_key key;
    struct error error;
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        write_file(good, modes[i]);
        assert_int_equal(key_read(path, &key, &error), -EPERM);
        assert_non_null(strstr(error.message, "chmod 600"));
    }
    write_file(good, 0400);
    assert_int_equal(key_read(path, &key, &error), 0);
}

static void key_of_another_user_is_refused(void **state)
{
    (void)state;
    struct cluster_key key;
    struct error error;
    if (geteuid() != 0)
        skip();
    write_file(good, 0600);
    assert_int_equal(chown(path, 65534, 65534), 0);
    assert_int_equal(key_read(path, &key, &error), -EPERM);
}

static void malformed_key_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "\n", "00", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1\n",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1g\n",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n\n",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f0",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f00\n",
    };
    struct cluster_key key;
    struct error error;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        write_file(bad[i], 0600);
        assert_int_equal(key_read(path, &key, &error), -EINVAL);
        assert_non_null(strstr(error.message, path));
    }
    assert_int_equal(key_read("/nonexistent/key", &key, &error), -ENOENT);
    assert_non_null(strstr(error.message, "--generate-key"));
    assert_int_equal(key_read(directory, &key, &error), -EINVAL);
}

static void derived_keys_differ_by_use_cluster_and_key(void **state)
{
    (void)state;
    struct cluster_key key, other;
    struct uuid a = {{1}}, b = {{2}};
    uint8_t psk[KEY_PSK_BYTES], again[KEY_PSK_BYTES], first[KEY_COROSYNC_BYTES], second[KEY_COROSYNC_BYTES];
    char tag[KEY_TAG_TEXT_SIZE];
    struct error error;
    write_file(good, 0600);
    assert_int_equal(key_read(path, &key, &error), 0);
    assert_int_equal(key.bytes[31], 0x1f);
    other = key;
    other.bytes[0] ^= 1;
    assert_int_equal(key_peer_psk(&key, psk), 0);
    assert_int_equal(key_peer_psk(&key, again), 0);
    assert_memory_equal(psk, again, sizeof(psk));
    assert_int_equal(key_peer_psk(&other, again), 0);
    assert_memory_not_equal(psk, again, sizeof(psk));
    assert_int_equal(key_corosync(&key, &a, first), 0);
    assert_int_equal(key_corosync(&key, &b, second), 0);
    assert_memory_not_equal(first, second, sizeof(first));
    assert_memory_not_equal(first, psk, sizeof(psk));
    assert_int_equal(key_discovery_tag(&key, tag), 0);
    assert_int_equal(strlen(tag), KEY_TAG_TEXT_SIZE - 1);
    key_wipe(&key);
    assert_int_equal(key.bytes[31], 0);
}

/* RFC 5869 says what HKDF is; this pins label, salt and layout, which two versions of the program must share. */
static void derivation_is_the_same_for_ever(void **state)
{
    (void)state;
    struct cluster_key key = {{0}};
    uint8_t out[8];
    static const uint8_t expected[8] = {0xba, 0x3b, 0xd7, 0x52, 0x81, 0x23, 0xcf, 0x9c};
    assert_int_equal(key_derive(&key, "test", "context", 7, out, sizeof(out)), 0);
    assert_memory_equal(out, expected, sizeof(out));
    assert_int_equal(key_derive(&key, "test", NULL, 0, out, 0), -EINVAL);
    assert_int_equal(key_derive(&key, "test", NULL, 0, out, 8161), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(generated_key_is_private_and_reads_back, remove_file),
        cmocka_unit_test_teardown(key_open_to_others_is_refused_with_the_way_out, remove_file),
        cmocka_unit_test_teardown(key_of_another_user_is_refused, remove_file),
        cmocka_unit_test_teardown(malformed_key_is_refused, remove_file),
        cmocka_unit_test_teardown(derived_keys_differ_by_use_cluster_and_key, remove_file),
        cmocka_unit_test(derivation_is_the_same_for_ever),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
