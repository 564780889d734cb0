/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What is made of the copies of a log at start.
 *
 * The newest valid superblock rules, by generation and then sequence (S2).
 * Copies of its epoch are current: they have had every commit that
 * counted, and perhaps a part of one more, so their bitmaps are or-ed.
 * Where none of them has a valid block, all its bits are set (S3).
 *
 * Copies of an epoch in the ruling one's history are outdated.  A copy of any other
 * epoch has gone on by itself without the ruling one's knowing: which of them is
 * right cannot be told, unless one has changed nothing since (log-epochs.c).
 *
 * If the last server has not ended in order, what it sent to an NBD server may still be
 * written there, over what is newer (S5).  Copies where that can be are not used, and
 * written anew when the time is over in which it can be; if there are no others the
 * start waits for that, and reads them again.
 */

#include <config.h>

#include <inttypes.h>
#include <string.h>

#include <glib.h>

#include "clock.h"
#include "log-private.h"
#include "log-read.h"

/*----------------------------------------------------------------------
 * The copies that are there
 */

/* What is found, one for each copy. */
struct finds {
  unsigned int n;
  const struct dm_log_copy *copies;
  struct log_find *find;
  struct log_find *ruling;
  bool disorderly;              /* the end of the last server */
  struct log_writer writer;     /* a buffer to read into */
  char **error;
};

static const char *
name_of (const struct finds *f, const struct log_find *find)
{
  return f->copies[find - f->find].name;
}

/* Copies without which it would go on are only worth a warning. */
static bool
judge_invalid (struct finds *f)
{
  struct log_find *find;

  for (find = f->find; find < f->find + f->n; find++)
    if (find->what == LOG_FIND_UNREADABLE)
      g_warning ("log copy %s: it cannot be read: %s; it is not used until it "
                 "can be written", name_of (f, find),
                 g_strerror (find->error));
    else if (find->what == LOG_FIND_CORRUPT)
      g_warning ("log copy %s: it has no valid superblock; it will be written "
                 "anew", name_of (f, find));
  return true;
}

/* There is no valid copy.  False, and no error if all are blank. */
static bool
judge_none (struct finds *f)
{
  struct log_find *find;

  for (find = f->find; find < f->find + f->n; find++) {
    if (find->what == LOG_FIND_UNREADABLE)
      log_refuse (f->error, "log copy %s: it cannot be read: %s; name a copy of "
                  "the log that can", name_of (f, find),
                  g_strerror (find->error));
    else if (find->what == LOG_FIND_CORRUPT)
      log_refuse (f->error, "log copy %s: it has no valid superblock and is not "
                  "empty; name a valid copy of the log or, if there is none, "
                  "remove this one and make a new mirror with init=",
                  name_of (f, find));
    if (*f->error != NULL)
      break;
  }
  return false;
}

static int
compare_supers (const struct log_super *a, const struct log_super *b)
{
  if (a->generation != b->generation)
    return a->generation < b->generation ? -1 : 1;
  if (a->sequence != b->sequence)
    return a->sequence < b->sequence ? -1 : 1;
  return 0;
}

/* One that knows no more than the other does not rule, although it may have been used
 * later.
 */
static bool
rules_over (const struct log_super *a, const struct log_super *b)
{
  bool no_more = log_knows_no_more (a, b);

  return no_more == log_knows_no_more (b, a) ? compare_supers (a, b) > 0 :
    !no_more;
}

static bool
find_ruling (struct finds *f)
{
  struct log_find *find;

  for (find = f->find; find < f->find + f->n; find++) {
    if (find->what == LOG_FIND_UNKNOWN) {
      log_refuse (f->error, "log copy %s: it has format version %" PRIu32 ", but "
                  "this program knows only version %d; use a newer program",
                  name_of (f, find), find->version, LOG_VERSION);
      return false;
    }
    if (find->what == LOG_FIND_VALID &&
        (f->ruling == NULL ||
         rules_over (&find->super, &f->ruling->super)))
      f->ruling = find;
  }
  return f->ruling != NULL ? judge_invalid (f) : judge_none (f);
}

