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
 * Threads: system calls on one descriptor need no lock.  open_files_lock
 * owns the list of open devices, which is there to refuse one that is
 * open already; it is held while a file is opened, so that of two
 * threads that open the same file one is refused.  No other lock is
 * taken under it but those of bdev_init.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <glib.h>
#include <liburing.h>

#include "block-device.h"
#include "clock.h"
#include "direct.h"
#include "file-lock.h"
#include "known-data.h"
#include "ring.h"

/* What can be a region. */
enum kind { NOTHING, REGULAR_FILE, BLOCK_DEVICE, MEMORY_DEVICE };

struct file_bdev {
  struct block_device common;
  int fd;
  int claim;                    /* of a block device: open with O_EXCL */
  bool direct;                  /* open with O_DIRECT */
  dev_t dev;                    /* identity: of block devices rdev and 0 */
  ino_t ino;
  /* atomic: the file was found shorter than it was when opened.  What is
   * beyond the new end has been lost, so it is not used any more, also
   * if it grows again.
   */
  bool shrunk;
  struct known_data known;
  struct file_bdev *next;       /* owned by open_files_lock */
};

static pthread_mutex_t open_files_lock = PTHREAD_MUTEX_INITIALIZER;
static struct file_bdev *open_files;

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

static int
file_flush (struct block_device *bdev)
{
  int r = check_size ((struct file_bdev *) bdev);

  return r < 0 ? r : device_flush (bdev);
}

/* A flush, of the times of the file too. */
static int
file_stamp (struct block_device *bdev, struct bdev_stamp *stamp)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  struct stat st;
  int r = check_size (f);

  if (r < 0)
    return r;
  if (fsync (f->fd) == -1 || fstat (f->fd, &st) == -1)
    return -errno;
  stamp->size = st.st_size;
  stamp->mtime = st.st_mtim.tv_sec * NSEC_PER_SEC + st.st_mtim.tv_nsec;
  return 0;
}

/* What was lost at the end of a file that was truncated stays lost. */
static int
file_revive (struct block_device *bdev)
{
  return check_size ((struct file_bdev *) bdev);
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

/* For what drops a part of the page cache: of a block device that is
 * claimed, the kernel lets only the claim do that.
 */
static int
claiming_fd (const struct file_bdev *f)
{
  return f->claim != -1 ? f->claim : f->fd;
}

static int
device_punch (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  struct file_bdev *f = (struct file_bdev *) bdev;

  return supported (fallocate (claiming_fd (f),
                               FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               offset, length));
}

/* Punching behind the end of the file changes nothing but its times.  Its
 * mtime is set back, if this process may do that: it shows whether the data
 * was changed.
 */
static bool
file_try_punch (struct block_device *bdev)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  off_t behind = bdev->size - bdev->size % DM_IO_PAGE_SIZE + DM_IO_PAGE_SIZE;
  struct stat st;
  bool can;

  if (fstat (f->fd, &st) == -1)
    return false;
  can = fallocate (f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                   behind, DM_IO_PAGE_SIZE) == 0;
  if (can) {
    const struct timespec times[] = { { .tv_nsec = UTIME_OMIT }, st.st_mtim };

    futimens (f->fd, times);
  }
  return can;
}

static bool
device_try_punch (struct block_device *bdev)
{
  struct file_bdev *f = (struct file_bdev *) bdev;

  return direct_queue_attribute (f->dev, "write_zeroes_max_bytes") > 0;
}

