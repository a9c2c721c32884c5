/* For tests: several mirror devices of one volume in one loop, over disks in memory and links that can be cut. */
#ifndef DIRECTOR_REPLICATION_TEST_CLUSTER_H
#define DIRECTOR_REPLICATION_TEST_CLUSTER_H

#include "replication/io/mirror_device.h"
#include "replication/io/mirror_pulse.h"

#define TEST_NODES_MAX 3u

struct test_cluster;

struct test_disk {
    struct block_device device;
    struct test_cluster *cluster;
    uint8_t *bytes; /* outlive the device; twice the size the cluster was made with */
    uint64_t room_bytes;
    uv_idle_t idle;
    struct block_request *first, **end;
    bool stalled;      /* keep requests */
    int fail_writes;   /* status of writes, 0: none fails */
    uint64_t fua_missing; /* writes that were not asked to be durable */
    uint8_t *bad;      /* for each 4 KiB: cannot be read until it is written; sticky (2): not even then */
    uint8_t *mapped;   /* for each 4 KiB: takes room */
    uint64_t written_bytes;
    void (*closed)(void *context);
    void *closed_context;
};

struct test_node {
    struct test_cluster *cluster;
    uint16_t nodeid;
    uint64_t boot;
    char metadata[256];
    struct test_disk disk;
    struct mirror_pulses *pulses;
    struct mirror_device *device; /* NULL: down */
    unsigned drained;
};

struct test_cluster {
    uv_loop_t *loop;
    unsigned count;
    uint64_t size_bytes, made_bytes;
    struct test_node nodes[TEST_NODES_MAX];
    bool link[TEST_NODES_MAX][TEST_NODES_MAX];
    uint64_t sent_bytes[TEST_NODES_MAX][TEST_NODES_MAX];
    struct mirror_config config;
    bool commits; /* ask_isr is granted */
    unsigned asked;
    uint8_t asked_isr;
    struct test_frame *first, **end;
    uv_idle_t courier;
    uv_timer_t heart;
    unsigned handles, resets;
    unsigned confirms;  /* CONFIRM frames sent */
    bool hold_confirms; /* they are lost */
};

/* The clusters started from now on keep checksums at rest. */
extern bool test_cluster_checksum;

/* Make disks, metadata in folder, and all nodes; node 1 owns and all are in sync. */
void test_cluster_start(struct test_cluster *cluster, uv_loop_t *loop, unsigned count, uint64_t size_bytes,
                        const char *folder);
/* Close what is up and free everything; runs the loop. */
void test_cluster_end(struct test_cluster *cluster);
/* Node index up (a new boot) or down (its device closed); runs the loop. */
void test_node_up(struct test_cluster *cluster, unsigned index);
void test_node_down(struct test_cluster *cluster, unsigned index);
/* Go on after stalled was cleared. */
void test_disk_wake(struct test_disk *disk);
/* The data place of a node has this many bytes now. */
void test_disk_grow(struct test_cluster *cluster, unsigned index, uint64_t size_bytes);
/* Commit and spread another owner and ISR. */
void test_cluster_commit(struct test_cluster *cluster, uint16_t owner, uint8_t isr, bool new_epoch);
void test_cluster_link(struct test_cluster *cluster, unsigned a, unsigned b, bool up);
/* Run the loop until condition(cluster) or the time is over. */
bool test_cluster_run(struct test_cluster *cluster, bool (*condition)(struct test_cluster *cluster), unsigned timeout_ms);
/* What works a disk's queue off: to be started after stalled is taken back. */
void test_disk_turn(uv_idle_t *idle);
/* A request, run until it completes. */
int test_cluster_io(struct test_cluster *cluster, unsigned index, enum block_operation operation, uint64_t offset,
                    void *data, uint64_t length);

#endif
