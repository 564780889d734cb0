/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What is accepted as a request, and what is refused before any I/O.
 *
 * V1 wrong arguments, V2 regions of count 0, V3 misaligned or short
 * memory, ranges that wrap or leave the device, read-only devices.
 */

#include <config.h>

#include "test-util.h"

static const struct mock_options plain;

static unsigned char data[8 * SECTOR];

/* An asynchronous request that is refused must never call back: the
 * tests look at this after their mocks were closed, and with that all
 * threads of the library have ended.
 */
static struct done refused;

/* -EINVAL of all forms of the request, before any I/O. */
static void
assert_refused (const struct dm_io_request *request, unsigned int n,
                const struct io_region *where)
{
  unsigned int i;

  assert_einval (request, n, where, &refused);
  for (i = 0; i < n; i++)
    g_assert_cmpuint (mock_count (where[i].bdev, MOCK_ANY), ==, 0);
}

static void
assert_no_callback (void)
{
  g_assert_cmpuint (done_calls (&refused), ==, 0);
}

/*----------------------------------------------------------------------
 * V1
 */

static void
test_v1_old_functions (void)
{
  static const struct { unsigned int n; int rw; } bad[] = {
    { 0, READ }, { 0, WRITE }, { DM_IO_MAX_REGIONS + 1, WRITE },
    { 2, READ }, { DM_IO_MAX_REGIONS, READ }, { UINT_MAX, WRITE },
    { 1, 2 }, { 1, 3 }, { 1, -1 }, { 1, DM_IO_FLUSH },
    { 1, DM_IO_DISCARD }, { 1, DM_IO_WRITE_ZEROES },
  };
  struct io_region where[DM_IO_MAX_REGIONS + 1];
  struct page *page = new_pages (1);
  unsigned long bits;
  unsigned int i, j;
  int api;

  open_mocks (where, G_N_ELEMENTS (where), 8, &plain);
  for (i = 0; i < G_N_ELEMENTS (bad); i++)
    for (api = 0; api < 6; api++) {
      bits = ~0UL;
      g_assert_cmpint (call_old (api, bad[i].n, where, bad[i].rw, page,
                                 &bits, &refused), ==, -EINVAL);
      if (api < 3)
        g_assert_cmphex (bits, ==, 0);
    }
  for (j = 0; j < G_N_ELEMENTS (where); j++)
    g_assert_cmpuint (mock_count (where[j].bdev, MOCK_ANY), ==, 0);
  close_mocks (where, G_N_ELEMENTS (where));
  assert_no_callback ();
  free (page);
}

static void
test_v1_no_callback (void)
{
  struct page *page = new_pages (1);
  struct page_list pl = { .page = page };
  struct bio_vec bvec = { .bv_page = page, .bv_len = PAGE };
  struct io_region where[1];

  open_mocks (where, 1, 8, &plain);
  g_assert_cmpint (dm_io_async (1, where, READ, &pl, 0, NULL, NULL),
                   ==, -EINVAL);
  g_assert_cmpint (dm_io_async_bvec (1, where, READ, &bvec, NULL, NULL),
                   ==, -EINVAL);
  g_assert_cmpint (dm_io_async_vm (1, where, READ, page, NULL, NULL),
                   ==, -EINVAL);
  g_assert_cmpuint (mock_count (where[0].bdev, MOCK_ANY), ==, 0);
  close_mocks (where, 1);
  free (page);
}

/* What they do when nothing is wrong. */
static void
test_v1_old_functions_work (void)
{
  struct io_region where[3];
  struct page *out = new_pages (1), *in = new_pages (1);
  struct done done;
  unsigned long bits;
  int api, i;

  open_mocks (where, 3, 8, &plain);
  for (api = 0; api < 6; api++) {
    fill (out, PAGE, api);
    bits = ~0UL;
    done_init (&done);
    g_assert_cmpint (call_old (api, 3, where, WRITE, out, &bits, &done),
                     ==, 0);
    g_assert_cmphex (api < 3 ? bits : done_wait (&done), ==, 0);
    for (i = 0; i < 3; i++) {
      assert_same (mock_data (where[i].bdev), out, PAGE);
      bits = ~0UL;
      done_init (&done);
      memset (in, 1, PAGE);
      g_assert_cmpint (call_old (api, 1, &where[i], READ, in, &bits, &done),
                       ==, 0);
      g_assert_cmphex (api < 3 ? bits : done_wait (&done), ==, 0);
      assert_same (in, out, PAGE);
    }
  }
  close_mocks (where, 3);
  free (out);
  free (in);
}

