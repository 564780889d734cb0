/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* S5: a change that was sent to the server of a leg is done long after its
 * connection has ended, when newer data has been acknowledged.  Such a leg is
 * "late" here: what lands there late is put there by the test.
 */

#include <config.h>

#include "clock.h"
#include "volume.h"

#define LATE_NSEC (3 * NSEC_PER_SEC)
#define AT (3 * CHUNK)
#define ELSEWHERE (5 * CHUNK)

static void
set_late (struct volume *v, unsigned long legs)
{
  unsigned int i;

  for (i = 0; i < v->num_legs; i++)
    if (legs & BIT (i))
      v->legs[i]->late = LATE_NSEC;
}

/* A crash with a chunk dirty. */
static void
crash (struct volume *v, unsigned long late)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  g_assert_true (volume_flush (v));
  volume_stop (v);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 2, AT, 1));
  g_assert_true (volume_flush (v));
  volume_crash (v, 1);
  set_late (v, late);
}

/* Old data lands on the late legs while clients write and read; they never see it, and
 * in the end it is nowhere.
 */
static void
assert_right (struct volume *v, int byte)
{
  unsigned int i;

  for (i = 0; i < 30; i++)
    g_assert_cmpint (volume_read (v, AT), ==, byte);
  volume_await_in_sync (v);
  g_assert_cmpint (volume_read (v, AT), ==, byte);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 1);
  volume_assert_alike (v, v->num_legs == LEGS ? ALL_LEGS : BIT (0));
}

/* After a restart, if there are legs that are not late: these are used at once, and
 * the others, too, but for what was dirty.
 */
static void
test_restart (struct volume *v, unsigned int late)
{
  unsigned int i;

  crash (v, late);
  volume_start (v);
  for (i = 0; i < LEGS; i++)
    g_assert_true ((late & BIT (i)) == 0 ||
                   leg_state (v, i) != DM_MIRROR_IN_SYNC);
  for (i = 0; i < LEGS; i++)
    if (late & BIT (i))
      volume_await_state (v, i, DM_MIRROR_RECOVERING);
  g_assert_true (volume_write (v, 3, AT, 1));
  g_assert_true (volume_flush (v));
  for (i = 0; i < LEGS; i++)
    if (late & BIT (i)) {
      g_assert_cmpint (leg_byte (v, i, AT), ==, 3);
      leg_set (v, i, 2, AT, 1);
    }
  assert_right (v, 3);
}

/* If there are none, or too few of them, all stay in sync, and what was dirty waits. */
static void
check_waits (struct volume *v, bool write, unsigned long legs)
{
  struct client waiting = {
    .v = v, .what = write ? CLIENT_WRITE : CLIENT_READ, .byte = 3,
    .sector = AT, .count = 1,
  };
  unsigned int i;

  client_start (&waiting);
  g_assert_true (volume_write (v, 1, ELSEWHERE, 1));
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 1);
  for (i = 0; i < v->num_legs; i++)
    if (legs & BIT (i))
      leg_set (v, i, 9, AT, 1);
  g_assert_false (client_ends_soon (&waiting));
  g_assert_true (client_finish (&waiting));
  if (!write)
    g_assert_cmpint (waiting.byte, ==, volume_read (v, AT));
  assert_right (v, write ? 3 : waiting.byte);
}

static void
test_restart_waits (struct volume *v, unsigned int write)
{
  crash (v, ALL_LEGS);
  volume_start (v);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
  check_waits (v, write, BIT (1));
}

static void
test_restart_quorum (struct volume *v, unsigned int write)
{
  crash (v, BIT (1) | BIT (2));
  v->options.quorum = 2;
  volume_start (v);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
  check_waits (v, write, BIT (1));
}

/* Nothing is copied from a leg that is in doubt to others, which would be other than it
 * when that is over.
 */
static void
test_restart_source (struct volume *v, unsigned int unused)
{
  volume_again (v, LEGS, SECTORS, CHUNK, BIT (0), &volume_plain);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  volume_crash (v, 1);
  set_late (v, BIT (0));
  volume_start (v);
  volume_await_state (v, 1, DM_MIRROR_RECOVERING);
  g_usleep (G_USEC_PER_SEC);
  leg_set (v, 0, 2, AT, 1);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
}

/* What a leg lacks may have been on its way to it when the last server was killed,
 * although no client wrote it.
 */
static void
test_restart_copied (struct volume *v, unsigned int unused)
{
  volume_again (v, LEGS, SECTORS, CHUNK, BIT (0) | BIT (2), &volume_plain);
  volume_start_quiet (v);
  dm_log_recover (v->log, 1, NULL);   /* as a copier does first */
  g_assert_cmpint (dm_log_keep_lease (v->log), ==, 0);
  volume_crash (v, 1);
  set_late (v, BIT (1));
  volume_start (v);
  volume_await_state (v, 1, DM_MIRROR_RECOVERING);
  g_usleep (G_USEC_PER_SEC);
  leg_set (v, 1, 2, AT, 1);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
}

/* But after an orderly end, or if it has never been written, nothing is on its way. */
static void
test_restart_in_order (struct volume *v, unsigned int unused)
{
  volume_again (v, LEGS, SECTORS, CHUNK, BIT (0) | BIT (2), &volume_plain);
  set_late (v, BIT (1));
  v->legs[1]->late = 1000 * NSEC_PER_SEC;
  volume_start_quiet (v);
  dm_log_recover (v->log, 1, NULL);
  g_assert_cmpint (dm_log_keep_lease (v->log), ==, 0);
  volume_stop (v);
  volume_start (v);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
}

