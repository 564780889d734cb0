/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The reserve of dm_io_get.
 *
 * M1 with malloc failing everywhere, and with no thread to be had, I/O
 * waits and progresses but does not fail; M2 get and put: balance,
 * underflow, overflow, many threads, and use without get.
 *
 * Linked with the options that no-memory.h asks for.
 */

#include <config.h>

#include "no-memory.h"
#include "test-util.h"

#define SECTORS 8

static const struct mock_options plain = { .max_trace = 1 };
static const struct mock_options waits = {
  .max_trace = 1, .always_waits = true
};
static const struct mock_options aligned = {
  .max_trace = 1, .mem_align = PAGE
};
static const struct mock_options ring = {
  .max_trace = 1, .mem_align = PAGE, .always_waits = true, .ring = true
};

/* The wrappers work: without them this file would test nothing. */
static void
test_wrappers (void)
{
  void *volatile p, *volatile q;

  no_memory_after (1);
  p = malloc (1);
  q = malloc (1);
  memory_again ();
  g_assert_nonnull (p);
  g_assert_null (q);
  free (p);
}

/*----------------------------------------------------------------------
 * Was the request done before the call returned?
 */

static __thread bool submitting;

struct probe {
  struct done done;
  bool inside;                  /* the callback came before the return */
};

static void
probe_callback (unsigned long error, void *context)
{
  struct probe *probe = context;

  probe->inside = submitting;
  done_callback (error, &probe->done);
}

static void
probe_submit (struct probe *probe, unsigned int n, struct io_region *where,
              int rw, void *data)
{
  done_init (&probe->done);
  submitting = true;
  g_assert_cmpint (dm_io_async_vm (n, where, rw, data, probe_callback, probe),
                   ==, 0);
  submitting = false;
}

static bool
probe_end (struct probe *probe)
{
  g_assert_cmphex (done_wait (&probe->done), ==, 0);
  return probe->inside;
}

static void
expect_put_refused (unsigned int n)
{
  g_test_expect_message ("dmio", G_LOG_LEVEL_WARNING, "*dm_io_put*");
  dm_io_put (n);
  g_test_assert_expected_messages ();
}

/*----------------------------------------------------------------------
 * M1
 */

#define EVERY_PAGES 40
#define EVERY_REGIONS 6

/* Everything there is to submit works, with and without a reserve. */
struct everything {
  struct page *pages;
  struct page_list *pl;
  struct bio_vec *bvec;
  struct io_region where[EVERY_REGIONS];
};

static void
check_everything (struct everything *e, bool async)
{
  static const enum dm_io_op others[] = {
    DM_IO_FLUSH, DM_IO_DISCARD, DM_IO_WRITE_ZEROES,
  };
  struct dm_io_request req = { .op = DM_IO_WRITE };
  unsigned int i;
  int type;

  for (type = DM_IO_PAGE_LIST; type <= DM_IO_VM; type++) {
    req.mem.type = type;
    req.mem.length = DM_IO_UNCHECKED;
    if (type == DM_IO_PAGE_LIST)
      req.mem.ptr.pl = e->pl;
    else if (type == DM_IO_BVEC)
      req.mem.ptr.bvec = e->bvec;
    else
      req.mem.ptr.vm = e->pages->data + 1;
    for (i = 0; i < EVERY_REGIONS; i++) {
      req.op = DM_IO_WRITE;
      req.flags = i % 4;
      g_assert_cmphex (run_request (&req, EVERY_REGIONS, e->where, async),
                       ==, 0);
      req.op = DM_IO_READ;
      req.flags = 0;
      g_assert_cmphex (run_request (&req, 1, &e->where[i], async), ==, 0);
    }
  }
  for (i = 0; i < G_N_ELEMENTS (others); i++) {
    req = (struct dm_io_request) { .op = others[i] };
    g_assert_cmphex (run_request (&req, EVERY_REGIONS, e->where, async),
                     ==, 0);
  }
}

