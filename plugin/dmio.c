/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The nbdkit plugin: parameters, and NBD requests as requests to the
 * mirror.  What a mirror does is in lib/; here is only what nbdkit and
 * NBD want to have it like.
 *
 * Threads: nbdkit calls .config to .get_ready and .unload from one
 * thread; what they set does not change while clients are served.  The
 * data callbacks run in many threads at once and hold no lock.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <glib.h>

#include "block-device.h"
#include "dm-mirror.h"
#include "failure-log.h"
#include "log.h"
#include "reply.h"
#include "spec.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define MAX_REQUEST_SIZE (64 * 1024 * 1024)

/* -D dmio.io=1: log what became of each request on each region. */
NBDKIT_DLL_PUBLIC int dmio_debug_io;

static struct {
  unsigned int num_regions;
  struct spec *specs[DM_IO_MAX_REGIONS];
  struct block_device *bdevs[DM_IO_MAX_REGIONS]; /* NULL: not open */
  bool log_none;
  struct dm_mirror *mirror;
} dmio;

static void
dmio_load (void)
{
  struct sigaction act;

  log_route ();

  /* So that a write over RLIMIT_FSIZE fails with EFBIG. */
  if (sigaction (SIGXFSZ, NULL, &act) == 0 && act.sa_handler == SIG_DFL)
    signal (SIGXFSZ, SIG_IGN);
}

static void
dmio_unload (void)
{
  unsigned int i;

  dm_mirror_free (dmio.mirror);
  for (i = 0; i < dmio.num_regions; i++) {
    dm_bdev_close (dmio.bdevs[i]);
    spec_free (dmio.specs[i]);
  }
  log_unroute ();
}

static void
dmio_dump_plugin (void)
{
  printf ("dmio_version=%s\n", PACKAGE_VERSION);
  printf ("dmio_regions=file block-device\n");
  printf ("dmio_max_regions=%zu\n", DM_IO_MAX_REGIONS);
  printf ("dmio_logs=none\n");
}

/*----------------------------------------------------------------------
 * Parameters
 */

static int
add_region (const char *text)
{
  g_autofree char *error = NULL;
  struct spec *spec;

  if (dmio.num_regions == DM_IO_MAX_REGIONS) {
    nbdkit_error ("region '%s': there can be at most %zu regions",
                  text, DM_IO_MAX_REGIONS);
    return -1;
  }
  spec = spec_parse (text, &error);
  if (spec == NULL) {
    nbdkit_error ("%s", error);
    return -1;
  }
  dmio.specs[dmio.num_regions++] = spec;
  return 0;
}

static int
dmio_config (const char *key, const char *value)
{
  if (strcmp (key, "region") == 0)
    return add_region (value);

  if (strcmp (key, "log") == 0) {
    if (strcmp (value, "none") != 0) {
      nbdkit_error ("log=%s: this version has no log yet, only log=none "
                    "is possible", value);
      return -1;
    }
    dmio.log_none = true;
    return 0;
  }

  nbdkit_error ("unknown parameter '%s'; known are region=SPEC and log=none "
                "(a file with '=' in its name needs region= before it)", key);
  return -1;
}

static int
dmio_config_complete (void)
{
  if (dmio.num_regions == 0) {
    nbdkit_error ("no region was given; name at least one file or block "
                  "device, for example: nbdkit dmio a.img b.img log=none");
    return -1;
  }
  if (!dmio.log_none) {
    nbdkit_error ("log=none must be given: this version remembers no failed "
                  "or interrupted write, so after a failure or a crash "
                  "the regions may differ, and log=none is your word that "
                  "you know it");
    return -1;
  }
  return 0;
}

#define dmio_config_help                                                \
  "[region=]SPEC  (required) A region of the mirror, up to 64 times:\n" \
  "               PATH[,sector=N][,count=N], a file or block device\n"  \
  "               from sector N on, count N, in sectors of 512 bytes;\n" \
  "               ',,' stands for a comma in the path.\n"               \
  "log=none       (required) Remember no failed or interrupted write.\n" \
  "               This version knows nothing else."

static bool
open_region (unsigned int i, struct dm_mirror_leg *leg)
{
  const struct spec *spec = dmio.specs[i];
  g_autofree char *message = NULL;
  char *error;

  dmio.bdevs[i] = dm_bdev_open (spec->path, 0, &error);
  if (dmio.bdevs[i] == NULL) {
    nbdkit_error ("region '%s': %s", spec->text,
                  error != NULL ? error : strerror (errno));
    free (error);
    return false;
  }
  if (!spec_resolve (spec, dmio.bdevs[i], &leg->region, &message)) {
    nbdkit_error ("%s", message);
    return false;
  }
  leg->name = spec->text;
  return true;
}

