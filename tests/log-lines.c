/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include "log-lines.h"
#include "test-util.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static GString *lines;          /* owned by lock */

static void
keep_line (const char *domain, GLogLevelFlags level, const char *message,
           gpointer unused)
{
  if (level & (G_LOG_FLAG_FATAL | G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL)) {
    g_log_default_handler (domain, level, message, NULL);
    return;
  }
  if (level & (G_LOG_LEVEL_INFO | G_LOG_LEVEL_DEBUG))
    return;
  pthread_mutex_lock (&lock);
  g_string_append_printf (lines, "%s\n", message);
  pthread_mutex_unlock (&lock);
}

void
log_lines_keep (void)
{
  lines = g_string_new ("");
  g_log_set_always_fatal (G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL);
  g_log_set_handler ("dmio", G_LOG_LEVEL_MASK | G_LOG_FLAG_FATAL, keep_line,
                     NULL);
}

unsigned int
log_lines_count (const char *pattern)
{
  g_auto (GStrv) each = NULL;
  unsigned int n = 0, i;

  pthread_mutex_lock (&lock);
  each = g_strsplit (lines->str, "\n", -1);
  pthread_mutex_unlock (&lock);
  for (i = 0; each[i] != NULL && each[i+1] != NULL; i++)
    n += g_pattern_match_simple (pattern, each[i]);
  return n;
}

void
log_lines_clear (void)
{
  pthread_mutex_lock (&lock);
  g_string_truncate (lines, 0);
  pthread_mutex_unlock (&lock);
}

static void
give_up (const char *wanted)
{
  pthread_mutex_lock (&lock);
  g_error ("not one line '%s' in the log:\n%s", wanted, lines->str);
}

void
log_lines_await (const char *pattern)
{
  gint64 end = g_get_monotonic_time () + WAIT_SECONDS * G_USEC_PER_SEC;

  while (log_lines_count (pattern) == 0) {
    if (g_get_monotonic_time () > end)
      give_up (pattern);
    g_usleep (1000);
  }
}

void
log_lines_assert (const char *pattern, unsigned int n)
{
  if (log_lines_count (pattern) != 1 || log_lines_count ("*") != n)
    give_up (pattern);
}
