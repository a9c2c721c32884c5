/* Completion of verbs, paths, property names and values, by what the cluster itself says (LIST and DESCRIBE). */
#include "director/shell/shell.h"

#include <string.h>

static void offer(struct candidates *candidates, const char *typed, const char *text, const char *suffix)
{
    if (strncmp(typed, text, strlen(typed)) != 0)
        return;
    for (size_t i = 0; i < candidates->count; i++)
        if (strncmp(candidates->text[i], text, strlen(text)) == 0 && strcmp(candidates->text[i] + strlen(text), suffix) == 0)
            return;
    char **grown = realloc(candidates->text, (candidates->count + 1) * sizeof(*grown));
    if (!grown)
        return;
    candidates->text = grown;
    struct text whole = {0};
    text_addf(&whole, "%s%s", text, suffix);
    char *taken = text_take(&whole);
    if (taken)
        candidates->text[candidates->count++] = taken;
}

void candidates_done(struct candidates *candidates)
{
    for (size_t i = 0; i < candidates->count; i++)
        free(candidates->text[i]);
    free(candidates->text);
    *candidates = (struct candidates){0};
}

static void offer_paths(struct shell *shell, const char *typed, struct candidates *candidates)
{
    const char *slash = strrchr(typed, '/');
    int head = slash ? (int)(slash - typed) + 1 : 0;
    char folder[SHELL_PATH_MAX], text[SHELL_PATH_MAX];
    struct director_result *result;
    (void)snprintf(text, sizeof(text), "%.*s", head, typed);
    if (path_resolve(shell->folder, text, folder) < 0 || director_list(shell->director, folder, 1, 0, &result) < 0)
        return;
    for (size_t i = 1; i < director_result_object_count(result); i++) {
        const struct director_object *object = director_result_object(result, i);
        const char *name = strrchr(director_object_path(object), '/');
        (void)snprintf(text, sizeof(text), "%.*s%s", head, typed, name ? name + 1 : director_object_path(object));
        offer(candidates, typed, text, director_object_has_children(object) ? "/" : "");
    }
    director_result_free(result);
}

static const struct director_object *described(const struct director_result *result, const char *verb)
{
    for (size_t i = 1; i < director_result_object_count(result); i++)
        if (strcmp(director_object_path(director_result_object(result, i)), verb) == 0)
            return director_result_object(result, i);
    return NULL;
}

static void offer_verbs(struct shell *shell, const char *path, const char *typed, bool built_in, struct candidates *candidates)
{
    struct director_result *result;
    for (unsigned i = 0; built_in && shell_verbs[i]; i++)
        if (strcmp(shell_verbs[i], "create") != 0 && strcmp(shell_verbs[i], "delete") != 0)
            offer(candidates, typed, shell_verbs[i], "");
    if (director_describe(shell->director, path, &result) < 0)
        return;
    for (size_t i = 1; i < director_result_object_count(result); i++)
        offer(candidates, typed, director_object_path(director_result_object(result, i)), "");
    director_result_free(result);
}

/* Was name=... given in an earlier word? */
static bool given(const struct words *words, const char *name)
{
    for (unsigned i = 0; i + 1 < words->count + !words->open; i++)
        if (strncmp(words->word[i], name, strlen(name)) == 0 && words->word[i][strlen(name)] == '=')
            return true;
    return false;
}

/* name=, or the values of name= once that is typed. */
static void offer_arguments(struct shell *shell, const char *path, const char *verb, const struct words *words,
                            const char *typed, struct candidates *candidates)
{
    struct director_result *result;
    bool set = strcmp(verb, "set") == 0, get = strcmp(verb, "get") == 0;
    if (director_describe(shell->director, path, &result) < 0)
        return;
    const struct director_object *object = set || get ? director_result_object(result, 0) : described(result, verb);
    for (size_t i = 0; object && i < director_object_property_count(object); i++) {
        const struct director_property *property = director_object_property(object, i);
        const char *name = director_property_name(property);
        size_t length = strlen(name);
        if (get) {
            offer(candidates, typed, name, "");
            continue;
        }
        if ((set && !director_property_writable(property)) || strcmp(name, "name") == 0)
            continue;
        if (strncmp(typed, name, length) == 0 && typed[length] == '=') {
            for (size_t k = 0; director_property_choice(property, k); k++) {
                struct text whole = {0};
                text_addf(&whole, "%s=%s", name, director_property_choice(property, k));
                offer(candidates, typed, text_get(&whole), "");
                text_done(&whole);
            }
        } else if (!given(words, name)) {
            offer(candidates, typed, name, "=");
        }
    }
    director_result_free(result);
}

void complete_line(struct shell *shell, const char *line, struct candidates *ret_candidates)
{
    struct words words;
    struct candidates candidates = {0};
    char path[SHELL_PATH_MAX];
    *ret_candidates = candidates;
    if (words_split(line, &words) < 0)
        return;
    const char *typed = words.open ? words.word[words.count - 1] : "";
    unsigned before = words.count - words.open, at = 0; /* words that stand, and how many of them are the path and the verb */
    candidates.word_bytes = strlen(typed);
    (void)snprintf(path, sizeof(path), "%s", shell->folder);
    bool path_first = before > 0 && !shell_is_verb(words.word[0]);
    if (before == 0) {
        offer_verbs(shell, shell->folder, typed, typed[0] != '/' && typed[0] != '.', &candidates);
        offer_paths(shell, typed, &candidates);
    } else if (path_first && path_resolve(shell->folder, words.word[at++], path) < 0) {
        /* nothing to offer */
    } else if (before == at) {
        offer_verbs(shell, path, typed, true, &candidates);
    } else {
        const char *verb = words.word[at++];
        bool walks = strcmp(verb, "ls") == 0 || strcmp(verb, "cd") == 0 || strcmp(verb, "status") == 0 ||
                     strcmp(verb, "help") == 0 || strcmp(verb, "watch") == 0 || strcmp(verb, "delete") == 0;
        bool resolved = path_first || before == at || words.word[at][0] != '/' ||
                        path_resolve(shell->folder, words.word[at++], path) == 0;
        if (!resolved)
            ; /* too long a path: nothing to offer */
        else if (walks || (!path_first && typed[0] == '/'))
            offer_paths(shell, typed, &candidates);
        else
            offer_arguments(shell, path, verb, &words, typed, &candidates);
    }
    words_done(&words);
    *ret_candidates = candidates;
}
