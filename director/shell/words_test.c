#include "director/shell/words.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void expect_words(const char *line, unsigned count, const char *joined, bool open)
{
    struct words words;
    char text[256] = "";
    assert_int_equal(words_split(line, &words), 0);
    for (unsigned i = 0; i < words.count; i++) {
        strcat(text, i ? "|" : "");
        strcat(text, words.word[i]);
    }
    assert_int_equal(words.count, count);
    assert_string_equal(text, joined);
    assert_int_equal(words.open, open);
    words_done(&words);
}

static void lines_are_split_as_a_shell_does(void **state)
{
    (void)state;
    expect_words("", 0, "", false);
    expect_words("  \t\n", 0, "", false);
    expect_words("ls /volumes", 2, "ls|/volumes", true);
    expect_words("ls /volumes ", 2, "ls|/volumes", false);
    expect_words("set a='b c' d=\"e \\\" f\" g\\ h", 4, "set|a=b c|d=e \" f|g h", true);
    expect_words("a '' b", 3, "a||b", true);
    expect_words("a # b", 1, "a", false);
    expect_words("a#b", 1, "a#b", true);
    expect_words("'open quote", 1, "open quote", true);
    char many[2 * WORDS_MAX + 3] = "";
    struct words words;
    for (unsigned i = 0; i <= WORDS_MAX; i++)
        memcpy(many + 2 * i, "x ", 3);
    assert_int_equal(words_split(many, &words), -E2BIG);
}

static void paths_are_resolved(void **state)
{
    (void)state;
    static const char *const table[][3] = {
        {"/", "volumes", "/volumes"},      {"/volumes", "vol1/", "/volumes/vol1"},
        {"/volumes/vol1", "..", "/volumes"}, {"/volumes", "../..", "/"},
        {"/volumes", "/nodes", "/nodes"},  {"/", ".", "/"},
        {"/a", "./b//c/../d", "/a/b/d"},   {"/a", "", "/a"},
        {"/a", "...", "/a/..."},           {"/", "/", "/"},
    };
    char path[SHELL_PATH_MAX];
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        assert_int_equal(path_resolve(table[i][0], table[i][1], path), 0);
        assert_string_equal(path, table[i][2]);
    }
    char long_path[SHELL_PATH_MAX + 10];
    memset(long_path, 'x', sizeof(long_path));
    long_path[sizeof(long_path) - 1] = '\0';
    assert_int_equal(path_resolve("/", long_path, path), -ENAMETOOLONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_split_as_a_shell_does),
        cmocka_unit_test(paths_are_resolved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
