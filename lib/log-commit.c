/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Writing the log.  One thread at a time leads a commit; those that come
 * meanwhile wait, and the first of them to wake leads the next one, for all.
 *
 * A commit takes what is wanted when it begins, and has up to four steps, each
 * durable on all copies in use before the next one:
 *
 * 1. Blocks with bits to be set.  They keep bits that are to be cleared.
 * 2. The superblock, if it has changed, into the older of the two slots.
 *    Now everything that was to be set is durable, and those who wait for
 *    that go on.
 * 3. If somebody has asked for it, blocks with bits to be cleared.
 * 4. The superblock, if a copy failed in 3.
 *
 * So at each instant a copy is as true as before the commit or truer:
 * nothing is clean on it that it does not know to be elsewhere.  A dirty bit
 * that gives way to a leg being out of sync, say, goes when that has come.
 *
 * A copy that fails is not used any more: the others get a new epoch, in
 * step 2 or 4, before the commit counts as done.  With that they tell
 * it from those that have seen everything if it comes back.  A copy that
 * comes in gets everything but the superblock first, then the others are
 * told that it is in use, then it gets the superblock: if it is the only
 * one to be found later, no other is newer without its being known.  So when
 * all in use have failed only one of the last can be used again: any other
 * would go on without their being told.
 *
 * Where the copies are is no part of commits, see log-where.c; how they come in is in
 * log-join.c.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#include <glib.h>

#include "log-private.h"

uint64_t
log_random (void)
{
  uint64_t value;
  ssize_t r;

  do
    r = getrandom (&value, sizeof value, 0);
  while (r == -1 && errno == EINTR);
  if (r != sizeof value)
    g_error ("getrandom: %s", g_strerror (errno));
  return value;
}

/*----------------------------------------------------------------------
 * I/O to copies
 */

static void
copy_failed (struct dm_log *log, unsigned int copy, enum dm_io_op op,
             uint64_t block, int error)
{
  g_warning ("log copy %s: %s of block %" PRIu64 " failed: %s; it is not "
             "used until it can be written again", log->copies[copy].name,
             op == DM_IO_FLUSH ? "flush" : "write", block,
             g_strerror (error));
}

/* Where block AT of each of COPIES is; a superblock goes into the older slot.
 * Returns how many, and which copies they are.
 */
static unsigned int
get_regions (struct dm_log *log, unsigned long copies, unsigned int at,
             unsigned int n, struct io_region *where, unsigned int *which)
{
  unsigned int num = 0, i, block;

  for (; copies != 0; copies &= copies - 1) {
    i = __builtin_ctzl (copies);
    block = at == LOG_SUPER_AT && n == 1 ? !log->copies[i].newest : at;
    where[num].bdev = log->copies[i].region.bdev;
    where[num].sector = log->copies[i].region.sector +
      (sector_t) block * LOG_BLOCK_SECTORS;
    where[num].count = (sector_t) n * LOG_BLOCK_SECTORS;
    which[num++] = i;
  }
  return num;
}

/* Write N blocks of the buffer, or flush, on all of COPIES.  Returns those
 * that failed.
 */
unsigned long
log_copies_io (struct dm_log *log, const struct log_writer *writer,
               unsigned long copies, enum dm_io_op op, unsigned int flags,
               unsigned int at, unsigned int n)
{
  struct io_region where[LOG_MAX_COPIES];
  struct dm_io_result results[LOG_MAX_COPIES];
  unsigned int which[LOG_MAX_COPIES], num, i;
  struct dm_io_request request = {
    .op = op, .flags = flags,
    .mem = { .type = DM_IO_VM, .length = (uint64_t) n * LOG_BLOCK,
             .ptr.vm = writer->buffer },
    .results = results,
  };
  unsigned long failed = 0;

  num = get_regions (log, copies, at, n, where, which);
  if (num == 0)
    return 0;
  memset (results, 0, sizeof results[0] * num);
  if (dm_io (&request, num, where, NULL) == -EINVAL)
    for (i = 0; i < num; i++)
      results[i].error = EINVAL;
  for (i = 0; i < num; i++)
    if (results[i].error != 0) {
      copy_failed (log, which[i], op, at, results[i].error);
      failed |= 1UL << which[i];
    }
  return failed;
}

