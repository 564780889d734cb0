/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The log in memory: what is wanted, and who has to wait until it is durable.
 * How that comes about is in log-commit.c, and what a restart makes of it
 * in log-load.c.
 *
 * log->lock owns all that changes.  It is a leaf, held for some words of
 * bitmaps, at most for all of one bitmap, and never over I/O.  A thread that
 * waits for the copies waits on log->progress, or leads a commit.
 *
 * Why it can be trusted:
 *
 * W1 dm_log_begin returns only when the dirty bits of the write are durable,
 *    and counts it in in_flight from before that until dm_log_end.
 * W2 A dirty bit is cleared by dm_log_clean_end alone.  From clean_begin, when
 *    no write was in flight to the chunk, until clean_end none began, or
 *    the chunk would be marked as touched; in between the legs were flushed.
 *    The bit is no longer durable for dm_log_begin from the moment at which
 *    a commit decides to clear it.
 * W3 dm_log_begin also waits until each absent leg is durably out of sync and
 *    lacks the chunks.  Which legs are absent is read under the lock, last,
 *    and given to the caller.  dm_log_drop returns when all legs that are
 *    absent are so durably, and lack all that was dirty.
 * S1 Bits of what a leg lacks are cleared by dm_log_copied alone, and its
 *    state becomes in sync in dm_log_join, if there are none.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include <glib.h>

#include "clock.h"
#include "log-private.h"
#include "log-read.h"

/* So long after a leg was dropped may what was sent to it before arrive. */
#define LATE NSEC_PER_SEC

/*----------------------------------------------------------------------
 * Bits.  The lock is held.
 */

/* True if all BITS of a word are durable. */
static bool
is_durable (const struct log_map *map, uint64_t word, uint64_t bits)
{
  return (map->disk[word] & map->staged[word] & bits) == bits;
}

static void
set_word (struct dm_log *log, struct log_map *map, uint64_t word,
          uint64_t bits)
{
  map->wanted[word] |= bits;
  if (!is_durable (map, word, bits))
    log_flag_block (log->sets, log_block_of (log, map, word * 64));
}

static void
clear_word (struct dm_log *log, struct log_map *map, uint64_t word,
            uint64_t bits)
{
  if ((map->wanted[word] & bits) == 0)
    return;
  map->wanted[word] &= ~bits;
  log_flag_block (log->clears, log_block_of (log, map, word * 64));
}

/* The leg lacks what is dirty. */
static void
set_dirty_lacking (struct dm_log *log, unsigned int leg)
{
  unsigned int i;

  for (i = 0; i < log->g.map_words; i++)
    if (log->dirty.wanted[i] != 0)
      set_word (log, &log->lacking[leg], i, log->dirty.wanted[i]);
}

static void
set_all_lacking (struct dm_log *log, unsigned int leg)
{
  uint64_t bit, end = log->g.chunks;

  for (bit = 0; bit < end; bit = (bit | 63) + 1)
    set_word (log, &log->lacking[leg], bit / 64, log_bits (bit, end));
}

bool
log_has_dirty (const struct dm_log *log)
{
  return log_next_bit (log->dirty.wanted, 0, log->g.chunks) < log->g.chunks;
}

static void
set_state (struct dm_log *log, unsigned int leg, enum dm_log_state state)
{
  if (log->legs[leg].info.state == state)
    return;
  log->legs[leg].info.state = state;
  log->super_wanted++;
}

/*----------------------------------------------------------------------
 * Writes
 */

/* Locked.  Set the bits of a write that are not set yet.  True if all that
 * it needs is durable already.
 */
static bool
mark_word (struct dm_log *log, uint64_t word, uint64_t bits)
{
  unsigned long legs = log->absent;
  struct log_map *map = &log->dirty;
  bool durable;

  log->touched[word] |= bits;
  set_word (log, map, word, bits);
  durable = is_durable (map, word, bits);
  for (; legs != 0; legs &= legs - 1) {
    map = &log->lacking[__builtin_ctzl (legs)];
    set_word (log, map, word, bits);
    durable = durable && is_durable (map, word, bits);
  }
  return durable;
}