/* Copies of other mirrors are not touched. */
static bool
check_same_log (struct finds *f, const struct log_find *find)
{
  const struct log_super *a = &find->super, *b = &f->ruling->super;
  char uuid[LOG_UUID_STRING], ruling[LOG_UUID_STRING];

  if (memcmp (a->uuid, b->uuid, LOG_UUID) != 0) {
    log_uuid_string (a->uuid, uuid);
    log_uuid_string (b->uuid, ruling);
    log_refuse (f->error, "log copies %s and %s are of different mirrors, %s and "
                "%s; leave out or remove the one that does not belong here",
                name_of (f, find), name_of (f, f->ruling), uuid, ruling);
    return false;
  }
  if (a->volume != b->volume || a->chunk != b->chunk) {
    log_refuse (f->error, "log copies %s and %s are of one mirror, but say "
                "different things of the volume: %" PRIu64 " and %" PRIu64
                " sectors in chunks of %" PRIu64 " and %" PRIu64 "; remove the "
                "wrong one", name_of (f, find), name_of (f, f->ruling),
                a->volume, b->volume, a->chunk, b->chunk);
    return false;
  }
  return true;
}

enum relation { CURRENT, OUTDATED, SET_BACK, ESTRANGED, TOO_OLD };

/* Copies in use get each superblock all at once, and the next one when all have it. */
#define MOST_BEHIND 1

static enum relation
relate (const struct log_super *super, const struct log_super *ruling)
{
  if (super->epoch == ruling->epoch)
    return ruling->sequence - super->sequence > MOST_BEHIND ? SET_BACK :
      CURRENT;
  if (log_knows_no_more (super, ruling))
    return OUTDATED;
  /* What is not in a full history may have been forgotten. */
  return ruling->num_history == LOG_HISTORY &&
    ruling->generation > super->generation + LOG_HISTORY ? TOO_OLD :
    ESTRANGED;
}

static bool
check_relation (struct finds *f, struct log_find *find)
{
  switch (relate (&find->super, &f->ruling->super)) {
  case CURRENT:
    find->current = true;
    return true;
  case OUTDATED:
    return true;
  case SET_BACK:
    find->set_back = true;
    g_warning ("log copy %s: was set back to an older state while nobody used "
               "it: it is not believed", name_of (f, find));
    return true;
  case ESTRANGED:
    log_refuse (f->error, "log copies %s and %s contradict each other: the mirror "
                "was used with only the one and then with only the other "
                "(split brain), so each lacks what the other has; decide which "
                "is right, move the other copy away, and leave out a region that "
                "was used with that one alone ('dmioctl add --overwrite' takes it "
                "back when the mirror runs)", name_of (f, find),
                name_of (f, f->ruling));
    return false;
  default:
    log_refuse (f->error, "log copy %s is so much older than %s that it cannot be "
                "told if it knows something that the other does not; if it does "
                "not, remove it", name_of (f, find), name_of (f, f->ruling));
    return false;
  }
}

/* One copy that was copied to another file: only one can be in use. */
static void
find_twins (struct finds *f)
{
  struct log_find *a, *b;

  for (a = f->find; a < f->find + f->n; a++)
    for (b = f->find; b < a; b++)
      if (a->current && b->current && a->labelled && b->labelled &&
          a->number == b->number) {
        if (compare_supers (&a->super, &b->super) > 0)
          b->current = false;
        else
          a->current = false;
      }
}

static bool
judge (struct finds *f)
{
  struct log_find *find;

  if (!find_ruling (f))
    return false;
  for (find = f->find; find < f->find + f->n; find++)
    if (find->what == LOG_FIND_VALID &&
        (!check_same_log (f, find) || !check_relation (f, find)))
      return false;
  find_twins (f);
  return true;
}

/*----------------------------------------------------------------------
 * Copies in doubt
 */

static const struct block_device *
device_of (const struct finds *f, const struct log_find *find)
{
  return f->copies[find - f->find].region.bdev;
}

