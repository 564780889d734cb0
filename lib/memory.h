/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The memory of a request, whatever its type, seen as iovecs. */

#ifndef DMIO_MEMORY_H
#define DMIO_MEMORY_H

#include <sys/uio.h>

#include "dm-io.h"

/* A place in the memory of a request.  It refers to the caller's list,
 * vectors or buffer and owns nothing.
 */
struct memory_cursor {
  enum dm_io_mem_type type;
  union {
    const struct page_list *pl;
    const struct bio_vec *bvec;
    unsigned char *vm;
  } at;                         /* the current element */
  size_t offset;                /* in the current element */
};

/* Check that MEM has LENGTH bytes and is aligned.  Returns 0 or
 * -EINVAL.
 */
extern int memory_check (const struct dm_io_memory *mem, uint64_t length);

/* The number of bio vectors that hold the first LENGTH bytes of a page
 * list or of bio vectors.
 */
extern size_t memory_count_vectors (const struct dm_io_memory *mem,
                                    uint64_t length);

/* Copy that many into VECTORS, which then is the memory of type
 * DM_IO_BVEC that *MEM describes, with the lists no longer needed.
 */
extern void memory_to_vectors (struct dm_io_memory *mem, uint64_t length,
                               struct bio_vec *vectors);

/* The beginning of MEM, which has been checked. */
extern struct memory_cursor memory_begin (const struct dm_io_memory *mem);

/* Describe up to LENGTH bytes from the cursor on by at most MAX iovecs,
 * neighbours joined.  Returns how many iovecs were used.
 */
extern int memory_iovecs (const struct memory_cursor *cursor,
                          uint64_t length, struct iovec *iov, int max);

/* Move the cursor on. */
extern void memory_advance (struct memory_cursor *cursor, uint64_t bytes);

/* Copy LENGTH bytes from the cursor on to BUFFER, or from it, without
 * moving the cursor.
 */
extern void memory_copy_out (struct memory_cursor cursor, void *buffer,
                             uint64_t length);
extern void memory_copy_in (struct memory_cursor cursor, const void *buffer,
                            uint64_t length);

/* Set LENGTH bytes from the cursor on to zero, without moving it. */
extern void memory_clear (struct memory_cursor cursor, uint64_t length);

#endif /* DMIO_MEMORY_H */
