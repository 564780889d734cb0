/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Regions that are real files, opened with dm_bdev_open.
 *
 * V3 sizes, partial sectors and read-only files; B2 and B5; E3 and E4
 * files that were truncated, the errors of /dev/full and of
 * RLIMIT_FSIZE; O1 and O3 on a file system; and the errors of opening.
 *
 * Processes are forked while no device is open, so that they share no
 * lock with this one.
 */

#include <config.h>

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <glib/gstdio.h>

#include "clock.h"
#include "test-files.h"

/* Run a part of a test in a process of its own, because it changes the
 * process.
 */
static void
run_in_child (void (*fn) (struct files *f), struct files *f)
{
  pid_t pid = fork ();
  int status;

  g_assert_cmpint (pid, >=, 0);
  if (pid == 0) {
    alarm (WAIT_SECONDS);
    fn (f);
    _exit (0);
  }
  g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
  g_assert_cmpint (status, ==, 0);
}

/*----------------------------------------------------------------------
 * Opening
 */

static void
test_open (struct files *f, gconstpointer unused)
{
  struct block_device *bdev = open_ok (f->path[0], 0);

  g_assert_cmpuint (dm_bdev_sectors (bdev), ==, SECTORS);
  g_assert_cmpstr (dm_bdev_name (bdev), ==, f->path[0]);
  g_assert_false (dm_bdev_read_only (bdev));
  dm_bdev_close (bdev);

  bdev = open_ok (f->path[0], DM_BDEV_READ_ONLY);
  g_assert_true (dm_bdev_read_only (bdev));
  dm_bdev_close (bdev);
  dm_bdev_close (NULL);
  assert_contents (f->path[0], f->data, SIZE);
}

static void
test_open_errors (struct files *f, gconstpointer unused)
{
  g_autofree char *missing = path_in (f, "missing");
  g_autofree char *fifo = path_in (f, "fifo");
  g_autofree char *dangling = path_in (f, "dangling");
  g_autofree char *below = g_strconcat (f->path[0], "/x", NULL);
  unsigned int flags;

  g_assert_cmpint (mkfifo (fifo, 0600), ==, 0);
  g_assert_cmpint (symlink ("nowhere", dangling), ==, 0);
  for (flags = 0; flags <= DM_BDEV_READ_ONLY; flags++) {
    open_refused (missing, flags, ENOENT, "No such file");
    open_refused (dangling, flags, ENOENT, "No such file");
    open_refused (below, flags, ENOTDIR, "Not a directory");
    open_refused (f->dir, flags, EISDIR, "directory");
    open_refused (fifo, flags, EINVAL, "special file");
    open_refused ("/dev/null", flags, EINVAL, "special file");
    open_refused ("", flags, ENOENT, "No such file");
  }
  open_refused (f->path[0], 1U << 28, EINVAL, "flags");
  g_assert_false (g_file_test (missing, G_FILE_TEST_EXISTS));
}

/* As root everything can be opened: give that up. */
static void
drop_capabilities (void)
{
  struct __user_cap_header_struct header = {
    .version = _LINUX_CAPABILITY_VERSION_3,
  };
  struct __user_cap_data_struct none[2] = { { 0 } };

  g_assert_cmpint (syscall (SYS_capset, &header, none), ==, 0);
}

static void
open_unwritable (struct files *f)
{
  struct io_region where;
  struct dm_io_result result;
  struct dm_io_request req = vm_request (DM_IO_WRITE, f->data);
  unsigned char buf[SECTOR];

  drop_capabilities ();
  where = (struct io_region) { open_ok (f->path[0], 0), 3, 1 };
  g_assert_true (dm_bdev_read_only (where.bdev));
  req.results = &result;
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 1);
  g_assert_cmpint (result.error, ==, EROFS);
  g_assert_cmpint (dm_io_sync_vm (1, &where, READ, buf, NULL), ==, 0);
  assert_same (buf, f->data + 3 * SECTOR, SECTOR);
  dm_bdev_close (where.bdev);

  open_refused (f->path[1], 0, EACCES, "Permission denied");
  open_refused (f->path[1], DM_BDEV_READ_ONLY, EACCES, "Permission denied");
}

static void
test_v3_unwritable (struct files *f, gconstpointer unused)
{
  g_assert_cmpint (chmod (f->path[0], 0444), ==, 0);
  g_assert_cmpint (chmod (f->path[1], 0), ==, 0);
  run_in_child (open_unwritable, f);
  assert_contents (f->path[0], f->data, SIZE);
}

