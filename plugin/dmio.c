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
#include "ring.h"
#include "spec.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define MAX_REQUEST_SIZE (64 * 1024 * 1024)
#define MAX_EXTENTS 128         /* in one answer */
#define MAX_TIMEOUT 86400       /* seconds */

/* -D dmio.io=1: log what became of each request on each region. */
NBDKIT_DLL_PUBLIC int dmio_debug_io;

static struct {
  unsigned int num_regions;
  struct spec *specs[DM_IO_MAX_REGIONS];
  struct block_device *bdevs[DM_IO_MAX_REGIONS]; /* NULL: not open */
  bool log_none;
  bool has_read, has_timeout;
  enum dm_mirror_read read;
  unsigned int timeout;         /* seconds; 0: the default */
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
  int r = ring_probe ();

  printf ("dmio_version=%s\n", PACKAGE_VERSION);
  printf ("dmio_regions=file block-device nbd\n");
  if (r == 0)
    printf ("dmio_io_uring=yes\n");
  else
    printf ("dmio_io_uring=no (%s)\n", strerror (-r));
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
given_twice (const char *key)
{
  nbdkit_error ("%s= is given twice", key);
  return -1;
}

static int
set_log (const char *value)
{
  if (dmio.log_none)
    return given_twice ("log");
  if (strcmp (value, "none") != 0) {
    nbdkit_error ("log=%s: this version has no log yet, only log=none "
                  "is possible", value);
    return -1;
  }
  dmio.log_none = true;
  return 0;
}

static int
set_read (const char *value)
{
  if (dmio.has_read)
    return given_twice ("read");
  dmio.has_read = true;
  if (strcmp (value, "balance") == 0)
    dmio.read = DM_MIRROR_READ_BALANCE;
  else if (strcmp (value, "first") == 0)
    dmio.read = DM_MIRROR_READ_FIRST;
  else {
    nbdkit_error ("read=%s: it can be balance or first", value);
    return -1;
  }
  return 0;
}

static int
set_timeout (const char *value)
{
  guint64 seconds;

  if (dmio.has_timeout)
    return given_twice ("timeout");
  dmio.has_timeout = true;
  if (!g_ascii_string_to_unsigned (value, 10, 1, MAX_TIMEOUT, &seconds,
                                   NULL)) {
    nbdkit_error ("timeout=%s: give a number of seconds from 1 to %d",
                  value, MAX_TIMEOUT);
    return -1;
  }
  dmio.timeout = seconds;
  return 0;
}

static int
dmio_config (const char *key, const char *value)
{
  if (strcmp (key, "region") == 0)
    return add_region (value);
  if (strcmp (key, "log") == 0)
    return set_log (value);
  if (strcmp (key, "read") == 0)
    return set_read (value);
  if (strcmp (key, "timeout") == 0)
    return set_timeout (value);

  nbdkit_error ("unknown parameter '%s'; known are region=SPEC, log=none, "
                "read=balance|first and timeout=SECONDS (a file with '=' "
                "in its name needs region= before it)", key);
  return -1;
}

static int
dmio_config_complete (void)
{
  if (dmio.num_regions == 0) {
    nbdkit_error ("no region was given; name at least one file, block "
                  "device or NBD server, for example: nbdkit dmio a.img "
                  "b.img log=none");
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
  "               PATH or NBD URI, then any of\n"                       \
  "               ,sector=N ,count=N   from sector N on, N sectors of\n" \
  "                                    512 bytes\n"                     \
  "               ,direct=on|off       past the page cache or through\n" \
  "                                    it; default on for block\n"      \
  "                                    devices, off for files\n"        \
  "               ,write-mostly        read only if no other can be\n"  \
  "               ',,' stands for a comma in the path or URI.\n"        \
  "log=none       (required) Remember no failed or interrupted write.\n" \
  "               This version knows nothing else.\n"                   \
  "read=balance   Read from the region that can be expected to answer\n" \
  "               first (default), or\n"                                \
  "read=first     from the first that can be read.\n"                   \
  "timeout=SECS   How long an NBD server may take to connect and to\n"  \
  "               answer a request (default 30)."

static bool
open_region (unsigned int i, struct dm_mirror_leg *leg)
{
  const struct spec *spec = dmio.specs[i];
  const struct dm_bdev_options options = {
    .flags = spec->direct, .timeout = dmio.timeout,
  };
  g_autofree char *message = NULL;
  char *error;

  dmio.bdevs[i] = dm_bdev_open (spec->device, &options, &error);
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
  leg->write_mostly = spec->write_mostly;
  return true;
}

/* Say what a careful administrator wants to know about the regions. */
static void
report_region (unsigned int i, const struct dm_mirror_leg *leg)
{
  sector_t size = dm_mirror_sectors (dmio.mirror);
  const struct block_device *bdev = leg->region.bdev;

  if (leg->region.count > size && !bdev->endless)
    nbdkit_error ("region %u (%s) is larger than the volume, which has %"
                  PRIu64 " bytes in whole blocks of %u; the rest of the "
                  "region is not used", i, leg->name,
                  size * DM_IO_SECTOR_SIZE,
                  dm_mirror_block_size (dmio.mirror));
  if (bdev->read_only && !dm_mirror_read_only (dmio.mirror))
    nbdkit_error ("region %u (%s) is read-only: every write to the volume "
                  "will fail", i, leg->name);
}

/* Regions are opened here, before nbdkit forks, so that errors are seen
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
  dmio.mirror = dm_mirror_new (dmio.num_regions, legs, dmio.read);
  for (i = 0; i < dmio.num_regions; i++)
    report_region (i, &legs[i]);
  return 0;
}

static int
dmio_after_fork (void)
{
  int r = dm_mirror_attend (dmio.mirror);

  if (r == 0)
    return 0;
  nbdkit_error ("cannot start a thread: %s", strerror (-r));
  return -1;
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
  *minimum = dm_mirror_block_size (dmio.mirror);
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
  unsigned int unit = dm_mirror_block_size (dmio.mirror);

  if (((offset | count) & (unit - 1)) == 0)
    return true;
  nbdkit_error ("%s of %" PRIu32 " bytes at offset %" PRIu64 " is not in "
                "whole blocks of %u bytes; add --filter=blocksize for a "
                "client that ignores the minimum block size",
                op, count, offset, unit);
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

static uint32_t
extent_type (const struct bdev_extent *extent)
{
  return (extent->hole ? NBDKIT_EXTENT_HOLE : 0) |
    (extent->zero ? NBDKIT_EXTENT_ZERO : 0);
}

/* The client asks again for what is behind the last extent. */
static int
dmio_extents (void *handle, uint32_t count, uint64_t offset, uint32_t flags,
              struct nbdkit_extents *extents)
{
  struct bdev_extent extent[MAX_EXTENTS];
  int max = flags & NBDKIT_FLAG_REQ_ONE ? 1 : MAX_EXTENTS;
  int n, i;

  if (!check_aligned ("block status", count, offset))
    return -1;
  n = dm_mirror_extents (dmio.mirror, offset / DM_IO_SECTOR_SIZE,
                         count / DM_IO_SECTOR_SIZE, extent, max);
  if (n < 0) {
    nbdkit_error ("block status at offset %" PRIu64 ": %s",
                  offset, strerror (-n));
    nbdkit_set_error (EIO);
    return -1;
  }
  for (i = 0; i < n; i++) {
    if (nbdkit_add_extent (extents, offset, extent[i].length,
                           extent_type (&extent[i])) == -1)
      return -1;
    offset += extent[i].length;
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
  .description        = "mirror a volume over files, block devices and "
                        "NBD servers",
  .load               = dmio_load,
  .unload             = dmio_unload,
  .dump_plugin        = dmio_dump_plugin,
  .config             = dmio_config,
  .config_complete    = dmio_config_complete,
  .config_help        = dmio_config_help,
  .magic_config_key   = "region",
  .get_ready          = dmio_get_ready,
  .after_fork         = dmio_after_fork,
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
