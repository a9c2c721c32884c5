#include "agent/io/cpg_view.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct cpg_view_member a = {1, 100}, b = {2, 200}, c = {3, 300};

static bool group(struct cpg_view_builder *builder, unsigned mask, const struct cpg_view_member *left,
                  enum cpg_view_reason reason, bool ring_changing)
{
    struct cpg_view_member members[3];
    size_t count = 0;
    if (mask & 4)
        members[count++] = c; /* out of order on purpose */
    if (mask & 1)
        members[count++] = a;
    if (mask & 2)
        members[count++] = b;
    struct cpg_view_departed departed = {.reason = reason};
    if (left)
        departed.member = *left;
    return cpg_view_builder_group(builder, members, count, &departed, left ? 1 : 0, ring_changing);
}

static bool totem(struct cpg_view_builder *builder, uint64_t sequence, unsigned mask)
{
    uint32_t nodes[3];
    size_t count = 0;
    for (uint32_t i = 3; i >= 1; i--)
        if (mask & 1u << (i - 1))
            nodes[count++] = i;
    return cpg_view_builder_totem(builder, 1, sequence, nodes, count);
}

static void start(struct cpg_view_builder *builder)
{
    cpg_view_builder_init(builder);
    assert_false(group(builder, 7, NULL, CPG_VIEW_LEFT, false)); /* no ring known yet */
    assert_true(totem(builder, 8, 7));
}

static void a_view_waits_for_both_kinds_of_change(void **state)
{
    (void)state;
    struct cpg_view_builder builder;
    start(&builder);
    assert_int_equal(builder.view.member_count, 3);
    assert_int_equal(builder.view.members[0].nodeid, 1);
    assert_int_equal(builder.view.members[2].pid, 300);
    assert_int_equal(builder.view.totem_count, 3);
    assert_int_equal(builder.view.departed_count, 0);
    assert_true(cpg_view_has(&builder.view, 2, 200));
    assert_false(cpg_view_has(&builder.view, 2, 201));
    assert_false(group(&builder, 3, &c, CPG_VIEW_NODE_DOWN, true));
    assert_int_equal(builder.view.member_count, 3); /* the old one stands until the ring is known */
    assert_true(totem(&builder, 12, 3));
    assert_int_equal(builder.view.member_count, 2);
    assert_int_equal(builder.view.ring_sequence, 12);
    assert_int_equal(builder.view.departed_count, 1);
    assert_int_equal(builder.view.departed[0].member.nodeid, 3);
    assert_int_equal(builder.view.departed[0].reason, CPG_VIEW_NODE_DOWN);
}

static void a_process_that_dies_on_an_unchanged_ring_gives_a_view_at_once(void **state)
{
    (void)state;
    struct cpg_view_builder builder;
    start(&builder);
    uint64_t before = builder.view.id;
    assert_true(group(&builder, 5, &b, CPG_VIEW_PROCESS_DOWN, false));
    assert_int_equal(builder.view.member_count, 2);
    assert_int_equal(builder.view.totem_count, 3);
    assert_int_equal(builder.view.departed[0].reason, CPG_VIEW_PROCESS_DOWN);
    assert_true(builder.view.id != before);
}

static void members_that_the_ring_lacks_are_dropped_and_reported_once(void **state)
{
    (void)state;
    struct cpg_view_builder builder;
    start(&builder);
    assert_true(totem(&builder, 12, 3)); /* the group list still names node 3 */
    assert_int_equal(builder.view.member_count, 2);
    assert_int_equal(builder.view.departed_count, 1);
    assert_int_equal(builder.view.departed[0].member.nodeid, 3);
    assert_int_equal(builder.view.departed[0].reason, CPG_VIEW_NODE_DOWN);
    assert_false(group(&builder, 3, &c, CPG_VIEW_PROCESS_DOWN, false)); /* told already */
}

static void a_fast_restart_shows_a_member_as_departed_and_present(void **state)
{
    (void)state;
    struct cpg_view_builder builder;
    start(&builder);
    uint64_t before = builder.view.id;
    assert_false(group(&builder, 3, &c, CPG_VIEW_NODE_DOWN, true));
    assert_false(group(&builder, 7, NULL, CPG_VIEW_LEFT, true));
    assert_true(totem(&builder, 16, 7));
    assert_int_equal(builder.view.member_count, 3);
    assert_int_equal(builder.view.departed_count, 1);
    assert_true(builder.view.id != before);
}

static void the_same_view_is_not_reported_twice_and_its_id_is_the_same_everywhere(void **state)
{
    (void)state;
    struct cpg_view_builder builder, other;
    start(&builder);
    assert_false(totem(&builder, 8, 7));
    assert_false(group(&builder, 7, NULL, CPG_VIEW_LEFT, false));
    cpg_view_builder_init(&other); /* one that joined last, and saw it in another order */
    assert_false(totem(&other, 8, 7));
    assert_true(group(&other, 7, NULL, CPG_VIEW_LEFT, false));
    assert_true(other.view.id == builder.view.id && other.view.id);
}

static void a_ring_change_without_a_group_change_is_a_view(void **state)
{
    (void)state;
    struct cpg_view_builder builder;
    start(&builder);
    assert_true(totem(&builder, 20, 7));
    assert_int_equal(builder.view.departed_count, 0);
}

static void too_long_lists_are_cut(void **state)
{
    (void)state;
    struct cpg_view_builder builder;
    struct cpg_view_member members[CPG_VIEW_MEMBERS_MAX + 10];
    uint32_t nodes[CPG_VIEW_MEMBERS_MAX + 10];
    for (uint32_t i = 0; i < ARRAY_SIZE(nodes); i++) {
        nodes[i] = i + 1;
        members[i] = (struct cpg_view_member){i + 1, 1};
    }
    cpg_view_builder_init(&builder);
    assert_false(cpg_view_builder_group(&builder, members, ARRAY_SIZE(members), NULL, 0, false));
    assert_true(cpg_view_builder_totem(&builder, 1, 4, nodes, ARRAY_SIZE(nodes)));
    assert_int_equal(builder.view.member_count, CPG_VIEW_MEMBERS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_view_waits_for_both_kinds_of_change),
        cmocka_unit_test(a_process_that_dies_on_an_unchanged_ring_gives_a_view_at_once),
        cmocka_unit_test(members_that_the_ring_lacks_are_dropped_and_reported_once),
        cmocka_unit_test(a_fast_restart_shows_a_member_as_departed_and_present),
        cmocka_unit_test(the_same_view_is_not_reported_twice_and_its_id_is_the_same_everywhere),
        cmocka_unit_test(a_ring_change_without_a_group_change_is_a_view),
        cmocka_unit_test(too_long_lists_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
