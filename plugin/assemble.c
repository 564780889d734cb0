/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The order in which a start looks at things, so that one that is refused
 * harms nothing: open the regions, open and read the copies of the log that
 * exist, and only when all fits create copies and write.  Servers are
 * connected to all at once, and asked in the order of the command line
 * what has come of it.
 */

#include <config.h>

#include <inttypes.h>
#include <string.h>

#include <glib.h>

#include "assemble.h"
#include "block-device.h"
#include "copies.h"
#include "log.h"
#include "samples.h"
#include "worker.h"

struct assembly {
  const struct params *params;
  struct legs *legs;
  struct copies *copies;        /* NULL: no log */
  struct dm_log *log;
  unsigned int num_new_copies;  /* beside others that had been there */
  struct dm_mirror *mirror;
};

/* Report what a function of the library left in *ERROR. */
static bool
failed (char *error)
{
  report_error ("%s", error);
  g_free (error);
  return false;
}

/*----------------------------------------------------------------------
 * A new mirror
 */

/* None of them is missing. */
static sector_t
smallest_leg (const struct legs *legs)
{
  sector_t smallest = UINT64_MAX;
  unsigned int i, unit = DM_IO_SECTOR_SIZE;

  for (i = 0; i < legs_count (legs); i++) {
    struct io_region region = legs_get (legs, i).region;

    smallest = MIN (smallest, region.count);
    unit = MAX (unit, dm_bdev_block_size (region.bdev));
  }
  return smallest - smallest % (unit / DM_IO_SECTOR_SIZE);
}

static bool
describe_leg (const struct assembly *a, unsigned int i,
              struct dm_log_leg *leg)
{
  struct dm_mirror_leg given = legs_get (a->legs, i);
  int r = 0;

  *leg = (struct dm_log_leg) {
    .id = (char *) given.id,
    .state = a->params->init == INIT_SYNC && i > 0 ?
      DM_LOG_OUT_OF_SYNC : DM_LOG_IN_SYNC,
    .sectors = given.region.count,
  };
  if (leg->state == DM_LOG_IN_SYNC)
    r = bdev_stamp (given.region.bdev, &leg->stamp);
  if (r == 0)
    return true;
  report_error ("region '%s': cannot be flushed: %s", given.name,
                strerror (-r));
  return false;
}

static bool
new_log (struct assembly *a, sector_t volume, sector_t chunk)
{
  struct dm_log_copy copies[DM_IO_MAX_REGIONS];
  struct dm_log_leg legs[DM_IO_MAX_REGIONS];
  unsigned int i, n;
  char *error;

  for (i = 0; i < legs_count (a->legs); i++)
    if (!describe_leg (a, i, &legs[i]))
      return false;
  if (!copies_create (a->copies, dm_log_copy_sectors (volume, chunk),
                      dm_log_new_copy_sectors (volume, chunk)))
    return false;
  n = copies_get (a->copies, copies);
  a->log = dm_log_new (n, copies, volume, chunk, legs_count (a->legs), legs,
                       &error);
  return a->log != NULL || failed (error);
}

/* No copy of a log was found.  Whether this is the first start, or names are
 * wrong, only the user knows.
 */
static bool
check_first_start (const struct assembly *a)
{
  g_autofree char *missing = legs_missing (a->legs);
  g_autofree char *copies = copies_names (a->copies);

  if (missing != NULL)
    report_error ("%s: cannot be opened, and no copy of a log was found in %s: "
                  "correct the names that are wrong; a mirror that has been "
                  "used needs a copy of its log, and a new one all of its "
                  "regions and init=", missing, copies);
  else if (a->params->init == INIT_NOT_SAID)
    report_error ("this mirror has no log yet: say what the regions hold: "
                  "init=clean if they are alike, init=sync to copy the first "
                  "over the others (or log=none for a mirror that remembers "
                  "no failed or interrupted write); if it has been used "
                  "before, name a copy of its log, as none was found in %s",
                  copies);
  return missing == NULL && a->params->init != INIT_NOT_SAID;
}

/* The user says that the regions are alike: a look at some of their blocks, since
 * a wrong name is easily given.
 */
