/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Regions that lose the connection to their NBD server, which is wrong,
 * silent or gone: when they come back, and when they must not (W6).
 */

#include <config.h>

#include "nbd-fixture.h"

/* Longer than the library waits before it first connects again. */
#define A_WHILE_US 400000

/*----------------------------------------------------------------------
 * Lost, and back
 */

static void
await_attempts (struct nbd *f, unsigned int n)
{
  gint64 end = g_get_monotonic_time () + WAIT_SECONDS * G_USEC_PER_SEC;

  while (nbd_server_attempts (f->server) < n) {
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_usleep (1000);
  }
}

/* The device is back, and has said so in two lines. */
static void
assert_comes_back (struct nbd *f)
{
  unsigned char buf[SECTOR];

  log_lines_await ("*connected again*");
  await_offline (f, false);
  memset (buf, 0xaa, SECTOR);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 5, 1), ==, 0);
  assert_same (buf, nbd_server_data (f->server) + 5 * SECTOR, SECTOR);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, DM_IO_FUA, data, 6, 1), ==, 0);
  log_lines_assert ("*lost its connection (?*", 2);
  g_assert_cmpuint (log_lines_count ("*()*"), ==, 0);
  log_lines_assert ("*connected again*", 2);
}

/* It fails everything from now on, has said so in one line, and as long as
 * nobody revives it does not even try to connect; nothing is sent.  Opened
 * again it works.
 */
static void
assert_failed_for_good (struct nbd *f)
{
  unsigned int attempts = nbd_server_attempts (f->server);
  unsigned char buf[SECTOR];
  int error;

  log_lines_await ("*fails until*restart*");
  nbd_server_clear_faults (f->server);
  nbd_server_clear_trace (f->server);
  nbd_server_hang_up (f->server, true);
  g_assert_true (is_offline (f));
  memset (buf, 0xaa, SECTOR);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 0, 1), !=, 0);
  assert_zero (buf, SECTOR);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, 0, buf, 0, 1), !=, 0);
  g_assert_cmpint (run_at (f, DM_IO_WRITE_ZEROES, 0, buf, 0, 1), !=, 0);
  g_assert_cmpint (run_at (f, DM_IO_DISCARD, 0, buf, 0, 1), !=, 0);
  error = run_at (f, DM_IO_FLUSH, 0, NULL, 0, 0);
  g_assert_true (error == EIO || error == ENOTCONN);
  g_usleep (A_WHILE_US);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 0, 1), !=, 0);
  g_usleep (A_WHILE_US / 4);
  g_assert_true (is_offline (f));
  g_assert_cmpuint (nbd_server_attempts (f->server), ==, attempts);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_ANY), ==, 0);

  close_it (f);
  open_it (f, 0);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, DM_IO_FUA, data, 0, 1), ==, 0);
}

/* A request that changes nothing is in flight when the connection breaks
 * in one way or the other.
 */
static void
check_lost_read (struct nbd *f, enum nbd_server_misdeed what, bool structured)
{
  const struct nbd_server_fault fault = {
    .ops = SERVER_READ, .times = 1, .what = what,
  };
  struct nbd_server_options options = ordinary;
  unsigned char buf[8 * SECTOR];

  options.structured = structured;
  start (f, &options);
  log_lines_clear ();
  nbd_server_fault (f->server, &fault);
  memset (buf, 0xaa, sizeof buf);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 8, 8), ==, ENOTCONN);
  assert_zero (buf, sizeof buf);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_READ), ==, 1);
  assert_comes_back (f);
  stop (f);
}

static void
test_lost_read (struct nbd *f, gconstpointer unused)
{
  static const enum nbd_server_misdeed misdeeds[] = {
    SERVER_HANGS_UP, SERVER_HANGS_UP_IN_REPLY, SERVER_SAYS_GARBAGE,
  };
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (misdeeds); i++) {
    check_lost_read (f, misdeeds[i], false);
    check_lost_read (f, misdeeds[i], true);
  }
}

