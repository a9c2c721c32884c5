#include "plugins/loader/loader.h"
#include "plugins/common/option.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/* TEST_PLUGINS: the folder of the plugins built from loader_test_plugin.c */

static char logged[64];

static void log_keep(int level, const char *text)
{
    (void)level;
    (void)snprintf(logged, sizeof(logged), "%s", text);
}

static int setup(void **state)
{
    return plugin_loader_new(log_keep, (struct plugin_loader **)state);
}

static int teardown(void **state)
{
    plugin_loader_free(*state);
    return 0;
}

static const struct director_plugin *good(struct plugin_loader *loader)
{
    struct error error;
    if (plugin_loader_load(loader, TEST_PLUGINS "/GOOD.so", &error) < 0)
        fail_msg("%s", error.message);
    return plugin_loader_find(loader, DIRECTOR_PLUGIN_BACKSTORE, "test", &error);
}

static void wrong_plugins_are_refused_with_words(void **state)
{
    static const struct {
        const char *name;
        int code;
        const char *word;
    } wrong[] = {{"SYMBOL", -ELIBBAD, "not a Director plugin"},
                 {"ABI", -EPROTONOSUPPORT, "ABI 2"},
                 {"SIZE", -EINVAL, "40 bytes"},
                 {"KIND", -EINVAL, "kind 9"},
                 {"FUNCTIONS", -EINVAL, "open, create and remove"},
                 {"PARAMETER", -EINVAL, "Bad Name"},
                 {"LOAD", -EACCES, "refuses to start"},
                 {"ABSENT", -ENOENT, "cannot be loaded"}};
    struct plugin_info info;
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        char file[1024];
        struct error error = {0};
        (void)snprintf(file, sizeof(file), TEST_PLUGINS "/%s.so", wrong[i].name);
        assert_int_equal(plugin_loader_load(*state, file, &error), wrong[i].code);
        assert_non_null(strstr(error.message, wrong[i].word));
        assert_non_null(strstr(error.message, wrong[i].name));
    }
    assert_false(plugin_loader_get(*state, 0, &info));
}

static unsigned refused_count;

static void count_refused(const char *file, const struct error *error, void *context)
{
    (void)context;
    assert_non_null(strstr(error->message, file));
    refused_count++;
}

static void a_folder_is_loaded_around_its_bad_files(void **state)
{
    struct error error = {0};
    struct plugin_info info;
    refused_count = 0;
    assert_int_equal(plugin_loader_load_folder(*state, TEST_PLUGINS, count_refused, NULL, &error), 1);
    assert_int_equal(refused_count, 7);
    assert_true(plugin_loader_get(*state, 0, &info));
    assert_string_equal(info.plugin->name, "test");
    assert_string_equal(info.file, TEST_PLUGINS "/GOOD.so");
    assert_false(plugin_loader_get(*state, 1, &info));
    assert_string_equal(logged, "loaded");
    assert_int_equal(plugin_loader_load_folder(*state, TEST_PLUGINS "/absent", NULL, NULL, &error), -ENOENT);
    assert_non_null(strstr(error.message, "/absent"));
}

static void one_kind_and_name_is_loaded_once(void **state)
{
    struct error error = {0};
    (void)good(*state);
    assert_int_equal(plugin_loader_load(*state, TEST_PLUGINS "/GOOD.so", &error), -EEXIST);
    assert_null(plugin_loader_find(*state, DIRECTOR_PLUGIN_FILTER, "test", &error));
    assert_int_equal(error.code, -ENOENT);
    assert_null(plugin_loader_find(*state, DIRECTOR_PLUGIN_BACKSTORE, "tape", &error));
    assert_string_equal(error.message, "there is no backstore \"tape\"; loaded are: test");
}

