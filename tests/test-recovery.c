/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Recovery (S1) and what a crash leaves (R2): what is copied from where to
 * where, beside clients, with errors, and that it is not done twice.
 */

#include <config.h>

#include "clock.h"
#include "volume.h"

#define PIECE 2048              /* sectors that are copied at once */
#define MANY_CHUNKS 64

/* Different bytes on each of these legs. */
static void
fill_legs (struct volume *v, unsigned long legs)
{
  g_autofree unsigned char *buf = g_malloc (v->sectors * SECTOR);
  unsigned int i;

  for (i = 0; i < v->num_legs; i++)
    if (legs & BIT (i)) {
      fill (buf, v->sectors * SECTOR, i + 1);
      mock_set (v->legs[i], LEG_START (i) * SECTOR, buf,
                v->sectors * SECTOR);
    }
}

/* A volume of which only leg 0 is in sync. */
static void
open_new (struct volume *v, unsigned int num_legs, sector_t sectors,
          sector_t chunk, const struct mock_options *options)
{
  volume_again (v, num_legs, sectors, chunk, BIT (0), options);
  fill_legs (v, BIT (num_legs) - 1);
}

/* The power is lost while these chunks, of which CHUNKS is a set, are written;
 * then each leg has something else there.
 */
static void
crash_dirty (struct volume *v, unsigned long chunks)
{
  unsigned int chunk, leg;

  volume_start_quiet (v);
  for (chunk = 0; chunk < CHUNKS; chunk++)
    if (chunks & BIT (chunk))
      g_assert_true (volume_write (v, 1, chunk * CHUNK, 1));
  volume_crash (v, 1);
  for (chunk = 0; chunk < CHUNKS; chunk++)
    for (leg = 0; leg < v->num_legs; leg++)
      if (chunks & BIT (chunk))
        leg_set (v, leg, 0x10 * leg + chunk, chunk * CHUNK, CHUNK);
}

static void
assert_leg_0_copied (struct volume *v)
{
  g_autofree unsigned char *expected = g_malloc (v->sectors * SECTOR);

  fill (expected, v->sectors * SECTOR, 1);
  assert_same (mock_data (v->legs[0]), expected, v->sectors * SECTOR);
  volume_assert_alike (v, v->given);
}

/*----------------------------------------------------------------------
 * Sizes (R14)
 */

static const struct size {
  sector_t sectors, chunk;
} sizes[] = {
  { 50, CHUNK },                /* less than a chunk */
  { 1, CHUNK },
  { CHUNK, CHUNK },
  { 3 * CHUNK + 5, CHUNK },
  { PIECE + 1, PIECE },         /* the last piece is one sector */
  { 2 * 4 * PIECE + PIECE + 77, 4 * PIECE }, /* chunks of several pieces */
  { 65 * CHUNK, CHUNK },
};

static void
test_r14_recovery (struct volume *v, unsigned int unused)
{
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (sizes); i++) {
    open_new (v, LEGS, sizes[i].sectors, sizes[i].chunk, &volume_plain);
    volume_start (v);
    g_assert_cmpuint (leg_lacks (v, 1), <=, sizes[i].sectors * SECTOR);
    volume_await_in_sync (v);
    assert_leg_0_copied (v);
    g_assert_cmpuint (mock_changed (v->legs[1]), ==,
                      sizes[i].sectors * SECTOR);
    g_assert_cmpuint (mock_changed (v->legs[0]), ==, 0);
  }
}

/* The last chunk is the one that a crash has left different. */
static void
test_r14_reconciling (struct volume *v, unsigned int unused)
{
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (sizes); i++) {
    volume_again (v, LEGS, sizes[i].sectors, sizes[i].chunk, ALL_LEGS,
                  &volume_plain);
    volume_start_quiet (v);
    g_assert_true (volume_write (v, 1, sizes[i].sectors - 1, 1));
    volume_crash (v, i);
    leg_set (v, 0, 3, sizes[i].sectors - 1, 1);
    leg_set (v, 2, 4, sizes[i].sectors - 1, 1);
    volume_start (v);
    volume_await_in_sync (v);
    volume_assert_alike (v, ALL_LEGS);
  }
}