/* What does not fill a sector is left alone. */
static void
test_v3_partial_last_sector (struct files *f, gconstpointer unused)
{
  const size_t odd = SIZE - 100;
  struct io_region where;
  unsigned long bits = 0;

  g_assert_cmpint (truncate (f->path[0], odd), ==, 0);
  where.bdev = open_ok (f->path[0], 0);
  g_assert_cmpuint (dm_bdev_sectors (where.bdev), ==, SECTORS - 1);
  where.sector = SECTORS - 2;
  where.count = 2;
  g_assert_cmpint (dm_io_sync_vm (1, &where, WRITE, f->data, &bits),
                   ==, -EIO);
  g_assert_cmphex (bits, ==, 1);
  assert_contents (f->path[0], f->data, odd);
  where.sector = 0;
  where.count = SECTORS - 1;
  fill (f->data, SIZE - SECTOR, 2);
  g_assert_cmpint (dm_io_sync_vm (1, &where, WRITE, f->data, &bits), ==, 0);
  assert_contents (f->path[0], f->data, odd);
  dm_bdev_close (where.bdev);

  g_assert_cmpint (truncate (f->path[0], 511), ==, 0);
  where.bdev = open_ok (f->path[0], 0);
  g_assert_cmpuint (dm_bdev_sectors (where.bdev), ==, 0);
  dm_bdev_close (where.bdev);
}

/*----------------------------------------------------------------------
 * Reading and writing
 */

/* More vectors than one system call takes, to a region of its own on
 * each of three files, in every way of writing.
 */
static void
test_b2_b5_files (struct files *f, gconstpointer unused)
{
  const unsigned int n = 2 * SECTORS + 1500;
  struct page *pages = new_pages (n);
  g_autofree struct bio_vec *bvec = g_new (struct bio_vec, n);
  g_autofree unsigned char *expected = g_malloc0 ((n + 100) * SECTOR);
  struct dm_io_request req = { .mem.type = DM_IO_BVEC };
  struct io_region where[3];
  unsigned int i, round;

  for (i = 0; i < n; i++)
    bvec[i] = (struct bio_vec) { &pages[n-1-i], SECTOR, i % 8 * SECTOR };
  for (i = 0; i < 3; i++) {
    g_assert_cmpint (truncate (f->path[i], 0), ==, 0);
    g_assert_cmpint (truncate (f->path[i], (n + 100) * SECTOR), ==, 0);
    where[i] = (struct io_region) { open_ok (f->path[i], 0), 40 * i, n };
  }
  req.mem.length = n * SECTOR;
  req.mem.ptr.bvec = bvec;
  for (round = 0; round < 8; round++) { /* flags, async */
    fill (pages, n * PAGE, round);
    req.op = DM_IO_WRITE;
    req.flags = round % 4;
    g_assert_cmphex (run_request (&req, 3, where, round / 4), ==, 0);
  }
  for (i = 0; i < n; i++)
    memcpy (expected + i * SECTOR, pages[n-1-i].data + i % 8 * SECTOR,
            SECTOR);
  req.op = DM_IO_READ;
  req.flags = 0;
  for (round = 0; round < 2; round++) {
    for (i = 0; i < n; i++)
      memset (pages[n-1-i].data + i % 8 * SECTOR, 0, SECTOR);
    g_assert_cmphex (run_request (&req, 1, &where[round], round), ==, 0);
    for (i = 0; i < n; i++)
      assert_same (pages[n-1-i].data + i % 8 * SECTOR, expected + i * SECTOR,
                   SECTOR);
  }
  for (i = 0; i < 3; i++)
    dm_bdev_close (where[i].bdev);
  for (i = 0; i < 3; i++) {
    assert_contents (f->path[i], expected, (n + 100) * SECTOR);
    memmove (expected + 40 * SECTOR, expected, (n + 60) * SECTOR);
    memset (expected, 0, 40 * SECTOR);
  }
  free (pages);
}

