/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What the kernel is asked to do with files, and what becomes of its
 * answers that a test cannot get from a real file at will.
 *
 * O1 and O2: what has to be durable is synced, in the kernel's cache it
 * would survive any test; O3 punching and zeroing that is unsupported;
 * E4 short transfers, interruptions and errnos; extents; S4 no locks.
 *
 * Linked with --wrap for each function __wrap_ below.  Both names that
 * a function has with and without 64-bit offsets are wrapped, because
 * on some machines they are the same function to the compiler.
 */

#include <config.h>

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <sys/uio.h>

#include "test-files.h"

/*----------------------------------------------------------------------
 * The system calls
 */

enum call { NO_CALL, PREADV, PWRITEV, SYNC, PUNCH, ZERO, LOCK, SEEK };

/* How the next TIMES calls end; set while there is no I/O. */
static struct {
  enum call call;
  unsigned int times;           /* atomic */
  int error;                    /* or if 0: */
  size_t transfer;              /* at most */
} inject;

#define MAX_FDS 1024

/* Each file's bytes that are only in the kernel's cache.  Atomic. */
static bool unsynced[MAX_FDS];
static unsigned int syncs, full_syncs; /* full: of the times too */

static bool
is_injected (enum call call)
{
  return inject.call == call && take_one (&inject.times);
}

static void
set_unsynced (int fd, bool value)
{
  g_assert_cmpint (fd, <, MAX_FDS);
  __atomic_store_n (&unsynced[fd], value, __ATOMIC_SEQ_CST);
}

/* An error that is injected, or -1 and errno. */
static bool
fails (enum call call)
{
  if (inject.error == 0 || !is_injected (call))
    return false;
  errno = inject.error;
  return true;
}

/* As many of the vectors, and of the last of them, as TRANSFER says. */
static int
shorten (const struct iovec *iov, int n, struct iovec *copy)
{
  size_t left = inject.transfer;
  int i;

  for (i = 0; i < n && left > 0; i++) {
    copy[i] = iov[i];
    copy[i].iov_len = MIN (left, iov[i].iov_len);
    left -= copy[i].iov_len;
  }
  return i;
}

typedef ssize_t (*transfer_fn) (int fd, const struct iovec *iov, int n,
                                int64_t offset, int flags);

static ssize_t
transfer (enum call call, transfer_fn real, int fd, const struct iovec *iov,
          int n, int64_t offset, int flags)
{
  struct iovec copy[1024];

  if (fails (call))
    return -1;
  if (call == PWRITEV && !(flags & (RWF_DSYNC | RWF_SYNC)))
    set_unsynced (fd, true);
  if (inject.error != 0 || !is_injected (call))
    return real (fd, iov, n, offset, flags);
  return real (fd, copy, shorten (iov, n, copy), offset, flags);
}

