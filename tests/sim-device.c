/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Simulated media.  Each device has what is stable and, over it, a cache of
 * which a power cut loses any part, sector by sector.  A leg holds a
 * number for each sector: its data is 512 bytes of which the first
 * eight say which write wrote them and where, so that data that ends up in
 * a wrong place is noticed.  A log copy holds real bytes.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "sim.h"

#define SECTOR DM_IO_SECTOR_SIZE
#define PER_BLOCK (SIM_BLOCK / SECTOR)

struct sim_device *sim_devices[SIM_MAX_DEVICES];
unsigned int sim_num_devices;
struct sim_rng sim_media;
uint32_t sim_tick;

struct sim_device *
sim_device_new (enum sim_kind kind, unsigned int number, uint32_t sectors,
                uint32_t start)
{
  struct sim_device *dev = g_new0 (struct sim_device, 1);

  g_assert (sim_num_devices < SIM_MAX_DEVICES);
  sim_devices[sim_num_devices++] = dev;
  dev->kind = kind;
  dev->number = number;
  dev->sectors = sectors;
  dev->start = start;
  dev->present = true;
  dev->leg = -1;
  snprintf (dev->name, sizeof dev->name, "%s%u",
            kind == SIM_LEG ? "/leg" : "/log", number);
  dev->bdev.name = dev->name;
  dev->bdev.size = (uint64_t) sectors * SECTOR;
  dev->bdev.block_size = SECTOR;
  dev->bdev.mem_align = 1;
  dev->bdev.can_punch = CAN_PUNCH;
  dev->flags = g_malloc0 (sectors);
  dev->done_at = g_new0 (uint32_t, sectors);
  dev->dirty = g_new (uint32_t, sectors);
  if (kind == SIM_LEG) {
    dev->stable = g_new0 (sim_value, sectors);
    dev->cached = g_new0 (sim_value, sectors);
  }
  else {
    dev->stable_block = g_new0 (unsigned char *, sectors / PER_BLOCK + 1);
    dev->cached_block = g_new0 (unsigned char *, sectors / PER_BLOCK + 1);
    dev->changed = ~UINT64_C (0);
  }
  dev->mtime = dev->stable_mtime = sim_date ();
  return dev;
}

static unsigned char *
at (unsigned char **blocks, uint32_t sector)
{
  unsigned char **block = &blocks[sector / PER_BLOCK];

  if (*block == NULL)
    *block = g_malloc0 (SIM_BLOCK);
  return *block + sector % PER_BLOCK * SECTOR;
}

static void
free_blocks (struct sim_device *dev)
{
  uint32_t i;

  for (i = 0; i <= dev->sectors / PER_BLOCK; i++) {
    g_clear_pointer (&dev->stable_block[i], g_free);
    g_clear_pointer (&dev->cached_block[i], g_free);
  }
}

void
sim_devices_clear (void)
{
  struct sim_device *dev;
  uint32_t i;

  while (sim_num_devices > 0) {
    dev = sim_devices[--sim_num_devices];
    if (dev->kind == SIM_COPY)
      free_blocks (dev);
    for (i = 0; dev->kind == SIM_COPY && dev->saved &&
         i <= dev->sectors / PER_BLOCK; i++)
      g_free (dev->saved_block[i]);
    g_free (dev->saved_block);
    g_free (dev->saved_values);
    g_free (dev->saved_flags);
    g_free (dev->stable_block);
    g_free (dev->cached_block);
    g_free (dev->stable);
    g_free (dev->cached);
    g_free (dev->flags);
    g_free (dev->done_at);
    g_free (dev->dirty);
    g_free (dev);
  }
}

void
sim_device_heal (struct sim_device *dev)
{
  if (dev->flush_failed)
    sim_lose_cache (dev);
  dev->failing = 0;
  dev->flush_failed = dev->is_unflushed = false;
  dev->dead = false;
  dev->back_at = 0;
  dev->slow_until = 0;
  dev->bdev.offline = dev->bdev.failed = false;
  dev->present = true;
}

void
sim_device_mend (struct sim_device *dev)
{
  uint32_t i;

  for (i = 0; dev->num_bad > 0 && i < dev->sectors; i++)
    if (dev->flags[i] & SIM_BAD) {
      dev->flags[i] &= ~SIM_BAD;
      dev->num_bad--;
    }
}

