/* One command: [PATH] VERB [WORD...] or VERB [PATH] [WORD...]; see director.1. */
#include "director/shell/shell.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 64 };

const char *const shell_verbs[] = {"ls",   "cd",     "pwd",  "get",   "set",  "create", "delete",
                                   "status", "help", "watch", "exit", "quit", NULL};

bool shell_is_verb(const char *word)
{
    for (unsigned i = 0; shell_verbs[i]; i++)
        if (strcmp(shell_verbs[i], word) == 0)
            return true;
    return false;
}

int shell_error(struct shell *shell, int exit_code, const char *format, ...)
{
    struct text text = {0};
    char words[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(words, sizeof(words), format, arguments);
    va_end(arguments);
    text_add(&text, words);
    fflush(stdout);
    fprintf(stderr, "director: %s\n", text_get(&text));
    if (shell->json)
        print_json_error(exit_code == EXIT_USAGE ? -EINVAL : 0, text_get(&text));
    text_done(&text);
    return exit_code;
}

int shell_call_failed(struct shell *shell, int code)
{
    const char *words = director_error(shell->director);
    fflush(stdout);
    fprintf(stderr, "director: %s\n", words);
    if (shell->json)
        print_json_error(code, words);
    switch (code) {
    case -ETIMEDOUT:
        return EXIT_TIMEOUT;
    case -EAGAIN:
        return EXIT_NO_QUORUM;
    case -ECONNREFUSED:
    case -ECONNRESET:
    case -EPROTO:
    case -EUSERS:
        return EXIT_NO_AGENT;
    default:
        return EXIT_REFUSED;
    }
}

/* What is to be done, taken apart. */
struct order {
    const char *verb;
    char path[SHELL_PATH_MAX];
    bool path_given;
    const char *names[ARGUMENTS_MAX]; /* words without = */
    unsigned name_count;
    struct director_argument arguments[ARGUMENTS_MAX];
    char *storage[ARGUMENTS_MAX]; /* of argument names */
    unsigned argument_count;
};

static void order_done(struct order *order)
{
    for (unsigned i = 0; i < order->argument_count; i++)
        free(order->storage[i]);
}

static bool looks_like_path(const char *word)
{
    return word[0] == '/' || (word[0] == '.' && (word[1] == '\0' || word[1] == '/' || word[1] == '.'));
}

/* Verbs whose first word is a path, also a relative one. */
static bool walks(const char *verb)
{
    static const char *const verbs[] = {"ls", "cd", "status", "help", "watch", "delete", NULL};
    for (unsigned i = 0; verbs[i]; i++)
        if (strcmp(verbs[i], verb) == 0)
            return true;
    return false;
}

static bool all_digits(const char *word)
{
    return *word && strspn(word, "0123456789") == strlen(word);
}

static int order_path(struct shell *shell, struct order *order, const char *word)
{
    if (path_resolve(shell->folder, word, order->path) < 0)
        return shell_error(shell, EXIT_USAGE, "the path is too long");
    order->path_given = true;
    return EXIT_DONE;
}

static int order_words(struct shell *shell, struct order *order, char **words, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const char *equals = strchr(words[i], '=');
        if (order->name_count == ARGUMENTS_MAX || order->argument_count == ARGUMENTS_MAX)
            return shell_error(shell, EXIT_USAGE, "more than %d words", ARGUMENTS_MAX);
        if (!equals) {
            order->names[order->name_count++] = words[i];
            continue;
        }
        if (equals == words[i])
            return shell_error(shell, EXIT_USAGE, "\"%s\" has no property name before the =", words[i]);
        char *name = strndup(words[i], (size_t)(equals - words[i]));
        if (!name)
            return shell_error(shell, EXIT_REFUSED, "out of memory");
        order->storage[order->argument_count] = name;
        order->arguments[order->argument_count++] = (struct director_argument){name, equals + 1};
    }
    return EXIT_DONE;
}