/* preadv, pwritev and pwritev2, which have or have not flags. */
#define WRAP_TRANSFER(CALL, NAME)                                       \
  extern ssize_t __real_##NAME (int fd, const struct iovec *iov, int n, \
                                int64_t offset);                        \
  extern ssize_t __wrap_##NAME (int fd, const struct iovec *iov, int n, \
                                int64_t offset);                        \
  static ssize_t                                                        \
  real_##NAME (int fd, const struct iovec *iov, int n, int64_t offset,  \
               int flags)                                               \
  {                                                                     \
    return __real_##NAME (fd, iov, n, offset);                          \
  }                                                                     \
  ssize_t                                                               \
  __wrap_##NAME (int fd, const struct iovec *iov, int n,                \
                 int64_t offset)                                        \
  {                                                                     \
    return transfer (CALL, real_##NAME, fd, iov, n, offset, 0);         \
  }

#define WRAP_TRANSFER2(CALL, NAME)                                      \
  extern ssize_t __real_##NAME (int fd, const struct iovec *iov, int n, \
                                int64_t offset, int flags);             \
  extern ssize_t __wrap_##NAME (int fd, const struct iovec *iov, int n, \
                                int64_t offset, int flags);             \
  ssize_t                                                               \
  __wrap_##NAME (int fd, const struct iovec *iov, int n,                \
                 int64_t offset, int flags)                             \
  {                                                                     \
    return transfer (CALL, __real_##NAME, fd, iov, n, offset, flags);   \
  }

WRAP_TRANSFER (PREADV, preadv)
WRAP_TRANSFER (PREADV, preadv64)
WRAP_TRANSFER (PWRITEV, pwritev)
WRAP_TRANSFER (PWRITEV, pwritev64)
WRAP_TRANSFER2 (PREADV, preadv2)
WRAP_TRANSFER2 (PREADV, preadv64v2)
WRAP_TRANSFER2 (PWRITEV, pwritev2)
WRAP_TRANSFER2 (PWRITEV, pwritev64v2)

#define WRAP_SYNC(NAME, FULL)                                           \
  extern int __real_##NAME (int fd);                                    \
  extern int __wrap_##NAME (int fd);                                    \
  int                                                                   \
  __wrap_##NAME (int fd)                                                \
  {                                                                     \
    __atomic_add_fetch (&syncs, 1, __ATOMIC_SEQ_CST);                   \
    __atomic_add_fetch (&full_syncs, FULL, __ATOMIC_SEQ_CST);           \
    if (fails (SYNC))                                                   \
      return -1;                                                        \
    set_unsynced (fd, false);                                           \
    return __real_##NAME (fd);                                          \
  }

WRAP_SYNC (fdatasync, 0)
WRAP_SYNC (fsync, 1)

#define WRAP_FALLOCATE(NAME)                                            \
  extern int __real_##NAME (int fd, int mode, int64_t offset,           \
                            int64_t length);                            \
  extern int __wrap_##NAME (int fd, int mode, int64_t offset,           \
                            int64_t length);                            \
  int                                                                   \
  __wrap_##NAME (int fd, int mode, int64_t offset, int64_t length)      \
  {                                                                     \
    if (fails (mode & FALLOC_FL_PUNCH_HOLE ? PUNCH : ZERO))             \
      return -1;                                                        \
    set_unsynced (fd, true);                                            \
    return __real_##NAME (fd, mode, offset, length);                    \
  }

WRAP_FALLOCATE (fallocate)
WRAP_FALLOCATE (fallocate64)

/* Only with a pointer, as all calls with locks are. */
#define WRAP_FCNTL(NAME)                                                \
  extern int __real_##NAME (int fd, int cmd, ...);                      \
  extern int __wrap_##NAME (int fd, int cmd, ...);                      \
  int                                                                   \
  __wrap_##NAME (int fd, int cmd, ...)                                  \
  {                                                                     \
    va_list args;                                                       \
    void *arg;                                                          \
                                                                        \
    va_start (args, cmd);                                               \
    arg = va_arg (args, void *);                                        \
    va_end (args);                                                      \
    return fails (LOCK) ? -1 : __real_##NAME (fd, cmd, arg);            \
  }

WRAP_FCNTL (fcntl)
WRAP_FCNTL (fcntl64)

/* With a call to SEEK injected all files have data from DATA_BEGIN to
 * DATA_END only.
 */
static off_t data_begin, data_end;

static off_t
seek_data (off_t offset)
{
  if (offset >= data_end) {
    errno = ENXIO;
    return -1;
  }
  return MAX (offset, data_begin);
}

static off_t
seek_hole (off_t offset)
{
  return offset >= data_begin && offset < data_end ? data_end : offset;
}