static void
check_without_memory (unsigned int reserve, bool threads)
{
  const sector_t sectors = (EVERY_PAGES - 1) * SECTORS;
  struct everything e;
  unsigned int i;

  e.pages = new_pages (EVERY_PAGES);
  e.pl = g_new (struct page_list, EVERY_PAGES);
  e.bvec = g_new (struct bio_vec, EVERY_PAGES * SECTORS);
  for (i = 0; i < EVERY_PAGES; i++) {
    e.pl[i].page = &e.pages[EVERY_PAGES-1-i];
    e.pl[i].next = i < EVERY_PAGES - 1 ? &e.pl[i+1] : NULL;
  }
  for (i = 0; i < EVERY_PAGES * SECTORS; i++)
    e.bvec[i] = (struct bio_vec) {
      &e.pages[i % EVERY_PAGES], SECTOR, i / EVERY_PAGES * SECTOR
    };
  open_mocks (&e.where[0], 1, sectors, &plain);
  open_mocks (&e.where[1], 1, sectors, &waits);
  open_mocks (&e.where[2], 2, sectors, &aligned);
  open_mocks (&e.where[4], 2, sectors, &ring);
  g_assert_cmpint (dm_io_get (reserve), ==, 0);

  set_no_threads (!threads);
  no_memory_after (0);
  for (i = 0; i < 6; i++) {
    fill (e.pages, EVERY_PAGES * PAGE, i);
    check_everything (&e, i % 2);
  }
  memory_again ();
  set_no_threads (false);

  dm_io_put (reserve);
  close_mocks (e.where, EVERY_REGIONS);
  free (e.pages);
  g_free (e.pl);
  g_free (e.bvec);
}

static void
test_m1_everything (void)
{
  check_without_memory (0, true);
  check_without_memory (0, false);
  check_without_memory (1, true);
  check_without_memory (1, false);
  check_without_memory (100, true);
  check_without_memory (100, false);
}

/* And the data is right. */
static void
test_m1_data (void)
{
  struct page *page = new_pages (3), *copy = new_pages (3);
  struct io_region where[3];
  struct probe probe;
  unsigned int i;

  open_mocks (&where[0], 1, 2 * SECTORS, &plain);
  open_mocks (&where[1], 1, 2 * SECTORS, &waits);
  open_mocks (&where[2], 1, 2 * SECTORS, &aligned);
  no_memory_after (0);
  for (i = 0; i < 3; i++) {
    fill (page, 3 * PAGE, i);
    memcpy (copy, page, 3 * PAGE);
    probe_submit (&probe, 3, where, WRITE, page->data + 5);
    probe_end (&probe);
    memset (page->data + 5, 0xaa, 2 * PAGE);
    probe_submit (&probe, 1, &where[i], READ, page->data + 5);
    probe_end (&probe);
    assert_same (page, copy, 3 * PAGE);
  }
  memory_again ();
  close_mocks (where, 3);
  free (page);
  free (copy);
}

#define RESERVE 5

/* Of one-page requests, exactly so many are in flight as were reserved;
 * the next is done at once.
 */
static void
test_m1_reserve_is_used (void)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = { .ops = MOCK_ANY, .gate = &gate };
  struct page *page = new_pages (2);
  struct io_region held, quick;
  struct probe probes[RESERVE], extra;
  unsigned int i;

  open_mocks (&held, 1, SECTORS, &waits);
  open_mocks (&quick, 1, SECTORS, &waits);
  mock_fault (held.bdev, &hold);
  g_assert_cmpint (dm_io_get (RESERVE), ==, 0);

  no_memory_after (0);
  for (i = 0; i < RESERVE; i++)
    probe_submit (&probes[i], 1, &held, WRITE, page);
  mock_gate_await (&gate, RESERVE);
  probe_submit (&extra, 1, &quick, READ, page + 1);
  g_assert_true (probe_end (&extra));

  mock_gate_open (&gate);
  for (i = 0; i < RESERVE; i++)
    g_assert_false (probe_end (&probes[i]));
  probe_submit (&extra, 1, &quick, READ, page + 1);
  g_assert_false (probe_end (&extra));
  memory_again ();

  dm_io_put (RESERVE);
  close_mocks (&held, 1);
  close_mocks (&quick, 1);
  free (page);
}

