/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* R10: a leg that cannot be read somewhere, while others can: they serve the
 * reader, and it is rewritten, or is no longer in sync.  What any leg in sync can
 * read is read, block for block, also to copy it.
 */

#include <config.h>

#include "volume.h"

#define PIECE 2048              /* sectors that are rewritten at once */
#define AT (3 * CHUNK + 5)

/* The next N reads of leg 0 there fail. */
static void
fail_reads (struct volume *v, unsigned int n)
{
  const struct mock_fault fault = {
    .ops = MOCK_READ, .times = n, .error = EIO,
    .offset = (LEG_START (0) + AT) * SECTOR, .length = SECTOR,
  };

  mock_fault (v->legs[0], &fault);
}

static void
start (struct volume *v)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 4, 0, v->sectors));
  volume_stop (v);
  volume_start_quiet (v);
  volume_clear_traces (v);
}

/* It is written again, with the log knowing that it is, and stays in sync. */
static void
test_repaired (struct volume *v, unsigned int unused)
{
  const struct mock_event *leg, *copy;
  size_t n;

  start (v);
  fail_reads (v, 1);
  g_assert_cmpint (volume_read (v, AT), ==, 4);
  g_assert_cmpuint (mock_changed (v->legs[0]), ==, SECTOR);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
  g_assert_cmpuint (log_lines_count ("*leg0*512 bytes at offset 199168 that "
                                     "could not be read have been written "
                                     "again"), ==, 1);
  copy = mock_trace (v->copies[0], &n);
  g_assert_cmpuint (n, >=, 1);
  leg = mock_trace (v->legs[0], &n);
  while (leg->op != MOCK_WRITE)
    leg++;
  g_assert_cmpuint (copy->end, <, leg->begin);

  volume_clear_traces (v);
  g_assert_cmpint (volume_read (v, AT), ==, 4);
  g_assert_cmpuint (mock_count (v->legs[0], MOCK_READ), ==, 1);
}

/* It cannot be rewritten, or not be read then either: it lacks that. */
static void
test_fails (struct volume *v, unsigned int rewritten)
{
  start (v);
  fail_reads (v, 0);
  mock_set_revive (v->legs[0], 0, -EIO);
  if (!rewritten)
    volume_fail (v, 0, MOCK_WRITE, EIO, AT, 1);
  g_assert_cmpint (volume_read (v, AT), ==, 4);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_FAILED);
  g_assert_true (log_lacks (v, 0, 3));
  g_assert_cmpuint (leg_lacks (v, 0), ==, CHUNK * SECTOR);
  volume_crash (v, 1);
  volume_heal (v);
  volume_start_quiet (v);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_OUT_OF_SYNC);
}

/* No leg can be read: nothing is written over what may be good, and all stay
 * in sync.
 */
static void
test_unreadable (struct volume *v, unsigned int unused)
{
  unsigned int leg;

  start (v);
  for (leg = 0; leg < LEGS; leg++)
    volume_fail (v, leg, MOCK_READ, EIO, AT, 1);
  g_assert_cmpint (volume_read (v, AT), ==, -1);
  for (leg = 0; leg < LEGS; leg++) {
    g_assert_cmpint (v->results[leg].error, ==, EIO);
    g_assert_cmpuint (mock_count (v->legs[leg], CHANGES), ==, 0);
    g_assert_cmpint (leg_byte (v, leg, AT), ==, 4);
  }
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
}

/* Two cannot be, and the third is their source. */
static void
test_two_legs (struct volume *v, unsigned int unused)
{
  const struct mock_fault once = {
    .ops = MOCK_READ, .error = EIO, .until_written = true,
  };

  v->options.policy = DM_MIRROR_READ_FIRST;
  start (v);
  mock_fault (v->legs[0], &once);
  mock_fault (v->legs[1], &once);
  g_assert_cmpint (volume_read (v, AT), ==, 4);
  g_assert_cmpuint (mock_changed (v->legs[0]), ==, SECTOR);
  g_assert_cmpuint (mock_changed (v->legs[1]), ==, SECTOR);
  g_assert_cmpuint (mock_changed (v->legs[2]), ==, 0);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
  g_assert_cmpuint (log_lines_count ("*could not be read have been written again"), ==,
                    2);
}

/* One that is read to rewrite another turns out to have a bad sector there, too: both are
 * rewritten from the third.
 */