/* A leg that could not be reached at the start, and turns up soon after it. */
static void
test_restart_missing (struct volume *v, unsigned int unused)
{
  struct dm_mirror_leg leg = { .name = dm_bdev_name (v->legs[1]) };
  char *error = NULL;

  crash (v, BIT (1));
  v->closed = BIT (1);
  v->options.degraded = true;
  volume_start (v);
  g_assert_true (volume_write (v, 3, AT, 1));
  leg.region = volume_region (v, 1);
  g_assert_cmpint (dm_mirror_add (v->mirror, &leg, &error), ==, 1);
  volume_await_state (v, 1, DM_MIRROR_RECOVERING);
  leg_set (v, 1, 2, AT, 1);
  assert_right (v, 3);
}

/* A connection ends with a change in flight. */
static void
lose_change (struct volume *v, unsigned int leg, uint64_t late, bool ok)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  volume_stop (v);
  volume_start (v);
  volume_fail (v, leg, MOCK_WRITE, ENOTCONN, AT, 1);
  __atomic_store_n (&v->legs[leg]->late_until, clock_now () + late,
                    __ATOMIC_RELAXED);
  g_assert_true (volume_write (v, 2, AT, 1) == ok);
  volume_heal (v);
}

static void
test_lost (struct volume *v, unsigned int leg)
{
  lose_change (v, leg, 2 * LATE_NSEC, true);
  volume_await_state (v, leg, DM_MIRROR_RECOVERING);
  g_assert_true (volume_write (v, 3, AT, 1));
  g_assert_cmpint (leg_byte (v, leg, AT), ==, 3);
  g_assert_cmpuint (leg_lacks (v, leg), ==, CHUNK * SECTOR);
  leg_set (v, leg, 2, AT, 1);
  assert_right (v, 3);
}

/* What else it lacks is copied to it at once. */
static void
test_lost_others (struct volume *v, unsigned int leg)
{
  lose_change (v, leg, 2 * LATE_NSEC, true);
  g_assert_true (volume_write (v, 1, ELSEWHERE, 1));
  volume_await_state (v, leg, DM_MIRROR_RECOVERING);
  AWAIT (leg_lacks (v, leg) == CHUNK * SECTOR);
  g_assert_true (clock_now () < v->legs[leg]->late_until);
  leg_set (v, leg, 9, AT, 1);
  assert_right (v, 2);
}

/*----------------------------------------------------------------------
 * A leg that lacks only chunks in doubt is used like one in sync for all others
 */

static void
await_partial (struct volume *v, unsigned int n)
{
  AWAIT (log_lines_count ("*is used again, but for chunks where older writes may still "
                          "land*") == n);
}

/* LEG of some is such a leg. */
static void
start_some (struct volume *v, unsigned int leg, unsigned int legs,
            unsigned int quorum)
{
  volume_again (v, legs, SECTORS, CHUNK, BIT (legs) - 1, &volume_plain);
  v->options.quorum = quorum;
  v->options.policy = DM_MIRROR_READ_FIRST;
  lose_change (v, leg, 10 * LATE_NSEC, quorum < legs);
  await_partial (v, 1);
  g_assert_cmpint (leg_state (v, leg), ==, DM_MIRROR_RECOVERING);
  g_assert_cmpuint (leg_lacks (v, leg), ==, CHUNK * SECTOR);
  g_assert_false (dm_mirror_is_in_sync (v->mirror));
}

static void
end_doubt (struct volume *v, unsigned int leg)
{
  __atomic_store_n (&v->legs[leg]->late_until, clock_now (), __ATOMIC_RELAXED);
  volume_await_in_sync (v);
  volume_assert_alike (v, BIT (0) | BIT (1));
}

static void
start_partial (struct volume *v, unsigned int leg, unsigned int quorum)
{
  start_some (v, leg, 2, quorum);
}

/* A request waits until LEG has got what is in doubt, as there is no quorum without it. */
static void
await_part (struct volume *v, unsigned int leg, int what, sector_t sector)
{
  struct client waiting = {
    .v = v, .what = what, .byte = 4, .sector = sector, .count = 1,
  };

  client_start (&waiting);
  g_assert_false (client_ends_soon (&waiting));
  __atomic_store_n (&v->legs[leg]->late_until, clock_now (), __ATOMIC_RELAXED);
  g_assert_true (client_finish (&waiting));
  end_doubt (v, leg);
}

/* It counts for quorum=, but where it is in doubt. */
static void
test_partial_quorum (struct volume *v, unsigned int leg)
{
  start_partial (v, leg, 2);
  g_assert_true (volume_write (v, 4, ELSEWHERE, 1));
  g_assert_true (volume_write_fua (v, 5, ELSEWHERE + 1, 1));
  await_part (v, leg, CLIENT_WRITE, AT + 2);
  g_assert_cmpint (volume_read (v, AT + 2), ==, 4);
}

/* Nor does it for a flush: what was acknowledged may be where it is in doubt. */
static void
test_partial_flush (struct volume *v, unsigned int leg)
{
  start_partial (v, leg, 2);
  g_assert_true (volume_write (v, 4, ELSEWHERE, 1));
  await_part (v, leg, CLIENT_FLUSH, 0);
}

