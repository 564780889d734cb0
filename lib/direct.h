/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What the kernel wants of direct I/O (O_DIRECT). */

#ifndef DMIO_DIRECT_H
#define DMIO_DIRECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Powers of two, at most a page. */
struct direct_alignment {
  unsigned int block_size;      /* of offsets and lengths, at least a sector */
  unsigned int mem_align;       /* of memory; may be 1 */
};

/* For a file or block device that is open with O_DIRECT.  False if there is
 * no direct I/O, or none with blocks of at most a page.
 */
extern bool direct_find_alignment (int fd, struct direct_alignment *align);

/* A number from the queue directory of a block device, 0 if unknown. */
extern uint64_t direct_queue_attribute (dev_t rdev, const char *name);

#endif /* DMIO_DIRECT_H */
