/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Legs that come and go while the mirror runs: those that fail and are revived,
 * those that are missing and reopened.
 */

#include <config.h>

#include "volume.h"

static bool
fails_write (struct volume *v, unsigned int leg, int byte, sector_t sector)
{
  const struct mock_fault once = {
    .ops = MOCK_WRITE, .times = 1, .error = EIO,
  };

  mock_fault (v->legs[leg], &once);
  return volume_write (v, byte, sector, 1);
}

/* Has what it should, and no more was copied to it than COUNT sectors. */
static void
assert_recovered (struct volume *v, unsigned int leg, sector_t count)
{
  volume_await_in_sync (v);
  volume_assert_alike (v, v->given);
  g_assert_cmpuint (mock_changed (v->legs[leg]), ==, count * SECTOR);
}

static char *
reason_of (struct volume *v, unsigned int leg)
{
  struct dm_mirror_status status;
  char *reason;

  dm_mirror_get_status (v->mirror, &status);
  reason = g_strdup (status.legs[leg].reason);
  dm_mirror_status_clear (&status);
  return reason;
}

/*----------------------------------------------------------------------
 * Failed legs are revived
 */

/* A leg that missed one write comes back, at the third attempt, and gets that
 * and what was written meanwhile.
 */
static void
test_revived (struct volume *v, unsigned int unused)
{
  g_autofree char *reason = NULL;

  volume_start (v);
  mock_set_revive (v->legs[1], 2, 0);
  g_assert_true (fails_write (v, 1, 1, 2 * CHUNK));
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_FAILED);
  reason = reason_of (v, 1);
  g_assert_cmpstr (reason, ==, "write failed: Input/output error");
  g_assert_false (dm_mirror_is_in_sync (v->mirror));
  mock_clear_trace (v->legs[1]);
  g_assert_true (volume_write (v, 2, 5 * CHUNK, 1));
  g_assert_cmpuint (mock_count (v->legs[1], CHANGES), ==, 0);
  assert_recovered (v, 1, 2 * CHUNK);
  g_assert_cmpuint (mock_revives (v->legs[1]), ==, 3);
  g_assert_cmpuint (log_lines_count ("*leg1*is being recovered: 131072 bytes "
                                     "*"), ==, 1);
  g_assert_cmpuint (log_lines_count ("*leg1*is in sync: 3 of 3 legs in sync; "
                                     "volume is fully mirrored"), ==, 1);
}

/* One that cannot be is left alone, and that is said. */
static void
test_never (struct volume *v, unsigned int unused)
{
  volume_start (v);
  mock_set_revive (v->legs[1], 0, -EIO);
  g_assert_true (fails_write (v, 1, 1, 0));
  log_lines_await ("*leg1*cannot be used before restart*");
  g_usleep (1200000);
  g_assert_cmpuint (mock_revives (v->legs[1]), ==, 1);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_FAILED);
  volume_stop (v);
  volume_start (v);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
}

/* One that fails again and again is tried less and less often. */
static void
test_again_and_again (struct volume *v, unsigned int unused)
{
  volume_start (v);
  volume_fail (v, 1, MOCK_WRITE, EIO, 0, 0);
  g_assert_true (volume_write (v, 1, 0, 1));
  mock_set_revive (v->legs[1], 0, 0);
  g_usleep (4500000);           /* at 1 and 3 s, and 7 */
  g_assert_cmpuint (mock_revives (v->legs[1]), >=, 1);
  g_assert_cmpuint (mock_revives (v->legs[1]), <=, 3);
  g_assert_cmpuint (volume_in_sync (v), ==, 2);
}

/* W6: a device says that it has failed, and perhaps lost something, though
 * nobody has asked it for anything.
 */
static void
test_noticed (struct volume *v, unsigned int unused)
{
  volume_start (v);
  g_assert_true (volume_write (v, 1, 3 * CHUNK, 8));
  mock_clear_trace (v->legs[2]);
  leg_set (v, 2, 0, 3 * CHUNK, 1);
  mock_set_failed (v->legs[2], true);
  volume_await_state (v, 2, DM_MIRROR_FAILED);
  g_assert_cmpuint (leg_lacks (v, 2), ==, CHUNK * SECTOR);
  assert_recovered (v, 2, CHUNK);
  g_assert_cmpint (leg_byte (v, 2, 3 * CHUNK), ==, 1);
}

/* ... although there is nothing to do. */
static void
test_noticed_idle (struct volume *v, unsigned int unused)
{
  volume_start (v);
  mock_set_failed (v->legs[1], true);
  log_lines_await ("*leg1*has failed*");
  assert_recovered (v, 1, 0);
}

/* It fails while it is being recovered, and is lacking again all that was not
 * flushed.
 */
static void
test_noticed_recovering (struct volume *v, unsigned int unused)
{
  volume_again (v, 2, SECTORS, CHUNK, BIT (0), &volume_plain);
  leg_set (v, 0, 7, 0, SECTORS);
  volume_hold (v->legs[1], MOCK_FLUSH, &v->gate);
  volume_start (v);
  mock_gate_await (&v->gate, 1);
  mock_set_revive (v->legs[1], 1, 0);
  mock_set_failed (v->legs[1], true);
  volume_await_state (v, 1, DM_MIRROR_FAILED);
  mock_gate_open (&v->gate);
  leg_set (v, 1, 0, 0, SECTORS);
  volume_await_in_sync (v);
  volume_assert_alike (v, BIT (0) | BIT (1));
}

/* The last one in sync is used again too, but the client learns that what it
 * has not flushed may be lost.
 */
