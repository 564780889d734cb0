/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Asynchronous requests, callbacks and threads.
 *
 * C1 the callback comes exactly once, may free its context and submit
 * again, on a bounded stack; C2 the caller's lists may die when the call
 * returns; C3 signals do not disturb a synchronous request, which can
 * also be made in a callback; and many threads submit at once.
 *
 * Meant for AddressSanitizer and ThreadSanitizer too.
 */

#include <config.h>

#include <signal.h>

#include "test-util.h"

#define SECTORS 8
#define SIZE (SECTORS * SECTOR)

static const struct mock_options plain;
static const struct mock_options waits = { .always_waits = true };

static unsigned char data[SIZE];

/*----------------------------------------------------------------------
 * C1
 */

/* What a callback has to free, and what it has to find.  Called a second
 * time it would use freed memory, and post once too often.
 */
struct context {
  unsigned long expected;
  unsigned int *calls;          /* atomic */
  sem_t *sem;
};

static void
free_context (unsigned long error, void *context)
{
  struct context *c = context;
  sem_t *sem = c->sem;

  g_assert_cmphex (error, ==, c->expected);
  __atomic_add_fetch (c->calls, 1, __ATOMIC_RELAXED);
  g_free (c);
  sem_post (sem);
}

#define MIXED 5

/* Regions of all kinds: they do not wait, wait, fail, are outside the
 * device or empty.
 */
static void
open_mixed (struct io_region *where)
{
  const struct mock_fault eio = { .ops = MOCK_ANY, .error = EIO };

  open_mocks (&where[0], 1, SECTORS, &plain);
  open_mocks (&where[1], 4, SECTORS, &waits);
  mock_fault (where[2].bdev, &eio);
  where[3].sector = 1;
  where[4].count = 0;
}

/* From which of them on, how many, and which of those fail. */
static void
test_c1_once (void)
{
  static const enum dm_io_op ops[] = {
    DM_IO_READ, DM_IO_WRITE, DM_IO_FLUSH, DM_IO_DISCARD, DM_IO_WRITE_ZEROES,
  };
  const unsigned int rounds = 2000;
  g_autofree unsigned int *calls = g_new0 (unsigned int, rounds);
  struct rng rng = rng_random ();
  struct io_region where[MIXED];
  struct dm_io_request req;
  struct context *c;
  unsigned int i, first, n;
  sem_t sem;

  sem_init (&sem, 0, 0);
  open_mixed (where);
  for (i = 0; i < rounds; i++) {
    req = vm_request (ops[rng_below (&rng, G_N_ELEMENTS (ops))], NULL);
    first = rng_below (&rng, MIXED);
    n = req.op == DM_IO_READ ? 1 : 1 + rng_below (&rng, MIXED - first);
    c = g_new (struct context, 1);
    c->expected = (req.op == DM_IO_FLUSH ? 1 << 2 :
                   req.op == DM_IO_DISCARD ? 1 << 3 : 1 << 2 | 1 << 3)
      >> first & ((1 << n) - 1);
    c->calls = &calls[i];
    c->sem = &sem;
    /* Concurrent reads need buffers of their own. */
    req.mem.ptr.vm = req.op == DM_IO_READ ? g_malloc (SIZE) : data;
    req.fn = free_context;
    req.context = c;
    g_assert_cmpint (dm_io (&req, n, &where[first], NULL), ==, 0);
    test_sem_wait (&sem);
    if (req.op == DM_IO_READ)
      g_free (req.mem.ptr.vm);
  }
  close_mocks (where, MIXED);
  for (i = 0; i < rounds; i++)
    g_assert_cmpuint (calls[i], ==, 1);
  g_assert_cmpint (sem_trywait (&sem), ==, -1);
}

