/* What the shell's transcripts (tests/shell) do not show of the view: the commands themselves, events, a view without live
 * figures, odd paths. */
#include "agent/api/view_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct view_fixture fixture;

static int start(void **state)
{
    (void)state;
    view_fixture_init(&fixture, true);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    view_fixture_done(&fixture);
    return 0;
}

static Director__Call call_of(Director__Verb verb, const char *path, const char *name)
{
    Director__Call call = DIRECTOR__CALL__INIT;
    call.verb = verb;
    call.path = (char *)path;
    call.name = (char *)name;
    return call;
}

static const struct api_entropy entropy = {.uuid = {1, 2, 3, [15] = 16}, .incarnations = {11, 12, 13, 14}};

static void create_becomes_one_command_with_the_randomness_given(void **state)
{
    (void)state;
    Director__Call call = call_of(DIRECTOR__VERB__CREATE, "/volumes", "vol1");
    Director__Property size = DIRECTOR__PROPERTY__INIT, replicas = DIRECTOR__PROPERTY__INIT, *list[] = {&size, &replicas};
    struct api_plan plan;
    struct error error = {0};
    size.name = (char *)"size";
    size.value = (char *)"1.5G";
    replicas.name = (char *)"replicas";
    replicas.value = (char *)"3";
    call.properties = list;
    call.n_properties = 2;
    assert_false(api_view_is_read(&call));
    assert_int_equal(api_view_plan(&fixture.view, &call, &entropy, &plan, &error), 0);
    assert_int_equal(plan.command_count, 1);
    assert_int_equal(plan.commands[0]->body_case, DIRECTOR__COMMAND__BODY_VOLUME_CREATE);
    const Director__VolumeCreate *create = plan.commands[0]->volume_create;
    assert_string_equal(create->name, "vol1");
    assert_int_equal(create->size, 3ull << 29);
    assert_int_equal(create->replicas, 3);
    assert_int_equal(create->block_size, 512);
    assert_int_equal(create->uuid.len, 16);
    assert_memory_equal(create->uuid.data, entropy.uuid, 16);
    assert_int_equal(create->n_incarnations, 3);
    assert_int_equal(create->incarnations[2], 13);
    assert_int_equal(create->n_nodes, 0);
    assert_string_equal(create->store, "");
    assert_string_equal(plan.path, "/volumes/vol1");
    api_plan_done(&plan);
}

static void export_makes_target_and_lun_and_unexport_removes_both(void **state)
{
    (void)state;
    Director__Call call = call_of(DIRECTOR__VERB__ACTION, "/volumes/mail", "export");
    struct api_plan plan;
    struct error error = {0};
    assert_int_equal(api_view_plan(&fixture.view, &call, &entropy, &plan, &error), 0);
    assert_int_equal(plan.command_count, 2);
    assert_string_equal(plan.commands[0]->target_create->iqn, "iqn.2026-01.org.director:c1:mail");
    assert_string_equal(plan.commands[1]->lun_add->iqn, "iqn.2026-01.org.director:c1:mail");
    assert_string_equal(plan.commands[1]->lun_add->volume, "mail");
    assert_int_equal(plan.commands[1]->lun_add->lun, 0);
    api_plan_done(&plan);
    call = call_of(DIRECTOR__VERB__ACTION, "/volumes/db", "unexport");
    assert_int_equal(api_view_plan(&fixture.view, &call, &entropy, &plan, &error), 0);
    assert_int_equal(plan.command_count, 2);
    assert_int_equal(plan.commands[0]->body_case, DIRECTOR__COMMAND__BODY_LUN_REMOVE);
    assert_int_equal(plan.commands[1]->body_case, DIRECTOR__COMMAND__BODY_TARGET_DELETE);
    api_plan_done(&plan);
}

static void move_names_the_epoch_it_replaces_and_keeps_the_isr(void **state)
{
    (void)state;
    Director__Call call = call_of(DIRECTOR__VERB__ACTION, "/volumes/db", "move");
    Director__Property owner = DIRECTOR__PROPERTY__INIT, *list[] = {&owner};
    struct api_plan plan;
    struct error error = {0};
    owner.name = (char *)"owner";
    owner.value = (char *)"node2";
    call.properties = list;
    call.n_properties = 1;
    assert_int_equal(api_view_plan(&fixture.view, &call, &entropy, &plan, &error), 0);
    assert_int_equal(plan.command_count, 1);
    assert_int_equal(plan.commands[0]->volume_promote->volume, VIEW_FIXTURE_DB);
    assert_int_equal(plan.commands[0]->volume_promote->expect_epoch, 1);
    assert_int_equal(plan.commands[0]->volume_promote->owner, 2);
    assert_int_equal(plan.commands[0]->volume_promote->isr, 3);
    api_plan_done(&plan);
    fixture.offline[2] = true;
    assert_int_equal(api_view_plan(&fixture.view, &call, &entropy, &plan, &error), -EBUSY);
    assert_string_equal(error.message, "node node2 is offline");
}

