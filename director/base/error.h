/* An error with words for an operator: what was wrong, with which object, and what to do. */
#ifndef DIRECTOR_BASE_ERROR_H
#define DIRECTOR_BASE_ERROR_H

#include "director/base/common.h"

struct error {
    int code;          /* negative errno, 0 = no error */
    char message[256]; /* one sentence, no newline */
};

/* Set error (may be NULL) and return code, so that a caller can write: return error_set(error, -EINVAL, "..."). */
int error_set(struct error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Forget what error holds. */
static inline void error_clear(struct error *error)
{
    error->code = 0;
    error->message[0] = '\0';
}

#endif
