/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A volume that is mirrored over legs.
 *
 * This first form remembers nothing: a write goes to every leg, and has
 * failed if it failed on any.  Which legs have missed a write is known
 * until the mirror is freed, and those are not read.
 *
 * Offsets and counts are in sectors of the volume.  All functions but
 * new and free can be called by many threads at once, and wait for the
 * I/O.
 */

#ifndef DMIO_DM_MIRROR_H
#define DMIO_DM_MIRROR_H

#include <stdbool.h>

#include "block-device.h"
#include "dm-io.h"

struct dm_mirror;

/* A region that is to be a leg, and its name in messages. */
struct dm_mirror_leg {
  struct io_region region;
  const char *name;
  bool write_mostly;            /* read only if no other can be */
};

/* Which of the legs that are fit to be read is. */
enum dm_mirror_read {
  DM_MIRROR_READ_BALANCE,       /* see read-balance.h */
  DM_MIRROR_READ_FIRST,
};

/* A mirror over 1 to DM_IO_MAX_REGIONS legs; its size is that of the
 * smallest, in whole blocks.  The names are copied; the devices must
 * stay open until dm_mirror_free, which does not close them.
 */
extern struct dm_mirror *dm_mirror_new (unsigned int num_legs,
                                        const struct dm_mirror_leg *legs,
                                        enum dm_mirror_read policy);
extern void dm_mirror_free (struct dm_mirror *mirror);

/* See bdev_attend; of all legs. */
extern int dm_mirror_attend (struct dm_mirror *mirror);

extern sector_t dm_mirror_sectors (const struct dm_mirror *mirror);

/* The largest dm_bdev_block_size: requests have to be multiples of it. */
extern unsigned int dm_mirror_block_size (const struct dm_mirror *mirror);

/* All these return true if the request succeeded.  RESULTS has an
 * element for each leg: what became of it, 0 also if it was not used.
 * Each failure has then been logged.
 */

/* Read from a leg in sync or, if that fails, from another. */
extern bool dm_mirror_read (struct dm_mirror *mirror, void *data,
                            sector_t sector, sector_t count,
                            struct dm_io_result *results);

/* DM_IO_WRITE, DM_IO_DISCARD or DM_IO_WRITE_ZEROES to all legs; DATA is
 * of the first only.  Requests that overlap are done one after another,
 * in the same order on all legs.
 */
extern bool dm_mirror_write (struct dm_mirror *mirror, enum dm_io_op op,
                             unsigned int flags, const void *data,
                             sector_t sector, sector_t count,
                             struct dm_io_result *results);

/* Make durable what was written.  A leg whose flush has failed fails
 * every flush after that.
 */
extern bool dm_mirror_flush (struct dm_mirror *mirror,
                             struct dm_io_result *results);

/* The extents from a sector on, as bdev_extents, of a leg in sync, in whole
 * blocks.  Returns how many, or a negative errno.
 */
extern int dm_mirror_extents (struct dm_mirror *mirror, sector_t sector,
                              sector_t count, struct bdev_extent *extents,
                              int max);

/* Start reading into the cache what dm_mirror_read would read.  Returns
 * 0 or a negative errno.
 */
extern int dm_mirror_prefetch (struct dm_mirror *mirror, sector_t sector,
                               sector_t count);

/* True if write zeroes without DM_IO_NO_UNMAP is quick on every leg. */
extern bool dm_mirror_fast_zero (const struct dm_mirror *mirror);

/* True if writes to every leg fail. */
extern bool dm_mirror_read_only (const struct dm_mirror *mirror);

/* True if any leg is on a disk that rotates. */
extern bool dm_mirror_rotational (const struct dm_mirror *mirror);

#endif /* DMIO_DM_MIRROR_H */
