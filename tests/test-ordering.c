/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What reaches the devices, when, and what survives a power cut.
 *
 * O1 flush, O2 FUA and preflush; and that regions that wait for their
 * devices do so at the same time.
 */

#include <config.h>

#include "test-util.h"

#define SECTORS 64
#define SIZE (SECTORS * SECTOR)
#define SEEDS 20                /* power cuts that are tried */

static const struct mock_options plain;
static const struct mock_options waits = { .always_waits = true };

static unsigned char data[SIZE];

static void
assert_no_overlap (const struct mock_event *a, const struct mock_event *b)
{
  g_assert_cmpuint (a->end, !=, 0);
  g_assert_cmpuint (a->end, <, b->begin);
}

/*----------------------------------------------------------------------
 * O1
 */

static void
test_o1_flush_once (void)
{
  struct io_region where[3];
  unsigned int i, async;

  open_mocks (where, 3, SECTORS, &plain);
  where[1].count = 0;
  where[2].sector = UINT64_MAX; /* does not matter */
  for (async = 0; async < 2; async++) {
    run_ok (data, DM_IO_FLUSH, 0, 3, where, async);
    for (i = 0; i < 3; i++) {
      g_assert_cmpint (trace_of (&where[i], 1)->op, ==, MOCK_FLUSH);
      mock_clear_trace (where[i].bdev);
    }
  }
  close_mocks (where, 3);
}

static void
test_o1_flush_fails (void)
{
  const struct mock_fault eio = { .ops = MOCK_FLUSH, .error = EIO };
  struct dm_io_result results[3];
  struct dm_io_request req = flagged_request (DM_IO_FLUSH, 0, data);
  struct io_region where[3];
  unsigned int i, async;

  req.results = results;
  open_mocks (where, 3, SECTORS, &plain);
  mock_fault (where[1].bdev, &eio);
  for (async = 0; async < 2; async++) {
    memset (results, 0xff, sizeof results);
    g_assert_cmphex (run_request (&req, 3, where, async), ==, 1 << 1);
    for (i = 0; i < 3; i++) {
      g_assert_cmpint (results[i].error, ==, i == 1 ? EIO : 0);
      g_assert_cmpuint (mock_count (where[i].bdev, MOCK_FLUSH), ==,
                        async + 1);
    }
  }
  close_mocks (where, 3);
}

/* What completed before the flush is durable when the flush completes,
 * and the mock does lose what was not.
 */
static void
test_o1_flush_is_durable (void)
{
  struct io_region where[2];
  unsigned int lost = 0, i;

  for (i = 0; i < SEEDS; i++) {
    open_mocks (where, 2, SECTORS, &plain);
    fill (data, SIZE, i);
    run_ok (data, DM_IO_WRITE, 0, 2, where, false);
    run_ok (data, DM_IO_FLUSH, 0, 1, where, false);
    mock_power_cut (where[0].bdev, i);
    mock_power_cut (where[1].bdev, i);
    assert_same (mock_data (where[0].bdev), data, SIZE);
    lost += memcmp (mock_data (where[1].bdev), data, SIZE) != 0;
    close_mocks (where, 2);
  }
  g_assert_cmpuint (lost, >, SEEDS / 2);
}

/* A flush that failed may have lost anything, and is not forgotten: no
 * later one succeeds, nor what needs one.
 */