/* The reserve also has the bounce pages for them. */
static void
test_m1_bounce_pages (void)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = { .ops = MOCK_ANY, .gate = &gate };
  struct page *page = new_pages (2);
  struct io_region where;
  struct probe probes[RESERVE];
  unsigned int i;

  open_mocks (&where, 1, SECTORS, &aligned);
  mock_fault (where.bdev, &hold);
  where.bdev->always_waits = true;
  g_assert_cmpint (dm_io_get (RESERVE), ==, 0);
  fill (page, 2 * PAGE, 1);
  no_memory_after (0);
  for (i = 0; i < RESERVE; i++)
    probe_submit (&probes[i], 1, &where, WRITE, page->data + 1);
  mock_gate_await (&gate, RESERVE);
  mock_gate_open (&gate);
  for (i = 0; i < RESERVE; i++)
    g_assert_false (probe_end (&probes[i]));
  memory_again ();
  assert_same (mock_data (where.bdev), page->data + 1, PAGE);
  dm_io_put (RESERVE);
  close_mocks (&where, 1);
  free (page);
}

/* More requests want a bounce page than there are: they wait. */
struct writer {
  pthread_t thread;
  unsigned int *started;        /* atomic */
  struct io_region where;
  unsigned char *data;
};

static void *
write_sync (void *context)
{
  struct writer *w = context;

  __atomic_add_fetch (w->started, 1, __ATOMIC_SEQ_CST);
  g_assert_cmpint (dm_io_sync_vm (1, &w->where, WRITE, w->data, NULL),
                   ==, 0);
  return NULL;
}

#define WRITERS 6

static void
test_m1_bounce_pages_exhausted (void)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = {
    .ops = MOCK_ANY, .times = 1, .gate = &gate
  };
  struct page *pages = new_pages (WRITERS + 1);
  struct writer writers[WRITERS];
  struct io_region where;
  unsigned int started = 0, i;

  fill (pages, (WRITERS + 1) * PAGE, 2);
  open_mocks (&where, 1, WRITERS * SECTORS, &aligned);
  mock_fault (where.bdev, &hold);
  no_memory_after (0);
  for (i = 0; i < WRITERS; i++) {
    writers[i].where = (struct io_region) {
      where.bdev, i * SECTORS, SECTORS
    };
    writers[i].data = pages[i].data + 1;
    writers[i].started = &started;
    g_assert_cmpint (pthread_create (&writers[i].thread, NULL, write_sync,
                                     &writers[i]), ==, 0);
  }
  mock_gate_await (&gate, 1);
  while (__atomic_load_n (&started, __ATOMIC_SEQ_CST) < WRITERS)
    g_usleep (100);
  g_usleep (20000);             /* let them come to where they wait */
  mock_gate_open (&gate);
  for (i = 0; i < WRITERS; i++)
    pthread_join (writers[i].thread, NULL);
  memory_again ();
  assert_same (mock_data (where.bdev), pages->data + 1, WRITERS * PAGE);
  close_mocks (&where, 1);
  free (pages);
}

/* Each of many threads wants several bounce pages at once: for regions
 * that go through its ring, and for others beside those.  What it writes is there
 * before it starts, as memory ends at some time while it runs.
 */
struct mixed {
  pthread_t thread;
  struct io_region where[6];
  struct page *pages;
};

static void *
write_mixed (void *context)
{
  struct mixed *mixed = context;
  unsigned int i;

  for (i = 0; i < 10; i++)
    g_assert_cmpint (dm_io_sync_vm (6, mixed->where, WRITE,
                                    mixed->pages->data + 1, NULL), ==, 0);
  return NULL;
}

