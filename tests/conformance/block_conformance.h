/* The contract of <director/block_device.h> as tests, for any implementation.
 *
 * A new kind of device is added by filling a struct block_subject and calling block_conformance_run() on it. */
#ifndef TESTS_CONFORMANCE_BLOCK_CONFORMANCE_H
#define TESTS_CONFORMANCE_BLOCK_CONFORMANCE_H

#include <director/block_device.h>
#include <stdbool.h>
#include <uv.h>

#define BLOCK_SUBJECT_BYTES (8u << 20)

struct block_subject {
    const char *name;
    uv_loop_t *loop;
    void *context; /* the subject's own */
    /* A device of BLOCK_SUBJECT_BYTES. fresh: new, reads as zeroes; else the one closed last, with its content. It may run
     * the loop. NULL fails the test. */
    struct block_device *(*open)(struct block_subject *subject, bool fresh);
    /* After the last close: throw the content away. May be NULL. */
    void (*discard)(struct block_subject *subject);
    unsigned model_operations; /* of the random check; 0: 3000 */
    bool allocates;            /* known to allocate for each I/O: that check is left out */
};

/* Run all tests on subject as one cmocka group. Returns how many failed. The random check prints its seed; DIRECTOR_SEED
 * in the environment repeats one. */
int block_conformance_run(struct block_subject *subject);

#endif
