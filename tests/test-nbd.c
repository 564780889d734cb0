/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Regions that are exports of an NBD server: what can be had only with
 * one that does as it is told.
 *
 * What is opened and what is refused; which commands are sent, and in which
 * order; answers out of order, and errors.  Lost connections are the
 * affair of test-reconnect.
 */

#include <config.h>

#include "nbd-fixture.h"

static struct nbd_server_event
only_event (struct nbd *f, unsigned int ops)
{
  return nbd_server_trace (f->server, ops, 1)[0];
}

/* The events cover the range, each byte once. */
static void
assert_cover (struct nbd *f, unsigned int op, uint64_t offset,
              uint64_t length)
{
  const size_t n = nbd_server_count (f->server, op);
  const struct nbd_server_event *e = nbd_server_trace (f->server, op, n);
  g_autofree unsigned char *seen = g_malloc0 (SIZE);
  size_t i;

  for (i = 0; i < n; i++) {
    assert_zero (seen + e[i].offset, e[i].length);
    memset (seen + e[i].offset, 1, e[i].length);
  }
  for (i = 0; i < SIZE; i++)
    g_assert_cmpuint (seen[i], ==, i >= offset && i - offset < length);
}

/*----------------------------------------------------------------------
 * Opening
 */

static void
test_open (struct nbd *f, gconstpointer unused)
{
  struct nbd_server_options options = ordinary;

  options.size = SIZE - 100;
  start (f, &options);
  g_assert_cmpuint (dm_bdev_sectors (f->bdev), ==, SECTORS - 1);
  g_assert_cmpuint (dm_bdev_block_size (f->bdev), ==, SECTOR);
  g_assert_cmpstr (dm_bdev_name (f->bdev), ==, f->uri);
  g_assert_false (dm_bdev_read_only (f->bdev));
  g_assert_false (is_offline (f));
  g_assert_cmpuint (nbd_server_connections (f->server), ==, 1);
  open_device_refused (f->uri, NULL, EBUSY, "already");
  g_assert_cmpuint (nbd_server_attempts (f->server), ==, 1);

  close_it (f);
  options.flags |= SERVER_READ_ONLY;
  nbd_server_set_options (f->server, &options);
  open_it (f, 0);
  g_assert_true (dm_bdev_read_only (f->bdev));
  g_assert_cmpint (run_all (f, DM_IO_WRITE, 0, data), ==, EROFS);
  g_assert_cmpint (run_all (f, DM_IO_WRITE_ZEROES, 0, NULL), ==, EROFS);
  g_assert_cmpint (run_all (f, DM_IO_READ, 0, data), ==, 0);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_CHANGES), ==, 0);
  g_assert_cmpuint (log_lines_count ("*"), ==, 0);
}

/* Without a server. */
static void
test_open_wrong (struct nbd *f, gconstpointer unused)
{
  static const struct { const char *uri, *says; } bad[] = {
    { "nbd:localhost:10809", "nbd://" },
    { "nbd+tcp://localhost/", "nbd://" },
    { "nbds+tls://localhost/", "nbd://" },
    { "nbds://localhost/", "tls-certificates=" },
    { "nbds+unix:///?socket=s", "tls-psk-file=" },
    { "nbds+unix:///?socket=s&tls-certificates=d", "tls-psk-file=" },
    { "nbd+unix:///?socket", "name=value" },
  };
  const struct dm_bdev_options direct = { .flags = DM_BDEV_DIRECT };
  const struct dm_bdev_options buffered = { .flags = DM_BDEV_BUFFERED };
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (bad); i++)
    open_device_refused (bad[i].uri, NULL, EINVAL, bad[i].says);
  open_device_refused (f->uri, &direct, EINVAL, "direct");
  open_device_refused (f->uri, &buffered, EINVAL, "direct");
  open_device_refused (f->uri, NULL, ENOENT, "connect");
  open_device_refused (f->uri, NULL, ENOENT, "connect");
}

/* Servers that no device can be made of. */
static void
test_open_bad_server (struct nbd *f, gconstpointer unused)
{
  struct nbd_server_options options = ordinary;
  char *error = NULL;

  options.min_block = 8192;
  options.max_block = 1 << 20;
  start_server (f, &options);
  open_device_refused (f->uri, NULL, EINVAL, "block size");
  nbd_server_accept (f->server, false);
  g_assert_null (dm_bdev_open (f->uri, NULL, &error));
  g_assert_nonnull (strstr (error, f->uri));
  free (error);
}