static void
test_m1_bounce_pages_of_many (void)
{
  const struct mock_options waits_aligned = {
    .max_trace = 1, .mem_align = PAGE, .always_waits = true
  };
  const struct mock_fault slow = { .ops = MOCK_ANY, .msec = 1 };
  struct mixed mixed[WRITERS * 2];
  struct io_region where[6];
  unsigned int i;

  open_mocks (&where[0], 3, 3 * SECTORS, &ring);
  open_mocks (&where[3], 3, 3 * SECTORS, &waits_aligned);
  for (i = 0; i < 3; i++)
    mock_fault (where[i].bdev, &slow);
  for (i = 0; i < WRITERS * 2; i++) {
    memcpy (mixed[i].where, where, sizeof where);
    mixed[i].pages = new_pages (4);
  }
  for (i = 0; i < WRITERS * 2; i++)
    g_assert_cmpint (pthread_create (&mixed[i].thread, NULL, write_mixed,
                                     &mixed[i]), ==, 0);
  g_usleep (10000);
  no_memory_after (0);
  for (i = 0; i < WRITERS * 2; i++)
    pthread_join (mixed[i].thread, NULL);
  memory_again ();
  for (i = 0; i < WRITERS * 2; i++)
    free (mixed[i].pages);
  close_mocks (where, 6);
}

/* A callback that submits again: with a reserve of one request the
 * reserve is free again by then; without any, and without threads, the
 * stack must not grow.
 */
struct chain {
  struct io_region where[2];
  struct page *page;
  unsigned int left;            /* atomic */
  unsigned int width;           /* how many the first callback submits */
  unsigned int inside;          /* done before the return; atomic */
  sem_t end;
};

static void
chain_callback (unsigned long error, void *context)
{
  struct chain *chain = context;
  bool before = submitting;
  unsigned int i, n;

  check_stack ();
  g_assert_cmphex (error, ==, 0);
  if (submitting)
    __atomic_add_fetch (&chain->inside, 1, __ATOMIC_RELAXED);
  n = __atomic_exchange_n (&chain->width, 1, __ATOMIC_RELAXED);
  for (i = 0; i < n && take_one (&chain->left); i++) {
    submitting = true;
    g_assert_cmpint (dm_io_async_vm (2, chain->where, WRITE, chain->page,
                                     chain_callback, chain), ==, 0);
  }
  submitting = before;
  sem_post (&chain->end);
}

static unsigned int
run_chain (unsigned int reserve, bool threads,
           const struct mock_options *options, unsigned int width,
           unsigned int length)
{
  struct chain chain = { .left = length - 1, .width = width };
  unsigned int i;

  chain.page = new_pages (1);
  sem_init (&chain.end, 0, 0);
  open_mocks (chain.where, 2, SECTORS, options);
  g_assert_cmpint (dm_io_get (reserve), ==, 0);
  no_memory_after (0);
  set_no_threads (!threads);
  submitting = true;
  g_assert_cmpint (dm_io_async_vm (2, chain.where, WRITE, chain.page,
                                   chain_callback, &chain), ==, 0);
  submitting = false;
  for (i = 0; i < length; i++)
    test_sem_wait (&chain.end);
  memory_again ();
  set_no_threads (false);
  dm_io_put (reserve);
  close_mocks (chain.where, 2);
  free (chain.page);
  return chain.inside;
}

/* A chain in which each callback also submits many that end there. */
static void
leaf_callback (unsigned long error, void *context)
{
  check_stack ();
}

static void
branch_callback (unsigned long error, void *context)
{
  struct chain *chain = context;
  unsigned int i;

  check_stack ();
  if (take_one (&chain->left)) {
    for (i = 0; i < 20; i++)
      g_assert_cmpint (dm_io_async_vm (1, chain->where, WRITE, chain->page,
                                       leaf_callback, NULL), ==, 0);
    g_assert_cmpint (dm_io_async_vm (1, chain->where, WRITE, chain->page,
                                     branch_callback, chain), ==, 0);
  }
  else
    sem_post (&chain->end);
}

static void
test_m1_leaves (void)
{
  struct chain chain = { .left = 5000, .page = new_pages (1) };

  sem_init (&chain.end, 0, 0);
  open_mocks (chain.where, 1, SECTORS, &plain);
  no_memory_after (0);
  set_no_threads (true);
  branch_callback (0, &chain);
  test_sem_wait (&chain.end);
  memory_again ();
  set_no_threads (false);
  close_mocks (chain.where, 1);
  free (chain.page);
}