/* Somebody deletes the volume between the two commands of its export. */
static void delete_mail(const Director__Command *command, void *context)
{
    Director__Command delete = DIRECTOR__COMMAND__INIT;
    Director__VolumeDelete body = DIRECTOR__VOLUME_DELETE__INIT;
    struct error error = {0};
    (void)context;
    assert_int_equal(command->body_case, DIRECTOR__COMMAND__BODY_TARGET_CREATE);
    body.name = (char *)"mail";
    delete.body_case = DIRECTOR__COMMAND__BODY_VOLUME_DELETE;
    delete.volume_delete = &body;
    assert_int_equal(tree_apply(fixture.tree, &delete, NULL, &error), 0);
}

static void a_plan_that_fails_midway_says_what_was_done(void **state)
{
    (void)state;
    static const char begin[] = "1 of 2 steps is done (target iqn.2026-01.org.director:c1:mail was made), the next failed: ";
    Director__Call call = call_of(DIRECTOR__VERB__ACTION, "/volumes/mail", "export");
    Director__Result *result = view_fixture_call(&fixture, &call, delete_mail, NULL);
    assert_int_equal(result->code, -ENOENT);
    assert_int_equal(strncmp(result->message, begin, sizeof(begin) - 1), 0);
    assert_non_null(strstr(result->message + sizeof(begin) - 1, "there is no volume 'mail'"));
    assert_non_null(tree_target_by_iqn(fixture.tree, "iqn.2026-01.org.director:c1:mail"));
    api_result_free(result);
}

static void a_node_that_votes_is_removed_in_two_steps_if_a_majority_stays(void **state)
{
    (void)state;
    struct view_fixture bare;
    struct api_plan plan;
    struct error error = {0};
    view_fixture_init(&bare, false);
    bare.offline[2] = true;
    Director__Call call = call_of(DIRECTOR__VERB__DELETE, "/nodes/node2", "");
    assert_int_equal(api_view_plan(&bare.view, &call, &entropy, &plan, &error), 0);
    assert_int_equal(plan.command_count, 2);
    assert_int_equal(plan.commands[0]->body_case, DIRECTOR__COMMAND__BODY_NODE_VOTER);
    assert_int_equal(plan.commands[0]->node_voter->nodeid, 2);
    assert_false(plan.commands[0]->node_voter->voter);
    assert_int_equal(plan.commands[1]->body_case, DIRECTOR__COMMAND__BODY_NODE_REMOVE);
    assert_int_equal(plan.commands[1]->node_remove->nodeid, 2);
    assert_string_equal(plan.path, "/nodes");
    api_plan_done(&plan);
    call.path = (char *)"/nodes/node1"; /* node2 is dead: node3 alone would be left of two voters */
    assert_int_equal(api_view_plan(&bare.view, &call, &entropy, &plan, &error), -EBUSY);
    assert_non_null(strstr(error.message, "1 of 2 voters"));
    view_fixture_done(&bare);
}

static void words_of_a_half_done_plan_keep_the_reason(void **state)
{
    (void)state;
    Director__Call call = call_of(DIRECTOR__VERB__ACTION, "/volumes/db", "unexport");
    struct api_plan plan;
    struct error error = {0};
    char text[512], brief[16];
    assert_int_equal(api_view_plan(&fixture.view, &call, &entropy, &plan, &error), 0);
    const char *why = "no majority of the nodes confirmed the change in time";
    assert_ptr_equal(api_plan_failed(&plan, 0, why, sizeof(text), text), why);
    assert_string_equal(api_plan_failed(&plan, 1, why, sizeof(text), text),
                        "1 of 2 steps is done (lun 0 of target iqn.2026-01.org.director:c1:db was deleted), the next failed: "
                        "no majority of the nodes confirmed the change in time");
    assert_string_equal(api_plan_failed(&plan, 1, why, sizeof(brief), brief), "1 of 2 steps is");
    api_plan_done(&plan);
}

