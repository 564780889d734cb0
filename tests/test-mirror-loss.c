/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What a mirror with a log stands: legs that fail writes and flushes (quorum,
 * W4, W6, FUA), copies of the log that fail, everything at once.
 */

#include <config.h>

#include "clock.h"
#include "volume.h"

/*----------------------------------------------------------------------
 * How many legs
 */

/* A write succeeds if so many legs in sync have it, as QUORUM says. */
static void
test_quorum (struct volume *v, unsigned int quorum)
{
  unsigned int left, i;

  v->options.quorum = quorum;
  volume_start_quiet (v);
  for (left = LEGS; left > 1; left--) {
    g_assert_true (volume_write (v, left, 0, 1) == (left >= quorum));
    volume_kill (v, LEGS - left, MOCK_WRITE, EIO);
    g_assert_true (volume_write (v, left, 1, 1) == (left - 1 >= quorum));
    g_assert_true (volume_flush (v) == (left - 1 >= quorum));
    if (left - 1 < quorum)
      break;
  }
  if (quorum == 1) {
    g_assert_true (volume_write (v, 9, 2, 1));
    return;
  }
  /* Too few: before any I/O.  What can be read is. */
  volume_clear_traces (v);
  g_assert_false (volume_write (v, 9, 2 * CHUNK, 1));
  g_assert_cmpuint (volume_count_copies (v, MOCK_ANY), ==, 0);
  for (i = 0; i < LEGS; i++)
    g_assert_cmpuint (mock_count (v->legs[i], MOCK_ANY), ==, 0);
  g_assert_cmpint (volume_read (v, 2 * CHUNK), ==, 0);
  g_assert_cmpuint (log_lines_count ("*fewer than quorum=*refused*"), ==, 1);
}

/* Pieces are locked while they are copied, so this is of several. */
#define PIECE 2048              /* sectors */
#define LARGE (4 * PIECE)

/* W4: all refuse a write, and each has done another part of it.  None is dropped; the
 * errors go to the client, and the legs are made alike before it reads there.
 */
static void
refuse_write (struct volume *v)
{
  unsigned int i;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 2));
  for (i = 0; i < LEGS; i++)
    volume_kill (v, i, MOCK_WRITE, i == 0 ? ENOSPC : EIO);
  g_assert_false (volume_write (v, 2, 0, 2));
  for (i = 0; i < LEGS; i++)
    g_assert_cmpint (v->results[i].error, ==, i == 0 ? ENOSPC : EIO);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
  g_assert_cmpuint (log_lines_count ("*leg0*stays in sync, as no other has "
                                     "done it*"), ==, 1);
  leg_set (v, 1, 2, 0, 1);
  leg_set (v, 2, 2, 1, 1);
}

static void
test_w4_all_fail (struct volume *v, unsigned int unused)
{
  int first, second;

  refuse_write (v);
  volume_heal (v);
  first = volume_read (v, 0);
  second = volume_read (v, 1);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
  volume_assert_alike (v, ALL_LEGS);
  g_assert_cmpint (volume_read (v, 0), ==, first);
  g_assert_cmpint (volume_read (v, 1), ==, second);
  g_assert_true (volume_write (v, 3, 0, 1));
  g_assert_cmpint (volume_read (v, 0), ==, 3);
}

/* A crash in between makes no difference. */
static void
test_w4_all_fail_crash (struct volume *v, unsigned int unused)
{
  refuse_write (v);
  volume_heal (v);
  volume_crash (v, 1);
  volume_start_quiet (v);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
  volume_read (v, 0);
  volume_assert_alike (v, ALL_LEGS);
}

/* They go on refusing.  Then they cannot be made alike, and one stays. */
static void
test_w4_all_dead (struct volume *v, unsigned int unused)
{
  refuse_write (v);
  g_assert_cmpint (volume_read (v, 0), ==, 1);
  g_assert_cmpuint (volume_in_sync (v), ==, 1);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_IN_SYNC);

  /* Again and again, until it takes writes again; and what it shows, which is tried after
   * a while.
   */
  g_assert_false (volume_write (v, 2, 0, 1));
  g_assert_cmpuint (volume_in_sync (v), ==, 1);
  mock_clear_faults (v->legs[0]);
  AWAIT (volume_write (v, 3, 0, 1));
  g_assert_cmpint (volume_read (v, 0), ==, 3);
}

/* Legs that cannot be reached have done as little as the others. */
static void
test_w4_offline (struct volume *v, unsigned int unused)
{
  unsigned int i;

  volume_start_quiet (v);
  for (i = 0; i < LEGS; i++)
    volume_kill (v, i, MOCK_WRITE, ENOTCONN);
  __atomic_store_n (&v->legs[0]->offline, true, __ATOMIC_RELAXED);
  __atomic_store_n (&v->legs[2]->offline, true, __ATOMIC_RELAXED);
  g_assert_false (volume_write (v, 2, 0, 1));
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
}

/* It happens again in a part of the chunk that has just been made alike, before the
 * rest has.
 */
static void
test_w4_again (struct volume *v, unsigned int unused)
{
  struct mock_fault hold = {
    .ops = MOCK_READ, .gate = &v->gate, .length = SECTOR,
  };
  unsigned int i;

  volume_again (v, LEGS, LARGE, LARGE, ALL_LEGS, &volume_plain);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, LARGE));
  for (i = 0; i < LEGS; i++)
    volume_fail (v, i, MOCK_WRITE, EIO, 0, 1);
  g_assert_false (volume_write (v, 2, 0, 1));
  volume_heal (v);
  for (i = 0; i < LEGS; i++) {
    hold.offset = (LEG_START (i) + LARGE - 1) * SECTOR;
    mock_fault (v->legs[i], &hold);
  }
  g_assert_cmpint (dm_mirror_start (v->mirror), ==, 0);
  mock_gate_await (&v->gate, 1);
  for (i = 0; i < LEGS; i++)
    volume_fail (v, i, MOCK_WRITE, EIO, 0, 1);
  g_assert_false (volume_write (v, 2, 0, 1));
  leg_set (v, 1, 2, 0, 1);
  for (i = 0; i < LEGS; i++)
    mock_clear_faults (v->legs[i]);
  mock_gate_open (&v->gate);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
}

/* All refuse a write while another client reads a leg that has done a part of it, which
 * is gone when they have been made alike: that client must not have seen it.
 */
static void
test_w4_read_across (struct volume *v, unsigned int unused)
{
  struct client reader = { .v = v, .what = CLIENT_READ, .count = 1 };
  unsigned int i;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 2));
  volume_hold (v->legs[0], MOCK_READ, &v->gate);
  client_start (&reader);
  mock_gate_await (&v->gate, 1);
  for (i = 0; i < LEGS; i++)
    volume_fail (v, i, MOCK_WRITE, EIO, 0, 0);
  g_assert_false (volume_write (v, 2, 0, 2));
  leg_set (v, 0, 2, 0, 1);
  volume_heal (v);
  /* Another is what they are made like. */
  __atomic_store_n (&v->legs[0]->offline, true, __ATOMIC_RELAXED);
  mock_gate_open (&v->gate);
  g_assert_true (client_finish (&reader));
  __atomic_store_n (&v->legs[0]->offline, false, __ATOMIC_RELAXED);
  g_assert_cmpint (reader.byte, ==, 1);
  g_assert_cmpint (volume_read (v, 0), ==, 1);
  volume_assert_alike (v, ALL_LEGS);
}

/* One leg is in sync and refuses what two that are being recovered have taken:
 * so these are other than it there, and have to be copied to again.
 */