static void
test_m1_chain (void)
{
  g_assert_cmpuint (run_chain (1, true, &plain, 1, 20000), ==, 0);
  g_assert_cmpuint (run_chain (1, true, &waits, 1, 5000), ==, 0);
  g_assert_cmpuint (run_chain (3, true, &plain, 3, 20000), ==, 0);
}

static void
test_m1_chain_without_reserve (void)
{
  run_chain (0, true, &plain, 1, 30000);
  run_chain (0, true, &waits, 1, 5000);
}

static void
test_m1_chain_without_threads (void)
{
  run_chain (0, false, &plain, 1, 30000);
  run_chain (10, false, &plain, 1, 30000);
  run_chain (10, false, &waits, 1, 30000);
}

/* Many chains that begin in one callback. */
static void
test_m1_chains_without_threads (void)
{
  static const unsigned int widths[] = { 2, 16, 17, 18, 100, 1000 };
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (widths); i++)
    run_chain (0, false, &plain, widths[i], 5000);
}

/* There is one worker, and no way to start more: regions that wait are
 * then written one after another.
 */
static void
test_m1_one_thread (void)
{
  struct io_region where[DM_IO_MAX_REGIONS];
  unsigned char buf[SECTORS * SECTOR];
  struct probe probes[20];
  unsigned int i;

  fill (buf, sizeof buf, 3);
  open_mocks (where, DM_IO_MAX_REGIONS, SECTORS, &waits);
  where[0].count = 0;
  probe_submit (&probes[0], 1, where, WRITE, buf);
  probe_end (&probes[0]);
  where[0].count = SECTORS;
  set_no_threads (true);
  for (i = 0; i < G_N_ELEMENTS (probes); i++)
    probe_submit (&probes[i], DM_IO_MAX_REGIONS, where, WRITE, buf);
  for (i = 0; i < 20; i++)
    g_assert_cmpint (dm_io_sync_vm (DM_IO_MAX_REGIONS, where, WRITE, buf,
                                    NULL), ==, 0);
  for (i = 0; i < G_N_ELEMENTS (probes); i++)
    probe_end (&probes[i]);
  set_no_threads (false);
  for (i = 0; i < DM_IO_MAX_REGIONS; i++)
    assert_same (mock_data (where[i].bdev), buf, sizeof buf);
  close_mocks (where, DM_IO_MAX_REGIONS);
}

/* A callback that submits a request whose callback submits no more, and
 * makes a synchronous one; then, or before that, the next like itself.
 */
struct copier {
  struct io_region where;
  struct page *page;
  bool copied_first;
  unsigned int left;            /* atomic */
  unsigned int copied;          /* ended; atomic */
  sem_t end;
};

static void
copied_callback (unsigned long error, void *context)
{
  struct copier *c = context;

  check_stack ();
  g_assert_cmphex (error, ==, 0);
  g_assert_cmpint (dm_io_sync_vm (1, &c->where, WRITE, c->page, NULL),
                   ==, 0);
  __atomic_add_fetch (&c->copied, 1, __ATOMIC_RELAXED);
  sem_post (&c->end);
}

static void
submit_copied (struct copier *c)
{
  g_assert_cmpint (dm_io_async_vm (1, &c->where, WRITE, c->page,
                                   copied_callback, c), ==, 0);
}

static void
copier_callback (unsigned long error, void *context)
{
  struct copier *c = context;

  check_stack ();
  g_assert_cmphex (error, ==, 0);
  if (c->copied_first)
    submit_copied (c);
  if (take_one (&c->left))
    g_assert_cmpint (dm_io_async_vm (1, &c->where, WRITE, c->page,
                                     copier_callback, c), ==, 0);
  if (!c->copied_first)
    submit_copied (c);
}

static void
run_copier (bool threads, bool copied_first, unsigned int length)
{
  struct copier c = { .left = length - 1, .copied_first = copied_first };
  unsigned int i;

  c.page = new_pages (1);
  sem_init (&c.end, 0, 0);
  open_mocks (&c.where, 1, SECTORS, &plain);
  no_memory_after (0);
  set_no_threads (!threads);
  g_assert_cmpint (dm_io_async_vm (1, &c.where, WRITE, c.page,
                                   copier_callback, &c), ==, 0);
  for (i = 0; i < length; i++)
    test_sem_wait (&c.end);
  memory_again ();
  set_no_threads (false);
  close_mocks (&c.where, 1);
  g_assert_cmpuint (c.copied, ==, length);
  free (c.page);
}

