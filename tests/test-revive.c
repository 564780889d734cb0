/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Regions on NBD servers that have failed and are revived: what was in flight
 * on the old connections never lands on newer data, and what was not flushed
 * may be lost, but no more (W6).  By script, and with nbdkit.
 */

#include <config.h>

#include "nbd-fixture.h"
#include "nbdkit-server.h"

#define SETTLE_US 1000000
/* How much earlier a time may seem to be over. */
#define EARLY_US 50000

static bool
has_failed (const struct nbd *f)
{
  return __atomic_load_n (&f->bdev->failed, __ATOMIC_RELAXED);
}

static int
write_at (struct nbd *f, unsigned int flags, const void *buf, sector_t sector)
{
  return run_at (f, DM_IO_WRITE, flags, (void *) buf, sector, 1);
}

static int
flush (struct nbd *f)
{
  return run_at (f, DM_IO_FLUSH, 0, NULL, 0, 0);
}

/* It has failed, and said so once: all its I/O fails. */
static void
assert_has_failed (struct nbd *f)
{
  unsigned char buf[SECTOR];

  log_lines_await ("*lost its connection*fails until*restart*");
  log_lines_assert ("*lost its connection*", 1);
  g_assert_true (is_offline (f));
  g_assert_true (has_failed (f));
  memset (buf, 0xaa, SECTOR);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 0, 1), ==, EIO);
  assert_zero (buf, SECTOR);
  g_assert_cmpint (write_at (f, 0, buf, 0), ==, EIO);
  g_assert_cmpint (flush (f), ==, EIO);
}

/* It can be revived after a while, and then used; that is said once. */
static void
await_revival (struct nbd *f)
{
  gint64 end = g_get_monotonic_time () + WAIT_SECONDS * G_USEC_PER_SEC;
  unsigned char buf[SECTOR];
  int r;

  while ((r = bdev_revive (f->bdev)) == -EAGAIN) {
    g_assert_true (is_offline (f));
    g_assert_true (has_failed (f));
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_usleep (5000);
  }
  g_assert_cmpint (r, ==, 0);
  g_assert_false (is_offline (f));
  g_assert_false (has_failed (f));
  log_lines_assert ("*connected again*", 2);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 0, 1), ==, 0);
}

/* It cannot be revived for so long. */
static void
assert_no_revival (struct nbd *f, gint64 usec)
{
  gint64 end = g_get_monotonic_time () + usec;

  while (g_get_monotonic_time () < end) {
    g_assert_cmpint (bdev_revive (f->bdev), ==, -EAGAIN);
    g_usleep (5000);
  }
  g_assert_true (is_offline (f));
}

/*----------------------------------------------------------------------
 * By script
 */

static void
test_nothing_wrong (struct nbd *f, gconstpointer unused)
{
  start (f, &ordinary);
  g_assert_cmpint (bdev_revive (f->bdev), ==, 0);
  g_assert_cmpint (write_at (f, 0, data, 3), ==, 0);
  g_assert_cmpint (bdev_revive (f->bdev), ==, 0);
  g_assert_cmpint (flush (f), ==, 0);
  g_assert_cmpuint (log_lines_count ("*"), ==, 0);
}

/* It had nothing to lose, and is back by itself; but not before that. */
static void
test_offline (struct nbd *f, gconstpointer unused)
{
  start (f, &ordinary);
  g_assert_cmpint (write_at (f, DM_IO_FUA, data, 3), ==, 0);
  nbd_server_hang_up (f->server, false);
  await_offline (f, true);
  g_assert_false (has_failed (f));
  g_assert_cmpint (bdev_revive (f->bdev), ==, -EAGAIN);
  g_assert_cmpint (write_at (f, 0, data, 3), ==, ENOTCONN);
  nbd_server_accept (f->server, true);
  await_offline (f, false);
  g_assert_cmpint (bdev_revive (f->bdev), ==, 0);
  g_assert_cmpint (write_at (f, 0, data, 3), ==, 0);
}