static void
test_w4_recovering (struct volume *v, unsigned int unused)
{
  unsigned int i;

  volume_again (v, LEGS, LARGE, PIECE, BIT (0), &volume_plain);
  leg_set (v, 0, 1, 0, LARGE);
  volume_hold (v->legs[0], MOCK_READ, &v->gate);
  volume_start (v);
  mock_gate_await (&v->gate, 1);
  for (i = 1; i < LEGS; i++)
    volume_await_state (v, i, DM_MIRROR_RECOVERING);
  volume_fail (v, 0, MOCK_WRITE, EIO, 0, 0);
  g_assert_false (volume_write (v, 9, LARGE - 1, 1));
  for (i = 1; i < LEGS; i++)
    g_assert_cmpint (leg_byte (v, i, LARGE - 1), ==, 9);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_IN_SYNC);
  mock_gate_open (&v->gate);
  volume_await_in_sync (v);
  g_assert_cmpint (leg_byte (v, 0, LARGE - 1), ==, 1);
  volume_assert_alike (v, ALL_LEGS);
}

/* The same, when that chunk was copied and recorded before. */
static void
test_w4_recovered_chunk (struct volume *v, unsigned int unused)
{
  struct mock_fault hold = {
    .ops = MOCK_READ, .gate = &v->gate, .offset = 2 * PIECE * SECTOR,
    .length = SECTOR,
  };
  /* So long that it is recorded at once. */
  struct mock_fault slow = {
    .ops = MOCK_READ, .msec = 1100, .offset = 0, .length = SECTOR,
  };

  volume_again (v, 2, LARGE, PIECE, BIT (0) | BIT (1), &volume_plain);
  volume_start (v);
  mock_fault (v->legs[0], &hold);
  mock_fault (v->legs[0], &slow);
  mock_set_revive (v->legs[1], 1, 0);
  volume_fail (v, 1, MOCK_WRITE, EIO, 0, 0);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_write (v, 1, 2 * PIECE, 1));
  mock_clear_faults (v->legs[1]);
  mock_gate_await (&v->gate, 1);
  AWAIT (!log_lacks (v, 1, 0));

  volume_fail (v, 0, MOCK_WRITE, EIO, 0, 0);
  g_assert_false (volume_write (v, 9, 3, 1));
  g_assert_cmpint (leg_byte (v, 1, 3), ==, 9);
  g_assert_true (log_lacks (v, 1, 0));
  g_assert_cmpint (volume_read (v, 3), ==, 0);
  mock_gate_open (&v->gate);
  volume_await_in_sync (v);
  g_assert_cmpint (leg_byte (v, 1, 3), ==, 0);
  volume_assert_alike (v, BIT (0) | BIT (1));
}

/* All legs are lost while something is written, and one of them is back first: it
 * has all that was acknowledged and flushed, and goes on.  The others get what they
 * may have lost, or have alone.
 */
static void
test_w4_outage (struct volume *v, unsigned int first)
{
  unsigned int i;

  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_flush (v));
  g_assert_true (volume_write (v, 2, CHUNK, 1));
  for (i = 0; i < LEGS; i++)
    mock_set_revive (v->legs[i], i == first ? 2 : 1000000, 0);
  for (i = 0; i < LEGS; i++)
    mock_set_failed (v->legs[i], true);
  g_assert_false (volume_write (v, 3, 2 * CHUNK, 1));
  g_assert_cmpint (volume_read (v, 0), ==, -1);
  for (i = 0; i < LEGS; i++)
    leg_set (v, i, 10 + i, 2 * CHUNK, 1); /* as far as it came */
  AWAIT (volume_read (v, 0) == 1);
  AWAIT (volume_in_sync (v) == 1);
  g_assert_cmpint (leg_state (v, first), ==, DM_MIRROR_IN_SYNC);
  g_assert_cmpint (volume_read (v, 2 * CHUNK), ==, 10 + first);
  g_assert_false (volume_flush (v));
  g_assert_true (volume_write (v, 4, 3 * CHUNK, 1));
  g_assert_true (volume_flush (v));

  for (i = 0; i < LEGS; i++)
    mock_set_revive (v->legs[i], 0, 0);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
  g_assert_cmpint (leg_byte (v, LEGS - 1 - first, 2 * CHUNK), ==, 10 + first);
}

/* The same, but one leg has only lost its connection, so it has everything: it is
 * waited for, and the others lack what they may have lost.
 */
static void
test_w4_outage_wait (struct volume *v, unsigned int unused)
{
  volume_start (v);
  g_assert_true (volume_write (v, 2, CHUNK, 1));
  __atomic_store_n (&v->legs[1]->offline, true, __ATOMIC_RELAXED);
  mock_set_failed (v->legs[0], true);
  mock_set_failed (v->legs[2], true);
  leg_set (v, 0, 9, CHUNK, 1);
  leg_set (v, 2, 9, CHUNK, 1);
  g_usleep (1500000);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
  __atomic_store_n (&v->legs[1]->offline, false, __ATOMIC_RELAXED);
  log_lines_await ("*leg0*has failed*");
  log_lines_await ("*leg2*has failed*");
  volume_await_in_sync (v);
  g_assert_cmpint (volume_read (v, CHUNK), ==, 2);
  volume_assert_alike (v, ALL_LEGS);
}

/*----------------------------------------------------------------------
 * Flushes
 */

/* A leg has only lost its connection when it is to be written, and the other one,
 * which has what was written, loses its own before that is judged.  Both come back
 * by themselves: they must not both count as in sync.
 */
static void
test_w4_one_has_it (struct volume *v, unsigned int fua)
{
  const struct mock_fault refuse = {
    .ops = MOCK_WRITE, .times = 1, .error = ENOTCONN,
  };

  volume_again (v, 2, SECTORS, CHUNK, BIT (0) | BIT (1), &volume_plain);
  volume_start_quiet (v);
  mock_fault (v->legs[1], &refuse);
  __atomic_store_n (&v->legs[0]->offline, true, __ATOMIC_RELAXED);
  __atomic_store_n (&v->legs[1]->offline, true, __ATOMIC_RELAXED);
  g_assert_false (fua ? volume_write_fua (v, 5, CHUNK, 1) :
                  volume_write (v, 5, CHUNK, 1));
  __atomic_store_n (&v->legs[0]->offline, false, __ATOMIC_RELAXED);
  __atomic_store_n (&v->legs[1]->offline, false, __ATOMIC_RELAXED);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_IN_SYNC);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_FAILED);
  g_assert_true (log_lacks (v, 1, 1));
}

/* The last leg in sync cannot be flushed, again and again: that is one loss, and a leg
 * that recovers meanwhile is not kept from that; then the first is mended.
 */
static void
test_f1_flush_fails_on (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, LARGE, PIECE, BIT (0), &volume_plain);
  leg_set (v, 0, 3, 0, LARGE);
  volume_fail (v, 0, MOCK_FLUSH, EIO, 0, 0);
  volume_hold (v->legs[0], MOCK_READ, &v->gate);
  volume_start (v);
  mock_gate_await (&v->gate, 1);
  g_assert_true (volume_write (v, 4, LARGE - 1, 1));
  g_assert_false (volume_flush (v));
  mock_gate_open (&v->gate);
  AWAIT ((volume_flush (v), leg_state (v, 1) == DM_MIRROR_IN_SYNC));
  g_assert_cmpint (leg_byte (v, 1, LARGE - 1), ==, 4);
  volume_heal (v);
  volume_await_in_sync (v);
  AWAIT (volume_flush (v));
  volume_assert_alike (v, BIT (0) | BIT (1));
}

