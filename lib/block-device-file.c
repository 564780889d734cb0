/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Regular files and block devices, through the page cache or past it,
 * and the character devices /dev/zero and /dev/full.
 *
 * Past the page cache (O_DIRECT) a read or write is for whole blocks of
 * block_size, in memory aligned to mem_align, and goes beside those of
 * other devices through io_uring.
 *
 * A device has a descriptor of its own, also if it is one of several that are
 * open on the same file: so the kernel tells each of them what it could not
 * write back.
 *
 * Threads: system calls on one descriptor need no lock.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <glib.h>
#include <liburing.h>

#include "block-device.h"
#include "clock.h"
#include "direct.h"
#include "file-lock.h"
#include "known-data.h"
#include "open-file.h"
#include "ring.h"

/* What can be a region. */
enum kind { NOTHING, REGULAR_FILE, BLOCK_DEVICE, MEMORY_DEVICE };

struct file_bdev {
  struct block_device common;
  int fd;
  struct open_file *file;       /* NULL: a memory device, or BDEV_NO_LOCK */
  bool direct;                  /* open with O_DIRECT */
  char *path;                   /* absolute; of a regular file that is locked */
  dev_t rdev;                   /* of a block device */
  bool remake;                  /* BDEV_REMAKE */
  bool renewed;                 /* atomic: another file since the last stamp */
  uint64_t unproved;            /* atomic: mtime of the last stamp, until a flush has
                                 * made a later one durable; or 0 */
  /* atomic: the file was found shorter than it was when opened.  What is
   * beyond the new end has been lost, so it is not used any more, also
   * if it grows again.
   */
  bool shrunk;
  struct known_data known;
};

/*----------------------------------------------------------------------
 * Operations
 */

static ssize_t
result (ssize_t r)
{
  return r == -1 ? -errno : r;
}

static int
shrunk (struct file_bdev *f)
{
  __atomic_store_n (&f->common.failed, true, __ATOMIC_RELAXED);
  if (!__atomic_exchange_n (&f->shrunk, true, __ATOMIC_RELAXED))
    g_warning ("%s: was truncated while in use: "
               "it had %" PRIu64 " bytes, now %" PRId64 "; "
               "all I/O to it fails until it is opened again",
               f->common.name, f->common.size,
               (int64_t) lseek (f->fd, 0, SEEK_END));
  return -EIO;
}

/* A write beyond the end of a file that was truncated would succeed,
 * and leave zeroes where there was data.
 */
static int
check_size (struct file_bdev *f)
{
  if (__atomic_load_n (&f->shrunk, __ATOMIC_RELAXED))
    return -EIO;
  if (lseek (f->fd, 0, SEEK_END) < (off_t) f->common.size)
    return shrunk (f);
  return 0;
}

/* Before a transfer. */
static int
file_prepare (struct file_bdev *f, enum dm_io_op op)
{
  if (op == DM_IO_WRITE)
    return check_size (f);
  return __atomic_load_n (&f->shrunk, __ATOMIC_RELAXED) ? -EIO : 0;
}

/* After it.  Reads are inside the file as it was, and direct ones are for
 * whole blocks, so none meets the end of it.
 */
static ssize_t
file_result (struct file_bdev *f, enum dm_io_op op, ssize_t r)
{
  if (op == DM_IO_READ &&
      (r == 0 || (r > 0 && f->direct && r % f->common.block_size != 0)))
    return shrunk (f);
  return r;
}

static ssize_t
file_readv (struct block_device *bdev, const struct iovec *iov, int iovcnt,
            uint64_t offset)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  ssize_t r = file_prepare (f, DM_IO_READ);

  if (r == 0)
    r = file_result (f, DM_IO_READ,
                     result (preadv (f->fd, iov, iovcnt, offset)));
  return r;
}

static ssize_t
device_readv (struct block_device *bdev, const struct iovec *iov, int iovcnt,
              uint64_t offset)
{
  struct file_bdev *f = (struct file_bdev *) bdev;

  return result (preadv (f->fd, iov, iovcnt, offset));
}

/* FUA is left to a flush: a write with RWF_DSYNC could use up the report
 * of data of others that was lost.
 */
static ssize_t
device_writev (struct block_device *bdev, const struct iovec *iov, int iovcnt,
               uint64_t offset, bool fua)
{
  struct file_bdev *f = (struct file_bdev *) bdev;

  return result (pwritev (f->fd, iov, iovcnt, offset));
}

