/* Configuration of the target: logical units, ports, iSCSI targets and LUN maps, sessions. */
#include "target/core/target_private.h"

#include "director/base/bytes.h"
#include <errno.h>

void target_init(struct target *target, uint16_t nodeid, uint64_t memory_max_bytes, uint32_t hold_ms, uint64_t seed)
{
    memset(target, 0, sizeof(*target));
    data_pool_init(&target->pool, memory_max_bytes);
    target->shared.pool = &target->pool;
    target->shared.nodeid = nodeid;
    target->hold_ms = hold_ms;
    target->next_session = seed & 0xffffffffffffull;
    /* An owner may answer, over a new link, what an earlier life of this node asked: no request may look like one of those. */
    target->next_request = seed * 0x9e3779b97f4a7c15ull;
    for (unsigned i = 0; i < TARGET_LU_BUCKETS; i++)
        list_init(&target->lus[i]);
    for (unsigned i = 0; i < TARGET_REQUEST_BUCKETS; i++)
        list_init(&target->requests[i]);
    list_init(&target->iqns);
    list_init(&target->sessions);
    list_init(&target->functions);
    list_init(&target->removed);
    list_init(&target->ending);
}

static bool lu_is_quiet(const struct target_lu *lu)
{
    return lu->users == 0 && list_empty(&lu->unit.tasks) && list_empty(&lu->unit.blocked) &&
           list_empty(&lu->unit.managements);
}

static void lu_free(struct target_lu *lu)
{
    list_remove(&lu->link);
    scsi_unit_done(&lu->unit);
    free(lu);
}

bool target_is_quiet(const struct target *target)
{
    if (!list_empty(&target->sessions) || target->foreign_count || !list_empty(&target->functions))
        return false;
    for (unsigned i = 0; i < TARGET_LU_BUCKETS; i++)
        list_foreach(node, &target->lus[i])
            if (!lu_is_quiet(list_entry(node, struct target_lu, link)))
                return false;
    list_foreach(node, &target->removed)
        if (!lu_is_quiet(list_entry(node, struct target_lu, link)))
            return false;
    return true;
}

void target_done(struct target *target)
{
    ASSERT(target_is_quiet(target));
    for (unsigned i = 0; i < TARGET_LU_BUCKETS; i++)
        list_foreach_safe(node, after, &target->lus[i])
            lu_free(list_entry(node, struct target_lu, link));
    list_foreach_safe(node, after, &target->removed)
        lu_free(list_entry(node, struct target_lu, link));
    list_foreach_safe(node, after, &target->iqns)
        free(list_entry(node, struct target_iqn, link));
    target_owner_done(target);
    data_pool_done(&target->pool);
}

void target_wake(struct target *target)
{
    if (target->wake)
        target->wake(target->wake_context);
}

struct target_lu *target_find_lu(const struct target *target, uint64_t volume_id)
{
    const struct list *bucket = &target->lus[volume_id % TARGET_LU_BUCKETS];
    list_foreach(node, (struct list *)bucket)
    {
        struct target_lu *lu = list_entry(node, struct target_lu, link);
        if (lu->unit.identity.volume_id == volume_id)
            return lu;
    }
    return NULL;
}

/* This node's own sessions that see a unit get attentions for it. */
static void attend_sessions(struct target *target, const struct target_lu *lu, uint32_t attentions)
{
    list_foreach(node, &target->sessions)
    {
        struct target_session *session = list_entry(node, struct target_session, link);
        for (unsigned lun = 0; session->iqn && lun < TARGET_LUNS_MAX; lun++)
            if (session->iqn->luns[lun] && (!lu || session->iqn->luns[lun] == lu))
                session->attentions[lun] |= (uint16_t)attentions;
    }
}

static void loss_sent(void *argument)
{
    (void)argument;
}

static void say_nexus_loss(struct target *target, const struct target_lu *lu, uint64_t session)
{
    struct peer_header header = {.type = FORWARD_NEXUS_LOSS, .object = lu->unit.identity.volume_id, .epoch = lu->epoch,
                                 .argument = session};
    (void)target_send(target, lu->owner, &header, NULL, 0, loss_sent, NULL);
}

/* A RESERVE does not outlive its session, also when that ended while nobody owned the unit: the node that had it says so, and
 * the owner sees for itself when that node is not there any more. */