static void a_refused_plan_leaves_nothing_behind(void **state)
{
    (void)state;
    static const Director__Verb verbs[] = {DIRECTOR__VERB__CREATE, DIRECTOR__VERB__SET, DIRECTOR__VERB__DELETE,
                                           DIRECTOR__VERB__ACTION, DIRECTOR__VERB__WATCH};
    static const char *const paths[] = {"/", "/nodes", "/nodes/node1/stores", "/volumes/mail/replicas/node2", "/plugins/file",
                                        "/targets/iqn.2026-01.org.director:c1:db/sessions/1", "/nothing", "/volumes/db/x/y"};
    for (size_t v = 0; v < ARRAY_SIZE(verbs); v++)
        for (size_t p = 0; p < ARRAY_SIZE(paths); p++) {
            Director__Call call = call_of(verbs[v], paths[p], "frobnicate");
            struct error error = {0};
            struct api_plan plan;
            assert_true(api_view_plan(&fixture.view, &call, &entropy, &plan, &error) < 0);
            assert_true(error.message[0] != '\0');
            assert_null(strstr(error.message, "(null)"));
        }
}

static void paths_are_found_in_any_spelling(void **state)
{
    (void)state;
    static const char *const paths[] = {"/volumes/db", "//volumes///db/", "/volumes/./db", "/volumes/mail/../db", "/../volumes/db"};
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        Director__Call call = call_of(DIRECTOR__VERB__GET, paths[i], "");
        Director__Result *result = api_view_answer(&fixture.view, &call);
        assert_int_equal(result->code, 0);
        assert_string_equal(result->objects[0]->path, "/volumes/db");
        api_result_free(result);
    }
    char deep[900] = "";
    for (int i = 0; i < 100; i++)
        strcat(deep, "/volumes");
    Director__Call call = call_of(DIRECTOR__VERB__GET, deep, "");
    Director__Result *result = api_view_answer(&fixture.view, &call);
    assert_int_equal(result->code, -ENOENT);
    api_result_free(result);
}

static void without_live_figures_nothing_is_made_up(void **state)
{
    (void)state;
    struct api_view view = {.tree = fixture.tree, .self = ""};
    Director__Call call = call_of(DIRECTOR__VERB__LIST, "/", "");
    call.depth = 1000;
    call.full = true;
    Director__Result *result = api_view_answer(&view, &call);
    assert_int_equal(result->code, 0);
    for (size_t i = 0; i < result->n_objects; i++) {
        const Director__Object *object = result->objects[i];
        for (size_t k = 0; k < object->n_properties; k++) {
            if (strcmp(object->kind, "node") == 0 && strcmp(object->properties[k]->name, "state") == 0)
                assert_string_equal(object->properties[k]->value, "unknown");
            if (strcmp(object->properties[k]->name, "quorate") == 0 || strcmp(object->properties[k]->name, "read_bytes") == 0)
                assert_string_equal(object->properties[k]->value, "");
        }
    }
    api_result_free(result);
}

static void every_property_has_type_and_help(void **state)
{
    (void)state;
    static const char *const paths[] = {"/", "/nodes/node1", "/nodes/node1/stores", "/nodes/node1/stores/default", "/volumes",
                                        "/volumes/mail", "/volumes/mail/replicas/node3", "/targets", "/plugins/delay",
                                        "/targets/iqn.2026-01.org.director:c1:db", "/targets/iqn.2026-01.org.director:c1:db/luns",
                                        "/targets/iqn.2026-01.org.director:c1:db/luns/0"};
    for (size_t p = 0; p < ARRAY_SIZE(paths); p++) {
        Director__Call call = call_of(DIRECTOR__VERB__DESCRIBE, paths[p], "");
        Director__Result *result = api_view_answer(&fixture.view, &call);
        assert_int_equal(result->code, 0);
        for (size_t i = 0; i < result->n_objects; i++)
            for (size_t k = 0; k < result->objects[i]->n_properties; k++) {
                assert_true(result->objects[i]->properties[k]->help[0] != '\0');
                assert_true(result->objects[i]->properties[k]->type[0] != '\0');
            }
        api_result_free(result);
    }
}

static void events_name_the_object_that_changed(void **state)
{
    (void)state;
    char path[512];
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__VolumeIsr isr = DIRECTOR__VOLUME_ISR__INIT;
    isr.volume = VIEW_FIXTURE_MAIL;
    isr.reason = (char *)"node3 caught up";
    command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_ISR;
    command.volume_isr = &isr;
    Director__Result *event = api_view_event(&fixture.view, &command, path);
    assert_string_equal(path, "/volumes/mail");
    assert_string_equal(event->lines[0], "volume mail: owner node2, in sync on node2, epoch 1, because node3 caught up");
    assert_string_equal(event->objects[0]->kind, "volume");
    api_result_free(event);

    Director__LunRemove lun = DIRECTOR__LUN_REMOVE__INIT;
    lun.iqn = (char *)"iqn.2026-01.org.director:c1:db";
    lun.lun = 3;
    command.body_case = DIRECTOR__COMMAND__BODY_LUN_REMOVE;
    command.lun_remove = &lun;
    event = api_view_event(&fixture.view, &command, path);
    assert_string_equal(path, "/targets/iqn.2026-01.org.director:c1:db/luns/3");
    assert_true(event->objects[0]->deleted);
    api_result_free(event);

    isr.volume = 77; /* gone meanwhile */
    command.body_case = DIRECTOR__COMMAND__BODY_VOLUME_ISR;
    command.volume_isr = &isr;
    assert_null(api_view_event(&fixture.view, &command, path));
}

