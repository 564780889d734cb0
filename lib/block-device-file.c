/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Regular files and block devices, through the page cache, and the
 * character devices /dev/zero and /dev/full.
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

#include "block-device.h"

/* What can be a region. */
enum kind { NOTHING, REGULAR_FILE, BLOCK_DEVICE, MEMORY_DEVICE };

struct file_bdev {
  struct block_device common;
  int fd;
  dev_t dev;                    /* identity: of block devices rdev and 0 */
  ino_t ino;
  /* atomic: the file was found shorter than it was when opened.  What is
   * beyond the new end has been lost, so it is not used any more, also
   * if it grows again.
   */
  bool shrunk;
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

static ssize_t
file_readv (struct block_device *bdev, const struct iovec *iov, int iovcnt,
            uint64_t offset)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  ssize_t r;

  if (__atomic_load_n (&f->shrunk, __ATOMIC_RELAXED))
    return -EIO;
  r = preadv (f->fd, iov, iovcnt, offset);
  if (r == 0)
    return shrunk (f);
  return result (r);
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
  int r = check_size ((struct file_bdev *) bdev);

  return r < 0 ? r : device_writev (bdev, iov, iovcnt, offset, fua);
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
device_punch (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  struct file_bdev *f = (struct file_bdev *) bdev;

  return supported (fallocate (f->fd,
                               FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               offset, length));
}

/* A number from the queue directory of a block device, 0 if unknown. */
static uint64_t
queue_attribute (dev_t rdev, const char *name)
{
  static const char *const dirs[] = { "queue", "../queue" };
  size_t i;

  for (i = 0; i < G_N_ELEMENTS (dirs); i++) {
    g_autofree char *contents = NULL;
    g_autofree char *file =
      g_strdup_printf ("/sys/dev/block/%u:%u/%s/%s",
                       major (rdev), minor (rdev), dirs[i], name);

    if (g_file_get_contents (file, &contents, NULL, NULL))
      return g_ascii_strtoull (contents, NULL, 10);
  }
  return 0;
}

/* Punching behind the end of the file changes nothing but its times. */
static bool
file_try_punch (struct block_device *bdev)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  off_t behind = bdev->size - bdev->size % DM_IO_PAGE_SIZE + DM_IO_PAGE_SIZE;

  return fallocate (f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    behind, DM_IO_PAGE_SIZE) == 0;
}

static bool
device_try_punch (struct block_device *bdev)
{
  struct file_bdev *f = (struct file_bdev *) bdev;

  return queue_attribute (f->dev, "write_zeroes_max_bytes") > 0;
}

static int
file_punch (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  int r = check_size ((struct file_bdev *) bdev);

  return r < 0 ? r : device_punch (bdev, offset, length);
}

static int
file_zero (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  int r = check_size (f);

  if (r < 0)
    return r;
  return supported (fallocate (f->fd,
                               FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                               offset, length));
}

static int
device_zero (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  uint64_t range[2] = { offset, length };

  return supported (ioctl (f->fd, BLKZEROOUT, range));
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
  extent->hole = hole;
  extent->length = MIN (length, most);
}

static int
file_extent (struct block_device *bdev, uint64_t offset, uint64_t length,
             struct bdev_extent *extent)
{
  struct file_bdev *f = (struct file_bdev *) bdev;
  off_t pos;
  int r;

  r = check_size (f);
  if (r < 0)
    return r;

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
    /* It may have become a hole since. */
    set_extent (extent, false, MAX (pos - (off_t) offset, 1), length);
  }
  return 0;
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

  close (f->fd);
  bdev_fini (bdev);
  g_free (f);
}

static const struct bdev_ops ops[] = {
  [REGULAR_FILE] = {
    .readv = file_readv, .writev = file_writev, .flush = file_flush,
    .try_punch = file_try_punch, .punch = file_punch, .zero = file_zero,
    .extent = file_extent,
    .prefetch = device_prefetch, .close = file_close,
  },
  [BLOCK_DEVICE] = {
    .readv = device_readv, .writev = device_writev, .flush = device_flush,
    .try_punch = device_try_punch, .punch = device_punch,
    .zero = device_zero,
    .prefetch = device_prefetch, .close = file_close,
  },
  [MEMORY_DEVICE] = {
    .readv = device_readv, .writev = device_writev,
    .flush = nothing_to_flush, .punch = cannot, .zero = cannot,
    .close = file_close,
  },
};

/*----------------------------------------------------------------------
 * Opening
 */

/* Set *ERROR, if that is wanted, and errno. */
static void G_GNUC_PRINTF (3, 4)
fail (int err, char **error, const char *fmt, ...)
{
  va_list args;

  if (error != NULL) {
    va_start (args, fmt);
    if (vasprintf (error, fmt, args) == -1)
      *error = NULL;
    va_end (args);
  }
  errno = err;
}

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
    fail (errno, error, "%s: %s%s", path, strerror (errno),
          hint_for (errno));
    return NOTHING;
  }
  kind = kind_of (&st);
  if (kind == NOTHING) {
    fail (S_ISDIR (st.st_mode) ? EISDIR : EINVAL, error,
          "%s: is %s; a region must be a regular file or a block device",
          path, S_ISDIR (st.st_mode) ? "a directory" : "a special file");
    return NOTHING;
  }

  f->dev = kind == BLOCK_DEVICE ? st.st_rdev : st.st_dev;
  f->ino = kind == BLOCK_DEVICE ? 0 : st.st_ino;
  same = kind == MEMORY_DEVICE ? NULL : find_open (f->dev, f->ino);
  if (same != NULL) {
    fail (EBUSY, error, "%s: is the same file as %s, which is already open; "
          "name each file once", path, same->common.name);
    return NOTHING;
  }
  return kind;
}