#define WRAP_LSEEK(NAME)                                                \
  extern int64_t __real_##NAME (int fd, int64_t offset, int whence);    \
  extern int64_t __wrap_##NAME (int fd, int64_t offset, int whence);    \
  int64_t                                                               \
  __wrap_##NAME (int fd, int64_t offset, int whence)                    \
  {                                                                     \
    if (whence != SEEK_DATA && whence != SEEK_HOLE)                     \
      return __real_##NAME (fd, offset, whence);                        \
    if (fails (SEEK))                                                   \
      return -1;                                                        \
    if (!is_injected (SEEK))                                            \
      return __real_##NAME (fd, offset, whence);                        \
    return whence == SEEK_DATA ? seek_data (offset) :                   \
      seek_hole (offset);                                               \
  }

WRAP_LSEEK (lseek)
WRAP_LSEEK (lseek64)

static void
inject_error (enum call call, unsigned int times, int error)
{
  inject.call = call;
  inject.error = error;
  __atomic_store_n (&inject.times, times, __ATOMIC_SEQ_CST);
}

static void
inject_short (enum call call, unsigned int times, size_t most)
{
  inject_error (call, times, 0);
  inject.transfer = most;
}

static void
inject_nothing (void)
{
  inject_error (NO_CALL, 0, 0);
}

static bool
anything_unsynced (void)
{
  unsigned int i;

  for (i = 0; i < MAX_FDS; i++)
    if (__atomic_load_n (&unsynced[i], __ATOMIC_SEQ_CST))
      return true;
  return false;
}

/*----------------------------------------------------------------------
 * Tests
 */

static void
open_all (struct files *f, struct io_region *where)
{
  unsigned int i;

  for (i = 0; i < 3; i++)
    where[i] = (struct io_region) { open_ok (f->path[i], 0), 8, 64 };
  memset (unsynced, 0, sizeof unsynced);
}

static void
close_all (struct io_region *where)
{
  unsigned int i;

  inject_nothing ();
  for (i = 0; i < 3; i++)
    dm_bdev_close (where[i].bdev);
}

/* All files have BUF, or zeroes, in their regions. */
static void
assert_all (struct files *f, const unsigned char *buf)
{
  g_autofree unsigned char *expected = g_malloc (SIZE);
  unsigned int i;

  memcpy (expected, f->data, SIZE);
  if (buf != NULL)
    memcpy (expected + 8 * SECTOR, buf, 64 * SECTOR);
  else
    memset (expected + 8 * SECTOR, 0, 64 * SECTOR);
  for (i = 0; i < 3; i++)
    assert_contents (f->path[i], expected, SIZE);
}

static void
test_o1_flush (struct files *f, gconstpointer unused)
{
  struct io_region where[3];
  struct dm_io_result results[3];
  struct dm_io_request req = vm_request (DM_IO_WRITE, f->data);
  unsigned int async;

  open_all (f, where);
  for (async = 0; async < 2; async++) {
    req.op = DM_IO_WRITE;
    g_assert_cmphex (run_request (&req, 3, where, async), ==, 0);
    g_assert_true (anything_unsynced ());
    req.op = DM_IO_FLUSH;
    syncs = 0;
    g_assert_cmphex (run_request (&req, 3, where, async), ==, 0);
    g_assert_false (anything_unsynced ());
    g_assert_cmpuint (syncs, ==, 3);
  }
  req.results = results;
  inject_error (SYNC, 1, EDQUOT);
  g_assert_cmphex (run_request (&req, 1, where, false), ==, 1);
  g_assert_cmpint (results[0].error, ==, EDQUOT);
  close_all (where);
}

/* A flush that was interrupted is none. */
static void
test_o1_interrupted (struct files *f, gconstpointer unused)
{
  struct io_region where[3];
  struct dm_io_request req = { .op = DM_IO_FLUSH };

  open_all (f, where);
  inject_error (SYNC, 4, EINTR);
  syncs = 0;
  g_assert_cmphex (run_request (&req, 3, where, false), ==, 0);
  g_assert_cmpuint (syncs, ==, 7);
  close_all (where);
}