static int order_parse(struct shell *shell, char **words, unsigned count, struct order *order)
{
    unsigned at = 0;
    int code = EXIT_DONE;
    (void)snprintf(order->path, sizeof(order->path), "%s", shell->folder);
    /* A path first: it looks like one, or it is no verb and another word follows that may be one. */
    if (looks_like_path(words[0]) ||
        (!shell_is_verb(words[0]) && !strchr(words[0], '=') && count > 1 && !strchr(words[1], '=')))
        code = order_path(shell, order, words[at++]);
    order->verb = at < count ? words[at++] : "ls";
    if (code == EXIT_DONE && at < count && !order->path_given &&
        (looks_like_path(words[at]) ||
         (walks(order->verb) && !(strcmp(order->verb, "ls") == 0 && all_digits(words[at])))))
        code = order_path(shell, order, words[at++]);
    if (code == EXIT_DONE && strchr(order->verb, '='))
        code = shell_error(shell, EXIT_USAGE, "\"%s\" is no verb; to set a property: set %s", order->verb, order->verb);
    if (code == EXIT_DONE)
        code = order_words(shell, order, words + at, count - at);
    /* /volumes delete vol1: the name below the path */
    if (code == EXIT_DONE && strcmp(order->verb, "delete") == 0 && order->name_count == 1) {
        char parent[SHELL_PATH_MAX];
        memcpy(parent, order->path, sizeof(parent));
        if (path_resolve(parent, order->names[0], order->path) < 0)
            code = shell_error(shell, EXIT_USAGE, "the path is too long");
        order->name_count = 0;
    }
    return code;
}

/* ---- verbs ------------------------------------------------------------------------------------------------------------------- */

/* An answer may come with a remark, e.g. that the cluster could not confirm it: aside, so that the answer stays clean. */
static void remark(const struct shell *shell, const struct director_result *result)
{
    if (!director_result_message(result)[0] || shell->quiet)
        return;
    fflush(stdout);
    fprintf(stderr, "director: note: %s\n", director_result_message(result));
}

static int run_ls(struct shell *shell, const struct order *order)
{
    unsigned depth = DIRECTOR_DEPTH_ALL;
    struct director_result *result;
    if (order->name_count > 1 || order->argument_count || (order->name_count && !all_digits(order->names[0])))
        return shell_error(shell, EXIT_USAGE, "usage: ls [PATH] [DEPTH]");
    if (order->name_count && strlen(order->names[0]) < 4)
        depth = (unsigned)atoi(order->names[0]);
    int code = director_list(shell->director, order->path, depth ? depth : 1, shell->json, &result);
    if (code < 0)
        return shell_call_failed(shell, code);
    if (shell->json)
        print_json_objects(result);
    else
        print_tree(shell, result);
    remark(shell, result);
    director_result_free(result);
    return EXIT_DONE;
}

static int run_cd(struct shell *shell, const struct order *order)
{
    struct director_result *result;
    const char *path = order->path_given ? order->path : "/";
    if (order->name_count || order->argument_count)
        return shell_error(shell, EXIT_USAGE, "usage: cd [PATH]");
    int code = director_get(shell->director, path, &result);
    if (code < 0)
        return shell_call_failed(shell, code);
    director_result_free(result);
    (void)snprintf(shell->folder, sizeof(shell->folder), "%s", path);
    return EXIT_DONE;
}

static int get_some(struct shell *shell, const struct order *order, const struct director_object *object)
{
    for (unsigned i = 0; i < order->name_count; i++) {
        const char *value = director_object_value(object, order->names[i]);
        if (value) {
            if (order->name_count > 1)
                printf("%s=%s\n", order->names[i], value);
            else
                printf("%s\n", value);
            continue;
        }
        struct text names = {0};
        for (size_t k = 0; k < director_object_property_count(object); k++)
            text_addf(&names, "%s%s", k ? ", " : "", director_property_name(director_object_property(object, k)));
        int code = shell_error(shell, EXIT_REFUSED, "%s has no property \"%s\"; it has%s%s", order->path, order->names[i],
                               names.used ? ": " : " none", names.used ? text_get(&names) : "");
        text_done(&names);
        return code;
    }
    return EXIT_DONE;
}

static int run_get(struct shell *shell, const struct order *order)
{
    struct director_result *result;
    if (order->argument_count)
        return shell_error(shell, EXIT_USAGE, "usage: get [PATH] [PROPERTY...]; to change one: set %s=%s",
                           order->arguments[0].name, order->arguments[0].value);
    int code = director_get(shell->director, order->path, &result);
    if (code < 0)
        return shell_call_failed(shell, code);
    const struct director_object *object = director_result_object(result, 0);
    code = EXIT_DONE;
    if (!object)
        code = shell_error(shell, EXIT_NO_AGENT, "the agent answered without an object");
    else if (shell->json)
        print_json_object(object);
    else if (order->name_count)
        code = get_some(shell, order, object);
    else if (director_object_property_count(object) == 0)
        printf("%s\n", director_object_summary(object));
    else
        print_properties(shell, object);
    remark(shell, result);
    director_result_free(result);
    return code;
}

