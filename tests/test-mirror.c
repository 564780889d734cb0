/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The mirror in its first form, which remembers nothing: all legs get
 * every write and all must have it; the choice of the leg to read; W4
 * (the last leg in sync stays), W5 and R13 (writes in flight that overlap
 * have one order), W6 (a failed flush); and what is logged.
 */

#include <config.h>

#include "failure-log.h"
#include "mirror-fixture.h"

#define SECTORS 64

/* Without a log nothing is remembered of it. */
static struct dm_mirror_client client;

static void
set_up (struct fixture *f, gconstpointer unused)
{
  static const struct mock_options plain = { 0 };

  open_mirror (f, SECTORS, DM_MIRROR_READ_FIRST, 0, &plain);
}

static bool
write_byte (struct fixture *f, int byte, sector_t sector, sector_t count,
            unsigned int flags)
{
  unsigned char buf[SECTORS * SECTOR];

  memset (buf, byte, count * SECTOR);
  return dm_mirror_write (f->mirror, DM_IO_WRITE, flags, buf,
                          sector, count, f->results);
}

/* Read a sector, and return its byte, or -1. */
static int
read_byte (struct fixture *f, sector_t sector)
{
  unsigned char buf[SECTOR];

  if (!dm_mirror_read (f->mirror, buf, sector, 1, f->results))
    return -1;
  assert_same (buf, buf + 1, SECTOR - 1);
  return buf[0];
}

static void
assert_leg (struct fixture *f, unsigned int leg, sector_t sector, int byte)
{
  g_assert_cmpint (mock_data (f->where[leg].bdev)[sector * SECTOR], ==, byte);
}

/* One write goes to all legs, one read to the first. */
static void
test_all_well (struct fixture *f, gconstpointer unused)
{
  unsigned int i;

  g_assert_true (write_byte (f, 7, 2, 3, 0));
  for (i = 0; i < LEGS; i++) {
    assert_leg (f, i, 1, 0);
    assert_leg (f, i, 2, 7);
    assert_leg (f, i, 4, 7);
    assert_leg (f, i, 5, 0);
  }
  g_assert_cmpint (read_byte (f, 2), ==, 7);
  g_assert_cmpuint (mock_count (f->where[0].bdev, MOCK_READ), ==, 1);
  g_assert_cmpuint (mock_count (f->where[1].bdev, MOCK_READ), ==, 0);
  g_assert_true (dm_mirror_flush (f->mirror, &client, f->results));
  for (i = 0; i < LEGS; i++)
    g_assert_cmpuint (mock_count (f->where[i].bdev, MOCK_FLUSH), ==, 1);
}

/* Each leg in turn misses a write: the request fails, the others have
 * the data, and the leg is never read again, but still written.
 */
static void
test_missed_write (struct fixture *f, gconstpointer leg_pointer)
{
  unsigned int leg = GPOINTER_TO_UINT (leg_pointer), i;

  fail_leg (f, leg, MOCK_WRITE, ENOSPC);
  expect ("region * failed: No space left on device; it is now out of sync");
  expect ("region * is now out of sync*2 of 3 regions in sync");
  g_assert_false (write_byte (f, 9, 5, 1, 0));
  for (i = 0; i < LEGS; i++) {
    g_assert_cmpint (f->results[i].error, ==, i == leg ? ENOSPC : 0);
    assert_leg (f, i, 5, i == leg ? 0 : 9);
  }
  g_assert_cmpint (read_byte (f, 5), ==, 9);

  mock_clear_faults (f->where[leg].bdev);
  g_assert_true (write_byte (f, 11, 6, 1, 0));
  assert_leg (f, leg, 6, 11);
  g_assert_cmpint (read_byte (f, 5), ==, 9);
  g_assert_cmpuint (mock_count (f->where[leg].bdev, MOCK_READ), ==, 0);
}

/* W4: when all fail the first one in sync stays, and its errors go to
 * the client.
 */
