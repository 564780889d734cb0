/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Writing a mirror with a log: what is durable in the log before a leg is
 * written and before a client hears of success (W1, W3), and what is clean and
 * when (W2).
 */

#include <config.h>

#include "volume.h"

/*----------------------------------------------------------------------
 * The log comes first
 */

/* R1, W1: both copies have the dirty bit before any leg is written. */
static void
test_r1_log_first (struct volume *v, unsigned int unused)
{
  unsigned int i, j;

  volume_start_quiet (v);
  volume_clear_traces (v);
  g_assert_true (volume_write (v, 1, CHUNK - 1, 2));
  for (i = 0; i < VOLUME_COPIES; i++)
    for (j = 0; j < LEGS; j++)
      g_assert_cmpuint (volume_find_event (v->copies[i], MOCK_ANY,
                                           true)->end, <,
                        volume_find_event (v->legs[j], MOCK_ANY,
                                           false)->begin);
}

/* ... and it stays there when the power is lost. */
static void
test_r1_durable (struct volume *v, unsigned int op)
{
  struct client writer = {
    .v = v, .what = CLIENT_WRITE, .byte = 1, .sector = 2 * CHUNK + 3,
    .count = CHUNK,
  };

  volume_start_quiet (v);
  volume_hold (v->legs[1], MOCK_WRITE, &v->gate);
  client_start (&writer);
  mock_gate_await (&v->gate, 1);
  mock_power_off ();
  mock_gate_open (&v->gate);
  g_assert_false (client_finish (&writer));
  volume_crash (v, rng_random ().state);
  volume_load (v);
  g_assert_false (log_is_dirty (v, 1));
  g_assert_true (log_is_dirty (v, 2));
  g_assert_true (log_is_dirty (v, 3));
  g_assert_false (log_is_dirty (v, 4));
}

/* No leg is written while the log waits. */
static void
test_r1_waits (struct volume *v, unsigned int copy)
{
  unsigned int i;
  struct client writer = {
    .v = v, .what = CLIENT_WRITE, .byte = 1, .count = 1,
  };

  volume_start_quiet (v);
  volume_hold (v->copies[copy], MOCK_WRITE | MOCK_FLUSH, &v->gate);
  client_start (&writer);
  mock_gate_await (&v->gate, 1);
  g_assert_false (client_ends_soon (&writer));
  for (i = 0; i < LEGS; i++)
    g_assert_cmpuint (mock_count (v->legs[i], CHANGES), ==, 0);
  mock_gate_open (&v->gate);
  g_assert_true (client_finish (&writer));
  volume_assert_alike (v, ALL_LEGS);
}

/* A chunk that is dirty already costs no I/O of the log. */
static void
test_r1_once (struct volume *v, unsigned int unused)
{
  unsigned int i;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_clear_traces (v);
  for (i = 1; i < 20; i++)
    g_assert_true (volume_write (v, i, i, 1));
  g_assert_cmpuint (volume_count_copies (v, MOCK_ANY), ==, 0);
  g_assert_true (volume_write (v, 1, CHUNK, 1));
  g_assert_cmpuint (volume_count_copies (v, MOCK_WRITE), ==, 2);
}

/* W2: who comes while the log is written shares the next time. */
static void
test_w2_group_commit (struct volume *v, unsigned int unused)
{
  struct client writers[CHUNKS];
  unsigned int i;

  volume_start_quiet (v);
  volume_clear_traces (v);
  volume_hold (v->copies[0], MOCK_WRITE, &v->gate);
  for (i = 0; i < CHUNKS; i++) {
    writers[i] = (struct client) {
      .v = v, .what = CLIENT_WRITE, .byte = i, .sector = i * CHUNK,
      .count = 1,
    };
    client_start (&writers[i]);
    if (i == 0)
      mock_gate_await (&v->gate, 1);
  }
  g_usleep (300000);            /* until most of them are there */
  mock_gate_open (&v->gate);
  for (i = 0; i < CHUNKS; i++)
    g_assert_true (client_finish (&writers[i]));
  g_assert_cmpuint (mock_count (v->copies[0], MOCK_WRITE), <=, CHUNKS / 2);
}

