/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Each thread that needs a ring makes one, and keeps it until it ends; no
 * other thread touches it, so it has no lock.  Only the knowledge that
 * the process can have none is shared, and atomic.
 *
 * From the submission of a call to its completion the kernel uses the
 * iovecs and the memory they point to.  So ring_end returns only when
 * every call that was submitted has completed, whatever fails.  Should the
 * kernel not take a call, for lack of memory for example, it is taken back:
 * what is left of the batch is done by bdev_ops readv and writev, and the
 * ring, in which the call still stands, is thrown away.
 *
 * Bounce pages: between ring_begin and ring_end the thread may do other I/O,
 * and wait for a page of the reserve then.  So ring_begin takes none, and
 * ring_end waits for one only when none of its calls is in flight.
 *
 * The end of a transfer that a thread of the kernel made (one that had to
 * wait for a lock, or for blocks of a file to be allocated) is not quite its
 * end: the kernel may keep the file open until the ring is next entered.  So
 * nothing that others wait for may depend on that file being closed.
 *
 * A child process has a copy of its parent's rings, and must not use
 * them; as long as it has the copy of one, that keeps open what
 * the parent used.  So better none is there at a fork (ring_rest).
 */

#include <config.h>

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include <glib.h>

#include "clock.h"
#include "ring.h"

/* A region has one call in flight at most. */
#define RING_SIZE DM_IO_MAX_REGIONS

/* When a ring could not be made, or broke, a thread does without for so
 * long.
 */
#define RETRY_NSEC NSEC_PER_SEC

/* When the kernel does not even say what has completed. */
#define POLL_US 1000

/* This thread's ring. */
static __thread struct {
  struct io_uring uring;
  pid_t pid;                    /* of the process that made it; 0: none */
  bool in_use;                  /* from ring_begin to ring_end */
  unsigned int prepared;        /* calls, ever; wraps */
  unsigned int in_flight;       /* calls, with those not yet submitted */
  unsigned int pause;           /* usec before the next calls */
  uint64_t not_before;          /* when to try to make a ring */
} own;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;       /* its destructor ends the ring */
static int key_error;

static int refused;             /* atomic: a negative errno that is for ever */
static bool said;               /* atomic */

/* Atomic.  ThreadSanitizer does not see that liburing maps memory: with this
 * it knows that what one thread did to its ring came before another has its
 * own at the same address.
 */
static unsigned int order;

/*----------------------------------------------------------------------
 * Making one
 */

/* The first is fastest, and for Linux 6.1; the next is for 5.19. */
static int
make_ring (struct io_uring *uring)
{
  static const unsigned int flags[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
    IORING_SETUP_COOP_TASKRUN,
    0,
  };
  unsigned int i;
  int r = -EINVAL;

  for (i = 0; i < G_N_ELEMENTS (flags) && r == -EINVAL; i++) {
    struct io_uring_params params = { .flags = flags[i] };

    r = io_uring_queue_init_params (RING_SIZE, uring, &params);
  }
  return r < 0 ? r : 0;
}

int
ring_probe (void)
{
  struct io_uring uring;
  int r = make_ring (&uring);

  if (r == 0)
    io_uring_queue_exit (&uring);
  return r;
}

static void
drop_ring (void)
{
  __atomic_add_fetch (&order, 1, __ATOMIC_RELEASE);
  io_uring_queue_exit (&own.uring);
  own.pid = 0;
}

/* A thread ends. */
static void
destroy (void *unused)
{
  if (own.pid != 0)
    drop_ring ();
}

static void
make_key (void)
{
  key_error = -pthread_key_create (&key, destroy);
}

/* A ring that the thread's end takes away.  It is registered so that it can
 * be used, and what is in flight be waited for, also if the program
 * closes descriptors that it does not know.
 */
static int
make_own_ring (void)
{
  int r;

  pthread_once (&once, make_key);
  if (key_error != 0)
    return key_error;
  r = make_ring (&own.uring);
  if (r < 0)
    return r;
  __atomic_load_n (&order, __ATOMIC_ACQUIRE);
  io_uring_register_ring_fd (&own.uring);
  own.pid = getpid ();
  r = -pthread_setspecific (key, &own);
  if (r < 0)
    drop_ring ();
  return r;
}

