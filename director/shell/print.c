/* Output: the tree of ls, tables, help, JSON. */
#include "director/shell/shell.h"

#include "director/base/json.h"
#include "director/base/size.h"
#include <ctype.h>
#include <errno.h>
#include <string.h>

/* Columns that UTF-8 text takes, one a character. */
static int width_of(const char *text)
{
    int width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

/* What a terminal must not be told to do: names and values are data. */
static void put_clean(const char *text)
{
    for (; *text; text++)
        putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
}

static void put_padded(const char *text, int width)
{
    put_clean(text);
    for (int i = width_of(text); i < width; i++)
        putchar(' ');
}

static bool starts_with_any(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strncmp(text, *words, strlen(*words)) == 0)
            return true;
    return false;
}

static const char *color_of(const struct shell *shell, const char *state)
{
    static const char *const good[] = {"healthy", "online", "in sync", "yes", NULL};
    static const char *const fair[] = {"degraded", "resyncing", "syncing", "failing over", "out of sync", NULL};
    static const char *const bad[] = {"suspended", "offline", "not quorate", NULL};
    if (!shell->color)
        return "";
    return starts_with_any(state, good) ? "\033[32m" : starts_with_any(state, fair) ? "\033[33m"
           : starts_with_any(state, bad) ? "\033[31m" : "";
}

static const char *color_end(const struct shell *shell, const char *color)
{
    return shell->color && color[0] ? "\033[0m" : "";
}

/* ---- ls --------------------------------------------------------------------------------------------------------------------- */

enum { TREE_DEPTH_MAX = 16, STATE_WIDTH_MAX = 22 };

static unsigned depth_of(const char *path)
{
    unsigned depth = 0;
    for (const char *p = path; *p; p++)
        depth += *p == '/' && p[1] != '\0';
    return depth;
}

static void label(const struct shell *shell, const struct director_object *object, unsigned root_depth, const bool *more,
                  struct text *text)
{
    const char *path = director_object_path(object), *name = strrchr(path, '/');
    unsigned depth = depth_of(path) - root_depth;
    for (unsigned i = 1; i < depth && i < TREE_DEPTH_MAX; i++)
        text_add(text, more[i] ? (shell->unicode ? "│  " : "|  ") : "   ");
    if (depth == 0)
        text_add(text, path);
    else
        text_addf(text, "%s%s", shell->unicode ? (more[MIN(depth, TREE_DEPTH_MAX - 1u)] ? "├─ " : "└─ ") : "o- ",
                  name ? name + 1 : path);
}

static size_t state_length(const char *summary)
{
    const char *comma = strstr(summary, ", ");
    return comma ? (size_t)(comma - summary) : strlen(summary);
}

/* For each object: does a sibling of it follow? From the end backwards, parents come before their children. */
static bool *last_flags(const struct director_result *result)
{
    size_t count = director_result_object_count(result);
    bool *follows = calloc(count ? count : 1, sizeof(*follows));
    bool seen[TREE_DEPTH_MAX] = {false};
    for (size_t i = count; follows && i-- > 0;) {
        unsigned depth = MIN(depth_of(director_object_path(director_result_object(result, i))), TREE_DEPTH_MAX - 1u);
        follows[i] = seen[depth];
        seen[depth] = true;
        for (unsigned deeper = depth + 1; deeper < TREE_DEPTH_MAX; deeper++)
            seen[deeper] = false;
    }
    return follows;
}