/*----------------------------------------------------------------------
 * After a crash (R2)
 */

/* A reader makes equal what it reads: no copier has been there. */
static void
test_reader_reconciles (struct volume *v, unsigned int unused)
{
  unsigned int leg;

  crash_dirty (v, BIT (2) | BIT (5));
  volume_clear_traces (v);
  volume_start_quiet (v);
  g_assert_cmpint (volume_read (v, 5 * CHUNK + 7), ==, 5);
  for (leg = 0; leg < LEGS; leg++) {
    g_assert_cmpint (leg_byte (v, leg, 5 * CHUNK), ==, 5);
    g_assert_cmpint (leg_byte (v, leg, 6 * CHUNK - 1), ==, 5);
    g_assert_cmpint (leg_byte (v, leg, 2 * CHUNK), ==, 0x10 * leg + 2);
  }
  /* Also after one more crash, and when another leg is read. */
  volume_crash (v, 2);
  for (leg = 0; leg < LEGS; leg++)
    g_assert_cmpint (leg_byte (v, leg, 5 * CHUNK + 7), ==, 5);
}

/* There is nothing left for copiers then. */
static void
test_reader_was_first (struct volume *v, unsigned int unused)
{
  crash_dirty (v, BIT (5));
  volume_start_quiet (v);
  g_assert_false (dm_mirror_is_in_sync (v->mirror));
  g_assert_cmpint (volume_read (v, 5 * CHUNK), ==, 5);
  g_assert_cmpint (dm_mirror_start (v->mirror), ==, 0);
  volume_await_in_sync (v);
}

/* It does so while all copiers are held elsewhere. */
static void
test_reader_beside_copiers (struct volume *v, unsigned int unused)
{
  const struct mock_fault hold = {
    .ops = MOCK_READ, .gate = &v->gate, .length = 4 * CHUNK * SECTOR,
  };

  crash_dirty (v, 0x3f);
  mock_fault (v->legs[0], &hold);
  volume_start (v);
  mock_gate_await (&v->gate, 4);
  g_assert_false (dm_mirror_is_in_sync (v->mirror));
  g_assert_cmpint (volume_read (v, 5 * CHUNK + 7), ==, 5);
  g_assert_cmpint (leg_byte (v, 2, 5 * CHUNK), ==, 5);
  mock_gate_open (&v->gate);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
}

/* A write to a part of such a chunk leaves the rest of it to be made equal. */
static void
test_write_unreconciled (struct volume *v, unsigned int unused)
{
  crash_dirty (v, BIT (1));
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 9, CHUNK + 3, 1));
  g_assert_cmpint (leg_byte (v, 2, CHUNK), ==, 0x21);
  volume_stop (v);
  volume_start_quiet (v);
  g_assert_true (log_is_dirty (v, 1));
  g_assert_cmpint (volume_read (v, CHUNK), ==, 1);
  g_assert_cmpint (volume_read (v, CHUNK + 3), ==, 9);
  volume_assert_alike (v, ALL_LEGS);
}

/* The leg that is copied from fails: nothing is zeroed, the next one is. */
static void
test_reconcile_read_error (struct volume *v, unsigned int unused)
{
  unsigned int leg;

  crash_dirty (v, BIT (1));
  volume_fail (v, 0, MOCK_READ, EIO, CHUNK, CHUNK);
  volume_start_quiet (v);
  g_assert_cmpint (volume_read (v, CHUNK + 1), ==, 0x11);
  for (leg = 1; leg < LEGS; leg++)
    g_assert_cmpint (leg_byte (v, leg, CHUNK), ==, 0x11);
}

