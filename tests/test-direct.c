/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Regions past the page cache: regular files, and as root loop devices
 * with blocks of 512 and of 4096 bytes.
 *
 * B1-B5 memory that the device cannot take as it is; E3 and E4 files that
 * are truncated or may not grow; what is refused; how much alignment is
 * found to be needed, also by older kernels.
 *
 * Linked with --wrap for each function __wrap_ below.
 */

#include <config.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <linux/magic.h>

#include "loop-device.h"
#include "ring.h"
#include "test-files.h"

#define BIG (4 * 1024 * 1024)
#define BIG_SECTORS (BIG / SECTOR)

/*----------------------------------------------------------------------
 * What the kernel says of alignment
 */

static struct {
  bool no_statx;                /* it does not know */
  bool set;                     /* or it says: */
  unsigned int offset_align, mem_align;
  size_t least_read;            /* smaller ones are invalid */
} kernel;

extern int __real_statx (int dirfd, const char *path, int flags,
                         unsigned int mask, struct statx *stx);
extern int __wrap_statx (int dirfd, const char *path, int flags,
                         unsigned int mask, struct statx *stx);
int
__wrap_statx (int dirfd, const char *path, int flags, unsigned int mask,
              struct statx *stx)
{
  int r = __real_statx (dirfd, path, flags, mask, stx);

  if (kernel.no_statx)
    stx->stx_mask = 0;
#ifdef STATX_DIOALIGN
  else if (kernel.set) {
    stx->stx_mask = STATX_DIOALIGN;
    stx->stx_dio_offset_align = kernel.offset_align;
    stx->stx_dio_mem_align = kernel.mem_align;
  }
#endif
  return r;
}

#define WRAP_PREAD(NAME)                                                \
  extern ssize_t __real_##NAME (int fd, void *p, size_t n, int64_t at); \
  extern ssize_t __wrap_##NAME (int fd, void *p, size_t n, int64_t at); \
  ssize_t                                                               \
  __wrap_##NAME (int fd, void *p, size_t n, int64_t at)                 \
  {                                                                     \
    if (n < kernel.least_read) {                                        \
      errno = EINVAL;                                                   \
      return -1;                                                        \
    }                                                                   \
    return __real_##NAME (fd, p, n, at);                                \
  }

WRAP_PREAD (pread)
WRAP_PREAD (pread64)

/*----------------------------------------------------------------------
 * Three regions of a kind
 */

struct kind {
  const char *name;
  unsigned int loop;            /* block size of loop devices, or 0 */
};

struct direct {
  const struct kind *kind;
  struct files f;               /* of its directory only */
  char *path[3];                /* of files with BIG bytes */
  struct loop_device loop[3];
  unsigned char *data[3];       /* what should be in them */
  struct io_region where[3];    /* all of each; bdev NULL: not possible */
  unsigned int block;
};

static struct block_device *
open_direct (const char *path)
{
  const struct dm_bdev_options options = { .flags = DM_BDEV_DIRECT };
  struct block_device *bdev;
  char *error = NULL;

  bdev = dm_bdev_open (path, &options, &error);
  if (bdev == NULL && errno == EOPNOTSUPP)
    g_test_skip ("this file system has no direct I/O");
  else if (bdev == NULL)
    g_error ("%s", error);
  free (error);
  return bdev;
}

static void
attach_all (struct direct *d)
{
  unsigned int i;

  for (i = 0; i < 3; i++)
    if (!loop_attach (&d->loop[i], d->path[i], d->kind->loop)) {
      g_test_skip ("no loop device can be had");
      return;
    }
  for (i = 0; i < 3; i++)
    d->where[i].bdev = open_ok (d->loop[i].path, 0);
}

static void
direct_set_up (struct direct *d, gconstpointer kind)
{
  unsigned int i;

  d->kind = kind;
  set_up (&d->f, NULL);
  for (i = 0; i < 3; i++) {
    g_autofree char *name = g_strdup_printf ("big%u", i);

    d->loop[i].fd = -1;
    d->path[i] = path_in (&d->f, name);
    d->data[i] = g_malloc (BIG);
    fill (d->data[i], BIG, i);
    g_assert_true (g_file_set_contents (d->path[i], (char *) d->data[i], BIG,
                                        NULL));
    d->where[i] = (struct io_region) { NULL, 0, BIG_SECTORS };
  }
  if (d->kind->loop != 0)
    attach_all (d);
  else
    for (i = 0; i < 3; i++)
      d->where[i].bdev = open_direct (d->path[i]);
  if (d->where[0].bdev != NULL)
    d->block = dm_bdev_block_size (d->where[0].bdev);
}

