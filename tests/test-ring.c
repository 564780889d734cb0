/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Reads and writes through io_uring: what they do is what the same calls
 * do one by one; and whatever the kernel says, no transfer is lost.
 *
 * Linked with --wrap for each function __wrap_ below.
 */

#include <config.h>

#include <dirent.h>
#include <fcntl.h>
#include <liburing.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "log-lines.h"
#include "ring.h"
#include "test-files.h"

/*----------------------------------------------------------------------
 * The calls of liburing
 */

/* How many there were that worked; atomic. */
static unsigned int made, ended, submitted;
static unsigned int tried;      /* to make a ring; atomic */
static unsigned int together;   /* entries of the largest submission; atomic */

/* What happens to the calls; set while there are none. */
static struct {
  int init_error;               /* to make a ring fails with this, */
  unsigned int init_flags;      /* if it has one of these flags */

  int submit_error;             /* to submit and wait fails with this */
  unsigned int after, times;    /* after so many calls, so many times */
  unsigned int hide;            /* and so many transfers are not submitted */

  bool disturb;                 /* some transfers end early */
  struct rng rng;
} inject;

static unsigned int
count (unsigned int *counter)
{
  return __atomic_load_n (counter, __ATOMIC_SEQ_CST);
}

static void
inject_nothing (void)
{
  memset (&inject, 0, sizeof inject);
}

/* A transfer that gets another result than the kernel's. */
struct changed {
  void *data;
  int result;
  struct iovec iov[RING_IOVECS];
};
static struct changed changed[DM_IO_MAX_REGIONS];
static unsigned int num_changed;

extern int __real_io_uring_queue_init_params (unsigned int entries,
                                              struct io_uring *ring,
                                              struct io_uring_params *p);
extern int __wrap_io_uring_queue_init_params (unsigned int entries,
                                              struct io_uring *ring,
                                              struct io_uring_params *p);
int
__wrap_io_uring_queue_init_params (unsigned int entries,
                                   struct io_uring *ring,
                                   struct io_uring_params *p)
{
  int r;

  __atomic_add_fetch (&tried, 1, __ATOMIC_SEQ_CST);
  if (inject.init_error != 0 &&
      (inject.init_flags == 0 || inject.init_flags & p->flags))
    return -inject.init_error;
  r = __real_io_uring_queue_init_params (entries, ring, p);
  if (r == 0)
    __atomic_add_fetch (&made, 1, __ATOMIC_SEQ_CST);
  return r;
}

extern void __real_io_uring_queue_exit (struct io_uring *ring);
extern void __wrap_io_uring_queue_exit (struct io_uring *ring);
void
__wrap_io_uring_queue_exit (struct io_uring *ring)
{
  __atomic_add_fetch (&ended, 1, __ATOMIC_SEQ_CST);
  __real_io_uring_queue_exit (ring);
}

/* The device does less, or only says why not. */
static void
disturb (struct io_uring_sqe *sqe)
{
  static const int errors[] = { EINTR, EAGAIN };
  struct changed *c = &changed[num_changed];
  uint64_t i = rng_below (&inject.rng, 8);
  struct iovec *iov = (struct iovec *) (uintptr_t) sqe->addr;

  c->data = (void *) (uintptr_t) sqe->user_data;
  if (c->data == NULL)
    return;
  if (i < G_N_ELEMENTS (errors)) {
    io_uring_prep_nop (sqe);
    io_uring_sqe_set_data (sqe, c->data);
    c->result = -errors[i];
    num_changed++;
  }
  else if (i < 4 && iov->iov_len > PAGE) {
    c->iov[0] = *iov;
    c->iov[0].iov_len = PAGE * (1 + rng_below (&inject.rng,
                                               iov->iov_len / PAGE));
    sqe->addr = (uintptr_t) c->iov;
    sqe->len = 1;
    c->result = 0;
    num_changed++;
  }
}

static void
disturb_some (struct io_uring *ring)
{
  unsigned int i;

  for (i = *ring->sq.khead; i != ring->sq.sqe_tail; i++)
    disturb (&ring->sq.sqes[i & *ring->sq.kring_mask]);
}

static void
change_results (struct io_uring *ring)
{
  struct io_uring_cqe *cqe;
  unsigned int head, i;

  io_uring_for_each_cqe (ring, head, cqe)
    for (i = 0; i < num_changed; i++)
      if (changed[i].data == io_uring_cqe_get_data (cqe)) {
        if (changed[i].result != 0)
          cqe->res = changed[i].result;
        changed[i] = changed[--num_changed];
        break;
      }
}

extern int __real_io_uring_submit (struct io_uring *ring);
extern int __wrap_io_uring_submit (struct io_uring *ring);
int
__wrap_io_uring_submit (struct io_uring *ring)
{
  if (inject.submit_error != 0)
    return -inject.submit_error;
  if (inject.disturb)
    disturb_some (ring);
  __atomic_add_fetch (&submitted, 1, __ATOMIC_SEQ_CST);
  return __real_io_uring_submit (ring);
}