/* Say what a careful administrator wants to know about the regions. */
static void
report_region (unsigned int i, const struct dm_mirror_leg *leg)
{
  sector_t size = dm_mirror_sectors (dmio.mirror);
  const struct block_device *bdev = leg->region.bdev;

  if (leg->region.count > size && !bdev->endless)
    nbdkit_error ("region %u (%s) is larger than the volume: the smallest "
                  "region has %" PRIu64 " bytes, the rest of this one is "
                  "not used", i, leg->name, size * DM_IO_SECTOR_SIZE);
  if (bdev->read_only && !dm_mirror_read_only (dmio.mirror))
    nbdkit_error ("region %u (%s) is read-only: every write to the volume "
                  "will fail", i, leg->name);
}

/* Files are opened here, before nbdkit forks, so that errors are seen
 * and relative paths mean what the user meant.
 */
static int
dmio_get_ready (void)
{
  struct dm_mirror_leg legs[DM_IO_MAX_REGIONS];
  unsigned int i;

  for (i = 0; i < dmio.num_regions; i++)
    if (!open_region (i, &legs[i]))
      return -1;
  dmio.mirror = dm_mirror_new (dmio.num_regions, legs);
  for (i = 0; i < dmio.num_regions; i++)
    report_region (i, &legs[i]);
  return 0;
}

/*----------------------------------------------------------------------
 * Connections
 */

static const char *
dmio_export_description (void *handle)
{
  return nbdkit_printf_intern ("dmio mirror of %u regions",
                               dmio.num_regions);
}

static int
dmio_list_exports (int readonly, int is_tls, struct nbdkit_exports *exports)
{
  return nbdkit_add_export (exports, "", dmio_export_description (NULL));
}

static const char *
dmio_default_export (int readonly, int is_tls)
{
  return "";
}

