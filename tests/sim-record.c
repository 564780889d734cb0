/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What the log copies say, read from the simulated media with the library's
 * own decoder but none of its logic.  The rules that can be checked
 * directly are: a leg is written only where each copy that could rule after
 * a power cut has the chunk dirty, or lacking on that leg (W1); and after
 * a cut, what such a copy does not say to differ is equal (W2, W3, S1).
 */

#include <config.h>

#include <string.h>

#include <glib.h>

#include "log-format.h"
#include "sim-plan.h"

/* What one copy says. */
struct decoded {
  bool valid;
  struct log_super super;
  bool dirty_valid, lacking_valid[SIM_MAX_LEGS];
  uint64_t dirty[LOG_BLOCK_WORDS];
  uint64_t lacking[SIM_MAX_LEGS][LOG_BLOCK_WORDS];
};

static struct decoded decoded[SIM_MAX_COPIES];

/* The one of this history. */
static GChecksum *the_checksum;

static GChecksum *
checksum (void)
{
  if (the_checksum == NULL)
    the_checksum = g_checksum_new (G_CHECKSUM_SHA256);
  return the_checksum;
}

void
sim_record_init (void)
{
  the_checksum = NULL;
}

static bool
newer (const struct log_super *a, const struct log_super *b)
{
  return a->generation != b->generation ? a->generation > b->generation :
    a->sequence > b->sequence;
}

static const void *
block_of (const struct sim_device *dev, unsigned int block, bool stable)
{
  static const unsigned char zeroes[SIM_BLOCK];
  const void *p = stable ? dev->stable_block[block] :
    dev->cached_block[block];

  return p != NULL ? p : zeroes;
}

/* The newer of the two superblocks. */
static bool
decode_super (struct log_super *super, const struct sim_device *dev,
              bool stable)
{
  static struct log_super two[2];
  bool valid[2];
  unsigned int i;

  for (i = 0; i < 2; i++)
    valid[i] = log_decode_super (block_of (dev, LOG_SUPER_AT + i, stable),
                                 &two[i], checksum ()) == LOG_VALID;
  if (!valid[0] && !valid[1])
    return false;
  *super = two[valid[1] && (!valid[0] || newer (&two[1], &two[0]))];
  return true;
}

static void
decode_map (const struct decoded *d, const struct sim_device *dev,
            unsigned int block, struct log_place place, uint64_t *words,
            bool *valid)
{
  uint64_t sequence;

  if (dev->changed & UINT64_C (1) << block)
    *valid = log_decode_map (block_of (dev, block, true), d->super.uuid,
                             place, words, &sequence,
                             checksum ()) == LOG_VALID;
}

static void
decode_maps (struct decoded *d, const struct sim_device *dev)
{
  struct log_geometry g;
  unsigned int i;

  log_geometry_init (&g, d->super.volume, d->super.chunk);
  decode_map (d, dev, LOG_DIRTY_AT,
              (struct log_place) { LOG_DIRTY, 0, 0 }, d->dirty,
              &d->dirty_valid);
  for (i = 0; i < d->super.num_legs && i < SIM_MAX_LEGS; i++)
    decode_map (d, dev, log_leg_at (&g, i) + 1,
                (struct log_place) { LOG_LACKING, i, 0 }, d->lacking[i],
                &d->lacking_valid[i]);
}

static const struct decoded *
decode_stable (struct sim_device *dev)
{
  struct decoded *d = &decoded[dev->number];
  bool was_valid = d->valid;
  unsigned int num_legs = d->super.num_legs;

  if (dev->changed == 0)
    return d;
  if (dev->changed & 3)
    d->valid = decode_super (&d->super, dev, true);
  if (!d->valid)
    return d;
  if (!was_valid || num_legs != d->super.num_legs)
    dev->changed = ~UINT64_C (0);
  decode_maps (d, dev);
  dev->changed = 0;
  return d;
}

/* The newest of all, or NULL. */
static const struct decoded *
newest_stable (void)
{
  const struct decoded *d, *newest = NULL;
  unsigned int i;

  for (i = 0; i < sim_num_devices; i++) {
    if (sim_devices[i]->kind != SIM_COPY)
      continue;
    d = decode_stable (sim_devices[i]);
    if (d->valid && (newest == NULL || newer (&d->super, &newest->super)))
      newest = d;
  }
  return newest;
}

