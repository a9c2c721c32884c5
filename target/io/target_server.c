#include "target/io/target_server.h"

#include "target/io/target_socket.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEFAULT_SESSIONS     1024u
#define DEFAULT_MEMORY_BYTES (64ull << 20)
#define DEFAULT_HOLD_MS      20000u
#define TICK_MS              1000u
#define IDLE_KEEP_BYTES      (1u << 20) /* of data buffers, when no session is open */
#define BUSY_KEEP_BYTES      (48u << 20)

struct listener {
    struct list link;
    struct target_server *server;
    uv_poll_t poll;
    int fd;
    char local[80];
};

/* ---- turns of the loop ---- */

static void flush_all(struct target_server *server)
{
    /* What comes up during a flush joins the same round: bounded, since each connection's input is not read here. */
    while (!list_empty(&server->flushes)) {
        struct target_socket *socket = list_first(&server->flushes, struct target_socket, flush_link);
        list_remove(&socket->flush_link);
        target_socket_flush(socket);
    }
    if (server->idle_active) {
        uv_idle_stop(&server->idle);
        server->idle_active = false;
    }
}

static void turn_ended(uv_check_t *check)
{
    struct target_server *server = check->data;
    if (!list_empty(&server->environment.waiting))
        iscsi_memory_available(&server->environment);
    flush_all(server);
}

static void nothing(uv_idle_t *idle)
{
    (void)idle;
}

void target_server_want_flush(struct target_server *server)
{
    if (server->idle_active || server->closing)
        return;
    uv_idle_start(&server->idle, nothing); /* the loop does not sleep before the check handle ran */
    server->idle_active = true;
}

static void deadlines_due(uv_timer_t *timer)
{
    struct target_server *server = timer->data;
    server->in_tick = true;
    uint64_t next = target_tick(&server->target, uv_now(server->loop));
    server->in_tick = false;
    if (next != UINT64_MAX && !uv_is_closing((uv_handle_t *)timer))
        uv_timer_start(timer, deadlines_due, next, 0);
}

/* The target holds or forwards something. */
static void target_wakes(void *context)
{
    struct target_server *server = context;
    server->target.now_ms = uv_now(server->loop);
    if (!server->in_tick && !uv_is_closing((uv_handle_t *)&server->deadlines) &&
        !uv_is_active((uv_handle_t *)&server->deadlines))
        uv_timer_start(&server->deadlines, deadlines_due, 20, 0);
}

static void second_passed(uv_timer_t *timer)
{
    struct target_server *server = timer->data;
    uint64_t now_ms = uv_now(server->loop);
    list_foreach_safe(node, after, &server->sockets)
        target_socket_tick(list_entry(node, struct target_socket, link), now_ms);
    data_pool_trim(&server->target.pool, server->socket_count ? BUSY_KEEP_BYTES : IDLE_KEEP_BYTES);
    if (!server->socket_count)
        uv_timer_stop(timer); /* nobody is there: nothing to do until someone comes */
}

/* ---- life ---- */

static void handle_closed(uv_handle_t *handle)
{
    struct target_server *server = handle->data;
    server->handles--;
    target_server_socket_closed(server);
}

static void close_handle(struct target_server *server, uv_handle_t *handle)
{
    handle->data = server;
    uv_close(handle, handle_closed);
}

/* All sockets and handles are gone; wait for what the devices still hold. */
static void finish(struct target_server *server)
{
    void (*closed)(void *) = server->closed;
    void *context = server->closed_context;
    iscsi_environment_done(&server->environment);
    target_done(&server->target);
    free(server);
    if (closed)
        closed(context);
}

void target_server_socket_closed(struct target_server *server)
{
    if (server->closing && server->handles == 0 && server->socket_count == 0)
        finish(server);
}