/* Locked. */
static bool
mark (struct dm_log *log, uint64_t first, uint64_t end, uint64_t now)
{
  bool durable = (log->absent & log->maybe_in_sync) == 0 && log->quiet == 0;

  for (; first < end; first = (first | 63) + 1)
    if (!mark_word (log, first / 64, log_bits (first, end)))
      durable = false;
  return log_want_lease (log, now) && durable;
}

/* Locked. */
static void
count_in_flight (struct dm_log *log, uint64_t first, uint64_t end, int n)
{
  for (; first < end; first++) {
    g_assert (n < 0 ? log->in_flight[first] > 0 :
              log->in_flight[first] < UINT16_MAX);
    log->in_flight[first] += n;
  }
}

void
log_get_chunks (const struct dm_log *log, sector_t sector, sector_t count,
                uint64_t *first, uint64_t *end)
{
  unsigned int shift = __builtin_ctzll (log->g.chunk);

  *first = sector >> shift;
  *end = count == 0 ? *first : ((sector + count - 1) >> shift) + 1;
}

int
dm_log_begin (struct dm_log *log, sector_t sector, sector_t count,
              unsigned long *absent)
{
  uint64_t first, end, now = clock_date ();

  log_get_chunks (log, sector, count, &first, &end);
  pthread_mutex_lock (&log->lock);
  count_in_flight (log, first, end, 1);
  while (!log->dead && !mark (log, first, end, now)) {
    log_step (log);
    now = clock_date ();
  }
  if (log->dead) {
    count_in_flight (log, first, end, -1);
    pthread_mutex_unlock (&log->lock);
    return -EIO;
  }
  *absent = log->absent;
  pthread_mutex_unlock (&log->lock);
  return 0;
}

void
dm_log_end (struct dm_log *log, sector_t sector, sector_t count)
{
  uint64_t first, end;

  log_get_chunks (log, sector, count, &first, &end);
  pthread_mutex_lock (&log->lock);
  count_in_flight (log, first, end, -1);
  pthread_mutex_unlock (&log->lock);
}

/* Locked. */
static void
drop_leg (struct dm_log *log, unsigned int leg)
{
  struct log_super_leg *info = &log->legs[leg].info;

  if (!(log->absent & 1UL << leg) && info->until > clock_date () + LATE) {
    info->until = clock_date () + LATE;
    log->super_wanted++;
  }
  log->absent |= 1UL << leg;
  set_dirty_lacking (log, leg);
  if (info->state != DM_LOG_IN_SYNC)
    return;
  set_state (log, leg, DM_LOG_OUT_OF_SYNC);
  if (info->stamp.valid && !log_has_dirty (log))
    info->until = 0;            /* it was not written since the stamp */
}

/* Locked. */
static void
drop_legs (struct dm_log *log, unsigned long legs)
{
  legs &= log_all_legs (log);
  log->drops_wanted += legs != 0;
  for (; legs != 0; legs &= legs - 1)
    drop_leg (log, __builtin_ctzl (legs));
  log_recompute_lease (log);
}

int
dm_log_drop (struct dm_log *log, unsigned long legs)
{
  int r = 0;

  pthread_mutex_lock (&log->lock);
  drop_legs (log, legs);
  if (log->drops_durable != log->drops_wanted)
    r = log_commit (log, false);
  pthread_mutex_unlock (&log->lock);
  return r;
}

/*----------------------------------------------------------------------
 * Cleaning
 */

/* Locked.  The bits of a word whose chunks no write is in flight to. */
static uint64_t
idle_bits (const struct dm_log *log, unsigned int word, uint64_t bits)
{
  uint64_t left = bits;
  unsigned int bit;

  for (; left != 0; left &= left - 1) {
    bit = __builtin_ctzll (left);
    if (log->in_flight[(uint64_t) word * 64 + bit] != 0)
      bits &= ~(UINT64_C (1) << bit);
  }
  return bits;
}

/* Locked.  The chunks of a word that are in doubt on any leg: another start has to know
 * that.
 */
static uint64_t
doubtful_bits (const struct dm_log *log, unsigned int word)
{
  uint64_t bits = 0;
  unsigned int i;

  for (i = 0; i < log->num_legs; i++)
    bits |= log->lacking[i].doubtful[word];
  return bits;
}

