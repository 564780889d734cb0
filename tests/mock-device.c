/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The volatile cache is modelled by two images: what reads see, and what
 * is durable.  first_write tells for each sector when it was first
 * written since it last was durable, and so which flush has to make it
 * durable: one that began later.  A flush takes effect when it ends, so
 * that nothing is durable before it is acknowledged.
 *
 * mock->lock owns all of a mock that changes.  It is not held while an
 * operation waits; the gate's lock is never taken with it.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>
#include <liburing.h>

#include "mock-device.h"

#define SECTOR DM_IO_SECTOR_SIZE

struct mock {
  struct block_device bdev;     /* first */
  struct mock_options options;

  pthread_mutex_t lock;
  unsigned char *data;
  unsigned char *durable;
  uint64_t *first_write;        /* of each sector; 0: durable */
  struct mock_script script;
  struct mock_event *trace;     /* options.max_trace elements */
  size_t nr_events;             /* may be more than that */
  unsigned int counts[5];       /* by bit of enum mock_op */
};

static struct mock *
to_mock (struct block_device *bdev)
{
  return (struct mock *) bdev;
}

/* The clock of all mocks.  Atomic. */
static uint64_t now;

static uint64_t
tick (void)
{
  return __atomic_add_fetch (&now, 1, __ATOMIC_SEQ_CST);
}

uint64_t
mock_now (void)
{
  return __atomic_load_n (&now, __ATOMIC_SEQ_CST);
}

/*----------------------------------------------------------------------
 * Operations
 */

/* An operation begins: it is recorded, and waits.  Returns its index in
 * the trace.
 */
static size_t
begin (struct mock *mock, const struct mock_event *event,
       struct mock_fate *fate)
{
  size_t i;

  g_assert_cmpuint (event->offset, <=, mock->bdev.size);
  g_assert_cmpuint (event->length, <=, mock->bdev.size - event->offset);
  if (mock->options.read_only)
    g_assert_true (event->op & (MOCK_READ | MOCK_FLUSH));

  pthread_mutex_lock (&mock->lock);
  i = mock->nr_events++;
  mock->counts[__builtin_ctz (event->op)]++;
  if (i < mock->options.max_trace) {
    mock->trace[i] = *event;
    mock->trace[i].begin = tick ();
  }
  *fate = mock_script_fate (&mock->script, event->op, event->offset,
                            event->length);
  pthread_mutex_unlock (&mock->lock);

  mock_fate_wait (fate);
  return i;
}

/* Called with the lock held, which it releases. */
static ssize_t
end (struct mock *mock, size_t i, ssize_t result)
{
  if (i < mock->options.max_trace) {
    mock->trace[i].result = result;
    mock->trace[i].end = tick ();
  }
  pthread_mutex_unlock (&mock->lock);
  return result;
}

/* The next two are called with the lock held, for bytes that have been
 * changed.
 */

static void
mark_dirty (struct mock *mock, uint64_t offset, uint64_t length)
{
  uint64_t s, time = tick ();

  for (s = offset / SECTOR; s * SECTOR < offset + length; s++)
    if (mock->first_write[s] == 0)
      mock->first_write[s] = time;
}

/* Make durable what was first written before TIME. */
static void
make_durable (struct mock *mock, uint64_t offset, uint64_t length,
              uint64_t time)
{
  uint64_t s;

  for (s = offset / SECTOR; s * SECTOR < offset + length; s++)
    if (mock->first_write[s] != 0 && mock->first_write[s] < time) {
      memcpy (mock->durable + s * SECTOR, mock->data + s * SECTOR, SECTOR);
      mock->first_write[s] = 0;
    }
}

static uint64_t
check_iovecs (const struct mock *mock, const struct iovec *iov, int iovcnt,
              uint64_t offset)
{
  size_t align = mock->bdev.mem_align;
  uint64_t length = 0;
  int i;

  g_assert_cmpint (iovcnt, >, 0);
  g_assert_cmpint (iovcnt, <=, 1024); /* IOV_MAX */
  if (align > 1)
    g_assert_cmpuint (offset % mock->bdev.block_size, ==, 0);
  for (i = 0; i < iovcnt; i++) {
    g_assert_cmpuint (iov[i].iov_len, >, 0);
    if (align > 1) {
      g_assert_cmpuint ((uintptr_t) iov[i].iov_base % align, ==, 0);
      g_assert_cmpuint (iov[i].iov_len % mock->bdev.block_size, ==, 0);
    }
    length += iov[i].iov_len;
  }
  return length;
}

/* Called with the lock held.  Copies LENGTH bytes between the iovecs and
 * the image.
 */
