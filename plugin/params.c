/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <glib.h>

#include "log.h"
#include "params.h"

#define MAX_TIMEOUT 86400       /* seconds */
#define MIN_CHUNK (DM_LOG_MIN_CHUNK * DM_IO_SECTOR_SIZE)
#define MAX_CHUNK (DM_LOG_MAX_CHUNK * DM_IO_SECTOR_SIZE)

static int
set_region (struct params *p, const char *value)
{
  g_autofree char *error = NULL;
  struct spec *spec;

  if (p->num_regions == DM_IO_MAX_REGIONS) {
    report_error ("region '%s': there can be at most %zu regions",
                  value, DM_IO_MAX_REGIONS);
    return -1;
  }
  spec = spec_parse_region (value, &error);
  if (spec == NULL) {
    report_error ("%s", error);
    return -1;
  }
  p->regions[p->num_regions++] = spec;
  return 0;
}

static int
add_log (struct params *p, const char *value)
{
  g_autofree char *error = NULL;
  struct spec *spec;

  if (p->num_logs == DM_IO_MAX_REGIONS) {
    report_error ("log copy '%s': there can be at most %zu copies of the log",
                  value, DM_IO_MAX_REGIONS);
    return -1;
  }
  spec = spec_parse_log (value, &error);
  if (spec == NULL) {
    report_error ("%s; or say log=none", error);
    return -1;
  }
  p->logs[p->num_logs++] = spec;
  return 0;
}

static int
set_log (struct params *p, const char *value)
{
  bool none = strcmp (value, "none") == 0;

  if (none && p->log_none) {
    report_error ("log=none is given twice");
    return -1;
  }
  if (p->log_none || (none && p->num_logs > 0)) {
    report_error ("log=%s: with log=none there are no copies of the log; "
                  "leave out one of them (./none is a file of that name)",
                  value);
    return -1;
  }
  if (!none)
    return add_log (p, value);
  p->log_none = true;
  return 0;
}

static int
set_init (struct params *p, const char *value)
{
  if (strcmp (value, "clean") == 0)
    p->init = INIT_CLEAN;
  else if (strcmp (value, "sync") == 0)
    p->init = INIT_SYNC;
  else {
    report_error ("init=%s: it can be clean (the regions are alike) or sync "
                  "(copy the first over the others)", value);
    return -1;
  }
  return 0;
}

static int
set_chunk (struct params *p, const char *value)
{
  int64_t size = nbdkit_parse_size (value);

  if (size < MIN_CHUNK || (uint64_t) size > MAX_CHUNK ||
      (size & (size - 1)) != 0) {
    report_error ("chunk=%s: give a power of two from 64K to 1T", value);
    return -1;
  }
  p->chunk = size;
  return 0;
}

/* A plain number from 1 to MAX. */
static int
parse_number (const char *key, const char *value, unsigned int max,
              const char *what, unsigned int *number)
{
  guint64 n;

  if (!g_ascii_string_to_unsigned (value, 10, 1, max, &n, NULL)) {
    report_error ("%s=%s: give a number of %s from 1 to %u",
                  key, value, what, max);
    return -1;
  }
  *number = n;
  return 0;
}

static int
set_quorum (struct params *p, const char *value)
{
  return parse_number ("quorum", value, DM_IO_MAX_REGIONS, "regions",
                       &p->quorum);
}

static int
set_read (struct params *p, const char *value)
{
  if (strcmp (value, "balance") == 0)
    p->read = DM_MIRROR_READ_BALANCE;
  else if (strcmp (value, "first") == 0)
    p->read = DM_MIRROR_READ_FIRST;
  else {
    report_error ("read=%s: it can be balance or first", value);
    return -1;
  }
  return 0;
}

static int
set_timeout (struct params *p, const char *value)
{
  return parse_number ("timeout", value, MAX_TIMEOUT, "seconds",
                       &p->timeout);
}

static int
set_degraded (struct params *p, const char *value)
{
  if (strcmp (value, "yes") != 0 && strcmp (value, "no") != 0) {
    report_error ("degraded=%s: it can be yes or no", value);
    return -1;
  }
  p->degraded = strcmp (value, "yes") == 0;
  return 0;
}

static int
set_control (struct params *p, const char *value)
{
  struct sockaddr_un address;

  if (value[0] == '\0') {
    report_error ("control=: the path is empty; name a socket to be made");
    return -1;
  }
  p->control = g_canonicalize_filename (value, NULL);
  if (strlen (p->control) >= sizeof address.sun_path) {
    report_error ("control=%s: %s is too long for a Unix socket, which can "
                  "have %zu bytes; use a shorter one", value, p->control,
                  sizeof address.sun_path - 1);
    return -1;
  }
  return 0;
}

static int
set_resync_rate (struct params *p, const char *value)
{
  int64_t rate = nbdkit_parse_size (value);

  if (rate == -1) {
    report_error ("resync-rate=%s: give a number of bytes per second, such "
                  "as 50M; 0 is no limit", value);
    return -1;
  }
  p->resync_rate = rate;
  return 0;
}

static const struct {
  const char *key;
  int (*set) (struct params *p, const char *value);
  bool repeated;                /* can be given several times */
  bool of_log;                  /* has no meaning without a log */
} known[] = {
  { "region", set_region, .repeated = true },
  { "log", set_log, .repeated = true },
  { "init", set_init, .of_log = true },
  { "chunk", set_chunk, .of_log = true },
  { "degraded", set_degraded, .of_log = true },
  { "quorum", set_quorum, .of_log = true },
  { "resync-rate", set_resync_rate, .of_log = true },
  { .key = "control", .set = set_control },
  { .key = "read", .set = set_read },
  { .key = "timeout", .set = set_timeout },
};

int
params_set (struct params *p, const char *key, const char *value)
{
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (known); i++)
    if (strcmp (key, known[i].key) == 0)
      break;
  if (i == G_N_ELEMENTS (known)) {
    report_error ("unknown parameter '%s'; known are region=SPEC, "
                  "log=SPEC|none, init=clean|sync, chunk=SIZE, degraded=yes, "
                  "quorum=N, resync-rate=SIZE, control=SOCKET, "
                  "read=balance|first and timeout=SECONDS (a file with '=' "
                  "in its name needs region= before it)", key);
    return -1;
  }
  if (!known[i].repeated && p->given & 1U << i) {
    report_error ("%s= is given twice", key);
    return -1;
  }
  p->given |= 1U << i;
  return known[i].set (p, value);
}

static int
check_log_none (const struct params *p)
{
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (known); i++)
    if (known[i].of_log && p->given & 1U << i) {
      report_error ("%s= has no meaning with log=none; leave out one of them",
                    known[i].key);
      return -1;
    }
  return 0;
}

int
params_check (const struct params *p)
{
  if (p->num_regions == 0) {
    report_error ("no region was given; name at least one file, block "
                  "device or NBD server, for example: nbdkit dmio a.img "
                  "b.img init=sync");
    return -1;
  }
  if (p->quorum > p->num_regions) {
    report_error ("quorum=%u: there are only %u regions, so no write could "
                  "succeed", p->quorum, p->num_regions);
    return -1;
  }
  return p->log_none ? check_log_none (p) : 0;
}

void
params_clear (struct params *p)
{
  unsigned int i;

  for (i = 0; i < p->num_regions; i++)
    spec_unref (p->regions[i]);
  for (i = 0; i < p->num_logs; i++)
    spec_unref (p->logs[i]);
  g_free (p->control);
}