/* The same, with as many in flight as possible. */
static void
test_c1_once_in_flight (void)
{
  const unsigned int rounds = 2000;
  g_autofree unsigned int *calls = g_new0 (unsigned int, rounds);
  struct io_region where[MIXED];
  struct context *c;
  unsigned int i;
  sem_t sem;

  sem_init (&sem, 0, 0);
  open_mixed (where);
  for (i = 0; i < rounds; i++) {
    c = g_new (struct context, 1);
    *c = (struct context) { 1 << 2 | 1 << 3, &calls[i], &sem };
    g_assert_cmpint (dm_io_async_vm (MIXED, where, WRITE, data,
                                     free_context, c), ==, 0);
  }
  for (i = 0; i < rounds; i++)
    test_sem_wait (&sem);
  close_mocks (where, MIXED);
  for (i = 0; i < rounds; i++)
    g_assert_cmpuint (calls[i], ==, 1);
  g_assert_cmpint (sem_trywait (&sem), ==, -1);
}

/* A chain of requests, each submitted by the callback of the one before
 * with a new context.
 */
struct chain {
  struct io_region where[2];
  unsigned long expected;
  unsigned int left;            /* of the requests; atomic */
  unsigned int branches;        /* submitted by each callback */
  sem_t end;
};

struct link {
  struct chain *chain;
};

static void chain_callback (unsigned long error, void *context);

static void
chain_submit (struct chain *chain)
{
  struct link *link = g_new (struct link, 1);

  link->chain = chain;
  g_assert_cmpint (dm_io_async_vm (2, chain->where, WRITE, data,
                                   chain_callback, link), ==, 0);
}

static void
chain_callback (unsigned long error, void *context)
{
  struct link *link = context;
  struct chain *chain = link->chain;
  unsigned int i;

  check_stack ();
  g_free (link);
  g_assert_cmphex (error, ==, chain->expected);
  for (i = 0; i < chain->branches; i++)
    if (take_one (&chain->left))
      chain_submit (chain);
  sem_post (&chain->end);
}

/* LENGTH requests in all. */
static void
run_chain (struct chain *chain, unsigned int branches, unsigned int length)
{
  unsigned int i;

  sem_init (&chain->end, 0, 0);
  chain->branches = branches;
  chain->left = length - 1;
  chain_submit (chain);
  for (i = 0; i < length; i++)
    test_sem_wait (&chain->end);
}

static void
check_chains (const struct mock_options *options, sector_t sector,
              sector_t count, unsigned long expected, unsigned int length)
{
  struct chain chain = { .expected = expected };
  unsigned int i;

  open_mocks (chain.where, 2, SECTORS, options);
  for (i = 0; i < 2; i++) {
    chain.where[i].sector = sector;
    chain.where[i].count = count;
  }
  run_chain (&chain, 1, length);
  run_chain (&chain, 3, 2000);
  close_mocks (chain.where, 2);
}

static void
test_c1_chain (void)
{
  check_chains (&plain, 0, 1, 0, 100000);
}

static void
test_c1_chain_waits (void)
{
  check_chains (&waits, 0, 1, 0, 10000);
}

static void
test_c1_chain_of_nothing (void)
{
  check_chains (&plain, 0, 0, 0, 100000);
}

static void
test_c1_chain_of_errors (void)
{
  check_chains (&plain, SECTORS, 1, 3, 100000);
}

/*----------------------------------------------------------------------
 * C2
 */

/* All that describes a request, in memory of its own. */
struct dying {
  struct dm_io_request req;
  struct io_region where[3];
  struct page_list pl[20];
  struct bio_vec bvec[20];
};

/* The pages live on. */
static struct dying *
new_dying (struct io_region *where, enum dm_io_mem_type type,
           struct page *pages, unsigned int n)
{
  struct dying *d = g_new0 (struct dying, 1);
  unsigned int i;

  memcpy (d->where, where, sizeof d->where);
  for (i = 0; i < n; i++) {
    d->pl[i].next = i < n - 1 ? &d->pl[i+1] : NULL;
    d->pl[i].page = &pages[n-1-i];
    d->bvec[i] = (struct bio_vec) { &pages[n-1-i], PAGE, 0 };
  }
  d->req.mem.type = type;
  d->req.mem.length = n * PAGE;
  if (type == DM_IO_PAGE_LIST)
    d->req.mem.ptr.pl = d->pl;
  else if (type == DM_IO_BVEC)
    d->req.mem.ptr.bvec = d->bvec;
  else
    d->req.mem.ptr.vm = pages;
  return d;
}

