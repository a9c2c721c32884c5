/* Events in, effects out: dispatch, views, time. The picture is in rsm.h. */
#include "agent/core/rsm_internal.h"

void *rsm_allocate(size_t size)
{
    void *memory = malloc(size ? size : 1);
    ASSERT(memory); /* out of memory is a crash, which the protocol survives */
    return memory;
}

static void default_to(uint32_t *value, uint32_t otherwise)
{
    if (*value == 0)
        *value = otherwise;
}

struct rsm *rsm_new(const struct rsm_options *options)
{
    ASSERT(options->self != 0 && options->boot != 0);
    struct rsm *rsm = calloc(1, sizeof(*rsm));
    ASSERT(rsm);
    rsm->options = *options;
    default_to(&rsm->options.heartbeat_ms, 100);
    default_to(&rsm->options.silence_ms, 600);
    default_to(&rsm->options.rank_ms, 100);
    default_to(&rsm->options.grace_ms, 50);
    default_to(&rsm->options.check_quorum_ms, 1500);
    default_to(&rsm->options.resubmit_ms, 300);
    default_to(&rsm->options.barrier_ms, 10000);
    default_to(&rsm->options.snapshot_entries, 1000);
    default_to(&rsm->options.snapshot_bytes, 1u << 20);
    default_to(&rsm->options.keep_entries, 200);
    rsm->barrier_round = options->boot; /* a restarted origin does not take the answer to an old question */
    rsm->pending = rsm_allocate(RSM_PENDING_MAX * sizeof(*rsm->pending));
    rsm->barriers = rsm_allocate(RSM_PENDING_MAX * sizeof(*rsm->barriers));
    return rsm;
}

void rsm_free(struct rsm *rsm)
{
    if (!rsm)
        return;
    rsm_log_free(rsm);
    for (size_t i = 0; i < rsm->pending_count; i++)
        free(rsm->pending[i].data);
    free(rsm->pending);
    free(rsm->barriers);
    free(rsm);
}

void rsm_bootstrap(uint16_t self, struct rsm_effects *effects)
{
    struct rsm_entry entry = {
        .index = 1, .term = 1, .kind = RSM_ENTRY_CONFIG, .config = {.voters = {self}, .count = 1}};
    struct rsm_effect *effect = rsm_effect_add(effects, RSM_EFFECT_HARD_STATE);
    effect->term = 1;
    effect->voted_for = self;
    effect = rsm_effect_add(effects, RSM_EFFECT_LOG_APPEND);
    effect->index = effect->term = 1;
    effect->entry_kind = RSM_ENTRY_CONFIG;
    effect->data = rsm_entry_encode(&entry, &effect->size);
}

struct member *rsm_member(struct rsm *rsm, uint16_t nodeid)
{
    for (size_t i = 0; i < rsm->member_count; i++)
        if (rsm->members[i].nodeid == nodeid)
            return &rsm->members[i];
    return NULL;
}

/* C2: of the voters configured, not of those present. */
bool rsm_is_majority(const struct rsm *rsm, uint64_t voters)
{
    size_t of = rsm->config.count;
    if (rsm->options.planted_bugs & RSM_BUG_MAJORITY_PRESENT) {
        of = 0;
        for (size_t i = 0; i < rsm->member_count; i++)
            of += rsm_config_find(&rsm->config, rsm->members[i].nodeid) >= 0;
    }
    return (size_t)__builtin_popcountll(voters) * 2 > of;
}

bool rsm_view_has_majority(const struct rsm *rsm)
{
    uint64_t present = 0;
    for (size_t i = 0; rsm->in_view && i < rsm->member_count; i++) {
        int place = rsm_config_find(&rsm->config, rsm->members[i].nodeid);
        if (place >= 0)
            present |= 1ull << place;
    }
    return rsm_is_majority(rsm, present);
}

unsigned rsm_rank(const struct rsm *rsm)
{
    unsigned rank = 0;
    while (rank < rsm->member_count && rsm->members[rank].nodeid < rsm->options.self)
        rank++;
    return rank;
}

void rsm_send(struct rsm *rsm, struct rsm_message *message)
{
    message->cluster = rsm->options.cluster;
    message->view = rsm->view;
    if (message->term == 0)
        message->term = rsm->term;
    struct rsm_effect *effect = rsm_effect_add(rsm->out, RSM_EFFECT_MULTICAST);
    effect->data = rsm_message_encode(message, &effect->size);
}

void rsm_set_term(struct rsm *rsm, uint64_t term, uint16_t voted_for)
{
    ASSERT(term > rsm->term || (term == rsm->term && (rsm->voted_for == 0 || rsm->voted_for == voted_for))); /* R1 */
    if (term == rsm->term && voted_for == rsm->voted_for)
        return;
    rsm->term = term;
    rsm->voted_for = voted_for;
    if (rsm->options.planted_bugs & RSM_BUG_VOLATILE_VOTE)
        return;
    struct rsm_effect *effect = rsm_effect_add(rsm->out, RSM_EFFECT_HARD_STATE);
    effect->term = term;
    effect->voted_for = voted_for;
}