/* Will it be so for the next thread, too? */
static bool
is_permanent (int r)
{
  return r != -ENOMEM && r != -EAGAIN && r != -EMFILE && r != -ENFILE;
}

static void
give_reason (int r)
{
  if (is_permanent (r))
    __atomic_store_n (&refused, r, __ATOMIC_RELAXED);
  if (!__atomic_exchange_n (&said, true, __ATOMIC_RELAXED))
    g_warning ("io_uring cannot be used (%s): direct I/O to several devices "
               "at once takes a thread for each instead, which is slower",
               g_strerror (-r));
}

static bool
have_ring (void)
{
  int r;

  if (own.pid == getpid ())
    return true;
  if (own.pid != 0)             /* the parent's */
    drop_ring ();
  if (__atomic_load_n (&refused, __ATOMIC_RELAXED) != 0 ||
      clock_now () < own.not_before)
    return false;
  r = make_own_ring ();
  if (r < 0) {
    give_reason (r);
    own.not_before = clock_now () + RETRY_NSEC;
  }
  return r == 0;
}

/*----------------------------------------------------------------------
 * Calls
 */

static void
end_transfer (struct ring_transfer *rt)
{
  rt->state = RING_ENDED;
  rt->error = -rt->transfer.error;
  rt->nsec = clock_now () - rt->begun;
}

static void
note_result (struct ring_transfer *rt, ssize_t r)
{
  unsigned int usec = transfer_result (&rt->transfer, r);

  own.pause = MAX (own.pause, usec);
}

static void
enqueue (struct ring_transfer *rt, const struct io_uring_sqe *prepared)
{
  struct io_uring_sqe *sqe = io_uring_get_sqe (&own.uring);

  *sqe = *prepared;
  io_uring_sqe_set_data (sqe, rt);
  rt->serial = own.prepared++;
  rt->state = RING_IN_FLIGHT;
  own.in_flight++;
}

/* Prepare the next call of a transfer, if there is room and a bounce
 * buffer, or find that it has ended.
 */
static void
prepare (struct ring_transfer *rt, enum transfer_reserve reserve)
{
  struct transfer *t = &rt->transfer;
  struct block_device *bdev = rt->io->bdev;
  struct io_uring_sqe sqe;
  int n, r;

  if (rt->state != RING_IDLE || io_uring_sq_space_left (&own.uring) == 0)
    return;
  while ((n = transfer_next (t, rt->iov, RING_IOVECS, reserve)) > 0) {
    memset (&sqe, 0, sizeof sqe);
    r = bdev->ops->ring_prepare (bdev, rt->io->op, rt->iov, n, t->offset,
                                 &sqe);
    if (r == 0) {
      enqueue (rt, &sqe);
      return;
    }
    note_result (rt, r);
    if (own.pause > 0)
      return;
  }
  if (n == 0)
    end_transfer (rt);
}

static void
prepare_all (struct ring_batch *batch, enum transfer_reserve reserve)
{
  struct ring_transfer *rt;

  own.pause = 0;
  for (rt = batch->first; rt != NULL; rt = rt->next)
    prepare (rt, reserve);
}

/* Linux hands calls to a device in one go, instead of one by one, when they
 * are three or more.  So the two of a mirror with two legs, the most common
 * of all, get company: an operation that does nothing, and says nothing.
 */
static void
add_third (void)
{
  struct io_uring_sqe *sqe;

  if (io_uring_sq_ready (&own.uring) != 2 ||
      !(own.uring.features & IORING_FEAT_CQE_SKIP))
    return;
  sqe = io_uring_get_sqe (&own.uring);
  io_uring_prep_nop (sqe);
  io_uring_sqe_set_flags (sqe, IOSQE_CQE_SKIP_SUCCESS);
  io_uring_sqe_set_data (sqe, NULL);
  own.prepared++;
}