/* F1: the only leg loses something.  Each client's next flush fails, once; so does
 * that of one who comes before anybody has heard.
 */
static void
test_f1_each_client (struct volume *v, unsigned int unused)
{
  struct dm_mirror_client clients[3];
  unsigned int i;

  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_plain);
  volume_start (v);
  dm_mirror_client_init (v->mirror, &clients[0]);
  dm_mirror_client_init (v->mirror, &clients[1]);
  g_assert_true (volume_write (v, 1, 0, 1));
  mock_set_failed (v->legs[0], true);
  log_lines_await ("*leg0*is used again*");
  dm_mirror_client_init (v->mirror, &clients[2]);
  g_assert_true (volume_write (v, 2, 1, 1));
  for (i = 0; i < 3; i++) {
    g_assert_false (dm_mirror_flush (v->mirror, &clients[i], v->results));
    g_assert_true (dm_mirror_flush (v->mirror, &clients[i], v->results));
  }
  dm_mirror_client_init (v->mirror, &clients[0]);
  g_assert_true (dm_mirror_flush (v->mirror, &clients[0], v->results));
}

/* A write has reached the leg in sync, and not yet one that recovers, when a flush
 * of the first fails: it may be gone, so it fails.
 */
static void
test_f1_write_across (struct volume *v, unsigned int unused)
{
  static struct mock_gate late = MOCK_GATE_INIT (0);
  const struct mock_fault slow = { .ops = MOCK_WRITE, .gate = &late };
  struct client writer = {
    .v = v, .what = CLIENT_WRITE, .byte = 5, .sector = LARGE - 1, .count = 1,
  };

  volume_again (v, 2, LARGE, PIECE, BIT (0), &volume_plain);
  volume_hold (v->legs[0], MOCK_READ, &v->gate);
  mock_fault (v->legs[1], &slow);
  volume_start (v);
  mock_gate_await (&v->gate, 1);
  client_start (&writer);
  mock_gate_await (&late, 1);
  volume_fail (v, 0, MOCK_FLUSH, EIO, 0, 0);
  g_assert_false (volume_flush (v));
  mock_gate_open (&late);
  g_assert_false (client_finish (&writer));
  mock_gate_open (&v->gate);
}

/* A FUA write fails when it is to be made durable: what was written before may be
 * gone as well.
 */
static void
test_f1_fua (struct volume *v, unsigned int error)
{
  struct dm_mirror_client other;

  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_plain);
  volume_start_quiet (v);
  dm_mirror_client_init (v->mirror, &other);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_fail (v, 0, MOCK_WRITE, error, 0, 0);
  g_assert_false (volume_write_fua (v, 2, 1, 1));
  volume_heal (v);
  g_assert_true (volume_flush (v) == (error != EIO));
  g_assert_true (volume_flush (v));
  g_assert_true (dm_mirror_flush (v->mirror, &other, v->results) ==
                 (error != EIO));
}

/* W6: a leg whose flush has failed is out of sync in all that it took since
 * the last good one.
 */
static void
test_w6_one_leg (struct volume *v, unsigned int leg)
{
  unsigned int i;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_write (v, 1, 4 * CHUNK, 1));
  volume_kill (v, leg, MOCK_FLUSH, EIO);
  g_assert_true (volume_flush (v));
  g_assert_cmpint (v->results[leg].error, ==, EIO);
  g_assert_cmpuint (volume_in_sync (v), ==, 2);
  volume_crash (v, leg);
  volume_load (v);
  for (i = 0; i < CHUNKS; i++)
    g_assert_true (log_lacks (v, leg, i) == (i == 0 || i == 4));
  g_assert_cmpint (log_state (v, leg), ==, DM_LOG_OUT_OF_SYNC);
}

/* The last leg in sync cannot be flushed: the client must know. */
static void
test_w6_last_leg (struct volume *v, unsigned int unused)
{
  unsigned int i;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  for (i = 0; i < LEGS; i++)
    volume_kill (v, i, MOCK_FLUSH, EIO);
  g_assert_false (volume_flush (v));
  g_assert_cmpuint (volume_in_sync (v), ==, 1);
  g_assert_false (volume_flush (v));
  g_assert_cmpint (volume_read (v, 0), ==, 1);
  volume_heal (v);
  g_assert_false (volume_flush (v)); /* it may have lost something */
  AWAIT (volume_flush (v));
}

/* What was acknowledged with FUA is kept; with legs that do it by themselves
 * and with those that have to be flushed.
 */
static void
test_fua (struct volume *v, unsigned int unused)
{
  unsigned int seed, i;

  for (seed = 1; seed <= 5; seed++) {
    volume_start_quiet (v);
    g_assert_true (volume_write_fua (v, seed, CHUNK - 2, 4));
    volume_crash (v, seed);
    for (i = 0; i < LEGS; i++) {
      g_assert_cmpint (leg_byte (v, i, CHUNK - 2), ==, seed);
      g_assert_cmpint (leg_byte (v, i, CHUNK + 1), ==, seed);
    }
  }
}

/* ... and if it has failed on one leg, that one is out. */
static void
test_fua_fails (struct volume *v, unsigned int unused)
{
  volume_start_quiet (v);
  volume_kill (v, 0, MOCK_FLUSH | MOCK_WRITE, EIO);
  g_assert_true (volume_write_fua (v, 7, 0, 1));
  volume_crash (v, 1);
  volume_start_quiet (v);
  g_assert_cmpuint (volume_in_sync (v), ==, 2);
  g_assert_cmpint (volume_read (v, 0), ==, ALL_LEGS);
}

/*----------------------------------------------------------------------
 * What cannot be flushed
 */

/* The next flush of these legs fails, and then no other. */
static void
fail_flush_once (struct volume *v, unsigned long legs)
{
  const struct mock_fault once = {
    .ops = MOCK_FLUSH, .times = 1, .error = EIO,
  };
  unsigned int i;

  for (i = 0; i < v->num_legs; i++)
    if (legs & BIT (i))
      mock_fault (v->legs[i], &once);
}

/* What was written in chunks 0 and 1 is there after any crash, whatever else is lost. */
static void
assert_durable (struct volume *v, unsigned long legs)
{
  unsigned int i;

  volume_crash (v, 1);
  for (i = 0; i < v->num_legs; i++)
    if (legs & BIT (i)) {
      g_assert_cmpint (leg_byte (v, i, 0), ==, 1);
      g_assert_cmpint (leg_byte (v, i, CHUNK + 1), ==, 2);
    }
}

/* The only leg forgets what it could not flush.  Everybody hears of that once; and
 * before it takes another write, it is given again what it may have lost.
 */
static void
test_quorum_one_leg (struct volume *v, unsigned int fua)
{
  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_forgets);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_write (v, 2, CHUNK + 1, 1));
  fail_flush_once (v, BIT (0));
  g_assert_false (fua ? volume_write_fua (v, 4, 3 * CHUNK, 1) :
                  volume_flush (v));
  volume_clear_traces (v);
  g_assert_true (volume_write (v, 3, 2 * CHUNK, 1));
  g_assert_cmpuint (volume_find_event (v->legs[0], MOCK_FLUSH, true)->end, <,
                    volume_find_event (v->legs[0], MOCK_WRITE, true)->begin);
  g_assert_cmpuint (log_lines_count ("*has been flushed, with all*"), ==, 1);
  g_assert_true (volume_flush (v) == !fua);
  g_assert_true (volume_flush (v));
  assert_durable (v, BIT (0));
}

