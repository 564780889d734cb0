/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* dm_io and bdev_* over simulated devices, instead of the library's dm-io.c
 * and block-device.c, which are not linked.  Each region of a request is
 * an operation of its own.  The scheduler makes them go on in any order:
 * a few sectors at a time, themselves in any order, and then the
 * end; so at a cut a write is torn anywhere.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include <glib.h>

#include "sim.h"

#define SECTOR DM_IO_SECTOR_SIZE
#define MAX_OPS 512

struct request {
  unsigned int pending;         /* operations */
  unsigned long bits;
  unsigned long legs;           /* that it was sent to */
  struct dm_io_memory mem;
  struct dm_io_result *results;
  struct sim_fiber *fiber;      /* that waits for it */
};

struct op {
  struct request *request;
  struct sim_device *dev;
  enum dm_io_op op;
  unsigned int flags;
  unsigned int index;           /* of the region */
  uint32_t sector, count;
  uint32_t done;                /* sectors */
  uint32_t next, stride;        /* their order */
  uint32_t limit;               /* where it fails; else count */
  bool started;
  uint32_t since;               /* of a flush: what it has to cover */
  int error;
  uint64_t begun, not_before;
};

static struct op ops[MAX_OPS];
static unsigned int num_ops;

/* Sectors that are written late. */
#define MAX_LATE 4096

struct late {
  struct sim_device *dev;
  uint32_t sector;
  unsigned char data[SECTOR];
  uint64_t at;                  /* SIM_NEVER: at some time after the next start */
};

static struct late late[MAX_LATE];
static unsigned int num_late;
/* By this server.  Before that no copy of the log says that it runs: if its first write is
 * late itself, nobody knows of it, which is a limit.
 */
static bool copy_written;
bool sim_late_super;
unsigned int sim_news;

unsigned int
sim_io_pending (void)
{
  return num_ops;
}

/*----------------------------------------------------------------------
 * Memory
 */

static void *
in_page_list (const struct dm_io_memory *mem, uint64_t offset)
{
  struct page_list *pl = mem->ptr.pl;

  offset += mem->offset;
  while (offset >= DM_IO_PAGE_SIZE) {
    pl = pl->next;
    offset -= DM_IO_PAGE_SIZE;
  }
  return pl->page->data + offset;
}

static void *
in_bvec (const struct dm_io_memory *mem, uint64_t offset)
{
  struct bio_vec *v = mem->ptr.bvec;

  while (offset >= v->bv_len)
    offset -= (v++)->bv_len;
  return v->bv_page->data + v->bv_offset + offset;
}

static void *
data_of (const struct op *op, uint32_t sector)
{
  const struct dm_io_memory *mem = &op->request->mem;
  uint64_t offset = (uint64_t) sector * SECTOR;

  switch (mem->type) {
  case DM_IO_PAGE_LIST:
    return in_page_list (mem, offset);
  case DM_IO_BVEC:
    return in_bvec (mem, offset);
  default:
    return (char *) mem->ptr.vm + offset;
  }
}

/*----------------------------------------------------------------------
 * One operation
 */

static bool
changes (enum dm_io_op op)
{
  return op != DM_IO_READ && op != DM_IO_FLUSH;
}

static bool
fails (struct op *op, unsigned int kind)
{
  struct sim_device *dev = op->dev;

  return dev->failing & kind && sim_now < dev->fail_until &&
    sim_below (&sim_media, 100) < dev->fail_chance;
}

static int
connection_error (const struct sim_device *dev)
{
  if (dev->dead)
    return EIO;
  if (dev->bdev.failed)
    return dev->bdev.offline ? ENOTCONN : EIO;
  return dev->bdev.offline ? ENOTCONN : 0;
}

bool
sim_is_busy (const struct sim_device *leg)
{
  unsigned int i;

  for (i = 0; i < num_ops; i++)
    if ((ops[i].request->legs & 1UL << leg->number) != 0)
      return true;
  return false;
}

static void
start_flush (struct op *op)
{
  op->since = sim_tick;
  if (op->dev->flush_failed)
    op->error = EIO;
}

/* Decide what becomes of it. */
static void
start (struct op *op)
{
  op->started = true;
  op->limit = op->count;
  op->error = connection_error (op->dev);
  if (op->error != 0)
    op->limit = 0;
  else if (op->op == DM_IO_FLUSH)
    start_flush (op);
  else if (op->op == DM_IO_READ) {
    if (fails (op, SIM_FAIL_READ))
      op->error = op->dev->fail_errno;
  }
  else {
    if (op->flags & DM_IO_PREFLUSH)
      start_flush (op);
    if (op->flags & DM_IO_FUA && op->dev->flush_failed)
      op->error = EIO;
    if (fails (op, SIM_FAIL_WRITE))
      op->error = op->dev->fail_errno;
    if (op->error != 0)
      op->limit = sim_below (&sim_media, op->count + 1);
  }
}

