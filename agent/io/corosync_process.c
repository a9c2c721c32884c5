/* One `instance` stands for one living corosync, child or taken over; it is watched by the uv_process of a child or by a
 * poll of the pidfd. Its end leads back to process_ended(), which decides: stop, or start again after the backoff. */
#define LOG_MODULE "corosync"
#include "agent/io/corosync_process.h"

#include "agent/io/corosync_orphan.h"
#include "director/base/list.h"
#include "director/base/log.h"

#include <corosync/cfg.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BACKOFF_MIN_MS  100
#define BACKOFF_MAX_MS  5000
#define SETTLED_MS      10000 /* lived that long: the next backoff starts small again */
#define TERMINATE_MS    3000  /* SIGTERM, then SIGKILL */
#define RELOAD_MS       5000
#define RELOAD_RETRY_MS 20

struct instance {
    struct corosync_process *process;
    pid_t pid;
    int pidfd;
    bool child;
    union {
        uv_process_t child_handle;
        uv_poll_t orphan_handle;
        uv_handle_t handle;
    };
};

struct reload_waiter {
    struct list link;
    void (*done)(int status, void *context);
    void *context;
};

struct corosync_process {
    uv_loop_t *loop;
    char *program, *config_path, *record_path, *output_path, *identity, *log_path;
    void (*on_state)(enum corosync_process_state state, const char *words, void *context);
    void *context;
    enum corosync_process_state state;
    bool wanted;  /* start again when it ends */
    bool closing;
    struct instance *instance;
    uv_timer_t timer; /* BACKOFF: start again; STOPPING: SIGKILL */
    unsigned backoff_ms;
    uint64_t started_ms;
    unsigned open; /* handles and jobs that must end before free */

    void (*stopped)(void *context);
    void *stopped_context;
    void (*closed)(void *context);
    void *closed_context;

    uv_work_t reload_work;
    bool reloading;
    atomic_bool reload_cancel;
    int reload_result;
    bool reload_alive;
    struct list reload_now, reload_next;
};

static void process_spawn(struct corosync_process *process);
static void reload_begin(struct corosync_process *process);

static void process_free_last(struct corosync_process *process)
{
    if (--process->open)
        return;
    void (*closed)(void *) = process->closed;
    void *context = process->closed_context;
    free(process->program);
    free(process->config_path);
    free(process->record_path);
    free(process->output_path);
    free(process->identity);
    free(process->log_path);
    free(process);
    if (closed)
        closed(context);
}

static void __attribute__((format(printf, 3, 4))) process_become(struct corosync_process *process,
                                                                 enum corosync_process_state state, const char *format, ...)
{
    static const char *const names[] = {"stopped", "running", "backoff", "stopping"};
    char words[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(words, sizeof(words), format, arguments);
    va_end(arguments);
    log_info("corosync: %s -> %s, because %s", names[process->state], names[state], words);
    process->state = state;
    if (process->on_state && !process->closing)
        process->on_state(state, words, process->context);
}

/* ---- instances ---- */

static void instance_closed(uv_handle_t *handle)
{
    struct instance *instance = handle->data;
    struct corosync_process *process = instance->process;
    if (instance->pidfd >= 0)
        close(instance->pidfd);
    free(instance);
    process_free_last(process);
}

static void instance_close(struct instance *instance)
{
    instance->process->instance = NULL;
    uv_close(&instance->handle, instance_closed);
}

static void instance_signal(struct instance *instance, int number)
{
    int result = instance->pidfd >= 0 ? corosync_orphan_signal(instance->pidfd, number)
                                      : uv_process_kill(&instance->child_handle, number);
    if (result < 0 && result != -ESRCH)
        log_error("cannot signal corosync %ld: %s", (long)instance->pid, strerror(-result));
}

/* The last error line of a file, for the words: corosync says there why it will not start. */
static bool last_error_line(const char *path, char *line, size_t size)
{
    char text[4096], *save = NULL;
    line[0] = '\0';
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0)
        return false;
    off_t end = lseek(fd, 0, SEEK_END);
    ssize_t got = pread(fd, text, sizeof(text) - 1, MAX(end - (off_t)sizeof(text) + 1, 0));
    close(fd);
    if (got <= 0)
        return false;
    text[got] = '\0';
    for (char *part = strtok_r(text, "\n", &save); part; part = strtok_r(NULL, "\n", &save))
        if (strstr(part, "error") && !strstr(part, "exiting with status"))
            (void)snprintf(line, size, "%.*s", (int)size - 1, part);
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127)
            *p = '?';
    return line[0] != '\0';
}