static void
test_source_has_one (struct volume *v, unsigned int unused)
{
  const struct mock_fault second = {
    .ops = MOCK_READ, .after = 1, .error = EIO, .until_written = true,
  };

  v->options.policy = DM_MIRROR_READ_FIRST;
  start (v);
  fail_reads (v, 1);
  mock_fault (v->legs[1], &second);
  g_assert_cmpint (volume_read (v, AT), ==, 4);
  g_assert_cmpuint (mock_changed (v->legs[0]), ==, SECTOR);
  g_assert_cmpuint (mock_changed (v->legs[1]), ==, SECTOR);
  g_assert_cmpuint (mock_changed (v->legs[2]), ==, 0);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
  g_assert_cmpuint (log_lines_count ("*512 bytes at offset 199168 that could not be "
                                     "read have been written again"), ==, 2);
}

/* It is read again when leg 0 could not be rewritten, and then leg 1 has a bad sector, too. */
static void
test_again_has_one (struct volume *v, unsigned int unused)
{
  const struct mock_fault third = {
    .ops = MOCK_READ, .after = 2, .error = EIO, .until_written = true,
  };

  v->options.policy = DM_MIRROR_READ_FIRST;
  start (v);
  fail_reads (v, 1);
  volume_kill (v, 0, MOCK_WRITE, EIO);
  mock_fault (v->legs[1], &third);
  g_assert_cmpint (volume_read (v, AT), ==, 4);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_FAILED);
  g_assert_cmpuint (mock_changed (v->legs[1]), ==, SECTOR);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS - 1);
}

/* Leg 0 cannot be flushed, so what is dirty is written again; leg 1 says that it is zero,
 * but cannot be read: it is written all the same.
 */
static void
test_zero (struct volume *v, unsigned int unused)
{
  const struct mock_fault unknown = { .ops = MOCK_EXTENTS, .times = 1, .error = EIO };
  const struct mock_fault bad = { .ops = MOCK_READ, .error = EIO, .until_written = true };

  volume_again (v, 2, SECTORS, CHUNK, BIT (0) | BIT (1), &volume_thin);
  volume_start_quiet (v);
  volume_fail (v, 0, MOCK_WRITE, EIO, 0, 0);
  volume_fail (v, 1, MOCK_WRITE, ENOSPC, 0, 0);
  g_assert_false (volume_write_fua (v, 1, AT, 1));
  volume_heal (v);
  mock_fault (v->legs[1], &unknown);
  mock_fault (v->legs[1], &bad);
  g_assert_cmpint (volume_read (v, AT), ==, 0);
  g_assert_cmpuint (volume_in_sync (v), ==, 2);
  volume_assert_alike (v, BIT (0) | BIT (1));
}

/* A large read, with a bad sector in one of its pieces. */
static void
test_pieces (struct volume *v, unsigned int unused)
{
  g_autofree unsigned char *buf = NULL;
  const sector_t sectors = 3 * PIECE + 9;

  volume_again (v, 2, sectors, CHUNK, BIT (0) | BIT (1), &volume_plain);
  start (v);
  fail_reads (v, 1);
  buf = g_malloc0 (sectors * SECTOR);
  g_assert_true (dm_mirror_read (v->mirror, buf, 0, sectors, v->results));
  g_assert_cmpint (buf[0], ==, 4);
  assert_same (buf, buf + 1, sectors * SECTOR - 1);
  volume_assert_alike (v, BIT (0) | BIT (1));
  g_assert_cmpuint (mock_changed (v->legs[0]), ==, sectors * SECTOR);
}

/* A client writes there meanwhile: what it writes is not overwritten. */
static void
test_write_meanwhile (struct volume *v, unsigned int unused)
{
  const struct mock_fault second = {
    .ops = MOCK_READ, .after = 1, .gate = &v->gate,
  };
  struct client reader = { .v = v, .what = CLIENT_READ, .sector = AT };
  struct client writer = {
    .v = v, .what = CLIENT_WRITE, .byte = 5, .sector = AT, .count = 1,
  };

  start (v);
  fail_reads (v, 1);
  mock_fault (v->legs[1], &second);
  client_start (&reader);
  mock_gate_await (&v->gate, 1);   /* the reader has it, this is the repair */
  client_start (&writer);
  g_assert_false (client_ends_soon (&writer));
  mock_gate_open (&v->gate);
  g_assert_true (client_finish (&reader));
  g_assert_true (reader.byte == 4 || reader.byte == 5);
  g_assert_true (client_finish (&writer));
  g_assert_cmpint (leg_byte (v, 0, AT), ==, 5);
  volume_assert_alike (v, ALL_LEGS);
}

