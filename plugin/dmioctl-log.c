/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "block-device.h"
#include "dmioctl-log.h"
#include "dmioctl-text.h"
#include "escape.h"
#include "log-describe.h"

#define NSEC_PER_SEC UINT64_C (1000000000)

/* So often, and so far apart in microseconds, is looked at what seems wrong. */
#define LOOKS 20
#define LOOK_INTERVAL 50000

/* NAME, or what stands instead of it, for a line. */
static char *
shown (const char *name, const char *unknown)
{
  g_autofree char *text = escape_name (name != NULL ? name : unknown);

  return escape_line (text);
}

static void
print_leg (const struct log_description *d, unsigned int i)
{
  const struct log_leg_description *leg = &d->legs[i];
  g_autofree char *name = shown (leg->id, "(its name cannot be read)");
  uint64_t lacking = MIN (leg->lacking * d->chunk, d->volume);
  g_autofree char *size = text_size (lacking * DM_IO_SECTOR_SIZE);

  printf ("region %-2u  %s  %s", i, name, log_state_name (leg->state));
  if (leg->state != DM_LOG_IN_SYNC)
    printf (", lacks %s", size);
  if (leg->stamp.valid) {
    g_autoptr (GDateTime) time =
      g_date_time_new_from_unix_local (leg->stamp.mtime / NSEC_PER_SEC);
    g_autofree char *text = time == NULL ? NULL :
      g_date_time_format (time, "%F %T");

    printf (", last quiet when changed at %s", text != NULL ? text : "?");
  }
  printf ("\n");
}

/* Those in use, and others of which something is known. */
static void
print_copies (const struct log_description *d)
{
  unsigned int i;

  for (i = 0; i < DM_IO_MAX_REGIONS; i++) {
    bool in_use = d->copies >> i & 1;
    g_autofree char *place = shown (d->places[i], TEXT_NO_PLACE);

    if (in_use || d->places[i] != NULL)
      printf ("copy %-4u  %s  %s\n", i, place,
              in_use ? "in use" : "not in use");
  }
}

static void
print_description (const struct log_description *d)
{
  g_autofree char *volume = text_size (d->volume * DM_IO_SECTOR_SIZE);
  g_autofree char *chunk = text_size (d->chunk * DM_IO_SECTOR_SIZE);
  g_autofree char *dirty = text_size (MIN (d->dirty * d->chunk, d->volume) *
                                      DM_IO_SECTOR_SIZE);
  unsigned int i;

  printf ("log: %s, version %u\n", d->uuid, d->version);
  printf ("volume: %s, %" PRIu64 " chunks of %s\n", volume, d->chunks, chunk);
  printf ("generation: %" PRIu64 ", sequence %" PRIu64 "\n", d->generation,
          d->sequence);
  printf ("copy: %d, of %d in use\n", d->copy,
          __builtin_popcountll (d->copies));
  print_copies (d);
  printf ("%s dirty: may differ between regions in sync\n", dirty);
  for (i = 0; i < d->num_legs; i++)
    print_leg (d, i);
  for (i = 0; d->invalid[i] != NULL; i++)
    printf ("wrong: %s\n", d->invalid[i]);
}

/* What is being written by a server is seen half written, now and then. */
static bool
describe (const struct io_region *region, struct log_description *d,
          char **error)
{
  unsigned int looks;
  bool ok;

  for (looks = 1; ; looks++) {
    ok = log_describe (region, d, error);
    if (!region->bdev->in_use || looks == LOOKS ||
        (ok && d->invalid[0] == NULL))
      return ok;
    if (ok)
      log_description_clear (d);
    g_clear_pointer (error, g_free);
    g_usleep (LOOK_INTERVAL);
  }
}

static bool
print_log (struct block_device *bdev, char **error)
{
  const struct io_region region = {
    .bdev = bdev, .count = dm_bdev_sectors (bdev),
  };
  struct log_description d;
  unsigned int wrong;

  if (!describe (&region, &d, error))
    return false;
  if (bdev->in_use)
    printf ("in use: a server, or another program, has this copy open, so it "
            "may be changing\n");
  print_description (&d);
  wrong = g_strv_length (d.invalid);
  log_description_clear (&d);
  if (wrong > 0)
    *error = g_strdup_printf ("%u things in it are wrong; a server will "
                              "take what they say for dirty or use another "
                              "copy", wrong);
  return wrong == 0;
}

bool
print_log_file (const char *file, char **error)
{
  const struct dm_bdev_options options = {
    .flags = DM_BDEV_READ_ONLY | DM_BDEV_BUFFERED | BDEV_NO_LOCK,
  };
  struct block_device *bdev;
  char *message;
  bool ok;

  bdev = dm_bdev_open (file, &options, &message);
  if (bdev == NULL) {
    *error = g_strdup (message != NULL ? message : strerror (errno));
    free (message);
    return false;
  }
  ok = print_log (bdev, error);
  dm_bdev_close (bdev);
  return ok;
}
