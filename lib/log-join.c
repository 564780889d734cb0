/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Copies of the log that come into use: they get everything but the superblock, beside the
 * commits of others, then what has been written meanwhile, then a commit by which all
 * learn of them.  See log-commit.c.
 */

#include <config.h>

#include <string.h>

#include <glib.h>

#include "log-private.h"

/* No superblock, and a label.  Returns false if that failed. */
static bool
erase_copy (struct dm_log *log, const struct log_writer *writer,
            unsigned int copy, enum log_label_state label)
{
  memset (writer->buffer, 0, LOG_LABEL_AT * LOG_BLOCK);
  log_encode_label (writer->buffer + LOG_LABEL_AT * LOG_BLOCK, log->uuid,
                    log->copies[copy].number, label, writer->checksum);
  return log_copies_io (log, writer, 1UL << copy, DM_IO_WRITE, DM_IO_FUA,
                        LOG_SUPER_AT, LOG_DIRTY_AT) == 0;
}

bool
log_erase (struct dm_log *log, const struct log_writer *writer,
           unsigned long copies)
{
  bool ok = true;

  for (; copies != 0; copies &= copies - 1)
    ok = erase_copy (log, writer, __builtin_ctzl (copies), LOG_LABEL_NEW) && ok;
  return ok;
}

/* What it says so far is outdated, and would mislead once it is mixed with
 * what is new.  If there are no others that know better it has to stay.
 */
static unsigned long
erase_copies (struct dm_log *log, const struct log_writer *writer,
              unsigned long copies, enum log_label_state label)
{
  unsigned long left = copies, failed = 0;
  unsigned int i;

  for (; left != 0; left &= left - 1) {
    i = __builtin_ctzl (left);
    if (log->copies[i].superseded && !erase_copy (log, writer, i, label))
      failed |= 1UL << i;
  }
  return failed;
}

void
log_put_labels (struct dm_log *log, unsigned long copies)
{
  unsigned int i;

  for (; copies != 0; copies &= copies - 1) {
    i = __builtin_ctzl (copies);
    log_encode_label (log->writer.buffer, log->uuid, log->copies[i].number,
                      LOG_LABEL_USED, log->writer.checksum);
    log_copies_io (log, &log->writer, 1UL << i, DM_IO_WRITE, DM_IO_FUA,
                   LOG_LABEL_AT, 1);
  }
}

/* Locked, but for the I/O.  What does not need leadership, and so keeps
 * nobody waiting.  Returns the copies that failed.
 */
static unsigned long
write_all (struct dm_log *log, const struct log_writer *writer,
           unsigned long copies, enum log_label_state label,
           uint64_t *blocks)
{
  unsigned int n = log_used_blocks (&log->g, log->num_legs), i;
  unsigned long failed;

  memset (log->missed, 0, log->block_words * sizeof *log->missed);
  pthread_mutex_unlock (&log->lock);
  for (i = LOG_DIRTY_AT; i < n; i++)
    log_flag_block (blocks, i);
  failed = erase_copies (log, writer, copies, label);
  log_write_where (log, writer, copies & ~failed);
  failed |= log_write_blocks (log, writer, copies & ~failed, blocks, LOG_AS_ON_DISK);
  pthread_mutex_lock (&log->lock);
  return failed;
}

/* Locked, but for the I/O; LEADING is set.  What others have written
 * since, and the superblock.
 */
static unsigned long
join_copies (struct dm_log *log, const struct log_writer *writer,
             unsigned long copies, uint64_t *blocks)
{
  memcpy (blocks, log->missed, log->block_words * sizeof *blocks);
  pthread_mutex_unlock (&log->lock);
  copies &= ~log_write_blocks (log, writer, copies, blocks, LOG_AS_ON_DISK);
  pthread_mutex_lock (&log->lock);
  if (log->dead)                /* perhaps only since this began */
    copies &= log->last;
  if (copies == 0)
    return 0;
  if (log->current != 0)
    log->joining = copies;
  else                          /* all of a new log, or some of the last */
    log->current = copies;
  log_run_commit (log);
  return log->current & copies;
}

unsigned long
log_bring_in (struct dm_log *log, unsigned long copies,
              enum log_label_state label)
{
  g_autofree uint64_t *blocks = g_try_new0 (uint64_t, log->block_words);
  struct log_writer writer = { 0 };

  if (blocks == NULL || !log_writer_init (&writer)) {
    log_writer_fini (&writer);
    return 0;
  }
  copies &= ~write_all (log, &writer, copies, label, blocks);
  if (copies != 0) {
    log_wait_to_lead (log);
    copies = join_copies (log, &writer, copies, blocks);
    log_end_to_lead (log);
  }
  log_writer_fini (&writer);
  return copies;
}

/* Everything that is durable, into what has taken the place of a copy.  False if that has
 * failed.
 */
static bool
write_anew (struct dm_log *log, unsigned int copy, uint64_t *blocks)
{
  unsigned int n = log_used_blocks (&log->g, log->num_legs), i;

  for (i = LOG_DIRTY_AT; i < n; i++)
    log_flag_block (blocks, i);
  log_write_where (log, &log->writer, 1UL << copy);
  log_put_labels (log, 1UL << copy);
  return log_write_blocks (log, &log->writer, 1UL << copy, blocks,
                           LOG_AS_ON_DISK) == 0;
}

bool
log_remake (struct dm_log *log, unsigned int copy)
{
  g_autofree uint64_t *blocks = g_try_new0 (uint64_t, log->block_words);
  bool revived, written = false;

  if (blocks == NULL)
    return false;
  log_wait_to_lead (log);
  pthread_mutex_unlock (&log->lock);
  revived = bdev_revive (log->copies[copy].region.bdev) == 0;
  if (revived)
    written = write_anew (log, copy, blocks);
  pthread_mutex_lock (&log->lock);
  log->super_wanted++;
  if (written)
    log_run_commit (log);
  else if (revived) {           /* what was there is gone */
    log->last = 1UL << copy;
    log_died (log);
  }
  log_end_to_lead (log);
  return written && !log->dead;
}