static void
summarize (struct sim_record *record, const struct log_super *super)
{
  unsigned int i;

  record->valid = true;
  record->num_legs = super->num_legs;
  for (i = 0; i < super->num_legs; i++) {
    if (super->legs[i].state == DM_LOG_IN_SYNC)
      record->in_sync |= 1UL << i;
    if (i < SIM_MAX_LEGS && super->legs[i].stamp.valid)
      record->stamp[i] = super->legs[i].stamp.mtime;
    if (i < SIM_MAX_LEGS) {
      record->latest_stamp[i] = record->stamp[i];
      record->until[i] = super->legs[i].until;
    }
  }
}

/* A copy that rules if no other can be seen.  One that was set back is none until it has
 * got what the others have.
 */
static bool
is_current (struct sim_device *dev, const struct decoded *d,
            const struct decoded *newest)
{
  if (!d->valid || d->super.epoch != newest->super.epoch)
    return false;
  if (dev->set_back && d->super.sequence > dev->set_back_to &&
      newest->super.sequence - d->super.sequence <= 1)
    dev->set_back = false;
  return !dev->set_back;
}

/* One that has not got the last superblock may know of an older time, or of none. */
static void
set_stamps_back (struct sim_record *record, const struct log_super *super)
{
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (i >= super->num_legs || !super->legs[i].stamp.valid)
      record->stamp[i] = 0;
    else {
      record->stamp[i] = MIN (record->stamp[i], super->legs[i].stamp.mtime);
      record->latest_stamp[i] = MAX (record->latest_stamp[i],
                                     super->legs[i].stamp.mtime);
      record->until[i] = MAX (record->until[i], super->legs[i].until);
    }
}

/* What is read now, of one copy. */
static const struct decoded *
decode_cached (const struct sim_device *dev)
{
  static struct decoded d[SIM_MAX_COPIES];

  d[dev->number].valid = decode_super (&d[dev->number].super, dev, false);
  return &d[dev->number];
}

/* The number under which the superblocks know a copy, as a set. */
static uint64_t
label_of (const struct sim_device *dev, const struct log_super *super)
{
  enum log_label_state state;
  unsigned int number;

  if (log_decode_label (block_of (dev, LOG_LABEL_AT, false), super->uuid,
                        &number, &state, checksum ()) != LOG_VALID)
    return 0;
  return UINT64_C (1) << number;
}

/* Is it one superblock behind, as for want of time? */
static bool
seems_late (const struct decoded *d, const struct decoded *newest)
{
  return d->valid && newest != NULL && d->super.epoch == newest->super.epoch &&
    newest->super.sequence - d->super.sequence <= 1;
}

bool
sim_record_set_back (struct sim_device *dev)
{
  const struct decoded *newest = newest_stable (), *d;
  uint64_t label = newest != NULL ? label_of (dev, &newest->super) : 0;

  sim_set_back (dev);
  newest = newest_stable ();
  d = decode_cached (dev);
  if (seems_late (d, newest))
    return false;
  if (!d->valid || newest == NULL || label_of (dev, &d->super) != label)
    phase.blank = true;
  dev->set_back = true;
  dev->set_back_to = d->valid ? d->super.sequence : 0;
  return true;
}

static bool
any_dirty (const struct decoded *d)
{
  return !d->dirty_valid ||
    log_next_bit (d->dirty, 0, LOG_BLOCK_BITS) < LOG_BLOCK_BITS;
}

void
sim_record_read (struct sim_record *record, bool stable, unsigned long seen)
{
  const struct decoded *d[SIM_MAX_COPIES] = { NULL }, *newest = NULL;
  struct sim_device *dev;
  uint64_t labels = 0;
  unsigned int i;

  memset (record, 0, sizeof *record);
  for (i = 0; i < sim_num_devices; i++) {
    dev = sim_devices[i];
    if (dev->kind != SIM_COPY || !(seen & 1UL << dev->number))
      continue;
    d[dev->number] = stable ? decode_stable (dev) : decode_cached (dev);
    if (d[dev->number]->valid &&
        (newest == NULL || newer (&d[dev->number]->super, &newest->super)))
      newest = d[dev->number];
  }
  if (newest == NULL)
    return;
  summarize (record, &newest->super);
  for (i = 0; i < sim_num_devices; i++) {
    dev = sim_devices[i];
    if (dev->kind != SIM_COPY || d[dev->number] == NULL)
      continue;
    if (!stable)
      labels |= label_of (dev, &newest->super);
    if (is_current (dev, d[dev->number], newest)) {
      record->current |= 1UL << dev->number;
      set_stamps_back (record, &d[dev->number]->super);
      record->dirty = record->dirty || (stable && any_dirty (d[dev->number]));
    }
  }
  record->missing = !stable && (newest->super.copies & ~labels) != 0;
}

