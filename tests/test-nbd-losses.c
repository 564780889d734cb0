/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What an NBD server has acknowledged and could not keep (F1).  It tells of that once, and
 * any command that flushes may be the one that is told.
 */

#include <config.h>

#include "nbd-fixture.h"

/* So that is remembered here until what may be lost is to be written again. */
static void
test_failed_flush (struct nbd *f, gconstpointer unused)
{
  const struct nbd_server_fault fault = {
    .ops = SERVER_FLUSH, .times = 1, .what = SERVER_SAYS_ERROR, .error = EIO,
  };

  start (f, &ordinary);
  g_assert_cmpint (run_all (f, DM_IO_WRITE, 0, data), ==, 0);
  nbd_server_fault (f->server, &fault);
  g_assert_cmpint (run_all (f, DM_IO_FLUSH, 0, NULL), ==, EIO);
  g_assert_cmpint (run_all (f, DM_IO_FLUSH, 0, NULL), ==, EIO);
  nbd_server_clear_trace (f->server);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, DM_IO_PREFLUSH, data, 0, 1),
                   ==, EIO);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_WRITE), ==, 0);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, 0, data, 0, 1), ==, 0);
  bdev_flush_again (f->where.bdev);
  g_assert_cmpint (run_all (f, DM_IO_FLUSH, 0, NULL), ==, 0);

  nbd_server_fault (f->server, &fault);
  g_assert_cmpint (run_all (f, DM_IO_FLUSH, 0, NULL), ==, EIO);
  close_it (f);
  open_it (f, 0);
  g_assert_cmpint (run_all (f, DM_IO_FLUSH, 0, NULL), ==, 0);
}

/* ... by a write with FUA, too; */
static void
test_failed_fua (struct nbd *f, gconstpointer unused)
{
  const struct nbd_server_fault fault = {
    .ops = SERVER_WRITE, .times = 1, .what = SERVER_SAYS_ERROR, .error = EIO,
  };

  start (f, &ordinary);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, 0, data, 0, 1), ==, 0);
  nbd_server_fault (f->server, &fault);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, DM_IO_FUA, data, 8, 1), ==, EIO);
  g_assert_cmpint (run_all (f, DM_IO_FLUSH, 0, NULL), ==, EIO);
}

/* Begin a write of one sector with FUA, or a flush. */
static void
begin (struct nbd *f, enum dm_io_op op, struct done *done)
{
  const struct io_region where = op == DM_IO_FLUSH ? f->where : part_of (f, 8, 1);
  struct dm_io_request req = op == DM_IO_FLUSH ?
    flagged_request (op, 0, NULL) : flagged_request (op, DM_IO_FUA, data);

  done_init (done);
  req.fn = done_callback;
  req.context = done;
  g_assert_cmpint (dm_io (&req, 1, &where, NULL), ==, 0);
}

/* The first of several flushes that are in flight is told, and answered last; the others
 * do not succeed either.
 */
static void
check_several (struct nbd *f, unsigned int flushes, int error)
{
  const struct nbd_server_fault fault = {
    .ops = SERVER_FLUSH, .times = 1, .what = SERVER_SAYS_ERROR, .error = error,
  };
  struct done done[3];
  unsigned int i;

  start (f, &ordinary);
  g_assert_cmpint (run_all (f, DM_IO_WRITE, 0, data), ==, 0);
  nbd_server_fault (f->server, &fault);
  nbd_server_reverse (f->server, flushes);
  for (i = 0; i < flushes; i++)
    begin (f, DM_IO_FLUSH, &done[i]);
  for (i = 0; i < flushes; i++)
    g_assert_cmphex (done_wait (&done[i]), ==, 1);
}

static void
test_of_several (struct nbd *f, gconstpointer unused)
{
  check_several (f, 3, EIO);
}

static void
test_shutting_down (struct nbd *f, gconstpointer unused)
{
  check_several (f, 2, ESHUTDOWN);
  g_assert_true (f->bdev->failed);
}

/* The first of two operations is not answered, and the connection ends when the other
 * has been.  Returns whether that one succeeds.
 */