/* No leg can be read there: the reader is told, and it stays to be done. */
static void
test_reconcile_unreadable (struct volume *v, unsigned int unused)
{
  unsigned int leg;

  crash_dirty (v, BIT (1));
  for (leg = 0; leg < LEGS; leg++)
    volume_fail (v, leg, MOCK_READ, EIO, CHUNK, CHUNK);
  volume_start_quiet (v);
  g_assert_cmpint (volume_read (v, CHUNK + 1), ==, -1);
  for (leg = 0; leg < LEGS; leg++)
    g_assert_cmpint (leg_byte (v, leg, CHUNK), ==, 0x10 * leg + 1);
  g_assert_true (log_is_dirty (v, 1));
  volume_heal (v);
  g_assert_cmpint (volume_read (v, CHUNK + 1), ==, 1);
}

/* A leg cannot take what it is to be made equal to: it is out of sync. */
static void
test_reconcile_write_error (struct volume *v, unsigned int ops)
{
  crash_dirty (v, BIT (1));
  volume_kill (v, 1, ops, EIO);
  volume_start_quiet (v);
  g_assert_cmpint (volume_read (v, CHUNK + 1), ==, 1);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_FAILED);
  g_assert_true (log_lacks (v, 1, 1));
  volume_assert_alike (v, BIT (0) | BIT (2));
}

/* Only one leg is left in sync: it is written again what it shows, which it may not have
 * kept.
 */
static void
test_reconcile_one_leg (struct volume *v, unsigned int unused)
{
  crash_dirty (v, BIT (1));
  v->given = BIT (1);
  v->options.degraded = true;
  volume_clear_traces (v);
  volume_start (v);
  g_assert_cmpint (volume_read (v, CHUNK), ==, 0x11);
  AWAIT (dm_log_next_unreconciled (v->log, 0, CHUNKS) == CHUNKS);
  g_assert_cmpuint (mock_changed (v->legs[1]), >, 0);
  g_assert_cmpuint (volume_find_event (v->legs[1], CHANGES, true)->end, <,
                    volume_find_event (v->legs[1], MOCK_FLUSH, true)->begin);
  volume_stop (v);
  v->given = ALL_LEGS;
  volume_start (v);
  volume_await_in_sync (v);
  g_assert_cmpint (leg_byte (v, 0, CHUNK), ==, 0x11);
  volume_assert_alike (v, ALL_LEGS);
}

/* What is mapped is what will be read. */
static void
test_extents (struct volume *v, unsigned int unused)
{
  struct bdev_extent extents[8];
  unsigned int leg;
  int n;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, CHUNK, 1));
  g_assert_true (volume_write (v, 1, 3 * CHUNK, 1));
  volume_crash (v, 1);
  leg_set (v, 1, 7, CHUNK + 8, 8);
  leg_set (v, 0, 8, CHUNK + 16, 8);
  volume_start_quiet (v);
  n = dm_mirror_extents (v->mirror, CHUNK, SECTORS - CHUNK, extents, 8);
  g_assert_cmpint (n, >=, 1);
  for (leg = 0; leg < LEGS; leg++) {
    g_assert_cmpint (leg_byte (v, leg, CHUNK + 8), ==, 0);
    g_assert_cmpint (leg_byte (v, leg, CHUNK + 16), ==, 8);
  }
  /* Not beyond what is the same on all legs. */
  while (n-- > 1)
    extents[0].length += extents[n].length;
  g_assert_cmpuint (extents[0].length, <=, 2 * CHUNK * SECTOR);
}

/*----------------------------------------------------------------------
 * Beside clients (R7)
 */

