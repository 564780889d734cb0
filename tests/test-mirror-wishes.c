/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What the user wishes of a mirror that runs: legs that are no longer used,
 * that are used again, and new ones.
 */

#include <config.h>

#include "clock.h"
#include "volume.h"

/* Has what it should, and no more was copied to it than COUNT sectors. */
static void
assert_recovered (struct volume *v, unsigned int leg, sector_t count)
{
  volume_await_in_sync (v);
  volume_assert_alike (v, v->given);
  g_assert_cmpuint (mock_changed (v->legs[leg]), ==, count * SECTOR);
}

static bool
is_by_user (struct volume *v, unsigned int leg)
{
  struct dm_mirror_status status;

  dm_mirror_get_status (v->mirror, &status);
  dm_mirror_status_clear (&status);
  return status.legs[leg].by_user;
}

static struct dm_mirror_leg
leg_to_add (struct volume *v, unsigned int leg)
{
  return (struct dm_mirror_leg) {
    .region = volume_region (v, leg), .name = dm_bdev_name (v->legs[leg]),
  };
}

static void
add_leg (struct volume *v, unsigned int leg)
{
  const struct dm_mirror_leg new = leg_to_add (v, leg);
  char *error = NULL;
  int r = dm_mirror_add (v->mirror, &new, &error);

  if (r < 0)
    g_error ("dm_mirror_add: %s", error);
  g_assert_cmpint (r, ==, leg);
}

static void
assert_add_refused (struct volume *v, const struct dm_mirror_leg *leg,
                    const char *says)
{
  unsigned int n = dm_mirror_num_legs (v->mirror);
  g_autofree char *error = NULL;

  g_assert_cmpint (dm_mirror_add (v->mirror, leg, &error), ==, -1);
  g_assert_nonnull (error);
  if (strstr (error, leg->name) == NULL || strstr (error, says) == NULL)
    g_error ("message does not say '%s': %s", says, error);
  g_assert_cmpuint (dm_mirror_num_legs (v->mirror), ==, n);
}

/* A leg that the user has failed stays so, also over a restart, until it is
 * added again; then it gets what it lacks.
 */
static void
test_fail_and_add (struct volume *v, unsigned int unused)
{
  unsigned int round;

  volume_start (v);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, 0);
  volume_clear_traces (v);
  for (round = 0; round < 2; round++) {
    g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_FAILED);
    g_assert_true (is_by_user (v, 1));
    g_assert_true (volume_write (v, round, round * CHUNK, 1));
    g_assert_true (volume_flush (v));
    g_usleep (1200000);
    g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_FAILED);
    if (round == 0) {
      volume_crash (v, 1);
      g_assert_cmpuint (mock_count (v->legs[1], CHANGES), ==, 0);
      volume_start (v);
      g_assert_cmpint (log_state (v, 1), ==, DM_LOG_FAILED);
    }
  }
  g_assert_true (log_lacks (v, 1, 0));
  add_leg (v, 1);
  assert_recovered (v, 1, 2 * CHUNK);
  g_assert_false (is_by_user (v, 1));
  volume_stop (v);
  volume_start_quiet (v);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
}

/* Not the last one in sync. */
static void
test_fail_last (struct volume *v, unsigned int unused)
{
  volume_start (v);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 0), ==, 0);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 2), ==, 0);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, -EBUSY);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_IN_SYNC);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_cmpint (volume_read (v, 0), ==, 1);
}

/* While it is being recovered: that ends. */
static void
test_fail_recovering (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0), &volume_plain);
  leg_set (v, 0, 7, 0, SECTORS);
  volume_hold (v->legs[0], MOCK_READ, &v->gate);
  volume_start (v);
  mock_gate_await (&v->gate, 1);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, 0);
  mock_gate_open (&v->gate);
  g_usleep (300000);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_FAILED);
  g_assert_cmpuint (leg_lacks (v, 1), ==, SECTORS * SECTOR);
  add_leg (v, 1);
  volume_await_in_sync (v);
  volume_assert_alike (v, BIT (0) | BIT (1));
}

