/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The choice of the leg for a read: the shortest queue, the quicker leg in
 * proportion, a leg that was slow or failed and comes back, sequential
 * streams; and that it is always one of the set.
 *
 * There are no devices here, and no clock: the test says how long each
 * read took.
 */

#include <config.h>

#include "read-balance.h"
#include "test-util.h"

#define USEC UINT64_C (1000)
#define MSEC UINT64_C (1000000)

#define SET(n) ((n) == 64 ? ~0UL : (1UL << (n)) - 1)

/* A read has this many sectors, if nothing else is said. */
#define COUNT 8

struct fixture {
  struct read_balance balance;
  sector_t sector;              /* of the last random read */
};

static void
set_up (struct fixture *f, gconstpointer unused)
{
  read_balance_init (&f->balance);
  f->sector = 1 << 30;          /* beyond all streams */
}

static void
tear_down (struct fixture *f, gconstpointer unused)
{
}

/* A read that belongs to no stream: each is far from all before it. */
static unsigned int
choose (struct fixture *f, unsigned long legs)
{
  f->sector += 1 << 20;
  return read_balance_choose (&f->balance, legs, f->sector, COUNT);
}

/* A read of the leg, from beginning to end. */
static void
read_leg (struct fixture *f, unsigned int leg, uint64_t nsec)
{
  read_balance_begin (&f->balance, leg);
  read_balance_end (&f->balance, leg, true, nsec);
}

/* Let it be known that reads of the leg take so long. */
static void
measure (struct fixture *f, unsigned int leg, uint64_t nsec)
{
  int i;

  for (i = 0; i < 200; i++)
    read_leg (f, leg, nsec);
}

static void
begin_reads (struct fixture *f, unsigned int leg, unsigned int n)
{
  while (n-- > 0)
    read_balance_begin (&f->balance, leg);
}

/* The next N reads of the legs, none of which ends; COUNTS has an element
 * for each leg.
 */
static void
burst (struct fixture *f, unsigned long legs, unsigned int n,
       unsigned int *counts)
{
  unsigned int leg;

  while (n-- > 0) {
    leg = choose (f, legs);
    read_balance_begin (&f->balance, leg);
    counts[leg]++;
  }
}

/* Read, one after another, until LEG is chosen.  Returns how many reads
 * went to other legs, up to MAX; those take NSEC.
 */
static unsigned int
reads_before (struct fixture *f, unsigned int leg, unsigned long legs,
              uint64_t nsec, unsigned int max)
{
  unsigned int n, other;

  for (n = 0; n < max; n++) {
    other = choose (f, legs);
    if (other == leg)
      break;
    read_leg (f, other, nsec);
  }
  return n;
}

/*----------------------------------------------------------------------
 * The soonest
 */

/* The first of equal and idle ones, also after many reads. */
static void
test_idle (struct fixture *f, gconstpointer unused)
{
  unsigned int i, leg;

  for (i = 0; i < 1000; i++) {
    leg = choose (f, SET (3) << 1);
    g_assert_cmpuint (leg, ==, 1);
    for (leg = 1; leg < 4; leg++)
      read_leg (f, leg, 100 * USEC);
  }
}

static void
test_fewest_in_flight (struct fixture *f, gconstpointer unused)
{
  unsigned int i;

  for (i = 0; i < 4; i++) {
    measure (f, i, 100 * USEC);
    begin_reads (f, i, i == 2 ? 1 : 3 + i);
  }
  g_assert_cmpuint (choose (f, SET (4)), ==, 2);
  g_assert_cmpuint (choose (f, SET (4) & ~(1UL << 2)), ==, 0);
  begin_reads (f, 2, 9);
  begin_reads (f, 0, 9);
  g_assert_cmpuint (choose (f, SET (4)), ==, 1);

  /* What has ended is not in flight. */
  for (i = 0; i < 6; i++)
    read_balance_end (&f->balance, 3, true, 100 * USEC);
  g_assert_cmpuint (choose (f, SET (4)), ==, 3);
}

/* Legs that have not been measured, or are all the same, get their parts
 * of a burst.
 */