/* No other leg is in sync: there is nothing to repair it with, and it stays. */
static void
test_last_leg (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0), &volume_plain);
  leg_set (v, 0, 4, 0, SECTORS);
  volume_start_quiet (v);
  volume_clear_traces (v);
  fail_reads (v, 0);
  g_assert_cmpint (volume_read (v, AT), ==, -1);
  g_assert_cmpint (volume_read (v, AT + 1), ==, 4);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_IN_SYNC);
  g_assert_cmpuint (mock_count (v->legs[0], CHANGES), ==, 0);
  g_assert_cmpuint (mock_count (v->legs[1], MOCK_READ), ==, 0);
}

/*----------------------------------------------------------------------
 * Each leg has a bad sector, at another place
 */

static void
spoil_sectors (struct volume *v, unsigned int legs)
{
  struct mock_fault fault = {
    .ops = MOCK_READ, .error = EIO, .length = SECTOR, .until_written = true,
  };
  unsigned int leg;

  for (leg = 0; leg < legs; leg++) {
    fault.offset = (LEG_START (leg) + 2 * CHUNK + 7 + leg) * SECTOR;
    mock_fault (v->legs[leg], &fault);
  }
}

static bool
read_chunk (struct volume *v, unsigned char *buf)
{
  return dm_mirror_read (v->mirror, buf, 2 * CHUNK, CHUNK, v->results);
}

static void
test_each_has_one (struct volume *v, unsigned int unused)
{
  unsigned char buf[CHUNK * SECTOR];

  start (v);
  spoil_sectors (v, LEGS);
  g_assert_true (read_chunk (v, buf));
  g_assert_cmpint (buf[0], ==, 4);
  assert_same (buf, buf + 1, sizeof buf - 1);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
}

/* No leg can read one sector: the others are read all the same. */
static void
test_all_have_it (struct volume *v, unsigned int unused)
{
  unsigned char buf[CHUNK * SECTOR];
  unsigned int leg;

  start (v);
  for (leg = 0; leg < LEGS; leg++)
    volume_fail (v, leg, MOCK_READ, EIO, 2 * CHUNK + 7, 1);
  g_assert_false (read_chunk (v, buf));
  g_assert_cmpint (volume_read (v, 2 * CHUNK + 6), ==, 4);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
}

static void
crash_while_dirty (struct volume *v)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 4, 0, v->sectors));
  g_assert_true (volume_flush (v));
  volume_crash (v, 1);
  leg_set (v, 1, 5, 2 * CHUNK, 5);
}

/* The chunk is dirty after a crash, in which 5 was written over 4: it is reconciled
 * and read, and no value is seen first and another later.
 */
static void
test_crash_each_has_one (struct volume *v, unsigned int unused)
{
  unsigned char first[CHUNK * SECTOR], second[CHUNK * SECTOR];
  unsigned int i;

  crash_while_dirty (v);
  spoil_sectors (v, LEGS);
  volume_start_quiet (v);
  g_assert_true (read_chunk (v, first));
  for (i = 0; i < sizeof first; i++)
    g_assert_true (first[i] == 4 || (first[i] == 5 && i < 5 * SECTOR));
  g_assert_true (read_chunk (v, second));
  assert_same (first, second, sizeof first);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
  volume_heal (v);
  volume_assert_alike (v, ALL_LEGS);
}

static void
start_all_have_it (struct volume *v)
{
  unsigned int leg;

  crash_while_dirty (v);
  for (leg = 0; leg < LEGS; leg++)
    volume_fail (v, leg, MOCK_READ, EIO, 2 * CHUNK + 7, 1);
  volume_start_quiet (v);
}

/* ... but one sector that no leg can read: the others can be, as before. */
static void
test_crash_all_have_it (struct volume *v, unsigned int unused)
{
  unsigned int i;
  int byte;

  start_all_have_it (v);
  g_assert_cmpint (volume_read (v, 2 * CHUNK + 7), ==, -1);
  byte = volume_read (v, 2 * CHUNK + 2);
  for (i = 0; i < LEGS; i++)
    g_assert_cmpint (leg_byte (v, i, 2 * CHUNK + 2), ==, byte);
  g_assert_cmpint (volume_read (v, 2 * CHUNK + 8), ==, 4);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
}

/* ... also if a leg cannot be flushed when they have been made alike. */
static void
test_crash_leaves (struct volume *v, unsigned int leg)
{
  const struct mock_fault second = { .ops = MOCK_FLUSH, .after = 1, .error = EIO };

  v->options.policy = DM_MIRROR_READ_FIRST;
  start_all_have_it (v);
  mock_set_revive (v->legs[leg], 0, -EIO);
  mock_fault (v->legs[leg], &second);
  g_assert_cmpint (volume_read (v, 2 * CHUNK + 9), ==, 4);
  g_assert_cmpint (leg_state (v, leg), ==, DM_MIRROR_FAILED);
}