/* It fails on, and is tried at longer and longer intervals: at once, after 1, 3 and 7 s. */
static void
test_quorum_tries (struct volume *v, unsigned int unused)
{
  uint64_t end = clock_now () + 9 * NSEC_PER_SEC;

  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_plain);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_fail (v, 0, MOCK_FLUSH, EIO, 0, 0);
  g_assert_false (volume_flush (v));
  while (clock_now () < end) {
    g_assert_false (volume_write (v, 3, 2 * CHUNK, 1));
    g_usleep (G_USEC_PER_SEC / 20);
  }
  g_assert_cmpuint (log_lines_count ("*cannot be written again yet*"), >, 1);
  g_assert_cmpuint (log_lines_count ("*cannot be written again yet*"), <=, 4);
  log_lines_clear ();
}

/* It fails on: nothing is written that could not be kept, until it can be. */
static void
test_quorum_fails_on (struct volume *v, unsigned int ops)
{
  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_forgets);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_write (v, 2, CHUNK + 1, 1));
  fail_flush_once (v, BIT (0));
  volume_fail (v, 0, ops, EIO, 0, 0);
  g_assert_false (volume_flush (v));
  g_assert_false (volume_write (v, 3, 2 * CHUNK, 1));
  g_assert_false (volume_write_fua (v, 3, 2 * CHUNK, 1));
  g_assert_false (volume_flush (v));
  g_assert_cmpint (leg_byte (v, 0, 2 * CHUNK), ==, 0);
  g_assert_cmpint (volume_read (v, 0), ==, 1);
  g_assert_cmpuint (volume_in_sync (v), ==, 1);
  g_assert_cmpuint (log_lines_count ("*cannot be flushed*refused*"), ==, 1);
  volume_heal (v);
  AWAIT (volume_write (v, 3, 2 * CHUNK, 1));
  g_assert_true (volume_flush (v));
  assert_durable (v, BIT (0));
}

/* Nobody asks for anything: it is mended all the same, and nothing is clean before. */
static void
test_quorum_idle (struct volume *v, unsigned int unused)
{
  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_forgets);
  fail_flush_once (v, BIT (0));
  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_write (v, 2, CHUNK + 1, 1));
  AWAIT (!dm_log_is_dirty (v->log));
  g_assert_cmpuint (log_lines_count ("*leg0*flush*failed*"), ==, 1);
  g_assert_false (volume_flush (v));
  assert_durable (v, BIT (0));
}

/* So it is at the end. */
static void
test_quorum_stop (struct volume *v, unsigned int unused)
{
  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_forgets);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_write (v, 2, CHUNK + 1, 1));
  fail_flush_once (v, BIT (0));
  volume_stop (v);
  assert_durable (v, BIT (0));
}

/* The connection has ended before the answer to a flush, which told of what the server had
 * not kept: that is written again when it is back.
 */
static void
test_quorum_unheard (struct volume *v, unsigned int unused)
{
  struct dm_io_request flush = { .op = DM_IO_FLUSH };
  struct io_region where = { NULL, 0, 1 };
  unsigned long error;

  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_forgets);
  where.bdev = v->legs[0];
  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_write (v, 2, CHUNK + 1, 1));
  fail_flush_once (v, BIT (0));
  g_assert_cmpint (dm_io (&flush, 1, &where, &error), !=, 0);
  mock_set_revive (v->legs[0], 2, 0);
  mock_set_failed (v->legs[0], true);
  g_assert_false (volume_write (v, 3, 2 * CHUNK, 1));
  AWAIT (volume_read (v, 0) == 1);
  g_assert_false (volume_flush (v));
  g_assert_true (volume_flush (v));
  assert_durable (v, BIT (0));
}

/* A write with FUA cannot be flushed on two legs: none is dropped, and both are
 * mended, if both can be; what one shows no more is made alike before it is read.
 */
static void
test_quorum_two_legs (struct volume *v, unsigned int bad)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0) | BIT (1), &volume_forgets);
  v->options.quorum = 2;
  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_write (v, 2, CHUNK + 1, 1));
  fail_flush_once (v, BIT (0) | BIT (1));
  if (bad)
    volume_kill (v, 1, MOCK_FLUSH, EIO);
  g_assert_false (volume_write_fua (v, 3, 2 * CHUNK, 1));
  if (!bad)
    g_assert_cmpuint (volume_in_sync (v), ==, 2);
  g_assert_true (volume_write (v, 4, 2 * CHUNK, 1) == !bad);
  g_assert_cmpuint (volume_in_sync (v), ==, bad ? 1 : 2);
  g_assert_false (volume_flush (v));
  g_assert_true (volume_flush (v) == !bad);
  assert_durable (v, bad ? BIT (0) : BIT (0) | BIT (1));
}

/* Nor can either be written again: a read ends all the same. */
static void
test_quorum_refused (struct volume *v, unsigned int unused)
{
  struct client reader = { .v = v, .what = CLIENT_READ, .count = 1 };

  volume_again (v, 2, SECTORS, CHUNK, BIT (0) | BIT (1), &volume_forgets);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  fail_flush_once (v, BIT (0) | BIT (1));
  g_assert_false (volume_write_fua (v, 3, 2 * CHUNK, 1));
  volume_fail (v, 0, MOCK_WRITE, EIO, 0, 0);
  volume_fail (v, 1, MOCK_WRITE, EIO, 0, 0);
  client_start (&reader);
  AWAIT (__atomic_load_n (&reader.ended, __ATOMIC_ACQUIRE));
  g_assert_true (client_finish (&reader));
  g_assert_cmpint (reader.byte, ==, 1);
}

static void
test_quorum_alike (struct volume *v, unsigned int leg)
{
  int first;

  volume_again (v, 2, SECTORS, CHUNK, BIT (0) | BIT (1), &volume_forgets);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  fail_flush_once (v, BIT (0) | BIT (1));
  g_assert_false (volume_write_fua (v, 3, 2 * CHUNK, 1));
  leg_set (v, leg, 0, 0, 1);
  first = volume_read (v, 0);
  g_assert_cmpint (first, >=, 0);
  volume_assert_alike (v, BIT (0) | BIT (1));
  volume_crash (v, 1);
  g_assert_cmpint (leg_byte (v, 0, 0), ==, first);
  g_assert_cmpint (leg_byte (v, 1, 0), ==, first);
}

/* Another leg is recovered from one that cannot be flushed, takes its place at once, and
 * counts.
 */
static void
test_quorum_recovering (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0), &volume_forgets);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_write (v, 2, CHUNK + 1, 1));
  volume_kill (v, 0, MOCK_FLUSH, EIO);
  g_assert_false (volume_flush (v));
  g_assert_false (volume_write (v, 3, 0, 1));
  g_assert_cmpint (dm_mirror_start (v->mirror), ==, 0);
  volume_await_state (v, 1, DM_MIRROR_IN_SYNC);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_FAILED);
  g_assert_true (volume_write (v, 3, 2 * CHUNK, 1));
  g_assert_true (volume_flush (v));
  assert_durable (v, BIT (1));
}

/* The only leg in sync could not be flushed, once, and cannot be written again. */
static void
start_with_suspect (struct volume *v)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0), &volume_forgets);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  fail_flush_once (v, BIT (0));
  volume_fail (v, 0, MOCK_WRITE, EIO, 0, 0);
  g_assert_false (volume_flush (v));
}