static int run_status(struct shell *shell, const struct order *order)
{
    struct director_result *result;
    if (order->name_count || order->argument_count)
        return shell_error(shell, EXIT_USAGE, "usage: status [PATH]");
    int code = director_status(shell->director, order->path, &result);
    if (code < 0)
        return shell_call_failed(shell, code);
    if (shell->json)
        print_json_result(result, false);
    else
        print_status(shell, result);
    remark(shell, result);
    director_result_free(result);
    return EXIT_DONE;
}

static int run_help(struct shell *shell, const struct order *order)
{
    struct director_result *result;
    int code = director_describe(shell->director, order->path, &result);
    if (code < 0)
        return shell_call_failed(shell, code);
    if (shell->json)
        print_json_objects(result);
    else
        print_description(shell, result);
    director_result_free(result);
    if (shell->interactive && !order->path_given && !shell->json)
        printf("\nPATH VERB or VERB PATH works on another object; cd PATH goes there; exit leaves. Tab completes.\n");
    return EXIT_DONE;
}

static int on_event(const struct director_result *event, void *context)
{
    print_event(context, event);
    return ferror(stdout) ? 1 : 0;
}

static int run_watch(struct shell *shell, const struct order *order)
{
    if (order->name_count || order->argument_count)
        return shell_error(shell, EXIT_USAGE, "usage: watch [PATH]");
    int code = director_watch(shell->director, order->path, on_event, shell);
    return code < 0 ? shell_call_failed(shell, code) : EXIT_DONE;
}

/* Say how a change went. */
static int changed(struct shell *shell, int code, struct director_result *result)
{
    if (code < 0)
        return shell_call_failed(shell, code);
    if (shell->json)
        print_json_result(result, false);
    else if (!shell->quiet && director_result_message(result)[0])
        printf("%s\n", director_result_message(result));
    if (!shell->json)
        print_status(shell, result); /* of a preview */
    director_result_free(result);
    return EXIT_DONE;
}

static bool said_yes(char *answer)
{
    bool yes = answer && (strcasecmp(answer, "y") == 0 || strcasecmp(answer, "yes") == 0);
    free(answer);
    return yes;
}

/* A line from the person at the terminal, the caller's. */
static char *ask_person(struct shell *shell, const char *question)
{
    char *line = NULL;
    size_t size = 0;
    if (shell->ask)
        return shell->ask(shell, question);
    fflush(stdout);
    fputs(question, stderr);
    ssize_t length = getline(&line, &size, stdin);
    if (length > 0 && line[length - 1] == '\n')
        line[length - 1] = '\0';
    if (length < 0) {
        free(line);
        return NULL;
    }
    return line;
}

static const char *order_argument(const struct order *order, const char *name)
{
    for (unsigned i = 0; i < order->argument_count; i++)
        if (strcmp(order->arguments[i].name, name) == 0)
            return order->arguments[i].value;
    return NULL;
}

/* Has the verb a preview of what would be lost, and is all there that it needs? The agent says what is missing. */
static bool has_preview(struct shell *shell, const struct order *order)
{
    struct director_result *result;
    bool found = false;
    if (director_describe(shell->director, order->path, &result) < 0)
        return false;
    for (size_t i = 1; i < director_result_object_count(result) && !found; i++) {
        const struct director_object *object = director_result_object(result, i);
        if (strcmp(director_object_path(object), order->verb) == 0)
            found = director_object_value(object, "preview") != NULL;
        for (size_t k = 0; found && k < director_object_property_count(object); k++) {
            const struct director_property *property = director_object_property(object, k);
            if (director_property_required(property) && !order_argument(order, director_property_name(property)))
                found = false;
        }
        if (strcmp(director_object_path(object), order->verb) == 0)
            break;
    }
    director_result_free(result);
    return found;
}

/* What loses data: say what, then ask. Without --yes and without a person nothing is done. EXIT_DONE: go on. */
static int resort_confirmed(struct shell *shell, const struct order *order)
{
    struct director_argument arguments[ARGUMENTS_MAX + 1];
    struct director_result *result;
    unsigned count = 0;
    for (; count < order->argument_count; count++)
        arguments[count] = order->arguments[count];
    if (order_argument(order, "preview"))
        return EXIT_DONE; /* asked for by itself: it is the call */
    arguments[count++] = (struct director_argument){"preview", "yes"};
    int code = director_action(shell->director, order->path, order->verb, arguments, count, &result);
    if (code < 0)
        return shell_call_failed(shell, code);
    fflush(stdout);
    for (size_t i = 0; i < director_result_line_count(result); i++)
        fprintf(stderr, "%s\n", director_result_line(result, i));
    director_result_free(result);
    if (shell->yes)
        return EXIT_DONE;
    if (!shell->interactive && !isatty(STDIN_FILENO))
        return shell_error(shell, EXIT_USAGE, "nothing was changed; to do it without being asked: director --yes %s %s ...", order->path,
                           order->verb);
    if (said_yes(ask_person(shell, "Do it? [y/N] ")))
        return EXIT_DONE;
    printf("nothing was changed\n");
    return EXIT_REFUSED;
}