/* Another leg is lost, and only those are left that are not enough. */
static void
test_partial_few (struct volume *v, unsigned int flush)
{
  uint64_t begin;

  start_some (v, 1, LEGS, 3);
  g_assert_true (volume_write (v, 4, ELSEWHERE, 1));
  volume_kill (v, 2, MOCK_WRITE, EIO);
  g_assert_false (volume_write (v, 5, ELSEWHERE, 1));
  begin = clock_now ();
  if (flush)
    g_assert_false (volume_flush (v));
  else
    g_assert_false (volume_write (v, 5, AT, 1));
  g_assert_cmpuint (clock_now () - begin, <, 5 * LATE_NSEC); /* doubt: 10 */
}

/* It is read, but where it is in doubt. */
static void
test_partial_read (struct volume *v, unsigned int leg)
{
  start_partial (v, leg, 1);
  leg_set (v, leg, 9, AT, 1);
  volume_fail (v, !leg, MOCK_READ, EIO, 0, SECTORS);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 1);
  g_assert_cmpint (volume_read (v, AT), ==, -1);
  volume_heal (v);
  g_assert_cmpint (volume_read (v, AT), ==, 2);
  end_doubt (v, leg);
}

/* What it cannot read is written to it again. */
static void
test_partial_repair (struct volume *v, unsigned int leg)
{
  const struct mock_fault bad = {
    .ops = MOCK_READ, .error = EIO, .until_written = true,
    .offset = (LEG_START (leg) + ELSEWHERE) * SECTOR, .length = SECTOR,
  };

  start_partial (v, leg, 1);
  mock_fault (v->legs[leg], &bad);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 1);
  g_assert_cmpuint (log_lines_count ("*could not be read have been written again"), ==,
                    1);
  g_assert_cmpint (leg_state (v, leg), ==, DM_MIRROR_RECOVERING);
  end_doubt (v, leg);
}

/* A write that it has and the leg in sync refuses has failed: who reads it meanwhile does
 * not get what the other does not have.
 */
static void
test_partial_refused (struct volume *v, unsigned int unused)
{
  const struct mock_fault slow = { .ops = MOCK_READ, .gate = &v->log_gate };
  const struct mock_fault refused = {
    .ops = MOCK_WRITE, .gate = &v->gate, .error = EIO, .times = 1,
    .offset = (LEG_START (1) + ELSEWHERE) * SECTOR, .length = SECTOR,
  };
  struct client reader = { .v = v, .what = CLIENT_READ, .sector = ELSEWHERE };
  struct client writer = {
    .v = v, .what = CLIENT_WRITE, .byte = 5, .sector = ELSEWHERE, .count = 1,
  };

  start_partial (v, 0, 1);
  mock_fault (v->legs[0], &slow);
  mock_fault (v->legs[1], &refused);
  client_start (&reader);
  mock_gate_await (&v->log_gate, 1);
  client_start (&writer);
  mock_gate_await (&v->gate, 1);
  AWAIT (leg_byte (v, 0, ELSEWHERE) == 5);
  mock_gate_open (&v->log_gate);
  g_assert_false (client_ends_soon (&reader));
  mock_gate_open (&v->gate);
  g_assert_false (client_finish (&writer));
  g_assert_true (client_finish (&reader));
  g_assert_cmpint (reader.byte, ==, 1);
  end_doubt (v, 0);
}

/* While the leg in sync cannot be flushed nobody sees what it may have lost and this one has
 * not: that would be gone again if it left.
 */
static void
test_partial_unflushed (struct volume *v, unsigned int leg)
{
  start_partial (v, leg, 1);
  volume_fail (v, !leg, MOCK_FLUSH, EIO, 0, 0);
  volume_fail (v, !leg, MOCK_WRITE, EIO, 0, 0);
  g_assert_false (volume_flush (v));
  AWAIT (leg_state (v, leg) == DM_MIRROR_FAILED);
  AWAIT (leg_state (v, leg) == DM_MIRROR_RECOVERING &&
         leg_lacks (v, leg) == CHUNK * SECTOR);
  g_usleep (G_USEC_PER_SEC);
  volume_fail (v, !leg, MOCK_READ, EIO, ELSEWHERE, 1);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, -1);
  g_assert_cmpuint (log_lines_count ("*is used again, but for chunks*"), ==, 1);
  volume_heal (v);
  end_doubt (v, leg);
}

/* It may have what the leg in sync has lost, which cannot be flushed, when another takes its
 * place that was copied from that.
 */
static void
test_partial_diverges (struct volume *v, unsigned int unused)
{
  struct dm_mirror_leg leg = { 0 };
  char *error = NULL;

  start_some (v, 1, LEGS, 1);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 2), ==, 0);
  g_assert_true (volume_write (v, 7, ELSEWHERE, 1));
  volume_fail (v, 0, MOCK_FLUSH, EIO, 0, 0);
  g_assert_false (volume_flush (v));
  /* Not when it is written again anyway. */
  AWAIT (log_lines_count ("*written again yet*") == 3);
  AWAIT (leg_state (v, 1) == DM_MIRROR_RECOVERING &&
         leg_lacks (v, 1) == CHUNK * SECTOR);
  leg_set (v, 0, 1, ELSEWHERE, 1);
  leg.region = volume_region (v, 2);
  leg.name = dm_bdev_name (v->legs[2]);
  g_assert_cmpint (dm_mirror_add (v->mirror, &leg, &error), ==, 2);
  volume_await_state (v, 2, DM_MIRROR_IN_SYNC);
  AWAIT (leg_state (v, 0) == DM_MIRROR_FAILED);
  volume_heal (v);
  __atomic_store_n (&v->legs[1]->late_until, clock_now (), __ATOMIC_RELAXED);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
}

/* A read of two sectors, of which the first came from a write that the leg in sync has
 * refused; the leg has left for that, and is back before the read ends.
 */
