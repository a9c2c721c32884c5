#include "director/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum log_level log_threshold = LOG_LEVEL_INFO;
static char log_debug_modules[256]; /* ",a,b," or empty: all modules */
static const char *const level_names[] = {"error", "warning", "notice", "info", "debug"};

int log_configure(const char *text)
{
    size_t length = strcspn(text, ":");
    for (unsigned level = 0; level <= LOG_LEVEL_DEBUG; level++) {
        if (strlen(level_names[level]) != length || strncmp(level_names[level], text, length) != 0)
            continue;
        log_threshold = level;
        log_debug_modules[0] = '\0';
        if (text[length] == ':')
            (void)snprintf(log_debug_modules, sizeof(log_debug_modules), ",%s,", text + length + 1);
        return 0;
    }
    return -EINVAL;
}

int log_module_enabled(enum log_level level, const char *module)
{
    char needle[64];
    if (level < LOG_LEVEL_DEBUG || !log_debug_modules[0])
        return 1;
    (void)snprintf(needle, sizeof(needle), ",%s,", module);
    return strstr(log_debug_modules, needle) != NULL;
}

void log_write(enum log_level level, const char *module, const char *format, ...)
{
    char line[1024];
    struct timespec now;
    struct tm broken;
    va_list arguments;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &broken);
    size_t used = strftime(line, sizeof(line), "%F %T", &broken);
    used += (size_t)snprintf(line + used, sizeof(line) - used, ".%03ld %s %s: ", now.tv_nsec / 1000000, level_names[level],
                             module);
    va_start(arguments, format);
    int written = vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);
    va_end(arguments);
    if (written < 0)
        return;
    used += (size_t)written;
    if (used > sizeof(line) - 2)
        used = sizeof(line) - 2;
    line[used++] = '\n';
    /* One write per line keeps lines of several threads whole. */
    ssize_t ignored = write(STDERR_FILENO, line, used);
    (void)ignored;
}