static void
test_burst (struct fixture *f, gconstpointer data)
{
  unsigned int legs = GPOINTER_TO_UINT (data), i;
  unsigned int counts[DM_IO_MAX_REGIONS] = { 0 };

  burst (f, SET (legs), 16 * legs, counts);
  for (i = 0; i < legs; i++) {
    g_assert_cmpuint (counts[i], >=, 8);
    g_assert_cmpuint (counts[i], <=, 32);
  }
}

/* Also if they are all too quick to be measured. */
static void
test_burst_no_time (struct fixture *f, gconstpointer unused)
{
  measure (f, 0, 0);
  measure (f, 1, 0);
  test_burst (f, GUINT_TO_POINTER (2));
}

/* Of reads at the same time a leg gets as many as it can do in the time
 * of the others; of reads one after another the slower one gets none.
 */
static void
test_proportion (struct fixture *f, gconstpointer unused)
{
  unsigned int counts[3] = { 0 };

  measure (f, 0, 400 * USEC);
  measure (f, 1, 100 * USEC);
  measure (f, 2, 800 * USEC);
  g_assert_cmpuint (reads_before (f, 0, SET (2), 100 * USEC, 100), ==, 100);

  measure (f, 0, 400 * USEC);
  measure (f, 2, 800 * USEC);
  burst (f, SET (3), 110, counts);      /* 20, 80 and 10 */
  g_assert_cmpuint (counts[0], >=, 13);
  g_assert_cmpuint (counts[0], <=, 27);
  g_assert_cmpuint (counts[1], >=, 66);
  g_assert_cmpuint (counts[1], <=, 94);
  g_assert_cmpuint (counts[2], >=, 5);
  g_assert_cmpuint (counts[2], <=, 15);
}

/* One slow read among quick ones, or the other way round, is not enough. */
static void
test_outlier (struct fixture *f, gconstpointer unused)
{
  measure (f, 0, 100 * USEC);
  measure (f, 1, 200 * USEC);
  read_leg (f, 0, 300 * USEC);
  g_assert_cmpuint (choose (f, SET (2)), ==, 0);
  read_leg (f, 1, 50 * USEC);
  g_assert_cmpuint (choose (f, SET (2)), ==, 0);
  measure (f, 0, 300 * USEC);
  g_assert_cmpuint (choose (f, SET (2)), ==, 1);
}

/*----------------------------------------------------------------------
 * Legs that come back
 */

/* However slow it was it is tried again, not soon, but after a bounded
 * number of reads; and if it has recovered it is used.
 */
static void
test_recovers (struct fixture *f, gconstpointer unused)
{
  unsigned int n;

  measure (f, 0, 100 * MSEC);
  measure (f, 1, 100 * USEC);
  n = reads_before (f, 0, SET (2), 100 * USEC, 50000);
  g_assert_cmpuint (n, >=, 1000);
  g_assert_cmpuint (n, <, 50000);

  /* Still slow. */
  read_leg (f, 0, 100 * MSEC);
  n = reads_before (f, 0, SET (2), 100 * USEC, 50000);
  g_assert_cmpuint (n, >=, 1000);
  g_assert_cmpuint (n, <, 50000);

  /* As quick as before. */
  read_leg (f, 0, 20 * USEC);
  for (n = 0; n < 20; n++) {
    g_assert_cmpuint (choose (f, SET (2)), ==, 0);
    read_leg (f, 0, 20 * USEC);
  }
}

/* One that is not much slower is not left for long because of one read. */
static void
test_recovers_soon (struct fixture *f, gconstpointer unused)
{
  measure (f, 0, 100 * USEC);
  measure (f, 1, 100 * USEC);
  read_leg (f, 0, 2 * MSEC);
  g_assert_cmpuint (choose (f, SET (2)), ==, 1);
  g_assert_cmpuint (reads_before (f, 0, SET (2), 100 * USEC, 5000), <, 5000);
}

/* A failed read, however soon it failed. */
static void
test_failed (struct fixture *f, gconstpointer unused)
{
  unsigned int n, counts[3] = { 0 };

  for (n = 0; n < 3; n++)
    measure (f, n, 100 * USEC);
  read_balance_begin (&f->balance, 0);
  read_balance_end (&f->balance, 0, false, 1 * USEC);
  burst (f, SET (3), 500, counts);
  g_assert_cmpuint (counts[0], ==, 0);
  for (n = 0; n < 500; n++)
    read_balance_end (&f->balance, n < counts[1] ? 1 : 2, true, 100 * USEC);
  n = reads_before (f, 0, SET (3), 100 * USEC, 100000);
  g_assert_cmpuint (n, >=, 1000);
  g_assert_cmpuint (n, <, 100000);
}

