/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The memory of a log, and what it says when it is asked.  All that commits
 * need is allocated here, in advance: a write must not fail, or wait, for
 * memory.  (What GLib allocates for a checksum are some bytes.)
 */

#include <config.h>

#include <stdlib.h>
#include <stdarg.h>
#include <string.h>

#include "log-private.h"

void
log_refuse (char **error, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  *error = g_strdup_vprintf (fmt, args);
  va_end (args);
}

static bool
alloc_words (uint64_t **words, size_t n)
{
  *words = g_try_new0 (uint64_t, n);
  return *words != NULL;
}

bool
log_map_init (struct dm_log *log, struct log_map *map)
{
  bool ok = alloc_words (&map->wanted, log->g.map_words);

  ok = ok && alloc_words (&map->disk, log->g.map_words);
  ok = ok && alloc_words (&map->staged, log->g.map_words);
  ok = ok && alloc_words (&map->doubtful, log->g.map_words);
  if (!ok)
    log_map_fini (map);
  return ok;
}

void
log_map_fini (struct log_map *map)
{
  g_free (map->wanted);
  g_free (map->disk);
  g_free (map->staged);
  g_free (map->doubtful);
  memset (map, 0, sizeof *map);
}

bool
log_writer_init (struct log_writer *writer)
{
  void *buffer;

  writer->checksum = g_checksum_new (G_CHECKSUM_SHA256);
  if (posix_memalign (&buffer, LOG_BLOCK,
                      LOG_BUFFER_BLOCKS * LOG_BLOCK) != 0)
    return false;
  writer->buffer = buffer;
  return true;
}

void
log_writer_fini (struct log_writer *writer)
{
  if (writer->checksum != NULL)
    g_checksum_free (writer->checksum);
  free (writer->buffer);
}

struct dm_log *
log_alloc (const struct log_geometry *g, const unsigned char *uuid)
{
  struct dm_log *log = g_new0 (struct dm_log, 1);
  bool ok;

  log->g = *g;
  memcpy (log->uuid, uuid, LOG_UUID);
  memcpy (log->super.uuid, uuid, LOG_UUID);
  log->super.volume = g->volume;
  log->super.chunk = g->chunk;
  log_uuid_string (uuid, log->uuid_string);
  log->block_words = (g->blocks + 63) / 64;
  pthread_mutex_init (&log->lock, NULL);
  pthread_cond_init (&log->progress, NULL);

  ok = log_map_init (log, &log->dirty) && log_writer_init (&log->writer);
  ok = ok && alloc_words (&log->touched, g->map_words);
  ok = ok && alloc_words (&log->chosen, g->map_words);
  ok = ok && alloc_words (&log->unreconciled, g->map_words);
  ok = ok && alloc_words (&log->sets, log->block_words);
  ok = ok && alloc_words (&log->clears, log->block_words);
  ok = ok && alloc_words (&log->missed, log->block_words);
  ok = ok && alloc_words (&log->set_blocks, log->block_words);
  ok = ok && alloc_words (&log->clear_blocks, log->block_words);
  log->in_flight = g_try_new0 (uint16_t, g->chunks);
  log->differs = g_try_new0 (uint16_t, g->chunks);
  if (ok && log->in_flight != NULL && log->differs != NULL)
    return log;
  dm_log_free (log);
  return NULL;
}

void
dm_log_free (struct dm_log *log)
{
  unsigned int i;

  if (log == NULL)
    return;
  for (i = 0; i < LOG_MAX_LEGS; i++) {
    g_free (log->legs[i].id);
    log_map_fini (&log->lacking[i]);
  }
  for (i = 0; i < log->num_copies; i++) {
    g_free (log->copies[i].name);
    g_free (log->copies[i].place);
    g_free (log->copies[i].leg);
  }
  for (i = 0; i < LOG_MAX_COPIES; i++)
    g_free (log->places[i]);
  log_map_fini (&log->dirty);
  log_writer_fini (&log->writer);
  g_free (log->touched);
  g_free (log->chosen);
  g_free (log->unreconciled);
  g_free (log->sets);
  g_free (log->clears);
  g_free (log->missed);
  g_free (log->set_blocks);
  g_free (log->clear_blocks);
  g_free (log->in_flight);
  g_free (log->differs);
  pthread_mutex_destroy (&log->lock);
  pthread_cond_destroy (&log->progress);
  g_free (log);
}