static void
test_o1_flush (struct files *f, gconstpointer unused)
{
  struct dm_io_request req = { .op = DM_IO_FLUSH };
  struct io_region where[3];
  unsigned int i;

  for (i = 0; i < 3; i++)
    where[i] = (struct io_region) {
      open_ok (f->path[i], i == 2 ? DM_BDEV_READ_ONLY : 0), 0, 0
    };
  g_assert_cmphex (run_request (&req, 3, where, false), ==, 0);
  g_assert_cmphex (run_request (&req, 3, where, true), ==, 0);
  for (i = 0; i < 3; i++)
    dm_bdev_close (where[i].bdev);
}

/*----------------------------------------------------------------------
 * Errors of the system
 */

static void
test_e4_dev_full (void)
{
  struct dm_io_result result;
  unsigned char buf[SECTOR];
  struct dm_io_request req = vm_request (DM_IO_WRITE, buf);
  struct io_region where = { open_ok ("/dev/full", 0), 1000000, 1 };
  struct block_device *second = open_ok ("/dev/full", 0);

  g_assert_cmpuint (dm_bdev_sectors (where.bdev), ==, INT64_MAX / SECTOR);
  memset (buf, 1, sizeof buf);
  req.results = &result;
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 1);
  g_assert_cmpint (result.error, ==, ENOSPC);
  req.op = DM_IO_WRITE_ZEROES;
  g_assert_cmphex (run_request (&req, 1, &where, true), ==, 1);
  g_assert_cmpint (result.error, ==, ENOSPC);
  req.op = DM_IO_FLUSH;
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 0);
  req.op = DM_IO_DISCARD;
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 0);
  req.op = DM_IO_READ;
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 0);
  assert_zero (buf, sizeof buf);
  dm_bdev_close (second);
  dm_bdev_close (where.bdev);
}

/* What is below the limit is written. */
#define LIMIT (10 * SECTOR + 100)

static void
write_beyond_limit (struct files *f)
{
  const struct rlimit limit = { LIMIT, LIMIT };
  struct dm_io_result results[2];
  struct dm_io_request req = vm_request (DM_IO_WRITE, f->data);
  struct io_region where[2] = {
    { open_ok (f->path[0], 0), 8, 4 }, { open_ok (f->path[1], 0), 0, 4 },
  };

  signal (SIGXFSZ, SIG_IGN);
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &limit), ==, 0);
  req.results = results;
  g_assert_cmphex (run_request (&req, 2, where, false), ==, 1);
  g_assert_cmpint (results[0].error, ==, EFBIG);
  g_assert_cmphex (run_request (&req, 2, where, true), ==, 1);
  g_assert_cmpint (results[0].error, ==, EFBIG);
  dm_bdev_close (where[0].bdev);
  dm_bdev_close (where[1].bdev);
}

static void
test_e4_file_size_limit (struct files *f, gconstpointer unused)
{
  g_autofree unsigned char *expected = g_malloc (SIZE);

  run_in_child (write_beyond_limit, f);
  memcpy (expected, f->data, SIZE);
  memcpy (expected + 8 * SECTOR, f->data, 2 * SECTOR + 100);
  assert_contents (f->path[0], expected, SIZE);
  assert_contents (f->path[1], f->data, SIZE);
}

/* Somebody truncates a file that is open. */
static struct io_region
open_and_truncate (struct files *f, size_t size)
{
  struct io_region where = { open_ok (f->path[0], 0), 0, SECTORS };

  g_assert_cmpint (truncate (f->path[0], size), ==, 0);
  g_test_expect_message ("dmio", G_LOG_LEVEL_WARNING,
                         "*/region0*truncated*");
  return where;
}

static void
test_e3_truncated_read (struct files *f, gconstpointer unused)
{
  const size_t left = SIZE / 2 + 100;
  struct io_region where = open_and_truncate (f, left);
  g_autofree unsigned char *buf = g_malloc (SIZE);
  struct dm_io_request req = vm_request (DM_IO_READ, buf);
  struct dm_io_result result;

  memset (buf, 0xaa, SIZE);
  req.results = &result;
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 1);
  g_assert_cmpint (result.error, ==, EIO);
  g_test_assert_expected_messages ();
  assert_same (buf, f->data, left);
  assert_zero (buf + left, SIZE - left);
  dm_bdev_close (where.bdev);
}

/* A write must not make the file grow again: what was lost would look
 * like zeroes.  Nor is the rest of it used, even when it has grown.
 */