static void
test_o1_failed_flush_is_remembered (void)
{
  static const struct {
    enum dm_io_op op;
    unsigned int flags;
    unsigned long bits;
  } cases[] = {
    { DM_IO_FLUSH, 0, 1 }, { DM_IO_FLUSH, 0, 1 }, { DM_IO_WRITE, 0, 0 },
    { DM_IO_READ, 0, 0 }, { DM_IO_WRITE, DM_IO_PREFLUSH, 1 },
    { DM_IO_WRITE, DM_IO_FUA, 1 }, { DM_IO_WRITE_ZEROES, DM_IO_FUA, 1 },
    { DM_IO_WRITE_ZEROES, 0, 0 }, { DM_IO_DISCARD, DM_IO_FUA, 1 },
    { DM_IO_FLUSH, 0, 1 },
  };
  const struct mock_options options = {
    .fua_by_flush = true, .can_punch = true
  };
  const struct mock_fault once = {
    .ops = MOCK_FLUSH, .times = 1, .error = EDQUOT
  };
  struct dm_io_result results[2];
  struct dm_io_request req;
  struct io_region where[2];
  unsigned int i;

  open_mocks (where, 2, SECTORS, &options);
  mock_fault (where[0].bdev, &once);
  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    req = flagged_request (cases[i].op, cases[i].flags, data);
    req.results = results;
    g_assert_cmphex (run_request (&req, req.op == DM_IO_READ ? 1 : 2, where,
                                  i % 2), ==, cases[i].bits);
    g_assert_cmpint (results[0].error, ==, cases[i].bits ? EDQUOT : 0);
  }
  close_mocks (where, 2);
}

/* Flushes that come while one is under way. */
#define FLUSHERS 30

struct flushers {
  struct io_region where;
  struct mock_gate gate;
  struct done first, rest[FLUSHERS];
};

static void
submit_flush (struct flushers *f, struct done *done)
{
  struct dm_io_request req = flagged_request (DM_IO_FLUSH, 0, data);

  done_init (done);
  req.fn = done_callback;
  req.context = done;
  g_assert_cmpint (dm_io (&req, 1, &f->where, NULL), ==, 0);
}

/* The first flush is held by the device, and ends with ERROR; meanwhile
 * a write completes and others flush.
 */
static void
run_flushers (struct flushers *f, int error)
{
  const struct mock_fault hold = {
    .ops = MOCK_FLUSH, .times = 1, .gate = &f->gate, .error = error
  };
  unsigned int i;

  f->gate = (struct mock_gate) MOCK_GATE_INIT (0);
  open_mocks (&f->where, 1, SECTORS, &plain);
  mock_fault (f->where.bdev, &hold);
  submit_flush (f, &f->first);
  mock_gate_await (&f->gate, 1);
  run_ok (data, DM_IO_WRITE, 0, 1, &f->where, false);
  for (i = 0; i < FLUSHERS; i++)
    submit_flush (f, &f->rest[i]);
  g_usleep (10000);             /* that more of them wait together */
  for (i = 0; i < FLUSHERS; i++)
    g_assert_cmpuint (done_calls (&f->rest[i]), ==, 0);
  mock_gate_open (&f->gate);
  g_assert_cmphex (done_wait (&f->first), ==, error != 0);
  for (i = 0; i < FLUSHERS; i++)
    g_assert_cmphex (done_wait (&f->rest[i]), ==, error != 0);
}

/* Those that wait share a flush, which begins after the write that they
 * are for.
 */
static void
test_o1_flushes_share (void)
{
  unsigned int round, shared = 0;
  struct flushers f;

  for (round = 0; round < 50 && shared == 0; round++) {
    fill (data, SIZE, round);
    run_flushers (&f, 0);
    shared = mock_count (f.where.bdev, MOCK_FLUSH) < 2 + FLUSHERS / 2;
    mock_power_cut (f.where.bdev, round);
    assert_same (mock_data (f.where.bdev), data, SIZE);
    close_mocks (&f.where, 1);
  }
  g_assert_true (shared);
}

/* All of them learn that the first one failed. */
static void
test_o1_flushes_share_failure (void)
{
  struct flushers f;

  run_flushers (&f, EIO);
  close_mocks (&f.where, 1);
}

/*----------------------------------------------------------------------
 * O2
 */

