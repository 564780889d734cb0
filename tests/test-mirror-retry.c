/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What a mirror tries again every ten seconds: to copy what could not be read,
 * and to write copies of the log that have failed.
 */

#include <config.h>

#include "volume.h"

/* R8: what cannot be read on the only leg in sync is not made up.  The rest
 * is copied; and when a client has written it again, that too.
 */
static void
begin_unreadable (struct volume *v)
{
  leg_set (v, 0, 7, 0, SECTORS);
  leg_set (v, 1, 8, 0, SECTORS);
  volume_fail (v, 0, MOCK_READ, EIO, 2 * CHUNK + 9, 1);
  volume_start (v);
  AWAIT (leg_lacks (v, 1) == CHUNK * SECTOR);
  log_lines_await ("*leg1*cannot be read from any region in sync*");
  g_assert_true (log_lacks (v, 1, 2));
  g_assert_cmpint (leg_byte (v, 1, 2 * CHUNK + 9), ==, 8);
  g_assert_cmpint (leg_byte (v, 1, SECTORS - 1), ==, 7);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_IN_SYNC);
  g_assert_cmpint (leg_state (v, 1), ==, DM_MIRROR_RECOVERING);
  volume_heal (v);
  g_assert_true (volume_write (v, 9, 2 * CHUNK + 8, 8));
}

static void
end_unreadable (struct volume *v)
{
  volume_await_in_sync (v);
  g_assert_cmpint (leg_byte (v, 1, 2 * CHUNK + 9), ==, 9);
  volume_assert_alike (v, BIT (0) | BIT (1));
}

/* R11: a copy of the log that has failed is brought up to date. */
static void
begin_restored (struct volume *v)
{
  const struct mock_fault fault = { .ops = MOCK_WRITE, .error = EIO };
  unsigned int all;

  volume_start (v);
  mock_fault (v->copies[0], &fault);
  volume_kill (v, 1, MOCK_WRITE, EIO);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_cmpuint (dm_log_copies (v->log, &all), ==, 1);
  mock_clear_faults (v->copies[0]);
}

static void
end_restored (struct volume *v)
{
  unsigned int all;

  AWAIT (dm_log_copies (v->log, &all) == VOLUME_COPIES);
  g_assert_true (volume_write (v, 2, 4 * CHUNK, 1));
  volume_crash (v, 1);
  v->copies_given = BIT (0);
  v->options.degraded = true;   /* the other copy is not there */
  volume_start_quiet (v);
  g_assert_cmpint (log_state (v, 1), ==, DM_LOG_OUT_OF_SYNC);
  g_assert_true (log_lacks (v, 1, 0));
  g_assert_true (log_lacks (v, 1, 4));
}

/* Two volumes, so that they wait together. */
static void
test_retries (struct volume *v, unsigned int unused)
{
  struct volume *other = g_new (struct volume, 1);

  volume_open (other, 2, SECTORS, CHUNK, BIT (0), &volume_plain);
  begin_restored (v);
  begin_unreadable (other);
  end_unreadable (other);
  volume_close (other);
  g_free (other);
  end_restored (v);
}

static const struct volume_test tests[] = {
  { "r8-unreadable-r11-copy-restored", test_retries, 0, &volume_plain },
};

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  VOLUME_ADD_TESTS ("/mirror-retry/", tests);
  return g_test_run ();
}