static void reserved_check(struct target *target, struct target_lu *lu)
{
    uint64_t id = lu->unit.reservations.reserved_session;
    bool gone = id >> 48 == target->shared.nodeid;
    if (!id || lu->state == TARGET_LU_TRANSITION || (lu->state == TARGET_LU_ACTIVE && lu->unit.release))
        return;
    list_foreach(node, &target->sessions)
        gone &= list_entry(node, struct target_session, link)->id != id;
    for (unsigned i = 0; lu->state == TARGET_LU_ACTIVE && i < target->shared.port_count; i++)
        gone |= target->shared.ports[i].nodeid == id >> 48 && !target->shared.ports[i].alive;
    if (gone && lu->state == TARGET_LU_ACTIVE)
        scsi_unit_nexus_loss(&lu->unit, id);
    else if (gone)
        say_nexus_loss(target, lu, id);
}

void target_set_apart(struct target *target, bool apart)
{
    if (target->shared.apart == apart)
        return;
    target->shared.apart = apart;
    attend_sessions(target, NULL, SCSI_UA_ALUA_CHANGED);
    for (unsigned i = 0; apart && i < TARGET_LU_BUCKETS; i++)
        list_foreach(node, &target->lus[i]) target_route_held(target, list_entry(node, struct target_lu, link));
}

int target_set_ports(struct target *target, const struct target_port *ports, unsigned count)
{
    struct scsi_shared *shared = &target->shared;
    if (count > TARGET_PORTS_MAX)
        return -EINVAL;
    for (unsigned i = 0; i < count; i++)
        if (ports[i].nodeid == 0 || !memchr(ports[i].address, 0, sizeof(ports[i].address)))
            return -EINVAL;
    bool same = count == shared->port_count;
    for (unsigned i = 0; same && i < count; i++)
        same = ports[i].nodeid == shared->ports[i].nodeid && ports[i].alive == shared->ports[i].alive &&
               ports[i].port == shared->ports[i].port && strcmp(ports[i].address, shared->ports[i].address) == 0;
    if (same)
        return 0;
    if (count)
        memcpy(shared->ports, ports, count * sizeof(*ports));
    shared->port_count = count;
    attend_sessions(target, NULL, SCSI_UA_ALUA_CHANGED);
    for (unsigned i = 0; i < TARGET_LU_BUCKETS; i++)
        list_foreach(node, &target->lus[i])
            reserved_check(target, list_entry(node, struct target_lu, link));
    return 0;
}

static bool identity_is_valid(const struct target_lu_identity *identity)
{
    uint32_t block = identity->block_bytes, physical = identity->physical_bytes;
    return (block == 512 || block == 4096) && identity->size_bytes >= block && identity->size_bytes % block == 0 &&
           (physical == 0 || (physical >= block && physical <= 65536 && (physical & (physical - 1)) == 0)) &&
           memchr(identity->name, 0, sizeof(identity->name));
}

int target_put_lu(struct target *target, const struct target_lu_identity *identity)
{
    if (!identity_is_valid(identity))
        return -EINVAL;
    struct target_lu *lu = target_find_lu(target, identity->volume_id);
    if (lu) {
        struct target_lu_identity *old = &lu->unit.identity;
        if (old->block_bytes != identity->block_bytes || !uuid_equal(&old->uuid, &identity->uuid))
            return -EINVAL;
        if (old->size_bytes != identity->size_bytes)
            attend_sessions(target, lu, SCSI_UA_CAPACITY_CHANGED);
        *old = *identity;
        return 0;
    }
    lu = calloc(1, sizeof(*lu));
    if (!lu)
        return -ENOMEM;
    scsi_unit_init(&lu->unit, &target->shared, identity);
    list_init(&lu->held);
    list_init(&lu->forwarded);
    list_append(&target->lus[identity->volume_id % TARGET_LU_BUCKETS], &lu->link);
    return 0;
}

int target_remove_lu(struct target *target, uint64_t volume_id)
{
    struct target_lu *lu = target_find_lu(target, volume_id);
    if (!lu)
        return -ENOENT;
    list_foreach(node, &target->iqns)
    {
        struct target_iqn *iqn = list_entry(node, struct target_iqn, link);
        for (uint16_t lun = 0; lun < TARGET_LUNS_MAX; lun++)
            if (iqn->luns[lun] == lu)
                (void)target_clear_lun(target, iqn->name, lun);
    }
    list_remove(&lu->link);
    list_append(&target->removed, &lu->link);
    lu->state = TARGET_LU_TRANSITION;
    lu->unit.device = NULL;
    scsi_unit_proposals_fail(&lu->unit);
    target_functions_lu_gone(target, lu);
    target_route_fail(lu, SCSI_SENSE_LU_NOT_SUPPORTED);
    target_wake(target);
    return 0;
}