static int
file_punch (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  int r = check_size (f);

  if (r < 0)
    return r;
  r = device_punch (bdev, offset, length);
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

  return supported (ioctl (claiming_fd (f), BLKZEROOUT, range));
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

static void
close_fds (struct file_bdev *f)
{
  if (f->fd != -1)
    close (f->fd);
  if (f->claim != -1)
    close (f->claim);
}

/* The kernel may keep an open file that was used with a ring for longer than
 * its descriptor, see ring.c.  What keeps out others goes now: the lock, and
 * the claim, which has a file of its own that no ring sees.
 */
static void
file_close (struct block_device *bdev)
{
  struct file_bdev *f = (struct file_bdev *) bdev, **p;

  pthread_mutex_lock (&open_files_lock);
  for (p = &open_files; *p != NULL; p = &(*p)->next)
    if (*p == f) {
      *p = f->next;
      break;
    }
  pthread_mutex_unlock (&open_files_lock);

  file_unlock (f->fd);
  close_fds (f);
  if (f->direct)
    ring_settle ();
  known_data_fini (&f->known);
  bdev_fini (bdev);
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
  .revive = file_revive, .stamp = file_stamp,                           \
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

static const char *
hint_for (int err)
{
  switch (err) {
  case ENOENT: return "; create it first, for example with truncate(1)";
  case EBUSY: return "; it, or a part of it, is mounted or open elsewhere";
  case EACCES: return "; the user of this process needs access to it";
  default: return "";
  }
}

/* The open device that is the same file, or NULL. */
static const struct file_bdev *
find_open (dev_t dev, ino_t ino)
{
  const struct file_bdev *f;

  for (f = open_files; f != NULL; f = f->next)
    if (f->dev == dev && f->ino == ino)
      return f;
  return NULL;
}

/* Find out what the path is; sets the identity of F. */
static enum kind
identify (struct file_bdev *f, const char *path, char **error)
{
  const struct file_bdev *same;
  struct stat st;
  enum kind kind;

  if (stat (path, &st) == -1) {
    bdev_open_failed (errno, error, "%s: %s%s", path, strerror (errno),
                      hint_for (errno));
    return NOTHING;
  }
  kind = kind_of (&st);
  if (kind == NOTHING) {
    bdev_open_failed (S_ISDIR (st.st_mode) ? EISDIR : EINVAL, error,
                      "%s: is %s; a region must be a regular file or a block "
                      "device", path,
                      S_ISDIR (st.st_mode) ? "a directory" : "a special file");
    return NOTHING;
  }

  f->dev = kind == BLOCK_DEVICE ? st.st_rdev : st.st_dev;
  f->ino = kind == BLOCK_DEVICE ? 0 : st.st_ino;
  same = kind == MEMORY_DEVICE ? NULL : find_open (f->dev, f->ino);
  if (same != NULL) {
    bdev_open_failed (EBUSY, error, "%s: is the same file as %s, which is "
                      "already open; name each file once", path,
                      same->common.name);
    return NOTHING;
  }
  return kind;
}

static void
no_direct (const char *path, char **error)
{
  bdev_open_failed (EOPNOTSUPP, error, "%s: direct I/O (O_DIRECT) is not "
                    "possible there; use buffered I/O (direct=off)", path);
}

/* Open it for writing if that is wanted and possible. */
static int
open_for (const char *path, int oflags, unsigned int flags, bool *read_only)
{
  int fd = -1;

  if (!(flags & DM_BDEV_READ_ONLY)) {
    fd = open (path, oflags | O_RDWR);
    if (fd == -1 && errno != EACCES && errno != EPERM && errno != EROFS)
      return -1;
  }
  *read_only = fd == -1;
  return fd != -1 ? fd : open (path, oflags | O_RDONLY);
}

/* Sets the descriptors, of which one may be open if it fails, and
 * f->direct.
 */
static int
open_file (struct file_bdev *f, const char *path, enum kind kind,
           unsigned int flags, bool *read_only, char **error)
{
  const int oflags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  bool failed;

  f->direct = flags & DM_BDEV_DIRECT ||
    (kind == BLOCK_DEVICE && !(flags & DM_BDEV_BUFFERED));
  if (kind == MEMORY_DEVICE && f->direct) {
    no_direct (path, error);
    return -1;
  }
  if (kind == BLOCK_DEVICE)
    f->claim = open_for (path, oflags | O_EXCL, flags, read_only);
  failed = kind == BLOCK_DEVICE && f->claim == -1;
  if (!failed) {
    f->fd = open_for (path, oflags | (f->direct ? O_DIRECT : 0), flags,
                      read_only);
    failed = f->fd == -1;
  }
  if (failed && f->direct && errno == EINVAL)
    no_direct (path, error);
  else if (failed)
    bdev_open_failed (errno, error, "%s: %s%s", path, strerror (errno),
                      hint_for (errno));
  return failed ? -1 : 0;
}

/* True if what was opened is what identify saw. */
static bool
is_same (const struct file_bdev *f, int fd, enum kind kind)
{
  struct stat st;

  if (fstat (fd, &st) == -1 || kind_of (&st) != kind)
    return false;
  return kind == BLOCK_DEVICE ? st.st_rdev == f->dev :
    st.st_dev == f->dev && st.st_ino == f->ino;
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
    no_direct (path, error);
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

/* Called with open_files_lock held. */
static struct block_device *
open_locked (struct file_bdev *f, const char *path, unsigned int flags,
             char **error)
{
  enum kind kind;
  bool read_only;
  off_t size = INT64_MAX - INT64_MAX % DM_IO_SECTOR_SIZE;
  int r;

  f->fd = f->claim = -1;
  kind = identify (f, path, error);
  if (kind == NOTHING)
    return NULL;
  if (open_file (f, path, kind, flags, &read_only, error) == -1)
    goto err;

  if (!is_same (f, f->fd, kind) ||
      (kind == BLOCK_DEVICE && !is_same (f, f->claim, kind))) {
    bdev_open_failed (EBUSY, error, "%s: was replaced while it was being "
                      "opened", path);
    goto err;
  }
  if (kind != MEMORY_DEVICE) {
    if (file_lock (f->fd, path, read_only, error) == -1)
      goto err;
    size = lseek (f->fd, 0, SEEK_END);
    if (size == -1) {
      bdev_open_failed (errno, error, "%s: its size is unknown: %s", path,
                        strerror (errno));
      goto err;
    }
  }

  r = bdev_init (&f->common,
                 f->direct ? &direct_ops[kind] : &buffered_ops[kind],
                 path, size);
  if (r < 0) {
    bdev_open_failed (-r, error, "%s: %s", path, strerror (-r));
    goto err;
  }
  if (f->direct && set_up_direct (f, path, error) == -1) {
    r = errno;
    bdev_fini (&f->common);
    errno = r;
    goto err;
  }
  f->common.read_only = read_only;
  f->common.endless = kind == MEMORY_DEVICE;
  f->common.fua_by_flush = true;
  if (!read_only && kind != MEMORY_DEVICE)
    f->common.can_punch = NOT_TRIED;
  if (kind == BLOCK_DEVICE)
    f->common.rotational = direct_queue_attribute (f->dev, "rotational") != 0;
  f->next = open_files;
  open_files = f;
  return &f->common;

 err:
  r = errno;
  close_fds (f);
  errno = r;
  return NULL;
}

struct block_device *
file_bdev_open (const char *path, const struct dm_bdev_options *options,
                char **error)
{
  struct file_bdev *f = g_new0 (struct file_bdev, 1);
  struct block_device *bdev;
  int saved;

  known_data_init (&f->known);
  pthread_mutex_lock (&open_files_lock);
  bdev = open_locked (f, path, options->flags, error);
  saved = errno;
  pthread_mutex_unlock (&open_files_lock);
  if (bdev == NULL) {
    known_data_fini (&f->known);
    g_free (f);
    errno = saved;
  }
  return bdev;
}