/* If there is no other, it is used, and what is measured then counts. */
static void
test_failed_alone (struct fixture *f, gconstpointer unused)
{
  unsigned int i;

  for (i = 0; i < 2; i++) {
    read_balance_begin (&f->balance, i);
    read_balance_end (&f->balance, i, false, 1 * USEC);
  }
  g_assert_cmpuint (choose (f, 1UL << 1), ==, 1);
  measure (f, 1, 100 * USEC);
  g_assert_cmpuint (choose (f, SET (2)), ==, 1);
}

/*----------------------------------------------------------------------
 * Streams
 */

#define STREAM_COUNT 256        /* 128 KiB */

/* Reads of a stream, in order but for those in a WINDOW, which come the
 * other way round.  All have to go to LEG.
 */
static void
stream (struct fixture *f, unsigned long legs, sector_t start,
        unsigned int reads, unsigned int window, unsigned int leg)
{
  unsigned int i, nth;

  for (i = 0; i < reads; i++) {
    nth = i - i % window + window - 1 - i % window;
    g_assert_cmpuint (read_balance_choose (&f->balance, legs,
                                           start + nth * STREAM_COUNT,
                                           STREAM_COUNT), ==, leg);
  }
}

/* Begin a stream on the leg. */
static void
begin_stream (struct fixture *f, unsigned int leg, sector_t start)
{
  g_assert_cmpuint (read_balance_choose (&f->balance, 1UL << leg, start,
                                         STREAM_COUNT), ==, leg);
}

/* A stream stays although another leg would answer sooner, with requests in
 * order or, as they come from a client that has some in flight, not quite.
 */
static void
test_stream (struct fixture *f, gconstpointer data)
{
  measure (f, 0, 100 * USEC);
  measure (f, 1, 300 * USEC);
  begin_stream (f, 1, 1 << 20);
  g_assert_cmpuint (choose (f, SET (2)), ==, 0);
  stream (f, SET (2), (1 << 20) + STREAM_COUNT, 200,
          GPOINTER_TO_UINT (data), 1);
  g_assert_cmpuint (choose (f, SET (2)), ==, 0);
}

/* Streams in turn, each on its leg, with a jump in each now and then. */
static void
test_streams (struct fixture *f, gconstpointer unused)
{
  unsigned int i, round;
  sector_t at;

  for (i = 0; i < READ_BALANCE_STREAMS; i++)
    measure (f, i, (100 + 30 * i) * USEC);
  for (i = 0; i < READ_BALANCE_STREAMS; i++)
    begin_stream (f, i, (i + 1) * 100000);
  for (round = 1; round < 100; round++)
    for (i = 0; i < READ_BALANCE_STREAMS; i++) {
      at = (i + 1) * 100000 + round * STREAM_COUNT + round % 3 * 512;
      stream (f, SET (READ_BALANCE_STREAMS), at, 1, 1, i);
    }
}

/* Reads of 32 MiB, on the last of all legs, far into the volume. */
static void
test_stream_large (struct fixture *f, gconstpointer unused)
{
  const sector_t count = 32 * 1024 * 1024 / SECTOR;
  sector_t at = UINT64_C (1) << 50;
  unsigned int i;

  measure (f, 0, 100 * USEC);
  measure (f, 63, 300 * USEC);
  g_assert_cmpuint (read_balance_choose (&f->balance, 1UL << 63, at, count),
                    ==, 63);
  for (i = 1; i < 100; i++)
    g_assert_cmpuint (read_balance_choose (&f->balance, 1UL << 63 | 1,
                                           at + i * count, count), ==, 63);
}

