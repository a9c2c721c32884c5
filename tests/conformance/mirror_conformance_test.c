/* The block contract on a mirrored volume: the owner's device of a cluster of two in one process. */
#include "replication/io/test_cluster.h"
#include "tests/conformance/block_conformance.h"
#include <string.h>

static struct test_cluster cluster;
static bool started;

/* What the suite gets: closing it takes node 1 down in good order. */
static struct block_device front;

static void front_submit(struct block_device *device, struct block_request *request)
{
    (void)device;
    block_device_submit(mirror_device_block(cluster.nodes[0].device), request);
}

static void front_close(struct block_device *device, void (*closed)(void *context), void *context)
{
    struct mirror_device *inner = cluster.nodes[0].device;
    (void)device;
    cluster.nodes[0].device = NULL;
    mirror_device_close(inner, closed, context);
    test_cluster_link(&cluster, 0, 1, false);
}

static const struct block_device_operations front_operations = {.submit = front_submit, .close = front_close};

static void subject_discard(struct block_subject *subject)
{
    (void)subject;
    if (started)
        test_cluster_end(&cluster);
    started = false;
}

static struct block_device *subject_open(struct block_subject *subject, bool fresh)
{
    if (fresh) {
        subject_discard(subject);
        test_cluster_start(&cluster, subject->loop, 2, BLOCK_SUBJECT_BYTES, "/tmp");
        started = true;
    } else {
        test_node_up(&cluster, 0);
    }
    front = *mirror_device_block(cluster.nodes[0].device);
    front.operations = &front_operations;
    return &front;
}

int main(void)
{
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct block_subject subject = {.name = "mirror", .loop = &loop, .open = subject_open, .discard = subject_discard,
                                    .model_operations = 1500, .allocates = true};
    int failed = block_conformance_run(&subject);
    subject_discard(&subject);
    return failed || uv_loop_close(&loop) != 0;
}
