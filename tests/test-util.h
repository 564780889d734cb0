/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What the unit tests have in common: a watchdog, random numbers that
 * can be repeated, comparison of memory, and the end of an asynchronous
 * request.
 *
 * The tests use POSIX threads, locks and semaphores because
 * ThreadSanitizer does not see through GLib's.
 */

#ifndef DMIO_TEST_UTIL_H
#define DMIO_TEST_UTIL_H

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <glib.h>

#include "dm-io.h"
#include "mock-device.h"
#include "ring.h"

#define SECTOR DM_IO_SECTOR_SIZE
#define PAGE DM_IO_PAGE_SIZE

/* No test program runs longer than this, and nothing in it waits longer
 * than WAIT_SECONDS for another thread or process.
 */
#ifdef __SANITIZE_THREAD__
#define WATCHDOG_SECONDS 720
#else
#define WATCHDOG_SECONDS 240
#endif
#define WAIT_SECONDS 60

/* What waits for nothing ends in this time, on a slow machine, too. */
#define AT_ONCE_US (20 * G_USEC_PER_SEC)

/* Instead of g_test_init.  SIGALRM then ends a program that hangs.  Where
 * there is no io_uring, the library says so with a warning.
 */
static inline void
test_init (int *argc, char ***argv)
{
  g_test_init (argc, argv, NULL);
  if (ring_probe () < 0)
    g_log_set_always_fatal (G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL);
  alarm (WATCHDOG_SECONDS);
}

static inline struct timespec
test_deadline (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_REALTIME, &ts);
  ts.tv_sec += WAIT_SECONDS;
  return ts;
}

static inline void
test_sem_wait (sem_t *sem)
{
  struct timespec deadline = test_deadline ();

  while (sem_timedwait (sem, &deadline) == -1)
    g_assert_cmpint (errno, ==, EINTR);
}

/* splitmix64, by Sebastiano Vigna, public domain. */
struct rng {
  uint64_t state;
};

