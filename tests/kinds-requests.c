/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What requests are refused, and what becomes of those that fail, on
 * regions of every kind: V1 to V3, E1 to E3.
 */

#include <config.h>

#include "kinds.h"

/*----------------------------------------------------------------------
 * V1, V2, V3
 */

static void
test_v1_request (struct world *w)
{
  struct io_region where[DM_IO_MAX_REGIONS + 1];
  struct done *refused = &to_kinds (w)->refused;
  struct page *page = new_pages (1);
  struct dm_io_request req;
  unsigned long bits;
  unsigned int i;
  int api;

  for (i = 0; i < G_N_ELEMENTS (where); i++)
    where[i] = world_region (w, i % w->num_disks, 0, w->unit);
  for (i = 0; i < G_N_ELEMENTS (bad_requests); i++) {
    req = flagged_request (bad_requests[i].op, bad_requests[i].flags,
                           w->arena);
    assert_einval (&req, bad_requests[i].n, where, refused);
  }
  for (api = 0; api < 6; api++) {
    g_assert_cmpint (call_old (api, 0, where, WRITE, page, &bits, refused),
                     ==, -EINVAL);
    g_assert_cmpint (call_old (api, 2, where, READ, page, &bits, refused),
                     ==, -EINVAL);
    g_assert_cmpint (call_old (api, 1, where, 2, page, &bits, refused),
                     ==, -EINVAL);
    g_assert_cmpint (call_old (api, G_N_ELEMENTS (where), where, WRITE, page,
                               &bits, refused), ==, -EINVAL);
  }
  req = vm_request (DM_IO_WRITE, w->arena);
  req.mem.type = DM_IO_VM + 1;
  assert_einval (&req, 1, where, refused);
  free (page);
}

/* What they do when nothing is wrong. */
static void
test_v1_old_functions (struct world *w)
{
  const sector_t count = PAGE / SECTOR;
  struct page *out = new_pages (1), *in = new_pages (1);
  struct io_region where[MAX_REGIONS];
  struct done done;
  unsigned long bits;
  unsigned int i;
  int api;

  world_regions (w, where, count, count);
  for (api = 0; api < 6; api++) {
    fill (out, PAGE, api);
    bits = ~0UL;
    done_init (&done);
    g_assert_cmpint (call_old (api, w->num_disks, where, WRITE, out, &bits,
                               &done), ==, 0);
    g_assert_cmphex (api < 3 ? bits : done_wait (&done), ==, 0);
    world_wrote (w, where, w->num_disks, out);
    world_check (w);
    for (i = 0; i < w->num_disks; i++) {
      bits = ~0UL;
      done_init (&done);
      memset (in, 0xaa, PAGE);
      g_assert_cmpint (call_old (api, 1, &where[i], READ, in, &bits, &done),
                       ==, 0);
      g_assert_cmphex (api < 3 ? bits : done_wait (&done), ==, 0);
      assert_same (in, out, PAGE);
    }
  }
  free (out);
  free (in);
}

/* Which regions have count 0: all combinations. */
static void
test_v2_count_zero (struct world *w)
{
  struct io_region where[MAX_REGIONS];
  struct dm_io_request req = vm_request (DM_IO_WRITE, w->arena);
  struct dm_io_result results[MAX_REGIONS];
  unsigned int none, i, async;

  req.results = results;
  for (none = 0; none < 1U << w->num_disks; none++)
    for (async = 0; async < 2; async++) {
      fill (w->arena, ARENA_SIZE, none * 2 + async);
      memcpy (w->arena_model, w->arena, ARENA_SIZE);
      world_regions (w, where, 2 * w->unit, 3 * w->unit);
      for (i = 0; i < w->num_disks; i++)
        if (none & (1U << i)) {
          where[i].sector = i == 0 ? 1000000 : 0;
          where[i].count = 0;
        }
      memset (results, 0xff, sizeof results);
      g_assert_cmphex (run_request (&req, w->num_disks, where, async),
                       ==, 0);
      for (i = 0; i < w->num_disks; i++) {
        g_assert_cmpint (results[i].error, ==, 0);
        if (where[i].count > 0)
          world_wrote (w, &where[i], 1, w->arena);
      }
      world_check (w);
    }
}