static void
read_one (struct op *op, uint32_t i)
{
  uint32_t sector = op->sector + i;
  bool bad = op->dev->flags[sector] & SIM_BAD;

  if (bad) {
    op->error = EIO;
    sim_note_bad (op->request->fiber, op->dev, sector);
  }
  if (bad || op->error != 0)
    memset (data_of (op, i), 0, SECTOR);
  else
    sim_read_sectors (op->dev, sector, 1, data_of (op, i));
}

static void
do_sector (struct op *op)
{
  uint32_t i = op->next;

  op->done++;
  op->next += op->stride;
  while (op->next >= op->count)
    op->next -= op->count;
  switch (op->op) {
  case DM_IO_READ:
    read_one (op, i);
    break;
  case DM_IO_WRITE:
    sim_write_sector (op->dev, op->sector + i, data_of (op, i), op->begun);
    break;
  default:
    sim_zero_sector (op->dev, op->sector + i, !(op->flags & DM_IO_NO_UNMAP),
                     op->begun);
  }
}

/* Nothing can come between the sectors of this read, or go wrong: it can be done
 * in one, whatever their order.
 */
static bool
is_simple_read (const struct op *op, uint32_t n)
{
  return op->op == DM_IO_READ && op->done == 0 && n >= op->count &&
    op->error == 0 && op->dev->num_bad == 0 &&
    op->request->mem.type == DM_IO_VM;
}

/* Data, up to so many sectors. */
static void
transfer (struct op *op, uint32_t n)
{
  uint32_t end = op->op == DM_IO_READ ? op->count : op->limit;

  if (is_simple_read (op, n)) {
    sim_read_sectors (op->dev, op->sector, op->count, data_of (op, 0));
    op->done = op->count;
    return;
  }
  for (; n > 0 && op->done < end; n--)
    do_sector (op);
}

static void
fail_flush (struct sim_device *dev)
{
  dev->flush_failed = true;
  sim_forget_dirty (dev);
  if (dev->num_dirty > 0 && sim_is_alone (dev) &&
      sim_chance (&sim_media, 75)) {
    sim_trace ("%s: a failed flush loses what was not stable", dev->name);
    sim_lose_cache (dev);
    sim_cache_lost (dev);
  }
}

/* Data that could not be made stable can still be read, as in a page cache,
 * until the device is opened again, and will not be stable if it is not written
 * again; or not even that, if nothing depends on what is read meanwhile.
 */
static void
end_flush (struct op *op)
{
  struct sim_device *dev = op->dev;

  if (op->error == 0 && dev->flush_failed)
    op->error = EIO;            /* while it was in flight */
  if (op->error == 0 && fails (op, SIM_FAIL_FLUSH)) {
    op->error = dev->fail_errno;
    fail_flush (dev);
  }
  sim_news += op->error != 0;
  if (op->error == 0)
    sim_stabilize (dev, op->since);
}

/* Of a change: the flush that is part of it may have failed, as any flush. */
static void
end_durably (struct op *op)
{
  if (op->error != 0 || !(op->flags & (DM_IO_FUA | DM_IO_PREFLUSH)))
    return;
  if (op->dev->flush_failed)
    op->error = EIO;
  else if (fails (op, SIM_FAIL_FLUSH)) {
    op->error = EIO;
    if (op->dev->kind == SIM_LEG)
      sim_count (SIM_FUA_FORGETS);
    fail_flush (op->dev);
  }
}

static void
end_request (struct request *request)
{
  sim_wake (request, true);
}

static void
end (struct op *op)
{
  struct request *request = op->request;
  struct op ended;

  if (op->op == DM_IO_FLUSH)
    end_flush (op);
  else if (changes (op->op)) {
    end_durably (op);
    /* Of the only one it may be that what it shows cannot be written again. */
    sim_news += op->error != 0 &&
      (op->flags & DM_IO_FUA || sim_is_alone (op->dev));
    if (op->error == 0 && op->flags & DM_IO_PREFLUSH)
      sim_stabilize (op->dev, op->since);
    sim_complete (op->dev, op->sector, op->count,
                  op->error == 0 && op->flags & DM_IO_FUA);
    copy_written |= op->error == 0 && op->dev->kind == SIM_COPY;
  }
  sim_trace ("%s: op %d of %u+%u ends: %d", op->dev->name, op->op,
             op->sector - op->dev->start, op->count, op->error);
  if (op->error != 0)
    request->bits |= 1UL << op->index;
  if (request->results != NULL)
    request->results[op->index] = (struct dm_io_result) {
      .error = op->error, .nsec = sim_now - op->begun,
    };
  ended = *op;
  *op = ops[--num_ops];
  if (--ended.request->pending == 0)
    end_request (ended.request);
}