static bool
look_alike (const struct assembly *a, sector_t volume)
{
  struct dm_mirror_leg first = legs_get (a->legs, 0), other;
  unsigned int i;
  sector_t at;
  int r;

  for (i = 1; i < legs_count (a->legs); i++) {
    other = legs_get (a->legs, i);
    r = samples_compare (&first.region, &other.region, volume, NULL,
                         &at);
    if (r < 0)
      report_error ("init=clean: regions '%s' and '%s' cannot be compared: %s",
                    first.name, other.name, strerror (-r));
    else if (r > 0)
      report_error ("init=clean: regions '%s' and '%s' are not alike: they "
                    "differ in the block at offset %" PRIu64 ", for one; "
                    "correct the names, or say init=sync to copy the first "
                    "over the others", first.name, other.name,
                    at * DM_IO_SECTOR_SIZE);
    if (r != 0)
      return false;
  }
  return true;
}

static bool
make_log (struct assembly *a)
{
  sector_t volume, chunk;

  if (!check_first_start (a))
    return false;
  volume = smallest_leg (a->legs);
  if (a->params->init == INIT_CLEAN && !look_alike (a, volume))
    return false;
  chunk = a->params->chunk != 0 ? a->params->chunk / DM_IO_SECTOR_SIZE :
    dm_log_default_chunk (volume);
  if ((volume - 1) / chunk >= DM_LOG_MAX_CHUNKS) {
    report_error ("the volume of %" PRIu64 " bytes would have more than %"
                  PRIu64 " chunks of %" PRIu64 " bytes; say chunk= with more",
                  volume * DM_IO_SECTOR_SIZE, DM_LOG_MAX_CHUNKS,
                  chunk * DM_IO_SECTOR_SIZE);
    return false;
  }
  return new_log (a, volume, chunk);
}

/*----------------------------------------------------------------------
 * A mirror that has been
 */

static bool
check_params (const struct assembly *a, const char *first_copy)
{
  uint64_t chunk = dm_log_chunk (a->log) * DM_IO_SECTOR_SIZE;

  if (a->params->init != INIT_NOT_SAID) {
    report_error ("init=: the mirror has a log already (%s, mirror %s); leave "
                  "out init=.  To make a new mirror of its regions, remove "
                  "all copies of the log first", first_copy,
                  dm_log_uuid (a->log));
    return false;
  }
  if (a->params->chunk != 0 && a->params->chunk != chunk) {
    report_error ("chunk=%" PRIu64 ": the log has chunks of %" PRIu64
                  " bytes, which cannot be changed; leave out chunk=",
                  a->params->chunk, chunk);
    return false;
  }
  return true;
}

/* What else can be wrong with copies that exist, dm_log_load has said. */
static bool
add_copies (struct assembly *a, unsigned int num_loaded)
{
  struct dm_log_copy copies[DM_IO_MAX_REGIONS];
  sector_t volume = dm_log_volume (a->log), chunk = dm_log_chunk (a->log);
  unsigned int i, n;

  if (!copies_create (a->copies, dm_log_copy_sectors (volume, chunk),
                      dm_log_new_copy_sectors (volume, chunk)))
    return false;
  n = copies_get (a->copies, copies);
  for (i = num_loaded; i < n; i++)
    dm_log_add_copy (a->log, &copies[i]);
  a->num_new_copies = n - num_loaded;
  return true;
}

static bool
open_log (struct assembly *a)
{
  struct dm_log_copy copies[DM_IO_MAX_REGIONS];
  char *error = NULL;
  unsigned int n;

  if (!copies_open (a->copies, a->params))
    return false;
  n = copies_get (a->copies, copies);
  if (n > 0)
    a->log = dm_log_load (n, copies, &error);
  if (a->log != NULL)
    return check_params (a, copies[0].name) && add_copies (a, n);
  return error == NULL ? make_log (a) : failed (error);
}

/*----------------------------------------------------------------------
 * The mirror
 */

static bool
reopen (void *context, const char *name, struct io_region *region)
{
  struct assembly *a = context;

  return legs_reopen (a->legs, name, region);
}

static void
unopen (void *context, struct io_region *region)
{
  struct assembly *a = context;

  legs_unopen (a->legs, region);
}

static int
open_copies (void *context, const char *id, char **error)
{
  struct assembly *a = context;

  return copies_open_later (a->copies, a->log, id, error);
}