/* Was it written beside a valid superblock, and torn? */
static bool
is_torn (const struct log_find *find)
{
  return find->supers[!find->newest] == LOG_INVALID;
}

/* Has the last server ended in order, say all that it told last?  What is torn may be of
 * another one since, and what that has sent may still be written.
 */
static bool
ended_in_order (const struct finds *f)
{
  const struct log_find *find;

  for (find = f->find; find < f->find + f->n; find++)
    if (find->current && (!find->super.orderly || is_torn (find)))
      return false;
  return true;
}

/* For how long, in nsec, there is nothing to be believed; 0 if some copy can be used. */
static uint64_t
doubt (struct finds *f)
{
  struct log_find *find;
  uint64_t longest = 0;
  bool any = false;

  f->disorderly = !ended_in_order (f);
  if (!f->disorderly)
    return 0;
  for (find = f->find; find < f->find + f->n; find++) {
    find->doubtful = device_of (f, find)->late > 0;
    any = any || (find->current && !find->doubtful);
    if (find->doubtful)
      longest = MAX (longest, device_of (f, find)->late);
  }
  return any ? 0 : longest;
}

static void
leave_out_doubtful (struct finds *f)
{
  struct log_find *find;

  for (find = f->find; find < f->find + f->n; find++)
    if (find->doubtful && find->current) {
      find->current = false;
      g_warning ("log copy %s: writes from before the crash may still reach it: "
                 "it is used again in %" PRIu64 " s", name_of (f, find),
                 device_of (f, find)->late / NSEC_PER_SEC);
    }
}

/* Is there no trace of a copy that was in use? */
static bool
has_not_seen_all (const struct finds *f)
{
  uint64_t unseen = f->ruling->super.copies;
  const struct log_find *find;

  for (find = f->find; find < f->find + f->n; find++)
    if (find->what == LOG_FIND_VALID)
      unseen &= ~(UINT64_C (1) << find->number);
  return unseen != 0;
}

/*----------------------------------------------------------------------
 * Their blocks
 */

/* What the copies have said of each block so far. */
struct merge {
  struct dm_log *log;
  uint64_t *seen;               /* blocks that were valid on some copy */
  uint64_t *differs;            /* not alike, or not valid, on another */
  uint64_t newest;              /* sequence of a block */
  GChecksum *checksum;
  bool first, ids_only;
};

static void
merge_leg (struct merge *m, unsigned int block, unsigned int leg,
           const void *data)
{
  uint64_t sequence;
  char *id = log_decode_leg (data, m->log->uuid, leg, &sequence, m->checksum);

  if (id == NULL) {
    log_flag_block (m->differs, block);
    return;
  }
  if (!m->ids_only)
    m->newest = MAX (m->newest, sequence);
  if (m->log->legs[leg].id == NULL)
    m->log->legs[leg].id = id;
  else
    g_free (id);
}

/* DATA is NULL if it could not be read. */
static void
merge_block (struct merge *m, unsigned int block, const void *data)
{
  struct log_place place = log_place (&m->log->g, block);
  uint64_t words[LOG_BLOCK_WORDS], sequence;
  struct log_map *map;
  unsigned int word;

  map = log_map_at (m->log, block, &word);
  if (map == NULL && data != NULL && place.type == LOG_LEG) {
    merge_leg (m, block, place.slot, data);
    return;
  }
  if (map == NULL || m->ids_only)
    return;
  if (data == NULL ||
      log_decode_map (data, m->log->uuid, place, words, &sequence,
                      m->checksum) != LOG_VALID) {
    log_flag_block (m->differs, block);
    return;
  }
  m->newest = MAX (m->newest, sequence);
  if (!m->first && memcmp (map->disk + word, words, sizeof words) != 0)
    log_flag_block (m->differs, block);
  for (unsigned int i = 0; i < LOG_BLOCK_WORDS; i++)
    map->disk[word + i] |= words[i];
  log_flag_block (m->seen, block);
}