/* ... or has lost what has been written since: no other gets what it shows. */
static void
test_crash_loses (struct volume *v, unsigned int unused)
{
  v->options.policy = DM_MIRROR_READ_FIRST;
  start_all_have_it (v);
  g_assert_true (volume_write (v, 6, 2 * CHUNK + 9, 1));
  volume_kill (v, 0, MOCK_FLUSH, EIO);
  leg_set (v, 0, 4, 2 * CHUNK + 9, 1);
  g_assert_cmpint (volume_read (v, 2 * CHUNK + 9), ==, 6);
  g_assert_cmpint (leg_byte (v, 1, 2 * CHUNK + 9), ==, 6);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_FAILED);
}

/* A leg that recovers gets what any of the others can read. */
static void
test_recovery (struct volume *v, unsigned int unused)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 3, 0, v->sectors));
  volume_kill (v, 2, MOCK_WRITE, EIO);
  g_assert_true (volume_write (v, 4, 0, v->sectors));
  volume_stop (v);
  volume_heal (v);
  spoil_sectors (v, LEGS - 1);
  volume_start (v);
  volume_await_in_sync (v);
  /* What could not be read then has been rewritten, if it was of the leg that was asked. */
  g_assert_cmpuint (log_lines_count ("*leg0*that could not be read have been written "
                                     "again"), ==, 1);
  volume_heal (v);
  volume_assert_alike (v, ALL_LEGS);
}

/*----------------------------------------------------------------------
 * Block status
 */

static void *
ask_extents (void *arg)
{
  struct volume *v = arg;
  struct bdev_extent extent;

  g_assert_cmpint (dm_mirror_extents (v->mirror, 0, 1, &extent, 1), ==, 1);
  g_assert_false (extent.zero);
  return NULL;
}

/* Leg 0 answers late, or fails to, and meanwhile leg LEFT leaves and misses a write:
 * what it says is not believed.
 */
static void
test_extents (struct volume *v, unsigned int left)
{
  const struct mock_fault late = {
    .ops = MOCK_EXTENTS, .gate = &v->gate, .error = left == 0 ? 0 : EIO,
  };
  pthread_t thread;

  v->options.policy = DM_MIRROR_READ_FIRST;
  volume_start_quiet (v);
  mock_fault (v->legs[0], &late);
  g_assert_cmpint (pthread_create (&thread, NULL, ask_extents, v), ==, 0);
  mock_gate_await (&v->gate, 1);
  g_assert_cmpint (dm_mirror_fail (v->mirror, left), ==, 0);
  g_assert_true (volume_write (v, 4, 0, 1));
  mock_gate_open (&v->gate);
  pthread_join (thread, NULL);
}

static const struct volume_test tests[] = {
  { "repaired", test_repaired, 0, &volume_plain },
  { "not-written", test_fails, false, &volume_plain },
  { "not-read-then", test_fails, true, &volume_plain },
  { "unreadable", test_unreadable, 0, &volume_plain },
  { "two-legs", test_two_legs, 0, &volume_plain },
  { "source-has-one", test_source_has_one, 0, &volume_plain },
  { "again-has-one", test_again_has_one, 0, &volume_plain },
  { "zero", test_zero, 0, &volume_thin },
  { "pieces", test_pieces, 0, &volume_plain },
  { "write-meanwhile", test_write_meanwhile, 0, &volume_plain },
  { "last-leg", test_last_leg, 0, &volume_plain },
  { "each-has-one", test_each_has_one, 0, &volume_plain },
  { "all-have-it", test_all_have_it, 0, &volume_plain },
  { "crash/each-has-one", test_crash_each_has_one, 0, &volume_plain },
  { "crash/all-have-it", test_crash_all_have_it, 0, &volume_plain },
  { "crash/leaves/0", test_crash_leaves, 0, &volume_plain },
  { "crash/leaves/1", test_crash_leaves, 1, &volume_plain },
  { "crash/loses", test_crash_loses, 0, &volume_plain },
  { "recovery", test_recovery, 0, &volume_plain },
  { "extents/0", test_extents, 0, &volume_thin },
  { "extents/1", test_extents, 1, &volume_thin },
};

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  VOLUME_ADD_TESTS ("/mirror-repair/r10-", tests);
  return g_test_run ();
}