static void
check_lost_change (struct nbd *f, enum nbd_server_misdeed what)
{
  const struct nbd_server_fault fault = {
    .ops = SERVER_WRITE, .times = 1, .what = what,
  };
  unsigned char old[SECTOR];
  gint64 begin;

  start (f, &ordinary);
  log_lines_clear ();
  fill (old, SECTOR, 33);
  nbd_server_fault (f->server, &fault);
  g_assert_cmpint (write_at (f, 0, old, 3), ==, ENOTCONN);
  assert_has_failed (f);
  begin = g_get_monotonic_time ();
  await_revival (f);
  g_assert_cmpint (g_get_monotonic_time () - begin, >=, SETTLE_US - EARLY_US);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_WRITE), ==, 1);
  g_assert_cmpint (write_at (f, 0, data, 3), ==, 0);
  g_assert_cmpint (flush (f), ==, 0);
  g_usleep (SERVER_LATE_US);
  assert_same (nbd_server_data (f->server) + 3 * SECTOR, data, SECTOR);
  stop (f);
}

/* Also one that the server has not done when it ends the connection. */
static void
test_lost_change (struct nbd *f, gconstpointer unused)
{
  check_lost_change (f, SERVER_HANGS_UP);
  check_lost_change (f, SERVER_HANGS_UP_IN_REPLY);
  check_lost_change (f, SERVER_SAYS_GARBAGE);
  check_lost_change (f, SERVER_HANGS_UP_FIRST);
}

/* What was acknowledged need not settle.  And what is lost once does not count
 * again.
 */
static void
test_not_flushed (struct nbd *f, gconstpointer unused)
{
  gint64 begin;

  start (f, &ordinary);
  g_assert_cmpint (write_at (f, 0, data, 3), ==, 0);
  nbd_server_hang_up (f->server, true);
  log_lines_await ("*lost its connection*");
  assert_has_failed (f);
  begin = g_get_monotonic_time ();
  await_revival (f);
  g_assert_cmpint (g_get_monotonic_time () - begin, <, SETTLE_US);
  nbd_server_hang_up (f->server, true);
  log_lines_await ("*connecting again in the background*");
  await_offline (f, false);
  g_assert_false (has_failed (f));
  g_assert_cmpint (write_at (f, 0, data, 3), ==, 0);
}

/* No server, so no revival; and nothing more is said. */
static void
test_no_server (struct nbd *f, gconstpointer unused)
{
  start (f, &ordinary);
  g_assert_cmpint (write_at (f, 0, data, 3), ==, 0);
  nbd_server_hang_up (f->server, false);
  log_lines_await ("*lost its connection*");
  assert_has_failed (f);
  assert_no_revival (f, 500000);
  log_lines_assert ("*lost its connection*", 1);
  nbd_server_accept (f->server, true);
  await_revival (f);
}

/* Nobody wants to revive it: it does not connect. */
static void
test_not_wanted (struct nbd *f, gconstpointer unused)
{
  unsigned int attempts;

  start (f, &ordinary);
  g_assert_cmpint (write_at (f, 0, data, 3), ==, 0);
  attempts = nbd_server_attempts (f->server);
  nbd_server_hang_up (f->server, true);
  log_lines_await ("*lost its connection*");
  g_usleep (500000);
  g_assert_cmpuint (nbd_server_attempts (f->server), ==, attempts);
  assert_has_failed (f);
  await_revival (f);
}

/* The connections that it has while it settles are not used; and they are
 * lost, too.
 */