static void
test_o2_fua (struct files *f, gconstpointer unused)
{
  static const struct { enum dm_io_op op; unsigned int flags; } cases[] = {
    { DM_IO_WRITE, 0 }, { DM_IO_DISCARD, 0 }, { DM_IO_WRITE_ZEROES, 0 },
    { DM_IO_WRITE_ZEROES, DM_IO_NO_UNMAP },
  };
  struct io_region where[3];
  struct dm_io_request req;
  unsigned int i, async;

  for (i = 0; i < G_N_ELEMENTS (cases); i++)
    for (async = 0; async < 2; async++) {
      open_all (f, where);
      req = vm_request (cases[i].op, f->data);
      req.flags = cases[i].flags;
      g_assert_cmphex (run_request (&req, 3, where, async), ==, 0);
      if (i == 0)               /* others may have nothing to do */
        g_assert_true (anything_unsynced ());
      close_all (where);

      open_all (f, where);
      req.flags |= DM_IO_FUA;
      if (async)
        inject_short (PWRITEV, 20, 1000);
      g_assert_cmphex (run_request (&req, 3, where, async), ==, 0);
      g_assert_false (anything_unsynced ());
      close_all (where);
    }
}

/* FUA of zeroes that have to be written by hand. */
static void
test_o2_fua_unsupported (struct files *f, gconstpointer unused)
{
  struct io_region where[3];
  const struct dm_io_request req = {
    .op = DM_IO_WRITE_ZEROES, .flags = DM_IO_FUA | DM_IO_NO_UNMAP
  };

  open_all (f, where);
  inject_error (ZERO, 3, EOPNOTSUPP);
  g_assert_cmphex (run_request (&req, 3, where, false), ==, 0);
  g_assert_false (anything_unsynced ());
  close_all (where);
  assert_all (f, NULL);
}

/* The kernel says once that data was lost, here to a write with FUA,
 * and with an errno that could as well be a refusal.
 */
static void
test_o2_lost (struct files *f, gconstpointer unused)
{
  struct io_region where[3];
  struct dm_io_request fua = vm_request (DM_IO_WRITE, f->data);
  struct dm_io_request flush = { .op = DM_IO_FLUSH };
  struct dm_io_result results[3];

  open_all (f, where);
  fua.flags = DM_IO_FUA;
  inject_error (SYNC, 1, ENOSPC);
  g_assert_cmphex (run_request (&fua, 1, where, false), ==, 1);
  flush.results = results;
  g_assert_cmphex (run_request (&flush, 3, where, false), ==, 1);
  g_assert_cmpint (results[0].error, ==, ENOSPC);
  g_assert_cmphex (run_request (&fua, 3, where, true), ==, 1);

  /* A write that was refused has lost nothing. */
  inject_error (PWRITEV, 1, ENOSPC);
  g_assert_cmphex (run_request (&fua, 1, where + 1, false), ==, 1);
  g_assert_cmphex (run_request (&flush, 1, where + 1, false), ==, 0);
  close_all (where);
}

/* What was lost has been written again, so from then on flushes count. */
static void
test_revive (struct files *f, gconstpointer unused)
{
  struct io_region where[3];
  struct dm_io_request write = vm_request (DM_IO_WRITE, f->data);
  struct dm_io_request flush = { .op = DM_IO_FLUSH };

  open_all (f, where);
  g_assert_cmphex (run_request (&write, 3, where, false), ==, 0);
  inject_error (SYNC, 1, EIO);
  g_assert_cmphex (run_request (&flush, 1, where, false), ==, 1);
  g_assert_cmphex (run_request (&flush, 3, where, false), ==, 1);
  g_assert_cmpint (bdev_revive (where[0].bdev), ==, 0);
  g_assert_cmpint (bdev_revive (where[1].bdev), ==, 0);
  g_assert_cmphex (run_request (&write, 3, where, false), ==, 0);
  g_assert_true (anything_unsynced ());
  g_assert_cmphex (run_request (&flush, 3, where, false), ==, 0);
  g_assert_false (anything_unsynced ());

  inject_error (SYNC, 1, EIO);  /* and those that fail, too */
  g_assert_cmphex (run_request (&flush, 1, where, false), ==, 1);
  g_assert_cmphex (run_request (&flush, 1, where, false), ==, 1);
  close_all (where);
}

