/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What requests do with the data, on regions of every kind: B1 to B5
 * beside memory-cases.h, O1 to O3, and the results.
 */

#include <config.h>

#include "kinds.h"

#define FUZZ_ROUNDS 40

/*----------------------------------------------------------------------
 * B1 to B5: see also memory-cases.h
 */

static void
test_b1_fuzz_page_lists (struct world *w)
{
  world_fuzz (w, DM_IO_PAGE_LIST, FUZZ_ROUNDS);
}

static void
test_b2_fuzz_vectors (struct world *w)
{
  world_fuzz (w, DM_IO_BVEC, FUZZ_ROUNDS);
}

static void
test_b3_fuzz_vm (struct world *w)
{
  world_fuzz (w, DM_IO_VM, FUZZ_ROUNDS);
}

/* As many regions as there can be: all get the same. */
static void
test_b4_all_regions (struct world *w)
{
  g_autofree struct buffer *b = g_new (struct buffer, 1);
  struct io_region where[DM_IO_MAX_REGIONS];
  unsigned char expected[5 * PAGE];
  struct dm_io_request req = { .op = DM_IO_WRITE };
  int type, async;

  choose_most (w, where, 5);
  for (async = 0; async < 2; async++)
    for (type = DM_IO_PAGE_LIST; type <= DM_IO_VM; type++) {
      fill (w->arena, ARENA_SIZE, 2 * type + async);
      memcpy (w->arena_model, w->arena, ARENA_SIZE);
      make_buffer (w, b, type);
      model_gather (w, b, expected, where[0].count * SECTOR);
      req.mem = b->mem;
      g_assert_cmphex (run_request (&req, DM_IO_MAX_REGIONS, where, async),
                       ==, 0);
      world_wrote (w, where, DM_IO_MAX_REGIONS, expected);
      world_check (w);
    }
}

/* Longer than one part, and than what one system call or NBD command
 * takes, from an aligned address and from an odd one.
 */
static void
check_long (struct world *w, size_t shift, bool async)
{
  const sector_t count = w->sectors - 2 * w->unit;
  const size_t size = count * SECTOR;
  struct page *out = new_pages (size / PAGE + 2);
  struct page *in = new_pages (size / PAGE + 2);
  unsigned char *from = out->data + shift, *to = in->data + shift;
  struct dm_io_request req = vm_request (DM_IO_WRITE, from);
  struct io_region where[MAX_REGIONS];
  unsigned int i;

  fill (from, size, shift + async);
  world_regions (w, where, w->unit, count);
  g_assert_cmphex (run_request (&req, w->num_disks, where, async), ==, 0);
  world_wrote (w, where, w->num_disks, from);
  world_check (w);

  req = vm_request (DM_IO_READ, to);
  for (i = 0; i < w->num_disks; i++) {
    memset (to, 0xaa, size);
    g_assert_cmphex (run_request (&req, 1, &where[i], async), ==, 0);
    assert_same (to, from, size);
  }
  free (out);
  free (in);
}

static void
test_b4_long (struct world *w)
{
  check_long (w, 0, false);
  check_long (w, 1, true);
}

static void
test_b4_very_long (struct world *w)
{
  check_long (w, 0, false);
}

/*----------------------------------------------------------------------
 * O1, O2, O3, and results
 */

/* Where the regions are does not matter. */
static void
test_o1_flush (struct world *w)
{
  const struct dm_io_request req = { .op = DM_IO_FLUSH };
  struct io_region where[DM_IO_MAX_REGIONS];
  unsigned int i;

  for (i = 0; i < DM_IO_MAX_REGIONS; i++)
    where[i] = world_region (w, i % w->num_disks, i * 12345678, i);
  for (i = 0; i < 2; i++) {
    g_assert_cmphex (run_request (&req, w->num_disks, where, i), ==, 0);
    g_assert_cmphex (run_request (&req, DM_IO_MAX_REGIONS, where, i), ==, 0);
  }
}

static void
test_o2_flags (struct world *w)
{
  struct io_region where[MAX_REGIONS];
  unsigned int round, i;

  for (round = 0; round < 16; round++) { /* flags, async, count 0 */
    world_regions (w, where, round * w->unit, round & 8 ? 0 : 2 * w->unit);
    run_ok (w->arena + round, DM_IO_WRITE, round & 3, w->num_disks, where,
            round & 4);
    for (i = 0; i < w->num_disks; i++)
      world_wrote (w, &where[i], 1, w->arena + round);
    world_check (w);
  }
}