static void
test_v1_request (void)
{
  struct io_region where[DM_IO_MAX_REGIONS + 1];
  struct dm_io_request req;
  unsigned int i;

  open_mocks (where, G_N_ELEMENTS (where), 8, &plain);
  for (i = 0; i < G_N_ELEMENTS (bad_requests); i++) {
    req = flagged_request (bad_requests[i].op, bad_requests[i].flags, data);
    assert_refused (&req, bad_requests[i].n, where);
  }
  close_mocks (where, G_N_ELEMENTS (where));
  assert_no_callback ();
}

static void
test_v1_memory_type (void)
{
  static const int types[] = { DM_IO_VM + 1, 17, -1 };
  struct io_region where[1];
  struct dm_io_request req;
  unsigned int i;

  open_mocks (where, 1, 8, &plain);
  for (i = 0; i < G_N_ELEMENTS (types); i++) {
    req = vm_request (DM_IO_READ, data);
    req.mem.type = types[i];
    assert_refused (&req, 1, where);
    req.op = DM_IO_WRITE;
    assert_refused (&req, 1, where);
  }
  close_mocks (where, 1);
  assert_no_callback ();
}

/*----------------------------------------------------------------------
 * V2
 */

/* Which of three regions have count 0: all combinations.  Nothing else
 * of such a region matters, so it may lie outside its device.
 */
static void
test_v2_count_zero (void)
{
  struct io_region where[3];
  struct dm_io_request req = vm_request (DM_IO_WRITE, data);
  struct dm_io_result results[3];
  unsigned int none, i, async;

  fill (data, sizeof data, 2);
  req.results = results;
  for (none = 0; none < 8; none++)
    for (async = 0; async < 2; async++) {
      open_mocks (where, 3, 8, &plain);
      for (i = 0; i < 3; i++)
        if (none & (1U << i)) {
          where[i].count = 0;
          where[i].sector = i == 0 ? 1000 : 0;
        }
      memset (results, 0xff, sizeof results);
      g_assert_cmphex (run_request (&req, 3, where, async), ==, 0);
      for (i = 0; i < 3; i++) {
        g_assert_cmpint (results[i].error, ==, 0);
        g_assert_cmpuint (mock_count (where[i].bdev, MOCK_ANY), ==,
                          none & (1U << i) ? 0 : 1);
        if (none & (1U << i))
          assert_zero (mock_data (where[i].bdev), 8 * SECTOR);
        else
          assert_same (mock_data (where[i].bdev), data, 8 * SECTOR);
      }
      close_mocks (where, 3);
    }
}

static void
test_v2_count_zero_other_operations (void)
{
  static const enum dm_io_op ops[] = {
    DM_IO_READ, DM_IO_WRITE, DM_IO_DISCARD, DM_IO_WRITE_ZEROES,
  };
  const struct mock_options read_only = { .read_only = true };
  struct io_region where[1];
  struct dm_io_request req;
  unsigned long bits;
  unsigned int i;

  open_mocks (where, 1, 8, &read_only);
  where[0].count = 0;
  for (i = 0; i < G_N_ELEMENTS (ops); i++) {
    bits = ~0UL;
    req = vm_request (ops[i], NULL);
    g_assert_cmpint (dm_io (&req, 1, where, &bits), ==, 0);
    g_assert_cmphex (bits, ==, 0);
  }
  g_assert_cmpuint (mock_count (where[0].bdev, MOCK_ANY), ==, 0);
  close_mocks (where, 1);
}

/*----------------------------------------------------------------------
 * V3
 */