static bool
new_mirror (struct assembly *a)
{
  const struct dm_mirror_options options = {
    .policy = a->params->read,
    .log = a->log,
    .degraded = a->params->degraded,
    .quorum = a->params->quorum,
    .resync_rate = a->params->resync_rate,
    .reopen = reopen,
    .unopen = unopen,
    .open_copies = open_copies,
    .context = a,
  };
  struct dm_mirror_leg legs[DM_IO_MAX_REGIONS];
  unsigned int i;
  char *error;

  for (i = 0; i < legs_count (a->legs); i++)
    legs[i] = legs_get (a->legs, i);
  a->mirror = dm_mirror_new (legs_count (a->legs), legs, &options, &error);
  return a->mirror != NULL || failed (error);
}

/* Say what a careful administrator wants to know about the regions, beside
 * what the mirror has said.
 */
static void
report_region (const struct assembly *a, unsigned int number,
               const struct dm_mirror_leg *leg)
{
  sector_t size = dm_mirror_sectors (a->mirror);
  const struct block_device *bdev = leg->region.bdev;

  if (leg->region.count > size && !bdev->endless)
    report_error ("region %u (%s) is larger than the volume, which has %"
                  PRIu64 " bytes in whole blocks of %u; the rest of the "
                  "region is not used", number, leg->name,
                  size * DM_IO_SECTOR_SIZE,
                  dm_mirror_block_size (a->mirror));
  if (bdev->read_only && !dm_mirror_read_only (a->mirror))
    report_error ("region %u (%s) is read-only: every write to the volume "
                  "will fail", number, leg->name);
}

static void
report_copies (const struct assembly *a)
{
  struct dm_log_copy copies[DM_IO_MAX_REGIONS];
  unsigned int i, n = copies_get (a->copies, copies);

  for (i = n - a->num_new_copies; i < n; i++)
    report_error ("log copy '%s': did not exist, and was made from the other "
                  "copies", copies[i].name);
}

static void
report_reconciling (const struct assembly *a)
{
  struct dm_mirror_status status;

  dm_mirror_get_status (a->mirror, &status);
  if (status.to_reconcile > 0)
    report_error ("the last server did not end in order: %" PRIu64
                  " of %" PRIu64 " bytes may differ between the legs and "
                  "are made equal now", status.to_reconcile, status.size);
  dm_mirror_status_clear (&status);
}

static void
report (const struct assembly *a)
{
  unsigned int i;

  for (i = 0; i < legs_count (a->legs); i++) {
    struct dm_mirror_leg leg = legs_get (a->legs, i);

    if (leg.region.bdev != NULL)
      report_region (a, a->log == NULL ? i : (unsigned int)
                     dm_mirror_find_leg (a->mirror, leg.id), &leg);
  }
  if (a->log != NULL) {
    report_copies (a);
    report_reconciling (a);
  }
}

static bool
assemble_all (struct assembly *a)
{
  a->legs = legs_begin (a->params);
  if (!a->params->log_none)
    a->copies = copies_begin (a->params, a->legs);
  if (!legs_open (a->legs, a->params))
    return false;
  if (a->params->log_none ? !copies_allow_none (a->legs) : !open_log (a))
    return false;
  return new_mirror (a);
}

struct assembly *
assemble (const struct params *params)
{
  struct assembly *a = g_new0 (struct assembly, 1);

  a->params = params;
  if (assemble_all (a)) {
    report (a);
    return a;
  }
  if (a->copies != NULL)
    copies_remove_created (a->copies);
  assembly_free (a);
  return NULL;
}

struct dm_mirror *
assembly_mirror (const struct assembly *a)
{
  return a->mirror;
}

struct legs *
assembly_legs (const struct assembly *a)
{
  return a->legs;
}

void
assembly_rest (struct assembly *a)
{
  legs_rest (a->legs);
  if (a->copies != NULL)
    copies_rest (a->copies);
  workers_rest ();
}

void
assembly_free (struct assembly *a)
{
  if (a == NULL)
    return;
  dm_mirror_free (a->mirror);
  if (a->log != NULL)
    dm_log_free (a->log);
  copies_free (a->copies);
  legs_free (a->legs);
  g_free (a);
}