static void
test_e4_truncated_write (struct files *f, gconstpointer unused)
{
  static const enum dm_io_op ops[] = {
    DM_IO_WRITE, DM_IO_WRITE_ZEROES, DM_IO_FLUSH,
  };
  struct io_region where = open_and_truncate (f, SIZE / 2);
  struct dm_io_request req = vm_request (DM_IO_WRITE, f->data);
  struct dm_io_result result;
  unsigned int i, grown;

  where.sector = SECTORS / 2 + 4;
  where.count = 4;
  req.results = &result;
  for (grown = 0; grown < 2; grown++) {
    for (i = 0; i < G_N_ELEMENTS (ops); i++) {
      req.op = ops[i];
      g_assert_cmphex (run_request (&req, 1, &where, false), ==, 1);
      g_assert_cmpint (result.error, ==, EIO);
      g_assert_cmpint (stat_of (f->path[0]).st_size, ==,
                       grown ? SIZE : SIZE / 2);
    }
    g_assert_cmpint (truncate (f->path[0], SIZE), ==, 0);
  }
  g_test_assert_expected_messages ();
  req.op = DM_IO_READ;
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 1);
  dm_bdev_close (where.bdev);

  where.bdev = open_ok (f->path[0], 0);
  req.op = DM_IO_WRITE;
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 0);
  dm_bdev_close (where.bdev);
}

/*----------------------------------------------------------------------
 * O3
 */

/* Three files open; skip the test and return false if their file system
 * cannot punch holes.
 */
static bool
open_three (struct files *f, struct io_region *where)
{
  bool able = true;
  unsigned int i;

  for (i = 0; i < 3; i++) {
    where[i] = (struct io_region) { open_ok (f->path[i], 0), 0, SECTORS };
    able = able && bdev_can_punch (where[i].bdev);
  }
  if (able)
    return true;
  for (i = 0; i < 3; i++)
    dm_bdev_close (where[i].bdev);
  g_test_skip ("this file system cannot punch holes");
  return false;
}

/* Zero 64 KiB in the middle of each; returns by how many bytes they then
 * shrank on disk.
 */
static off_t
zero_middle (struct files *f, struct io_region *where, enum dm_io_op op,
             unsigned int flags)
{
  const struct dm_io_request flush = { .op = DM_IO_FLUSH };
  struct dm_io_request req = { .op = op, .flags = flags };
  blkcnt_t before, after;
  unsigned int i;

  g_assert_cmphex (run_request (&flush, 3, where, false), ==, 0);
  before = stat_of (f->path[0]).st_blocks;
  for (i = 0; i < 3; i++) {
    where[i].sector = 64;
    where[i].count = 128;
  }
  g_assert_cmphex (run_request (&req, 3, where, false), ==, 0);
  g_assert_cmphex (run_request (&flush, 3, where, false), ==, 0);
  after = stat_of (f->path[0]).st_blocks;
  for (i = 0; i < 3; i++)
    dm_bdev_close (where[i].bdev);

  memset (f->data + 64 * SECTOR, 0, 128 * SECTOR);
  for (i = 0; i < 3; i++)
    assert_contents (f->path[i], f->data, SIZE);
  return (before - after) * 512;
}

static void
test_o3_discard (struct files *f, gconstpointer unused)
{
  struct io_region where[3];

  if (open_three (f, where))
    g_assert_cmpint (zero_middle (f, where, DM_IO_DISCARD, 0), >=,
                     120 * SECTOR);
}

static void
test_o3_zeroes_may_unmap (struct files *f, gconstpointer unused)
{
  struct io_region where[3];

  if (open_three (f, where))
    g_assert_cmpint (zero_middle (f, where, DM_IO_WRITE_ZEROES, DM_IO_FUA),
                     >=, 120 * SECTOR);
}

static void
test_o3_zeroes_no_unmap (struct files *f, gconstpointer unused)
{
  struct io_region where[3];

  if (open_three (f, where))
    g_assert_cmpint (zero_middle (f, where, DM_IO_WRITE_ZEROES,
                                  DM_IO_NO_UNMAP), <=, 0);
}

/* The other files can punch, /dev/full cannot. */
static void
test_o3_discard_unsupported (struct files *f, gconstpointer unused)
{
  const struct dm_io_request req = { .op = DM_IO_DISCARD };
  struct io_region where[3];

  if (!open_three (f, where))
    return;
  dm_bdev_close (where[2].bdev);
  where[2].bdev = open_ok ("/dev/full", 0);
  g_assert_cmphex (run_request (&req, 3, where, false), ==, 0);
  dm_bdev_close (where[0].bdev);
  dm_bdev_close (where[1].bdev);
  dm_bdev_close (where[2].bdev);
  assert_contents (f->path[0], f->data, SIZE);
  assert_contents (f->path[1], f->data, SIZE);
}