uint64_t
dm_log_clean_begin (struct dm_log *log)
{
  uint64_t bits, n = 0;
  unsigned int i;

  pthread_mutex_lock (&log->lock);
  for (i = 0; i < log->g.map_words; i++) {
    bits = log->dirty.wanted[i] & ~log->unreconciled[i] & ~log->touched[i] &
      ~doubtful_bits (log, i);
    bits = idle_bits (log, i, bits);
    log->chosen[i] = bits;
    log->touched[i] &= log->unreconciled[i];    /* see dm_log_was_written */
    n += __builtin_popcountll (bits);
  }
  pthread_mutex_unlock (&log->lock);
  return n;
}

int
dm_log_clean_end (struct dm_log *log)
{
  uint64_t bits, n = 0;
  unsigned int i;
  int r = 0;

  pthread_mutex_lock (&log->lock);
  for (i = 0; i < log->g.map_words; i++) {
    bits = log->chosen[i] & ~log->touched[i];
    log->chosen[i] = 0;
    clear_word (log, &log->dirty, i, bits);
    n += __builtin_popcountll (bits);
  }
  if (!log_has_dirty (log))
    log_end_lease (log);
  if (n > 0)
    r = log_commit (log, true);
  pthread_mutex_unlock (&log->lock);
  return r;
}

/*----------------------------------------------------------------------
 * Recovery
 */

int
dm_log_recover (struct dm_log *log, unsigned int leg, const struct bdev_stamp *stamp)
{
  int r = 0;

  pthread_mutex_lock (&log->lock);
  log->absent &= ~(1UL << leg);
  log_recompute_lease (log);
  if (stamp != NULL)
    log_set_stamp (log, leg, stamp);
  /* A commit under way may begin an epoch that is thought to be quiet. */
  log->super_wanted += log->quiet > 0 || log->leading;
  if (log->super_wanted != log->super_durable)
    r = log_commit (log, false);
  if (r < 0)
    drop_legs (log, 1UL << leg);
  pthread_mutex_unlock (&log->lock);
  return r;
}

void
dm_log_lack_dirty (struct dm_log *log, unsigned int leg)
{
  pthread_mutex_lock (&log->lock);
  set_dirty_lacking (log, leg);
  pthread_mutex_unlock (&log->lock);
}

/* Locked.  What is to be copied to a leg, of the chunks of one word. */
static uint64_t
to_copy (const struct dm_log *log, unsigned int leg, uint64_t word)
{
  const struct log_map *map = &log->lacking[leg];

  return map->wanted[word] & ~map->doubtful[word];
}

/* Locked.  Which of LEGS lack any of these chunks of one word. */
static unsigned long
who_lacks (const struct dm_log *log, unsigned long legs, uint64_t word,
           uint64_t bits)
{
  unsigned long lacking = 0;
  unsigned int i;

  for (; legs != 0; legs &= legs - 1) {
    i = __builtin_ctzl (legs);
    if (to_copy (log, i, word) & bits)
      lacking |= 1UL << i;
  }
  return lacking;
}

/* Locked.  The first chunk in [first, end) that is to be copied, or end. */
static uint64_t
next_to_copy (const struct dm_log *log, unsigned int leg, uint64_t first,
              uint64_t end)
{
  uint64_t bits;

  for (; first < end; first = (first | 63) + 1) {
    bits = to_copy (log, leg, first / 64) & log_bits (first, end);
    if (bits != 0)
      return first - first % 64 + __builtin_ctzll (bits);
  }
  return end;
}

/* Locked.  The first chunk in [first, end) that any of LEGS lacks, or end. */
static uint64_t
next_lacking (const struct dm_log *log, unsigned long legs, uint64_t first,
              uint64_t end)
{
  for (; legs != 0 && first < end; legs &= legs - 1)
    end = next_to_copy (log, __builtin_ctzl (legs), first, end);
  return end;
}

/* Locked.  The end of the run that begins with FIRST, of chunks that are
 * lacked by LACKING and not by the rest of LEGS.
 */
