/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <stdarg.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <glib.h>

#include "escape.h"
#include "log.h"

static guint handler;

void
report_error (const char *fmt, ...)
{
  g_autofree char *message = NULL, *line = NULL;
  va_list args;

  va_start (args, fmt);
  message = g_strdup_vprintf (fmt, args);
  va_end (args);
  line = escape_line (message);
  nbdkit_error ("%s", line);
}

static void
to_nbdkit (const char *domain, GLogLevelFlags level, const char *message,
           gpointer unused)
{
  g_autofree char *line = NULL;

  if (level & (G_LOG_LEVEL_MESSAGE | G_LOG_LEVEL_INFO | G_LOG_LEVEL_DEBUG)) {
    line = escape_line (message);
    nbdkit_debug ("%s", line);
  }
  else
    report_error ("%s", message);
}

void
log_route (void)
{
  handler = g_log_set_handler (G_LOG_DOMAIN,
                               G_LOG_LEVEL_MASK | G_LOG_FLAG_FATAL |
                               G_LOG_FLAG_RECURSION,
                               to_nbdkit, NULL);
}

void
log_unroute (void)
{
  g_log_remove_handler (G_LOG_DOMAIN, handler);
}
