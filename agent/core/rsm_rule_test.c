/* Single rules of the replicated log, one node against messages made by hand: what storms reach too seldom. */
#include "agent/core/rsm_message.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define VIEW 77

struct probe {
    struct rsm *rsm;
    struct rsm_effects effects;
    uint64_t now;
};

static struct rsm_entry config_entry(void)
{
    return (struct rsm_entry){
        .index = 1, .term = 1, .kind = RSM_ENTRY_CONFIG, .config = {.voters = {1, 2, 3}, .count = 3}};
}

static struct rsm_entry command_entry(uint64_t index, uint64_t term)
{
    return (struct rsm_entry){.index = index,
                              .term = term,
                              .kind = RSM_ENTRY_COMMAND,
                              .origin = 9,
                              .boot = 1,
                              .sequence = index,
                              .data = {(const uint8_t *)"x", 1}};
}

static void step(struct probe *probe, struct rsm_event event)
{
    rsm_effects_clear(&probe->effects);
    assert_int_equal(rsm_step(probe->rsm, &event, probe->now, &probe->effects), 0);
}

/* Node 2 of 1, 2, 3 with a log whose entries after the first have these terms; in a view of all. */
static struct probe node_with(uint64_t term, uint16_t voted_for, const uint64_t *terms, size_t count)
{
    static const uint16_t members[] = {1, 2, 3};
    struct rsm_options options = {.self = 2, .boot = 5};
    struct probe probe = {.rsm = rsm_new(&options), .now = 10000};
    struct rsm_blob blobs[16];
    for (size_t i = 0; i <= count; i++) {
        struct rsm_entry entry = i ? command_entry(i + 1, terms[i - 1]) : config_entry();
        blobs[i].data = rsm_entry_encode(&entry, &blobs[i].size);
    }
    struct rsm_persistent persistent = {.term = term, .voted_for = voted_for, .entries = blobs, .entry_count = count + 1};
    step(&probe, (struct rsm_event){.kind = RSM_EVENT_START, .persistent = &persistent});
    step(&probe, (struct rsm_event){.kind = RSM_EVENT_VIEW, .view = VIEW, .members = members, .member_count = 3});
    for (size_t i = 0; i <= count; i++)
        free((void *)blobs[i].data);
    return probe;
}

static void probe_done(struct probe *probe)
{
    rsm_effects_done(&probe->effects);
    rsm_free(probe->rsm);
}

static void hear(struct probe *probe, uint16_t from, struct rsm_message message)
{
    size_t size;
    message.view = VIEW;
    uint8_t *bytes = rsm_message_encode(&message, &size);
    step(probe, (struct rsm_event){.kind = RSM_EVENT_MESSAGE, .from = from, .data = {bytes, size}});
    free(bytes);
}

/* Place of the first message of a type among the effects, or -1. */
static int said(struct probe *probe, enum rsm_message_type type, struct rsm_message *ret_message)
{
    for (size_t i = 0; i < probe->effects.count; i++) {
        const struct rsm_effect *effect = &probe->effects.items[i];
        if (effect->kind != RSM_EFFECT_MULTICAST)
            continue;
        assert_int_equal(rsm_message_decode(effect->data, effect->size, ret_message), 0);
        if (ret_message->type == type)
            return (int)i;
    }
    return -1;
}

static int done(struct probe *probe, enum rsm_effect_kind kind)
{
    for (size_t i = 0; i < probe->effects.count; i++)
        if (probe->effects.items[i].kind == kind)
            return (int)i;
    return -1;
}

static struct rsm_message claim(uint64_t term, uint64_t last_term, uint64_t last_index)
{
    return (struct rsm_message){.type = RSM_CLAIM, .term = term, .last_term = last_term, .last_index = last_index};
}

static bool grants(struct probe *probe)
{
    struct rsm_message reply;
    assert_true(said(probe, RSM_GRANT, &reply) >= 0);
    return reply.flags & RSM_FLAG_GRANTED;
}

/* R1 */
static void a_vote_is_durable_before_it_is_sent_and_given_once(void **state)
{
    (void)state;
    struct rsm_message reply;
    struct probe probe = node_with(1, 1, NULL, 0);
    hear(&probe, 1, claim(5, 1, 1));
    assert_true(grants(&probe));
    int vote = done(&probe, RSM_EFFECT_HARD_STATE);
    assert_true(vote >= 0 && vote < said(&probe, RSM_GRANT, &reply));
    assert_int_equal(probe.effects.items[vote].term, 5);
    assert_int_equal(probe.effects.items[vote].voted_for, 1);
    hear(&probe, 3, claim(5, 9, 9));
    assert_false(grants(&probe));
    probe_done(&probe);

    probe = node_with(5, 1, NULL, 0); /* after a restart */
    hear(&probe, 3, claim(5, 9, 9));
    assert_false(grants(&probe));
    hear(&probe, 1, claim(5, 1, 1));
    assert_true(grants(&probe));
    assert_int_equal(done(&probe, RSM_EFFECT_HARD_STATE), -1);
    probe_done(&probe);
}