static Director__Result *ask(Director__Verb verb, const char *path, const char *name, const char *const (*arguments)[2])
{
    Director__Call call = call_of(verb, path, name);
    Director__Property properties[8], *list[8];
    for (; arguments && arguments[call.n_properties][0]; call.n_properties++) {
        Director__Property *property = &properties[call.n_properties];
        director__property__init(property);
        property->name = (char *)arguments[call.n_properties][0];
        property->value = (char *)arguments[call.n_properties][1];
        list[call.n_properties] = property;
    }
    call.properties = list;
    return view_fixture_call(&fixture, &call, NULL, NULL);
}

static bool has_line(const Director__Result *result, const char *part)
{
    for (size_t i = 0; i < result->n_lines; i++)
        if (strstr(result->lines[i], part))
            return true;
    return false;
}

static void a_preview_changes_nothing_and_says_what_is_not_known(void **state)
{
    (void)state;
    static const char *const arguments[][2] = {{"node", "node3"}, {"reason", "x"}, {"preview", "yes"}, {NULL, NULL}};
    uint64_t before;
    fixture.offline[2] = true;
    fixture.live.volume_last = NULL;
    before = tree_hash(fixture.tree);
    Director__Result *result = ask(DIRECTOR__VERB__ACTION, "/volumes/mail", "force", arguments);
    assert_int_equal(result->code, 0);
    assert_true(has_line(result, "when node3 left the in-sync set"));
    assert_true(has_line(result, "node2 (offline) has all of them"));
    assert_true(has_line(result, "nobody who is online can tell"));
    assert_true(tree_hash(fixture.tree) == before);
    api_result_free(result);
    static const char *const add[][2] = {{"node", "node1"}, {NULL, NULL}};
    static const char *const other[][2] = {{"node", "node1"}, {"preview", "yes"}, {NULL, NULL}};
    api_result_free(ask(DIRECTOR__VERB__ACTION, "/volumes/mail", "add-replica", add));
    result = ask(DIRECTOR__VERB__ACTION, "/volumes/mail", "force", other);
    assert_true(has_line(result, "node1 never was in sync"));
    assert_true(has_line(result, "node3 (online) has some of them"));
    api_result_free(result);
}

static void the_result_of_a_check_stays(void **state)
{
    (void)state;
    Director__Command command = DIRECTOR__COMMAND__INIT;
    Director__TaskEnd end = DIRECTOR__TASK_END__INIT;
    Director__TaskFigures figures = DIRECTOR__TASK_FIGURES__INIT;
    api_result_free(ask(DIRECTOR__VERB__ACTION, "/volumes/mail", "verify", NULL));
    figures.done_bytes = figures.total_bytes = 4ull << 30;
    end.task = 1;
    end.state = DIRECTOR__TASK_STATE__TASK_DONE;
    end.figures = &figures;
    command.body_case = DIRECTOR__COMMAND__BODY_TASK_END;
    command.task_end = &end;
    assert_int_equal(tree_apply(fixture.tree, &command, NULL, NULL), 0);
    Director__Result *result = ask(DIRECTOR__VERB__GET, "/tasks/verify-1", "", NULL);
    assert_string_equal(result->objects[0]->summary, "done, volume mail, all is well");
    api_result_free(result);
    static const char *const none[][2] = {{NULL, NULL}};
    result = ask(DIRECTOR__VERB__ACTION, "/tasks/verify-1", "cancel", none);
    assert_int_equal(result->code, -EINVAL);
    api_result_free(result);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(create_becomes_one_command_with_the_randomness_given),
        TEST(export_makes_target_and_lun_and_unexport_removes_both),
        TEST(move_names_the_epoch_it_replaces_and_keeps_the_isr),
        TEST(a_plan_that_fails_midway_says_what_was_done),
        TEST(a_node_that_votes_is_removed_in_two_steps_if_a_majority_stays),
        TEST(words_of_a_half_done_plan_keep_the_reason),
        TEST(a_refused_plan_leaves_nothing_behind),
        TEST(paths_are_found_in_any_spelling),
        TEST(without_live_figures_nothing_is_made_up),
        TEST(every_property_has_type_and_help),
        TEST(events_name_the_object_that_changed),
        TEST(a_preview_changes_nothing_and_says_what_is_not_known),
        TEST(the_result_of_a_check_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