/* It cannot be recorded. */
static void
test_fail_unrecorded (struct volume *v, unsigned int unused)
{
  const struct mock_fault fault = { .ops = MOCK_WRITE, .error = EIO };
  unsigned int i;

  volume_start_quiet (v);
  for (i = 0; i < VOLUME_COPIES; i++)
    mock_fault (v->copies[i], &fault);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, -EIO);
}

/* A new leg gets everything, and is a leg from then on. */
static void
test_add_new (struct volume *v, unsigned int unused)
{
  unsigned int leg;

  volume_start (v);
  g_assert_true (volume_write (v, 3, 7, SECTORS - 7));
  leg = volume_add_device (v, &volume_plain);
  leg_set (v, leg, 9, 0, SECTORS);
  mock_clear_trace (v->legs[leg]);
  add_leg (v, leg);
  g_assert_cmpint (dm_mirror_find_leg (v->mirror, "leg3"), ==, 3);
  v->given |= BIT (leg);
  assert_recovered (v, leg, SECTORS);
  volume_stop (v);
  volume_start_quiet (v);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS + 1);
  g_assert_true (volume_write (v, 4, 0, 1));
  g_assert_cmpint (leg_byte (v, leg, 0), ==, 4);
  volume_stop (v);
  v->given &= ~BIT (leg);
  volume_refused (v, "leg3");
}

/* ... also if the power is lost before it has. */
static void
test_add_crash (struct volume *v, unsigned int unused)
{
  unsigned int leg;

  volume_start (v);
  g_assert_true (volume_write_fua (v, 3, 0, SECTORS));
  leg = volume_add_device (v, &volume_plain);
  volume_hold (v->legs[leg], MOCK_FLUSH, &v->gate);
  add_leg (v, leg);
  mock_gate_await (&v->gate, 1);
  mock_power_off ();
  mock_gate_open (&v->gate);
  volume_crash (v, 1);
  v->given |= BIT (leg);
  v->backwards = true;
  volume_start_quiet (v);
  g_assert_cmpint (leg_state (v, leg), ==, DM_MIRROR_OUT_OF_SYNC);
  g_assert_cmpuint (leg_lacks (v, leg), ==, SECTORS * SECTOR);
  g_assert_cmpint (dm_mirror_start (v->mirror), ==, 0);
  volume_await_in_sync (v);
  g_assert_cmpint (leg_byte (v, leg, SECTORS - 1), ==, 3);
  volume_assert_alike (v, v->given);
}

static void
test_add_refused (struct volume *v, unsigned int unused)
{
  unsigned int leg = volume_add_device (v, &volume_plain);
  struct dm_mirror_leg new = leg_to_add (v, leg), known;

  v->closed = BIT (1);
  v->options.degraded = true;
  volume_start_quiet (v);
  new.region.count--;
  assert_add_refused (v, &new, "less than the volume");
  new.region.count++;
  v->legs[leg]->block_size = 4096;
  assert_add_refused (v, &new, "block size of 4096");
  v->legs[leg]->block_size = SECTOR;
  v->legs[leg]->read_only = true;
  assert_add_refused (v, &new, "read-only");
  v->legs[leg]->read_only = false;
  known = leg_to_add (v, 0);
  assert_add_refused (v, &known, "is a leg already, and in sync");
  known = leg_to_add (v, 1);
  known.region.bdev = NULL;
  assert_add_refused (v, &known, "has to be opened");
}

/* A missing leg, found by the user. */
static void
test_add_missing (struct volume *v, unsigned int unused)
{
  v->closed = BIT (1);
  v->options.degraded = true;
  volume_clear_traces (v);
  volume_start (v);
  g_assert_true (volume_write (v, 3, CHUNK, 1));
  add_leg (v, 1);
  assert_recovered (v, 1, CHUNK);
}

/* It is added while legs are made alike: what is copied to it from then on counts, and need
 * not be copied again.
 */