static void a_probe_changes_nothing_durable(void **state)
{
    (void)state;
    struct probe probe = node_with(1, 1, NULL, 0);
    struct rsm_message message = claim(5, 1, 1);
    message.flags = RSM_FLAG_PROBE;
    hear(&probe, 1, message);
    assert_true(grants(&probe));
    assert_int_equal(done(&probe, RSM_EFFECT_HARD_STATE), -1);
    hear(&probe, 3, message); /* nor does it bind */
    assert_true(grants(&probe));
    probe_done(&probe);
}

/* R2 */
static void a_claim_with_an_older_log_is_refused(void **state)
{
    (void)state;
    struct probe probe = node_with(3, 0, (const uint64_t[]){2, 3}, 2);
    hear(&probe, 1, claim(5, 2, 99)); /* longer, but of an older term */
    assert_false(grants(&probe));
    hear(&probe, 1, claim(6, 3, 2)); /* same term, shorter */
    assert_false(grants(&probe));
    hear(&probe, 1, claim(7, 3, 3));
    assert_true(grants(&probe));
    probe_done(&probe);
}

static void a_claim_is_refused_while_a_sequencer_is_heard(void **state)
{
    (void)state;
    struct probe probe = node_with(1, 1, NULL, 0);
    hear(&probe, 1, (struct rsm_message){.type = RSM_HEARTBEAT, .term = 2, .last_index = 1});
    hear(&probe, 3, claim(5, 9, 9));
    assert_false(grants(&probe));
    struct rsm_message message = claim(5, 9, 9);
    message.flags = RSM_FLAG_HANDOVER; /* the sequencer itself wants it */
    hear(&probe, 3, message);
    assert_true(grants(&probe));
    probe_done(&probe);
}

static struct probe sequencer_with(uint64_t term, const uint64_t *terms, size_t count)
{
    struct probe probe = node_with(term, 0, terms, count);
    struct rsm_message message;
    hear(&probe, 1, (struct rsm_message){.type = RSM_STATE, .term = term, .last_term = 1, .last_index = 1, .boot = 1});
    hear(&probe, 3, (struct rsm_message){.type = RSM_STATE, .term = term, .last_term = 1, .last_index = 1, .boot = 1});
    assert_true(said(&probe, RSM_CLAIM, &message) >= 0);
    hear(&probe, 1, (struct rsm_message){.type = RSM_GRANT, .flags = RSM_FLAG_PROBE | RSM_FLAG_GRANTED, .to = 2,
                                         .term = term + 1, .own_term = term});
    int vote = done(&probe, RSM_EFFECT_HARD_STATE); /* R1: for ourselves */
    assert_true(vote >= 0 && vote < said(&probe, RSM_CLAIM, &message));
    hear(&probe, 1, (struct rsm_message){.type = RSM_GRANT, .flags = RSM_FLAG_GRANTED, .to = 2, .term = term + 1,
                                         .own_term = term + 1});
    assert_true(said(&probe, RSM_APPEND, &message) >= 0);
    return probe;
}

static void acknowledge(struct probe *probe, uint16_t from, uint64_t term, uint64_t index)
{
    hear(probe, from, (struct rsm_message){.type = RSM_ACK, .to = 2, .term = term, .index = index, .last_index = index});
}

/* R5: Ongaro's figure 3.7. */
static void an_entry_of_an_older_term_commits_only_with_one_of_our_own(void **state)
{
    (void)state;
    struct rsm_status status;
    struct probe probe = sequencer_with(2, (const uint64_t[]){2}, 1); /* entry 2 of term 2; entry 3: our NOOP of term 3 */
    acknowledge(&probe, 1, 3, 2);
    acknowledge(&probe, 3, 3, 2); /* all have it, and yet: */
    rsm_get_status(probe.rsm, &status);
    assert_int_equal(status.commit, 0);
    acknowledge(&probe, 1, 3, 3);
    rsm_get_status(probe.rsm, &status);
    assert_int_equal(status.commit, 3);
    assert_true(done(&probe, RSM_EFFECT_APPLY) >= 0);
    probe_done(&probe);
}

static void an_acknowledgement_beyond_the_log_is_refused(void **state)
{
    (void)state;
    struct probe probe = sequencer_with(2, (const uint64_t[]){2}, 1);
    size_t size;
    struct rsm_message message = {.type = RSM_ACK, .to = 2, .view = VIEW, .term = 3, .index = 99, .last_index = 99};
    uint8_t *bytes = rsm_message_encode(&message, &size);
    struct rsm_event event = {.kind = RSM_EVENT_MESSAGE, .from = 1, .data = {bytes, size}};
    assert_int_equal(rsm_step(probe.rsm, &event, probe.now, &probe.effects), -EPROTO);
    free(bytes);
    probe_done(&probe);
}

