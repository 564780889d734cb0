/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Where the bytes of a file or block device are in the end: those of a loop
 * device are in its file, those of a partition on its disk.
 */

#ifndef DMIO_STORAGE_H
#define DMIO_STORAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* Bytes of a file, or of a block device: then dev is its own, and ino 0. */
struct storage {
  dev_t dev;
  ino_t ino;
  uint64_t begin, end;
};

/* Find that of what ST is; FD is open on it if it is a block device.  The first
 * below that cannot be asked counts as the last.
 */
extern void storage_find (int fd, const struct stat *st, struct storage *s);

extern bool storage_overlaps (const struct storage *a,
                              const struct storage *b);

#endif /* DMIO_STORAGE_H */
