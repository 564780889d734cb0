/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Requests: one region read or many written, with the fan-out and the
 * gathering of results.
 *
 * A request becomes a job with a part for each region.  All that waits for
 * a device waits at the same time, each kind in its own way (see enum
 * bdev_way): parts of devices that have a thread are started; direct
 * transfers go through the ring of the thread that runs the job, in one
 * system call; others that may wait are queued for the workers.  Parts that
 * are a mere copy in memory are run one after another, since handing a copy
 * over costs more than making it.
 *
 * A job lives on the stack of the thread that runs it, and nothing is
 * allocated for it.  That thread makes the copies and runs one of the
 * waiting parts, then what the workers have not taken yet, and only
 * then sleeps.  It therefore depends on no worker being free, and can be
 * a worker, or in a callback.
 *
 * A synchronous request is run by its caller, an asynchronous one by a
 * worker, from a copy of the request and its vectors.  When there is no
 * memory for that, or no worker, the caller runs it too, and the callback
 * comes before dm_io returns; see complete_here about recursion.
 *
 * Locks: none.  The count of what is unfinished and the error bits are
 * atomic, a semaphore wakes the thread that waits.  A part belongs to the
 * thread that runs it, the rest of a job does not change after init_job.
 */

#include <config.h>

#include <errno.h>
#include <semaphore.h>
#include <stdbool.h>
#include <string.h>

#include <glib.h>

#include "block-device.h"
#include "clock.h"
#include "dm-io.h"
#include "memory.h"
#include "mempool.h"
#include "ring.h"
#include "worker.h"

G_STATIC_ASSERT (DM_IO_MAX_REGIONS <= 64);

struct job;

struct part {
  struct work work;
  struct job *job;
  unsigned int index;           /* of the region */
  bool idle;                    /* nothing to do, or it failed already */
  enum bdev_way way;
  uint64_t started;             /* BDEV_START: when */
  struct bdev_io io;
  struct ring_transfer transfer; /* BDEV_RING */
};

struct job {
  unsigned int unfinished;      /* atomic: parts that other threads were
                                 * given, and 1 until the waiter waits */
  sem_t finished;               /* posted when unfinished gets 0 */
  unsigned long error_bits;     /* atomic */
  struct dm_io_result *results;
  unsigned int ways;            /* the set of those of all parts */
  unsigned int num_parts;
  struct part parts[DM_IO_MAX_REGIONS]; /* the last member */
};

/* The vectors of a one-page request fit into its copy, even if each is
 * a single sector.
 */
#define INLINE_VECTORS (DM_IO_PAGE_SIZE / DM_IO_SECTOR_SIZE)

/* A copy of an asynchronous request, independent of the caller's lists. */
struct async {
  struct work work;
  struct dm_io_request req;
  struct bio_vec *vectors;      /* to be freed, or NULL */
  struct bio_vec inline_vectors[INLINE_VECTORS];
  unsigned int num_regions;
  struct io_region where[DM_IO_MAX_REGIONS]; /* the last member */
};

static struct mempool asyncs =
  MEMPOOL_INIT (sizeof (struct async), __alignof__ (struct async));

/*----------------------------------------------------------------------
 * The reserve
 */

int
dm_io_get (unsigned int num_pages)
{
  if (!mempool_grow (&asyncs, num_pages))
    return -ENOMEM;
  if (!mempool_grow (&bdev_bounce_pages, num_pages)) {
    mempool_shrink (&asyncs, num_pages);
    return -ENOMEM;
  }
  return 0;
}

void
dm_io_put (unsigned int num_pages)
{
  if (mempool_shrink (&asyncs, num_pages))
    mempool_shrink (&bdev_bounce_pages, num_pages);
  else
    g_warning ("dm_io_put: %u pages are more than dm_io_get has reserved; "
               "nothing was given back", num_pages);
}

/*----------------------------------------------------------------------
 * Checking
 */

static unsigned int
valid_flags (enum dm_io_op op)
{
  switch (op) {
  case DM_IO_WRITE: return DM_IO_FUA | DM_IO_PREFLUSH;
  case DM_IO_DISCARD: return DM_IO_FUA;
  case DM_IO_WRITE_ZEROES: return DM_IO_FUA | DM_IO_NO_UNMAP;
  default: return 0;
  }
}