static void
test_w4_last_leg (struct fixture *f, gconstpointer unused)
{
  unsigned int i;

  fail_leg (f, 0, MOCK_WRITE, EIO);
  expect ("region 0 (a): write*now out of sync");
  expect ("region 0 (a): is now out of sync*2 of 3*");
  g_assert_false (write_byte (f, 1, 0, 1, 0));

  fail_leg (f, 1, MOCK_WRITE, EIO);
  fail_leg (f, 2, MOCK_WRITE, ENOSPC);
  expect ("region 1 (b): write*it is the last one in sync, and stays so");
  expect ("region 2 (c): write*now out of sync");
  expect ("region 2 (c): is now out of sync*1 of 3*");
  g_assert_false (write_byte (f, 2, 1, 1, 0));

  for (i = 0; i < LEGS; i++)
    mock_clear_faults (f->where[i].bdev);
  g_assert_cmpint (read_byte (f, 0), ==, 1);
  g_assert_cmpuint (mock_count (f->where[1].bdev, MOCK_READ), ==, 1);

  fail_leg (f, 1, MOCK_READ, EIO);
  expect ("region 1 (b): read*no other region in sync is left to read");
  g_assert_cmpint (read_byte (f, 0), ==, -1);
  g_assert_cmpint (f->results[1].error, ==, EIO);
  g_assert_cmpuint (mock_count (f->where[0].bdev, MOCK_READ), ==, 0);
  g_assert_cmpuint (mock_count (f->where[2].bdev, MOCK_READ), ==, 0);
  expect ("region 0 (a): write failed 1 more times*");
}

/* W4: of those that all failed, one stays that can be reached, if there
 * is one: bits of OFFLINE say which cannot.
 */
static void
test_w4_reachable_leg (struct fixture *f, gconstpointer offline_pointer)
{
  unsigned int offline = GPOINTER_TO_UINT (offline_pointer), kept = 0, i;

  while (kept < LEGS - 1 && offline & 1U << kept)
    kept++;
  if (offline & 1U << kept)
    kept = 0;                   /* none can be */
  for (i = 0; i < LEGS; i++) {
    fail_leg (f, i, MOCK_WRITE, ENOTCONN);
    __atomic_store_n (&f->where[i].bdev->offline, offline & 1U << i,
                      __ATOMIC_RELAXED);
    expect (i == kept ? "region *write*it is the last one in sync*" :
            "region *write*it is now out of sync");
  }
  for (i = 0; i < LEGS; i++)
    if (i != kept)
      expect ("region *is now out of sync*1 of 3*");
  g_assert_false (write_byte (f, 1, 0, 1, 0));
  g_test_assert_expected_messages ();

  for (i = 0; i < LEGS; i++)
    __atomic_store_n (&f->where[i].bdev->offline, false, __ATOMIC_RELAXED);
  g_assert_cmpint (read_byte (f, 0), ==, 0);
  for (i = 0; i < LEGS; i++)
    g_assert_cmpuint (mock_count (f->where[i].bdev, MOCK_READ), ==,
                      i == kept);
}

/* A read that fails is served by the next leg, and the leg stays in
 * sync.
 */
static void
test_read_failover (struct fixture *f, gconstpointer unused)
{
  g_assert_true (write_byte (f, 5, 0, 1, 0));
  fail_leg (f, 0, MOCK_READ, EIO);
  fail_leg (f, 1, MOCK_READ, EBADF);
  expect ("region 0 (a): read of 512 bytes at offset 0 failed: "
          "Input/output error; reading from the next region in sync");
  expect ("region 1 (b): read of 512 bytes at offset 0 failed: "
          "Bad file descriptor; reading from the next region in sync");
  g_assert_cmpint (read_byte (f, 0), ==, 5);
  g_assert_cmpint (f->results[0].error, ==, EIO);
  g_assert_cmpint (f->results[1].error, ==, EBADF);
  g_assert_cmpint (f->results[2].error, ==, 0);

  mock_clear_faults (f->where[0].bdev);
  g_assert_cmpint (read_byte (f, 0), ==, 5);
  g_assert_cmpuint (mock_count (f->where[2].bdev, MOCK_READ), ==, 1);
}

