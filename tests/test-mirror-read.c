/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Reading a mirror: which leg is read, of those in sync, those that can be
 * reached and those that are write-mostly; what happens when reads fail;
 * and that no value goes back, whatever leg a reader gets, while a write has
 * reached some of them.  How legs get out of sync is in test-mirror.c, the
 * choice among legs that are fit in test-read-balance.c.
 */

#include <config.h>

#include "mirror-fixture.h"

#define SECTORS (16 * 1024)

/* So far apart that reads are not taken for one stream. */
#define FAR (6 * 1024)

#define SLOW_MSEC 10

static const struct mock_options plain = { 0 };

static void
set_up (struct fixture *f, gconstpointer unused)
{
  open_mirror (f, SECTORS, DM_MIRROR_READ_BALANCE, 0, &plain);
}

static void
set_up_write_mostly (struct fixture *f, gconstpointer set)
{
  open_mirror (f, SECTORS, DM_MIRROR_READ_BALANCE, GPOINTER_TO_UINT (set), &plain);
}

static void
set_up_first (struct fixture *f, gconstpointer write_mostly)
{
  open_mirror (f, SECTORS, DM_MIRROR_READ_FIRST, GPOINTER_TO_UINT (write_mostly),
               &plain);
}

static void
slow_leg (struct fixture *f, unsigned int leg)
{
  struct mock_fault fault = { .ops = MOCK_READ, .msec = SLOW_MSEC };

  mock_fault (f->where[leg].bdev, &fault);
}

static void
set_offline (struct fixture *f, unsigned int leg, bool offline)
{
  __atomic_store_n (&f->where[leg].bdev->offline, offline, __ATOMIC_RELAXED);
}

/* The sectors of which the test wants to know which leg is read: the
 * same random ones each time.
 */
