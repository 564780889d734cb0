/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Where the copies of the log are, which is for people only: it is written
 * beside the commits, and if it cannot be written or read it is not known.
 *
 * Threads: the places, and which copies there are, do not change after
 * dm_log_start.
 */

#include <config.h>

#include <string.h>

#include "log-private.h"
#include "log-read.h"

/* The blocks of a copy that is too short end before these. */
static bool
has_room (const struct log_geometry *g, const struct io_region *region)
{
  return region->count >=
    (sector_t) log_where_at (g, LOG_MAX_COPIES) * LOG_BLOCK_SECTORS;
}

/* Read those from FIRST on into the buffer; what cannot be read is zero. */
static void
read_run (const struct log_geometry *g, const struct io_region *region,
          const struct log_writer *writer, unsigned int first)
{
  if (log_read_blocks (region, log_where_at (g, first), LOG_BUFFER_BLOCKS,
                       writer->buffer) != 0)
    memset (writer->buffer, 0, LOG_BUFFER_BLOCKS * LOG_BLOCK);
}

G_STATIC_ASSERT (LOG_MAX_COPIES % LOG_BUFFER_BLOCKS == 0);

void
log_read_where (const struct log_geometry *g, const unsigned char *uuid,
                const struct io_region *region,
                const struct log_writer *writer, char *places[LOG_MAX_COPIES])
{
  unsigned int i, at;

  if (!has_room (g, region))
    return;
  for (i = 0; i < LOG_MAX_COPIES; i++) {
    at = i % LOG_BUFFER_BLOCKS;
    if (at == 0)
      read_run (g, region, writer, i);
    if (places[i] == NULL)
      places[i] = log_decode_where (writer->buffer + at * LOG_BLOCK, uuid, i,
                                    writer->checksum);
  }
}

/* A number may have been that of another copy before. */
static const char *
place_of (const struct dm_log *log, unsigned int number)
{
  unsigned int i;

  for (i = 0; i < log->num_copies; i++)
    if (log->copies[i].number == number)
      return log->copies[i].place;
  return log->places[number];
}

/* BLOCK is what is there, and is overwritten. */
static void
write_one (struct dm_log *log, const struct io_region *region,
           const struct log_writer *writer, unsigned int number, void *block)
{
  const struct io_region where = {
    .bdev = region->bdev,
    .sector = region->sector +
      (sector_t) log_where_at (&log->g, number) * LOG_BLOCK_SECTORS,
    .count = LOG_BLOCK_SECTORS,
  };
  const struct dm_io_request request = {
    .op = DM_IO_WRITE,
    .mem = { .type = DM_IO_VM, .length = LOG_BLOCK, .ptr.vm = block },
  };
  const char *place = place_of (log, number);
  g_autofree char *known = log_decode_where (block, log->uuid, number,
                                             writer->checksum);

  if (g_strcmp0 (known, place) == 0)
    return;
  log_encode_where (block, log->uuid, number, place != NULL ? place : "",
                    writer->checksum);
  dm_io (&request, 1, &where, NULL);
}

static void
write_all (struct dm_log *log, const struct io_region *region,
           const struct log_writer *writer)
{
  unsigned int i, at;

  for (i = 0; i < LOG_MAX_COPIES; i++) {
    at = i % LOG_BUFFER_BLOCKS;
    if (at == 0)
      read_run (&log->g, region, writer, i);
    write_one (log, region, writer, i, writer->buffer + at * LOG_BLOCK);
  }
}

void
log_write_where (struct dm_log *log, const struct log_writer *writer,
                 unsigned long copies)
{
  const struct io_region *region;

  for (; copies != 0; copies &= copies - 1) {
    region = &log->copies[__builtin_ctzl (copies)].region;
    if (has_room (&log->g, region))
      write_all (log, region, writer);
  }
}

char *
dm_log_missing_copies (const struct dm_log *log)
{
  GString *names = g_string_new (NULL);
  uint64_t left = log->unaccounted;
  unsigned int i;

  for (; left != 0; left &= left - 1) {
    i = __builtin_ctzll (left);
    g_string_append (names, names->len > 0 ? ", " : "");
    if (log->places[i] != NULL)
      g_string_append (names, log->places[i]);
    else
      g_string_append_printf (names, "copy number %u", i);
  }
  return g_string_free (names, names->len == 0);
}

void
dm_log_get_copy (struct dm_log *log, unsigned int i,
                 struct dm_log_copy_status *status)
{
  const struct log_copy *copy = &log->copies[i];

  pthread_mutex_lock (&log->lock);
  *status = (struct dm_log_copy_status) {
    .number = copy->number, .place = copy->place,
    .in_use = log->current & 1UL << i,
  };
  pthread_mutex_unlock (&log->lock);
}
