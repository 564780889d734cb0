/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Range locks: what overlaps waits, in the order in which it came, and
 * nothing else does; and one can wait without being in anybody's way.
 */

#include <config.h>

#include "range-lock.h"
#include "test-util.h"

/* Locks, by number, [10, 20), [30, 40) and [50, 60). */
#define LOCKS 3

struct passer {
  struct range_locks *locks;
  uint64_t start, length;
  pthread_t thread;
  bool done;                    /* atomic */
};

struct fixture {
  struct range_locks locks;
  struct range_lock held[LOCKS];
  struct passer passers[32];
  unsigned int nr_passers;
};

static void
set_up (struct fixture *f, gconstpointer unused)
{
  range_locks_init (&f->locks);
}

/* All that wait have been let go. */
static void
tear_down (struct fixture *f, gconstpointer unused)
{
  while (f->nr_passers > 0)
    g_assert_cmpint (pthread_join (f->passers[--f->nr_passers].thread, NULL),
                     ==, 0);
  range_locks_fini (&f->locks);
}

static void
hold (struct fixture *f, unsigned int n)
{
  range_lock (&f->locks, &f->held[n], 10 + 20 * n, 10);
}

static void
release (struct fixture *f, unsigned int n)
{
  range_unlock (&f->locks, &f->held[n]);
}

static void *
passer_main (void *arg)
{
  struct passer *p = arg;

  range_wait (p->locks, p->start, p->length);
  __atomic_store_n (&p->done, true, __ATOMIC_RELEASE);
  return NULL;
}

static bool
has_passed (const struct passer *p)
{
  return __atomic_load_n (&p->done, __ATOMIC_ACQUIRE);
}

/* Who waits for the range does wait; that is one of passers from now on. */
static void
assert_locked (struct fixture *f, uint64_t start, uint64_t length)
{
  struct passer *p = &f->passers[f->nr_passers++];

  g_assert_cmpuint (f->nr_passers, <=, G_N_ELEMENTS (f->passers));
  *p = (struct passer) {
    .locks = &f->locks, .start = start, .length = length,
  };
  g_assert_cmpint (pthread_create (&p->thread, NULL, passer_main, p), ==, 0);
  g_usleep (5000);
  g_assert_false (has_passed (p));
}

/* Who waits for the range does not, nor for any of passers. */
static void
assert_free (struct fixture *f, uint64_t start, uint64_t length)
{
  range_wait (&f->locks, start, length);
}

static void
test_overlap (struct fixture *f, gconstpointer unused)
{
  assert_free (f, 0, 100);
  hold (f, 0);
  assert_locked (f, 10, 10);
  assert_locked (f, 0, 11);
  assert_locked (f, 19, 1);
  assert_locked (f, 19, 100);
  assert_locked (f, 12, 3);
  assert_locked (f, 0, 100);
  assert_free (f, 0, 10);
  assert_free (f, 9, 1);
  assert_free (f, 20, 1);
  assert_free (f, 20, UINT64_MAX / 2);
  release (f, 0);
  assert_free (f, 0, 100);
}

/* In whatever order they are released. */
static void
test_several (struct fixture *f, gconstpointer unused)
{
  static const unsigned int orders[][LOCKS] = {
    { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 },
    { 2, 1, 0 },
  };
  unsigned int i, j, n;

  for (i = 0; i < G_N_ELEMENTS (orders); i++) {
    for (n = 0; n < LOCKS; n++)
      hold (f, n);
    for (j = 0; j < LOCKS; j++) {
      assert_free (f, 20, 10);
      assert_free (f, 40, 10);
      if (j == LOCKS - 1)
        assert_locked (f, 0, 100);
      release (f, orders[i][j]);
      assert_free (f, 10 + 20 * orders[i][j], 10);
    }
    assert_free (f, 0, 100);
  }
}

