/* Lines to words, and paths relative to where one is. Pure. */
#ifndef DIRECTOR_SHELL_WORDS_H
#define DIRECTOR_SHELL_WORDS_H

#include "director/base/common.h"
#include <stdbool.h>

#define WORDS_MAX      128u
#define SHELL_PATH_MAX 1024u

struct words {
    char *text;              /* storage */
    char *word[WORDS_MAX];
    unsigned count;
    bool open;               /* the line ends inside the last word (or inside quotes), not after a blank */
};

/* Split as a shell does: blanks, '...', "...", backslash; a # that begins a word begins a comment. -E2BIG for too many words.
 * An unclosed quote runs to the end of the line. Release with words_done(). */
MUST_CHECK int words_split(const char *line, struct words *ret_words);
void words_done(struct words *words);

/* path from folder: absolute when it starts with "/"; "." and ".." are resolved; no trailing slash but for "/" itself.
 * -ENAMETOOLONG. */
MUST_CHECK int path_resolve(const char *folder, const char *path, char resolved[static SHELL_PATH_MAX]);

#endif