/* One that accepts, or not even that, and never says a word. */
static void
test_open_timeout (struct nbd *f, gconstpointer unused)
{
  const struct dm_bdev_options options = { .timeout = 1 };
  gint64 begin = g_get_monotonic_time ();
  int listener = listen_silently (f);

  open_device_refused (f->uri, &options, ETIMEDOUT, "within 1 second");
  g_assert_cmpint (g_get_monotonic_time () - begin, >=, 900000);
  g_assert_cmpint (g_get_monotonic_time () - begin, <, AT_ONCE_US);
  close (listener);
  g_assert_cmpint (g_unlink (f->socket), ==, 0);
}

/*----------------------------------------------------------------------
 * Reads and writes
 */

/* Also without structured replies. */
static void
test_read_write (struct nbd *f, gconstpointer unused)
{
  struct nbd_server_options options = ordinary;
  g_autofree unsigned char *buf = g_malloc (SIZE);
  unsigned int i;

  for (i = 0; i < 2; i++) {
    options.structured = i;
    start (f, &options);
    memset (buf, 0xaa, SIZE);
    g_assert_cmpint (run_all (f, DM_IO_READ, 0, buf), ==, 0);
    assert_same (buf, data, SIZE);
    fill (buf, SIZE, 2 + i);
    g_assert_cmpint (run_at (f, DM_IO_WRITE, 0, buf, 3, 100), ==, 0);
    assert_same (nbd_server_data (f->server) + 3 * SECTOR, buf,
                 100 * SECTOR);
    assert_same (nbd_server_data (f->server), data, 3 * SECTOR);
    assert_cover (f, SERVER_WRITE, 3 * SECTOR, 100 * SECTOR);
    stop (f);
  }
}

/* The answers come last one first. */
static void
test_out_of_order (struct nbd *f, gconstpointer unused)
{
  const unsigned int n = 16, each = SECTORS / n;
  g_autofree unsigned char *buf = g_malloc (SIZE);
  struct dm_io_request req;
  struct io_region where;
  struct done done[16];
  unsigned int i;

  start (f, &ordinary);
  nbd_server_reverse (f->server, n);
  memset (buf, 0xaa, SIZE);
  for (i = 0; i < n; i++) {
    where = part_of (f, i * each, each);
    req = vm_request (i % 4 == 3 ? DM_IO_WRITE : DM_IO_READ,
                      buf + i * each * SECTOR);
    if (req.op == DM_IO_WRITE)
      fill (req.mem.ptr.vm, each * SECTOR, i);
    req.fn = done_callback;
    req.context = &done[i];
    done_init (&done[i]);
    g_assert_cmpint (dm_io (&req, 1, &where, NULL), ==, 0);
  }
  for (i = 0; i < n; i++)
    g_assert_cmphex (done_wait (&done[i]), ==, 0);
  assert_same (nbd_server_data (f->server), buf, SIZE);
}

/* No command is longer than the server's maximum, or has a part of a
 * block of its minimum, also where the memory is in small pieces.
 */
static void
check_block_sizes (struct nbd *f, uint32_t min_block, uint32_t max_block)
{
  const size_t length = 100 * MAX (min_block, SECTOR);
  struct nbd_server_options options = ordinary;
  struct page *pages = new_pages (length / SECTOR);
  g_autofree struct bio_vec *bvec = g_new (struct bio_vec, length / SECTOR);
  struct dm_io_request req = { .op = DM_IO_WRITE };
  struct io_region where;
  size_t i;

  options.min_block = min_block;
  options.max_block = max_block;
  start (f, &options);
  g_assert_cmpuint (dm_bdev_block_size (f->bdev), ==,
                    MAX (min_block, SECTOR));
  for (i = 0; i < length / SECTOR; i++) {
    bvec[i] = (struct bio_vec) { &pages[i], SECTOR, 512 };
    fill (pages[i].data + 512, SECTOR, i);
  }
  where = part_of (f, 8, length / SECTOR);
  req.mem = (struct dm_io_memory) {
    .type = DM_IO_BVEC, .length = length, .ptr.bvec = bvec,
  };
  g_assert_cmphex (run_request (&req, 1, &where, false), ==, 0);
  assert_cover (f, SERVER_WRITE, 8 * SECTOR, length);
  for (i = 0; i < length / SECTOR; i++) {
    assert_same (nbd_server_data (f->server) + (8 + i) * SECTOR,
                 pages[i].data + 512, SECTOR);
    memset (pages[i].data + 512, 0xaa, SECTOR);
  }
  req.op = DM_IO_READ;
  g_assert_cmphex (run_request (&req, 1, &where, true), ==, 0);
  assert_cover (f, SERVER_READ, 8 * SECTOR, length);
  for (i = 0; i < length / SECTOR; i++)
    assert_same (pages[i].data + 512,
                 nbd_server_data (f->server) + (8 + i) * SECTOR, SECTOR);

  g_assert_cmpint (run_at (f, DM_IO_WRITE, 0, data, 8, length / SECTOR),
                   ==, 0);
  assert_same (nbd_server_data (f->server) + 8 * SECTOR, data, length);
  stop (f);
  free (pages);
}

