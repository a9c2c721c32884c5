/* Reading commands: with libedit at a terminal, plainly from a pipe or file. */
#include "director/shell/shell.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HISTORY_MAX = 1000 };

/* One at a time, and libedit's prompt and key functions get no context of ours but EL_CLIENTDATA. */
struct session {
    struct shell *shell;
    EditLine *edit;
    History *history;
    char prompt[SHELL_PATH_MAX + 96];
    char history_path[1024];
};

static char *prompt(EditLine *edit)
{
    struct session *session;
    el_get(edit, EL_CLIENTDATA, &session);
    return session->prompt;
}

static void make_prompt(struct session *session)
{
    struct director_result *result;
    const char *name = NULL;
    if (director_get(session->shell->director, "/", &result) < 0) {
        (void)snprintf(session->prompt, sizeof(session->prompt), "(no agent):%s> ", session->shell->folder);
        return;
    }
    if (director_result_object(result, 0))
        name = director_object_value(director_result_object(result, 0), "name");
    (void)snprintf(session->prompt, sizeof(session->prompt), "%.64s:%s> ", name && name[0] ? name : "director",
                   session->shell->folder);
    director_result_free(result);
}

static size_t common_prefix(const struct candidates *candidates)
{
    size_t length = strlen(candidates->text[0]);
    for (size_t i = 1; i < candidates->count; i++) {
        size_t same = 0;
        while (same < length && candidates->text[i][same] == candidates->text[0][same])
            same++;
        length = same;
    }
    return length;
}

static void show_candidates(const struct candidates *candidates)
{
    struct winsize size = {.ws_col = 80};
    size_t widest = 0;
    (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    for (size_t i = 0; i < candidates->count; i++)
        widest = MAX(widest, strlen(candidates->text[i]));
    size_t columns = MAX((size_t)1, (size_t)(size.ws_col ? size.ws_col : 80) / (widest + 2));
    putchar('\n');
    for (size_t i = 0; i < candidates->count; i++)
        printf("%-*s%s", (int)widest + 2, candidates->text[i], (i + 1) % columns && i + 1 < candidates->count ? "" : "\n");
    fflush(stdout);
}

static unsigned char complete(EditLine *edit, int key)
{
    struct session *session;
    struct candidates candidates;
    const LineInfo *info = el_line(edit);
    unsigned char result = CC_NORM;
    (void)key;
    el_get(edit, EL_CLIENTDATA, &session);
    char *line = strndup(info->buffer, (size_t)(info->cursor - info->buffer));
    if (!line)
        return CC_ERROR;
    complete_line(session->shell, line, &candidates);
    if (candidates.count == 0) {
        result = CC_ERROR;
    } else {
        size_t length = common_prefix(&candidates);
        if (length > candidates.word_bytes) {
            char *more = strndup(candidates.text[0] + candidates.word_bytes, length - candidates.word_bytes);
            if (more)
                (void)el_insertstr(edit, more);
            free(more);
            char last = candidates.text[0][length - 1];
            if (candidates.count == 1 && last != '/' && last != '=')
                (void)el_insertstr(edit, " ");
            result = CC_REFRESH;
        } else if (candidates.count == 1) {
            (void)el_insertstr(edit, " ");
            result = CC_REFRESH;
        } else {
            show_candidates(&candidates);
            result = CC_REDISPLAY;
        }
    }
    candidates_done(&candidates);
    free(line);
    return result;
}

static char *ask(struct shell *shell, const char *question)
{
    char *line = NULL;
    size_t size = 0;
    (void)shell;
    fputs(question, stdout);
    fflush(stdout);
    ssize_t length = getline(&line, &size, stdin);
    if (length < 0) {
        free(line);
        return NULL;
    }
    if (length && line[length - 1] == '\n')
        line[length - 1] = '\0';
    return line;
}

/* A word at the prompt that is empty or only a comment gives EXIT_DONE. */
static int run_line(struct shell *shell, const char *line)
{
    struct words words;
    int code = words_split(line, &words);
    if (code < 0)
        return shell_error(shell, EXIT_USAGE, code == -E2BIG ? "more than %u words" : "out of memory", WORDS_MAX);
    int exit_code = words.count ? shell_run(shell, words.word, words.count) : EXIT_DONE;
    words_done(&words);
    return exit_code;
}

static int run_plainly(struct shell *shell)
{
    char *line = NULL;
    size_t size = 0;
    int code = EXIT_DONE;
    while (code == EXIT_DONE && !shell->leave && getline(&line, &size, stdin) >= 0)
        code = run_line(shell, line);
    free(line);
    return code;
}

static void history_open(struct session *session)
{
    HistEvent event;
    const char *home = getenv("HOME");
    session->history = history_init();
    if (!session->history)
        return;
    history(session->history, &event, H_SETSIZE, HISTORY_MAX);
    history(session->history, &event, H_SETUNIQUE, 1);
    el_set(session->edit, EL_HIST, history, session->history);
    if (!home || !home[0])
        return;
    (void)snprintf(session->history_path, sizeof(session->history_path), "%s/.director_history", home);
    history(session->history, &event, H_LOAD, session->history_path);
}

static void history_save(struct session *session)
{
    HistEvent event;
    if (session->history_path[0]) {
        mode_t before = umask(0077);
        history(session->history, &event, H_SAVE, session->history_path);
        umask(before);
    }
    if (session->history)
        history_end(session->history);
}

int shell_interact(struct shell *shell)
{
    struct session session = {.shell = shell};
    HistEvent event;
    const char *line;
    int count = 0;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return run_plainly(shell);
    session.edit = el_init("director", stdin, stdout, stderr);
    if (!session.edit)
        return run_plainly(shell);
    shell->interactive = true;
    shell->ask = ask;
    el_set(session.edit, EL_CLIENTDATA, &session);
    el_set(session.edit, EL_PROMPT, prompt);
    el_set(session.edit, EL_SIGNAL, 1);
    el_set(session.edit, EL_EDITOR, "emacs");
    el_set(session.edit, EL_ADDFN, "director-complete", "Complete what is typed", complete);
    el_set(session.edit, EL_BIND, "\t", "director-complete", NULL);
    el_set(session.edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(session.edit, NULL);
    history_open(&session);
    if (!shell->quiet)
        printf("director %s: help shows what can be done, tab completes, exit leaves.\n", director_version());
    while (!shell->leave) {
        make_prompt(&session);
        errno = 0;
        line = el_gets(session.edit, &count);
        if (!line || count <= 0) {
            if (line == NULL && errno == EINTR)
                continue;
            putchar('\n');
            break;
        }
        if (strspn(line, " \t\n") != strlen(line) && session.history)
            history(session.history, &event, H_ENTER, line);
        (void)run_line(shell, line);
    }
    history_save(&session);
    el_end(session.edit);
    return EXIT_DONE;
}
