/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Failures, and what becomes of the rest of the request.
 *
 * E1 the error bits of every number of regions, E2 one part of many
 * fails, E3 failed reads, E4 short transfers, EINTR, EAGAIN, errnos that
 * are kept, and the results of each region.
 */

#include <config.h>

#include "test-util.h"

static const struct mock_options plain;

static unsigned char data[8 * SECTOR];

/*----------------------------------------------------------------------
 * E1
 */

/* Write to N regions of which those in MASK fail. */
static void
check_mask (struct io_region *where, unsigned int n, unsigned long mask,
            bool async)
{
  const struct mock_fault eio = { .ops = MOCK_WRITE, .error = EIO };
  struct dm_io_request req = vm_request (DM_IO_WRITE, data);
  const unsigned char *old = data + SECTOR;
  unsigned int i;

  fill (data, 2 * SECTOR, n ^ mask);
  for (i = 0; i < n; i++) {
    mock_set (where[i].bdev, 0, old, SECTOR);
    if (mask >> i & 1)
      mock_fault (where[i].bdev, &eio);
  }
  g_assert_cmphex (run_request (&req, n, where, async), ==, mask);

  for (i = 0; i < n; i++) {
    assert_same (mock_data (where[i].bdev), mask >> i & 1 ? old : data,
                 SECTOR);
    mock_clear_faults (where[i].bdev);
  }
}

static void
check_masks (struct io_region *where, unsigned int n, bool async)
{
  unsigned int i;

  for (i = 0; i < n; i++)
    check_mask (where, n, 1UL << i, async);
  check_mask (where, n, ~0UL >> (DM_IO_MAX_REGIONS - n), async);
}

static void
test_e1_masks (void)
{
  struct io_region where[DM_IO_MAX_REGIONS];
  unsigned int n;

  open_mocks (where, DM_IO_MAX_REGIONS, 1, &plain);
  for (n = 1; n <= DM_IO_MAX_REGIONS; n++)
    check_masks (where, n, false);
  close_mocks (where, DM_IO_MAX_REGIONS);
}

/* The same where each region is written by a thread of its own, or only
 * every third.
 */
static void
test_e1_masks_in_parallel (void)
{
  static const unsigned int counts[] = { 1, 31, 32, 33, 63, 64 };
  const struct mock_options waits = { .always_waits = true };
  struct io_region where[DM_IO_MAX_REGIONS];
  unsigned int i, third;

  for (third = 0; third < 2; third++) {
    for (i = 0; i < DM_IO_MAX_REGIONS; i++)
      open_mocks (&where[i], 1, 1, third && i % 3 ? &plain : &waits);
    for (i = 0; i < G_N_ELEMENTS (counts); i++) {
      check_masks (where, counts[i], false);
      check_masks (where, counts[i], true);
    }
    close_mocks (where, DM_IO_MAX_REGIONS);
  }
}

/*----------------------------------------------------------------------
 * E2
 */

static void
test_e2_no_mask (void)
{
  const struct mock_fault once = { .ops = MOCK_ANY, .times = 1, .error = EIO };
  struct io_region where[2];

  open_mocks (where, 2, 8, &plain);
  mock_fault (where[1].bdev, &once);
  g_assert_cmpint (dm_io_sync_vm (2, where, WRITE, data, NULL), ==, -EIO);
  g_assert_cmpint (dm_io_sync_vm (2, where, WRITE, data, NULL), ==, 0);
  mock_clear_faults (where[0].bdev);
  mock_fault (where[0].bdev, &once);
  g_assert_cmpint (dm_io_sync_vm (1, where, READ, data, NULL), ==, -EIO);
  g_assert_cmpint (dm_io_sync_vm (1, where, READ, data, NULL), ==, 0);
  close_mocks (where, 2);
}

/* A request too long for one system call, by its bytes and by its
 * vectors, which cannot be joined: when one sector fails so may the rest
 * of its part, of at most 1 MiB, but nothing before and after.
 */