static void
test_block_sizes (struct nbd *f, gconstpointer unused)
{
  static const struct { uint32_t min, max; } cases[] = {
    { 1, 512 }, { 1, 5000 }, { 1, 1 << 26 }, { 512, 512 }, { 512, 65536 },
    { 1024, 4096 }, { 2048, 1 << 25 },
  };
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (cases); i++)
    check_block_sizes (f, cases[i].min, cases[i].max);
}

/* What is no multiple of a block is refused before anything is sent. */
static void
test_minimum_block_size (struct nbd *f, gconstpointer unused)
{
  static const enum dm_io_op ops[] = {
    DM_IO_READ, DM_IO_WRITE, DM_IO_DISCARD, DM_IO_WRITE_ZEROES,
  };
  struct nbd_server_options options = ordinary;
  unsigned int i;

  options.min_block = 4096;
  options.max_block = 8192;
  start (f, &options);
  g_assert_cmpuint (dm_bdev_block_size (f->bdev), ==, 4096);
  for (i = 0; i < G_N_ELEMENTS (ops); i++) {
    g_assert_cmpint (run_at (f, ops[i], 0, data, 1, 8), ==, EINVAL);
    g_assert_cmpint (run_at (f, ops[i], 0, data, 8, 9), ==, EINVAL);
    g_assert_cmpuint (nbd_server_count (f->server, SERVER_ANY), ==, 0);
    g_assert_cmpint (run_at (f, ops[i], 0, data, 8, 16), ==, 0);
    nbd_server_clear_trace (f->server);
  }
}

/* One of many commands of a request fails: the others are done, what was
 * not read is zero, and the errno is the server's.
 */
static void
test_one_command_fails (struct nbd *f, gconstpointer unused)
{
  static const uint32_t errors[] = {
    EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW,
  };
  const size_t bad = 5 * 8192;
  struct nbd_server_options options = ordinary;
  struct nbd_server_fault fault = {
    .ops = SERVER_READ | SERVER_WRITE, .offset = bad + 512,
    .what = SERVER_SAYS_ERROR,
  };
  g_autofree unsigned char *buf = g_malloc (SIZE);
  unsigned int i;

  options.min_block = 512;
  options.max_block = 8192;
  for (i = 0; i < G_N_ELEMENTS (errors); i++) {
    options.structured = i % 2;
    start (f, &options);
    fault.error = errors[i];
    nbd_server_fault (f->server, &fault);
    fill (buf, SIZE, 7);
    g_assert_cmpint (run_all (f, DM_IO_WRITE, 0, buf), ==, errors[i]);
    assert_cover (f, SERVER_WRITE, 0, SIZE);
    memcpy (buf + bad, data + bad, 8192);
    assert_same (nbd_server_data (f->server), buf, SIZE);

    fill (buf, SIZE, 8);
    g_assert_cmpint (run_all (f, DM_IO_READ, 0, buf), ==, errors[i]);
    assert_cover (f, SERVER_READ, 0, SIZE);
    assert_zero (buf + bad, 8192);
    memcpy (buf + bad, data + bad, 8192);
    assert_same (buf, nbd_server_data (f->server), SIZE);

    /* It is the command that failed, not the connection. */
    nbd_server_clear_faults (f->server);
    g_assert_cmpint (run_all (f, DM_IO_READ, 0, buf), ==, 0);
    g_assert_cmpuint (nbd_server_connections (f->server), ==, 1);
    g_assert_cmpuint (log_lines_count ("*"), ==, 0);
    stop (f);
  }
}