static ssize_t
file_writev (struct block_device *bdev, const struct iovec *iov, int iovcnt,
             uint64_t offset, bool fua)
{
  int r = file_prepare ((struct file_bdev *) bdev, DM_IO_WRITE);

  return r < 0 ? r : device_writev (bdev, iov, iovcnt, offset, fua);
}

static int
device_ring_prepare (struct block_device *bdev, enum dm_io_op op,
                     const struct iovec *iov, int iovcnt, uint64_t offset,
                     struct io_uring_sqe *sqe)
{
  struct file_bdev *f = (struct file_bdev *) bdev;

  if (op == DM_IO_READ)
    io_uring_prep_readv (sqe, f->fd, iov, iovcnt, offset);
  else
    io_uring_prep_writev (sqe, f->fd, iov, iovcnt, offset);
  return 0;
}

static ssize_t
device_ring_result (struct block_device *bdev, enum dm_io_op op, ssize_t r)
{
  return r;
}

static int
file_ring_prepare (struct block_device *bdev, enum dm_io_op op,
                   const struct iovec *iov, int iovcnt, uint64_t offset,
                   struct io_uring_sqe *sqe)
{
  int r = file_prepare ((struct file_bdev *) bdev, op);

  return r < 0 ? r :
    device_ring_prepare (bdev, op, iov, iovcnt, offset, sqe);
}

static ssize_t
file_ring_result (struct block_device *bdev, enum dm_io_op op, ssize_t r)
{
  return file_result ((struct file_bdev *) bdev, op, r);
}

static int
device_flush (struct block_device *bdev)
{
  struct file_bdev *f = (struct file_bdev *) bdev;

  return result (fdatasync (f->fd));
}

static uint64_t
nsec_of (struct timespec time)
{
  return time.tv_sec * NSEC_PER_SEC + time.tv_nsec;
}

/* The first flush after a stamp that has something to flush makes the time durable,
 * too: a file that is as it was stamped has nothing that was flushed since.
 */
static int
flush_with_time (struct file_bdev *f, uint64_t stamped)
{
  struct stat st;

  if (fstat (f->fd, &st) == -1 || fsync (f->fd) == -1)
    return -errno;
  if (nsec_of (st.st_mtim) != stamped)
    __atomic_compare_exchange_n (&f->unproved, &stamped, 0, false,
                                 __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return 0;
}

static int
file_flush (struct block_device *bdev)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  uint64_t stamped = __atomic_load_n (&f->unproved, __ATOMIC_RELAXED);
  int r = check_size (f);

  if (r < 0)
    return r;
  return stamped != 0 ? flush_with_time (f, stamped) : device_flush (bdev);
}

/* They say nothing of this device if others use the file. */
static void
make_stamp (const struct file_bdev *f, const struct stat *st,
            struct bdev_stamp *stamp)
{
  *stamp = (struct bdev_stamp) {
    .valid = __atomic_load_n (&f->file->users, __ATOMIC_RELAXED) == 1,
    .size = st->st_size,
    .mtime = nsec_of (st->st_mtim),
  };
}

static void
file_glance (struct block_device *bdev, struct bdev_stamp *stamp)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  struct stat st;

  if (fstat (f->fd, &st) == 0)
    make_stamp (f, &st, stamp);
}

/* A flush, of the times of the file too; of those that a network file system has set
 * when it was flushed, and not of those that a write has set since.
 */
static int
file_stamp (struct block_device *bdev, struct bdev_stamp *stamp)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  struct stat before, st;
  int r = check_size (f);

  if (r < 0)
    return r;
  if (fstat (f->fd, &before) == -1 || fsync (f->fd) == -1 ||
      fstat (f->fd, &st) == -1)
    return -errno;
  if (nsec_of (before.st_mtim) != nsec_of (st.st_mtim) && fsync (f->fd) == -1)
    return -errno;
  __atomic_store_n (&f->renewed, false, __ATOMIC_RELAXED);
  __atomic_store_n (&f->unproved, nsec_of (st.st_mtim), __ATOMIC_RELAXED);
  make_stamp (f, &st, stamp);
  return 0;
}

/* The time of the inode shows it even if the time of modification was put back, as
 * a restored copy has it.  A clock that was set back shows nothing.
 */
static bool
file_touched (struct block_device *bdev, uint64_t date)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  struct stat st;

  return fstat (f->fd, &st) == -1 || nsec_of (st.st_mtim) > date ||
    nsec_of (st.st_ctim) > date || clock_date () < date ||
    __atomic_load_n (&f->renewed, __ATOMIC_RELAXED);
}

