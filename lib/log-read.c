/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "log-private.h"
#include "log-read.h"

/* What is not a log is not looked at further than this to see if there is
 * anything at all.
 */
#define BLANK_BLOCKS 256

int
log_read_blocks (const struct io_region *region, unsigned int block,
                 unsigned int n, void *buffer)
{
  const struct io_region where = {
    .bdev = region->bdev,
    .sector = region->sector + (sector_t) block * LOG_BLOCK_SECTORS,
    .count = (sector_t) n * LOG_BLOCK_SECTORS,
  };
  struct dm_io_result result = { 0 };
  const struct dm_io_request request = {
    .op = DM_IO_READ,
    .mem = { .type = DM_IO_VM, .length = (uint64_t) n * LOG_BLOCK,
             .ptr.vm = buffer },
    .results = &result,
  };

  if ((sector_t) (block + n) * LOG_BLOCK_SECTORS > region->count)
    return EFBIG;
  if (dm_io (&request, 1, &where, NULL) == -EINVAL)
    return EINVAL;
  return result.error;
}

static bool
is_zero (const unsigned char *data, size_t length)
{
  return data[0] == 0 && memcmp (data, data + 1, length - 1) == 0;
}

/* True if there is nothing. */
static bool
is_blank (const struct io_region *region, unsigned char *buffer)
{
  unsigned int blocks = MIN (region->count / LOG_BLOCK_SECTORS, BLANK_BLOCKS);
  unsigned int block, n;

  for (block = 0; block < blocks; block += n) {
    n = MIN (blocks - block, LOG_BUFFER_BLOCKS);
    if (log_read_blocks (region, block, n, buffer) != 0 ||
        !is_zero (buffer, (size_t) n * LOG_BLOCK))
      return false;
  }
  return true;
}

static void
find_label (const void *block, GChecksum *checksum, struct log_find *find,
            enum log_label_state *state)
{
  const unsigned char *uuid = find->what == LOG_FIND_VALID ?
    find->super.uuid : NULL;

  find->label = log_decode_label (block, uuid, &find->number, state,
                                  checksum);
  find->labelled = find->label == LOG_VALID;
  log_block_uuid (block, find->label_uuid);
}

/* The newer of the two superblocks, if any is valid. */
static void
find_super (const unsigned char *buffer, GChecksum *checksum,
            struct log_find *find)
{
  struct log_super super;
  unsigned int i;

  find->what = LOG_FIND_CORRUPT;
  for (i = 0; i < 2; i++) {
    find->supers[i] = log_decode_super (buffer + i * LOG_BLOCK, &super,
                                        checksum);
    if (find->supers[i] != LOG_VALID ||
        (find->what == LOG_FIND_VALID &&
         super.sequence < find->super.sequence))
      continue;
    find->what = LOG_FIND_VALID;
    find->super = super;
    find->newest = i;
  }
}

/* Is one of them of another version?  Without a valid one beside it that is
 * believed although the checksum, which may be another there, is wrong.
 */
static void
find_unknown (const unsigned char *buffer, GChecksum *checksum,
              struct log_find *find)
{
  unsigned int i;

  for (i = 0; i < 2; i++)
    if (find->supers[i] == LOG_UNKNOWN &&
        (find->what != LOG_FIND_VALID ||
         log_checksum_right (buffer + i * LOG_BLOCK, checksum))) {
      find->version = log_block_version (buffer + i * LOG_BLOCK);
      find->what = LOG_FIND_UNKNOWN;
      return;
    }
}

void
log_find_copy (const struct io_region *region, unsigned char *buffer,
               GChecksum *checksum, struct log_find *find)
{
  enum log_label_state label = LOG_LABEL_USED;

  memset (find, 0, sizeof *find);
  find->error = log_read_blocks (region, LOG_SUPER_AT, LOG_DIRTY_AT, buffer);
  if (find->error != 0) {
    find->what = LOG_FIND_UNREADABLE;
    return;
  }
  find_super (buffer, checksum, find);
  find_unknown (buffer, checksum, find);
  find_label (buffer + LOG_LABEL_AT * LOG_BLOCK, checksum, find, &label);
  if (find->what == LOG_FIND_CORRUPT &&
      ((find->labelled && label == LOG_LABEL_NEW) ||
       is_blank (region, buffer)))
    find->what = LOG_FIND_BLANK;
}
