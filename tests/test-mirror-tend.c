/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What a mirror does by itself every few seconds: idle chunks become clean
 * (W2), and nothing happens when there is nothing to do.
 */

#include <config.h>

#include "volume.h"

/* Write to a chunk so often that it is never idle. */
static void
keep_hot (struct volume *v, uint64_t chunk, unsigned int seconds)
{
  gint64 end = g_get_monotonic_time () + seconds * G_USEC_PER_SEC;
  int byte = 0;

  while (g_get_monotonic_time () < end) {
    g_assert_true (volume_write (v, byte++ % 256, chunk * CHUNK, 1));
    g_usleep (50000);
  }
}

/* An idle chunk becomes clean.  One that is written all the time does not, and
 * costs no writing of the log; and one with a write in flight does not either,
 * however long that takes.
 */
static void
test_r2_hot (struct volume *v, unsigned int unused)
{
  const struct mock_fault hold = {
    .ops = MOCK_WRITE, .gate = &v->gate, .length = SECTOR,
    .offset = (LEG_START (1) + 5 * CHUNK) * SECTOR,
  };
  struct client writer = {
    .v = v, .what = CLIENT_WRITE, .byte = 1, .sector = 5 * CHUNK, .count = 1,
  };
  unsigned int before;

  volume_start (v);
  mock_fault (v->legs[1], &hold);
  client_start (&writer);
  mock_gate_await (&v->gate, 1);
  g_assert_true (volume_write (v, 1, 3 * CHUNK, 1));
  g_assert_true (volume_write (v, 1, 0, 1));
  before = volume_count_copies (v, MOCK_WRITE);
  keep_hot (v, 0, 7);
  g_assert_cmpuint (volume_count_copies (v, MOCK_WRITE) - before, <=,
                    4 * VOLUME_COPIES);
  mock_power_off ();
  mock_gate_open (&v->gate);
  g_assert_false (client_finish (&writer));
  volume_crash (v, 1);
  volume_load (v);
  g_assert_true (log_is_dirty (v, 0));
  g_assert_false (log_is_dirty (v, 3));
  g_assert_true (log_is_dirty (v, 5));
}

/* The legs were flushed before the log says that all is clean; then the
 * devices are left alone.
 */
static void
test_idle (struct volume *v, unsigned int unused)
{
  const struct mock_event *flush;
  unsigned int i;

  volume_start (v);
  g_assert_true (volume_write (v, 1, 3 * CHUNK, 1));
  AWAIT (!dm_log_is_dirty (v->log));
  g_usleep (200000);            /* until it is known on the copies */
  for (i = 0; i < LEGS; i++) {
    flush = volume_find_event (v->legs[i], MOCK_FLUSH, true);
    g_assert_cmpuint (volume_find_event (v->legs[i], MOCK_WRITE, true)->end,
                      <, flush->begin);
    g_assert_cmpuint (flush->end, <,
                      volume_find_event (v->copies[0], MOCK_WRITE,
                                         true)->begin);
  }
  volume_clear_traces (v);
  g_usleep (2500000);
  for (i = 0; i < LEGS; i++)
    g_assert_cmpuint (mock_count (v->legs[i], MOCK_ANY), ==, 0);
  g_assert_cmpuint (volume_count_copies (v, MOCK_ANY), ==, 0);
  volume_crash (v, 1);
  volume_start_quiet (v);
  g_assert_false (dm_log_is_dirty (v->log));
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
}

static const struct volume_test tests[] = {
  { "r2-hot-chunk", test_r2_hot, 0, &volume_plain },
  { "idle", test_idle, 0, &volume_plain },
  { "idle/stamped", test_idle, 0, &volume_stamped },
};

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  VOLUME_ADD_TESTS ("/mirror-tend/", tests);
  return g_test_run ();
}