static void
test_lost_again (struct nbd *f, gconstpointer unused)
{
  const struct nbd_server_fault fault = {
    .ops = SERVER_WRITE, .times = 1, .what = SERVER_HANGS_UP,
  };
  gint64 begin;
  unsigned int n;

  start (f, &ordinary);
  nbd_server_fault (f->server, &fault);
  g_assert_cmpint (write_at (f, 0, data, 3), ==, ENOTCONN);
  assert_has_failed (f);
  n = nbd_server_connections (f->server);
  while (nbd_server_connections (f->server) == n)
    assert_no_revival (f, 5000);
  assert_no_revival (f, SETTLE_US / 2);
  nbd_server_clear_trace (f->server);
  assert_has_failed (f);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_ANY), ==, 0);
  n = nbd_server_connections (f->server);
  begin = g_get_monotonic_time ();
  nbd_server_hang_up (f->server, true);
  await_revival (f);
  g_assert_cmpuint (nbd_server_connections (f->server), >, n);
  g_assert_cmpint (g_get_monotonic_time () - begin, >=, SETTLE_US - EARLY_US);
}

/* A command that the server has, and has not done, is waited for: there is no
 * attempt to connect before it has landed.
 */
static void
test_late_write (struct nbd *f, gconstpointer unused)
{
  unsigned char old[SECTOR];
  unsigned int attempts;
  gint64 begin;

  start_server (f, &ordinary);
  open_it (f, 2);
  fill (old, SECTOR, 33);
  nbd_server_close_gate (f->server, true);
  g_assert_cmpint (write_at (f, 0, old, 3), ==, ETIMEDOUT);
  attempts = nbd_server_attempts (f->server);
  assert_has_failed (f);
  assert_no_revival (f, 3000000);
  g_assert_cmpuint (nbd_server_attempts (f->server), ==, attempts);

  begin = g_get_monotonic_time ();
  nbd_server_close_gate (f->server, false);
  await_revival (f);
  g_assert_cmpint (g_get_monotonic_time () - begin, >=, 2000000 - EARLY_US);
  assert_same (nbd_server_data (f->server) + 3 * SECTOR, old, SECTOR);
  g_assert_cmpint (write_at (f, 0, data, 3), ==, 0);
  g_assert_cmpint (flush (f), ==, 0);
  assert_same (nbd_server_data (f->server) + 3 * SECTOR, data, SECTOR);
}

/* Closed while it waits for that. */
static void
test_close_when_waiting (struct nbd *f, gconstpointer unused)
{
  gint64 begin;

  start_server (f, &ordinary);
  open_it (f, 1);
  nbd_server_close_gate (f->server, true);
  g_assert_cmpint (write_at (f, 0, data, 3), ==, ETIMEDOUT);
  g_assert_cmpint (bdev_revive (f->bdev), ==, -EAGAIN);
  begin = g_get_monotonic_time ();
  close_it (f);
  g_assert_cmpint (g_get_monotonic_time () - begin, <, AT_ONCE_US);
}

/* A server that is back as another one is never used. */
static void
test_changed_server (struct nbd *f, gconstpointer unused)
{
  struct nbd_server_options options = ordinary;
  unsigned int attempts;

  start (f, &ordinary);
  g_assert_cmpint (write_at (f, 0, data, 3), ==, 0);
  options.size -= SECTOR;
  nbd_server_set_options (f->server, &options);
  nbd_server_hang_up (f->server, true);
  log_lines_await ("*lost its connection*");
  while (bdev_revive (f->bdev) == -EAGAIN)
    g_usleep (5000);
  g_assert_cmpuint (log_lines_count ("*another size*opened again*"), ==, 1);
  nbd_server_set_options (f->server, &ordinary);
  attempts = nbd_server_attempts (f->server);
  g_usleep (500000);
  g_assert_cmpint (bdev_revive (f->bdev), ==, -EIO);
  g_assert_true (has_failed (f));
  g_assert_cmpuint (nbd_server_attempts (f->server), ==, attempts);
}