/* Take the results that are there.  Returns how many they were. */
static unsigned int
reap (void)
{
  struct io_uring_cqe *cqe;
  struct ring_transfer *rt;
  struct block_device *bdev;
  unsigned int n;

  for (n = 0; io_uring_peek_cqe (&own.uring, &cqe) == 0; n++) {
    rt = io_uring_cqe_get_data (cqe);
    if (rt == NULL) {           /* the third, if it failed */
      io_uring_cqe_seen (&own.uring, cqe);
      continue;
    }
    bdev = rt->io->bdev;
    note_result (rt, bdev->ops->ring_result (bdev, rt->io->op, cqe->res));
    io_uring_cqe_seen (&own.uring, cqe);
    rt->state = RING_IDLE;
    own.in_flight--;
  }
  return n;
}

/*----------------------------------------------------------------------
 * When the kernel does not take them
 */

/* The calls that were prepared last are those not submitted. */
static void
take_back (struct ring_batch *batch)
{
  unsigned int n = io_uring_sq_ready (&own.uring);
  struct ring_transfer *rt;

  for (rt = batch->first; rt != NULL; rt = rt->next)
    if (rt->state == RING_IN_FLIGHT && own.prepared - rt->serial <= n) {
      transfer_undo (&rt->transfer);
      rt->state = RING_IDLE;
      own.in_flight--;
    }
}

static void
do_without (struct ring_batch *batch)
{
  struct io_uring_cqe *cqe;
  struct ring_transfer *rt;
  int r;

  take_back (batch);
  while (own.in_flight > 0) {
    r = io_uring_wait_cqe (&own.uring, &cqe);
    if (r < 0 && r != -EINTR)
      g_usleep (POLL_US);
    reap ();
  }
  for (rt = batch->first; rt != NULL; rt = rt->next)
    if (rt->state == RING_IDLE) {
      transfer_run (&rt->transfer);
      end_transfer (rt);
    }
  drop_ring ();
  own.not_before = clock_now () + RETRY_NSEC;
}

/*----------------------------------------------------------------------
 * Batches
 */

void
ring_add (struct ring_batch *batch, struct ring_transfer *transfer,
          struct bdev_io *io)
{
  transfer->io = io;
  transfer->next = batch->first;
  batch->first = transfer;
}

void
ring_settle (void)
{
  if (own.pid == getpid ())
    io_uring_get_events (&own.uring);
}

void
ring_rest (void)
{
  if (own.pid == getpid ())
    drop_ring ();
}

bool
ring_begin (struct ring_batch *batch, bool submit)
{
  uint64_t now = clock_now ();
  struct ring_transfer *rt;

  if (own.in_use || !have_ring ())
    return false;
  own.in_use = true;
  for (rt = batch->first; rt != NULL; rt = rt->next) {
    rt->state = RING_IDLE;
    rt->begun = now;
    transfer_begin (&rt->transfer, rt->io);
  }
  prepare_all (batch, TRANSFER_NO_RESERVE);
  if (submit) {
    add_third ();
    io_uring_submit (&own.uring); /* ring_end sees whether that worked */
  }
  return true;
}

static struct ring_transfer *
first_idle (const struct ring_batch *batch)
{
  struct ring_transfer *rt;

  for (rt = batch->first; rt != NULL && rt->state != RING_IDLE; rt = rt->next)
    ;
  return rt;
}

/* Submit what is prepared, and wait until one has completed.  False if that
 * is not possible.
 */
static bool
submit_and_wait (void)
{
  int r;

  add_third ();
  r = io_uring_submit_and_wait (&own.uring, 1);
  return reap () > 0 || r >= 0 || r == -EINTR;
}

void
ring_end (struct ring_batch *batch)
{
  struct ring_transfer *rt;

  for (;;) {
    if (own.pause > 0)
      g_usleep (own.pause);
    prepare_all (batch, TRANSFER_TRY_RESERVE);
    rt = first_idle (batch);
    if (own.in_flight == 0 && rt == NULL)
      break;
    if (own.in_flight == 0)
      prepare (rt, TRANSFER_WAIT_FOR_RESERVE);
    if (own.in_flight > 0 && !submit_and_wait ()) {
      do_without (batch);
      break;
    }
  }
  own.in_use = false;
}