static void
test_add_meanwhile (struct volume *v, unsigned int unused)
{
  volume_again (v, LEGS, SECTORS, CHUNK, BIT (0) | BIT (1), &volume_plain);
  v->closed = BIT (2);
  v->options.degraded = true;
  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS / 2));
  volume_crash (v, 1);
  volume_hold (v->legs[1], MOCK_WRITE, &v->gate);
  volume_start (v);
  mock_gate_await (&v->gate, SECTORS / 2 / CHUNK);      /* by all that copy */
  volume_clear_traces (v);
  add_leg (v, 2);
  volume_await_state (v, 2, DM_MIRROR_RECOVERING);
  mock_gate_open (&v->gate);
  assert_recovered (v, 2, SECTORS);
}

/* A leg hangs while it is flushed to be stamped, when all is clean or when it is
 * recovered: the user can take it out all the same.
 */
static void
check_fail_hanging (struct volume *v, unsigned int after)
{
  const struct mock_fault hang = {
    .ops = MOCK_FLUSH, .after = after, .gate = &v->gate,
  };

  mock_fault (v->legs[1], &hang);
  volume_start (v);
  g_assert_true (volume_write (v, 2, 3 * CHUNK, 1));
  mock_gate_await (&v->gate, 1);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, 0);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_FAILED);
  g_assert_true (volume_write (v, 3, 3 * CHUNK, 1));
  mock_gate_open (&v->gate);
}

static void
test_fail_hanging (struct volume *v, unsigned int unused)
{
  check_fail_hanging (v, 3);    /* two at the start, and a flush before it */
}

static void
test_fail_hanging_recovered (struct volume *v, unsigned int unused)
{
  volume_again (v, LEGS, SECTORS, CHUNK, BIT (0), &volume_stamped);
  check_fail_hanging (v, 2);    /* one at the start, and a flush before it */
}

/* A leg leaves, by the user's wish or since it fails, and somebody else writes to
 * it, or does not.  What it lacks is then all, or what it missed.
 */
static void
check_edited (struct volume *v, bool by_user, bool edited)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  volume_stop (v);              /* so nothing is dirty */
  volume_start (v);
  if (by_user)
    g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, 0);
  else
    volume_kill (v, 1, MOCK_WRITE, EIO);
  g_assert_true (volume_write (v, 2, 3 * CHUNK, 1));
  g_assert_true (volume_flush (v));
  volume_await_state (v, 1, DM_MIRROR_FAILED);
  if (edited) {
    g_usleep (1000);
    mock_touch (v->legs[1], clock_date ());
    leg_set (v, 1, 9, 5 * CHUNK, 1);
  }
  volume_clear_traces (v);
  volume_heal (v);
  if (by_user)
    add_leg (v, 1);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
  g_assert_cmpuint (log_lines_count ("*leg1*was changed by somebody else*"),
                    ==, edited);
  g_assert_cmpuint (mock_changed (v->legs[1]), ==,
                    (edited ? SECTORS : CHUNK) * SECTOR);
}

static void
test_edited_by_user (struct volume *v, unsigned int edited)
{
  check_edited (v, true, edited);
}

static void
test_edited_failed (struct volume *v, unsigned int edited)
{
  check_edited (v, false, edited);
}

/* All of it is copied, or what it missed; the rewriting of what was dirty may be added. */
static void
assert_copied (struct volume *v, bool all)
{
  uint64_t changed = mock_changed (v->legs[1]) / SECTOR;

  g_assert_cmpuint (changed, >=, all ? SECTORS : CHUNK);
  g_assert_cmpuint (changed, <=, (all ? SECTORS : CHUNK) + CHUNK);
}

/* As before, and the server ends meanwhile: at once, or by a crash when it has recorded
 * what the leg was like when it left.  NEVER: the leg had not been in sync before.
 */
enum left { ENDED = 1, CRASHED = 2, EDITED = 4, BY_ERROR = 8, NEVER = 16 };

/* A new leg lacks only what cannot be read now. */
static void
recover_most (struct volume *v)
{
  volume_again (v, 1, SECTORS, CHUNK, BIT (0), &volume_stamped);
  volume_fail (v, 0, MOCK_READ, EIO, 3 * CHUNK, 1);
  volume_start (v);
  volume_add_device (v, &volume_stamped);
  /* By a clock that is wrong, so that it seems to be changed since it was added. */
  mock_touch (v->legs[1], clock_date () + NSEC_PER_SEC);
  add_leg (v, 1);
  v->given |= BIT (1);
  AWAIT (leg_lacks (v, 1) == CHUNK * SECTOR);
  g_assert_cmpint (dm_log_sync (v->log), ==, 0);
}