#define MANY 6000
#define BAD 1500
#define PART (1024 * 1024 / SECTOR)

struct many {
  struct page *pages;
  struct bio_vec bvec[MANY];
  unsigned char expected[MANY * SECTOR];
};

static struct many *
new_many (uint64_t seed)
{
  struct many *m = g_new (struct many, 1);
  unsigned int i;

  m->pages = new_pages (MANY / 2 + 1);
  fill (m->pages, (MANY / 2 + 1) * sizeof (struct page), seed);
  for (i = 0; i < MANY; i++) {
    m->bvec[i].bv_page = &m->pages[i / 2];
    m->bvec[i].bv_len = SECTOR;
    m->bvec[i].bv_offset = i % 2 ? 0 : 1024;
    memcpy (m->expected + i * SECTOR,
            m->pages[i / 2].data + m->bvec[i].bv_offset, SECTOR);
  }
  return m;
}

static void
free_many (struct many *m)
{
  free (m->pages);
  g_free (m);
}

static const struct mock_fault bad_sector = {
  .ops = MOCK_READ | MOCK_WRITE,
  .offset = BAD * SECTOR, .length = SECTOR, .error = EIO,
};

/* Sector BAD of region 1 cannot be written. */
static void
check_part_of_write (struct dm_io_memory mem, const unsigned char *expected)
{
  const uint64_t after = (BAD + PART) * SECTOR;
  const struct dm_io_request req = { .op = DM_IO_WRITE, .mem = mem };
  struct io_region where[3];

  open_mocks (where, 3, MANY, &plain);
  mock_fault (where[1].bdev, &bad_sector);
  g_assert_cmphex (run_request (&req, 3, where, false), ==, 1 << 1);
  assert_same (mock_data (where[0].bdev), expected, MANY * SECTOR);
  assert_same (mock_data (where[2].bdev), expected, MANY * SECTOR);
  assert_same (mock_data (where[1].bdev), expected, BAD * SECTOR);
  assert_zero (mock_data (where[1].bdev) + BAD * SECTOR, SECTOR);
  assert_same (mock_data (where[1].bdev) + after, expected + after,
               MANY * SECTOR - after);
  close_mocks (where, 3);
}

static void
test_e2_one_part_of_a_write (void)
{
  struct many *m = new_many (6);
  struct dm_io_memory mem = { .type = DM_IO_BVEC, .length = MANY * SECTOR };

  mem.ptr.bvec = m->bvec;
  check_part_of_write (mem, m->expected);
  mem.type = DM_IO_VM;
  mem.ptr.vm = m->expected;
  check_part_of_write (mem, m->expected);
  free_many (m);
}

static void
test_e2_one_part_of_a_read (void)
{
  struct many *m = new_many (7);
  unsigned char *on_disk = g_malloc (MANY * SECTOR);
  struct io_region where[1];
  unsigned long bits = 0;
  const unsigned char *got, *expected;
  unsigned int i;

  fill (on_disk, MANY * SECTOR, 8);
  open_mocks (where, 1, MANY, &plain);
  mock_set (where[0].bdev, 0, on_disk, MANY * SECTOR);
  mock_fault (where[0].bdev, &bad_sector);
  g_assert_cmpint (dm_io_sync_bvec (1, where, READ, m->bvec, &bits),
                   ==, -EIO);
  g_assert_cmphex (bits, ==, 1);
  for (i = 0; i < MANY; i++) {
    got = m->bvec[i].bv_page->data + m->bvec[i].bv_offset;
    expected = on_disk + i * SECTOR;
    if (i < BAD || i >= BAD + PART)
      assert_same (got, expected, SECTOR);
    else if (i == BAD || memcmp (got, expected, SECTOR) != 0)
      assert_zero (got, SECTOR);
  }
  close_mocks (where, 1);
  free_many (m);
  g_free (on_disk);
}

/*----------------------------------------------------------------------
 * E3
 */