static bool
has_data (enum dm_io_op op)
{
  return op == DM_IO_READ || op == DM_IO_WRITE;
}

static sector_t
largest_count (unsigned int num_regions, const struct io_region *where)
{
  sector_t largest = 0;
  unsigned int i;

  for (i = 0; i < num_regions; i++)
    largest = MAX (largest, where[i].count);
  return largest;
}

static int
check_request (const struct dm_io_request *req, unsigned int num_regions,
               const struct io_region *where)
{
  const sector_t most = INT64_MAX / DM_IO_SECTOR_SIZE;
  unsigned int i;

  if ((unsigned int) req->op > DM_IO_WRITE_ZEROES ||
      req->flags & ~valid_flags (req->op))
    return -EINVAL;
  if (num_regions < 1 || num_regions > DM_IO_MAX_REGIONS || where == NULL ||
      (req->op == DM_IO_READ && num_regions > 1))
    return -EINVAL;

  for (i = 0; i < num_regions; i++) {
    if (where[i].bdev == NULL)
      return -EINVAL;
    if (req->op == DM_IO_FLUSH)
      continue;
    if (where[i].sector > most || where[i].count > most - where[i].sector)
      return -EINVAL;
  }
  if (!has_data (req->op))
    return 0;
  return memory_check (&req->mem, largest_count (num_regions, where) *
                       DM_IO_SECTOR_SIZE);
}

/* What a region can be refused for before it is touched: 0 or an
 * errno.
 */
static int
check_region (const struct dm_io_request *req, const struct io_region *where)
{
  sector_t size = dm_bdev_sectors (where->bdev);
  sector_t unit = where->bdev->block_size / DM_IO_SECTOR_SIZE;

  if (req->op == DM_IO_FLUSH || where->count == 0)
    return 0;
  if (((where->sector | where->count) & (unit - 1)) != 0)
    return EINVAL;
  if (req->op != DM_IO_READ && where->bdev->read_only)
    return EROFS;
  if (where->sector > size || where->count > size - where->sector)
    return EIO;
  return 0;
}

/*----------------------------------------------------------------------
 * Jobs
 */

/* Note the end of a part. */
static void
note (struct part *part, int error, uint64_t nsec)
{
  struct job *job = part->job;

  if (job->results != NULL)
    job->results[part->index] =
      (struct dm_io_result) { .error = error, .nsec = nsec };
  if (error != 0)
    __atomic_or_fetch (&job->error_bits, 1UL << part->index,
                       __ATOMIC_RELAXED);
}

static void
run_part (struct part *part)
{
  uint64_t nsec;
  int error = bdev_run (&part->io, &nsec);

  note (part, error, nsec);
}

static bool
nothing_to_do (const struct bdev_io *io)
{
  return io->length == 0 && io->op != DM_IO_FLUSH &&
    !(io->flags & DM_IO_PREFLUSH);
}

static void
set_way (struct part *part, enum bdev_way way)
{
  part->way = way;
  part->job->ways |= 1U << way;
}

static void
init_part (struct part *part, const struct dm_io_request *req,
           const struct io_region *where)
{
  int error = check_region (req, where);
  bool flush = req->op == DM_IO_FLUSH;

  part->work = (struct work) { 0 };
  part->io = (struct bdev_io) {
    .bdev = where->bdev,
    .op = req->op,
    .flags = req->flags,
    .offset = flush ? 0 : where->sector * DM_IO_SECTOR_SIZE,
    .length = flush ? 0 : where->count * DM_IO_SECTOR_SIZE,
  };
  if (has_data (req->op)) {
    part->io.data = memory_begin (&req->mem);
    if (error != 0 && req->op == DM_IO_READ)
      memory_clear (part->io.data, part->io.length);
  }
  part->idle = error != 0 || nothing_to_do (&part->io);
  set_way (part, bdev_way (&part->io));
  note (part, error, 0);
}