static void
test_last_revived (struct volume *v, unsigned int unused)
{
  volume_start (v);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 1), ==, 0);
  g_assert_cmpint (dm_mirror_fail (v->mirror, 2), ==, 0);
  g_assert_true (volume_write (v, 1, 0, 1));
  mock_set_failed (v->legs[0], true);
  g_assert_false (volume_write (v, 2, 0, 1));
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_IN_SYNC);
  AWAIT (volume_write (v, 3, 0, 1));
  g_assert_false (volume_flush (v));
  g_assert_true (volume_flush (v));
  g_assert_cmpint (volume_read (v, 0), ==, 3);
}

/* What was copied before it failed, and is recorded after it came back, does
 * not count: it may be gone.
 */
static void
test_failed_meanwhile (struct volume *v, unsigned int unused)
{
  const sector_t chunk = 2048;  /* copied at once */
  const struct mock_fault hold = {
    .ops = MOCK_READ, .gate = &v->gate, .offset = chunk * SECTOR,
    .length = SECTOR,
  };

  volume_again (v, 2, 4 * chunk, chunk, BIT (0), &volume_plain);
  leg_set (v, 0, 7, 0, 4 * chunk);
  mock_fault (v->legs[0], &hold);
  volume_start (v);
  mock_gate_await (&v->gate, 1);
  g_assert_cmpint (leg_byte (v, 1, 0), ==, 7);
  mock_set_revive (v->legs[1], 1, 0);
  mock_set_failed (v->legs[1], true);
  volume_await_state (v, 1, DM_MIRROR_FAILED);
  leg_set (v, 1, 0, 0, chunk);
  volume_await_state (v, 1, DM_MIRROR_RECOVERING);
  mock_gate_open (&v->gate);
  volume_await_in_sync (v);
  volume_assert_alike (v, BIT (0) | BIT (1));
}

/*----------------------------------------------------------------------
 * Missing legs are reopened
 */

struct opener {
  struct volume *v;
  unsigned int calls, failures; /* atomic; that come first */
  unsigned int unopened;        /* atomic */
};

static bool
reopen (void *context, const char *name, struct io_region *region)
{
  struct opener *o = context;

  g_assert_cmpstr (name, ==, "leg1");
  if (__atomic_fetch_add (&o->calls, 1, __ATOMIC_RELAXED) < o->failures)
    return false;
  *region = volume_region (o->v, 1);
  return true;
}

static void
unopen (void *context, struct io_region *region)
{
  struct opener *o = context;

  g_assert_true (region->bdev == o->v->legs[1]);
  __atomic_add_fetch (&o->unopened, 1, __ATOMIC_RELAXED);
}

static void
start_without_1 (struct volume *v, struct opener *o)
{
  o->v = v;
  v->options.degraded = true;
  v->options.reopen = reopen;
  v->options.unopen = unopen;
  v->options.context = o;
  volume_start (v);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_MISSING);
  g_assert_true (volume_write (v, 1, 4 * CHUNK, 1));
}

static void
test_reopened (struct volume *v, unsigned int failures)
{
  struct opener o = { .failures = failures + 1 };

  volume_clear_traces (v);
  v->closed = BIT (1);
  start_without_1 (v, &o);
  assert_recovered (v, 1, CHUNK);
  g_assert_cmpuint (o.calls, ==, failures + 2);
  g_assert_cmpuint (o.unopened, ==, 0);
}

/* What is opened does not fit: it is closed, and that is said. */
static void
test_unopened (struct volume *v, unsigned int unused)
{
  struct opener o = { .failures = 0 };

  v->closed = BIT (1);
  v->odd_count = SECTORS - 1;
  start_without_1 (v, &o);
  AWAIT (__atomic_load_n (&o.unopened, __ATOMIC_RELAXED) == 1);
  g_assert_cmpuint (log_lines_count ("*'leg1'*less than the volume*"), ==, 1);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_MISSING);
  g_usleep (1200000);
  g_assert_cmpuint (o.calls, ==, 1);
}

/* It was changed while it was away: all of it is copied. */
static void
test_reopened_changed (struct volume *v, unsigned int unused)
{
  struct opener o = { .failures = 1 };

  volume_clear_traces (v);
  v->closed = BIT (1);
  leg_set (v, 1, 9, 7 * CHUNK, 1);
  mock_touch (v->legs[1], 1);
  start_without_1 (v, &o);
  assert_recovered (v, 1, SECTORS);
}

/* One that was not even given is not looked for. */
static void
test_not_given (struct volume *v, unsigned int unused)
{
  struct opener o = { .failures = 0 };

  v->given = BIT (0) | BIT (2);
  start_without_1 (v, &o);
  g_usleep (1200000);
  g_assert_cmpuint (o.calls, ==, 0);
}

static const struct volume_test tests[] = {
  { "revived", test_revived, 0, &volume_plain },
  { "never-revived", test_never, 0, &volume_plain },
  { "again-and-again", test_again_and_again, 0, &volume_plain },
  { "w6-noticed", test_noticed, 0, &volume_plain },
  { "w6-noticed/idle", test_noticed_idle, 0, &volume_plain },
  { "w6-noticed/recovering", test_noticed_recovering, 0, &volume_plain },
  { "w6-last-leg", test_last_revived, 0, &volume_plain },
  { "s1-failed-meanwhile", test_failed_meanwhile, 0, &volume_plain },
  { "reopened", test_reopened, 0, &volume_plain },
  { "reopened/later", test_reopened, 1, &volume_plain },
  { "reopened/changed", test_reopened_changed, 0, &volume_stamped },
  { "unopened", test_unopened, 0, &volume_plain },
  { "not-given", test_not_given, 0, &volume_plain },
};

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  VOLUME_ADD_TESTS ("/recovery-legs/", tests);
  return g_test_run ();
}
