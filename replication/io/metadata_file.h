/* The metadata file as a file: made, read, and written in batches with one barrier each, off the loop. */
#ifndef DIRECTOR_REPLICATION_METADATA_FILE_H
#define DIRECTOR_REPLICATION_METADATA_FILE_H

#include "director/base/error.h"
#include "replication/core/metadata.h"
#include <uv.h>

struct metadata_file {
    uv_loop_t *loop;
    int fd;
    const char *path; /* the caller's */
    bool busy;
    uv_work_t work;
    const struct metadata_page *pages;
    unsigned count;
    const uint8_t *image;
    uint64_t image_bytes;
    int status;
    void (*done)(struct metadata_file *file, int status);
};

/* Open and read the whole file; blocks for one small read. *ret_image is the caller's to free. 0, -ENOENT, -EBUSY (another
 * process has it open), -EBADMSG (empty or unreadable header), other negative errno; words in error. */
MUST_CHECK int metadata_file_open(struct metadata_file *file, uv_loop_t *loop, const char *path, uint8_t **ret_image,
                                  uint64_t *ret_image_bytes, struct error *error);
/* Loop. Write pages (stable until done), then make them durable; done comes from the loop. One batch at a time. */
void metadata_file_write(struct metadata_file *file, const struct metadata_page *pages, unsigned count);
/* Loop. The same for the whole file, at once: the old content or this, whatever happens. image is stable until done. */
void metadata_file_replace(struct metadata_file *file, const uint8_t *image, uint64_t bytes);
/* Loop. Not while busy. */
void metadata_file_close(struct metadata_file *file);

#endif