static void
test_v3_memory (struct world *w)
{
  struct done *refused = &to_kinds (w)->refused;
  struct page *page = (struct page *) w->arena;
  struct page_list list = { .page = page };
  struct bio_vec bvec[2] = { { page, PAGE, 0 }, { page, 100, 0 } };
  const sector_t most = INT64_MAX / SECTOR, unit = w->unit;
  struct io_region where = world_region (w, 0, 0, 2 * PAGE / SECTOR);
  struct dm_io_request req;
  unsigned int i;

  for (i = 0; i < 2; i++) {
    req = (struct dm_io_request) { .op = i ? DM_IO_READ : DM_IO_WRITE };
    req.mem.length = DM_IO_UNCHECKED;

    req.mem.type = DM_IO_PAGE_LIST;
    req.mem.ptr.pl = &list;
    assert_einval (&req, 1, &where, refused);   /* too short */
    req.mem.offset = 100;
    assert_einval (&req, 1, &where, refused);   /* misaligned */
    req.mem.offset = 0;

    req.mem.type = DM_IO_BVEC;
    req.mem.ptr.bvec = bvec;
    assert_einval (&req, 1, &where, refused);   /* misaligned, later */

    req.mem.type = DM_IO_VM;
    req.mem.ptr.vm = w->arena;
    req.mem.length = where.count * SECTOR - 1;
    assert_einval (&req, 1, &where, refused);
    req.mem.length = DM_IO_UNCHECKED;
    where.sector = most - unit;                 /* wraps */
    assert_einval (&req, 1, &where, refused);
    where.sector = UINT64_MAX - unit + 1;
    assert_einval (&req, 1, &where, refused);
    where.sector = 0;
  }
}

/* A region that leaves its device fails by its bit, with none of it
 * changed; the others get all of theirs.
 */
static void
test_v3_past_end (struct world *w)
{
  static const enum dm_io_op ops[] = {
    DM_IO_WRITE, DM_IO_WRITE_ZEROES, DM_IO_DISCARD,
  };
  const sector_t unit = w->unit;
  const struct { sector_t sector, count; } bad[] = {
    { w->sectors - unit, 2 * unit }, { w->sectors, unit },
    { 2 * w->sectors, unit }, { (INT64_MAX >> 9) - 15, unit },
  };
  struct io_region where[MAX_REGIONS + 1];
  struct dm_io_result results[MAX_REGIONS + 1];
  struct dm_io_request req;
  unsigned int n = w->num_disks, i, j, async;

  world_regions (w, where, unit, unit);
  for (i = 0; i < G_N_ELEMENTS (bad); i++)
    for (j = 0; j < G_N_ELEMENTS (ops); j++)
      for (async = 0; async < 2; async++) {
        where[n] = world_region (w, 0, bad[i].sector, bad[i].count);
        req = vm_request (ops[j], w->arena + i);
        req.results = results;
        g_assert_cmphex (run_request (&req, n + 1, where, async), ==,
                         1UL << n);
        g_assert_cmpint (results[0].error, ==, 0);
        g_assert_cmpint (results[n].error, ==, EIO);
        if (ops[j] == DM_IO_WRITE)
          world_wrote (w, where, n, w->arena + i);
        else
          world_zeroed (w, where, n);
        world_check (w);
      }

  where[0] = world_region (w, n - 1, w->sectors - unit, 2 * unit);
  req = vm_request (DM_IO_READ, w->arena + 7);
  g_assert_cmphex (run_request (&req, 1, where, false), ==, 1);
  memset (w->arena_model + 7, 0, 2 * unit * SECTOR);
  world_check (w);
}