/* A flush: what is written later may be lost, and it may be told of that, which nobody hears. */
static void
test_lost_flush (struct nbd *f, gconstpointer unused)
{
  static const struct { enum nbd_server_misdeed what; int error; } cases[] = {
    { SERVER_HANGS_UP, ENOTCONN }, { SERVER_SAYS_GARBAGE, ENOTCONN },
    { SERVER_SAYS_NOTHING, ETIMEDOUT },
  };
  struct nbd_server_fault fault = { .ops = SERVER_FLUSH, .times = 1 };
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    start_server (f, &ordinary);
    open_it (f, 1);
    log_lines_clear ();
    fault.what = cases[i].what;
    nbd_server_fault (f->server, &fault);
    g_assert_cmpint (run_at (f, DM_IO_FLUSH, 0, NULL, 0, 0), ==,
                     cases[i].error);
    assert_failed_for_good (f);
    stop (f);
  }
}

/* The server never answers one read. */
static void
test_timeout (struct nbd *f, gconstpointer unused)
{
  const struct nbd_server_fault fault = {
    .ops = SERVER_READ, .times = 1, .what = SERVER_SAYS_NOTHING,
  };
  unsigned char buf[8 * SECTOR];
  gint64 begin, usec;

  start_server (f, &ordinary);
  open_it (f, 1);
  nbd_server_fault (f->server, &fault);
  memset (buf, 0xaa, sizeof buf);
  begin = g_get_monotonic_time ();
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 8, 8), ==, ETIMEDOUT);
  usec = g_get_monotonic_time () - begin;
  g_assert_cmpint (usec, >=, 950000);
  g_assert_cmpint (usec, <, AT_ONCE_US);
  assert_zero (buf, sizeof buf);
  g_assert_cmpuint (log_lines_count ("*does not answer*within 1 second*"),
                    ==, 1);
  assert_comes_back (f);
}

/* Commands that are answered, one after another, are never late. */
static void
test_no_timeout (struct nbd *f, gconstpointer unused)
{
  const unsigned int n = 30;
  struct io_region where;
  struct done done[30];
  unsigned int i;

  start_server (f, &ordinary);
  open_it (f, 1);
  for (i = 0; i < n; i++) {
    where = part_of (f, i, 1);
    done_init (&done[i]);
    g_assert_cmpint (dm_io_async_vm (1, &where, READ, data + i * SECTOR,
                                     done_callback, &done[i]), ==, 0);
    g_usleep (50000);
  }
  for (i = 0; i < n; i++)
    g_assert_cmphex (done_wait (&done[i]), ==, 0);
  g_assert_cmpuint (nbd_server_connections (f->server), ==, 1);
  g_assert_cmpuint (log_lines_count ("*"), ==, 0);
}

/* The connection ends while nothing happens; requests meanwhile fail at
 * once, and it is made again when the server lets it.
 */
static void
test_lost_when_idle (struct nbd *f, gconstpointer unused)
{
  unsigned char buf[8 * SECTOR];
  gint64 begin;
  unsigned int attempts;

  start (f, &ordinary);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 0, 8), ==, 0);
  nbd_server_clear_trace (f->server);
  attempts = nbd_server_attempts (f->server);
  nbd_server_hang_up (f->server, false);
  await_offline (f, true);

  begin = g_get_monotonic_time ();
  memset (buf, 0xaa, sizeof buf);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 8, 8), ==, ENOTCONN);
  assert_zero (buf, sizeof buf);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, 0, buf, 8, 8), ==, ENOTCONN);
  g_assert_cmpint (run_at (f, DM_IO_WRITE_ZEROES, 0, buf, 8, 8), ==,
                   ENOTCONN);
  g_assert_cmpint (run_at (f, DM_IO_FLUSH, 0, NULL, 0, 0), ==, ENOTCONN);
  g_assert_cmpint (g_get_monotonic_time () - begin, <, AT_ONCE_US);
  g_usleep (2 * A_WHILE_US);
  g_assert_cmpuint (nbd_server_attempts (f->server), >, attempts);
  g_assert_true (is_offline (f));
  log_lines_assert ("*lost its connection*", 1);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_ANY), ==, 0);

  nbd_server_accept (f->server, true);
  assert_comes_back (f);
}