/* Nor is data that the server left out taken for zeroes. */
static void
test_incomplete_read (struct nbd *f, gconstpointer unused)
{
  const struct nbd_server_fault half = {
    .ops = SERVER_READ, .times = 1, .what = SERVER_SAYS_HALF,
  };
  g_autofree unsigned char *buf = g_malloc (SIZE);

  start (f, &ordinary);
  nbd_server_fault (f->server, &half);
  memset (buf, 0xaa, SIZE);
  g_assert_cmpint (run_all (f, DM_IO_READ, 0, buf), ==, EIO);
  assert_zero (buf + SIZE / 2, SIZE / 2);
  g_assert_cmpint (run_all (f, DM_IO_READ, 0, buf), ==, 0);
  assert_same (buf, data, SIZE);
}

/* More than the device has commands for. */
static void
test_many_in_flight (struct nbd *f, gconstpointer unused)
{
  const unsigned int n = 1000;
  g_autofree struct done *done = g_new (struct done, n);
  struct io_region where;
  unsigned int i;

  start (f, &ordinary);
  nbd_server_close_gate (f->server, true);
  for (i = 0; i < n; i++) {
    where = part_of (f, i % SECTORS, 1);
    done_init (&done[i]);
    g_assert_cmpint (dm_io_async_vm (1, &where, WRITE,
                                     data + i % SECTORS * SECTOR,
                                     done_callback, &done[i]), ==, 0);
  }
  nbd_server_await (f->server, SERVER_WRITE, 1);
  for (i = 0; i < n; i++)
    g_assert_cmpuint (done_calls (&done[i]), ==, 0);
  nbd_server_close_gate (f->server, false);
  for (i = 0; i < n; i++)
    g_assert_cmphex (done_wait (&done[i]), ==, 0);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_WRITE), ==, n);
}

/*----------------------------------------------------------------------
 * Flush, FUA, preflush
 */

/* Start a request that the server does not answer, until all commands
 * that can be sent have been.
 */
static void
start_held (struct nbd *f, const struct dm_io_request *request,
            const struct io_region *where, struct done *done,
            unsigned int ops, size_t expected)
{
  struct dm_io_request req = *request;

  nbd_server_clear_trace (f->server);
  nbd_server_close_gate (f->server, true);
  done_init (done);
  req.fn = done_callback;
  req.context = done;
  g_assert_cmpint (dm_io (&req, 1, where, NULL), ==, 0);
  nbd_server_await (f->server, ops, 1);
  g_usleep (30000);             /* for what should not come */
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_ANY), <=, expected);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_ANY & ~ops), ==, 0);
  g_assert_cmpuint (done_calls (done), ==, 0);
}

static void
finish_held (struct nbd *f, struct done *done)
{
  nbd_server_close_gate (f->server, false);
  g_assert_cmphex (done_wait (done), ==, 0);
}

static void
test_flush (struct nbd *f, gconstpointer unused)
{
  const struct dm_io_request req = { .op = DM_IO_FLUSH };
  struct done done;

  start (f, &ordinary);
  start_held (f, &req, &f->where, &done, SERVER_FLUSH, 1);
  finish_held (f, &done);
  g_assert_cmpuint (only_event (f, SERVER_ANY).flags, ==, 0);
}

/* Every command of the write has it, and no flush is needed. */
static void
test_fua (struct nbd *f, gconstpointer unused)
{
  struct nbd_server_options options = ordinary;
  const struct nbd_server_event *e;
  unsigned int i;

  options.min_block = 512;
  options.max_block = SIZE / 8;
  start (f, &options);
  g_assert_cmpint (run_all (f, DM_IO_WRITE, DM_IO_FUA, data), ==, 0);
  e = nbd_server_trace (f->server, SERVER_ANY, 8);
  for (i = 0; i < 8; i++) {
    g_assert_cmpuint (e[i].op, ==, SERVER_WRITE);
    g_assert_cmphex (e[i].flags, ==, SERVER_FUA);
  }
  nbd_server_clear_trace (f->server);
  g_assert_cmpint (run_all (f, DM_IO_WRITE, 0, data), ==, 0);
  e = nbd_server_trace (f->server, SERVER_ANY, 8);
  for (i = 0; i < 8; i++)
    g_assert_cmphex (e[i].flags, ==, 0);
}