static void
step (struct op *op)
{
  static const unsigned char some[] = { 1, 4, 16 };

  if (!op->started) {
    start (op);
    if (op->error != 0 && op->limit == 0 && op->op != DM_IO_READ) {
      end (op);
      return;
    }
    if (op->op == DM_IO_FLUSH)
      return;
  }
  transfer (op, sim_chance (&sim_media, 70) ? op->count :
            some[sim_below (&sim_media, 3)]);
  if (op->done == (op->op == DM_IO_READ ? op->count : op->limit) &&
      sim_chance (&sim_media, 70))
    end (op);
}

/*----------------------------------------------------------------------
 * Late writes
 */

/* All that is left of the operation, or nothing, is done later. */
static void
make_late (struct op *op, uint64_t at)
{
  uint32_t i;

  if (op->op != DM_IO_WRITE)
    return;
  sim_trace ("%s: write of %u+%u may be late", op->dev->name,
             op->sector - op->dev->start, op->count);
  if (op->dev->kind == SIM_LEG)
    sim_count (at == SIM_NEVER ? SIM_LATE_AFTER_KILL : SIM_LATE_AFTER_LOSS);
  for (i = 0; i < op->count && num_late < MAX_LATE; i++) {
    late[num_late] = (struct late) {
      .dev = op->dev, .sector = op->sector + i, .at = at,
    };
    memcpy (late[num_late].data, data_of (op, i), sizeof late[0].data);
    num_late++;
  }
}

static bool
can_be_late (const struct op *op)
{
  return op->dev->bdev.late > 0 && changes (op->op) && !op->dev->dead;
}

void
sim_late_land (void)
{
  unsigned int i = 0;
  struct late *l;

  while (i < num_late) {
    l = &late[i];
    if (l->at > sim_now) {
      i++;
      continue;
    }
    sim_trace ("%s: late write of %u", l->dev->name, l->sector - l->dev->start);
    sim_late_super = sim_late_super ||
      (l->dev->kind == SIM_COPY && l->sector < 2 * SIM_BLOCK / SECTOR);
    sim_write_sector (l->dev, l->sector, l->data, sim_now);
    sim_complete (l->dev, l->sector, 1, false);
    late[i] = late[--num_late];
  }
}

bool
sim_late_pending (const struct sim_device *dev)
{
  unsigned int i;

  for (i = 0; i < num_late; i++)
    if (late[i].dev == dev)
      return true;
  return false;
}

void
sim_late_begin (void)
{
  unsigned int i;

  copy_written = false;
  for (i = 0; i < num_late; i++)
    if (late[i].at == SIM_NEVER)
      late[i].at = sim_now + sim_next (&sim_media) % late[i].dev->bdev.late;
}

void
sim_late_forget (const struct sim_device *dev)
{
  unsigned int i = 0;

  while (i < num_late)
    if (dev == NULL || late[i].dev == dev)
      late[i] = late[--num_late];
    else
      i++;
}

/*----------------------------------------------------------------------*/

uint64_t
sim_io_step (void)
{
  uint64_t first = SIM_NEVER;
  unsigned int i, n = 0, chosen = 0;

  for (i = 0; i < num_ops; i++)
    if (ops[i].not_before > sim_now)
      first = MIN (first, ops[i].not_before);
    else if (sim_below (&sim_schedule, ++n) == 0)
      chosen = i;
  if (n == 0)
    return first;
  step (&ops[chosen]);
  return 0;
}

void
sim_io_abort (struct sim_device *dev, int error)
{
  unsigned int i = 0;
  struct op *op;

  while (i < num_ops) {
    op = &ops[i];
    if (op->dev != dev) {
      i++;
      continue;
    }
    if (can_be_late (op)) {
      dev->bdev.late_until = sim_now + dev->bdev.late;
      if (sim_chance (&sim_media, 60))
        make_late (op, sim_now + sim_next (&sim_media) % dev->bdev.late);
    }
    else if (!op->started)
      op->started = true;
    else if (changes (op->op) && op->count > 0)
      transfer (op, sim_below (&sim_media, op->count + 1));
    op->started = true;
    op->error = error;
    end (op);
    i = 0;
  }
}