/* W7: discard and zeroes are logged like writes. */
static void
test_w7_logged (struct volume *v, unsigned int op)
{
  unsigned int i;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  volume_stop (v);
  volume_start_quiet (v);
  volume_clear_traces (v);
  g_assert_true (dm_mirror_write (v->mirror, op, 0, NULL, CHUNK, 8,
                                  v->results));
  for (i = 0; i < LEGS; i++) {
    g_assert_cmpuint (volume_find_event (v->copies[1], MOCK_ANY,
                                         true)->end, <,
                      volume_find_event (v->legs[i], CHANGES,
                                         false)->begin);
    g_assert_cmpint (leg_byte (v, i, CHUNK), ==, 0);
    g_assert_cmpint (leg_byte (v, i, CHUNK + 7), ==, 0);
  }
  volume_assert_alike (v, ALL_LEGS);
  volume_crash (v, 1);
  volume_load (v);
  for (i = 0; i < CHUNKS; i++)
    g_assert_true (log_is_dirty (v, i) == (i == 1));
}

/* One that a leg fails is recorded too. */
static void
test_w7_failed (struct volume *v, unsigned int op)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  volume_stop (v);
  volume_start_quiet (v);
  volume_kill (v, 1, CHANGES, EIO);
  g_assert_true (dm_mirror_write (v->mirror, op, 0, NULL, CHUNK, 8,
                                  v->results));
  volume_assert_alike (v, 5);
  volume_crash (v, 1);
  volume_load (v);
  g_assert_cmpint (log_state (v, 1), ==, DM_LOG_OUT_OF_SYNC);
  g_assert_true (log_lacks (v, 1, 1));
}

/*----------------------------------------------------------------------
 * What is clean
 */

/* R2, W2: a dirty bit goes after each leg was flushed since the write. */
static void
test_r2_flushed_first (struct volume *v, unsigned int unused)
{
  const struct mock_event *flush;
  unsigned int i;

  volume_start_quiet (v);
  volume_clear_traces (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_stop (v);
  for (i = 0; i < LEGS; i++) {
    flush = volume_find_event (v->legs[i], MOCK_FLUSH, false);
    g_assert_cmpuint (volume_find_event (v->legs[i], MOCK_WRITE,
                                         true)->end, <, flush->begin);
    g_assert_cmpuint (flush->end, <,
                      volume_find_event (v->copies[0], MOCK_WRITE,
                                         true)->begin);
  }
  volume_load (v);
  g_assert_false (dm_log_is_dirty (v->log));
}

/* Not while a leg has not been flushed: that one lacks the chunk. */
static void
test_r2_flush_fails (struct volume *v, unsigned int leg)
{
  unsigned int i;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 3 * CHUNK, 1));
  volume_kill (v, leg, MOCK_FLUSH, EIO);
  volume_stop (v);
  volume_load (v);
  for (i = 0; i < LEGS; i++) {
    g_assert_cmpint (log_state (v, i), ==,
                     i == leg ? DM_LOG_OUT_OF_SYNC : DM_LOG_IN_SYNC);
    g_assert_true (log_lacks (v, i, 3) == (i == leg));
    g_assert_false (log_lacks (v, i, 2));
  }
}

/*----------------------------------------------------------------------
 * A leg fails
 */

/* R4, W3: a write that a leg has missed succeeds, and after a crash the leg
 * is still known to lack it.
 */
static void
test_r4_recorded (struct volume *v, unsigned int leg)
{
  unsigned int i;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  g_assert_true (volume_flush (v));
  volume_kill (v, leg, MOCK_WRITE, EIO);
  g_assert_true (volume_write_fua (v, 2, 0, 1));
  g_assert_cmpint (volume_read (v, 0), ==, 2);
  volume_crash (v, 2);

  /* Over several restarts, as long as it cannot be recovered. */
  for (i = 0; i < 3; i++) {
    volume_start_quiet (v);
    g_assert_cmpint (log_state (v, leg), ==, DM_LOG_OUT_OF_SYNC);
    g_assert_true (log_lacks (v, leg, 0));
    g_assert_cmpint (volume_read (v, 0), ==, 2);
    g_assert_cmpint (leg_byte (v, leg, 0), ==, 1);
    if (i % 2 == 0)
      volume_crash (v, i);
    else
      volume_stop (v);
  }
  g_assert_cmpuint (log_lines_count ("*leg? has failed: 2 of 3 legs*"), <=,
                    1);
}

/* The client hears of it only after that is in the log. */
static void
test_r4_log_first (struct volume *v, unsigned int unused)
{
  struct client writer = {
    .v = v, .what = CLIENT_WRITE, .byte = 2, .count = 1,
  };

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_hold (v->copies[1], MOCK_WRITE, &v->gate);
  volume_kill (v, 2, MOCK_WRITE, ENOSPC);
  client_start (&writer);
  mock_gate_await (&v->gate, 1);
  g_assert_false (client_ends_soon (&writer));
  mock_gate_open (&v->gate);
  g_assert_true (client_finish (&writer));
  g_assert_cmpuint (volume_in_sync (v), ==, 2);
}

