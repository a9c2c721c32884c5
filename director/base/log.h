/* Logging for daemons. Libraries return errors and never log; the daemon's own modules log.
 * Each module names itself by `#define LOG_MODULE "resync"` before this include.
 * Lines go to standard error: "<time> <level> <module>: <text>". Any thread. */
#ifndef DIRECTOR_BASE_LOG_H
#define DIRECTOR_BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_NOTICE, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

extern enum log_level log_threshold;

/* Text after --log: "error" ... "debug", or "debug:module,module" for debug of some modules only. -EINVAL when unknown. */
int log_configure(const char *text);
void log_write(enum log_level level, const char *module, const char *format, ...) __attribute__((format(printf, 3, 4)));
int log_module_enabled(enum log_level level, const char *module);

#ifndef LOG_MODULE
#define LOG_MODULE "director"
#endif
#define log_at(level, ...)                                             \
    do {                                                               \
        if ((level) <= log_threshold && log_module_enabled(level, LOG_MODULE)) \
            log_write(level, LOG_MODULE, __VA_ARGS__);                 \
    } while (0)
#define log_error(...)   log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)  log_at(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)    log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