static void *
read_two (void *arg)
{
  struct volume *v = arg;
  struct dm_io_result results[DM_IO_MAX_REGIONS];
  unsigned char data[2 * SECTOR];

  g_assert_true (dm_mirror_read (v->mirror, data, ELSEWHERE, 2, results));
  g_assert_cmpint (data[0], ==, 1);
  g_assert_cmpint (data[SECTOR], ==, 1);
  return NULL;
}

static void
test_partial_returns (struct volume *v, unsigned int unused)
{
  const struct mock_fault first = {
    .ops = MOCK_READ, .times = 1, .shorten = true, .transfer = SECTOR,
    .offset = (LEG_START (0) + ELSEWHERE) * SECTOR, .length = 2 * SECTOR,
  };
  const struct mock_fault second = {
    .ops = MOCK_READ, .gate = &v->log_gate, .after = 1, .times = 1,
    .offset = (LEG_START (0) + ELSEWHERE + 1) * SECTOR, .length = SECTOR,
  };
  const struct mock_fault refused = {
    .ops = MOCK_WRITE, .gate = &v->gate, .error = EIO, .times = 1,
    .offset = (LEG_START (1) + ELSEWHERE) * SECTOR, .length = SECTOR,
  };
  struct client writer = {
    .v = v, .what = CLIENT_WRITE, .byte = 5, .sector = ELSEWHERE, .count = 1,
  };
  pthread_t reader;

  start_partial (v, 0, 1);
  mock_fault (v->legs[1], &refused);
  leg_set (v, 0, 5, ELSEWHERE, 1);      /* what the write leaves there, in time */
  mock_fault (v->legs[0], &first);
  mock_fault (v->legs[0], &second);
  g_assert_cmpint (pthread_create (&reader, NULL, read_two, v), ==, 0);
  mock_gate_await (&v->log_gate, 1);
  client_start (&writer);
  mock_gate_await (&v->gate, 1);
  mock_gate_open (&v->gate);
  g_assert_false (client_finish (&writer));
  await_partial (v, 2);
  mock_gate_open (&v->log_gate);
  pthread_join (reader, NULL);
  end_doubt (v, 0);
}

/* The leg in sync is lost, and back with less than it had: from when it can be read this one
 * is not.
 */
static void
read_less (void *data)
{
  g_assert_cmpint (volume_read (data, ELSEWHERE), ==, 1);
}

static void
test_partial_outage (struct volume *v, unsigned int unused)
{
  start_partial (v, 0, 1);
  mock_on_revival (v->legs[1], read_less, v);
  g_assert_true (volume_write (v, 7, ELSEWHERE, 1));
  mock_set_revive (v->legs[1], 1000, 0);
  mock_set_failed (v->legs[1], true);
  leg_set (v, 1, 1, ELSEWHERE, 1);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 7);
  mock_set_revive (v->legs[1], 0, 0);
  AWAIT (log_lines_count ("*leg1*is used again, the first in sync*") == 1);
  mock_on_revival (v->legs[1], NULL, NULL);
  end_doubt (v, 0);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 1);
}

/* What the leg in sync cannot read it is given from there. */
static void
test_partial_gives (struct volume *v, unsigned int leg)
{
  const struct mock_fault bad = {
    .ops = MOCK_READ, .error = EIO, .until_written = true,
    .offset = (LEG_START (!leg) + ELSEWHERE) * SECTOR, .length = SECTOR,
  };

  start_partial (v, leg, 1);
  mock_fault (v->legs[!leg], &bad);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 1);
  g_assert_cmpuint (log_lines_count ("*could not be read have been written again"), ==,
                    1);
  end_doubt (v, leg);
}

/* After a crash all is in doubt that a leg lacks, and may have just been copied: one that
 * lacks more than was being written is none of these.
 */
static void
test_partial_lacks_all (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0), &volume_plain);
  volume_start_quiet (v);
  dm_log_recover (v->log, 1, NULL);
  g_assert_true (volume_write (v, 2, AT, 1));
  volume_crash (v, 1);
  v->legs[1]->late = LATE_NSEC;
  v->options.quorum = 2;
  volume_start (v);
  volume_await_state (v, 1, DM_MIRROR_RECOVERING);
  g_usleep (G_USEC_PER_SEC);
  g_assert_cmpuint (leg_lacks (v, 1), ==, SECTORS * SECTOR);
  g_assert_false (volume_flush (v));
  volume_await_in_sync (v);
  g_assert_cmpuint (log_lines_count ("*is used again, but for*"), ==, 0);
}

/* Both legs in sync can be read there no more, nor be written: they stay, as they have all
 * else, and so does the one that has this.
 */
static void
test_partial_kept_by_both (struct volume *v, unsigned int unused)
{
  unsigned int i;

  start_some (v, 2, LEGS, 1);
  for (i = 0; i < 2; i++)
    volume_fail (v, i, MOCK_READ | MOCK_WRITE, EIO, ELSEWHERE, 1);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 1);
  for (i = 0; i < 2; i++)
    g_assert_cmpint (leg_state (v, i), ==, DM_MIRROR_IN_SYNC);
  g_assert_cmpint (leg_state (v, 2), ==, DM_MIRROR_RECOVERING);
  volume_heal (v);
  end_doubt (v, 2);
  volume_assert_alike (v, ALL_LEGS);
}