/* Some reads elsewhere do not end a stream. */
static void
test_stream_among_others (struct fixture *f, gconstpointer unused)
{
  unsigned int i;

  measure (f, 0, 100 * USEC);
  measure (f, 1, 300 * USEC);
  begin_stream (f, 1, 0);
  for (i = 0; i < READ_BALANCE_STREAMS - 1; i++)
    g_assert_cmpuint (choose (f, SET (2)), ==, 0);
  stream (f, SET (2), STREAM_COUNT, 10, 1, 1);
}

/* Behind a stream, but far away, is not in it. */
static void
test_not_a_stream (struct fixture *f, gconstpointer unused)
{
  const sector_t start = 1 << 20, far = 8 * 1024 * 1024 / SECTOR;
  unsigned int i;

  measure (f, 0, 100 * USEC);
  measure (f, 1, 300 * USEC);
  for (i = 0; i < 2; i++) {
    begin_stream (f, 1, start);
    g_assert_cmpuint (read_balance_choose (&f->balance, SET (2),
                                           i ? start + far : start - far,
                                           COUNT), ==, 0);
  }
}

/* A stream has patience with a leg that got slower, or busy, but not for
 * ever.
 */
static void
test_stream_leaves (struct fixture *f, gconstpointer data)
{
  bool busy = GPOINTER_TO_UINT (data);

  measure (f, 0, 100 * USEC);
  measure (f, 1, 100 * USEC);
  begin_stream (f, 1, 0);
  if (busy)
    begin_reads (f, 1, 7);
  else
    measure (f, 1, 800 * USEC);
  stream (f, SET (2), STREAM_COUNT, 100, 1, 1);
  if (busy)
    begin_reads (f, 1, 32);
  else
    measure (f, 1, 4 * MSEC);
  stream (f, SET (2), 101 * STREAM_COUNT, 100, 1, 0);

  /* It does not go back when it could. */
  if (busy) {
    while (f->balance.legs[1].in_flight > 0)
      read_balance_end (&f->balance, 1, true, 100 * USEC);
    begin_reads (f, 0, 3);
  }
  else {
    measure (f, 0, 300 * USEC);
    measure (f, 1, 100 * USEC);
  }
  stream (f, SET (2), 201 * STREAM_COUNT, 100, 1, 0);
}

/* A failed read ends a stream there. */
static void
test_stream_failed (struct fixture *f, gconstpointer unused)
{
  measure (f, 0, 5 * MSEC);
  measure (f, 1, 1 * MSEC);
  begin_stream (f, 1, 0);
  stream (f, SET (2), STREAM_COUNT, 3, 1, 1);
  read_balance_begin (&f->balance, 1);
  read_balance_end (&f->balance, 1, false, 0);
  stream (f, SET (2), 4 * STREAM_COUNT, 100, 1, 0);
}

/* Its leg cannot be read any more: it goes on with another, and stays
 * there when the first is back.
 */
static void
test_stream_leg_gone (struct fixture *f, gconstpointer unused)
{
  begin_stream (f, 2, 0);
  stream (f, SET (3), STREAM_COUNT, 10, 1, 2);
  measure (f, 0, 300 * USEC);
  measure (f, 1, 100 * USEC);
  stream (f, SET (2), 11 * STREAM_COUNT, 10, 1, 1);
  measure (f, 0, 50 * USEC);
  measure (f, 2, 200 * USEC);
  stream (f, SET (2), 21 * STREAM_COUNT, 100, 1, 1);
}

/*----------------------------------------------------------------------
 * Any set, any read
 */

static unsigned long
random_set (struct rng *rng)
{
  unsigned long set = rng_next (rng);

  switch (rng_below (rng, 4)) {
  case 0:
    set &= rng_next (rng) & rng_next (rng);
    break;
  case 1:
    set = 0;
    break;
  case 2:
    set |= 1UL << 63;
    break;
  }
  return set != 0 ? set : 1UL << rng_below (rng, 64);
}

static sector_t
random_sector (struct rng *rng)
{
  static const sector_t near[] = {
    0, 4096, 1 << 24, UINT64_C (1) << 40, (INT64_MAX / SECTOR) - 4096,
  };

  return near[rng_below (rng, G_N_ELEMENTS (near))] + rng_below (rng, 4096);
}