/* Discard on all of the regions, or on none. */
static bool
discard_all (unsigned int num_regions, const struct io_region *where)
{
  unsigned int i;

  for (i = 0; i < num_regions; i++)
    if (!bdev_can_punch (where[i].bdev))
      return false;
  return true;
}

static void
init_job (struct job *job, const struct dm_io_request *req,
          unsigned int num_regions, const struct io_region *where)
{
  bool nothing = req->op == DM_IO_DISCARD && !discard_all (num_regions, where);
  unsigned int i;

  sem_init (&job->finished, 0, 0);
  job->unfinished = 1;
  job->error_bits = 0;
  job->results = req->results;
  job->ways = 0;
  job->num_parts = num_regions;

  for (i = 0; i < num_regions; i++) {
    job->parts[i].job = job;
    job->parts[i].index = i;
    init_part (&job->parts[i], req, &where[i]);
    if (nothing)
      job->parts[i].idle = true;
  }
}

/*----------------------------------------------------------------------
 * Running
 */

/* Iterate over the parts that are to be done in one way. */
static struct part *
next_part (struct job *job, enum bdev_way way, struct part *previous)
{
  struct part *part = previous == NULL ? job->parts : previous + 1;

  if (!(job->ways & 1U << way))
    return NULL;
  for (; part < job->parts + job->num_parts; part++)
    if (!part->idle && part->way == way)
      return part;
  return NULL;
}

#define for_each_part(part, job, way)                   \
  for (part = next_part (job, way, NULL); part != NULL; \
       part = next_part (job, way, part))

static void
given_away (struct job *job)
{
  __atomic_add_fetch (&job->unfinished, 1, __ATOMIC_RELAXED);
}

/* The end of a part that was given to another thread.  Then the job may be
 * gone.
 */
static void
finished (struct job *job)
{
  if (__atomic_sub_fetch (&job->unfinished, 1, __ATOMIC_ACQ_REL) == 0)
    sem_post (&job->finished);
}

static void
wait_finished (struct job *job)
{
  if (__atomic_sub_fetch (&job->unfinished, 1, __ATOMIC_ACQ_REL) == 0)
    return;
  while (sem_wait (&job->finished) == -1)
    continue;                   /* a signal came */
}

static void
started_part_done (struct bdev_io *io, int error)
{
  struct part *part =
    (struct part *) ((char *) io - offsetof (struct part, io));

  note (part, error, clock_now () - part->started);
  finished (part->job);
}

static void
start_parts (struct job *job)
{
  struct part *part;

  for_each_part (part, job, BDEV_START) {
    given_away (job);
    part->started = clock_now ();
    part->io.done = started_part_done;
    bdev_start (&part->io);
  }
}

/* A worker's piece of a job, or the waiter's own when it took it back. */
static void
run_for_waiter (struct work *work)
{
  struct part *part = (struct part *) work;

  run_part (part);
  finished (part->job);
}

/* Queue the parts that may wait, but for the first, which is returned. */
static struct part *
share_out (struct job *job)
{
  struct part *own = next_part (job, BDEV_WAIT, NULL), *part;

  if (own == NULL)
    return NULL;
  part = own;
  while ((part = next_part (job, BDEV_WAIT, part)) != NULL) {
    given_away (job);
    part->work.run = run_for_waiter;
    if (!worker_push (&part->work))
      run_for_waiter (&part->work);
  }
  return own;
}

static void
take_back (struct job *job)
{
  struct part *part;

  for_each_part (part, job, BDEV_WAIT)
    if (worker_cancel (&part->work))
      run_for_waiter (&part->work);
}

/* Begin the direct transfers.  A single one is better off with a system
 * call of its own, as are those of a thread that can have no ring.
 */
static void
begin_ring (struct job *job, struct ring_batch *batch)
{
  struct part *part;
  unsigned int n = 0;

  for_each_part (part, job, BDEV_RING) {
    ring_add (batch, &part->transfer, &part->io);
    n++;
  }
  if (n == 0)
    return;
  if (n > 1 && ring_begin (batch, job->ways & ~(1U << BDEV_RING)))
    return;
  batch->first = NULL;
  for_each_part (part, job, BDEV_RING)
    set_way (part, BDEV_WAIT);
}