/* Not even revived: what was lost stays lost. */
static void
test_truncated_revive (struct files *f, gconstpointer unused)
{
  struct io_region where = open_and_truncate (f, SIZE / 2);
  struct dm_io_request req = vm_request (DM_IO_WRITE, f->data);
  struct bdev_stamp stamp;

  g_assert_false (where.bdev->failed);
  g_assert_cmpint (bdev_revive (where.bdev), ==, -EIO);
  g_test_assert_expected_messages ();
  g_assert_true (where.bdev->failed);
  g_assert_cmpint (truncate (f->path[0], SIZE), ==, 0);
  g_assert_cmpint (bdev_revive (where.bdev), ==, -EIO);
  g_assert_cmpint (bdev_stamp (where.bdev, &stamp), ==, -EIO);
  g_assert_false (stamp.valid);
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 1);
  dm_bdev_close (where.bdev);
}

/* The file of its path is another one, SIZE bytes of BYTE.  Done by rename, so that
 * times do not show it on every file system.
 */
static void
replace (const char *path, int byte, size_t size)
{
  g_autofree char *other = g_strconcat (path, ".other", NULL);
  g_autofree char *content = g_malloc (size);

  memset (content, byte, size);
  g_assert_true (g_file_set_contents (other, content, size, NULL));
  g_assert_cmpint (g_rename (other, path), ==, 0);
}

static int
first_byte (const struct io_region *where)
{
  struct page *buf = new_pages (1);
  struct dm_io_request req = vm_request (DM_IO_READ, buf);
  int byte;

  g_assert_cmphex (run_request (&req, 1, (struct io_region *) where, false),
                   ==, 0);
  byte = *(unsigned char *) buf;
  free (buf);
  return byte;
}

/* A file that was replaced is used as it was until it is revived, and then the other
 * one is, if it can be.
 */
static void
test_replaced (struct files *f, gconstpointer flags)
{
  const struct dm_bdev_options options = { .flags = GPOINTER_TO_UINT (flags) };
  struct io_region where = {
    dm_bdev_open (f->path[0], &options, NULL), 0, 8
  };
  struct dm_io_request req = vm_request (DM_IO_WRITE, f->data);
  struct bdev_extent extent;
  uint64_t date;

  if (where.bdev == NULL) {
    g_test_skip ("no direct I/O there");
    return;
  }
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 0);
  g_assert_cmpint (bdev_extents (where.bdev, 0, SIZE, &extent, 1), ==, 1);
  g_assert_cmpint (bdev_place (where.bdev), ==, BDEV_IN_PLACE);
  date = clock_date ();
  g_assert_false (bdev_touched (where.bdev, date));

  replace (f->path[0], 'x', SIZE + SECTOR);
  g_assert_cmpint (bdev_place (where.bdev), ==, BDEV_REPLACED);
  g_test_expect_message ("dmio", G_LOG_LEVEL_WARNING, "*another file*");
  g_assert_cmpint (bdev_revive (where.bdev), ==, -EINVAL);
  g_test_assert_expected_messages ();
  g_assert_cmpint (first_byte (&where), ==, *(unsigned char *) f->data);

  replace (f->path[0], 'y', SIZE);
  g_assert_cmpint (bdev_revive (where.bdev), ==, 0);
  g_assert_cmpint (bdev_place (where.bdev), ==, BDEV_IN_PLACE);
  g_assert_true (bdev_touched (where.bdev, date));
  g_assert_cmpint (first_byte (&where), ==, 'y');
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 0);
  g_assert_cmpint (first_byte (&where), ==, *(unsigned char *) f->data);

  /* Others are kept out of this one, and no longer out of that. */
  g_assert_null (dm_bdev_open (f->path[0], NULL, NULL));
  dm_bdev_close (where.bdev);
  where.bdev = open_ok (f->path[0], 0);
  dm_bdev_close (where.bdev);
}