extern int __real_io_uring_submit_and_wait (struct io_uring *ring,
                                            unsigned int n);
extern int __wrap_io_uring_submit_and_wait (struct io_uring *ring,
                                            unsigned int n);
int
__wrap_io_uring_submit_and_wait (struct io_uring *ring, unsigned int n)
{
  unsigned int hide = MIN (inject.hide, io_uring_sq_ready (ring));
  int r;

  if (inject.submit_error != 0 && inject.after == 0 && inject.times > 0) {
    inject.times--;
    return -inject.submit_error;
  }
  if (inject.after > 0)
    inject.after--;
  if (inject.disturb)
    disturb_some (ring);
  if (hide == io_uring_sq_ready (ring))
    hide = 0;
  ring->sq.sqe_tail -= hide;
  __atomic_add_fetch (&submitted, 1, __ATOMIC_SEQ_CST);
  if (io_uring_sq_ready (ring) > count (&together))
    __atomic_store_n (&together, io_uring_sq_ready (ring), __ATOMIC_SEQ_CST);
  r = __real_io_uring_submit_and_wait (ring, n);
  ring->sq.sqe_tail += hide;
  change_results (ring);
  return r;
}

/*----------------------------------------------------------------------
 * The same as calls one by one
 */

/* Run them through this thread's ring, which it must have. */
static void
run_ring (struct ring_transfer *rt, struct bdev_io *io, unsigned int n,
          bool submit)
{
  struct ring_batch batch = { 0 };
  unsigned int i;

  for (i = 0; i < n; i++)
    ring_add (&batch, &rt[i], &io[i]);
  g_assert_true (ring_begin (&batch, submit));
  ring_end (&batch);
}

#define MAX_PAIRS 8
#define MOCK_SIZE (3 * 1024 * 1024)

/* A mock that is called, and one alike that is reached by a ring. */
struct pair {
  struct block_device *bdev[2];
  struct bdev_io io[2];
  unsigned char *buf[2];
  int error;
};

static struct mock_fault
random_fault (struct rng *rng)
{
  static const int errors[] = { EIO, ENOSPC, EINTR, EINTR, EAGAIN, 0, 0, 0 };
  struct mock_fault fault = {
    .ops = MOCK_ANY,
    .after = rng_below (rng, 4),
    .times = 1 + rng_below (rng, 3),
    .error = errors[rng_below (rng, G_N_ELEMENTS (errors))],
    .shorten = true,
  };

  if (rng_below (rng, 2) == 0) {
    fault.offset = rng_below (rng, MOCK_SIZE / PAGE) * PAGE;
    fault.length = PAGE * 64;
  }
  fault.transfer = rng_below (rng, 10) == 0 ? 0 :
    rng_below (rng, 2) == 0 ? rng_below (rng, 5000) :
    rng_below (rng, 512) * SECTOR;
  return fault;
}

static void
open_pair (struct pair *p, struct rng *rng)
{
  static const size_t aligns[] = { 1, 16, 512, PAGE };
  static const unsigned int blocks[] = { 512, 1024, 4096 };
  struct mock_options options = { .max_trace = 8192 };
  unsigned int block = blocks[rng_below (rng, G_N_ELEMENTS (blocks))];
  enum dm_io_op op = rng_below (rng, 2) == 0 ? DM_IO_READ : DM_IO_WRITE;
  unsigned int odd = rng_below (rng, 2) == 0 ? 0 : rng_below (rng, 600);
  uint64_t offset, length;
  struct mock_fault fault;
  unsigned int i;
  int faults;

  offset = rng_below (rng, MOCK_SIZE / block) * block;
  length = rng_below (rng, 10) == 0 ? MOCK_SIZE / block :
    1 + rng_below (rng, 40);
  length = MIN (length * block, MOCK_SIZE - offset);
  options.mem_align = aligns[rng_below (rng, G_N_ELEMENTS (aligns))];
  for (i = 0; i < 2; i++) {
    options.ring = i;
    p->bdev[i] = mock_open ("mock", MOCK_SIZE, &options);
    p->bdev[i]->block_size = block;
    fill (mock_data (p->bdev[i]), MOCK_SIZE, 1);
    p->buf[i] = (unsigned char *) new_pages (length / PAGE + 2);
    fill (p->buf[i], length + PAGE, 2);
    p->io[i] = (struct bdev_io) {
      .bdev = p->bdev[i], .op = op, .offset = offset, .length = length,
      .data = { .type = DM_IO_VM, .at.vm = p->buf[i] + odd },
    };
  }
  for (faults = rng_below (rng, 4); faults > 0; faults--) {
    fault = random_fault (rng);
    mock_fault (p->bdev[0], &fault);
    mock_fault (p->bdev[1], &fault);
  }
}