/* Submit N pages, and take the lists away while the devices wait. */
static void
check_dying (enum dm_io_mem_type type, unsigned int n, bool read)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = { .ops = MOCK_ANY, .gate = &gate };
  const unsigned int regions = read ? 1 : 3;
  struct page *pages = new_pages (n), *expected = new_pages (n);
  struct io_region where[3];
  struct dying *d;
  struct done done;
  unsigned int i;

  open_mocks (where, 3, n * SECTORS, &waits);
  mock_close (where[1].bdev);
  where[1].bdev = mock_open ("plain", n * PAGE, &plain);
  fill (pages, n * PAGE, n);
  for (i = 0; i < n; i++)
    expected[i] = pages[type == DM_IO_VM ? i : n-1-i];
  mock_set (where[0].bdev, 0, expected, n * PAGE);
  if (read)
    memset (pages, 0xaa, n * PAGE);
  for (i = 0; i < regions; i++)
    mock_fault (where[i].bdev, &hold);

  done_init (&done);
  d = new_dying (where, type, pages, n);
  d->req.op = read ? DM_IO_READ : DM_IO_WRITE;
  d->req.fn = done_callback;
  d->req.context = &done;
  g_assert_cmpint (dm_io (&d->req, regions, d->where, NULL), ==, 0);
  memset (d, 0xee, sizeof *d);
  g_free (d);
  mock_gate_await (&gate, regions);
  g_assert_cmpuint (done_calls (&done), ==, 0);
  mock_gate_open (&gate);
  g_assert_cmphex (done_wait (&done), ==, 0);

  for (i = 0; i < regions; i++)
    assert_same (mock_data (where[i].bdev), expected, n * PAGE);
  for (i = 0; i < n; i++)
    assert_same (&pages[type == DM_IO_VM ? i : n-1-i], &expected[i], PAGE);
  close_mocks (where, 3);
  free (pages);
  free (expected);
}

static void
test_c2_lists_die (void)
{
  static const unsigned int counts[] = { 1, 8, 9, 20 };
  unsigned int i;
  int type;

  for (type = DM_IO_PAGE_LIST; type <= DM_IO_VM; type++)
    for (i = 0; i < G_N_ELEMENTS (counts); i++) {
      check_dying (type, counts[i], false);
      check_dying (type, counts[i], true);
    }
}

/*----------------------------------------------------------------------
 * C3
 */

static volatile sig_atomic_t signals;

static void
count_signal (int sig)
{
  signals++;
}

struct storm {
  pthread_t target;
  bool stop;                    /* atomic */
};

static void *
raise_storm (void *context)
{
  struct storm *storm = context;

  while (!__atomic_load_n (&storm->stop, __ATOMIC_RELAXED)) {
    pthread_kill (storm->target, SIGUSR1);
    g_usleep (50);
  }
  return NULL;
}

/* As many synchronous requests as it takes for many signals to come. */
static void
test_c3_signals (void)
{
  const struct sigaction sa = { .sa_handler = count_signal };
  const struct mock_fault slow = { .ops = MOCK_ANY, .msec = 1 };
  const struct mock_fault again = {
    .ops = MOCK_ANY, .error = EAGAIN, .times = 20
  };
  struct storm storm = { .target = pthread_self () };
  struct io_region where[3];
  unsigned char buf[SIZE];
  struct sigaction old;
  pthread_t thread;
  unsigned int i;

  sigaction (SIGUSR1, &sa, &old);
  open_mocks (where, 3, SECTORS, &waits);
  for (i = 0; i < 3; i++) {
    mock_fault (where[i].bdev, &slow);
    mock_fault (where[i].bdev, &again);
  }
  signals = 0;
  g_assert_cmpint (pthread_create (&thread, NULL, raise_storm, &storm),
                   ==, 0);
  for (i = 0; i < 10 || signals < 100; i++) {
    struct dm_io_request flush = { .op = DM_IO_FLUSH };

    fill (data, SIZE, i);
    g_assert_cmpint (dm_io_sync_vm (3, where, WRITE, data, NULL), ==, 0);
    g_assert_cmpint (dm_io (&flush, 3, where, NULL), ==, 0);
    g_assert_cmpint (dm_io_sync_vm (1, &where[i % 3], READ, buf, NULL),
                     ==, 0);
    assert_same (buf, data, SIZE);
  }
  __atomic_store_n (&storm.stop, true, __ATOMIC_RELAXED);
  pthread_join (thread, NULL);
  sigaction (SIGUSR1, &old, NULL);
  close_mocks (where, 3);
}