static uint64_t
run_end (const struct dm_log *log, unsigned long legs, unsigned long lacking,
         uint64_t first, uint64_t end)
{
  unsigned long left;
  uint64_t differs, bits;
  unsigned int i;

  for (; first < end; first = (first | 63) + 1) {
    differs = 0;
    for (left = legs; left != 0; left &= left - 1) {
      i = __builtin_ctzl (left);
      bits = to_copy (log, i, first / 64);
      differs |= lacking & 1UL << i ? ~bits : bits;
    }
    differs &= log_bits (first, end);
    if (differs != 0)
      return first - first % 64 + __builtin_ctzll (differs);
  }
  return end;
}

bool
dm_log_next_lacking (struct dm_log *log, unsigned long legs, uint64_t *first,
                     uint64_t end, uint64_t *after, unsigned long *lacking)
{
  bool found;

  pthread_mutex_lock (&log->lock);
  legs &= log_all_legs (log);
  end = MIN (end, log->g.chunks);
  *first = next_lacking (log, legs, *first, end);
  found = *first < end;
  if (found) {
    *lacking = who_lacks (log, legs, *first / 64,
                          UINT64_C (1) << *first % 64);
    *after = run_end (log, legs, *lacking, *first, end);
  }
  pthread_mutex_unlock (&log->lock);
  return found;
}

bool
dm_log_lacks_only_doubtful (struct dm_log *log, unsigned int leg)
{
  const struct log_map *map = &log->lacking[leg];
  uint64_t any = 0, others = 0;
  unsigned int i;

  pthread_mutex_lock (&log->lock);
  for (i = 0; i < log->g.map_words; i++) {
    any |= map->wanted[i];
    others |= map->wanted[i] & ~(map->doubtful[i] & log->dirty.wanted[i]);
  }
  pthread_mutex_unlock (&log->lock);
  return any != 0 && others == 0;
}

unsigned long
dm_log_having (struct dm_log *log, unsigned long legs, sector_t sector,
               sector_t count)
{
  unsigned long left = legs;
  uint64_t first, end;
  unsigned int i;

  log_get_chunks (log, sector, count, &first, &end);
  pthread_mutex_lock (&log->lock);
  for (; left != 0; left &= left - 1) {
    i = __builtin_ctzl (left);
    if (log_next_bit (log->lacking[i].wanted, first, end) < end)
      legs &= ~(1UL << i);
  }
  pthread_mutex_unlock (&log->lock);
  return legs;
}

uint64_t
dm_log_lacking (struct dm_log *log, unsigned int leg)
{
  uint64_t n;

  pthread_mutex_lock (&log->lock);
  n = log_count_bits (log->lacking[leg].wanted, log->g.map_words);
  pthread_mutex_unlock (&log->lock);
  return n;
}

bool
dm_log_is_quiet (struct dm_log *log, unsigned int leg, sector_t sector,
                 sector_t count)
{
  uint64_t first, end;
  bool quiet;

  log_get_chunks (log, sector, count, &first, &end);
  pthread_mutex_lock (&log->lock);
  quiet = log_next_bit (log->dirty.wanted, first, end) == end &&
    log_next_bit (log->lacking[leg].wanted, first, end) == end;
  pthread_mutex_unlock (&log->lock);
  return quiet;
}

void
dm_log_copied (struct dm_log *log, unsigned int leg, uint64_t first,
               uint64_t end)
{
  uint64_t bits;

  pthread_mutex_lock (&log->lock);
  for (; first < end; first = (first | 63) + 1) {
    /* What it was copied from may not be what the others will have. */
    bits = log_bits (first, end) & ~log->unreconciled[first / 64] &
      ~log->lacking[leg].doubtful[first / 64];
    clear_word (log, &log->lacking[leg], first / 64, bits);
  }
  pthread_mutex_unlock (&log->lock);
}

int
dm_log_sync (struct dm_log *log)
{
  int r;

  pthread_mutex_lock (&log->lock);
  r = log_commit (log, true);
  pthread_mutex_unlock (&log->lock);
  return r;
}

/* Locked. */
static bool
can_join (const struct dm_log *log, unsigned int leg)
{
  const uint64_t *map = log->lacking[leg].wanted;

  if (log->absent & 1UL << leg)
    return false;
  return log_next_bit (map, 0, log->g.chunks) == log->g.chunks;
}