/* What was asked of the devices, and what came of it, is the same. */
static void
compare_pair (struct pair *p, uint64_t length)
{
  const struct mock_event *trace[2];
  size_t n[2], i;

  for (i = 0; i < 2; i++)
    trace[i] = mock_trace (p->bdev[i], &n[i]);
  g_assert_cmpuint (n[0], ==, n[1]);
  for (i = 0; i < n[0]; i++) {
    g_assert_cmpint (trace[0][i].op, ==, trace[1][i].op);
    g_assert_cmpuint (trace[0][i].offset, ==, trace[1][i].offset);
    g_assert_cmpuint (trace[0][i].length, ==, trace[1][i].length);
    g_assert_cmpint (trace[0][i].result, ==, trace[1][i].result);
  }
  assert_same (p->buf[1], p->buf[0], length + PAGE);
  assert_same (mock_data (p->bdev[1]), mock_data (p->bdev[0]), MOCK_SIZE);
}

static void
check_pairs (struct rng *rng)
{
  unsigned int n = 1 + rng_below (rng, MAX_PAIRS), i;
  struct pair pairs[MAX_PAIRS];
  struct ring_transfer rt[MAX_PAIRS];
  struct bdev_io io[MAX_PAIRS];
  uint64_t length[MAX_PAIRS], nsec;

  for (i = 0; i < n; i++) {
    open_pair (&pairs[i], rng);
    io[i] = pairs[i].io[1];
    length[i] = io[i].length;
    pairs[i].error = bdev_run (&pairs[i].io[0], &nsec);
  }
  run_ring (rt, io, n, rng_below (rng, 2));
  for (i = 0; i < n; i++) {
    g_assert_cmpint (rt[i].error, ==, pairs[i].error);
    g_assert_cmpuint (rt[i].nsec, >, 0);
    compare_pair (&pairs[i], length[i]);
    mock_close (pairs[i].bdev[0]);
    mock_close (pairs[i].bdev[1]);
    free (pairs[i].buf[0]);
    free (pairs[i].buf[1]);
  }
}

static void
test_same_as_calls (void)
{
  struct rng rng = rng_random ();
  unsigned int i;

  for (i = 0; i < 60; i++)
    check_pairs (&rng);
}

/* Any number of devices, also one that is named several times, and memory
 * in more pieces than one call takes.
 */
static void
test_full (void)
{
  const struct mock_options options = { .ring = true, .mem_align = SECTOR };
  struct page *page = new_pages (3 * RING_IOVECS);
  struct bio_vec bvec[3 * RING_IOVECS];
  struct io_region where[DM_IO_MAX_REGIONS];
  struct dm_io_request req = {
    .op = DM_IO_WRITE,
    .mem = { .type = DM_IO_BVEC, .length = sizeof bvec / sizeof bvec[0] *
             SECTOR, .ptr.bvec = bvec },
  };
  unsigned int n, i, j, before;

  for (i = 0; i < 3 * RING_IOVECS; i++)
    bvec[i] = (struct bio_vec) { page + i, SECTOR, i % 8 * SECTOR };
  for (n = 1; n <= DM_IO_MAX_REGIONS; n += n < 4 ? 1 : 20) {
    fill (page, 3 * RING_IOVECS * PAGE, n);
    open_mocks (where, n, 3 * RING_IOVECS, &options);
    for (i = 1; i < n; i += 3) {
      mock_close (where[i].bdev);
      where[i].bdev = where[i-1].bdev;
    }
    before = count (&submitted);
    __atomic_store_n (&together, 0, __ATOMIC_SEQ_CST);
    g_assert_cmphex (run_request (&req, n, where, false), ==, 0);
    /* Two are kept company, for the sake of speed. */
    g_assert_cmpuint (count (&together), ==, n == 1 ? 0 : n == 2 ? 3 : n);
    g_assert_cmpuint (count (&submitted) - before, >=, n > 1 ? 3 : 0);
    if (n > 1)
      g_assert_cmpuint (count (&submitted) - before, <=, 3 * n);
    for (i = 0; i < n; i++)
      for (j = 0; j < 3 * RING_IOVECS; j++)
        assert_same (mock_data (where[i].bdev) + j * SECTOR,
                     page[j].data + j % 8 * SECTOR, SECTOR);
    for (i = 0; i < n; i++)
      if (i % 3 != 1)
        mock_close (where[i].bdev);
  }
  free (page);
}

/* What has to be bounced is not cut into pages. */
static void
test_bounce_size (void)
{
  const struct mock_options options = { .ring = true, .mem_align = PAGE };
  unsigned char *buf = (unsigned char *) new_pages (257);
  struct io_region where[2];
  unsigned int n;

  open_mocks (where, 2, 2048, &options);
  fill (buf, 257 * PAGE, 1);
  for (n = 1; n <= 2; n++) {
    mock_clear_trace (where[0].bdev);
    g_assert_cmpint (dm_io_sync_vm (n, where, WRITE, buf + 16, NULL), ==, 0);
    g_assert_cmpuint (mock_count (where[0].bdev, MOCK_WRITE), ==, 4);
    assert_same (mock_data (where[0].bdev), buf + 16, 256 * PAGE);
  }
  close_mocks (where, 2);
  free (buf);
}