int target_server_new(const struct target_server_options *options, struct target_server **ret_server)
{
    uint64_t seed;
    if (!options->loop || options->nodeid == 0)
        return -EINVAL;
    int status = random_bytes(&seed, sizeof(seed));
    if (status < 0)
        return status;
    struct target_server *server = calloc(1, sizeof(*server));
    if (!server)
        return -ENOMEM;
    server->loop = options->loop;
    server->sessions_max = options->sessions_max ? options->sessions_max : DEFAULT_SESSIONS;
    target_init(&server->target, options->nodeid,
                options->memory_max_bytes ? options->memory_max_bytes : DEFAULT_MEMORY_BYTES,
                options->hold_ms ? options->hold_ms : DEFAULT_HOLD_MS, seed);
    server->target.forward = options->forward;
    server->target.forward_context = options->forward_context;
    target_set_commit(&server->target, options->commit, options->commit_context);
    server->target.wake = target_wakes;
    server->target.wake_context = server;
    server->target.now_ms = uv_now(server->loop);
    iscsi_environment_init(&server->environment, &server->target);
    if (options->nop_interval_ms)
        server->environment.nop_interval_ms = options->nop_interval_ms;
    if (options->nop_timeout_ms)
        server->environment.nop_timeout_ms = options->nop_timeout_ms;
    if (options->login_timeout_ms)
        server->environment.login_timeout_ms = options->login_timeout_ms;
    list_init(&server->sockets);
    list_init(&server->listeners);
    list_init(&server->flushes);
    (void)uv_check_init(server->loop, &server->check);
    (void)uv_idle_init(server->loop, &server->idle);
    (void)uv_timer_init(server->loop, &server->timer);
    (void)uv_timer_init(server->loop, &server->deadlines);
    server->handles = 4;
    server->check.data = server->idle.data = server->timer.data = server->deadlines.data = server;
    (void)uv_check_start(&server->check, turn_ended);
    uv_unref((uv_handle_t *)&server->check);
    *ret_server = server;
    return 0;
}

static void listener_closed(uv_handle_t *handle)
{
    struct listener *listener = container_of((uv_poll_t *)handle, struct listener, poll);
    struct target_server *server = listener->server;
    (void)close(listener->fd);
    free(listener);
    server->handles--;
    target_server_socket_closed(server);
}

static void finish_close(uv_timer_t *timer)
{
    struct target_server *server = timer->data;
    target_give_up(&server->target);
    (void)target_tick(&server->target, uv_now(server->loop));
    if (!target_is_quiet(&server->target))
        return; /* commands in the devices; again in 10 ms */
    uv_timer_stop(timer);
    close_handle(server, (uv_handle_t *)&server->check);
    close_handle(server, (uv_handle_t *)&server->idle);
    close_handle(server, (uv_handle_t *)&server->timer);
    close_handle(server, (uv_handle_t *)&server->deadlines);
}

void target_server_close(struct target_server *server, void (*closed)(void *context), void *context)
{
    ASSERT(!server->closing);
    server->closing = true;
    server->closed = closed;
    server->closed_context = context;
    list_foreach_safe(node, after, &server->sockets)
        target_socket_close(list_entry(node, struct target_socket, link));
    list_foreach_safe(node, after, &server->listeners)
    {
        struct listener *listener = list_entry(node, struct listener, link);
        list_remove(&listener->link);
        uv_close((uv_handle_t *)&listener->poll, listener_closed);
    }
    uv_timer_start(&server->timer, finish_close, 0, 10);
}

/* ---- portals ---- */

static void format_address(const struct sockaddr_storage *address, char *to, size_t size)
{
    char text[INET6_ADDRSTRLEN] = "";
    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
        (void)inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
        (void)snprintf(to, size, "[%s]:%u", text, ntohs(in6->sin6_port));
        return;
    }
    const struct sockaddr_in *in = (const struct sockaddr_in *)address;
    (void)inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
    (void)snprintf(to, size, "%s:%u", text, ntohs(in->sin_port));
}

