/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <signal.h>

#include "async-cases.h"

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

void
once_begin (struct once *once, unsigned int rounds)
{
  once->rounds = rounds;
  once->calls = g_new0 (unsigned int, rounds);
  sem_init (&once->sem, 0, 0);
}

void
once_submit (struct once *once, unsigned int round,
             const struct dm_io_request *request, unsigned int n,
             const struct io_region *where, unsigned long expected)
{
  struct dm_io_request req = *request;
  struct context *c = g_new (struct context, 1);

  *c = (struct context) { expected, &once->calls[round], &once->sem };
  req.fn = free_context;
  req.context = c;
  g_assert_cmpint (dm_io (&req, n, where, NULL), ==, 0);
}

void
once_wait (struct once *once)
{
  test_sem_wait (&once->sem);
}

void
once_end (struct once *once)
{
  unsigned int i;

  for (i = 0; i < once->rounds; i++)
    g_assert_cmpuint (once->calls[i], ==, 1);
  g_assert_cmpint (sem_trywait (&once->sem), ==, -1);
  g_free (once->calls);
}

/* A chain of requests, each submitted by the callback of the one before
 * with a new context.
 */
struct chain {
  struct io_region where[MAX_WHERE];
  unsigned int n;
  void *data;
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
  g_assert_cmpint (dm_io_async_vm (chain->n, chain->where, WRITE,
                                   chain->data, chain_callback, link),
                   ==, 0);
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

void
run_chain (const struct io_region *where, unsigned int n, void *data,
           unsigned long expected, unsigned int branches,
           unsigned int length)
{
  struct chain chain = {
    .n = n, .data = data, .expected = expected,
    .left = length - 1, .branches = branches,
  };
  unsigned int i;

  memcpy (chain.where, where, n * sizeof *where);
  sem_init (&chain.end, 0, 0);
  chain_submit (&chain);
  for (i = 0; i < length; i++)
    test_sem_wait (&chain.end);
}

/*----------------------------------------------------------------------
 * C2
 */

struct dying *
new_dying (const struct io_region *where, unsigned int regions,
           enum dm_io_mem_type type, struct page *pages, unsigned int n)
{
  struct dying *d = g_new0 (struct dying, 1);
  unsigned int i;

  memcpy (d->where, where, regions * sizeof *where);
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

void
submit_dying (struct dying *d, enum dm_io_op op, unsigned int regions,
              struct done *done)
{
  done_init (done);
  d->req.op = op;
  d->req.fn = done_callback;
  d->req.context = done;
  g_assert_cmpint (dm_io (&d->req, regions, d->where, NULL), ==, 0);
  memset (d, 0xee, sizeof *d);
  g_free (d);
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

void
signal_storm (const struct io_region *where, unsigned int n)
{
  const struct sigaction sa = { .sa_handler = count_signal };
  const struct dm_io_request flush = { .op = DM_IO_FLUSH };
  const size_t size = where[0].count * SECTOR;
  g_autofree unsigned char *data = g_malloc (size);
  g_autofree unsigned char *buf = g_malloc (size);
  struct storm storm = { .target = pthread_self () };
  struct dm_io_request req;
  struct sigaction old;
  pthread_t thread;
  unsigned int i;

  sigaction (SIGUSR1, &sa, &old);
  signals = 0;
  g_assert_cmpint (pthread_create (&thread, NULL, raise_storm, &storm),
                   ==, 0);
  for (i = 0; i < 10 || signals < 100; i++) {
    fill (data, size, i);
    req = vm_request (DM_IO_WRITE, data);
    g_assert_cmpint (dm_io (&req, n, where, NULL), ==, 0);
    g_assert_cmpint (dm_io (&flush, n, where, NULL), ==, 0);
    req = vm_request (DM_IO_READ, buf);
    g_assert_cmpint (dm_io (&req, 1, &where[i % n], NULL), ==, 0);
    assert_same (buf, data, size);
  }
  __atomic_store_n (&storm.stop, true, __ATOMIC_RELAXED);
  pthread_join (thread, NULL);
  sigaction (SIGUSR1, &old, NULL);
}

void
signals_are_the_programs (const struct io_region *where, unsigned int n)
{
  const struct sigaction sa = { .sa_handler = count_signal };
  const struct dm_io_request flush = { .op = DM_IO_FLUSH };
  struct sigaction old;
  sigset_t set, pending;

  /* Whatever threads that needs. */
  g_assert_cmphex (run_request (&flush, n, where, true), ==, 0);

  signals = 0;
  sigaction (SIGUSR1, &sa, &old);
  sigemptyset (&set);
  sigaddset (&set, SIGUSR1);
  pthread_sigmask (SIG_BLOCK, &set, NULL);
  kill (getpid (), SIGUSR1);
  g_usleep (10000);             /* for a thread that would take it */
  sigpending (&pending);
  g_assert_true (sigismember (&pending, SIGUSR1));
  g_assert_cmpint (signals, ==, 0);
  pthread_sigmask (SIG_UNBLOCK, &set, NULL);
  g_assert_cmpint (signals, ==, 1);
  sigaction (SIGUSR1, &old, NULL);
}

static void
sync_callback (unsigned long error, void *context)
{
  struct nested *nested = context;
  const size_t size = nested->inner[0].count * SECTOR;
  g_autofree unsigned char *buf = g_malloc (size);
  unsigned long bits = ~0UL;

  g_assert_cmphex (error, ==, 0);
  g_assert_cmpint (dm_io_sync_vm (nested->n, nested->inner, WRITE,
                                  nested->data, &bits), ==, 0);
  g_assert_cmphex (bits, ==, 0);
  g_assert_cmpint (dm_io_sync_vm (1, nested->inner, READ, buf, &bits),
                   ==, 0);
  assert_same (buf, nested->data, size);
  __atomic_add_fetch (&nested->calls, 1, __ATOMIC_RELAXED);
  sem_post (&nested->end);
}

void
nested_begin (struct nested *nested)
{
  unsigned int i;

  sem_init (&nested->end, 0, 0);
  nested->calls = 0;
  for (i = 0; i < nested->callbacks; i++)
    g_assert_cmpint (dm_io_async_vm (1, &nested->outer, WRITE, nested->data,
                                     sync_callback, nested), ==, 0);
}

void
nested_end (struct nested *nested)
{
  unsigned int i;

  for (i = 0; i < nested->callbacks; i++)
    test_sem_wait (&nested->end);
  g_assert_cmpuint (nested->calls, ==, nested->callbacks);
}

/*----------------------------------------------------------------------
 * Many threads
 */

/* Each thread has a slice of all devices for each of its requests. */
struct submitter {
  pthread_t thread;
  unsigned int index;
  const struct io_region *devices;
  unsigned int n;
  sector_t slice;               /* its sectors */
  unsigned int rounds;
};

static void
choose_slices (const struct submitter *s, unsigned int slot,
               struct io_region *where)
{
  unsigned int i;

