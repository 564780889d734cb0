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

struct bdev_io;
struct io_uring_sqe;
struct open_file;

/* What shows that others have changed a device. */
struct bdev_stamp {
  bool valid;                   /* it shows that */
  uint64_t size;                /* bytes */
  uint64_t mtime;               /* nsec since 1970 */
};

/* Where the file of a device is that was opened by its path. */
enum bdev_place {
  BDEV_IN_PLACE,                /* where it was; or nobody can tell */
  BDEV_DELETED,                 /* nothing is there */
  BDEV_REPLACED,                /* another is there */
};

/* A stretch of a device that is alike. */
struct bdev_extent {
  uint64_t length;              /* bytes, at least 1 */
  bool hole;                    /* not allocated */
  bool zero;                    /* reads as zero */
};

/* What a kind of device can do.  Offsets and lengths are in bytes and
 * inside the device.  All return a negative errno on failure, may be
 * called by many threads at once, and may block.
 *
 * A device that is used by system calls has the operations up to zero; one
 * that has a thread of its own has start instead of them.
 *
 * A flush that succeeds says that nothing is lost of what had ended before it began.  A
 * kernel or a server tells of a loss only once, perhaps another flush that is under way:
 * block-device.c and nbd-commands.c see to it that no flush succeeds then.
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

  /* Optional.  readv and writev by io_uring: fill in the entry, or return
   * a negative errno; later make of what the kernel returned what readv
   * or writev would have returned.
   */
  int (*ring_prepare) (struct block_device *bdev, enum dm_io_op op,
                       const struct iovec *iov, int iovcnt, uint64_t offset,
                       struct io_uring_sqe *sqe);
  ssize_t (*ring_result) (struct block_device *bdev, enum dm_io_op op,
                          ssize_t r);

  /* See bdev_start and bdev_attend. */
  void (*start) (struct bdev_io *io);
  int (*attend) (struct block_device *bdev);

  /* Optional.  See bdev_rest, bdev_revive, bdev_flush_again and bdev_stamp. */
  void (*rest) (struct block_device *bdev);
  int (*revive) (struct block_device *bdev);
  void (*flush_again) (struct block_device *bdev);
  int (*stamp) (struct block_device *bdev, struct bdev_stamp *stamp);
  /* Optional.  See bdev_glance, bdev_touched and bdev_place. */
  void (*glance) (struct block_device *bdev, struct bdev_stamp *stamp);
  bool (*touched) (struct block_device *bdev, uint64_t date);
  enum bdev_place (*place) (struct block_device *bdev);

  /* Optional.  What is from offset on, in up to max extents, of which the
   * last may be cut; at most length bytes.  Returns how many, at least 1.
   */
  int (*extents) (struct block_device *bdev, uint64_t offset,
                  uint64_t length, struct bdev_extent *extents, int max);
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
  uint64_t forgotten;           /* of these, begun before the last revive */
  int error;                    /* of the first since that failed, negative */
};

/* A backend embeds this at the start of its own struct.  Set once when
 * it is opened, but for the atomics and flush.
 */
struct block_device {
  const struct bdev_ops *ops;
  char *name;
  const struct open_file *file; /* NULL, or that of which it is a part */
  uint64_t size;                /* bytes; a partial last sector is unused */
  bool read_only;
  bool rotational;
  bool endless;                 /* size is only the largest possible */
  bool in_use;                  /* BDEV_NO_LOCK: others may be writing to it */
  bool always_waits;            /* no transfer is a mere copy in memory */
  uint64_t late;                /* nsec: so long after a connection has ended may
                                 * what was sent over it be done; 0: it is not */
  bool fua_by_flush;            /* write, then flush */
  unsigned int block_size;      /* dm_bdev_block_size */
  size_t mem_align;             /* of buffer addresses, at most a page; with 1
                                 * also lengths and offsets may be odd */

  /* atomic: it cannot be reached now, but that may change. */
  bool offline;
  /* atomic: until then (clock_now) may changes be done that were sent before a
   * connection ended.  Set before they fail.
   */
  uint64_t late_until;
  /* atomic: it fails everything until it is revived, see bdev_revive.  A
   * device whose flush has failed only fails every flush.
   */
  bool failed;

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

  /* Of bdev_start: called once, with an errno, positive, when it has
   * ended; perhaps by a thread of the device, and perhaps before
   * bdev_start returns.  It must not wait for I/O nor start any, nor
   * take a lock under which bdev_start is called.
   */
  void (*done) (struct bdev_io *io, int error);
  /* Belong to the device between start and done. */
  struct bdev_io *next;
  bool waiting;
  unsigned int stage, pending;
  int error;
};

/* How an operation is best done, beside those on other devices. */
enum bdev_way {
  BDEV_COPY,                    /* bdev_run: a mere copy in memory */
  BDEV_WAIT,                    /* bdev_run: it may wait for the device */
  BDEV_RING,                    /* ring.h; or as BDEV_WAIT */
  BDEV_START,                   /* bdev_start */
};
extern enum bdev_way bdev_way (const struct bdev_io *io);