void
sim_device_blank (struct sim_device *dev)
{
  if (dev->kind == SIM_LEG) {
    memset (dev->stable, 0, dev->sectors * sizeof dev->stable[0]);
    memset (dev->cached, 0, dev->sectors * sizeof dev->cached[0]);
  }
  else
    free_blocks (dev);
  dev->changed = ~UINT64_C (0);
  memset (dev->flags, 0, dev->sectors);
  dev->num_dirty = dev->num_bad = 0;
}

void
sim_save (struct sim_device *dev)
{
  uint32_t i;

  dev->saved = true;
  dev->saved_flags = g_malloc (dev->sectors);
  memcpy (dev->saved_flags, dev->flags, dev->sectors);
  dev->saved_mtime = dev->mtime;
  if (dev->kind == SIM_LEG) {
    dev->saved_values = g_new (sim_value, dev->sectors);
    memcpy (dev->saved_values, dev->cached,
            dev->sectors * sizeof dev->cached[0]);
    return;
  }
  dev->saved_block = g_new0 (unsigned char *, dev->sectors / PER_BLOCK + 1);
  for (i = 0; i <= dev->sectors / PER_BLOCK; i++)
    if (dev->cached_block[i] != NULL) {
      dev->saved_block[i] = g_malloc (SIM_BLOCK);
      memcpy (dev->saved_block[i], dev->cached_block[i], SIM_BLOCK);
    }
}

static void
set_blocks_back (struct sim_device *dev)
{
  uint32_t i;

  for (i = 0; i <= dev->sectors / PER_BLOCK; i++)
    if (dev->saved_block[i] != NULL) {
      memcpy (at (dev->stable_block, i * PER_BLOCK), dev->saved_block[i],
              SIM_BLOCK);
      memcpy (at (dev->cached_block, i * PER_BLOCK), dev->saved_block[i],
              SIM_BLOCK);
    }
}

void
sim_set_back (struct sim_device *dev)
{
  uint32_t i;

  sim_trace ("%s is set back", dev->name);
  sim_device_blank (dev);
  for (i = 0; i < dev->sectors; i++)
    dev->flags[i] = dev->saved_flags[i] & SIM_ALLOCATED;
  if (dev->kind == SIM_COPY)
    set_blocks_back (dev);
  else {
    memcpy (dev->stable, dev->saved_values,
            dev->sectors * sizeof dev->stable[0]);
    memcpy (dev->cached, dev->saved_values,
            dev->sectors * sizeof dev->cached[0]);
  }
  dev->mtime = dev->stable_mtime = dev->saved_mtime;
  dev->mtime_kept = false;
}

void
sim_edited_now (struct sim_device *dev)
{
  dev->mtime = dev->stable_mtime = sim_date ();
  dev->mtime_set_at = sim_now;
  dev->mtime_kept = false;
  dev->edited = true;
}

void
sim_edit (struct sim_device *dev, uint32_t sector, uint32_t count)
{
  uint32_t end = MIN (sector + count, dev->sectors);

  sim_trace ("%s: others write %u+%u", dev->name, sector - dev->start,
             end - sector);
  for (; sector < end; sector++) {
    dev->num_bad -= (dev->flags[sector] & SIM_BAD) != 0;
    dev->flags[sector] &= ~SIM_BAD;
    dev->flags[sector] |= SIM_ALLOCATED;
    dev->cached[sector] = dev->stable[sector] = SIM_FOREIGN + sector;
  }
  sim_edited_now (dev);
}

void
sim_devices_update (void)
{
  struct sim_device *dev;
  unsigned int i;

  for (i = 0; i < sim_num_devices; i++) {
    dev = sim_devices[i];
    if (dev->bdev.offline && !dev->bdev.failed && !dev->dead &&
        dev->back_at <= sim_now)
      dev->bdev.offline = false;
    if (dev->failing != 0 && dev->fail_until <= sim_now)
      dev->failing = 0;
  }
  sim_late_land ();
}

/*----------------------------------------------------------------------
 * Sectors
 */

