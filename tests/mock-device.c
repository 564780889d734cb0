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
 * The power is one for all mocks: an operation takes some when it takes
 * effect, so what follows from one that came too late comes too late too.
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

#include "clock.h"
#include "mock-device.h"

#define SECTOR DM_IO_SECTOR_SIZE

struct mock {
  struct block_device bdev;     /* first */
  struct mock_options options;
  struct bdev_ops ops;

  pthread_mutex_t lock;
  unsigned char *data;
  unsigned char *durable;
  uint64_t *first_write;        /* of each sector; 0: durable */
  bool *allocated;              /* each sector */
  bool *forgotten;              /* the same: no flush makes it durable */
  uint64_t mtime, durable_mtime;
  unsigned int revive_later;    /* see mock_set_revive */
  int revive_error;
  unsigned int revives;
  void (*revived) (void *data); /* see mock_on_revival */
  void *revived_data;
  struct mock_script script;
  struct mock_event *trace;     /* options.max_trace elements */
  size_t nr_events;             /* may be more than that */
  unsigned int counts[5];       /* by bit of enum mock_op */
  uint64_t changed;             /* bytes */
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
 * Power
 */

/* How many operations it lasts for.  Atomic. */
#define FOR_EVER UINT64_MAX
static uint64_t power = FOR_EVER;

void
mock_power_off_after (unsigned int n)
{
  __atomic_store_n (&power, n, __ATOMIC_SEQ_CST);
}

void
mock_power_off (void)
{
  mock_power_off_after (0);
}

void
mock_power_on (void)
{
  __atomic_store_n (&power, FOR_EVER, __ATOMIC_SEQ_CST);
}

bool
mock_power_is_off (void)
{
  return __atomic_load_n (&power, __ATOMIC_SEQ_CST) == 0;
}

static bool
take_power (enum mock_op op)
{
  uint64_t left = __atomic_load_n (&power, __ATOMIC_SEQ_CST);

  while (left != 0 && left != FOR_EVER && op != MOCK_READ)
    if (__atomic_compare_exchange_n (&power, &left, left - 1, false,
                                     __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
      return true;
  return left != 0;
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

/* An operation that has waited takes effect: called with the lock held.
 * Returns 0 or an errno.
 */
static int
outcome (struct mock *mock, enum mock_op op, const struct mock_fate *fate)
{
  if (__atomic_load_n (&mock->bdev.failed, __ATOMIC_RELAXED))
    return ENOTCONN;
  if (fate->error != 0)
    return fate->error;
  return take_power (op) ? 0 : EIO;
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
mark_dirty (struct mock *mock, uint64_t offset, uint64_t length,
            bool allocated)
{
  uint64_t s, time = tick ();

  for (s = offset / SECTOR; s * SECTOR < offset + length; s++) {
    if (mock->first_write[s] == 0)
      mock->first_write[s] = time;
    mock->allocated[s] = allocated;
    mock->forgotten[s] = false;
  }
  mock->changed += length;
  mock->mtime = clock_date ();
}

/* Called with the lock held, when a flush has failed. */
static void
forget (struct mock *mock)
{
  uint64_t s;

  for (s = 0; mock->options.forgets && s < mock->bdev.size / SECTOR; s++)
    mock->forgotten[s] = mock->first_write[s] != 0;
}

/* Make durable what was first written before TIME. */
static void
make_durable (struct mock *mock, uint64_t offset, uint64_t length,
              uint64_t time)
{
  uint64_t s;

  for (s = offset / SECTOR; s * SECTOR < offset + length; s++)
    if (mock->first_write[s] != 0 && mock->first_write[s] < time &&
        !mock->forgotten[s]) {
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
  int error;

  event.length = check_iovecs (mock, iov, iovcnt, offset);
  i = begin (mock, &event, &fate);
  pthread_mutex_lock (&mock->lock);
  error = outcome (mock, MOCK_READ, &fate);
  if (error != 0)
    return end (mock, i, -error);
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
  int error;

  g_assert_false (fua && bdev->fua_by_flush);
  event.length = check_iovecs (mock, iov, iovcnt, offset);
  i = begin (mock, &event, &fate);
  pthread_mutex_lock (&mock->lock);
  error = outcome (mock, MOCK_WRITE, &fate);
  if (error != 0)
    return end (mock, i, -error);
  copy (mock->data + offset, iov, fate.transfer, true);
  mark_dirty (mock, offset, fate.transfer, true);
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
  int error;

  i = begin (mock, &event, &fate);
  pthread_mutex_lock (&mock->lock);
  error = outcome (mock, MOCK_FLUSH, &fate);
  if (error == 0) {
    make_durable (mock, 0, bdev->size, time);
    mock->durable_mtime = mock->mtime;
  }
  else
    forget (mock);
  return end (mock, i, -error);
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
  int error;

  g_assert_cmpuint (length, >, 0);
  i = begin (mock, &event, &fate);
  pthread_mutex_lock (&mock->lock);
  if (fate.error == 0 && !supported)
    fate.error = EOPNOTSUPP;
  error = outcome (mock, op, &fate);
  if (error == 0) {
    memset (mock->data + offset, 0, length);
    mark_dirty (mock, offset, length, op == MOCK_ZERO);
  }
  return end (mock, i, -error);
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

static void
mock_glance (struct block_device *bdev, struct bdev_stamp *stamp)
{
  struct mock *mock = to_mock (bdev);

  pthread_mutex_lock (&mock->lock);
  *stamp = (struct bdev_stamp) {
    .valid = true, .size = bdev->size, .mtime = mock->mtime,
  };
  pthread_mutex_unlock (&mock->lock);
}

/* A flush, as that of a file. */
static int
mock_stamp (struct block_device *bdev, struct bdev_stamp *stamp)
{
  int r = mock_flush (bdev);

  mock_glance (bdev, stamp);
  return r;
}

void
mock_hide_times (struct block_device *bdev)
{
  struct mock *mock = to_mock (bdev);

  mock->ops.stamp = NULL;
  mock->ops.glance = NULL;
  mock->ops.touched = NULL;
}

static bool
mock_touched (struct block_device *bdev, uint64_t date)
{
  struct mock *mock = to_mock (bdev);
  bool touched;

  pthread_mutex_lock (&mock->lock);
  touched = mock->mtime > date;
  pthread_mutex_unlock (&mock->lock);
  return touched;
}

static int
mock_extents (struct block_device *bdev, uint64_t offset, uint64_t length,
              struct bdev_extent *extents, int max)
{
  struct mock *mock = to_mock (bdev);
  uint64_t end = offset + length, n;
  struct mock_fate fate;
  int i = -1;

  pthread_mutex_lock (&mock->lock);
  fate = mock_script_fate (&mock->script, MOCK_EXTENTS, offset, length);
  pthread_mutex_unlock (&mock->lock);
  mock_fate_wait (&fate);
  if (fate.error != 0)
    return -fate.error;
  pthread_mutex_lock (&mock->lock);
  for (; offset < end; offset += n) {
    bool hole = !mock->allocated[offset / SECTOR];

    n = MIN (SECTOR - offset % SECTOR, end - offset);
    if (i >= 0 && extents[i].hole == hole)
      extents[i].length += n;
    else if (++i < max)
      extents[i] = (struct bdev_extent) {
        .length = n, .hole = hole, .zero = hole,
      };
    else
      break;
  }
  pthread_mutex_unlock (&mock->lock);
  return MIN (i + 1, max);
}

static int
mock_revive (struct block_device *bdev)
{
  struct mock *mock = to_mock (bdev);
  int r;

  pthread_mutex_lock (&mock->lock);
  mock->revives++;
  r = mock->revive_error;
  if (r == 0 && mock->revive_later > 0) {
    mock->revive_later--;
    r = -EAGAIN;
  }
  pthread_mutex_unlock (&mock->lock);
  if (r == 0)
    mock_set_failed (bdev, false);
  if (r == 0 && mock->revived != NULL)
    mock->revived (mock->revived_data);
  return r;
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
  g_free (mock->allocated);
  g_free (mock->forgotten);
  g_free (mock->trace);
  g_free (mock);
}

static const struct bdev_ops mock_ops = {
  .readv = mock_readv, .writev = mock_writev,
  .flush = mock_flush, .punch = mock_punch, .zero = mock_zero,
  .revive = mock_revive, .close = mock_close,
};

static void
set_ops (struct mock *mock)
{
  mock->ops = mock_ops;
  if (mock->options.ring) {
    mock->ops.ring_prepare = mock_ring_prepare;
    mock->ops.ring_result = mock_ring_result;
  }
  if (mock->options.has_extents)
    mock->ops.extents = mock_extents;
  if (mock->options.has_stamp) {
    mock->ops.stamp = mock_stamp;
    mock->ops.glance = mock_glance;
    mock->ops.touched = mock_touched;
  }
}

struct block_device *
mock_open (const char *name, uint64_t size,
           const struct mock_options *options)
{
  struct mock *mock = g_new0 (struct mock, 1);

  g_assert_cmpint (bdev_init (&mock->bdev, &mock->ops, name, size), ==, 0);
  mock->options = *options;
  set_ops (mock);
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
  mock->allocated = g_new0 (bool, size / SECTOR + 1);
  mock->forgotten = g_new0 (bool, size / SECTOR + 1);
  mock->mtime = mock->durable_mtime = clock_date ();
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

void
mock_set_failed (struct block_device *bdev, bool failed)
{
  __atomic_store_n (&bdev->offline, failed, __ATOMIC_RELAXED);
  __atomic_store_n (&bdev->failed, failed, __ATOMIC_RELAXED);
}

void
mock_on_revival (struct block_device *bdev, void (*revived) (void *data),
                 void *data)
{
  struct mock *mock = to_mock (bdev);

  mock->revived = revived;
  mock->revived_data = data;
}

void
mock_set_revive (struct block_device *bdev, unsigned int n, int error)
{
  struct mock *mock = to_mock (bdev);

  pthread_mutex_lock (&mock->lock);
  mock->revive_later = n;
  mock->revive_error = error;
  mock->revives = 0;
  pthread_mutex_unlock (&mock->lock);
}

unsigned int
mock_revives (struct block_device *bdev)
{
  struct mock *mock = to_mock (bdev);
  unsigned int n;

  pthread_mutex_lock (&mock->lock);
  n = mock->revives;
  pthread_mutex_unlock (&mock->lock);
  return n;
}

void
mock_reopen (struct block_device *bdev)
{
  mock_set_failed (bdev, false);
  mock_set_revive (bdev, 0, 0);
  g_assert_cmpint (bdev_revive (bdev), ==, 0);
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
  mock->changed = 0;
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

uint64_t
mock_changed (struct block_device *bdev)
{
  struct mock *mock = to_mock (bdev);
  uint64_t n;

  pthread_mutex_lock (&mock->lock);
  n = mock->changed;
  pthread_mutex_unlock (&mock->lock);
  return n;
}

unsigned char *
mock_data (struct block_device *bdev)
{
  return to_mock (bdev)->data;
}

unsigned char
mock_byte (struct block_device *bdev, uint64_t offset)
{
  struct mock *mock = to_mock (bdev);
  unsigned char byte;

  pthread_mutex_lock (&mock->lock);
  byte = mock->data[offset];
  pthread_mutex_unlock (&mock->lock);
  return byte;
}

void
mock_set (struct block_device *bdev, uint64_t offset, const void *buf,
          size_t length)
{
  struct mock *mock = to_mock (bdev);

  pthread_mutex_lock (&mock->lock);
  memcpy (mock->data + offset, buf, length);
  memcpy (mock->durable + offset, buf, length);
  memset (mock->allocated + offset / SECTOR, true,
          (length + SECTOR - 1) / SECTOR);
  pthread_mutex_unlock (&mock->lock);
}

void
mock_touch (struct block_device *bdev, uint64_t mtime)
{
  struct mock *mock = to_mock (bdev);

  pthread_mutex_lock (&mock->lock);
  mock->mtime = mock->durable_mtime = mtime;
  pthread_mutex_unlock (&mock->lock);
}

uint64_t
mock_allocated (struct block_device *bdev)
{
  struct mock *mock = to_mock (bdev);
  uint64_t s, n = 0;

  pthread_mutex_lock (&mock->lock);
  for (s = 0; s < bdev->size / SECTOR; s++)
    n += mock->allocated[s] ? SECTOR : 0;
  pthread_mutex_unlock (&mock->lock);
  return n;
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
    if (!mock->forgotten[s] && g_rand_boolean (rand))
      memcpy (mock->durable + at, mock->data + at, SECTOR);
    else {
      memcpy (mock->data + at, mock->durable + at, SECTOR);
      mock->allocated[s] = true; /* or it may have been */
    }
    mock->first_write[s] = 0;
    mock->forgotten[s] = false;
  }
  if (g_rand_boolean (rand))
    mock->mtime = mock->durable_mtime;
  mock->durable_mtime = mock->mtime;
  pthread_mutex_unlock (&mock->lock);
}