static void
merge_copy (struct merge *m, const struct io_region *region,
            unsigned char *buffer)
{
  unsigned int n = log_used_blocks (&m->log->g, m->log->num_legs);
  unsigned int block, i, run;

  for (block = LOG_DIRTY_AT; block < n; block += run) {
    run = MIN (n - block, LOG_BUFFER_BLOCKS);
    if (log_read_blocks (region, block, run, buffer) == 0) {
      for (i = 0; i < run; i++)
        merge_block (m, block + i, buffer + i * LOG_BLOCK);
      continue;
    }
    for (i = 0; i < run; i++)
      merge_block (m, block + i,
                   log_read_blocks (region, block + i, 1, buffer) == 0 ?
                   buffer : NULL);
  }
  m->first = false;
}

/* What no copy says is dirty, or lacking. */
static void
set_unseen (struct merge *m)
{
  unsigned int n = log_used_blocks (&m->log->g, m->log->num_legs);
  unsigned int block, word;
  struct log_map *map;
  uint64_t bit, end;

  for (block = LOG_DIRTY_AT; block < n; block++) {
    map = log_map_at (m->log, block, &word);
    if (map == NULL || log_test_bit (m->seen, block))
      continue;
    log_flag_block (m->differs, block);
    end = MIN ((uint64_t) word * 64 + LOG_BLOCK_BITS, m->log->g.chunks);
    for (bit = (uint64_t) word * 64; bit < end; bit += 64)
      map->disk[bit / 64] |= log_bits (bit, end);
  }
}

static bool
merge_copies (struct finds *f, struct dm_log *log)
{
  struct merge m = { .log = log, .first = true,
                     .checksum = f->writer.checksum, .differs = log->sets };
  g_autofree uint64_t *seen = g_new0 (uint64_t, log->block_words);
  unsigned int i;

  m.seen = seen;
  for (i = 0; i < f->n; i++)
    if (f->find[i].current)
      merge_copy (&m, &f->copies[i].region, f->writer.buffer);
  set_unseen (&m);
  if (m.newest > f->ruling->super.sequence) {
    log_refuse (f->error, "log copy %s: its newest superblock is damaged: number "
                "%" PRIu64 " has been there, but %" PRIu64 " is the newest that "
                "is valid; name a copy that has it or, if there is none, "
                "make a new mirror: remove the log, find out which region is "
                "right, name it first and use init=sync",
                name_of (f, f->ruling), m.newest, f->ruling->super.sequence);
    return false;
  }

  /* The name of a leg never changes, so outdated copies know it as well. */
  m.ids_only = true;
  for (i = 0; i < f->n; i++)
    if (f->find[i].what == LOG_FIND_VALID && !f->find[i].current)
      merge_copy (&m, &f->copies[i].region, f->writer.buffer);
  for (i = 0; i < log->num_legs; i++)
    if (log->legs[i].id == NULL) {
      log_refuse (f->error, "log copy %s: the block with the name of region %u is "
                  "damaged; name another copy, too, or make a new mirror: remove "
                  "the log, name a region that is right first and use init=sync",
                  name_of (f, f->ruling), i);
      return false;
    }
  return true;
}

/*----------------------------------------------------------------------
 * The log that comes of it
 */

/* What the copies have is in disk; now what is wanted. */
static void
want_leg (struct dm_log *log, unsigned int leg)
{
  struct log_map *map = &log->lacking[leg];
  unsigned int i;

  for (i = 0; i < log->g.map_words; i++)
    if (log->legs[leg].info.state != DM_LOG_IN_SYNC)
      map->wanted[i] = map->disk[i] | log->dirty.disk[i];
}

static void
mask_map (struct dm_log *log, struct log_map *map)
{
  uint64_t chunks = log->g.chunks;
  unsigned int i;

  for (i = chunks / 64; i < log->g.map_words; i++)
    map->disk[i] &= i > chunks / 64 || chunks % 64 == 0 ? 0 :
      log_bits (i * UINT64_C (64), chunks);
}