/* Do it and wait for it.  Returns 0 or an errno, positive, and the time
 * it took in *nsec.
 */
extern int bdev_run (struct bdev_io *io, uint64_t *nsec);

/* Let the device take care of itself, such as of a connection, from now on;
 * otherwise that begins with the first operation.  It starts threads, so
 * only after a fork.  Returns 0 or a negative errno.
 */
extern int bdev_attend (struct block_device *bdev);

/* End the device's threads, and what this thread keeps to use it, so that the
 * process can fork; the next operation, or bdev_attend, starts them again.
 * No operation may be in flight.  See also workers_rest.
 */
extern void bdev_rest (struct block_device *bdev);

/* Use a device again that has failed, if that is possible: afterwards it
 * may have lost what it took since its last successful flush, but nothing
 * that was sent to it before will reach it any more.  A file that is not
 * BDEV_IN_PLACE is opened anew there, and bdev_touched says so until bdev_stamp.
 * 0, also if it had not failed; -EAGAIN: not now, but perhaps when this is called
 * again; another error: never, unless somebody mends what a warning has named.  Does
 * not wait for a server.
 */
extern int bdev_revive (struct block_device *bdev);

/* Flushes need not fail any more because one has: what was written before is going to
 * be written again.
 */
extern void bdev_flush_again (struct block_device *bdev);

/* What the device is like now, durably: a crash does not set it back.  It may
 * flush.  *STAMP is not valid for devices that show no changes.
 */
extern int bdev_stamp (struct block_device *bdev, struct bdev_stamp *stamp);

/* The same without a flush, and not durably: after a crash the device may be what it was
 * before.  Waits as fstat does.
 */
extern void bdev_glance (struct block_device *bdev, struct bdev_stamp *stamp);

/* True if the device shows that it has been changed since that date (clock_date), or
 * bdev_revive has opened another file since the last bdev_stamp.  Waits as fstat does.
 */
extern bool bdev_touched (struct block_device *bdev, uint64_t date);

/* True if bdev_stamp and bdev_touched can show changes of this device at all. */
extern bool bdev_shows_changes (const struct block_device *bdev);

/* A file can be deleted, moved away or replaced while it is open.  Then what is
 * written to it is lost with the process, or goes where nobody looks for it.
 */
extern enum bdev_place bdev_place (struct block_device *bdev);

/* Begin with it; io->done says when it has ended. */
extern void bdev_start (struct bdev_io *io);

/* As the operations of these names, and defined for every device. */
extern int bdev_extents (struct block_device *bdev, uint64_t offset,
                         uint64_t length, struct bdev_extent *extents,
                         int max);
/* Make extents, of which the first begins with a block, begin and end with
 * blocks: one that is partly data is data.  The last may get longer.
 * Returns how many are left, at least 1.
 */
extern int bdev_round_extents (struct bdev_extent *extents, int n,
                               uint64_t block_size);
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

/* Flags of dm_bdev_open for this library's and the plugin's own use.
 *
 * NO_LOCK, with DM_BDEV_READ_ONLY: look at a file although others write to it,
 * and without keeping others out.
 *
 * IN_PARTS: the same file or block device can be opened again, with this flag,
 * for another part of it.  Then the first to open it has decided whether
 * transfers are direct.  Such devices have the same file; that the parts do not
 * overlap is up to the caller.
 *
 * REMAKE: a file that was deleted is made anew by bdev_revive, of the same size and
 * for the same users, all zero.
 */
#define BDEV_NO_LOCK (1U << 31)
#define BDEV_IN_PARTS (1U << 30)
#define BDEV_REMAKE (1U << 29)

/* dm_bdev_open in two steps, so that one can wait for several NBD servers at
 * once.  Each begin needs an end, which returns what dm_bdev_open does, or a
 * cancel, which does not wait.
 */
struct bdev_opening;
extern struct bdev_opening *
bdev_open_begin (const char *name, const struct dm_bdev_options *options);
extern struct block_device *bdev_open_end (struct bdev_opening *opening,
                                           char **error);
extern void bdev_open_cancel (struct bdev_opening *opening);

/* The two kinds of it, and how they say what went wrong: set *ERROR, if that
 * is wanted, and errno.  A server is only begun to be connected to; its
 * device can be used when end returns it, and is gone if that returns NULL.
 */
extern struct block_device *
file_bdev_open (const char *path, const struct dm_bdev_options *options,
                char **error);
extern struct block_device *
nbd_bdev_begin (const char *uri, const struct dm_bdev_options *options,
                char **error);
extern struct block_device *
nbd_bdev_end (struct block_device *bdev, const char *uri,
              const struct dm_bdev_options *options, char **error);
extern void nbd_bdev_cancel (struct block_device *bdev);
extern void bdev_open_failed (int err, char **error, const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 3, 4)));

#endif /* DMIO_BLOCK_DEVICE_H */
