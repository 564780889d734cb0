/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Block devices inside the library: what a kind of device has to be
 * able to do, and how dm-io and dm-mirror use one.
 *
 * A backend fills in struct block_device and a table of operations;
 * everything they have in common (resuming short transfers, bounce
 * pages, zeroes where a device cannot zero, the order of preflush, data
 * and FUA) is in block-device.c, once.
 */

#ifndef DMIO_BLOCK_DEVICE_H
#define DMIO_BLOCK_DEVICE_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "dm-io.h"
#include "memory.h"
#include "mempool.h"

/* A stretch of a device that is all data or all hole. */
struct bdev_extent {
  uint64_t length;              /* bytes, at least 1 */
  bool hole;                    /* not allocated, reads as zero */
};

/* What a kind of device can do.  Offsets and lengths are in bytes and
 * inside the device.  All return a negative errno on failure, may be
 * called by many threads at once, and may block.
 */
struct bdev_ops {
  /* Transfer some bytes; returns how many, 0 at the end of the file.
   * writev with fua: what it wrote is durable; it is asked for that only
   * if fua_by_flush is not set.
   */
  ssize_t (*readv) (struct block_device *bdev, const struct iovec *iov,
                    int iovcnt, uint64_t offset);
  ssize_t (*writev) (struct block_device *bdev, const struct iovec *iov,
                     int iovcnt, uint64_t offset, bool fua);
  int (*flush) (struct block_device *bdev);

  /* Optional.  Find out, without harm, whether punch is supported. */
  bool (*try_punch) (struct block_device *bdev);

  /* Make the range read as zero, quickly: punch also gives the space
   * back, zero keeps it.  -EOPNOTSUPP if the device cannot, -EINVAL if
   * it cannot for this range; then zeroes are written with writev.
   */
  int (*punch) (struct block_device *bdev, uint64_t offset, uint64_t length);
  int (*zero) (struct block_device *bdev, uint64_t offset, uint64_t length);

  /* Optional.  What is at offset; at most length bytes of it. */
  int (*extent) (struct block_device *bdev, uint64_t offset, uint64_t length,
                 struct bdev_extent *extent);
  /* Optional.  Start reading into the cache. */
  int (*prefetch) (struct block_device *bdev, uint64_t offset,
                   uint64_t length);

  void (*close) (struct block_device *bdev);
};

/* Flushes of one device: one at a time, and those that come while one is
 * under way share the next.
 */
struct bdev_flush {
  pthread_mutex_t lock;         /* owns the rest; a leaf, not held in flush */
  pthread_cond_t ended_one;
  bool under_way;
  uint64_t begun, ended;        /* how many */
  int error;                    /* of the first that failed, negative */
};

/* A backend embeds this at the start of its own struct.  Set once when
 * it is opened, but for the atomics and flush.
 */
struct block_device {
  const struct bdev_ops *ops;
  char *name;
  uint64_t size;                /* bytes; a partial last sector is unused */
  bool read_only;
  bool rotational;
  bool endless;                 /* size is only the largest possible */
  bool always_waits;            /* no transfer is a mere copy in memory */
  bool fua_by_flush;            /* write, then flush */
  size_t mem_align;             /* of buffer addresses; 1: any */

  /* atomic: is punch worth trying?  Not asked before it matters, so that
   * a device that is opened and refused is not touched.
   */
  enum { CANNOT_PUNCH, CAN_PUNCH, NOT_TRIED } can_punch;
  /* atomic: how many writes, lately, took longer than a copy in memory. */
  int slow_writes;

  struct bdev_flush flush;
};

/* Initialize the common part; the backend then sets what differs.  Also
 * keeps the library's threads and one bounce page until bdev_fini.
 * NAME is copied.  Returns 0 or -ENOMEM.
 */
extern int bdev_init (struct block_device *bdev, const struct bdev_ops *ops,
                      const char *name, uint64_t size);
extern void bdev_fini (struct block_device *bdev);

/* One operation on one device. */
struct bdev_io {
  struct block_device *bdev;
  enum dm_io_op op;
  unsigned int flags;           /* DM_IO_FUA, ... */
  uint64_t offset;              /* bytes */
  uint64_t length;
  struct memory_cursor data;    /* of read and write; it is advanced */
};

/* Do it and wait for it.  Returns 0 or an errno, positive, and the time
 * it took in *nsec.
 */
extern int bdev_run (struct bdev_io *io, uint64_t *nsec);

/* True if running it may wait for a device, so that it should run beside
 * the other regions' and not before or after them; false if it is only
 * a copy in memory.
 */
extern bool bdev_may_wait (const struct bdev_io *io);

/* As the operations of these names, and defined for every device. */
extern int bdev_extent_at (struct block_device *bdev, uint64_t offset,
                           uint64_t length, struct bdev_extent *extent);
extern int bdev_prefetch (struct block_device *bdev, uint64_t offset,
                          uint64_t length);

/* True if write zeroes that may unmap is quick, and discard possible.
 * May block, the first time.
 */
extern bool bdev_can_punch (struct block_device *bdev);

/* What bounces data to and from devices with a mem_align.  dm_io_get
 * adds to it.
 */
extern struct mempool bdev_bounce_pages;

#endif /* DMIO_BLOCK_DEVICE_H */