/* Places that are no directories on disk lead to other files in other
 * processes, so nothing can be said of them.
 */
static enum bdev_place
file_place (struct block_device *bdev)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  struct stat open, there;

  if (f->path == NULL || g_str_has_prefix (f->path, "/proc/") ||
      g_str_has_prefix (f->path, "/dev/fd/") || fstat (f->fd, &open) == -1)
    return BDEV_IN_PLACE;
  if (stat (f->path, &there) == -1)
    return errno == ENOENT || errno == ENOTDIR || errno == ESTALE ?
      BDEV_DELETED : BDEV_IN_PLACE;
  return open.st_dev == there.st_dev && open.st_ino == there.st_ino ?
    BDEV_IN_PLACE : BDEV_REPLACED;
}

/* The many ways to say that the kernel, the file system or the device
 * cannot.
 */
static int
supported (int r)
{
  switch (result (r)) {
  case -ENODEV: case -ENOSYS: case -ENOTTY:
    return -EOPNOTSUPP;
  default:
    return result (r);
  }
}

static int
punch_hole (int fd, uint64_t offset, uint64_t length)
{
  return supported (fallocate (fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               offset, length));
}

/* What drops a part of the page cache of a block device that is claimed, the
 * kernel lets only the claim do.
 */
static int
device_punch (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  struct file_bdev *f = (struct file_bdev *) bdev;

  return punch_hole (f->file->fd, offset, length);
}

/* File systems of Linux that can, whatever their mount options are. */
static bool
is_known_to_punch (int fd)
{
  struct statfs fs;

  if (fstatfs (fd, &fs) == -1)
    return false;
  switch ((unsigned long) fs.f_type) {
  case BTRFS_SUPER_MAGIC: case EXT4_SUPER_MAGIC: case F2FS_SUPER_MAGIC:
  case TMPFS_MAGIC: case XFS_SUPER_MAGIC:
    return true;
  default:
    return false;
  }
}

/* Punching behind the end of the file changes nothing but its times.  Its mtime is
 * set back, as it shows whether the data was changed.  Only the owner may do that;
 * for others the kind of the file system has to do.
 */
static bool
file_try_punch (struct block_device *bdev)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  off_t behind = bdev->size - bdev->size % DM_IO_PAGE_SIZE + DM_IO_PAGE_SIZE;
  struct timespec times[] = { { .tv_nsec = UTIME_OMIT }, { 0 } };
  struct stat st;
  bool can;

  if (fstat (f->fd, &st) == -1)
    return false;
  times[1] = st.st_mtim;
  if (futimens (f->fd, times) == -1)
    return is_known_to_punch (f->fd);
  can = fallocate (f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                   behind, DM_IO_PAGE_SIZE) == 0;
  if (can)
    futimens (f->fd, times);
  return can;
}

static bool
device_try_punch (struct block_device *bdev)
{
  struct file_bdev *f = (struct file_bdev *) bdev;

  return direct_queue_attribute (f->rdev, "write_zeroes_max_bytes") > 0;
}

static int
file_punch (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  int r = check_size (f);

  if (r < 0)
    return r;
  r = punch_hole (f->fd, offset, length);
  known_data_forget (&f->known, offset, length);
  return r;
}

static int
file_zero (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  int r = check_size (f);

  if (r < 0)
    return r;
  r = supported (fallocate (f->fd,
                            FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                            offset, length));
  known_data_forget (&f->known, offset, length);
  return r;
}

static int
device_zero (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  uint64_t range[2] = { offset, length };

  return supported (ioctl (f->file->fd, BLKZEROOUT, range));
}

/* Extents begin and end with sectors: one that is partly data is data. */
static void
set_extent (struct bdev_extent *extent, bool hole, uint64_t length,
            uint64_t most)
{
  uint64_t odd = length % DM_IO_SECTOR_SIZE;

  if (hole && length >= DM_IO_SECTOR_SIZE)
    length -= odd;
  else if (odd > 0) {
    hole = false;
    length += DM_IO_SECTOR_SIZE - odd;
  }
  extent->hole = extent->zero = hole;
  extent->length = MIN (length, most);
}

/* What is at offset. */
static int
file_extent (struct file_bdev *f, uint64_t offset, uint64_t length,
             struct bdev_extent *extent)
{
  uint64_t until, forgotten;
  off_t pos;