static void
test_m1_copiers (void)
{
  run_copier (true, false, 10000);
  run_copier (true, true, 10000);
  run_copier (false, false, 10000);
  run_copier (false, true, 10000);
}

static void
test_m1_device_without_memory (void)
{
  static const struct bdev_ops no_ops;
  struct block_device bdev;

  no_memory_after (0);
  g_assert_cmpint (bdev_init (&bdev, &no_ops, "none", 0), ==, -ENOMEM);
  memory_again ();
}

/*----------------------------------------------------------------------
 * M2
 */

/* How many requests can be in flight without memory. */
static void
assert_reserve (unsigned int n)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = { .ops = MOCK_ANY, .gate = &gate };
  struct page *page = new_pages (2);
  struct io_region held, quick;
  struct probe *probes = g_new (struct probe, n + 1);
  unsigned int i;

  open_mocks (&held, 1, SECTORS, &waits);
  open_mocks (&quick, 1, SECTORS, &waits);
  mock_fault (held.bdev, &hold);
  no_memory_after (0);
  for (i = 0; i < n; i++)
    probe_submit (&probes[i], 1, &held, WRITE, page);
  probe_submit (&probes[n], 1, &quick, READ, page + 1);
  memory_again ();
  mock_gate_open (&gate);
  for (i = 0; i <= n; i++)
    g_assert_cmpint (probe_end (&probes[i]), ==, i == n);
  close_mocks (&held, 1);
  close_mocks (&quick, 1);
  g_free (probes);
  free (page);
}

static void
test_m2_balance (void)
{
  assert_reserve (0);
  g_assert_cmpint (dm_io_get (0), ==, 0);
  assert_reserve (0);
  g_assert_cmpint (dm_io_get (2), ==, 0);
  g_assert_cmpint (dm_io_get (3), ==, 0);
  assert_reserve (5);
  dm_io_put (1);
  assert_reserve (4);
  dm_io_put (0);
  dm_io_put (4);
  assert_reserve (0);
  expect_put_refused (1);
}

static void
test_m2_underflow (void)
{
  expect_put_refused (1);
  expect_put_refused (UINT_MAX);
  assert_reserve (0);
  g_assert_cmpint (dm_io_get (2), ==, 0);
  expect_put_refused (3);
  expect_put_refused (UINT_MAX);
  expect_put_refused (UINT_MAX - 1);
  assert_reserve (2);
  dm_io_put (2);
  expect_put_refused (1);
}

static void
test_m2_overflow (void)
{
  g_assert_cmpint (dm_io_get (3), ==, 0);
  g_assert_cmpint (dm_io_get (UINT_MAX), ==, -ENOMEM);
  g_assert_cmpint (dm_io_get (UINT_MAX - 2), ==, -ENOMEM);
  g_assert_cmpint (dm_io_get (INT_MAX), ==, -ENOMEM);
  assert_reserve (3);
  dm_io_put (3);
  expect_put_refused (1);
}

/* Whichever of its allocations fails, nothing is reserved. */
static void
test_m2_get_without_memory (void)
{
  const unsigned int n = 4;
  int allowed, r = -ENOMEM;

  g_assert_cmpint (dm_io_get (1), ==, 0);
  for (allowed = 0; r != 0; allowed++) {
    no_memory_after (allowed);
    r = dm_io_get (n);
    memory_again ();
    if (r != 0) {
      g_assert_cmpint (r, ==, -ENOMEM);
      assert_reserve (1);
      expect_put_refused (2);
    }
  }
  g_assert_cmpint (allowed, >, (int) n);
  assert_reserve (1 + n);
  dm_io_put (1 + n);

  no_memory_after (1000);
  g_assert_cmpint (dm_io_get (UINT_MAX), ==, -ENOMEM);
  memory_again ();
  assert_reserve (0);
  expect_put_refused (1);
}