static void
direct_tear_down (struct direct *d, gconstpointer kind)
{
  unsigned int i;

  for (i = 0; i < 3; i++) {
    dm_bdev_close (d->where[i].bdev);
    loop_detach (&d->loop[i]);
    g_free (d->path[i]);
    g_free (d->data[i]);
  }
  tear_down (&d->f, NULL);
}

static bool
possible (const struct direct *d)
{
  return d->where[0].bdev != NULL;
}

static void
check_contents (struct direct *d)
{
  unsigned int i;

  for (i = 0; i < 3; i++)
    assert_contents (d->path[i], d->data[i], BIG);
}

/* COUNT sectors somewhere on the Ith of them. */
static struct io_region
somewhere (const struct direct *d, unsigned int i, sector_t count,
           struct rng *rng)
{
  sector_t unit = d->block / SECTOR;
  struct io_region where = d->where[i];

  where.sector = rng_below (rng, (BIG_SECTORS - count) / unit + 1) * unit;
  where.count = count;
  return where;
}

static unsigned char *
expected_at (const struct direct *d, const struct io_region *where)
{
  unsigned int i = 0;

  while (d->where[i].bdev != where->bdev)
    i++;
  return d->data[i] + where->sector * SECTOR;
}

/*----------------------------------------------------------------------
 * Memory
 */

/* Write a buffer to N regions, and read each. */
static void
check_buffer (struct direct *d, unsigned char *buf, unsigned int n,
              sector_t count, struct rng *rng)
{
  size_t length = count * SECTOR;
  struct io_region where[3];
  unsigned char guard[2];
  unsigned int i;

  fill (buf - 1, length + 2, rng_next (rng));
  guard[0] = buf[-1];
  guard[1] = buf[length];
  for (i = 0; i < n; i++) {
    where[i] = somewhere (d, i, count, rng);
    memcpy (expected_at (d, &where[i]), buf, length);
  }
  g_assert_cmpint (dm_io_sync_vm (n, where, WRITE, buf, NULL), ==, 0);
  for (i = 0; i < n; i++) {
    memset (buf, 0xaa, length);
    g_assert_cmpint (dm_io_sync_vm (1, &where[i], READ, buf, NULL), ==, 0);
    assert_same (buf, expected_at (d, &where[i]), length);
  }
  g_assert_cmpint (buf[-1], ==, guard[0]);
  g_assert_cmpint (buf[length], ==, guard[1]);
}

static void
test_b3_odd_addresses (struct direct *d, gconstpointer kind)
{
  static const unsigned int odd[] = {
    1, 2, 4, 15, 16, 255, 511, 512, 513, 1000, 2048, 4095, 4096,
  };
  struct page *pages = new_pages (BIG / PAGE + 3);
  struct rng rng = rng_random ();
  unsigned int i, j, unit = d->block / SECTOR;
  sector_t count;

  for (i = 0; possible (d) && i < G_N_ELEMENTS (odd); i++)
    for (j = 0; j < 6; j++) {
      count = 1 + rng_below (&rng, j < 3 ? 20 : BIG_SECTORS / unit / 2);
      check_buffer (d, (unsigned char *) pages + odd[i], 1 + j % 3,
                    count * unit, &rng);
    }
  if (possible (d)) {
    check_buffer (d, (unsigned char *) pages + 1, 3, BIG_SECTORS, &rng);
    check_buffer (d, (unsigned char *) pages + PAGE, 3, BIG_SECTORS, &rng);
    check_contents (d);
  }
  free (pages);
}

#define LIST_PAGES 40
#define LIST_SECTORS ((LIST_PAGES - 1) * PAGE / SECTOR)