  if (known_data_find (&f->known, offset, &until, &forgotten)) {
    set_extent (extent, false, until - offset, length);
    return 0;
  }
  pos = lseek (f->fd, offset, SEEK_DATA);
  if (pos == -1 && errno == ENXIO) {    /* no data from here to the end */
    set_extent (extent, true, length, length);
    return check_size (f);
  }
  else if (pos == -1 && errno == EINVAL) /* not known, so it is data */
    set_extent (extent, false, length, length);
  else if (pos == -1)
    return -errno;
  else if (pos > (off_t) offset)
    set_extent (extent, true, pos - offset, length);
  else {
    pos = lseek (f->fd, offset, SEEK_HOLE);
    if (pos == -1)
      return -errno;
    known_data_add (&f->known, offset, pos, forgotten);
    /* It may have become a hole since. */
    set_extent (extent, false, MAX (pos - (off_t) offset, 1), length);
  }
  return 0;
}

static int
file_extents (struct block_device *bdev, uint64_t offset, uint64_t length,
              struct bdev_extent *extents, int max)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  int n = 0, r = check_size (f);

  while (r == 0 && n < max && length > 0) {
    r = file_extent (f, offset, length, &extents[n]);
    if (r < 0)
      break;
    offset += extents[n].length;
    length -= extents[n].length;
    n++;
  }
  return r < 0 ? r : n;
}

static int
device_prefetch (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  struct file_bdev *f = (struct file_bdev *) bdev;

  return -posix_fadvise (f->fd, offset, length, POSIX_FADV_WILLNEED);
}

/*----------------------------------------------------------------------
 * Opening again
 */

/* A file like the one that is open, but all zero. */
static int
remake (struct file_bdev *f)
{
  struct stat st;
  int fd, r = 0;

  if (fstat (f->fd, &st) == -1)
    return -errno;
  fd = open (f->path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (fd == -1)
    return -errno;
  if (fchown (fd, st.st_uid, st.st_gid) == -1 && errno != EPERM)
    r = -errno;
  if (r == 0 && (fchmod (fd, st.st_mode & 0666) == -1 ||
                 ftruncate (fd, f->common.size) == -1 || fsync (fd) == -1))
    r = -errno;
  close (fd);
  if (r == 0)
    r = open_file_sync_directory (f->path);
  if (r < 0)
    unlink (f->path);
  return r;
}

/* Can what is open as FD be used instead of what was? */
static bool
is_like_before (struct file_bdev *f, int fd)
{
  off_t size = lseek (fd, 0, SEEK_END);
  struct direct_alignment align;

  if (size != (off_t) f->common.size) {
    g_warning ("%s: another file is there now, of %" PRId64 " bytes; it needs "
               "%" PRIu64 " to be used", f->common.name, (int64_t) size,
               f->common.size);
    return false;
  }
  if (!f->direct)
    return true;
  if (direct_find_alignment (fd, &align) &&
      align.block_size == f->common.block_size &&
      align.mem_align <= f->common.mem_align &&
      fcntl (fd, F_SETFL, O_DIRECT) != -1)
    return true;
  g_warning ("%s: another file is there now, with other blocks; it can be "
             "used after a restart", f->common.name);
  return false;
}

/* The descriptor is the same, so it does not matter if somebody still uses it: what
 * is in flight is done on the file that it was.
 */
static int
take_fd (struct file_bdev *f, int fd)
{
  if (dup3 (fd, f->fd, O_CLOEXEC) == -1)
    return -errno;
  __atomic_store_n (&f->renewed, true, __ATOMIC_RELAXED);
  known_data_forget (&f->known, 0, INT64_MAX);
  __atomic_store_n (&f->shrunk, false, __ATOMIC_RELAXED);
  __atomic_store_n (&f->common.failed, false, __ATOMIC_RELAXED);
  return 0;
}

/* The file that is at the path now, ST, is open as FD, and is not locked yet. */
static int
use_another (struct file_bdev *f, int fd, const struct stat *st)
{
  g_autofree char *error = NULL;

  if (!is_like_before (f, fd))
    return -EINVAL;
  if (open_file_renew (f->file, f->path, st, &error) == 0)
    return take_fd (f, fd);
  g_debug ("%s", error);
  return -EAGAIN;
}

static int
open_anew (struct file_bdev *f)
{
  g_autofree char *error = NULL;
  struct stat st;
  bool read_only;
  int fd, r;

  if (stat (f->path, &st) == -1 || !S_ISREG (st.st_mode))
    return -EAGAIN;
  fd = open_file_open (f->path, &st, f->direct ? O_DIRECT : 0, 0, &read_only,
                       &error);
  if (fd == -1 || read_only != f->common.read_only) {
    g_debug ("%s: %s", f->path, error != NULL ? error : "is read-only");
    r = -EAGAIN;
  }
  else
    r = use_another (f, fd, &st);
  if (fd != -1)
    close (fd);
  return r;
}

/* What was lost at the end of a file that was truncated stays lost. */
static int
file_revive (struct block_device *bdev)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  enum bdev_place place = file_place (bdev);
  int r;

  if (place == BDEV_IN_PLACE)
    return check_size (f);
  if (place == BDEV_DELETED) {
    r = f->remake ? remake (f) : -ENOENT;
    if (r < 0)
      return -EAGAIN;
  }
  return open_anew (f);
}