/* Returns a descriptor, or -1. */
static int
open_file (const char *path, enum kind kind, unsigned int flags,
           bool *read_only, char **error)
{
  int oflags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (kind == BLOCK_DEVICE ? O_EXCL : 0);
  int fd = -1;

  if (!(flags & DM_BDEV_READ_ONLY)) {
    fd = open (path, oflags | O_RDWR);
    if (fd == -1 && errno != EACCES && errno != EPERM && errno != EROFS)
      goto out;
  }
  *read_only = fd == -1;
  if (fd == -1)
    fd = open (path, oflags | O_RDONLY);

 out:
  if (fd == -1)
    fail (errno, error, "%s: %s%s", path, strerror (errno),
          hint_for (errno));
  return fd;
}

/* The bytes on which qemu takes shared locks for what it does, and for
 * what it does not want others to do, and looks for the locks of others.
 */
enum {
  QEMU_READS = 100,
  QEMU_WRITES = 101,
  QEMU_RESIZES = 103,
  QEMU_UNSHARES_READS = 200,
  QEMU_UNSHARES_WRITES = 201,
  QEMU_UNSHARES_RESIZES = 203,
};

static int
lock_byte (int fd, int cmd, short type, off_t byte)
{
  struct flock lock = {
    .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1,
  };

  if (fcntl (fd, cmd, &lock) == -1)
    return -1;
  if (cmd == F_OFD_GETLK && lock.l_type != F_UNLCK) {
    errno = EAGAIN;
    return -1;
  }
  return 0;
}

/* Like a reader in qemu, which lets other readers in. */
static int
lock_to_read (int fd)
{
  static const off_t taken[] = {
    QEMU_READS, QEMU_UNSHARES_WRITES, QEMU_UNSHARES_RESIZES,
  };
  static const off_t free[] = {
    QEMU_WRITES, QEMU_RESIZES, QEMU_UNSHARES_READS,
  };
  size_t i;

  for (i = 0; i < G_N_ELEMENTS (taken); i++)
    if (lock_byte (fd, F_OFD_SETLK, F_RDLCK, taken[i]) == -1)
      return -1;
  for (i = 0; i < G_N_ELEMENTS (free); i++)
    if (lock_byte (fd, F_OFD_GETLK, F_WRLCK, free[i]) == -1)
      return -1;
  return 0;
}

/* A lock over the whole file meets everybody else's. */
static int
lock_to_write (int fd)
{
  struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

  return fcntl (fd, F_OFD_SETLK, &lock);
}

static int
lock_file (int fd, const char *path, bool read_only, char **error)
{
  if ((read_only ? lock_to_read (fd) : lock_to_write (fd)) == 0)
    return 0;
  if (errno == EAGAIN || errno == EACCES)
    fail (EBUSY, error, "%s: is locked: another server serves it or a "
          "program such as qemu has it open; stop that one first", path);
  else
    fail (errno, error, "%s: cannot be locked: %s; use a file system "
          "with locks", path, strerror (errno));
  return -1;
}

/* True if what was opened is what identify saw. */
static bool
still_the_same (const struct file_bdev *f, enum kind kind)
{
  struct stat st;

  if (fstat (f->fd, &st) == -1 || kind_of (&st) != kind)
    return false;
  return kind == BLOCK_DEVICE ? st.st_rdev == f->dev :
    st.st_dev == f->dev && st.st_ino == f->ino;
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

  kind = identify (f, path, error);
  if (kind == NOTHING)
    return NULL;
  f->fd = open_file (path, kind, flags, &read_only, error);
  if (f->fd == -1)
    return NULL;

  if (!still_the_same (f, kind)) {
    fail (EBUSY, error, "%s: was replaced while it was being opened", path);
    goto err;
  }
  if (kind != MEMORY_DEVICE) {
    if (lock_file (f->fd, path, read_only, error) == -1)
      goto err;
    size = lseek (f->fd, 0, SEEK_END);
    if (size == -1) {
      fail (errno, error, "%s: its size is unknown: %s", path,
            strerror (errno));
      goto err;
    }
  }

  r = bdev_init (&f->common, &ops[kind], path, size);
  if (r < 0) {
    fail (-r, error, "%s: %s", path, strerror (-r));
    goto err;
  }
  f->common.read_only = read_only;
  f->common.endless = kind == MEMORY_DEVICE;
  f->common.fua_by_flush = true;
  if (!read_only && kind != MEMORY_DEVICE)
    f->common.can_punch = NOT_TRIED;
  if (kind == BLOCK_DEVICE)
    f->common.rotational = queue_attribute (f->dev, "rotational") != 0;
  f->next = open_files;
  open_files = f;
  return &f->common;

 err:
  r = errno;
  close (f->fd);
  errno = r;
  return NULL;
}

struct block_device *
dm_bdev_open (const char *path, unsigned int flags, char **error)
{
  struct file_bdev *f;
  struct block_device *bdev;
  int saved;

  if (error != NULL)
    *error = NULL;
  if (flags & ~DM_BDEV_READ_ONLY) {
    fail (EINVAL, error, "%s: unknown flags %#x", path, flags);
    return NULL;
  }

  f = g_new0 (struct file_bdev, 1);
  pthread_mutex_lock (&open_files_lock);
  bdev = open_locked (f, path, flags, error);
  saved = errno;
  pthread_mutex_unlock (&open_files_lock);
  if (bdev == NULL) {
    g_free (f);
    errno = saved;
  }
  return bdev;
}