/* The same of one, and it alone. */
static void
test_partial_kept (struct volume *v, unsigned int op)
{
  start_partial (v, 1, 1);
  volume_fail (v, 0, op, EIO, ELSEWHERE, 1);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 1);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_IN_SYNC);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_RECOVERING);
  __atomic_store_n (&v->legs[1]->late_until, clock_now (), __ATOMIC_RELAXED);
  AWAIT (leg_lacks (v, 1) == 0);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 1);
  volume_heal (v);
  end_doubt (v, 1);
}

/* It has only lost its connection, to which nothing was in flight: nothing is written to it
 * again.
 */
static void
test_partial_disconnected (struct volume *v, unsigned int unused)
{
  const struct mock_fault once = {
    .ops = MOCK_READ | MOCK_WRITE, .error = ENOTCONN, .times = 1,
  };

  start_partial (v, 1, 1);
  mock_fault (v->legs[0], &once);
  mock_clear_trace (v->legs[0]);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 1);
  g_assert_cmpuint (mock_count (v->legs[0], MOCK_WRITE), ==, 0);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_RECOVERING);
  volume_heal (v);
  end_doubt (v, 1);
}

/* It is gone, and tried again and again while the other is read. */
static void
test_partial_revives (struct volume *v, unsigned int unused)
{
  const struct mock_fault slow = {
    .ops = MOCK_READ, .gate = &v->log_gate, .times = 1,
  };
  struct client reader = { .v = v, .what = CLIENT_READ, .sector = ELSEWHERE };
  unsigned int n;

  start_partial (v, 0, 1);
  mock_set_revive (v->legs[1], 100000, 0);
  mock_set_failed (v->legs[1], true);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 1);
  mock_fault (v->legs[0], &slow);
  client_start (&reader);
  mock_gate_await (&v->log_gate, 1);
  n = mock_revives (v->legs[1]);
  AWAIT (mock_revives (v->legs[1]) >= n + 2);
  mock_gate_open (&v->log_gate);
  g_assert_true (client_finish (&reader));
  g_assert_cmpint (reader.byte, ==, 1);
  mock_set_revive (v->legs[1], 0, 0);
  end_doubt (v, 0);
}

/* Add a leg that was failed, and wait until it has been copied what another shows. */
static void
add_again (struct volume *v, unsigned int number)
{
  struct dm_mirror_leg leg = {
    .region = volume_region (v, number), .name = dm_bdev_name (v->legs[number]),
  };
  char *error = NULL;

  leg_set (v, number, 9, ELSEWHERE, 1);
  g_assert_cmpint (dm_mirror_add (v->mirror, &leg, &error), ==, number);
  AWAIT (leg_byte (v, number, ELSEWHERE) == 1);
}

/* What cannot be flushed is noticed before another takes its place that was copied from it:
 * of LEGS, the last is added, and another may be in sync in part.
 */
static void
check_unnoticed (struct volume *v, unsigned int legs)
{
  const struct mock_fault bad = {
    .ops = MOCK_FLUSH, .gate = &v->gate, .error = EIO,
  };
  unsigned int last = legs - 1;

  g_assert_cmpint (dm_mirror_fail (v->mirror, last), ==, 0);
  mock_fault (v->legs[0], &bad);
  g_assert_true (volume_write (v, 7, ELSEWHERE, 1));
  leg_set (v, 0, 1, ELSEWHERE, 1);
  add_again (v, last);
  mock_gate_open (&v->gate);
  AWAIT (log_lines_count ("*leg0*flush failed*") > 0);
  g_assert_false (volume_flush (v) && volume_read (v, ELSEWHERE) != 7);
  volume_heal (v);
  for (last = 0; last < legs; last++)
    __atomic_store_n (&v->legs[last]->late_until, clock_now (), __ATOMIC_RELAXED);
  volume_await_in_sync (v);
  volume_assert_alike (v, BIT (legs) - 1);
}

static void
test_partial_unnoticed (struct volume *v, unsigned int unused)
{
  start_some (v, 1, LEGS, 1);
  check_unnoticed (v, LEGS);
}

static void
test_unnoticed (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (2) - 1, &volume_plain);
  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  g_assert_true (volume_flush (v));
  check_unnoticed (v, 2);
}

/* A leg that has lost something leaves before that is noticed, and another that was copied from
 * it is not taken for one that has it.
 */
static void
test_unnoticed_left (struct volume *v, unsigned int by_error)
{
  const struct mock_fault held = {
    .ops = MOCK_FLUSH, .gate = &v->gate, .error = EIO,
  };

  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  g_assert_true (volume_flush (v));
  g_assert_cmpint (dm_mirror_fail (v->mirror, 2), ==, 0);
  mock_fault (v->legs[0], &held);
  g_assert_true (volume_write (v, 7, ELSEWHERE, 1));
  leg_set (v, 0, 1, ELSEWHERE, 1);
  v->options.policy = DM_MIRROR_READ_FIRST;
  add_again (v, 2);
  if (by_error) {
    volume_kill (v, 0, MOCK_WRITE, EIO);
    g_assert_true (volume_write (v, 8, AT, 1));
  }
  else
    g_assert_cmpint (dm_mirror_fail (v->mirror, 0), ==, 0);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_FAILED);
  mock_gate_open (&v->gate);
  volume_await_state (v, 2, DM_MIRROR_IN_SYNC);
  volume_assert_alike (v, BIT (1) | BIT (2));
  g_assert_cmpint (leg_byte (v, 2, ELSEWHERE), ==, 7);
}