static void backoff_over(uv_timer_t *timer)
{
    process_spawn(timer->data);
}

static void process_backoff(struct corosync_process *process, const char *words)
{
    process_become(process, COROSYNC_PROCESS_BACKOFF, "%s; next try in %u ms", words, process->backoff_ms);
    uv_timer_start(&process->timer, backoff_over, process->backoff_ms, 0);
    process->backoff_ms = MIN(process->backoff_ms * 2, (unsigned)BACKOFF_MAX_MS);
}

static void timer_closed(uv_handle_t *handle)
{
    process_free_last(handle->data);
}

static void process_tell_stopped(struct corosync_process *process)
{
    void (*stopped)(void *) = process->stopped;
    process->stopped = NULL;
    if (stopped)
        stopped(process->stopped_context);
}

static void process_stopped(struct corosync_process *process, const char *words)
{
    uv_timer_stop(&process->timer);
    (void)unlink(process->record_path);
    process_become(process, COROSYNC_PROCESS_STOPPED, "%s", words);
    process_tell_stopped(process);
    if (process->closing && !uv_is_closing((uv_handle_t *)&process->timer))
        uv_close((uv_handle_t *)&process->timer, timer_closed);
}

static void process_ended(struct instance *instance, const char *how)
{
    struct corosync_process *process = instance->process;
    char words[400], line[200];
    corosync_orphan_clean(instance->pid);
    instance_close(instance);
    uv_timer_stop(&process->timer);
    if (process->wanted && !process->closing) {
        if (process->state == COROSYNC_PROCESS_STOPPING) { /* of a foreign identity, or start came while it stopped */
            (void)unlink(process->record_path);
            process_tell_stopped(process);
            process_spawn(process);
            return;
        }
        if (uv_now(process->loop) - process->started_ms >= SETTLED_MS)
            process->backoff_ms = BACKOFF_MIN_MS;
        if (!last_error_line(process->log_path, line, sizeof(line)))
            (void)last_error_line(process->output_path, line, sizeof(line));
        (void)snprintf(words, sizeof(words), "it %s%s%s", how, line[0] ? ": " : "", line);
        process_backoff(process, words);
        return;
    }
    (void)snprintf(words, sizeof(words), "it %s", how);
    process_stopped(process, words);
}

static void child_ended(uv_process_t *handle, int64_t status, int signal_number)
{
    char how[64];
    if (signal_number)
        (void)snprintf(how, sizeof(how), "was ended by signal %d", signal_number);
    else
        (void)snprintf(how, sizeof(how), "ended with status %d", (int)status);
    process_ended(handle->data, how);
}

static void orphan_ended(uv_poll_t *handle, int status, int events)
{
    (void)status;
    (void)events;
    process_ended(handle->data, "ended (it was taken over, so its status is not known)");
}

static struct instance *instance_new(struct corosync_process *process, pid_t pid, int pidfd, bool child)
{
    struct instance *instance = calloc(1, sizeof(*instance));
    if (!instance)
        return NULL;
    *instance = (struct instance){.process = process, .pid = pid, .pidfd = pidfd, .child = child};
    return instance;
}