/* In an interactive shell: does the person mean it? What destroys is told by DESCRIBE. */
static bool confirmed(struct shell *shell, const char *path, const char *verb)
{
    struct director_result *result;
    bool yes = true;
    if (!shell->interactive || shell->yes || director_describe(shell->director, path, &result) < 0)
        return true;
    for (size_t i = 1; i < director_result_object_count(result); i++) {
        const struct director_object *object = director_result_object(result, i);
        if (strcmp(director_object_path(object), verb) != 0 || !director_object_destructive(object))
            continue;
        struct text question = {0};
        text_addf(&question, "%s: %s Sure? [y/N] ", path, director_object_summary(object));
        yes = said_yes(ask_person(shell, text_get(&question)));
        text_done(&question);
    }
    director_result_free(result);
    if (!yes)
        printf("nothing was changed\n");
    return yes;
}

static int run_change(struct shell *shell, const struct order *order)
{
    struct director_result *result = NULL;
    bool create = strcmp(order->verb, "create") == 0;
    int code;
    if (create && order->name_count != 1)
        return shell_error(shell, EXIT_USAGE, "usage: %s create NAME [PROPERTY=VALUE...]", order->path);
    if (!create && order->name_count)
        return shell_error(shell, EXIT_USAGE, "\"%s\" is no PROPERTY=VALUE", order->names[0]);
    if (strcmp(order->verb, "set") == 0 && order->argument_count == 0)
        return shell_error(shell, EXIT_USAGE, "usage: set [PATH] PROPERTY=VALUE...");
    if (strcmp(order->verb, "delete") == 0 && order->argument_count)
        return shell_error(shell, EXIT_USAGE, "usage: delete [PATH]");
    bool action = !create && strcmp(order->verb, "set") != 0 && strcmp(order->verb, "delete") != 0;
    if (action && has_preview(shell, order)) {
        code = resort_confirmed(shell, order);
        if (code != EXIT_DONE)
            return code;
    } else if (!confirmed(shell, order->path, order->verb)) {
        return EXIT_DONE;
    }
    if (create)
        code = director_create(shell->director, order->path, order->names[0], order->arguments, order->argument_count, &result);
    else if (strcmp(order->verb, "set") == 0)
        code = director_set(shell->director, order->path, order->arguments, order->argument_count, &result);
    else if (strcmp(order->verb, "delete") == 0)
        code = director_delete(shell->director, order->path, &result);
    else
        code = director_action(shell->director, order->path, order->verb, order->arguments, order->argument_count, &result);
    code = changed(shell, code, result);
    /* Do not stay in what is gone. */
    size_t length = strlen(order->path);
    if (code == EXIT_DONE && strcmp(order->verb, "delete") == 0 && strncmp(shell->folder, order->path, length) == 0 &&
        (shell->folder[length] == '/' || shell->folder[length] == '\0'))
        code = path_resolve(order->path, "..", shell->folder) < 0 ? EXIT_REFUSED : EXIT_DONE;
    return code;
}

static int order_run(struct shell *shell, const struct order *order)
{
    const char *verb = order->verb;
    if (strcmp(verb, "ls") == 0)
        return run_ls(shell, order);
    if (strcmp(verb, "cd") == 0)
        return run_cd(shell, order);
    if (strcmp(verb, "get") == 0)
        return run_get(shell, order);
    if (strcmp(verb, "status") == 0)
        return run_status(shell, order);
    if (strcmp(verb, "help") == 0)
        return run_help(shell, order);
    if (strcmp(verb, "watch") == 0)
        return run_watch(shell, order);
    if (strcmp(verb, "pwd") == 0) {
        printf("%s\n", shell->folder);
        return EXIT_DONE;
    }
    if (strcmp(verb, "exit") == 0 || strcmp(verb, "quit") == 0) {
        shell->leave = true;
        return EXIT_DONE;
    }
    return run_change(shell, order);
}

int shell_run(struct shell *shell, char **words, unsigned count)
{
    struct order order = {0};
    int code = order_parse(shell, words, count, &order);
    if (code == EXIT_DONE)
        code = order_run(shell, &order);
    order_done(&order);
    return code;
}