/* What was reserved may be given back while it is in use. */
static void
test_m2_put_in_flight (void)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = { .ops = MOCK_ANY, .gate = &gate };
  struct page *page = new_pages (1);
  struct io_region where;
  struct probe probes[RESERVE];
  unsigned int i;

  open_mocks (&where, 1, SECTORS, &waits);
  mock_fault (where.bdev, &hold);
  g_assert_cmpint (dm_io_get (RESERVE), ==, 0);
  no_memory_after (0);
  for (i = 0; i < RESERVE; i++)
    probe_submit (&probes[i], 1, &where, WRITE, page);
  dm_io_put (RESERVE);
  mock_gate_open (&gate);
  for (i = 0; i < RESERVE; i++)
    g_assert_false (probe_end (&probes[i]));
  memory_again ();
  close_mocks (&where, 1);
  assert_reserve (0);
  free (page);
}

#define THREADS 8

static void *
get_and_put (void *context)
{
  struct io_region *where = context;
  struct page *page = new_pages (1);
  struct probe probe;
  unsigned int i;

  for (i = 0; i < 500; i++) {
    g_assert_cmpint (dm_io_get (1 + i % 3), ==, 0);
    if (i % 10 == 0) {
      probe_submit (&probe, 2, where, WRITE, page);
      probe_end (&probe);
    }
    dm_io_put (1 + i % 3);
  }
  free (page);
  return NULL;
}

static void
test_m2_threads (void)
{
  struct io_region where[2];
  pthread_t threads[THREADS];
  unsigned int i;

  open_mocks (&where[0], 1, SECTORS, &waits);
  open_mocks (&where[1], 1, SECTORS, &aligned);
  for (i = 0; i < THREADS; i++)
    g_assert_cmpint (pthread_create (&threads[i], NULL, get_and_put, where),
                     ==, 0);
  for (i = 0; i < THREADS; i++)
    pthread_join (threads[i], NULL);
  close_mocks (where, 2);
  assert_reserve (0);
  expect_put_refused (1);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  g_test_add_func ("/reserve/wrappers", test_wrappers);
  g_test_add_func ("/reserve/m1-everything", test_m1_everything);
  g_test_add_func ("/reserve/m1-data", test_m1_data);
  g_test_add_func ("/reserve/m1-reserve-is-used", test_m1_reserve_is_used);
  g_test_add_func ("/reserve/m1-bounce-pages", test_m1_bounce_pages);
  g_test_add_func ("/reserve/m1-bounce-pages-exhausted",
                   test_m1_bounce_pages_exhausted);
  g_test_add_func ("/reserve/m1-bounce-pages-of-many",
                   test_m1_bounce_pages_of_many);
  g_test_add_func ("/reserve/m1-chain", test_m1_chain);
  g_test_add_func ("/reserve/m1-chain-without-reserve",
                   test_m1_chain_without_reserve);
  g_test_add_func ("/reserve/m1-chain-without-threads",
                   test_m1_chain_without_threads);
  g_test_add_func ("/reserve/m1-chains-without-threads",
                   test_m1_chains_without_threads);
  g_test_add_func ("/reserve/m1-leaves", test_m1_leaves);
  g_test_add_func ("/reserve/m1-copiers", test_m1_copiers);
  g_test_add_func ("/reserve/m1-one-thread", test_m1_one_thread);
  g_test_add_func ("/reserve/m1-device-without-memory",
                   test_m1_device_without_memory);
  g_test_add_func ("/reserve/m2-balance", test_m2_balance);
  g_test_add_func ("/reserve/m2-underflow", test_m2_underflow);
  g_test_add_func ("/reserve/m2-overflow", test_m2_overflow);
  g_test_add_func ("/reserve/m2-get-without-memory",
                   test_m2_get_without_memory);
  g_test_add_func ("/reserve/m2-put-in-flight", test_m2_put_in_flight);
  g_test_add_func ("/reserve/m2-threads", test_m2_threads);
  return g_test_run ();
}
