/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "dmioctl-text.h"
#include "escape.h"

#define BAR_WIDTH 40

/*----------------------------------------------------------------------
 * What is in a status.  Numbers come as signed ones, or as floating point ones
 * if they have no fraction, or not at all from a server of another version.
 */

static double
get_double (GVariant *dict, const char *key)
{
  gint64 integer;
  double number;

  if (g_variant_lookup (dict, key, "d", &number))
    return number;
  return g_variant_lookup (dict, key, "x", &integer) ? integer : 0;
}

static uint64_t
get_number (GVariant *dict, const char *key)
{
  double number = get_double (dict, key);

  return number > 0 ? number : 0;
}

static const char *
get_string (GVariant *dict, const char *key)
{
  const char *string;

  return g_variant_lookup (dict, key, "&s", &string) ? string : NULL;
}

static bool
get_bool (GVariant *dict, const char *key)
{
  gboolean value;

  return g_variant_lookup (dict, key, "b", &value) && value;
}

/* For a line; empty if it is not there. */
static char *
get_line (GVariant *dict, const char *key)
{
  const char *string = get_string (dict, key);

  return escape_line (string != NULL ? string : "");
}

/* A list of dictionaries, each to be unreferenced. */
static GPtrArray *
get_list (GVariant *dict, const char *key)
{
  GPtrArray *list =
    g_ptr_array_new_with_free_func ((GDestroyNotify) g_variant_unref);
  g_autoptr (GVariant) value = g_variant_lookup_value (dict, key, NULL);
  size_t i;

  for (i = 0; value != NULL && g_variant_is_container (value) &&
         i < g_variant_n_children (value); i++) {
    GVariant *element = g_variant_get_child_value (value, i);

    if (g_variant_is_of_type (element, G_VARIANT_TYPE_VARIANT)) {
      GVariant *inner = g_variant_get_variant (element);

      g_variant_unref (element);
      element = inner;
    }
    g_ptr_array_add (list, element);
  }
  return list;
}

GPtrArray *
text_get_legs (GVariant *status)
{
  return get_list (status, "legs");
}

/*----------------------------------------------------------------------
 * status
 */

char *
text_size (uint64_t bytes)
{
  static const char *const units[] = {
    "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB",
  };
  double size = bytes;
  unsigned int i;

  for (i = 0; size >= 1024 && i + 1 < G_N_ELEMENTS (units); i++)
    size /= 1024;
  return g_strdup_printf (size < 10 && size != (unsigned int) size ?
                          "%.1f %s" : "%.0f %s", size, units[i]);
}

static int
widest (GPtrArray *legs, const char *key)
{
  size_t width = 0;
  guint i;

  for (i = 0; i < legs->len; i++) {
    g_autofree char *s = get_line (legs->pdata[i], key);

    width = MAX (width, strlen (s));
  }
  return width;
}

/* What there is to say of a leg that is not in sync. */
static char *
explain (GVariant *leg)
{
  uint64_t lacks = get_number (leg, "out_of_sync");
  g_autofree char *size = text_size (lacks);
  const char *state = get_string (leg, "state");
  g_autofree char *reason = get_line (leg, "reason");

  if (g_strcmp0 (state, "in sync") == 0)
    return g_strdup ("");
  if (g_strcmp0 (state, "recovering") == 0)
    return g_strdup_printf ("%3.0f %%  %s to copy",
                            get_double (leg, "progress"), size);
  return g_strdup_printf ("%s%s%s%s", reason,
                          *reason != '\0' && lacks > 0 ? "; " : "",
                          lacks > 0 ? size : "",
                          lacks > 0 ? " out of sync" : "");
}