/* The same before any request was made, if somebody cares. */
static void
test_attend (struct nbd *f, gconstpointer unused)
{
  start (f, &ordinary);
  g_assert_cmpint (bdev_attend (f->bdev), ==, 0);
  nbd_server_hang_up (f->server, false);
  await_offline (f, true);
  nbd_server_accept (f->server, true);
  assert_comes_back (f);
}

/* If one of them fails, all are given up. */
static void
test_multi_conn_lost (struct nbd *f, gconstpointer unused)
{
  const struct nbd_server_fault hang_up = {
    .ops = SERVER_READ, .times = 1, .what = SERVER_HANGS_UP,
  };
  struct nbd_server_options options = ordinary;
  g_autofree unsigned char *buf = g_malloc (SIZE);
  unsigned int n;

  options.flags |= SERVER_CAN_MULTI_CONN;
  start (f, &options);
  n = nbd_server_connections (f->server);
  nbd_server_fault (f->server, &hang_up);
  g_assert_cmpint (run_all (f, DM_IO_READ, 0, buf), ==, ENOTCONN);
  log_lines_await ("*connected again*");
  await_offline (f, false);
  g_assert_cmpuint (nbd_server_connections (f->server), ==, 2 * n);
  g_assert_cmpint (run_all (f, DM_IO_READ, 0, buf), ==, 0);
  assert_same (buf, data, SIZE);
}

/* Attempts to connect come less and less often. */
static void
test_growing_delay (struct nbd *f, gconstpointer unused)
{
  unsigned int before, early;

  start (f, &ordinary);
  g_assert_cmpint (bdev_attend (f->bdev), ==, 0);
  before = nbd_server_attempts (f->server);
  nbd_server_hang_up (f->server, false);
  await_offline (f, true);
  g_usleep (1500000);
  early = nbd_server_attempts (f->server) - before;
  g_assert_cmpuint (early, >=, 2);
  g_assert_cmpuint (early, <=, 8);
  before += early;
  g_usleep (1500000);
  g_assert_cmpuint (nbd_server_attempts (f->server) - before, <, early);
}

/*----------------------------------------------------------------------
 * Lost, and not back (W6)
 */

static const struct {
  enum dm_io_op op;
  unsigned int bit;
} changes[] = {
  { DM_IO_WRITE, SERVER_WRITE },
  { DM_IO_WRITE_ZEROES, SERVER_ZERO },
  { DM_IO_DISCARD, SERVER_ZERO },
};

/* A change in flight may or may not have been done, or be done later. */
static void
test_lost_change (struct nbd *f, gconstpointer unused)
{
  static const enum nbd_server_misdeed misdeeds[] = {
    SERVER_HANGS_UP, SERVER_HANGS_UP_IN_REPLY, SERVER_SAYS_GARBAGE,
  };
  struct nbd_server_fault fault = { .times = 1 };
  unsigned int i, j;

  for (i = 0; i < G_N_ELEMENTS (changes); i++)
    for (j = 0; j < G_N_ELEMENTS (misdeeds); j++) {
      start (f, &ordinary);
      log_lines_clear ();
      fault.ops = changes[i].bit;
      fault.what = misdeeds[j];
      nbd_server_fault (f->server, &fault);
      /* FUA makes no difference before it is acknowledged. */
      g_assert_cmpint (run_at (f, changes[i].op, j % 2 ? DM_IO_FUA : 0, data,
                               3, 8), ==, ENOTCONN);
      g_assert_cmpuint (nbd_server_count (f->server, changes[i].bit), ==, 1);
      assert_failed_for_good (f);
      log_lines_assert ("*lost its connection*", 1);
      stop (f);
    }
}