/* Without it a flush follows when all of the write has been acknowledged,
 * and only if it has.
 */
static void
test_fua_by_flush (struct nbd *f, gconstpointer unused)
{
  const struct nbd_server_fault bad_write = {
    .ops = SERVER_WRITE, .after = 7, .times = 1,
    .what = SERVER_SAYS_ERROR, .error = ENOSPC,
  };
  const struct nbd_server_fault bad_flush = {
    .ops = SERVER_FLUSH, .what = SERVER_SAYS_ERROR, .error = EIO,
  };
  struct dm_io_request req = flagged_request (DM_IO_WRITE, DM_IO_FUA, data);
  struct nbd_server_options options = ordinary;
  const struct nbd_server_event *e;
  struct done done;

  options.flags &= ~SERVER_CAN_FUA;
  options.min_block = 512;
  options.max_block = SIZE / 8;
  start (f, &options);
  start_held (f, &req, &f->where, &done, SERVER_WRITE, 8);
  finish_held (f, &done);
  e = nbd_server_trace (f->server, SERVER_ANY, 9);
  g_assert_cmpuint (e[8].op, ==, SERVER_FLUSH);

  nbd_server_clear_trace (f->server);
  nbd_server_fault (f->server, &bad_write);
  g_assert_cmpint (run_all (f, DM_IO_WRITE, DM_IO_FUA, data), ==, ENOSPC);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_FLUSH), ==, 0);
  nbd_server_clear_faults (f->server);
  nbd_server_fault (f->server, &bad_flush);
  g_assert_cmpint (run_at (f, DM_IO_WRITE_ZEROES, DM_IO_FUA, NULL, 0, 8),
                   ==, EIO);
}

/* A server without caches has no flush command. */
static void
test_no_flush (struct nbd *f, gconstpointer unused)
{
  struct nbd_server_options options = ordinary;

  options.flags &= ~(SERVER_CAN_FUA | SERVER_CAN_FLUSH);
  start (f, &options);
  log_lines_assert ("*no flush*", 1);
  g_assert_cmpint (run_all (f, DM_IO_WRITE, DM_IO_FUA | DM_IO_PREFLUSH,
                            data), ==, 0);
  g_assert_cmpint (run_all (f, DM_IO_FLUSH, 0, NULL), ==, 0);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_FLUSH), ==, 0);
}

/* The flush has ended before anything is written, and if it failed
 * nothing is.
 */
static void
test_preflush (struct nbd *f, gconstpointer unused)
{
  const struct nbd_server_fault bad_flush = {
    .ops = SERVER_FLUSH, .what = SERVER_SAYS_ERROR, .error = ENOSPC,
  };
  struct dm_io_request req =
    flagged_request (DM_IO_WRITE, DM_IO_PREFLUSH, data);
  struct done done;

  start (f, &ordinary);
  start_held (f, &req, &f->where, &done, SERVER_FLUSH, 1);
  finish_held (f, &done);
  g_assert_cmpuint (nbd_server_trace (f->server, SERVER_ANY, 2)[1].op, ==,
                    SERVER_WRITE);

  nbd_server_clear_trace (f->server);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, DM_IO_PREFLUSH, data, 0, 0),
                   ==, 0);
  g_assert_cmpuint (only_event (f, SERVER_ANY).op, ==, SERVER_FLUSH);

  nbd_server_clear_trace (f->server);
  nbd_server_fault (f->server, &bad_flush);
  g_assert_cmpint (run_all (f, DM_IO_WRITE, DM_IO_PREFLUSH, data), ==,
                   ENOSPC);
  g_assert_cmpuint (only_event (f, SERVER_ANY).op, ==, SERVER_FLUSH);
}

/*----------------------------------------------------------------------
 * Zeroes, extents, prefetch
 */