/* A write to what is just being copied comes after it, on all legs. */
static void
test_r7_write (struct volume *v, unsigned int unused)
{
  struct client writer = {
    .v = v, .what = CLIENT_WRITE, .byte = 9, .sector = 3, .count = 2,
  };

  open_new (v, 2, 4 * PIECE, PIECE, &volume_plain);
  volume_hold (v->legs[1], MOCK_WRITE, &v->gate);
  volume_start (v);
  mock_gate_await (&v->gate, 1);
  client_start (&writer);
  g_assert_false (client_ends_soon (&writer));
  mock_gate_open (&v->gate);
  g_assert_true (client_finish (&writer));
  volume_await_in_sync (v);
  g_assert_cmpint (leg_byte (v, 1, 3), ==, 9);
  volume_assert_alike (v, BIT (0) | BIT (1));
}

/* One to what will be copied goes to the target too, and one to what has
 * been.
 */
static void
test_r7_elsewhere (struct volume *v, unsigned int unused)
{
  const struct mock_fault hold = {
    .ops = MOCK_READ, .gate = &v->gate, .offset = PIECE * SECTOR,
    .length = SECTOR,
  };

  open_new (v, 2, 4 * PIECE, PIECE, &volume_plain);
  mock_fault (v->legs[0], &hold);
  volume_start (v);
  mock_gate_await (&v->gate, 1);
  g_assert_true (volume_write (v, 5, 1, 1));
  g_assert_true (volume_write (v, 6, 4 * PIECE - 1, 1));
  g_assert_cmpint (leg_byte (v, 1, 1), ==, 5);
  g_assert_cmpint (leg_byte (v, 1, 4 * PIECE - 1), ==, 6);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_RECOVERING);
  mock_gate_open (&v->gate);
  volume_await_in_sync (v);
  g_assert_cmpint (leg_byte (v, 1, 1), ==, 5);
  g_assert_cmpint (leg_byte (v, 1, 4 * PIECE - 1), ==, 6);
  volume_assert_alike (v, BIT (0) | BIT (1));
}

/*----------------------------------------------------------------------
 * Errors (R8, R9)
 */

/* The source cannot be read in one place; another can. */
static void
test_r8_other_source (struct volume *v, unsigned int unused)
{
  volume_again (v, LEGS, 4 * PIECE, PIECE, BIT (0) | BIT (1),
                &volume_plain);
  fill_legs (v, BIT (2));
  leg_set (v, 0, 7, 0, 4 * PIECE);
  leg_set (v, 1, 7, 0, 4 * PIECE);
  volume_fail (v, 0, MOCK_READ, EIO, 2 * PIECE + 5, 1);
  volume_start (v);
  volume_await_in_sync (v);
  g_assert_cmpint (leg_byte (v, 2, 2 * PIECE + 5), ==, 7);
  volume_assert_alike (v, ALL_LEGS);
  g_assert_cmpuint (log_lines_count ("*leg0*read*failed*to copy it*"), >=,
                    1);
}

/* The first leg is out altogether: the second is the source (R9). */
static void
test_r9_next_source (struct volume *v, unsigned int unused)
{
  const struct mock_fault hold = {
    .ops = MOCK_READ, .gate = &v->gate, .offset = PIECE * SECTOR,
    .length = SECTOR, .error = EIO,
  };

  volume_again (v, LEGS, 4 * PIECE, PIECE, BIT (0) | BIT (1),
                &volume_plain);
  fill_legs (v, BIT (2));
  volume_start_quiet (v);
  mock_fault (v->legs[0], &hold);
  g_assert_cmpint (dm_mirror_start (v->mirror), ==, 0);
  mock_gate_await (&v->gate, 1);
  volume_kill (v, 0, MOCK_ANY, ENXIO);
  g_assert_true (volume_write (v, 4, 4 * PIECE - 1, 1));
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_FAILED);
  mock_gate_open (&v->gate);
  volume_await_state (v, 2, DM_MIRROR_IN_SYNC);
  volume_assert_alike (v, BIT (1) | BIT (2));
  g_assert_cmpint (leg_byte (v, 2, 4 * PIECE - 1), ==, 4);
}

/* The target fails.  It is the one to blame, and lacks what it did not get;
 * when it can be used again it gets it.
 */