static void
copy (unsigned char *image, const struct iovec *iov, uint64_t length,
      bool to_image)
{
  size_t n;

  for (; length > 0; iov++, image += n, length -= n) {
    n = MIN (iov->iov_len, length);
    if (to_image)
      memcpy (image, iov->iov_base, n);
    else
      memcpy (iov->iov_base, image, n);
  }
}

static ssize_t
mock_readv (struct block_device *bdev, const struct iovec *iov, int iovcnt,
            uint64_t offset)
{
  struct mock *mock = to_mock (bdev);
  struct mock_event event = { .op = MOCK_READ, .offset = offset };
  struct mock_fate fate;
  size_t i;

  event.length = check_iovecs (mock, iov, iovcnt, offset);
  i = begin (mock, &event, &fate);
  pthread_mutex_lock (&mock->lock);
  if (fate.error != 0)
    return end (mock, i, -fate.error);
  copy (mock->data + offset, iov, fate.transfer, false);
  return end (mock, i, fate.transfer);
}

static ssize_t
mock_writev (struct block_device *bdev, const struct iovec *iov, int iovcnt,
             uint64_t offset, bool fua)
{
  struct mock *mock = to_mock (bdev);
  struct mock_event event = { .op = MOCK_WRITE, .fua = fua,
                              .offset = offset };
  struct mock_fate fate;
  size_t i;

  g_assert_false (fua && bdev->fua_by_flush);
  event.length = check_iovecs (mock, iov, iovcnt, offset);
  i = begin (mock, &event, &fate);
  pthread_mutex_lock (&mock->lock);
  if (fate.error != 0)
    return end (mock, i, -fate.error);
  copy (mock->data + offset, iov, fate.transfer, true);
  mark_dirty (mock, offset, fate.transfer);
  if (fua)
    make_durable (mock, offset, fate.transfer, UINT64_MAX);
  return end (mock, i, fate.transfer);
}

/* The results of the calls that this thread's ring has, oldest first.
 * A call is made, and waits if it has to, when it is prepared; what the
 * kernel gets is an operation that does nothing.
 */
static __thread struct {
  struct block_device *bdev;
  ssize_t result;
} called[DM_IO_MAX_REGIONS];
static __thread unsigned int num_called;

static int
mock_ring_prepare (struct block_device *bdev, enum dm_io_op op,
                   const struct iovec *iov, int iovcnt, uint64_t offset,
                   struct io_uring_sqe *sqe)
{
  g_assert_cmpuint (num_called, <, DM_IO_MAX_REGIONS);
  called[num_called].bdev = bdev;
  called[num_called++].result = op == DM_IO_READ ?
    mock_readv (bdev, iov, iovcnt, offset) :
    mock_writev (bdev, iov, iovcnt, offset, false);
  io_uring_prep_nop (sqe);
  return 0;
}

static ssize_t
mock_ring_result (struct block_device *bdev, enum dm_io_op op, ssize_t r)
{
  unsigned int i = 0;
  ssize_t result;

  g_assert_cmpint (r, ==, 0);
  while (i < num_called && called[i].bdev != bdev)
    i++;
  g_assert_cmpuint (i, <, num_called);
  result = called[i].result;
  num_called--;
  memmove (&called[i], &called[i+1], (num_called - i) * sizeof called[0]);
  return result;
}

static int
mock_flush (struct block_device *bdev)
{
  struct mock *mock = to_mock (bdev);
  struct mock_event event = { .op = MOCK_FLUSH };
  uint64_t time = tick ();
  struct mock_fate fate;
  size_t i;

  i = begin (mock, &event, &fate);
  pthread_mutex_lock (&mock->lock);
  if (fate.error == 0)
    make_durable (mock, 0, bdev->size, time);
  return end (mock, i, -fate.error);
}

static int
make_zero (struct block_device *bdev, enum mock_op op, bool supported,
           uint64_t offset, uint64_t length)
{
  struct mock *mock = to_mock (bdev);
  struct mock_event event = { .op = op, .offset = offset,
                              .length = length };
  struct mock_fate fate;
  size_t i;

  g_assert_cmpuint (length, >, 0);
  i = begin (mock, &event, &fate);
  pthread_mutex_lock (&mock->lock);
  if (fate.error == 0 && !supported)
    fate.error = EOPNOTSUPP;
  if (fate.error == 0) {
    memset (mock->data + offset, 0, length);
    mark_dirty (mock, offset, length);
  }
  return end (mock, i, -fate.error);
}

static int
mock_punch (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  return make_zero (bdev, MOCK_PUNCH, to_mock (bdev)->options.can_punch,
                    offset, length);
}

static int
mock_zero (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  return make_zero (bdev, MOCK_ZERO, to_mock (bdev)->options.can_zero,
                    offset, length);
}