/* Every second page, backwards; the others are guards. */
static void
test_b1_page_lists (struct direct *d, gconstpointer kind)
{
  static const unsigned int offsets[] = { 0, 512, 1024, 2048, 3584 };
  struct page *pages = new_pages (2 * LIST_PAGES);
  struct page *copy = new_pages (2 * LIST_PAGES);
  struct page_list pl[LIST_PAGES];
  struct rng rng = rng_random ();
  struct io_region where[3];
  unsigned char flat[LIST_PAGES * PAGE];
  unsigned int i, j, n;

  for (i = 0; i < LIST_PAGES; i++) {
    pl[i].page = &pages[2 * (LIST_PAGES - 1 - i)];
    pl[i].next = i < LIST_PAGES - 1 ? &pl[i+1] : NULL;
  }
  for (i = 0; possible (d) && i < G_N_ELEMENTS (offsets) * 6; i++) {
    n = 1 + i % 3;
    fill (pages, 2 * LIST_PAGES * PAGE, i);
    memcpy (copy, pages, 2 * LIST_PAGES * PAGE);
    for (j = 0; j < LIST_PAGES; j++)
      memcpy (flat + j * PAGE, pl[j].page, PAGE);
    for (j = 0; j < n; j++) {
      where[j] = somewhere (d, j, LIST_SECTORS, &rng);
      memcpy (expected_at (d, &where[j]), flat + offsets[i / 6],
              LIST_SECTORS * SECTOR);
    }
    g_assert_cmpint (dm_io_sync (n, where, WRITE, pl, offsets[i / 6], NULL),
                     ==, 0);
    for (j = 0; j < LIST_PAGES; j++)
      memset ((unsigned char *) pl[j].page + (j == 0 ? offsets[i / 6] : 0),
              0xaa, PAGE - (j == 0 ? offsets[i / 6] : 0));
    memcpy ((unsigned char *) pl[LIST_PAGES-1].page + offsets[i / 6],
            (unsigned char *) copy + ((unsigned char *)
                                      pl[LIST_PAGES-1].page -
                                      (unsigned char *) pages) +
            offsets[i / 6], PAGE - offsets[i / 6]);
    g_assert_cmpint (dm_io_sync (1, &where[n-1], READ, pl, offsets[i / 6],
                                 NULL), ==, 0);
    assert_same (pages, copy, 2 * LIST_PAGES * PAGE);
  }
  if (possible (d))
    check_contents (d);
  free (pages);
  free (copy);
}

/* Vectors of one to eight sectors each, so smaller than some blocks. */
static void
test_b2_vectors (struct direct *d, gconstpointer kind)
{
  struct page *pages = new_pages (512);
  struct bio_vec bvec[512];
  unsigned char flat[512 * PAGE];
  struct rng rng = rng_random ();
  struct io_region where[3];
  unsigned int i, j, n, most;
  size_t length, at;

  for (i = 0; possible (d) && i < 60; i++) {
    n = 1 + i % 3;
    most = 1 + rng_below (&rng, 8);
    fill (pages, 512 * PAGE, i);
    for (length = 0, j = 0; j < 512; j++) {
      bvec[j].bv_page = &pages[j];
      bvec[j].bv_len = (1 + rng_below (&rng, most)) * SECTOR;
      bvec[j].bv_offset =
        rng_below (&rng, (PAGE - bvec[j].bv_len) / SECTOR + 1) * SECTOR;
      memcpy (flat + length, pages[j].data + bvec[j].bv_offset,
              bvec[j].bv_len);
      length += bvec[j].bv_len;
    }
    length -= length % d->block;
    if (i % 2 == 0)
      length = MIN (length, d->block * (1 + rng_below (&rng, 20)));
    for (j = 0; j < n; j++) {
      where[j] = somewhere (d, j, length / SECTOR, &rng);
      memcpy (expected_at (d, &where[j]), flat, length);
    }
    g_assert_cmpint (dm_io_sync_bvec (n, where, WRITE, bvec, NULL), ==, 0);
    memset (pages, 0xaa, 512 * PAGE);
    g_assert_cmpint (dm_io_sync_bvec (1, &where[n-1], READ, bvec, NULL),
                     ==, 0);
    for (at = 0, j = 0; at < length; at += bvec[j++].bv_len)
      assert_same (pages[j].data + bvec[j].bv_offset, flat + at,
                   MIN (bvec[j].bv_len, length - at));
  }
  if (possible (d))
    check_contents (d);
  free (pages);
}