/* The library's threads leave signals to the program: while its only
 * thread blocks one, that one stays pending.
 */
static void
test_c3_signals_are_the_programs (void)
{
  const struct sigaction sa = { .sa_handler = count_signal };
  struct sigaction old;
  struct io_region where[3];
  struct done done;
  sigset_t set, pending;

  open_mocks (where, 3, SECTORS, &waits);
  done_init (&done);
  g_assert_cmpint (dm_io_async_vm (3, where, WRITE, data, done_callback,
                                   &done), ==, 0);
  g_assert_cmphex (done_wait (&done), ==, 0);

  signals = 0;
  sigaction (SIGUSR1, &sa, &old);
  sigemptyset (&set);
  sigaddset (&set, SIGUSR1);
  pthread_sigmask (SIG_BLOCK, &set, NULL);
  kill (getpid (), SIGUSR1);
  sigpending (&pending);
  g_assert_true (sigismember (&pending, SIGUSR1));
  pthread_sigmask (SIG_UNBLOCK, &set, NULL);
  close_mocks (where, 3);
  g_assert_cmpint (signals, ==, 1);
  sigaction (SIGUSR1, &old, NULL);
}

/* More callbacks than there can be threads, each of which makes a
 * synchronous request that has to wait for three devices.
 */
#define CALLBACKS 300

struct nested {
  struct io_region outer[1];
  struct io_region inner[3];
  unsigned int calls;           /* atomic */
  sem_t end;
};

static void
sync_callback (unsigned long error, void *context)
{
  struct nested *nested = context;
  unsigned char buf[SIZE];
  unsigned long bits = ~0UL;

  g_assert_cmphex (error, ==, 0);
  g_assert_cmpint (dm_io_sync_vm (3, nested->inner, WRITE, data, &bits),
                   ==, 0);
  g_assert_cmphex (bits, ==, 0);
  g_assert_cmpint (dm_io_sync_vm (1, nested->inner, READ, buf, &bits),
                   ==, 0);
  assert_same (buf, data, SIZE);
  __atomic_add_fetch (&nested->calls, 1, __ATOMIC_RELAXED);
  sem_post (&nested->end);
}

static void
test_c3_sync_in_callback (void)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = { .ops = MOCK_ANY, .gate = &gate };
  const struct mock_fault slow = { .ops = MOCK_ANY, .msec = 1 };
  struct nested nested = { .calls = 0 };
  unsigned int i;

  sem_init (&nested.end, 0, 0);
  fill (data, SIZE, 30);
  open_mocks (nested.outer, 1, SECTORS, &waits);
  open_mocks (nested.inner, 3, SECTORS, &waits);
  mock_fault (nested.outer[0].bdev, &hold);
  for (i = 0; i < 3; i++)
    mock_fault (nested.inner[i].bdev, &slow);
  for (i = 0; i < CALLBACKS; i++)
    g_assert_cmpint (dm_io_async_vm (1, nested.outer, WRITE, data,
                                     sync_callback, &nested), ==, 0);
  mock_gate_await (&gate, 1);
  mock_gate_open (&gate);
  for (i = 0; i < CALLBACKS; i++)
    test_sem_wait (&nested.end);
  close_mocks (nested.outer, 1);
  close_mocks (nested.inner, 3);
  g_assert_cmpuint (nested.calls, ==, CALLBACKS);
}

/*----------------------------------------------------------------------
 * Many threads
 */

#define THREADS 8
#define ROUNDS 200
#define DEPTH 8
#define SLICE 4                 /* sectors of one request in flight */

/* Each thread has a slice of all devices for each of its requests. */
struct submitter {
  pthread_t thread;
  unsigned int index;
  struct io_region where[4];
};