/* A device that waits holds up no other: the time is that of each. */
static void
test_nsec (void)
{
  const struct mock_options options = { .ring = true };
  const struct mock_fault busy = {
    .ops = MOCK_ANY, .times = 20, .error = EAGAIN
  };
  unsigned char buf[SECTOR];
  struct io_region where[3];
  struct dm_io_result results[3];
  struct dm_io_request req = vm_request (DM_IO_WRITE, buf);

  open_mocks (where, 3, 1, &options);
  mock_fault (where[1].bdev, &busy);
  req.results = results;
  g_assert_cmphex (run_request (&req, 3, where, false), ==, 0);
  g_assert_cmpuint (results[1].nsec, >=, 20 * 1000000);
  g_assert_cmpuint (results[0].nsec, <, results[1].nsec);
  g_assert_cmpuint (results[2].nsec, <, results[1].nsec);
  g_assert_cmpuint (results[0].nsec, >, 0);
  g_assert_cmpuint (mock_count (where[1].bdev, MOCK_ANY), ==, 21);
  close_mocks (where, 3);
}

/*----------------------------------------------------------------------
 * Whose ring it is
 */

static void *
write_three (void *context)
{
  struct io_region *where = context, first[3];
  unsigned char buf[SECTOR];
  unsigned int i;

  memset (buf, 1, sizeof buf);
  for (i = 0; i < 3; i++)
    first[i] = (struct io_region) { where[i].bdev, 0, 1 };
  for (i = 0; i < 20; i++)
    g_assert_cmpint (dm_io_sync_vm (3, first, WRITE, buf, NULL), ==, 0);
  return NULL;
}

/* One for each thread, until it ends. */
static void
test_threads (void)
{
  const struct mock_options options = { .ring = true };
  unsigned int before = count (&made), gone = count (&ended), i;
  struct io_region where[3];
  pthread_t threads[5];

  open_mocks (where, 3, 1, &options);
  for (i = 0; i < 5; i++)
    g_assert_cmpint (pthread_create (&threads[i], NULL, write_three, where),
                     ==, 0);
  for (i = 0; i < 5; i++)
    pthread_join (threads[i], NULL);
  g_assert_cmpuint (count (&made) - before, ==, 5);
  g_assert_cmpuint (count (&ended) - gone, ==, 5);
  close_mocks (where, 3);
}

static void
assert_child_passed (pid_t pid)
{
  int status;

  g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
  g_assert_cmpint (status, ==, 0);
}

/* A child has its own, and leaves its parent's alone. */
static void
test_fork (void)
{
  const struct mock_options options = { .ring = true };
  struct io_region where[3];
  unsigned int before;
  pid_t pid;

  open_mocks (where, 3, 1, &options);
  write_three (where);
  before = count (&made);
  pid = fork ();
  g_assert_cmpint (pid, >=, 0);
  if (pid == 0) {
    alarm (WAIT_SECONDS);
    write_three (where);
    _exit (count (&made) - before == 1 ? 0 : 1);
  }
  assert_child_passed (pid);
  write_three (where);
  g_assert_cmpuint (count (&made), ==, before);
  close_mocks (where, 3);
}

/* One batch at a time: what is done while the ring is in use, for example
 * in a handler of log messages, does without.
 */
static void
test_nested (void)
{
  const struct mock_options options = { .ring = true };
  struct ring_batch batch = { 0 }, inner = { 0 };
  struct ring_transfer rt, inner_rt;
  unsigned char buf[SECTOR];
  struct io_region where[3];
  struct bdev_io io, inner_io;

  open_mocks (where, 3, 1, &options);
  io = (struct bdev_io) {
    .bdev = where[0].bdev, .op = DM_IO_WRITE, .length = SECTOR,
    .data = { .type = DM_IO_VM, .at.vm = buf },
  };
  inner_io = io;
  fill (buf, sizeof buf, 1);
  ring_add (&batch, &rt, &io);
  ring_add (&inner, &inner_rt, &inner_io);
  g_assert_true (ring_begin (&batch, false));
  g_assert_false (ring_begin (&inner, false));
  write_three (where);
  ring_end (&batch);
  g_assert_cmpint (rt.error, ==, 0);
  g_assert_true (ring_begin (&inner, false));
  ring_end (&inner);
  close_mocks (where, 3);
}

/*----------------------------------------------------------------------
 * Patience
 */

static bool no_sleep;           /* set while there is no I/O */

extern void __real_g_usleep (gulong usec);
extern void __wrap_g_usleep (gulong usec);
void
__wrap_g_usleep (gulong usec)
{
  if (!no_sleep)
    __real_g_usleep (usec);
}

/* Returns what becomes of a long read from a device that is busy so many
 * times at first, and then again at SECOND_AT.
 */
#define SECOND_AT (512 * 1024)