static void
end_ring (struct job *job, struct ring_batch *batch)
{
  struct part *part;

  if (batch->first == NULL)
    return;
  ring_end (batch);
  for_each_part (part, job, BDEV_RING)
    note (part, part->transfer.error, part->transfer.nsec);
}

/* Returns the error bits. */
static unsigned long
run_job (struct job *job)
{
  struct ring_batch batch = { 0 };
  struct part *own, *part;

  start_parts (job);
  begin_ring (job, &batch);
  own = share_out (job);
  for_each_part (part, job, BDEV_COPY)
    run_part (part);
  if (own != NULL)
    run_part (own);
  end_ring (job, &batch);
  take_back (job);
  wait_finished (job);
  return job->error_bits;
}

/* Returns the error bits. */
static unsigned long
do_it_here (const struct dm_io_request *req, unsigned int num_regions,
            const struct io_region *where)
{
  struct job job;
  unsigned long error_bits;

  init_job (&job, req, num_regions, where);
  error_bits = run_job (&job);
  sem_destroy (&job.finished);
  return error_bits;
}

/*----------------------------------------------------------------------
 * Asynchronous
 */

static void
free_async (struct async *async)
{
  g_free (async->vectors);
  mempool_free (&asyncs, async);
}

/* It is freed before the callback, which thus finds it in the reserve
 * when it submits the next request.
 */
static void
run_async (struct work *work)
{
  struct async *async = (struct async *) work;
  io_notify_fn fn = async->req.fn;
  void *context = async->req.context;
  unsigned long error_bits;

  error_bits = do_it_here (&async->req, async->num_regions, async->where);
  free_async (async);
  fn (error_bits, context);
}

/* False if there is no memory. */
static bool
copy_vectors (struct async *async)
{
  struct dm_io_request *req = &async->req;
  struct bio_vec *vectors = async->inline_vectors;
  uint64_t length =
    largest_count (async->num_regions, async->where) * DM_IO_SECTOR_SIZE;
  size_t n;

  async->vectors = NULL;
  if (!has_data (req->op) || req->mem.type == DM_IO_VM)
    return true;
  n = memory_count_vectors (&req->mem, length);
  if (n > INLINE_VECTORS) {
    vectors = async->vectors = g_try_new (struct bio_vec, n);
    if (vectors == NULL)
      return false;
  }
  memory_to_vectors (&req->mem, length, vectors);
  return true;
}

/* Hand a copy of the request over to the workers.  False if there is no
 * memory for it, or no worker.
 */
static bool
submit (const struct dm_io_request *req, unsigned int num_regions,
        const struct io_region *where)
{
  struct async *async = mempool_try_alloc (&asyncs);

  if (async == NULL)
    return false;
  async->work = (struct work) { .run = run_async };
  async->req = *req;
  async->num_regions = num_regions;
  memcpy (async->where, where, num_regions * sizeof *where);
  if (copy_vectors (async) && worker_push (&async->work))
    return true;
  free_async (async);
  return false;
}

/* Callbacks of this thread that wait until one that is running has
 * returned.
 */
#define MAX_DEFERRED 16
static __thread struct {
  bool running;                 /* in complete_here */
  unsigned int n;
  struct {
    io_notify_fn fn;
    void *context;
    unsigned long error_bits;
  } stack[MAX_DEFERRED];
} deferred;

static void
call_deferred (void)
{
  unsigned int i = --deferred.n;

  deferred.stack[i].fn (deferred.stack[i].error_bits,
                        deferred.stack[i].context);
}

/* Call the callback in the thread that submitted the request.  If that
 * was a callback too it has to return first, or a chain of requests
 * would eat up the stack.  When there is no room to remember one more,
 * the last one is called now, one level deeper; taking the last bounds
 * the depth by that of the tree in which requests submit requests.
 */