/* What is given to one that has a bad sector is what the others have kept. */
static void
test_unnoticed_repair (struct volume *v, unsigned int unused)
{
  const struct mock_fault bad = {
    .ops = MOCK_READ, .error = EIO, .until_written = true,
    .offset = (LEG_START (2) + ELSEWHERE) * SECTOR, .length = SECTOR,
  };

  v->backwards = true;
  v->options.policy = DM_MIRROR_READ_FIRST;
  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  g_assert_true (volume_flush (v));
  g_assert_true (volume_write (v, 7, ELSEWHERE, 1));
  volume_kill (v, 0, MOCK_FLUSH, EIO);
  leg_set (v, 0, 1, ELSEWHERE, 1);
  mock_fault (v->legs[2], &bad);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 7);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_FAILED);
  g_assert_true (volume_flush (v));
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 7);
  volume_assert_alike (v, BIT (1) | BIT (2));
}

/* The same when it is come upon while another leg recovers: nobody else has it. */
static void
test_unnoticed_copied (struct volume *v, unsigned int unused)
{
  const struct mock_fault bad = {
    .ops = MOCK_READ, .error = EIO, .until_written = true,
    .offset = (LEG_START (0) + ELSEWHERE) * SECTOR, .length = SECTOR,
  };
  struct dm_mirror_leg leg = { 0 };
  char *error = NULL;

  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  g_assert_true (volume_flush (v));
  g_assert_cmpint (dm_mirror_fail (v->mirror, 2), ==, 0);
  g_assert_true (volume_write (v, 7, ELSEWHERE, 1));
  mock_fault (v->legs[0], &bad);
  volume_kill (v, 1, MOCK_FLUSH, EIO);
  leg_set (v, 1, 1, ELSEWHERE, 1);
  leg.region = volume_region (v, 2);
  leg.name = dm_bdev_name (v->legs[2]);
  g_assert_cmpint (dm_mirror_add (v->mirror, &leg, &error), ==, 2);
  AWAIT (leg_state (v, 1) == DM_MIRROR_FAILED);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, -1);
}

/* So is what all get when they have refused a write near it. */
static void
test_unnoticed_reconcile (struct volume *v, unsigned int unused)
{
  struct mock_fault refused = {
    .ops = MOCK_WRITE, .error = EIO, .times = 1, .length = SECTOR,
  };
  unsigned int i;

  volume_again (v, 2, SECTORS, CHUNK, BIT (2) - 1, &volume_plain);
  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  g_assert_true (volume_flush (v));
  volume_kill (v, 0, MOCK_FLUSH, EIO);
  g_assert_true (volume_write (v, 7, ELSEWHERE, 1));
  leg_set (v, 0, 1, ELSEWHERE, 1);
  for (i = 0; i < 2; i++) {
    refused.offset = (LEG_START (i) + ELSEWHERE + 1) * SECTOR;
    mock_fault (v->legs[i], &refused);
  }
  g_assert_false (volume_write (v, 8, ELSEWHERE + 1, 1));
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 7);
}

/* The answer is not what the leg has shown that was found to have lost something when another
 * was repaired.
 */
static void
test_unnoticed_answer (struct volume *v, unsigned int unused)
{
  const struct mock_fault bad = {
    .ops = MOCK_READ, .error = EIO, .until_written = true,
    .offset = (LEG_START (0) + ELSEWHERE) * SECTOR, .length = SECTOR,
  };

  v->options.policy = DM_MIRROR_READ_FIRST;
  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  g_assert_true (volume_flush (v));
  g_assert_true (volume_write (v, 7, ELSEWHERE, 1));
  volume_kill (v, 1, MOCK_FLUSH, EIO);
  leg_set (v, 1, 1, ELSEWHERE, 1);
  mock_fault (v->legs[0], &bad);
  g_assert_cmpint (volume_read (v, ELSEWHERE), ==, 7);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_FAILED);
}

/* The legs that are left have bad sectors, and yet each what the other lacks. */
static void
test_unnoticed_parts (struct volume *v, unsigned int unused)
{
  struct mock_fault bad = {
    .ops = MOCK_READ, .error = EIO, .until_written = true, .length = SECTOR,
  };
  struct dm_io_result results[DM_IO_MAX_REGIONS];
  unsigned char data[2 * SECTOR];
  unsigned int i;

  v->options.policy = DM_MIRROR_READ_FIRST;
  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  g_assert_true (volume_flush (v));
  g_assert_true (volume_write (v, 7, ELSEWHERE, 2));
  volume_kill (v, 1, MOCK_FLUSH, EIO);
  for (i = 0; i < 2; i++) {
    bad.offset = (LEG_START (2 * i) + ELSEWHERE + i) * SECTOR;
    mock_fault (v->legs[2 * i], &bad);
  }
  g_assert_true (dm_mirror_read (v->mirror, data, ELSEWHERE, 2, results));
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_FAILED);
  g_assert_cmpint (data[0], ==, 7);
}

/* A leg that cannot be flushed stays when one leaves that could be: clients hear that what
 * both have lost is gone.
 */