static void
test_r8_target (struct volume *v, unsigned int ops)
{
  open_new (v, 2, 4 * PIECE, PIECE, &volume_plain);
  volume_fail (v, 1, ops, ENOSPC, ops == MOCK_FLUSH ? 0 : 2 * PIECE,
               ops == MOCK_FLUSH ? 0 : 1);
  volume_hold (v->legs[0], MOCK_READ, &v->gate);
  volume_start (v);
  mock_gate_await (&v->gate, 1);
  mock_set_revive (v->legs[1], 0, -EIO);
  mock_gate_open (&v->gate);
  volume_await_state (v, 1, DM_MIRROR_FAILED);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_IN_SYNC);
  g_assert_true (log_lacks (v, 1, 2));
  volume_stop (v);
  volume_heal (v);
  volume_start (v);
  volume_await_in_sync (v);
  assert_leg_0_copied (v);
}

/*----------------------------------------------------------------------
 * Interrupted (R6)
 */

/* Stopped and started again, it goes on: nothing is wrongly in sync, and
 * not all is copied again.
 */
static void
test_r6_stopped (struct volume *v, unsigned int crash)
{
  const uint64_t all = MANY_CHUNKS * PIECE / 8 * SECTOR;
  uint64_t left;

  open_new (v, 2, MANY_CHUNKS * PIECE / 8, PIECE / 8, &volume_plain);
  v->options.resync_rate = all / 4;
  volume_start (v);
  AWAIT (leg_lacks (v, 1) <= all / 2);
  g_assert_cmpuint (leg_lacks (v, 1), >, 0);
  if (crash)
    volume_crash (v, 1);
  else
    volume_stop (v);

  v->options.resync_rate = 0;
  volume_load (v);
  left = dm_log_lacking (v->log, 1) * PIECE / 8 * SECTOR;
  /* What was recorded last may not have been durable. */
  g_assert_cmpuint (left, <=, crash ? all - 1 : all / 2);
  g_assert_cmpint (log_state (v, 1), ==, DM_LOG_OUT_OF_SYNC);
  volume_clear_traces (v);
  volume_start (v);
  volume_await_in_sync (v);
  g_assert_cmpuint (mock_changed (v->legs[1]), ==, left);
  assert_leg_0_copied (v);
}

/* S1: what was copied counts only after the target was flushed. */
static void
test_s1_flushed (struct volume *v, unsigned int unused)
{
  open_new (v, 2, SECTORS, CHUNK, &volume_plain);
  volume_hold (v->legs[1], MOCK_FLUSH, &v->gate);
  volume_start (v);
  mock_gate_await (&v->gate, 1);
  g_assert_cmpuint (leg_lacks (v, 1), ==, SECTORS * SECTOR);
  mock_power_off ();
  mock_gate_open (&v->gate);
  volume_crash (v, 1);
  volume_load (v);
  g_assert_cmpuint (dm_log_lacking (v->log, 1), ==, CHUNKS);
  volume_start (v);
  volume_await_in_sync (v);
  assert_leg_0_copied (v);
}

/* The power is lost after each operation in turn. */
static void
test_r6_any_point (struct volume *v, unsigned int unused)
{
  unsigned int n;
  bool cut = true;

  for (n = 1; cut; n++) {
    open_new (v, 2, 2 * CHUNK + 9, CHUNK, &volume_plain);
    volume_start_quiet (v);
    mock_power_off_after (n);
    g_assert_cmpint (dm_mirror_start (v->mirror), ==, 0);
    AWAIT (mock_power_is_off () || dm_mirror_is_in_sync (v->mirror));
    cut = mock_power_is_off ();
    volume_crash (v, n);
    volume_start (v);
    volume_await_in_sync (v);
    assert_leg_0_copied (v);
  }
  g_assert_cmpuint (n, >, 5);
}

/*----------------------------------------------------------------------
 * Holes
 */

/* What is a hole on the source becomes one on the target, and what is one on
 * both is not touched.
 */