/*----------------------------------------------------------------------
 * Blocks
 */

static void
encode_block (struct dm_log *log, GChecksum *checksum, unsigned int block,
              enum log_content content, void *buffer)
{
  struct log_place place = log_place (&log->g, block);
  const uint64_t *a, *b;
  struct log_map *map;
  unsigned int word;

  map = log_map_at (log, block, &word);
  if (map == NULL) {
    /* Always the same bytes, so that writing it again cannot tear it. */
    log_encode_leg (buffer, log->uuid, 0, place.slot,
                    log->legs[place.slot].id, checksum);
    return;
  }
  a = content == LOG_AFTER_CLEARING ? map->staged : map->disk;
  b = content == LOG_AS_ON_DISK ? map->disk : map->staged;
  log_encode_map (buffer, log->uuid, log->durable_sequence, place, a + word,
                  b + word, checksum);
}

/* The leader need not lock: only it changes disk and staged.  Who does not
 * lead locks for one block at a time.
 */
static void
encode_blocks (struct dm_log *log, const struct log_writer *writer,
               unsigned int first, unsigned int n, enum log_content content)
{
  unsigned int i;

  for (i = 0; i < n; i++) {
    if (content == LOG_AS_ON_DISK)
      pthread_mutex_lock (&log->lock);
    encode_block (log, writer->checksum, first + i, content,
                  writer->buffer + i * LOG_BLOCK);
    if (content == LOG_AS_ON_DISK)
      pthread_mutex_unlock (&log->lock);
  }
}

/* The next run of blocks that fits into the buffer. */
static bool
next_run (struct dm_log *log, const uint64_t *blocks, unsigned int *first,
          unsigned int *n)
{
  *first = log_next_bit (blocks, *first + *n, log->g.blocks);
  *n = 1;
  if (*first == log->g.blocks)
    return false;
  while (*n < LOG_BUFFER_BLOCKS && *first + *n < log->g.blocks &&
         log_test_bit (blocks, *first + *n))
    ++*n;
  return true;
}

/* Write blocks to COPIES, durably.  Returns the copies that failed. */
unsigned long
log_write_blocks (struct dm_log *log, const struct log_writer *writer,
                  unsigned long copies, const uint64_t *blocks,
                  enum log_content content)
{
  unsigned int first = 0, n = 0, next, m, flags;
  unsigned long failed = 0;
  bool more = next_run (log, blocks, &first, &n), single = true;

  while (more) {
    next = first, m = n;
    more = next_run (log, blocks, &next, &m);
    single = single && !more;
    encode_blocks (log, writer, first, n, content);
    flags = single ? DM_IO_FUA : 0;
    failed |= log_copies_io (log, writer, copies & ~failed, DM_IO_WRITE, flags,
                             first, n);
    if (!more && !single)
      failed |= log_copies_io (log, writer, copies & ~failed, DM_IO_FLUSH, 0, 0,
                               0);
    first = next, n = m;
  }
  return failed;
}

/*----------------------------------------------------------------------
 * The superblock
 */

static uint64_t
copy_numbers (struct dm_log *log, unsigned long copies)
{
  uint64_t numbers = 0;

  for (; copies != 0; copies &= copies - 1)
    numbers |= UINT64_C (1) <<
      log->copies[__builtin_ctzl (copies)].number;
  return numbers;
}

/* Is any leg written, or about to be, in what this commit records?  That is so where
 * chunks are dirty, and while a leg recovers.  Or is there other news of legs?
 */
static bool
is_changing (const struct dm_log *log)
{
  uint64_t n = log->g.chunks;

  return log->recovering || log->told || log_next_bit (log->dirty.staged, 0, n) < n ||
    log_next_bit (log->dirty.disk, 0, n) < n;
}

/* One that has been in use no longer is.  If all that had the epoch before this
 * one have this one as well nobody has to be told from the others by that: one
 * copy may fail and come back for ever, while another is away.
 */