/* What was acknowledged may be lost with the server. */
static void
test_lost_after_change (struct nbd *f, gconstpointer unused)
{
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (changes); i++) {
    start (f, &ordinary);
    log_lines_clear ();
    g_assert_cmpint (run_at (f, DM_IO_FLUSH, 0, NULL, 0, 0), ==, 0);
    g_assert_cmpint (run_at (f, changes[i].op, 0, data, 3, 8), ==, 0);
    nbd_server_hang_up (f->server, true);
    assert_failed_for_good (f);
    log_lines_assert ("*lost its connection*", 1);
    stop (f);
  }
}

/* But not if it was flushed, in one way or the other. */
static void
test_lost_after_flush (struct nbd *f, gconstpointer unused)
{
  struct nbd_server_options options = ordinary;
  unsigned int i, way;

  for (i = 0; i < G_N_ELEMENTS (changes); i++)
    for (way = 0; way < 4; way++) {
      options.flags = way == 1 ? ordinary.flags & ~SERVER_CAN_FUA :
        ordinary.flags;
      start (f, &options);
      log_lines_clear ();
      g_assert_cmpint (run_at (f, changes[i].op, way < 2 ? DM_IO_FUA : 0,
                               data, 3, 8), ==, 0);
      if (way == 2)
        g_assert_cmpint (run_at (f, DM_IO_FLUSH, 0, NULL, 0, 0), ==, 0);
      if (way == 3)
        g_assert_cmpint (run_at (f, DM_IO_WRITE, DM_IO_PREFLUSH, NULL, 0, 0),
                         ==, 0);
      nbd_server_hang_up (f->server, true);
      assert_comes_back (f);
      stop (f);
    }
}

/* A flush does nothing for a write that was acknowledged only after it
 * had been sent.
 */
static void
test_lost_after_early_flush (struct nbd *f, gconstpointer unused)
{
  struct dm_io_request req = { .op = DM_IO_FLUSH };
  struct io_region where;
  struct done flush, write;

  start (f, &ordinary);
  nbd_server_reverse (f->server, 2);
  done_init (&flush);
  req.fn = done_callback;
  req.context = &flush;
  g_assert_cmpint (dm_io (&req, 1, &f->where, NULL), ==, 0);
  nbd_server_await (f->server, SERVER_FLUSH, 1);
  where = part_of (f, 3, 8);
  done_init (&write);
  g_assert_cmpint (dm_io_async_vm (1, &where, WRITE, data, done_callback,
                                   &write), ==, 0);
  g_assert_cmphex (done_wait (&write), ==, 0);
  g_assert_cmphex (done_wait (&flush), ==, 0);
  nbd_server_hang_up (f->server, true);
  assert_failed_for_good (f);
}

/* A write that timed out is done by the server after all: nothing newer
 * is there that it could land on.
 */
static void
test_late_write (struct nbd *f, gconstpointer unused)
{
  unsigned char old[SECTOR];

  start_server (f, &ordinary);
  open_it (f, 1);
  fill (old, SECTOR, 33);
  nbd_server_close_gate (f->server, true);
  g_assert_cmpuint (f->bdev->late_until, ==, 0);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, 0, old, 3, 1), ==, ETIMEDOUT);
  g_assert_cmpuint (f->bdev->late_until, >, 0);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, 0, data, 3, 1), !=, 0);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_WRITE), ==, 1);
  log_lines_assert ("*does not answer*within 1 second*fails until*restart*",
                    1);
  nbd_server_close_gate (f->server, false);
  assert_failed_for_good (f);
  assert_same (nbd_server_data (f->server) + 3 * SECTOR, old, SECTOR);
}

/* Whatever happens, no command is sent twice, and what was acknowledged as
 * durable is there.
 */