/* Another that cannot be used does not take the lock away from the one that is back. */
static void
test_replaced_for_a_while (struct files *f, gconstpointer unused)
{
  g_autofree char *away = g_strconcat (f->path[0], ".away", NULL);
  struct block_device *bdev = open_ok (f->path[0], 0);

  g_assert_cmpint (g_rename (f->path[0], away), ==, 0);
  replace (f->path[0], 'x', SECTOR);
  g_test_expect_message ("dmio", G_LOG_LEVEL_WARNING, "*another file*");
  g_assert_cmpint (bdev_revive (bdev), ==, -EINVAL);
  g_test_assert_expected_messages ();
  g_assert_cmpint (g_rename (away, f->path[0]), ==, 0);
  g_assert_cmpint (bdev_revive (bdev), ==, 0);
  g_assert_null (dm_bdev_open (f->path[0], NULL, NULL));
  g_assert_cmpint (errno, ==, EBUSY);
  dm_bdev_close (bdev);
}

/* ".." is that of the directory to which a symbolic link leads. */
static void
test_place_behind_link (struct files *f, gconstpointer unused)
{
  g_autofree char *dir = g_build_filename (f->dir, "dir", NULL);
  g_autofree char *inner = g_build_filename (dir, "inner", NULL);
  g_autofree char *file = g_build_filename (dir, "file", NULL);
  g_autofree char *link = g_build_filename (f->dir, "link", NULL);
  g_autofree char *path = g_build_filename (link, "..", "file", NULL);
  struct block_device *bdev;

  g_assert_cmpint (g_mkdir_with_parents (inner, 0700), ==, 0);
  g_assert_cmpint (symlink (inner, link), ==, 0);
  g_assert_true (g_file_set_contents (file, (char *) f->data, SIZE, NULL));
  bdev = open_ok (path, 0);
  g_assert_cmpint (bdev_place (bdev), ==, BDEV_IN_PLACE);
  dm_bdev_close (bdev);
  g_unlink (file);
  g_unlink (link);
  g_rmdir (inner);
  g_rmdir (dir);
}

static void
test_deleted (struct files *f, gconstpointer remake)
{
  const bool made = GPOINTER_TO_INT (remake);
  struct io_region where = {
    open_ok (f->path[0], made ? BDEV_REMAKE : 0), 0, 8
  };
  struct stat before = stat_of (f->path[0]), after;

  g_assert_cmpint (g_unlink (f->path[0]), ==, 0);
  g_assert_cmpint (bdev_place (where.bdev), ==, BDEV_DELETED);
  g_assert_cmpint (bdev_revive (where.bdev), ==, made ? 0 : -EAGAIN);
  if (made) {
    after = stat_of (f->path[0]);
    g_assert_cmpuint (after.st_size, ==, before.st_size);
    g_assert_cmpuint (after.st_mode, ==, before.st_mode);
    g_assert_cmpint (first_byte (&where), ==, 0);
  }
  else
    g_assert_false (g_file_test (f->path[0], G_FILE_TEST_EXISTS));
  dm_bdev_close (where.bdev);
}

static struct bdev_stamp
stamp_of (struct block_device *bdev)
{
  struct bdev_stamp stamp;

  g_assert_cmpint (bdev_stamp (bdev, &stamp), ==, 0);
  return stamp;
}

/* It is what stat says, changes with a write, and with nothing else. */
static void
test_stamp (struct files *f, gconstpointer unused)
{
  struct io_region where = { open_ok (f->path[0], 0), 0, 8 };
  struct dm_io_request req = vm_request (DM_IO_WRITE, f->data);
  struct bdev_stamp before = stamp_of (where.bdev), after;
  struct stat st = stat_of (f->path[0]);

  g_assert_true (before.valid);
  g_assert_cmpuint (before.size, ==, SIZE);
  g_assert_cmpuint (before.mtime, ==, st.st_mtim.tv_sec * G_GUINT64_CONSTANT
                    (1000000000) + st.st_mtim.tv_nsec);
  g_usleep (20000);             /* mtimes are no finer than some ms */
  bdev_can_punch (where.bdev);
  req.op = DM_IO_READ;
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 0);
  after = stamp_of (where.bdev);
  g_assert_cmpuint (after.mtime, ==, before.mtime);

  req.op = DM_IO_WRITE;
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 0);
  after = stamp_of (where.bdev);
  g_assert_cmpuint (after.mtime, >, before.mtime);
  g_assert_cmpuint (after.size, ==, SIZE);
  dm_bdev_close (where.bdev);
}