/* The first flush after a stamp that has something to flush makes the time of the file
 * durable, too, so that after a crash the file is not as it was stamped.
 */
static void
test_flush_after_stamp (struct files *f, gconstpointer unused)
{
  struct dm_io_request write = vm_request (DM_IO_WRITE, f->data);
  struct dm_io_request flush = { .op = DM_IO_FLUSH };
  struct io_region where[3];
  struct bdev_stamp stamp;
  unsigned int i;

  open_all (f, where);
  for (i = 0; i < 2; i++) {
    g_assert_cmpint (bdev_stamp (where[0].bdev, &stamp), ==, 0);
    g_usleep (20000);           /* mtimes are no finer than some ms */
    full_syncs = 0;
    g_assert_cmphex (run_request (&flush, 1, where, false), ==, 0);
    g_assert_cmpuint (full_syncs, ==, 1); /* it may be needed yet */
    g_assert_cmphex (run_request (&write, 1, where, false), ==, 0);
    g_assert_cmphex (run_request (&flush, 1, where, false), ==, 0);
    g_assert_cmpuint (full_syncs, ==, 2);
    g_assert_cmphex (run_request (&write, 1, where, false), ==, 0);
    g_assert_cmphex (run_request (&flush, 1, where, false), ==, 0);
    g_assert_cmpuint (full_syncs, ==, 2);
  }
  close_all (where);
}

/* A stamp is a flush: it asks the kernel, and what it learns stays known. */
static void
test_stamp (struct files *f, gconstpointer unused)
{
  struct io_region where[3];
  struct dm_io_request write = vm_request (DM_IO_WRITE, f->data);
  struct dm_io_request flush = { .op = DM_IO_FLUSH };
  struct bdev_stamp stamp;

  open_all (f, where);
  g_assert_cmphex (run_request (&write, 1, where, false), ==, 0);
  inject_error (SYNC, 1, EINTR);
  syncs = 0;
  g_assert_cmpint (bdev_stamp (where[0].bdev, &stamp), ==, 0);
  g_assert_true (stamp.valid);
  g_assert_cmpuint (syncs, ==, 2);
  g_assert_false (anything_unsynced ());

  inject_error (SYNC, 1, ENOSPC);
  g_assert_cmpint (bdev_stamp (where[0].bdev, &stamp), ==, -ENOSPC);
  g_assert_false (stamp.valid);
  g_assert_cmpint (bdev_stamp (where[0].bdev, &stamp), ==, -ENOSPC);
  g_assert_false (stamp.valid);
  g_assert_cmphex (run_request (&flush, 1, where, false), ==, 1);
  g_assert_cmpint (bdev_revive (where[0].bdev), ==, 0);
  g_assert_cmpint (bdev_stamp (where[0].bdev, &stamp), ==, 0);
  g_assert_true (stamp.valid);
  close_all (where);
}

/* Those are the ways to say that it cannot be done; the file that cannot
 * gets zeroes in another way.
 */