static int
read_busy (bool ring, unsigned int first, unsigned int second,
           unsigned char *buf)
{
  const struct mock_options options = { .ring = ring, .max_trace = 1 };
  const struct mock_fault faults[2] = {
    { .ops = MOCK_ANY, .length = PAGE, .times = first, .error = EAGAIN },
    { .ops = MOCK_ANY, .length = PAGE, .offset = SECOND_AT,
      .times = second, .error = EAGAIN },
  };
  struct block_device *bdev = mock_open ("busy", MOCK_SIZE, &options);
  struct ring_transfer rt;
  struct bdev_io io = {
    .bdev = bdev, .op = DM_IO_READ, .length = MOCK_SIZE,
    .data = { .type = DM_IO_VM, .at.vm = buf },
  };
  uint64_t nsec;
  int error;

  fill (mock_data (bdev), MOCK_SIZE, 3);
  fill (buf, MOCK_SIZE, 4);
  if (first > 0)
    mock_fault (bdev, &faults[0]);
  if (second > 0)
    mock_fault (bdev, &faults[1]);
  if (ring)
    run_ring (&rt, &io, 1, false);
  error = ring ? rt.error : bdev_run (&io, &nsec);
  if (error == 0)
    assert_same (buf, mock_data (bdev), MOCK_SIZE);
  mock_close (bdev);
  return error;
}

/* Half a minute for each call; then the device is left alone. */
static void
test_e4_patience (void)
{
  unsigned char *buf = g_malloc (MOCK_SIZE);
  unsigned char *expected = g_malloc (MOCK_SIZE);
  unsigned int ring;

  fill (expected, MOCK_SIZE, 3);
  no_sleep = true;
  for (ring = 0; ring < 2; ring++) {
    g_assert_cmpint (read_busy (ring, 20000, 20000, buf), ==, 0);
    g_assert_cmpint (read_busy (ring, 40000, 0, buf), ==, EAGAIN);
    assert_zero (buf, MOCK_SIZE);
    g_assert_cmpint (read_busy (ring, 0, 40000, buf), ==, EAGAIN);
    assert_same (buf, expected, SECOND_AT);
    assert_zero (buf + SECOND_AT, MOCK_SIZE - SECOND_AT);
  }
  no_sleep = false;
  g_free (buf);
  g_free (expected);
}

/* Of several parts that fail, the first says why. */
static void
test_e4_first_error (void)
{
  const struct mock_fault faults[2] = {
    { .ops = MOCK_ANY, .length = PAGE, .error = ENOSPC },
    { .ops = MOCK_ANY, .length = PAGE, .offset = 2 << 20, .error = EIO },
  };
  unsigned char *buf = g_malloc0 (MOCK_SIZE);
  struct mock_options options = { .max_trace = 1 };
  struct dm_io_result results[2];
  struct dm_io_request req = vm_request (DM_IO_WRITE, buf);
  struct io_region where[2];
  unsigned int ring;

  req.results = results;
  for (ring = 0; ring < 2; ring++) {
    options.ring = ring;
    open_mocks (where, 2, MOCK_SIZE / SECTOR, &options);
    mock_fault (where[1].bdev, &faults[0]);
    mock_fault (where[1].bdev, &faults[1]);
    g_assert_cmphex (run_request (&req, 2, where, false), ==, 2);
    g_assert_cmpint (results[1].error, ==, ENOSPC);
    close_mocks (where, 2);
  }
  g_free (buf);
}

/*----------------------------------------------------------------------
 * What is in flight
 */

/* A device whose calls take their time in the kernel. */
struct slow {
  struct block_device bdev;
  unsigned int results, calls;
};

static ssize_t
slow_writev (struct block_device *bdev, const struct iovec *iov, int iovcnt,
             uint64_t offset, bool fua)
{
  ((struct slow *) bdev)->calls++;
  return iov->iov_len;
}

static int
slow_ring_prepare (struct block_device *bdev, enum dm_io_op op,
                   const struct iovec *iov, int iovcnt, uint64_t offset,
                   struct io_uring_sqe *sqe)
{
  static struct __kernel_timespec timeout = { .tv_nsec = 20000000 };

  io_uring_prep_timeout (sqe, &timeout, 0, 0);
  return 0;
}

static ssize_t
slow_ring_result (struct block_device *bdev, enum dm_io_op op, ssize_t r)
{
  g_assert_cmpint (r, ==, -ETIME);
  ((struct slow *) bdev)->results++;
  return SECTOR;
}

/* N transfers, of which the last HIDE are not submitted with the others, and
 * cannot be later.
 */
struct in_flight {
  unsigned int n, hide;
};