static void
test_o3_zeroes (struct direct *d, gconstpointer kind)
{
  static const struct { enum dm_io_op op; unsigned int flags; } cases[] = {
    { DM_IO_WRITE_ZEROES, 0 }, { DM_IO_WRITE_ZEROES, DM_IO_NO_UNMAP },
    { DM_IO_WRITE_ZEROES, DM_IO_FUA }, { DM_IO_DISCARD, 0 },
  };
  struct rng rng = rng_random ();
  struct dm_io_request req;
  struct io_region where[3];
  unsigned int i, j;
  bool can = true;

  for (i = 0; possible (d) && i < 3; i++)
    can = bdev_can_punch (d->where[i].bdev) && can;
  for (i = 0; possible (d) && i < G_N_ELEMENTS (cases); i++) {
    for (j = 0; j < 3; j++) {
      where[j] = somewhere (d, j, (1 + rng_below (&rng, 30)) * d->block /
                            SECTOR, &rng);
      if (can || cases[i].op != DM_IO_DISCARD)
        memset (expected_at (d, &where[j]), 0, where[j].count * SECTOR);
    }
    req = (struct dm_io_request) {
      .op = cases[i].op, .flags = cases[i].flags
    };
    g_assert_cmphex (run_request (&req, 3, where, i % 2), ==, 0);
    check_contents (d);
  }
}

/* What is not whole blocks is refused, and nothing touched. */
static void
test_v3_blocks (struct direct *d, gconstpointer kind)
{
  static const struct { sector_t sector, count; } cases[] = {
    { 0, 1 }, { 1, 8 }, { 7, 1 }, { 8, 7 }, { 4, 4 }, { 0, 12 },
  };
  unsigned char buf[12 * SECTOR];
  struct dm_io_result results[3];
  struct dm_io_request req = vm_request (DM_IO_WRITE, buf);
  struct io_region where[3];
  unsigned int i;

  if (!possible (d))
    return;
  g_assert_cmpuint (d->block, ==, d->kind->loop ? d->kind->loop : d->block);
  fill (buf, sizeof buf, 1);
  req.results = results;
  for (i = 0; d->block == PAGE && i < G_N_ELEMENTS (cases); i++) {
    memcpy (where, d->where, sizeof where);
    where[0].count = where[2].count = 8;
    where[1].sector = cases[i].sector;
    where[1].count = cases[i].count;
    g_assert_cmphex (run_request (&req, 3, where, i % 2), ==, 2);
    g_assert_cmpint (results[1].error, ==, EINVAL);
    memcpy (d->data[0], buf, PAGE);
    memcpy (d->data[2], buf, PAGE);
  }
  check_contents (d);
}

/*----------------------------------------------------------------------
 * Files that are truncated, or may not grow
 */

static void
expect_truncated (void)
{
  g_test_expect_message ("dmio", G_LOG_LEVEL_WARNING,
                         "*was truncated while in use*");
}

/* Read all three at once, which dm_io never does. */
static void
ring_read (const struct io_region *where, unsigned char **buf, int *errors)
{
  struct ring_batch batch = { 0 };
  struct ring_transfer rt[3];
  struct bdev_io io[3];
  uint64_t nsec;
  unsigned int i;
  bool ring;

  for (i = 0; i < 3; i++) {
    io[i] = (struct bdev_io) {
      .bdev = where[i].bdev, .op = DM_IO_READ, .length = BIG,
      .data = { .type = DM_IO_VM, .at.vm = buf[i] },
    };
    ring_add (&batch, &rt[i], &io[i]);
  }
  ring = ring_begin (&batch, true);
  if (ring)
    ring_end (&batch);
  for (i = 0; i < 3; i++)
    errors[i] = ring ? rt[i].error : bdev_run (&io[i], &nsec);
}

/* Sizes inside a block, at the end of one, and nothing at all. */
static const off_t sizes[] = {
  0, 1, 1000, PAGE, PAGE + 1000, BIG / 2, BIG / 2 + 1, BIG - PAGE, BIG - 1,
};