void
mock_close (struct block_device *bdev)
{
  struct mock *mock = to_mock (bdev);

  bdev_fini (bdev);
  pthread_mutex_destroy (&mock->lock);
  g_free (mock->data);
  g_free (mock->durable);
  g_free (mock->first_write);
  g_free (mock->trace);
  g_free (mock);
}

#define MOCK_OPS                                                \
  .readv = mock_readv, .writev = mock_writev,                   \
  .flush = mock_flush, .punch = mock_punch, .zero = mock_zero,  \
  .close = mock_close

static const struct bdev_ops mock_ops = { MOCK_OPS };
static const struct bdev_ops mock_ring_ops = {
  MOCK_OPS,
  .ring_prepare = mock_ring_prepare, .ring_result = mock_ring_result,
};

struct block_device *
mock_open (const char *name, uint64_t size,
           const struct mock_options *options)
{
  struct mock *mock = g_new0 (struct mock, 1);

  g_assert_cmpint (bdev_init (&mock->bdev,
                              options->ring ? &mock_ring_ops : &mock_ops,
                              name, size), ==, 0);
  mock->options = *options;
  if (mock->options.max_trace == 0)
    mock->options.max_trace = 1024;
  mock->bdev.read_only = options->read_only;
  mock->bdev.always_waits = options->always_waits;
  mock->bdev.fua_by_flush = options->fua_by_flush;
  mock->bdev.mem_align = MAX (options->mem_align, 1);
  mock->bdev.can_punch = options->can_punch || options->lies_about_punch;
  pthread_mutex_init (&mock->lock, NULL);
  mock->data = g_malloc0 (size);
  mock->durable = g_malloc0 (size);
  mock->first_write = g_new0 (uint64_t, size / SECTOR);
  mock->trace = g_new0 (struct mock_event, mock->options.max_trace);
  return &mock->bdev;
}

void
mock_fault (struct block_device *bdev, const struct mock_fault *fault)
{
  struct mock *mock = to_mock (bdev);

  pthread_mutex_lock (&mock->lock);
  mock_script_add (&mock->script, fault);
  pthread_mutex_unlock (&mock->lock);
}

void
mock_clear_faults (struct block_device *bdev)
{
  struct mock *mock = to_mock (bdev);

  pthread_mutex_lock (&mock->lock);
  mock->script.n = 0;
  pthread_mutex_unlock (&mock->lock);
}

/*----------------------------------------------------------------------
 * What the test looks at
 */

const struct mock_event *
mock_trace (struct block_device *bdev, size_t *n)
{
  struct mock *mock = to_mock (bdev);

  pthread_mutex_lock (&mock->lock);
  g_assert_cmpuint (mock->nr_events, <=, mock->options.max_trace);
  *n = mock->nr_events;
  pthread_mutex_unlock (&mock->lock);
  return mock->trace;
}

void
mock_clear_trace (struct block_device *bdev)
{
  struct mock *mock = to_mock (bdev);

  pthread_mutex_lock (&mock->lock);
  mock->nr_events = 0;
  memset (mock->counts, 0, sizeof mock->counts);
  pthread_mutex_unlock (&mock->lock);
}

unsigned int
mock_count (struct block_device *bdev, unsigned int ops)
{
  struct mock *mock = to_mock (bdev);
  unsigned int i, sum = 0;

  pthread_mutex_lock (&mock->lock);
  for (i = 0; i < G_N_ELEMENTS (mock->counts); i++)
    if (ops & (1U << i))
      sum += mock->counts[i];
  pthread_mutex_unlock (&mock->lock);
  return sum;
}

unsigned char *
mock_data (struct block_device *bdev)
{
  return to_mock (bdev)->data;
}

void
mock_set (struct block_device *bdev, uint64_t offset, const void *buf,
          size_t length)
{
  struct mock *mock = to_mock (bdev);

  pthread_mutex_lock (&mock->lock);
  memcpy (mock->data + offset, buf, length);
  memcpy (mock->durable + offset, buf, length);
  pthread_mutex_unlock (&mock->lock);
}

void
mock_power_cut (struct block_device *bdev, uint64_t seed)
{
  struct mock *mock = to_mock (bdev);
  g_autoptr (GRand) rand = g_rand_new_with_seed (seed);
  uint64_t s, at;

  pthread_mutex_lock (&mock->lock);
  for (s = 0; s < bdev->size / SECTOR; s++) {
    if (mock->first_write[s] == 0)
      continue;
    at = s * SECTOR;
    if (g_rand_boolean (rand))
      memcpy (mock->durable + at, mock->data + at, SECTOR);
    else
      memcpy (mock->data + at, mock->durable + at, SECTOR);
    mock->first_write[s] = 0;
  }
  pthread_mutex_unlock (&mock->lock);
}