/* Nor does another client, whose write needs nothing of the log else. */
static void
test_r4_others (struct volume *v, unsigned int unused)
{
  struct client first = {
    .v = v, .what = CLIENT_WRITE, .byte = 2, .count = 1,
  }, second = {
    .v = v, .what = CLIENT_WRITE, .byte = 3, .sector = 9, .count = 1,
  }, flusher = { .v = v, .what = CLIENT_FLUSH };

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_hold (v->copies[1], MOCK_WRITE, &v->gate);
  volume_kill (v, 2, MOCK_WRITE, EIO);
  client_start (&first);
  mock_gate_await (&v->gate, 1);
  client_start (&second);
  client_start (&flusher);
  g_assert_false (client_ends_soon (&second));
  g_assert_false (client_ends_soon (&flusher));
  mock_gate_open (&v->gate);
  g_assert_true (client_finish (&first));
  g_assert_true (client_finish (&second));
  g_assert_true (client_finish (&flusher));
  g_assert_cmpint (leg_byte (v, 2, 9), ==, 0);
}

/* It gets no more writes, and its part of the log does. */
static void
test_r4_absent (struct volume *v, unsigned int unused)
{
  volume_start_quiet (v);
  volume_kill (v, 1, MOCK_WRITE, EIO);
  g_assert_true (volume_write (v, 2, 0, 1));
  mock_clear_faults (v->legs[1]);
  mock_clear_trace (v->legs[1]);
  g_assert_true (volume_write (v, 3, 5 * CHUNK, CHUNK + 1));
  g_assert_true (volume_flush (v));
  g_assert_cmpuint (mock_count (v->legs[1], MOCK_ANY), ==, 0);
  g_assert_false (log_lacks (v, 1, 4));
  g_assert_true (log_lacks (v, 1, 5));
  g_assert_true (log_lacks (v, 1, 6));
  g_assert_cmpuint (leg_lacks (v, 1), ==, 3 * CHUNK * SECTOR);
  volume_crash (v, 3);
  volume_load (v);
  g_assert_true (log_lacks (v, 1, 5));
  g_assert_true (log_lacks (v, 1, 6));
}

static const struct volume_test tests[] = {
  { "r1-log-before-legs", test_r1_log_first, 0, &volume_plain },
  { "r1-log-before-legs/waits", test_r1_log_first, 0, &volume_waits },
  { "r1-durable-before-legs", test_r1_durable, 0, &volume_plain },
  { "r1-legs-wait-for-log/0", test_r1_waits, 0, &volume_plain },
  { "r1-legs-wait-for-log/1", test_r1_waits, 1, &volume_plain },
  { "r1-once-for-a-dirty-chunk", test_r1_once, 0, &volume_plain },
  { "w2-group-commit", test_w2_group_commit, 0, &volume_plain },
  { "w7-discard", test_w7_logged, DM_IO_DISCARD, &volume_thin },
  { "w7-zeroes", test_w7_logged, DM_IO_WRITE_ZEROES, &volume_thin },
  { "w7-zeroes/by-hand", test_w7_logged, DM_IO_WRITE_ZEROES, &volume_plain },
  { "w7-discard/failed", test_w7_failed, DM_IO_DISCARD, &volume_thin },
  { "w7-zeroes/failed", test_w7_failed, DM_IO_WRITE_ZEROES, &volume_thin },
  { "r2-flushed-before-clean", test_r2_flushed_first, 0, &volume_plain },
  { "r2-flush-fails/0", test_r2_flush_fails, 0, &volume_plain },
  { "r2-flush-fails/1", test_r2_flush_fails, 1, &volume_plain },
  { "r4-failed-write-is-recorded/0", test_r4_recorded, 0, &volume_plain },
  { "r4-failed-write-is-recorded/1", test_r4_recorded, 1, &volume_plain },
  { "r4-failed-write-is-recorded/2", test_r4_recorded, 2, &volume_waits },
  { "r4-recorded-before-acknowledged", test_r4_log_first, 0, &volume_plain },
  { "r4-others-wait-for-it", test_r4_others, 0, &volume_plain },
  { "r4-absent-leg", test_r4_absent, 0, &volume_plain },
};

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  VOLUME_ADD_TESTS ("/mirror-log/", tests);
  return g_test_run ();
}