static void
check_truncated_read (struct direct *d, off_t size, bool by_ring)
{
  struct page *pages = new_pages (3 * BIG / PAGE);
  unsigned char *buf[3];
  int errors[3] = { 0, EIO, 0 };
  unsigned int i;

  g_assert_cmpint (truncate (d->path[1], size), ==, 0);
  fill (pages, 3 * BIG, 1);
  for (i = 0; i < 3; i++)
    buf[i] = (unsigned char *) pages + i * BIG;
  expect_truncated ();
  if (by_ring)
    ring_read (d->where, buf, errors);
  else
    for (i = 0; i < 3; i++)
      g_assert_cmpint (dm_io_sync_vm (1, &d->where[i], READ, buf[i], NULL),
                       ==, i == 1 ? -EIO : 0);
  g_test_assert_expected_messages ();
  g_assert_cmpint (errors[0], ==, 0);
  g_assert_cmpint (errors[1], ==, EIO);
  g_assert_cmpint (errors[2], ==, 0);
  assert_same (buf[0], d->data[0], BIG);
  assert_same (buf[2], d->data[2], BIG);
  assert_zero (buf[1] + size, BIG - size);
  free (pages);
}

/* Nothing is written to it any more, nor read, also when it has grown
 * again.
 */
static void
check_stays_failed (struct direct *d, off_t size)
{
  unsigned char buf[PAGE];
  struct io_region where[3];
  unsigned long bits;
  unsigned int i;

  g_assert_cmpint (truncate (d->path[1], BIG), ==, 0);
  fill (buf, sizeof buf, size);
  for (i = 0; i < 3; i++) {
    where[i] = d->where[i];
    where[i].count = PAGE / SECTOR;
  }
  g_assert_cmpint (dm_io_sync_vm (3, where, WRITE, buf, &bits), ==, -EIO);
  g_assert_cmphex (bits, ==, 2);
  g_assert_cmpint (dm_io_sync_vm (1, &where[1], READ, buf, &bits), ==, -EIO);
  assert_zero (buf, sizeof buf);
  fill (buf, sizeof buf, size);
  memcpy (d->data[0], buf, PAGE);
  memcpy (d->data[2], buf, PAGE);
  memset (d->data[1] + size, 0, BIG - size);
  check_contents (d);
}

static void
reopen (struct direct *d)
{
  dm_bdev_close (d->where[1].bdev);
  fill (d->data[1], BIG, 7);
  g_assert_true (g_file_set_contents (d->path[1], (char *) d->data[1], BIG,
                                      NULL));
  d->where[1].bdev = open_direct (d->path[1]);
}

static void
test_e3_truncated_read (struct direct *d, gconstpointer kind)
{
  unsigned int i;

  for (i = 0; possible (d) && i < 2 * G_N_ELEMENTS (sizes); i++) {
    check_truncated_read (d, sizes[i / 2], i % 2);
    check_stays_failed (d, sizes[i / 2]);
    reopen (d);
  }
}

static void
test_e4_truncated_write (struct direct *d, gconstpointer kind)
{
  unsigned char *buf = g_malloc (BIG);
  unsigned int i;
  unsigned long bits;
  struct stat st;

  for (i = 0; possible (d) && i < 2 * G_N_ELEMENTS (sizes); i++) {
    g_assert_cmpint (truncate (d->path[1], sizes[i / 2]), ==, 0);
    fill (buf, BIG, i);
    memcpy (d->data[0], buf, BIG);
    memcpy (d->data[2], buf, BIG);
    expect_truncated ();
    if (i % 2)
      g_assert_cmpint (dm_io_sync_vm (3, d->where, WRITE, buf, &bits),
                       ==, -EIO);
    else {
      g_assert_cmpint (dm_io_sync_vm (1, &d->where[1], WRITE, buf, NULL),
                       ==, -EIO);
      g_assert_cmpint (dm_io_sync_vm (3, d->where, WRITE, buf, &bits),
                       ==, -EIO);
    }
    g_test_assert_expected_messages ();
    g_assert_cmphex (bits, ==, 2);
    st = stat_of (d->path[1]);
    g_assert_cmpint (st.st_size, ==, sizes[i / 2]);
    check_stays_failed (d, sizes[i / 2]);
    reopen (d);
  }
  g_free (buf);
}

