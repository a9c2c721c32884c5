/* A small cluster for tests of the view and the shell: three nodes, a store each, volumes db (healthy, exported), mail
 * (its replica on node3 resyncing), and what the test makes. Live figures are plain variables. */
#ifndef DIRECTOR_AGENT_API_VIEW_FIXTURE_H
#define DIRECTOR_AGENT_API_VIEW_FIXTURE_H

#include "agent/api/view.h"
#include "agent/core/tree.h"

#define VIEW_FIXTURE_MAIL 1u /* ids of the volumes */
#define VIEW_FIXTURE_DB   2u

struct view_fixture {
    struct tree *tree;
    struct api_live live;
    struct api_view view;
    uint64_t changes; /* calls that were changes so far */
    bool quorate;
    bool offline[8]; /* by nodeid */
    bool resync;     /* of mail's replica on node3 */
};

void view_fixture_init(struct view_fixture *fixture, bool with_volumes);
void view_fixture_done(struct view_fixture *fixture);
/* Run call as the agent does: read, or plan and apply. The caller's until api_result_free(). on_applied may be NULL. */
Director__Result *view_fixture_call(struct view_fixture *fixture, const Director__Call *call,
                                    void (*on_applied)(const Director__Command *command, void *context), void *context);

#endif
