/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Requests: one region read or many written, with the fan-out and the
 * gathering of results.
 *
 * A request becomes a job with a part for each region.  Parts that may
 * wait for a device are queued for the workers, so that they all wait at
 * the same time; parts that are a mere copy in memory are run one after
 * another by one thread, since handing a copy over costs more than
 * making it.
 *
 * A synchronous job lives on the caller's stack, and its memory is the
 * caller's: nothing is allocated.  The caller runs the copies and one of
 * the waiting parts, then what the workers have not taken yet, and only
 * then sleeps.  It therefore depends on no worker being free, and can be
 * called from a callback.
 *
 * An asynchronous job comes from the jobs pool, with a copy of the
 * vectors.  When there is no memory for that, or no worker, the caller
 * does the I/O itself, as a synchronous one, and the callback comes
 * before dm_io returns; see complete_here about recursion.
 *
 * Locks: job->lock owns job->unfinished and nothing else; no other lock
 * is taken under it.  The error bits are atomic.  A part belongs to the
 * thread that runs it, the rest of a job does not change after init_job.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include <glib.h>

#include "block-device.h"
#include "dm-io.h"
#include "memory.h"
#include "mempool.h"
#include "worker.h"

G_STATIC_ASSERT (DM_IO_MAX_REGIONS <= 64);

struct job;

/* How a part is run. */
enum how {
  NOT,                          /* nothing to do, or it failed already */
  IN_TURN,                      /* a copy in memory, after other such */
  BESIDE,                       /* it may wait, so beside the others */
};

struct part {
  struct work work;
  struct job *job;
  unsigned int index;           /* of the region */
  enum how how;
  struct bdev_io io;
};

/* The vectors of a one-page request fit into its job, even if each is
 * a single sector.
 */
#define INLINE_VECTORS (DM_IO_PAGE_SIZE / DM_IO_SECTOR_SIZE)

struct job {
  pthread_mutex_t lock;
  pthread_cond_t finished;      /* of a synchronous job: unfinished is 0 */
  unsigned int unfinished;      /* pieces of work the workers were given */
  unsigned long error_bits;     /* atomic */

  struct dm_io_result *results;
  io_notify_fn fn;              /* NULL: synchronous */
  void *context;
  struct work copies;           /* asynchronous: all parts IN_TURN */
  struct bio_vec *vectors;      /* asynchronous: to be freed, or NULL */
  struct bio_vec inline_vectors[INLINE_VECTORS];

  unsigned int num_parts;
  struct part parts[DM_IO_MAX_REGIONS]; /* the last member */
};

static struct mempool jobs =
  MEMPOOL_INIT (sizeof (struct job), __alignof__ (struct job));

/*----------------------------------------------------------------------
 * The reserve
 */

int
dm_io_get (unsigned int num_pages)
{
  if (!mempool_grow (&jobs, num_pages))
    return -ENOMEM;
  if (!mempool_grow (&bdev_bounce_pages, num_pages)) {
    mempool_shrink (&jobs, num_pages);
    return -ENOMEM;
  }
  return 0;
}