/* All of what may be written is. */
static void
test_e4_file_size_limit (struct direct *d, gconstpointer kind)
{
  struct dm_io_result results[3];
  struct dm_io_request req;
  struct rlimit old, limit;
  unsigned char *buf;
  unsigned int i;

  if (!possible (d))
    return;
  buf = g_malloc (BIG);
  fill (buf, BIG, 1);
  req = vm_request (DM_IO_WRITE, buf);
  req.results = results;
  d->where[0].count = d->where[2].count = BIG_SECTORS / 2;
  signal (SIGXFSZ, SIG_IGN);
  g_assert_cmpint (getrlimit (RLIMIT_FSIZE, &old), ==, 0);
  limit = old;
  limit.rlim_cur = BIG / 2;
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &limit), ==, 0);
  g_assert_cmphex (run_request (&req, 3, d->where, false), ==, 2);
  g_assert_cmpint (results[1].error, ==, EFBIG);
  g_assert_cmphex (run_request (&req, 1, &d->where[1], false), ==, 1);
  g_assert_cmpint (results[0].error, ==, EFBIG);
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &old), ==, 0);
  for (i = 0; i < 3; i++)
    memcpy (d->data[i], buf, BIG / 2);
  check_contents (d);
  g_free (buf);
}

/* The last, partial block is not used. */
static void
test_v3_odd_size (struct direct *d, gconstpointer kind)
{
  unsigned char buf[2 * PAGE];
  struct io_region where;

  if (!possible (d))
    return;
  dm_bdev_close (d->where[1].bdev);
  g_assert_cmpint (truncate (d->path[1], PAGE + d->block + 100), ==, 0);
  d->where[1].bdev = open_direct (d->path[1]);
  where = d->where[1];
  g_assert_cmpuint (dm_bdev_sectors (where.bdev), ==,
                    (PAGE + d->block) / SECTOR);
  where.count = dm_bdev_sectors (where.bdev);
  g_assert_cmpint (dm_io_sync_vm (1, &where, READ, buf + 1, NULL), ==, 0);
  assert_same (buf + 1, d->data[1], PAGE + d->block);
  g_assert_cmpint (dm_io_sync_vm (1, &where, WRITE, buf + 1, NULL), ==, 0);
  assert_contents (d->path[1], d->data[1], PAGE + d->block + 100);
}

/*----------------------------------------------------------------------
 * Opening
 */

static bool
is_direct (struct block_device *bdev)
{
  const struct bdev_io write = { .bdev = bdev, .op = DM_IO_WRITE };
  const struct bdev_io fua = {
    .bdev = bdev, .op = DM_IO_WRITE, .flags = DM_IO_FUA
  };
  bool direct = bdev_way (&write) == BDEV_RING;

  g_assert_cmpint (bdev_way (&fua), ==, BDEV_WAIT);
  g_assert_cmpint (bdev->always_waits, ==, direct);
  return direct;
}

static void
reopened (struct block_device **bdev, const char *path, unsigned int flags,
          bool direct)
{
  dm_bdev_close (*bdev);
  *bdev = open_ok (path, flags);
  g_assert_cmpint (is_direct (*bdev), ==, direct);
  if (!direct)
    g_assert_cmpuint (dm_bdev_block_size (*bdev), ==, SECTOR);
}

static void
test_default (struct direct *d, gconstpointer kind)
{
  const char *path = d->kind->loop ? d->loop[0].path : d->path[0];
  struct block_device **bdev = &d->where[0].bdev;

  if (!possible (d))
    return;
  reopened (bdev, path, 0, d->kind->loop != 0);
  reopened (bdev, path, DM_BDEV_DIRECT, true);
  reopened (bdev, path, DM_BDEV_DIRECT | DM_BDEV_READ_ONLY, true);
  g_assert_true (dm_bdev_read_only (*bdev));
  reopened (bdev, path, DM_BDEV_BUFFERED, false);
  reopened (bdev, path, DM_BDEV_READ_ONLY, d->kind->loop != 0);
}

/* Nothing keeps a device from being opened again, or mounted, when it has
 * been closed, also if something else, like the kernel at times, still
 * refers to the open file of its I/O.
 */