static void
new_epoch (struct dm_log *log)
{
  struct log_super *super = &log->super;

  if (super->num_history == 0 ||
      (log->may_have_heard_last & ~log->heard) != 0) {
    memmove (super->history + 1, super->history,
             sizeof super->history - sizeof super->history[0]);
    super->num_history = MIN (super->num_history + 1, LOG_HISTORY);
  }
  else if (super->quiet > 0)    /* the last one stands for the one that is forgotten */
    super->quiet--;
  super->quiet = is_changing (log) ? 0 :
    MIN (super->quiet + 1, super->num_history);
  super->history[0] = super->epoch;
  super->epoch = log_random ();
  super->generation++;
  log->may_have_heard_last = log->may_have_heard;
  log->heard = log->may_have_heard = 0;
}

static unsigned long
put_super (struct dm_log *log, unsigned long copies)
{
  unsigned long failed;

  log_encode_super (log->writer.buffer, &log->super, log->writer.checksum);
  log->may_have_heard |= copy_numbers (log, copies);
  failed = log_copies_io (log, &log->writer, copies, DM_IO_WRITE, DM_IO_FUA,
                          LOG_SUPER_AT, 1);
  for (copies &= ~failed; copies != 0; copies &= copies - 1)
    log->copies[__builtin_ctzl (copies)].newest ^= 1;
  return failed;
}

static void
mark_superseded (struct dm_log *log, unsigned long in_use)
{
  unsigned int i;

  for (i = 0; i < log->num_copies; i++)
    if (in_use & 1UL << i)
      log->copies[i].superseded = false;
    else if (!log->copies[i].superseded)
      log->copies[i].superseded = true;
}

/* Write the superblock until all copies that are left have it: first those in
 * use, *COPIES, of which FAILED have failed, then those that are joining.  A new epoch gets
 * into both superblocks of each, so that it is known by either.
 * False if none is left of those in use: then nobody could tell them of the ones
 * that join, and what they know would rule when they are found alone.
 */
static bool
write_super (struct dm_log *log, unsigned long *copies, unsigned long failed)
{
  unsigned long left = *copies | log->joining;
  /* When all have failed numbers may be used up that some of them have not. */
  bool is_new, missing = log->copy_missing || log->dead;
  uint64_t numbers;

  do {
    left &= ~failed;
    if ((left & *copies) == 0)
      return false;
    log->last = left & *copies;
    numbers = copy_numbers (log, left);
    is_new = missing || (log->super.copies & ~numbers) != 0;
    if (is_new)
      new_epoch (log);
    missing = log->copy_missing = false;
    log->super.copies = numbers;
    log->super.orderly = log->ended && !log->unseen && !log_is_doubtful (log);
    log->super.sequence++;
    failed = put_super (log, left & *copies);
    if (failed == 0)
      failed = put_super (log, left & ~*copies);
  } while (failed != 0 || is_new);
  log->heard |= copy_numbers (log, left);
  mark_superseded (log, left);
  *copies = left;
  log->joining = 0;
  return true;
}

/*----------------------------------------------------------------------
 * Commits.  The functions that say so are called with the lock held.
 */

/* Locked.  Stage the words of a block; true if it then differs from disk in
 * bits that are set, or are not.
 */
static bool
stage_block (struct dm_log *log, unsigned int block, bool clears)
{
  unsigned int word, i;
  struct log_map *map = log_map_at (log, block, &word);
  uint64_t differs = 0, old;

  if (map == NULL)
    return true;
  for (i = word; i < word + LOG_BLOCK_WORDS; i++) {
    old = clears ? 0 : map->disk[i];
    map->staged[i] = old | map->wanted[i];
    differs |= clears ? map->disk[i] & ~map->staged[i] :
      map->staged[i] & ~map->disk[i];
  }
  return differs != 0;
}

/* Locked.  Take the blocks of FROM that differ into TO. */
static void
stage_blocks (struct dm_log *log, uint64_t *from, uint64_t *to, bool clears)
{
  unsigned int n = log->g.blocks, block;

  for (block = log_next_bit (from, 0, n); block < n;
       block = log_next_bit (from, block + 1, n)) {
    if (stage_block (log, block, clears) || log->starting)
      log_flag_block (to, block);
    from[block / 64] &= ~(UINT64_C (1) << block % 64);
  }
}

/* Locked. */
static bool
is_recovering (const struct dm_log *log)
{
  unsigned int i;

  for (i = 0; i < log->num_legs; i++)
    if (!(log->absent & 1UL << i) &&
        log->legs[i].info.state != DM_LOG_IN_SYNC)
      return true;
  return false;
}