/* Another takes its place then, too.  No log says that both are in sync. */
static void
test_quorum_recovered (struct volume *v, unsigned int unused)
{
  start_with_suspect (v);
  g_assert_cmpint (dm_mirror_start (v->mirror), ==, 0);
  volume_await_state (v, 1, DM_MIRROR_IN_SYNC);
  volume_crash (v, 1);
  volume_load (v);
  g_assert_cmpint (log_state (v, 0), !=, DM_LOG_IN_SYNC);
  g_assert_cmpint (log_state (v, 1), ==, DM_LOG_IN_SYNC);
}

/* So it is after a crash, if the only leg in sync cannot be written any more. */
static void
test_quorum_replaced (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0), &volume_plain);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_crash (v, 1);
  volume_fail (v, 0, MOCK_WRITE, EIO, 0, 0);
  volume_start (v);
  volume_await_state (v, 1, DM_MIRROR_IN_SYNC);
}

/* What it shows as zero is written again, too. */
static void
test_quorum_zero (struct volume *v, unsigned int unused)
{
  unsigned long absent;

  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_thin);
  volume_start_quiet (v);
  g_assert_cmpint (dm_log_begin (v->log, 0, CHUNK, &absent), ==, 0);
  volume_crash (v, 1);
  volume_clear_traces (v);
  volume_start (v);
  AWAIT (dm_log_next_unreconciled (v->log, 0, CHUNKS) == CHUNKS);
  g_assert_cmpuint (mock_changed (v->legs[0]), >=, CHUNK * SECTOR);
}

/* All is written again once; by the next server if this one ends before it has. */
static void
test_quorum_once (struct volume *v, unsigned int ends)
{
  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_plain);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  volume_crash (v, 1);
  volume_clear_traces (v);
  if (ends) {
    volume_start_quiet (v);
    volume_stop (v);
    g_assert_cmpuint (mock_changed (v->legs[0]), ==, 0);
  }
  volume_start (v);
  AWAIT (!dm_log_is_dirty (v->log));
  volume_stop (v);
  g_assert_cmpuint (mock_changed (v->legs[0]), ==, SECTORS * SECTOR);
  volume_load (v);
  g_assert_false (dm_log_is_dirty (v->log));
}

/* One that cannot be reached for a moment is not taken for one that cannot be written. */
static void
test_quorum_offline (struct volume *v, unsigned int unused)
{
  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_plain);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  volume_crash (v, 1);
  volume_start_quiet (v);
  volume_fail (v, 0, MOCK_ANY, ENOTCONN, 0, 0);
  __atomic_store_n (&v->legs[0]->offline, true, __ATOMIC_RELAXED);
  g_assert_cmpint (volume_read (v, 0), ==, -1);
  volume_heal (v);
  __atomic_store_n (&v->legs[0]->offline, false, __ATOMIC_RELAXED);
  volume_clear_traces (v);
  g_assert_cmpint (volume_read (v, 0), ==, 1);
  g_assert_cmpuint (mock_changed (v->legs[0]), ==, CHUNK * SECTOR);
  g_assert_true (volume_write (v, 2, 0, 1));
  g_assert_cmpuint (mock_changed (v->legs[0]), ==, (CHUNK + 1) * SECTOR);
}

/* It shows something else by then than when it was copied from: that gets to the other,
 * too, also if it cannot be read for a while.
 */
static void
test_quorum_shows_less (struct volume *v, unsigned int unread)
{
  start_with_suspect (v);
  volume_fail (v, 0, MOCK_READ, EIO, 5 * CHUNK, 1);
  g_assert_cmpint (dm_mirror_start (v->mirror), ==, 0);
  AWAIT (leg_lacks (v, 1) == CHUNK * SECTOR);
  g_assert_cmpint (leg_byte (v, 1, 0), ==, 1);
  leg_set (v, 0, 7, 0, 1);
  volume_heal (v);
  volume_fail (v, 0, MOCK_READ, EIO, 5 * CHUNK, 1);
  if (unread)
    volume_fail (v, 0, MOCK_READ, EIO, 0, 1);
  AWAIT (log_lines_count ("*has been flushed, with all*") == 1);
  volume_heal (v);
  volume_await_in_sync (v);
  volume_assert_alike (v, BIT (0) | BIT (1));
}

/* So it is if it cannot be flushed then, either: it may have lost that only now. */
static void
test_quorum_shows_less_still (struct volume *v, unsigned int unused)
{
  const struct mock_fault fails = {
    .ops = MOCK_FLUSH, .times = 1, .gate = &v->gate, .error = EIO
  };

  volume_again (v, 2, SECTORS, CHUNK, BIT (0), &volume_forgets);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  fail_flush_once (v, BIT (0));
  g_assert_false (volume_flush (v));
  mock_fault (v->legs[0], &fails);
  volume_hold (v->legs[1], MOCK_FLUSH, &v->log_gate);
  g_assert_cmpint (dm_mirror_start (v->mirror), ==, 0);
  mock_gate_await (&v->gate, 1);
  mock_gate_await (&v->log_gate, 1);
  AWAIT (leg_byte (v, 1, 0) == 1);
  leg_set (v, 0, 7, 0, 1);
  mock_gate_open (&v->gate);
  AWAIT (log_lines_count ("*cannot be written again yet*") == 1);
  mock_gate_open (&v->log_gate);
  volume_await_state (v, 1, DM_MIRROR_IN_SYNC);
  g_assert_cmpint (leg_byte (v, 1, 0), ==, 7);
}

/* The server is killed, and the power stays on. */
static void
kill_server (struct volume *v)
{
  mock_power_off ();
  volume_stop (v);
  mock_power_on ();
}

/* What the legs show after that is there after any crash once it has been read. */
static void
assert_kept (struct volume *v)
{
  volume_start (v);
  g_assert_cmpint (volume_read (v, 0), ==, 1);
  AWAIT (!dm_log_is_dirty (v->log));
  g_assert_cmpuint (volume_in_sync (v), ==, 2);
  volume_crash (v, 1);
  g_assert_cmpint (leg_byte (v, 0, 0), ==, 1);
  volume_assert_alike (v, BIT (0) | BIT (1));
}

/* A write with FUA fails on both legs in sync, which forget what was written before, and the
 * server is killed.
 */
static void
forget_by_fua (struct volume *v)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0) | BIT (1), &volume_forgets);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 8));
  fail_flush_once (v, BIT (0) | BIT (1));
  g_assert_false (volume_write_fua (v, 3, 2 * CHUNK, 1));
  kill_server (v);
}

/* Legs in sync have forgotten what they could not flush, and nobody has recorded it: all
 * have, by a write with FUA; or one has, and the server is killed meanwhile.
 */
static void
test_r2_forgotten (struct volume *v, unsigned int unused)
{
  forget_by_fua (v);
  assert_kept (v);
}

static void
test_r2_forgotten_by_one (struct volume *v, unsigned int unused)
{
  struct client flusher = { .v = v, .what = CLIENT_FLUSH };
  unsigned int i;

  volume_again (v, 2, SECTORS, CHUNK, BIT (0) | BIT (1), &volume_forgets);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 8));
  fail_flush_once (v, BIT (0));
  for (i = 0; i < VOLUME_COPIES; i++)
    volume_hold (v->copies[i], MOCK_WRITE, &v->log_gate);
  client_start (&flusher);
  mock_gate_await (&v->log_gate, 1);
  mock_power_off ();
  mock_gate_open (&v->log_gate);
  client_finish (&flusher);
  volume_stop (v);
  mock_power_on ();
  volume_heal (v);
  assert_kept (v);
}