/* A flush that has failed, on connections that have not. */
static void
test_failed_flush (struct nbd *f, gconstpointer unused)
{
  const struct nbd_server_fault fault = {
    .ops = SERVER_FLUSH, .times = 1, .what = SERVER_SAYS_ERROR, .error = EIO,
  };

  start (f, &ordinary);
  g_assert_cmpint (write_at (f, 0, data, 3), ==, 0);
  nbd_server_fault (f->server, &fault);
  g_assert_cmpint (flush (f), ==, EIO);
  g_assert_cmpint (flush (f), ==, EIO);
  g_assert_cmpint (bdev_revive (f->bdev), ==, 0);
  g_assert_cmpint (write_at (f, 0, data, 3), ==, 0);
  g_assert_cmpint (flush (f), ==, 0);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_FLUSH), ==, 2);
  g_assert_cmpuint (log_lines_count ("*"), ==, 0);
}

/* Several connections, of which one fails; all are waited for. */
static void
test_multi_conn (struct nbd *f, gconstpointer unused)
{
  const struct nbd_server_fault fault = {
    .ops = SERVER_WRITE, .times = 1, .what = SERVER_HANGS_UP_FIRST,
  };
  struct nbd_server_options options = ordinary;
  unsigned int n;

  options.flags |= SERVER_CAN_MULTI_CONN;
  start (f, &options);
  n = nbd_server_connections (f->server);
  nbd_server_fault (f->server, &fault);
  g_assert_cmpint (run_all (f, DM_IO_WRITE, 0, data), ==, ENOTCONN);
  assert_has_failed (f);
  await_revival (f);
  g_assert_cmpuint (nbd_server_connections (f->server), ==, 2 * n);
  fill (data, SIZE, 2);
  g_assert_cmpint (run_all (f, DM_IO_WRITE, DM_IO_FUA, data), ==, 0);
  assert_same (nbd_server_data (f->server), data, SIZE);
}

/*----------------------------------------------------------------------
 * With nbdkit
 */

struct real {
  struct nbd f;
  struct nbdkit_server server;
  char *file;
};

static void
start_real (struct real *r, bool tcp, bool write_back, unsigned int timeout)
{
  g_autoptr (GError) error = NULL;
  const struct dm_bdev_options options = { .timeout = timeout };

  memset (r, 0, sizeof *r);
  set_up (&r->f, NULL);
  r->file = g_build_filename (r->f.dir, "file", NULL);
  g_file_set_contents (r->file, (char *) data, SIZE, &error);
  g_assert_no_error (error);
  r->server.tcp = tcp;
  r->server.write_back = write_back;
  nbdkit_server_start (&r->server, r->file, 1);
  r->f.bdev = open_device (r->server.uri, &options);
  r->f.where = (struct io_region) { r->f.bdev, 0, SECTORS };
}

static void
stop_real (struct real *r)
{
  close_it (&r->f);
  nbdkit_server_stop (&r->server);
  g_assert_cmpint (g_unlink (r->file), ==, 0);
  g_free (r->file);
  tear_down (&r->f, NULL);
}

static void
assert_at (struct real *r, sector_t sector, const void *expected)
{
  unsigned char buf[SECTOR];

  g_assert_cmpint (run_at (&r->f, DM_IO_READ, 0, buf, sector, 1), ==, 0);
  assert_same (buf, expected, SECTOR);
}

/* The server loses what was not flushed, and only that. */
static void
check_killed (bool tcp)
{
  unsigned char a[SECTOR], b[SECTOR];
  struct real r;

  start_real (&r, tcp, true, 0);
  fill (a, SECTOR, 33);
  fill (b, SECTOR, 34);
  g_assert_cmpint (write_at (&r.f, 0, a, 3), ==, 0);
  g_assert_cmpint (flush (&r.f), ==, 0);
  g_assert_cmpint (write_at (&r.f, 0, b, 3), ==, 0);
  g_assert_cmpint (write_at (&r.f, 0, b, 4), ==, 0);
  nbdkit_server_kill (&r.server);
  assert_has_failed (&r.f);
  assert_no_revival (&r.f, 300000);
  nbdkit_server_restart (&r.server);
  await_revival (&r.f);
  assert_at (&r, 3, a);
  assert_at (&r, 4, data + 4 * SECTOR);

  g_assert_cmpint (write_at (&r.f, 0, b, 3), ==, 0);
  g_assert_cmpint (flush (&r.f), ==, 0);
  nbdkit_server_kill (&r.server);
  await_offline (&r.f, true);
  nbdkit_server_restart (&r.server);
  await_offline (&r.f, false);
  g_assert_false (has_failed (&r.f));
  assert_at (&r, 3, b);
  stop_real (&r);
}