static void
test_v3_vectors (void)
{
  struct page *pages = new_pages (2);
  struct page *odd = (struct page *) (pages->data + SECTOR);
  const struct bio_vec bad[] = {
    { pages, 0, 0 }, { pages, 1, 0 }, { pages, 511, 0 },
    { pages, 1000, 0 }, { pages, 512, 1 }, { pages, 512, 100 },
    { pages, PAGE, 512 }, { pages, 512, PAGE }, { pages, 1024, 3584 },
    { pages, 2 * PAGE, 0 }, { pages, 512, 2 * PAGE },
    { pages, 512, -512U }, { pages, -512U, 512 },
    { NULL, 512, 0 }, { odd, 512, 0 },
  };
  struct bio_vec bvec[4];
  struct io_region where[1];
  struct dm_io_request req = { .mem.type = DM_IO_BVEC };
  unsigned int i, j, first;

  open_mocks (where, 1, 8, &plain);
  where[0].count = 2;
  req.mem.length = DM_IO_UNCHECKED;
  req.mem.ptr.bvec = bvec;
  for (i = 0; i < G_N_ELEMENTS (bad); i++)
    for (first = 0; first < 2; first++) {
      for (j = 0; j < G_N_ELEMENTS (bvec); j++)
        bvec[j] = (struct bio_vec) { &pages[1], 512, j * 512 };
      bvec[first] = bad[i];
      req.op = DM_IO_WRITE;
      assert_refused (&req, 1, where);
      req.op = DM_IO_READ;
      assert_refused (&req, 1, where);
    }
  req.mem.ptr.bvec = NULL;
  assert_refused (&req, 1, where);
  close_mocks (where, 1);
  assert_no_callback ();
  free (pages);
}

static void
test_v3_page_list (void)
{
  static const struct {
    unsigned int offset;
    sector_t count;
    bool good;
  } cases[] = {
    { 0, 16, true }, { 0, 17, false }, { 512, 15, true }, { 512, 16, false },
    { 3584, 9, true }, { 3584, 10, false }, { 1, 1, false },
    { 100, 1, false }, { 511, 1, false }, { 4095, 1, false },
    { PAGE, 1, false }, { PAGE + 512, 1, false }, { -512U, 1, false },
  };
  struct page *pages = new_pages (3);
  struct page_list list[2] = {
    { .next = &list[1], .page = &pages[0] }, { .page = &pages[1] },
  };
  struct io_region where[1];
  struct dm_io_request req = { .mem.type = DM_IO_PAGE_LIST };
  unsigned int i;

  open_mocks (where, 1, 32, &plain);
  req.mem.length = DM_IO_UNCHECKED;
  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    mock_clear_trace (where[0].bdev);
    req.op = i % 2 ? DM_IO_WRITE : DM_IO_READ;
    req.mem.ptr.pl = list;
    req.mem.offset = cases[i].offset;
    where[0].count = cases[i].count;
    if (cases[i].good)
      g_assert_cmpint (dm_io (&req, 1, where, NULL), ==, 0);
    else
      assert_refused (&req, 1, where);
  }

  mock_clear_trace (where[0].bdev);
  where[0].count = 16;
  req.mem.offset = 0;
  list[1].page = (struct page *) (pages[1].data + SECTOR);
  assert_refused (&req, 1, where);
  list[1].page = NULL;
  assert_refused (&req, 1, where);
  req.mem.ptr.pl = NULL;
  assert_refused (&req, 1, where);
  close_mocks (where, 1);
  assert_no_callback ();
  free (pages);
}

/* The offset is of page lists only, and a NULL buffer is none. */
static void
test_v3_vm (void)
{
  struct io_region where[1];
  struct dm_io_request req = vm_request (DM_IO_READ, data);

  open_mocks (where, 1, 1, &plain);
  req.mem.offset = 512;
  assert_refused (&req, 1, where);
  req = vm_request (DM_IO_WRITE, NULL);
  assert_refused (&req, 1, where);
  close_mocks (where, 1);
  assert_no_callback ();
}

/* The buffer ends where its length says; ASan sees if that is passed.
 * The largest count is what matters.
 */