/* W6: what a leg lost with a failed flush nobody knows, and it does not
 * say so twice.
 */
static void
test_w6_failed_flush (struct fixture *f, gconstpointer unused)
{
  struct mock_fault once = { .ops = MOCK_FLUSH, .times = 1, .error = EIO };

  g_assert_true (write_byte (f, 1, 0, 1, 0));
  mock_fault (f->where[0].bdev, &once);
  expect ("region 0 (a): flush failed: Input/output error; it is now*");
  expect ("region 0 (a): is now out of sync*2 of 3*");
  g_assert_false (dm_mirror_flush (f->mirror, &client, f->results));
  g_assert_cmpint (f->results[0].error, ==, EIO);

  g_assert_false (dm_mirror_flush (f->mirror, &client, f->results));
  g_assert_cmpint (f->results[0].error, ==, EIO);
  g_assert_cmpint (f->results[1].error, ==, 0);
  g_assert_cmpint (read_byte (f, 0), ==, 1);
  g_assert_cmpuint (mock_count (f->where[0].bdev, MOCK_READ), ==, 0);
  expect ("region 0 (a): flush failed 1 more times*");
}

struct writer {
  struct fixture *f;
  pthread_t thread;
  int byte;
  sector_t sector, count;
  enum { WRITE_IT, READ_IT, FLUSH_IT } what;
  bool ok;                      /* owned by the thread until it is joined */
  unsigned char buf[SECTORS * SECTOR];
};

static void *
writer_main (void *arg)
{
  struct writer *w = arg;
  struct dm_io_result results[LEGS];

  if (w->what == READ_IT)
    w->ok = dm_mirror_read (w->f->mirror, w->buf, w->sector, w->count,
                            results);
  else if (w->what == FLUSH_IT)
    w->ok = dm_mirror_flush (w->f->mirror, &client, results);
  else {
    memset (w->buf, w->byte, w->count * SECTOR);
    w->ok = dm_mirror_write (w->f->mirror, DM_IO_WRITE, 0, w->buf,
                             w->sector, w->count, results);
  }
  return NULL;
}

static void
start (struct writer *w)
{
  g_assert_cmpint (pthread_create (&w->thread, NULL, writer_main, w), ==, 0);
}

static void
finish (struct writer *w)
{
  g_assert_cmpint (pthread_join (w->thread, NULL), ==, 0);
  g_assert_true (w->ok);
}

/* W6, N2: of flushes that are under way at the same time the device
 * reports what was lost to one only; they all have to fail, also those
 * that began before it was known.
 */
static void
test_w6_flushes_at_once (struct fixture *f, gconstpointer unused)
{
  static struct mock_gate gate = MOCK_GATE_INIT (0);
  struct mock_fault once = {
    .ops = MOCK_FLUSH, .times = 1, .gate = &gate, .error = EIO,
  };
  struct mock_fault slow = { .ops = MOCK_FLUSH, .gate = &gate };
  struct writer flushes[4];
  unsigned int i;

  mock_fault (f->where[0].bdev, &once);
  mock_fault (f->where[1].bdev, &slow); /* so that none ends early */
  /* Any of them may be the first to log it. */
  expect ("region 0 (a): flush failed: Input/output error; it is *");
  expect ("region 0 (a): is now out of sync*2 of 3*");
  for (i = 0; i < G_N_ELEMENTS (flushes); i++) {
    flushes[i] = (struct writer) { .f = f, .what = FLUSH_IT };
    start (&flushes[i]);
  }
  mock_gate_await (&gate, 2);
  g_usleep (20000);
  mock_gate_open (&gate);
  for (i = 0; i < G_N_ELEMENTS (flushes); i++) {
    g_assert_cmpint (pthread_join (flushes[i].thread, NULL), ==, 0);
    g_assert_false (flushes[i].ok);
  }
  expect ("region 0 (a): flush failed 3 more times*");
}