static inline uint64_t
rng_next (struct rng *rng)
{
  uint64_t z = (rng->state += UINT64_C (0x9e3779b97f4a7c15));

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

/* From 0 to n-1. */
static inline uint64_t
rng_below (struct rng *rng, uint64_t n)
{
  return rng_next (rng) % n;
}

/* One that g_test's --seed repeats; it is printed with --verbose. */
static inline struct rng
rng_random (void)
{
  struct rng rng = { (uint32_t) g_test_rand_int () };

  g_test_message ("seed %" G_GUINT64_FORMAT, rng.state);
  return rng;
}

/* Bytes that depend on SEED and on their place. */
static inline void
fill (void *buf, size_t len, uint64_t seed)
{
  struct rng rng = { seed };
  unsigned char *p = buf;
  uint64_t word;
  size_t n;

  for (; len > 0; p += n, len -= n) {
    word = rng_next (&rng);
    n = MIN (len, sizeof word);
    memcpy (p, &word, n);
  }
}

/* Says where two pieces of memory first differ. */
static inline void
assert_same (const void *got, const void *expected, size_t len)
{
  const unsigned char *a = got, *b = expected;
  size_t i;

  if (memcmp (a, b, len) == 0)
    return;
  for (i = 0; a[i] == b[i]; i++)
    ;
  g_error ("byte %zu of %zu is 0x%02x, not 0x%02x", i, len, a[i], b[i]);
}

static inline void
assert_zero (const void *got, size_t len)
{
  const unsigned char *p = got;
  size_t i;

  for (i = 0; i < len; i++)
    if (p[i] != 0)
      g_error ("byte %zu of %zu is 0x%02x, not 0", i, len, p[i]);
}

/* Pages, to be freed with free. */
static inline struct page *
new_pages (size_t n)
{
  void *p = NULL;

  g_assert_cmpint (posix_memalign (&p, PAGE, MAX (n, 1) * PAGE), ==, 0);
  return p;
}

/* The end of an asynchronous request: &done is the context of
 * done_callback.
 */
struct done {
  sem_t sem;
  unsigned long error;
  unsigned int calls;           /* atomic */
};

static inline void
done_init (struct done *done)
{
  memset (done, 0, sizeof *done);
  g_assert_cmpint (sem_init (&done->sem, 0, 0), ==, 0);
}

static inline void
done_callback (unsigned long error, void *context)
{
  struct done *done = context;

  done->error = error;
  __atomic_add_fetch (&done->calls, 1, __ATOMIC_RELAXED);
  sem_post (&done->sem);
}

static inline unsigned int
done_calls (struct done *done)
{
  return __atomic_load_n (&done->calls, __ATOMIC_RELAXED);
}

/* Wait for the callback, and return its error bits. */
static inline unsigned long
done_wait (struct done *done)
{
  test_sem_wait (&done->sem);
  g_assert_cmpuint (done_calls (done), ==, 1);
  return done->error;
}

/* For chains of requests, each submitted by the callback of the one
 * before: take one of those that are LEFT.
 */
static inline bool
take_one (unsigned int *left)
{
  unsigned int n = __atomic_load_n (left, __ATOMIC_RELAXED);

  while (n > 0)
    if (__atomic_compare_exchange_n (left, &n, n - 1, false,
                                     __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return true;
  return false;
}

/* Called in each callback: how far apart its frames are in each thread,
 * and so how deep callbacks call each other.
 */
#define STACK_MAX (256 * 1024)

static inline void
check_stack (void)
{
  static __thread uintptr_t low, high;
  uintptr_t here = (uintptr_t) __builtin_frame_address (0);

  if (low == 0 || here < low)
    low = here;
  if (here > high)
    high = here;
  g_assert_cmpuint (high - low, <, STACK_MAX);
}

/* A request with one buffer, whose length is not checked. */
static inline struct dm_io_request
vm_request (enum dm_io_op op, void *buf)
{
  return (struct dm_io_request) {
    .op = op,
    .mem = { .type = DM_IO_VM, .length = DM_IO_UNCHECKED, .ptr.vm = buf },
  };
}

/* Submit it with or without waiting, and return its error bits. */
static inline unsigned long
run_request (const struct dm_io_request *request, unsigned int n,
             const struct io_region *where, bool async)
{
  struct dm_io_request req = *request;
  unsigned long bits = ~0UL;
  struct done done;

  req.fn = NULL;
  if (!async) {
    g_assert_cmpint (dm_io (&req, n, where, &bits), ==,
                     bits == 0 ? 0 : -EIO);
    return bits;
  }
  done_init (&done);
  req.fn = done_callback;
  req.context = &done;
  g_assert_cmpint (dm_io (&req, n, where, NULL), ==, 0);
  return done_wait (&done);
}

static inline struct dm_io_request
flagged_request (enum dm_io_op op, unsigned int flags, void *buf)
{
  struct dm_io_request req = vm_request (op, buf);

  req.flags = flags;
  return req;
}

/* Run one, with or without waiting, and expect success. */
static inline void
run_ok (void *buf, enum dm_io_op op, unsigned int flags, unsigned int n,
        const struct io_region *where, bool async)
{
  struct dm_io_request req = flagged_request (op, flags, buf);

  g_assert_cmphex (run_request (&req, n, where, async), ==, 0);
}

/* Open a device, with its name. */
static inline struct block_device *
open_device (const char *name, const struct dm_bdev_options *options)
{
  struct block_device *bdev;
  char *error = NULL;

  bdev = dm_bdev_open (name, options, &error);
  if (bdev == NULL)
    g_error ("dm_bdev_open: %s", error);
  g_assert_null (error);
  g_assert_cmpstr (dm_bdev_name (bdev), ==, name);
  return bdev;
}

/* It must fail, with this errno and a message that has its name and
 * SAYS.
 */
static inline void
open_device_refused (const char *name, const struct dm_bdev_options *options,
                     int expected, const char *says)
{
  struct block_device *bdev;
  char *error = NULL;

  bdev = dm_bdev_open (name, options, &error);
  g_assert_cmpint (errno, ==, expected);
  g_assert_null (bdev);
  g_assert_nonnull (error);
  if (strstr (error, name) == NULL || strstr (error, says) == NULL)
    g_error ("message does not name '%s' and '%s': %s", name, says, error);
  free (error);
}

/* -EINVAL of all forms of the request.  REFUSED is for one that is not
 * waited for, which must never call back; look at it once all devices are
 * closed: with that all threads of the library have ended.
 */
static inline void
assert_einval (const struct dm_io_request *request, unsigned int n,
               const struct io_region *where, struct done *refused)
{
  struct dm_io_request req = *request;
  unsigned long bits = ~0UL;

  req.fn = NULL;
  g_assert_cmpint (dm_io (&req, n, where, &bits), ==, -EINVAL);
  g_assert_cmphex (bits, ==, 0);
  g_assert_cmpint (dm_io (&req, n, where, NULL), ==, -EINVAL);
  req.fn = done_callback;
  req.context = refused;
  g_assert_cmpint (dm_io (&req, n, where, NULL), ==, -EINVAL);
}

/* Operations with numbers of regions and flags that are refused (V1). */
static const struct {
  enum dm_io_op op;
  unsigned int n, flags;
} bad_requests[] __attribute__ ((__unused__)) = {
  { DM_IO_READ, 0, 0 }, { DM_IO_READ, 2, 0 },
  { DM_IO_WRITE, 0, 0 }, { DM_IO_WRITE, DM_IO_MAX_REGIONS + 1, 0 },
  { DM_IO_FLUSH, 0, 0 }, { DM_IO_FLUSH, DM_IO_MAX_REGIONS + 1, 0 },
  { DM_IO_DISCARD, 0, 0 }, { DM_IO_DISCARD, DM_IO_MAX_REGIONS + 1, 0 },
  { DM_IO_WRITE_ZEROES, 0, 0 },
  { DM_IO_WRITE_ZEROES, DM_IO_MAX_REGIONS + 1, 0 },
  { DM_IO_WRITE_ZEROES + 1, 1, 0 }, { -1, 1, 0 },
  { DM_IO_READ, 1, DM_IO_FUA }, { DM_IO_READ, 1, DM_IO_PREFLUSH },
  { DM_IO_READ, 1, DM_IO_NO_UNMAP }, { DM_IO_WRITE, 1, DM_IO_NO_UNMAP },
  { DM_IO_WRITE, 1, 1 << 3 }, { DM_IO_WRITE, 1, 1U << 31 },
  { DM_IO_FLUSH, 1, DM_IO_FUA }, { DM_IO_FLUSH, 1, DM_IO_PREFLUSH },
  { DM_IO_DISCARD, 1, DM_IO_PREFLUSH },
  { DM_IO_DISCARD, 1, DM_IO_NO_UNMAP },
  { DM_IO_WRITE_ZEROES, 1, DM_IO_PREFLUSH },
};

/* The functions of old, by number, as one. */
static inline int
call_old (int api, unsigned int n, struct io_region *where, int rw,
          struct page *page, unsigned long *bits, struct done *done)
{
  struct page_list pl = { .page = page };
  struct bio_vec bvec = { .bv_page = page, .bv_len = PAGE };

  switch (api) {
  case 0:
    return dm_io_sync (n, where, rw, &pl, 0, bits);
  case 1:
    return dm_io_sync_bvec (n, where, rw, &bvec, bits);
  case 2:
    return dm_io_sync_vm (n, where, rw, page, bits);
  case 3:
    return dm_io_async (n, where, rw, &pl, 0, done_callback, done);
  case 4:
    return dm_io_async_bvec (n, where, rw, &bvec, done_callback, done);
  default:
    return dm_io_async_vm (n, where, rw, page, done_callback, done);
  }
}

/* Open N mocks alike, and let WHERE be all of each. */
static inline void
open_mocks (struct io_region *where, unsigned int n, sector_t sectors,
            const struct mock_options *options)
{
  char name[16];
  unsigned int i;

  for (i = 0; i < n; i++) {
    g_snprintf (name, sizeof name, "mock%u", i);
    where[i].bdev = mock_open (name, sectors * SECTOR, options);
    where[i].sector = 0;
    where[i].count = sectors;
  }
}

static inline void
close_mocks (struct io_region *where, unsigned int n)
{
  unsigned int i;

  for (i = 0; i < n; i++)
    mock_close (where[i].bdev);
}

/* The events of a mock, of which there must be so many. */
static inline const struct mock_event *
trace_of (const struct io_region *region, size_t expected)
{
  const struct mock_event *trace;
  size_t n;

  trace = mock_trace (region->bdev, &n);
  g_assert_cmpuint (n, ==, expected);
  return trace;
}

#endif /* DMIO_TEST_UTIL_H */