static void
test_v3_short_buffer (void)
{
  unsigned char *exact = g_malloc (3 * SECTOR);
  struct io_region where[3];
  struct dm_io_request req = vm_request (DM_IO_WRITE, exact);

  fill (exact, 3 * SECTOR, 3);
  open_mocks (where, 3, 8, &plain);
  where[0].count = 1;
  where[1].count = 4;
  where[2].count = 2;
  req.mem.length = 3 * SECTOR;
  assert_refused (&req, 3, where);
  req.mem.length = 4 * SECTOR - 1;
  assert_refused (&req, 3, where);
  req.mem.length = 0;
  assert_refused (&req, 3, where);
  where[1].count = 3;
  req.mem.length = 3 * SECTOR;
  g_assert_cmpint (dm_io (&req, 3, where, NULL), ==, 0);
  assert_same (mock_data (where[1].bdev), exact, 3 * SECTOR);
  close_mocks (where, 3);
  assert_no_callback ();
  g_free (exact);
}

/* Offset and end of a range are computed in bytes, of 63 bits. */
static void
test_v3_range_wraps (void)
{
  static const struct { sector_t sector, count; } bad[] = {
    { UINT64_MAX, 1 }, { UINT64_MAX, 2 }, { 1, UINT64_MAX },
    { 0, UINT64_MAX }, { UINT64_MAX - 1, 1 }, { 2, UINT64_MAX - 1 },
    { (UINT64_MAX >> 9) + 1, 1 }, { UINT64_MAX >> 9, 2 },
    { 0, (UINT64_MAX >> 9) + 2 }, { 1, UINT64_MAX >> 9 },
    { (INT64_MAX >> 9) + 1, 1 }, { INT64_MAX >> 9, 2 },
  };
  static const enum dm_io_op ops[] = {
    DM_IO_READ, DM_IO_WRITE, DM_IO_DISCARD, DM_IO_WRITE_ZEROES,
  };
  const struct mock_options options = { .can_punch = true, .can_zero = true };
  struct io_region where[2];
  struct dm_io_request req;
  unsigned int i, j;

  open_mocks (where, 2, 8, &options);
  where[0].count = 1;
  for (i = 0; i < G_N_ELEMENTS (bad); i++)
    for (j = 0; j < G_N_ELEMENTS (ops); j++) {
      req = vm_request (ops[j], data);
      where[1].sector = bad[i].sector;
      where[1].count = bad[i].count;
      assert_refused (&req, 1, &where[1]);
      if (ops[j] != DM_IO_READ)
        assert_refused (&req, 2, where);
    }
  close_mocks (where, 2);
  assert_no_callback ();
}

static void
test_v3_no_device (void)
{
  struct io_region where[2];
  struct dm_io_request req = vm_request (DM_IO_WRITE, data);

  open_mocks (where, 1, 8, &plain);
  where[1] = (struct io_region) { .count = 1 };
  g_assert_cmpint (dm_io (&req, 2, where, NULL), ==, -EINVAL);
  g_assert_cmpuint (mock_count (where[0].bdev, MOCK_ANY), ==, 0);
  close_mocks (where, 1);
  req.fn = done_callback;
  req.context = &refused;
  g_assert_cmpint (dm_io (&req, 1, NULL, NULL), ==, -EINVAL);
  assert_no_callback ();
}

/* A region that leaves its device fails by its bit, with none of it
 * written; the others get all of theirs.
 */
static void
test_v3_past_end (void)
{
  static const struct { sector_t sector, count; } bad[] = {
    { 0, 9 }, { 7, 2 }, { 8, 1 }, { 9, 1 }, { 1, 8 }, { 1000000, 1 },
    { (INT64_MAX >> 9) - 1, 1 },
  };
  static const enum dm_io_op ops[] = {
    DM_IO_WRITE, DM_IO_DISCARD, DM_IO_WRITE_ZEROES,
  };
  const struct mock_options options = { .can_punch = true, .can_zero = true };
  unsigned char buf[9 * SECTOR], old[8 * SECTOR];
  struct io_region where[3];
  struct dm_io_request req;
  unsigned long bits;
  unsigned int i, j;

  fill (buf, sizeof buf, 4);
  fill (old, sizeof old, 5);
  open_mocks (where, 3, 8, &options);
  for (i = 0; i < G_N_ELEMENTS (bad); i++)
    for (j = 0; j < G_N_ELEMENTS (ops); j++) {
      mock_set (where[0].bdev, 0, old, sizeof old);
      mock_set (where[2].bdev, 0, old, sizeof old);
      where[1].sector = bad[i].sector;
      where[1].count = bad[i].count;
      req = vm_request (ops[j], buf);
      bits = 0;
      g_assert_cmpint (dm_io (&req, 3, where, &bits), ==, -EIO);
      g_assert_cmphex (bits, ==, 1 << 1);
      g_assert_cmpuint (mock_count (where[1].bdev, MOCK_ANY), ==, 0);
      if (ops[j] == DM_IO_WRITE) {
        assert_same (mock_data (where[0].bdev), buf, 8 * SECTOR);
        assert_same (mock_data (where[2].bdev), buf, 8 * SECTOR);
      }
      else {
        assert_zero (mock_data (where[0].bdev), 8 * SECTOR);
        assert_zero (mock_data (where[2].bdev), 8 * SECTOR);
      }
    }
  close_mocks (where, 3);
}