static int view_check(const struct rsm_event *event)
{
    if (event->member_count > RSM_NODES_MAX)
        return -EINVAL;
    for (size_t i = 0; i < event->member_count; i++)
        for (size_t j = 0; j <= i; j++)
            if (event->members[i] == 0 || (i != j && event->members[i] == event->members[j]))
                return -EINVAL;
    return 0;
}

/* Members in order of nodeid, of whom nothing is known yet. */
static void view_set(struct rsm *rsm, const struct rsm_event *event)
{
    rsm->view = event->view;
    rsm->view_ms = rsm->now;
    rsm->member_count = 0;
    for (size_t i = 0; i < event->member_count; i++) {
        size_t place = rsm->member_count++;
        for (; place > 0 && rsm->members[place - 1].nodeid > event->members[i]; place--)
            rsm->members[place] = rsm->members[place - 1];
        rsm->members[place] = (struct member){.nodeid = event->members[i], .heard_ms = rsm->now};
    }
    rsm->in_view = rsm_member(rsm, rsm->options.self) != NULL;
}

static int view_change(struct rsm *rsm, const struct rsm_event *event)
{
    int status = view_check(event);
    if (status)
        return status;
    view_set(rsm, event);
    rsm_progress_reset(rsm);
    rsm_pending_resend(rsm);
    if (rsm->role == RSM_SEQUENCER ? !rsm_view_has_majority(rsm)
                                   : rsm->role == RSM_CLAIMING || !rsm_member(rsm, rsm->sequencer))
        rsm_step_down(rsm);
    if (!rsm->in_view)
        return 0;
    struct member *self = rsm_member(rsm, rsm->options.self);
    self->stated = true;
    self->term = rsm->term;
    rsm_state_send(rsm);
    if (rsm->role == RSM_SEQUENCER)
        rsm_heartbeat_send(rsm);
    rsm->claim_after_ms = 0;
    rsm_election_consider(rsm);
    return 0;
}

static int message_handle(struct rsm *rsm, uint16_t from, const struct rsm_message *m)
{
    struct member *member = rsm_member(rsm, from);
    /* Of another cluster, of a ghost, or sent in an old view: not an error. Nothing is lost that is not sent again. */
    if (m->cluster != rsm->options.cluster || !rsm->in_view || !member || m->view != rsm->view)
        return 0;
    bool for_us = m->to == rsm->options.self;
    switch (m->type) {
    case RSM_STATE:
        rsm_state_receive(rsm, member, m);
        return 0;
    case RSM_CLAIM:
        rsm_claim_receive(rsm, member, m);
        return 0;
    case RSM_GRANT:
        if (for_us)
            rsm_grant_receive(rsm, member, m);
        return 0;
    case RSM_APPEND:
        return rsm_append_receive(rsm, from, m);
    case RSM_ACK:
        return for_us ? rsm_ack_receive(rsm, member, m) : 0;
    case RSM_SNAPSHOT:
        return rsm_snapshot_receive(rsm, from, m);
    case RSM_SNAPSHOT_ACK:
        if (for_us)
            rsm_snapshot_ack_receive(rsm, member, m);
        return 0;
    case RSM_SUBMIT:
        rsm_submit_receive(rsm, from, m);
        return 0;
    case RSM_HEARTBEAT:
        return rsm_heartbeat_receive(rsm, from, m);
    case RSM_BARRIER:
        rsm_barrier_receive(rsm, member, m);
        return 0;
    case RSM_BARRIER_ACK:
        rsm_barrier_ack_receive(rsm, from, m);
        return 0;
    case RSM_BARRIER_ANSWER:
        if (for_us)
            rsm_barrier_answer_receive(rsm, m);
        return 0;
    case RSM_HANDOVER:
        if (for_us)
            rsm_handover_receive(rsm, from, m);
        return 0;
    case RSM_MESSAGE_TYPES:
        break;
    }
    return -EPROTO;
}

static int message_receive(struct rsm *rsm, const struct rsm_event *event)
{
    if (event->from == rsm->options.self)
        return 0; /* what we send is done already; that it came back says nothing of others */
    struct rsm_message message;
    int status = rsm_message_decode(event->data.data, event->data.size, &message);
    if (status == 0)
        status = message_handle(rsm, event->from, &message);
    if (status)
        rsm->dropped++;
    return status;
}

static int start(struct rsm *rsm, const struct rsm_event *event)
{
    int status = rsm_log_start(rsm, event->persistent);
    if (status) {
        rsm->role = RSM_OUT;
        return status;
    }
    rsm->started = true;
    rsm->lost_ms = rsm->now;
    return 0;
}