/* Nor is it known of the one that is left when the other fails. */
static void
test_r2_left_alone (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0) | BIT (1), &volume_plain);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_crash (v, 1);
  volume_start_quiet (v);
  volume_kill (v, 1, MOCK_WRITE, EIO);
  g_assert_true (volume_write (v, 2, 3 * CHUNK, 1));
  g_assert_cmpuint (volume_in_sync (v), ==, 1);
  volume_clear_traces (v);
  g_assert_cmpint (volume_read (v, 0), ==, 1);
  g_assert_cmpuint (mock_changed (v->legs[0]), ==, CHUNK * SECTOR);
}

/* What legs in sync cannot be given by the one that is read leaves one of them, which can
 * be read.
 */
static void
test_r2_refused (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0) | BIT (1), &volume_plain);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_crash (v, 1);
  volume_start_quiet (v);
  volume_fail (v, 0, MOCK_WRITE, EIO, 0, 0);
  volume_fail (v, 1, MOCK_WRITE, EIO, 0, 0);
  g_assert_cmpint (volume_read (v, 0), ==, 1);
  g_assert_cmpuint (volume_in_sync (v), ==, 1);
  g_assert_false (volume_flush (v));
}

/* The one that is read is the one that stays: another may have a bad sector there. */
static void
test_r2_refused_unread (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0) | BIT (1), &volume_plain);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_crash (v, 1);
  volume_start_quiet (v);
  volume_fail (v, 0, MOCK_READ, EIO, 0, 1);
  volume_fail (v, 0, MOCK_WRITE, EROFS, 0, 0);
  volume_fail (v, 1, MOCK_WRITE, EROFS, 0, 0);
  g_assert_cmpint (volume_read (v, 0), ==, leg_byte (v, 1, 0));
}

/* The one whose flush has failed leaves while it is written again: the other may not have
 * kept what it shows, either.
 */
static void
test_r2_other_stays (struct volume *v, unsigned int unused)
{
  const struct mock_fault full = { .ops = MOCK_WRITE, .times = 1, .error = ENOSPC };

  forget_by_fua (v);
  volume_start_quiet (v);
  fail_flush_once (v, BIT (0));
  mock_fault (v->legs[1], &full);
  g_assert_false (volume_write_fua (v, 4, 3 * CHUNK, 1));
  g_assert_cmpuint (volume_in_sync (v), ==, 2);
  volume_kill (v, 0, MOCK_WRITE, EIO);
  g_assert_cmpint (volume_read (v, 0), ==, 1);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_IN_SYNC);
  volume_flush (v);             /* the news */
  g_assert_true (volume_flush (v));
  volume_crash (v, 1);
  g_assert_cmpint (leg_byte (v, 1, 0), ==, 1);
}

/* Holes stay holes. */
static void
test_r2_thin (struct volume *v, unsigned int unused)
{
  uint64_t before;

  volume_again (v, 2, SECTORS, CHUNK, BIT (0) | BIT (1), &volume_thin);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_crash (v, 1);
  leg_set (v, 0, 0, 0, CHUNK);
  before = mock_allocated (v->legs[1]);
  volume_start_quiet (v);
  g_assert_cmpint (volume_read (v, 0), ==, 0);
  g_assert_cmpuint (mock_allocated (v->legs[1]), <=, before);
}

/* A write of the old connection may land on the only leg in sync as long as it is in doubt:
 * what is read after that is durable.
 */
static void
test_s5_late_is_kept (struct volume *v, unsigned int unused)
{
  unsigned char buffer[SECTOR];
  struct io_region where;
  struct dm_io_request late = {
    .op = DM_IO_WRITE,
    .mem = { .type = DM_IO_VM, .length = SECTOR, .ptr.vm = buffer },
  };
  int seen;

  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_plain);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_flush (v));
  volume_crash (v, 1);
  v->legs[0]->late = 6 * NSEC_PER_SEC;
  volume_start (v);
  g_usleep (4 * G_USEC_PER_SEC);
  memset (buffer, 9, sizeof buffer);
  where = volume_region (v, 0);
  where.count = 1;
  g_assert_cmpint (dm_io (&late, 1, &where, NULL), ==, 0);
  seen = volume_read (v, 0);
  volume_crash (v, 3);
  g_assert_cmpint (leg_byte (v, 0, 0), ==, seen);
}

/* What was made alike before the end of the doubt does not count. */
static void
test_s5_made_alike_before (struct volume *v, unsigned int unused)
{
  unsigned int before;
  unsigned long absent;

  volume_start_quiet (v);
  g_assert_cmpint (dm_log_begin (v->log, 0, 1, &absent), ==, 0);
  dm_log_end (v->log, 0, 1);
  dm_log_doubt (v->log, 0, 0, 1);
  before = dm_log_differs (v->log, 0);
  dm_log_end_doubt (v->log, 0);
  g_assert_cmpuint (dm_log_next_unreconciled (v->log, 0, 1), ==, 0);
  dm_log_reconciled (v->log, 0, before);
  g_assert_cmpuint (dm_log_next_unreconciled (v->log, 0, 1), ==, 0);
}

/* No leg joins while one is written again. */
static void
test_quorum_join (struct volume *v, unsigned int unused)
{
  const struct mock_fault fails = {
    .ops = MOCK_FLUSH, .gate = &v->gate, .error = EIO
  };
  /* That of its stamp, when it has all. */
  const struct mock_fault held = {
    .ops = MOCK_FLUSH, .after = 4, .gate = &v->log_gate
  };
  const struct mock_options options = {
    .fua_by_flush = true, .forgets = true, .has_stamp = true, .max_trace = 4096
  };

  volume_again (v, 2, SECTORS, CHUNK, BIT (0), &options);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  fail_flush_once (v, BIT (0));
  volume_fail (v, 0, MOCK_WRITE, EIO, 0, 0);
  g_assert_false (volume_flush (v));
  mock_fault (v->legs[1], &held);
  g_assert_cmpint (dm_mirror_start (v->mirror), ==, 0);
  mock_gate_await (&v->log_gate, 1);
  mock_clear_faults (v->legs[0]);
  mock_fault (v->legs[0], &fails);
  mock_gate_await (&v->gate, 1);
  leg_set (v, 0, 7, 0, 1);      /* that is when it loses it */
  g_assert_cmpint (volume_read (v, 0), ==, 7);
  mock_gate_open (&v->log_gate);
  g_usleep (200000);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_RECOVERING);
  mock_gate_open (&v->gate);
  volume_await_state (v, 1, DM_MIRROR_IN_SYNC);
  g_assert_cmpint (leg_byte (v, 1, 0), ==, 7);
}

/* A leg that has lost its connection since the last of it was copied does not join. */
static void
test_w6_join (struct volume *v, unsigned int unused)
{
  unsigned int i;

  volume_again (v, 2, SECTORS, CHUNK, BIT (0), &volume_plain);
  leg_set (v, 0, 1, 0, SECTORS);
  volume_hold (v->legs[1], MOCK_FLUSH, &v->gate);
  volume_start (v);
  mock_gate_await (&v->gate, 1);
  for (i = 0; i < VOLUME_COPIES; i++)
    volume_hold (v->copies[i], MOCK_WRITE, &v->log_gate);
  mock_gate_open (&v->gate);
  mock_gate_await (&v->log_gate, 1);
  mock_set_revive (v->legs[1], 0, -EIO);
  mock_set_failed (v->legs[1], true);
  mock_gate_open (&v->log_gate);
  volume_await_state (v, 1, DM_MIRROR_FAILED);
  g_assert_cmpuint (log_lines_count ("*leg1*is in sync*"), ==, 0);
}