void
sim_io_cut (bool power)
{
  unsigned int i;
  struct op *op;

  for (i = 0; i < num_ops; i++) {
    op = &ops[i];
    if (!op->started)
      start (op);
    if (!changes (op->op))
      continue;
    if (!power && can_be_late (op) &&
        (op->dev->kind != SIM_COPY || copy_written) &&
        sim_chance (&sim_media, 60))
      make_late (op, SIM_NEVER);
    else if (op->count > 0 && sim_chance (&sim_media, 50))
      transfer (op, sim_below (&sim_media, op->count + 1));
    sim_complete (op->dev, op->sector, op->count, false);
  }
  num_ops = 0;
}

/*----------------------------------------------------------------------
 * Requests
 */

static uint32_t
coprime (uint32_t n)
{
  static const uint32_t primes[] = { 1, 1, 7, 31, 61, 97 };
  uint32_t p = primes[sim_below (&sim_media, 6)];

  return n % p == 0 || p == 1 ? 1 : p;
}

static void
check_region (const struct dm_io_request *req, const struct io_region *where)
{
  struct sim_device *dev = (struct sim_device *) where->bdev;
  unsigned int block = where->bdev->block_size / SECTOR;

  if (req->op == DM_IO_FLUSH || where->count == 0)
    return;
  if (where->sector + where->count > dev->sectors ||
      where->sector % block != 0 || where->count % block != 0)
    sim_fail ("bad region: %s %u+%u", dev->name, (unsigned) where->sector,
              (unsigned) where->count);
  if ((req->op == DM_IO_READ || req->op == DM_IO_WRITE) &&
      req->mem.length != DM_IO_UNCHECKED &&
      req->mem.length < where->count * SECTOR)
    sim_fail ("the memory of a request is shorter than its region");
  if (dev->kind == SIM_LEG && req->op != DM_IO_READ)
    sim_check_leg_write (dev, where->sector - dev->start, where->count);
}

static void
add_op (struct request *request, const struct dm_io_request *req,
        unsigned int index, const struct io_region *where)
{
  struct op *op = &ops[num_ops];

  if (num_ops == MAX_OPS)
    sim_fail ("more than %d operations in flight", MAX_OPS);
  num_ops++;
  *op = (struct op) {
    .request = request,
    .dev = (struct sim_device *) where->bdev,
    .op = req->op, .flags = req->flags, .index = index,
    .sector = req->op == DM_IO_FLUSH ? 0 : where->sector,
    .count = req->op == DM_IO_FLUSH ? 0 : where->count,
    .begun = sim_now,
  };
  if (op->count > 0) {
    op->stride = coprime (op->count);
    op->next = op->stride == 1 ? 0 : sim_below (&sim_media, op->count);
  }
  op->not_before = MAX (sim_now, op->dev->slow_until);
  if (sim_style.slow > 0 && sim_below (&sim_media, 1000) < sim_style.slow) {
    sim_count (SIM_SLOW_OPERATION);
    op->not_before += sim_next (&sim_media) % UINT64_C (10000000000);
  }
  request->pending++;
  if (op->dev->kind == SIM_LEG)
    request->legs |= 1UL << op->dev->number;
  if (op->dev->awaited && changes (op->op)) {
    op->not_before += 1000000;
    sim_wake (&op->dev->awaited, false);
  }
}

/* A discard is done on all devices or on none. */
static bool
can_all_punch (unsigned int n, const struct io_region *where)
{
  unsigned int i;

  for (i = 0; i < n; i++)
    if (where[i].bdev->can_punch != CAN_PUNCH)
      return false;
  return true;
}

static void
check_request (const struct dm_io_request *req, unsigned int n)
{
  if (n < 1 || n > DM_IO_MAX_REGIONS || (req->op == DM_IO_READ && n > 1))
    sim_fail ("a request of kind %d with %u regions", req->op, n);
  if (req->fn != NULL)
    sim_fail ("an asynchronous request");
  if (req->op == DM_IO_FLUSH && req->flags != 0)
    sim_fail ("a flush with flags");
}

static void
trace_request (const struct dm_io_request *req, unsigned int n,
               const struct io_region *where)
{
  unsigned int i;

  for (i = 0; i < n; i++)
    sim_trace ("%s: %s: op %d flags %x of %u+%u begins",
               sim_fiber_name (sim_self ()), where[i].bdev->name, req->op,
               req->flags, (unsigned) where[i].sector -
               ((struct sim_device *) where[i].bdev)->start,
               (unsigned) where[i].count);
}