static void
want (struct dm_log *log)
{
  size_t bytes = log->g.map_words * sizeof (uint64_t);
  unsigned int i, n;

  mask_map (log, &log->dirty);
  memcpy (log->dirty.wanted, log->dirty.disk, bytes);
  memcpy (log->dirty.staged, log->dirty.disk, bytes);
  for (i = 0; i < log->num_legs; i++) {
    mask_map (log, &log->lacking[i]);
    memcpy (log->lacking[i].staged, log->lacking[i].disk, bytes);
    want_leg (log, i);
  }
  memcpy (log->unreconciled, log->dirty.disk, bytes);
  n = log_used_blocks (&log->g, log->num_legs);
  for (i = LOG_DIRTY_AT; i < n; i++) {
    if (log_place (&log->g, i).type == LOG_LACKING)
      log_flag_block (log->clears, i);
  }
}

static bool
add_legs (struct dm_log *log)
{
  unsigned int i;

  log->num_legs = log->super.num_legs;
  for (i = 0; i < log->num_legs; i++) {
    log->legs[i].info = log->super.legs[i];
    log->legs[i].until = log->legs[i].info.until;
    log->legs[i].stamp = log_stamp_time (&log->legs[i].info);
    if (!log_map_init (log, &log->lacking[i]))
      return false;
  }
  return true;
}

static void
warn_too_small (struct finds *f, struct dm_log *log, struct log_find *find)
{
  g_warning ("log copy %s: it is not used: it has %" PRIu64 " sectors, but %u "
             "are needed", name_of (f, find),
             f->copies[find - f->find].region.count,
             log->g.blocks * LOG_BLOCK_SECTORS);
}

/* A copy that is there and does not rule knows no more.  Nor does one that was
 * coming in when the power went: the others know of it already, but it
 * never had a second superblock.
 */
static bool
knows_no_more (const struct log_find *find, const struct log_super *super)
{
  if (!find->labelled ||
      memcmp (find->label_uuid, super->uuid, LOG_UUID) != 0)
    return false;
  return find->what == LOG_FIND_VALID ||
    find->supers[0] == LOG_BLANK || find->supers[1] == LOG_BLANK;
}

/* Who keeps its number comes first: copies in use, then others of this log, which
 * a newer superblock than theirs may know by it.
 */
static unsigned int
rank_of (const struct dm_log *log, const struct log_find *find)
{
  if (find->current && find->labelled)
    return 0;
  return find->labelled &&
    memcmp (find->label_uuid, log->uuid, LOG_UUID) == 0 ? 1 : 2;
}

static bool
is_free (const struct dm_log *log, unsigned int number)
{
  unsigned int i;

  for (i = 0; i < log->num_copies; i++)
    if (log->copies[i].number == number)
      return false;
  return true;
}

static void
add_copies (struct finds *f, struct dm_log *log)
{
  uint64_t found = 0;
  struct log_copy *c;
  unsigned int i, pass;
  bool keep;

  for (pass = 0; pass < 3; pass++)
    for (i = 0; i < f->n; i++) {
      if (rank_of (log, &f->find[i]) != pass)
        continue;
      keep = pass < 2 && is_free (log, f->find[i].number);
      c = log_new_copy (log, &f->copies[i]);
      if (keep)
        c->number = f->find[i].number;
      c->set_back = f->find[i].set_back;
      c->late = f->find[i].doubtful;
      if (c->late)
        c->doubt_until = clock_now () + f->copies[i].region.bdev->late;
      if (c->too_small)
        warn_too_small (f, log, &f->find[i]);
      else if (f->find[i].current) {
        c->newest = f->find[i].newest;
        c->superseded = false;
        log->current |= 1UL << (log->num_copies - 1);
        if (pass > 0)
          log->unlabelled |= 1UL << (log->num_copies - 1);
        /* One may have missed the last superblock, and blocks with its number
         * would make the one it has seem damaged.
         */
        log->durable_sequence = MIN (log->durable_sequence,
                                     f->find[i].super.sequence);
        if (f->find[i].super.sequence < log->super.sequence)
          log->behind |= 1UL << (log->num_copies - 1);
        if (is_torn (&f->find[i]))
          log->torn |= 1UL << (log->num_copies - 1);
        found |= UINT64_C (1) << c->number;
      }
    }
  log->copy_missing = (log->super.copies & ~found) != 0;
  for (i = 0; i < f->n; i++)
    if (knows_no_more (&f->find[i], &log->super))
      found |= UINT64_C (1) << f->find[i].number;
  log->unaccounted = log->super.copies & ~found;
}

