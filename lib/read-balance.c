/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The answer is expected first from the leg whose queue is soonest through:
 * (reads in flight + 1) * latency.
 *
 * The latency of a leg is a moving average.  That of legs not chosen slowly
 * decays, so that a leg which was slow once is tried again: a very slow one
 * after some thousand reads, a failing one somewhat later.
 *
 * Between legs that are nearly as good the first is taken, since to spread
 * reads over equal, idle legs only fills the caches with the same data
 * twice.
 */

#include <config.h>

#include <glib.h>

#include "read-balance.h"

/* A latency is never less, or many reads at once would all go to a leg
 * that has not been measured.
 */
#define LEAST_LATENCY 1000
/* What a failed read counts for, at least. */
#define FAILED_LATENCY 1000000000

/* Weights, as powers of two: of a read in the average, and of the decay. */
#define AVERAGE_SHIFT 3
#define DECAY_SHIFT 10

/* A read belongs to a stream if it begins this close to where that was:
 * requests in flight together come in any order.
 */
#define STREAM_SECTORS (2 * 1024 * 1024 / DM_IO_SECTOR_SIZE)

/* It stays on its leg until that is so many times slower than another. */
#define STREAM_PATIENCE 16

/* A stream is a sector, of which there are less than 2^55, and a leg. */
#define LEG_BITS 6
#define LEG_MASK ((1 << LEG_BITS) - 1)
G_STATIC_ASSERT (DM_IO_MAX_REGIONS <= LEG_MASK + 1);

#define LOAD(x) __atomic_load_n (&(x), __ATOMIC_RELAXED)
#define STORE(x, value) __atomic_store_n (&(x), value, __ATOMIC_RELAXED)

void
read_balance_init (struct read_balance *b)
{
  size_t i;

  *b = (struct read_balance) { 0 };
  for (i = 0; i < G_N_ELEMENTS (b->legs); i++)
    b->legs[i].latency = LEAST_LATENCY;
  for (i = 0; i < G_N_ELEMENTS (b->streams); i++)
    b->streams[i] = UINT64_MAX;        /* nowhere near */
}

static uint64_t
cost (const struct read_balance *b, unsigned int leg)
{
  return (LOAD (b->legs[leg].in_flight) + 1) * LOAD (b->legs[leg].latency);
}

static unsigned int
soonest (const struct read_balance *b, unsigned long legs)
{
  unsigned int best = __builtin_ctzl (legs), i;
  uint64_t least = cost (b, best), other;

  for (legs &= legs - 1; legs != 0; legs &= legs - 1) {
    i = __builtin_ctzl (legs);
    other = cost (b, i);
    if (other + other / 4 < least) {
      best = i;
      least = other;
    }
  }
  return best;
}

static void
decay (struct read_balance *b, unsigned long legs)
{
  uint64_t latency;
  unsigned int i;

  for (; legs != 0; legs &= legs - 1) {
    i = __builtin_ctzl (legs);
    latency = LOAD (b->legs[i].latency);
    if (latency > LEAST_LATENCY)
      STORE (b->legs[i].latency, latency - (latency >> DECAY_SHIFT));
  }
}

/* The stream that the read belongs to and its leg, or -1. */
static int
find_stream (const struct read_balance *b, unsigned long legs,
             sector_t sector, unsigned int *leg)
{
  uint64_t stream;
  int i;

  for (i = 0; i < READ_BALANCE_STREAMS; i++) {
    stream = LOAD (b->streams[i]);
    *leg = stream & LEG_MASK;
    if (sector - (stream >> LEG_BITS) + STREAM_SECTORS <=
        2 * STREAM_SECTORS && legs & 1UL << *leg)
      return i;
  }
  return -1;
}

unsigned int
read_balance_choose (struct read_balance *b, unsigned long legs,
                     sector_t sector, sector_t count)
{
  unsigned int best = soonest (b, legs), leg;
  int stream = find_stream (b, legs, sector, &leg);

  if (stream < 0)
    stream = __atomic_fetch_add (&b->next_stream, 1, __ATOMIC_RELAXED) %
      READ_BALANCE_STREAMS;
  else if (cost (b, leg) <= STREAM_PATIENCE * cost (b, best))
    best = leg;
  decay (b, legs & ~(1UL << best));
  STORE (b->streams[stream], (sector + count) << LEG_BITS | best);
  return best;
}

void
read_balance_begin (struct read_balance *b, unsigned int leg)
{
  __atomic_add_fetch (&b->legs[leg].in_flight, 1, __ATOMIC_RELAXED);
}

void
read_balance_end (struct read_balance *b, unsigned int leg, bool ok,
                  uint64_t nsec)
{
  int64_t old = LOAD (b->legs[leg].latency), now;

  now = ok ? old + (((int64_t) nsec - old) >> AVERAGE_SHIFT) :
    MAX ((int64_t) nsec, FAILED_LATENCY);
  STORE (b->legs[leg].latency, (uint64_t) MAX (now, LEAST_LATENCY));
  __atomic_sub_fetch (&b->legs[leg].in_flight, 1, __ATOMIC_RELAXED);
}
