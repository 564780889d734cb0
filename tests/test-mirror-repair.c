/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* R10: a leg that cannot be read somewhere, while others can: they serve the
 * reader, and it is rewritten, or is no longer in sync.
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
    .ops = MOCK_READ, .times = 1, .error = EIO,
  };

  start (v);
  mock_fault (v->legs[0], &once);
  mock_fault (v->legs[1], &once);
  g_assert_cmpint (volume_read (v, AT), ==, 4);
  g_assert_cmpuint (mock_changed (v->legs[0]), ==, SECTOR);
  g_assert_cmpuint (mock_changed (v->legs[1]), ==, SECTOR);
  g_assert_cmpuint (mock_changed (v->legs[2]), ==, 0);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
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
  g_assert_cmpint (reader.byte, ==, 4);
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

static const struct volume_test tests[] = {
  { "repaired", test_repaired, 0, &volume_plain },
  { "not-written", test_fails, false, &volume_plain },
  { "not-read-then", test_fails, true, &volume_plain },
  { "unreadable", test_unreadable, 0, &volume_plain },
  { "two-legs", test_two_legs, 0, &volume_plain },
  { "pieces", test_pieces, 0, &volume_plain },
  { "write-meanwhile", test_write_meanwhile, 0, &volume_plain },
  { "last-leg", test_last_leg, 0, &volume_plain },
};

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  VOLUME_ADD_TESTS ("/mirror-repair/r10-", tests);
  return g_test_run ();
}
