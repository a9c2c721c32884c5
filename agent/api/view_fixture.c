#include "agent/api/view_fixture.h"

#include <errno.h>
#include <string.h>

static bool quorate(void *context)
{
    return ((struct view_fixture *)context)->quorate;
}

static const char *leader(void *context)
{
    return ((struct view_fixture *)context)->quorate ? "node1" : NULL;
}

static bool node_alive(void *context, uint32_t nodeid)
{
    return !((struct view_fixture *)context)->offline[nodeid % 8];
}

static bool volume(void *context, uint64_t volume_id, struct api_live_volume *ret_figures)
{
    struct view_fixture *fixture = context;
    const struct tree_volume *found = tree_volume_by_id(fixture->tree, volume_id);
    memset(ret_figures, 0, sizeof(*ret_figures));
    ret_figures->serving = true;
    ret_figures->read_bytes = 1234567;
    if (found && strcmp(found->name, "mail") == 0 && fixture->resync) {
        ret_figures->replica[1].syncing = true;
        ret_figures->replica[1].total_bytes = 4ull << 30;
        ret_figures->replica[1].done_bytes = 1843ull << 20;
        ret_figures->replica[1].bytes_per_second = 120ull << 20;
        ret_figures->replica[1].left_ms = 19000;
        ret_figures->replica[1].dirty_bytes = 2253ull << 20;
    }
    const struct tree_task *task = found ? tree_task_running(fixture->tree, found->id, DIRECTOR__TASK_KIND__TASK_VERIFY) : NULL;
    if (task && strcmp(found->name, "db") == 0)
        ret_figures->check = (struct api_live_check){.task = task->id, .position = 3ull << 30, .total_bytes = 10ull << 30,
                                                     .bytes_per_second = 200ull << 20, .left_ms = 37000, .mismatches = 1,
                                                     .repaired = task->repair, .words = "first at 4096+4096 on node2"};
    return found != NULL;
}

static bool volume_last(void *context, uint64_t volume_id, struct api_live_volume *ret_figures)
{
    return volume(context, volume_id, ret_figures);
}

static bool replica(void *context, uint64_t volume_id, uint32_t nodeid, struct api_live_replica *ret_figures)
{
    (void)context;
    *ret_figures = (struct api_live_replica){.intent_marks = volume_id == VIEW_FIXTURE_DB ? 3 : 0, .sealed_epoch = nodeid};
    return true;
}

static bool session(void *context, const char *iqn, unsigned index, struct api_live_session *ret_session)
{
    (void)context;
    if (index || !strstr(iqn, "db"))
        return false;
    *ret_session = (struct api_live_session){.name = "1", .initiator = "iqn.1993-08.org.debian:01:abc", .address = "10.0.0.9",
                                             .node = "node2"};
    return true;
}

static bool plugin(void *context, unsigned index, struct api_live_plugin *ret_plugin)
{
    static const struct api_live_plugin plugins[] = {
        {"delay", "filter", "1.0", "Makes each request slower."},
        {"file", "backstore", "1.0", "Replicas in files of a folder."},
    };
    (void)context;
    if (index >= ARRAY_SIZE(plugins))
        return false;
    *ret_plugin = plugins[index];
    return true;
}

static void apply(struct view_fixture *fixture, Director__Command *command)
{
    struct error error = {0};
    if (tree_apply(fixture->tree, command, NULL, &error) < 0) {
        fprintf(stderr, "the fixture's command was refused: %s\n", error.message);
        abort();
    }
}

