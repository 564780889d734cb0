/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include <glib.h>

#include "samples.h"

/* The regions are cut into so many parts, of which the first data is compared. */
#define PARTS 64

#define BLOCK_SECTORS 8
#define MAX_EXTENTS 16

/* So often is looked on in a part for data that is quiet. */
#define TRIES 4

/* Two blocks of this size, in memory. */
struct look {
  const struct io_region *a, *b;
  const struct samples_filter *filter;
  sector_t count, block;
  unsigned char *buffer;
  bool bad_a, bad_b;            /* a block could not be read */
  bool any;                     /* one has been compared */
};

static bool
is_quiet (const struct look *look, sector_t sector)
{
  sector_t first = sector - sector % look->block;

  return look->filter == NULL ||
    look->filter->is_quiet (look->filter->context, first,
                            MIN (look->block, look->count - first));
}

/* The first sector in [from, end) with data, or END.  A part that is cut into
 * more holes than are looked at counts as having none after these.
 */
static sector_t
find_data (const struct io_region *region, sector_t from, sector_t end)
{
  struct bdev_extent extents[MAX_EXTENTS];
  uint64_t offset = (region->sector + from) * DM_IO_SECTOR_SIZE;
  uint64_t length = (end - from) * DM_IO_SECTOR_SIZE, done = 0;
  int n = bdev_extents (region->bdev, offset, length, extents, MAX_EXTENTS);
  int i;

  for (i = 0; i < n && extents[i].zero; i++)
    done += extents[i].length;
  if (n > 0 && i == n)
    return end;
  return from + MIN (done, length) / DM_IO_SECTOR_SIZE;
}

/* The first that is quiet, too. */
static sector_t
find_quiet_data (const struct look *look, const struct io_region *region,
                 sector_t from, sector_t end)
{
  unsigned int i;

  for (i = 0; i < TRIES && from < end; i++) {
    from = find_data (region, from, end);
    if (from >= end || is_quiet (look, from))
      return from;
    from += MAX (look->block, (end - from) / TRIES);
  }
  return end;
}

static int
read_block (const struct io_region *region, sector_t at, sector_t count,
            void *buffer)
{
  struct io_region where = {
    .bdev = region->bdev, .sector = region->sector + at, .count = count,
  };
  struct dm_io_result result = { 0 };
  struct dm_io_request request = {
    .op = DM_IO_READ,
    .mem = {
      .type = DM_IO_VM, .length = count * DM_IO_SECTOR_SIZE,
      .ptr.vm = buffer,
    },
    .results = &result,
  };

  dm_io (&request, 1, &where, NULL);
  return -result.error;
}

/* Is the block with this sector alike?  As samples_compare. */
static int
compare_block (struct look *look, sector_t sector, sector_t *at)
{
  sector_t first = sector - sector % look->block;
  sector_t count = MIN (look->block, look->count - first);
  unsigned char *a = look->buffer;
  unsigned char *b = a + look->block * DM_IO_SECTOR_SIZE;
  int r = read_block (look->a, first, count, a);

  if (r == -EIO && look->filter != NULL) {
    look->bad_a = true;
    return 0;
  }
  if (r == 0)
    r = read_block (look->b, first, count, b);
  if (r == -EIO && look->filter != NULL) {
    look->bad_b = true;
    return 0;
  }
  if (r < 0)
    return r;
  look->any = true;
  *at = first;
  return memcmp (a, b, count * DM_IO_SECTOR_SIZE) != 0 &&
    is_quiet (look, first);
}

static int
compare_part (struct look *look, sector_t from, sector_t end,
              sector_t *at)
{
  sector_t a = find_quiet_data (look, look->a, from, end);
  sector_t b = find_quiet_data (look, look->b, from, end);
  int r = 0;

  if (MIN (a, b) < end)
    r = compare_block (look, MIN (a, b), at);
  if (r == 0 && MAX (a, b) < end)
    r = compare_block (look, MAX (a, b), at);
  return r;
}

int
samples_compare (const struct io_region *a, const struct io_region *b,
                 sector_t count, const struct samples_filter *filter,
                 sector_t *at)
{
  unsigned int block = MAX (dm_bdev_block_size (a->bdev),
                            dm_bdev_block_size (b->bdev));
  struct look look = {
    .a = a, .b = b, .filter = filter, .count = count,
    .block = MAX (BLOCK_SECTORS, block / DM_IO_SECTOR_SIZE),
  };
  sector_t part, from;
  int r = 0;

  part = MAX (count / PARTS, look.block);
  part = (part + look.block - 1) / look.block * look.block;
  look.buffer = g_try_malloc0 (2 * look.block * DM_IO_SECTOR_SIZE);
  if (look.buffer == NULL)
    return -ENOMEM;
  for (from = 0; r == 0 && from < count; from += part)
    r = compare_part (&look, from, MIN (from + part, count), at);
  g_free (look.buffer);
  if (r != 0)
    return r;
  if (!look.any && (look.bad_a || look.bad_b))
    return -ENXIO;
  return look.bad_b ? -EIO : 0;
}