int target_set_reservations(struct target *target, uint64_t volume_id, uint64_t version, const uint8_t *bytes, uint32_t size)
{
    struct target_lu *lu = target_find_lu(target, volume_id);
    int result = lu ? scsi_unit_set_reservations(&lu->unit, version, bytes, size) : -ENOENT;
    if (result == 0)
        reserved_check(target, lu);
    return result;
}

static void unit_commits(void *context, struct scsi_unit *unit, const uint8_t *bytes, uint32_t size)
{
    struct target *target = context;
    const struct target_lu *lu = container_of(unit, struct target_lu, unit);
    unit->proposal->asked_ms = target->now_ms;
    target->commit(target->commit_context, unit->identity.volume_id, lu->epoch, unit->reservations_version, bytes, size);
    target_wake(target);
}

void target_set_commit(struct target *target,
                       void (*commit)(void *context, uint64_t volume_id, uint64_t epoch, uint64_t version, const uint8_t *bytes,
                                      uint32_t size),
                       void *context)
{
    target->commit = commit;
    target->commit_context = context;
    target->shared.commit = commit ? unit_commits : NULL;
    target->shared.commit_context = target;
}

/* Reservations under way: ask again, look whether what they depend on is still there. True: call again soon. */
static bool reservations_tick(struct target *target, struct target_lu *lu)
{
    struct scsi_unit *unit = &lu->unit;
    if (lu->state != TARGET_LU_ACTIVE)
        return false;
    if (unit->reservations.reserved_session)
        reserved_check(target, lu);
    scsi_unit_release_due(unit);
    const struct scsi_proposal *proposal = unit->proposal;
    if (proposal && !proposal->in_force && target->now_ms - proposal->asked_ms >= TARGET_COMMIT_AGAIN_MS)
        unit_commits(target, unit, proposal->bytes, proposal->size);
    return unit->proposal || unit->release;
}

int target_set_lu_state(struct target *target, uint64_t volume_id, enum target_lu_state state, uint16_t owner,
                        uint64_t epoch, struct block_device *device)
{
    struct target_lu *lu = target_find_lu(target, volume_id);
    if (!lu)
        return -ENOENT;
    if ((state == TARGET_LU_ACTIVE) != (device != NULL) || (state == TARGET_LU_FORWARD && owner == 0) ||
        (device && device->geometry.block_bytes > lu->unit.identity.block_bytes))
        return -EINVAL;
    if (state == TARGET_LU_ACTIVE)
        owner = target->shared.nodeid;
    bool changed = lu->state != state || lu->unit.owner != owner, moved = lu->epoch != epoch || lu->owner != owner;
    lu->state = state;
    lu->owner = owner;
    lu->epoch = epoch;
    lu->unit.device = device;
    bool write_cache = device ? device->geometry.capabilities & BLOCK_CAP_WRITE_CACHE : lu->unit.write_cache;
    if (write_cache != lu->unit.write_cache) /* WCE of the caching mode page */
        scsi_unit_attention(&lu->unit, SCSI_UA_MODE_CHANGED, NULL);
    lu->unit.write_cache = write_cache;
    lu->unit.owner = owner;
    lu->unit.has_owner = state != TARGET_LU_TRANSITION;
    if (changed)
        attend_sessions(target, lu, SCSI_UA_ALUA_CHANGED);
    if (moved) /* an owner of the past may still answer for a while */
        list_foreach(node, &lu->forwarded)
            list_entry(node, struct target_task, link)->lost_ms = target->now_ms + TARGET_LOST_MS;
    if (moved || state != TARGET_LU_ACTIVE)
        scsi_unit_proposals_fail(&lu->unit);
    reserved_check(target, lu);
    target_functions_state(target, lu);
    target_route_held(target, lu);
    target_wake(target);
    return 0;
}

struct target_iqn *target_find_iqn(struct target *target, const char *name)
{
    list_foreach(node, &target->iqns)
    {
        struct target_iqn *iqn = list_entry(node, struct target_iqn, link);
        if (strcmp(iqn->name, name) == 0)
            return iqn;
    }
    return NULL;
}