int
dm_io (const struct dm_io_request *req, unsigned int n,
       const struct io_region *where, unsigned long *error_bits)
{
  struct request request = {
    .mem = req->mem, .results = req->results, .fiber = sim_self (),
  };
  bool nothing = req->op == DM_IO_DISCARD && !can_all_punch (n, where);
  unsigned int i;

  check_request (req, n);
  if (sim_verbose)
    trace_request (req, n, where);
  if (req->results != NULL)
    memset (req->results, 0, n * sizeof req->results[0]);
  for (i = 0; i < n; i++) {
    check_region (req, &where[i]);
    if (!nothing && (req->op == DM_IO_FLUSH || where[i].count > 0 ||
                     req->flags & DM_IO_PREFLUSH))
      add_op (&request, req, i, &where[i]);
  }
  while (request.pending > 0)
    sim_block (&request, SIM_NEVER, "I/O");
  if (error_bits != NULL)
    *error_bits = request.bits;
  return request.bits == 0 ? 0 : -EIO;
}

/*----------------------------------------------------------------------
 * Devices
 */

unsigned int
dm_bdev_block_size (const struct block_device *bdev)
{
  return bdev->block_size;
}

int
bdev_attend (struct block_device *bdev)
{
  return 0;
}

int
bdev_revive (struct block_device *bdev)
{
  struct sim_device *dev = (struct sim_device *) bdev;

  sim_yield ();
  sim_devices_update ();
  if (dev->dead)
    return -EIO;
  if (bdev->offline && dev->back_at > sim_now)
    return bdev->failed ? -EAGAIN : 0;
  if (bdev->failed || dev->flush_failed)
    sim_trace ("%s: revived", dev->name);
  if (dev->flush_failed) {
    sim_lose_cache (dev);
    sim_cache_lost (dev);
  }
  bdev->failed = bdev->offline = false;
  dev->flush_failed = dev->is_unflushed = false;
  sim_update_losses ();
  return 0;
}

void
bdev_glance (struct block_device *bdev, struct bdev_stamp *stamp)
{
  struct sim_device *dev = (struct sim_device *) bdev;

  *stamp = (struct bdev_stamp) {
    .valid = !dev->remote, .size = bdev->size, .mtime = dev->mtime,
  };
}

int
bdev_stamp (struct block_device *bdev, struct bdev_stamp *stamp)
{
  struct sim_device *dev = (struct sim_device *) bdev;
  uint32_t since = sim_tick;

  memset (stamp, 0, sizeof *stamp);
  sim_yield ();
  if (dev->remote)
    return 0;
  if (connection_error (dev) != 0 || dev->flush_failed)
    return -EIO;
  sim_stabilize (dev, since);
  bdev_glance (bdev, stamp);
  sim_yield ();
  return 0;
}

void
bdev_flush_again (struct block_device *bdev)
{
  struct sim_device *dev = (struct sim_device *) bdev;

  dev->flush_failed = dev->is_unflushed = false;
}

bool
bdev_shows_changes (const struct block_device *bdev)
{
  return !((const struct sim_device *) bdev)->remote;
}

enum bdev_place
bdev_place (struct block_device *bdev)
{
  return BDEV_IN_PLACE;
}

bool
bdev_touched (struct block_device *bdev, uint64_t date)
{
  const struct sim_device *dev = (struct sim_device *) bdev;

  return !dev->remote && dev->mtime > date;
}

/* The length of what is alike from a sector on. */
static uint32_t
alike (const struct sim_device *dev, uint32_t sector, uint32_t end,
       bool *hole)
{
  uint32_t i;

#define IS_HOLE(s) (!(dev->flags[s] & SIM_ALLOCATED) && dev->cached[s] == 0)
  *hole = IS_HOLE (sector);
  for (i = sector + 1; i < end && IS_HOLE (i) == *hole; i++)
    ;
#undef IS_HOLE
  return i - sector;
}

int
bdev_extents (struct block_device *bdev, uint64_t offset, uint64_t length,
              struct bdev_extent *extents, int max)
{
  struct sim_device *dev = (struct sim_device *) bdev;
  uint32_t sector = offset / SECTOR, end = (offset + length) / SECTOR, n;
  int i, r;

  sim_yield ();
  r = connection_error (dev);
  if (r != 0)
    return -r;
  for (i = 0; i < max && sector < end; i++, sector += n) {
    n = alike (dev, sector, end, &extents[i].hole);
    extents[i].zero = extents[i].hole;
    extents[i].length = (uint64_t) n * SECTOR;
  }
  sim_yield ();
  return i;
}

int
bdev_prefetch (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  return 0;
}

bool
bdev_can_punch (struct block_device *bdev)
{
  return bdev->can_punch == CAN_PUNCH;
}