static void
check_hang_ups (struct nbd *f, struct rng *rng)
{
  struct nbd_server_options options = ordinary;
  bool seen[SECTORS] = { false };
  struct done done[SECTORS];
  const struct nbd_server_event *e;
  struct dm_io_request req;
  struct io_region where;
  size_t n, i;

  options.flags |= rng_below (rng, 2) ? SERVER_CAN_MULTI_CONN : 0;
  start (f, &options);
  memset (nbd_server_data (f->server), 0, SIZE);
  for (i = 0; i < SECTORS; i++) {
    if (rng_below (rng, SECTORS) == 0)
      nbd_server_hang_up (f->server, true);
    where = part_of (f, i, 1);
    req = flagged_request (DM_IO_WRITE, DM_IO_FUA, data + i * SECTOR);
    req.fn = done_callback;
    req.context = &done[i];
    done_init (&done[i]);
    g_assert_cmpint (dm_io (&req, 1, &where, NULL), ==, 0);
  }
  nbd_server_hang_up (f->server, true);
  for (i = 0; i < SECTORS; i++)
    if (done_wait (&done[i]) == 0)
      assert_same (nbd_server_data (f->server) + i * SECTOR,
                   data + i * SECTOR, SECTOR);
  n = nbd_server_count (f->server, SERVER_WRITE);
  e = nbd_server_trace (f->server, SERVER_WRITE, n);
  for (i = 0; i < n; i++) {
    g_assert_false (seen[e[i].offset / SECTOR]);
    seen[e[i].offset / SECTOR] = true;
  }
  stop (f);
}

static void
test_hang_ups (struct nbd *f, gconstpointer unused)
{
  struct rng rng = rng_random ();
  unsigned int i;

  for (i = 0; i < 30; i++)
    check_hang_ups (f, &rng);
}

/* A server that is back as another one is not used. */
static void
test_changed_server (struct nbd *f, gconstpointer unused)
{
  const struct nbd_server_options others[] = {
    { SIZE + SECTOR, SERVER_CAN_ALL, 0, 0, true },
    { SIZE - SECTOR, SERVER_CAN_ALL, 0, 0, true },
    { SIZE, SERVER_CAN_ALL | SERVER_READ_ONLY, 0, 0, true },
    { SIZE, SERVER_CAN_ALL & ~SERVER_CAN_FUA, 0, 0, true },
    { SIZE, SERVER_CAN_ALL & ~SERVER_CAN_FLUSH, 0, 0, true },
    { SIZE, SERVER_CAN_ALL & ~SERVER_CAN_ZERO, 0, 0, true },
    { SIZE, SERVER_CAN_ALL & ~SERVER_CAN_FAST_ZERO, 0, 0, true },
    { SIZE, SERVER_CAN_ALL, 4096, 8192, true },
    { SIZE, SERVER_CAN_ALL, 512, 4096, true },
  };
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (others); i++) {
    start (f, &ordinary);
    log_lines_clear ();
    g_assert_cmpint (run_at (f, DM_IO_WRITE, DM_IO_FUA, data, 3, 1), ==, 0);
    nbd_server_set_options (f->server, &others[i]);
    nbd_server_hang_up (f->server, true);
    log_lines_await ("*opened again*");
    nbd_server_set_options (f->server, &ordinary);
    assert_failed_for_good (f);
    g_assert_cmpuint (log_lines_count ("*lost its connection*"), ==, 1);
    log_lines_assert ("*opened again*", 2);
    stop (f);
  }
}

/* Nor is one that no device could be made of; but it may change again. */
static void
test_impossible_server (struct nbd *f, gconstpointer unused)
{
  struct nbd_server_options options = ordinary;
  unsigned int attempts;

  start (f, &ordinary);
  g_assert_cmpint (bdev_attend (f->bdev), ==, 0);
  options.min_block = options.max_block = 8192;
  nbd_server_set_options (f->server, &options);
  attempts = nbd_server_attempts (f->server);
  nbd_server_hang_up (f->server, true);
  await_offline (f, true);
  await_attempts (f, attempts + 2); /* so the first has come to nothing */
  g_assert_true (is_offline (f));
  nbd_server_set_options (f->server, &ordinary);
  assert_comes_back (f);
}

