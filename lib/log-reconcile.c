/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Chunks of a log that may differ between legs in sync (R2, W4), and those where what was
 * sent to a leg before may still be written (S5).  log->lock owns both sets.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include <glib.h>

#include "log-private.h"

/*----------------------------------------------------------------------
 * After a crash
 */

bool
dm_log_was_written (struct dm_log *log, sector_t sector, sector_t count)
{
  uint64_t first, end;
  bool written;

  log_get_chunks (log, sector, count, &first, &end);
  pthread_mutex_lock (&log->lock);
  written = log_next_bit (log->touched, first, end) < end;
  pthread_mutex_unlock (&log->lock);
  return written;
}

uint64_t
dm_log_next_unreconciled (struct dm_log *log, uint64_t first, uint64_t end)
{
  pthread_mutex_lock (&log->lock);
  end = MIN (end, log->g.chunks);
  first = log_next_bit (log->unreconciled, first, end);
  pthread_mutex_unlock (&log->lock);
  return first;
}

/* Locked. */
static void
unreconcile (struct dm_log *log, uint64_t chunk)
{
  log->unreconciled[chunk / 64] |= UINT64_C (1) << chunk % 64;
  log->touched[chunk / 64] |= UINT64_C (1) << chunk % 64;
  log->differs[chunk]++;
}

void
dm_log_unreconcile (struct dm_log *log, sector_t sector, sector_t count)
{
  uint64_t first, end;

  log_get_chunks (log, sector, count, &first, &end);
  pthread_mutex_lock (&log->lock);
  for (; first < end; first++)
    unreconcile (log, first);
  pthread_mutex_unlock (&log->lock);
}

unsigned int
dm_log_differs (struct dm_log *log, uint64_t chunk)
{
  unsigned int n;

  pthread_mutex_lock (&log->lock);
  n = log->differs[chunk];
  pthread_mutex_unlock (&log->lock);
  return n;
}

void
dm_log_reconciled (struct dm_log *log, uint64_t chunk, unsigned int since)
{
  pthread_mutex_lock (&log->lock);
  if (log->differs[chunk] == since)
    log->unreconciled[chunk / 64] &= ~(UINT64_C (1) << chunk % 64);
  pthread_mutex_unlock (&log->lock);
}

/*----------------------------------------------------------------------
 * Chunks in doubt
 */

void
dm_log_doubt (struct dm_log *log, unsigned int leg, sector_t sector,
              sector_t count)
{
  uint64_t first, end;

  log_get_chunks (log, sector, count, &first, &end);
  pthread_mutex_lock (&log->lock);
  for (; first < end; first = (first | 63) + 1)
    log->lacking[leg].doubtful[first / 64] |= log_bits (first, end);
  pthread_mutex_unlock (&log->lock);
}

void
dm_log_doubt_all (struct dm_log *log, unsigned int leg)
{
  struct log_map *map = &log->lacking[leg];
  unsigned int i;

  pthread_mutex_lock (&log->lock);
  for (i = 0; i < log->g.map_words; i++)
    map->doubtful[i] |= log->dirty.wanted[i] | map->wanted[i];
  pthread_mutex_unlock (&log->lock);
}

void
dm_log_end_doubt (struct dm_log *log, unsigned int leg)
{
  uint64_t *doubtful = log->lacking[leg].doubtful, chunk;

  pthread_mutex_lock (&log->lock);
  for (chunk = log_next_bit (doubtful, 0, log->g.chunks); chunk < log->g.chunks;
       chunk = log_next_bit (doubtful, chunk + 1, log->g.chunks))
    /* What was late has come, or has not, and nobody has flushed it. */
    if (log->legs[leg].info.state == DM_LOG_IN_SYNC &&
        log_test_bit (log->dirty.wanted, chunk))
      unreconcile (log, chunk);
  memset (doubtful, 0, log->g.map_words * sizeof doubtful[0]);
  pthread_mutex_unlock (&log->lock);
}

bool
dm_log_in_doubt (struct dm_log *log, unsigned long legs, sector_t sector,
                 sector_t count)
{
  uint64_t first, end, bits = 0;
  unsigned long left;

  log_get_chunks (log, sector, count, &first, &end);
  pthread_mutex_lock (&log->lock);
  for (; bits == 0 && first < end; first = (first | 63) + 1) {
    bits = log_bits (first, end);
    for (left = legs; left != 0; left &= left - 1)
      bits &= log->lacking[__builtin_ctzl (left)].doubtful[first / 64];
  }
  pthread_mutex_unlock (&log->lock);
  return bits != 0;
}