/* Devices that are no files have none. */
static void
test_no_stamp (void)
{
  struct block_device *bdev = open_ok ("/dev/zero", 0);

  g_assert_false (stamp_of (bdev).valid);
  g_assert_cmpint (bdev_revive (bdev), ==, 0);
  bdev_rest (bdev);
  dm_bdev_close (bdev);
}

/* Every extent is within what was asked for and of whole sectors, and no
 * data is in a hole.  Returns the bytes of holes.
 */
static uint64_t
walk_extents (struct block_device *bdev, uint64_t size, uint64_t data_begin,
              uint64_t data_end)
{
  struct bdev_extent extent;
  uint64_t offset, most, holes = 0;

  for (offset = 0; offset < size; offset += extent.length) {
    most = MIN (size - offset, 300 * SECTOR);
    g_assert_cmpint (bdev_extents (bdev, offset, most, &extent, 1), ==, 1);
    g_assert_cmpuint (extent.length, >, 0);
    g_assert_cmpuint (extent.length, <=, most);
    g_assert_cmpuint (extent.length % SECTOR, ==, 0);
    if (extent.hole) {
      g_assert_true (offset + extent.length <= data_begin ||
                     offset >= data_end);
      holes += extent.length;
    }
  }
  return holes;
}

static void
test_extents (struct files *f, gconstpointer unused)
{
  const uint64_t size = 4 << 20, begin = 1 << 20, end = begin + SIZE;
  struct io_region where;
  uint64_t holes;
  int fd = open (f->path[0], O_RDWR | O_TRUNC);
  bool known;

  g_assert_cmpint (ftruncate (fd, size + 100), ==, 0);
  g_assert_cmpint (pwrite (fd, f->data, SIZE, begin), ==, SIZE);
  known = lseek (fd, 0, SEEK_DATA) > 0;
  close (fd);

  where = (struct io_region) { open_ok (f->path[0], 0), 0, size / SECTOR };
  holes = walk_extents (where.bdev, size, begin, end);
  if (known)
    g_assert_cmpuint (holes, >=, size - SIZE - (1 << 20));
  else
    g_test_skip ("this file system does not say where holes are");
  g_assert_cmpint (bdev_prefetch (where.bdev, 0, size), ==, 0);
  dm_bdev_close (where.bdev);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  add_files_test ("/file/open", test_open);
  add_files_test ("/file/open-errors", test_open_errors);
  add_files_test ("/file/v3-unwritable", test_v3_unwritable);
  add_files_test ("/file/v3-partial-last-sector", test_v3_partial_last_sector);
  add_files_test ("/file/b2-b5-files", test_b2_b5_files);
  add_files_test ("/file/o1-flush", test_o1_flush);
  g_test_add_func ("/file/e4-dev-full", test_e4_dev_full);
  add_files_test ("/file/e4-file-size-limit", test_e4_file_size_limit);
  add_files_test ("/file/e3-truncated-read", test_e3_truncated_read);
  add_files_test ("/file/e4-truncated-write", test_e4_truncated_write);
  add_files_test ("/file/truncated-revive", test_truncated_revive);
  add_files_test ("/file/stamp", test_stamp);
  g_test_add ("/file/replaced", struct files, NULL, set_up, test_replaced,
              tear_down);
  g_test_add ("/file/replaced-direct", struct files,
              GUINT_TO_POINTER (DM_BDEV_DIRECT), set_up, test_replaced,
              tear_down);
  add_files_test ("/file/replaced-for-a-while", test_replaced_for_a_while);
  add_files_test ("/file/place-behind-link", test_place_behind_link);
  g_test_add ("/file/deleted", struct files, NULL, set_up, test_deleted,
              tear_down);
  g_test_add ("/file/deleted-remake", struct files, GINT_TO_POINTER (true),
              set_up, test_deleted, tear_down);
  g_test_add_func ("/file/no-stamp", test_no_stamp);
  add_files_test ("/file/o3-discard", test_o3_discard);
  add_files_test ("/file/o3-zeroes-may-unmap", test_o3_zeroes_may_unmap);
  add_files_test ("/file/o3-zeroes-no-unmap", test_o3_zeroes_no_unmap);
  add_files_test ("/file/o3-discard-unsupported", test_o3_discard_unsupported);
  add_files_test ("/file/extents", test_extents);
  return g_test_run ();
}