/* Regions in the middle of file system blocks, of one block, and all. */
static void
test_o3_write_zeroes (struct world *w)
{
  static const unsigned int flags[] = {
    DM_IO_NO_UNMAP, DM_IO_NO_UNMAP | DM_IO_FUA, 0, DM_IO_FUA,
  };
  const struct { sector_t sector, count; } cases[] = {
    { 3 * w->unit, 17 * w->unit }, { w->sectors - w->unit, w->unit },
    { 0, w->sectors },
  };
  struct io_region where[MAX_REGIONS];
  uint64_t space[MAX_REGIONS];
  unsigned int i, j, d, async;

  for (i = 0; i < G_N_ELEMENTS (cases); i++)
    for (j = 0; j < G_N_ELEMENTS (flags); j++)
      for (async = 0; async < 2; async++) {
        world_regions (w, where, 0, ARENA_SECTORS);
        run_ok (w->arena, DM_IO_WRITE, DM_IO_FUA, w->num_disks, where,
                false);
        world_wrote (w, where, w->num_disks, w->arena);
        for (d = 0; d < w->num_disks; d++)
          space[d] = space_of (w, d);

        world_regions (w, where, cases[i].sector, cases[i].count);
        run_ok (NULL, DM_IO_WRITE_ZEROES, flags[j], w->num_disks, where,
                async);
        world_zeroed (w, where, w->num_disks);
        world_check (w);
        for (d = 0; d < w->num_disks; d++)
          if (flags[j] & DM_IO_NO_UNMAP)
            g_assert_cmpuint (space_of (w, d), >=, space[d]);
      }
}

/* All of the regions or none; where it is possible at all it is done,
 * and gives space back.
 */
static void
test_o3_discard (struct world *w)
{
  struct io_region where[MAX_REGIONS];
  uint64_t space[MAX_REGIONS];
  bool possible = true;
  unsigned int i, async;

  for (i = 0; i < w->num_disks; i++)
    possible &= bdev_can_punch (w->disks[i].bdev);
  for (async = 0; async < 2; async++) {
    world_regions (w, where, 0, w->sectors);
    run_ok (w->arena, DM_IO_WRITE, 0, w->num_disks, where, false);
    world_wrote (w, where, w->num_disks, w->arena);
    run_ok (NULL, DM_IO_FLUSH, 0, w->num_disks, where, false);
    for (i = 0; i < w->num_disks; i++)
      space[i] = space_of (w, i);

    world_regions (w, where, 3 * w->unit, w->sectors - 5 * w->unit);
    run_ok (NULL, DM_IO_DISCARD, async ? DM_IO_FUA : 0, w->num_disks, where,
            async);
    if (possible)
      world_zeroed (w, where, w->num_disks);
    world_check (w);
    for (i = 0; i < w->num_disks && possible; i++)
      g_assert_cmpuint (space_of (w, i), <, space[i]);
  }
}

/* Every region has its own, and no time is longer than the request. */
static void
test_results (struct world *w)
{
  static const enum dm_io_op ops[] = {
    DM_IO_WRITE, DM_IO_FLUSH, DM_IO_WRITE_ZEROES, DM_IO_READ,
  };
  struct io_region where[MAX_REGIONS];
  struct dm_io_result results[MAX_REGIONS];
  struct dm_io_request req;
  gint64 start, usec;
  unsigned int i, j, n;

  world_regions (w, where, 0, w->sectors);
  for (i = 0; i < 2 * G_N_ELEMENTS (ops); i++) {
    req = vm_request (ops[i / 2], w->arena);
    req.results = results;
    n = req.op == DM_IO_READ ? 1 : w->num_disks;
    memset (results, 0xff, sizeof results);
    start = g_get_monotonic_time ();
    g_assert_cmphex (run_request (&req, n, where, i % 2), ==, 0);
    usec = g_get_monotonic_time () - start;
    for (j = 0; j < n; j++) {
      g_assert_cmpint (results[j].error, ==, 0);
      g_assert_cmpuint (results[j].nsec, >, 0);
      g_assert_cmpuint (results[j].nsec, <=, (usec + 1) * 1000);
    }
  }
}

const struct world_case data_cases[] = {
  { "b1-fuzz-page-lists", DISK_SECTORS, test_b1_fuzz_page_lists },
  { "b2-fuzz-vectors", DISK_SECTORS, test_b2_fuzz_vectors },
  { "b3-fuzz-vm", DISK_SECTORS, test_b3_fuzz_vm },
  { "b4-all-regions", MANY_SECTORS, test_b4_all_regions },
  { "b4-long", LONG_SECTORS, test_b4_long },
  { "o1-flush", DISK_SECTORS, test_o1_flush },
  { "o2-flags", DISK_SECTORS, test_o2_flags },
  { "o3-write-zeroes", 2 * ARENA_SECTORS, test_o3_write_zeroes },
  { "o3-discard", ARENA_SECTORS, test_o3_discard },
  { "results", DISK_SECTORS, test_results },
  { NULL, 0, NULL },
};

/* Where it makes a difference how long one region is. */
const struct world_case very_long_cases[] = {
  { "b4-very-long", VERY_LONG_SECTORS, test_b4_very_long },
  { NULL, 0, NULL },
};