/* Leg 1 has left, and the log knows what it is like. */
static bool
is_stamped (struct volume *v)
{
  struct dm_log_leg leg;

  dm_log_get_leg (v->log, 1, &leg);
  return leg.until == 0 && leg.stamp.mtime == volume_mtime (v, 1);
}

static void
leave (struct volume *v, enum left how)
{
  if (how & BY_ERROR) {
    volume_kill (v, 1, MOCK_WRITE, EIO);
    g_assert_true (volume_write (v, 2, 3 * CHUNK, 1));
    volume_await_state (v, 1, DM_MIRROR_FAILED);
  }
  else {
    g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, 0);
    g_assert_true (volume_write (v, 2, 3 * CHUNK, 1));
  }
  if (how & CRASHED) {
    AWAIT (is_stamped (v));
    g_assert_cmpint (dm_log_sync (v->log), ==, 0);
  }
  if (how & EDITED) {
    g_usleep (1000);
    mock_touch (v->legs[1], clock_date ());
    leg_set (v, 1, 9, 5 * CHUNK, 1);
  }
  if (how & CRASHED)
    volume_crash (v, 1);
  else
    volume_stop (v);
}

static void
test_left (struct volume *v, unsigned int how)
{
  if (how & NEVER)
    recover_most (v);
  else {
    volume_start_quiet (v);
    g_assert_true (volume_write (v, 1, 0, SECTORS));
    volume_stop (v);            /* so nothing is dirty */
    volume_start (v);
  }
  leave (v, how);
  volume_heal (v);
  volume_clear_traces (v);
  volume_start (v);
  if (!(how & BY_ERROR))
    add_leg (v, 1);
  volume_await_in_sync (v);
  volume_assert_alike (v, v->given);
  assert_copied (v, how & EDITED);
}

/* The server ends while a leg recovers that had not been in sync before, and somebody
 * writes to it at once; or it crashes, and somebody puts an older file in its place.
 */
static void
test_left_recovering (struct volume *v, unsigned int how)
{
  recover_most (v);
  if (how & CRASHED)
    volume_crash (v, 1);
  else
    volume_stop (v);
  if (how & EDITED) {
    g_usleep (1000);
    mock_touch (v->legs[1], clock_date () -
                (how & CRASHED ? 60 * NSEC_PER_SEC : 0));
    leg_set (v, 1, 9, 5 * CHUNK, 1);
  }
  volume_heal (v);
  volume_clear_traces (v);
  volume_start (v);
  volume_await_in_sync (v);
  volume_assert_alike (v, v->given);
  assert_copied (v, how & EDITED);
}

/* A flush that was sent to it before ends after somebody else has written to it. */
static void
test_left_late_flush (struct volume *v, unsigned int unused)
{
  struct client flush = { .v = v, .what = CLIENT_FLUSH };

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  volume_stop (v);
  volume_start_quiet (v);
  volume_hold (v->legs[1], MOCK_FLUSH, &v->gate);
  client_start (&flush);
  mock_gate_await (&v->gate, 1);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, 0);
  g_usleep (1000);
  mock_touch (v->legs[1], clock_date ());
  leg_set (v, 1, 9, 5 * CHUNK, 1);
  mock_gate_open (&v->gate);
  client_finish (&flush);
  volume_stop (v);
  volume_clear_traces (v);
  volume_start (v);
  add_leg (v, 1);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
}

/* The clock was ahead when a leg in sync was written, and it crashes while nothing is dirty
 * and another is recovered: the first is what it was.
 */
static void
test_clock_set_back (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0), &volume_stamped);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  mock_touch (v->legs[0], clock_date () + 1000 * NSEC_PER_SEC);
  volume_stop (v);
  volume_fail (v, 0, MOCK_READ, EIO, 3 * CHUNK, 1);
  volume_start (v);
  AWAIT (leg_lacks (v, 1) == CHUNK * SECTOR);
  volume_crash (v, 1);
  volume_heal (v);
  volume_start (v);
  volume_await_in_sync (v);
  volume_assert_alike (v, BIT (0) | BIT (1));
}