void
dm_io_put (unsigned int num_pages)
{
  if (mempool_shrink (&jobs, num_pages))
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

  if (req->op == DM_IO_FLUSH || where->count == 0)
    return 0;
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

static enum how
how_to_run (const struct bdev_io *io)
{
  if (io->length == 0 && io->op != DM_IO_FLUSH &&
      !(io->flags & DM_IO_PREFLUSH))
    return NOT;
  return bdev_may_wait (io) ? BESIDE : IN_TURN;
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
  part->how = error != 0 ? NOT : how_to_run (&part->io);
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

  pthread_mutex_init (&job->lock, NULL);
  pthread_cond_init (&job->finished, NULL);
  job->unfinished = 0;
  job->error_bits = 0;
  job->results = req->results;
  job->fn = req->fn;
  job->context = req->context;
  job->num_parts = num_regions;

  for (i = 0; i < num_regions; i++) {
    job->parts[i].job = job;
    job->parts[i].index = i;
    init_part (&job->parts[i], req, &where[i]);
    if (nothing)
      job->parts[i].how = NOT;
  }
}

static void
fini_job (struct job *job)
{
  pthread_cond_destroy (&job->finished);
  pthread_mutex_destroy (&job->lock);
}

/* The parts that are run in turn. */
static void
run_copies (struct job *job)
{
  unsigned int i;

  for (i = 0; i < job->num_parts; i++)
    if (job->parts[i].how == IN_TURN)
      run_part (&job->parts[i]);
}

/*----------------------------------------------------------------------
 * Synchronous
 */

/* A worker's piece of a synchronous job, or the waiter's own when it
 * took it back.  Once the lock is dropped the job may be gone.
 */
static void
run_for_waiter (struct work *work)
{
  struct part *part = (struct part *) work;
  struct job *job = part->job;

  run_part (part);
  pthread_mutex_lock (&job->lock);
  if (--job->unfinished == 0)
    pthread_cond_signal (&job->finished);
  pthread_mutex_unlock (&job->lock);
}

/* Queue the parts that may wait, but for the first, which is returned. */
static struct part *
share_out (struct job *job)
{
  struct part *own = NULL, *part;

  for (part = job->parts; part < job->parts + job->num_parts; part++) {
    if (part->how != BESIDE)
      continue;
    if (own == NULL) {
      own = part;
      continue;
    }
    pthread_mutex_lock (&job->lock);
    job->unfinished++;
    pthread_mutex_unlock (&job->lock);
    part->work.run = run_for_waiter;
    if (!worker_push (&part->work))
      run_for_waiter (&part->work);
  }
  return own;
}

/* Returns the error bits. */
static unsigned long
run_sync (struct job *job)
{
  struct part *own = share_out (job);
  unsigned int i;

  run_copies (job);
  if (own != NULL)
    run_part (own);
  for (i = 0; i < job->num_parts; i++)
    if (job->parts[i].how == BESIDE &&
        worker_cancel (&job->parts[i].work))
      run_for_waiter (&job->parts[i].work);

  pthread_mutex_lock (&job->lock);
  while (job->unfinished > 0)
    pthread_cond_wait (&job->finished, &job->lock);
  pthread_mutex_unlock (&job->lock);
  return job->error_bits;
}

static unsigned long
do_it_here (const struct dm_io_request *req, unsigned int num_regions,
            const struct io_region *where)
{
  struct job job;
  unsigned long error_bits;

  init_job (&job, req, num_regions, where);
  error_bits = run_sync (&job);
  fini_job (&job);
  return error_bits;
}

/*----------------------------------------------------------------------
 * Asynchronous
 */

/* The job is freed first, so that the callback finds it in the reserve
 * when it submits the next request.
 */
static void
complete (struct job *job)
{
  io_notify_fn fn = job->fn;
  void *context = job->context;
  unsigned long error_bits = job->error_bits;

  g_free (job->vectors);
  fini_job (job);
  mempool_free (&jobs, job);
  fn (error_bits, context);
}

static void
end_piece (struct job *job)
{
  bool last;

  pthread_mutex_lock (&job->lock);
  last = --job->unfinished == 0;
  pthread_mutex_unlock (&job->lock);
  if (last)
    complete (job);
}

static void
run_async_part (struct work *work)
{
  struct part *part = (struct part *) work;

  run_part (part);
  end_piece (part->job);
}

static void
run_async_copies (struct work *work)
{
  struct job *job =
    (struct job *) ((char *) work - offsetof (struct job, copies));

  run_copies (job);
  end_piece (job);
}

/* Make the job independent of the caller's lists.  False if there is no
 * memory.
 */
static bool
copy_vectors (struct job *job, struct dm_io_request *req, sector_t count)
{
  struct bio_vec *vectors = job->inline_vectors;
  uint64_t length = count * DM_IO_SECTOR_SIZE;
  size_t n;

  job->vectors = NULL;
  if (!has_data (req->op) || req->mem.type == DM_IO_VM)
    return true;
  n = memory_count_vectors (&req->mem, length);
  if (n > INLINE_VECTORS) {
    vectors = job->vectors = g_try_new (struct bio_vec, n);
    if (vectors == NULL)
      return false;
  }
  memory_to_vectors (&req->mem, length, vectors);
  return true;
}

/* Hand the job over to the workers.  The copies are a piece of it even
 * if there are none, so that a request with nothing to do also ends in a
 * worker.  They go first: if there is no worker for them there is none
 * at all, and nothing has happened yet; if there is one, there is one
 * for the rest.  After the last piece the job may be gone.
 */
static bool
submit (struct job *job)
{
  struct part *part;
  unsigned int waiting = 0, i;

  for (i = 0; i < job->num_parts; i++)
    waiting += job->parts[i].how == BESIDE;
  job->unfinished = 1 + waiting;

  job->copies = (struct work) { .run = run_async_copies };
  if (!worker_push (&job->copies))
    return false;
  for (part = job->parts; waiting > 0; part++) {
    if (part->how != BESIDE)
      continue;
    waiting--;
    part->work.run = run_async_part;
    if (!worker_push (&part->work))
      g_assert_not_reached ();
  }
  return true;
}

/* False if there is no memory for the job, or no worker. */
static bool
run_async (const struct dm_io_request *request, unsigned int num_regions,
           const struct io_region *where)
{
  struct dm_io_request req = *request;
  struct job *job = mempool_try_alloc (&jobs);

  if (job == NULL)
    return false;
  if (copy_vectors (job, &req, largest_count (num_regions, where))) {
    init_job (job, &req, num_regions, where);
    if (submit (job))
      return true;
    fini_job (job);
  }
  g_free (job->vectors);
  mempool_free (&jobs, job);
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

  if (!run_async (request, num_regions, where)) {
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