/* A block that nobody can read is in nobody's way. */
static void
test_quorum_bad_block (struct volume *v, unsigned int unused)
{
  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_forgets);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_write (v, 2, CHUNK + 1, 1));
  volume_fail (v, 0, MOCK_READ, EIO, CHUNK / 2 + 1, 1);
  fail_flush_once (v, BIT (0));
  g_assert_false (volume_flush (v));
  g_assert_true (volume_write (v, 3, 2 * CHUNK, 1));
  assert_durable (v, BIT (0));
}

/* Holes stay holes, as there may be no room for anything else. */
static void
test_quorum_holes (struct volume *v, unsigned int unused)
{
  uint64_t before;

  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_thin);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_write (v, 0, CHUNK, 1));
  before = mock_allocated (v->legs[0]);
  fail_flush_once (v, BIT (0));
  g_assert_false (volume_flush (v));
  volume_clear_traces (v);
  g_assert_true (volume_write (v, 3, 0, 1));
  g_assert_cmpuint (mock_allocated (v->legs[0]), <=, before);
  g_assert_cmpuint (mock_count (v->legs[0], MOCK_PUNCH), >, 0);
}

/* The next server knows nothing of that.  What it has let a client read stays, if a flush
 * of it has succeeded since; if the leg cannot be written then, it does not.
 */
static void
test_quorum_read (struct volume *v, unsigned int ops)
{
  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_forgets);
  volume_start_quiet (v);
  g_assert_true (volume_write_fua (v, 1, 0, 2));
  g_assert_true (volume_write (v, 2, 0, 2));
  volume_fail (v, 0, MOCK_FLUSH, EIO, 0, 0);
  g_assert_false (volume_flush (v));
  volume_stop (v);
  volume_heal (v);
  volume_start_quiet (v);
  if (ops != 0)
    volume_fail (v, 0, ops, EIO, 0, 0);
  g_assert_cmpint (volume_read (v, 0), ==, 2);
  if (ops != 0) {
    g_assert_false (volume_flush (v));
    volume_heal (v);
    AWAIT (volume_flush (v));
  }
  g_assert_true (volume_flush (v));
  volume_crash (v, 1);
  g_assert_cmpint (leg_byte (v, 0, 0), ==, 2);
  g_assert_cmpint (leg_byte (v, 0, 1), ==, 2);
}

/* What could not be written again may be lost by then, and whoever wrote it hears of that,
 * also if all has become right before he asks.
 */
static void
test_quorum_heard (struct volume *v, unsigned int unused)
{
  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_forgets);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_crash (v, 1);
  volume_start_quiet (v);
  volume_fail (v, 0, MOCK_WRITE, EIO, 0, 0);
  g_assert_cmpint (volume_read (v, 0), >=, 0);
  volume_heal (v);
  AWAIT (volume_write (v, 2, 0, 1));
  g_assert_false (volume_flush (v));
  g_assert_true (volume_flush (v));
}

/* What cannot be read when it is to be written again is later, before it is clean. */
static void
test_quorum_unread (struct volume *v, unsigned int unused)
{
  sector_t i;

  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_forgets);
  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, 16));
  volume_fail (v, 0, MOCK_READ, EIO, 0, 16);
  fail_flush_once (v, BIT (0));
  g_assert_false (volume_flush (v));
  AWAIT (volume_write (v, 2, 2 * CHUNK, 1));
  volume_heal (v);
  AWAIT (!dm_log_is_dirty (v->log));
  volume_crash (v, 1);
  for (i = 0; i < 16; i++)
    g_assert_cmpint (leg_byte (v, 0, i), ==, 1);
}

/*----------------------------------------------------------------------
 * Copies of the log
 */

static void
fail_copy (struct volume *v, unsigned int copy, unsigned int ops)
{
  const struct mock_fault fault = { .ops = ops, .error = EIO };

  mock_fault (v->copies[copy], &fault);
}

static void
assert_copies (struct volume *v, unsigned int expected)
{
  unsigned int all;

  g_assert_cmpuint (dm_log_copies (v->log, &all), ==, expected);
  g_assert_cmpuint (all, ==, VOLUME_COPIES);
}

/* R11: one copy cannot be written or flushed.  The other carries on, and the
 * first is not believed when it comes back.
 */
static void
test_r11_one_copy (struct volume *v, unsigned int ops)
{
  unsigned int copy;

  for (copy = 0; copy < VOLUME_COPIES; copy++) {
    volume_start_quiet (v);
    assert_copies (v, 2);
    fail_copy (v, copy, ops);
    g_assert_true (volume_write (v, copy, copy * CHUNK, 1));
    assert_copies (v, 1);
    volume_kill (v, 1 + copy, MOCK_WRITE, EIO);
    g_assert_true (volume_write (v, 10 + copy, copy * CHUNK, 1));
    volume_crash (v, copy);
    volume_heal (v);
    volume_load (v);
    g_assert_cmpint (log_state (v, 1 + copy), ==, DM_LOG_OUT_OF_SYNC);
    g_assert_true (log_lacks (v, 1 + copy, copy));
  }
}

/* A copy that cannot be read at the start: the user has to say that it is not
 * the one that knows most.
 */
static void
test_r11_read (struct volume *v, unsigned int copy)
{
  volume_start_quiet (v);
  volume_kill (v, 1, MOCK_WRITE, EIO);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_crash (v, 1);
  fail_copy (v, copy, MOCK_READ);
  volume_refused (v, "a copy of the log that was in use is missing");
  v->options.degraded = true;
  volume_start_quiet (v);
  g_assert_cmpint (log_state (v, 1), ==, DM_LOG_OUT_OF_SYNC);
  g_assert_true (volume_write (v, 2, CHUNK, 1));
  volume_stop (v);
}

/* All copies are gone: nothing can be written, and no leg is; what is there
 * can be read.  When one can be written again, all is well.
 */
static void
test_r11_all_gone (struct volume *v, unsigned int unused)
{
  unsigned int i;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  fail_copy (v, 0, MOCK_WRITE);
  fail_copy (v, 1, MOCK_FLUSH | MOCK_WRITE);
  volume_clear_traces (v);
  g_assert_false (volume_write (v, 2, CHUNK, 1));
  g_assert_false (volume_write (v, 2, CHUNK, 1));
  for (i = 0; i < LEGS; i++)
    g_assert_cmpuint (mock_count (v->legs[i], CHANGES), ==, 0);
  g_assert_cmpint (volume_read (v, 0), ==, 1);
  assert_copies (v, 0);
  volume_heal (v);
  for (i = 0; i < VOLUME_COPIES; i++)
    mock_reopen (v->copies[i]);
  g_assert_true (dm_log_restore (v->log));
  assert_copies (v, 2);
  g_assert_true (volume_write (v, 3, CHUNK, 1));
  volume_assert_alike (v, ALL_LEGS);
}

/* A leg fails too while there is no log: the client must not be told that
 * its write is safe.
 */
static void
test_r11_leg_too (struct volume *v, unsigned int unused)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  fail_copy (v, 0, MOCK_WRITE);
  fail_copy (v, 1, MOCK_WRITE);
  volume_kill (v, 1, MOCK_WRITE, EIO);
  g_assert_false (volume_write (v, 2, 0, 1));
  g_assert_false (volume_flush (v));
}