/* Sector BAD of eight cannot be read.  Whatever the memory and the
 * alignment, what comes before it is there, the rest is not stale, and
 * nothing else is touched.
 */
static void
check_failed_read (enum dm_io_mem_type type, bool async, size_t mem_align,
                   unsigned int bad)
{
  const struct mock_options options = { .mem_align = mem_align };
  const struct mock_fault fault = {
    .ops = MOCK_READ, .offset = bad * SECTOR, .length = SECTOR, .error = EIO,
  };
  struct page *pages = new_pages (3);
  struct page_list pl = { .page = &pages[1] };
  struct bio_vec bvec = { .bv_page = &pages[1], .bv_len = PAGE };
  struct dm_io_request req = vm_request (DM_IO_READ, &pages[1]);
  struct io_region where[1];
  const unsigned char *got = pages[1].data;
  unsigned int i;

  req.mem.type = type;
  if (type == DM_IO_PAGE_LIST)
    req.mem.ptr.pl = &pl;
  else if (type == DM_IO_BVEC)
    req.mem.ptr.bvec = &bvec;
  open_mocks (where, 1, 8, &options);
  fill (data, sizeof data, 9);
  mock_set (where[0].bdev, 0, data, sizeof data);
  mock_fault (where[0].bdev, &fault);
  memset (pages, 0xaa, 3 * sizeof *pages);
  g_assert_cmphex (run_request (&req, 1, where, async), ==, 1);
  for (i = 0; i < 8; i++, got += SECTOR) {
    if (i < bad)
      assert_same (got, data + i * SECTOR, SECTOR);
    else if (i == bad || memcmp (got, data + i * SECTOR, SECTOR) != 0)
      assert_zero (got, SECTOR);
  }
  for (i = 0; i < PAGE; i++)
    g_assert_true (pages[0].data[i] == 0xaa && pages[2].data[i] == 0xaa);
  close_mocks (where, 1);
  free (pages);
}

static void
test_e3_failed_read (void)
{
  static const size_t aligns[] = { 1, 512, 4096 };
  static const unsigned int bad[] = { 0, 3, 7 };
  unsigned int i, j;
  int type;

  for (type = DM_IO_PAGE_LIST; type <= DM_IO_VM; type++)
    for (i = 0; i < G_N_ELEMENTS (aligns); i++)
      for (j = 0; j < G_N_ELEMENTS (bad); j++) {
        check_failed_read (type, false, aligns[i], bad[j]);
        check_failed_read (type, true, aligns[i], bad[j]);
      }
}

/*----------------------------------------------------------------------
 * E4
 */

static const struct mock_fault resumed[] = {
  { .ops = MOCK_ANY, .shorten = true, .transfer = 1, .times = 3 },
  { .ops = MOCK_ANY, .shorten = true, .transfer = 7 },
  { .ops = MOCK_ANY, .shorten = true, .transfer = 511 },
  { .ops = MOCK_ANY, .shorten = true, .transfer = 512 },
  { .ops = MOCK_ANY, .shorten = true, .transfer = 4095, .times = 1 },
  { .ops = MOCK_ANY, .error = EINTR, .times = 5 },
  { .ops = MOCK_ANY, .error = EAGAIN, .times = 5 },
  { .ops = MOCK_ANY, .error = EINTR, .times = 1000 },
  { .ops = MOCK_ANY, .offset = 3 * SECTOR, .length = SECTOR,
    .error = EINTR, .times = 3 },
};

static void
check_resumed (const struct mock_fault *fault)
{
  unsigned char buf[sizeof data];
  struct io_region where[2];
  unsigned long bits = ~0UL;

  fill (data, sizeof data, 10);
  open_mocks (where, 2, 8, &plain);
  mock_fault (where[1].bdev, fault);
  g_assert_cmpint (dm_io_sync_vm (2, where, WRITE, data, &bits), ==, 0);
  g_assert_cmphex (bits, ==, 0);
  assert_same (mock_data (where[0].bdev), data, sizeof data);
  assert_same (mock_data (where[1].bdev), data, sizeof data);

  mock_clear_faults (where[1].bdev);
  mock_fault (where[1].bdev, fault);
  bits = ~0UL;
  memset (buf, 0, sizeof buf);
  g_assert_cmpint (dm_io_sync_vm (1, &where[1], READ, buf, &bits), ==, 0);
  g_assert_cmphex (bits, ==, 0);
  assert_same (buf, data, sizeof buf);
  close_mocks (where, 2);
}