static void
check_slice (struct submitter *s, unsigned int slot,
             const unsigned char *expected)
{
  unsigned char buf[SLICE * SECTOR];
  struct io_region from;
  unsigned int i;

  for (i = 0; i < 4; i++) {
    from = s->where[i];
    from.sector = (s->index * DEPTH + slot) * SLICE;
    from.count = SLICE;
    memset (buf, 0xaa, sizeof buf);
    g_assert_cmpint (dm_io_sync_vm (1, &from, READ, buf, NULL), ==, 0);
    assert_same (buf, expected, sizeof buf);
  }
}

static void *
submit_many (void *context)
{
  struct submitter *s = context;
  struct rng rng = { s->index };
  unsigned char bufs[DEPTH][SLICE * SECTOR];
  struct dm_io_request req = { .op = DM_IO_WRITE };
  struct io_region where[4];
  struct done done[DEPTH];
  unsigned int round, slot, i;

  for (round = 0; round < ROUNDS / DEPTH; round++) {
    for (slot = 0; slot < DEPTH; slot++) {
      fill (bufs[slot], sizeof bufs[slot], rng_next (&rng));
      memcpy (where, s->where, sizeof where);
      for (i = 0; i < 4; i++) {
        where[i].sector = (s->index * DEPTH + slot) * SLICE;
        where[i].count = SLICE;
      }
      done_init (&done[slot]);
      req = vm_request (DM_IO_WRITE, bufs[slot]);
      req.flags = rng_below (&rng, 4);
      req.fn = done_callback;
      req.context = &done[slot];
      g_assert_cmpint (dm_io (&req, 4, where, NULL), ==, 0);
    }
    for (slot = 0; slot < DEPTH; slot++)
      g_assert_cmphex (done_wait (&done[slot]), ==, 0);
    for (slot = 0; slot < DEPTH; slot++)
      check_slice (s, slot, bufs[slot]);
  }
  return NULL;
}

static void
test_c1_many_threads (void)
{
  static const struct mock_options options[] = {
    { .max_trace = 1 }, { .max_trace = 1, .always_waits = true },
    { .max_trace = 1, .mem_align = PAGE }, { .max_trace = 1 },
  };
  struct submitter submitters[THREADS];
  struct io_region where[4];
  unsigned int i;

  for (i = 0; i < 4; i++)
    open_mocks (&where[i], 1, THREADS * DEPTH * SLICE, &options[i]);
  for (i = 0; i < THREADS; i++) {
    submitters[i].index = i;
    memcpy (submitters[i].where, where, sizeof where);
    g_assert_cmpint (pthread_create (&submitters[i].thread, NULL,
                                     submit_many, &submitters[i]), ==, 0);
  }
  for (i = 0; i < THREADS; i++)
    pthread_join (submitters[i].thread, NULL);
  close_mocks (where, 4);
}

/* The threads of the library end with the last device, and start again. */
static void
test_c1_start_and_stop (void)
{
  struct io_region where[3];
  struct done done;
  unsigned int i;

  for (i = 0; i < 300; i++) {
    open_mocks (where, 3, SECTORS, i % 2 ? &waits : &plain);
    done_init (&done);
    g_assert_cmpint (dm_io_async_vm (3, where, WRITE, data, done_callback,
                                     &done), ==, 0);
    g_assert_cmphex (done_wait (&done), ==, 0);
    close_mocks (where, 3);
  }
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  g_test_add_func ("/async/c1-once", test_c1_once);
  g_test_add_func ("/async/c1-once-in-flight", test_c1_once_in_flight);
  g_test_add_func ("/async/c1-chain", test_c1_chain);
  g_test_add_func ("/async/c1-chain-waits", test_c1_chain_waits);
  g_test_add_func ("/async/c1-chain-of-nothing", test_c1_chain_of_nothing);
  g_test_add_func ("/async/c1-chain-of-errors", test_c1_chain_of_errors);
  g_test_add_func ("/async/c1-many-threads", test_c1_many_threads);
  g_test_add_func ("/async/c1-start-and-stop", test_c1_start_and_stop);
  g_test_add_func ("/async/c2-lists-die", test_c2_lists_die);
  g_test_add_func ("/async/c3-signals", test_c3_signals);
  g_test_add_func ("/async/c3-signals-are-the-programs",
                   test_c3_signals_are_the_programs);
  g_test_add_func ("/async/c3-sync-in-callback", test_c3_sync_in_callback);
  return g_test_run ();
}