#define APPLY(CASE, member, ...)                                   \
    do {                                                           \
        Director__Command command_ = DIRECTOR__COMMAND__INIT;      \
        command_.body_case = DIRECTOR__COMMAND__BODY_##CASE;       \
        command_.time_ms = 1790000000000;                          \
        command_.member = &(__typeof__(*command_.member)){         \
            .base = PROTOBUF_C_MESSAGE_INIT(&MEMBER_##member), __VA_ARGS__}; \
        apply(fixture, &command_);                                 \
    } while (0)
#define MEMBER_cluster_init   director__cluster_init__descriptor
#define MEMBER_node_add       director__node_add__descriptor
#define MEMBER_node_voter     director__node_voter__descriptor
#define MEMBER_store_put      director__store_put__descriptor
#define MEMBER_volume_create  director__volume_create__descriptor
#define MEMBER_volume_isr     director__volume_isr__descriptor
#define MEMBER_target_create  director__target_create__descriptor
#define MEMBER_lun_add        director__lun_add__descriptor

static void add_volume(struct view_fixture *fixture, const char *name, uint64_t size, uint32_t first, uint32_t second,
                       uint8_t identity)
{
    uint8_t uuid[16] = {[6] = 0x40, [8] = 0x80, [15] = identity};
    uint32_t nodes[] = {first, second};
    uint64_t incarnations[] = {0x1111, 0x2222};
    APPLY(VOLUME_CREATE, volume_create, .name = (char *)name, .uuid = {16, uuid}, .size = size, .replicas = 2,
          .block_size = 512, .store = (char *)"default", .n_incarnations = 2, .incarnations = incarnations, .n_nodes = 2,
          .nodes = nodes);
}

void view_fixture_init(struct view_fixture *fixture, bool with_volumes)
{
    uint8_t cluster[16] = {0xc1, [6] = 0x40, [8] = 0x80};
    *fixture = (struct view_fixture){.tree = tree_new(), .quorate = true, .resync = true};
    fixture->live = (struct api_live){.quorate = quorate, .leader = leader, .node_alive = node_alive, .volume = volume,
                                      .volume_last = volume_last, .replica = replica,
                                      .session = session, .plugin = plugin};
    fixture->view = (struct api_view){.tree = fixture->tree, .live = &fixture->live, .live_context = fixture, .self = "node1"};
    APPLY(CLUSTER_INIT, cluster_init, .uuid = {16, cluster}, .name = (char *)"c1");
    for (uint32_t i = 1; i <= 3; i++) {
        char name[16], address[32];
        uint8_t uuid[16] = {[6] = 0x40, [8] = 0x80, [15] = (uint8_t)i};
        (void)snprintf(name, sizeof(name), "node%u", i);
        (void)snprintf(address, sizeof(address), "10.77.0.%u", i);
        Director__NodeInfo info = DIRECTOR__NODE_INFO__INIT;
        info.uuid = (ProtobufCBinaryData){16, uuid};
        info.name = name;
        info.address = address;
        info.software = (char *)"0.1.0";
        APPLY(NODE_ADD, node_add, .node = &info);
        APPLY(NODE_VOTER, node_voter, .nodeid = i, .voter = true);
        APPLY(STORE_PUT, store_put, .nodeid = i, .name = (char *)"default", .plugin = (char *)"file",
              .path = (char *)"/var/lib/director/store", .capacity = 100ull << 30);
    }
    if (!with_volumes)
        return;
    /* In this order the tree's placement gives mail to node2 and db to node1. */
    add_volume(fixture, "mail", 4ull << 30, 2, 3, 2);
    add_volume(fixture, "db", 10ull << 30, 1, 2, 1);
    APPLY(VOLUME_ISR, volume_isr, .volume = VIEW_FIXTURE_MAIL, .expect_epoch = 1, .expect_version = 1, .isr = 1, .reason = (char *)"test");
    APPLY(TARGET_CREATE, target_create, .iqn = (char *)"iqn.2026-01.org.director:c1:db");
    APPLY(LUN_ADD, lun_add, .iqn = (char *)"iqn.2026-01.org.director:c1:db", .lun = 0, .volume = (char *)"db");
}

void view_fixture_done(struct view_fixture *fixture)
{
    tree_free(fixture->tree);
}

static Director__Result *refused(int code, const char *message)
{
    Director__Result *result = malloc(sizeof(*result));
    director__result__init(result);
    result->code = code;
    result->message = strdup(message);
    return result;
}

Director__Result *view_fixture_call(struct view_fixture *fixture, const Director__Call *call,
                                    void (*on_applied)(const Director__Command *command, void *context), void *context)
{
    uint64_t turn = api_view_is_read(call) ? 0 : ++fixture->changes; /* other identities for each change, but the same in each run */
    struct api_entropy entropy = {.uuid = {0xe0, [6] = 0x40, [8] = 0x80, [14] = (uint8_t)(turn >> 8), [15] = (uint8_t)turn},
                                  .incarnations = {turn << 8 | 1, turn << 8 | 2, turn << 8 | 3, turn << 8 | 4}};
    struct api_plan plan;
    struct error error = {0};
    if (api_view_is_read(call))
        return api_view_answer(&fixture->view, call);
    int code = api_view_plan(&fixture->view, call, &entropy, &plan, &error);
    if (code < 0)
        return refused(code, error.message);
    char words[512];
    unsigned done = 0;
    while (done < plan.command_count && code == 0) {
        plan.commands[done]->time_ms = 1790000000000;
        plan.commands[done]->origin = 1;
        free(plan.commands[done]->who == protobuf_c_empty_string ? NULL : plan.commands[done]->who);
        plan.commands[done]->who = strdup("root");
        code = tree_apply(fixture->tree, plan.commands[done], NULL, &error);
        if (code < 0)
            break;
        if (on_applied)
            on_applied(plan.commands[done], context);
        done++;
    }
    Director__Result *result = code < 0 ? refused(code, api_plan_failed(&plan, done, error.message, sizeof(words), words))
                                        : api_view_done(&fixture->view, &plan);
    api_plan_done(&plan);
    return result;
}
