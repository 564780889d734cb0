/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* NBD servers that are shutting down, which answer everything with ESHUTDOWN and
 * end when their clients have left; and idle ones, which are asked now and
 * then if they are there.
 */

#include <config.h>

#include "nbd-fixture.h"

/* A server is asked once in this time. */
#define PROBE_US G_USEC_PER_SEC

/* From now on the server says that it is shutting down, and lets nobody in. */
static void
begin_to_leave (struct nbd *f)
{
  static const struct nbd_server_fault leaving = {
    .ops = SERVER_ANY | SERVER_PROBE, .what = SERVER_SAYS_ERROR,
    .error = ESHUTDOWN,
  };

  nbd_server_accept (f->server, false);
  nbd_server_fault (f->server, &leaving);
}

static bool
has_failed (const struct nbd *f)
{
  return __atomic_load_n (&f->bdev->failed, __ATOMIC_RELAXED);
}

/* Another server is there; the device finds it by itself, and all works. */
static void
assert_comes_back (struct nbd *f)
{
  unsigned char buf[SECTOR];

  nbd_server_clear_faults (f->server);
  nbd_server_accept (f->server, true);
  log_lines_await ("*connected again*");
  await_offline (f, false);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 5, 1), ==, 0);
  assert_same (buf, nbd_server_data (f->server) + 5 * SECTOR, SECTOR);
  g_assert_cmpint (run_at (f, DM_IO_FLUSH, 0, NULL, 0, 0), ==, 0);
  g_assert_cmpuint (log_lines_count ("*lost its connection (the server is "
                                     "shutting down)*"), ==, 1);
}

/* It has let go of all connections before the command has ended, and sent
 * nothing more on them.
 */
static void
check_answer (struct nbd *f, enum dm_io_op op, bool changes)
{
  struct nbd_server_options options = ordinary;
  unsigned char buf[SECTOR];
  size_t n;

  options.flags |= SERVER_CAN_MULTI_CONN;
  start (f, &options);
  log_lines_clear ();
  begin_to_leave (f);
  g_assert_cmpint (run_at (f, op, 0, op == DM_IO_FLUSH ? NULL : buf, 0,
                           op == DM_IO_FLUSH ? 0 : 1), ==, ESHUTDOWN);
  g_assert_true (is_offline (f));
  g_assert_true (has_failed (f) == changes);
  n = nbd_server_count (f->server, SERVER_ANY);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 0, 1), !=, 0);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_ANY), ==, n);
  if (!changes)
    assert_comes_back (f);
  stop (f);
}

static void
test_answer (struct nbd *f, gconstpointer unused)
{
  check_answer (f, DM_IO_READ, false);
  check_answer (f, DM_IO_FLUSH, false);
  check_answer (f, DM_IO_WRITE, true);
  check_answer (f, DM_IO_WRITE_ZEROES, true);
}

/* It has missed the write, so it is used again when somebody knows that. */
static void
test_revived (struct nbd *f, gconstpointer unused)
{
  gint64 end = g_get_monotonic_time () + WAIT_SECONDS * G_USEC_PER_SEC;

  start (f, &ordinary);
  log_lines_clear ();
  begin_to_leave (f);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, 0, data, 5, 1), ==, ESHUTDOWN);
  nbd_server_clear_faults (f->server);
  nbd_server_accept (f->server, true);
  while (bdev_revive (f->bdev) == -EAGAIN) {
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_usleep (5000);
  }
  assert_comes_back (f);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, 0, data, 5, 1), ==, 0);
}

/* Nobody asks for anything. */
static void
test_idle (struct nbd *f, gconstpointer unused)
{
  start (f, &ordinary);
  g_assert_cmpint (bdev_attend (f->bdev), ==, 0);
  nbd_server_await (f->server, SERVER_PROBE, 2);
  log_lines_clear ();
  begin_to_leave (f);
  await_offline (f, true);
  g_assert_false (has_failed (f));
  assert_comes_back (f);
}

/* It does not answer any more. */
static void
test_idle_hangs (struct nbd *f, gconstpointer unused)
{
  start_server (f, &ordinary);
  open_it (f, 1);
  g_assert_cmpint (bdev_attend (f->bdev), ==, 0);
  log_lines_clear ();
  nbd_server_close_gate (f->server, true);
  log_lines_await ("*lost its connection (*does not answer*within 1 sec*");
  g_assert_true (is_offline (f));
  g_assert_false (has_failed (f));
  nbd_server_close_gate (f->server, false);
  log_lines_await ("*connected again*");
}

/* Read again and again.  Returns the longest time without a read. */
static gint64
keep_reading (struct nbd *f, gint64 usec)
{
  gint64 begin = g_get_monotonic_time (), last = begin, longest = 0, now;
  unsigned char buf[SECTOR];

  do {
    g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 0, 1), ==, 0);
    g_usleep (PROBE_US / 100);
    now = g_get_monotonic_time ();
    longest = MAX (longest, now - last);
    last = now;
  } while (now - begin < usec);
  return longest;
}

/* Not while there is something to do, nor if it would be a read: a server
 * without block status is left alone.
 */
static void
test_no_probe (struct nbd *f, gconstpointer unused)
{
  struct nbd_server_options options = ordinary;

  start (f, &ordinary);
  if (keep_reading (f, 2 * PROBE_US) < PROBE_US / 2)
    g_assert_cmpuint (nbd_server_count (f->server, SERVER_PROBE), ==, 0);
  else
    g_test_message ("the machine is too busy to tell");
  stop (f);

  options.structured = false;
  start (f, &options);
  g_assert_cmpint (bdev_attend (f->bdev), ==, 0);
  g_usleep (2 * PROBE_US);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_ANY | SERVER_PROBE),
                    ==, 0);
}

/* It is closed, or has to rest, while it asks. */
static void
test_close_when_asking (struct nbd *f, gconstpointer unused)
{
  start_server (f, &ordinary);
  open_it (f, 1);
  nbd_server_close_gate (f->server, true);
  g_assert_cmpint (bdev_attend (f->bdev), ==, 0);
  nbd_server_await (f->server, SERVER_PROBE, 1);
  bdev_rest (f->bdev);
  g_assert_cmpint (bdev_attend (f->bdev), ==, 0);
  nbd_server_await (f->server, SERVER_PROBE, 2);
  close_it (f);
  nbd_server_close_gate (f->server, false);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  log_lines_keep ();
  add_nbd_test ("/leaving/answer", test_answer);
  add_nbd_test ("/leaving/revived", test_revived);
  add_nbd_test ("/leaving/idle", test_idle);
  add_nbd_test ("/leaving/idle-hangs", test_idle_hangs);
  add_nbd_test ("/leaving/no-probe", test_no_probe);
  add_nbd_test ("/leaving/close-when-asking", test_close_when_asking);
  return g_test_run ();
}