static void leave(struct rsm *rsm)
{
    if (rsm->leaving)
        return;
    rsm->leaving = true;
    rsm->leave_ms = rsm->now;
    if (rsm->role == RSM_CLAIMING)
        rsm_step_down(rsm);
    if (rsm->role == RSM_SEQUENCER)
        rsm_handover(rsm);
}

static void leave_check(struct rsm *rsm)
{
    if (!rsm->leaving || rsm->left)
        return;
    bool alone = rsm->member_count <= 1;
    if (rsm->role == RSM_SEQUENCER && !alone && rsm->now - rsm->leave_ms < RSM_HANDOVER_MS)
        return;
    rsm->left = true;
    rsm_effect_add(rsm->out, RSM_EFFECT_LEFT);
}

static bool quorate(const struct rsm *rsm)
{
    return rsm->role != RSM_OUT && rsm->sequencer != 0 && rsm_view_has_majority(rsm);
}

static void role_report(struct rsm *rsm)
{
    struct rsm_effect now = {
        .kind = RSM_EFFECT_ROLE,
        .role = rsm->role,
        .quorate = quorate(rsm),
        .sequencer = rsm->sequencer,
        .term = rsm->term,
    };
    const struct rsm_effect *last = &rsm->last_role;
    if (now.role == last->role && now.quorate == last->quorate && now.sequencer == last->sequencer && now.term == last->term)
        return;
    rsm->last_role = now;
    *rsm_effect_add(rsm->out, RSM_EFFECT_ROLE) = now;
}

static int event_handle(struct rsm *rsm, const struct rsm_event *event)
{
    switch (event->kind) {
    case RSM_EVENT_START:
        return -EINVAL;
    case RSM_EVENT_VIEW:
        return view_change(rsm, event);
    case RSM_EVENT_MESSAGE:
        return message_receive(rsm, event);
    case RSM_EVENT_PROPOSE:
        return rsm_propose(rsm, event);
    case RSM_EVENT_ABANDON:
        rsm_abandon(rsm, event->ticket);
        return 0;
    case RSM_EVENT_BARRIER:
        return rsm_barrier(rsm, event->ticket);
    case RSM_EVENT_TICK:
        rsm_election_tick(rsm);
        if (rsm->role == RSM_SEQUENCER)
            rsm_sequencer_tick(rsm);
        return 0;
    case RSM_EVENT_SNAPSHOT_TAKEN:
        return rsm_snapshot_taken(rsm, event->index, event->data);
    case RSM_EVENT_LEAVE:
        leave(rsm);
        return 0;
    case RSM_EVENT_STORAGE_FAILED:
        rsm->role = RSM_OUT;
        rsm->sequencer = 0;
        rsm_propose_fail_all(rsm, -EIO);
        return 0;
    }
    return -EINVAL;
}

int rsm_step(struct rsm *rsm, const struct rsm_event *event, uint64_t now_ms, struct rsm_effects *effects)
{
    rsm->now = now_ms;
    rsm->out = effects;
    if (rsm->role == RSM_OUT)
        return -ESHUTDOWN;
    if (!rsm->started)
        return event->kind == RSM_EVENT_START ? start(rsm, event) : -EINVAL;
    int status = event_handle(rsm, event);
    if (rsm->role != RSM_OUT) {
        rsm_pending_send(rsm);
        rsm_barrier_tick(rsm);
        leave_check(rsm);
    }
    role_report(rsm);
    rsm->out = NULL;
    return status;
}

void rsm_get_status(const struct rsm *rsm, struct rsm_status *ret_status)
{
    *ret_status = (struct rsm_status){
        .role = rsm->role,
        .quorate = quorate(rsm),
        .sequencer = rsm->sequencer,
        .term = rsm->term,
        .commit = rsm->commit,
        .applied = rsm->applied,
        .last_index = rsm_last_index(rsm),
        .last_term = rsm_last_term(rsm),
        .snapshot_index = rsm->snapshot_index,
        .view = rsm->view,
        .voter_count = rsm->config.count,
        .config_committed = rsm->config_index <= rsm->commit,
        .pending = rsm->pending_count,
        .dropped = rsm->dropped,
        .elections = rsm->elections,
    };
    memcpy(ret_status->voters, rsm->config.voters, rsm->config.count * sizeof(rsm->config.voters[0]));
}

bool rsm_get_progress(const struct rsm *rsm, uint16_t nodeid, struct rsm_progress *ret_progress)
{
    for (size_t i = 0; rsm->role == RSM_SEQUENCER && i < rsm->member_count; i++) {
        const struct member *m = &rsm->members[i];
        if (m->nodeid != nodeid)
            continue;
        bool self = nodeid == rsm->options.self;
        *ret_progress = (struct rsm_progress){
            .match_index = self ? rsm_last_index(rsm) : m->match,
            .heard_ms = self ? rsm->now : m->heard_ms,
            .snapshotting = m->snapshotting && !m->streaming,
        };
        return true;
    }
    return false;
}
