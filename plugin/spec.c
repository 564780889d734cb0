/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <inttypes.h>
#include <string.h>

#include <glib.h>

#include "block-device.h"
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
parse_option (struct spec *spec, const char *option, char **error)
{
  if (g_str_has_prefix (option, "sector="))
    return parse_sectors (option, "sector=", &spec->has_sector,
                          &spec->sector, error);
  if (g_str_has_prefix (option, "count="))
    return parse_sectors (option, "count=", &spec->has_count,
                          &spec->count, error);
  if (g_str_has_prefix (option, "direct="))
    return parse_direct (spec, option, error);
  if (strcmp (option, "write-mostly") == 0) {
    if (spec->write_mostly)
      *error = g_strdup ("write-mostly is given twice");
    spec->write_mostly = true;
    return *error == NULL;
  }
  *error = g_strdup_printf ("unknown option '%s'; known are sector=N, "
                            "count=N, direct=on|off and write-mostly "
                            "(',,' stands for a comma in the path)", option);
  return false;
}

static bool
parse_fields (struct spec *spec, const char *text, char **error)
{
  spec->device = next_field (&text);
  if (spec->device[0] == '\0') {
    *error = g_strdup ("the path is empty; name a file, a block device or "
                       "an NBD server");
    return false;
  }
  while (text != NULL) {
    g_autofree char *option = next_field (&text);

    if (!parse_option (spec, option, error))
      return false;
  }
  if (spec->has_count && spec->count == 0) {
    *error = g_strdup ("count=0: a region must have at least one sector");
    return false;
  }
  return true;
}

struct spec *
spec_parse (const char *text, char **error)
{
  struct spec *spec = g_new0 (struct spec, 1);
  g_autofree char *message = NULL;

  spec->text = g_strdup (text);
  if (parse_fields (spec, text, &message))
    return spec;
  *error = g_strdup_printf ("region '%s': %s", text, message);
  spec_free (spec);
  return NULL;
}

void
spec_free (struct spec *spec)
{
  g_free (spec->device);
  g_free (spec->text);
  g_free (spec);
}

bool
spec_resolve (const struct spec *spec, struct block_device *bdev,
              struct io_region *region, char **error)
{
  sector_t size = dm_bdev_sectors (bdev);
  sector_t unit = dm_bdev_block_size (bdev) / DM_IO_SECTOR_SIZE;

  *region = (struct io_region) { .bdev = bdev, .sector = spec->sector };
  if (bdev->size == 0) {
    *error = g_strdup_printf ("region '%s': %s has size 0; give it its size "
                              "first, for example with truncate(1)",
                              spec->text, spec->device);
    return false;
  }
  if (!spec->has_count && bdev->size % DM_IO_SECTOR_SIZE != 0) {
    *error = g_strdup_printf ("region '%s': the size of %s, %" PRIu64
                              " bytes, is not a multiple of %d; change it "
                              "with truncate(1), or leave its end out with "
                              "count=%" PRIu64,
                              spec->text, spec->device, bdev->size,
                              DM_IO_SECTOR_SIZE,
                              size > spec->sector ? size - spec->sector : 0);
    return false;
  }
  if (spec->sector >= size ||
      (spec->has_count && spec->count > size - spec->sector)) {
    *error = g_strdup_printf ("region '%s': reaches beyond the end of %s, "
                              "which has %" PRIu64 " sectors of %d bytes",
                              spec->text, spec->device, size,
                              DM_IO_SECTOR_SIZE);
    return false;
  }
  region->count = spec->has_count ? spec->count : size - spec->sector;
  if (((spec->sector | (spec->has_count ? spec->count : 0)) & (unit - 1)) != 0) {
    *error = g_strdup_printf ("region '%s': sector= and count= must be "
                              "multiples of %" PRIu64 ", since the block "
                              "size of %s is %u bytes", spec->text, unit,
                              spec->device, dm_bdev_block_size (bdev));
    return false;
  }
  region->count -= region->count % unit;
  return true;
}