/* Also the parts of a write that the device did not take at once. */
static void
test_o2_fua_is_durable (void)
{
  const struct mock_fault shorter = {
    .ops = MOCK_WRITE, .shorten = true, .transfer = 777,
  };
  const struct mock_options aligned = { .mem_align = PAGE };
  const struct mock_options by_flush = { .fua_by_flush = true };
  struct io_region where[4];
  unsigned int i, j, async;

  for (i = 0; i < SEEDS; i++)
    for (async = 0; async < 2; async++) {
      open_mocks (&where[0], 1, SECTORS, &plain);
      open_mocks (&where[1], 1, SECTORS, &waits);
      open_mocks (&where[2], 1, SECTORS, &aligned);
      open_mocks (&where[3], 1, SECTORS, &by_flush);
      mock_fault (where[1].bdev, &shorter);
      mock_fault (where[3].bdev, &shorter);
      fill (data, SIZE, i);
      run_ok (data, DM_IO_WRITE, DM_IO_FUA, 4, where, async);
      for (j = 0; j < 4; j++) {
        mock_power_cut (where[j].bdev, i);
        assert_same (mock_data (where[j].bdev), data, SIZE);
      }
      close_mocks (where, 4);
    }
}

/* FUA is about its own data only: earlier writes stay in the cache. */
static void
test_o2_no_needless_flush (void)
{
  struct io_region where[2];
  unsigned int i;

  open_mocks (where, 2, SECTORS, &plain);
  run_ok (data, DM_IO_WRITE, 0, 2, where, false);
  run_ok (data, DM_IO_WRITE, DM_IO_FUA, 2, where, false);
  run_ok (data, DM_IO_READ, 0, 1, where, false);
  for (i = 0; i < 2; i++)
    g_assert_cmpuint (mock_count (where[i].bdev, MOCK_FLUSH), ==, 0);
  g_assert_false (trace_of (&where[1], 2)[0].fua);
  g_assert_true (trace_of (&where[1], 2)[1].fua);
  close_mocks (where, 2);
}

/* FUA of the operations without data. */
static void
test_o2_fua_zeroes (void)
{
  static const struct { enum dm_io_op op; unsigned int flags; } cases[] = {
    { DM_IO_DISCARD, DM_IO_FUA },
    { DM_IO_WRITE_ZEROES, DM_IO_FUA },
    { DM_IO_WRITE_ZEROES, DM_IO_FUA | DM_IO_NO_UNMAP },
  };
  static const struct mock_options options[] = {
    { .can_punch = true }, { .can_punch = true, .can_zero = true },
    { .lies_about_punch = true }, { .lies_about_punch = true,
                                    .can_zero = true },
  };
  struct io_region where[4];
  unsigned int i, j, seed;

  for (seed = 0; seed < SEEDS; seed++)
    for (i = 0; i < G_N_ELEMENTS (cases); i++) {
      fill (data, SIZE, seed + 1);
      for (j = 0; j < 4; j++) {
        open_mocks (&where[j], 1, SECTORS, &options[j]);
        mock_set (where[j].bdev, 0, data, SIZE);
      }
      run_ok (data, cases[i].op, cases[i].flags, 4, where, seed % 2);
      for (j = 0; j < 4; j++) {
        mock_power_cut (where[j].bdev, seed);
        assert_zero (mock_data (where[j].bdev), SIZE);
      }
      close_mocks (where, 4);
    }
}

/* Each region is flushed before it is written, and completely; also
 * those where nothing is written.
 */
static void
test_o2_preflush (void)
{
  const struct mock_fault slow = { .ops = MOCK_FLUSH, .msec = 5 };
  const struct mock_event *trace;
  struct io_region where[4];
  unsigned int i, j;

  for (i = 0; i < 4; i++) {           /* async, FUA */
    open_mocks (where, 4, SECTORS, &plain);
    where[2].count = where[3].count = 0;
    where[3].sector = SECTORS + 1;
    for (j = 0; j < 4; j++)
      mock_fault (where[j].bdev, &slow);
    run_ok (data, DM_IO_WRITE,
            DM_IO_PREFLUSH | (i & 1 ? DM_IO_FUA : 0), 4, where,
            i & 2);
    for (j = 0; j < 2; j++) {
      trace = trace_of (&where[j], 2);
      g_assert_cmpint (trace[0].op, ==, MOCK_FLUSH);
      g_assert_cmpint (trace[1].op, ==, MOCK_WRITE);
      g_assert_cmpint (trace[1].fua, ==, i & 1);
      assert_no_overlap (&trace[0], &trace[1]);
    }
    for (j = 2; j < 4; j++)
      g_assert_cmpint (trace_of (&where[j], 1)->op, ==, MOCK_FLUSH);
    close_mocks (where, 4);
  }
}

