/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Callbacks, threads, signals and the reserve, with regions of every kind:
 * C1 to C3, M2.
 */

#include <config.h>

#include "async-cases.h"
#include "kinds.h"
#include "log-lines.h"

/*----------------------------------------------------------------------
 * C1, C2, C3
 */

/* All of the regions, and one that lies outside its device. */
static void
choose_and_one_bad (const struct world *w, struct io_region *where)
{
  world_regions (w, where, 0, 2 * w->unit);
  where[w->num_disks] = world_region (w, 0, w->sectors, w->unit);
}

static void
test_c1_once (struct world *w)
{
  static const enum dm_io_op ops[] = {
    DM_IO_READ, DM_IO_WRITE, DM_IO_FLUSH, DM_IO_WRITE_ZEROES,
  };
  struct io_region where[MAX_REGIONS + 1];
  unsigned char *buf = g_malloc (2 * w->unit * SECTOR);
  struct dm_io_request req;
  unsigned int i, first, n;
  unsigned long expected;
  struct once once;

  choose_and_one_bad (w, where);
  once_begin (&once, 200);
  for (i = 0; i < once.rounds; i++) {
    req = vm_request (ops[rng_below (&w->rng, G_N_ELEMENTS (ops))], buf);
    first = rng_below (&w->rng, w->num_disks + 1);
    n = req.op == DM_IO_READ ? 1 :
      1 + rng_below (&w->rng, w->num_disks + 1 - first);
    expected = first + n <= w->num_disks || req.op == DM_IO_FLUSH ? 0 :
      1UL << (n - 1);
    once_submit (&once, i, &req, n, &where[first], expected);
    once_wait (&once);
  }
  once_end (&once);
  g_free (buf);
}

/* The same, with as many in flight as possible. */
static void
test_c1_once_in_flight (struct world *w)
{
  const struct dm_io_request req = vm_request (DM_IO_WRITE, w->arena);
  struct io_region where[MAX_REGIONS + 1];
  struct once once;
  unsigned int i;

  choose_and_one_bad (w, where);
  once_begin (&once, 500);
  for (i = 0; i < once.rounds; i++)
    once_submit (&once, i, &req, w->num_disks + 1, where,
                 1UL << w->num_disks);
  for (i = 0; i < once.rounds; i++)
    once_wait (&once);
  once_end (&once);
  world_wrote (w, where, w->num_disks, w->arena);
  world_check (w);
}

static void
test_c1_chain (struct world *w)
{
  struct io_region where[MAX_REGIONS + 1];

  choose_and_one_bad (w, where);
  run_chain (where, w->num_disks, w->arena, 0, 1, 1000);
  run_chain (where, w->num_disks, w->arena, 0, 3, 500);
  run_chain (where, w->num_disks + 1, w->arena, 1UL << w->num_disks, 3, 500);
  world_wrote (w, where, w->num_disks, w->arena);
  world_check (w);
}

static void
test_c1_many_threads (struct world *w)
{
  struct io_region where[MAX_REGIONS];

  world_regions (w, where, 0, w->sectors);
  many_threads (where, w->num_disks, w->unit * SECTOR, 3);
}

/* The threads of the library, and those of devices, end and start. */
static void
test_c1_start_and_stop (struct world *w)
{
  struct io_region where[MAX_REGIONS];
  unsigned int round, i;

  for (round = 0; round < 10; round++) {
    for (i = 0; i < w->num_disks; i++)
      kinds_reopen (w, i, 0);
    world_regions (w, where, 0, w->unit);
    run_ok (w->arena + round, DM_IO_WRITE, 0, w->num_disks, where,
            round % 2);
    world_wrote (w, where, w->num_disks, w->arena + round);
  }
  world_check (w);
}

static void
check_dying (struct world *w, enum dm_io_mem_type type, bool read)
{
  const unsigned int n = 16, num_regions = read ? 1 : w->num_disks;
  struct page *pages = new_pages (n), *expected = new_pages (n);
  struct io_region where[MAX_REGIONS];
  struct done done;
  unsigned int i;

  fill (pages, n * PAGE, type);
  for (i = 0; i < n; i++)
    expected[i] = pages[type == DM_IO_VM ? i : n-1-i];
  world_regions (w, where, 8, n * PAGE / SECTOR);
  if (read) {
    memcpy (expected, world_model (w, &where[0]), n * PAGE);
    memset (pages, 0xaa, n * PAGE);
  }
  submit_dying (new_dying (where, num_regions, type, pages, n),
                read ? DM_IO_READ : DM_IO_WRITE, num_regions, &done);
  g_assert_cmphex (done_wait (&done), ==, 0);
  for (i = 0; i < n; i++)
    assert_same (&pages[type == DM_IO_VM ? i : n-1-i], &expected[i], PAGE);
  if (!read)
    world_wrote (w, where, w->num_disks, expected);
  world_check (w);
  free (pages);
  free (expected);
}

