/* A file as a block device: requests become operations of the loop's ring. The descriptor comes opened and locked. */
#ifndef PLUGINS_FILE_DEVICE_H
#define PLUGINS_FILE_DEVICE_H

#include "director/base/common.h"
#include <director/block_device.h>
#include <stdbool.h>
#include <uv.h>

struct file_setup {
    int fd; /* the device's from success on */
    uint64_t size_bytes;
    uint32_t block_bytes;
    uint32_t memory_alignment; /* of buffers, 1: any */
    uint32_t offset_alignment; /* of lengths of buffers, 1: any */
    bool read_only;
    bool can_punch; /* the file system makes holes */
    bool in_memory; /* the file system is RAM: a read or write never waits for a disk, and nothing is durable anyway */
};

/* 0 or negative errno. Home loop. */
MUST_CHECK int file_device_new(uv_loop_t *loop, const struct file_setup *setup, struct block_device **ret_device);

#endif