static bool
run_unheard (struct nbd *f, enum dm_io_op first, enum dm_io_op other)
{
  const struct nbd_server_fault fault = {
    .ops = first == DM_IO_FLUSH ? SERVER_FLUSH : SERVER_WRITE, .times = 1,
    .what = SERVER_SAYS_NOTHING,
  };
  unsigned long error = 0;
  struct done done[2];

  nbd_server_clear_trace (f->server);
  nbd_server_fault (f->server, &fault);
  begin (f, first, &done[0]);
  nbd_server_await (f->server, fault.ops, 1);
  begin (f, other, &done[1]);
  if (other == DM_IO_WRITE)
    error = done_wait (&done[1]);
  else {
    nbd_server_await (f->server, SERVER_ANY, 2);
    g_usleep (300000);          /* it has been answered, and is held */
  }
  nbd_server_hang_up (f->server, true);
  g_assert_cmphex (done_wait (&done[0]), ==, 1);
  return (other == DM_IO_WRITE ? error : done_wait (&done[1])) == 0;
}

/* Another flush might have been told that what this one flushes was lost; */
static void
test_flush_unheard (struct nbd *f, gconstpointer unused)
{
  start (f, &ordinary);
  g_assert_cmpint (run_all (f, DM_IO_WRITE, 0, data), ==, 0);
  g_assert_false (run_unheard (f, DM_IO_FLUSH, DM_IO_FLUSH));
  g_assert_true (f->bdev->failed);
}

/* ... so might a write with FUA; */
static void
test_fua_unheard (struct nbd *f, gconstpointer unused)
{
  start (f, &ordinary);
  g_assert_cmpint (run_all (f, DM_IO_WRITE, 0, data), ==, 0);
  g_assert_false (run_unheard (f, DM_IO_WRITE, DM_IO_FLUSH));
  g_assert_true (f->bdev->failed);
}

/* ... or a flush that such a write was, which has been acknowledged meanwhile. */
static void
test_unheard_of_fua (struct nbd *f, gconstpointer unused)
{
  start (f, &ordinary);
  g_assert_true (run_unheard (f, DM_IO_FLUSH, DM_IO_WRITE));
  g_assert_true (f->bdev->failed);
}

/* How long it takes until it can be used again, from before it was connected. */
static gint64
revive (struct nbd *f)
{
  unsigned int before = nbd_server_connections (f->server);
  gint64 now = g_get_monotonic_time (), away = now;
  gint64 end = now + WAIT_SECONDS * G_USEC_PER_SEC;
  int r;

  while ((r = bdev_revive (f->bdev)) == -EAGAIN) {
    now = g_get_monotonic_time ();
    g_assert_cmpint (now, <, end);
    if (nbd_server_connections (f->server) == before)
      away = now;
    g_usleep (5000);
  }
  g_assert_cmpint (r, ==, 0);
  return g_get_monotonic_time () - away;
}

/* A flush whose connection has ended may be told what is lost then, and nobody hears of it:
 * so for a while nothing is written.
 */
static void
test_comes_late (struct nbd *f, gconstpointer unused)
{
  start (f, &ordinary);
  g_assert_false (run_unheard (f, DM_IO_FLUSH, DM_IO_FLUSH));
  g_assert_true (f->bdev->failed);
  g_assert_cmpint (revive (f), >, 900000);
}

/* ... if it has taken long, for as long. */
static void
test_comes_too_late (struct nbd *f, gconstpointer unused)
{
  const struct nbd_server_fault fault = {
    .ops = SERVER_FLUSH, .times = 1, .what = SERVER_SAYS_NOTHING,
  };

  start_server (f, &ordinary);
  open_it (f, 2);
  nbd_server_fault (f->server, &fault);
  g_assert_cmpint (run_all (f, DM_IO_FLUSH, 0, NULL), ==, ETIMEDOUT);
  g_assert_true (f->bdev->failed);
  g_assert_cmpint (revive (f), >, 1900000);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  log_lines_keep ();
  add_nbd_test ("/nbd-losses/flush", test_failed_flush);
  add_nbd_test ("/nbd-losses/fua", test_failed_fua);
  add_nbd_test ("/nbd-losses/of-several", test_of_several);
  add_nbd_test ("/nbd-losses/shutting-down", test_shutting_down);
  add_nbd_test ("/nbd-losses/flush-unheard", test_flush_unheard);
  add_nbd_test ("/nbd-losses/fua-unheard", test_fua_unheard);
  add_nbd_test ("/nbd-losses/unheard-of-fua", test_unheard_of_fua);
  add_nbd_test ("/nbd-losses/comes-late", test_comes_late);
  add_nbd_test ("/nbd-losses/comes-too-late", test_comes_too_late);
  return g_test_run ();
}