static sector_t
nth_sector (unsigned int n)
{
  struct rng rng = { n };

  return rng_below (&rng, SECTORS);
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

/* Read N sectors, one after another, and count on which leg each was read
 * in the end.
 */
static void
read_many (struct fixture *f, unsigned int n, unsigned int *counts)
{
  unsigned int before[LEGS], i, leg;

  for (leg = 0; leg < LEGS; leg++)
    before[leg] = mock_count (f->where[leg].bdev, MOCK_READ);
  for (i = 0; i < n; i++)
    g_assert_cmpint (read_byte (f, nth_sector (i)), ==, 0);
  for (leg = 0; leg < LEGS; leg++)
    counts[leg] = mock_count (f->where[leg].bdev, MOCK_READ) - before[leg];
}

/* All of N reads go to one leg. */
static void
assert_reads (struct fixture *f, unsigned int n, unsigned int leg)
{
  unsigned int counts[LEGS], i;

  read_many (f, n, counts);
  for (i = 0; i < LEGS; i++)
    g_assert_cmpuint (counts[i], ==, i == leg ? n : 0);
}

/* The leg is quicker than the others, and so, after a few reads, gets nearly
 * all.
 */
static void
assert_prefers (struct fixture *f, unsigned int leg)
{
  unsigned int counts[LEGS];

  read_many (f, 10, counts);
  read_many (f, 20, counts);
  g_assert_cmpuint (counts[leg], >=, 16);
}

static bool
write_byte (struct fixture *f, int byte, sector_t sector)
{
  unsigned char buf[SECTOR];

  memset (buf, byte, SECTOR);
  return dm_mirror_write (f->mirror, DM_IO_WRITE, 0, buf, sector, 1,
                          f->results);
}

/* The legs miss a write, and are out of sync; the messages are expected. */
static void
drop_leg (struct fixture *f, unsigned int leg, unsigned int left)
{
  g_autofree char *pattern =
    g_strdup_printf ("region %u *now out of sync*%u of 3*", leg, left);
  struct mock_fault once = { .ops = MOCK_WRITE, .times = 1, .error = EIO };

  mock_fault (f->where[leg].bdev, &once);
  expect ("region * write of 512 bytes * failed: *");
  expect (pattern);
  g_assert_false (write_byte (f, 0, 0));
}

/*----------------------------------------------------------------------
 * Other threads
 */

struct client {
  struct fixture *f;
  enum { READ_IT, WRITE_IT, MAP_IT } what;
  sector_t sector, count;
  int byte;                     /* to be written; what was read, or -1 */
  pthread_t thread;
  bool ended;                   /* atomic */
};

static void *
client_main (void *arg)
{
  struct client *c = arg;
  struct fixture *f = c->f;
  struct dm_io_result results[LEGS];
  struct bdev_extent extent;
  unsigned char *buf = g_malloc (c->count * SECTOR);
  bool ok;

  switch (c->what) {
  case READ_IT:
    ok = dm_mirror_read (f->mirror, buf, c->sector, c->count, results);
    c->byte = ok ? buf[0] : -1;
    break;
  case WRITE_IT:
    memset (buf, c->byte, c->count * SECTOR);
    ok = dm_mirror_write (f->mirror, DM_IO_WRITE, 0, buf, c->sector,
                          c->count, results);
    g_assert_true (ok);
    break;
  case MAP_IT:
    g_assert_cmpint (dm_mirror_extents (f->mirror, c->sector, c->count,
                                        &extent, 1), ==, 1);
    break;
  }
  g_free (buf);
  __atomic_store_n (&c->ended, true, __ATOMIC_RELEASE);
  return NULL;
}

static void
start (struct client *c)
{
  g_assert_cmpint (pthread_create (&c->thread, NULL, client_main, c), ==, 0);
}

/* What it has read. */
static int
finish (struct client *c)
{
  g_assert_cmpint (pthread_join (c->thread, NULL), ==, 0);
  return c->byte;
}

/* True if it ends soon; a client that has nothing to wait for does. */
static bool
ends_soon (struct client *c)
{
  unsigned int i;

  for (i = 0; i < 50; i++) {
    if (__atomic_load_n (&c->ended, __ATOMIC_ACQUIRE))
      return true;
    g_usleep (1000);
  }
  return false;
}

static struct client
reader_of (struct fixture *f, sector_t sector)
{
  return (struct client) {
    .f = f, .what = READ_IT, .sector = sector, .count = 1,
  };
}

/*----------------------------------------------------------------------
 * Which leg
 */

/* The quicker leg gets nearly all reads. */
static void
test_quicker (struct fixture *f, gconstpointer leg_pointer)
{
  unsigned int leg = GPOINTER_TO_UINT (leg_pointer), i;

  for (i = 0; i < LEGS; i++)
    if (i != leg)
      slow_leg (f, i);
  assert_prefers (f, leg);
}

/* While one leg has a read in flight, the next goes to another. */
static void
test_not_behind (struct fixture *f, gconstpointer unused)
{
  static struct mock_gate gate = MOCK_GATE_INIT (0);
  struct mock_fault slow = { .ops = MOCK_READ, .gate = &gate };
  struct client readers[2] = { reader_of (f, 0), reader_of (f, FAR) };
  unsigned int i;

  for (i = 0; i < LEGS; i++)
    mock_fault (f->where[i].bdev, &slow);
  for (i = 0; i < 2; i++) {
    start (&readers[i]);
    mock_gate_await (&gate, i + 1);
  }
  for (i = 0; i < LEGS; i++)
    g_assert_cmpuint (mock_count (f->where[i].bdev, MOCK_READ), <=, 1);
  mock_gate_open (&gate);
  for (i = 0; i < 2; i++)
    g_assert_cmpint (finish (&readers[i]), ==, 0);
}

/* The first, also if it is slower or busy. */
static void
test_first (struct fixture *f, gconstpointer unused)
{
  static struct mock_gate gate = MOCK_GATE_INIT (2);
  struct mock_fault slow = { .ops = MOCK_READ, .times = 2, .gate = &gate };
  struct client readers[2] = { reader_of (f, 0), reader_of (f, FAR) };
  unsigned int i;

  mock_fault (f->where[0].bdev, &slow); /* until both are there */
  for (i = 0; i < 2; i++)
    start (&readers[i]);
  for (i = 0; i < 2; i++)
    g_assert_cmpint (finish (&readers[i]), ==, 0);

  slow_leg (f, 0);
  assert_reads (f, 20, 0);
  set_offline (f, 0, true);
  assert_reads (f, 20, 1);
  set_offline (f, 0, false);
  drop_leg (f, 0, 2);
  assert_reads (f, 20, 1);
}

/* R1: one that has missed a write, although it is the quickest. */
static void
test_out_of_sync (struct fixture *f, gconstpointer unused)
{
  slow_leg (f, 0);
  slow_leg (f, 2);
  assert_prefers (f, 1);
  drop_leg (f, 1, 2);
  mock_clear_trace (f->where[1].bdev);
  g_assert_cmpint (read_byte (f, 0), ==, 0);
  g_assert_cmpint (read_byte (f, FAR), ==, 0);
  set_offline (f, 0, true);
  set_offline (f, 2, true);
  g_assert_cmpint (read_byte (f, 0), ==, 0);

  /* Not even when no other can be read. */
  fail_leg (f, 0, MOCK_READ, EIO);
  fail_leg (f, 2, MOCK_READ, EIO);
  expect ("region * read of 512 *; reading from the next region in sync");
  expect ("region * read of 512 *; no other region in sync is left to read");
  g_assert_cmpint (read_byte (f, 0), ==, -1);
  g_assert_cmpuint (mock_count (f->where[1].bdev, MOCK_READ), ==, 0);
}

/* One that is away, although it is the quickest; but if all are, one may
 * be back already.
 */
static void
test_offline (struct fixture *f, gconstpointer unused)
{
  unsigned int i;

  slow_leg (f, 0);
  slow_leg (f, 2);
  assert_prefers (f, 1);
  set_offline (f, 1, true);
  set_offline (f, 2, true);
  assert_reads (f, 10, 0);
  set_offline (f, 0, true);
  for (i = 0; i < 3; i++)
    g_assert_cmpint (read_byte (f, nth_sector (i)), ==, 0);

  for (i = 0; i < LEGS; i++)
    mock_clear_faults (f->where[i].bdev);
  set_offline (f, 2, false);
  assert_reads (f, 10, 2);
  set_offline (f, 1, false);
  slow_leg (f, 2);
  assert_prefers (f, 1);
}

/* Whether its read would be soonest, or it is the only one that is idle. */
static void
test_write_mostly (struct fixture *f, gconstpointer unused)
{
  static struct mock_gate gate = MOCK_GATE_INIT (4);
  struct mock_fault slow = { .ops = MOCK_READ, .times = 4, .gate = &gate };
  struct client readers[4];
  unsigned int i;

  mock_fault (f->where[1].bdev, &slow); /* until all are there */
  set_offline (f, 2, true);
  for (i = 0; i < 4; i++) {
    readers[i] = reader_of (f, i * FAR / 2);
    start (&readers[i]);
  }
  for (i = 0; i < 4; i++)
    g_assert_cmpint (finish (&readers[i]), ==, 0);
  set_offline (f, 2, false);

  slow_leg (f, 1);
  slow_leg (f, 2);
  for (i = 0; i < 10; i++)
    g_assert_cmpint (read_byte (f, nth_sector (i)), ==, 0);
  g_assert_cmpuint (mock_count (f->where[0].bdev, MOCK_READ), ==, 0);

  /* It is written like the others. */
  g_assert_true (write_byte (f, 5, 7));
  g_assert_cmpint (mock_data (f->where[0].bdev)[7 * SECTOR], ==, 5);
}

/* It is read when the others are offline, have failed, or are not in sync;
 * and no longer when one of them can be again.
 */
static void
test_write_mostly_offline (struct fixture *f, gconstpointer unused)
{
  set_offline (f, 1, true);
  set_offline (f, 2, true);
  assert_reads (f, 5, 0);
  set_offline (f, 0, true);
  assert_reads (f, 1, 1);
  set_offline (f, 0, false);
  set_offline (f, 2, false);
  assert_reads (f, 5, 2);
}

static void
test_write_mostly_failed (struct fixture *f, gconstpointer unused)
{
  unsigned int counts[LEGS];

  fail_leg (f, 1, MOCK_READ, EIO);
  fail_leg (f, 2, MOCK_READ, EIO);
  expect ("region * read of 512 *; reading from the next region in sync");
  expect ("region * read of 512 *; reading from the next region in sync");
  read_many (f, 1, counts);
  g_assert_cmpuint (counts[0], ==, 1);
  g_assert_cmpuint (counts[1], ==, 1);
  g_assert_cmpuint (counts[2], ==, 1);

  mock_clear_faults (f->where[1].bdev);
  mock_clear_faults (f->where[2].bdev);
  read_many (f, 10, counts);
  g_assert_cmpuint (counts[0], ==, 0);
}

static void
test_write_mostly_out_of_sync (struct fixture *f, gconstpointer unused)
{
  drop_leg (f, 1, 2);
  assert_reads (f, 5, 2);
  drop_leg (f, 2, 1);
  assert_reads (f, 5, 0);
}

/* If all are, it does not matter. */
static void
test_all_write_mostly (struct fixture *f, gconstpointer unused)
{
  slow_leg (f, 0);
  slow_leg (f, 1);
  assert_prefers (f, 2);
}

/* The rule is the same with read=first. */
static void
test_write_mostly_first (struct fixture *f, gconstpointer unused)
{
  assert_reads (f, 5, 1);
  drop_leg (f, 1, 2);
  assert_reads (f, 5, 2);
  set_offline (f, 2, true);
  assert_reads (f, 5, 0);
}

/*----------------------------------------------------------------------
 * Failures
 */

/* R10: a read that fails goes on to other legs, each once, until one can be
 * read.  A leg that has failed is not the first choice for the next.
 */
static void
test_failover (struct fixture *f, gconstpointer good_pointer)
{
  unsigned int good = GPOINTER_TO_UINT (good_pointer), counts[LEGS], i;

  for (i = 0; i < LEGS; i++)
    if (i != good)
      fail_leg (f, i, MOCK_READ, EIO);
  slow_leg (f, good);
  for (i = 0; i < LEGS; i++)
    if (i != good)
      expect ("region * read of 512 *; reading from the next region in *");
  while (mock_count (f->where[(good + 1) % LEGS].bdev, MOCK_READ) == 0 ||
         mock_count (f->where[(good + 2) % LEGS].bdev, MOCK_READ) == 0)
    g_assert_cmpint (read_byte (f, 0), ==, 0);
  for (i = 0; i < LEGS; i++)
    if (i != good)
      g_assert_cmpuint (mock_count (f->where[i].bdev, MOCK_READ), ==, 1);

  assert_reads (f, 50, good);

  /* They are still in sync. */
  for (i = 0; i < LEGS; i++)
    mock_clear_faults (f->where[i].bdev);
  set_offline (f, good, true);
  read_many (f, 10, counts);
  g_assert_cmpuint (counts[good], ==, 0);
}

/* All fail: each has been tried once, and the client gets no bytes of any
 * of them.
 */
static void
test_all_fail (struct fixture *f, gconstpointer unused)
{
  unsigned char buf[SECTOR];
  unsigned int i;

  memset (buf, 0x77, SECTOR);
  for (i = 0; i < LEGS; i++)
    fail_leg (f, i, MOCK_READ, i == 1 ? ENXIO : EIO);
  expect ("region * read of 512 *; reading from the next region in sync");
  expect ("region * read of 512 *; reading from the next region in sync");
  expect ("region * read of 512 *; no other region in sync is left to read");
  g_assert_false (dm_mirror_read (f->mirror, buf, 3, 1, f->results));
  for (i = 0; i < LEGS; i++) {
    g_assert_cmpint (f->results[i].error, ==, i == 1 ? ENXIO : EIO);
    g_assert_cmpuint (mock_count (f->where[i].bdev, MOCK_READ), ==, 1);
    mock_clear_faults (f->where[i].bdev);
  }
  assert_zero (buf, SECTOR);
  g_assert_cmpint (read_byte (f, 3), ==, 0);
  for (i = 0; i < LEGS; i++)
    g_assert_cmpint (f->results[i].error, ==, 0);
}

/* A leg that is dropped while a read of another fails is not the next one. */
static void
test_dropped_meanwhile (struct fixture *f, gconstpointer unused)
{
  static struct mock_gate gate = MOCK_GATE_INIT (0);
  struct mock_fault slow = { .ops = MOCK_READ, .gate = &gate, .error = EIO };
  struct client reader = reader_of (f, FAR);

  mock_fault (f->where[0].bdev, &slow);
  start (&reader);
  mock_gate_await (&gate, 1);
  drop_leg (f, 1, 2);
  expect ("region 0 (a): read*reading from the next region in sync");
  mock_gate_open (&gate);
  g_assert_cmpint (finish (&reader), ==, 0);
  g_assert_cmpuint (mock_count (f->where[1].bdev, MOCK_READ), ==, 0);
  g_assert_cmpuint (mock_count (f->where[2].bdev, MOCK_READ), ==, 1);
}

/* W4: of all legs, which have failed, the one that stays in sync can be
 * reached.
 */
static void
test_last_leg_online (struct fixture *f, gconstpointer unused)
{
  unsigned int i;

  for (i = 0; i < LEGS; i++)
    fail_leg (f, i, MOCK_WRITE, EIO);
  set_offline (f, 0, true);
  expect ("region 0 *now out of sync");
  expect ("region 1 *it is the last one in sync, and stays so");
  expect ("region 2 *now out of sync");
  expect ("region 0 *is now out of sync*1 of 3*");
  expect ("region 2 *is now out of sync*1 of 3*");
  g_assert_false (write_byte (f, 1, 0));
  assert_reads (f, 5, 1);
  set_offline (f, 0, false);
  set_offline (f, 1, true);
  assert_reads (f, 5, 1);
}

/*----------------------------------------------------------------------
 * No value goes back
 */

/* Write 1 to 8 sectors from 8 on; leg 0 has it, and leg 1 waits at the gate. */
static void
begin_write (struct client *writer, struct fixture *f,
             struct mock_gate *gate)
{
  struct mock_fault slow = { .ops = MOCK_WRITE, .times = 1, .gate = gate };

  *writer = (struct client) {
    .f = f, .what = WRITE_IT, .sector = 8, .count = 8, .byte = 1,
  };
  mock_fault (f->where[1].bdev, &slow);
  start (writer);
  mock_gate_await (gate, 1);
}

/* Start a reader that can only be served by this leg. */
static void
start_on_leg (struct client *reader, unsigned int leg)
{
  unsigned int i;

  for (i = 0; i < LEGS; i++)
    set_offline (reader->f, i, i != leg);
  start (reader);
}

/* A reader of a leg that has the new value, and, after that, one of the
 * leg that does not have it yet.  The first may see the new value and end, or
 * wait; but once it has, the second must not see the old one.
 */
static void
test_value_stays (struct fixture *f, gconstpointer sector_pointer)
{
  sector_t sector = GPOINTER_TO_UINT (sector_pointer);
  static struct mock_gate gates[2] = {
    MOCK_GATE_INIT (0), MOCK_GATE_INIT (0),
  };
  struct mock_gate *gate = &gates[sector == 8];
  struct client writer, first = reader_of (f, sector);
  struct client second = reader_of (f, sector);
  bool seen;

  begin_write (&writer, f, gate);
  start_on_leg (&first, 0);
  seen = ends_soon (&first);
  if (seen)
    g_assert_cmpint (first.byte, ==, 1);
  start_on_leg (&second, 1);
  if (ends_soon (&second) && seen)
    g_assert_cmpint (second.byte, ==, 1);

  mock_gate_open (gate);
  finish (&writer);
  g_assert_cmpint (finish (&first), ==, 1);
  g_assert_cmpint (finish (&second), ==, 1);
}

/* Where the data is, too: what the write has allocated on one leg is no
 * hole later, because of another.
 */
static void
test_extents_wait (struct fixture *f, gconstpointer unused)
{
  static struct mock_gate gate = MOCK_GATE_INIT (0);
  struct client writer, map = {
    .f = f, .what = MAP_IT, .sector = 0, .count = 9,
  };
  struct client other_map = {
    .f = f, .what = MAP_IT, .sector = 0, .count = 8,
  };

  begin_write (&writer, f, &gate);
  start (&other_map);
  finish (&other_map);
  start (&map);
  g_assert_false (ends_soon (&map));
  mock_gate_open (&gate);
  finish (&writer);
  finish (&map);
}

/* Reads do not exclude each other. */
static void
test_readers_together (struct fixture *f, gconstpointer unused)
{
  static struct mock_gate gate = MOCK_GATE_INIT (4);
  struct mock_fault slow = { .ops = MOCK_READ, .gate = &gate };
  struct client readers[4];
  unsigned int i;

  for (i = 0; i < LEGS; i++)
    mock_fault (f->where[i].bdev, &slow); /* until all are there */
  for (i = 0; i < 4; i++) {
    readers[i] = reader_of (f, 8);
    start (&readers[i]);
  }
  for (i = 0; i < 4; i++)
    g_assert_cmpint (finish (&readers[i]), ==, 0);
}

/* What is beside the write is read meanwhile, on any leg. */
static void
test_others_go_on (struct fixture *f, gconstpointer unused)
{
  static const sector_t beside[] = { 0, 7, 16, FAR, SECTORS - 1 };
  static struct mock_gate gate = MOCK_GATE_INIT (0);
  struct client writer, readers[LEGS];
  unsigned int i, leg;

  begin_write (&writer, f, &gate);
  for (i = 0; i < G_N_ELEMENTS (beside); i++)
    for (leg = 0; leg < LEGS; leg++) {
      readers[leg] = reader_of (f, beside[i]);
      start_on_leg (&readers[leg], leg);
      g_assert_cmpint (finish (&readers[leg]), ==, 0);
    }
  g_assert_false (writer.ended);
  mock_gate_open (&gate);
  finish (&writer);
}

/* A reader that waits for the write holds up no other, also one of what
 * it is to read beside the write.
 */
static void
test_waiting_reader (struct fixture *f, gconstpointer unused)
{
  static struct mock_gate gate = MOCK_GATE_INIT (0);
  struct client writer, wide = reader_of (f, 0), beside = wide;

  wide.count = 9;
  begin_write (&writer, f, &gate);
  start (&wide);
  g_assert_false (ends_soon (&wide));
  start (&beside);
  g_assert_true (ends_soon (&beside));
  finish (&beside);
  mock_gate_open (&gate);
  finish (&writer);
  finish (&wide);
}

/* Readers that have waited for it are no longer one after another. */
static void
test_readers_go_on_together (struct fixture *f, gconstpointer unused)
{
  static struct mock_gate gate = MOCK_GATE_INIT (0);
  static struct mock_gate together = MOCK_GATE_INIT (4);
  struct mock_fault slow = { .ops = MOCK_READ, .gate = &together };
  struct client writer, readers[4];
  unsigned int i;

  for (i = 0; i < LEGS; i++)
    mock_fault (f->where[i].bdev, &slow); /* until all are there */
  begin_write (&writer, f, &gate);
  for (i = 0; i < 4; i++) {
    readers[i] = reader_of (f, 8);
    start (&readers[i]);
  }
  g_assert_false (ends_soon (&readers[0]));
  mock_gate_open (&gate);
  finish (&writer);
  for (i = 0; i < 4; i++)
    g_assert_cmpint (finish (&readers[i]), ==, 1);
}

/*----------------------------------------------------------------------
 * Readers and writers, and an oracle
 */

/* Each writer has sectors of its own.  It writes to them how often it has
 * written, so for a reader these numbers never go back: what it reads is
 * at least what any read that had ended before it began has seen, or a
 * write that had ended has written, and at most what was being written.
 */
#define WRITERS 2
#define READERS 3
#define OWN 6                   /* sectors of a writer */
#define ALL (WRITERS * OWN)
#define ROUNDS 400

struct oracle {
  struct fixture f;
  uint64_t least[ALL];          /* atomic: known to a client */
  uint64_t most[ALL];           /* atomic: given to a write */
  unsigned int writers;         /* atomic: that have not ended */
};

struct player {
  pthread_t thread;
  struct oracle *o;
  unsigned int number;
};

static uint64_t
get (uint64_t *p)
{
  return __atomic_load_n (p, __ATOMIC_SEQ_CST);
}

static void
raise_to (uint64_t *p, uint64_t value)
{
  uint64_t old = get (p);

  while (old < value &&
         !__atomic_compare_exchange_n (p, &old, value, false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
    ;
}

static void *
oracle_writer (void *arg)
{
  struct player *p = arg;
  struct oracle *o = p->o;
  struct rng rng = { p->number };
  struct dm_io_result results[LEGS];
  uint64_t buf[OWN * SECTOR / 8] = { 0 };
  unsigned int first, count, i;
  uint64_t n;

  for (n = 1; n <= ROUNDS; n++) {
    first = rng_below (&rng, OWN);
    count = 1 + rng_below (&rng, OWN - first);
    first += p->number * OWN;
    for (i = 0; i < count; i++) {
      buf[i * SECTOR / 8] = n;
      raise_to (&o->most[first + i], n);
    }
    g_assert_true (dm_mirror_write (o->f.mirror, DM_IO_WRITE, 0, buf, first,
                                    count, results));
    for (i = 0; i < count; i++)
      raise_to (&o->least[first + i], n);
  }
  __atomic_sub_fetch (&o->writers, 1, __ATOMIC_SEQ_CST);
  return NULL;
}

static void
oracle_read (struct oracle *o, unsigned int first, unsigned int count)
{
  uint64_t buf[ALL * SECTOR / 8], least[ALL], value;
  struct dm_io_result results[LEGS];
  unsigned int i;

  for (i = 0; i < count; i++)
    least[i] = get (&o->least[first + i]);
  g_assert_true (dm_mirror_read (o->f.mirror, buf, first, count, results));
  for (i = 0; i < count; i++) {
    value = buf[i * SECTOR / 8];
    g_assert_cmpuint (value, >=, least[i]);
    g_assert_cmpuint (value, <=, get (&o->most[first + i]));
    raise_to (&o->least[first + i], value);
  }
}

static void *
oracle_reader (void *arg)
{
  struct player *p = arg;
  struct rng rng = { p->number };
  unsigned int first;

  while (__atomic_load_n (&p->o->writers, __ATOMIC_SEQ_CST) > 0) {
    first = rng_below (&rng, ALL);
    oracle_read (p->o, first, 1 + rng_below (&rng, ALL - first));
  }
  return NULL;
}

/* The legs that can be reached change all the time, so that reads go to
 * each of them.
 */
static void *
oracle_changer (void *arg)
{
  struct player *p = arg;
  struct rng rng = { p->number };

  while (__atomic_load_n (&p->o->writers, __ATOMIC_SEQ_CST) > 0) {
    set_offline (&p->o->f, rng_below (&rng, LEGS), rng_below (&rng, 2));
    g_usleep (50);
  }
  return NULL;
}

/* A write to leg 1 takes longer than to the others; on leg 2 one read
 * fails.
 */
static void
oracle_faults (struct oracle *o)
{
  struct mock_fault slow = { .ops = MOCK_WRITE, .msec = 1 };
  struct mock_fault bad = {
    .ops = MOCK_READ, .after = 20, .times = 1, .error = EIO,
  };

  mock_fault (o->f.where[1].bdev, &slow);
  mock_fault (o->f.where[2].bdev, &bad);
  expect ("region 2 (c): read *reading from the next region in sync");
}

static void
start_players (struct oracle *o, struct player *players)
{
  unsigned int i;
  void *(*run) (void *);

  for (i = 0; i <= WRITERS + READERS; i++) {
    run = i < WRITERS ? oracle_writer :
      i < WRITERS + READERS ? oracle_reader : oracle_changer;
    players[i] = (struct player) { .o = o, .number = i };
    g_assert_cmpint (pthread_create (&players[i].thread, NULL, run,
                                     &players[i]), ==, 0);
  }
}

static void
test_oracle (gconstpointer options)
{
  struct oracle *o = g_new0 (struct oracle, 1);
  struct player players[WRITERS + READERS + 1];
  unsigned int i;

  open_mirror (&o->f, SECTORS, DM_MIRROR_READ_BALANCE, 0, options);
  oracle_faults (o);
  o->writers = WRITERS;
  start_players (o, players);
  for (i = 0; i < G_N_ELEMENTS (players); i++)
    g_assert_cmpint (pthread_join (players[i].thread, NULL), ==, 0);
  for (i = 1; i < LEGS; i++)
    assert_same (mock_data (o->f.where[i].bdev),
                 mock_data (o->f.where[0].bdev), ALL * SECTOR);
  tear_down (&o->f, NULL);
  g_free (o);
}

static void
add (const char *path, void (*test) (struct fixture *, gconstpointer),
     unsigned int data)
{
  g_test_add (path, struct fixture, GUINT_TO_POINTER (data),
              set_up, test, tear_down);
}

/* Of the legs in SET. */
static void
add_write_mostly (const char *path,
                  void (*test) (struct fixture *, gconstpointer),
                  unsigned int set)
{
  g_test_add (path, struct fixture, GUINT_TO_POINTER (set),
              set_up_write_mostly, test, tear_down);
}

static void
add_first (const char *path, void (*test) (struct fixture *, gconstpointer),
           unsigned int write_mostly)
{
  g_test_add (path, struct fixture, GUINT_TO_POINTER (write_mostly),
              set_up_first, test, tear_down);
}

int
main (int argc, char *argv[])
{
  static const struct mock_options copies = { .max_trace = 1 };
  static const struct mock_options waits = {
    .always_waits = true, .max_trace = 1,
  };

  test_init (&argc, &argv);
  add ("/mirror-read/quicker/0", test_quicker, 0);
  add ("/mirror-read/quicker/1", test_quicker, 1);
  add ("/mirror-read/quicker/2", test_quicker, 2);
  add ("/mirror-read/not-behind-another", test_not_behind, 0);
  add_first ("/mirror-read/first", test_first, 0);
  add ("/mirror-read/out-of-sync", test_out_of_sync, 0);
  add ("/mirror-read/offline", test_offline, 0);
  add_write_mostly ("/mirror-read/write-mostly/not-read",
                    test_write_mostly, 1);
  add_write_mostly ("/mirror-read/write-mostly/others-offline",
                    test_write_mostly_offline, 1);
  add_write_mostly ("/mirror-read/write-mostly/others-fail",
                    test_write_mostly_failed, 1);
  add_write_mostly ("/mirror-read/write-mostly/others-out-of-sync",
                    test_write_mostly_out_of_sync, 1);
  add_write_mostly ("/mirror-read/write-mostly/all",
                    test_all_write_mostly, 7);
  add_first ("/mirror-read/write-mostly/first", test_write_mostly_first, 1);
  add ("/mirror-read/failover/0", test_failover, 0);
  add ("/mirror-read/failover/1", test_failover, 1);
  add ("/mirror-read/failover/2", test_failover, 2);
  add ("/mirror-read/all-fail", test_all_fail, 0);
  add ("/mirror-read/dropped-meanwhile", test_dropped_meanwhile, 0);
  add ("/mirror-read/last-leg-online", test_last_leg_online, 0);
  add ("/mirror-read/value-stays/first-sector", test_value_stays, 8);
  add ("/mirror-read/value-stays/last-sector", test_value_stays, 15);
  add ("/mirror-read/extents-wait-for-writes", test_extents_wait, 0);
  add ("/mirror-read/readers-together", test_readers_together, 0);
  add ("/mirror-read/waiting-reader", test_waiting_reader, 0);
  add ("/mirror-read/readers-go-on-together",
       test_readers_go_on_together, 0);
  add ("/mirror-read/others-go-on", test_others_go_on, 0);
  g_test_add_data_func ("/mirror-read/oracle/copies", &copies, test_oracle);
  g_test_add_data_func ("/mirror-read/oracle/waits", &waits, test_oracle);
  return g_test_run ();
}
