/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The nbdkit plugin: NBD requests as requests to the mirror.  What a mirror
 * does is in lib/; here is only what nbdkit and NBD want to have it like.
 *
 * Threads: nbdkit calls .config to .after_fork, .cleanup and .unload from one
 * thread, the last two when no request is in flight any more; what they
 * set does not change while clients are served.  The data callbacks run in many
 * threads at once and hold no lock.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <glib.h>

#include "assemble.h"
#include "control.h"
#include "control-socket.h"
#include "dm-mirror.h"
#include "failure-log.h"
#include "log.h"
#include "params.h"
#include "reply.h"
#include "ring.h"
#include "unaligned.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define MAX_REQUEST_SIZE (64 * 1024 * 1024)
#define MAX_EXTENTS 128         /* in one answer */

/* -D dmio.io=1: log what became of each request on each region. */
NBDKIT_DLL_PUBLIC int dmio_debug_io;

static struct {
  struct params params;
  struct control_socket *socket;
  struct assembly *assembly;
  struct dm_mirror *mirror;     /* that of the assembly */
  struct control *control;

  /* One struct dm_mirror_client for each connection.  nbdkit does not close those
   * that there are when it ends.
   */
  pthread_mutex_t lock;         /* owns the set; a leaf */
  GHashTable *clients;
} dmio = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void
dmio_load (void)
{
  struct sigaction act;

  log_route ();
  dmio.clients = g_hash_table_new_full (NULL, NULL, free, NULL);

  /* So that a write over RLIMIT_FSIZE fails with EFBIG. */
  if (sigaction (SIGXFSZ, NULL, &act) == 0 && act.sa_handler == SIG_DFL)
    signal (SIGXFSZ, SIG_IGN);
}

/* Not in .unload: who waits for nbdkit to end waits for the log, too. */
static void
dmio_cleanup (void)
{
  control_stop (dmio.control);
  control_socket_free (dmio.socket);
  assembly_free (dmio.assembly);
  unaligned_end ();
  dmio.control = NULL;
  dmio.socket = NULL;
  dmio.assembly = NULL;
}

static void
dmio_unload (void)
{
  params_clear (&dmio.params);
  g_hash_table_destroy (dmio.clients);
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
  printf ("dmio_logs=none file block-device nbd\n");
  printf ("dmio_control=json-rpc\n");
}

/*----------------------------------------------------------------------
 * The start
 */

static int
dmio_config (const char *key, const char *value)
{
  return params_set (&dmio.params, key, value);
}

static int
dmio_config_complete (void)
{
  return params_check (&dmio.params);
}

/* All that the user can have got wrong is found here, before nbdkit forks and
 * goes to another directory.  The socket comes first since it is the easiest
 * to take back.
 */
static int
dmio_get_ready (void)
{
  if (dmio.params.control != NULL) {
    dmio.socket = control_socket_new (dmio.params.control);
    if (dmio.socket == NULL)
      return -1;
  }
  dmio.assembly = assemble (&dmio.params);
  if (dmio.assembly == NULL) {
    control_socket_free (dmio.socket);
    return -1;
  }
  dmio.mirror = assembly_mirror (dmio.assembly);
  assembly_rest (dmio.assembly);
  return 0;
}

static int
dmio_after_fork (void)
{
  int r = dm_mirror_start (dmio.mirror);

  if (r == 0 && dmio.socket != NULL)
    r = control_start (dmio.socket, dmio.mirror,
                       assembly_legs (dmio.assembly), &dmio.control);
  if (r == 0)
    return 0;
  report_error ("cannot start a thread: %s", strerror (-r));
  return -1;
}

/*----------------------------------------------------------------------
 * Connections
 */

static const char *
dmio_export_description (void *handle)
{
  return nbdkit_printf_intern ("dmio mirror of %u regions",
                               dm_mirror_num_legs (dmio.mirror));
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
  struct dm_mirror_client *client = malloc (sizeof *client);

  if (client == NULL) {
    report_error ("no memory for another client");
    return NULL;
  }
  dm_mirror_client_init (dmio.mirror, client);
  pthread_mutex_lock (&dmio.lock);
  g_hash_table_add (dmio.clients, client);
  pthread_mutex_unlock (&dmio.lock);
  return client;
}