static void
test_reopened (struct direct *d, gconstpointer kind)
{
  const char *path = d->kind->loop ? d->loop[0].path : d->path[0];
  int copies[3], n = 0, fd, flags;

  if (!possible (d))
    return;
  for (fd = 3; n < 3; fd++) {
    g_assert_cmpint (fd, <, 1000);
    flags = fcntl (fd, F_GETFL);
    if (flags == -1 || !(flags & O_DIRECT))
      continue;
    g_assert_cmpint (flags & O_NONBLOCK, ==, 0);
    copies[n++] = dup (fd);
  }
  dm_bdev_close (d->where[0].bdev);
  d->where[0].bdev = open_ok (path, DM_BDEV_DIRECT);
  while (n > 0)
    close (copies[--n]);
}

static void
expect_alignment (struct direct *d, unsigned int block, size_t mem_align)
{
  const char *path = d->kind->loop ? d->loop[0].path : d->path[0];

  dm_bdev_close (d->where[0].bdev);
  d->where[0].bdev = open_direct (path);
  g_assert_cmpuint (dm_bdev_block_size (d->where[0].bdev), ==, block);
  g_assert_cmpuint (d->where[0].bdev->mem_align, ==, mem_align);
}

/* What the kernel says rules; where it says nothing, what can be found
 * out.
 */
static void
test_alignment (struct direct *d, gconstpointer kind)
{
  struct rng rng = rng_random ();
  struct page *pages = new_pages (4);

  if (!possible (d)) {
    free (pages);
    return;
  }
  kernel.no_statx = true;
  expect_alignment (d, d->block, d->block);
  check_buffer (d, pages->data + 1, 3, 16, &rng);
  if (d->kind->loop == 0) {
    kernel.least_read = 4096;
    expect_alignment (d, 4096, 4096);
    kernel.least_read = SIZE_MAX;
    dm_bdev_close (d->where[0].bdev);
    d->where[0].bdev = NULL;
    open_refused (d->path[0], DM_BDEV_DIRECT, EOPNOTSUPP, "direct=off");
    kernel.least_read = 0;
  }
  kernel.no_statx = false;
#ifdef STATX_DIOALIGN
  kernel.set = true;
  kernel.offset_align = 4096;
  kernel.mem_align = 1;
  expect_alignment (d, 4096, 2);
  kernel.offset_align = 256;
  kernel.mem_align = 4;
  expect_alignment (d, SECTOR, 4);
  kernel.mem_align = 512;
  expect_alignment (d, SECTOR, 512);
#endif
  kernel.set = false;
  free (pages);
}

/* Alignments that are not possible here. */
static void
test_no_alignment (struct direct *d, gconstpointer kind)
{
#ifdef STATX_DIOALIGN
  static const struct { unsigned int offset, mem; } cases[] = {
    { 0, 0 }, { 0, 512 }, { 512, 0 }, { 8192, 4 }, { 512, 8192 }, { 1000, 4 },
  };
  const char *path = d->kind->loop ? d->loop[0].path : d->path[0];
  unsigned int i;

  if (!possible (d))
    return;
  dm_bdev_close (d->where[0].bdev);
  d->where[0].bdev = NULL;
  kernel.set = true;
  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    kernel.offset_align = cases[i].offset;
    kernel.mem_align = cases[i].mem;
    open_refused (path, DM_BDEV_DIRECT, EOPNOTSUPP, "direct=off");
  }
  kernel.set = false;
  dm_bdev_close (open_ok (path, DM_BDEV_DIRECT));
#endif
}

static void
test_refused (void)
{
  open_refused ("/dev/full", DM_BDEV_DIRECT, EOPNOTSUPP, "direct=off");
  open_refused ("/proc/self/status", DM_BDEV_DIRECT | DM_BDEV_READ_ONLY,
                EOPNOTSUPP, "direct=off");
  open_refused ("/dev/full", DM_BDEV_DIRECT | DM_BDEV_BUFFERED, EINVAL,
                "exclude");
  dm_bdev_close (open_ok ("/dev/full", 0));
  dm_bdev_close (open_ok ("/dev/full", DM_BDEV_BUFFERED));
}

