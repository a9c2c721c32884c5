/* What to say when a plan of several commands failed after some were applied: they are separate entries of the log, so the
 * first stay done, and whoever asked must know which. */
#include "agent/api/view_internal.h"

#include <inttypes.h>

static void step_words(const Director__Command *command, unsigned number, struct text *words)
{
    switch (command->body_case) {
    case DIRECTOR__COMMAND__BODY_TARGET_CREATE:
        text_addf(words, "target %.60s was made", command->target_create->iqn);
        break;
    case DIRECTOR__COMMAND__BODY_TARGET_DELETE:
        text_addf(words, "target %.60s was deleted", command->target_delete->iqn);
        break;
    case DIRECTOR__COMMAND__BODY_LUN_ADD:
        text_addf(words, "lun %" PRIu32 " of target %.60s was made", command->lun_add->lun, command->lun_add->iqn);
        break;
    case DIRECTOR__COMMAND__BODY_LUN_REMOVE:
        text_addf(words, "lun %" PRIu32 " of target %.60s was deleted", command->lun_remove->lun, command->lun_remove->iqn);
        break;
    case DIRECTOR__COMMAND__BODY_NODE_VOTER:
        text_addf(words, "the vote of node %" PRIu32 " was taken", command->node_voter->nodeid);
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_SET:
        text_add(words, "properties were set");
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_GROW:
        text_add(words, "growing was begun");
        break;
    case DIRECTOR__COMMAND__BODY_VOLUME_PROMOTE:
        text_add(words, "the owner was changed");
        break;
    case DIRECTOR__COMMAND__BODY_TASK_END:
        text_addf(words, "task %" PRIu64 " was cancelled", command->task_end->task);
        break;
    default: /* no plan has others beside more yet */
        text_addf(words, "step %u was done", number);
    }
}

const char *api_plan_failed(const struct api_plan *plan, unsigned done, const char *why, size_t size, char *text)
{
    struct text words = {0};
    if (done == 0)
        return why;
    ASSERT(done <= plan->command_count);
    for (unsigned i = 0; i < done; i++) {
        text_add(&words, i ? ", " : "");
        step_words(plan->commands[i], i + 1, &words);
    }
    (void)snprintf(text, size, "%u of %u steps %s done (%s), the next failed: %s", done, plan->command_count,
                   done == 1 ? "is" : "are", text_get(&words), why);
    text_done(&words);
    return text;
}