  for (i = 0; i < s->n; i++)
    where[i] = (struct io_region) {
      s->devices[i].bdev, (s->index * DEPTH + slot) * s->slice, s->slice
    };
}

static void
check_slice (const struct submitter *s, unsigned int slot,
             const unsigned char *expected)
{
  const size_t size = s->slice * SECTOR;
  g_autofree unsigned char *buf = g_malloc (size);
  struct io_region from[MAX_WHERE];
  unsigned int i;

  choose_slices (s, slot, from);
  for (i = 0; i < s->n; i++) {
    memset (buf, 0xaa, size);
    g_assert_cmpint (dm_io_sync_vm (1, &from[i], READ, buf, NULL), ==, 0);
    assert_same (buf, expected, size);
  }
}

static void *
submit_many (void *context)
{
  const struct submitter *s = context;
  const size_t size = s->slice * SECTOR;
  g_autofree unsigned char *bufs = g_malloc (DEPTH * size);
  struct rng rng = { s->index };
  struct dm_io_request req;
  struct io_region where[MAX_WHERE];
  struct done done[DEPTH];
  unsigned int round, slot;

  for (round = 0; round < s->rounds; round++) {
    fill (bufs, DEPTH * size, rng_next (&rng));
    for (slot = 0; slot < DEPTH; slot++) {
      choose_slices (s, slot, where);
      done_init (&done[slot]);
      req = flagged_request (DM_IO_WRITE, rng_below (&rng, 4),
                             bufs + slot * size);
      req.fn = done_callback;
      req.context = &done[slot];
      g_assert_cmpint (dm_io (&req, s->n, where, NULL), ==, 0);
    }
    for (slot = 0; slot < DEPTH; slot++)
      g_assert_cmphex (done_wait (&done[slot]), ==, 0);
    for (slot = 0; slot < DEPTH; slot++)
      check_slice (s, slot, bufs + slot * size);
  }
  return NULL;
}

void
many_threads (const struct io_region *where, unsigned int n,
              unsigned int block_size, unsigned int rounds)
{
  struct submitter submitters[THREADS];
  unsigned int i;

  for (i = 0; i < THREADS; i++) {
    submitters[i] = (struct submitter) {
      .index = i, .devices = where, .n = n,
      .slice = SLICE * block_size / SECTOR, .rounds = rounds,
    };
    g_assert_cmpint (pthread_create (&submitters[i].thread, NULL,
                                     submit_many, &submitters[i]), ==, 0);
  }
  for (i = 0; i < THREADS; i++)
    pthread_join (submitters[i].thread, NULL);
}