/* Locked. */
static void
snapshot (struct dm_log *log, bool clears, uint64_t *super_version)
{
  size_t bytes = log->block_words * sizeof *log->sets;
  unsigned int i;

  memset (log->set_blocks, 0, bytes);
  memset (log->clear_blocks, 0, bytes);
  stage_blocks (log, log->sets, log->set_blocks, false);
  if (clears)
    stage_blocks (log, log->clears, log->clear_blocks, true);

  log->recovering = is_recovering (log);
  if (log->super.quiet > 0 && is_changing (log)) {
    log->super.quiet = 0;
    log->super_wanted++;
  }
  *super_version = log->super_staged = log->super_wanted;
  log->super.num_legs = log->num_legs;
  for (i = 0; i < log->num_legs; i++) {
    log->super.legs[i] = log->legs[i].info;
    if (log->legs[i].info.state == DM_LOG_IN_SYNC)
      log->maybe_in_sync |= 1UL << i;
  }
}

/* Locked.  The blocks have been written. */
static void
blocks_done (struct dm_log *log, const uint64_t *blocks, bool clears)
{
  unsigned int n = log->g.blocks, block, word, i;
  struct log_map *map;

  for (block = log_next_bit (blocks, 0, n); block < n;
       block = log_next_bit (blocks, block + 1, n)) {
    log_flag_block (log->missed, block);
    map = log_map_at (log, block, &word);
    if (map == NULL)
      continue;
    for (i = word; i < word + LOG_BLOCK_WORDS; i++)
      map->disk[i] = clears ? map->staged[i] :
        map->disk[i] | map->staged[i];
  }
}

/* Locked. */
static void
super_done (struct dm_log *log, uint64_t version)
{
  unsigned int i;

  log->super_durable = version;
  log->quiet = log->super.quiet;
  log->maybe_in_sync = 0;
  for (i = 0; i < log->super.num_legs; i++) {
    log->legs[i].until = log->super.legs[i].until;
    log->legs[i].stamp = log_stamp_time (&log->super.legs[i]);
    if (log->super.legs[i].state == DM_LOG_IN_SYNC)
      log->maybe_in_sync |= 1UL << i;
  }
  log_recompute_lease (log);
}

/* Locked, but for the I/O.  Steps 1 and 2. */
static bool
commit_sets (struct dm_log *log, unsigned long *copies, uint64_t version)
{
  bool changed = version != log->super_durable || log->joining != 0 ||
    log->dead;
  unsigned long failed = *copies & log->unwanted;
  bool ok = true;

  pthread_mutex_unlock (&log->lock);
  failed |= log_write_blocks (log, &log->writer,
                              (*copies | log->joining) & ~failed,
                              log->set_blocks, LOG_BEFORE_CLEARING);
  if (changed || failed != 0)
    ok = write_super (log, copies, failed);
  pthread_mutex_lock (&log->lock);

  if (!ok)
    return false;
  log->current = *copies;
  log->durable_sequence = log->super.sequence;
  blocks_done (log, log->set_blocks, false);
  super_done (log, version);
  return true;
}

/* Locked, but for the I/O.  Steps 3 and 4. */
static bool
commit_clears (struct dm_log *log, unsigned long *copies)
{
  unsigned long failed;
  bool ok = true;

  pthread_mutex_unlock (&log->lock);
  failed = log_write_blocks (log, &log->writer, *copies, log->clear_blocks,
                             LOG_AFTER_CLEARING);
  if (failed != 0)
    ok = write_super (log, copies, failed);
  pthread_mutex_lock (&log->lock);

  if (!ok)
    return false;
  log->current = *copies;
  log->durable_sequence = log->super.sequence;
  log->quiet = log->super.quiet;
  blocks_done (log, log->clear_blocks, true);
  return true;
}

/* Locked.  What the copies have is not known any more: at least all that was
 * ever wanted has to be written.
 */
static void
forget_disk (struct dm_log *log)
{
  unsigned int n = log_used_blocks (&log->g, log->num_legs), block, word, i;
  struct log_map *map;

  for (block = LOG_DIRTY_AT; block < n; block++) {
    log_flag_block (log->missed, block); /* by a copy that is coming in */
    map = log_map_at (log, block, &word);
    if (map == NULL)
      continue;
    for (i = word; i < word + LOG_BLOCK_WORDS; i++) {
      map->disk[i] |= map->staged[i] | map->wanted[i];
      map->staged[i] = map->disk[i];
    }
    log_flag_block (log->clears, block);
  }
}

