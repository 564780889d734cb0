/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "block-device.h"
#include "nbd-connect.h"
#include "spec.h"

#define MAX_SECTORS (INT64_MAX / DM_IO_SECTOR_SIZE)

/* Take the next field, up to a comma that is not doubled.  *TEXT is
 * moved on behind that comma, or to NULL at the end.
 */
static char *
next_field (const char **text)
{
  GString *field = g_string_new (NULL);
  const char *p = *text;

  while (*p != '\0') {
    if (p[0] == ',' && p[1] != ',')
      break;
    if (*p == ',')
      p++;
    g_string_append_c (field, *p++);
  }
  *text = *p == ',' ? p + 1 : NULL;
  return g_string_free (field, FALSE);
}

/* OPTION is "sector=" or "count=". */
static bool
parse_sectors (const char *text, const char *option, bool *given,
               sector_t *sectors, char **error)
{
  g_autoptr (GError) err = NULL;
  const char *value = text + strlen (option);

  if (*given) {
    *error = g_strdup_printf ("%s is given twice", option);
    return false;
  }
  *given = true;
  if (g_ascii_string_to_unsigned (value, 10, 0, MAX_SECTORS, sectors, &err))
    return true;
  *error = g_strdup_printf ("%s: %s; give a plain number of sectors of "
                            "%d bytes",
                            text, err->message, DM_IO_SECTOR_SIZE);
  return false;
}

static bool
parse_direct (struct spec *spec, const char *text, char **error)
{
  const char *value = text + strlen ("direct=");

  if (spec->direct != 0)
    *error = g_strdup ("direct= is given twice");
  else if (strcmp (value, "on") == 0)
    spec->direct = DM_BDEV_DIRECT;
  else if (strcmp (value, "off") == 0)
    spec->direct = DM_BDEV_BUFFERED;
  else
    *error = g_strdup_printf ("%s: it can be on or off", text);
  return *error == NULL;
}

static bool
parse_write_mostly (struct spec *spec, char **error)
{
  if (spec->write_mostly)
    *error = g_strdup ("write-mostly is given twice");
  spec->write_mostly = true;
  return *error == NULL;
}

static bool
parse_option (struct spec *spec, bool is_log, const char *option,
              char **error)
{
  if (g_str_has_prefix (option, "sector="))
    return parse_sectors (option, "sector=", &spec->has_sector,
                          &spec->sector, error);
  if (g_str_has_prefix (option, "count="))
    return parse_sectors (option, "count=", &spec->has_count,
                          &spec->count, error);
  if (!is_log && g_str_has_prefix (option, "direct="))
    return parse_direct (spec, option, error);
  if (!is_log && strcmp (option, "write-mostly") == 0)
    return parse_write_mostly (spec, error);
  *error = g_strdup_printf ("unknown option '%s'; known are sector=N%s "
                            "(',,' stands for a comma in the path)", option,
                            is_log ? " and count=N" :
                            ", count=N, direct=on|off and write-mostly");
  return false;
}

/* As in dm_bdev_open. */
static bool
is_uri (const char *device)
{
  return g_regex_match_simple ("^nbds?(\\+[a-z]+)?:", device, 0, 0);
}

/* What is wrong with a URI is said when it is opened. */
static char *
absolute_uri (const char *uri)
{
  g_autofree char *error = NULL;
  char *absolute = nbd_check_uri (uri, &error);

  return absolute != NULL ? absolute : g_strdup (uri);
}

static bool
parse_fields (struct spec *spec, bool is_log, char **error)
{
  const char *text = spec->text;

  spec->device = next_field (&text);
  spec->options = text != NULL ? text - 1 : "";
  spec->is_uri = is_uri (spec->device);
  spec->absolute = spec->is_uri ? absolute_uri (spec->device) :
    g_canonicalize_filename (spec->device, NULL);
  if (spec->device[0] == '\0') {
    *error = g_strdup ("the path is empty; name a file, a block device or "
                       "an NBD server");
    return false;
  }
  while (text != NULL) {
    g_autofree char *option = next_field (&text);

    if (!parse_option (spec, is_log, option, error))
      return false;
  }
  if (spec->has_count && spec->count == 0) {
    *error = g_strdup ("count=0: a region must have at least one sector");
    return false;
  }
  return true;
}