int
dm_log_join (struct dm_log *log, unsigned int leg,
             const struct bdev_stamp *stamp)
{
  int r = -EAGAIN;

  pthread_mutex_lock (&log->lock);
  if (can_join (log, leg)) {
    set_state (log, leg, DM_LOG_IN_SYNC);
    if (stamp != NULL)
      log_set_stamp (log, leg, stamp);
    r = log_commit (log, false);
    if (r < 0)                  /* it may lack something when a copy is back */
      set_state (log, leg, DM_LOG_OUT_OF_SYNC);
  }
  pthread_mutex_unlock (&log->lock);
  return r;
}

/*----------------------------------------------------------------------
 * Wishes of the user
 */

/* Locked. */
static int
add_leg (struct dm_log *log, const char *id, sector_t sectors)
{
  const struct log_super_leg info = {
    .state = DM_LOG_OUT_OF_SYNC, .sectors = sectors,
  };
  unsigned int leg = log->num_legs;

  if (leg == LOG_MAX_LEGS)
    return -ENOSPC;
  if (log->dead)
    return -EIO;
  if (!log_map_init (log, &log->lacking[leg]))
    return -ENOMEM;
  log_new_leg (log, id, &info);
  log->absent |= 1UL << leg;
  log_flag_block (log->sets, log_leg_at (&log->g, leg));
  set_all_lacking (log, leg);
  log->told = true;
  log->super_wanted++;
  log_commit (log, false);      /* or it is recorded when that is possible */
  return leg;
}

int
dm_log_add_leg (struct dm_log *log, const char *id, sector_t sectors)
{
  int r;

  if (strlen (id) > DM_LOG_MAX_ID)
    return -ENAMETOOLONG;
  pthread_mutex_lock (&log->lock);
  r = add_leg (log, id, sectors);
  pthread_mutex_unlock (&log->lock);
  return r;
}

int
dm_log_lose (struct dm_log *log, unsigned int leg)
{
  int r;

  pthread_mutex_lock (&log->lock);
  log->told = true;
  set_all_lacking (log, leg);
  r = log_commit (log, false);
  pthread_mutex_unlock (&log->lock);
  return r;
}

int
dm_log_set_failed (struct dm_log *log, unsigned int leg, bool failed)
{
  int r;

  pthread_mutex_lock (&log->lock);
  log->told = true;
  set_state (log, leg, failed ? DM_LOG_FAILED : DM_LOG_OUT_OF_SYNC);
  r = log_commit (log, false);
  pthread_mutex_unlock (&log->lock);
  return r;
}

/*----------------------------------------------------------------------
 * Start
 */

/* Locked. */
static void
set_absent (struct dm_log *log, unsigned long absent, unsigned long lost)
{
  drop_legs (log, absent);
  for (lost &= absent & log_all_legs (log); lost != 0; lost &= lost - 1)
    set_all_lacking (log, __builtin_ctzl (lost));
}

void
dm_log_distrust (struct dm_log *log, unsigned long legs)
{
  struct log_super_leg *info;

  pthread_mutex_lock (&log->lock);
  for (legs &= log_all_legs (log); legs != 0; legs &= legs - 1) {
    info = &log->legs[__builtin_ctzl (legs)].info;
    if (!info->stamp.valid)
      set_all_lacking (log, __builtin_ctzl (legs));
    info->until = 0;            /* no time is an excuse for being written */
    log->super_wanted++;
  }
  pthread_mutex_unlock (&log->lock);
}

int
dm_log_start (struct dm_log *log, unsigned long absent, unsigned long lost)
{
  unsigned long copies;
  int r = log_catch_up (log);

  if (r < 0)
    return r;
  log_write_where (log, &log->writer, log->current);
  pthread_mutex_lock (&log->lock);
  set_absent (log, absent, lost);
  copies = log_unused_copies (log);
  /* One that could not be read may be in use, says the superblock.  Before it
   * is overwritten the others have to say otherwise, durably: were the power cut
   * in between, the next start would miss it.
   */
  if (copies != 0 && log->copy_missing && log_commit (log, false) < 0)
    copies = 0;
  if (copies != 0)
    log_bring_in (log, copies, LOG_LABEL_USED);
  r = log_commit (log, true);
  log->starting = false;
  pthread_mutex_unlock (&log->lock);
  log_put_labels (log, log->unlabelled);
  return r;
}