/* The same with legs that have no times, as another disk or server may be in their
 * place: they are compared with one in sync, where they should be alike.
 */
enum other { THE_SAME, BLANK, MISSED_MORE };

static void
check_other_disk (struct volume *v, bool by_user, enum other other)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  volume_stop (v);
  volume_start (v);
  if (by_user)
    g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, 0);
  else
    volume_kill (v, 1, MOCK_WRITE, EIO);
  g_assert_true (volume_write (v, 2, 3 * CHUNK, 1));
  volume_await_state (v, 1, DM_MIRROR_FAILED);
  if (other == BLANK)
    leg_set (v, 1, 0, 0, SECTORS);
  else if (other == MISSED_MORE)
    leg_set (v, 1, 0, 3 * CHUNK, CHUNK);
  volume_clear_traces (v);
  volume_heal (v);
  if (by_user)
    add_leg (v, 1);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
  g_assert_cmpuint (log_lines_count ("*leg1*is not what it was*"), ==,
                    other == BLANK);
  g_assert_cmpuint (mock_changed (v->legs[1]), ==,
                    (other == BLANK ? SECTORS : CHUNK) * SECTOR);
}

static void
test_other_by_user (struct volume *v, unsigned int other)
{
  check_other_disk (v, true, other);
}

static void
test_other_failed (struct volume *v, unsigned int other)
{
  check_other_disk (v, false, other);
}

/* If there is nothing to compare it with, nothing is believed until there is. */
static void
test_other_unread (struct volume *v, unsigned int unused)
{
  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  volume_stop (v);
  volume_start (v);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, 0);
  leg_set (v, 1, 0, 0, SECTORS);
  volume_fail (v, 0, MOCK_READ, EIO, 0, 0);
  volume_fail (v, 2, MOCK_READ, EIO, 0, 0);
  add_leg (v, 1);
  AWAIT (log_lines_count ("*leg1*cannot be compared*") > 0);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_FAILED);
  volume_heal (v);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
  g_assert_cmpuint (log_lines_count ("*leg1*is not what it was*"), ==, 1);
}

/* The user says that it has nothing. */
static void
test_add_full (struct volume *v, unsigned int unused)
{
  struct dm_mirror_leg leg;
  char *error = NULL;

  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, 0);
  volume_clear_traces (v);
  leg = leg_to_add (v, 1);
  leg.add = DM_MIRROR_ADD_FULL;
  g_assert_cmpint (dm_mirror_add (v->mirror, &leg, &error), ==, 1);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
  g_assert_cmpuint (mock_changed (v->legs[1]), ==, SECTORS * SECTOR);
}

/* As many as there can be, recovered together; and one more. */
static void
test_64_legs (struct volume *v, unsigned int unused)
{
  struct dm_mirror_leg new;
  char *error = NULL;

  volume_again (v, DM_IO_MAX_REGIONS, 2 * CHUNK + 3, CHUNK, BIT (0),
                &volume_plain);
  leg_set (v, 0, 7, 0, 2 * CHUNK + 3);
  volume_start (v);
  volume_await_in_sync (v);
  volume_assert_alike (v, ~0UL);
  g_assert_true (volume_write (v, 8, 1, 1));
  g_assert_cmpint (leg_byte (v, 63, 1), ==, 8);
  new = leg_to_add (v, 0);
  new.name = "one more";
  assert_add_refused (v, &new, "at most 64 legs");
  g_assert_null (error);
}

/* The times of files are those of the kernel's last tick.  Where the mirror has let go of a leg,
 * a change by somebody else gets a later time than all that the mirror has done.
 */
static void
test_tick (struct volume *v, unsigned int ended)
{
  uint64_t before;
  unsigned int i;

  for (i = 0; i < 20; i++) {
    volume_start_quiet (v);
    before = clock_date ();
    if (ended)
      volume_stop (v);
    else
      g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, 0);
    g_assert_cmpuint (clock_read (CLOCK_REALTIME_COARSE), >, before);
    volume_stop (v);
  }
}