static void
test_v3_read_past_end (void)
{
  struct io_region where[1];
  unsigned char buf[4 * SECTOR];
  unsigned long bits = 0;

  open_mocks (where, 1, 8, &plain);
  where[0].sector = 6;
  where[0].count = 3;
  memset (buf, 0xaa, sizeof buf);
  g_assert_cmpint (dm_io_sync_vm (1, where, READ, buf, &bits), ==, -EIO);
  g_assert_cmphex (bits, ==, 1);
  g_assert_cmpuint (mock_count (where[0].bdev, MOCK_ANY), ==, 0);
  assert_zero (buf, 3 * SECTOR);
  g_assert_cmpuint (buf[3 * SECTOR], ==, 0xaa);
  close_mocks (where, 1);
}

/* The mock aborts if a read-only device is asked to change anything. */
static void
test_v3_read_only (void)
{
  static const enum dm_io_op ops[] = {
    DM_IO_WRITE, DM_IO_WRITE_ZEROES, DM_IO_DISCARD,
  };
  const struct mock_options read_only = {
    .read_only = true, .can_punch = true
  };
  const struct mock_options options = { .can_punch = true };
  struct io_region where[2];
  struct dm_io_result results[2];
  struct dm_io_request req;
  unsigned long bits;
  unsigned int i;

  open_mocks (&where[0], 1, 8, &options);
  open_mocks (&where[1], 1, 8, &read_only);
  for (i = 0; i < G_N_ELEMENTS (ops); i++) {
    bits = 0;
    req = vm_request (ops[i], data);
    req.results = results;
    g_assert_cmpint (dm_io (&req, 2, where, &bits), ==, -EIO);
    g_assert_cmphex (bits, ==, 1 << 1);
    g_assert_cmpint (results[0].error, ==, 0);
    g_assert_cmpint (results[1].error, ==, EROFS);
  }
  g_assert_cmpint (dm_io_sync_vm (1, &where[1], READ, data, &bits), ==, 0);
  g_assert_cmphex (bits, ==, 0);
  close_mocks (where, 2);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  done_init (&refused);
  g_test_add_func ("/request/v1-old-functions", test_v1_old_functions);
  g_test_add_func ("/request/v1-no-callback", test_v1_no_callback);
  g_test_add_func ("/request/v1-old-functions-work",
                   test_v1_old_functions_work);
  g_test_add_func ("/request/v1-request", test_v1_request);
  g_test_add_func ("/request/v1-memory-type", test_v1_memory_type);
  g_test_add_func ("/request/v2-count-zero", test_v2_count_zero);
  g_test_add_func ("/request/v2-count-zero-other-operations",
                   test_v2_count_zero_other_operations);
  g_test_add_func ("/request/v3-vectors", test_v3_vectors);
  g_test_add_func ("/request/v3-page-list", test_v3_page_list);
  g_test_add_func ("/request/v3-vm", test_v3_vm);
  g_test_add_func ("/request/v3-short-buffer", test_v3_short_buffer);
  g_test_add_func ("/request/v3-range-wraps", test_v3_range_wraps);
  g_test_add_func ("/request/v3-no-device", test_v3_no_device);
  g_test_add_func ("/request/v3-past-end", test_v3_past_end);
  g_test_add_func ("/request/v3-read-past-end", test_v3_read_past_end);
  g_test_add_func ("/request/v3-read-only", test_v3_read_only);
  return g_test_run ();
}