static void
test_zeroes (struct nbd *f, gconstpointer unused)
{
  static const struct {
    enum dm_io_op op;
    unsigned int flags, sent;
  } cases[] = {
    { DM_IO_WRITE_ZEROES, 0, 0 },
    { DM_IO_WRITE_ZEROES, DM_IO_NO_UNMAP, SERVER_NO_HOLE },
    { DM_IO_WRITE_ZEROES, DM_IO_FUA, SERVER_FUA },
    { DM_IO_WRITE_ZEROES, DM_IO_NO_UNMAP | DM_IO_FUA,
      SERVER_NO_HOLE | SERVER_FUA },
    { DM_IO_DISCARD, 0, 0 },
    { DM_IO_DISCARD, DM_IO_FUA, SERVER_FUA },
  };
  struct nbd_server_options options = ordinary;
  struct nbd_server_event event;
  unsigned int i;

  options.min_block = 512;
  options.max_block = 1024;     /* of reads and writes only */
  start (f, &options);
  g_assert_true (bdev_can_punch (f->bdev));
  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    memcpy (nbd_server_data (f->server), data, SIZE);
    nbd_server_clear_trace (f->server);
    g_assert_cmpint (run_at (f, cases[i].op, cases[i].flags, NULL, 3, 200),
                     ==, 0);
    event = only_event (f, SERVER_ANY);
    g_assert_cmpuint (event.op, ==, SERVER_ZERO);
    g_assert_cmphex (event.flags, ==, cases[i].sent);
    assert_same (nbd_server_data (f->server), data, 3 * SECTOR);
    assert_zero (nbd_server_data (f->server) + 3 * SECTOR, 200 * SECTOR);
    assert_same (nbd_server_data (f->server) + 203 * SECTOR,
                 data + 203 * SECTOR, SIZE - 203 * SECTOR);
  }
}

/* Where zeroing is slow or not possible, nothing is discarded; zeroes are
 * written if nothing else helps.  Trim does not say what it leaves.
 */
static void
test_zeroes_by_hand (struct nbd *f, gconstpointer unused)
{
  static const unsigned int lacking[] = {
    SERVER_CAN_FAST_ZERO, SERVER_CAN_ZERO | SERVER_CAN_FAST_ZERO,
  };
  struct nbd_server_options options = ordinary;
  unsigned int i, op;

  options.min_block = 512;
  options.max_block = 8192;
  for (i = 0; i < G_N_ELEMENTS (lacking); i++) {
    options.flags = ordinary.flags & ~lacking[i];
    start (f, &options);
    g_assert_false (bdev_can_punch (f->bdev));
    g_assert_cmpint (run_all (f, DM_IO_DISCARD, 0, NULL), ==, 0);
    g_assert_cmpuint (nbd_server_count (f->server, SERVER_ANY), ==, 0);
    assert_same (nbd_server_data (f->server), data, SIZE);

    op = i ? SERVER_WRITE : SERVER_ZERO;
    g_assert_cmpint (run_at (f, DM_IO_WRITE_ZEROES, 0, NULL, 3, 200), ==, 0);
    assert_cover (f, op, 3 * SECTOR, 200 * SECTOR);
    g_assert_cmpuint (nbd_server_count (f->server, SERVER_ANY & ~op), ==, 0);
    assert_same (nbd_server_data (f->server), data, 3 * SECTOR);
    assert_zero (nbd_server_data (f->server) + 3 * SECTOR, 200 * SECTOR);
    assert_same (nbd_server_data (f->server) + 203 * SECTOR,
                 data + 203 * SECTOR, SIZE - 203 * SECTOR);
    stop (f);
  }
}

/* Look at all of the export in steps of LENGTH, with MAX extents each, and
 * note what is said of each sector: bit 0 hole, bit 1 zero.
 */
static void
walk_extents (struct nbd *f, uint64_t length, int max, unsigned char *said)
{
  g_autofree struct bdev_extent *extents = g_new (struct bdev_extent, max);
  uint64_t offset = 0, most, sum;
  int n, i;

  while (offset < SIZE) {
    most = MIN (length, SIZE - offset);
    n = bdev_extents (f->bdev, offset, most, extents, max);
    g_assert_cmpint (n, >=, 1);
    g_assert_cmpint (n, <=, max);
    for (i = 0, sum = 0; i < n; i++) {
      g_assert_cmpuint (extents[i].length, >, 0);
      g_assert_cmpuint (extents[i].length % SECTOR, ==, 0);
      memset (said + (offset + sum) / SECTOR,
              extents[i].hole | extents[i].zero << 1,
              extents[i].length / SECTOR);
      sum += extents[i].length;
    }
    g_assert_cmpuint (sum, <=, most);
    offset += sum;
  }
}