static void
test_holes (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0), &volume_thin);
  leg_set (v, 0, 7, CHUNK, 8);
  leg_set (v, 0, 7, 5 * CHUNK - 4, 8);
  leg_set (v, 1, 8, 3 * CHUNK + 8, 16); /* of old */
  volume_clear_traces (v);
  volume_start (v);
  volume_await_in_sync (v);
  volume_assert_alike (v, BIT (0) | BIT (1));
  g_assert_cmpuint (mock_allocated (v->legs[1]), <=, 16 * SECTOR);
  g_assert_cmpuint (mock_changed (v->legs[1]), <=, 6 * CHUNK * SECTOR);
  g_assert_cmpuint (mock_count (v->legs[0], MOCK_READ), <=, 2);
}

/* Holes on both: no transfer at all, however large. */
static void
test_all_holes (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, 16 * PIECE, PIECE, BIT (0), &volume_thin);
  volume_clear_traces (v);
  volume_start (v);
  volume_await_in_sync (v);
  g_assert_cmpuint (mock_count (v->legs[0], MOCK_READ), ==, 0);
  g_assert_cmpuint (mock_count (v->legs[1], MOCK_READ | CHANGES), ==, 0);
}

/* Zeroes that take space on the source take none on the target; and where
 * the source cannot tell either.
 */
static void
test_zeroes (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0), &volume_thin);
  leg_set (v, 0, 0, 0, SECTORS);
  leg_set (v, 1, 5, 2 * CHUNK, 8);
  volume_start (v);
  volume_await_in_sync (v);
  volume_assert_alike (v, BIT (0) | BIT (1));
  g_assert_cmpuint (mock_allocated (v->legs[1]), ==, 0);
}

/* A leg that knows no holes gets zeroes. */
static void
test_no_holes (struct volume *v, unsigned int unused)
{
  open_new (v, 2, SECTORS, CHUNK, &volume_plain);
  leg_set (v, 0, 0, CHUNK, 3 * CHUNK);
  volume_start (v);
  volume_await_in_sync (v);
  volume_assert_alike (v, BIT (0) | BIT (1));
  g_assert_cmpint (leg_byte (v, 1, 2 * CHUNK), ==, 0);
}

/*----------------------------------------------------------------------
 * Pace and progress
 */

/* As fast as the user wants it, about. */
static void
test_rate (struct volume *v, unsigned int unused)
{
  const uint64_t bytes = 4 * PIECE * SECTOR;
  gint64 begun;
  double took;

  open_new (v, 2, 4 * PIECE, PIECE, &volume_plain);
  v->options.resync_rate = 2 * bytes;
  begun = g_get_monotonic_time ();
  volume_start (v);
  volume_await_in_sync (v);
  took = (double) (g_get_monotonic_time () - begun) / G_USEC_PER_SEC;
  g_assert_cmpfloat (took, >, 0.35);
  g_assert_cmpfloat (took, <, 10);
}

/* R15: it does not keep anybody from stopping the mirror. */
static void
test_r15_stopped (struct volume *v, unsigned int unused)
{
  gint64 begun;

  open_new (v, 2, 4 * PIECE, PIECE, &volume_plain);
  v->options.resync_rate = 1000;
  volume_start (v);
  AWAIT (mock_changed (v->legs[1]) > 0);
  begun = g_get_monotonic_time ();
  volume_stop (v);
  g_assert_cmpint (g_get_monotonic_time () - begun, <, AT_ONCE_US);
}