/* W5: a write that overlaps one in flight begins on no leg before the
 * other has ended on all; one beside it does not wait.
 */
static void
test_w5_overlap (struct fixture *f, gconstpointer unused)
{
  static struct mock_gate gate = MOCK_GATE_INIT (0);
  struct mock_fault slow = { .ops = MOCK_WRITE, .times = 1, .gate = &gate };
  struct writer first = { .f = f, .byte = 1, .sector = 4, .count = 4 };
  struct writer second = { .f = f, .byte = 2, .sector = 7, .count = 4 };
  struct writer beside = { .f = f, .byte = 3, .sector = 0, .count = 4 };
  unsigned int i;

  mock_fault (f->where[LEGS-1].bdev, &slow);
  start (&first);
  mock_gate_await (&gate, 1);           /* two legs have the first write */
  assert_leg (f, 0, 7, 1);

  start (&second);
  start (&beside);
  finish (&beside);
  /* The second has had as much time as the one beside. */
  g_usleep (20000);
  assert_leg (f, 0, 8, 0);
  g_assert_cmpuint (mock_count (f->where[0].bdev, MOCK_WRITE), ==, 2);

  mock_gate_open (&gate);
  finish (&first);
  finish (&second);
  for (i = 0; i < LEGS; i++) {
    assert_leg (f, i, 3, 3);
    assert_leg (f, i, 6, 1);
    assert_leg (f, i, 7, 2);
    assert_leg (f, i, 10, 2);
  }
}

/* Begin to write 1 to sector 0, and hold it before it reaches leg 1; leg 0
 * has it.
 */
static void
begin_write (struct fixture *f, struct writer *w, struct mock_gate *gate)
{
  struct mock_fault slow = { .ops = MOCK_WRITE, .times = 1, .gate = gate };

  *w = (struct writer) { .f = f, .byte = 1, .sector = 0, .count = 1 };
  mock_fault (f->where[1].bdev, &slow);
  start (w);
  mock_gate_await (gate, 1);
  assert_leg (f, 0, 0, 1);
}

/* A reader waits for it, on whatever leg it will read, and then sees it;
 * one beside it does not wait.
 */
static void
end_write (struct fixture *f, struct writer *w, struct mock_gate *gate)
{
  struct writer reader = {
    .f = f, .sector = 0, .count = 2, .what = READ_IT,
  };
  unsigned int reads[LEGS], i;

  g_assert_cmpint (read_byte (f, 1), ==, 0);
  for (i = 0; i < LEGS; i++)
    reads[i] = mock_count (f->where[i].bdev, MOCK_READ);
  start (&reader);
  g_usleep (20000);
  for (i = 0; i < LEGS; i++)
    g_assert_cmpuint (mock_count (f->where[i].bdev, MOCK_READ), ==,
                      reads[i]);
  mock_gate_open (gate);
  finish (w);
  finish (&reader);
  g_assert_cmpint (reader.buf[0], ==, 1);
}

static void
test_read_waits (struct fixture *f, gconstpointer unused)
{
  static struct mock_gate gate = MOCK_GATE_INIT (0);
  struct writer writer;

  begin_write (f, &writer, &gate);
  end_write (f, &writer, &gate);
}

/* A read that goes on to another leg waits for the write in flight
 * there, or it could return the old value after a reader of the first
 * leg has seen the new one.
 */
static void
test_failover_waits (struct fixture *f, gconstpointer unused)
{
  static struct mock_gate gate = MOCK_GATE_INIT (0);
  struct mock_fault bad = {
    .ops = MOCK_READ, .length = SECTOR, .error = EIO,
  };
  struct writer writer;

  mock_fault (f->where[0].bdev, &bad);
  begin_write (f, &writer, &gate);
  expect ("region 0 (a): read*reading from the next*");
  end_write (f, &writer, &gate);
}

