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

#include "async-cases.h"

#define SECTORS 8
#define SIZE (SECTORS * SECTOR)

static const struct mock_options plain;
static const struct mock_options waits = { .always_waits = true };

static unsigned char data[SIZE];

/*----------------------------------------------------------------------
 * C1
 */

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
  struct rng rng = rng_random ();
  struct io_region where[MIXED];
  struct dm_io_request req;
  unsigned int i, first, n;
  unsigned long expected;
  struct once once;

  once_begin (&once, rounds);
  open_mixed (where);
  for (i = 0; i < rounds; i++) {
    req = vm_request (ops[rng_below (&rng, G_N_ELEMENTS (ops))], NULL);
    first = rng_below (&rng, MIXED);
    n = req.op == DM_IO_READ ? 1 : 1 + rng_below (&rng, MIXED - first);
    expected = (req.op == DM_IO_FLUSH ? 1 << 2 :
                req.op == DM_IO_DISCARD ? 1 << 3 : 1 << 2 | 1 << 3)
      >> first & ((1 << n) - 1);
    /* Concurrent reads need buffers of their own. */
    req.mem.ptr.vm = req.op == DM_IO_READ ? g_malloc (SIZE) : data;
    once_submit (&once, i, &req, n, &where[first], expected);
    once_wait (&once);
    if (req.op == DM_IO_READ)
      g_free (req.mem.ptr.vm);
  }
  close_mocks (where, MIXED);
  once_end (&once);
}

/* The same, with as many in flight as possible. */
static void
test_c1_once_in_flight (void)
{
  const struct dm_io_request req = vm_request (DM_IO_WRITE, data);
  struct io_region where[MIXED];
  struct once once;
  unsigned int i;

  once_begin (&once, 2000);
  open_mixed (where);
  for (i = 0; i < once.rounds; i++)
    once_submit (&once, i, &req, MIXED, where, 1 << 2 | 1 << 3);
  for (i = 0; i < once.rounds; i++)
    once_wait (&once);
  close_mocks (where, MIXED);
  once_end (&once);
}

static void
check_chains (const struct mock_options *options, sector_t sector,
              sector_t count, unsigned long expected, unsigned int length)
{
  struct io_region where[2];
  unsigned int i;

  open_mocks (where, 2, SECTORS, options);
  for (i = 0; i < 2; i++) {
    where[i].sector = sector;
    where[i].count = count;
  }
  run_chain (where, 2, data, expected, 1, length);
  run_chain (where, 2, data, expected, 3, 2000);
  close_mocks (where, 2);
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

/* Submit N pages, and take the lists away while the devices wait. */
static void
check_dying (enum dm_io_mem_type type, unsigned int n, bool read)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = { .ops = MOCK_ANY, .gate = &gate };
  const unsigned int regions = read ? 1 : 3;
  struct page *pages = new_pages (n), *expected = new_pages (n);
  struct io_region where[3];
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

  submit_dying (new_dying (where, 3, type, pages, n),
                read ? DM_IO_READ : DM_IO_WRITE, regions, &done);
  /* The last device waits until the copy to the plain one is made. */
  mock_gate_await (&gate, read ? 1 : 2);
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

static void
test_c3_signals (void)
{
  const struct mock_fault slow = { .ops = MOCK_ANY, .msec = 1 };
  const struct mock_fault again = {
    .ops = MOCK_ANY, .error = EAGAIN, .times = 20
  };
  struct io_region where[3];
  unsigned int i;

  open_mocks (where, 3, SECTORS, &waits);
  for (i = 0; i < 3; i++) {
    mock_fault (where[i].bdev, &slow);
    mock_fault (where[i].bdev, &again);
  }
  signal_storm (where, 3);
  close_mocks (where, 3);
}

static void
test_c3_signals_are_the_programs (void)
{
  struct io_region where[3];

  open_mocks (where, 3, SECTORS, &waits);
  signals_are_the_programs (where, 3);
  close_mocks (where, 3);
}

/* More callbacks than there can be threads, each of which makes a
 * synchronous request that has to wait for three devices.
 */
static void
test_c3_sync_in_callback (void)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = { .ops = MOCK_ANY, .gate = &gate };
  const struct mock_fault slow = { .ops = MOCK_ANY, .msec = 1 };
  struct nested nested = { .n = 3, .callbacks = 300, .data = data };
  unsigned int i;

  fill (data, SIZE, 30);
  open_mocks (&nested.outer, 1, SECTORS, &waits);
  open_mocks (nested.inner, 3, SECTORS, &waits);
  mock_fault (nested.outer.bdev, &hold);
  for (i = 0; i < 3; i++)
    mock_fault (nested.inner[i].bdev, &slow);
  nested_begin (&nested);
  mock_gate_await (&gate, 1);
  mock_gate_open (&gate);
  nested_end (&nested);
  close_mocks (&nested.outer, 1);
  close_mocks (nested.inner, 3);
}

/*----------------------------------------------------------------------
 * Many threads
 */

static void
test_c1_many_threads (void)
{
  static const struct mock_options options[] = {
    { .max_trace = 1 }, { .max_trace = 1, .always_waits = true },
    { .max_trace = 1, .mem_align = PAGE }, { .max_trace = 1 },
  };
  struct io_region where[4];
  unsigned int i;

  for (i = 0; i < 4; i++)
    open_mocks (&where[i], 1, SLICES_BLOCKS, &options[i]);
  many_threads (where, 4, SECTOR, 25);
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