/* Progress goes one way, and stays within what there is to do. */
static void
test_progress (struct volume *v, unsigned int unused)
{
  const uint64_t all = MANY_CHUNKS * CHUNK * SECTOR;
  uint64_t left = all, reconcile;
  struct dm_mirror_status s;
  bool more = true;
  unsigned int chunk;

  volume_again (v, LEGS, MANY_CHUNKS * CHUNK, CHUNK, BIT (0) | BIT (1),
                &volume_plain);
  fill_legs (v, BIT (2));
  volume_start_quiet (v);
  for (chunk = 0; chunk < MANY_CHUNKS; chunk += 8)
    g_assert_true (volume_write (v, 1, chunk * CHUNK, 1));
  volume_crash (v, 1);
  v->options.resync_rate = 2 * all;
  volume_start (v);
  reconcile = all / 8;
  while (more) {
    dm_mirror_get_status (v->mirror, &s);
    more = s.legs[2].state == DM_MIRROR_RECOVERING ||
      s.legs[2].state == DM_MIRROR_OUT_OF_SYNC;
    g_assert_cmpuint (s.size, ==, all);
    g_assert_cmpuint (s.chunk, ==, CHUNK * SECTOR);
    g_assert_cmpuint (s.legs[2].out_of_sync, <=, left);
    if (s.legs[2].state == DM_MIRROR_RECOVERING)
      g_assert_cmpuint (s.legs[2].to_copy, ==, all);
    g_assert_cmpuint (s.to_reconcile, <=, reconcile);
    g_assert_cmpuint (s.in_sync, ==, more ? 2 : 3);
    left = s.legs[2].out_of_sync;
    reconcile = s.to_reconcile;
    dm_mirror_status_clear (&s);
    g_usleep (2000);
  }
  g_assert_cmpuint (left, ==, 0);
  volume_await_in_sync (v);
}

static const struct volume_test tests[] = {
  { "r14-sizes/recovery", test_r14_recovery, 0, &volume_plain },
  { "r14-sizes/reconciling", test_r14_reconciling, 0, &volume_plain },
  { "r2-reader-reconciles", test_reader_reconciles, 0, &volume_plain },
  { "r2-reader-was-first", test_reader_was_first, 0, &volume_plain },
  { "r2-reader-beside-copiers", test_reader_beside_copiers, 0,
    &volume_plain },
  { "r2-write", test_write_unreconciled, 0, &volume_plain },
  { "r2-read-error", test_reconcile_read_error, 0, &volume_plain },
  { "r2-unreadable", test_reconcile_unreadable, 0, &volume_plain },
  { "r2-write-error", test_reconcile_write_error, MOCK_WRITE,
    &volume_plain },
  { "r2-flush-error", test_reconcile_write_error, MOCK_FLUSH,
    &volume_plain },
  { "r2-one-leg", test_reconcile_one_leg, 0, &volume_plain },
  { "r2-extents", test_extents, 0, &volume_thin },
  { "r7-write-to-what-is-copied", test_r7_write, 0, &volume_plain },
  { "r7-write-elsewhere", test_r7_elsewhere, 0, &volume_plain },
  { "r8-other-source", test_r8_other_source, 0, &volume_plain },
  { "r9-next-source", test_r9_next_source, 0, &volume_plain },
  { "r8-target/write", test_r8_target, MOCK_WRITE, &volume_plain },
  { "r8-target/flush", test_r8_target, MOCK_FLUSH, &volume_plain },
  { "r6-stopped", test_r6_stopped, false, &volume_plain },
  { "r6-stopped/crash", test_r6_stopped, true, &volume_plain },
  { "r6-any-point", test_r6_any_point, 0, &volume_plain },
  { "s1-flushed", test_s1_flushed, 0, &volume_plain },
  { "holes", test_holes, 0, &volume_thin },
  { "holes/all", test_all_holes, 0, &volume_thin },
  { "holes/zeroes", test_zeroes, 0, &volume_thin },
  { "holes/none", test_no_holes, 0, &volume_plain },
  { "resync-rate", test_rate, 0, &volume_plain },
  { "r15-stopped", test_r15_stopped, 0, &volume_plain },
  { "progress", test_progress, 0, &volume_plain },
};

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  VOLUME_ADD_TESTS ("/recovery/", tests);
  return g_test_run ();
}