/* The same when the first leg is dropped because of another write. */
static void
test_drop_waits (struct fixture *f, gconstpointer unused)
{
  static struct mock_gate gate = MOCK_GATE_INIT (0);
  struct mock_fault bad = {
    .ops = MOCK_WRITE, .offset = 9 * SECTOR, .length = SECTOR, .error = EIO,
  };
  struct writer writer;

  mock_fault (f->where[0].bdev, &bad);
  begin_write (f, &writer, &gate);

  expect ("region 0 (a): write of 512 bytes at offset 4608 failed*");
  expect ("region 0 (a): is now out of sync*");
  g_assert_false (write_byte (f, 2, 9, 1, 0));
  end_write (f, &writer, &gate);
}

/* R13: many threads write, zero and read the same few sectors. */
#define STRESS_THREADS 8
#define STRESS_ROUNDS 2000

static void *
stress_main (void *arg)
{
  struct writer *w = arg;
  struct rng rng = { w->byte };
  struct dm_io_result results[LEGS];
  sector_t sector, count;
  int i;

  for (i = 0; i < STRESS_ROUNDS; i++) {
    sector = rng_below (&rng, 12);
    count = 1 + rng_below (&rng, 4);
    fill (w->buf, count * SECTOR, rng_next (&rng));
    switch (rng_below (&rng, 8)) {
    case 0:
      w->ok = dm_mirror_write (w->f->mirror, DM_IO_WRITE_ZEROES, 0, NULL,
                               sector, count, results);
      break;
    case 1:
      w->ok = dm_mirror_write (w->f->mirror, DM_IO_DISCARD, 0, NULL,
                               sector, count, results);
      break;
    case 2:
      w->ok = dm_mirror_read (w->f->mirror, w->buf, sector, count, results);
      break;
    case 3:
      w->ok = dm_mirror_flush (w->f->mirror, &client, results);
      break;
    default:
      w->ok = dm_mirror_write (w->f->mirror, DM_IO_WRITE, 0, w->buf,
                               sector, count, results);
    }
    g_assert_true (w->ok);
  }
  return NULL;
}

static void
test_r13_stress (gconstpointer options)
{
  struct writer *writers = g_new0 (struct writer, STRESS_THREADS);
  struct fixture *f = g_new0 (struct fixture, 1);
  unsigned int i;

  open_mirror (f, SECTORS, DM_MIRROR_READ_FIRST, 0, options);
  for (i = 0; i < STRESS_THREADS; i++) {
    writers[i].f = f;
    writers[i].byte = i;
    g_assert_cmpint (pthread_create (&writers[i].thread, NULL, stress_main,
                                     &writers[i]), ==, 0);
  }
  for (i = 0; i < STRESS_THREADS; i++)
    finish (&writers[i]);
  for (i = 1; i < LEGS; i++)
    assert_same (mock_data (f->where[i].bdev), mock_data (f->where[0].bdev),
                 SECTORS * SECTOR);
  tear_down (f, NULL);
  g_free (f);
  g_free (writers);
}

/* N3: legs of different size and start make a volume of the smallest,
 * and the sectors around it are not touched.
 */
static void
test_n3_sizes (void)
{
  const struct dm_mirror_options first = { .policy = DM_MIRROR_READ_FIRST };
  struct dm_mirror_leg legs[2] = { { .name = "a" }, { .name = "b" } };
  struct mock_options plain = { 0 };
  struct dm_io_result results[2];
  unsigned char buf[8 * SECTOR];
  struct dm_mirror *m;

  memset (buf, 1, sizeof buf);
  legs[0].region = (struct io_region) {
    .bdev = mock_open ("a", 32 * SECTOR, &plain), .sector = 3, .count = 8,
  };
  legs[1].region = (struct io_region) {
    .bdev = mock_open ("b", 32 * SECTOR, &plain), .sector = 0, .count = 32,
  };
  m = dm_mirror_new (2, legs, &first, NULL);
  g_assert_cmpuint (dm_mirror_sectors (m), ==, 8);
  g_assert_true (dm_mirror_write (m, DM_IO_WRITE, 0, buf, 0, 8, results));
  assert_zero (mock_data (legs[0].region.bdev), 3 * SECTOR);
  assert_same (mock_data (legs[0].region.bdev) + 3 * SECTOR, buf, sizeof buf);
  assert_zero (mock_data (legs[0].region.bdev) + 11 * SECTOR, 21 * SECTOR);
  assert_same (mock_data (legs[1].region.bdev), buf, sizeof buf);
  assert_zero (mock_data (legs[1].region.bdev) + 8 * SECTOR, 24 * SECTOR);
  dm_mirror_free (m);
  mock_close (legs[0].region.bdev);
  mock_close (legs[1].region.bdev);
}