static void
test_killed (gconstpointer tcp)
{
  check_killed (GPOINTER_TO_INT (tcp));
}

/* A write to a server that is stopped, and goes on later; whether it then does
 * the write is its own affair.
 */
static void
test_stopped (gconstpointer tcp)
{
  unsigned char old[SECTOR];
  struct real r;

  start_real (&r, GPOINTER_TO_INT (tcp), false, 1);
  fill (old, SECTOR, 33);
  nbdkit_server_pause (&r.server);
  g_assert_cmpint (write_at (&r.f, 0, old, 3), ==, ETIMEDOUT);
  assert_has_failed (&r.f);
  assert_no_revival (&r.f, 3000000);
  nbdkit_server_continue (&r.server);
  await_revival (&r.f);
  g_assert_cmpint (write_at (&r.f, DM_IO_FUA, data, 3), ==, 0);
  g_usleep (SERVER_LATE_US);
  assert_at (&r, 3, data);
  stop_real (&r);
}

/* A write to a server that is stopped, and does not go on. */
static void
test_stopped_and_killed (gconstpointer tcp)
{
  unsigned char old[SECTOR];
  struct real r;

  start_real (&r, GPOINTER_TO_INT (tcp), false, 1);
  fill (old, SECTOR, 33);
  nbdkit_server_pause (&r.server);
  g_assert_cmpint (write_at (&r.f, 0, old, 3), ==, ETIMEDOUT);
  assert_has_failed (&r.f);
  assert_no_revival (&r.f, 300000);
  nbdkit_server_kill (&r.server);
  nbdkit_server_restart (&r.server);
  await_revival (&r.f);
  assert_at (&r, 3, data + 3 * SECTOR);
  g_assert_cmpint (write_at (&r.f, DM_IO_FUA, old, 3), ==, 0);
  assert_at (&r, 3, old);
  stop_real (&r);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  log_lines_keep ();
  add_nbd_test ("/revive/nothing-wrong", test_nothing_wrong);
  add_nbd_test ("/revive/offline", test_offline);
  add_nbd_test ("/revive/lost-change", test_lost_change);
  add_nbd_test ("/revive/not-flushed", test_not_flushed);
  add_nbd_test ("/revive/no-server", test_no_server);
  add_nbd_test ("/revive/not-wanted", test_not_wanted);
  add_nbd_test ("/revive/lost-again", test_lost_again);
  add_nbd_test ("/revive/late-write", test_late_write);
  add_nbd_test ("/revive/close-when-waiting", test_close_when_waiting);
  add_nbd_test ("/revive/changed-server", test_changed_server);
  add_nbd_test ("/revive/failed-flush", test_failed_flush);
  add_nbd_test ("/revive/multi-conn", test_multi_conn);
  g_test_add_data_func ("/revive/killed/unix", GINT_TO_POINTER (false),
                        test_killed);
  g_test_add_data_func ("/revive/killed/tcp", GINT_TO_POINTER (true),
                        test_killed);
  g_test_add_data_func ("/revive/stopped/unix", GINT_TO_POINTER (false),
                        test_stopped);
  g_test_add_data_func ("/revive/stopped/tcp", GINT_TO_POINTER (true),
                        test_stopped);
  g_test_add_data_func ("/revive/stopped-and-killed/unix",
                        GINT_TO_POINTER (false), test_stopped_and_killed);
  g_test_add_data_func ("/revive/stopped-and-killed/tcp",
                        GINT_TO_POINTER (true), test_stopped_and_killed);
  return g_test_run ();
}