static void
test_o3_unsupported (struct files *f, gconstpointer unused)
{
  static const int errors[] = { EOPNOTSUPP, ENOSYS, ENODEV, EINVAL };
  static const struct {
    enum dm_io_op op;
    unsigned int flags;
    enum call call;
  } cases[] = {
    { DM_IO_DISCARD, 0, PUNCH }, { DM_IO_WRITE_ZEROES, 0, PUNCH },
    { DM_IO_WRITE_ZEROES, DM_IO_NO_UNMAP, ZERO },
  };
  struct io_region where[3];
  struct dm_io_request req;
  unsigned char buf[64 * SECTOR];
  unsigned int i, j, k, left;
  bool can;

  for (i = 0; i < G_N_ELEMENTS (cases); i++)
    for (j = 0; j < G_N_ELEMENTS (errors); j++) {
      open_all (f, where);
      for (can = true, k = 0; k < 3; k++)
        can = bdev_can_punch (where[k].bdev) && can;
      if (!can) {
        close_all (where);
        g_test_skip ("this file system cannot punch holes");
        return;
      }
      fill (buf, sizeof buf, i);
      req = vm_request (DM_IO_WRITE, buf);
      g_assert_cmphex (run_request (&req, 3, where, false), ==, 0);
      req = (struct dm_io_request) {
        .op = cases[i].op, .flags = cases[i].flags
      };
      inject_error (cases[i].call, 2, errors[j]);
      g_assert_cmphex (run_request (&req, 3, where, j % 2), ==, 0);
      left = inject.times;
      close_all (where);
      g_assert_cmpuint (left, ==, 0);
      assert_all (f, NULL);
    }
}

static void
test_o3_errors (struct files *f, gconstpointer unused)
{
  const struct dm_io_request zeroes = {
    .op = DM_IO_WRITE_ZEROES, .flags = DM_IO_NO_UNMAP
  };
  struct dm_io_request req = zeroes;
  struct dm_io_result result;
  struct io_region where[3];

  open_all (f, where);
  req.results = &result;
  inject_error (ZERO, 1, ENOSPC);
  g_assert_cmphex (run_request (&req, 1, where, false), ==, 1);
  g_assert_cmpint (result.error, ==, ENOSPC);
  inject_error (ZERO, 1, EINTR);
  g_assert_cmphex (run_request (&req, 1, where, false), ==, 0);
  close_all (where);
}

static void
test_e4_resumed (struct files *f, gconstpointer unused)
{
  static const size_t sizes[] = { 1, 511, 513, 4095 };
  static const int errors[] = { EINTR, EAGAIN };
  unsigned char out[64 * SECTOR], in[64 * SECTOR];
  struct io_region where[3];
  struct dm_io_request req;
  unsigned int i;
  enum call call;

  open_all (f, where);
  for (i = 0; i < G_N_ELEMENTS (sizes) + G_N_ELEMENTS (errors); i++)
    for (call = PREADV; call <= PWRITEV; call++) {
      fill (out, sizeof out, i);
      memset (in, 0, sizeof in);
      if (i < G_N_ELEMENTS (sizes))
        inject_short (call, 9, sizes[i]);
      else
        inject_error (call, 9, errors[i - G_N_ELEMENTS (sizes)]);
      req = vm_request (DM_IO_WRITE, out);
      g_assert_cmphex (run_request (&req, 3, where, false), ==, 0);
      req = vm_request (DM_IO_READ, in);
      g_assert_cmphex (run_request (&req, 1, &where[2], false), ==, 0);
      assert_same (in, out, sizeof in);
      g_assert_cmpuint (inject.times, ==, 0);
    }
  close_all (where);
  assert_all (f, out);
}

static void
test_e4_errnos (struct files *f, gconstpointer unused)
{
  static const int errors[] = {
    EIO, ENOSPC, EDQUOT, EFBIG, EPERM, ENOMEM, EBADF, EINVAL,
  };
  unsigned char buf[64 * SECTOR];
  struct dm_io_result result;
  struct io_region where[3];
  struct dm_io_request req;
  unsigned int i;

  open_all (f, where);
  for (i = 0; i < G_N_ELEMENTS (errors); i++) {
    memset (buf, 0xaa, sizeof buf);
    inject_error (PREADV, 1, errors[i]);
    req = vm_request (DM_IO_READ, buf);
    req.results = &result;
    g_assert_cmphex (run_request (&req, 1, where, i % 2), ==, 1);
    g_assert_cmpint (result.error, ==, errors[i]);
    assert_zero (buf, sizeof buf);
    inject_error (PWRITEV, 1, errors[i]);
    req.op = DM_IO_WRITE;
    g_assert_cmphex (run_request (&req, 1, where, i % 2), ==, 1);
    g_assert_cmpint (result.error, ==, errors[i]);
  }
  close_all (where);
}