/* Repeats are counted, each kind for itself, and nothing is lost. */
static void
test_repeats (void)
{
  struct failure_log *log = failure_log_new (2);
  struct failure write = {
    .region = 1, .op = DM_IO_WRITE, .length = 512, .error = EIO,
    .consequence = "so",
  };
  struct failure read = write;
  int i;

  failure_log_set_name (log, 1, "b");
  expect ("region 1 (b): write of 512 bytes at offset 0 failed: "
          "Input/output error; so");
  for (i = 0; i < 5; i++) {
    write.offset = 512 * i;
    failure_log_add (log, &write);
  }
  read.op = DM_IO_READ;
  expect ("region 1 (b): read of 512*");
  failure_log_add (log, &read);

  /* Another errno is news, once. */
  expect ("region 1 (b): write of 512 bytes at offset 2048 failed: "
          "No space left on device; so");
  for (i = 0; i < 6; i++) {
    write.error = i % 2 ? EIO : ENOSPC;
    failure_log_add (log, &write);
  }

  expect ("region 1 (b): write failed 9 more times between offsets 512 and "
          "2048, last with: Input/output error");
  failure_log_free (log);
  g_test_assert_expected_messages ();
}

static void
add (const char *path, void (*test) (struct fixture *, gconstpointer),
     unsigned int data)
{
  g_test_add (path, struct fixture, GUINT_TO_POINTER (data),
              set_up, test, tear_down);
}

int
main (int argc, char *argv[])
{
  static const struct mock_options copies = { .can_punch = true };
  static const struct mock_options waits = { .always_waits = true };

  test_init (&argc, &argv);
  add ("/mirror/all-well", test_all_well, 0);
  add ("/mirror/missed-write/first", test_missed_write, 0);
  add ("/mirror/missed-write/second", test_missed_write, 1);
  add ("/mirror/missed-write/last", test_missed_write, 2);
  add ("/mirror/w4-last-leg-stays", test_w4_last_leg, 0);
  add ("/mirror/w4-reachable-leg-stays/first", test_w4_reachable_leg, 6);
  add ("/mirror/w4-reachable-leg-stays/second", test_w4_reachable_leg, 1);
  add ("/mirror/w4-reachable-leg-stays/last", test_w4_reachable_leg, 3);
  add ("/mirror/w4-reachable-leg-stays/none", test_w4_reachable_leg, 7);
  add ("/mirror/read-failover", test_read_failover, 0);
  add ("/mirror/w6-failed-flush", test_w6_failed_flush, 0);
  add ("/mirror/w6-flushes-at-once", test_w6_flushes_at_once, 0);
  add ("/mirror/w5-overlapping-writes", test_w5_overlap, 0);
  add ("/mirror/read-waits-for-writes", test_read_waits, 0);
  add ("/mirror/failover-waits-for-writes", test_failover_waits, 0);
  add ("/mirror/drop-waits-for-writes", test_drop_waits, 0);
  g_test_add_data_func ("/mirror/r13-stress/copies", &copies,
                        test_r13_stress);
  g_test_add_data_func ("/mirror/r13-stress/waits", &waits, test_r13_stress);
  g_test_add_func ("/mirror/n3-sizes", test_n3_sizes);
  g_test_add_func ("/mirror/repeats", test_repeats);
  return g_test_run ();
}