static struct spec *
parse (const char *what, bool is_log, const char *text, char **error)
{
  struct spec *spec = g_atomic_rc_box_new0 (struct spec);
  g_autofree char *message = NULL;

  spec->what = what;
  spec->is_log = is_log;
  spec->text = g_strdup (text);
  if (parse_fields (spec, is_log, &message))
    return spec;
  *error = g_strdup_printf ("%s '%s': %s", what, text, message);
  spec_unref (spec);
  return NULL;
}

struct spec *
spec_parse_region (const char *text, char **error)
{
  return parse ("region", false, text, error);
}

struct spec *
spec_parse_log (const char *text, char **error)
{
  return parse ("log copy", true, text, error);
}

struct spec *
spec_ref (struct spec *spec)
{
  return g_atomic_rc_box_acquire (spec);
}

static void
clear (void *arg)
{
  struct spec *spec = arg;

  g_free (spec->absolute);
  g_free (spec->device);
  g_free (spec->text);
}

void
spec_unref (struct spec *spec)
{
  if (spec != NULL)
    g_atomic_rc_box_release_full (spec, clear);
}

char *
spec_canonical_path (const struct spec *spec)
{
  g_autofree char *directory = g_path_get_dirname (spec->absolute);
  g_autofree char *file = g_path_get_basename (spec->absolute);
  g_autofree char *real = NULL;
  char *path = realpath (spec->absolute, NULL);

  if (path != NULL)
    return path;
  real = realpath (directory, NULL);
  return g_build_filename (real != NULL ? real : directory, file, NULL);
}

char *
spec_absolute_text (const struct spec *spec)
{
  GString *text = g_string_new (spec->absolute);

  g_string_replace (text, ",", ",,", 0);
  g_string_append (text, spec->options);
  return g_string_free (text, FALSE);
}

/* It is written like a SPEC, so that two cannot be mixed up. */
char *
spec_id (const struct spec *spec)
{
  g_autofree char *device = spec->is_uri ? g_strdup (spec->absolute) :
    spec_canonical_path (spec);
  GString *id = g_string_new (device);

  g_string_replace (id, ",", ",,", 0);
  if (spec->sector != 0)
    g_string_append_printf (id, ",sector=%" PRIu64, spec->sector);
  return g_string_free (id, FALSE);
}

/* What is wrong with the sectors that SPEC names, or NULL. */
static char *
wrong_sectors (const struct spec *spec, struct block_device *bdev)
{
  sector_t size = dm_bdev_sectors (bdev);
  unsigned int block = dm_bdev_block_size (bdev);
  sector_t unit = block / DM_IO_SECTOR_SIZE;

  if (size < unit)
    return g_strdup_printf ("%s has a size of %" PRIu64 " bytes, less than "
                            "one block of %u; give it its size first, for "
                            "example with truncate(1)", spec->device,
                            bdev->size, block);
  if (spec->sector % unit != 0 || spec->count % unit != 0)
    return g_strdup_printf ("sector= and count= must be multiples of %" PRIu64
                            ", since the block size of %s is %u bytes", unit,
                            spec->device, block);
  size -= size % unit;
  if (spec->sector >= size || spec->count > size - spec->sector)
    return g_strdup_printf ("reaches beyond the end of %s, which has %" PRIu64
                            " sectors of %d bytes", spec->device, size,
                            DM_IO_SECTOR_SIZE);
  if (!spec->has_count && bdev->size % DM_IO_SECTOR_SIZE != 0)
    return g_strdup_printf ("the size of %s, %" PRIu64 " bytes, is not a "
                            "multiple of %d; change it with truncate(1), or "
                            "leave its end out with count=%" PRIu64,
                            spec->device, bdev->size, DM_IO_SECTOR_SIZE,
                            size - spec->sector);
  return NULL;
}

bool
spec_resolve (const struct spec *spec, struct block_device *bdev,
              struct io_region *region, char **error)
{
  sector_t unit = dm_bdev_block_size (bdev) / DM_IO_SECTOR_SIZE;
  sector_t size = dm_bdev_sectors (bdev) - dm_bdev_sectors (bdev) % unit;
  g_autofree char *wrong = wrong_sectors (spec, bdev);

  *region = (struct io_region) { .bdev = bdev, .sector = spec->sector };
  if (wrong != NULL) {
    *error = g_strdup_printf ("%s '%s': %s", spec->what, spec->text, wrong);
    return false;
  }
  region->count = spec->has_count ? spec->count : size - spec->sector;
  return true;
}