/* A sector is what all of it is, or else data. */
static void
expected_extents (const struct nbd_server_extent *e, unsigned char *expected)
{
  uint64_t begin = 0, end, s;
  unsigned int flags;

  memset (expected, 3, SECTORS);
  for (; e->length > 0; e++, begin = end) {
    end = begin + e->length;
    flags = (e->flags & 1) | (e->flags & 2);
    for (s = begin / SECTOR; s * SECTOR < end; s++)
      if (s * SECTOR >= begin && (s + 1) * SECTOR <= end)
        expected[s] = flags;
      else
        expected[s] = 0;
  }
}

static void
test_extents (struct nbd *f, gconstpointer unused)
{
  static const struct nbd_server_extent aligned[] = {
    { 8 * SECTOR, 0 }, { 100 * SECTOR, 3 }, { SECTOR, 0 },
    { 50 * SECTOR, 2 }, { 53 * SECTOR, 1 }, { 300 * SECTOR, 3 }, { 0, 0 },
  };
  static const struct nbd_server_extent odd[] = {
    { 100, 0 }, { 8 * SECTOR, 3 }, { 1000, 0 }, { 200, 3 }, { 10, 0 },
    { 60 * SECTOR - 1310, 3 }, { 5, 0 }, { 444 * SECTOR - 5, 3 }, { 0, 0 },
  };
  static const uint64_t lengths[] = { SIZE, 7 * SECTOR, SECTOR };
  static const int maxima[] = { 1, 2, 100 };
  unsigned char said[SECTORS], expected[SECTORS];
  unsigned int i, j;

  start (f, &ordinary);
  for (i = 0; i < G_N_ELEMENTS (lengths); i++)
    for (j = 0; j < G_N_ELEMENTS (maxima); j++) {
      nbd_server_set_extents (f->server, aligned);
      expected_extents (aligned, expected);
      walk_extents (f, lengths[i], maxima[j], said);
      assert_same (said, expected, SECTORS);
      nbd_server_set_extents (f->server, odd);
      expected_extents (odd, expected);
      walk_extents (f, lengths[i], maxima[j], said);
      assert_same (said, expected, SECTORS);
      nbd_server_clear_trace (f->server);
    }
}

/* One that is asked for is all that is asked for. */
static void
test_one_extent (struct nbd *f, gconstpointer unused)
{
  static const struct nbd_server_extent extents[] = {
    { SIZE / 2, 3 }, { SIZE / 2, 0 }, { 0, 0 },
  };
  const struct nbd_server_fault fault = {
    .ops = SERVER_STATUS, .what = SERVER_SAYS_ERROR, .error = EIO,
  };
  struct nbd_server_options options = ordinary;
  struct bdev_extent extent[3];

  start (f, &options);
  nbd_server_set_extents (f->server, extents);
  g_assert_cmpint (bdev_extents (f->bdev, SECTOR, SIZE / 2, extent, 1),
                   ==, 1);
  g_assert_cmpuint (extent[0].length, ==, SIZE / 2 - SECTOR);
  g_assert_true (extent[0].hole && extent[0].zero);
  g_assert_cmphex (only_event (f, SERVER_ANY).flags, ==, SERVER_REQ_ONE);
  nbd_server_clear_trace (f->server);
  g_assert_cmpint (bdev_extents (f->bdev, SECTOR, SIZE / 2, extent, 3),
                   ==, 2);
  g_assert_cmpuint (extent[1].length, ==, SECTOR);
  g_assert_false (extent[1].hole || extent[1].zero);
  g_assert_cmphex (only_event (f, SERVER_ANY).flags, ==, 0);
  nbd_server_fault (f->server, &fault);
  g_assert_cmpint (bdev_extents (f->bdev, 0, SIZE, extent, 3), ==, -EIO);
  stop (f);

  options.structured = false;
  start (f, &options);
  g_assert_cmpint (bdev_extents (f->bdev, SECTOR, SIZE / 2, extent, 3),
                   ==, 1);
  g_assert_cmpuint (extent[0].length, ==, SIZE / 2);
  g_assert_false (extent[0].hole || extent[0].zero);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_ANY), ==, 0);
}