static void *
dmio_open (int readonly)
{
  return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t
dmio_get_size (void *handle)
{
  return dm_mirror_sectors (dmio.mirror) * DM_IO_SECTOR_SIZE;
}

static int
dmio_block_size (void *handle, uint32_t *minimum, uint32_t *preferred,
                 uint32_t *maximum)
{
  *minimum = DM_IO_SECTOR_SIZE;
  *preferred = DM_IO_PAGE_SIZE;
  *maximum = MAX_REQUEST_SIZE;
  return 0;
}

static int
dmio_can_write (void *handle)
{
  return !dm_mirror_read_only (dmio.mirror);
}

static int
dmio_is_rotational (void *handle)
{
  return dm_mirror_rotational (dmio.mirror);
}

/* All connections see the same mirror, and a flush is of all of it. */
static int
dmio_can_multi_conn (void *handle)
{
  return 1;
}

static int
yes (void *handle)
{
  return 1;
}

static int
dmio_can_fua (void *handle)
{
  return NBDKIT_FUA_NATIVE;
}

static int
dmio_can_cache (void *handle)
{
  return NBDKIT_CACHE_NATIVE;
}

static int
dmio_can_fast_zero (void *handle)
{
  return dm_mirror_fast_zero (dmio.mirror);
}

/*----------------------------------------------------------------------
 * Requests
 */

/* The minimum block size is only advice to clients. */
static bool
check_aligned (const char *op, uint32_t count, uint64_t offset)
{
  if (((offset | count) & (DM_IO_SECTOR_SIZE - 1)) == 0)
    return true;
  nbdkit_error ("%s of %" PRIu32 " bytes at offset %" PRIu64 " is not in "
                "whole sectors of %d bytes; add --filter=blocksize for a "
                "client that ignores the minimum block size",
                op, count, offset, DM_IO_SECTOR_SIZE);
  nbdkit_set_error (EINVAL);
  return false;
}

static void
trace (enum dm_io_op op, uint32_t count, uint64_t offset, unsigned int flags,
       const struct dm_io_result *results)
{
  g_autoptr (GString) line = g_string_new (NULL);
  unsigned int i;

  g_string_append_printf (line, "%s count=%" PRIu32 " offset=%" PRIu64 "%s%s:",
                          failure_log_op_name (op), count, offset,
                          flags & DM_IO_FUA ? " fua" : "",
                          flags & DM_IO_NO_UNMAP ? " no-unmap" : "");
  for (i = 0; i < dmio.num_regions; i++)
    g_string_append_printf (line, " region %u %s %" PRIu64 " us", i,
                            results[i].error ?
                            g_strerror (results[i].error) : "ok",
                            results[i].nsec / 1000);
  nbdkit_debug ("%s", line->str);
}

/* The end of every request; returns what the callback returns. */
static int
reply (bool ok, enum dm_io_op op, uint32_t count, uint64_t offset,
       unsigned int flags, const struct dm_io_result *results)
{
  if (dmio_debug_io)
    trace (op, count, offset, flags, results);
  if (ok)
    return 0;
  nbdkit_set_error (reply_errno (results, dmio.num_regions));
  return -1;
}

static int
dmio_pread (void *handle, void *buf, uint32_t count, uint64_t offset,
            uint32_t flags)
{
  struct dm_io_result results[DM_IO_MAX_REGIONS];
  bool ok;

  if (!check_aligned ("read", count, offset))
    return -1;
  ok = dm_mirror_read (dmio.mirror, buf, offset / DM_IO_SECTOR_SIZE,
                       count / DM_IO_SECTOR_SIZE, results);
  return reply (ok, DM_IO_READ, count, offset, 0, results);
}

/* Write, discard and write zeroes. */
static int
change (enum dm_io_op op, const void *buf, uint32_t count, uint64_t offset,
        unsigned int flags)
{
  struct dm_io_result results[DM_IO_MAX_REGIONS];
  bool ok;

  if (!check_aligned (failure_log_op_name (op), count, offset))
    return -1;
  ok = dm_mirror_write (dmio.mirror, op, flags, buf,
                        offset / DM_IO_SECTOR_SIZE,
                        count / DM_IO_SECTOR_SIZE, results);
  return reply (ok, op, count, offset, flags, results);
}

static unsigned int
fua (uint32_t flags)
{
  return flags & NBDKIT_FLAG_FUA ? DM_IO_FUA : 0;
}

static int
dmio_pwrite (void *handle, const void *buf, uint32_t count, uint64_t offset,
             uint32_t flags)
{
  return change (DM_IO_WRITE, buf, count, offset, fua (flags));
}

static int
dmio_trim (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  return change (DM_IO_DISCARD, NULL, count, offset, fua (flags));
}

/* nbdkit falls back to writes of zeroes on EOPNOTSUPP, wrongly, so that
 * is only for a fast zero.  It comes before any region is touched.
 */
static int
dmio_zero (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  bool may_trim = flags & NBDKIT_FLAG_MAY_TRIM;

  if (flags & NBDKIT_FLAG_FAST_ZERO &&
      !(may_trim && dm_mirror_fast_zero (dmio.mirror))) {
    nbdkit_set_error (EOPNOTSUPP);
    return -1;
  }
  return change (DM_IO_WRITE_ZEROES, NULL, count, offset,
                 fua (flags) | (may_trim ? 0 : DM_IO_NO_UNMAP));
}

static int
dmio_flush (void *handle, uint32_t flags)
{
  struct dm_io_result results[DM_IO_MAX_REGIONS];
  bool ok = dm_mirror_flush (dmio.mirror, results);

  return reply (ok, DM_IO_FLUSH, 0, 0, 0, results);
}

static int
dmio_extents (void *handle, uint32_t count, uint64_t offset, uint32_t flags,
              struct nbdkit_extents *extents)
{
  const uint32_t hole = NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
  uint64_t end = offset + count;
  struct bdev_extent extent;
  int r;

  if (!check_aligned ("block status", count, offset))
    return -1;
  while (offset < end) {
    r = dm_mirror_extent (dmio.mirror, offset / DM_IO_SECTOR_SIZE,
                          (end - offset) / DM_IO_SECTOR_SIZE, &extent);
    if (r < 0) {
      nbdkit_error ("block status at offset %" PRIu64 ": %s",
                    offset, strerror (-r));
      nbdkit_set_error (EIO);
      return -1;
    }
    if (nbdkit_add_extent (extents, offset, extent.length,
                           extent.hole ? hole : 0) == -1)
      return -1;
    if (flags & NBDKIT_FLAG_REQ_ONE)
      break;
    offset += extent.length;
  }
  return 0;
}

/* Only a hint: what it fails on, the read that follows will report. */
static int
dmio_cache (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  if (!check_aligned ("cache", count, offset))
    return -1;
  dm_mirror_prefetch (dmio.mirror, offset / DM_IO_SECTOR_SIZE,
                      count / DM_IO_SECTOR_SIZE);
  return 0;
}

static struct nbdkit_plugin plugin = {
  .name               = "dmio",
  .longname           = "nbdkit replicating plugin",
  .version            = PACKAGE_VERSION,
  .description        = "mirror a volume over files and block devices",
  .load               = dmio_load,
  .unload             = dmio_unload,
  .dump_plugin        = dmio_dump_plugin,
  .config             = dmio_config,
  .config_complete    = dmio_config_complete,
  .config_help        = dmio_config_help,
  .magic_config_key   = "region",
  .get_ready          = dmio_get_ready,
  .list_exports       = dmio_list_exports,
  .default_export     = dmio_default_export,
  .open               = dmio_open,
  .export_description = dmio_export_description,
  .get_size           = dmio_get_size,
  .block_size         = dmio_block_size,
  .can_write          = dmio_can_write,
  .can_flush          = yes,
  .can_trim           = yes,
  .can_zero           = yes,
  .can_fast_zero      = dmio_can_fast_zero,
  .can_fua            = dmio_can_fua,
  .can_extents        = yes,
  .can_cache          = dmio_can_cache,
  .can_multi_conn     = dmio_can_multi_conn,
  .is_rotational      = dmio_is_rotational,
  .pread              = dmio_pread,
  .pwrite             = dmio_pwrite,
  .flush              = dmio_flush,
  .trim               = dmio_trim,
  .zero               = dmio_zero,
  .extents            = dmio_extents,
  .cache              = dmio_cache,
};

NBDKIT_REGISTER_PLUGIN (plugin)