/*----------------------------------------------------------------------
 * Rules
 */

static bool
is_dirty (const struct decoded *d, uint64_t chunk)
{
  return !d->dirty_valid || log_test_bit (d->dirty, chunk);
}

static bool
lacks (const struct decoded *d, unsigned int leg, uint64_t chunk)
{
  if (d->super.legs[leg].state == DM_LOG_IN_SYNC)
    return false;
  return !d->lacking_valid[leg] || log_test_bit (d->lacking[leg], chunk);
}

void
sim_check_leg_write (struct sim_device *dev, uint32_t sector, uint32_t count)
{
  const struct decoded *newest = newest_stable (), *d;
  uint64_t chunk, end;
  unsigned int i;

  if (newest == NULL || dev->leg < 0 ||
      (unsigned) dev->leg >= newest->super.num_legs)
    sim_fail ("W1: leg %u is written, but no log knows it", dev->number);
  end = (sector + count + newest->super.chunk - 1) / newest->super.chunk;
  for (chunk = sector / newest->super.chunk; chunk < end; chunk++)
    for (i = 0; i < sim_num_devices; i++) {
      if (sim_devices[i]->kind != SIM_COPY)
        continue;
      d = decode_stable (sim_devices[i]);
      if (is_current (sim_devices[i], d, newest) && !is_dirty (d, chunk) &&
          !lacks (d, dev->leg, chunk))
        sim_fail ("W1: leg %u is written in chunk %u, which is not durably "
                  "dirty in log copy %u", dev->number, (unsigned) chunk,
                  sim_devices[i]->number);
    }
}

/* The leg's chunk, if it counts as right: not if others have written to it or set it back,
 * until the mirror has had a look at it.
 */
static bool
has (const struct decoded *d, const struct sim_device *dev, uint64_t chunk)
{
  return dev->kind == SIM_LEG && dev->leg >= 0 && !dev->edited && !dev->behind &&
    (unsigned) dev->leg < d->super.num_legs && !lacks (d, dev->leg, chunk);
}

static void
check_chunk (const struct decoded *d, unsigned int copy, uint64_t chunk)
{
  uint32_t first = chunk * d->super.chunk, n;
  const struct sim_device *dev, *ref = NULL;
  unsigned int i;
  uint32_t j;

  n = MIN (d->super.chunk, d->super.volume - first);
  for (i = 0; i < sim_num_devices; i++) {
    dev = sim_devices[i];
    if (!has (d, dev, chunk))
      continue;
    if (ref == NULL) {
      ref = dev;
      continue;
    }
    for (j = first; j < first + n; j++)
      if (ref->stable[ref->start + j] != dev->stable[dev->start + j])
        sim_fail ("cut: sector %u is %u on leg %u and %u on leg %u, but log "
                  "copy %u says that chunk %u is equal", j,
                  ref->stable[ref->start + j], ref->number,
                  dev->stable[dev->start + j], dev->number, copy,
                  (unsigned) chunk);
  }
}

void
sim_check_cut (void)
{
  const struct decoded *newest = newest_stable (), *d;
  uint64_t chunk;
  unsigned int i;

  if (newest == NULL)
    return;
  for (i = 0; i < sim_num_devices; i++) {
    if (sim_devices[i]->kind != SIM_COPY)
      continue;
    d = decode_stable (sim_devices[i]);
    if (!is_current (sim_devices[i], d, newest))
      continue;
    for (chunk = 0; chunk * d->super.chunk < d->super.volume; chunk++)
      if (!is_dirty (d, chunk))
        check_chunk (d, sim_devices[i]->number, chunk);
  }
}