static void *
write_slow (void *context)
{
  static const struct bdev_ops ops = {
    .writev = slow_writev, .ring_prepare = slow_ring_prepare,
    .ring_result = slow_ring_result,
  };
  const struct in_flight *f = context;
  unsigned char buf[SECTOR];
  struct slow slow[3] = { 0 };
  struct ring_transfer rt[3];
  struct bdev_io io[3];
  unsigned int i, results = 0, calls = 0;

  inject.hide = f->hide;
  if (f->n == 2 && f->hide > 0)
    inject.hide++;              /* the one that keeps them company */
  inject.after = 1;
  inject.times = UINT_MAX;
  for (i = 0; i < f->n; i++) {
    g_assert_cmpint (bdev_init (&slow[i].bdev, &ops, "slow", SECTOR), ==, 0);
    io[i] = (struct bdev_io) {
      .bdev = &slow[i].bdev, .op = DM_IO_WRITE, .length = SECTOR,
      .data = { .type = DM_IO_VM, .at.vm = buf },
    };
  }
  run_ring (rt, io, f->n, false);
  for (i = 0; i < f->n; i++) {
    g_assert_cmpint (rt[i].error, ==, 0);
    g_assert_cmpuint (slow[i].results + slow[i].calls, ==, 1);
    results += slow[i].results;
    calls += slow[i].calls;
    bdev_fini (&slow[i].bdev);
  }
  g_assert_cmpuint (results, ==, f->n - f->hide);
  g_assert_cmpuint (calls, ==, f->hide);
  return NULL;
}

/* Each transfer is made once, and ring_end returns after the last. */
static void
test_in_flight (void)
{
  static const int errors[] = { EAGAIN, EBUSY, EBADF };
  struct in_flight f;
  pthread_t thread;
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (errors); i++)
    for (f.n = 1; f.n <= 3; f.n++)
      for (f.hide = 0; f.hide < f.n; f.hide++) {
        inject.submit_error = f.hide > 0 ? errors[i] : 0;
        g_assert_cmpint (pthread_create (&thread, NULL, write_slow, &f),
                         ==, 0);
        pthread_join (thread, NULL);
      }
  inject_nothing ();
}

/*----------------------------------------------------------------------
 * What the kernel may say; with files, past the page cache
 */

static bool
open_direct (struct files *f, struct io_region *where)
{
  const struct dm_bdev_options options = { .flags = DM_BDEV_DIRECT };
  unsigned int i;

  for (i = 0; i < 3; i++) {
    where[i].bdev = dm_bdev_open (f->path[i], &options, NULL);
    where[i].sector = 0;
    where[i].count = SECTORS;
    if (where[i].bdev == NULL && errno == EOPNOTSUPP) {
      g_test_skip ("this file system has no direct I/O");
      return false;
    }
    g_assert_nonnull (where[i].bdev);
  }
  return true;
}

static void
close_direct (struct files *f, struct io_region *where)
{
  unsigned int i;

  for (i = 0; i < 3; i++) {
    dm_bdev_close (where[i].bdev);
    assert_contents (f->path[i], f->data, SIZE);
  }
}

/* Write to all, from an odd address if SEED is odd, and remember it. */
static void
write_all (struct files *f, const struct io_region *where, unsigned int seed)
{
  struct page *pages = new_pages (SIZE / PAGE + 1);
  unsigned char *buf = pages->data + seed % 2;
  struct io_region part[3];
  unsigned int i;

  for (i = 0; i < 3; i++)
    part[i] = (struct io_region) { where[i].bdev, 8, SECTORS - 16 };
  fill (buf, SIZE, seed);
  g_assert_cmpint (dm_io_sync_vm (3, part, WRITE, buf, NULL), ==, 0);
  memcpy (f->data + 8 * SECTOR, buf, SIZE - 16 * SECTOR);
  free (pages);
}

static void
read_all (struct files *f, const struct io_region *where)
{
  struct page *pages = new_pages (3 * SIZE / PAGE);
  struct ring_transfer rt[3];
  struct bdev_io io[3];
  unsigned int i;

  for (i = 0; i < 3; i++)
    io[i] = (struct bdev_io) {
      .bdev = where[i].bdev, .op = DM_IO_READ, .length = SIZE,
      .data = { .type = DM_IO_VM, .at.vm = (unsigned char *) pages + i *
                SIZE },
    };
  run_ring (rt, io, 3, false);
  for (i = 0; i < 3; i++) {
    g_assert_cmpint (rt[i].error, ==, 0);
    assert_same ((unsigned char *) pages + i * SIZE, f->data, SIZE);
  }
  free (pages);
}

static void
test_disturbed (struct files *f, gconstpointer unused)
{
  struct io_region where[3];
  unsigned int i;

  if (!open_direct (f, where))
    return;
  inject.disturb = true;
  inject.rng = rng_random ();
  for (i = 0; i < 60; i++) {
    write_all (f, where, i);
    read_all (f, where);
  }
  inject_nothing ();
  close_direct (f, where);
}

/* In a thread of its own, whose ring is new. */
struct writer {
  struct files *f;
  struct io_region where[3];
  unsigned int seed;
};

static void *
write_once (void *context)
{
  struct writer *w = context;

  write_all (w->f, w->where, w->seed);
  return NULL;
}

static void
write_in_thread (struct writer *w)
{
  pthread_t thread;

  g_assert_cmpint (pthread_create (&thread, NULL, write_once, w), ==, 0);
  pthread_join (thread, NULL);
}

/* The kernel does not take them, once or for ever, at first or later, all
 * or some.
 */