/* Beyond 32 bits, too. */
static void
test_large (struct fixture *f, gconstpointer unused)
{
  const uint64_t start = UINT64_C (1) << 54;

  range_lock (&f->locks, &f->held[0], start, start);
  assert_locked (f, start, 1);
  assert_locked (f, 2 * start - 1, 1);
  assert_free (f, 0, start);
  assert_free (f, 2 * start, start);
  release (f, 0);
}

/* A thread that locks a range, and unlocks it at once. */
struct waiter {
  pthread_t thread;
  struct fixture *f;
  uint64_t start, length;
  unsigned int *turn;           /* owned by who holds the range */
  unsigned int got;             /* its turn, when it had the range */
  bool done;                    /* atomic */
};

static void *
waiter_main (void *arg)
{
  struct waiter *w = arg;
  struct range_lock range;

  range_lock (&w->f->locks, &range, w->start, w->length);
  w->got = ++*w->turn;
  range_unlock (&w->f->locks, &range);
  __atomic_store_n (&w->done, true, __ATOMIC_RELEASE);
  return NULL;
}

static bool
is_done (const struct waiter *w)
{
  return __atomic_load_n (&w->done, __ATOMIC_ACQUIRE);
}

/* Start it, and give it the time to get in line. */
static void
start_waiter (struct waiter *w, struct fixture *f, uint64_t start,
              uint64_t length, unsigned int *turn)
{
  *w = (struct waiter) {
    .f = f, .start = start, .length = length, .turn = turn,
  };
  g_assert_cmpint (pthread_create (&w->thread, NULL, waiter_main, w), ==, 0);
  g_usleep (20000);
}

static void
join (struct waiter *w)
{
  g_assert_cmpint (pthread_join (w->thread, NULL), ==, 0);
}

/* Those that overlap have their turns in the order in which they came; one
 * beside them does not wait.  One that waits can itself be waited for.
 */
static void
test_waiting (struct fixture *f, gconstpointer unused)
{
  unsigned int turn = 0, other_turn = 0, i;
  struct waiter waiters[3], beside = {
    .f = f, .start = 100, .length = 5, .turn = &other_turn,
  };

  hold (f, 0);
  hold (f, 1);
  start_waiter (&waiters[0], f, 15, 10, &turn);
  start_waiter (&waiters[1], f, 0, 25, &turn);
  start_waiter (&waiters[2], f, 5, 85, &turn);
  g_assert_cmpint (pthread_create (&beside.thread, NULL, waiter_main,
                                   &beside), ==, 0);
  join (&beside);

  assert_locked (f, 80, 1);
  for (i = 0; i < 3; i++)
    g_assert_false (is_done (&waiters[i]));
  release (f, 0);
  join (&waiters[0]);
  join (&waiters[1]);
  g_usleep (10000);
  g_assert_false (is_done (&waiters[2]));
  assert_locked (f, 80, 1);
  release (f, 1);
  join (&waiters[2]);
  for (i = 0; i < 3; i++)
    g_assert_cmpuint (waiters[i].got, ==, i + 1);
  assert_free (f, 0, 200);
}

/* A lock is had at once where others only wait for it. */
static void
test_passing (struct fixture *f, gconstpointer unused)
{
  hold (f, 0);
  assert_locked (f, 0, 60);
  assert_locked (f, 15, 60);
  hold (f, 1);
  hold (f, 2);
  assert_free (f, 0, 10);
  release (f, 1);
  assert_locked (f, 0, 60);
  g_assert_false (has_passed (&f->passers[1]));

  /* They were there before the last one. */
  release (f, 0);
  while (!has_passed (&f->passers[0]) || !has_passed (&f->passers[1]))
    g_usleep (1000);
  g_assert_false (has_passed (&f->passers[2]));
  release (f, 2);
}

static void
add (const char *path, void (*test) (struct fixture *, gconstpointer))
{
  g_test_add (path, struct fixture, NULL, set_up, test, tear_down);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  add ("/range-lock/overlap", test_overlap);
  add ("/range-lock/several", test_several);
  add ("/range-lock/large", test_large);
  add ("/range-lock/waiting", test_waiting);
  add ("/range-lock/passing", test_passing);
  return g_test_run ();
}