static const struct volume_test tests[] = {
  { "fail-and-add", test_fail_and_add, 0, &volume_plain },
  { "fail/last", test_fail_last, 0, &volume_plain },
  { "fail/recovering", test_fail_recovering, 0, &volume_plain },
  { "fail/unrecorded", test_fail_unrecorded, 0, &volume_plain },
  { "fail/hanging", test_fail_hanging, 0, &volume_stamped },
  { "fail/hanging-recovered", test_fail_hanging_recovered, 0,
    &volume_stamped },
  { "add/new", test_add_new, 0, &volume_plain },
  { "add/crash", test_add_crash, 0, &volume_plain },
  { "add/refused", test_add_refused, 0, &volume_plain },
  { "add/missing", test_add_missing, 0, &volume_plain },
  { "add/meanwhile", test_add_meanwhile, 0, &volume_plain },
  { "s4-edited/by-user", test_edited_by_user, true, &volume_stamped },
  { "s4-edited/by-user/not", test_edited_by_user, false, &volume_stamped },
  { "s4-edited/failed", test_edited_failed, true, &volume_stamped },
  { "s4-edited/failed/not", test_edited_failed, false, &volume_stamped },
  { "s4-left/by-user/ended/edited", test_left, EDITED | ENDED, &volume_stamped },
  { "s4-left/by-user/ended/not", test_left, ENDED, &volume_stamped },
  { "s4-left/by-user/crashed/edited", test_left, EDITED | CRASHED, &volume_stamped },
  { "s4-left/by-user/crashed/not", test_left, CRASHED, &volume_stamped },
  { "s4-left/failed/ended/edited", test_left, BY_ERROR | EDITED | ENDED, &volume_stamped },
  { "s4-left/failed/ended/not", test_left, BY_ERROR | ENDED, &volume_stamped },
  { "s4-left/failed/crashed/edited", test_left, BY_ERROR | EDITED | CRASHED,
    &volume_stamped },
  { "s4-left/failed/crashed/not", test_left, BY_ERROR | CRASHED, &volume_stamped },
  { "s4-left/never-in-sync/ended/edited", test_left, NEVER | EDITED | ENDED,
    &volume_stamped },
  { "s4-left/never-in-sync/ended/not", test_left, NEVER | ENDED, &volume_stamped },
  { "s4-left/never-in-sync/crashed/edited", test_left, NEVER | EDITED | CRASHED,
    &volume_stamped },
  { "s4-left/never-in-sync/crashed/not", test_left, NEVER | CRASHED, &volume_stamped },
  { "s4-left/recovering/ended/edited", test_left_recovering, EDITED | ENDED,
    &volume_stamped },
  { "s4-left/recovering/ended/not", test_left_recovering, ENDED,
    &volume_stamped },
  { "s4-left/recovering/crashed/edited", test_left_recovering,
    EDITED | CRASHED, &volume_stamped },
  { "s4-left/recovering/crashed/not", test_left_recovering, CRASHED,
    &volume_stamped },
  { "s4-left/late-flush", test_left_late_flush, 0, &volume_stamped },
  { "s4-left/tick/failed", test_tick, false, &volume_stamped },
  { "s4-left/tick/ended", test_tick, true, &volume_stamped },
  { "s4-clock-set-back", test_clock_set_back, 0, &volume_stamped },
  { "s4-other-disk/by-user", test_other_by_user, BLANK, &volume_plain },
  { "s4-other-disk/by-user/not", test_other_by_user, THE_SAME,
    &volume_plain },
  { "s4-other-disk/by-user/missed", test_other_by_user, MISSED_MORE,
    &volume_plain },
  { "s4-other-disk/failed", test_other_failed, BLANK, &volume_plain },
  { "s4-other-disk/failed/not", test_other_failed, THE_SAME, &volume_plain },
  { "s4-other-disk/unread", test_other_unread, 0, &volume_plain },
  { "add/full", test_add_full, 0, &volume_plain },
  { "64-legs", test_64_legs, 0, &volume_plain },
};

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  VOLUME_ADD_TESTS ("/mirror-wishes/", tests);
  return g_test_run ();
}