/* File systems with blocks smaller than a sector, or that do not know:
 * every extent is of whole sectors, and is a hole only if no byte of it
 * is data.
 */
static void
check_extents (struct block_device *bdev, off_t begin, off_t end)
{
  struct bdev_extent extent;
  off_t offset, holes = 0;

  data_begin = begin;
  data_end = end;
  for (offset = 0; offset < SIZE; offset += extent.length) {
    g_assert_cmpint (bdev_extents (bdev, offset, SIZE - offset, &extent, 1),
                     ==, 1);
    g_assert_cmpuint (extent.length, >, 0);
    g_assert_cmpuint (extent.length, <=, SIZE - offset);
    g_assert_cmpuint (extent.length % SECTOR, ==, 0);
    if (extent.hole) {
      g_assert_true (offset >= end ||
                     offset + (off_t) extent.length <= begin);
      holes += extent.length;
    }
  }
  g_assert_cmpint (holes, >=, SIZE - (end - begin) - 2 * SECTOR);
}

static void
test_odd_extents (struct files *f, gconstpointer unused)
{
  static const struct { off_t begin, end; } cases[] = {
    { 0, SIZE }, { SIZE, SIZE }, { 4096, 8192 }, { 0, 1 }, { 1, 2 },
    { 511, 512 }, { 511, 513 }, { 700, 5000 }, { 1023, 1025 },
    { SIZE - 1, SIZE }, { SIZE - 513, SIZE - 511 },
  };
  struct io_region where[3];
  struct bdev_extent extent;
  unsigned int i;

  /* Opened for each, as a device remembers where there is data. */
  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    open_all (f, where);
    inject_error (SEEK, UINT_MAX, 0);
    check_extents (where[0].bdev, cases[i].begin, cases[i].end);
    inject_nothing ();
    close_all (where);
  }

  open_all (f, where);
  inject_error (SEEK, 1, EINVAL);
  g_assert_cmpint (bdev_extents (where[0].bdev, 0, SIZE, &extent, 1), ==, 1);
  g_assert_false (extent.hole);
  inject_error (SEEK, 1, EIO);
  g_assert_cmpint (bdev_extents (where[0].bdev, 0, SIZE, &extent, 1),
                   ==, -EIO);
  close_all (where);
}

/* A file that cannot be locked is not opened. */
static void
test_s4_no_locks (struct files *f, gconstpointer unused)
{
  inject_error (LOCK, 2, ENOLCK);
  open_refused (f->path[0], 0, ENOLCK, "lock");
  inject_nothing ();
  dm_bdev_close (open_ok (f->path[0], 0));
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  add_files_test ("/syscalls/o1-flush", test_o1_flush);
  add_files_test ("/syscalls/o1-interrupted", test_o1_interrupted);
  add_files_test ("/syscalls/o2-fua", test_o2_fua);
  add_files_test ("/syscalls/o2-fua-unsupported", test_o2_fua_unsupported);
  add_files_test ("/syscalls/o2-lost", test_o2_lost);
  add_files_test ("/syscalls/revive", test_revive);
  add_files_test ("/syscalls/stamp", test_stamp);
  add_files_test ("/syscalls/flush-after-stamp", test_flush_after_stamp);
  add_files_test ("/syscalls/o3-unsupported", test_o3_unsupported);
  add_files_test ("/syscalls/o3-errors", test_o3_errors);
  add_files_test ("/syscalls/e4-resumed", test_e4_resumed);
  add_files_test ("/syscalls/e4-errnos", test_e4_errnos);
  add_files_test ("/syscalls/odd-extents", test_odd_extents);
  add_files_test ("/syscalls/s4-no-locks", test_s4_no_locks);
  return g_test_run ();
}