static void accept_ready(uv_poll_t *poll, int status, int events)
{
    struct listener *listener = container_of(poll, struct listener, poll);
    struct target_server *server = listener->server;
    (void)events;
    for (unsigned i = 0; status == 0 && i < 64; i++) {
        struct sockaddr_storage peer, local;
        socklen_t length = sizeof(peer), local_length = sizeof(local);
        char peer_text[80], local_text[80];
        int fd = accept4(listener->fd, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        format_address(&peer, peer_text, sizeof(peer_text));
        if (getsockname(fd, (struct sockaddr *)&local, &local_length) == 0)
            format_address(&local, local_text, sizeof(local_text));
        else
            (void)snprintf(local_text, sizeof(local_text), "%s", listener->local);
        if (server->socket_count >= server->sessions_max ||
            target_socket_open(server, fd, local_text, peer_text) < 0) {
            (void)close(fd);
            continue;
        }
        if (!uv_is_active((uv_handle_t *)&server->timer))
            uv_timer_start(&server->timer, second_passed, TICK_MS, TICK_MS);
    }
}

static int make_address(const char *address, uint16_t port, struct sockaddr_storage *ret_address, socklen_t *ret_length)
{
    struct sockaddr_in *in = (struct sockaddr_in *)ret_address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret_address;
    memset(ret_address, 0, sizeof(*ret_address));
    if (inet_pton(AF_INET, address, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        *ret_length = sizeof(*in);
        return 0;
    }
    if (uv_ip6_addr(address, port, in6) == 0) {
        *ret_length = sizeof(*in6);
        return 0;
    }
    return -EINVAL;
}

static int open_listener(const char *address, uint16_t port, struct error *error)
{
    struct sockaddr_storage where;
    socklen_t length;
    int one = 1;
    if (make_address(address, port, &where, &length) < 0)
        return error_set(error, -EINVAL, "portal %s: not a numeric IPv4 or IPv6 address", address);
    int fd = socket(where.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(error, -errno, "portal %s:%u: %s", address, port, strerror(errno));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (where.ss_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&where, length) < 0 || listen(fd, 256) < 0) {
        int status = -errno;
        (void)close(fd);
        return error_set(error, status, "portal %s:%u: %s; another program may listen there", address, port,
                         strerror(-status));
    }
    return fd;
}

int target_server_listen(struct target_server *server, const char *address, uint16_t port, uint16_t *ret_port,
                         struct error *error)
{
    struct sockaddr_storage bound;
    socklen_t length = sizeof(bound);
    int fd = open_listener(address, port, error);
    if (fd < 0)
        return fd;
    struct listener *listener = calloc(1, sizeof(*listener));
    int status = listener ? uv_poll_init(server->loop, &listener->poll, fd) : -ENOMEM;
    if (status < 0 || getsockname(fd, (struct sockaddr *)&bound, &length) < 0) {
        free(listener);
        (void)close(fd);
        return error_set(error, status < 0 ? status : -errno, "portal %s:%u: cannot be watched", address, port);
    }
    listener->server = server;
    listener->fd = fd;
    format_address(&bound, listener->local, sizeof(listener->local));
    (void)uv_poll_start(&listener->poll, UV_READABLE, accept_ready);
    list_append(&server->listeners, &listener->link);
    server->handles++;
    if (ret_port)
        *ret_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                      : ((struct sockaddr_in *)&bound)->sin_port);
    return 0;
}

/* ---- configuration: the core's, with words ---- */

void target_server_set_apart(struct target_server *server, bool apart)
{
    target_set_apart(&server->target, apart);
}

int target_server_set_ports(struct target_server *server, const struct target_port *ports, unsigned count)
{
    return target_set_ports(&server->target, ports, count);
}

int target_server_put_lu(struct target_server *server, const struct target_lu_identity *identity)
{
    return target_put_lu(&server->target, identity);
}

int target_server_remove_lu(struct target_server *server, uint64_t volume_id)
{
    return target_remove_lu(&server->target, volume_id);
}

int target_server_set_lu_state(struct target_server *server, uint64_t volume_id, enum target_lu_state state,
                               uint16_t owner, uint64_t epoch, struct block_device *device)
{
    server->target.now_ms = uv_now(server->loop);
    return target_set_lu_state(&server->target, volume_id, state, owner, epoch, device);
}

int target_server_put_target(struct target_server *server, const char *iqn, struct error *error)
{
    int status = target_put_iqn(&server->target, iqn);
    if (status == -EINVAL)
        return error_set(error, status, "target %.64s: not an iSCSI name (iqn.YYYY-MM.domain:name, at most 223 bytes)", iqn);
    return status;
}

int target_server_remove_target(struct target_server *server, const char *iqn)
{
    return target_remove_iqn(&server->target, iqn);
}

int target_server_set_lun(struct target_server *server, const char *iqn, uint16_t lun, uint64_t volume_id,
                          struct error *error)
{
    int status = target_set_lun(&server->target, iqn, lun, volume_id);
    if (status == -EINVAL)
        return error_set(error, status, "target %.64s: LUN %u is out of range 0 to %u", iqn, lun, TARGET_LUNS_MAX - 1);
    if (status == -ENOENT)
        return error_set(error, status, "target %.64s, LUN %u: there is no such %s", iqn, lun,
                         target_find_iqn(&server->target, iqn) ? "volume" : "target");
    return status;
}

int target_server_clear_lun(struct target_server *server, const char *iqn, uint16_t lun)
{
    return target_clear_lun(&server->target, iqn, lun);
}

int target_server_forward_receive(struct target_server *server, uint16_t from_nodeid, const struct peer_header *header,
                                  const void *payload)
{
    server->target.now_ms = uv_now(server->loop);
    return target_forward_receive(&server->target, from_nodeid, header, payload);
}

void target_server_node_down(struct target_server *server, uint16_t nodeid)
{
    server->target.now_ms = uv_now(server->loop);
    target_node_down(&server->target, nodeid);
}

void target_server_node_dead(struct target_server *server, uint16_t nodeid)
{
    server->target.now_ms = uv_now(server->loop);
    target_node_dead(&server->target, nodeid);
}

int target_server_set_reservations(struct target_server *server, uint64_t volume_id, uint64_t version, const void *bytes,
                                   uint32_t size)
{
    server->target.now_ms = uv_now(server->loop);
    return target_set_reservations(&server->target, volume_id, version, bytes, size);
}

/* ---- figures ---- */

void target_server_visit_sessions(struct target_server *server,
                                  void (*visit)(const struct target_session_info *info, void *context), void *context)
{
    list_foreach_safe(node, after, &server->target.sessions)
    {
        struct target_session *session = list_entry(node, struct target_session, link);
        struct iscsi_connection *connection = container_of(session, struct iscsi_connection, session);
        struct target_session_info info = {
            .id = session->id,
            .initiator = session->nexus.initiator,
            .target = connection->discovery ? "" : session->nexus.target,
            .peer = connection->peer,
            .tsih = connection->tsih,
            .commands_in_flight = connection->in_flight,
            .commands = connection->commands,
            .read_bytes = connection->read_bytes,
            .written_bytes = connection->written_bytes,
        };
        memcpy(info.isid, session->nexus.isid, sizeof(info.isid));
        visit(&info, context);
    }
}

int target_server_drop_session(struct target_server *server, uint64_t session_id)
{
    list_foreach(node, &server->target.sessions)
    {
        struct target_session *session = list_entry(node, struct target_session, link);
        if (session->id != session_id)
            continue;
        session->drop(session);
        return 0;
    }
    return -ENOENT;
}

int target_server_lu_stats(struct target_server *server, uint64_t volume_id, struct target_lu_stats *ret_stats)
{
    const struct target_lu *lu = target_find_lu(&server->target, volume_id);
    if (!lu)
        return -ENOENT;
    *ret_stats = lu->unit.stats;
    ret_stats->commands = lu->stats.commands;
    ret_stats->forwarded = lu->stats.forwarded;
    ret_stats->held = lu->stats.held;
    ret_stats->nexuses = lu->unit.nexus_count;
    return 0;
}