static void
print_legs (GPtrArray *legs)
{
  int name_width = widest (legs, "spec"), state_width = widest (legs, "state");
  guint i;

  for (i = 0; i < legs->len; i++) {
    GVariant *leg = legs->pdata[i];
    g_autofree char *explanation = explain (leg);
    g_autofree char *name = get_line (leg, "spec");
    g_autofree char *state = get_line (leg, "state");
    g_autofree char *line =
      g_strdup_printf ("region %-2" PRIu64 "  %-*s  %-*s  %s",
                       get_number (leg, "number"),
                       name_width, name, state_width, state, explanation);

    printf ("%s\n", g_strchomp (line));
  }
}

/* Where the copies are that are in use, or those that are not. */
static char *
copies_in_line (GVariant *log, bool in_use)
{
  g_autoptr (GPtrArray) copies = get_list (log, "places");
  GString *line = g_string_new (NULL);
  guint i;

  for (i = 0; i < copies->len; i++) {
    g_autofree char *place = get_line (copies->pdata[i], "place");

    if (get_bool (copies->pdata[i], "in_use") == in_use)
      g_string_append_printf (line, "%s%s", line->len > 0 ? ", " : "",
                              *place != '\0' ? place : TEXT_NO_PLACE);
  }
  return g_string_free (line, FALSE);
}

static void
print_log (GVariant *status)
{
  g_autoptr (GVariant) log = g_variant_lookup_value (status, "log",
                                                     G_VARIANT_TYPE_VARDICT);
  g_autofree char *uuid = get_line (status, "uuid");
  g_autofree char *used = NULL, *unused = NULL;

  if (log == NULL || *uuid == '\0') {
    printf ("no log: nothing that fails is remembered\n");
    return;
  }
  used = copies_in_line (log, true);
  unused = copies_in_line (log, false);
  printf ("log %s, %" PRIu64 " of %" PRIu64 " copies in use%s%s%s%s\n", uuid,
          get_number (log, "copies"), get_number (log, "all"),
          *used != '\0' ? ": " : "", used,
          *unused != '\0' ? "; not in use: " : "", unused);
}

static void
print_work (GVariant *status)
{
  uint64_t to_reconcile = get_number (status, "to_reconcile");
  uint64_t rate = get_number (status, "rate");
  g_autofree char *bytes = text_size (to_reconcile);
  g_autofree char *speed = text_size (rate);

  if (to_reconcile > 0)
    printf ("%s may differ since the last server ended, and are made "
            "equal\n", bytes);
  if (rate > 0)
    printf ("copying %s/s\n", speed);
}

void
text_print_status (GVariant *status)
{
  g_autoptr (GPtrArray) legs = text_get_legs (status);
  g_autofree char *size = text_size (get_number (status, "size"));

  printf ("volume %s, %" PRIu64 " of %u legs in sync%s\n", size,
          get_number (status, "in_sync"), legs->len,
          get_bool (status, "degraded") ? ", degraded" : "");
  print_legs (legs);
  print_work (status);
  print_log (status);
}

/*----------------------------------------------------------------------
 * wait
 */

bool
text_is_in_sync (GVariant *status)
{
  return !get_bool (status, "degraded") &&
    get_number (status, "to_reconcile") == 0;
}

static uint64_t
left_to_do (GVariant *status)
{
  g_autoptr (GPtrArray) legs = text_get_legs (status);
  uint64_t left = get_number (status, "to_reconcile");
  guint i;

  for (i = 0; i < legs->len; i++)
    left += get_number (legs->pdata[i], "out_of_sync");
  return left;
}

void
text_draw_bar (struct text_bar *bar, GVariant *status)
{
  uint64_t left = left_to_do (status);
  g_autofree char *size = text_size (left);
  double done;
  int width;

  bar->all = MAX (bar->all, left);
  done = text_is_in_sync (status) ? 1 :
    bar->all == 0 ? 0 : 1.0 * (bar->all - left) / bar->all;
  bar->done = MAX (bar->done, done);
  width = bar->done * BAR_WIDTH;
  printf ("\r[%.*s%*s] %3d %%  %s to copy \033[K", width,
          "########################################", BAR_WIDTH - width, "",
          (int) (bar->done * 100), size);
  fflush (stdout);
}