/* RFC 7143 §4.2.7: iqn., eui. or naa.; lower case letters, digits and "-.:" */
static bool name_is_valid(const char *name)
{
    size_t length = strlen(name);
    if (length < 5 || length >= TARGET_NAME_BYTES ||
        (strncmp(name, "iqn.", 4) != 0 && strncmp(name, "eui.", 4) != 0 && strncmp(name, "naa.", 4) != 0))
        return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEF0123456789-.:_") == length;
}

int target_put_iqn(struct target *target, const char *name)
{
    if (!name_is_valid(name))
        return -EINVAL;
    if (target_find_iqn(target, name))
        return 0;
    struct target_iqn *iqn = calloc(1, sizeof(*iqn));
    if (!iqn)
        return -ENOMEM;
    strcpy(iqn->name, name);
    list_append(&target->iqns, &iqn->link);
    return 0;
}

int target_remove_iqn(struct target *target, const char *name)
{
    struct target_iqn *iqn = target_find_iqn(target, name);
    if (!iqn)
        return -ENOENT;
    list_foreach_safe(node, after, &target->sessions)
    {
        struct target_session *session = list_entry(node, struct target_session, link);
        if (session->iqn == iqn) {
            session->iqn = NULL;
            session->drop(session);
        }
    }
    list_remove(&iqn->link);
    free(iqn);
    return 0;
}

/* The map changed: every session of the target hears of it on every LUN it still sees. */
static void attend_luns_changed(struct target *target, const struct target_iqn *iqn, uint16_t changed)
{
    list_foreach(node, &target->sessions)
    {
        struct target_session *session = list_entry(node, struct target_session, link);
        if (session->iqn != iqn)
            continue;
        session->announced[changed / 8] &= (uint8_t) ~(1u << changed % 8);
        session->attentions[changed] = 0;
        for (unsigned lun = 0; lun < TARGET_LUNS_MAX; lun++)
            if (iqn->luns[lun])
                session->attentions[lun] |= SCSI_UA_LUNS_CHANGED;
    }
}

int target_set_lun(struct target *target, const char *name, uint16_t lun, uint64_t volume_id)
{
    struct target_iqn *iqn = target_find_iqn(target, name);
    struct target_lu *lu = target_find_lu(target, volume_id);
    if (lun >= TARGET_LUNS_MAX)
        return -EINVAL;
    if (!iqn || !lu)
        return -ENOENT;
    if (iqn->luns[lun] == lu)
        return 0;
    iqn->luns[lun] = lu;
    attend_luns_changed(target, iqn, lun);
    return 0;
}

int target_clear_lun(struct target *target, const char *name, uint16_t lun)
{
    struct target_iqn *iqn = target_find_iqn(target, name);
    if (!iqn || lun >= TARGET_LUNS_MAX || !iqn->luns[lun])
        return -ENOENT;
    iqn->luns[lun] = NULL;
    attend_luns_changed(target, iqn, lun);
    return 0;
}

void target_session_begin(struct target *target, struct target_session *session)
{
    target->next_session = (target->next_session + 1) & 0xffffffffffffull;
    session->id = (uint64_t)target->shared.nodeid << 48 | target->next_session;
    session->nexus.port = target->shared.nodeid;
    memset(session->announced, 0, sizeof(session->announced));
    memset(session->copies, 0, sizeof(session->copies));
    memset(session->attentions, 0, sizeof(session->attentions));
    list_append(&target->sessions, &session->link);
    target->session_count++;
}

void target_session_end(struct target *target, struct target_session *session)
{
    list_remove(&session->link);
    target->session_count--;
    target_functions_session_end(target, session);
    target_route_session_end(target, session);
    for (unsigned i = 0; i < TARGET_LU_BUCKETS; i++)
        list_foreach(node, &target->lus[i])
        {
            struct target_lu *lu = list_entry(node, struct target_lu, link);
            scsi_unit_nexus_loss(&lu->unit, session->id);
            if (lu->state != TARGET_LU_FORWARD || !session->iqn)
                continue;
            for (unsigned lun = 0; lun < TARGET_LUNS_MAX; lun++) {
                if (session->iqn->luns[lun] != lu || !(session->announced[lun / 8] >> lun % 8 & 1))
                    continue;
                say_nexus_loss(target, lu, session->id);
                break;
            }
        }
    list_foreach(node, &target->removed)
        scsi_unit_nexus_loss(&list_entry(node, struct target_lu, link)->unit, session->id);
    session->iqn = NULL;
}