static void options_are_checked_against_the_parameters(void **state)
{
    const struct director_plugin *plugin = good(*state);
    static const struct {
        struct director_option options[4];
        const char *word; /* NULL: right */
    } cases[] = {{{{"label", "x"}}, NULL},
                 {{{"label", "x"}, {"block", "64K"}, {"fast", "yes"}}, NULL},
                 {{{NULL, NULL}}, "needs the parameter label"},
                 {{{"label", "x"}, {"colour", "red"}}, "no parameter \"colour\"; it has: block, depth, fast, label"},
                 {{{"label", "x"}, {"block", "many"}}, "must be a size"},
                 {{{"label", "x"}, {"block", "99999999999999999999"}}, "must be a size"},
                 {{{"label", "x"}, {"block", "20000000000T"}}, "must be a size"},
                 {{{"label", "x"}, {"block", "-1"}}, "must be a size"},
                 {{{"label", "x"}, {"depth", "4K"}}, "must be a number"},
                 {{{"label", "x"}, {"fast", "perhaps"}}, "must be yes or no"},
                 {{{"label", NULL}}, "must be a text"},
                 {{{"label", "x"}, {"label", "y"}}, "given twice"}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error error = {0};
        int result = plugin_options_check(plugin, cases[i].options, PLUGIN_OPTIONS_OPEN, &error);
        assert_int_equal(result, cases[i].word ? -EINVAL : 0);
        if (cases[i].word)
            assert_non_null(strstr(error.message, cases[i].word));
    }
    struct error error = {0};
    const struct director_option live[] = {{"depth", "9"}, {NULL, NULL}}, fixed[] = {{"block", "512"}, {NULL, NULL}};
    assert_int_equal(plugin_options_check(plugin, live, PLUGIN_OPTIONS_CONFIGURE, &error), 0);
    assert_int_equal(plugin_options_check(plugin, fixed, PLUGIN_OPTIONS_CONFIGURE, &error), -EINVAL);
    assert_non_null(strstr(error.message, "while open; it has: depth, fast"));
}

static void defaults_are_filled_in_and_words_are_carried_over(void **state)
{
    const struct director_plugin *plugin = good(*state);
    struct error error = {0};
    struct block_device *device, lower = {0};
    uint64_t capacity, unused;
    const struct director_option options[] = {{"label", "x"}, {"fast", "yes"}, {NULL, NULL}};
    const struct director_option live[] = {{"depth", "9"}, {NULL, NULL}};
    assert_int_equal(plugin_open(plugin, NULL, "p", NULL, options, &device, &error), 0);
    assert_string_equal(device->kind, "block=4096;depth=8;fast=yes;label=x;");
    assert_int_equal(plugin_configure(plugin, device, live, &error), 0);
    assert_string_equal(device->kind, "depth=9;");
    assert_int_equal(plugin_create(plugin, "full", 4096, options, &error), -ENOSPC);
    assert_string_equal(error.message, "backstore test cannot create full: No space left on device");
    assert_int_equal(plugin_remove(plugin, "p", &error), -EBUSY);
    assert_string_equal(error.message, "the test plugin's own words");
    assert_int_equal(plugin_space(plugin, "p", &capacity, &unused, &error), -ENOTSUP);
    assert_int_equal(plugin_open(plugin, NULL, "p", &lower, options, &device, &error), -EINVAL);
    assert_non_null(strstr(error.message, "cannot be stacked"));
}

static void sizes_have_units(void **state)
{
    uint64_t bytes;
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } right[] = {{"0", 0}, {"512", 512}, {"4K", 4096}, {"4k", 4096}, {"10G", 10ull << 30}, {"1TiB", 1ull << 40}, {"2MB", 2 << 20}};
    static const char *const wrong[] = {"", "K", " 1", "+1", "1 K", "1KK", "1X", "1.5G", "0x10"};
    for (size_t i = 0; i < ARRAY_SIZE(right); i++) {
        assert_int_equal(option_parse_size(right[i].text, &bytes), 0);
        assert_true(bytes == right[i].bytes);
    }
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_int_equal(option_parse_size(wrong[i], &bytes), -EINVAL);
    assert_int_equal(option_parse_size("16E", &bytes), -ERANGE);
    assert_int_equal(option_parse_size("18446744073709551616", &bytes), -ERANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(wrong_plugins_are_refused_with_words, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_is_loaded_around_its_bad_files, setup, teardown),
        cmocka_unit_test_setup_teardown(one_kind_and_name_is_loaded_once, setup, teardown),
        cmocka_unit_test_setup_teardown(options_are_checked_against_the_parameters, setup, teardown),
        cmocka_unit_test_setup_teardown(defaults_are_filled_in_and_words_are_carried_over, setup, teardown),
        cmocka_unit_test(sizes_have_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