static void
test_e4_resumed (void)
{
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (resumed); i++)
    check_resumed (&resumed[i]);
}

/* The other operations are interrupted too. */
static void
test_e4_other_operations_resumed (void)
{
  static const enum dm_io_op ops[] = {
    DM_IO_FLUSH, DM_IO_DISCARD, DM_IO_WRITE_ZEROES,
  };
  static const int errors[] = { EINTR, EAGAIN };
  const struct mock_options options = { .can_punch = true, .can_zero = true };
  struct mock_fault fault = { .ops = MOCK_ANY, .times = 3 };
  struct io_region where[1];
  struct dm_io_request req;
  unsigned int i, j, no_unmap;

  open_mocks (where, 1, 8, &options);
  for (i = 0; i < G_N_ELEMENTS (ops); i++)
    for (j = 0; j < G_N_ELEMENTS (errors); j++)
      for (no_unmap = 0; no_unmap < 2; no_unmap++) {
        mock_clear_faults (where[0].bdev);
        mock_clear_trace (where[0].bdev);
        fault.error = errors[j];
        mock_fault (where[0].bdev, &fault);
        req = vm_request (ops[i], NULL);
        if (ops[i] == DM_IO_WRITE_ZEROES && no_unmap)
          req.flags = DM_IO_NO_UNMAP;
        g_assert_cmpint (dm_io (&req, 1, where, NULL), ==, 0);
        g_assert_cmpuint (mock_count (where[0].bdev, MOCK_ANY), ==, 4);
      }
  close_mocks (where, 1);
}

/* Reading, and also writing, makes no progress: that is an error, and
 * not tried for ever.
 */
static void
test_e4_end_of_file (void)
{
  const struct mock_fault eof = {
    .ops = MOCK_ANY, .after = 1, .shorten = true
  };
  const struct mock_fault first_short = {
    .ops = MOCK_ANY, .shorten = true, .transfer = 1000, .times = 1
  };
  struct dm_io_result result;
  struct dm_io_request req = vm_request (DM_IO_READ, data);
  unsigned char on_disk[sizeof data];
  struct io_region where[1];
  int op;

  open_mocks (where, 1, 8, &plain);
  fill (on_disk, sizeof on_disk, 11);
  for (op = DM_IO_READ; op <= DM_IO_WRITE; op++) {
    mock_set (where[0].bdev, 0, on_disk, sizeof on_disk);
    memset (data, 0xaa, sizeof data);
    mock_clear_faults (where[0].bdev);
    mock_fault (where[0].bdev, &eof);
    mock_fault (where[0].bdev, &first_short);
    req.op = op;
    req.results = &result;
    g_assert_cmpint (dm_io (&req, 1, where, NULL), ==, -EIO);
    g_assert_cmpint (result.error, ==, EIO);
    if (op == DM_IO_READ) {
      assert_same (data, on_disk, 1000);
      assert_zero (data + 1000, sizeof data - 1000);
    }
  }
  close_mocks (where, 1);
}