static void
test_not_submitted (struct files *f, gconstpointer unused)
{
  static const int errors[] = {
    EINTR, EAGAIN, EBUSY, ENOMEM, EBADF, EEXIST, EINVAL, EIO,
  };
  struct writer w = { .f = f };
  unsigned int before = count (&made) - count (&ended), i;

  if (!open_direct (f, w.where))
    return;
  for (i = 0; i < G_N_ELEMENTS (errors) * 18; i++) {
    w.seed = i;
    inject.submit_error = errors[i / 18];
    inject.after = i / 6 % 3;
    inject.times = i / 3 % 2 == 0 || errors[i / 18] == EINTR ? 1 : UINT_MAX;
    inject.hide = i % 3;
    write_in_thread (&w);
  }
  inject_nothing ();
  g_assert_cmpuint (count (&made) - count (&ended), ==, before);
  read_all (f, w.where);
  close_direct (f, w.where);
}

/* A ring that failed is replaced, but not at once. */
static void
test_replaced (struct files *f, gconstpointer unused)
{
  struct io_region where[3];
  unsigned int before;

  if (!open_direct (f, where))
    return;
  write_all (f, where, 0);
  before = count (&ended);
  inject.submit_error = EINTR;  /* that is no failure */
  inject.times = 3;
  write_all (f, where, 0);
  g_assert_cmpuint (inject.times, ==, 0);
  g_assert_cmpuint (count (&ended), ==, before);
  inject.submit_error = ENOMEM;
  inject.times = 1;
  write_all (f, where, 1);
  inject_nothing ();
  before = count (&made);
  write_all (f, where, 2);
  g_assert_cmpuint (count (&made), ==, before);
  g_usleep (1010000);
  write_all (f, where, 3);
  write_all (f, where, 4);
  g_assert_cmpuint (count (&made), ==, before + 1);
  close_direct (f, where);
}

/* Only some at a time. */
static void
test_some_submitted (struct files *f, gconstpointer unused)
{
  struct io_region where[3];
  unsigned int i;

  if (!open_direct (f, where))
    return;
  for (i = 0; i < 20; i++) {
    inject.hide = 1 + i % 2;
    write_all (f, where, i);
    read_all (f, where);
  }
  inject_nothing ();
  close_direct (f, where);
}

/* Close each descriptor of a ring; returns how many there were. */
static unsigned int
close_rings (void)
{
  DIR *dir = opendir ("/proc/self/fd");
  struct dirent *d;
  char target[64];
  unsigned int n = 0;
  int fd;

  g_assert_nonnull (dir);
  while ((d = readdir (dir)) != NULL) {
    ssize_t len = readlinkat (dirfd (dir), d->d_name, target,
                              sizeof target - 1);

    if (len < 0)
      continue;
    target[len] = '\0';
    if (strstr (target, "io_uring") == NULL)
      continue;
    fd = atoi (d->d_name);
    close (fd);
    n++;
  }
  closedir (dir);
  return n;
}

/* A program that closes all descriptors. */
struct closer {
  struct io_region where[3];
  unsigned char *data;
  bool in_flight;
};

static void *
write_and_close (void *context)
{
  struct closer *c = context;
  struct ring_batch batch = { 0 };
  struct ring_transfer rt[3];
  struct bdev_io io[3];
  unsigned int i;

  for (i = 0; i < 3; i++) {
    io[i] = (struct bdev_io) {
      .bdev = c->where[i].bdev, .op = DM_IO_WRITE, .length = SIZE,
      .data = { .type = DM_IO_VM, .at.vm = c->data },
    };
    ring_add (&batch, &rt[i], &io[i]);
  }
  g_assert_true (ring_begin (&batch, c->in_flight));
  g_assert_cmpuint (close_rings (), >=, 1);
  ring_end (&batch);
  for (i = 0; i < 3; i++)
    g_assert_cmpint (rt[i].error, ==, 0);
  return NULL;
}

static void
test_closed (struct files *f, gconstpointer unused)
{
  struct page *pages = new_pages (SIZE / PAGE);
  struct closer c = { .data = (unsigned char *) pages };
  pthread_t thread;
  unsigned int i;

  if (!open_direct (f, c.where))
    return;
  for (i = 0; i < 10; i++) {
    c.in_flight = i % 2;
    fill (c.data, SIZE, i);
    g_assert_cmpint (pthread_create (&thread, NULL, write_and_close, &c),
                     ==, 0);
    pthread_join (thread, NULL);
  }
  memcpy (f->data, c.data, SIZE);
  close_direct (f, c.where);
  free (pages);
}

/*----------------------------------------------------------------------
 * No ring
 */