void print_tree(const struct shell *shell, const struct director_result *result)
{
    size_t count = director_result_object_count(result);
    bool more[TREE_DEPTH_MAX] = {false};
    bool *follows = last_flags(result);
    int label_width = 0, state_width = 0;
    if (count == 0 || !follows) {
        free(follows);
        return;
    }
    unsigned root = depth_of(director_object_path(director_result_object(result, 0)));
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < count; i++) {
            const struct director_object *object = director_result_object(result, i);
            const char *summary = director_object_summary(object);
            unsigned depth = MIN(depth_of(director_object_path(object)) - root, TREE_DEPTH_MAX - 1u);
            struct text text = {0};
            char state[STATE_WIDTH_MAX + 1];
            size_t length = state_length(summary);
            bool fits = length <= STATE_WIDTH_MAX;
            more[depth] = follows[i];
            label(shell, object, root, more, &text);
            if (pass == 0) {
                label_width = MAX(label_width, width_of(text_get(&text)));
                state_width = fits ? MAX(state_width, (int)length) : state_width;
            } else if (!summary[0]) {
                put_clean(text_get(&text));
                putchar('\n');
            } else {
                (void)snprintf(state, sizeof(state), "%.*s", fits ? (int)length : 0, summary);
                put_padded(text_get(&text), label_width + 2);
                const char *color = color_of(shell, state);
                fputs(color, stdout);
                put_padded(state, fits && summary[length] ? state_width + 2 : 0);
                fputs(color_end(shell, color), stdout);
                put_clean(!fits ? summary : summary[length] ? summary + length + 2 : "");
                putchar('\n');
            }
            text_done(&text);
        }
    }
    free(follows);
}

/* ---- get, status, help, watch ------------------------------------------------------------------------------------------------ */

void print_properties(const struct shell *shell, const struct director_object *object)
{
    int width = 0;
    for (size_t i = 0; i < director_object_property_count(object); i++)
        width = MAX(width, width_of(director_property_name(director_object_property(object, i))));
    for (size_t i = 0; i < director_object_property_count(object); i++) {
        const struct director_property *property = director_object_property(object, i);
        const char *value = director_property_value(property);
        if (!value[0])
            continue;
        const char *color = strcmp(director_property_name(property), "state") == 0 ? color_of(shell, value) : "";
        put_padded(director_property_name(property), width + 2);
        fputs(color, stdout);
        put_clean(value);
        printf("%s\n", color_end(shell, color));
    }
}

void print_status(const struct shell *shell, const struct director_result *result)
{
    (void)shell;
    for (size_t i = 0; i < director_result_line_count(result); i++) {
        put_clean(director_result_line(result, i));
        putchar('\n');
    }
}

static void describe_property(const struct director_property *property, int name_width, int type_width)
{
    struct text line = {0};
    const char *standard = director_property_default(property);
    put_clean("    ");
    put_padded(director_property_name(property), name_width + 2);
    put_padded(director_property_type(property), type_width + 2);
    text_add(&line, director_property_help(property));
    if (director_property_required(property))
        text_add(&line, " Required.");
    if (standard[0])
        text_addf(&line, " Default: %s.", standard);
    if (director_property_writable(property))
        text_add(&line, " Can be set.");
    put_clean(text_get(&line));
    putchar('\n');
    text_done(&line);
}

void print_description(const struct shell *shell, const struct director_result *result)
{
    int name_width = 0, type_width = 0;
    (void)shell;
    for (size_t i = 0; i < director_result_object_count(result); i++) {
        const struct director_object *object = director_result_object(result, i);
        for (size_t k = 0; k < director_object_property_count(object); k++) {
            name_width = MAX(name_width, width_of(director_property_name(director_object_property(object, k))));
            type_width = MAX(type_width, width_of(director_property_type(director_object_property(object, k))));
        }
    }
    for (size_t i = 0; i < director_result_object_count(result); i++) {
        const struct director_object *object = director_result_object(result, i);
        size_t properties = director_object_property_count(object);
        put_clean(director_object_path(object));
        if (i > 0 && properties && strcmp(director_property_name(director_object_property(object, 0)), "name") == 0)
            put_clean(" NAME");
        for (size_t k = 0; i > 0 && k < properties; k++) {
            const struct director_property *property = director_object_property(object, k);
            if (strcmp(director_property_name(property), "name") == 0)
                continue;
            printf(director_property_required(property) ? " %s=..." : " [%s=...]", director_property_name(property));
        }
        printf(i ? "\n    " : ": ");
        put_clean(director_object_summary(object));
        putchar('\n');
        for (size_t k = 0; k < properties; k++)
            describe_property(director_object_property(object, k), name_width, type_width);
        if (i == 0)
            printf("ls [DEPTH], get [PROPERTY...], status, help, watch\n");
    }
}