/*----------------------------------------------------------------------
 * Extents
 */

/* However many are asked for at once, they are the same. */
static void
test_extents (struct direct *d, gconstpointer kind)
{
  static const int max[] = { 2, 3, 7, 100 };
  struct bdev_extent one[100], many[100];
  uint64_t offset, at;
  unsigned int i, j, n = 0;
  int fd, got, k;

  if (!possible (d))
    return;
  fd = open (d->path[0], O_RDWR);
  g_assert_cmpint (ftruncate (fd, 0), ==, 0);
  g_assert_cmpint (ftruncate (fd, BIG), ==, 0);
  for (i = 1; i < 20; i += 2)
    g_assert_cmpint (pwrite (fd, d->data[0], 65536, i * 65536), ==, 65536);
  close (fd);

  for (offset = 0; offset < BIG; offset += one[n++].length) {
    g_assert_cmpuint (n, <, G_N_ELEMENTS (one));
    g_assert_cmpint (bdev_extents (d->where[0].bdev, offset, BIG - offset,
                                   &one[n], 1), ==, 1);
    g_assert_cmpint (one[n].hole, ==, one[n].zero);
  }
  g_assert_cmpuint (offset, ==, BIG);
  for (i = 0; i < G_N_ELEMENTS (max); i++)
    for (at = 0, j = 0; j < n; j += got) {
      got = bdev_extents (d->where[0].bdev, at, BIG - at, many, max[i]);
      g_assert_cmpint (got, ==, MIN (max[i], (int) (n - j)));
      for (k = 0; k < got; at += many[k++].length) {
        g_assert_cmpuint (many[k].length, ==, one[j+k].length);
        g_assert_cmpint (many[k].hole, ==, one[j+k].hole);
        g_assert_cmpint (many[k].zero, ==, one[j+k].zero);
      }
    }
  g_assert_cmpint (bdev_extents (d->where[0].bdev, 0, SECTOR, many, 9),
                   ==, 1);
  g_assert_cmpuint (many[0].length, ==, SECTOR);
}

/*---------------------------------------------------------------------*/

static const struct kind kinds[] = {
  { "file", 0 }, { "loop-512", 512 }, { "loop-4096", 4096 },
};

static void
add (const char *name, const struct kind *kind,
     void (*test) (struct direct *d, gconstpointer kind))
{
  g_autofree char *path = g_strdup_printf ("/direct/%s/%s", kind->name, name);

  g_test_add (path, struct direct, kind, direct_set_up, test,
              direct_tear_down);
}

/* In memory, files take anything. */
static void
avoid_tmpfs (void)
{
  const char *dir = getenv ("TMPDIR");
  g_autofree char *here = g_get_current_dir ();
  struct statfs fs;

  if (statfs (dir != NULL ? dir : "/tmp", &fs) == 0 &&
      fs.f_type == TMPFS_MAGIC)
    g_setenv ("TMPDIR", here, true);
}

int
main (int argc, char *argv[])
{
  unsigned int i;

  avoid_tmpfs ();
  test_init (&argc, &argv);
  for (i = 0; i < G_N_ELEMENTS (kinds); i++) {
    add ("b1-page-lists", &kinds[i], test_b1_page_lists);
    add ("b2-vectors", &kinds[i], test_b2_vectors);
    add ("b3-odd-addresses", &kinds[i], test_b3_odd_addresses);
    add ("o3-zeroes", &kinds[i], test_o3_zeroes);
    add ("v3-blocks", &kinds[i], test_v3_blocks);
    add ("default", &kinds[i], test_default);
    add ("reopened", &kinds[i], test_reopened);
    add ("alignment", &kinds[i], test_alignment);
    add ("no-alignment", &kinds[i], test_no_alignment);
  }
  add ("e3-truncated-read", &kinds[0], test_e3_truncated_read);
  add ("e4-truncated-write", &kinds[0], test_e4_truncated_write);
  add ("e4-file-size-limit", &kinds[0], test_e4_file_size_limit);
  add ("v3-odd-size", &kinds[0], test_v3_odd_size);
  add ("extents", &kinds[0], test_extents);
  g_test_add_func ("/direct/refused", test_refused);
  return g_test_run ();
}