struct log_map *
log_map_at (struct dm_log *log, unsigned int block, unsigned int *word)
{
  struct log_place place = log_place (&log->g, block);

  *word = place.index * LOG_BLOCK_WORDS;
  if (place.type == LOG_DIRTY)
    return &log->dirty;
  return place.type == LOG_LACKING ? &log->lacking[place.slot] : NULL;
}

unsigned int
log_block_of (const struct dm_log *log, const struct log_map *map,
              uint64_t bit)
{
  unsigned int index = bit / LOG_BLOCK_BITS;

  if (map == &log->dirty)
    return LOG_DIRTY_AT + index;
  return log_leg_at (&log->g, map - log->lacking) + 1 + index;
}

static unsigned int
free_number (const struct dm_log *log)
{
  uint64_t used = 0;
  unsigned int i;

  for (i = 0; i < log->num_copies; i++)
    used |= UINT64_C (1) << log->copies[i].number;
  return __builtin_ctzll (~used);
}

struct log_copy *
log_new_copy (struct dm_log *log, const struct dm_log_copy *copy)
{
  struct log_copy *c = &log->copies[log->num_copies];

  c->number = free_number (log);
  c->region = copy->region;
  c->name = g_strdup (copy->name);
  if (copy->place != NULL && strlen (copy->place) <= DM_LOG_MAX_ID)
    c->place = g_strdup (copy->place);
  c->leg = g_strdup (copy->leg);
  c->too_small = copy->region.count <
    (sector_t) log->g.blocks * LOG_BLOCK_SECTORS;
  c->newest = 1;
  c->superseded = true;
  log->num_copies++;
  return c;
}

void
log_new_leg (struct dm_log *log, const char *id,
             const struct log_super_leg *info)
{
  struct log_leg *leg = &log->legs[log->num_legs++];

  leg->id = g_strdup (id);
  leg->info = *info;
}

/*----------------------------------------------------------------------
 * What is known
 */

sector_t
dm_log_volume (const struct dm_log *log)
{
  return log->g.volume;
}

sector_t
dm_log_chunk (const struct dm_log *log)
{
  return log->g.chunk;
}

const char *
dm_log_uuid (const struct dm_log *log)
{
  return log->uuid_string;
}

unsigned int
dm_log_num_legs (struct dm_log *log)
{
  unsigned int n;

  pthread_mutex_lock (&log->lock);
  n = log->num_legs;
  pthread_mutex_unlock (&log->lock);
  return n;
}

void
dm_log_get_leg (struct dm_log *log, unsigned int leg,
                struct dm_log_leg *info)
{
  const struct log_leg *l = &log->legs[leg];

  pthread_mutex_lock (&log->lock);
  *info = (struct dm_log_leg) {
    .id = l->id, .state = l->info.state, .sectors = l->info.sectors,
    .stamp = l->info.stamp, .until = l->info.until,
  };
  pthread_mutex_unlock (&log->lock);
}

uint64_t
dm_log_next_dirty (struct dm_log *log, uint64_t first)
{
  pthread_mutex_lock (&log->lock);
  first = log_next_bit (log->dirty.wanted, first, log->g.chunks);
  pthread_mutex_unlock (&log->lock);
  return first;
}

bool
dm_log_is_dirty (struct dm_log *log)
{
  return dm_log_next_dirty (log, 0) < log->g.chunks;
}

unsigned int
dm_log_copies (struct dm_log *log, unsigned int *all)
{
  unsigned int n;

  pthread_mutex_lock (&log->lock);
  n = __builtin_popcountl (log->current);
  *all = log->num_copies;
  pthread_mutex_unlock (&log->lock);
  return n;
}