static void
complete_here (io_notify_fn fn, void *context, unsigned long error_bits)
{
  if (deferred.running) {
    while (deferred.n == MAX_DEFERRED)
      call_deferred ();
    deferred.stack[deferred.n].fn = fn;
    deferred.stack[deferred.n].context = context;
    deferred.stack[deferred.n].error_bits = error_bits;
    deferred.n++;
    return;
  }

  deferred.running = true;
  fn (error_bits, context);
  while (deferred.n > 0)
    call_deferred ();
  deferred.running = false;
}

/*----------------------------------------------------------------------
 * The public functions
 */

int
dm_io (const struct dm_io_request *request, unsigned int num_regions,
       const struct io_region *where, unsigned long *error_bits)
{
  unsigned long bits = 0;
  int r;

  if (request->fn != NULL)
    error_bits = NULL;
  if (error_bits != NULL)
    *error_bits = 0;
  r = check_request (request, num_regions, where);
  if (r < 0)
    return r;

  if (request->fn == NULL) {
    bits = do_it_here (request, num_regions, where);
    if (error_bits != NULL)
      *error_bits = bits;
    return bits != 0 ? -EIO : 0;
  }

  if (!submit (request, num_regions, where)) {
    bits = do_it_here (request, num_regions, where);
    complete_here (request->fn, request->context, bits);
  }
  return 0;
}

/* What the six functions of old have in common. */
static int
read_or_write (int rw, unsigned int num_regions, struct io_region *where,
               struct dm_io_memory mem, io_notify_fn fn, void *context,
               unsigned long *error_bits)
{
  struct dm_io_request req = {
    .op = rw == READ || rw == WRITE ? (enum dm_io_op) rw : (enum dm_io_op) -1,
    .mem = mem,
    .fn = fn,
    .context = context,
  };

  return dm_io (&req, num_regions, where, error_bits);
}

static struct dm_io_memory
page_list (struct page_list *pl, unsigned int offset)
{
  return (struct dm_io_memory) {
    .type = DM_IO_PAGE_LIST, .offset = offset, .length = DM_IO_UNCHECKED,
    .ptr.pl = pl,
  };
}

static struct dm_io_memory
bio_vectors (struct bio_vec *bvec)
{
  return (struct dm_io_memory) {
    .type = DM_IO_BVEC, .length = DM_IO_UNCHECKED, .ptr.bvec = bvec,
  };
}

static struct dm_io_memory
buffer (void *data)
{
  return (struct dm_io_memory) {
    .type = DM_IO_VM, .length = DM_IO_UNCHECKED, .ptr.vm = data,
  };
}

int
dm_io_sync (unsigned int num_regions, struct io_region *where, int rw,
            struct page_list *pl, unsigned int offset,
            unsigned long *error_bits)
{
  return read_or_write (rw, num_regions, where, page_list (pl, offset),
                        NULL, NULL, error_bits);
}

int
dm_io_sync_bvec (unsigned int num_regions, struct io_region *where, int rw,
                 struct bio_vec *bvec, unsigned long *error_bits)
{
  return read_or_write (rw, num_regions, where, bio_vectors (bvec),
                        NULL, NULL, error_bits);
}

int
dm_io_sync_vm (unsigned int num_regions, struct io_region *where, int rw,
               void *data, unsigned long *error_bits)
{
  return read_or_write (rw, num_regions, where, buffer (data),
                        NULL, NULL, error_bits);
}

int
dm_io_async (unsigned int num_regions, struct io_region *where, int rw,
             struct page_list *pl, unsigned int offset,
             io_notify_fn fn, void *context)
{
  if (fn == NULL)
    return -EINVAL;
  return read_or_write (rw, num_regions, where, page_list (pl, offset),
                        fn, context, NULL);
}

int
dm_io_async_bvec (unsigned int num_regions, struct io_region *where, int rw,
                  struct bio_vec *bvec, io_notify_fn fn, void *context)
{
  if (fn == NULL)
    return -EINVAL;
  return read_or_write (rw, num_regions, where, bio_vectors (bvec),
                        fn, context, NULL);
}

int
dm_io_async_vm (unsigned int num_regions, struct io_region *where, int rw,
                void *data, io_notify_fn fn, void *context)
{
  if (fn == NULL)
    return -EINVAL;
  return read_or_write (rw, num_regions, where, buffer (data),
                        fn, context, NULL);
}