/* A region is good if it begins and ends with a block. */
static void
test_v3_block_size (struct world *w)
{
  static const struct { sector_t sector, count; } cases[] = {
    { 0, 1 }, { 1, 1 }, { 4, 4 }, { 1, 8 }, { 8, 8 }, { 8, 9 }, { 9, 15 },
  };
  struct io_region where[MAX_REGIONS];
  struct dm_io_result results[MAX_REGIONS];
  struct dm_io_request req = vm_request (DM_IO_WRITE, w->arena + 3);
  unsigned long bits, bad;
  unsigned int i, j;

  req.results = results;
  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    world_regions (w, where, cases[i].sector, cases[i].count);
    bits = run_request (&req, w->num_disks, where, i % 2);
    for (j = 0; j < w->num_disks; j++) {
      bad = (cases[i].sector | cases[i].count) & (w->disks[j].unit - 1);
      g_assert_cmpuint (bits >> j & 1, ==, bad != 0);
      g_assert_cmpint (results[j].error, ==, bad != 0 ? EINVAL : 0);
      if (!bad)
        world_wrote (w, &where[j], 1, w->arena + 3);
    }
    world_check (w);
  }
}

static void
test_v3_read_only (struct world *w)
{
  static const enum dm_io_op ops[] = {
    DM_IO_WRITE, DM_IO_WRITE_ZEROES, DM_IO_DISCARD,
  };
  const unsigned int last = w->num_disks - 1;
  struct io_region where[MAX_REGIONS];
  struct dm_io_result results[MAX_REGIONS];
  struct dm_io_request req;
  unsigned int i;

  kinds_reopen (w, last, DM_BDEV_READ_ONLY);
  g_assert_true (dm_bdev_read_only (w->disks[last].bdev));
  world_regions (w, where, 0, w->unit);
  for (i = 0; i < 2 * G_N_ELEMENTS (ops); i++) {
    req = vm_request (ops[i / 2], w->arena);
    req.results = results;
    g_assert_cmphex (run_request (&req, w->num_disks, where, i % 2), ==,
                     1UL << last);
    g_assert_cmpint (results[last].error, ==, EROFS);
    /* Nothing, or zeroes, are discarded. */
    if (req.op == DM_IO_WRITE)
      world_wrote (w, where, last, w->arena);
    else
      world_zeroed (w, where, last);
    world_check (w);
  }
  req = vm_request (DM_IO_READ, w->arena);
  g_assert_cmphex (run_request (&req, 1, &where[last], false), ==, 0);
  memcpy (w->arena_model, w->disks[last].model, w->unit * SECTOR);
  req = vm_request (DM_IO_FLUSH, NULL);
  g_assert_cmphex (run_request (&req, w->num_disks, where, true), ==, 0);
  world_check (w);
}

/*----------------------------------------------------------------------
 * E1, E2, E3
 */

/* Those of 64 regions that are in MASK fail. */
static void
check_mask (struct world *w, unsigned long mask, bool async)
{
  struct io_region where[DM_IO_MAX_REGIONS];
  struct dm_io_request req = vm_request (DM_IO_WRITE, w->arena);
  struct dm_io_result results[DM_IO_MAX_REGIONS];
  unsigned int i;

  fill (w->arena, ARENA_SIZE, mask + async);
  memcpy (w->arena_model, w->arena, ARENA_SIZE);
  choose_most (w, where, 1);
  for (i = 0; i < DM_IO_MAX_REGIONS; i++)
    if (mask >> i & 1)
      where[i].sector += w->sectors;
  req.results = results;
  g_assert_cmphex (run_request (&req, DM_IO_MAX_REGIONS, where, async), ==,
                   mask);
  for (i = 0; i < DM_IO_MAX_REGIONS; i++) {
    g_assert_cmpint (results[i].error, ==, mask >> i & 1 ? EIO : 0);
    if (!(mask >> i & 1))
      world_wrote (w, &where[i], 1, w->arena);
  }
  world_check (w);
}

static void
test_e1_masks (struct world *w)
{
  static const unsigned int bits[] = { 0, 1, 30, 31, 32, 33, 62, 63 };
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (bits); i++)
    check_mask (w, 1UL << bits[i], i % 2);
  for (i = 0; i < 4; i++)
    check_mask (w, rng_next (&w->rng), i % 2);
  check_mask (w, ~0UL, false);
  check_mask (w, ~0UL, true);
  check_mask (w, 0, false);
}

/* One of them fails, in all parts of a long write; the others are
 * written.
 */