static void
test_o2_preflush_only (void)
{
  struct io_region where[2];
  unsigned int i, async;

  for (async = 0; async < 2; async++) {
    open_mocks (where, 2, SECTORS, &plain);
    fill (data, SIZE, 3);
    run_ok (data, DM_IO_WRITE, 0, 2, where, async);
    where[0].count = where[1].count = 0;
    run_ok (data, DM_IO_WRITE, DM_IO_PREFLUSH, 2, where, async);
    for (i = 0; i < 2; i++) {
      mock_power_cut (where[i].bdev, i);
      assert_same (mock_data (where[i].bdev), data, SIZE);
    }
    close_mocks (where, 2);
  }
}

/* What must not be durable before older data is not written at all when
 * that cannot be made durable.
 */
static void
test_o2_preflush_fails (void)
{
  const struct mock_fault eio = { .ops = MOCK_FLUSH, .error = EIO };
  struct dm_io_request req =
    flagged_request (DM_IO_WRITE, DM_IO_PREFLUSH, data);
  struct io_region where[3];
  unsigned int async;

  for (async = 0; async < 2; async++) {
    open_mocks (where, 3, SECTORS, &plain);
    where[2].count = 0;
    mock_fault (where[1].bdev, &eio);
    mock_fault (where[2].bdev, &eio);
    fill (data, SIZE, 4);
    g_assert_cmphex (run_request (&req, 3, where, async), ==, 1 << 1 | 1 << 2);
    assert_same (mock_data (where[0].bdev), data, SIZE);
    g_assert_cmpuint (mock_count (where[1].bdev, MOCK_WRITE), ==, 0);
    close_mocks (where, 3);
  }
}

/*----------------------------------------------------------------------
 * At the same time
 */

/* The devices meet at a gate that opens when all are there: one after
 * another, they would wait for ever.
 */
static void
check_meeting (enum dm_io_op op, unsigned int flags,
               const struct mock_options *options, unsigned int n,
               bool async)
{
  struct mock_gate gate = MOCK_GATE_INIT (n);
  const struct mock_fault meet = { .ops = MOCK_ANY, .gate = &gate };
  struct io_region where[DM_IO_MAX_REGIONS] = { 0 };
  const struct mock_event *a, *b;
  unsigned int i, j;
  size_t len;

  open_mocks (where, n, SECTORS, options);
  for (i = 0; i < n; i++)
    mock_fault (where[i].bdev, &meet);
  run_ok (data, op, flags, n, where, async);
  for (i = 0; i < n; i++)
    for (j = 0; j < n; j++) {
      a = &mock_trace (where[i].bdev, &len)[0];
      b = &mock_trace (where[j].bdev, &len)[0];
      g_assert_cmpuint (a->begin, <, b->end);
    }
  close_mocks (where, n);
}

static void
test_regions_wait_together (void)
{
  const struct mock_options able = { .can_punch = true, .can_zero = true };
  unsigned int async;

  for (async = 0; async < 2; async++) {
    check_meeting (DM_IO_WRITE, 0, &waits, 3, async);
    check_meeting (DM_IO_WRITE, 0, &waits, DM_IO_MAX_REGIONS, async);
    check_meeting (DM_IO_WRITE, DM_IO_FUA, &plain, 3, async);
    check_meeting (DM_IO_FLUSH, 0, &plain, 3, async);
    check_meeting (DM_IO_DISCARD, 0, &able, 3, async);
    check_meeting (DM_IO_WRITE_ZEROES, 0, &able, 3, async);
    check_meeting (DM_IO_WRITE_ZEROES, 0, &plain, 3, async);
  }
}

/* Those that wait do not keep the one back that does not. */
struct call {
  struct io_region *where;
  bool async;
};

static void *
write_three (void *context)
{
  const struct call *call = context;

  run_ok (data, DM_IO_WRITE, 0, 3, call->where, call->async);
  return NULL;
}