static void
test_c2_lists_die (struct world *w)
{
  int type, i;

  for (i = 0; i < 5; i++)
    for (type = DM_IO_PAGE_LIST; type <= DM_IO_VM; type++) {
      check_dying (w, type, false);
      check_dying (w, type, true);
    }
}

static void
test_c3_signals (struct world *w)
{
  struct io_region where[MAX_REGIONS];

  world_regions (w, where, 0, w->sectors);
  signal_storm (where, w->num_disks);
}

static void
test_c3_signals_are_the_programs (struct world *w)
{
  struct io_region where[MAX_REGIONS];

  world_regions (w, where, 0, w->sectors);
  signals_are_the_programs (where, w->num_disks);
}

static void
test_c3_sync_in_callback (struct world *w)
{
  struct nested nested = {
    .outer = world_region (w, w->num_disks - 1, 4 * w->unit, w->unit),
    .n = w->num_disks, .callbacks = 200, .data = w->arena,
  };

  world_regions (w, nested.inner, 0, w->unit);
  nested_begin (&nested);
  nested_end (&nested);
  world_wrote (w, nested.inner, w->num_disks, w->arena);
  world_wrote (w, &nested.outer, 1, w->arena);
  world_check (w);
}

/*----------------------------------------------------------------------
 * M2
 */

static void *
get_and_put (void *context)
{
  struct world *w = context;
  struct io_region where[MAX_REGIONS];
  unsigned int i;

  world_regions (w, where, 0, w->unit);
  for (i = 0; i < 50; i++) {
    g_assert_cmpint (dm_io_get (1 + i % 3), ==, 0);
    run_ok (w->arena + 1, DM_IO_WRITE, 0, w->num_disks, where, i % 2);
    dm_io_put (1 + i % 3);
  }
  return NULL;
}

/* More requests than the reserve has, while it is got and put back; then
 * it is balanced.
 */
static void
test_m2_reserve (struct world *w)
{
  const struct dm_io_request req = vm_request (DM_IO_WRITE, w->arena + 1);
  struct io_region where[MAX_REGIONS];
  pthread_t threads[4];
  struct once once;
  unsigned int i;

  world_regions (w, where, 0, w->unit);
  once_begin (&once, 100);
  g_assert_cmpint (dm_io_get (4), ==, 0);
  for (i = 0; i < G_N_ELEMENTS (threads); i++)
    g_assert_cmpint (pthread_create (&threads[i], NULL, get_and_put, w),
                     ==, 0);
  for (i = 0; i < once.rounds; i++)
    once_submit (&once, i, &req, w->num_disks, where, 0);
  dm_io_put (4);
  for (i = 0; i < once.rounds; i++)
    once_wait (&once);
  for (i = 0; i < G_N_ELEMENTS (threads); i++)
    pthread_join (threads[i], NULL);
  once_end (&once);
  world_wrote (w, where, w->num_disks, w->arena + 1);
  world_check (w);

  dm_io_put (1);
  log_lines_assert ("*dm_io_put*", 1);
}

const struct world_case callback_cases[] = {
  { "c1-once", DISK_SECTORS, test_c1_once },
  { "c1-once-in-flight", DISK_SECTORS, test_c1_once_in_flight },
  { "c1-chain", DISK_SECTORS, test_c1_chain },
  { "c1-many-threads", MANY_SECTORS, test_c1_many_threads },
  { "c1-start-and-stop", DISK_SECTORS, test_c1_start_and_stop },
  { "c2-lists-die", DISK_SECTORS, test_c2_lists_die },
  { "c3-signals", DISK_SECTORS, test_c3_signals },
  { "c3-signals-are-the-programs", DISK_SECTORS,
    test_c3_signals_are_the_programs },
  { "c3-sync-in-callback", DISK_SECTORS, test_c3_sync_in_callback },
  { "m2-reserve", DISK_SECTORS, test_m2_reserve },
  { NULL, 0, NULL },
};