static void
test_unnoticed_departure (struct volume *v, unsigned int by_user)
{
  const struct mock_fault full = {
    .ops = MOCK_WRITE, .times = 1, .error = ENOSPC,
    .offset = (LEG_START (0) + AT) * SECTOR, .length = SECTOR,
  };
  const struct mock_fault bad = {
    .ops = MOCK_WRITE, .times = 1, .error = EIO,
    .offset = (LEG_START (1) + AT) * SECTOR, .length = SECTOR,
  };
  const struct mock_fault hold = { .ops = MOCK_READ, .gate = &v->gate, .times = 1 };
  const struct mock_fault once = { .ops = MOCK_FLUSH, .error = EIO, .times = 1 };
  unsigned int i;

  volume_again (v, 2, SECTORS, CHUNK, BIT (2) - 1, &volume_plain);
  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  g_assert_true (volume_flush (v));
  mock_fault (v->legs[0], &full);
  mock_fault (v->legs[1], &bad);
  mock_fault (v->legs[0], &hold);
  g_assert_false (volume_write_fua (v, 8, AT, 1));
  g_assert_cmpuint (volume_in_sync (v), ==, 2);
  mock_gate_await (&v->gate, 1);        /* what is dirty is written again */
  g_assert_false (volume_flush (v));    /* the first loss is heard of */
  g_assert_true (volume_write (v, 7, ELSEWHERE, 1));
  for (i = 0; i < 2; i++)
    leg_set (v, i, 1, ELSEWHERE, 1);
  mock_fault (v->legs[1], &once);
  if (by_user)
    g_assert_cmpint (dm_mirror_fail (v->mirror, 0), ==, 0);
  else
    volume_kill (v, 0, MOCK_FLUSH, EIO);
  mock_gate_open (&v->gate);
  AWAIT (leg_state (v, 0) == DM_MIRROR_FAILED);
  AWAIT (log_lines_count ("*leg1*has been flushed*") > 0);
  g_assert_false (volume_flush (v));
}

/* A source that loses its connection for a moment, and nothing with it, keeps no leg from
 * recovering from it.
 */
static void
test_source_blinks (struct volume *v, unsigned int unused)
{
  const struct mock_fault hold = { .ops = MOCK_WRITE, .gate = &v->gate, .times = 1 };

  volume_again (v, 2, 8 * SECTORS, CHUNK, BIT (0), &volume_plain);
  leg_set (v, 0, 5, 0, 8 * SECTORS);
  mock_fault (v->legs[1], &hold);
  volume_start (v);
  mock_gate_await (&v->gate, 1);
  __atomic_store_n (&v->legs[0]->offline, true, __ATOMIC_RELAXED);
  volume_fail (v, 0, MOCK_READ | MOCK_FLUSH, ENOTCONN, 0, 0);
  mock_gate_open (&v->gate);
  g_usleep (G_USEC_PER_SEC / 2);
  __atomic_store_n (&v->legs[0]->offline, false, __ATOMIC_RELAXED);
  mock_clear_faults (v->legs[0]);
  volume_await_in_sync (v);
  g_assert_cmpuint (log_lines_count ("*leg1*has failed*"), ==, 0);
  volume_assert_alike (v, BIT (2) - 1);
}

/* What a leg in sync in part lacks cannot be read from any, so it is not waited for. */
static void
test_partial_stuck (struct volume *v, unsigned int unused)
{
  uint64_t begun;

  crash (v, BIT (2));
  v->options.quorum = 2;
  volume_fail (v, 0, MOCK_READ, EIO, AT + 1, 1);
  volume_fail (v, 1, MOCK_READ, EIO, AT + 1, 1);
  volume_start (v);
  await_partial (v, 1);
  AWAIT (log_lines_count ("*some of what it lacks cannot be read*") > 0);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, 0);
  begun = clock_now ();
  g_assert_false (volume_flush (v));
  g_assert_cmpuint (clock_now () - begun, <, 30 * NSEC_PER_SEC); /* not COPY_NSEC */
}

/* What another leg lacks cannot be copied: that has nothing to do with what is waited for. */
static void
test_partial_other_stuck (struct volume *v, unsigned int what)
{
  struct dm_mirror_leg leg = { 0 };
  char *error = NULL;

  start_some (v, 1, LEGS, 2);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 2), ==, 0);
  g_assert_true (volume_write (v, 7, ELSEWHERE, 1));
  volume_fail (v, 0, MOCK_READ, EIO, ELSEWHERE, 1);
  leg.region = volume_region (v, 2);
  leg.name = dm_bdev_name (v->legs[2]);
  g_assert_cmpint (dm_mirror_add (v->mirror, &leg, &error), ==, 2);
  AWAIT (log_lines_count ("*some of what it lacks cannot be read*") > 0);
  await_part (v, 1, what, AT + 2);
}

/* What is in doubt is copied slowly: that is waited for, too. */
static void
test_partial_slow (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (2) - 1, &volume_plain);
  v->options.quorum = 2;
  v->options.resync_rate = CHUNK * SECTOR / 13;
  lose_change (v, 1, 10 * LATE_NSEC, false);
  await_partial (v, 1);
  await_part (v, 1, CLIENT_FLUSH, 0);
}

/* It is no substitute for the last leg that has all. */
static void
test_partial_alone (struct volume *v, unsigned int leg)
{
  start_partial (v, leg, 1);
  g_assert_cmpint (dm_mirror_fail (v->mirror, !leg), ==, -EBUSY);
  volume_crash (v, 1);
  v->given = BIT (leg);
  v->options.degraded = true;
  volume_refused (v, "no region that is in sync is there");
}

/*----------------------------------------------------------------------*/

/* The last leg in sync: there is no other that could be read. */
static void
test_lost_last (struct volume *v, unsigned int write)
{
  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_plain);
  lose_change (v, 0, 2 * LATE_NSEC, false);
  check_waits (v, write, BIT (0));
}

/* A crash, after a while, in which it may still land: what is in doubt is dirty. */
static void
test_lost_crash (struct volume *v, unsigned int leg)
{
  lose_change (v, leg, 10 * LATE_NSEC, true);
  volume_await_state (v, leg, DM_MIRROR_RECOVERING);
  g_usleep (6 * G_USEC_PER_SEC);        /* else it would be clean by now */
  volume_crash (v, 1);
  volume_load (v);
  g_assert_true (log_is_dirty (v, 3));
  g_assert_true (log_lacks (v, leg, 3));
}