/* R8: what lies beyond what the sequencer sent may conflict with its log. */
static void a_member_acknowledges_only_what_is_known_to_match(void **state)
{
    (void)state;
    struct rsm_message reply;
    struct rsm_status status;
    struct probe probe = node_with(2, 0, (const uint64_t[]){2, 2, 2}, 3);
    hear(&probe, 1, (struct rsm_message){.type = RSM_APPEND, .term = 3, .previous_index = 2, .previous_term = 2, .commit = 4});
    assert_true(said(&probe, RSM_ACK, &reply) >= 0);
    assert_int_equal(reply.index, 2);
    rsm_get_status(probe.rsm, &status);
    assert_int_equal(status.commit, 2);
    hear(&probe, 1, (struct rsm_message){.type = RSM_HEARTBEAT, .term = 3, .commit = 4, .last_index = 4});
    rsm_get_status(probe.rsm, &status);
    assert_int_equal(status.commit, 2);
    assert_true(said(&probe, RSM_ACK, &reply) >= 0);
    assert_int_equal(reply.flags, RSM_FLAG_LAG);
    probe_done(&probe);
}

/* R4, R8: the acknowledgement follows the append on disk; the conflict is cut first. */
static void a_conflicting_tail_is_cut_and_replaced_before_the_acknowledgement(void **state)
{
    (void)state;
    struct rsm_message reply;
    struct probe probe = node_with(2, 0, (const uint64_t[]){2, 2, 2}, 3);
    struct rsm_entry entry = command_entry(3, 3);
    struct rsm_message message = {.type = RSM_APPEND, .term = 3, .previous_index = 2, .previous_term = 2};
    message.data.data = rsm_entry_encode(&entry, &message.data.size);
    hear(&probe, 1, message);
    free((void *)message.data.data);
    int cut = done(&probe, RSM_EFFECT_LOG_TRUNCATE), append = done(&probe, RSM_EFFECT_LOG_APPEND);
    assert_true(cut >= 0 && cut < append && append < said(&probe, RSM_ACK, &reply));
    assert_int_equal(probe.effects.items[cut].index, 3);
    assert_int_equal(reply.index, 3);
    message = (struct rsm_message){.type = RSM_APPEND, .term = 3, .previous_index = 3, .previous_term = 2};
    hear(&probe, 1, message); /* same index, other term */
    assert_true(said(&probe, RSM_ACK, &reply) >= 0);
    assert_int_equal(reply.flags, RSM_FLAG_REJECT);
    probe_done(&probe);
}

/* A request already under way in the log is not appended again. */
static void a_proposal_heard_twice_is_appended_once(void **state)
{
    (void)state;
    struct probe probe = sequencer_with(2, (const uint64_t[]){2}, 1);
    struct rsm_message submit = {.type = RSM_SUBMIT, .term = 3, .boot = 8, .sequence = 1, .data = {(const uint8_t *)"y", 1}};
    hear(&probe, 1, submit);
    assert_true(done(&probe, RSM_EFFECT_LOG_APPEND) >= 0);
    hear(&probe, 1, submit);
    assert_int_equal(done(&probe, RSM_EFFECT_LOG_APPEND), -1);
    probe_done(&probe);
}

/* Of another view, another cluster, or from somebody outside the view: as if never sent. */
static void strangers_and_old_views_are_not_heard(void **state)
{
    (void)state;
    struct probe probe = node_with(1, 0, NULL, 0);
    struct rsm_message messages[3] = {claim(5, 9, 9), claim(5, 9, 9), claim(5, 9, 9)};
    uint16_t from[3] = {1, 1, 4};
    messages[0].view = VIEW - 1;
    messages[1].view = VIEW;
    messages[1].cluster = 1;
    messages[2].view = VIEW;
    for (int i = 0; i < 3; i++) {
        size_t size;
        uint8_t *bytes = rsm_message_encode(&messages[i], &size);
        step(&probe, (struct rsm_event){.kind = RSM_EVENT_MESSAGE, .from = from[i], .data = {bytes, size}});
        assert_int_equal(probe.effects.count, 0);
        free(bytes);
    }
    probe_done(&probe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_vote_is_durable_before_it_is_sent_and_given_once),
        cmocka_unit_test(a_probe_changes_nothing_durable),
        cmocka_unit_test(a_claim_with_an_older_log_is_refused),
        cmocka_unit_test(a_claim_is_refused_while_a_sequencer_is_heard),
        cmocka_unit_test(an_entry_of_an_older_term_commits_only_with_one_of_our_own),
        cmocka_unit_test(an_acknowledgement_beyond_the_log_is_refused),
        cmocka_unit_test(a_member_acknowledges_only_what_is_known_to_match),
        cmocka_unit_test(a_conflicting_tail_is_cut_and_replaced_before_the_acknowledgement),
        cmocka_unit_test(a_proposal_heard_twice_is_appended_once),
        cmocka_unit_test(strangers_and_old_views_are_not_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