void print_event(const struct shell *shell, const struct director_result *result)
{
    if (shell->json) {
        print_json_result(result, true);
        return;
    }
    print_status(shell, result);
    fflush(stdout);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------------------- */

/* Sizes become bytes, numbers numbers, booleans booleans; what is not known now, null. */
static void json_value(struct json *json, const char *name, const char *type, const char *value)
{
    uint64_t bytes;
    if (strcmp(type, "size") == 0 && size_parse(value, &bytes) == 0)
        json_number(json, name, bytes);
    else if (strcmp(type, "number") == 0 && isdigit((unsigned char)value[0]) && size_parse(value, &bytes) == 0)
        json_number(json, name, bytes);
    else if (strcmp(type, "bool") == 0 && value[0])
        json_bool(json, name, strcmp(value, "yes") == 0);
    else if (!value[0] && strcmp(type, "string") != 0)
        json_null(json, name);
    else
        json_string(json, name, value);
}

static void json_object_of(struct json *json, const char *name, const struct director_object *object)
{
    json_object_begin(json, name);
    json_string(json, "path", director_object_path(object));
    json_string(json, "kind", director_object_kind(object));
    if (director_object_summary(object)[0])
        json_string(json, "summary", director_object_summary(object));
    if (director_object_deleted(object))
        json_bool(json, "deleted", true);
    if (director_object_property_count(object)) {
        json_object_begin(json, "properties");
        for (size_t i = 0; i < director_object_property_count(object); i++) {
            const struct director_property *property = director_object_property(object, i);
            json_value(json, director_property_name(property), director_property_type(property),
                       director_property_value(property));
        }
        json_object_end(json);
    }
    json_object_end(json);
}

static void json_objects_of(struct json *json, const char *name, const struct director_result *result)
{
    json_array_begin(json, name);
    for (size_t i = 0; i < director_result_object_count(result); i++)
        json_object_of(json, NULL, director_result_object(result, i));
    json_array_end(json);
}

static void put_json(struct text *text)
{
    puts(text_get(text));
    fflush(stdout);
    text_done(text);
}

void print_json_objects(const struct director_result *result)
{
    struct text text = {0};
    struct json json = {.text = &text, .indent = 2};
    json_objects_of(&json, NULL, result);
    put_json(&text);
}

void print_json_object(const struct director_object *object)
{
    struct text text = {0};
    struct json json = {.text = &text, .indent = 2};
    json_object_of(&json, NULL, object);
    put_json(&text);
}

void print_json_result(const struct director_result *result, bool one_line)
{
    struct text text = {0};
    struct json json = {.text = &text, .indent = one_line ? 0 : 2};
    json_object_begin(&json, NULL);
    if (director_result_message(result)[0])
        json_string(&json, "message", director_result_message(result));
    if (director_result_line_count(result)) {
        json_array_begin(&json, "lines");
        for (size_t i = 0; i < director_result_line_count(result); i++)
            json_string(&json, NULL, director_result_line(result, i));
        json_array_end(&json);
    }
    json_objects_of(&json, "objects", result);
    json_object_end(&json);
    put_json(&text);
}

void print_json_error(int code, const char *message)
{
    struct text text = {0};
    struct json json = {.text = &text, .indent = 2};
    const char *name = code ? strerrorname_np(-code) : NULL;
    json_object_begin(&json, NULL);
    json_object_begin(&json, "error");
    json_string(&json, "code", name ? name : "EINVAL");
    json_string(&json, "message", message);
    json_object_end(&json);
    json_object_end(&json);
    put_json(&text);
}
