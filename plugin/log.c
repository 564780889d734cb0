/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <glib.h>

#include "log.h"

static guint handler;

static void
to_nbdkit (const char *domain, GLogLevelFlags level, const char *message,
           gpointer unused)
{
  if (level & (G_LOG_LEVEL_MESSAGE | G_LOG_LEVEL_INFO | G_LOG_LEVEL_DEBUG))
    nbdkit_debug ("%s", message);
  else
    nbdkit_error ("%s", message);
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