void target_give_up(struct target *target)
{
    for (unsigned i = 0; i < TARGET_LU_BUCKETS; i++)
        list_foreach(node, &target->lus[i])
            scsi_unit_proposals_fail(&list_entry(node, struct target_lu, link)->unit);
}

int target_send(struct target *target, uint16_t to, const struct peer_header *header, const struct iovec *iov,
                unsigned iov_count, void (*done)(void *), void *argument)
{
    if (!target->forward)
        return -ENOTCONN;
    return target->forward->send(target->forward_context, to, header, iov, iov_count, done, argument);
}

uint64_t target_tick(struct target *target, uint64_t now_ms)
{
    target->now_ms = now_ms;
    bool waits = false;
    for (unsigned i = 0; i < TARGET_LU_BUCKETS; i++)
        list_foreach(node, &target->lus[i])
        {
            struct target_lu *lu = list_entry(node, struct target_lu, link);
            if (!list_empty(&lu->held) || !list_empty(&lu->forwarded)) {
                target_route_tick(target, lu);
                waits |= !list_empty(&lu->held) || !list_empty(&lu->forwarded);
            }
            waits |= reservations_tick(target, lu);
        }
    target_functions_tick(target);
    list_foreach_safe(node, after, &target->removed)
    {
        struct target_lu *lu = list_entry(node, struct target_lu, link);
        if (lu_is_quiet(lu))
            lu_free(lu);
    }
    waits |= !list_empty(&target->functions) || !list_empty(&target->removed);
    return waits ? 50 : UINT64_MAX;
}

struct data_buffer *target_buffer(struct target *target, uint32_t bytes)
{
    return data_pool_get(&target->pool, bytes);
}

unsigned target_portals(const struct target *target, const struct target_port **ret_ports)
{
    *ret_ports = target->shared.ports;
    return target->shared.port_count;
}

/* ---- frames ---- */

int target_forward_receive(struct target *target, uint16_t from, const struct peer_header *header, const void *payload)
{
    struct forward_request request;
    struct forward_reply reply;
    int status;
    switch (header->type) {
    case FORWARD_COMMAND:
        status = forward_request_decode(payload, header->payload_bytes, &request);
        return status ? status : target_owner_command(target, from, header, &request);
    case FORWARD_MANAGE:
        status = forward_request_decode(payload, header->payload_bytes, &request);
        return status ? status : target_owner_manage(target, from, header, &request);
    case FORWARD_REPLY:
        status = forward_reply_decode(payload, header->payload_bytes, &reply);
        if (status == 0)
            target_route_reply(target, from, header->request, &reply);
        return status;
    case FORWARD_MANAGE_REPLY:
        if (header->argument > FORWARD_MANAGE_NOT_OWNER)
            return -EPROTO;
        target_functions_reply(target, from, header->request, header->argument);
        return 0;
    case FORWARD_NEXUS_LOSS: {
        struct target_lu *lu = target_find_lu(target, header->object);
        if (header->argument >> 48 != from)
            return -EPROTO;
        if (lu)
            scsi_unit_nexus_loss(&lu->unit, header->argument);
        return 0;
    }
    default:
        return -EPROTO;
    }
}

void target_node_down(struct target *target, uint16_t nodeid)
{
    for (unsigned i = 0; i < TARGET_LU_BUCKETS; i++)
        list_foreach(node, &target->lus[i])
        {
            struct target_lu *lu = list_entry(node, struct target_lu, link);
            struct list lost;
            list_init(&lost);
            list_splice(&lost, &lu->forwarded);
            while (!list_empty(&lost)) {
                struct target_task *task = list_first(&lost, struct target_task, link);
                list_remove(&task->link);
                if (task->to == nodeid)
                    target_route_lost(target, task);
                else
                    list_append(&lu->forwarded, &task->link);
            }
        }
    target_functions_node_down(target, nodeid);
    target_wake(target);
}

void target_node_dead(struct target *target, uint16_t nodeid)
{
    target_node_down(target, nodeid);
    for (unsigned i = 0; i < TARGET_LU_BUCKETS; i++)
        list_foreach(node, &target->lus[i])
            scsi_unit_node_loss(&list_entry(node, struct target_lu, link)->unit, nodeid);
}
