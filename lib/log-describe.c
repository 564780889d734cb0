/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "log-describe.h"
#include "log-private.h"
#include "log-read.h"

const char *
log_state_name (enum dm_log_state state)
{
  static const char *const names[] = {
    [DM_LOG_IN_SYNC] = "in sync",
    [DM_LOG_OUT_OF_SYNC] = "out of sync",
    [DM_LOG_FAILED] = "failed",
  };

  return names[state];
}

/* A description that is being made. */
struct describer {
  const struct io_region *region;
  struct log_description *d;
  struct log_writer writer;
  struct log_geometry g;
  struct log_find find;
  GPtrArray *invalid;
};

static void complain (struct describer *r, const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 2, 3)));

static void
complain (struct describer *r, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  g_ptr_array_add (r->invalid, g_strdup_vprintf (fmt, args));
  va_end (args);
}

static const char *
verdict_name (enum log_verdict verdict)
{
  switch (verdict) {
  case LOG_BLANK: return "empty";
  case LOG_UNKNOWN: return "of a version that is not known";
  default: return "torn or corrupt";
  }
}

static bool
describe_head (struct describer *r, char **error)
{
  const char *name = dm_bdev_name (r->region->bdev);

  switch (r->find.what) {
  case LOG_FIND_VALID:
    return true;
  case LOG_FIND_UNREADABLE:
    *error = g_strdup_printf ("%s: it cannot be read: %s", name,
                              g_strerror (r->find.error));
    break;
  case LOG_FIND_BLANK:
    *error = g_strdup_printf ("%s: it is empty, there is no log in it",
                              name);
    break;
  case LOG_FIND_UNKNOWN:
    *error = g_strdup_printf ("%s: it has format version %" PRIu32 ", but this "
                              "program knows only version %d; use a newer "
                              "program", name, r->find.version, LOG_VERSION);
    break;
  case LOG_FIND_CORRUPT:
    *error = g_strdup_printf ("%s: it is not a copy of a log, or neither of "
                              "its superblocks is valid", name);
    break;
  }
  return false;
}

static void
describe_super (struct describer *r)
{
  const struct log_super *super = &r->find.super;
  struct log_description *d = r->d;
  unsigned int i;

  log_uuid_string (super->uuid, d->uuid);
  d->version = LOG_VERSION;
  d->generation = super->generation;
  d->sequence = super->sequence;
  d->epoch = super->epoch;
  d->volume = super->volume;
  d->chunk = super->chunk;
  d->chunks = r->g.chunks;
  d->copy = r->find.labelled ? (int) r->find.number : -1;
  d->copies = super->copies;
  d->num_legs = super->num_legs;
  for (i = 0; i < super->num_legs; i++) {
    d->legs[i].state = super->legs[i].state;
    d->legs[i].sectors = super->legs[i].sectors;
    d->legs[i].stamp = super->legs[i].stamp;
    d->legs[i].until = super->legs[i].until;
  }
  for (i = 0; i < 2; i++)       /* the second is not there at first */
    if (r->find.supers[i] != LOG_VALID && r->find.supers[i] != LOG_BLANK)
      complain (r, "superblock %u: %s", i, verdict_name (r->find.supers[i]));
  if (!r->find.labelled)
    complain (r, "label: %s", verdict_name (r->find.label));
}

/* How many bits of a block are set; if it is not valid, all. */
static uint64_t
count_block (struct describer *r, struct log_place place,
             enum log_verdict verdict, const uint64_t *words)
{
  uint64_t first = (uint64_t) place.index * LOG_BLOCK_BITS;

  if (verdict == LOG_VALID)
    return log_count_bits (words, LOG_BLOCK_WORDS);
  if (place.type == LOG_DIRTY)
    complain (r, "bitmap of dirty chunks, block %u: %s, all are dirty",
              place.index, verdict_name (verdict));
  else
    complain (r, "bitmap of what region %u lacks, block %u: %s, it lacks all",
              place.slot, place.index, verdict_name (verdict));
  return MIN (r->g.chunks - first, LOG_BLOCK_BITS);
}

static void
describe_block (struct describer *r, unsigned int block, const void *data)
{
  struct log_place place = log_place (&r->g, block);
  struct log_leg_description *leg = &r->d->legs[place.slot];
  uint64_t words[LOG_BLOCK_WORDS], sequence, count;
  enum log_verdict verdict;

  if (place.type == LOG_LEG) {
    leg->id = log_decode_leg (data, r->find.super.uuid, place.slot, &sequence,
                              r->writer.checksum);
    if (leg->id == NULL)
      complain (r, "name of region %u: torn or corrupt", place.slot);
    return;
  }
  verdict = log_decode_map (data, r->find.super.uuid, place, words, &sequence,
                            r->writer.checksum);
  count = count_block (r, place, verdict, words);
  if (place.type == LOG_DIRTY)
    r->d->dirty += count;
  else if (leg->state != DM_LOG_IN_SYNC)
    leg->lacking += count;
}

static void
describe_blocks (struct describer *r)
{
  unsigned int n = log_used_blocks (&r->g, r->find.super.num_legs), block;
  int error;

  for (block = LOG_DIRTY_AT; block < n; block++) {
    error = log_read_blocks (r->region, block, 1, r->writer.buffer);
    if (error != 0) {
      complain (r, "block %u cannot be read: %s", block, g_strerror (error));
      memset (r->writer.buffer, 0, LOG_BLOCK);
    }
    describe_block (r, block, r->writer.buffer);
  }
}

bool
log_describe (const struct io_region *region, struct log_description *d,
              char **error)
{
  struct describer r = { .region = region, .d = d };
  bool ok = false;

  memset (d, 0, sizeof *d);
  *error = NULL;
  r.invalid = g_ptr_array_new ();
  if (!log_writer_init (&r.writer))
    *error = g_strdup ("not enough memory to read a log");
  else {
    log_find_copy (region, r.writer.buffer, r.writer.checksum, &r.find);
    ok = describe_head (&r, error);
  }
  if (ok) {
    log_geometry_init (&r.g, r.find.super.volume, r.find.super.chunk);
    describe_super (&r);
    describe_blocks (&r);
    log_read_where (&r.g, r.find.super.uuid, region, &r.writer, d->places);
  }
  log_writer_fini (&r.writer);
  g_ptr_array_add (r.invalid, NULL);
  d->invalid = (char **) g_ptr_array_free (r.invalid, FALSE);
  if (!ok)
    log_description_clear (d);
  return ok;
}

void
log_description_clear (struct log_description *d)
{
  unsigned int i;

  for (i = 0; i < d->num_legs; i++)
    g_free (d->legs[i].id);
  for (i = 0; i < G_N_ELEMENTS (d->places); i++)
    g_free (d->places[i]);
  g_strfreev (d->invalid);
  memset (d, 0, sizeof *d);
}
