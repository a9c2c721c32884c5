/* Small macros that every folder uses: container_of, ARRAY_SIZE, ASSERT, cleanup attributes. */
#ifndef DIRECTOR_BASE_COMMON_H
#define DIRECTOR_BASE_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/param.h> /* MIN and MAX: libuv's header brings it too, and it would redefine ours */

#ifndef container_of
#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))
#endif

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* Result must be looked at. */
#define MUST_CHECK __attribute__((warn_unused_result))
/* A deliberate ignore of such a result (gcc does not take a cast to void for one). */
#define IGNORE_RESULT(call)        \
    do {                           \
        if (call) { /* nothing */ \
        }                          \
    } while (0)

/* Kept in release builds: only a bug of ours can make it fail. Peers, disks and users get errors instead. */
#define ASSERT(condition)                                                                                   \
    do {                                                                                                    \
        if (__builtin_expect(!(condition), 0)) {                                                            \
            fprintf(stderr, "%s:%d: %s: assertion failed: %s\n", __FILE__, __LINE__, __func__, #condition); \
            abort();                                                                                        \
        }                                                                                                   \
    } while (0)

static inline void cleanup_free(void *pointer)
{
    free(*(void **)pointer);
}
/* char *_cleanup_free_ text = strdup(...); */
#define _cleanup_free_ __attribute__((cleanup(cleanup_free)))

#endif