/* Random reads; a few are in flight.  Each leg has to be chosen. */
static unsigned long
fuzz (struct read_balance *balance, struct rng *rng, unsigned int rounds)
{
  unsigned long set, seen = 0;
  unsigned int flight[16] = { 0 }, n = 0, leg;

  while (rounds-- > 0) {
    set = random_set (rng);
    leg = read_balance_choose (balance, set, random_sector (rng),
                               rng_below (rng, 4096));
    g_assert_cmpuint (leg, <, 64);
    if (!(set & 1UL << leg))
      g_error ("leg %u is not in 0x%lx", leg, set);
    seen |= 1UL << leg;
    read_balance_begin (balance, leg);
    flight[n++] = leg;
    while (n == G_N_ELEMENTS (flight) || (n > 0 && rng_below (rng, 2)))
      read_balance_end (balance, flight[--n], rng_below (rng, 50) != 0,
                        rng_next (rng) >> (20 + rng_below (rng, 40)));
  }
  while (n > 0)
    read_balance_end (balance, flight[--n], true, 100 * USEC);
  return seen;
}

static void
test_fuzz (struct fixture *f, gconstpointer unused)
{
  struct rng rng = rng_random ();
  unsigned int i;

  g_assert_cmphex (fuzz (&f->balance, &rng, 100000), ==, ~0UL);
  for (i = 0; i < 64; i++)
    g_assert_cmpuint (choose (f, 1UL << i), ==, i);
}

#define THREADS 4

struct fuzzer {
  pthread_t thread;
  struct read_balance *balance;
  struct rng rng;
};

static void *
fuzzer_main (void *arg)
{
  struct fuzzer *z = arg;

  fuzz (z->balance, &z->rng, 30000);
  return NULL;
}

/* By threads at the same time; in the end nothing is in flight. */
static void
test_fuzz_threads (struct fixture *f, gconstpointer unused)
{
  struct rng rng = rng_random ();
  struct fuzzer fuzzers[THREADS];
  unsigned int i;

  for (i = 0; i < THREADS; i++) {
    fuzzers[i].balance = &f->balance;
    fuzzers[i].rng.state = rng_next (&rng);
    g_assert_cmpint (pthread_create (&fuzzers[i].thread, NULL, fuzzer_main,
                                     &fuzzers[i]), ==, 0);
  }
  for (i = 0; i < THREADS; i++)
    g_assert_cmpint (pthread_join (fuzzers[i].thread, NULL), ==, 0);
  for (i = 0; i < DM_IO_MAX_REGIONS; i++)
    g_assert_cmpuint (f->balance.legs[i].in_flight, ==, 0);
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
  test_init (&argc, &argv);
  add ("/read-balance/idle", test_idle, 0);
  add ("/read-balance/fewest-in-flight", test_fewest_in_flight, 0);
  add ("/read-balance/burst/2", test_burst, 2);
  add ("/read-balance/burst/64", test_burst, 64);
  add ("/read-balance/burst/no-time", test_burst_no_time, 0);
  add ("/read-balance/proportion", test_proportion, 0);
  add ("/read-balance/outlier", test_outlier, 0);
  add ("/read-balance/recovers", test_recovers, 0);
  add ("/read-balance/recovers-soon", test_recovers_soon, 0);
  add ("/read-balance/failed", test_failed, 0);
  add ("/read-balance/failed-alone", test_failed_alone, 0);
  add ("/read-balance/stream/in-order", test_stream, 1);
  add ("/read-balance/stream/out-of-order", test_stream, 8);
  add ("/read-balance/stream/several", test_streams, 0);
  add ("/read-balance/stream/large-reads", test_stream_large, 0);
  add ("/read-balance/stream/among-others", test_stream_among_others, 0);
  add ("/read-balance/stream/far-away", test_not_a_stream, 0);
  add ("/read-balance/stream/leaves-slow-leg", test_stream_leaves, false);
  add ("/read-balance/stream/leaves-busy-leg", test_stream_leaves, true);
  add ("/read-balance/stream/leaves-failed-leg", test_stream_failed, 0);
  add ("/read-balance/stream/leg-gone", test_stream_leg_gone, 0);
  add ("/read-balance/fuzz", test_fuzz, 0);
  add ("/read-balance/fuzz-threads", test_fuzz_threads, 0);
  return g_test_run ();
}