static void
dmio_close (void *handle)
{
  pthread_mutex_lock (&dmio.lock);
  g_hash_table_remove (dmio.clients, handle);
  pthread_mutex_unlock (&dmio.lock);
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
  unaligned_add (op, count, offset, unit);
  nbdkit_set_error (EINVAL);
  return false;
}

/* What became of a request; legs may be added meanwhile. */
struct outcome {
  unsigned int num_legs;
  struct dm_io_result results[DM_IO_MAX_REGIONS];
};

/* The others had no part in the request: their results are all zero. */
static bool
was_asked (const struct dm_io_result *result)
{
  return result->error != 0 || result->nsec != 0;
}

static void
trace (enum dm_io_op op, uint32_t count, uint64_t offset, unsigned int flags,
       const struct outcome *outcome)
{
  const struct dm_io_result *results = outcome->results;
  g_autoptr (GString) line = g_string_new (NULL);
  unsigned int i;

  g_string_append_printf (line, "%s count=%" PRIu32 " offset=%" PRIu64 "%s%s:",
                          failure_log_op_name (op), count, offset,
                          flags & DM_IO_FUA ? " fua" : "",
                          flags & DM_IO_NO_UNMAP ? " no-unmap" : "");
  for (i = 0; i < outcome->num_legs; i++)
    if (was_asked (&results[i]))
      g_string_append_printf (line, " region %u %s %" PRIu64 " us", i,
                              results[i].error ?
                              g_strerror (results[i].error) : "ok",
                              results[i].nsec / 1000);
  nbdkit_debug ("%s", line->str);
}

/* The end of every request; returns what the callback returns. */
static int
reply (bool ok, enum dm_io_op op, uint32_t count, uint64_t offset,
       unsigned int flags, const struct outcome *outcome)
{
  if (dmio_debug_io)
    trace (op, count, offset, flags, outcome);
  if (ok)
    return 0;
  nbdkit_set_error (reply_errno (outcome->results, outcome->num_legs));
  return -1;
}

static int
dmio_pread (void *handle, void *buf, uint32_t count, uint64_t offset,
            uint32_t flags)
{
  struct outcome outcome;
  bool ok;

  if (!check_aligned ("read", count, offset))
    return -1;
  outcome.num_legs = dm_mirror_num_legs (dmio.mirror);
  ok = dm_mirror_read (dmio.mirror, buf, offset / DM_IO_SECTOR_SIZE,
                       count / DM_IO_SECTOR_SIZE, outcome.results);
  return reply (ok, DM_IO_READ, count, offset, 0, &outcome);
}

/* Write, discard and write zeroes. */
static int
change (enum dm_io_op op, const void *buf, uint32_t count, uint64_t offset,
        unsigned int flags)
{
  struct outcome outcome;
  bool ok;

  if (!check_aligned (failure_log_op_name (op), count, offset))
    return -1;
  outcome.num_legs = dm_mirror_num_legs (dmio.mirror);
  ok = dm_mirror_write (dmio.mirror, op, flags, buf,
                        offset / DM_IO_SECTOR_SIZE,
                        count / DM_IO_SECTOR_SIZE, outcome.results);
  return reply (ok, op, count, offset, flags, &outcome);
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
  struct outcome outcome = { .num_legs = dm_mirror_num_legs (dmio.mirror) };
  bool ok = dm_mirror_flush (dmio.mirror, handle, outcome.results);

  return reply (ok, DM_IO_FLUSH, 0, 0, 0, &outcome);
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
    report_error ("block status at offset %" PRIu64 ": %s",
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
  .config_help        = PARAMS_HELP,
  .magic_config_key   = "region",
  .get_ready          = dmio_get_ready,
  .after_fork         = dmio_after_fork,
  .cleanup            = dmio_cleanup,
  .list_exports       = dmio_list_exports,
  .default_export     = dmio_default_export,
  .open               = dmio_open,
  .close              = dmio_close,
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

/* nbdkit's header has no declaration of what this defines. */
NBDKIT_DLL_PUBLIC struct nbdkit_plugin *plugin_init (void);
NBDKIT_REGISTER_PLUGIN (plugin)