/* Locked. */
void
log_died (struct dm_log *log)
{
  log->dead = true;
  log->current = 0;
  log->joining = 0;
  forget_disk (log);
  g_warning ("no copy of the log can be written: all writes to the volume "
             "are refused until one can be");
}

/* Locked, but for the I/O; LEADING is set.  Commit what is wanted now. */
void
log_run_commit (struct dm_log *log)
{
  unsigned long copies = log->current;
  bool clears = log->clear_waiters > 0;
  uint64_t number = ++log->begun, drops = log->drops_wanted, version;

  if (!log->dead)
    log->last = copies;
  snapshot (log, clears, &version);
  if (!commit_sets (log, &copies, version)) {
    log_died (log);
    return;
  }
  log->dead = false;
  log->last = copies;
  log->done = number;
  log->drops_durable = drops;
  if (!clears)
    return;
  pthread_cond_broadcast (&log->progress);
  if (commit_clears (log, &copies))
    log->done_clears = number;
  else
    log_died (log);
}

static void
lead (struct dm_log *log)
{
  log->leading = true;
  log_run_commit (log);
  log->leading = false;
  pthread_cond_broadcast (&log->progress);
}

void
log_step (struct dm_log *log)
{
  if (log->leading)
    pthread_cond_wait (&log->progress, &log->lock);
  else
    lead (log);
}

/* True if all bits and states that are wanted are part of a commit. */
static bool
all_is_staged (const struct dm_log *log)
{
  unsigned int n = log->g.blocks;

  return log->super_wanted == log->super_staged &&
    log_next_bit (log->sets, 0, n) == n;
}

int
log_commit (struct dm_log *log, bool clears)
{
  const uint64_t *done = clears ? &log->done_clears : &log->done;
  uint64_t ticket = log->begun + 1;

  if (!clears && all_is_staged (log))
    ticket = log->begun;
  log->clear_waiters += clears;
  while (*done < ticket && !log->dead)
    log_step (log);
  log->clear_waiters -= clears;
  return log->dead ? -EIO : 0;
}

/* What was torn when the last server wrote it is of an epoch that nobody knows.  If the
 * next superblock were torn there as well the two could make it whole.
 */
static unsigned long
spoil_torn (struct dm_log *log, unsigned long copies)
{
  memset (log->writer.buffer, 0xff, LOG_BLOCK);
  return log_copies_io (log, &log->writer, log->torn & copies, DM_IO_WRITE,
                        DM_IO_FUA, LOG_SUPER_AT, 1);
}

/* Before anything else is written what was read is durable, which may have been in a cache
 * only; it is known that this server has not ended; and copies that have missed a superblock
 * have it, or are out of use: those in use differ by one at most.  The copies that are behind
 * have all blocks of the commit, which come before the superblock.
 */
int
log_catch_up (struct dm_log *log)
{
  unsigned long copies = log->current, failed;

  log->last = copies;
  failed = log_copies_io (log, &log->writer, copies, DM_IO_FLUSH, 0, 0, 0);
  failed |= spoil_torn (log, copies & ~failed);
  if (log->behind & ~failed)
    failed |= put_super (log, log->behind & ~failed);
  log->behind = 0;
  if (!log->super.orderly && failed == 0)
    return 0;
  if (write_super (log, &copies, failed)) {
    log->current = copies;
    return 0;
  }
  pthread_mutex_lock (&log->lock);
  log_died (log);
  pthread_mutex_unlock (&log->lock);
  return -EIO;
}

void
log_wait_to_lead (struct dm_log *log)
{
  while (log->leading)
    pthread_cond_wait (&log->progress, &log->lock);
  log->leading = true;
}

void
log_end_to_lead (struct dm_log *log)
{
  log->leading = false;
  pthread_cond_broadcast (&log->progress);
}

void
log_expel (struct dm_log *log, unsigned long copies)
{
  log->unwanted |= copies;
  log->super_wanted++;
  log_commit (log, false);
  log->unwanted &= ~copies;
}
