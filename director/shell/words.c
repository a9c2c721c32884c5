#include "director/shell/words.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

int words_split(const char *line, struct words *ret_words)
{
    struct words words = {.text = malloc(strlen(line) + 2)};
    char *out = words.text;
    char quote = 0;
    bool in_word = false;
    if (!words.text)
        return -ENOMEM;
    for (const char *p = line; *p; p++) {
        if (!quote && isspace((unsigned char)*p)) {
            if (in_word)
                *out++ = '\0';
            in_word = false;
            continue;
        }
        if (!in_word) {
            if (*p == '#')
                break;
            if (words.count == WORDS_MAX) {
                free(words.text);
                return -E2BIG;
            }
            words.word[words.count++] = out;
            in_word = true;
        }
        if (quote && *p == quote)
            quote = 0;
        else if (!quote && (*p == '\'' || *p == '"'))
            quote = *p;
        else if (*p == '\\' && quote != '\'' && p[1])
            *out++ = *++p;
        else
            *out++ = *p;
    }
    *out = '\0';
    words.open = in_word;
    *ret_words = words;
    return 0;
}

void words_done(struct words *words)
{
    free(words->text);
    *words = (struct words){0};
}

int path_resolve(const char *folder, const char *path, char resolved[static SHELL_PATH_MAX])
{
    const char *parts[2] = {path[0] == '/' ? "" : folder, path};
    size_t used = 0;
    for (int i = 0; i < 2; i++) {
        for (const char *p = parts[i]; *p;) {
            size_t length = strcspn(p, "/");
            if (length == 2 && p[0] == '.' && p[1] == '.') {
                while (used && resolved[--used] != '/')
                    ;
            } else if (length && !(length == 1 && p[0] == '.')) {
                if (used + length + 2 > SHELL_PATH_MAX)
                    return -ENAMETOOLONG;
                resolved[used++] = '/';
                memcpy(resolved + used, p, length);
                used += length;
            }
            p += length + (p[length] == '/');
        }
    }
    if (used == 0)
        resolved[used++] = '/';
    resolved[used] = '\0';
    return 0;
}