/* For ever: nobody tries again. */
static void
test_refused (struct files *f, gconstpointer unused)
{
  struct io_region where[3];
  unsigned int before, i;
  pthread_t thread;

  if (!g_test_subprocess ()) {
    g_test_trap_subprocess (NULL, WAIT_SECONDS * 1000000, 0);
    g_test_trap_assert_passed ();
    return;
  }
  if (!open_direct (f, where))
    return;
  log_lines_keep ();
  inject.init_error = EPERM;
  before = count (&tried);
  g_assert_cmpint (ring_probe (), ==, -EPERM);
  g_assert_cmpuint (count (&tried), ==, before + 1);
  for (i = 0; i < 10; i++)
    write_all (f, where, i);
  g_assert_cmpint (pthread_create (&thread, NULL, write_three, where),
                   ==, 0);
  pthread_join (thread, NULL);
  g_assert_cmpuint (count (&tried), ==, before + 2);
  log_lines_assert ("io_uring cannot be used (Operation not permitted)*", 1);
  g_assert_cmpuint (count (&submitted), ==, 0);
  for (i = 0; i < 3; i++)
    dm_bdev_close (where[i].bdev);
}

/* For now: it is tried again later, but not each time. */
static void
test_no_descriptors (struct files *f, gconstpointer unused)
{
  struct rlimit few, many;
  struct io_region where[3];
  unsigned int before;
  int fd;

  if (!g_test_subprocess ()) {
    g_test_trap_subprocess (NULL, WAIT_SECONDS * 1000000, 0);
    g_test_trap_assert_passed ();
    return;
  }
  if (!open_direct (f, where))
    return;
  log_lines_keep ();
  g_assert_cmpint (getrlimit (RLIMIT_NOFILE, &many), ==, 0);
  fd = dup (0);
  few = many;
  few.rlim_cur = fd;
  close (fd);
  g_assert_cmpint (setrlimit (RLIMIT_NOFILE, &few), ==, 0);
  before = count (&tried);
  write_all (f, where, 2);
  write_all (f, where, 3);
  g_assert_cmpuint (count (&tried) - before, ==, 1);
  g_usleep (1010000);
  write_all (f, where, 4);
  g_assert_cmpuint (count (&tried) - before, ==, 2);
  log_lines_assert ("io_uring cannot be used (Too many open files)*", 1);

  g_assert_cmpint (setrlimit (RLIMIT_NOFILE, &many), ==, 0);
  g_usleep (1010000);
  before = count (&submitted);
  write_all (f, where, 5);
  g_assert_cmpuint (count (&submitted), >, before);
  close_direct (f, where);
}

/* Kernels that know fewer flags. */
static void
test_old_kernel (struct files *f, gconstpointer unused)
{
  static const unsigned int unknown[] = {
    IORING_SETUP_DEFER_TASKRUN,
    IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN,
  };
  struct io_region where[3];
  unsigned int i, before;
  pthread_t thread;

  if (!g_test_subprocess ()) {
    g_test_trap_subprocess (NULL, WAIT_SECONDS * 1000000, 0);
    g_test_trap_assert_passed ();
    return;
  }
  if (!open_direct (f, where))
    return;
  inject.init_error = EINVAL;
  for (i = 0; i < G_N_ELEMENTS (unknown); i++) {
    inject.init_flags = unknown[i];
    before = count (&submitted);
    g_assert_cmpint (pthread_create (&thread, NULL, write_three, where),
                     ==, 0);
    pthread_join (thread, NULL);
    g_assert_cmpuint (count (&submitted), >=, before + 20);
  }
  for (i = 0; i < 3; i++)
    dm_bdev_close (where[i].bdev);
}

/* Can this process use io_uring at all?  CI machines may forbid it. */
static bool
have_io_uring (void)
{
  static int r = 1;

  if (r == 1)
    r = ring_probe ();
  return r == 0;
}

static void
add_ring_test (const char *name, GTestFunc test)
{
  if (have_io_uring ())
    g_test_add_func (name, test);
}

static void
add_ring_files_test (const char *name,
                     void (*test) (struct files *f, gconstpointer unused))
{
  if (have_io_uring ())
    add_files_test (name, test);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  add_ring_test ("/ring/same-as-calls", test_same_as_calls);
  add_ring_test ("/ring/full", test_full);
  add_ring_test ("/ring/bounce-size", test_bounce_size);
  add_ring_test ("/ring/nsec", test_nsec);
  add_ring_test ("/ring/e4-patience", test_e4_patience);
  add_ring_test ("/ring/e4-first-error", test_e4_first_error);
  add_ring_test ("/ring/in-flight", test_in_flight);
  add_ring_test ("/ring/threads", test_threads);
  add_ring_test ("/ring/fork", test_fork);
  add_ring_test ("/ring/nested", test_nested);
  add_ring_files_test ("/ring/disturbed", test_disturbed);
  add_ring_files_test ("/ring/not-submitted", test_not_submitted);
  add_ring_files_test ("/ring/some-submitted", test_some_submitted);
  add_ring_files_test ("/ring/replaced", test_replaced);
  add_ring_files_test ("/ring/closed", test_closed);
  add_files_test ("/ring/refused", test_refused);
  add_ring_files_test ("/ring/no-descriptors", test_no_descriptors);
  add_ring_files_test ("/ring/old-kernel", test_old_kernel);
  return g_test_run ();
}