static int
nothing_to_flush (struct block_device *bdev)
{
  return 0;
}

static int
cannot (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  return -EOPNOTSUPP;
}

/* The kernel may keep an open file that was used with a ring for longer than
 * its descriptor, see ring.c.  What keeps out others goes now.
 */
static void
file_close (struct block_device *bdev)
{
  struct file_bdev *f = (struct file_bdev *) bdev;

  if (f->file != NULL)
    open_file_put (f->file);
  close (f->fd);
  if (f->direct)
    ring_settle ();
  known_data_fini (&f->known);
  bdev_fini (bdev);
  g_free (f->path);
  g_free (f);
}

/* Rings of other threads end with those. */
static void
direct_rest (struct block_device *bdev)
{
  ring_rest ();
}

#define FILE_OPS                                                        \
  .readv = file_readv, .writev = file_writev, .flush = file_flush,      \
  .try_punch = file_try_punch, .punch = file_punch, .zero = file_zero,  \
  .revive = file_revive, .stamp = file_stamp, .glance = file_glance,    \
  .touched = file_touched, .place = file_place,                         \
  .extents = file_extents, .close = file_close

#define DEVICE_OPS                                                      \
  .readv = device_readv, .writev = device_writev,                       \
  .flush = device_flush, .try_punch = device_try_punch,                 \
  .punch = device_punch, .zero = device_zero, .close = file_close

static const struct bdev_ops buffered_ops[] = {
  [REGULAR_FILE] = { FILE_OPS, .prefetch = device_prefetch },
  [BLOCK_DEVICE] = { DEVICE_OPS, .prefetch = device_prefetch },
  [MEMORY_DEVICE] = {
    .readv = device_readv, .writev = device_writev,
    .flush = nothing_to_flush, .punch = cannot, .zero = cannot,
    .close = file_close,
  },
};

/* There is no cache to prefetch into. */
static const struct bdev_ops direct_ops[] = {
  [REGULAR_FILE] = {
    FILE_OPS,
    .ring_prepare = file_ring_prepare, .ring_result = file_ring_result,
    .rest = direct_rest,
  },
  [BLOCK_DEVICE] = {
    DEVICE_OPS,
    .ring_prepare = device_ring_prepare, .ring_result = device_ring_result,
    .rest = direct_rest,
  },
};

/*----------------------------------------------------------------------
 * Opening
 */

static enum kind
kind_of (const struct stat *st)
{
  if (S_ISREG (st->st_mode))
    return REGULAR_FILE;
  if (S_ISBLK (st->st_mode))
    return BLOCK_DEVICE;
  if (S_ISCHR (st->st_mode) &&
      (st->st_rdev == makedev (1, 5) || st->st_rdev == makedev (1, 7)))
    return MEMORY_DEVICE;       /* /dev/zero, /dev/full */
  return NOTHING;
}

/* Find out what the path is. */
static enum kind
identify (const char *path, struct stat *st, char **error)
{
  enum kind kind;

  if (stat (path, st) == -1) {
    open_file_failed (path, error);
    return NOTHING;
  }
  kind = kind_of (st);
  if (kind == NOTHING)
    bdev_open_failed (S_ISDIR (st->st_mode) ? EISDIR : EINVAL, error,
                      "%s: is %s; a region must be a regular file or a block "
                      "device", path, S_ISDIR (st->st_mode) ?
                      "a directory" : "a special file");
  return kind;
}

/* Sets f->fd and f->direct. */
static int
open_fd (struct file_bdev *f, const char *path, const struct stat *st,
         unsigned int flags, bool *read_only, char **error)
{
  f->direct = f->file != NULL ? f->file->direct : flags & DM_BDEV_DIRECT;
  if (f->file == NULL && f->direct) {
    open_file_no_direct (path, error);
    return -1;
  }
  f->fd = open_file_open (path, st, f->direct ? O_DIRECT : 0, flags,
                          read_only, error);
  return f->fd == -1 ? -1 : 0;
}