sim_value
sim_value_of (const void *data)
{
  sim_value value;

  memcpy (&value, data, sizeof value);
  return value;
}

/* SECTOR is of the volume. */
void
sim_encode (void *data, sim_value value, uint32_t sector)
{
  uint32_t word[2] = { value, value == 0 ? 0 : sector };

  if (value == 0)
    memset (data, 0, SECTOR);
  else
    memcpy (data, word, sizeof word);
}

static sim_value
decode (const struct sim_device *dev, uint32_t sector, const void *data)
{
  uint32_t word[2];

  memcpy (word, data, sizeof word);
  if (word[0] != 0 && word[1] != sector - dev->start)
    sim_fail ("data of sector %u is written to sector %u of leg %u", word[1],
              sector - dev->start, dev->number);
  return word[0];
}

static void
mark_dirty (struct sim_device *dev, uint32_t sector)
{
  if (dev->flags[sector] & SIM_DIRTY)
    return;
  dev->flags[sector] |= SIM_DIRTY;
  dev->done_at[sector] = 0;
  dev->dirty[dev->num_dirty++] = sector;
}

/* The cached content becomes stable; it stays in the list. */
static void
write_back (struct sim_device *dev, uint32_t sector)
{
  dev->mtime_kept = true;
  if (dev->kind == SIM_LEG)
    dev->stable[sector] = dev->cached[sector];
  else {
    memcpy (at (dev->stable_block, sector), at (dev->cached_block, sector),
            SECTOR);
    dev->changed |= UINT64_C (1) << MIN (sector / PER_BLOCK, 63);
  }
}

static void
forget (struct sim_device *dev, uint32_t sector)
{
  if (dev->kind == SIM_LEG) {
    dev->cached[sector] = dev->stable[sector];
    if (dev->cached[sector] != 0)
      dev->flags[sector] |= SIM_ALLOCATED;
  }
  else
    memcpy (at (dev->cached_block, sector), at (dev->stable_block, sector),
            SECTOR);
}

/* A sector is about to change in the cache.  As in a kernel, the time of a file is
 * that at which the write began.
 */
static void
touch (struct sim_device *dev, uint32_t sector, uint64_t begun)
{
  if (dev->flags[sector] & SIM_BAD) {
    dev->flags[sector] &= ~SIM_BAD;
    dev->num_bad--;
  }
  /* What the cache held may have been written back any time. */
  if (dev->flags[sector] & SIM_DIRTY &&
      !(dev->flags[sector] & SIM_FORGOTTEN) && sim_chance (&sim_media, 30))
    write_back (dev, sector);
  dev->flags[sector] &= ~SIM_FORGOTTEN;
  mark_dirty (dev, sector);
  if (begun >= dev->mtime_set_at) {
    dev->mtime = sim_date () - (sim_now - begun);
    dev->mtime_set_at = begun;
  }
}

void
sim_write_sector (struct sim_device *dev, uint32_t sector, const void *data,
                  uint64_t begun)
{
  touch (dev, sector, begun);
  if (dev->kind == SIM_LEG)
    dev->cached[sector] = decode (dev, sector, data);
  else
    memcpy (at (dev->cached_block, sector), data, SECTOR);
  dev->flags[sector] |= SIM_ALLOCATED;
}

void
sim_zero_sector (struct sim_device *dev, uint32_t sector, bool unmap,
                 uint64_t begun)
{
  touch (dev, sector, begun);
  if (dev->kind == SIM_LEG)
    dev->cached[sector] = 0;
  else
    memset (at (dev->cached_block, sector), 0, SECTOR);
  if (unmap)
    dev->flags[sector] &= ~SIM_ALLOCATED;
  else
    dev->flags[sector] |= SIM_ALLOCATED;
}

static void
read_values (const struct sim_device *dev, uint32_t sector, uint32_t count,
             unsigned char *data)
{
  for (; count > 0; count--, sector++, data += SECTOR)
    sim_encode (data, dev->cached[sector], sector - dev->start);
}