/* Each region's errno is kept, whatever it is. */
static void
test_e4_errnos (void)
{
  static const int errors[] = {
    0, EIO, ENOSPC, EBADF, EDQUOT, EFBIG, EPERM, ENOMEM, ETIMEDOUT,
    ENOTCONN, EINVAL, EOPNOTSUPP,
  };
  const unsigned int n = G_N_ELEMENTS (errors);
  struct dm_io_result results[G_N_ELEMENTS (errors)];
  struct io_region where[G_N_ELEMENTS (errors)];
  struct dm_io_request req = vm_request (DM_IO_WRITE, data);
  struct mock_fault fault = { .ops = MOCK_ANY };
  unsigned int i, async;

  open_mocks (where, n, 8, &plain);
  for (i = 0; i < n; i++) {
    fault.error = errors[i];
    mock_fault (where[i].bdev, &fault);
  }
  for (async = 0; async < 2; async++) {
    memset (results, 0xff, sizeof results);
    req.results = results;
    g_assert_cmphex (run_request (&req, n, where, async), ==,
                     (1UL << n) - 2);
    for (i = 0; i < n; i++)
      g_assert_cmpint (results[i].error, ==, errors[i]);
  }
  for (i = 0; i < n; i++) {
    memset (data, 0xaa, sizeof data);
    req = vm_request (DM_IO_READ, data);
    req.results = results;
    g_assert_cmphex (run_request (&req, 1, &where[i], false), ==,
                     errors[i] != 0);
    g_assert_cmpint (results[0].error, ==, errors[i]);
    if (errors[i] != 0)
      assert_zero (data, sizeof data);
  }
  close_mocks (where, n);
}

/* A region's time is that of its own I/O, and the slow one does not
 * make the others look slow.
 */
static void
test_e4_times (void)
{
  const struct mock_options waits = { .always_waits = true };
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault slow = { .ops = MOCK_ANY, .msec = 50 };
  const struct mock_fault held = { .ops = MOCK_ANY, .gate = &gate };
  struct dm_io_result results[4];
  struct io_region where[4];
  struct dm_io_request req = vm_request (DM_IO_WRITE, data);
  struct done done;
  int64_t start = g_get_monotonic_time (), took;

  open_mocks (where, 4, 8, &waits);
  mock_fault (where[0].bdev, &slow);
  mock_fault (where[1].bdev, &held);
  where[2].count = 0;
  where[3].count = 9;
  memset (results, 0xff, sizeof results);
  done_init (&done);
  req.results = results;
  req.fn = done_callback;
  req.context = &done;
  g_assert_cmpint (dm_io (&req, 4, where, NULL), ==, 0);
  mock_gate_await (&gate, 1);
  g_usleep (20000);
  mock_gate_open (&gate);
  g_assert_cmphex (done_wait (&done), ==, 1 << 3);
  took = g_get_monotonic_time () - start;
  g_assert_cmpuint (results[0].nsec, >=, 50000000);
  g_assert_cmpuint (results[0].nsec, <=, took * 1000);
  g_assert_cmpuint (results[1].nsec, >=, 20000000);
  g_assert_cmpuint (results[1].nsec, <=, took * 1000);
  g_assert_cmpint (results[2].error, ==, 0);
  g_assert_cmpuint (results[2].nsec, ==, 0);
  g_assert_cmpint (results[3].error, !=, 0);
  g_assert_cmpuint (results[3].nsec, ==, 0);
  close_mocks (where, 4);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  g_test_add_func ("/errors/e1-masks", test_e1_masks);
  g_test_add_func ("/errors/e1-masks-in-parallel",
                   test_e1_masks_in_parallel);
  g_test_add_func ("/errors/e2-no-mask", test_e2_no_mask);
  g_test_add_func ("/errors/e2-one-part-of-a-write",
                   test_e2_one_part_of_a_write);
  g_test_add_func ("/errors/e2-one-part-of-a-read",
                   test_e2_one_part_of_a_read);
  g_test_add_func ("/errors/e3-failed-read", test_e3_failed_read);
  g_test_add_func ("/errors/e4-resumed", test_e4_resumed);
  g_test_add_func ("/errors/e4-other-operations-resumed",
                   test_e4_other_operations_resumed);
  g_test_add_func ("/errors/e4-end-of-file", test_e4_end_of_file);
  g_test_add_func ("/errors/e4-errnos", test_e4_errnos);
  g_test_add_func ("/errors/e4-times", test_e4_times);
  return g_test_run ();
}