/* Only those that are current know, and the one that rules knows best. */
static void
load_where (struct finds *f, struct dm_log *log)
{
  unsigned int i;

  log_read_where (&log->g, log->uuid,
                  &f->copies[f->ruling - f->find].region, &f->writer,
                  log->places);
  for (i = 0; i < f->n; i++)
    if (f->find[i].current)
      log_read_where (&log->g, log->uuid, &f->copies[i].region, &f->writer,
                      log->places);
}

static struct dm_log *
load (struct finds *f)
{
  const struct log_super *super = &f->ruling->super;
  struct log_geometry g;
  struct dm_log *log;

  log_geometry_init (&g, super->volume, super->chunk);
  log = log_alloc (&g, super->uuid);
  if (log == NULL) {
    log_refuse (f->error, "not enough memory for the log");
    return NULL;
  }
  log->super = *super;
  log->may_have_heard = log->may_have_heard_last = ~UINT64_C (0);
  log->super_wanted++;
  log->durable_sequence = super->sequence;
  log->starting = true;
  log->loaded = f->disorderly ? clock_now () : 0;
  log->unseen = f->disorderly && has_not_seen_all (f);
  add_copies (f, log);
  if (log->current == 0)
    log_refuse (f->error, "log copy %s: it is smaller than it was: %u sectors are "
                "needed; give it back its size or name another copy",
                name_of (f, f->ruling), g.blocks * LOG_BLOCK_SECTORS);
  else if (!add_legs (log))
    log_refuse (f->error, "not enough memory for the log");
  else if (merge_copies (f, log)) {
    want (log);
    load_where (f, log);
    return log;
  }
  dm_log_free (log);
  return NULL;
}

/* What the copies say now. */
static bool
look (struct finds *f)
{
  unsigned int i;

  memset (f->find, 0, f->n * sizeof f->find[0]);
  f->ruling = NULL;
  for (i = 0; i < f->n; i++)
    log_find_copy (&f->copies[i].region, f->writer.buffer, f->writer.checksum,
                   &f->find[i]);
  return judge (f);
}

/* The same, when there is something to be believed. */
static bool
look_when_sure (struct finds *f)
{
  uint64_t wait;

  if (!look (f))
    return false;
  wait = doubt (f);
  if (wait == 0) {
    leave_out_doubtful (f);
    return true;
  }
  g_warning ("log copy %s: writes from before the crash may still reach it, and "
             "there is no other copy where that cannot be: the start waits %"
             PRIu64 " s until that is over", name_of (f, f->ruling),
             wait / NSEC_PER_SEC);
  g_usleep (wait / 1000);
  return look (f);
}

struct dm_log *
dm_log_load (unsigned int num_copies, const struct dm_log_copy *copies,
             char **error)
{
  struct finds f = { .n = num_copies, .copies = copies, .error = error };
  struct dm_log *log = NULL;

  *error = NULL;
  if (num_copies == 0 || num_copies > LOG_MAX_COPIES) {
    log_refuse (error, "a log has 1 to %d copies, not %u", LOG_MAX_COPIES,
                num_copies);
    return NULL;
  }
  f.find = g_new0 (struct log_find, num_copies);
  if (!log_writer_init (&f.writer))
    log_refuse (error, "not enough memory for the log");
  else if (look_when_sure (&f))
    log = load (&f);
  log_writer_fini (&f.writer);
  g_free (f.find);
  return log;
}