static void
read_bytes (const struct sim_device *dev, uint32_t sector, uint32_t count,
            unsigned char *data)
{
  const unsigned char *block;
  uint32_t n;

  for (; count > 0; count -= n, sector += n, data += n * SECTOR) {
    n = MIN (count, PER_BLOCK - sector % PER_BLOCK);
    block = dev->cached_block[sector / PER_BLOCK];
    if (block == NULL)
      memset (data, 0, n * SECTOR);
    else
      memcpy (data, block + sector % PER_BLOCK * SECTOR, n * SECTOR);
  }
}

void
sim_read_sectors (struct sim_device *dev, uint32_t sector, uint32_t count,
                  void *data)
{
  if (dev->kind == SIM_LEG)
    read_values (dev, sector, count, data);
  else
    read_bytes (dev, sector, count, data);
}

/*----------------------------------------------------------------------
 * The cache
 */

/* Keep those dirty sectors for which KEEP says so, with those that it does
 * not dealt with.
 */
static void
filter_dirty (struct sim_device *dev,
              bool (*keep) (struct sim_device *, uint32_t, uint32_t),
              uint32_t arg)
{
  uint32_t i, sector, n = 0;

  for (i = 0; i < dev->num_dirty; i++) {
    sector = dev->dirty[i];
    if (keep (dev, sector, arg))
      dev->dirty[n++] = sector;
    else
      dev->flags[sector] &= ~(SIM_DIRTY | SIM_FORGOTTEN);
  }
  dev->num_dirty = n;
}

void
sim_complete (struct sim_device *dev, uint32_t sector, uint32_t count,
              bool fua)
{
  uint32_t i;

  sim_tick++;
  for (i = sector; i < sector + count; i++) {
    if (!(dev->flags[i] & SIM_DIRTY) || dev->flags[i] & SIM_FORGOTTEN)
      continue;
    if (fua || sim_below (&sim_media, 100) < dev->write_back)
      write_back (dev, i);
    if (dev->done_at[i] == 0)
      dev->done_at[i] = sim_tick;
  }
}

static bool
keep_after_flush (struct sim_device *dev, uint32_t sector, uint32_t since)
{
  bool had_completed = dev->done_at[sector] != 0 &&
    dev->done_at[sector] <= since;

  if (dev->flags[sector] & SIM_FORGOTTEN ||
      (!had_completed && sim_chance (&sim_media, 50)))
    return true;
  write_back (dev, sector);
  return false;
}

void
sim_stabilize (struct sim_device *dev, uint32_t since)
{
  filter_dirty (dev, keep_after_flush, since);
  dev->stable_mtime = dev->mtime;
  dev->mtime_kept = false;
}

static bool
keep_after_loss (struct sim_device *dev, uint32_t sector, uint32_t survives)
{
  if (!(dev->flags[sector] & SIM_FORGOTTEN) &&
      sim_below (&sim_media, 100) < survives)
    write_back (dev, sector);
  else
    forget (dev, sector);
  return false;
}

/* Not holes: those a file system keeps in its journal. */
void
sim_forget_dirty (struct sim_device *dev)
{
  uint32_t i;

  for (i = 0; i < dev->num_dirty; i++)
    if (dev->flags[dev->dirty[i]] & SIM_ALLOCATED &&
        sim_chance (&sim_media, 50))
      dev->flags[dev->dirty[i]] |= SIM_FORGOTTEN;
}

void
sim_lose_cache (struct sim_device *dev)
{
  static const unsigned char percent[] = { 0, 0, 20, 50, 80, 100 };

  filter_dirty (dev, keep_after_loss,
                percent[sim_below (&sim_media, sizeof percent)]);
  if (!dev->mtime_kept && sim_chance (&sim_media, 50))
    dev->mtime = dev->stable_mtime;
  dev->stable_mtime = dev->mtime;
  dev->mtime_kept = false;
}

void
sim_disconnect (struct sim_device *dev, uint64_t until)
{
  bool busy = dev->num_dirty > 0;

  sim_trace ("%s: connection lost%s", dev->name,
             busy ? ", with what was not flushed" : "");
  dev->bdev.offline = true;
  dev->back_at = until;
  sim_io_abort (dev, ENOTCONN);
  if (busy || dev->num_dirty > 0 || sim_late_pending (dev)) {
    dev->bdev.failed = true;
    sim_lose_cache (dev);
    sim_cache_lost (dev);
  }
}