/* R15: everything is dead.  Whatever is asked fails, and it ends. */
static void
test_r15_all_dead (struct volume *v, unsigned int unused)
{
  gint64 begun;
  unsigned int i;

  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  for (i = 0; i < LEGS; i++)
    volume_kill (v, i, MOCK_ANY, EIO);
  for (i = 0; i < VOLUME_COPIES; i++)
    fail_copy (v, i, MOCK_ANY);
  begun = g_get_monotonic_time ();
  g_assert_false (volume_write (v, 2, 0, 1));
  g_assert_cmpint (volume_read (v, 0), ==, -1);
  g_assert_false (volume_flush (v));
  g_assert_false (volume_write (v, 2, CHUNK, 1));
  volume_stop (v);
  g_assert_cmpint (g_get_monotonic_time () - begun, <, AT_ONCE_US);
}

static const struct volume_test tests[] = {
  { "w4-outage/0", test_w4_outage, 0, &volume_plain },
  { "w4-outage/2", test_w4_outage, 2, &volume_plain },
  { "w4-outage/wait", test_w4_outage_wait, 0, &volume_plain },
  { "w4-one-has-it", test_w4_one_has_it, false, &volume_plain },
  { "w4-one-has-it/fua", test_w4_one_has_it, true, &volume_plain },
  { "f1-flush-fails-on", test_f1_flush_fails_on, 0, &volume_plain },
  { "f1-each-client", test_f1_each_client, 0, &volume_plain },
  { "f1-write-across", test_f1_write_across, 0, &volume_plain },
  { "f1-fua/io", test_f1_fua, EIO, &volume_plain },
  { "f1-fua/full", test_f1_fua, ENOSPC, &volume_plain },
  { "f1-quorum/one-leg", test_quorum_one_leg, false, &volume_plain },
  { "f1-quorum/one-leg-fua", test_quorum_one_leg, true, &volume_plain },
  { "f1-quorum/flush-fails-on", test_quorum_fails_on, MOCK_FLUSH,
    &volume_plain },
  { "f1-quorum/write-fails-on", test_quorum_fails_on, MOCK_WRITE,
    &volume_plain },
  { "f1-quorum/tries", test_quorum_tries, 0, &volume_plain },
  { "f1-quorum/idle", test_quorum_idle, 0, &volume_plain },
  { "f1-quorum/unheard", test_quorum_unheard, 0, &volume_plain },
  { "f1-quorum/stop", test_quorum_stop, 0, &volume_plain },
  { "f1-quorum/two-legs", test_quorum_two_legs, false, &volume_plain },
  { "f1-quorum/one-of-two", test_quorum_two_legs, true, &volume_plain },
  { "f1-quorum/alike/0", test_quorum_alike, 0, &volume_plain },
  { "f1-quorum/alike/1", test_quorum_alike, 1, &volume_plain },
  { "f1-quorum/refused", test_quorum_refused, 0, &volume_plain },
  { "f1-quorum/recovering", test_quorum_recovering, 0, &volume_plain },
  { "f1-quorum/recovered", test_quorum_recovered, 0, &volume_plain },
  { "f1-quorum/replaced", test_quorum_replaced, 0, &volume_plain },
  { "f1-quorum/zero", test_quorum_zero, 0, &volume_plain },
  { "f1-quorum/once", test_quorum_once, false, &volume_plain },
  { "f1-quorum/once/ends", test_quorum_once, true, &volume_plain },
  { "f1-quorum/offline", test_quorum_offline, 0, &volume_plain },
  { "f1-quorum/shows-less", test_quorum_shows_less, false, &volume_plain },
  { "r2-kept/forgotten", test_r2_forgotten, 0, &volume_plain },
  { "r2-kept/forgotten-by-one", test_r2_forgotten_by_one, 0, &volume_plain },
  { "r2-kept/left-alone", test_r2_left_alone, 0, &volume_plain },
  { "r2-kept/refused", test_r2_refused, 0, &volume_plain },
  { "r2-kept/refused/unread", test_r2_refused_unread, 0, &volume_plain },
  { "r2-kept/other-stays", test_r2_other_stays, 0, &volume_plain },
  { "r2-kept/thin", test_r2_thin, 0, &volume_plain },
  { "f1-quorum/join", test_quorum_join, 0, &volume_plain },
  { "s5-made-alike-before", test_s5_made_alike_before, 0, &volume_plain },
  { "s5-late-is-kept", test_s5_late_is_kept, 0, &volume_plain },
  { "f1-quorum/shows-less/still", test_quorum_shows_less_still, 0, &volume_forgets },
  { "f1-quorum/shows-less/unread", test_quorum_shows_less, true,
    &volume_plain },
  { "w6-join", test_w6_join, 0, &volume_plain },
  { "f1-quorum/bad-block", test_quorum_bad_block, 0, &volume_plain },
  { "f1-quorum/read", test_quorum_read, 0, &volume_plain },
  { "f1-quorum/read/not-written", test_quorum_read, MOCK_WRITE,
    &volume_plain },
  { "f1-quorum/read/not-flushed", test_quorum_read, MOCK_FLUSH,
    &volume_plain },
  { "f1-quorum/heard", test_quorum_heard, 0, &volume_plain },
  { "f1-quorum/unread", test_quorum_unread, 0, &volume_plain },
  { "f1-quorum/holes", test_quorum_holes, 0, &volume_plain },
  { "quorum/1", test_quorum, 1, &volume_plain },
  { "quorum/2", test_quorum, 2, &volume_plain },
  { "quorum/3", test_quorum, 3, &volume_plain },
  { "w4-all-fail", test_w4_all_fail, 0, &volume_plain },
  { "w4-all-fail/crash", test_w4_all_fail_crash, 0, &volume_plain },
  { "w4-all-fail/dead", test_w4_all_dead, 0, &volume_plain },
  { "w4-all-fail/offline", test_w4_offline, 0, &volume_plain },
  { "w4-all-fail/again", test_w4_again, 0, &volume_plain },
  { "w4-all-fail/read-across", test_w4_read_across, 0, &volume_plain },
  { "w4-recovering-legs", test_w4_recovering, 0, &volume_plain },
  { "w4-recovered-chunk", test_w4_recovered_chunk, 0, &volume_plain },
  { "w6-flush-fails/0", test_w6_one_leg, 0, &volume_plain },
  { "w6-flush-fails/2", test_w6_one_leg, 2, &volume_plain },
  { "w6-last-leg", test_w6_last_leg, 0, &volume_plain },
  { "fua", test_fua, 0, &volume_plain },
  { "fua/by-flush", test_fua, 0, &volume_by_flush },
  { "fua-fails", test_fua_fails, 0, &volume_plain },
  { "fua-fails/by-flush", test_fua_fails, 0, &volume_by_flush },
  { "r11-one-copy/write", test_r11_one_copy, MOCK_WRITE, &volume_plain },
  { "r11-one-copy/flush", test_r11_one_copy, MOCK_FLUSH | MOCK_WRITE,
    &volume_plain },
  { "r11-read/0", test_r11_read, 0, &volume_plain },
  { "r11-read/1", test_r11_read, 1, &volume_plain },
  { "r11-all-copies-gone", test_r11_all_gone, 0, &volume_plain },
  { "r11-leg-fails-too", test_r11_leg_too, 0, &volume_plain },
  { "r15-all-dead", test_r15_all_dead, 0, &volume_plain },
};

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  VOLUME_ADD_TESTS ("/mirror-loss/", tests);
  return g_test_run ();
}