static void process_record(struct corosync_process *process, pid_t pid)
{
    struct corosync_orphan orphan;
    int result = corosync_orphan_inspect(pid, process->identity, &orphan);
    if (result == 0)
        result = corosync_orphan_save(process->record_path, &orphan);
    if (result < 0)
        log_error("cannot record corosync %ld in %s: %s; it could not be taken over after a crash", (long)pid,
                  process->record_path, strerror(-result));
}

static void process_spawn(struct corosync_process *process)
{
    char words[300];
    int output = open(process->output_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct instance *instance = instance_new(process, 0, -1, true);
    if (output < 0 || !instance) {
        (void)snprintf(words, sizeof(words), "cannot open %s: %s", process->output_path, strerror(errno));
        if (output >= 0)
            close(output);
        free(instance);
        process_backoff(process, words);
        return;
    }
    /* corosync locks /run/corosync.pid whatever its configuration says. */
    (void)mkdir("/run", 0755);
    char *arguments[] = {process->program, (char *)"-f", (char *)"-c", process->config_path, NULL};
    uv_stdio_container_t stdio[3] = {{.flags = UV_IGNORE}, /* /dev/null */
                                     {.flags = UV_INHERIT_FD, .data.fd = output},
                                     {.flags = UV_INHERIT_FD, .data.fd = output}};
    uv_process_options_t options = {.file = process->program,
                                    .args = arguments,
                                    .exit_cb = child_ended,
                                    .flags = UV_PROCESS_DETACHED, /* a session of its own: it outlives us */
                                    .stdio = stdio,
                                    .stdio_count = 3};
    int result = uv_spawn(process->loop, &instance->child_handle, &options);
    close(output);
    instance->child_handle.data = instance;
    process->open++;
    if (result < 0) { /* the handle was initialised: it must be closed */
        (void)snprintf(words, sizeof(words), "cannot run %s: %s", process->program, uv_strerror(result));
        uv_close(&instance->handle, instance_closed);
        process_backoff(process, words);
        return;
    }
    instance->pid = instance->child_handle.pid;
    process->instance = instance;
    process->started_ms = uv_now(process->loop);
    process_record(process, instance->pid);
    process_become(process, COROSYNC_PROCESS_RUNNING, "it was started as process %ld", (long)instance->pid);
}

static void kill_now(uv_timer_t *timer)
{
    struct corosync_process *process = timer->data;
    if (!process->instance)
        return;
    log_warning("corosync %ld did not end within %d ms: killed", (long)process->instance->pid, TERMINATE_MS);
    instance_signal(process->instance, SIGKILL);
}

static void __attribute__((format(printf, 2, 3))) process_terminate(struct corosync_process *process, const char *format,
                                                                    ...)
{
    char words[256];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(words, sizeof(words), format, arguments);
    va_end(arguments);
    process_become(process, COROSYNC_PROCESS_STOPPING, "%s", words);
    instance_signal(process->instance, SIGTERM);
    instance_signal(process->instance, SIGCONT); /* one that is stopped would not see it */
    uv_timer_start(&process->timer, kill_now, TERMINATE_MS, 0);
}

/* True: an orphan was found and dealt with. */
static bool process_find_orphan(struct corosync_process *process)
{
    struct corosync_orphan orphan;
    int pidfd;
    if (corosync_orphan_load(process->record_path, &orphan) < 0)
        return false;
    pidfd = corosync_orphan_open(&orphan);
    if (pidfd < 0) {
        struct corosync_orphan now;
        if (corosync_orphan_inspect(orphan.pid, "", &now) == -ESRCH) /* no other process has its number */
            corosync_orphan_clean(orphan.pid);
        (void)unlink(process->record_path);
        return false;
    }
    struct instance *instance = instance_new(process, orphan.pid, pidfd, false);
    if (!instance || uv_poll_init(process->loop, &instance->orphan_handle, pidfd) < 0) {
        /* Without a watch on it, it is of no use; the new one needs its sockets. */
        (void)corosync_orphan_signal(pidfd, SIGKILL);
        close(pidfd);
        free(instance);
        return false;
    }
    instance->orphan_handle.data = instance;
    process->open++;
    process->instance = instance;
    process->started_ms = uv_now(process->loop);
    ASSERT(uv_poll_start(&instance->orphan_handle, UV_READABLE, orphan_ended) == 0); /* pidfd_open(2): readable at its end */
    if (strcmp(orphan.identity, process->identity) != 0) {
        process_terminate(process, "process %ld of another cluster or node id was left over", (long)orphan.pid);
        return true;
    }
    process_become(process, COROSYNC_PROCESS_RUNNING, "process %ld was left by an earlier agent and is taken over",
                   (long)orphan.pid);
    corosync_process_reload(process, NULL, NULL);
    return true;
}

/* ---- reload ---- */

static int cs_error_map(cs_error_t error)
{
    switch (error) {
    case CS_OK:
        return 0;
    case CS_ERR_TRY_AGAIN:
    case CS_ERR_BUSY:
    case CS_ERR_LIBRARY: /* not listening yet */
        return -EAGAIN;
    case CS_ERR_ACCESS:
        return -EACCES;
    case CS_ERR_INVALID_PARAM:
        return -EINVAL;
    case CS_ERR_NO_MEMORY:
        return -ENOMEM;
    default:
        return -EIO;
    }
}

static void reload_job(uv_work_t *work)
{
    struct corosync_process *process = work->data;
    int result = process->reload_alive ? -EAGAIN : -ESRCH;
    for (unsigned i = 0; i < RELOAD_MS / RELOAD_RETRY_MS && result == -EAGAIN && !atomic_load(&process->reload_cancel);
         i++) {
        corosync_cfg_handle_t handle;
        static const corosync_cfg_callbacks_t no_callbacks;
        if (i)
            nanosleep(&(struct timespec){.tv_nsec = RELOAD_RETRY_MS * 1000000l}, NULL);
        result = cs_error_map(corosync_cfg_initialize(&handle, &no_callbacks));
        if (result < 0)
            continue;
        result = cs_error_map(corosync_cfg_reload_config(handle));
        (void)corosync_cfg_finalize(handle);
    }
    process->reload_result = result == -EAGAIN ? -ETIMEDOUT : result;
}

static void reload_done(uv_work_t *work, int status)
{
    struct corosync_process *process = work->data;
    struct list answered;
    (void)status;
    process->reloading = false;
    list_init(&answered);
    list_splice(&answered, &process->reload_now);
    if (process->closing)
        list_splice(&answered, &process->reload_next);
    if (process->reload_result < 0 && !process->closing)
        log_warning("corosync did not re-read its configuration: %s", strerror(-process->reload_result));
    list_foreach_safe (node, after, &answered) {
        struct reload_waiter *waiter = list_entry(node, struct reload_waiter, link);
        waiter->done(process->reload_result, waiter->context);
        free(waiter);
    }
    if (!list_empty(&process->reload_next) && !process->reloading)
        reload_begin(process);
    process_free_last(process);
}

static void reload_begin(struct corosync_process *process)
{
    list_splice(&process->reload_now, &process->reload_next);
    process->reloading = true;
    process->reload_alive = process->instance != NULL;
    process->open++;
    ASSERT(uv_queue_work(process->loop, &process->reload_work, reload_job, reload_done) == 0);
}

static void reload_nobody(int status, void *context)
{
    (void)status;
    (void)context;
}

void corosync_process_reload(struct corosync_process *process, void (*done)(int status, void *context), void *context)
{
    struct reload_waiter *waiter = malloc(sizeof(*waiter));
    ASSERT(waiter && !process->closing);
    *waiter = (struct reload_waiter){.done = done ? done : reload_nobody, .context = context};
    list_append(&process->reload_next, &waiter->link);
    if (!process->reloading)
        reload_begin(process);
}

/* ---- the interface ---- */

static char *path_join(const char *folder, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

int corosync_process_new(uv_loop_t *loop, const struct corosync_process_options *options,
                         struct corosync_process **ret_process)
{
    if (!options->config_path || !options->run_dir || !options->identity || !options->identity[0] ||
        strlen(options->identity) >= COROSYNC_IDENTITY_SIZE || strpbrk(options->identity, " \t\n"))
        return -EINVAL;
    struct corosync_process *process = calloc(1, sizeof(*process));
    if (!process)
        return -ENOMEM;
    process->program = strdup(options->program                               ? options->program
                              : access("/usr/sbin/corosync", X_OK) == 0 ? "/usr/sbin/corosync"
                                                                             : "corosync");
    process->config_path = strdup(options->config_path);
    process->identity = strdup(options->identity);
    process->log_path = options->log_path ? strdup(options->log_path) : NULL;
    process->record_path = path_join(options->run_dir, "corosync.pid");
    process->output_path = path_join(options->run_dir, "corosync.out");
    if (!process->program || !process->config_path || !process->identity || !process->record_path ||
        !process->output_path) {
        free(process->program);
        free(process->config_path);
        free(process->identity);
        free(process->record_path);
        free(process->output_path);
        free(process);
        return -ENOMEM;
    }
    process->loop = loop;
    process->on_state = options->on_state;
    process->context = options->context;
    process->backoff_ms = BACKOFF_MIN_MS;
    list_init(&process->reload_now);
    list_init(&process->reload_next);
    (void)uv_timer_init(loop, &process->timer);
    process->timer.data = process->reload_work.data = process;
    process->open = 1; /* the caller's */
    *ret_process = process;
    return 0;
}

int corosync_process_start(struct corosync_process *process, struct error *error)
{
    ASSERT(!process->closing);
    if (access(process->config_path, R_OK) < 0)
        return error_set(error, -errno, "corosync's configuration %s cannot be read: %s", process->config_path,
                         strerror(errno));
    process->wanted = true;
    if (process->state != COROSYNC_PROCESS_STOPPED)
        return 0;
    process->backoff_ms = BACKOFF_MIN_MS;
    if (!process_find_orphan(process))
        process_spawn(process);
    return 0;
}

static void idle_stopped(uv_timer_t *timer)
{
    struct corosync_process *process = timer->data;
    if (process->wanted) { /* start came in between */
        process_tell_stopped(process);
        process_spawn(process);
        return;
    }
    process_stopped(process, "it was not running");
}

void corosync_process_stop(struct corosync_process *process, void (*stopped)(void *context), void *context)
{
    ASSERT(!process->stopped);
    process->wanted = false;
    process->stopped = stopped;
    process->stopped_context = context;
    switch (process->state) {
    case COROSYNC_PROCESS_RUNNING:
        process_terminate(process, "that was asked for");
        return;
    case COROSYNC_PROCESS_STOPPING:
        return;
    case COROSYNC_PROCESS_BACKOFF:
    case COROSYNC_PROCESS_STOPPED:
        break;
    }
    process->state = COROSYNC_PROCESS_STOPPING; /* answered from the loop */
    uv_timer_start(&process->timer, idle_stopped, 0, 0);
}

void corosync_process_close(struct corosync_process *process, bool leave, void (*closed)(void *context), void *context)
{
    ASSERT(!process->closing);
    process->closing = true;
    process->closed = closed;
    process->closed_context = context;
    atomic_store(&process->reload_cancel, true);
    if (!leave && process->state != COROSYNC_PROCESS_STOPPED) {
        if (process->state != COROSYNC_PROCESS_STOPPING)
            corosync_process_stop(process, NULL, NULL);
        return; /* process_stopped() goes on */
    }
    if (process->instance)
        instance_close(process->instance);
    uv_close((uv_handle_t *)&process->timer, timer_closed);
}

pid_t corosync_process_pid(const struct corosync_process *process)
{
    return process->instance ? process->instance->pid : 0;
}

enum corosync_process_state corosync_process_state(const struct corosync_process *process)
{
    return process->state;
}
