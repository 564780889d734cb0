/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Logs of new mirrors, and their sizes. */

#include <config.h>

#include <inttypes.h>
#include <string.h>

#include <glib.h>

#include "log-private.h"

/*----------------------------------------------------------------------
 * Sizes
 */

sector_t
dm_log_default_chunk (sector_t volume)
{
  sector_t chunk = DM_LOG_DEFAULT_MIN_CHUNK;

  while (chunk < DM_LOG_MAX_CHUNK && chunk * DM_LOG_DEFAULT_CHUNKS < volume)
    chunk *= 2;
  return chunk;
}

sector_t
dm_log_copy_sectors (sector_t volume, sector_t chunk)
{
  struct log_geometry g;

  if (!log_geometry_init (&g, volume, chunk))
    return 0;
  return (sector_t) g.blocks * LOG_BLOCK_SECTORS;
}

sector_t
dm_log_new_copy_sectors (sector_t volume, sector_t chunk)
{
  struct log_geometry g;

  if (!log_geometry_init (&g, volume, chunk))
    return 0;
  return (sector_t) log_where_at (&g, LOG_MAX_COPIES) * LOG_BLOCK_SECTORS;
}

/*----------------------------------------------------------------------
 * A new log
 */

static void
random_uuid (unsigned char uuid[LOG_UUID])
{
  uint64_t random[2] = { log_random (), log_random () };

  memcpy (uuid, random, LOG_UUID);
  uuid[6] = (uuid[6] & 0x0f) | 0x40; /* version 4 */
  uuid[8] = (uuid[8] & 0x3f) | 0x80;
}

static bool
new_legs (struct dm_log *log, unsigned int num_legs,
          const struct dm_log_leg *legs)
{
  struct log_super_leg info;
  struct log_map *map;
  unsigned int i;

  for (i = 0; i < num_legs; i++) {
    info = (struct log_super_leg) {
      .state = legs[i].state, .sectors = legs[i].sectors,
      .stamp = legs[i].stamp, .until = legs[i].until,
    };
    log_new_leg (log, legs[i].id, &info);
    map = &log->lacking[i];
    if (!log_map_init (log, map))
      return false;
    if (info.state == DM_LOG_IN_SYNC)
      continue;
    log_fill_bits (map->wanted, log->g.chunks);
    log_fill_bits (map->staged, log->g.chunks);
    log_fill_bits (map->disk, log->g.chunks);
  }
  return true;
}

/* All copies, or none. */
static bool
write_new (struct dm_log *log, char **error)
{
  unsigned long all = ~0UL >> (LOG_MAX_COPIES - log->num_copies), used;

  pthread_mutex_lock (&log->lock);
  used = log_bring_in (log, all, LOG_LABEL_NEW);
  pthread_mutex_unlock (&log->lock);
  if (used == all) {
    log_put_labels (log, all);  /* no longer one that is being made */
    return true;
  }
  log_erase (log, &log->writer, used);
  log_refuse (error, "log copy %s: it cannot be written, so the new log was not "
              "made; leave it out, or mend what the warning before says",
              log->copies[__builtin_ctzl (all & ~used)].name);
  return false;
}

static bool
check_new (unsigned int num_copies, const struct dm_log_copy *copies,
           const struct log_geometry *g, unsigned int num_legs,
           const struct dm_log_leg *legs, char **error)
{
  const sector_t needed = (sector_t) g->blocks * LOG_BLOCK_SECTORS;
  unsigned int i;

  if (num_copies == 0 || num_copies > LOG_MAX_COPIES) {
    log_refuse (error, "a log has 1 to %d copies, not %u", LOG_MAX_COPIES,
                num_copies);
    return false;
  }
  if (num_legs == 0 || num_legs > LOG_MAX_LEGS) {
    log_refuse (error, "a mirror has 1 to %d regions, not %u", LOG_MAX_LEGS,
                num_legs);
    return false;
  }
  for (i = 0; i < num_copies; i++)
    if (copies[i].region.count < needed) {
      log_refuse (error, "log copy %s: it has %" PRIu64 " sectors, but %" PRIu64
                  " are needed; give it more room or choose larger chunks",
                  copies[i].name, copies[i].region.count, needed);
      return false;
    }
  for (i = 0; i < num_legs; i++)
    if (strlen (legs[i].id) > DM_LOG_MAX_ID) {
      log_refuse (error, "region %u (%s): the name is longer than the %d bytes "
                  "that the log has for it; use a shorter one", i, legs[i].id,
                  DM_LOG_MAX_ID);
      return false;
    }
  return true;
}

struct dm_log *
dm_log_new (unsigned int num_copies, const struct dm_log_copy *copies,
            sector_t volume, sector_t chunk, unsigned int num_legs,
            const struct dm_log_leg *legs, char **error)
{
  unsigned char uuid[LOG_UUID];
  struct log_geometry g;
  struct dm_log *log;
  unsigned int i;

  *error = NULL;
  if (!log_geometry_init (&g, volume, chunk)) {
    log_refuse (error, "a volume of %" PRIu64 " sectors cannot have chunks of "
                "%" PRIu64 ": use a power of two from %d to %" PRIu64 " of which "
                "the volume has at most %" PRIu64, volume, chunk,
                DM_LOG_MIN_CHUNK, DM_LOG_MAX_CHUNK, DM_LOG_MAX_CHUNKS);
    return NULL;
  }
  if (!check_new (num_copies, copies, &g, num_legs, legs, error))
    return NULL;

  random_uuid (uuid);
  log = log_alloc (&g, uuid);
  if (log == NULL)
    goto no_memory;
  for (i = 0; i < num_copies; i++)
    log_new_copy (log, &copies[i]);
  if (!new_legs (log, num_legs, legs))
    goto no_memory;
  log->super.generation = 1;
  log->super.epoch = log_random ();
  log->super_wanted++;
  if (write_new (log, error))
    return log;
  dm_log_free (log);
  return NULL;

 no_memory:
  log_refuse (error, "not enough memory for the log; choose larger chunks");
  dm_log_free (log);
  return NULL;
}