static void
check_broken (struct world *w, unsigned int broken, bool async)
{
  const sector_t count = w->sectors - 8;
  g_autofree unsigned char *data = g_malloc (count * SECTOR);
  struct dm_io_request req = vm_request (DM_IO_WRITE, data);
  struct io_region where[MAX_REGIONS];
  struct dm_io_result results[MAX_REGIONS];
  unsigned int i;

  break_disk (w, broken);
  fill (data, count * SECTOR, broken);
  world_regions (w, where, 8, count);
  req.results = results;
  g_assert_cmphex (run_request (&req, w->num_disks, where, async), ==,
                   1UL << broken);
  world_wrote (w, where, w->num_disks, data);
  check_others (w, broken);
  for (i = 0; i < w->num_disks; i++)
    g_assert_cmpint (results[i].error, ==, i == broken ? EIO : 0);

  req = vm_request (DM_IO_WRITE, data);
  g_assert_cmpint (dm_io (&req, w->num_disks, where, NULL), ==, -EIO);
  for (i = 0; i < w->num_disks; i++)
    g_assert_cmpint (dm_io_sync_vm (1, &where[i], WRITE, data, NULL), ==,
                     i == broken ? -EIO : 0);
  check_others (w, broken);
}

static void
test_e2_first_broken (struct world *w)
{
  check_broken (w, 0, true);
}

static void
test_e2_middle_broken (struct world *w)
{
  check_broken (w, w->num_disks / 2, false);
}

static void
test_e2_last_broken (struct world *w)
{
  check_broken (w, w->num_disks - 1, false);
}

/* What could not be read is zero, and nothing stale is left. */
static void
check_failed_read (struct world *w, enum dm_io_mem_type type, bool async)
{
  const struct io_region where =
    world_region (w, 0, w->sectors / 2 - 8, 24);
  const unsigned char *expected = world_model (w, &where), *got;
  struct page *pages = new_pages (5);
  struct page_list pl[3];
  struct bio_vec bvec[3];
  struct dm_io_request req = vm_request (DM_IO_READ, &pages[1]);
  unsigned int i;

  for (i = 0; i < 3; i++) {
    pl[i] = (struct page_list) { i < 2 ? &pl[i+1] : NULL, &pages[1+i] };
    bvec[i] = (struct bio_vec) { &pages[1+i], PAGE, 0 };
  }
  req.mem.type = type;
  if (type == DM_IO_PAGE_LIST)
    req.mem.ptr.pl = pl;
  else if (type == DM_IO_BVEC)
    req.mem.ptr.bvec = bvec;
  memset (pages, 0xaa, 5 * sizeof *pages);
  g_assert_cmphex (run_request (&req, 1, &where, async), ==, 1);
  for (i = 0; i < 24; i++) {
    got = pages[1].data + i * SECTOR;
    if (i >= 8 || memcmp (got, expected + i * SECTOR, SECTOR) != 0)
      assert_zero (got, SECTOR);
  }
  for (i = 0; i < PAGE; i++)
    g_assert_true (pages[0].data[i] == 0xaa && pages[4].data[i] == 0xaa);
  free (pages);
}

static void
test_e3_failed_read (struct world *w)
{
  int type;

  break_disk (w, 0);
  for (type = DM_IO_PAGE_LIST; type <= DM_IO_VM; type++) {
    check_failed_read (w, type, false);
    check_failed_read (w, type, true);
  }
  check_others (w, 0);
}

const struct world_case request_cases[] = {
  { "v1-request", DISK_SECTORS, test_v1_request },
  { "v1-old-functions", DISK_SECTORS, test_v1_old_functions },
  { "v2-count-zero", DISK_SECTORS, test_v2_count_zero },
  { "v3-memory", DISK_SECTORS, test_v3_memory },
  { "v3-past-end", DISK_SECTORS, test_v3_past_end },
  { "v3-block-size", DISK_SECTORS, test_v3_block_size },
  { "v3-read-only", DISK_SECTORS, test_v3_read_only },
  { "e1-masks", MANY_SECTORS, test_e1_masks },
  { "e2-first-broken", LONG_SECTORS, test_e2_first_broken },
  { "e2-middle-broken", LONG_SECTORS, test_e2_middle_broken },
  { "e2-last-broken", LONG_SECTORS, test_e2_last_broken },
  { "e3-failed-read", DISK_SECTORS, test_e3_failed_read },
  { NULL, 0, NULL },
};
