#include "agent/io/corosync_config.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static struct corosync_config valid(struct corosync_node *nodes, size_t count)
{
    struct corosync_config config = {.nodes = nodes, .node_count = count, .keyfile = "/k", .state_dir = "/s", .logfile = "/l"};
    for (size_t i = 0; i < count; i++) {
        nodes[i].nodeid = (uint32_t)(count - i);
        (void)snprintf(nodes[i].name, sizeof(nodes[i].name), "node%zu", count - i);
        (void)snprintf(nodes[i].address, sizeof(nodes[i].address), "10.0.0.%zu", count - i);
    }
    return config;
}

static void text_holds_the_settings_that_were_measured(void **state)
{
    (void)state;
    static const char *const wanted[] = {"transport: knet", "crypto_model: openssl", "crypto_cipher: aes256",
                                         "crypto_hash: sha256", "token: 300\n", "token_coefficient: 0\n",
                                         "knet_ping_interval: 200\n", "knet_ping_timeout: 1000\n",
                                         "knet_pong_count: 2\n", "provider: corosync_votequorum", "state_dir: /s\n",
                                         "keyfile: /k\n", "logfile: /l\n", "mcastport: 5405\n"};
    struct corosync_node nodes[3];
    struct corosync_config config = valid(nodes, 3);
    char text[COROSYNC_TEXT_SIZE];
    int length = corosync_config_render(&config, text, sizeof(text), NULL);
    assert_int_equal(length, strlen(text));
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
        assert_non_null(strstr(text, wanted[i]));
    assert_null(strstr(text, "two_node"));
    assert_null(strstr(text, "config_version")); /* corosync issue 828 */
}

static void same_list_in_any_order_gives_the_same_bytes(void **state)
{
    (void)state;
    struct corosync_node nodes[3], other[3];
    struct corosync_config config = valid(nodes, 3), turned = valid(other, 3);
    char text[COROSYNC_TEXT_SIZE], again[COROSYNC_TEXT_SIZE];
    struct corosync_node keep = other[0];
    other[0] = other[2];
    other[2] = keep;
    assert_true(corosync_config_render(&config, text, sizeof(text), NULL) > 0);
    assert_true(corosync_config_render(&turned, again, sizeof(again), NULL) > 0);
    assert_string_equal(text, again);
}

static void bad_lists_are_refused_with_words(void **state)
{
    (void)state;
    struct corosync_node nodes[3];
    struct corosync_config config;
    struct error error = {0};
    char text[COROSYNC_TEXT_SIZE];
#define REFUSED(change, word)                                                                         \
    do {                                                                                              \
        config = valid(nodes, 3);                                                                     \
        change;                                                                                       \
        error_clear(&error);                                                                          \
        assert_int_equal(corosync_config_render(&config, text, sizeof(text), &error), -EINVAL);       \
        assert_non_null(strstr(error.message, word));                                                 \
    } while (0)
    REFUSED(config.node_count = 0, "1 to");
    REFUSED(config.node_count = COROSYNC_NODES_MAX + 1, "1 to");
    REFUSED(nodes[1].nodeid = 0, "1..65535");
    REFUSED(nodes[1].nodeid = 65536, "1..65535");
    REFUSED(nodes[1].nodeid = nodes[0].nodeid, "same node id");
    REFUSED(nodes[1].name[0] = '}', "name");
    REFUSED(nodes[1].name[2] = '\n', "name");
    REFUSED(nodes[1].name[0] = '\0', "name");
    REFUSED(memcpy(nodes[1].address, "fe80::1", 8), "one family");
    REFUSED(memcpy(nodes[1].address, "10.0.0.x", 9), "IP address");
    REFUSED(config.keyfile = "/a b", "white space");
    REFUSED(config.logfile = "relative", "absolute");
    config = valid(nodes, 3);
    assert_int_equal(corosync_config_render(&config, text, 100, &error), -ENOSPC);
}

static void largest_list_fits(void **state)
{
    (void)state;
    struct corosync_node nodes[COROSYNC_NODES_MAX];
    struct corosync_config config = valid(nodes, COROSYNC_NODES_MAX);
    char text[COROSYNC_TEXT_SIZE];
    for (size_t i = 0; i < COROSYNC_NODES_MAX; i++) {
        nodes[i].nodeid = (uint32_t)(65535 - i);
        memset(nodes[i].name, 'n', sizeof(nodes[i].name) - 1);
        nodes[i].name[sizeof(nodes[i].name) - 1] = '\0';
        (void)snprintf(nodes[i].address, sizeof(nodes[i].address), "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255");
    }
    assert_true(corosync_config_render(&config, text, sizeof(text), NULL) > 0);
}

static void files_are_replaced_whole_private_and_only_when_they_differ(void **state)
{
    (void)state;
    char folder[] = "/tmp/corosync_config_test.XXXXXX", path[64], key[64], states[64];
    struct corosync_node nodes[2];
    struct corosync_config config = valid(nodes, 2);
    struct uuid cluster = {.bytes = {1, 2, 3}};
    struct cluster_key secret = {.bytes = {4, 5}};
    struct stat status, later;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/corosync.conf", folder);
    (void)snprintf(key, sizeof(key), "%s/key", folder);
    (void)snprintf(states, sizeof(states), "%s/state", folder);
    config.state_dir = states;
    assert_int_equal(corosync_config_write(&config, path, NULL), 0);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(corosync_config_write(&config, path, NULL), 1);
    assert_int_equal(stat(path, &later), 0);
    assert_true(status.st_ino == later.st_ino);
    config.node_count = 1;
    assert_int_equal(corosync_config_write(&config, path, NULL), 0);
    assert_int_equal(corosync_key_write(&secret, &cluster, key, NULL), 0);
    assert_int_equal(stat(key, &status), 0);
    assert_int_equal(status.st_size, KEY_COROSYNC_BYTES);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(chmod(key, 0644), 0);
    assert_int_equal(corosync_key_write(&secret, &cluster, key, NULL), 0); /* made private again */
    assert_int_equal(stat(key, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    struct error error = {0};
    assert_int_equal(corosync_config_write(&config, "/nowhere/corosync.conf", &error), -ENOENT);
    assert_non_null(strstr(error.message, "/nowhere"));
    unlink(path);
    unlink(key);
    rmdir(states);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_holds_the_settings_that_were_measured),
        cmocka_unit_test(same_list_in_any_order_gives_the_same_bytes),
        cmocka_unit_test(bad_lists_are_refused_with_words),
        cmocka_unit_test(largest_list_fits),
        cmocka_unit_test(files_are_replaced_whole_private_and_only_when_they_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