static void
test_prefetch (struct nbd *f, gconstpointer unused)
{
  struct nbd_server_options options = ordinary;
  struct nbd_server_event event;

  start (f, &options);
  g_assert_cmpint (bdev_prefetch (f->bdev, 3 * SECTOR, 5 * SECTOR), ==, 0);
  event = only_event (f, SERVER_ANY);
  g_assert_cmpuint (event.op, ==, SERVER_CACHE);
  g_assert_cmpuint (event.offset, ==, 3 * SECTOR);
  g_assert_cmpuint (event.length, ==, 5 * SECTOR);
  stop (f);
  options.flags &= ~SERVER_CAN_CACHE;
  start (f, &options);
  g_assert_cmpint (bdev_prefetch (f->bdev, 3 * SECTOR, 5 * SECTOR), ==, 0);
  g_assert_cmpuint (nbd_server_count (f->server, SERVER_ANY), ==, 0);
}

/*----------------------------------------------------------------------
 * Several connections
 */

/* How many connections had commands. */
static unsigned int
count_used (struct nbd *f)
{
  const size_t n = nbd_server_count (f->server, SERVER_ANY);
  const struct nbd_server_event *e =
    nbd_server_trace (f->server, SERVER_ANY, n);
  bool used[256] = { false };
  unsigned int sum = 0;
  size_t i;

  for (i = 0; i < n; i++) {
    sum += !used[e[i].connection];
    used[e[i].connection] = true;
  }
  return sum;
}

/* Requests at the same time go over all of them, if the server says that
 * a flush on one is for all; else there is one.
 */
static void
test_multi_conn (struct nbd *f, gconstpointer unused)
{
  struct nbd_server_options options = ordinary;
  struct io_region where;
  struct done done[64];
  unsigned int several, i, j;

  for (several = 0; several < 2; several++) {
    options.flags = ordinary.flags | (several ? SERVER_CAN_MULTI_CONN : 0);
    start (f, &options);
    if (several)
      g_assert_cmpuint (nbd_server_connections (f->server), >, 1);
    else
      g_assert_cmpuint (nbd_server_connections (f->server), ==, 1);
    nbd_server_close_gate (f->server, true);
    for (i = 0; i < 64; i++) {
      where = part_of (f, i * 8, 8);
      done_init (&done[i]);
      g_assert_cmpint (dm_io_async_vm (1, &where, WRITE, data,
                                       done_callback, &done[i]), ==, 0);
    }
    nbd_server_await (f->server, SERVER_WRITE,
                      nbd_server_connections (f->server));
    nbd_server_close_gate (f->server, false);
    for (j = 0; j < 64; j++)
      g_assert_cmphex (done_wait (&done[j]), ==, 0);
    g_assert_cmpuint (count_used (f), ==,
                      nbd_server_connections (f->server));
    stop (f);
  }
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  log_lines_keep ();
  add_nbd_test ("/nbd/open", test_open);
  add_nbd_test ("/nbd/open-wrong", test_open_wrong);
  add_nbd_test ("/nbd/open-bad-server", test_open_bad_server);
  add_nbd_test ("/nbd/open-timeout", test_open_timeout);
  add_nbd_test ("/nbd/read-write", test_read_write);
  add_nbd_test ("/nbd/out-of-order", test_out_of_order);
  add_nbd_test ("/nbd/block-sizes", test_block_sizes);
  add_nbd_test ("/nbd/minimum-block-size", test_minimum_block_size);
  add_nbd_test ("/nbd/one-command-fails", test_one_command_fails);
  add_nbd_test ("/nbd/incomplete-read", test_incomplete_read);
  add_nbd_test ("/nbd/many-in-flight", test_many_in_flight);
  add_nbd_test ("/nbd/flush", test_flush);
  add_nbd_test ("/nbd/fua", test_fua);
  add_nbd_test ("/nbd/fua-by-flush", test_fua_by_flush);
  add_nbd_test ("/nbd/no-flush", test_no_flush);
  add_nbd_test ("/nbd/preflush", test_preflush);
  add_nbd_test ("/nbd/zeroes", test_zeroes);
  add_nbd_test ("/nbd/zeroes-by-hand", test_zeroes_by_hand);
  add_nbd_test ("/nbd/extents", test_extents);
  add_nbd_test ("/nbd/one-extent", test_one_extent);
  add_nbd_test ("/nbd/prefetch", test_prefetch);
  add_nbd_test ("/nbd/multi-conn", test_multi_conn);
  return g_test_run ();
}