static void
check_copy_does_not_wait (unsigned int copy, bool async)
{
  struct mock_gate held = MOCK_GATE_INIT (0), passed = MOCK_GATE_INIT (1);
  const struct mock_fault hold = { .ops = MOCK_WRITE, .gate = &held };
  const struct mock_fault pass = { .ops = MOCK_WRITE, .gate = &passed };
  struct io_region where[3];
  struct call call = { where, async };
  pthread_t thread;
  unsigned int i;

  for (i = 0; i < 3; i++) {
    open_mocks (&where[i], 1, SECTORS, i == copy ? &plain : &waits);
    mock_fault (where[i].bdev, i == copy ? &pass : &hold);
  }
  g_assert_cmpint (pthread_create (&thread, NULL, write_three, &call), ==, 0);
  mock_gate_await (&held, 2);
  mock_gate_await (&passed, 1);
  mock_gate_open (&held);
  pthread_join (thread, NULL);
  close_mocks (where, 3);
}

static void
test_copies_do_not_wait (void)
{
  unsigned int copy;

  for (copy = 0; copy < 3; copy++) {
    check_copy_does_not_wait (copy, false);
    check_copy_does_not_wait (copy, true);
  }
}

/* A device that turns out slow is waited for beside the others, and no
 * longer when it has become quick again.
 */
static void
test_slow_device_is_noticed (void)
{
  const struct mock_fault slow = { .ops = MOCK_WRITE, .msec = 30 };
  struct io_region where[1];
  struct bdev_io io;
  unsigned int i;

  open_mocks (where, 1, SECTORS, &plain);
  io = (struct bdev_io) {
    .bdev = where[0].bdev, .op = DM_IO_WRITE, .length = SECTOR,
  };
  g_assert_cmpint (bdev_way (&io), ==, BDEV_COPY);
  mock_fault (where[0].bdev, &slow);
  for (i = 0; i < 20 && bdev_way (&io) == BDEV_COPY; i++)
    run_ok (data, DM_IO_WRITE, 0, 1, where, false);
  g_assert_cmpint (bdev_way (&io), ==, BDEV_WAIT);
  mock_clear_faults (where[0].bdev);
  for (i = 0; i < 1000 && bdev_way (&io) == BDEV_WAIT; i++)
    run_ok (data, DM_IO_WRITE, 0, 1, where, false);
  g_assert_cmpint (bdev_way (&io), ==, BDEV_COPY);
  close_mocks (where, 1);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  g_test_add_func ("/ordering/o1-flush-once", test_o1_flush_once);
  g_test_add_func ("/ordering/o1-flush-fails", test_o1_flush_fails);
  g_test_add_func ("/ordering/o1-flush-is-durable",
                   test_o1_flush_is_durable);
  g_test_add_func ("/ordering/o1-failed-flush-is-remembered",
                   test_o1_failed_flush_is_remembered);
  g_test_add_func ("/ordering/o1-flushes-share", test_o1_flushes_share);
  g_test_add_func ("/ordering/o1-flushes-share-failure",
                   test_o1_flushes_share_failure);
  g_test_add_func ("/ordering/o2-fua-is-durable", test_o2_fua_is_durable);
  g_test_add_func ("/ordering/o2-no-needless-flush",
                   test_o2_no_needless_flush);
  g_test_add_func ("/ordering/o2-fua-zeroes", test_o2_fua_zeroes);
  g_test_add_func ("/ordering/o2-preflush", test_o2_preflush);
  g_test_add_func ("/ordering/o2-preflush-only", test_o2_preflush_only);
  g_test_add_func ("/ordering/o2-preflush-fails", test_o2_preflush_fails);
  g_test_add_func ("/ordering/regions-wait-together",
                   test_regions_wait_together);
  g_test_add_func ("/ordering/copies-do-not-wait", test_copies_do_not_wait);
  g_test_add_func ("/ordering/slow-device-is-noticed",
                   test_slow_device_is_noticed);
  return g_test_run ();
}