/* Sets what the common part says about alignment.  O_NONBLOCK is of use
 * only while a file is opened; for io_uring of older kernels it would be the
 * wish to get EAGAIN instead of waiting.
 */
static int
set_up_direct (struct file_bdev *f, const char *path, char **error)
{
  struct direct_alignment align;

  if (!direct_find_alignment (f->fd, &align)) {
    open_file_no_direct (path, error);
    return -1;
  }
  if (fcntl (f->fd, F_SETFL, O_DIRECT) == -1) {
    bdev_open_failed (errno, error, "%s: %s", path, strerror (errno));
    return -1;
  }
  f->common.block_size = align.block_size;
  f->common.mem_align = MAX (align.mem_align, 2); /* 1 would mean buffered */
  f->common.always_waits = true;
  return 0;
}

static int
find_size (struct file_bdev *f, const char *path, enum kind kind, off_t *size,
           char **error)
{
  *size = kind == MEMORY_DEVICE ?
    INT64_MAX - INT64_MAX % DM_IO_SECTOR_SIZE : lseek (f->fd, 0, SEEK_END);
  if (*size != -1)
    return 0;
  bdev_open_failed (errno, error, "%s: its size is unknown: %s", path,
                    strerror (errno));
  return -1;
}

/* By which the file is found when this process is in another directory, or NULL: ".."
 * after a symbolic link is not what it seems.
 */
static char *
absolute_path (const struct file_bdev *f, const char *path)
{
  char *absolute = g_canonicalize_filename (path, NULL);
  struct stat open, there;

  if (fstat (f->fd, &open) == 0 && stat (absolute, &there) == 0 &&
      open.st_dev == there.st_dev && open.st_ino == there.st_ino)
    return absolute;
  g_free (absolute);
  return NULL;
}

/* The file is open; sets the rest of F. */
static int
set_up (struct file_bdev *f, const char *path, enum kind kind,
        bool read_only, char **error)
{
  off_t size;
  int r;

  if (find_size (f, path, kind, &size, error) == -1)
    return -1;
  r = bdev_init (&f->common,
                 f->direct ? &direct_ops[kind] : &buffered_ops[kind],
                 path, size);
  if (r < 0) {
    bdev_open_failed (-r, error, "%s: %s", path, strerror (-r));
    return -1;
  }
  if (f->direct && set_up_direct (f, path, error) == -1) {
    r = errno;
    bdev_fini (&f->common);
    errno = r;
    return -1;
  }
  f->common.file = f->file;
  f->common.read_only = read_only;
  f->common.endless = kind == MEMORY_DEVICE;
  f->common.in_use = kind != MEMORY_DEVICE && f->file == NULL &&
    file_is_written (f->fd);
  f->common.fua_by_flush = true;
  if (!read_only && kind != MEMORY_DEVICE)
    f->common.can_punch = NOT_TRIED;
  if (kind == REGULAR_FILE && f->file != NULL)
    f->path = absolute_path (f, path);
  if (kind == BLOCK_DEVICE)
    f->common.rotational =
      direct_queue_attribute (f->rdev, "rotational") != 0;
  return 0;
}

static int
open_device (struct file_bdev *f, const char *path, unsigned int flags,
             char **error)
{
  struct stat st;
  enum kind kind = identify (path, &st, error);
  bool read_only;

  if (kind == NOTHING)
    return -1;
  f->rdev = st.st_rdev;
  if (kind != MEMORY_DEVICE && !(flags & BDEV_NO_LOCK)) {
    f->file = open_file_get (path, &st, flags, error);
    if (f->file == NULL)
      return -1;
  }
  if (open_fd (f, path, &st, flags, &read_only, error) == -1)
    return -1;
  return set_up (f, path, kind, read_only, error);
}

struct block_device *
file_bdev_open (const char *path, const struct dm_bdev_options *options,
                char **error)
{
  struct file_bdev *f = g_new0 (struct file_bdev, 1);
  int err;

  f->fd = -1;
  f->remake = options->flags & BDEV_REMAKE;
  known_data_init (&f->known);
  if (open_device (f, path, options->flags, error) == 0)
    return &f->common;
  err = errno;
  if (f->fd != -1)
    close (f->fd);
  if (f->file != NULL)
    open_file_put (f->file);
  known_data_fini (&f->known);
  g_free (f);
  errno = err;
  return NULL;
}
