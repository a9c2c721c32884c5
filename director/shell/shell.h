/* What the parts of the shell share. */
#ifndef DIRECTOR_SHELL_SHELL_H
#define DIRECTOR_SHELL_SHELL_H

#include "director/base/text.h"
#include "director/shell/words.h"
#include <director/client.h>
#include <stdbool.h>

/* Exit codes, also in director.1. */
enum shell_exit {
    EXIT_DONE = 0,
    EXIT_REFUSED = 1,  /* the cluster said no: unknown object, wrong value, in use, no space */
    EXIT_USAGE = 2,    /* the command makes no sense; nothing was sent */
    EXIT_NO_AGENT = 3, /* no agent could be reached, or the connection broke */
    EXIT_TIMEOUT = 4,  /* no answer in time: a change may or may not have been made */
    EXIT_NO_QUORUM = 5 /* the cluster is not quorate: nothing was changed */
};

struct shell {
    struct director *director;
    char folder[SHELL_PATH_MAX]; /* where one is */
    bool json, quiet, color, unicode;
    bool interactive; /* a person at a terminal: confirm what destroys */
    bool yes;         /* --yes: do not ask */
    bool leave;
    char *(*ask)(struct shell *shell, const char *question); /* a line, the caller's; NULL: end of input */
};

/* ---- command.c */

extern const char *const shell_verbs[]; /* built in; ended by NULL */
/* Run one command of words. An exit code; what went wrong has been said on standard error. */
int shell_run(struct shell *shell, char **words, unsigned count);
/* Say a sentence on standard error (and with --json an object on standard output). Returns exit_code. */
int shell_error(struct shell *shell, int exit_code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Say why the last call failed. Returns the exit code that suits. */
int shell_call_failed(struct shell *shell, int code);
bool shell_is_verb(const char *word);

/* ---- print.c: to standard output */

void print_tree(const struct shell *shell, const struct director_result *result);
void print_properties(const struct shell *shell, const struct director_object *object);
void print_status(const struct shell *shell, const struct director_result *result);
void print_description(const struct shell *shell, const struct director_result *result);
void print_event(const struct shell *shell, const struct director_result *result);
/* JSON of a whole result: a list of objects, one object, or lines and objects. */
void print_json_objects(const struct director_result *result);
void print_json_object(const struct director_object *object);
void print_json_result(const struct director_result *result, bool one_line);
void print_json_error(int code, const char *message);

/* ---- complete.c */

struct candidates {
    char **text; /* each the whole word, with "/" or "=" behind it where more follows */
    size_t count;
    size_t word_bytes; /* length of what is typed of the word */
};

/* What can stand where line (up to the cursor) ends. Errors give no candidates. Release with candidates_done(). */
void complete_line(struct shell *shell, const char *line, struct candidates *ret_candidates);
void candidates_done(struct candidates *candidates);

/* ---- interactive.c */

/* Read commands from standard input until its end: with prompt, history and completion at a terminal, plainly otherwise
 * (then the first command that fails ends it). An exit code. */
int shell_interact(struct shell *shell);

#endif