/* A leg that the last server did not write is in no doubt, whatever became of that. */
static void
test_not_written (struct volume *v, unsigned int crashed)
{
  v->legs[1]->late = 1000 * NSEC_PER_SEC;
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  volume_stop (v);
  v->given = BIT (0) | BIT (2);
  v->options.degraded = true;
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 2, AT, 1));
  g_assert_true (volume_flush (v));
  if (crashed)
    volume_crash (v, 1);
  else
    volume_stop (v);
  v->given = ALL_LEGS;
  volume_start (v);
  assert_right (v, 2);
}

static const struct volume_test tests[] = {
  { "s5-restart/one", test_restart, BIT (0), &volume_plain },
  { "s5-restart/two", test_restart, BIT (1) | BIT (2), &volume_plain },
  { "s5-restart/all-read", test_restart_waits, false, &volume_plain },
  { "s5-restart/all-write", test_restart_waits, true, &volume_plain },
  { "s5-restart/quorum-read", test_restart_quorum, false, &volume_plain },
  { "s5-restart/quorum-write", test_restart_quorum, true, &volume_plain },
  { "s5-restart/in-order", test_restart_in_order, 0, &volume_plain },
  { "s5-restart/not-written", test_not_written, false, &volume_plain },
  { "s5-restart/not-written/crash", test_not_written, true, &volume_plain },
  { "s5-restart/missing", test_restart_missing, 0, &volume_plain },
  { "s5-restart/source", test_restart_source, 0, &volume_plain },
  { "s5-restart/copied", test_restart_copied, 0, &volume_plain },
  { "s5-lost/first", test_lost, 0, &volume_plain },
  { "s5-lost/second", test_lost, 1, &volume_plain },
  { "s5-lost/others", test_lost_others, 1, &volume_plain },
  { "s5-partial/quorum/0", test_partial_quorum, 0, &volume_plain },
  { "s5-partial/quorum/1", test_partial_quorum, 1, &volume_plain },
  { "s5-partial/read/0", test_partial_read, 0, &volume_plain },
  { "s5-partial/read/1", test_partial_read, 1, &volume_plain },
  { "s5-partial/repair", test_partial_repair, 0, &volume_plain },
  { "s5-partial/refused", test_partial_refused, 0, &volume_plain },
  { "s5-partial/unflushed", test_partial_unflushed, 1, &volume_plain },
  { "s5-partial/flush", test_partial_flush, 1, &volume_plain },
  { "s5-partial/few/write", test_partial_few, false, &volume_plain },
  { "s5-partial/few/flush", test_partial_few, true, &volume_plain },
  { "s5-partial/diverges", test_partial_diverges, 0, &volume_plain },
  { "s5-partial/returns", test_partial_returns, 0, &volume_plain },
  { "s5-partial/outage", test_partial_outage, 0, &volume_plain },
  { "s5-partial/gives", test_partial_gives, 1, &volume_plain },
  { "s5-partial/lacks-all", test_partial_lacks_all, 0, &volume_plain },
  { "s5-partial/kept/written", test_partial_kept, MOCK_READ | MOCK_WRITE, &volume_plain },
  { "s5-partial/kept/read", test_partial_kept, MOCK_READ, &volume_plain },
  { "s5-partial/kept/both", test_partial_kept_by_both, 0, &volume_plain },
  { "s5-partial/disconnected", test_partial_disconnected, 0, &volume_plain },
  { "s5-partial/revives", test_partial_revives, 0, &volume_plain },
  { "s5-partial/unnoticed", test_partial_unnoticed, 0, &volume_plain },
  { "s5-partial/slow", test_partial_slow, 0, &volume_plain },
  { "s5-partial/stuck", test_partial_stuck, 0, &volume_plain },
  { "s5-partial/other-stuck/write", test_partial_other_stuck, CLIENT_WRITE,
    &volume_plain },
  { "s5-partial/other-stuck/flush", test_partial_other_stuck, CLIENT_FLUSH,
    &volume_plain },
  { "f1-unnoticed/flushed", test_unnoticed, 0, &volume_plain },
  { "f1-unnoticed/left-by-user", test_unnoticed_left, false, &volume_plain },
  { "f1-unnoticed/left-by-error", test_unnoticed_left, true, &volume_plain },
  { "f1-unnoticed/repair", test_unnoticed_repair, 0, &volume_plain },
  { "f1-unnoticed/answer", test_unnoticed_answer, 0, &volume_plain },
  { "f1-unnoticed/parts", test_unnoticed_parts, 0, &volume_plain },
  { "f1-unnoticed/departure-by-error", test_unnoticed_departure, false, &volume_plain },
  { "f1-unnoticed/departure-by-user", test_unnoticed_departure, true, &volume_plain },
  { "f1-unnoticed/blinks", test_source_blinks, 0, &volume_plain },
  { "f1-unnoticed/copied", test_unnoticed_copied, 0, &volume_plain },
  { "f1-unnoticed/reconcile", test_unnoticed_reconcile, 0, &volume_plain },
  { "s5-partial/alone", test_partial_alone, 1, &volume_plain },
  { "s5-lost/last-read", test_lost_last, false, &volume_plain },
  { "s5-lost/last-write", test_lost_last, true, &volume_plain },
  { "s5-lost/crash", test_lost_crash, 1, &volume_plain },
};

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  VOLUME_ADD_TESTS ("/mirror-late/", tests);
  return g_test_run ();
}