/* How fast it is does not matter. */
static void
test_changed_hint (struct nbd *f, gconstpointer unused)
{
  struct nbd_server_options options = ordinary;

  start (f, &options);
  g_assert_cmpint (bdev_attend (f->bdev), ==, 0);
  options.flags |= SERVER_ROTATIONAL;
  nbd_server_set_options (f->server, &options);
  nbd_server_hang_up (f->server, true);
  assert_comes_back (f);
}

/*----------------------------------------------------------------------
 * Closing
 */

static void
close_quickly (struct nbd *f)
{
  gint64 begin = g_get_monotonic_time ();

  close_it (f);
  g_assert_cmpint (g_get_monotonic_time () - begin, <, AT_ONCE_US);
}

/* Whatever the server does not do. */
static void
test_close (struct nbd *f, gconstpointer unused)
{
  const struct nbd_server_fault silence = {
    .ops = SERVER_READ, .times = 1, .what = SERVER_SAYS_NOTHING,
  };
  unsigned char buf[SECTOR];

  start (f, &ordinary);
  close_quickly (f);            /* never used */
  open_it (f, 0);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 0, 1), ==, 0);
  close_quickly (f);

  open_it (f, 0);               /* lost */
  g_assert_cmpint (bdev_attend (f->bdev), ==, 0);
  nbd_server_hang_up (f->server, false);
  await_offline (f, true);
  close_quickly (f);
  nbd_server_accept (f->server, true);

  open_it (f, 1);               /* gave up */
  nbd_server_fault (f->server, &silence);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 0, 1), ==, ETIMEDOUT);
  close_quickly (f);
}

/* While it connects to a server that does not shake hands. */
static void
test_close_when_connecting (struct nbd *f, gconstpointer unused)
{
  int listener;

  start (f, &ordinary);
  g_assert_cmpint (bdev_attend (f->bdev), ==, 0);
  nbd_server_hang_up (f->server, false);
  g_assert_cmpint (g_unlink (f->socket), ==, 0);
  listener = listen_silently (f);
  await_offline (f, true);
  g_usleep (A_WHILE_US);
  close_quickly (f);
  close (listener);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  log_lines_keep ();
  add_nbd_test ("/reconnect/multi-conn-lost", test_multi_conn_lost);
  add_nbd_test ("/reconnect/lost-read", test_lost_read);
  add_nbd_test ("/reconnect/lost-flush", test_lost_flush);
  add_nbd_test ("/reconnect/timeout", test_timeout);
  add_nbd_test ("/reconnect/no-timeout", test_no_timeout);
  add_nbd_test ("/reconnect/lost-when-idle", test_lost_when_idle);
  add_nbd_test ("/reconnect/attend", test_attend);
  add_nbd_test ("/reconnect/growing-delay", test_growing_delay);
  add_nbd_test ("/reconnect/lost-change", test_lost_change);
  add_nbd_test ("/reconnect/lost-after-change", test_lost_after_change);
  add_nbd_test ("/reconnect/lost-after-flush", test_lost_after_flush);
  add_nbd_test ("/reconnect/lost-after-early-flush",
                test_lost_after_early_flush);
  add_nbd_test ("/reconnect/late-write", test_late_write);
  add_nbd_test ("/reconnect/hang-ups", test_hang_ups);
  add_nbd_test ("/reconnect/changed-server", test_changed_server);
  add_nbd_test ("/reconnect/impossible-server", test_impossible_server);
  add_nbd_test ("/reconnect/changed-hint", test_changed_hint);
  add_nbd_test ("/reconnect/close", test_close);
  add_nbd_test ("/reconnect/close-when-connecting", test_close_when_connecting);
  return g_test_run ();
}
